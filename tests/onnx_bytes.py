"""ONNX models as bytes, made by hand, without the package onnx. Numbers of fields: onnx.proto."""

import struct

import numpy as np

CODES = {
    "float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "bool": 9, "float16": 10,
    "float64": 11, "uint32": 12, "uint64": 13, "bfloat16": 16, "uint4": 21, "int4": 22,
}
FIELDS = {  # of numbers one by one
    **dict.fromkeys(("uint8", "int8", "uint16", "int16", "int32", "bool", "float16", "bfloat16"), 5), "float32": 4,
    "int64": 7, "float64": 10, "uint32": 11, "uint64": 11,
}


def varint(n):
    n &= (1 << 64) - 1
    found = bytearray()
    while n > 127:
        found.append(n & 127 | 128)
        n >>= 7
    return bytes([*found, n])


def field(number, value):
    """A field: an int as a varint, a float as 4 bytes, bytes and strings with their length."""
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(number, values):
    return b"".join(field(number, value) for value in values)


def numbers(array, kind, packed):
    """The field of a tensor that holds its numbers one by one."""
    number, flat = FIELDS[kind], np.ascontiguousarray(array).ravel()
    if kind in ("float32", "float64"):
        if packed:
            return field(number, flat.astype(flat.dtype.newbyteorder("<")).tobytes())
        tag, width = varint(number << 3 | (5 if kind == "float32" else 1)), flat.itemsize
        data = flat.astype(flat.dtype.newbyteorder("<")).tobytes()
        return b"".join(tag + data[at : at + width] for at in range(0, len(data), width))
    values = flat.view(np.uint16) if kind.endswith("float16") else flat
    if packed:
        return field(number, b"".join(varint(int(n)) for n in values))
    return fields(number, (int(n) for n in values))


