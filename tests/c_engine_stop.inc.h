/* For c_engine_test.c: calls that their poll ends, at every place where it may be asked; and what they leave behind. */
#ifndef C_ENGINE_STOP_INC_H
#define C_ENGINE_STOP_INC_H

#include "fl_team.h"

/* Waking and meeting cost next to nothing, so that small calls are shared, too. */
static void use_eager_machine(void)
{
    fl_machine m;
    fl_machine_get(&m);
    m.wake_ns = m.wake_each_ns = m.barrier_ns = m.barrier_all_ns = 1e-3;
    m.flops_per_ns[0] = m.flops_per_ns[1] = m.private_bytes_per_ns = 1e-3;
    m.cores = 8;
    check(fl_machine_set(&m) == FL_OK, "a machine on which everything is shared");
}

/* One call, forward and backward, that is asked everywhere and ends at question `at`. */
static void stopped_run(kin *k, const fl_model *m, int threads, int training, int at, const char *name)
{
    asking = (struct asking){.on = 1, .end_at = at};
    family_run(k, m, threads, training, name);
    const int ended = asking.asked > at;
    check(asking.status == (ended ? FL_ERR_STOPPED : FL_OK), "%s: \"%s\" after %d questions, to end at %d", name,
          fl_status_text(asking.status), asking.asked, at);
    check(asking.asked <= at + 1, "%s: asked %d times, to end at %d", name, asking.asked, at);
    check(fl_teams_active() == 0, "%s: %d threads still counted as active", name, fl_teams_active());
    asking = (struct asking){0};
}

static void stop_everywhere(const member *f, int layers, int directions, int64_t T, int64_t B, int training,
                            int threads, int manner)
{
    kin k = kin_of(f, FL_F32, layers, directions, T, B, training == 2);
    fl_model *m = family_model(&k, f->name);
    family_run(&k, m, 1, training, f->name);
    kin other = kin_again(&k);
    fl_team_force(manner);
    fl_poll_force(1);
    asking = (struct asking){.on = 1, .end_at = INT_MAX};
    family_run(&other, m, threads, training, f->name);
    const int all = asking.asked;
    check(all > T, "%s: asked %d times in %d steps", f->name, all, (int)T);
    family_same(&k, &other, training > 0, "asked everywhere", f->name);
    for (int i = 0; i < 12; i++) stopped_run(&other, m, threads, training, i < 6 ? i : all * (i - 6) / 6, f->name);
    asking = (struct asking){0};
    fl_poll_force(0);
    fl_team_force(FL_TEAM_ADAPTS);
    family_run(&other, m, threads, training, f->name);
    family_same(&k, &other, training > 0, "after calls that ended early", f->name);
    fl_model_free(m);
    release(f->name);
}

/* The splits that the problems below are planned with. */
static unsigned splits_of(const member *f, int layers, int directions, int64_t T, int64_t B, int threads)
{
    kin k = kin_of(f, FL_F32, layers, directions, T, B, 0);
    fl_model *m = family_model(&k, f->name);
    fl_plan forward, back;
    fl_plan_forward(m, T, B, threads, &forward);
    fl_plan_backward(m, T, B, threads, &back);
    fl_model_free(m);
    release(f->name);
    return 1u << forward.split | 1u << back.split;
}

static void test_stop_grid(int quick)
{
    static const member plain[] = {{"lstm", FL_CELL_LSTM, 50, 0, {.clip = 0}, 0},
                                   {"projected", FL_CELL_LSTM, 70, 20, {.clip = 0}, 0}};
    static const int shapes[][4] = {{1, 1, 20, 1}, {2, 2, 6, 1}, {2, 1, 7, 5}, {1, 2, 5, 2}, {2, 1, 2, 300}};
    unsigned splits = 0;
    for (int i = 0; i < 2 + FAMILY_COUNT; i++) {
        const member *f = i < 2 ? &plain[i] : &FAMILY[i - 2];
        for (int s = 0; s < 5; s++)
            for (int threads = 1; threads <= 4; threads *= 2) {
                if (quick ? (i + s) % 5 != 0 : i >= 2 && s == 4 && threads != 2) continue;
                const int *n = shapes[s], manner = (i + s + threads) % 3 ? FL_TEAM_PERSISTS : FL_TEAM_HALVES;
                splits |= splits_of(f, n[0], n[1], n[2], n[3], threads);
                stop_everywhere(f, n[0], n[1], n[2], n[3], (i + s) % 3, threads, manner);
            }
    }
    for (int split = FL_SPLIT_NONE; split <= FL_SPLIT_DIRECTIONS && fl_has_openmp(); split++)
        check(splits >> split & 1, "nothing above was split in way %d", split);
}

