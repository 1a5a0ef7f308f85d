/* Threads.  With fl_limit.c the only file that includes omp.h.
 *
 * - One parallel region per call; its size is bounded by what other calls of this process already use, so that many
 *   application threads do not multiply into many more workers.  Results do not depend on the size.
 * - Before fork() the forking thread's workers are sent home (a child would wait for threads it does not have).
 */
#define _GNU_SOURCE
#include "fl_team.h"

#include <stdint.h>

#include "fastlstm.h"

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__linux__)
#include <sched.h>
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

static atomic_int threads_active; /* inside calls right now */
int fl_teams_active(void) { return atomic_load(&threads_active); }

/* --- places */

/* Linux at times keeps two workers on one processor for tens of milliseconds while another is idle: both look busy, and
 * as they yield to each other both look too recently used to be moved.  So workers say where they are, and one that
 * finds itself where an earlier one is asks for any other processor it may use; its mask is then as it was. */
enum { PLACES = 64 };
typedef struct fl_places {
    atomic_int cpu[PLACES]; /* of each worker from its start on, plus one */
} fl_places;

#if defined(__linux__)
static void step_aside(int cpu)
{
    cpu_set_t mask, others;
    if (sched_getaffinity(0, sizeof mask, &mask)) return;
    others = mask;
    CPU_CLR(cpu, &others);
    if (CPU_COUNT(&others) && !sched_setaffinity(0, sizeof others, &others)) sched_setaffinity(0, sizeof mask, &mask);
}

static void take_place(fl_places *places, int worker)
{
    const int cpu = sched_getcpu();
    if (cpu < 0 || worker >= PLACES) return;
    for (int i = 0; i < worker; i++)
        if (atomic_load_explicit(&places->cpu[i], memory_order_relaxed) == cpu + 1) {
            step_aside(cpu);
            break;
        }
    atomic_store_explicit(&places->cpu[worker], sched_getcpu() + 1, memory_order_relaxed);
}
#else
static void take_place(fl_places *places, int worker)
{
    (void)places;
    (void)worker;
}
#endif

/* --- run */

static void run_worker(int worker, int workers, fl_team_fn fn, void *arg, fl_places *places)
{
    if (workers > 1) take_place(places, worker);
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
        fl_places places = {0};
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
