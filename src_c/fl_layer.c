/* The time loop of one layer and direction.  Knows pointers, order, resets and barriers; nothing of gates' formulas. */
#include "fl_layer.h"

#include <string.h>

static fl_rows lists_of(const fl_pass *p)
{
    const int64_t n = p->job->strip;
    const void **q = p->pointers;
    return (fl_rows){q, q + n, q + 2 * n, q + 3 * n, q + 4 * n, q + 5 * n, q + 6 * n, q + 7 * n, q + 8 * n, q + 9 * n,
                     (void **)(q + 10 * n), (void **)(q + 11 * n), (void **)(q + 12 * n), (void **)(q + 13 * n)};
}

/* Where steps are cut, the turn goes by the way of cells with several parts. */
static void begin_turn(fl_pass *p)
{
    fl_turn_begin(&p->turn);
    if (p->turn.slices) p->turn.step = NULL;
}

/* How often this pass looks whether the call is to end, and whether within its steps, too.  A single row's steps are
 * short: their weights are few, or their products would not be made ahead. */
static void prepare_stop(fl_pass *p)
{
    fl_stop *stop = p->job->stop;
    const double row_ns = fl_pass_weights(p)->flops * p->job->flop_ns;
    const int64_t strip = p->rows < p->job->strip ? p->rows : p->job->strip;
    p->pace = fl_pace_of(stop, p->worker, (double)p->rows * row_ns / p->mates);
    p->slices = (fl_slices){stop, p->worker, 1, 0};
    if (!stop || p->job->plan.ahead || (double)p->rows * row_ns <= stop->piece_ns) return;
    p->slices.count = fl_stop_parts(stop, (double)strip * row_ns, p->job->m->blocks);
    p->slices.slice_ns = (double)strip * row_ns / p->mates / (double)p->slices.count;
    p->turn.slices = &p->slices;
}

/* What all steps of the pass have in common. */
static void prepare(fl_pass *p)
{
    const fl_job *job = p->job;
    const fl_model *m = job->m;
    const fl_packed *w = fl_pass_weights(p);
    const fl_masks *masks = job->call->masks ? &job->call->masks[w - m->layers] : NULL;
    const int zone_h = masks ? masks->zoneout_h != NULL : m->zones[0] != NULL;
    const int zone_c = masks ? masks->zoneout_c != NULL : m->zones[1] != NULL;
    const fl_rows l = p->lists = lists_of(p);
    p->zone_h = zone_h ? l.zone_h : NULL;
    p->own_c = m->cells && (p->c.data || job->call->reset);
    p->turn = (fl_turn){
        .m = m,
        .w = w,
        .lists = {.x = l.x,
                  .h = masks && masks->mask_h ? l.h : l.h_prev,
                  .c_prev = p->own_c ? l.c_prev : (const void *const *)l.c,
                  .c = l.c,
                  .h_out = w->panel_r ? l.cell_out : l.y, /* the cell writes beside y, the projection reads it there */
                  .gates = job->call->cache || m->keeps ? l.gates : NULL,
                  .h_prev = l.h_prev,
                  .mask_g = masks && masks->mask_g ? l.mask_g : NULL,
                  .zoneout_h = zone_h && !w->panel_r ? l.zone_h : NULL,
                  .zoneout_c = zone_c ? l.zone_c : NULL,
                  .lower = p->lower.data ? l.lower : NULL,
                  .side = l.side,
                  .keeps = job->call->cache != NULL},
        .pre = l.pre,
        .free = job->free,
        .mate = p->mate,
        .mates = p->mates,
        .barrier = p->barrier,
        .scratch = p->pointers + FL_PASS_LISTS * job->strip,
    };
    prepare_stop(p);
    begin_turn(p);
}

/* All mates meet, and may become fewer: the first of them then share all blocks.  Hoisted products of the current span
 * are complete: every mate made its own before its first step. */
static void end_step(fl_pass *p, int64_t rows)
{
    const double plan_ns = (double)rows * p->turn.w->flops * p->job->flop_ns;
    const int mates = fl_barrier_judge(p->barrier, p->mate, p->mates, plan_ns);
    if (mates == p->mates) return;
    p->mates = p->turn.mates = mates;
    if (p->mate < mates) begin_turn(p);
}

static void project(const fl_pass *p, int64_t rows)
{
    const fl_rows *l = &p->lists;
    const int count = (int)p->slices.count;
    for (int i = 0; i < count; i++) {
        if (count > 1 && fl_stop_look(p->job->stop, p->worker, 0)) return;
        fl_turn_project(p->job->m, p->turn.w, rows, (const void *const *)l->cell_out, l->y, l->h_prev, p->zone_h,
                        p->mate * count + i, p->mates * count);
    }
}

