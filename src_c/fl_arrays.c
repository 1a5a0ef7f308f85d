/* Arrays of a call: see fl_arrays.h.
 *
 * Two arrays whose ranges of addresses do not meet cannot overlap: that is all that most calls look at.  Where the
 * ranges meet, as with inputs and outputs side by side in the rows of one buffer, every row is looked at. */
#include "fl_arrays.h"

/* --- an array */

static fl_array block_of(const void *data, size_t bytes)
{
    const int64_t first = (int64_t)(uintptr_t)data, room = INT64_MAX - first;
    const int64_t width = !data ? 0 : (uint64_t)bytes < (uint64_t)room ? (int64_t)bytes : room;
    return (fl_array){first, first + width, first, 1, 1, 0, 0, width};
}

/* Bytes from the first to the last of n rows that are so many elements apart; SIZE_MAX: does not fit. */
static size_t reach(int64_t n, int64_t step, int64_t unit)
{
    if (n <= 1 || step == 0) return 0;
    return step < -INT64_MAX ? SIZE_MAX : fl_bytes(n - 1, step < 0 ? -step : step, 1, unit);
}

/* A sequence (T, B, width elements) -> *out.  0: it does not fit an object. */
static int rows_of(const fl_sequence *s, int64_t steps, int64_t batch, int64_t width, int64_t unit, fl_array *out)
{
    *out = (fl_array){0};
    if (!s->data || steps == 0 || batch == 0) return 1;
    const size_t outer = reach(steps, s->step, unit), inner = reach(batch, s->row, unit);
    const size_t row = fl_bytes(width, 1, 1, unit);
    const size_t whole = fl_bytes_sum(fl_bytes_sum(outer, inner), row);
    const int64_t data = (int64_t)(uintptr_t)s->data;
    if (whole == SIZE_MAX || (uint64_t)whole > (uint64_t)(INT64_MAX - data)) return 0;
    const int64_t before = (s->step < 0 ? (int64_t)outer : 0) + (s->row < 0 ? (int64_t)inner : 0);
    *out = (fl_array){.first = data - before, .data = data, .outer = steps, .inner = batch, .width = (int64_t)row};
    out->end = out->first + (int64_t)outer + (int64_t)inner + (int64_t)row;
    if (steps > 1) out->outer_step = s->step * unit;
    if (batch > 1) out->inner_step = s->row * unit;
    return 1;
}

/* Brings the larger step outside, and both above 0.  Returns whether rows then follow one another without overlap. */
static int set_in_order(fl_array *a)
{
    a->data = a->first;
    if (a->outer_step < 0) a->outer_step = -a->outer_step;
    if (a->inner_step < 0) a->inner_step = -a->inner_step;
    if (a->outer == 1 || (a->inner > 1 && a->inner_step > a->outer_step)) {
        const fl_array b = *a;
        a->outer = b.inner;
        a->inner = b.outer;
        a->outer_step = b.inner_step;
        a->inner_step = b.outer_step;
    }
    const int64_t inside = (a->inner - 1) * a->inner_step + a->width;
    return (a->inner == 1 || a->inner_step >= a->width) && (a->outer == 1 || a->outer_step >= inside);
}

/* --- two arrays */

static int64_t divide_up(int64_t a, int64_t b) { return a / b + (a % b > 0); } /* b > 0 */

/* Which of n pieces of `size` bytes, `step` apart, have a byte in [from, to): *low to *high, none if *low is larger. */
static void pieces_in(int64_t n, int64_t step, int64_t size, int64_t from, int64_t to, int64_t *low, int64_t *high)
{
    *low = n > 1 && from >= size ? (from - size) / step + 1 : from < size ? 0 : 1;
    *high = n > 1 ? divide_up(to, step) - 1 : to > 0 ? 0 : -1;
    if (*high > n - 1) *high = n - 1;
}

/* Whether an array in order has a byte in [from, to). */
static int has_bytes(const fl_array *a, int64_t from, int64_t to)
{
    const int64_t inside = (a->inner - 1) * a->inner_step + a->width;
    int64_t low, high, first, last;
    from -= a->data;
    to -= a->data;
    pieces_in(a->outer, a->outer_step, inside, from, to, &low, &high);
    if (high - low > 1) return 1; /* the one in between is there as a whole */
    for (int64_t i = low; i <= high; i++) {
        pieces_in(a->inner, a->inner_step, a->width, from - i * a->outer_step, to - i * a->outer_step, &first, &last);
        if (first <= last) return 1;
    }
    return 0;
}

/* Whether rows meet, row by row of b; the rows of a do not overlap one another. */
static int rows_meet(fl_array a, const fl_array *b)
{
    if (!set_in_order(&a)) return 1;
    for (int64_t i = 0; i < b->outer; i++)
        for (int64_t j = 0; j < b->inner; j++) {
            const int64_t row = b->data + i * b->outer_step + j * b->inner_step;
            if (has_bytes(&a, row, row + b->width)) return 1;
        }
    return 0;
}

