from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from ..params import _Array

LIMIT: int

class Value(NamedTuple):
    name: str
    dims: tuple[int | str, ...]

class Constant(NamedTuple):
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    make: Callable[[], _Array]
    @property
    def size(self) -> int: ...

class Graph:
    dtype: np.dtype[Any]
    inputs: dict[str, tuple[np.dtype[Any], tuple[int | str, ...]]]
    outputs: dict[str, tuple[np.dtype[Any], tuple[int | str, ...]]]
    def __init__(self, dtype: DTypeLike) -> None: ...
    def input(self, name: str, dims: tuple[int | str, ...], dtype: DTypeLike | None = None) -> str: ...
    def output(self, name: str, value: str, dims: tuple[int | str, ...]) -> None: ...
    def constant(self, name: str, shape: Iterable[int], make: Callable[[], _Array]) -> str: ...
    def sizes(self, *numbers: int) -> str: ...
    def node(
        self, operator: str, name: str, inputs: Iterable[str], outputs: Iterable[str], **attributes: Any
    ) -> None: ...
    def then(self, operator: str, output: str, *inputs: str, **attributes: Any) -> str: ...
    def file(self, opset: int, metadata: dict[str, str]) -> Iterator[bytes | memoryview]: ...

def check_size(size: int) -> None: ...
