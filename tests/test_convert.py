"""`fastlstm convert` and `inspect` on files of every format, and what they say of those they cannot read."""

import json
import os

import numpy as np
import onnx_bytes as ob
import pytest
import torch_bytes as tb
from command_line import fails, fastlstm, succeeds
from damage import DATA
from safetensors.numpy import save_file

import fastlstm as fl
from fastlstm.convert import formats, inspection


def state_dict(**layers):
    return {f"{place}.{name}": w for place, layer in layers.items() for name, w in layer.state_dict().items()}


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint with two recurrent layers, one that is damaged, and a head."""
    d = state_dict(encoder=fl.LSTM(3, 5, 2, rng=0), decoder=fl.RNN(3, 4, rng=1), bad=fl.GRU(2, 2, rng=2))
    del d["bad.weight_ih_l0"]
    d["head.weight"] = np.ones((2, 4), "f4")
    path = tmp_path / "a.pt"
    path.write_bytes(tb.state_dict(d))
    return path


def test_inspect_of_a_checkpoint(checkpoint):
    text = succeeds("inspect", checkpoint)
    for words in ("a checkpoint of torch: 3 recurrent layers", "'encoder.':", "LSTM(3, 5, num_layers=2)",
                  "'decoder.':", "RNN(3, 4)", "weight_hh_l1", "'bad.' cannot be read: missing weight_ih_l0",
                  "tensors of no recurrent layer", "head.weight  (2, 4)"):
        assert words in text, words


def test_checkpoints_of_our_own(tmp_path):
    path, out = tmp_path / "training", tmp_path / "out.safetensors"
    lstm, chain = fl.LSTM(3, 4, rng=0), fl.Sequential(fl.GRU(3, 4, rng=0), fl.Linear(4, 2, rng=0))
    fl.save_checkpoint(path, chain, fl.optim.Adam(chain))
    text = succeeds("inspect", path)
    assert "a checkpoint of fastlstm: 1 model" in text and "GRU(3, 4)" in text and "tensors of no" not in text
    succeeds("convert", path, out)
    assert repr(fl.load(out)) == repr(chain)
    fl.save_checkpoint(path, [lstm, chain])
    assert "a checkpoint of fastlstm: 2 models" in succeeds("inspect", path)
    assert "2 recurrent layers; there are '0', '1'" in fails("convert", path, out)
    succeeds("convert", path, out, "--name", "0")
    assert repr(fl.load(out)) == repr(lstm)


def test_convert_a_layer_of_a_checkpoint(checkpoint, tmp_path):
    out = tmp_path / "b.safetensors"
    assert "LSTM(3, 5, num_layers=2" in succeeds("convert", checkpoint, out, "--name", "encoder.", "--batch-first")
    model = fl.load(out)
    assert model.batch_first
    expected = fl.from_torch(checkpoint, "encoder.").state_dict()
    assert all(np.array_equal(weight, expected[name]) for name, weight in model.state_dict().items())
    succeeds("convert", checkpoint, out, "--name", "decoder.", "--nonlinearity", "relu")
    assert fl.load(out).nonlinearity == "relu"


def test_of_one_layer_no_name_is_needed(tmp_path):
    layer = fl.GRU(3, 4, rng=0)
    save_file(state_dict(gru=layer), tmp_path / "a.safetensors")
    succeeds("convert", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert repr(fl.load(tmp_path / "b.safetensors")) == repr(layer)
    assert "a state dict in safetensors: 1 recurrent layer" in succeeds("inspect", tmp_path / "a.safetensors")
    np.save(tmp_path / "x.npy", np.ones((5, 3)))
    assert "output (5, 4)" in succeeds("run", tmp_path / "a.safetensors", tmp_path / "x.npy")


def test_more_than_a_layer(tmp_path):
    """What would be left out is named, and left out only when asked for."""
    path, out = tmp_path / "a.pt", tmp_path / "b.safetensors"
    path.write_bytes(tb.state_dict(state_dict(rnn=fl.GRU(3, 4, rng=0)) | {"fc.weight": np.ones((2, 4), "f4")}))
    np.save(tmp_path / "x.npy", np.ones((5, 3)))
    for command in (("convert", path, out), ("run", path, tmp_path / "x.npy")):
        words = fails(*command)
        assert "holds more than its recurrent layer: other tensors (fc.weight); --name rnn. takes" in words
    succeeds("convert", path, out, "--name", "rnn")  # torch's name of the module
    assert "output (5, 4)" in succeeds("run", path, tmp_path / "x.npy", "--name", "rnn.")
    assert repr(fl.load(out)) == "GRU(3, 4)"


def test_names_that_a_terminal_must_not_see(tmp_path):
    model = fl.GRU(2, 3)
    model.save(tmp_path / "a.safetensors", {"note": "\x1b[31mred\nline"})
    text = succeeds("inspect", tmp_path / "a.safetensors")
    assert "note: \\x1b[31mred\\nline" in text and "\x1b" not in text
    layer = {f"é.{name}": weight for name, weight in model.state_dict().items()}
    (tmp_path / "a.pt").write_bytes(tb.state_dict(layer))
    assert "'\\xe9.':" in succeeds("inspect", tmp_path / "a.pt", PYTHONIOENCODING="ascii")


def test_our_own_files(tmp_path):
    model = fl.Sequential(fl.Bidirectional(fl.LSTM(3, 4), fl.GRU(3, 4), "sum"), fl.Last(fl.RNN(4, 2)))
    model.save(tmp_path / "a.safetensors", {"note": "é"})
    succeeds("convert", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    text = succeeds("inspect", tmp_path / "b.safetensors", "--plan")
    assert text.startswith("Sequential(") and "merge='sum'" in text and "(backward_layer) 1 step" in text


def test_warnings_are_lines(tmp_path):
    d = fl.GRU(3, 4, rng=0).state_dict()
    d["weight_hh_l0"][0, 0] = np.nan
    save_file(d, tmp_path / "a.safetensors")
    result = fastlstm("convert", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert result.returncode == 0
    assert result.stderr.startswith("fastlstm: warning: ") and result.stderr.count("\n") == 1
    assert "NaN or infinity in weight_hh_l0" in result.stderr


def test_mistakes(checkpoint, tmp_path):
    out = tmp_path / "b.safetensors"
    good, missing = tmp_path / "good.safetensors", tmp_path / "nothing.pt"
    fl.LSTM(2, 3, peephole="i").save(good)
    for words, arguments in [
        ("3 recurrent layers; there are 'encoder.', 'decoder.', 'bad.'", (checkpoint, out)),
        ("no recurrent layer is called 'x.'", (checkpoint, out, "--name", "x.")),
        ("bad.: missing weight_ih_l0", (checkpoint, out, "--name", "bad.")),
        ("holds no dict under 'k'", (checkpoint, out, "--key", "k")),
        ("no such model", (missing, out)),
        ("the suffix must be one of .safetensors, .onnx, .pt, .pth", (good, tmp_path / "b.keras")),
        ("there is no folder", (good, tmp_path / "no" / "b.pt")),
        ("key: for dicts in a checkpoint of torch alone; this is a model of fastlstm", (good, out, "--key", "k")),
        ("batch_first: for state dicts of torch alone, which do not tell it", (good, out, "--batch-first")),
        ("neither safetensors nor", (__file__, out)),
        ("Is a directory", (tmp_path, out)),
    ]:
        assert words in fails("convert", *arguments)
        assert not out.exists()
    damaged = {
        "cut.pt": checkpoint.read_bytes()[:-30], "text.pt": b"no model", "a.onnx": b"", "b.keras": b"PK\3\4",
        "empty": b"", "a.h5": b"\x89HDF\r\n\x1a\nxxxx",
    }
    for name, data in damaged.items():
        (tmp_path / name).write_bytes(data)
        assert "cannot load" in fails("inspect", tmp_path / name)


def test_to_torch(tmp_path):
    torch = pytest.importorskip("torch")
    model = fl.LSTM(3, 4, 2, bidirectional=True, rng=0)
    model.save(tmp_path / "a.safetensors")
    succeeds("convert", tmp_path / "a.safetensors", tmp_path / "b.pt")
    module = torch.nn.LSTM(3, 4, 2, bidirectional=True)
    module.load_state_dict(torch.load(tmp_path / "b.pt", weights_only=True))
    succeeds("convert", tmp_path / "b.pt", tmp_path / "c.safetensors")
    assert (tmp_path / "c.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()
    fl.RNN(3, 4, nonlinearity="relu", batch_first=True).save(tmp_path / "a.safetensors")
    os.symlink("b.pt", tmp_path / "link.pt")
    os.chmod(tmp_path / "b.pt", 0o600)
    result = fastlstm("convert", tmp_path / "a.safetensors", tmp_path / "link.pt")
    assert result.returncode == 0 and result.stderr.count("\n") == 1, result.stderr
    assert "weights alone, by names and shapes RNN(3, 4); this was RNN(3, 4, nonlinearity='relu'," in result.stderr
    assert os.path.islink(tmp_path / "link.pt") and (tmp_path / "b.pt").stat().st_mode & 0o777 == 0o600
    assert repr(fl.from_torch(tmp_path / "b.pt")) == "RNN(3, 4)"
    assert "cannot write" in fails("convert", tmp_path / "a.safetensors", tmp_path / ("a" * 253 + ".pt"))
    with pytest.warns(UserWarning, match=r"weights alone, and does not tell which model; this was Sequential\("):
        formats.write(fl.Sequential(fl.LSTM(2, 3), fl.Linear(3, 1)), tmp_path / "c.pt")
    fl.LSTM(2, 3, peephole="i").save(tmp_path / "a.safetensors")
    before = (tmp_path / "b.pt").read_bytes()
    assert "torch has no peephole='i'" in fails("convert", tmp_path / "a.safetensors", tmp_path / "b.pt")
    assert (tmp_path / "b.pt").read_bytes() == before


# ---- ONNX, Keras ------------------------------------------------------------------------------------------------


def test_to_onnx_and_back(tmp_path):
    pytest.importorskip("onnx")
    model = fl.Sequential(fl.LSTM(3, 4, peephole="ifo", rng=0), fl.Last(fl.GRU(4, 5, rng=1)), fl.Linear(5, 2, rng=2))
    model.save(tmp_path / "a.safetensors")
    succeeds("convert", tmp_path / "a.safetensors", tmp_path / "b.onnx")
    text = succeeds("inspect", tmp_path / "b.onnx")
    assert "an ONNX graph: 2 recurrent layers" in text and "'0.l0':" in text and "'1.layer.l0':" in text
    assert "2 recurrent layers; there are '0.l0', '1.layer.l0'" in fails(
        "convert", tmp_path / "b.onnx", tmp_path / "c.safetensors"
    )
    succeeds("convert", tmp_path / "b.onnx", tmp_path / "c.safetensors", "--name", "0.l0")
    found, expected = fl.load(tmp_path / "c.safetensors").state_dict(), model[0].state_dict()
    assert all(np.array_equal(weight, expected[name]) for name, weight in found.items()) and len(found) == 5
    fl.LSTM1997(3, 4).save(tmp_path / "a.safetensors")
    before = (tmp_path / "b.onnx").read_bytes()
    assert "LSTM1997" in fails("convert", tmp_path / "a.safetensors", tmp_path / "b.onnx")
    assert (tmp_path / "b.onnx").read_bytes() == before


@pytest.mark.parametrize("make", [
    lambda: fl.LSTM(3, 4, bidirectional=True, rng=0), lambda: fl.GRU(3, 4, batch_first=True, rng=0),
    lambda: fl.Reverse(fl.RNN(3, 4, rng=0)),
])
def test_a_layer_comes_back_from_onnx(tmp_path, make):
    pytest.importorskip("onnx")
    layer, path = make(), tmp_path / "a.safetensors"
    layer.save(path)
    np.save(tmp_path / "x.npy", np.ones((5, 3)))
    succeeds("convert", path, tmp_path / "a.onnx")
    commands = ["run", "a.onnx", "x.npy"], ["inspect", "a.onnx"], ["convert", "a.onnx", "b.safetensors"]
    results = [fastlstm(command, *(tmp_path / name for name in names)) for command, *names in commands]
    assert [result.returncode for result in results] == [0, 0, 0] and "output (5, " in results[0].stdout
    assert "beyond" not in results[1].stdout
    found, expected = fl.load(tmp_path / "b.safetensors").state_dict(), layer.state_dict()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


W = ob.weights("LSTM")
LSTM = ob.node("LSTM", ["x", "W", "R", "B"], ["y", "hn", "cn"], "rnn")
SCALED = ob.node("Mul", ["W0", "two"], ["W"])
TURNED = [ob.node("Transpose", ["x"], ["x1"], perm=[1, 0, 2]), ob.node("LSTM", ["x1", "W", "R"], ["y1"], "rnn")]
STATES = [  # zeros of the batch's size, as older exporters write them
    ob.node("Shape", ["x"], ["shape"]), ob.node("Gather", ["shape", "one"], ["B"], axis=0),
    ob.node("Mul", ["B", "two"], ["rows"]), ob.node("ConstantOfShape", ["rows"], ["h"]),
    ob.node("LSTM", ["x", "W", "R", "", "", "h", "h"], ["y"], "rnn"),
]
AROUND = [  # nodes, inputs, outputs, whether the layer is all there is
    ([LSTM], ["x"], ["y"], True), ([LSTM], ["x"], ["y", "hn", "cn"], True), ([LSTM], ["x"], ["hn"], False),
    ([*TURNED, ob.node("Squeeze", ["y1", "one"], ["y"])], ["x"], ["y"], True), (STATES, ["x"], ["y"], True),
    ([LSTM, ob.node("Identity", ["hn"], ["last"])], ["x"], ["y", "last"], True),
    ([LSTM, ob.node("Relu", ["y"], ["z"])], ["x"], ["z"], False),
    ([LSTM, ob.node("Relu", ["hn"], ["z"])], ["x"], ["y", "z"], False),
    ([LSTM, ob.node("Cast", ["y"], ["z"], to=10)], ["x"], ["z"], True),
    ([LSTM, ob.node("Cast", ["y"], ["z"], to=7)], ["x"], ["z"], False),
    ([LSTM, ob.node("Gather", ["y", "one"], ["z"], axis=0)], ["x"], ["z"], False),
    ([LSTM, ob.node("Identity", ["y"], ["z"], domain="own")], ["x"], ["z"], False),
    ([ob.node("Relu", ["x0"], ["x"]), LSTM], ["x0"], ["y"], False),
    ([ob.node("Slice", ["x0", "one", "two"], ["x"]), LSTM], ["x0"], ["y"], False),
    ([ob.node("LSTM", ["", "W", "R"], ["y"], "rnn")], ["x"], ["y"], False),
    ([ob.node("LSTM", ["W", "W", "R"], ["y"], "rnn")], ["x"], ["y"], False),
    ([ob.node("LSTM", ["x", "W", "R", "", "n"], ["y"], "rnn")], ["x", "n"], ["y"], True),
    ([ob.node("LSTM", ["x", "W", "R", "", "one"], ["y"], "rnn")], ["x"], ["y"], False),
    ([LSTM, ob.node("LSTM", ["x", "W", "R"], ["z"], "b")], ["x"], ["y", "z"], False),
    ([LSTM, *(ob.node("Identity", ["y"], [f"z{n}"]) for n in range(600))], ["x"], ["y"], False),
    ([LSTM, *(ob.node("Identity", ["z"], ["z"]) for n in range(2))], ["x"], ["y"], False),
    ([LSTM, ob.node("Identity", ["z"], ["z"])], ["x"], ["y", "z"], True),
    ([SCALED, ob.node("LSTM", ["x", "W", "R"], ["y"], "rnn")], ["x"], ["y"], True),
    ([SCALED, LSTM, ob.node("Mul", ["y", "two"], ["z"])], ["x"], ["y"], False),
]


@pytest.mark.filterwarnings("ignore:.*its x comes from a Transpose")
@pytest.mark.parametrize("place", range(len(AROUND)))
def test_what_a_graph_may_compute_beyond_its_layer(tmp_path, place):
    nodes, inputs, outputs, alone = AROUND[place]
    arrays = W | {"W0": W["W"], "one": np.array([1]), "two": np.array([2.0], "f4")}
    del arrays["W" if nodes[0] == SCALED else "W0"]
    arrays = {name: array for name, array in arrays.items() if name != "B" or nodes != STATES}
    tensors = [ob.tensor(name, array) for name, array in arrays.items()]
    (tmp_path / "a.onnx").write_bytes(ob.model(ob.graph(nodes, tensors, inputs, outputs)))
    found = formats.contents(tmp_path / "a.onnx")
    assert [*found.models, *found.refused][0] == "rnn"
    assert found.rest == ("" if alone else "a graph, which may compute more")
    told = "\n".join(inspection.lines(found))
    assert ("beyond what is told here: a graph, which may compute more" in told) is not alone


@pytest.mark.parametrize("perm, layout, words", [
    ([1, 0, 2], 0, "the graph has (B, T, I) there, this layer takes (T, B, I)"), ([0, 1, 2], 0, ""), (None, 0, ""),
    ([1, 0, 2], 1, "the graph has (T, B, I) there, this layer takes (B, T, I)"),
])
def test_a_graph_with_another_order_of_axes(tmp_path, perm, layout, words):
    options = {} if perm is None else {"perm": perm}
    nodes = [ob.node("Transpose", ["x"], ["x1"], **options), ob.node("Identity", ["x1"], ["x2"])]
    nodes += [ob.node("LSTM", ["x2", "W", "R"], ["y"], "rnn", **({"layout": 1} if layout else {}))]
    tensors = [ob.tensor(name, W[name]) for name in "WR"]
    (tmp_path / "a.onnx").write_bytes(ob.model(ob.graph(nodes, tensors)))
    result = fastlstm("inspect", tmp_path / "a.onnx")
    assert result.returncode == 0 and "LSTM(3, 4" in result.stdout
    lines = result.stderr.splitlines()
    assert len(lines) == bool(words) and all(words in line for line in lines)


def test_from_keras(tmp_path):
    source = DATA / "keras_sample.keras"
    assert "a model of Keras: 1 model" in succeeds("inspect", source)
    succeeds("convert", source, tmp_path / "a.safetensors")
    assert repr(fl.load(tmp_path / "a.safetensors")) == repr(fl.from_keras(source))
    words = fails("convert", source, tmp_path / "b.safetensors", "--key", "k")
    assert "key: for dicts in a checkpoint of torch alone; this is Keras" in words


def test_what_is_told_of_things_that_were_not_read():
    things = {"a": formats.Described((2, 3), "float32"), "b": formats.Described("", "a list of 4")}
    found = formats.Contents("torch", {}, {}, things, keys={"net": "3 tensors"})
    told = inspection.described(found)
    assert told["others"] == {"a": {"shape": [2, 3], "dtype": "float32"}, "b": {"shape": "", "dtype": "a list of 4"}}
    assert told["keys"] == {"net": "3 tensors"}
    assert json.loads(json.dumps(told)) == told
    lines = "\n".join(inspection.lines(found._replace(keys={})))
    assert "(2, 3)" in lines and "a list of 4" in lines
