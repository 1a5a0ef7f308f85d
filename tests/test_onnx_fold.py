"""from_onnx where weights are computed of constants: every operator in old and new opsets, what is refused, memory."""

import itertools
import warnings

import numpy as np
import onnx_bytes as ob
import pytest

import fastlstm as fl
from fastlstm.convert import onnx_shapes, onnx_values

ARRAYS = ob.weights("RNN")
W = ARRAYS["W"]  # (1, 4, 3)


@pytest.fixture
def read(tmp_path):
    """Bytes -> what from_onnx gives for a file of them; a warning is an error."""

    def function(data, **options):
        path = tmp_path / "model.onnx"
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return fl.from_onnx(path, **options)

    return function


def tensors_of(arrays):
    """Initializers; a pair is an array and its type."""
    return [ob.tensor(n, *(a if isinstance(a, tuple) else (a,))) for n, a in arrays.items()]


def model(nodes, arrays, opset=17, inputs=("x",), more=b""):
    """An RNN whose W is called w, R and B as in ARRAYS."""
    rnn = ob.node("RNN", ["x", "w", "R", "B"], ["y"], "rnn", hidden_size=4)
    tensors = [ob.tensor(name, ARRAYS[name]) for name in "RB"] + tensors_of(arrays)
    return ob.model(ob.graph([*nodes, rnn], tensors, inputs), opset, more=more)


def weight(read, *given, **options):
    return read(model(*given, **options))["rnn"].state_dict()["weight_ih_l0"]


def op(name, inputs, outputs="w", **attributes):
    return ob.node(name, inputs.split(), outputs.split(), **attributes)


def ints(*numbers):
    return np.array(numbers, np.int64)


def bf16(array):
    """The bits of float32 rounded to bfloat16, as a tensor of bytes."""
    bits = array.view("u4").astype("u8")
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("u2"), "raw", "bfloat16"


def f32(bits):
    return (bits.astype("u4") << 16).view("f4")


HALF = W.astype("f2")
SQUARES = np.array([[[2, 3, 4]] * 4], "f4")
Q8 = np.arange(-6, 6).reshape(1, 4, 3).astype("i1")
SCALE = np.float32(0.25)
FOURS = np.array([0x10, 0x32, 0x54, 0x76, 0x98, 0xBA], np.uint8)  # 0 to 11, the lower half first
SIGNED = np.array([0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5])
MIXED = np.concatenate([W, W], 1)
BLOCKS = np.array([0.5, 2, 4, 8], "f4").reshape(1, 2, 2)  # along the last axis, of 3 in blocks of 2

