/* The time model.  A step of a layer takes
 *
 *     max(flops of the largest share / rate, bytes of its weights / rate of the core's own cache) + barriers
 *
 * where the weights stay in that cache, and
 *
 *     hypot(flops of the largest share / rate, bytes of its weights / rate of the shared cache) + barriers
 *
 * where they do not: multiplying and reading overlap, but not wholly with a cache that far away.  A call takes the sum
 * of its steps and layers, and waking.  The largest share counts, since everybody waits for it:
 *
 *     rows        ceil(rows / n) rows, all weights
 *     blocks      all rows, ceil(shares / n) / shares of the weights, barriers in every step
 *     directions  all rows, one direction each, a barrier for each layer
 *
 * An even number of workers that share the blocks of a bidirectional layer takes both directions at once, half of them
 * each.  Where a cost grows with the number of workers it is given for the fewest and for all cores, and grows with
 * the logarithm in between. */
#include "fl_estimate.h"

#include <math.h>

static double greater(double a, double b) { return a > b ? a : b; }
static int32_t largest_share(int32_t total, int32_t n) { return (total + n - 1) / n; }

fl_costs fl_costs_of(const fl_machine *m, int dtype, int awake)
{
    const double doublings = m->cores > 2 ? log2(m->cores) : 1;
    const double more = greater(m->barrier_all_ns - m->barrier_ns, 0) / greater(doublings - 1, 1);
    return (fl_costs){.flop = 1 / m->flops_per_ns[dtype],
                      .own_byte = 1 / m->private_bytes_per_ns,
                      .shared_byte = 1 / m->shared_bytes_per_ns,
                      .shared_byte_all = 1 / m->shared_bytes_per_ns_all,
                      .slower = (1 / m->all_cores_rate - 1) / doublings,
                      .sibling = 1 / m->sibling_rate,
                      .cache = m->private_cache,
                      .cores = m->cores,
                      .start = awake ? m->barrier_ns : m->wake_ns,
                      .start_each = awake ? 0 : m->wake_each_ns,
                      .barrier = m->barrier_ns,
                      .barrier_more = more};
}

/* What one of n workers pays, the slowest of them; and what all pay together. */
typedef struct fl_worker_costs {
    double flop, own_byte, shared_byte, cache, start;
    double barrier, half_barrier; /* of all of them, of one half */
} fl_worker_costs;

static fl_worker_costs worker_costs_of(const fl_costs *p, int32_t n)
{
    if (n <= 1) return (fl_worker_costs){p->flop, p->own_byte, p->shared_byte, p->cache, 0, 0, 0};
    const double doubled = log2((double)n), barrier = p->barrier + p->barrier_more * (doubled - 1);
    const int siblings = (double)n > p->cores; /* some share a core, and its cache */
    const double alone = siblings ? p->sibling : 1;
    const double slower = alone * (1 + p->slower * (siblings ? log2(p->cores) : doubled));
    return (fl_worker_costs){.flop = p->flop * slower,
                             .own_byte = p->own_byte * slower,
                             .shared_byte = greater(p->shared_byte * alone, p->shared_byte_all * n),
                             .cache = siblings ? p->cache / 2 : p->cache,
                             .start = p->start + (p->start_each > 0 ? p->start_each * (n - 2) : barrier - p->barrier),
                             .barrier = barrier,
                             .half_barrier = n > 2 ? barrier - p->barrier_more : 0};
}

static double overlapped(double multiplying, double reading, int own)
{
    return own ? greater(multiplying, reading) : hypot(multiplying, reading);
}

/* A step of one layer and direction, `rows` rows and `part` of its weights, without barriers. */
static double step_ns(const fl_work *w, const fl_load *l, const fl_worker_costs *worker, double rows, double part)
{
    const double resident = w->steps > 1 ? l->bytes : w->all_bytes, bytes = part * l->bytes;
    const int own = part * resident <= worker->cache;
    const double reading = bytes * (own ? worker->own_byte : worker->shared_byte);
    const double chain = rows * part * l->flops * worker->flop, hoisted = rows * part * l->hoisted * worker->flop;
    if (l->overlap_bytes > 0 && bytes > l->overlap_bytes) return overlapped(chain + hoisted, reading, own);
    return overlapped(chain, reading, own) + hoisted;
}

double fl_estimate_step(const fl_work *w, const fl_costs *p)
{
    const fl_worker_costs worker = worker_costs_of(p, 1);
    return w->directions * step_ns(w, &w->load[0], &worker, w->rows, 1);
}

