/* For c_engine_test.c: unusual but legal calls, and every status there is. */

/* --- unusual but legal ------------------------------------------------------------------------------------------- */

/* x and y as (B, T, I) with gaps, in and out state in the same arrays: the same bits. */
static void test_layouts(int dtype)
{
    const problem p = make(dtype, 2, 2, (int[]){6, 19, 0, 9, 4}, LENGTHS | RESET);
    const size_t unit = unit_of(dtype);
    fl_model *m = model_of(&p);
    const result dense = forward(&p, m, 1, 0);
    result r = prepare(&p, m, 2, 0);
    const int64_t I = p.spec.input_size, x_wide = I + 3, y_wide = p.out + 5;
    char *x = take((size_t)(p.T * p.B * x_wide) * unit), *y = take((size_t)(p.T * p.B * y_wide) * unit);
    for (int64_t t = 0; t < p.T; t++)
        for (int64_t b = 0; b < p.B; b++)
            memcpy(x + (size_t)((b * p.T + t) * x_wide) * unit, (char *)p.x + (size_t)((t * p.B + b) * I) * unit,
                   (size_t)I * unit);
    r.call.x = (fl_sequence){x, x_wide, p.T * x_wide};
    r.call.y = (fl_sequence){y, y_wide, p.T * y_wide};
    memcpy(r.hn, p.h0, r.h_bytes);
    memcpy(r.cn, p.c0, r.c_bytes);
    r.call.h0 = r.hn;
    r.call.c0 = r.cn;
    check(fl_forward(m, &r.call) == FL_OK, "forward with strides");
    int same = 1, kept = 1;
    for (int64_t t = 0; t < p.T; t++)
        for (int64_t b = 0; b < p.B; b++) {
            const char *row = y + (size_t)((b * p.T + t) * y_wide) * unit;
            same &= !memcmp(row, (char *)dense.y + (size_t)((t * p.B + b) * p.out) * unit, (size_t)p.out * unit);
            for (size_t i = (size_t)p.out * unit; i < (size_t)y_wide * unit; i++) kept &= (unsigned char)row[i] == 0xFF;
        }
    check(same, "strides: other bits");
    check(kept, "strides: wrote between the rows");
    same_bits(r.hn, dense.hn, r.h_bytes, "hn in place of h0", p.name);
    same_bits(r.cn, dense.cn, r.c_bytes, "cn in place of c0", p.name);

    problem zero = p; /* no h0 is an h0 of zeros */
    zero.h0 = zero.c0 = NULL;
    const result without = forward(&zero, m, 1, 0);
    zero.h0 = memset(take(r.h_bytes), 0, r.h_bytes);
    zero.c0 = memset(take(r.c_bytes), 0, r.c_bytes);
    const result with = forward(&zero, m, 1, 0);
    same_bits(without.y, with.y, with.y_bytes, "no initial state", p.name);
    fl_model_free(m);
    release(p.name);
}

/* T = 0: the state passes through.  B = 0: nothing to do, and nothing is touched. */
static void test_empty(int dtype)
{
    for (int directions = 1; directions <= 2; directions++)
        for (int which = 0; which < 3; which++) {
            const int sizes[] = {3, 19, 0, which == 1 ? 5 : 0, which == 0 ? 2 : 0};
            const problem p = make(dtype, 2, directions, sizes, 0);
            fl_model *m = model_of(&p);
            const result r = forward(&p, m, 2, 1);
            same_bits(r.hn, p.h0, r.h_bytes, "hn of an empty call", p.name);
            same_bits(r.cn, p.c0, r.c_bytes, "cn of an empty call", p.name);
            const gradients g = backward(&p, m, &r, 2);
            same_bits(g.dh0, p.dhn, g.h_bytes, "dh0 of an empty call", p.name);
            same_bits(g.dc0, p.dcn, g.c_bytes, "dc0 of an empty call", p.name);
            for (size_t i = 0; i < g.hh_bytes; i++)
                if (((char *)g.slot[0].weight_hh)[i]) {
                    check(0, "gradient of an empty call is not zero, %s", p.name);
                    break;
                }
            if (directions == 1) check(fl_step(m, 0, NULL, NULL, NULL, NULL, take(64), 64) == FL_OK, "step of no rows");
            fl_model_free(m);
            release(p.name);
        }
}

