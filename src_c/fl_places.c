/* Places of workers: see fl_places.h.
 *
 * A move is two system calls and a switch to another processor, some 10 us, and the system balances the load of the
 * whole machine, of which a team sees nothing but itself.  So a worker moves away from a core that it shares
 * - only when a core is free of this team, and the team has not more workers than cores anyway;
 * - only while no other call of this process has threads: these may be on the cores that look free;
 * - seldom when moving does not last, because other programs have the other cores and the system puts it back.
 * Two workers on one processor are worse than any of that: one of them moves whenever a processor is free. */
#define _GNU_SOURCE
#include "fl_places.h"

#if defined(__linux__)
#include <sched.h>
#include <string.h>
#endif

/* --- how often */

enum { LONGEST_PAUSE = 64 };

int fl_moves_due(fl_moves *moves)
{
    if (!moves->left) return 1;
    moves->left--;
    return 0;
}

void fl_moves_moved(fl_moves *moves)
{
    moves->pause = moves->pause ? moves->pause * 2 : 1;
    if (moves->pause > LONGEST_PAUSE) moves->pause = LONGEST_PAUSE;
    moves->left = moves->pause;
}

void fl_moves_settled(fl_moves *moves) { moves->pause = moves->left = 0; }

/* --- where to */

/* Both return 1 if they took it.  A place that is taken stays so. */
static int take_core(fl_places *places, const fl_core_map *map, int p)
{
    atomic_uchar *taken = &places->taken[map->core[p]];
    unsigned char none = 0;
    return atomic_load_explicit(taken, memory_order_relaxed) == 0 &&
           atomic_compare_exchange_strong_explicit(taken, &none, map->bit[p], memory_order_relaxed,
                                                   memory_order_relaxed);
}

static int take_processor(fl_places *places, const fl_core_map *map, int p)
{
    atomic_uchar *taken = &places->taken[map->core[p]];
    return !(atomic_load_explicit(taken, memory_order_relaxed) & map->bit[p]) &&
           !(atomic_fetch_or_explicit(taken, map->bit[p], memory_order_relaxed) & map->bit[p]);
}

/* Takes the next allowed place after `own` in the order of their numbers, and behind the last the first; -1: there is
 * none.  That order stays in the same package, and on the faster kind of cores, on machines that number these one after
 * the other. */
static int take_next(fl_places *places, const fl_core_map *map, const fl_processors *allowed, int own,
                     int (*take)(fl_places *places, const fl_core_map *map, int p))
{
    for (int from = own + 1;; from = 0) {
        for (int p = fl_processors_next(allowed, from); p < FL_PROCESSORS; p = fl_processors_next(allowed, p + 1))
            if (take(places, map, p)) return p;
        if (from == 0) return -1;
    }
}

/* Takes `own` although its core is taken, for one of the workers that are more than there are cores; 1: it is taken. */
static int share_as_too_many(fl_places *places, const fl_core_map *map, int surplus, int own)
{
    if (surplus <= 0) return 0;
    const int before = atomic_fetch_add_explicit(&places->sharing, 1, memory_order_relaxed);
    if (before < surplus && take_processor(places, map, own)) return 1;
    atomic_fetch_sub_explicit(&places->sharing, 1, memory_order_relaxed);
    return 0;
}

int fl_places_claim(fl_places *places, const fl_core_map *map, const fl_processors *allowed, int own, int may_share)
{
    if (take_core(places, map, own)) return own;
    if (may_share && take_processor(places, map, own)) return own;
    if (share_as_too_many(places, map, places->workers - fl_cores_among(map->core, allowed), own)) return own;
    int to = take_next(places, map, allowed, own, take_core);
    if (to < 0 && take_processor(places, map, own)) return own;
    if (to < 0) to = take_next(places, map, allowed, own, take_processor);
    return to < 0 ? own : to;
}

void fl_places_try(const uint16_t *core, const fl_processors *allowed, int workers, const int32_t *start, int others,
                   int32_t *end)
{
    fl_core_map map;
    fl_places places;
    if (!core || !allowed || !start || !end) return;
    for (int p = 0; p < FL_PROCESSORS; p++)
        if (core[p] >= FL_PROCESSORS) return;
    fl_core_map_make(&map, core);
    fl_places_begin(&places, workers);
    for (int i = 0; i < workers; i++) {
        const int there = start[i] >= 0 && start[i] < FL_PROCESSORS;
        end[i] = there ? fl_places_claim(&places, &map, allowed, start[i], others) : start[i];
    }
}

/* --- going there */

void fl_places_begin(fl_places *places, int workers)
{
    *places = (fl_places){.workers = workers};
}

#if defined(__linux__)
/* Another thread or process may set this thread's mask at any time, and what it sets must stay.  So the mask is read
 * again right before each of the two changes, and one that somebody else has set is left alone.  Linux cannot compare
 * and set at once: a mask set between a reading and the change that follows it, some 100 ns, is still lost. */
static int mask_is(const cpu_set_t *expected)
{
    cpu_set_t now;
    return !sched_getaffinity(0, sizeof now, &now) && CPU_EQUAL(&now, expected);
}

static void move_to(int processor, const cpu_set_t *mask)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    if (!mask_is(mask) || sched_setaffinity(0, sizeof one, &one)) return;
    if (mask_is(&one)) sched_setaffinity(0, sizeof *mask, mask);
}

void fl_places_take(fl_places *places, int worker)
{
    static _Thread_local fl_moves moves;
    const int own = sched_getcpu();
    if (own < 0 || own >= FL_PROCESSORS) return;
    const fl_core_map *map = fl_core_map_here();
    if (take_core(places, map, own)) {
        fl_moves_settled(&moves);
        return;
    }
    cpu_set_t mask;
    fl_processors allowed;
    if (worker == 0 || sched_getaffinity(0, sizeof mask, &mask)) {
        take_processor(places, map, own);
        return;
    }
    memcpy(&allowed, &mask, sizeof allowed); /* fl_cores.c sees that their sizes are equal */
    const int may_share = fl_teams_active() > places->workers || !fl_moves_due(&moves);
    const int to = fl_places_claim(places, map, &allowed, own, may_share);
    if (to == own) return;
    fl_moves_moved(&moves);
    move_to(to, &mask);
}
#else
void fl_places_take(fl_places *places, int worker)
{
    (void)places;
    (void)worker;
}
#endif
