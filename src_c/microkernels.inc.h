/* The tile product: a few rows times a few vectors of a panel, accumulators in registers.  Knows nothing of cells.
 *
 *   acc[m][v] = init[m][v];  then for each segment s, for k ascending: acc[m][v] += a_s[m][k] * panel_s[k][v]
 *
 * Two segments, because a recurrent step's chain runs over x and then over h.  One instance per shape, so that the
 * loops over m and v unroll completely and acc lives in registers: FL_MR rows x 4 vectors fill the register file.
 * Up to FL_PAIR_ROWS rows take two blocks at a time: one row has too few chains to hide the latency of an fma, and two
 * or three ask for weights faster than one stream of them comes from L2 (0.79 of the FMA peak against 0.90 with two
 * streams, AVX-512, Zen 4).  A single row takes a narrow last block together with the full ones before it. */

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
    const void *const *init; /* (rows) -> (all vectors, W), or NULL */
    const void *bias;        /* (all vectors, W), used when init is NULL; may be NULL: zero */
    int64_t init_offset;     /* added to every init row, in reals */
    void *const *out;        /* (rows) -> (all vectors, W) */
    int64_t out_offset;      /* added to every out row, in reals */
} fl_tile;
#endif

/* mr rows, nb neighbouring blocks of nv vectors each, and after them a last block of nt vectors (0: none) */
FL_INLINE void V(accumulate)(vec *acc, const int mr, const int nb, const int nv, const int nt, const fl_segment *s)
{
    const int all = nb * nv + nt;
    const int64_t next_block = s->k * nv * FL_W;
    const real *panel = (const real *)s->panel;
    const real *last = panel + nb * next_block;
    const real *a[8];
    FL_UNROLL
    for (int m = 0; m < mr; m++) a[m] = (const real *)s->a[m];
    const int64_t k = s->k;
    for (int64_t i = 0; i < k; i++, panel += nv * FL_W, last += nt * FL_W) {
        vec x[8];
        FL_UNROLL
        for (int m = 0; m < mr; m++) x[m] = V(set1)(a[m][i]);
        FL_UNROLL
        for (int v = 0; v < all; v++) {
            const real *from = v < nb * nv ? panel + v / nv * next_block + v % nv * FL_W : last + (v - nb * nv) * FL_W;
            const vec w = V(load)(from);
            FL_UNROLL
            for (int m = 0; m < mr; m++) acc[m * all + v] = V(fma)(x[m], w, acc[m * all + v]);
        }
    }
}

FL_INLINE void V(tile_body)(const fl_tile *t, const int mr, const int nb, const int nv, const int nt)
{
    vec acc[24];
    const int all = nb * nv + nt;
    FL_UNROLL
    for (int m = 0; m < mr; m++) {
        const real *from = t->init ? (const real *)t->init[m] + t->init_offset : (const real *)t->bias;
        FL_UNROLL
        for (int v = 0; v < all; v++) acc[m * all + v] = from ? V(load)(from + v * FL_W) : V(zero)();
    }
    if (t->segment[0].k) V(accumulate)(acc, mr, nb, nv, nt, &t->segment[0]);
    if (t->segment[1].k) V(accumulate)(acc, mr, nb, nv, nt, &t->segment[1]);
    FL_UNROLL
    for (int m = 0; m < mr; m++) {
        real *to = (real *)t->out[m] + t->out_offset;
        FL_UNROLL
        for (int v = 0; v < all; v++) V(store)(to + v * FL_W, acc[m * all + v]);
    }
}

