/* The plan: sizes in, decisions out.  The only file with thresholds; every one says what it weighs.
 *
 * Threads and split are chosen together: the pair that fl_estimate.c expects to take least.  So a plan never takes
 * longer, by that estimate, for being allowed more threads.
 * What depends on the machine comes from fl_machine.c and decides about threads alone.  It must not decide about
 * chunks: the sums of gradients follow them (fl_gradient.c), and their bits are the same on every machine.
 * Nothing here changes a result on the panel path: each output is one chain, whoever computes it. */
#include "fl_estimate.h"
#include "fl_internal.h"
#include "fl_limit.h"
#include "fl_team.h"

enum {
    LAST_CACHE = 1 << 23, /* bytes of recurrent weights, beyond which both panels at once would come from memory */
    HOIST_ROWS = 48,      /* rows of a hoisted product: tall enough for full tiles, small enough for L2 */
    FULL_TILE = 6,        /* rows from which a step's own product keeps the FMA units busy */
    HOIST_INPUTS = 16,    /* narrower inputs cost less as part of the step's chain than as stored partial sums */
    CHUNK_ROWS = 512,     /* rows a stack passes from layer to layer at once */
    GRADIENT_ROWS = 512,  /* rows of dgates kept until the products of the weights' gradients take them */
    BLAS_ROWS = 4096,     /* rows BLAS gets at once */
    GATE_FLOPS = 60       /* what a gate of one unit costs beside products, in flops of full tiles */
};

static double step_flops(const fl_model *m, int layer, int64_t batch)
{
    return (double)batch * m->spec.directions * m->layers[layer * m->spec.directions].flops;
}

