/* LSTM cells that need the sums of a whole row: layer normalisation (Ba, Kiros & Hinton 2016) in two forms, and gate
 * recurrence (Greff et al. 2015).  docs/equations.md has the formulas.  Sums of a row are G*H values, gate after gate:
 * `pre` those of x (and all others without layer norm "ba"), `side` those of h ("ba"), or of the former gates i f o.
 *
 * Kept beside the gates: "ba" the sums of x and of h; "gates" the sums; both c before zoneout. */

typedef struct V(norms) {
    V(norm) x, h, c, gate[4];
} V(norms);

/* z of a gate for "ba", without its peephole */
FL_INLINE vec V(ba_sum)(const fl_cell_options *o, const V(norms) * k, const real *x, const real *h, int gate,
                        int64_t unit, const int n)
{
    const int64_t j = o->place[gate] * o->hidden + unit;
    const vec a = V(scaled)(o->gain_x, o->bias_x, j, V(normal)(k->x, V(load_n)(x + j, n)), n);
    return V(add)(a, V(scaled)(o->gain_h, o->bias_h, j, V(normal)(k->h, V(load_n)(h + j, n)), n));
}

/* y of a gate for "gates", and from it z */
FL_INLINE vec V(gate_normal)(const fl_cell_options *o, const V(norms) * k, const real *sums, int gate, int64_t unit,
                             const int n)
{
    return V(normal)(k->gate[gate], V(load_n)(sums + o->place[gate] * o->hidden + unit, n));
}
FL_INLINE vec V(gate_scaled)(const fl_cell_options *o, int gate, vec y, int64_t unit, const int n)
{
    return V(scaled)(o->gain_x, o->bias_x, o->place[gate] * o->hidden + unit, y, n);
}

/* "ba": sums to the gates i f g, c, and z of o where o will be */
static void V(ba_forward)(const fl_step_args *s, int64_t row)
{
    const fl_cell_options *o = s->options;
    const int64_t H = o->hidden, all = o->gates * H;
    real *kept = (real *)s->gates[row];
    const real *x = (const real *)s->pre[row], *h = (const real *)s->side[row];
    if (s->keeps) {
        memcpy(kept + o->kept_sums * H, x, (size_t)all * sizeof(real));
        memcpy(kept + o->kept_sums_h * H, h, (size_t)all * sizeof(real));
    }
    V(norms) k = {.x = V(norm_of)(x, all, o->eps), .h = V(norm_of)(h, all, o->eps)};
    FL_OVER(unit, H, lanes)
    {
        const int n = (int)lanes;
        V(free_lanes) l = {.c_prev = V(at)(s->c_prev, row, unit, n)};
        for (int v = 0; v < 4; v++) l.sum[v] = o->place[v] < 0 ? V(zero)() : V(ba_sum)(o, &k, x, h, v, unit, n);
        l.sum[0] = V(with_peephole)(o, 0, l.sum[0], l.c_prev, unit, n);
        l.sum[1] = V(with_peephole)(o, 1, l.sum[1], l.c_prev, unit, n);
        V(free_cell)(s, &l, row, unit, n);
        l.gate[3] = V(with_peephole)(o, 2, l.sum[3], o->peephole_o_prev ? l.c_prev : l.c, unit, n);
        V(free_keep)(s, &l, row, unit, n);
        V(store_n)(kept + o->kept_c * H + unit, l.c, n);
    }
    k.c = V(norm_of)(kept + o->kept_c * H, H, o->eps);
    FL_OVER(unit, H, lanes)
    {
        const int n = (int)lanes;
        V(free_lanes) l = {.c = V(load_n)(kept + o->kept_c * H + unit, n)};
        l.sum[3] = V(load_n)(kept + 3 * H + unit, n);
        V(free_output)(s, &l, V(scaled)(o->gain_c, o->bias_c, unit, V(normal)(k.c, l.c), n), row, unit, n);
        V(store_n)(kept + 3 * H + unit, l.gate[3], n);
    }
}

