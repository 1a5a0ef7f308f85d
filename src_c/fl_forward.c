/* A forward call: checks, workspace, one parallel region, layers and directions in order.
 *
 * Workspace, laid out by `lay_out` (the query counts with the same function):
 *   | order row, length (B) | zeros | pointers (workers) | pre, cell_out, side, kept d0 | d1 | masked (workers)
 *   | between, between_c 0 | 1 | gather |
 */
#include <string.h>

#include "fl_layer.h"

/* Masks of another cell are refused like its options. */
static int masks_fit(const fl_model *m, const fl_call *call)
{
    const int cell = m->spec.cell, clocked = cell == FL_CELL_CLOCKWORK;
    for (int i = 0; call->masks && i < m->spec.num_layers * m->spec.directions; i++) {
        const fl_masks *k = &call->masks[i];
        if (k->mask_g && (clocked || cell == FL_CELL_RNN)) return 0;
        if (k->zoneout_h && (clocked || cell == FL_CELL_LSTM_1997)) return 0;
        if (k->zoneout_c && cell != FL_CELL_LSTM && cell != FL_CELL_DEPTH_GATED) return 0;
    }
    return 1;
}

enum fl_status fl_call_check(const fl_model *m, const fl_call *call)
{
    if (!m || !call || call->steps < 0 || call->batch < 0 || call->threads < 0) return FL_ERR_ARGUMENT;
    if (call->steps > FL_LARGEST || call->batch > FL_LARGEST) return FL_ERR_OVERFLOW;
    if (!call->hn || (m->cells && !call->cn) || ((call->dropout || call->masks) && !call->cache))
        return FL_ERR_ARGUMENT;
    if (!masks_fit(m, call)) return FL_ERR_ARGUMENT;
    if (call->steps && call->batch && (!call->x.data || !call->y.data)) return FL_ERR_ARGUMENT;
    if ((uintptr_t)call->workspace % FL_ALIGN || (uintptr_t)call->cache % FL_ALIGN) return FL_ERR_WORKSPACE;
    for (int64_t b = 0; call->lengths && b < call->batch; b++)
        if (call->lengths[b] < 0 || call->lengths[b] > call->steps) return FL_ERR_LENGTH;
    return FL_OK;
}

static void lay_out(fl_job *job, fl_arena *arena)
{
    const fl_model *m = job->m;
    const int64_t batch = job->call->batch, hidden = m->spec.hidden_size;
    const int64_t outputs = m->recurrent * m->spec.directions;
    const int inner = m->spec.num_layers > 1 && !job->call->cache;
    job->strip = fl_strip_rows(&job->plan, batch);
    job->order.row = fl_arena_take(arena, batch, sizeof(int64_t));
    job->order.length = fl_arena_take(arena, batch, sizeof(int64_t));
    job->zeros = fl_arena_take(arena, hidden > m->cells ? hidden : m->cells, m->unit);
    job->pointers = fl_arena_take3(arena, job->plan.threads, fl_pass_pointers(job), 1, sizeof(void *));
    for (int d = 0; d < m->spec.directions; d++) {
        job->pre[d] = fl_arena_take3(arena, job->plan.hoist, batch, m->wide, m->unit);
        job->cell_out[d] = fl_arena_take3(arena, m->spec.proj_size ? batch : 0, hidden, 1, m->unit);
        job->side[d] = fl_arena_take3(arena, m->side ? batch : 0, m->side, 1, m->unit);
        job->kept[d] = fl_arena_take3(arena, m->keeps && !job->call->cache ? batch : 0, m->kept, 1, m->unit);
    }
    job->masked = fl_arena_take3(arena, job->call->masks ? job->plan.threads : 0, job->strip, m->recurrent, m->unit);
    for (int i = 0; i < 2; i++) {
        job->between[i] = fl_arena_take3(arena, inner ? job->plan.chunk : 0, batch, outputs, m->unit);
        job->between_c[i] = fl_arena_take3(arena, inner && m->depth ? job->plan.chunk : 0, batch * m->spec.directions,
                                           m->cells, m->unit);
    }
    const int64_t widest = m->spec.input_size > outputs ? m->spec.input_size : outputs;
    job->gather = fl_arena_take3(arena, job->plan.blas ? job->plan.hoist : 0, batch, widest, m->unit);
}

