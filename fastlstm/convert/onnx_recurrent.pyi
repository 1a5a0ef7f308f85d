from typing import Any, TypeAlias

from ..params import _Array
from ..recurrent import Recurrent
from ..wrappers import Bidirectional, Reverse
from .onnx_build import Graph, Value

_Place: TypeAlias = tuple[str, ...]
_Pair: TypeAlias = tuple[Value, Value]

def joined(*names: str) -> str: ...

class Stacks:
    graph: Graph
    weights: dict[str, _Array]
    lengths: str
    states: bool
    several: bool
    def __init__(
        self, graph: Graph, weights: dict[str, _Array], lengths: str, states: bool, several: bool
    ) -> None: ...
    def starts(self, place: _Place, model: Recurrent[Any, Any, Any]) -> dict[str, list[str]]: ...
    def ends(self, place: _Place, model: Recurrent[Any, Any, Any], found: dict[str, list[str]]) -> None: ...
    def layer(self, model: Recurrent[Any, Any, Any], place: _Place, x: Value, direction: str = "forward") -> _Pair: ...
    def reverse(self, model: Reverse, place: _Place, x: Value) -> _Pair: ...
    def bidirectional(self, model: Bidirectional, place: _Place, x: Value) -> _Pair | tuple[_Pair, _Pair]: ...
