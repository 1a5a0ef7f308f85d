"""Types of params, and the aliases the other stubs share; those with an underscore do not exist at run time."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .variants import Variant

class _SupportsDLPack(Protocol):
    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any: ...

_Array: TypeAlias = NDArray[Any]
_ArrayLike: TypeAlias = ArrayLike | _SupportsDLPack
_State: TypeAlias = tuple[_Array, _Array]
_StateLike: TypeAlias = tuple[_ArrayLike | None, _ArrayLike | None] | list[Any]
_Rng: TypeAlias = int | Sequence[int] | np.random.SeedSequence | np.random.BitGenerator | np.random.Generator | None
_Sizes: TypeAlias = int | tuple[int, ...] | list[int]
_Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

class Cell(NamedTuple):
    gates: tuple[str, ...]
    states: tuple[str, ...]
    projects: bool = False

CELLS: dict[str, Cell]

class Trace(NamedTuple):
    # An array each; list[_Array] with several layers or directions. Any, lest every use must ask which.
    i: _Array | Any
    f: _Array | Any
    g: _Array | Any
    o: _Array | Any
    c: _Array | Any
    h: _Array | Any

class GRUTrace(NamedTuple):
    r: _Array | Any
    z: _Array | Any
    n: _Array | Any
    h: _Array | Any

class RNNTrace(NamedTuple):
    a: _Array | Any
    h: _Array | Any

TRACES: dict[str, type[Any]]

def cell_of(cell: str | Variant) -> Cell | Variant: ...
def trace_of(cell: str | Variant) -> type[Any]: ...
def suffixes(num_layers: int, bidirectional: bool = False) -> list[str]: ...
def weight_shapes(
    cell: str | Variant, input_size: int, hidden_size: _Sizes, num_layers: int = 1, bias: bool = True,
    bidirectional: bool = False, proj_size: int = 0,
) -> dict[str, tuple[int, ...]]: ...
@overload
def state_shapes(
    num_layers: int, directions: int, batch: int, hidden: int, proj: int = 0, cell: str | Variant = "lstm"
) -> dict[str, tuple[int, int, int]]: ...
@overload
def state_shapes(
    num_layers: int, directions: int, batch: int, hidden: _Sizes, proj: int = 0, cell: str | Variant = "lstm"
) -> dict[str, Any]: ...
def mask_shapes(
    v: Variant, T: int, batch: int, input_size: int, hidden_size: _Sizes, num_layers: int = 1,
    bidirectional: bool = False, proj_size: int = 0,
) -> dict[str, tuple[int, ...]]: ...
def init_weights(
    shapes: _Shapes, rng: np.random.Generator, dtype: DTypeLike, hidden_size: int
) -> dict[str, _Array]: ...
def check_state_dict(
    d: Mapping[str, Any], shapes: _Shapes, dtype: DTypeLike, strict: bool = True
) -> tuple[dict[str, _Array], list[str], list[str]]: ...
