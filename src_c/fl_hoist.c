/* Input products of some steps, made before the steps that use them. */
#include "fl_layer.h"

/* The count of steps that a clockwork's row r has at step s. */
static int64_t clock_at(const fl_pass *p, int64_t r, int64_t s, int64_t s0)
{
    const fl_job *job = p->job;
    const fl_model *m = job->m;
    const int64_t b = job->order.row[r], t = fl_time(p->dir, s, job->order.length[r]);
    if (fl_cut(job->call->reset, p->dir, s, t, b, job->call->batch)) return 0;
    const int64_t before = p->dir ? t + 1 : t - 1;
    const char *given = fl_pass_state(p, job->call->cn, b, m->cells);
    return fl_clock_value(m, p->c.data && s > s0 ? fl_at(&p->c, before, b) : given);
}

/* fl_hoist_inputs of a clockwork: of each module for the steps that it will run. */
static void hoist_modules(const fl_pass *p, int64_t s, int64_t s0, int64_t span, int64_t first, int64_t end)
{
    const fl_job *job = p->job;
    const fl_model *m = job->m;
    const fl_call *call = job->call;
    const void **a = p->pointers + FL_PASS_ALL * job->strip;
    void **out = (void **)(a + job->strip * job->plan.hoist);
    for (int k = 0; k < fl_pass_weights(p)->part_count; k++) {
        const fl_part *part = &fl_pass_weights(p)->part[k];
        int64_t n = 0;
        for (int64_t i = first; i < end; i++) {
            const int64_t r = p->row0 + i * p->row_step, b = job->order.row[r], length = job->order.length[r];
            int64_t clock = clock_at(p, r, s, s0);
            for (int64_t q = 0; q < span && s + q < length; q++, clock = (clock + 1) % m->cycle) {
                const int64_t t = fl_time(p->dir, s + q, length);
                if (q && fl_cut(call->reset, p->dir, s + q, t, b, call->batch)) clock = 0;
                if (clock % part->period) continue;
                a[n] = fl_at(&p->x, t, b);
                out[n++] = fl_pass_pre(p, q, r) + part->pre_first * m->unit;
            }
        }
        fl_turn_part_inputs(m, fl_pass_weights(p), part, n, a, out, p->mate, p->mates);
    }
}

void fl_hoist_inputs(const fl_pass *p, int64_t s, int64_t span, int64_t first, int64_t end, int64_t pre_slot, int piece,
                     int pieces)
{
    const fl_job *job = p->job;
    const void **a = p->pointers + FL_PASS_ALL * job->strip;
    void **out = (void **)(a + job->strip * job->plan.hoist);
    const int64_t row0 = p->row0 + first * p->row_step, apart = p->row_step * job->m->wide * job->m->unit;
    const int64_t slot = job->call->batch * job->m->wide * job->m->unit, by = p->dir ? -p->x.step : p->x.step;
    const char *pre = fl_pass_pre(p, pre_slot, row0);
    int64_t n = 0, before = 0; /* pointers so far, and of the step before */
    for (int64_t q = 0; q < span; q++, n += before, pre += slot) {
        end = fl_pass_active(p, s + q, end);
        if (end <= first) break;
        if (q == 0) {
            const fl_strip strip = {&job->order, p->dir, s, row0, p->row_step, end - first, 0, 0};
            fl_list_fill(a, &p->x, &strip, 0);
        } else {
            fl_list_shift(a + n, a + n - before, by, end - first);
        }
        before = end - first;
        fl_list_even((const void **)out + n, pre, apart, before);
    }
    fl_turn_inputs(job->m, fl_pass_weights(p), n, a, out, piece, pieces);
}

/* fl_hoist_inputs, this mate's blocks in pieces where steps are cut: a worker of so many more would have each. */
static void hoist_pieces(const fl_pass *p, int64_t s, int64_t span, int64_t first, int64_t end)
{
    const int count = (int)p->slices.count;
    for (int i = 0; i < count; i++) {
        if (count > 1 && fl_stop_look(p->job->stop, p->worker, p->slices.slice_ns)) return;
        fl_hoist_inputs(p, s, span, first, end, 0, p->mate * count + i, p->mates * count);
    }
}

void fl_hoist_strips(const fl_pass *p, int64_t s, int64_t s0, int64_t span, int64_t rows)
{
    const int64_t strip = p->job->strip;
    for (int64_t first = 0; first < rows; first += strip) {
        const int64_t end = first + strip < rows ? first + strip : rows;
        if (p->job->m->spec.cell == FL_CELL_CLOCKWORK)
            hoist_modules(p, s, s0, span, first, end);
        else
            hoist_pieces(p, s, span, first, end);
    }
}
