/* One step on the calling thread: no team, no lock, no allocation, no system call.  Safe on an audio thread. */
#include <string.h>

#include "fl_turn.h"

enum { LISTS = 12 };

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
    w.pre = w.side = w.kept = NULL; /* a query for nothing costs more than the question */
    if (m->row_body) w.pre = fl_arena_take3(arena, batch, m->wide, 1, m->unit);
    if (m->side) w.side = fl_arena_take3(arena, batch, m->side, 1, m->unit);
    if (m->keeps) w.kept = fl_arena_take3(arena, batch, m->kept, 1, m->unit);
    return w;
}

size_t fl_step_bytes(const fl_model *m, int64_t batch)
{
    if (!m || batch < 0 || batch > FL_LARGEST) return SIZE_MAX;
    fl_arena arena = {0};
    lay_out(m, &arena, batch);
    return arena.overflow ? SIZE_MAX : arena.used;
}

/* Rows of a dense (B, width) array. */
static void rows_of(const void **list, const void *data, int64_t batch, int64_t width, int64_t unit)
{
    for (int64_t b = 0; b < batch; b++) list[b] = (const char *)data + b * width * unit;
}

/* Lists that plain layers do without. */
static void more_lists(fl_turn *t, int layer, int64_t batch, const fl_step_memory *memory, const char *c)
{
    const fl_model *m = t->m;
    const void **l[7];
    for (int i = 0; i < 7; i++) l[i] = memory->lists + (5 + i) * batch;
    if (m->side) rows_of(l[0], memory->side, batch, m->side, m->unit);
    if (m->keeps) rows_of(l[1], memory->kept, batch, m->kept, m->unit);
    if (m->depth && layer) rows_of(l[2], c + (layer - 1) * batch * m->cells * m->unit, batch, m->cells, m->unit);
    for (int64_t b = 0; b < batch; b++) l[3][b] = m->zones[0], l[4][b] = m->zones[1];
    if (m->row_body) {
        rows_of(l[5], memory->pre, batch, m->wide, m->unit);
        for (int64_t b = 0; b < batch; b++) l[6][b] = l[5][b];
        fl_turn_inputs(m, t->w, batch, t->lists.x, (void **)l[6], 0, 1);
    }
    t->lists.side = l[0];
    t->lists.gates = m->keeps ? (void **)l[1] : NULL;
    t->lists.lower = m->depth && layer ? l[2] : NULL;
    t->lists.zoneout_h = m->zones[0] && !t->w->panel_r ? l[3] : NULL;
    t->lists.zoneout_c = m->zones[1] ? l[4] : NULL;
    t->pre = l[5];
}

/* One layer: x -> out, h and c of this layer in place. */
static void step_layer(const fl_model *m, int layer, int64_t batch, const fl_step_memory *memory, const void *x,
                       char *h, char *c, char *out, int turn)
{
    const fl_packed *w = &m->layers[layer];
    const int64_t H = m->spec.hidden_size, unit = m->unit;
    const void **xs = memory->lists, **hs = xs + batch, **cs = hs + batch, **cells = cs + batch, **ys = cells + batch;
    h += layer * batch * m->recurrent * unit;
    rows_of(xs, x, batch, w->inputs, unit);
    rows_of(hs, h, batch, m->recurrent, unit);
    if (m->cells) rows_of(cs, c + layer * batch * m->cells * unit, batch, m->cells, unit);
    rows_of(cells, memory->cell_out, batch, H, unit);
    fl_turn step = {
        .m = m,
        .w = w,
        .lists = {.rows = batch,
                  .backward_sweep = turn,
                  .x = xs,
                  .h = hs,
                  .c_prev = cs,
                  .c = (void **)cs,
                  .h_out = (void **)cells, /* the cell writes beside its operands: every block reads all of x and h */
                  .h_prev = hs},
        .hoisted = m->row_body,
        .free = m->zones[0] || m->zones[1],
        .mates = 1,
        .scratch = memory->lists + LISTS * batch,
    };
    if (step.free || m->keeps || m->side || m->depth) more_lists(&step, layer, batch, memory, c);
    fl_turn_begin(&step);
    fl_turn_run(&step, NULL);
    if (w->panel_r) {
        rows_of(ys, out, batch, m->recurrent, unit);
        const void *const *zone = m->zones[0] ? memory->lists + 8 * batch : NULL;
        fl_turn_project(m, w, batch, cells, (void **)ys, hs, zone, 0, 1);
    } else {
        memcpy(out, memory->cell_out, (size_t)(batch * m->recurrent * unit));
    }
    if (h != out) memcpy(h, out, (size_t)(batch * m->recurrent * unit));
}

/* x is read before y and h are written, so it may overlap these; y may be where the last layer's h is. */
static inline int apart(fl_block x, fl_block h, fl_block c, fl_block y, fl_block work)
{
    const int in_place = y.end == h.end;
    const int states = fl_meet(c, x) | fl_meet(c, h) | fl_meet(c, y) | (fl_meet(y, h) & !in_place);
    return !(states | fl_meet(work, x) | fl_meet(work, h) | fl_meet(work, c) | fl_meet(work, y));
}

