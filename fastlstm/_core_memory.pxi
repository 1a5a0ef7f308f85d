# Part of _core.pyx: memory, the cache of a forward pass, options and states as the core has them.


# The collector may clear an object that is in no cycle itself, while something that outlives it takes it over: a cache
# hands its block to the pool as it goes. So blocks and pools, which hold nothing that could lead back to them, are not
# its business, and a cache keeps its fields until it is deallocated.


@cython.no_gc
cdef class Memory:
    """A 64-byte aligned block owned by a NumPy array, so that views of it keep it alive."""
    cdef readonly object array
    cdef void *data
    cdef size_t bytes

    def __cinit__(self, size_t nbytes):
        if nbytes > ((<size_t>-1) >> 1) - 64:  # of any process, also one of 32 bits
            raise MemoryError("the sizes are too large for this machine's address space")
        base = np.empty(nbytes + 64, np.uint8)
        cdef uintptr_t at = <uintptr_t>cnp.PyArray_DATA(base)
        cdef size_t skip = <size_t>((64 - at % 64) % 64)
        self.array = base[skip:skip + nbytes]
        self.data = <void *>(at + skip)
        self.bytes = nbytes


@cython.no_gc
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


@cython.no_gc
cdef class Rooms:
    """The blocks that a layer's calls work in, kept from model to model: training packs a new one for every step, and
    memory that is new from the system costs more than the packing."""
    cdef Pool workspaces, caches

    def __cinit__(self):
        self.workspaces, self.caches = Pool(), Pool(2)


cdef object unwritable(array):
    """A view of an array, or None for None."""
    if array is None:
        return None
    view = array.view()
    view.flags.writeable = False
    return view


@cython.no_gc_clear
cdef class Cache:
    """What a forward pass keeps for backward. Its arrays are its own, but for those that `functional.forward_cached`
    was told to share."""
    cdef Memory memory
    cdef Pool pool
    cdef fl_call call  # that made it; its masks and workspace are gone
    cdef readonly int64_t steps, batch
    cdef object x_, y_, h0_, c0_, lengths, reset, dropout, masks  # nobody else is handed these very objects
    cdef readonly Model model

    def __dealloc__(self):
        if self.pool is not None and self.memory is not None:
            self.pool.give(self.memory)

    @property
    def nbytes(self):
        return self.memory.bytes

    @property
    def y(self):
        return self.y_.view()

    @property
    def x(self):
        return unwritable(self.x_)

    @property
    def h0(self):
        return unwritable(self.h0_)

    @property
    def c0(self):
        return unwritable(self.c0_)

    def __reduce__(self):
        raise TypeError("a cache belongs to the process that made it and cannot be pickled or copied")

    def views(self, int layer, int direction):
        """Field of the trace -> (T, B, width), gates after their activation; all but h. And "y", (T, B, D*R) of this
        layer, or None for the last.

        For a cache made with pooled=False only: views outlive the cache.
        """
        cdef Model m = self.model
        cdef int flags = cache_flags(self)
        cdef fl_cache_slot slot = fl_cache_find(m.model, self.steps, self.batch, flags, layer, direction)
        v, H = m.variant, m.hidden_size
        kept = self._view(slot.gates, fl_model_kept(m.model))
        found = {}
        first, width = 0, H
        for name in kept_gates(v):
            width = H // v.block_size if v.cell == "lstm_1997" and name != "g" else H
            found[name] = kept[:, :, first:first + width]
            first += width
        if v.cell == "depth_gated" and layer == 0:  # it has no such gate
            found["d"] = np.zeros_like(found["i"])
        if v.cell == "lstm_1997" and "o" in v.without:
            found["o"] = np.ones_like(found["i"])
            if self.lengths is not None:
                found["o"][np.arange(self.steps)[:, None] >= self.lengths] = 0
        if "c" in v.states:
            found["c"] = self._view(slot.c, fl_model_cells(m.model))[:, :, :H]
        last = layer == m.spec.num_layers - 1
        found["y"] = None if last else self._view(slot.y, m.spec.directions * m.recurrent)
        return found

    def _view(self, size_t offset, int64_t width):
        dtype, start = self.model.dtype, int(offset)
        count = self.steps * self.batch * width * dtype.itemsize
        return self.memory.array[start:start + count].view(dtype).reshape(self.steps, self.batch, width)


cdef tuple kept_gates(v):
    """Fields of the trace that are kept, in the order of the core's rows."""
    if v.cell == "lstm_1997":
        return ("i", "g") if "o" in v.without else ("i", "o", "g")
    return tuple(name for name in v.traced if name not in ("c", "h"))


cdef int cache_flags(Cache cache):
    cdef int flags = FL_CACHE_DROPOUT if cache.dropout is not None else 0
    if any("mask_x" in one for one in cache.masks or ()):
        flags |= FL_CACHE_MASK_X
    return flags


cdef const fl_blas_t *blas_table() except NULL:
    from fastlstm import _blas
    return <const fl_blas_t *>PyCapsule_GetPointer(_blas.table, b"fl_blas_t")


