from collections.abc import Mapping
from typing import Any

from ..module import Module
from ..read_files import _Given

def from_torch(
    source: _Given | Mapping[str, Any] | Any, prefix: str = "", *, key: str | None = None,
    batch_first: bool | None = None, dropout: float | None = None, nonlinearity: str | None = None,
    pack: bool = False,
) -> Module: ...
def to_torch(model: Module) -> Any: ...
