/* exp, sigmoid and tanh, written once over the SIMD vocabulary: the same bits in every lane, on every ISA.
 *
 * All three reduce to 2^n and e^u or e^(-u), |u| small: one polynomial, no branch and no table.  t = n + FL_POW2_BIAS
 * comes out of one fma, rounded to nearest; n = t - FL_POW2_BIAS and 2^n = pow2_of(t) cost one operation each.
 * Nothing here writes a product that feeds an addition outside fma, so -ffp-contract cannot change the bits.
 *
 * Division stays a division.  Estimate, Newton step and residual correction instead of it were measured slower (float,
 * AVX-512, Zen 4: 19.7 cycles a vector against 15.1 for tanh, 16.8 against 13.6 for sigmoid): the divider works beside
 * the multipliers, and the polynomials hide it.
 *
 * The bounds in ULP are measured by bench/ulp_sweep.c: over all floats, and over samples in double.  They hold with
 * subnormals on and, FTZ and DAZ being set, wherever neither argument nor result is subnormal.
 */

#if FL_BITS == 32
#define FL_LOG2E 0x1.715476p+0f
#define FL_LN2_HI 0x1.62e43p-1f
#define FL_LN2_LO -0x1.05c61p-29f
#define FL_TANH_ONE 20.0f    /* in 2|x|: tanh is 1 to the last bit from |x| = 9.02 on */
#define FL_TANH_C 0x1.800008p-1f
#define FL_SIGMOID_ONE 30.0f /* like sigmoid from 17.4 on */
#define FL_SIGMOID_ZERO -89.0f /* e^89 is infinite, and 1 / (1 + inf) a plain 0 */
#define FL_EXP_MIN -104.0f   /* half the smallest subnormal is e^-103.97 */
#define FL_EXP_MAX 89.0f
#else
#define FL_LOG2E 0x1.71547652b82fep+0
#define FL_LN2_HI 0x1.62e42fefa39efp-1
#define FL_LN2_LO 0x1.abc9e3b39803fp-56
#define FL_TANH_ONE 40.0
#define FL_TANH_C 0x1.8000000000004p-1
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

/* m in (e^u - 1) * FL_TANH_C = u * (1 + m), |u| <= ln(2) / 2: minimax in the error it leaves in tanh. */
FL_INLINE vec V(tanh_poly)(vec u)
{
#if FL_BITS == 32
    vec p = V(set1)(0x1.1114eep-10f);
    p = V(horner)(p, u, 0x1.9b58dep-8f);
    p = V(horner)(p, u, 0x1.ffffbep-6f);
    p = V(horner)(p, u, 0x1.fffef4p-4f);
    p = V(horner)(p, u, 0x1.80000ap-2f);
#else
    vec p = V(set1)(0x1.44938c08d2245p-26);
    p = V(horner)(p, u, 0x1.bd025c911f8f5p-23);
    p = V(horner)(p, u, 0x1.1565aae4269cap-19);
    p = V(horner)(p, u, 0x1.38133562631a4p-16);
    p = V(horner)(p, u, 0x1.381381bc288e1p-13);
    p = V(horner)(p, u, 0x1.11111121d18fdp-10);
    p = V(horner)(p, u, 0x1.99999999580eap-8);
    p = V(horner)(p, u, 0x1.fffffffffa5c7p-6);
    p = V(horner)(p, u, 0x1.00000000000d8p-3);
    p = V(horner)(p, u, 0x1.8000000000006p-2);
#endif
    return V(horner)(p, u, FL_TANH_C - 1);
}

/* tanh(x): at most 1.963 ULP over all floats, 1.985 over 10^8 doubles; odd; |y| <= 1 and +-1 from a finite argument
 * on; never more than 1 ULP against the direction of x; NaN gives NaN.
 *
 * With q = (e^(2|x|) - 1) * C, tanh |x| = q / (q + 2C): the larger q, the less its error counts (e^(-2|x|) would serve
 * too, but costs one ULP more near 1).  For 2|x| = n * ln(2) + u, q = 2^n * u * (1 + m) + (2^n - 1) * C without much
 * cancellation.  One term of ln(2) is enough, as what the quotient keeps of its error shrinks with 2^n; float's happens
 * to be right to 28 bits.  In double its error would show near n = 1, u < 0, where the coefficients make up for it, and
 * q needs to be put together with one rounding less to stay below 2 ULP there.
 *
 * C is free.  1/2 would put q and the divisor just above a power of two, where rounding is worst, exactly where the
 * quotient is just below one: 2.4 ULP.  3/4 cures that, but q + 3/2 is a tie for every q around 2^23 (2^52), whose
 * alternating directions make y jump back by 2 ULP near x = 8.2 (18.3): hence the last bits of FL_TANH_C. */
FL_INLINE vec V(v_tanh)(vec x)
{
    vec a = V(min)(V(set1)(FL_TANH_ONE), V(abs)(V(add)(x, x)));
    vec t = V(fma)(a, V(set1)(FL_LOG2E), V(set1)(FL_POW2_BIAS));
    vec n = V(sub)(t, V(set1)(FL_POW2_BIAS));
    vec s = V(pow2_of)(t);
    vec u = V(fma)(n, V(set1)(-FL_LN2_HI), a);
    vec rest = V(fma)(s, V(set1)(FL_TANH_C), V(set1)(-FL_TANH_C));
#if FL_BITS == 32
    vec q = V(fma)(s, V(fma)(u, V(tanh_poly)(u), u), rest);
#else
    vec q = V(fma)(V(mul)(s, u), V(tanh_poly)(u), V(fma)(s, u, rest));
#endif
    return V(copysign)(V(div)(q, V(add)(q, V(set1)(2 * FL_TANH_C))), x);
}

/* sigmoid(x) = 1 / (1 + e^(-x)): at most 2.481 ULP over all floats, 2.13 over 10^8 doubles, down to the smallest normal
 * result; 0 soon after; in [0, 1]; never more than 1 ULP against the direction of x; NaN gives NaN. */
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

/* e^x: at most 0.90 ULP over all floats, 0.87 over samples of doubles; infinity above, subnormals and then 0 below; NaN
 * gives NaN.
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
#undef FL_TANH_C
#undef FL_SIGMOID_ONE
#undef FL_SIGMOID_ZERO
#undef FL_EXP_MIN
#undef FL_EXP_MAX
