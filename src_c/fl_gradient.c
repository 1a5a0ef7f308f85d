/* Backward through time for one stretch: the recurrence, step by step. */
#include "fl_walk.h"

#include <string.h>

#include "fl_layer.h"
#include "fl_turn.h"

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

/* dh of the projected output, kept for weight_hr's gradient; then that of the cell's output, in spare[1]. */
static void through_projection(const fl_walk *w, const fl_back_rows *l, int64_t rows, int64_t q0, int64_t s)
{
    fl_back *job = w->job;
    const fl_model *m = job->m;
    const int64_t pr = m->spec.proj_size, hidden = m->spec.hidden_size;
    const double limit = m->spec.options.proj_clip;
    for (int64_t i = w->mate; i < rows; i += w->mates) {
        char *dh = job->dh + (q0 + w->row0 + i * w->row_step) * pr * m->unit;
        const void *k = l->zone_h ? l->zone_h[i] : NULL;
        m->real->add(l->dy[i], l->dh[i], dh, pr);
        if (!k && !(limit > 0)) continue;
        const int64_t r = w->row0 + i * w->row_step, b = job->order.row[r];
        const int64_t t = fl_time(w->s->dir, s, job->order.length[r]);
        const fl_blend_grad_args blend = {k,         l->h_prev[i], fl_at(&w->s->y, t, b),
                                          dh,        l->dh[i],     limit > 0 ? limit : (double)INFINITY, pr};
        m->real->blend_grad(&blend);
    }
    fl_barrier_wait(job->team, w->mate, w->mates);
    const int64_t step = w->row_step * m->unit;
    const void **dh = l->spare[0], **dcell_out = l->spare[1];
    fl_list_even(dh, job->dh + (q0 + w->row0) * pr * m->unit, step * pr, rows);
    fl_list_even(dcell_out, job->dcell_out + w->row0 * hidden * m->unit, step * hidden, rows);
    product(w, rows, dh, pr, fl_walk_weights(w)->panel_rt, hidden, w->m_block0, w->m_block1, 0, (void **)dcell_out);
    fl_barrier_wait(job->team, w->mate, w->mates);
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
        fl_rows_at(m, l->spare[0], (const void *const *)l->dgates, rows, 2 * H);
    product(w, rows, dn, H, p->panel_nt, H, w->m_block0, w->m_block1, 0, l->dheard);
    const int masked = l->mask_h != NULL;
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
    const int masked = l->mask_h != NULL, heard = m->body == FL_BODY_GRU_NEW;
    const void *const *a = fl_rows_at(m, l->spare[0], (const void *const *)l->dgates, rows, p->h_first);
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
        void **to = (void **)l->spare[1];
        for (int64_t i = 0; i < rows; i++) to[i] = (char *)l->dc[i] + m->spec.hidden_size * m->unit;
        const void *const *from = fl_rows_at(m, l->spare[0], (const void *const *)l->dgates, rows, p->fed_first);
        product(w, rows, from, p->fed_rows, p->panel_ft, m->fed, 0, fl_plain_blocks(m->fed, m->width), 0, to);
    }
}

/* `rows` rows of step s, at most a strip.  What a worker reads of others is of these rows, so all meet between the
 * halves of the work, but not after it. */
static void one_strip(fl_walk *w, int64_t s, int64_t rows, int64_t q0)
{
    fl_back *job = w->job;
    const fl_model *m = job->m;
    const fl_back_rows l = w->lists;
    fl_walk_point(w, s, rows, q0);
    if (m->spec.cell == FL_CELL_CLOCKWORK) {
        fl_clockwork_grads(w, &l, s, rows, q0);
        for (int64_t i = 0; i < rows; i++) memset(l.dc[i], 0, (size_t)(m->cells * m->unit)); /* of a count: none */
        cut_rows(w, &l, rows, s);
        return;
    }
    const int projected = m->spec.proj_size != 0;
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
        .dh = projected ? l.spare[1] : l.dy,
        .dh_add = projected ? NULL : (const void *const *)l.dh,
        .dc = l.dc,
        .dgates = l.dgates,
        .h = projected ? l.m_rows : NULL,
        .options = &fl_walk_weights(w)->options,
        .mask_g = l.mask_g,
        .zoneout_h = projected ? NULL : l.zone_h,
        .zoneout_c = l.zone_c,
        .lower = w->s->lower.data ? l.lower : NULL,
        .dc_add = w->s->dupper.data ? l.dupper : NULL,
        .dlower = w->s->dlower.data ? l.dlower : NULL,
        .seen = l.seen,
        .dheard = (const void *const *)l.dheard,
    };
    cell_grads(w, &l, rows, &cell);
    fl_barrier_wait(job->team, w->mate, w->mates);
    state_grads(w, &l, rows, m->carries || l.zone_h);
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
        if (end - first < mine) w->pointed = -1; /* several strips share the lists */
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
    fl_walk_begin(&w);
    if (w.counts) memset(w.counts, 0, (size_t)m->layers[0].part_count * sizeof *w.counts);
    const double row_ns = fl_back_step_ns(job, s);
    fl_pace pace = fl_pace_of(job->stop, worker, row_ns * (double)job->call->batch / workers);
    int64_t q = 0, all = 0; /* rows that have the step: the first ones, because lengths fall */
    for (int64_t step = s->s1 - 1; step >= s->s0; step--) {
        if (fl_pace_step(&pace) && w.mates == 1) return workers == 1 || !by_rows ? 0 : workers;
        while (all < job->call->batch && job->order.length[all] > step) all++;
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
