/* A team of threads for one call: the only door to OpenMP. */
#ifndef FL_TEAM_H
#define FL_TEAM_H

#include "fl_barrier.h"

/* fn(worker, workers, arg) runs on every worker at once, inside one parallel region, with denormals flushed to zero
 * and the rounding mode set to nearest; the caller's floating-point state is back afterwards.  `wanted` is an upper
 * bound: fewer come when other calls hold the processors, so fn must split its work by `workers`. */
typedef void (*fl_team_fn)(int worker, int workers, void *arg);
void fl_team_run(int wanted, fl_team_fn fn, void *arg);

/* The same floating-point state without a team, for calls that stay on their thread. */
unsigned fl_float_enter(void);
void fl_float_leave(unsigned saved);

#endif
