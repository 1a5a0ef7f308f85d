/* When the caller of a long call is asked whether to go on: see fl_stop.h. */
#include "fl_stop.h"

#include <string.h>

#include "fastlstm_experimental.h"
#include "fl_team.h"

static atomic_int forced;
void fl_poll_force(int everywhere) { atomic_store(&forced, everywhere); }

fl_stop *fl_stop_begin(fl_stop *stop, int (*poll)(void *), void *data)
{
    if (!poll) return NULL;
    const int eager = atomic_load_explicit(&forced, memory_order_relaxed);
    *stop = (fl_stop){.poll = poll,
                      .data = data,
                      .piece_ns = eager ? 1 : FL_PIECE_NS,
                      .eager = eager,
                      .outside = fl_float_now()};
    atomic_init(&stop->stopped, 0);
    atomic_init(&stop->asked_ns, 0);
    return stop;
}

/* The question is put in the floating-point state in which the call was made. */
static void ask(fl_stop *stop)
{
    const unsigned inside = fl_float_now();
    const int64_t begin = fl_now_ns();
    fl_float_leave(stop->outside);
    const int end = stop->poll(stop->data);
    fl_float_leave(inside);
    const int64_t now = fl_now_ns();
    atomic_fetch_add_explicit(&stop->asked_ns, now - begin, memory_order_relaxed);
    stop->ask_at = now + FL_ASK_NS;
    if (end) atomic_store_explicit(&stop->stopped, 1, memory_order_relaxed);
}

void fl_stop_wait(fl_stop *stop)
{
    if (!stop || fl_stopped(stop)) return;
    const int64_t now = stop->eager ? 0 : fl_now_ns();
    if (stop->eager || (stop->ask_at && now >= stop->ask_at))
        ask(stop);
    else if (!stop->ask_at)
        stop->ask_at = now + FL_ASK_NS;
}

int fl_stop_look(fl_stop *stop, int worker, double plan_ns)
{
    if (!stop) return 0;
    if (fl_stopped(stop)) return 1;
    if (worker) return 0;
    stop->planned_ns += plan_ns;
    if (stop->planned_ns < FL_LOOK_NS && !stop->eager) return 0;
    stop->planned_ns = 0;
    fl_stop_wait(stop);
    return fl_stopped(stop);
}

static void fill(void *to, const void *from, size_t bytes)
{
    if (from)
        memmove(to, from, bytes);
    else
        memset(to, 0, bytes);
}

void fl_stop_fill(fl_stop *stop, void *to, const void *from, size_t bytes)
{
    const size_t piece = (size_t)1 << 23;
    const double byte_ns = 0.25;
    if (to == from) return;
    const uintptr_t begin = (uintptr_t)to, other = (uintptr_t)from;
    const int overlap = from && begin < other + bytes && other < begin + bytes; /* pieces would read what they wrote */
    if (!stop || overlap) {
        fill(to, from, bytes);
        return;
    }
    for (size_t at = 0; at < bytes; at += piece) {
        const size_t n = bytes - at < piece ? bytes - at : piece;
        fill((char *)to + at, from ? (const char *)from + at : NULL, n);
        if (fl_stop_look(stop, 0, byte_ns * (double)n)) return;
    }
}

void fl_pace_begin(fl_pace *pace)
{
    const double most = 1e9, pieces = pace->piece_ns > 0 ? FL_LOOK_NS / pace->piece_ns : most;
    pace->every = pieces < 1 || pace->stop->eager ? 1 : pieces < most ? (int64_t)pieces : (int64_t)most;
    pace->left = pace->every;
}

int fl_pace_look(fl_pace *pace)
{
    const int end = fl_stop_look(pace->stop, pace->worker, (double)pace->every * pace->piece_ns);
    pace->left = end ? 1 : pace->every; /* loops inside loops end one after the other */
    return end;
}
