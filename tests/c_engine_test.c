/* The engine without Python: against plain loops, against itself cut in other ways, and in the wrong hands.
 *
 *   cc -std=c11 -O1 -g -fsanitize=address,undefined -fopenmp -Isrc_c tests/c_engine_test.c src_c/[a-z]*.c -lm -lpthread
 *
 * A line per failure, then "N passed, N failed"; the exit status is 1 when something failed.
 * c_engine_test [--quick] [PART...]: --quick leaves most of it out, for emulators; parts are named at the end of the
 * file, and without one all of them run. */
#define _GNU_SOURCE
#include <limits.h>
#if defined(__linux__)
#include <malloc.h>
#endif
#include <pthread.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "fl_internal.h"
#include "c_engine_naive.inc.h"
#include "c_engine_calls.inc.h"
#include "c_engine_errors.inc.h"
#include "c_engine_limits.inc.h"
#include "c_engine_memory.inc.h"
#include "c_engine_family.inc.h"
#include "c_engine_places.inc.h"
#include "c_engine_teams.inc.h"
#include "c_engine_stop.inc.h"
#include "c_engine_one_row.inc.h"
#include "c_engine_processor.inc.h"
#include "c_engine_stream.inc.h"
#include "c_engine_pack.inc.h"

/* I, H, P, T, B: single units, cut vectors, hoisted products (I >= 16, B < 6), several chunks (T*B > 512), tiles of
 * all heights (B 4, 8, 9, 13) */
static const int SIZES[][5] = {{1, 1, 0, 1, 1},   {3, 5, 0, 4, 2},   {3, 19, 4, 7, 3},
                               {20, 33, 7, 9, 1}, {17, 16, 0, 6, 8}, {40, 24, 0, 58, 9},
                               {2, 40, 17, 1, 4}, {18, 57, 0, 5, 1}, {17, 97, 30, 12, 1},
                               {9, 29, 0, 2, 13}};
enum { SIZE_COUNT = sizeof SIZES / sizeof SIZES[0] };

static double tolerance(int dtype) { return dtype == FL_F64 ? 1e-12 : 4e-6; }

/* --- forward: the plain loops, every instruction set, with and without a cache ----------------------------------- */

static void check_cache(const problem *p, const fl_model *m, const result *r, const naive *n)
{
    const int dtype = p->spec.dtype;
    const int64_t H = p->spec.hidden_size, all = p->T * p->B;
    for (int s = 0; s < p->slots; s++) {
        const int layer = s / p->spec.directions;
        const fl_cache_slot at = fl_cache_find(m, p->T, p->B, p->dropout != NULL, layer, s % p->spec.directions);
        near(dtype, (char *)r->cache + at.gates, n->gates[s], all * GATES * H, tolerance(dtype), "gates", p->name);
        near(dtype, (char *)r->cache + at.c, n->c[s], all * H, tolerance(dtype), "cells", p->name);
        if (check((at.y == SIZE_MAX) == (layer == p->spec.num_layers - 1), "%s: cache y, layer %d", p->name, layer) &&
            at.y != SIZE_MAX)
            near(dtype, (char *)r->cache + at.y, n->y[layer], all * p->out, tolerance(dtype), "cached y", p->name);
    }
}

static void test_problem(int dtype, int layers, int directions, const int sizes[5], int options)
{
    const problem p = make(dtype, layers, directions, sizes, options);
    const naive n = naive_forward(&p);
    result first = {0};
    gradients first_grads = {0};
    for (int i = 0; fl_isa_available(i); i++) {
        fl_isa_force(fl_isa_available(i));
        fl_model *m = model_of(&p);
        check(strcmp(fl_model_isa(m), fl_isa_available(i)) == 0, "%s: forced %s", p.name, fl_isa_available(i));
        const result trained = forward(&p, m, 1, 1);
        const gradients grads = backward(&p, m, &trained, 1);
        if (!p.dropout) {
            const result inferred = forward(&p, m, 1, 0);
            same_result(&trained, &inferred, "inference and training", p.name);
        }
        if (i == 0) {
            near(dtype, trained.y, n.y[layers - 1], p.T * p.B * p.out, tolerance(dtype), "y", p.name);
            near(dtype, trained.hn, n.hn, p.slots * p.B * p.R, tolerance(dtype), "hn", p.name);
            near(dtype, trained.cn, n.cn, p.slots * p.B * p.spec.hidden_size, tolerance(dtype), "cn", p.name);
            check_cache(&p, m, &trained, &n);
            first = trained;
            first_grads = grads;
        } else {
            same_result(&first, &trained, fl_isa_available(i), p.name);
            same_gradients(&first_grads, &grads, fl_isa_available(i), p.name);
        }
        fl_model_free(m);
    }
    fl_isa_force(NULL);
    release(p.name);
}