size_t fl_forward_bytes(const fl_model *m, const fl_call *call)
{
    fl_job job = {.m = m, .call = call};
    fl_arena arena = {0};
    if (fl_plan_forward(m, call->steps, call->batch, call->threads, &job.plan) != FL_OK)
        return SIZE_MAX;
    lay_out(&job, &arena);
    return arena.overflow ? SIZE_MAX : arena.used;
}

/* --- one worker */

/* What layer `layer` reads: the call's x, or what the layer below left in the cache or in `between`. */
static fl_view input_of(const fl_job *job, int layer, int64_t first)
{
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const int64_t outputs = m->recurrent * m->spec.directions;
    if (layer == 0) return fl_view_of(&call->x, m->unit);
    if (!call->cache) return fl_view_dense(job->between[(layer - 1) % 2], call->batch, outputs, m->unit, first);
    const fl_cache_offsets o = fl_cache_layout(m, call->steps, call->batch, fl_cache_flags(m, call), layer - 1, 0);
    return fl_view_dense((char *)call->cache + o.input, call->batch, outputs, m->unit, 0);
}

/* What it writes, all directions. */
static fl_view output_of(const fl_job *job, int layer, int64_t first)
{
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const int64_t outputs = m->recurrent * m->spec.directions;
    if (layer == m->spec.num_layers - 1) return fl_view_of(&call->y, m->unit);
    if (!call->cache) return fl_view_dense(job->between[layer % 2], call->batch, outputs, m->unit, first);
    const fl_cache_offsets o = fl_cache_layout(m, call->steps, call->batch, fl_cache_flags(m, call), layer, 0);
    return fl_view_dense((char *)call->cache + o.y, call->batch, outputs, m->unit, 0);
}

/* c of every step of a layer and direction, where it is kept: in the cache, or where the next layer reads it. */
static fl_view cells_of(const fl_job *job, int layer, int dir, int64_t first)
{
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    if (!m->cells || layer < 0) return (fl_view){0};
    if (call->cache) {
        const fl_cache_offsets o = fl_cache_layout(m, call->steps, call->batch, fl_cache_flags(m, call), layer, dir);
        return fl_view_dense((char *)call->cache + o.c, call->batch, m->cells, m->unit, 0);
    }
    if (!m->depth || layer == m->spec.num_layers - 1) return (fl_view){0};
    fl_view v = fl_view_dense(job->between_c[layer % 2], call->batch * m->spec.directions, m->cells, m->unit, first);
    v.data += dir * call->batch * m->cells * m->unit;
    return v;
}

/* In the cache gates, c and the inner layers' y are zero beyond the lengths, like y: a trace shows them. */
static void zero_cached(const fl_job *job, int64_t t, int64_t b)
{
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const int64_t at = t * call->batch + b, cells = m->cells * m->unit, kept = m->kept * m->unit;
    const int64_t outputs = m->recurrent * m->spec.directions * m->unit;
    for (int l = 0; l < m->spec.num_layers; l++)
        for (int d = 0; d < m->spec.directions; d++) {
            const fl_cache_offsets o = fl_cache_layout(m, call->steps, call->batch, fl_cache_flags(m, call), l, d);
            char *cache = call->cache;
            memset(cache + o.gates + at * kept, 0, (size_t)kept);
            if (cells) memset(cache + o.c + at * cells, 0, (size_t)cells);
            if (o.y != SIZE_MAX) memset(cache + o.y + at * outputs, 0, (size_t)outputs);
        }
}

static void zero_tails(const fl_job *job, int worker, int workers)
{
    const fl_call *call = job->call;
    const fl_view y = fl_view_of(&call->y, job->m->unit);
    const int64_t outputs = job->m->recurrent * job->m->spec.directions * job->m->unit;
    for (int64_t b = worker; call->lengths && b < call->batch; b += workers)
        for (int64_t t = call->lengths[b]; t < call->steps; t++) {
            memset(fl_at(&y, t, b), 0, (size_t)outputs);
            if (call->cache) zero_cached(job, t, b);
        }
}

