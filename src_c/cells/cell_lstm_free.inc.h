/* LSTM with options: peepholes (Gers & Schmidhuber 2000), coupled and missing gates, activations by choice (Greff et
 * al. 2015; ONNX), bounds, a depth gate (Yao et al. 2015), masks of a regulariser.  docs/equations.md has the formulas.
 *
 * Two halves, because layer normalisation must see a whole row between them: sums -> c, and c -> h.  With `plain` the
 * sums of a gate are H values in a row (cell_lstm_row.inc.h), else they are in a tile. */

enum { V(GATE_I), V(GATE_F), V(GATE_G), V(GATE_O) };

typedef struct V(free_lanes) { /* some units of one row, as they are known so far */
    vec sum[4];                /* of gates i f g o before their peephole, of those that have rows */
    vec gate[4], c_prev, c;    /* c: bounded, before zoneout */
} V(free_lanes);

/* Keeps what the activation reads, if its slope will need it. */
FL_INLINE vec V(free_gate)(const fl_step_args *s, int gate, vec z, int64_t row, int64_t unit, const int n)
{
    const fl_cell_options *o = s->options;
    if (o->kept_sums >= 0 && s->gates && !o->norm)
        V(store_n)((real *)s->gates[row] + (o->kept_sums + o->place[gate]) * o->hidden + unit, z, n);
    return V(activate)(&o->act[gate == V(GATE_G)], V(bounded)(z, o->clip));
}

FL_INLINE vec V(with_peephole)(const fl_cell_options *o, int which, vec z, vec seen, int64_t unit, const int n)
{
    if (!o->peephole[which]) return z;
    return V(fma)(V(load_n)((const real *)o->peephole[which] + unit, n), seen, z);
}

/* i, f, g from their sums, to which peepholes were added, and c. */
FL_INLINE void V(free_cell)(const fl_step_args *s, V(free_lanes) * l, int64_t row, int64_t unit, const int n)
{
    const fl_cell_options *o = s->options;
    const vec one = V(set1)(FL_C(1.0));
    vec i = one, f = one;
    if (o->place[0] >= 0) i = V(free_gate)(s, V(GATE_I), l->sum[0], row, unit, n);
    if (o->place[1] >= 0) f = V(free_gate)(s, V(GATE_F), l->sum[1], row, unit, n);
    if (o->coupled == FL_COUPLED_I) i = V(sub)(one, f);
    if (o->coupled == FL_COUPLED_F) f = V(sub)(one, i);
    const vec g = V(free_gate)(s, V(GATE_G), l->sum[2], row, unit, n);
    const vec masked = s->mask_g ? V(mul)(g, V(at)(s->mask_g, row, unit, n)) : g;
    vec c = V(fma)(f, l->c_prev, V(mul)(i, masked));
    if (s->lower)
        c = V(fma)(V(at)((const void *const *)s->gates, row, o->kept_d * o->hidden + unit, n),
                   V(at)(s->lower, row, unit, n), c);
    l->c = V(bounded)(c, o->cell_clip);
    V(store_n)((real *)s->c[row] + unit, V(zone)(s->zoneout_c, l->c_prev, l->c, row, unit, n), n);
    l->gate[0] = i, l->gate[1] = f, l->gate[2] = g;
}

/* o from its sum, to which a peephole was added, and h; shown: what of c the output sees. */
FL_INLINE void V(free_output)(const fl_step_args *s, V(free_lanes) * l, vec shown, int64_t row, int64_t unit,
                              const int n)
{
    const fl_cell_options *o = s->options;
    vec out = V(set1)(FL_C(1.0));
    if (o->place[3] >= 0) out = V(free_gate)(s, V(GATE_O), l->sum[3], row, unit, n);
    vec h = V(mul)(out, V(activate)(&o->act[2], shown));
    if (s->zoneout_h) h = V(zone)(s->zoneout_h, V(at)(s->h_prev, row, unit, n), h, row, unit, n);
    V(store_n)((real *)s->h_out[row] + unit, h, n);
    l->gate[3] = out;
}

FL_INLINE void V(free_keep)(const fl_step_args *s, const V(free_lanes) * l, int64_t row, int64_t unit, const int n)
{
    if (!s->gates) return;
    real *gates = (real *)s->gates[row] + unit;
    FL_UNROLL
    for (int v = 0; v < 4; v++) V(store_n)(gates + v * s->options->hidden, l->gate[v], n);
}

