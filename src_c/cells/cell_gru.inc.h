/* GRU (Cho et al. 2014) with the reset after the product, as torch.nn.GRU.  Gate order r z n.
 *
 *   r = s(pr)   z = s(pz)   n = tanh(xn + r * hn)      p: pre-activations; xn, hn: the x-part and h-part of n's
 *   h = (1 - z) * n + z * h_prev
 */

/* The first phase leaves the sum for n in the place of r, and z in its own. */
FL_INLINE void V(gru_begin_lanes)(const fl_step_args *s, real *tile, const real *x_part, int apart, int64_t row,
                                  int64_t unit, const int lanes)
{
    const vec r = V(v_sigmoid)(V(gate)(tile, 0, apart, lanes));
    const vec z = V(v_sigmoid)(V(gate)(tile, 1, apart, lanes));
    const vec hn = V(gate)(tile, 2, apart, lanes);
    const vec sum = V(fma)(r, hn, V(gate)(x_part, 2, apart, lanes));
    if (s->gates) {
        real *gates = (real *)s->gates[row] + unit;
        V(store_n)(gates, r, lanes);
        V(store_n)(gates + s->hidden, z, lanes);
        V(store_n)(gates + 3 * s->hidden, hn, lanes);
    }
    V(keep)(tile, 0, apart, sum, lanes);
    V(keep)(tile, 1, apart, z, lanes);
}

FL_INLINE void V(gru_end_lanes)(const fl_step_args *s, real *tile, const real *x_part, int apart, int64_t row,
                                int64_t unit, const int lanes)
{
    (void)x_part;
    const vec n = V(v_tanh)(V(gate)(tile, 0, apart, lanes)), z = V(gate)(tile, 1, apart, lanes);
    const vec h_prev = V(load_n)((const real *)s->h[row] + unit, lanes);
    V(store_n)((real *)s->h_out[row] + unit, V(fma)(z, V(sub)(h_prev, n), n), lanes);
    if (s->gates) V(store_n)((real *)s->gates[row] + unit + 2 * s->hidden, n, lanes);
}

/*   dn = dh * (1-z) * (1-n^2)        dhn = dn * r         order of the gradients: hn r z n
 *   dz = dh * (h_prev - n) * z(1-z)  dr = dn * hn * r(1-r)
 *   dh_prev = dh * z + products
 */
FL_INLINE void V(gru_backward_lanes)(const fl_cell_grad_args *s, int64_t row, int64_t unit, const int lanes)
{
    const real *gates = (const real *)s->gates[row] + unit;
    const vec one = V(set1)(FL_C(1.0));
    const vec r = V(load_n)(gates, lanes);
    const vec z = V(load_n)(gates + s->hidden, lanes);
    const vec n = V(load_n)(gates + 2 * s->hidden, lanes);
    const vec hn = V(load_n)(gates + 3 * s->hidden, lanes);
    const vec h_prev = V(load_n)((const real *)s->h_prev[row] + unit, lanes);
    vec dh = V(load_n)((const real *)s->dh[row] + unit, lanes);
    if (s->dh_add) dh = V(add)(dh, V(load_n)((const real *)s->dh_add[row] + unit, lanes));
    const vec dn = V(mul)(V(mul)(dh, V(sub)(one, z)), V(fnma)(n, n, one));
    const vec dz = V(mul)(V(mul)(dh, V(sub)(h_prev, n)), V(mul)(z, V(sub)(one, z)));
    const vec dr = V(mul)(V(mul)(dn, hn), V(mul)(r, V(sub)(one, r)));
    real *dgates = (real *)s->dgates[row] + unit;
    V(store_n)(dgates, V(mul)(dn, r), lanes);
    V(store_n)(dgates + s->hidden, dr, lanes);
    V(store_n)(dgates + 2 * s->hidden, dz, lanes);
    V(store_n)(dgates + 3 * s->hidden, dn, lanes);
    V(store_n)((real *)s->carry[row] + unit, V(mul)(dh, z), lanes);
}
