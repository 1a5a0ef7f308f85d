/* Backward through time for one stretch: the recurrence, step by step. */
#include "fl_gradient.h"

#include <string.h>

#include "fl_layer.h"

typedef struct fl_walk { /* one worker's part of a stretch */
    fl_back *job;
    const fl_back_stretch *s;
    int64_t rows, row0, row_step;
    int64_t unit0, unit1;       /* hidden units of the element-wise part */
    int64_t h_block0, h_block1; /* plain blocks of dh */
    int64_t m_block0, m_block1; /* plain blocks of the gradient behind the projection */
    int mate, mates;
    const void **pointers;
} fl_walk;

static int64_t active(const fl_back *job, int64_t s)
{
    int64_t n = job->call->batch;
    while (n > 0 && job->order.length[n - 1] <= s) n--;
    return n;
}

static char *state_row(const fl_walk *w, const void *state, int64_t b, int64_t width)
{
    const fl_model *m = w->job->m;
    const int64_t slot = w->s->layer * m->spec.directions + w->s->dir;
    return state ? (char *)state + (slot * w->job->call->batch + b) * width * m->unit : NULL;
}

typedef struct fl_back_rows { /* pointer lists of one step, all (B) */
    const void **gates, **c_prev, **c, **dy, **h_prev;
    void **dh, **dc, **dgates, **m_rows;
} fl_back_rows;

/* Where row i of step s finds its operands; q0: the number of this step's first row. */
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

    l->gates[i] = (char *)call->cache + w->s->cache.gates + (t * batch + b) * m->kept * hidden * unit;
    l->h_prev[i] = cut || (s == 0 && !h0) ? job->zeros : s == 0 ? h0 : fl_at(&w->s->y, before, b);
    l->dy[i] = fl_at(&w->s->dy, t, b);
    l->dh[i] = state_row(w, job->back->dh0, b, m->recurrent);
    l->dgates[i] = job->dgates + q * m->kept * hidden * unit;
    if (m->states == 2) {
        char *cells = (char *)call->cache + w->s->cache.c;
        const char *c0 = state_row(w, call->c0, b, hidden);
        l->c[i] = cells + (t * batch + b) * hidden * unit;
        l->c_prev[i] = cut || (s == 0 && !c0) ? job->zeros : s == 0 ? c0 : cells + (before * batch + b) * hidden * unit;
        l->dc[i] = state_row(w, job->back->dc0, b, hidden);
    }
    if (m->spec.proj_size) l->m_rows[i] = job->cell_out + q * hidden * unit;
    if (w->mate) return; /* the shared lists need one writer */
    job->g[q] = (char *)l->dgates[i] + fl_x_side(m) * unit;
    job->x[q] = fl_at(&w->s->x, t, b);
    job->h[q] = l->h_prev[i];
    if (m->spec.proj_size) job->m_rows[q] = l->m_rows[i];
    if (w->s->dx.data) job->dx[q] = fl_at(&w->s->dx, t, b);
}

