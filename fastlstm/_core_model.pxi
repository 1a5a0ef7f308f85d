# Part of _core.pyx: the packed model and its calls.


cdef class Model:
    """Packed, immutable weights of one recurrent stack.

    v: variants.Variant. weights: per layer and direction a dict, name without its ending -> C-contiguous array of
    dtype; biases that are not there are zero. zoneout_h, zoneout_c: rates, for the expectation at inference. rooms: a
    `Rooms` to work in, None for one of its own. threads: as many may pack; 0: the package-wide setting.
    """
    cdef fl_model *model
    cdef fl_spec spec
    cdef const fl_blas_t *blas
    cdef Pool workspaces, caches
    cdef readonly object dtype, variant
    cdef object periods  # keeps what spec points to
    cdef readonly int64_t states, hidden_size, input_size, recurrent, cells
    cdef readonly bint backward_ready

    def __cinit__(self, v, dtype, int64_t input_size, int64_t hidden_size, int num_layers, int directions,
                  int64_t proj_size, list weights, bint backward=False, double zoneout_h=0.0, double zoneout_c=0.0,
                  Rooms rooms=None, int threads=0):
        cdef fl_weights *table
        self.periods = np.array(v.periods, np.int64)
        self.variant, self.dtype = v, np.dtype(dtype)
        self.spec.cell = cells().index(v.cell)
        self.spec.dtype = self.dtype == np.float64
        self.spec.num_layers, self.spec.directions = num_layers, directions
        self.spec.input_size, self.spec.hidden_size, self.spec.proj_size = input_size, hidden_size, proj_size
        self.spec.flags = FL_MODEL_BACKWARD if backward else 0
        fill_options(&self.spec.options, v, self.periods, zoneout_h, zoneout_c)
        self.states = len(v.states)
        self.input_size, self.hidden_size, self.recurrent = input_size, hidden_size, proj_size or hidden_size
        self.backward_ready = backward
        rooms = Rooms() if rooms is None else rooms
        self.workspaces, self.caches = rooms.workspaces, rooms.caches
        if len(weights) != num_layers * directions:
            raise ValueError(f"{num_layers * directions} sets of weights expected, got {len(weights)}")
        self._check_weights(weights)
        table = <fl_weights *>calloc(len(weights), sizeof(fl_weights))
        if table == NULL:
            raise MemoryError(f"not enough memory for a model of {num_layers} layers")
        try:
            for i, one in enumerate(weights):
                fill_tensors(<void **>&table[i], one)
            check(fl_model_create_threads(&self.model, &self.spec, table, threads))
        finally:
            free(table)
        self.cells = fl_model_cells(self.model)
        self.blas = blas_table() if gemm_mode() == "blas" else NULL

    def _check_weights(self, list weights):
        cdef int64_t size
        for i, one in enumerate(weights):
            for name, array in one.items():
                size = fl_weight_size(&self.spec, i // self.spec.directions, TENSORS.index(name))
                if size <= 0 or array.size != size or array.dtype != self.dtype or not array.flags.c_contiguous:
                    raise ValueError(f"{name} must be a contiguous {self.dtype} array of {size} numbers, "
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
        return bool(fl_model_own_bias_hh(self.model))

    def plan(self, int64_t steps, int64_t batch, bint backward=False, int threads=0, bint awake=False):
        """The plan of a call as a dict; planning.Plan puts it in words. awake: the workers of a forward call wait."""
        cdef fl_plan p
        cdef fl_machine m
        if backward:
            check(fl_plan_backward(self.model, steps, batch, threads, &p))
        else:
            check(fl_plan_call(self.model, steps, batch, threads, awake, &p))
        cdef dict found = p
        found["split"], found["why"], found["why_hoist"] = SPLITS[p.split], WHY[p.why], WHY_HOIST[p.why_hoist]
        found["compared"] = {SPLITS[i]: (p.compared[i].threads, p.compared[i].ns) for i in range(FL_SPLIT_COUNT)
                             if p.compared[i].threads}
        fl_machine_get(&m)
        found["cores"] = max(1, int(m.cores))
        return found

    def estimate(self, int64_t steps, int64_t batch, str split, int threads, bint backward=False, bint awake=False):
        """ns that a plan expects of a call with this split and so many threads; 0: it cannot be divided so. awake:
        the workers wait for the call. For tests."""
        return fl_plan_estimate(self.model, steps, batch, backward, SPLITS.index(split), threads, awake)

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
        """The call, with a workspace of its own. FL_ERR_WORKSPACE says that the number of threads or the machine's
        constants were set between the query and the call: the second time the number is fixed, and the constants are
        set once in a process. Raises what a signal's handler has raised meanwhile."""
        cdef Memory workspace
        cdef Interruption interruption
        cdef fl_status status = FL_ERR_WORKSPACE
        cdef int left = 3
        call.poll, call.poll_data = poll_here(), &interruption
        while status == FL_ERR_WORKSPACE and left:
            left -= 1
            workspace = self.workspaces.take(fl_backward_bytes(self.model, call) if back != NULL
                                             else fl_forward_bytes(self.model, call))
            call.workspace, call.workspace_bytes = workspace.data, workspace.bytes
            with nogil:
                status = fl_backward(self.model, call, back) if back != NULL else fl_forward(self.model, call)
            self.workspaces.give(workspace)
            if call.threads == 0 and status == FL_ERR_WORKSPACE:  # not asked before: small calls need no number
                call.threads = fl_get_num_threads()
        return finish(status, &interruption)

    cdef tuple _shape_of_c(self, int64_t batch):
        return (self.spec.num_layers * self.spec.directions, batch, self.cells)

    cdef int _check_parts(self, tuple state) except -1:
        if len(state) != self.states:
            raise ValueError(f"a state of this model must be a contiguous array for each of its {self.states} parts, "
                             f"got {len(state)}")
        return 0

    cdef object _joined(self, tuple state, int64_t batch):
        """The second state of the core from a user's, h left out; None for nothing."""
        self._check_parts(state)
        if self.states == 1:
            return None
        return join_states(state[1:], self._shape_of_c(batch), self.dtype)

    cdef object _fresh(self, tuple state, int64_t batch):
        """Where the core writes its second state: the user's own array if it is one."""
        self._check_parts(state)
        if self.states < 3:
            return state[1] if self.states == 2 else None
        return np.empty(self._shape_of_c(batch), self.dtype)

    def forward(self, cnp.ndarray x, tuple state0, cnp.ndarray y, tuple staten, lengths=None, reset=None,
                int threads=0):
        """Inference. x (T, B, I) and y (T, B, D*R): features contiguous, any other strides; the rest contiguous.
        state0: arrays or None by v.states; staten: arrays, written."""
        cdef fl_call call
        cdef int64_t batch = cnp.PyArray_DIM(x, 1)
        start_call(&call, cnp.PyArray_DIM(x, 0), batch, threads)
        c0, cn = self._joined(state0, batch), self._fresh(staten, batch)
        self._fill(&call, x, state0[0], c0, y, staten[0], cn, lengths, reset, None)
        self._run(&call, NULL)
        if self.states == 3:
            split_states(cn, staten[1:])

    cdef bint _takes(self, object value, int64_t d0, int64_t d1, int64_t d2):
        """Whether the core can use value as it is: contiguous, the model's dtype, this shape (-1: any)."""
        cdef cnp.ndarray a
        if not cnp.PyArray_CheckExact(value):  # of a subclass functional.forward knows more, such as a mask
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
        if self.states == 3 or not self._takes(x, -1, -1, self.input_size):
            return None
        if self.cells == 1 and state is not None and self.variant.cell == "clockwork":  # its count is to be checked
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
            if not self._takes(h0, slots, batch, self.recurrent) or not self._takes(c0, slots, batch, self.cells):
                return None
            call.h0, call.c0 = data_of(h0), data_of(c0)
        shape[0], shape[1], shape[2] = slots, batch, self.recurrent
        hn = cnp.PyArray_EMPTY(3, shape, typenum, 0)
        shape[2] = self.cells
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

    cdef int _fill(self, fl_call *call, x, h0, c0, y, hn, cn, lengths, reset, dropout) except -1:
        """The arrays of a call, whose steps and batch are set. Sizes are compared here with what the core will read."""
        cdef int64_t steps = call.steps, batch = call.batch, slots = self.spec.num_layers * self.spec.directions
        cdef int64_t outputs = self.spec.directions * self.recurrent
        self._expect("x", x, 3, steps, batch, self.input_size, True)
        self._expect("y", y, 3, steps, batch, outputs, True)
        self._expect("h0", h0, 3, slots, batch, self.recurrent)
        self._expect("hn", hn, 3, slots, batch, self.recurrent)
        self._expect("c0", c0, 3, slots, batch, self.cells)
        self._expect("cn", cn, 3, slots, batch, self.cells)
        if dropout is not None and (dropout.ndim != 4 or dropout.shape[0] != self.spec.num_layers - 1):
            raise ValueError(f"dropout must have {self.spec.num_layers - 1} layers, got shape {dropout.shape}")
        self._expect("dropout", None if dropout is None else dropout[0], 3, steps, batch, outputs)
        expect("lengths", lengths, cnp.NPY_INT64, 1, batch, 1, 1, False)
        expect("reset", reset, cnp.NPY_UINT8, 2, steps, batch, 1, False)
        call.x, call.y = self.sequence(x), self.sequence(y)
        call.h0, call.c0 = data_of(h0), data_of(c0)
        call.hn, call.cn = data_of(hn), data_of(cn)
        call.lengths = <const int64_t *>data_of(lengths)
        call.reset = <const unsigned char *>data_of(reset)
        call.dropout = data_of(dropout)
        call.blas = self.blas
        return 0

    cdef int _expect(self, str name, object array, int axes, int64_t d0, int64_t d1, int64_t d2,
                     bint strided=False) except -1:
        return expect(name, array, cnp.NPY_DOUBLE if self.spec.dtype else cnp.NPY_FLOAT, axes, d0, d1, d2, strided)

    def forward_cached(self, cnp.ndarray x, tuple state0, tuple staten, lengths=None, reset=None, dropout=None,
                       masks=None, int threads=0, bint pooled=True):
        """Forward that keeps what backward needs. All arrays contiguous and the cache's own from here on.

        masks: None, or per layer and direction a dict, kind -> array. Returns the Cache; cache.y_ is the output
        (T, B, D*R). pooled=False: memory that views may outlive.
        """
        cdef Cache cache = Cache()
        cdef fl_call call
        cdef fl_masks *table = NULL
        cache.model, cache.steps, cache.batch = self, cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1)
        cache.x_, cache.h0_, cache.c0_ = x, state0[0], self._joined(state0, cache.batch)
        cache.lengths, cache.reset, cache.dropout, cache.masks = lengths, reset, dropout, masks
        cache.y_ = np.empty((cache.steps, cache.batch, self.spec.directions * self.recurrent), self.dtype)
        cdef size_t nbytes = fl_cache_bytes(self.model, cache.steps, cache.batch, cache_flags(cache))
        cn = self._fresh(staten, cache.batch)
        cache.memory = self.caches.take(nbytes) if pooled else Memory(nbytes)
        if pooled:
            cache.pool = self.caches
        start_call(&call, cache.steps, cache.batch, threads)
        self._fill(&call, x, cache.h0_, cache.c0_, cache.y_, staten[0], cn, lengths, reset, dropout)
        call.cache = cache.memory.data
        cache.call = call
        try:
            table = self._mask_table(cache)
            call.masks = table
            self._run(&call, NULL)
        finally:
            free(table)
        if self.states == 3:
            split_states(cn, staten[1:])
        return cache

    cdef fl_masks *_mask_table(self, Cache cache) except? NULL:
        """Pointers to a cache's masks, to be freed; NULL: it has none."""
        cdef fl_masks *table
        if cache.masks is None:
            return NULL
        steps, batch = cache.steps, cache.batch
        slots = self.spec.num_layers * self.spec.directions
        if len(cache.masks) != slots:
            raise ValueError(f"{slots} sets of masks expected, got {len(cache.masks)}")
        table = <fl_masks *>calloc(slots, sizeof(fl_masks))
        if table == NULL:
            raise MemoryError("not enough memory for the layers of a call")
        try:
            for i, one in enumerate(cache.masks):
                first = i < self.spec.directions
                inputs = self.input_size if first else self.spec.directions * self.recurrent
                shapes = {"mask_x": (batch, inputs), "mask_h": (batch, self.recurrent),
                          "mask_g": (steps, batch, self.hidden_size), "zoneout_h": (steps, batch, self.recurrent),
                          "zoneout_c": (steps, batch, self.hidden_size)}
                for name, array in one.items():
                    if array.shape != shapes[name] or array.dtype != self.dtype or not array.flags.c_contiguous:
                        raise ValueError(f"{name} must be a contiguous {self.dtype} array of shape {shapes[name]}, "
                                         f"got {array.dtype} {array.shape}")
                table[i].mask_x, table[i].mask_h = data_of(one.get("mask_x")), data_of(one.get("mask_h"))
                table[i].mask_g = data_of(one.get("mask_g"))
                table[i].zoneout_h, table[i].zoneout_c = data_of(one.get("zoneout_h")), data_of(one.get("zoneout_c"))
        except BaseException:  # an interruption too
            free(table)
            raise
        return table

    def backward(self, Cache cache, cnp.ndarray dy, tuple dstaten, dx, tuple dstate0, list gradients, int threads=0):
        """dy (T, B, D*R), features contiguous; dx (T, B, I) contiguous or None; dstaten: arrays or None by v.states;
        dstate0: arrays, written. gradients: per layer and direction a dict, name -> array of every tensor, written;
        bias_hh only of cells where it has a gradient of its own, `own_bias_hh`."""
        cdef fl_call call
        cdef fl_backward_call back
        cdef fl_masks *masks = NULL
        cdef int64_t slots = self.spec.num_layers * self.spec.directions
        cdef fl_gradients *table
        table = <fl_gradients *>calloc(len(gradients), sizeof(fl_gradients))
        if table == NULL:
            raise MemoryError("not enough memory for the layers of a call")
        try:
            if cache.model is not self or len(gradients) != slots:
                raise ValueError("the cache and the gradients must be those of this model")
            dcn, dc0 = self._joined(dstaten, cache.batch), self._fresh(dstate0, cache.batch)
            self._expect("dy", dy, 3, cache.steps, cache.batch, self.spec.directions * self.recurrent, True)
            self._expect("dx", dx, 3, cache.steps, cache.batch, self.input_size)
            self._expect("dhn", dstaten[0], 3, slots, cache.batch, self.recurrent)
            self._expect("dh0", dstate0[0], 3, slots, cache.batch, self.recurrent)
            self._expect("dcn", dcn, 3, slots, cache.batch, self.cells)
            self._expect("dc0", dc0, 3, slots, cache.batch, self.cells)
            masks = self._mask_table(cache)
            self._check_weights(gradients)
            for i, one in enumerate(gradients):
                fill_tensors(<void **>&table[i], one)
            call = cache.call  # not the arrays of the cache, which others can see and change
            call.threads, call.masks = threads, masks
            call.hn, call.cn = data_of(dstate0[0]), data_of(dc0)  # those of forward may be gone; nothing is written
            back.dy = self.sequence(dy)
            back.dhn, back.dcn, back.dx = data_of(dstaten[0]), data_of(dcn), data_of(dx)
            back.dh0, back.dc0 = data_of(dstate0[0]), data_of(dc0)
            back.gradients = table
            self._run(&call, &back)
        finally:
            free(table)
            free(masks)
        if self.states == 3:
            split_states(dc0, dstate0[1:])
