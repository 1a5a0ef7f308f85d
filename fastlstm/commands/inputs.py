"""What ``fastlstm run`` reads: arrays in .npy, .npz and .csv files or on standard input, a block at a time.

Files are read and never mapped into memory: of one that another process cuts short a mapping ends the process.
"""

import contextlib
import math
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from ..read_files import excerpt, is_damage
from .csv_read import Table, parse_columns
from .parser import UsageError

KINDS = ("csv", "npy", "npz")
_ENDINGS = {".npy": "npy", ".npz": "npz", ".csv": "csv", ".tsv": "csv", ".txt": "csv"}
_PACKED = (".gz", ".bz2", ".xz")
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def kind_of(path, told=None):
    """The format of an input: as told, or by the ending of its name; "csv" of standard input."""
    if told or path == "-":
        return told or "csv"
    name = path.lower()
    for ending in _PACKED:
        name = name.removesuffix(ending)
    kind = _ENDINGS.get(Path(name).suffix)
    if kind is None:
        words = f"the suffix must be one of {', '.join(_ENDINGS)}, or --input-format tells"
        raise UsageError(f"cannot read {path}: {words}")
    return kind


@contextlib.contextmanager
def _refusals(path):
    """Errors of reading, in words."""
    try:
        yield
    except UsageError:
        raise
    except FileNotFoundError as error:
        raise UsageError(f"no such input: {path}") from error
    except UnicodeError as error:
        encoding = getattr(error, "encoding", "such text")
        raise UsageError(f"cannot read {path}: by its first bytes {encoding}, which it is not all along") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # NumPy's errors for damaged files range from EOFError to BadZipFile
        if not is_damage(error) and type(error).__name__ != "LZMAError":
            raise
        raise UsageError(f"cannot read {path}: {excerpt(error)}") from error


@contextlib.contextmanager
def opened(path, kind, array=None, columns=None, header=None, allow_nan=False):
    """An `ArraySource` or a `TableSource`. The options are those of the command; UsageError where they do not fit."""
    if array is not None and kind != "npz":
        raise UsageError(f"--array is for .npz files, got {path}")
    if kind != "csv" and (columns or header is not None):
        raise UsageError(f"{'--columns' if columns else '--header'} is for .csv files, got {path}")
    columns = parse_columns(columns)
    name = "standard input" if path == "-" else path
    with contextlib.ExitStack() as stack:
        with _refusals(name):
            base = _standard_input() if path == "-" else stack.enter_context(Path(path).open("rb"))
            if kind == "npz":
                source = _of_archive(name, _seekable(base, stack), array, stack)
            else:
                file, packed = _unpacked(base, name)
                if kind == "csv":
                    source = TableSource(name, Table(file, name, columns, header, allow_nan), base)
                else:
                    source = ArraySource(name, file, None if packed else _size(base), not packed and base.seekable())
        yield source


def _standard_input():
    if sys.stdin is None:
        raise UsageError("standard input is closed")
    return sys.stdin.buffer


def _seekable(base, stack):
    """A file in which one can go back: what comes through a pipe is kept on the disk."""
    if base.seekable():
        return base
    file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    shutil.copyfileobj(base, file)
    file.seek(0)
    return file


def _size(file):
    """Bytes of a regular file; None of what has no size."""
    return os.fstat(file.fileno()).st_size if file.seekable() else None


def _unpacked(base, name):
    """(file, whether it is compressed); told by the first bytes, whatever the name says."""
    head = base.peek(6)
    if head.startswith(b"\x1f\x8b"):
        import gzip

        return gzip.GzipFile(fileobj=base), True
    if head.startswith(b"BZh"):
        import bz2

        return bz2.BZ2File(base), True
    if head.startswith(b"\xfd7zXZ\0"):
        import lzma

        return lzma.LZMAFile(base), True
    if head.startswith(b"PK\x03\x04"):  # 30 bytes, then the name of the first file inside
        first = base.peek(30)[26:]
        if first[4 : 4 + int.from_bytes(first[:2], "little")].endswith(b".npy"):
            raise UsageError(f"cannot read {name}: it holds arrays of NumPy (.npz): --input-format npz reads it")
    other = {b"PK\x03\x04": "a zip archive (.xlsx is one, too)", b"\x28\xb5\x2f\xfd": "compressed by zstd"}
    for magic, words in other.items():
        if head.startswith(magic):
            raise UsageError(f"cannot read {name}: it is {words}; unpack it first, or save it as .csv")
    return base, False


# ---- tables -----------------------------------------------------------------------------------------------------


