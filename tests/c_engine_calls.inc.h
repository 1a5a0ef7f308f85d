/* For c_engine_test.c: calls with exactly the memory the queries name, and the smaller parts of the interface. */

#if defined(__SSE2_MATH__)
#include <immintrin.h>
static uint64_t float_state(void) { return _mm_getcsr(); }
static void set_float_state(uint64_t state) { _mm_setcsr((unsigned)state); }
enum { ODD_FLOAT_STATE = 0x1f80 | 0x6000 | 0x3f }; /* round towards zero, every exception flag up */
#define ODD_FLOAT 1
#elif defined(__aarch64__)
static uint64_t float_state(void)
{
    uint64_t state;
    __asm__ volatile("mrs %0, fpcr" : "=r"(state));
    return state;
}
static void set_float_state(uint64_t state) { __asm__ volatile("msr fpcr, %0" : : "r"(state)); }
enum { ODD_FLOAT_STATE = 3 << 22 };
#define ODD_FLOAT 1
#endif

/* --- polls: while `on`, the calls below have one that ends them at question number `end_at`, counted from 0 */

static struct asking {
    int on, end_at, asked;
    enum fl_status status; /* of the last call of family_run */
} asking;

static int ask(void *data)
{
    (void)data;
    return asking.asked++ >= asking.end_at;
}

static enum fl_status status_due(void) { return asking.on && asking.asked > asking.end_at ? FL_ERR_STOPPED : FL_OK; }

static const fl_blas_t *given_blas; /* for calls by way of BLAS */

/* --- models and calls -------------------------------------------------------------------------------------------- */

static fl_model *model_of(const problem *p)
{
    fl_model *m = NULL;
    const enum fl_status status = fl_model_create(&m, &p->spec, p->weights);
    if (!check(status == FL_OK, "%s: create: %s", p->name, fl_status_text(status))) exit(1);
    return m;
}

typedef struct result {
    void *y, *hn, *cn, *cache;
    size_t y_bytes, h_bytes, c_bytes;
    fl_call call;
} result;

static void dense_copy(const problem *p, fl_call *call)
{
    call->x = (fl_sequence){p->x, p->B * p->spec.input_size, p->spec.input_size};
    call->y.step = p->B * p->out;
    call->y.row = p->out;
}

static result prepare(const problem *p, const fl_model *m, int threads, int training)
{
    const size_t unit = unit_of(p->spec.dtype);
    result r = {.y_bytes = (size_t)(p->T * p->B * p->out) * unit, .h_bytes = (size_t)(p->slots * p->B * p->R) * unit,
                .c_bytes = (size_t)(p->slots * p->B * p->spec.hidden_size) * unit};
    r.y = take(r.y_bytes);
    r.hn = take(r.h_bytes);
    r.cn = take(r.c_bytes);
    if (training) r.cache = take(fl_cache_bytes(m, p->T, p->B, p->dropout != NULL));
    r.call = (fl_call){.steps = p->T, .batch = p->B, .lengths = p->lengths, .reset = p->reset, .h0 = p->h0,
                       .c0 = p->c0, .y = {.data = r.y}, .hn = r.hn, .cn = r.cn, .cache = r.cache,
                       .dropout = training ? p->dropout : NULL, .threads = threads, .blas = given_blas,
                       .poll = asking.on ? ask : NULL};
    dense_copy(p, &r.call);
    r.call.workspace_bytes = fl_forward_bytes(m, &r.call);
    r.call.workspace = take(r.call.workspace_bytes);
    return r;
}

static result forward(const problem *p, const fl_model *m, int threads, int training)
{
    result r = prepare(p, m, threads, training);
    const enum fl_status status = fl_forward(m, &r.call);
    check(status == status_due(), "%s: forward: %s", p->name, fl_status_text(status));
    return r;
}

static void same_result(const result *a, const result *b, const char *what, const char *where)
{
    same_bits(a->y, b->y, a->y_bytes, what, where);
    same_bits(a->hn, b->hn, a->h_bytes, what, where);
    same_bits(a->cn, b->cn, a->c_bytes, what, where);
}

typedef struct gradients {
    void *dx, *dh0, *dc0;
    fl_gradients slot[MAX_SLOTS];
    size_t dx_bytes, h_bytes, c_bytes, ih_bytes[MAX_SLOTS], hh_bytes, bias_bytes, hr_bytes;
    int slots;
} gradients;

