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

/* The next allowed processor after `own` in the order of their numbers, and behind the last the first, that is not in
 * `taken`, or whose core is not (core: NULL for processors).  -1: there is none.  That order stays in the same package,
 * and on the faster kind of cores, on machines that number these one after the other. */
static int find_free(const uint16_t *core, const fl_processors *allowed, const fl_processors *taken, int own)
{
    for (int from = own + 1;; from = 0) {
        for (int p = fl_processors_next(allowed, from); p < FL_PROCESSORS; p = fl_processors_next(allowed, p + 1))
            if (!fl_processors_has(taken, core ? core[p] : p)) return p;
        if (from == 0) return -1;
    }
}

int fl_places_choose(const uint16_t *core, const fl_processors *allowed, const fl_processors *taken_cores,
                     const fl_processors *taken_processors, int own, int may_share)
{
    if (!fl_processors_has(taken_cores, core[own])) return own;
    const int own_is_free = !fl_processors_has(taken_processors, own);
    if (own_is_free && may_share) return own;
    int to = find_free(core, allowed, taken_cores, own);
    if (to < 0 && !own_is_free) to = find_free(NULL, allowed, taken_processors, own);
    return to < 0 ? own : to;
}

/* Both return 1 if it was not taken before. */
static int take_core(fl_places *places, int lowest)
{
    const unsigned long bit = fl_processor_bit(lowest);
    return !(atomic_fetch_or_explicit(&places->taken[lowest / FL_WORD_BITS].cores, bit, memory_order_relaxed) & bit);
}

static int take_processor(fl_places *places, int p)
{
    const unsigned long bit = fl_processor_bit(p);
    return !(atomic_fetch_or_explicit(&places->taken[p / FL_WORD_BITS].processors, bit, memory_order_relaxed) & bit);
}

int fl_places_claim(fl_places *places, const uint16_t *core, const fl_processors *allowed, int own, int may_share)
{
    const int surplus = places->workers - fl_cores_among(core, allowed);
    for (;;) { /* until nobody was quicker; each round finds more taken than the one before */
        fl_processors cores, processors;
        for (int w = 0; w < FL_PROCESSOR_WORDS; w++) {
            cores.word[w] = atomic_load_explicit(&places->taken[w].cores, memory_order_relaxed);
            processors.word[w] = atomic_load_explicit(&places->taken[w].processors, memory_order_relaxed);
        }
        const int shares = atomic_load_explicit(&places->sharing, memory_order_relaxed) < surplus;
        const int to = fl_places_choose(core, allowed, &cores, &processors, own, may_share || shares);
        if (!fl_processors_has(&cores, core[to])) {
            if (!take_core(places, core[to])) continue;
            take_processor(places, to);
            return to;
        }
        if (!fl_processors_has(&processors, to) && !take_processor(places, to)) continue;
        atomic_fetch_add_explicit(&places->sharing, 1, memory_order_relaxed);
        return to; /* on a processor of its own, or where none is left */
    }
}

/* --- going there */

void fl_places_begin(fl_places *places, int workers)
{
    *places = (fl_places){.workers = workers};
}

#if defined(__linux__)
static void move_to(int processor, const cpu_set_t *mask)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    if (!sched_setaffinity(0, sizeof one, &one)) sched_setaffinity(0, sizeof *mask, mask);
}

void fl_places_take(fl_places *places, int worker)
{
    static _Thread_local fl_moves moves;
    const int own = sched_getcpu();
    if (own < 0 || own >= FL_PROCESSORS) return;
    const uint16_t *core = fl_core_map();
    cpu_set_t mask;
    fl_processors allowed;
    if (take_core(places, core[own])) {
        take_processor(places, own);
        fl_moves_settled(&moves);
        return;
    }
    if (worker == 0 || sched_getaffinity(0, sizeof mask, &mask)) {
        take_processor(places, own);
        atomic_fetch_add_explicit(&places->sharing, 1, memory_order_relaxed);
        return;
    }
    memcpy(&allowed, &mask, sizeof allowed); /* fl_cores.c sees that their sizes are equal */
    const int may_share = fl_teams_active() > places->workers || !fl_moves_due(&moves);
    const int to = fl_places_claim(places, core, &allowed, own, may_share);
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
