/* Teams judged by their speed: the rule, and what the process remembers from call to call. */
#include "fl_judge.h"

#include <stdatomic.h>

#include "fastlstm_experimental.h"
#include "fl_wait.h"

static const double WORST_RATIO = 2;   /* a window counts as at most so many of what was to be beaten */
static const double MOST_EXCESS = 6;   /* at which a team is halved */
static const double AS_FAST_AS = 4;    /* workers whose ideal speed a larger team must reach */
static const double REPAY = 16;        /* a pause is at least so many times what the team has lost */
static const double LEAST_FIX = 0.25, MOST_FIX = 4;
static const double LEAST_SOLO_NS = 50000; /* of planned work on one thread, from which its time says something */
enum { SHORT_PAUSE_NS = 2000000, LONG_PAUSE_NS = 64000000, LONGEST_REPAYING_NS = 1000000000 };

static atomic_int manner; /* enum fl_team_manner, for tests */
void fl_team_force(int how) { atomic_store(&manner, how); }

/* --- the rule */

static void halve(fl_judge *j)
{
    j->workers = j->workers > 2 ? j->workers / 2 : 1;
    j->fell_ns = j->lost_ns;
    j->fell_at = j->planned;
    j->excess = j->lost_ns = 0;
}

/* A full window. */
static int judge_window(fl_judge *j)
{
    const double ideal = AS_FAST_AS / j->workers, aim = j->one_ns * (ideal < 1 ? ideal : 1);
    const double ratio = j->team_ns / aim, excess = j->excess + (ratio < WORST_RATIO ? ratio : WORST_RATIO) - 1;
    const double lost = j->lost_ns + j->team_ns - aim;
    j->excess = excess > 0 ? excess : 0;
    j->lost_ns = excess > 0 && lost > 0 ? lost : 0;
    j->team_ns = j->one_ns = 0;
    if (j->excess < MOST_EXCESS - 1e-9) return 0;
    halve(j);
    return 1;
}

int fl_judge_step(fl_judge *j, double plan_ns, double team_ns)
{
    j->planned += plan_ns;
    j->one_ns += plan_ns * j->fix;
    j->team_ns += team_ns;
    if (j->workers > 1 && j->one_ns >= FL_WINDOW_NS) judge_window(j);
    return j->workers;
}

void fl_judge_replay(int workers, double one_ns, const double *step_ns, int64_t steps, int32_t *sizes)
{
    fl_judge j = {.workers = workers, .fix = 1};
    if (!step_ns || !sizes) return;
    for (int64_t i = 0; i < steps; i++) sizes[i] = fl_judge_step(&j, one_ns, step_ns[i]);
}

int fl_judge_work(fl_judge *j, double plan_ns, int late)
{
    j->planned += plan_ns;
    j->one_ns += plan_ns * j->fix;
    if (j->workers == 1) return 1;
    if (j->deaf) {
        const int how = atomic_load_explicit(&manner, memory_order_relaxed);
        if (how == FL_TEAM_GIVES_UP) j->workers = 1;
        if (how == FL_TEAM_HALVES) j->workers = j->workers > 2 ? j->workers / 2 : 1;
        return j->workers;
    }
    if (j->one_ns < FL_WINDOW_NS && !(late && j->one_ns > 0)) return j->workers;
    const int64_t now = fl_now_ns();
    j->team_ns += (double)(now - j->last);
    j->last = now;
    if (judge_window(j)) j->fell = now;
    return j->workers;
}

/* --- from call to call
 *
 * A table of records by key.  Two kinds of calls may share a record's place: the later one takes it, and the other
 * begins anew, which costs it some windows.  A record that another call is reading or writing at that moment is left
 * alone: the call judges by itself, and what it learns is lost. */

