/* The tile product: a few rows times one block, accumulators in registers.  Knows nothing of cells.
 *
 *   acc[m][v] = init[m][v];  then for each segment s, for k ascending: acc[m][v] += a_s[m][k] * panel_s[k][v]
 *
 * Two segments, because a recurrent step's chain runs over x and then over h.  One instance per (rows, vectors), so
 * that the loops over m and v unroll completely and acc lives in registers: FL_MR rows x 4 vectors fill the
 * register file.  A single row has too few chains to hide the latency of an fma, so it takes two blocks at a time. */

#if defined(__clang__)
#define FL_UNROLL _Pragma("clang loop unroll(full)")
#else
#define FL_UNROLL _Pragma("GCC unroll 16")
#endif

#ifndef FL_SEGMENT_TYPES
#define FL_SEGMENT_TYPES
typedef struct fl_segment {
    const void *const *a; /* (rows) -> (k) */
    const void *panel;    /* first block */
    int64_t k;
} fl_segment;

typedef struct fl_tile {
    fl_segment segment[2];
    const void *const *init; /* (rows) -> (blocks, vectors, W), or NULL */
    const void *bias;        /* (blocks, vectors, W), used when init is NULL; may be NULL: zero */
    int64_t init_offset;     /* added to every init row, in reals */
    void *const *out;        /* (rows) -> (blocks, vectors, W) */
    int64_t out_offset;      /* added to every out row, in reals */
    int64_t block_vectors;   /* vectors of a block in the panel, at least those computed */
} fl_tile;
#endif

/* mr rows, nb neighbouring blocks, nv vectors of each */
FL_INLINE void V(accumulate)(vec *acc, const int mr, const int nb, const int nv, const fl_segment *s,
                             int64_t block_vectors)
{
    const int64_t stride = block_vectors * FL_W;
    const int64_t next_block = s->k * stride;
    const real *panel = (const real *)s->panel;
    const real *a[8];
    FL_UNROLL
    for (int m = 0; m < mr; m++) a[m] = (const real *)s->a[m];
    const int64_t k = s->k;
    for (int64_t i = 0; i < k; i++, panel += stride) {
        vec x[8];
        FL_UNROLL
        for (int m = 0; m < mr; m++) x[m] = V(set1)(a[m][i]);
        FL_UNROLL
        for (int b = 0; b < nb; b++) {
            FL_UNROLL
            for (int v = 0; v < nv; v++) {
                const vec w = V(load)(panel + b * next_block + v * FL_W);
                FL_UNROLL
                for (int m = 0; m < mr; m++) {
                    vec *t = &acc[(m * nb + b) * nv + v];
                    *t = V(fma)(x[m], w, *t);
                }
            }
        }
    }
}

FL_INLINE void V(tile_body)(const fl_tile *t, const int mr, const int nb, const int nv)
{
    vec acc[24];
    const int64_t block = t->block_vectors * FL_W;
    FL_UNROLL
    for (int m = 0; m < mr; m++) {
        const real *from = t->init ? (const real *)t->init[m] + t->init_offset : (const real *)t->bias;
        FL_UNROLL
        for (int b = 0; b < nb; b++) {
            FL_UNROLL
            for (int v = 0; v < nv; v++)
                acc[(m * nb + b) * nv + v] = from ? V(load)(from + b * block + v * FL_W) : V(zero)();
        }
    }
    if (t->segment[0].k) V(accumulate)(acc, mr, nb, nv, &t->segment[0], t->block_vectors);
    if (t->segment[1].k) V(accumulate)(acc, mr, nb, nv, &t->segment[1], t->block_vectors);
    FL_UNROLL
    for (int m = 0; m < mr; m++) {
        real *to = (real *)t->out[m] + t->out_offset;
        FL_UNROLL
        for (int b = 0; b < nb; b++) {
            FL_UNROLL
            for (int v = 0; v < nv; v++) V(store)(to + b * block + v * FL_W, acc[(m * nb + b) * nv + v]);
        }
    }
}

