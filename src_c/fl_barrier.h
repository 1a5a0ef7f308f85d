/* Where the workers of a team meet, and what stalls there teach.  Comes with fl_team.h. */
#ifndef FL_BARRIER_H
#define FL_BARRIER_H

#include <stdatomic.h>
#include <stdint.h>

/* Wait until n workers have come; n == 1 returns at once.  Spins shortly, then yields, then sleeps.
 *
 * When waiting eats a good part of the time, mates have lost their processors or share one: `solo` becomes true, for
 * all of them at the same round.  Another program wants these processors, and a barrier per step would cost a switch
 * or a time slice per step.  Who can should then let one worker finish (results do not depend on it). */
typedef struct fl_barrier {
    _Alignas(64) atomic_int arrived;
    atomic_int stalled;   /* a waiting worker's complaint */
    int64_t born;         /* ns */
    _Atomic int64_t lost; /* ns that workers waited beyond the spins */
    _Alignas(64) atomic_uint round;
    int solo; /* written by the last to arrive, before it lets the others go */
    int patient;
} fl_barrier;
/* patient: 1 where waiting long is in the nature of the work (shares of unequal size), and `solo` stays false. */
void fl_barrier_init(fl_barrier *barrier, int patient);
void fl_barrier_wait(fl_barrier *barrier, int n);

/* 1 shortly after a stall (unless fl_team_force says otherwise): a call should then stay on its thread. */
int fl_stalled_lately(void);

int64_t fl_now_ns(void); /* of a clock that only goes forward */
void fl_doze(void);      /* sleep for as little as the system grants: 50 us on Linux and some more, 1 ms on Windows */

#endif
