"""For users of torch: its recurrent layers, run by this engine, and `accelerate`, which turns a model's into these.

``fastlstm.torch`` imports torch (2.4 or later); ``import fastlstm`` does not.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as _error:
    raise ImportError("fastlstm.torch needs torch, which cannot be imported here: install it first") from _error

from .torch_accelerate import Report, accelerate, restore
from .torch_layers import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN", "Report", "accelerate", "restore"]


def __dir__():
    return [*__all__]
