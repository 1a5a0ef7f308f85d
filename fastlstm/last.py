"""`Last`: one output for each row instead of one for each step, as a classifier of whole sequences wants it.

Letters: T steps, B rows, F features, D directions. Keras says return_sequences=False.
"""

from typing import Any, NamedTuple

import numpy as np

from .arguments import real_array
from .concurrency import NOTHING
from .container import Container, member, run
from .recurrent import Recurrent
from .reprs import fields_told
from .spec import Layout
from .states import assign, check_state, new_state, outward
from .wrappers import Bidirectional, Reverse, _merged, _parted


def _h(layer, state):
    """The entry h of a state as the layer gives it."""
    return state[0] if len(layer._spec.states) > 1 else state


def _final(layer, state):
    """(B, F): the last outputs computed, of the top layer and all directions, from the state."""
    if isinstance(layer, Bidirectional):
        pair = zip((layer.forward_layer, layer.backward_layer), state, strict=True)
        return _merged(layer.merge, *(_final(one, own) for one, own in pair))
    if isinstance(layer, Reverse):
        return _final(layer.layer, state)
    h, directions = _h(layer, state), layer._spec.directions
    return np.concatenate([h[k] for k in range(-directions, 0)], axis=-1)


def _with_final(layer, dstate, dy, state):
    """dstate, in the layer's structure, with dy added to the gradient of what `_final` took from `state`."""
    if isinstance(layer, Bidirectional):
        layers = layer.forward_layer, layer.backward_layer
        dys = _parted(layer.merge, dy, *(_final(one, own) for one, own in zip(layers, state, strict=True)))
        given = layer._pair("dstate", dstate)
        return tuple(_with_final(*four) for four in zip(layers, given, dys, state, strict=True))
    if isinstance(layer, Reverse):
        return _with_final(layer.layer, dstate, dy, state)
    spec, top = layer._spec, _h(layer, state)[-1]
    layout = Layout(1, top.shape[0] if top.ndim == 2 else 1, top.ndim == 2, False)
    given = check_state(spec, dstate, layout, "d{}n", "dstate")
    whole = new_state(spec, layout.batch, np.zeros)
    assign(whole, given)
    found = outward(spec, whole, layout)
    h, width = _h(layer, found), spec.recurrent
    for k in range(spec.directions):
        h[k - spec.directions] += dy[..., k * width : (k + 1) * width]
    return found


class _Kept(NamedTuple):
    """The cache of `Last`: the layer's, its last state, the shape of its y."""

    core: Any
    state: Any
    shape: Any

    __repr__ = fields_told


class Last(Container):
    """Only the last output of each row: y (B, F) where the layer gives (T, B, F), or (F,) of an unbatched sequence.

    layer: a recurrent layer, `Reverse` or `Bidirectional`. y is h of the top layer after the last step computed: with
    `lengths` that of each row, of a row of length 0 its initial h; of two directions, both, put together as in the
    layer's y; the reverse one's last step is that of x[0].

    All else is the layer's: arguments, state, trace. Weights are named ``layer.weight_ih_l0``. A `Linear` may follow in
    a `Sequential`, but no recurrent layer. A stream gives at every step the answer for the sequence so far.

    Raises TypeError for a layer of another kind, ValueError for a Bidirectional whose output is a pair.

    >>> Last(LSTM(3, 4, rng=0))(np.zeros((7, 2, 3), np.float32))[0].shape
    (2, 4)
    """

    _member_names = ("layer",)
    layer = member("layer")

    def __init__(self, layer):
        if not isinstance(layer, (Recurrent, Reverse, Bidirectional)):
            raise TypeError(f"layer must be a recurrent layer, Reverse or Bidirectional, got {type(layer).__name__}")
        if isinstance(layer, Bidirectional) and layer.merge is None:
            raise ValueError("layer has merge=None and gives a pair; Last needs one output")
        super().__init__({"layer": layer})

    @property
    def batch_first(self):
        """That of the layer."""
        return self.layer.batch_first

    @property
    def in_features(self):
        """Features of x."""
        return self.layer.input_size if isinstance(self.layer, Recurrent) else self.layer.in_features

    @property
    def out_features(self):
        """Features of y."""
        return self.layer._spec.outputs if isinstance(self.layer, Recurrent) else self.layer.out_features

    def forward(self, x, state=None, *, lengths=None, reset=None, trace=False, cache=False):
        """``(y, state)``, then the trace if asked for, then the cache if asked for; see the layer's forward."""
        return self._forward(x, state, lengths=lengths, reset=reset, trace=trace, cache=cache, moment=NOTHING)

    def _forward(self, x, state, *, lengths, reset, trace, cache, moment):
        options = {"lengths": lengths, "reset": reset, "trace": trace, "cache": cache}
        y, state, *rest = run(self.layer, x, state, moment, **options)
        final = _final(self.layer, state)
        if cache:  # the caller may change the state it is handed
            rest[-1] = _Kept(rest[-1], _copied(state), y.shape)
        return (final, state, *rest)

    def backward(self, dy, cache, dstate=None, *, input_gradient=True):
        """``(dx, dstate, grads)``; dy: (B, F)."""
        if not isinstance(cache, _Kept):
            raise TypeError(f"cache must come from forward(..., cache=True), got {type(cache).__name__}")
        dy = real_array("dy", dy, self.dtype)
        expected = _final(self.layer, cache.state).shape
        if dy.shape != expected:
            raise ValueError(f"dy has shape {dy.shape}, expected {expected}, the shape of y")
        dx, dstate, grads = self.layer.backward(
            np.zeros(cache.shape, self.dtype), cache.core, _with_final(self.layer, dstate, dy, cache.state),
            input_gradient=input_gradient,
        )
        return dx, dstate, {f"layer.{name}": grad for name, grad in grads.items()}

    def stream(self, batch_size=1, *, awake=0.0):
        """The layer's stream. Raises ValueError for what cannot stream."""
        return self.layer.stream(batch_size, awake=awake)


def _copied(state):
    """A state of any structure, its arrays copied."""
    if isinstance(state, (tuple, list)):
        return type(state)(_copied(one) for one in state)
    return state.copy()
