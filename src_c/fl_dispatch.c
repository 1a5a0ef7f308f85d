/* Chooses the kernels: the first row of isas.def whose features are all present, or the one FASTLSTM_ISA names.
 * A wrong name is an error, never a fallback: a test that forces a set must not pass on another. */
#include "fl_dispatch.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "fl_arrays.h"
#include "fl_cpu.h"

#if defined(__x86_64__) || defined(_M_X64)
#define FL_HAVE_AVX512 1
#define FL_HAVE_AVX2 1
#define FL_HAVE_NEON 0
#elif defined(__aarch64__)
#define FL_HAVE_AVX512 0
#define FL_HAVE_AVX2 0
#define FL_HAVE_NEON 1
#else
#define FL_HAVE_AVX512 0
#define FL_HAVE_AVX2 0
#define FL_HAVE_NEON 0
#endif
#define FL_HAVE_SCALAR 1

extern const fl_kernels fl_kernels__avx512, fl_kernels__avx2, fl_kernels__neon, fl_kernels__scalar;

/* An instruction set of another architecture has no table here; its row stays in the list with NULL. */
#define FL_TABLE_IF(have, name) FL_TABLE_IF_(have, name)
#define FL_TABLE_IF_(have, name) FL_TABLE_IF_##have(name)
#define FL_TABLE_IF_1(name) &fl_kernels__##name
#define FL_TABLE_IF_0(name) NULL

static const struct {
    const fl_kernels *table;
    unsigned features;
} rows[] = {
#define FL_ISA_ROW(ID, name, features) {FL_TABLE_IF(FL_HAVE_##ID, name), features},
#include "isas.def"
#undef FL_ISA_ROW
};
enum { ROWS = sizeof rows / sizeof rows[0] };

static _Atomic(const fl_kernels *) forced;

static int runs_here(int row)
{
    return rows[row].table && (fl_cpu_features() & rows[row].features) == rows[row].features;
}

const char *fl_isa_available(int index)
{
    for (int i = 0; i < ROWS && index >= 0; i++)
        if (runs_here(i) && index-- == 0) return rows[i].table->name;
    return NULL;
}

static const fl_kernels *find(const char *name)
{
    for (int i = 0; i < ROWS; i++)
        if (runs_here(i) && (!name || strcmp(name, rows[i].table->name) == 0)) return rows[i].table;
    return NULL;
}

enum fl_status fl_isa_force(const char *name)
{
    const fl_kernels *table = name ? find(name) : NULL;
    if (name && !table) return FL_ERR_ISA;
    atomic_store(&forced, table);
    return FL_OK;
}

enum fl_status fl_kernels_get(const fl_kernels **out)
{
    const fl_kernels *table = atomic_load(&forced);
    if (!table) {
        const char *name = getenv("FASTLSTM_ISA");
        table = find(name && *name ? name : NULL);
    }
    if (!table) return FL_ERR_ISA;
    *out = table;
    return FL_OK;
}

enum fl_status fl_isa_name(const char **name)
{
    const fl_kernels *table;
    if (!name) return FL_ERR_ARGUMENT;
    const enum fl_status status = fl_kernels_get(&table);
    if (status == FL_OK) *name = table->name;
    return status;
}

enum fl_status fl_map(int dtype, int activation, const void *x, void *y, int64_t n)
{
    const fl_kernels *table;
    const enum fl_status status = fl_kernels_get(&table);
    if (status != FL_OK) return status;
    if (dtype < 0 || dtype > 1 || activation < 0 || activation > FL_ACT_EXP || n < 0) return FL_ERR_ARGUMENT;
    if (activation == FL_ACT_SOFTMAX || (n && (!x || !y))) return FL_ERR_ARGUMENT; /* it is no function of one number */
    const size_t bytes = fl_bytes(n, 1, 1, dtype == FL_F64 ? 8 : 4);
    if (bytes == SIZE_MAX) return FL_ERR_OVERFLOW;
    if (x != y && fl_blocks_meet(x, bytes, y, bytes)) return FL_ERR_ARGUMENT;
    table->lanes[dtype]->map(activation, x, y, n);
    return FL_OK;
}

/* --- FASTLSTM_GEMM */

static atomic_int gemm_forced = -1; /* enum fl_gemm, -1: as the environment says */
static atomic_int gemm_environment = -1;

static enum fl_status parse_gemm(const char *name, int *mode)
{
    static const char *const names[] = {"auto", "panel", "blas"};
    for (int i = 0; i < 3; i++)
        if (strcmp(name, names[i]) == 0) {
            *mode = i;
            return FL_OK;
        }
    return FL_ERR_GEMM;
}

enum fl_status fl_gemm_force(const char *name)
{
    int mode = -1;
    const enum fl_status status = name ? parse_gemm(name, &mode) : FL_OK;
    if (status == FL_OK) atomic_store(&gemm_forced, mode);
    return status;
}

enum fl_status fl_gemm_mode(int *mode)
{
    if (!mode) return FL_ERR_ARGUMENT;
    *mode = atomic_load(&gemm_forced);
    if (*mode >= 0) return FL_OK;
    *mode = atomic_load(&gemm_environment);
    if (*mode >= 0) return FL_OK;
    const char *name = getenv("FASTLSTM_GEMM");
    const enum fl_status status = parse_gemm(name && *name ? name : "auto", mode);
    if (status == FL_OK) atomic_store(&gemm_environment, *mode);
    return status;
}
