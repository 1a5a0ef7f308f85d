/* Sizes in bytes, checked before they become a size_t.  Factors have 64 bits; no object is larger than PTRDIFF_MAX,
 * which is 2^31 - 1 in a 32-bit process. */
#ifndef FL_SIZE_H
#define FL_SIZE_H

#include <stddef.h>
#include <stdint.h>

/* The same as fl_bytes for factors of any size; in fl_workspace.c. */
size_t fl_bytes_checked(int64_t a, int64_t b, int64_t c, int64_t unit);

/* a*b*c*unit; SIZE_MAX: a factor is negative, or no object can be so large. */
static inline size_t fl_bytes(int64_t a, int64_t b, int64_t c, int64_t unit)
{
    if ((uint64_t)(a | b | c | unit) >= 1u << 15) return fl_bytes_checked(a, b, c, unit);
    const uint64_t bytes = (uint64_t)a * (uint64_t)b * (uint64_t)c * (uint64_t)unit; /* below 2^60: no division */
    return bytes <= (uint64_t)PTRDIFF_MAX ? (size_t)bytes : SIZE_MAX;
}

/* a + b; SIZE_MAX: one of them is that, or no object can be so large. */
static inline size_t fl_bytes_sum(size_t a, size_t b)
{
    return a > (size_t)PTRDIFF_MAX || b > (size_t)PTRDIFF_MAX - a ? SIZE_MAX : a + b;
}

#endif
