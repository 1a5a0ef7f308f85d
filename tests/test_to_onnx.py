"""fastlstm.to_onnx: ONNX Runtime and a plain twin of the operators compute from the file what the model computes."""

import json
import tracemalloc
import warnings

import numpy as np
import pytest
from grids import bound

import fastlstm as fl
from fastlstm.module import hollow

onnx = pytest.importorskip("onnx")

from onnx_models import LAYERS, MODELS, H, V, both, fed, files, made, near, ours  # noqa: E402 (they need onnx)

CASES = (1, 1), (9, 1), (1, 5), (6, 4)  # T, B


@pytest.mark.parametrize("name", MODELS)
def test_onnxruntime_agrees(name, tmp_path, record_property):
    runtime = pytest.importorskip("onnxruntime")
    model, path, largest, options = made(name), tmp_path / "a.onnx", 0.0, runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    for kind, given in files(model).items():
        fl.to_onnx(model, path, **given)
        session = runtime.InferenceSession(path, options)
        for T, B in CASES:
            feed = fed(path, T, B)
            found = session.run(None, feed)
            largest = max(largest, near(ours(model, feed, kind in ("state", "both")), found, 1e-5))
    record_property("largest", largest)


@pytest.mark.parametrize("name", MODELS)
def test_the_twin_of_the_operators_agrees_in_float64(name, tmp_path, record_property):
    from onnx.reference import ReferenceEvaluator
    from onnx_by_hand import OPERATORS

    model, path, largest = made(name, "float64"), tmp_path / "a.onnx", 0.0
    for kind, given in files(model).items():
        fl.to_onnx(model, path, **given)
        evaluator = ReferenceEvaluator(str(path), new_ops=OPERATORS)
        for T, B in ((1, 1), (4, 3)):
            feed = fed(path, T, B)
            if "lengths" in feed:
                feed["lengths"][-1] = T // 4  # a row of none
            found = evaluator.run(None, feed)
            largest = max(largest, near(ours(model, feed, kind in ("state", "both")), found, 4 * bound(T, "float64")))
    record_property("largest", largest)


@pytest.mark.parametrize("name", ["lstm", "lstm, peephole io", "gru", "rnn", "words", "last"])
def test_onnxs_own_evaluator_agrees(name, tmp_path):
    from onnx.reference import ReferenceEvaluator

    model = made(name, "float64")
    fl.to_onnx(model, tmp_path / "a.onnx", state=True)
    feed = fed(tmp_path / "a.onnx", 6, 4)
    near(ours(model, feed, True), ReferenceEvaluator(str(tmp_path / "a.onnx")).run(None, feed), 1e-12)


@pytest.mark.parametrize("first", [False, True])
def test_what_stands_in_the_padding(first, tmp_path):
    """Beyond the lengths y is 0 and x is not looked at, in the file as in the model, also in members without memory."""
    runtime = pytest.importorskip("onnxruntime")
    lengths, T = np.array([4, 2, 0], np.int32), 4
    beyond = np.arange(T) >= lengths[:, None] if first else np.arange(T)[:, None] >= lengths
    lstm = fl.LSTM(5, 3, batch_first=first, rng=1)
    for start in (fl.Embedding(7, 5, rng=0), fl.Linear(2, 5, activation="tanh", rng=0)):
        model = fl.Sequential(start, lstm, fl.Linear(3, 4, activation="sigmoid", rng=2))
        fl.to_onnx(model, tmp_path / "a.onnx", lengths=True)
        session = runtime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(0)
        x = rng.integers(0, 7, beyond.shape) if start.row_axes == 0 else rng.normal(size=(*beyond.shape, 2))
        x[beyond] = 99 if start.row_axes == 0 else np.nan
        x = x.astype(np.int64 if start.row_axes == 0 else np.float32)
        y, = session.run(["y"], {"x": x, "lengths": lengths})
        assert not y[beyond].any() and y[~beyond].all()
        near([model(x, lengths=lengths)[0]], [y], 1e-5)


