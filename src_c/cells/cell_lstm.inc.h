/* LSTM (Gers, Schmidhuber & Cummins 2000; torch.nn.LSTM), element-wise part.  Gate order i f g o.
 *
 *   i = s(pi)   f = s(pf)   g = tanh(pg)   o = s(po)        p: pre-activations, one vector each in the tile
 *   c = f * c_prev + i * g
 *   h = o * tanh(c)
 */

/* n lanes of units [unit, unit + n) of one row; n is the constant FL_W for every block but a cut last one.  The first
 * phase leaves c in the place of the first gate, and o in its own. */
FL_INLINE void V(lstm_begin_lanes)(const fl_step_args *s, real *tile, const real *x_part, int apart, int64_t row,
                                   int64_t unit, const int n)
{
    (void)x_part;
    const vec i = V(v_sigmoid)(V(gate)(tile, 0, apart, n));
    const vec f = V(v_sigmoid)(V(gate)(tile, 1, apart, n));
    const vec g = V(v_tanh)(V(gate)(tile, 2, apart, n));
    const vec o = V(v_sigmoid)(V(gate)(tile, 3, apart, n));
    const vec c_prev = V(load_n)((const real *)s->c_prev[row] + unit, n);
    const vec c = V(fma)(f, c_prev, V(mul)(i, g));
    V(store_n)((real *)s->c[row] + unit, c, n);
    if (s->gates) {
        real *gates = (real *)s->gates[row] + unit;
        V(store_n)(gates, i, n);
        V(store_n)(gates + s->hidden, f, n);
        V(store_n)(gates + 2 * s->hidden, g, n);
        V(store_n)(gates + 3 * s->hidden, o, n);
    }
    V(keep)(tile, 0, apart, c, n);
    V(keep)(tile, 3, apart, o, n);
}

FL_INLINE void V(lstm_end_lanes)(const fl_step_args *s, real *tile, const real *x_part, int apart, int64_t row,
                                 int64_t unit, const int n)
{
    (void)x_part;
    const vec c = V(gate)(tile, 0, apart, n), o = V(gate)(tile, 3, apart, n);
    V(store_n)((real *)s->h_out[row] + unit, V(mul)(o, V(v_tanh)(c)), n);
}

/*   dh = dL/dh (all of it)      tc = tanh(c)
 *   do = dh * tc * o(1-o)       dc += dh * o * (1 - tc^2)
 *   di = dc * g * i(1-i)        df = dc * c_prev * f(1-f)     dg = dc * i * (1-g^2)
 *   dc_prev = dc * f
 */
FL_INLINE void V(lstm_backward_lanes)(const fl_cell_grad_args *s, int64_t row, int64_t unit, const int n)
{
    const real *gates = (const real *)s->gates[row] + unit;
    const vec one = V(set1)(FL_C(1.0));
    const vec i = V(load_n)(gates, n);
    const vec f = V(load_n)(gates + s->hidden, n);
    const vec g = V(load_n)(gates + 2 * s->hidden, n);
    const vec o = V(load_n)(gates + 3 * s->hidden, n);
    const vec tc = V(v_tanh)(V(load_n)((const real *)s->c[row] + unit, n));
    vec dh = V(load_n)((const real *)s->dh[row] + unit, n);
    if (s->dh_add) dh = V(add)(dh, V(load_n)((const real *)s->dh_add[row] + unit, n));
    if (s->h) V(store_n)((real *)s->h[row] + unit, V(mul)(o, tc), n);
    const vec d_o = V(mul)(V(mul)(dh, tc), V(mul)(o, V(sub)(one, o)));
    const vec dc = V(fma)(V(mul)(dh, o), V(fnma)(tc, tc, one), V(load_n)((const real *)s->dc[row] + unit, n));
    const vec di = V(mul)(V(mul)(dc, g), V(mul)(i, V(sub)(one, i)));
    const vec df = V(mul)(V(mul)(dc, V(load_n)((const real *)s->c_prev[row] + unit, n)),
                          V(mul)(f, V(sub)(one, f)));
    const vec dg = V(mul)(V(mul)(dc, i), V(fnma)(g, g, one));
    real *dgates = (real *)s->dgates[row] + unit;
    V(store_n)(dgates, di, n);
    V(store_n)(dgates + s->hidden, df, n);
    V(store_n)(dgates + 2 * s->hidden, dg, n);
    V(store_n)(dgates + 3 * s->hidden, d_o, n);
    V(store_n)((real *)s->dc[row] + unit, V(mul)(dc, f), n);
}
