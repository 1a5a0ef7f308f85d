from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from . import _core
from .params import _Array
from .spec import Spec
from .states import _Inside

def pack(
    spec: Spec, weights: Mapping[str, _Array], trainable: bool, zoneout_h: float = 0.0, zoneout_c: float = 0.0,
    rooms: _core.Rooms | None = None, threads: int = 0,
) -> _core.Model | Chain: ...

class ChainCache(NamedTuple):
    model: Chain
    caches: list[_core.Cache]
    dropout: Any
    @property
    def steps(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def y(self) -> _Array: ...
    @property
    def nbytes(self) -> int: ...
    def views(self, layer: int, direction: int) -> dict[str, Any]: ...

class Chain:
    directions: int
    dtype: np.dtype[Any]
    widths: list[int]
    models: list[_core.Model]
    def __init__(
        self, spec: Spec, weights: list[dict[str, _Array]], backward: bool = False, zoneout_h: float = 0.0,
        zoneout_c: float = 0.0, threads: int = 0,
    ) -> None: ...
    @property
    def own_bias_hh(self) -> bool: ...
    @property
    def isa(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    def plan(self, steps: int, batch: int, backward: bool = False, threads: int = 0) -> dict[str, Any]: ...
    def infer(self, x: Any, state: Any, batch_first: bool, threads: int) -> None: ...
    def forward(
        self, x: _Array, state0: _Inside, y: _Array, staten: _Inside, lengths: _Array | None = None,
        reset: _Array | None = None, threads: int = 0,
    ) -> None: ...
    def forward_cached(
        self, x: _Array, state0: _Inside, staten: _Inside, lengths: _Array | None = None, reset: _Array | None = None,
        dropout: Any = None, masks: list[dict[str, _Array]] | None = None, threads: int = 0, pooled: bool = True,
    ) -> ChainCache: ...
    def backward(
        self, cache: ChainCache, dy: _Array, dstaten: _Inside, dx: _Array | None, dstate0: _Inside,
        gradients: list[dict[str, _Array]], threads: int = 0,
    ) -> None: ...

class ChainStepper:
    def __init__(
        self, chain: Chain, batch: int, state: _Inside, threads: int = 0, awake_ns: int = 0,
        busy: _core.Busy | None = None,
    ) -> None: ...
    def counts(self) -> list[int]: ...
    def release(self) -> None: ...
    def step(self, x: Any, out: Any = None) -> _Array | None: ...
    def step_inside(self, x: Any, out: Any = None) -> _Array | None: ...
