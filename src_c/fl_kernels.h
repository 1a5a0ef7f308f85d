/* What an instruction set offers the drivers: one table of functions per lane type.
 *
 * A *panel* is a weight matrix packed as [block][k][vector][lane], 64-byte aligned, zero-padded.  In a gate panel
 * vector v of block b holds gate v of hidden units b*W .. b*W+W-1; in a plain panel it holds columns
 * (b*FL_PANEL_VECTORS + v)*W ... . The products do not know the difference.
 *
 * A block of FL_PANEL_VECTORS vectors is cut into runs of `run_vectors`, [block][run][k][vector of the run][lane], so
 * that a tile which takes only some of its vectors at a time reads memory in order.  A narrower block is one run.
 *
 * The last block has only as many vectors as it needs.  In a gate panel its gates then lie closer than W lanes: with 4
 * gates and W = 16, four units left over fill one vector (lanes 0-3 gate 0, 4-7 gate 1, ...) and not four quarters.
 * A cell of one gate has four vectors of units in a block instead of four gates.
 *
 * Every output is one chain of fused multiply-adds over k in ascending order, started from `init`: results do not
 * depend on how rows and blocks are grouped, so neither on batch size, threads nor instruction set.
 */
#ifndef FL_KERNELS_H
#define FL_KERNELS_H

#include "fastlstm.h"

enum { FL_PANEL_VECTORS = 4 };
enum { FL_PROBE_CHAINS = 12 }; /* enough to hide the latency of an fma, few enough for 16 registers */

/* Lanes from one gate to the next in a gate block of `used` vectors; full, it has `vectors` for `units` x W units. */
static inline int fl_gate_lanes(int used, int vectors, int units, int width) { return used * width * units / vectors; }

/* Vectors of the last gate block, which holds `left` units: the fewest whose gates have room for them. */
static inline int fl_last_vectors(int left, int vectors, int units, int width)
{
    int used = 1;
    while (fl_gate_lanes(used, vectors, units, width) < left) used++;
    return used;
}

#define FL_ISA_AVX512 0
#define FL_ISA_AVX2 1
#define FL_ISA_NEON 2
#define FL_ISA_SCALAR 3

/* out[r][n] = (init[r][n] | bias[n] | 0) + sum_k a[r][k] * panel[.][k][.] */
typedef struct fl_product_args {
    int64_t rows, k;
    int64_t columns;        /* valid columns of out; the last block may be cut */
    int64_t block0, block1; /* blocks to compute */
    int vectors;            /* vectors of a full block, 1..4 */
    const void *const *a;   /* (rows) -> (k) */
    const void *panel;      /* (blocks, k, vectors, W), the last block with the vectors it needs */
    const void *bias;       /* (blocks, vectors, W) or NULL: zero */
    int accumulate;         /* 1: start from out itself (bias unused) */
    void *const *out;       /* (rows) -> (columns) */
} fl_product_args;

enum fl_body {
#define FL_BODY_ROW(ID, name, fewest, gates, apart, units, inlined, alone) FL_BODY_##ID,
#define FL_ROW_BODY(ID, name)
#include "bodies.def"
#undef FL_BODY_ROW
#undef FL_ROW_BODY
    FL_BODY_COUNT
};
enum fl_row_body { /* their numbers go on where those of enum fl_body end */
#define FL_BODY_ROW(ID, name, fewest, gates, apart, units, inlined, alone)
#define FL_ROW_BODY(ID, name) FL_BODY_##ID,
    FL_ROW_FIRST_ = FL_BODY_COUNT - 1,
#include "bodies.def"
#undef FL_BODY_ROW
#undef FL_ROW_BODY
    FL_ROW_END
};
enum { FL_ROW_COUNT = FL_ROW_END - FL_BODY_COUNT };

/* What a body with options must know: fl_options resolved, and where in a row its values are.  Places in rows of kept
 * values and of gradients count in vectors of H; -1: not there. */
typedef struct fl_cell_options {
    fl_function act[3];    /* none of them FL_ACT_NONE */
    double clip, cell_clip; /* INFINITY: unbounded */
    double eps;
    int64_t hidden;        /* H of the layer, the distance between kept values */
    int place[4];          /* of i f g o among the gates that have rows */
    int gates;             /* how many have rows */
    int coupled, peephole_o_prev, norm, fed;
    const void *peephole[3]; /* i f o: (H) or NULL */
    const void *depth_c, *depth_lower;                                    /* (H) */
    const void *gain_x, *gain_h, *gain_c, *bias_x, *bias_h, *bias_c;     /* layer norm; (G*H), (H); `gates`: x alone */
    int64_t block_size, gate_units; /* LSTM_1997: cells of a block; gates of all blocks, U - H */
    int has_o;
    /* kept values after the gates: */
    int kept_d, kept_sums, kept_sums_h, kept_c;
    /* gradients after those of the sums: */
    int grad_d, grad_peephole, grad_carry, grad_depth, grad_norm, grad_norm_c;
} fl_cell_options;

