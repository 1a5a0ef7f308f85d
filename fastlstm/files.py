"""Models on disk: a safetensors file whose metadata describe the model.

========  ==================================================================
format    "fastlstm"
version   "1"
model     ``model.describe()`` as JSON: class and constructor arguments
others    the user's own strings, ``model.metadata``
========  ==================================================================

Tensors have the names, shapes and dtype of ``model.state_dict()``, so any safetensors reader can
use them. Nothing is ever unpickled. The file holds no packed weights: it means the same on every
machine.
"""

import itertools
import json
import struct
import warnings

import numpy as np

from .module import Module, hollow
from .params import check_flag, not_finite
from .read_files import FileFormatError as FileFormatError
from .read_files import as_source, excerpt, is_damage, refusals, steady
from .safetensors_read import MAX_HEADER, read_header, read_tensor
from .whole_files import as_target, write_whole

FORMAT, CHECKPOINT, VERSION = "fastlstm", "fastlstm checkpoint", 1
_RESERVED = ("format", "version", "model")
TYPES = {np.dtype("float32"): "F32", np.dtype("float64"): "F64"}
_OTHERS = {
    None: "a safetensors file without a fastlstm model. fastlstm.from_torch reads the recurrent layers of one; "
    "other tensors, read with safetensors.numpy.load_file (pip install safetensors), go into load_state_dict",
    CHECKPOINT: "a checkpoint; fastlstm.load_checkpoint reads it",
}
_MEMBERS = 1000  # described members of a model beyond those that have tensors


# ---- saving ------------------------------------------------------------------------------


def check_metadata(metadata, reserved=_RESERVED):
    """A dict of strings that UTF-8 can express, without the keys that describe the model; TypeError or ValueError."""
    if not isinstance(metadata, dict):
        raise TypeError(f"metadata must be a dict of strings, got {type(metadata).__name__}")
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata must map strings to strings, got {key!r}: {value!r}")
        if key in reserved:
            words = "describes" if len(reserved) == 1 else "describe"
            raise ValueError(f"metadata key {key!r} is taken; {', '.join(reserved)} {words} the model")
        try:
            (key + value).encode()
        except UnicodeEncodeError:
            raise ValueError(f"metadata {key!r} holds text that UTF-8 cannot express") from None
    return metadata


