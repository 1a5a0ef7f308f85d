"""fastlstm.read_torch: what torch writes comes out the same; damage and lies are refused."""

import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch_bytes as tb

import fastlstm as fl
from fastlstm.files import FileFormatError

RNG = np.random.default_rng(7)
ARRAYS = {
    "lstm.weight": RNG.normal(size=(4, 3)).astype("f4"), "lstm.bias": RNG.normal(size=4),
    "half": np.arange(5, dtype="f2"),
    "i1": np.array([-128, 127], "i1"), "u1": np.array([[255]], "u1"), "i2": np.array([-3], "i2"),
    "i4": np.array([1 << 30], "i4"), "i8": np.array(-(1 << 60), "i8"), "b": np.array([True, False, True]),
    "empty": np.zeros((0, 3), "f4"),
}


@pytest.fixture
def read(tmp_path):
    def read(data, key=None):
        path = tmp_path / "a.pt"
        path.write_bytes(data)
        return fl.read_torch(path, key)

    return read


def check(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        got = found[name]
        assert got.dtype == array.dtype and got.shape == array.shape and got.tobytes() == array.tobytes(), name
        assert got.flags.c_contiguous and got.flags.writeable


# ---- made by hand -----------------------------------------------------------------------------------------------


def test_all_types(read):
    check(read(tb.state_dict(ARRAYS)), ARRAYS)


def test_strides_and_offsets(read):
    numbers = np.arange(6, dtype="f4")
    found = read(tb.archive({
        "t": tb.tensor(size=(3, 2), stride=(1, 3)), "tail": tb.tensor(offset=4, size=(2,), stride=(1,)),
        "spread": tb.tensor(size=(4, 2), stride=(0, 5)), "number": tb.tensor(offset=5, size=(), stride=()),
        "one": tb.tensor(offset=5, size=(1, 1), stride=(10**30, 7)), "none": tb.tensor(size=(0, 9), stride=(9, 1)),
    }))
    check(found, {
        "t": np.ascontiguousarray(numbers.reshape(2, 3).T), "tail": numbers[4:],
        "spread": np.tile(numbers[[0, 5]], (4, 1)), "number": numbers[5], "one": numbers[5:].reshape(1, 1),
        "none": np.zeros((0, 9), "f4"),
    })


def test_arrays_share_no_memory(read):
    """A tensor that is alone in its storage is what was read of it; others of one storage are copies."""
    found = read(tb.archive({"w": tb.tensor(), "flat": tb.tensor(size=(6,), stride=(1,))}))
    assert not np.shares_memory(found["w"], found["flat"])
    numbers = np.arange(6, dtype="f4")
    check(read(tb.archive({"w": tb.tensor(size=(3, 2), stride=(1, 3))})), {"w": numbers.reshape(2, 3).T.copy()})
    part = numbers.reshape(2, 3)[:, 1:].copy()
    check(read(tb.archive({"w": tb.tensor(size=(2, 2), stride=(3, 1), offset=1)})), {"w": part})


def test_bfloat16_is_widened(read):
    stored = tb.storage(kind="BFloat16Storage", numel=3)
    bits = np.array([0x3F80, 0xC049, 0x7F80], "<u2")
    found = read(tb.archive({"w": tb.tensor(stored, size=(3,), stride=(1,))}, {"0": bits.tobytes()}))
    check(found, {"w": np.array([1, -3.140625, np.inf], "f4")})


def test_big_endian(read):
    data = tb.archive({"w": tb.tensor()}, {"0": np.arange(6, dtype=">f4").tobytes()}, byteorder=b"big")
    check(read(data), {"w": np.arange(6, dtype="f4").reshape(2, 3)})


def test_tied_weights_are_one_array(read):
    found = read(tb.archive({name: tb.tensor() for name in "abcdefgh"}, {"0": np.zeros(6, "f4").tobytes()}))
    assert all(found[name] is found["a"] for name in found)


def test_key_and_prefix(read):
    inner = {"enc.lstm.weight_ih_l0": tb.tensor(), "dec.bias": tb.tensor(size=(3,), stride=(1,))}
    data = tb.archive({"epoch": 3, "loss": [0.5, None, True], "state_dict": inner, "optimizer": {0: {"lr": 1e-3}}})
    assert list(read(data, "state_dict")) == list(inner)
    with pytest.raises(ValueError, match=r"a\.pt: 'epoch' is a number.*key= may be 'state_dict'$"):
        read(data)
    with pytest.raises(ValueError, match="holds no dict under 'model'; key= may be 'state_dict'$"):
        read(data, "model")
    found = read(data, "state_dict")
    part = fl.with_prefix(found, "enc.lstm.")
    assert list(part) == ["weight_ih_l0"] and part["weight_ih_l0"] is found["enc.lstm.weight_ih_l0"]
    with pytest.raises(ValueError, match=r"missing weight_hh_l0"):
        fl.LSTM(3, 5).load_state_dict(part)
    with pytest.raises(ValueError, match=r"no name starts with 'lstm\.'; there are 'dec\.', 'enc\.lstm\.'"):
        fl.with_prefix(found, "lstm.")
    for wrong in [([], "a"), ({}, 3)]:
        with pytest.raises(TypeError):
            fl.with_prefix(*wrong)
    with pytest.raises(TypeError, match="key"):
        read(data, 3)


def test_a_layer_without_torch(read):
    model = fl.LSTM(3, 4, 2, bidirectional=True, rng=0)
    data = tb.state_dict({f"encoder.lstm.{name}": weight for name, weight in model.state_dict().items()})
    other = fl.LSTM(3, 4, 2, bidirectional=True, rng=1)
    other.load_state_dict(fl.with_prefix(read(data), "encoder.lstm."))
    x = RNG.normal(size=(5, 2, 3)).astype("f4")
    np.testing.assert_array_equal(other(x)[0], model(x)[0])


# ---- lies about sizes -------------------------------------------------------------------------------------------


IMPOSSIBLE = [
    (dict(size=(2, 4)), "leave a storage of 6"), (dict(offset=1), "leave a storage"), (dict(stride=(4, 1)), "leave"),
    (dict(offset=6, size=(1,), stride=(1,)), "leave"), (dict(offset=-1), "impossible"),
    (dict(size=(-1, 3)), "impossible"),
    (dict(stride=(3, -1)), "impossible"), (dict(stride=(3,)), "impossible"), (dict(size=(2.0, 3)), "damaged"),
    (dict(size=(1 << 70, 1 << 70)), "leave"), (dict(offset=1 << 80), "leave"), (dict(offset="0"), "damaged"),
    (dict(size=(1 << 20, 1 << 20), stride=(0, 0)), "need 4398046511104 bytes"),
    (dict(size=(200, 3), stride=(0, 1)), "need 2400 bytes"), (dict(size=(1,) * 33, stride=(1,) * 33), "damaged"),
    (dict(size=(0, 1 << 40, 1 << 40), stride=(1, 1, 1)), "damaged|too big|too large|dimension"),
    (dict(size=(True, 3)), "damaged"),
    (dict(metadata=({"neg": True},)), "unknown here"), (dict(metadata=(1, 2)), "unknown here"),
    (dict(stored=tb.storage(numel=7), size=(7,), stride=(1,)), "has 24 bytes, expected 28"),
    (dict(stored=tb.storage(numel=5), size=(5,), stride=(1,)), "has 24 bytes, expected 20"),
    (dict(stored=tb.storage(numel=-6)), "impossible"), (dict(stored=tb.storage(key="9")), "'data/9' is missing"),
    (dict(stored=tb.storage(kind="DoubleStorage")), "expected 48"), (dict(stored=tb.storage(key=3)), "damaged"),
    (dict(stored=tb.storage(key="../version", numel=1), size=(), stride=()), "missing"),
    (dict(stored=tb.Persistent("storage", "torch.FloatStorage", "0", "cpu", 6)), "damaged or unknown"),
    (dict(stored=tb.Persistent("module", 1)), "damaged or unknown"), (dict(stored=4), "damaged"),
]


@pytest.mark.parametrize("tensor, words", IMPOSSIBLE, ids=range(len(IMPOSSIBLE)))
def test_impossible_tensors(tensor, words, read):
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError, match=words):
            read(tb.archive({"w": tb.tensor(**tensor)}))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_many_small_lies(read):
    """Different views of one storage, each within bounds, together far more than the file."""
    views = {str(n): tb.tensor(tb.storage(numel=5000), n, (2500,), (1,)) for n in range(50)}
    with pytest.raises(FileFormatError, match="need"):
        read(tb.archive(views, {"0": bytes(20000)}))


