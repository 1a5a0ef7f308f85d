from collections.abc import Callable
from typing import Any, NamedTuple

class Activation(NamedTuple):
    name: str
    alpha: float = 0.0
    beta: float = 0.0

ACTIVATIONS: dict[str, tuple[float, ...]]
CHECKS: dict[str, Callable[[str, Any, str, Any], Any]]
