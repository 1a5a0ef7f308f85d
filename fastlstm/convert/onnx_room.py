"""What is computed while an ONNX file is read: how much memory it may take, and what a node hands to its operator."""

import math
import weakref
from typing import Any, NamedTuple

import numpy as np

MAX_AXES = 8
BF16 = np.dtype([("bits", "<u2")])
TYPES = {  # TensorProto.DataType -> dtype of an array, of what is computed
    1: np.dtype("f4"), 2: np.dtype("u1"), 3: np.dtype("i1"), 4: np.dtype("u2"), 5: np.dtype("i2"), 6: np.dtype("i4"),
    7: np.dtype("i8"), 9: np.dtype("?"), 10: np.dtype("f2"), 11: np.dtype("f8"), 12: np.dtype("u4"),
    13: np.dtype("u8"), 16: BF16,
}
_SMALL = 1 << 18  # bytes of arrays that files of any size may compute: sizes, axes, scales
LIST = 4096  # numbers that are looked at one by one
_WORK = 32  # what may be computed in all, in terms of what may be there at a time


class Room:
    """How many bytes a reader may take: the file's own, arrays that are computed, layers.

    resident: a function, the bytes of the file that are in memory.
    """

    def __init__(self, size, resident):
        self._most, self._resident = size, resident
        self._spare = _SMALL + size // 16  # pages that cannot be given back
        self._layers = self._computed = self._work = 0

    def grow(self, size):
        """Allow more, for what lies in other files, or takes more memory than in the file."""
        self._most += size

    def take(self, size):
        """Whether a layer may take so many bytes, which then count."""
        if self._layers + size > self._most or self._layers + self._computed + size > self._most + self._spare:
            return False
        self._layers += size
        return True

    def check(self, size):
        """ValueError for a number of bytes that may not be computed now."""
        held = self._resident() + self._layers + self._computed
        if held + size > self._most + self._spare:
            raise ValueError("needs more memory than twice that of the weights in the file")
        if self._work + size > _WORK * (self._most + _SMALL):
            raise ValueError("makes too many numbers on the way to the weights, together with other nodes")

    def adopt(self, array):
        """An array that owns its memory, which counts as long as it, or a view of it, is there."""
        owner = array if array.base is None else array.base
        size = owner.nbytes
        self._computed += size
        self._work += size
        weakref.finalize(owner, self._back, size).atexit = False
        return array

    def _back(self, size):
        self._computed -= size

    def empty(self, shape, dtype):
        """A new array; ValueError where it may not be."""
        check_axes(shape)
        self.check(math.prod(shape) * np.dtype(dtype).itemsize)
        return self.adopt(np.empty(shape, dtype))


class Call(NamedTuple):
    """A node that is computed. outputs: their number; tensor: gives the array of a tensor that is an attribute."""

    attributes: dict
    opset: int
    outputs: int
    room: Room
    tensor: Any

    def integer(self, name, default=None):
        """An attribute that is one integer."""
        value = self.attributes.get(name, default)
        if not isinstance(value, int):
            raise ValueError(f"has {name} {value}, expected an integer")
        return value

    def integers(self, name, given=(), place=None, since=99):
        """A list of integers or None: an attribute in opsets before `since`, then the input `place`."""
        if self.opset >= since:
            return integers(given[place]) if len(given) > place and given[place] is not None else None
        value = self.attributes.get(name)
        if value is not None and not (isinstance(value, list) and all(isinstance(one, int) for one in value)):
            raise ValueError(f"has {name} {str(value)[:100]}, expected a list of integers")
        return value


# ---- arguments --------------------------------------------------------------------------------------------------


def integers(array):
    """The numbers of an array of integers with one axis, or none."""
    if array.dtype.kind not in "iu" or array.size > LIST or array.ndim > 1:
        raise ValueError(f"has {array.dtype} of shape {array.shape}, expected a list of integers")
    return [int(one) for one in array.reshape(-1)]


def check_axes(shape):
    """ValueError for more axes than arrays may have."""
    if len(shape) > MAX_AXES:
        raise ValueError(f"has {len(shape)} axes, at most {MAX_AXES} are computed")


def axis_of(axis, axes, more=0):
    """An axis from 0, of so many; more: how many beyond the last one there may be."""
    if not -axes <= axis < axes + more:
        raise ValueError(f"has axis {axis}, of {axes}")
    return axis + axes if axis < 0 else axis


def distinct(axes, count):
    """Axes from 0, no two of them the same."""
    found = [axis_of(one, count) for one in axes]
    if len(set(found)) != len(found):
        raise ValueError(f"has axes {found}, one of them twice")
    return found


def sizes(values):
    """A shape, as a tuple; ValueError for one that there is not."""
    check_axes(values)
    if any(one < 0 for one in values) or math.prod(values) >> 62:
        raise ValueError(f"has shape {values}")
    return tuple(values)


def common(shapes):
    """The shape that all of `shapes` are repeated to."""
    try:
        return sizes(list(np.broadcast_shapes(*shapes)))
    except ValueError:
        raise ValueError(f"has shapes {', '.join(map(str, shapes))}, which do not go together") from None