def test_zip_bombs(read):
    zeros = {"0": bytes(1 << 20)}
    big = {"w": tb.tensor(tb.storage(numel=1 << 18), size=(1 << 18,), stride=(1,))}
    with pytest.raises(FileFormatError, match="compressed"):
        read(tb.archive(big, zeros, compression=zipfile.ZIP_DEFLATED))
    data = tb.archive(big)
    for fields in [dict(size=1 << 20), dict(packed=1 << 20), dict(size=1 << 20, packed=1 << 20), dict(method=8)]:
        with pytest.raises(FileFormatError, match="compressed|claims"):
            read(tb.patched(data, "data/0", **fields))
    with pytest.warns(UserWarning, match="Duplicate"):
        double = tb.archive({"w": tb.tensor()}, **{"data.pkl": b"N."})
    with pytest.raises(FileFormatError, match="more than one 'data.pkl'"):
        read(double)


# ---- other files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data, words", [
    (b"", "neither"), (b"PK\x03\x04", "zip"), (b"\x93NUMPY\x01\x00", "neither"), (pickle.dumps({}, 2), "before 1.6"),
    (pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2), "before 1.6"),
    (tb.archive({}, {}, **{"constants.pkl": b"."}), "TorchScript"), (tb.archive([tb.tensor()]), "holds a list"),
    (tb.archive(tb.tensor()), "expected a state dict"), (tb.archive({"w": "text"}), "'w' is a str, expected a tensor"),
    (tb.archive({3: tb.tensor()}), "a name is a number, expected text"),
    (tb.archive({"w": tb.storage()}), "is a Storage"),
    (tb.archive({"w": tb.tensor()}, byteorder=b"middle"), "byte order"),
    (tb.archive({("a", "b"): tb.tensor()}), "a name is a tuple, expected text"),
], ids=lambda value: repr(value)[:30])
def test_what_is_no_state_dict(data, words, read):
    with pytest.raises(FileFormatError, match=rf"a\.pt: .*{words}"):
        read(data)


