from typing import Any, NamedTuple

STORAGES: dict[str, str]
MAX_AXES: int
ROOM: int
SLACK: int

class Refused(ValueError): ...

class Name(NamedTuple):
    module: str
    name: str

    @property
    def text(self) -> str: ...

class Object:
    function: Any
    arguments: Any
    state: Any
    items: dict[Any, Any] | list[Any] | None
    def __init__(self, function: Any, arguments: Any) -> None: ...

class Key:
    value: Any
    def __init__(self, value: Any) -> None: ...

class Storage(NamedTuple):
    key: str
    kind: str
    numel: int

class Tensor(NamedTuple):
    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

def read(data: bytes) -> tuple[Any, int]: ...
