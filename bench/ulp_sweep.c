/* Measures tanh, sigmoid and exp of every instruction set this machine can run, and compares their bits.
 *
 *   cc -O2 -std=c11 [-fopenmp] -Isrc_c bench/ulp_sweep.c src_c/kernels_*.c src_c/fl_cpu.c -lm -o ulp_sweep
 *   ./ulp_sweep [--stride N] [--doubles N] [--ftz]
 *
 * Every float is tried against the C library's double (with --stride, one chunk of neighbours in N), and --doubles
 * random ones against long double.  --ftz sets FTZ and DAZ, as the engine does.  One row per function and
 * instruction set; the exit status is 1 when a row breaks the contract of docs/numerics.md:
 *
 *   max ulp    tanh <= 2, sigmoid <= 3, exp <= 2: the largest error, and the argument it was found at
 *   back       <= 1: the largest step of y against the direction of x, in ULP
 *   max |y|    <= 1, but for exp
 *   odd nan    arguments where tanh(-x) != -tanh(x), where a NaN was lost: none
 *   tiny       arguments where a result below the smallest normal should be (nearly) zero and is not: none
 *   bits       arguments where the bits are not those of the first instruction set: none
 *   checksum   of all bits in and out: compares machines that are not the same
 */
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fl_cpu.h"
#include "fl_kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { MAX_ISAS = 4, CHUNK = 1 << 10 };
enum { TANH, SIGMOID, EXP, FUNCTIONS };
static const char *const function_names[] = {"tanh", "sigmoid", "exp"};
static const double limits[] = {2, 3, 2};

typedef struct verdict {
    double worst, where, backward, largest;
    uint64_t not_odd, bad_nan, bad_tiny, bits_differ, checksum;
} verdict;

static const fl_kernels *tables[MAX_ISAS];
static int isas, flush;

#define real float
#define bits uint32_t
#define wide double
#define W(f) f
#define N(name) name##_f32
#define DTYPE FL_F32
#define DIGITS FLT_MANT_DIG
#define MIN_EXP FLT_MIN_EXP
#define MAX_EXP FLT_MAX_EXP
#include "ulp_body.inc.h"

#define real double
#define bits uint64_t
#define wide long double
#define W(f) f##l
#define N(name) name##_f64
#define DTYPE FL_F64
#define DIGITS DBL_MANT_DIG
#define MIN_EXP DBL_MIN_EXP
#define MAX_EXP DBL_MAX_EXP
#include "ulp_body.inc.h"

static void find_isas(void)
{
    const unsigned have = fl_cpu_features();
#if defined(__x86_64__)
    extern const fl_kernels fl_kernels__avx512, fl_kernels__avx2;
#define FL_TABLE_AVX512 &fl_kernels__avx512
#define FL_TABLE_AVX2 &fl_kernels__avx2
#define FL_TABLE_NEON NULL
#elif defined(__aarch64__)
    extern const fl_kernels fl_kernels__neon;
#define FL_TABLE_AVX512 NULL
#define FL_TABLE_AVX2 NULL
#define FL_TABLE_NEON &fl_kernels__neon
#else
#define FL_TABLE_AVX512 NULL
#define FL_TABLE_AVX2 NULL
#define FL_TABLE_NEON NULL
#endif
    extern const fl_kernels fl_kernels__scalar;
#define FL_TABLE_SCALAR &fl_kernels__scalar
    static const struct {
        const fl_kernels *table;
        unsigned needs;
    } rows[] = {
#define FL_ISA_ROW(ID, name, features) {FL_TABLE_##ID, features},
#include "isas.def"
#undef FL_ISA_ROW
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].table && (have & rows[i].needs) == rows[i].needs) tables[isas++] = rows[i].table;
}

static void set_flush(void)
{
    if (!flush) return;
#if defined(__x86_64__)
    _mm_setcsr(_mm_getcsr() | 0x8040);
#elif defined(__aarch64__)
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    __asm__ volatile("msr fpcr, %0" : : "r"(fpcr | 1u << 24));
#endif
}

