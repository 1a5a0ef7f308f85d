/* The walk back through a stretch as one worker goes it: what its steps share. */
#ifndef FL_WALK_H
#define FL_WALK_H

#include "fl_gradient.h"
#include "fl_lists.h"

typedef struct fl_back_rows { /* pointer lists of one strip of a step, all (strip) */
    const void **gates, **c_prev, **c, **dy, **h_prev, **x, **lower, **dupper;
    const void **seen;                                 /* h_prev, or what the product saw of it */
    const void **mask_g, **mask_h, **zone_h, **zone_c; /* NULL: none */
    void **dh, **dc, **dgates, **m_rows, **dlower, **dheard, **through, **dx;
    const void **spare[2]; /* for parts of a step */
} fl_back_rows;

typedef struct fl_walk { /* one worker's part of a stretch */
    fl_back *job;
    const fl_back_stretch *s;
    int64_t row0, row_step;     /* rows of the order: row0, row0 + row_step, ...; row0 begins the strip at hand */
    int64_t count0, count1;     /* CLOCKWORK: rows that this strip counts, its own and those of others between them */
    int64_t unit0, unit1;       /* hidden units of the element-wise part */
    int64_t h_block0, h_block1; /* plain blocks of dh */
    int64_t m_block0, m_block1; /* plain blocks of the gradient behind the projection */
    int mate, mates;
    fl_pieces pieces;
    const void **pointers;
    fl_back_rows lists;
    fl_lists views;
    fl_view h_before, c_before; /* h and c, so that time t is that of the step before t */
    int64_t pointed, had; /* the step whose first `had` rows, from the worker's first on, are in the lists; -1: none */
    int64_t *counts; /* CLOCKWORK: rows of each module so far, in this worker's own list */
} fl_walk;

static inline const fl_packed *fl_walk_weights(const fl_walk *w)
{
    return &w->job->m->layers[w->s->layer * w->job->m->spec.directions + w->s->dir];
}

/* --- fl_back_lists.c */

/* Once for a stretch: which lists there are, and of what. */
void fl_walk_begin(fl_walk *w);
/* Where the strip's rows find their operands at step s; q0: the number of this step's first row.  One strip of all rows
 * finds the lists as the step after left them, and the rows that come in are behind the others. */
void fl_walk_point(fl_walk *w, int64_t s, int64_t rows, int64_t q0);

/* --- fl_clockwork.c: the modules of a clockwork network, each with rows and lists of its own */

/* One step back: gradients of the sums of the modules that ran, and dh. */
void fl_clockwork_grads(const fl_walk *w, const fl_back_rows *l, int64_t s, int64_t rows, int64_t q0);

#endif
