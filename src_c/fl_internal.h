/* What the drivers share: the packed model, the arena, the plan.  Kernels never see this. */
#ifndef FL_INTERNAL_H
#define FL_INTERNAL_H

#include <math.h>
#include <stdatomic.h>

#include "fl_dispatch.h"
#include "fl_size.h"

enum { FL_ALIGN = 64 };
/* No size may be larger: a sum or product of two of them with a small factor then fits 64 bits, and products of more
 * are formed by the arena, which checks. */
#define FL_LARGEST (INT64_C(1) << 28)
/* Bytes of recurrent weights that stay in a usual L1: above it every step waits for the next cache. */
enum { FL_FIRST_CACHE = 32768 };

/* A body of bodies.def and the sizes it is used with: how hidden units lie in gate panels. */
typedef struct fl_gate_layout {
    int64_t hidden;
    int gates, joint, vectors, units, width;
} fl_gate_layout;

/* A part of a step: one product and the body that eats it.  Most layers have one.  A GRU that resets before its product
 * has two, one after the other; so has a layer with depth gates; a clockwork network has one for each module, and runs
 * those whose time it is.  A row body has a part whose sums are `columns` plain values. */
typedef struct fl_part {
    int body;
    fl_gate_layout layout;
    int64_t unit0;           /* its first hidden unit */
    int64_t period;          /* CLOCKWORK: steps from one turn to the next */
    int64_t h_first, k_h;    /* which of the recurrent operand it hears; k_h 0: none of it */
    int64_t blocks, wide;    /* of its panels; wide: columns with padding */
    int64_t pre_first;       /* where its sums start in a row of `pre` */
    const void *panel_x;     /* gate panel of I rows */
    const void *panel_h;     /* gate panel of k_h rows */
    const void *bias;        /* (wide): bias_ih + bias_hh, or bias_ih alone of gates that are apart; NULL: zero */
    const void *bias_h;      /* (wide): their bias_hh; NULL: none is */
    /* FL_MODEL_BACKWARD only, CLOCKWORK only: others have those of the layer */
    const void *panel_xt, *panel_ht;
} fl_part;

/* What a gradient row's columns meet, over all rows of a chunk: a piece of a weight's gradient. */
enum fl_operand { FL_OF_X = 0, FL_OF_H, FL_OF_HEARD, FL_OF_FED, FL_OF_ONE /* summed: a vector's gradient */ };
typedef struct fl_side {
    int operand;
    int64_t first, columns; /* of a row of gradients */
    int tensor;             /* enum fl_tensor */
    int64_t row0;           /* first row of the tensor that they are, or first element of a vector */
    int64_t n, col0, ld;    /* the operand's width; where it starts in a row of the tensor, and how long that is */
} fl_side;
enum { FL_SIDES = 24 };

/* One layer and direction, packed for one vector width.  All pointers lead into model->memory. */
typedef struct fl_packed {
    int64_t inputs; /* I of this layer */
    int part_count;
    fl_part *part;
    fl_cell_options options;
    const void *panel_side; /* plain panel of row bodies: h -> second sums ("ba"), or former gates -> sums */
    const void *panel_fed;  /* LSTM_1997: plain panel, former gates -> sums */
    const void *panel_r;    /* plain panel of weight_hr, (H -> P); NULL without projection */
    fl_one_row one_row;     /* where the model has it */
    double flops;           /* of a step of one row */
    double bytes;           /* weights it reads */
    double input_weights;   /* those that meet x, in elements */
    /* FL_MODEL_BACKWARD only: */
    const void *panel_xt;  /* plain panel, gradients of x-parts -> dx (I) */
    const void *panel_ht;  /* plain panel, gradients of h-parts -> dh (R) */
    const void *panel_nt;  /* reset before: gradients of n -> d(r h) */
    const void *panel_ft;  /* plain panel, gradients -> those of the former gates */
    const void *panel_rt;  /* plain panel, dh (P) -> dm (H) */
    const void *plain_x;   /* weight_ih as given (G*H, I), for BLAS */
    const void *blocked_x; /* weight_ih with rows in the panel's order (wide, I), for BLAS; or NULL */
    int64_t x_first, x_rows, h_first, h_rows; /* columns of a gradient row that panel_xt and panel_ht take */
    int64_t fed_first, fed_rows;              /* and panel_ft */
    int side_count;
    fl_side side[FL_SIDES];
    int64_t size[FL_TENSORS]; /* elements of its tensors */
} fl_packed;

