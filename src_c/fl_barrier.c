/* Workers waiting for each other: see fl_barrier.h. */
#include "fl_barrier.h"

#include "fastlstm_experimental.h"

/* --- disturbances, for tests and measurement: what a barrier does to a worker before it counts as having come */

static _Atomic(const fl_disturbance *) disturbance;

void fl_team_disturb(const fl_disturbance *d)
{
    const int whole = d && d->delay_us && d->next && d->steps > 0 && d->workers > 0;
    atomic_store(&disturbance, whole ? d : NULL);
}

static void disturb(int worker)
{
    const fl_disturbance *d = atomic_load_explicit(&disturbance, memory_order_acquire);
    if (!d || worker >= d->workers) return;
    const int64_t step = d->next[worker]++;
    if (step >= d->steps) return;
    const int64_t us = d->delay_us[step * d->workers + worker];
    if (us > 0) fl_nap(us * 1000);
}

/* --- arriving */

/* The smallest number from 4 on whose square is not below n; there are at most so many groups, and never more than of a
 * larger n. */
static int group_size(int n)
{
    int size = 4;
    while (size * size < n) size++;
    return size;
}

void fl_barrier_init(fl_barrier *b, int most, fl_judge *judge)
{
    const int size = group_size(most);
    b->groups = (most + size - 1) / size;
    for (int i = 0; i < b->groups; i++) {
        atomic_init(&b->group[i].arrived, 0);
        atomic_init(&b->group[i].round, 0);
    }
    atomic_init(&b->groups_arrived, 0);
    atomic_init(&b->workers, most);
    b->judge = judge;
    b->stop = NULL;
    b->asker = -1;
    atomic_init(&b->late, 0);
    b->half[0] = b->half[1] = NULL;
}

/* A worker that was sent away may read this late, when even fewer are left. */
static int left_of(fl_barrier *b) { return atomic_load_explicit(&b->workers, memory_order_relaxed); }

void fl_barrier_shrink(fl_barrier *b, int workers)
{
    atomic_store_explicit(&b->workers, workers, memory_order_relaxed);
    b->judge->workers = workers;
}

/* How many go on, as the last to arrive decides: it sees the flag of a stop if any worker saw it before it came.  The
 * two halves of a team go on with equal numbers. */
static int decide(fl_barrier *b, int workers, double plan_ns)
{
    int left = workers;
    if (fl_stopped(b->stop)) return 0;
    if (b->half[0]) {
        const int first = left_of(b->half[0]), second = left_of(b->half[1]);
        const int least = first < second ? first : second;
        for (int i = 0; i < 2; i++) fl_barrier_shrink(b->half[i], least);
        left = 2 * least;
        if (b->judge) b->judge->workers = left;
        if (left > 2) return left; /* else the halves have no barriers of their own, and no judge */
        if (b->judge && workers > 2) { /* from here on it is the team's judge that looks */
            b->judge->last = fl_now_ns();
            b->judge->planned += b->half[0]->judge->planned + b->half[1]->judge->planned;
        }
    }
    if (!b->judge || left <= 1) return left;
    int late = atomic_load_explicit(&b->late, memory_order_relaxed);
    if (late) atomic_store_explicit(&b->late, 0, memory_order_relaxed);
    if (b->asker >= 0 && b->stop && atomic_load_explicit(&b->stop->asked_ns, memory_order_relaxed)) {
        const int64_t now = fl_now_ns(), asked = atomic_exchange_explicit(&b->stop->asked_ns, 0, memory_order_relaxed);
        b->judge->last = now - b->judge->last < asked ? now : b->judge->last + asked;
        late = 0; /* the others have waited for the caller's answer */
    }
    return fl_judge_work(b->judge, plan_ns, late);
}

/* Where a worker comes to. */
typedef struct fl_gate {
    int group, groups, members; /* members: of this group */
} fl_gate;