static gradients take_gradients(const problem *p)
{
    const size_t unit = unit_of(p->spec.dtype), H = (size_t)p->spec.hidden_size, R = (size_t)p->R;
    const size_t state = (size_t)(p->slots * p->B);
    gradients g = {.dx_bytes = (size_t)(p->T * p->B * p->spec.input_size) * unit, .h_bytes = state * R * unit,
                   .c_bytes = state * H * unit, .hh_bytes = GATES * H * R * unit, .bias_bytes = GATES * H * unit,
                   .hr_bytes = p->spec.proj_size ? R * H * unit : 0, .slots = p->slots};
    g.dx = take(g.dx_bytes);
    g.dh0 = take(g.h_bytes);
    g.dc0 = take(g.c_bytes);
    for (int s = 0; s < p->slots; s++) {
        g.ih_bytes[s] = GATES * H * (size_t)inputs_of(p, s) * unit;
        g.slot[s] = (fl_gradients){.weight_ih = take(g.ih_bytes[s]), .weight_hh = take(g.hh_bytes),
                                   .bias_ih = take(g.bias_bytes), .weight_hr = g.hr_bytes ? take(g.hr_bytes) : NULL};
    }
    return g;
}

static gradients backward(const problem *p, const fl_model *m, const result *r, int threads)
{
    gradients g = take_gradients(p);
    fl_call call = r->call;
    call.threads = threads;
    call.poll = asking.on ? ask : NULL;
    call.workspace_bytes = fl_backward_bytes(m, &call);
    call.workspace = take(call.workspace_bytes);
    const fl_backward_call back = {.dy = {p->dy, p->B * p->out, p->out}, .dhn = p->dhn, .dcn = p->dcn, .dx = g.dx,
                                   .dh0 = g.dh0, .dc0 = g.dc0, .gradients = g.slot};
    const enum fl_status status = fl_backward(m, &call, &back);
    check(status == status_due(), "%s: backward: %s", p->name, fl_status_text(status));
    return g;
}

static void same_gradients(const gradients *a, const gradients *b, const char *what, const char *where)
{
    int same = !memcmp(a->dx, b->dx, a->dx_bytes) && !memcmp(a->dh0, b->dh0, a->h_bytes) &&
               !memcmp(a->dc0, b->dc0, a->c_bytes);
    check(same, "%s: other bits in dx, dh0 or dc0, %s", what, where);
    for (int s = 0; s < a->slots; s++) {
        same = !memcmp(a->slot[s].weight_ih, b->slot[s].weight_ih, a->ih_bytes[s]) &&
               !memcmp(a->slot[s].weight_hh, b->slot[s].weight_hh, a->hh_bytes) &&
               !memcmp(a->slot[s].bias_ih, b->slot[s].bias_ih, a->bias_bytes) &&
               (!a->hr_bytes || !memcmp(a->slot[s].weight_hr, b->slot[s].weight_hr, a->hr_bytes));
        check(same, "%s: other bits in the gradients of weights %d, %s", what, s, where);
    }
}

/* Row b of a problem of one direction, without lengths and resets. */
static problem row_of(const problem *p, int64_t b)
{
    problem row = *p;
    const size_t unit = unit_of(p->spec.dtype), x = (size_t)p->spec.input_size * unit;
    const size_t h = (size_t)p->R * unit, c = (size_t)p->spec.hidden_size * unit;
    row.B = 1;
    row.x = take((size_t)p->T * x);
    row.h0 = take((size_t)p->slots * h);
    row.c0 = take((size_t)p->slots * c);
    for (int64_t t = 0; t < p->T; t++)
        memcpy((char *)row.x + (size_t)t * x, (char *)p->x + (size_t)(t * p->B + b) * x, x);
    for (int64_t s = 0; s < p->slots; s++) {
        memcpy((char *)row.h0 + (size_t)s * h, (char *)p->h0 + (size_t)(s * p->B + b) * h, h);
        memcpy((char *)row.c0 + (size_t)s * c, (char *)p->c0 + (size_t)(s * p->B + b) * c, c);
    }
    return row;
}

static fl_stream *stream_of(const fl_model *m, int64_t batch)
{
    fl_stream *s = NULL;
    const size_t bytes = fl_stream_bytes(m, batch);
    check(fl_stream_init(&s, m, batch, take(bytes), bytes) == FL_OK, "a stream of %d rows", (int)batch);
    return s;
}

