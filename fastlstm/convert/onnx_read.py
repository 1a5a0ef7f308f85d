"""`from_onnx`: the recurrent nodes of an ONNX file as layers, without the package onnx.

The file is read into memory and walked (onnx_nodes.py, onnx_values.py). Weights are copied out of it in the order of
gates that layers have (onnx_layers.py), piece by piece, and each piece is given back: nothing is in memory twice.
"""

import math
import os
import warnings
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ..params import check_flag, not_finite
from ..read_files import FileFormatError, as_source, excerpt, refusals, steady
from .onnx_around import rest
from .onnx_layers import INPUTS, OUTPUTS, WEIGHTS, check_opset, check_shapes, layer, recipe, target_type
from .onnx_nodes import STANDARD, Search, attributes_of, short
from .onnx_room import BF16, Room
from .onnx_tensors import Bytes, Others, array, described, width_of
from .onnx_values import Values
from .onnx_wire import LENGTH, VARINT, fields, message, one, signed, text

MAX_IR = 14  # of onnx 1.23
_IR, _PRODUCER, _GRAPH, _OPSET, _FUNCTION = 1, 2, 7, 8, 25  # of ModelProto
_STATES = ("initial_h", "initial_c")
_SHARED = "shares weights with other nodes, which together need more than twice the file's size"
_PROJECTED = "; torch.onnx.export drops the projection of proj_size: from_torch reads that layer from the checkpoint"
_KINDS = ("float32", "float64", "float16", "bfloat16")
_TOLD = 5  # nodes whose reasons an error gives in full


# ---- the model --------------------------------------------------------------------------------------------------


class _Model(NamedTuple):
    """graph: its span; opset: version of the standard operators; producer: the program that wrote the file."""

    graph: tuple
    opset: int
    producer: str


def _model(data, size):
    try:
        kinds = {_IR: VARINT, _PRODUCER: LENGTH, _GRAPH: LENGTH, _OPSET: LENGTH}
        found = message(data, (0, size), kinds, 1024)
        ir, graph, producer = one(found[_IR]), one(found[_GRAPH]), text(data, one(found[_PRODUCER]))
    except ValueError as error:
        raise ValueError(f"not an ONNX model, or {error}") from None
    if ir is None or graph is None:
        raise ValueError("not an ONNX model: there is no graph, or no version of its format")
    if not 0 < ir <= MAX_IR:
        raise ValueError(f"written in ONNX's format (IR) {signed(ir)}; 1 to {MAX_IR} are read")
    versions = {}
    for span in found[_OPSET]:
        entry = message(data, span, {1: LENGTH, 2: VARINT})
        if text(data, one(entry[1])) in STANDARD:
            versions["opset"] = signed(one(entry[2], 0))
    if not versions and ir >= 3:
        raise ValueError("names no version of ONNX's operators (opset)")
    opset = versions.get("opset", 1)
    check_opset(opset)
    return _Model(graph, opset, producer)


def _nodes(data, size, model):
    """(node, why it cannot be read or None) of every recurrent node of a model; in functions there may be none."""

    def functions():
        return ((a, b) for number, kind, a, b in fields(data, (0, size)) if number == _FUNCTION and kind == LENGTH)

    found = Search(data, model.graph, functions).found
    if not found:
        words = "there is no LSTM, GRU or RNN in it"
        if model.producer.lower() == "pytorch":
            words += "; torch.onnx.export writes torch.nn.RNN as one only with dynamo=False"
        raise ValueError(words)
    return found


def _inputs(node):
    """Name in ONNX's documentation -> name in the graph, of those that are given."""
    names = INPUTS[node.op_type]
    for what, found, most in (("inputs", node.inputs, names), ("outputs", node.outputs, OUTPUTS[node.op_type])):
        if len(found) > len(most):
            raise ValueError(f"has {len(found)} {what}, expected {len(most)} at most: {', '.join(most)}")
    given = {name: value for name, value in zip(names, node.inputs, strict=False) if value}
    missing = [name for name in ("X", "W", "R") if name not in given]
    if missing:
        raise ValueError(f"has no input {', '.join(missing)}")
    return given


# ---- tensors ----------------------------------------------------------------------------------------------------


