/* A dense layer on the same panels and kernels: y = act(x . W^T + b). */
#include <stdlib.h>
#include <string.h>

#include "fl_arrays.h"
#include "fl_lists.h"
#include "fl_pieces.h"
#include "fl_team.h"

struct fl_dense {
    const fl_kernels *kernels;
    int64_t inputs, outputs;
    int dtype, activation;
    void *panel, *bias; /* plain panel of I rows; (columns of it) */
};

typedef struct fl_dense_packing {
    const fl_dense *dense;
    fl_piece rows;
} fl_dense_packing;

static void pack_dense(const fl_packer *packer, void *arg)
{
    const fl_dense_packing *p = arg;
    fl_pack_rows(packer, p->dense->panel, &p->rows, 1, 0, p->dense->inputs, p->dense->inputs);
}

enum fl_status fl_dense_create_threads(fl_dense **out, int dtype, int64_t inputs, int64_t outputs, const void *weight,
                                       const void *bias, int activation, int threads)
{
    if (!out || (dtype != FL_F32 && dtype != FL_F64) || inputs < 1 || outputs < 1 || !weight) return FL_ERR_ARGUMENT;
    if (threads < 0 || activation < FL_ACT_NONE || activation > FL_ACT_SOFTMAX) return FL_ERR_ARGUMENT;
    if (inputs > FL_LARGEST || outputs > FL_LARGEST) return FL_ERR_OVERFLOW;
    const fl_kernels *kernels;
    const enum fl_status status = fl_kernels_get(&kernels);
    if (status != FL_OK) return status;
    const int64_t width = kernels->lanes[dtype]->width, unit = dtype == FL_F64 ? 8 : 4;
    const int64_t padded = fl_plain_columns(outputs, width);
    fl_arena size = {0};
    fl_arena_take3(&size, padded, inputs, 1, unit);
    fl_arena_take(&size, padded, unit);
    if (size.overflow) return FL_ERR_OVERFLOW;
    fl_dense *dense = malloc(sizeof *dense);
    char *memory = dense ? fl_aligned_alloc(size.used) : NULL;
    if (!memory) {
        free(dense);
        return FL_ERR_MEMORY;
    }
    fl_arena arena = {.base = memory};
    *dense = (fl_dense){.kernels = kernels, .inputs = inputs, .outputs = outputs, .dtype = dtype,
                        .activation = activation};
    dense->panel = fl_arena_take3(&arena, padded, inputs, 1, unit); /* first: fl_dense_free frees the whole by it */
    dense->bias = fl_arena_take(&arena, padded, unit);
    memset(dense->bias, 0, (size_t)(padded * unit));
    if (bias) memcpy(dense->bias, bias, (size_t)(outputs * unit));
    fl_dense_packing packing = {dense, {weight, outputs}};
    const fl_pack_work work = {pack_dense, &packing, kernels->lanes[dtype], unit, memory, size.used};
    fl_pack_run(&work, threads);
    *out = dense;
    return FL_OK;
}

enum fl_status fl_dense_create(fl_dense **out, int dtype, int64_t inputs, int64_t outputs, const void *weight,
                               const void *bias, int activation)
{
    return fl_dense_create_threads(out, dtype, inputs, outputs, weight, bias, activation, 0);
}

void fl_dense_free(fl_dense *dense)
{
    if (!dense) return;
    fl_aligned_free(dense->panel);
    free(dense);
}

/* One row, in place.  The sum runs over the row in order, so it does not depend on the vector width. */
#define FL_SOFTMAX(name, real)                                                                 \
    static void name(const fl_real_kernels *k, real *row, int64_t n)                           \
    {                                                                                          \
        real top = row[0], sum = 0;                                                            \
        for (int64_t i = 1; i < n; i++) top = row[i] > top || row[i] != row[i] ? row[i] : top; \
        for (int64_t i = 0; i < n; i++) row[i] -= top;                                         \
        k->map(FL_ACT_EXP, row, row, n);                                                       \
        for (int64_t i = 0; i < n; i++) sum += row[i];                                         \
        for (int64_t i = 0; i < n; i++) row[i] /= sum;                                         \
    }
FL_SOFTMAX(softmax_f32, float)
FL_SOFTMAX(softmax_f64, double)

typedef struct fl_dense_call {
    const fl_dense *dense;
    int64_t rows;
    const char *x;
    char *y;
    fl_stop *stop;
    double flop_ns;
} fl_dense_call;

