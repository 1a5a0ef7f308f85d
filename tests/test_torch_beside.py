"""Only what was asked for matters in a checkpoint: anything may lie beside it, as torch itself writes it."""

import argparse
import collections
import datetime
import decimal
import enum
import fractions
import functools
import pathlib
import random
import re
import types
import uuid

import numpy as np
import pytest
from test_torch_files import after_the_line, check

import fastlstm as fl
from fastlstm.files import FileFormatError


class Colour(enum.Enum):
    RED = 1


class Flags(enum.Flag):
    A = 1


class Slotted:
    __slots__ = ("a",)

    def __init__(self):
        self.a = [self]


class Sub(dict):
    pass


class Keywords:
    def __new__(cls, *, a):
        return super().__new__(cls)

    def __getnewargs_ex__(self):
        return (), {"a": 1}


def circle():
    found = [Sub(a=1), types.SimpleNamespace(x=1)]
    found[1].whole = found
    found[0]["self"] = (found,)
    return found


def deep(levels=3000):
    found = ()
    for _ in range(levels):
        found = (found,)
    return found


BESIDE = {
    "Counter": lambda: collections.Counter("aab"), "defaultdict": lambda: collections.defaultdict(list, {1: [2]}),
    "deque": lambda: collections.deque([1, 2], 3), "OrderedDict": lambda: collections.OrderedDict(a=1), "Sub": Sub,
    "set": lambda: {1, (2, 3), "x"}, "frozenset": lambda: frozenset([(1,), 2]), "empty set": set,
    "bytes": lambda: b"\0\xff", "bytearray": lambda: bytearray(b"\0\xff"), "complex": lambda: 1j,
    "slice": lambda: slice(1, None, 2),
    "range": lambda: range(1, 9, 2), "ellipsis": lambda: ..., "NotImplemented": lambda: NotImplemented,
    "tuple keys": lambda: {(1, 2): 3, (1, (2, 3)): 4, frozenset([1]): 5, b"x": 6, None: 7, 1.5: 8, True: 9},
    "large": lambda: [1 << 63, -(1 << 200), 1 << 5000, {1 << 90: 2}], "numbers": lambda: [0.5, None, True, -7],
    "NumPy scalars": lambda: [np.float32(1), np.int64(2), np.bool_(True), np.str_("x"), np.complex64(1)],
    "NumPy arrays": lambda: [np.arange(300.0), np.array(["ab"]), np.array([None, {}]), np.zeros((), "i1"),
                             np.asfortranarray(np.ones((2, 3)))],
    "NumPy others": lambda: [np.dtype("f4"), np.datetime64("2020-01-01"), np.random.default_rng(0), np.float32,
                             np.zeros(2, [("a", "f4"), ("b", "i2")]), np.ma.masked_array([1, 2], [0, 1])],
    "random state": random.Random(0).getstate, "Namespace": lambda: argparse.Namespace(a={"b": 1}),
    "SimpleNamespace": lambda: types.SimpleNamespace(a=1), "slots": Slotted, "keywords": lambda: Keywords(a=1),
    "Path": lambda: pathlib.Path("a/b"), "PureWindowsPath": lambda: pathlib.PureWindowsPath("a/b"),
    "datetime": lambda: [datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone.utc), datetime.date(2020, 1, 2),
                         datetime.time(1), datetime.timedelta(1)],
    "Decimal": lambda: decimal.Decimal("1.5"), "Fraction": lambda: fractions.Fraction(1, 3),
    "UUID": lambda: uuid.UUID(int=7),
    "enum": lambda: [Colour.RED, Flags.A, {Colour.RED: 1}],
    "function": lambda: [np.sum, circle, len, str.join, "a".join],
    "class": lambda: [Colour, dict, int, collections.Counter], "partial": lambda: functools.partial(int, base=2),
    "pattern": lambda: re.compile("a"), "exception": lambda: ValueError("x"), "circle": circle,
    "deep": lambda: deep(200),
    "list of lists": lambda: [[] for _ in range(100)], "text": lambda: "é\ud800" + "x" * 300,
}

LATER = {"function", "keywords", "data"}  # which need a later protocol than 2


