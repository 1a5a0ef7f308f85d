/* A step: its parts in order, each a product and the body that eats it. */
#include "fl_turn.h"

#include <string.h>

void fl_turn_part_inputs(const fl_model *m, const fl_packed *w, const fl_part *p, int64_t rows, const void *const *x,
                         void *const *pre, int mate, int mates)
{
    const fl_product_args product = {
        .rows = rows,
        .k = w->inputs,
        .columns = p->wide,
        .block0 = fl_share(p->blocks, mate, mates),
        .block1 = fl_share(p->blocks, mate + 1, mates),
        .vectors = m->row_body ? FL_PANEL_VECTORS : p->layout.vectors,
        .a = x,
        .panel = p->panel_x,
        .bias = p->bias,
        .out = pre,
    };
    m->real->product(&product);
}

void fl_turn_inputs(const fl_model *m, const fl_packed *w, int64_t rows, const void *const *x, void **pre, int mate,
                    int mates)
{
    for (int i = 0; i < w->part_count; i++) {
        const fl_part *p = &w->part[i];
        fl_turn_part_inputs(m, w, p, rows, x, pre, mate, mates);
        for (int64_t r = 0; r < rows && w->part_count > 1; r++) pre[r] = (char *)pre[r] + p->wide * m->unit;
    }
}

void fl_turn_project(const fl_model *m, const fl_packed *w, int64_t rows, const void *const *cell_out,
                     void *const *h, const void *const *h_prev, const void *const *zoneout, int mate, int mates)
{
    const int64_t P = m->spec.proj_size, blocks = fl_plain_blocks(P, m->width), block = FL_PANEL_VECTORS * m->width;
    const fl_product_args product = {
        .rows = rows,
        .k = m->spec.hidden_size,
        .columns = P,
        .block0 = fl_share(blocks, mate, mates),
        .block1 = fl_share(blocks, mate + 1, mates),
        .vectors = FL_PANEL_VECTORS,
        .a = cell_out,
        .panel = w->panel_r,
        .out = h,
    };
    m->real->product(&product);
    const double limit = m->spec.options.proj_clip;
    if (!(limit > 0) && !zoneout) return;
    const int64_t first = product.block0 * block, end = product.block1 * block < P ? product.block1 * block : P;
    for (int64_t r = 0; r < rows && end > first; r++) {
        const int64_t at = first * m->unit;
        m->real->blend(zoneout ? (const char *)zoneout[r] + at : NULL, (const char *)h_prev[r] + at,
                       (char *)h[r] + at, limit > 0 ? limit : (double)INFINITY, end - first);
    }
}

/* What the lists do not say. */
static fl_step_args *args_of(fl_turn *t, const fl_part *p)
{
    fl_step_args *a = &t->lists;
    a->hidden = p->layout.hidden;
    a->count = p->layout.gates;
    a->block0 = t->mates == 1 ? 0 : fl_share(p->blocks, t->mate, t->mates);
    a->block1 = t->mates == 1 ? p->blocks : fl_share(p->blocks, t->mate + 1, t->mates);
    a->k_x = t->hoisted ? 0 : t->w->inputs;
    a->k_h = p->k_h;
    a->panel_x = p->panel_x;
    a->panel_h = p->panel_h;
    a->bias = p->bias;
    a->bias_h = p->bias_h;
    a->options = &t->w->options;
    a->pre = t->hoisted ? (const void *const *)t->pre : NULL;
    return a;
}

/* Blocks [b0, b1) of [first, end) that slice i of a step has, in the order in which it sweeps over them. */
static void slice_of(const fl_slices *slices, int64_t i, int backward, int64_t first, int64_t end, int64_t *b0,
                     int64_t *b1)
{
    const int64_t at = backward ? slices->count - 1 - i : i;
    *b0 = first + fl_share(end - first, at, slices->count);
    *b1 = first + fl_share(end - first, at + 1, slices->count);
}

/* Once the call is to end, what is left of a step is not done: its barriers are kept, its results are not needed. */
static void run_step(fl_turn *t, void (*step)(const fl_step_args *), fl_step_args *a)
{
    const int64_t first = a->block0, end = a->block1;
    if (!t->slices) {
        step(a);
        return;
    }
    for (int64_t i = 0; i < t->slices->count; i++) {
        if (fl_stop_look(t->slices->stop, t->slices->worker, t->slices->slice_ns)) break;
        slice_of(t->slices, i, a->backward_sweep, first, end, &a->block0, &a->block1);
        if (a->block0 < a->block1) step(a);
    }
    a->block0 = first;
    a->block1 = end;
}

/* --- a row body: products first */

static void product_to(const fl_turn *t, const void *const *a, int64_t k, const void *panel, int64_t columns,
                       int accumulate, void *const *out)
{
    fl_product_args product = {
        .rows = t->lists.rows,
        .k = k,
        .columns = columns,
        .block1 = fl_plain_blocks(columns, t->m->width),
        .vectors = FL_PANEL_VECTORS,
        .a = a,
        .panel = panel,
        .accumulate = accumulate,
        .out = out,
    };
    if (!panel) return;
    if (!t->slices) {
        t->m->real->product(&product);
        return;
    }
    const int64_t end = product.block1;
    for (int64_t i = 0; i < t->slices->count; i++) {
        if (fl_stop_look(t->slices->stop, t->slices->worker, t->slices->slice_ns)) return;
        slice_of(t->slices, i, 0, 0, end, &product.block0, &product.block1);
        if (product.block0 < product.block1) t->m->real->product(&product);
    }
}

