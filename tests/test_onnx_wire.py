"""Protobuf's wire format, byte by byte: what is read, what is refused, and that nothing is believed."""

import numpy as np
import onnx_bytes as ob
import pytest

from fastlstm.convert import onnx_wire as wire
from fastlstm.convert.onnx_tensors import Bytes, Others, array, described


def whole(data):
    return 0, len(data)


@pytest.mark.parametrize("n", [0, 1, 127, 128, 300, 2**31, 2**63, 2**64 - 1])
def test_varint(n):
    data = b"x" + ob.varint(n) + b"y"
    assert wire.varint(data, 1, len(data)) == (n, len(data) - 1)


def test_varint_may_be_longer_than_it_needs():
    assert wire.varint(b"\x81\x80\x00", 0, 3) == (1, 3)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 9, b"\xff" * 10, b"\xff" * 9 + b"\x7f", b"\x80" * 10 + b"\0"])
def test_bad_varint(data):
    with pytest.raises(ValueError, match="damaged: no number at byte"):
        wire.varint(data, 0, len(data))


@pytest.mark.parametrize("n", [0, 1, -1, 2**63 - 1, -(2**63)])
def test_signed(n):
    assert wire.signed(wire.varint(ob.varint(n), 0, 10)[0]) == n


def test_fields():
    data = ob.field(1, 5) + ob.field(2, "ab") + ob.field(3, 1.5) + ob.varint(1000 << 3 | 1) + bytes(8)
    assert [(n, kind) for n, kind, *_ in wire.fields(data, whole(data))] == [(1, 0), (2, 2), (3, 5), (1000, 1)]
    assert [a for _, kind, a, _ in wire.fields(data, whole(data)) if kind == 0] == [5]
    assert [data[a:b] for n, _, a, b in wire.fields(data, whole(data)) if n == 2] == [b"ab"]
    assert [b - a for n, _, a, b in wire.fields(data, whole(data)) if n > 2] == [4, 8]


@pytest.mark.parametrize("data", [
    b"\x0a\x05abc",  # five bytes where three are left
    b"\x0a" + ob.varint(2**64 - 1) + b"abc",
    b"\x15abc", b"\x11abcdefg",  # four and eight bytes, cut
    b"\x0b", b"\x0c", b"\x0e\x01", b"\x0f",  # groups; kinds that there are not
    b"\x00\x01", b"\x02\x01a",  # number 0
    b"\x08", b"\x80",  # cut before or in the middle of a number
])
def test_damaged_fields(data):
    with pytest.raises(ValueError, match="damaged"):
        list(wire.fields(data, whole(data)))