#define FL_TILE(mr, nb, nv, nt) \
    static void V(tile_##mr##x##nb##x##nv##p##nt)(const fl_tile *t) { V(tile_body)(t, mr, nb, nv, nt); }
#define FL_TILE_ROWS(nv) FL_TILE(2, 1, nv, 0) FL_TILE(3, 1, nv, 0) FL_TILE_4(nv) FL_TILE_56(nv)
#if FL_MR >= 4
#define FL_TILE_4(nv) FL_TILE(4, 1, nv, 0)
#else
#define FL_TILE_4(nv)
#endif
#if FL_MR >= 6
#define FL_TILE_56(nv) FL_TILE(5, 1, nv, 0) FL_TILE(6, 1, nv, 0)
#else
#define FL_TILE_56(nv)
#endif
FL_TILE_ROWS(1)
FL_TILE_ROWS(2)
FL_TILE_ROWS(3)
FL_TILE_ROWS(4)
#if FL_PAIR_ROWS >= 3
FL_TILE(2, 2, 1, 0)
FL_TILE(2, 2, 2, 0) FL_TILE(2, 2, 3, 0) FL_TILE(2, 2, 4, 0) FL_TILE(3, 2, 1, 0) FL_TILE(3, 2, 2, 0) FL_TILE(3, 2, 3, 0)
    FL_TILE(3, 2, 4, 0)
#endif
#define FL_TILE_SINGLE(nv, nt) FL_TILE(1, 1, nv, nt) FL_TILE(1, 2, nv, nt)
        FL_TILE_SINGLE(1, 0) FL_TILE_SINGLE(2, 0) FL_TILE_SINGLE(2, 1) FL_TILE_SINGLE(3, 0) FL_TILE_SINGLE(3, 1)
            FL_TILE_SINGLE(3, 2) FL_TILE_SINGLE(4, 0) FL_TILE_SINGLE(4, 1) FL_TILE_SINGLE(4, 2) FL_TILE_SINGLE(4, 3)

                typedef void (*V(tile_fn))(const fl_tile *);

/* one block, [vectors - 1][rows - 1] */
static const V(tile_fn) V(tiles)[FL_PANEL_VECTORS][FL_MR] = {
#if FL_MR >= 6
#define FL_TILE_SLOTS(nv) V(tile_4x1x##nv##p0), V(tile_5x1x##nv##p0), V(tile_6x1x##nv##p0)
#elif FL_MR >= 4
#define FL_TILE_SLOTS(nv) V(tile_4x1x##nv##p0)
#else
#define FL_TILE_SLOTS(nv)
#endif
#define FL_TILE_SLOT(nv)                                                                    \
    {                                                                                       \
        V(tile_1x1x##nv##p0), V(tile_2x1x##nv##p0), V(tile_3x1x##nv##p0), FL_TILE_SLOTS(nv) \
    }
    FL_TILE_SLOT(1), FL_TILE_SLOT(2), FL_TILE_SLOT(3), FL_TILE_SLOT(4)};

/* one row, one or two full blocks and a narrower one: [vectors - 1][full blocks - 1][vectors of the last] */
#define FL_SINGLE(nv, nt) V(tile_1x1x##nv##p##nt)
#define FL_DOUBLE(nv, nt) V(tile_1x2x##nv##p##nt)
static const V(tile_fn) V(single_tiles)[FL_PANEL_VECTORS][2][FL_PANEL_VECTORS] = {
    {{FL_SINGLE(1, 0)}, {FL_DOUBLE(1, 0)}},
    {{FL_SINGLE(2, 0), FL_SINGLE(2, 1)}, {FL_DOUBLE(2, 0), FL_DOUBLE(2, 1)}},
    {{FL_SINGLE(3, 0), FL_SINGLE(3, 1), FL_SINGLE(3, 2)}, {FL_DOUBLE(3, 0), FL_DOUBLE(3, 1), FL_DOUBLE(3, 2)}},
    {{FL_SINGLE(4, 0), FL_SINGLE(4, 1), FL_SINGLE(4, 2), FL_SINGLE(4, 3)},
     {FL_DOUBLE(4, 0), FL_DOUBLE(4, 1), FL_DOUBLE(4, 2), FL_DOUBLE(4, 3)}},
};

#if FL_PAIR_ROWS >= 3
/* two or three rows, two full blocks: [vectors - 1][rows - 2] */
static const V(tile_fn) V(pair_tiles)[FL_PANEL_VECTORS][2] = {
    {V(tile_2x2x1p0), V(tile_3x2x1p0)},
    {V(tile_2x2x2p0), V(tile_3x2x2p0)},
    {V(tile_2x2x3p0), V(tile_3x2x3p0)},
    {V(tile_2x2x4p0), V(tile_3x2x4p0)},
};
#endif
#undef FL_SINGLE
#undef FL_DOUBLE
#undef FL_TILE
#undef FL_TILE_4
#undef FL_TILE_56
#undef FL_TILE_ROWS
#undef FL_TILE_SINGLE
#undef FL_TILE_SLOT
#undef FL_TILE_SLOTS

/* Which blocks one tile takes: `full` full ones from `first` on, and `last` vectors of the narrower one after them. */
typedef struct V(group) {
    int64_t first;
    int full, last;
} V(group);

/* How many groups [block0, block1) makes, and the i-th of them.  narrow: vectors of block1 - 1 if it is the narrower
 * one, else 0.  It is a group of its own, but for a single row. */
FL_INLINE int64_t V(groups)(int64_t blocks, int narrow, int64_t rows)
{
    const int64_t full = narrow ? blocks - 1 : blocks, size = rows <= FL_PAIR_ROWS ? 2 : 1;
    const int64_t groups = (full + size - 1) / size;
    return groups + (narrow && (rows > 1 || !full));
}

FL_INLINE V(group) V(group_at)(int64_t i, int64_t block0, int64_t block1, int narrow, int64_t rows)
{
    const int64_t size = rows <= FL_PAIR_ROWS ? 2 : 1, first = block0 + size * i;
    const int64_t left = (narrow ? block1 - 1 : block1) - first;
    if (left <= 0) return (V(group)){block1 - 1, 0, narrow};
    return (V(group)){first, (int)(left < size ? left : size), rows == 1 && left <= size ? narrow : 0};
}

FL_INLINE V(tile_fn) V(tile_of)(V(group) g, int vectors, int mr)
{
    if (vectors > 1 && !g.full) return V(tiles)[g.last - 1][mr - 1];
    if (mr == 1) return V(single_tiles)[vectors - 1][g.full - 1][g.last];
#if FL_PAIR_ROWS >= 3
    if (g.full == 2) return V(pair_tiles)[vectors - 1][mr - 2];
#endif
    return V(tiles)[vectors - 1][mr - 1];
}

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

#define FL_OUTER(mr, nv)                                                                                      \
    static void V(outer_##mr##x##nv)(const real *g, const void *const *a, int64_t rows, real *c, int64_t ldc, \
                                     int64_t n, int last)                                                     \
    {                                                                                                         \
        if (last == FL_W)                                                                                     \
            V(outer_body)(g, a, rows, c, ldc, n, FL_W, mr, nv);                                               \
        else                                                                                                  \
            V(outer_body)(g, a, rows, c, ldc, n, last, mr, nv);                                               \
    }
#define FL_OUTER_COLUMNS(mr) FL_OUTER(mr, 1) FL_OUTER(mr, 2) FL_OUTER(mr, 3) FL_OUTER(mr, 4)
FL_OUTER_COLUMNS(1)
FL_OUTER_COLUMNS(2)
FL_OUTER_COLUMNS(3)
#define FL_OUTER_SLOT(mr)                                                          \
    {                                                                              \
        V(outer_##mr##x1), V(outer_##mr##x2), V(outer_##mr##x3), V(outer_##mr##x4) \
    }
#if FL_MR >= 4
FL_OUTER_COLUMNS(4)
#endif
#if FL_MR >= 6
FL_OUTER_COLUMNS(5)
FL_OUTER_COLUMNS(6)
#endif
static void (*const V(outers)[FL_MR][4])(const real *, const void *const *, int64_t, real *, int64_t, int64_t, int) = {
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