/* A NaN stays in its row; so does an infinity. */
static void test_not_a_number(void)
{
    for (int dtype = FL_F32; dtype <= FL_F64; dtype++) {
        problem p = make(dtype, 2, 1, (int[]){20, 33, 0, 8, 5}, 0);
        const size_t row = (size_t)p.out * unit_of(dtype);
        fl_model *m = model_of(&p);
        const result clean = forward(&p, m, 1, 0);
        put(dtype, p.x, 3 * p.B * 20 + 2 * 20 + 7, NAN); /* t = 3, b = 2 */
        put(dtype, p.x, 3 * p.B * 20 + 4 * 20 + 1, INFINITY);
        const result dirty = forward(&p, m, 3, 0);
        for (int64_t t = 0; t < p.T; t++)
            for (int64_t b = 0; b < p.B; b++) {
                const size_t at = (size_t)(t * p.B + b) * row;
                if (t < 3 || b % 2 == 1 || b == 0)
                    same_bits((char *)clean.y + at, (char *)dirty.y + at, row, "row beside a NaN", p.name);
                else if (b == 2)
                    check(isnan(get(dtype, dirty.y, (t * p.B + b) * p.out)), "NaN was lost at step %d", (int)t);
            }
        fl_model_free(m);
        release(p.name);
    }
}

#ifdef ODD_FLOAT
/* By way of BLAS the products are the caller's own thread's. */
static void test_float_state_of_blas(void)
{
    const problem p = make(FL_F32, 2, 1, (int[]){20, 33, 5, 30, 8}, RESET);
    fl_gemm_force("blas");
    fl_model *m = model_of(&p);
    fl_gemm_force(NULL);
    const uint64_t before = float_state();
    result of[2];
    gradients grads[2];
    for (int i = 0; i < 2; i++) {
        if (i) set_float_state(ODD_FLOAT_STATE);
        const uint64_t state = float_state();
        of[i] = prepare(&p, m, 2, 1);
        of[i].call.blas = &PLAIN_BLAS;
        check(fl_forward(m, &of[i].call) == FL_OK, "forward by BLAS in another rounding mode");
        grads[i] = backward(&p, m, &of[i], 2);
        const int kept = float_state() == state;
        set_float_state(before);
        check(kept, "a call by BLAS changed the floating-point state");
    }
    same_result(&of[0], &of[1], "rounding mode, BLAS", p.name);
    same_gradients(&grads[0], &grads[1], "rounding mode, BLAS", p.name);
    fl_model_free(m);
}
#endif

