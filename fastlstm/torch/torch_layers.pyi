from collections.abc import Callable
from typing import Any

import torch

OURS: dict[type[Any], type[Any]]
TORCHS: dict[type[Any], type[Any]]

def transform_probe(core: Any) -> Callable[[], bool]: ...
def dispatch_probe(core: Any) -> Callable[[], int]: ...
def dual_probe(module: Any) -> Callable[[], bool]: ...
def refusal(name: str, tensor: torch.Tensor) -> str | None: ...
def to_torchs(layer: Any) -> None: ...

class LSTM(torch.nn.LSTM):
    trusts_versions: bool

class GRU(torch.nn.GRU):
    trusts_versions: bool

class RNN(torch.nn.RNN):
    trusts_versions: bool
