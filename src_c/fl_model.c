/* A model: specification checked, weights packed, immutable from then on. */
#include <stdlib.h>
#include <string.h>

#include "fl_internal.h"

static const struct {
    int gates, joint, vectors, units, states, kept;
} cell_rows[] = {
#define FL_CELL_ROW(ID, name, gates, joint, vectors, units, states, kept) {gates, joint, vectors, units, states, kept},
#include "cells.def"
#undef FL_CELL_ROW
};

/* tanh and relu are the choice of a simple network; every other cell's activations are its own. */
static int activation_valid(const fl_spec *s)
{
    return s->activation == FL_ACT_NONE ||
           (s->cell == FL_CELL_RNN && (s->activation == FL_ACT_TANH || s->activation == FL_ACT_RELU));
}

static int spec_valid(const fl_spec *s)
{
    return s->cell >= 0 && s->cell < FL_CELL_COUNT && (s->dtype == FL_F32 || s->dtype == FL_F64) &&
           s->num_layers >= 1 && (s->directions == 1 || s->directions == 2) && s->input_size >= 1 &&
           s->hidden_size >= 1 && s->proj_size >= 0 && s->proj_size < s->hidden_size &&
           (s->proj_size == 0 || s->cell == FL_CELL_LSTM) && activation_valid(s) &&
           (s->flags & ~FL_MODEL_BACKWARD) == 0;
}

/* Lays one layer and direction out in the arena; the same walk counts and places. */
static void place(const fl_model *m, fl_arena *arena, fl_packed *p)
{
    const int64_t rows = m->gates * m->spec.hidden_size, wide = m->wide;
    const int64_t pr = m->spec.proj_size;
    p->panel_x = fl_arena_take3(arena, wide, p->inputs, 1, m->unit);
    p->panel_h = fl_arena_take3(arena, wide, m->recurrent, 1, m->unit);
    p->bias = fl_arena_take(arena, wide, m->unit);
    p->bias_h = m->layout.joint < m->layout.gates ? fl_arena_take(arena, wide, m->unit) : NULL;
    p->panel_r = pr ? fl_arena_take3(arena, fl_plain_columns(pr, m->width), m->spec.hidden_size, 1, m->unit) : NULL;
    p->blocked_x = m->gemm == FL_GEMM_BLAS ? fl_arena_take3(arena, wide, p->inputs, 1, m->unit) : NULL;
    if (!(m->spec.flags & FL_MODEL_BACKWARD)) return;
    p->panel_xt = fl_arena_take3(arena, fl_plain_columns(p->inputs, m->width), rows, 1, m->unit);
    p->panel_ht = fl_arena_take3(arena, fl_plain_columns(m->recurrent, m->width), rows, 1, m->unit);
    p->panel_rt = pr ? fl_arena_take3(arena, fl_plain_columns(m->spec.hidden_size, m->width), pr, 1, m->unit) : NULL;
    p->plain_x = m->gemm != FL_GEMM_PANEL ? fl_arena_take3(arena, rows, p->inputs, 1, m->unit) : NULL;
}

/* weight_ih with its rows in the panel's order: one BLAS product then writes the layout the cell reads */
static void pack_blocked(const fl_model *m, void *to, const void *src, int64_t k)
{
    const int64_t h = m->spec.hidden_size;
    for (int64_t gate = 0; gate < m->gates; gate++)
        for (int64_t unit = 0; unit < h; unit++)
            memcpy((char *)to + fl_gate_column(&m->layout, gate, unit) * k * m->unit,
                   (const char *)src + (gate * h + unit) * k * m->unit, (size_t)(k * m->unit));
}

