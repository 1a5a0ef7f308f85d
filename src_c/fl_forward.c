/* A forward call: checks, workspace, one parallel region, layers and directions in order.
 *
 * Workspace, laid out by `lay_out` (the query counts with the same function):
 *   | order row, length (B) | zeros | pointers (workers) | pre, cell_out, side, kept d0 | d1 | masked (workers)
 *   | between, between_c 0 | 1 | gather |
 */
#include <string.h>

#include "fl_arrays.h"
#include "fl_layer.h"
#include "fl_pieces.h"

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
    if (!m || !call) return SIZE_MAX;
    fl_job job = {.m = m, .call = call};
    fl_arena arena = {0};
    if (fl_plan_call(m, call->steps, call->batch, call->threads, call->awake_ns > 0, &job.plan) != FL_OK)
        return SIZE_MAX;
    lay_out(&job, &arena);
    return arena.overflow ? SIZE_MAX : arena.used;
}

/* --- one worker */

/* The two directions of a layer at once, each by a half of the team. */
static int in_halves(const fl_job *job, int workers)
{
    return job->halves && workers > 1;
}

/* A worker, which has another number when a half of the team has become smaller. */
typedef struct fl_member {
    int worker, workers;
} fl_member;

static void run_direction(fl_job *job, int layer, int d, int64_t s0, int64_t s1, const fl_member *of, int *mates,
                          int hoist_here)
{
    const fl_model *m = job->m;
    const int by_rows = job->plan.split == FL_SPLIT_ROWS || of->workers == 1;
    const int halves = in_halves(job, of->workers);
    const int64_t batch = job->call->batch, row_step = by_rows ? of->workers : 1, row0 = by_rows ? of->worker : 0;
    fl_pass pass = {
        .job = job,
        .dir = d,
        .slot = layer * m->spec.directions + d,
        .x = fl_job_input(job, layer, s0),
        .y = fl_job_output(job, layer, s0),
        .rows = row0 < batch ? (batch - row0 + row_step - 1) / row_step : 0,
        .row0 = row0,
        .row_step = row_step,
        .c = fl_job_cells(job, layer, d, s0),
        .lower = m->depth ? fl_job_cells(job, layer - 1, d, s0) : (fl_view){0},
        .barrier = halves ? &job->half[d] : job->team,
        .mate = by_rows ? 0 : halves ? of->worker % (of->workers / 2) : of->worker,
        .mates = *mates,
        .worker = of->worker,
        .pointers = job->pointers + of->worker * fl_pass_pointers(job),
        .masked = job->masked + of->worker * job->strip * m->recurrent * m->unit,
    };
    if (job->call->cache) pass.cache = fl_cache_at(&job->cache, layer, d);
    pass.y.data += (int64_t)d * m->recurrent * m->unit;
    *mates = fl_pass_run(&pass, s0, s1, hoist_here);
}

/* What one thread needs for a layer, by the plan. */
static double layer_ns(const fl_job *job, int layer, int64_t s0, int64_t s1)
{
    const fl_model *m = job->m;
    double rows = 0;
    for (int64_t r = 0; r < job->call->batch && job->order.length[r] > s0; r++)
        rows += (double)((job->order.length[r] < s1 ? job->order.length[r] : s1) - s0);
    return rows * m->spec.directions * m->layers[layer * m->spec.directions].flops * job->flop_ns;
}

/* A worker's part of a layer.  0: it must leave the call. */
static int run_layer(fl_job *job, int layer, int64_t s0, int64_t s1, fl_member *of, int hoist_here)
{
    const int directions = job->m->spec.directions, by_rows = job->plan.split == FL_SPLIT_ROWS || of->workers == 1;
    const int halves = in_halves(job, of->workers);
    int mates = by_rows ? 1 : halves ? of->workers / 2 : of->workers;
    const int half = halves ? of->worker / mates : 0, mate = by_rows ? 0 : halves ? of->worker % mates : of->worker;
    for (int d = 0; d < directions && mate < mates; d++)
        if (!halves || d == half) run_direction(job, layer, d, s0, s1, of, &mates, hoist_here);
    if (halves) {
        if (mate >= mates) { /* its half has become smaller, and the other half will, too */
            fl_barrier_leave(job->team, of->worker, of->workers);
            return 0;
        }
        const double work = of->workers == 2 ? layer_ns(job, layer, s0, s1) : 0; /* else it has been judged */
        const int left = fl_barrier_judge(job->team, of->worker, of->workers, work);
        of->worker = left == 1 ? of->worker : half * (left / 2) + mate;
        of->workers = left;
        if (left == 1 ? of->worker > 0 : mate >= left / 2) return 0;
    } else {
        if (!by_rows) of->workers = mates;
        if (mate >= mates) return 0;
    }
    if (!job->call->dropout || layer == job->m->spec.num_layers - 1) return 1;
    fl_job_drop_out(job, layer, s0, s1, of->worker, of->workers);
    if (!by_rows) fl_barrier_wait(job->team, of->worker, of->workers);
    return 1;
}

