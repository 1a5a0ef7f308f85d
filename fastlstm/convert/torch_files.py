"""Checkpoints that torch wrote, read without torch: `read_torch`, and `with_prefix` for a part of one.

A ``.pt`` or ``.pth`` file of torch 1.6 or later is a zip archive, nothing in it compressed:

==========================  =============================================================
<name>/data.pkl             a pickle: dicts, names, tensors as views of storages
<name>/data/<key>           the numbers of a storage
<name>/byteorder            "little" or "big"; little where it is missing
==========================  =============================================================

The pickle is never executed: torch_pickle.py reads it. Sizes are checked against the file before memory is taken.
Source: torch/serialization.py.
"""

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np

from ..read_files import as_source, refusals, size_of, steady
from ..safetensors_read import from_bfloat16
from .torch_pickle import MAX_AXES, STORAGES, Tensor, read

_LEGACY = (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", b"\x80\x02")  # torch's magic number, pickled; any pickle


# ---- the archive ------------------------------------------------------------------------------------------------


class _Archive:
    """The entries of a checkpoint, by their names behind the first folder, sizes checked."""

    def __init__(self, file, size):
        import zipfile  # here: importing the package stays quick

        self.size, self._zip, self._entries = size, zipfile.ZipFile(file), {}
        for info in self._zip.infolist():
            _, _, name = info.filename.partition("/")
            if info.flag_bits & 1:
                raise ValueError(f"{info.filename[:100]!r} is encrypted, which torch never does")
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise ValueError(f"{info.filename[:100]!r} is compressed, which torch never does")
            if info.file_size > size:
                raise ValueError(f"{info.filename[:100]!r} claims {info.file_size} bytes, the file has {size}")
            if name in self._entries:
                raise ValueError(f"there is more than one {name[:100]!r}")
            self._entries[name] = info
        if "constants.pkl" in self._entries:
            raise ValueError("a TorchScript archive, not a state dict: torch.save(model.state_dict(), path) writes one")
        if "data.pkl" not in self._entries:
            raise ValueError("a zip archive without data.pkl, not a checkpoint of torch.save")

    def read(self, name, expected=None):
        """Bytes of an entry, whose number is `expected` if given."""
        info = self._entries.get(name)
        if info is None:
            raise ValueError(f"{name[:100]!r} is missing")
        if expected is not None and info.file_size != expected:
            raise ValueError(f"{name[:100]!r} has {info.file_size} bytes, expected {expected}")
        data = self._zip.read(info)
        if len(data) != info.file_size:
            raise ValueError(f"{name[:100]!r} is cut short")
        return data

    def byteorder(self):
        """ "<" or ">"."""
        order = self.read("byteorder") if "byteorder" in self._entries else b"little"
        if order not in (b"little", b"big"):
            raise ValueError(f"unknown byte order {order[:20]!r}")
        return "<" if order == b"little" else ">"


# ---- tensors ----------------------------------------------------------------------------------------------------


def _itemsize(kind):
    """(bytes of an element in the file, and in the array)."""
    name = STORAGES[kind]
    return (2, 4) if name == "bfloat16" else (np.dtype(name).itemsize,) * 2


def _check_view(name, tensor):
    """Bytes of the array a tensor will be; ValueError where it leaves its storage."""
    offset, size, stride, numel = tensor.offset, tensor.size, tensor.stride, tensor.storage.numel
    if numel < 0 or offset < 0 or len(size) != len(stride) or len(size) > MAX_AXES or min((*size, *stride, 0)) < 0:
        raise ValueError(f"{name}: impossible shape {size[:9]}, strides {stride[:9]}, offset {offset} of {numel}")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count and last >= numel:
        raise ValueError(f"{name}: shape {size}, strides {stride} and offset {offset} leave a storage of {numel}")
    return count * _itemsize(tensor.storage.kind)[1]


def _numbers(archive, storage):
    """The numbers of a storage, as an array (numel,) that owns nothing."""
    data = archive.read(f"data/{storage.key}", storage.numel * _itemsize(storage.kind)[0])
    kind = STORAGES[storage.kind]
    if kind in ("bool", "bfloat16"):
        kind = {"bool": "u1", "bfloat16": "u2"}[kind]
    return np.frombuffer(data, np.dtype(kind).newbyteorder(archive.byteorder()))


def _array(numbers, tensor):
    """A new C-contiguous array of what a tensor shows; its bounds have been checked."""
    kind = STORAGES[tensor.storage.kind]
    if 0 in tensor.size:
        return np.empty(tensor.size, {"bfloat16": "f4"}.get(kind, kind))
    step = numbers.itemsize
    strides = tuple(step * n if size > 1 else 0 for n, size in zip(tensor.stride, tensor.size, strict=True))
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.size, strides)
    if kind == "bool":
        return view != 0
    if kind == "bfloat16":
        return from_bfloat16(view)
    return np.array(view, kind, order="C")


