from collections.abc import Collection, Mapping
from typing import Any

import torch

from .. import _core
from ..ragged import Chain
from ..spec import Spec

PLAIN: tuple[type[Any], ...]

class Packed:
    spec: Spec
    shapes: Mapping[str, tuple[int, ...]]
    trainable: bool
    trusts: bool
    model: _core.Model | Chain
    def __init__(
        self, spec: Spec, shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, torch.Tensor], trainable: bool,
        trusts: bool, rooms: _core.Rooms, threads: int = 0,
    ) -> None: ...
    def holds(self, weights: Collection[torch.Tensor]) -> bool: ...

class Panels:
    def __init__(self) -> None: ...
    def find(self, weights: Mapping[str, torch.Tensor], trusts: bool) -> Packed | None: ...
    def pack(
        self, spec: Spec, shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, torch.Tensor], trainable: bool,
        trusts: bool, threads: int,
    ) -> Packed: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