/* fl_step, T times, gives the bits of fl_forward; so does a stream. */
static void test_steps(const problem *p, const fl_model *m, const result *whole)
{
    const size_t unit = unit_of(p->spec.dtype), x = (size_t)(p->B * p->spec.input_size) * unit;
    const size_t y_bytes = (size_t)(p->B * p->out) * unit, bytes = fl_step_bytes(m, p->B);
    void *h = take(whole->h_bytes), *c = take(whole->c_bytes), *y = take(y_bytes), *workspace = take(bytes);
    fl_stream *stream = stream_of(m, p->B);
    memcpy(h, p->h0, whole->h_bytes);
    memcpy(c, p->c0, whole->c_bytes);
    int same = fl_stream_set(stream, h, c) == FL_OK, same_stream = 1;
    for (int64_t t = 0; t < p->T; t++) {
        const char *x_t = (char *)p->x + (size_t)t * x, *y_t = (char *)whole->y + (size_t)t * y_bytes;
        same &= fl_step(m, p->B, x_t, h, c, y, workspace, bytes) == FL_OK && memcmp(y, y_t, y_bytes) == 0;
        same_stream &= fl_stream_step(stream, x_t, y) == FL_OK && memcmp(y, y_t, y_bytes) == 0;
    }
    check(same, "steps: other bits, %s", p->name);
    check(same_stream, "a stream: other bits, %s", p->name);
    same_bits(h, whole->hn, whole->h_bytes, "h after steps", p->name);
    same_bits(c, whole->cn, whole->c_bytes, "c after steps", p->name);
    check(fl_stream_get(stream, h, c) == FL_OK, "the state of a stream, %s", p->name);
    same_bits(h, whole->hn, whole->h_bytes, "h of a stream", p->name);
    same_bits(c, whole->cn, whole->c_bytes, "c of a stream", p->name);
}

/* --- by way of BLAS ---------------------------------------------------------------------------------------------- */

static int blas_calls;
#define PLAIN_GEMM(name, real)                                                                            \
    static void name(int trans_a, int trans_b, int64_t m, int64_t n, int64_t k, real alpha, const real *a, \
                     int64_t lda, const real *b, int64_t ldb, real beta, real *c, int64_t ldc)            \
    {                                                                                                     \
        blas_calls++;                                                                                     \
        for (int64_t i = 0; i < m; i++)                                                                   \
            for (int64_t j = 0; j < n; j++) {                                                             \
                real *to = &c[i * ldc + j];                                                               \
                double sum = 0;                                                                           \
                for (int64_t q = 0; q < k; q++)                                                           \
                    sum += (double)(trans_a ? a[q * lda + i] : a[i * lda + q]) *                          \
                           (double)(trans_b ? b[j * ldb + q] : b[q * ldb + j]);                           \
                *to = (real)((double)alpha * sum + (beta != 0 ? (double)beta * (double)*to : 0));         \
            }                                                                                             \
    }
PLAIN_GEMM(plain_sgemm, float)
PLAIN_GEMM(plain_dgemm, double)
static const fl_blas_t PLAIN_BLAS = {plain_sgemm, plain_dgemm};

static void test_blas(int dtype)
{
    const double allowed = dtype == FL_F64 ? 1e-12 : 2e-5;
    for (int directions = 1; directions <= 2; directions++)
        for (int options = 0; options < 8; options++) {
            const problem p = make(dtype, 2, directions, (int[]){6, 19, 5, 9, 4}, options);
            fl_model *own = model_of(&p);
            check(fl_gemm_force("blas") == FL_OK, "fl_gemm_force");
            fl_model *m = model_of(&p);
            fl_gemm_force(NULL);
            const naive n = naive_forward(&p);
            result r = prepare(&p, m, 2, 1);
            blas_calls = 0;
            r.call.blas = &PLAIN_BLAS;
            check(fl_forward(m, &r.call) == FL_OK, "forward by BLAS, %s", p.name);
            check(blas_calls > 0, "BLAS was not called, %s", p.name);
            near(dtype, r.y, n.y[1], p.T * p.B * p.out, allowed, "y by BLAS", p.name);
            near(dtype, r.cn, n.cn, p.slots * p.B * 19, allowed, "cn by BLAS", p.name);
            const gradients g = backward(&p, m, &r, 2);
            const result plain = forward(&p, own, 1, 1);
            const gradients expected = backward(&p, own, &plain, 1);
            double *wide = zeros(p.T * p.B * 6), *hh = zeros(GATES * 19 * p.R);
            for (int64_t i = 0; i < p.T * p.B * 6; i++) wide[i] = get(dtype, expected.dx, i);
            for (int64_t i = 0; i < GATES * 19 * p.R; i++) hh[i] = get(dtype, expected.slot[0].weight_hh, i);
            near(dtype, g.dx, wide, p.T * p.B * 6, allowed, "dx by BLAS", p.name);
            near(dtype, g.slot[0].weight_hh, hh, GATES * 19 * p.R, allowed, "d weight_hh by BLAS", p.name);
            fl_model_free(m);
            fl_model_free(own);
            release(p.name);
        }
}