static int64_t at_least_one(int64_t n) { return n < 1 ? 1 : n; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

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

/* The sizes, and what all plans say of them. */
static enum fl_status measure(const fl_model *m, int64_t steps, int64_t batch, const fl_machine *machine, fl_plan *p)
{
    if (!m || !p || steps < 0 || batch < 0) return FL_ERR_ARGUMENT;
    if (steps > FL_LARGEST || batch > FL_LARGEST) return FL_ERR_OVERFLOW;
    *p = (fl_plan){.threads = 1,
                   .chunk = at_least_one(steps),
                   .step_flops = step_flops(m, 0, batch),
                   .flops_per_ns = machine->flops_per_ns[m->spec.dtype],
                   .wake_ns = machine->wake_ns,
                   .barrier_ns = machine->barrier_ns,
                   .private_cache = machine->private_cache};
    for (int l = 0; l < m->spec.num_layers; l++)
        p->panel_bytes += m->spec.directions * m->layers[l * m->spec.directions].bytes;
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

/* read again at every step */
static int64_t recurrent_bytes(const fl_model *m) { return m->wide * m->recurrent * m->unit; }

/* --- the work, as the time model wants it */

static fl_work work_of(const fl_model *m, const fl_plan *p, int64_t steps, int64_t batch)
{
    return (fl_work){.directions = m->spec.directions,
                     .whole_rows = m->whole_rows,
                     .rows = (int32_t)batch,
                     .blocks = (int32_t)m->blocks,
                     .shares = (int32_t)m->blocks,
                     .steps = (double)steps,
                     .all_bytes = p->panel_bytes,
                     .chunks = (double)((steps + p->chunk - 1) / p->chunk),
                     .kinds = m->spec.num_layers > 1 ? 2 : 1};
}

static fl_work forward_work(const fl_model *m, const fl_plan *p, int64_t steps, int64_t batch)
{
    const int projected = m->spec.proj_size != 0, heard = m->body == FL_BODY_GRU_NEW;
    fl_work work = work_of(m, p, steps, batch);
    work.exchanged = (double)((m->recurrent + (projected || heard ? m->spec.hidden_size : 0)) * m->unit);
    for (int i = 0; i < work.kinds; i++) {
        const fl_packed *w = &m->layers[i * m->spec.directions];
        const double inputs = p->hoist > 1 && fl_plan_span(m, p, w->inputs) ? w->input_weights : 0;
        work.load[i] = (fl_load){.count = i ? m->spec.num_layers - 1 : 1,
                                 .flops = w->flops - 2 * inputs + GATE_FLOPS * (double)m->rows,
                                 .bytes = w->bytes - inputs * (double)m->unit,
                                 .hoisted = 2 * inputs,
                                 .overlap_bytes = p->ahead && inputs > 0 ? FL_FIRST_CACHE : 0,
                                 .meetings = w->part_count + projected};
    }
    return work;
}

/* The recurrence takes dh through the weights that meet h; what meets x, and the gradients of all weights, are products
 * over many steps.  Blocks of dh are wider than those of gates, so fewer workers share that product. */
static fl_work backward_work(const fl_model *m, const fl_plan *p, int64_t steps, int64_t batch)
{
    const int projected = m->spec.proj_size != 0, heard = m->body == FL_BODY_GRU_NEW;
    fl_work work = work_of(m, p, steps, batch);
    work.backward = 1;
    work.shares = (int32_t)fl_plain_blocks(m->recurrent, m->width);
    work.exchanged = (double)(m->gradient * m->unit);
    for (int i = 0; i < work.kinds; i++) {
        const fl_packed *w = &m->layers[i * m->spec.directions];
        const double recurrent = m->truncated ? 0 : w->flops - 2 * w->input_weights;
        work.load[i] = (fl_load){.count = i ? m->spec.num_layers - 1 : 1,
                                 .flops = recurrent + GATE_FLOPS * (double)m->rows,
                                 .bytes = recurrent / 2 * (double)m->unit,
                                 .evenly = w->flops + 2 * w->input_weights,
                                 .meetings = 2 + 2 * projected + 2 * heard};
    }
    return work;
}

/* --- who works on what */

static enum fl_why why_split(const fl_plan *p, int split)
{
    if (split == FL_SPLIT_ROWS) return FL_WHY_ROWS;
    if (split == FL_SPLIT_DIRECTIONS) return FL_WHY_DIRECTIONS;
    return p->layer_bytes > p->private_cache ? FL_WHY_CACHE : FL_WHY_FEW_ROWS;
}

static void divide(const fl_work *work, const fl_costs *costs, int limit, fl_plan *p)
{
    /* of equal estimates the first wins: one thread, then those with fewer barriers */
    static const int splits[] = {FL_SPLIT_ROWS, FL_SPLIT_DIRECTIONS, FL_SPLIT_BLOCKS};
    const int most = fl_team_limit(limit), empty = work->rows == 0 || work->steps < 1;
    p->step_ns = fl_estimate_step(work, costs);
    p->work_ns = p->estimate_ns = empty ? 0 : fl_estimate_call(work, costs, FL_SPLIT_NONE, 1);
    p->compared[FL_SPLIT_NONE] = (fl_pair){p->work_ns, 1};
    const int small = p->work_ns < 2 * costs->start; /* half of it is saved at most by the second thread */
    p->why = most <= 1 ? FL_WHY_LIMIT : empty ? FL_WHY_EMPTY : small ? FL_WHY_SMALL : FL_WHY_UNSHARED;
    if (most <= 1 || p->work_ns <= costs->start) return;
    for (int i = 0; i < 3; i++) {
        const fl_pair pair = fl_estimate_best(work, costs, splits[i], most);
        p->compared[splits[i]] = pair;
        if (!pair.threads || pair.ns >= p->estimate_ns) continue;
        p->estimate_ns = pair.ns;
        p->threads = pair.threads;
        p->split = splits[i];
        p->why = why_split(p, splits[i]);
    }
}

/* --- a call */

/* Input products ahead of the recurrence, and chunks; nothing of it depends on threads yet. */
static void hoist(const fl_model *m, int64_t steps, int64_t batch, fl_plan *p)
{
    const int64_t rows = at_least_one(batch);
    p->blas = m->gemm == FL_GEMM_BLAS;
    p->why_hoist = why_hoist(m, p, steps, batch);
    if (p->blas)
        p->hoist = at_least_one(BLAS_ROWS / rows);
    else if (p->why_hoist == FL_HOIST_FEW_ROWS)
        p->hoist = at_least_one(HOIST_ROWS / rows);
    p->ahead = batch == 1 && p->hoist && !p->blas && may_run_ahead(m) && recurrent_bytes(m) <= LAST_CACHE;
    p->hoist = least(p->hoist, steps);
    if (m->row_body) p->hoist = at_least_one(p->hoist);
    /* a reverse direction starts at the end, so a bidirectional layer must be complete before the next begins */
    if (m->spec.directions == 1 && (m->spec.num_layers > 1 || p->blas))
        p->chunk = least(p->chunk, p->blas ? at_least_one(p->hoist) : at_least_one(CHUNK_ROWS / rows));
    if (p->blas) p->hoist = p->chunk;
}

/* Steps run ahead only where a worker waits for its share of the weights. */
static void run_ahead(const fl_model *m, fl_plan *p)
{
    const int both = m->spec.directions == 2 && p->threads % 2 == 0; /* else all work on one after the other */
    const int64_t mates = p->split == FL_SPLIT_BLOCKS ? p->threads / (both ? 2 : 1) : 1;
    p->ahead = p->ahead && recurrent_bytes(m) > at_least_one(mates) * FL_FIRST_CACHE ? m->real->ahead_rows : 0;
    if (p->ahead) p->hoist = 2 * p->ahead; /* those in use and those in the making */
}

enum fl_status fl_plan_call(const fl_model *m, int64_t steps, int64_t batch, int threads, int awake, fl_plan *p)
{
    fl_machine machine;
    if (threads < 0) return FL_ERR_ARGUMENT;
    fl_machine_get(&machine);
    const enum fl_status status = measure(m, steps, batch, &machine, p);
    if (status != FL_OK) return status;
    hoist(m, steps, batch, p);
    const fl_work work = forward_work(m, p, steps, batch);
    const fl_costs costs = fl_costs_of(&machine, m->spec.dtype, awake);
    divide(&work, &costs, threads, p);
    run_ahead(m, p);
    return FL_OK;
}

enum fl_status fl_plan_forward(const fl_model *m, int64_t steps, int64_t batch, int threads, fl_plan *p)
{
    return fl_plan_call(m, steps, batch, threads, 0, p);
}

static enum fl_status begin_backward(const fl_model *m, int64_t steps, int64_t batch, const fl_machine *machine,
                                     fl_plan *p)
{
    const enum fl_status status = measure(m, steps, batch, machine, p);
    if (status != FL_OK) return status;
    p->blas = m->gemm == FL_GEMM_BLAS;
    p->why_hoist = p->blas ? FL_HOIST_BLAS : FL_HOIST_ONE_STEP;
    p->chunk = least(p->chunk, at_least_one((p->blas ? BLAS_ROWS : GRADIENT_ROWS) / at_least_one(batch)));
    return FL_OK;
}

enum fl_status fl_plan_backward(const fl_model *m, int64_t steps, int64_t batch, int threads, fl_plan *p)
{
    fl_machine machine;
    if (threads < 0) return FL_ERR_ARGUMENT;
    fl_machine_get(&machine);
    const enum fl_status status = begin_backward(m, steps, batch, &machine, p);
    if (status != FL_OK) return status;
    const fl_work work = backward_work(m, p, steps, batch);
    const fl_costs costs = fl_costs_of(&machine, m->spec.dtype, 0);
    divide(&work, &costs, threads, p);
    return FL_OK;
}

double fl_plan_estimate(const fl_model *m, int64_t steps, int64_t batch, int backward, int split, int threads,
                        int awake)
{
    fl_machine machine;
    fl_plan p;
    fl_machine_get(&machine);
    if (backward) {
        if (begin_backward(m, steps, batch, &machine, &p) != FL_OK) return 0;
    } else {
        if (measure(m, steps, batch, &machine, &p) != FL_OK) return 0;
        hoist(m, steps, batch, &p);
    }
    const fl_work work = backward ? backward_work(m, &p, steps, batch) : forward_work(m, &p, steps, batch);
    const fl_costs costs = fl_costs_of(&machine, m->spec.dtype, awake);
    return fl_estimate_call(&work, &costs, split, threads);
}

double fl_plan_flop_ns(int dtype)
{
    fl_machine machine;
    fl_machine_get(&machine);
    return 1 / machine.flops_per_ns[dtype];
}

int fl_plan_dense(int dtype, int64_t inputs, int64_t outputs, int64_t rows, int threads)
{
    fl_machine machine;
    fl_machine_get(&machine);
    const double weights = (double)inputs * (double)outputs, bytes = weights * (dtype == FL_F64 ? 8 : 4);
    const fl_work work = {.directions = 1,
                          .whole_rows = 1,
                          .rows = (int32_t)least(rows, FL_LARGEST),
                          .blocks = 1,
                          .shares = 1,
                          .steps = 1,
                          .all_bytes = bytes,
                          .chunks = 1,
                          .kinds = 1,
                          .load = {{.count = 1, .flops = 2 * weights, .bytes = bytes}}};
    fl_plan p = {.threads = 1};
    const fl_costs costs = fl_costs_of(&machine, dtype, 0);
    divide(&work, &costs, threads, &p);
    return p.threads;
}
