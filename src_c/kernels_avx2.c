/* The kernels for AVX2: see kernels.inc.h. */
#if defined(__x86_64__) || defined(_M_X64)
#define FL_ISA FL_ISA_AVX2
#define FL_TABLE fl_kernels__avx2
#define FL_TABLE_NAME "avx2"
#define FL_TARGET "avx2,fma"
#include <immintrin.h>
#include "kernels_region.inc.h"
#else
typedef int fl_no_kernels_here; /* a translation unit may not be empty */
#endif
