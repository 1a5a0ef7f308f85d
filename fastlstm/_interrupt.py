"""Ctrl-C while the command ``fastlstm`` is still being imported: status 130, and no traceback.

Of the command this package is imported first, before there is a place where a KeyboardInterrupt could be caught. In
programs that import the package nothing here changes anything.
"""

import itertools
import os
import sys

_SCRIPTS = ("fastlstm", "fastlstm.exe", "fastlstm-script.py")
_before = None  # the handler of SIGINT that `watch` replaced


def _is_the_command():
    """Whether this process was started as ``fastlstm`` or ``python -m fastlstm``."""
    first = sys.argv[0] if getattr(sys, "argv", None) else ""
    if first != "-m":
        return os.path.basename(first).lower() in _SCRIPTS
    words = getattr(sys, "orig_argv", [])
    return "-mfastlstm" in words or any(
        a.startswith("-") and a.endswith("m") and b == "fastlstm" for a, b in itertools.pairwise(words)
    )


def _end(signum, frame):
    """Nothing has been done yet that would have to be put in order."""
    spec = getattr(sys.modules.get("fastlstm"), "__spec__", None)
    if getattr(spec, "_initializing", False) or "fastlstm.commands" in sys.modules:
        os._exit(130)
    _before(signum, frame)  # a program that has the command's name and only imports the package


def watch():
    """From now on until `unwatch`, Ctrl-C ends the command; of other programs nothing changes."""
    global _before
    if not _is_the_command():
        return
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # who ignores it, in the background, goes on
        try:
            _before = signal.signal(signal.SIGINT, _end)
        except ValueError:  # not the main thread
            _before = None


def unwatch():
    """From now on Ctrl-C is a KeyboardInterrupt again."""
    global _before
    if _before is not None:
        import signal

        signal.signal(signal.SIGINT, _before)
        _before = None


watch()
