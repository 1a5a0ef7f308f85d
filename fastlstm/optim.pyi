from collections.abc import Mapping
from typing import Any

from .module import Module
from .params import _Array

class _Optimiser:
    model: Module
    def __init__(self, model: Module) -> None: ...
    def step(self, grads: dict[str, _Array] | dict[str, _Array | None]) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, d: dict[str, Any]) -> None: ...

class SGD(_Optimiser):
    lr: float
    momentum: float
    weight_decay: float
    nesterov: bool
    def __init__(
        self, model: Module, lr: float, momentum: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False
    ) -> None: ...

class Adam(_Optimiser):
    lr: float
    betas: tuple[float, float] | list[float]
    eps: float
    weight_decay: float
    def __init__(
        self, model: Module, lr: float = 1e-3, betas: tuple[float, float] | list[float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0,
    ) -> None: ...

def clip_grad_norm(
    grads: Mapping[str, _Array | None], max_norm: float, error_if_nonfinite: bool = False
) -> float: ...
