"""fastlstm.onnx.operators in ONNX's reference evaluator: whole graphs, weights that change, functions, other types."""

import threading

import numpy as np
import onnx_twin
import pytest
from onnx_cases import as_proto, distance, present

import fastlstm as fl

onnx = pytest.importorskip("onnx")
from onnx import helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402


def evaluator(model):
    return ReferenceEvaluator(model, new_ops=fl.onnx.operators)


def draw(op, seed=0, **attributes):
    """A case of one op with the attributes, everything given."""
    rng, (T, B, I, H) = np.random.default_rng(seed), (5, 3, 4, 6)
    D, G = 2 if attributes.get("direction") == "bidirectional" else 1, onnx_twin.GATES[op]
    shapes = {"X": (T, B, I), "W": (D, G * H, I), "R": (D, G * H, H), "B": (D, 2 * G * H), "initial_h": (D, B, H)}
    shapes |= {"initial_c": (D, B, H), "P": (D, 3 * H)} if op == "LSTM" else {}
    arrays = {name: (0.5 * rng.standard_normal(shape)).astype("f4") for name, shape in shapes.items()}
    arrays["sequence_lens"] = np.array([5, 0, 3], "i4")
    return onnx_twin.Case(op, attributes, arrays, ["Y", "Y_h", "Y_c"][: 3 if op == "LSTM" else 2])


def counted(monkeypatch):
    """A list that grows by one for every layer that is built."""
    from fastlstm.onnx import onnx_operators

    built, real = [], onnx_operators.layer

    def layer(*arguments):
        built.append(real(*arguments))
        return built[-1]

    monkeypatch.setattr(onnx_operators, "layer", layer)
    return built


def agrees(case, found, limit=5e-6):
    wanted = present(case, onnx_twin.answer(case))
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted.values()):
        assert distance(ours, theirs) <= limit


def test_the_list():
    assert [one.__name__ for one in fl.onnx.operators] == ["LSTM", "GRU", "RNN"]
    assert fl.onnx.operators == [fl.onnx.LSTM, fl.onnx.GRU, fl.onnx.RNN]
    assert all(issubclass(one, onnx.reference.op_run.OpRun) and one.op_domain == "" for one in fl.onnx.operators)


@pytest.mark.parametrize("op", onnx_twin.GATES)
def test_whole_graph(op, monkeypatch):
    """Our nodes, and others of ONNX around them."""
    case, built = draw(op, direction="reverse"), counted(monkeypatch)
    model = as_proto(case)
    model.graph.node[0].input[0] = "X2"
    model.graph.node.insert(0, helper.make_node("Mul", ["X", "two"], ["X2"]))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2), "two"))
    model.graph.node.append(helper.make_node("Neg", ["Y"], ["Z"]))
    model.graph.output.append(helper.make_tensor_value_info("Z", 1, None))
    *found, negative = evaluator(model).run(None, {"X": case.arrays["X"]})
    case.arrays["X"] = 2 * case.arrays["X"]
    agrees(case, found)
    assert np.array_equal(negative, -found[0]) and len(built) == 1


# ---- what is kept between runs ----------------------------------------------------------------------------------


def fed(case, names):
    """A model of a case to which the inputs of `names` are fed."""
    model = as_proto(case)
    for tensor in [one for one in model.graph.initializer if one.name in names]:
        model.graph.initializer.remove(tensor)
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return model


def test_a_layer_is_built_once(monkeypatch):
    case, built = draw("LSTM", direction="bidirectional"), counted(monkeypatch)
    session = evaluator(as_proto(case))
    first = session.run(None, {"X": case.arrays["X"]})
    for _ in range(3):
        again = session.run(None, {"X": case.arrays["X"]})
        assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert len(built) == 1


@pytest.mark.parametrize("name", ["W", "R", "B", "P"])
def test_weights_that_are_fed(name, monkeypatch):
    """Equal weights in another array are the same; a change is seen, even in the same array."""
    case, built = draw("LSTM"), counted(monkeypatch)
    session, feeds = evaluator(fed(case, ["W", "R", "B", "P"])), {n: case.arrays[n] for n in ["X", "W", "R", "B", "P"]}
    agrees(case, session.run(None, feeds))
    agrees(case, session.run(None, {n: a.copy() for n, a in feeds.items()}))
    assert len(built) == 1
    feeds[name] += 0.25  # in place; the case sees it, too
    agrees(case, session.run(None, feeds))
    assert len(built) == 2
    feeds[name][0, 0] = -0.0
    session.run(None, feeds)
    feeds[name][0, 0] = 0.0
    session.run(None, feeds)
    assert len(built) == 4  # to the bit
    view = feeds[name].view()
    view.flags.writeable = False  # but its base can be changed
    feeds[name] -= 0.5
    agrees(case, session.run(None, feeds | {name: view}))
    feeds[name] -= 0.5
    agrees(case, session.run(None, feeds | {name: view}))


