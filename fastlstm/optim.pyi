from collections.abc import Sequence
from typing import Any, TypeAlias

from .gradients import _Grads
from .gradients import clip_grad_norm as clip_grad_norm
from .module import Module

_Models: TypeAlias = Module | Sequence[Module]

__all__ = ["SGD", "Adam", "Optimiser", "clip_grad_norm"]

class Optimiser:
    def __init__(self, model: _Models) -> None: ...
    @property
    def model(self) -> Module | tuple[Module, ...]: ...
    def step(self, grads: _Grads | Sequence[_Grads]) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, d: dict[str, Any]) -> None: ...

class SGD(Optimiser):
    lr: float
    momentum: float
    weight_decay: float
    nesterov: bool
    def __init__(
        self, model: _Models, lr: float, momentum: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False
    ) -> None: ...

class Adam(Optimiser):
    lr: float
    betas: tuple[float, float] | list[float]
    eps: float
    weight_decay: float
    def __init__(
        self, model: _Models, lr: float = 1e-3, betas: tuple[float, float] | list[float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0,
    ) -> None: ...
