/* For c_engine_test.c: sizes that no object can have, places in a cache, arrays that overlap. */
#include "fl_arrays.h"

/* --- sizes: on a machine of 32 bits many are too large that fit 64 ---------------------------------------------- */

/* What a query says of a call that writes at least so many bytes: they fit, or it says so. */
static void check_bytes(size_t got, double least, const char *what)
{
    if (least > (double)PTRDIFF_MAX)
        check(got == SIZE_MAX, "%s: %zu bytes, but at least %.0f do not fit", what, got, least);
    else
        check(got <= (size_t)PTRDIFF_MAX && (double)got >= least, "%s: %zu bytes, at least %.0f", what, got, least);
}

static void test_sizes_of(int cell, int64_t T, int64_t B, int64_t H)
{
    const fl_spec spec = {.cell = cell, .num_layers = 2, .directions = 1, .input_size = 3, .hidden_size = H,
                          .flags = FL_MODEL_BACKWARD};
    fl_weights w[2];
    memset(w, 0, sizeof w);
    for (int l = 0; l < 2; l++) {
        w[l].weight_ih = draw(FL_F32, fl_weight_size(&spec, l, FL_WEIGHT_IH), 1);
        w[l].weight_hh = draw(FL_F32, fl_weight_size(&spec, l, FL_WEIGHT_HH), 1);
    }
    fl_model *m = NULL;
    if (!check(fl_model_create(&m, &spec, w) == FL_OK, "a model of %d units", (int)H)) return;
    fl_call call = {.steps = T, .batch = B, .threads = 1};
    const double rows = (double)T * (double)B, state = 4 * rows * (double)H;
    check_bytes(fl_cache_bytes(m, T, B, 0), state * (double)(fl_model_kept(m) / H) * 2, "cache");
    check_bytes(fl_cache_bytes(m, T, B, FL_CACHE_DROPOUT), state * (double)(fl_model_kept(m) / H) * 2, "cache");
    check_bytes(fl_backward_bytes(m, &call), state, "backward"); /* what goes from layer to layer */
    check_bytes(fl_step_bytes(m, B), 4 * (double)B * (double)H, "step");
    char here[64];
    call.hn = call.cn = call.x.data = call.y.data = here;
    call.workspace_bytes = fl_forward_bytes(m, &call);
    if (4 * rows * (double)H > (double)PTRDIFF_MAX) /* y alone does not fit, whatever the workspace */
        check(call.workspace_bytes == SIZE_MAX || fl_forward(m, &call) != FL_OK, "a call of arrays that do not fit");
    fl_model_free(m);
    release("sizes");
}

static void test_arithmetic(void)
{
    static const struct {
        int64_t factor[4];
        double bytes; /* -1: a negative one */
    } cases[] = {{{3, 5, 7, 8}, 840},
                 {{0, 5, 7, 8}, 0},
                 {{INT64_MAX, INT64_MAX, 0, 8}, 0},
                 {{-1, 0, 1, 1}, -1},
                 {{1, INT64_MIN, 1, 1}, -1},
                 {{32767, 32767, 32767, 8}, 32767. * 32767 * 32767 * 8},
                 {{1 << 16, 1 << 16, 1, 1}, 4294967296.},
                 {{(int64_t)1 << 32, 1, 1, 4}, 17179869184.},
                 {{(int64_t)1 << 33, (int64_t)1 << 33, 1, 1}, 73786976294838206464.},
                 {{INT64_MAX, 1, 1, 2}, 18446744073709551614.},
                 {{1100, 1000, 1000, 4}, 4.4e9}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int64_t *f = cases[i].factor;
        const int fits = cases[i].bytes >= 0 && cases[i].bytes <= (double)PTRDIFF_MAX;
        const size_t wanted = fits ? (size_t)cases[i].bytes : SIZE_MAX;
        check(fl_bytes(f[0], f[1], f[2], f[3]) == wanted, "fl_bytes, case %d", (int)i);
        fl_arena arena = {0};
        fl_arena_take3(&arena, f[0], f[1], f[2], f[3]);
        check(arena.overflow == (wanted == SIZE_MAX), "an arena, case %d", (int)i);
    }
    const size_t most = PTRDIFF_MAX;
    check(fl_bytes_sum(most, 0) == most && fl_bytes_sum(most, 1) == SIZE_MAX && fl_bytes_sum(1, most) == SIZE_MAX &&
              fl_bytes_sum(SIZE_MAX, 1) == SIZE_MAX && fl_bytes_sum(0, SIZE_MAX) == SIZE_MAX, "fl_bytes_sum");
    fl_arena arena = {0};
    fl_arena_take(&arena, PTRDIFF_MAX, 1); /* it fits, but not when rounded up */
    check(arena.overflow, "an arena of PTRDIFF_MAX bytes");
}

