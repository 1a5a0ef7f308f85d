from collections.abc import Mapping
from typing import Any

import numpy as np

from .params import _Array
from .spec import Spec
from .variants import Variant

MASKS: dict[str, str]

def rates_of(v: Variant) -> list[str]: ...
def check_rate(name: str, value: Any) -> float: ...
def dropped(rng: np.random.Generator, shape: tuple[int, ...], rate: float, dtype: np.dtype[Any]) -> _Array: ...
def draw(
    spec: Spec, rates: Mapping[str, float], rng: np.random.Generator, steps: int, batch: int
) -> dict[str, _Array]: ...
def expected(spec: Spec, rates: Mapping[str, float], steps: int, batch: int) -> dict[str, _Array]: ...
def check_masks(
    spec: Spec, given: Mapping[str, Any], rates: Mapping[str, float], steps: int, batch: int
) -> dict[str, Any]: ...