/* With masks or zoneout a plain body gives way to the one that knows them: panels and rows are the same. */
static inline int fl_body_for(int body, int free)
{
    return free && body <= FL_BODY_RNN ? body + FL_BODY_LSTM_FREE : body;
}
_Static_assert(FL_BODY_LSTM == 0 && FL_BODY_GRU_FREE - FL_BODY_LSTM_FREE == FL_BODY_GRU &&
                   FL_BODY_RNN_FREE - FL_BODY_LSTM_FREE == FL_BODY_RNN,
               "plain bodies and those with options are in the same order");

_Static_assert(sizeof(fl_weights) == FL_TENSORS * sizeof(void *), "fl_weights has a member for each tensor");
_Static_assert(sizeof(fl_gradients) == FL_TENSORS * sizeof(void *), "and so has fl_gradients");
static inline const void *fl_tensor_of(const fl_weights *w, int tensor) { return ((const void *const *)w)[tensor]; }
static inline void *fl_gradient_of(const fl_gradients *g, int tensor) { return ((void *const *)g)[tensor]; }

struct fl_model {
    fl_spec spec;
    const fl_kernels *kernels;
    const fl_real_kernels *real;
    int body;            /* of the last part: what the whole is */
    int row_body;        /* 1: it is a row body; then, and of CLOCKWORK, workers share rows alone */
    int whole_rows;
    int keeps;           /* 1: a step needs a row of kept values also without a cache */
    int carries;         /* 1: part of dh reaches h_prev past the products */
    int own_bias_hh;
    int truncated;       /* 1: no gradient goes back but by way of c */
    int depth;           /* 1: layers read the c of the layer below */
    int simple;          /* 1: a plain body, which BLAS may help */
    int one_row;         /* 1: the kernel of that name runs steps of one row of its layers */
    struct {
        size_t x, h, c, y, workspace; /* bytes of what a step of one row is given */
    } step;
    int64_t cycle;       /* CLOCKWORK: steps after which it repeats itself */
    int64_t rows;        /* of weight_ih */
    int64_t fed;         /* width of the former gates in the state, behind c; or 0 */
    int64_t cells;       /* C: width of the second state, or 0 */
    int64_t kept;        /* values of a row that backward needs, the gates first */
    int64_t gradient;    /* reals of a row of gradients */
    int64_t gradient_stride; /* reals from one such row to the next: see fl_shape.c */
    int64_t recurrent;   /* R */
    int64_t width;       /* W */
    int64_t blocks;      /* of hidden units, of the last part */
    int64_t block_units; /* of a full gate block */
    int64_t wide;        /* columns of `pre`: all pre-activations of a row, with padding */
    int64_t side;        /* columns of the second sums of row bodies */
    int64_t unit;        /* bytes of a real */
    int gemm;            /* enum fl_gemm when it was created */
    size_t bytes;
    void *memory;
    fl_packed *layers;     /* (L*D) */
    fl_part *parts;        /* all their parts */
    const void *zones[2];  /* (R), (H): rates of zoneout for an inference; NULL: none */
    int snake;             /* the weights are too many for the first cache: see fl_snake */
    _Atomic unsigned turn; /* the one thing that changes; never a result */
};