/* pre_step: slot of the input products, or -1: the step makes its own.  ahead: what to make beside it, or NULL.
 * A projection reads all units of a row.  Workers that share them meet once, after all strips, and fill the lists
 * again; a lone worker projects each strip at once. */
static void one_step(fl_pass *p, int64_t s, int64_t s0, int64_t rows, int64_t pre_step, const fl_ahead_args *ahead)
{
    const int64_t strip = p->job->strip;
    const int projected = p->turn.w->panel_r != NULL, later = projected && p->mates > 1;
    p->turn.lists.backward_sweep = (s + p->job->turn) & 1;
    p->turn.hoisted = pre_step >= 0;
    for (int64_t first = 0; first < rows; first += strip) {
        p->turn.lists.rows = fl_pass_point(p, first, rows, s, s0, pre_step);
        fl_turn_run(&p->turn, ahead);
        if (projected && !later) project(p, p->turn.lists.rows);
    }
    if (later) {
        fl_barrier_wait(p->barrier, p->mate, p->mates);
        for (int64_t first = 0; first < rows; first += strip)
            project(p, rows > strip ? fl_pass_point(p, first, rows, s, s0, pre_step) : rows);
    }
    if (p->mates > 1) end_step(p, rows);
}

/* Before each step.  1: this worker is to leave at once.  Where it has mates they all leave at the end of the step. */
static int ends(fl_pass *p)
{
    if (!fl_pace_step(&p->pace) || p->mates > 1) return 0;
    p->mates = 0;
    return 1;
}

/* The state after this chunk goes to hn and cn, each mate taking its share of the rows. */
static void keep_state(const fl_pass *p, int64_t s0, int64_t s1)
{
    const fl_job *job = p->job;
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    for (int64_t i = p->mate; i < p->rows; i += p->mates) {
        const int64_t r = p->row0 + i * p->row_step, b = job->order.row[r], length = job->order.length[r];
        const int64_t last = (length < s1 ? length : s1) - 1;
        if (last < s0) continue;
        const int64_t t = fl_time(p->dir, last, length);
        memcpy(fl_pass_state(p, call->hn, b, m->recurrent), fl_at(&p->y, t, b), (size_t)(m->recurrent * m->unit));
        if (p->c.data)
            memcpy(fl_pass_state(p, call->cn, b, m->cells), fl_at(&p->c, t, b), (size_t)(m->cells * m->unit));
    }
    fl_barrier_wait(p->barrier, p->mate, p->mates);
}

static void run_steps(fl_pass *p, int64_t s0, int64_t s1, int64_t span, int hoist_here)
{
    const int ragged = p->job->call->lengths != NULL;
    int64_t rows = p->rows;
    for (int64_t s = s0; s < s1 && p->mate < p->mates; s++) {
        if (ragged) rows = fl_pass_active(p, s, rows);
        if (rows == 0 || ends(p)) break; /* without rows for all mates alike: they share them */
        const int64_t into = span ? (s - s0) % span : -1;
        const int64_t some = s1 - s < span ? s1 - s : span;
        if (hoist_here && into == 0) fl_hoist_strips(p, s, s0, some, rows);
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
        pre[i] = fl_pass_pre(p, slot + q, r);
    }
}

/* One row: groups of steps, and beside the steps of each group the input products of the next, in the other half of
 * `pre`.  Where mates have left, their part of them is missing, so the next group's are made anew. */
static void run_ahead(fl_pass *p, int64_t s0, int64_t s1)
{
    const fl_job *job = p->job;
    const int64_t group = job->plan.ahead, length = job->order.length[p->row0];
    const int64_t end = length < s1 ? length : s1;
    const void **x = p->pointers + FL_PASS_ALL + group; /* fl_hoist_inputs takes the first halves of these two lists */
    void **pre = (void **)(p->pointers + FL_PASS_ALL + 3 * group);
    const fl_packed *w = fl_pass_weights(p);
    fl_ahead_args ahead = {.k = w->inputs, .panel = w->part[0].panel_x, .x = x, .pre = pre};
    int complete = 0, mates = p->mates;
    for (int64_t s = s0; s < end && p->mate < p->mates; s++) {
        const int64_t slot = (s - s0) % (2 * group), other = slot < group ? group : 0;
        if (ends(p)) break;
        ahead.share = slot % group;
        if (p->mates != mates) complete = 0;
        if (ahead.share == 0) {
            const int64_t some = end - s < group ? end - s : group;
            if (!complete) fl_hoist_inputs(p, s, some, 0, 1, slot, p->mate, p->mates);
            complete = s + group < end;
            mates = p->mates;
            if (complete) point_ahead(p, s + group, end, other, x, pre);
        }
        one_step(p, s, s0, 1, slot, complete ? &ahead : NULL);
    }
}

