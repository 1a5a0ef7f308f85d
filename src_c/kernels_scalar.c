/* The kernels for SCALAR: see kernels.inc.h. */
#define FL_ISA FL_ISA_SCALAR
#define FL_TABLE fl_kernels__scalar
#define FL_TABLE_NAME "scalar"
#include "kernels_region.inc.h"