#define FL_TILE(mr, nb, nv)                                  \
    static void V(tile_##mr##x##nb##x##nv)(const fl_tile *t) \
    {                                                        \
        V(tile_body)(t, mr, nb, nv);                         \
    }
#define FL_TILE_ROWS(nv) FL_TILE(1, 1, nv) FL_TILE(2, 1, nv) FL_TILE(3, 1, nv) FL_TILE_4(nv) FL_TILE_56(nv)
#if FL_MR >= 4
#define FL_TILE_4(nv) FL_TILE(4, 1, nv)
#else
#define FL_TILE_4(nv)
#endif
#if FL_MR >= 6
#define FL_TILE_56(nv) FL_TILE(5, 1, nv) FL_TILE(6, 1, nv)
#else
#define FL_TILE_56(nv)
#endif
FL_TILE_ROWS(1)
FL_TILE_ROWS(2)
FL_TILE_ROWS(3)
FL_TILE_ROWS(4)
FL_TILE(1, 2, 1)
FL_TILE(1, 2, 2)
FL_TILE(1, 2, 3)
FL_TILE(1, 2, 4)

/* [vectors - 1][rows]; row count 0 is the pair of blocks for a single row */
static void (*const V(tiles)[4][FL_MR + 1])(const fl_tile *) = {
#if FL_MR >= 6
#define FL_TILE_SLOTS(nv) V(tile_4x1x##nv), V(tile_5x1x##nv), V(tile_6x1x##nv)
#elif FL_MR >= 4
#define FL_TILE_SLOTS(nv) V(tile_4x1x##nv)
#else
#define FL_TILE_SLOTS(nv)
#endif
#define FL_TILE_SLOT(nv) {V(tile_1x2x##nv), V(tile_1x1x##nv), V(tile_2x1x##nv), V(tile_3x1x##nv), FL_TILE_SLOTS(nv)}
    FL_TILE_SLOT(1), FL_TILE_SLOT(2), FL_TILE_SLOT(3), FL_TILE_SLOT(4)};
#undef FL_TILE
#undef FL_TILE_4
#undef FL_TILE_56
#undef FL_TILE_ROWS
#undef FL_TILE_SLOT
#undef FL_TILE_SLOTS

/* Rows are cut into tiles of nearly equal height: 8 rows are 4 + 4, not 6 + 2. */
FL_INLINE int64_t V(tile_height)(int64_t rows, int64_t left)
{
    const int64_t tiles = (rows + FL_MR - 1) / FL_MR;
    const int64_t base = rows / tiles, extra = rows % tiles;
    /* the first `extra` tiles are one row taller */
    return left > (tiles - extra) * base ? base + 1 : base;
}

/* --- the outer product of the weight gradients */

/* c[j + m][n .. n + nv*W) += sum_r g[r][m] * a[r][n ..); g packed (rows, mr), `last` lanes valid in the last vector */
FL_INLINE void V(outer_body)(const real *g, const void *const *a, int64_t rows, real *c, int64_t ldc, int64_t n,
                             int last, const int mr, const int nv)
{
    vec acc[24];
    FL_UNROLL
    for (int i = 0; i < mr * nv; i++) acc[i] = V(zero)();
    for (int64_t r = 0; r < rows; r++, g += mr) {
        const real *row = (const real *)a[r] + n;
        vec w[4];
        FL_UNROLL
        for (int v = 0; v < nv; v++)
            w[v] = v < nv - 1 || last == FL_W ? V(load)(row + v * FL_W) : V(load_n)(row + v * FL_W, last);
        FL_UNROLL
        for (int m = 0; m < mr; m++) {
            const vec x = V(set1)(g[m]);
            FL_UNROLL
            for (int v = 0; v < nv; v++) acc[m * nv + v] = V(fma)(x, w[v], acc[m * nv + v]);
        }
    }
    FL_UNROLL
    for (int m = 0; m < mr; m++) {
        FL_UNROLL
        for (int v = 0; v < nv; v++) {
            real *to = c + m * ldc + n + v * FL_W;
            const int lanes = v == nv - 1 ? last : FL_W;
            V(store_n)(to, V(add)(V(load_n)(to, lanes), acc[m * nv + v]), lanes);
        }
    }
}

#define FL_OUTER(mr, nv)                                                                                        \
    static void V(outer_##mr##x##nv)(const real *g, const void *const *a, int64_t rows, real *c, int64_t ldc,   \
                                     int64_t n, int last)                                                       \
    {                                                                                                           \
        if (last == FL_W)                                                                                       \
            V(outer_body)(g, a, rows, c, ldc, n, FL_W, mr, nv);                                                 \
        else                                                                                                    \
            V(outer_body)(g, a, rows, c, ldc, n, last, mr, nv);                                                 \
    }
#define FL_OUTER_COLUMNS(mr) FL_OUTER(mr, 1) FL_OUTER(mr, 2) FL_OUTER(mr, 3) FL_OUTER(mr, 4)
FL_OUTER_COLUMNS(1)
FL_OUTER_COLUMNS(2)
FL_OUTER_COLUMNS(3)
#define FL_OUTER_SLOT(mr) {V(outer_##mr##x1), V(outer_##mr##x2), V(outer_##mr##x3), V(outer_##mr##x4)}
#if FL_MR >= 4
FL_OUTER_COLUMNS(4)
#endif
#if FL_MR >= 6
FL_OUTER_COLUMNS(5)
FL_OUTER_COLUMNS(6)
#endif
static void (*const V(outers)[FL_MR][4])(const real *, const void *const *, int64_t, real *, int64_t, int64_t,
                                         int) = {
    FL_OUTER_SLOT(1), FL_OUTER_SLOT(2), FL_OUTER_SLOT(3),
#if FL_MR >= 4
    FL_OUTER_SLOT(4),
#endif
#if FL_MR >= 6
    FL_OUTER_SLOT(5), FL_OUTER_SLOT(6),
#endif
};
#undef FL_OUTER
#undef FL_OUTER_COLUMNS
#undef FL_OUTER_SLOT
