/* What runs a cell with its options: bodies, and the parts of a step.  Everything else reads it from the model. */
#include "fl_options.h"

static int body_of(const fl_spec *s)
{
    const fl_options *o = &s->options;
    const fl_function first = fl_activation_of(s, 0);
    const int plain = !(o->clip > 0);
    switch (s->cell) {
    case FL_CELL_LSTM:
        if (o->layer_norm || o->gate_recurrence) return FL_BODY_LSTM_ROW;
        if (o->peephole || o->coupled || o->without || o->cell_clip > 0) return FL_BODY_LSTM_FREE;
        return plain && fl_activations_own(s, 3) ? FL_BODY_LSTM : FL_BODY_LSTM_FREE;
    case FL_CELL_DEPTH_GATED: return FL_BODY_LSTM_FREE;
    case FL_CELL_GRU:
        if (o->reset_before) return FL_BODY_GRU_NEW;
        return plain && fl_activations_own(s, 2) ? FL_BODY_GRU : FL_BODY_GRU_FREE;
    case FL_CELL_RNN:
        return plain && (first.kind == FL_ACT_TANH || first.kind == FL_ACT_RELU) ? FL_BODY_RNN : FL_BODY_RNN_FREE;
    case FL_CELL_CLOCKWORK: return FL_BODY_RNN_FREE;
    default: return FL_BODY_LSTM_1997;
    }
}

static fl_gate_layout layout_of(const fl_model *m, int body, int64_t hidden, int count)
{
    static const struct {
        int apart, units;
    } rows[] = {
#define FL_BODY_ROW(ID, name, fewest, gates, apart, units, inlined, alone) {apart, units},
#define FL_ROW_BODY(ID, name)
#include "bodies.def"
#undef FL_BODY_ROW
#undef FL_ROW_BODY
    };
    const int units = rows[body].units;
    return (fl_gate_layout){hidden, count, count - rows[body].apart, count * units, units, (int)m->width};
}

/* Reals from one row of n to the next, so that a column of many rows spreads over the sets of a cache.  A set is chosen
 * by low bits of the line's number: rows at a multiple of four lines would share a quarter of the sets or fewer. */
static int64_t spread(int64_t n, int64_t unit)
{
    const int64_t line = 64 / unit, lines = (n + line - 1) / line;
    return n % (4 * line) ? n : (lines + 1) * line;
}

void fl_shape_model(fl_model *m)
{
    const fl_spec *s = &m->spec;
    const int64_t H = s->hidden_size;
    int kept, gradient;
    const fl_cell_options o = fl_options_resolve(s, &kept, &gradient);
    m->body = body_of(s);
    m->row_body = m->body >= FL_BODY_COUNT;
    m->whole_rows = m->row_body || s->cell == FL_CELL_CLOCKWORK;
    m->depth = s->cell == FL_CELL_DEPTH_GATED;
    m->keeps = m->row_body || m->body == FL_BODY_GRU_NEW || m->depth;
    m->carries = s->cell == FL_CELL_GRU || s->cell == FL_CELL_CLOCKWORK;
    m->own_bias_hh = s->cell == FL_CELL_GRU && !s->options.reset_before;
    m->truncated = s->cell == FL_CELL_LSTM_1997 && !s->options.full_gradient;
    m->simple = m->body <= FL_BODY_RNN;
    m->recurrent = s->proj_size ? s->proj_size : H;
    m->rows = o.gates * H;
    m->kept = kept * H;
    m->gradient = gradient * H;
    if (s->cell == FL_CELL_LSTM_1997) {
        m->rows = H + o.gate_units;
        m->kept = m->rows * (o.kept_sums >= 0 ? 2 : 1);
        m->gradient = m->rows + 2 * H;
        m->fed = o.gate_units;
    } else if (o.fed) {
        m->fed = 3 * H;
    }
    m->gradient_stride = spread(m->gradient, s->dtype == FL_F64 ? 8 : 4);
    m->cells = fl_lstm_like(s) || s->cell == FL_CELL_LSTM_1997 ? H + m->fed : s->cell == FL_CELL_CLOCKWORK ? 1 : 0;
    m->cycle = 1;
    for (int i = 0; s->cell == FL_CELL_CLOCKWORK && i < s->options.period_count; i++)
        m->cycle = fl_common_multiple(m->cycle, s->options.periods[i]);
    m->side = !m->row_body ? 0 : o.fed ? m->fed : o.norm == FL_NORM_BA ? m->rows : 0;
}

