/* Workers meeting, and what a team learns when one of them does not come: see fl_barrier.h. */
#define _GNU_SOURCE
#include "fl_barrier.h"

#include <time.h>

#include "fastlstm.h"

#if defined(__unix__) || defined(__APPLE__)
#include <sched.h>
#elif defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

/* --- waiting */

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

int64_t fl_now_ns(void)
{
#if defined(_WIN32)
    LARGE_INTEGER ticks, per_second;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&per_second);
    return (int64_t)((double)ticks.QuadPart * (1e9 / (double)per_second.QuadPart));
#else
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
#endif
}

void fl_doze(void)
{
#if defined(_WIN32)
    Sleep(1);
#else
    nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
#endif
}

/* --- stalls */

/* Calls stay on one thread for a while after a stall, longer after each further one: where others keep the processors
 * busy, the half millisecond that a stall costs is paid every 16 ms at most; where it was a hiccup, little is lost. */
enum { STALL_NS = 500000, SHORT_PAUSE_MS = 2, LONG_PAUSE_MS = 16 };
static _Atomic int64_t alone_until;
static atomic_int pause_ms = SHORT_PAUSE_MS;

static atomic_int manner; /* enum fl_team_manner, for tests */

static void note_stall(void)
{
    const int pause = atomic_load(&pause_ms);
    atomic_store(&alone_until, fl_now_ns() + pause * INT64_C(1000000));
    atomic_store(&pause_ms, pause * 2 > LONG_PAUSE_MS ? LONG_PAUSE_MS : pause * 2);
}

int fl_stalled_lately(void)
{
    const int64_t alone = atomic_load(&alone_until);
    if (!alone || atomic_load(&manner) != FL_TEAM_ADAPTS) return 0;
    const int64_t now = fl_now_ns();
    if (now < alone) return 1;
    if (now > alone + 2 * LONG_PAUSE_MS * INT64_C(1000000)) { /* no stall since: forgive */
        atomic_store(&alone_until, 0);
        atomic_store(&pause_ms, SHORT_PAUSE_MS);
    }
    return 0;
}

void fl_team_force(int how) { atomic_store(&manner, how); }

/* --- barrier */

void fl_barrier_init(fl_barrier *barrier, int patient)
{
    atomic_init(&barrier->arrived, 0);
    atomic_init(&barrier->stalled, 0);
    atomic_init(&barrier->round, 0);
    atomic_init(&barrier->lost, 0);
    barrier->born = patient ? 0 : fl_now_ns();
    barrier->solo = 0;
    barrier->patient = patient;
}

/* After the spins: offer the processor to others, then sleep.  A complaint is due when half a millisecond and a quarter
 * of the time since the call began went that way: balanced steps do not come here, uneven ones not for long. */
static void wait_long(fl_barrier *barrier, unsigned round)
{
    const int64_t start = fl_now_ns();
    int64_t last = start;
    while (atomic_load_explicit(&barrier->round, memory_order_acquire) == round) {
        if (last - start < STALL_NS)
            yield_processor(); /* comes back at once when nobody else wants it */
        else
            fl_doze();
        const int64_t now = fl_now_ns();
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
