/* The plan: sizes in, decisions out.  The only file with thresholds; every one says what it weighs.
 *
 * What depends on the machine comes from fl_machine.c and decides about threads alone.  It must not decide about
 * chunks: the sums of gradients follow them (fl_gradient.c), and their bits are the same on every machine.
 * Nothing here changes a result on the panel path: each output is one chain, whoever computes it. */
#include "fl_internal.h"
#include "fl_limit.h"
#include "fl_team.h"

enum {
    WORTH_WAKES = 3,      /* a call's work in wakings from which a second thread pays: half of it outweighs one */
    WORTH_BARRIERS = 2,   /* a worker's share of a step, in barriers, from which sharing every step pays */
    ROWS_EACH = 4,        /* rows of its own that keep a worker's FMA units half busy */
    LAST_CACHE = 1 << 23, /* bytes of recurrent weights, beyond which both panels at once would come from memory */
    HOIST_ROWS = 48,      /* rows of a hoisted product: tall enough for full tiles, small enough for L2 */
    FULL_TILE = 6,        /* rows from which a step's own product keeps the FMA units busy */
    HOIST_INPUTS = 16,    /* narrower inputs cost less as part of the step's chain than as stored partial sums */
    CHUNK_ROWS = 512,     /* rows a stack passes from layer to layer at once */
    GRADIENT_ROWS = 512,  /* rows of dgates kept until the products of the weights' gradients take them */
    BLAS_ROWS = 4096      /* rows BLAS gets at once */
};

static double step_flops(const fl_model *m, int layer, int64_t batch)
{
    return (double)batch * m->spec.directions * m->layers[layer * m->spec.directions].flops;
}

