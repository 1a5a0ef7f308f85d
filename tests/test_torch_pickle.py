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
    def read(data, key=None, prefix=""):
        path = tmp_path / "a.pt"
        path.write_bytes(data)
        return fl.read_torch(path, key, prefix)

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
def test_other_names_are_inert(name, read):
    """Beside what was asked for they are nothing; asked for, they are refused by name."""
    data = tb.archive({"state_dict": {"a.w": tb.tensor(), "evil": EVIL[name]}, "evil": EVIL[name]})
    assert list(read(data, "state_dict", "a")) == ["w"]
    with pytest.raises(FileFormatError, match=r"a\.pt: 'evil' is an? ") as caught:
        read(data, "state_dict")
    words = {"torch._utils._rebuild_qtensor": "a quantised tensor", "torch.ComplexFloatStorage": "tensor of complex64"}
    assert words.get(name, f" {name},") in str(caught.value)
    assert not os.path.exists("executed")


@pytest.mark.parametrize("protocol", range(2, 6))
def test_real_pickles_of_functions(protocol, read):
    for data in (Evil(os.system, "touch executed"), Evil(eval, "open('executed', 'w')"), os.path.join, Evil, Exception):
        with pytest.raises(FileFormatError, match=r"'w' is (a|the name) (builtins|posix|posixpath|tests?[._])"):
            read(tb.archive(pickle.dumps({"w": data}, protocol)))
    assert not os.path.exists("executed")


def test_text_protocols_are_refused(read):
    """torch.save cannot write them."""
    for protocol in (0, 1):
        with pytest.raises(FileFormatError, match="its pickle uses .*, which torch.save never writes"):
            read(tb.archive(pickle.dumps({"w": True, "v": 1 << 90}, protocol)))


