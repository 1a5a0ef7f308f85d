"""Files made to cost much: what reading them costs grows with their size and no faster. Work is counted, not timed."""

import itertools
import json
import struct
import tracemalloc

import numpy as np
import onnx_bytes as ob
import pytest
from grids import traced

import fastlstm as fl
from fastlstm.convert import onnx_nodes, onnx_values
from fastlstm.files import FileFormatError


def lines_run(function):
    """How many lines of the package are run by a call."""
    count = 0

    def inside(frame, event, _):
        nonlocal count
        count += event == "line"
        return inside

    def outside(frame, event, argument):
        return inside(frame, event, argument) if "fastlstm" in frame.f_code.co_filename else None

    traced(outside, function)
    return count


def grows_with_size(make, function, sizes=(200, 400)):
    """Whether twice the size costs about twice the work."""
    counts = []
    for size in sizes:
        thing = make(size)
        function(thing)  # whatever is done once
        counts.append(lines_run(lambda thing=thing: function(thing)))
    return counts[1] < 2.3 * counts[0]


# ---- safetensors ------------------------------------------------------------------------------------------------


def described(description, tensors=(), **metadata):
    """A file with a description of a model. tensors: name -> float32 array."""
    entries, data = {"__metadata__": {
        "format": "fastlstm", "version": "1", "model": json.dumps(description), **metadata}}, b""
    for name, array in dict(tensors).items():
        entries[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def chain(count, **config):
    one = {"class": "Linear", "config": {"in_features": 1, "out_features": 1, "bias": False, **config}}
    return {"class": "Sequential", "config": {"modules": [one] * count}}


@pytest.mark.parametrize("description", [
    chain(20_000), {"class": "Sequential", "config": {"modules": [chain(200)] * 100}},
    {"class": "Sequential", "config": {"modules": [{"class": "LSTM", "config": {"input_size": 1, "hidden_size": 1}}]
                                       * 20_000}},
])
def test_more_members_than_tensors(tmp_path, description):
    path = tmp_path / "a"
    path.write_bytes(described(description, {"0.weight": np.ones((1, 1), "f4")}))
    with pytest.raises(FileFormatError, match="more members than 1 tensors can belong to"):
        fl.load(path)


def test_deep_models_have_their_members(tmp_path):
    """Containers own no tensor, and may be as many as they are."""
    model = fl.Linear(1, 1, bias=False)
    for _ in range(60):
        model = fl.Sequential(model)
    model = fl.Sequential(*(fl.Sequential(fl.Sequential(fl.Linear(1, 1, bias=False))) for _ in range(900)), model)
    model.save(tmp_path / "a")
    assert fl.load(tmp_path / "a").describe() == model.describe()


def sequential_file(folder):
    def make(count):
        path = folder / f"{count}"
        path.write_bytes(described(chain(count), {f"{n}.weight": np.ones((1, 1), "f4") for n in range(count)}))
        return path
    return make


def nested_file(folder):
    """A chain of chains of half the members, whose first member is the largest."""
    def make(count):
        model = fl.Sequential(*(fl.Linear(1, 1, bias=False, rng=0) for _ in range(count // 2)))
        path = folder / f"{count}"
        fl.Sequential(model, *(fl.Linear(1, 1, bias=False, rng=0) for _ in range(count // 2))).save(path)
        return path
    return make


@pytest.mark.parametrize("make", [sequential_file, nested_file])
def test_long_chains(tmp_path, make):
    assert grows_with_size(make(tmp_path), fl.load)


@pytest.mark.parametrize("what", ["state_dict", "copy", "backward"])
def test_calls_of_long_chains(what):
    def call(model):
        if what == "backward":
            y, _, cache = model.forward(np.ones((1, 1, 1), "f4"), cache=True)
            model.backward(y, cache)
        elif what == "copy":
            model.__deepcopy__({})
        else:
            model.load_state_dict(model.state_dict())

    assert grows_with_size(lambda n: fl.Sequential(*(fl.Linear(1, 1, rng=0) for _ in range(n))), call, (100, 200))


NOTES = {
    "keys": lambda: described(chain(1), **{f"{n:x}": "" for n in range(20_000)}),
    "empty tensors": lambda: described(chain(1), {f"{n:x}": np.ones((0,), "f4") for n in range(20_000)}),
    "axes": lambda: described(chain(1), {"a": np.ones((1,) * 32, "f4")}),
    "members": lambda: described(chain(20_000)),
}


@pytest.mark.parametrize("name", NOTES)
def test_memory_of_a_header(tmp_path, name):
    """No more than the promise of `load`: the file, 30 times its header, 10 kB for each layer."""
    path, data = tmp_path / "a", NOTES[name]()
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError):
            fl.load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < len(data) + 30 * (8 + struct.unpack("<Q", data[:8])[0]) + 200_000


# ---- ONNX -------------------------------------------------------------------------------------------------------


def identities(names):
    return [ob.node("Identity", [a], [b]) for a, b in itertools.pairwise(names)]


def onnx_file(folder, nodes, tensors):
    path = folder / "a.onnx"
    path.write_bytes(ob.model(ob.graph(nodes, [ob.tensor(name, array) for name, array in tensors.items()])))
    return path


@pytest.mark.parametrize("order", [1, -1])
def test_chains_of_identity(tmp_path, monkeypatch, order):
    """In any order, whatever their length, and the graph is walked no more often for them."""
    arrays, walks, real = ob.weights("RNN"), [], onnx_nodes.fields
    for module in (onnx_nodes, onnx_values):
        monkeypatch.setattr(module, "fields", lambda *given, **more: walks.append(given[1]) or real(*given, **more))
    for length in (1, 3, 300):
        nodes = identities([f"w{n}" for n in range(length + 1)])[::order]
        nodes.append(ob.node("RNN", ["x", f"w{length}", "R"], ["y"]))
        walks.clear()
        found = fl.from_onnx(onnx_file(tmp_path, nodes, {"w0": arrays["W"], "R": arrays["R"]}))
        assert np.array_equal(found["y"].state_dict()["weight_ih_l0"], arrays["W"][0])
        largest = max(walks, key=lambda span: span[1] - span[0])
        assert walks.count(largest) <= 3  # for nodes, for names, for the first node when its name is looked up


def test_work_for_chains_of_identity(tmp_path):
    arrays = ob.weights("RNN")

    def make(length):
        nodes = identities([f"w{n}" for n in range(length + 1)])
        nodes.append(ob.node("RNN", ["x", f"w{length}", "R"], ["y"]))
        return onnx_file(tmp_path, nodes, {"w0": arrays["W"], "R": arrays["R"]})

    assert grows_with_size(make, fl.from_onnx)


def test_chains_of_identity_that_share_their_nodes(tmp_path):
    """They are followed for each name, so their steps are bounded by the number of nodes."""
    arrays = ob.weights("RNN")
    tensors = {"w0": arrays["W"], "R": arrays["R"]}

    def nodes(length, count):
        ends = [ob.node("Identity", [f"w{length}"], [f"v{n}"]) for n in range(count)]
        layers = [ob.node("RNN", ["x", f"v{n}", "R"], [f"y{n}"]) for n in range(count)]
        return [*identities([f"w{n}" for n in range(length + 1)]), *ends, *layers]

    assert len(fl.from_onnx(onnx_file(tmp_path, nodes(20, 50), tensors))) == 50
    with pytest.raises(FileFormatError, match="looks up too many names that others share"):
        fl.from_onnx(onnx_file(tmp_path, nodes(2000, 50), tensors))


def test_an_identity_chain_through_graphs(tmp_path):
    """Each graph gives a part of the chain."""
    arrays = ob.weights("RNN")
    inner = [ob.node("Identity", ["w2"], ["w3"]), ob.node("RNN", ["x", "w3", "R"], ["y"], "deep")]
    outer = [*identities(["w0", "w1", "w2"]), ob.node("If", ["c"], ["y"], then_branch=ob.Graph(ob.graph(inner)))]
    found = fl.from_onnx(onnx_file(tmp_path, outer, {"w0": arrays["W"], "R": arrays["R"]}))["deep"]
    assert np.array_equal(found.state_dict()["weight_ih_l0"], arrays["W"][0])


def test_names_with_one_hash_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_values, "hash", lambda _: 7, raising=False)
    arrays = ob.weights("RNN")
    nodes = [*identities(["w0", "w1", "w2"]), *identities(["r0", "r1", "r2"])]
    nodes.append(ob.node("RNN", ["x", "w2", "r2"], ["y"]))
    found = fl.from_onnx(onnx_file(tmp_path, nodes, {"w0": arrays["W"], "r0": arrays["R"]}))["y"].state_dict()
    assert np.array_equal(found["weight_hh_l0"], arrays["R"][0])


# ---- Keras ------------------------------------------------------------------------------------------------------


def keras_file(folder, ending, texts=bytes):
    """A chain of dense layers. texts: bytes or str, of which h5py makes fixed or variable lengths."""
    kb, h5py = pytest.importorskip("keras_bytes"), pytest.importorskip("h5py")

    def change(file):
        if texts is str:
            for group in (file["model_weights"], *file["model_weights"].values()):
                for name, value in list(group.attrs.items()):
                    words = [str(one, "ascii") if isinstance(one, bytes) else one for one in value]
                    group.attrs[name] = np.array(words, h5py.string_dtype())

    def make(count):
        layers = [kb.layer("Dense", f"dense_{n}" if n else "dense", units=1) for n in range(count)]
        options = {"change": change} if ending == ".h5" else {}
        path = folder / f"{count}{ending}"
        path.write_bytes(kb.written(ending, layers, kb.weights(*layers), **options))
        return path
    return make


@pytest.mark.parametrize("ending, texts", [(".h5", bytes), (".h5", str), (".keras", bytes)])
def test_chains_of_keras(tmp_path, ending, texts):
    assert grows_with_size(keras_file(tmp_path, ending, texts), fl.from_keras, (50, 100))


@pytest.mark.parametrize("ending, texts", [(".h5", str), (".keras", bytes)])
def test_a_thousand_layers_of_keras(tmp_path, ending, texts):
    assert len(fl.from_keras(keras_file(tmp_path, ending, texts)(1000))) == 1000


def test_models_inside_models_of_keras(tmp_path):
    """Their tensors are in one group, whatever the number of their layers."""
    kb = pytest.importorskip("keras_bytes")
    pytest.importorskip("h5py")

    def make(count):
        layers = [kb.layer("Dense", f"dense_{n}", units=1) for n in range(count)]
        arrays = kb.weights(*layers)

        def change(file):
            group = file["model_weights"]
            inner = group.create_group("inner")
            for name, own in arrays.items():
                for key, array in own.items():
                    inner[f"{name}/{key}:0"] = array
            inner.attrs["weight_names"] = [f"{name}/{key}:0" for name, own in arrays.items() for key in own]
            group.attrs["layer_names"] = ["inner"]

        path = tmp_path / f"{count}.h5"
        path.write_bytes(kb.h5(kb.sequential(kb.sequential(*layers, name="inner")), {}, change=change))
        return path

    assert len(fl.from_keras(make(10))) == 10
    assert grows_with_size(make, fl.from_keras, (50, 100))
