"""from_onnx without the package onnx: what layers come out, what is refused and how, how much memory is taken."""

import os
import re
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import damage
import numpy as np
import onnx_bytes as ob
import onnx_twin
import pytest
from onnx_cases import as_bytes, by_layer, distance

import fastlstm as fl
from fastlstm.convert import onnx_nodes, onnx_read


@pytest.fixture
def read(tmp_path):
    """Bytes -> what from_onnx gives for a file of them; a warning is an error."""

    def function(data):
        path = tmp_path / "model.onnx"
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return fl.from_onnx(path)

    return function


def refused(read, data, words):
    with pytest.raises(fl.FileFormatError, match=words) as caught:
        read(data)
    assert re.match(r"\S+model\.onnx: ", str(caught.value))


# ---- layers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["raw", "packed", "unpacked"])
@pytest.mark.parametrize("start", range(0, 120, 40))
def test_layers_compute_the_node(start, how, read):
    """Random nodes of all kinds, against ONNX's equations in float64."""
    for seed in range(start, start + 40):
        dtype = ["float32", "float64"][seed % 2]
        case = onnx_twin.draw(seed, dtype, seed // 2 % 2)
        stored = case._replace(arrays={n: a for n, a in case.arrays.items() if not n.startswith("initial")})
        layer = read(as_bytes(stored, how=how))["n"]
        assert layer.dtype == dtype
        for ours, theirs in zip(by_layer(case, layer), onnx_twin.answer(case)):
            assert distance(ours, theirs) <= {"float32": 5e-6, "float64": 1e-13}[dtype], seed


def marked(op, gates, D=1, H=2, I=3):
    """W, R, B, P whose numbers tell tensor, direction, gate and place in the gate."""
    arrays = {}
    for place, (name, shape) in enumerate({"W": (H, I), "R": (H, H), "B": (H,), "P": (H,)}.items()):
        letters = {"B": gates * 2, "P": "iof" if op == "LSTM" else ""}.get(name, gates)
        ramp = 1000 * place + np.arange(np.prod(shape)).reshape(shape) / 8
        blocks = [[ramp + 100 * d + 10 * g for g in range(len(letters))] for d in range(D)]
        if letters:
            arrays[name] = np.array([np.concatenate(one) for one in blocks], "f4")
    return arrays


@pytest.mark.parametrize("op, gates, here", [("LSTM", "iofg", "ifgo"), ("GRU", "zrn", "rzn"), ("RNN", "a", "a")])
def test_gates_find_their_place(op, gates, here, read):
    arrays = marked(op, gates, 2)
    layer = read(ob.recurrent(op, arrays, direction="bidirectional"))["rnn"]
    for d, end in enumerate(["", "_reverse"]):
        blocks = {name: dict(zip(gates, np.split(arrays[name][d], len(gates)))) for name in "WR"}
        biases = np.split(arrays["B"][d], 2 * len(gates))
        blocks["b"] = dict(zip(gates, biases))
        blocks["c"] = dict(zip(gates, biases[len(gates) :]))
        for name, letter in (("weight_ih", "W"), ("weight_hh", "R"), ("bias_ih", "b"), ("bias_hh", "c")):
            wanted = np.concatenate([blocks[letter][gate] for gate in here])
            assert np.array_equal(layer.state_dict()[f"{name}_l0{end}"], wanted), name
        if op == "LSTM":
            p = dict(zip("iof", np.split(arrays["P"][d], 3)))
            wanted = np.concatenate([p[gate] for gate in "ifo"])
            assert np.array_equal(layer.state_dict()[f"weight_peephole_l0{end}"], wanted)


def test_input_forget_leaves_the_rows_of_f_out(read):
    arrays = marked("LSTM", "iofg")
    layer = read(ob.recurrent("LSTM", arrays, input_forget=1))["rnn"]
    assert layer.coupled == "f=1-i" and layer.peephole == "io"
    i, o, _, g = np.split(arrays["W"][0], 4)
    assert np.array_equal(layer.state_dict()["weight_ih_l0"], np.concatenate([i, g, o]))
    i, o, _ = np.split(arrays["P"][0], 3)
    assert np.array_equal(layer.state_dict()["weight_peephole_l0"], np.concatenate([i, o]))


def test_classes_and_options(read):
    found = read(ob.varied())
    assert list(found) == ["both", "u", "inner"]  # in the file's order; one has no name
    assert type(found["both"]) is fl.Bidirectional and type(found["u"]) is fl.Reverse and type(found["inner"]) is fl.GRU
    assert found["u"].layer.batch_first and found["u"].in_time and not found["u"].layer.bias
    first, second = found["both"].forward_layer, found["both"].backward_layer
    assert first.coupled == second.coupled == "f=1-i" and first.clip == second.clip == 3.0
    assert first.config()["activations"] is None
    assert [a[:2] for a in second.activations] == [("hard_sigmoid", 0.25), ("elu", 0.5), ("tanh", 0.0)]
    assert found["inner"].reset_after
    assert not read(ob.recurrent("GRU"))["rnn"].reset_after
    same = read(ob.recurrent("RNN", ob.weights("RNN", D=2), direction="bidirectional", activations=["Relu", "relu"]))
    assert same["rnn"].bidirectional and same["rnn"].nonlinearity == "relu"
    layer = read(ob.recurrent("RNN", activations=["Affine"], activation_alpha=[1.0], activation_beta=[0.0]))["rnn"]
    assert layer.activations[0].name == "identity"


def test_widened(read):
    for kind in ("float16", "bfloat16"):
        arrays = ob.weights("GRU", dtype="f4")
        if kind == "bfloat16":
            bits = {name: (a.view("u4") >> 16).astype("u2") for name, a in arrays.items()}
            wanted = {name: (b.astype("u4") << 16).view("f4") for name, b in bits.items()}
        else:
            bits = {name: a.astype("f2") for name, a in arrays.items()}
            wanted = {name: b.astype("f4") for name, b in bits.items()}
        tensors = [ob.tensor(name, b, "raw", kind) for name, b in bits.items()]
        node = ob.node("GRU", ["x", "W", "R", "B"], ["y"], "rnn")
        found = read(ob.model(ob.graph([node], tensors)))["rnn"].state_dict()
        same = read(ob.recurrent("GRU", wanted))["rnn"].state_dict()
        assert all(np.array_equal(found[name], same[name]) and found[name].dtype == "f4" for name in same)


def test_names(read):
    arrays = ob.weights("RNN")
    tensors = [ob.tensor(name, array) for name, array in arrays.items()]

    def names(*nodes):
        return list(read(ob.model(ob.graph(nodes, tensors))))

    def node(name, outputs):
        return ob.node("RNN", ["x", *arrays], outputs, name)

    assert names(node("a", ["y"]), node("", ["", "h"]), node("a", ["z"]), node("é", ["w"])) == ["a", "h", "z", "é"]
    with pytest.raises(fl.FileFormatError, match=r"node 'a' \(RNN\) has no name and no output, or those of another"):
        names(node("a", ["y"]), node("a", ["a"]))


def test_layers_are_saved_and_own_their_weights(read, tmp_path):
    layer = read(ob.varied())["both"]
    os.unlink(tmp_path / "model.onnx")
    layer.save(tmp_path / "layer.safetensors")
    again = fl.load(tmp_path / "layer.safetensors")
    x = np.ones((2, 1, 3), "f4")
    assert np.array_equal(layer(x)[0], again(x)[0])
    fl.optim.SGD(layer, lr=0.1)


# ---- where weights come from ------------------------------------------------------------------------------------


def placed(W, before=(), more=(), inputs=("x",), opset=17):
    """A model whose W is called `W`, with nodes `before` and more initializers."""
    arrays = ob.weights("RNN")
    node = ob.node("RNN", ["x", W, "R", "B"], ["y"], "rnn")
    tensors = [ob.tensor(name, arrays[name]) for name in "RB"]
    return ob.model(ob.graph([*before, node], [*tensors, *more], inputs), opset)


def test_sources(read):
    W = ob.weights("RNN")["W"]
    data = ob.tensor("w", W)
    constant = ob.node("Constant", [], ["w"], value=ob.Tensor(data))
    chain = [ob.node("Identity", [f"w{n or ''}"], [f"w{n + 1}"]) for n in range(8)]
    for found in (
        placed("w", more=[data]), placed("w", [constant]), placed("w8", chain, [data]),
        placed("w8", [constant, *chain]), placed("w", more=[data], inputs=("x", "w")),  # before IR 4 all are inputs
    ):
        assert np.array_equal(read(found)["rnn"].state_dict()["weight_ih_l0"], W[0])


def test_graphs_inside_graphs(read):
    """The innermost graph that has a name gives it; and what it lacks comes from those around it."""
    inner, outer = ob.weights("RNN", seed=1), ob.weights("RNN", seed=2)
    node = ob.node("RNN", ["x", "W", "R2"], ["y"], "deep")
    body = ob.graph([ob.node("Identity", ["R"], ["R2"]), node], [ob.tensor("W", inner["W"])])
    middle = ob.graph([ob.node("Loop", [], ["y"], body=ob.Graph(body))], [ob.tensor("unused", inner["R"])])
    nodes = [ob.node("If", ["c"], ["y"], then_branch=ob.Graph(middle))]
    tensors = [ob.tensor("W", outer["W"]), ob.tensor("R", outer["R"])]
    weights = read(ob.model(ob.graph(nodes, tensors)))["deep"].state_dict()
    assert np.array_equal(weights["weight_ih_l0"], inner["W"][0])
    assert np.array_equal(weights["weight_hh_l0"], outer["R"][0])


SHARED = ob.tensor("w", ob.weights("RNN")["W"])


@pytest.mark.parametrize("data, words", [
    (placed("w"), "W is 'w', which nothing in the file gives"),
    (placed("w", inputs=("x", "w")), "W is 'w', an input of the graph"),
    (placed("w", [ob.node("Sigmoid", ["a"], ["w"])]), "W is 'w', computed at run time by Sigmoid; if it is constant"),
    (placed("v", [ob.node("Dequantize", ["a"], ["w"]), ob.node("Identity", ["w"], ["v"])]), "run time by Dequantize"),
    (placed("w", [ob.node("Constant", [], ["w"], value_string="a")]), "W is 'w', a Constant that is no tensor of num"),
    (placed("w", more=[SHARED, SHARED]), "more than one initializer 'w'"),
    (placed("v", [ob.node("Identity", ["v"], ["v"])]), "W is 'v', an Identity of itself"),
    (placed("w40", [ob.node("Identity", [f"w{n}"], [f"w{n + 1}"]) for n in range(40)]), "W is 'w0', which nothing"),
    (placed("v", [ob.node("Identity", [a], [b]) for a, b in ("uv", "wu", "vw")]), "W is 'v', an Identity of itself"),
    (placed("w", more=[ob.tensor("w", np.zeros((1, 4, 3), "i8"))]), "W holds int64, expected float32, float64"),
])
def test_weights_that_cannot_be_had(data, words, read):
    refused(read, data, r"node 'rnn' \(RNN\) .*" + words if "more than" not in words else words)


def test_sparse_initializer(read):
    arrays = ob.weights("RNN")
    node = ob.node("RNN", ["x", "w", "R"], ["y"], "rnn")
    graph = ob.graph([node], [ob.tensor("R", arrays["R"])]) + ob.field(15, ob.field(1, ob.tensor("w", arrays["W"])))
    refused(read, ob.model(graph), "W is 'w', a sparse initializer, which is not read")


# ---- other files ------------------------------------------------------------------------------------------------


def outside(**external):
    return placed("w", more=[ob.tensor("w", ob.weights("RNN")["W"], external)])


def test_external_data(read, tmp_path):
    W = ob.weights("RNN")["W"]
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "data.bin").write_bytes(b"head" * 2 + W.tobytes() + b"tail")
    os.symlink("sub/data.bin", tmp_path / "link.bin")
    (tmp_path / "whole.bin").write_bytes(W.tobytes())
    for external in (
        {"location": "sub/data.bin", "offset": 8, "length": W.nbytes}, {"location": "whole.bin", "checksum": "abc"},
        {"location": "./link.bin", "offset": 8, "length": W.nbytes},
    ):
        assert np.array_equal(read(outside(**external))["rnn"].state_dict()["weight_ih_l0"], W[0])


