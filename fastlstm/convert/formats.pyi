from typing import Any, NamedTuple

from ..files import _Path
from ..module import Module

SUFFIXES: tuple[str, ...]

class Contents(NamedTuple):
    kind: str
    models: dict[str, Any]
    refused: dict[str, str]
    others: dict[str, Any]
    rest: str = ""
    keys: dict[str, str] = ...

class Described(NamedTuple):
    shape: tuple[int, ...] | str
    dtype: str

def kind_of(path: _Path) -> str: ...
def contents(path: _Path, **options: Any) -> Contents: ...
def only_model(path: _Path, name: str | None = None, **options: Any) -> Module: ...
def write(model: Module, path: _Path) -> None: ...
