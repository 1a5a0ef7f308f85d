from typing import Any, Final, Literal, NamedTuple, TypeAlias, overload

from numpy.typing import DTypeLike

from .module import Module
from .params import _Array, _ArrayLike, _Rng
from .stream import StatelessStream

ACTIVATIONS: tuple[str, ...]
_Activation: TypeAlias = Literal["none", "relu", "tanh", "sigmoid", "softmax"]

class Handed(NamedTuple):
    x: bool
    y: bool

BOTH: Handed

def valid_positions(
    shape: tuple[int, ...], row_axes: int, lengths: _ArrayLike, batch_first: bool
) -> _Array | None: ...

class _Stateless(Module):
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

class _EmbeddingCache(NamedTuple):
    index: _Array  # type: ignore[assignment]  # hides tuple.index
    shape: tuple[int, ...]
    valid: _Array | None

class Embedding(_Stateless):
    num_embeddings: Final[int]
    embedding_dim: Final[int]
    def __init__(
        self, num_embeddings: int, embedding_dim: int, *, dtype: DTypeLike = "float32", rng: _Rng = None
    ) -> None: ...
    def backward(
        self, dy: _ArrayLike, cache: _EmbeddingCache, dstate: None = None, *, input_gradient: bool = True
    ) -> tuple[None, None, dict[str, _Array]]: ...

class _LinearCache(NamedTuple):
    x: _Array
    y: _Array | None
    shape: tuple[int, ...]
    valid: _Array | None
    version: int

class Linear(_Stateless):
    in_features: Final[int]
    out_features: Final[int]
    bias: Final[bool]
    activation: Final[_Activation | None]
    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, activation: _Activation | None = None, *,
        dtype: DTypeLike = "float32", rng: _Rng = None, num_threads: int | None = None,
    ) -> None: ...
    @overload
    def backward(
        self, dy: _ArrayLike, cache: _LinearCache, dstate: None = None, *, input_gradient: Literal[True] = True
    ) -> tuple[_Array, None, dict[str, _Array]]: ...
    @overload
    def backward(
        self, dy: _ArrayLike, cache: _LinearCache, dstate: None = None, *, input_gradient: Literal[False]
    ) -> tuple[None, None, dict[str, _Array]]: ...
    @overload
    def backward(
        self, dy: _ArrayLike, cache: _LinearCache, dstate: None = None, *, input_gradient: bool = True
    ) -> tuple[_Array | None, None, dict[str, _Array]]: ...