/* Both halves, where nothing has to be known of other units. */
FL_INLINE void V(free_step)(const fl_step_args *s, V(free_lanes) * l, int64_t row, int64_t unit, const int n)
{
    const fl_cell_options *o = s->options;
    l->sum[0] = V(with_peephole)(o, 0, l->sum[0], l->c_prev, unit, n);
    l->sum[1] = V(with_peephole)(o, 1, l->sum[1], l->c_prev, unit, n);
    V(free_cell)(s, l, row, unit, n);
    l->sum[3] = V(with_peephole)(o, 2, l->sum[3], o->peephole_o_prev ? l->c_prev : l->c, unit, n);
    V(free_output)(s, l, l->c, row, unit, n);
    V(free_keep)(s, l, row, unit, n);
}

FL_INLINE void V(lstm_free_forward_lanes)(const fl_step_args *s, const real *tile, const real *x_part, int apart,
                                          int64_t row, int64_t unit, const int n)
{
    (void)x_part;
    V(free_lanes) l = {.c_prev = V(at)(s->c_prev, row, unit, n)};
    FL_UNROLL
    for (int v = 0; v < 4; v++) {
        const int place = s->options->place[v];
        l.sum[v] = place < 0 ? V(zero)() : V(gate)(tile, place, apart, n);
    }
    V(free_step)(s, &l, row, unit, n);
}

/* --- backward */

typedef struct V(free_grad) {
    vec gate[4], c_prev, c_sum, c, squashed; /* forward, computed again from what was kept; c_sum: before its bound */
    vec dh, d_o;                             /* of the cell's output, of the gate o */
    vec dc, dc_prev;                         /* of c (bounded, before zoneout), and what reaches the step before */
} V(free_grad);

/* The cell again, and dc through zoneout. */
FL_INLINE void V(free_recall)(const fl_cell_grad_args *s, V(free_grad) * b, int64_t row, int64_t unit, const int n)
{
    const fl_cell_options *o = s->options;
    FL_UNROLL
    for (int v = 0; v < 4; v++) b->gate[v] = V(kept_at)(s, v, row, unit, n);
    b->c_prev = V(at)(s->c_prev, row, unit, n);
    const vec masked = s->mask_g ? V(mul)(b->gate[2], V(at)(s->mask_g, row, unit, n)) : b->gate[2];
    b->c_sum = V(fma)(b->gate[1], b->c_prev, V(mul)(b->gate[0], masked));
    if (s->lower)
        b->c_sum = V(fma)(V(kept_at)(s, o->kept_d, row, unit, n), V(at)(s->lower, row, unit, n), b->c_sum);
    b->c = V(bounded)(b->c_sum, o->cell_clip);
    b->dc = V(at)((const void *const *)s->dc, row, unit, n);
    if (s->dc_add) b->dc = V(add)(b->dc, V(at)(s->dc_add, row, unit, n));
    b->dc_prev = V(zero)();
    b->dc = V(zone_grad)(s->zoneout_c, b->dc, &b->dc_prev, row, unit, n);
}

/* dh through zoneout: once for each unit, as `carry` may be where dh came from. */
FL_INLINE void V(free_recall_dh)(const fl_cell_grad_args *s, V(free_grad) * b, int64_t row, int64_t unit, const int n)
{
    b->dh = V(at)(s->dh, row, unit, n);
    if (s->dh_add) b->dh = V(add)(b->dh, V(at)(s->dh_add, row, unit, n));
    if (!s->zoneout_h) return;
    vec held = V(zero)();
    b->dh = V(zone_grad)(s->zoneout_h, b->dh, &held, row, unit, n);
    V(store_n)((real *)s->carry[row] + unit, held, n);
}

/* dz through a gate's slope and bound; z_kept: index of what it read, or -1 where the slope does without. */
FL_INLINE vec V(free_slope)(const fl_cell_grad_args *s, int gate, vec dy, vec y, int64_t row, int64_t unit, const int n)
{
    const fl_cell_options *o = s->options;
    const int act = gate == V(GATE_G);
    if (o->kept_sums < 0) return V(slope)(&o->act[act], dy, y, y);
    return V(gate_slope)(o, act, dy, V(kept_at)(s, o->kept_sums + o->place[gate], row, unit, n), y);
}

