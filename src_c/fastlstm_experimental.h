/* The experimental part of the C interface: for tests and measurement.  It may change in any release. */
#ifndef FASTLSTM_EXPERIMENTAL_H
#define FASTLSTM_EXPERIMENTAL_H

#include "fastlstm.h"

#ifdef __cplusplus
extern "C" {
#endif

enum fl_status fl_isa_force(const char *name); /* models created from now on; NULL: as FASTLSTM_ISA says */
enum fl_gemm { FL_GEMM_AUTO = 0, FL_GEMM_PANEL, FL_GEMM_BLAS };
enum fl_status fl_gemm_mode(int *mode);         /* what FASTLSTM_GEMM or fl_gemm_force() says */
enum fl_status fl_gemm_force(const char *name); /* NULL: as FASTLSTM_GEMM says */
/* The kernels' own functions: all that dense layers take but softmax.  y may be x, else it must not overlap it.  In the
 * caller's floating-point state. */
enum fl_status fl_map(int dtype, int activation, const void *x, void *y, int64_t n);
/* What a team does that is not faster than one thread.  ADAPTS, the default: it is halved for the rest of the call, and
 * for a while after it.  PERSISTS: nothing.  GIVES_UP: at the first step of every call, one worker goes on alone.
 * HALVES: it is halved at every step. */
enum fl_team_manner { FL_TEAM_ADAPTS = 0, FL_TEAM_PERSISTS, FL_TEAM_GIVES_UP, FL_TEAM_HALVES };
void fl_team_force(int manner);
/* Workers that sleep at the barriers of steps, as if another program had taken their processors: worker w for
 * delay_us[next[w] * workers + w] at its next one, after which next[w] goes up.  NULL, or one without steps: no more.
 * Everything must stay where it is until then, and one call at a time may run. */
typedef struct fl_disturbance {
    const int32_t *delay_us; /* (steps, workers) */
    int64_t steps;
    int32_t workers;
    int64_t *next; /* (workers) */
} fl_disturbance;
void fl_team_disturb(const fl_disturbance *disturbance);
/* A team that sleeps instead of computing: `steps` steps of one_ns of one thread's work each, shared equally.  Written:
 * how long each step took, and how many workers went on after it; both (steps), either may be NULL. */
enum fl_status fl_rehearse(int workers, int64_t steps, double one_ns, int64_t *step_ns, int32_t *sizes);
/* The rule by which teams are halved, without a team: steps of one_ns of one thread's work that took step_ns (steps)
 * each -> sizes (steps), the workers that go on after each. */
void fl_judge_replay(int workers, double one_ns, const double *step_ns, int64_t steps, int32_t *sizes);
/* 1: calls made from now on ask their poll at every step and piece of work, whatever the clock says, and cut their work
 * into the smallest pieces; 0: no more. */
void fl_poll_force(int everywhere);
enum fl_bound {           /* what makes fl_get_num_threads() what it is */
    FL_BOUND_BUILD = 0,   /* built without OpenMP */
    FL_BOUND_HERE,        /* fl_num_threads_here */
    FL_BOUND_SET,         /* fl_set_num_threads */
    FL_BOUND_ENVIRONMENT, /* FASTLSTM_NUM_THREADS */
    FL_BOUND_AFFINITY,    /* the calling thread's affinity mask, or the number of processors */
    FL_BOUND_QUOTA,       /* of the container */
    FL_BOUND_OPENMP,      /* its setting in the calling thread, or its thread limit */
    FL_BOUND_NESTED,      /* the calling thread is in a parallel region that may have none inside */
    FL_BOUND_MOST         /* FL_MOST_THREADS */
};
/* That number and what made it (each may be NULL).  FL_ERR_THREADS: they are there, but FASTLSTM_NUM_THREADS holds
 * something that is no number of threads. */
enum fl_status fl_num_threads_why(int *threads, int *bound);
/* Processors that control groups leave this process, rounded up, as files under root/proc/self/cgroup and
 * root/sys/fs/cgroup say; root "" or NULL: this system's.  0: there is no quota. */
int fl_cgroup_quota(const char *root);
void fl_quota_force(int processors); /* what they say of this system; -1: they are read when next needed */
/* Work for a stop-watch, the same on every thread of a team of `threads`: with data NULL, n rounds of independent
 * fused multiply-adds (*flops of them in all); else n passes over `bytes` of data, each thread its own share.
 * FL_ERR_OVERFLOW: n above 2^40, bytes above 2^48. */
enum fl_status fl_probe(int dtype, int64_t n, const void *data, size_t bytes, int threads, double *flops);
int fl_teams_active(void); /* threads inside calls right now */

/* Which logical processors share a core.  Processors from FL_PROCESSORS on are not looked at.  A set of processors: p
 * is bit p % n of word p / n, where n is the number of bits in a word (the layout of Linux's cpu_set_t). */
enum { FL_PROCESSORS = 1024, FL_CORE_THREADS = 8 /* processors of a core, at most */ };
typedef struct fl_processors {
    unsigned long word[FL_PROCESSORS / (8 * sizeof(unsigned long))];
} fl_processors;
/* core (FL_PROCESSORS), written: of each processor the lowest one of its core.  folder: as /sys/devices/system/cpu of
 * Linux; a processor of which it tells nothing that can be believed is a core of its own. */
void fl_cores_read(const char *folder, uint16_t *core);
int fl_processors_allowed(void); /* processors that the calling thread may run on; at least 1 */
int fl_cores_allowed(void);      /* cores that these belong to; all of them where the system does not tell */
/* Where a team's workers would run that start one after the other on the processors `start` (workers) and may use
 * those in `allowed`: end (workers), written.  core: as fl_cores_read writes it.  others: whether other calls have
 * threads.  Nothing is written where a core is no processor; a worker that starts on none stays there. */
void fl_places_try(const uint16_t *core, const fl_processors *allowed, int workers, const int32_t *start, int others,
                   int32_t *end);

/* The machine as plans see it.  These numbers decide how work is divided and never change a result. */
typedef struct fl_machine {
    double flops_per_ns[2];         /* by enum fl_dtype: one core alone, products of full tiles */
    double all_cores_rate;          /* speed of a core while all of them work, of its speed alone; at most 1 */
    double private_bytes_per_ns;    /* one core reading weights from its own cache */
    double private_cache;           /* bytes of weights that stay in that cache beside everything else */
    double shared_bytes_per_ns;     /* one core reading weights beyond it */
    double shared_bytes_per_ns_all; /* all cores together, the same weights */
    double wake_ns;                 /* until a second thread that slept has run */
    double wake_each_ns;            /* and for every further one */
    double barrier_ns;              /* two workers meeting once, with the cache lines they exchange */
    double barrier_all_ns;          /* as many workers as there are cores */
    double cores;                   /* that run at full speed; threads beyond them are hyperthreads beside others */
    double sibling_rate;            /* speed of a thread while the other one of its core works, too; at most 1 */
} fl_machine;
void fl_machine_get(fl_machine *out); /* in use now; at first built-in ones */
/* Use these, brought into a plausible range; NULL: the built-in ones again.  FL_ERR_ARGUMENT: one is not finite or not
 * above 0.  May be called at any time from any thread, but a call between whose query of the workspace and itself it
 * falls may want another size, and then returns FL_ERR_WORKSPACE. */
enum fl_status fl_machine_set(const fl_machine *machine);
/* Measure them, about 15 ms, without setting them; sibling_rate stays as it is built in.  *team (may be NULL): 1 when
 * a team ran undisturbed; else what a team costs is built in, in whole or in part, because no more than one thread may
 * run (threads 0: as fl_get_num_threads() says) or others kept the processors busy.  Allocates for as long as it
 * runs. */
enum fl_status fl_machine_measure(fl_machine *out, int threads, int *team);

/* fl_plan_forward; awake 1: of a call whose workers wait for it, so that it begins with a barrier instead of waking */
enum fl_status fl_plan_call(const fl_model *model, int64_t steps, int64_t batch, int threads, int awake, fl_plan *out);
/* What the plan of a call expects of a pair: ns of the whole call with so many threads, 0 where this split (enum
 * fl_split) cannot take them.  backward 1: a call of fl_backward; awake as above. */
double fl_plan_estimate(const fl_model *model, int64_t steps, int64_t batch, int backward, int split, int threads,
                        int awake);

#ifdef __cplusplus
}
#endif
#endif
