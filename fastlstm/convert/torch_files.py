"""Checkpoints that torch wrote, read without torch: `read_torch`, `opened`, and `with_prefix` for a part of one.

A ``.pt`` or ``.pth`` file of torch 1.6 or later is a zip archive, nothing in it compressed:

==========================  =============================================================
<name>/data.pkl             a pickle: dicts, names, tensors as views of storages
<name>/data/<key>           the numbers of a storage
<name>/byteorder            "little" or "big"; little where it is missing
==========================  =============================================================

The pickle is never executed: torch_pickle.py reads it, and torch_contents.py finds in it what was asked for. Numbers of
other tensors are not read. Sizes are checked against the file before memory is taken.
Source: torch/serialization.py.
"""

import contextlib
import math
from collections.abc import Mapping

import numpy as np

from ..read_files import as_source, refusals, size_of, steady
from ..safetensors_read import from_bfloat16
from .torch_contents import Entries, entries, find, keys, places, readable, way_out, words
from .torch_pickle import MAX_AXES, STORAGES, read

_CHUNK = 1 << 20
_LEGACY = (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", b"\x80\x02")  # torch's magic number, pickled; any pickle
_WRITE = 'in torch, torch.save(model.state_dict(), "weights.pt") writes one'
_OTHERS = {  # an entry of archives that are written in other ways -> what they are
    "constants.pkl": "a TorchScript archive, which holds a program; in torch: "
    'torch.save(torch.jit.load(path).state_dict(), "weights.pt")',
    "models/model.json": "a program of torch.export; in torch: "
    'torch.save(dict(torch.export.load(path).state_dict), "weights.pt")',
}


# ---- the archive ------------------------------------------------------------------------------------------------


class _Archive:
    """The entries of a checkpoint, by their names behind the first folder, sizes checked."""

    def __init__(self, file, size):
        import zipfile  # here: importing the package stays quick

        self.size, self._zip, self._entries = size, zipfile.ZipFile(file), {}
        names = {info.filename.partition("/")[2] for info in self._zip.infolist()}
        for name, other in _OTHERS.items():
            if name in names:
                raise ValueError(other)
        total = 0
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
            total += info.file_size
            if total > size:
                raise ValueError(f"entries up to {info.filename[:100]!r} lie over each other: {total} bytes in {size}")
        if "data.pkl" not in self._entries:
            raise ValueError(f"a zip archive without data.pkl, not a checkpoint of torch.save; {_WRITE}")

    def read(self, name, expected=None, start=0, stop=None):
        """Bytes start..stop of an entry, as an array of them; `expected`: how many the whole entry must have.

        All of the entry is read, as its checksum is that of the whole, but no more is kept.
        """
        info = self._entries.get(name)
        if info is None:
            raise ValueError(f"{name[:100]!r} is missing")
        if expected is not None and info.file_size != expected:
            raise ValueError(f"{name[:100]!r} has {info.file_size} bytes, expected {expected}")
        stop, at = info.file_size if stop is None else stop, 0
        kept = np.empty(stop - start, np.uint8)
        with self._zip.open(info) as file:
            while piece := file.read(_CHUNK):
                first, last = max(start, at), min(stop, at + len(piece))
                if first < last:
                    kept[first - start : last - start] = np.frombuffer(piece, np.uint8)[first - at : last - at]
                at += len(piece)
        if at != info.file_size:
            raise ValueError(f"{name[:100]!r} is cut short")
        return kept

    def byteorder(self):
        """ "<" or ">"."""
        order = bytes(self.read("byteorder")) if "byteorder" in self._entries else b"little"
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


def _last(tensor):
    """The place in its storage of the last element of a tensor, which is not empty."""
    return tensor.offset + sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride, strict=True))


def _numbers(archive, storage, first, last):
    """The numbers first..last of a storage, as an array that nobody else holds."""
    kind, width = STORAGES[storage.kind], _itemsize(storage.kind)[0]
    kind = {"bool": "u1", "bfloat16": "u2"}.get(kind, kind)
    data = archive.read(f"data/{storage.key}", storage.numel * width, first * width, last * width)
    return data.view(np.dtype(kind).newbyteorder(archive.byteorder()))