@pytest.mark.parametrize("opset", range(14, 26))
def test_every_opset(opset, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    if opset > onnx.defs.onnx_opset_version():
        pytest.skip("newer than the package onnx")
    path = tmp_path / "a.onnx"
    for name in ("nested", "words, batch first", "reverse, as computed", "lstm, sizes, both ways"):
        model = made(name)
        fl.to_onnx(model, path, state=True, lengths=True, opset=opset)
        assert [one.version for one in onnx.load(path).opset_import] == [opset]
        feed = fed(path, 6, 4)
        near(ours(model, feed, True), runtime.InferenceSession(path).run(None, feed), 1e-5)


def test_a_state_is_carried_from_call_to_call(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    model, path = made("words"), tmp_path / "a.onnx"
    fl.to_onnx(model, path, state=True)
    session, x = runtime.InferenceSession(path), np.random.default_rng(0).integers(0, V, (12, 3))
    state, ys = {"h0": np.zeros((2, 3, H), np.float32), "c0": np.zeros((2, 3, H), np.float32)}, []
    for block in np.split(x, 4):
        y, h, c = session.run(["y", "hn", "cn"], {"x": block, **state})
        ys, state = [*ys, y], {"h0": h, "c0": c}
    near([model(x)[0]], [np.concatenate(ys)], 1e-5)


# ---- the file itself --------------------------------------------------------------------------------------------


def ends(path):
    """Names and shapes of inputs and outputs."""
    graph = onnx.load(path).graph
    return [
        {e.name: [d.dim_param or d.dim_value for d in e.type.tensor_type.shape.dim] for e in some}
        for some in (graph.input, graph.output)
    ]


def test_names_and_shapes(tmp_path):
    path = tmp_path / "a.onnx"
    fl.to_onnx(fl.LSTM(3, 4, 2, bidirectional=True), path, state=True, lengths=True)
    state = [4, "B", 4]
    assert ends(path) == [
        {"x": ["T", "B", 3], "lengths": ["B"], "h0": state, "c0": state}, {"y": ["T", "B", 8], "hn": state, "cn": state}
    ]
    fl.to_onnx(fl.GRU(3, [4, 2], bidirectional=True, batch_first=True), path, state=True)
    sizes = {"l0": ["B", 4], "l0_reverse": ["B", 4], "l1": ["B", 2], "l1_reverse": ["B", 2]}
    assert ends(path) == [
        {"x": ["B", "T", 3], **{f"h0_{name}": shape for name, shape in sizes.items()}},
        {"y": ["B", "T", 4], **{f"hn_{name}": shape for name, shape in sizes.items()}},
    ]
    fl.to_onnx(made("words, batch first"), path, state=True)
    inputs, outputs = ends(path)
    gru, lstm = [1, "B", H], [1, "B", 4]
    assert inputs == {
        "x": ["B", "T"], "1.forward_layer.h0": gru, "1.backward_layer.h0": gru, "2.layer.h0": lstm, "2.layer.c0": lstm,
    }
    assert list(outputs) == ["y", *(name.replace("0", "n") for name in list(inputs)[1:])]
    fl.to_onnx(both(None, batch_first=True), path, state=True)
    assert list(ends(path)[1])[:2] == ["y", "y_reverse"]


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_left_over(name, tmp_path):
    model, path = made(name), tmp_path / "a.onnx"
    for given in files(model).values():
        fl.to_onnx(model, path, **given)
        proto = onnx.load(path)
        onnx.checker.check_model(proto, full_check=True)
        graph = proto.graph
        used = {one for node in graph.node for one in node.input} | {one.name for one in graph.output}
        assert {one.name for one in graph.initializer} <= used and {one.name for one in graph.input} <= used
        for node in graph.node:
            assert node.output[-1] in used and all(node.output)
        assert len({node.name for node in graph.node}) == len(graph.node)


@pytest.mark.parametrize("name, expected", [
    ("gru", ["l0"]), ("lstm, no bias", ["l0", "l1", "l2"]), ("words", ["1.l0", "1.l1"]), ("last", ["layer.l0"]),
    ("nested", ["0.1.l0", "1.0.0.layer.l0", "1.1.l0", "1.1.l1", "2.forward_layer.l0", "2.backward_layer.l0"]),
    ("bidirectional, concat", ["l0"]), ("bidirectional, options", ["forward_layer.l0", "backward_layer.l0"]),
    ("bidirectional, two layers", [f"{one}_layer.l{n}" for one in ("forward", "backward") for n in range(2)]),
    ("words, batch first", ["1.l0", "2.layer.l0"]),
])
def test_nodes_are_named_after_layers(name, expected, tmp_path):
    fl.to_onnx(made(name), tmp_path / "a.onnx")
    graph = onnx.load(tmp_path / "a.onnx").graph
    assert [node.name for node in graph.node if node.op_type in ("LSTM", "GRU", "RNN")] == expected


def rows(array, there, here):
    """Blocks of an ONNX tensor in our order."""
    blocks = dict(zip(there, np.split(array, len(there)), strict=True))
    return np.concatenate([blocks[gate] for gate in here])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [name for name in LAYERS if "i=1-f" not in name])
def test_weights_are_ours_bit_by_bit(name, dtype, tmp_path):
    model, path = made(name, dtype), tmp_path / "a.onnx"
    weights = model.state_dict()
    for array in weights.values():  # bits that arithmetic would change
        array.flat[0], array.flat[-1] = -0.0, np.finfo(dtype).tiny / 4
    model.load_state_dict(weights)
    fl.to_onnx(model, path)
    stored = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}
    there = {"lstm": "iofg", "gru": "zrn", "rnn": "a"}[model.cell]
    here = {"lstm": "ifgo" if getattr(model, "coupled", None) is None else "igo", "gru": "rzn", "rnn": "a"}[model.cell]
    found = {}
    for key in weights:
        kind, _, ending = key.rpartition("_l")
        layer, _, back = ending.partition("_")
        place, d = f"l{layer}.", int(bool(back))
        if kind == "weight_peephole":
            found[key] = rows(stored[place + "P"][d], "iof", model.peephole)
            continue
        tensor = stored[place + {"weight_ih": "W", "weight_hh": "R"}.get(kind, "B")][d]
        if kind.startswith("bias"):
            tensor = np.split(tensor, 2)[kind == "bias_hh"]
        found[key] = rows(tensor, there, here)
    for key, array in weights.items():
        assert found[key].dtype == array.dtype and found[key].tobytes() == array.tobytes(), key
    seen = getattr(model, "peephole", "")
    rest = {"W": [gate for gate in there if gate not in here], "P": [gate for gate in "iof" if gate not in seen]}
    for key, array in stored.items():  # and zeros where there are none
        kind, order = key[-1], "iof" if key[-1] == "P" else there
        if rest.get(kind):
            assert not any(rows(one, order, rest[kind]).any() for one in array)


