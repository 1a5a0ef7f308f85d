/* The machine's ceilings, by the kernels' own instruction set: what a benchmark measures itself against. */
#include "fl_internal.h"
#include "fl_limit.h"
#include "fl_team.h"

typedef struct fl_probe_call {
    const fl_real_kernels *kernels;
    int64_t n, elements, unit;
    const char *data;
    _Atomic int workers;
    volatile double sink; /* keeps the compiler from dropping the work */
} fl_probe_call;

static void probe_worker(int worker, int workers, void *arg)
{
    fl_probe_call *call = arg;
    const int64_t step = 8 * call->kernels->width;
    const int64_t first = fl_share(call->elements / step, worker, workers) * step;
    const int64_t end = fl_share(call->elements / step, worker + 1, workers) * step;
    atomic_store(&call->workers, workers);
    if (!call->data) {
        call->sink = call->kernels->probe_fma(call->n);
        return;
    }
    for (int64_t i = 0; i < call->n; i++)
        call->sink = call->kernels->probe_read(call->data + first * call->unit, end - first);
}

enum fl_status fl_probe(int dtype, int64_t n, const void *data, size_t bytes, int threads, double *flops)
{
    const fl_kernels *kernels;
    const enum fl_status status = fl_kernels_get(&kernels);
    if (status != FL_OK) return status;
    if (dtype < 0 || dtype > 1 || n < 0 || threads < 0) return FL_ERR_ARGUMENT;
    const uint64_t most = data ? bytes : 0; /* 64 bits, whatever a size_t has */
    if (n > (int64_t)1 << 40) return FL_ERR_OVERFLOW; /* hours */
    if (bytes > (size_t)PTRDIFF_MAX || most > (uint64_t)1 << 48) return FL_ERR_OVERFLOW; /* no such memory */
    const int64_t unit = dtype == FL_F64 ? 8 : 4;
    fl_probe_call call = {kernels->lanes[dtype], n, (int64_t)most / unit, unit, data, 1, 0};
    fl_team_run(fl_team_limit(threads), probe_worker, &call);
    if (flops) *flops = 2.0 * FL_PROBE_CHAINS * call.kernels->width * (double)n * atomic_load(&call.workers);
    return FL_OK;
}
