/* fastlstm: recurrent networks on a CPU.  The whole public C interface.
 *
 * A model is packed once and immutable afterwards: any number of threads may run it at the same time, each with its
 * own state, output and workspace.  No function here prints, aborts, or (outside *_create, *_free and
 * fl_machine_measure) allocates.
 * Every function that can fail returns enum fl_status; fl_status_text() puts it in words.
 *
 * Wrong arguments never crash: a NULL that the comments do not allow, a negative size, sizes that no object of this
 * process can have (more than PTRDIFF_MAX bytes).  Functions that return a status say so and have done nothing.  Of the
 * others, those that answer "how many bytes must I provide" return SIZE_MAX, and the rest 0, NULL or, with nothing to
 * return, nothing.  What cannot be checked: pointers must lead to as many elements as the comments say.
 *
 * Overlap: what a call writes must not overlap anything else that it is given, but where the comments allow it; what it
 * only reads may.  fl_forward, fl_backward, steps and the dense functions check it, and return FL_ERR_ARGUMENT.
 * Sequences with strides are compared row by row: x and y may lie side by side in the rows of one buffer.
 *
 * The caller's floating-point state (rounding mode, denormals) changes no result and is back afterwards: whatever
 * computes rounds to nearest and flushes denormals, the latter where fl_flushes_denormals() says so.
 *
 * Shapes: T steps, B rows, L layers, D directions (1 or 2), I inputs, H hidden units, P projected units (0: none),
 * R = P ? P : H recurrent width, G gates.  Arrays are row-major; `real` is float or double by the model's dtype.
 */
#ifndef FASTLSTM_H
#define FASTLSTM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FL_VERSION_MAJOR 0
#define FL_VERSION_MINOR 1

enum fl_status {
    FL_OK = 0,
    FL_ERR_ARGUMENT,  /* a size is negative, a flag unknown, a required pointer NULL, arrays overlap that must not */
    FL_ERR_OVERFLOW,  /* sizes whose product does not fit an object */
    FL_ERR_MEMORY,    /* the allocator refused */
    FL_ERR_WORKSPACE, /* workspace smaller than the query said, or not 64-byte aligned */
    FL_ERR_ISA,       /* FASTLSTM_ISA or fl_isa_force() names no instruction set, or one this machine lacks */
    FL_ERR_GEMM,      /* FASTLSTM_GEMM is not one of auto, panel, blas */
    FL_ERR_LENGTH,    /* a length is negative or greater than T */
    FL_ERR_BACKWARD,  /* the model was created without FL_MODEL_BACKWARD */
    FL_ERR_BLAS,      /* FASTLSTM_GEMM=blas, but the call carries no BLAS table, or not the product of its type */
    FL_ERR_THREADS,   /* FASTLSTM_NUM_THREADS is no integer in 0..FL_MOST_THREADS */
    FL_ERR_STOPPED    /* the call's poll ended it: what it was to write holds nothing of use */
};
const char *fl_status_text(enum fl_status status);

enum fl_dtype { FL_F32 = 0, FL_F64 = 1 };

enum fl_cell {
#define FL_CELL_ROW(ID, name, gates) FL_CELL_##ID,
#include "cells.def"
#undef FL_CELL_ROW
    FL_CELL_COUNT
};
int fl_cell_count(void);
const char *fl_cell_name(int cell); /* NULL outside [0, count) */
int fl_cell_gates(int cell);        /* G of the cell without options; 0 outside [0, count) */

/* ---- instruction set, threads ------------------------------------------------------------------------------ */

/* The set in use: the best this machine has, or what FASTLSTM_ISA names.  *name is a static string. */
enum fl_status fl_isa_name(const char **name);
const char *fl_isa_available(int index); /* 0.. : names this machine can run, best first; NULL for all others */

/* 1: denormal numbers are zero in whatever computes, so that a state that decays into them is not many times slower.
 * 0: this processor, or what emulates it, does not do so for this build (32-bit ARM, x86 with its oldest unit for
 * floating point, valgrind): results are as exact or more, and decayed states are slow.  Found out by computing. */
int fl_flushes_denormals(void);

enum { FL_MOST_THREADS = 1024 }; /* more than that means as many, wherever a number of threads is given */

/* Threads a call of the calling thread may use when it asks for 0.  The first of these that is there:
 * 1. fl_num_threads_here, of the calling thread;
 * 2. fl_set_num_threads, of the process;
 * 3. FASTLSTM_NUM_THREADS in the environment; 0, or what is no number in 0..FL_MOST_THREADS, counts as absent;
 * 4. the least of: processors in the calling thread's affinity mask, the container's quota, what OpenMP would use in
 *    the calling thread (omp_get_max_threads, omp_get_thread_limit; 1 inside a parallel region that may have none
 *    inside).  So OMP_NUM_THREADS and omp_set_num_threads count, whoever called it.
 * Always 1 in a build without OpenMP. */
