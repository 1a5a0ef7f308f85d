"""A graph of ONNX while it is put together: nodes, constants, inputs and outputs by name; then the bytes of a file.

The package onnx makes and checks everything but the numbers, which go to the file one tensor at a time: a message of
protobuf is its fields one after the other, and raw_data the last of a tensor. Numbers of fields: onnx.proto.
"""

from typing import NamedTuple

import numpy as np

LIMIT = 2**31 - 1  # bytes of a message of protobuf
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9


class Value(NamedTuple):
    """What flows through a graph: its name and its axes, numbers or the names of what is open."""

    name: str
    dims: tuple


class Constant(NamedTuple):
    """A tensor in the file; make: called for its numbers when they are written."""

    dtype: np.dtype
    shape: tuple
    make: object

    @property
    def size(self):
        """Bytes."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


class _Node(NamedTuple):
    operator: str
    name: str
    inputs: list
    outputs: list
    attributes: dict


class Graph:
    """dtype: of all numbers that are no sizes. Names are unique: places in the model, joined by dots."""

    def __init__(self, dtype):
        self.dtype = np.dtype(dtype)
        self.inputs, self.outputs = {}, {}  # name -> (dtype, dims), in the order of the file
        self._nodes, self._constants = [], {}

    def input(self, name, dims, dtype=None):
        """The name of a new input."""
        self.inputs[name] = np.dtype(dtype or self.dtype), dims
        return name

    def output(self, name, value, dims):
        """Make `value` an output called `name`."""
        self.outputs[name] = self.dtype, dims
        for n, node in enumerate(self._nodes):
            inputs, outputs = ([name if one == value else one for one in ends] for ends in (node.inputs, node.outputs))
            self._nodes[n] = node._replace(inputs=inputs, outputs=outputs)

    def constant(self, name, shape, make):
        """The name of a constant; make: called for its numbers when they are written."""
        self._constants[name] = Constant(self.dtype, tuple(shape), make)
        return name

    def sizes(self, *numbers):
        """The name of a constant of integers, one for all who ask for the same."""
        name, array = "sizes." + ".".join(map(str, numbers)), np.array(numbers, np.int64)
        self._constants[name] = Constant(array.dtype, array.shape, lambda: array)
        return name

    def node(self, operator, name, inputs, outputs, **attributes):
        """A node; trailing inputs without a name are left out."""
        inputs = list(inputs)
        while not inputs[-1]:
            inputs.pop()
        self._nodes.append(_Node(operator, name, inputs, list(outputs), attributes))

    def then(self, operator, output, *inputs, **attributes):
        """The name of the one output of a node that is called like it."""
        self.node(operator, output, inputs, [output], **attributes)
        return output

    def _used(self):
        """(nodes, constants) that an output depends on; the last outputs of a node go where nothing reads them.

        Not the first ones: onnx.reference takes one without a name for inputs without a name.
        """
        read, nodes = set(self.outputs), []
        for node in reversed(self._nodes):
            if read.intersection(node.outputs):
                while node.outputs[-1] not in read:
                    node.outputs.pop()
                nodes.insert(0, node)
                read.update(node.inputs)
        return nodes, {name: constant for name, constant in self._constants.items() if name in read}

    def file(self, opset, metadata):
        """The bytes of a file, piece by piece, after the package onnx has checked all but the numbers.

        ValueError for more than a file has room for.
        """
        from onnx import ModelProto, TensorProto, helper

        nodes, constants = self._used()
        nodes = [helper.make_node(n.operator, n.inputs, n.outputs, name=n.name, **n.attributes) for n in nodes]
        front, back = helper.make_graph(nodes, "fastlstm", [], []), _ends(self.inputs, self.outputs)
        opsets = [helper.make_opsetid("", opset)]
        head = ModelProto(ir_version=helper.find_min_ir_version_for(opsets), producer_name="fastlstm")
        tail = ModelProto(opset_import=opsets)
        helper.set_model_props(tail, metadata)
        _check(head, front, back, tail, constants)

        described = {}
        for name, constant in constants.items():
            kind = helper.np_dtype_to_tensor_dtype(constant.dtype)
            described[name] = TensorProto(name=name, dims=constant.shape, data_type=kind).SerializeToString()
        return _pieces(*(one.SerializeToString() for one in (head, front, back, tail)), {
            name: (described[name] + _field(_RAW_DATA, constant.size), constant) for name, constant in constants.items()
        })


def _ends(inputs, outputs):
    """A graph of nothing but inputs and outputs."""
    from onnx import GraphProto, helper

    def described(ends):
        kinds = ((name, helper.np_dtype_to_tensor_dtype(dtype), dims) for name, (dtype, dims) in ends.items())
        return [helper.make_tensor_value_info(*kind) for kind in kinds]

    return GraphProto(input=described(inputs), output=described(outputs))


def _check(head, front, back, tail, constants):
    """The package onnx's check of a model, in which the weights are inputs: their numbers matter to nobody there."""
    from onnx import ModelProto, checker, numpy_helper

    model = ModelProto()
    for part in (head, tail):
        model.MergeFrom(part)
    for part in (front, back):
        model.graph.MergeFrom(part)
    weights = {name: one for name, one in constants.items() if one.dtype.kind == "f"}
    model.graph.MergeFrom(_ends({name: (one.dtype, one.shape) for name, one in weights.items()}, {}))
    small = [numpy_helper.from_array(one.make(), name) for name, one in constants.items() if name not in weights]
    model.graph.initializer.extend(small)
    checker.check_model(model, full_check=True)


# ---- the wire format of protobuf --------------------------------------------------------------------------------


def _field(number, size):
    """What stands before a field of `size` bytes; number: below 16."""
    found = [number << 3 | 2]
    while size > 127:
        found.append(size & 127 | 128)
        size >>= 7
    return bytes([*found, size])


def _pieces(head, front, back, tail, tensors):
    """A model's bytes; tensors: name -> (all but its numbers, `Constant`)."""
    sizes = {name: len(start) + constant.size for name, (start, constant) in tensors.items()}
    fields = {name: _field(_INITIALIZER, size) for name, size in sizes.items()}
    graph = len(front) + len(back) + sum(sizes.values()) + sum(map(len, fields.values()))
    start = _field(_GRAPH, graph)
    check_size(len(head) + len(start) + graph + len(tail))

    def pieces():
        yield head + start + front
        for name, (before, constant) in tensors.items():
            yield fields[name] + before
            numbers = np.asarray(constant.make(), constant.dtype.newbyteorder("<"), order="C")
            assert numbers.shape == constant.shape, name
            yield memoryview(numbers).cast("B")
        yield back + tail

    return pieces()


def check_size(size):
    """ValueError for more bytes than a file has room for."""
    if size > LIMIT:
        raise ValueError(f"to_onnx: the model needs {size} bytes, a file of ONNX holds {LIMIT} at most")
