/* For c_engine_test.c: the other cells and the options, without formulas of their own: the tests in Python have those.
 *
 * Here: gradients against central differences of the engine itself, the same bits on every instruction set, for any
 * number of threads, step by step, with and without a cache; masks; refusals; exactly the memory that queries name. */

static const int64_t FAMILY_PERIODS[] = {1, 2, 2, 3};

typedef struct member {
    const char *name;
    int cell, H, P;
    fl_options options;
    int kinked; /* no differences: truncated gradients, or slopes that jump */
} member;

static const member FAMILY[] = {
    {"peepholes", FL_CELL_LSTM, 17, 5, {.peephole = 7}, 0},
    {"peephole of o before", FL_CELL_LSTM, 17, 0, {.peephole = 5, .peephole_o_prev = 1}, 0},
    {"coupled i", FL_CELL_LSTM, 33, 0, {.peephole = 6, .coupled = FL_COUPLED_I}, 0},
    {"coupled f", FL_CELL_LSTM, 20, 0, {.coupled = FL_COUPLED_F}, 0},
    {"without gates", FL_CELL_LSTM, 18, 0, {.without = 7}, 0},
    {"activations", FL_CELL_LSTM, 19, 0,
     {.activation = {{FL_ACT_SOFTSIGN, 0, 0}, {FL_ACT_SCALED_TANH, 1.2, 0.7}, {FL_ACT_SOFTPLUS, 0, 0}}}, 0},
    {"bounds", FL_CELL_LSTM, 17, 4, {.peephole = 7, .clip = 0.4, .cell_clip = 0.3, .proj_clip = 0.1}, 1},
    {"norm ba", FL_CELL_LSTM, 17, 5, {.peephole = 7, .layer_norm = FL_NORM_BA}, 0},
    {"norm gates", FL_CELL_LSTM, 21, 0, {.peephole = 4, .layer_norm = FL_NORM_GATES, .without = FL_GATE_F}, 0},
    {"gate recurrence", FL_CELL_LSTM, 17, 0, {.peephole = 7, .gate_recurrence = 1}, 0},
    {"gru", FL_CELL_GRU, 17, 0, {.clip = 3}, 0},
    {"gru, reset before", FL_CELL_GRU, 35, 0, {.reset_before = 1}, 0},
    {"rnn", FL_CELL_RNN, 70, 0, {.activation = {{FL_ACT_ELU, 0.8, 0}}}, 0},
    {"depth gated", FL_CELL_DEPTH_GATED, 17, 6, {.peephole = 3}, 0},
    {"clockwork", FL_CELL_CLOCKWORK, 36, 0, {.period_count = 4, .periods = FAMILY_PERIODS}, 0},
    {"1997", FL_CELL_LSTM_1997, 18, 0, {.block_size = 3, .full_gradient = 1}, 0},
    {"1997, truncated", FL_CELL_LSTM_1997, 17, 0, {.biased_gates = 1, .without = FL_GATE_O}, 1},
    {"zoneout", FL_CELL_LSTM, 17, 0, {.zoneout_h = 0.3, .zoneout_c = 0.1}, 0},
};
enum { FAMILY_COUNT = sizeof FAMILY / sizeof FAMILY[0] };

typedef struct kin { /* a problem of the family and one run of it */
    fl_spec spec;
    int64_t T, B, R, out, C;
    int slots, dtype;
    fl_weights weights[MAX_SLOTS];
    fl_gradients gradients[MAX_SLOTS];
    fl_masks masks[MAX_SLOTS];
    void *x, *h0, *c0, *dy, *y, *hn, *cn, *dx, *dh0, *dc0;
    int64_t *lengths;
    unsigned char *reset;
} kin;

static void *mask_of(int dtype, int64_t n, double on)
{
    void *p = take((size_t)n * unit_of(dtype));
    for (int64_t i = 0; i < n; i++) put(dtype, p, i, uniform() < 0.2 ? 0 : on);
    return p;
}

