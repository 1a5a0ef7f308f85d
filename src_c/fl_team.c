/* Teams of threads, out of one pool for the whole process.
 *
 * - A team's size is bounded by what other calls of this process already use, so that many application threads do not
 *   multiply into many more workers; and by what the system grants.  Results do not depend on the size.
 * - A call that finds its workers awake starts within a microsecond; they look out for 30 us after a call, or as long
 *   as the call asks.
 * - A child of fork() starts with an empty pool.
 */
#define _GNU_SOURCE
#include "fl_team.h"

#include <float.h>
#include <stdint.h>

#include "fastlstm_experimental.h"
#include "fl_places.h"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
/* An x86 of 32 bits is treated alike if the compiler computes in vector registers: MXCSR changes nothing in others. */
#if defined(__SSE2_MATH__) || defined(_M_X64)
#define FL_MXCSR 1
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__GNUC__)
#define FL_FPCR 1
#else
#include <fenv.h>
#endif

/* --- floating-point state */

#if defined(FL_MXCSR)
enum { FLOAT_STATE = 0x1f80 | 0x8040 }; /* exceptions masked, round to nearest; flush-to-zero, denormals-are-zero */
unsigned fl_float_enter(void)
{
    const unsigned saved = _mm_getcsr();
    _mm_setcsr(FLOAT_STATE);
    return saved;
}
void fl_float_leave(unsigned saved) { _mm_setcsr(saved); }
unsigned fl_float_now(void) { return _mm_getcsr(); }
#elif defined(FL_FPCR)
enum { FLOAT_STATE = 1 << 24 }; /* FPCR.FZ, round to nearest */
unsigned fl_float_now(void)
{
    uint64_t state;
    __asm__ volatile("mrs %0, fpcr" : "=r"(state));
    return (unsigned)state;
}
unsigned fl_float_enter(void)
{
    const unsigned saved = fl_float_now();
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)FLOAT_STATE));
    return saved;
}
void fl_float_leave(unsigned saved) { __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)saved)); }
#else
/* What C itself offers: the rounding mode.  Denormals stay as they are, and fl_flushes_denormals says so. */
unsigned fl_float_now(void) { return (unsigned)fegetround(); }
unsigned fl_float_enter(void)
{
    const int saved = fegetround();
    if (saved != FE_TONEAREST) fesetround(FE_TONEAREST);
    return (unsigned)saved;
}
void fl_float_leave(unsigned saved)
{
    if (fegetround() != (int)saved) fesetround((int)saved);
}
#endif

int fl_flushes_denormals(void)
{
    const unsigned saved = fl_float_enter();
    volatile float single = FLT_MIN, half = 0.5f;
    volatile double wide = DBL_MIN, half_wide = 0.5;
    single = single * half;
    wide = wide * half_wide;
    const int flushed = single == 0 && wide == 0;
    fl_float_leave(saved);
    return flushed;
}

static atomic_int threads_active; /* inside calls right now */
int fl_teams_active(void) { return atomic_load(&threads_active); }

/* --- one worker */

typedef struct fl_worker fl_worker;
typedef struct fl_team {
    fl_team_fn fn;
    void *arg;
    int workers;
    int64_t awake_ns;
    fl_places places;
    _Alignas(64) atomic_uint left;   /* workers that have not returned, and ASLEEP while the caller sleeps on it */
    fl_worker *member[FL_MOST_THREADS]; /* (workers): [0] is unused, that is the caller */
} fl_team;

static void run_worker(int worker, int workers, fl_team_fn fn, void *arg, fl_places *places)
{
    if (worker > 0) fl_places_take(places, worker);
    const unsigned saved = fl_float_enter();
    fn(worker, workers, arg);
    fl_float_leave(saved);
}

#if FL_THREADS

/* --- the pool
 *
 * Workers are started when a team first needs them, and stay.  An idle one looks out for a call for a moment, then
 * sleeps on `call`.  Teams take the ones that became idle last, in the order of the call before: worker i of one call
 * is worker i of the next, which has its weights in its cache. */

struct fl_worker {
    _Alignas(64) atomic_uint call; /* goes up by one for each call it gets */
    atomic_uint asleep;
    fl_team *team; /* and its place there, both written before `call` goes up */
    int index;
    fl_worker *below; /* the next idle one; under the lock */
    fl_thread thread;
};

enum { ASLEEP = 1u << 31, IDLE_NS = 30000 };
static fl_worker pool[FL_MOST_THREADS - 1]; /* untouched ones take no memory */
static fl_lock pool_lock = FL_LOCK_FREE;
static fl_worker *idle;       /* under the lock, and the next two */
static int started;           /* workers of the pool that have a thread */
static int64_t refused_until; /* the system has refused one: not asked again before */
static atomic_int closing;    /* the pool is taken down */
static atomic_uint rests;     /* goes up when workers shall not look out any longer */

