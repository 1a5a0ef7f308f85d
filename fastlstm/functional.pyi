from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, TypeAlias, overload

from . import _core
from .params import _Array, _ArrayLike
from .ragged import Chain, ChainCache
from .spec import Layout, Spec

_Masks: TypeAlias = dict[str, Any]  # arrays; "dropout" of layers that differ in size is a list of them

class Kept(NamedTuple):
    core: _core.Cache | ChainCache
    layout: Layout
    spec: Spec
    masks: _Masks
    @property
    def nbytes(self) -> int: ...

def forward(
    packed: _core.Model | Chain, spec: Spec, x: _ArrayLike, state: Any = None, lengths: _ArrayLike | None = None,
    reset: _ArrayLike | None = None, threads: int = 0,
) -> tuple[_Array, Any]: ...
def forward_cached(
    pack: Callable[[_Masks], _core.Model | Chain], spec: Spec, x: _ArrayLike, state: Any = None,
    lengths: _ArrayLike | None = None, reset: _ArrayLike | None = None,
    masks: Callable[[int, int], _Masks] | None = None, threads: int = 0, pooled: bool = True, shared: bool = False,
) -> tuple[_Array, Any, Kept]: ...
def trace(spec: Spec, kept: Kept, frozen: bool = False) -> Any: ...
@overload
def backward(
    spec: Spec, weights: Iterable[str], dy: _ArrayLike, kept: Kept, dstate: Any = None,
    input_gradient: Literal[True] = True, threads: int = 0,
) -> tuple[_Array, Any, dict[str, _Array]]: ...
@overload
def backward(
    spec: Spec, weights: Iterable[str], dy: _ArrayLike, kept: Kept, dstate: Any = None, *,
    input_gradient: Literal[False], threads: int = 0,
) -> tuple[None, Any, dict[str, _Array]]: ...
@overload
def backward(
    spec: Spec, weights: Iterable[str], dy: _ArrayLike, kept: Kept, dstate: Any, input_gradient: bool,
    threads: int = 0,
) -> tuple[_Array | None, Any, dict[str, _Array]]: ...
