/* Teams: workers meet, leave and are sent away, and large ones hold where some of them lose time. */
#ifndef C_ENGINE_TEAMS_INC_H
#define C_ENGINE_TEAMS_INC_H

#include "fl_team.h"

/* --- barriers: nobody goes on before all have come */

enum { MEETINGS = 200, MOST_HERE = 70 };
typedef struct meeting_point {
    fl_barrier barrier;
    fl_judge judge;
    int rounds[MOST_HERE]; /* each written by its worker, read by others after a barrier */
    atomic_int wrong, came;
    int halve_at; /* 0: never */
} meeting_point;

static void meet_again(int worker, int workers, void *arg)
{
    meeting_point *m = arg;
    atomic_fetch_add(&m->came, 1);
    for (int round = 1; round <= MEETINGS; round++) {
        m->rounds[worker] = round;
        if (round % 2) {
            fl_barrier_wait(&m->barrier, worker, workers);
        } else {
            /* the last to come sends half of them away: the judge is asked once a round, with everybody there */
            if (worker == 0 && m->halve_at && round % m->halve_at == 0) fl_team_force(FL_TEAM_HALVES);
            fl_barrier_wait(&m->barrier, worker, workers);
            const int left = fl_barrier_judge(&m->barrier, worker, workers, 1);
            if (worker >= left) return; /* a late one may see that even fewer are left by now */
            if (left != workers && left != (workers > 2 ? workers / 2 : 1)) atomic_fetch_add(&m->wrong, 1);
            workers = left;
            fl_barrier_wait(&m->barrier, worker, workers);
            if (worker == 0) fl_team_force(FL_TEAM_PERSISTS);
        }
        for (int i = 0; i < workers; i++)
            if (m->rounds[i] != round) atomic_fetch_add(&m->wrong, 1);
        fl_barrier_wait(&m->barrier, worker, workers);
    }
}

static void begin_meeting(int workers, void *arg)
{
    meeting_point *m = arg;
    fl_judge_start(&m->judge, workers);
    fl_barrier_init(&m->barrier, workers, &m->judge);
}

static void test_barrier(int workers, int halve_at)
{
    meeting_point m = {.halve_at = halve_at};
    const fl_team_work work = {.fn = meet_again, .arg = &m, .begin = begin_meeting};
    fl_team_force(FL_TEAM_PERSISTS);
    fl_team_do(workers, &work);
    fl_team_force(FL_TEAM_ADAPTS);
    check(atomic_load(&m.wrong) == 0, "%d workers, halved every %d rounds: %d times not together", workers, halve_at,
          atomic_load(&m.wrong));
    check(atomic_load(&m.came) == (fl_has_openmp() ? workers : 1), "%d of %d workers came", atomic_load(&m.came),
          workers);
}

/* --- the pool: one worker many times, many callers at once */

static void count_one(int worker, int workers, void *arg)
{
    (void)worker;
    (void)workers;
    atomic_fetch_add((atomic_int *)arg, 1);
}

static void *run_small_teams(void *arg)
{
    for (int i = 0; i < 2000; i++) {
        atomic_int came = 0;
        fl_team_run(2 + i % 3, count_one, &came);
        const int n = atomic_load(&came);
        if (n < 1 || n > 2 + i % 3) atomic_fetch_add((atomic_int *)arg, 1);
    }
    return NULL;
}

static void test_pool(void)
{
    enum { CALLERS = 4 };
    pthread_t threads[CALLERS];
    atomic_int wrong = 0;
    for (int i = 0; i < CALLERS; i++) pthread_create(&threads[i], NULL, run_small_teams, &wrong);
    for (int i = 0; i < CALLERS; i++) pthread_join(threads[i], NULL);
    check(atomic_load(&wrong) == 0, "%d teams of a wrong size", atomic_load(&wrong));
    check(fl_teams_active() == 0, "%d threads still counted as active", fl_teams_active());
}

/* --- the judge: what it remembers from call to call.  Times are given by the clock, so work is planned to fit: work
 * planned at a nanosecond is always late, and work planned at a second never. */

static int asked_for(fl_judge_key key, int wanted)
{
    fl_judge j;
    fl_judge_begin(&j, key, wanted);
    return j.workers;
}

static void one_call(fl_judge_key key, int wanted, int windows, double team_ns, fl_judge *j)
{
    fl_judge_begin(j, key, wanted);
    for (int i = 0; i < windows; i++) {
        const int before = j->workers;
        if (fl_judge_step(j, FL_WINDOW_NS, team_ns) < before) j->fell = fl_now_ns();
    }
}

