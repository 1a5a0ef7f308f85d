from typing import Any, Final, Literal, NoReturn, TypeAlias

from .container import Container
from .recurrent import Recurrent

_Merge: TypeAlias = Literal["concat", "sum", "mul", "ave"] | None

MERGES: tuple[_Merge, ...]

# The calls are Module's: how a state looks depends on the layers.
class Reverse(Container):
    layer: Final[Recurrent[Any, Any, Any]]
    in_time: Final[bool]
    def __init__(self, layer: Recurrent[Any, Any, Any], in_time: bool = True) -> None: ...
    @property
    def batch_first(self) -> bool: ...
    @property
    def in_features(self) -> int: ...
    @property
    def out_features(self) -> int: ...
    def stream(self, batch_size: int = 1, *, awake: float = 0.0) -> NoReturn: ...

class Bidirectional(Container):
    forward_layer: Final[Recurrent[Any, Any, Any]]
    backward_layer: Final[Recurrent[Any, Any, Any]]
    merge: Final[_Merge]
    def __init__(
        self, forward_layer: Recurrent[Any, Any, Any], backward_layer: Recurrent[Any, Any, Any],
        merge: _Merge = "concat",
    ) -> None: ...
    @property
    def batch_first(self) -> bool: ...
    @property
    def in_features(self) -> int: ...
    @property
    def out_features(self) -> int | None: ...
    def stream(self, batch_size: int = 1, *, awake: float = 0.0) -> NoReturn: ...