/* By way of BLAS: questions between its products and inside the recurrence; cut products give the same bits. */
static void test_stop_blas(int dtype, int directions)
{
    const problem p = make(dtype, 2, directions, (int[]){6, 19, 5, 9, 4}, DROPOUT);
    fl_gemm_force("blas");
    fl_model *m = model_of(&p);
    fl_gemm_force(NULL);
    given_blas = &PLAIN_BLAS;
    const result whole = forward(&p, m, 1, 1);
    const gradients expected = backward(&p, m, &whole, 1);
    fl_poll_force(1);
    for (int threads = 1; threads <= 2; threads++) {
        asking = (struct asking){.on = 1, .end_at = INT_MAX};
        const result cut = forward(&p, m, threads, 1);
        const int in_forward = asking.asked;
        const gradients found = backward(&p, m, &cut, threads);
        const int all = asking.asked;
        same_result(&whole, &cut, "BLAS in pieces", p.name);
        same_gradients(&expected, &found, "BLAS in pieces", p.name);
        check(in_forward > 20 && all > in_forward + 20, "asked %d and %d times", in_forward, all - in_forward);
        for (int i = 0; i < 10; i++) {
            asking = (struct asking){.on = 1, .end_at = i * in_forward / 10};
            forward(&p, m, threads, 1);
            asking = (struct asking){.on = 1, .end_at = i * (all - in_forward) / 10};
            backward(&p, m, &whole, threads);
            check(fl_teams_active() == 0, "threads still active");
        }
        asking = (struct asking){0};
    }
    fl_poll_force(0);
    given_blas = NULL;
    fl_model_free(m);
    release(p.name);
}

static void test_stop_dense(int dtype)
{
    enum { I = 40, O = 130, ROWS = 700 };
    const size_t unit = unit_of(dtype);
    const void *w = draw(dtype, O * I, 1), *x = draw(dtype, ROWS * I, 1), *dz = draw(dtype, ROWS * O, 1);
    void *y = take(ROWS * O * unit), *dw = take(O * I * unit), *db = take(O * unit);
    void *y2 = take(ROWS * O * unit), *dw2 = take(O * I * unit), *db2 = take(O * unit);
    fl_dense *dense = NULL;
    check(fl_dense_create(&dense, dtype, I, O, w, NULL, FL_ACT_TANH) == FL_OK, "dense");
    fl_dense_forward(dense, ROWS, x, y, 1);
    fl_dense_gradient(dtype, ROWS, O, I, dz, x, dw, db, 1);
    fl_poll_force(1);
    for (int threads = 1; threads <= 4; threads *= 2)
        for (int gradient = 0; gradient < 2; gradient++)
            for (int end_at = INT_MAX, i = 0; i < 6; i++, end_at = i) {
                asking = (struct asking){.on = 1, .end_at = end_at};
                const enum fl_status status =
                    gradient ? fl_dense_gradient_polled(dtype, ROWS, O, I, dz, x, dw2, db2, threads, ask, NULL)
                             : fl_dense_forward_polled(dense, ROWS, x, y2, threads, ask, NULL);
                const int ended = asking.asked > end_at;
                check(status == (ended ? FL_ERR_STOPPED : FL_OK), "dense: status %d", (int)status);
                check(asking.asked > 2 || ended, "dense: asked %d times", asking.asked);
                if (status != FL_OK) continue;
                same_bits(y, gradient ? y : y2, ROWS * O * unit, "y", "dense in pieces");
                same_bits(dw, gradient ? dw2 : dw, O * I * unit, "weight", "dense in pieces");
                same_bits(db, gradient ? db2 : db, O * unit, "bias", "dense in pieces");
            }
    asking = (struct asking){0};
    fl_poll_force(0);
    fl_dense_free(dense);
    release("dense that ends early");
}

/* The calling thread has nothing to do, and goes on asking while it waits: at the end of the call, at a barrier. */
typedef struct waiting {
    fl_stop stop;
    fl_barrier barrier;
    fl_judge judge;
    atomic_int saw;
    int meet;
} waiting;

static void wait_and_see(int worker, int workers, void *arg)
{
    waiting *w = arg;
    const int64_t begin = fl_now_ns();
    while (worker && !fl_stopped(&w->stop) && fl_now_ns() - begin < INT64_C(20000000000)) fl_nap(1000000);
    if (worker && fl_stopped(&w->stop)) atomic_fetch_add(&w->saw, 1);
    if (w->meet && fl_barrier_judge(&w->barrier, worker, workers, 1) > 0) atomic_store(&w->saw, -100);
}

