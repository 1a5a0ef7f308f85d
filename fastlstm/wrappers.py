"""Around recurrent layers: `Reverse`, `Bidirectional`, for what `bidirectional=True` cannot say.

Letters: T steps, B rows. Both are known from Keras: go_backwards, Bidirectional.
"""

from typing import Any, NamedTuple

import numpy as np

from .arguments import check_dy, check_lengths, check_reset, check_x, real_array
from .attributes import kept
from .concurrency import NOTHING, at_one_moment
from .container import Container, member, run
from .params import check_flag
from .recurrent import Recurrent
from .reprs import fields_told
from .spec import Layout

MERGES = ("concat", "sum", "mul", "ave", None)


def _check_layer(name, layer):
    """A recurrent layer of one direction."""
    if not isinstance(layer, Recurrent):
        raise TypeError(f"{name} must be a recurrent layer (LSTM, GRU, RNN, ...), got {type(layer).__name__}")
    if layer.bidirectional:
        raise ValueError(f"{name} is bidirectional, expected a layer of one direction")


def _no_stream(model):
    return ValueError(f"a {type(model).__name__} cannot stream: its reverse direction starts at the sequence's end")


# ---- Reverse ----------------------------------------------------------------------------------------------------


class _Turn(NamedTuple):
    """How a sequence is turned round, every row at its own length; turning twice changes nothing."""

    layout: Layout
    lengths: np.ndarray | None

    __repr__ = fields_told

    def __call__(self, a):
        """a: (T, B, ...) in the caller's layout -> the same shape."""
        a = self.layout.inward(a)
        if self.lengths is None:
            return self.layout.outward(a[::-1])
        place = np.arange(self.layout.steps)[:, None]
        source = np.where(place < self.lengths, self.lengths - 1 - place, place)
        return self.layout.outward(np.take_along_axis(a, source.reshape(*source.shape, *[1] * (a.ndim - 2)), 0))

    def cuts(self, reset):
        """`reset` (T, B) of the inside, where True at t cuts between t-1 and t, for the turned sequence."""
        if reset is None:
            return None
        steps, batch = reset.shape
        ends = np.full(batch, steps) if self.lengths is None else self.lengths
        turned = np.zeros(reset.shape, bool)
        for row, end in enumerate(ends):
            turned[1:end, row] = reset[1:end, row][::-1]
        return self.layout.outward(turned)


class _Turned(NamedTuple):
    """The cache of `Reverse`."""

    core: Any
    turn: _Turn

    __repr__ = fields_told


