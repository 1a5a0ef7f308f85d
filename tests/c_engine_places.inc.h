/* Threads that take places at the same time: nobody gets what another one has. */
#ifndef C_ENGINE_PLACES_INC_H
#define C_ENGINE_PLACES_INC_H

#include <sched.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "fl_places.h"

/* 8 cores, processors k and k + 8 on core k. */
enum { CORES = 8, MOST_WORKERS = 2 * CORES, MOST_ROUNDS = 2000 };
typedef struct claims {
    fl_core_map map;
    fl_processors allowed;
    int workers, rounds, start[MOST_WORKERS];
    atomic_int arrived; /* of all rounds */
    fl_places places[MOST_ROUNDS];
    int got[MOST_ROUNDS][MOST_WORKERS];
} claims;
typedef struct claimant {
    claims *all;
    int worker;
} claimant;

static void *claim(void *arg)
{
    const claimant *c = arg;
    claims *all = c->all;
    const int own = all->start[c->worker];
    for (int round = 0; round < all->rounds; round++) {
        atomic_fetch_add(&all->arrived, 1);
        while (atomic_load(&all->arrived) < (round + 1) * all->workers)
            if (all->workers > 2) sched_yield();
        all->got[round][c->worker] = fl_places_claim(&all->places[round], &all->map, &all->allowed, own, 0);
    }
    return NULL;
}

static void check_claims(const claims *all)
{
    for (int round = 0; round < all->rounds; round++) {
        int on_processor[2 * CORES] = {0}, on_core[CORES] = {0}, good = 1;
        for (int i = 0; i < all->workers; i++) {
            on_processor[all->got[round][i]]++;
            on_core[all->map.core[all->got[round][i]]]++;
        }
        for (int p = 0; p < 2 * CORES; p++) good &= on_processor[p] <= 1;
        for (int c = 0; c < CORES; c++) good &= all->workers > CORES ? on_core[c] >= 1 : on_core[c] <= 1;
        if (!check(good, "%d workers, round %d: two where one could be elsewhere", all->workers, round)) return;
    }
}

/* workers: threads that will claim; team: workers of it, of which some are on processors 0, 1 ... already */
static claims *new_claims(int workers, int rounds, int team, int there)
{
    static claims all;
    memset(&all, 0, sizeof all);
    all.workers = workers;
    all.rounds = rounds;
    uint16_t core[FL_PROCESSORS];
    for (int p = 0; p < FL_PROCESSORS; p++) core[p] = (uint16_t)(p < 2 * CORES ? p % CORES : p);
    fl_core_map_make(&all.map, core);
    for (int p = 0; p < 2 * CORES; p++) fl_processors_add(&all.allowed, p);
    for (int round = 0; round < rounds; round++) {
        fl_places_begin(&all.places[round], team);
        for (int p = 0; p < there; p++) fl_places_claim(&all.places[round], &all.map, &all.allowed, p, 0);
    }
    check(fl_cores_among(core, &all.allowed) == CORES, "%d cores", fl_cores_among(core, &all.allowed));
    return &all;
}

static void run_claims(claims *all)
{
    claimant claimants[MOST_WORKERS];
    pthread_t threads[MOST_WORKERS];
    for (int i = 0; i < all->workers; i++) {
        claimants[i] = (claimant){all, i};
        pthread_create(&threads[i], NULL, claim, &claimants[i]);
    }
    for (int i = 0; i < all->workers; i++) pthread_join(threads[i], NULL);
}

/* in_pairs: workers start on processors 0, 8, 1, 9 ...; else all on 3 */
static void test_claims(int workers, int rounds, int in_pairs)
{
    claims *all = new_claims(workers, rounds, workers, 0);
    for (int i = 0; i < workers; i++) all->start[i] = in_pairs ? i / 2 + i % 2 * CORES : 3;
    run_claims(all);
    check_claims(all);
}

/* A team of one worker more than there are cores, two of them on processors 0 and 1.  Of two others, which start on 8
 * and 9, one may share a core, and the other one should move. */
static void test_last_to_share(void)
{
    claims *all = new_claims(2, MOST_ROUNDS, CORES + 1, 2);
    for (int i = 0; i < 2; i++) all->start[i] = CORES + i;
    run_claims(all);
    for (int round = 0; round < MOST_ROUNDS; round++) {
        const int stay = (all->got[round][0] == CORES) + (all->got[round][1] == CORES + 1);
        const int counted = atomic_load(&all->places[round].sharing);
        if (!check(stay == 1 && counted == 1, "round %d: %d share, %d counted", round, stay, counted)) return;
    }
}

/* All cores are taken, and two workers start on one processor that is not. */
static void test_siblings(void)
{
    claims *all = new_claims(2, MOST_ROUNDS, 2 * CORES, CORES);
    all->start[0] = all->start[1] = CORES;
    run_claims(all);
    check_claims(all);
}

/* A worker whose mask has as many cores as the team has workers, all taken: alone on its processor, it stays there. */
static void test_narrow_mask(void)
{
    claims *all = new_claims(0, 1, 2, 2);
    fl_processors narrow = {{0}};
    for (int p = 0; p < 2; p++) {
        fl_processors_add(&narrow, p);
        fl_processors_add(&narrow, p + CORES);
    }
    const int to = fl_places_claim(&all->places[0], &all->map, &narrow, CORES, 0);
    check(to == CORES, "a worker alone on processor %d moved to %d", CORES, to);
}