def test_external_data_may_be_larger_than_the_model(read, tmp_path):
    arrays = ob.weights("GRU", 60, 50)
    for name, array in arrays.items():
        (tmp_path / name).write_bytes(array.tobytes())
    tensors = [ob.tensor(name, array, {"location": name}) for name, array in arrays.items()]
    node = ob.node("GRU", ["x", *arrays], ["y"], "rnn")
    found = read(ob.model(ob.graph([node], tensors)))["rnn"].state_dict()
    wanted = read(ob.recurrent("GRU", arrays))["rnn"].state_dict()
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_external_data_count_once(read, tmp_path):
    """Tensors that are the same bytes of another file, by any name of it, leave room for no more layers."""
    arrays = ob.weights("RNN", 60, 60, bias=False)
    (tmp_path / "data.bin").write_bytes(b"".join(array.tobytes() for array in arrays.values()))
    os.link(tmp_path / "data.bin", tmp_path / "same.bin")
    os.symlink("data.bin", tmp_path / "link.bin")

    def model(count):
        tensors, nodes = [], []
        for n in range(count):
            location = ("data.bin", "same.bin", "./link.bin")[n % 3]
            for place, (name, array) in enumerate(arrays.items()):
                external = {"location": location, "offset": 14400 * place, "length": 14400}
                tensors.append(ob.tensor(f"{name}{n}", array, external))
            nodes.append(ob.node("RNN", ["x", f"W{n}", f"R{n}"], ["y"], f"n{n}"))
        return ob.model(ob.graph(nodes, tensors))

    assert len(read(model(2))) == 2
    refused(read, model(3), r"node 'n2' \(RNN\) shares weights with .* twice the file's size")