def test_as_many_outputs_as_asked_for():
    case = draw("LSTM")
    for count in (1, 2, 3):
        node = evaluator(as_proto(case._replace(outputs=case.outputs[:count]))).rt_nodes_[0]
        assert len(node.run(*(case.arrays.get(name) for name in case.inputs))) == count


def test_b_comes_and_goes():
    """One node object, called with and without a bias."""
    case = draw("GRU")
    node = evaluator(as_proto(case)).rt_nodes_[0]
    given = [case.arrays[name] for name in ["X", "W", "R", "B"]]
    without = [*given[:3], None]
    for inputs in (given, without, given):
        arrays = {name: a for name, a in zip(["X", "W", "R", "B"], inputs) if a is not None}
        agrees(case._replace(arrays=arrays), node.run(*inputs))


def test_threads():
    """One session, called by many threads with weights of their own."""
    case = draw("GRU")
    session, errors = evaluator(fed(case, ["W"])), []
    inputs = [{"X": case.arrays["X"], "W": case.arrays["W"] * k} for k in (1, 2, 3, 4)]
    wanted = [session.run(None, feeds) for feeds in inputs]

    def work(k):
        for _ in range(20):
            if not all(np.array_equal(a, b) for a, b in zip(session.run(None, inputs[k]), wanted[k])):
                errors.append(k)

    threads = [threading.Thread(target=work, args=[k]) for k in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not errors


# ---- types ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("op", onnx_twin.GATES)
@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_sixteen_bits(kind, op, layout):
    """Computed in float32, rounded once at the end."""
    dtype = pytest.importorskip("ml_dtypes").bfloat16 if kind == "bfloat16" else np.float16
    for seed in range(6):
        case = onnx_twin.draw(["LSTM", "GRU", "RNN"].index(op) + 3 * seed, "float32", layout)
        arrays = {n: a if n == "sequence_lens" else a.astype(dtype) for n, a in case.arrays.items()}
        wide = case._replace(arrays={n: a if n == "sequence_lens" else a.astype("f4") for n, a in arrays.items()})
        found = evaluator(as_proto(case._replace(arrays=arrays), 22)).run(None, {"X": arrays["X"]})
        exact = evaluator(as_proto(wide, 22)).run(None, {"X": wide.arrays["X"]})
        for ours, theirs in zip(found, exact):
            assert ours.dtype == dtype and np.array_equal(ours, theirs.astype(dtype))


def test_empty_and_short():
    case = draw("LSTM")
    session = evaluator(fed(case, ["initial_h", "initial_c", "sequence_lens"]))
    for T, B in ((0, 3), (4, 0), (0, 0), (1, 1)):
        feeds = {"X": case.arrays["X"][:T, :B], "sequence_lens": np.full(B, T, "i4")}
        feeds["X"] = np.zeros((T, B, 4), "f4")
        feeds |= {name: np.ones((1, B, 6), "f4") for name in ("initial_h", "initial_c")}
        y, h, c = session.run(None, feeds)
        assert y.shape == (T, 1, B, 6) and h.shape == c.shape == (1, B, 6)
        if not T:
            assert (h == 1).all() and (c == 1).all()


# ---- functions --------------------------------------------------------------------------------------------------


def function_model(case, direction):
    """A model whose node is in a function, with an attribute that the caller gives."""
    node = helper.make_node(case.op, case.inputs, case.outputs, hidden_size=6)
    node.attribute.append(onnx.AttributeProto(name="direction", ref_attr_name="way", type=onnx.AttributeProto.STRING))
    inputs, opset = [name for name in case.inputs if name], [helper.make_opsetid("", 17)]
    function = helper.make_function("here", "F", inputs, case.outputs, [node], opset, ["way"])
    call = helper.make_node("F", inputs, case.outputs, domain="here", way=direction)
    graph = as_proto(case).graph
    del graph.node[:]
    graph.node.append(call)
    return helper.make_model(graph, functions=[function], opset_imports=[*opset, helper.make_opsetid("here", 1)])


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_functions(direction, monkeypatch):
    """Attributes of a function's node that its caller gives; ONNX's evaluator hands new_ops to no function, ours does.
    """
    case, built = draw("GRU", direction=direction), counted(monkeypatch)
    found = fl.onnx.prepare(function_model(case, direction)).run([case.arrays["X"]])
    agrees(case, found)
    assert len(built) == 1


def test_a_function_that_is_called_in_two_ways():
    """One node object, whose attribute changes from call to call."""
    case = draw("GRU")
    model = function_model(case, "forward")
    call = onnx.NodeProto()
    call.CopyFrom(model.graph.node[0])
    call.attribute[0].s = b"reverse"
    del call.output[:]
    model.graph.node.append(call)
    for name, axes in (("Y2", 4), ("Y_h2", 3)):
        model.graph.node[1].output.append(name)
        model.graph.output.append(helper.make_tensor_value_info(name, 1, [None] * axes))
    session = fl.onnx.prepare(model)
    for _ in range(2):
        found = session.run([case.arrays["X"]])
        agrees(case, found[:2])
        agrees(case._replace(attributes={"direction": "reverse"}), found[2:])


def test_graphs_inside_graphs(monkeypatch):
    """Branches of If, with weights of the graph around them."""
    case, built = draw("LSTM"), counted(monkeypatch)
    model = as_proto(case)
    inner = model.graph.node[0]
    outputs = [helper.make_tensor_value_info(name, 1, None) for name in case.outputs]
    branch = helper.make_graph([inner], "branch", [], outputs)
    node = helper.make_node("If", ["c"], case.outputs, then_branch=branch, else_branch=branch)
    del model.graph.node[:]
    model.graph.node.append(node)
    model.graph.input.append(helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, []))
    session = fl.onnx.prepare(model)
    for _ in range(2):
        agrees(case, session.run({"X": case.arrays["X"], "c": np.array(True)}))
    assert len(built) == 1


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attributes, opset, words", [
    ({"clip": -1.0}, 17, r"node 'n' \(GRU\) has clip -1.0, expected a positive number"),
    ({"layout": 1}, 13, "has an attribute 'layout', which GRU of opset 13 does not have"),
    ({"output_sequence": 1}, 6, "is of opset 6; opsets 7 to 28 are read"),
    ({"sideways": 1}, 17, "has an attribute 'sideways'"),
    ({"activations": ["Affine", "Tanh"]}, 17, "Affine without an activation_alpha"),
])
def test_attributes_are_refused_before_the_first_run(attributes, opset, words):
    with pytest.raises(ValueError, match=words):
        evaluator(as_proto(draw("GRU", **attributes), opset))