/* How a call is divided among n workers. */
typedef struct fl_division {
    int32_t groups, mates; /* directions at once, and workers that share the blocks of one */
    double rows, part;     /* the largest share of rows, and of the weights */
} fl_division;

/* 0 where this split cannot take n workers.  More than two on a core would take turns. */
static int divide(const fl_work *w, const fl_costs *p, int split, int32_t n, fl_division *d)
{
    *d = (fl_division){1, 1, w->rows, 1};
    if (n <= 1 || split == FL_SPLIT_NONE) return n == 1 && split == FL_SPLIT_NONE;
    if (n > 2 * p->cores) return 0;
    if (split == FL_SPLIT_ROWS) {
        d->rows = largest_share(w->rows, n);
        return n <= w->rows;
    }
    const int both = w->directions == 2 && !w->backward;
    d->groups = both && n % 2 == 0 ? 2 : 1;
    d->mates = n / d->groups;
    if (split == FL_SPLIT_DIRECTIONS) return both && n == 2;
    d->part = (double)largest_share(w->shares, d->mates) / w->shares;
    return split == FL_SPLIT_BLOCKS && !w->whole_rows && d->mates > 1 && d->mates <= w->blocks;
}

/* All steps of one layer. */
static double layer_ns(const fl_work *w, const fl_load *l, const fl_worker_costs *worker, const fl_division *d,
                       int32_t n)
{
    double step = step_ns(w, l, worker, d->rows, d->part), chunk = 0;
    if (d->mates > 1) {
        const double barrier = d->groups == 2 ? worker->half_barrier : worker->barrier;
        const double others = w->exchanged * (d->mates - 1) / d->mates;
        step += d->rows * others * worker->shared_byte + l->meetings * barrier;
        chunk = w->backward ? 0 : 2 * barrier; /* the state is kept between two more */
    }
    if (w->backward) {
        step += w->rows * l->evenly * worker->flop / n;
        chunk = 2 * worker->barrier;
    }
    const double each = w->steps * step + w->chunks * chunk;
    return d->groups == 2 ? each + w->chunks * worker->barrier : w->directions * each;
}

static double call_ns(const fl_work *w, const fl_costs *p, int split, int32_t n, const fl_worker_costs *worker)
{
    fl_division d;
    if (!divide(w, p, split, n, &d)) return 0;
    double ns = worker->start;
    for (int i = 0; i < w->kinds; i++) ns += w->load[i].count * layer_ns(w, &w->load[i], worker, &d, n);
    return ns;
}

double fl_estimate_call(const fl_work *w, const fl_costs *p, int split, int32_t n)
{
    const fl_worker_costs worker = worker_costs_of(p, n);
    return call_ns(w, p, split, n, &worker);
}

/* --- the best of a split */

/* Whether even and odd numbers of workers are grouped differently. */
static int in_two_ways(const fl_work *w, int split)
{
    return split == FL_SPLIT_BLOCKS && w->directions == 2 && !w->backward;
}

/* The next number of workers whose largest share is smaller, 0: none is.  Fewer than that are as good as it.  The
 * products of a backward call are shared evenly, so there every number counts. */
static int32_t next_count(const fl_work *w, int split, int32_t n)
{
    if (w->backward) return n + 1;
    const int two = in_two_ways(w, split);
    const int32_t groups = two && n % 2 == 0 ? 2 : 1, total = split == FL_SPLIT_ROWS ? w->rows : w->shares;
    const int32_t share = largest_share(total, n / groups);
    if (share <= 1) return 0;
    const int32_t next = largest_share(total, share - 1);
    return two && groups == 1 ? next | 1 : groups * next;
}

/* From n on, until this split cannot take more or starting alone takes longer than the best. */
static void search(const fl_work *w, const fl_costs *p, int split, int32_t n, int32_t limit, fl_pair *best)
{
    for (; n > 0 && n <= limit; n = next_count(w, split, n)) {
        const fl_worker_costs worker = worker_costs_of(p, n);
        if (best->threads && worker.start >= best->ns) return;
        const double ns = call_ns(w, p, split, n, &worker);
        if (!(ns > 0)) return;
        if (!best->threads || ns < best->ns) *best = (fl_pair){ns, n};
    }
}

fl_pair fl_estimate_best(const fl_work *w, const fl_costs *p, int split, int32_t limit)
{
    fl_pair best = {0, 0};
    search(w, p, split, in_two_ways(w, split) ? 4 : 2, limit, &best);
    if (in_two_ways(w, split)) search(w, p, split, 3, limit, &best);
    return best;
}