def test_a_zip_without_a_pickle(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a/readme", b"x")
    with pytest.raises(FileFormatError, match=r"without data\.pkl"):
        fl.read_torch(str(tmp_path / "a.zip"))


def test_errors_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        fl.read_torch(tmp_path / "none.pt")
    with pytest.raises(IsADirectoryError):
        fl.read_torch(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileFormatError, match="not a regular file"):
        fl.read_torch(tmp_path / "pipe")


def test_every_truncation(read):
    data = tb.state_dict({"w": np.arange(6, dtype="f4")})
    for cut in range(len(data)):
        with pytest.raises(ValueError, match=r"a\.pt"):
            read(data[:cut])


@pytest.mark.parametrize("seed", range(3))
def test_random_damage(seed, read):
    """300 of them: refused in words, or of no consequence."""
    rng, whole = np.random.default_rng(seed), tb.state_dict(ARRAYS)
    refused = 0
    for _ in range(100):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            at, length = int(rng.integers(len(data))), int(rng.integers(1, 30))
            kind = rng.integers(4)
            if kind == 0:
                data[at] ^= 1 << int(rng.integers(8))
            elif kind == 1:
                data[at : at + length] = rng.bytes(len(data[at : at + length]))
            elif kind == 2:
                del data[at : at + length]
            else:
                data[at:at] = rng.bytes(length)
        try:
            check(read(bytes(data)), ARRAYS)
        except FileFormatError:
            refused += 1
    assert refused > 50


# ---- written by torch -------------------------------------------------------------------------------------------


def saved(tmp_path, value, **options):
    torch = pytest.importorskip("torch")
    torch.save(value, tmp_path / "b.pt", **options)
    return tmp_path / "b.pt"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_torch_writes(tmp_path, protocol):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(array.copy()) for name, array in ARRAYS.items()}
    check(fl.read_torch(saved(tmp_path, tensors, pickle_protocol=protocol)), ARRAYS)
    wide = torch.arange(12, dtype=torch.float64).reshape(3, 4)
    views = {"t": wide.t(), "row": wide[1], "every second": wide[:, ::2], "expanded": wide[:1, :1].expand(2, 3),
             "parameter": torch.nn.Parameter(wide), "bfloat16": wide.bfloat16()}
    found = fl.read_torch(saved(tmp_path, views, pickle_protocol=protocol))
    for name, tensor in views.items():
        np.testing.assert_array_equal(found[name], tensor.detach().to(torch.float64).numpy())
    assert found["bfloat16"].dtype == "f4"