typedef struct fl_record {
    atomic_flag busy;
    fl_judge_key key;
    double fix; /* 0: not learnt yet */
    double team_ns, one_ns, excess, lost_ns; /* where the last call left off, with a team of `size` */
    int size;
    int calls;     /* the first counts for nothing: it touches new memory and starts threads */
    int few;       /* workers to take until ... */
    int64_t until; /* ns; 0: there was no pause yet */
    int64_t pause; /* ns: the last one */
} fl_record;
enum { RECORDS = 256 };
static fl_record record_of[RECORDS];

fl_judge_key fl_judge_mix(fl_judge_key key, int64_t value)
{
    key = (key ^ (uint64_t)value) * UINT64_C(0x9e3779b97f4a7c15);
    return key ^ (key >> 29);
}

static fl_record *open_record(fl_judge_key key)
{
    fl_record *r = &record_of[key % RECORDS];
    return atomic_flag_test_and_set_explicit(&r->busy, memory_order_acquire) ? 0 : r;
}

static void close_record(fl_record *r) { atomic_flag_clear_explicit(&r->busy, memory_order_release); }

void fl_judge_start(fl_judge *j, int workers)
{
    *j = (fl_judge){.workers = workers, .asked = workers, .fix = 1, .last = fl_now_ns()};
    j->deaf = atomic_load_explicit(&manner, memory_order_relaxed) != FL_TEAM_ADAPTS;
}

void fl_judge_begin(fl_judge *j, fl_judge_key key, int wanted)
{
    fl_judge_start(j, wanted);
    fl_record *r = j->deaf ? 0 : open_record(key);
    if (!r) return;
    if (r->key == key) {
        if (r->fix > 0) j->fix = r->fix;
        if (r->until && j->last < r->until && r->few < wanted) j->workers = j->asked = r->few;
        if (r->size == j->workers) {
            j->team_ns = r->team_ns;
            j->one_ns = r->one_ns;
            j->excess = r->excess;
            j->lost_ns = r->lost_ns;
        }
    }
    close_record(r);
}

/* How long one thread took for what it did alone, beside the plan: the whole first time, then a quarter of the news. */
static void learn(fl_record *r, double measured_ns, double planned_ns)
{
    if (planned_ns < LEAST_SOLO_NS) return;
    const double found = measured_ns / planned_ns;
    const double news = found < LEAST_FIX ? LEAST_FIX : found > MOST_FIX ? MOST_FIX : found;
    r->fix = r->fix > 0 ? r->fix + (news - r->fix) / 4 : news;
}

static void pause_team(fl_record *r, const fl_judge *j)
{
    const int64_t longer = 2 * r->pause < LONG_PAUSE_NS ? 2 * r->pause : LONG_PAUSE_NS;
    r->pause = r->until && j->fell < r->until + 2 * r->pause ? longer : SHORT_PAUSE_NS;
    const double repaid = REPAY * j->fell_ns, least = (double)r->pause;
    const double longer_ns = repaid < LONGEST_REPAYING_NS ? repaid : LONGEST_REPAYING_NS;
    const double pause = longer_ns > least ? longer_ns : least;
    r->few = j->workers;
    r->until = j->fell + (int64_t)pause;
}

void fl_judge_end(fl_judge *j, fl_judge_key key, double plan_ns)
{
    if (j->deaf) return;
    const int64_t now = fl_now_ns();
    fl_record *r = open_record(key);
    if (!r) return;
    if (r->key != key) {
        r->key = key;
        r->fix = 0;
        r->calls = r->few = 0;
        r->until = r->pause = 0;
    }
    if (j->fell) pause_team(r, j);
    const int alone = j->workers == 1 && (j->fell || j->asked == 1);
    if (alone && r->calls > 0)
        learn(r, (double)(now - (j->fell ? j->fell : j->last)), plan_ns - (j->fell ? j->fell_at : 0));
    r->team_ns = j->team_ns + (double)(now - j->last);
    r->one_ns = j->one_ns;
    r->excess = j->excess;
    r->lost_ns = j->lost_ns;
    r->size = j->workers;
    r->calls += r->calls < 1;
    close_record(r);
}