static kin kin_of(const member *f, int dtype, int layers, int directions, int64_t T, int64_t B, int masks)
{
    kin k = {.T = T, .B = B, .slots = layers * directions, .dtype = dtype, .R = f->P ? f->P : f->H};
    k.spec = (fl_spec){.cell = f->cell, .dtype = dtype, .num_layers = layers, .directions = directions,
                       .input_size = 18, .hidden_size = f->H, .proj_size = f->P, .flags = FL_MODEL_BACKWARD,
                       .options = f->options};
    k.out = k.R * directions;
    seed = 1234567 + (uint64_t)(f->H * 7 + T);
    for (int s = 0; s < k.slots; s++) {
        const void **to = (const void **)&k.weights[s];
        void **gradient = (void **)&k.gradients[s];
        for (int tensor = 0; tensor < FL_TENSORS; tensor++) {
            const int64_t n = fl_weight_size(&k.spec, s / directions, tensor);
            if (n > 0) to[tensor] = draw(dtype, n, 0.4);
            if (n > 0) gradient[tensor] = take((size_t)n * unit_of(dtype));
        }
        const int64_t inputs = s < directions ? 18 : k.out;
        if (!masks) continue;
        k.masks[s] = (fl_masks){.mask_x = mask_of(dtype, B * inputs, 1.25)};
        k.masks[s].mask_h = mask_of(dtype, B * k.R, 1.25);
        if (f->cell == FL_CELL_CLOCKWORK) continue;
        if (f->cell != FL_CELL_RNN) k.masks[s].mask_g = mask_of(dtype, T * B * f->H, 1.25);
        if (f->cell == FL_CELL_LSTM_1997) continue;
        k.masks[s].zoneout_h = mask_of(dtype, T * B * k.R, 1);
        if (f->cell == FL_CELL_LSTM) k.masks[s].zoneout_c = mask_of(dtype, T * B * f->H, 0.25);
    }
    k.x = draw(dtype, T * B * 18, 1);
    k.dy = draw(dtype, T * B * k.out, 1);
    k.h0 = draw(dtype, k.slots * B * k.R, 0.5);
    k.lengths = take((size_t)B * sizeof *k.lengths);
    k.reset = take((size_t)(T * B));
    for (int64_t b = 0; b < B; b++) k.lengths[b] = b % 3 == 1 ? T / 2 : T;
    for (int64_t i = 0; i < T * B; i++) k.reset[i] = i % 7 == 5;
    return k;
}

static fl_model *family_model(kin *k, const char *name)
{
    fl_model *m = NULL;
    const enum fl_status status = fl_model_create(&m, &k->spec, k->weights);
    if (!check(status == FL_OK, "%s: create: %s", name, fl_status_text(status))) exit(1);
    k->C = fl_model_cells(m);
    for (int s = 0; s < k->slots; s++)
        if (!fl_model_own_bias_hh(m)) k->gradients[s].bias_hh = NULL;
    if (k->c0 == NULL && k->C) k->c0 = draw(k->dtype, k->slots * k->B * k->C, 0.5);
    for (int64_t i = 0; k->C == 1 && i < k->slots * k->B; i++) put(k->dtype, k->c0, i, (double)(i % 5)); /* clocks */
    return m;
}

/* training: 0 inference, 1 with a cache, 2 and masks; then backward too */
static void family_run(kin *k, const fl_model *m, int threads, int training, const char *name)
{
    const size_t unit = unit_of(k->dtype), h = (size_t)(k->slots * k->B * k->R) * unit;
    const size_t c = (size_t)(k->slots * k->B * k->C) * unit;
    k->y = take((size_t)(k->T * k->B * k->out) * unit);
    k->hn = take(h);
    k->cn = c ? take(c) : NULL;
    fl_call call = {.steps = k->T, .batch = k->B, .x = {k->x, k->B * 18, 18}, .lengths = k->lengths,
                    .reset = k->reset, .h0 = k->h0, .c0 = k->c0, .y = {k->y, k->B * k->out, k->out}, .hn = k->hn,
                    .cn = k->cn, .masks = training == 2 ? k->masks : NULL, .threads = threads,
                    .poll = asking.on ? ask : NULL};
    const int flags = training == 2 ? FL_CACHE_MASK_X : 0;
    if (training) call.cache = take(fl_cache_bytes(m, k->T, k->B, flags));
    call.workspace_bytes = fl_forward_bytes(m, &call);
    call.workspace = take(call.workspace_bytes);
    asking.status = fl_forward(m, &call);
    check(asking.status == status_due(), "%s: forward: %s", name, fl_status_text(asking.status));
    if (!training || asking.status != FL_OK) return;
    k->dx = take((size_t)(k->T * k->B * 18) * unit);
    k->dh0 = take(h);
    k->dc0 = c ? take(c) : NULL;
    const fl_backward_call back = {.dy = {k->dy, k->B * k->out, k->out}, .dx = k->dx, .dh0 = k->dh0, .dc0 = k->dc0,
                                   .gradients = k->gradients};
    call.workspace_bytes = fl_backward_bytes(m, &call);
    call.workspace = take(call.workspace_bytes);
    asking.status = fl_backward(m, &call, &back);
    check(asking.status == status_due(), "%s: backward: %s", name, fl_status_text(asking.status));
}