/* Before the workers start, when it is known how many there are. */
static void start_judges(int workers, void *arg)
{
    fl_job *job = arg;
    job->judge.workers = workers;
    job->halves = job->m->spec.directions == 2 && workers % 2 == 0 && job->plan.split != FL_SPLIT_ROWS;
    for (int i = 0; i < 2 && job->plan.threads > 1; i++) {
        job->team->half[i] = job->halves ? &job->half[i] : NULL;
        if (!job->halves) continue;
        job->half_judge[i] = job->judge;
        fl_barrier_shrink(&job->half[i], workers / 2);
    }
}

static void forward_worker(int worker, int workers, void *arg)
{
    fl_job *job = arg;
    fl_member of = {worker, workers};
    fl_job_zero_tails(job, worker, workers);
    for (int64_t s0 = 0; s0 < job->longest; s0 += job->plan.chunk) {
        const int64_t s1 = s0 + job->plan.chunk < job->longest ? s0 + job->plan.chunk : job->longest;
        for (int l = 0; l < job->m->spec.num_layers; l++)
            if (!run_layer(job, l, s0, s1, &of, 1)) return;
    }
    if (of.worker == 0) job->workers = of.workers;
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
    fl_member of = {worker, workers};
    if (run_layer(s->job, s->layer, s->s0, s->s1, &of, 0) && of.worker == 0) s->job->workers = of.workers;
}

static void start_stretch(int workers, void *arg)
{
    const fl_stretch *s = arg;
    s->job->judge.last = fl_now_ns(); /* BLAS's time is not the team's */
    start_judges(workers, s->job);
}

static void zero_worker(int worker, int workers, void *arg) { fl_job_zero_tails(arg, worker, workers); }

