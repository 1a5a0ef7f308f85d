from typing import Any, NamedTuple

MODELS: tuple[str, ...]

class Layer(NamedTuple):
    kind: str
    name: str
    config: dict[str, Any]
    key: tuple[str, int] = ("", 0)
    built: list[int | None] | None = None
    def shapes(self) -> list[list[int | None]]: ...

class Member(NamedTuple):
    layer: Layer
    pair: bool = False

def layer_of(node: Any, default: str | None = None) -> Layer: ...
def members(model: Layer) -> list[Member]: ...
