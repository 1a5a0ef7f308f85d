/* What the drivers share: the packed model, the arena, the plan.  Kernels never see this. */
#ifndef FL_INTERNAL_H
#define FL_INTERNAL_H

#include <stdatomic.h>

#include "fl_dispatch.h"

enum { FL_ALIGN = 64 };
/* No size may be larger: a sum or product of two of them with a small factor then fits 64 bits, and products of more
 * are formed by the arena, which checks. */
#define FL_LARGEST (INT64_C(1) << 28)
/* Bytes of recurrent weights that stay in a usual L1: above it every step waits for the next cache. */
enum { FL_FIRST_CACHE = 32768 };

/* One layer and direction, packed for one vector width.  All pointers lead into model->memory. */
typedef struct fl_packed {
    int64_t inputs;      /* I of this layer */
    const void *panel_x; /* gate panel of I rows */
    const void *panel_h; /* gate panel of R rows */
    const void *bias;    /* (wide): bias_ih + bias_hh, or bias_ih alone of gates that are not joint */
    const void *bias_h;  /* (wide): their bias_hh; NULL: all are joint */
    const void *panel_r; /* plain panel of weight_hr, (H -> P); NULL without projection */
    /* FL_MODEL_BACKWARD only: */
    const void *panel_xt;  /* plain panel, dgates (G*H) -> dx (I) */
    const void *panel_ht;  /* plain panel, dgates (G*H) -> dh (R) */
    const void *panel_rt;  /* plain panel, dh (P) -> dm (H) */
    const void *plain_x;   /* weight_ih as given (G*H, I), for BLAS */
    const void *blocked_x; /* weight_ih with rows in the panel's order (wide, I), for BLAS; or NULL */
} fl_packed;

/* A row of cells.def and the sizes it is used with: how hidden units lie in gate panels. */
typedef struct fl_gate_layout {
    int64_t hidden;
    int gates, joint, vectors, units, width;
} fl_gate_layout;

struct fl_model {
    fl_spec spec;
    const fl_kernels *kernels;
    const fl_real_kernels *real;
    fl_gate_layout layout;
    int64_t gates;       /* G */
    int64_t states;      /* 1: h, 2: h and c */
    int64_t kept;        /* values per unit that backward needs */
    int64_t vectors;     /* of a full gate block */
    int64_t recurrent;   /* R */
    int64_t width;       /* W */
    int64_t block_units; /* of a full gate block */
    int64_t blocks;      /* of hidden units */
    int64_t wide;        /* columns of a gate panel: all pre-activations of a row, with padding */
    int64_t unit;        /* bytes of a real */
    int gemm;            /* enum fl_gemm when it was created */
    size_t bytes;
    void *memory;
    fl_packed *layers;     /* (L*D) */
    int snake;             /* the weights are too many for the first cache: see fl_snake */
    _Atomic unsigned turn; /* the one thing that changes; never a result */
};

/* Of the (kept, H) gradients of a row, those of the h-parts are the first G, of the x-parts the last G.  The h-parts of
 * gates that are not joint come before the others: column 0 belongs to this row of weight_hh, and they go round. */
static inline int64_t fl_x_side(const fl_model *m) { return (m->kept - m->gates) * m->spec.hidden_size; }
static inline int64_t fl_h_first_row(const fl_model *m)
{
    return m->layout.joint < m->layout.gates ? m->layout.joint * m->spec.hidden_size : 0;
}

/* Which way the first of so many steps sweeps over the blocks of weights: the way back from where the last call on this
 * model ended, so that what is still in the cache comes first.  Calls on several threads at once may see any way. */
static inline int fl_snake(const fl_model *m, int64_t steps)
{
    if (!m->snake) return 0;
    fl_model *hint = (fl_model *)m; /* models are made by malloc, not const */
    const unsigned turn = atomic_load_explicit(&hint->turn, memory_order_relaxed);
    atomic_store_explicit(&hint->turn, turn + (unsigned)steps, memory_order_relaxed);
    return turn & 1;
}

static inline int64_t fl_layer_inputs(const fl_spec *s, int layer)
{
    return layer == 0 ? s->input_size : (s->proj_size ? s->proj_size : s->hidden_size) * s->directions;
}

/* --- fl_pack.c: weights -> panels.  Sizes in reals. */

int64_t fl_plain_blocks(int64_t columns, int64_t width);
int64_t fl_plain_columns(int64_t columns, int64_t width); /* of whole vectors */

