/* The time loop of one layer and direction.  Knows pointers, order, resets and barriers; nothing of gates' formulas. */
#include "fl_layer.h"

#include <string.h>

/* Active rows are the first ones, because lengths fall. */
static int64_t active_rows(const fl_pass *p, int64_t s, int64_t rows)
{
    while (rows > 0 && p->job->order.length[p->row0 + (rows - 1) * p->row_step] <= s) rows--;
    return rows;
}

static char *state_row(const fl_pass *p, const void *state, int64_t b, int64_t width)
{
    const fl_model *m = p->job->m;
    const int64_t slot = p->layer * m->spec.directions + p->dir;
    return (char *)state + (slot * p->job->call->batch + b) * width * m->unit;
}

static const fl_packed *weights_of(const fl_pass *p)
{
    return &p->job->m->layers[p->layer * p->job->m->spec.directions + p->dir];
}

/* Where the input product of row r (in order) waits until its step. */
static char *pre_row(const fl_pass *p, int64_t slot, int64_t r)
{
    const fl_model *m = p->job->m;
    return p->job->pre[p->dir] + (slot * p->job->call->batch + r) * m->wide * m->unit;
}

/* bias + W_ih . x for steps [s, s + span) of this worker's rows and blocks, as one product, to `pre` from `slot` on */
static void hoist_inputs(const fl_pass *p, int64_t s, int64_t span, int64_t rows, int64_t slot)
{
    const fl_job *job = p->job;
    const fl_model *m = job->m;
    const fl_packed *w = weights_of(p);
    const int64_t batch = job->call->batch;
    const void **a = p->pointers + 6 * batch;
    void **out = (void **)(p->pointers + 6 * batch + batch * (job->plan.hoist < 1 ? 1 : job->plan.hoist));
    int64_t n = 0;
    for (int64_t q = 0; q < span; q++) {
        rows = active_rows(p, s + q, rows);
        for (int64_t i = 0; i < rows; i++) {
            const int64_t r = p->row0 + i * p->row_step;
            a[n] = fl_at(&p->x, fl_time(p->dir, s + q, job->order.length[r]), job->order.row[r]);
            out[n++] = pre_row(p, slot + q, r);
        }
    }
    const fl_product_args product = {
        .rows = n,
        .k = w->inputs,
        .columns = m->wide,
        .block0 = p->block0,
        .block1 = p->block1,
        .vectors = (int)m->vectors,
        .a = a,
        .panel = w->panel_x,
        .bias = w->bias,
        .out = out,
    };
    m->real->product(&product);
}

/* h = W_hr . cell_out for the active rows */
static void project(const fl_pass *p, const fl_packed *w, int64_t rows, void *const *out)
{
    const fl_job *job = p->job;
    const fl_model *m = job->m;
    const void **a = p->pointers; /* the list of x is free by now */
    for (int64_t i = 0; i < rows; i++)
        a[i] = job->cell_out[p->dir] + (p->row0 + i * p->row_step) * m->spec.hidden_size * m->unit;
    const fl_product_args product = {
        .rows = rows,
        .k = m->spec.hidden_size,
        .columns = m->spec.proj_size,
        .block0 = p->out_block0,
        .block1 = p->out_block1,
        .vectors = FL_PANEL_VECTORS,
        .a = a,
        .panel = w->panel_r,
        .out = out,
    };
    m->real->product(&product);
}

typedef struct fl_rows { /* the pointer lists of one step, all (B) */
    const void **x, **h, **c_prev;
    void **c, **y, **gates;
} fl_rows;

