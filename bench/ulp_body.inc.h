/* Checks one chunk of neighbouring arguments of one lane type; ulp_sweep.c includes this for float and for double.
 *
 *   real bits    the lane type, and the unsigned integer of its size
 *   wide W(f)    a type with digits to spare, and its libm function f
 *   N(name)      name_f32 | name_f64
 *   DTYPE DIGITS MIN_EXP MAX_EXP   of the lane type, as in <float.h>
 */
static bits N(bits_of)(real a)
{
    bits b;
    memcpy(&b, &a, sizeof b);
    return b;
}

static real N(real_of)(bits b)
{
    real a;
    memcpy(&a, &b, sizeof a);
    return a;
}

#define SIGN ((bits)1 << (8 * sizeof(bits) - 1))
#define SMALLEST_NORMAL W(ldexp)(1, MIN_EXP - 1)

static wide N(reference)(int function, real x)
{
    if (function == TANH) return W(tanh)(x);
    if (function == SIGMOID) return 1 / (1 + W(exp)(-(wide)x));
    return W(exp)(x);
}

/* |y - r| in units in the last place of r, which keep their size below the smallest normal. */
static double N(ulps)(real y, wide r)
{
    int exponent;
    W(frexp)(r, &exponent);
    if (exponent > MAX_EXP) return y == (real)r ? 0 : HUGE_VAL; /* overflows: infinity and nothing else */
    if (exponent < MIN_EXP) exponent = MIN_EXP;
    return (double)W(ldexp)(W(fabs)(y - r), DIGITS - exponent);
}

/* Steps from a to b on the line of representable numbers; in integers, as a difference of two large ones. */
static double N(distance)(real a, real b)
{
    const bits i = N(bits_of)(a), j = N(bits_of)(b);
    const int64_t from = (int64_t)(i & ~SIGN), to = (int64_t)(j & ~SIGN);
    return (double)((j & SIGN ? -to : to) - (i & SIGN ? -from : from));
}

static void N(check_value)(int function, real x, real y, wide r, verdict *v)
{
    if (x != x) {
        v->bad_nan += y == y;
        return;
    }
    v->checksum += (N(bits_of)(x) * UINT64_C(0x9e3779b97f4a7c15) ^ N(bits_of)(y)) * UINT64_C(0xbf58476d1ce4e5b9);
    if ((double)W(fabs)(y) > v->largest) v->largest = (double)W(fabs)(y);
    const int tiny = W(fabs)(r) < SMALLEST_NORMAL || (W(fabs)(x) < SMALLEST_NORMAL && function == TANH);
    if (tiny && (flush || function == SIGMOID)) {
        v->bad_tiny += !(W(fabs)(y) <= SMALLEST_NORMAL);
        return;
    }
    const double error = W(fabs)(x) < INFINITY ? N(ulps)(y, r) : y == (real)r ? 0 : HUGE_VAL;
    if (error > v->worst) {
        v->worst = error;
        v->where = x;
    }
}

/* x = real_of(first), real_of(first + 1), ...: neighbours on one side of zero. */
static void N(check_chunk)(int function, bits first, verdict v[MAX_ISAS])
{
    static const int activation[] = {FL_ACT_TANH, FL_ACT_SIGMOID, FL_ACT_EXP};
    real x[CHUNK], minus_x[CHUNK], y[MAX_ISAS][CHUNK], mirror[CHUNK];
    wide r[CHUNK];
    for (int i = 0; i < CHUNK; i++) {
        x[i] = N(real_of)(first + (bits)i);
        minus_x[i] = -x[i];
        r[i] = N(reference)(function, x[i]);
    }
    for (int k = 0; k < isas; k++) {
        tables[k]->lanes[DTYPE]->map(activation[function], x, y[k], CHUNK);
        tables[k]->lanes[DTYPE]->map(activation[function], minus_x, mirror, CHUNK);
        for (int i = 0; i < CHUNK; i++) {
            N(check_value)(function, x[i], y[k][i], r[i], &v[k]);
            if (x[i] != x[i]) continue;
            v[k].bits_differ += N(bits_of)(y[k][i]) != N(bits_of)(y[0][i]);
            if (function == TANH) v[k].not_odd += N(bits_of)(mirror[i]) != (N(bits_of)(y[k][i]) ^ SIGN);
            if (i == 0) continue;
            const double back = (first & SIGN ? 1 : -1) * N(distance)(y[k][i - 1], y[k][i]);
            if (back > v[k].backward) v[k].backward = back;
        }
    }
}

#undef SIGN
#undef SMALLEST_NORMAL
#undef real
#undef bits
#undef wide
#undef W
#undef N
#undef DTYPE
#undef DIGITS
#undef MIN_EXP
#undef MAX_EXP
