"""Files written whole or not at all: `write_whole`, which everything that writes a file here goes through.

A regular file is written under a temporary name in the folder of the target, brought to the disk, and renamed. There
are few temporary names in a folder, and whoever writes holds a lock on his: what a killed process has left there is
not locked, and the next file that is written into the folder removes it. Devices and pipes are written into.

A file object that the caller has opened takes the bytes, too. What it has taken when an error comes cannot be undone.
"""

import errno
import functools
import io
import operator
import os
import re
import stat
import time
from contextlib import suppress

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from .read_files import CONTENTS, name_of

TEMPORARY = tuple(f".fastlstm-{n}.tmp" for n in range(16))  # names in a folder; more writers at once get random ones
_PLAIN = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOCTTY", 0)
_UNFOLLOWED = _PLAIN | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_PIECE = 1 << 20  # bytes that a file object is given at once
_LEFT_BEHIND = 3600  # seconds without a change, after which a file is abandoned where the system has no locks


def write_whole(path, pieces):
    """Write `pieces`, an iterable of bytes or C-contiguous buffers, to the file `path`: all of them or nothing.

    path: or a `Target`, whose file object takes them at its present position and stays open; it is not flushed.
    A regular file that was there stays as it was until the new one is complete and on the disk; its mode, owner, group
    and extended attributes are kept as far as the system permits; links are followed. A device or a pipe is written
    into, which may wait for a reader. Standard output and standard error, by such a name as /dev/stdout, and what the
    process has opened to append to, are written into at the place where they stand, whatever they are. A process that
    is killed meanwhile leaves at most one temporary file, which the next file that is written into the folder removes.

    Raises OSError as the system gives it, among them IsADirectoryError; PermissionError where ``open(path, "wb")``
    would; OSError for a socket.
    """
    path = as_target(path)
    if isinstance(path, Target):
        _write_to(path, pieces)
        return
    found = _existing(path)
    shared = _shared_descriptor(path)
    if shared is not None:
        _write_on(shared, pieces)
        return
    target = os.path.realpath(path)
    if found is None:
        _replace(target, None, pieces)
    elif stat.S_ISREG(found.st_mode) and (found.st_nlink or os.path.exists(target)):
        _replace(target, _writable(path), pieces)
    else:  # a device, a pipe, or a file that is open and has no name any more, behind /proc/self/fd
        _write_into(path, found, pieces)


def write_figure(path, figure, kind, **options):
    """Write a figure of matplotlib, in the format `kind` ("png"), to the file `path`: the whole of it or nothing.

    options: more arguments of the figure's ``savefig``.
    """
    file = io.BytesIO()
    figure.savefig(file, format=kind, **options)
    write_whole(path, [file.getbuffer()])


# ---- file objects -----------------------------------------------------------------------------------------------


class Target:
    """A file object that takes the bytes of a file. ``str()`` gives its name, for messages."""

    def __init__(self, file):
        self.file, self.name = file, name_of(file)

    def __str__(self):
        return self.name


def as_target(given, argument="path"):
    """A path as text, or the `Target` of a binary file object. argument: its name, for errors.

    Raises TypeError for anything else, bytes among them: where files are read they are contents and not a path.
    """
    if isinstance(given, Target):
        return given
    if isinstance(given, (str, os.PathLike)):
        return os.fsdecode(given)
    if isinstance(given, CONTENTS):
        got = f"{type(given).__name__}; os.fsdecode makes a path of bytes"
    elif isinstance(given, io.TextIOBase):
        got = f"one in text mode, {name_of(given)}"
    elif isinstance(given, type) or not callable(getattr(given, "write", None)):
        got = type(given).__name__
    elif isinstance(given, (io.FileIO, io.BufferedReader)) and not given.closed and not given.writable():
        got = f"one that is not open for writing, {name_of(given)}"
    else:
        return Target(given)
    raise TypeError(f"{argument} must be a path or a binary file object that can be written to, got {got}")


def _write_to(target, pieces):
    """Give all bytes to a file object, however few it takes at a time. Of arrays it gets copies, which it may keep."""
    for piece in pieces:
        view = memoryview(piece)
        if not view.nbytes:
            continue
        with view.cast("B") as view:
            for at in range(0, len(view), _PIECE):
                left = bytes(view[at : at + _PIECE])
                while left:
                    left = memoryview(left)[_taken(target, left) :]


def _taken(target, data):
    """How many of the bytes the file object has taken."""
    count = target.file.write(data)
    if count is None:  # of a raw file that does not wait: nothing; of a class that does not count: all
        if isinstance(target.file, io.RawIOBase):
            raise BlockingIOError(errno.EAGAIN, f"{target}: write() took nothing, and does not wait")
        return len(data)
    count = operator.index(count)
    if not 0 < count <= len(data):
        raise OSError(errno.EIO, f"{target}: write() of {len(data)} bytes says that it took {count}")
    return count


# ---- the target -------------------------------------------------------------------------------------------------


