/* Whether a team is worth its workers: it is judged by its own speed beside that of one thread.
 *
 * The time of a team is compared with the time that one thread would need for the same work, as the plan estimates it
 * and as calls on one thread have corrected it.  A window is the team's time for FL_WINDOW_NS of one thread's work:
 *
 *     ratio = team / (work * min(1, 4 / n)),   excess = max(0, excess + min(ratio, 2) - 1)
 *
 * so a team of up to four must beat one thread, and a larger one must be about as fast as four.  A step for which a
 * worker waited FL_LATE_NS ends a window, too: where each step costs a time slice, six full windows would take half
 * a second.  At an excess of 6 the team is halved (two workers become one) for the rest of the call and for a
 * pause, after which the whole team is tried again.  No result depends on it. */
#ifndef FL_JUDGE_H
#define FL_JUDGE_H

#include <stdint.h>

enum { FL_WINDOW_NS = 100000, FL_LATE_NS = 2000000 };

/* A team at work. */
typedef struct fl_judge {
    int workers;     /* now */
    int asked;       /* at first, by fl_judge_begin */
    int deaf;        /* 1: fl_team_force says what happens */
    double fix;      /* measured time of one thread over the plan's */
    double team_ns;  /* of the present window */
    double one_ns;   /* of one thread for the same work, `fix` included */
    double excess;   /* of the windows before */
    double lost_ns;  /* beyond what was to be beaten, in the windows that made `excess` */
    double planned;  /* the plan's time of all the work so far, without `fix` */
    int64_t last;    /* ns: when the clock was last read */
    int64_t fell;    /* ns: when the team was last halved in this call; 0: it was not */
    double fell_ns;  /* lost_ns at that moment */
    double fell_at;  /* `planned` at that moment */
} fl_judge;

/* Takes the work of a step or a chunk that all workers have finished: what one thread needs for it by the plan.  late:
 * 1 if one of them waited FL_LATE_NS for it.  Reads the clock at the end of a window.  Returns the number of workers
 * that go on. */
int fl_judge_work(fl_judge *judge, double plan_ns, int late);
/* The same without a clock, for tests: the work took the team so long. */
int fl_judge_step(fl_judge *judge, double plan_ns, double team_ns);

/* What calls of one kind have in common: the same sizes, direction of time and number of workers. */
typedef uint64_t fl_judge_key;
fl_judge_key fl_judge_mix(fl_judge_key key, int64_t value); /* a key from several numbers, starting with 0 */

void fl_judge_start(fl_judge *judge, int workers); /* knows nothing of earlier calls */
/* At the start of a call that would like `wanted` workers: fills *judge; judge->workers says how many to take, and is
 * to be set to those that came. */
void fl_judge_begin(fl_judge *judge, fl_judge_key key, int wanted);
/* At its end.  plan_ns: what the whole call takes one thread, by the plan. */
void fl_judge_end(fl_judge *judge, fl_judge_key key, double plan_ns);

#endif