# name -> (nodes, initializers, opsets, what w is)
CASES = {
    "ReduceL2 of nothing": ([op("ReduceL2", "a", noop_with_empty_axes=1)], {"a": W - 1}, (18, 28), np.abs(W - 1)),
    "Pow of integers": ([op("Pow", "a e", "b"), op("Cast", "b", to=1)],
                        {"a": np.square(SQUARES).astype("i8"), "e": np.float32(0.5)}, (13, 28), SQUARES),
    "DequantizeLinear, blocks of 1": ([op("DequantizeLinear", "a s", axis=2, block_size=1)],
                                      {"a": Q8, "s": W}, (21, 28), Q8 * W),
    "DequantizeLinear, blocks of 3 of 4": ([op("DequantizeLinear", "a s", axis=1, block_size=3)],
                                           {"a": Q8, "s": W[:, :2]}, (21, 28), Q8 * W[:, [0, 0, 0, 1]]),
    "Gather, turned": ([op("Transpose", "a", "b", perm=[0, 2, 1]), op("Gather", "b t", "c", axis=1),
                        op("Transpose", "c", perm=[0, 2, 1])], {"a": W, "t": ints(2, 0, -2)}, (11, 28),
                       W[:, :, [2, 0, 1]]),
    "Identity": ([op("Identity", "a")], {"a": W}, (7, 28), W),
    "Transpose": ([op("Transpose", "a", perm=[2, 1, 0])], {"a": W.T.copy().T.transpose(2, 1, 0)}, (7, 28), W),
    "Transpose, default": ([op("Transpose", "a")], {"a": W.T}, (7, 28), W),
    "Reshape": ([op("Reshape", "a s")], {"a": W.ravel(), "s": ints(1, 4, 3)}, (7, 28), W),
    "Reshape, -1": ([op("Reshape", "a s")], {"a": W.reshape(4, 3), "s": ints(1, -1, 3)}, (7, 28), W),
    "Reshape, 0": ([op("Reshape", "a s")], {"a": W.reshape(1, 12), "s": ints(0, 4, 3)}, (7, 28), W),
    "Reshape, allowzero": ([op("Reshape", "a s", allowzero=1)], {"a": W[0], "s": ints(1, 4, -1)}, (14, 28), W),
    "Reshape, not in order": (
        [op("Transpose", "a", "b"), op("Reshape", "b s")], {"a": W[0].T, "s": ints(1, 4, 3)}, (7, 28), W),
    "Flatten": ([op("Flatten", "a", "b", axis=2), op("Unsqueeze", "b", axes=[0])], {"a": W}, (7, 12), W),
    "Flatten, default": ([op("Flatten", "a", "b"), op("Reshape", "b s")], {"a": W, "s": ints(1, 4, 3)}, (7, 28), W),
    "Squeeze, attribute": ([op("Squeeze", "a", axes=[0, 2])], {"a": W[None, :, None]}, (7, 12), W),
    "Squeeze, input": ([op("Squeeze", "a s")], {"a": W[None, :, None], "s": ints(0, -3)}, (13, 28), W),
    "Squeeze, all": ([op("Squeeze", "a", "b"), op("Reshape", "b s")], {"a": W, "s": ints(1, 4, 3)}, (7, 28), W),
    "Unsqueeze, attribute": ([op("Unsqueeze", "a", axes=[0])], {"a": W[0]}, (7, 12), W),
    "Unsqueeze, input": ([op("Unsqueeze", "a s")], {"a": W[0], "s": ints(-3)}, (13, 28), W),
    "Slice, attributes": (
        [op("Slice", "a", starts=[1, -3], ends=[99, 2**63 - 1], axes=[1, 2])],
        {"a": np.pad(W, ((0, 0), (1, 0), (2, 0)))}, (7, 9), W),
    "Slice, no axes": ([op("Slice", "a", starts=[0, 1], ends=[1, -1])], {"a": np.pad(W, ((0, 2), (1, 1), (0, 0)))},
                       (7, 9), W),
    "Slice, inputs": (
        [op("Slice", "a s e x t")], {"a": np.repeat(W, 2, 1), "s": ints(0), "e": ints(2**63 - 1), "x": ints(-2),
                                     "t": ints(2)}, (10, 28), W),
    "Slice, backwards": (
        [op("Slice", "a s e x t")],
        {"a": W[:, ::-1, ::-1], "s": ints(-1, 9), "e": ints(-(2**63) + 1, -99), "x": ints(1, 2), "t": ints(-1, -1)},
        (10, 28), W),
    "Slice, no steps": ([op("Slice", "a s e")], {"a": np.concatenate([W, W]), "s": ints(1).astype("i4"),
                                                 "e": ints(2).astype("i4")}, (10, 28), W),
    "Concat": ([op("Concat", "a b a", "c", axis=-2), op("Slice", "c s e x")],
               {"a": W[:, :1], "b": W[:, 1:], "s": ints(0), "e": ints(4), "x": ints(1)}, (10, 28), W),
    "Concat of one": ([op("Concat", "a", axis=0)], {"a": W}, (7, 28), W),
    "Split, attribute": ([op("Split", "a", "b w", axis=1, split=[2, 4])], {"a": np.pad(W, ((0, 0), (2, 0), (0, 0)))},
                         (7, 12), W),
    "Split, input": ([op("Split", "a s", "b w c", axis=1)],
                     {"a": np.pad(W, ((0, 0), (1, 1), (0, 0))), "s": ints(1, 4, 1)}, (13, 28), W),
    "Split, equal": ([op("Split", "a", "b w", axis=-1)], {"a": np.concatenate([W + 1, W], 2)}, (7, 17), W),
    "Split, num_outputs": ([op("Split", "a", "w b", num_outputs=2)], {"a": np.concatenate([W, W + 1])}, (18, 28), W),
    "Split, uneven": ([op("Split", "a", "w b", axis=1, num_outputs=2)], {"a": np.pad(W, ((0, 0), (0, 3), (0, 0)))},
                      (18, 28), W),
    "Gather": ([op("Gather", "a i", axis=1)], {"a": W[:, [2, 0, 3, 1]], "i": ints(1, -1, 0, 2)}, (7, 28), W),
    "Gather, one": ([op("Gather", "a i")], {"a": np.stack([W + 1, W]), "i": np.array(1, "i4")}, (7, 28), W),
    "Expand": ([op("Expand", "a s")], {"a": W[:, :1], "s": ints(4, 1)}, (8, 28), W[:, :1].repeat(4, 1)),
    "Tile": ([op("Tile", "a s")], {"a": W[:, :1], "s": ints(1, 4, 1)}, (7, 28), W[:, :1].repeat(4, 1)),
    "ConstantOfShape": ([op("ConstantOfShape", "s")], {"s": ints(1, 4, 3)}, (9, 28), 0 * W),
    "ConstantOfShape, value": (
        [op("ConstantOfShape", "s", value=ob.Tensor(ob.tensor("", np.array([2.5], "f4"))))], {"s": ints(1, 4, 3)},
        (9, 28), 0 * W + 2.5),
    "Shape": ([op("Shape", "a", "s"), op("Reshape", "b s")], {"a": W, "b": W.ravel()}, (7, 28), W),
    "Shape, part": ([op("Shape", "a", "s", start=-3, end=3), op("Reshape", "b s")], {"a": W, "b": W.ravel()},
                    (15, 28), W),
    "Size": ([op("Size", "a", "s"), op("Mul", "s o", "n"), op("Reshape", "b n", "c"), op("Reshape", "c t")],
             {"a": W, "o": ints(1), "b": W, "t": ints(1, 4, 3)}, (7, 28), W),
    "Constant, float": ([op("Constant", "", "a", value_float=0.5), op("Mul", "b a")], {"b": W}, (12, 28), W / 2),
    "Constant, floats": ([op("Constant", "", "a", value_floats=[0.5, 2.0, 1.0]), op("Mul", "b a")], {"b": W},
                         (12, 28), W * np.array([0.5, 2, 1], "f4")),
    "Constant, ints": ([op("Constant", "", "a", value_ints=[1, 4, 3]), op("Reshape", "b a")], {"b": W[0]}, (12, 28), W),
    "Constant, int": ([op("Constant", "", "a", value_int=0), op("Gather", "b a")], {"b": W[None]}, (12, 28), W),
    "Constant, tensor": ([op("Constant", "", "a", value=ob.Tensor(ob.tensor("", W))), op("Neg", "a")], {}, (7, 28), -W),
    "Mul": ([op("Mul", "a b")], {"a": W, "b": SCALE}, (7, 28), W * SCALE),
    "Add": ([op("Add", "a b")], {"a": W, "b": W[:, :, :1]}, (7, 28), W + W[:, :, :1]),
    "Sub": ([op("Sub", "a b")], {"a": W[0, 0], "b": W}, (7, 28), W[0, 0] - W),
    "Div": ([op("Div", "a b")], {"a": W, "b": np.float32(3)}, (7, 28), W / np.float32(3)),
    "Div, integers": ([op("Div", "a b", "s"), op("Reshape", "c s")],
                      {"a": ints(3, -13, 7), "b": ints(2, 12, 2), "c": W}, (7, 28), W),
    "Neg, Sqrt, Abs": ([op("Neg", "a", "b"), op("Abs", "b", "c"), op("Sqrt", "c")], {"a": W}, (7, 28),
                       np.sqrt(np.abs(W))),
    "Pow, Reciprocal": ([op("Pow", "a b", "c"), op("Reciprocal", "c")], {"a": W, "b": np.float32(2)}, (7, 28),
                        1 / W**2),
    "Exp": ([op("Exp", "a")], {"a": W}, (7, 28), np.exp(W)),
    "Where": ([op("Greater", "a b", "c"), op("Where", "c a b")], {"a": W, "b": np.float32(0)}, (9, 28),
              np.maximum(W, 0)),
    "ReduceSum, attribute": ([op("ReduceSum", "a", axes=[0], keepdims=0)], {"a": np.stack([W, W])}, (7, 12), 2 * W),
    "ReduceSum, input": ([op("ReduceSum", "a s", keepdims=0)], {"a": np.stack([W, W]), "s": ints(0)}, (13, 28), 2 * W),
    "ReduceL2": ([op("ReduceL2", "a", "n", axes=[1, 2]), op("Div", "a n")], {"a": W}, (7, 17), W / np.linalg.norm(W)),
    "ReduceL2, input": ([op("ReduceL2", "a s", "n"), op("Div", "a n")], {"a": W, "s": ints(1, 2)}, (18, 28),
                        W / np.linalg.norm(W)),
    "Cast from float16": ([op("Cast", "a", to=1)], {"a": HALF}, (7, 28), HALF.astype("f4")),
    "Cast to float16": ([op("Cast", "a", to=10)], {"a": W}, (7, 28), HALF.astype("f4")),
    "Cast from float64": ([op("Cast", "a", to=1)], {"a": W.astype("f8")}, (7, 28), W),
    "Cast from int8": ([op("Cast", "a", "b", to=1), op("Mul", "b s")], {"a": Q8, "s": SCALE}, (7, 28), Q8 * SCALE),
    "Cast from bfloat16": ([op("Cast", "a", to=1)], {"a": bf16(W)}, (13, 28), f32(bf16(W)[0])),
    "Cast to bfloat16": ([op("Cast", "a", to=16)], {"a": W}, (13, 28), f32(bf16(W)[0])),
    "Cast to bool": ([op("Cast", "a", "b", to=9), op("Cast", "b", to=1)], {"a": Q8}, (7, 28), (Q8 != 0).astype("f4")),
    "CastLike": ([op("CastLike", "a b")], {"a": HALF, "b": SCALE}, (15, 28), HALF.astype("f4")),
    "bfloat16 in pieces": ([op("Slice", "a s e", "b"), op("Transpose", "b", perm=[0, 2, 1])],
                           {"a": bf16(np.concatenate([W, W]).transpose(0, 2, 1).copy()), "s": ints(1), "e": ints(2)},
                           (13, 28), f32(bf16(W)[0])),
    "bfloat16, computed": ([op("Mul", "a b")], {"a": bf16(W), "b": bf16(np.full(1, 3, "f4"))}, (13, 28),
                           f32(bf16(f32(bf16(W)[0]) * np.float32(3))[0])),
    "Dequantize": ([op("DequantizeLinear", "a s z")], {"a": Q8, "s": SCALE, "z": np.int8(2)}, (10, 28),
                   (Q8 - 2) * SCALE),
    "Dequantize, no zero": ([op("DequantizeLinear", "a s")], {"a": (Q8 + 6).astype("u1"), "s": SCALE}, (10, 28),
                            (Q8 + 6) * SCALE),
    "Dequantize, axis": (
        [op("DequantizeLinear", "a s z", axis=2)],
        {"a": Q8, "s": np.array([1, 2, 4], "f4"), "z": np.array([0, 1, 2], "i1")}, (13, 28),
        ((Q8 - np.array([0, 1, 2])) * np.array([1, 2, 4])).astype("f4")),
    "Dequantize, default axis": ([op("DequantizeLinear", "a s")], {"a": Q8, "s": np.array([1, 2, 4, 8], "f4")},
                                 (13, 28), (Q8 * np.array([1, 2, 4, 8])[:, None]).astype("f4")),
    "Dequantize, int16": ([op("DequantizeLinear", "a s")], {"a": (1000 * Q8.astype("i2")), "s": SCALE}, (21, 28),
                          1000 * Q8.astype("f4") * SCALE),
    "Dequantize, int32": ([op("DequantizeLinear", "a s")], {"a": (100_000 * Q8.astype("i4")), "s": SCALE}, (10, 28),
                          100_000 * Q8.astype("f4") * SCALE),
    "Dequantize, int4": ([op("DequantizeLinear", "a s", "b"), op("Reshape", "b t")],
                         {"a": (FOURS, "raw", "int4"), "s": SCALE, "t": ints(1, 4, 3)}, (21, 28),
                         (SIGNED * SCALE).reshape(1, 4, 3).astype("f4")),
    "Dequantize, uint4": ([op("DequantizeLinear", "a s", "b"), op("Reshape", "b t")],
                          {"a": (FOURS, "raw", "uint4"), "s": SCALE, "t": ints(1, 4, 3)}, (21, 28),
                          (np.arange(12) * SCALE).reshape(1, 4, 3).astype("f4")),
    "Dequantize, blocks": ([op("DequantizeLinear", "a s", "b", axis=2, block_size=2), op("Reshape", "b t")],
                           {"a": Q8.reshape(1, 2, 6)[:, :, :4].copy(), "s": BLOCKS, "t": ints(1, -1, 4)}, (21, 28),
                           None),
    "Quantize": ([op("QuantizeLinear", "a s z", "b"), op("DequantizeLinear", "b s z")],
                 {"a": W, "s": SCALE, "z": np.int8(1)}, (10, 28), np.rint(W / SCALE) * SCALE),
    "numbers one by one": ([op("DequantizeLinear", "a s z"), op("Unused", "a", "q")],
                           {"a": (Q8, "packed"), "s": (SCALE, "unpacked"), "z": (np.int8(-3), "unpacked")}, (10, 28),
                           (Q8 + 3) * SCALE),
}
FAR = ("Dequantize, blocks",)  # W of another shape


