"""Forward, backward: every argument checked in words, then the core.

Letters: T steps, B rows, I inputs, H hidden units, P projected units, R = P or H, L layers, D directions.
Whatever a user hands in passes through the ``check_*`` functions here before anything is computed; they return
arrays the core takes as they are, copying only what does not fit already.
"""

from typing import NamedTuple

import numpy as np

from .params import TRACES, _as_array


class Spec(NamedTuple):
    """The sizes and conventions a call is checked against."""

    input_size: int
    hidden_size: int
    proj_size: int
    num_layers: int
    directions: int
    dtype: np.dtype
    batch_first: bool
    cell: str = "lstm"
    states: int = 2

    @property
    def recurrent(self):
        """R, the width of h."""
        return self.proj_size or self.hidden_size

    @property
    def outputs(self):
        """D*R, the width of y."""
        return self.directions * self.recurrent


class Layout(NamedTuple):
    """How the caller sees a sequence: what `check_x` found, what y, dx and the trace must look like."""

    steps: int
    batch: int
    batched: bool
    batch_first: bool

    def outward(self, a):
        """A (T, B, ...) array in the caller's layout."""
        if not self.batched:
            return a[:, 0]
        return a.swapaxes(0, 1) if self.batch_first else a

    def inward(self, a):
        """The caller's layout as (T, B, ...)."""
        if not self.batched:
            return a[:, None]
        return a.swapaxes(0, 1) if self.batch_first else a

    def shape(self, *tail):
        """Shape of a sequence as the caller sees it."""
        if not self.batched:
            return (self.steps, *tail)
        lead = (self.batch, self.steps) if self.batch_first else (self.steps, self.batch)
        return (*lead, *tail)


def _read(name, value):
    """`value` as an array; what its owner says against that, with the argument's name."""
    try:
        return _as_array(value)
    except Exception as error:  # ragged lists, arrays on another device: foreign types raise whatever they like
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name} cannot be read as an array: {error}") from None


def real_array(name, value, dtype):
    """`value` as an array of dtype: the same memory when it fits. TypeError for what holds no real numbers."""
    if type(value) is np.ndarray and value.dtype == dtype:
        return value
    array = _read(name, value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got {array.dtype} ({type(value).__name__})")
    return np.asarray(array, dtype=dtype)


def _strided(array, unit):
    """Whether the core can walk it: features next to each other, aligned, whole elements between steps and rows."""
    step, row, feature = array.strides
    if feature != unit and array.shape[2] > 1:
        return False
    return step % unit == 0 and row % unit == 0 and array.flags.aligned


def _contiguous(array):
    """C order and aligned; np.ascontiguousarray leaves unaligned memory as it is."""
    return np.require(array, requirements=("C", "A"))


def check_x(spec, x):
    """x as (T, B, I) in the model's dtype, and its Layout. Matching float input is never copied."""
    array = real_array("x", x, spec.dtype)
    if array.ndim not in (2, 3) or array.shape[-1] != spec.input_size:
        lead = "(B, T, I)" if spec.batch_first else "(T, B, I)"
        raise ValueError(
            f"x has shape {array.shape}, expected {lead} or unbatched (T, I) with I = input_size = {spec.input_size}"
        )
    batched = array.ndim == 3
    if not batched:
        array = array[:, None]
    elif spec.batch_first:
        array = array.swapaxes(0, 1)
    if not _strided(array, spec.dtype.itemsize):
        array = _contiguous(array)
    return array, Layout(array.shape[0], array.shape[1], batched, spec.batch_first)


def _check_one_state(spec, name, value, width, layout):
    array = real_array(name, value, spec.dtype)
    slots = spec.num_layers * spec.directions
    expected = (slots, layout.batch, width) if layout.batched else (slots, width)
    if array.shape != expected:
        letters = "(L*D, B, {0})" if layout.batched else "(L*D, {0})"
        letter = "H" if name.startswith(("c", "dc")) else "R"
        raise ValueError(
            f"{name} has shape {array.shape}, expected {expected} = {letters.format(letter)}"
        )
    return _contiguous(array.reshape(slots, layout.batch, width))


def check_state(spec, state, layout, names=("h0", "c0"), argument="state"):
    """(h0, c0) as contiguous (L*D, B, R) and (L*D, B, H); (None, None) for None, which stands for zeros.

    Of a cell without c the state is h0 itself, and c0 comes back as None.
    """
    if state is None:
        return None, None
    if spec.states == 1:
        if isinstance(state, tuple):
            raise TypeError(f"{argument} must be an array {names[0]}, got tuple of {len(state)}: this cell has no c")
        return _check_one_state(spec, names[0], state, spec.recurrent, layout), None
    if not isinstance(state, (tuple, list)) or len(state) != 2:
        what = type(state).__name__ + (f" of {len(state)}" if isinstance(state, (tuple, list)) else "")
        raise TypeError(f"{argument} must be a pair ({names[0]}, {names[1]}), got {what}")
    h, c = state
    return (
        None if h is None else _check_one_state(spec, names[0], h, spec.recurrent, layout),
        None if c is None else _check_one_state(spec, names[1], c, spec.hidden_size, layout),
    )


def check_lengths(lengths, layout):
    """(B,) int64, each in [0, T]."""
    if lengths is None:
        return None
    array = _read("lengths", lengths)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"lengths must hold integers, got {array.dtype}")
    if not layout.batched and array.ndim == 0:
        array = array[None]
    if array.shape != (layout.batch,):
        raise ValueError(f"lengths has shape {array.shape}, expected ({layout.batch},), one per row of the batch")
    bad = (array < 0) | (array > layout.steps)
    if bad.any():
        at = int(np.argmax(bad))
        raise ValueError(f"lengths[{at}] is {array[at]}, expected 0 <= length <= T = {layout.steps}")
    return np.ascontiguousarray(array, dtype=np.int64)


