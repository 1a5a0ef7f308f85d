from typing import Any, Final

from .container import Container
from .recurrent import Recurrent
from .wrappers import Bidirectional, Reverse

class Last(Container):
    layer: Final[Recurrent[Any, Any, Any] | Reverse | Bidirectional]
    def __init__(self, layer: Recurrent[Any, Any, Any] | Reverse | Bidirectional) -> None: ...
    @property
    def batch_first(self) -> bool: ...
    @property
    def in_features(self) -> int: ...
    @property
    def out_features(self) -> int: ...
