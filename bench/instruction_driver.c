/* One representative call per run, for instruction_counts.py to count under valgrind: ./instruction_driver CASE */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fastlstm_experimental.h"

typedef struct config {
    const char *name;
    int64_t steps, batch, inputs, hidden;
    int layers, directions, ragged, training, single_step;
} config;

static const config cases[] = {
    {"step", 1, 1, 16, 16, 1, 1, 0, 0, 1},
    {"stream", 20, 1, 64, 64, 1, 1, 0, 0, 0},
    {"small_batch", 10, 8, 64, 64, 1, 1, 0, 0, 0},
    {"ragged_stack", 12, 6, 20, 33, 2, 2, 1, 0, 0},
    {"training", 10, 8, 32, 48, 1, 1, 0, 1, 0},
    {"ragged_training", 12, 8, 8, 8, 4, 1, 1, 1, 0},
};

/* Zeroed, 64-byte aligned, never freed: the process does one call. */
static void *block(size_t bytes)
{
    const size_t whole = (bytes + 127) / 64 * 64;
    void *p = aligned_alloc(64, whole);
    if (!p) exit(3);
    return memset(p, 0, whole);
}

static float *numbers(int64_t n, float scale)
{
    static unsigned state = 12345;
    float *p = block((size_t)n * sizeof *p);
    for (int64_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        p[i] = scale * ((float)(state >> 8) / 8388608.0f - 1.0f);
    }
    return p;
}

static fl_model *make(const config *c)
{
    const int64_t h = c->hidden;
    fl_weights w[4];
    for (int i = 0; i < c->layers * c->directions; i++) {
        const int64_t inputs = i < c->directions ? c->inputs : h * c->directions;
        w[i] = (fl_weights){.weight_ih = numbers(4 * h * inputs, 0.2f)};
        w[i].weight_hh = numbers(4 * h * h, 0.2f);
        w[i].bias_ih = numbers(4 * h, 0.2f);
        w[i].bias_hh = numbers(4 * h, 0.2f);
    }
    const fl_spec spec = {.cell = FL_CELL_LSTM, .dtype = FL_F32, .num_layers = c->layers, .directions = c->directions,
                          .input_size = c->inputs, .hidden_size = h, .flags = c->training ? FL_MODEL_BACKWARD : 0};
    fl_model *model;
    if (fl_model_create(&model, &spec, w) != FL_OK) exit(3);
    return model;
}

static void train(const fl_model *m, const config *c, fl_call *call, int64_t slots)
{
    const int64_t rows = c->steps * c->batch, h = c->hidden;
    call->cache = block(fl_cache_bytes(m, c->steps, c->batch, 0));
    call->workspace_bytes = fl_forward_bytes(m, call);
    call->workspace = block(call->workspace_bytes);
    if (fl_forward(m, call) != FL_OK) exit(3);
    fl_gradients g[4] = {{0}};
    for (int i = 0; i < c->layers; i++) {
        g[i].weight_ih = block((size_t)(4 * h * (i ? h : c->inputs) * 4));
        g[i].weight_hh = block((size_t)(4 * h * h * 4));
        g[i].bias_ih = block((size_t)(4 * h * 4));
    }
    const fl_backward_call back = {{numbers(rows * h, 1.0f), c->batch * h, h}, NULL, NULL,
                                   block((size_t)(rows * c->inputs * 4)), block((size_t)(slots * h * 4)),
                                   block((size_t)(slots * h * 4)), g};
    call->workspace_bytes = fl_backward_bytes(m, call);
    call->workspace = block(call->workspace_bytes);
    if (fl_backward(m, call, &back) != FL_OK) exit(3);
}

static int run(const config *c)
{
    const fl_model *m = make(c);
    const int64_t outputs = c->hidden * c->directions, slots = (int64_t)c->layers * c->directions * c->batch;
    const int64_t lengths[8] = {12, 1, 7, 0, 12, 3, 9, 5};
    float *x = numbers(c->steps * c->batch * c->inputs, 1.0f);
    float *y = block((size_t)(c->steps * c->batch * outputs * 4));
    float *h = block((size_t)(slots * c->hidden * 4)), *state = block((size_t)(slots * c->hidden * 4));
    if (c->single_step) {
        const size_t bytes = fl_step_bytes(m, c->batch);
        return fl_step(m, c->batch, x, h, state, y, block(bytes), bytes) != FL_OK;
    }
    fl_call call = {.steps = c->steps, .batch = c->batch, .x = {x, c->batch * c->inputs, c->inputs},
                    .lengths = c->ragged ? lengths : NULL, .y = {y, c->batch * outputs, outputs},
                    .hn = h, .cn = state, .threads = 1};
    if (c->training) {
        train(m, c, &call, slots);
        return 0;
    }
    call.workspace_bytes = fl_forward_bytes(m, &call);
    call.workspace = block(call.workspace_bytes);
    return fl_forward(m, &call) != FL_OK;
}

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (argc == 1)
            puts(cases[i].name);
        else if (strcmp(argv[1], cases[i].name) == 0)
            return run(&cases[i]);
    }
    return argc == 1 ? 0 : 2;
}