static int in_range(const fl_array *a, const fl_array *b) { return a->first < b->end && b->first < a->end; }
static int meet(const fl_array *a, const fl_array *b) { return in_range(a, b) && rows_meet(*a, b); }

/* --- a call */

enum { MOST = 16 };
typedef struct fl_arrays {
    fl_array of[MOST];
    int count, written; /* the first ones are written */
} fl_arrays;

static void add(fl_arrays *all, fl_array a)
{
    if (a.end > a.first) all->of[all->count++] = a;
}

/* Whether a meets one of them, from number `from` on. */
static int meets_any(const fl_arrays *all, const fl_array *a, int from)
{
    for (int i = from; i < all->count; i++)
        if (meet(a, &all->of[i])) return 1;
    return 0;
}

static int meets_masks(const fl_model *m, const fl_call *call, const fl_array *a)
{
    const int64_t T = call->steps, B = call->batch, unit = m->unit;
    for (int s = 0; call->masks && s < m->spec.num_layers * m->spec.directions; s++) {
        const fl_masks *k = &call->masks[s];
        const int64_t inputs = fl_layer_inputs(&m->spec, s / m->spec.directions);
        const fl_array of[] = {block_of(k->mask_x, fl_bytes(B, inputs, 1, unit)),
                               block_of(k->mask_h, fl_bytes(B, m->recurrent, 1, unit)),
                               block_of(k->mask_g, fl_bytes(T, B, m->spec.hidden_size, unit)),
                               block_of(k->zoneout_h, fl_bytes(T, B, m->recurrent, unit)),
                               block_of(k->zoneout_c, fl_bytes(T, B, m->spec.hidden_size, unit))};
        for (int i = 0; i < 5; i++)
            if (of[i].end > of[i].first && meet(a, &of[i])) return 1;
    }
    return 0;
}

/* Sizes that both kinds of calls have. */
typedef struct fl_call_sizes {
    size_t h, c, dropout, cache;
    fl_array x, y;
} fl_call_sizes;

static int measure(const fl_model *m, const fl_call *call, fl_call_sizes *s)
{
    const int64_t T = call->steps, B = call->batch, slots = (int64_t)m->spec.num_layers * m->spec.directions;
    const int64_t outputs = m->recurrent * m->spec.directions, unit = m->unit;
    const int64_t widest = m->spec.hidden_size > m->spec.input_size ? m->spec.hidden_size : m->spec.input_size;
    s->h = fl_bytes(slots, B, m->recurrent, unit);
    s->cache = call->cache ? fl_cache_bytes(m, T, B, fl_cache_flags(m, call)) : 0;
    s->c = fl_bytes(slots, B, m->cells, unit);
    s->dropout = 0;
    if (call->dropout) s->dropout = fl_bytes((m->spec.num_layers - 1) * T, B, outputs, unit);
    if (s->h == SIZE_MAX || s->c == SIZE_MAX || s->dropout == SIZE_MAX) return 0;
    if (call->reset && fl_bytes(T, B, 1, 1) == SIZE_MAX) return 0;
    if (call->masks && fl_bytes(T < 1 ? 1 : T, B, widest > outputs ? widest : outputs, unit) == SIZE_MAX) return 0;
    return rows_of(&call->x, T, B, m->spec.input_size, unit, &s->x) && rows_of(&call->y, T, B, outputs, unit, &s->y);
}

/* What both kinds of calls read. */
static void add_inputs(fl_arrays *all, const fl_call *call, const fl_call_sizes *s)
{
    const int64_t T = call->steps, B = call->batch;
    add(all, s->x);
    if (call->lengths) add(all, block_of(call->lengths, (size_t)B * sizeof *call->lengths));
    if (call->reset) add(all, block_of(call->reset, (size_t)(T * B)));
    if (call->dropout) add(all, block_of(call->dropout, s->dropout));
}

/* Whether one that is written meets another. */
static int any_written_meets(const fl_model *m, const fl_call *call, const fl_arrays *all)
{
    for (int i = 0; i < all->written; i++) {
        if (meets_any(all, &all->of[i], i + 1)) return 1;
        if (call->masks && meets_masks(m, call, &all->of[i])) return 1;
    }
    return 0;
}

/* Whether anything that is written meets the state that h or c is made from, but for h and c themselves: a state is
 * moved to its new place, so that may be the old one or overlap it. */
static int states_meet(const fl_arrays *all, const fl_array *h, const fl_array *c, const void *h_from,
                       const void *c_from)
{
    const fl_array from_h = block_of(h_from, (size_t)(h->end - h->first));
    const fl_array from_c = block_of(c_from, (size_t)(c->end - c->first));
    for (int i = 0; i < all->written; i++) {
        const int of_h = all->of[i].first == h->first && h->end > h->first;
        const int of_c = all->of[i].first == c->first && c->end > c->first;
        if (h_from && !of_h && meet(&all->of[i], &from_h)) return 1;
        if (c_from && !of_c && meet(&all->of[i], &from_c)) return 1;
    }
    return 0;
}

