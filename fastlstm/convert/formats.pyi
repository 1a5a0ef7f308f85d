from typing import Any, NamedTuple

from ..module import Module
from ..read_files import Source, _Given
from ..whole_files import Target, _Goal

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

def kind_of(path: _Given | Source) -> str: ...
def contents(path: _Given | Source, **options: Any) -> Contents: ...
def only_model(path: _Given | Source, name: str | None = None, **options: Any) -> Module: ...
def write(model: Module, path: _Goal | Target, suffix: str | None = None) -> None: ...
