/* Calls that are ended early: the caller's `poll` is asked now and then whether to go on. */
#ifndef FL_STOP_H
#define FL_STOP_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* The calling thread alone reads the clock and asks.  What it is told goes to all workers by one flag.  A worker that
 * sees the flag may leave work undone, but it must come to every barrier that the others come to: the next barrier
 * with a judge (fl_barrier_judge) ends the call for all of them at once.  A worker that meets nobody returns. */
typedef struct fl_stop {
    int (*poll)(void *);
    void *data;
    double planned_ns; /* work since the clock was last read.  Of the calling thread, as the next one */
    int64_t ask_at;    /* when to ask next, by fl_now_ns; 0: the clock has not been read yet */
    double piece_ns;   /* longer pieces of work are cut: FL_PIECE_NS, or 1, so that all is cut */
    int eager;         /* 1: poll is asked whenever the clock would be read, as fl_poll_force, of tests, wants it */
    unsigned outside;  /* the caller's floating-point state, in which poll runs */
    atomic_int stopped;
    _Atomic int64_t asked_ns; /* time that poll took: the caller's, not the team's.  A judge takes it away */
} fl_stop;

enum {
    FL_LOOK_NS = 50000,    /* planned work from one look at the clock to the next: reading it takes 20 to 50 ns */
    FL_ASK_NS = 100000000, /* from one question to the next: an answer may take long, as an interpreter is shared */
    FL_PIECE_NS = 10000000 /* planned work that is not divided further */
};

/* Fills *stop and returns it; NULL: the caller is never to be asked, and every function below does nothing. */
fl_stop *fl_stop_begin(fl_stop *stop, int (*poll)(void *), void *data);

/* Whether the call is to end. */
static inline int fl_stopped(fl_stop *stop)
{
    return stop && atomic_load_explicit(&stop->stopped, memory_order_relaxed);
}

/* The same after work that takes plan_ns by the plan; worker 0 is the calling thread, and asks if it is time to. */
int fl_stop_look(fl_stop *stop, int worker, double plan_ns);
/* For the calling thread while it waits for others: reads the clock, and asks if it is time to. */
void fl_stop_wait(fl_stop *stop);
/* Copies so many bytes from `from`, which may overlap `to`; NULL: zeros, `to` itself: nothing.  Large arrays in pieces,
 * as memory that is new from the system may take a second for each gigabyte; on the calling thread. */
void fl_stop_fill(fl_stop *stop, void *to, const void *from, size_t bytes);

/* Pieces that work of so many ns is cut into, 1 to `most`. */
static inline int64_t fl_stop_parts(const fl_stop *stop, double ns, int64_t most)
{
    const double parts = ns / stop->piece_ns;
    return parts >= (double)most ? most : 1 + (int64_t)parts;
}

/* A counter for a loop over pieces of about equal work.  It says after how many pieces fl_stop_look is called: small
 * pieces are only counted, so that the clock is read once in FL_LOOK_NS of planned work. */
typedef struct fl_pace {
    fl_stop *stop;
    int worker;
    double piece_ns;
    int64_t every, left; /* pieces from one fl_stop_look to the next; those still to come before it */
} fl_pace;
void fl_pace_begin(fl_pace *pace);
int fl_pace_look(fl_pace *pace);
static inline fl_pace fl_pace_of(fl_stop *stop, int worker, double piece_ns)
{
    fl_pace pace = {stop, worker, piece_ns, 0, INT64_MAX};
    if (stop) fl_pace_begin(&pace);
    return pace;
}
/* Before each piece.  1: the call is to end, and this worker has just looked. */
static inline int fl_pace_step(fl_pace *pace) { return --pace->left == 0 && fl_pace_look(pace); }
/* After fl_pace_step: how many more pieces, `most` at most, can follow at once. */
static inline int64_t fl_pace_more(fl_pace *pace, int64_t most)
{
    const int64_t more = most < pace->left - 1 ? most : pace->left - 1;
    pace->left -= more;
    return more;
}
/* After the loop: hands on the work since the last look, for the next loop may be as short. */
static inline void fl_pace_end(const fl_pace *pace)
{
    if (pace->stop) fl_stop_look(pace->stop, pace->worker, (double)(pace->every - pace->left) * pace->piece_ns);
}

#endif
