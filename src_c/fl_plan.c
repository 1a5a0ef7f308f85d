/* The plan: sizes in, decisions out.  The only file with thresholds; every one says what it weighs.
 *
 * Nothing here changes a result on the panel path: each output is one chain, whoever computes it. */
#include "fl_internal.h"
#include "fl_team.h"

static const double FLOPS_PER_NS = 50.0;      /* one thread, small tiles: between a GEMV from L2 and the FMA peak */
static const double WAKE_NS = 12000.0;        /* until a sleeping worker runs */
static const double BARRIER_NS = 600.0;       /* two or more workers meeting once, with the cache lines they exchange */
static const double PRIVATE_CACHE = 786432.0; /* bytes of weights that stay in one core's L2 beside everything else */
enum {
    HOIST_ROWS = 48,     /* rows of a hoisted product: tall enough for full tiles, small enough for L2 */
    FULL_TILE = 6,       /* rows from which a step's own product keeps the FMA units busy */
    HOIST_INPUTS = 16,   /* narrower inputs cost less as part of the step's chain than as stored partial sums */
    CHUNK_ROWS = 512,    /* rows a stack passes from layer to layer at once */
    GRADIENT_ROWS = 512, /* rows of dgates kept until the products of the weights' gradients take them */
    BLAS_ROWS = 4096     /* rows BLAS gets at once */
};

static double step_flops(const fl_model *m, int layer, int64_t batch)
{
    const double h = (double)m->spec.hidden_size;
    return 2.0 * (double)batch * m->spec.directions *
           ((double)m->gates * h * (double)(fl_layer_inputs(&m->spec, layer) + m->recurrent) +
            h * (double)m->spec.proj_size);
}

static int64_t at_least_one(int64_t n) { return n < 1 ? 1 : n; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Who works on what.  Rows need no barrier but every worker reads all weights; blocks leave each worker its own
 * weights, in its own cache, for one barrier per step; directions need a barrier per layer only. */
static void divide(const fl_model *m, fl_plan *p, int64_t steps, int64_t batch, int limit, double total_flops)
{
    const double work_ns = total_flops / FLOPS_PER_NS;
    const double step_ns = p->step_flops / FLOPS_PER_NS;
    int n = fl_team_limit(limit);
    p->threads = 1;
    p->split = FL_SPLIT_NONE;
    if (n > 1 && work_ns < 3 * WAKE_NS) return; /* with two workers half the work must outweigh the waking */
    if (n > (int)(work_ns / WAKE_NS)) n = (int)(work_ns / WAKE_NS);
    if (n <= 1 || steps == 0 || batch == 0) return;

    const int64_t by_blocks = least(n, m->blocks * m->spec.directions);
    const int worth_blocks = by_blocks > 1 && step_ns / (double)by_blocks > 2 * BARRIER_NS;
    const double layer_bytes = p->panel_bytes / m->spec.num_layers;
    if (worth_blocks && (layer_bytes > PRIVATE_CACHE || batch < 4 * n)) {
        p->threads = (int)by_blocks;
        p->split = FL_SPLIT_BLOCKS;
    } else if (batch >= 4 * n || (batch >= n && m->spec.directions == 1)) {
        p->threads = n;
        p->split = FL_SPLIT_ROWS;
    } else if (m->spec.directions == 2) {
        p->threads = 2;
    }
    if (m->spec.directions == 2 && p->threads == 2 && p->split != FL_SPLIT_ROWS) p->split = FL_SPLIT_DIRECTIONS;
}

static int64_t widest_input(const fl_model *m)
{
    const int64_t inner = m->spec.num_layers > 1 ? fl_layer_inputs(&m->spec, 1) : 0;
    return inner > m->spec.input_size ? inner : m->spec.input_size;
}

int64_t fl_plan_span(const fl_plan *p, int64_t inputs) { return p->blas || inputs >= HOIST_INPUTS ? p->hoist : 0; }

static enum fl_status measure(const fl_model *m, int64_t steps, int64_t batch, fl_plan *p, double *total)
{
    if (steps < 0 || batch < 0) return FL_ERR_ARGUMENT;
    if (steps > FL_LARGEST || batch > FL_LARGEST) return FL_ERR_OVERFLOW;
    *p = (fl_plan){.threads = 1, .chunk = at_least_one(steps)};
    p->step_flops = step_flops(m, 0, batch);
    *total = 0;
    for (int l = 0; l < m->spec.num_layers; l++) {
        *total += step_flops(m, l, batch) * (double)steps;
        p->panel_bytes += step_flops(m, l, 1) / 2 * (double)m->unit;
    }
    return FL_OK;
}

enum fl_status fl_plan_forward(const fl_model *m, int64_t steps, int64_t batch, int training, int threads, fl_plan *p)
{
    double total;
    const enum fl_status status = measure(m, steps, batch, p, &total);
    if (status != FL_OK) return status;
    (void)training;
    divide(m, p, steps, batch, threads, total);
    const int64_t rows = at_least_one(batch);
    p->blas = m->gemm == FL_GEMM_BLAS;
    if (p->blas)
        p->hoist = at_least_one(BLAS_ROWS / rows);
    else if (steps > 1 && batch < FULL_TILE && widest_input(m) >= HOIST_INPUTS)
        p->hoist = at_least_one(HOIST_ROWS / rows);
    p->hoist = least(p->hoist, steps);
    /* a reverse direction starts at the end, so a bidirectional layer must be complete before the next begins */
    if (m->spec.directions == 1 && (m->spec.num_layers > 1 || p->blas))
        p->chunk = least(p->chunk, p->blas ? at_least_one(p->hoist) : at_least_one(CHUNK_ROWS / rows));
    if (p->blas) p->hoist = p->chunk;
    return FL_OK;
}

enum fl_status fl_plan_backward(const fl_model *m, int64_t steps, int64_t batch, int threads, fl_plan *p)
{
    double total;
    const enum fl_status status = measure(m, steps, batch, p, &total);
    if (status != FL_OK) return status;
    divide(m, p, steps, batch, threads, 2 * total);
    /* The products after a chunk are shared by all workers whatever the split, so directions go one after the other. */
    if (p->split == FL_SPLIT_DIRECTIONS) p->split = batch >= p->threads ? FL_SPLIT_ROWS : FL_SPLIT_BLOCKS;
    /* two barriers a step, and columns of dh that share unevenly: blocks pay only where there are too few rows */
    if (p->split == FL_SPLIT_BLOCKS && batch >= 4 * p->threads) p->split = FL_SPLIT_ROWS;
    p->blas = m->gemm == FL_GEMM_BLAS;
    p->chunk = least(p->chunk, at_least_one((p->blas ? BLAS_ROWS : GRADIENT_ROWS) / at_least_one(batch)));
    return FL_OK;
}

int fl_plan_dense(int64_t inputs, int64_t outputs, int64_t rows, int threads)
{
    const double work_ns = 2.0 * (double)inputs * (double)outputs * (double)rows / FLOPS_PER_NS;
    const int64_t n = least(fl_team_limit(threads), least(rows, (int64_t)(work_ns / WAKE_NS)));
    return work_ns < 3 * WAKE_NS ? 1 : (int)at_least_one(n);
}