static void test_sizes(void)
{
    test_arithmetic();
    test_sizes_of(FL_CELL_RNN, 1100, 1000, 1000);
    test_sizes_of(FL_CELL_LSTM, 33, 32767, 64); /* each below 2^15, the product of all above 2^31 */
    test_sizes_of(FL_CELL_GRU, 1 << 20, 1 << 20, 8);
    test_sizes_of(FL_CELL_LSTM, 1 << 28, 1 << 28, 64);
    test_sizes_of(FL_CELL_RNN, 16, 16, 16);
}

/* --- fl_cache_find ---------------------------------------------------------------------------------------------- */

static int is_nowhere(fl_cache_slot s) { return s.gates == SIZE_MAX && s.c == SIZE_MAX && s.y == SIZE_MAX; }

static void test_cache_places(void)
{
    const problem p = make(FL_F32, 2, 2, (int[]){3, 5, 0, 4, 2}, 0);
    fl_model *m = model_of(&p);
    for (int layer = 0; layer < 2; layer++)
        for (int direction = 0; direction < 2; direction++)
            check(fl_cache_find(m, 4, 2, 0, layer, direction).gates < fl_cache_bytes(m, 4, 2, 0), "a place");
    static const int wrong[] = {-1, 2, 3, 100, INT_MAX, INT_MIN};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        check(is_nowhere(fl_cache_find(m, 4, 2, 0, wrong[i], 0)), "a place in layer %d of 2", wrong[i]);
        check(is_nowhere(fl_cache_find(m, 4, 2, 0, 0, wrong[i])), "a place in direction %d of 2", wrong[i]);
    }
    check(is_nowhere(fl_cache_find(m, -1, 2, 0, 0, 0)) && is_nowhere(fl_cache_find(m, 4, -2, 0, 0, 0)), "-1 steps");
    const int fits = fl_cache_bytes(m, 1 << 28, 1 << 28, 0) != SIZE_MAX;
    check(is_nowhere(fl_cache_find(m, 1 << 28, 1 << 28, 0, 1, 1)) == !fits, "a place in a cache that does not fit");
    check(is_nowhere(fl_cache_find(NULL, 4, 2, 0, 0, 0)), "a place without a model");
    fl_model_free(m);
    release("cache places");
}

/* Every part of every layer, one after the other, each at a multiple of 64 bytes, up to the end of the cache. */
static void check_cache_parts(const fl_model *m, int64_t T, int64_t B, int flags)
{
    const fl_cache_layout layout = fl_cache_layout_of(m, T, B, flags);
    const int layers = m->spec.num_layers, directions = m->spec.directions;
    const int64_t outputs = m->recurrent * directions;
    fl_arena arena = {0};
    for (int l = 0; l < layers; l++) {
        fl_cache_offsets at = {0};
        for (int d = 0; d < directions; d++) {
            at = fl_cache_at(&layout, l, d);
            check(at.gates == arena.used, "gates of layer %d, direction %d", l, d);
            fl_arena_take3(&arena, T, B, m->kept, m->unit);
            check(at.c == arena.used, "c of layer %d, direction %d", l, d);
            fl_arena_take3(&arena, T, B, m->cells, m->unit);
            check(at.x == arena.used, "x of layer %d, direction %d", l, d);
            if (flags & FL_CACHE_MASK_X) fl_arena_take3(&arena, T, B, fl_layer_inputs(&m->spec, l), m->unit);
        }
        if (l == layers - 1) {
            check(at.y == SIZE_MAX && at.input == SIZE_MAX, "y of the last layer");
            break;
        }
        check(at.y == arena.used, "y of layer %d", l);
        fl_arena_take3(&arena, T, B, outputs, m->unit);
        check(at.input == (flags & FL_CACHE_DROPOUT ? arena.used : at.y), "what layer %d reads", l + 1);
        if (flags & FL_CACHE_DROPOUT) fl_arena_take3(&arena, T, B, outputs, m->unit);
    }
    check(layout.total == arena.used && fl_cache_bytes(m, T, B, flags) == arena.used, "bytes of a cache");
}