static enum fl_status check_arrays(const fl_model *m, int64_t batch, const void *x, const void *h, const void *c,
                                   const void *y, const void *workspace, size_t workspace_used)
{
    const int64_t layers = m->spec.num_layers, rows = batch * m->unit;
    const size_t hs = fl_bytes(layers, batch, m->recurrent, m->unit), cs = fl_bytes(layers, batch, m->cells, m->unit);
    const size_t xs = fl_bytes(rows, m->spec.input_size, 1, 1), ys = (size_t)(rows * m->recurrent); /* less than hs */
    if ((hs == SIZE_MAX) | (cs == SIZE_MAX) | (xs == SIZE_MAX)) return FL_ERR_OVERFLOW;
    return apart(fl_block_of(x, xs), fl_block_of(h, hs), fl_block_of(m->cells ? c : NULL, cs), fl_block_of(y, ys),
                 fl_block_of(workspace, workspace_used))
               ? FL_OK
               : FL_ERR_ARGUMENT;
}

/* One row of plain layers.  What a layer hands on is its h. */
static void one_row_layers(const fl_model *m, const char *x, char *h, char *c, char *y, char *scratch, int turn)
{
    const int layers = m->spec.num_layers;
    const size_t bytes = m->step.y, c_bytes = m->step.c / (size_t)layers;
    void (*const run)(const fl_one_row_args *) = m->real->one_row[m->body];
    for (int l = 0; l < layers; l++, x = h, h += bytes, c += c_bytes) {
        const fl_one_row *layer = &m->layers[l].one_row;
        fl_one_row_args args = {.layer = layer, .steps = 1, .x = x, .h = h, .c = c, .y = h, .backward_sweep = turn};
        char *beside = l == layers - 1 && y != h ? y : NULL;
        args.also = beside;
        if (!layer->whole) {
            args.y = scratch;
            args.also = h;
        }
        run(&args);
        if (!layer->whole && beside) memcpy(y, h, bytes);
    }
}

static void any_layers(const fl_model *m, int64_t batch, const fl_step_memory *memory, const void *x, char *h, char *c,
                       char *y, int turn)
{
    for (int l = 0; l < m->spec.num_layers; l++) {
        char *out = l == m->spec.num_layers - 1 ? y : memory->between;
        step_layer(m, l, batch, memory, l ? (const void *)memory->between : x, h, c, out, turn);
    }
}

void fl_step_run(const fl_model *m, int64_t batch, const void *x, void *h, void *c, void *y, void *workspace, int turn)
{
    const unsigned saved = fl_float_enter();
    if (m->one_row && batch == 1) {
        one_row_layers(m, x, h, c, y, workspace, turn);
    } else {
        fl_arena arena = {.base = workspace};
        const fl_step_memory memory = lay_out(m, &arena, batch);
        any_layers(m, batch, &memory, x, h, c, y, turn);
    }
    fl_float_leave(saved);
}

static enum fl_status step_one_row(const fl_model *m, const void *x, void *h, void *c, void *y, void *workspace,
                                   size_t workspace_bytes)
{
    if (!x || !h || (m->cells && !c) || !y) return FL_ERR_ARGUMENT;
    const int misplaced = !workspace || (uintptr_t)workspace % FL_ALIGN;
    if (misplaced || workspace_bytes < m->step.workspace) return FL_ERR_WORKSPACE;
    const fl_block of_c = fl_block_of(m->cells ? c : NULL, m->step.c), work = fl_block_of(workspace, m->step.workspace);
    if (!apart(fl_block_of(x, m->step.x), fl_block_of(h, m->step.h), of_c, fl_block_of(y, m->step.y), work))
        return FL_ERR_ARGUMENT;
    fl_step_run(m, 1, x, h, c, y, workspace, fl_snake(m, 1));
    return FL_OK;
}

enum fl_status fl_step(const fl_model *m, int64_t batch, const void *x, void *h, void *c, void *y, void *workspace,
                       size_t workspace_bytes)
{
    if (!m || batch < 0 || m->spec.directions != 1) return FL_ERR_ARGUMENT;
    if (m->one_row && batch == 1) return step_one_row(m, x, h, c, y, workspace, workspace_bytes);
    if (batch && (!x || !h || (m->cells && !c) || !y)) return FL_ERR_ARGUMENT;
    if (batch > FL_LARGEST) return FL_ERR_OVERFLOW;
    fl_arena arena = {.base = workspace};
    const fl_step_memory memory = lay_out(m, &arena, batch);
    if (batch == 0) return FL_OK;
    if ((uintptr_t)workspace % FL_ALIGN) return FL_ERR_WORKSPACE;
    enum fl_status status = fl_arena_check(&arena, workspace_bytes);
    if (status == FL_OK) status = check_arrays(m, batch, x, h, c, y, workspace, arena.used);
    if (status != FL_OK) return status;

    const unsigned saved = fl_float_enter();
    any_layers(m, batch, &memory, x, h, c, y, fl_snake(m, 1));
    fl_float_leave(saved);
    return FL_OK;
}
