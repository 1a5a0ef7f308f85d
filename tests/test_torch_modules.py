"""Modules that torch pickled whole, keys of several steps, Lightning's checkpoints; parts of files of which no more is
read; and files made to cost much."""

import io
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch_bytes as tb
from command_line import fails
from test_torch_files import check

import fastlstm as fl
from fastlstm.convert import formats, inspection, torch_contents, torch_files, torch_pickle
from fastlstm.files import FileFormatError

DATA = Path(__file__).resolve().parent / "data"
LSTM = ("torch.nn.modules.rnn", "LSTM")


@pytest.fixture
def written(tmp_path):
    """The path of a file with a value in it; entries as of `torch_bytes.archive`."""

    def written(value, entries=None):
        (tmp_path / "a.pt").write_bytes(tb.archive(value, entries))
        return tmp_path / "a.pt"

    return written


def layer(units=1, inputs=1, start=0, stored=None):
    """Parameters of an LSTM by hand, one after the other in a storage."""
    shapes = {"weight_ih_l0": (4 * units, inputs), "weight_hh_l0": (4 * units, units), "bias_ih_l0": (4 * units,),
              "bias_hh_l0": (4 * units,)}
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    stored, found = stored or tb.storage(numel=sum(sizes.values())), {}
    for name, shape in shapes.items():
        found[name] = tb.tensor(stored, start, shape, (shape[1], 1) if len(shape) == 2 else (1,))
        start += sizes[name]
    return found


NUMBERS = {"0": np.arange(16, dtype="f4").tobytes()}


def lstm(**attributes):
    return tb.module(layer(), cls=LSTM, **attributes)


# ---- whole modules, by hand -------------------------------------------------------------------------------------


def test_names_of_a_module(written):
    """Parameters, buffers that are kept, children; in torch's order."""
    one = tb.tensor(tb.storage(numel=16), 3, (1,), (1,))
    root = tb.module({"w": one, "none": None}, {"lstm": lstm(), "gone": None, "inner": tb.module({"v": one})},
                     buffers={"kept": one, "dropped": one, "none": None},
                     _non_persistent_buffers_set=tb.Call("builtins", "set", ["dropped"]), other={"x": one})
    found = fl.read_torch(written(root, NUMBERS))
    names = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
    assert list(found) == ["w", "kept", *(f"lstm.{name}" for name in names), "inner.v"]
    assert found["w"] is found["inner.v"] and found["w"] == 3 and found["lstm.weight_hh_l0"][1, 0] == 5
    assert list(fl.read_torch(written({"a": [root]}, NUMBERS), "a.0.inner")) == ["v"]
    assert fl.from_torch(written({"a": [root]}, NUMBERS), "lstm", key="a.0").hidden_size == 1


