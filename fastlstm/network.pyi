from typing import Final, Literal, NamedTuple, TypeAlias, overload

from numpy.typing import DTypeLike

from .params import _Array, _ArrayLike, _Rng
from .stateless import Stateless

ACTIVATIONS: tuple[str, ...]
_Activation: TypeAlias = Literal["none", "relu", "tanh", "sigmoid", "softmax"]

class _EmbeddingCache(NamedTuple):
    index: _Array  # type: ignore[assignment]  # hides tuple.index
    shape: tuple[int, ...]
    valid: _Array | None

class Embedding(Stateless):
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

class Linear(Stateless):
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