/* --- dense layers, maps ------------------------------------------------------------------------------------------ */

static void activate(int activation, double *y, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        if (activation == FL_ACT_RELU && y[i] < 0) y[i] = 0;
        if (activation == FL_ACT_TANH) y[i] = tanh(y[i]);
        if (activation == FL_ACT_SIGMOID) y[i] = sigmoid(y[i]);
        if (activation == FL_ACT_EXP || activation == FL_ACT_SOFTMAX) y[i] = exp(y[i]);
        sum += y[i];
    }
    for (int64_t i = 0; i < n && activation == FL_ACT_SOFTMAX; i++) y[i] /= sum;
}

static void dense_case(int dtype, int64_t I, int64_t O, int64_t rows, int activation, int bias)
{
    const size_t unit = unit_of(dtype), bytes = (size_t)(rows * O) * unit, row = (size_t)O * unit;
    const void *w = draw(dtype, O * I, 1), *b = bias ? draw(dtype, O, 1) : NULL, *x = draw(dtype, rows * I, 1);
    double *expected = zeros(rows * O);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t o = 0; o < O; o++) {
            expected[r * O + o] = b ? get(dtype, b, o) : 0;
            for (int64_t i = 0; i < I; i++) expected[r * O + o] += get(dtype, w, o * I + i) * get(dtype, x, r * I + i);
        }
        activate(activation, expected + r * O, O);
    }
    char where[80];
    snprintf(where, sizeof where, "dense f%d %d->%d, %d rows, activation %d", dtype == FL_F64 ? 64 : 32, (int)I, (int)O,
             (int)rows, activation);
    void *first = NULL;
    for (int isa = 0; fl_isa_available(isa); isa++) {
        fl_dense *dense;
        fl_isa_force(fl_isa_available(isa));
        if (!check(fl_dense_create(&dense, dtype, I, O, w, b, activation) == FL_OK, "%s: create", where)) break;
        void *y = take(bytes), *one = take(row);
        check(fl_dense_forward(dense, rows, x, y, isa + 1) == FL_OK, "%s: forward", where);
        for (int64_t r = 0; r < rows; r++) {
            fl_dense_forward(dense, 1, (const char *)x + (size_t)(r * I) * unit, one, 1);
            same_bits(one, (char *)y + (size_t)r * row, row, "a row alone", where);
        }
        if (isa == 0)
            near(dtype, first = y, expected, rows * O, dtype == FL_F64 ? 1e-12 : 1e-5, "y", where);
        else
            same_bits(first, y, bytes, fl_isa_available(isa), where);
        fl_dense_free(dense);
    }
    fl_isa_force(NULL);
    release(where);
}

static void test_dense(int dtype)
{
    static const int sizes[][3] = {{1, 1, 1}, {3, 5, 2}, {17, 40, 7}, {64, 33, 1}, {100, 130, 90}};
    for (int i = 0; i < 5; i++)
        for (int activation = FL_ACT_NONE; activation <= FL_ACT_SOFTMAX; activation++)
            dense_case(dtype, sizes[i][0], sizes[i][1], sizes[i][2], activation, activation % 2);
}

static void test_map(int dtype)
{
    static const int activations[] = {FL_ACT_NONE, FL_ACT_RELU, FL_ACT_TANH, FL_ACT_SIGMOID, FL_ACT_EXP};
    for (int a = 0; a < 5; a++)
        for (int64_t n = 0; n < 40; n++) {
            const void *x = draw(dtype, n, 12);
            void *y = take((size_t)n * unit_of(dtype));
            double *expected = zeros(n);
            check(fl_map(dtype, activations[a], x, y, n) == FL_OK, "fl_map");
            for (int64_t i = 0; i < n; i++) activate(activations[a], (expected[i] = get(dtype, x, i), expected + i), 1);
            near(dtype, y, expected, n, dtype == FL_F64 ? 1e-15 : 1e-6, "fl_map", "map");
            release("map");
        }
}
