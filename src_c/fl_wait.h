/* Waiting, from a few nanoseconds to asleep; locks and threads of the operating system; the clock. */
#ifndef FL_WAIT_H
#define FL_WAIT_H

#include <stdatomic.h>
#include <stdint.h>

int64_t fl_now_ns(void); /* of a clock that only goes forward */

void fl_relax(void); /* a hint to the processor: this thread spins */
void fl_yield(void); /* offers the processor to other threads; returns at once when none wants it */
void fl_doze(void);  /* sleeps for as little as the system grants: 50 us on Linux and some more, 1 ms on Windows */

void fl_nap(int64_t ns); /* sleeps for so long, and for what the system adds */

/* Sleeps until fl_wake, if *word is still `value`.  It may also return early, so the caller looks again. */
void fl_sleep_on(atomic_uint *word, unsigned value);
void fl_sleep_for(atomic_uint *word, unsigned value, int64_t ns); /* the same for so long, and what the system adds */
void fl_wake(atomic_uint *word); /* everybody who sleeps on it */

/* Around a fork; in_child 1: in the child, where those who slept do not exist. */
void fl_sleepers_before_fork(void);
void fl_sleepers_after_fork(int in_child);

/* One lock, which must be initialised statically by FL_LOCK_FREE. */
typedef struct fl_lock {
    atomic_uint state; /* 0 free, 1 taken, 2 taken and somebody sleeps */
} fl_lock;
#define FL_LOCK_FREE {0}
void fl_lock_take(fl_lock *lock);
int fl_lock_try(fl_lock *lock); /* 1: taken */
void fl_lock_free(fl_lock *lock);

/* Whether this build can start threads: 1 with OpenMP, which says how many a process wants. */
#if defined(_OPENMP) && (defined(__unix__) || defined(__APPLE__) || defined(_WIN32))
#define FL_THREADS 1
#else
#define FL_THREADS 0
#endif

#if FL_THREADS
/* Starts fn(arg) on a thread that gets no signals of the process.  0: the system refused. */
typedef void (*fl_thread_fn)(void *arg);
typedef struct fl_thread {
    fl_thread_fn fn;
    void *arg;
    void *handle; /* of the system */
} fl_thread;
int fl_thread_start(fl_thread *thread, fl_thread_fn fn, void *arg); /* *thread must outlive it */
void fl_thread_join(fl_thread *thread);
#endif

#endif
