from typing import Any, ClassVar, Literal, overload

from numpy.typing import DTypeLike

from .functional import Kept
from .module import Module
from .params import Trace, _Array, _ArrayLike, _Rng, _State, _StateLike
from .planning import Plan
from .stream import Stream

class Recurrent(Module):
    cell: ClassVar[str | None]
    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size: int
    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, *, dtype: DTypeLike = "float32",
        rng: _Rng = None, num_threads: int | None = None,
    ) -> None: ...
    @overload
    def __call__(
        self, x: _ArrayLike, state: _StateLike | None = None, *, lengths: _ArrayLike | None = None,
        reset: _ArrayLike | None = None, trace: Literal[False] = False,
    ) -> tuple[_Array, _State]: ...
    @overload
    def __call__(
        self, x: _ArrayLike, state: _StateLike | None = None, *, lengths: _ArrayLike | None = None,
        reset: _ArrayLike | None = None, trace: Literal[True],
    ) -> tuple[_Array, _State, Trace]: ...
    @overload
    def __call__(
        self, x: _ArrayLike, state: _StateLike | None = None, *, lengths: _ArrayLike | None = None,
        reset: _ArrayLike | None = None, trace: bool = False,
    ) -> tuple[Any, ...]: ...
    @overload
    def forward(
        self, x: _ArrayLike, state: _StateLike | None = None, *, lengths: _ArrayLike | None = None,
        reset: _ArrayLike | None = None, trace: Literal[False] = False, cache: Literal[False] = False,
    ) -> tuple[_Array, _State]: ...
    @overload
    def forward(
        self, x: _ArrayLike, state: _StateLike | None = None, *, lengths: _ArrayLike | None = None,
        reset: _ArrayLike | None = None, trace: Literal[False] = False, cache: Literal[True],
    ) -> tuple[_Array, _State, Kept]: ...
    @overload
    def forward(
        self, x: _ArrayLike, state: _StateLike | None = None, *, lengths: _ArrayLike | None = None,
        reset: _ArrayLike | None = None, trace: Literal[True], cache: Literal[False] = False,
    ) -> tuple[_Array, _State, Trace]: ...
    @overload
    def forward(
        self, x: _ArrayLike, state: _StateLike | None = None, *, lengths: _ArrayLike | None = None,
        reset: _ArrayLike | None = None, trace: Literal[True], cache: Literal[True],
    ) -> tuple[_Array, _State, Trace, Kept]: ...
    @overload
    def forward(
        self, x: _ArrayLike, state: _StateLike | None = None, *, lengths: _ArrayLike | None = None,
        reset: _ArrayLike | None = None, trace: bool = False, cache: bool = False,
    ) -> tuple[Any, ...]: ...
    @overload
    def backward(
        self, dy: _ArrayLike, cache: Kept, dstate: _StateLike | None = None, *, input_gradient: Literal[True] = True
    ) -> tuple[_Array, _State, dict[str, _Array]]: ...
    @overload
    def backward(
        self, dy: _ArrayLike, cache: Kept, dstate: _StateLike | None = None, *, input_gradient: Literal[False]
    ) -> tuple[None, _State, dict[str, _Array]]: ...
    @overload
    def backward(
        self, dy: _ArrayLike, cache: Kept, dstate: _StateLike | None = None, *, input_gradient: bool = True
    ) -> tuple[_Array | None, _State, dict[str, _Array]]: ...
    def stream(self, batch_size: int = 1) -> Stream: ...
    def plan(self, T: int, B: int) -> Plan: ...

class LSTM(Recurrent):
    cell: ClassVar[str]
