/* One step of one layer and direction for some rows, whatever its parts: what sequences and streams share. */
#ifndef FL_TURN_H
#define FL_TURN_H

#include "fl_internal.h"
#include "fl_team.h"

/* A step so long that the call may have to end within it: its blocks are run in `count` slices. */
typedef struct fl_slices {
    fl_stop *stop;
    int worker;
    int64_t count;
    double slice_ns; /* planned, of one strip of rows */
} fl_slices;

typedef struct fl_turn {
    const fl_model *m;
    const fl_packed *w;
    fl_step_args lists;   /* rows, and their pointer lists; begin and run, below, fill in what belongs to a part */
    const void **pre;     /* (rows) input products */
    int hoisted;          /* 1: they are there, else x is; row bodies always need them */
    int free;             /* 1: masks or zoneout, which only bodies with options know */
    int mate, mates;
    fl_barrier *barrier;  /* of the mates; unused when there is one */
    const void **scratch; /* FL_TURN_LISTS lists of `rows` pointers */
    void (*step)(const fl_step_args *); /* the body, where one part is all; else NULL, as where steps are cut */
    const fl_slices *slices;            /* NULL: no step is */
} fl_turn;
enum { FL_TURN_LISTS = 6 };

/* Once for many steps, when all but rows, sweep and `hoisted` is set, and again when mates change: a small step would
 * notice. */
void fl_turn_begin(fl_turn *t);
/* ahead: what a single row's part makes on the side, or NULL */
void fl_turn_run(fl_turn *t, const fl_ahead_args *ahead);
/* bias + W_ih . x of `rows` rows to rows of `pre`, this mate's share */
void fl_turn_inputs(const fl_model *m, const fl_packed *w, int64_t rows, const void *const *x, void **pre, int mate,
                    int mates);
/* the same of one part */
void fl_turn_part_inputs(const fl_model *m, const fl_packed *w, const fl_part *p, int64_t rows, const void *const *x,
                         void *const *pre, int mate, int mates);
/* h = W_hr . m, bounded and through zoneout (zoneout: rows, or NULL), this mate's share */
void fl_turn_project(const fl_model *m, const fl_packed *w, int64_t rows, const void *const *cell_out,
                     void *const *h, const void *const *h_prev, const void *const *zoneout, int mate, int mates);

/* Lists of rows that start `offset` values further on. */
static inline const void *const *fl_rows_at(const fl_model *m, const void **to, const void *const *from, int64_t rows,
                                            int64_t offset)
{
    if (!offset) return from;
    for (int64_t i = 0; i < rows; i++) to[i] = (const char *)from[i] + offset * m->unit;
    return to;
}

#endif
