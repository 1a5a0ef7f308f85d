"""`from_onnx`: the recurrent nodes of an ONNX file as layers, without the package onnx.

The file is read into memory and walked (onnx_nodes.py); weights are copied out of it in the order of gates that
layers have (onnx_layers.py), piece by piece, each of which is given back, so that nothing is in memory twice.
"""

import os
import warnings

import numpy as np

from ..params import not_finite
from ..read_files import as_source, refusals, steady
from .onnx_layers import INPUTS, OUTPUTS, WEIGHTS, check_opset, check_shapes, layer, recipe, target_type
from .onnx_nodes import STANDARD, Search, Values
from .onnx_tensors import Bytes, Others, Place, array, described
from .onnx_wire import LENGTH, VARINT, attribute, fields, message, one, signed, text

MAX_IR = 14  # of onnx 1.23
_IR, _GRAPH, _OPSET, _FUNCTION = 1, 7, 8, 25  # of ModelProto
_STATES = ("initial_h", "initial_c")
_SHARED = "shares weights with other nodes, which together need more than twice the file's size"


# ---- the model --------------------------------------------------------------------------------------------------


def _graph_and_opset(data, size):
    """(span of the graph, version of the standard operators)."""
    try:
        found = message(data, (0, size), {_IR: VARINT, _GRAPH: LENGTH, _OPSET: LENGTH}, 1024)
        ir, graph = one(found[_IR]), one(found[_GRAPH])
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
    return graph, opset


def _nodes(data, size, graph):
    """Every recurrent node of a model; in functions there may be none."""

    def functions():
        return ((a, b) for number, kind, a, b in fields(data, (0, size)) if number == _FUNCTION and kind == LENGTH)

    found = Search(data, graph, functions).found
    if not found:
        raise ValueError("there is no LSTM, GRU or RNN in it")
    return found


# ---- a node -----------------------------------------------------------------------------------------------------


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


def _attributes(data, node):
    found = {}
    for span in node.attributes:
        name, value = attribute(data, span)
        if name in found:
            raise ValueError(f"has attribute {name[:100]!r} twice")
        found[name] = value
    return found


