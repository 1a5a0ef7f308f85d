from collections.abc import Mapping
from typing import Any, ClassVar, Final, Generic, Literal, TypeVar, overload

import numpy as np

from .functional import Kept
from .module import Module
from .params import _Array, _ArrayLike
from .planning import Plan
from .stream import Stream

_S = TypeVar("_S")  # the state, out
_SL = TypeVar("_SL")  # and in
_T = TypeVar("_T")  # the trace

class Recurrent(Module, Generic[_S, _SL, _T]):
    cell: ClassVar[str | None]
    input_size: Final[int]
    hidden_size: Final[Any]  # int; tuple[int, ...] when layers differ: states are lists then, whatever _S says
    num_layers: Final[int]
    bias: Final[bool]
    batch_first: Final[bool]
    dropout: float
    @property
    def rng(self) -> np.random.Generator: ...
    @rng.setter
    def rng(self, value: int | np.random.Generator | None) -> None: ...
    bidirectional: Final[bool]
    proj_size: Final[int]
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
        masks: Mapping[str, Any] | None = None,
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
        masks: Mapping[str, Any] | None = None,
    ) -> tuple[_Array, _S, _T, Kept]: ...
    @overload
    def forward(
        self, x: _ArrayLike, state: _SL | None = None, *, lengths: _ArrayLike | None = None,
        reset: _ArrayLike | None = None, trace: bool = False, cache: bool = False,
        masks: Mapping[str, Any] | None = None,
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
    def draw_masks(self, T: int, B: int) -> dict[str, Any]: ...
    def stream(self, batch_size: int = 1, *, awake: float = 0.0) -> Stream[_S, _SL]: ...
    def plan(self, T: int, B: int) -> Plan: ...