def _array(numbers, tensor, first, alone):
    """A C-contiguous array of what a tensor shows; its bounds have been checked.

    first: the place of numbers[0] in the storage; alone: no other tensor shows any of them, so they may be the array.
    """
    kind = STORAGES[tensor.storage.kind]
    if 0 in tensor.size:
        return np.empty(tensor.size, {"bfloat16": "f4"}.get(kind, kind))
    step = numbers.itemsize
    strides = tuple(step * n if size > 1 else 0 for n, size in zip(tensor.stride, tensor.size, strict=True))
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset - first :], tensor.size, strides)
    if kind == "bool":
        return view != 0
    if kind == "bfloat16":
        return from_bfloat16(view)
    if alone and view.flags.c_contiguous and view.dtype.isnative:  # so it shows all of them, in order
        return numbers.reshape(tensor.size)
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
    users, stored = {}, 0
    for tensor in distinct:
        users.setdefault(tensor.storage, []).append(tensor)
    for storage, own in users.items():
        full = [tensor for tensor in own if 0 not in tensor.size]
        first, last = min((t.offset for t in full), default=0), max(map(_last, full), default=-1) + 1
        stored += (last - first) * _itemsize(storage.kind)[0]
        if stored > archive.size:
            raise ValueError(f"storages of {stored} bytes in a file of {archive.size}")
        numbers = _numbers(archive, storage, first, last)
        for tensor in own:
            distinct[tensor] = _array(numbers, tensor, first, len(own) == 1)
    return {name: distinct[tensor] for name, tensor in tensors.items()}


# ---- the state dict ---------------------------------------------------------------------------------------------


class Checkpoint:
    """An open checkpoint. values: name -> `Tensor` or what else is there; told: as of `torch_contents.Entries`.

    several: whether there may be no state dict, but several of them in a list: then `values` is empty.
    """

    def __init__(self, archive, key, several=False):
        self._archive, self._place = archive, ""
        self._root, self._room = read(bytes(archive.read("data.pkl")))
        self._found, self._how = self._root, ""
        if key is not None:
            if not (found := find(self._root, key)):
                raise ValueError(f"holds no dict under {key!r}{self._hint()}")
            self._found, self._how = found[0]
            self._place = f"{key}."
        own = entries(self._found, self._room)
        if own is None and several and self.keys():
            own = Entries({}, {}, self._room)
        if own is None:
            raise ValueError(f"holds {words(self._found)}, expected a state dict{self._hint()}")
        self.values, self.told = own.values, own.told

    def keys(self):
        """Key -> `Entries` of the state dicts and modules inside, those with recurrent layers first."""
        return {f"{self._place}{key}": own for key, own in keys(self._found, self._room).items()}

    def _hint(self):
        """What the key may be, for the end of an error."""
        found = self.keys()
        found = [key for key, own in found.items() if places(own.values)] or list(found)
        return f"; key= may be {' or '.join(map(repr, found[:9]))}" if found else ""

    def _way(self, name):
        return "; if you trust the file, in torch: " + way_out(self._found, self._how, name, self.values[name])

    def why_not(self, name):
        """Why an entry of `values` is no array, in words; "" for those that are read."""
        if not isinstance(name, str):
            return f"a name is {words(name)}, expected text"
        value = self.values[name]
        return "" if readable(value) else f"{name[:100]!r} is {words(value)}, expected a tensor of real numbers"

    def select(self, choose):
        """What `choose` makes of `values` with names of text, a dict; its ValueError with what the key may be."""
        try:
            return choose({name: value for name, value in self.values.items() if isinstance(name, str)})
        except ValueError as error:
            raise ValueError(f"{error}{self._hint()}") from None

    def arrays(self, d, prefix=""):
        """Name -> array. d: a part of `values`, its names without `prefix`. ValueError names what cannot be read.

        What a module keeps as its extra state is left out, unless it is a tensor.
        """
        d = {name: value for name, value in d.items() if readable(value) or not _is_extra(name)}
        for name in d:
            full = f"{prefix}{name}" if isinstance(name, str) else name
            if reason := self.why_not(full):
                raise ValueError(reason + (self._hint() or self._way(full)))
        return _arrays(self._archive, d)