static void test_moves(void)
{
    fl_moves moves = {0};
    int due = 0;
    for (int i = 0; i < 1000; i++)
        if (fl_moves_due(&moves)) {
            due++;
            fl_moves_moved(&moves);
        }
    /* pauses of 1, 2, 4, 8, 16, 32 and then 64 times: 6 moves in the first 69, and then the first of every 65 */
    check(due == 6 + (1000 - 69 + 64) / 65, "%d moves in 1000 times that did not last", due);
    check(!fl_moves_due(&moves), "a pause that ends too early");
    fl_moves_settled(&moves);
    check(fl_moves_due(&moves), "no move although the last one lasted");
}

#if defined(__linux__)
/* Takes two places on one processor: the first as worker 0, the second in turn as worker 1, which should move, and as
 * worker 0, which should not. */
static void *start_there(void *arg)
{
    enum { ROUNDS = 20 };
    int *moved = arg; /* of worker 1, of worker 0, and masks that are not as they were */
    cpu_set_t mask, one, after;
    if (sched_getaffinity(0, sizeof mask, &mask)) return NULL;
    int first = 0;
    while (!CPU_ISSET(first, &mask)) first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    for (int i = 0; i < 2 * ROUNDS; i++) {
        fl_places places;
        fl_places_begin(&places, 2);
        sched_setaffinity(0, sizeof one, &one);
        fl_places_take(&places, 0);
        sched_setaffinity(0, sizeof mask, &mask);
        fl_places_take(&places, i % 2 ? 0 : 1);
        moved[i % 2] += sched_getcpu() != first;
        moved[2] += sched_getaffinity(0, sizeof after, &after) || !CPU_EQUAL(&mask, &after);
    }
    moved[3] = CPU_COUNT(&mask);
    moved[4] = ROUNDS;
    return NULL;
}

/* In place of the system's: while `intruder` is set, right after the next mask of one processor somebody else sets
 * that one. */
static _Thread_local const cpu_set_t *intruder;
int sched_setaffinity(pid_t pid, size_t bytes, const cpu_set_t *mask)
{
    const int failed_here = syscall(SYS_sched_setaffinity, pid, bytes, mask) < 0;
    if (!intruder || CPU_COUNT(mask) != 1) return failed_here ? -1 : 0;
    syscall(SYS_sched_setaffinity, pid, sizeof *intruder, intruder);
    intruder = NULL;
    return 0;
}

/* A worker that moves while its mask is set by another: that mask stays. */
static void *move_beside_another(void *arg)
{
    int *kept = arg; /* of so many moves */
    cpu_set_t mask, own, after;
    if (sched_getaffinity(0, sizeof mask, &mask) || CPU_COUNT(&mask) < 2) return NULL;
    int first = 0;
    while (!CPU_ISSET(first, &mask)) first++;
    CPU_ZERO(&own);
    CPU_SET(first, &own);
    for (int i = 0; i < 60; i++) { /* moves that do not last are made ever more seldom */
        fl_places places;
        fl_places_begin(&places, 2);
        sched_setaffinity(0, sizeof own, &own);
        fl_places_take(&places, 0);
        sched_setaffinity(0, sizeof mask, &mask);
        intruder = &own;
        fl_places_take(&places, 1);
        if (!intruder) { /* it has moved */
            kept[0] += !sched_getaffinity(0, sizeof after, &after) && CPU_EQUAL(&own, &after);
            kept[1]++;
        }
        intruder = NULL;
    }
    return NULL;
}

static void test_move_beside_another(void)
{
    int kept[2] = {0};
    pthread_t thread;
    pthread_create(&thread, NULL, move_beside_another, kept);
    pthread_join(thread, NULL);
    check(kept[0] == kept[1], "%d of %d masks that somebody else had set were undone", kept[1] - kept[0], kept[1]);
    if (fl_cores_allowed() > 1) check(kept[1] > 0, "no worker moved");
}

static void test_take(void)
{
    test_move_beside_another();
    int moved[5] = {0};
    pthread_t thread;
    pthread_create(&thread, NULL, start_there, moved);
    pthread_join(thread, NULL);
    check(moved[2] == 0, "%d masks are not as they were", moved[2]);
    if (moved[3] < 2) return;
    /* the system itself may move a thread at any time, but not often */
    check(moved[0] > moved[4] / 2, "worker 1 moved away %d times of %d", moved[0], moved[4]);
    check(moved[1] < moved[4] / 2, "worker 0 moved %d times of %d", moved[1], moved[4]);
}
#else
static void test_take(void) {}
#endif

static void test_places(void)
{
    test_moves();
    test_take();
    for (int in_pairs = 0; in_pairs <= 1; in_pairs++) {
        test_claims(2, MOST_ROUNDS, in_pairs);
        test_claims(CORES, 20, in_pairs);
        test_claims(CORES + 3, 20, in_pairs);
        test_claims(2 * CORES, 20, in_pairs);
    }
    test_last_to_share();
    test_siblings();
    test_narrow_mask();
    check(fl_core_of(-1) == -1 && fl_core_of(FL_PROCESSORS) == FL_PROCESSORS, "processors that no machine has");
    const int core = fl_core_of(FL_PROCESSORS - 1);
    check(core >= 0 && fl_core_of(core) == core, "the last processor is on core %d", core);
}

#endif