def _arrays(archive, tensors):
    """Name -> array. What is the same view twice in the file (tied weights) is the same array twice."""
    distinct = dict.fromkeys(tensors.values())
    total = 0
    for name, tensor in tensors.items():
        needed = _check_view(name, tensor)
        total += needed if distinct[tensor] is None else 0
        distinct[tensor] = name
        if total > 2 * archive.size:
            raise ValueError(f"tensors up to {name} need {total} bytes, but the file has {archive.size}")
    uses, open_storages, stored = Counter(tensor.storage for tensor in distinct), {}, 0
    for tensor in distinct:
        storage = tensor.storage
        if storage not in open_storages:
            open_storages[storage] = _numbers(archive, storage)
            stored += open_storages[storage].nbytes
            if stored > archive.size:
                raise ValueError(f"storages of {stored} bytes in a file of {archive.size}")
        distinct[tensor] = _array(open_storages[storage], tensor)
        uses[storage] -= 1
        if not uses[storage]:
            open_storages[storage] = None  # its bytes go; a further use would be one counted above
    return {name: distinct[tensor] for name, tensor in tensors.items()}


# ---- the state dict ---------------------------------------------------------------------------------------------


def _tensors(found, key):
    """Name -> `Tensor` of the state dict in what the pickle describes."""
    if not isinstance(found, dict):
        raise ValueError(f"holds a {type(found).__name__}, expected a state dict")
    inner = [name for name, value in found.items() if isinstance(name, str) and isinstance(value, dict)]
    hint = f"; key= may be {' or '.join(repr(name[:60]) for name in inner[:9])}" if inner else ""
    if key is not None:
        if key not in inner:
            raise ValueError(f"holds no dict under {key!r}{hint}")
        found, hint = found[key], ""
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            kind = "number" if isinstance(value, (int, float)) else type(value).__name__
            raise ValueError(f"{str(name)[:100]!r} is a {kind}, expected a tensor{hint}")
    return found


def _start(file):
    """Refuse by its first bytes what is no zip archive."""
    head = file.read(16)
    if not head.startswith(b"PK\x03\x04"):
        if head.startswith(_LEGACY):
            raise ValueError(
                "written in the format torch used before 1.6, which only a pickle interpreter reads: "
                "torch.save(torch.load(path, weights_only=True), path) in any later torch writes the present one"
            )
        raise ValueError("neither a zip archive nor anything else that torch.save writes")
    file.seek(0)


def read_torch(path, key=None):
    """Name -> array of the state dict in a checkpoint of ``torch.save``; torch is not needed, nothing is unpickled.

    path: a ``.pt`` or ``.pth`` file with a dict of tensors or parameters: ``torch.save(model.state_dict(), path)``.
    key: where the state dict is one of several things in a dict, its name there, e.g. "state_dict".

    In the place of the path the file's contents (bytes, bytearray, memoryview) are taken, or a binary file object: what
    follows from its present position is the file, and it is left open, at its end. Both are in memory beside what is
    told below, but for files of the disk (``open``). TypeError for anything else, and for text mode; what ``read``
    raises comes as it is.

    Arrays are new, C-contiguous, in the file's order and shapes: float16, float32, float64, int8 to int64, uint8, bool;
    bfloat16 is widened to float32. Tensors that are one in the file are one array.

    Raises FileFormatError (a ValueError: path and what was found) for all else: a pickle that names anything but
    tensors, other number types, files before torch 1.6, TorchScript, damage, views outside their storage, and tensors
    that need more than twice the file's size together, and a file that changes while it is read. OSErrors, and what has
    nothing to do with the file's bytes, come as they are. Memory stays within about twice the size of the file, 20
    times that of its pickle, and 1 kB for each entry of the archive.
    """
    if key is not None and not isinstance(key, str):
        raise TypeError(f"key must be a string or None, got {type(key).__name__}")
    path = as_source(path)
    with refusals(path), steady(path) as file:
        _start(file)
        archive = _Archive(file, size_of(file))
        return _arrays(archive, _tensors(read(archive.read("data.pkl")), key))


def with_prefix(d, prefix):
    """The entries of a state dict whose names start with `prefix`, named without it.

    d: a mapping of names to arrays; prefix: e.g. "encoder.lstm.". The arrays are those of `d`, not copies.
    ``lstm.load_state_dict(with_prefix(read_torch(path), "encoder.lstm."))`` stays strict: what is missing or
    unexpected below the prefix is named. Raises ValueError if no name starts so, TypeError for other types.
    """
    if not isinstance(d, Mapping):
        raise TypeError(f"d must map names to arrays, got {type(d).__name__}")
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be a string, got {type(prefix).__name__}")
    found = {name[len(prefix) :]: value for name, value in d.items() if name.startswith(prefix)}
    if not found:
        known = sorted({name.rpartition(".")[0] + "." for name in d if "." in name})
        words = f"; there are {', '.join(map(repr, known[:12]))}" if known else ""
        raise ValueError(f"no name starts with {prefix!r}{words}")
    return found
