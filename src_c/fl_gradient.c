/* Backward through time for one stretch: the recurrence, step by step. */
#include "fl_walk.h"

#include <string.h>

#include "fl_layer.h"
#include "fl_turn.h"

static char *state_row(const fl_walk *w, const void *state, int64_t b, int64_t width)
{
    const fl_model *m = w->job->m;
    const int64_t slot = w->s->layer * m->spec.directions + w->s->dir;
    return state ? (char *)state + (slot * w->job->call->batch + b) * width * m->unit : NULL;
}

static fl_back_rows lists_of(const fl_walk *w)
{
    const int64_t n = w->job->strip;
    const void **q = w->pointers;
    void **v = (void **)(q + 12 * n);
    return (fl_back_rows){q,         q + n,     q + 2 * n, q + 3 * n,  q + 4 * n, q + 5 * n, q + 6 * n,
                          q + 7 * n, q + 8 * n, q + 9 * n, q + 10 * n, q + 11 * n, v,        v + n,
                          v + 2 * n, v + 3 * n, v + 4 * n, v + 5 * n, v + 6 * n};
}

/* Its masks, and what its product saw: one mate makes each row of that. */
static void point_masks(const fl_walk *w, const fl_back_rows *l, int64_t i, int64_t q, int64_t b, int64_t t)
{
    fl_back *job = w->job;
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const int64_t slot = w->s->layer * m->spec.directions + w->s->dir, r = w->row0 + i * w->row_step;
    l->zone_h[i] = fl_zone_row(m, call, slot, 0, t, b);
    l->zone_c[i] = fl_zone_row(m, call, slot, 1, t, b);
    l->mask_h[i] = NULL;
    if (!call->masks) return;
    const fl_masks *masks = &call->masks[slot];
    l->mask_g[i] = fl_mask_row(m, masks->mask_g, t * call->batch + b, m->spec.hidden_size);
    if (!masks->mask_h) return;
    char *to = job->h_masked + q * m->recurrent * m->unit;
    l->mask_h[i] = fl_mask_row(m, masks->mask_h, b, m->recurrent);
    if (i % w->mates == w->mate) m->real->mul(l->h_prev[i], l->mask_h[i], to, m->recurrent);
    l->seen[i] = to;
    l->through[i] = job->dh_masked + r * m->recurrent * m->unit;
}

/* What the products over all steps will read of row q: the shared lists need one writer. */
static void note(const fl_walk *w, const fl_back_rows *l, int64_t i, int64_t q, int64_t b, int64_t t)
{
    fl_back *job = w->job;
    const fl_model *m = job->m;
    const fl_packed *p = fl_walk_weights(w);
    if (w->mate) return;
    job->batch_row[q] = b;
    if (w->s->dx.data) job->dx[q] = fl_at(&w->s->dx, t, b);
    if (m->spec.cell == FL_CELL_CLOCKWORK) return; /* each module has lists of its own */
    job->g[q] = (char *)l->dgates[i] + p->x_first * m->unit;
    job->x[q] = fl_at(&w->s->x, t, b);
    job->h[q] = l->seen[i];
    if (m->body == FL_BODY_GRU_NEW) job->heard[q] = (const char *)l->gates[i] + 3 * m->spec.hidden_size * m->unit;
    if (m->fed) job->fed[q] = (const char *)l->c_prev[i] + m->spec.hidden_size * m->unit;
    if (m->spec.proj_size) job->m_rows[q] = l->m_rows[i];
}

