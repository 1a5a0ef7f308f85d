/* A model: specification checked, weights packed, immutable from then on. */
#include <stdlib.h>
#include <string.h>

#include "fl_internal.h"
#include "fl_team.h"

/* A slot of the arena for a panel, or NULL where nothing is needed. */
static void *take(fl_arena *arena, int64_t a, int64_t b, const fl_model *m)
{
    if (!a || !b) return NULL;
    char *slot = fl_arena_take3(arena, a, b, 1, m->unit), *end = slot ? arena->base + arena->used : NULL;
    if (slot) memset(end - FL_ALIGN, 0, FL_ALIGN); /* of what is behind the panel */
    return slot;
}

/* A slot of zeros. */
static void *take_zeros(fl_arena *arena, int64_t n, int64_t unit)
{
    void *slot = n ? fl_arena_take(arena, n, unit) : NULL;
    if (slot) memset(slot, 0, (size_t)(arena->base + arena->used - (char *)slot));
    return slot;
}

static int64_t plain(const fl_model *m, int64_t columns) { return fl_plain_columns(columns, m->width); }

static void place_part(const fl_model *m, fl_arena *arena, const fl_packed *w, fl_part *p)
{
    const int apart = !m->row_body && p->layout.joint < p->layout.gates, ba = w->options.norm == FL_NORM_BA;
    p->panel_x = take(arena, p->wide, w->inputs, m);
    p->panel_h = ba ? NULL : take(arena, p->wide, p->k_h, m);
    p->bias = ba ? NULL : take_zeros(arena, p->wide, m->unit);
    p->bias_h = take_zeros(arena, apart ? p->wide : 0, m->unit);
    if (m->spec.cell != FL_CELL_CLOCKWORK || !(m->spec.flags & FL_MODEL_BACKWARD)) return;
    p->panel_xt = take(arena, plain(m, w->inputs), p->layout.hidden, m);
    p->panel_ht = take(arena, plain(m, p->k_h), p->layout.hidden, m);
}

/* Vectors that bodies read as they are. */
static void place_vectors(const fl_model *m, fl_arena *arena, fl_cell_options *o, int layer)
{
    const int64_t H = m->spec.hidden_size;
    const int set = m->spec.options.peephole, bits[] = {FL_GATE_I, FL_GATE_F, FL_GATE_O};
    for (int i = 0; i < 3; i++) o->peephole[i] = take_zeros(arena, set & bits[i] ? H : 0, m->unit);
    o->depth_c = take_zeros(arena, fl_weight_size(&m->spec, layer, FL_WEIGHT_D_C), m->unit);
    o->depth_lower = take_zeros(arena, fl_weight_size(&m->spec, layer, FL_WEIGHT_D_LOWER), m->unit);
    o->gain_x = take_zeros(arena, o->norm ? m->rows : 0, m->unit);
    o->bias_x = take_zeros(arena, o->norm ? m->rows : 0, m->unit);
    o->gain_h = take_zeros(arena, o->norm == FL_NORM_BA ? m->rows : 0, m->unit);
    o->bias_h = take_zeros(arena, o->norm == FL_NORM_BA ? m->rows : 0, m->unit);
    o->gain_c = take_zeros(arena, o->norm == FL_NORM_BA ? H : 0, m->unit);
    o->bias_c = take_zeros(arena, o->norm == FL_NORM_BA ? H : 0, m->unit);
}

