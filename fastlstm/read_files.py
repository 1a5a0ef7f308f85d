"""What all readers of files share: which files are read, files that change meanwhile, what counts as damage."""

import contextlib
import errno
import os
import stat
import struct
import time
import zlib

_YOUNG = 2.0  # seconds since the last change in which a file may still be in the middle of being written
_CHUNK = 1 << 16
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


def regular(path):
    """The path as text, if it can be opened without waiting: FileFormatError for a pipe, OSError where nothing is."""
    path = os.fsdecode(path)
    if not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):
        raise FileFormatError(f"{path}: not a regular file")
    return path


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
def steady(path):
    """A file that is open for reading; FileFormatError if it is not the same at the end of the block.

    Files are read and never mapped into memory: of one that another process cuts short a mapping ends the process.
    """
    with open(path, "rb") as file:
        before = signature(file)
        yield file
        check_unchanged(path, file, before)


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