class _Reader:
    """One file on its way to layers."""

    def __init__(self, path, file):
        folder, own = None, None  # of contents and file objects
        if isinstance(path, str):
            found, folder = os.fstat(file.fileno()), os.path.dirname(os.path.abspath(path))
            own = found.st_dev, found.st_ino
        self.path, self.source, self.others = path, Bytes(file), Others(folder)
        size = self.source.size
        self.room = 2 * size  # bytes that all layers together may take; what lies in other files adds to it
        self.walks = 2 * size + (1 << 18)  # bytes of tensors, junk and all, that may be walked for their numbers
        self.uncounted, self.counted, self.made = {own: 0}, set(), {}
        self.known, self.starting = {}, {}  # span -> `Tensor`, whether an initial state is not zero
        graph, self.opset = _graph_and_opset(self.source.data, size)
        self.nodes = _nodes(self.source.data, size, graph)
        self.inputs = [self._told(node, _inputs, node) for node in self.nodes]
        wanted = [[given[n] for n in (*WEIGHTS, *_STATES) if n in given] for given in self.inputs]
        self.values = Values(self.source.data, self.nodes, wanted)

    @staticmethod
    def _told(node, function, *arguments):
        """A function's result; its errors name the node."""
        try:
            return function(*arguments)
        except ValueError as error:
            raise ValueError(f"{node.place} {error}") from None

    def layers(self):
        """Name -> layer."""
        found = {}
        for node, given in zip(self.nodes, self.inputs, strict=True):
            names = [name for name in (node.name, *node.outputs) if name and name not in found]
            if not names:
                raise ValueError(f"{node.place} has no name and no output, or those of another one")
            found[names[0]] = self._told(node, self._layer, node, given)
        self.others.check_unchanged()
        return found

    def _tensor(self, node, given, name):
        try:
            span = self.values.tensor(given[name], node.graphs)
            if span not in self.known:
                self.known[span] = described(self.source.data, span)
            return self.known[span]
        except ValueError as error:
            raise ValueError(f"cannot be read: {name} {error}") from None

    def _layer(self, node, given):
        how = recipe(node.op_type, _attributes(self.source.data, node), self.opset)
        tensors = {name: self._tensor(node, given, name) for name in WEIGHTS if name in given}
        check_shapes(how, {name: tensors[name].shape if name in tensors else None for name in WEIGHTS})
        same = repr(how), tuple((name, tensor.span) for name, tensor in tensors.items())
        if same in self.made:
            return self.made[same]
        width = np.dtype(target_type({name: tensor.type for name, tensor in tensors.items()})).itemsize
        arrays, releases = {}, {}
        for name, tensor in tensors.items():
            arrays[name], releases[name] = self._array(name, tensor)
            self.room -= tensor.count * width
        if self.room < 0:
            raise ValueError(_SHARED)
        self.made[same] = model = layer(how, arrays, releases)
        self._warn(node, given, model)
        return model

    def _array(self, name, tensor):
        """(array, what gives back the memory of its pieces)."""
        self.walks -= tensor.span[1] - tensor.span[0]
        if self.walks < 0:
            raise ValueError(_SHARED)
        try:
            found, place = array(self.source, tensor, self.others)
        except ValueError as error:
            raise ValueError(f"cannot be read: {name} {error}") from None
        if isinstance(place, Place) and tensor.span not in self.counted:
            self.counted.add(tensor.span)
            own = min(found.nbytes, self.uncounted.setdefault(place.file, place.size))
            self.uncounted[place.file] -= own  # tensors that are the same bytes count no more than the file has
            self.room += 2 * own
        looks_in = place is self.source
        return found, (lambda piece: self.source.release(tensor.span, piece)) if looks_in else (lambda _: None)

    def _warn(self, node, given, model):
        odd = not_finite(model._named_weights())
        if odd:
            words = f"{self.path}: {node.place} has NaN or infinity in {', '.join(odd)}"
            warnings.warn(words, RuntimeWarning, stacklevel=6)
        for name in _STATES:
            if name in given and self._starts(node, given, name):
                words = f"{name} is stored in the file and not zero; the layer starts from zeros if no state is given"
                warnings.warn(f"{self.path}: {node.place}: {words}", RuntimeWarning, stacklevel=6)

    def _starts(self, node, given, name):
        """Whether an initial state is stored, and not zero."""
        try:
            span = self.values.tensor(given[name], node.graphs)
        except ValueError:
            return False  # given at run time
        if span not in self.starting:
            found, release = self._array(name, self._tensor(node, given, name))
            self.starting[span] = bool(np.any(found))
            release(found)
        return self.starting[span]


def from_onnx(path):
    """The recurrent layers of an ONNX file by name, with copies of their weights; the package onnx is not needed.

    path: a model with nodes LSTM, GRU, RNN of ONNX's own operators, opset 7 to 28, in its main graph or in branches and
    bodies of If, Loop, Scan. Weights are initializers or Constant nodes, also behind Identity, float32 or float64;
    float16 and bfloat16 are widened to float32. They may lie in other files of the model's folder (external data).

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
    such nodes, or with a recurrent node that cannot be read: of another domain (com.microsoft's), inside a function,
    with unknown attributes, with weights that are computed at run time or do not fit; nothing is returned then.
    So it does for one that changes while it is read. OSErrors of the model itself, and what has nothing to do with the
    file's bytes, come as they are. Warns (RuntimeWarning) of NaN and infinity, and of an initial state that is stored
    in the file. Memory stays below twice the file's size and 10 kB for each layer, of which there may be 1024; where
    the system takes no memory back piece by piece (Windows), three times with 16-bit types.
    """
    path = as_source(path)
    with refusals(path), steady(path) as file:
        return _Reader(path, file).layers()
