/* Simple recurrent network with any activation, a bound, zoneout; also one module of a clockwork network. */

FL_INLINE void V(rnn_free_forward_lanes)(const fl_step_args *s, const real *tile, const real *x_part, int apart,
                                         int64_t row, int64_t unit, const int n)
{
    (void)x_part;
    const fl_cell_options *o = s->options;
    const vec z = V(gate)(tile, 0, apart, n);
    const vec a = V(activate)(&o->act[0], V(bounded)(z, o->clip));
    if (s->gates) {
        real *kept = (real *)s->gates[row] + unit;
        V(store_n)(kept, a, n);
        if (o->kept_sums >= 0) V(store_n)(kept + o->kept_sums * o->hidden, z, n);
    }
    const vec h = s->zoneout_h ? V(zone)(s->zoneout_h, V(at)(s->h_prev, row, unit, n), a, row, unit, n) : a;
    V(store_n)((real *)s->h_out[row] + unit, h, n);
}

FL_INLINE void V(rnn_free_backward_lanes)(const fl_cell_grad_args *s, int64_t row, int64_t unit, const int n)
{
    const fl_cell_options *o = s->options;
    const vec a = V(kept_at)(s, 0, row, unit, n);
    vec dh = V(at)(s->dh, row, unit, n);
    if (s->dh_add) dh = V(add)(dh, V(at)(s->dh_add, row, unit, n));
    if (s->zoneout_h) {
        vec held = V(zero)();
        dh = V(zone_grad)(s->zoneout_h, dh, &held, row, unit, n);
        V(store_n)((real *)s->carry[row] + unit, held, n);
    }
    const vec z = o->kept_sums >= 0 ? V(kept_at)(s, o->kept_sums, row, unit, n) : a;
    V(store_n)((real *)s->dgates[row] + unit, o->kept_sums >= 0 ? V(gate_slope)(o, 0, dh, z, a)
                                                                : V(slope)(&o->act[0], dh, z, a), n);
}