/* Until the worker has a call.  Looks out for one for `awake_ns`, or until `rests` is no longer `rest`; then sleeps. */
static void await_call(fl_worker *w, unsigned before, int64_t awake_ns, unsigned rest)
{
    enum { LOOKS = 32 }; /* between looks at the clock */
    const int64_t begin = fl_now_ns();
    int64_t waited = 0;
    while (waited < awake_ns && (waited < IDLE_NS || atomic_load_explicit(&rests, memory_order_relaxed) == rest)) {
        for (int i = 0; i < LOOKS; i++) {
            if (atomic_load_explicit(&w->call, memory_order_acquire) != before) return;
            fl_relax();
        }
        waited = fl_now_ns() - begin;
        if (waited > IDLE_NS) fl_yield(); /* others may want this processor */
    }
    atomic_store(&w->asleep, 1);
    while (atomic_load(&w->call) == before) fl_sleep_on(&w->call, before);
    atomic_store_explicit(&w->asleep, 0, memory_order_relaxed);
}

/* `asleep` is read after `call` went up, and a worker reads `call` after it has set `asleep`: one sees the other. */
static void call_worker(fl_team *team, int index)
{
    fl_worker *w = team->member[index];
    w->team = team;
    w->index = index;
    atomic_fetch_add(&w->call, 1);
    if (atomic_load(&w->asleep)) fl_wake(&w->call);
}

/* Waking takes a system call each, so in large teams the first woken wake the others. */
enum { WAKES = 16 };
static void call_others(fl_team *team, int index)
{
    if (index == 0)
        for (int i = 1; i < team->workers && i <= WAKES; i++) call_worker(team, i);
    else if (index <= WAKES)
        for (int i = index + WAKES; i < team->workers; i += WAKES) call_worker(team, i);
}

static void worker_main(void *arg)
{
    fl_worker *w = arg;
    unsigned calls = 0, rest = 0;
    int64_t awake_ns = IDLE_NS;
    for (;;) {
        await_call(w, calls, awake_ns, rest);
        fl_team *team = w->team;
        if (!team) return; /* the pool is taken down */
        calls++;
        call_others(team, w->index);
        run_worker(w->index, team->workers, team->fn, team->arg, &team->places);
        awake_ns = team->awake_ns > IDLE_NS ? team->awake_ns : IDLE_NS;
        rest = atomic_load(&rests); /* before the caller can go on, and end its stream */
        atomic_uint *left = &team->left;
        /* the team is gone when the caller has seen 0, so only the address is used from here on */
        if (atomic_fetch_sub(left, 1) == (ASLEEP | 1)) fl_wake(left);
    }
}

/* Up to `n` workers to team->member[1 ...]; how many came. */
static int take_workers(fl_team *team, int n)
{
    enum { REFUSED_NS = 100000000 };
    int got = 0;
    fl_lock_take(&pool_lock);
    while (got < n) {
        fl_worker *w = idle;
        if (w) {
            idle = w->below;
        } else {
            if (started >= FL_MOST_THREADS - 1 || atomic_load(&closing)) break;
            if (refused_until && fl_now_ns() < refused_until) break;
            w = &pool[started];
            atomic_store(&w->call, 0);
            atomic_store(&w->asleep, 0);
            refused_until = 0;
            if (!fl_thread_start(&w->thread, worker_main, w)) {
                refused_until = fl_now_ns() + REFUSED_NS;
                break;
            }
            started++;
        }
        team->member[++got] = w;
    }
    fl_lock_free(&pool_lock);
    return got;
}

static void give_workers(const fl_team *team)
{
    fl_lock_take(&pool_lock);
    for (int i = team->workers - 1; i > 0; i--) {
        team->member[i]->below = idle;
        idle = team->member[i];
    }
    fl_lock_free(&pool_lock);
}

/* The caller, until all others have returned: spins, offers its processor, sleeps.  It goes on asking whether the call
 * is to end, since the others may have much left to do. */
static void await_workers(fl_team *team, fl_stop *stop)
{
    enum { SPINS = 1000, YIELD_NS = 500000, NAP_NS = 20000000 };
    for (int i = 0; i < SPINS; i++) {
        if (!atomic_load_explicit(&team->left, memory_order_acquire)) return;
        fl_relax();
    }
    const int64_t begin = fl_now_ns();
    while (fl_now_ns() - begin < YIELD_NS) {
        if (!atomic_load_explicit(&team->left, memory_order_acquire)) return;
        fl_stop_wait(stop);
        fl_yield();
    }
    unsigned left = atomic_fetch_or(&team->left, ASLEEP) | ASLEEP;
    while (left != ASLEEP) {
        fl_stop_wait(stop);
        if (stop && !fl_stopped(stop))
            fl_sleep_for(&team->left, left, NAP_NS);
        else
            fl_sleep_on(&team->left, left);
        left = atomic_load(&team->left);
    }
}

