/* What simd_avx512.h uses of AVX-512, in C: so that its kernels run, and their bits are compared with the others', on
 * processors that do not have it.  Each function does what Intel's description of the intrinsic says, lane by lane. */
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    float f[16];
} __m512;
typedef struct {
    double f[8];
} __m512d;
typedef struct {
    uint64_t u[8];
} __m512i;
typedef uint16_t __mmask16;
typedef uint8_t __mmask8;
enum { _MM_FROUND_TO_NEAREST_INT = 0, _MM_FROUND_NO_EXC = 8, _CMP_LT_OQ = 17, _CMP_UNORD_Q = 3 };
#define IN_C static inline __attribute__((always_inline, unused))

IN_C __m512i c512_bits(const void *a)
{
    __m512i r;
    memcpy(&r, a, sizeof r);
    return r;
}

#define TWO(type, suffix, real, lanes, name, expression)                     \
    IN_C type _mm512_##name##_##suffix(type a, type b)                       \
    {                                                                        \
        type r;                                                              \
        for (int i = 0; i < lanes; i++) {                                    \
            const real x = a.f[i], y = b.f[i];                               \
            r.f[i] = (expression);                                           \
        }                                                                    \
        return r;                                                            \
    }
#define BITS(type, suffix, name, expression)                                 \
    IN_C type _mm512_##name##_##suffix(type a, type b)                       \
    {                                                                        \
        const __m512i p = c512_bits(&a), q = c512_bits(&b);                  \
        __m512i n;                                                           \
        type r;                                                              \
        for (int i = 0; i < 8; i++) {                                        \
            const uint64_t x = p.u[i], y = q.u[i];                           \
            n.u[i] = (expression);                                           \
        }                                                                    \
        memcpy(&r, &n, sizeof r);                                            \
        return r;                                                            \
    }
#define REALS(type, suffix, real, lanes, mask, FMA, RINT)                    \
    IN_C type _mm512_set1_##suffix(real x)                                   \
    {                                                                        \
        type r;                                                              \
        for (int i = 0; i < lanes; i++) r.f[i] = x;                          \
        return r;                                                            \
    }                                                                        \
    IN_C type _mm512_setzero_##suffix(void) { return _mm512_set1_##suffix(0); } \
    IN_C type _mm512_loadu_##suffix(const void *p)                           \
    {                                                                        \
        type r;                                                              \
        memcpy(&r, p, sizeof r);                                             \
        return r;                                                            \
    }                                                                        \
    IN_C void _mm512_storeu_##suffix(void *p, type a) { memcpy(p, &a, sizeof a); } \
    IN_C void _mm512_stream_##suffix(void *p, type a)                        \
    {                                                                        \
        if ((uintptr_t)p % 64) __builtin_trap(); /* the processor would */   \
        memcpy(p, &a, sizeof a);                                             \
    }                                                                        \
    IN_C type _mm512_maskz_loadu_##suffix(mask m, const void *p)             \
    {                                                                        \
        type r;                                                              \
        for (int i = 0; i < lanes; i++) r.f[i] = m >> i & 1 ? ((const real *)p)[i] : 0; \
        return r;                                                            \
    }                                                                        \
    IN_C void _mm512_mask_storeu_##suffix(void *p, mask m, type a)           \
    {                                                                        \
        for (int i = 0; i < lanes; i++)                                      \
            if (m >> i & 1) ((real *)p)[i] = a.f[i];                         \
    }                                                                        \
    TWO(type, suffix, real, lanes, add, x + y)                               \
    TWO(type, suffix, real, lanes, sub, x - y)                               \
    TWO(type, suffix, real, lanes, mul, x *y)                                \
    TWO(type, suffix, real, lanes, div, x / y)                               \
    TWO(type, suffix, real, lanes, min, x < y ? x : y)                       \
    TWO(type, suffix, real, lanes, max, x > y ? x : y)                       \
    BITS(type, suffix, xor, x ^ y)                                           \
    BITS(type, suffix, andnot, ~x &y)                                        \
    IN_C type _mm512_fmadd_##suffix(type a, type b, type c)                  \
    {                                                                        \
        for (int i = 0; i < lanes; i++) c.f[i] = FMA(a.f[i], b.f[i], c.f[i]); \
        return c;                                                            \
    }                                                                        \
    IN_C type _mm512_fnmadd_##suffix(type a, type b, type c)                 \
    {                                                                        \
        for (int i = 0; i < lanes; i++) c.f[i] = FMA(-a.f[i], b.f[i], c.f[i]); \
        return c;                                                            \
    }                                                                        \
    IN_C type _mm512_roundscale_##suffix(type a, int how)                    \
    {                                                                        \
        (void)how;                                                           \
        for (int i = 0; i < lanes; i++) a.f[i] = RINT(a.f[i]);               \
        return a;                                                            \
    }                                                                        \
    IN_C mask _mm512_cmp_##suffix##_mask(type a, type b, int how)            \
    {                                                                        \
        mask r = 0;                                                          \
        for (int i = 0; i < lanes; i++) {                                    \
            const int yes = how == _CMP_LT_OQ ? a.f[i] < b.f[i] : isnan(a.f[i]) || isnan(b.f[i]); \
            r = (mask)(r | yes << i);                                        \
        }                                                                    \
        return r;                                                            \
    }                                                                        \
    IN_C type _mm512_mask_blend_##suffix(mask m, type a, type b)             \
    {                                                                        \
        for (int i = 0; i < lanes; i++)                                      \
            if (m >> i & 1) a.f[i] = b.f[i];                                 \
        return a;                                                            \
    }                                                                        \
    /* within each 16 bytes: the lower, or the upper half of both, in turn */ \
    IN_C type c512_unpack_##suffix(type a, type b, int upper)                \
    {                                                                        \
        enum { QUARTER = lanes / 4 };                                        \
        type r;                                                              \
        for (int i = 0; i < lanes; i++) {                                    \
            const int at = i / QUARTER * QUARTER + upper * QUARTER / 2 + i % QUARTER / 2; \
            r.f[i] = i % 2 ? b.f[at] : a.f[at];                              \
        }                                                                    \
        return r;                                                            \
    }                                                                        \
    IN_C type _mm512_unpacklo_##suffix(type a, type b) { return c512_unpack_##suffix(a, b, 0); } \
    IN_C type _mm512_unpackhi_##suffix(type a, type b) { return c512_unpack_##suffix(a, b, 1); } \
    /* quarters of a, twice, then of b */                                    \
    IN_C type c512_quarters_##suffix(type a, type b, int which)              \
    {                                                                        \
        enum { QUARTER = lanes / 4 };                                        \
        type r;                                                              \
        for (int i = 0; i < lanes; i++) {                                    \
            const int from = which >> i / QUARTER * 2 & 3;                   \
            r.f[i] = (i / QUARTER < 2 ? a : b).f[from * QUARTER + i % QUARTER]; \
        }                                                                    \
        return r;                                                            \
    }                                                                        \
    IN_C __m512i _mm512_cast##suffix##_si512(type a) { return c512_bits(&a); } \
    IN_C type _mm512_castsi512_##suffix(__m512i a)                           \
    {                                                                        \
        type r;                                                              \
        memcpy(&r, &a, sizeof r);                                            \
        return r;                                                            \
    }