@pytest.mark.parametrize("name, change, words", [
    ("X", lambda a: a[0], r"has X of shape \(3, 4\), expected three axes"),
    ("X", lambda a: a[:, :, :3], "node 'n' .GRU. x"),
    ("X", lambda a: a.astype(float), "inputs of different types: X float64, W float32"),
    ("W", lambda a: a.astype(float), "inputs of different types: X float32, W float64"),
    ("W", lambda a: a.astype("i4"), "has weights of W int32, R float32"),
    ("R", lambda a: a.swapaxes(1, 2), r"R has shape \(1, 6, 18\), expected \(1, 54, 18\)"),
    ("B", lambda a: a[:, 1:], r"B has shape \(1, 35\), expected \(1, 36\)"),
    ("initial_h", lambda a: a[:, :2], "node 'n' .GRU. "),
    ("initial_h", lambda a: a[0], r"has an initial state of shape \(3, 6\), expected \(D, B, H\)"),
    ("initial_h", lambda a: a.astype(float), "X float32, W float32, initial_h float64"),
    ("sequence_lens", lambda a: a + 1, "node 'n' .GRU. lengths"),
    ("sequence_lens", lambda a: a[1:], "node 'n' .GRU. lengths"),
])
def test_inputs_that_are_refused(name, change, words):
    case = draw("GRU")
    feeds = dict(case.arrays) | {name: change(case.arrays[name])}
    with pytest.raises(ValueError, match=words):
        evaluator(fed(case, list(case.arrays))).run(None, feeds)