/* --- one layer */

int fl_part_count(const fl_spec *s, int layer)
{
    if (s->cell == FL_CELL_CLOCKWORK) { /* modules of one period are one: they run together and hear the same */
        int parts = 1;
        for (int i = 1; i < s->options.period_count; i++) parts += s->options.periods[i] != s->options.periods[i - 1];
        return parts;
    }
    return (s->cell == FL_CELL_DEPTH_GATED && layer) || (s->cell == FL_CELL_GRU && s->options.reset_before) ? 2 : 1;
}

static void shape_parts(const fl_model *m, fl_packed *w)
{
    const fl_spec *s = &m->spec;
    const int64_t H = s->hidden_size;
    const int n = w->part_count, modules = s->cell == FL_CELL_CLOCKWORK;
    int64_t pre = 0;
    int module = 0;
    for (int i = 0; i < n; i++) {
        fl_part *p = &w->part[i];
        const int last = i == n - 1 || modules;
        const int body = last ? m->body : m->depth ? FL_BODY_DEPTH : FL_BODY_GRU_RESET;
        const int first = module;
        while (modules && module < s->options.period_count && s->options.periods[module] == s->options.periods[first])
            module++;
        const int64_t size = modules ? H / s->options.period_count : H, units = modules ? (module - first) * size : H;
        const int one = body == FL_BODY_GRU_NEW || body == FL_BODY_DEPTH;
        const int gates = one ? 1 : body == FL_BODY_GRU_RESET ? 2 : w->options.gates;
        *p = (fl_part){.body = body, .unit0 = modules ? first * size : 0, .k_h = m->recurrent, .pre_first = pre};
        if (modules) {
            p->period = s->options.periods[first];
            p->h_first = p->unit0;
            p->k_h = H - p->h_first;
        }
        if (m->row_body) {
            p->wide = fl_plain_columns(m->rows, m->width);
            p->blocks = fl_plain_blocks(m->rows, m->width);
        } else {
            p->layout = layout_of(m, body, units, gates);
            const int64_t block = m->width * p->layout.units;
            p->blocks = (units + block - 1) / block;
            p->wide = fl_gate_columns(&p->layout);
        }
        if (body == FL_BODY_DEPTH) p->k_h = 0;
        pre += p->wide;
    }
}

/* The columns of a gradient row that meet an operand: one range, as the sides are arranged. */
static void range_of(const fl_packed *w, int operand, int64_t *first, int64_t *rows)
{
    *first = *rows = 0;
    for (int i = 0; i < w->side_count; i++) {
        if (w->side[i].operand != operand) continue;
        if (*rows == 0) *first = w->side[i].first;
        *rows += w->side[i].columns;
    }
}

void fl_shape_layer(const fl_model *m, fl_packed *w, int layer)
{
    int kept, gradient;
    w->options = fl_options_resolve(&m->spec, &kept, &gradient);
    shape_parts(m, w);
    w->side_count = 0;
    for (int tensor = 0; tensor < FL_TENSORS; tensor++) w->size[tensor] = fl_weight_size(&m->spec, layer, tensor);
    fl_sides_of(m, w, layer);
    range_of(w, FL_OF_X, &w->x_first, &w->x_rows);
    range_of(w, FL_OF_H, &w->h_first, &w->h_rows);
    range_of(w, FL_OF_FED, &w->fed_first, &w->fed_rows);
    double weights = 0;
    w->input_weights = 0;
    for (int i = 0; i < w->side_count; i++) {
        const fl_side *s = &w->side[i];
        if (s->operand != FL_OF_ONE) weights += (double)s->columns * (double)s->n;
        if (s->operand == FL_OF_X) w->input_weights += (double)s->columns * (double)s->n;
    }
    if (m->spec.cell == FL_CELL_CLOCKWORK) {
        weights = w->input_weights = 0;
        for (int i = 0; i < w->part_count; i++) {
            const fl_part *p = &w->part[i];
            weights += (double)p->layout.hidden * (double)(w->inputs + p->k_h) / (double)p->period;
            w->input_weights += (double)p->layout.hidden * (double)w->inputs / (double)p->period;
        }
    }
    weights += (double)m->spec.hidden_size * (double)m->spec.proj_size;
    w->flops = 2 * weights;
    w->bytes = weights * (double)m->unit;
}