/* Lays one layer and direction out in the arena; the same walk counts and places. */
static void place(const fl_model *m, fl_arena *arena, fl_packed *w, int layer)
{
    const int64_t H = m->spec.hidden_size, pr = m->spec.proj_size, heard = m->body == FL_BODY_GRU_NEW ? H : 0;
    for (int i = 0; i < w->part_count; i++) place_part(m, arena, w, &w->part[i]);
    place_vectors(m, arena, &w->options, layer);
    w->panel_side = take(arena, plain(m, m->side), w->options.fed ? m->fed : m->recurrent, m);
    w->panel_fed = take(arena, plain(m, m->fed && !w->options.fed ? m->rows : 0), m->fed, m);
    w->panel_r = take(arena, plain(m, pr), H, m);
    if (m->one_row) fl_one_row_place(m, arena, w);
    w->blocked_x = take(arena, m->gemm == FL_GEMM_BLAS ? m->wide : 0, w->inputs, m);
    if (!(m->spec.flags & FL_MODEL_BACKWARD)) return;
    w->plain_x = take(arena, m->gemm == FL_GEMM_BLAS ? m->rows : 0, w->inputs, m);
    w->panel_rt = take(arena, plain(m, pr ? H : 0), pr, m);
    if (m->spec.cell == FL_CELL_CLOCKWORK) return;
    w->panel_xt = take(arena, plain(m, w->inputs), w->x_rows, m);
    if (m->truncated) return;
    w->panel_ht = take(arena, plain(m, m->recurrent), w->h_rows, m);
    w->panel_nt = take(arena, plain(m, heard), heard, m);
    w->panel_ft = take(arena, plain(m, m->fed), w->fed_rows, m);
}

static int weights_present(const fl_spec *s, const fl_weights *w, int layer)
{
    const unsigned needed = fl_tensors_needed(s, layer);
    for (int i = 0; i < FL_TENSORS; i++) {
        const int given = fl_tensor_of(w, i) != NULL;
        if (needed >> i & 1 ? !given : given && fl_weight_size(s, layer, i) == 0) return 0;
    }
    return 1;
}

/* Constant rows for the expectation of zoneout, and periods: the caller's may go. */
static void place_constants(fl_model *m, fl_arena *arena, const int64_t *periods)
{
    const int count = m->spec.cell == FL_CELL_CLOCKWORK ? m->spec.options.period_count : 0;
    int64_t *own = take_zeros(arena, count, sizeof(int64_t));
    for (int i = 0; own && i < count; i++) own[i] = periods[i];
    if (own) m->spec.options.periods = own;
    m->zones[0] = take_zeros(arena, m->spec.options.zoneout_h > 0 ? m->recurrent : 0, m->unit);
    m->zones[1] = take_zeros(arena, m->spec.options.zoneout_c > 0 ? m->spec.hidden_size : 0, m->unit);
}

static void fill(const fl_model *m, const void *to, double value, int64_t n)
{
    for (int64_t i = 0; to && i < n; i++) {
        if (m->spec.dtype == FL_F64)
            ((double *)to)[i] = value;
        else
            ((float *)to)[i] = (float)value;
    }
}

static enum fl_status describe(fl_model *m, const fl_spec *spec)
{
    *m = (fl_model){.spec = *spec};
    enum fl_status status = fl_kernels_get(&m->kernels);
    if (status == FL_OK) status = fl_gemm_mode(&m->gemm);
    if (status != FL_OK) return status;
    m->real = m->kernels->lanes[spec->dtype];
    m->width = m->real->width;
    m->unit = spec->dtype == FL_F64 ? 8 : 4;
    fl_shape_model(m);
    if (!m->simple) m->gemm = FL_GEMM_PANEL;
    return FL_OK;
}

/* Sizes of all layers; the widest row of `pre` is that of any. */
static void shape_layers(fl_model *m, fl_packed *layers, fl_part *parts)
{
    for (int i = 0; i < m->spec.num_layers * m->spec.directions; i++) {
        const int layer = i / m->spec.directions;
        fl_packed *w = &layers[i];
        w->inputs = fl_layer_inputs(&m->spec, layer);
        w->part_count = fl_part_count(&m->spec, layer);
        w->part = parts;
        parts += w->part_count;
        fl_shape_layer(m, w, layer);
        const fl_part *last = &w->part[w->part_count - 1];
        if (last->pre_first + last->wide > m->wide) m->wide = last->pre_first + last->wide;
        m->blocks = last->blocks;
        m->block_units = m->width * (m->row_body ? FL_PANEL_VECTORS : last->layout.units);
    }
    int64_t recurrent = 0;
    for (int i = 0; i < layers[0].part_count; i++) recurrent += layers[0].part[i].wide * layers[0].part[i].k_h;
    m->snake = recurrent * m->unit > FL_FIRST_CACHE;
    m->one_row = m->simple && !m->spec.proj_size && !(m->spec.options.zoneout_h > 0 || m->spec.options.zoneout_c > 0);
}