int fl_get_num_threads(void);
void fl_set_num_threads(int n); /* n <= 0: back to 3 and 4 */
/* From now on calls of the calling thread use at most n threads, also those that ask for more by a number of their own;
 * n <= 0: no such bound.  Returns the bound before, 0: none, for the caller to put back. */
int fl_num_threads_here(int n);
int fl_has_openmp(void);

/* The first six are those of dense layers and of fl_map; cells take all but softmax and exp. */
enum fl_activation {
    FL_ACT_NONE = 0, /* of a cell: its own */
    FL_ACT_RELU,
    FL_ACT_TANH,
    FL_ACT_SIGMOID,
    FL_ACT_SOFTMAX,
    FL_ACT_EXP,
    FL_ACT_IDENTITY,
    FL_ACT_HARD_SIGMOID, /* min(max(alpha z + beta, 0), 1) */
    FL_ACT_SOFTSIGN,
    FL_ACT_SOFTPLUS,
    FL_ACT_ELU,
    FL_ACT_LEAKY_RELU,
    FL_ACT_THRESHOLDED_RELU,
    FL_ACT_SCALED_TANH, /* alpha tanh(beta z) */
    FL_ACT_AFFINE,
    FL_ACT_COUNT
};

/* ---- models ------------------------------------------------------------------------------------------------ */

typedef struct fl_function { /* an activation with its constants, as ONNX defines them */
    int32_t kind;            /* enum fl_activation */
    double alpha, beta;
} fl_function;

enum { FL_GATE_I = 1, FL_GATE_F = 2, FL_GATE_O = 4 }; /* sets of gates */
enum fl_coupled { FL_COUPLED_NONE = 0, FL_COUPLED_I, FL_COUPLED_F }; /* i = 1 - f; f = 1 - i */
enum fl_norm { FL_NORM_NONE = 0, FL_NORM_BA, FL_NORM_GATES };

/* What may differ from the plain cells; all zero: nothing.  Formulas and sources: docs/equations.md. */
typedef struct fl_options {
    fl_function activation[3]; /* LSTM: gates, candidate, output; GRU: gates, candidate; RNN: one */
    double clip;               /* bounds what activations of gates and candidate read; 0: unbounded; so the next two */
    double cell_clip;          /* LSTM: bounds c */
    double proj_clip;          /* LSTM with a projection: bounds h */
    int32_t reset_before;      /* GRU: reset before the product */
    int32_t peephole;          /* LSTM: set of gates that see c */
    int32_t peephole_o_prev;   /* LSTM: o sees the c of the step before */
    int32_t coupled;           /* LSTM: enum fl_coupled */
    int32_t without;           /* LSTM: set of gates that are 1; LSTM_1997: FL_GATE_O or none */
    int32_t layer_norm;        /* LSTM: enum fl_norm */
    double norm_eps;           /* added to the variance; 0 stands for 1e-5 */
    int32_t gate_recurrence;   /* LSTM: gates see i, f, o of the step before */
    int32_t biased_gates;      /* LSTM_1997: only the gates have biases */
    int32_t full_gradient;     /* LSTM_1997: not truncated */
    int64_t block_size;        /* LSTM_1997: cells of a block; 0 stands for 1 */
    int32_t period_count;      /* CLOCKWORK: modules */
    const int64_t *periods;    /* (period_count) in rising order; only fl_model_create reads them */
    double zoneout_h, zoneout_c; /* rates: what an inference blends in of the old state */
} fl_options;

typedef struct fl_spec {
    int32_t cell;       /* enum fl_cell */
    int32_t dtype;      /* enum fl_dtype */
    int32_t num_layers; /* L >= 1 */
    int32_t directions; /* D: 1, or 2 for a bidirectional stack */
    int64_t input_size, hidden_size;
    int64_t proj_size;  /* P, 0 for none */
    int32_t flags;      /* FL_MODEL_* */
    fl_options options;
} fl_spec;

enum { FL_MODEL_BACKWARD = 1 /* also pack what fl_backward needs */ };

/* Weights of one layer and direction, torch's layout and gate order (i f g o; r z n; of LSTM_1997 cells, input gates,
 * output gates: U rows).  Gates that are coupled or left out have no rows.  Only fl_model_create reads them.
 * fl_gradients has the same members in the same order. */
