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

import errno
import itertools
import json
import os
import stat
import struct
import warnings
from contextlib import contextmanager, suppress

import numpy as np
from safetensors import safe_open

from .module import Module, hollow

VERSION = 1
_RESERVED = ("format", "version", "model")
_TYPES = {np.dtype("float32"): "F32", np.dtype("float64"): "F64"}
_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format itself


class FileFormatError(ValueError):
    """A file is not a model this version can load; the message is the path and the reason."""


def excerpt(error, length=300):
    """The words of an error of another library, which may quote half a file, cut to `length` characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= length else text[:length] + "..."


def regular(path):
    """The path as text, if it can be opened without waiting: FileFormatError for a pipe, OSError where nothing is."""
    path = os.fsdecode(path)
    if not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):
        raise FileFormatError(f"{path}: not a regular file")
    return path


@contextmanager
def refusals(path):
    """What a reader of foreign bytes raises inside comes out as FileFormatError with the path; OSErrors as they come.

    A ValueError is the reader's own words, anything else means damage.
    """
    try:
        yield
    except FileFormatError:
        raise
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # EINVAL: damage sends zipfile to an impossible place
            raise
        raise FileFormatError(f"{path}: damaged ({excerpt(error)})") from None
    except ValueError as error:
        raise FileFormatError(f"{path}: {excerpt(error, 2000)}") from None
    except Exception as error:  # zipfile, pickletools and what a description may hold raise many kinds
        raise FileFormatError(f"{path}: damaged ({excerpt(error)})") from None


def not_finite(weights):
    """Names of the arrays that hold NaN or infinity."""
    # A sum of squares would overflow and a mask would need memory; the extremes carry NaN along.
    return [name for name, w in weights.items() if w.size and not np.isfinite([w.min(), w.max()]).all()]


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


def _header(model, weights, metadata):
    """The start of the file: length of the JSON as 8 little-endian bytes, JSON, spaces."""
    description = json.dumps(model.describe(), allow_nan=False)
    head = {"format": "fastlstm", "version": str(VERSION), "model": description}
    head.update(sorted(metadata.items()))  # readers hand them back in any order
    entries, end = {"__metadata__": head}, 0
    for name, weight in weights.items():
        begin, end = end, end + weight.nbytes
        entries[name] = {
            "dtype": _TYPES[weight.dtype],
            "shape": list(weight.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the format wants the data aligned
    if len(text) > _MAX_HEADER:
        raise ValueError(f"metadata are too large: a header of {len(text)} bytes, at most {_MAX_HEADER}")
    return struct.pack("<Q", len(text)) + text


def write_whole(path, pieces):
    """Write `pieces`, bytes or C-contiguous buffers, to the file `path`: all of them or nothing.

    A file that was there stays as it was until the new one is complete; its permissions are kept, a symbolic link is
    followed. Raises OSError as the system gives it.
    """
    path = os.path.realpath(os.fsdecode(path))
    if os.path.isdir(path):
        raise IsADirectoryError(f"cannot save a model to {path}: it is a directory")

    temporary = f"{path}.{os.urandom(4).hex()}.tmp"
    try:
        with open(temporary, "xb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())  # else a crash may leave the new name on an empty file
        with suppress(FileNotFoundError):
            os.chmod(temporary, stat.S_IMODE(os.stat(path).st_mode))
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def save(model, path, metadata=None, *, warn=True):
    """Write `model` to the file `path`, whole or not at all.

    metadata: dict of str to str to keep beside the model; None writes ``model.metadata``. The
    same model always gives the same bytes. A file that was there stays as it was until the new
    one is complete; its permissions are kept, a symbolic link is followed. warn: whether to warn.

    Raises TypeError or ValueError for metadata that are no strings or use a reserved key, OSError
    as the system gives it. Warns (RuntimeWarning) of NaN and infinity among the weights, before
    anything is written: where warnings are errors, the file that was there stays.
    """
    if not isinstance(model, Module):
        raise TypeError(f"model must be a Module, got {type(model).__name__}")
    metadata = check_metadata(model.metadata if metadata is None else metadata)
    path = os.fsdecode(path)
    weights = model.state_dict()
    if warn:
        _warn_if_not_finite(path, weights, 4)
    header = _header(model, weights, metadata)
    write_whole(path, itertools.chain([header], map(_little_endian, weights.values())))


def _little_endian(weight):
    return weight.astype(weight.dtype.newbyteorder("<"), copy=False).data


# ---- loading -----------------------------------------------------------------------------


def _check_frame(path, file):
    """Refuse what cannot be safetensors by its first eight bytes, before anything is read."""
    size = os.fstat(file.fileno()).st_size
    if size < 8:
        raise FileFormatError(f"{path}: {size} bytes are too few for a model")
    (length,) = struct.unpack("<Q", file.read(8))
    if length > min(size - 8, _MAX_HEADER):
        raise FileFormatError(
            f"{path}: not a safetensors file, or cut short "
            f"(it announces a header of {length} bytes and has {size} in all)"
        )


def _check_metadata_of(path, metadata):
    """The description of the model, parsed. Refuses other people's files and newer ones."""
    if not metadata or metadata.get("format") != "fastlstm":
        raise FileFormatError(
            f"{path}: a safetensors file without a fastlstm model. To use its tensors, build the "
            "model, read them with safetensors.numpy.load_file and pass them to load_state_dict"
        )
    version = metadata.get("version", "")
    if not (version.isascii() and version.isdigit() and len(version) < 10 and int(version) > 0):
        raise FileFormatError(f"{path}: unreadable format version {version[:40]!r}")
    if int(version) > VERSION:
        raise FileFormatError(
            f"{path}: written by a newer fastlstm (format version {version}, this one reads {VERSION})"
        )
    try:
        return json.loads(metadata.get("model", ""))
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: the description of the model is damaged ({excerpt(error)})") from error