/* Of three layers half of the options, other ones for each type: every two of them together for both.  In steps of more
 * than one there are few anyway. */
static int in_grid(int dtype, int layers, int options, int options_step)
{
    const int count = (options & 1) + (options >> 1 & 1) + (options >> 2 & 1);
    if (layers == 1) return !(options & DROPOUT);
    return layers < 3 || options_step > 1 || count % 2 == (dtype == FL_F64);
}

static void test_grid(int options_step)
{
    for (int size = 0; size < SIZE_COUNT; size++)
        for (int layers = 1; layers <= 3; layers++)
            for (int directions = 1; directions <= 2; directions++)
                for (int dtype = FL_F32; dtype <= FL_F64; dtype++)
                    for (int options = 0; options < 8; options += options_step)
                        if (in_grid(dtype, layers, options, options_step))
                            test_problem(dtype, layers, directions, SIZES[size], options);
}

/* --- gradients: central differences of the plain loops, float64; float32 against float64 ------------------------- */

static void differences(const problem *p, void *values, int64_t n, const double *gradient, const char *what)
{
    double *v = values, *expected = zeros(n);
    for (int64_t i = 0; i < n; i++) {
        const double kept = v[i], h = 1e-5;
        v[i] = kept + h;
        const double above = naive_loss(p);
        v[i] = kept - h;
        expected[i] = (above - naive_loss(p)) / (2 * h);
        v[i] = kept;
    }
    near(FL_F64, gradient, expected, n, 1e-7, what, p->name);
}

static void test_gradients(int layers, int directions, const int sizes[5], int options)
{
    const problem p = make(FL_F64, layers, directions, sizes, options);
    fl_model *m = model_of(&p);
    const result r = forward(&p, m, 1, 1);
    const gradients g = backward(&p, m, &r, 1);
    const int64_t H = p.spec.hidden_size, rows = GATES * H;
    for (int s = 0; s < p.slots; s++) {
        const fl_weights *w = &p.weights[s];
        differences(&p, (void *)w->weight_ih, rows * inputs_of(&p, s), g.slot[s].weight_ih, "d weight_ih");
        differences(&p, (void *)w->weight_hh, rows * p.R, g.slot[s].weight_hh, "d weight_hh");
        differences(&p, (void *)w->bias_ih, rows, g.slot[s].bias_ih, "d bias");
        if (p.spec.proj_size) differences(&p, (void *)w->weight_hr, p.R * H, g.slot[s].weight_hr, "d weight_hr");
    }
    differences(&p, p.x, p.T * p.B * p.spec.input_size, g.dx, "dx");
    differences(&p, p.h0, p.slots * p.B * p.R, g.dh0, "dh0");
    differences(&p, p.c0, p.slots * p.B * H, g.dc0, "dc0");
    fl_model_free(m);

    const problem narrow = make(FL_F32, layers, directions, sizes, options); /* the same numbers */
    m = model_of(&narrow);
    const result single = forward(&narrow, m, 1, 1);
    const gradients f = backward(&narrow, m, &single, 1);
    near(FL_F32, f.dx, g.dx, p.T * p.B * p.spec.input_size, 2e-5, "f32 dx", p.name);
    near(FL_F32, f.slot[0].weight_hh, g.slot[0].weight_hh, rows * p.R, 2e-5, "f32 d weight_hh", p.name);
    fl_model_free(m);
    release(p.name);
}

