/* A forward call as its workers share it, and one layer and direction of it: fl_layer.c, fl_hoist.c, fl_views.c. */
#ifndef FL_LAYER_H
#define FL_LAYER_H

#include "fl_lists.h"
#include "fl_turn.h"

/* Everything the workers of one call share. */
typedef struct fl_job {
    const fl_model *m;
    const fl_call *call;
    fl_plan plan;
    fl_order order;
    fl_cache_layout cache; /* with call->cache only */
    int64_t longest;       /* largest length */
    int free;              /* 1: masks or zoneout, which the plain bodies do not know */
    int more;              /* 1: masks, a projection, or a cell that needs more than x, h and c */
    int64_t strip;         /* rows of a worker's lists: fl_strip_rows */
    int turn;              /* which way the first step sweeps over the blocks */
    char *pre[2];          /* (hoist, B, wide) by direction: bias + input product */
    char *side[2];         /* (B, side) by direction: second sums of row bodies */
    char *kept[2];         /* (B, kept) by direction: kept values of a step; inference by bodies that need them */
    char *masked;          /* (workers, strip, R) h times mask_h; only with masks */
    char *between[2];      /* (chunk, B, D*R) outputs of inner layers, in turn; inference only */
    char *between_c[2];    /* (chunk, D, B, C) their c, where the next layer reads it; inference only */
    char *cell_out[2];     /* (B, H) by direction: what projection eats; only with projection */
    char *gather;          /* (hoist*B, I) rows of x for BLAS; only with BLAS */
    const void *zeros;     /* (max(H, C)) what h and c are after a reset */
    const void **pointers; /* (workers, fl_pass_pointers) */
    int workers;           /* of the team, at first and at last */
    int halves;            /* 1: each half of the team runs a direction */
    double flop_ns;        /* the plan's time of the call on one thread, over its floating-point operations */
    fl_stop *stop;         /* NULL: the call never ends early */
    fl_judge judge, half_judge[2];
    fl_barrier *team, *half; /* half: (2); both NULL where one thread is planned */
} fl_job;

typedef struct fl_rows { /* the pointer lists of one strip of a step, all (strip) */
    const void **x, **pre, **h, **h_prev, **c_prev, **mask_g, **zone_h, **zone_c, **lower, **side;
    void **c, **y, **gates, **cell_out;
} fl_rows;

/* One worker's part of it: rows order[row0], order[row0 + row_step], ... and blocks [block0, block1). */
typedef struct fl_pass {
    const fl_job *job;
    int dir;
    int64_t slot; /* number of this layer and direction: layer * directions + dir */
    fl_view x, y;           /* y already at this direction's columns */
    fl_view c, lower;       /* c of every step, of this layer and of that below; data NULL: in cn alone; not read */
    fl_cache_offsets cache; /* with call->cache only */
    int64_t rows, row0, row_step;
    fl_barrier *barrier; /* of the workers that share this pass's rows */
    int mate, mates;
    int worker; /* of the call */
    const void **pointers;
    char *masked; /* (strip, R), this worker's */
    /* filled by fl_pass_run: */
    fl_rows lists;
    fl_lists *views; /* y is the first of them, c the second */
    int own_c;     /* 1: c_prev has a list of its own; else c is where it was before */
    int alters;    /* 1: resets or a mask of h change what the lists say of a state */
    int64_t pointed; /* the step whose rows from the first on are in the lists; below -1: none */
    fl_turn turn;
    const void *const *zone_h; /* for a projected h; NULL: none */
    fl_pace pace;              /* of its steps */
    fl_slices slices;          /* count 1: none of them is cut */
} fl_pass;

/* Pointers one worker needs: lists by row, and two that are as long as a product of hoisted steps has rows.  BLAS needs
 * none of the latter. */
enum { FL_PASS_LISTS = 14, FL_PASS_ALL = FL_PASS_LISTS + FL_TURN_LISTS };
static inline int64_t fl_pass_pointers(const fl_job *job)
{
    return job->strip * (FL_PASS_ALL + (job->plan.blas ? 0 : 2 * job->plan.hoist));
}

/* Steps [s0, s1) of the order in which this direction walks.  hoist_here: 0 when `pre` was filled beforehand.  Returns
 * how many mates go on after it: one whose number is not below that has left before its end.  0: the call is to end. */
int fl_pass_run(const fl_pass *p, int64_t s0, int64_t s1, int hoist_here);

/* Active rows are the first ones, because lengths fall. */
static inline int64_t fl_pass_active(const fl_pass *p, int64_t s, int64_t rows)
{
    while (rows > 0 && p->job->order.length[p->row0 + (rows - 1) * p->row_step] <= s) rows--;
    return rows;
}

static inline char *fl_pass_state(const fl_pass *p, const void *state, int64_t b, int64_t width)
{
    const fl_model *m = p->job->m;
    return (char *)state + (p->slot * p->job->call->batch + b) * width * m->unit;
}

static inline const fl_packed *fl_pass_weights(const fl_pass *p)
{
    return &p->job->m->layers[p->slot];
}

/* Where the input product of row r (in order) waits until its step. */
static inline char *fl_pass_pre(const fl_pass *p, int64_t slot, int64_t r)
{
    const fl_model *m = p->job->m;
    return p->job->pre[p->dir] + (slot * p->job->call->batch + r) * m->wide * m->unit;
}

/* --- fl_views.c */

/* What layer `layer` reads: the call's x, or what the layer below left in the cache or in `between`.  first: the step
 * with which the chunk begins. */
fl_view fl_job_input(const fl_job *job, int layer, int64_t first);
fl_view fl_job_output(const fl_job *job, int layer, int64_t first); /* what it writes, all directions */
/* c of every step of a layer and direction, where it is kept: in the cache, or where the next layer reads it. */
fl_view fl_job_cells(const fl_job *job, int layer, int dir, int64_t first);
/* What lies beyond the lengths becomes zero, this worker's share: of y, and of the cache. */
void fl_job_zero_tails(const fl_job *job, int worker, int workers);
/* The next layer's input: y of this one times the dropout factors, of this worker's share of the rows. */
void fl_job_drop_out(const fl_job *job, int layer, int64_t s0, int64_t s1, int worker, int workers);

/* Which lists a pass has, and of what; span: steps whose input products are hoisted at once. */
void fl_pass_begin(fl_pass *p, int64_t span);
/* Where the strip that begins with row `first` of `rows` finds its operands at step s; returns how many rows it has.
 * s0: first step of this chunk.  One strip of all rows finds the lists as the step before left them. */
int64_t fl_pass_point(fl_pass *p, int64_t first, int64_t rows, int64_t s, int64_t s0, int64_t pre_step);

/* --- fl_hoist.c */

/* bias + W_ih . x for steps [s, s + span) of this worker's rows [first, end), as one product, to `pre` from `slot` on:
 * of the blocks that worker number `piece` of `pieces` has.  There is at most a strip of rows. */
void fl_hoist_inputs(const fl_pass *p, int64_t s, int64_t span, int64_t first, int64_t end, int64_t pre_slot, int piece,
                     int pieces);
/* The same for this worker's first `rows` rows, strip after strip, and its blocks, from the first slot on.  s0: first
 * step of the chunk. */
void fl_hoist_strips(const fl_pass *p, int64_t s, int64_t s0, int64_t span, int64_t rows);

#endif