def _header(head, tensors):
    """The start of the file: length of the JSON as 8 little-endian bytes, JSON, spaces."""
    entries, end = {"__metadata__": head}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        entries[name] = {
            "dtype": TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the format wants the data aligned
    if len(text) > MAX_HEADER:
        raise ValueError(f"metadata are too large: a header of {len(text)} bytes, at most {MAX_HEADER}")
    return struct.pack("<Q", len(text)) + text


def write_tensors(path, head, metadata, tensors):
    """Write a safetensors file, as `write_whole` does. head, metadata: str -> str; tensors: name -> C-contiguous array.

    The user's `metadata` are sorted by their keys, as readers hand them back in any order.
    """
    start = _header(head | dict(sorted(metadata.items())), tensors)
    write_whole(path, itertools.chain([start], map(_little_endian, tensors.values())))


def save(model, path, metadata=None, *, warn=True):
    """Write `model` to the file `path`, whole or not at all.

    path: str or os.PathLike; or a binary file object, which takes the bytes at its present position, is not flushed and
    stays open. Of such an object nobody can take back what it has taken before an error.
    metadata: dict of str to str to keep beside the model; None writes ``model.metadata``. The
    same model always gives the same bytes. A regular file that was there stays as it was until the
    new one is complete; its mode, owner and group are kept where the system permits, links are
    followed. A device or a pipe is written into. See ``fastlstm.whole_files``. warn: whether to warn.

    Raises TypeError or ValueError for metadata that are no strings or use a reserved key, TypeError
    for another path (bytes and text mode, too), OSError as the system gives it: for a directory, a
    socket, a file that may not be written; what ``write`` of a file object raises comes as it is. Warns
    (RuntimeWarning) of NaN and infinity among the weights, before anything is written: where
    warnings are errors, the file that was there stays.
    """
    if not isinstance(model, Module):
        raise TypeError(f"model must be a Module, got {type(model).__name__}")
    metadata = check_metadata(model.metadata if metadata is None else metadata)
    path = as_target(path)
    weights = model.state_dict()
    if warn:
        warn_if_not_finite(path, weights, 4)
    head = {"format": FORMAT, "version": str(VERSION), "model": json.dumps(model.describe(), allow_nan=False)}
    write_tensors(path, head, metadata, weights)


def _little_endian(weight):
    return weight.astype(weight.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8).data


# ---- loading -----------------------------------------------------------------------------


def described(metadata, key, kind, version, others):
    """The JSON under `key` of a file of this format and version. ValueError: `others` for files of other formats."""
    found = (metadata or {}).get("format")
    if found != kind:
        raise ValueError(others.get(found, others[None]))
    told = metadata.get("version", "")
    if not (told.isascii() and told.isdigit() and len(told) < 10 and int(told) > 0):
        raise ValueError(f"unreadable format version {told[:40]!r}")
    if int(told) > version:
        raise ValueError(f"written by a newer fastlstm (format version {told}, this one reads {version})")
    try:
        return json.loads(metadata.get(key, ""))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the description of the {key} is damaged ({excerpt(error)})") from None


def _check_members(node, tensors, left):
    """Every layer owns a tensor; a description that asks for more would only eat memory and time.

    left: how many members may still come. Returns how many are left after those of `node`.
    """
    if isinstance(node, dict):
        left -= "class" in node
        layers, sizes = node.get("num_layers", 0), node.get("hidden_size")
        if left < 0:
            raise ValueError(f"it has more members than {tensors} tensors can belong to")
        if isinstance(layers, int) and layers > tensors:
            raise ValueError(f"num_layers {layers} with {tensors} tensors")
        if isinstance(sizes, list) and len(sizes) > tensors:
            raise ValueError(f"hidden_size of {len(sizes)} layers with {tensors} tensors")
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            left = _check_members(child, tensors, left)
    return left


def build(description, names):
    """The model without its weights. Anything may be wrong with a description from a file."""
    try:
        members = sum(name.count(".") + 1 for name in names)  # a tensor's name tells the members it is in
        _check_members(description, len(names), members + _MEMBERS)
        with hollow():
            return Module.from_description(description)
    except Exception as error:
        if not is_damage(error):
            raise  # a constructor that ran out of memory or time says nothing about the file
        raise ValueError(f"no model can be built from its description ({excerpt(error)})") from error


def check_tensors(tensors, expected):
    """Compare names, shapes and dtypes, naming everything that differs. expected: name -> (shape, dtype)."""
    problems = [f"missing {name}" for name in expected if name not in tensors]
    problems += [f"unexpected {name}" for name in sorted(set(tensors) - set(expected))]
    for name in expected:
        if name not in tensors:
            continue
        (wanted, dtype), shape, kind = expected[name], tensors[name].shape, tensors[name].dtype
        if shape != tuple(wanted):
            problems.append(f"{name} has shape {shape}, expected {tuple(wanted)}")
        elif kind != TYPES[dtype]:
            problems.append(f"{name} holds {kind}, expected {TYPES[dtype]}")
    if problems:
        words = "; ".join(problems[:20]) + ("; ..." if len(problems) > 20 else "")
        raise ValueError(f"tensors do not fit the model: {words}")


def _read(file):
    """(model, weights) of a file that has passed every check."""
    metadata, tensors = read_header(file)
    model = build(described(metadata, "model", FORMAT, VERSION, _OTHERS), tensors)
    expected = model._weight_shapes()
    check_tensors(tensors, {name: (shape, model.dtype) for name, shape in expected.items()})
    weights = {name: read_tensor(file, name, tensors[name]) for name in expected}
    model.metadata = {key: metadata[key] for key in sorted(metadata) if key not in _RESERVED}
    return model, weights


def warn_if_not_finite(path, weights, stacklevel=3):
    """A RuntimeWarning that names the arrays which hold NaN or infinity, if there are any."""
    odd = not_finite(weights)
    if odd:
        warnings.warn(f"{path}: NaN or infinity in {', '.join(odd)}", RuntimeWarning, stacklevel=stacklevel)


def load(path, *, pack=False):
    """The model saved in the file `path`, its notes in ``model.metadata``.

    path: str or os.PathLike; or the file's contents: bytes, bytearray, memoryview; or a binary file
    object: what follows from its present position is the file, and it is left open, at its end.
    pack: True packs the weights as well (`Module.pack`), which takes their memory once more, so
    that the first call is not the slow one.

    Raises FileFormatError (a ValueError: path and reason) for a file that is damaged, cut short,
    not ours, of a newer version, of an unknown class, or whose tensors do not fit its
    description, and for one that changes while it is read; nothing is loaded then. TypeError for
    another path, a file object in text mode too. OSErrors, MemoryError, what ``read`` of a file
    object raises and whatever has nothing to do with the file's bytes come as they are. Warns
    (RuntimeWarning) of NaN and infinity among the weights. Memory stays within the size of the
    file, 30 times that of its header (names, shapes, notes) and 10 kB for each layer, of which
    there are no more than tensors. Contents and file objects are in memory beside that, but for
    files of the disk (``open``).
    """
    path, pack = as_source(path), check_flag("pack", pack)
    with refusals(path), steady(path) as file:
        model, weights = _read(file)
    warn_if_not_finite(path, weights)
    model._replace_weights(weights)
    return model.pack() if pack else model
