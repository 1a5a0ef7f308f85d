/* The bodies of one instruction set for one lane type (FL_BITS).  kernels_<isa>.c includes this twice inside a
 * target region and then emits the table.  Nothing here allocates, locks, or knows of time, threads and plans. */
#include "lanes.inc.h"
#include "vmath.inc.h"
#include "microkernels.inc.h"

/* --- product */

enum { V(TILE_VECTORS) = FL_MR > 2 ? FL_MR *FL_PANEL_VECTORS : 3 * FL_PANEL_VECTORS };

/* Lanes of vector v that lie within the row, of a tile that starts at column `first`. */
FL_INLINE int V(lanes_within)(const fl_product_args *p, int64_t first, int v)
{
    const int64_t left = p->columns - first - v * FL_W;
    return (int)(left < FL_W ? left : FL_W);
}

/* A tile whose last vector would reach past the row goes by way of `spill`. */
FL_INLINE void V(product_cut)(const fl_product_args *p, fl_tile *t, V(tile_fn) tile, int64_t row, int mr, int vectors)
{
    _Alignas(64) real spill[V(TILE_VECTORS) * FL_W];
    void *rows[FL_MR];
    const int64_t first = t->out_offset;
    for (int m = 0; m < mr; m++) {
        rows[m] = spill + m * vectors * FL_W;
        for (int v = 0; v < vectors && p->accumulate; v++) V(store)
        ((real *)rows[m] + v * FL_W,
         V(load_n)((const real *)p->out[row + m] + first + v * FL_W, V(lanes_within)(p, first, v)));
    }
    t->out = rows;
    t->init = p->accumulate ? (const void *const *)rows : NULL;
    t->init_offset = t->out_offset = 0;
    tile(t);
    for (int m = 0; m < mr; m++)
        for (int v = 0; v < vectors; v++) V(store_n)
    ((real *)p->out[row + m] + first + v * FL_W, V(load)((const real *)rows[m] + v * FL_W),
     V(lanes_within)(p, first, v));
}

static void V(product)(const fl_product_args *p)
{
    const int64_t block = (int64_t)p->vectors * FL_W, reach = p->block1 * block;
    const int64_t short_by = reach > p->columns ? (reach - p->columns) / FL_W : 0;
    const int narrow = short_by ? p->vectors - (int)short_by : 0;
    const int64_t groups = V(groups)(p->block1 - p->block0, narrow, p->rows);
    for (int64_t i = 0; i < groups; i++) {
        const V(group) g = V(group_at)(i, p->block0, p->block1, narrow, p->rows);
        const int vectors = g.full * p->vectors + g.last;
        const int64_t first = g.first * block;
        for (int64_t r = 0; r < p->rows;) {
            const int mr = (int)V(tile_height)(p->rows - r, V(tallest)(g, p->vectors));
            fl_tile t = {
                .segment = {{p->a + r, (const real *)p->panel + first * p->k, p->k}},
                .bias = p->bias ? (const real *)p->bias + first : NULL,
                .init = p->accumulate ? (const void *const *)p->out + r : NULL,
                .init_offset = first,
                .out = p->out + r,
                .out_offset = first,
            };
            if (first + vectors * FL_W > p->columns)
                V(product_cut)(p, &t, V(tile_of)(g, p->vectors, mr), r, mr, vectors);
            else
                V(tile_of)(g, p->vectors, mr)(&t);
            r += mr;
        }
    }
}

#include "step.inc.h"
#include "ahead.inc.h"
#include "one_row.inc.h"

FL_INLINE void V(cell_grad_any)(const fl_cell_grad_args *s,
                                void (*cell)(const fl_cell_grad_args *, int64_t, int64_t, int))
{
    for (int64_t r = 0; r < s->rows; r++) {
        int64_t u = s->unit0;
        for (; u + FL_W <= s->unit1; u += FL_W) cell(s, r, u, FL_W);
        if (u < s->unit1) cell(s, r, u, (int)(s->unit1 - u));
    }
}

