/* Threads.  The only file that includes omp.h, and with fl_dispatch.c the only one that reads the environment.
 *
 * - One parallel region per call; its size is bounded by what other calls of this process already use, so that many
 *   application threads do not multiply into many more workers.  Results do not depend on the size.
 * - Before fork() the forking thread's workers are sent home (a child would wait for threads it does not have).
 * - Default size: the affinity mask, or the container's processor quota where that is less.
 */
#define _GNU_SOURCE
#include "fl_team.h"

#include <stdint.h>
#include <stdlib.h>

#include "fastlstm.h"
#include "fl_places.h"

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__linux__)
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <unistd.h>
#elif defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

/* --- floating-point state */

#if defined(__x86_64__) || defined(_M_X64)
enum { FLOAT_STATE = 0x1f80 | 0x8040 }; /* exceptions masked, round to nearest; flush-to-zero, denormals-are-zero */
unsigned fl_float_enter(void)
{
    const unsigned saved = _mm_getcsr();
    _mm_setcsr(FLOAT_STATE);
    return saved;
}
void fl_float_leave(unsigned saved) { _mm_setcsr(saved); }
#elif defined(__aarch64__) && defined(__GNUC__)
enum { FLOAT_STATE = 1 << 24 }; /* FPCR.FZ, round to nearest */
unsigned fl_float_enter(void)
{
    uint64_t saved;
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)FLOAT_STATE));
    return (unsigned)saved;
}
void fl_float_leave(unsigned saved) { __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)saved)); }
#else
unsigned fl_float_enter(void) { return 0; }
void fl_float_leave(unsigned saved) { (void)saved; }
#endif

/* --- how many */

#if defined(__linux__)
static long read_number(const char *path, long *second)
{
    char text[64];
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return -1;
    const ssize_t n = read(file, text, sizeof text - 1);
    close(file);
    if (n <= 0) return -1;
    text[n] = 0;
    char *end;
    const long first = strtol(text, &end, 10);
    if (end == text) return -1; /* "max": no quota */
    if (second) *second = strtol(end, NULL, 10);
    return first;
}

/* Processors the container may use, rounded up; 0: no quota. */
static long quota(void)
{
    long period = 0, time = read_number("/sys/fs/cgroup/cpu.max", &period);
    if (time <= 0 || period <= 0) {
        time = read_number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", NULL);
        period = read_number("/sys/fs/cgroup/cpu/cpu.cfs_period_us", NULL);
    }
    return time > 0 && period > 0 ? (time + period - 1) / period : 0;
}
#endif

static int processors(void)
{
    long n = 1;
#if defined(__linux__)
    cpu_set_t mask;
    n = sched_getaffinity(0, sizeof mask, &mask) == 0 ? CPU_COUNT(&mask) : sysconf(_SC_NPROCESSORS_ONLN);
    const long limit = quota();
    if (limit > 0 && limit < n) n = limit;
#elif defined(__APPLE__)
    n = sysconf(_SC_NPROCESSORS_ONLN);
#elif defined(_WIN32)
    n = (long)GetActiveProcessorCount(ALL_PROCESSOR_GROUPS);
#endif
    return n < 1 ? 1 : n > 1024 ? 1024 : (int)n;
}

static atomic_int default_threads; /* 0: not asked yet */
static atomic_int chosen_threads;  /* 0: the default */
static atomic_int threads_active;  /* inside calls right now */

int fl_has_openmp(void)
{
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

int fl_get_num_threads(void)
{
    const int chosen = atomic_load(&chosen_threads);
    if (chosen) return chosen;
    int n = atomic_load(&default_threads);
    if (!n) {
        const char *text = getenv("FASTLSTM_NUM_THREADS");
        const int wish = text ? atoi(text) : 0;
        n = wish > 0 ? wish : processors();
        atomic_store(&default_threads, n);
    }
    return n;
}

void fl_set_num_threads(int n) { atomic_store(&chosen_threads, n > 0 ? n : 0); }
int fl_teams_active(void) { return atomic_load(&threads_active); }

int fl_team_limit(int limit)
{
#ifdef _OPENMP
    return limit > 0 ? limit : fl_get_num_threads();
#else
    (void)limit;
    return 1;
#endif
}

/* --- run */

static void run_worker(int worker, int workers, fl_team_fn fn, void *arg, fl_places *places)
{
    if (worker > 0) fl_places_take(places, worker);
    const unsigned saved = fl_float_enter();
    fn(worker, workers, arg);
    fl_float_leave(saved);
}

#ifdef _OPENMP
#if defined(__unix__) || defined(__APPLE__)
static atomic_int team_used;

static void before_fork(void)
{
    /* frees the forking thread's pool; other threads do not exist in the child, and neither does their pool's use */
    if (atomic_load(&team_used) && !omp_in_parallel()) omp_pause_resource_all(omp_pause_soft);
}
static void in_child(void) { atomic_store(&threads_active, 0); }
static void register_fork_handlers(void) { pthread_atfork(before_fork, NULL, in_child); }

static void prepare_team(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_fork_handlers);
    atomic_store(&team_used, 1);
}
#else
static void prepare_team(void) {}
#endif

/* Of `wanted` threads, those that no other call uses; at least the caller itself. */
static int reserve(int wanted)
{
    if (wanted > 1 && fl_stalled_lately()) wanted = 1;
    const int own = fl_get_num_threads();
    const int capacity = wanted > own ? wanted : own;
    int used = atomic_load(&threads_active), get;
    do {
        const int free = capacity - used;
        get = free < 1 ? 1 : free < wanted ? free : wanted;
    } while (!atomic_compare_exchange_weak(&threads_active, &used, used + get));
    return get;
}

void fl_team_run(int wanted, fl_team_fn fn, void *arg)
{
    const int n = reserve(wanted < 1 ? 1 : wanted);
    if (n == 1) {
        run_worker(0, 1, fn, arg, NULL);
    } else {
        fl_places places;
        fl_places_begin(&places, n);
        fl_places_take(&places, 0);
        prepare_team();
#pragma omp parallel num_threads(n)
        run_worker(omp_get_thread_num(), omp_get_num_threads(), fn, arg, &places);
    }
    atomic_fetch_sub(&threads_active, n);
}
#else
void fl_team_run(int wanted, fl_team_fn fn, void *arg)
{
    (void)wanted;
    run_worker(0, 1, fn, arg, NULL);
}
#endif