@pytest.mark.parametrize("name", [name for name in CASES if name not in FAR])
def test_operators(name, read):
    nodes, arrays, opsets, wanted = CASES[name]
    for opset in opsets:
        found = weight(read, nodes, arrays, opset)
        assert np.array_equal(found, wanted[0].astype("f4")), opset


def with_attributes(name):
    """Whether a case gives sizes as attributes where newer opsets have inputs, or the other way round."""
    return {"Squeeze, attribute": 13, "Unsqueeze, attribute": 13, "Slice, attributes": 10, "Split, attribute": 13,
            "ReduceSum, attribute": 13, "ReduceL2": 18}.get(name)


@pytest.mark.parametrize("name", [name for name in CASES if with_attributes(name)])
def test_attributes_of_older_opsets_are_refused(name, read):
    nodes, arrays, _, _ = CASES[name]
    with pytest.raises(fl.FileFormatError, match="has an attribute '(axes|starts|split)', which"):
        read(model(nodes, arrays, with_attributes(name)))


def test_against_the_reference_evaluator(tmp_path):
    """Every case, by the package onnx."""
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    for name, (nodes, arrays, opsets, wanted) in CASES.items():
        nodes = [one for one in nodes if b"Unused" not in one]
        proto = onnx.load_model_from_string(ob.model(ob.graph(nodes, tensors_of(arrays), [], ["w"]), opsets[1]))
        found = ReferenceEvaluator(proto).run(None, {})[0].astype("f4")
        if wanted is None:
            I = found.shape[2]
            rnn = ob.node("RNN", ["x", "w", "R"], ["y"], "rnn")
            H = found.shape[1]
            data = ob.model(ob.graph([*nodes, rnn], [*tensors_of(arrays), ob.tensor("R", np.zeros((1, H, H), "f4"))]),
                            opsets[1])
            (tmp_path / "a.onnx").write_bytes(data)
            wanted = fl.from_onnx(tmp_path / "a.onnx")["rnn"].state_dict()["weight_ih_l0"].reshape(1, H, I)
        np.testing.assert_allclose(found, wanted, rtol=2e-7, err_msg=name)


