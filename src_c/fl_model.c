/* A model: specification checked, weights packed, immutable from then on. */
#include <stdlib.h>
#include <string.h>

#include "fl_internal.h"
#include "fl_team.h"

/* A slot of the arena, or NULL where nothing is needed. */
static void *take(fl_arena *arena, int64_t a, int64_t b, const fl_model *m)
{
    return a && b ? fl_arena_take3(arena, a, b, 1, m->unit) : NULL;
}

static int64_t plain(const fl_model *m, int64_t columns) { return fl_plain_columns(columns, m->width); }

static void place_part(const fl_model *m, fl_arena *arena, const fl_packed *w, fl_part *p)
{
    const int apart = !m->row_body && p->layout.joint < p->layout.gates, ba = w->options.norm == FL_NORM_BA;
    p->panel_x = take(arena, p->wide, w->inputs, m);
    p->panel_h = ba ? NULL : take(arena, p->wide, p->k_h, m);
    p->bias = ba ? NULL : take(arena, p->wide, 1, m);
    p->bias_h = take(arena, apart ? p->wide : 0, 1, m);
    if (m->spec.cell != FL_CELL_CLOCKWORK || !(m->spec.flags & FL_MODEL_BACKWARD)) return;
    p->panel_xt = take(arena, plain(m, w->inputs), p->layout.hidden, m);
    p->panel_ht = take(arena, plain(m, p->k_h), p->layout.hidden, m);
}

