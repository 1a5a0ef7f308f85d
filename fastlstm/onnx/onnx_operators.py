"""LSTM, GRU, RNN as operators of ``onnx.reference.ReferenceEvaluator``: with all attributes, by this package's engine.

A layer is built from a node's weights (convert/onnx_layers.py), packed, and kept for the runs after that, as long as
attributes and weights stay the same. Types: float32, float64; float16 and bfloat16 are computed in float32.
"""

import numpy as np
from onnx.reference.op_run import OpRun

from ..convert.onnx_layers import INPUTS, WEIGHTS, layer, recipe
from ..wrappers import Bidirectional

_INITIAL = ("initial_h", "initial_c")

# ---- weights that stay the same ---------------------------------------------------------------------------------


def _is_frozen(array):
    """Whether nobody can change it: read-only, and so is all whose memory it shows."""
    while isinstance(array, np.ndarray):
        if array.flags.writeable:
            return False
        array = array.base
    return array is None or isinstance(array, bytes)


class _Kept:
    """An array as it was: itself if it is frozen, else a copy."""

    def __init__(self, array):
        self._frozen = array is None or _is_frozen(array)
        self._array = array if self._frozen else array.copy()

    def equals(self, other):
        """Whether `other` has the same bits."""
        mine = self._array
        if mine is other:
            return True
        if mine is None or other is None or mine.shape != other.shape or mine.dtype != other.dtype:
            return False
        bits = f"u{mine.itemsize}"
        return np.array_equal(np.ascontiguousarray(mine).view(bits), np.ascontiguousarray(other).view(bits))


# ---- a run ------------------------------------------------------------------------------------------------------


def _state(how, model, parts):
    """Initial states as a layer takes them. parts: (D, B, H) each, or (B, D, H) with layout=1, or None."""
    shapes = [part.shape for part in parts if part is not None]
    if not shapes:
        return None
    parts = [np.zeros(shapes[0], model.dtype) if part is None else part.astype(model.dtype) for part in parts]
    for part in parts:
        if part.ndim != 3 or part.shape[how.batch_first] != how.directions:
            axes = "(B, D, H)" if how.batch_first else "(D, B, H)"
            raise ValueError(f"has an initial state of shape {part.shape}, expected {axes} with D {how.directions}")
    if how.batch_first:
        parts = [part.swapaxes(0, 1) for part in parts]

    def packed(parts):
        return tuple(parts) if len(parts) > 1 else parts[0]

    if isinstance(model, Bidirectional):
        return tuple(packed([part[d : d + 1] for part in parts]) for d in range(2))
    return packed(parts)


def _outputs(how, model, y, state):
    """[Y, Y_h, Y_c] as ONNX arranges them."""
    D = how.directions
    y = y.reshape(*y.shape[:2], D, y.shape[2] // D)
    if isinstance(model, Bidirectional):
        pairs = [one if isinstance(one, tuple) else (one,) for one in state]
        state = tuple(np.concatenate(part) for part in zip(*pairs, strict=True))
    parts = state if isinstance(state, tuple) else (state,)
    if how.batch_first:
        return [y, *(part.swapaxes(0, 1) for part in parts)]
    return [y.transpose(0, 2, 1, 3), *parts]


def _compute(how, model, given):
    """[Y, Y_h, Y_c] in the type of X."""
    types = {name: given[name].dtype.name for name in ("X", "W", *_INITIAL) if given.get(name) is not None}
    if len(set(types.values())) > 1:
        raise ValueError(f"has inputs of different types: {', '.join(f'{n} {kind}' for n, kind in types.items())}")
    x = given["X"]
    if x.ndim != 3:
        raise ValueError(f"has X of shape {x.shape}, expected three axes")
    lstm = how.op_type == "LSTM"
    state = _state(how, model, [given.get(name) for name in (_INITIAL if lstm else _INITIAL[:1])])
    y, state = model(x.astype(model.dtype, copy=False), state, lengths=given.get("sequence_lens"))
    return [np.ascontiguousarray(one.astype(x.dtype, copy=False)) for one in _outputs(how, model, y, state)]


class _Recurrent(OpRun):
    """What the three operators share."""

    op_domain = ""

    def __init__(self, onnx_node, run_params, schema=None):
        """Raises ValueError that names the node for attributes that mean nothing here, as `recipe` tells them."""
        super().__init__(onnx_node, run_params, schema)
        name = onnx_node.name or next(filter(None, onnx_node.output), "")
        self._place = f"node {name!r} ({onnx_node.op_type})"
        self._given = [attribute.name for attribute in onnx_node.attribute]  # the others have their default
        self._kept = None
        self._how = None if self.has_linked_attribute else self._recipe(vars(self))

    def _told(self, function, *arguments):
        """A function's result; its errors name the node. All are ValueErrors: of a TypeError OpRun keeps no words."""
        try:
            return function(*arguments)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self._place} {error}") from None

    def _recipe(self, values):
        attributes = {name: values[name] for name in self._given}
        return self._told(recipe, self.onnx_node.op_type, attributes, self.run_params["opsets"].get("", 0))

    def _layer(self, how, weights):
        """The layer of these weights, that of the last run if nothing differs."""
        kept = self._kept  # one object: another thread may set it meanwhile
        if kept is not None and kept[0] == how and all(kept[1][name].equals(weights[name]) for name in WEIGHTS):
            return kept[2]
        model = self._told(layer, how, weights)
        self._kept = how, {name: _Kept(weights[name]) for name in WEIGHTS}, model
        return model

    def _run(self, *inputs, **attributes):
        """Y, Y_h and, of an LSTM, Y_c, as many as the node has outputs.

        attributes: those of the node, and of a function that calls it. Raises ValueError that names the node for what
        does not fit.
        """
        given = dict(zip(INPUTS[self.onnx_node.op_type], inputs, strict=False))
        how = self._how or self._recipe(attributes)
        model = self._layer(how, {name: given.get(name) for name in WEIGHTS})
        return tuple(self._told(_compute, how, model, given)[: len(self.onnx_node.output)])


class LSTM(_Recurrent):
    """ONNX's LSTM, opsets 7 to 28."""


class GRU(_Recurrent):
    """ONNX's GRU, opsets 7 to 28."""


class RNN(_Recurrent):
    """ONNX's RNN, opsets 7 to 28."""


operators = [LSTM, GRU, RNN]