enum fl_status fl_model_create_threads(fl_model **out, const fl_spec *spec, const fl_weights *weights, int threads)
{
    if (!out || !spec || !weights || threads < 0 || !fl_spec_valid(spec)) return FL_ERR_ARGUMENT;
    if (spec->input_size > FL_LARGEST || spec->hidden_size > FL_LARGEST || spec->num_layers > FL_LARGEST)
        return FL_ERR_OVERFLOW;
    const int n = spec->num_layers * spec->directions;
    for (int i = 0; i < n; i++)
        if (!weights_present(spec, &weights[i], i / spec->directions)) return FL_ERR_ARGUMENT;
    fl_model m;
    const enum fl_status status = describe(&m, spec);
    if (status != FL_OK) return status;

    int64_t parts = 0;
    for (int i = 0; i < n; i++) parts += fl_part_count(spec, i / spec->directions);
    if (fl_bytes(parts, 1, 1, sizeof *m.parts) == SIZE_MAX) return FL_ERR_OVERFLOW;
    fl_model *model = malloc(sizeof *model);
    m.layers = calloc((size_t)n, sizeof *m.layers);
    m.parts = calloc((size_t)parts, sizeof *m.parts);
    if (!model || !m.layers || !m.parts) goto no_memory;
    shape_layers(&m, m.layers, m.parts);
    fl_arena arena = {0};
    for (int i = 0; i < n; i++) place(&m, &arena, &m.layers[i], i / spec->directions);
    place_constants(&m, &arena, spec->options.periods);
    if (arena.overflow) {
        free(model);
        free(m.layers);
        free(m.parts);
        return FL_ERR_OVERFLOW;
    }
    m.bytes = arena.used;
    m.memory = fl_aligned_alloc(m.bytes);
    if (!m.memory) goto no_memory;
    arena = (fl_arena){.base = m.memory};
    const unsigned saved = fl_float_enter(); /* biases are added up and rates are rounded here */
    for (int i = 0; i < n; i++) {
        place(&m, &arena, &m.layers[i], i / spec->directions);
        fl_pack_vectors(&m, &m.layers[i], &weights[i]);
    }
    place_constants(&m, &arena, spec->options.periods);
    fill(&m, m.zones[0], spec->options.zoneout_h, m.recurrent);
    fill(&m, m.zones[1], spec->options.zoneout_c, spec->hidden_size);
    fl_float_leave(saved);
    fl_pack_model(&m, weights, threads);
    *model = m;
    if (model->one_row) fl_one_row_prepare(model);
    *out = model;
    return FL_OK;

no_memory:
    free(model);
    free(m.layers);
    free(m.parts);
    return FL_ERR_MEMORY;
}

enum fl_status fl_model_create(fl_model **out, const fl_spec *spec, const fl_weights *weights)
{
    return fl_model_create_threads(out, spec, weights, 0);
}

void fl_model_free(fl_model *model)
{
    if (!model) return;
    fl_aligned_free(model->memory);
    free(model->layers);
    free(model->parts);
    free(model);
}

const char *fl_model_isa(const fl_model *model) { return model ? model->kernels->name : NULL; }
size_t fl_model_bytes(const fl_model *model) { return model ? model->bytes : 0; }
int64_t fl_model_cells(const fl_model *model) { return model ? model->cells : 0; }
int64_t fl_model_kept(const fl_model *model) { return model ? model->kept : 0; }
int fl_model_own_bias_hh(const fl_model *model) { return model ? model->own_bias_hh : 0; }
