"""fastlstm.onnx as a backend: every node test of LSTM, GRU, RNN that comes with the package onnx, and the interface."""

import re
import warnings

import numpy as np
import pytest

import fastlstm as fl

onnx = pytest.importorskip("onnx")
from onnx import helper  # noqa: E402

NAMES = {  # those that have been there since onnx 1.16
    "test_lstm_defaults", "test_lstm_with_initial_bias", "test_lstm_with_peepholes", "test_lstm_batchwise",
    "test_gru_defaults", "test_gru_with_initial_bias", "test_gru_seq_length", "test_gru_batchwise",
    "test_simple_rnn_defaults", "test_simple_rnn_with_initial_bias", "test_rnn_seq_length", "test_simple_rnn_batchwise",
}


def node_tests():
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the other operators' tests
        found = load_model_tests(kind="node")
    return [case for case in found if re.match("test_(lstm|gru|rnn|simple_rnn)_", case.name)]


def test_the_node_tests_of_onnx(monkeypatch, capsys):
    """All that there are, none left out; each is seen to run here, and not in ONNX's evaluator."""
    from fastlstm.onnx import onnx_operators

    cases, built, real = node_tests(), [], onnx_operators.layer
    monkeypatch.setattr(onnx_operators, "layer", lambda *given: built.append(real(*given)) or built[-1])
    results = {}
    for case in cases:
        assert fl.onnx.is_compatible(case.model), case.name
        ready, before = fl.onnx.prepare(case.model), len(built)
        for inputs, outputs in case.data_sets:
            found = ready.run(inputs)
            assert len(found) == len(outputs) and len(built) == before + 1
            for ours, theirs in zip(found, outputs):
                assert ours.dtype == theirs.dtype and ours.shape == theirs.shape, case.name
                np.testing.assert_allclose(ours, theirs, rtol=case.rtol, atol=case.atol, err_msg=case.name)
        results[case.name] = "passed"
    with capsys.disabled():
        print("", *(f"{name}: {words}" for name, words in results.items()), sep="\n")
    assert set(results) >= NAMES and len(results) == len(cases) > 0