@pytest.mark.parametrize("external, words", [
    ({"location": "../x.bin"}, "'../x.bin', expected one in the folder of the model"),
    ({"location": "a/../../x.bin"}, "expected one in the folder"),
    ({"location": "a\\..\\x.bin"}, "expected one in the folder"),
    ({"location": "/etc/passwd"}, "'/etc/passwd', expected one in the folder"),
    ({"location": "C:x.bin"}, "expected one in the folder"),
    ({"location": ""}, "expected one in the folder"),
    ({"location": "a\0b"}, "expected one in the folder"),
    ({}, "expected one in the folder"),
    ({"location": "link.bin"}, "'link.bin', a link that leaves the folder of the model"),
    ({"location": "up/x.bin"}, "a link that leaves the folder"),
    ({"location": "missing.bin"}, "'missing.bin': No such file"),
    ({"location": "n" * 3000}, "File name too long"),
    ({"location": "."}, "'.', which is not a regular file"),
    ({"location": "pipe"}, "'pipe', which is not a regular file"),
    ({"location": "short.bin"}, "has 20 bytes, expected 48 for float32 of shape .1, 4, 3."),
    ({"location": "short.bin", "length": 48}, "at offset 0 with length 48, but that has 20 bytes"),
    ({"location": "short.bin", "offset": 21}, "at offset 21 with length 0, but that has 20 bytes"),
    ({"location": "short.bin", "offset": -1}, "at offset '-1'"),
    ({"location": "short.bin", "length": 10**20}, "at length '100000000000000000000'"),
    ({"location": "empty.bin"}, "has 0 bytes"),
])
def test_external_data_stays_in_its_folder(external, words, read, tmp_path_factory, tmp_path):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "x.bin"
    elsewhere.write_bytes(bytes(48))
    os.symlink(elsewhere, tmp_path / "link.bin")
    os.symlink(elsewhere.parent, tmp_path / "up")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "short.bin").write_bytes(bytes(20))
    (tmp_path / "empty.bin").write_bytes(b"")
    refused(read, outside(**external), r"node 'rnn' \(RNN\) cannot be read: W .*" + words)


