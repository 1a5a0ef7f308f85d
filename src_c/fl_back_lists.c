/* Backward through time for one stretch: where the rows of a step find their operands. */
#include "fl_walk.h"

static char *state_row(const fl_walk *w, const void *state, int64_t b, int64_t width)
{
    const fl_model *m = w->job->m;
    const int64_t slot = w->s->layer * m->spec.directions + w->s->dir;
    return state ? (char *)state + (slot * w->job->call->batch + b) * width * m->unit : NULL;
}

/* The masks' lists are NULL where there are no masks. */
static fl_back_rows lists_of(const fl_walk *w)
{
    const fl_back *job = w->job;
    const fl_model *m = job->m;
    const int64_t n = job->strip;
    const fl_masks *masks = job->call->masks ? &job->call->masks[fl_walk_weights(w) - m->layers] : NULL;
    const void **q = w->pointers, **next = q + 12 * n;
    void **v = (void **)(q + 13 * n);
    fl_back_rows l = {.gates = q, .c_prev = q + n, .c = q + 2 * n, .dy = q + 3 * n, .h_prev = q + 4 * n,
                      .x = q + 5 * n, .lower = q + 6 * n, .dupper = q + 7 * n, .seen = q + 4 * n, .dh = v, .dc = v + n,
                      .dgates = v + 2 * n, .m_rows = v + 3 * n, .dlower = v + 4 * n, .dheard = v + 5 * n,
                      .through = v + 6 * n, .dx = v + 7 * n, .spare = {q + 21 * n, q + 22 * n}};
    if (masks && masks->mask_h) {
        l.mask_h = q + 8 * n;
        l.seen = next;
    }
    if (masks && masks->mask_g) l.mask_g = q + 9 * n;
    if (masks ? masks->zoneout_h : m->zones[0]) l.zone_h = q + 10 * n;
    if (masks ? masks->zoneout_c : m->zones[1]) l.zone_c = q + 11 * n;
    return l;
}

void fl_walk_begin(fl_walk *w)
{
    const fl_back *job = w->job;
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const fl_back_stretch *s = w->s;
    const fl_back_rows l = w->lists = lists_of(w);
    const int64_t batch = call->batch, R = m->recurrent, unit = m->unit, slot = fl_walk_weights(w) - m->layers;
    char *cache = call->cache;
    fl_lists *to = &w->views;
    to->count = 0;
    w->pointed = -1;
    fl_lists_add(to, l.gates, fl_view_dense(cache + s->cache.gates, batch, m->kept, unit, 0));
    fl_lists_add(to, l.dy, s->dy);
    fl_lists_add(to, l.x, s->x);
    fl_lists_add(to, l.dh, fl_view_still(state_row(w, job->back->dh0, 0, R), R, unit));
    w->h_before = s->y;
    w->h_before.first = s->dir ? -1 : 1;
    if (m->cells) {
        const fl_view c = fl_view_dense(cache + s->cache.c, batch, m->cells, unit, 0);
        fl_lists_add(to, l.c, c);
        fl_lists_add(to, l.dc, fl_view_still(state_row(w, job->back->dc0, 0, m->cells), m->cells, unit));
        w->c_before = c;
        w->c_before.first = w->h_before.first;
    }
    if (s->dx.data) fl_lists_add(to, l.dx, s->dx);
    if (job->dheard) fl_lists_add(to, l.dheard, fl_view_still(job->dheard, m->spec.hidden_size, unit));
    if (s->lower.data) fl_lists_add(to, l.lower, s->lower);
    if (s->dlower.data) fl_lists_add(to, l.dlower, s->dlower);
    if (s->dupper.data) fl_lists_add(to, l.dupper, s->dupper);
    if (job->free) fl_lists_add_masks(to, m, call, slot, l.zone_h, l.zone_c, l.mask_g);
    if (!l.mask_h) return;
    fl_lists_add(to, l.mask_h, fl_view_still(call->masks[slot].mask_h, R, unit));
    fl_lists_add(to, l.through, fl_view_still(job->dh_masked, R, unit));
}

/* Rows of the state before a step; state: what was given before the first one, or NULL. */
static void point_before(const fl_walk *w, const void **to, const fl_view *before, const void *state, int64_t width,
                         const fl_strip *strip)
{
    const fl_list list = {to, *before};
    const fl_view given = fl_view_still(state_row(w, state, 0, width), width, w->job->m->unit);
    if (strip->s)
        fl_list_point(&list, strip);
    else if (state)
        fl_list_fill(to, &given, strip, 0);
    else
        fl_list_even(to, w->job->zeros, 0, strip->rows);
}

