# cython: language_level=3, boundscheck=False, wraparound=False
"""The border: arrays to pointers, the call without the GIL, a status to an exception.

Callers (functional.py, stream.py, network.py) have checked shapes and dtypes in words; what is checked again here is
only what would otherwise corrupt memory.
"""
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cimport numpy as cnp
import numpy as np

cnp.import_array()

ACTIVATIONS = {"none": FL_ACT_NONE, "relu": FL_ACT_RELU, "tanh": FL_ACT_TANH, "sigmoid": FL_ACT_SIGMOID,
               "softmax": FL_ACT_SOFTMAX, "exp": FL_ACT_EXP}
SPLITS = ("none", "rows", "blocks", "directions")
GEMM_MODES = ("auto", "panel", "blas")


cdef int check(fl_status status) except -1:
    if status == FL_OK:
        return 0
    text = fl_status_text(status).decode()
    if status == FL_ERR_MEMORY or status == FL_ERR_OVERFLOW:
        raise MemoryError(text)
    if status == FL_ERR_ISA:
        import os
        raise RuntimeError(f"FASTLSTM_ISA={os.environ.get('FASTLSTM_ISA', '')!r}: {text}; "
                           f"choices here: {', '.join(available_isas())}")
    if status == FL_ERR_GEMM or status == FL_ERR_BLAS:
        raise RuntimeError(text)
    raise ValueError(text)


# --- process ----------------------------------------------------------------------------------------------------------

def isa():
    """Name of the instruction set in use. RuntimeError when FASTLSTM_ISA names none of this machine's."""
    cdef const char *name
    check(fl_isa_name(&name))
    return name.decode()


def available_isas():
    """Names of the instruction sets this machine can run, best first."""
    names = []
    while fl_isa_available(len(names)) != NULL:
        names.append(fl_isa_available(len(names)).decode())
    return tuple(names)


def force_isa(name):
    """For tests: the set of models packed from now on; None goes back to the environment's."""
    cdef bytes text = name.encode() if name is not None else b""
    if fl_isa_force(<const char *>text if name is not None else NULL) != FL_OK:
        raise RuntimeError(f"no instruction set {name!r} on this machine; choices: {', '.join(available_isas())}")


def force_gemm(name):
    """For tests: like FASTLSTM_GEMM, for models packed from now on; None goes back to the environment's."""
    cdef bytes text = name.encode() if name is not None else b""
    check(fl_gemm_force(<const char *>text if name is not None else NULL))


def gemm_mode():
    cdef int mode
    check(fl_gemm_mode(&mode))
    return GEMM_MODES[mode]


def get_num_threads():
    return fl_get_num_threads()


def set_num_threads(int n):
    fl_set_num_threads(n)


def has_openmp():
    return bool(fl_has_openmp())


def teams_active():
    """Threads inside calls right now, over the whole process."""
    return fl_teams_active()


def cells():
    """(name, gates) of every cell the engine was built with."""
    return tuple((fl_cell_name(i).decode(), fl_cell_gates(i)) for i in range(fl_cell_count()))


def apply(str activation, x):
    """The kernels' own exp, tanh, sigmoid, relu over an array, by the instruction set in use: for tests."""
    cdef cnp.ndarray source = np.ascontiguousarray(x)
    if source.dtype != np.float32 and source.dtype != np.float64:
        raise TypeError(f"x must be float32 or float64, got {source.dtype}")
    cdef cnp.ndarray out = np.empty_like(source)
    check(fl_map(source.dtype == np.float64, ACTIVATIONS[activation], cnp.PyArray_DATA(source),
                 cnp.PyArray_DATA(out), source.size))
    return out


def probe_fma(dtype, int64_t n, int threads=1):
    """n rounds of independent fused multiply-adds on each of `threads` threads; returns how many operations in all."""
    cdef double flops
    cdef int code = np.dtype(dtype) == np.float64
    cdef fl_status status
    with nogil:
        status = fl_probe(code, n, NULL, 0, threads, &flops)
    check(status)
    return flops


def probe_read(cnp.ndarray data, int64_t n, int threads=1):
    """n passes over a contiguous float array, each of `threads` threads reading its share."""
    cdef void *from_ = cnp.PyArray_DATA(data)
    cdef size_t nbytes = data.nbytes
    cdef int code = data.dtype == np.float64
    cdef fl_status status
    with nogil:
        status = fl_probe(code, n, from_, nbytes, threads, NULL)
    check(status)