/* --- forks, the end of threads and of the library */

#if defined(__unix__) || defined(__APPLE__)
static atomic_int prepared;
static pthread_key_t caller_key; /* set in threads whose calls left workers awake */
static void caller_ends(void *set)
{
    (void)set;
    fl_team_rest();
}

static void before_fork(void)
{
    fl_lock_take(&pool_lock);
    fl_sleepers_before_fork();
}

static void after_fork(void)
{
    fl_sleepers_after_fork(0);
    fl_lock_free(&pool_lock);
}

static atomic_uint forks; /* between the first process of this program and this one */

/* The other threads do not exist in the child: it starts with an empty pool. */
static void in_child(void)
{
    idle = NULL;
    started = 0;
    refused_until = 0;
    atomic_store(&threads_active, 0);
    atomic_fetch_add(&forks, 1);
    fl_sleepers_after_fork(1);
    fl_lock_free(&pool_lock);
}

static void prepare_once(void)
{
    pthread_atfork(before_fork, after_fork, in_child);
    atomic_store(&prepared, pthread_key_create(&caller_key, caller_ends) == 0);
}

static void prepare_team(int64_t awake_ns)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, prepare_once);
    if (awake_ns > IDLE_NS && atomic_load(&prepared)) pthread_setspecific(caller_key, &caller_key);
}

/* Where the library is unloaded its code must not be running.  Workers in the middle of a call are left alone: then the
 * process itself ends. */
__attribute__((destructor)) static void close_pool(void)
{
    if (!fl_lock_try(&pool_lock)) return;
    atomic_store(&closing, 1);
    for (fl_worker *w = idle; w; w = w->below) {
        w->team = NULL;
        atomic_fetch_add(&w->call, 1);
        fl_wake(&w->call);
        fl_thread_join(&w->thread);
    }
    idle = NULL;
    if (atomic_load(&prepared)) pthread_key_delete(caller_key);
    fl_lock_free(&pool_lock);
}
#else
static void prepare_team(int64_t awake_ns) { (void)awake_ns; }
#endif

/* --- run */

/* Of `wanted` threads, those that no other call uses; at least the caller itself. */
static int reserve(int wanted)
{
    const int own = wanted > 1 ? fl_get_num_threads() : 1;
    const int capacity = wanted > own ? wanted : own;
    int used = atomic_load(&threads_active), get;
    do {
        const int free = capacity - used;
        get = free < 1 ? 1 : free < wanted ? free : wanted;
    } while (!atomic_compare_exchange_weak(&threads_active, &used, used + get));
    return get;
}

static void run_team(int wanted, const fl_team_work *work)
{
    fl_team room, *team = &room; /* not cleared: most of the list of members is never touched */
    prepare_team(work->awake_ns);
    team->workers = 1 + take_workers(team, wanted - 1);
    team->fn = work->fn;
    team->arg = work->arg;
    team->awake_ns = work->awake_ns;
    fl_places_begin(&team->places, team->workers);
    fl_places_take(&team->places, 0);
    atomic_init(&team->left, (unsigned)team->workers - 1);
    if (work->begin) work->begin(team->workers, work->arg);
    call_others(team, 0);
    run_worker(0, team->workers, work->fn, work->arg, &team->places);
    await_workers(team, work->stop);
    give_workers(team);
}

void fl_team_do(int wanted, const fl_team_work *work)
{
    const unsigned born = atomic_load_explicit(&forks, memory_order_relaxed);
    const int n = reserve(wanted < 1 ? 1 : wanted > FL_MOST_THREADS ? FL_MOST_THREADS : wanted);
    if (n == 1) {
        if (work->begin) work->begin(1, work->arg);
        run_worker(0, 1, work->fn, work->arg, NULL);
    } else {
        run_team(n, work);
    }
    /* in a child that was forked meanwhile, by the caller's poll, nothing is counted yet */
    if (atomic_load_explicit(&forks, memory_order_relaxed) == born) atomic_fetch_sub(&threads_active, n);
}

void fl_team_rest(void) { atomic_fetch_add(&rests, 1); }
#else
void fl_team_do(int wanted, const fl_team_work *work)
{
    (void)wanted;
    if (work->begin) work->begin(1, work->arg);
    run_worker(0, 1, work->fn, work->arg, NULL);
}
void fl_team_rest(void) {}
#endif

void fl_team_run(int wanted, fl_team_fn fn, void *arg)
{
    const fl_team_work work = {.fn = fn, .arg = arg};
    fl_team_do(wanted, &work);
}
