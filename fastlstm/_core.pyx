# cython: language_level=3, boundscheck=False, wraparound=False
"""The border: arrays to pointers, the call without the GIL, a status to an exception.

Callers (functional.py, stream.py, network.py) have checked shapes and dtypes in words; what is checked again here is
only what would otherwise corrupt memory.
"""
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint16_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

import os
import threading

cimport numpy as cnp
import numpy as np

cnp.import_array()

ACTIVATIONS = {"none": FL_ACT_NONE, "relu": FL_ACT_RELU, "tanh": FL_ACT_TANH, "sigmoid": FL_ACT_SIGMOID,
               "softmax": FL_ACT_SOFTMAX, "exp": FL_ACT_EXP, "identity": FL_ACT_IDENTITY,
               "hard_sigmoid": FL_ACT_HARD_SIGMOID, "softsign": FL_ACT_SOFTSIGN, "softplus": FL_ACT_SOFTPLUS,
               "elu": FL_ACT_ELU, "leaky_relu": FL_ACT_LEAKY_RELU, "thresholded_relu": FL_ACT_THRESHOLDED_RELU,
               "scaled_tanh": FL_ACT_SCALED_TANH, "affine": FL_ACT_AFFINE}
SPLITS = ("none", "rows", "blocks", "directions")
WHY = ("limit", "empty", "small", "unshared", "rows", "few rows", "cache", "directions")
WHY_HOIST = ("few rows", "blas", "full tile", "narrow", "one step", "row")
# In the order of enum fl_bound
BOUNDS = ("build", "here", "set", "environment", "affinity", "quota", "openmp", "nested", "most")
GEMM_MODES = ("auto", "panel", "blas")


cdef int check(fl_status status) except -1:
    if status == FL_OK:
        return 0
    text = fl_status_text(status).decode()
    if status == FL_ERR_MEMORY or status == FL_ERR_OVERFLOW:
        raise MemoryError(text)
    if status == FL_ERR_ISA:
        raise RuntimeError(f"FASTLSTM_ISA={os.environ.get('FASTLSTM_ISA', '')!r}: {text}; "
                           f"choices here: {', '.join(available_isas())}")
    if status == FL_ERR_THREADS:
        raise RuntimeError(f"FASTLSTM_NUM_THREADS={os.environ.get('FASTLSTM_NUM_THREADS', '')!r} must be an integer in "
                           "0..1024 (0: the default)")
    if status == FL_ERR_GEMM or status == FL_ERR_BLAS:
        raise RuntimeError(text)
    raise ValueError(text)


include "_core_process.pxi"
include "_core_signals.pxi"
include "_core_locks.pxi"
include "_core_memory.pxi"
include "_core_teams.pxi"
include "_core_model.pxi"
include "_core_layers.pxi"