/* What the peephole of a gate (number `which` of i f o) hands to the c it saw; its own gradient is put beside. */
FL_INLINE vec V(peephole_grad)(const fl_cell_grad_args *s, int which, vec dz, vec seen, vec dc, int64_t row,
                               int64_t unit, const int n)
{
    const fl_cell_options *o = s->options;
    if (!o->peephole[which]) return dc;
    const int before = (which > 0 && o->peephole[0] != NULL) + (which > 1 && o->peephole[1] != NULL);
    V(grad_to)(s, o->grad_peephole + before, V(mul)(dz, seen), row, unit, n);
    return V(fma)(dz, V(load_n)((const real *)o->peephole[which] + unit, n), dc);
}

/* Gradients of the values of i f g from that of c, which passes its bound first. */
FL_INLINE void V(free_values)(const fl_cell_grad_args *s, V(free_grad) * b, vec d[3], int64_t row, int64_t unit,
                              const int n)
{
    const fl_cell_options *o = s->options;
    b->dc = V(within)(b->dc, b->c_sum, o->cell_clip);
    vec g = b->gate[2];
    d[2] = V(mul)(b->dc, b->gate[0]);
    if (s->mask_g) {
        const vec mask = V(at)(s->mask_g, row, unit, n);
        g = V(mul)(g, mask);
        d[2] = V(mul)(d[2], mask);
    }
    d[0] = V(mul)(b->dc, g);
    d[1] = V(mul)(b->dc, b->c_prev);
    if (o->fed) { /* what the next step's gates hand back lies behind dc */
        const real *fed = (const real *)s->dc[row] + o->hidden + unit;
        d[0] = V(add)(d[0], V(load_n)(fed, n));
        d[1] = V(add)(d[1], V(load_n)(fed + o->hidden, n));
    }
    if (o->coupled == FL_COUPLED_I) d[1] = V(sub)(d[1], d[0]);
    if (o->coupled == FL_COUPLED_F) d[0] = V(sub)(d[0], d[1]);
    b->dc_prev = V(fma)(b->dc, b->gate[1], b->dc_prev);
    if (o->grad_carry >= 0) V(grad_to)(s, o->grad_carry, b->dc, row, unit, n); /* the depth gate goes on from here */
}

/* h and the gradient of o's value; shown: what of c the output saw */
FL_INLINE void V(free_output_grad)(const fl_cell_grad_args *s, V(free_grad) * b, vec shown, int64_t row, int64_t unit,
                                   const int n)
{
    const fl_cell_options *o = s->options;
    b->squashed = V(activate)(&o->act[2], shown);
    if (s->h) V(store_n)((real *)s->h[row] + unit, V(mul)(b->gate[3], b->squashed), n);
    b->d_o = V(mul)(b->dh, b->squashed);
    if (o->fed) b->d_o = V(add)(b->d_o, V(load_n)((const real *)s->dc[row] + 3 * o->hidden + unit, n));
}

FL_INLINE void V(lstm_free_backward_lanes)(const fl_cell_grad_args *s, int64_t row, int64_t unit, const int n)
{
    const fl_cell_options *o = s->options;
    V(free_grad) b;
    vec d[3];
    V(free_recall)(s, &b, row, unit, n);
    V(free_recall_dh)(s, &b, row, unit, n);
    V(free_output_grad)(s, &b, b.c, row, unit, n);
    b.dc = V(add)(b.dc, V(slope)(&o->act[2], V(mul)(b.dh, b.gate[3]), b.c, b.squashed));
    if (o->place[3] >= 0) {
        const vec dz = V(free_slope)(s, V(GATE_O), b.d_o, b.gate[3], row, unit, n);
        V(grad_to)(s, o->place[3], dz, row, unit, n);
        if (o->peephole_o_prev)
            b.dc_prev = V(peephole_grad)(s, 2, dz, b.c_prev, b.dc_prev, row, unit, n);
        else
            b.dc = V(peephole_grad)(s, 2, dz, b.c, b.dc, row, unit, n);
    }
    V(free_values)(s, &b, d, row, unit, n);
    FL_UNROLL
    for (int v = 0; v < 3; v++) {
        if (o->place[v] < 0) continue;
        const vec dz = V(free_slope)(s, v, d[v], b.gate[v], row, unit, n);
        V(grad_to)(s, o->place[v], dz, row, unit, n);
        if (v < 2) b.dc_prev = V(peephole_grad)(s, v, dz, b.c_prev, b.dc_prev, row, unit, n);
    }
    V(store_n)((real *)s->dc[row] + unit, b.dc_prev, n);
}
