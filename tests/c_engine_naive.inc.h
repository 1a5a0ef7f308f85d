/* For c_engine_test.c: guarded memory, random problems, and the LSTM in plain double loops.
 *
 * Shapes as in fastlstm.h: T steps, B rows, L layers, D directions, I inputs, H hidden, P projected, R = P ? P : H. */
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fastlstm_experimental.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; } /* for FL_ERR_MEMORY */
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

/* --- checks ------------------------------------------------------------------------------------------------------ */

static int passed, failed;

static int check(int good, const char *format, ...)
{
    good ? passed++ : failed++;
    if (good) return 1;
    va_list args;
    va_start(args, format);
    fputs("FAIL ", stdout);
    vprintf(format, args);
    puts("");
    va_end(args);
    return 0;
}

static int same_bits(const void *a, const void *b, size_t bytes, const char *what, const char *where)
{
    return check(memcmp(a, b, bytes) == 0, "%s: other bits, %s", what, where);
}

/* --- memory: exactly the bytes asked for, 64-byte aligned, between two guards ------------------------------------ */

enum { GUARD = 64, MAX_TAKEN = 4096 };
static struct {
    char *block;
    size_t bytes;
} taken[MAX_TAKEN];
static int taken_count;

static void *take(size_t bytes)
{
    void *block = NULL;
    if (taken_count == MAX_TAKEN || posix_memalign(&block, 64, bytes + 2 * GUARD)) {
        puts("c_engine_test: out of memory");
        exit(3);
    }
    memset(block, 0xA5, bytes + 2 * GUARD);
    memset((char *)block + GUARD, 0xFF, bytes); /* NaN: what is not written shows */
    ASAN_POISON_MEMORY_REGION(block, GUARD);
    ASAN_POISON_MEMORY_REGION((char *)block + GUARD + bytes, GUARD);
    taken[taken_count].block = block;
    taken[taken_count++].bytes = bytes;
    return (char *)block + GUARD;
}

/* Gives everything back and looks at the guards. */
static void release(const char *where)
{
    int whole = 1;
    while (taken_count > 0) {
        char *block = taken[--taken_count].block;
        const size_t bytes = taken[taken_count].bytes;
        ASAN_UNPOISON_MEMORY_REGION(block, bytes + 2 * GUARD);
        for (int i = 0; i < GUARD; i++)
            whole &= (unsigned char)block[i] == 0xA5 && (unsigned char)block[GUARD + bytes + (size_t)i] == 0xA5;
        free(block);
    }
    check(whole, "%s: wrote outside its memory", where);
}

/* --- numbers ----------------------------------------------------------------------------------------------------- */

static uint64_t seed = 1;
static double uniform(void) /* (-1, 1) */
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (double)(seed >> 11) / 4503599627370496.0 - 1.0;
}

static size_t unit_of(int dtype) { return dtype == FL_F64 ? 8 : 4; }
static double get(int dtype, const void *p, int64_t i)
{
    return dtype == FL_F64 ? ((const double *)p)[i] : (double)((const float *)p)[i];
}
static void put(int dtype, void *p, int64_t i, double v)
{
    if (dtype == FL_F64)
        ((double *)p)[i] = v;
    else
        ((float *)p)[i] = (float)v;
}
static void *draw(int dtype, int64_t n, double scale)
{
    void *p = take((size_t)n * unit_of(dtype));
    for (int64_t i = 0; i < n; i++) put(dtype, p, i, (double)(float)(scale * uniform())); /* the same in both types */
    return p;
}
static double *zeros(int64_t n)
{
    double *p = take((size_t)n * sizeof *p);
    memset(p, 0, (size_t)n * sizeof *p);
    return p;
}

static int near(int dtype, const void *a, const double *b, int64_t n, double tolerance, const char *what,
                const char *where)
{
    double worst = 0;
    for (int64_t i = 0; i < n; i++) {
        const double error = fabs(get(dtype, a, i) - b[i]) / (1 + fabs(b[i]));
        if (!(error <= worst)) worst = error; /* NaN stays */
    }
    return check(worst <= tolerance, "%s: off by %.2g, allowed %.2g, %s", what, worst, tolerance, where);
}

/* --- problems ---------------------------------------------------------------------------------------------------- */

enum { LENGTHS = 1, RESET = 2, DROPOUT = 4, MAX_SLOTS = 6, GATES = 4 };

