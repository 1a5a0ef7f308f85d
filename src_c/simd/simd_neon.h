/* The SIMD vocabulary for AArch64 NEON; each word is defined at the top of simd_scalar.h. */
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
#define FL_MR 6        /* 6 rows x 4 gates + 4 weight vectors + 1 vector of inputs: 29 of 32 registers */
#define FL_PAIR_ROWS 3 /* up to 3 rows x 8 vectors + 3 inputs + 1 weight vector */
#define FL_AHEAD_ROWS 0

#if FL_BITS == 32
#define FL_W 4
#define FL_POW2_BIAS 12583039.0f
#define FL_OP(name) name##q_f32
#define FL_DUP vdupq_n_f32
#define FL_SELECT vbslq_f32
#define FL_TO_INT vreinterpretq_u32_f32
#define FL_FROM_INT vreinterpretq_f32_u32
#define FL_SHL(a) vshlq_n_u32(a, 23)
#define FL_NOT vmvnq_u32
#define FL_SIGN vdupq_n_u32(UINT32_C(0x80000000))
typedef float32x4_t V(vec);
typedef uint32x4_t V(mask);
#else
#define FL_W 2
#define FL_POW2_BIAS 6755399441056767.0
#define FL_OP(name) name##q_f64
#define FL_DUP vdupq_n_f64
#define FL_SELECT vbslq_f64
#define FL_TO_INT vreinterpretq_u64_f64
#define FL_FROM_INT vreinterpretq_f64_u64
#define FL_SHL(a) vshlq_n_u64(a, 52)
#define FL_NOT(m) veorq_u64(m, vdupq_n_u64(~UINT64_C(0)))
#define FL_SIGN vdupq_n_u64(UINT64_C(0x8000000000000000))
typedef float64x2_t V(vec);
typedef uint64x2_t V(mask);
#endif

FL_INLINE vec V(set1)(real x) { return FL_DUP(x); }
FL_INLINE vec V(zero)(void) { return FL_DUP(0); }
FL_INLINE vec V(load)(const real *p) { return FL_OP(vld1)(p); }
FL_INLINE void V(store)(real *p, vec a) { FL_OP(vst1)(p, a); }
FL_INLINE vec V(load_n)(const real *p, int n)
{
    real lane[FL_W] = {0};
    memcpy(lane, p, (size_t)n * sizeof(real));
    return V(load)(lane);
}
FL_INLINE void V(store_n)(real *p, vec a, int n)
{
    real lane[FL_W];
    V(store)(lane, a);
    memcpy(p, lane, (size_t)n * sizeof(real));
}

FL_INLINE void V(stream)(real *p, vec a) { V(store)(p, a); }
#if FL_BITS == 32
FL_INLINE void V(transpose)(vec *row)
{
    float64x2_t a[4];
    for (int i = 0; i < 4; i += 2) {
        a[i] = vreinterpretq_f64_f32(vtrn1q_f32(row[i], row[i + 1]));
        a[i + 1] = vreinterpretq_f64_f32(vtrn2q_f32(row[i], row[i + 1]));
    }
    for (int i = 0; i < 2; i++) {
        row[i] = vreinterpretq_f32_f64(vtrn1q_f64(a[i], a[i + 2]));
        row[i + 2] = vreinterpretq_f32_f64(vtrn2q_f64(a[i], a[i + 2]));
    }
}
#else
FL_INLINE void V(transpose)(vec *row)
{
    const vec first = vtrn1q_f64(row[0], row[1]);
    row[1] = vtrn2q_f64(row[0], row[1]);
    row[0] = first;
}
#endif

FL_INLINE vec V(add)(vec a, vec b) { return FL_OP(vadd)(a, b); }
FL_INLINE vec V(sub)(vec a, vec b) { return FL_OP(vsub)(a, b); }
FL_INLINE vec V(mul)(vec a, vec b) { return FL_OP(vmul)(a, b); }
FL_INLINE vec V(div)(vec a, vec b) { return FL_OP(vdiv)(a, b); }
/* The addend comes first in the intrinsics. */
FL_INLINE vec V(fma)(vec a, vec b, vec c) { return FL_OP(vfma)(c, a, b); }
FL_INLINE vec V(fnma)(vec a, vec b, vec c) { return FL_OP(vfms)(c, a, b); }

FL_INLINE mask V(lt)(vec a, vec b) { return FL_OP(vclt)(a, b); }
FL_INLINE mask V(isnan)(vec a) { return FL_NOT(FL_OP(vceq)(a, a)); }
FL_INLINE vec V(select)(mask m, vec a, vec b) { return FL_SELECT(m, a, b); }
/* Not FMIN and FMAX, which return the NaN whichever side it is on, and order the zeros. */
FL_INLINE vec V(min)(vec a, vec b) { return V(select)(V(lt)(a, b), a, b); }
FL_INLINE vec V(max)(vec a, vec b) { return V(select)(V(lt)(b, a), a, b); }

FL_INLINE vec V(neg)(vec a) { return FL_OP(vneg)(a); }
FL_INLINE vec V(abs)(vec a) { return FL_OP(vabs)(a); }
FL_INLINE vec V(copysign)(vec mag, vec sgn) { return V(select)(FL_SIGN, sgn, mag); }
FL_INLINE vec V(round)(vec a) { return FL_OP(vrndn)(a); }

FL_INLINE vec V(pow2_of)(vec t) { return FL_FROM_INT(FL_SHL(FL_TO_INT(t))); }
FL_INLINE vec V(pow2)(vec n) { return V(pow2_of)(V(add)(n, V(set1)(FL_POW2_BIAS))); }

#undef FL_OP
#undef FL_DUP
#undef FL_SELECT
#undef FL_TO_INT
#undef FL_FROM_INT
#undef FL_SHL
#undef FL_NOT
#undef FL_SIGN
