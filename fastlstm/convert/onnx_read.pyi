from collections.abc import Iterable
from typing import TypeAlias

from ..files import _Path
from ..layers import GRU, LSTM, RNN
from ..wrappers import Bidirectional, Reverse

_Layer: TypeAlias = LSTM | GRU | RNN | Reverse | Bidirectional

MAX_IR: int

def read_onnx(
    path: _Path, names: Iterable[str] | None = None
) -> tuple[dict[str, _Layer], dict[str, str], list[str]]: ...
def from_onnx(path: _Path, names: Iterable[str] | None = None) -> dict[str, _Layer]: ...