# --- memory -----------------------------------------------------------------------------------------------------------

cdef class Memory:
    """A 64-byte aligned block owned by a NumPy array, so that views of it keep it alive."""
    cdef readonly object array
    cdef void *data
    cdef size_t bytes

    def __cinit__(self, size_t nbytes):
        if nbytes > <size_t>(1 << 62):
            raise MemoryError("the sizes are too large for this machine's address space")
        base = np.empty(nbytes + 64, np.uint8)
        cdef uintptr_t at = <uintptr_t>cnp.PyArray_DATA(base)
        cdef size_t skip = <size_t>((64 - at % 64) % 64)
        self.array = base[skip:skip + nbytes]
        self.data = <void *>(at + skip)
        self.bytes = nbytes


cdef class Pool:
    """Blocks that calls have finished with: concurrent calls each take their own, and nothing shrinks.

    list.append and list.pop are atomic under the GIL and under the free-threaded interpreter's list locks.
    """
    cdef list free
    cdef int keep

    def __cinit__(self, int keep=8):
        self.free = []
        self.keep = keep

    cdef Memory take(self, size_t nbytes):
        cdef Memory block
        try:
            block = self.free.pop()
        except IndexError:
            return Memory(nbytes)
        return block if block.bytes >= nbytes else Memory(nbytes)

    cdef void give(self, Memory block):
        if len(self.free) < self.keep:
            self.free.append(block)


cdef class Cache:
    """What a forward pass keeps for backward. Holds its own copies: the caller may reuse x, y and the state."""
    cdef Memory memory
    cdef Pool pool
    cdef readonly int64_t steps, batch
    cdef readonly object x, y, h0, c0, lengths, reset, dropout
    cdef readonly Model model

    def __dealloc__(self):
        if self.pool is not None and self.memory is not None:
            self.pool.give(self.memory)

    @property
    def nbytes(self):
        return self.memory.bytes

    def __reduce__(self):
        raise TypeError("a cache belongs to the process that made it and cannot be pickled or copied")

    def views(self, int layer, int direction):
        """gates (T, B, G, H) after their activation, c (T, B, H), y (T, B, D*R) or None for the last layer.

        For a cache made with pooled=False only: views outlive the cache.
        """
        cdef fl_cache_slot slot = fl_cache_find(self.model.model, self.steps, self.batch, self.dropout is not None,
                                                layer, direction)
        m = self.model
        shape = (self.steps, self.batch)

        def view(offset, tail):
            count = self.steps * self.batch * int(np.prod(tail))
            start = int(offset)
            return self.memory.array[start:start + count * m.dtype.itemsize].view(m.dtype).reshape(shape + tail)

        last = layer == m.spec.num_layers - 1
        return (view(slot.gates, (m.gates, m.hidden_size)), view(slot.c, (m.hidden_size,)),
                None if last else view(slot.y, (m.spec.directions * m.recurrent,)))


# --- model ------------------------------------------------------------------------------------------------------------

cdef const fl_blas_t *blas_table() except NULL:
    from fastlstm import _blas
    return <const fl_blas_t *>PyCapsule_GetPointer(_blas.table, b"fl_blas_t")


cdef inline void start_call(fl_call *call, int64_t steps, int64_t batch, int threads) noexcept:
    memset(call, 0, sizeof(fl_call))
    call.steps, call.batch, call.threads = steps, batch, threads


cdef inline void *data_of(object array):
    return NULL if array is None else cnp.PyArray_DATA(<cnp.ndarray>array)