class TableSource:
    """A text file of numbers: shape (None, columns), as the number of its rows is known at its end."""

    dtype = np.dtype(np.float64)
    time_axes = (0,)

    def __init__(self, name, table, base):
        self.name, self._table, self._base = name, table, base
        self.shape, self._lines = (None, table.width), None
        self.total = _size(base) if base.seekable() else None  # of what `done` counts

    @property
    def notes(self):
        """Sentences for the user about what has been read so far."""
        return self._table.notes

    def done(self):
        """How far it has been read."""
        return self._base.tell()

    def place(self, index):
        """Words for an element of the block that came last."""
        return self._table.place(self._lines[index[0]], index[1])

    def is_split(self):
        """Whether what separates the cells of a row was recognised."""
        return self._table.is_split

    def names(self):
        """Words for the columns that are fed."""
        return ", ".join(self._table.column(k) for k in range(min(self._table.width, 12)))

    def blocks(self, axis, steps):
        """Arrays (t, columns), t at most `steps`."""
        with _refusals(self.name):
            for values, lines in self._table.blocks():
                for start in range(0, len(lines), steps):
                    self._lines = lines[start : start + steps]
                    yield values[start : start + steps]


# ---- arrays -----------------------------------------------------------------------------------------------------


def _of_archive(name, file, array, stack):
    import zipfile

    archive = stack.enter_context(zipfile.ZipFile(file))
    names = [member.removesuffix(".npy") for member in archive.namelist() if member.endswith(".npy")]
    if array is None:
        array = "x" if "x" in names else names[0] if len(names) == 1 else None
    if array not in names:
        wanted = "has no array 'x'; choose one with --array" if array is None else f"has no array {array!r}"
        raise UsageError(f"{name} {wanted}: {', '.join(names[:20]) or 'it is empty'}")
    info = archive.getinfo(f"{array}.npy")
    return ArraySource(name, stack.enter_context(archive.open(info)), info.file_size, False)


class ArraySource:
    """An .npy file. size: of the file in bytes, None if unknown. seekable: whether one can go back in it.

    Raises UsageError unless it holds numbers and as many as it announces: nothing is allocated before.
    """

    notes = ()

    def __init__(self, name, file, size, seekable):
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:  # names beyond ASCII, which numbers have not
            raise UsageError(f"{name} must hold numbers, one row per step; its array has fields")
        self.shape, fortran, self.dtype = _HEADERS[version](file)
        if self.dtype.hasobject:
            raise UsageError(f"cannot read {name}: it holds objects, which are pickles and not read")
        if self.dtype.kind not in "fiub" or not self.shape or 0 in self.shape:
            words = f"got {self.dtype} of shape {self.shape}"
            raise UsageError(f"{name} must hold numbers, one row per step; {words}")
        needed = math.prod(self.shape) * self.dtype.itemsize
        if size is not None and needed > size:
            raise ValueError(f"damaged: an array of shape {self.shape} needs {needed} bytes, the file has {size}")
        self.name, self._file, self._seekable, self._fortran = name, file, seekable, fortran
        self._start, self._first, self._axis = file.tell() if seekable else 0, 0, 0
        self.total, self.time_axes = None, (0, 1)

    def done(self):
        """How far it has been read: elements along the axis of `blocks`."""
        return self._first

    def place(self, index):
        """Words for an element of the block that came last."""
        return f"element {[int(i) + (self._first if k == self._axis else 0) for k, i in enumerate(index)]}"

    def blocks(self, axis, steps):
        """Arrays that are up to `steps` long along `axis` and whole along the others, in order."""
        self.total, self._axis = self.shape[axis], axis
        order, k = (self.shape[::-1], len(self.shape) - 1 - axis) if self._fortran else (self.shape, axis)
        outer, inner = math.prod(order[:k]), math.prod(order[k + 1 :])
        with _refusals(self.name):
            if outer > 1 and not self._seekable:
                steps = order[k]  # all of it must be read to have the end of the first step
            for first in range(0, order[k], steps):
                count = min(steps, order[k] - first)
                found = np.empty((outer, count * inner), self.dtype)
                for row, part in enumerate(found):
                    if outer > 1 and self._seekable:
                        self._file.seek(self._start + (row * order[k] + first) * inner * self.dtype.itemsize)
                    self._fill(part)
                found = found.reshape(*order[:k], count, *order[k + 1 :])
                self._first = first
                yield found.T if self._fortran else found

    def _fill(self, part):
        """Read a contiguous array; the file may have been cut short since it was opened."""
        view, done = memoryview(part.view(np.uint8)), 0
        while done < len(view):
            count = self._file.readinto(view[done:])
            if not count:
                raise UsageError(f"cannot read {self.name}: it ends before its array of shape {self.shape} does")
            done += count
