"""Models to ONNX: `to_onnx`. The package onnx is imported when it is called.

==============  =====================================================================================================
LSTM, GRU, RNN  a node for every layer, both directions in one. Y of ONNX is (T, D, B, H), y here (T, B, D*H): behind it
                stands Squeeze, or Transpose and Reshape
Reverse         direction="reverse"; behind it ReverseSequence or Slice, where y is not in the order of x
Bidirectional   one node of two directions where the layers and the merge allow it; else two, and Concat, Add or Mul
Last            Y_h in the place of Y
Embedding       Gather
Linear          MatMul, Add, and Relu, Tanh, Sigmoid or Softmax
Sequential      one after the other
==============  =====================================================================================================

Time comes first inside of the graph; where it does not outside, there is a Transpose at the start and at the end. Gate
orders: onnx_orders.py. Attributes and tensors of the operators, and what they lack: onnx_ways.py.
"""

import json

import numpy as np

from ..files import check_metadata
from ..last import Last
from ..layers import GRU, LSTM, RNN
from ..module import Module
from ..network import Embedding, Linear
from ..params import _check_size, check_flag
from ..sequential import Sequential
from ..whole_files import as_target, write_whole
from ..wrappers import Bidirectional, Reverse
from .onnx_build import Graph, Value, check_size
from .onnx_recurrent import Stacks, joined
from .onnx_ways import lacking

OPSETS = range(14, 26)  # from the first that has the recurrent operators as they are used here
_RECURRENT = (LSTM, GRU, RNN)
_CONTAINERS = (Sequential, Reverse, Bidirectional, Last)
_ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "softmax": "Softmax"}
_DESCRIPTION = "fastlstm.model"


# ---- what a model is made of ------------------------------------------------------------------------------------


def _at(place, thing):
    """Where in a model, and what: "0.1 (LSTM)"."""
    return f"{joined(*place) or 'the model itself'} ({type(thing).__name__})"


def _layers(model, place=()):
    """(place, layer) of all recurrent layers in a model; refuses what has no counterpart, by name."""
    if type(model) in _CONTAINERS:
        for name, part in model._parts.items():
            yield from _layers(part, (*place, name))
    elif type(model) in _RECURRENT:
        words = lacking(model)
        if words:
            raise ValueError(f"to_onnx: {_at(place, model)}: ONNX has no {', '.join(words)}")
        yield place, model
    elif type(model) not in (Embedding, Linear):
        raise TypeError(f"to_onnx: {_at(place, model)} has no counterpart in ONNX")


def _batch_first(layers):
    """Of all of them, as Sequential sees to; False where there is none."""
    return bool(layers) and layers[0][1].batch_first


# ---- the graph --------------------------------------------------------------------------------------------------


class _Writer:
    """One model on its way into a graph."""

    def __init__(self, model, state, lengths):
        layers = list(_layers(model))
        for name, wanted in (("state", state), ("lengths", lengths)):
            if wanted and not layers:
                raise ValueError(f"to_onnx: {name}=True, but the model has no recurrent layer")
        self.batch_first = _batch_first(layers)
        check_size(model.parameters_bytes)  # before anything is copied
        self.graph, self.weights, self.lengths = Graph(model.dtype), model.state_dict(), "lengths" if lengths else ""
        self.within = None  # the names of what `_within` makes
        self.stacks = Stacks(self.graph, self.weights, self.lengths, state, len(layers) > 1)

    def _weight(self, place, name, transposed=False):
        """The name of a constant: a weight of a module."""
        name = joined(*place, name)
        weight = self.weights[name].T if transposed else self.weights[name]
        return self.graph.constant(f"{name}.T" if transposed else name, weight.shape, lambda: weight)

    def _within(self, axes, x):
        """The name of booleans (T, B), axes=2, or (T, B, 1), axes=3: within the lengths. x: any value (T, B, ...)."""
        graph = self.graph
        if self.within is None:
            first, one = graph.then("Squeeze", "lengths.0", graph.sizes(0)), graph.sizes(1)
            shape = graph.then("Shape", "lengths.shape", x.name)
            steps = graph.then("Gather", "lengths.T", shape, first, axis=0)
            places = graph.then("Range", "lengths.steps", first, steps, graph.then("Squeeze", "lengths.1", one))
            places = graph.then("Unsqueeze", "lengths.places", places, one)
            lengths = graph.then("Cast", "lengths.int64", self.lengths, to=7)
            within = graph.then("Less", "lengths.within", places, lengths)
            self.within = {2: within, 3: graph.then("Unsqueeze", "lengths.within_rows", within, graph.sizes(2))}
        return self.within[axes]

    def _cleared(self, place, y):
        """y of a member without memory, 0 beyond the lengths."""
        if not self.lengths or y.dims[:2] != ("T", "B"):
            return y
        zero = self.graph.constant("lengths.zero", (), lambda: np.zeros(()))
        name = self.graph.then("Where", joined(*place, "cleared"), self._within(3, y), y.name, zero)
        return Value(name, y.dims)

    def _embedding(self, model, place, x):
        if x.dims[2:]:
            raise ValueError(f"to_onnx: {_at(place, model)} takes integers, but is not the first member")
        rows = x.name
        if self.lengths:  # any integer may stand in the padding
            rows = self.graph.then("Where", joined(*place, "valid"), self._within(2, x), rows, self.graph.sizes(0))
        y = self.graph.then("Gather", joined(*place, "rows"), self._weight(place, "weight"), rows, axis=0)
        return self._cleared(place, Value(y, (*x.dims, model.embedding_dim)))

    def _linear(self, model, place, x):
        graph = self.graph
        y = graph.then("MatMul", joined(*place, "product"), x.name, self._weight(place, "weight", transposed=True))
        if joined(*place, "bias") in self.weights:
            y = graph.then("Add", joined(*place, "sum"), y, self._weight(place, "bias"))
        if model.activation:
            options = {"axis": -1} if model.activation == "softmax" else {}
            y = graph.then(_ACTIVATIONS[model.activation], joined(*place, "activated"), y, **options)
        return self._cleared(place, Value(y, (*x.dims[:-1], model.out_features)))

    def _member(self, model, place, x):
        """y of any module; a pair where it gives one."""
        kind = type(model)
        if kind is Sequential:
            for name, part in model._parts.items():
                x = self._member(part, (*place, name), x)
            return x
        if kind is Last:
            return self._recurrent(model.layer, (*place, "layer"), x)[1]
        if kind is Embedding:
            return self._embedding(model, place, x)
        return self._linear(model, place, x) if kind is Linear else self._recurrent(model, place, x)[0]

    def _recurrent(self, model, place, x):
        """(y, last output)."""
        found = {Reverse: self.stacks.reverse, Bidirectional: self.stacks.bidirectional}
        return found.get(type(model), self.stacks.layer)(model, place, x)

    def _input(self, model):
        """x, in the order of the caller."""
        while type(model) in _CONTAINERS:
            model = next(iter(model._parts.values()))
        dims = ("B", "T") if self.batch_first else ("T", "B")
        if type(model) is Embedding:
            return Value(self.graph.input("x", dims, "int64"), dims)
        dims = (*dims, model.in_features if type(model) is Linear else model.input_size)
        return Value(self.graph.input("x", dims), dims)

    def _turned(self, name, value):
        """Time and batch change places."""
        axes = [1, 0, *range(2, len(value.dims))]
        return Value(self.graph.then("Transpose", name, value.name, perm=axes), tuple(value.dims[k] for k in axes))

    def write(self, model):
        """The graph from x to y."""
        x = self._input(model)
        if self.lengths:
            self.graph.input(self.lengths, ("B",), "int32")
        y = self._member(model, (), self._turned("x.T_first", x) if self.batch_first else x)
        states, self.graph.outputs = self.graph.outputs, {}
        for name, value in zip(("y", "y_reverse"), [y] if isinstance(y, Value) else y, strict=False):
            if self.batch_first and "T" in value.dims:
                value = self._turned(f"{name}.B_first", value)
            self.graph.output(name, value.name, value.dims)
        self.graph.outputs.update(states)
        return self.graph


