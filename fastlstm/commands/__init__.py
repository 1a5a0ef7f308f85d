"""The command ``fastlstm``: info, run, inspect, convert, bench.

======  =============================================================================================
status  when
======  =============================================================================================
0       all is done
1       the machine does not go along: no memory or disk is left, standard output cannot be written
2       the user can put it right: arguments, a file or a variable that cannot be used as it is
130     Ctrl-C
141     whoever was to read standard output has ended: 128 + SIGPIPE, as shells report it
======  =============================================================================================

1 and 2 come with one line on standard error. Everything but the argument parser is imported by the command that needs
it.
"""

import importlib
import os
import sys

from .. import _interrupt
from .._terminal import PlainOutput, Unwritable
from . import parser
from .parser import Failure, UsageError

COMMANDS = {  # name -> module, which has a function of that name with _command behind it
    "info": "show", "inspect": "show", "run": "run", "convert": "convert_files", "bench": "bench",
}


def main(argv=None):
    """Run the command with `argv` (default: ``sys.argv[1:]``). Returns the exit status."""
    before = sys.stdout, sys.stderr
    try:
        _interrupt.unwatch()
        for stream in before:
            if hasattr(stream, "reconfigure"):  # a name that the terminal's encoding lacks is no reason to end
                stream.reconfigure(errors="backslashreplace")
        sys.stdout, sys.stderr = PlainOutput(before[0]), PlainOutput(before[1], strict=False)
        return _run(argv)
    except KeyboardInterrupt:
        return 130
    finally:
        sys.stdout, sys.stderr = before
        for stream in before:
            _settle(stream)


def _settle(stream):
    """The interpreter flushes both streams on its way out; where one takes nothing, its status would not be ours."""
    try:
        stream.flush()
    except (AttributeError, OSError, ValueError):  # there is none, it is full, or it is closed
        _drop_output(stream)


def _run(argv):
    try:
        try:
            arguments = parser.make().parse_args(argv)
            module = importlib.import_module(f"{__name__}.{COMMANDS[arguments.command]}")
            getattr(module, f"{arguments.command}_command")(arguments)
        except SystemExit as end:  # --help and --version have printed what they have to say
            return _flushed(end.code or 0)
        return _flushed(0)
    except UsageError as error:
        return _complain(error, 2)
    except RuntimeError as error:
        if "FASTLSTM_" not in str(error):
            raise
        return _complain(error, 2)  # a variable of the environment that the engine cannot follow
    except MemoryError as error:
        return _complain(f"not enough memory: {error}" if str(error) else "not enough memory", 1)
    except Unwritable as error:
        _drop_output()
        return _complain(error, 1)
    except BrokenPipeError:
        _drop_output()
        return 141
    except Failure as error:
        return _complain(error, 1)
    except OSError as error:
        name = f"{error.filename}: " if error.filename is not None else ""
        return _complain(f"{name}{error.strerror or error}", 1)


def _flushed(status):
    sys.stdout.flush()
    return status


def _drop_output(stream=None):
    """What a stream, standard output by default, still holds goes nowhere."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, (stream or sys.stdout).fileno())
        os.close(null)
    except (AttributeError, OSError, ValueError):  # it is closed, or no file
        return


def _complain(error, status):
    try:
        sys.stdout.flush()  # what has been said before stands before the error
    except (Unwritable, OSError):
        _drop_output()
    print("fastlstm: error:", " ".join(str(error).split()), file=sys.stderr)
    return status
