/* A team of threads for one call, out of a pool that the process keeps. */
#ifndef FL_TEAM_H
#define FL_TEAM_H

#include "fl_barrier.h"
#include "fl_stop.h"

/* fn(worker, workers, arg) runs on every worker at once, with denormals flushed to zero and the rounding mode set to
 * nearest; the caller's floating-point state is back afterwards.  The caller's thread is worker 0.  `wanted` is an
 * upper bound: fewer come when other calls hold the processors or the system refuses threads, so fn must split its work
 * by `workers`.  A worker may return early; it sleeps, and the call ends when all have returned. */
typedef void (*fl_team_fn)(int worker, int workers, void *arg);
void fl_team_run(int wanted, fl_team_fn fn, void *arg);

typedef struct fl_team_work {
    fl_team_fn fn;
    void *arg;
    void (*begin)(int workers, void *arg); /* on the caller's thread, when it is known how many come; or NULL */
    int64_t awake_ns; /* how long workers look out for the next call before they sleep, if longer than the 30 us that
                       * all do; until fl_team_rest, or the end of the calling thread */
    fl_stop *stop;    /* asked while the caller waits for the others; NULL: nobody is */
} fl_team_work;
void fl_team_do(int wanted, const fl_team_work *work);

/* The same floating-point state without a team, for calls that stay on their thread. */
unsigned fl_float_enter(void);
void fl_float_leave(unsigned saved);
unsigned fl_float_now(void); /* the state in force; changes nothing */

#endif
