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

/* --- the lists of a pass */

/* What most layers do without. */
static void add_more(fl_pass *p)
{
    const fl_job *job = p->job;
    const fl_model *m = job->m;
    const fl_rows *l = &p->lists;
    const int64_t hidden = m->spec.hidden_size, unit = m->unit;
    if (m->keeps && !job->call->cache)
        fl_lists_add(p->views, l->gates, fl_view_still(job->kept[p->dir], m->kept, unit));
    if (m->side) fl_lists_add(p->views, l->side, fl_view_still(job->side[p->dir], m->side, unit));
    if (p->lower.data) fl_lists_add(p->views, l->lower, p->lower);
    if (m->spec.proj_size) fl_lists_add(p->views, l->cell_out, fl_view_still(job->cell_out[p->dir], hidden, unit));
    if (job->free) fl_lists_add_masks(p->views, m, job->call, p->slot, l->zone_h, l->zone_c, l->mask_g);
}

enum { NOT_POINTED = -2 }; /* the step before none */

void fl_pass_begin(fl_pass *p, int64_t span)
{
    const fl_job *job = p->job;
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const fl_rows *l = &p->lists;
    const fl_view cn = fl_view_still(m->cells ? fl_pass_state(p, call->cn, 0, m->cells) : NULL, m->cells, m->unit);
    p->views->count = 0;
    p->pointed = NOT_POINTED;
    p->alters = call->reset || (call->masks && call->masks[p->slot].mask_h);
    fl_lists_add(p->views, l->y, p->y);
    if (m->cells) fl_lists_add(p->views, l->c, p->c.data ? p->c : cn);
    if (!span) fl_lists_add(p->views, l->x, p->x);
    if (call->cache) {
        char *gates = (char *)call->cache + p->cache.gates;
        fl_lists_add(p->views, l->gates, fl_view_dense(gates, call->batch, m->kept, m->unit, 0));
    }
    if (job->more) add_more(p);
}

/* Rows whose state is zeroed before a step. */
static void point_cuts(const fl_pass *p, int64_t row0, int64_t n, int64_t s)
{
    const fl_job *job = p->job;
    for (int64_t i = 0; i < n; i++) {
        const int64_t r = row0 + i * p->row_step, b = job->order.row[r];
        const int64_t t = fl_time(p->dir, s, job->order.length[r]);
        if (!fl_cut(job->call->reset, p->dir, s, t, b, job->call->batch)) continue;
        p->lists.h_prev[i] = p->lists.c_prev[i] = job->zeros;
    }
}

/* h times its mask, where the products find it. */
static void mask_h(const fl_pass *p, const void *mask, int64_t row0, int64_t n)
{
    const fl_model *m = p->job->m;
    for (int64_t i = 0; i < n; i++) {
        char *to = p->masked + i * m->recurrent * m->unit;
        const int64_t b = p->job->order.row[row0 + i * p->row_step];
        m->real->mul(p->lists.h_prev[i], fl_mask_row(m, mask, b, m->recurrent), to, m->recurrent);
        p->lists.h[i] = to;
    }
}

static int64_t by(const fl_pass *p, const fl_list *list) { return p->dir ? -list->of.step : list->of.step; }

/* From the rows of the step before, which wrote what is now the state.  c that has no step stays where it is. */
static void move_lists(fl_pass *p, int64_t n)
{
    const fl_list *y = p->views->list, *c = y + 1, *end = y + p->views->count;
    const int cells = p->job->m->cells > 0;
    fl_list_follow(p->lists.h_prev, y->to, by(p, y), n);
    if (p->own_c) fl_list_follow(p->lists.c_prev, c->to, by(p, c), n);
    for (const fl_list *list = y + 1 + cells; list < end; list++)
        if (list->of.step) fl_list_move(list->to, by(p, list), n);
}

/* The state before s0, the first step of this chunk, is in hn and cn, else where the step before wrote it. */
static void fill_lists(fl_pass *p, int64_t row0, int64_t n, int64_t s, int64_t s0)
{
    const fl_job *job = p->job;
    const fl_model *m = job->m;
    const fl_strip strip = {&job->order, p->dir, s, row0, p->row_step, n, 0, 0};
    const fl_list *y = p->views->list, *c = y + 1;
    fl_lists_point(p->views, &strip);
    if (s > s0) {
        fl_list_shift(p->lists.h_prev, y->to, -by(p, y), n);
        if (p->own_c) fl_list_shift(p->lists.c_prev, c->to, -by(p, c), n);
        return;
    }
    const fl_view hn = fl_view_still(fl_pass_state(p, job->call->hn, 0, m->recurrent), m->recurrent, m->unit);
    fl_list_fill(p->lists.h_prev, &hn, &strip, 0);
    if (!p->own_c) return;
    const fl_view cn = fl_view_still(fl_pass_state(p, job->call->cn, 0, m->cells), m->cells, m->unit);
    fl_list_fill(p->lists.c_prev, &cn, &strip, 0);
}

static void alter_state(const fl_pass *p, int64_t row0, int64_t n, int64_t s)
{
    const fl_call *call = p->job->call;
    if (call->reset) point_cuts(p, row0, n, s);
    if (call->masks && call->masks[p->slot].mask_h) mask_h(p, call->masks[p->slot].mask_h, row0, n);
}

int64_t fl_pass_point(fl_pass *p, int64_t first, int64_t rows, int64_t s, int64_t s0, int64_t pre_step)
{
    const fl_model *m = p->job->m;
    const int64_t left = rows - first, n = left < p->job->strip ? left : p->job->strip;
    const int64_t row0 = p->row0 + first * p->row_step;
    if (first == 0 && p->pointed == s - 1)
        move_lists(p, n);
    else
        fill_lists(p, row0, n, s, s0);
    p->pointed = first == 0 ? s : NOT_POINTED;
    if (pre_step >= 0) fl_list_even(p->lists.pre, fl_pass_pre(p, pre_step, row0), p->row_step * m->wide * m->unit, n);
    if (p->alters) alter_state(p, row0, n, s);
    return n;
}