/* Vectors that bodies read as they are. */
static void place_vectors(const fl_model *m, fl_arena *arena, fl_cell_options *o, int layer)
{
    const int64_t H = m->spec.hidden_size;
    const int set = m->spec.options.peephole, bits[] = {FL_GATE_I, FL_GATE_F, FL_GATE_O};
    for (int i = 0; i < 3; i++) o->peephole[i] = take(arena, set & bits[i] ? H : 0, 1, m);
    o->depth_c = take(arena, fl_weight_size(&m->spec, layer, FL_WEIGHT_D_C), 1, m);
    o->depth_lower = take(arena, fl_weight_size(&m->spec, layer, FL_WEIGHT_D_LOWER), 1, m);
    o->gain_x = take(arena, o->norm ? m->rows : 0, 1, m);
    o->bias_x = take(arena, o->norm ? m->rows : 0, 1, m);
    o->gain_h = take(arena, o->norm == FL_NORM_BA ? m->rows : 0, 1, m);
    o->bias_h = take(arena, o->norm == FL_NORM_BA ? m->rows : 0, 1, m);
    o->gain_c = take(arena, o->norm == FL_NORM_BA ? H : 0, 1, m);
    o->bias_c = take(arena, o->norm == FL_NORM_BA ? H : 0, 1, m);
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

/* --- packing */

/* The rows of a weight that meet an operand, in the order of a gradient row. */
static int pieces_of(const fl_model *m, const fl_packed *w, const fl_weights *from, int operand, fl_piece *piece,
                     int64_t *ld, int64_t *col0)
{
    int count = 0;
    for (int i = 0; i < w->side_count; i++) {
        const fl_side *s = &w->side[i];
        if (s->operand != operand) continue;
        const char *data = fl_tensor_of(from, s->tensor);
        piece[count++] = (fl_piece){data + s->row0 * s->ld * m->unit, s->columns};
        *ld = s->ld;
        *col0 = s->col0;
    }
    return count;
}

static void pack_rows(const fl_model *m, const fl_packed *w, const fl_weights *from, int operand, const void *panel,
                      int64_t k)
{
    fl_piece piece[FL_SIDES];
    int64_t ld = 0, col0 = 0;
    const int count = pieces_of(m, w, from, operand, piece, &ld, &col0);
    if (panel) fl_pack_rows(m->spec.dtype, (void *)panel, piece, count, col0, k, ld, m->width);
}

static void pack_back(const fl_model *m, const fl_packed *w, const fl_weights *from, int operand, const void *panel,
                      int64_t columns)
{
    fl_piece piece[FL_SIDES];
    int64_t ld = 0, col0 = 0;
    const int count = pieces_of(m, w, from, operand, piece, &ld, &col0);
    if (panel) fl_pack_back(m->spec.dtype, (void *)panel, piece, count, col0, columns, ld, m->width);
}

/* element i of y += element i of x */
static void add_to(const fl_model *m, void *y, const void *x, int64_t n)
{
    if (x && n > 0) m->real->add(x, y, y, n);
}

/* The biases of a row body, in the order of its sums. */
static void pack_row_bias(const fl_model *m, const fl_packed *w, const fl_weights *from)
{
    const int gates_alone = m->spec.cell == FL_CELL_LSTM_1997 && m->spec.options.biased_gates;
    const int64_t skipped = gates_alone ? m->spec.hidden_size : 0;
    char *bias = (char *)w->part[0].bias;
    for (int i = 0; bias && i < w->side_count; i++) {
        const fl_side *s = &w->side[i];
        if (s->operand != FL_OF_X) continue;
        const int64_t first = s->row0 < skipped ? skipped : s->row0, n = s->row0 + s->columns - first;
        char *to = bias + (s->first - w->x_first + first - s->row0) * m->unit;
        if (from->bias_ih) add_to(m, to, (const char *)from->bias_ih + (first - skipped) * m->unit, n);
        if (from->bias_hh) add_to(m, to, (const char *)from->bias_hh + first * m->unit, n);
    }
}

/* A part with gates: which rows of the weights are its own. */
static void pack_part(const fl_model *m, const fl_packed *w, const fl_part *p, const fl_weights *from)
{
    const int dtype = m->spec.dtype, d = p->body == FL_BODY_DEPTH;
    const int64_t H = m->spec.hidden_size, unit = m->unit;
    const int64_t row0 = p->body == FL_BODY_GRU_NEW ? 2 * H : p->unit0; /* in elements of biases, rows of weights */
    const char *ih = d ? from->weight_d_ih : from->weight_ih, *hh = from->weight_hh;
    const char *bias_ih = d ? from->bias_d : from->bias_ih, *bias_hh = d ? NULL : from->bias_hh;
    fl_pack_gates(dtype, (void *)p->panel_x, ih + row0 * w->inputs * unit, H, w->inputs, &p->layout, w->inputs);
    if (p->k_h)
        fl_pack_gates(dtype, (void *)p->panel_h, hh + (row0 * m->recurrent + p->h_first) * unit, H, m->recurrent,
                      &p->layout, p->k_h);
    fl_pack_bias(dtype, (void *)p->bias, (void *)p->bias_h, bias_ih ? bias_ih + row0 * unit : NULL,
                 bias_hh ? bias_hh + row0 * unit : NULL, H, &p->layout);
    if (!p->panel_xt) return;
    const fl_piece x = {ih + row0 * w->inputs * unit, p->layout.hidden};
    const fl_piece h = {hh + row0 * m->recurrent * unit, p->layout.hidden};
    fl_pack_back(dtype, (void *)p->panel_xt, &x, 1, 0, w->inputs, w->inputs, m->width);
    fl_pack_back(dtype, (void *)p->panel_ht, &h, 1, p->h_first, p->k_h, m->recurrent, m->width);
}

static void copy(const fl_model *m, const void *to, const void *from, int64_t n)
{
    if (to && from) memcpy((void *)to, from, (size_t)(n * m->unit)); /* else it stays zero */
}

static void pack_vectors(const fl_model *m, const fl_cell_options *o, const fl_weights *from)
{
    const int64_t H = m->spec.hidden_size;
    int64_t at = 0;
    for (int i = 0; i < 3; i++) {
        if (!o->peephole[i]) continue;
        copy(m, o->peephole[i], (const char *)from->weight_peephole + at * m->unit, H);
        at += H;
    }
    const int ba = o->norm == FL_NORM_BA;
    copy(m, o->depth_c, from->weight_d_c, H);
    copy(m, o->depth_lower, from->weight_d_lower, H);
    copy(m, o->gain_x, ba ? from->weight_ln_ih : from->weight_ln, m->rows);
    copy(m, o->bias_x, ba ? from->bias_ih : from->bias_ln, m->rows);
    copy(m, o->gain_h, from->weight_ln_hh, m->rows);
    copy(m, o->bias_h, from->bias_hh, m->rows);
    copy(m, o->gain_c, from->weight_ln_c, H);
    copy(m, o->bias_c, from->bias_ln_c, H);
}

/* weight_ih with its rows in the panel's order: one BLAS product then writes the layout the cell reads */
static void pack_blocked(const fl_model *m, const fl_packed *w, const void *src)
{
    const int64_t h = m->spec.hidden_size, k = w->inputs;
    const fl_gate_layout *layout = &w->part[0].layout;
    for (int64_t gate = 0; gate < layout->gates; gate++)
        for (int64_t unit = 0; unit < h; unit++)
            memcpy((char *)w->blocked_x + fl_gate_column(layout, gate, unit) * k * m->unit,
                   (const char *)src + (gate * h + unit) * k * m->unit, (size_t)(k * m->unit));
}

static void pack(const fl_model *m, const fl_packed *w, const fl_weights *from)
{
    const int64_t H = m->spec.hidden_size, pr = m->spec.proj_size;
    const int ba = w->options.norm == FL_NORM_BA;
    if (m->row_body) {
        pack_rows(m, w, from, FL_OF_X, w->part[0].panel_x, w->inputs);
        pack_rows(m, w, from, FL_OF_H, w->part[0].panel_h, m->recurrent);
        pack_rows(m, w, from, ba ? FL_OF_H : FL_OF_FED, w->panel_side, ba ? m->recurrent : m->fed);
        pack_rows(m, w, from, FL_OF_FED, w->panel_fed, m->fed);
        pack_row_bias(m, w, from);
    } else {
        for (int i = 0; i < w->part_count; i++) pack_part(m, w, &w->part[i], from);
    }
    pack_vectors(m, &w->options, from);
    const fl_piece r = {from->weight_hr, pr};
    if (w->panel_r) fl_pack_rows(m->spec.dtype, (void *)w->panel_r, &r, 1, 0, H, H, m->width);
    if (w->panel_rt) fl_pack_back(m->spec.dtype, (void *)w->panel_rt, &r, 1, 0, H, H, m->width);
    if (w->blocked_x) pack_blocked(m, w, from->weight_ih);
    copy(m, w->plain_x, from->weight_ih, m->rows * w->inputs);
    pack_back(m, w, from, FL_OF_X, w->panel_xt, w->inputs);
    pack_back(m, w, from, FL_OF_H, w->panel_ht, m->recurrent);
    pack_back(m, w, from, FL_OF_HEARD, w->panel_nt, H);
    pack_back(m, w, from, FL_OF_FED, w->panel_ft, m->fed);
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
    int64_t *own = fl_arena_take(arena, count, sizeof(int64_t));
    for (int i = 0; own && i < count; i++) own[i] = periods[i];
    if (own) m->spec.options.periods = own;
    m->zones[0] = take(arena, m->spec.options.zoneout_h > 0 ? m->recurrent : 0, 1, m);
    m->zones[1] = take(arena, m->spec.options.zoneout_c > 0 ? m->spec.hidden_size : 0, 1, m);
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

enum fl_status fl_model_create(fl_model **out, const fl_spec *spec, const fl_weights *weights)
{
    if (!out || !spec || !weights || !fl_spec_valid(spec)) return FL_ERR_ARGUMENT;
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
    memset(m.memory, 0, m.bytes); /* padding lanes must be zero: they are multiplied */
    arena = (fl_arena){.base = m.memory};
    const unsigned saved = fl_float_enter(); /* biases are added up and rates are rounded here */
    for (int i = 0; i < n; i++) {
        place(&m, &arena, &m.layers[i], i / spec->directions);
        pack(&m, &m.layers[i], &weights[i]);
    }
    place_constants(&m, &arena, spec->options.periods);
    fill(&m, m.zones[0], spec->options.zoneout_h, m.recurrent);
    fill(&m, m.zones[1], spec->options.zoneout_c, spec->hidden_size);
    fl_float_leave(saved);
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
