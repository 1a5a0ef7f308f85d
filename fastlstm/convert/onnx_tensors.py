"""Tensors of an ONNX file as arrays that own nothing, where the file allows it; tensors in files beside it.

A weight is float32 or float64, or float16 or bfloat16, which a layer widens to float32; tensors of which weights are
computed may hold integers or booleans, too. Numbers are raw bytes, little-endian, in the model or in another file of
its folder, or a field of floats, doubles, or (of all other types) ints.
Source: TensorProto in onnx.proto; external data: ONNX's ExternalData.md.
"""

import errno
import math
import mmap
import os
import re
import stat
import weakref
from typing import NamedTuple

import numpy as np

from ..read_files import check_unchanged, signature, size_of
from .onnx_wire import FIXED32, FIXED64, LENGTH, VARINT, fields, message, numbers, one, signed, text, varint

# TensorProto.DataType -> (name, dtype in the file, field that holds numbers one by one, its kind)
WEIGHTS = {
    1: ("float32", "<f4", 4, FIXED32), 11: ("float64", "<f8", 10, FIXED64), 10: ("float16", "<f2", 5, VARINT),
    16: ("bfloat16", "<u2", 5, VARINT),
}
TYPES = WEIGHTS | {
    2: ("uint8", "u1", 5, VARINT), 3: ("int8", "i1", 5, VARINT), 4: ("uint16", "<u2", 5, VARINT),
    5: ("int16", "<i2", 5, VARINT), 6: ("int32", "<i4", 5, VARINT), 7: ("int64", "<i8", 7, VARINT),
    9: ("bool", "?", 5, VARINT), 12: ("uint32", "<u4", 11, VARINT), 13: ("uint64", "<u8", 11, VARINT),
    21: ("uint4", "u1", 5, VARINT), 22: ("int4", "u1", 5, VARINT),
}
_OTHERS = {
    0: "undefined", 8: "string", 14: "complex64", 15: "complex128", 17: "float8e4m3fn", 18: "float8e4m3fnuz",
    19: "float8e5m2", 20: "float8e5m2fnuz", 23: "float4e2m1", 24: "float8e8m0", 25: "uint2", 26: "int2",
}
_FOURS = ("uint4", "int4")  # two of them in a byte, the lower half first
MAX_AXES = 8
_DIMS, _TYPE, _SEGMENT, _NAME, _RAW, _EXTERNAL, _LOCATION = 1, 2, 3, 8, 9, 13, 14
_KINDS = {_TYPE: VARINT, _SEGMENT: LENGTH, _NAME: LENGTH, _RAW: LENGTH, _EXTERNAL: LENGTH, _LOCATION: VARINT}
_DATA = {4, 5, 6, 7, _RAW, 10, 11}  # every field that can hold numbers


_GIVES_BACK = hasattr(mmap.mmap, "madvise") and hasattr(mmap, "MADV_DONTNEED")


class Bytes:
    """A file's bytes in memory that can be given back piece by piece, and are read again when they are needed again.

    The file itself is never mapped (see read_files.py); it stays open.
    """

    def __init__(self, file):
        """Raises ValueError for a file that is being cut short."""
        self._file, self.size = file, size_of(file)
        self._watched = {}  # span of a message -> arrays that look into it
        self._given_back, self._away = {}, 0  # span of a message -> bytes that are not in memory; their sum
        if self.size and hasattr(mmap, "MAP_ANONYMOUS"):
            self.data = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        else:
            self.data = bytearray(self.size)
        self._start = np.frombuffer(self.data, np.uint8).ctypes.data if self.size else 0
        self._read(0, self.size)

    def _read(self, start, end):
        self._file.seek(start)
        with memoryview(self.data) as every, every[start:end] as part:
            if self._file.readinto(part) != end - start:
                raise ValueError("cut short while it was read")

    def need(self, span):
        """Have the bytes of a message in memory."""
        if span in self._given_back:
            self._away -= self._given_back.pop(span)
            self._read(*span)

    @property
    def resident(self):
        """Bytes that are in memory; 0 where the system takes none back."""
        return self.size - self._away if _GIVES_BACK else 0

    def watch(self, span, array):
        """Have the memory of a message given back when the last array is gone that looks into it."""
        while isinstance(array.base, np.ndarray):
            array = array.base
        self._watched[span] = self._watched.get(span, 0) + 1
        weakref.finalize(array, self._unwatch, span, *self._place(array)).atexit = False

    def _unwatch(self, span, start, end):
        self._watched[span] -= 1
        if not self._watched[span]:
            del self._watched[span]
            self._give_back(span, start, end)

    def _place(self, piece):
        start = piece.ctypes.data - self._start
        return start, start + sum((n - 1) * step for n, step in zip(piece.shape, piece.strides, strict=True)) + (
            piece.itemsize)

    def release(self, span, piece):
        """Give back the memory of `piece`, an array that looks into the message `span`, whose numbers are copied."""
        if piece.size and span not in self._watched:
            self._give_back(span, *self._place(piece))

    def _give_back(self, span, start, end):
        if not _GIVES_BACK:
            return
        start, end = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
        if start < end:
            self._given_back[span] = self._given_back.get(span, 0) + end - start
            self._away += end - start
            self.data.madvise(mmap.MADV_DONTNEED, start, end - start)