static void family_same(const kin *a, const kin *b, int gradients, const char *what, const char *name)
{
    const size_t unit = unit_of(a->dtype);
    same_bits(a->y, b->y, (size_t)(a->T * a->B * a->out) * unit, what, name);
    same_bits(a->hn, b->hn, (size_t)(a->slots * a->B * a->R) * unit, what, name);
    if (a->C) same_bits(a->cn, b->cn, (size_t)(a->slots * a->B * a->C) * unit, what, name);
    if (!gradients) return;
    same_bits(a->dx, b->dx, (size_t)(a->T * a->B * 18) * unit, what, name);
    same_bits(a->dh0, b->dh0, (size_t)(a->slots * a->B * a->R) * unit, what, name);
    for (int s = 0; s < a->slots; s++)
        for (int tensor = 0; tensor < FL_TENSORS; tensor++) {
            const void *x = ((void *const *)&a->gradients[s])[tensor], *y = ((void *const *)&b->gradients[s])[tensor];
            const int64_t n = fl_weight_size(&a->spec, s / a->spec.directions, tensor);
            if (x && y) same_bits(x, y, (size_t)n * unit, what, name);
        }
}

/* A run's own gradients, so that another can be compared with it. */
static kin kin_again(const kin *k)
{
    kin other = *k;
    for (int s = 0; s < k->slots; s++)
        for (int tensor = 0; tensor < FL_TENSORS; tensor++) {
            void **to = (void **)&other.gradients[s] + tensor;
            const int64_t n = fl_weight_size(&k->spec, s / k->spec.directions, tensor);
            if (*to) *to = take((size_t)n * unit_of(k->dtype));
        }
    return other;
}

static void family_bits(const member *f, int dtype, int layers, int directions, int64_t T, int64_t B, int masks)
{
    kin first = kin_of(f, dtype, layers, directions, T, B, masks);
    for (int i = 0; fl_isa_available(i); i++) {
        fl_isa_force(fl_isa_available(i));
        kin k = i ? kin_again(&first) : first;
        fl_model *m = family_model(&k, f->name);
        family_run(&k, m, 1, 1 + masks, f->name);
        if (i) family_same(&first, &k, 1, fl_isa_available(i), f->name);
        if (i == 0) {
            first = k;
            kin more = kin_again(&k);
            family_run(&more, m, 3, 1 + masks, f->name);
            family_same(&k, &more, 1, "threads", f->name);
            if (!masks) family_run(&more, m, 3, 0, f->name);
            if (!masks) family_same(&k, &more, 0, "inference", f->name);
        }
        fl_model_free(m);
    }
    fl_isa_force(NULL);
    release(f->name);
}

/* T calls of fl_step are one call. */
static void family_steps(const member *f, int dtype)
{
    kin k = kin_of(f, dtype, 2, 1, 5, 3, 0);
    const size_t unit = unit_of(dtype);
    k.lengths = NULL;
    k.reset = NULL;
    fl_model *m = family_model(&k, f->name);
    family_run(&k, m, 1, 0, f->name);
    const size_t h_bytes = (size_t)(2 * k.B * k.R) * unit, c_bytes = (size_t)(2 * k.B * k.C) * unit;
    const size_t bytes = fl_step_bytes(m, k.B), row = (size_t)(k.B * k.out) * unit;
    void *h = memcpy(take(h_bytes), k.h0, h_bytes), *y = take(row), *workspace = take(bytes);
    void *c = k.C ? memcpy(take(c_bytes), k.c0, c_bytes) : NULL;
    int same = 1;
    for (int64_t t = 0; t < k.T; t++) {
        const char *x = (const char *)k.x + (size_t)(t * k.B * 18) * unit;
        same &= fl_step(m, k.B, x, h, c, y, workspace, bytes) == FL_OK;
        same &= !memcmp(y, (char *)k.y + (size_t)t * row, row);
    }
    check(same, "%s: steps differ from the sequence", f->name);
    same_bits(h, k.hn, h_bytes, "h after steps", f->name);
    if (k.C) same_bits(c, k.cn, c_bytes, "c after steps", f->name);
    fl_model_free(m);
    release(f->name);
}

