"""The process: instruction set, threads, configuration."""

import contextlib
import os
import platform
import sys
import threading

from . import _core

__all__ = [
    "available_isas", "config", "get_num_threads", "isa", "machine", "num_threads", "set_num_threads", "show_config",
]


def __dir__():
    return [*__all__]


def isa():
    """Name of the instruction set in use: the best of this machine, or what FASTLSTM_ISA names.

    Raises RuntimeError when FASTLSTM_ISA names none, with the choices.
    """
    return _core.isa()


def available_isas():
    """Names of the instruction sets this machine can run, best first."""
    return _core.available_isas()


def get_num_threads():
    """Threads a call of this thread may use at most; the plan of a call takes fewer where more would not pay.

    The first of these that is there: `num_threads`, `set_num_threads`, FASTLSTM_NUM_THREADS, and by default the least
    of: processors this thread may run on (its affinity mask), the container's quota, and what OpenMP would use in this
    thread. So OMP_NUM_THREADS, torch.set_num_threads, threadpoolctl and joblib count. A thread that computes inside a
    parallel region of OpenMP gets 1.

    Raises RuntimeError when FASTLSTM_NUM_THREADS is no number of threads; packing a model does too.
    """
    return _core.get_num_threads()


def set_num_threads(n):
    """Set the process-wide upper bound, which may be above the default; None goes back to it. Never changes a result.

    Raises TypeError or ValueError unless n is None or an integer from 1 to 1024.
    """
    _core.set_num_threads(_checked(n))


def num_threads(n):
    """A context manager, and a decorator: inside, calls of this thread use at most n threads.

    There n takes the place of the process's setting, and a model with a `num_threads` of its own takes the smaller of
    both. Other threads, also those started inside, go by the process's setting. Blocks may be nested: the innermost
    counts, and None lets the process's setting count again. However a block is left, what was there before comes back.

    The bound belongs to the thread and not to the text of the block: a generator or coroutine that pauses inside keeps
    it for whatever its thread does next, and it must be finished in the thread that began it.

    Raises TypeError or ValueError unless n is None or an integer from 1 to 1024.

    >>> with fastlstm.num_threads(1):
    ...     y, state = lstm(x)
    """
    return _ThreadsHere(_checked(n))


class _ThreadsHere(contextlib.ContextDecorator):
    def __init__(self, n):
        self._n = n
        self._before = threading.local()  # its .found: what each block that this thread is in has replaced

    def __enter__(self):
        if not hasattr(self._before, "found"):
            self._before.found = []
        self._before.found.append(_core.num_threads_here(self._n))

    def __exit__(self, *exception):
        _core.num_threads_here(self._before.found.pop())


def _checked(n):
    """n as the core takes it; 0 for None."""
    if n is None:
        return 0
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"n must be an integer or None, got {type(n).__name__}")
    if not 1 <= n <= 1024:
        raise ValueError(f"n must be in 1..1024, got {n}")
    return n


_BOUNDS = {  # of _core.BOUNDS
    "build": "built without OpenMP",
    "here": "a num_threads block",
    "set": "set_num_threads",
    "environment": "FASTLSTM_NUM_THREADS",
    "affinity": "the processors this thread may run on",
    "quota": "the container's quota of processor time",
    "openmp": "OpenMP's setting",
    "nested": "inside a parallel region of OpenMP",
    "most": "never more",
}


def _threads_in_words():
    threads, bound = _core.num_threads_why()
    return f"{threads} ({_BOUNDS[bound]})"


def machine():
    """What plans know of this machine, as a dict; no result depends on it.

    flops_per_ns: of one core alone, (float32, float64). all_cores_rate: speed of a core while all of them work, of its
    speed alone. private_bytes_per_ns, private_cache: how fast one core reads weights from its own cache, and bytes of
    them that stay there. shared_bytes_per_ns, shared_bytes_per_ns_all: reading weights beyond it, one core and all
    together. wake_ns, wake_each_ns: until a second thread that slept has run, and for every further one. barrier_ns,
    barrier_all_ns: two threads meeting once, and as many as there are cores. cores: that run at full speed.
    sibling_rate: speed of a thread while another one works on its core. source: "built in", "measured", or the file
    they were read from.

    They are measured at first use, which this may be, unless the process has one thread, and kept in the user's cache
    folder; FASTLSTM_MACHINE overrides them ("default", "measure", or the path of a JSON file). Raises RuntimeError when
    FASTLSTM_MACHINE is none of these.
    """
    from .machine import settle

    source = settle()
    return {**_core.machine(), "source": source}


def _cores_in_words():
    cores, processors = _core.cores()
    if processors == 1:
        return "1 processor"
    if cores == processors:
        return f"{processors} processors, each a core of its own as far as the system tells"
    each = f" ({processors // cores} threads a core)" if processors % cores == 0 else ""
    return f"{cores} core{'s' if cores > 1 else ''} of {processors} processors{each}"


def _denormals_in_words():
    return "flushed to zero" if _core.flushes_denormals() else "kept: a state that decays into them is slow here"


def _machine_in_words():
    m = machine()
    single, double = m["flops_per_ns"]
    return (
        f"{m['cores']:.0f} cores of {single:.3g} and {double:.3g} flop/ns (float32, float64), "
        f"{m['all_cores_rate']:.2g} of it when all work, {m['sibling_rate']:.2g} beside a sibling; reading private "
        f"cache ({m['private_cache'] / 1e3:.4g} kB) {m['private_bytes_per_ns']:.3g}, shared "
        f"{m['shared_bytes_per_ns']:.3g}, all cores {m['shared_bytes_per_ns_all']:.4g} GB/s; waking "
        f"{m['wake_ns'] / 1e3:.3g} us and {m['wake_each_ns'] / 1e3:.2g} us each; barrier "
        f"{m['barrier_ns'] / 1e3:.2g} to {m['barrier_all_ns'] / 1e3:.2g} us ({m['source']})"
    )


def config():
    """What `show_config` prints, as a dict of strings."""
    import numpy

    from ._version import __version__

    names = ("FASTLSTM_ISA", "FASTLSTM_GEMM", "FASTLSTM_NUM_THREADS", "FASTLSTM_MACHINE")
    env = {name: os.environ[name] for name in names if name in os.environ}
    return {
        "fastlstm": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "numpy": numpy.__version__,
        "instruction set": f"{isa()} (of {', '.join(available_isas())})",
        "threads": _threads_in_words(),
        "cores": _cores_in_words(),
        "denormals": _denormals_in_words(),
        "machine": _machine_in_words(),
        "large products": f"{_core.gemm_mode()} (BLAS {'loaded' if 'fastlstm._blas' in sys.modules else 'not loaded'})",
        "environment": ", ".join(f"{k}={v}" for k, v in env.items()) or "nothing set",
    }


def show_config():
    """Print version, instruction set, threads, cores and switches, one per line."""
    for name, value in config().items():
        print(f"{name:16} {value}")
