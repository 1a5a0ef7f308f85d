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
    const fl_cache_offsets o = fl_cache_layout(m, call->steps, call->batch, fl_cache_flags(m, call), layer - 1, 0);
    return fl_view_dense((char *)call->cache + o.input, call->batch, outputs, m->unit, 0);
}

fl_view fl_job_output(const fl_job *job, int layer, int64_t first)
{
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const int64_t outputs = m->recurrent * m->spec.directions;
    if (layer == m->spec.num_layers - 1) return fl_view_of(&call->y, m->unit);
    if (!call->cache) return fl_view_dense(job->between[layer % 2], call->batch, outputs, m->unit, first);
    const fl_cache_offsets o = fl_cache_layout(m, call->steps, call->batch, fl_cache_flags(m, call), layer, 0);
    return fl_view_dense((char *)call->cache + o.y, call->batch, outputs, m->unit, 0);
}

fl_view fl_job_cells(const fl_job *job, int layer, int dir, int64_t first)
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

void fl_job_zero_tails(const fl_job *job, int worker, int workers)
{
    const fl_call *call = job->call;
    const fl_view y = fl_view_of(&call->y, job->m->unit);
    const int64_t outputs = job->m->recurrent * job->m->spec.directions * job->m->unit;
    fl_pace pace = fl_pace_of(job->stop, worker, (double)outputs);
    for (int64_t b = worker; call->lengths && b < call->batch; b += workers)
        for (int64_t t = call->lengths[b]; t < call->steps && !fl_pace_step(&pace); t++) {
            memset(fl_at(&y, t, b), 0, (size_t)outputs);
            if (call->cache) zero_cached(job, t, b);
        }
}

void fl_job_drop_out(const fl_job *job, int layer, int64_t s0, int64_t s1, int worker, int workers)
{
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const int64_t outputs = m->recurrent * m->spec.directions;
    const fl_cache_offsets o = fl_cache_layout(m, call->steps, call->batch, fl_cache_flags(m, call), layer, 0);
    const char *factors = (const char *)call->dropout + (int64_t)layer * call->steps * call->batch * outputs * m->unit;
    fl_pace pace = fl_pace_of(job->stop, worker, (double)outputs);
    for (int64_t r = worker; r < call->batch; r += workers)
        for (int64_t t = s0; t < s1 && t < job->order.length[r] && !fl_pace_step(&pace); t++) {
            const int64_t at = (t * call->batch + job->order.row[r]) * outputs * m->unit;
            m->real->mul((char *)call->cache + o.y + at, factors + at, (char *)call->cache + o.input + at, outputs);
        }
}