class Tensor(NamedTuple):
    """A tensor: where its message is, what it says of itself, its place in another file if it has one."""

    span: tuple
    type: str
    shape: tuple
    external: dict | None

    @property
    def count(self):
        """How many numbers."""
        return math.prod(self.shape)

    @property
    def is_weight(self):
        """Whether a layer takes such numbers."""
        return any(self.type == row[0] for row in WEIGHTS.values())


def described(data, span, every=False):
    """The `Tensor` in a message. every: also of types that are no weights; ValueError for others, and wrong shapes."""
    found, known = message(data, span, _KINDS), TYPES if every else WEIGHTS
    code = one(found[_TYPE], 0)
    if code not in known:
        name = TYPES[code][0] if code in TYPES else _OTHERS.get(code, f"type {code}")
        words = "numbers that are read" if every else "float32, float64, float16 or bfloat16"
        raise ValueError(f"holds {name}, expected {words}")
    if found[_SEGMENT]:
        raise ValueError("is a segment of a tensor, which is not read")
    shape = tuple(numbers(data, span, _DIMS, VARINT, MAX_AXES))
    if min(shape, default=0) < 0:
        raise ValueError(f"has shape {shape}")
    external, present = None, {number for number, *_ in fields(data, span, runs=True)} & _DATA
    if one(found[_LOCATION], 0) or found[_EXTERNAL]:
        if present or one(found[_LOCATION], 0) != 1:
            raise ValueError(f"is in another file and in this one: location {one(found[_LOCATION], 0)}")
        entries = dict(_entry(data, entry) for entry in found[_EXTERNAL])
        external = {name: entries[name] for name in ("location", "offset", "length") if name in entries}
    return Tensor(span, TYPES[code][0], shape, external)


def width_of(tensor):
    """Bytes of each number of an array of a `Tensor`."""
    return next(np.dtype(row[1]).itemsize for row in TYPES.values() if row[0] == tensor.type)


def _entry(data, span):
    found = message(data, span, {1: LENGTH, 2: LENGTH})
    return text(data, one(found[1])), text(data, one(found[2]))


# ---- numbers ----------------------------------------------------------------------------------------------------


