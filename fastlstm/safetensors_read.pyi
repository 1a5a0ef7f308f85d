from typing import BinaryIO, NamedTuple

from .params import _Array

MAX_HEADER: int
DTYPES: dict[str, str]

class Entry(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    at: int
    nbytes: int

class Header(NamedTuple):
    metadata: dict[str, str] | None
    tensors: dict[str, Entry]

def read_header(file: BinaryIO) -> Header: ...
def read_tensor(file: BinaryIO, name: str, entry: Entry) -> _Array: ...
def from_bfloat16(bits: _Array) -> _Array: ...
