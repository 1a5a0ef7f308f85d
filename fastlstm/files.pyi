import os
from collections.abc import Mapping
from typing import TypeAlias

from .module import Module
from .params import _Array
from .read_files import FileFormatError as FileFormatError
from .whole_files import write_whole as write_whole

VERSION: int
_Path: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]

def not_finite(weights: Mapping[str, _Array]) -> list[str]: ...

def check_metadata(metadata: object, reserved: tuple[str, ...] = ...) -> dict[str, str]: ...
def save(
    model: Module, path: _Path, metadata: dict[str, str] | None = None, *, warn: bool = True
) -> None: ...
def load(path: _Path) -> Module: ...
