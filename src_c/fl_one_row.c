/* What the kernel for steps of one row finds ready: the groups of blocks of each layer. */
#include "fl_internal.h"

/* Full blocks by twos; the narrow one goes with the last of them. */
static int64_t groups_of(int64_t full) { return full < 2 ? 1 : (full + 1) / 2; }

/* Where the weights are in the first cache, and eight vectors or more keep the multipliers busy, an input product takes
 * no longer within a step than for many steps at once.  Fewer vectors leave multipliers idle while they wait for each
 * other: `idle` operations of each step.  Below some 100 of them that costs less than a step's pointer lists. */
static int hoists(const fl_model *m, int64_t inputs, int64_t vectors)
{
    const int64_t idle = vectors < 8 ? inputs * (8 - vectors) : 0;
    return idle > 96 || (inputs + m->recurrent) * vectors * m->width * m->unit > FL_FIRST_CACHE;
}

void fl_one_row_place(const fl_model *m, fl_arena *arena, fl_packed *w)
{
    const fl_part *p = w->part;
    const int64_t vectors = p->wide / m->width;
    w->one_row = (fl_one_row){
        .hidden = p->layout.hidden,
        .full = vectors / p->layout.vectors,
        .narrow = (int)(vectors % p->layout.vectors),
        .whole = vectors <= m->real->one_row_vectors,
        .hoists = hoists(m, w->inputs, vectors),
        .options = &w->options,
    };
    w->one_row.groups = groups_of(w->one_row.full);
    w->one_row.group = fl_arena_take(arena, w->one_row.groups, sizeof(fl_one_row_group));
}

static fl_one_row_group group_of(const fl_model *m, const fl_packed *w, int64_t i)
{
    const fl_part *p = w->part;
    const fl_gate_layout *l = &p->layout;
    const fl_one_row *row = &w->one_row;
    const int64_t first = 2 * i, left = row->full - first, at = first * l->vectors * m->width * m->unit;
    const int full = (int)(left < 2 ? left : 2), last = left <= 2 ? row->narrow : 0;
    return (fl_one_row_group){
        .sums = m->real->one_row_sums(l->vectors, full, last),
        .panel_x = (const char *)p->panel_x + at * w->inputs,
        .panel_h = (const char *)p->panel_h + at * p->k_h,
        .bias = (const char *)p->bias + at,
        .bias_h = p->bias_h ? (const char *)p->bias_h + at : NULL,
        .k_x = w->inputs,
        .k_h = p->k_h,
        .first = first,
        .full = full,
        .last = last,
        .joint_lanes = l->joint * fl_gate_lanes(last, l->vectors, l->units, (int)m->width),
    };
}

void fl_one_row_prepare(fl_model *m)
{
    const fl_spec *s = &m->spec;
    const size_t unit = (size_t)m->unit, layers = (size_t)s->num_layers * unit;
    for (int i = 0; i < s->num_layers * s->directions; i++) {
        const fl_packed *w = &m->layers[i];
        fl_one_row_group *group = (fl_one_row_group *)w->one_row.group;
        for (int64_t g = 0; g < w->one_row.groups; g++) group[g] = group_of(m, w, g);
    }
    m->step.x = (size_t)s->input_size * unit;
    m->step.h = (size_t)m->recurrent * layers;
    m->step.c = (size_t)m->cells * layers;
    m->step.y = (size_t)m->recurrent * unit;
    m->step.workspace = fl_step_bytes(m, 1);
}
