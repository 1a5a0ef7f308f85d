/* Measuring the machine: products on one core and on all, waking, barriers.
 *
 * Samples until there are enough or time is up, but never fewer than SAMPLES_LEAST.  Disturbances only add time, so
 * rates are the best of their samples, waking is a lower quartile; a barrier, which waits for whoever is late, is a
 * median.
 *
 * Memory of a measurement: | small panel | large panel | a row | outputs of worker 0 | 1 | ... | trial | */
#include <float.h>
#include <math.h>
#include <string.h>

#include "fl_cores.h"
#include "fl_internal.h"
#include "fl_limit.h"
#include "fl_machine.h"
#include "fl_team.h"

#if defined(__unix__)
#include <unistd.h>
#endif

enum { SAMPLES = 64, SAMPLES_LEAST = 5, MOST_WORKERS = 64 };

static int more(int samples, int most, int64_t begin, int64_t budget_ns)
{
    return samples < most && (samples < SAMPLES_LEAST || fl_now_ns() - begin < budget_ns);
}

/* The one at `part` of n sorted ones: 2 the median, 4 the lower quartile, n the least.  0 of none. */
static double quantile(double *sample, int n, int part)
{
    for (int i = 1; i < n; i++) {
        const double value = sample[i];
        int j = i;
        for (; j > 0 && sample[j - 1] > value; j--) sample[j] = sample[j - 1];
        sample[j] = value;
    }
    return n ? sample[n / part == n ? 0 : n / part] : 0;
}

/* --- products of zeros */

/* The small panel is one that L2 holds beside everything else and L1 does not.  The large one is twice the cache that a
 * core has for itself, so that nothing of it is left there when it is read again. */
enum { SMALL_BYTES = 96 << 10, SMALL_ROWS = 128, LARGE_ROWS = 1024, FULL_ROWS = 12 };
enum { LARGE_LEAST = 1 << 20, LARGE_MOST = 16 << 20 };
typedef struct fl_bench { /* a panel, and one worker's rows */
    const fl_real_kernels *kernels;
    const char *panel;
    int64_t k, blocks; /* rows and blocks of the panel */
    double bytes;      /* of the panel */
    const void *a[FULL_ROWS];
    void *out[FULL_ROWS];
} fl_bench;

/* Panels, and where they lie. */
typedef struct fl_setup {
    const fl_kernels *kernels;
    char *memory;
    int64_t large_bytes, out_bytes; /* out: of one worker */
} fl_setup;

static fl_setup setup_of(const fl_kernels *kernels, double private_cache)
{
    const double twice = 2 * private_cache / 0.75;
    fl_setup a = {.kernels = kernels};
    a.large_bytes = (int64_t)(twice < LARGE_LEAST ? LARGE_LEAST : twice > LARGE_MOST ? LARGE_MOST : twice);
    a.large_bytes = a.large_bytes / SMALL_BYTES * SMALL_BYTES;
    const int64_t small = FULL_ROWS * SMALL_BYTES / SMALL_ROWS;
    const int64_t large = a.large_bytes / LARGE_ROWS;
    a.out_bytes = ((small > large ? small : large) + FL_ALIGN - 1) / FL_ALIGN * FL_ALIGN;
    return a;
}

static size_t setup_bytes(const fl_setup *a, int workers)
{
    return (size_t)(SMALL_BYTES + a->large_bytes + LARGE_ROWS * (int64_t)sizeof(double) + workers * a->out_bytes);
}

static fl_bench bench_of(const fl_setup *a, int dtype, int large, int worker)
{
    fl_bench b = {.kernels = a->kernels->lanes[dtype], .panel = a->memory + (large ? SMALL_BYTES : 0)};
    const int64_t unit = dtype == FL_F64 ? 8 : 4, block = FL_PANEL_VECTORS * b.kernels->width * unit;
    const char *row = a->memory + SMALL_BYTES + a->large_bytes;
    char *out = a->memory + SMALL_BYTES + a->large_bytes + LARGE_ROWS * (int64_t)sizeof(double) + worker * a->out_bytes;
    b.k = large ? LARGE_ROWS : SMALL_ROWS;
    b.blocks = (large ? a->large_bytes : SMALL_BYTES) / (b.k * block);
    b.bytes = (double)(b.k * b.blocks * block);
    for (int r = 0; r < FULL_ROWS; r++) {
        b.a[r] = row;
        b.out[r] = out + (large ? 0 : r * b.blocks * block);
    }
    return b;
}