# ---- the call ---------------------------------------------------------------------------------------------------


def _check_opset(opset, onnx):
    opset, known = _check_size("opset", opset), onnx.defs.onnx_opset_version()
    if opset not in OPSETS:
        raise ValueError(f"opset must be in {OPSETS[0]}..{OPSETS[-1]}, got {opset}")
    if opset > known:
        raise ValueError(f"opset is {opset}, but the package onnx {onnx.__version__} ends at {known}")
    return opset


def _notes(model, metadata):
    """What goes into the file's metadata."""
    notes = check_metadata(model.metadata if metadata is None else metadata, (_DESCRIPTION,))
    return {_DESCRIPTION: json.dumps(model.describe(), allow_nan=False), **dict(sorted(notes.items()))}


def to_onnx(model, path, *, state=False, lengths=False, opset=17, metadata=None):
    """Write a model to the file `path` as ONNX, whole or not at all; ONNX Runtime and others then run it.

    path: str or os.PathLike, or a binary file object, as `Module.save` takes them.
    model: `LSTM`, `GRU`, `RNN` with the options that ONNX has, `Embedding`, `Linear`, and `Reverse`, `Bidirectional`,
    `Last` and `Sequential` of these. Dropout and other regularisers, which do nothing at inference, are left out.

    The file has the input x (T, B, I), or int64 (T, B) where an Embedding comes first, and the output y, in the shapes
    and the order (`batch_first`) of the model here; T and B are open. A Bidirectional with merge=None gives y and
    y_reverse.
    state: whether the initial state is an input and the last one an output: h0, c0, hn, cn, in the shapes of the layer
    here. Where hidden_size differs between layers there is one of each for every layer and direction, h0_l0,
    h0_l0_reverse, ... (B, H); where there is more than one recurrent layer, names start with its place, as its weights'
    do: 1.h0.
    lengths: whether there is an input lengths (B,) of type int32. Beyond a row's length nothing of x matters and
        y is 0.
    opset: version of ONNX's operators, 14 to 25; 17 is read by ONNX Runtime from 1.12 on.
    metadata: dict of str to str to keep in the file beside ``model.describe()``; None: ``model.metadata``.

    Weights are those of this moment, bit by bit. The node of layer k is named lk behind its place: l0, 1.l0, ... The
    same model always gives the same bytes. ONNX Runtime takes T and B of 1 and more, computes these operators in
    float32 only, and gives 0 for the last state of a row of length 0, which here is its initial state.

    Raises ValueError that names place and value of every option that ONNX lacks (projections, layer_norm, clips of
    states, gates without weights, zoneout, which acts at inference, ...); TypeError for another class, ValueError for
    models above 2 GiB, the limit of the format; TypeError or ValueError that names a wrong argument; ImportError
    without the package onnx; OSError as the system gives it.
    """
    if not isinstance(model, Module):
        raise TypeError(f"to_onnx: model must be a Module, got {type(model).__name__}")
    path = as_target(path)
    state, lengths = check_flag("state", state), check_flag("lengths", lengths)
    notes = _notes(model, metadata)
    try:
        import onnx
    except ImportError as error:
        raise ImportError("to_onnx needs the package onnx: pip install 'fastlstm[onnx]'") from error
    opset = _check_opset(opset, onnx)
    write_whole(path, _Writer(model, state, lengths).write(model).file(opset, notes))