def test_external_and_internal(read):
    tensor = ob.tensor("w", ob.weights("RNN")["W"], {"location": "x"}) + ob.field(9, b"abcd")
    refused(read, placed("w", more=[tensor]), "in another file and in this one")
    for place in (0, 2):
        tensor = ob.fields(1, [1, 4, 3]) + ob.field(2, 1) + ob.field(8, "w") + ob.field(13, b"") + ob.field(14, place)
        refused(read, placed("w", more=[tensor]), f"in another file and in this one: location {place}")
    tensor = ob.tensor("w", ob.weights("RNN")["W"]) + ob.field(14, 1)
    refused(read, placed("w", more=[tensor]), "in another file and in this one")


# ---- models -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [7, 13, 14, 21, 22, 28])
def test_opsets(opset, read):
    assert type(read(ob.recurrent("LSTM", opset=opset))["rnn"]) is fl.LSTM
    arrays = ob.weights("RNN")
    node = ob.node("RNN", ["x", *arrays], ["y"], "rnn", "ai.onnx")
    graph = ob.graph([node], [ob.tensor(*item) for item in arrays.items()])
    assert type(read(ob.model(graph, opset, domain="ai.onnx"))["rnn"]) is fl.RNN


GRAPH = ob.graph([ob.node("RNN", ["x", "W", "R"], ["y"], "rnn")], [ob.tensor(*i) for i in ob.weights("RNN").items()])
FUNCTION = ob.field(25, ob.field(1, "f") + ob.field(7, ob.node("GRU", ["x", "W", "R"], ["y"], "g")))


