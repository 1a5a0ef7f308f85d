/* Clockwork network (Koutnik et al. 2014), backward: only what ran hands anything back to weights and input.
 *
 * A module's gradients of a stretch lie one row after the other, for the rows that ran, in the order of the walk.
 * Where a row lies depends on the clocks of all rows of the batch, which every worker reads. */
#include <string.h>

#include "fl_layer.h"
#include "fl_walk.h"

/* The count of steps that row r of the order had at step s. */
static int64_t clock_at(const fl_walk *w, int64_t r, int64_t s)
{
    const fl_back *job = w->job;
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const int64_t b = job->order.row[r], t = fl_time(w->s->dir, s, job->order.length[r]);
    const int64_t before = w->s->dir ? t + 1 : t - 1, slot = w->s->layer * m->spec.directions + w->s->dir;
    if (fl_cut(call->reset, w->s->dir, s, t, b, call->batch)) return 0;
    if (s) return fl_clock_value(m, (char *)call->cache + w->s->cache.c + (before * call->batch + b) * m->unit);
    return call->c0 ? fl_clock_value(m, (const char *)call->c0 + (slot * call->batch + b) * m->unit) : 0;
}

typedef struct fl_active { /* rows of the strip that a module ran for */
    int64_t n;
    const void **gates, **dh;
    void **dgates, **back;
} fl_active;

/* Which rows of the strip module `index` ran for at step s, and where their operands are; q0: number of the step's
 * first row. */
static fl_active rows_of(const fl_walk *w, const fl_back_rows *l, int index, int64_t s, int64_t q0, int masked)
{
    fl_back *job = w->job;
    const fl_model *m = job->m;
    const fl_packed *p = fl_walk_weights(w);
    const fl_part *part = &p->part[index];
    const int64_t list = fl_module_list(job, index), unit = m->unit;
    fl_active a = {0, l->lower, l->dupper, l->m_rows, l->dlower}; /* lists that this cell has no other use for */
    int64_t q = list + w->counts[index];
    for (int64_t r = w->count0; r < w->count1; r++) {
        if (clock_at(w, r, s) % part->period) continue;
        if (r >= w->row0 && (r - w->row0) % w->row_step == 0) {
            const int64_t i = (r - w->row0) / w->row_step, b = job->order.row[r];
            const int64_t t = fl_time(w->s->dir, s, job->order.length[r]);
            a.gates[a.n] = (const char *)l->gates[i] + part->unit0 * unit;
            a.dh[a.n] = (const char *)l->dheard[i] + part->unit0 * unit;
            a.dgates[a.n] = fl_module_rows(job, part) + (q - list) * part->layout.hidden * unit;
            a.back[a.n++] = (char *)(masked ? l->through[i] : l->dh[i]) + part->h_first * unit;
            job->g[q] = a.dgates[a.n - 1];
            job->x[q] = fl_at(&w->s->x, t, b);
            job->h[q] = (const char *)l->seen[i] + part->h_first * unit;
            if (w->s->dx.data)
                job->module_dx[q] = w->s->mask_x ? job->dx_masked + (q0 + r) * p->inputs * unit : job->dx[q0 + r];
        }
        q++;
    }
    w->counts[index] = q - list;
    return a;
}

/* dh of all units: what ran has handed it on, and gets it back through the products; what held hands it on. */
static void split_dh(const fl_walk *w, const fl_back_rows *l, int64_t i, int64_t s)
{
    const fl_back *job = w->job;
    const fl_model *m = job->m;
    const fl_packed *p = fl_walk_weights(w);
    const int64_t clock = clock_at(w, w->row0 + i * w->row_step, s);
    m->real->add(l->dy[i], l->dh[i], l->dheard[i], m->spec.hidden_size);
    for (int k = 0; k < p->part_count; k++) {
        const fl_part *part = &p->part[k];
        const size_t bytes = (size_t)(part->layout.hidden * m->unit);
        char *to = (char *)l->dh[i] + part->unit0 * m->unit;
        if (clock % part->period)
            memcpy(to, (const char *)l->dheard[i] + part->unit0 * m->unit, bytes);
        else
            memset(to, 0, bytes);
    }
}