/* the arguments that say which cell it is, with so many gates */
#define FL_SHAPE_OF(number, apart, units) ((V(cell_shape)){number, (number) - (apart), (number) * (units), units})
#if FL_AHEAD_ROWS
#define FL_AHEAD_CASE(name, number, fewest, gates, apart, units)                                                     \
    if ((number) >= (fewest) && (number) <= (gates) && ((fewest) == (gates) || s->count == (number)))                \
        V(ahead_any)(s, a, FL_SHAPE_OF((number) <= (gates) ? (number) : 1, apart, units), V(name##_begin),            \
                     V(name##_end), V(name##_cut));
/* three gates, four, or one in four vectors: enough for the row's own chains */
#define FL_AHEAD_1(name, fewest, gates, apart, units)                                                                \
    static void V(name##_step_ahead)(const fl_step_args *s, const fl_ahead_args *a)                                  \
    {                                                                                                                \
        if ((units) == 4) FL_AHEAD_CASE(name, 1, fewest, gates, apart, units)                                        \
        if ((units) == 1) FL_AHEAD_CASE(name, 3, fewest, gates, apart, units)                                        \
        if ((units) == 1) FL_AHEAD_CASE(name, 4, fewest, gates, apart, units)                                        \
    }
#define FL_AHEAD_0(name, fewest, gates, apart, units)
#define FL_AHEAD_IF_1(name) V(name##_step_ahead)
#define FL_AHEAD_IF_0(name) NULL
#else
#define FL_AHEAD_1(name, fewest, gates, apart, units)
#define FL_AHEAD_0(name, fewest, gates, apart, units)
#define FL_AHEAD_IF_1(name) NULL
#define FL_AHEAD_IF_0(name) NULL
#endif
#define FL_ONE_ROW_1(name, gates, apart, units)                                                                      \
    static void V(name##_one_row)(const fl_one_row_args *a)                                                          \
    {                                                                                                                \
        V(one_row_any)(a, FL_SHAPE_OF(gates, apart, units), V(name##_begin), V(name##_end), V(name##_cut));          \
    }
#define FL_ONE_ROW_0(name, gates, apart, units)
#define FL_ONE_ROW_IF_1(name) V(name##_one_row)
#define FL_ONE_ROW_IF_0(name) NULL
/* Bodies with options are called, once for a vector of units, and have one phase: that costs little, and copies of them
 * would fill every loop.  The plain ones are inlined, in two phases. */
#define FL_PHASE(qualifiers, phase)                                                                                  \
    qualifiers void V(phase)(const fl_step_args *s, real *tile, const real *x_part, int gap, int64_t row,            \
                             int64_t unit, int n)
#define FL_PHASES_1(name)                                                                                            \
    FL_PHASE(FL_INLINE, name##_begin)                                                                                \
    {                                                                                                                \
        (void)n;                                                                                                     \
        V(name##_begin_lanes)(s, tile, x_part, gap, row, unit, FL_W);                                                \
    }                                                                                                                \
    FL_PHASE(FL_INLINE, name##_end)                                                                                  \
    {                                                                                                                \
        (void)n;                                                                                                     \
        V(name##_end_lanes)(s, tile, x_part, gap, row, unit, FL_W);                                                  \
    }                                                                                                                \
    FL_PHASE(static FL_NOINLINE, name##_cut)                                                                         \
    {                                                                                                                \
        V(name##_begin_lanes)(s, tile, x_part, gap, row, unit, n);                                                   \
        V(name##_end_lanes)(s, tile, x_part, gap, row, unit, n);                                                     \
    }
#define FL_PHASES_0(name)                                                                                            \
    FL_PHASE(static FL_NOINLINE, name##_begin)                                                                       \
    {                                                                                                                \
        (void)n;                                                                                                     \
        V(name##_forward_lanes)(s, tile, x_part, gap, row, unit, FL_W);                                              \
    }                                                                                                                \
    FL_PHASE(FL_INLINE, name##_end) { (void)s, (void)tile, (void)x_part, (void)gap, (void)row, (void)unit, (void)n; }\
    FL_PHASE(static FL_NOINLINE, name##_cut) { V(name##_forward_lanes)(s, tile, x_part, gap, row, unit, n); }
#define FL_STEP_CASE(name, number, fewest, gates, apart, units)                                                      \
    if ((number) >= (fewest) && (number) <= (gates) && ((fewest) == (gates) || s->count == (number)))                \
        V(step_any)(s, FL_SHAPE_OF((number) <= (gates) ? (number) : 1, apart, units), V(name##_begin),               \
                    V(name##_end), V(name##_cut));
#define FL_BODY_ROW(ID, name, fewest, gates, apart, units, inlined, alone)                                           \
    FL_PHASES_##inlined(name)                                                                                        \
    FL_AHEAD_##alone(name, fewest, gates, apart, units)                                                              \
    FL_ONE_ROW_##inlined(name, gates, apart, units)                                                                  \
    static void V(name##_step)(const fl_step_args *s)                                                                \
    {                                                                                                                \
        FL_STEP_CASE(name, 1, fewest, gates, apart, units)                                                           \
        FL_STEP_CASE(name, 2, fewest, gates, apart, units)                                                           \
        FL_STEP_CASE(name, 3, fewest, gates, apart, units)                                                           \
        FL_STEP_CASE(name, 4, fewest, gates, apart, units)                                                           \
    }                                                                                                                \
    static void V(name##_cell_grad)(const fl_cell_grad_args *s) { V(cell_grad_any)(s, V(name##_backward_lanes)); }
#define FL_ROW_BODY(ID, name)                                                                                        \
    static void V(name##_row)(const fl_step_args *s)                                                                 \
    {                                                                                                                \
        for (int64_t row = 0; row < s->rows; row++) V(name##_forward_row)(s, row);                                   \
    }                                                                                                                \
    static void V(name##_row_grad)(const fl_cell_grad_args *s)                                                       \
    {                                                                                                                \
        for (int64_t row = 0; row < s->rows; row++) V(name##_backward_row)(s, row);                                  \
    }
#include "bodies.def"
#undef FL_BODY_ROW
#undef FL_ROW_BODY

/* --- gradients of weights */

/* A tile of `a` is copied, since its rows lie far apart, and all columns of g meet it while it is in L1. */
static void V(outer)(const fl_outer_args *o)
{
    _Alignas(64) real tile[FL_OUTER_ROWS * FL_PANEL_VECTORS * FL_W];
    for (int64_t r0 = 0; r0 < o->rows; r0 += FL_OUTER_ROWS) {
        const int64_t rows = o->rows - r0 < FL_OUTER_ROWS ? o->rows - r0 : FL_OUTER_ROWS;
        for (int64_t n = 0; n < o->n; n += FL_PANEL_VECTORS * FL_W) {
            const int64_t left = o->n - n < FL_PANEL_VECTORS * FL_W ? o->n - n : FL_PANEL_VECTORS * FL_W;
            const int vectors = (int)((left + FL_W - 1) / FL_W), last = (int)(left - (vectors - 1) * FL_W);
            real *to = tile;
            for (int64_t r = 0; r < rows; r++, to += FL_W) {
                const real *from = (const real *)o->a[r0 + r] + n;
                for (int v = 0; v < vectors - 1; v++, from += FL_W, to += FL_W) V(store)(to, V(load)(from));
                V(store)(to, V(load_n)(from, last));
            }
            for (int64_t j = o->j0; j < o->j1;) {
                const int mr = (int)V(tile_height)(o->j1 - j, V(OUTER_HEIGHT));
                V(outers)
                [mr - 1][vectors - 1]((const real *)o->g + r0 * o->g_stride + j, o->g_stride, tile, rows,
                                      (real *)o->c + j * o->c_stride + n, o->c_stride, last);
                j += mr;
            }
        }
    }
}

static void V(colsum)(const fl_colsum_args *s)
{
    real *sum = (real *)s->s;
    for (int64_t r0 = 0; r0 < s->rows; r0 += FL_OUTER_ROWS) {
        const int64_t rows = s->rows - r0 < FL_OUTER_ROWS ? s->rows - r0 : FL_OUTER_ROWS;
        for (int64_t j = s->j0; j < s->j1; j += FL_W) {
            const int n = (int)(s->j1 - j < FL_W ? s->j1 - j : FL_W);
            const real *g = (const real *)s->g + r0 * s->g_stride + j;
            vec acc = V(zero)();
            for (int64_t r = 0; r < rows; r++) acc = V(add)(acc, V(load_n)(g + r * s->g_stride, n));
            V(store_n)(sum + j, V(add)(V(load_n)(sum + j, n), acc), n);
        }
    }
}

/* --- element-wise */

#define FL_MAP_LOOP(f)                                                              \
    for (int64_t i = 0; i < n; i += FL_W) {                                         \
        const int lanes = (int)(n - i < FL_W ? n - i : FL_W);                       \
        V(store_n)((real *)y + i, f(V(load_n)((const real *)x + i, lanes)), lanes); \
    }
static void V(map)(int activation, const void *x, void *y, int64_t n)
{
    switch (activation) {
    case FL_ACT_RELU: FL_MAP_LOOP(V(relu)) break;
    case FL_ACT_TANH: FL_MAP_LOOP(V(v_tanh)) break;
    case FL_ACT_SIGMOID: FL_MAP_LOOP(V(v_sigmoid)) break;
    case FL_ACT_EXP: FL_MAP_LOOP(V(v_exp)) break;
    default: FL_MAP_LOOP() break;
    }
}
#undef FL_MAP_LOOP

static void V(add_arrays)(const void *x, const void *y, void *out, int64_t n)
{
    for (int64_t i = 0; i < n; i += FL_W) {
        const int lanes = (int)(n - i < FL_W ? n - i : FL_W);
        V(store_n)
        ((real *)out + i, V(add)(V(load_n)((const real *)x + i, lanes), V(load_n)((const real *)y + i, lanes)), lanes);
    }
}

static void V(mul_arrays)(const void *x, const void *y, void *out, int64_t n)
{
    for (int64_t i = 0; i < n; i += FL_W) {
        const int lanes = (int)(n - i < FL_W ? n - i : FL_W);
        V(store_n)
        ((real *)out + i, V(mul)(V(load_n)((const real *)x + i, lanes), V(load_n)((const real *)y + i, lanes)), lanes);
    }
}

/* y = bounded y, and of it (1 - k) with k * x */
static void V(blend)(const void *k, const void *x, void *y, double limit, int64_t n)
{
    FL_OVER(j, n, lanes)
    {
        real *to = (real *)y + j;
        const vec now = V(bounded)(V(load_n)(to, (int)lanes), limit);
        V(store_n)(to, k ? V(zone)(&k, V(load_n)((const real *)x + j, (int)lanes), now, 0, j, (int)lanes) : now,
                   (int)lanes);
    }
}

/* Where the bound took hold, (1 - k) * limit is what is left of y without k * x. */
static void V(blend_grad)(const fl_blend_grad_args *b)
{
    FL_OVER(j, b->n, lanes)
    {
        const int n = (int)lanes;
        real *to = (real *)b->dy + j;
        vec d = V(load_n)(to, n), now = V(load_n)((const real *)b->y + j, n), limit = V(set1)((real)b->limit);
        if (b->k) {
            const vec k = V(load_n)((const real *)b->k + j, n), held = V(mul)(k, d);
            V(store_n)((real *)b->carry + j, held, n);
            const vec old = V(mul)(k, V(load_n)((const real *)b->x + j, n));
            const vec rounding = V(mul)(V(add)(V(abs)(old), V(abs)(now)), V(set1)(4 * FL_EPSILON));
            d = V(sub)(d, held);
            now = V(sub)(now, old);
            limit = V(sub)(V(mul)(limit, V(sub)(V(set1)(FL_C(1.0)), k)), rounding);
        }
        V(store_n)(to, b->limit < (double)INFINITY ? V(select)(V(lt)(V(abs)(now), limit), d, V(zero)()) : d, n);
    }
}

#include "pack.inc.h"
#include "probe.inc.h"

static const fl_real_kernels V(kernels) = {
    .width = FL_W,
    .run_vectors = FL_RUN_VECTORS,
    .product = V(product),
    .ahead_rows = FL_AHEAD_ROWS,
#define FL_ROW_BODY(ID, name) .row[FL_BODY_##ID - FL_BODY_COUNT] = V(name##_row),
#define FL_BODY_ROW(ID, name, fewest, gates, apart, units, inlined, alone) .step[FL_BODY_##ID] = V(name##_step),
#include "bodies.def"
#undef FL_BODY_ROW
#undef FL_ROW_BODY
#define FL_ROW_BODY(ID, name) .row_grad[FL_BODY_##ID - FL_BODY_COUNT] = V(name##_row_grad),
#define FL_BODY_ROW(ID, name, fewest, gates, apart, units, inlined, alone) \
    .cell_grad[FL_BODY_##ID] = V(name##_cell_grad),
#include "bodies.def"
#undef FL_BODY_ROW
#undef FL_ROW_BODY
#define FL_ROW_BODY(ID, name)
#define FL_BODY_ROW(ID, name, fewest, gates, apart, units, inlined, alone) \
    .step_ahead[FL_BODY_##ID] = FL_AHEAD_IF_##alone(name),
#include "bodies.def"
#undef FL_BODY_ROW
#undef FL_ROW_BODY
#define FL_ROW_BODY(ID, name)
#define FL_BODY_ROW(ID, name, fewest, gates, apart, units, inlined, alone) \
    .one_row[FL_BODY_##ID] = FL_ONE_ROW_IF_##inlined(name),
#include "bodies.def"
#undef FL_BODY_ROW
#undef FL_ROW_BODY
    .one_row_vectors = V(ONE_ROW_VECTORS),
    .one_row_sums = V(one_row_sums),
    .outer = V(outer),
    .colsum = V(colsum),
    .map = V(map),
    .add = V(add_arrays),
    .mul = V(mul_arrays),
    .blend = V(blend),
    .blend_grad = V(blend_grad),
    .pack_rows = V(pack_rows),
    .pack_columns = V(pack_columns),
    .probe_fma = V(probe_fma),
    .probe_read = V(probe_read),
};
#undef FL_AHEAD_0
#undef FL_AHEAD_1
#undef FL_AHEAD_IF_0
#undef FL_AHEAD_IF_1
#undef FL_AHEAD_CASE
#undef FL_ONE_ROW_0
#undef FL_ONE_ROW_1
#undef FL_ONE_ROW_IF_0
#undef FL_ONE_ROW_IF_1
#undef FL_SHAPE_OF
#undef FL_STEP_CASE
#undef FL_PHASE
#undef FL_PHASES_0
#undef FL_PHASES_1