def test_what_a_layer_tells(written):
    told = {"batch_first": True, "dropout": 0.25, "training": False, "mode": "LSTM"}
    rnn = tb.module({n: tb.tensor(tb.storage(numel=16), 0, (1, 1) if "weight" in n else (1,), (1, 1)[: 1 + ("w" in n)])
                     for n in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")},
                    cls=("torch.nn.modules.rnn", "RNN"), mode="RNN_RELU", dropout=0)
    path = written({"m": tb.module({}, {"lstm": lstm(**told), "rnn": rnn})}, NUMBERS)
    model = fl.from_torch(path, "lstm.", key="m")
    assert (model.batch_first, model.dropout, model.training) == (True, 0.25, False)
    model = fl.from_torch(path, "lstm", key="m", batch_first=False, dropout=0.5)
    assert (model.batch_first, model.dropout, model.training) == (False, 0.5, False)
    assert fl.from_torch(path, "rnn", key="m").nonlinearity == "relu"
    assert fl.from_torch(path, "rnn", key="m", nonlinearity="tanh").nonlinearity == "tanh"
    assert fl.from_torch(path, key="m.lstm").batch_first
    assert formats.contents(path, key="m").models["lstm."].batch_first
    assert not formats.contents(path, key="m").models["lstm."].training


@pytest.mark.parametrize("attributes", [
    {"batch_first": 1, "dropout": "x", "training": None, "nonlinearity": "tanh"}, {"dropout": 7.0}, {"dropout": True},
    {"dropout": float("nan")}, {"batch_first": tb.Call("os", "system", "touch executed"), "mode": "RNN_RELU"},
])
def test_what_no_layer_of_torch_tells(written, attributes):
    """Values of other types, and layers of classes that are not torch's own."""
    model = fl.from_torch(written(lstm(**attributes), NUMBERS))
    assert (model.batch_first, model.dropout) == (False, 0.0)
    for cls in [("mine", "LSTM"), ("torch.nn.modules.rnn", "Mine")]:
        module = tb.module(layer(), cls=cls, batch_first=True)
        assert not fl.from_torch(written(module, NUMBERS)).batch_first


def test_objects_that_hold_modules(written):
    """torch.compile's module names the one inside; a graph of torch.fx is pickled by a call on its attributes."""
    inner = {"_parameters": layer(), "_modules": {}, "_buffers": {}}
    for value, prefix in [
        (tb.Call("torch._dynamo.eval_frame", "OptimizedModule", lstm(), None), "_orig_mod."),
        (tb.Call("torch.fx.graph_module", "reduce_graph_module", inner, "import torch"), ""),
        (tb.Made("mine", "Slotted", (inner, {"slot": 1})), ""), (tb.Made("mine", "Slotted", (None, inner)), ""),
        (tb.Call("copy_reg", "_reconstructor", tb.Global("m", "C"), tb.Global("builtins", "object"), None), None),
    ]:
        path = written(value, NUMBERS)
        if prefix is None:
            with pytest.raises(FileFormatError, match=r"holds a m\.C, expected a state dict$"):
                fl.read_torch(path)
        else:
            assert fl.from_torch(path, prefix).hidden_size == 1


def test_a_child_that_is_no_module_is_named(written):
    odd = tb.Call("torch.jit", "ScriptModule", 1)
    path = written(tb.module({}, {"lstm": lstm(), "odd": odd}), NUMBERS)
    assert fl.from_torch(path, "lstm.").hidden_size == 1
    with pytest.raises(FileFormatError, match=r"'odd' is a torch\.jit\.ScriptModule.*\.state_dict\(\).items\(\)"):
        fl.read_torch(path)


# ---- keys -------------------------------------------------------------------------------------------------------


def test_keys_of_several_steps(written):
    one = [{f"w{n}": tb.tensor(tb.storage(numel=16), n, (1,), (1,))} for n in range(9)]
    value = {
        "net": {"enc": one[0], "a.b": one[1], "a": {"b": one[2], "c": {"d": one[3]}, "c.d": 4}, 3: one[4]},
        "list": [one[5], (one[6],)], "object": tb.Made("m", "C", {"x": one[7]}),
    }
    path = written(value, NUMBERS)
    for key, name in {"net.enc": "w0", "net.a.b": "w1", "net.3": "w4", "list.0": "w5", "list.1.0": "w6",
                      "object.x": "w7"}.items():
        assert list(fl.read_torch(path, key)) == [name], key
    path = written(value | {"net.enc": one[8]}, NUMBERS)
    assert list(fl.read_torch(path, "net.enc")) == ["w8"]
    for key in ("net.dec", "list.2", "list.-1", "list.x", "net.enc.w", "", ".", "net.", "list.99999999999", "net.²",
                "net.a.c.d"):
        with pytest.raises(FileFormatError, match="holds no dict under|expected a state dict"):
            fl.read_torch(path, key)


def test_hints(written):
    """What the key may be: all with recurrent layers, or all with tensors."""
    one = {"w": tb.tensor(tb.storage(numel=16), 0, (1,), (1,))}
    value = {"epoch": 3, "net": {"enc": layer(), "dec": one}, "ema": [lstm()], "opt": {"state": {0: one}}}
    path = written(value, NUMBERS)
    hint = r"; key= may be 'net\.enc' or 'ema\.0'$"
    for call, words in [
        (lambda: fl.from_torch(path), "no weight_hh_l0 in it"), (lambda: fl.read_torch(path), "'epoch' is a number"),
        (lambda: fl.from_torch(path, "lstm"), "no name starts with 'lstm'"),
        (lambda: fl.read_torch(path, "x"), "holds no dict under 'x'"),
        (lambda: fl.read_torch(written([value], NUMBERS)), "holds a list"),
    ]:
        with pytest.raises(FileFormatError, match=words + ".*" + (hint if "list" not in words else "'0.net.enc'")):
            call()
    with pytest.raises(FileFormatError, match="key= may be 'net'$"):
        fl.from_torch(written({"net": one, "epoch": 3}, NUMBERS))
    with pytest.raises(FileFormatError, match="no weight_hh_l0 in it, so no recurrent layer of torch$"):
        fl.from_torch(written({"net": one, "epoch": 3}, NUMBERS), key="net")


def test_keys_below_a_key(written):
    """Where a key names a dict of state dicts, their keys are listed in full."""
    value = {"net": {"enc": layer(), "dec": layer()}, "epoch": 3}
    path = written(value, NUMBERS)
    with pytest.raises(FileFormatError, match=r"no weight_hh_l0 in it.*; key= may be 'net\.enc' or 'net\.dec'$"):
        fl.from_torch(path, key="net")
    with pytest.raises(FileFormatError, match=r"--key may be 'net\.enc' or 'net\.dec'$"):
        formats.only_model(path, key="net")
    assert list(formats.contents(path, key="net").keys) == ["net.enc", "net.dec"]
    assert formats.only_model(path, key="net.enc").hidden_size == 1


def test_inspect_of_a_list_and_of_a_dict_of_dicts(written):
    path = written([layer(), {"enc." + name: tensor for name, tensor in layer().items()}], NUMBERS)
    text = "\n".join(inspection.lines(formats.contents(path)))
    assert "  0  4 tensors, of a recurrent layer\n  1  4 tensors, recurrent layers 'enc.'" in text
    assert formats.only_model(path, key="0").hidden_size == 1
    with pytest.raises(FileFormatError, match="--key may be '0' or '1'$"):
        formats.only_model(path)
    with pytest.raises(FileFormatError, match="holds a list, expected a state dict"):
        formats.contents(written([3], NUMBERS))
    assert "--key may be '0'" in fails("inspect", written([layer()], NUMBERS), "--key", "9")
    found = formats.contents(written({"net": {"enc": layer()}, "netto": 3}, NUMBERS))
    assert "\n".join(inspection.lines(found)).endswith("beside them: 'netto'")


@pytest.mark.parametrize("place", ["", "a."])
@pytest.mark.parametrize("ends, remove", [
    (["_g", "_v"], "remove_weight_norm"), (["_orig", "_u"], "remove_spectral_norm"), (None, "remove_parametrizations"),
])
def test_weights_that_are_made_of_others(written, place, ends, remove):
    """The command line gives the reason, too; what the weights are made of is no tensor of something else."""
    d = dict(layer())
    weight = d.pop("weight_hh_l0")
    made = [f"weight_hh_l0{end}" for end in ends] if ends else ["parametrizations.weight_hh_l0.original0"]
    path = written({place + name: tensor for name, tensor in (d | dict.fromkeys(made, weight)).items()}, NUMBERS)
    found = formats.contents(path)
    assert list(found.refused) == [place] and remove in found.refused[place] and not found.others
    with pytest.raises(FileFormatError, match=rf"its weight_hh_l0 is made of .*{remove}"):
        formats.only_model(path)


def test_names_of_layers_are_told(written):
    path = written({f"{place}.{name}": tensor for place in ("enc", "dec") for name, tensor in layer().items()}, NUMBERS)
    with pytest.raises(FileFormatError, match=r"2 recurrent layers; there are 'enc\.', 'dec\.'; --name takes one"):
        formats.only_model(path)
    with pytest.raises(FileFormatError, match=r"is called 'foo'; the only one has no name, so leave out --name"):
        formats.only_model(written(layer(), NUMBERS), name="foo")
    one = {"w": tb.tensor(tb.storage(numel=16), 0, (1,), (1,))}
    with pytest.raises(FileFormatError, match=r"holds no recurrent layer, but other tensors \(w\)"):
        formats.only_model(written(one, NUMBERS))


def test_prefix(written):
    value = {"a.lstm." + n: t for n, t in layer().items()} | {"b": tb.Call("os", "system", "x"), 3: 4}
    path = written({"sd": value}, NUMBERS)
    whole = fl.read_torch(path, "sd", "a.lstm.")
    assert list(whole) == list(layer()) == list(fl.read_torch(path, "sd", "a.lstm"))
    assert list(fl.read_torch(path, "sd", "a.l")) == [f"stm.{name}" for name in layer()]
    with pytest.raises(FileFormatError, match=r"no name starts with 'c'; there are 'a\.lstm\.'"):
        fl.read_torch(path, "sd", "c")
    with pytest.raises(TypeError, match="prefix must be a string"):
        fl.read_torch(path, "sd", 3)


def test_inspect_lists_the_keys(written, capsys):
    path = written({"epoch": 3, "sd": {"lstm." + n: t for n, t in layer().items()}, "head": {
        "w": tb.tensor(tb.storage(numel=16), 0, (1,), (1,))}, "bad\x1b[0m": {}}, NUMBERS)
    text = "\n".join(inspection.lines(formats.contents(path)))
    assert "4 tensors, recurrent layers 'lstm.'" in text and "head  1 tensor\n" in text and "'epoch'" in text
    assert "\x1b" not in text
    with pytest.raises(FileFormatError, match="--key may be 'sd' or 'head'$"):
        formats.only_model(path)
    assert formats.only_model(path, key="sd").hidden_size == 1


def test_inspect_of_a_state_dict_with_other_things(written):
    """Layers are read; of all else there are shapes, kinds, or words; a layer that cannot be read says why."""
    complex_ = tb.tensor(tb.storage("1", "ComplexFloatStorage", 6), size=(2, 3))
    value = {"lstm." + n: t for n, t in layer().items()} | {"step": 3, "head.w": complex_, "run": tb.Made("m", "C", {})}
    value |= {"bad." + n: tb.Call("torch._utils", "_rebuild_qtensor") for n in layer()}
    path = written(value, NUMBERS)
    found = formats.contents(path)
    assert list(found.models) == ["lstm."] and "a quantised tensor" in found.refused["bad."]
    assert found.others == {"step": ("", "a number"), "head.w": ((2, 3), "complex64"), "run": ("", "a m.C")}
    assert formats.only_model(path, name="lstm").hidden_size == 1
    assert "  head.w  (2, 3)         complex64" in "\n".join(inspection.lines(found))


def test_layers_that_share_weights(written):
    """Inspected and converted, each has its own; too many copies are refused."""
    path = written(tb.module({}, {"a": lstm(), "b": lstm()}), NUMBERS)
    found = formats.contents(path).models
    found["a."]._update({"weight_hh_l0": np.zeros((4, 1), "f4")})
    assert found["b."].state_dict()["weight_hh_l0"].all() and not found["a."].state_dict()["weight_hh_l0"].any()
    path = written(tb.module({}, {name: lstm() for name in "abcd"}), NUMBERS)
    with pytest.raises(FileFormatError, match="share their weights in too many places"):
        formats.contents(path)
    assert fl.from_torch(path, "d").hidden_size == 1


# ---- by torch ---------------------------------------------------------------------------------------------------


def zoo(torch):
    nn = torch.nn

    globals()["Net"] = type("Net", (nn.Module,), {"__module__": __name__})  # where pickle finds it
    net = Net()  # noqa: F821
    net.lstm = nn.LSTM(3, 4, 2, batch_first=True, dropout=0.25)
    net.rnns = nn.ModuleList([nn.GRU(3, 4), nn.RNNCell(3, 4)])
    net.again, net.settings = net.lstm, {"x": torch.float32}
    net.register_buffer("mean", torch.ones(2))
    net.register_buffer("scratch", torch.ones(2), persistent=False)
    tied = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    tied["b"].weight = tied["a"].weight
    relu = nn.RNN(3, 4, nonlinearity="relu").eval()
    return {
        "large": nn.Sequential(nn.Embedding(9, 40), nn.LSTM(40, 512, 2, bidirectional=True)), "net": net, "tied": tied,
        "parallel": nn.DataParallel(net), "averaged": torch.optim.swa_utils.AveragedModel(net), "relu": relu,
        "projected": nn.LSTM(3, 4, proj_size=2, bidirectional=True, bias=False), "double": nn.GRU(3, 4).double(),
        "half": nn.LSTM(3, 4).half(), "bfloat": nn.LSTM(3, 4).bfloat16(), "cell": nn.GRUCell(3, 4),
        "weight norm": nn.utils.weight_norm(nn.LSTM(3, 4), "weight_hh_l0"),
        "spectral norm": nn.utils.spectral_norm(nn.Linear(3, 4)),
        "graph": torch.fx.symbolic_trace(nn.Sequential(nn.Linear(2, 3))),
        "norms": nn.Sequential(nn.BatchNorm1d(3), nn.InstanceNorm1d(3), nn.LayerNorm(3), nn.PReLU()),
        "transformer": nn.Transformer(8, 2, 1, 1, 8), "compiled": torch.compile(nn.ModuleDict({"lstm": nn.LSTM(3, 4)})),
        "hooked": hooked(nn.Linear(2, 3)),
    }


def hooked(module):
    module.register_forward_hook(print)
    module.register_state_dict_pre_hook(print)
    return module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("protocol", [2, 4])
def test_modules_of_torch(tmp_path, protocol):
    """The names, numbers and order of their state_dict()."""
    torch = pytest.importorskip("torch")
    for module in zoo(torch).values():
        torch.save(module, tmp_path / "a.pt", pickle_protocol=protocol)
        wide = {name: t.detach().float() if t.dtype == torch.bfloat16 else t for name, t in module.state_dict().items()}
        check(fl.read_torch(tmp_path / "a.pt"), {name: tensor.numpy() for name, tensor in wide.items()})
        torch.save({"epoch": 3, "nets": [{"model": module}]}, tmp_path / "a.pt", pickle_protocol=protocol)
        assert list(fl.read_torch(tmp_path / "a.pt", "nets.0.model")) == list(wide)


@pytest.mark.filterwarnings("ignore")
def test_layers_of_modules_of_torch(tmp_path):
    """from_torch of the file is from_torch of the module: class, options, mode, weights."""
    torch = pytest.importorskip("torch")
    nets = zoo(torch)
    for name, prefix in [("large", "1"), ("net", "lstm."), ("net", "rnns.0"), ("net", "again"), ("net", "rnns.1"),
                         ("parallel", "module.lstm"), ("relu", ""), ("projected", ""), ("double", ""), ("cell", "")]:
        torch.save(nets[name], tmp_path / "a.pt")
        found, expected = fl.from_torch(tmp_path / "a.pt", prefix), fl.from_torch(nets[name], prefix)
        assert repr(found) == repr(expected) and found.training == expected.training
        check(found.state_dict(), expected.state_dict())
    assert fl.from_torch(tmp_path / "a.pt").training
    torch.save(nets["half"], tmp_path / "a.pt")
    assert fl.from_torch(tmp_path / "a.pt").dtype == "float32"
    import fastlstm.torch

    accelerated = torch.nn.ModuleDict({"lstm": torch.nn.LSTM(3, 4, batch_first=True)})
    fastlstm.torch.accelerate(accelerated)
    torch.save(accelerated, tmp_path / "a.pt")
    assert fl.from_torch(tmp_path / "a.pt", "lstm").batch_first


@pytest.mark.filterwarnings("ignore")
def test_modules_of_torch_that_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    one = torch.nn.utils.weight_norm(torch.nn.LSTM(2, 3), "weight_hh_l0")
    two = torch.nn.utils.parametrizations.weight_norm(torch.nn.LSTM(2, 3), "weight_hh_l0")
    three = torch.nn.utils.spectral_norm(torch.nn.LSTM(2, 3), "weight_hh_l0")
    for module, words in [(one, "remove_weight_norm"), (two, "remove_parametrizations"),
                          (three, "remove_spectral_norm")]:
        torch.save({"a." + name: tensor for name, tensor in module.state_dict().items()}, tmp_path / "a.pt")
        for prefix in ("", "a"):
            line = rf"is made of \S*weight_hh_l0\S+; in torch: torch\S+{words}\(module, 'weight_hh_l0'\); torch\.save"
            with pytest.raises(FileFormatError, match=line):
                fl.from_torch(tmp_path / "a.pt", prefix)
    torch.save(torch.nn.Sequential(torch.nn.LSTM(2, 3), torch.nn.LazyLinear(3)), tmp_path / "a.pt")
    with pytest.raises(FileFormatError, match=r"'1\.weight' is a parameter of a lazy module, which has no numbers yet"):
        fl.read_torch(tmp_path / "a.pt")
    assert fl.from_torch(tmp_path / "a.pt", "0").hidden_size == 3


# ---- Lightning --------------------------------------------------------------------------------------------------


def lightning(folder):
    """A checkpoint of Lightning 2.6 (tests/data/make_lightning.py)."""
    with zipfile.ZipFile(DATA / "lightning_2.6.6.zip") as file:
        file.extract("sample.ckpt", folder)
    return folder / "sample.ckpt"


def test_lightning(tmp_path):
    path = lightning(tmp_path)
    model = fl.from_torch(path, "lstm.", key="state_dict", batch_first=True)
    assert repr(model) == "LSTM(2, 3, batch_first=True)"
    expected = {name: np.arange(start, start + weight.size, dtype="f4").reshape(weight.shape) / 64
                for start, (name, weight) in enumerate(model.state_dict().items())}
    check(model.state_dict(), expected)
    for prefix in ("", "lstm", "lstm."):
        with pytest.raises(FileFormatError, match="; key= may be 'state_dict'$"):
            fl.from_torch(path, prefix)
    assert list(fl.read_torch(path, "optimizer_states.0.state.0")) == ["step", "exp_avg", "exp_avg_sq"]
    assert any("state_dict" in line and "recurrent layers 'lstm.'" in line
               for line in inspection.lines(formats.contents(path)))


# ---- no more is read than was asked for -------------------------------------------------------------------------


def test_only_what_was_asked_for_is_read(written, monkeypatch):
    read, real = [], torch_files._Archive.read

    def noted(archive, name, *more):
        read.append(name)
        return real(archive, name, *more)

    monkeypatch.setattr(torch_files._Archive, "read", noted)
    head = {"head.w": tb.tensor(tb.storage("1", numel=1 << 20), 0, (1 << 20,), (1,))}
    value = {"lstm." + name: tensor for name, tensor in layer().items()} | head
    path = written({"sd": value}, NUMBERS | {"1": bytes(4 << 20)})
    for call in (lambda: fl.from_torch(path, "lstm", key="sd"), lambda: fl.read_torch(path, "sd", "lstm"),
                 lambda: formats.contents(path, key="sd"), lambda: formats.contents(path)):
        read.clear()
        tracemalloc.start()
        try:
            call()
            assert tracemalloc.get_traced_memory()[1] < 1 << 20 and "data/1" not in read
        finally:
            tracemalloc.stop()
    for call in (lambda: fl.from_torch(path, "head", key="sd"), lambda: fl.from_torch(path, key="sd")):
        with pytest.raises(FileFormatError, match="missing weight_hh_l0|prefix= may be 'lstm.'"):
            call()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_of_a_layer_in_a_large_file(tmp_path):
    """80 MB in the file, and in a storage of which the layer is a small part: the process grows by a few."""
    stores = [tb.storage(f"{n + 1}", numel=1 << 20) for n in range(20)]
    views = {f"big{n}": tb.tensor(stored, 0, (1 << 20,), (1,)) for n, stored in enumerate(stores)}
    views |= {"part." + n: t for n, t in layer(start=1000, stored=stores[0]).items()}
    views |= {"lstm." + n: t for n, t in layer().items()}
    data = tb.archive({"sd": views}, NUMBERS | {f"{n + 1}": bytes(4 << 20) for n in range(20)})
    (tmp_path / "a.pt").write_bytes(data)
    program = f"""
import fastlstm as fl, sys
def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
fl.from_torch({str(tmp_path / "small.pt")!r}, "lstm", key="sd")
for prefix in ("lstm", "part"):
    open("/proc/self/clear_refs", "w").write("5")
    before = status("VmRSS:")
    fl.from_torch({str(tmp_path / "a.pt")!r}, prefix, key="sd")
    assert status("VmHWM:") - before < 4096, (prefix, status("VmHWM:") - before)
"""
    (tmp_path / "small.pt").write_bytes(tb.archive({"sd": {"lstm." + n: t for n, t in layer().items()}}, NUMBERS))
    child = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr


def test_a_part_of_a_storage_is_checked_whole(written):
    """Its checksum is that of all of it."""
    view = tb.tensor(tb.storage(numel=1000), 10, (5,), (1,))
    path = written({"w": view}, {"0": np.arange(1000, dtype="f4").tobytes()})
    check(fl.read_torch(path), {"w": np.arange(10, 15, dtype="f4")})
    data = bytearray(path.read_bytes())
    data[data.index(np.float32(900).tobytes())] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(FileFormatError, match="CRC"):
        fl.read_torch(path)


# ---- files made to cost much ------------------------------------------------------------------------------------


def doubled(levels, make):
    """Things that hold the one before twice."""
    found = make(None, None)
    for _ in range(levels):
        found = make(found, found)
    return found


HOSTILE = {
    "modules that hold each other": lambda: doubled(60, lambda a, b: tb.module({"w": tb.tensor()}, {"a": a, "b": b})),
    "dicts": lambda: doubled(60, lambda a, b: {"a": a, "b": b}), "lists": lambda: doubled(60, lambda a, b: [a, b]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_shared_is_not_multiplied(written, name):
    path = written({"net": HOSTILE[name](), "lstm": layer()}, NUMBERS)
    assert fl.from_torch(path, key="lstm").hidden_size == 1
    list(inspection.lines(formats.contents(path)))
    with pytest.raises(FileFormatError):
        fl.read_torch(path, "net")
    with pytest.raises(FileFormatError, match="key= may be 'lstm'|key= may be 'net'"):
        fl.read_torch(path, "x." * 200 + "y")


CYCLES = {
    "module": b"co\nM\n)\x81\x94}(X\x0b\0\0\0_parametersccollections\nOrderedDict\n)R"
    b"X\x08\0\0\0_modules}X\x01\0\0\0ah\x00sub.",
    "dict": b"}\x94(X\x01\0\0\0ah\x00X\x03\0\0\0a.ah\x00X\x01\0\0\0b]\x94(h\x00h\x01eu.",
}


@pytest.mark.parametrize("name", CYCLES)
def test_cycles(written, name):
    path = written(CYCLES[name])
    for key in (None, "a", "a.a.a", "a.b.1.1.0.a", "a." * 300 + "a", "a." * 99 + "z"):
        with pytest.raises(FileFormatError, match="have more names|is a dict|expected a state dict|no dict under"):
            fl.read_torch(path, key)


COUNT = 1 << 18
ROOM = b"B" + struct.pack("<I", COUNT * 6) + bytes(COUNT * 6) + b"0"  # bytes that make room for what follows
NESTED = ROOM + b"N" + b"\x85" * COUNT + b"\x940"
DEEP = {
    "key": NESTED + b"}h\x00Ns.", "class": NESTED + b"ctorch._tensor\n_rebuild_from_type_v2\n(cx\nf\nh\x00)}tR.",
    "doubled key": b"}N\x94h\x00\x86" + b"".join(bytes([113, n, 104, n, 134]) for n in range(1, 200)) + b"Ns.",
    "objects": ROOM + b"co\nC\n" + b")R" * COUNT + b".", "lists": ROOM + b"]" * COUNT + b"a" * (COUNT - 1) + b".",
    "function": NESTED + b"ctorch._utils\n_rebuild_parameter\nh\x00NN\x87R.",
    "size": NESTED + b"ctorch\nSize\nh\x00\x85R.",
    "persistent": NESTED + b"h\x00(h\x00h\x00h\x00h\x00tQ.", "items": NESTED + b"}(h\x00h\x00h\x00h\x00u.",
}


@pytest.mark.parametrize("name", DEEP)
def test_depth_ends_no_process(name):
    """Neither hashes nor comparisons go down into what is nested."""
    found, room = torch_pickle.read(DEEP[name])
    assert torch_contents.words(found) and torch_contents.find(found, "a.b") == []
    torch_contents.keys(found, room)
    torch_contents.entries(found, room)


def test_long_names_of_modules_are_counted():
    """Names grow with depth: refused before they take more than the pickle may."""
    inner = tb.module({"w": tb.tensor()})
    for _ in range(100):
        inner = tb.module({}, {"n" * 2000: inner})
    data = tb.pickled(inner)
    found, room = torch_pickle.read(data)
    tracemalloc.start()
    try:
        torch_contents.entries(found, room)
    except torch_pickle.Refused:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < room


@pytest.mark.parametrize("seed", range(2))
def test_random_damage_of_a_module(seed, tmp_path):
    """Of Lightning's pickle and of a module's: read or refused in words, whatever is asked."""
    rng, path = np.random.default_rng(seed), tmp_path / "a.pt"
    with zipfile.ZipFile(lightning(tmp_path)) as file:
        samples = [(file.read(next(n for n in file.namelist() if n.endswith("data.pkl"))), "state_dict")]
    samples.append((tb.pickled({"m": tb.module({}, {"lstm": lstm(batch_first=True)})}), "m"))
    read = 0
    for count in range(120):
        good, key = samples[count % 2]
        data = bytearray(good)
        for _ in range(rng.integers(1, 5)):
            data[rng.integers(len(data))] = int(rng.integers(256))
        sizes = (24, 36, 12, 12) if count % 2 == 0 else (16,)
        path.write_bytes(tb.archive(bytes(data), {f"{n}": bytes(4 * size) for n, size in enumerate(sizes)}))
        for call in (lambda key=key: fl.from_torch(path, "lstm", key=key), lambda: formats.contents(path)):
            try:
                call()
                read += 1
            except FileFormatError as error:
                assert len(str(error)) < 3000
    assert read > 10


def test_pickles_of_python_are_the_same():
    """The machine against pickle itself, on containers that only differ by what stands for objects."""
    value = {"a": [1, 2.5, "x", None, True, (1, (2, 3)), {"b": -(1 << 40)}], "c": b"x", "d": [[], {}, ()]}
    value["self"] = value["a"]
    for protocol in range(2, 6):
        found, _ = torch_pickle.read(pickle.dumps(value, protocol))
        assert found.pop("c") == b"x" or protocol == 2
        assert found["self"] is found["a"] and found == {n: v for n, v in value.items() if n != "c"}
    loop = ([],)
    loop[0].append(loop)
    file = io.BytesIO()
    pickle._Pickler(file, 4).dump(loop)
    found, _ = torch_pickle.read(file.getvalue())
    assert found[0][0] is found