/* Where row i of the strip finds its operands at step s; q0: the number of this step's first row. */
static void point(const fl_walk *w, const fl_back_rows *l, int64_t i, int64_t s, int64_t q0)
{
    fl_back *job = w->job;
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const int64_t batch = call->batch, hidden = m->spec.hidden_size, unit = m->unit;
    const int64_t r = w->row0 + i * w->row_step, q = q0 + r, b = job->order.row[r];
    const int64_t t = fl_time(w->s->dir, s, job->order.length[r]), before = w->s->dir ? t + 1 : t - 1;
    const int cut = fl_cut(call->reset, w->s->dir, s, t, b, batch);
    const char *h0 = state_row(w, call->h0, b, m->recurrent);

    l->gates[i] = (char *)call->cache + w->s->cache.gates + (t * batch + b) * m->kept * unit;
    l->h_prev[i] = cut || (s == 0 && !h0) ? job->zeros : s == 0 ? h0 : fl_at(&w->s->y, before, b);
    l->seen[i] = l->h_prev[i];
    l->dy[i] = fl_at(&w->s->dy, t, b);
    l->dh[i] = state_row(w, job->back->dh0, b, m->recurrent);
    l->dgates[i] = job->dgates + q * m->gradient_stride * unit;
    if (m->cells) {
        char *cells = (char *)call->cache + w->s->cache.c;
        const char *c0 = state_row(w, call->c0, b, m->cells);
        l->c[i] = cells + (t * batch + b) * m->cells * unit;
        l->c_prev[i] =
            cut || (s == 0 && !c0) ? job->zeros : s == 0 ? c0 : cells + (before * batch + b) * m->cells * unit;
        l->dc[i] = state_row(w, job->back->dc0, b, m->cells);
    }
    if (m->spec.proj_size) l->m_rows[i] = job->cell_out + q * hidden * unit;
    if (job->dheard) l->dheard[i] = job->dheard + r * hidden * unit;
    if (w->s->lower.data) l->lower[i] = fl_at(&w->s->lower, t, b);
    if (w->s->dlower.data) l->dlower[i] = fl_at(&w->s->dlower, t, b);
    if (w->s->dupper.data) l->dupper[i] = fl_at(&w->s->dupper, t, b);
    if (job->free) point_masks(w, l, i, q, b, t);
    note(w, l, i, q, b, t);
}

static void product(const fl_walk *w, int64_t rows, const void *const *a, int64_t k, const void *panel, int64_t columns,
                    int64_t block0, int64_t block1, int accumulate, void *const *out)
{
    const fl_product_args args = {
        .rows = rows,
        .k = k,
        .columns = columns,
        .block0 = block0,
        .block1 = block1,
        .vectors = FL_PANEL_VECTORS,
        .a = a,
        .panel = panel,
        .accumulate = accumulate,
        .out = out,
    };
    fl_pieces_product(w->job->m->real, &args, &w->pieces);
}

/* dh of the projected output, kept for weight_hr's gradient; then that of the cell's output, in dcell_out. */
static void through_projection(const fl_walk *w, const fl_back_rows *l, int64_t rows, int64_t q0, int64_t s)
{
    fl_back *job = w->job;
    const fl_model *m = job->m;
    const int64_t pr = m->spec.proj_size, hidden = m->spec.hidden_size;
    const double limit = m->spec.options.proj_clip;
    for (int64_t i = w->mate; i < rows; i += w->mates) {
        char *dh = job->dh + (q0 + w->row0 + i * w->row_step) * pr * m->unit;
        const void *k = job->free ? l->zone_h[i] : NULL;
        m->real->add(l->dy[i], l->dh[i], dh, pr);
        if (!k && !(limit > 0)) continue;
        const int64_t r = w->row0 + i * w->row_step, b = job->order.row[r];
        const int64_t t = fl_time(w->s->dir, s, job->order.length[r]);
        const fl_blend_grad_args blend = {k,         l->h_prev[i], fl_at(&w->s->y, t, b),
                                          dh,        l->dh[i],     limit > 0 ? limit : (double)INFINITY, pr};
        m->real->blend_grad(&blend);
    }
    fl_barrier_wait(job->team, w->mate, w->mates);
    const void **a = l->dy; /* dy is used up: from here on the list is that of dh, then of dcell_out */
    void **out = l->dgates; /* filled again below */
    for (int64_t i = 0; i < rows; i++) {
        const int64_t r = w->row0 + i * w->row_step;
        a[i] = job->dh + (q0 + r) * pr * m->unit;
        out[i] = job->dcell_out + r * hidden * m->unit;
    }
    product(w, rows, a, pr, fl_walk_weights(w)->panel_rt, hidden, w->m_block0, w->m_block1, 0, out);
    fl_barrier_wait(job->team, w->mate, w->mates);
    for (int64_t i = 0; i < rows; i++) {
        const int64_t r = w->row0 + i * w->row_step;
        a[i] = out[i];
        out[i] = job->dgates + (q0 + r) * m->gradient_stride * m->unit;
    }
}

