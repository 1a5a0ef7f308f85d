/* Lists of pointers to the rows of a strip, from step to step: what the time loops forward and backward share. */
#ifndef FL_LISTS_H
#define FL_LISTS_H

#include "fl_internal.h"

/* Time of step s of a row of that length, in this direction. */
static inline int64_t fl_time(int dir, int64_t s, int64_t length) { return dir ? length - 1 - s : s; }

/* Whether the state is zeroed before step t of row b (s > 0 in the reverse direction: there is no later step else). */
static inline int fl_cut(const unsigned char *reset, int dir, int64_t s, int64_t t, int64_t b, int64_t batch)
{
    if (!reset || (dir && s == 0)) return 0;
    return reset[(t + dir) * batch + b] != 0;
}

/* Some rows of the order at one step: numbers row0, row0 + row_step, ... */
typedef struct fl_strip {
    const fl_order *order;
    int dir;
    int64_t s, row0, row_step, rows;
    int64_t kept, steps; /* so many of them, the first ones, are in the lists, as they were `steps` steps before */
} fl_strip;

/* A list whose pointer to row b of the batch at time t is fl_at(&of, t, b): from step to step all of them move by the
 * same distance. */
typedef struct fl_list {
    const void **to;
    fl_view of;
} fl_list;

typedef struct fl_lists {
    fl_list list[16];
    int count;
} fl_lists;
static inline void fl_lists_add(fl_lists *l, const void *to, fl_view of)
{
    l->list[l->count++] = (fl_list){(const void **)to, of};
}

/* Rows of (B, width), which are the same at every time. */
static inline fl_view fl_view_still(const void *data, int64_t width, int64_t unit)
{
    return (fl_view){(char *)data, 0, width * unit, 0};
}

/* Adds the lists of the masks that this layer and direction has, or of the rates of zoneout that stand in for them. */
static inline void fl_lists_add_masks(fl_lists *l, const fl_model *m, const fl_call *call, int64_t slot,
                                      const void **zone_h, const void **zone_c, const void **mask_g)
{
    const int64_t batch = call->batch, hidden = m->spec.hidden_size, unit = m->unit;
    if (!call->masks) {
        if (m->zones[0]) fl_lists_add(l, zone_h, fl_view_still(m->zones[0], 0, unit));
        if (m->zones[1]) fl_lists_add(l, zone_c, fl_view_still(m->zones[1], 0, unit));
        return;
    }
    const fl_masks *k = &call->masks[slot];
    if (k->zoneout_h) fl_lists_add(l, zone_h, fl_view_dense((void *)k->zoneout_h, batch, m->recurrent, unit, 0));
    if (k->zoneout_c) fl_lists_add(l, zone_c, fl_view_dense((void *)k->zoneout_c, batch, hidden, unit, 0));
    if (k->mask_g) fl_lists_add(l, mask_g, fl_view_dense((void *)k->mask_g, batch, hidden, unit, 0));
}

/* to[i] of rows [from, rows) of the strip */
static inline void fl_list_fill(const void **to, const fl_view *of, const fl_strip *strip, int64_t from)
{
    int64_t r = strip->row0 + from * strip->row_step;
    for (int64_t i = from; i < strip->rows; i++, r += strip->row_step)
        to[i] = fl_at(of, fl_time(strip->dir, strip->s, strip->order->length[r]), strip->order->row[r]);
}

/* The same rows, so many bytes on; four at a time, since a loop around one addition is mostly loop. */
static inline void fl_list_move(const void **to, int64_t by, int64_t n)
{
    const char **at = (const char **)(void *)to;
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        at[i] += by;
        at[i + 1] += by;
        at[i + 2] += by;
        at[i + 3] += by;
    }
    for (; i < n; i++) at[i] += by;
}

/* All rows of the strip: those that were there are moved, the others filled in. */
static inline void fl_list_point(const fl_list *list, const fl_strip *strip)
{
    const int64_t by = (strip->dir ? -strip->steps : strip->steps) * list->of.step;
    if (by) fl_list_move(list->to, by, strip->kept);
    if (strip->kept < strip->rows) fl_list_fill(list->to, &list->of, strip, strip->kept);
}
static inline void fl_lists_point(const fl_lists *l, const fl_strip *strip)
{
    for (int i = 0; i < l->count; i++) fl_list_point(&l->list[i], strip);
}

/* fl_list_move, and `before` keeps where it was */
static inline void fl_list_follow(const void **restrict before, const void **restrict to, int64_t by, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        before[i] = to[i];
        to[i] = (const char *)to[i] + by;
    }
}

/* to[i], i < n: so many bytes on from where `from`, another list, points */
static inline void fl_list_shift(const void **restrict to, const void *const *restrict from, int64_t by, int64_t n)
{
    for (int64_t i = 0; i < n; i++) to[i] = (const char *)from[i] + by;
}

/* to[i] = data + i * by; four at a time, since a loop around one store is mostly loop */
static inline void fl_list_even(const void **to, const char *data, int64_t by, int64_t n)
{
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const char *p = data + i * by;
        to[i] = p;
        to[i + 1] = p + by;
        to[i + 2] = p + 2 * by;
        to[i + 3] = p + 3 * by;
    }
    for (; i < n; i++) to[i] = data + i * by;
}

#endif
