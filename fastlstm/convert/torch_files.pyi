from collections.abc import Mapping
from typing import TypeVar

from ..params import _Array
from ..read_files import Source, _Given

_T = TypeVar("_T")

def read_torch(path: _Given | Source, key: str | None = None) -> dict[str, _Array]: ...
def with_prefix(d: Mapping[str, _T], prefix: str) -> dict[str, _T]: ...
