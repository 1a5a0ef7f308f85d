/* The constants of the machine as a row of numbers: what is built in, and what is plausible. */
#ifndef FL_MACHINE_H
#define FL_MACHINE_H

#include "fastlstm_experimental.h"

/* In the order of the fields of fl_machine: FL_CONSTANT(NAME, built in, lowest, highest) */
#define FL_CONSTANT_ROWS                              \
    FL_CONSTANT(FLOPS_F32, 100, 0.5, 1000)            \
    FL_CONSTANT(FLOPS_F64, 50, 0.5, 1000)             \
    FL_CONSTANT(ALL_CORES_RATE, 0.7, 0.1, 1)          \
    FL_CONSTANT(PRIVATE_RATE, 90, 1, 1000)            \
    FL_CONSTANT(PRIVATE_CACHE, 786432, 131072, 16777216) \
    FL_CONSTANT(SHARED_RATE, 45, 0.5, 1000)           \
    FL_CONSTANT(SHARED_RATE_ALL, 1000, 0.5, 100000)   \
    FL_CONSTANT(WAKE, 12000, 1000, 200000)            \
    FL_CONSTANT(WAKE_EACH, 1500, 50, 50000)           \
    FL_CONSTANT(BARRIER, 600, 50, 20000)              \
    FL_CONSTANT(BARRIER_ALL, 2400, 50, 100000)        \
    FL_CONSTANT(CORES, 64, 1, 1024)                   \
    FL_CONSTANT(SIBLING_RATE, 0.5, 0.1, 1)

#define FL_CONSTANT(NAME, usual, lowest, highest) FL_##NAME,
enum { FL_CONSTANT_ROWS FL_CONSTANTS };
#undef FL_CONSTANT

double fl_constant_usual(int constant);
double fl_constant_plausible(int constant, double value); /* the nearest number of its range */

#endif