def _check_layers(node, tensors):
    """Every layer owns a tensor; a description that asks for more would only eat memory."""
    if isinstance(node, dict):
        layers, sizes = node.get("num_layers", 0), node.get("hidden_size")
        if isinstance(layers, int) and layers > tensors:
            raise ValueError(f"num_layers {layers} with {tensors} tensors")
        if isinstance(sizes, list) and len(sizes) > tensors:
            raise ValueError(f"hidden_size of {len(sizes)} layers with {tensors} tensors")
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            _check_layers(child, tensors)


def _build(path, description, tensors):
    """The model without its weights. Anything may be wrong with a description from a file."""
    try:
        _check_layers(description, tensors)
        with hollow(), warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy's complaints about absurd sizes
            return Module.from_description(description)
    except Exception as error:
        raise FileFormatError(f"{path}: no model can be built from its description ({excerpt(error)})") from error


def _check_tensors(path, handle, expected, dtype):
    """Compare names, shapes and dtype with the model's, naming everything that differs."""
    found = set(handle.keys())
    problems = [f"missing {name}" for name in expected if name not in found]
    problems += [f"unexpected {name}" for name in sorted(found - set(expected))]
    for name in expected:
        if name not in found:
            continue
        part = handle.get_slice(name)
        shape, kind = tuple(part.get_shape()), part.get_dtype()
        if shape != tuple(expected[name]):
            problems.append(f"{name} has shape {shape}, expected {tuple(expected[name])}")
        elif kind != _TYPES[dtype]:
            problems.append(f"{name} holds {kind}, expected {_TYPES[dtype]}")
    if problems:
        words = "; ".join(problems[:20]) + ("; ..." if len(problems) > 20 else "")
        raise FileFormatError(f"{path}: tensors do not fit the model: {words}")


def _read(path):
    """(model, weights) of a file that has passed every check."""
    with safe_open(path, framework="numpy") as handle:
        metadata = handle.metadata()
        description = _check_metadata_of(path, metadata)
        model = _build(path, description, len(handle.keys()))
        _check_tensors(path, handle, model._weight_shapes(), model.dtype)
        # get_tensor copies out of the file, so these arrays belong to nobody else.
        weights = {name: handle.get_tensor(name) for name in model._weight_shapes()}
    model.metadata = {key: metadata[key] for key in sorted(metadata) if key not in _RESERVED}
    return model, weights


def _warn_if_not_finite(path, weights, stacklevel=3):
    odd = not_finite(weights)
    if odd:
        warnings.warn(f"{path}: NaN or infinity in {', '.join(odd)}", RuntimeWarning, stacklevel=stacklevel)


def load(path):
    """The model saved in the file `path`, its notes in ``model.metadata``.

    Raises FileFormatError (a ValueError: path and reason) for a file that is damaged, cut short,
    not ours, of a newer version, of an unknown class, or whose tensors do not fit its
    description; nothing is loaded then. FileNotFoundError, PermissionError and other OSErrors
    come as they are. Warns (RuntimeWarning) of NaN and infinity among the weights. Memory stays
    within about twice the size of the file, whatever the file says.
    """
    path = regular(path)
    with open(path, "rb") as file:
        _check_frame(path, file)
    try:
        model, weights = _read(path)
    except (FileFormatError, OSError):
        raise
    except Exception as error:  # safetensors' own kinds, and numpy's for element types it lacks
        raise FileFormatError(f"{path}: damaged ({excerpt(error)})") from error
    _warn_if_not_finite(path, weights)
    model._replace_weights(weights)
    return model