OPCODES = {
    b"cos\nsystem\n(X\x01\0\0\0xtR.": "holds an os.system", b"(S'touch executed'\nios\nsystem\n.": "uses STRING",
    b"(ios\nsystem\n.": "holds an os.system", b"(cos\nsystem\no.": "holds an os.system", b"(K\x01o.": "damaged",
    b"(o.": "damaged", b"\x82\x01.": "uses EXT1", b"\x83\x01\0.": "uses EXT2", b"\x84\x01\0\0\0.": "uses EXT4",
    b"N.": "holds None", b"\x97.": "uses NEXT_BUFFER", b"\x98.": "uses READONLY_BUFFER", b"Px\n.": "uses PERSID",
    b"\x80\x02}b.": "damaged", b".": "damaged", b"": "cut short", b"]N\x81.": "calls something", b"R.": "damaged",
    b"(R.": "damaged", b"h\x05.": "damaged", b"}(K\x01s.": "damaged", b"}(K\x01u.": "damaged", b"Q.": "damaged",
    b"}]K\x01s.": "a name is a list", b"K\x01Q.": "holds a torch.storage.persistent_id",
    b"\x80\x02}": "cut short", b"N(K\x01u.": "damaged", b"](N\x90.": "holds a list", b"\x8f(N\x90.": "a builtins.set",
    b"\x8f(K\x01K\x02u.": "a name is a number", b"\x8fN\x90.": "damaged", b"\x8f(K\x01K\x02u(N\x90.": "damaged",
    b"(N\x91.": "holds a builtins.frozenset", b"co\nC\n)}\x92.": "holds an o.C", b"N)}\x92.": "damaged",
    b"\x8b\x00\x01\0\0" + bytes(256) + b".": "holds a builtins.int", b"\x8b\xff\xff\xff\xff.": "count < 0",
    b"N0}.": None, b"(N1}.": None, b"0.": "damaged", b"1.": "damaged", b"(0.": "damaged",
    b"ccollections\nOrderedDict\nK\x01\x85R.": "holds a collections.OrderedDict", b"r\xff\xff\xff\xff.": "damaged",
    b"}r\xff\xff\xff\x7f.": None, b"\x8e" + struct.pack("<Q", 1 << 60) + b".": "expected",
    b"\x96" + struct.pack("<Q", 1 << 60) + b".": "expected", b"B\xff\xff\xff\xffa.": "expected",
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


COUNT, MANY = 1 << 15, 1 << 17
TEXT = b"X" + struct.pack("<I", 30_000) + b"m" * 30_000
CROWDS = {
    "dicts": b"}" * COUNT, "lists": b"]" * COUNT, "tuples": b"N\x85" * MANY, "nested": b"N" + b"\x85" * MANY,
    "remembered": b"}\x94" * COUNT, "in a list": b"]" + b"}a" * COUNT,
    "marks": b"(" * MANY + b"N" + b"t" * MANY, "a tuple": b"(" + b"N" * (3 * MANY) + b"t",
    "far": b"N" + b"".join(b"r" + struct.pack("<I", 9 + n) for n in range(COUNT)),
    "sets": b"\x8f" * COUNT, "sets of one": b"\x8f(K\x01\x90" * COUNT, "frozen": b"(\x91" * COUNT,
    "objects": b"co\nC\n\x94)\x94" + b"h\x00h\x01R" * COUNT, "nested objects": b"co\nC\n\x94" + b")R" * MANY,
    "arguments": b"N" + b"co\nC\n\x94q\x00" + b"h\x00h\x00\x85R" * MANY, "names": b"c\n\n" * COUNT,
    "long names": TEXT + b"\x94" + b"h\x00h\x00\x93" * COUNT, "states": b"co\nC\n)R" + b"}b" * COUNT,
    "inst": b"(io\nC\n" * COUNT, "keywords": b"co\nC\n\x94" + b"h\x00)N\x92" * COUNT, "large": b"\x8b\0\0\0\0" * COUNT,
    "keys": b"}" + b"(tNs" * COUNT,
    "entries": b"}" + b"".join(b"J" + struct.pack("<i", n) + b"Ns" for n in range(COUNT)),
    "many keys": b"}(" + b"".join(b"J" + struct.pack("<i", n) + b"N" for n in range(MANY)) + b"u",
    "untyped": b"(ctorch._utils\n_rebuild_tensor_v3\n((X\x07\0\0\0storagectorch.storage\nUntypedStorage\nX\0\0\0\0h\0"
    b"M\0\x09tQK\0)))Nctorch\nuint16\nt".replace(b"h\0", b"N") + b"\x940\x940" + b"h\x01h\x00R" * MANY,
    "bytes": b"C\x00" * COUNT, "byte arrays": (b"\x96" + bytes(8)) * COUNT, "persistent": b"K\x01Q" * MANY,
}

CHEAP = {"untyped", "objects", "long names", "bytes", "byte arrays", "states", "large", "entries", "inst", "names"}


@pytest.mark.parametrize("name", CROWDS)
def test_crowds_take_no_memory(name):
    """A few bytes that make much, over and over: no more than honest pickles of that length make of theirs."""
    data = CROWDS[name] + b"."
    torch_pickle.read(b"}.")  # what is imported late
    tracemalloc.start()
    try:
        try:
            torch_pickle.read(data)
        except torch_pickle.Refused as error:
            assert "its pickle makes more than 20 times its size" in str(error)
        else:
            assert name in CHEAP
        assert tracemalloc.get_traced_memory()[1] < 20 * len(data) + (1 << 20) + (1 << 17)
    finally:
        tracemalloc.stop()


def test_keys_that_share_a_hash():
    """A dict of them takes time by the square of their number, so only short integers are hashed by value."""
    value = {n * (2**61 - 1): n for n in range(1, 100)} | {1 << 59: 1, -(1 << 59): 2, 0.5: 3, None: 4, "x": 5}
    found, _ = torch_pickle.read(pickle.dumps(value))
    assert len(found) == len(value) and sum(type(key) is torch_pickle.Key for key in found) == 99
    assert [found[key] for key in (1 << 59, -(1 << 59), 0.5, None, "x")] == [1, 2, 3, 4, 5]


def test_tensors_of_nothing():
    """What torch writes in the fewest bytes, thousands of times."""
    for protocol in (2, 4):
        value = {f"{n}": tb.tensor(tb.storage(f"{n}", numel=1), 0, (), ()) for n in range(4000)}
        found, _ = torch_pickle.read(tb.pickled(value, protocol))
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


def test_sizes_that_no_file_has():
    """Integers of 61 bits and more can be made to share one hash."""
    storage, far = torch_pickle.Storage("0", "FloatStorage", 4), 1 << 60
    found = torch_pickle._rebuild((storage, 5 + 7 * (2**61 - 1), (-(2**70), 3), (2**61 - 1, 1), False, None))
    assert found == torch_pickle.Tensor(storage, far, (-far, 3), (far, 1))
    kind = torch_pickle.Name("torch", "FloatStorage")
    for count in (0, far - 1, far, 1 << 70):
        assert torch_pickle._storage(("storage", kind, "0", "cpu", count)).numel == min(count, far)


def test_entries_that_lie_over_each_other(tmp_path):
    data = bytearray(tb.state_dict({"a": np.ones(50, "f4"), "b": np.ones(50, "f4")}))
    last = data.rfind(b"PK\x01\x02")
    data[last + 20 : last + 28] = struct.pack("<2I", len(data) - 1, len(data) - 1)
    path = tmp_path / "a.pt"
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match="lie over each other"):
        fl.read_torch(path)
