/* Waiting, locks, threads, the clock: what each operating system calls them. */
#define _GNU_SOURCE
#include "fl_wait.h"

#include <time.h>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#elif defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#endif
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

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

void fl_relax(void)
{
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
    __asm__ volatile("yield");
#endif
}

void fl_yield(void)
{
#if defined(_WIN32)
    SwitchToThread();
#elif defined(__unix__) || defined(__APPLE__)
    sched_yield();
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

void fl_nap(int64_t ns)
{
#if defined(_WIN32)
    const int64_t end = fl_now_ns() + ns;
    while (fl_now_ns() < end) fl_doze();
#else
    nanosleep(&(struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000}, NULL);
#endif
}

/* --- sleeping on a word */

#if defined(__linux__)
_Static_assert(sizeof(atomic_uint) == 4, "the kernel compares 32 bits");
void fl_sleep_on(atomic_uint *word, unsigned value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}
void fl_sleep_for(atomic_uint *word, unsigned value, int64_t ns)
{
    const struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, &t, NULL, 0);
}
void fl_wake(atomic_uint *word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0); }
#elif defined(_WIN32)
void fl_sleep_on(atomic_uint *word, unsigned value) { WaitOnAddress((void *)word, &value, sizeof value, INFINITE); }
void fl_sleep_for(atomic_uint *word, unsigned value, int64_t ns)
{
    WaitOnAddress((void *)word, &value, sizeof value, (DWORD)(ns / 1000000 + 1));
}
void fl_wake(atomic_uint *word) { WakeByAddressAll((void *)word); }
#elif defined(__unix__) || defined(__APPLE__)
#define FL_ONE_CONDITION 1
/* One condition for all words: whoever wakes for another's sake looks again and goes back to sleep. */
static pthread_mutex_t sleep_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t sleep_over = PTHREAD_COND_INITIALIZER;
void fl_sleep_on(atomic_uint *word, unsigned value)
{
    pthread_mutex_lock(&sleep_mutex);
    if (atomic_load(word) == value) pthread_cond_wait(&sleep_over, &sleep_mutex);
    pthread_mutex_unlock(&sleep_mutex);
}
void fl_sleep_for(atomic_uint *word, unsigned value, int64_t ns)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += (time_t)((end.tv_nsec + ns) / 1000000000);
    end.tv_nsec = (long)((end.tv_nsec + ns) % 1000000000);
    pthread_mutex_lock(&sleep_mutex);
    if (atomic_load(word) == value) pthread_cond_timedwait(&sleep_over, &sleep_mutex, &end);
    pthread_mutex_unlock(&sleep_mutex);
}
void fl_wake(atomic_uint *word)
{
    (void)word;
    pthread_mutex_lock(&sleep_mutex);
    pthread_cond_broadcast(&sleep_over);
    pthread_mutex_unlock(&sleep_mutex);
}
#else
void fl_sleep_on(atomic_uint *word, unsigned value)
{
    (void)word;
    (void)value;
}
void fl_sleep_for(atomic_uint *word, unsigned value, int64_t ns)
{
    (void)word;
    (void)value;
    (void)ns;
}
void fl_wake(atomic_uint *word) { (void)word; }
#endif

#ifdef FL_ONE_CONDITION
void fl_sleepers_before_fork(void) { pthread_mutex_lock(&sleep_mutex); }
void fl_sleepers_after_fork(int in_child)
{
    if (in_child) pthread_cond_init(&sleep_over, NULL);
    pthread_mutex_unlock(&sleep_mutex);
}
#else
void fl_sleepers_before_fork(void) {}
void fl_sleepers_after_fork(int in_child) { (void)in_child; }
#endif

/* --- locks: held for well under a microsecond, but for the moments in which a thread is started */

int fl_lock_try(fl_lock *lock)
{
    unsigned free = 0;
    return atomic_compare_exchange_strong_explicit(&lock->state, &free, 1, memory_order_acquire, memory_order_relaxed);
}

void fl_lock_take(fl_lock *lock)
{
    enum { SPINS = 100 };
    for (int i = 0; i < SPINS; i++) {
        if (fl_lock_try(lock)) return;
        fl_relax();
    }
    while (atomic_exchange_explicit(&lock->state, 2, memory_order_acquire)) fl_sleep_on(&lock->state, 2);
}

void fl_lock_free(fl_lock *lock)
{
    if (atomic_exchange_explicit(&lock->state, 0, memory_order_release) == 2) fl_wake(&lock->state);
}

/* --- threads */

#if FL_THREADS && defined(_WIN32)
static DWORD WINAPI thread_main(LPVOID arg)
{
    const fl_thread *thread = arg;
    thread->fn(thread->arg);
    return 0;
}

int fl_thread_start(fl_thread *thread, fl_thread_fn fn, void *arg)
{
    thread->fn = fn;
    thread->arg = arg;
    thread->handle = CreateThread(NULL, 0, thread_main, thread, 0, NULL);
    return thread->handle != NULL;
}

void fl_thread_join(fl_thread *thread)
{
    WaitForSingleObject(thread->handle, INFINITE);
    CloseHandle(thread->handle);
}
#elif FL_THREADS
_Static_assert(sizeof(pthread_t) <= sizeof(void *), "the handle holds it");

static void *thread_main(void *arg)
{
    const fl_thread *thread = arg;
    thread->fn(thread->arg);
    return NULL;
}

int fl_thread_start(fl_thread *thread, fl_thread_fn fn, void *arg)
{
    enum { STACK_BYTES = 1 << 20 }; /* the deepest worker takes some 20 kB, sanitized ones ten times as much */
    thread->fn = fn;
    thread->arg = arg;
    pthread_t id;
    pthread_attr_t attributes;
    sigset_t all, before;
    sigfillset(&all);
    /* a thread's own faults still reach their handlers */
    const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    for (unsigned i = 0; i < sizeof own / sizeof *own; i++) sigdelset(&all, own[i]);
    if (pthread_attr_init(&attributes)) return 0;
    pthread_attr_setstacksize(&attributes, STACK_BYTES); /* a refusal leaves the system's own size */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int refused = pthread_create(&id, &attributes, thread_main, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    thread->handle = (void *)id;
    return !refused;
}

void fl_thread_join(fl_thread *thread) { pthread_join((pthread_t)thread->handle, NULL); }
#endif
