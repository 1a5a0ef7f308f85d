/* Where the workers of a team wait for each other.  Comes with fl_team.h. */
#ifndef FL_BARRIER_H
#define FL_BARRIER_H

#include <stddef.h>

#include "fl_judge.h"
#include "fl_stop.h"
#include "fl_wait.h"

/* Workers come in groups of about the square root of their number.  The last of a group goes on to the others' last,
 * and the last of all lets every group go: so no cache line is read by more than a group.
 *
 * A barrier may have a judge, which decides at the end of a piece of work how many workers go on: then those whose
 * number is not below it must not come again.  When the call is to end nobody goes on: the number is 0. */
enum { FL_BARRIER_GROUPS = 32 }; /* of FL_MOST_THREADS workers */
typedef struct fl_barrier {
    struct {
        _Alignas(64) atomic_int arrived; /* of this group */
        _Alignas(64) atomic_uint round;  /* what its members watch */
    } group[FL_BARRIER_GROUPS];
    _Alignas(64) atomic_int groups_arrived;
    _Alignas(64) atomic_int workers; /* how many go on; written by the last to arrive, before it lets the others go */
    int groups;               /* of the first round, or more */
    atomic_int late;          /* 1: a worker has waited FL_LATE_NS */
    fl_judge *judge;          /* NULL: nobody is sent away */
    fl_stop *stop;            /* whether the call is to end; NULL: it never is */
    int asker;                /* the worker that asks while it waits; -1: none */
    struct fl_barrier *half[2]; /* barriers of the two halves of this team, which judge by themselves; or NULL */
} fl_barrier;

/* For at most so many workers, without a stop. */
void fl_barrier_init(fl_barrier *barrier, int most, fl_judge *judge);
/* From now on `stop` may end the call; asker: the worker that asks while it waits, -1: none. */
static inline void fl_barrier_stop(fl_barrier *barrier, fl_stop *stop, int asker)
{
    barrier->stop = stop;
    barrier->asker = asker;
}
/* From now on it has so many workers, and so has its judge; while nobody is on the way to it. */
void fl_barrier_shrink(fl_barrier *barrier, int workers);

/* Waits until `workers` of them have come, of which this is number `worker`; returns at once where there is one.
 * Spins shortly, then yields, then dozes. */
void fl_barrier_wait(fl_barrier *barrier, int worker, int workers);
/* The same at the end of a piece of work that takes one thread plan_ns.  Returns how many workers go on. */
int fl_barrier_judge(fl_barrier *barrier, int worker, int workers, double plan_ns);
/* Counts as having come, and returns without waiting: for a worker that leaves the call. */
void fl_barrier_leave(fl_barrier *barrier, int worker, int workers);

#endif