typedef struct problem {
    fl_spec spec;
    int64_t T, B;
    int options; /* LENGTHS | RESET | DROPOUT */
    int slots;   /* L*D */
    int64_t R, out; /* out = D*R */
    fl_weights weights[MAX_SLOTS];
    void *x, *h0, *c0, *dropout, *dy, *dhn, *dcn, *y_scratch;
    int64_t *lengths;
    unsigned char *reset;
    char name[160];
} problem;

static int64_t inputs_of(const problem *p, int slot)
{
    return slot < p->spec.directions ? p->spec.input_size : p->out;
}

/* sizes: I, H, P, T, B.  Everything random, the same numbers for both types. */
static problem make(int dtype, int layers, int directions, const int sizes[5], int options)
{
    problem p = {.T = sizes[3], .B = sizes[4], .options = options, .slots = layers * directions};
    p.spec = (fl_spec){.cell = FL_CELL_LSTM, .dtype = dtype, .num_layers = layers, .directions = directions,
                       .input_size = sizes[0], .hidden_size = sizes[1], .proj_size = sizes[2],
                       .flags = FL_MODEL_BACKWARD};
    p.R = sizes[2] ? sizes[2] : sizes[1];
    p.out = p.R * directions;
    seed = 88172645463325252u + (uint64_t)(sizes[0] * 7 + sizes[1] * 131 + layers * 17 + directions + options * 1009);
    const int64_t H = sizes[1], rows = GATES * H, state = p.slots * p.B;
    for (int s = 0; s < p.slots; s++) {
        const int64_t k = inputs_of(&p, s);
        fl_weights *w = &p.weights[s];
        *w = (fl_weights){.weight_ih = draw(dtype, rows * k, 1 / sqrt((double)k))};
        w->weight_hh = draw(dtype, rows * p.R, 1 / sqrt((double)p.R));
        w->bias_ih = draw(dtype, rows, 0.5);
        w->bias_hh = draw(dtype, rows, 0.5);
        if (sizes[2]) w->weight_hr = draw(dtype, p.R * H, 0.7);
    }
    p.x = draw(dtype, p.T * p.B * p.spec.input_size, 1.5);
    p.h0 = draw(dtype, state * p.R, 1);
    p.c0 = draw(dtype, state * H, 1);
    p.dy = draw(dtype, p.T * p.B * p.out, 1);
    p.dhn = draw(dtype, state * p.R, 1);
    p.dcn = draw(dtype, state * H, 1);
    if (options & LENGTHS) {
        p.lengths = take((size_t)p.B * sizeof(int64_t));
        for (int64_t b = 0; b < p.B; b++) p.lengths[b] = (b * 5 + p.T - 1) % (p.T + 1); /* unsorted, zero among them */
    }
    if (options & RESET) {
        p.reset = take((size_t)(p.T * p.B));
        for (int64_t i = 0; i < p.T * p.B; i++) p.reset[i] = uniform() > 0.5 ? 255 : 0;
    }
    if (options & DROPOUT && layers > 1) {
        const int64_t n = (layers - 1) * p.T * p.B * p.out;
        p.dropout = draw(dtype, n, 1);
        for (int64_t i = 0; i < n; i++) put(dtype, p.dropout, i, uniform() > 0.2 ? 1.25 : 0);
    }
    snprintf(p.name, sizeof p.name, "%s L%d D%d I%d H%d P%d T%d B%d%s%s%s", dtype == FL_F64 ? "f64" : "f32", layers,
             directions, sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], options & LENGTHS ? " lengths" : "",
             options & RESET ? " reset" : "", p.dropout ? " dropout" : "");
    return p;
}

/* --- the LSTM in plain loops ------------------------------------------------------------------------------------- */

typedef struct naive {
    double *y[3];             /* (T, B, D*R) of each layer */
    double *hn, *cn;          /* (L*D, B, R), (L*D, B, H) */
    double *gates[MAX_SLOTS]; /* (T, B, G, H) */
    double *c[MAX_SLOTS];     /* (T, B, H) */
} naive;

static double sigmoid(double z) { return 1 / (1 + exp(-z)); }

