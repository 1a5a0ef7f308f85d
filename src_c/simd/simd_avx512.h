/* The SIMD vocabulary for AVX-512 F, DQ, BW and VL; each word is defined at the top of simd_scalar.h. */
#undef FL_MR
#undef FL_ACCUMULATORS
#undef FL_REGISTERS
#undef FL_TILE_HEIGHTS
#undef FL_RUN_VECTORS
#undef FL_AVOIDED_HEIGHT
#undef FL_PAIR_ROWS
#undef FL_AHEAD_ROWS
#undef FL_POW2_BIAS
#define FL_REGISTERS 32
#define FL_ACCUMULATORS 24
#define FL_TILE_HEIGHTS 6, 6, 6, 6
#define FL_RUN_VECTORS FL_PANEL_VECTORS
#define FL_AVOIDED_HEIGHT 0
#define FL_MR 6         /* 6 rows x 4 gates + 4 weight vectors + 1 broadcast input: 29 of 32 registers */
#define FL_PAIR_ROWS 3  /* up to 3 rows x 8 vectors + 3 inputs + 1 weight vector */
#define FL_AHEAD_ROWS 5 /* 5 rows x 4 vectors beside 4 vectors of the step, 4 weight vectors, 2 inputs: 30 */

#if FL_BITS == 32
#define FL_W 16
#define FL_POW2_BIAS 12583039.0f
#define FL_OP(name) _mm512_##name##_ps
#define FL_INT(name) _mm512_##name##_epi32
#define FL_TO_INT _mm512_castps_si512
#define FL_FROM_INT _mm512_castsi512_ps
#define FL_SIGN FL_INT(set1)(INT32_MIN)
#define FL_MANTISSA_BITS 23
#define FL_CMP_MASK _mm512_cmp_ps_mask
typedef __m512 V(vec);
typedef __mmask16 V(mask);
#else
#define FL_W 8
#define FL_POW2_BIAS 6755399441056767.0
#define FL_OP(name) _mm512_##name##_pd
#define FL_INT(name) _mm512_##name##_epi64
#define FL_TO_INT _mm512_castpd_si512
#define FL_FROM_INT _mm512_castsi512_pd
#define FL_SIGN FL_INT(set1)(INT64_MIN)
#define FL_MANTISSA_BITS 52
#define FL_CMP_MASK _mm512_cmp_pd_mask
typedef __m512d V(vec);
typedef __mmask8 V(mask);
#endif

FL_INLINE vec V(set1)(real x) { return FL_OP(set1)(x); }
FL_INLINE vec V(zero)(void) { return FL_OP(setzero)(); }
FL_INLINE vec V(load)(const real *p) { return FL_OP(loadu)(p); }
FL_INLINE void V(store)(real *p, vec a) { FL_OP(storeu)(p, a); }
/* Lanes that are masked off are not accessed, so they cannot fault. */
FL_INLINE mask V(first)(int n) { return (mask)((1u << n) - 1u); }
FL_INLINE vec V(load_n)(const real *p, int n) { return FL_OP(maskz_loadu)(V(first)(n), p); }
FL_INLINE void V(store_n)(real *p, vec a, int n) { FL_OP(mask_storeu)(p, V(first)(n), a); }

FL_INLINE void V(stream)(real *p, vec a) { FL_OP(stream)(p, a); }
#if FL_BITS == 32
FL_INLINE void V(transpose)(vec *row)
{
    vec a[16]; /* pairs of rows, then fours in `row`, eights in `a`: their lanes in turn */
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_ps(row[i], row[i + 1]);
        a[i + 1] = _mm512_unpackhi_ps(row[i], row[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        row[i] = _mm512_shuffle_ps(a[i], a[i + 2], 0x44);
        row[i + 1] = _mm512_shuffle_ps(a[i], a[i + 2], 0xEE);
        row[i + 2] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        row[i + 3] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0xEE);
    }
    for (int i = 0; i < 4; i++)
        for (int half = 0; half < 16; half += 8) {
            a[half + i] = _mm512_shuffle_f32x4(row[half + i], row[half + i + 4], 0x88);
            a[half + i + 4] = _mm512_shuffle_f32x4(row[half + i], row[half + i + 4], 0xDD);
        }
    for (int i = 0; i < 8; i++) {
        row[i] = _mm512_shuffle_f32x4(a[i], a[i + 8], 0x88);
        row[i + 8] = _mm512_shuffle_f32x4(a[i], a[i + 8], 0xDD);
    }
}
#else
FL_INLINE void V(transpose)(vec *row)
{
    vec a[8];
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm512_unpacklo_pd(row[i], row[i + 1]);
        a[i + 1] = _mm512_unpackhi_pd(row[i], row[i + 1]);
    }
    for (int i = 0; i < 2; i++)
        for (int half = 0; half < 8; half += 4) {
            row[half + i] = _mm512_shuffle_f64x2(a[half + i], a[half + i + 2], 0x88);
            row[half + i + 2] = _mm512_shuffle_f64x2(a[half + i], a[half + i + 2], 0xDD);
        }
    for (int i = 0; i < 4; i++) {
        a[i] = _mm512_shuffle_f64x2(row[i], row[i + 4], 0x88);
        a[i + 4] = _mm512_shuffle_f64x2(row[i], row[i + 4], 0xDD);
    }
    for (int i = 0; i < 8; i++) row[i] = a[i];
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

FL_INLINE vec V(neg)(vec a) { return FL_OP(xor)(a, FL_FROM_INT(FL_SIGN)); }
FL_INLINE vec V(abs)(vec a) { return FL_OP(andnot)(FL_FROM_INT(FL_SIGN), a); }
FL_INLINE vec V(copysign)(vec mag, vec sgn)
{
    /* 0xD8: the third operand chooses, bit by bit, between the second and the first. */
    return FL_FROM_INT(FL_INT(ternarylogic)(FL_TO_INT(mag), FL_TO_INT(sgn), FL_SIGN, 0xD8));
}
FL_INLINE vec V(round)(vec a) { return FL_OP(roundscale)(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

FL_INLINE mask V(lt)(vec a, vec b) { return FL_CMP_MASK(a, b, _CMP_LT_OQ); }
FL_INLINE mask V(isnan)(vec a) { return FL_CMP_MASK(a, a, _CMP_UNORD_Q); }
FL_INLINE vec V(select)(mask m, vec a, vec b) { return FL_OP(mask_blend)(m, b, a); }

FL_INLINE vec V(pow2_of)(vec t) { return FL_FROM_INT(FL_INT(slli)(FL_TO_INT(t), FL_MANTISSA_BITS)); }
FL_INLINE vec V(pow2)(vec n) { return V(pow2_of)(V(add)(n, V(set1)(FL_POW2_BIAS))); }

#undef FL_OP
#undef FL_INT
#undef FL_TO_INT
#undef FL_FROM_INT
#undef FL_SIGN
#undef FL_MANTISSA_BITS
#undef FL_CMP_MASK