cdef class Model:
    """Packed, immutable weights of one recurrent stack.

    weights: per layer and direction a tuple (weight_ih, weight_hh, bias_ih | None, bias_hh | None, weight_hr | None)
    of C-contiguous arrays of dtype.
    """
    cdef fl_model *model
    cdef fl_spec spec
    cdef const fl_blas_t *blas
    cdef Pool workspaces, caches
    cdef readonly object dtype
    cdef readonly int64_t gates, hidden_size, input_size, recurrent
    cdef readonly bint backward_ready

    def __cinit__(self, str cell, dtype, int64_t input_size, int64_t hidden_size, int num_layers, int directions,
                  int64_t proj_size, list weights, bint backward=False):
        cdef fl_weights *table
        names = [name for name, _ in cells()]
        self.dtype = np.dtype(dtype)
        self.spec.cell = names.index(cell)
        self.spec.dtype = self.dtype == np.float64
        self.spec.num_layers, self.spec.directions = num_layers, directions
        self.spec.input_size, self.spec.hidden_size, self.spec.proj_size = input_size, hidden_size, proj_size
        self.spec.flags = FL_MODEL_BACKWARD if backward else 0
        self.gates = fl_cell_gates(self.spec.cell)
        self.input_size, self.hidden_size, self.recurrent = input_size, hidden_size, proj_size or hidden_size
        self.backward_ready = backward
        self.workspaces, self.caches = Pool(), Pool(2)
        if len(weights) != num_layers * directions:
            raise ValueError(f"{num_layers * directions} sets of weights expected, got {len(weights)}")
        self._check_weights(weights)
        table = <fl_weights *>calloc(len(weights), sizeof(fl_weights))
        if table == NULL:
            raise MemoryError()
        try:
            for i, (weight_ih, weight_hh, bias_ih, bias_hh, weight_hr) in enumerate(weights):
                table[i].weight_ih, table[i].weight_hh = data_of(weight_ih), data_of(weight_hh)
                table[i].bias_ih, table[i].bias_hh = data_of(bias_ih), data_of(bias_hh)
                table[i].weight_hr = data_of(weight_hr)
            check(fl_model_create(&self.model, &self.spec, table))
        finally:
            free(table)
        self.blas = blas_table() if gemm_mode() == "blas" else NULL

    def _check_weights(self, list weights):
        rows = self.gates * self.hidden_size
        for i, (weight_ih, weight_hh, bias_ih, bias_hh, weight_hr) in enumerate(weights):
            fan_in = self.input_size if i < self.spec.directions else self.recurrent * self.spec.directions
            for array, shape in ((weight_ih, (rows, fan_in)), (weight_hh, (rows, self.recurrent)),
                                 (bias_ih, (rows,)), (bias_hh, (rows,)),
                                 (weight_hr, (self.spec.proj_size, self.hidden_size))):
                if array is not None:
                    self._check_array(array, shape)

    def _check_array(self, array, shape):
        if array.shape != shape or array.dtype != self.dtype or not array.flags.c_contiguous:
            raise ValueError(f"expected a contiguous {self.dtype} array of shape {shape}, "
                             f"got {array.dtype} {array.shape}")

    def __dealloc__(self):
        fl_model_free(self.model)

    @property
    def isa(self):
        return fl_model_isa(self.model).decode()

    @property
    def nbytes(self):
        return fl_model_bytes(self.model)

    def plan(self, int64_t steps, int64_t batch, bint backward=False, bint training=False, int threads=0):
        """The plan of a call as a dict; functional.Plan puts it in words."""
        cdef fl_plan p
        if backward:
            check(fl_plan_backward(self.model, steps, batch, threads, &p))
        else:
            check(fl_plan_forward(self.model, steps, batch, training, threads, &p))
        cdef dict found = p
        found["split"] = SPLITS[p.split]
        return found

    def workspace_bytes(self, int64_t steps, int64_t batch, bint backward=False, bint training=False, int threads=0):
        """Bytes of scratch memory a call takes."""
        cdef fl_call call
        cdef char nothing
        start_call(&call, steps, batch, threads)
        call.cache = &nothing if training else NULL
        return fl_backward_bytes(self.model, &call) if backward else fl_forward_bytes(self.model, &call)

    cdef fl_sequence sequence(self, cnp.ndarray a):
        cdef fl_sequence s
        cdef int64_t unit = cnp.PyArray_ITEMSIZE(a)
        s.data = cnp.PyArray_DATA(a)
        s.step = cnp.PyArray_STRIDE(a, 0) // unit
        s.row = cnp.PyArray_STRIDE(a, 1) // unit
        return s

    def forward(self, cnp.ndarray x, h0, c0, cnp.ndarray y, cnp.ndarray hn, cnp.ndarray cn, lengths=None, reset=None,
                int threads=0):
        """Inference. x (T, B, I) and y (T, B, D*R): features contiguous, any other strides; the rest contiguous."""
        cdef fl_call call
        cdef Memory workspace
        cdef fl_status status
        start_call(&call, cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1), threads)
        self._fill(&call, x, h0, c0, y, hn, cn, lengths, reset)
        workspace = self.workspaces.take(fl_forward_bytes(self.model, &call))
        call.workspace, call.workspace_bytes = workspace.data, workspace.bytes
        with nogil:
            status = fl_forward(self.model, &call)
        self.workspaces.give(workspace)
        check(status)

    cdef int _fill(self, fl_call *call, cnp.ndarray x, h0, c0, cnp.ndarray y, hn, cn, lengths, reset) except -1:
        call.x, call.y = self.sequence(x), self.sequence(y)
        call.h0, call.c0 = data_of(h0), data_of(c0)
        call.hn, call.cn = data_of(hn), data_of(cn)
        call.lengths = <const int64_t *>data_of(lengths)
        call.reset = <const unsigned char *>data_of(reset)
        call.blas = self.blas
        return 0

    def forward_cached(self, cnp.ndarray x, h0, c0, cnp.ndarray hn, cnp.ndarray cn, lengths=None, reset=None,
                       dropout=None, int threads=0, bint pooled=True):
        """Forward that keeps what backward needs. All arrays contiguous and the cache's own from here on.

        Returns the Cache; cache.y is the output (T, B, D*R). pooled=False: memory that views may outlive.
        """
        cdef Cache cache = Cache()
        cdef fl_status status
        cdef Memory workspace
        cdef fl_call call
        cache.model, cache.steps, cache.batch = self, cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1)
        cache.x, cache.h0, cache.c0, cache.lengths, cache.reset, cache.dropout = x, h0, c0, lengths, reset, dropout
        cache.y = np.empty((cache.steps, cache.batch, self.spec.directions * self.recurrent), self.dtype)
        cdef size_t nbytes = fl_cache_bytes(self.model, cache.steps, cache.batch, dropout is not None)
        cache.memory = self.caches.take(nbytes) if pooled else Memory(nbytes)
        if pooled:
            cache.pool = self.caches
        start_call(&call, cache.steps, cache.batch, threads)
        self._fill(&call, x, h0, c0, cache.y, hn, cn, lengths, reset)
        call.cache, call.dropout = cache.memory.data, data_of(dropout)
        workspace = self.workspaces.take(fl_forward_bytes(self.model, &call))
        call.workspace, call.workspace_bytes = workspace.data, workspace.bytes
        with nogil:
            status = fl_forward(self.model, &call)
        self.workspaces.give(workspace)
        check(status)
        return cache

    def backward(self, Cache cache, cnp.ndarray dy, dhn, dcn, dx, cnp.ndarray dh0, cnp.ndarray dc0, list gradients,
                 int threads=0):
        """dy (T, B, D*R), features contiguous; dx (T, B, I) contiguous or None; gradients: per layer and direction
        (weight_ih, weight_hh, bias, weight_hr | None), written."""
        cdef fl_call call
        cdef fl_backward_call back
        cdef Memory workspace
        cdef fl_status status
        cdef fl_gradients *table = <fl_gradients *>calloc(len(gradients), sizeof(fl_gradients))
        if table == NULL:
            raise MemoryError()
        start_call(&call, cache.steps, cache.batch, threads)
        try:
            for i, (weight_ih, weight_hh, bias, weight_hr) in enumerate(gradients):
                table[i].weight_ih, table[i].weight_hh = data_of(weight_ih), data_of(weight_hh)
                table[i].bias, table[i].weight_hr = data_of(bias), data_of(weight_hr)
            self._fill(&call, cache.x, cache.h0, cache.c0, cache.y, dh0, dc0, cache.lengths, cache.reset)
            call.cache, call.dropout = cache.memory.data, data_of(cache.dropout)
            back.dy = self.sequence(dy)
            back.dhn, back.dcn, back.dx = data_of(dhn), data_of(dcn), data_of(dx)
            back.dh0, back.dc0 = data_of(dh0), data_of(dc0)
            back.gradients = table
            workspace = self.workspaces.take(fl_backward_bytes(self.model, &call))
            call.workspace, call.workspace_bytes = workspace.data, workspace.bytes
            with nogil:
                status = fl_backward(self.model, &call, &back)
            self.workspaces.give(workspace)
        finally:
            free(table)
        check(status)


