# Part of _core.pyx: single steps and dense layers.


# A thread that gives the interpreter away waits some microseconds for it. A step that is planned to take less keeps it:
# other threads lose less by waiting than by taking turns.
cdef enum:
    BRIEF_NS = 2000


cdef class Stepper:
    """State and scratch memory of one stream: a step allocates its output at most.

    busy: the flag of whoever owns the states; one of its own by default. threads: at most so many, 0 for the process's
    setting. awake_ns: how long its workers look out for the next step; a
    step that is large enough for several threads is a call of one step."""
    cdef Model model
    cdef Memory workspace
    cdef Busy busy
    cdef tuple states, rest
    cdef object joined
    cdef void *h_data
    cdef void *c_data
    cdef int typenum
    cdef int64_t batch, inputs, outputs
    cdef fl_call call
    cdef readonly bint teamed, brief  # brief: shorter than what it takes to hand the interpreter to another thread
    cdef readonly int64_t done  # steps made; counted before Python runs again, so it is true whatever a handler raises

    def __cinit__(self, Model model, int64_t batch, tuple states, int threads=0, int64_t awake_ns=0,
                  Busy busy=None):
        if model.spec.directions != 1:
            raise ValueError("a bidirectional model has no steps")
        if len(states) != model.states:
            raise ValueError(f"{model.states} states expected, got {len(states)}")
        self.model, self.batch, self.states, self.rest = model, batch, states, states[1:]
        self.busy = Busy() if busy is None else busy
        self.joined = model._fresh(states, batch)
        self.h_data, self.c_data = data_of(states[0]), data_of(self.joined)
        self.inputs, self.outputs = model.input_size, model.recurrent
        self.typenum = cnp.NPY_DOUBLE if model.spec.dtype else cnp.NPY_FLOAT
        self._prepare(threads, awake_ns)
        self.workspace = Memory(fl_forward_bytes(model.model, &self.call) if self.teamed
                                else fl_step_bytes(model.model, batch))

    cdef int _prepare(self, int threads, int64_t awake_ns) except -1:
        """The call of one step, but for x and y."""
        cdef fl_call *call = &self.call
        cdef fl_plan plan
        start_call(call, 1, self.batch, threads)
        call.awake_ns = awake_ns
        check(fl_plan_call(self.model.model, 1, self.batch, call.threads, awake_ns > 0, &plan))
        self.teamed = plan.threads > 1
        self.brief = not self.teamed and plan.estimate_ns < BRIEF_NS
        call.h0 = call.hn = self.h_data
        call.c0 = call.cn = self.c_data
        call.x.step, call.x.row = self.batch * self.inputs, self.inputs
        call.y.step, call.y.row = self.batch * self.outputs, self.outputs
        call.blas = self.model.blas

    def __dealloc__(self):
        if self.call.awake_ns > 0:
            fl_team_rest()

    def release(self):
        """Its workers need not wait for a further step."""
        fl_team_rest()

    def counts(self):
        """`done`, in a list as of a chain of steppers."""
        return [self.done]

    cdef fl_status _step_alone(self, const void *x, void *y) noexcept nogil:
        return fl_step(self.model.model, self.batch, x, self.h_data, self.c_data, y, self.workspace.data,
                       self.workspace.bytes)

    cdef fl_status _step_of_team(self, const void *x, void *y) nogil:
        """A step on several threads, which read x while they write y."""
        cdef fl_status status = FL_ERR_WORKSPACE
        cdef int left = 3
        self.call.x.data, self.call.y.data = <void *>x, y
        while status == FL_ERR_WORKSPACE and left:  # the machine's constants have been set since
            left -= 1
            self.call.workspace, self.call.workspace_bytes = self.workspace.data, self.workspace.bytes
            status = fl_forward(self.model.model, &self.call)
            if status == FL_ERR_WORKSPACE:
                with gil:
                    self.workspace = Memory(fl_forward_bytes(self.model.model, &self.call))
        return status

    def fits(self, x):
        """Whether step() takes x as it is: (B, I), the model's dtype, C-contiguous, aligned."""
        return self._fits(x, self.inputs)

    cdef bint _fits(self, object x, int64_t width):
        cdef cnp.ndarray a
        if not cnp.PyArray_CheckExact(x):
            return False
        a = <cnp.ndarray>x
        return (cnp.PyArray_TYPE(a) == self.typenum and cnp.PyArray_NDIM(a) == 2
                and cnp.PyArray_DIM(a, 0) == self.batch and cnp.PyArray_DIM(a, 1) == width
                and cnp.PyArray_ISCARRAY_RO(a))

    def step(self, x, out=None):
        """x (B, I) -> (B, R); None when x or out does not fit (nothing was done). RuntimeError while busy."""
        self.busy.take()
        try:
            return self._step(x, out)
        finally:
            self.busy.taken = 0

    def step_inside(self, x, out=None):
        """`step` for a call that has the flag already, within `Busy.run`."""
        return self._step(x, out)

    cdef object _step(self, object x, object out):
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
        if (self.teamed and <char *>from_ < <char *>to + cnp.PyArray_NBYTES(<cnp.ndarray>out)
                and <char *>to < <char *>from_ + cnp.PyArray_NBYTES(<cnp.ndarray>x)):
            x = cnp.PyArray_NewCopy(<cnp.ndarray>x, cnp.NPY_CORDER)
            from_ = cnp.PyArray_DATA(<cnp.ndarray>x)
        if self.model.states == 3:
            self._exchange(True)
        if self.brief:
            status = self._step_alone(from_, to)
        else:
            with nogil:
                status = self._step_of_team(from_, to) if self.teamed else self._step_alone(from_, to)
        if status != FL_OK:
            check(status)
        if self.model.states == 3:
            self._exchange(False)
        self.done += 1
        return out

    cdef void _exchange(self, bint inward) noexcept:
        """Copies the second and third state, which the core has in one array, row by row."""
        cdef int64_t unit = 8 if self.model.spec.dtype else 4, cells = self.model.cells * unit, at = 0, r, width
        cdef int64_t rows = self.model.spec.num_layers * self.batch
        cdef char *joined = <char *>self.c_data
        cdef char *data
        for part in self.rest:
            width = cnp.PyArray_DIM(<cnp.ndarray>part, 2) * unit
            data = <char *>cnp.PyArray_DATA(<cnp.ndarray>part)
            for r in range(rows):
                if inward:
                    memcpy(joined + r * cells + at, data + r * width, width)
                else:
                    memcpy(data + r * width, joined + r * cells + at, width)
            at += width


