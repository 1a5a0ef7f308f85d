/* The one place that opens a target region: kernels_<isa>.c names the set, this compiles the bodies for it, twice.
 * System headers come before the region, so that nothing of theirs is compiled for a machine we may not be on. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "fl_kernels.h"

#ifdef FL_TARGET
#define FL_PRAGMA(x) _Pragma(#x)
#if defined(__clang__)
#define FL_REGION(t) FL_PRAGMA(clang attribute push(__attribute__((target(t))), apply_to = function))
#else
#define FL_REGION(t) FL_PRAGMA(GCC push_options) FL_PRAGMA(GCC target(t))
#endif
FL_REGION(FL_TARGET)
#endif

#define FL_BITS 32
#include "kernels.inc.h"
#undef FL_BITS
#define FL_BITS 64
#include "kernels.inc.h"
#undef FL_BITS

extern const fl_kernels FL_TABLE;
const fl_kernels FL_TABLE = {.name = FL_TABLE_NAME, .lanes = {&fl_kernels_f32, &fl_kernels_f64}};

#ifdef FL_TARGET
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
