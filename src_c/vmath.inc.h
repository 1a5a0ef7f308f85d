/* exp, sigmoid and tanh, written once over the SIMD vocabulary: the same bits in every lane, on every ISA.
 *
 * All three reduce to 2^n * e^(-u) with |u| small, one polynomial, no branch and no table.  t = n + FL_POW2_BIAS
 * comes out of one fma, rounded to nearest; n = t - FL_POW2_BIAS and 2^n = pow2_of(t) cost one operation each.
 * Nothing here writes a product that feeds an addition outside fma, so -ffp-contract cannot change the bits.
 *
 * The bounds in ULP are measured by bench/ulp_sweep.c: over all floats, and over samples in double.  They hold with
 * subnormals on and, FTZ and DAZ being set, wherever neither argument nor result is subnormal.
 */

#if FL_BITS == 32
#define FL_LOG2E 0x1.715476p+0f
#define FL_LN2_HI 0x1.62e43p-1f
#define FL_LN2_LO -0x1.05c61p-29f
#define FL_TANH_ONE 20.0f    /* in 2|x|: tanh is 1 to the last bit from |x| = 9.02 on */
#define FL_SIGMOID_ONE 30.0f /* so is sigmoid from 17.4 on */
#define FL_SIGMOID_ZERO -89.0f /* e^89 is infinite, and 1 / (1 + inf) a plain 0 */
#define FL_EXP_MIN -104.0f   /* half the smallest subnormal is e^-103.97 */
#define FL_EXP_MAX 89.0f
#else
#define FL_LOG2E 0x1.71547652b82fep+0
#define FL_LN2_HI 0x1.62e42fefa39efp-1
#define FL_LN2_LO 0x1.abc9e3b39803fp-56
#define FL_TANH_ONE 40.0
#define FL_SIGMOID_ONE 40.0
#define FL_SIGMOID_ZERO -710.0
#define FL_EXP_MIN -746.0
#define FL_EXP_MAX 710.0
#endif

FL_INLINE vec V(horner)(vec p, vec u, real c) { return V(fma)(p, u, V(set1)(c)); }

/* e^(-u), |u| <= ln(2) / 2: minimax in relative error, exact at 0. */
FL_INLINE vec V(exp_poly)(vec u)
{
#if FL_BITS == 32
    vec p = V(set1)(0x1.6b7214p-10f);
    p = V(horner)(p, u, -0x1.12565p-7f);
    p = V(horner)(p, u, 0x1.55577ep-5f);
    p = V(horner)(p, u, -0x1.55546p-3f);
    p = V(horner)(p, u, 0x1.fffffcp-2f);
    p = V(horner)(p, u, -1.0f);
#else
    vec p = V(set1)(-0x1.b1ad7e1c998aep-26);
    p = V(horner)(p, u, 0x1.28bcd1f386359p-22);
    p = V(horner)(p, u, -0x1.71dcb1a505f8fp-19);
    p = V(horner)(p, u, 0x1.a01988893548dp-16);
    p = V(horner)(p, u, -0x1.a01a022a968aep-13);
    p = V(horner)(p, u, 0x1.6c16c18affb2fp-10);
    p = V(horner)(p, u, -0x1.11111110fd821p-7);
    p = V(horner)(p, u, 0x1.555555554e6f7p-5);
    p = V(horner)(p, u, -0x1.555555555558cp-3);
    p = V(horner)(p, u, 0x1.0000000000010p-1);
    p = V(horner)(p, u, -1.0);
#endif
    return V(horner)(p, u, FL_C(1.0));
}

/* (e^u - 1) * 3/4, |u| <= ln(2) / 2: minimax in the error it leaves in tanh; u outside the product keeps the leading
 * term exact, and the 3/4 costs nothing here. */
