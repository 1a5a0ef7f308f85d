from typing import Any, ClassVar, Generic, Literal, TypeVar, overload

from numpy.typing import DTypeLike

from .functional import Kept
from .module import Module
from .params import GRUTrace, RNNTrace, Trace, _Array, _ArrayLike, _Rng, _State, _StateLike
from .planning import Plan
from .stream import Stream

_S = TypeVar("_S")  # the state, out
_SL = TypeVar("_SL")  # and in
_T = TypeVar("_T")  # the trace

class Recurrent(Module, Generic[_S, _SL, _T]):
    cell: ClassVar[str | None]
    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size: int
    @overload
    def __call__(
        self, x: _ArrayLike, state: _SL | None = None, *, lengths: _ArrayLike | None = None,
        reset: _ArrayLike | None = None, trace: Literal[False] = False,
    ) -> tuple[_Array, _S]: ...
    @overload
    def __call__(
        self, x: _ArrayLike, state: _SL | None = None, *, lengths: _ArrayLike | None = None,
        reset: _ArrayLike | None = None, trace: Literal[True],
    ) -> tuple[_Array, _S, _T]: ...
    @overload
    def __call__(
        self, x: _ArrayLike, state: _SL | None = None, *, lengths: _ArrayLike | None = None,
        reset: _ArrayLike | None = None, trace: bool = False,
    ) -> tuple[Any, ...]: ...
    @overload
    def forward(
        self, x: _ArrayLike, state: _SL | None = None, *, lengths: _ArrayLike | None = None,
        reset: _ArrayLike | None = None, trace: Literal[False] = False, cache: Literal[False] = False,
    ) -> tuple[_Array, _S]: ...
    @overload
    def forward(
        self, x: _ArrayLike, state: _SL | None = None, *, lengths: _ArrayLike | None = None,
        reset: _ArrayLike | None = None, trace: Literal[False] = False, cache: Literal[True],
    ) -> tuple[_Array, _S, Kept]: ...
    @overload
    def forward(
        self, x: _ArrayLike, state: _SL | None = None, *, lengths: _ArrayLike | None = None,
        reset: _ArrayLike | None = None, trace: Literal[True], cache: Literal[False] = False,
    ) -> tuple[_Array, _S, _T]: ...
    @overload
    def forward(
        self, x: _ArrayLike, state: _SL | None = None, *, lengths: _ArrayLike | None = None,
        reset: _ArrayLike | None = None, trace: Literal[True], cache: Literal[True],
    ) -> tuple[_Array, _S, _T, Kept]: ...
    @overload
    def forward(
        self, x: _ArrayLike, state: _SL | None = None, *, lengths: _ArrayLike | None = None,
        reset: _ArrayLike | None = None, trace: bool = False, cache: bool = False,
    ) -> tuple[Any, ...]: ...
    @overload
    def backward(
        self, dy: _ArrayLike, cache: Kept, dstate: _SL | None = None, *, input_gradient: Literal[True] = True
    ) -> tuple[_Array, _S, dict[str, _Array]]: ...
    @overload
    def backward(
        self, dy: _ArrayLike, cache: Kept, dstate: _SL | None = None, *, input_gradient: Literal[False]
    ) -> tuple[None, _S, dict[str, _Array]]: ...
    @overload
    def backward(
        self, dy: _ArrayLike, cache: Kept, dstate: _SL | None = None, *, input_gradient: bool = True
    ) -> tuple[_Array | None, _S, dict[str, _Array]]: ...
    def stream(self, batch_size: int = 1) -> Stream: ...
    def plan(self, T: int, B: int) -> Plan: ...

class LSTM(Recurrent[_State, _StateLike, Trace]):
    cell: ClassVar[str]
    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, *, dtype: DTypeLike = "float32",
        rng: _Rng = None, num_threads: int | None = None,
    ) -> None: ...

class GRU(Recurrent[_Array, _ArrayLike, GRUTrace]):
    cell: ClassVar[str]
    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, *, dtype: DTypeLike = "float32",
        rng: _Rng = None, num_threads: int | None = None,
    ) -> None: ...

class RNN(Recurrent[_Array, _ArrayLike, RNNTrace]):
    cell: ClassVar[str]
    nonlinearity: str
    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, *, dtype: DTypeLike = "float32",
        rng: _Rng = None, num_threads: int | None = None,
    ) -> None: ...
