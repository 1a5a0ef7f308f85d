"""What the commands share: models in, files out, warnings as lines."""

import contextlib
import errno
import os
import stat
import sys

from .parser import Failure, UsageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}  # nothing that the user typed


def s(count):
    """The end of a plural."""
    return "" if count == 1 else "s"


# ---- models -----------------------------------------------------------------------------------------------------


def model_options(arguments):
    """The options about a model's file that were given, as `formats.contents` takes them."""
    given = {"key": arguments.key, "nonlinearity": arguments.nonlinearity, "batch_first": arguments.batch_first or None}
    return {name: value for name, value in given.items() if value is not None}


def load(path, name=None, **options):
    """The one model of a file, or the one called `name`."""
    from ..convert import formats

    return read(path, formats.only_model, name=name, **options)


def read(path, reader, **options):
    """What a reader of convert/formats.py makes of a file; its warnings as lines of their own."""
    if path == "-":
        raise UsageError("a model is not read from standard input: give the name of a file")
    try:
        with warnings_as_lines():
            return reader(path, **options)
    except FileNotFoundError as error:
        raise UsageError(f"no such model: {path}") from error
    except OSError as error:
        raise UsageError(f"cannot load {path}: {error.strerror or error}") from error
    except (ImportError, NotImplementedError, TypeError, ValueError) as error:
        reason = str(error).removeprefix(f"{path}: ").replace("; key= may be ", "; --key may be ")
        raise UsageError(f"cannot load {path}: {reason}") from error


@contextlib.contextmanager
def warnings_as_lines():
    """What warns inside is printed as lines on standard error."""
    import warnings

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        print("fastlstm: warning:", " ".join(str(warning.message).split()), file=sys.stderr)


# ---- files ------------------------------------------------------------------------------------------------------


def check_suffix(path, suffixes):
    """Refuse an output whose name ends otherwise."""
    if os.path.splitext(path)[1].lower() not in suffixes:
        raise UsageError(f"cannot write {path}: the suffix must be one of {', '.join(suffixes)}")


def check_output(path):
    """Refuse an output that cannot be written, as far as that is known before any work is done."""
    folder = os.path.dirname(path) or "."
    reason = None
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            reason = "it is a directory"
        elif not os.access(path, os.W_OK):
            reason = os.strerror(errno.EACCES)
    except FileNotFoundError:
        found = None
        if not os.path.isdir(folder):
            reason = f"there is no folder {folder}"
        elif os.path.basename(path) == "":
            reason = "it is a directory"
    except NotADirectoryError:
        reason = f"there is no folder {folder}"
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
    if reason is None and (found is None or stat.S_ISREG(found.st_mode)):
        where = os.path.dirname(os.path.realpath(path))
        if not os.access(where, os.W_OK | os.X_OK):
            reason = f"no file can be made in the folder {where}"
    if reason is not None:
        raise UsageError(f"cannot write {path}: {reason}")


def check_other_file(path, other, what):
    """Refuse an output that is what is read; "-": standard output; as the other one: standard input."""
    try:
        found = os.fstat(sys.stdin.fileno()) if other == "-" else os.stat(other)
        output = os.fstat(sys.stdout.fileno()) if path == "-" else os.stat(path)
        same = os.path.samestat(output, found) and stat.S_ISREG(found.st_mode)
    except (AttributeError, OSError, ValueError):
        return  # one of the two is not there
    if same:
        where, end = ("to standard output", "read meanwhile") if path == "-" else (path, "lost")
        raise UsageError(f"cannot write {where}: it is {what}, which would be {end}")


def not_written(path, error):
    """The exception to raise for an OSError of writing."""
    kind = Failure if error.errno in _FULL else UsageError
    return kind(f"cannot write {path}: {error.strerror or error}")


def write(path, writer, *arguments):
    """Call a writer with a path; an error of the system becomes the one line."""
    try:
        writer(path, *arguments)
    except OSError as error:
        raise not_written(path, error) from error
