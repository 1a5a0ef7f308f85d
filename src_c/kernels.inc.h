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
            const int mr = (int)V(tile_height)(p->rows, p->rows - r);
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

/* --- one step of a cell */

FL_INLINE vec V(relu)(vec x) { return V(max)(V(zero)(), x); } /* NaN stays NaN: max gives its second operand */

/* The pre-activation of gate v for n units: a vector of the tile, or some lanes of one in a narrow last block. */
FL_INLINE vec V(gate)(const real *tile, int v, int apart, const int n)
{
    return n == FL_W ? V(load)(tile + v * FL_W) : V(load_n)(tile + v * apart, n);
}

/* tile: sums of the gates, of those that are not joint the h-part, whose x-part is in x_part.  row, unit: which units;
 * apart: lanes from gate to gate; n of them, the constant FL_W but in a cut last block */
typedef void (*V(cell_fn))(const fl_step_args *, const real *tile, const real *x_part, int apart, int64_t row,
                           int64_t unit, int n);

/* What the bodies below must know of a cell, constant in each of their copies: columns of cells.def. */
typedef struct V(cell_shape) {
    int gates, joint, vectors, units;
    V(cell_fn) lanes;
} V(cell_shape);

#include "cells/cell_gru.inc.h"
#include "cells/cell_lstm.inc.h"
#include "cells/cell_rnn.inc.h"

/* The cell eats one row of a tile; n is 0 where a block is full or its units fill whole vectors but for the last. */
FL_INLINE void V(eat)(const fl_step_args *s, V(group) g, const real *tile, const real *x_part, int64_t row,
                      const V(cell_shape) shape)
{
    const int64_t size = shape.vectors * FL_W;
    int64_t unit = g.first * shape.units * FL_W;
    for (int i = 0; i < g.full; i++, tile += size, x_part += size) {
        FL_UNROLL
        for (int u = 0; u < shape.units; u++, unit += FL_W) {
            if (s->hidden - unit >= FL_W)
                shape.lanes(s, tile + u * FL_W, x_part + u * FL_W, FL_W, row, unit, FL_W);
            else
                shape.lanes(s, tile + u * FL_W, x_part + u * FL_W, FL_W, row, unit, (int)(s->hidden - unit));
        }
    }
    if (!g.last) return;
    const int apart = fl_gate_lanes(g.last, shape.vectors, shape.units, FL_W);
    for (int64_t left = s->hidden - unit; left > 0; left -= FL_W, unit += FL_W, tile += FL_W)
        shape.lanes(s, tile, x_part, apart, row, unit, (int)(left < FL_W ? left : FL_W));
}

/* Where the h-parts start: joint gates from the x-part, the others from their own bias. */
FL_INLINE void V(start_h)(real *tile, const real *x_part, const real *bias_h, V(group) g, const V(cell_shape) shape)
{
    for (int i = 0; i < g.full; i++) FL_UNROLL
    for (int v = 0; v < shape.vectors; v++, tile += FL_W, x_part += FL_W, bias_h += FL_W)
        V(store)(tile, V(load)(v < shape.joint * shape.units ? x_part : bias_h));
    const int from = shape.joint * fl_gate_lanes(g.last, shape.vectors, shape.units, FL_W);
    for (int l = 0; l < g.last * FL_W; l++) tile[l] = l < from ? x_part[l] : bias_h[l];
}

/* Rows [row, row + mr) of a group of blocks: product into the tile, then the cell eats it while it is in L1. */
FL_INLINE void V(step_tile)(const fl_step_args *s, V(group) g, int64_t row, int mr, const V(cell_shape) shape)
{
    _Alignas(64) real tile[V(TILE_VECTORS) * FL_W], x_tile[V(TILE_VECTORS) * FL_W];
    void *out[FL_MR], *x_out[FL_MR];
    const int64_t block = (int64_t)shape.vectors * FL_W, wide = g.full * block + g.last * FL_W;
    const int64_t first = g.first * block;
    const int apart = shape.joint < shape.gates;
    const V(tile_fn) product = V(tile_of)(g, shape.vectors, mr);
    for (int m = 0; m < mr; m++) out[m] = tile + m * wide;
    fl_tile t = {
        .segment = {{s->k_x ? s->x + row : NULL, s->k_x ? (const real *)s->panel_x + first * s->k_x : NULL, s->k_x},
                    {s->h + row, (const real *)s->panel_h + first * s->k_h, s->k_h}},
        .init = s->pre ? s->pre + row : NULL,
        .bias = (const real *)s->bias + first,
        .init_offset = first,
        .out = out,
    };
    if (apart) {
        const fl_segment h_part = t.segment[1];
        for (int m = 0; m < mr; m++) x_out[m] = s->pre ? (real *)s->pre[row + m] + first : x_tile + m * wide;
        t.segment[1].k = 0;
        t.out = x_out;
        if (!s->pre) product(&t);
        for (int m = 0; m < mr; m++)
            V(start_h)((real *)out[m], (const real *)x_out[m], (const real *)s->bias_h + first, g, shape);
        t = (fl_tile){.segment = {h_part}, .init = (const void *const *)out, .out = out};
    }
    product(&t);
    for (int m = 0; m < mr; m++)
        V(eat)(s, g, tile + m * wide, apart ? (const real *)x_out[m] : tile + m * wide, row + m, shape);
}

