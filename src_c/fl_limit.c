/* How many threads a call may use.  Only this file includes omp.h; only this file and fl_dispatch.c read the
 * environment.
 *
 * By default a call uses no more threads than there are processors that its thread may run on, than the container's
 * quota allows, and than OpenMP would use in its place.  More are used only where a number asks for them: the call's
 * own limit, fl_set_num_threads, FASTLSTM_NUM_THREADS.  fl_num_threads_here bounds all of these in one thread. */
#define _GNU_SOURCE
#include "fl_limit.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "fastlstm_experimental.h"

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#elif defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#elif defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#endif

typedef struct allowed {
    int threads;
    enum fl_bound bound; /* what made it so few */
} allowed;

static void lower(allowed *found, long threads, enum fl_bound bound)
{
    if (threads > found->threads) return;
    found->threads = threads < 1 ? 1 : (int)threads;
    found->bound = bound;
}

/* --- the default */

/* Processors that the calling thread may run on.  A process may change this at any time, so it is read when asked. */
static long processors(void)
{
#if defined(__linux__)
    enum { LARGER = 8 }; /* 8192 processors, the most that Linux is built for */
    cpu_set_t mask[LARGER];
    if (sched_getaffinity(0, sizeof mask[0], mask) == 0) return CPU_COUNT(mask);
    if (sched_getaffinity(0, sizeof mask, mask) == 0) return CPU_COUNT_S(sizeof mask, mask);
#endif
#if defined(_WIN32)
    return (long)GetActiveProcessorCount(ALL_PROCESSOR_GROUPS);
#elif defined(__unix__) || defined(__APPLE__)
    return sysconf(_SC_NPROCESSORS_ONLN);
#else
    return 1;
#endif
}

static atomic_int quota_read = -1; /* -1: not yet */
void fl_quota_force(int processors) { atomic_store(&quota_read, processors); }

/* Processors of the container's quota, 0: there is none.  Several files tell, so they are read once. */
static int quota(void)
{
    int found = atomic_load_explicit(&quota_read, memory_order_relaxed);
    if (found < 0) {
        found = fl_cgroup_quota("");
        atomic_store_explicit(&quota_read, found, memory_order_relaxed);
    }
    return found;
}

static void lower_as_openmp(allowed *found)
{
#ifdef _OPENMP
    lower(found, omp_get_thread_limit(), FL_BOUND_OPENMP);
    lower(found, omp_get_max_threads(), FL_BOUND_OPENMP);
    if (omp_in_parallel() && omp_get_active_level() >= omp_get_max_active_levels()) lower(found, 1, FL_BOUND_NESTED);
#else
    (void)found;
#endif
}

/* Of equal bounds the last one is named: OpenMP's own default is the affinity mask.  With `name` 0 only the number is
 * wanted, and the system call is left out where one thread is the limit already. */
static allowed default_limit(int name)
{
    allowed found = {FL_MOST_THREADS, FL_BOUND_MOST};
    lower_as_openmp(&found);
    const int available = quota();
    if (available) lower(&found, available, FL_BOUND_QUOTA);
    if (name || found.threads > 1) lower(&found, processors(), FL_BOUND_AFFINITY);
    return found;
}

/* --- what was asked for */

static atomic_int chosen;           /* by fl_set_num_threads; 0: nothing */
static atomic_int environment = -1; /* FASTLSTM_NUM_THREADS; 0: nothing; -1: not read, or not readable */
static _Thread_local int here;      /* by fl_num_threads_here; 0: nothing */

static int at_most(int threads) { return threads < 1 ? 0 : threads < FL_MOST_THREADS ? threads : FL_MOST_THREADS; }

/* -1 unless text is a number in 0..FL_MOST_THREADS; nothing counts as 0. */
static int parse(const char *text)
{
    int n = 0;
    for (; text && *text; text++) {
        if (*text < '0' || *text > '9') return -1;
        n = 10 * n + (*text - '0');
        if (n > FL_MOST_THREADS) return -1;
    }
    return n;
}

static int asked_by_environment(void)
{
    int n = atomic_load_explicit(&environment, memory_order_relaxed);
    if (n < 0) {
        n = parse(getenv("FASTLSTM_NUM_THREADS"));
        atomic_store_explicit(&environment, n, memory_order_relaxed);
    }
    return n;
}

static allowed current_limit(int name)
{
    if (!fl_has_openmp()) return (allowed){1, FL_BOUND_BUILD};
    if (here) return (allowed){here, FL_BOUND_HERE};
    const int set = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (set) return (allowed){set, FL_BOUND_SET};
    const int asked = asked_by_environment();
    return asked > 0 ? (allowed){asked, FL_BOUND_ENVIRONMENT} : default_limit(name);
}

int fl_has_openmp(void)
{
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

int fl_get_num_threads(void) { return current_limit(0).threads; }
void fl_set_num_threads(int n) { atomic_store(&chosen, at_most(n)); }

int fl_num_threads_here(int n)
{
    const int before = here;
    here = at_most(n);
    return before;
}

enum fl_status fl_num_threads_why(int *threads, int *bound)
{
    if (threads || bound) {
        const allowed found = current_limit(1);
        if (threads) *threads = found.threads;
        if (bound) *bound = found.bound;
    }
    return asked_by_environment() < 0 ? FL_ERR_THREADS : FL_OK;
}

int fl_team_limit(int limit)
{
    const int own = at_most(limit);
    if (!own || !fl_has_openmp()) return fl_get_num_threads();
    return here && here < own ? here : own;
}