class Reverse(Container):
    """A recurrent layer that reads each row from its end to its start.

    layer: a recurrent layer of one direction, with any number of layers of its own, all of which run in reverse.
    in_time: True: y[t] is the output after the steps T-1 ... t, as of the reverse direction of a bidirectional layer.
    False: y is left in the order in which it was computed (Keras: go_backwards=True).

    Calls, state and errors are those of the layer; the state is that after the first step of x. With `lengths` a row
    starts at its own end. Weights are named ``layer.weight_ih_l0``. The trace is in the order of y. Cannot stream.

    Raises TypeError for a layer of another kind, ValueError for a bidirectional one.

    >>> y, (hn, cn) = Reverse(LSTM(3, 4, rng=0))(np.zeros((7, 2, 3), np.float32))
    >>> np.array_equal(y[0], hn[0])
    True
    """

    _member_names = ("layer",)
    layer, in_time = member("layer"), kept("in_time")

    def __init__(self, layer, in_time=True):
        _check_layer("layer", layer)
        super().__init__({"layer": layer})
        self._in_time = check_flag("in_time", in_time)

    def _options(self):
        return {"in_time": self.in_time}

    @property
    def batch_first(self):
        """That of the layer."""
        return self.layer.batch_first

    @property
    def in_features(self):
        """Features of x."""
        return self.layer.input_size

    @property
    def out_features(self):
        """Features of y."""
        return self.layer._spec.outputs

    def forward(self, x, state=None, *, lengths=None, reset=None, trace=False, cache=False):
        """``(y, state)``, then the trace if asked for, then the cache if asked for; see the layer's forward."""
        return self._forward(x, state, lengths=lengths, reset=reset, trace=trace, cache=cache, moment=NOTHING)

    def _forward(self, x, state, *, lengths, reset, trace, cache, moment):
        array, layout = check_x(self.layer._spec, x)
        lengths = check_lengths(lengths, layout)
        turn = _Turn(layout, lengths)
        reset = turn.cuts(check_reset(reset, layout))
        options = {"lengths": lengths, "reset": reset, "trace": trace, "cache": cache}
        y, state, *rest = run(self.layer, turn(layout.outward(array)), state, moment, **options)
        ordered = turn if self.in_time else (lambda a: a)
        if trace:
            rest[0] = type(rest[0])(*([ordered(a) for a in part] for part in rest[0]))
        if cache:
            rest[-1] = _Turned(rest[-1], turn)
        return (np.ascontiguousarray(ordered(y)), state, *rest)

    def backward(self, dy, cache, dstate=None, *, input_gradient=True):
        """``(dx, dstate, grads)``; see the layer's backward."""
        if not isinstance(cache, _Turned):
            raise TypeError(f"cache must come from forward(..., cache=True), got {type(cache).__name__}")
        turn = cache.turn
        dy = turn.layout.outward(check_dy(self.layer._spec, dy, turn.layout))
        dx, dstate, grads = self.layer.backward(
            turn(dy) if self.in_time else dy, cache.core, dstate, input_gradient=input_gradient
        )
        dx = None if dx is None else np.ascontiguousarray(turn(dx))
        return dx, dstate, {f"layer.{name}": grad for name, grad in grads.items()}

    def stream(self, batch_size=1, *, awake=0.0):
        """Raises ValueError: the end of an endless sequence never comes."""
        raise _no_stream(self)


# ---- Bidirectional ----------------------------------------------------------------------------------------------


def _merged(merge, a, b):
    """The two directions' outputs as one."""
    if merge == "concat":
        return np.concatenate([a, b], axis=-1)
    if merge == "mul":
        return a * b
    if merge is None:
        return a, b
    return a + b if merge == "sum" else (a + b) / 2


def _parted(merge, dy, a, b):
    """Gradients of the two outputs; what dy must look like has been checked."""
    if merge == "concat":
        return dy[..., : a.shape[-1]], dy[..., a.shape[-1] :]
    if merge == "mul":
        return dy * b, dy * a
    if merge is None:
        return dy
    return (dy, dy) if merge == "sum" else (dy / 2, dy / 2)


def _check_merged_dy(merge, dy, a, b, dtype):
    """dy in the shape of what `_merged` gave."""
    if merge is None:
        if not isinstance(dy, (tuple, list)) or len(dy) != 2:
            raise TypeError(f"dy must be a pair, one for each direction (merge=None), got {type(dy).__name__}")
        return tuple(_check_merged_dy("sum", one, like, like, dtype) for one, like in zip(dy, (a, b), strict=True))
    dy = real_array("dy", dy, dtype)
    width = a.shape[-1] + b.shape[-1] if merge == "concat" else a.shape[-1]
    if dy.shape != (*a.shape[:-1], width):
        raise ValueError(f"dy has shape {dy.shape}, expected {(*a.shape[:-1], width)}, the shape of y")
    return dy


class _Both(NamedTuple):
    """The cache of `Bidirectional`: of both layers, and their outputs."""

    caches: tuple
    outputs: tuple

    __repr__ = fields_told


