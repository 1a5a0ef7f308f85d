from typing import TypeAlias

from ..layers import GRU, LSTM, RNN
from ..read_files import Source, _Given
from ..wrappers import Bidirectional, Reverse

_Layer: TypeAlias = LSTM | GRU | RNN | Reverse | Bidirectional

MAX_IR: int

def from_onnx(path: _Given | Source) -> dict[str, _Layer]: ...
