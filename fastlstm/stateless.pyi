from typing import Any, Literal, NamedTuple, overload

import numpy as np

from .module import Module
from .params import _Array, _ArrayLike
from .stream import StatelessStream

CHANGED: str

class Handed(NamedTuple):
    x: bool
    y: bool

BOTH: Handed

def valid_positions(
    shape: tuple[int, ...], row_axes: int, lengths: _ArrayLike, batch_first: bool
) -> _Array | None: ...

def check_cache(cache: object, kind: type[Any]) -> None: ...
def check_lead(cache: Any, features: int) -> int: ...
def check_part(name: str, array: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None: ...
def check_rows(dy: Any, shape: tuple[int, ...], dtype: np.dtype[Any], valid: _Array | None) -> _Array: ...
def spread(rows: _Array, shape: tuple[int, ...], valid: _Array | None) -> _Array: ...

class Stateless(Module):
    # A trace is what every Module may be asked for, and what these refuse.
    @overload  # type: ignore[override]
    def forward(
        self, x: _ArrayLike, state: None = None, *, lengths: _ArrayLike | None = None,
        reset: Any = None, trace: Literal[False] = False, cache: Literal[False] = False, batch_first: bool = False,
    ) -> tuple[_Array, None]: ...
    @overload
    def forward(
        self, x: _ArrayLike, state: None = None, *, lengths: _ArrayLike | None = None,
        reset: Any = None, trace: Literal[False] = False, cache: Literal[True], batch_first: bool = False,
    ) -> tuple[_Array, None, Any]: ...
    @overload
    def forward(
        self, x: _ArrayLike, state: None = None, *, lengths: _ArrayLike | None = None,
        reset: Any = None, trace: Literal[False] = False, cache: bool = False, batch_first: bool = False,
    ) -> tuple[Any, ...]: ...
    def __call__(  # type: ignore[override]
        self, x: _ArrayLike, state: None = None, *, lengths: _ArrayLike | None = None,
        reset: Any = None, trace: Literal[False] = False, batch_first: bool = False,
    ) -> _Array: ...
    def stream(self, batch_size: int = 1, *, awake: float = 0.0) -> StatelessStream: ...