/* One time step of a cell for `rows` rows and blocks [block0, block1). */
typedef struct fl_step_args {
    int64_t rows, hidden;
    int64_t block0, block1;
    int backward_sweep;            /* 1: blocks from last to first (snake order keeps the cache warm) */
    int64_t k_x, k_h;              /* k_x = 0 when the input product is in `pre` */
    const void *const *x;          /* (rows) -> (k_x) */
    const void *const *h;          /* (rows) -> (k_h) previous output */
    const void *panel_x, *panel_h; /* gate panels */
    const void *bias;              /* (wide): (blocks, vectors, W), the last block with the vectors it needs */
    const void *bias_h;            /* (wide): where the h-part of gates that are apart starts; NULL: none are */
    const void *const *pre;        /* (rows) -> (wide): bias + input product; NULL: none */
    const void *const *c_prev;     /* (rows) -> (C) */
    void *const *c;                /* (rows) -> (C), may be c_prev's rows */
    void *const *h_out;            /* (rows) -> (H) */
    void *const *gates;            /* (rows) -> (kept), gates after their activation; NULL: not wanted */
    /* of bodies with options alone; the plain ones have no gates to choose and take h for h_prev: */
    int count;                       /* gates that have rows */
    const fl_cell_options *options;
    const void *const *h_prev;       /* (rows) -> (H), h before any mask */
    const void *const *mask_g;       /* (rows) -> (H), and the next three; NULL: none */
    const void *const *zoneout_h;
    const void *const *zoneout_c;
    const void *const *lower;        /* c of the layer below */
    const void *const *side;         /* (rows) -> second sums of row bodies, whose first ones are in `pre` */
    int keeps;                       /* 1: `gates` is for backward, 0: for this step alone */
} fl_step_args;

/* Input products of `ahead_rows` later rows, in as many equal shares, each done beside a step: see ahead.inc.h. */
typedef struct fl_ahead_args {
    int64_t k;
    int64_t share;        /* 0 .. ahead_rows - 1, in this order */
    const void *panel;    /* gate panel of k rows */
    const void *const *x; /* (ahead_rows) -> (k) */
    void *const *pre;     /* (ahead_rows) -> (wide); complete after the last share */
} fl_ahead_args;

/* Steps of one row of a plain body: see one_row.inc.h.  A group: up to two full blocks, and the narrow one after the
 * last of them.  What is found once for all steps is here. */
typedef struct fl_one_row_group {
    /* the sums of its gates, to `tile`; of gates that are apart, their x-parts to x_tile */
    void (*sums)(const struct fl_one_row_group *, const void *x, const void *h, void *tile, void *x_tile);
    const void *panel_x, *panel_h, *bias, *bias_h; /* its first block's */
    int64_t k_x, k_h;
    int64_t first;      /* its first block */
    int full, last;     /* how many full blocks, how many vectors of the narrow one */
    double joint_lanes; /* lanes of the narrow block, its first ones, whose gates are joint */
} fl_one_row_group;

/* One layer. */
typedef struct fl_one_row {
    const fl_one_row_group *group;
    int64_t groups, hidden;
    int64_t full; /* of all groups together */
    int narrow;
    int whole;        /* 1: all sums fit the kernel's memory, so a step reads all before it writes */
    int hoists;       /* 1: input products are quicker when made for many steps at once */
    const fl_cell_options *options;
} fl_one_row;

/* Distances are in elements. */
typedef struct fl_one_row_args {
    const fl_one_row *layer;
    int64_t steps; /* 1 at least */
    const void *x; /* (k_x) of the first step */
    const void *h; /* (H) before it */
    void *c;       /* (H) in place, of cells that have it */
    void *y;       /* (H) of the first step; each step reads that of the one before.  Of whole steps it may be x or h */
    int64_t x_step, y_step;
    int backward_sweep;
    void *also; /* (H) the last step's h goes there too; or NULL */
} fl_one_row_args;
typedef void (*fl_one_row_sums)(const fl_one_row_group *, const void *, const void *, void *, void *);

