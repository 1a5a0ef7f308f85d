/* Which columns of a row of gradients belong to which rows of which weight, and what they meet in a product; which
 * tensors there are.  Panels and gradients both follow these lists. */
#include "fl_options.h"

static void add_side(fl_packed *w, fl_side side) { w->side[w->side_count++] = side; }

static void add_sum(fl_packed *w, int64_t first, int64_t columns, int tensor)
{
    add_side(w, (fl_side){.operand = FL_OF_ONE, .first = first, .columns = columns, .tensor = tensor});
}

/* One piece of weight_ih, or of weight_hh. */
static void add_x(const fl_packed *from, fl_packed *w, int64_t first, int64_t columns, int64_t row0)
{
    add_side(w, (fl_side){FL_OF_X, first, columns, FL_WEIGHT_IH, row0, from->inputs, 0, from->inputs});
}
static void add_h(const fl_model *m, fl_packed *w, int operand, int64_t first, int64_t columns, int64_t row0)
{
    add_side(w, (fl_side){operand, first, columns, FL_WEIGHT_HH, row0, m->recurrent, 0, m->recurrent});
}

static void sides_of_lstm(const fl_model *m, fl_packed *w, int layer)
{
    const fl_cell_options *o = &w->options;
    const int64_t H = m->spec.hidden_size, all = o->gates * H, x = o->norm == FL_NORM_BA ? all : 0;
    const int depth = m->depth && layer;
    if (o->fed) { /* in the order i f o g: the former gates' sums are the first three */
        const int64_t row0[] = {0, 3 * H, 2 * H}, first[] = {0, 2 * H, 3 * H}, columns[] = {2 * H, H, H};
        for (int i = 0; i < 3; i++) add_x(w, w, first[i], columns[i], row0[i]);
        for (int i = 0; i < 3; i++) add_h(m, w, FL_OF_H, first[i], columns[i], row0[i]);
        add_side(w, (fl_side){FL_OF_FED, 0, 3 * H, FL_WEIGHT_GH, 0, 3 * H, 0, 3 * H});
        for (int i = 0; i < 3; i++)
            add_side(w, (fl_side){.operand = FL_OF_ONE, .first = first[i], .columns = columns[i],
                                  .tensor = FL_BIAS_IH, .row0 = row0[i]});
    } else {
        add_x(w, w, x, all, 0);
        add_h(m, w, FL_OF_H, 0, all, 0);
        add_sum(w, o->norm == FL_NORM_BA ? o->grad_norm * H : 0, all, FL_BIAS_IH);
    }
    if (depth) add_side(w, (fl_side){FL_OF_X, o->grad_d * H, H, FL_WEIGHT_D_IH, 0, w->inputs, 0, w->inputs});
    if (o->norm == FL_NORM_BA) {
        add_sum(w, (o->grad_norm + o->gates) * H, all, FL_WEIGHT_LN_IH);
        add_sum(w, (o->grad_norm + 2 * o->gates) * H, all, FL_WEIGHT_LN_HH);
        add_sum(w, o->grad_norm_c * H, H, FL_BIAS_LN_C);
        add_sum(w, (o->grad_norm_c + 1) * H, H, FL_WEIGHT_LN_C);
    } else if (o->norm) {
        add_sum(w, o->grad_norm * H, all, FL_BIAS_LN);
        add_sum(w, (o->grad_norm + o->gates) * H, all, FL_WEIGHT_LN);
    }
    if (o->grad_peephole >= 0)
        add_sum(w, o->grad_peephole * H, fl_bit_count(m->spec.options.peephole) * H, FL_WEIGHT_PEEPHOLE);
    if (!depth) return;
    add_sum(w, o->grad_d * H, H, FL_BIAS_D);
    add_sum(w, o->grad_depth * H, H, FL_WEIGHT_D_C);
    add_sum(w, (o->grad_depth + 1) * H, H, FL_WEIGHT_D_LOWER);
}

