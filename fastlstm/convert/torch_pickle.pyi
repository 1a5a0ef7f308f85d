from typing import Any, NamedTuple

STORAGES: dict[str, str]
GLOBALS: set[str]
MAX_AXES: int
ROOM: int
SLACK: int

class Refused(ValueError): ...

class Name(NamedTuple):
    text: str

class Storage(NamedTuple):
    key: str
    kind: str
    numel: int

class Tensor(NamedTuple):
    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

def read(data: bytes) -> Any: ...