/* The next layer's input: y of this one times the dropout factors, for this pass's rows. */
static void drop_out(const fl_job *job, int layer, int64_t s0, int64_t s1, int64_t row0, int64_t row_step)
{
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const int64_t outputs = m->recurrent * m->spec.directions;
    const fl_cache_offsets o = fl_cache_layout(m, call->steps, call->batch, fl_cache_flags(m, call), layer, 0);
    const char *factors = (const char *)call->dropout + (int64_t)layer * call->steps * call->batch * outputs * m->unit;
    for (int64_t r = row0; r < call->batch; r += row_step)
        for (int64_t t = s0; t < s1 && t < job->order.length[r]; t++) {
            const int64_t at = (t * call->batch + job->order.row[r]) * outputs * m->unit;
            m->real->mul((char *)call->cache + o.y + at, factors + at, (char *)call->cache + o.input + at, outputs);
        }
}

static void run_layer(fl_job *job, int layer, int64_t s0, int64_t s1, int worker, int workers, int hoist_here)
{
    const fl_model *m = job->m;
    const int directions = m->spec.directions;
    const int by_rows = job->plan.split == FL_SPLIT_ROWS || workers == 1;
    const int groups = !by_rows && directions == 2 && workers % 2 == 0 ? 2 : 1;
    const int mates = by_rows ? 1 : workers / groups, mate = worker % mates, group = by_rows ? 0 : worker / mates;
    const int64_t batch = job->call->batch, row_step = by_rows ? workers : 1, row0 = by_rows ? worker : 0;
    for (int d = 0; d < directions; d++) {
        if (groups == 2 && d != group) continue;
        fl_pass pass = {
            .job = job,
            .layer = layer,
            .dir = d,
            .x = input_of(job, layer, s0),
            .y = output_of(job, layer, s0),
            .rows = row0 < batch ? (batch - row0 + row_step - 1) / row_step : 0,
            .row0 = row0,
            .row_step = row_step,
            .c = cells_of(job, layer, d, s0),
            .lower = m->depth ? cells_of(job, layer - 1, d, s0) : (fl_view){0},
            .barrier = &job->group[group],
            .mate = mate,
            .mates = mates,
            .pointers = job->pointers + worker * fl_pass_pointers(job),
            .masked = job->masked + worker * job->strip * m->recurrent * m->unit,
        };
        if (job->call->cache)
            pass.cache = fl_cache_layout(m, job->call->steps, batch, fl_cache_flags(m, job->call), layer, d);
        pass.y.data += (int64_t)d * m->recurrent * m->unit;
        fl_pass_run(&pass, s0, s1, hoist_here);
    }
    if (groups == 2) fl_barrier_wait(&job->team, workers);
    if (!job->call->dropout || layer == m->spec.num_layers - 1) return;
    drop_out(job, layer, s0, s1, worker, workers);
    if (!by_rows) fl_barrier_wait(&job->team, workers);
}

static void forward_worker(int worker, int workers, void *arg)
{
    fl_job *job = arg;
    zero_tails(job, worker, workers);
    for (int64_t s0 = 0; s0 < job->longest; s0 += job->plan.chunk) {
        const int64_t s1 = s0 + job->plan.chunk < job->longest ? s0 + job->plan.chunk : job->longest;
        for (int l = 0; l < job->m->spec.num_layers; l++) run_layer(job, l, s0, s1, worker, workers, 1);
    }
}

/* --- by way of BLAS: the hoisted products outside, the recurrence inside a region */

typedef struct fl_stretch { /* one layer, some steps */
    fl_job *job;
    int layer;
    int64_t s0, s1;
} fl_stretch;

static void stretch_worker(int worker, int workers, void *arg)
{
    const fl_stretch *s = arg;
    run_layer(s->job, s->layer, s->s0, s->s1, worker, workers, 0);
}

static void zero_worker(int worker, int workers, void *arg) { zero_tails(arg, worker, workers); }

