/* A backward call: layers from the last to the first, directions in turn, time in chunks from the end.
 *
 * dh0 and dc0 are the running gradients of the state: filled from dhn and dcn, walked back through time, and at the
 * end what their names say.
 *
 * Workspace: | order | zeros | pointers (workers) | dgates | dh, cell_out, dcell_out (projection) | between 0 | 1
 *            | gather (BLAS) | lists by q |
 */
#include <string.h>

#include "fl_arrays.h"
#include "fl_gradient.h"

/* What masks, depth gates and the GRU that resets early need beside the rest. */
static void lay_out_options(fl_back *job, fl_arena *arena)
{
    const fl_model *m = job->m;
    const int64_t steps = job->call->steps, batch = job->call->batch, chunk = job->plan.chunk;
    const int64_t hidden = m->spec.hidden_size, outputs = m->recurrent * m->spec.directions;
    const int64_t widest = m->spec.input_size > outputs ? m->spec.input_size : outputs;
    const int masks = job->call->masks != NULL, mask_x = fl_cache_flags(m, job->call) & FL_CACHE_MASK_X;
    job->h_masked = fl_arena_take3(arena, masks ? chunk : 0, batch, m->recurrent, m->unit);
    job->dh_masked = fl_arena_take3(arena, masks ? batch : 0, m->recurrent, 1, m->unit);
    job->dx_masked = fl_arena_take3(arena, mask_x ? chunk : 0, batch, widest, m->unit);
    job->masked_rows = fl_arena_take3(arena, mask_x ? chunk : 0, batch, 1, sizeof(void *));
    const int heard = m->body == FL_BODY_GRU_NEW || m->spec.cell == FL_CELL_CLOCKWORK;
    job->dheard = heard ? fl_arena_take3(arena, batch, hidden, 1, m->unit) : NULL;
    for (int i = 0; i < 2; i++)
        job->dlower[i] = fl_arena_take3(arena, m->depth && m->spec.num_layers > 1 + i ? steps : 0,
                                        batch * m->spec.directions, hidden, m->unit);
    if (!mask_x) job->dx_masked = NULL;
}

static void lay_out(fl_back *job, fl_arena *arena)
{
    const fl_model *m = job->m;
    const int64_t steps = job->call->steps, batch = job->call->batch, hidden = m->spec.hidden_size;
    const int64_t chunk = job->plan.chunk, outputs = m->recurrent * m->spec.directions, pr = m->spec.proj_size;
    const int64_t widest = m->spec.input_size > outputs ? m->spec.input_size : outputs;
    job->strip = fl_strip_rows(&job->plan, batch);
    job->order.row = fl_arena_take(arena, batch, sizeof(int64_t));
    job->order.length = fl_arena_take(arena, batch, sizeof(int64_t));
    job->zeros = fl_arena_take(arena, hidden > m->cells ? hidden : m->cells, m->unit);
    job->pointers = fl_arena_take3(arena, job->plan.threads, fl_back_pointers(job), 1, sizeof(void *));
    job->dgates = fl_arena_take3(arena, chunk, batch, m->gradient_stride, m->unit);
    job->dh = fl_arena_take3(arena, chunk, batch, pr, m->unit);
    job->cell_out = fl_arena_take3(arena, chunk, pr ? batch : 0, hidden, m->unit);
    job->dcell_out = fl_arena_take3(arena, pr ? batch : 0, hidden, 1, m->unit);
    for (int i = 0; i < 2; i++)
        job->between[i] = fl_arena_take3(arena, m->spec.num_layers > 1 + i ? steps : 0, batch, outputs, m->unit);
    lay_out_options(job, arena);
    job->gather = fl_arena_take3(arena, job->plan.blas ? chunk : 0, batch, widest, m->unit);
    const int clockwork = m->spec.cell == FL_CELL_CLOCKWORK;
    const int64_t modules = clockwork ? m->layers[0].part_count : 1;
    job->x = fl_arena_take3(arena, chunk, batch, modules, sizeof(void *));
    job->h = fl_arena_take3(arena, chunk, batch, modules, sizeof(void *));
    job->g = fl_arena_take3(arena, chunk, batch, modules, sizeof(void *));
    job->module_dx = fl_arena_take3(arena, clockwork ? chunk : 0, batch, modules, sizeof(void *));
    job->counts = fl_arena_take3(arena, clockwork ? job->plan.threads : 0, modules, 1, sizeof(int64_t));
    if (!clockwork) job->counts = NULL;
    job->heard = fl_arena_take3(arena, m->body == FL_BODY_GRU_NEW ? chunk : 0, batch, 1, sizeof(void *));
    job->fed = fl_arena_take3(arena, m->fed ? chunk : 0, batch, 1, sizeof(void *));
    job->batch_row = fl_arena_take3(arena, chunk, batch, 1, sizeof(int64_t));
    job->m_rows = fl_arena_take3(arena, chunk, batch, 1, sizeof(void *));
    job->dx = fl_arena_take3(arena, chunk, batch, 1, sizeof(void *));
}