def check_reset(reset, layout):
    """(T, B) uint8, contiguous; given in the layout of x without its features."""
    if reset is None:
        return None
    array = _read("reset", reset)
    if array.dtype.kind not in "biu":
        raise TypeError(f"reset must hold booleans, got {array.dtype}")
    if array.shape != layout.shape():
        letters = "(T,)" if not layout.batched else "(B, T)" if layout.batch_first else "(T, B)"
        raise ValueError(f"reset has shape {array.shape}, expected {layout.shape()} = {letters}")
    return np.ascontiguousarray(layout.inward(array) != 0, dtype=np.uint8)


def _new_state(spec, batch):
    slots = spec.num_layers * spec.directions
    return (
        np.empty((slots, batch, spec.recurrent), spec.dtype),
        np.empty((slots, batch, spec.hidden_size), spec.dtype) if spec.states == 2 else None,
    )


def _state_outward(spec, state, layout):
    """(h, c) as the caller sees it; h alone of a cell without c."""
    if not layout.batched:
        state = tuple(None if s is None else s[:, 0] for s in state)
    return state if spec.states == 2 else state[0]


def forward(packed, spec, x, state=None, lengths=None, reset=None, threads=0):
    """Inference: ``y, (hn, cn)``. packed: _core.Model; the rest as in the layers' forward."""
    x, layout = check_x(spec, x)
    h0, c0 = check_state(spec, state, layout)
    lengths, reset = check_lengths(lengths, layout), check_reset(reset, layout)
    hn, cn = _new_state(spec, layout.batch)
    y = np.empty(layout.shape(spec.outputs), spec.dtype)
    packed.forward(x, h0, c0, layout.inward(y), hn, cn, lengths, reset, threads)
    return y, _state_outward(spec, (hn, cn), layout)


class Kept(NamedTuple):
    """What backward needs: the core's cache, how the caller saw the sequence, and the sizes it was made for."""

    core: object
    layout: Layout
    spec: Spec

    @property
    def nbytes(self):
        """Bytes held."""
        return self.core.nbytes


def _own(array, value):
    """A contiguous array that the caller cannot change behind the cache's back."""
    mine = _contiguous(array)
    return mine.copy() if mine is array or np.may_share_memory(mine, _memory_of(value)) else mine


def _memory_of(value):
    return value if isinstance(value, np.ndarray) else _as_array(value)


