"""fastlstm: recurrent networks on a CPU, fast, small, exact to the bit. See README.md and docs/."""

import importlib as _importlib
import os as _os
import sys as _sys

from . import _interrupt  # before the imports that take time
from ._version import __version__

try:
    from . import runtime as _runtime  # first: it loads the compiled core
except ImportError as _error:
    _here = _os.path.dirname(_os.path.abspath(__file__))
    if not any(_name.startswith("_core.") and _name.endswith((".so", ".pyd")) for _name in _os.listdir(_here)):
        _words = (
            f"{_here} is the source of fastlstm, not an installed package. Run `python -m pip install .` in "
            f"{_os.path.dirname(_here)}, then `fastlstm`, or Python from another folder."
        )
        if _sys.argv[:1] == ["-m"]:  # python -m fastlstm, in the root of a clone
            print(f"fastlstm: {_words}", file=_sys.stderr)
            _sys.exit(2)
        raise ImportError(_words) from _error
    raise

from . import losses, optim
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .convert.keras_models import from_keras
from .convert.onnx_read import from_onnx
from .convert.onnx_write import to_onnx
from .convert.torch_files import read_torch, with_prefix
from .convert.torch_models import from_torch, to_torch
from .files import FileFormatError, load
from .last import Last
from .layers import GRU, LSTM, LSTM1997, RNN, ClockworkRNN, DepthGatedLSTM
from .module import Module
from .network import Embedding, Linear
from .optim import clip_grad_norm
from .runtime import available_isas, get_num_threads, isa, num_threads, set_num_threads, show_config
from .sequential import Sequential
from .traces import DepthGatedTrace, GRUTrace, LSTM1997Trace, RNNTrace, Trace
from .wrappers import Bidirectional, Reverse

__all__ = [
    "GRU", "LSTM", "LSTM1997", "RNN", "Bidirectional", "Checkpoint", "ClockworkRNN", "DepthGatedLSTM",
    "DepthGatedTrace", "Embedding", "FileFormatError", "GRUTrace", "LSTM1997Trace", "Last", "Linear", "Module",
    "RNNTrace", "Reverse", "Sequential", "Trace", "__version__", "available_isas", "clip_grad_norm", "from_keras",
    "from_onnx", "from_torch", "get_num_threads", "isa", "load", "load_checkpoint", "losses", "num_threads", "optim",
    "read_torch", "save_checkpoint", "set_num_threads", "show_config", "to_onnx", "to_torch", "with_prefix",
]

_LATER = ("onnx", "torch")  # packages that import what they are named after


def __getattr__(name):
    if name in _LATER:
        return _importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_LATER})