static void test_judge_memory(void)
{
    const fl_judge_key slow = fl_judge_mix(fl_judge_mix(0, 1), 77), other = fl_judge_mix(slow, 5);
    fl_judge j;
    check(slow != other && fl_judge_mix(0, 2) != fl_judge_mix(0, 3), "keys");
    one_call(slow, 8, 6, 1e6, &j);
    check(j.workers == 4, "8 workers at a tenth of one's speed: %d after 6 windows", j.workers);
    fl_judge_end(&j, slow, 6 * FL_WINDOW_NS);
    check(asked_for(slow, 8) == 4, "%d workers right after a team of 8 was halved", asked_for(slow, 8));
    check(asked_for(other, 8) == 8, "another kind of call knows nothing of it");
    fl_nap(200000000); /* the team lost 6 ms, and a pause is 16 times that */
    check(asked_for(slow, 8) == 8, "%d workers after the pause", asked_for(slow, 8));

    const fl_judge_key carried = fl_judge_mix(slow, 9); /* two short calls count like a long one */
    one_call(carried, 2, 3, 1e6, &j);
    check(j.workers == 2 && j.excess == 3, "excess %g after three bad windows", j.excess);
    fl_judge_end(&j, carried, 3 * FL_WINDOW_NS);
    one_call(carried, 2, 3, 1e6, &j);
    check(j.workers == 1, "six bad windows in two calls: %d workers", j.workers);
    fl_judge_end(&j, carried, 3 * FL_WINDOW_NS);

    /* in the pause one thread runs alone, and takes twice of what was planned */
    fl_judge_begin(&j, carried, 2);
    check(j.workers == 1, "the pause of a team of two is one thread's");
    fl_nap(4000000);
    fl_judge_end(&j, carried, 2000000);
    fl_judge_begin(&j, carried, 2);
    check(j.fix > 1.9 && j.fix <= 4, "one thread took twice the plan: %g", j.fix);
}

/* Random workers lose time at random steps: the team holds while it is ahead, and loses no more than it must. */
static void test_noise(int workers)
{
    enum { STEPS = 60, LATE_STEPS = 26, ONE_US = 8000, MOST_TRIES = 5 }; /* 16 are halved four times */
    static int32_t delay_us[STEPS * 16];
    static int64_t quiet_ns[STEPS], noisy_ns[STEPS];
    int32_t sizes[STEPS];
    int64_t next[16] = {0};
    unsigned state = 12345u + (unsigned)workers;
    double least = 0;
    memset(delay_us, 0, sizeof delay_us);
    for (int i = 0; i < STEPS; i++) {
        state = state * 1664525u + 1013904223u;
        if ((state >> 24) % 8) continue;
        const int32_t us = 100 + (int32_t)((state >> 8) % 4900);
        delay_us[i * workers + (int)((state >> 16) % (unsigned)workers)] = us;
        least += us;
    }
    const fl_disturbance noise = {delay_us, STEPS, workers, next};
    double quiet = 0, noisy = 0;
    int held = 1, few = 0;
    for (int tries = 0; tries < MOST_TRIES && !(few && held); tries++) { /* other programs delay workers, too */
        quiet = noisy = 0;
        fl_rehearse(workers, STEPS, ONE_US * 1e3, quiet_ns, NULL);
        memset(next, 0, sizeof next);
        fl_team_disturb(&noise);
        fl_rehearse(workers, STEPS, ONE_US * 1e3, noisy_ns, sizes);
        fl_team_disturb(NULL);
        for (int i = 0; i < STEPS; i++) {
            quiet += (double)quiet_ns[i] / 1e3;
            noisy += (double)noisy_ns[i] / 1e3;
        }
        held = sizes[STEPS - 1] == workers;
        few = noisy - quiet <= 1.2 * least;
    }
    check(held, "%d workers, some late: %d at last", workers, sizes[STEPS - 1]);
    check(few, "%d workers lost %.0f us to delays of %.0f us", workers, noisy - quiet, least);

    for (int i = 0; i < STEPS * workers; i++) delay_us[i] = i % workers ? 0 : 3 * ONE_US; /* never ahead */
    memset(next, 0, sizeof next);
    fl_team_disturb(&noise);
    fl_rehearse(workers, LATE_STEPS, ONE_US * 1e3, NULL, sizes);
    fl_team_disturb(NULL);
    check(sizes[5] == (workers > 2 ? workers / 2 : 1) && sizes[LATE_STEPS - 1] == 1,
          "%d workers that are always late: %d after six steps, %d at last", workers, sizes[5], sizes[LATE_STEPS - 1]);
}

static void test_teams(int quick)
{
    const int sizes[] = {1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 20, 33, 64};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes && sizes[i] <= (quick ? 17 : 64); i++) {
        test_barrier(sizes[i], 0);
        test_barrier(sizes[i], 40);
    }
    test_pool();
    test_judge_memory();
    for (int n = 2; n <= 16 && fl_has_openmp() && !quick; n *= 2) test_noise(n);
}

#endif