static void finish_rows(const fl_dense *d, char *y, int64_t rows)
{
    const fl_real_kernels *k = d->kernels->lanes[d->dtype];
    if (d->activation == FL_ACT_SOFTMAX) {
        for (int64_t r = 0; r < rows; r++) {
            if (d->dtype == FL_F64)
                softmax_f64(k, (double *)y + r * d->outputs, d->outputs);
            else
                softmax_f32(k, (float *)y + r * d->outputs, d->outputs);
        }
    } else if (d->activation != FL_ACT_NONE) {
        k->map(d->activation, y, y, rows * d->outputs);
    }
}

static void dense_worker(int worker, int workers, void *arg)
{
    enum { STRIP = 60 }; /* rows at a time: they fill tiles of 2, 3, 4 and 6 rows, their results stay in L2 */
    const fl_dense_call *call = arg;
    const fl_dense *d = call->dense;
    const int64_t unit = d->dtype == FL_F64 ? 8 : 4;
    const int64_t first = fl_share(call->rows, worker, workers), end = fl_share(call->rows, worker + 1, workers);
    const int64_t width = d->kernels->lanes[d->dtype]->width;
    const int64_t x_row = d->inputs * unit, y_row = d->outputs * unit;
    const void *a[STRIP], *out[STRIP];
    const fl_pieces pieces = {call->stop, worker, unit, call->flop_ns};
    fl_pace pace = fl_pace_of(call->stop, worker, 2.0 * STRIP * (double)d->inputs * (double)d->outputs * call->flop_ns);
    for (int64_t r = first; r < end && !fl_pace_step(&pace); r += STRIP) {
        const int64_t n = end - r < STRIP ? end - r : STRIP;
        fl_list_even(a, call->x + r * x_row, x_row, n);
        fl_list_even(out, call->y + r * y_row, y_row, n);
        const fl_product_args product = {
            .rows = n,
            .k = d->inputs,
            .columns = d->outputs,
            .block0 = 0,
            .block1 = fl_plain_blocks(d->outputs, width),
            .vectors = FL_PANEL_VECTORS,
            .a = a,
            .panel = d->panel,
            .bias = d->bias,
            .out = (void *const *)out,
        };
        fl_pieces_product(d->kernels->lanes[d->dtype], &product, &pieces);
        finish_rows(d, call->y + r * y_row, n);
    }
}

/* Of a matrix whose rows are shared among workers; SIZE_MAX: does not fit. */
static size_t rows_bytes(int64_t rows, int64_t columns, int64_t unit)
{
    if (rows > INT64_MAX / FL_MOST_THREADS) return SIZE_MAX; /* fl_share multiplies them */
    return fl_bytes(rows, columns, 1, unit);
}

enum fl_status fl_dense_forward_polled(const fl_dense *dense, int64_t rows, const void *x, void *y, int threads,
                                       int (*poll)(void *), void *poll_data)
{
    if (!dense || rows < 0 || threads < 0 || (rows && (!x || !y))) return FL_ERR_ARGUMENT;
    const int64_t unit = dense->dtype == FL_F64 ? 8 : 4;
    const size_t from = rows_bytes(rows, dense->inputs, unit), to = rows_bytes(rows, dense->outputs, unit);
    if (from == SIZE_MAX || to == SIZE_MAX) return FL_ERR_OVERFLOW;
    if (fl_blocks_meet(x, from, y, to)) return FL_ERR_ARGUMENT;
    fl_stop stop;
    fl_dense_call call = {dense, rows, x, y, fl_stop_begin(&stop, poll, poll_data), 0};
    if (poll) call.flop_ns = fl_plan_flop_ns(dense->dtype);
    const fl_team_work work = {.fn = dense_worker, .arg = &call, .stop = call.stop};
    fl_team_do(fl_plan_dense(dense->dtype, dense->inputs, dense->outputs, rows, threads), &work);
    return fl_stopped(call.stop) ? FL_ERR_STOPPED : FL_OK;
}

enum fl_status fl_dense_forward(const fl_dense *dense, int64_t rows, const void *x, void *y, int threads)
{
    return fl_dense_forward_polled(dense, rows, x, y, threads, NULL, NULL);
}

/* --- gradients of the weights: dW = dz^T . x, db = sum of dz, each element summed in the order of the rows ------- */