cdef inline void start_call(fl_call *call, int64_t steps, int64_t batch, int threads) noexcept:
    memset(call, 0, sizeof(fl_call))
    call.steps, call.batch, call.threads = steps, batch, threads


cdef int expect(str name, object array, int typenum, int axes, int64_t d0, int64_t d1, int64_t d2,
                bint strided) except -1:
    """ValueError unless array is None or what the core can read: this type and shape of 1 to 3 axes, and contiguous;
    strided, of 3 axes: its features next to each other."""
    cdef cnp.ndarray a
    cdef int64_t unit
    cdef bint good
    if array is None:
        return 0
    a = array
    good = cnp.PyArray_TYPE(a) == typenum and cnp.PyArray_NDIM(a) == axes and cnp.PyArray_DIM(a, 0) == d0
    good = good and (axes < 2 or cnp.PyArray_DIM(a, 1) == d1) and (axes < 3 or cnp.PyArray_DIM(a, 2) == d2)
    if good and strided and d0 and d1:  # NumPy gives the strides of nothing in several ways
        unit = cnp.PyArray_ITEMSIZE(a)
        good = cnp.PyArray_ISBEHAVED_RO(a) and (cnp.PyArray_STRIDE(a, 2) == unit or d2 <= 1)
        good = good and cnp.PyArray_STRIDE(a, 0) % unit == 0 and cnp.PyArray_STRIDE(a, 1) % unit == 0
    elif good:
        good = cnp.PyArray_ISCARRAY_RO(a)
    if not good:
        raise ValueError(f"{name} must be a contiguous array of shape {(d0, d1, d2)[:axes]} and of the type that the "
                         f"core reads, got {array.dtype} of shape {array.shape} and strides {array.strides}")
    return 0


cdef inline void *data_of(object array):
    return NULL if array is None else cnp.PyArray_DATA(<cnp.ndarray>array)


# --- options ----------------------------------------------------------------------------------------------------------

COUPLED = (None, "i=1-f", "f=1-i")
NORMS = (None, "ba", "gates")
# In the order of enum fl_tensor
TENSORS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "weight_peephole", "weight_gh", "weight_ln_ih",
           "weight_ln_hh", "weight_ln_c", "bias_ln_c", "weight_ln", "bias_ln", "weight_d_ih", "weight_d_c",
           "weight_d_lower", "bias_d")


cdef int gate_set(str letters):
    return sum(1 << "ifo".index(letter) for letter in letters)


cdef int fill_options(fl_options *o, v, cnp.ndarray periods, double zoneout_h, double zoneout_c) except -1:
    """A `Variant` as the core takes it; periods: v.periods as int64, which must outlive the call that reads them."""
    memset(o, 0, sizeof(fl_options))
    for i, activation in enumerate(v.activations):
        o.activation[i].kind = ACTIVATIONS[activation.name]
        o.activation[i].alpha, o.activation[i].beta = activation.alpha, activation.beta
    o.clip, o.cell_clip, o.proj_clip = v.clip or 0, v.cell_clip or 0, v.proj_clip or 0
    o.reset_before = v.cell == "gru" and not v.reset_after
    o.peephole, o.peephole_o_prev = gate_set(v.peephole), v.peephole_o == "c_prev"
    o.coupled, o.without = COUPLED.index(v.coupled), gate_set(v.without)
    o.layer_norm, o.norm_eps = NORMS.index(v.layer_norm), v.norm_eps if v.layer_norm else 0
    o.gate_recurrence = v.gate_recurrence
    if v.cell == "lstm_1997":
        o.biased_gates, o.full_gradient = v.biased == "gates", v.gradient == "full"
        o.block_size = v.block_size
    o.period_count, o.periods = len(v.periods), <const int64_t *>cnp.PyArray_DATA(periods)
    o.zoneout_h, o.zoneout_c = zoneout_h, zoneout_c
    return 0


cdef int fill_tensors(void **table, dict given) except -1:
    """Pointers by name into a fl_weights or fl_gradients."""
    for name, array in given.items():
        table[TENSORS.index(name)] = data_of(array)
    return 0


# --- states: the core has h and, behind one another in one array, the others ------------------------------------------


def join_states(tuple parts, shape, dtype):
    """(c, gates) -> one array of `shape`, (..., C); one of them as it is; None for nothing but None."""
    if all(part is None for part in parts):
        return None
    if len(parts) == 1:
        return parts[0]
    found, at = np.zeros(shape, dtype), 0
    widths = split_widths(parts, shape[2])
    for part, width in zip(parts, widths):
        if part is not None:
            found[..., at:at + width] = part
        at += width
    return found


cdef tuple split_widths(tuple parts, int64_t cells):
    """Widths of (c, gates), one of which may be None."""
    c, gates = parts
    first = c.shape[2] if c is not None else cells - gates.shape[2]
    return first, cells - first


def split_states(joined, tuple parts):
    """The inverse of join_states, into arrays that are there."""
    at = 0
    for part in parts:
        if part is not joined:
            part[...] = joined[..., at:at + part.shape[2]]
        at += part.shape[2]