static double family_loss(kin *k)
{
    fl_model *m = family_model(k, "loss");
    kin run = *k;
    family_run(&run, m, 1, 2, "loss");
    double sum = 0;
    for (int64_t i = 0; i < k->T * k->B * k->out; i++) sum += get(FL_F64, run.y, i) * get(FL_F64, k->dy, i);
    fl_model_free(m);
    return sum;
}

/* Every tensor's gradient along one random direction. */
static void family_slopes(const member *f)
{
    for (int tensor = -1; tensor < FL_TENSORS; tensor++) {
        kin k = kin_of(f, FL_F64, 2, 2, 4, 2, 1);
        const int s = k.slots - 1; /* the upper layer, backward */
        const int64_t n = tensor < 0 ? k.T * k.B * 18 : fl_weight_size(&k.spec, 1, tensor);
        double *values = tensor < 0 ? k.x : (double *)((void **)&k.weights[s])[tensor];
        fl_model *m = n ? family_model(&k, f->name) : NULL;
        if (m) family_run(&k, m, 1, 2, f->name);
        const double *gradient = tensor < 0 ? k.dx : (const double *)((void **)&k.gradients[s])[tensor];
        if (m && gradient) {
            double *direction = draw(FL_F64, n, 1), expected = 0, found, step = 1e-5;
            for (int64_t i = 0; i < n; i++) expected += gradient[i] * direction[i];
            for (int64_t i = 0; i < n; i++) values[i] += step * direction[i];
            found = family_loss(&k);
            for (int64_t i = 0; i < n; i++) values[i] -= 2 * step * direction[i];
            found = (found - family_loss(&k)) / (2 * step);
            check(fabs(found - expected) <= 1e-7 * (1 + fabs(expected)), "%s: slope of tensor %d is %.10g, not %.10g",
                  f->name, tensor, found, expected);
        }
        fl_model_free(m);
        release(f->name);
    }
}

/* Many threads take the workspace of one thread and, each, lists and masked rows as long as a strip. */
static void family_memory(const member *f)
{
    enum { STEPS = 1000, ROWS = 4096, THREADS = 64, STRIP = 240, LISTS = 22 };
    kin k = kin_of(f, FL_F32, 2, 1, 1, 1, 1);
    fl_model *m = family_model(&k, f->name);
    const double rows = (double)THREADS * STRIP * (double)(LISTS * sizeof(void *) + (size_t)k.R * sizeof(float));
    for (int training = 0; training <= 2; training++) {
        fl_call call = {.steps = STEPS, .batch = ROWS, .cache = training ? k.x : NULL,
                        .masks = training == 2 ? k.masks : NULL, .threads = 1};
        const size_t one = fl_forward_bytes(m, &call), one_back = fl_backward_bytes(m, &call);
        call.threads = THREADS;
        const size_t many = fl_forward_bytes(m, &call), many_back = fl_backward_bytes(m, &call);
        fl_plan plan, back;
        fl_plan_forward(m, STEPS, ROWS, THREADS, &plan);
        fl_plan_backward(m, STEPS, ROWS, THREADS, &back);
        const int threads = fl_has_openmp() ? THREADS : 1;
        check(plan.threads == threads && back.threads == threads, "%s: %d and %d threads, not %d", f->name,
              (int)plan.threads, (int)back.threads, threads);
        check((double)many <= 1.1 * (double)one + rows, "%s: %zu bytes of %zu, mode %d", f->name, many, one, training);
        check((double)many_back <= 1.1 * (double)one_back + rows, "%s: backward, %zu bytes of %zu, mode %d", f->name,
              many_back, one_back, training);
    }
    fl_model_free(m);
    release(f->name);
}