cdef class Stepper:
    """State and scratch memory of one stream: a step allocates its output at most."""
    cdef Model model
    cdef Memory workspace
    cdef cnp.ndarray h_, c_
    cdef int typenum
    cdef int64_t batch, inputs, outputs

    def __cinit__(self, Model model, int64_t batch, cnp.ndarray h, cnp.ndarray c):
        if model.spec.directions != 1:
            raise ValueError("a bidirectional model has no steps")
        self.model, self.batch, self.h_, self.c_ = model, batch, h, c
        self.inputs, self.outputs = model.input_size, model.recurrent
        self.typenum = cnp.NPY_DOUBLE if model.spec.dtype else cnp.NPY_FLOAT
        self.workspace = Memory(fl_step_bytes(model.model, batch))

    def fits(self, x):
        """Whether step() takes x as it is: (B, I), the model's dtype, C-contiguous, aligned."""
        return self._fits(x, self.inputs)

    cdef bint _fits(self, object x, int64_t width):
        cdef cnp.ndarray a
        if not cnp.PyArray_Check(x):
            return False
        a = <cnp.ndarray>x
        return (cnp.PyArray_TYPE(a) == self.typenum and cnp.PyArray_NDIM(a) == 2
                and cnp.PyArray_DIM(a, 0) == self.batch and cnp.PyArray_DIM(a, 1) == width
                and cnp.PyArray_ISCARRAY_RO(a))

    def step(self, x, out=None):
        """x (B, I) -> (B, R); None when x or out does not fit (nothing was done)."""
        cdef cnp.npy_intp shape[2]
        cdef fl_status status
        if not self._fits(x, self.inputs):
            return None
        if out is None:
            shape[0], shape[1] = self.batch, self.outputs
            out = cnp.PyArray_EMPTY(2, shape, self.typenum, 0)
        elif not self._fits(out, self.outputs) or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out):
            return None
        cdef void *from_ = cnp.PyArray_DATA(<cnp.ndarray>x)
        cdef void *to = cnp.PyArray_DATA(<cnp.ndarray>out)
        with nogil:
            status = fl_step(self.model.model, self.batch, from_, cnp.PyArray_DATA(self.h_),
                             cnp.PyArray_DATA(self.c_), to, self.workspace.data, self.workspace.bytes)
        if status != FL_OK:
            check(status)
        return out