static void V(gates_forward)(const fl_step_args *s, int64_t row)
{
    const fl_cell_options *o = s->options;
    const int64_t H = o->hidden;
    const real *pre = (const real *)s->pre[row];
    real *kept = (real *)s->gates[row], *sums = kept + o->kept_sums * H;
    V(norms) k = {.gate = {{0}}};
    for (int v = 0; v < 3; v++) { /* peepholes belong to what is normalised */
        if (o->place[v] < 0) continue;
        const int64_t at = o->place[v] * H;
        FL_OVER(unit, H, lanes)
        {
            const int n = (int)lanes;
            vec z = V(load_n)(pre + at + unit, n);
            if (v < 2) z = V(with_peephole)(o, v, z, V(at)(s->c_prev, row, unit, n), unit, n);
            V(store_n)(sums + at + unit, z, n);
        }
        k.gate[v] = V(norm_of)(sums + at, H, o->eps);
    }
    FL_OVER(unit, H, lanes)
    {
        const int n = (int)lanes;
        V(free_lanes) l = {.c_prev = V(at)(s->c_prev, row, unit, n)};
        for (int v = 0; v < 3; v++)
            if (o->place[v] >= 0) l.sum[v] = V(gate_scaled)(o, v, V(gate_normal)(o, &k, sums, v, unit, n), unit, n);
        V(free_cell)(s, &l, row, unit, n);
        l.gate[3] = V(zero)();
        V(free_keep)(s, &l, row, unit, n);
        V(store_n)(kept + o->kept_c * H + unit, l.c, n);
        if (o->place[3] < 0) continue;
        const vec z = V(load_n)(pre + o->place[3] * H + unit, n), seen = o->peephole_o_prev ? l.c_prev : l.c;
        V(store_n)(sums + o->place[3] * H + unit, V(with_peephole)(o, 2, z, seen, unit, n), n);
    }
    if (o->place[3] >= 0) k.gate[3] = V(norm_of)(sums + o->place[3] * H, H, o->eps);
    FL_OVER(unit, H, lanes)
    {
        const int n = (int)lanes;
        V(free_lanes) l = {.c = V(load_n)(kept + o->kept_c * H + unit, n)};
        if (o->place[3] >= 0) l.sum[3] = V(gate_scaled)(o, 3, V(gate_normal)(o, &k, sums, 3, unit, n), unit, n);
        V(free_output)(s, &l, l.c, row, unit, n);
        V(store_n)(kept + 3 * H + unit, l.gate[3], n);
    }
}

/* Gate recurrence: the former gates' sums are added, and the gates become part of the state, behind c. */
static void V(fed_forward)(const fl_step_args *s, int64_t row)
{
    const fl_cell_options *o = s->options;
    const int64_t H = o->hidden;
    const real *pre = (const real *)s->pre[row], *side = (const real *)s->side[row];
    real *fed = (real *)s->c[row] + H;
    FL_OVER(unit, H, lanes)
    {
        const int n = (int)lanes;
        V(free_lanes) l = {.c_prev = V(at)(s->c_prev, row, unit, n)};
        for (int v = 0; v < 4; v++) {
            const int64_t j = o->place[v] * H + unit;
            l.sum[v] = V(load_n)(pre + j, n);
            if (v != V(GATE_G)) l.sum[v] = V(add)(l.sum[v], V(load_n)(side + j, n));
        }
        V(free_step)(s, &l, row, unit, n);
        V(store_n)(fed + unit, l.gate[0], n);
        V(store_n)(fed + H + unit, l.gate[1], n);
        V(store_n)(fed + 2 * H + unit, l.gate[3], n);
    }
}

static void V(lstm_row_forward_row)(const fl_step_args *s, int64_t row)
{
    if (s->options->fed)
        V(fed_forward)(s, row);
    else if (s->options->norm == FL_NORM_BA)
        V(ba_forward)(s, row);
    else
        V(gates_forward)(s, row);
}