def tensor(name, array, how="raw", kind=None):
    """A TensorProto. how: "raw", "packed", "unpacked", or a dict of external data.

    kind: "bfloat16" for uint16; "int4", "uint4" for uint8, two numbers in each.
    """
    array = np.asarray(array)
    kind = kind or array.dtype.name
    shape = (*array.shape[:-1], 2 * array.shape[-1]) if kind in ("int4", "uint4") else array.shape
    head = fields(1, shape) + field(2, CODES[kind]) + field(8, name)
    if isinstance(how, dict):
        entries = (field(1, key) + field(2, str(value)) for key, value in how.items())
        return head + fields(13, entries) + field(14, 1)
    if how == "raw":
        return head + field(9, np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
    return head + numbers(array, kind, how == "packed")


class Tensor(bytes):
    """A TensorProto as the value of an attribute."""


class Graph(bytes):
    """A GraphProto as the value of an attribute."""


def attribute(name, value, typed=True):
    """An AttributeProto."""
    single = value[0] if isinstance(value, (list, tuple)) and value else value
    several = isinstance(value, (list, tuple))
    place, kind = {Tensor: (5, 4), Graph: (6, 5), str: (4, 3), float: (2, 1), int: (3, 2)}.get(type(single), (7, 6))
    if several:
        place, kind = {str: (9, 8), float: (7, 6), int: (8, 7)}.get(type(single), (7, 6))
    body = fields(place, value) if several else field(place, bytes(value) if isinstance(value, bytes) else value)
    return field(1, name) + body + (field(20, kind) if typed else b"")


def node(op, inputs, outputs, name="", domain="", typed=True, **attributes):
    """A NodeProto."""
    found = fields(1, inputs) + fields(2, outputs) + (field(3, name) if name else b"") + field(4, op)
    found += fields(5, (attribute(key, value, typed) for key, value in attributes.items()))
    return found + (field(7, domain) if domain else b"")


def graph(nodes, initializers=(), inputs=("x",), outputs=("y",)):
    """A GraphProto; inputs and outputs are float32 with three axes."""
    kind = field(2, field(1, field(1, 1) + field(2, fields(1, [b""] * 3))))  # tensor_type: elem_type, shape
    found = fields(1, nodes) + field(2, "main") + fields(5, initializers)
    found += fields(11, (field(1, name) + kind for name in inputs))
    return found + fields(12, (field(1, name) + kind for name in outputs))


def model(content, opset=17, ir=8, domain="", more=b""):
    """A ModelProto around a graph."""
    versions = b"" if opset is None else field(8, (field(1, domain) if domain else b"") + field(2, opset))
    return field(1, ir) + field(2, "by hand") + field(7, content) + versions + more


def weights(op="LSTM", I=3, H=4, D=1, P=False, dtype="float32", seed=0, bias=True):
    """Name -> array of W, R, B, P as ONNX has them."""
    rng, G = np.random.default_rng(seed), {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    shapes = {"W": (D, G * H, I), "R": (D, G * H, H)}
    shapes |= {"B": (D, 2 * G * H)} if bias else {}
    shapes |= {"P": (D, 3 * H)} if P else {}
    return {name: (0.5 * rng.standard_normal(shape)).astype(dtype) for name, shape in shapes.items()}


def recurrent(op="LSTM", arrays=None, name="rnn", how="raw", opset=17, ir=8, **attributes):
    """A model with one node, whose weights are initializers."""
    arrays = weights(op) if arrays is None else arrays
    inputs = ["x", "W", "R", "B", "", "", "", "P"] if "P" in arrays else ["x", *arrays]
    tensors = [tensor(key, array, how) for key, array in arrays.items()]
    return model(graph([node(op, inputs, ["y"], name, **attributes)], tensors), opset, ir)


def varied():
    """A model with all that a reader meets: two domains, types of numbers, names behind Identity, graphs in a node."""
    lstm, gru, rnn = weights("LSTM", 3, 4, 2, P=True), weights("GRU", 4, 3), weights("RNN", 3, 5, dtype="float16")
    branch = graph(
        [node("Constant", [], ["c"], value=Tensor(tensor("", gru["W"], "packed"))),
         node("GRU", ["x", "c", "gru.R", "gru.B"], ["z"], "inner", linear_before_reset=1)],
        [tensor("gru.R", gru["R"], "unpacked"), tensor("gru.B", gru["B"])], [], ["z"],
    )
    nodes = [
        node("Identity", ["W"], ["W2"]),
        node("LSTM", ["x", "W2", "R", "B", "", "", "", "P"], ["y", "", "cn"], "both", direction="bidirectional",
             activations=["Sigmoid", "Tanh", "Tanh", "HardSigmoid", "Elu", "Tanh"], activation_alpha=[0.25, 0.5],
             activation_beta=[0.5], clip=3.0, input_forget=1, hidden_size=4),
        node("RNN", ["x", "rnn.W", "rnn.R"], ["u"], direction="reverse", layout=1),
        node("If", ["cond"], ["v"], then_branch=Graph(branch)),
        node("Add", ["u", "v"], ["w"], doc_string="nothing"),
    ]
    tensors = [tensor(name, array) for name, array in lstm.items()]
    tensors += [tensor("rnn.W", rnn["W"], "packed"), tensor("rnn.R", rnn["R"])]
    return model(graph(nodes, tensors, ["x", "cond"], ["y", "w"]), more=field(8, field(1, "com.example") + field(2, 1)))


def computed(H=4, I=3):
    """A model of opset 17 whose weights are computed of constants, in most of the ways that exporters use."""
    arrays, sizes = weights("GRU", I, H), {"zero": [0], "one": [1], "H": [H], "2H": [2 * H], "end": [2**63 - 1]}
    tensors = [tensor(name, np.array(value, np.int64)) for name, value in sizes.items()]
    tensors += [tensor("w", arrays["W"][0].T), tensor("scale", np.float32(0.01)), tensor("yes", np.array(True))]
    tensors += [tensor("r", np.clip(100 * arrays["R"], -128, 127).astype("i1"), "packed"), tensor("h", np.float32([0]))]
    bias = graph([node("Cast", ["b"], ["v"], to=1)], [tensor("b", arrays["B"].astype("f2"))], [], ["v"])
    nodes = [
        node("Transpose", ["w"], ["wt"], perm=[1, 0]),
        node("Slice", ["wt", "zero", "H", "zero"], ["w0"]), node("Slice", ["wt", "H", "2H"], ["w1"]),
        node("Slice", ["wt", "2H", "end", "zero", "one"], ["w2"]), node("Concat", ["w1", "w0", "w2"], ["ws"], axis=0),
        node("Unsqueeze", ["ws", "zero"], ["W"]), node("DequantizeLinear", ["r", "scale"], ["R"]),
        node("If", ["yes"], ["B"], then_branch=Graph(bias), else_branch=Graph(bias)),
        node("Constant", [], ["shape"], value_ints=[1, 2, H]), node("Expand", ["h", "shape"], ["h0"]),
        node("GRU", ["x", "W", "R", "B", "", "h0"], ["y"], "rnn", hidden_size=H),
    ]
    return model(graph(nodes, tensors))