cdef class Dense:
    """y = act(x . W^T + b) on packed panels. weight (O, I), bias (O,) or None, C-contiguous."""
    cdef fl_dense *dense
    cdef readonly object dtype
    cdef readonly int64_t inputs, outputs

    def __cinit__(self, cnp.ndarray weight, bias, str activation="none"):
        self.dtype = weight.dtype
        if not weight.flags.c_contiguous or weight.ndim != 2 or self.dtype not in (np.float32, np.float64):
            raise ValueError("weight must be a contiguous float32 or float64 matrix")
        self.outputs, self.inputs = weight.shape[0], weight.shape[1]
        if bias is not None and (bias.shape != (self.outputs,) or bias.dtype != self.dtype
                                 or not bias.flags.c_contiguous):
            raise ValueError(f"bias must be a contiguous {self.dtype} vector of {self.outputs}")
        check(fl_dense_create(&self.dense, self.dtype == np.float64, self.inputs, self.outputs,
                              cnp.PyArray_DATA(weight), data_of(bias), ACTIVATIONS[activation]))

    def __dealloc__(self):
        fl_dense_free(self.dense)

    def forward(self, cnp.ndarray x, int threads=0):
        """x (N, I) contiguous -> (N, O)."""
        if x.ndim != 2 or x.shape[1] != self.inputs or x.dtype != self.dtype or not x.flags.c_contiguous:
            raise ValueError(f"x must be a contiguous {self.dtype} array of shape (N, {self.inputs})")
        cdef cnp.ndarray y = np.empty((x.shape[0], self.outputs), self.dtype)
        cdef int64_t rows = x.shape[0]
        cdef void *from_ = cnp.PyArray_DATA(x)
        cdef void *to = cnp.PyArray_DATA(y)
        cdef fl_status status
        with nogil:
            status = fl_dense_forward(self.dense, rows, from_, to, threads)
        check(status)
        return y