static void test_gradient_grid(void)
{
    static const int small[][5] = {{2, 3, 0, 1, 1}, {2, 3, 0, 4, 3}, {3, 4, 2, 4, 3}};
    for (int size = 0; size < 3; size++)
        for (int layers = 1; layers <= 2; layers++)
            for (int directions = 1; directions <= 2; directions++)
                for (int options = 0; options < 8; options += layers == 1 || size < 2 ? 3 : 7)
                    test_gradients(layers, directions, small[size], options);
}

/* --- the same bits however the work is cut ----------------------------------------------------------------------- */

static void test_threads(int dtype, int layers, int directions, const int sizes[5], int options, unsigned *splits)
{
    const problem p = make(dtype, layers, directions, sizes, options);
    fl_model *m = model_of(&p);
    const result one = forward(&p, m, 1, 1);
    const gradients one_grads = backward(&p, m, &one, 1);
    double before = INFINITY;
    for (int threads = 2; threads <= 5; threads++) {
        fl_plan plan;
        check(fl_plan_forward(m, p.T, p.B, threads, &plan) == FL_OK, "%s: plan", p.name);
        check(plan.estimate_ns <= before, "%s: allowing %d threads costs time", p.name, threads);
        before = plan.estimate_ns;
        *splits |= 1u << plan.split;
        const result inferred = forward(&p, m, threads, 0), more = forward(&p, m, threads, 1);
        const gradients grads = backward(&p, m, &more, threads);
        same_result(&one, &more, "threads", p.name);
        if (!p.dropout) same_result(&one, &inferred, "threads, inference", p.name);
        same_gradients(&one_grads, &grads, "threads", p.name);
    }
    fl_model_free(m);
    release(p.name);
}

static void test_thread_grid(void)
{
    static const int wide[][5] = {{64, 80, 0, 30, 2},   {48, 64, 24, 18, 33},  {200, 200, 0, 8, 5},
                                  {20, 100, 0, 40, 1},  {100, 180, 90, 6, 3},  {3, 4, 0, 2, 1}};
    unsigned splits = 0;
    for (int size = 0; size < (int)(sizeof wide / sizeof *wide); size++)
        for (int layers = 1; layers <= 2; layers++)
            for (int directions = 1; directions <= 2; directions++)
                for (int options = 0; options < 8; options += size == 0 && layers == 1 ? 3 : 7)
                    test_threads(size & 1 ? FL_F64 : FL_F32, layers, directions, wide[size], options, &splits);
    if (!fl_has_openmp()) {
        puts("SKIP splits: built without OpenMP");
        return;
    }
    for (int split = FL_SPLIT_NONE; split <= FL_SPLIT_DIRECTIONS; split++)
        check(splits >> split & 1, "no problem above was split in way %d", split);
}

/* Each row alone, and the sequence in two pieces, give the bits of the whole. */
static void test_pieces(int dtype, const int sizes[5])
{
    const problem p = make(dtype, 2, 1, sizes, 0);
    fl_model *m = model_of(&p);
    const size_t unit = unit_of(dtype), y_row = (size_t)p.out * unit;
    const result whole = forward(&p, m, 3, 0);
    for (int64_t b = 0; b < p.B; b++) {
        const problem row = row_of(&p, b);
        const result alone = forward(&row, m, 1, 0);
        int same = 1;
        for (int64_t t = 0; t < p.T; t++)
            same &=
                !memcmp((char *)whole.y + (size_t)(t * p.B + b) * y_row, (char *)alone.y + (size_t)t * y_row, y_row);
        check(same, "row %d alone: other bits, %s", (int)b, p.name);
    }
    problem head = p, tail = p;
    head.T = p.T / 3;
    tail.T = p.T - head.T;
    tail.x = (char *)p.x + (size_t)(head.T * p.B * p.spec.input_size) * unit;
    const result a = forward(&head, m, 1, 0);
    tail.h0 = a.hn;
    tail.c0 = a.cn;
    const result b = forward(&tail, m, 2, 0);
    same_bits(whole.y, a.y, a.y_bytes, "first piece", p.name);
    same_bits((char *)whole.y + a.y_bytes, b.y, b.y_bytes, "second piece", p.name);
    same_bits(whole.cn, b.cn, b.c_bytes, "state after two pieces", p.name);
    test_steps(&p, m, &whole);
    fl_model_free(m);
    release(p.name);
}