def _existing(path):
    """What `path` is, links followed; None where nothing is. Refuses what no file can be written to."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        if not path:
            raise
        found = None
    ends = path.endswith(os.sep) or (os.altsep is not None and path.endswith(os.altsep))
    if ends or (found is not None and stat.S_ISDIR(found.st_mode)):
        raise IsADirectoryError(errno.EISDIR, "cannot write a file there: it is a directory", path)
    if found is not None and stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.ENXIO, "cannot write a file there: it is a socket", path)
    return found


def _is_there(path, found):
    try:
        return os.path.samestat(os.lstat(path), found)
    except OSError:
        return False


def _writable(path):
    """What is known of a file that may be written to; the error of ``open`` for one that may not."""
    fd = os.open(path, os.O_WRONLY | _PLAIN)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def descriptor_of(path):
    """The number of the open file that a path names, such as /dev/stdout, /dev/fd/1 or a link to one; else None."""
    open_files = rf"/dev/fd|/proc/{os.getpid()}/(task/\d+/)?fd"
    for _ in range(40):  # as many links as Linux follows
        folder, name = os.path.split(path)
        try:
            folder = os.path.realpath(folder or ".")
            if name.isascii() and name.isdigit() and re.fullmatch(open_files, folder):
                return int(name)
            path = os.path.join(folder, os.readlink(os.path.join(folder, name)))
        except (OSError, ValueError):
            return None
    return None


def _shared_descriptor(path):
    """The number of an open file that others write to, too: it must be neither replaced nor cut to nothing."""
    descriptor = descriptor_of(path)
    if descriptor is None or fcntl is None:
        return None
    try:
        appends = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND
    except OSError:
        return None
    return descriptor if appends or descriptor in (1, 2) else None


def _write_on(descriptor, pieces):
    """Write at the place where an open file stands. It stays open."""
    with open(descriptor, "wb", closefd=False) as file:
        for piece in pieces:
            file.write(piece)


def _write_into(path, found, pieces):
    flags = os.O_WRONLY | _PLAIN | (os.O_TRUNC if stat.S_ISREG(found.st_mode) else 0)
    with open(os.open(path, flags), "wb") as file:
        for piece in pieces:
            file.write(piece)


# ---- the temporary file -----------------------------------------------------------------------------------------


def _lock(fd):
    """Take the lock of an open file: True, False if somebody has it, None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES) else None


def _is_abandoned(fd):
    """Whether the process that wrote an open temporary file has ended; its lock is ours then."""
    locked = _lock(fd)
    return time.time() - os.fstat(fd).st_mtime > _LEFT_BEHIND if locked is None else locked


def _remove_abandoned(folder):
    for name in TEMPORARY:
        path = os.path.join(folder, name)
        try:
            fd = os.open(path, os.O_RDWR | _UNFOLLOWED)
        except OSError:  # nothing is there, in most cases
            continue
        with suppress(OSError):
            if _is_abandoned(fd) and _is_there(path, os.fstat(fd)):
                if fcntl is None:
                    os.close(fd)  # Windows removes no file that is open
                    fd = None
                os.unlink(path)
        if fd is not None:
            os.close(fd)


def _temporary(folder, mode):
    """(file, path) of a new file that is locked, in a folder. An exception of a signal's handler closes it."""
    names = iter(TEMPORARY)
    while True:
        name = next(names, None) or f".fastlstm-{os.urandom(8).hex()}.tmp"
        path = os.path.join(folder, name)
        try:
            file = open(path, "x+b", opener=functools.partial(os.open, mode=mode))  # noqa: SIM115
        except FileExistsError:
            continue
        if _lock(file.fileno()) is not False and _is_there(path, os.fstat(file.fileno())):
            return file, path
        file.close()  # another writer removes it as abandoned, as it had no lock yet


def _keep_attributes(fd, target, kept):
    """Give a new file mode, owner, group and extended attributes of the one it will replace, as far as permitted."""
    mode = stat.S_IMODE(kept.st_mode)
    if hasattr(os, "fchown"):
        try:
            os.fchown(fd, -1, kept.st_gid)
        except OSError:  # what its group might do with the file, another group may only if everybody may
            mode = (mode & ~0o2070) | (mode & 0o070 & (mode & 0o007) << 3)
        try:
            os.fchown(fd, kept.st_uid, -1)
        except OSError:
            mode &= ~stat.S_ISUID
    if hasattr(os, "fchmod"):
        with suppress(OSError):  # some file systems have no modes to set
            os.fchmod(fd, mode)
    if hasattr(os, "listxattr"):
        with suppress(OSError):
            for name in os.listxattr(target):
                with suppress(OSError):
                    os.setxattr(fd, name, os.getxattr(target, name))


def _replace(target, kept, pieces):
    """Write a new file and rename it to `target`. kept: of the file that is there, None for none."""
    folder = os.path.dirname(target)
    _remove_abandoned(folder)
    try:
        file, temporary = _temporary(folder, 0o666 if kept is None else 0o600)
    except OSError as error:
        raise OSError(error.errno, error.strerror, target) from None  # not of a name that the caller never gave
    fd = file.fileno()
    mine = os.fstat(fd)
    try:
        with file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            if kept is not None:
                _keep_attributes(fd, target, kept)
            os.fsync(fd)  # else a crash may leave the new name on an empty file
            if fcntl is not None:
                os.replace(temporary, target)  # with the lock still held
        if fcntl is None:
            os.replace(temporary, target)  # Windows renames no file that is open
    except BaseException as error:
        with suppress(OSError):
            if _is_there(temporary, mine):  # not that of another writer, after the renaming
                os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, temporary):
            raise type(error)(error.errno, error.strerror, target) from None  # the name that the caller gave
        raise
    _sync_folder(folder)


def _sync_folder(folder):
    """Bring the new name to the disk; some systems and file systems cannot."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _PLAIN)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise
