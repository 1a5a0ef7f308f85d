/* The tile product: a few rows times a few vectors of a panel, accumulators in registers.  Knows nothing of cells.
 *
 *   acc[m][v] = init[m][v];  then for each segment s, for k ascending: acc[m][v] += a_s[m][k] * panel_s[k][v]
 *
 * Two segments, because a recurrent step's chain runs over x and then over h.  One instance per shape, so that the
 * loops over m and v unroll completely and acc lives in registers.  A tile that needs more than FL_ACCUMULATORS of
 * them takes its vectors in equal passes: its weights are still read once, its rows once in each pass.
 * Up to FL_PAIR_ROWS rows take two blocks at a time: one row has too few chains to hide the latency of an fma, and two
 * or three ask for weights faster than one stream of them comes from L2 (0.79 of the FMA peak against 0.90 with two
 * streams, AVX-512, Zen 4).  A single row takes a narrow last block together with the full ones before it. */

#define FL_PREFETCH_TO_WRITE(p) __builtin_prefetch((p), 1, 3)
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

/* One link of all chains: `sums` vectors of weights for each of mr rows.  Either the inputs or the weights wait in
 * registers until the others have passed: the inputs, where registers suffice. */
FL_INLINE void V(link)(vec *acc, const int mr, const int sums, const real *const *a, int64_t i, const real *const *w)
{
    vec wait[FL_MR > 4 ? FL_MR : 4];
    if (mr * sums + mr < FL_REGISTERS) {
        FL_UNROLL
        for (int m = 0; m < mr; m++) wait[m] = V(set1)(a[m][i]);
        FL_UNROLL
        for (int v = 0; v < sums; v++) {
            const vec weights = V(load)(w[v]);
            FL_UNROLL
            for (int m = 0; m < mr; m++) acc[m * sums + v] = V(fma)(wait[m], weights, acc[m * sums + v]);
        }
        return;
    }
    FL_UNROLL
    for (int v = 0; v < sums; v++) wait[v] = V(load)(w[v]);
    FL_UNROLL
    for (int m = 0; m < mr; m++) {
        const vec x = V(set1)(a[m][i]);
        FL_UNROLL
        for (int v = 0; v < sums; v++) acc[m * sums + v] = V(fma)(x, wait[v], acc[m * sums + v]);
    }
}

/* Vectors of a run, for a block of nv: see fl_kernels.h. */
FL_INLINE int V(run_of)(const int nv) { return nv == FL_PANEL_VECTORS ? FL_RUN_VECTORS : nv; }

/* mr rows, nb neighbouring blocks of nv vectors each, and after them a last block of nt vectors (0: none) */
FL_INLINE void V(accumulate)(vec *acc, const int mr, const int nb, const int nv, const int nt, const fl_segment *s)
{
    const int all = nb * nv + nt, run = V(run_of)(nv);
    const int64_t next_run = s->k * run * FL_W;
    const real *panel = (const real *)s->panel;
    const real *last = panel + nb * nv / run * next_run;
    const real *a[FL_MR], *w[12];
    FL_UNROLL
    for (int m = 0; m < mr; m++) a[m] = (const real *)s->a[m];
    const int64_t k = s->k;
    for (int64_t i = 0; i < k; i++, panel += run * FL_W, last += nt * FL_W) {
        FL_UNROLL
        for (int v = 0; v < all; v++)
            w[v] = v < nb * nv ? panel + v / run * next_run + v % run * FL_W : last + (v - nb * nv) * FL_W;
        V(link)(acc, mr, all, a, i, w);
    }
}

/* mr rows and vectors [from, from + some) of a block of nv, which lie in one of its runs */
FL_INLINE void V(accumulate_some)(vec *acc, const int mr, const int nv, const int from, const int some,
                                  const fl_segment *s)
{
    const int run = V(run_of)(nv);
    const real *panel = (const real *)s->panel + (from / run * run * s->k + from % run) * FL_W;
    const real *a[FL_MR], *w[4];
    FL_UNROLL
    for (int m = 0; m < mr; m++) a[m] = (const real *)s->a[m];
    const int64_t k = s->k;
    for (int64_t i = 0; i < k; i++, panel += run * FL_W) {
        FL_UNROLL
        for (int v = 0; v < some; v++) w[v] = panel + v * FL_W;
        V(link)(acc, mr, some, a, i, w);
    }
}

/* In as few passes as the accumulators allow. */
FL_INLINE void V(tall_tile_body)(const fl_tile *t, const int mr, const int nv)
{
    const int passes = (mr * nv + FL_ACCUMULATORS - 1) / FL_ACCUMULATORS, some = (nv + passes - 1) / passes;
    for (int v0 = 0; v0 < nv; v0 += some) {
        vec acc[FL_ACCUMULATORS];
        FL_UNROLL
        for (int m = 0; m < mr; m++) {
            const real *from = t->init ? (const real *)t->init[m] + t->init_offset : (const real *)t->bias;
            FL_UNROLL
            for (int v = 0; v < some; v++) acc[m * some + v] = from ? V(load)(from + (v0 + v) * FL_W) : V(zero)();
        }
        if (t->segment[0].k) V(accumulate_some)(acc, mr, nv, v0, some, &t->segment[0]);
        if (t->segment[1].k) V(accumulate_some)(acc, mr, nv, v0, some, &t->segment[1]);
        FL_UNROLL
        for (int m = 0; m < mr; m++) {
            real *to = (real *)t->out[m] + t->out_offset;
            FL_UNROLL
            for (int v = 0; v < some; v++) V(store)(to + (v0 + v) * FL_W, acc[m * some + v]);
        }
    }
}

FL_INLINE void V(tile_body)(const fl_tile *t, const int mr, const int nb, const int nv, const int nt)
{
    if (mr * (nb * nv + nt) > FL_ACCUMULATORS) {
        V(tall_tile_body)(t, mr, nv);
        return;
    }
    vec acc[FL_ACCUMULATORS];
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

/* Rows of its tallest tile. */
FL_INLINE int64_t V(tallest)(V(group) g, int vectors)
{
    static const int height[FL_PANEL_VECTORS] = {FL_TILE_HEIGHTS};
    return height[(g.full ? vectors : g.last) - 1];
}

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

/* The next tile of `left` rows, where none may have more than `most`.  Tiles are of nearly equal height: 8 rows are
 * 4 + 4, not 6 + 2, or 5 + 3 where 4 are avoided. */
FL_INLINE int64_t V(tile_height)(int64_t left, int64_t most)
{
    const int64_t tiles = (left + most - 1) / most, height = (left + tiles - 1) / tiles;
    return height + (left - height == FL_AVOIDED_HEIGHT && height < most && tiles > 1);
}

/* --- the outer product of the weight gradients */

enum { V(OUTER_HEIGHT) = FL_ACCUMULATORS / FL_PANEL_VECTORS };

/* c[m][0 .. nv*W) += sum_r g[r][m] * a[r][0 .. nv*W) for mr columns of g; rows of `a` follow each other, and of the
 * last vector of c only `last` lanes are there.  The chains take longer than fetching the lines of c. */
FL_INLINE void V(outer_body)(const real *g, int64_t g_stride, const real *a, int64_t rows, real *c, int64_t c_stride,
                             int last, const int mr, const int nv)
{
    vec acc[FL_ACCUMULATORS];
    FL_UNROLL
    for (int i = 0; i < mr * nv; i++) acc[i] = V(zero)();
    FL_UNROLL
    for (int m = 0; m < mr; m++) {
        FL_UNROLL
        for (int v = 0; v < nv; v++) FL_PREFETCH_TO_WRITE(c + m * c_stride + v * FL_W);
    }
    for (int64_t r = 0; r < rows; r++, g += g_stride, a += nv * FL_W) {
        vec w[4];
        FL_UNROLL
        for (int v = 0; v < nv; v++) w[v] = V(load)(a + v * FL_W);
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
            real *to = c + m * c_stride + v * FL_W;
            if (v < nv - 1 || last == FL_W)
                V(store)(to, V(add)(V(load)(to), acc[m * nv + v]));
            else
                V(store_n)(to, V(add)(V(load_n)(to, last), acc[m * nv + v]), last);
        }
    }
}

#define FL_OUTER(mr, nv)                                                                                   \
    static void V(outer_##mr##x##nv)(const real *g, int64_t g_stride, const real *a, int64_t rows, real *c, \
                                     int64_t c_stride, int last)                                           \
    {                                                                                                      \
        V(outer_body)(g, g_stride, a, rows, c, c_stride, last, mr, nv);                                    \
    }
#define FL_OUTER_COLUMNS(mr) FL_OUTER(mr, 1) FL_OUTER(mr, 2) FL_OUTER(mr, 3) FL_OUTER(mr, 4)
FL_OUTER_COLUMNS(1)
FL_OUTER_COLUMNS(2)
FL_OUTER_COLUMNS(3)
#define FL_OUTER_SLOT(mr)                                                          \
    {                                                                              \
        V(outer_##mr##x1), V(outer_##mr##x2), V(outer_##mr##x3), V(outer_##mr##x4) \
    }
#if FL_ACCUMULATORS >= 16
FL_OUTER_COLUMNS(4)
#endif
#if FL_ACCUMULATORS >= 24
FL_OUTER_COLUMNS(5)
FL_OUTER_COLUMNS(6)
#endif
typedef void (*V(outer_fn))(const real *, int64_t, const real *, int64_t, real *, int64_t, int);
static const V(outer_fn) V(outers)[V(OUTER_HEIGHT)][4] = {
    FL_OUTER_SLOT(1), FL_OUTER_SLOT(2), FL_OUTER_SLOT(3),
#if FL_ACCUMULATORS >= 16
    FL_OUTER_SLOT(4),
#endif
#if FL_ACCUMULATORS >= 24
    FL_OUTER_SLOT(5), FL_OUTER_SLOT(6),
#endif
};
#undef FL_OUTER
#undef FL_OUTER_COLUMNS
#undef FL_OUTER_SLOT