def test_models_torch_writes(tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.nn.ModuleDict({"lstm": torch.nn.LSTM(3, 4, 2, bidirectional=True), "head": torch.nn.Linear(8, 2)})
    optimizer = torch.optim.Adam(module.parameters())
    module["head"](module["lstm"](torch.ones(2, 1, 3))[0]).sum().backward()
    optimizer.step()
    both = {"epoch": 1, "state_dict": module.state_dict(), "optimizer": optimizer.state_dict()}
    for path, key in [(saved(tmp_path, module.state_dict()), None), (saved(tmp_path, both), "state_dict")][::-1]:
        path = saved(tmp_path, both if key else module.state_dict())
        found = fl.read_torch(path, key)
        check(found, {name: tensor.numpy() for name, tensor in module.state_dict().items()})
        model = fl.LSTM(3, 4, 2, bidirectional=True)
        model.load_state_dict(fl.with_prefix(found, "lstm."))
        equal = fl.from_torch(module["lstm"]).state_dict()
        assert all(equal[name].tobytes() == weight.tobytes() for name, weight in model.state_dict().items())


def after_the_line(error, path, folder):
    """What is read when the line that an error ends with has been typed in torch."""
    import torch

    line = str(error).partition("in torch: ")[2]
    exec(line.replace('"weights.pt"', repr(str(folder / "weights.pt"))), {"torch": torch, "path": str(path)})
    return fl.read_torch(folder / "weights.pt")


@pytest.mark.filterwarnings("ignore")  # torch, of its own formats
def test_formats_of_torch_that_are_refused(tmp_path):
    """Each with the line to type in torch, which writes a file that is read."""
    torch = pytest.importorskip("torch")
    module = torch.nn.LSTM(2, 3)
    torch.save(module.state_dict(), tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.jit.save(torch.jit.script(module), str(tmp_path / "script.pt"))
    torch.export.save(torch.export.export(module, (torch.ones(4, 1, 2),)), str(tmp_path / "export.pt2"))
    for name, words in [("legacy.pt", r"before 1\.6"), ("script.pt", "TorchScript"), ("export.pt2", r"torch\.export")]:
        with pytest.raises(FileFormatError, match=words) as caught:
            fl.read_torch(tmp_path / name)
        check(after_the_line(caught.value, tmp_path / name, tmp_path), {
            name: tensor.numpy() for name, tensor in module.state_dict().items()})