static int64_t at_least_one(int64_t n) { return n < 1 ? 1 : n; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Threads that so much work is worth; 1 when even a second one would spend more time waking than working. */
static int worth_threads(double work_ns, double wake_ns, int limit)
{
    const double wakes = work_ns / wake_ns;
    return wakes < WORTH_WAKES ? 1 : wakes < limit ? (int)wakes : limit;
}

/* Who works on what.  Rows need no barrier but every worker reads all weights; blocks leave each worker its own
 * weights, in its own cache, for one barrier per step; directions need a barrier per layer only. */
static void divide(const fl_model *m, fl_plan *p, int64_t steps, int64_t batch, int limit)
{
    const int most = fl_team_limit(limit), n = worth_threads(p->work_ns, p->wake_ns, most);
    p->why = most <= 1 ? FL_WHY_LIMIT : steps == 0 || batch == 0 ? FL_WHY_EMPTY : FL_WHY_SMALL;
    if (n <= 1 || steps == 0 || batch == 0) return;

    const int64_t by_blocks = least(n, m->blocks * m->spec.directions);
    const int worth_blocks = by_blocks > 1 && !m->whole_rows && /* a row at a time is one worker's */
                             p->step_ns / (double)by_blocks > WORTH_BARRIERS * p->barrier_ns;
    const int large = p->layer_bytes > p->private_cache;
    p->why = FL_WHY_UNSHARED;
    if (worth_blocks && (large || batch < ROWS_EACH * (int64_t)n)) {
        p->threads = (int)by_blocks;
        p->split = FL_SPLIT_BLOCKS;
        p->why = large ? FL_WHY_CACHE : FL_WHY_FEW_ROWS;
    } else if (batch >= ROWS_EACH * (int64_t)n || (batch >= n && m->spec.directions == 1)) {
        p->threads = n;
        p->split = FL_SPLIT_ROWS;
        p->why = FL_WHY_ROWS;
    } else if (m->spec.directions == 2) {
        p->threads = 2;
    }
    if (m->spec.directions == 2 && p->threads == 2 && p->split != FL_SPLIT_ROWS) {
        p->split = FL_SPLIT_DIRECTIONS;
        p->why = FL_WHY_DIRECTIONS;
    }
}

static int64_t widest_input(const fl_model *m)
{
    const int64_t inner = m->spec.num_layers > 1 ? fl_layer_inputs(&m->spec, 1) : 0;
    return inner > m->spec.input_size ? inner : m->spec.input_size;
}

int64_t fl_plan_span(const fl_model *m, const fl_plan *p, int64_t inputs)
{
    if (m->row_body) return p->hoist; /* its products all end in memory */
    return p->blas || inputs >= HOIST_INPUTS ? p->hoist : 0;
}

/* What is to be done, `passes` times, and what this machine needs for it. */
static enum fl_status weigh(const fl_model *m, int64_t steps, int64_t batch, int passes, fl_plan *p)
{
    if (steps < 0 || batch < 0) return FL_ERR_ARGUMENT;
    if (steps > FL_LARGEST || batch > FL_LARGEST) return FL_ERR_OVERFLOW;
    fl_machine machine;
    fl_machine_get(&machine);
    *p = (fl_plan){.threads = 1,
                   .chunk = at_least_one(steps),
                   .step_flops = step_flops(m, 0, batch),
                   .flops_per_ns = machine.flops_per_ns[m->spec.dtype],
                   .wake_ns = machine.wake_ns,
                   .barrier_ns = machine.barrier_ns,
                   .private_cache = machine.private_cache};
    double total = 0;
    for (int l = 0; l < m->spec.num_layers; l++) {
        total += step_flops(m, l, batch) * (double)steps;
        p->panel_bytes += m->spec.directions * m->layers[l * m->spec.directions].bytes;
    }
    p->work_ns = passes * total / p->flops_per_ns;
    p->step_ns = p->step_flops / p->flops_per_ns;
    p->layer_bytes = p->panel_bytes / m->spec.num_layers;
    return FL_OK;
}

static int why_hoist(const fl_model *m, const fl_plan *p, int64_t steps, int64_t batch)
{
    if (p->blas) return FL_HOIST_BLAS;
    if (m->row_body && batch >= FULL_TILE) return FL_HOIST_ROW;
    if (m->row_body && (steps <= 1 || widest_input(m) < HOIST_INPUTS)) return FL_HOIST_ROW;
    if (steps <= 1) return FL_HOIST_ONE_STEP;
    if (batch >= FULL_TILE) return FL_HOIST_FULL_TILE;
    return widest_input(m) < HOIST_INPUTS ? FL_HOIST_NARROW : FL_HOIST_FEW_ROWS;
}

/* A step that is one product of full width, eaten from tiles. */
static int may_run_ahead(const fl_model *m)
{
    const fl_part *p = m->layers[0].part;
    return !m->row_body && m->spec.cell != FL_CELL_CLOCKWORK && m->layers[0].part_count == 1 &&
           p->layout.vectors >= 3 && m->real->step_ahead[p->body];
}

enum fl_status fl_plan_forward(const fl_model *m, int64_t steps, int64_t batch, int threads, fl_plan *p)
{
    const enum fl_status status = weigh(m, steps, batch, 1, p);
    if (status != FL_OK) return status;
    divide(m, p, steps, batch, threads);
    const int64_t rows = at_least_one(batch);
    p->blas = m->gemm == FL_GEMM_BLAS;
    p->why_hoist = why_hoist(m, p, steps, batch);
    if (p->blas)
        p->hoist = at_least_one(BLAS_ROWS / rows);
    else if (p->why_hoist == FL_HOIST_FEW_ROWS)
        p->hoist = at_least_one(HOIST_ROWS / rows);
    const int both = m->spec.directions == 2 && p->threads % 2 == 0; /* else all work on one after the other */
    const int64_t mates = p->split == FL_SPLIT_BLOCKS ? p->threads / (both ? 2 : 1) : 1;
    const int64_t bytes = m->wide * m->recurrent * m->unit; /* read again at every step */
    if (batch == 1 && p->hoist && !p->blas && may_run_ahead(m) &&
        bytes > at_least_one(mates) * FL_FIRST_CACHE && bytes <= LAST_CACHE) {
        p->ahead = m->real->ahead_rows;
        p->hoist = 2 * p->ahead; /* those in use and those in the making */
    }
    p->hoist = p->ahead ? p->hoist : least(p->hoist, steps);
    if (m->row_body) p->hoist = at_least_one(p->hoist);
    /* a reverse direction starts at the end, so a bidirectional layer must be complete before the next begins */
    if (m->spec.directions == 1 && (m->spec.num_layers > 1 || p->blas))
        p->chunk = least(p->chunk, p->blas ? at_least_one(p->hoist) : at_least_one(CHUNK_ROWS / rows));
    if (p->blas) p->hoist = p->chunk;
    return FL_OK;
}

enum fl_status fl_plan_backward(const fl_model *m, int64_t steps, int64_t batch, int threads, fl_plan *p)
{
    const enum fl_status status = weigh(m, steps, batch, 2, p);
    if (status != FL_OK) return status;
    divide(m, p, steps, batch, threads);
    /* The products after a chunk are shared by all workers whatever the split, so directions go one after the other.
     * Two barriers a step, and columns of dh that share unevenly: blocks pay only where there are too few rows. */
    const int directions = p->split == FL_SPLIT_DIRECTIONS, blocks = p->split == FL_SPLIT_BLOCKS;
    if ((directions && batch >= p->threads) || (blocks && batch >= ROWS_EACH * (int64_t)p->threads)) {
        p->split = FL_SPLIT_ROWS;
        p->why = FL_WHY_ROWS;
    } else if (directions && m->whole_rows) {
        p->threads = 1;
        p->split = FL_SPLIT_NONE;
        p->why = FL_WHY_UNSHARED;
    } else if (directions) {
        p->split = FL_SPLIT_BLOCKS;
        p->why = FL_WHY_FEW_ROWS;
    }
    p->blas = m->gemm == FL_GEMM_BLAS;
    p->why_hoist = p->blas ? FL_HOIST_BLAS : FL_HOIST_ONE_STEP;
    p->chunk = least(p->chunk, at_least_one((p->blas ? BLAS_ROWS : GRADIENT_ROWS) / at_least_one(batch)));
    return FL_OK;
}

/* At the rate of float32 for both: a float64 layer has twice the work per operation, and is divided a little late. */
int fl_plan_dense(int64_t inputs, int64_t outputs, int64_t rows, int threads)
{
    fl_machine machine;
    fl_machine_get(&machine);
    const double work_ns = 2.0 * (double)inputs * (double)outputs * (double)rows / machine.flops_per_ns[FL_F32];
    const int n = worth_threads(work_ns, machine.wake_ns, fl_team_limit(threads));
    return (int)at_least_one(least(n, rows));
}