static void pack(const fl_model *m, const fl_packed *p, const fl_weights *w)
{
    const int dtype = m->spec.dtype;
    const int64_t h = m->spec.hidden_size, rows = m->gates * h, pr = m->spec.proj_size, width = m->width;
    fl_pack_gates(dtype, (void *)p->panel_x, w->weight_ih, &m->layout, p->inputs);
    fl_pack_gates(dtype, (void *)p->panel_h, w->weight_hh, &m->layout, m->recurrent);
    fl_pack_bias(dtype, (void *)p->bias, (void *)p->bias_h, w->bias_ih, w->bias_hh, &m->layout);
    if (pr) fl_pack_plain(dtype, (void *)p->panel_r, w->weight_hr, h, 0, pr, 1, h, width);
    if (p->blocked_x) pack_blocked(m, (void *)p->blocked_x, w->weight_ih, p->inputs);
    if (!(m->spec.flags & FL_MODEL_BACKWARD)) return;
    fl_pack_plain(dtype, (void *)p->panel_xt, w->weight_ih, rows, 0, p->inputs, p->inputs, 1, width);
    fl_pack_plain(dtype, (void *)p->panel_ht, w->weight_hh, rows, fl_h_first_row(m), m->recurrent, m->recurrent, 1,
                  width);
    if (pr) fl_pack_plain(dtype, (void *)p->panel_rt, w->weight_hr, pr, 0, h, h, 1, width);
    if (p->plain_x) memcpy((void *)p->plain_x, w->weight_ih, (size_t)(rows * p->inputs * m->unit));
}

static int weights_present(const fl_spec *s, const fl_weights *w)
{
    return w->weight_ih && w->weight_hh && (s->proj_size == 0) == (w->weight_hr == NULL);
}

enum fl_status fl_model_create(fl_model **out, const fl_spec *spec, const fl_weights *weights)
{
    if (!out || !spec || !weights || !spec_valid(spec)) return FL_ERR_ARGUMENT;
    if (spec->input_size > FL_LARGEST || spec->hidden_size > FL_LARGEST || spec->num_layers > FL_LARGEST)
        return FL_ERR_OVERFLOW;
    const int n = spec->num_layers * spec->directions;
    for (int i = 0; i < n; i++)
        if (!weights_present(spec, &weights[i])) return FL_ERR_ARGUMENT;

    fl_model m = {.spec = *spec};
    enum fl_status status = fl_kernels_get(&m.kernels);
    if (status == FL_OK) status = fl_gemm_mode(&m.gemm);
    if (status != FL_OK) return status;
    m.real = m.kernels->lanes[spec->dtype];
    m.gates = cell_rows[spec->cell].gates;
    m.states = cell_rows[spec->cell].states;
    m.kept = cell_rows[spec->cell].kept;
    m.vectors = cell_rows[spec->cell].vectors;
    m.recurrent = spec->proj_size ? spec->proj_size : spec->hidden_size;
    m.width = m.real->width;
    m.layout = (fl_gate_layout){spec->hidden_size,           (int)m.gates, cell_rows[spec->cell].joint, (int)m.vectors,
                                cell_rows[spec->cell].units, m.real->width};
    m.block_units = m.width * m.layout.units;
    m.blocks = (spec->hidden_size + m.block_units - 1) / m.block_units;
    m.wide = fl_gate_columns(&m.layout);
    m.unit = spec->dtype == FL_F64 ? 8 : 4;
    m.snake = m.wide * m.recurrent * m.unit > FL_FIRST_CACHE;

    fl_model *model = malloc(sizeof *model);
    fl_packed *layers = calloc((size_t)n, sizeof *layers);
    if (!model || !layers) goto no_memory;
    m.layers = layers;
    for (int i = 0; i < n; i++) layers[i].inputs = fl_layer_inputs(spec, i / spec->directions);
    fl_arena arena = {0};
    for (int i = 0; i < n; i++) place(&m, &arena, &layers[i]);
    if (arena.overflow) {
        free(model);
        free(layers);
        return FL_ERR_OVERFLOW;
    }
    m.bytes = arena.used;
    m.memory = fl_aligned_alloc(m.bytes);
    if (!m.memory) goto no_memory;
    memset(m.memory, 0, m.bytes); /* padding lanes must be zero: they are multiplied */
    arena = (fl_arena){.base = m.memory};
    for (int i = 0; i < n; i++) {
        place(&m, &arena, &layers[i]);
        pack(&m, &layers[i], &weights[i]);
    }
    *model = m;
    *out = model;
    return FL_OK;

no_memory:
    free(model);
    free(layers);
    return FL_ERR_MEMORY;
}

void fl_model_free(fl_model *model)
{
    if (!model) return;
    fl_aligned_free(model->memory);
    free(model->layers);
    free(model);
}

const char *fl_model_isa(const fl_model *model) { return model->kernels->name; }
size_t fl_model_bytes(const fl_model *model) { return model->bytes; }