static void multiply(const fl_bench *b, int64_t rows, int64_t block0, int64_t block1)
{
    const fl_product_args args = {.rows = rows,
                                  .k = b->k,
                                  .columns = b->blocks * FL_PANEL_VECTORS * b->kernels->width,
                                  .block0 = block0,
                                  .block1 = block1,
                                  .vectors = FL_PANEL_VECTORS,
                                  .a = b->a,
                                  .panel = b->panel,
                                  .out = b->out};
    b->kernels->product(&args);
}

/* ns of a product of `rows` rows with the first blocks, at best */
static double product_ns(const fl_bench *b, int64_t rows, int64_t blocks)
{
    enum { CALLS = 2, BUDGET_NS = 800000 };
    double best = DBL_MAX;
    const int64_t begin = fl_now_ns();
    for (int i = 0; more(i, SAMPLES, begin, BUDGET_NS); i++) {
        const int64_t start = fl_now_ns();
        for (int c = 0; c < CALLS; c++) multiply(b, rows, 0, blocks);
        const double ns = (double)(fl_now_ns() - start) / CALLS;
        if (ns < best) best = ns;
    }
    return best;
}

/* flops_per_ns of full tiles */
static double full_rate(const fl_setup *setup, int dtype)
{
    const fl_bench b = bench_of(setup, dtype, 0, 0);
    const double weights = b.bytes / (dtype == FL_F64 ? 8 : 4), ns = product_ns(&b, FULL_ROWS, b.blocks);
    return ns > 0 ? 2 * FULL_ROWS * weights / ns : 0;
}

/* bytes of weights per ns of one row, which waits for them */
static double reading_rate(const fl_setup *setup, int large)
{
    const fl_bench b = bench_of(setup, FL_F32, large, 0);
    const double ns = product_ns(&b, 1, b.blocks);
    return ns > 0 ? b.bytes / ns : 0;
}

/* --- a team at work */

static void count_workers(int worker, int workers, void *arg)
{
    if (worker == 0) *(int *)arg = workers;
}

/* From a sleeping team until its region is over, beside which a region of one thread is nothing.  0: no team came. */
static double measure_wake(int wanted)
{
    enum { WAKES = 12, REST_NS = 200000, BUDGET_NS = 3000000 };
    double sample[WAKES];
    int n = 0, workers = 0;
    fl_team_run(wanted, count_workers, &workers); /* starts the threads, if this is the first region */
    const int64_t begin = fl_now_ns();
    for (int i = 0; more(i, WAKES, begin, BUDGET_NS); i++) {
        const int64_t rest = fl_now_ns();
        do fl_doze();
        while (fl_now_ns() - rest < REST_NS);
        const int64_t start = fl_now_ns();
        fl_team_run(wanted, count_workers, &workers);
        if (workers == wanted) sample[n++] = (double)(fl_now_ns() - start);
    }
    return n < SAMPLES_LEAST ? 0 : quantile(sample, n, 4);
}

/* Workers that multiply and meet, again and again, as they do when a layer's blocks are shared.  Before a barrier each
 * may write some cache lines that another one reads after it: 8 lines are 128 floats.  Even and odd rounds use lines of
 * their own, so that nobody writes what a slower worker still reads. */
enum { LINES = 8, LINE_REALS = 8 };
typedef struct fl_trial {
    fl_barrier barrier;
    _Alignas(64) volatile double line[2][MOST_WORKERS][LINES][LINE_REALS]; /* round, worker */
    double sample[SAMPLES];                                                /* ns per round */
    int samples;  /* worker 0's */
    int going[2]; /* by sample, in turn: written by worker 0 before a barrier, read by all after it */
    const fl_setup *setup;
    int wanted, large, exchanges;
    int64_t rows;
    int repeats, rounds; /* products between barriers, barriers of a sample */
    int third;           /* 1: products with a third of the panel, by turns another one */
} fl_trial;

static void run_round(fl_trial *t, const fl_bench *b, int worker, int round)
{
    const int64_t third = b->blocks / 3, first = t->third ? worker % 3 * third : 0;
    for (int i = 0; i < t->repeats; i++) multiply(b, t->rows, first, t->third ? first + third : b->blocks);
    for (int i = 0; i < LINES && t->exchanges; i++) t->line[round % 2][worker][i][0] = worker;
}