static fl_gate gate_of(int worker, int workers)
{
    if (workers <= 4) return (fl_gate){0, 1, workers}; /* most teams, without a division */
    const int size = group_size(workers), groups = (workers + size - 1) / size, group = worker / size;
    return (fl_gate){group, groups, group < groups - 1 ? size : workers - group * size};
}

/* Whether this worker is the last of all. */
static int arrive(fl_barrier *b, const fl_gate *at)
{
    atomic_int *const arrived = &b->group[at->group].arrived;
    if (atomic_fetch_add_explicit(arrived, 1, memory_order_acq_rel) != at->members - 1) return 0;
    atomic_store_explicit(arrived, 0, memory_order_relaxed);
    if (at->groups == 1) return 1;
    if (atomic_fetch_add_explicit(&b->groups_arrived, 1, memory_order_acq_rel) != at->groups - 1) return 0;
    atomic_store_explicit(&b->groups_arrived, 0, memory_order_relaxed);
    return 1;
}

static void let_go(fl_barrier *b, unsigned round)
{
    for (int i = 0; i < b->groups; i++) atomic_store_explicit(&b->group[i].round, round + 1, memory_order_release);
}

/* --- waiting */

/* After the spins: offers the processor to others, then dozes.  A worker does not sleep until it is woken, since waking
 * takes longer than a step: then all would sleep at every step. */
static void wait_long(fl_barrier *b, int worker, int group, unsigned round)
{
    enum { YIELD_NS = 500000 };
    const int64_t begin = fl_now_ns();
    int64_t waited = 0;
    while (atomic_load_explicit(&b->group[group].round, memory_order_acquire) == round) {
        if (waited < YIELD_NS)
            fl_yield();
        else
            fl_doze();
        if (worker == b->asker) fl_stop_wait(b->stop);
        waited = fl_now_ns() - begin;
    }
    if (waited > FL_LATE_NS) atomic_store_explicit(&b->late, 1, memory_order_relaxed);
}

static void await_round(fl_barrier *b, int worker, int group, unsigned round)
{
    enum { SPINS = 1000 }; /* about 20-40 us: longer than a well-balanced step, shorter than a time slice */
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&b->group[group].round, memory_order_acquire) != round) return;
        fl_relax();
    }
    wait_long(b, worker, group, round);
}

void fl_barrier_wait(fl_barrier *b, int worker, int workers)
{
    if (workers <= 1) return;
    const fl_gate at = gate_of(worker, workers);
    const unsigned round = atomic_load_explicit(&b->group[at.group].round, memory_order_relaxed);
    if (arrive(b, &at))
        let_go(b, round);
    else
        await_round(b, worker, at.group, round);
}

int fl_barrier_judge(fl_barrier *b, int worker, int workers, double plan_ns)
{
    if (workers <= 1) return workers;
    if (atomic_load_explicit(&disturbance, memory_order_relaxed)) disturb(worker);
    const fl_gate at = gate_of(worker, workers);
    const unsigned round = atomic_load_explicit(&b->group[at.group].round, memory_order_relaxed);
    if (arrive(b, &at)) {
        atomic_store_explicit(&b->workers, decide(b, workers, plan_ns), memory_order_relaxed);
        let_go(b, round);
    } else {
        await_round(b, worker, at.group, round);
        /* where some leave, others come back by another group: not before the last to arrive has let all groups go */
        for (int i = 0; i < b->groups && left_of(b) != workers; i++) await_round(b, worker, i, round);
    }
    return left_of(b);
}

void fl_barrier_leave(fl_barrier *b, int worker, int workers)
{
    const fl_gate at = gate_of(worker, workers);
    const unsigned round = atomic_load_explicit(&b->group[at.group].round, memory_order_relaxed);
    if (arrive(b, &at)) {
        atomic_store_explicit(&b->workers, decide(b, workers, 0), memory_order_relaxed);
        let_go(b, round);
    }
}
