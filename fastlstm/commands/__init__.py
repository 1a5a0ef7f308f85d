"""The command ``fastlstm``: info, run, inspect, convert, bench.

A user's mistake ends in one line on standard error and status 2, Ctrl-C in 130, a closed pipe in
silence. Everything but the argument parser is imported by the command that needs it.
"""

import importlib
import os
import sys

from . import parser
from .parser import UsageError

COMMANDS = {  # name -> module, which has a function of that name with an underscore behind it
    "info": "show", "inspect": "show", "run": "run", "convert": "convert_files", "bench": "bench",
}


def main(argv=None):
    """Run the command with `argv` (default: ``sys.argv[1:]``). Returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal's encoding lacks is no reason to end
            stream.reconfigure(errors="backslashreplace")
    try:
        arguments = parser.make().parse_args(argv)
        _command(arguments.command)(arguments)
        sys.stdout.flush()
        return 0
    except UsageError as error:
        return _complain(error)
    except RuntimeError as error:
        if "FASTLSTM_" not in str(error):
            raise
        return _complain(error)  # a variable of the environment that the engine cannot follow
    except MemoryError as error:
        return _complain(f"not enough memory: {error}" if str(error) else "not enough memory")
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The interpreter flushes standard output once more on its way out and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE, what a shell reports for any program that writes to a closed pipe


def _complain(error):
    print("fastlstm: error:", " ".join(str(error).split()), file=sys.stderr)
    return 2


def _command(name):
    return getattr(importlib.import_module(f"{__name__}.{COMMANDS[name]}"), f"{name}_command")
