"""from_torch on state dicts and files: one recurrent layer from names and shapes, everything else refused by name."""

import json
import tracemalloc

import numpy as np
import pytest
import torch_bytes as tb
from safetensors.numpy import save_file

import fastlstm as fl
from fastlstm import FileFormatError

LAYERS = {
    "LSTM": lambda **o: fl.LSTM(3, 5, rng=0, **o), "GRU": lambda **o: fl.GRU(3, 5, rng=0, **o),
    "RNN": lambda **o: fl.RNN(3, 5, rng=0, **o), "one unit": lambda **o: fl.GRU(1, 1, rng=0, **o),
    "stack": lambda **o: fl.LSTM(4, 7, 3, bidirectional=True, rng=0, **o),
    "no bias": lambda **o: fl.GRU(3, 5, 2, bias=False, rng=0, **o),
    "projected": lambda **o: fl.LSTM(3, 6, 2, proj_size=2, bidirectional=True, rng=0, **o),
    "projected to one": lambda **o: fl.LSTM(3, 4, proj_size=1, rng=0, **o),
}
each_layer = pytest.mark.parametrize("name", LAYERS)


def equal(model, other):
    assert repr(model) == repr(other)
    ours, theirs = model.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    assert all(ours[name].dtype == theirs[name].dtype for name in ours)
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)


@each_layer
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("prefix", ["", "encoder.lstm."])
@pytest.mark.parametrize("kind", ["dict", ".pt", ".safetensors"])
def test_the_layer_there_was(name, dtype, prefix, kind, tmp_path):
    layer = LAYERS[name](dtype=dtype)
    d = {prefix + name: weight for name, weight in layer.state_dict().items()}
    if prefix:
        d |= {"head.weight": np.ones((2, 5), dtype), "encoder.lstm_2.weight_hh_l0": np.ones(3, dtype)}
    source = d if kind == "dict" else tmp_path / ("a" + kind)
    if kind == ".pt":
        source.write_bytes(tb.state_dict(d))
    elif kind == ".safetensors":
        save_file(d, source)
    equal(fl.from_torch(source, prefix), layer)


def test_arguments():
    d = fl.RNN(3, 5, rng=0).state_dict()
    equal(fl.from_torch(d, nonlinearity="relu", batch_first=True, dropout=0.5),
          fl.RNN(3, 5, nonlinearity="relu", batch_first=True, dropout=0.5, rng=0))
    equal(fl.from_torch({name.removesuffix("_l0"): weight for name, weight in d.items()}), fl.RNN(3, 5, rng=0))


def test_half_becomes_single():
    d = {name: weight.astype("f2") for name, weight in fl.GRU(3, 5, rng=0).state_dict().items()}
    model = fl.from_torch(d)
    assert model.dtype == "float32"
    assert all(np.array_equal(weight, d[name]) for name, weight in model.state_dict().items())


def test_a_key_of_a_file(tmp_path):
    layer = LAYERS["stack"]()
    path = tmp_path / "a.pt"
    path.write_bytes(tb.state_dict({"lstm." + n: w for n, w in layer.state_dict().items()}))
    with pytest.raises(FileFormatError, match="holds no dict under 'state_dict'"):
        fl.from_torch(path, "lstm.", key="state_dict")
    equal(fl.from_torch(str(path), "lstm."), layer)
    equal(fl.from_torch(path.read_bytes(), "lstm."), layer)


def edited(change, make=LAYERS["stack"]):
    d = make().state_dict()
    change(d)
    return d


def put(name, value):
    return lambda d: d.update({name: value})


def apply(name, function):
    return lambda d: d.update({name: function(d[name])})


