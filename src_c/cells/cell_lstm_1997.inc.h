/* LSTM of Hochreiter & Schmidhuber 1997: blocks of cells share an input and an output gate, no forget gate.
 * docs/equations.md has the formulas.  A row of sums: g (H), input gates (b), output gates (b, or none).
 * Kept: the gates, g, then the sums if a slope needs them.  The state: c (H), then the gates. */

/* For each of n units from `unit` on, the value of its block. */
FL_INLINE vec V(of_blocks)(const real *values, int64_t block_size, int64_t unit, const int n)
{
    if (block_size == 1) return V(load_n)(values + unit, n);
    real part[FL_W];
    const real *value = values + unit / block_size;
    int64_t left = block_size - unit % block_size;
    for (int l = 0; l < n; l++, left--) {
        if (left == 0) {
            value++;
            left = block_size;
        }
        part[l] = *value;
    }
    return V(load_n)(part, n);
}

static void V(lstm_1997_forward_row)(const fl_step_args *s, int64_t row)
{
    const fl_cell_options *o = s->options;
    const int64_t H = o->hidden, S = o->block_size, both = o->gate_units;
    const real *sums = (const real *)s->pre[row];
    real *gates = (real *)s->gates[row], *g_kept = gates + both, *c_out = (real *)s->c[row];
    FL_OVER(j, both, n)
    {
        V(store_n)(gates + j, V(activate)(&o->act[0], V(load_n)(sums + H + j, (int)n)), (int)n);
    }
    if (o->kept_sums >= 0) memcpy(gates + both + H, sums, (size_t)(H + both) * sizeof(real));
    FL_OVER(unit, H, lanes)
    {
        const int n = (int)lanes;
        const vec g = V(activate)(&o->act[1], V(load_n)(sums + unit, n));
        const vec masked = s->mask_g ? V(mul)(g, V(at)(s->mask_g, row, unit, n)) : g;
        const vec c = V(fma)(V(of_blocks)(gates, S, unit, n), masked, V(at)(s->c_prev, row, unit, n));
        vec h = V(activate)(&o->act[2], c);
        if (o->has_o) h = V(mul)(h, V(of_blocks)(gates + H / S, S, unit, n));
        V(store_n)(g_kept + unit, g, n);
        V(store_n)(c_out + unit, c, n);
        V(store_n)((real *)s->h_out[row] + unit, h, n);
    }
    memcpy(c_out + H, gates, (size_t)both * sizeof(real));
}

/* The sum of a block's cells, in their order. */
static void V(add_blocks)(real *to, const real *units, int64_t blocks, int64_t block_size)
{
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t i = 0; i < block_size; i++) to[b] += units[b * block_size + i];
}

/* Gradients of the sums in their order, and behind them a place for those of each unit's gates. */
static void V(lstm_1997_backward_row)(const fl_cell_grad_args *s, int64_t row)
{
    const fl_cell_options *o = s->options;
    const int64_t H = o->hidden, S = o->block_size, both = o->gate_units, blocks = H / S;
    const real *gates = (const real *)s->gates[row], *g_kept = gates + both, *sums = g_kept + H;
    real *dc_row = (real *)s->dc[row], *out = (real *)s->dgates[row], *di = out + H + both, *d_o = di + H;
    FL_OVER(unit, H, lanes)
    {
        const int n = (int)lanes;
        const vec i = V(of_blocks)(gates, S, unit, n), g = V(load_n)(g_kept + unit, n);
        const vec c = V(at)(s->c, row, unit, n), squashed = V(activate)(&o->act[2], c);
        vec dh = V(at)(s->dh, row, unit, n), at_c = V(zero)(), masked = g, dg;
        if (s->dh_add) dh = V(add)(dh, V(at)(s->dh_add, row, unit, n));
        at_c = o->has_o ? V(mul)(dh, V(of_blocks)(gates + blocks, S, unit, n)) : dh;
        const vec dc = V(add)(V(load_n)(dc_row + unit, n), V(slope)(&o->act[2], at_c, c, squashed));
        dg = V(mul)(dc, i);
        if (s->mask_g) {
            const vec mask = V(at)(s->mask_g, row, unit, n);
            masked = V(mul)(g, mask);
            dg = V(mul)(dg, mask);
        }
        const vec z = o->kept_sums >= 0 ? V(load_n)(sums + unit, n) : g;
        V(store_n)(di + unit, V(mul)(dc, masked), n);
        V(store_n)(d_o + unit, V(mul)(dh, squashed), n);
        V(store_n)(out + unit, V(slope)(&o->act[1], dg, z, g), n);
        V(store_n)(dc_row + unit, dc, n);
    }
    memcpy(out + H, dc_row + H, (size_t)both * sizeof(real)); /* what the next step handed back */
    V(add_blocks)(out + H, di, blocks, S);
    if (o->has_o) V(add_blocks)(out + H + blocks, d_o, blocks, S);
    FL_OVER(j, both, lanes)
    {
        const int n = (int)lanes;
        const vec y = V(load_n)(gates + j, n), z = o->kept_sums >= 0 ? V(load_n)(sums + H + j, n) : y;
        V(store_n)(out + H + j, V(slope)(&o->act[0], V(load_n)(out + H + j, n), z, y), n);
    }
}