typedef struct fl_weights {
    const void *weight_ih;       /* (G*H, I of this layer) */
    const void *weight_hh;       /* (G*H, R); LSTM_1997: (U, U) */
    const void *bias_ih;         /* (G*H), NULL: zero; with biased_gates (U - H) */
    const void *bias_hh;         /* (G*H), NULL: zero; LSTM_1997 has none */
    const void *weight_hr;       /* (P, H), NULL unless P */
    const void *weight_peephole; /* (n*H), the n gates that have one in the order i f o */
    const void *weight_gh;       /* (3H, 3H) i f o; with gate_recurrence */
    const void *weight_ln_ih;    /* (G*H) gains; FL_NORM_BA, and the next three */
    const void *weight_ln_hh;    /* (G*H) */
    const void *weight_ln_c;     /* (H) */
    const void *bias_ln_c;       /* (H), NULL: zero */
    const void *weight_ln;       /* (G*H) gains; FL_NORM_GATES */
    const void *bias_ln;         /* (G*H), NULL: zero */
    const void *weight_d_ih;     /* (H, I); DEPTH_GATED from the second layer on, and the next three */
    const void *weight_d_c;      /* (H) */
    const void *weight_d_lower;  /* (H) */
    const void *bias_d;          /* (H), NULL: zero */
} fl_weights;

enum fl_tensor { /* the members of fl_weights and fl_gradients, in their order */
    FL_WEIGHT_IH = 0,
    FL_WEIGHT_HH,
    FL_BIAS_IH,
    FL_BIAS_HH,
    FL_WEIGHT_HR,
    FL_WEIGHT_PEEPHOLE,
    FL_WEIGHT_GH,
    FL_WEIGHT_LN_IH,
    FL_WEIGHT_LN_HH,
    FL_WEIGHT_LN_C,
    FL_BIAS_LN_C,
    FL_WEIGHT_LN,
    FL_BIAS_LN,
    FL_WEIGHT_D_IH,
    FL_WEIGHT_D_C,
    FL_WEIGHT_D_LOWER,
    FL_BIAS_D,
    FL_TENSORS
};
/* Elements of a tensor of that layer, biases included; 0: it has none; -1: no such layer, or the spec is refused. */
int64_t fl_weight_size(const fl_spec *spec, int layer, int tensor);

typedef struct fl_model fl_model;
/* weights: (L*D), layer-major */
enum fl_status fl_model_create(fl_model **out, const fl_spec *spec, const fl_weights *weights);
/* The same with a bound for the threads that pack a large model; 0: fl_get_num_threads().  The model is the same. */
enum fl_status fl_model_create_threads(fl_model **out, const fl_spec *spec, const fl_weights *weights, int threads);
void fl_model_free(fl_model *model);
const char *fl_model_isa(const fl_model *model); /* a static string */
size_t fl_model_bytes(const fl_model *model);    /* packed panels */
/* C, the width of the second state, called c below: H; with gate_recurrence 4H (c i f o); of LSTM_1997 U (c, input
 * gates, output gates); of CLOCKWORK 1, the count of steps; 0: there is none, and c0, cn, dcn, dc0 may be NULL. */
int64_t fl_model_cells(const fl_model *model);
int64_t fl_model_kept(const fl_model *model); /* values the cache keeps per row and step, the activated gates first */
/* Whether the gradient of bias_hh is not that of bias_ih */
int fl_model_own_bias_hh(const fl_model *model);

/* Row-major BLAS, all the engine ever asks of one: C := alpha * op(A) . op(B) + beta * C.  Optional. */
typedef struct fl_blas_t {
    void (*sgemm)(int trans_a, int trans_b, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
                  const float *b, int64_t ldb, float beta, float *c, int64_t ldc);
    void (*dgemm)(int trans_a, int trans_b, int64_t m, int64_t n, int64_t k, double alpha, const double *a, int64_t lda,
                  const double *b, int64_t ldb, double beta, double *c, int64_t ldc);
} fl_blas_t;

/* A sequence with strides in elements; features are contiguous: element (t, b, i) is at t*step + b*row + i. */
typedef struct fl_sequence {
    void *data;
    int64_t step, row;
} fl_sequence;

/* Masks of one layer and direction, already scaled; NULL: not applied.  docs/equations.md says what each does. */
typedef struct fl_masks {
    const void *mask_x;    /* (B, I of this layer) */
    const void *mask_h;    /* (B, R) */
    const void *mask_g;    /* (T, B, H) */
    const void *zoneout_h; /* (T, B, R) */
    const void *zoneout_c; /* (T, B, H) */
} fl_masks;

