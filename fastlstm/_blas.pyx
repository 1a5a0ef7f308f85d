# cython: language_level=3, boundscheck=False
"""SciPy's BLAS behind the engine's row-major table. The only file that knows Fortran's order.

Importing this loads SciPy, so nothing imports it before a product is to go to BLAS.
"""
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t
from scipy.linalg.cython_blas cimport dgemm as fortran_dgemm, sgemm as fortran_sgemm

from fastlstm._core cimport fl_blas_t

# Fortran stores columns first, so it sees our row-major A, B, C as their transposes:
# C := alpha * op(A) . op(B) + beta * C  is  C' := alpha * op(B)' . op(A)' + beta * C'.


cdef void sgemm(int trans_a, int trans_b, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
                const float *b, int64_t ldb, float beta, float *c, int64_t ldc) noexcept nogil:
    cdef char ta = b'T' if trans_a else b'N', tb = b'T' if trans_b else b'N'
    cdef int m_ = <int>m, n_ = <int>n, k_ = <int>k, lda_ = <int>lda, ldb_ = <int>ldb, ldc_ = <int>ldc
    fortran_sgemm(&tb, &ta, &n_, &m_, &k_, &alpha, <float *>b, &ldb_, <float *>a, &lda_, &beta, c, &ldc_)


cdef void dgemm(int trans_a, int trans_b, int64_t m, int64_t n, int64_t k, double alpha, const double *a, int64_t lda,
                const double *b, int64_t ldb, double beta, double *c, int64_t ldc) noexcept nogil:
    cdef char ta = b'T' if trans_a else b'N', tb = b'T' if trans_b else b'N'
    cdef int m_ = <int>m, n_ = <int>n, k_ = <int>k, lda_ = <int>lda, ldb_ = <int>ldb, ldc_ = <int>ldc
    fortran_dgemm(&tb, &ta, &n_, &m_, &k_, &alpha, <double *>b, &ldb_, <double *>a, &lda_, &beta, c, &ldc_)


cdef fl_blas_t table_
table_.sgemm = sgemm
table_.dgemm = dgemm
table = PyCapsule_New(&table_, b"fl_blas_t", NULL)