/* One row, one step.  x (K), h (R) and c (H) updated, gates (G, H) written. */
static void naive_step(const problem *p, int slot, const double *x, double *h, double *c, double *gates)
{
    const fl_weights *w = &p->weights[slot];
    const int64_t H = p->spec.hidden_size, K = inputs_of(p, slot);
    const int dtype = p->spec.dtype;
    double wide[256]; /* (H) what the projection eats */
    for (int64_t j = 0; j < GATES * H; j++) {
        double z = get(dtype, w->bias_ih, j) + get(dtype, w->bias_hh, j);
        for (int64_t k = 0; k < K; k++) z += get(dtype, w->weight_ih, j * K + k) * x[k];
        for (int64_t k = 0; k < p->R; k++) z += get(dtype, w->weight_hh, j * p->R + k) * h[k];
        gates[j] = j / H == 2 ? tanh(z) : sigmoid(z);
    }
    for (int64_t u = 0; u < H; u++) {
        c[u] = gates[H + u] * c[u] + gates[u] * gates[2 * H + u];
        wide[u] = gates[3 * H + u] * tanh(c[u]);
        if (!p->spec.proj_size) h[u] = wide[u];
    }
    for (int64_t r = 0; r < p->spec.proj_size; r++) {
        h[r] = 0;
        for (int64_t u = 0; u < H; u++) h[r] += get(dtype, w->weight_hr, r * H + u) * wide[u];
    }
}

static void naive_layer(const problem *p, int layer, int dir, const double *x, naive *n)
{
    const int slot = layer * p->spec.directions + dir, dtype = p->spec.dtype;
    const int64_t H = p->spec.hidden_size, R = p->R, K = inputs_of(p, slot), B = p->B;
    for (int64_t b = 0; b < B; b++) {
        double *h = n->hn + (slot * B + b) * R, *c = n->cn + (slot * B + b) * H;
        for (int64_t i = 0; i < R; i++) h[i] = get(dtype, p->h0, (slot * B + b) * R + i);
        for (int64_t i = 0; i < H; i++) c[i] = get(dtype, p->c0, (slot * B + b) * H + i);
        const int64_t length = p->lengths ? p->lengths[b] : p->T;
        for (int64_t s = 0; s < length; s++) {
            const int64_t t = dir ? length - 1 - s : s, at = t * B + b;
            const int cut = p->reset && (dir ? s > 0 && p->reset[at + B] : p->reset[at]);
            if (cut) {
                memset(h, 0, (size_t)R * sizeof *h);
                memset(c, 0, (size_t)H * sizeof *c);
            }
            naive_step(p, slot, x + at * K, h, c, n->gates[slot] + at * GATES * H);
            memcpy(n->c[slot] + at * H, c, (size_t)H * sizeof *c);
            memcpy(n->y[layer] + at * p->out + dir * R, h, (size_t)R * sizeof *h);
        }
    }
}

static naive naive_forward(const problem *p)
{
    const int64_t H = p->spec.hidden_size, all = p->T * p->B;
    naive n = {.hn = zeros(p->slots * p->B * p->R), .cn = zeros(p->slots * p->B * H)};
    double *x = zeros(all * p->spec.input_size);
    for (int64_t i = 0; i < all * p->spec.input_size; i++) x[i] = get(p->spec.dtype, p->x, i);
    for (int l = 0; l < p->spec.num_layers; l++) {
        n.y[l] = zeros(all * p->out);
        for (int d = 0; d < p->spec.directions; d++) {
            const int slot = l * p->spec.directions + d;
            n.gates[slot] = zeros(all * GATES * H);
            n.c[slot] = zeros(all * H);
            naive_layer(p, l, d, x, &n);
        }
        x = zeros(all * p->out);
        const int drop = p->dropout && l + 1 < p->spec.num_layers;
        for (int64_t i = 0; i < all * p->out; i++)
            x[i] = n.y[l][i] * (drop ? get(p->spec.dtype, p->dropout, l * all * p->out + i) : 1);
    }
    return n;
}

/* sum(dy * y) + sum(dhn * hn) + sum(dcn * cn): what the gradients are gradients of */
static double naive_loss(const problem *p)
{
    const int first = taken_count, dtype = p->spec.dtype;
    const naive n = naive_forward(p);
    const double *y = n.y[p->spec.num_layers - 1];
    double loss = 0;
    for (int64_t i = 0; i < p->T * p->B * p->out; i++) loss += get(dtype, p->dy, i) * y[i];
    for (int64_t i = 0; i < p->slots * p->B * p->R; i++) loss += get(dtype, p->dhn, i) * n.hn[i];
    for (int64_t i = 0; i < p->slots * p->B * p->spec.hidden_size; i++) loss += get(dtype, p->dcn, i) * n.cn[i];
    while (taken_count > first) {
        ASAN_UNPOISON_MEMORY_REGION(taken[taken_count - 1].block, taken[taken_count - 1].bytes + 2 * GUARD);
        free(taken[--taken_count].block);
    }
    return loss;
}
