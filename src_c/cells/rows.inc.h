/* Sums over the units of a row that come out the same on every instruction set: 64 chains, element j in chain j mod 64,
 * added up in a fixed tree.  Four vectors of 16 lanes hide the latency of an addition. */

enum { V(CHAINS) = 64 / FL_W };

typedef struct V(total) {
    vec chain[64 / FL_W];
} V(total);

FL_INLINE void V(total_start)(V(total) * t)
{
    FL_UNROLL
    for (int i = 0; i < V(CHAINS); i++) t->chain[i] = V(zero)();
}

/* v of elements j .. j + n - 1, j a multiple of W; lanes beyond n do not count */
FL_INLINE void V(total_add)(V(total) * t, int64_t j, vec v, const int n)
{
    if (n < FL_W) {
        real part[FL_W];
        V(store)(part, v);
        v = V(load_n)(part, n);
    }
    vec *chain = &t->chain[j / FL_W % V(CHAINS)];
    *chain = V(add)(*chain, v);
}

FL_INLINE real V(total_of)(const V(total) * t)
{
    vec chain[V(CHAINS)];
    real part[FL_W];
    FL_UNROLL
    for (int i = 0; i < V(CHAINS); i++) chain[i] = t->chain[i];
    FL_UNROLL
    for (int half = V(CHAINS) / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) chain[i] = V(add)(chain[i], chain[i + half]);
    V(store)(part, chain[0]);
    for (int half = FL_W / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) part[i] += part[i + half];
    return part[0];
}

#define FL_OVER(j, count, n) \
    for (int64_t j = 0, n; j < (count) && (n = (count) - j < FL_W ? (count) - j : FL_W, 1); j += FL_W)

typedef struct V(norm) { /* of so many sums: mean, 1 / deviation */
    real mean, scale;
} V(norm);

/* The sum of (z - mean)^2, or with `plain` of z; whole rounds of all chains in registers. */
FL_INLINE real V(sum_of)(const real *z, int64_t count, real mean, const int plain)
{
    V(total) t;
    V(total_start)(&t);
    int64_t j = 0;
    for (; j + 64 <= count; j += 64) {
        FL_UNROLL
        for (int i = 0; i < V(CHAINS); i++) {
            const vec d = V(sub)(V(load)(z + j + i * FL_W), V(set1)(mean));
            t.chain[i] = plain ? V(add)(t.chain[i], d) : V(fma)(d, d, t.chain[i]);
        }
    }
    for (; j < count; j += FL_W) {
        const int n = (int)(count - j < FL_W ? count - j : FL_W);
        vec d = V(sub)(V(load_n)(z + j, n), V(set1)(mean));
        if (n < FL_W) { /* lanes beyond the end would count as the mean */
            real part[FL_W];
            V(store)(part, d);
            d = V(load_n)(part, n);
        }
        vec *chain = &t.chain[j / FL_W % V(CHAINS)];
        *chain = plain ? V(add)(*chain, d) : V(fma)(d, d, *chain);
    }
    return V(total_of)(&t);
}

static V(norm) V(norm_of)(const real *z, int64_t count, double eps)
{
    const real mean = V(sum_of)(z, count, FL_C(0.0), 1) / (real)count;
    return (V(norm)){mean, FL_C(1.0) / FL_SQRT(V(sum_of)(z, count, mean, 0) / (real)count + (real)eps)};
}

FL_INLINE vec V(normal)(V(norm) s, vec z) { return V(mul)(V(sub)(z, V(set1)(s.mean)), V(set1)(s.scale)); }

/* gain * y + bias of elements from j on */
FL_INLINE vec V(scaled)(const void *gain, const void *bias, int64_t j, vec y, const int n)
{
    return V(fma)(V(load_n)((const real *)gain + j, n), y, V(load_n)((const real *)bias + j, n));
}

typedef struct V(slopes) { /* sums of dy and of dy * y over the elements of a normalisation */
    V(total) dy, dy_y;
} V(slopes);

FL_INLINE void V(slopes_add)(V(slopes) * t, int64_t j, vec dy, vec y, const int n)
{
    V(total_add)(&t->dy, j, dy, n);
    V(total_add)(&t->dy_y, j, V(mul)(dy, y), n);
}

FL_INLINE void V(slopes_start)(V(slopes) * t)
{
    V(total_start)(&t->dy);
    V(total_start)(&t->dy_y);
}

typedef struct V(means) {
    vec dy, dy_y;
} V(means);

FL_INLINE V(means) V(means_of)(const V(slopes) * t, int64_t count)
{
    return (V(means)){V(set1)(V(total_of)(&t->dy) / (real)count), V(set1)(V(total_of)(&t->dy_y) / (real)count)};
}

/* dz = (dy - mean(dy) - y * mean(dy * y)) / deviation */
FL_INLINE vec V(normal_grad)(V(norm) s, V(means) m, vec dy, vec y)
{
    return V(mul)(V(fnma)(y, m.dy_y, V(sub)(dy, m.dy)), V(set1)(s.scale));
}
