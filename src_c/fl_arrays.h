/* The arrays of a call as bytes in memory: whether their sizes fit, and whether what is written overlaps another. */
#ifndef FL_ARRAYS_H
#define FL_ARRAYS_H

#include "fl_internal.h"

/* Rows of `width` bytes, `outer` times `inner` of them, that many bytes apart.  A contiguous array is one row. */
typedef struct fl_array {
    int64_t first, end; /* addresses of its first byte and behind its last one; equal: there is nothing */
    int64_t data;       /* address of row (0, 0); strides may be negative */
    int64_t outer, inner, outer_step, inner_step, width;
} fl_array;

/* FL_ERR_OVERFLOW: sizes or strides do not fit an object.  FL_ERR_ARGUMENT: what the call writes overlaps something
 * else in a way that fastlstm.h does not allow.  After the other checks: pointers that must be there are.
 * workspace_used: bytes of the workspace that the call needs; a caller may give more. */
enum fl_status fl_forward_arrays(const fl_model *m, const fl_call *call, size_t workspace_used);
enum fl_status fl_backward_arrays(const fl_model *m, const fl_call *call, const fl_backward_call *back,
                                  size_t workspace_used);

/* Whether contiguous blocks overlap; nothing does with NULL or no bytes. */
static inline int fl_blocks_meet(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    const uintptr_t p = (uintptr_t)a, q = (uintptr_t)b;
    return a && b && a_bytes && b_bytes && (p < q ? q - p < a_bytes : p - q < b_bytes);
}

#endif