size_t fl_backward_bytes(const fl_model *m, const fl_call *call)
{
    if (!m || !call) return SIZE_MAX;
    fl_back job = {.m = m, .call = call};
    fl_arena arena = {0};
    if (fl_plan_backward(m, call->steps, call->batch, call->threads, &job.plan) != FL_OK) return SIZE_MAX;
    lay_out(&job, &arena);
    return arena.overflow ? SIZE_MAX : arena.used;
}

/* --- the walk */

/* The c of the layer below, and gradients of c between neighbouring layers, all of this direction. */
static void point_depth(const fl_back *job, fl_back_stretch *s)
{
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const int64_t batch = call->batch, hidden = m->spec.hidden_size, all = batch * m->spec.directions;
    const int64_t dir = s->dir * batch * hidden * m->unit;
    if (s->layer) {
        const fl_cache_offsets below = fl_cache_at(&job->cache, s->layer - 1, s->dir);
        s->lower = fl_view_dense((char *)call->cache + below.c, batch, m->cells, m->unit, 0);
        s->dlower = fl_view_dense(job->dlower[(s->layer - 1) % 2] + dir, all, hidden, m->unit, 0);
    }
    if (s->layer < m->spec.num_layers - 1)
        s->dupper = fl_view_dense(job->dlower[s->layer % 2] + dir, all, hidden, m->unit, 0);
}

static fl_back_stretch stretch_of(const fl_back *job, int layer, int dir, int64_t s0, int64_t s1)
{
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const int64_t batch = call->batch, outputs = m->recurrent * m->spec.directions;
    const int last = layer == m->spec.num_layers - 1;
    const int64_t column = dir * m->recurrent * m->unit;
    fl_back_stretch s = {.layer = layer, .dir = dir, .s0 = s0, .s1 = s1};
    s.cache = fl_cache_at(&job->cache, layer, dir);
    if (layer) {
        const fl_cache_offsets below = fl_cache_at(&job->cache, layer - 1, 0);
        s.x = fl_view_dense((char *)call->cache + below.input, batch, outputs, m->unit, 0);
        s.dx = fl_view_dense(job->between[(layer - 1) % 2], batch, outputs, m->unit, 0);
    } else {
        s.x = fl_view_of(&call->x, m->unit);
        s.dx = fl_view_dense(job->back->dx, batch, m->spec.input_size, m->unit, 0);
    }
    s.y = last ? fl_view_of(&call->y, m->unit)
               : fl_view_dense((char *)call->cache + s.cache.y, batch, outputs, m->unit, 0);
    s.dy =
        last ? fl_view_of(&job->back->dy, m->unit) : fl_view_dense(job->between[layer % 2], batch, outputs, m->unit, 0);
    s.y.data += column;
    s.dy.data += column;
    if (call->masks) s.mask_x = call->masks[layer * m->spec.directions + dir].mask_x;
    if (s.mask_x)
        s.x = fl_view_dense((char *)call->cache + s.cache.x, batch, fl_layer_inputs(&m->spec, layer), m->unit, 0);
    if (m->depth) point_depth(job, &s);
    for (int64_t b = 0; b < batch; b++) {
        const int64_t end = job->order.length[b] < s1 ? job->order.length[b] : s1;
        if (end > s0) s.rows += end - s0;
    }
    return s;
}

/* The gradient of a layer's output before dropout: that of its input to the next, times the factors. */
static void undo_dropout(const fl_back *job, int layer, int worker, int workers)
{
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const int64_t batch = call->batch, outputs = m->recurrent * m->spec.directions;
    const char *factors = (const char *)call->dropout + (int64_t)layer * call->steps * batch * outputs * m->unit;
    fl_pace pace = fl_pace_of(job->stop, worker, (double)outputs);
    for (int64_t r = worker; r < batch; r += workers)
        for (int64_t t = 0; t < job->order.length[r] && !fl_pace_step(&pace); t++) {
            const int64_t at = (t * batch + job->order.row[r]) * outputs * m->unit;
            char *d = job->between[layer % 2] + at;
            m->real->mul(d, factors + at, d, outputs);
        }
}