enum fl_status fl_forward_arrays(const fl_model *m, const fl_call *call, size_t workspace_used)
{
    fl_arrays all = {.count = 0};
    fl_call_sizes s;
    if (!measure(m, call, &s)) return FL_ERR_OVERFLOW;
    fl_array y = s.y;
    if (y.end > y.first && !set_in_order(&y)) return FL_ERR_ARGUMENT; /* its rows overlap */
    const fl_array hn = block_of(call->hn, s.h), cn = block_of(m->cells ? call->cn : NULL, s.c);
    add(&all, hn);
    add(&all, cn);
    add(&all, s.y);
    add(&all, block_of(call->cache, s.cache));
    add(&all, block_of(call->workspace, workspace_used));
    all.written = all.count;
    add_inputs(&all, call, &s);
    if (any_written_meets(m, call, &all)) return FL_ERR_ARGUMENT;
    return states_meet(&all, &hn, &cn, call->h0, m->cells ? call->c0 : NULL) ? FL_ERR_ARGUMENT : FL_OK;
}

/* --- gradients of weights */

static fl_array gradient_array(const fl_model *m, const fl_backward_call *back, int slot, int tensor)
{
    const void *data = fl_gradient_of(&back->gradients[slot], tensor);
    return block_of(data, (size_t)(m->layers[slot].size[tensor] * m->unit));
}

/* From the first to the last of a layer and direction. */
static fl_array range_of(const fl_model *m, const fl_backward_call *back, int slot)
{
    fl_array all = {0};
    for (int tensor = 0; tensor < FL_TENSORS; tensor++) {
        const fl_array a = gradient_array(m, back, slot, tensor);
        if (a.end == a.first) continue;
        if (all.end == 0 || a.first < all.first) all.first = a.first;
        if (a.end > all.end) all.end = a.end;
    }
    return all;
}

/* Whether two of them meet, one of each slot; of one slot, two different ones. */
static int slots_meet(const fl_model *m, const fl_backward_call *back, int slot, int other)
{
    for (int i = 0; i < FL_TENSORS; i++) {
        const fl_array a = gradient_array(m, back, slot, i);
        for (int j = slot == other ? i + 1 : 0; j < FL_TENSORS && a.end > a.first; j++) {
            const fl_array b = gradient_array(m, back, other, j);
            if (b.end > b.first && in_range(&a, &b)) return 1;
        }
    }
    return 0;
}

static int gradients_meet(const fl_model *m, const fl_call *call, const fl_backward_call *back, const fl_arrays *all)
{
    for (int slot = 0; slot < m->spec.num_layers * m->spec.directions; slot++) {
        const fl_array here = range_of(m, back, slot);
        for (int i = 0; i < FL_TENSORS; i++) {
            const fl_array a = gradient_array(m, back, slot, i);
            if (a.end > a.first && (meets_any(all, &a, 0) || meets_masks(m, call, &a))) return 1;
        }
        if (slots_meet(m, back, slot, slot)) return 1;
        for (int other = 0; other < slot; other++) {
            const fl_array there = range_of(m, back, other);
            if (in_range(&here, &there) && slots_meet(m, back, slot, other)) return 1;
        }
    }
    return 0;
}

enum fl_status fl_backward_arrays(const fl_model *m, const fl_call *call, const fl_backward_call *back,
                                  size_t workspace_used)
{
    const int64_t T = call->steps, B = call->batch, outputs = m->recurrent * m->spec.directions;
    const size_t dx = fl_bytes(T, B, m->spec.input_size, m->unit);
    fl_arrays all = {.count = 0};
    fl_call_sizes s;
    fl_array dy;
    if (!measure(m, call, &s) || !rows_of(&back->dy, T, B, outputs, m->unit, &dy)) return FL_ERR_OVERFLOW;
    if (back->dx && dx == SIZE_MAX) return FL_ERR_OVERFLOW;
    const fl_array dh0 = block_of(back->dh0, s.h), dc0 = block_of(m->cells ? back->dc0 : NULL, s.c);
    const void *dcn = m->cells ? back->dcn : NULL;
    add(&all, dh0);
    add(&all, dc0);
    if (back->dx) add(&all, block_of(back->dx, dx));
    add(&all, block_of(call->workspace, workspace_used));
    all.written = all.count;
    add_inputs(&all, call, &s);
    add(&all, s.y);
    add(&all, dy);
    add(&all, block_of(call->h0, s.h));
    if (m->cells) add(&all, block_of(call->c0, s.c));
    add(&all, block_of(call->cache, s.cache));
    if (any_written_meets(m, call, &all) || states_meet(&all, &dh0, &dc0, back->dhn, dcn)) return FL_ERR_ARGUMENT;
    add(&all, block_of(back->dhn, s.h));
    add(&all, block_of(dcn, s.c));
    return gradients_meet(m, call, back, &all) ? FL_ERR_ARGUMENT : FL_OK;
}