# ---- what gives a value -----------------------------------------------------------------------------------------


def branch(nodes, arrays, output):
    return ob.Graph(ob.graph(nodes, tensors_of(arrays), [], [output]))


def choice(condition, yes, no, outputs="w"):
    """An If node; yes, no: nodes, initializers and the output of its branches."""
    return op("If", condition, outputs, then_branch=branch(*yes), else_branch=branch(*no))


YES, NO = np.array(True), np.array([False])


def test_if_with_a_constant_condition(read):
    """The branch that is taken gives the value, with names of its own and those around it."""
    one = [op("Transpose", "a", "v")], {"a": W.T}, "v"
    other = [op("Neg", "b", "v")], {}, "v"  # b is outside
    for condition, wanted in ((YES, W), (NO, -W)):
        assert np.array_equal(weight(read, [choice("c", one, other)], {"c": condition, "b": W}), wanted[0])
    computed = [op("Shape", "b", "s"), op("Size", "s", "n"), op("Equal", "n three", "c")]
    found = weight(read, [*computed, choice("c", one, other)], {"b": W, "three": np.array(3)})
    assert np.array_equal(found, W[0])
    deep = choice("c", ([choice("d", other, one, "v")], {}, "v"), one)
    assert np.array_equal(weight(read, [deep], {"c": YES, "d": NO, "b": W}), W[0])
    two = op("If", "c", "u w", then_branch=ob.Graph(ob.graph([], tensors_of({"p": -W, "q": W}), [], ["p", "q"])),
             else_branch=branch([], {"p": -W}, "p"))
    assert np.array_equal(weight(read, [two], {"c": YES}), W[0])
    taken = op("If", "c", "u w", then_branch=branch([], {"p": -W}, "p"), else_branch=branch([], {"p": -W}, "p"))
    with pytest.raises(fl.FileFormatError, match="W is 'w', given by node 'u' .If., whose branch has fewer outputs"):
        read(model([taken], {"c": YES}))


