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
#include <time.h>

#include "fastlstm.h"

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__linux__)
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <sched.h>
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

/* --- barrier */

static void relax(void)
{
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
    __asm__ volatile("yield");
#endif
}

static void yield_processor(void)
{
#if defined(_WIN32)
    SwitchToThread();
#elif defined(__unix__) || defined(__APPLE__)
    sched_yield();
#endif
}

static int64_t now_ns(void)
{
#if defined(_WIN32)
    return (int64_t)GetTickCount64() * 1000000;
#else
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
#endif
}

static void doze(void)
{
#if defined(_WIN32)
    Sleep(1);
#else
    nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
#endif
}

/* Calls stay on one thread for a while after a stall, longer after each further one: where others keep the processors
 * busy, the half millisecond that a stall costs is paid every 16 ms at most; where it was a hiccup, little is lost. */
enum { STALL_NS = 500000, SHORT_PAUSE_MS = 2, LONG_PAUSE_MS = 16 };
static _Atomic int64_t alone_until;
static atomic_int pause_ms = SHORT_PAUSE_MS;

static atomic_int manner; /* enum fl_team_manner, for tests */
void fl_team_force(int how) { atomic_store(&manner, how); }

static void note_stall(void)
{
    const int pause = atomic_load(&pause_ms);
    atomic_store(&alone_until, now_ns() + pause * INT64_C(1000000));
    atomic_store(&pause_ms, pause * 2 > LONG_PAUSE_MS ? LONG_PAUSE_MS : pause * 2);
}

void fl_barrier_init(fl_barrier *barrier, int patient)
{
    atomic_init(&barrier->arrived, 0);
    atomic_init(&barrier->stalled, 0);
    atomic_init(&barrier->round, 0);
    atomic_init(&barrier->lost, 0);
    barrier->born = patient ? 0 : now_ns();
    barrier->solo = 0;
    barrier->patient = patient;
}

/* After the spins: offer the processor to others, then sleep.  A complaint is due when half a millisecond and a quarter
 * of the time since the call began went that way: balanced steps do not come here, uneven ones not for long. */
static void wait_long(fl_barrier *barrier, unsigned round)
{
    const int64_t start = now_ns();
    int64_t last = start;
    while (atomic_load_explicit(&barrier->round, memory_order_acquire) == round) {
        if (last - start < STALL_NS)
            yield_processor(); /* comes back at once when nobody else wants it */
        else
            doze();
        const int64_t now = now_ns();
        const int64_t lost = atomic_fetch_add_explicit(&barrier->lost, now - last, memory_order_relaxed) + now - last;
        if (lost > STALL_NS && lost > (now - barrier->born) / 4)
            atomic_store_explicit(&barrier->stalled, 1, memory_order_relaxed);
        last = now;
    }
}

void fl_barrier_wait(fl_barrier *barrier, int n)
{
    enum { SPINS = 1000 }; /* about 20-40 us: longer than a well-balanced step, shorter than a time slice */
    if (n <= 1) return;
    const unsigned round = atomic_load_explicit(&barrier->round, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&barrier->arrived, 1, memory_order_acq_rel) == n - 1) {
        atomic_store_explicit(&barrier->arrived, 0, memory_order_relaxed);
        const int how = atomic_load_explicit(&manner, memory_order_relaxed);
        if (barrier->patient || how == FL_TEAM_PERSISTS) {
            /* no complaints heard */
        } else if (how == FL_TEAM_GIVES_UP) {
            barrier->solo = 1;
        } else if (!barrier->solo && atomic_load_explicit(&barrier->stalled, memory_order_relaxed)) {
            barrier->solo = 1;
            note_stall();
        }
        atomic_store_explicit(&barrier->round, round + 1, memory_order_release);
        return;
    }
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&barrier->round, memory_order_acquire) != round) return;
        relax();
    }
    wait_long(barrier, round);
}

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

static void run_worker(int worker, int workers, fl_team_fn fn, void *arg)
{
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
    const int64_t alone = atomic_load(&alone_until);
    if (wanted > 1 && alone && atomic_load(&manner) == FL_TEAM_ADAPTS) {
        const int64_t now = now_ns();
        if (now < alone) {
            wanted = 1;
        } else if (now > alone + 2 * LONG_PAUSE_MS * INT64_C(1000000)) { /* no stall since: forgive */
            atomic_store(&alone_until, 0);
            atomic_store(&pause_ms, SHORT_PAUSE_MS);
        }
    }
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
        run_worker(0, 1, fn, arg);
    } else {
        prepare_team();
#pragma omp parallel num_threads(n)
        run_worker(omp_get_thread_num(), omp_get_num_threads(), fn, arg);
    }
    atomic_fetch_sub(&threads_active, n);
}
#else
void fl_team_run(int wanted, fl_team_fn fn, void *arg)
{
    (void)wanted;
    run_worker(0, 1, fn, arg);
}
#endif