/* Vectors of the last of the step's blocks if it is a narrower one, else 0. */
FL_INLINE int V(narrow_of)(const fl_step_args *s, const V(cell_shape) shape)
{
    const int full = shape.units * FL_W;
    const int64_t over = s->block1 * full - s->hidden; /* idle lanes of a gate in that block */
    if (over <= 0) return 0;
    const int used = fl_last_vectors(full - (int)over, shape.vectors, shape.units, FL_W);
    return used < shape.vectors ? used : 0;
}

FL_INLINE void V(step_any)(const fl_step_args *s, const V(cell_shape) shape)
{
    const int narrow = V(narrow_of)(s, shape);
    const int64_t groups = V(groups)(s->block1 - s->block0, narrow, s->rows);
    for (int64_t i = 0; i < groups; i++) {
        const int64_t at = s->backward_sweep ? groups - 1 - i : i;
        const V(group) g = V(group_at)(at, s->block0, s->block1, narrow, s->rows);
        for (int64_t r = 0; r < s->rows;) {
            const int mr = (int)V(tile_height)(s->rows, s->rows - r);
            V(step_tile)(s, g, r, mr, shape);
            r += mr;
        }
    }
}

#include "ahead.inc.h"

FL_INLINE void V(cell_grad_any)(const fl_cell_grad_args *s,
                                void (*cell)(const fl_cell_grad_args *, int64_t, int64_t, int))
{
    for (int64_t r = 0; r < s->rows; r++) {
        int64_t u = s->unit0;
        for (; u + FL_W <= s->unit1; u += FL_W) cell(s, r, u, FL_W);
        if (u < s->unit1) cell(s, r, u, (int)(s->unit1 - u));
    }
}

#define FL_SHAPE(name, gates, joint, vectors, units) \
    ((V(cell_shape)){gates, joint, vectors, units, V(name##_forward_lanes)})
#if FL_AHEAD_ROWS
#define FL_AHEAD_OF(name, gates, joint, vectors, units)                                     \
    static void V(name##_step_ahead)(const fl_step_args *s, const fl_ahead_args *a)         \
    {                                                                                       \
        if (vectors == 4) V(ahead_any)(s, a, FL_SHAPE(name, gates, joint, vectors, units)); \
    }
#define FL_AHEAD_IF(name, gates, joint, vectors) (vectors == 4 && joint == gates ? V(name##_step_ahead) : NULL)
#else
#define FL_AHEAD_OF(name, gates, joint, vectors, units)
#define FL_AHEAD_IF(name, gates, joint, vectors) NULL
#endif
#define FL_CELL_ROW(ID, name, gates, joint, vectors, units, states, kept) \
    FL_AHEAD_OF(name, gates, joint, vectors, units)                       \
    static void V(name##_step)(const fl_step_args *s)                     \
    {                                                                     \
        V(step_any)(s, FL_SHAPE(name, gates, joint, vectors, units));     \
    }                                                                     \
    static void V(name##_cell_grad)(const fl_cell_grad_args *s) { V(cell_grad_any)(s, V(name##_backward_lanes)); }
#include "cells.def"
#undef FL_CELL_ROW

/* --- gradients of weights */

static void V(outer)(const fl_outer_args *o)
{
    real packed[FL_MR * FL_OUTER_ROWS];
    for (int64_t r0 = 0; r0 < o->rows; r0 += FL_OUTER_ROWS) {
        const int64_t rows = o->rows - r0 < FL_OUTER_ROWS ? o->rows - r0 : FL_OUTER_ROWS;
        for (int64_t j = o->j0; j < o->j1;) {
            const int mr = (int)V(tile_height)(o->j1 - o->j0, o->j1 - j);
            const real *g = (const real *)o->g + r0 * o->g_stride + j;
            for (int64_t r = 0; r < rows; r++) /* rows of g lie far apart: gather the mr columns once */
                for (int m = 0; m < mr; m++) packed[r * mr + m] = g[r * o->g_stride + m];
            for (int64_t n = 0; n < o->n; n += 4 * FL_W) {
                const int64_t left = o->n - n < 4 * FL_W ? o->n - n : 4 * FL_W;
                const int nv = (int)((left + FL_W - 1) / FL_W);
                V(outers)
                [mr - 1][nv - 1](packed, o->a + r0, rows, (real *)o->c + j * o->n, o->n, n,
                                 (int)(left - (nv - 1) * FL_W));
            }
            j += mr;
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

#include "probe.inc.h"

static const fl_real_kernels V(kernels) = {
    .width = FL_W,
    .product = V(product),
#define FL_CELL_ROW(ID, name, gates, joint, vectors, units, states, kept) .step[FL_CELL_##ID] = V(name##_step),
#include "cells.def"
#undef FL_CELL_ROW
#define FL_CELL_ROW(ID, name, gates, joint, vectors, units, states, kept) \
    .cell_grad[FL_CELL_##ID] = V(name##_cell_grad),
#include "cells.def"
#undef FL_CELL_ROW
    .ahead_rows = FL_AHEAD_ROWS,
#define FL_CELL_ROW(ID, name, gates, joint, vectors, units, states, kept) \
    .step_ahead[FL_CELL_##ID] = FL_AHEAD_IF(name, gates, joint, vectors),
#include "cells.def"
#undef FL_CELL_ROW
    .outer = V(outer),
    .colsum = V(colsum),
    .map = V(map),
    .add = V(add_arrays),
    .mul = V(mul_arrays),
    .probe_fma = V(probe_fma),
    .probe_read = V(probe_read),
};
#undef FL_AHEAD_OF
#undef FL_AHEAD_IF
#undef FL_SHAPE