def nested(depth):
    graph = GRAPH
    for _ in range(depth):
        graph = ob.graph([ob.node("If", [], ["y"], then_branch=ob.Graph(graph))])
    return ob.model(graph)


@pytest.mark.parametrize("data, words", [
    (b"", "not an ONNX model: there is no graph"),
    (b"\x08\x08", "not an ONNX model: there is no graph"),
    (b"PK\x03\x04" + bytes(100), "not an ONNX model, or damaged"),
    (b'{"graph": {}}', "not an ONNX model, or damaged"),
    (ob.recurrent("LSTM")[:-1], "not an ONNX model, or damaged"),
    (ob.recurrent("LSTM")[:300], "not an ONNX model, or damaged or cut short: [0-9]+ bytes at byte"),
    (ob.recurrent("LSTM", ir=15), "ONNX's format .IR. 15; 1 to 14 are read"),
    (ob.recurrent("LSTM", ir=0), "ONNX's format .IR. 0; 1 to 14 are read"),
    (ob.recurrent("LSTM", opset=29), "is of opset 29; opsets 7 to 28 are read"),
    (ob.recurrent("LSTM", opset=6), "is of opset 6; opsets 7 to 28 are read"),
    (ob.recurrent("LSTM", opset=None), "names no version of ONNX's operators"),
    (ob.recurrent("LSTM", opset=None, ir=1), "is of opset 1; opsets 7 to 28 are read"),
    (ob.model(GRAPH, domain="com.example"), "names no version of ONNX's operators"),
    (ob.model(GRAPH, more=ob.field(7, GRAPH)), "twice"),
    (ob.model(ob.graph([ob.node("Add", ["x", "x"], ["y"])])), "there is no LSTM, GRU or RNN in it"),
    (ob.model(GRAPH, more=FUNCTION), r"node 'g' \(GRU\) is inside the function 'f'; onnx.inliner"),
    (ob.model(ob.graph([ob.node("DynamicQuantizeLSTM", ["x"], ["y"], "q", "com.microsoft")])),
     r"node 'q' \(DynamicQuantizeLSTM\) is of domain 'com.microsoft'"),
    (ob.model(ob.graph([ob.node("GRU", ["x", "W", "R"], ["y"], "q", "com.example")])), "of domain 'com.example'"),
    (ob.model(ob.graph([ob.node("MyGru", ["x"], ["y"], "q", "h")]), more=FUNCTION), r"'q' \(MyGru\) is of domain 'h'"),
    (ob.model(ob.graph([ob.node("SuperLSTM", ["x", "W", "R"], ["y"], "q")])), r"'q' \(SuperLSTM\) is of domain ''"),
    (nested(16), "graphs inside graphs, more than 16 deep"),
    (ob.model(ob.graph([ob.node("Case", [], ["y"], **{f"g{n}": ob.Graph(GRAPH) for n in range(17)})])),
     "a node with more than 16 graphs inside"),
    (ob.model(ob.graph([ob.node("RNN", [], ["y"])] * 1025)), "more than 1024 recurrent nodes"),
    (ob.model(ob.graph([ob.node("RNN", ["x"] * 65, ["y"])])), "more than 64 times field 1"),
])
def test_models_that_are_refused(data, words, read):
    refused(read, data, words)


def test_functions_without_recurrent_nodes(read):
    """Their names may say what they like; so may those of other operators."""
    function = ob.field(25, ob.field(1, "LSTMish") + ob.field(7, ob.node("Add", ["x", "x"], ["y"])) + ob.field(10, "h"))
    calls = [ob.node("LSTMish", ["x"], ["z"], domain="h"), ob.node("Congruent", ["x"], ["v"], domain="h")]
    assert list(read(ob.model(ob.fields(1, calls) + GRAPH, more=function))) == ["rnn"]


