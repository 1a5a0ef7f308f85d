/* What a call will do, and why: a part of fastlstm.h, which includes it. */
#ifndef FASTLSTM_PLAN_H
#define FASTLSTM_PLAN_H

enum fl_split { FL_SPLIT_NONE = 0, FL_SPLIT_ROWS, FL_SPLIT_BLOCKS, FL_SPLIT_DIRECTIONS, FL_SPLIT_COUNT };

typedef struct fl_pair { /* the best number of threads of a split */
    double ns;           /* estimate for the whole call */
    int32_t threads;     /* 0: the call cannot be divided so, or needs no comparing: see FL_WHY_SMALL */
} fl_pair;

/* What a call will do, and why.  Results never depend on it on the panel path. */
typedef struct fl_plan {
    int32_t threads;
    int32_t split;      /* enum fl_split */
    int64_t chunk;      /* steps a unidirectional stack takes through all layers before the next ones */
    int64_t hoist;      /* steps whose input products are computed ahead as one product; 0: none */
    int32_t blas;       /* 1: large products go to BLAS */
    int32_t ahead;      /* steps whose input products are computed beside as many earlier steps; 0: apart from them */
    double step_flops;  /* of one step of the first layer */
    double panel_bytes; /* weights one step of all layers reads */
    /* why: */
    int32_t why;                                             /* enum fl_why: threads and split */
    int32_t why_hoist;                                       /* enum fl_why_hoist */
    double work_ns;                                          /* estimate for the whole call on one thread */
    double estimate_ns;                                      /* and as it is planned */
    fl_pair compared[FL_SPLIT_COUNT];                        /* by enum fl_split; the first is one thread */
    double step_ns;                                          /* of one step of the first layer on one thread */
    double layer_bytes;                                      /* weights one step of one layer reads, on average */
    double flops_per_ns, wake_ns, barrier_ns, private_cache; /* the machine it was weighed for, see fl_machine */
} fl_plan;

enum fl_why {
    FL_WHY_LIMIT = 0, /* no more than one thread allowed */
    FL_WHY_EMPTY,     /* no steps or no rows */
    FL_WHY_SMALL,     /* half of the work is less than waking a thread */
    FL_WHY_UNSHARED,  /* every way to share it takes longer than one thread */
    FL_WHY_ROWS,      /* rows take least: no barrier is needed */
    FL_WHY_FEW_ROWS,  /* blocks take least: too few rows to keep as many threads busy */
    FL_WHY_CACHE,     /* blocks take least: a layer's weights do not fit one core's cache, their parts may */
    FL_WHY_DIRECTIONS /* the two directions on two threads take least */
};
enum fl_why_hoist {
    FL_HOIST_FEW_ROWS = 0, /* hoisted: a step has too few rows to fill a tile, several steps together fill it */
    FL_HOIST_BLAS,         /* hoisted: BLAS takes large products */
    FL_HOIST_FULL_TILE,    /* not: a step's own rows fill a tile */
    FL_HOIST_NARROW,       /* not: so few inputs that storing partial sums would cost more */
    FL_HOIST_ONE_STEP,     /* not: there is only one step */
    FL_HOIST_ROW           /* hoisted: the cell must see the sums of a whole row, so they wait in memory anyway */
};

enum fl_status fl_plan_forward(const fl_model *model, int64_t steps, int64_t batch, int threads, fl_plan *out);
enum fl_status fl_plan_backward(const fl_model *model, int64_t steps, int64_t batch, int threads, fl_plan *out);
/* The plan of fl_forward with awake_ns above 0 (awake 1) or without (0), as fl_plan_forward. */
enum fl_status fl_plan_call(const fl_model *model, int64_t steps, int64_t batch, int threads, int awake, fl_plan *out);

#endif