static void trial_worker(int worker, int workers, void *arg)
{
    enum { BUDGET_NS = 1000000 };
    fl_trial *t = arg;
    if (workers != t->wanted) return;
    const fl_bench b = bench_of(t->setup, FL_F32, t->large, worker);
    volatile double read = 0;
    fl_barrier_wait(&t->barrier, worker, workers); /* now all are awake */
    const int64_t begin = fl_now_ns();
    int64_t last = begin;
    int which = 0;
    do {
        which = !which;
        for (int round = 0; round < t->rounds; round++) {
            run_round(t, &b, worker, round);
            if (worker == 0 && round == t->rounds - 1)
                t->going[which] = more(t->samples + 1, SAMPLES, begin, BUDGET_NS);
            fl_barrier_wait(&t->barrier, worker, workers);
            for (int i = 0; i < LINES && t->exchanges; i++) read = t->line[round % 2][(worker + 1) % workers][i][0];
        }
        if (worker == 0) {
            const int64_t now = fl_now_ns();
            t->sample[t->samples++] = (double)(now - last) / t->rounds;
            last = now;
        }
    } while (t->going[which]);
    (void)read;
}

static void run_trial(fl_trial *t, int workers, int64_t rows, int rounds)
{
    fl_barrier_init(&t->barrier, workers, NULL);
    t->wanted = workers;
    t->rows = rows;
    t->rounds = rounds;
    t->samples = 0;
    fl_team_run(t->wanted, trial_worker, t);
}

/* What meeting adds to the product between two barriers.  0: no team came. */
static double measure_barrier(fl_trial *t, int workers)
{
    const fl_bench b = bench_of(t->setup, FL_F32, 0, 0);
    const double alone = product_ns(&b, 1, b.blocks / 3), least = fl_constant_plausible(FL_BARRIER, 1e-9);
    t->large = 0;
    t->third = t->exchanges = t->repeats = 1;
    run_trial(t, workers, 1, 16);
    const double added = quantile(t->sample, t->samples, 2) - alone;
    return t->samples == 0 ? 0 : added > least ? added : least;
}

/* ns of `repeats` products on every worker at once, at best.  0: no team came. */
static double together_ns(fl_trial *t, int workers, int large, int64_t rows, int repeats)
{
    t->large = large;
    t->third = t->exchanges = 0;
    t->repeats = repeats;
    run_trial(t, workers, rows, 1);
    return quantile(t->sample, t->samples, t->samples);
}

/* --- figures of a team, given for all cores even where fewer may run */

/* What grows by as much with every doubling from `first` workers, where it is `least`, on. */
static double for_all(double least, double found, int first, int workers, double cores)
{
    const double doublings = log2((double)workers / first), all = cores > first ? log2(cores / first) : 0;
    return doublings > 0 ? least + (found - least) * (all > doublings ? all / doublings : 1) : least;
}

/* The part of the built-in growth with every doubling, where only two may run. */
static double barrier_for_all(double two, double found, int workers, double cores)
{
    const double usual = fl_constant_usual(FL_BARRIER_ALL) / fl_constant_usual(FL_BARRIER);
    if (workers > 2) return for_all(two, found > two ? found : two, 2, workers, cores);
    return cores > 2 ? for_all(two, usual * two, 2, (int)fl_constant_usual(FL_CORES), cores) : two;
}

static double greater(double a, double b) { return a > b ? a : b; }

/* Rates of all cores, if they are better than those found before; 1, or 0 where no team came. */
static int measure_rates(fl_trial *t, int workers, double found[FL_CONSTANTS])
{
    enum { REPEATS = 12 };
    const fl_bench b = bench_of(t->setup, FL_F32, 0, 0), large = bench_of(t->setup, FL_F32, 1, 0);
    const double alone = REPEATS * product_ns(&b, FULL_ROWS, b.blocks);
    const double together = together_ns(t, workers, 0, FULL_ROWS, REPEATS);
    const double reading = together_ns(t, workers, 1, 1, 1);
    if (!(together > 0 && reading > 0)) return 0;
    const double slower = for_all(1, together > alone ? together / alone : 1, 1, workers, found[FL_CORES]);
    const double all = large.bytes * workers / reading, one = found[FL_SHARED_RATE];
    found[FL_ALL_CORES_RATE] = greater(found[FL_ALL_CORES_RATE], 1 / slower);
    /* as much for each as one alone gets: no limit was seen, and none is assumed for more cores */
    const int unlimited = all > 0.9 * one * workers && found[FL_CORES] > workers;
    found[FL_SHARED_RATE_ALL] =
        greater(found[FL_SHARED_RATE_ALL], unlimited ? all * found[FL_CORES] / workers : all);
    return 1;
}