REFUSED = {
    "missing": (lambda d: d.pop("bias_hh_l1"), r"missing bias_hh_l1, expected shape \(28,\)"),
    "missing first": (lambda d: d.pop("weight_ih_l0"), "missing weight_ih_l0"),
    "missing direction": (lambda d: d.pop("weight_hh_l1_reverse"), "missing weight_hh_l1_reverse"),
    "missing layer": (
        lambda d: [d.pop(n) for n in list(d) if "_l1" in n], "missing weight_ih_l1.*unexpected weight_ih_l2",
    ),
    "extra": (put("scale", np.ones(3, "f4")), "unexpected scale"),
    "extra layer": (put("weight_ih_l7", np.ones((2, 3), "f4")), "unexpected weight_ih_l7"),
    "transposed input": (apply("weight_ih_l0", np.transpose), r"weight_ih_l0 .*\(4, 28\), expected .*transposed"),
    "transposed deeper": (
        apply("weight_ih_l2", np.transpose), r"weight_ih_l2 .*\(14, 28\), expected \(28, 14\), which is transposed",
    ),
    "transposed recurrent": (apply("weight_hh_l0", np.transpose), r"weight_hh_l0 has shape \(7, 28\)"),
    "rows": (apply("weight_hh_l1", lambda w: w[:-1]), r"weight_hh_l1 has shape \(27, 7\), expected \(28, 7\)"),
    "rows of the first": (apply("weight_hh_l0", lambda w: w[:-1]), r"weight_hh_l0 has shape \(27, 7\)"),
    "two gates": (apply("weight_hh_l0", lambda w: w[:14]), "as many rows as hidden units"),
    "bias": (apply("bias_ih_l0", lambda b: b[None]), r"bias_ih_l0 has shape \(1, 28\), expected \(28,\)"),
    "no matrix": (apply("weight_hh_l0", lambda w: w[0]), r"weight_hh_l0 has shape \(7,\), expected a matrix"),
    "empty": (apply("weight_hh_l0", lambda w: w[:0]), r"weight_hh_l0 has shape \(0, 7\), expected a matrix"),
    "integers": (apply("bias_ih_l0", lambda b: b.astype(int)), "bias_ih_l0 holds int64, expected float16"),
    "mixed": (apply("bias_ih_l0", lambda b: b.astype("f8")), "mix float32 and float64"),
    "list": (put("bias_ih_l0", [1.0] * 28), "bias_ih_l0 holds None"),
    "no layer": (lambda d: (d.clear(), d.update({"weight": np.ones((2, 3), "f4")})), "no weight_hh_l0 in it"),
    "nothing": (lambda d: d.clear(), "no weight_hh_l0 in it"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name, tmp_path):
    change, words = REFUSED[name]
    d = edited(change)
    with pytest.raises(ValueError, match=words):
        fl.from_torch(d)
    if name == "list":
        return
    path = tmp_path / "a.pt"
    path.write_bytes(tb.state_dict({n: np.ascontiguousarray(w) for n, w in d.items()}))
    with pytest.raises(FileFormatError, match=words) as caught:
        fl.from_torch(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_gru_cannot_have_a_projection():
    d = LAYERS["projected"]().state_dict()
    d |= {name: w[: len(w) * 3 // 4] for name, w in d.items() if "weight_hr" not in name}
    with pytest.raises(ValueError, match=r"weight_hh_l0 has shape \(18, 2\), with 6 hidden units"):
        fl.from_torch(d)


def test_prefixes_are_told():
    d = {f"{place}.{n}": w for place in ("a", "b.c") for n, w in fl.GRU(2, 3, rng=0).state_dict().items()}
    with pytest.raises(ValueError, match=r"prefix= may be 'a\.' or 'b\.c\.'"):
        fl.from_torch(d)
    with pytest.raises(ValueError, match=r"no name starts with 'd\.'; there are 'a\.', 'b\.c\.'"):
        fl.from_torch(d, "d.")
    equal(fl.from_torch(d, "b.c."), fl.GRU(2, 3, rng=0))


def test_arguments_that_do_not_belong(tmp_path):
    d = fl.GRU(2, 3).state_dict()
    for error, words, call in [
        (ValueError, "nonlinearity is for an RNN, these are the weights of a GRU",
         lambda: fl.from_torch(d, nonlinearity="relu")),
        (ValueError, "key is for a file", lambda: fl.from_torch(d, key="state_dict")),
        (TypeError, "prefix must be a string, got int", lambda: fl.from_torch(d, 3)),
        (TypeError, "a key that is no string", lambda: fl.from_torch({3: 4})),
        (FileNotFoundError, "nowhere", lambda: fl.from_torch(tmp_path / "nowhere")),
    ]:
        with pytest.raises(error, match=words):
            call()


def test_not_finite_is_told(tmp_path):
    d = edited(lambda d: d["weight_ih_l1"].__setitem__((0, 0), np.nan))
    with pytest.warns(RuntimeWarning, match="from_torch: NaN or infinity in weight_ih_l1"):
        fl.from_torch(d)
    (tmp_path / "a.pt").write_bytes(tb.state_dict(d))
    with pytest.warns(RuntimeWarning, match=r"a\.pt: NaN or infinity in weight_ih_l1$"):
        fl.from_torch(tmp_path / "a.pt")


def test_safetensors_that_are_none(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(fl.GRU(2, 3, rng=0).state_dict(), path)
    data = path.read_bytes()
    for cut in (9, 40, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(FileFormatError, match=r"a\.safetensors: "):
            fl.from_torch(path)
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match="holds no dict under 'x'"):
        fl.from_torch(path, key="x")


def test_bfloat16_in_safetensors(tmp_path):
    bits = {name: weight.view(np.uint32) >> 16 for name, weight in fl.GRU(3, 4, rng=0).state_dict().items()}
    save_file({f"a.{name}": b.astype(np.uint16) for name, b in bits.items()}, tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    fixed = json.dumps(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")].replace(b'"U16"', b'"BF16"')))
    body = data[8 + int.from_bytes(data[:8], "little") :]
    (tmp_path / "a.safetensors").write_bytes(len(fixed).to_bytes(8, "little") + fixed.encode() + body)
    model = fl.from_torch(tmp_path / "a.safetensors", "a")
    for name, weight in model.state_dict().items():
        np.testing.assert_array_equal(weight.view(np.uint32), bits[name] << 16)


@pytest.mark.parametrize("kind, dtype, times", [
    (".pt", "f4", 1.4), (".safetensors", "f4", 1.2), (".pt", "f2", 2.7), (".safetensors", "f2", 2.7),
])
def test_memory_of_a_file(kind, dtype, times, tmp_path):
    """What is read becomes the layer's, uncopied; of another type it goes when it has been converted."""
    d, path = fl.LSTM(500, 500, rng=0).state_dict(), tmp_path / ("a" + kind)
    d = {name: weight.astype(dtype) for name, weight in d.items()}
    path.write_bytes(tb.state_dict(d)) if kind == ".pt" else save_file(d, path)
    fl.from_torch(path)
    tracemalloc.start()
    try:
        fl.from_torch(path)
        assert tracemalloc.get_traced_memory()[1] < times * path.stat().st_size
    finally:
        tracemalloc.stop()


def test_a_tensor_that_is_two(tmp_path):
    """Weights tied in the file are the layer's own all the same."""
    square = np.ones((5, 5), "f4")
    d = {"weight_ih_l0": square, "weight_hh_l0": square, "bias_ih_l0": np.ones(5, "f4"), "bias_hh_l0": np.ones(5, "f4")}
    (tmp_path / "a.pt").write_bytes(tb.state_dict(d))
    for source in (d, tmp_path / "a.pt"):
        model = fl.from_torch(source)
        model._update({"weight_ih_l0": np.zeros((5, 5), "f4")})
        assert model.state_dict()["weight_hh_l0"].all() and square.all()


def test_bias_of_one_kind():
    d = fl.GRU(3, 4).state_dict()
    del d["bias_ih_l0"]
    with pytest.raises(ValueError, match="missing bias_ih_l0"):
        fl.from_torch(d)


# ---- with torch -------------------------------------------------------------------------------------------------


def test_what_torch_holds():
    torch = pytest.importorskip("torch")
    module = torch.nn.ModuleDict({"rnn": torch.nn.LSTM(3, 4, 2, proj_size=2), "head": torch.nn.Linear(2, 1)})
    for source in (module, module.state_dict()):
        equal(fl.from_torch(source, "rnn."), fl.from_torch(module["rnn"]))
    with pytest.raises(ValueError, match=r"ModuleDict has no module 'lstm\.'; there are 'rnn\.'"):
        fl.from_torch(module, "lstm.")
    with pytest.raises(ValueError, match="batch_first cannot be given with a module"):
        fl.from_torch(module["rnn"], batch_first=True)
    assert fl.from_torch(module.half().state_dict(), "rnn.").dtype == "float32"
    half = module.bfloat16()
    found = fl.from_torch(half.state_dict(), "rnn").state_dict()
    assert all(np.array_equal(w, half["rnn"].state_dict()[n].float().numpy()) for n, w in found.items())
    with pytest.raises(TypeError, match="source must be a torch.nn.Module, .* a binary file object, got int"):
        fl.from_torch(3)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"])
def test_files_of_torch(kind, tmp_path):
    torch = pytest.importorskip("torch")
    module = getattr(torch.nn, kind)(3, 5)
    torch.save({"epoch": 3, "state_dict": {"a.b." + n: w for n, w in module.state_dict().items()}}, tmp_path / "a.pt")
    equal(fl.from_torch(tmp_path / "a.pt", "a.b.", key="state_dict"), fl.from_torch(module))
