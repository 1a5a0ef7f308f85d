/* The machine in five numbers, which fl_plan.c weighs: the built-in ones, or what was measured here.
 *
 * They decide who works on what and never a result, so a figure taken at a bad moment costs time at worst.  Whatever
 * comes in is brought into a plausible range first. */
#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "fl_internal.h"
#include "fl_limit.h"
#include "fl_team.h"

#if defined(__unix__)
#include <unistd.h>
#endif

/* fl_machine as a row of numbers, in the order of its fields */
enum { F32, F64, WAKE, BARRIER, CACHE, CONSTANTS };
_Static_assert(sizeof(fl_machine) == CONSTANTS * sizeof(double), "fl_machine holds these numbers and nothing else");

#define BUILT_IN                   \
    {                              \
        50, 25, 12000, 600, 786432 \
    } /* a core of a Zen 4 server */
static const double usual[CONSTANTS] = BUILT_IN;
static const double lowest[CONSTANTS] = {0.5, 0.5, 1000, 50, 131072};
static const double highest[CONSTANTS] = {500, 500, 200000, 20000, 16777216};

/* Each by itself: who reads while another sets may see some old and some new, and a mixture is plausible too. */
static _Atomic double in_use[CONSTANTS] = BUILT_IN;

static double plausible(int constant, double value)
{
    return value < lowest[constant] ? lowest[constant] : value > highest[constant] ? highest[constant] : value;
}

void fl_machine_get(fl_machine *out)
{
    double value[CONSTANTS];
    for (int i = 0; i < CONSTANTS; i++) value[i] = atomic_load_explicit(&in_use[i], memory_order_relaxed);
    memcpy(out, value, sizeof value);
}

enum fl_status fl_machine_set(const fl_machine *machine)
{
    double value[CONSTANTS];
    memcpy(value, machine ? (const void *)machine : (const void *)usual, sizeof value);
    for (int i = 0; i < CONSTANTS; i++)
        if (!(value[i] > 0 && value[i] <= DBL_MAX)) return FL_ERR_ARGUMENT;
    for (int i = 0; i < CONSTANTS; i++) atomic_store_explicit(&in_use[i], plausible(i, value[i]), memory_order_relaxed);
    return FL_OK;
}

/* --- measuring: samples until there are enough or time is up, but never fewer than SAMPLES_LEAST */

enum { SAMPLES = 64, SAMPLES_LEAST = 5 };

static int more(int samples, int most, int64_t begin, int64_t budget_ns)
{
    return samples < most && (samples < SAMPLES_LEAST || fl_now_ns() - begin < budget_ns);
}

/* The one at `part` of n sorted ones: 2 the median, 4 the lower quartile.  0 of none. */
static double quantile(double *sample, int n, int part)
{
    for (int i = 1; i < n; i++) {
        const double value = sample[i];
        int j = i;
        for (; j > 0 && sample[j - 1] > value; j--) sample[j] = sample[j - 1];
        sample[j] = value;
    }
    return n ? sample[n / part] : 0;
}

/* Products with a panel that L2 holds beside everything else and L1 does not, of zeros. */
enum { PANEL_BYTES = 96 << 10, PANEL_ROWS = 128, FULL_ROWS = 8 };
typedef struct bench {
    const fl_real_kernels *kernels;
    int64_t unit, blocks; /* bytes of a real, blocks of the panel */
    const void *a[FULL_ROWS];
    void *out[FULL_ROWS];
    char *memory; /* panel, a row, FULL_ROWS outputs */
} bench;

static size_t bench_bytes(void)
{
    return PANEL_BYTES + PANEL_ROWS * sizeof(double) + (size_t)FULL_ROWS * PANEL_BYTES / PANEL_ROWS;
}

static bench bench_of(const fl_kernels *kernels, int dtype, char *memory)
{
    bench b = {.kernels = kernels->lanes[dtype], .unit = dtype == FL_F64 ? 8 : 4, .memory = memory};
    const int64_t block = FL_PANEL_VECTORS * b.kernels->width * b.unit; /* bytes of a row of it */
    b.blocks = PANEL_BYTES / (PANEL_ROWS * block);
    for (int r = 0; r < FULL_ROWS; r++) {
        b.a[r] = memory + PANEL_BYTES;
        b.out[r] = memory + PANEL_BYTES + PANEL_ROWS * b.unit + r * b.blocks * block;
    }
    return b;
}

static void multiply(const bench *b, int64_t rows, int64_t block0, int64_t block1)
{
    const fl_product_args args = {.rows = rows,
                                  .k = PANEL_ROWS,
                                  .columns = b->blocks * FL_PANEL_VECTORS * b->kernels->width,
                                  .block0 = block0,
                                  .block1 = block1,
                                  .vectors = FL_PANEL_VECTORS,
                                  .a = b->a,
                                  .panel = b->memory,
                                  .out = b->out};
    b->kernels->product(&args);
}