def forward_cached(packed, spec, x, state=None, lengths=None, reset=None, masks=None, threads=0, pooled=True):
    """Forward for training or tracing: ``y, (hn, cn), Kept``.

    masks: None, or a function of (T, B) that draws the dropout factors (L-1, T, B, D*R).
    """
    array, layout = check_x(spec, x)
    h0, c0 = check_state(spec, state, layout)
    lengths, reset = check_lengths(lengths, layout), check_reset(reset, layout)
    h0, c0 = (None if s is None else s.copy() for s in (h0, c0))
    lengths = None if lengths is None else lengths.copy()
    hn, cn = _new_state(spec, layout.batch)
    factors = masks(layout.steps, layout.batch) if masks is not None else None
    core = packed.forward_cached(_own(array, x), h0, c0, hn, cn, lengths, reset, factors, threads, pooled)
    # the cache keeps its own y: the caller may change what it is handed
    y = np.ascontiguousarray(layout.outward(core.y)).copy() if layout.batched else core.y[:, 0].copy()
    return y, _state_outward(spec, (hn, cn), layout), Kept(core, layout, spec)


def trace_of(spec, kept):
    """The Trace of a forward_cached(pooled=False) call: views of its memory, in the caller's layout."""
    found = []
    for layer in range(spec.num_layers):
        for direction in range(spec.directions):
            gates, c, y = kept.core.views(layer, direction)
            y = kept.core.y if y is None else y
            h = y[..., direction * spec.recurrent : (direction + 1) * spec.recurrent]
            parts = [gates[:, :, g] for g in range(gates.shape[2])] + ([h] if c is None else [c, h])
            found.append([kept.layout.outward(part) for part in parts])
    trace = TRACES[spec.cell]
    if len(found) == 1:
        return trace(*found[0])
    return trace(*(list(part) for part in zip(*found, strict=True)))


def _check_dy(spec, dy, layout):
    array = real_array("dy", dy, spec.dtype)
    expected = layout.shape(spec.outputs)
    if array.shape != expected:
        raise ValueError(f"dy has shape {array.shape}, expected {expected}, the shape of y")
    array = layout.inward(array)
    return array if _strided(array, spec.dtype.itemsize) else _contiguous(array)


def backward(spec, names, weights, dy, kept, dstate=None, input_gradient=True, threads=0):
    """``dx, (dh0, dc0), grads``; see the layers' backward.

    names: endings of the tensor names per layer and direction; weights: name -> array, for their shapes.
    """
    if not isinstance(kept, Kept):
        raise TypeError(f"cache must come from forward(..., cache=True), got {type(kept).__name__}")
    if kept.spec._replace(batch_first=spec.batch_first) != spec:
        raise ValueError(f"cache was made by a layer of other sizes: {kept.spec}, expected {spec}")
    layout = kept.layout
    dy = _check_dy(spec, dy, layout)
    dhn, dcn = check_state(spec, dstate, layout, ("dhn", "dcn"), "dstate")
    dx = np.empty((layout.steps, layout.batch, spec.input_size), spec.dtype) if input_gradient else None
    dh0, dc0 = _new_state(spec, layout.batch)
    grads, table = {}, []
    for name in names:
        weight_ih, weight_hh = (np.empty_like(weights[f"weight_{k}_{name}"]) for k in ("ih", "hh"))
        bias = np.empty(weight_ih.shape[0], spec.dtype)
        grads[f"weight_ih_{name}"], grads[f"weight_hh_{name}"] = weight_ih, weight_hh
        if f"bias_ih_{name}" in weights:
            grads[f"bias_ih_{name}"] = bias
        bias_hh = np.empty_like(bias) if kept.core.model.own_bias_hh else None
        weight_hr = np.empty_like(weights[f"weight_hr_{name}"]) if spec.proj_size else None
        table.append((weight_ih, weight_hh, bias, bias_hh, weight_hr))
    kept.core.model.backward(kept.core, dy, dhn, dcn, dx, dh0, dc0, table, threads)
    for name, (_, _, bias, bias_hh, weight_hr) in zip(names, table, strict=True):
        if f"bias_ih_{name}" in weights:  # mostly bias_ih and bias_hh enter as a sum
            grads[f"bias_hh_{name}"] = bias.copy() if bias_hh is None else bias_hh
        if weight_hr is not None:
            grads[f"weight_hr_{name}"] = weight_hr
    dx = None if dx is None else layout.outward(dx)
    return dx, _state_outward(spec, (dh0, dc0), layout), {name: grads[name] for name in weights}