/* First step of the chunk that ends at s1.  Chunks are counted from step 0, so only the last one may be short. */
static int64_t chunk_start(const fl_back *job, int64_t s1) { return (s1 - 1) / job->plan.chunk * job->plan.chunk; }

/* After work of so many ns by the plan, shared by `workers`: how many of them go on.  0: the call is to end. */
static int end_work(fl_back *job, int worker, int workers, double plan_ns, double unseen_ns)
{
    fl_stop_look(job->stop, worker, unseen_ns);
    if (workers == 1 && fl_stopped(job->stop)) return 0;
    return fl_barrier_judge(job->team, worker, workers, plan_ns);
}

/* One stretch; returns how many workers go on after it. */
static int run_stretch(fl_back *job, const fl_back_stretch *s, int worker, int workers)
{
    const int by_rows = job->plan.split == FL_SPLIT_ROWS; /* then its steps had no barrier, nor a judge */
    workers = fl_back_recurrence(job, s, worker, workers);
    if (worker >= workers) return workers;
    const double steps_ns = by_rows ? (double)s->rows * fl_back_step_ns(job, s) : 0;
    workers = end_work(job, worker, workers, steps_ns, 0);
    if (worker >= workers) return workers;
    fl_back_products(job, s, worker, workers);
    const double products_ns = (double)s->rows * fl_back_products_ns(job, s);
    return end_work(job, worker, workers, products_ns, products_ns / workers);
}

static void backward_worker(int worker, int workers, void *arg)
{
    fl_back *job = arg;
    const fl_spec *spec = &job->m->spec;
    for (int l = spec->num_layers - 1; l >= 0; l--) {
        for (int d = 0; d < spec->directions; d++)
            for (int64_t s1 = job->longest; s1 > 0;) {
                const fl_back_stretch s = stretch_of(job, l, d, chunk_start(job, s1), s1);
                workers = run_stretch(job, &s, worker, workers);
                if (worker >= workers) return;
                s1 = s.s0;
            }
        if (l == 0 || !job->call->dropout) continue;
        undo_dropout(job, l - 1, worker, workers);
        fl_barrier_wait(job->team, worker, workers);
    }
}

/* --- by way of BLAS: the recurrence inside regions, the products outside */

typedef struct fl_back_part {
    fl_back *job;
    const fl_back_stretch *s;
    int layer;
} fl_back_part;

static void recurrence_worker(int worker, int workers, void *arg)
{
    const fl_back_part *part = arg;
    fl_back_recurrence(part->job, part->s, worker, workers);
}

static void start_part(int workers, void *arg)
{
    const fl_back_part *part = arg;
    part->job->judge.last = fl_now_ns(); /* BLAS's time is not the team's */
    part->job->judge.workers = workers;
}

static void dropout_worker(int worker, int workers, void *arg)
{
    const fl_back_part *part = arg;
    undo_dropout(part->job, part->layer, worker, workers);
}

static void backward_by_blas(fl_back *job)
{
    const fl_spec *spec = &job->m->spec;
    for (int l = spec->num_layers - 1; l >= 0; l--) {
        for (int d = 0; d < spec->directions; d++)
            for (int64_t s1 = job->longest; s1 > 0;) {
                const fl_back_stretch s = stretch_of(job, l, d, chunk_start(job, s1), s1);
                fl_back_part part = {job, &s, l};
                const fl_team_work work = {
                    .fn = recurrence_worker, .arg = &part, .begin = start_part, .stop = job->stop};
                fl_team_do(job->judge.workers, &work);
                if (fl_stopped(job->stop)) return;
                fl_back_products_blas(job, &s);
                if (fl_stopped(job->stop)) return;
                s1 = s.s0;
            }
        fl_back_part part = {job, NULL, l - 1};
        const fl_team_work work = {.fn = dropout_worker, .arg = &part, .stop = job->stop};
        if (l && job->call->dropout) fl_team_do(job->judge.workers, &work);
    }
}

/* --- entry */

static void start_state(const fl_back *job)
{
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const fl_backward_call *back = job->back;
    const size_t rows = (size_t)(m->spec.num_layers * m->spec.directions * call->batch) * (size_t)m->unit;
    const size_t h = rows * (size_t)m->recurrent, c = rows * (size_t)m->cells;
    fl_stop_fill(job->stop, back->dh0, back->dhn, h);
    if (m->cells) fl_stop_fill(job->stop, back->dc0, back->dcn, c);
}

