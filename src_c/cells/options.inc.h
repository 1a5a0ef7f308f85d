/* What cells with options share: activations by choice with their slopes, bounds.  Formulas: docs/equations.md.
 *
 * Sigmoid and tanh are inlined where they are used; the others are called, so that eleven of them do not fill every
 * loop.  Which it is is the same for all lanes and all steps: a branch that is always predicted. */

FL_INLINE vec V(at)(const void *const *list, int64_t row, int64_t unit, const int n)
{
    return V(load_n)((const real *)list[row] + unit, n);
}

/* -l <= x <= l; NaN stays NaN: min and max give their second operand */
FL_INLINE vec V(bounded)(vec x, double limit)
{
    return V(max)(V(set1)((real)-limit), V(min)(V(set1)((real)limit), x));
}

/* dy where x was within the limit, else 0 */
FL_INLINE vec V(within)(vec dy, vec x, double limit)
{
    return V(select)(V(lt)(V(set1)((real)limit), V(abs)(x)), V(zero)(), dy);
}

/* log(1 + e) for 0 <= e <= 1, as 2 atanh(e / (2 + e)): s <= 1/3, and s^2k/(2k+1) soon vanishes */
FL_INLINE vec V(log1p_small)(vec e)
{
    const vec s = V(div)(e, V(add)(e, V(set1)(FL_C(2.0)))), q = V(mul)(s, s);
    enum { TERMS = FL_BITS == 32 ? 7 : 16 };
    vec p = V(zero)();
    FL_UNROLL
    for (int k = TERMS; k > 0; k--) p = V(fma)(p, q, V(set1)(FL_C(1.0) / (real)(2 * k + 1)));
    const vec twice = V(add)(s, s);
    return V(fma)(V(mul)(p, q), twice, twice);
}

/* e^x - 1 for x <= 0, without cancellation: 2t / (1 - t), t = tanh(x / 2) */
FL_INLINE vec V(expm1_negative)(vec x)
{
    const vec t = V(v_tanh)(V(mul)(x, V(set1)(FL_C(0.5))));
    return V(div)(V(add)(t, t), V(sub)(V(set1)(FL_C(1.0)), t));
}

static FL_NOINLINE vec V(activate_other)(const fl_function *f, vec z)
{
    const vec alpha = V(set1)((real)f->alpha), beta = V(set1)((real)f->beta), one = V(set1)(FL_C(1.0));
    switch (f->kind) {
    case FL_ACT_RELU: return V(max)(V(zero)(), z);
    case FL_ACT_HARD_SIGMOID: return V(max)(V(zero)(), V(min)(one, V(fma)(alpha, z, beta)));
    case FL_ACT_SOFTSIGN: return V(div)(z, V(add)(one, V(abs)(z)));
    case FL_ACT_SOFTPLUS: return V(add)(V(max)(V(zero)(), z), V(log1p_small)(V(v_exp)(V(neg)(V(abs)(z)))));
    case FL_ACT_ELU:
        return V(select)(V(lt)(z, V(zero)()), V(mul)(alpha, V(expm1_negative)(V(min)(V(zero)(), z))), z);
    case FL_ACT_LEAKY_RELU: return V(select)(V(lt)(z, V(zero)()), V(mul)(alpha, z), z);
    case FL_ACT_THRESHOLDED_RELU: return V(select)(V(lt)(z, alpha), V(zero)(), z);
    case FL_ACT_SCALED_TANH: return V(mul)(alpha, V(v_tanh)(V(mul)(beta, z)));
    case FL_ACT_AFFINE: return V(fma)(alpha, z, beta);
    default: return z;
    }
}

FL_INLINE vec V(activate)(const fl_function *f, vec z)
{
    if (f->kind == FL_ACT_SIGMOID) return V(v_sigmoid)(z);
    if (f->kind == FL_ACT_TANH) return V(v_tanh)(z);
    return V(activate_other)(f, z);
}

/* dy times the slope at z, where the value is y */
static FL_NOINLINE vec V(slope_other)(const fl_function *f, vec dy, vec z, vec y)
{
    const vec alpha = V(set1)((real)f->alpha), beta = V(set1)((real)f->beta), one = V(set1)(FL_C(1.0)), no = V(zero)();
    switch (f->kind) {
    case FL_ACT_RELU: return V(select)(V(lt)(no, y), dy, no);
    case FL_ACT_HARD_SIGMOID:
        return V(select)(V(lt)(no, y), V(select)(V(lt)(y, one), V(mul)(dy, alpha), no), no);
    case FL_ACT_SOFTSIGN: {
        const vec d = V(div)(one, V(add)(one, V(abs)(z)));
        return V(mul)(dy, V(mul)(d, d));
    }
    case FL_ACT_SOFTPLUS: return V(mul)(dy, V(v_sigmoid)(z));
    case FL_ACT_ELU: return V(select)(V(lt)(z, no), V(mul)(dy, V(add)(y, alpha)), dy);
    case FL_ACT_LEAKY_RELU: return V(select)(V(lt)(z, no), V(mul)(dy, alpha), dy);
    case FL_ACT_THRESHOLDED_RELU: return V(select)(V(lt)(z, alpha), no, dy);
    case FL_ACT_SCALED_TANH: {
        const vec t = V(v_tanh)(V(mul)(beta, z));
        return V(mul)(V(mul)(dy, V(mul)(alpha, beta)), V(fnma)(t, t, one));
    }
    case FL_ACT_AFFINE: return V(mul)(dy, alpha);
    default: return dy;
    }
}

FL_INLINE vec V(slope)(const fl_function *f, vec dy, vec z, vec y)
{
    const vec one = V(set1)(FL_C(1.0));
    if (f->kind == FL_ACT_SIGMOID) return V(mul)(dy, V(mul)(y, V(sub)(one, y)));
    if (f->kind == FL_ACT_TANH) return V(mul)(dy, V(fnma)(y, y, one));
    return V(slope_other)(f, dy, z, y);
}

/* A gate's slope through its bound: z before the bound, y the gate. */
FL_INLINE vec V(gate_slope)(const fl_cell_options *o, int act, vec dy, vec z, vec y)
{
    return V(within)(V(slope)(&o->act[act], dy, V(bounded)(z, o->clip), y), z, o->clip);
}

/* k * old + (1 - k) * now, or `now` */
FL_INLINE vec V(zone)(const void *const *zoneout, vec old, vec now, int64_t row, int64_t unit, const int n)
{
    if (!zoneout) return now;
    const vec k = V(at)(zoneout, row, unit, n);
    return V(fma)(k, old, V(mul)(V(sub)(V(set1)(FL_C(1.0)), k), now)); /* of k = 1 exactly the old */
}

/* The gradient of `now` above from d; that of `old` is added to *held. */
FL_INLINE vec V(zone_grad)(const void *const *zoneout, vec d, vec *held, int64_t row, int64_t unit, const int n)
{
    if (!zoneout) return d;
    const vec kept = V(mul)(V(at)(zoneout, row, unit, n), d);
    *held = V(add)(*held, kept);
    return V(sub)(d, kept);
}

/* A kept value, and where a gradient goes: places in vectors of H. */
FL_INLINE vec V(kept_at)(const fl_cell_grad_args *s, int64_t index, int64_t row, int64_t unit, const int n)
{
    return V(at)(s->gates, row, index * s->options->hidden + unit, n);
}

FL_INLINE void V(grad_to)(const fl_cell_grad_args *s, int64_t index, vec d, int64_t row, int64_t unit, const int n)
{
    V(store_n)((real *)s->dgates[row] + index * s->options->hidden + unit, d, n);
}