/* ns of a product of `rows` rows with the first blocks, at best */
static double product_ns(const bench *b, int64_t rows, int64_t blocks)
{
    enum { CALLS = 2, BUDGET_NS = 1000000 };
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

/* Small tiles are something between one row, which waits for L2, and a full tile, which keeps the FMA units busy. */
static double measure_rate(const bench *b)
{
    const double flops = 2.0 * PANEL_BYTES / (double)b->unit; /* of one row */
    const double one = product_ns(b, 1, b->blocks), full = product_ns(b, FULL_ROWS, b->blocks);
    return one > 0 && full > 0 ? sqrt(flops / one * (FULL_ROWS * flops / full)) : 0;
}

static void count_workers(int worker, int workers, void *arg)
{
    if (worker == 0) *(int *)arg = workers;
}

/* From a sleeping team until its region is over, beside which a region of one thread is nothing.  What disturbs only
 * adds to it, hence the lower quartile.  0: no team came. */
static double measure_wake(void)
{
    enum { WAKES = 15, REST_NS = 250000, BUDGET_NS = 6000000 };
    double sample[WAKES];
    int n = 0, workers = 0;
    fl_team_run(2, count_workers, &workers); /* starts the thread, if this is the first region */
    const int64_t begin = fl_now_ns();
    for (int i = 0; more(i, WAKES, begin, BUDGET_NS); i++) {
        const int64_t rest = fl_now_ns();
        do fl_doze();
        while (fl_now_ns() - rest < REST_NS);
        const int64_t start = fl_now_ns();
        fl_team_run(2, count_workers, &workers);
        if (workers == 2) sample[n++] = (double)(fl_now_ns() - start);
    }
    return n < SAMPLES_LEAST ? 0 : quantile(sample, n, 4);
}

/* Two workers that meet again and again, as they do when a layer's blocks are shared.  Between barriers each multiplies
 * one row with a third of the panel and writes some cache lines, which the other reads: 8 lines are 128 floats.  Even
 * and odd rounds use lines of their own, so that nobody writes what a slower mate still reads. */
enum { MEET_ROUNDS = 16, MEET_LINES = 8, LINE_REALS = 8 };
typedef struct meeting {
    fl_barrier barrier;
    _Alignas(64) volatile double line[2][2][MEET_LINES][LINE_REALS]; /* round, worker */
    double sample[SAMPLES];                                          /* ns per round */
    int samples, going; /* written by worker 0 before a barrier, read by both after it */
    const bench *bench;
} meeting;

static void meet(int worker, int workers, void *arg)
{
    enum { BUDGET_NS = 2000000 };
    meeting *m = arg;
    if (workers != 2) return;
    const int64_t share = m->bench->blocks / 3;
    fl_barrier_wait(&m->barrier, 2); /* now both are awake */
    const int64_t begin = fl_now_ns();
    int64_t last = begin;
    double read = 0;
    do {
        for (int round = 0; round < MEET_ROUNDS; round++) {
            multiply(m->bench, 1, worker * share, (worker + 1) * share);
            for (int i = 0; i < MEET_LINES; i++) m->line[round % 2][worker][i][0] = read;
            if (worker == 0 && round == MEET_ROUNDS - 1) m->going = more(m->samples + 1, SAMPLES, begin, BUDGET_NS);
            fl_barrier_wait(&m->barrier, 2);
            for (int i = 0; i < MEET_LINES; i++) read += m->line[round % 2][1 - worker][i][0];
        }
        if (worker == 0) {
            const int64_t now = fl_now_ns();
            m->sample[m->samples++] = (double)(now - last) / MEET_ROUNDS;
            last = now;
        }
    } while (m->going);
}

/* What meeting adds to the product between two barriers.  0: no team came. */
static double measure_barrier(const bench *b)
{
    meeting m = {.going = 1, .bench = b};
    fl_barrier_init(&m.barrier, 1);
    const double alone = product_ns(b, 1, b->blocks / 3);
    fl_team_run(2, meet, &m);
    const double added = quantile(m.sample, m.samples, 2) - alone;
    return m.samples == 0 ? 0 : added > lowest[BARRIER] ? added : lowest[BARRIER];
}

/* Three quarters of the second level: beside weights it holds states, inputs and other people's lines. */
static double ask_private_cache(void)
{
#if defined(_SC_LEVEL2_CACHE_SIZE)
    return 0.75 * (double)sysconf(_SC_LEVEL2_CACHE_SIZE);
#else
    return 0;
#endif
}

/* Both costs, or neither: a barrier takes longer than this only where a worker had to wait for a processor, because
 * another program is busy there or the system has put both workers on one.  What waking would cost is unknown then. */
static int measure_team(const bench *b, double found[CONSTANTS])
{
    const double crowded_ns = 5000;
    const double before = measure_barrier(b);
    if (!(before > 0 && before < crowded_ns)) return 0;
    const double wake = measure_wake(), after = measure_barrier(b);
    if (!(wake > 0 && after > 0 && after < crowded_ns)) return 0;
    found[WAKE] = wake;
    found[BARRIER] = before < after ? before : after;
    return 1;
}

enum fl_status fl_machine_measure(fl_machine *out, int threads, int *team)
{
    if (!out || threads < 0) return FL_ERR_ARGUMENT;
    const fl_kernels *kernels;
    const enum fl_status status = fl_kernels_get(&kernels);
    if (status != FL_OK) return status;
    char *memory = fl_aligned_alloc(bench_bytes());
    if (!memory) return FL_ERR_MEMORY;
    memset(memory, 0, bench_bytes());
    const bench b[2] = {bench_of(kernels, FL_F32, memory), bench_of(kernels, FL_F64, memory)};
    double found[CONSTANTS] = {measure_rate(&b[0]), measure_rate(&b[1])};
    const int together = fl_team_limit(threads) > 1 && measure_team(&b[0], found);
    fl_aligned_free(memory);
    if (team) *team = together;
    found[CACHE] = ask_private_cache();
    for (int i = 0; i < CONSTANTS; i++) found[i] = found[i] > 0 ? plausible(i, found[i]) : usual[i];
    memcpy(out, found, sizeof found);
    return FL_OK;
}
