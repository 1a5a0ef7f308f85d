from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import DTypeLike

from . import _core
from .params import _Array, _ArrayLike

class Spec(NamedTuple):
    input_size: int
    hidden_size: int
    proj_size: int
    num_layers: int
    directions: int
    dtype: np.dtype[Any]
    batch_first: bool
    cell: str = "lstm"
    states: int = 2
    @property
    def recurrent(self) -> int: ...
    @property
    def outputs(self) -> int: ...

class Layout(NamedTuple):
    steps: int
    batch: int
    batched: bool
    batch_first: bool
    def outward(self, a: _Array) -> _Array: ...
    def inward(self, a: _Array) -> _Array: ...
    def shape(self, *tail: int) -> tuple[int, ...]: ...

class Kept(NamedTuple):
    core: _core.Cache
    layout: Layout
    spec: Spec
    @property
    def nbytes(self) -> int: ...

def real_array(name: str, value: _ArrayLike, dtype: DTypeLike) -> _Array: ...
def check_x(spec: Spec, x: _ArrayLike) -> tuple[_Array, Layout]: ...
def check_state(
    spec: Spec, state: Any, layout: Layout, names: tuple[str, str] = ("h0", "c0"), argument: str = "state"
) -> tuple[_Array | None, _Array | None]: ...
def check_lengths(lengths: _ArrayLike | None, layout: Layout) -> _Array | None: ...
def check_reset(reset: _ArrayLike | None, layout: Layout) -> _Array | None: ...
def forward(
    packed: _core.Model, spec: Spec, x: _ArrayLike, state: Any = None, lengths: _ArrayLike | None = None,
    reset: _ArrayLike | None = None, threads: int = 0,
) -> tuple[_Array, Any]: ...
def forward_cached(
    packed: _core.Model, spec: Spec, x: _ArrayLike, state: Any = None, lengths: _ArrayLike | None = None,
    reset: _ArrayLike | None = None, masks: Callable[[int, int], _Array] | None = None, threads: int = 0,
    pooled: bool = True,
) -> tuple[_Array, Any, Kept]: ...
def trace_of(spec: Spec, kept: Kept) -> Any: ...
@overload
def backward(
    spec: Spec, names: Sequence[str], weights: Mapping[str, _Array], dy: _ArrayLike, kept: Kept,
    dstate: Any = None, input_gradient: Literal[True] = True, threads: int = 0,
) -> tuple[_Array, Any, dict[str, _Array]]: ...
@overload
def backward(
    spec: Spec, names: Sequence[str], weights: Mapping[str, _Array], dy: _ArrayLike, kept: Kept,
    dstate: Any = None, *, input_gradient: Literal[False], threads: int = 0,
) -> tuple[None, Any, dict[str, _Array]]: ...
@overload
def backward(
    spec: Spec, names: Sequence[str], weights: Mapping[str, _Array], dy: _ArrayLike, kept: Kept,
    dstate: Any, input_gradient: bool, threads: int = 0,
) -> tuple[_Array | None, Any, dict[str, _Array]]: ...
