"""The process: instruction set, threads, configuration."""

import os
import platform
import sys

# GNU OpenMP reads its environment once, when it is loaded, which is now. By default its threads spin for milliseconds
# after a parallel region before they sleep; a call that has returned should leave the processors alone. Whoever has
# set a policy keeps it, and nobody else's environment changes.
_SPIN = "GOMP_SPINCOUNT"
_SPINS = "2000"  # some 50 us: back-to-back calls still find their threads awake
_OWN_POLICY = not (_SPIN in os.environ or "OMP_WAIT_POLICY" in os.environ)  # as long as the process lives
if not _OWN_POLICY:
    from . import _core
else:
    os.environ[_SPIN] = _SPINS
    try:
        from . import _core
    finally:
        del os.environ[_SPIN]


def sets_waiting():
    """Whether it is fastlstm that decided how long idle threads of GNU OpenMP spin, and not the user."""
    return _OWN_POLICY


def _check_environment():
    """RuntimeError for a FASTLSTM_NUM_THREADS that is no number of threads: a typo must not mean "all of them"."""
    text = os.environ.get("FASTLSTM_NUM_THREADS", "")
    if text and not (text.isascii() and text.isdigit() and int(text) <= 1024):
        raise RuntimeError(f"FASTLSTM_NUM_THREADS={text!r} must be an integer in 0..1024 (0: the default)")


_check_environment()


def isa():
    """Name of the instruction set in use: the best of this machine, or what FASTLSTM_ISA names.

    Raises RuntimeError when FASTLSTM_ISA names none, with the choices.
    """
    return _core.isa()


def available_isas():
    """Names of the instruction sets this machine can run, best first."""
    return _core.available_isas()


def get_num_threads():
    """Threads a call may use at most.

    At first the processors this process may run on: its affinity mask, or the container's quota where that is
    less; or FASTLSTM_NUM_THREADS. The plan of a call takes fewer where more would not pay.
    """
    return _core.get_num_threads()


def set_num_threads(n):
    """Set the process-wide upper bound; None goes back to the default. Never changes a result.

    Raises TypeError or ValueError unless n is None or an integer from 1 to 1024.
    """
    if n is None:
        _core.set_num_threads(0)
        return
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"n must be an integer or None, got {type(n).__name__}")
    if not 1 <= n <= 1024:
        raise ValueError(f"n must be in 1..1024, got {n}")
    _core.set_num_threads(n)


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
        "threads": f"{get_num_threads()} ({'OpenMP' if _core.has_openmp() else 'built without OpenMP'})",
        "cores": _cores_in_words(),
        "machine": _machine_in_words(),
        "large products": f"{_core.gemm_mode()} (BLAS {'loaded' if 'fastlstm._blas' in sys.modules else 'not loaded'})",
        "environment": ", ".join(f"{k}={v}" for k, v in env.items()) or "nothing set",
    }


def show_config():
    """Print version, instruction set, threads, cores and switches, one per line."""
    for name, value in config().items():
        print(f"{name:16} {value}")