/* --- backward */

/* "ba": what of dh reaches z of o and what c shows; -> sums over the row for the normalisation of c */
static void V(ba_output_grad)(const fl_cell_grad_args *s, const V(norms) * k, const real *x, const real *h, int64_t row,
                              V(slopes) * sum)
{
    const fl_cell_options *o = s->options;
    V(slopes_start)(sum);
    FL_OVER(unit, o->hidden, lanes)
    {
        const int n = (int)lanes;
        V(free_grad) b;
        V(free_recall)(s, &b, row, unit, n);
        V(free_recall_dh)(s, &b, row, unit, n);
        const vec y = V(normal)(k->c, b.c), shown = V(scaled)(o->gain_c, o->bias_c, unit, y, n);
        V(free_output_grad)(s, &b, shown, row, unit, n);
        const vec d = V(slope)(&o->act[2], V(mul)(b.dh, b.gate[3]), shown, b.squashed);
        V(grad_to)(s, o->grad_norm_c, d, row, unit, n);
        V(grad_to)(s, o->grad_norm_c + 1, V(mul)(d, y), row, unit, n);
        V(slopes_add)(sum, unit, V(mul)(d, V(load_n)((const real *)o->gain_c + unit, n)), y, n);
        if (o->place[3] < 0) continue;
        vec z = V(ba_sum)(o, k, x, h, 3, unit, n);
        z = V(with_peephole)(o, 2, z, o->peephole_o_prev ? b.c_prev : b.c, unit, n);
        V(grad_to)(s, o->grad_norm + o->place[3], V(gate_slope)(o, 0, b.d_o, z, b.gate[3]), row, unit, n);
    }
}

/* dz of all gates -> what their two normalisations hand back, and gradients of the gains */
static void V(ba_sums_grad)(const fl_cell_grad_args *s, const V(norms) * k, const real *x, const real *h, int64_t row)
{
    const fl_cell_options *o = s->options;
    const int64_t all = o->gates * o->hidden;
    real *out = (real *)s->dgates[row];
    const real *dz = out + o->grad_norm * o->hidden;
    V(slopes) of_x, of_h;
    V(slopes_start)(&of_x);
    V(slopes_start)(&of_h);
    FL_OVER(j, all, lanes)
    {
        const int n = (int)lanes;
        const vec d = V(load_n)(dz + j, n);
        const vec yx = V(normal)(k->x, V(load_n)(x + j, n)), yh = V(normal)(k->h, V(load_n)(h + j, n));
        V(store_n)(out + (o->grad_norm + o->gates) * o->hidden + j, V(mul)(d, yx), n);
        V(store_n)(out + (o->grad_norm + 2 * o->gates) * o->hidden + j, V(mul)(d, yh), n);
        V(slopes_add)(&of_x, j, V(mul)(d, V(load_n)((const real *)o->gain_x + j, n)), yx, n);
        V(slopes_add)(&of_h, j, V(mul)(d, V(load_n)((const real *)o->gain_h + j, n)), yh, n);
    }
    const V(means) mx = V(means_of)(&of_x, all), mh = V(means_of)(&of_h, all);
    FL_OVER(j, all, lanes)
    {
        const int n = (int)lanes;
        const vec d = V(load_n)(dz + j, n);
        const vec yx = V(normal)(k->x, V(load_n)(x + j, n)), yh = V(normal)(k->h, V(load_n)(h + j, n));
        V(store_n)(out + j, V(normal_grad)(k->h, mh, V(mul)(d, V(load_n)((const real *)o->gain_h + j, n)), yh), n);
        V(store_n)(out + all + j, V(normal_grad)(k->x, mx, V(mul)(d, V(load_n)((const real *)o->gain_x + j, n)), yx),
                   n);
    }
}

