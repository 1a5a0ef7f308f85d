/* Names for one lane type.  kernels.inc.h includes this twice, with FL_BITS 32 and 64, so that every
 * body below it is written once and compiled for float and for double.
 *
 *   real          float | double
 *   V(name)       fl_name_f32 | fl_name_f64   (functions and types alike)
 *   vec, mask     the vector of FL_W lanes and the result of a comparison, defined by simd/simd_<isa>.h
 *   FL_W          lanes of one vector
 */
#undef real
#undef V
#undef vec
#undef mask
#undef FL_W
#undef FL_C
#undef FL_SQRT
#undef FL_EPSILON
#if FL_BITS == 32
#define real float
#define V(name) fl_##name##_f32
#define FL_C(x) x##f /* a constant of type real */
#define FL_SQRT sqrtf
#define FL_EPSILON 0x1p-23f
#else
#define real double
#define V(name) fl_##name##_f64
#define FL_C(x) x
#define FL_SQRT sqrt
#define FL_EPSILON 0x1p-52
#endif
#define vec V(vec)
#define mask V(mask)

/* Inlined even at -O0 and -Og: a helper of an ISA body must never become an external symbol. */
#ifndef FL_INLINE
#if defined(__GNUC__) || defined(__clang__)
#define FL_INLINE static inline __attribute__((always_inline, unused))
#else
#define FL_INLINE static inline
#endif
#endif
/* Called, and one of it: gcc would make copies for constant arguments. */
#ifndef FL_NOINLINE
#if defined(__GNUC__) && !defined(__clang__)
#define FL_NOINLINE __attribute__((noinline, noclone))
#elif defined(__clang__)
#define FL_NOINLINE __attribute__((noinline))
#else
#define FL_NOINLINE
#endif
#endif

#if FL_ISA == FL_ISA_AVX512
#include "simd/simd_avx512.h"
#elif FL_ISA == FL_ISA_AVX2
#include "simd/simd_avx2.h"
#elif FL_ISA == FL_ISA_NEON
#include "simd/simd_neon.h"
#else
#include "simd/simd_scalar.h"
#endif
