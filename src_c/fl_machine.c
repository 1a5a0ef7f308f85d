/* The machine in some numbers, which fl_plan.c weighs: the built-in ones, or those that were set.
 *
 * They decide who works on what and never a result, so a figure taken at a bad moment costs time at worst.  Whatever
 * comes in is brought into a plausible range first.  fl_measure.c finds them. */
#include "fl_machine.h"

#include <float.h>
#include <stdatomic.h>
#include <string.h>

_Static_assert(sizeof(fl_machine) == FL_CONSTANTS * sizeof(double), "fl_machine holds these numbers and nothing else");

/* Built in: a Zen 4 server.  No thread of it is taken for a sibling below 64, as nothing is known of its cores. */
#define FL_CONSTANT(NAME, usual, lowest, highest) usual,
static const double usual[FL_CONSTANTS] = {FL_CONSTANT_ROWS};
/* Each by itself: who reads while another sets may see some old and some new, and a mixture is plausible too. */
static _Atomic double in_use[FL_CONSTANTS] = {FL_CONSTANT_ROWS};
#undef FL_CONSTANT

double fl_constant_usual(int constant) { return usual[constant]; }

double fl_constant_plausible(int constant, double value)
{
#define FL_CONSTANT(NAME, usual, lowest, highest) {lowest, highest},
    static const double range[FL_CONSTANTS][2] = {FL_CONSTANT_ROWS};
#undef FL_CONSTANT
    const double lowest = range[constant][0], highest = range[constant][1];
    return value < lowest ? lowest : value > highest ? highest : value;
}

void fl_machine_get(fl_machine *out)
{
    double value[FL_CONSTANTS];
    if (!out) return;
    for (int i = 0; i < FL_CONSTANTS; i++) value[i] = atomic_load_explicit(&in_use[i], memory_order_relaxed);
    memcpy(out, value, sizeof value);
}

enum fl_status fl_machine_set(const fl_machine *machine)
{
    double value[FL_CONSTANTS];
    memcpy(value, machine ? (const void *)machine : (const void *)usual, sizeof value);
    for (int i = 0; i < FL_CONSTANTS; i++)
        if (!(value[i] > 0 && value[i] <= DBL_MAX)) return FL_ERR_ARGUMENT;
    for (int i = 0; i < FL_CONSTANTS; i++)
        atomic_store_explicit(&in_use[i], fl_constant_plausible(i, value[i]), memory_order_relaxed);
    return FL_OK;
}
