/* Backward over one layer, one direction, one chunk of steps. */
#ifndef FL_GRADIENT_H
#define FL_GRADIENT_H

#include "fl_internal.h"
#include "fl_pieces.h"
#include "fl_team.h"

/* Everything the workers of one backward call share.
 *
 * A chunk's rows are numbered in the order of the walk: q = 0 is the last step's first row.  That numbering depends on
 * lengths only, so the sums over q are the same whoever takes part. */
typedef struct fl_back {
    const fl_model *m;
    const fl_call *call;
    const fl_backward_call *back;
    fl_plan plan;
    fl_order order;
    fl_cache_layout cache;
    int64_t longest;
    int free;                 /* 1: masks or zoneout, which the plain bodies do not know */
    const void *zeros;        /* (max(H, R, C)) */
    int64_t strip;            /* rows of a worker's lists: fl_strip_rows */
    const void **pointers;    /* (workers, fl_back_pointers) */
    char *dgates;             /* (chunk*B, gradient); of CLOCKWORK (module, its rows of the chunk, its units) */
    char *dh;                 /* (chunk*B, P) gradient of the projected output; projection only */
    char *cell_out;           /* (chunk*B, H) what the projection ate; projection only */
    char *dcell_out;          /* (B, H); projection only */
    char *h_masked;           /* (chunk*B, R) h times mask_h; only with masks, and the next */
    char *dh_masked;          /* (B, R) what comes back through them */
    char *dx_masked;          /* (chunk*B, I) what comes back through mask_x; only with it */
    char *dheard;             /* (B, H) gradient of r * h; GRU that resets before the product only */
    char *dlower[2];          /* (T, D, B, H) gradients of the c of the layer below, in turn; DEPTH_GATED only */
    char *between[2];         /* (T, B, D*R) gradients handed to the layer below, in turn */
    char *gather;             /* (chunk*B, max(I, R)), BLAS only */
    const void **x, **h;      /* (chunk*B) operands of the weights' gradients, by q */
    const void **g, **m_rows; /* (chunk*B) rows of x-parts, of cell_out */
    const void **heard, **fed; /* (chunk*B) r * h; the former gates */
    void **dx;                /* (chunk*B) where row q's input gradient goes */
    void **module_dx;         /* the same for each module of CLOCKWORK; x, h and g are also by module then */
    void **masked_rows;       /* (chunk*B) of dx_masked */
    int64_t *batch_row;       /* (chunk*B) row of the batch that q is, for mask_x */
    int64_t *counts;          /* (workers, modules) CLOCKWORK: rows of each module in this stretch */
    fl_stop *stop;             /* NULL: the call never ends early */
    fl_judge judge;
    fl_barrier *team; /* NULL where one thread is planned */
    double flop_ns; /* the plan's time of the call on one thread, over its floating-point operations */
} fl_back;

enum { FL_BACK_LISTS = 23 };
static inline int64_t fl_back_pointers(const fl_back *job) { return FL_BACK_LISTS * job->strip; }

/* A stretch of the walk: steps s1-1 down to s0 of one layer and direction. */
typedef struct fl_back_stretch {
    int layer, dir;
    int64_t s0, s1;
    int64_t rows;   /* q runs over [0, rows) */
    fl_view x, y;   /* the layer's input and its own output, this direction's columns */
    fl_view dy, dx; /* likewise; dx.data NULL: not wanted */
    fl_view lower, dlower, dupper; /* c of the layer below, its gradient; this one's from above; data NULL: none */
    const void *mask_x; /* (B, I), or NULL */
    fl_cache_offsets cache;
} fl_back_stretch;

/* Where module `i` of a clockwork keeps its rows of gradients, and its rows of the lists by q. */
static inline char *fl_module_rows(const fl_back *job, const fl_part *p)
{
    return job->dgates + job->plan.chunk * job->call->batch * p->unit0 * job->m->unit;
}
static inline int64_t fl_module_list(const fl_back *job, int i) { return i * job->plan.chunk * job->call->batch; }

/* What one thread needs by the plan for a row of the recurrence, and for a row of its products.  There are four of
 * about the same size if I = R: dh of the recurrence, dx, and those of the two weights' gradients. */
static inline double fl_back_step_ns(const fl_back *job, const fl_back_stretch *s)
{
    const fl_packed *w = &job->m->layers[s->layer * job->m->spec.directions + s->dir];
    const double recurrent = (double)job->m->recurrent;
    return 2 * w->flops * job->flop_ns * recurrent / (2 * (recurrent + (double)w->inputs));
}
static inline double fl_back_products_ns(const fl_back *job, const fl_back_stretch *s)
{
    return 2 * job->m->layers[s->layer * job->m->spec.directions + s->dir].flops * job->flop_ns -
           fl_back_step_ns(job, s);
}

/* How a worker's products are cut so that the call can end within them. */
static inline fl_pieces fl_back_pieces(const fl_back *job, int worker)
{
    return (fl_pieces){job->stop, worker, job->m->unit, job->flop_ns};
}

/* Returns how many workers go on after it.  Those that do not must not come again.  0: the call is to end. */
int fl_back_recurrence(fl_back *job, const fl_back_stretch *s, int worker, int workers);
/* dx, and what this chunk adds to the gradients of the weights; after a barrier, or alone */
void fl_back_products(fl_back *job, const fl_back_stretch *s, int worker, int workers);
void fl_back_products_blas(fl_back *job, const fl_back_stretch *s);
/* the same of a clockwork network: fl_clockwork.c */
void fl_clockwork_products(fl_back *job, const fl_back_stretch *s, int worker, int workers);

#endif
