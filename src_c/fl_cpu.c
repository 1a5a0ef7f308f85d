/* The only file that asks the processor.  A bit is set when the instructions exist *and* the operating system saves
 * their registers (OSXSAVE and XGETBV): CPUID alone says yes under a kernel that would lose the upper halves. */
#include "fl_cpu.h"

#include <stdatomic.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <cpuid.h>

static unsigned long long saved_state(void)
{
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (unsigned long long)high << 32 | low;
}

static unsigned asked(void)
{
    enum { YMM = 0x6, ZMM = 0xe6 }; /* XCR0: SSE+AVX; those, opmask, upper ZMM halves, ZMM16-31 */
    unsigned a, b, c, d, found = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    const int fma = c >> 12 & 1, osxsave = c >> 27 & 1, avx = c >> 28 & 1;
    if (!osxsave || !avx) return 0;
    const unsigned long long saved = saved_state();
    if ((saved & YMM) != YMM) return 0;
    if (fma) found |= FL_CPU_FMA;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return found;
    if (b >> 5 & 1) found |= FL_CPU_AVX2;
    if ((saved & ZMM) != ZMM) return found;
    if (b >> 16 & 1) found |= FL_CPU_AVX512F;
    if (b >> 17 & 1) found |= FL_CPU_AVX512DQ;
    if (b >> 30 & 1) found |= FL_CPU_AVX512BW;
    if (b >> 31 & 1) found |= FL_CPU_AVX512VL;
    return found;
}
#elif defined(_M_X64)
#include <intrin.h>

static unsigned asked(void)
{
    int r[4];
    unsigned found = 0;
    __cpuid(r, 1);
    if (!(r[2] >> 27 & 1) || !(r[2] >> 28 & 1) || (_xgetbv(0) & 0x6) != 0x6) return 0;
    if (r[2] >> 12 & 1) found |= FL_CPU_FMA;
    __cpuidex(r, 7, 0);
    if (r[1] >> 5 & 1) found |= FL_CPU_AVX2;
    if ((_xgetbv(0) & 0xe6) != 0xe6) return found;
    if (r[1] >> 16 & 1) found |= FL_CPU_AVX512F;
    if (r[1] >> 17 & 1) found |= FL_CPU_AVX512DQ;
    if (r[1] >> 30 & 1) found |= FL_CPU_AVX512BW;
    if (r[1] >> 31 & 1) found |= FL_CPU_AVX512VL;
    return found;
}
#elif defined(__aarch64__)
static unsigned asked(void) { return FL_CPU_NEON; } /* part of the base architecture */
#else
static unsigned asked(void) { return 0; }
#endif

/* Once: in a virtual machine each CPUID is a call of the system below, which takes microseconds. */
unsigned fl_cpu_features(void)
{
    enum { KNOWN = 1 << 30 };
    static atomic_uint features;
    unsigned found = atomic_load_explicit(&features, memory_order_relaxed);
    if (!(found & KNOWN)) {
        found = asked() | KNOWN;
        atomic_store_explicit(&features, found, memory_order_relaxed);
    }
    return found & ~KNOWN;
}