static void V(ba_backward)(const fl_cell_grad_args *s, int64_t row)
{
    const fl_cell_options *o = s->options;
    const int64_t H = o->hidden, all = o->gates * H;
    const real *kept = (const real *)s->gates[row], *x = kept + o->kept_sums * H, *h = kept + o->kept_sums_h * H;
    const V(norms) k = {.x = V(norm_of)(x, all, o->eps),
                        .h = V(norm_of)(h, all, o->eps),
                        .c = V(norm_of)(kept + o->kept_c * H, H, o->eps)};
    V(slopes) sum;
    V(ba_output_grad)(s, &k, x, h, row, &sum);
    const V(means) mean = V(means_of)(&sum, H);
    const real *out = (const real *)s->dgates[row];
    FL_OVER(unit, H, lanes)
    {
        const int n = (int)lanes;
        V(free_grad) b;
        vec d[3];
        V(free_recall)(s, &b, row, unit, n);
        const vec shown = V(load_n)(out + o->grad_norm_c * H + unit, n);
        const vec dy = V(mul)(shown, V(load_n)((const real *)o->gain_c + unit, n));
        b.dc = V(add)(b.dc, V(normal_grad)(k.c, mean, dy, V(normal)(k.c, b.c)));
        if (o->place[3] >= 0) {
            const vec dz = V(load_n)(out + (o->grad_norm + o->place[3]) * H + unit, n);
            if (o->peephole_o_prev)
                b.dc_prev = V(peephole_grad)(s, 2, dz, b.c_prev, b.dc_prev, row, unit, n);
            else
                b.dc = V(peephole_grad)(s, 2, dz, b.c, b.dc, row, unit, n);
        }
        V(free_values)(s, &b, d, row, unit, n);
        for (int v = 0; v < 3; v++) {
            if (o->place[v] < 0) continue;
            vec z = V(ba_sum)(o, &k, x, h, v, unit, n);
            if (v < 2) z = V(with_peephole)(o, v, z, b.c_prev, unit, n);
            const vec dz = V(gate_slope)(o, v == V(GATE_G), d[v], z, b.gate[v]);
            V(grad_to)(s, o->grad_norm + o->place[v], dz, row, unit, n);
            if (v < 2) b.dc_prev = V(peephole_grad)(s, v, dz, b.c_prev, b.dc_prev, row, unit, n);
        }
        V(store_n)((real *)s->dc[row] + unit, b.dc_prev, n);
    }
    V(ba_sums_grad)(s, &k, x, h, row);
}

/* "gates": dy of a gate's value -> gradient before its slope, which is that of its normalisation's result */
FL_INLINE void V(gate_result_grad)(const fl_cell_grad_args *s, const V(norms) * k, const real *sums, int gate, vec d,
                                   vec value, V(slopes) * sum, int64_t row, int64_t unit, const int n)
{
    const fl_cell_options *o = s->options;
    const int place = o->place[gate];
    const vec y = V(gate_normal)(o, k, sums, gate, unit, n), z = V(gate_scaled)(o, gate, y, unit, n);
    const vec dz = V(gate_slope)(o, gate == V(GATE_G), d, z, value);
    V(grad_to)(s, o->grad_norm + place, dz, row, unit, n);
    V(grad_to)(s, o->grad_norm + o->gates + place, V(mul)(dz, y), row, unit, n);
    V(slopes_add)(sum, unit, V(mul)(dz, V(load_n)((const real *)o->gain_x + place * o->hidden + unit, n)), y, n);
}

/* and on through the normalisation to the gate's sum */
FL_INLINE vec V(gate_sum_grad)(const fl_cell_grad_args *s, const V(norms) * k, const real *sums, int gate,
                               V(means) mean, int64_t row, int64_t unit, const int n)
{
    const fl_cell_options *o = s->options;
    const int place = o->place[gate];
    const real *from = (const real *)s->dgates[row] + (o->grad_norm + place) * o->hidden + unit;
    const vec dy = V(mul)(V(load_n)(from, n), V(load_n)((const real *)o->gain_x + place * o->hidden + unit, n));
    const vec dz = V(normal_grad)(k->gate[gate], mean, dy, V(gate_normal)(o, k, sums, gate, unit, n));
    V(grad_to)(s, place, dz, row, unit, n);
    return dz;
}

