from typing import Any, NamedTuple

from .option_checks import ACTIVATIONS as ACTIVATIONS
from .option_checks import CHECKS as CHECKS
from .option_checks import Activation as Activation

OPTIONS: dict[str, dict[str, Any]]
FAMILY: tuple[str, ...]
GREFF: dict[str, dict[str, Any]]

class Variant(NamedTuple):
    cell: str
    activations: tuple[Activation, ...]
    clip: float | None = None
    reset_after: bool = True
    peephole: str = ""
    peephole_o: str = "c"
    coupled: str | None = None
    without: str = ""
    cell_clip: float | None = None
    proj_clip: float | None = None
    layer_norm: str | None = None
    norm_eps: float = 1e-5
    gate_recurrence: bool = False
    periods: tuple[int, ...] = ()
    block_size: int = 1
    biased: str = "all"
    gradient: str = "full"
    @property
    def gates(self) -> tuple[str, ...]: ...
    @property
    def states(self) -> tuple[str, ...]: ...
    @property
    def traced(self) -> tuple[str, ...]: ...
    @property
    def projects(self) -> bool: ...
    @property
    def masks(self) -> tuple[str, ...]: ...
    @property
    def cycle(self) -> int: ...
    @property
    def options(self) -> dict[str, Any]: ...
    def rows(self, hidden: int) -> int: ...
    def hidden(self, rows: int) -> int: ...
    def widths(self, hidden: int, proj: int = 0) -> dict[str, int]: ...

def variant(cell: str = "lstm", **options: Any) -> Variant: ...
def cell_of(cell: str | Variant) -> Variant: ...