static void test_cache_parts(void)
{
    for (int layers = 1; layers <= 3; layers++)
        for (int directions = 1; directions <= 2; directions++) {
            const problem p = make(FL_F32, layers, directions, (int[]){3, 5, 0, 4, 2}, 0);
            fl_model *m = model_of(&p);
            for (int flags = 0; flags <= (FL_CACHE_DROPOUT | FL_CACHE_MASK_X); flags++) {
                if (flags & ~(FL_CACHE_DROPOUT | FL_CACHE_MASK_X)) continue;
                check_cache_parts(m, 7, 3, flags);
                check_cache_parts(m, 0, 3, flags);
            }
            fl_model_free(m);
        }
    release("parts of a cache");
}

/* --- padding: zero however y lies, and what lies between its rows is left alone --------------------------------- */

static void test_padding_of(const problem *p, const fl_model *m, fl_sequence y, int64_t size, int threads, int cached)
{
    const result dense = forward(p, m, 1, cached);
    result other = prepare(p, m, threads, cached);
    float *data = take((size_t)size * sizeof *data), *expected = take((size_t)size * sizeof *data);
    for (int64_t i = 0; i < size; i++) data[i] = expected[i] = 0.5f;
    for (int64_t t = 0; t < p->T; t++)
        for (int64_t b = 0; b < p->B; b++)
            memcpy(expected + t * y.step + b * y.row, (float *)dense.y + (t * p->B + b) * p->out,
                   (size_t)p->out * sizeof *data);
    other.call.y = (fl_sequence){data, y.step, y.row};
    check(fl_forward(m, &other.call) == FL_OK, "padding, a call");
    same_bits(expected, data, (size_t)size * sizeof *data, "padding", p->name);
    if (cached) same_bits(dense.cache, other.cache, fl_cache_bytes(m, p->T, p->B, 0), "padding, cache", p->name);
}

static void test_padding(void)
{
    for (int directions = 1; directions <= 2; directions++) {
        const problem p = make(FL_F32, 2, directions, (int[]){3, 16, 0, 9, 7}, LENGTHS);
        fl_model *m = model_of(&p);
        const int64_t T = p.T, B = p.B, out = p.out, wide = out + 5;
        const fl_sequence layouts[] = {{NULL, B * out, out}, {NULL, out, T * out}, {NULL, B * wide, wide},
                                       {NULL, wide, T * wide}};
        for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
            for (int cached = 0; cached <= 1; cached++)
                for (int threads = 1; threads <= 3; threads += 2)
                    test_padding_of(&p, m, layouts[i], T * B * wide, threads, cached);
        fl_model_free(m);
        release("padding");
    }
}

/* --- overlap: refused, or the bits of a call without ------------------------------------------------------------ */

typedef enum verdict { REFUSED, SAME } verdict;

