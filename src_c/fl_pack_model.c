/* Which weights go where in a model: the rows of each panel, biases, the vectors that bodies read as they are. */
#include <string.h>

#include "fl_internal.h"

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

/* One layer and direction while it is packed. */
typedef struct fl_packing {
    const fl_packer *packer;
    const fl_model *m;
    const fl_packed *w;
    const fl_weights *from;
} fl_packing;

static void pack_rows(const fl_packing *g, int operand, const void *panel, int64_t k)
{
    fl_piece piece[FL_SIDES];
    int64_t ld = 0, col0 = 0;
    if (!panel) return;
    const int count = pieces_of(g->m, g->w, g->from, operand, piece, &ld, &col0);
    fl_pack_rows(g->packer, panel, piece, count, col0, k, ld);
}

static void pack_back(const fl_packing *g, int operand, const void *panel, int64_t columns)
{
    fl_piece piece[FL_SIDES];
    int64_t ld = 0, col0 = 0;
    if (!panel) return;
    const int count = pieces_of(g->m, g->w, g->from, operand, piece, &ld, &col0);
    fl_pack_back(g->packer, panel, piece, count, col0, columns, ld);
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

/* The first of its rows, in weights and biases. */
static int64_t first_row(const fl_model *m, const fl_part *p)
{
    return p->body == FL_BODY_GRU_NEW ? 2 * m->spec.hidden_size : p->unit0;
}

static void pack_part_bias(const fl_model *m, const fl_part *p, const fl_weights *from)
{
    const int64_t at = first_row(m, p) * m->unit;
    const int d = p->body == FL_BODY_DEPTH;
    const char *ih = d ? from->bias_d : from->bias_ih, *hh = d ? NULL : from->bias_hh;
    fl_pack_bias(m->spec.dtype, (void *)p->bias, (void *)p->bias_h, ih ? ih + at : NULL, hh ? hh + at : NULL,
                 m->spec.hidden_size, &p->layout);
}

/* A part with gates: which rows of the weights are its own. */
static void pack_part(const fl_packing *g, const fl_part *p)
{
    const fl_model *m = g->m;
    const int64_t H = m->spec.hidden_size, inputs = g->w->inputs, row0 = first_row(m, p);
    const char *ih = p->body == FL_BODY_DEPTH ? g->from->weight_d_ih : g->from->weight_ih, *hh = g->from->weight_hh;
    ih += row0 * inputs * m->unit;
    hh += row0 * m->recurrent * m->unit;
    fl_pack_gates(g->packer, p->panel_x, ih, H, inputs, &p->layout, inputs);
    if (p->k_h)
        fl_pack_gates(g->packer, p->panel_h, hh + p->h_first * m->unit, H, m->recurrent, &p->layout, p->k_h);
    if (!p->panel_xt) return;
    const fl_piece x = {ih, p->layout.hidden}, h = {hh, p->layout.hidden};
    fl_pack_back(g->packer, p->panel_xt, &x, 1, 0, inputs, inputs);
    fl_pack_back(g->packer, p->panel_ht, &h, 1, p->h_first, p->k_h, m->recurrent);
}

static void copy(const fl_model *m, const void *to, const void *from, int64_t n)
{
    if (to && from) memcpy((void *)to, from, (size_t)(n * m->unit)); /* else it stays zero */
}

static void pack_options(const fl_model *m, const fl_cell_options *o, const fl_weights *from)
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
static void pack_blocked(const fl_packing *g)
{
    const fl_model *m = g->m;
    const int64_t H = m->spec.hidden_size, k = g->w->inputs;
    const fl_part *p = g->w->part;
    const fl_gate_place last = fl_gate_place_of(&p->layout, H - 1);
    char *to = (char *)g->w->blocked_x;
    for (int64_t column = last.first; column < p->wide; column++)
        fl_pack_zeros(g->packer, to + column * k * m->unit, k);
    for (int64_t gate = 0; gate < p->layout.gates; gate++)
        for (int64_t unit = 0; unit < H; unit++)
            fl_pack_copy(g->packer, to + fl_gate_column(&p->layout, gate, unit) * k * m->unit,
                         (const char *)g->from->weight_ih + (gate * H + unit) * k * m->unit, k);
}

void fl_pack_vectors(const fl_model *m, const fl_packed *w, const fl_weights *from)
{
    if (m->row_body) pack_row_bias(m, w, from);
    for (int i = 0; i < w->part_count && !m->row_body; i++) pack_part_bias(m, &w->part[i], from);
    pack_options(m, &w->options, from);
}

static void pack_layer(const fl_packing *g)
{
    const fl_model *m = g->m;
    const fl_packed *w = g->w;
    const int64_t H = m->spec.hidden_size;
    const int ba = w->options.norm == FL_NORM_BA;
    if (m->row_body) {
        pack_rows(g, FL_OF_X, w->part[0].panel_x, w->inputs);
        pack_rows(g, FL_OF_H, w->part[0].panel_h, m->recurrent);
        pack_rows(g, ba ? FL_OF_H : FL_OF_FED, w->panel_side, ba ? m->recurrent : m->fed);
        pack_rows(g, FL_OF_FED, w->panel_fed, m->fed);
    } else {
        for (int i = 0; i < w->part_count; i++) pack_part(g, &w->part[i]);
    }
    const fl_piece r = {g->from->weight_hr, m->spec.proj_size};
    if (w->panel_r) fl_pack_rows(g->packer, w->panel_r, &r, 1, 0, H, H);
    if (w->panel_rt) fl_pack_back(g->packer, w->panel_rt, &r, 1, 0, H, H);
    if (w->blocked_x) pack_blocked(g);
    for (int64_t row = 0, k = w->inputs; w->plain_x && row < m->rows; row++)
        fl_pack_copy(g->packer, (const char *)w->plain_x + row * k * m->unit,
                     (const char *)g->from->weight_ih + row * k * m->unit, k);
    pack_back(g, FL_OF_X, w->panel_xt, w->inputs);
    pack_back(g, FL_OF_H, w->panel_ht, m->recurrent);
    pack_back(g, FL_OF_HEARD, w->panel_nt, H);
    pack_back(g, FL_OF_FED, w->panel_ft, m->fed);
}

typedef struct fl_all_layers {
    const fl_model *m;
    const fl_weights *weights;
} fl_all_layers;

static void pack_layers(const fl_packer *packer, void *arg)
{
    const fl_all_layers *all = arg;
    for (int i = 0; i < all->m->spec.num_layers * all->m->spec.directions; i++) {
        const fl_packing packing = {packer, all->m, &all->m->layers[i], &all->weights[i]};
        pack_layer(&packing);
    }
}

void fl_pack_model(const fl_model *m, const fl_weights *weights, int threads)
{
    fl_all_layers all = {m, weights};
    const fl_pack_work work = {pack_layers, &all, m->real, m->unit, m->memory, m->bytes};
    fl_pack_run(&work, threads);
}
