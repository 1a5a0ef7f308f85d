/* Where the layers of a forward call read and write: the caller's arrays, the cache, what lies between layers. */
#include <string.h>

#include "fl_layer.h"

fl_view fl_job_input(const fl_job *job, int layer, int64_t first)
{
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const int64_t outputs = m->recurrent * m->spec.directions;
    if (layer == 0) return fl_view_of(&call->x, m->unit);
    if (!call->cache) return fl_view_dense(job->between[(layer - 1) % 2], call->batch, outputs, m->unit, first);
    const fl_cache_offsets o = fl_cache_at(&job->cache, layer - 1, 0);
    return fl_view_dense((char *)call->cache + o.input, call->batch, outputs, m->unit, 0);
}

fl_view fl_job_output(const fl_job *job, int layer, int64_t first)
{
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const int64_t outputs = m->recurrent * m->spec.directions;
    if (layer == m->spec.num_layers - 1) return fl_view_of(&call->y, m->unit);
    if (!call->cache) return fl_view_dense(job->between[layer % 2], call->batch, outputs, m->unit, first);
    return fl_view_dense((char *)call->cache + fl_cache_at(&job->cache, layer, 0).y, call->batch, outputs, m->unit, 0);
}

fl_view fl_job_cells(const fl_job *job, int layer, int dir, int64_t first)
{
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    if (!m->cells || layer < 0) return (fl_view){0};
    if (call->cache) {
        const fl_cache_offsets o = fl_cache_at(&job->cache, layer, dir);
        return fl_view_dense((char *)call->cache + o.c, call->batch, m->cells, m->unit, 0);
    }
    if (!m->depth || layer == m->spec.num_layers - 1) return (fl_view){0};
    fl_view v = fl_view_dense(job->between_c[layer % 2], call->batch * m->spec.directions, m->cells, m->unit, first);
    v.data += dir * call->batch * m->cells * m->unit;
    return v;
}

/* In the cache gates, c and the inner layers' y are zero beyond the lengths, like y: a trace shows them.  Of rows
 * [at, at + rows), which count from step 0 on. */
static void zero_cached(const fl_job *job, int64_t at, int64_t rows)
{
    const fl_model *m = job->m;
    const int64_t kept = m->kept * m->unit, cells = m->cells * m->unit;
    const int64_t outputs = m->recurrent * m->spec.directions * m->unit;
    for (int l = 0; l < m->spec.num_layers; l++)
        for (int d = 0; d < m->spec.directions; d++) {
            const fl_cache_offsets o = fl_cache_at(&job->cache, l, d);
            char *cache = job->call->cache;
            memset(cache + o.gates + at * kept, 0, (size_t)(rows * kept));
            if (cells) memset(cache + o.c + at * cells, 0, (size_t)(rows * cells));
            if (d == 0 && o.y != SIZE_MAX) memset(cache + o.y + at * outputs, 0, (size_t)(rows * outputs));
        }
}

/* Rows [b, end) of step t, all beyond their lengths; y NULL: it has been done.  1: the call is to end. */
static int zero_rows(const fl_job *job, const fl_view *y, int64_t t, int64_t b, int64_t end, fl_pace *pace)
{
    const int64_t outputs = job->m->recurrent * job->m->spec.directions * job->m->unit;
    while (b < end) {
        if (fl_pace_step(pace)) return 1;
        const int dense = !y || y->row == outputs;
        const int64_t rows = dense ? 1 + fl_pace_more(pace, end - b - 1) : 1;
        if (y) memset(fl_at(y, t, b), 0, (size_t)(rows * outputs));
        if (job->call->cache) zero_cached(job, t * job->call->batch + b, rows);
        b += rows;
    }
    return 0;
}

/* What lies side by side is zeroed at once: in the cache neighbouring rows of a step, in y these or the steps of a
 * row. */
void fl_job_zero_tails(const fl_job *job, int worker, int workers)
{
    const fl_call *call = job->call;
    const fl_view y = fl_view_of(&call->y, job->m->unit);
    const int64_t batch = call->batch, steps = call->steps, *lengths = call->lengths;
    const int64_t outputs = job->m->recurrent * job->m->spec.directions * job->m->unit;
    const int by_row = y.step == outputs;
    if (!lengths || !batch) return;
    fl_pace pace = fl_pace_of(job->stop, worker, (double)outputs);
    for (int64_t b = worker; by_row && b < batch; b += workers)
        for (int64_t rows, t = lengths[b]; t < steps; t += rows) {
            if (fl_pace_step(&pace)) return;
            rows = 1 + fl_pace_more(&pace, steps - t - 1);
            memset(fl_at(&y, t, b), 0, (size_t)(rows * outputs));
        }
    if (by_row && !call->cache) return;
    for (int64_t t = job->order.length[batch - 1] + worker; t < steps; t += workers)
        for (int64_t end, b = 0; b < batch; b = end) {
            for (; b < batch && lengths[b] > t; b++) continue;
            for (end = b; end < batch && lengths[end] <= t; end++) continue;
            if (zero_rows(job, by_row ? NULL : &y, t, b, end, &pace)) return;
        }
}

void fl_job_drop_out(const fl_job *job, int layer, int64_t s0, int64_t s1, int worker, int workers)
{
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const int64_t outputs = m->recurrent * m->spec.directions;
    const fl_cache_offsets o = fl_cache_at(&job->cache, layer, 0);
    const char *factors = (const char *)call->dropout + (int64_t)layer * call->steps * call->batch * outputs * m->unit;
    fl_pace pace = fl_pace_of(job->stop, worker, (double)outputs);
    for (int64_t r = worker; r < call->batch; r += workers)
        for (int64_t t = s0; t < s1 && t < job->order.length[r] && !fl_pace_step(&pace); t++) {
            const int64_t at = (t * call->batch + job->order.row[r]) * outputs * m->unit;
            m->real->mul((char *)call->cache + o.y + at, factors + at, (char *)call->cache + o.input + at, outputs);
        }
}
