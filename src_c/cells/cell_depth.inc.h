/* The depth gate of Yao et al. 2015, d = phi(W x + b + w_c * c_prev + w_l * c_lower): a part of its own before the LSTM
 * it belongs to, because it hears x alone.  c_lower: the layer below, same step. */

FL_INLINE void V(depth_forward_lanes)(const fl_step_args *s, const real *tile, const real *x_part, int apart,
                                      int64_t row, int64_t unit, const int n)
{
    (void)x_part;
    const fl_cell_options *o = s->options;
    vec z = V(gate)(tile, 0, apart, n);
    z = V(fma)(V(load_n)((const real *)o->depth_c + unit, n), V(at)(s->c_prev, row, unit, n), z);
    z = V(fma)(V(load_n)((const real *)o->depth_lower + unit, n), V(at)(s->lower, row, unit, n), z);
    real *kept = (real *)s->gates[row] + unit;
    V(store_n)(kept + o->kept_d * o->hidden, V(activate)(&o->act[0], z), n);
    if (o->kept_sums >= 0) V(store_n)(kept + (o->kept_sums + o->gates) * o->hidden, z, n);
}

/* After that of the LSTM, which left the gradient of c's sum. */
FL_INLINE void V(depth_backward_lanes)(const fl_cell_grad_args *s, int64_t row, int64_t unit, const int n)
{
    const fl_cell_options *o = s->options;
    const vec d = V(kept_at)(s, o->kept_d, row, unit, n), lower = V(at)(s->lower, row, unit, n);
    const vec c_prev = V(at)(s->c_prev, row, unit, n);
    const vec dc = V(load_n)((const real *)s->dgates[row] + o->grad_carry * o->hidden + unit, n);
    const vec z = o->kept_sums >= 0 ? V(kept_at)(s, o->kept_sums + o->gates, row, unit, n) : d;
    const vec dz = V(slope)(&o->act[0], V(mul)(dc, lower), z, d);
    V(grad_to)(s, o->grad_d, dz, row, unit, n);
    V(grad_to)(s, o->grad_depth, V(mul)(dz, c_prev), row, unit, n);
    V(grad_to)(s, o->grad_depth + 1, V(mul)(dz, lower), row, unit, n);
    real *dc_prev = (real *)s->dc[row] + unit;
    V(store_n)(dc_prev, V(fma)(dz, V(load_n)((const real *)o->depth_c + unit, n), V(load_n)(dc_prev, n)), n);
    V(store_n)((real *)s->dlower[row] + unit,
               V(fma)(dz, V(load_n)((const real *)o->depth_lower + unit, n), V(mul)(dc, d)), n);
}
