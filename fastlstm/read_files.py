"""What all readers of files share: where a file's bytes come from, files that change meanwhile, what counts as damage.

A reader takes a path, a file's contents in memory, or a binary file object. `as_source` tells them apart; `steady`
opens each of them in the same way, as often as it is asked to. What it gives has `read`, `readinto`, `seek`, `tell`.
"""

import contextlib
import errno
import io
import os
import stat
import struct
import time
import zlib

_YOUNG = 2.0  # seconds since the last change in which a file may still be in the middle of being written
_CHUNK = 1 << 16
_PIECE = 1 << 20  # bytes that a file object is asked for at once
# What bytes that are not what they should be make readers raise, beside ValueError. Everything else comes from
# elsewhere (MemoryError, RuntimeError, exceptions of signal handlers) and says nothing about a file.
_DAMAGE = (
    ArithmeticError, AttributeError, EOFError, LookupError, NotImplementedError, RecursionError, TypeError,
    struct.error, zlib.error,
)


class FileFormatError(ValueError):
    """A file is not a model this version can load; the message is the path and the reason."""


FileFormatError.__module__ = "fastlstm.files"  # where users find it


def excerpt(error, length=300):
    """The words of an error of another library, which may quote half a file, cut to `length` characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= length else text[:length] + "..."


# ---- where the bytes come from ----------------------------------------------------------------------------------

CONTENTS = (bytes, bytearray, memoryview)
_ON_DISK = (io.BufferedReader, io.BufferedRandom, io.FileIO)  # whose file descriptor is that of the bytes they give


class Source:
    """A file that came without a path. ``str()`` gives its name, for messages.

    data: its bytes; None for those of a file on a disk that the caller has open, from byte `start` on of `fd`.
    """

    def __init__(self, name, data=None, fd=None, start=0):
        self.name, self.data, self.fd, self.start = name, data, fd, start

    def __str__(self):
        return self.name

    def open(self):
        """A new file object with these bytes, at position 0."""
        return _Memory(self.data) if self.fd is None else io.BufferedReader(_Rest(self.fd, self.start))


def _check_place(offset):
    """The error of the system for a place before the start of a file, to which damage may send a reader."""
    if offset < 0:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


class _Memory(io.BytesIO):
    """Bytes; what is impossible in a file on a disk is so here."""

    def seek(self, offset, whence=os.SEEK_SET):
        if whence == os.SEEK_SET:
            _check_place(offset)
        return super().seek(offset, whence)


class _Rest(io.RawIOBase):
    """What follows from byte `start` of an open file. The position of whoever opened it stays where it is."""

    def __init__(self, fd, start):
        self._fd, self._start, self._at = fd, start, 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def fileno(self):
        return self._fd

    def seek(self, offset, whence=os.SEEK_SET):
        if whence == os.SEEK_CUR:
            offset += self._at
        elif whence == os.SEEK_END:
            offset += max(0, os.fstat(self._fd).st_size - self._start)
        _check_place(offset)
        self._at = offset
        return offset

    def readinto(self, buffer):
        count = os.preadv(self._fd, [buffer], self._start + self._at)
        self._at += count
        return count


def name_of(file):
    """What messages call a file object: its name if that is a text, else its class in <>."""
    name = getattr(file, "name", None)
    return name if isinstance(name, str) and name else f"<{type(file).__name__}>"


def is_source(given):
    """Whether it is a path, contents, or has a method `read`."""
    if isinstance(given, (str, os.PathLike, Source, *CONTENTS)):
        return True
    return not isinstance(given, type) and callable(getattr(given, "read", None))


def as_source(given, argument="path"):
    """A path as text, or the `Source` of anything else that a file can be read from.

    given: str or os.PathLike for a path; bytes, bytearray or memoryview for a file's contents; an object whose ``read``
    gives bytes for a file that begins at its present position: all of it is read, and its position is behind it then.
    What may change is copied. argument: its name, for errors.

    Raises TypeError for anything else, and for a file object in text mode; FileFormatError for a path or a file object
    of what is no regular file and may have no end; OSError where nothing is. What `read` raises comes as it is.
    """
    if isinstance(given, Source):
        return given
    if isinstance(given, CONTENTS):
        return _with_bytes(f"<{type(given).__name__}>", bytes(given), "it has no bytes")
    if not is_source(given):
        hint = "; its open('rb') gives one" if callable(getattr(given, "open", None)) else ""
        got = f"got {given.__name__}, a class" if isinstance(given, type) else f"got {type(given).__name__}{hint}"
        raise TypeError(f"{argument} must be a path, a file's contents (bytes) or a binary file object, {got}")
    if not isinstance(given, (str, os.PathLike)):
        return _of_file(given, argument)
    path = os.fsdecode(given)
    if not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):
        raise FileFormatError(f"{path}: not a regular file")
    return path


_AT_END = "the file object is at its end; seek(0) brings it to its start"


def _with_bytes(name, data, nothing):
    """The `Source` of contents; nothing: the reason if there are none."""
    if not data:
        raise FileFormatError(f"{name}: nothing to read: {nothing}")
    return Source(name, data)


def _of_file(file, argument):
    """The `Source` of a file object."""
    name = name_of(file)
    if isinstance(file, (io.FileIO, io.BufferedWriter)) and not file.closed and not file.readable():
        raise TypeError(f"{argument} is a file object that is not open for reading ({name})")
    if isinstance(file, io.TextIOBase):
        words = "expected a binary one, such as open(path, 'rb') or its own .buffer"
        raise TypeError(f"{argument} is a file object in text mode ({name}), {words}")
    if type(file) is io.BytesIO:
        return _with_bytes(name, file.read(), _AT_END)  # copies nothing where all of it is read
    if type(file) in _ON_DISK and type(getattr(file, "raw", file)) is io.FileIO and file.readable():
        found = os.fstat(file.fileno())
        if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
            raise FileFormatError(f"{name}: not a regular file")
        if stat.S_ISREG(found.st_mode) and found.st_size and hasattr(os, "preadv"):
            file.flush()
            start = file.tell()
            if start >= found.st_size:
                return _with_bytes(name, b"", _AT_END)
            file.seek(0, os.SEEK_END)
            return Source(name, fd=file.fileno(), start=start)
    return _with_bytes(name, _all_of(file, name, argument), _AT_END)


def _all_of(file, name, argument):
    """The bytes from the present position of a file object to its end."""
    found = io.BytesIO()
    while True:
        piece = file.read(_PIECE)
        if piece is None:
            raise BlockingIOError(errno.EAGAIN, f"{argument}: read() of {name} had no data yet, and does not wait")
        if not isinstance(piece, CONTENTS):
            words = "it is in text mode" if isinstance(piece, str) else f"its read() gave {type(piece).__name__}"
            raise TypeError(f"{argument} must be a binary file object, whose read() gives bytes; {words} ({name})")
        if not len(piece):
            return found.getvalue()  # copies nothing
        found.write(piece)


def first_bytes(source, count):
    """The first bytes of what `as_source` gave, as many as there are."""
    with source.open() if isinstance(source, Source) else open(source, "rb") as file:
        return file.read(count)


def size_of(file):
    """Bytes of an open file. Its position stays."""
    at = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(at)
    return size


# ---- files that change ------------------------------------------------------------------------------------------


def signature(file):
    """What tells whether an open file was written to between two calls; its position is 0 afterwards.

    Clocks of file systems are coarse, and a write that has begun does not move them again. So of a file that was
    changed just now the bytes count, too.
    """
    found, crc = os.fstat(file.fileno()), None
    if time.time() - found.st_mtime < _YOUNG:
        file.seek(0)
        crc = 0
        while piece := file.read(_CHUNK):
            crc = zlib.crc32(piece, crc)
    file.seek(0)
    return found.st_size, found.st_mtime_ns, crc


def check_unchanged(path, file, before):
    """FileFormatError if an open file has changed since its `signature` was `before`."""
    after = signature(file)
    if before[:2] != after[:2] or (None not in (before[2], after[2]) and before[2] != after[2]):
        raise FileFormatError(f"{path}: changed while it was read")


@contextlib.contextmanager
def steady(source):
    """A file that is open for reading; FileFormatError if it is not the same at the end of the block.

    source: what `as_source` gave, or a path. Contents in memory are the reader's own and stay as they are. Files are
    read and never mapped into memory: of one that another process cuts short a mapping ends the process.
    """
    with source.open() if isinstance(source, Source) else open(source, "rb") as file:
        if isinstance(source, Source) and source.fd is None:
            yield file
            return
        before = signature(file)
        yield file
        check_unchanged(source, file, before)


# ---- damage -----------------------------------------------------------------------------------------------------


def is_damage(error):
    """Whether an exception speaks of the bytes of a file, as far as its type tells."""
    from zipfile import BadZipFile  # here: importing the package stays quick

    return isinstance(error, (ValueError, BadZipFile, *_DAMAGE)) and not isinstance(error, OSError)


@contextlib.contextmanager
def refusals(path):
    """What a reader raises for foreign bytes inside comes out as FileFormatError with the path, all else as it is.

    A ValueError is the reader's own words, the other kinds of `is_damage` mean damage.
    """
    try:
        yield
    except FileFormatError:
        raise
    except OSError as error:
        if type(error) is not OSError or error.errno != errno.EINVAL:  # damage sends zipfile to an impossible place
            raise
        raise FileFormatError(f"{path}: damaged ({excerpt(error)})") from None
    except ValueError as error:
        raise FileFormatError(f"{path}: {excerpt(error, 2000)}") from None
    except Exception as error:
        if type(error).__name__ == "BadZipFile" and isinstance(error.__context__, OSError):
            raise error.__context__ from None  # which zipfile takes for a file of another kind
        if not is_damage(error):
            raise
        raise FileFormatError(f"{path}: damaged ({excerpt(error)})") from None
