/* A team of threads for one call: the only door to OpenMP. */
#ifndef FL_TEAM_H
#define FL_TEAM_H

#include <stdatomic.h>
#include <stdint.h>

/* fn(worker, workers, arg) runs on every worker at once, inside one parallel region, with denormals flushed to zero
 * and the rounding mode set to nearest; the caller's floating-point state is back afterwards.  `wanted` is an upper
 * bound: fewer come when other calls hold the processors, so fn must split its work by `workers`. */
typedef void (*fl_team_fn)(int worker, int workers, void *arg);
void fl_team_run(int wanted, fl_team_fn fn, void *arg);

/* How many threads fl_team_run would like for `limit` (0: the process's setting). */
int fl_team_limit(int limit);

/* Wait until n workers have come; n == 1 returns at once.  Spins shortly, then yields, then sleeps.
 *
 * When waiting eats a good part of the time, mates have lost their processors or share one: `solo` becomes true, for
 * all of them at the same round.  Another program wants these processors, and a barrier per step would cost a switch
 * or a time slice per step.  Who can should then let one worker finish (results do not depend on it). */
typedef struct fl_barrier {
    _Alignas(64) atomic_int arrived;
    atomic_int stalled; /* a waiting worker's complaint */
    int64_t born;       /* ns */
    _Atomic int64_t lost; /* ns that workers waited beyond the spins */
    _Alignas(64) atomic_uint round;
    int solo; /* written by the last to arrive, before it lets the others go */
    int patient;
} fl_barrier;
/* patient: 1 where waiting long is in the nature of the work (shares of unequal size), and `solo` stays false. */
void fl_barrier_init(fl_barrier *barrier, int patient);
void fl_barrier_wait(fl_barrier *barrier, int n);

/* The same floating-point state without a team, for calls that stay on their thread. */
unsigned fl_float_enter(void);
void fl_float_leave(unsigned saved);

#endif
