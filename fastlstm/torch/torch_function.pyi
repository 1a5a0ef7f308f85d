from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch

from .. import _core
from ..functional import Kept
from ..spec import Spec

class Rows(NamedTuple):
    steps: int
    batch: int
    lengths: np.ndarray
    places: torch.Tensor | None
    @classmethod
    def of(cls, batch_sizes: torch.Tensor, count: int) -> Rows | None: ...
    def spread(self, data: torch.Tensor) -> torch.Tensor: ...
    def gather(self, padded: torch.Tensor) -> torch.Tensor: ...

class Run(NamedTuple):
    spec: Spec
    names: tuple[str, ...]
    pack: Callable[[bool], _core.Model]
    threads: int
    dropout: float
    rows: Rows | None
    def infer(self, x: torch.Tensor, state: Iterable[torch.Tensor]) -> tuple[torch.Tensor, ...]: ...
    def train(
        self, x: torch.Tensor, state: Iterable[torch.Tensor], shared: bool
    ) -> tuple[tuple[torch.Tensor, ...], Kept]: ...
    def again(self, kept: Kept, x: torch.Tensor, state: Iterable[torch.Tensor]) -> Kept: ...
    def backward(
        self, kept: Kept, dy: torch.Tensor | None, dstate: Iterable[torch.Tensor | None], input_gradient: bool
    ) -> tuple[torch.Tensor | None, tuple[torch.Tensor, ...], list[torch.Tensor]]: ...

Once: type[Any]  # torch.autograd.Functions, both
Recurrence: type[Any]
