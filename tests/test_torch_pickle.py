"""The pickle in a torch checkpoint is read, never executed: other names, opcodes and damage are refused."""

import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
import torch_bytes as tb

import fastlstm as fl
from fastlstm.convert import torch_pickle
from fastlstm.files import FileFormatError


@pytest.fixture
def read(tmp_path):
    def read(data, key=None):
        path = tmp_path / "a.pt"
        path.write_bytes(data)
        return fl.read_torch(path, key)

    return read


class Evil:
    def __init__(self, function, *arguments):
        self.what = function, arguments

    def __reduce__(self):
        return self.what


EVIL = {
    "os.system": tb.Call("os", "system", "touch executed"),
    "posix.system": tb.Call("posix", "system", "touch executed"),
    "builtins.eval": tb.Call("builtins", "eval", "open('executed', 'w')"),
    "builtins.getattr": tb.Call("builtins", "getattr", tb.Global("collections", "OrderedDict"), "clear"),
    "torch.load": tb.Call("torch", "load", "other.pt"),
    "torch._utils._rebuild_qtensor": tb.Call("torch._utils", "_rebuild_qtensor"),
    "torch.ComplexFloatStorage": tb.tensor(tb.storage(kind="ComplexFloatStorage")),
    "collections.OrderedDict.clear": tb.Call("collections", "OrderedDict.clear", {}),
    "numpy._core.multiarray.scalar": tb.Call("numpy._core.multiarray", "scalar", 3),
}


@pytest.mark.parametrize("name", EVIL)
def test_other_names_are_refused(name, read):
    with pytest.raises(FileFormatError, match=rf"a\.pt: it names '{name}'"):
        read(tb.archive({"w": tb.tensor(), "evil": EVIL[name]}))
    assert not os.path.exists("executed")


@pytest.mark.parametrize("protocol", range(6))
def test_real_pickles_of_functions(protocol, read):
    for data in (Evil(os.system, "touch executed"), Evil(eval, "open('executed', 'w')"), os.path.join, Evil):
        with pytest.raises(FileFormatError, match=r"it names|its pickle uses"):
            read(tb.archive(pickle.dumps({"w": data} if data is not Evil else Exception(), protocol)))
    assert not os.path.exists("executed")


OPCODES = {
    b"cos\nsystem\n(S'x'\ntR.": "os.system", b"(S'touch executed'\nios\nsystem\n.": "uses STRING",
    b"(ios\nsystem\n.": "uses INST", b"(cos\nsystem\no.": "os.system", b"\x82\x01.": "uses EXT1", b"N.": "a NoneType",
    b"\x80\x02}b.": "damaged", b".": "damaged", b"": "cut short", b"]N\x81.": "uses NEWOBJ", b"R.": "damaged",
    b"(R.": "damaged", b"h\x05.": "damaged", b"}(K\x01s.": "damaged", b"}(K\x01u.": "damaged", b"Q.": "damaged",
    b"}]K\x01s.": "a key is a list", b"}K\x01Q.": "a storage is described", b"\x80\x02}": "cut short",
    b"ccollections\nOrderedDict\nK\x01\x85R.": "it calls", b"r\xff\xff\xff\xff.": "damaged",
    b"}r\xff\xff\xff\x7f.": None, b"\x8e" + struct.pack("<Q", 1 << 60) + b".": "uses BINBYTES8",
    b"\x8d" + struct.pack("<Q", 1 << 62) + b"a.": "expected", b"X\xff\xff\xff\x7fa.": "expected",
    b"(" * 9000 + b"t" * 9001 + b".": "damaged", b"(" * 9000 + b"N" + b"t" * 9000 + b".": "holds a tuple",
    b"\xff.": "damaged", b"\x8a\xff.": "damaged|enough|data",
}


@pytest.mark.parametrize("opcodes, words", OPCODES.items(), ids=[repr(code[:20]) for code in OPCODES])
def test_opcodes(opcodes, words, read):
    tracemalloc.start()
    try:
        if words is None:  # an absurd index of the memo costs nothing
            assert read(tb.archive(opcodes)) == {}
        else:
            with pytest.raises(FileFormatError, match=words):
                read(tb.archive(opcodes))
        assert tracemalloc.get_traced_memory()[1] < 1 << 26
    finally:
        tracemalloc.stop()
    assert not os.path.exists("executed")


COUNT = 1 << 17
CROWDS = {
    "dicts": b"}" * COUNT, "lists": b"]" * COUNT, "tuples": b"N\x85" * COUNT, "nested": b"N" + b"\x85" * COUNT,
    "remembered": b"}\x94" * COUNT, "in a list": b"]" + b"}a" * COUNT,
    "marks": b"(" * COUNT + b"N" + b"t" * COUNT,
    "far": b"N" + b"".join(b"r" + struct.pack("<I", 9 + n) for n in range(COUNT)),
}


@pytest.mark.parametrize("name", CROWDS)
def test_crowds_take_no_memory(name):
    """A few bytes that make much, over and over: no more than honest pickles of that length make of theirs."""
    data = CROWDS[name] + b"."
    torch_pickle.read(b"}.")  # what is imported late
    tracemalloc.start()
    try:
        with pytest.raises(torch_pickle.Refused, match="its pickle makes more than 20 times its size"):
            torch_pickle.read(data)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(data) + (1 << 20) + (1 << 17)
    finally:
        tracemalloc.stop()


def test_tensors_of_nothing():
    """What torch writes in the fewest bytes, thousands of times."""
    for protocol in (2, 4):
        value = {f"{n}": tb.tensor(tb.storage(f"{n}", numel=1), 0, (), ()) for n in range(4000)}
        found = torch_pickle.read(tb.pickled(value, protocol))
        assert len(found) == 4000 and found["7"].storage.key == "7"


@pytest.mark.parametrize("seed", range(3))
def test_random_damage_of_the_pickle(seed, read):
    """Behind a good checksum: whatever comes out lies within the file."""
    rng = np.random.default_rng(seed)
    good = tb.pickled({"a": {"w": tb.tensor(), "b": tb.tensor(size=(3,), stride=(2,))}})
    for _ in range(300):
        data = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] = int(rng.integers(256))
        try:
            found = read(tb.archive(bytes(data)), "a")
        except FileFormatError:
            continue
        assert all(isinstance(name, str) and array.nbytes < 4000 for name, array in found.items())