class Bidirectional(Container):
    """Two recurrent layers with options of their own, the second of which reads each row from its end (as Keras's).

    forward_layer, backward_layer: recurrent layers of one direction with the same input_size, dtype and batch_first.
    merge: how their outputs become y: "concat", or "sum", "mul", "ave" of outputs of one width, or None: y is a pair.

    The state is the pair of the layers' states, the trace and, where merge is None, dy are pairs too; y of the second
    is in the order of x. Two layers of one class and size whose outputs are put side by side are faster as one with
    ``bidirectional=True``. Weights are named ``forward_layer.weight_ih_l0``, ``backward_layer...``. Cannot stream.

    Raises TypeError for a layer of another kind, ValueError for layers that do not fit each other or another merge.
    """

    _member_names = ("forward_layer", "backward_layer")
    forward_layer, backward_layer, merge = member("forward_layer"), member("backward_layer"), kept("merge")

    def __init__(self, forward_layer, backward_layer, merge="concat"):
        for name, layer in (("forward_layer", forward_layer), ("backward_layer", backward_layer)):
            _check_layer(name, layer)
        if forward_layer is backward_layer:
            raise ValueError("backward_layer is forward_layer; weights cannot be shared")
        for name in ("input_size", "dtype", "batch_first"):
            a, b = getattr(forward_layer, name), getattr(backward_layer, name)
            if a != b:
                raise ValueError(f"backward_layer has {name} {b}, forward_layer {a}")
        if merge not in MERGES:
            raise ValueError(f"merge must be one of {', '.join(map(repr, MERGES))}; got {merge!r}")
        a, b = forward_layer._spec.outputs, backward_layer._spec.outputs
        if a != b and merge not in ("concat", None):
            raise ValueError(f"merge={merge!r} needs outputs of one width, got {a} and {b}")
        super().__init__({"forward_layer": forward_layer, "backward_layer": backward_layer})
        self._merge = merge
        self._both = forward_layer, Reverse(backward_layer)

    def _options(self):
        return {"merge": self.merge}

    @property
    def batch_first(self):
        """That of both layers."""
        return self.forward_layer.batch_first

    @property
    def in_features(self):
        """Features of x."""
        return self.forward_layer.input_size

    @property
    def out_features(self):
        """Features of y; None where it is a pair."""
        a, b = self.forward_layer._spec.outputs, self.backward_layer._spec.outputs
        return {"concat": a + b, None: None}.get(self.merge, a)

    def _pair(self, what, value):
        if value is None:
            return None, None
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise TypeError(f"{what} must be None or a pair, one for each direction, got {type(value).__name__}")
        return value

    def forward(self, x, state=None, *, lengths=None, reset=None, trace=False, cache=False):
        """``(y, (state, state))``, then the pair of traces if asked for, then the cache if asked for."""
        return self._forward(x, state, lengths=lengths, reset=reset, trace=trace, cache=cache)

    @at_one_moment
    def _forward(self, x, state, *, lengths, reset, trace, cache, moment):
        array, layout = check_x(self.forward_layer._spec, x)  # once for both
        lengths, reset = check_lengths(lengths, layout), check_reset(reset, layout)
        reset = None if reset is None else layout.outward(reset)
        options = {"lengths": lengths, "reset": reset, "trace": trace, "cache": cache}
        found = [
            run(layer, layout.outward(array), own, moment, **options)
            for layer, own in zip(self._both, self._pair("state", state), strict=True)
        ]
        ys, states, *rest = (tuple(part) for part in zip(*found, strict=True))
        if cache:  # of a pair, which the caller may change, only shapes are needed
            rest[-1] = _Both(rest[-1], ys)
        return (_merged(self.merge, *ys), states, *rest)

    def backward(self, dy, cache, dstate=None, *, input_gradient=True):
        """``(dx, (dstate, dstate), grads)``."""
        if not isinstance(cache, _Both):
            raise TypeError(f"cache must come from forward(..., cache=True), got {type(cache).__name__}")
        dy = _check_merged_dy(self.merge, dy, *cache.outputs, self.dtype)
        dys = _parted(self.merge, dy, *cache.outputs)
        dxs, dstates, grads = zip(*(
            layer.backward(own, kept, given, input_gradient=input_gradient)
            for layer, own, kept, given in zip(
                self._both, dys, cache.caches, self._pair("dstate", dstate), strict=True
            )
        ), strict=True)
        named = {f"forward_layer.{name}": grad for name, grad in grads[0].items()}
        named |= {f"backward_{name}": grad for name, grad in grads[1].items()}
        return dxs[0] + dxs[1] if input_gradient else None, dstates, named

    def stream(self, batch_size=1, *, awake=0.0):
        """Raises ValueError: the end of an endless sequence never comes."""
        raise _no_stream(self)