typedef struct fl_call {
    int64_t steps, batch;       /* T, B */
    fl_sequence x;              /* (T, B, I), read only */
    const int64_t *lengths;     /* (B), each in [0, T]; NULL: all T */
    const unsigned char *reset; /* (T, B); non-zero: no state crosses from step t-1 to t, in either direction; NULL */
    const void *h0, *c0;        /* (L*D, B, R), (L*D, B, C); NULL: zeros; h0 may be or overlap hn, and c0 cn, but no
                                 * other array that is written */
    fl_sequence y;              /* (T, B, D*R), written; zero beyond each length; not over x; rows must not
                                 * overlap, and the larger stride reaches over all rows of the smaller one */
    void *hn, *cn;              /* (L*D, B, R), (L*D, B, C), written */
    void *cache;                /* fl_cache_bytes(), 64-byte aligned, kept for fl_backward; NULL: inference */
    const void *dropout;        /* (L-1, T, B, D*R) factors on the outputs between layers; NULL: none; needs a cache */
    const fl_masks *masks;      /* (L*D); NULL: none, and zoneout takes its expectation; else needs a cache */
    void *workspace;            /* 64-byte aligned */
    size_t workspace_bytes;     /* at least fl_forward_bytes() */
    int32_t threads;            /* at most so many, fewer where fl_num_threads_here says so; 0: fl_get_num_threads().
                                 * Neither may change between the query of the workspace and the call */
    const fl_blas_t *blas;      /* NULL: own kernels only */
    int64_t awake_ns;           /* how long this call's workers look out for the next call before they sleep, at the
                                 * cost of their processors; at least 30 us.  A call that says so is planned as if its
                                 * workers were awake.  fl_team_rest, or the end of the calling thread, ends it. */
    int (*poll)(void *);        /* asked now and then whether to go on, so that a long call can be ended; NULL: never.
                                 * See below */
    void *poll_data;            /* handed to it */
} fl_call;
void fl_team_rest(void); /* workers that wait for the next call of a stream go to sleep */

/* A poll is called on the thread that made the call, in the floating-point state in which it was made, every 100 ms at
 * most, and never by a call of less than that.  It must return, and may itself make calls.  A child
 * that it forks must not return from it, but exit: the call's other threads are not there.  0: go on.  Else the call
 * ends with FL_ERR_STOPPED, usually within some 10 ms: it finishes the pieces of work at hand, of up to 10 ms by the
 * plan, or what BLAS does with one of its products.  Then all that the call was to write (y, hn, cn and the cache of
 * fl_forward, all gradients of fl_backward) has undefined contents, and all that it read is as before: so h0 and c0
 * must not be hn and cn where they will be needed again.  What a call computes does not depend on its poll. */

#include "fastlstm_plan.h"

/* Bytes of workspace; SIZE_MAX: does not fit, or an argument is wrong; so of all queries of this kind. */
size_t fl_forward_bytes(const fl_model *model, const fl_call *call);
enum { FL_CACHE_DROPOUT = 1, FL_CACHE_MASK_X = 2 }; /* what the call will have: dropout; any mask_x */
size_t fl_cache_bytes(const fl_model *model, int64_t steps, int64_t batch, int flags);
enum fl_status fl_forward(const fl_model *model, const fl_call *call);

/* Where the cache keeps one layer and direction: byte offsets of gates (T, B, fl_model_kept()), after their activation,
 * of c (T, B, C) where the cell has one, and of y (T, B, D*R), the layer's own output for all directions: SIZE_MAX for
 * the last layer (it is in call.y).  All are SIZE_MAX where there is no such layer or direction or the cache does not
 * fit, and c where the cell has none.  Of the kept values, LSTM: i f g o (H each), then d of DEPTH_GATED; GRU: r z n;
 * RNN, CLOCKWORK: h; LSTM_1997: input gates, output gates (U - H), g (H). */
typedef struct fl_cache_slot {
    size_t gates, c, y;
} fl_cache_slot;
fl_cache_slot fl_cache_find(const fl_model *model, int64_t steps, int64_t batch, int flags, int layer, int direction);

/* One step of one or more rows on the calling thread, state updated in place.  Never allocates, locks, nor calls the
 * operating system: safe on an audio thread.  x (B, I), h (L, B, R), c (L, B, C), y (B, R); D must be 1.
 * x may be or overlap y or h: it is read before they are written.  y may be the last layer's h itself. */
size_t fl_step_bytes(const fl_model *model, int64_t batch);
enum fl_status fl_step(const fl_model *model, int64_t batch, const void *x, void *h, void *c, void *y, void *workspace,
                       size_t workspace_bytes);