def test_a_recurrent_node_in_a_branch_uses_what_is_around_it(read):
    rnn = ob.node("RNN", ["x", "w", "R", "B"], ["y"], "deep", hidden_size=4)
    inner = ob.Graph(ob.graph([op("Unsqueeze", "v", axes=[0]), rnn], [], [], ["y"]))
    nodes = [op("Transpose", "a", "v", perm=[1, 0]), op("If", "c", "y", then_branch=inner, else_branch=inner)]
    tensors = tensors_of({"a": W[0].T, "R": ARRAYS["R"], "B": ARRAYS["B"]})
    found = read(ob.model(ob.graph(nodes, tensors, ["x", "c"]), 12))["deep"].state_dict()
    assert np.array_equal(found["weight_ih_l0"], W[0])


def test_every_weight_may_be_computed(read):
    """W, R, B, P, out of one tensor and in both directions."""
    arrays = ob.weights("LSTM", 4, 4, 2, P=True)
    parts = {name: array.size for name, array in arrays.items()}
    nodes = [op("Split", "all", " ".join(f"{name}0" for name in arrays), split=list(parts.values()))]
    for name, array in arrays.items():
        nodes.append(op("Reshape", f"{name}0 {name}s", name))
    shapes = {f"{name}s": ints(*array.shape) for name, array in arrays.items()}
    lstm = ob.node("LSTM", ["x", "W", "R", "B", "", "", "", "P"], ["y"], "rnn", direction="bidirectional")
    every = np.concatenate([array.ravel() for array in arrays.values()])
    found = read(ob.model(ob.graph([*nodes, lstm], tensors_of({"all": every, **shapes})), 11))["rnn"].state_dict()
    wanted = read(ob.recurrent("LSTM", arrays, direction="bidirectional"))["rnn"].state_dict()
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_external_tensors_are_computed(read, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"head" + W.tobytes() * 2)
    tensor = np.concatenate([W[0], W[0]]), {"location": "a.bin", "offset": 4, "length": 2 * W.nbytes}
    nodes = [op("Slice", "a", "b", starts=[0], ends=[4]), op("Slice", "a", "c", starts=[4], ends=[8]),
             op("Add", "b c", "d"), op("Unsqueeze", "d", axes=[0])]
    assert np.array_equal(weight(read, nodes, {"a": tensor}, 9), 2 * W[0])
    Q = np.arange(12, dtype="i1")
    (tmp_path / "q.bin").write_bytes(Q.tobytes())
    nodes = [op("DequantizeLinear", "q s")]
    found = weight(read, nodes, {"q": (Q.reshape(1, 4, 3), {"location": "q.bin"}), "s": SCALE})
    assert np.array_equal(found, Q.reshape(4, 3) * SCALE)


