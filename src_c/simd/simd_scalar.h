/* The SIMD vocabulary, and its scalar speaker.
 *
 * Cells, gates and tile products are written in these words only, so they are written once.  Every simd_<isa>.h
 * defines all of them, for the lane type `real` chosen by FL_BITS (see lanes.inc.h), and has no include guard
 * because it is read once per lane type.  It includes nothing: the translation unit includes immintrin.h or
 * arm_neon.h, math.h, stdint.h and string.h before it opens its target region.
 *
 *   FL_W                  lanes of a vector
 *   FL_MR                 rows of the tallest tile
 *   FL_REGISTERS          vector registers of the processor
 *   FL_ACCUMULATORS       vectors of sums that leave room in the registers for their operands
 *   FL_TILE_HEIGHTS       rows of the tallest tile of a block of 1, 2, 3 and 4 vectors, at most FL_MR.  A tile of more
 *                         sums than FL_ACCUMULATORS takes its vectors in passes; all passes are equally wide
 *   FL_RUN_VECTORS        vectors of a full block that lie beside each other for each k: those of one pass
 *   FL_AVOIDED_HEIGHT     rows of a tile with too few independent sums for the multipliers; 0: there is none
 *   FL_PAIR_ROWS          up to so many rows take two blocks at a time
 *   FL_AHEAD_ROWS         rows of ahead.inc.h; 0: too few registers, or of no use there
 *   set1(x) zero()        the same value in every lane
 *   load(p) store(p, a)   FL_W elements, any alignment
 *   load_n store_n        the first n lanes only, 0 <= n <= FL_W: memory past p[n - 1] is never touched;
 *                         load_n puts 0 in the other lanes
 *   stream(p, a)          store whose target is a whole vector's alignment and is not read soon: past the caches, where
 *                         the set can; others see it after a fence
 *   transpose(row)        lane i of row[j] becomes lane j of row[i], for FL_W vectors
 *   add sub mul div       IEEE, rounded to nearest
 *   fma(a, b, c)          a * b + c, one rounding
 *   fnma(a, b, c)         c - a * b, one rounding
 *   min(a, b)             a < b ? a : b     so a NaN on either side, or two zeros, give b:
 *   max(a, b)             a > b ? a : b     max(limit, x) lets a NaN in x pass, max(x, limit) stops it
 *   neg abs               sign bit flipped, cleared
 *   copysign(mag, sgn)    magnitude of one, sign bit of the other
 *   round(a)              to the nearest integer, ties to even
 *   lt(a, b) isnan(a)     -> mask; lt is false for NaN
 *   select(m, a, b)       m ? a : b
 *   pow2(n)               2^n for an integral n in -126..127 (double: -1022..1023);
 *                         one below gives 0 and one above gives infinity
 *   pow2_of(t)            pow2(n) in a single shift, from t = n + FL_POW2_BIAS
 *
 * Whatever the ISA, equal operands other than NaN give equal bits.
 *
 * FL_POW2_BIAS: adding 1.5 * 2^(mantissa bits) makes the sum round to an integer that sits in the low bits of its
 * mantissa; adding the exponent's bias as well makes those bits the exponent field of 2^n, one shift away.
 */
#undef FL_MR
#undef FL_ACCUMULATORS
#undef FL_REGISTERS
#undef FL_TILE_HEIGHTS
#undef FL_RUN_VECTORS
#undef FL_AVOIDED_HEIGHT
#undef FL_PAIR_ROWS
#undef FL_AHEAD_ROWS
#undef FL_POW2_BIAS
#define FL_W 1
#define FL_MR 4
#define FL_REGISTERS 32
#define FL_ACCUMULATORS 16
#define FL_TILE_HEIGHTS 4, 4, 4, 4
#define FL_RUN_VECTORS FL_PANEL_VECTORS
#define FL_AVOIDED_HEIGHT 0
#define FL_PAIR_ROWS 1 /* more than one row of two blocks would not fit */
#define FL_AHEAD_ROWS 0

#if FL_BITS == 32
#define FL_POW2_BIAS 12583039.0f
typedef float V(vec);
typedef uint32_t V(bits);
#define FL_SIGN_BIT UINT32_C(0x80000000)
#define FL_MANTISSA_BITS 23
#define FL_LIBM(name) name##f
#else
#define FL_POW2_BIAS 6755399441056767.0
typedef double V(vec);
typedef uint64_t V(bits);
#define FL_SIGN_BIT UINT64_C(0x8000000000000000)
#define FL_MANTISSA_BITS 52
#define FL_LIBM(name) name
#endif
typedef int V(mask);

FL_INLINE V(bits) V(to_bits)(real a)
{
    V(bits) b;
    memcpy(&b, &a, sizeof b);
    return b;
}

FL_INLINE real V(from_bits)(V(bits) b)
{
    real a;
    memcpy(&a, &b, sizeof a);
    return a;
}

FL_INLINE vec V(set1)(real x) { return x; }
FL_INLINE vec V(zero)(void) { return 0; }
FL_INLINE vec V(load)(const real *p) { return *p; }
FL_INLINE void V(store)(real *p, vec a) { *p = a; }
FL_INLINE vec V(load_n)(const real *p, int n) { return n > 0 ? *p : 0; }
FL_INLINE void V(store_n)(real *p, vec a, int n)
{
    if (n > 0) *p = a;
}

FL_INLINE void V(stream)(real *p, vec a) { *p = a; }
FL_INLINE void V(transpose)(vec *row) { (void)row; }

FL_INLINE vec V(add)(vec a, vec b) { return a + b; }
FL_INLINE vec V(sub)(vec a, vec b) { return a - b; }
FL_INLINE vec V(mul)(vec a, vec b) { return a * b; }
FL_INLINE vec V(div)(vec a, vec b) { return a / b; }
/* The library's fma, slow where the processor has none: the price of the same bits everywhere. */
FL_INLINE vec V(fma)(vec a, vec b, vec c) { return FL_LIBM(fma)(a, b, c); }
FL_INLINE vec V(fnma)(vec a, vec b, vec c) { return FL_LIBM(fma)(-a, b, c); }
FL_INLINE vec V(min)(vec a, vec b) { return a < b ? a : b; }
FL_INLINE vec V(max)(vec a, vec b) { return a > b ? a : b; }

FL_INLINE vec V(neg)(vec a) { return -a; }
FL_INLINE vec V(abs)(vec a) { return FL_LIBM(fabs)(a); }
FL_INLINE vec V(copysign)(vec mag, vec sgn)
{
    return V(from_bits)((V(to_bits)(mag) & ~FL_SIGN_BIT) | (V(to_bits)(sgn) & FL_SIGN_BIT));
}
FL_INLINE vec V(round)(vec a) { return FL_LIBM(rint)(a); }

FL_INLINE mask V(lt)(vec a, vec b) { return a < b; }
FL_INLINE mask V(isnan)(vec a) { return a != a; }
FL_INLINE vec V(select)(mask m, vec a, vec b) { return m ? a : b; }

FL_INLINE vec V(pow2_of)(vec t) { return V(from_bits)(V(to_bits)(t) << FL_MANTISSA_BITS); }
FL_INLINE vec V(pow2)(vec n) { return V(pow2_of)(n + FL_POW2_BIAS); }

#undef FL_SIGN_BIT
#undef FL_MANTISSA_BITS
#undef FL_LIBM
