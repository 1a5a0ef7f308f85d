/* Options of a cell: what is refused, activations, and where their values lie in rows. */
#include "fl_options.h"

int64_t fl_common_multiple(int64_t a, int64_t b)
{
    int64_t x = a, y = b;
    while (y) {
        const int64_t rest = x % y;
        x = y;
        y = rest;
    }
    return a / x * b;
}

/* --- what is refused */

static int bound_valid(double x) { return x >= 0 && x < (double)INFINITY; }
static int rate_valid(double x) { return x >= 0 && x <= 1; }

static int activations_valid(const fl_options *o, int count)
{
    for (int i = 0; i < 3; i++) {
        const fl_function *f = &o->activation[i];
        if (f->kind < 0 || f->kind >= FL_ACT_COUNT || f->kind == FL_ACT_SOFTMAX || f->kind == FL_ACT_EXP) return 0;
        if (i >= count && f->kind != FL_ACT_NONE) return 0;
        if (!(fabs(f->alpha) < (double)INFINITY && fabs(f->beta) < (double)INFINITY)) return 0;
    }
    return 1;
}

static int lstm_valid(const fl_spec *s)
{
    const fl_options *o = &s->options;
    const int all = FL_GATE_I | FL_GATE_F | FL_GATE_O;
    const int given = o->coupled == FL_COUPLED_I ? FL_GATE_I : o->coupled == FL_COUPLED_F ? FL_GATE_F : 0;
    if ((o->peephole | o->without) & ~all || o->coupled < 0 || o->coupled > FL_COUPLED_F) return 0;
    if (o->layer_norm < 0 || o->layer_norm > FL_NORM_GATES) return 0;
    if (given && o->without & (FL_GATE_I | FL_GATE_F)) return 0;
    if (o->peephole & (o->without | given)) return 0;
    if (o->peephole_o_prev && !(o->peephole & FL_GATE_O)) return 0;
    if (o->gate_recurrence && (o->coupled || o->without || o->layer_norm)) return 0;
    if (o->proj_clip > 0 && !s->proj_size) return 0;
    return 1;
}

static int clockwork_valid(const fl_spec *s)
{
    const fl_options *o = &s->options;
    int64_t cycle = 1;
    if (o->period_count < 1 || !o->periods || s->hidden_size % o->period_count) return 0;
    for (int i = 0; i < o->period_count; i++) {
        const int64_t period = o->periods[i];
        if (period < 1 || (i && period < o->periods[i - 1]) || period > 1 << 24) return 0;
        cycle = fl_common_multiple(cycle, period);
        if (cycle > 1 << 24) return 0; /* a count of steps must be exact in single precision */
    }
    return 1;
}

static int cell_valid(const fl_spec *s)
{
    const fl_options *o = &s->options;
    const int64_t blocks = o->block_size ? o->block_size : 1;
    switch (s->cell) {
    case FL_CELL_LSTM:
    case FL_CELL_DEPTH_GATED: return activations_valid(o, 3) && lstm_valid(s);
    case FL_CELL_GRU: return activations_valid(o, 2);
    case FL_CELL_RNN: return activations_valid(o, 1);
    case FL_CELL_CLOCKWORK: return activations_valid(o, 1) && clockwork_valid(s);
    default:
        return activations_valid(o, 3) && blocks > 0 && s->hidden_size % blocks == 0 && (o->without & ~FL_GATE_O) == 0;
    }
}

/* Options of another cell are refused, not ignored: who sets one expects something of it. */
static int options_fit(const fl_spec *s)
{
    const fl_options *o = &s->options;
    const int lstm = s->cell == FL_CELL_LSTM, old = s->cell == FL_CELL_LSTM_1997;
    const int clocked = s->cell == FL_CELL_CLOCKWORK, depth = s->cell == FL_CELL_DEPTH_GATED;
    const int cells = o->cell_clip > 0 || o->proj_clip > 0 || o->coupled || o->layer_norm || o->gate_recurrence;
    const int of_1997 = o->biased_gates || o->full_gradient || o->block_size;
    return (fl_lstm_like(s) || !(o->peephole || o->peephole_o_prev || o->zoneout_c > 0)) && (lstm || !cells) &&
           (o->layer_norm || !(o->norm_eps > 0)) && (lstm || old || !o->without) && (old || !of_1997) &&
           !((depth || clocked || old) && o->clip > 0) && (s->cell == FL_CELL_GRU || !o->reset_before) &&
           (clocked || !o->period_count) && !((clocked || old) && o->zoneout_h > 0);
}

int fl_spec_valid(const fl_spec *s)
{
    const fl_options *o = &s->options;
    return s->cell >= 0 && s->cell < FL_CELL_COUNT && (s->dtype == FL_F32 || s->dtype == FL_F64) &&
           s->num_layers >= 1 && (s->directions == 1 || s->directions == 2) && s->input_size >= 1 &&
           s->hidden_size >= 1 && s->proj_size >= 0 && s->proj_size < s->hidden_size &&
           (s->proj_size == 0 || fl_lstm_like(s)) && (s->flags & ~FL_MODEL_BACKWARD) == 0 && bound_valid(o->clip) &&
           bound_valid(o->cell_clip) && bound_valid(o->proj_clip) && bound_valid(o->norm_eps) &&
           rate_valid(o->zoneout_h) && rate_valid(o->zoneout_c) && options_fit(s) && cell_valid(s);
}

/* --- activations */