/* The caller's rounding mode changes no result, and is back afterwards with its flags; nor do subnormals linger. */
static void test_float_state(void)
{
#ifdef ODD_FLOAT
    const problem p = make(FL_F32, 2, 1, (int[]){20, 33, 5, 30, 8}, RESET);
    fl_model *m = model_of(&p);
    fl_dense *dense = NULL;
    check(fl_dense_create(&dense, FL_F32, 20, 9, draw(FL_F32, 180, 1), NULL, FL_ACT_SOFTMAX) == FL_OK, "dense");
    const result nearest = forward(&p, m, 1, 1);
    const gradients grads = backward(&p, m, &nearest, 1);
    float *y = take(9 * sizeof *y), *odd_y = take(9 * sizeof *y);
    fl_dense_forward(dense, 1, p.x, y, 1);
    const uint64_t before = float_state();

    set_float_state(ODD_FLOAT_STATE);
    const uint64_t odd = float_state();
    fl_model *odd_model = model_of(&p); /* its biases are sums */
    const uint64_t after_create = float_state();
    const result packed = forward(&p, odd_model, 1, 1);
    const int flushes = fl_flushes_denormals();
    const uint64_t after_question = float_state();
    const result rounded = prepare(&p, m, 3, 1);
    const enum fl_status status = fl_forward(m, &rounded.call);
    const uint64_t after_forward = float_state();
    const gradients rounded_grads = backward(&p, m, &rounded, 3);
    const uint64_t after_backward = float_state();
    fl_dense_forward(dense, 1, p.x, odd_y, 1);
    const uint64_t after_dense = float_state();
    set_float_state(before);

    check(status == FL_OK, "forward in another rounding mode");
    check(odd == after_create, "fl_model_create changed the floating-point state");
    check(odd == after_question, "fl_flushes_denormals changed the floating-point state");
    check(flushes == fl_flushes_denormals(), "denormals are flushed in one state of the caller and not in another");
    same_result(&nearest, &packed, "rounding mode while packing", p.name);
    fl_model_free(odd_model);
    test_float_state_of_blas();
    check(odd == after_forward, "fl_forward changed the floating-point state");
    check(odd == after_backward, "fl_backward changed the floating-point state");
    check(odd == after_dense, "fl_dense_forward changed the floating-point state");
    same_result(&nearest, &rounded, "rounding mode", p.name);
    same_gradients(&grads, &rounded_grads, "rounding mode", p.name);
    same_bits(y, odd_y, 9 * sizeof *y, "rounding mode", "dense");
    fl_dense_free(dense);
    fl_model_free(m);
    release(p.name);
#else
    puts("SKIP floating-point state: unknown processor");
#endif
}

/* --- every status ------------------------------------------------------------------------------------------------ */

static void expect(enum fl_status got, enum fl_status wanted, const char *what)
{
    check(got == wanted, "%s: \"%s\" instead of \"%s\"", what, fl_status_text(got), fl_status_text(wanted));
}

static void test_status_texts(void)
{
    for (int a = FL_OK; a <= FL_ERR_STOPPED; a++) {
        check(strcmp(fl_status_text(a), "unknown status") != 0, "status %d has no text", a);
        for (int b = FL_OK; b < a; b++) check(strcmp(fl_status_text(a), fl_status_text(b)) != 0, "%d and %d", a, b);
    }
    check(fl_status_text(99) != NULL, "a status out of range");
    check(fl_cell_count() >= 1 && strcmp(fl_cell_name(FL_CELL_LSTM), "lstm") == 0, "name of the LSTM");
    check(!fl_cell_name(-1) && !fl_cell_name(fl_cell_count()) && fl_cell_gates(FL_CELL_LSTM) == GATES, "cells");
}