def small(opset=17):
    rng = np.random.default_rng(0)
    node = helper.make_node("RNN", ["x", "W", "R"], ["y", "h"], "n", hidden_size=4)
    arrays = {"W": rng.standard_normal((1, 4, 3)), "R": rng.standard_normal((1, 4, 4))}
    tensors = [onnx.numpy_helper.from_array(array.astype("f4"), name) for name, array in arrays.items()]
    inputs = [helper.make_tensor_value_info("x", 1, ["T", "B", 3]), helper.make_tensor_value_info("R", 1, [1, 4, 4])]
    axes = {"y": ["T", 1, "B", 4], "h": [1, "B", 4]}
    outputs = [helper.make_tensor_value_info(name, 1, shape) for name, shape in axes.items()]
    graph = helper.make_graph([node], "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


X = np.ones((2, 1, 3), "f4")


def test_forms_of_a_model(tmp_path):
    model = small()
    onnx.save(model, tmp_path / "m.onnx")
    onnx.save(small(), tmp_path / "e.onnx", save_as_external_data=True, location="e.bin", size_threshold=0)
    assert (tmp_path / "e.bin").stat().st_size >= 4 * (12 + 16)
    data = model.SerializeToString()
    forms = [model, data, bytearray(data), tmp_path / "m.onnx", str(tmp_path / "m.onnx"), tmp_path / "e.onnx"]
    found = [fl.onnx.run_model(form, [X]) for form in forms]
    assert all(np.array_equal(a, b) for other in found for a, b in zip(found[0], other))
    layers = [fl.from_onnx(tmp_path / name)["n"] for name in ("m.onnx", "e.onnx")]
    assert all(np.array_equal(layer(X)[0], found[0].y[:, 0]) for layer in layers)
    with pytest.raises(TypeError, match="model must be a ModelProto, bytes, a path or a binary file object, got int"):
        fl.onnx.prepare(3)


def test_weights_of_a_prepared_model_cannot_change():
    """So that a run need not compare them with what was packed; not even those that were stored number by number."""
    model = small()
    W = onnx.numpy_helper.to_array(model.graph.initializer[0])
    model.graph.initializer[0].CopyFrom(helper.make_tensor("W", 1, W.shape, W.ravel()))
    ready = fl.onnx.prepare(model)
    assert not any(array.flags.writeable for array in ready._evaluator.rt_inits_.values())
    assert np.array_equal(ready.run([X]).y, fl.onnx.run_model(small(), [X]).y)


def test_forms_of_inputs():
    ready = fl.onnx.prepare(small())
    assert ready.input_names == ["x"] and ready.output_names == ["y", "h"]
    R = np.zeros((1, 4, 4), "f4")
    found = ready.run({"x": X})
    assert np.array_equal(found["y"], found[0]) and np.array_equal(found.h, found[1]) and found.y.shape == (2, 1, 1, 4)
    assert np.array_equal(ready.run((X,)).y, found.y)
    other = ready.run([X, R])  # R has a default, which may be replaced
    assert np.array_equal(other.y, ready.run({"R": R, "x": X}).y) and not np.array_equal(other.y, found.y)
    assert np.array_equal(ready.run([X]).y, found.y)  # and comes back


@pytest.mark.parametrize("inputs, error, words", [
    (X, TypeError, "inputs must be a dict, a tuple or a list, got ndarray"),
    ([], ValueError, "inputs must be 1: x; got 0"),
    ([X] * 3, ValueError, "inputs must be 1: x; got 3"),
    ({}, ValueError, "missing x"),
    ({"x": X, "z": X}, ValueError, "unexpected z"),
    ([X.astype(float)], TypeError, "input x has type float64, expected float32"),
    ([X[:, :, :2]], ValueError, r"node 'n' \(RNN\) x"),
])
def test_inputs_that_are_refused(inputs, error, words):
    with pytest.raises(error, match=words):
        fl.onnx.prepare(small()).run(inputs)


def test_arguments_that_are_refused():
    ready = fl.onnx.prepare(small())
    for call in (
        lambda: ready.run([X], more=1), lambda: fl.onnx.prepare(small(), more=1),
        lambda: fl.onnx.run_model(small(), [X], more=1), lambda: fl.onnx.run_node(small().graph.node[0], [], more=1),
    ):
        with pytest.raises(TypeError, match=r"has no argument more"):
            call()
    for call in (fl.onnx.prepare, lambda model, device: fl.onnx.run_node(model.graph.node[0], [], device)):
        with pytest.raises(ValueError, match="device must be 'CPU', got 'CUDA'"):
            call(small(), "CUDA")


def test_compatible():
    assert fl.onnx.is_compatible(small()) and fl.onnx.is_compatible(small(), "CPU:0")
    assert not fl.onnx.is_compatible(small(), "CUDA") and not fl.onnx.is_compatible(b"nothing")
    assert not fl.onnx.is_compatible(small(6))
    odd = small()
    odd.graph.node[0].attribute.append(helper.make_attribute("clip", -1.0))
    assert not fl.onnx.is_compatible(odd)
    with pytest.raises(ValueError, match=r"node 'n' \(RNN\) has clip -1.0"):
        fl.onnx.prepare(odd)
    with pytest.raises(onnx.checker.ValidationError):
        fl.onnx.prepare(onnx.ModelProto())


@pytest.mark.parametrize("ending", [".onnx", ".json", ".onnxtxt", ".textproto"])
def test_what_is_no_model(ending, tmp_path):
    path = tmp_path / f"é{ending}"
    path.write_bytes(b"garbage \xff")
    for form, name in ((path, path), (str(path), path), (b"garbage \xff", "model"), (memoryview(b"garbage"), "model")):
        with pytest.raises(onnx.checker.ValidationError, match=rf"^{re.escape(str(name))}: not an ONNX model \("):
            fl.onnx.prepare(form)
        assert not fl.onnx.is_compatible(form)
    with pytest.raises(FileNotFoundError):
        fl.onnx.prepare(tmp_path / "missing.onnx")


def test_recurrent_nodes_inside_functions_and_branches():
    """Evaluators inside the evaluator have the same operators: none falls back to ONNX's own."""
    model, x = small(), helper.make_tensor_value_info("x", 1, ["T", "B", 3])
    opset = [helper.make_opsetid("", 17)]
    function = helper.make_function("h", "F", ["x", "W", "R"], ["y"], [
        helper.make_node("RNN", ["x", "W", "R"], ["y"], "inside", hidden_size=4)], opset)
    calls = [helper.make_node("F", ["x", "W", "R"], ["y"], domain="h")]
    branch = helper.make_graph(calls, "b", [], [helper.make_tensor_value_info("y", 1, ["T", 1, "B", 4])])
    nodes = [helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)]
    yes = onnx.numpy_helper.from_array(np.array(True), "yes")
    tensors = [*model.graph.initializer, yes]
    for inner in (calls, nodes):
        graph = helper.make_graph(inner, "g", [x], [model.graph.output[0]], tensors)
        imports = [*opset, helper.make_opsetid("h", 1)]
        whole = helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=8)
        assert np.array_equal(fl.onnx.run_model(whole, [X])[0], fl.onnx.run_model(model, [X]).y)


