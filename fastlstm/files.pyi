from collections.abc import Mapping
from typing import Any

from .module import Module
from .params import _Array
from .read_files import FileFormatError as FileFormatError
from .read_files import Source, _Given
from .read_files import _Path as _Path
from .whole_files import Target, _Goal
from .whole_files import write_whole as write_whole

VERSION: int


def check_metadata(metadata: object, reserved: tuple[str, ...] = ...) -> dict[str, str]: ...
def save(
    model: Module, path: _Goal, metadata: dict[str, str] | None = None, *, warn: bool = True
) -> None: ...
def load(path: _Given, *, pack: bool = False) -> Module: ...

FORMAT: str
CHECKPOINT: str
TYPES: dict[Any, str]

def build(description: Any, names: Any) -> Module: ...
def check_tensors(tensors: Any, expected: Any) -> None: ...
def described(metadata: Any, key: str, kind: str, version: int, others: Any) -> Any: ...
def warn_if_not_finite(path: str | Source | Target, weights: Mapping[str, _Array], stacklevel: int = 3) -> None: ...
def write_tensors(
    path: str | Target, head: dict[str, str], metadata: dict[str, str], tensors: Mapping[str, _Array]
) -> None: ...