/* dh of the projected output, kept for weight_hr's gradient; then that of the cell's output, in dcell_out. */
static void through_projection(const fl_walk *w, const fl_back_rows *l, int64_t rows, int64_t q0)
{
    fl_back *job = w->job;
    const fl_model *m = job->m;
    const fl_packed *p = &m->layers[w->s->layer * m->spec.directions + w->s->dir];
    const int64_t pr = m->spec.proj_size, hidden = m->spec.hidden_size;
    for (int64_t i = w->mate; i < rows; i += w->mates)
        m->real->add(l->dy[i], l->dh[i], job->dh + (q0 + w->row0 + i * w->row_step) * pr * m->unit, pr);
    fl_barrier_wait(&job->team, w->mates);
    const void **a = l->dy; /* dy is used up: from here on the list is that of dh, then of dcell_out */
    void **out = l->dgates; /* filled again below */
    for (int64_t i = 0; i < rows; i++) {
        const int64_t r = w->row0 + i * w->row_step;
        a[i] = job->dh + (q0 + r) * pr * m->unit;
        out[i] = job->dcell_out + r * hidden * m->unit;
    }
    const fl_product_args product = {
        .rows = rows,
        .k = pr,
        .columns = hidden,
        .block0 = w->m_block0,
        .block1 = w->m_block1,
        .vectors = FL_PANEL_VECTORS,
        .a = a,
        .panel = p->panel_rt,
        .out = out,
    };
    m->real->product(&product);
    fl_barrier_wait(&job->team, w->mates);
    for (int64_t i = 0; i < rows; i++) {
        const int64_t r = w->row0 + i * w->row_step;
        a[i] = out[i];
        out[i] = job->dgates + (q0 + r) * m->kept * hidden * m->unit;
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
    for (int64_t i = 0; i < rows; i++) {
        const int64_t r = w->row0 + i * w->row_step, b = job->order.row[r];
        const int64_t t = fl_time(w->s->dir, s, job->order.length[r]);
        if (!fl_cut(job->call->reset, w->s->dir, s, t, b, job->call->batch)) continue;
        if (m->states == 2) memset((char *)l->dc[i] + w->unit0 * m->unit, 0, (size_t)((w->unit1 - w->unit0) * m->unit));
        if (end > first) memset((char *)l->dh[i] + first * m->unit, 0, (size_t)((end - first) * m->unit));
    }
}

static void one_step(const fl_walk *w, int64_t s, int64_t rows, int64_t q0)
{
    fl_back *job = w->job;
    const fl_model *m = job->m;
    const fl_packed *p = &m->layers[w->s->layer * m->spec.directions + w->s->dir];
    const int64_t batch = job->call->batch;
    const void **a = w->pointers;
    const fl_back_rows l = {a,
                            a + batch,
                            a + 2 * batch,
                            a + 3 * batch,
                            a + 4 * batch,
                            (void **)(a + 5 * batch),
                            (void **)(a + 6 * batch),
                            (void **)(a + 7 * batch),
                            (void **)(a + 8 * batch)};
    const int carries = p->bias_h != NULL; /* part of dh reaches h_prev past the products */
    for (int64_t i = 0; i < rows; i++) point(w, &l, i, s, q0);
    const int projected = m->spec.proj_size != 0;
    if (projected) through_projection(w, &l, rows, q0);
    const fl_cell_grad_args cell = {
        .rows = rows,
        .hidden = m->spec.hidden_size,
        .unit0 = w->unit0,
        .unit1 = w->unit1,
        .gates = l.gates,
        .h_prev = l.h_prev,
        .carry = l.dh,
        .activation = m->spec.activation,
        .c_prev = l.c_prev,
        .c = l.c,
        .dh = l.dy,
        .dh_add = projected ? NULL : (const void *const *)l.dh,
        .dc = l.dc,
        .dgates = l.dgates,
        .h = projected ? l.m_rows : NULL,
    };
    m->real->cell_grad[m->spec.cell](&cell);
    fl_barrier_wait(&job->team, w->mates);
    const fl_product_args product = {
        .rows = rows,
        .k = m->gates * m->spec.hidden_size,
        .columns = m->recurrent,
        .block0 = w->h_block0,
        .block1 = w->h_block1,
        .vectors = FL_PANEL_VECTORS,
        .a = (const void *const *)l.dgates,
        .panel = p->panel_ht,
        .accumulate = carries,
        .out = l.dh,
    };
    m->real->product(&product);
    cut_rows(w, &l, rows, s);
    fl_barrier_wait(&job->team, w->mates);
}

void fl_back_recurrence(fl_back *job, const fl_back_stretch *s, int worker, int workers)
{
    const fl_model *m = job->m;
    const int by_rows = job->plan.split == FL_SPLIT_ROWS || workers == 1;
    const int mates = by_rows ? 1 : workers, mate = by_rows ? 0 : worker;
    const int64_t hidden = m->spec.hidden_size, width = m->width;
    const int64_t h_blocks = fl_plain_blocks(m->recurrent, width), m_blocks = fl_plain_blocks(hidden, width);
    const int64_t unit1 = fl_share(m->blocks, mate + 1, mates) * m->block_units;
    const fl_walk w = {
        .job = job,
        .s = s,
        .row0 = by_rows ? worker : 0,
        .row_step = by_rows ? workers : 1,
        .unit0 = fl_share(m->blocks, mate, mates) * m->block_units,
        .unit1 = unit1 < hidden ? unit1 : hidden,
        .h_block0 = fl_share(h_blocks, mate, mates),
        .h_block1 = fl_share(h_blocks, mate + 1, mates),
        .m_block0 = fl_share(m_blocks, mate, mates),
        .m_block1 = fl_share(m_blocks, mate + 1, mates),
        .mate = mate,
        .mates = mates,
        .pointers = job->pointers + worker * fl_back_pointers(job->call->batch),
    };
    int64_t q = 0;
    for (int64_t step = s->s1 - 1; step >= s->s0; step--) {
        const int64_t all = active(job, step);
        const int64_t mine = all > w.row0 ? (all - w.row0 + w.row_step - 1) / w.row_step : 0;
        if (mine || mates > 1) one_step(&w, step, mine, q);
        q += all;
    }
}
