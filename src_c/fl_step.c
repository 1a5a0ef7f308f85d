/* One step on the calling thread: no team, no lock, no allocation, no system call.  Safe on an audio thread. */
#include <string.h>

#include "fl_turn.h"

enum { LISTS = 13 };

typedef struct fl_step_memory {
    const void **lists; /* (LISTS + FL_TURN_LISTS, B) */
    char *cell_out, *between, *pre, *side, *kept;
} fl_step_memory;

static fl_step_memory lay_out(const fl_model *m, fl_arena *arena, int64_t batch)
{
    fl_step_memory w;
    w.lists = fl_arena_take3(arena, LISTS + FL_TURN_LISTS, batch, 1, sizeof(void *));
    w.cell_out = fl_arena_take3(arena, batch, m->spec.hidden_size, 1, m->unit);
    w.between = fl_arena_take3(arena, batch, m->recurrent, 1, m->unit);
    w.pre = fl_arena_take3(arena, m->row_body ? batch : 0, m->wide, 1, m->unit);
    w.side = fl_arena_take3(arena, batch, m->side, 1, m->unit);
    w.kept = fl_arena_take3(arena, m->keeps ? batch : 0, m->kept, 1, m->unit);
    return w;
}

size_t fl_step_bytes(const fl_model *m, int64_t batch)
{
    if (batch < 0 || batch > FL_LARGEST) return SIZE_MAX;
    fl_arena arena = {0};
    lay_out(m, &arena, batch);
    return arena.overflow ? SIZE_MAX : arena.used;
}

/* Rows of a dense (B, width) array. */
static void rows_of(const void **list, const void *data, int64_t batch, int64_t width, int64_t unit)
{
    for (int64_t b = 0; b < batch; b++) list[b] = (const char *)data + b * width * unit;
}

/* One layer: x -> out, h and c of this layer in place. */
static void step_layer(const fl_model *m, int layer, int64_t batch, const fl_step_memory *memory, const void *x,
                       char *h, char *c, char *out, int turn)
{
    const fl_packed *w = &m->layers[layer];
    const int64_t H = m->spec.hidden_size, unit = m->unit, of_c = batch * m->cells * unit;
    const void **l[LISTS];
    for (int i = 0; i < LISTS; i++) l[i] = memory->lists + i * batch;
    const void **xs = l[0], **hs = l[1], **cs = l[2], **cells = l[3], **ys = l[4], **pre = l[5], **side = l[6];
    const void **kept = l[7], **lower = l[8], **zone_h = l[9], **zone_c = l[10], **sums = l[11];
    rows_of(xs, x, batch, w->inputs, unit);
    rows_of(hs, h + layer * batch * m->recurrent * unit, batch, m->recurrent, unit);
    if (m->cells) rows_of(cs, c + layer * of_c, batch, m->cells, unit);
    if (m->depth && layer) rows_of(lower, c + (layer - 1) * of_c, batch, m->cells, unit);
    rows_of(cells, memory->cell_out, batch, H, unit);
    rows_of(ys, out, batch, m->recurrent, unit);
    if (m->side) rows_of(side, memory->side, batch, m->side, unit);
    if (m->keeps) rows_of(kept, memory->kept, batch, m->kept, unit);
    if (m->row_body) {
        rows_of(pre, memory->pre, batch, m->wide, unit);
        for (int64_t b = 0; b < batch; b++) sums[b] = pre[b];
        fl_turn_inputs(m, w, batch, xs, (void **)sums, 0, 1);
    }
    for (int64_t b = 0; b < batch; b++) zone_h[b] = m->zones[0], zone_c[b] = m->zones[1];
    const fl_turn step = {
        .m = m,
        .w = w,
        .lists = {.rows = batch,
                  .backward_sweep = turn,
                  .x = xs,
                  .h = hs,
                  .pre = pre,
                  .c_prev = cs,
                  .c = (void **)cs,
                  .h_out = (void **)cells, /* the cell writes beside its operands: every block reads all of x and h */
                  .gates = m->keeps ? (void **)kept : NULL,
                  .h_prev = hs,
                  .zoneout_h = m->zones[0] && !w->panel_r ? zone_h : NULL,
                  .zoneout_c = m->zones[1] ? zone_c : NULL,
                  .lower = m->depth && layer ? lower : NULL,
                  .side = side},
        .hoisted = m->row_body,
        .free = m->zones[0] || m->zones[1],
        .mates = 1,
        .scratch = memory->lists + LISTS * batch,
    };
    fl_turn_run(&step, NULL);
    if (w->panel_r)
        fl_turn_project(m, w, batch, cells, (void **)ys, hs, m->zones[0] ? zone_h : NULL, 0, 1);
    else
        memcpy(out, memory->cell_out, (size_t)(batch * m->recurrent * unit));
    memcpy(h + layer * batch * m->recurrent * unit, out, (size_t)(batch * m->recurrent * unit));
}

enum fl_status fl_step(const fl_model *m, int64_t batch, const void *x, void *h, void *c, void *y, void *workspace,
                       size_t workspace_bytes)
{
    if (!m || batch < 0 || m->spec.directions != 1) return FL_ERR_ARGUMENT;
    if (batch && (!x || !h || (m->cells && !c) || !y)) return FL_ERR_ARGUMENT;
    if (batch > FL_LARGEST) return FL_ERR_OVERFLOW;
    fl_arena arena = {.base = workspace};
    const fl_step_memory memory = lay_out(m, &arena, batch);
    if (batch == 0) return FL_OK;
    if ((uintptr_t)workspace % FL_ALIGN) return FL_ERR_WORKSPACE;
    const enum fl_status status = fl_arena_check(&arena, workspace_bytes);
    if (status != FL_OK) return status;

    const int turn = fl_snake(m, 1);
    const unsigned saved = fl_float_enter();
    for (int l = 0; l < m->spec.num_layers; l++) {
        char *out = l == m->spec.num_layers - 1 ? y : memory.between;
        step_layer(m, l, batch, &memory, l ? (const void *)memory.between : x, h, c, out, turn);
    }
    fl_float_leave(saved);
    return FL_OK;
}