static void run_rows(fl_turn *t)
{
    const fl_model *m = t->m;
    const fl_packed *w = t->w;
    const fl_step_args *a = args_of(t, &w->part[0]);
    void *const *sums = (void *const *)a->pre, *const *side = (void *const *)a->side;
    const int ba = w->options.norm == FL_NORM_BA;
    product_to(t, a->h, m->recurrent, w->part[0].panel_h, m->rows, 1, sums);
    if (ba) product_to(t, a->h, m->recurrent, w->panel_side, m->side, 0, side);
    if (m->fed) { /* the former gates lie behind c */
        const void *const *fed = fl_rows_at(m, t->scratch, a->c_prev, a->rows, m->spec.hidden_size);
        product_to(t, fed, m->fed, w->panel_fed, m->rows, 1, sums);
        if (!ba) product_to(t, fed, m->fed, w->panel_side, m->side, 0, side);
    }
    m->real->row[m->body - FL_BODY_COUNT](a);
}

/* --- a clockwork: its modules, each for the rows whose time it is */

static void set_clock(const fl_model *m, void *row, int64_t clock)
{
    if (m->spec.dtype == FL_F64)
        ((double *)row)[0] = (double)clock;
    else
        ((float *)row)[0] = (float)clock;
}

static void hold(const fl_turn *t, const fl_part *p, int64_t i)
{
    const size_t bytes = (size_t)(p->layout.hidden * t->m->unit);
    const int64_t at = p->unit0 * t->m->unit;
    memcpy((char *)t->lists.h_out[i] + at, (const char *)t->lists.h_prev[i] + at, bytes);
    if (t->lists.gates) memcpy((char *)t->lists.gates[i] + at, (const char *)t->lists.h_prev[i] + at, bytes);
}

static void run_modules(fl_turn *t)
{
    const fl_model *m = t->m;
    const int64_t all = t->lists.rows;
    const void **x = t->scratch, **h = x + all;
    const void **pre = x + 2 * all;
    void **out = (void **)(x + 3 * all), **gates = (void **)(x + 4 * all);
    for (int i = 0; i < t->w->part_count; i++) {
        const fl_part *p = &t->w->part[i];
        int64_t n = 0;
        for (int64_t r = 0; r < all; r++) {
            if (fl_clock_value(m, t->lists.c_prev[r]) % p->period) {
                hold(t, p, r);
                continue;
            }
            if (t->hoisted)
                pre[n] = (const char *)t->pre[r] + p->pre_first * m->unit;
            else
                x[n] = t->lists.x[r];
            h[n] = (const char *)t->lists.h[r] + p->h_first * m->unit;
            out[n] = (char *)t->lists.h_out[r] + p->unit0 * m->unit;
            if (t->lists.gates) gates[n] = (char *)t->lists.gates[r] + p->unit0 * m->unit;
            n++;
        }
        if (n == 0) continue;
        const fl_step_args all_rows = t->lists;
        fl_step_args *a = args_of(t, p);
        a->rows = n;
        a->x = x;
        a->pre = t->hoisted ? pre : NULL;
        a->h = h;
        a->h_out = out;
        a->gates = a->gates ? gates : NULL;
        run_step(t, m->real->step[p->body], a);
        t->lists = all_rows;
    }
    for (int64_t r = 0; r < all; r++)
        set_clock(m, t->lists.c[r], (fl_clock_value(m, t->lists.c_prev[r]) + 1) % m->cycle);
}

void fl_turn_begin(fl_turn *t)
{
    const fl_part *p = t->w->part;
    t->step = NULL;
    if (t->m->row_body || t->m->spec.cell == FL_CELL_CLOCKWORK || t->w->part_count > 1) return;
    args_of(t, p);
    t->step = t->m->real->step[fl_body_for(p->body, t->free)];
}

/* Parts one after the other, each after the mates' last one. */
static void run_parts(fl_turn *t)
{
    const fl_model *m = t->m;
    const void *const *const h = t->lists.h;
    for (int i = 0; i < t->w->part_count; i++) {
        const fl_part *p = &t->w->part[i];
        fl_step_args *a = args_of(t, p);
        if (t->hoisted) a->pre = fl_rows_at(m, t->scratch, (const void *const *)t->pre, a->rows, p->pre_first);
        if (p->body == FL_BODY_GRU_NEW) /* it hears r * h, which the part before it kept */
            a->h = fl_rows_at(m, t->scratch + a->rows, (const void *const *)a->gates, a->rows, 3 * m->spec.hidden_size);
        if (i) fl_barrier_wait(t->barrier, t->mate, t->mates);
        run_step(t, m->real->step[fl_body_for(p->body, t->free)], a);
    }
    t->lists.h = h;
}

void fl_turn_run(fl_turn *t, const fl_ahead_args *ahead)
{
    if (t->step) {
        t->lists.pre = t->hoisted ? (const void *const *)t->pre : NULL;
        t->lists.k_x = t->hoisted ? 0 : t->w->inputs;
        if (ahead)
            t->m->real->step_ahead[fl_body_for(t->w->part->body, t->free)](&t->lists, ahead);
        else
            t->step(&t->lists);
    } else if (t->m->row_body) {
        run_rows(t);
    } else if (t->m->spec.cell == FL_CELL_CLOCKWORK) {
        run_modules(t);
    } else {
        run_parts(t);
    }
}
