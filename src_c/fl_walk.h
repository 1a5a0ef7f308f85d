/* The walk back through a stretch as one worker goes it: what its steps share. */
#ifndef FL_WALK_H
#define FL_WALK_H

#include "fl_gradient.h"

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
    int64_t *counts; /* CLOCKWORK: rows of each module so far, in this worker's own list */
} fl_walk;

typedef struct fl_back_rows { /* pointer lists of one strip of a step, all (strip) */
    const void **gates, **c_prev, **c, **dy, **h_prev, **seen, **mask_g, **zone_h, **zone_c, **lower, **dupper;
    const void **mask_h;
    void **dh, **dc, **dgates, **m_rows, **dlower, **dheard, **through;
} fl_back_rows;

static inline const fl_packed *fl_walk_weights(const fl_walk *w)
{
    return &w->job->m->layers[w->s->layer * w->job->m->spec.directions + w->s->dir];
}

/* --- fl_clockwork.c: the modules of a clockwork network, each with rows and lists of its own */

/* One step back: gradients of the sums of the modules that ran, and dh. */
void fl_clockwork_grads(const fl_walk *w, const fl_back_rows *l, int64_t s, int64_t rows, int64_t q0);

#endif
