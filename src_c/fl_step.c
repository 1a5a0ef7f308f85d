/* One step on the calling thread: no team, no lock, no allocation, no system call.  Safe on an audio thread. */
#include <string.h>

#include "fl_internal.h"
#include "fl_team.h"

static void lay_out(const fl_model *m, fl_arena *arena, int64_t batch, const void ***pointers, char **cell_out,
                    char **between)
{
    *pointers = fl_arena_take3(arena, 5, batch, 1, sizeof(void *));
    *cell_out = fl_arena_take3(arena, batch, m->spec.hidden_size, 1, m->unit);
    *between = fl_arena_take3(arena, batch, m->recurrent, 1, m->unit);
}

size_t fl_step_bytes(const fl_model *m, int64_t batch)
{
    if (batch < 0 || batch > FL_LARGEST) return SIZE_MAX;
    fl_arena arena = {0};
    const void **pointers;
    char *cell_out, *between;
    lay_out(m, &arena, batch, &pointers, &cell_out, &between);
    return arena.overflow ? SIZE_MAX : arena.used;
}

/* Rows of a dense (B, width) array. */
static void rows_of(const void **list, const void *data, int64_t batch, int64_t width, int64_t unit)
{
    for (int64_t b = 0; b < batch; b++) list[b] = (const char *)data + b * width * unit;
}

enum fl_status fl_step(const fl_model *m, int64_t batch, const void *x, void *h, void *c, void *y, void *workspace,
                       size_t workspace_bytes)
{
    if (!m || batch < 0 || m->spec.directions != 1) return FL_ERR_ARGUMENT;
    if (batch && (!x || !h || (m->states == 2 && !c) || !y)) return FL_ERR_ARGUMENT;
    if (batch > FL_LARGEST) return FL_ERR_OVERFLOW;
    fl_arena arena = {.base = workspace};
    const void **pointers;
    char *cell_out, *between;
    lay_out(m, &arena, batch, &pointers, &cell_out, &between);
    if (batch == 0) return FL_OK;
    if ((uintptr_t)workspace % FL_ALIGN) return FL_ERR_WORKSPACE;
    const enum fl_status status = fl_arena_check(&arena, workspace_bytes);
    if (status != FL_OK) return status;

    const int64_t hidden = m->spec.hidden_size, recurrent = m->recurrent, unit = m->unit;
    const void **xs = pointers, **hs = xs + batch, **cs = hs + batch, **ms = cs + batch, **ys = ms + batch;
    const int turn = fl_snake(m, 1);
    const unsigned saved = fl_float_enter();
    for (int l = 0; l < m->spec.num_layers; l++) {
        const fl_packed *w = &m->layers[l];
        const int last = l == m->spec.num_layers - 1;
        /* the cell writes beside its operands: every block still reads the whole of x and h */
        char *out = last ? y : between, *cells = cell_out;
        rows_of(xs, l ? (const char *)between : (const char *)x, batch, w->inputs, unit);
        rows_of(hs, (char *)h + l * batch * recurrent * unit, batch, recurrent, unit);
        if (m->states == 2) rows_of(cs, (char *)c + l * batch * hidden * unit, batch, hidden, unit);
        rows_of(ms, cells, batch, hidden, unit);
        rows_of(ys, out, batch, recurrent, unit);
        const fl_step_args step = {
            .rows = batch,
            .hidden = hidden,
            .block0 = 0,
            .block1 = m->blocks,
            .backward_sweep = turn,
            .k_x = w->inputs,
            .k_h = recurrent,
            .x = xs,
            .h = hs,
            .panel_x = w->panel_x,
            .panel_h = w->panel_h,
            .bias = w->bias,
            .bias_h = w->bias_h,
            .activation = m->spec.activation,
            .c_prev = cs,
            .c = (void **)cs,
            .h_out = (void **)ms,
        };
        m->real->step[m->spec.cell](&step);
        if (w->panel_r) {
            const fl_product_args project = {
                .rows = batch,
                .k = hidden,
                .columns = recurrent,
                .block0 = 0,
                .block1 = fl_plain_blocks(recurrent, m->width),
                .vectors = FL_PANEL_VECTORS,
                .a = ms,
                .panel = w->panel_r,
                .out = (void **)ys,
            };
            m->real->product(&project);
        } else {
            memcpy(out, cells, (size_t)(batch * recurrent * unit));
        }
        memcpy((char *)h + l * batch * recurrent * unit, out, (size_t)(batch * recurrent * unit));
    }
    fl_float_leave(saved);
    return FL_OK;
}