def test_a_message_ends_where_it_is_told_to():
    data = ob.field(1, "abcdef")
    with pytest.raises(ValueError, match="6 bytes at byte 2, where 3 are left"):
        list(wire.fields(data, (0, 5)))


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 33, 5000])
@pytest.mark.parametrize("width", [4, 8])
def test_runs(count, width):
    """Fields of the same number in one piece, which ends where another one starts, or the message."""
    tag, value = {4: b"\x25", 8: b"\x21"}[width], bytes([37]) * width  # 37 is the tag, too
    run, stride = (tag + value) * count, width + 1
    for before, after in ((b"", b""), (ob.field(1, 5), ob.field(1, 5)), (tag + value + b"\x08\x01", b"\x08\x25")):
        data = before + run + after
        found = [(a, b) for n, kind, a, b in wire.fields(data, whole(data), runs=True) if n == 4]
        assert found[-1] == (len(before) + 1, len(before) + count * stride)
        single = [(a, b) for n, kind, a, b in wire.fields(data, whole(data)) if n == 4]
        assert sum((b - a + 1) // stride for a, b in found) == len(single) == count + before.count(tag + value)
    cut = run[:-1]
    with pytest.raises(ValueError, match="cut short"):
        list(wire.fields(cut, whole(cut), runs=True))
    with pytest.raises(ValueError, match="cut short"):
        list(wire.fields(cut, whole(cut)))


def test_no_runs_of_longer_tags():
    data = (ob.varint(20 << 3 | 5) + b"abcd") * 40
    found = list(wire.fields(data, whole(data), runs=True))
    assert len(found) == 40 and {b - a for _, _, a, b in found} == {4}


def test_message_and_its_limits():
    data = ob.fields(1, [7, 8]) + ob.field(2, "a") + ob.field(9, 1.0)
    assert wire.message(data, whole(data), {1: 0, 2: 2, 3: 2}) == {1: [7, 8], 2: [(6, 7)], 3: []}
    with pytest.raises(ValueError, match="more than 1 times field 1"):
        wire.message(data, whole(data), {1: 0}, 1)
    with pytest.raises(ValueError, match="field 1 is of kind 0, expected 2"):
        wire.message(data, whole(data), {1: 2})
    twice = ob.fields(5, [0.5, 0.5])
    with pytest.raises(ValueError, match="field 5 more than once"):
        wire.message(twice, whole(twice), {5: 5})
    assert wire.one([]) is None and wire.one([], 3) == 3 and wire.one([4]) == 4
    with pytest.raises(ValueError, match="twice"):
        wire.one([1, 1])


def test_text():
    assert wire.text("é".encode(), (0, 2)) == "é" and wire.text(b"", None) == ""
    with pytest.raises(ValueError, match="not UTF-8"):
        wire.text(b"\xff", (0, 1))
    with pytest.raises(ValueError, match="a name of 4097 bytes"):
        wire.text(b"a" * 5000, (0, 4097))


def test_repeated_numbers_packed_and_not():
    packed = ob.field(7, np.array([1.5, -2], "<f4").tobytes()) + ob.field(7, 4.0)
    assert wire.numbers(packed, whole(packed), 7, wire.FIXED32, 3) == [1.5, -2, 4]
    with pytest.raises(ValueError, match="more than 2 numbers"):
        wire.numbers(packed, whole(packed), 7, wire.FIXED32, 2)
    with pytest.raises(ValueError, match="3 bytes of float32"):
        wire.numbers(ob.field(7, b"abc"), (0, 5), 7, wire.FIXED32, 2)
    ints = ob.field(8, ob.varint(1) + ob.varint(-1)) + ob.field(8, 300)
    assert wire.numbers(ints, whole(ints), 8, wire.VARINT, 9) == [1, -1, 300]
    with pytest.raises(ValueError, match="more than 2 numbers"):
        wire.numbers(ints, whole(ints), 8, wire.VARINT, 2)
    with pytest.raises(ValueError, match="field 8 is of kind 0"):
        wire.numbers(ob.field(8, 300), (0, 3), 8, wire.FIXED32, 9)


# ---- attributes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize("value", [1.5, -3, "é", [0.5, 2.0], [1, -2], ["a", "b"]])
def test_attributes(value, typed):
    data = ob.attribute("name", value, typed)
    assert wire.attribute(data, whole(data)) == ("name", value)


@pytest.mark.parametrize("kind, value", [(1, 0.0), (2, 0), (3, ""), (6, []), (7, []), (8, [])])
def test_attribute_of_nothing(kind, value):
    """What writers leave out when it is zero or empty."""
    data = ob.field(1, "name") + ob.field(20, kind)
    assert wire.attribute(data, whole(data)) == ("name", value)


@pytest.mark.parametrize("data, words", [
    (ob.attribute("name", 1) + ob.field(2, 0.5), "type 2 and values in fields .2, 3."),
    (ob.field(1, "name") + ob.field(3, 1) + ob.field(20, 1), "type 1 and values in fields .3."),
    (ob.field(1, "name") + ob.field(3, 1) + ob.field(3, 2), "twice"),
    (ob.field(1, "name") + ob.field(20, 9), "type 9"),  # tensors
    (ob.field(1, "name"), "type 0"),
    (ob.field(1, "name") + ob.field(21, "outer"), "refers to one of a function"),
    (ob.attribute("name", ["a"] * 4097), "more than 4096"),
])
def test_bad_attribute(data, words):
    with pytest.raises(ValueError, match=words):
        wire.attribute(data, whole(data))


# ---- tensors ----------------------------------------------------------------------------------------------------


def tensor_of(data, tmp_path):
    path = tmp_path / "tensor"
    path.write_bytes(data)
    with open(path, "rb") as file:
        source = Bytes(file)
    return array(source, described(source.data, whole(data)), Others(str(tmp_path)))[0]


ARRAYS = {
    "float32": np.array([[1.5, -2.25, 3e38], [0, -0.0, 1e-40]], "f4"), "float64": np.array([[1e300, -2], [3, 4.5]]),
    "float16": np.array([1.5, -2, 65504, 6e-8], "f2"), "bfloat16": np.array([0, 0x3F80, 0xC000, 0xFFFF], "u2"),
}


@pytest.mark.parametrize("how", ["raw", "packed", "unpacked"])
@pytest.mark.parametrize("kind", ARRAYS)
def test_tensors(kind, how, tmp_path):
    wanted = ARRAYS[kind]
    found = tensor_of(ob.tensor("t", wanted, how, kind), tmp_path)
    assert found.shape == wanted.shape and found.dtype == wanted.dtype and found.tobytes() == wanted.tobytes()


def test_packed_in_pieces(tmp_path):
    head = ob.fields(1, [5]) + ob.field(2, 1)
    packed, one = ob.field(4, np.arange(2, dtype="<f4").tobytes()), ob.field(4, 7.0)
    for pieces, wanted in (
        ([packed, one, packed], [0, 1, 7, 0, 1]), ([one, ob.field(8, "t"), one, packed, one], [7, 7, 0, 1, 7]),
        ([one] * 5, [7] * 5), ([packed + b"", packed, one], [0, 1, 0, 1, 7]),
    ):
        assert tensor_of(head + b"".join(pieces), tmp_path).tolist() == wanted


def test_dims_packed_in_pieces(tmp_path):
    data = ob.field(1, ob.varint(2)) + ob.field(1, 3) + ob.field(2, 1) + ob.field(9, bytes(24))
    assert tensor_of(data, tmp_path).shape == (2, 3)


F32 = ob.field(2, 1)


@pytest.mark.parametrize("data, words", [
    (ob.tensor("t", np.zeros(3, "i4")), "holds int32, expected float32, float64, float16 or bfloat16"),
    (ob.field(1, 1) + ob.field(9, b"abcd"), "holds undefined"),
    (ob.field(2, 99), "holds type 99"),
    (ob.field(2, -1), "holds type 18446744073709551615"),
    (ob.fields(1, [2]) + F32 + ob.field(9, bytes(7)), "has 7 bytes, expected 8 for float32 of shape .2,."),
    (ob.fields(1, [2]) + F32 + ob.field(9, bytes(12)), "has 12 bytes, expected 8"),
    (ob.fields(1, [2**40, 2**40]) + F32 + ob.field(9, bytes(8)), "has 8 bytes, expected 4835703278458516698824704"),
    (ob.fields(1, [-2, -2]) + F32 + ob.field(9, bytes(16)), "has shape .-2, -2."),
    (ob.fields(1, [1] * 9) + F32 + ob.field(9, bytes(4)), "more than 8 numbers"),
    (ob.fields(1, [2]) + F32, "has 0 numbers, expected 2"),
    (ob.fields(1, [2**50]) + F32 + ob.field(4, bytes(8)), "has 2 numbers, expected 1125899906842624"),
    (ob.fields(1, [2]) + F32 + ob.field(4, bytes(7)), "numbers of kind 2 and 7 bytes"),
    (ob.fields(1, [2]) + F32 + ob.field(4, 1), "numbers of kind 0"),
    (ob.fields(1, [2]) + F32 + ob.field(10, bytes(16)), "in fields .10., expected 4 or 9"),
    (ob.fields(1, [2]) + F32 + ob.field(4, bytes(8)) + ob.field(9, bytes(8)), "in fields .4, 9."),
    (ob.fields(1, [1]) + F32 + ob.field(9, bytes(4)) * 2, "twice"),
    (ob.fields(1, [1]) + F32 + ob.field(3, b"") + ob.field(9, bytes(4)), "segment"),
    (ob.fields(1, [1]) + ob.field(2, 10) + ob.field(5, 65536), "beyond those of float16, 65536"),
    (ob.fields(1, [1]) + ob.field(2, 10) + ob.field(5, ob.varint(5) * 2), "more than 1 numbers"),
    (ob.fields(1, [3]) + ob.field(2, 10) + ob.field(5, ob.varint(300) * 2), "has 2 numbers, expected 3"),
    (ob.fields(1, [3]) + ob.field(2, 10) + ob.field(5, ob.varint(5)), "has 1 numbers, expected 3"),
])
def test_bad_tensor(data, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        tensor_of(data, tmp_path)


def test_what_onnx_writes():
    """The helper of these tests writes what the package onnx reads as the same."""
    onnx = pytest.importorskip("onnx")
    onnx.checker.check_model(onnx.load_model_from_string(ob.recurrent("LSTM", ob.weights(P=True), activations=["Elu"])))
    for kind, wanted in ARRAYS.items():
        for how in ("raw", "packed", "unpacked"):
            found = onnx.TensorProto.FromString(ob.tensor("t", wanted, how, kind))
            again = onnx.numpy_helper.to_array(found)
            assert again.tobytes() == wanted.tobytes() and again.shape == wanted.shape, (kind, how)
    node = onnx.NodeProto.FromString(ob.node("Op", ["a"], ["b"], "n", "d", i=-1, f=0.5, s="x", l=[1, 2], m=["y"]))
    values = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    assert values == {"i": -1, "f": 0.5, "s": b"x", "l": [1, 2], "m": [b"y"]}


def test_memory_that_is_watched_twice(tmp_path):
    """It is given back when the last array is gone, not the first, and is there again for the next one."""
    wanted = np.arange(3 * 4096, dtype="f4")
    data = ob.tensor("t", wanted)
    (tmp_path / "tensor").write_bytes(data)
    with open(tmp_path / "tensor", "rb") as file:
        source, others = Bytes(file), Others(str(tmp_path))
        tensor = described(source.data, whole(data))
        one, two = (array(source, tensor, others)[0] for _ in range(2))
        source.watch(tensor.span, one)
        source.watch(tensor.span, two)
        resident, piece = source.resident, two[5:]
        del one
        assert np.array_equal(two, wanted) and source.resident == resident
        source.release(tensor.span, piece)  # not while others look there
        del two
        assert np.array_equal(piece, wanted[5:]) and source.resident == resident
        del piece
        assert source.resident <= resident - 8192 or not resident
        assert np.array_equal(array(source, tensor, others)[0], wanted) and source.resident == resident