def test_types_become_the_widest(read):
    """float16 beside float32, float32 beside float64: no number changes."""
    for kinds, wide in (("f2 f4 f4", "f4"), ("f4 f4 f2", "f4"), ("f4 f8 f4", "f8"), ("f2 f2 f2", "f4")):
        arrays = {name: a.astype(kind) for (name, a), kind in zip(ARRAYS.items(), kinds.split(), strict=True)}
        layer = read(ob.recurrent("RNN", arrays))["rnn"]
        assert layer.dtype == np.dtype(wide)
        assert np.array_equal(layer.state_dict()["weight_ih_l0"], arrays["W"][0].astype(wide))
        assert np.array_equal(layer.state_dict()["weight_hh_l0"], arrays["R"][0].astype(wide))
    tensors = tensors_of({"W": bf16(W), "R": ARRAYS["R"]})
    layer = read(ob.model(ob.graph([ob.node("RNN", ["x", "W", "R"], ["y"], "rnn")], tensors)))["rnn"]
    assert np.array_equal(layer.state_dict()["weight_ih_l0"], f32(bf16(W)[0])[0])


@pytest.mark.parametrize("nodes", [[], [op("Identity", "w", "v")], [op("Transpose", "w", "v", perm=[0, 1, 2])]])
def test_one_tensor_for_two_inputs(nodes, read):
    """Its memory is given back when both of them are copied."""
    square = np.random.default_rng(0).standard_normal((1, 300, 300)).astype("f4")
    rnn = ob.node("RNN", ["x", "w", "v" if nodes else "w"], ["y"], "rnn")
    found = read(ob.model(ob.graph([*nodes, rnn], [ob.tensor("w", square), ob.tensor("more", square)])))["rnn"]
    assert np.array_equal(found.state_dict()["weight_ih_l0"], square[0])
    assert np.array_equal(found.state_dict()["weight_hh_l0"], square[0])


def test_constants_that_no_activation_takes_are_ignored(read):
    """ONNX Runtime does the same: what is left over means nothing."""
    layer = read(ob.recurrent("LSTM", activation_alpha=[0.1, 0.2, 0.3], activation_beta=[0.0] * 3))["rnn"]
    assert layer.config()["activations"] is None
    given = {"activations": ["HardSigmoid", "Tanh", "Tanh"], "activation_alpha": [0.25, 7.0, 7.0]}
    layer = read(ob.recurrent("LSTM", **given, activation_beta=[0.5, 7.0]))["rnn"]
    assert layer.activations[0][:3] == ("hard_sigmoid", 0.25, 0.5) and layer.activations[1].name == "tanh"


# ---- what is refused --------------------------------------------------------------------------------------------


FUNCTION = ob.field(25, ob.field(1, "Mine") + ob.field(7, op("Neg", "a")) + ob.field(10, "own"))
NEXT = "; if it is constant, onnxruntime writes a file without it: SessionOptions.optimized_model_filepath"