void fl_sides_of(const fl_model *m, fl_packed *w, int layer)
{
    const int64_t H = m->spec.hidden_size;
    switch (m->spec.cell) {
    case FL_CELL_GRU:
        if (m->spec.options.reset_before) { /* r z n */
            add_x(w, w, 0, 3 * H, 0);
            add_h(m, w, FL_OF_H, 0, 2 * H, 0);
            add_h(m, w, FL_OF_HEARD, 2 * H, H, 2 * H);
            add_sum(w, 0, 3 * H, FL_BIAS_IH);
        } else { /* hn r z n */
            add_x(w, w, H, 3 * H, 0);
            add_h(m, w, FL_OF_H, 0, H, 2 * H);
            add_h(m, w, FL_OF_H, H, 2 * H, 0);
            add_sum(w, H, 3 * H, FL_BIAS_IH);
            add_side(w, (fl_side){.operand = FL_OF_ONE, .columns = H, .tensor = FL_BIAS_HH, .row0 = 2 * H});
            add_sum(w, H, 2 * H, FL_BIAS_HH);
        }
        break;
    case FL_CELL_LSTM_1997: {
        const int64_t first = m->spec.options.biased_gates ? H : 0, U = m->rows;
        add_x(w, w, 0, U, 0);
        add_side(w, (fl_side){FL_OF_H, 0, U, FL_WEIGHT_HH, 0, H, 0, U});
        add_side(w, (fl_side){FL_OF_FED, 0, U, FL_WEIGHT_HH, 0, m->fed, H, U});
        add_sum(w, first, U - first, FL_BIAS_IH);
        break;
    }
    case FL_CELL_LSTM:
    case FL_CELL_DEPTH_GATED: sides_of_lstm(m, w, layer); break;
    default:
        add_x(w, w, 0, H, 0);
        add_h(m, w, FL_OF_H, 0, H, 0);
        add_sum(w, 0, H, FL_BIAS_IH);
        break;
    }
}

/* --- tensors */

unsigned fl_tensors_needed(const fl_spec *s, int layer)
{
    const fl_options *o = &s->options;
    unsigned set = 1u << FL_WEIGHT_IH | 1u << FL_WEIGHT_HH;
    if (s->proj_size) set |= 1u << FL_WEIGHT_HR;
    if (!fl_lstm_like(s)) return set;
    if (o->peephole) set |= 1u << FL_WEIGHT_PEEPHOLE;
    if (o->gate_recurrence) set |= 1u << FL_WEIGHT_GH;
    if (o->layer_norm == FL_NORM_BA) set |= 1u << FL_WEIGHT_LN_IH | 1u << FL_WEIGHT_LN_HH | 1u << FL_WEIGHT_LN_C;
    if (o->layer_norm == FL_NORM_GATES) set |= 1u << FL_WEIGHT_LN;
    if (s->cell == FL_CELL_DEPTH_GATED && layer)
        set |= 1u << FL_WEIGHT_D_IH | 1u << FL_WEIGHT_D_C | 1u << FL_WEIGHT_D_LOWER;
    return set;
}

int64_t fl_weight_size(const fl_spec *s, int layer, int tensor)
{
    if (!s || !fl_spec_valid(s) || layer < 0 || layer >= s->num_layers) return -1;
    if (s->input_size > FL_LARGEST || s->hidden_size > FL_LARGEST) return -1;
    fl_model m = {.spec = *s};
    fl_shape_model(&m);
    const int64_t H = s->hidden_size, inputs = fl_layer_inputs(s, layer), rows = m.rows;
    const int depth = m.depth && layer, norm = fl_lstm_like(s) ? s->options.layer_norm : FL_NORM_NONE;
    switch (tensor) {
    case FL_WEIGHT_IH: return rows * inputs;
    case FL_WEIGHT_HH: return rows * (s->cell == FL_CELL_LSTM_1997 ? rows : m.recurrent);
    case FL_BIAS_IH: return s->cell == FL_CELL_LSTM_1997 && s->options.biased_gates ? rows - H : rows;
    case FL_BIAS_HH: return s->cell == FL_CELL_LSTM_1997 ? 0 : rows;
    case FL_WEIGHT_HR: return s->proj_size * H;
    case FL_WEIGHT_PEEPHOLE: return fl_lstm_like(s) ? fl_bit_count(s->options.peephole) * H : 0;
    case FL_WEIGHT_GH: return fl_lstm_like(s) && s->options.gate_recurrence ? 9 * H * H : 0;
    case FL_WEIGHT_LN_IH:
    case FL_WEIGHT_LN_HH: return norm == FL_NORM_BA ? rows : 0;
    case FL_WEIGHT_LN_C:
    case FL_BIAS_LN_C: return norm == FL_NORM_BA ? H : 0;
    case FL_WEIGHT_LN:
    case FL_BIAS_LN: return norm == FL_NORM_GATES ? rows : 0;
    case FL_WEIGHT_D_IH: return depth ? H * inputs : 0;
    case FL_WEIGHT_D_C:
    case FL_WEIGHT_D_LOWER:
    case FL_BIAS_D: return depth ? H : 0;
    default: return 0;
    }
}
