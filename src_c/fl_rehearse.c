/* A team at work that is sleep: for tests and measurement on machines with fewer processors than workers. */
#include "fastlstm_experimental.h"
#include "fl_team.h"

#if defined(__linux__)
#include <sys/prctl.h>
#endif

typedef struct fl_rehearsal {
    int64_t steps;
    double one_ns;
    int64_t *step_ns;
    int32_t *sizes;
    fl_judge judge;
    fl_barrier barrier;
} fl_rehearsal;

/* Linux lets sleepers of a thread wake late by its slack, by which it saves wakes.  Returns the slack before. */
static int set_slack(int ns)
{
#if defined(__linux__)
    const int before = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
    prctl(PR_SET_TIMERSLACK, (unsigned long)ns, 0, 0, 0);
    return before;
#else
    return ns;
#endif
}

static void rehearse_steps(fl_rehearsal *r, int worker, int workers)
{
    int64_t last = fl_now_ns();
    for (int64_t i = 0; i < r->steps; i++) {
        fl_nap((int64_t)(r->one_ns / workers));
        if (workers > 1) workers = fl_barrier_judge(&r->barrier, worker, workers, r->one_ns);
        if (worker >= workers) return;
        if (worker) continue;
        const int64_t now = fl_now_ns();
        if (r->step_ns) r->step_ns[i] = now - last;
        if (r->sizes) r->sizes[i] = workers;
        last = now;
    }
}

static void rehearse_worker(int worker, int workers, void *arg)
{
    const int slack = set_slack(1);
    rehearse_steps(arg, worker, workers);
    set_slack(slack);
}

static void rehearse_begin(int workers, void *arg)
{
    fl_rehearsal *r = arg;
    fl_judge_start(&r->judge, workers);
    fl_barrier_init(&r->barrier, workers, &r->judge);
}

enum fl_status fl_rehearse(int workers, int64_t steps, double one_ns, int64_t *step_ns, int32_t *sizes)
{
    if (workers < 1 || workers > FL_MOST_THREADS || steps < 0) return FL_ERR_ARGUMENT;
    if (!(one_ns >= 0 && one_ns < 1e12)) return FL_ERR_ARGUMENT;
    fl_rehearsal r = {.steps = steps, .one_ns = one_ns, .step_ns = step_ns, .sizes = sizes};
    const fl_team_work work = {.fn = rehearse_worker, .arg = &r, .begin = rehearse_begin};
    fl_team_do(workers, &work);
    return FL_OK;
}
