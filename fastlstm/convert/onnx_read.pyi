from collections.abc import Iterable
from typing import TypeAlias

from ..layers import GRU, LSTM, RNN
from ..read_files import Source, _Given
from ..wrappers import Bidirectional, Reverse

_Layer: TypeAlias = LSTM | GRU | RNN | Reverse | Bidirectional

MAX_IR: int

def read_onnx(
    path: str | Source, names: Iterable[str] | None = None
) -> tuple[dict[str, _Layer], dict[str, str], list[str], str]: ...
def from_onnx(
    path: _Given | Source, names: Iterable[str] | None = None, *, pack: bool = False
) -> dict[str, _Layer]: ...
