from collections.abc import Mapping
from typing import Any

import torch

from .. import _core
from ..spec import Spec

class Panels:
    def __init__(self) -> None: ...
    def model(
        self, spec: Spec, shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, torch.Tensor], trainable: bool,
        trusts: bool, threads: int,
    ) -> _core.Model: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