FL_INLINE vec V(tanh_poly)(vec u)
{
#if FL_BITS == 32
    vec p = V(set1)(0x1.11093ep-10f);
    p = V(horner)(p, u, 0x1.9b5a36p-8f);
    p = V(horner)(p, u, 0x1.ffffa8p-6f);
    p = V(horner)(p, u, 0x1.fffed6p-4f);
    p = V(horner)(p, u, 0x1.800002p-2f);
#else
    vec p = V(set1)(0x1.430564ce38dc4p-26);
    p = V(horner)(p, u, 0x1.bcfa1adee0c5dp-23);
    p = V(horner)(p, u, 0x1.1566ab6dcd204p-19);
    p = V(horner)(p, u, 0x1.381339ef2949bp-16);
    p = V(horner)(p, u, 0x1.3813814090b1cp-13);
    p = V(horner)(p, u, 0x1.111111203da85p-10);
    p = V(horner)(p, u, 0x1.999999998f237p-8);
    p = V(horner)(p, u, 0x1.fffffffffaea9p-6);
    p = V(horner)(p, u, 0x1.000000000002cp-3);
    p = V(horner)(p, u, 0x1.8000000000006p-2);
#endif
    p = V(horner)(p, u, FL_C(-0.25));
    return V(fma)(u, p, u);
}

/* tanh(x): odd; +-1 from a finite argument on; NaN gives NaN.
 * f32: 1.92 ULP over all floats.
 *
 * With q = (e^(2|x|) - 1) * 3/4, tanh |x| = q / (q + 3/2): never above 1, and the larger q the less its error counts
 * (e^(-2|x|) serves as well, but costs one ULP more near 1).  Without the 3/4 both q and the divisor lie just above a power of two,
 * where rounding is worst, exactly where the quotient lies just below one: 2.4 ULP.
 * For 2|x| = n * ln(2) + u, q = 2^n * tanh_poly(u) + (2^n - 1) * 3/4, without cancellation.  One term of ln(2) is
 * enough: its error in q grows with n, what is left of it in the quotient shrinks with 2^n. */
FL_INLINE vec V(v_tanh)(vec x)
{
    vec a = V(min)(V(set1)(FL_TANH_ONE), V(abs)(V(add)(x, x)));
    vec t = V(fma)(a, V(set1)(FL_LOG2E), V(set1)(FL_POW2_BIAS));
    vec n = V(sub)(t, V(set1)(FL_POW2_BIAS));
    vec s = V(pow2_of)(t);
    vec u = V(fma)(n, V(set1)(-FL_LN2_HI), a);
    vec rest = V(fma)(s, V(set1)(FL_C(0.75)), V(set1)(FL_C(-0.75)));
    vec q = V(fma)(s, V(tanh_poly)(u), rest);
    return V(copysign)(V(div)(q, V(add)(q, V(set1)(FL_C(1.5)))), x);
}

/* sigmoid(x) = 1 / (1 + e^(-x)): relative accuracy down to the smallest normal result, 0 soon after; NaN gives NaN. */
FL_INLINE vec V(v_sigmoid)(vec x)
{
    vec a = V(max)(V(set1)(FL_SIGMOID_ZERO), V(min)(V(set1)(FL_SIGMOID_ONE), x));
    vec t = V(fma)(a, V(set1)(-FL_LOG2E), V(set1)(FL_POW2_BIAS));
    vec n = V(sub)(t, V(set1)(FL_POW2_BIAS));
    vec u = V(fma)(n, V(set1)(FL_LN2_HI), a);
    u = V(fma)(n, V(set1)(FL_LN2_LO), u);
    vec d = V(fma)(V(pow2_of)(t), V(exp_poly)(u), V(set1)(1));
    return V(div)(V(set1)(1), d);
}

/* e^x: infinity above, subnormals and then 0 below; NaN gives NaN.
 * 2^n is applied in two halves, as it may be neither finite nor normal where e^x still is; only the second rounds. */
FL_INLINE vec V(v_exp)(vec x)
{
    vec a = V(max)(V(set1)(FL_EXP_MIN), V(min)(V(set1)(FL_EXP_MAX), x));
    vec n = V(round)(V(mul)(a, V(set1)(FL_LOG2E)));
    vec u = V(fma)(n, V(set1)(FL_LN2_HI), V(neg)(a));
    u = V(fma)(n, V(set1)(FL_LN2_LO), u);
    vec half = V(round)(V(mul)(n, V(set1)(FL_C(0.5))));
    vec y = V(mul)(V(exp_poly)(u), V(pow2)(half));
    return V(mul)(y, V(pow2)(V(sub)(n, half)));
}

#undef FL_LOG2E
#undef FL_LN2_HI
#undef FL_LN2_LO
#undef FL_TANH_ONE
#undef FL_SIGMOID_ONE
#undef FL_SIGMOID_ZERO
#undef FL_EXP_MIN
#undef FL_EXP_MAX
