"""Types of params, and the aliases the other stubs share; those with an underscore do not exist at run time."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .traces import DepthGatedTrace as DepthGatedTrace
from .traces import GRUTrace as GRUTrace
from .traces import LSTM1997Trace as LSTM1997Trace
from .traces import RNNTrace as RNNTrace
from .traces import Trace as Trace
from .traces import trace_of as trace_of
from .variants import Variant
from .variants import cell_of as cell_of

_V = TypeVar("_V")

class _SupportsDLPack(Protocol):
    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any: ...

_Array: TypeAlias = NDArray[Any]
_ArrayLike: TypeAlias = ArrayLike | _SupportsDLPack
_State: TypeAlias = tuple[_Array, _Array]
_State3: TypeAlias = tuple[_Array, _Array, _Array]
_StateLike: TypeAlias = tuple[_ArrayLike | None, _ArrayLike | None] | list[Any]
_StateLike3: TypeAlias = tuple[_ArrayLike | None, _ArrayLike | None, _ArrayLike | None] | list[Any]
_Rng: TypeAlias = int | Sequence[int] | np.random.SeedSequence | np.random.BitGenerator | np.random.Generator | None
_Sizes: TypeAlias = int | tuple[int, ...] | list[int]
_Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

def check_flag(name: str, value: Any, hint: str = "") -> bool: ...
def model_dtype(dtype: DTypeLike) -> np.dtype[Any]: ...
def origin(value: Any) -> str: ...
def check_num_threads(value: int | None) -> int | None: ...
def layer_sizes(v: Variant, name: str, hidden: _Sizes, num_layers: int) -> list[int]: ...
def suffixes(num_layers: int, bidirectional: bool = False) -> list[str]: ...
def by_layer(arrays: Mapping[str, _V], ends: Sequence[str]) -> list[dict[str, _V]]: ...
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
    shapes: _Shapes, rng: np.random.Generator, dtype: DTypeLike, hidden_size: _Sizes
) -> dict[str, _Array]: ...
def find_tensors(
    d: Mapping[str, Any], shapes: _Shapes, strict: bool = True
) -> tuple[dict[str, _Array], list[str], list[str]]: ...
def check_state_dict(
    d: Mapping[str, Any], shapes: _Shapes, dtype: DTypeLike, strict: bool = True, warn: bool = True
) -> tuple[dict[str, _Array], list[str], list[str]]: ...

UNREADABLE: tuple[type[Exception], ...]
def not_finite(arrays: Mapping[str, _Array]) -> list[str]: ...