/* Where row i of step s finds its operands.  s0: first step of this chunk, whose state is in hn and cn. */
static void point(const fl_pass *p, const fl_rows *l, int64_t i, int64_t s, int64_t s0, int64_t pre_step)
{
    const fl_job *job = p->job;
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const int64_t batch = call->batch, hidden = m->spec.hidden_size;
    const int64_t r = p->row0 + i * p->row_step, b = job->order.row[r];
    const int64_t t = fl_time(p->dir, s, job->order.length[r]), before = p->dir ? t + 1 : t - 1;
    const int cut = fl_cut(call->reset, p->dir, s, t, b, batch);

    if (pre_step >= 0)
        l->x[i] = pre_row(p, pre_step, r);
    else
        l->x[i] = fl_at(&p->x, t, b);
    l->y[i] = fl_at(&p->y, t, b);
    l->h[i] = cut ? job->zeros : s == s0 ? state_row(p, call->hn, b, m->recurrent) : fl_at(&p->y, before, b);
    if (call->cache)
        l->gates[i] = (char *)call->cache + p->cache.gates + (t * batch + b) * m->kept * hidden * m->unit;
    if (m->states == 1) return;
    char *state_c = state_row(p, call->cn, b, hidden);
    if (call->cache) {
        char *cells = (char *)call->cache + p->cache.c;
        l->c[i] = cells + (t * batch + b) * hidden * m->unit;
        l->c_prev[i] = cut ? job->zeros : s == s0 ? state_c : cells + (before * batch + b) * hidden * m->unit;
    } else {
        l->c[i] = state_c;
        l->c_prev[i] = cut ? job->zeros : state_c;
    }
}

/* pre_step: slot of the input products, or -1: the step makes its own.  ahead: what to make beside it, or NULL. */
static void one_step(const fl_pass *p, int64_t s, int64_t s0, int64_t rows, int64_t pre_step,
                     const fl_ahead_args *ahead)
{
    const fl_job *job = p->job;
    const fl_model *m = job->m;
    const fl_packed *w = weights_of(p);
    const int64_t batch = job->call->batch;
    const void **q = p->pointers;
    const fl_rows l = {
        q, q + batch, q + 2 * batch, (void **)(q + 3 * batch), (void **)(q + 4 * batch), (void **)(q + 5 * batch)};
    for (int64_t i = 0; i < rows; i++) point(p, &l, i, s, s0, pre_step);
    void **h_out = l.y;
    if (w->panel_r) { /* the cell writes beside y, the projection reads it from there */
        h_out = (void **)(q + 6 * batch);
        for (int64_t i = 0; i < rows; i++)
            h_out[i] = job->cell_out[p->dir] + (p->row0 + i * p->row_step) * m->spec.hidden_size * m->unit;
    }
    const fl_step_args step = {
        .rows = rows,
        .hidden = m->spec.hidden_size,
        .block0 = p->block0,
        .block1 = p->block1,
        .backward_sweep = (s + job->turn) & 1,
        .k_x = pre_step >= 0 ? 0 : w->inputs,
        .k_h = m->recurrent,
        .x = l.x,
        .h = l.h,
        .panel_x = w->panel_x,
        .panel_h = w->panel_h,
        .bias = w->bias,
        .bias_h = w->bias_h,
        .activation = m->spec.activation,
        .pre = pre_step >= 0 ? l.x : NULL,
        .c_prev = l.c_prev,
        .c = l.c,
        .h_out = h_out,
        .gates = job->call->cache ? l.gates : NULL,
    };
    if (ahead)
        m->real->step_ahead[m->spec.cell](&step, ahead);
    else
        m->real->step[m->spec.cell](&step);
    if (w->panel_r) {
        fl_barrier_wait(p->barrier, p->mates);
        project(p, w, rows, l.y);
    }
    fl_barrier_wait(p->barrier, p->mates);
}

/* The state after this chunk goes to hn and cn, each mate taking its share of the rows. */
static void keep_state(const fl_pass *p, int64_t s0, int64_t s1)
{
    const fl_job *job = p->job;
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const int64_t hidden = m->spec.hidden_size;
    for (int64_t i = p->mate; i < p->rows; i += p->mates) {
        const int64_t r = p->row0 + i * p->row_step, b = job->order.row[r], length = job->order.length[r];
        const int64_t last = (length < s1 ? length : s1) - 1;
        if (last < s0) continue;
        const int64_t t = fl_time(p->dir, last, length);
        memcpy(state_row(p, call->hn, b, m->recurrent), fl_at(&p->y, t, b), (size_t)(m->recurrent * m->unit));
        if (!call->cache || m->states == 1) continue;
        memcpy(state_row(p, call->cn, b, hidden),
               (char *)call->cache + p->cache.c + (t * call->batch + b) * hidden * m->unit, (size_t)(hidden * m->unit));
    }
    fl_barrier_wait(p->barrier, p->mates);
}