def test_weights_of_the_others_bit_by_bit(tmp_path):
    model = made("words")
    fl.to_onnx(model, tmp_path / "a.onnx")
    stored = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(tmp_path / "a.onnx").graph.initializer}
    weights = model.state_dict()
    assert stored["0.weight"].tobytes() == weights["0.weight"].tobytes()
    assert stored["2.weight.T"].T.tobytes() == weights["2.weight"].tobytes()
    assert stored["2.bias"].tobytes() == weights["2.bias"].tobytes()


def test_the_file_says_what_it_is(tmp_path):
    model, path, again = made("words"), tmp_path / "a.onnx", tmp_path / "b.onnx"
    fl.to_onnx(model, path, metadata={"z": "1", "note": "é"})
    proto = onnx.load(path)
    notes = {one.key: one.value for one in proto.metadata_props}
    assert json.loads(notes.pop("fastlstm.model")) == model.describe() and notes == {"z": "1", "note": "é"}
    assert (proto.producer_name, proto.ir_version, proto.opset_import[0].version) == ("fastlstm", 8, 17)
    fl.to_onnx(model, again, metadata={"note": "é", "z": "1"})
    assert again.read_bytes() == path.read_bytes()
    model.metadata = {"from": "the model"}
    fl.to_onnx(model, path)
    assert {one.key: one.value for one in onnx.load(path).metadata_props}["from"] == "the model"


@pytest.mark.parametrize("name", ["nested", "words, batch first", "bidirectional, ave", "lstm, no bias"])
def test_bytes_are_those_that_protobuf_would_write(name, tmp_path):
    path = tmp_path / "a.onnx"
    for dtype in ("float32", "float64"):
        fl.to_onnx(made(name, dtype), path, state=True, lengths=True, metadata={"note": "x" * 200})
        assert onnx.load(path).SerializeToString(deterministic=True) == path.read_bytes()


def test_memory_is_that_of_the_weights_once_and_a_tensor(tmp_path):
    with hollow():
        model = fl.LSTM(256, 256, 12)  # 25 MB, of which no more than a copy will be there
    fl.to_onnx(fl.LSTM(2, 3), tmp_path / "a.onnx")  # whatever is imported late
    tracemalloc.start()
    try:
        fl.to_onnx(model, tmp_path / "a.onnx")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 1.5 * model.parameters_bytes <= 1.6 * (tmp_path / "a.onnx").stat().st_size


def test_the_model_is_left_alone(tmp_path):
    model = made("lstm, regularised")
    before, training = {name: array.tobytes() for name, array in model.state_dict().items()}, model.training
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fl.to_onnx(model, tmp_path / "a.onnx", state=True, lengths=True)
    assert {name: array.tobytes() for name, array in model.state_dict().items()} == before
    assert model.training == training