def test_functions_are_walked_once(read, monkeypatch):
    """Not for every node that could call one."""
    function = ob.field(25, ob.field(1, "LSTMish") + ob.field(10, "h"))
    others = b"".join(ob.field(25, ob.field(1, f"f{n}") + ob.field(10, "h")) for n in range(50))
    calls, walks, real = [ob.node("LSTMish", ["x"], ["z"], domain="h")] * 50, [], onnx_nodes.message
    monkeypatch.setattr(onnx_nodes, "message", lambda data, *given: walks.append(given[0]) or real(data, *given))
    assert list(read(ob.model(ob.fields(1, calls) + GRAPH, more=others + function))) == ["rnn"]
    assert len(walks) < 4 * 103
    many = b"".join(ob.field(25, ob.field(1, f"LSTM{n}") + ob.field(10, "h")) for n in range(1025))
    refused(read, ob.model(ob.fields(1, calls) + GRAPH, more=many), "more than 1024 functions named after recurrent")


def test_nested_to_the_limit(read):
    assert list(read(nested(15))) == ["rnn"]


def test_paths(tmp_path):
    with pytest.raises(FileNotFoundError):
        fl.from_onnx(tmp_path / "missing.onnx")
    with pytest.raises(IsADirectoryError):
        fl.from_onnx(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(fl.FileFormatError, match="not a regular file"):
        fl.from_onnx(tmp_path / "pipe")
    path = tmp_path / "é.onnx"
    path.write_bytes(ob.varied())
    assert len(fl.from_onnx(path)) == len(fl.from_onnx(str(path))) == 3


# ---- nodes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op, attributes, words", [
    ("LSTM", {"output_sequence": 1}, "has an attribute 'output_sequence', which LSTM of opset 17 does not have"),
    ("LSTM", {"linear_before_reset": 1}, "'linear_before_reset', which LSTM"),
    ("GRU", {"input_forget": 1}, "'input_forget', which GRU"),
    ("LSTM", {"direction": "backward"}, "has direction 'backward', expected 'forward' or 'reverse' or 'bidirectional'"),
    ("LSTM", {"direction": 1}, "has direction 1, expected one str"),
    ("LSTM", {"layout": 2}, "has layout 2, expected 0 or 1"),
    ("LSTM", {"input_forget": 2}, "has input_forget 2, expected 0 or 1"),
    ("LSTM", {"clip": 1}, "has clip 1, expected one float"),
    ("LSTM", {"clip": 0.0}, "has clip 0.0, expected a positive number"),
    ("LSTM", {"clip": float("nan")}, "has clip nan"),
    ("LSTM", {"clip": float("inf")}, "has clip inf"),
    ("LSTM", {"hidden_size": 5}, r"W has shape \(1, 16, 3\), expected \(1, 20, 3\); R has shape .* B .* hidden_size"),
    ("LSTM", {"hidden_size": 0}, "has hidden_size 0"),
    ("LSTM", {"hidden_size": -4}, "has hidden_size -4"),
    ("LSTM", {"direction": "bidirectional"}, r"W has shape \(1, 16, 3\), expected \(2, 16, 3\)"),
    ("LSTM", {"activations": ["Tanh"]}, "has 1 activations, expected 3"),
    ("LSTM", {"activations": ["Sigmoid", "Tanh", "Sin"]}, "has an activation 'Sin', expected one of Sigmoid, "),
    ("LSTM", {"activations": "Tanh"}, "has activations Tanh, expected a list of str"),
    ("RNN", {"activations": ["Affine"]}, "Affine without an activation_alpha, for which ONNX has no default"),
    ("RNN", {"activations": ["Affine"], "activation_alpha": [1.0]}, "Affine without an activation_beta"),
    ("RNN", {"activations": ["ScaledTanh"], "activation_beta": [1.0]}, "ScaledTanh without an activation_alpha"),
    ("RNN", {"activations": ["Elu"], "activation_alpha": [float("inf")]}, "must be finite"),
    ("RNN", {"activations": ["Elu"], "activation_alpha": [1]}, "has activation_alpha .1., expected a list of float"),
])
def test_attributes_that_are_refused(op, attributes, words, read):
    refused(read, ob.recurrent(op, **attributes), rf"node 'rnn' \({op}\) .*{words}")


def test_layout_came_with_opset_14(read):
    assert read(ob.recurrent("GRU", opset=14, layout=1))["rnn"].batch_first
    refused(read, ob.recurrent("GRU", opset=13, layout=1), "'layout', which GRU of opset 13 does not have")