/* Rows whose state was zeroed before this step hand nothing further back. */
static void cut_rows(const fl_walk *w, const fl_back_rows *l, int64_t rows, int64_t s)
{
    const fl_back *job = w->job;
    const fl_model *m = job->m;
    const int64_t block = FL_PANEL_VECTORS * m->width, first = w->h_block0 * block;
    const int64_t end = w->h_block1 * block < m->recurrent ? w->h_block1 * block : m->recurrent;
    if (!job->call->reset) return;
    const int64_t c0 = w->mates == 1 ? 0 : w->unit0, c1 = w->mates == 1 ? m->cells : w->unit1;
    for (int64_t i = 0; i < rows; i++) {
        const int64_t r = w->row0 + i * w->row_step, b = job->order.row[r];
        const int64_t t = fl_time(w->s->dir, s, job->order.length[r]);
        if (!fl_cut(job->call->reset, w->s->dir, s, t, b, job->call->batch)) continue;
        if (m->cells && c1 > c0) memset((char *)l->dc[i] + c0 * m->unit, 0, (size_t)((c1 - c0) * m->unit));
        if (end > first) memset((char *)l->dh[i] + first * m->unit, 0, (size_t)((end - first) * m->unit));
    }
}

/* --- the parts of a step, last first */

/* For a part: gradients of sums from that of h; of a GRU that resets before its product, the product in between. */
static void cell_grads(const fl_walk *w, const fl_back_rows *l, int64_t rows, const fl_cell_grad_args *args)
{
    fl_back *job = w->job;
    const fl_model *m = job->m;
    const fl_packed *p = fl_walk_weights(w);
    const int64_t H = m->spec.hidden_size, of = (w->unit1 - w->unit0) * m->unit;
    if (m->row_body) {
        m->real->row_grad[m->body - FL_BODY_COUNT](args);
        return;
    }
    fl_cell_grad_args a = *args;
    m->real->cell_grad[fl_body_for(p->part[p->part_count - 1].body, job->free)](&a);
    if (p->part_count == 1) return;
    if (m->depth) {
        m->real->cell_grad[FL_BODY_DEPTH](&a);
        return;
    }
    fl_barrier_wait(job->team, w->mate, w->mates);
    const void *const *dn =
        fl_rows_at(m, (const void **)l->m_rows, (const void *const *)l->dgates, rows, 2 * H); /* no projection: free */
    product(w, rows, dn, H, p->panel_nt, H, w->m_block0, w->m_block1, 0, l->dheard);
    const int masked = rows && job->free && l->mask_h[0];
    if (masked) /* what h got by way of it passes the mask with the rest */
        for (int64_t i = 0; i < rows && of > 0; i++)
            memset((char *)l->through[i] + w->unit0 * m->unit, 0, (size_t)of);
    fl_barrier_wait(job->team, w->mate, w->mates);
    a.carry = masked ? l->through : l->dh;
    m->real->cell_grad[FL_BODY_GRU_RESET](&a);
}

