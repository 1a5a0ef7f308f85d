from collections.abc import Mapping
from typing import TypeVar

from ..files import _Path
from ..params import _Array

_T = TypeVar("_T")

def read_torch(path: _Path, key: str | None = None) -> dict[str, _Array]: ...
def with_prefix(d: Mapping[str, _T], prefix: str) -> dict[str, _T]: ...
