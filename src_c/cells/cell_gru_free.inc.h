/* GRU with options: activations by choice, bounds, masks.  Gate order r z n; `reset after` first, then `reset before`
 * (Cho et al. 2014), which takes two parts of a step, as the product of the candidate needs r * h of all units. */

enum { V(KEPT_R), V(KEPT_Z), V(KEPT_N), V(KEPT_HEARD) }; /* the last: the h-part of n, or r * h */

FL_INLINE vec V(gru_gate)(const fl_step_args *s, int kept, vec z, int64_t row, int64_t unit, const int n)
{
    const fl_cell_options *o = s->options;
    const vec y = V(activate)(&o->act[kept == V(KEPT_N)], V(bounded)(z, o->clip));
    if (!s->gates) return y;
    real *to = (real *)s->gates[row] + unit;
    V(store_n)(to + kept * o->hidden, y, n);
    if (o->kept_sums >= 0) V(store_n)(to + (o->kept_sums + kept) * o->hidden, z, n);
    return y;
}

/* h = (1 - z) * n + z * h_prev, n times its mask, then zoneout */
FL_INLINE void V(gru_output)(const fl_step_args *s, vec z, vec candidate, int64_t row, int64_t unit, const int n)
{
    const vec h_prev = V(at)(s->h_prev, row, unit, n);
    if (s->mask_g) candidate = V(mul)(candidate, V(at)(s->mask_g, row, unit, n));
    const vec h = V(fma)(z, V(sub)(h_prev, candidate), candidate);
    V(store_n)((real *)s->h_out[row] + unit, V(zone)(s->zoneout_h, h_prev, h, row, unit, n), n);
}

FL_INLINE void V(gru_free_forward_lanes)(const fl_step_args *s, const real *tile, const real *x_part, int apart,
                                         int64_t row, int64_t unit, const int n)
{
    const vec r = V(gru_gate)(s, V(KEPT_R), V(gate)(tile, 0, apart, n), row, unit, n);
    const vec z = V(gru_gate)(s, V(KEPT_Z), V(gate)(tile, 1, apart, n), row, unit, n);
    const vec hn = V(gate)(tile, 2, apart, n);
    const vec sum = V(fma)(r, hn, V(gate)(x_part, 2, apart, n));
    const vec candidate = V(gru_gate)(s, V(KEPT_N), sum, row, unit, n);
    if (s->gates) V(store_n)((real *)s->gates[row] + V(KEPT_HEARD) * s->options->hidden + unit, hn, n);
    V(gru_output)(s, z, candidate, row, unit, n);
}

FL_INLINE void V(gru_reset_forward_lanes)(const fl_step_args *s, const real *tile, const real *x_part, int apart,
                                          int64_t row, int64_t unit, const int n)
{
    (void)x_part;
    const vec r = V(gru_gate)(s, V(KEPT_R), V(gate)(tile, 0, apart, n), row, unit, n);
    V(gru_gate)(s, V(KEPT_Z), V(gate)(tile, 1, apart, n), row, unit, n);
    V(store_n)((real *)s->gates[row] + V(KEPT_HEARD) * s->options->hidden + unit,
               V(mul)(r, V(at)(s->h, row, unit, n)), n);
}

FL_INLINE void V(gru_new_forward_lanes)(const fl_step_args *s, const real *tile, const real *x_part, int apart,
                                        int64_t row, int64_t unit, const int n)
{
    (void)x_part;
    const vec candidate = V(gru_gate)(s, V(KEPT_N), V(gate)(tile, 0, apart, n), row, unit, n);
    const vec z = V(at)((const void *const *)s->gates, row, V(KEPT_Z) * s->options->hidden + unit, n);
    V(gru_output)(s, z, candidate, row, unit, n);
}

/* --- backward */

FL_INLINE vec V(gru_slope)(const fl_cell_grad_args *s, int kept, vec dy, vec y, int64_t row, int64_t unit, const int n)
{
    const fl_cell_options *o = s->options;
    const int act = kept == V(KEPT_N);
    if (o->kept_sums < 0) return V(slope)(&o->act[act], dy, y, y);
    return V(gate_slope)(o, act, dy, V(kept_at)(s, o->kept_sums + kept, row, unit, n), y);
}

/* From dh: gradients of the sums of n and of z, and what of dh reaches h_prev past the products. */
FL_INLINE void V(gru_output_grad)(const fl_cell_grad_args *s, vec *dn, vec *dz, int64_t row, int64_t unit, const int n)
{
    const vec z = V(kept_at)(s, V(KEPT_Z), row, unit, n), plain = V(kept_at)(s, V(KEPT_N), row, unit, n);
    const vec h_prev = V(at)(s->h_prev, row, unit, n);
    vec dh = V(at)(s->dh, row, unit, n), candidate = plain, held = V(zero)();
    if (s->dh_add) dh = V(add)(dh, V(at)(s->dh_add, row, unit, n));
    dh = V(zone_grad)(s->zoneout_h, dh, &held, row, unit, n);
    vec d = V(mul)(dh, V(sub)(V(set1)(FL_C(1.0)), z));
    if (s->mask_g) {
        const vec mask = V(at)(s->mask_g, row, unit, n);
        candidate = V(mul)(candidate, mask);
        d = V(mul)(d, mask);
    }
    *dn = V(gru_slope)(s, V(KEPT_N), d, plain, row, unit, n);
    *dz = V(gru_slope)(s, V(KEPT_Z), V(mul)(dh, V(sub)(h_prev, candidate)), z, row, unit, n);
    V(store_n)((real *)s->carry[row] + unit, V(fma)(dh, z, held), n);
}

/* order of the gradients: hn r z n */
FL_INLINE void V(gru_free_backward_lanes)(const fl_cell_grad_args *s, int64_t row, int64_t unit, const int n)
{
    vec dn, dz;
    V(gru_output_grad)(s, &dn, &dz, row, unit, n);
    const vec r = V(kept_at)(s, V(KEPT_R), row, unit, n), hn = V(kept_at)(s, V(KEPT_HEARD), row, unit, n);
    V(grad_to)(s, 0, V(mul)(dn, r), row, unit, n);
    V(grad_to)(s, 1, V(gru_slope)(s, V(KEPT_R), V(mul)(dn, hn), r, row, unit, n), row, unit, n);
    V(grad_to)(s, 2, dz, row, unit, n);
    V(grad_to)(s, 3, dn, row, unit, n);
}

/* Reset before, the second part of the step first; order of the gradients: r z n. */
FL_INLINE void V(gru_new_backward_lanes)(const fl_cell_grad_args *s, int64_t row, int64_t unit, const int n)
{
    vec dn, dz;
    V(gru_output_grad)(s, &dn, &dz, row, unit, n);
    V(grad_to)(s, 1, dz, row, unit, n);
    V(grad_to)(s, 2, dn, row, unit, n);
}

/* dheard = dn . U_n:  dr = dheard * h, and h gets dheard * r */
FL_INLINE void V(gru_reset_backward_lanes)(const fl_cell_grad_args *s, int64_t row, int64_t unit, const int n)
{
    const vec r = V(kept_at)(s, V(KEPT_R), row, unit, n), dheard = V(at)(s->dheard, row, unit, n);
    const vec dr = V(mul)(dheard, V(at)(s->seen, row, unit, n));
    V(grad_to)(s, 0, V(gru_slope)(s, V(KEPT_R), dr, r, row, unit, n), row, unit, n);
    real *to = (real *)s->carry[row] + unit;
    V(store_n)(to, V(fma)(dheard, r, V(load_n)(to, n)), n);
}
