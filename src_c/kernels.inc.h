/* The bodies of one instruction set for one lane type (FL_BITS).  kernels_<isa>.c includes this twice inside a
 * target region and then emits the table.  Nothing here allocates, locks, or knows of time, threads and plans. */
#include "lanes.inc.h"
#include "vmath.inc.h"
#include "microkernels.inc.h"

#include "cells/cell_lstm.inc.h"

/* --- product */

static void V(product)(const fl_product_args *p)
{
    _Alignas(64) real spill[FL_MR * FL_PANEL_VECTORS * FL_W];
    void *spill_rows[FL_MR];
    const int64_t block = (int64_t)p->vectors * FL_W;
    fl_tile t = {.segment = {{.k = p->k}}, .block_vectors = p->vectors};
    for (int64_t b = p->block0; b < p->block1; b++) {
        const int64_t first = b * block;
        const int64_t valid = p->columns - first < block ? p->columns - first : block;
        const int nv = (int)((valid + FL_W - 1) / FL_W);
        const int cut = valid % FL_W != 0;
        t.segment[0].panel = (const real *)p->panel + b * block * p->k;
        t.bias = p->bias ? (const real *)p->bias + first : NULL;
        for (int64_t r = 0; r < p->rows;) {
            const int mr = (int)V(tile_height)(p->rows, p->rows - r);
            t.segment[0].a = p->a + r;
            t.out = p->out + r;
            t.out_offset = first;
            t.init = p->accumulate ? (const void *const *)t.out : NULL;
            t.init_offset = first;
            if (cut) { /* full vectors would reach past the row: by way of the spill */
                for (int m = 0; m < mr; m++) {
                    spill_rows[m] = spill + m * block;
                    if (p->accumulate)
                        for (int v = 0; v < nv; v++)
                            V(store)(spill + m * block + v * FL_W,
                                     V(load_n)((const real *)p->out[r + m] + first + v * FL_W,
                                               (int)(valid - v * FL_W < FL_W ? valid - v * FL_W : FL_W)));
                }
                t.out = spill_rows;
                t.out_offset = 0;
                t.init = p->accumulate ? (const void *const *)spill_rows : NULL;
                t.init_offset = 0;
            }
            V(tiles)[nv - 1][mr](&t);
            if (cut)
                for (int m = 0; m < mr; m++)
                    for (int v = 0; v < nv; v++)
                        V(store_n)((real *)p->out[r + m] + first + v * FL_W, V(load)(spill + m * block + v * FL_W),
                                   (int)(valid - v * FL_W < FL_W ? valid - v * FL_W : FL_W));
            r += mr;
        }
    }
}

/* --- one step of a cell */

typedef void (*V(cell_fn))(const fl_step_args *, const real *, int64_t, int64_t, int);

/* Rows [row, row + mr) of blocks [b, b + nb): product into the tile, then the cell eats it while it is in L1. */
FL_INLINE void V(step_tile)(const fl_step_args *s, int64_t b, int nb, int64_t row, int mr, const int vectors,
                            V(cell_fn) cell)
{
    _Alignas(64) real tile[FL_MR * FL_PANEL_VECTORS * FL_W > 2 * FL_PANEL_VECTORS * FL_W
                               ? FL_MR * FL_PANEL_VECTORS * FL_W
                               : 2 * FL_PANEL_VECTORS * FL_W];
    void *out[FL_MR];
    const int64_t block = (int64_t)vectors * FL_W;
    for (int m = 0; m < mr; m++) out[m] = tile + m * nb * block;
    const fl_tile t = {
        .segment = {{s->k_x ? s->x + row : NULL, s->k_x ? (const real *)s->panel_x + b * block * s->k_x : NULL, s->k_x},
                    {s->h + row, (const real *)s->panel_h + b * block * s->k_h, s->k_h}},
        .init = s->pre ? s->pre + row : NULL,
        .bias = (const real *)s->bias + b * block,
        .init_offset = b * block,
        .out = out,
        .block_vectors = vectors,
    };
    V(tiles)[vectors - 1][nb == 2 ? 0 : mr](&t);
    for (int m = 0; m < mr; m++)
        for (int i = 0; i < nb; i++) {
            const int64_t unit = (b + i) * FL_W;
            const real *from = tile + (m * nb + i) * block;
            if (s->hidden - unit >= FL_W)
                cell(s, from, row + m, unit, FL_W);
            else
                cell(s, from, row + m, unit, (int)(s->hidden - unit));
        }
}

FL_INLINE void V(step_any)(const fl_step_args *s, const int vectors, V(cell_fn) cell)
{
    const int64_t n = s->block1 - s->block0;
    const int pair = s->rows == 1; /* a single row: two blocks at a time */
    for (int64_t i = 0; i < n;) {
        const int nb = pair && i + 2 <= n ? 2 : 1;
        const int64_t b = s->backward_sweep ? s->block1 - i - nb : s->block0 + i;
        for (int64_t r = 0; r < s->rows;) {
            const int mr = (int)V(tile_height)(s->rows, s->rows - r);
            V(step_tile)(s, b, nb, r, mr, vectors, cell);
            r += mr;
        }
        i += nb;
    }
}

FL_INLINE void V(cell_grad_any)(const fl_cell_grad_args *s,
                                void (*cell)(const fl_cell_grad_args *, int64_t, int64_t, int))
{
    for (int64_t r = 0; r < s->rows; r++) {
        int64_t u = s->unit0;
        for (; u + FL_W <= s->unit1; u += FL_W) cell(s, r, u, FL_W);
        if (u < s->unit1) cell(s, r, u, (int)(s->unit1 - u));
    }
}

#define FL_CELL_ROW(ID, name, gates, vectors, states)                                                              \
    static void V(name##_step)(const fl_step_args *s) { V(step_any)(s, vectors, V(name##_forward_lanes)); }        \
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
                V(outers)[mr - 1][nv - 1](packed, o->a + r0, rows, (real *)o->c + j * o->n, o->n, n,
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

FL_INLINE vec V(relu)(vec x) { return V(max)(V(zero)(), x); } /* NaN stays NaN: max gives its second operand */

#define FL_MAP_LOOP(f)                                                                                   \
    for (int64_t i = 0; i < n; i += FL_W) {                                                              \
        const int lanes = (int)(n - i < FL_W ? n - i : FL_W);                                            \
        V(store_n)((real *)y + i, f(V(load_n)((const real *)x + i, lanes)), lanes);                      \
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
        V(store_n)((real *)out + i,
                   V(add)(V(load_n)((const real *)x + i, lanes), V(load_n)((const real *)y + i, lanes)), lanes);
    }
}

static void V(mul_arrays)(const void *x, const void *y, void *out, int64_t n)
{
    for (int64_t i = 0; i < n; i += FL_W) {
        const int lanes = (int)(n - i < FL_W ? n - i : FL_W);
        V(store_n)((real *)out + i,
                   V(mul)(V(load_n)((const real *)x + i, lanes), V(load_n)((const real *)y + i, lanes)), lanes);
    }
}

#include "probe.inc.h"

static const fl_real_kernels V(kernels) = {
    .width = FL_W,
    .product = V(product),
#define FL_CELL_ROW(ID, name, gates, vectors, states) .step[FL_CELL_##ID] = V(name##_step),
#include "cells.def"
#undef FL_CELL_ROW
#define FL_CELL_ROW(ID, name, gates, vectors, states) .cell_grad[FL_CELL_##ID] = V(name##_cell_grad),
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