def array(source, tensor, others):
    """(array in the tensor's shape, its place); bfloat16 as its bits, uint16.

    source: `Bytes`; others: `Others`. The place is `source` where the array looks into it, a `Place` in another file,
    or None. Raises ValueError for sizes that differ.
    """
    dtype, number, kind = next(row[1:] for row in TYPES.values() if row[0] == tensor.type)
    if tensor.type in _FOURS:
        packed = tensor._replace(type="uint8", shape=(-(-tensor.count // 2),))
        return _unpacked(array(source, packed, others)[0], tensor), None
    needed = tensor.count * np.dtype(dtype).itemsize
    if not needed:
        return np.empty(tensor.shape, dtype), None
    if tensor.external is not None:
        place = others.place(tensor.external)
        _check_size(tensor, place.length, needed)
        return others.read(place, np.empty(tensor.shape, dtype)), place
    source.need(tensor.span)
    spans = [(a, b) for n, how, a, b in _of_data(source.data, tensor, (number, _RAW)) if n == _RAW]
    if spans:
        at, end = one(spans)
        _check_size(tensor, end - at, needed)
        return np.frombuffer(source.data, dtype, tensor.count, at).reshape(tensor.shape), source
    found, looks_in = _one_by_one(source.data, tensor, dtype, number, kind)
    return found.reshape(tensor.shape), source if looks_in else None


def _unpacked(pairs, tensor):
    """Numbers of four bits, two of them in each byte, as numbers of eight."""
    found = np.empty(2 * pairs.size, np.uint8)
    found[::2], found[1::2] = pairs & 15, pairs >> 4
    if tensor.type == "int4":
        found = (found ^ 8).view(np.int8) - np.int8(8)
    return found.view(np.dtype(found.dtype, metadata={"bits": 4}))[: tensor.count].reshape(tensor.shape)


def _check_size(tensor, length, needed):
    if length != needed:
        raise ValueError(f"has {length} bytes, expected {needed} for {tensor.type} of shape {tensor.shape}")


def _of_data(data, tensor, allowed):
    """The fields with numbers, all of them the same one of `allowed`."""
    found = {number for number, *_ in fields(data, tensor.span, runs=True)} & _DATA
    if len(found) > 1 or found - set(allowed):
        raise ValueError(f"{tensor.type} has its numbers in fields {sorted(found)}, expected {allowed[0]} or {_RAW}")
    return (field for field in fields(data, tensor.span, runs=True) if field[0] in found)


def _one_by_one(data, tensor, dtype, number, kind):
    """(numbers of a repeated field, packed or not; whether they are a view of the data).

    They are counted first, so that no more memory is taken than there are.
    """
    width = {FIXED32: 4, FIXED64: 8, VARINT: 1}[kind]
    pieces, size = 0, 0
    for _, how, a, b in _of_data(data, tensor, (number, _RAW)):
        if how not in (kind, LENGTH) or (how == LENGTH and (b - a) % width):
            raise ValueError(f"damaged: numbers of kind {how} and {b - a} bytes")
        size += 1 if how == VARINT else (b - a) // width if how == LENGTH else (b - a + 1) // (width + 1)
        pieces += 1
    if size < tensor.count or (kind != VARINT and size != tensor.count):
        raise ValueError(f"has {size} numbers, expected {tensor.count} for shape {tensor.shape}")
    found, at = None if pieces == 1 and kind != VARINT else np.empty(tensor.count, dtype), 0
    for _, how, a, b in _of_data(data, tensor, (number, _RAW)):
        if kind == VARINT:
            at = _ints(found, at, [a] if how == VARINT else _varints(data, a, b), tensor.type)
            continue
        step = width if how == LENGTH else width + 1  # a tag between
        piece = np.ndarray((b - a + step - width) // step, dtype, data, a, (step,))
        if found is None:
            return piece, True
        found[at : at + len(piece)] = piece
        at += len(piece)
    if at != tensor.count:
        raise ValueError(f"has {at} numbers, expected {tensor.count} for shape {tensor.shape}")
    return found, False


def _varints(data, at, end):
    while at < end:
        value, at = varint(data, at, end)
        yield value


def _ints(found, at, values, kind):
    """Store integers, of float types each the bits of a number; gives where the next one goes."""
    places = found.view(np.uint16) if found.dtype.kind == "f" else found
    least, most = (0, 1) if kind == "bool" else (np.iinfo(places.dtype).min, np.iinfo(places.dtype).max)
    for value in values:
        value = signed(value) if least < 0 else value
        if not least <= value <= most or at == len(places):
            raise ValueError(f"has more than {len(places)} numbers, or one beyond those of {kind}, {value}")
        places[at] = value
        at += 1
    return at


# ---- in another file --------------------------------------------------------------------------------------------


def _integer(external, name, default):
    value = external.get(name, default)
    if not re.fullmatch("[0-9]{1,18}", value):
        raise ValueError(f"is in another file, at {name} {value[:40]!r}")
    return int(value)


def _missing(location, error):
    """An OSError of another file; ValueError where it comes from what the model says of it."""
    known = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG}
    if error.errno not in known:
        return error
    return ValueError(f"is in another file, {location[:200]!r}: {error.strerror}")


def _inside(folder, location):
    """The real path of a file that lies in the folder of the model or below, a regular file; else ValueError."""
    parts = re.split(r"[\\/]", location)
    if not location or "\0" in location or os.path.isabs(location) or ".." in parts or re.match("[A-Za-z]:", location):
        raise ValueError(f"is in another file, {location[:200]!r}, expected one in the folder of the model")
    folder = os.path.realpath(folder)
    path = os.path.realpath(os.path.join(folder, location))
    if os.path.commonpath([folder, path]) != folder:
        raise ValueError(f"is in another file, {location[:200]!r}, a link that leaves the folder of the model")
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        raise _missing(location, error) from None
    if not regular:
        raise ValueError(f"is in another file, {location[:200]!r}, which is not a regular file")
    return path


class Place(NamedTuple):
    """Bytes of another file; name: as the model gives it. file: which one it is, by whatever name; size: all of it."""

    name: str
    path: str
    file: tuple
    size: int
    at: int
    length: int


class Others:
    """The other files of a model, in its folder: opened when they are asked for, read piece by piece.

    folder: None where the model came without a path, so that nothing lies beside it.
    """

    def __init__(self, folder):
        self._folder, self._before = folder, {}  # path -> `signature` when it was first opened

    def _open(self, name, path):
        try:
            return open(path, "rb")
        except OSError as error:
            raise _missing(name, error) from None

    def place(self, external):
        """The `Place` of a tensor."""
        name = external.get("location", "")
        if self._folder is None:
            raise ValueError(f"is in another file, {name[:200]!r}: give the path of the model, next to which it lies")
        path = _inside(self._folder, name)
        with self._open(name, path) as file:
            found = os.fstat(file.fileno())
            if path not in self._before:
                self._before[path] = signature(file)
        at = _integer(external, "offset", "0")
        length = _integer(external, "length", str(max(0, found.st_size - at)))
        if at + length > found.st_size:
            words = f"at offset {at} with length {length}, but that has {found.st_size} bytes"
            raise ValueError(f"is in another file, {name[:200]!r}, {words}")
        return Place(name, path, (found.st_dev, found.st_ino), found.st_size, at, length)

    def read(self, place, target):
        """`target`, a new array of `place.length` bytes, with the numbers there."""
        with self._open(place.name, place.path) as file:
            file.seek(place.at)
            if file.readinto(target.reshape(-1).view(np.uint8)) != place.length:
                raise ValueError(f"is in another file, {place.name[:200]!r}, which was cut short while it was read")
        return target

    def check_unchanged(self):
        """FileFormatError where one of them has changed since it was first read."""
        for path, before in self._before.items():
            with open(path, "rb") as file:
                check_unchanged(path, file, before)