/* Rows whose state was zeroed before a step. */
static void point_cuts(const fl_walk *w, const fl_strip *strip)
{
    const fl_back *job = w->job;
    for (int64_t i = 0; i < strip->rows; i++) {
        const int64_t r = strip->row0 + i * w->row_step, b = job->order.row[r];
        const int64_t t = fl_time(w->s->dir, strip->s, job->order.length[r]);
        if (!fl_cut(job->call->reset, w->s->dir, strip->s, t, b, job->call->batch)) continue;
        w->lists.h_prev[i] = w->lists.c_prev[i] = job->zeros;
    }
}

/* What a product saw of h through its mask: one mate makes each row of that. */
static void mask_h(const fl_walk *w, int64_t q0, int64_t rows)
{
    const fl_model *m = w->job->m;
    const fl_back_rows *l = &w->lists;
    for (int64_t i = 0; i < rows; i++) {
        char *to = w->job->h_masked + (q0 + w->row0 + i * w->row_step) * m->recurrent * m->unit;
        if (i % w->mates == w->mate) m->real->mul(l->h_prev[i], l->mask_h[i], to, m->recurrent);
        l->seen[i] = to;
    }
}

/* to[q], by q, for the rows of the strip: `offset` values behind those of a list. */
static void note(const fl_walk *w, const void **to, const void *const *list, int64_t offset, int64_t q0, int64_t rows)
{
    const int64_t by = offset * w->job->m->unit, step = w->row_step;
    const void **restrict at = to + q0 + w->row0;
    for (int64_t i = 0; i < rows && step == 1; i++) at[i] = (const char *)list[i] + by;
    for (int64_t i = 0; i < rows && step != 1; i++) at[i * step] = (const char *)list[i] + by;
}

/* What the products over all steps will read of the strip's rows: the shared lists need one writer. */
static void note_rows(const fl_walk *w, int64_t q0, int64_t rows)
{
    fl_back *job = w->job;
    const fl_model *m = job->m;
    const fl_back_rows *l = &w->lists;
    const int64_t hidden = m->spec.hidden_size;
    if (w->mate) return;
    for (int64_t i = 0, r = w->row0; i < rows && w->s->mask_x; i++, r += w->row_step)
        job->batch_row[q0 + r] = job->order.row[r];
    if (w->s->dx.data) note(w, (const void **)job->dx, (const void *const *)l->dx, 0, q0, rows);
    if (m->spec.cell == FL_CELL_CLOCKWORK) return; /* each module has lists of its own */
    if (w->s->dx.data)
        note(w, job->g, (const void *const *)l->dgates, fl_walk_weights(w)->x_first, q0, rows);
    note(w, job->x, l->x, 0, q0, rows);
    note(w, job->h, l->seen, 0, q0, rows);
    if (m->body == FL_BODY_GRU_NEW) note(w, job->heard, l->gates, 3 * hidden, q0, rows);
    if (m->fed) note(w, job->fed, l->c_prev, hidden, q0, rows);
    if (m->spec.proj_size) note(w, job->m_rows, (const void *const *)l->m_rows, 0, q0, rows);
}

void fl_walk_point(fl_walk *w, int64_t s, int64_t rows, int64_t q0)
{
    const fl_back *job = w->job;
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const fl_back_rows *l = &w->lists;
    fl_strip strip = {&job->order, w->s->dir, s, w->row0, w->row_step, rows, w->pointed == s + 1 ? w->had : 0, -1};
    fl_lists_point(&w->views, &strip);
    w->pointed = s;
    w->had = rows;
    const int64_t q = q0 + w->row0, step = w->row_step * m->unit;
    fl_list_even((const void **)l->dgates, job->dgates + q * m->gradient_stride * m->unit, step * m->gradient_stride,
                 rows);
    if (m->spec.proj_size) {
        const int64_t hidden = m->spec.hidden_size;
        fl_list_even((const void **)l->m_rows, job->cell_out + q * hidden * m->unit, step * hidden, rows);
    }
    if (call->reset) strip.kept = 0; /* zeros in their places do not move */
    point_before(w, l->h_prev, &w->h_before, call->h0, m->recurrent, &strip);
    if (m->cells) point_before(w, l->c_prev, &w->c_before, call->c0, m->cells, &strip);
    if (call->reset) point_cuts(w, &strip);
    if (l->mask_h) mask_h(w, q0, rows);
    note_rows(w, q0, rows);
}
