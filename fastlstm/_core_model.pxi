# Part of _core.pyx: memory, the packed model, its cache.


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
        """gates (T, B, G, H) after their activation, c (T, B, H) or None for a cell without, y (T, B, D*R) or None for
        the last layer.

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
        return (view(slot.gates, (m.kept, m.hidden_size))[:, :, :m.gates],
                view(slot.c, (m.hidden_size,)) if m.states == 2 else None,
                None if last else view(slot.y, (m.spec.directions * m.recurrent,)))


# --- model ------------------------------------------------------------------------------------------------------------

cdef const fl_blas_t *blas_table() except NULL:
    from fastlstm import _blas
    return <const fl_blas_t *>PyCapsule_GetPointer(_blas.table, b"fl_blas_t")


cdef inline void start_call(fl_call *call, int64_t steps, int64_t batch, int threads) noexcept:
    memset(call, 0, sizeof(fl_call))
    # asked once: the process's setting may change between the query of the workspace and the call
    call.steps, call.batch, call.threads = steps, batch, threads or fl_get_num_threads()


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
    cdef readonly int64_t gates, states, kept, hidden_size, input_size, recurrent
    cdef readonly bint backward_ready

    def __cinit__(self, str cell, dtype, int64_t input_size, int64_t hidden_size, int num_layers, int directions,
                  int64_t proj_size, list weights, bint backward=False, str activation="none"):
        cdef fl_weights *table
        names = [name for name, _ in cells()]
        self.dtype = np.dtype(dtype)
        self.spec.cell = names.index(cell)
        self.spec.dtype = self.dtype == np.float64
        self.spec.num_layers, self.spec.directions = num_layers, directions
        self.spec.input_size, self.spec.hidden_size, self.spec.proj_size = input_size, hidden_size, proj_size
        self.spec.flags = FL_MODEL_BACKWARD if backward else 0
        self.spec.activation = ACTIVATIONS[activation]
        self.gates, self.states = fl_cell_gates(self.spec.cell), fl_cell_states(self.spec.cell)
        self.kept = fl_cell_kept(self.spec.cell)
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

    @property
    def own_bias_hh(self):
        """Whether bias_hh has another gradient than bias_ih: part of it is weighed by a gate."""
        return self.kept > self.gates

    def plan(self, int64_t steps, int64_t batch, bint backward=False, int threads=0):
        """The plan of a call as a dict; planning.Plan puts it in words."""
        cdef fl_plan p
        if backward:
            check(fl_plan_backward(self.model, steps, batch, threads, &p))
        else:
            check(fl_plan_forward(self.model, steps, batch, threads, &p))
        cdef dict found = p
        found["split"], found["why"], found["why_hoist"] = SPLITS[p.split], WHY[p.why], WHY_HOIST[p.why_hoist]
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

    cdef int _run(self, fl_call *call, const fl_backward_call *back) except -1:
        """The call, with a workspace of its own. FL_ERR_WORKSPACE says that the machine's constants were set between
        the query and the call, which happens once in a process: the second time the size is right."""
        cdef Memory workspace
        cdef fl_status status = FL_ERR_WORKSPACE
        cdef int left = 3
        while status == FL_ERR_WORKSPACE and left:
            left -= 1
            workspace = self.workspaces.take(fl_backward_bytes(self.model, call) if back != NULL
                                             else fl_forward_bytes(self.model, call))
            call.workspace, call.workspace_bytes = workspace.data, workspace.bytes
            with nogil:
                status = fl_backward(self.model, call, back) if back != NULL else fl_forward(self.model, call)
            self.workspaces.give(workspace)
        return check(status)

    def forward(self, cnp.ndarray x, h0, c0, cnp.ndarray y, cnp.ndarray hn, cnp.ndarray cn, lengths=None, reset=None,
                int threads=0):
        """Inference. x (T, B, I) and y (T, B, D*R): features contiguous, any other strides; the rest contiguous.
        c0 and cn are None for a cell without c."""
        cdef fl_call call
        start_call(&call, cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1), threads)
        self._fill(&call, x, h0, c0, y, hn, cn, lengths, reset)
        self._run(&call, NULL)

    cdef bint _takes(self, object value, int64_t d0, int64_t d1, int64_t d2):
        """Whether the core can use value as it is: contiguous, the model's dtype, this shape (-1: any)."""
        cdef cnp.ndarray a
        if not cnp.PyArray_Check(value):
            return False
        a = <cnp.ndarray>value
        return (cnp.PyArray_TYPE(a) == (cnp.NPY_DOUBLE if self.spec.dtype else cnp.NPY_FLOAT)
                and cnp.PyArray_NDIM(a) == 3 and cnp.PyArray_ISCARRAY_RO(a) and cnp.PyArray_DIM(a, 2) == d2
                and (d0 < 0 or cnp.PyArray_DIM(a, 0) == d0) and (d1 < 0 or cnp.PyArray_DIM(a, 1) == d1))

    def infer(self, x, state, bint batch_first, int threads):
        """The whole of an inference call on arrays that fit already: (y, (hn, cn)), or (y, hn) of a cell without c, or
        None when something does not fit and functional.forward has to look at it."""
        cdef int64_t slots = self.spec.num_layers * self.spec.directions, steps, batch
        cdef int typenum = cnp.NPY_DOUBLE if self.spec.dtype else cnp.NPY_FLOAT
        cdef cnp.npy_intp shape[3]
        cdef fl_call call
        if not self._takes(x, -1, -1, self.input_size):
            return None
        steps, batch = cnp.PyArray_DIM(<cnp.ndarray>x, batch_first), cnp.PyArray_DIM(<cnp.ndarray>x, not batch_first)
        start_call(&call, steps, batch, threads)
        if state is not None and self.states == 1:
            if not self._takes(state, slots, batch, self.recurrent):
                return None
            call.h0 = data_of(state)
        elif state is not None:
            if type(state) is not tuple or len(<tuple>state) != 2:
                return None
            h0, c0 = <tuple>state
            if not self._takes(h0, slots, batch, self.recurrent) or not self._takes(c0, slots, batch, self.hidden_size):
                return None
            call.h0, call.c0 = data_of(h0), data_of(c0)
        shape[0], shape[1], shape[2] = slots, batch, self.recurrent
        hn = cnp.PyArray_EMPTY(3, shape, typenum, 0)
        shape[2] = self.hidden_size
        cn = cnp.PyArray_EMPTY(3, shape, typenum, 0) if self.states == 2 else None
        shape[batch_first], shape[not batch_first] = steps, batch
        shape[2] = self.spec.directions * self.recurrent
        y = cnp.PyArray_EMPTY(3, shape, typenum, 0)
        call.hn, call.cn = data_of(hn), data_of(cn)
        call.x.data, call.y.data = data_of(x), data_of(y)
        call.x.step = self.input_size * (1 if batch_first else batch)
        call.x.row = self.input_size * (steps if batch_first else 1)
        call.y.step = shape[2] * (1 if batch_first else batch)
        call.y.row = shape[2] * (steps if batch_first else 1)
        call.blas = self.blas
        self._run(&call, NULL)
        return y, (hn, cn) if self.states == 2 else hn

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
        self._run(&call, NULL)
        return cache

    def backward(self, Cache cache, cnp.ndarray dy, dhn, dcn, dx, cnp.ndarray dh0, cnp.ndarray dc0, list gradients,
                 int threads=0):
        """dy (T, B, D*R), features contiguous; dx (T, B, I) contiguous or None; gradients: per layer and direction
        (weight_ih, weight_hh, bias, bias_hh | None, weight_hr | None), written. bias_hh: only of cells where it has a
        gradient of its own, `own_bias_hh`."""
        cdef fl_call call
        cdef fl_backward_call back
        cdef fl_gradients *table = <fl_gradients *>calloc(len(gradients), sizeof(fl_gradients))
        if table == NULL:
            raise MemoryError()
        start_call(&call, cache.steps, cache.batch, threads)
        try:
            for i, (weight_ih, weight_hh, bias, bias_hh, weight_hr) in enumerate(gradients):
                table[i].weight_ih, table[i].weight_hh = data_of(weight_ih), data_of(weight_hh)
                table[i].bias, table[i].bias_hh = data_of(bias), data_of(bias_hh)
                table[i].weight_hr = data_of(weight_hr)
            self._fill(&call, cache.x, cache.h0, cache.c0, cache.y, dh0, dc0, cache.lengths, cache.reset)
            call.cache, call.dropout = cache.memory.data, data_of(cache.dropout)
            back.dy = self.sequence(dy)
            back.dhn, back.dcn, back.dx = data_of(dhn), data_of(dcn), data_of(dx)
            back.dh0, back.dc0 = data_of(dh0), data_of(dc0)
            back.gradients = table
            self._run(&call, &back)
        finally:
            free(table)
