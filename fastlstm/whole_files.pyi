from collections.abc import Iterable
from typing import Any, Protocol, TypeAlias

from .read_files import _Path

class _Writable(Protocol):
    def write(self, data: bytes | memoryview, /) -> int | None: ...

_Goal: TypeAlias = _Path | _Writable

TEMPORARY: tuple[str, ...]

class Target:
    file: _Writable
    name: str
    def __init__(self, file: _Writable) -> None: ...

def as_target(given: Any, argument: str = "path") -> str | Target: ...
def write_whole(path: _Goal | Target, pieces: Iterable[bytes | memoryview]) -> None: ...
def descriptor_of(path: str) -> int | None: ...
def write_figure(path: _Path, figure: object, kind: str, **options: object) -> None: ...
