from collections.abc import Callable
from typing import Any, NamedTuple

from ..params import _Array
from ..recurrent import Recurrent

OPERATORS: dict[str, str]

class Way(NamedTuple):
    model: Recurrent[Any, Any, Any]
    weights: dict[str, _Array]
    head: str
    layer: int
    ending: str = ""
    def get(self, kind: str) -> _Array: ...
    @property
    def hidden(self) -> int: ...

def lacking(model: Recurrent[Any, Any, Any]) -> list[str]: ...
def attributes(ways: list[Way]) -> dict[str, Any]: ...
def tensors(ways: list[Way]) -> dict[str, tuple[tuple[int, ...], Callable[[], _Array]]]: ...
def alike(ways: list[Way]) -> bool: ...
