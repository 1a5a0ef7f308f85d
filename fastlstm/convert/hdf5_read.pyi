from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..params import _Array

SIGNATURE: bytes
MAX_TEXT: int
MAX_NAME: int

class Damaged(ValueError): ...

class Array(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None
    at: int
    kind: str

    @property
    def nbytes(self) -> int: ...

class Hdf5:
    size: int
    root: int
    def __init__(self, file: BinaryIO, start: int, size: int) -> None: ...
    def charge_text(self, nbytes: int) -> None: ...
    def links(self, node: int) -> dict[str, int] | None: ...
    def attributes(self, node: int) -> dict[str, str | list[str] | None]: ...
    def array(self, node: int) -> Array: ...
    def numbers(self, array: Array) -> _Array: ...
