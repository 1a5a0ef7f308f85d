"""fastlstm: recurrent networks on a CPU, fast, small, exact to the bit. See README.md and docs/."""

import importlib as _importlib
import sys as _sys

from . import _interrupt  # before the imports that take time

try:
    from . import runtime as _runtime  # first: it loads the compiled core
except ImportError:
    from . import _clone

    _installed = _clone.instead_of(__name__, __path__[0])
    if _installed is None:  # compiled, but broken: the loader's words are the reason
        raise
else:
    _installed = None

if _installed is not None:
    _clone.become(_sys.modules[__name__], _installed)
else:
    from ._version import __version__
    from .last import Last
    from .layers import GRU, LSTM, LSTM1997, RNN, ClockworkRNN, DepthGatedLSTM
    from .module import Module
    from .network import Embedding, Linear
    from .runtime import available_isas, get_num_threads, isa, num_threads, set_num_threads, show_config
    from .sequential import Sequential
    from .traces import DepthGatedTrace, GRUTrace, LSTM1997Trace, RNNTrace, Trace
    from .wrappers import Bidirectional, Reverse

    __all__ = [
        "GRU", "LSTM", "LSTM1997", "RNN", "Bidirectional", "Checkpoint", "ClockworkRNN", "DepthGatedLSTM",
        "DepthGatedTrace", "Embedding", "FileFormatError", "GRUTrace", "LSTM1997Trace", "Last", "Linear", "Module",
        "RNNTrace", "Reverse", "Sequential", "Trace", "__version__", "available_isas", "clip_grad_norm", "from_keras",
        "from_onnx", "from_torch", "get_num_threads", "isa", "load", "load_checkpoint", "losses", "num_threads",
        "optim", "read_torch", "save_checkpoint", "set_num_threads", "show_config", "to_onnx", "to_torch",
        "with_prefix",
    ]

    # What most programs do not need is imported when it is named.
    _LATER = {
        "checkpoint": ("Checkpoint", "load_checkpoint", "save_checkpoint"),
        "convert.keras_models": ("from_keras",),
        "convert.onnx_read": ("from_onnx",),
        "convert.onnx_write": ("to_onnx",),
        "convert.torch_files": ("read_torch", "with_prefix"),
        "convert.torch_models": ("from_torch", "to_torch"),
        "files": ("FileFormatError", "load"),
        "gradients": ("clip_grad_norm",),
    }
    _OF = {name: module for module, names in _LATER.items() for name in names}
    _MODULES = ("convert", "losses", "onnx", "optim", "torch")
    _FOR_USERS_OF = ("onnx", "torch")  # packages that import what they are named after

    def __getattr__(name):
        if name in _MODULES:
            return _importlib.import_module(f"{__name__}.{name}")
        if name in _OF:
            found = globals()[name] = getattr(_importlib.import_module(f"{__name__}.{_OF[name]}"), name)
            return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted([*__all__, *(name for name in _FOR_USERS_OF if _is_there(name))])

    def _is_there(name):
        from importlib.util import find_spec

        try:
            return find_spec(name) is not None
        except ValueError:  # somebody put something into sys.modules that is no module
            return False