/* A forward call with x at x_at and y at y_at of one buffer, strides in elements. */
static void overlap_case(int T, int B, int64_t x_at, int64_t x_step, int64_t x_row, int64_t y_at, int64_t y_step,
                         int64_t y_row, verdict wanted)
{
    enum { N = 6, ROOM = 4000 };
    const problem p = make(FL_F32, 1, 1, (int[]){N, N, 0, T, B}, 0);
    fl_model *m = model_of(&p);
    const result apart = forward(&p, m, 1, 0);
    result r = prepare(&p, m, 2, 0);
    float *room = take(ROOM * sizeof *room);
    for (int t = 0; t < T; t++)
        for (int b = 0; b < B; b++)
            memcpy(room + x_at + t * x_step + b * x_row, (float *)p.x + (t * B + b) * N, N * sizeof *room);
    r.call.x = (fl_sequence){room + x_at, x_step, x_row};
    r.call.y = (fl_sequence){room + y_at, y_step, y_row};
    const enum fl_status status = fl_forward(m, &r.call);
    int same = 1;
    for (int t = 0; t < T && status == FL_OK; t++)
        for (int b = 0; b < B; b++)
            same &= !memcmp(room + y_at + t * y_step + b * y_row, (float *)apart.y + (t * B + b) * N, N * sizeof *room);
    const enum fl_status expected = wanted == REFUSED ? FL_ERR_ARGUMENT : FL_OK;
    check(status == expected && same, "T %d B %d, x at %d (%d, %d), y at %d (%d, %d): %s, %s bits", T, B, (int)x_at,
          (int)x_step, (int)x_row, (int)y_at, (int)y_step, (int)y_row, fl_status_text(status), same ? "good" : "other");
    fl_model_free(m);
    release("overlap");
}

static void test_overlap_of_sequences(void)
{
    overlap_case(5, 8, 0, 48, 6, 240, 48, 6, SAME);      /* one behind the other */
    overlap_case(5, 8, 0, 48, 6, 0, 48, 6, REFUSED);     /* y over x */
    overlap_case(5, 1, 0, 6, 6, 0, 6, 6, REFUSED);
    overlap_case(5, 8, 0, 48, 6, 239, 48, 6, REFUSED);   /* one element in common */
    overlap_case(5, 8, 0, 96, 12, 6, 96, 12, SAME);      /* side by side in every row */
    overlap_case(5, 8, 6, 96, 12, 0, 96, 12, SAME);
    overlap_case(5, 8, 0, 96, 12, 5, 96, 12, REFUSED);
    overlap_case(5, 8, 0, 96, 12, 95 + 6, 96, 12, REFUSED);
    overlap_case(5, 8, 0, 96, 6, 48, 96, 6, SAME);       /* even and odd steps */
    overlap_case(5, 8, 0, 12, 60, 6, 12, 60, SAME);      /* batch first, side by side */
    overlap_case(5, 8, 0, 6, 30, 1000, 48, 6, SAME);
    overlap_case(5, 8, 0, 6, 60, 30, 6, 60, SAME);       /* x and y of a row of the batch behind one another */
    overlap_case(5, 8, 0, 6, 60, 29, 6, 60, REFUSED);
    overlap_case(5, 8, 1000, -48, 6, 1100, 48, 6, SAME); /* x from its end, which is below y's start */
    overlap_case(5, 8, 1000, -48, 6, 800, 48, 6, REFUSED);
    overlap_case(5, 8, 1000, -48, 6, 700, 48, 6, REFUSED); /* its last steps are in y's last ones */
    overlap_case(5, 8, 700, 48, 6, 1000, -48, 6, REFUSED);
    overlap_case(5, 8, 500, 48, 6, 1000, -48, 6, SAME);
    overlap_case(5, 8, 1000, -48, -6, 1006, 48, 6, SAME);
    overlap_case(5, 8, 0, 48, 6, 500, 48, 0, REFUSED);   /* all rows of y in one place */
    overlap_case(5, 8, 0, 48, 6, 500, 48, 5, REFUSED);
    overlap_case(5, 8, 0, 48, 6, 500, 40, 6, REFUSED);   /* the last row of a step is the next one's first */
    overlap_case(1, 8, 0, INT64_MAX / 1024, 6, 500, 0, 6, SAME);
}

typedef struct overlap { /* one array of a call put where another one is */
    const char *name;
    const void *to;
    size_t bytes;
} overlap;