def test_more_operators():
    from onnx.reference.op_run import OpRun

    from fastlstm.onnx.onnx_backend import _Evaluator

    class Neg(OpRun):
        op_domain = ""

        def _run(self, x):
            return (x + 7,)

    model = small()
    model.graph.node.append(helper.make_node("Neg", ["x"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", 1, ["T", "B", 3]))
    for given, wanted in ((None, -X), ([Neg], X + 7), ([Neg, *fl.onnx.operators], X + 7)):
        y, _, z = _Evaluator(model, new_ops=given).run(None, {"x": X})
        assert np.array_equal(z, wanted) and np.array_equal(y, fl.onnx.run_model(small(), [X]).y)


def test_devices():
    assert fl.onnx.supports_device("CPU") and fl.onnx.supports_device("CPU:0")
    for device in ("CUDA", "CUDA:1", "TPU", "", "CPU:x", 3):
        assert not fl.onnx.supports_device(device)


def test_run_node():
    model = small()
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    node, wanted = model.graph.node[0], fl.onnx.run_model(model, [X])
    for given in ([X, *arrays.values()], {"x": X, **arrays}):
        found = fl.onnx.run_node(node, given)
        assert np.array_equal(found.y, wanted.y) and np.array_equal(found["h"], wanted.h)
    assert np.array_equal(fl.onnx.run_node(node, [X, *arrays.values()], opset_version=7).y, wanted.y)
    bidirectional = helper.make_node("RNN", ["x", "W", "R", "", "", "h0"], ["", "h"], hidden_size=4)
    given = [X, *arrays.values(), np.ones((1, 1, 4), "f4")]
    assert fl.onnx.run_node(bidirectional, given).h.shape == (1, 1, 4)
    assert fl.onnx.run_node(helper.make_node("Neg", ["a"], ["b"]), [X]).b.sum() == -6
    with pytest.raises(ValueError, match="inputs must be 3: x, W, R; got 1"):
        fl.onnx.run_node(node, [X])
    with pytest.raises(ValueError, match="opset 6"):
        fl.onnx.run_node(node, [X, *arrays.values()], opset_version=6)


def test_models_of_to_onnx(tmp_path):
    """A whole graph computes what the model does that it was written from, to the bit."""
    recurrent = [fl.LSTM(4, 5, 2, bidirectional=True, peephole="ifo", rng=1), fl.Reverse(fl.GRU(10, 3, rng=2))]
    model, tokens = fl.Sequential(fl.Embedding(7, 4, rng=0), *recurrent), np.arange(12).reshape(4, 3) % 7
    fl.to_onnx(model, tmp_path / "model.onnx")
    found = fl.onnx.run_model(tmp_path / "model.onnx", [tokens])
    assert np.array_equal(found[0], model(tokens)[0])


# ---- models that nothing can run --------------------------------------------------------------------------------


def odd(what):
    """A model that ONNX's checker lets pass, with a type of elements that there is not, or names that are no text."""
    tensor = onnx.TensorProto(name="w", data_type=99, dims=[1], raw_data=b"abcd")
    values = [helper.make_tensor_value_info(name, 99 if what == "input" and name == "x" else 1, [1]) for name in "xy"]
    node = {
        "tensor": helper.make_node("Add", ["x", "w"], ["y"]), "input": helper.make_node("Relu", ["x"], ["y"]),
        "constant": helper.make_node("Constant", [], ["y"], value=tensor),
        "cast": helper.make_node("Cast", ["x"], ["y"], to=99), "bytes": helper.make_node("Xylo", ["x"], ["y"]),
    }[what]
    graph = helper.make_graph([node], "graph", values[:1], values[1:], [tensor] if what == "tensor" else [])
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    return data.replace(b"Xylo", b"Xy\xfeo")


@pytest.mark.parametrize("what, error, words", [
    ("tensor", ValueError, "reference evaluator cannot read the model .KeyError 99"),
    ("constant", ValueError, "node 'y' .Constant.: ONNX's reference evaluator .of the package onnx. .*KeyError 99"),
    ("bytes", onnx.checker.ValidationError, "model: (damaged|not an ONNX model)"),
])
def test_models_that_cannot_be_prepared(what, error, words):
    """Errors in words, no bare KeyError or UnicodeDecodeError of the libraries."""
    with pytest.raises(error, match=words):
        fl.onnx.prepare(odd(what))
    assert not fl.onnx.is_compatible(odd(what))


@pytest.mark.parametrize("what, words", [
    ("input", "input x is of element type 99, which ONNX does not have"),
    ("cast", "node 'y' .Cast.: ONNX's reference evaluator .of the package onnx. cannot run it .KeyError 99"),
])
def test_models_that_cannot_be_run(what, words):
    with pytest.raises(ValueError, match=words):
        fl.onnx.prepare(odd(what)).run([np.zeros(1, "f4")])


def graph_of(nodes, outputs=("y",), **more):
    """A model whose input x and outputs are float32 vectors."""
    given, left = ([helper.make_tensor_value_info(name, 1, [None]) for name in names] for names in ("x", outputs))
    graph = helper.make_graph(nodes, "graph", given, left, **more)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


THREE = onnx.numpy_helper.from_array(np.ones(3, "f4"), "three")
ADD = helper.make_node("Add", ["x", "three"], ["y"], "sum")


def inside_an_if():
    branch = helper.make_graph([ADD], "b", [], [helper.make_tensor_value_info("y", 1, [None])])
    yes = onnx.numpy_helper.from_array(np.array(True), "yes")
    choice = helper.make_node("If", ["yes"], ["y"], "choice", then_branch=branch, else_branch=branch)
    return graph_of([choice], initializer=[THREE, yes])


@pytest.mark.parametrize("model, words", [
    (graph_of([ADD], initializer=[THREE]), "node 'sum' .Add.: .*package onnx. cannot run it .operands could not be"),
    (inside_an_if(), "node 'sum' .Add.: .*cannot run it .operands"),
    (graph_of([helper.make_node("Reshape", ["x", "size"], ["y"])],
              initializer=[onnx.numpy_helper.from_array(np.array([7, 7]), "size")]),
     "node 'y' .Reshape.: .*cannot run it .cannot reshape"),
])
def test_errors_of_the_reference_evaluator_name_the_node(model, words):
    """When a model is run, the innermost node, once."""
    ready = fl.onnx.prepare(model)
    with pytest.raises(ValueError, match=words) as caught:
        ready.run([np.ones(2, "f4")])
    assert str(caught.value).count("package onnx") == 1


def test_operators_that_the_reference_evaluator_lacks():
    """When it is prepared, with the node's name, in a class that says so."""
    node = helper.make_node("Strange", ["x"], ["y"], "odd", domain="com.example")
    with pytest.raises(NotImplementedError, match="node 'odd' .Strange.: .*package onnx. does not have it"):
        fl.onnx.prepare(graph_of([node]))
    assert not fl.onnx.is_compatible(graph_of([node]))


def test_errors_from_elsewhere_pass_through_nodes(monkeypatch):
    """What has nothing to do with the model comes as it is, also through a node around the one that runs."""
    from onnx.reference.ops.op_add import Add

    ready = fl.onnx.prepare(inside_an_if())
    for error in (MemoryError("full"), TimeoutError("late"), KeyboardInterrupt()):
        monkeypatch.setattr(Add, "_run", lambda *_, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(type(error)) as caught:
            ready.run([np.ones(3, "f4")])
        assert caught.value is error


@pytest.mark.parametrize("what", ["shape", "type"])
def test_outputs_without_shapes(what, tmp_path):
    """Exporters leave them out, and ONNX Runtime does without; the model that was given stays as it is."""
    model = small()
    for value in model.graph.output:
        if what == "shape":
            value.type.tensor_type.ClearField("shape")
        else:
            value.ClearField("type")
    before = model.SerializeToString()
    onnx.save(model, tmp_path / "m.onnx")
    onnx.save(model, tmp_path / "e.onnx", save_as_external_data=True, location="e.bin", size_threshold=0)
    model = onnx.load_model_from_string(before)
    for form in (model, before, tmp_path / "m.onnx", tmp_path / "e.onnx"):
        assert np.array_equal(fl.onnx.run_model(form, [X]).y, fl.onnx.run_model(small(), [X]).y)
    assert model.SerializeToString() == before
    model.graph.node[0].op_type = "Nothing"
    with pytest.raises(onnx.checker.ValidationError, match="Nothing"):  # it is checked all the same
        fl.onnx.prepare(model)


def test_inputs_without_shapes():
    model = small()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    assert np.array_equal(fl.onnx.run_model(model, [X]).y, fl.onnx.run_model(small(), [X]).y)


@pytest.mark.parametrize("error", [MemoryError(), TimeoutError("late"), KeyError("elsewhere")])
def test_what_is_no_fault_of_a_model(error, monkeypatch, tmp_path):
    """Running out of memory or time while a model is read does not make it incompatible."""
    path = tmp_path / "a.onnx"
    path.write_bytes(odd("input"))
    monkeypatch.setattr(onnx, "load", lambda *_, **__: (_ for _ in ()).throw(error))
    if isinstance(error, KeyError):  # that is what a damaged file makes libraries raise
        assert not fl.onnx.is_compatible(path)
        return
    with pytest.raises(type(error)) as caught:
        fl.onnx.is_compatible(path)
    assert caught.value is error