@pytest.mark.parametrize("nodes, arrays, words", [
    ([op("Neg", "x")], {}, "W is 'w', computed from 'x', an input of the graph"),
    ([op("QuantizeLinear", "a s z", "q"), op("DequantizeLinear", "q s")],
     {"a": W, "s": SCALE, "z": (FOURS[:1], "raw", "int4")}, "makes numbers of four bits"),
    ([op("CastLike", "a z", "q"), op("Cast", "q", to=1)], {"a": W, "z": (FOURS[:1], "raw", "int4")},
     "makes numbers of four bits"),
    ([op("Neg", "a", "b"), op("Add", "b x")], {"a": W}, "W is 'w', computed from 'x', an input of the graph"),
    ([op("Neg", "b"), op("Abs", "gone", "b")], {}, "W is 'w', computed from 'gone', which nothing in the file gives"),
    ([op("Neg", "b"), op("MatMul", "a a", "b")], {"a": W}, "'w', computed from 'b', computed at run .* MatMul" + NEXT),
    ([op("Neg", "a", domain="own")], {"a": W}, "by Neg of domain 'own'.*onnx.inliner.inline_local_functions"),
    ([op("Mine", "a", domain="own")], {"a": W}, "by Mine of domain 'own'.*onnx.inliner.inline_local_functions"),
    ([op("Neg", "b"), op("Abs", "w", "b")], {}, "W is computed from '[wb]', which is computed from itself"),
    ([op("Reshape", "a x")], {"a": W}, "computed from 'x', an input of the graph"),
    ([choice("x", ([], {"p": W}, "p"), ([], {"p": W}, "p"))], {}, "given by node 'w' .If., whose condition is 'x', an"),
    ([choice("c", ([], {"p": W}, "p"), ([], {"p": W}, "p"))], {"c": W}, "whose condition is float32 of shape"),
    ([op("If", "c", then_branch=branch([], {"p": W}, "p"))], {"c": NO}, "whose branch is missing"),
    ([op("If", "c d")], {"c": NO}, "given by node 'w' .If. with 2 inputs"),
    ([op("Transpose", "a", perm=[0, 0, 1])], {"a": W}, "W is computed by node 'w' .Transpose., which has perm .0, 0"),
    ([op("Transpose", "a", perm=[0, 1])], {"a": W}, "has perm"),
    ([op("Transpose", "a", perm=1)], {"a": W}, "has perm 1, expected a list of integers"),
    ([op("Transpose", "a", axes=[1])], {"a": W}, "has an attribute 'axes', which Transpose of opset 17"),
    ([op("Transpose", "a a")], {"a": W}, "has 2 inputs, expected 1 to 1"),
    ([op("Reshape", "a s")], {"a": W, "s": ints(5, -1)}, "makes shape .5, -1. of"),
    ([op("Reshape", "a s")], {"a": W, "s": ints(-1, -1)}, "makes shape"),
    ([op("Reshape", "a s")], {"a": W, "s": ints(12, 1, 1, 0)}, "has shape .* for one of 3 axes"),
    ([op("Reshape", "a s")], {"a": W, "s": ints(-2, 6)}, "has shape .-2, 6."),
    ([op("Reshape", "a s")], {"a": W, "s": ints(*[1] * 9)}, "has 9 axes, at most 8"),
    ([op("Reshape", "a s")], {"a": W, "s": W[0, 0]}, "has float32 of shape .3,., expected a list of integers"),
    ([op("Squeeze", "a s")], {"a": W, "s": ints(1)}, "has axes .1. for shape"),
    ([op("Squeeze", "a s")], {"a": W, "s": ints(0, 0)}, "one of them twice"),
    ([op("Squeeze", "a s")], {"a": W, "s": ints(3)}, "has axis 3, of 3"),
    ([op("Unsqueeze", "a s")], {"a": W, "s": ints(*range(6))}, "has 9 axes"),
    ([op("Unsqueeze", "a")], {"a": W}, "has no axes"),
    ([op("Slice", "a s e")], {"a": W, "s": ints(1, 1), "e": ints(1)}, "has starts .1, 1., ends .1."),
    ([op("Slice", "a s s s s")], {"a": W, "s": ints(0)}, "steps .0."),
    ([op("Slice", "a")], {"a": W}, "has no starts"),
    ([op("Slice", "a s s s")], {"a": W, "s": ints(5)}, "has axis 5, of 3"),
    ([op("Concat", "a b", axis=0)], {"a": W, "b": W[0]}, "has inputs of float32 .1, 4, 3., float32 .4, 3."),
    ([op("Concat", "a b", axis=0)], {"a": W, "b": HALF}, "has inputs of"),
    ([op("Concat", "a b", axis=3)], {"a": W, "b": W}, "has axis 3, of 3"),
    ([op("Concat", "a b")], {"a": W, "b": W}, "has axis None, expected an integer"),
    ([op("Split", "a", "b w", axis=2)], {"a": W}, "makes 2 parts of 3"),
    ([op("Split", "a s", "b w")], {"a": W, "s": ints(1)}, "makes parts of .1. of 1, 2 in all"),
    ([op("Split", "a s", "b w", axis=1)], {"a": W, "s": ints(5, -1)}, "makes parts of .5, -1. of 4"),
    ([op("Gather", "a i", axis=1)], {"a": W, "i": ints(0, 4)}, "has indices from 0 to 4 for 4"),
    ([op("Gather", "a i")], {"a": W, "i": ints(-2)}, "has indices from -2"),
    ([op("Gather", "a i")], {"a": W, "i": W}, "has indices of float32"),
    ([op("Expand", "a s")], {"a": W, "s": ints(5, 3)}, "which do not go together"),
    ([op("Expand", "a s")], {"a": W, "s": ints(-1)}, "which do not go together|has shape"),
    ([op("Tile", "a s")], {"a": W, "s": ints(1)}, "has repeats .1. for shape"),
    ([op("Add", "a b")], {"a": W, "b": np.ones(2, "f4")}, "which do not go together"),
    ([op("Add", "a b")], {"a": W, "b": np.ones(3)}, "has inputs of float32, float64"),
    ([op("Add", "a")], {"a": W}, "has 1 inputs, expected 2 to 2"),
    ([op("Div", "a b")], {"a": ints(1), "b": ints(0)}, "divides 1 integers, or by 0"),
    ([op("Sqrt", "a")], {"a": ints(4)}, "cannot be computed"),
    ([op("Cast", "a", to=8)], {"a": W}, "makes numbers of type 8"),
    ([op("Cast", "a", to=7)], {"a": W}, "W is computed as int64, expected float32, float64, float16, bfloat16"),
    ([op("Cast", "a", to="f")], {"a": W}, "has to f, expected an integer"),
    ([op("Cast", "a")], {"a": W}, "has to None, expected an integer"),
    ([op("Neg", "a", "v w")], {"a": W}, "which has 1 outputs"),
    ([op("DequantizeLinear", "a s")], {"a": W, "s": SCALE}, "has numbers of float32"),
    ([op("DequantizeLinear", "a s z")], {"a": Q8, "s": SCALE, "z": np.uint8(1)}, "zero points of uint8"),
    ([op("DequantizeLinear", "a s")], {"a": Q8, "s": np.ones(2, "f4")}, "has .2,. scales along axis 1"),
    ([op("DequantizeLinear", "a s z")], {"a": Q8, "s": np.ones(4, "f4"), "z": np.int8(1)}, "zero points of shape"),
    ([op("DequantizeLinear", "a s", block_size=2)], {"a": Q8, "s": np.ones(4, "f4")}, "scales of shape .4,., expected"),
    ([op("QuantizeLinear", "a s z")], {"a": W, "s": SCALE, "z": np.int32(1)}, "makes int32 of float32"),
    ([op("Constant", "", value_floats=[1.0], value_int=3)], {}, "has attributes value_floats, value_int, expected one"),
    ([op("Neg", "a")], {"a": (np.zeros((3, 0), "f4"), "raw", "float32")}, "has W of shape .3, 0."),
    ([op("Neg", "a")], {"a": (W, {"location": "gone.bin"})}, "W is in another file, 'gone.bin': No such file"),
    ([op("Concat", " ".join("a" * 65), axis=0)], {"a": W}, "more than 64 times field 1"),
])
def test_what_cannot_be_computed(nodes, arrays, words, read):
    with pytest.raises(fl.FileFormatError, match=rf"model.onnx: node 'rnn' \(RNN\) .*{words}"):
        read(model(nodes, arrays, more=FUNCTION))


