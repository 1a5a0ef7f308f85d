/* Products that may take long, cut into pieces between which a call can end.  No result depends on how they are cut:
 * every sum is formed by one piece, in the order in which the whole would form it. */
#ifndef FL_PIECES_H
#define FL_PIECES_H

#include "fastlstm.h"
#include "fl_kernels.h"
#include "fl_stop.h"

typedef struct fl_pieces {
    fl_stop *stop; /* NULL: nothing is cut */
    int worker;
    int64_t unit;   /* bytes of a real */
    double flop_ns; /* the plan's time of one floating-point operation */
} fl_pieces;

/* The kernels' own functions.  Once the call is to end they return without having done all. */
void fl_pieces_product(const fl_real_kernels *real, const fl_product_args *product, const fl_pieces *of);
void fl_pieces_outer(const fl_real_kernels *real, const fl_outer_args *outer, const fl_pieces *of);

/* C (m, n) := op(A) . op(B) + beta * C, by BLAS, on the calling thread. */
typedef struct fl_matmul {
    int dtype, trans_a, trans_b;
    int64_t m, n, k;
    const void *a, *b;
    void *c;
    int64_t lda, ldb, ldc;
    double beta;
} fl_matmul;
/* Products of more than 2^34 operations (2^33 in float64; some 0.2 s) are halved, whether or not the call may end
 * early, so their bits depend on sizes alone, as those of BLAS do.  One piece bounds how soon the call can end. */
void fl_pieces_gemm(const fl_blas_t *blas, const fl_matmul *gemm, fl_stop *stop);

#endif