static void test_overlap_of_states(void)
{
    const problem p = make(FL_F32, 2, 1, (int[]){6, 6, 0, 5, 8}, LENGTHS | RESET | DROPOUT);
    fl_model *m = model_of(&p);
    const result good = forward(&p, m, 1, 1);
    /* hn may lie half over h0 */
    result r = prepare(&p, m, 1, 1);
    float *state = take(2 * r.h_bytes);
    memcpy(state + 3, p.h0, r.h_bytes);
    r.call.h0 = state + 3;
    r.call.hn = state;
    check(fl_forward(m, &r.call) == FL_OK, "hn half over h0");
    same_bits(state, good.hn, r.h_bytes, "hn half over h0", p.name);

    const fl_call call = good.call;
    const overlap inputs[] = {{"x", call.x.data, 0}, {"lengths", call.lengths, 0}, {"reset", call.reset, 0},
                              {"dropout", call.dropout, 0}, {"y", call.y.data, 0}, {"cache", call.cache, 0},
                              {"workspace", call.workspace, 0}, {"c0", call.c0, 0}, {"cn", call.cn, 0}};
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        fl_call bad = call;
        bad.hn = (void *)inputs[i].to;
        expect(fl_forward(m, &bad), FL_ERR_ARGUMENT, inputs[i].name);
    }
    fl_call bad = call;
    bad.cn = (void *)call.h0;
    expect(fl_forward(m, &bad), FL_ERR_ARGUMENT, "cn over h0");
    bad = call;
    bad.y.data = (void *)call.c0;
    expect(fl_forward(m, &bad), FL_ERR_ARGUMENT, "y over c0");
    bad = call;
    bad.x.step = INT64_MAX;
    expect(fl_forward(m, &bad), FL_ERR_OVERFLOW, "x with a step of 2^63 - 1");
    bad.x.step = INT64_MIN;
    expect(fl_forward(m, &bad), FL_ERR_OVERFLOW, "x with a step of -2^63");
    fl_masks masks[2];
    memset(masks, 0, sizeof masks);
    bad = call;
    bad.masks = masks;
    masks[1].mask_g = call.y.data;
    bad.workspace_bytes = fl_forward_bytes(m, &bad);
    bad.workspace = take(bad.workspace_bytes);
    expect(fl_forward(m, &bad), FL_ERR_ARGUMENT, "y over mask_g");
    fl_model_free(m);
    release("states");
}