def test_attribute_twice(read):
    node = ob.node("RNN", ["x", "W", "R"], ["y"], "rnn") + ob.field(5, ob.attribute("clip", 1.0)) * 2
    tensors = [ob.tensor(*item) for item in ob.weights("RNN").items()]
    refused(read, ob.model(ob.graph([node], tensors)), "has attribute 'clip' twice")


@pytest.mark.parametrize("inputs, outputs, words", [
    (["x"], ["y"], "has no input W, R"),
    (["x", "W"], ["y"], "has no input R"),
    (["", "W", "R"], ["y"], "has no input X"),
    (["x", "W", "R", *[""] * 6], ["y"], "has 9 inputs, expected 8 at most: X, W, R, B, sequence_lens"),
    (["x", "W", "R"], ["y", "", "", ""], "has 4 outputs, expected 3 at most: Y, Y_h, Y_c"),
])
def test_inputs_that_are_refused(inputs, outputs, words, read):
    tensors = [ob.tensor(*item) for item in ob.weights().items()]
    refused(read, ob.model(ob.graph([ob.node("LSTM", inputs, outputs, "rnn")], tensors)), words)


@pytest.mark.parametrize("name, change, words", [
    ("W", lambda a: a.transpose(0, 2, 1), r"W has shape \(1, 3, 16\), expected \(1, 16, 16\)"),
    ("W", lambda a: a[0], r"has W of shape \(16, 3\) and R of shape \(1, 16, 4\), expected \(1, 4 H, I\)"),
    ("W", lambda a: a[:, :15], r"W has shape \(1, 15, 3\), expected \(1, 16, 3\)"),
    ("W", lambda a: a[:, :, :0], r"has W of shape \(1, 16, 0\)"),
    ("R", lambda a: a.transpose(0, 2, 1), r"R has shape \(1, 4, 16\), expected \(1, 64, 16\)"),
    ("R", lambda a: a[:, :, :0], r"R of shape \(1, 16, 0\)"),
    ("R", lambda a: a[:, :, :, None], r"R of shape \(1, 16, 4, 1\)"),
    ("B", lambda a: a[:, :16], r"B has shape \(1, 16\), expected \(1, 32\)"),
    ("B", lambda a: a[0], r"B has shape \(32,\), expected \(1, 32\)"),
    ("P", lambda a: a[:, :8], r"P has shape \(1, 8\), expected \(1, 12\)"),
])
def test_shapes_that_are_refused(name, change, words, read):
    arrays = ob.weights(P=True)
    arrays[name] = change(arrays[name])
    refused(read, ob.recurrent("LSTM", arrays), words)


# ---- warnings, memory -------------------------------------------------------------------------------------------


def test_what_is_not_finite_is_told(tmp_path):
    arrays, path = ob.weights("GRU"), tmp_path / "model.onnx"
    arrays["R"][0, 5, 1] = np.nan
    arrays["B"][0, -1] = -np.inf
    path.write_bytes(ob.recurrent("GRU", arrays))
    with pytest.warns(RuntimeWarning, match=r"'rnn' \(GRU\) has NaN or infinity in weight_hh_l0, bias_hh_l0") as caught:
        fl.from_onnx(path)
    assert caught[0].filename == __file__


def test_stored_initial_states_are_told(read, tmp_path):
    arrays = ob.weights()
    node = ob.node("LSTM", ["x", "W", "R", "B", "", "h", "c"], ["y"], "rnn")
    tensors = [ob.tensor(*item) for item in arrays.items()] + [ob.tensor("h", np.zeros((1, 2, 4), "f4"))]
    read(ob.model(ob.graph([node], tensors, ["x", "c"])))  # zeros, and given at run time: nothing to tell
    path = tmp_path / "model.onnx"
    path.write_bytes(ob.model(ob.graph([node], [*tensors, ob.tensor("c", np.ones((1, 2, 4), "f4"))])))
    with pytest.warns(RuntimeWarning, match="initial_c is stored in the file and not zero") as caught:
        fl.from_onnx(path)
    assert len(caught) == 1 and caught[0].filename == __file__