REALS(__m512, ps, float, 16, __mmask16, fmaf, rintf)
REALS(__m512d, pd, double, 8, __mmask8, fma, rint)

IN_C __m512 _mm512_shuffle_f32x4(__m512 a, __m512 b, int which) { return c512_quarters_ps(a, b, which); }
IN_C __m512d _mm512_shuffle_f64x2(__m512d a, __m512d b, int which) { return c512_quarters_pd(a, b, which); }
/* within each 16 bytes: two lanes of a, then two of b */
IN_C __m512 _mm512_shuffle_ps(__m512 a, __m512 b, int which)
{
    __m512 r;
    for (int i = 0; i < 16; i++) r.f[i] = (i % 4 < 2 ? a : b).f[i / 4 * 4 + (which >> i % 4 * 2 & 3)];
    return r;
}

IN_C __m512i _mm512_set1_epi64(int64_t x)
{
    __m512i r;
    for (int i = 0; i < 8; i++) r.u[i] = (uint64_t)x;
    return r;
}
IN_C __m512i _mm512_set1_epi32(int32_t x)
{
    return _mm512_set1_epi64((int64_t)((uint64_t)(uint32_t)x << 32 | (uint32_t)x));
}
IN_C __m512i _mm512_slli_epi64(__m512i a, int by)
{
    for (int i = 0; i < 8; i++) a.u[i] <<= by;
    return a;
}
IN_C __m512i _mm512_slli_epi32(__m512i a, int by)
{
    for (int i = 0; i < 8; i++) a.u[i] = (a.u[i] >> 32 << (32 + by)) | (uint32_t)((uint32_t)a.u[i] << by);
    return a;
}
/* bit 4a + 2b + c of `table` */
IN_C __m512i _mm512_ternarylogic_epi64(__m512i a, __m512i b, __m512i c, int table)
{
    __m512i r = _mm512_set1_epi64(0);
    for (int t = 0; t < 8; t++)
        for (int i = 0; i < 8 && table >> t & 1; i++)
            r.u[i] |= (t & 4 ? a.u[i] : ~a.u[i]) & (t & 2 ? b.u[i] : ~b.u[i]) & (t & 1 ? c.u[i] : ~c.u[i]);
    return r;
}
IN_C __m512i _mm512_ternarylogic_epi32(__m512i a, __m512i b, __m512i c, int table)
{
    return _mm512_ternarylogic_epi64(a, b, c, table);
}
#undef TWO
#undef BITS
#undef REALS
#undef IN_C
