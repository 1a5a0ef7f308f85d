import os
from typing import TypeAlias

from .module import Module

VERSION: int
_Path: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]

class FileFormatError(ValueError): ...

def excerpt(error: object, length: int = 300) -> str: ...

def save(model: Module, path: _Path, metadata: dict[str, str] | None = None) -> None: ...
def load(path: _Path) -> Module: ...
