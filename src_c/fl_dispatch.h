/* Which kernels, which products: the choices made once at run time. */
#ifndef FL_DISPATCH_H
#define FL_DISPATCH_H

#include "fastlstm_experimental.h"
#include "fl_kernels.h"

/* The table for models created now.  FL_ERR_ISA when FASTLSTM_ISA names nothing this machine can run. */
enum fl_status fl_kernels_get(const fl_kernels **out);

#endif
