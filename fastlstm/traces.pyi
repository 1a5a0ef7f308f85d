from typing import Any, NamedTuple, TypeAlias

from numpy.typing import NDArray

from .variants import Variant

_Field: TypeAlias = list[NDArray[Any]]

class Trace(NamedTuple):
    i: _Field
    f: _Field
    g: _Field
    o: _Field
    c: _Field
    h: _Field

class GRUTrace(NamedTuple):
    r: _Field
    z: _Field
    n: _Field
    h: _Field

class RNNTrace(NamedTuple):
    a: _Field
    h: _Field

class DepthGatedTrace(NamedTuple):
    i: _Field
    f: _Field
    g: _Field
    o: _Field
    d: _Field
    c: _Field
    h: _Field

class LSTM1997Trace(NamedTuple):
    i: _Field
    g: _Field
    o: _Field
    c: _Field
    h: _Field

TRACES: dict[str, type[Any]]

def trace_of(cell: str | Variant) -> type[Any]: ...
