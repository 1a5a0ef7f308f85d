/* How long a call takes on a described machine: the sizes of a model in, nanoseconds out.
 *
 * Pure arithmetic: no clock, no environment, nothing remembered.  fl_plan.c fills in fl_work and takes the pair of
 * split and threads that comes out shortest. */
#ifndef FL_ESTIMATE_H
#define FL_ESTIMATE_H

#include "fastlstm_experimental.h"

/* One layer and direction: what one step of one row costs. */
typedef struct fl_load {
    double count;         /* layers like this one */
    double flops;         /* of the step: products and gates */
    double bytes;         /* weights that a step reads again */
    double hoisted;       /* flops of input products that are made for many steps at once */
    double overlap_bytes; /* a larger share of weights is waited for, and hoisted products fill the wait; 0: never */
    double evenly;        /* backward: flops of the products over many steps, which all workers share in any split */
    double meetings;      /* barriers of a step when its blocks are shared */
} fl_load;

typedef struct fl_work { /* one call */
    int directions;
    int whole_rows;      /* 1: blocks are never shared */
    int backward;        /* 1: directions go one after the other */
    int32_t rows;        /* of the batch; this and the next two at most FL_LARGEST */
    int32_t blocks;      /* of hidden units: as many workers as these may share a step */
    int32_t shares;      /* in how many parts the product of a step can be cut; backward has fewer than blocks */
    double steps;
    double all_bytes;    /* weights of all layers and directions: a call of one step finds what the last one left */
    double chunks;       /* in how many pieces the steps go through the layers */
    double exchanged;    /* bytes of a row that the workers of shared blocks read from each other in a step */
    int kinds;           /* of layers: the first, and the others */
    fl_load load[2];
} fl_work;

/* The machine, made ready: ns for each flop and byte, and what grows with every doubling of the workers. */
typedef struct fl_costs {
    double flop, own_byte, shared_byte, shared_byte_all;
    double slower;               /* of all cores at once, by doubling: added to 1 */
    double sibling;              /* how much slower a thread is that shares its core */
    double cache;                /* bytes of weights that stay in a core's own */
    double cores;
    double start, start_each;    /* a second worker, every further one */
    double barrier, barrier_more;
} fl_costs;
/* awake: 1 when the workers wait for the call, so that it begins with a barrier; 0 when they sleep. */
fl_costs fl_costs_of(const fl_machine *machine, int dtype, int awake);

/* ns of the whole call with n threads, or 0 where this split cannot take n threads. */
double fl_estimate_call(const fl_work *work, const fl_costs *costs, int split, int32_t n);

/* The best number of threads from 2 to limit for this split; of equals the first.  {0, 0}: it cannot be divided so, or
 * not among so few. */
fl_pair fl_estimate_best(const fl_work *work, const fl_costs *costs, int split, int32_t limit);

/* ns of one step of the first layer, all directions, on one thread */
double fl_estimate_step(const fl_work *work, const fl_costs *costs);

#endif