static void clear_gradients(const fl_back *job)
{
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const fl_backward_call *back = job->back;
    for (int i = 0; i < m->spec.num_layers * m->spec.directions; i++)
        for (int tensor = 0; tensor < FL_TENSORS; tensor++) {
            void *to = fl_gradient_of(&back->gradients[i], tensor);
            const int64_t size = m->layers[i].size[tensor];
            if (to && size) fl_stop_fill(job->stop, to, NULL, (size_t)(size * m->unit));
        }
    if (back->dx && call->lengths) /* padding is never visited: its gradient is zero */
        fl_stop_fill(job->stop, back->dx, NULL, (size_t)(call->steps * call->batch * m->spec.input_size * m->unit));
}

static int gradients_present(const fl_model *m, const fl_backward_call *back)
{
    if (!back || !back->dh0 || (m->cells && !back->dc0) || !back->gradients) return 0;
    for (int i = 0; i < m->spec.num_layers * m->spec.directions; i++)
        for (int tensor = 0; tensor < FL_TENSORS; tensor++) {
            const int own = tensor != FL_BIAS_HH || m->own_bias_hh;
            const int there = fl_gradient_of(&back->gradients[i], tensor) != NULL;
            if (there != (own && m->layers[i].size[tensor] > 0)) return 0;
        }
    return 1;
}

static void start_judge(int workers, void *arg) { ((fl_back *)arg)->judge.workers = workers; }

static void run(fl_back *job)
{
    const double flops = fl_model_flops(job->m);
    const fl_judge_key key = fl_call_key(job->m, job->call, &job->plan, 1);
    const fl_team_work work = {.fn = backward_worker, .arg = job, .begin = start_judge, .stop = job->stop};
    fl_barrier team; /* not cleared: most calls need little of it */
    double rows = 0;
    for (int64_t b = 0; b < job->call->batch; b++) rows += (double)job->order.length[b];
    job->flop_ns = job->plan.work_ns / (2 * flops * (double)job->call->steps * (double)job->call->batch);
    if (job->plan.threads > 1) {
        fl_judge_begin(&job->judge, key, job->plan.threads);
        fl_barrier_init(&team, job->judge.workers, &job->judge);
        fl_barrier_stop(&team, job->stop, 0);
        job->team = &team;
    } else {
        job->judge.workers = 1;
    }
    if (job->plan.blas) {
        const unsigned saved = fl_float_enter(); /* the products are this thread's, outside teams */
        backward_by_blas(job);
        fl_float_leave(saved);
    } else
        fl_team_do(job->judge.workers, &work);
    if (fl_stopped(job->stop)) return; /* what did not end has no time */
    /* where part of the time was BLAS's, nothing is learnt from the rest */
    if (job->plan.threads > 1) fl_judge_end(&job->judge, key, job->plan.blas ? 0 : 2 * flops * rows * job->flop_ns);
}

enum fl_status fl_backward(const fl_model *m, const fl_call *call, const fl_backward_call *back)
{
    enum fl_status status = fl_call_check(m, call);
    if (status != FL_OK) return status;
    if (!(m->spec.flags & FL_MODEL_BACKWARD)) return FL_ERR_BACKWARD;
    if (!gradients_present(m, back)) return FL_ERR_ARGUMENT;
    const int empty = call->steps == 0 || call->batch == 0;
    if (!empty && (!call->cache || !back->dy.data)) return FL_ERR_ARGUMENT;
    fl_stop stop;
    fl_back job = {.m = m, .call = call, .back = back, .stop = fl_stop_begin(&stop, call->poll, call->poll_data)};
    status = fl_plan_backward(m, call->steps, call->batch, call->threads, &job.plan);
    if (status != FL_OK) return status;
    if (job.plan.blas && !fl_call_has_blas(m, call)) return FL_ERR_BLAS;
    fl_arena arena = {.base = call->workspace};
    lay_out(&job, &arena);
    status = fl_arena_check(&arena, call->workspace_bytes);
    if (status == FL_OK) status = fl_backward_arrays(m, call, back, arena.used);
    if (status != FL_OK) return status;

    start_state(&job);
    clear_gradients(&job);
    if (empty || fl_stopped(job.stop)) return fl_stopped(job.stop) ? FL_ERR_STOPPED : FL_OK;
    fl_order_make((int64_t *)job.order.row, (int64_t *)job.order.length, call->lengths, call->steps, call->batch);
    job.longest = job.order.length[0];
    job.cache = fl_cache_layout_of(m, call->steps, call->batch, fl_cache_flags(m, call));
    job.free = call->masks || m->zones[0] || m->zones[1];
    memset((void *)job.zeros, 0, (size_t)((m->cells > m->spec.hidden_size ? m->cells : m->spec.hidden_size) * m->unit));
    run(&job);
    return fl_stopped(job.stop) ? FL_ERR_STOPPED : FL_OK;
}
