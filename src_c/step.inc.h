/* One time step of a cell: groups of blocks, tiles of rows, and the cell that eats them. */

FL_INLINE vec V(relu)(vec x) { return V(max)(V(zero)(), x); } /* NaN stays NaN: max gives its second operand */

/* The pre-activation of gate v for n units: a vector of the tile, or some lanes of one in a narrow last block. */
FL_INLINE vec V(gate)(const real *tile, int v, int apart, const int n)
{
    return n == FL_W ? V(load)(tile + v * FL_W) : V(load_n)(tile + v * apart, n);
}

/* Leaves a vector in the place of gate v, for the second phase. */
FL_INLINE void V(keep)(real *tile, int v, int apart, vec a, const int n)
{
    V(store_n)(tile + v * (n == FL_W ? FL_W : apart), a, n);
}

/* tile: sums of the gates, of those that are not joint the h-part, whose x-part is in x_part.  row, unit: which units;
 * apart: lanes from gate to gate; n of them, the constant FL_W but in a cut last block */
typedef void (*V(cell_fn))(const fl_step_args *, real *tile, const real *x_part, int apart, int64_t row, int64_t unit,
                           int n);

/* What the bodies below must know of a cell, constant in each of their copies: columns of bodies.def.  With it go
 * three functions: `begin` and `end` for whole vectors, and `cut` for fewer lanes, which is called, because copies of
 * it in the loops would only make them longer.  (As members of the structure they would not be inlined under -Og.)
 *
 * A cell is computed in two phases: `begin` leaves in the tile what `end` needs, which gets no x_part.  All units and
 * rows of a tile pass the first phase before any enters the second, since what is computed in one of them depends on a
 * long chain (a sigmoid, the new c, its tanh), and a processor looks ahead over only one or two vectors of units. */
typedef struct V(cell_shape) {
    int gates, joint, vectors, units;
} V(cell_shape);

#include "cells/options.inc.h"
#include "cells/rows.inc.h"
#include "cells/cell_gru.inc.h"
#include "cells/cell_gru_free.inc.h"
#include "cells/cell_lstm.inc.h"
#include "cells/cell_lstm_1997.inc.h"
#include "cells/cell_lstm_free.inc.h"
#include "cells/cell_lstm_row.inc.h"
#include "cells/cell_rnn.inc.h"
#include "cells/cell_rnn_free.inc.h"
#include "cells/cell_depth.inc.h"

/* The first phase of one row of a tile; of cut vectors, both. */
FL_INLINE void V(eat_begin)(const fl_step_args *s, V(group) g, real *tile, const real *x_part, int64_t row,
                            const V(cell_shape) shape, V(cell_fn) begin, V(cell_fn) cut)
{
    const int64_t size = shape.vectors * FL_W;
    int64_t unit = g.first * shape.units * FL_W;
    for (int i = 0; i < g.full; i++, tile += size, x_part += size) {
        FL_UNROLL
        for (int u = 0; u < shape.units; u++, unit += FL_W) {
            if (s->hidden - unit >= FL_W)
                begin(s, tile + u * FL_W, x_part + u * FL_W, FL_W, row, unit, FL_W);
            else
                cut(s, tile + u * FL_W, x_part + u * FL_W, FL_W, row, unit, (int)(s->hidden - unit));
        }
    }
    if (!g.last) return;
    const int apart = fl_gate_lanes(g.last, shape.vectors, shape.units, FL_W);
    for (int64_t left = s->hidden - unit; left > 0; left -= FL_W, unit += FL_W, tile += FL_W)
        cut(s, tile, x_part, apart, row, unit, (int)(left < FL_W ? left : FL_W));
}

/* The second phase of its whole vectors. */
FL_INLINE void V(eat_end)(const fl_step_args *s, V(group) g, real *tile, int64_t row, const V(cell_shape) shape,
                          V(cell_fn) end)
{
    const int64_t size = shape.vectors * FL_W;
    int64_t unit = g.first * shape.units * FL_W;
    for (int i = 0; i < g.full; i++, tile += size) {
        FL_UNROLL
        for (int u = 0; u < shape.units; u++, unit += FL_W)
            if (s->hidden - unit >= FL_W) end(s, tile + u * FL_W, NULL, FL_W, row, unit, FL_W);
    }
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
FL_INLINE void V(step_tile)(const fl_step_args *s, V(group) g, int64_t row, int mr, const V(cell_shape) shape,
                            V(cell_fn) begin, V(cell_fn) end, V(cell_fn) cut)
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
    for (int m = 0; m < mr; m++) {
        const real *x_part = apart ? (const real *)x_out[m] : tile + m * wide;
        V(eat_begin)(s, g, tile + m * wide, x_part, row + m, shape, begin, cut);
    }
    for (int m = 0; m < mr; m++) V(eat_end)(s, g, tile + m * wide, row + m, shape, end);
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

FL_INLINE void V(step_any)(const fl_step_args *s, const V(cell_shape) shape, V(cell_fn) begin, V(cell_fn) end,
                           V(cell_fn) cut)
{
    const int narrow = V(narrow_of)(s, shape);
    const int64_t groups = V(groups)(s->block1 - s->block0, narrow, s->rows);
    for (int64_t i = 0; i < groups; i++) {
        const int64_t at = s->backward_sweep ? groups - 1 - i : i;
        const V(group) g = V(group_at)(at, s->block0, s->block1, narrow, s->rows);
        for (int64_t r = 0; r < s->rows;) {
            const int mr = (int)V(tile_height)(s->rows - r, V(tallest)(g, shape.vectors));
            V(step_tile)(s, g, r, mr, shape, begin, end, cut);
            r += mr;
        }
    }
}