/* dh of the step before: through the products, the mask of h, and what passes them by. */
static void state_grads(const fl_walk *w, const fl_back_rows *l, int64_t rows, int carries)
{
    fl_back *job = w->job;
    const fl_model *m = job->m;
    const fl_packed *p = fl_walk_weights(w);
    if (m->truncated) {
        for (int64_t i = 0; i < rows; i++) {
            memset(l->dh[i], 0, (size_t)(m->recurrent * m->unit));
            memset((char *)l->dc[i] + m->spec.hidden_size * m->unit, 0, (size_t)(m->fed * m->unit));
        }
        return;
    }
    const int masked = rows && job->free && l->mask_h[0], heard = m->body == FL_BODY_GRU_NEW;
    const void *const *a = fl_rows_at(m, l->gates, (const void *const *)l->dgates, rows, p->h_first);
    product(w, rows, a, p->h_rows, p->panel_ht, m->recurrent, w->h_block0, w->h_block1, masked ? heard : carries,
            masked ? l->through : l->dh);
    if (masked) {
        const int64_t block = FL_PANEL_VECTORS * m->width, first = w->h_block0 * block * m->unit;
        const int64_t left = m->recurrent - w->h_block0 * block, own = (w->h_block1 - w->h_block0) * block;
        const int64_t n = own < left ? own : left;
        for (int64_t i = 0; i < rows && n > 0; i++) {
            char *d = (char *)l->through[i] + first, *dh = (char *)l->dh[i] + first;
            m->real->mul(d, (const char *)l->mask_h[i] + first, carries ? d : dh, n);
            if (carries) m->real->add(d, dh, dh, n);
        }
    }
    if (m->fed) {
        void **to = (void **)l->c_prev; /* used up */
        for (int64_t i = 0; i < rows; i++) to[i] = (char *)l->dc[i] + m->spec.hidden_size * m->unit;
        const void *const *from = fl_rows_at(m, l->gates, (const void *const *)l->dgates, rows, p->fed_first);
        product(w, rows, from, p->fed_rows, p->panel_ft, m->fed, 0, fl_plain_blocks(m->fed, m->width), 0, to);
    }
}

/* `rows` rows of step s, at most a strip.  What a worker reads of others is of these rows, so all meet between the
 * halves of the work, but not after it. */
static void one_strip(const fl_walk *w, int64_t s, int64_t rows, int64_t q0)
{
    fl_back *job = w->job;
    const fl_model *m = job->m;
    const fl_back_rows l = lists_of(w);
    for (int64_t i = 0; i < rows; i++) point(w, &l, i, s, q0);
    if (m->spec.cell == FL_CELL_CLOCKWORK) {
        fl_clockwork_grads(w, &l, s, rows, q0);
        for (int64_t i = 0; i < rows; i++) memset(l.dc[i], 0, (size_t)(m->cells * m->unit)); /* of a count: none */
        cut_rows(w, &l, rows, s);
        return;
    }
    const int projected = m->spec.proj_size != 0;
    const fl_masks *masks = job->call->masks ? &job->call->masks[fl_walk_weights(w) - m->layers] : NULL;
    const void *const *zone_h = rows && job->free && l.zone_h[0] ? l.zone_h : NULL;
    if (projected) through_projection(w, &l, rows, q0, s);
    const fl_cell_grad_args cell = {
        .rows = rows,
        .hidden = m->spec.hidden_size,
        .unit0 = w->unit0,
        .unit1 = w->unit1,
        .gates = l.gates,
        .h_prev = l.h_prev,
        .carry = l.dh,
        .c_prev = l.c_prev,
        .c = l.c,
        .dh = l.dy,
        .dh_add = projected ? NULL : (const void *const *)l.dh,
        .dc = l.dc,
        .dgates = l.dgates,
        .h = projected ? l.m_rows : NULL,
        .options = &fl_walk_weights(w)->options,
        .mask_g = masks && masks->mask_g ? l.mask_g : NULL,
        .zoneout_h = projected ? NULL : zone_h,
        .zoneout_c = rows && job->free && l.zone_c[0] ? l.zone_c : NULL,
        .lower = w->s->lower.data ? l.lower : NULL,
        .dc_add = w->s->dupper.data ? l.dupper : NULL,
        .dlower = w->s->dlower.data ? l.dlower : NULL,
        .seen = l.seen,
        .dheard = (const void *const *)l.dheard,
    };
    cell_grads(w, &l, rows, &cell);
    fl_barrier_wait(job->team, w->mate, w->mates);
    state_grads(w, &l, rows, m->carries || zone_h);
    cut_rows(w, &l, rows, s);
}