/* Whether one kernel runs all steps: of one row that has no mates, where nothing but the states is kept.  Its weights
 * are so few that the arithmetic takes no longer than pointer lists would. */
static int is_one_row(const fl_pass *p, int64_t span)
{
    const fl_job *job = p->job;
    const fl_call *call = job->call;
    const fl_one_row *layer = &fl_pass_weights(p)->one_row;
    return job->m->one_row && p->rows == 1 && p->mates == 1 && layer->whole && !(span && layer->hoists) &&
           !call->cache && !call->reset && !job->free && !job->more && p->slices.count == 1;
}

static void run_one_row(fl_pass *p, int64_t s0, int64_t s1)
{
    const fl_model *m = p->job->m;
    const fl_packed *w = fl_pass_weights(p);
    const int64_t b = p->job->order.row[p->row0], length = p->job->order.length[p->row0];
    const int64_t end = length < s1 ? length : s1, unit = p->dir ? -m->unit : m->unit;
    fl_one_row_args args = {
        .layer = &w->one_row,
        .h = fl_pass_state(p, p->job->call->hn, b, m->recurrent),
        .c = m->cells ? fl_pass_state(p, p->job->call->cn, b, m->cells) : NULL,
        .x_step = p->x.step / unit,
        .y_step = p->y.step / unit,
    };
    for (int64_t s = s0; s < end && !ends(p); s += args.steps) {
        const int64_t t = fl_time(p->dir, s, length);
        args.steps = 1 + fl_pace_more(&p->pace, end - s - 1);
        args.x = fl_at(&p->x, t, b);
        args.y = fl_at(&p->y, t, b);
        m->real->one_row[w->part->body](&args);
        args.h = fl_at(&p->y, fl_time(p->dir, s + args.steps - 1, length), b);
    }
}

/* x times mask_x goes to the cache, which backward reads too, and is x from here on. */
static void mask_inputs(fl_pass *p, int64_t s0, int64_t s1)
{
    const fl_job *job = p->job;
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const int64_t inputs = fl_pass_weights(p)->inputs;
    const void *mask = call->masks ? call->masks[p->slot].mask_x : NULL;
    if (!mask) return;
    fl_pace pace = fl_pace_of(p->job->stop, p->worker, (double)inputs);
    const fl_view to = fl_view_dense((char *)call->cache + p->cache.x, call->batch, inputs, m->unit, 0);
    for (int64_t i = p->mate; i < p->rows; i += p->mates) {
        const int64_t r = p->row0 + i * p->row_step, b = job->order.row[r], length = job->order.length[r];
        for (int64_t s = s0; s < s1 && s < length && !fl_pace_step(&pace); s++) {
            const int64_t t = fl_time(p->dir, s, length);
            m->real->mul(fl_at(&p->x, t, b), fl_mask_row(m, mask, b, inputs), fl_at(&to, t, b), inputs);
        }
    }
    fl_barrier_wait(p->barrier, p->mate, p->mates);
    p->x = to;
}

int fl_pass_run(const fl_pass *pass, int64_t s0, int64_t s1, int hoist_here)
{
    const fl_plan *plan = &pass->job->plan;
    const int64_t span = fl_plan_span(pass->job->m, plan, fl_pass_weights(pass)->inputs);
    fl_pass p = *pass;
    fl_lists views; /* not cleared: most calls need few of them */
    p.views = &views;
    mask_inputs(&p, s0, s1);
    prepare(&p);
    const int ahead = span && plan->ahead && hoist_here && p.rows && fl_pass_weights(pass)->part_count == 1;
    if (!ahead && is_one_row(&p, span)) {
        run_one_row(&p, s0, s1);
    } else {
        fl_pass_begin(&p, span);
        if (ahead)
            run_ahead(&p, s0, s1);
        else
            run_steps(&p, s0, s1, span, hoist_here);
    }
    if (p.mate < p.mates) keep_state(&p, s0, s1);
    fl_pace_end(&p.pace);
    return p.mates;
}