static void test_overlap_of_gradients(void)
{
    const problem p = make(FL_F32, 2, 1, (int[]){6, 6, 0, 5, 8}, 0);
    fl_model *m = model_of(&p);
    const result r = forward(&p, m, 1, 1);
    const gradients expected = backward(&p, m, &r, 1);
    gradients g = take_gradients(&p);
    fl_call call = r.call;
    call.workspace_bytes = fl_backward_bytes(m, &call);
    call.workspace = take(call.workspace_bytes);
    const fl_backward_call good = {.dy = {p.dy, 48, 6}, .dhn = p.dhn, .dcn = p.dcn, .dx = g.dx, .dh0 = g.dh0,
                                   .dc0 = g.dc0, .gradients = g.slot};
    fl_backward_call back = good; /* in place of what they come from */
    memcpy(back.dh0, p.dhn, g.h_bytes);
    memcpy(back.dc0, p.dcn, g.c_bytes);
    back.dhn = back.dh0;
    back.dcn = back.dc0;
    check(fl_backward(m, &call, &back) == FL_OK, "dh0 and dc0 in place");
    same_gradients(&expected, &g, "in place", p.name);
#define BAD_BACK(change)                                                                   \
    back = good;                                                                           \
    memcpy(g.slot, slots, sizeof slots);                                                   \
    change;                                                                                \
    expect(fl_backward(m, &call, &back), FL_ERR_ARGUMENT, "fl_backward, " #change)
    fl_gradients slots[MAX_SLOTS];
    memcpy(slots, g.slot, sizeof slots);
    BAD_BACK(back.dx = p.dy);
    BAD_BACK(back.dx = p.x);
    BAD_BACK(back.dx = r.cache);
    BAD_BACK(back.dh0 = (void *)call.h0);
    BAD_BACK(back.dh0 = p.dcn);
    BAD_BACK(back.dc0 = back.dh0);
    BAD_BACK(back.dc0 = call.workspace);
    BAD_BACK(g.slot[1].weight_hh = g.slot[0].weight_hh);
    BAD_BACK(g.slot[1].bias_ih = (char *)g.slot[1].weight_hh + 4);
    BAD_BACK(g.slot[0].bias_ih = r.y);
    BAD_BACK(g.slot[0].bias_ih = p.dhn);
    back = good;
    memcpy(g.slot, slots, sizeof slots);
    back.dy.row = INT64_MIN;
    expect(fl_backward(m, &call, &back), FL_ERR_OVERFLOW, "dy with rows 2^63 apart");
    fl_model_free(m);
    release("gradients");
}

/* y over x and over the last layer's h; whatever else is refused. */
static void test_overlap_of_steps(int H, int P, int B)
{
    const problem p = make(FL_F32, 2, 1, (int[]){P ? P : H, H, P, 1, B}, 0);
    fl_model *m = model_of(&p);
    const size_t row = (size_t)(p.B * p.out) * 4, h_bytes = 2 * row, c_bytes = (size_t)(2 * B * H) * 4;
    const size_t n = fl_step_bytes(m, B);
    char *y = take(row), *h = take(h_bytes), *c = take(c_bytes), *x = take(2 * row), *w = take(n);
    const struct {
        const char *name;
        const void *x;
        void *y;
    } cases[] = {{"apart", p.x, y},     {"y over x", x, x},           {"y half over x", x, x + 12},
                 {"x half over y", x + 12, x}, {"y over the last h", p.x, h + row}, {"x over the first h", h, y},
                 {"x over the last h", h + row, y}, {"all over the last h", h + row, h + row}};
    char *expected[3] = {take(row), take(h_bytes), take(c_bytes)};
    memcpy(p.h0, p.x, row); /* so that x may lie there */
    memcpy((char *)p.h0 + row, p.x, row);
    for (int i = 0; i < 8; i++) {
        memcpy(h, p.h0, h_bytes);
        memcpy(c, p.c0, c_bytes);
        if (cases[i].x != p.x) memcpy((void *)cases[i].x, p.x, row);
        check(fl_step(m, B, cases[i].x, h, c, cases[i].y, w, n) == FL_OK, "fl_step, %s", cases[i].name);
        if (i == 0) {
            memcpy(expected[0], y, row);
            memcpy(expected[1], h, h_bytes);
            memcpy(expected[2], c, c_bytes);
        }
        same_bits(cases[i].y, expected[0], row, "y", cases[i].name);
        same_bits(h, expected[1], h_bytes, "h", cases[i].name);
        same_bits(c, expected[2], c_bytes, "c", cases[i].name);
    }
    expect(fl_step(m, B, p.x, h, c, h, w, n), FL_ERR_ARGUMENT, "fl_step, y over the first h");
    expect(fl_step(m, B, p.x, h, c, h + row - 4, w, n), FL_ERR_ARGUMENT, "fl_step, y half over the last h");
    expect(fl_step(m, B, p.x, h, c, c, w, n), FL_ERR_ARGUMENT, "fl_step, y over c");
    expect(fl_step(m, B, p.x, h, h, y, w, n), FL_ERR_ARGUMENT, "fl_step, c over h");
    expect(fl_step(m, B, c, h, c, y, w, n), FL_ERR_ARGUMENT, "fl_step, x over c");
    expect(fl_step(m, B, w, h, c, y, w, n), FL_ERR_ARGUMENT, "fl_step, x in the workspace");
    expect(fl_step(m, B, p.x, w, c, y, w, n), FL_ERR_ARGUMENT, "fl_step, h in the workspace");
    expect(fl_step(m, B, p.x, h, w, y, w, n), FL_ERR_ARGUMENT, "fl_step, c in the workspace");
    expect(fl_step(m, B, p.x, h, c, w, w, n), FL_ERR_ARGUMENT, "fl_step, y in the workspace");
    expect(fl_step(m, B, p.x, h, c, y, w, n - 1), FL_ERR_WORKSPACE, "fl_step, a short workspace");
    expect(fl_step(m, B, p.x, h, c, y, w + 8, n), FL_ERR_WORKSPACE, "fl_step, a crooked workspace");
    expect(fl_step(m, B, p.x, h, c, y, NULL, n), FL_ERR_WORKSPACE, "fl_step, no workspace");
    same_bits(h, expected[1], h_bytes, "h", "refused steps");
    fl_model_free(m);
    release("steps");
}

static void test_overlap_of_dense(void)
{
    enum { N = 40 };
    fl_dense *d = NULL;
    float *x = draw(FL_F32, 4 * N * N, 1), *g = take(N * N * 4 * 4), *b = take(N * 4);
    const int64_t far = INT64_MAX;
    check(fl_dense_create(&d, FL_F32, N, N, x, NULL, FL_ACT_NONE) == FL_OK, "dense");
    expect(fl_dense_forward(d, N, x, x, 1), FL_ERR_ARGUMENT, "dense, y over x");
    expect(fl_dense_forward(d, N, x, x + N * N - 1, 1), FL_ERR_ARGUMENT, "dense, y half over x");
    expect(fl_dense_forward(d, N, x, x + N * N, 1), FL_OK, "dense, y behind x");
    expect(fl_dense_forward(d, far, x, g, 1), FL_ERR_OVERFLOW, "dense, 2^63 - 1 rows");
    expect(fl_dense_gradient(FL_F32, 0, (int64_t)1 << 32, (int64_t)1 << 30, x, x, g, NULL, 1), FL_ERR_OVERFLOW,
           "dense gradient of 2^32 by 2^30");
    expect(fl_dense_gradient(FL_F32, 1, far, 4, x, x, g, NULL, 1), FL_ERR_OVERFLOW, "dense gradient, outputs");
    expect(fl_dense_gradient(FL_F32, 1, 4, far, x, x, g, NULL, 1), FL_ERR_OVERFLOW, "dense gradient, inputs");
    expect(fl_dense_gradient(FL_F32, far, 4, 4, x, x, g, NULL, 1), FL_ERR_OVERFLOW, "dense gradient, rows");
    expect(fl_dense_gradient(FL_F32, N, N, N, x, x, x, b, 1), FL_ERR_ARGUMENT, "dense gradient over its input");
    expect(fl_dense_gradient(FL_F32, N, N, N, x, x, g, g + 3, 1), FL_ERR_ARGUMENT, "dense gradient over its bias");
    expect(fl_dense_gradient(FL_F32, N, N, N, x, x, g, b, 1), FL_OK, "dense gradient");
    expect(fl_map(FL_F32, FL_ACT_TANH, x, x, N), FL_OK, "fl_map in place");
    expect(fl_map(FL_F32, FL_ACT_TANH, x, x + 1, N), FL_ERR_ARGUMENT, "fl_map half over itself");
    expect(fl_map(FL_F32, FL_ACT_SOFTMAX, x, g, N), FL_ERR_ARGUMENT, "fl_map of no function of one number");
    expect(fl_map(FL_F64, FL_ACT_TANH, x, g, far), FL_ERR_OVERFLOW, "fl_map of 2^63 - 1 numbers");
    fl_dense_free(d);
    release("dense overlap");
}

static void test_memory(void)
{
    test_sizes();
    test_cache_places();
    test_cache_parts();
    test_padding();
    test_overlap_of_sequences();
    test_overlap_of_states();
    test_overlap_of_gradients();
    test_overlap_of_steps(6, 0, 8);
    test_overlap_of_steps(6, 4, 8);
    test_overlap_of_steps(6, 0, 1);   /* by the kernel for one row, in which a step is whole */
    test_overlap_of_steps(300, 0, 1); /* and is not */
    test_overlap_of_dense();
}
