/* Where the workers of a team run: on a core each as long as there are cores, then on the other processors of these.
 *
 * Linux at times wakes two workers on one processor, or on one core, while another core is idle, and leaves them there
 * for tens of milliseconds.  So every worker says where it is, and one that finds itself where another one of its team
 * is moves.  On systems other than Linux nobody moves. */
#ifndef FL_PLACES_H
#define FL_PLACES_H

#include <stdatomic.h>

#include "fl_cores.h"

/* The places that a team has taken.  One for each call, on the stack of the caller. */
typedef struct fl_places {
    int workers;                       /* of the team */
    atomic_int sharing;                /* of these, those that share a core because there are too few */
    atomic_uchar taken[FL_PROCESSORS]; /* the bits of a core's taken processors, by the lowest processor of the core */
} fl_places;

/* The caller, which will be worker 0, calls begin and then takes its own place before it wakes the others; each of
 * them takes one when it starts.  Worker 0 is never moved, and the mask of a worker that moved is as it was. */
void fl_places_begin(fl_places *places, int workers);
void fl_places_take(fl_places *places, int worker);

/* The parts of it that ask the system nothing. */

/* Takes a place for a worker on `own`, and returns its processor: `own`, or the one to move to.  Others may do the same
 * at once.  may_share: a processor of its own on a core of two workers is good enough.  Without that, it is for as many
 * workers as the team has more than the allowed processors have cores. */
int fl_places_claim(fl_places *places, const fl_core_map *map, const fl_processors *allowed, int own, int may_share);

/* Pauses between the moves of a thread: zero at first. */
typedef struct fl_moves {
    int pause, left;
} fl_moves;
/* Whether a thread may move because somebody shares its core; asked once each time that is so.  If it was told yes and
 * moved, it calls `moved`; when it has a core for itself, `settled`. */
int fl_moves_due(fl_moves *moves);
void fl_moves_moved(fl_moves *moves);
void fl_moves_settled(fl_moves *moves);

#endif