/* Backward of a cell's element-wise part for units [unit0, unit1). */
typedef struct fl_cell_grad_args {
    int64_t rows, hidden;
    int64_t unit0, unit1;
    const void *const *gates;  /* (rows) -> (kept) */
    const void *const *h_prev; /* (rows) -> (R) */
    const void *const *c_prev; /* (rows) -> (C), and the next two, of cells with c */
    const void *const *c;      /* (rows) -> (C) */
    const void *const *dh;     /* (rows) -> (H) */
    const void *const *dh_add; /* (rows) -> (H), added to dh; NULL: none */
    void *const *dc;           /* (rows) -> (C): in dL/dc from the next step, out dL/dc_prev */
    void *const *dgates;       /* (rows) -> gradients of the pre-activations; of gates that are apart the h-parts come
                                  first, then all x-parts; then what bodies with options add */
    void *const *carry;        /* (rows) -> (H): what of dh reaches h_prev past the products */
    void *const *h;            /* (rows) -> (H): the cell's output computed again; NULL: not wanted */
    /* of bodies with options alone: */
    const fl_cell_options *options;
    const void *const *mask_g, *const *zoneout_h, *const *zoneout_c; /* as forward */
    const void *const *lower;                                        /* c of the layer below */
    const void *const *dc_add; /* (rows) -> (H): what depth gates of the layer above hand back; NULL: none */
    void *const *dlower;       /* (rows) -> (H): and what this one hands to the layer below */
    const void *const *seen;   /* (rows) -> (H): GRU_RESET: h as its product saw it */
    const void *const *dheard; /* (rows) -> (H): and the gradient of r * h */
} fl_cell_grad_args;

/* c[j][n] += sum_r g[r][j] * a[r][n] for j in [j0, j1): partial sums of FL_OUTER_ROWS rows, each one chain */
enum { FL_OUTER_ROWS = 128 };
typedef struct fl_outer_args {
    int64_t rows, j0, j1, n;
    const void *g; /* (rows, g_stride) */
    int64_t g_stride;
    const void *const *a; /* (rows) -> (n) */
    void *c;              /* (>= j1, n) */
    int64_t c_stride;
} fl_outer_args;

/* s[j] += sum_r g[r][j] for j in [j0, j1), grouped like fl_outer_args */
typedef struct fl_colsum_args {
    int64_t rows, j0, j1;
    const void *g;
    int64_t g_stride;
    void *s; /* (>= j1) */
} fl_colsum_args;

/* Backward of blend, whose result was y: dy -> its gradient before, and carry = k * dy. */
typedef struct fl_blend_grad_args {
    const void *k, *x, *y; /* k NULL: no blending, carry not written */
    void *dy, *carry;
    double limit;
    int64_t n;
} fl_blend_grad_args;

/* Weights into one block of a panel, (k, wide): lanes that no strip has become 0.
 *
 *   pack_rows     to[i][at + j] = from[j * ld + i]: `lanes` rows of weights, element i of each
 *   pack_columns  to[i][j] = from[i * ld + j]: of one strip, `lanes` elements of row i; its `at` is 0 */
typedef struct fl_pack_strip {
    const void *from;
    int64_t lanes, at;
} fl_pack_strip;
typedef struct fl_pack_args {
    const fl_pack_strip *strip; /* (count) in rising order of `at` */
    int count;
    int whole;  /* 1: strips of whole vectors that fill all lanes */
    int stream; /* 1: written past the caches, where the processor can */
    int64_t ld, k;
    void *to;
    int64_t wide; /* lanes, whole vectors, FL_PANEL_VECTORS at most */
} fl_pack_args;

typedef struct fl_real_kernels {
    int width; /* W, lanes of a vector */
    int run_vectors;
    void (*product)(const fl_product_args *);
    void (*step[FL_BODY_COUNT])(const fl_step_args *);
    int ahead_rows; /* 0: none of step_ahead is there */
    /* one row; three gates, four, or one of four vectors; NULL: not offered */
    void (*step_ahead[FL_BODY_COUNT])(const fl_step_args *, const fl_ahead_args *);
    int one_row_vectors; /* vectors of sums of a step that is whole */
    void (*one_row[FL_BODY_COUNT])(const fl_one_row_args *); /* NULL: not offered */
    fl_one_row_sums (*one_row_sums)(int vectors, int full, int last); /* of a group */
    void (*cell_grad[FL_BODY_COUNT])(const fl_cell_grad_args *);
    void (*row[FL_ROW_COUNT])(const fl_step_args *);
    void (*row_grad[FL_ROW_COUNT])(const fl_cell_grad_args *);
    void (*outer)(const fl_outer_args *);
    void (*colsum)(const fl_colsum_args *);
    void (*map)(int activation, const void *x, void *y, int64_t n);  /* element-wise; x may be y */
    void (*add)(const void *x, const void *y, void *out, int64_t n); /* out = x + y */
    void (*mul)(const void *x, const void *y, void *out, int64_t n); /* out = x * y */
    /* y = k * x + (1 - k) * (y bounded); k NULL: y bounded */
    void (*blend)(const void *k, const void *x, void *y, double limit, int64_t n);
    void (*blend_grad)(const fl_blend_grad_args *);
    void (*pack_rows)(const fl_pack_args *);
    void (*pack_columns)(const fl_pack_args *);
    double (*probe_fma)(int64_t n);                                  /* see probe.inc.h */
    double (*probe_read)(const void *from, int64_t n);
} fl_real_kernels;

typedef struct fl_kernels {
    const char *name;
    const fl_real_kernels *lanes[2]; /* by enum fl_dtype */
} fl_kernels;

#endif
