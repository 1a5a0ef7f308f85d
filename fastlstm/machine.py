"""The machine's constants: measured at first use, kept in the user's cache folder, overridden by FASTLSTM_MACHINE.

Plans weigh them (src_c/fl_estimate.c) to decide about threads; no result depends on them. So nothing here may fail for
want of a folder or a right: without a file, the constants are measured for this process alone.

FASTLSTM_MACHINE: empty (measure once, keep in a file), "default" (the built-in constants), "measure" (measure again and
replace the file), or the path of a JSON file with some of the FIELDS.
"""

import contextlib
import json
import os
import platform
import re
import stat
import sys
import threading
import zlib

from . import _core
from ._version import __version__
from .whole_files import write_whole

VARIABLE = "FASTLSTM_MACHINE"
FIELDS = (
    "flops_per_ns", "all_cores_rate", "private_bytes_per_ns", "private_cache", "shared_bytes_per_ns",
    "shared_bytes_per_ns_all", "wake_ns", "wake_each_ns", "barrier_ns", "barrier_all_ns", "cores", "sibling_rate",
)  # as in fl_machine
FORMAT = 2  # of what is kept: a file of another format is of another machine
EXPECTED = (
    f'"default", "measure", or the path of a JSON object with some of {", ".join(FIELDS)}: positive numbers, '
    "flops_per_ns a list of two (float32, float64)"
)
LARGEST_FILE = 10_000  # bytes; ours have some 600

_finding = threading.Lock()  # held by the thread that finds the constants; nobody ever waits for it
_source = None  # where the constants in use come from; None: nobody has needed them


def settle(num_threads=None):
    """Bring in the constants, once per process, before a plan that may take more than one thread.

    num_threads: a model's own limit; None: the process's. With one thread nothing depends on them and nothing is
    done; and while they are being found (by another thread, or by this one, which a signal handler interrupted), the
    built-in ones will do. Returns where they come from. Raises RuntimeError for a FASTLSTM_MACHINE or a
    FASTLSTM_NUM_THREADS that cannot be followed.
    """
    global _source
    if _source is None and _core.team_limit(num_threads or 0) > 1:
        with _core.Attempt(_finding) as alone:
            if alone and _source is None:
                constants, source = _find(os.environ.get(VARIABLE, ""), num_threads or 0)
                _core.set_machine(constants)
                _source = source
    return _source or "built in"


def forget():
    """For tests: as if no model had been packed yet."""
    global _source
    _core.set_machine(None)
    _source = None


def _after_fork():
    global _finding
    _finding = threading.Lock()  # another thread may have held it; what it was about to set, the child finds itself


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _find(wish, num_threads):
    """(constants or None for the built-in ones, where they come from)."""
    if wish == "default":
        return None, "built in"
    if wish not in ("", "measure"):
        return _user_file(wish), wish
    name = key(num_threads)
    home = folder()
    path = home and os.path.join(home, file_name(name))
    if not wish and path:
        found = _kept(path, name)
        if found is not None:
            return found, path
    constants, team = _core.measure_machine(num_threads)
    if not team:  # another moment will tell more
        return constants, "measured; what a team costs is built in, as the processors were busy"
    if path:
        _keep(path, {"key": name, **constants})
    return constants, "measured"


# ---- files -------------------------------------------------------------------------------


def check(values):
    """`values` with the missing fields as built in. Raises ValueError that says what is wrong."""
    if not isinstance(values, dict):
        raise ValueError(f"it holds a {type(values).__name__}, not an object")
    unknown = sorted(set(values) - {*FIELDS, "key"})
    if unknown:
        raise ValueError(f"it has an unknown field {unknown[0]!r}")
    rates = values.get("flops_per_ns", [1, 1])
    if not isinstance(rates, list) or len(rates) != 2:
        raise ValueError(f"flops_per_ns is {rates!r}, not a list of two")
    for name in FIELDS:
        for value in rates if name == "flops_per_ns" else [values.get(name, 1)]:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= sys.float_info.max:
                raise ValueError(f"{name} is {value!r}, not a positive number")
    return {**_core.BUILT_IN, **{name: values[name] for name in FIELDS if name in values}}


def _open(path, flags):
    """`os.open` that never waits: a pipe has nobody at its other end."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def _read(path):
    with open(path, "rb", opener=_open) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is not a regular file")
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ValueError("it is too long")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError("it is not JSON") from error


def _user_file(path):
    try:
        return check(_read(path))
    except (OSError, ValueError) as error:
        reason = (error.strerror or error) if isinstance(error, OSError) else error
        raise RuntimeError(f"{VARIABLE}={path!r}: {reason}; expected: {EXPECTED}") from error


def _kept(path, name):
    """What `_keep` wrote for this very machine, or None."""
    try:
        values = _read(path)
        found = check(values)
        return found if values.get("key") == name and set(values) == {"key", *FIELDS} else None
    except (OSError, ValueError):
        return None


def _keep(path, values):
    """Write the whole file or none: readers of any process see the old one or the new. What is no file stays."""
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.exists(path) and not os.path.isfile(path):  # into a pipe write_whole would write, and wait
            return
        write_whole(path, [json.dumps(values, indent=1).encode()])


def folder():
    """The user's cache folder for this package, by the custom of the system; None for a user without a home."""
    if sys.platform == "win32":
        root = os.environ.get("LOCALAPPDATA") or os.path.expanduser(r"~\AppData\Local")
    elif sys.platform == "darwin":
        root = os.path.expanduser("~/Library/Caches")
    else:
        root = os.environ.get("XDG_CACHE_HOME", "")
        if not os.path.isabs(root):  # the specification wants a relative one ignored
            root = os.path.expanduser("~/.cache")
    return os.path.join(root, "fastlstm") if os.path.isabs(root) else None


def key(num_threads=0):
    """What the constants belong to: processor, how many of them, instruction set, version, and how many threads may
    run, since no larger team was measured."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = f"{num_threads or _core.get_num_threads()} threads"
    return " | ".join([_processor(), str(count), threads, _core.isa(), __version__, f"format {FORMAT}"])


def file_name(name):
    """Readable, and different for different keys."""
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")[:80]
    return f"machine-{readable}-{zlib.crc32(name.encode(errors='surrogateescape')):08x}.json"


def _processor():
    if sys.platform == "linux":
        try:
            with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
                text = file.read(4096)
        except OSError:
            text = ""
        names = ("model name", "cpu family", "model", "CPU implementer", "CPU part", "uarch")
        found = [re.search(rf"^{name}\s*:\s*(.+)$", text, re.M) for name in names]
        return " ".join(match[1].strip() for match in found if match) or platform.machine()
    # elsewhere than on Windows platform.processor() would start a program
    return platform.processor() if sys.platform == "win32" else f"{sys.platform} {platform.machine()}"