void fl_clockwork_grads(const fl_walk *w, const fl_back_rows *l, int64_t s, int64_t rows, int64_t q0)
{
    fl_back *job = w->job;
    const fl_model *m = job->m;
    const fl_packed *p = fl_walk_weights(w);
    const int masked = l->mask_h != NULL;
    for (int64_t i = 0; i < rows; i++) {
        split_dh(w, l, i, s);
        if (masked) memset(l->through[i], 0, (size_t)(m->recurrent * m->unit));
    }
    for (int k = 0; k < p->part_count; k++) {
        const fl_part *part = &p->part[k];
        const fl_active a = rows_of(w, l, k, s, q0, masked);
        const fl_cell_grad_args cell = {
            .rows = a.n,
            .hidden = part->layout.hidden,
            .unit1 = part->layout.hidden,
            .gates = a.gates,
            .dh = a.dh,
            .dgates = a.dgates,
            .options = &p->options,
        };
        const fl_product_args back = {
            .rows = a.n,
            .k = part->layout.hidden,
            .columns = part->k_h,
            .block1 = fl_plain_blocks(part->k_h, m->width),
            .vectors = FL_PANEL_VECTORS,
            .a = (const void *const *)a.dgates,
            .panel = part->panel_ht,
            .accumulate = 1,
            .out = a.back,
        };
        m->real->cell_grad[FL_BODY_RNN_FREE](&cell);
        fl_pieces_product(m->real, &back, &w->pieces);
    }
    for (int64_t i = 0; i < rows && masked; i++) {
        m->real->mul(l->through[i], l->mask_h[i], l->through[i], m->recurrent);
        m->real->add(l->through[i], l->dh[i], l->dh[i], m->recurrent);
    }
}

/* --- products over a stretch */

/* Each worker has its columns of dx for all modules, which add to the same rows. */
static void input_gradient(const fl_back *job, const fl_back_stretch *s, const fl_packed *p, int worker, int workers)
{
    const fl_model *m = job->m;
    const int64_t blocks = fl_plain_blocks(p->inputs, m->width), block = FL_PANEL_VECTORS * m->width;
    const int64_t block0 = fl_share(blocks, worker, workers), block1 = fl_share(blocks, worker + 1, workers);
    const int64_t first = block0 * block, end = block1 * block < p->inputs ? block1 * block : p->inputs;
    const int add = s->dir && !s->mask_x; /* the other direction's is there already */
    const fl_pieces pieces = fl_back_pieces(job, worker);
    if (end <= first) return;
    for (int64_t q = 0; q < s->rows && !add; q++) {
        char *to = s->mask_x ? job->dx_masked + q * p->inputs * m->unit : job->dx[q];
        memset(to + first * m->unit, 0, (size_t)((end - first) * m->unit));
    }
    for (int k = 0; k < p->part_count; k++) {
        const fl_product_args product = {
            .rows = job->counts[k],
            .k = p->part[k].layout.hidden,
            .columns = p->inputs,
            .block0 = block0,
            .block1 = block1,
            .vectors = FL_PANEL_VECTORS,
            .a = job->g + fl_module_list(job, k),
            .panel = p->part[k].panel_xt,
            .accumulate = 1,
            .out = job->module_dx + fl_module_list(job, k),
        };
        fl_pieces_product(m->real, &product, &pieces);
    }
}

static void weight_gradient(const fl_back *job, const fl_part *part, int64_t rows, const void *const *a, int64_t n,
                            char *to, int64_t ld, int worker, int workers)
{
    const int64_t units = part->layout.hidden;
    const fl_outer_args outer = {
        .rows = rows,
        .j0 = fl_share(units, worker, workers),
        .j1 = fl_share(units, worker + 1, workers),
        .n = n,
        .g = fl_module_rows(job, part),
        .g_stride = units,
        .a = a,
        .c = to,
        .c_stride = ld,
    };
    const fl_pieces pieces = fl_back_pieces(job, worker);
    fl_pieces_outer(job->m->real, &outer, &pieces);
}

void fl_clockwork_products(fl_back *job, const fl_back_stretch *s, int worker, int workers)
{
    const fl_model *m = job->m;
    const int64_t slot = s->layer * m->spec.directions + s->dir, H = m->spec.hidden_size;
    const fl_packed *p = &m->layers[slot];
    const fl_gradients *grad = &job->back->gradients[slot];
    if (s->dx.data) input_gradient(job, s, p, worker, workers);
    for (int k = 0; k < p->part_count; k++) {
        const fl_part *part = &p->part[k];
        const int64_t rows = job->counts[k], list = fl_module_list(job, k), units = part->layout.hidden;
        char *ih = (char *)grad->weight_ih + part->unit0 * p->inputs * m->unit;
        char *hh = (char *)grad->weight_hh + (part->unit0 * H + part->h_first) * m->unit;
        weight_gradient(job, part, rows, job->x + list, p->inputs, ih, p->inputs, worker, workers);
        weight_gradient(job, part, rows, job->h + list, part->k_h, hh, H, worker, workers);
        const fl_colsum_args sum = {
            .rows = rows,
            .j0 = fl_share(units, worker, workers),
            .j1 = fl_share(units, worker + 1, workers),
            .g = fl_module_rows(job, part),
            .g_stride = units,
            .s = (char *)grad->bias_ih + part->unit0 * m->unit,
        };
        m->real->colsum(&sum);
    }
}