/* Strip after strip of the `mine` rows that this worker has of `all` at step s; without any, a clockwork still counts
 * the rows of the others. */
static void one_step(fl_walk *w, int64_t s, int64_t mine, int64_t all, int64_t q0)
{
    const int64_t begin = w->row0, strip = w->job->strip;
    w->count1 = 0;
    for (int64_t first = 0; first < mine || (first == 0 && w->counts); first += strip) {
        const int64_t end = first + strip < mine ? first + strip : mine;
        w->row0 = begin + first * w->row_step;
        w->count0 = w->count1;
        w->count1 = end < mine ? begin + end * w->row_step : all;
        one_strip(w, s, end - first, q0);
    }
    w->row0 = begin;
}

/* Shares of one of `mates` workers that go over the same rows. */
static void share(fl_walk *w, int mate, int mates)
{
    const fl_model *m = w->job->m;
    const int64_t hidden = m->spec.hidden_size, width = m->width;
    const int64_t h_blocks = fl_plain_blocks(m->recurrent, width), m_blocks = fl_plain_blocks(hidden, width);
    const int64_t unit1 = fl_share(m->blocks, mate + 1, mates) * m->block_units;
    w->mate = mate;
    w->mates = mates;
    w->unit0 = fl_share(m->blocks, mate, mates) * m->block_units;
    w->unit1 = unit1 < hidden ? unit1 : hidden;
    w->h_block0 = fl_share(h_blocks, mate, mates);
    w->h_block1 = fl_share(h_blocks, mate + 1, mates);
    w->m_block0 = fl_share(m_blocks, mate, mates);
    w->m_block1 = fl_share(m_blocks, mate + 1, mates);
}

int fl_back_recurrence(fl_back *job, const fl_back_stretch *s, int worker, int workers)
{
    const fl_model *m = job->m;
    const int by_rows = job->plan.split == FL_SPLIT_ROWS || workers == 1;
    fl_walk w = {
        .job = job,
        .s = s,
        .row0 = by_rows ? worker : 0,
        .row_step = by_rows ? workers : 1,
        .pointers = job->pointers + worker * fl_back_pointers(job),
        .counts = job->counts ? job->counts + worker * m->layers[0].part_count : NULL,
        .pieces = fl_back_pieces(job, worker),
    };
    share(&w, by_rows ? 0 : worker, by_rows ? 1 : workers);
    if (w.counts) memset(w.counts, 0, (size_t)m->layers[0].part_count * sizeof *w.counts);
    const double row_ns = fl_back_step_ns(job, s);
    fl_pace pace = fl_pace_of(job->stop, worker, row_ns * (double)job->call->batch / workers);
    int64_t q = 0;
    for (int64_t step = s->s1 - 1; step >= s->s0; step--) {
        if (fl_pace_step(&pace) && w.mates == 1) return workers == 1 || !by_rows ? 0 : workers;
        const int64_t all = fl_back_active(job, step);
        const int64_t mine = all > w.row0 ? (all - w.row0 + w.row_step - 1) / w.row_step : 0;
        one_step(&w, step, mine, all, q);
        q += all;
        if (w.mates == 1) continue;
        const int left = fl_barrier_judge(job->team, worker, w.mates, row_ns * (double)all);
        if (worker >= left) return left;
        if (left < w.mates) share(&w, worker, left);
    }
    fl_pace_end(&pace);
    return by_rows ? workers : w.mates;
}