static void V(gates_backward)(const fl_cell_grad_args *s, int64_t row)
{
    const fl_cell_options *o = s->options;
    const int64_t H = o->hidden;
    const real *kept = (const real *)s->gates[row], *sums = kept + o->kept_sums * H;
    real *dc = (real *)s->dc[row];
    real *waiting = (real *)s->dgates[row] + o->place[2] * H; /* dL/dc by way of h, until g's gradient comes there */
    V(norms) k = {.gate = {{0}}};
    V(slopes) sum[4];
    V(means) mean[4];
    for (int v = 0; v < 4; v++) {
        V(slopes_start)(&sum[v]);
        if (o->place[v] >= 0) k.gate[v] = V(norm_of)(sums + o->place[v] * H, H, o->eps);
    }
    FL_OVER(unit, H, lanes)
    {
        const int n = (int)lanes;
        V(free_grad) b;
        V(free_recall)(s, &b, row, unit, n);
        V(free_recall_dh)(s, &b, row, unit, n);
        V(free_output_grad)(s, &b, b.c, row, unit, n);
        V(store_n)(waiting + unit, V(slope)(&o->act[2], V(mul)(b.dh, b.gate[3]), b.c, b.squashed), n);
        if (o->place[3] >= 0) V(gate_result_grad)(s, &k, sums, 3, b.d_o, b.gate[3], &sum[3], row, unit, n);
    }
    mean[3] = V(means_of)(&sum[3], H);
    FL_OVER(unit, H, lanes)
    {
        const int n = (int)lanes;
        V(free_grad) b;
        vec d[3];
        V(free_recall)(s, &b, row, unit, n);
        b.dc = V(add)(b.dc, V(load_n)(waiting + unit, n));
        if (o->place[3] >= 0) {
            const vec dz = V(gate_sum_grad)(s, &k, sums, 3, mean[3], row, unit, n);
            if (o->peephole_o_prev)
                b.dc_prev = V(peephole_grad)(s, 2, dz, b.c_prev, b.dc_prev, row, unit, n);
            else
                b.dc = V(peephole_grad)(s, 2, dz, b.c, b.dc, row, unit, n);
        }
        V(free_values)(s, &b, d, row, unit, n);
        for (int v = 0; v < 3; v++)
            if (o->place[v] >= 0) V(gate_result_grad)(s, &k, sums, v, d[v], b.gate[v], &sum[v], row, unit, n);
        V(store_n)(dc + unit, b.dc_prev, n);
    }
    for (int v = 0; v < 3; v++) mean[v] = V(means_of)(&sum[v], H);
    FL_OVER(unit, H, lanes)
    {
        const int n = (int)lanes;
        vec dc_prev = V(load_n)(dc + unit, n);
        for (int v = 0; v < 3; v++) {
            if (o->place[v] < 0) continue;
            const vec dz = V(gate_sum_grad)(s, &k, sums, v, mean[v], row, unit, n);
            if (v < 2)
                dc_prev = V(peephole_grad)(s, v, dz, V(at)(s->c_prev, row, unit, n), dc_prev, row, unit, n);
        }
        V(store_n)(dc + unit, dc_prev, n);
    }
}

static void V(lstm_row_backward_row)(const fl_cell_grad_args *s, int64_t row)
{
    if (s->options->norm == FL_NORM_BA) {
        V(ba_backward)(s, row);
    } else if (s->options->norm == FL_NORM_GATES) {
        V(gates_backward)(s, row);
    } else {
        FL_OVER(unit, s->options->hidden, n) V(lstm_free_backward_lanes)(s, row, unit, (int)n);
    }
}