static void family_refusals(void)
{
    const struct {
        int cell, H, P;
        fl_options options;
    } bad[] = {
        {FL_CELL_LSTM, 8, 0, {.peephole = 8}},
        {FL_CELL_LSTM, 8, 0, {.peephole = 1, .without = 1}},
        {FL_CELL_LSTM, 8, 0, {.peephole = 2, .coupled = FL_COUPLED_F}},
        {FL_CELL_LSTM, 8, 0, {.coupled = 3}},
        {FL_CELL_LSTM, 8, 0, {.coupled = FL_COUPLED_I, .without = 2}},
        {FL_CELL_LSTM, 8, 0, {.peephole = 1, .peephole_o_prev = 1}},
        {FL_CELL_LSTM, 8, 0, {.layer_norm = 3}},
        {FL_CELL_LSTM, 8, 0, {.gate_recurrence = 1, .layer_norm = FL_NORM_BA}},
        {FL_CELL_LSTM, 8, 0, {.proj_clip = 1}},
        {FL_CELL_LSTM, 8, 0, {.clip = -1}},
        {FL_CELL_LSTM, 8, 0, {.cell_clip = NAN}},
        {FL_CELL_LSTM, 8, 0, {.zoneout_h = 1.5}},
        {FL_CELL_LSTM, 8, 0, {.activation = {{FL_ACT_SOFTMAX, 0, 0}}}},
        {FL_CELL_LSTM, 8, 0, {.activation = {{FL_ACT_COUNT, 0, 0}}}},
        {FL_CELL_LSTM, 8, 0, {.activation = {{FL_ACT_AFFINE, INFINITY, 0}}}},
        {FL_CELL_RNN, 8, 0, {.activation = {{FL_ACT_TANH, 0, 0}, {FL_ACT_TANH, 0, 0}}}},
        {FL_CELL_GRU, 8, 3, {.clip = 0}},
        {FL_CELL_DEPTH_GATED, 8, 0, {.coupled = FL_COUPLED_F}},
        {FL_CELL_CLOCKWORK, 8, 0, {.period_count = 4}},
        {FL_CELL_CLOCKWORK, 9, 0, {.period_count = 4, .periods = FAMILY_PERIODS}},
        {FL_CELL_CLOCKWORK, 8, 0, {.period_count = 0, .periods = FAMILY_PERIODS}},
        {FL_CELL_CLOCKWORK, 8, 0, {.period_count = 2, .periods = (const int64_t[]){2, 1}}},
        {FL_CELL_CLOCKWORK, 8, 0, {.period_count = 2, .periods = (const int64_t[]){4096, 4097}}},
        {FL_CELL_CLOCKWORK, 8, 0, {.period_count = 2, .periods = (const int64_t[]){0, 1}}},
        {FL_CELL_LSTM_1997, 8, 0, {.block_size = 3}},
        {FL_CELL_LSTM_1997, 8, 0, {.block_size = -1}},
        {FL_CELL_LSTM_1997, 8, 0, {.without = FL_GATE_I}},
        {FL_CELL_LSTM_1997, 8, 0, {.clip = 1}},
        {FL_CELL_LSTM_1997, 8, 0, {.zoneout_h = 0.1}},
        {FL_CELL_GRU, 8, 0, {.peephole = 1}},
        {FL_CELL_GRU, 8, 0, {.zoneout_c = 0.1}},
        {FL_CELL_RNN, 8, 0, {.reset_before = 1}},
        {FL_CELL_RNN, 8, 0, {.block_size = 2}},
        {FL_CELL_LSTM, 8, 0, {.norm_eps = 0.1}},
        {FL_CELL_LSTM, 8, 0, {.full_gradient = 1}},
        {FL_CELL_LSTM, 8, 0, {.period_count = 4, .periods = FAMILY_PERIODS}},
        {FL_CELL_CLOCKWORK, 8, 0, {.period_count = 4, .periods = FAMILY_PERIODS, .zoneout_h = 0.1}},
    };
    for (int i = 0; i < (int)(sizeof bad / sizeof bad[0]); i++) {
        const fl_spec spec = {.cell = bad[i].cell, .num_layers = 1, .directions = 1, .input_size = 3,
                              .hidden_size = bad[i].H, .proj_size = bad[i].P, .options = bad[i].options};
        const fl_weights none = {0};
        fl_model *m = NULL;
        check(fl_model_create(&m, &spec, &none) == FL_ERR_ARGUMENT && !m, "options %d of the bad ones were taken", i);
        check(fl_weight_size(&spec, 0, FL_WEIGHT_IH) == -1, "options %d of the bad ones have weights", i);
    }
}

static void test_family(int quick)
{
    for (int i = 0; i < FAMILY_COUNT; i++) {
        const member *f = &FAMILY[i];
        for (int dtype = FL_F32; dtype <= FL_F64; dtype++) {
            family_bits(f, dtype, 2, 2, 6, 5, 0);
            family_bits(f, dtype, 2, 1, 5, 4, 1);
            if (!quick) family_bits(f, dtype, 2, 1, 40, 33, 0);
            if (!quick) family_bits(f, dtype, 1, 1, 30, 1, 0);
            family_steps(f, dtype);
        }
        if (!f->kinked) family_slopes(f);
        family_memory(f);
    }
    family_refusals();
}