/* --- several calls at once, on one model ------------------------------------------------------------------------- */

typedef struct caller {
    const problem *p;
    const fl_model *m;
    fl_call call;
    const result *expected;
    int same;
} caller;

static void *call_often(void *arg)
{
    caller *c = arg;
    c->same = 1;
    for (int i = 0; i < 20; i++) {
        c->same &= fl_forward(c->m, &c->call) == FL_OK;
        c->same &= memcmp(c->call.y.data, c->expected->y, c->expected->y_bytes) == 0;
    }
    return NULL;
}

static void test_callers(void)
{
    enum { CALLERS = 4 };
    const problem p = make(FL_F32, 2, 2, (int[]){32, 64, 0, 20, 4}, LENGTHS);
    fl_model *m = model_of(&p);
    const result expected = forward(&p, m, 1, 0);
    caller callers[CALLERS];
    pthread_t threads[CALLERS];
    for (int i = 0; i < CALLERS; i++) {
        const result own = forward(&p, m, 3, 0);
        callers[i] = (caller){&p, m, own.call, &expected, 0};
    }
    for (int i = 0; i < CALLERS; i++) pthread_create(&threads[i], NULL, call_often, &callers[i]);
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
        check(callers[i].same, "caller %d of a shared model: other bits", i);
    }
    check(fl_teams_active() == 0, "%d threads still counted as active", fl_teams_active());
    fl_model_free(m);
    release("callers");
}

/* --- parts of the test, which may run in processes of their own -------------------------------------------------- */

static void part_grid(int quick) { test_grid(quick ? 7 : 1); }

static void part_gradients(int quick)
{
    if (!quick) test_gradient_grid();
}

static void part_threads(int quick)
{
    (void)quick;
    test_thread_grid();
    test_callers();
}

static void part_numbers(int quick)
{
    (void)quick;
    for (int dtype = FL_F32; dtype <= FL_F64; dtype++) {
        test_pieces(dtype, (int[]){20, 33, 7, 700, 1});
        test_pieces(dtype, (int[]){5, 24, 0, 90, 13});
        test_blas(dtype);
        test_dense(dtype);
        test_layouts(dtype);
        test_map(dtype);
        test_empty(dtype);
    }
    test_not_a_number();
    test_float_state();
}

static void part_errors(int quick)
{
    test_places();
    test_stop(quick);
    test_errors();
    test_memory();
    test_one_rows(quick);
    test_streams();
    test_processor();
    test_limits();
}

static const struct {
    const char *name;
    void (*run)(int quick);
} parts[] = {{"grid", part_grid},       {"gradients", part_gradients}, {"family", test_family}, {"errors", part_errors},
             {"numbers", part_numbers}, {"threads", part_threads},     {"teams", test_teams},
             {"packing", test_packing}};
enum { PARTS = sizeof parts / sizeof parts[0] };

/* 1: the name of a part */
static int is_part(const char *name)
{
    for (int i = 0; i < PARTS; i++)
        if (!strcmp(name, parts[i].name)) return 1;
    return 0;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* a crash must not swallow what failed before it */
    const int quick = argc > 1 && !strcmp(argv[1], "--quick"), first = 1 + quick;
    for (int i = first; i < argc; i++)
        if (!is_part(argv[i])) {
            printf("c_engine_test: no part is called %s\n", argv[i]);
            return 2;
        }
    fl_set_num_threads(6); /* so that small machines share work too */
    for (int part = 0; part < PARTS; part++) {
        int wanted = argc == first;
        for (int i = first; i < argc; i++) wanted |= !strcmp(argv[i], parts[part].name);
        if (wanted) parts[part].run(quick);
    }
    for (int i = first; i < argc; i++) printf("%s: ", argv[i]);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