/* The block of a gate panel in which a unit lives. */
typedef struct fl_gate_place {
    int64_t first_unit;
    int64_t first; /* its first column */
    int64_t wide;  /* its columns */
    int64_t apart; /* columns from gate to gate */
} fl_gate_place;
fl_gate_place fl_gate_place_of(const fl_gate_layout *layout, int64_t unit);
int64_t fl_gate_columns(const fl_gate_layout *layout); /* of all blocks */
int64_t fl_gate_column(const fl_gate_layout *layout, int64_t gate, int64_t unit);
/* src (gates*hidden, k) row-major -> gate panel */
void fl_pack_gates(int dtype, void *panel, const void *src, const fl_gate_layout *layout, int64_t k);
/* element (row, column) at src[row*row_stride + column*column_stride]; panel computes columns from k rows, the first of
 * them row `first_row` and after the last the others */
void fl_pack_plain(int dtype, void *panel, const void *src, int64_t k, int64_t first_row, int64_t columns,
                   int64_t row_stride, int64_t column_stride, int64_t width);
/* bias: sums of both, of gates that are not joint bias_ih alone; their bias_hh to bias_h */
void fl_pack_bias(int dtype, void *bias, void *bias_h, const void *bias_ih, const void *bias_hh,
                  const fl_gate_layout *layout);

/* --- fl_workspace.c: memory */

void *fl_aligned_alloc(size_t bytes); /* 64-byte aligned, huge pages for large panels; NULL: refused */
void fl_aligned_free(void *memory);

/* Hands out consecutive, 64-byte aligned slots.  With base NULL it only counts: the same function lays a region out
 * and says how large it must be. */
typedef struct fl_arena {
    char *base;
    size_t used;
    int overflow; /* a size did not fit; every later slot is NULL */
} fl_arena;
void *fl_arena_take(fl_arena *arena, int64_t count, int64_t unit);
/* the same for counts that are products: a*b*c*unit bytes */
void *fl_arena_take3(fl_arena *arena, int64_t a, int64_t b, int64_t c, int64_t unit);
/* After laying out a caller's block of so many bytes: FL_ERR_OVERFLOW, FL_ERR_WORKSPACE (too small, or NULL), FL_OK. */
enum fl_status fl_arena_check(const fl_arena *arena, size_t bytes);

/* Offsets of one layer and direction; `bytes` of the whole when not NULL. */
typedef struct fl_cache_offsets {
    size_t gates, c; /* (T, B, G, H), (T, B, H) */
    size_t y;        /* (T, B, D*R) of this layer; SIZE_MAX for the last */
    size_t input;    /* (T, B, D*R) what the next layer reads: y times dropout factors, or y itself */
    size_t total;    /* bytes of the cache; SIZE_MAX: does not fit */
} fl_cache_offsets;
fl_cache_offsets fl_cache_layout(const fl_model *m, int64_t steps, int64_t batch, int dropout, int layer, int dir);

/* --- sequences */

/* A strided (T, B, .) array in bytes; `first` is the step at `data` when only a chunk is kept. */
typedef struct fl_view {
    char *data;
    int64_t step, row;
    int64_t first;
} fl_view;
static inline char *fl_at(const fl_view *v, int64_t t, int64_t b)
{
    return v->data + (t - v->first) * v->step + b * v->row;
}
static inline fl_view fl_view_of(const fl_sequence *s, int64_t unit)
{
    return (fl_view){(char *)s->data, s->step * unit, s->row * unit, 0};
}
static inline fl_view fl_view_dense(void *data, int64_t batch, int64_t features, int64_t unit, int64_t first)
{
    return (fl_view){(char *)data, batch * features * unit, features * unit, first};
}

/* Rows in order of falling length, so that the active ones are always the first. */
typedef struct fl_order {
    const int64_t *row;    /* (B) row of the batch */
    const int64_t *length; /* (B) its length */
} fl_order;
/* Fills row and length (B each) from lengths (NULL: all `steps`). */
void fl_order_make(int64_t *row, int64_t *length, const int64_t *lengths, int64_t steps, int64_t batch);

/* Work item `i` of `n` equal shares of [0, total). */
static inline int64_t fl_share(int64_t total, int64_t i, int64_t n) { return total * i / n; }

/* Steps a layer with so many inputs hoists at once; 0: its input product is part of the step's chain. */
int64_t fl_plan_span(const fl_plan *plan, int64_t inputs);
/* Threads of a dense layer: split by rows. */
int fl_plan_dense(int64_t inputs, int64_t outputs, int64_t rows, int threads);

/* Argument checks shared by forward and backward. */
enum fl_status fl_call_check(const fl_model *m, const fl_call *call);

#endif
