"""What the commands share: models in, files out, warnings as lines."""

import contextlib
import sys
from pathlib import Path

from .parser import UsageError


def load(path, name=None):
    """The one model of a file, or the one called `name`."""
    from ..convert import formats

    return read(path, formats.only_model, name=name)


def read(path, reader, **options):
    """What a reader of convert/formats.py makes of a file; its warnings as lines of their own."""
    try:
        with warnings_as_lines():
            return reader(path, **options)
    except FileNotFoundError as error:
        raise UsageError(f"no such model: {path}") from error
    except OSError as error:
        raise UsageError(f"cannot load {path}: {error.strerror or error}") from error
    except (ImportError, NotImplementedError, TypeError, ValueError) as error:
        reason = str(error).removeprefix(f"{path}: ")
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


def check_output(path, suffixes=None):
    """Refuse an output that cannot be written, as far as that is known before."""
    if suffixes is None:
        from .arrays import SUFFIXES as suffixes  # noqa: N811 - it is the same thing of another kind of file
    if Path(path).suffix.lower() not in suffixes:
        raise UsageError(f"cannot write {path}: the suffix must be one of {', '.join(suffixes)}")
    check_folder(path)


def check_folder(path):
    """Refuse a folder that is not there, before any work is done."""
    folder = Path(path).parent
    if not folder.is_dir():
        raise UsageError(f"cannot write {path}: there is no folder {folder}")


def write(path, writer, *arguments):
    """Call a writer with a path; an error of the system becomes the user's line."""
    try:
        writer(path, *arguments)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error


def s(count):
    """The end of a plural."""
    return "" if count == 1 else "s"