class _Tensors:
    """The tensors of a file and of those beside it, as far as there is room for them."""

    def __init__(self, path, file):
        folder, own = None, None  # of contents and file objects
        if isinstance(path, str):
            found, folder = os.fstat(file.fileno()), os.path.dirname(os.path.abspath(path))
            own = found.st_dev, found.st_ino
        self.source, self.others = Bytes(file), Others(folder)
        size = self.source.size
        self.room = Room(2 * size, lambda: self.source.resident)
        self._walks = 6 * size + (1 << 18)  # bytes of tensors, junk and all, that may be walked for their numbers
        self._uncounted, self._counted = {own: 0}, {}
        self._known, self._narrow = {}, set()  # span -> `Tensor`; spans of tensors of 16 bits or less

    def described(self, span, every=False):
        """The `Tensor` at a span; ValueError for one that is no weight, without `every`."""
        if span not in self._known:
            self._known[span] = described(self.source.data, span, every=True)
        if not every and not self._known[span].is_weight:
            raise ValueError(f"holds {self._known[span].type}, expected {', '.join(_KINDS[:-1])} or {_KINDS[-1]}")
        return self._known[span]

    def array(self, tensor):
        """(array, the place it is from) of a `Tensor`, as `onnx_tensors.array` gives it."""
        self._walks -= tensor.span[1] - tensor.span[0]
        if self._walks < 0:
            raise ValueError("is read too often by nodes that share it")
        self.count(tensor)
        return array(self.source, tensor, self.others)

    def count(self, tensor):
        """What lies in other files is room, too: for each byte of a file once, whatever tensors hold it."""
        if tensor.external is not None and tensor.span not in self._counted:
            place = self.others.place(tensor.external)
            own = min(place.length, self._uncounted.setdefault(place.file, place.size))
            self._uncounted[place.file] -= own
            self._counted[tensor.span] = own
            self.room.grow(2 * own)

    def leaf(self, span):
        """A tensor that something is computed of: bfloat16 as BF16. Its memory goes when no array looks into it."""
        tensor = self.described(span, every=True)
        self.count(tensor)
        stored = self._counted.get(span, span[1] - span[0])
        count, width = min(tensor.count, 2 * stored), width_of(tensor)  # a number takes four bits at least
        if span not in self._narrow and width <= 2:  # computed in float32
            self._narrow.add(span)
            self.room.grow(max(0, 8 * count - 2 * stored))
        self.room.check(count * width)
        found, place = self.array(tensor)
        if place is self.source:
            self.source.watch(span, found)
        else:
            self.room.adopt(found)
        return found.view(BF16) if tensor.type == "bfloat16" else found


# ---- nodes ------------------------------------------------------------------------------------------------------


class _Reader:
    """One file on its way to layers. warnings: what is told about them."""

    def __init__(self, path, file):
        self.path, self.tensors, self.warnings = path, _Tensors(path, file), []
        self.data, size = self.tensors.source.data, self.tensors.source.size
        model = _model(self.data, size)
        self.opset, self.nodes = model.opset, {}  # name -> (node, why it cannot be read or None)
        for node, refusal in _nodes(self.data, size, model):
            names = [name for name in (node.name, *node.outputs) if name and name not in self.nodes]
            if not names:
                names, refusal = [f"{node.place} {len(self.nodes)}"], "has no name and no output, or those of another"
            self.nodes[names[0]] = node, refusal
        self.values = Values(self.data, self.opset, self.tensors.room, self.tensors.leaf)
        self.made, self.states = {}, {}  # what it is made of -> (layer, hidden_size); key of a value -> what it is

    def layers(self, names=None):
        """(name -> layer, name -> why there is none) of all nodes, or of those called `names`."""
        wanted = self.nodes if names is None else dict.fromkeys(names)
        unknown = [name for name in wanted if name not in self.nodes]
        if unknown:
            known = ", ".join(map(short, list(self.nodes)[:20]))
            raise ValueError(f"no recurrent node is called {short(unknown[0])}; there are {known}")
        found, refused = {}, {}
        for name in wanted:
            node, refusal = self.nodes[name]
            try:
                if refusal:
                    raise ValueError(refusal)
                found[name] = self._layer(node)
            except ValueError as error:
                refused[name] = f"{node.place} {excerpt(error, 1000)}"
        self.tensors.others.check_unchanged()
        return found, refused

    def _layer(self, node):
        given = _inputs(node)
        how = recipe(node.op_type, attributes_of(self.data, node), self.opset)
        values = {name: self._found(node, given, name) for name in WEIGHTS if name in given}
        same = repr(how), tuple((name, value.key) for name, value in values.items())
        if same not in self.made:
            self.made[same] = model, _ = self._made(how, values)
            odd = not_finite(model._named_weights())
            if odd:
                self.warnings.append(f"{self.path}: {node.place} has NaN or infinity in {', '.join(odd)}")
        model, hidden = self.made[same]
        for name in _STATES:
            if name in given:
                self._check_state(node, how, hidden, name, given[name])
        self._tell_of_a_turned_x(node, how, given["X"])
        return model

    def _tell_of_a_turned_x(self, node, how, name):
        """A warning where the graph has time and batch in another order than the layer."""
        try:
            before = self.values.find(name, node.graphs).node
            turned = before and before.op_type == "Transpose" and attributes_of(self.data, before).get("perm")
        except ValueError:
            return
        if turned is not None and list(turned or ()) == [1, 0, 2]:
            theirs, ours = ("(T, B, I)", "(B, T, I)") if how.batch_first else ("(B, T, I)", "(T, B, I)")
            words = f"its x comes from a Transpose of the first two axes: the graph has {theirs} there"
            self.warnings.append(f"{self.path}: {node.place}: {words}, this layer takes {ours}")

    def _found(self, node, given, name):
        try:
            return self.values.find(given[name], node.graphs)
        except ValueError as error:
            raise ValueError(f"cannot be read: {name} {error}") from None

    def _made(self, how, values):
        """(the layer of these weights, its hidden_size)."""
        arrays, releases = self._computed(values), {}
        stored = {name: self._stored(name, value) for name, value in values.items() if name not in arrays}
        shapes = {name: found.shape for name, found in (stored | arrays).items()}
        _, hidden = check_shapes(how, {name: shapes.get(name) for name in WEIGHTS})
        kinds = {name: tensor.type for name, tensor in stored.items()}
        wide = np.dtype(target_type(kinds | {name: _type(found) for name, found in arrays.items()}))
        if not self.tensors.room.take(sum(map(math.prod, shapes.values())) * wide.itemsize):
            raise ValueError(_SHARED)
        times = Counter(tensor.span for tensor in stored.values())
        for name, tensor in stored.items():
            try:
                arrays[name], place = self.tensors.array(tensor)
            except ValueError as error:
                raise ValueError(f"cannot be read: {name} {error}") from None
            if place is self.tensors.source and times[tensor.span] == 1:
                releases[name] = self._release(tensor.span)
        arrays = {name: found.view("<u2") if found.dtype == BF16 else found for name, found in arrays.items()}
        return layer(how, arrays, releases), hidden

    def _release(self, span):
        return lambda piece: self.tensors.source.release(span, piece)

    def _stored(self, name, value):
        """The `Tensor` of a weight that is one."""
        try:
            tensor = self.tensors.described(value.span)
            self.tensors.count(tensor)
        except ValueError as error:
            raise ValueError(f"cannot be read: {name} {error}") from None
        return tensor

    def _computed(self, values):
        """The arrays of those weights that are no tensors of the file."""
        try:
            found = self.values.arrays({name: value for name, value in values.items() if value.node})
        except ValueError as error:
            raise ValueError(f"cannot be read: {error}") from None
        for name, weight in found.items():
            if _type(weight) not in _KINDS:
                raise ValueError(f"cannot be read: {name} is computed as {weight.dtype}, expected {', '.join(_KINDS)}")
        return found

    def _check_state(self, node, how, hidden, name, given):
        """A warning about an initial state that is stored, and not zero. ValueError for one that does not fit."""
        state = self._state(node, name, given)
        if state is None:
            return
        shape, is_zero = state
        expected = ["batch", how.directions, hidden] if how.batch_first else [how.directions, "batch", hidden]
        if len(shape) != 3 or any(a != b for a, b in zip(shape, expected, strict=True) if b != "batch"):
            words = f"has {name} of shape {shape}, expected ({', '.join(map(str, expected))})"
            projected = name == "initial_c" and len(shape) == 3 and shape[2] > hidden
            raise ValueError(words + (_PROJECTED if projected else ""))
        if not is_zero:
            words = f"{name} is stored in the file and not zero; the layer starts from zeros if no state is given"
            self.warnings.append(f"{self.path}: {node.place}: {words}")

    def _state(self, node, name, given):
        """(shape, whether it is zero) of an initial state; None for one that is given at run time."""
        try:
            value = self.values.find(given, node.graphs)
        except ValueError:
            return None
        if value.key not in self.states:
            try:
                found = self.values.arrays({name: value})[name]
            except ValueError as error:
                if value.node is None:
                    raise ValueError(f"cannot be read: {error}") from None
                return None
            once = found[tuple(slice(None) if step else slice(1) for step in found.strides)]  # of repeated numbers
            is_zero = not np.any(once["bits"] << 1 if once.dtype == BF16 else once)
            self.states[value.key] = found.shape, is_zero
        return self.states[value.key]


def _type(found):
    return "bfloat16" if found.dtype == BF16 else found.dtype.name


# ---- the calls --------------------------------------------------------------------------------------------------


def read_onnx(path, names=None):
    """(name -> layer, name -> why there is none, warnings, what else the file may compute) of what `as_source` gave.

    See `from_onnx`, and `onnx_around.rest`.
    """
    with refusals(path), steady(path) as file:
        reader = _Reader(path, file)
        return *reader.layers(names), reader.warnings, rest(reader.data, list(reader.nodes.values()))


def _refusal(path, found, refused):
    """The error for a file with nodes that cannot be read."""
    reasons = list(refused.values())
    words = reasons[0]
    if len(reasons) > 1:
        words = f"{len(reasons)} recurrent nodes cannot be read: {'; '.join(reasons[:_TOLD])}"
        words += f"; and {len(reasons) - _TOLD} more" if len(reasons) > _TOLD else ""
    if found:
        listed = ", ".join(map(repr, list(found)[:_TOLD])) + (", ..." if len(found) > _TOLD else "")
        words += f"; from_onnx(path, names=[{listed}]) reads the others"
    return FileFormatError(f"{path}: {words}")


def from_onnx(path, names=None, *, pack=False):
    """The recurrent layers of an ONNX file by name, with copies of their weights; the package onnx is not needed.

    path: a model with nodes LSTM, GRU, RNN of ONNX's own operators, opset 7 to 28, in its main graph or in branches and
    bodies of If, Loop, Scan. Weights are tensors of the file (initializers, Constant nodes), or computed of them by
    operators that move numbers (Slice, Concat, Transpose, Reshape, Gather, ...), by arithmetic, Cast, DequantizeLinear,
    and If with a constant condition, as exporters write them. They are float32 or float64; float16 and bfloat16 are
    widened to float32, and where types differ all become the widest. They may lie in other files of the model's folder
    (external data).
    names: the nodes to read, a list; None for all. `fastlstm inspect` lists them.
    pack: True packs the weights as well (`Module.pack`), which takes their memory once more, so that the first call is
    not the slow one.

    In the place of the path the file's contents (bytes, bytearray, memoryview) are taken, or a binary file object: what
    follows from its present position is the file, and it is left open, at its end. Both are in memory beside what is
    told below, but for files of the disk (``open``). TypeError for anything else, and for text mode; what ``read``
    raises comes as it is. Other files are found next to a path only.

    Returns a dict: the node's name, or that of its first output if it has none or another node has it, -> `LSTM`,
    `GRU`, `RNN` (direction="bidirectional": bidirectional=True), `Reverse` of one (direction="reverse"), or
    `Bidirectional` where the two directions differ in activations. layout=1 is batch_first=True. y is (T, B, D*H) or
    (B, T, D*H), a state (D, B, H); sequence_lens are `lengths`. What a graph does around its nodes stays outside. Nodes
    with the same attributes and weights have one layer.

    Raises FileFormatError (a ValueError: path, node and reason) for a file that is damaged, of a newer version, without
    such nodes, or if one of the nodes cannot be read: of another domain (com.microsoft's), inside a function, with
    unknown attributes, with weights that are known at run time only or do not fit. It names all of them, and those that
    `names` can ask for. So it does for a name that no node has, and for a file that changes while it is read. TypeError
    for names of another type. OSErrors of the model itself, and what has nothing to do with the file's bytes, come as
    they are. Warns (RuntimeWarning) of NaN and infinity, of an initial state that is stored in the file, and where x
    comes from a Transpose of time and batch, as of torch's batch_first=True: the layer takes x as the node does.

    Memory stays below twice the size of the file or of its layers, whichever is larger, a sixteenth more, and 10 kB for
    each layer, of which there may be 1024; where the system takes no memory back piece by piece (Windows), three times.
    """
    if names is not None:
        if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):
            raise TypeError(f"names must be a list of names of nodes, got {type(names).__name__}")
        names = list(names)
        wrong = [type(name).__name__ for name in names if not isinstance(name, str)]
        if wrong:
            raise TypeError(f"names must be a list of names of nodes, got one with {wrong[0]}")
    path, pack = as_source(path), check_flag("pack", pack)
    found, refused, told, _ = read_onnx(path, names)
    if refused:
        raise _refusal(path, found, refused)
    for words in told:
        warnings.warn(words, RuntimeWarning, stacklevel=2)
    for found_one in found.values() if pack else ():
        found_one.pack()
    return found