def torch_things(torch):
    nn = torch.nn
    return {
        "device": [torch.device("cuda:1")], "dtype": [torch.float32, torch.bfloat16], "Size": torch.Size([1, 2]),
        "layout": torch.strided, "scheme": torch.per_tensor_affine, "Generator": torch.Generator(),
        "storage": [torch.UntypedStorage(4), torch.FloatStorage(3)], "module": nn.Sequential(nn.LSTM(2, 3), nn.ReLU()),
        "functions": [torch.tanh, nn.functional.relu, nn.ReLU], "loss": nn.CrossEntropyLoss(),
        "optimiser": torch.optim.Adam(nn.Linear(2, 3).parameters()).state_dict(),
        "whole optimiser": torch.optim.SGD(nn.Linear(2, 3).parameters(), 0.1),
        "distribution": torch.distributions.Normal(0, 1),
        "random numbers": torch.get_rng_state(), "data": torch.utils.data.TensorDataset(torch.ones(2)),
    }


def tensors(torch):
    """Kind -> a tensor of it, which is not read; words in the refusal; what the line in torch makes of it."""
    ones, buffer = torch.ones(2, 3), torch.nn.parameter.UninitializedBuffer()
    return {
        "quantised": (torch.quantize_per_tensor(ones, 0.5, 0, torch.qint8), "a quantised tensor", ones),
        "by channel": (torch.quantize_per_channel(ones, torch.ones(2) / 2, torch.zeros(2), 0, torch.quint8),
                       "a quantised tensor", ones),
        "sparse": (torch.eye(2).to_sparse(), "a sparse tensor", torch.eye(2)),
        "rows": (torch.eye(2).to_sparse_csr(), "a sparse tensor", torch.eye(2)),
        "columns": (torch.eye(2).to_sparse_csc(), "a sparse tensor", torch.eye(2)),
        "complex64": (ones * 1j, "a tensor of complex64", torch.view_as_real(ones * 1j)),
        "complex128": (ones.double() * 1j, "a tensor of complex128", torch.view_as_real(ones.double() * 1j)),
        "conjugate": ((ones * 1j).conj(), "unknown here", None),
        "negative": (torch._neg_view(ones), "unknown here", -ones),
        "float8": (ones.to(torch.float8_e4m3fn), "a tensor of float8_e4m3fn", ones),
        "float8 of 5": (ones.to(torch.float8_e5m2), "a tensor of float8_e5m2", ones),
        "meta": (torch.ones(2, device="meta"), "on the meta device", {}), "lazy": (buffer, "has no numbers yet", {}),
        "nested": (torch.nested.nested_tensor([torch.ones(2), torch.ones(2)]), "a nested tensor", torch.ones(2, 2)),
        "subclass": (torch.ones(2).as_subclass(mine(torch)), r"a tensor of class \S*MyTensor", torch.ones(2)),
    }


def mine(torch):
    """A subclass of torch.Tensor that pickle finds."""
    cls = type("MyTensor", (torch.Tensor,), {"__module__": __name__})
    return globals().setdefault("MyTensor", cls)


@pytest.fixture
def saved(tmp_path):
    def saved(value, **options):
        torch = pytest.importorskip("torch")
        torch.save(value, tmp_path / "a.pt", **options)
        return tmp_path / "a.pt"

    return saved


def layer_of(units=4):
    return {f"net.lstm.{name}": weight for name, weight in fl.LSTM(3, units, 2, rng=0).state_dict().items()}


def surrounded(value, torch, units=4):
    """A checkpoint with a layer in it, and `value` around it in all places."""
    d = {name: torch.from_numpy(weight) for name, weight in layer_of(units).items()}
    model = {"first": value, **d, "net.lstm2.weight_hh_l0": value, "last": value}
    return {"before": value, "model": model, "after": [value]}


def check_layer(path, units=4):
    found = fl.from_torch(path, "net.lstm", key="model")
    assert repr(found) == repr(fl.LSTM(3, units, 2))
    expected = {name.removeprefix("net.lstm."): weight for name, weight in layer_of(units).items()}
    check(fl.read_torch(path, "model", "net.lstm."), expected)