def _is_extra(name):
    """Whether it is the name of what get_extra_state() of a module returned, which may be anything."""
    return isinstance(name, str) and name.rpartition(".")[2] == "_extra_state"


def _start(file):
    """Refuse by its first bytes what is no zip archive."""
    head = file.read(16)
    if not head.startswith(b"PK\x03\x04"):
        if head.startswith(_LEGACY):
            raise ValueError(
                "written in the format torch used before 1.6, which only a pickle interpreter reads; in torch: "
                'torch.save(torch.load(path, weights_only=True), "weights.pt")'
            )
        raise ValueError("neither a zip archive nor anything else that torch.save writes")
    file.seek(0)


@contextlib.contextmanager
def opened(path, key=None, several=False):
    """The `Checkpoint` in a file, for as long as the block lasts; errors of reading are FileFormatErrors with the path.

    key: as of `read_torch`; several: as of `Checkpoint`.
    """
    if key is not None and not isinstance(key, str):
        raise TypeError(f"key must be a string or None, got {type(key).__name__}")
    path = as_source(path)
    with refusals(path), steady(path) as file:
        _start(file)
        yield Checkpoint(_Archive(file, size_of(file)), key, several)


def read_torch(path, key=None, prefix=""):
    """Name -> array of the state dict in a checkpoint of ``torch.save``; torch is not needed, nothing is unpickled.

    path: a ``.pt``, ``.pth`` or ``.ckpt`` file with a dict of tensors or parameters, ``torch.save(model.state_dict(),
    path)``; or with a whole module, ``torch.save(model, path)``: then the dict that its state_dict() would return.
    key: where that is one of several things, its name there: "state_dict"; "net.enc" is "enc" in what is "net" (if no
    name is "net.enc" itself), a number the place in a list.
    prefix: only what is below it, named without it: "encoder.lstm" or "encoder.lstm."; nothing else is read.

    In the place of the path the file's contents (bytes, bytearray, memoryview) are taken, or a binary file object: what
    follows from its present position is the file, and it is left open, at its end. Both are in memory beside what is
    told below, but for files of the disk (``open``). TypeError for anything else, and for text mode; what ``read``
    raises comes as it is.

    Arrays are new, C-contiguous, in the file's order and shapes: float16, float32, float64, int8 to int64, uint8 to
    uint64, bool; bfloat16 is widened to float32. Tensors that are one in the file are one array. What is beside the
    part that was asked for may be anything. A module's extra state is left out.

    Raises FileFormatError (a ValueError: path and what was found) where the part holds anything but such tensors; for
    files before torch 1.6, TorchScript, damage, views outside their storage, and tensors that need more than twice the
    file's size together; and for a file that changes while it is read. Where torch can write a file that is read, the
    message ends with the line to type, which may execute what is in the file. OSErrors, and what has nothing to do with
    the file's bytes, come as they are.
    Memory stays within about twice the size of the tensors, 20 times that of the pickle, and 1 kB for each entry of the
    archive.
    """
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be a string, got {type(prefix).__name__}")
    with opened(path, key) as found:
        if not prefix:
            return found.arrays(found.values)
        place = module_prefix(found.values, prefix)
        return found.arrays(found.select(lambda d: with_prefix(d, place)), place)


def module_prefix(names, prefix):
    """The prefix of the names of a module's tensors: `prefix`, with a dot if it is the name of a module."""
    place = f"{prefix}."
    below = any(isinstance(name, str) and name.startswith(place) for name in names)
    return place if prefix and not prefix.endswith(".") and below else prefix


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