static void begin_waiting(int workers, void *arg)
{
    waiting *w = arg;
    fl_judge_start(&w->judge, workers);
    fl_barrier_init(&w->barrier, workers, &w->judge);
    fl_barrier_stop(&w->barrier, &w->stop, 0);
}

static void test_stop_waiting(int meet)
{
    enum { WORKERS = 3 };
    waiting w = {.meet = meet};
    const fl_team_work work = {.fn = wait_and_see, .arg = &w, .begin = begin_waiting, .stop = &w.stop};
    asking = (struct asking){.on = 1, .end_at = 1};
    fl_stop_begin(&w.stop, ask, NULL);
    const int64_t begin = fl_now_ns();
    fl_team_do(WORKERS, &work);
    const double ms = (double)(fl_now_ns() - begin) / 1e6;
    asking = (struct asking){0};
    if (!fl_has_openmp()) return;
    check(atomic_load(&w.saw) == WORKERS - 1, "%d of %d workers saw the end", atomic_load(&w.saw), WORKERS - 1);
    check(ms >= 190 && ms < 10000, "two questions of a caller that waits took %.0f ms", ms);
}

/* Pieces are counted one by one or several at once. */
static void test_pace(void)
{
    fl_stop stop;
    fl_pace pace = fl_pace_of(fl_stop_begin(&stop, ask, NULL), 0, FL_LOOK_NS / 10.0);
    const int64_t every = pace.every, left = pace.left;
    check(every > 2 && left <= every, "a look after every %d pieces", (int)every);
    check(!fl_pace_step(&pace) && pace.left == left - 1, "one piece");
    check(fl_pace_more(&pace, 2) == 2 && pace.left == left - 3, "two more");
    check(fl_pace_more(&pace, 1000) == left - 4 && pace.left == 1, "as many as are left");
    check(fl_pace_more(&pace, 1000) == 0 && pace.left == 1, "none is left");
    check(!fl_pace_step(&pace) && pace.left == every, "a look, and all over again");
    pace = fl_pace_of(NULL, 0, 1);
    check(!fl_pace_step(&pace) && fl_pace_more(&pace, 5000) == 5000, "nobody asks");
}

/* Without fl_poll_force: a call that takes less than 100 ms never asks. */
static void test_stop_clock(void)
{
    const problem p = make(FL_F32, 1, 1, (int[]){3, 19, 0, 40, 2}, 0);
    fl_model *m = model_of(&p);
    asking = (struct asking){.on = 1, .end_at = 0};
    forward(&p, m, 1, 0);
    check(asking.asked == 0, "a call of some microseconds asked %d times", asking.asked);
    asking = (struct asking){0};
    check(fl_stop_begin(NULL, NULL, NULL) == NULL && !fl_stopped(NULL) && !fl_stop_look(NULL, 0, 1e9), "no poll");
    fl_model_free(m);
    release(p.name);
}

/* A poll runs in the floating-point state of whoever made the call, and leaves that of the engine alone. */
#ifdef ODD_FLOAT
static uint64_t state_in_poll;
static int note_state(void *data)
{
    (void)data;
    state_in_poll = float_state();
    return 0;
}
#endif

static void test_stop_float_state(void)
{
#ifdef ODD_FLOAT
    const problem p = make(FL_F32, 1, 1, (int[]){3, 19, 0, 4, 2}, 0);
    fl_model *m = model_of(&p);
    result usual = forward(&p, m, 1, 0), odd = prepare(&p, m, 1, 0);
    odd.call.poll = note_state;
    const uint64_t before = float_state();
    fl_poll_force(1);
    set_float_state(ODD_FLOAT_STATE);
    const enum fl_status status = fl_forward(m, &odd.call);
    set_float_state(before);
    fl_poll_force(0);
    check(status == FL_OK && state_in_poll == ODD_FLOAT_STATE, "a poll ran in state %llx", (long long)state_in_poll);
    same_result(&usual, &odd, "a poll in another rounding mode", p.name);
    fl_model_free(m);
    release(p.name);
#endif
}

static void test_stop(int quick)
{
    use_eager_machine();
    test_stop_grid(quick);
    for (int dtype = FL_F32; dtype <= FL_F64; dtype++) {
        test_stop_dense(dtype);
        for (int directions = 1; directions <= 2; directions++) test_stop_blas(dtype, directions);
    }
    check(fl_machine_set(NULL) == FL_OK, "the built-in machine");
    test_stop_clock();
    test_pace();
    test_stop_float_state();
    for (int meet = 0; meet < 2; meet++) test_stop_waiting(meet);
}

#endif