@pytest.mark.filterwarnings("ignore")  # torch, of kinds of its tensors
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_anything_may_lie_beside(saved, protocol):
    torch = pytest.importorskip("torch")
    values = {name: make() for name, make in BESIDE.items()} | torch_things(torch)
    values |= {name: value for name, (value, _, _) in tensors(torch).items()}
    for name, value in values.items():
        try:
            path = saved(surrounded(value, torch), pickle_protocol=protocol)
        except (TypeError, AttributeError) as error:
            assert name in LATER and protocol < 4, error
            continue
        check_layer(path)
    everything = {name: value for name, value in values.items() if name not in LATER}
    check_layer(saved(surrounded(everything, torch, 512), pickle_protocol=protocol), 512)


@pytest.mark.filterwarnings("ignore")
def test_kinds_of_tensors_that_are_refused_by_name(saved, tmp_path):
    """With a line for torch behind which the same call reads the file."""
    torch = pytest.importorskip("torch")
    for name, (value, words, plain) in tensors(torch).items():
        path = saved({"a.w": torch.ones(2), "b.w": value})
        check(fl.read_torch(path, prefix="a."), {"w": np.ones(2, "f4")})
        with pytest.raises(FileFormatError, match=rf"'b\.w' is .*{words}.*, expected .*in torch: ") as caught:
            fl.read_torch(path)
        if plain is not None:
            found = after_the_line(caught.value, path, tmp_path)
            expected = {} if isinstance(plain, dict) else {"b.w": plain.numpy()}
            check(found, {"a.w": np.ones(2, "f4")} | expected)


def test_other_kinds_that_are_read(saved):
    torch = pytest.importorskip("torch")
    parameter, plain = torch.nn.Parameter(torch.ones(2)), torch.ones(2)
    parameter.note = plain.note = "x"
    d = {"parameter": parameter, "plain": plain, "buffer": torch.nn.Buffer(torch.ones(2)),
         "u2": torch.tensor([0, 65535], dtype=torch.uint16), "u4": torch.tensor([1 << 31], dtype=torch.uint32),
         "u8": torch.tensor([[1 << 63]], dtype=torch.uint64)}
    check(fl.read_torch(saved(d)), {
        "parameter": np.ones(2, "f4"), "plain": np.ones(2, "f4"), "buffer": np.ones(2, "f4"),
        "u2": np.array([0, 65535], "u2"), "u4": np.array([1 << 31], "u4"), "u8": np.array([[1 << 63]], "u8")})


def test_what_is_no_tensor_is_named(saved, tmp_path):
    torch = pytest.importorskip("torch")
    path = saved({"sd": {"w": torch.ones(2), "epoch": 3, "path": pathlib.PurePosixPath("x"), 7: 8}})
    with pytest.raises(FileFormatError, match="'epoch' is a number, expected a tensor of .*, in torch: ") as caught:
        fl.read_torch(path, "sd")
    check(after_the_line(caught.value, path, tmp_path), {"w": np.ones(2, "f4")})
    assert "; if you trust the file, in torch: " in str(caught.value)
    for value, words in [(argparse.Namespace(a=1), "an argparse.Namespace"), (torch.ones(2), "a tensor"),
                         ([torch.ones(2)], "a list"), (torch.eye(2).to_sparse(), "a sparse tensor")]:
        for content, key in ((value, None), ({"x": value}, "x")):  # no line in torch: no state dict follows from it
            with pytest.raises(FileFormatError, match=f"holds {words}, expected a state dict$"):
                fl.read_torch(saved(content), key)
    assert fl.read_torch(saved({"sd": {}}), "sd") == {}


def test_extra_state_is_left_out(saved):
    torch = pytest.importorskip("torch")

    class Extra(torch.nn.Linear):
        def get_extra_state(self):
            return {"version": 3, "data": b"x"}

    d = torch.nn.ModuleDict({"a": Extra(2, 3)}).state_dict()
    assert "a._extra_state" in d
    assert list(fl.read_torch(saved(d))) == ["a.weight", "a.bias"]
    assert list(fl.read_torch(saved({"_extra_state": torch.ones(1)}))) == ["_extra_state"]
