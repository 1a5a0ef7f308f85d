from collections.abc import Mapping
from typing import Any

from ..files import _Path
from ..module import Module

def from_torch(
    source: _Path | Mapping[str, Any] | Any, prefix: str = "", *, key: str | None = None,
    batch_first: bool | None = None, dropout: float | None = None, nonlinearity: str | None = None,
) -> Module: ...
def to_torch(model: Module) -> Any: ...