typedef struct fl_gradient_call {
    const fl_real_kernels *kernels;
    int64_t rows, outputs, inputs, unit;
    const char *dz, *x;
    void *weight, *bias;
    fl_stop *stop;
    double flop_ns;
} fl_gradient_call;

static void gradient_worker(int worker, int workers, void *arg)
{
    const fl_gradient_call *call = arg;
    const int64_t j0 = fl_share(call->outputs, worker, workers), j1 = fl_share(call->outputs, worker + 1, workers);
    const void *a[FL_OUTER_ROWS];
    const fl_pieces pieces = {call->stop, worker, call->unit, call->flop_ns};
    fl_pace pace = fl_pace_of(call->stop, worker,
                              2.0 * FL_OUTER_ROWS * (double)(j1 - j0) * (double)call->inputs * call->flop_ns);
    for (int64_t r = 0; r < call->rows && !fl_pace_step(&pace); r += FL_OUTER_ROWS) {
        const int64_t n = call->rows - r < FL_OUTER_ROWS ? call->rows - r : FL_OUTER_ROWS;
        const void *g = call->dz + r * call->outputs * call->unit;
        fl_list_even(a, call->x + r * call->inputs * call->unit, call->inputs * call->unit, n);
        const fl_outer_args outer = {n, j0, j1, call->inputs, g, call->outputs, a, call->weight, call->inputs};
        fl_pieces_outer(call->kernels, &outer, &pieces);
        const fl_colsum_args sum = {n, j0, j1, g, call->outputs, call->bias};
        if (call->bias) call->kernels->colsum(&sum);
    }
}

enum fl_status fl_dense_gradient_polled(int dtype, int64_t rows, int64_t outputs, int64_t inputs, const void *dz,
                                        const void *x, void *weight, void *bias, int threads, int (*poll)(void *),
                                        void *poll_data)
{
    if ((dtype != FL_F32 && dtype != FL_F64) || rows < 0 || outputs < 1 || inputs < 1 || threads < 0 || !weight)
        return FL_ERR_ARGUMENT;
    if (rows && (!dz || !x)) return FL_ERR_ARGUMENT;
    if (outputs > FL_LARGEST || inputs > FL_LARGEST) return FL_ERR_OVERFLOW;
    const int64_t unit = dtype == FL_F64 ? 8 : 4;
    const size_t dz_bytes = rows_bytes(rows, outputs, unit), x_bytes = rows_bytes(rows, inputs, unit);
    const size_t weight_bytes = fl_bytes(outputs, inputs, 1, unit), bias_bytes = fl_bytes(outputs, 1, 1, unit);
    if (dz_bytes == SIZE_MAX || x_bytes == SIZE_MAX || weight_bytes == SIZE_MAX) return FL_ERR_OVERFLOW;
    if (fl_blocks_meet(weight, weight_bytes, dz, dz_bytes) || fl_blocks_meet(weight, weight_bytes, x, x_bytes) ||
        fl_blocks_meet(bias, bias_bytes, dz, dz_bytes) || fl_blocks_meet(bias, bias_bytes, x, x_bytes) ||
        fl_blocks_meet(weight, weight_bytes, bias, bias_bytes))
        return FL_ERR_ARGUMENT;
    const fl_kernels *kernels;
    const enum fl_status status = fl_kernels_get(&kernels);
    if (status != FL_OK) return status;
    fl_stop stop, *ends = fl_stop_begin(&stop, poll, poll_data);
    fl_stop_fill(ends, weight, NULL, weight_bytes);
    if (bias) memset(bias, 0, bias_bytes);
    fl_gradient_call call = {kernels->lanes[dtype], rows, outputs, inputs, unit, dz, x, weight, bias, ends, 0};
    if (poll) call.flop_ns = fl_plan_flop_ns(dtype);
    const fl_team_work work = {.fn = gradient_worker, .arg = &call, .stop = ends};
    fl_team_do(fl_plan_dense(dtype, inputs, rows, outputs, threads), &work); /* outputs are shared */
    return fl_stopped(ends) ? FL_ERR_STOPPED : FL_OK;
}

enum fl_status fl_dense_gradient(int dtype, int64_t rows, int64_t outputs, int64_t inputs, const void *dz,
                                 const void *x, void *weight, void *bias, int threads)
{
    return fl_dense_gradient_polled(dtype, rows, outputs, inputs, dz, x, weight, bias, threads, NULL, NULL);
}