/* From a stall on, mate 0 takes all blocks and the others are done.  Hoisted products of the current span are complete:
 * every mate made its own before its first step. */
static int go_solo(fl_pass *p)
{
    if (p->mates == 1 || !p->barrier->solo) return 1;
    if (p->mate) return 0;
    p->mates = 1;
    p->block0 = p->out_block0 = 0;
    p->block1 = p->job->m->blocks;
    p->out_block1 = fl_plain_blocks(p->job->m->spec.proj_size, p->job->m->width);
    return 1;
}

static void run_steps(fl_pass *p, int64_t s0, int64_t s1, int64_t span, int hoist_here)
{
    int64_t rows = p->rows;
    for (int64_t s = s0; s < s1 && go_solo(p); s++) {
        rows = active_rows(p, s, rows);
        if (rows == 0) break; /* for all mates alike: they share their rows */
        const int64_t into = span ? (s - s0) % span : -1;
        if (hoist_here && into == 0) hoist_inputs(p, s, s1 - s < span ? s1 - s : span, rows, 0);
        one_step(p, s, s0, rows, into, NULL);
    }
}

/* The one row's steps from s on, as far as `end`: rows of the product that step_ahead spreads over a group of steps.
 * Where fewer are left the last one stands in for the others: it computes the same numbers, and writes them twice. */
static void point_ahead(const fl_pass *p, int64_t s, int64_t end, int64_t slot, const void **x, void **pre)
{
    for (int64_t i = 0; i < p->job->plan.ahead; i++) {
        const int64_t q = s + i < end ? i : end - 1 - s, r = p->row0;
        x[i] = fl_at(&p->x, fl_time(p->dir, s + q, p->job->order.length[r]), p->job->order.row[r]);
        pre[i] = pre_row(p, slot + q, r);
    }
}

/* One row: groups of steps, and beside the steps of each group the input products of the next, in the other half of
 * `pre`.  A mate that goes on alone has not got the others' part of them, so it makes the next group's anew. */
static void run_ahead(fl_pass *p, int64_t s0, int64_t s1)
{
    const fl_job *job = p->job;
    const int64_t group = job->plan.ahead, length = job->order.length[p->row0];
    const int64_t end = length < s1 ? length : s1;
    const void **x = p->pointers + 6 + group; /* hoist_inputs takes the first halves of these two lists */
    void **pre = (void **)(p->pointers + 6 + 3 * group);
    fl_ahead_args ahead = {.k = weights_of(p)->inputs, .panel = weights_of(p)->panel_x, .x = x, .pre = pre};
    int complete = 0, mates = p->mates;
    for (int64_t s = s0; s < end && go_solo(p); s++) {
        const int64_t slot = (s - s0) % (2 * group), other = slot < group ? group : 0;
        ahead.share = slot % group;
        if (p->mates != mates) complete = 0;
        if (ahead.share == 0) {
            if (!complete) hoist_inputs(p, s, end - s < group ? end - s : group, 1, slot);
            complete = s + group < end;
            mates = p->mates;
            if (complete) point_ahead(p, s + group, end, other, x, pre);
        }
        one_step(p, s, s0, 1, slot, complete ? &ahead : NULL);
    }
}

void fl_pass_run(const fl_pass *pass, int64_t s0, int64_t s1, int hoist_here)
{
    const fl_plan *plan = &pass->job->plan;
    const int64_t span = fl_plan_span(plan, weights_of(pass)->inputs);
    fl_pass p = *pass;
    if (span && plan->ahead && hoist_here && p.rows)
        run_ahead(&p, s0, s1);
    else
        run_steps(&p, s0, s1, span, hoist_here);
    p.mates = pass->mates; /* all meet again */
    fl_barrier_wait(p.barrier, p.mates);
    keep_state(&p, s0, s1);
}