/* A stream: rows that go on from step to step, with a state of their own, in memory of the caller's: 64-byte aligned,
 * fl_stream_bytes() of it.  The state is zero at first.  The model must stay as long as the stream; there is nothing to
 * free.  A step is that of fl_step, as safe on an audio thread: x (B, I), y (B, R), outside of the stream's memory;
 * y may be or overlap x.  get and set copy the state, h (L, B, R) and c (L, B, C); NULL: get leaves it out, set makes
 * it zero.  One thread at a time may use a stream; streams of one model run side by side. */
typedef struct fl_stream fl_stream;
size_t fl_stream_bytes(const fl_model *model, int64_t batch);
enum fl_status fl_stream_init(fl_stream **stream, const fl_model *model, int64_t batch, void *memory,
                              size_t memory_bytes);
enum fl_status fl_stream_step(fl_stream *stream, const void *x, void *y);
enum fl_status fl_stream_get(const fl_stream *stream, void *h, void *c);
enum fl_status fl_stream_set(fl_stream *stream, const void *h, const void *c);

/* Gradients of one layer and direction, written (not added to): all that the model has, biases also where none were
 * given, but bias_hh only if fl_model_own_bias_hh(); else its gradient is that of bias_ih. */
typedef struct fl_gradients {
    void *weight_ih, *weight_hh, *bias_ih, *bias_hh, *weight_hr, *weight_peephole, *weight_gh;
    void *weight_ln_ih, *weight_ln_hh, *weight_ln_c, *bias_ln_c, *weight_ln, *bias_ln;
    void *weight_d_ih, *weight_d_c, *weight_d_lower, *bias_d;
} fl_gradients;

/* `call` is the one given to fl_forward (same x, y, h0, c0, lengths, reset, dropout, masks, cache), with workspace of
 * fl_backward_bytes().  x, y, h0 and c0 must hold what they held then: no hn over h0, no cn over c0.  hn and cn must
 * not be NULL, but are neither read nor written.  dh0 may be or overlap dhn, and dc0 dcn; nothing else that is written
 * may overlap anything, not dx dy either, nor one gradient another. */
typedef struct fl_backward_call {
    fl_sequence dy;          /* (T, B, D*R); ignored beyond each length */
    const void *dhn, *dcn;   /* (L*D, B, R), (L*D, B, C); NULL: zeros */
    void *dx;                /* (T, B, I) contiguous, written; NULL: not wanted */
    void *dh0, *dc0;         /* (L*D, B, R), (L*D, B, C), written */
    fl_gradients *gradients; /* (L*D) */
} fl_backward_call;
size_t fl_backward_bytes(const fl_model *model, const fl_call *call);
enum fl_status fl_backward(const fl_model *model, const fl_call *call, const fl_backward_call *back);

/* ---- dense layers: y = act(x . W^T + b), one accumulation chain per output like the recurrent layers ------------ */

typedef struct fl_dense fl_dense;
enum fl_status fl_dense_create(fl_dense **out, int dtype, int64_t inputs, int64_t outputs, const void *weight,
                               const void *bias, int activation);
/* The same with a bound for the threads that pack, as of fl_model_create_threads. */
enum fl_status fl_dense_create_threads(fl_dense **out, int dtype, int64_t inputs, int64_t outputs, const void *weight,
                                       const void *bias, int activation, int threads);
void fl_dense_free(fl_dense *dense);
/* x (N, I), y (N, O), both contiguous, y not over x */
enum fl_status fl_dense_forward(const fl_dense *dense, int64_t rows, const void *x, void *y, int threads);
/* The same with a poll as in fl_call, which may be NULL; FL_ERR_STOPPED leaves y undefined. */
enum fl_status fl_dense_forward_polled(const fl_dense *dense, int64_t rows, const void *x, void *y, int threads,
                                       int (*poll)(void *), void *poll_data);
/* dz (N, O), x (N, I) -> weight (O, I) = dz^T . x and bias (O) = sum of dz, written, over nothing else; bias may be
 * NULL */
enum fl_status fl_dense_gradient(int dtype, int64_t rows, int64_t outputs, int64_t inputs, const void *dz,
                                 const void *x, void *weight, void *bias, int threads);
enum fl_status fl_dense_gradient_polled(int dtype, int64_t rows, int64_t outputs, int64_t inputs, const void *dz,
                                        const void *x, void *weight, void *bias, int threads, int (*poll)(void *),
                                        void *poll_data);

#ifdef __cplusplus
}
#endif
#endif
