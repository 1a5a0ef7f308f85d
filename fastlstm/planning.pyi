from collections.abc import Mapping
from typing import Any

from . import _core
from .ragged import Chain

LARGEST: int

class Plan:
    steps: int
    batch: int
    threads: int
    split: str
    blas: bool
    chunk: int
    hoist: int
    ahead: int
    step_flops: float
    panel_bytes: float
    why: str
    why_hoist: str
    work_ns: float
    estimate_ns: float
    compared: dict[str, tuple[int, float]]
    step_ns: float
    layer_bytes: float
    flops_per_ns: float
    wake_ns: float
    barrier_ns: float
    private_cache: float
    cores: int
    workspace_bytes: int
    def __init__(self, found: Mapping[str, Any], steps: int, batch: int) -> None: ...

class StackPlan(Plan):
    layers: tuple[Plan, ...]
    def __init__(self, layers: list[Plan]) -> None: ...

def plan(packed: _core.Model | Chain, steps: int, batch: int, threads: int = 0) -> Plan: ...
