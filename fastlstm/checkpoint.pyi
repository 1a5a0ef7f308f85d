from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .module import Module
from .optim import Optimiser
from .read_files import _Given
from .whole_files import _Goal

VERSION: int

class Checkpoint(NamedTuple):
    model: Any
    optimiser: Any
    generators: dict[str, np.random.Generator]
    metadata: dict[str, str]

def save_checkpoint(
    path: _Goal, model: Module | Sequence[Module], optimiser: Optimiser | None = None, *,
    generators: Mapping[str, np.random.Generator] | None = None, metadata: dict[str, str] | None = None,
) -> None: ...
def load_checkpoint(path: _Given, *, pack: bool = False) -> Checkpoint: ...