static void blas_inputs(const fl_stretch *s, int d)
{
    const fl_job *job = s->job;
    const fl_model *m = job->m;
    const fl_packed *w = &m->layers[s->layer * m->spec.directions + d];
    const int64_t batch = job->call->batch, rows = (s->s1 - s->s0) * batch, k = w->inputs;
    const int64_t wide = m->wide;
    const fl_view x = input_of(job, s->layer, s->s0);
    const void *mask = job->call->masks ? job->call->masks[w - m->layers].mask_x : NULL;
    for (int64_t i = 0; i < rows; i++) {
        const int64_t r = i % batch, step = s->s0 + i / batch, length = job->order.length[r];
        char *to = job->gather + i * k * m->unit;
        const void *from = step < length ? fl_at(&x, fl_time(d, step, length), job->order.row[r]) : NULL;
        if (from && mask)
            m->real->mul(from, fl_mask_row(m, mask, job->order.row[r], k), to, k);
        else if (from)
            memcpy(to, from, (size_t)(k * m->unit));
        else
            memset(to, 0, (size_t)(k * m->unit));
        memcpy(job->pre[d] + i * wide * m->unit, w->part[0].bias, (size_t)(wide * m->unit));
    }
    if (m->spec.dtype == FL_F64)
        job->call->blas->dgemm(0, 1, rows, wide, k, 1.0, (double *)job->gather, k, w->blocked_x, k, 1.0,
                               (double *)job->pre[d], wide);
    else
        job->call->blas->sgemm(0, 1, rows, wide, k, 1.0f, (float *)job->gather, k, w->blocked_x, k, 1.0f,
                               (float *)job->pre[d], wide);
}

/* With a reverse direction the chunk is the whole sequence, and so is what is hoisted. */
static void forward_by_blas(fl_job *job)
{
    fl_team_run(job->plan.threads, zero_worker, job);
    for (int64_t s0 = 0; s0 < job->longest; s0 += job->plan.chunk) {
        fl_stretch s = {job, 0, s0, s0 + job->plan.chunk < job->longest ? s0 + job->plan.chunk : job->longest};
        for (; s.layer < job->m->spec.num_layers; s.layer++) {
            for (int d = 0; d < job->m->spec.directions; d++) blas_inputs(&s, d);
            fl_team_run(job->plan.threads, stretch_worker, &s);
        }
    }
}

/* --- entry */

static void start_state(const fl_model *m, const fl_call *call)
{
    const size_t rows = (size_t)(m->spec.num_layers * m->spec.directions * call->batch) * (size_t)m->unit;
    const size_t h = rows * (size_t)m->recurrent, c = rows * (size_t)m->cells;
    if (!call->h0)
        memset(call->hn, 0, h);
    else if (call->h0 != call->hn)
        memcpy(call->hn, call->h0, h);
    if (!m->cells) return;
    if (!call->c0)
        memset(call->cn, 0, c);
    else if (call->c0 != call->cn)
        memcpy(call->cn, call->c0, c);
}

enum fl_status fl_forward(const fl_model *m, const fl_call *call)
{
    enum fl_status status = fl_call_check(m, call);
    if (status != FL_OK) return status;
    fl_job job = {.m = m, .call = call};
    status = fl_plan_forward(m, call->steps, call->batch, call->threads, &job.plan);
    if (status != FL_OK) return status;
    if (job.plan.blas && !call->blas) return FL_ERR_BLAS;
    fl_arena arena = {.base = call->workspace};
    lay_out(&job, &arena);
    status = fl_arena_check(&arena, call->workspace_bytes);
    if (status != FL_OK) return status;

    start_state(m, call);
    fl_order_make((int64_t *)job.order.row, (int64_t *)job.order.length, call->lengths, call->steps, call->batch);
    job.longest = call->batch ? job.order.length[0] : 0;
    job.turn = fl_snake(m, job.longest);
    job.free = call->masks || m->zones[0] || m->zones[1];
    job.more = job.free || m->keeps || m->side || m->depth || m->spec.proj_size;
    memset((void *)job.zeros, 0, (size_t)((m->cells > m->spec.hidden_size ? m->cells : m->spec.hidden_size) * m->unit));
    if (job.plan.threads > 1) {
        fl_barrier_init(&job.team, 1);
        for (int i = 0; i < 2; i++) fl_barrier_init(&job.group[i], 0);
    }
    if (job.plan.blas)
        forward_by_blas(&job);
    else
        fl_team_run(job.plan.threads, forward_worker, &job);
    return FL_OK;
}
