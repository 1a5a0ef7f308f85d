/* In place of kernels_avx512.c and fl_cpu.c: the kernels of AVX-512 on a processor without it, see avx512_in_c.h.  The
 * other sets are offered where the processor has them. */
#define FL_ISA FL_ISA_AVX512
#define FL_TABLE fl_kernels__avx512
#define FL_TABLE_NAME "avx512"
#include "avx512_in_c.h"
#include "kernels_region.inc.h"

#include "fl_cpu.h"

unsigned fl_cpu_features(void)
{
    const unsigned own = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? FL_CPU_AVX2 | FL_CPU_FMA : 0;
    return own | FL_CPU_AVX512F | FL_CPU_AVX512DQ | FL_CPU_AVX512BW | FL_CPU_AVX512VL;
}
