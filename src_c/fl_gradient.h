/* Backward over one layer, one direction, one chunk of steps. */
#ifndef FL_GRADIENT_H
#define FL_GRADIENT_H

#include "fl_internal.h"
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
    int64_t longest;
    const void *zeros;        /* (max(H, R)) */
    const void **pointers;    /* (workers, fl_back_pointers) */
    char *dgates;             /* (chunk*B, kept*H) */
    char *dh;                 /* (chunk*B, P) gradient of the projected output; projection only */
    char *cell_out;           /* (chunk*B, H) what the projection ate; projection only */
    char *dcell_out;          /* (B, H); projection only */
    char *between[2];         /* (T, B, D*R) gradients handed to the layer below, in turn */
    char *gather;             /* (chunk*B, max(I, R)), BLAS only */
    const void **x, **h;      /* (chunk*B) operands of the weights' gradients, by q */
    const void **g, **m_rows; /* (chunk*B) rows of dgates, of cell_out */
    void **dx;                /* (chunk*B) where row q's input gradient goes */
    fl_barrier team;
} fl_back;

static inline int64_t fl_back_pointers(int64_t batch) { return 9 * batch; }

/* A stretch of the walk: steps s1-1 down to s0 of one layer and direction. */
typedef struct fl_back_stretch {
    int layer, dir;
    int64_t s0, s1;
    int64_t rows;   /* q runs over [0, rows) */
    fl_view x, y;   /* the layer's input and its own output, this direction's columns */
    fl_view dy, dx; /* likewise; dx.data NULL: not wanted */
    fl_cache_offsets cache;
} fl_back_stretch;

void fl_back_recurrence(fl_back *job, const fl_back_stretch *s, int worker, int workers);
/* dx, and what this chunk adds to the gradients of the weights; after a barrier, or alone */
void fl_back_products(fl_back *job, const fl_back_stretch *s, int worker, int workers);
void fl_back_products_blas(fl_back *job, const fl_back_stretch *s);

#endif