static void merge(verdict *into, const verdict *v)
{
    if (v->worst > into->worst) {
        into->worst = v->worst;
        into->where = v->where;
    }
    if (v->backward > into->backward) into->backward = v->backward;
    if (v->largest > into->largest) into->largest = v->largest;
    into->not_odd += v->not_odd;
    into->bad_nan += v->bad_nan;
    into->bad_tiny += v->bad_tiny;
    into->bits_differ += v->bits_differ;
    into->checksum += v->checksum;
}

/* A start on a logarithmic scale between 2^-64 and 2^12: every binade that matters gets its share. */
static uint64_t random_double(uint64_t i)
{
    uint64_t z = (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    z ^= z >> 31;
    const uint64_t low = (UINT64_C(1023) - 64) << 52, span = UINT64_C(76) << 52;
    return low + (z >> 1) % span + (z << 63);
}

static void sweep(int dtype, int function, int64_t chunks, int64_t stride, verdict total[MAX_ISAS])
{
    memset(total, 0, MAX_ISAS * sizeof *total);
#pragma omp parallel
    {
        verdict mine[MAX_ISAS];
        memset(mine, 0, sizeof mine);
        set_flush();
#pragma omp for schedule(dynamic, 64)
        for (int64_t i = 0; i < chunks; i += stride) {
            if (dtype == FL_F32)
                check_chunk_f32(function, (uint32_t)i * CHUNK, mine);
            else
                check_chunk_f64(function, random_double((uint64_t)i), mine);
        }
#pragma omp critical
        for (int k = 0; k < isas; k++) merge(&total[k], &mine[k]);
    }
}

static int report(const char *dtype, int function, const verdict total[MAX_ISAS])
{
    int broken = 0;
    for (int k = 0; k < isas; k++) {
        const verdict *v = &total[k];
        const int ok = v->worst <= limits[function] && v->backward <= 1 && (function == EXP || v->largest <= 1) &&
                       !(v->not_odd || v->bad_nan || v->bad_tiny || v->bits_differ);
        printf("%-4s%-8s %-7s %8.4f  %-24a%5g  %-8.6g", dtype, function_names[function], tables[k]->name, v->worst,
               v->where, v->backward, v->largest);
        printf("%5" PRIu64 "%5" PRIu64 "%6" PRIu64 "%6" PRIu64 "  %016" PRIx64 "%s\n", v->not_odd, v->bad_nan,
               v->bad_tiny, v->bits_differ, v->checksum, ok ? "" : "  BROKEN");
        broken |= !ok;
    }
    fflush(stdout);
    return broken;
}

int main(int argc, char **argv)
{
    int64_t stride = 1, doubles = INT64_C(1) << 24;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--ftz") == 0)
            flush = 1;
        else if (strcmp(argv[i], "--stride") == 0 && i + 1 < argc)
            stride = atoll(argv[++i]);
        else if (strcmp(argv[i], "--doubles") == 0 && i + 1 < argc)
            doubles = atoll(argv[++i]);
        else
            stride = 0;
    }
    if (stride < 1 || doubles < 0) {
        fprintf(stderr, "usage: ulp_sweep [--stride N] [--doubles N] [--ftz]\n");
        return 2;
    }
    find_isas();
    printf("    function isa      max ulp  %-24s back  max |y|   odd  nan  tiny  bits  checksum\n", "at");
    int broken = 0;
    verdict total[MAX_ISAS];
    for (int f = 0; f < FUNCTIONS; f++) {
        sweep(FL_F32, f, (INT64_C(1) << 32) / CHUNK, stride, total);
        broken |= report("f32", f, total);
    }
    for (int f = 0; f < FUNCTIONS; f++) {
        sweep(FL_F64, f, (doubles + CHUNK - 1) / CHUNK, 1, total);
        broken |= report("f64", f, total);
    }
    return broken;
}
