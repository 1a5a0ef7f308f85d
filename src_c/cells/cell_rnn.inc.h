/* Simple recurrent network (Elman 1990; torch.nn.RNN): h = f(p), f tanh or relu, p the pre-activation. */

FL_INLINE void V(rnn_begin_lanes)(const fl_step_args *s, real *tile, const real *x_part, int apart, int64_t row,
                                  int64_t unit, const int lanes)
{
    (void)x_part;
    const vec p = V(gate)(tile, 0, apart, lanes);
    const vec a = s->options->act[0].kind == FL_ACT_RELU ? V(relu)(p) : V(v_tanh)(p);
    V(store_n)((real *)s->h_out[row] + unit, a, lanes);
    if (s->gates) V(store_n)((real *)s->gates[row] + unit, a, lanes);
}

/* Its chain is short: there is nothing to do in a second phase. */
FL_INLINE void V(rnn_end_lanes)(const fl_step_args *s, real *tile, const real *x_part, int apart, int64_t row,
                                int64_t unit, const int lanes)
{
    (void)s, (void)tile, (void)x_part, (void)apart, (void)row, (void)unit, (void)lanes;
}

/*   dp = dh * (1 - a^2), or dh where a > 0 */
FL_INLINE void V(rnn_backward_lanes)(const fl_cell_grad_args *s, int64_t row, int64_t unit, const int lanes)
{
    const vec a = V(load_n)((const real *)s->gates[row] + unit, lanes);
    vec dh = V(load_n)((const real *)s->dh[row] + unit, lanes);
    if (s->dh_add) dh = V(add)(dh, V(load_n)((const real *)s->dh_add[row] + unit, lanes));
    const vec dp = s->options->act[0].kind == FL_ACT_RELU ? V(select)(V(lt)(V(zero)(), a), dh, V(zero)())
                                                : V(mul)(dh, V(fnma)(a, a, V(set1)(FL_C(1.0))));
    V(store_n)((real *)s->dgates[row] + unit, dp, lanes);
}
