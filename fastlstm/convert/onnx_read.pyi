from typing import TypeAlias

from ..files import _Path
from ..layers import GRU, LSTM, RNN
from ..wrappers import Bidirectional, Reverse

_Layer: TypeAlias = LSTM | GRU | RNN | Reverse | Bidirectional

MAX_IR: int

def from_onnx(path: _Path) -> dict[str, _Layer]: ...
