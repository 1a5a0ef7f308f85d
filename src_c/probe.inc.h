/* What this instruction set could do at best: the ceilings a benchmark compares the kernels with. */

/* n rounds of independent chains of fused multiply-adds, operands in registers: FL_PROBE_CHAINS * FL_W * 2 * n
 * operations */
static double V(probe_fma)(int64_t n)
{
    vec acc[FL_PROBE_CHAINS];
    const vec x = V(set1)(FL_C(0.999)), y = V(set1)(FL_C(0.001));
    FL_UNROLL
    for (int i = 0; i < FL_PROBE_CHAINS; i++) acc[i] = V(set1)((real)i);
    for (int64_t r = 0; r < n; r++) {
        FL_UNROLL
        for (int i = 0; i < FL_PROBE_CHAINS; i++) acc[i] = V(fma)(acc[i], x, y);
    }
    real lanes[FL_W];
    for (int i = 1; i < FL_PROBE_CHAINS; i++) acc[0] = V(add)(acc[0], acc[i]);
    V(store)(lanes, acc[0]);
    return (double)lanes[0];
}

/* Reads n elements (a multiple of 8 vectors) once, eight vectors at a time, as a product with one row does. */
static double V(probe_read)(const void *from, int64_t n)
{
    const real *p = (const real *)from;
    vec acc[8];
    const vec x = V(set1)(FL_C(0.5));
    FL_UNROLL
    for (int i = 0; i < 8; i++) acc[i] = V(zero)();
    for (int64_t k = 0; k < n; k += 8 * FL_W, p += 8 * FL_W) {
        FL_UNROLL
        for (int i = 0; i < 8; i++) acc[i] = V(fma)(x, V(load)(p + i * FL_W), acc[i]);
    }
    real lanes[FL_W];
    for (int i = 1; i < 8; i++) acc[0] = V(add)(acc[0], acc[i]);
    V(store)(lanes, acc[0]);
    return (double)lanes[0];
}