def step_chain(list steppers, list between, x, out=None):
    """A step through steppers, one behind the other; between: what each but the last writes to. None when x or out
    does not fit the first (nothing was done). No signal handler runs in between, so all of them are at one step."""
    cdef Stepper stepper, last = steppers[len(steppers) - 1]
    if out is not None and (not last._fits(out, last.outputs) or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out)):
        return None  # found only by the last, the others would be a step ahead
    for stepper, row in zip(steppers, between):
        x = stepper._step(x, row)
        if x is None:
            return None
    return last._step(x, out)


cdef class Dense:
    """y = act(x . W^T + b) on packed panels. weight (O, I), bias (O,) or None, C-contiguous. threads: as many may pack;
    0: the package-wide setting."""
    cdef fl_dense *dense
    cdef readonly object dtype
    cdef readonly int64_t inputs, outputs

    def __cinit__(self, cnp.ndarray weight, bias, str activation="none", int threads=0):
        self.dtype = weight.dtype
        if not weight.flags.c_contiguous or weight.ndim != 2 or self.dtype not in (np.float32, np.float64):
            raise ValueError("weight must be a contiguous float32 or float64 matrix")
        self.outputs, self.inputs = weight.shape[0], weight.shape[1]
        if bias is not None and (bias.shape != (self.outputs,) or bias.dtype != self.dtype
                                 or not bias.flags.c_contiguous):
            raise ValueError(f"bias must be a contiguous {self.dtype} vector of {self.outputs}")
        check(fl_dense_create_threads(&self.dense, self.dtype == np.float64, self.inputs, self.outputs,
                                      cnp.PyArray_DATA(weight), data_of(bias), ACTIVATIONS[activation], threads))

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
        cdef Interruption interruption
        cdef poll_function poll = poll_here()
        with nogil:
            status = fl_dense_forward_polled(self.dense, rows, from_, to, threads, poll, &interruption)
        finish(status, &interruption)
        return y


def dense_gradient(cnp.ndarray dz, cnp.ndarray x, bint bias=True, int threads=0):
    """dz (N, O), x (N, I), contiguous and of one dtype -> dz^T . x (O, I) and the sum of dz (O,) or None."""
    if (dz.ndim != 2 or x.ndim != 2 or dz.shape[0] != x.shape[0] or dz.dtype != x.dtype
            or dz.dtype not in (np.float32, np.float64) or not dz.flags.c_contiguous or not x.flags.c_contiguous):
        raise ValueError("dz and x must be contiguous float matrices of one dtype with as many rows")
    cdef int code = dz.dtype == np.float64
    cdef int64_t rows = dz.shape[0], outputs = dz.shape[1], inputs = x.shape[1]
    weight = np.empty((outputs, inputs), dz.dtype)
    total = np.empty(outputs, dz.dtype) if bias else None
    cdef void *dz_ = cnp.PyArray_DATA(dz)
    cdef void *x_ = cnp.PyArray_DATA(x)
    cdef void *weight_ = data_of(weight)
    cdef void *total_ = data_of(total)
    cdef fl_status status
    cdef Interruption interruption
    cdef poll_function poll = poll_here()
    with nogil:
        status = fl_dense_gradient_polled(code, rows, outputs, inputs, dz_, x_, weight_, total_, threads, poll,
                                          &interruption)
    finish(status, &interruption)
    return weight, total