fl_function fl_activation_of(const fl_spec *s, int i)
{
    static const int lstm[] = {FL_ACT_SIGMOID, FL_ACT_TANH, FL_ACT_TANH};
    const fl_function given = s->options.activation[i];
    if (given.kind != FL_ACT_NONE) return given;
    if (s->cell == FL_CELL_LSTM_1997 && i) return (fl_function){FL_ACT_SCALED_TANH, i == 1 ? 2.0 : 1.0, 0.5};
    if (fl_lstm_like(s) || s->cell == FL_CELL_GRU || s->cell == FL_CELL_LSTM_1997) return (fl_function){lstm[i], 0, 0};
    return (fl_function){FL_ACT_TANH, 0, 0};
}

int fl_activations_own(const fl_spec *s, int count)
{
    const fl_spec plain = {.cell = s->cell};
    for (int i = 0; i < count; i++)
        if (fl_activation_of(s, i).kind != fl_activation_of(&plain, i).kind) return 0;
    return 1;
}

/* Slopes of these are not to be had from their values. */
static int needs_sum(const fl_function *f)
{
    return f->kind == FL_ACT_SOFTSIGN || f->kind == FL_ACT_SOFTPLUS || f->kind == FL_ACT_ELU ||
           f->kind == FL_ACT_LEAKY_RELU || f->kind == FL_ACT_THRESHOLDED_RELU || f->kind == FL_ACT_SCALED_TANH;
}

static int keeps_sums(const fl_spec *s, int activations)
{
    for (int i = 0; i < activations; i++) {
        const fl_function f = fl_activation_of(s, i);
        if (needs_sum(&f)) return 1;
    }
    return s->options.clip > 0;
}

/* --- options resolved: where things are.  Places count in vectors of H. */

static double or_infinite(double bound) { return bound > 0 ? bound : (double)INFINITY; }

static void place_lstm(const fl_spec *s, fl_cell_options *o)
{
    const int bits[] = {FL_GATE_I, FL_GATE_F, 0, FL_GATE_O}, fed_order[] = {0, 1, 3, 2}, order[] = {0, 1, 2, 3};
    int missing = s->options.without;
    if (s->options.coupled) missing |= s->options.coupled == FL_COUPLED_I ? FL_GATE_I : FL_GATE_F;
    for (int k = 0; k < 4; k++) {
        const int gate = s->options.gate_recurrence ? fed_order[k] : order[k];
        o->place[gate] = missing & bits[gate] ? -1 : o->gates++;
    }
}

/* -> values kept and gradients of a row, in vectors of H */
static void lay_out_lstm(const fl_spec *s, fl_cell_options *o, int *kept, int *gradient)
{
    const int depth = s->cell == FL_CELL_DEPTH_GATED, peepholes = fl_bit_count(s->options.peephole);
    *kept = 4;
    if (depth) o->kept_d = (*kept)++;
    if (o->norm) {
        o->kept_sums = *kept;
        o->kept_sums_h = *kept + o->gates;
        o->kept_c = *kept + (o->norm == FL_NORM_BA ? 2 : 1) * o->gates;
        *kept = o->kept_c + 1;
    } else if (keeps_sums(s, 2)) {
        o->kept_sums = *kept;
        *kept += o->gates + depth;
    }
    *gradient = o->gates;
    if (depth) o->grad_d = (*gradient)++;
    if (o->norm == FL_NORM_BA) {
        o->grad_norm = 2 * o->gates;
        o->grad_norm_c = 5 * o->gates;
        *gradient = 5 * o->gates + 2;
    } else if (o->norm) {
        o->grad_norm = o->gates;
        *gradient = 3 * o->gates;
    }
    if (peepholes) o->grad_peephole = *gradient;
    *gradient += peepholes;
    if (depth) {
        o->grad_carry = *gradient;
        o->grad_depth = *gradient + 1;
        *gradient += 3;
    }
}

fl_cell_options fl_options_resolve(const fl_spec *s, int *kept, int *gradient)
{
    const fl_options *from = &s->options;
    fl_cell_options o = {
        .act = {fl_activation_of(s, 0), fl_activation_of(s, 1), fl_activation_of(s, 2)},
        .clip = or_infinite(from->clip),
        .cell_clip = or_infinite(from->cell_clip),
        .eps = from->norm_eps > 0 ? from->norm_eps : 1e-5,
        .hidden = s->hidden_size,
        .coupled = from->coupled,
        .peephole_o_prev = from->peephole_o_prev != 0,
        .norm = from->layer_norm,
        .fed = from->gate_recurrence != 0,
        .kept_d = -1, .kept_sums = -1, .kept_sums_h = -1, .kept_c = -1,
        .grad_d = -1, .grad_peephole = -1, .grad_carry = -1, .grad_depth = -1, .grad_norm = -1, .grad_norm_c = -1,
    };
    switch (s->cell) {
    case FL_CELL_LSTM:
    case FL_CELL_DEPTH_GATED:
        place_lstm(s, &o);
        lay_out_lstm(s, &o, kept, gradient);
        break;
    case FL_CELL_GRU:
        o.gates = 3;
        *kept = 4;
        *gradient = from->reset_before ? 3 : 4;
        break;
    case FL_CELL_LSTM_1997: /* counted in single values: see fl_shape_model */
        o.block_size = from->block_size ? from->block_size : 1;
        o.has_o = !(from->without & FL_GATE_O);
        o.gate_units = s->hidden_size / o.block_size * (1 + o.has_o);
        *kept = *gradient = 0;
        o.kept_sums = keeps_sums(s, 2) ? 0 : -1;
        break;
    default:
        o.gates = 1;
        *kept = *gradient = 1;
        break;
    }
    const int others = s->cell == FL_CELL_GRU ? 3 : 1;
    if (!fl_lstm_like(s) && s->cell != FL_CELL_LSTM_1997 && keeps_sums(s, s->cell == FL_CELL_GRU ? 2 : 1)) {
        o.kept_sums = *kept;
        *kept += others;
    }
    return o;
}
