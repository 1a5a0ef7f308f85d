"""What ``fastlstm run`` writes: .npy, .npz and .csv, a block at a time."""

import io
import os
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from .._terminal import Unwritable
from ..whole_files import descriptor_of, write_whole
from .parser import UsageError

KINDS = ("csv", "npy", "npz")
SUFFIXES = tuple(f".{kind}" for kind in ("npy", "npz", "csv"))
_PIECE = 1 << 20


def kind_of(path, told=None):
    """The format of an output: as told, or by the ending of its name; "csv" on standard output."""
    if told or path == "-":
        return told or "csv"
    kind = Path(path).suffix.lower()
    if kind not in SUFFIXES:
        words = f"the suffix must be one of {', '.join(SUFFIXES)}, or --output-format tells"
        raise UsageError(f"cannot write {path}: {words}")
    return kind[1:]


def plain_name(path):
    """A path as it was given; "-" for every name of standard output."""
    return "-" if path is not None and descriptor_of(path) == 1 else path


def is_standard_output(path):
    """Whether what is written to a path goes where standard output goes."""
    if path == "-":
        return True
    try:
        return os.path.samestat(os.stat(path), os.fstat(1))
    except OSError:
        return False


def write(path, pieces):
    """Write pieces to a file, whole or not at all, or one after the other to standard output."""
    if path != "-":
        write_whole(path, pieces)
        return
    out = sys.stdout.buffer
    for piece in pieces:
        try:
            out.write(piece)
            out.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Unwritable(f"cannot write to standard output: {error.strerror or error}") from error


# ---- pieces of bytes --------------------------------------------------------------------------------------------


def pieces_of(kind, blocks, feed, folder=None):
    """The bytes of a file, for blocks of y (t, B, O) that come one after the other, in the layout of the input.

    feed: of the input. folder: where a temporary file may be, of what must be complete before its first byte is known.
    """
    if kind == "csv":
        return _csv(y[:, 0] for y in blocks)
    pieces = _npy(blocks, feed, folder)
    return pieces if kind == "npy" else _npz({"y": pieces})


def pieces_of_arrays(kind, arrays):
    """The same for whole arrays by name: of .npy and .csv there is one."""
    if kind == "npz":
        return _npz({name: _of_array(array) for name, array in arrays.items()})
    [array] = arrays.values()
    return _of_array(array) if kind == "npy" else _csv([np.atleast_2d(array)])


def _csv(blocks):
    width = None
    for y in blocks:
        if width is None:
            width = y.shape[1]
            yield (",".join(f"y{column}" for column in range(width)) + "\n").encode()
            # as many digits as it takes to read the same number back
            line = ",".join(["%.9g" if y.dtype == np.float32 else "%.17g"] * width) + "\n"
        yield ((line * len(y)) % tuple(y.ravel().tolist())).encode()


def _head(shape, dtype):
    file = io.BytesIO()
    head = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, head)
    return file.getvalue()


def _of_array(array):
    yield _head(array.shape, array.dtype)
    yield np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _npy(blocks, feed, folder):
    """y (T, O), (T, B, O) or (B, T, O), as the input has it."""
    blocks = iter(blocks)
    first = next(blocks)
    batch = first.shape[1:2] if feed.batched else ()
    if feed.steps is not None and not feed.axis:
        yield _head((feed.steps, *batch, first.shape[2]), first.dtype)
        while first is not None:
            yield first.reshape(-1).view(np.uint8)
            first = next(blocks, None)
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        steps, width = 0, first.shape[2]
        dtype, row = first.dtype, width * first.dtype.itemsize
        while first is not None:
            if feed.axis:
                for b in range(first.shape[1]):
                    file.seek((b * feed.steps + steps) * row)
                    file.write(np.ascontiguousarray(first[:, b]))
            else:
                file.write(first)
            steps += len(first)
            first = next(blocks, None)
        yield _head((*batch, steps, width) if feed.axis else (steps, *batch, width), dtype)
        file.seek(0)
        while piece := file.read(_PIECE):
            yield piece


class _Gathered:
    """A file to write to whose bytes are taken away as they come."""

    def __init__(self):
        self._found = []

    def write(self, data):
        self._found.append(bytes(data))
        return len(data)

    def flush(self):
        pass

    def take(self):
        found, self._found = self._found, []
        return found


def _npz(arrays):
    """A zip archive without compression, as ``numpy.savez`` writes it."""
    file = _Gathered()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, pieces in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                for piece in pieces:
                    member.write(piece)
                    yield from file.take()
    yield from file.take()