static void blas_inputs(const fl_stretch *s, int d)
{
    const fl_job *job = s->job;
    const fl_model *m = job->m;
    const fl_packed *w = &m->layers[s->layer * m->spec.directions + d];
    const int64_t batch = job->call->batch, rows = (s->s1 - s->s0) * batch, k = w->inputs;
    const int64_t wide = m->wide;
    const fl_view x = fl_job_input(job, s->layer, s->s0);
    const void *mask = job->call->masks ? job->call->masks[w - m->layers].mask_x : NULL;
    fl_pace pace = fl_pace_of(job->stop, 0, (double)(k + wide));
    for (int64_t i = 0; i < rows && !fl_pace_step(&pace); i++) {
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
    const fl_matmul gemm = {.dtype = m->spec.dtype,
                          .trans_b = 1,
                          .m = rows,
                          .n = wide,
                          .k = k,
                          .a = job->gather,
                          .b = w->blocked_x,
                          .c = job->pre[d],
                          .lda = k,
                          .ldb = k,
                          .ldc = wide,
                          .beta = 1};
    fl_pieces_gemm(job->call->blas, &gemm, job->stop);
}

/* With a reverse direction the chunk is the whole sequence, and so is what is hoisted. */
static void forward_by_blas(fl_job *job)
{
    const fl_team_work zero = {.fn = zero_worker, .arg = job, .stop = job->stop};
    fl_team_do(job->workers, &zero);
    for (int64_t s0 = 0; s0 < job->longest; s0 += job->plan.chunk) {
        fl_stretch s = {job, 0, s0, s0 + job->plan.chunk < job->longest ? s0 + job->plan.chunk : job->longest};
        for (; s.layer < job->m->spec.num_layers; s.layer++) {
            for (int d = 0; d < job->m->spec.directions; d++) blas_inputs(&s, d);
            if (fl_stopped(job->stop)) return;
            const fl_team_work work = {.fn = stretch_worker, .arg = &s, .begin = start_stretch, .stop = job->stop};
            fl_team_do(job->workers, &work);
        }
    }
}

/* --- entry */

static void start_state(const fl_model *m, const fl_call *call, fl_stop *stop)
{
    const size_t rows = (size_t)(m->spec.num_layers * m->spec.directions * call->batch) * (size_t)m->unit;
    const size_t h = rows * (size_t)m->recurrent, c = rows * (size_t)m->cells;
    fl_stop_fill(stop, call->hn, call->h0, h);
    if (m->cells) fl_stop_fill(stop, call->cn, call->c0, c);
}

/* The judges of the halves have seen what the team's has not, as long as there were two workers to a half. */
static void take_over(fl_job *job)
{
    const fl_judge *half = job->half_judge[1].fell > job->half_judge[0].fell ? &job->half_judge[1] : job->half_judge;
    const int asked = job->judge.asked;
    if (!job->halves || job->judge.fell) return;
    if (half->fell || job->workers > 2) job->judge = *half;
    job->judge.workers = job->workers;
    job->judge.asked = asked;
}

static void run(fl_job *job)
{
    const double flops = fl_model_flops(job->m), most = (double)job->call->steps * (double)job->call->batch;
    const int several = job->plan.threads > 1;
    const fl_judge_key key = several ? fl_call_key(job->m, job->call, &job->plan, 0) : 0;
    job->flop_ns = most > 0 ? job->plan.work_ns / (flops * most) : 0;
    job->workers = 1;
    fl_barrier team, half[2]; /* not cleared: most calls need little of them */
    if (several) {
        fl_judge_begin(&job->judge, key, job->plan.threads);
        job->workers = job->judge.workers;
        job->team = &team;
        job->half = half;
        fl_barrier_init(&team, job->workers, &job->judge);
        fl_barrier_stop(&team, job->stop, 0);
        for (int i = 0; i < 2 && job->m->spec.directions == 2; i++) {
            fl_barrier_init(&half[i], job->workers, &job->half_judge[i]);
            fl_barrier_stop(&half[i], job->stop, i == 0 ? 0 : -1); /* the caller's thread is in the first half */
        }
    }
    const fl_team_work work = {.fn = forward_worker, .arg = job, .begin = start_judges,
                               .awake_ns = job->call->awake_ns, .stop = job->stop};
    if (job->plan.blas) {
        const unsigned saved = fl_float_enter(); /* the products are this thread's, outside teams */
        forward_by_blas(job);
        fl_float_leave(saved);
    } else
        fl_team_do(job->workers, &work);
    if (!several || fl_stopped(job->stop)) return; /* what did not end has no time */
    double rows = 0;
    for (int64_t r = 0; r < job->call->batch; r++) rows += (double)job->order.length[r];
    const double plan_ns = rows * flops * job->flop_ns;
    const int whole = !job->plan.blas; /* else part of the time was BLAS's, and nothing is learnt from the rest */
    if (whole && job->plan.split == FL_SPLIT_ROWS) fl_judge_work(&job->judge, plan_ns, 0); /* it had no barriers */
    take_over(job);
    fl_judge_end(&job->judge, key, whole ? plan_ns : 0);
}

enum fl_status fl_forward(const fl_model *m, const fl_call *call)
{
    enum fl_status status = fl_call_check(m, call);
    if (status != FL_OK) return status;
    fl_stop stop;
    fl_job job = {.m = m, .call = call, .stop = fl_stop_begin(&stop, call->poll, call->poll_data)};
    status = fl_plan_call(m, call->steps, call->batch, call->threads, call->awake_ns > 0, &job.plan);
    if (status != FL_OK) return status;
    if (job.plan.blas && !fl_call_has_blas(m, call)) return FL_ERR_BLAS;
    fl_arena arena = {.base = call->workspace};
    lay_out(&job, &arena);
    status = fl_arena_check(&arena, call->workspace_bytes);
    if (status == FL_OK) status = fl_forward_arrays(m, call, arena.used);
    if (status != FL_OK) return status;

    start_state(m, call, job.stop);
    if (fl_stopped(job.stop)) return FL_ERR_STOPPED;
    fl_order_make((int64_t *)job.order.row, (int64_t *)job.order.length, call->lengths, call->steps, call->batch);
    job.longest = call->batch ? job.order.length[0] : 0;
    if (call->cache) job.cache = fl_cache_layout_of(m, call->steps, call->batch, fl_cache_flags(m, call));
    job.turn = fl_snake(m, job.longest);
    job.free = call->masks || m->zones[0] || m->zones[1];
    job.more = job.free || m->keeps || m->side || m->depth || m->spec.proj_size;
    memset((void *)job.zeros, 0, (size_t)((m->cells > m->spec.hidden_size ? m->cells : m->spec.hidden_size) * m->unit));
    run(&job);
    return fl_stopped(job.stop) ? FL_ERR_STOPPED : FL_OK;
}