/* A count of steps as the state holds it; what can be none counts as 0. */
static inline int64_t fl_clock_value(const fl_model *m, const void *row)
{
    const double value = m->spec.dtype == FL_F64 ? ((const double *)row)[0] : (double)((const float *)row)[0];
    return value >= 0 && value < (double)INFINITY ? (int64_t)fmod(value, (double)m->cycle) : 0;
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
/* Who packs: it fills the blocks that start between `first` and `end` and leaves others alone.  So workers that share
 * the memory of a model among them pack all of it, in equal parts. */
typedef struct fl_packer {
    const fl_real_kernels *real;
    int64_t unit;
    int stream; /* 1: past the caches, for models that do not fit into them */
    const char *first, *end;
} fl_packer;
/* unit u of gate g is row g * gate_stride + u of src, whose rows are `ld` long; the first k elements -> gate panel */
void fl_pack_gates(const fl_packer *packer, const void *panel, const void *src, int64_t gate_stride, int64_t ld,
                   const fl_gate_layout *layout, int64_t k);
/* Weights as a list of pieces, each some rows of a row-major matrix: the rows of a panel, one piece after the other. */
typedef struct fl_piece {
    const void *data; /* its first row */
    int64_t rows;
} fl_piece;
/* panel computes columns [col0, col0 + columns) of rows of `ld` elements from as many values as the pieces have rows */
void fl_pack_back(const fl_packer *packer, const void *panel, const fl_piece *piece, int count, int64_t col0,
                  int64_t columns, int64_t ld);
/* panel computes the pieces' rows, of which there are FL_SIDES at most, from elements [col0, col0 + k) of them */
void fl_pack_rows(const fl_packer *packer, const void *panel, const fl_piece *piece, int count, int64_t col0,
                  int64_t k, int64_t ld);
void fl_pack_copy(const fl_packer *packer, const void *to, const void *from, int64_t n); /* a block of n as it is */
void fl_pack_zeros(const fl_packer *packer, const void *to, int64_t n);
typedef struct fl_pack_work {
    void (*fn)(const fl_packer *, void *arg); /* packs all panels that lie in `memory` */
    void *arg;
    const fl_real_kernels *real;
    int64_t unit;
    const char *memory;
    size_t bytes;
} fl_pack_work;
/* On as many threads as it is worth, `threads` at most; 0: as fl_get_num_threads() says. */
void fl_pack_run(const fl_pack_work *work, int threads);
int fl_pack_threads(size_t bytes, int threads); /* how many */
/* bias: sums of both, of gates that are not joint bias_ih alone; their bias_hh to bias_h.  Gate g's elements of the
 * sources start at g * gate_stride. */
void fl_pack_bias(int dtype, void *bias, void *bias_h, const void *bias_ih, const void *bias_hh, int64_t gate_stride,
                  const fl_gate_layout *layout);

/* --- fl_pack_model.c: where everything has its place in model->memory, and the panels still hold anything */

/* biases and options of one layer and direction, into zeros; biases are added up, so within fl_float_enter */
void fl_pack_vectors(const fl_model *m, const fl_packed *w, const fl_weights *from);
void fl_pack_model(const fl_model *m, const fl_weights *weights, int threads); /* the panels of all layers */

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

/* Bytes of the parts of a cache, with padding.  Layers are alike, but the first may be as wide as x, and the last has
 * neither y nor input.  A call finds them once, and from them in a few additions where each layer's parts are. */
typedef struct fl_cache_layout {
    int layers, directions;
    size_t gates, c, x[2];  /* of a layer and direction; x: of the first layer, of the others */
    size_t y, input;        /* of a layer but the last; input 0: the next layer reads y */
    size_t layer[2];        /* all of the first layer, of one of the others */
    size_t total;           /* bytes of the cache; SIZE_MAX: does not fit */
} fl_cache_layout;
fl_cache_layout fl_cache_layout_of(const fl_model *m, int64_t steps, int64_t batch, int flags);
int fl_cache_flags(const fl_model *m, const fl_call *call);

/* Offsets of one layer and direction in a cache that fits. */
typedef struct fl_cache_offsets {
    size_t gates, c; /* (T, B, kept), (T, B, C) */
    size_t x;        /* (T, B, I) its input times mask_x; only with FL_CACHE_MASK_X */
    size_t y;        /* (T, B, D*R) of this layer; SIZE_MAX for the last */
    size_t input;    /* (T, B, D*R) what the next layer reads: y times dropout factors, or y itself */
} fl_cache_offsets;
static inline fl_cache_offsets fl_cache_at(const fl_cache_layout *l, int layer, int dir)
{
    const size_t start = layer ? l->layer[0] + (size_t)(layer - 1) * l->layer[1] : 0;
    const size_t side = l->gates + l->c + l->x[layer > 0], gates = start + (size_t)dir * side;
    fl_cache_offsets o = {gates, gates + l->gates, gates + l->gates + l->c, SIZE_MAX, SIZE_MAX};
    if (layer == l->layers - 1) return o;
    o.y = start + (size_t)l->directions * side;
    o.input = l->input ? o.y + l->y : o.y;
    return o;
}
/* Row b of an array (B, n) or, with t, (T, B, n); NULL of NULL */
static inline const void *fl_mask_row(const fl_model *m, const void *mask, int64_t row, int64_t n)
{
    return mask ? (const char *)mask + row * n * m->unit : NULL;
}

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
    /* a stride that is never taken may be anything, so these products may wrap */
    const uint64_t step = (uint64_t)s->step * (uint64_t)unit, row = (uint64_t)s->row * (uint64_t)unit;
    return (fl_view){(char *)s->data, (int64_t)step, (int64_t)row, 0};
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

/* A worker handles the rows of a step in strips, so its pointer lists are only as long as a strip is tall.  Weights are
 * read once for each strip: in 240 rows a weight of four bytes takes part in 480 operations, so reading it again costs
 * nothing.  240 rows fill tiles of 2, 4 and 6 rows. */
#ifndef FL_STRIP_ROWS
#define FL_STRIP_ROWS 240
#endif
/* Rows of a strip.  Where workers split the rows it is a worker's share, but not less than a few tiles: when fewer
 * workers come than planned, each has more strips, never longer lists. */
static inline int64_t fl_strip_rows(const fl_plan *plan, int64_t batch)
{
    enum { FEWEST = 48 };
    const int64_t share = plan->split == FL_SPLIT_ROWS ? (batch + plan->threads - 1) / plan->threads : batch;
    const int64_t rows = share < FEWEST ? FEWEST : share, strip = rows < FL_STRIP_ROWS ? rows : FL_STRIP_ROWS;
    return strip < batch ? strip : batch;
}

/* Steps a layer with so many inputs hoists at once; 0: its input product is part of the step's chain. */
int64_t fl_plan_span(const fl_model *m, const fl_plan *plan, int64_t inputs);
double fl_plan_flop_ns(int dtype); /* of one thread, by the machine's constants */
/* Threads of a dense layer, whose `rows` are shared. */
int fl_plan_dense(int dtype, int64_t inputs, int64_t outputs, int64_t rows, int threads);

/* --- fl_shape.c: what runs a cell with its options */

int fl_spec_valid(const fl_spec *spec);
/* Everything of a model that follows from its specification; parts and layers are filled by the next two. */
void fl_shape_model(fl_model *m); /* m->spec, m->width and m->unit are set */
int fl_part_count(const fl_spec *spec, int layer);
void fl_shape_layer(const fl_model *m, fl_packed *w, int layer); /* w->inputs, part and part_count are set */
/* The tensors that a layer must have, as a set of bits by enum fl_tensor; biases are never among them. */
unsigned fl_tensors_needed(const fl_spec *spec, int layer);

/* --- fl_step.c */

typedef struct fl_block {
    uintptr_t first, end;
} fl_block;

/* Without branches: this is part of every step. */
static inline int fl_meet(fl_block a, fl_block b) { return (a.first < b.end) & (b.first < a.end); }
static inline fl_block fl_block_of(const void *data, size_t bytes)
{
    return (fl_block){(uintptr_t)data, (uintptr_t)data + bytes};
}
/* A step of all layers with arguments that have been checked; turn: 1 sweeps from the last block of weights on. */
void fl_step_run(const fl_model *m, int64_t batch, const void *x, void *h, void *c, void *y, void *workspace, int turn);

/* --- fl_one_row.c: models whose `one_row` is set */

/* w->one_row but for its groups, of which it gets the room: part of laying a model out */
void fl_one_row_place(const fl_model *m, fl_arena *arena, fl_packed *w);
void fl_one_row_prepare(fl_model *m); /* the groups of all layers, and m->step */

/* --- fl_call.c: what forward and backward have in common */

enum fl_status fl_call_check(const fl_model *m, const fl_call *call);
int fl_call_has_blas(const fl_model *m, const fl_call *call); /* whether it has the function that the model needs */
double fl_model_flops(const fl_model *m); /* operations of a step of one row, all layers and directions */
/* Calls with equal keys should take equal times, but for lengths: see fl_judge.h. */
uint64_t fl_call_key(const fl_model *m, const fl_call *call, const fl_plan *plan, int backward);

#endif