static void test_create_errors(const problem *p)
{
    fl_model *m = NULL;
    fl_spec spec = p->spec;
    expect(fl_model_create(NULL, &spec, p->weights), FL_ERR_ARGUMENT, "nowhere to put the model");
    expect(fl_model_create(&m, NULL, p->weights), FL_ERR_ARGUMENT, "no spec");
    expect(fl_model_create(&m, &spec, NULL), FL_ERR_ARGUMENT, "no weights");
#define BAD_SPEC(field, value)                                                           \
    spec = p->spec;                                                                      \
    spec.field = value;                                                                  \
    expect(fl_model_create(&m, &spec, p->weights), FL_ERR_ARGUMENT, #field " = " #value)
    BAD_SPEC(cell, -1);
    BAD_SPEC(cell, FL_CELL_COUNT);
    BAD_SPEC(dtype, 2);
    BAD_SPEC(num_layers, 0);
    BAD_SPEC(directions, 0);
    BAD_SPEC(directions, 3);
    BAD_SPEC(input_size, 0);
    BAD_SPEC(hidden_size, -4);
    BAD_SPEC(proj_size, -1);
    BAD_SPEC(flags, 2);
    spec = p->spec;
    fl_weights weights = p->weights[0];
    weights.weight_hh = NULL;
    expect(fl_model_create(&m, &spec, &weights), FL_ERR_ARGUMENT, "no weight_hh");
    weights = p->weights[0];
    weights.weight_hr = weights.weight_hh;
    expect(fl_model_create(&m, &spec, &weights), FL_ERR_ARGUMENT, "weight_hr without a projection");
    spec.proj_size = spec.hidden_size;
    expect(fl_model_create(&m, &spec, &weights), FL_ERR_ARGUMENT, "a projection as wide as the layer");
    spec.proj_size = 2;
    weights.weight_hr = NULL;
    expect(fl_model_create(&m, &spec, &weights), FL_ERR_ARGUMENT, "a projection without weight_hr");
    spec = p->spec;
    spec.hidden_size = (int64_t)1 << 40;
    expect(fl_model_create(&m, &spec, p->weights), FL_ERR_OVERFLOW, "2^40 hidden units");
    spec.hidden_size = INT64_MAX;
    expect(fl_model_create(&m, &spec, p->weights), FL_ERR_OVERFLOW, "2^63 - 1 hidden units");
    spec = p->spec;
    spec.input_size = INT64_MAX;
    expect(fl_model_create(&m, &spec, p->weights), FL_ERR_OVERFLOW, "2^63 - 1 inputs");
    spec.input_size = (int64_t)1 << 50;
    expect(fl_model_create(&m, &spec, p->weights), FL_ERR_OVERFLOW, "2^50 inputs");
    spec.input_size = (int64_t)1 << 28; /* 2^52 bytes of weights: more than any address space */
    spec.hidden_size = (int64_t)1 << 20;
    expect(fl_model_create(&m, &spec, p->weights), SIZE_MAX > UINT32_MAX ? FL_ERR_MEMORY : FL_ERR_OVERFLOW,
           "2^28 inputs to 2^20 units");
    check(m == NULL, "a failed create left a model");
    fl_model_free(NULL);
}

static void test_setting_errors(const problem *p)
{
    fl_model *m = NULL;
    const char *name = NULL;
    int mode;
    expect(fl_isa_force("nonsense"), FL_ERR_ISA, "fl_isa_force");
    setenv("FASTLSTM_ISA", "nonsense", 1);
    expect(fl_isa_name(&name), FL_ERR_ISA, "FASTLSTM_ISA, fl_isa_name");
    expect(fl_model_create(&m, &p->spec, p->weights), FL_ERR_ISA, "FASTLSTM_ISA, fl_model_create");
    expect(fl_map(FL_F32, FL_ACT_RELU, p->x, p->y_scratch, 1), FL_ERR_ISA, "FASTLSTM_ISA, fl_map");
    setenv("FASTLSTM_ISA", "scalar", 1);
    check(fl_isa_name(&name) == FL_OK && !strcmp(name, "scalar"), "FASTLSTM_ISA=scalar was not obeyed");
    unsetenv("FASTLSTM_ISA");
    expect(fl_gemm_force("nonsense"), FL_ERR_GEMM, "fl_gemm_force");
    check(fl_gemm_mode(&mode) == FL_OK && mode == FL_GEMM_AUTO, "a wrong name changed the mode");
    expect(fl_map(2, FL_ACT_RELU, p->x, p->y_scratch, 1), FL_ERR_ARGUMENT, "fl_map of no type");
    expect(fl_map(FL_F32, 99, p->x, p->y_scratch, 1), FL_ERR_ARGUMENT, "fl_map of no activation");
    expect(fl_map(FL_F32, FL_ACT_RELU, p->x, p->y_scratch, -1), FL_ERR_ARGUMENT, "fl_map of -1 elements");
}

static void test_machine_errors(void)
{
    fl_machine usual, good, bad, seen;
    fl_machine_get(&usual);
    int team = -1;
    check(fl_machine_measure(&good, 2, &team) == FL_OK && fl_machine_measure(&good, 0, NULL) == FL_OK, "measure");
    check(team == 0 || (team == 1 && fl_has_openmp()), "measured with a team of its own kind: %d", team);
    fl_machine_get(&seen);
    check(!memcmp(&usual, &seen, sizeof seen), "measuring has set what it measured");
    check(fl_machine_set(&good) == FL_OK, "what was measured is refused");
    fl_machine_get(&seen);
    check(!memcmp(&good, &seen, sizeof seen), "what was measured is not plausible");
    bad = good;
    bad.wake_ns = NAN;
    expect(fl_machine_set(&bad), FL_ERR_ARGUMENT, "waking that takes NaN");
    bad.wake_ns = 0;
    expect(fl_machine_set(&bad), FL_ERR_ARGUMENT, "waking that takes no time");
    expect(fl_machine_measure(NULL, 0, NULL), FL_ERR_ARGUMENT, "nowhere to measure to");
    expect(fl_machine_measure(&bad, -1, NULL), FL_ERR_ARGUMENT, "measuring with -1 threads");
    check(fl_machine_set(NULL) == FL_OK, "the built-in constants are refused");
    fl_machine_get(&seen);
    check(!memcmp(&usual, &seen, sizeof seen), "NULL does not bring the built-in constants back");
}

/* Threads of dense layers, by the built-in constants; and what no call can be divided into. */
static void test_dense_plans(void)
{
    check(fl_plan_dense(FL_F32, 4, 4, 3, 8) == 1, "a tiny dense layer takes several threads");
    check(fl_plan_dense(FL_F32, 1000, 1000, 0, 8) == 1, "a dense layer of no rows takes several threads");
    const int few = fl_plan_dense(FL_F32, 1000, 1000, 5, 64), many = fl_plan_dense(FL_F32, 1000, 1000, 500, 64);
    check(few <= 5 && many <= 64, "more threads than rows, or than allowed: %d, %d", few, many);
    check(!fl_has_openmp() || many > 5, "500 rows of a large dense layer take %d threads", many);
    check(fl_plan_dense(FL_F64, 1000, 1000, 500, 2) == (fl_has_openmp() ? 2 : 1), "two threads are not taken");
}

static void test_plan_errors(const fl_model *m)
{
    fl_plan plan;
    expect(fl_plan_call(m, -1, 1, 2, 0, &plan), FL_ERR_ARGUMENT, "a plan of -1 steps");
    expect(fl_plan_call(m, 1, INT64_C(1) << 40, 2, 1, &plan), FL_ERR_OVERFLOW, "a plan of too many rows");
    check(fl_plan_estimate(m, 5, 4, 0, FL_SPLIT_ROWS, 2, 0) > 0, "four rows cannot be shared by two threads");
    check(fl_plan_estimate(m, 5, 4, 0, FL_SPLIT_COUNT, 2, 0) == 0, "a split that is none has an estimate");
    check(fl_plan_estimate(m, 5, 4, 0, FL_SPLIT_ROWS, -2, 0) == 0, "-2 threads have an estimate");
    check(fl_plan_estimate(m, 5, -4, 1, FL_SPLIT_NONE, 1, 0) == 0, "-4 rows have an estimate");
}

static void test_call_errors(const problem *p, const fl_model *m)
{
    const result good = prepare(p, m, 1, 1);
    fl_call call;
#define BAD_CALL(change, wanted)                                    \
    call = good.call;                                               \
    change;                                                         \
    expect(fl_forward(m, &call), wanted, "fl_forward, " #change)
    BAD_CALL(call.steps = -1, FL_ERR_ARGUMENT);
    BAD_CALL(call.batch = -1, FL_ERR_ARGUMENT);
    BAD_CALL(call.threads = -1, FL_ERR_ARGUMENT);
    BAD_CALL(call.hn = NULL, FL_ERR_ARGUMENT);
    BAD_CALL(call.cn = NULL, FL_ERR_ARGUMENT);
    BAD_CALL(call.x.data = NULL, FL_ERR_ARGUMENT);
    BAD_CALL(call.y.data = NULL, FL_ERR_ARGUMENT);
    BAD_CALL((call.dropout = p->x, call.cache = NULL), FL_ERR_ARGUMENT);
    BAD_CALL(call.workspace_bytes--, FL_ERR_WORKSPACE);
    BAD_CALL(call.workspace = NULL, FL_ERR_WORKSPACE);
    BAD_CALL(call.workspace = (char *)call.workspace + 8, FL_ERR_WORKSPACE);
    BAD_CALL(call.cache = (char *)call.cache + 8, FL_ERR_WORKSPACE);
    BAD_CALL(call.lengths = ((int64_t[]){1, -1}), FL_ERR_LENGTH);
    BAD_CALL(call.lengths = ((int64_t[]){p->T + 1, 1}), FL_ERR_LENGTH);
    BAD_CALL(call.batch = (int64_t)1 << 61, FL_ERR_OVERFLOW);
    expect(fl_forward(NULL, &good.call), FL_ERR_ARGUMENT, "fl_forward, no model");
    expect(fl_forward(m, NULL), FL_ERR_ARGUMENT, "fl_forward, no call");
    for (size_t i = 0; i < good.y_bytes; i++)
        if (((unsigned char *)good.y)[i] != 0xFF) {
            check(0, "a refused call wrote to y");
            break;
        }
    call = good.call;
    call.batch = (int64_t)1 << 61;
    check(fl_forward_bytes(m, &call) == SIZE_MAX, "workspace for 2^61 rows");
    check(fl_backward_bytes(m, &call) == SIZE_MAX, "backward workspace for 2^61 rows");
    check(fl_step_bytes(m, (int64_t)1 << 61) == SIZE_MAX, "step workspace for 2^61 rows");
    check(fl_cache_bytes(m, (int64_t)1 << 50, 1 << 20, 0) == SIZE_MAX, "cache for 2^70 rows");
    check(fl_cache_bytes(m, -1, 1, 0) == SIZE_MAX, "cache for -1 steps");
}

static void test_step_errors(const problem *p, const fl_model *m)
{
    void *h = p->h0, *c = p->c0, *y = p->y_scratch;
    const size_t bytes = fl_step_bytes(m, p->B);
    char *w = take(bytes + 64);
    expect(fl_step(NULL, p->B, p->x, h, c, y, w, bytes), FL_ERR_ARGUMENT, "fl_step, no model");
    expect(fl_step(m, -1, p->x, h, c, y, w, bytes), FL_ERR_ARGUMENT, "fl_step, -1 rows");
    expect(fl_step(m, p->B, NULL, h, c, y, w, bytes), FL_ERR_ARGUMENT, "fl_step, no x");
    expect(fl_step(m, p->B, p->x, NULL, c, y, w, bytes), FL_ERR_ARGUMENT, "fl_step, no h");
    expect(fl_step(m, p->B, p->x, h, NULL, y, w, bytes), FL_ERR_ARGUMENT, "fl_step, no c");
    expect(fl_step(m, p->B, p->x, h, c, NULL, w, bytes), FL_ERR_ARGUMENT, "fl_step, no y");
    expect(fl_step(m, p->B, p->x, h, c, y, w, bytes - 1), FL_ERR_WORKSPACE, "fl_step, short workspace");
    expect(fl_step(m, p->B, p->x, h, c, y, w + 8, bytes), FL_ERR_WORKSPACE, "fl_step, crooked workspace");
    expect(fl_step(m, p->B, p->x, h, c, y, NULL, bytes), FL_ERR_WORKSPACE, "fl_step, no workspace");
}

static void test_backward_errors(const problem *p, const fl_model *m)
{
    const result r = forward(p, m, 1, 1);
    gradients g = take_gradients(p);
    fl_call call = r.call;
    call.workspace_bytes = fl_backward_bytes(m, &call);
    call.workspace = take(call.workspace_bytes);
    const fl_backward_call good = {.dy = {p->dy, p->B * p->out, p->out}, .dx = g.dx, .dh0 = g.dh0, .dc0 = g.dc0,
                                   .gradients = g.slot};
    fl_backward_call back = good;
    expect(fl_backward(m, &call, NULL), FL_ERR_ARGUMENT, "fl_backward, no gradients");
    back.dh0 = NULL;
    expect(fl_backward(m, &call, &back), FL_ERR_ARGUMENT, "fl_backward, no dh0");
    back = good;
    back.dy.data = NULL;
    expect(fl_backward(m, &call, &back), FL_ERR_ARGUMENT, "fl_backward, no dy");
    call.workspace_bytes--;
    expect(fl_backward(m, &call, &good), FL_ERR_WORKSPACE, "fl_backward, short workspace");
    call.workspace_bytes++;
    call.cache = NULL;
    expect(fl_backward(m, &call, &good), FL_ERR_ARGUMENT, "fl_backward, no cache");
    call.cache = r.cache;
    fl_spec spec = p->spec;
    spec.flags = 0;
    fl_model *lean = NULL;
    check(fl_model_create(&lean, &spec, p->weights) == FL_OK && fl_model_bytes(lean) < fl_model_bytes(m), "lean model");
    expect(fl_backward(lean, &call, &good), FL_ERR_BACKWARD, "fl_backward of a model for inference");
    fl_model_free(lean);

    fl_gemm_force("blas");
    fl_model *other = model_of(p);
    fl_gemm_force(NULL);
    const result plain = prepare(p, other, 1, 0);
    expect(fl_forward(other, &plain.call), FL_ERR_BLAS, "fl_forward by BLAS without one");
    fl_model_free(other);
}

static void test_dense_errors(const problem *p)
{
    fl_dense *d = NULL;
    expect(fl_dense_create(NULL, FL_F32, 1, 1, p->x, NULL, 0), FL_ERR_ARGUMENT, "dense, nowhere to put it");
    expect(fl_dense_create(&d, 2, 1, 1, p->x, NULL, 0), FL_ERR_ARGUMENT, "dense, dtype 2");
    expect(fl_dense_create(&d, FL_F32, 0, 1, p->x, NULL, 0), FL_ERR_ARGUMENT, "dense, no inputs");
    expect(fl_dense_create(&d, FL_F32, 1, 0, p->x, NULL, 0), FL_ERR_ARGUMENT, "dense, no outputs");
    expect(fl_dense_create(&d, FL_F32, 1, 1, NULL, NULL, 0), FL_ERR_ARGUMENT, "dense, no weight");
    expect(fl_dense_create(&d, FL_F32, 1, 1, p->x, NULL, FL_ACT_EXP), FL_ERR_ARGUMENT, "dense, activation exp");
    expect(fl_dense_create(&d, FL_F32, INT64_MAX, 8, p->x, NULL, 0), FL_ERR_OVERFLOW, "dense, 2^63 - 1 inputs");
    expect(fl_dense_create(&d, FL_F32, 8, INT64_MAX, p->x, NULL, 0), FL_ERR_OVERFLOW, "dense, 2^63 - 1 outputs");
    check(d == NULL, "a failed fl_dense_create left a layer");
    check(fl_dense_create(&d, FL_F32, 1, 1, p->x, NULL, 0) == FL_OK, "dense");
    expect(fl_dense_forward(d, -1, p->x, p->y_scratch, 1), FL_ERR_ARGUMENT, "dense, -1 rows");
    expect(fl_dense_forward(d, 1, NULL, p->y_scratch, 1), FL_ERR_ARGUMENT, "dense, no x");
    expect(fl_dense_forward(NULL, 1, p->x, p->y_scratch, 1), FL_ERR_ARGUMENT, "no dense");
    expect(fl_dense_forward(d, 0, NULL, NULL, 1), FL_OK, "dense, no rows");
    fl_dense_free(d);
    fl_dense_free(NULL);
}

static void test_errors(void)
{
    problem p = make(FL_F32, 1, 1, (int[]){3, 19, 0, 4, 2}, 0);
    p.y_scratch = take((size_t)(p.B * p.out) * 4);
    fl_model *m = model_of(&p);
    test_status_texts();
    test_create_errors(&p);
    test_setting_errors(&p);
    test_machine_errors();
    test_dense_plans();
    test_plan_errors(m);
    test_call_errors(&p, m);
    test_step_errors(&p, m);
    test_backward_errors(&p, m);
    test_dense_errors(&p);
    fl_model_free(m);
    release("errors");
}