def test_nodes_that_share_weights(read):
    """Those that do the same are one layer; a small file cannot ask for much memory by others."""
    arrays = ob.weights("RNN", 50, 50)
    tensors = [ob.tensor(*item) for item in arrays.items()]

    def model(*clips):
        nodes = [ob.node("RNN", ["x", *arrays], ["y"], f"n{k}", clip=clip) for k, clip in enumerate(clips)]
        return ob.model(ob.graph(nodes, tensors))

    found = read(model(1.0, *[2.0] * 9))
    assert len(found) == 10 and found["n0"] is not found["n1"] and found["n1"] is found["n9"]
    refused(read, model(1.0, 2.0, 3.0), r"node 'n2' \(RNN\) shares weights with .* twice the file's size")


def test_tensors_are_walked_once(read, monkeypatch):
    """Whatever the number of nodes that name them; and a tensor full of fields nobody asks for is not walked often."""
    arrays, walks, real = ob.weights("RNN"), [], onnx_read.described
    start = ob.tensor("h", np.zeros((1, 2, 4), "f2"), "packed")
    monkeypatch.setattr(onnx_read, "described", lambda *given, **more: walks.append(given[1]) or real(*given, **more))

    def model(junk, count, clips):
        tensors = [ob.tensor(*item) for item in arrays.items()]
        tensors[0] += b"\x78\x01" * junk  # a varint in a field that tensors do not have
        each = [{"clip": 1.0 + n if clips else 1.0} for n in range(count)]
        nodes = [ob.node("RNN", ["x", *arrays, "", "h"], ["y"], f"n{n}", **own) for n, own in enumerate(each)]
        return ob.model(ob.graph(nodes, [*tensors, start + b"\x78\x01" * junk]))

    for clips in (False, True):
        walks.clear()
        assert len(read(model(0, 5, clips))) == 5 and len(walks) == len(set(walks)) == 4
    refused(read, model(40_000, 40, True), "W is read too often by nodes that share it")


CROWDS = {
    "nodes": ob.field(1, b""), "initializers": ob.field(5, b""), "inputs": ob.field(11, b""),
    "unknown": ob.field(99, 1),
    "graphs": ob.field(1, ob.field(5, ob.field(6, b""))), "sparse": ob.field(15, b""),
}


@pytest.mark.parametrize("name", CROWDS)
def test_crowds_take_no_memory(name, tmp_path):
    """What is stepped over leaves nothing behind, however much there is of it."""
    path, crowd = tmp_path / "model.onnx", CROWDS[name] * 60000
    path.write_bytes(ob.model(crowd + GRAPH))
    tracemalloc.start()
    try:
        found = fl.from_onnx(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert list(found) == ["rnn"] and peak < 300_000


def test_a_crowd_of_numbers(tmp_path):
    path, many = tmp_path / "model.onnx", [0.5] * 100_000
    packed = ob.field(1, "activation_alpha") + ob.field(7, np.array(many, "<f4").tobytes()) + ob.field(20, 6)
    for attribute in (packed, ob.attribute("activation_alpha", many)):
        node = ob.node("RNN", ["x", "W", "R"], ["y"], "rnn") + ob.field(5, attribute)
        path.write_bytes(ob.model(ob.graph([node], [ob.tensor(*item) for item in ob.weights("RNN").items()])))
        tracemalloc.start()
        try:
            with pytest.raises(fl.FileFormatError, match="more than 4096 numbers"):
                fl.from_onnx(path)
            assert tracemalloc.get_traced_memory()[1] < 500_000
        finally:
            tracemalloc.stop()


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="no /proc here")
@pytest.mark.parametrize("how, kind, least", [
    ("raw", "f2", 1.9), ("raw", "f4", 0.9), ("raw", "f8", 0.9), ("packed", "f4", 0.9), ("unpacked", "f4", 0.7),
])
def test_memory(how, kind, least, tmp_path):
    """Twice the file's size is enough: float16 alone is doubled, and nothing else is held beside the weights."""
    (tmp_path / "small").write_bytes(ob.varied())
    (tmp_path / "large").write_bytes(ob.recurrent("RNN", ob.weights("RNN", 999, 1001, dtype=kind), how=how))
    program = f"""
import sys; sys.path.insert(0, {str(Path(damage.__file__).parent)!r})
import damage, os, fastlstm as fl
fl.from_onnx("small")
print(damage._read_watched(fl.from_onnx, "large")[1] / os.path.getsize("large"))
"""
    child = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr[-3000:]
    assert least <= float(child.stdout) <= 2.2  # the allocator rounds, too
