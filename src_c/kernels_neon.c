/* The kernels for NEON: see kernels.inc.h. */
#if defined(__aarch64__)
#define FL_ISA FL_ISA_NEON
#define FL_TABLE fl_kernels__neon
#define FL_TABLE_NAME "neon"
#include <arm_neon.h>
#include "kernels_region.inc.h"
#else
typedef int fl_no_kernels_here; /* a translation unit may not be empty */
#endif