def test_initial_states(read, tmp_path):
    """Computed ones are told if they are not zero; those that do not fit are refused."""
    def states(h, nodes=()):
        arrays = ob.weights("RNN")
        rnn = ob.node("RNN", ["x", "W", "R", "B", "", "h"], ["y"], "rnn")
        return ob.model(ob.graph([*nodes, rnn], tensors_of({**arrays, **h})))

    many = [op("Expand", "z s", "h")]
    for value in (0, 1):
        given = states({"z": np.full(1, value, "f4"), "s": ints(1, 2**40, 4)}, many)  # one number, many times
        if not value:
            read(given)
            continue
        with pytest.raises(RuntimeWarning, match="initial_h is stored in the file and not zero"):
            read(given)
    read(states({}, [op("Expand", "x x", "h")]))  # at run time
    for shape in ((1, 2, 5), (2, 2, 4), (2, 4)):
        with pytest.raises(fl.FileFormatError, match=r"has initial_h of shape .*, expected \(1, batch, 4\)"):
            read(states({"h": np.zeros(shape, "f4")}))


def test_pieces_of_an_axis():
    """Every start, end and step, by ONNX's words: from the end if negative, then cut off at what a step can reach."""
    for size, start, end, step in itertools.product(range(5), range(-7, 8), range(-7, 8), (-3, -1, 1, 2)):
        first, last = (n + size if n < 0 else n for n in (start, end))
        if step > 0:
            places = range(min(max(first, 0), size), min(max(last, 0), size), step)
        else:
            places = range(min(max(first, 0), size - 1), min(max(last, -1), size - 1), step)
        expected = [] if not size else list(places)
        assert list(range(size))[onnx_shapes._piece(size, start, end, step)] == expected, (size, start, end, step)


def test_values_are_remembered_for_a_while(read, monkeypatch):
    nodes = [op("Neg", "a", "b"), op("Neg", "b", "c"), op("Concat", "b c b c", axis=1)]
    arrays = {"a": W[:, :1]}
    expected = weight(read, nodes, arrays)
    monkeypatch.setattr(onnx_values, "MAX_FOUND", 1)
    np.testing.assert_array_equal(weight(read, nodes, arrays), expected)
