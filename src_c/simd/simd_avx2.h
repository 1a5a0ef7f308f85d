/* The SIMD vocabulary for AVX2 with FMA; each word is defined at the top of simd_scalar.h. */
#undef FL_MR
#undef FL_ACCUMULATORS
#undef FL_REGISTERS
#undef FL_TILE_HEIGHTS
#undef FL_RUN_VECTORS
#undef FL_AVOIDED_HEIGHT
#undef FL_PAIR_ROWS
#undef FL_AHEAD_ROWS
#undef FL_POW2_BIAS
#define FL_MR 6
#define FL_REGISTERS 16
#define FL_ACCUMULATORS 12 /* and 4 registers for operands: 3 rows x 4 vectors, 4 x 3 or 6 x 2 */
#define FL_TILE_HEIGHTS 6, 6, 4, 6
#define FL_RUN_VECTORS 2
#define FL_AVOIDED_HEIGHT 4 /* in passes of two vectors: 8 chains, which an fma of 5 cycles keeps waiting */
#define FL_PAIR_ROWS 1 /* more than one row of two blocks would not fit */
#define FL_AHEAD_ROWS 0

#if FL_BITS == 32
#define FL_W 8
#define FL_POW2_BIAS 12583039.0f
#define FL_OP(name) _mm256_##name##_ps
#define FL_INT(name) _mm256_##name##_epi32
#define FL_TO_INT _mm256_castps_si256
#define FL_FROM_INT _mm256_castsi256_ps
#define FL_SIGN _mm256_set1_ps(-0.0f)
#define FL_MANTISSA_BITS 23
#define FL_FIRST(n) _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
typedef __m256 V(vec);
#else
#define FL_W 4
#define FL_POW2_BIAS 6755399441056767.0
#define FL_OP(name) _mm256_##name##_pd
#define FL_INT(name) _mm256_##name##_epi64
#define FL_TO_INT _mm256_castpd_si256
#define FL_FROM_INT _mm256_castsi256_pd
#define FL_SIGN _mm256_set1_pd(-0.0)
#define FL_MANTISSA_BITS 52
#define FL_FIRST(n) _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3))
typedef __m256d V(vec);
#endif
typedef V(vec) V(mask);

FL_INLINE vec V(set1)(real x) { return FL_OP(set1)(x); }
FL_INLINE vec V(zero)(void) { return FL_OP(setzero)(); }
FL_INLINE vec V(load)(const real *p) { return FL_OP(loadu)(p); }
FL_INLINE void V(store)(real *p, vec a) { FL_OP(storeu)(p, a); }
/* Lanes that are masked off are not accessed, so they cannot fault.  Whole vectors go without a mask: a masked store is
 * slow on some processors, and what it wrote cannot be loaded again before it has reached the cache. */
#define FL_IS_WHOLE(n) (__builtin_constant_p(n) && (n) == FL_W)
FL_INLINE vec V(load_n)(const real *p, int n)
{
    return FL_IS_WHOLE(n) ? FL_OP(loadu)(p) : FL_OP(maskload)(p, FL_FIRST(n));
}
FL_INLINE void V(store_n)(real *p, vec a, int n)
{
    if (FL_IS_WHOLE(n))
        FL_OP(storeu)(p, a);
    else
        FL_OP(maskstore)(p, FL_FIRST(n), a);
}

FL_INLINE void V(stream)(real *p, vec a) { FL_OP(stream)(p, a); }
#if FL_BITS == 32
FL_INLINE void V(transpose)(vec *row)
{
    vec a[8], b[8]; /* pairs of rows, then fours of them: their lanes in turn */
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_ps(row[i], row[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps(row[i], row[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xEE);
        b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xEE);
    }
    for (int i = 0; i < 4; i++) {
        row[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
        row[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
}
#else
FL_INLINE void V(transpose)(vec *row)
{
    vec a[4];
    for (int i = 0; i < 4; i += 2) {
        a[i] = _mm256_unpacklo_pd(row[i], row[i + 1]);
        a[i + 1] = _mm256_unpackhi_pd(row[i], row[i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        row[i] = _mm256_permute2f128_pd(a[i], a[i + 2], 0x20);
        row[i + 2] = _mm256_permute2f128_pd(a[i], a[i + 2], 0x31);
    }
}
#endif

FL_INLINE vec V(add)(vec a, vec b) { return FL_OP(add)(a, b); }
FL_INLINE vec V(sub)(vec a, vec b) { return FL_OP(sub)(a, b); }
FL_INLINE vec V(mul)(vec a, vec b) { return FL_OP(mul)(a, b); }
FL_INLINE vec V(div)(vec a, vec b) { return FL_OP(div)(a, b); }
FL_INLINE vec V(fma)(vec a, vec b, vec c) { return FL_OP(fmadd)(a, b, c); }
FL_INLINE vec V(fnma)(vec a, vec b, vec c) { return FL_OP(fnmadd)(a, b, c); }
FL_INLINE vec V(min)(vec a, vec b) { return FL_OP(min)(a, b); }
FL_INLINE vec V(max)(vec a, vec b) { return FL_OP(max)(a, b); }

FL_INLINE vec V(neg)(vec a) { return FL_OP(xor)(a, FL_SIGN); }
FL_INLINE vec V(abs)(vec a) { return FL_OP(andnot)(FL_SIGN, a); }
FL_INLINE vec V(copysign)(vec mag, vec sgn) { return FL_OP(or)(FL_OP(andnot)(FL_SIGN, mag), FL_OP(and)(FL_SIGN, sgn)); }
FL_INLINE vec V(round)(vec a) { return FL_OP(round)(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

FL_INLINE mask V(lt)(vec a, vec b) { return FL_OP(cmp)(a, b, _CMP_LT_OQ); }
FL_INLINE mask V(isnan)(vec a) { return FL_OP(cmp)(a, a, _CMP_UNORD_Q); }
FL_INLINE vec V(select)(mask m, vec a, vec b) { return FL_OP(blendv)(b, a, m); }

FL_INLINE vec V(pow2_of)(vec t) { return FL_FROM_INT(FL_INT(slli)(FL_TO_INT(t), FL_MANTISSA_BITS)); }
FL_INLINE vec V(pow2)(vec n) { return V(pow2_of)(V(add)(n, V(set1)(FL_POW2_BIAS))); }

#undef FL_OP
#undef FL_INT
#undef FL_TO_INT
#undef FL_FROM_INT
#undef FL_SIGN
#undef FL_MANTISSA_BITS
#undef FL_FIRST
#undef FL_IS_WHOLE