/* Costs of two workers, then of all.  A barrier takes longer than `crowded` only where a worker had to wait for a
 * processor, because another program is busy there or the system has put two workers on one; what waking would cost is
 * unknown then.  Two cores that together do little more than one, at two moments, are crowded, too.  Returns 0 when
 * anything was disturbed. */
static int measure_team(fl_trial *t, int workers, double found[FL_CONSTANTS])
{
    const double crowded_ns = 5000, crowded_all_ns = 20000, crowded_wake_ns = 200000, crowded_rate = 0.7;
    if (!measure_rates(t, workers, found)) return 0;
    const double before = measure_barrier(t, 2);
    if (!(before > 0 && before < crowded_ns)) return 0;
    const double wake = measure_wake(2), after = measure_barrier(t, 2);
    if (!(wake > 0 && wake < crowded_wake_ns && after > 0 && after < crowded_ns)) return 0;
    found[FL_WAKE] = wake;
    found[FL_BARRIER] = before < after ? before : after;
    found[FL_BARRIER_ALL] = barrier_for_all(found[FL_BARRIER], 0, 2, found[FL_CORES]);
    const double all = workers > 2 ? measure_barrier(t, workers) : found[FL_BARRIER];
    if (!(all > 0 && all < crowded_all_ns) || !measure_rates(t, workers, found)) return 0;
    if (workers == 2) return found[FL_ALL_CORES_RATE] > crowded_rate;
    const double wake_all = measure_wake(workers);
    if (!(wake_all > 0)) return 0;
    found[FL_WAKE_EACH] = fl_constant_plausible(FL_WAKE_EACH, (wake_all - wake) / (workers - 2));
    found[FL_BARRIER_ALL] = barrier_for_all(found[FL_BARRIER], all, workers, found[FL_CORES]);
    return 1;
}

/* --- entry */

/* Three quarters of the second level: beside weights it holds states, inputs and other people's lines. */
static double ask_private_cache(void)
{
#if defined(_SC_LEVEL2_CACHE_SIZE)
    const double bytes = 0.75 * (double)sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (bytes > 0) return fl_constant_plausible(FL_PRIVATE_CACHE, bytes);
#endif
    return fl_constant_usual(FL_PRIVATE_CACHE);
}

enum fl_status fl_machine_measure(fl_machine *out, int threads, int *team)
{
    if (!out || threads < 0) return FL_ERR_ARGUMENT;
    const fl_kernels *kernels;
    const enum fl_status status = fl_kernels_get(&kernels);
    if (status != FL_OK) return status;
    double found[FL_CONSTANTS] = {0};
    found[FL_PRIVATE_CACHE] = ask_private_cache();
    found[FL_CORES] = fl_cores_allowed();
    const int limit = fl_team_limit(threads), cores = found[FL_CORES] > 2 ? (int)found[FL_CORES] : 2;
    const int some = limit < cores ? limit : cores, workers = some < MOST_WORKERS ? some : MOST_WORKERS;
    fl_setup setup = setup_of(kernels, found[FL_PRIVATE_CACHE]);
    const size_t bytes = setup_bytes(&setup, workers);
    setup.memory = fl_aligned_alloc(bytes + sizeof(fl_trial));
    if (!setup.memory) return FL_ERR_MEMORY;
    memset(setup.memory, 0, bytes);
    found[FL_FLOPS_F32] = full_rate(&setup, FL_F32);
    found[FL_FLOPS_F64] = full_rate(&setup, FL_F64);
    found[FL_PRIVATE_RATE] = reading_rate(&setup, 0);
    found[FL_SHARED_RATE] = reading_rate(&setup, 1);
    fl_trial *trial = (fl_trial *)(setup.memory + bytes);
    trial->setup = &setup;
    const int together = workers > 1 && measure_team(trial, workers, found);
    fl_aligned_free(setup.memory);
    if (team) *team = together;
    static const int of_team[] = {FL_WAKE, FL_WAKE_EACH, FL_BARRIER, FL_BARRIER_ALL, FL_ALL_CORES_RATE,
                                  FL_SHARED_RATE_ALL};
    for (unsigned i = 0; i < sizeof of_team / sizeof *of_team && !together; i++) found[of_team[i]] = 0;
    for (int i = 0; i < FL_CONSTANTS; i++)
        found[i] = found[i] > 0 ? fl_constant_plausible(i, found[i]) : fl_constant_usual(i);
    memcpy(out, found, sizeof found);
    return FL_OK;
}
