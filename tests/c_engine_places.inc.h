/* Threads that take places at the same time: nobody gets what another one has. */
#ifndef C_ENGINE_PLACES_INC_H
#define C_ENGINE_PLACES_INC_H

#include "fl_places.h"

#if defined(__linux__)
#include <sched.h>
#endif

/* 8 cores, processors k and k + 8 on core k; everybody starts on processor 3. */
enum { CORES = 8, START = 3 };
typedef struct claimant {
    fl_places *places;
    const uint16_t *core;
    pthread_barrier_t *start;
    int got;
} claimant;

static void *claim(void *arg)
{
    claimant *c = arg;
    fl_processors allowed = {{0}};
    for (int p = 0; p < 2 * CORES; p++) fl_processors_add(&allowed, p);
    pthread_barrier_wait(c->start);
    c->got = fl_places_claim(c->places, c->core, &allowed, START, 0);
    return NULL;
}

static void test_claims(int workers)
{
    enum { ROUNDS = 50 };
    uint16_t core[FL_PROCESSORS];
    for (int p = 0; p < FL_PROCESSORS; p++) core[p] = (uint16_t)(p < 2 * CORES ? p % CORES : p);
    for (int round = 0; round < ROUNDS; round++) {
        fl_places places;
        pthread_barrier_t start;
        claimant claimants[2 * CORES];
        pthread_t threads[2 * CORES];
        int on_processor[2 * CORES] = {0}, on_core[CORES] = {0}, good = 1;
        fl_places_begin(&places, workers);
        pthread_barrier_init(&start, NULL, (unsigned)workers);
        for (int i = 0; i < workers; i++) {
            claimants[i] = (claimant){&places, core, &start, -1};
            pthread_create(&threads[i], NULL, claim, &claimants[i]);
        }
        for (int i = 0; i < workers; i++) {
            pthread_join(threads[i], NULL);
            on_processor[claimants[i].got]++;
            on_core[core[claimants[i].got]]++;
        }
        pthread_barrier_destroy(&start);
        for (int p = 0; p < 2 * CORES; p++) good &= on_processor[p] <= 1;
        for (int c = 0; c < CORES; c++) good &= workers > CORES ? on_core[c] >= 1 : on_core[c] <= 1;
        if (!check(good, "%d workers took places that others have, in round %d", workers, round)) return;
    }
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

static void test_take(void)
{
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
    test_claims(CORES / 2);
    test_claims(CORES);
    test_claims(CORES + 3);
    test_claims(2 * CORES);
    check(fl_core_of(-1) == -1 && fl_core_of(FL_PROCESSORS) == FL_PROCESSORS, "processors that no machine has");
    const int core = fl_core_of(FL_PROCESSORS - 1);
    check(core >= 0 && fl_core_of(core) == core, "the last processor is on core %d", core);
}

#endif
