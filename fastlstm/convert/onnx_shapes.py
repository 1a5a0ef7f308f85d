"""Operators of ONNX on constants that change shapes or take pieces: views where the memory allows it."""

import itertools
import math

import numpy as np

from .onnx_room import axis_of, check_axes, common, distinct, integers, sizes


def _shaped(array, shape, call):
    """The numbers of an array in another shape: a view where its memory is in order."""
    if not array.flags.c_contiguous:
        copy = call.room.empty(array.shape, array.dtype)
        copy[...] = array
        array = copy
    return array.reshape(shape)


def reshape(given, call):
    """Reshape: 0 keeps a size (without allowzero), -1 is what is left."""
    array, shape = given[0], integers(given[1])
    check_axes(shape)
    if not call.attributes.get("allowzero", 0):
        if any(one == 0 and n >= array.ndim for n, one in enumerate(shape)):
            raise ValueError(f"has shape {shape} for one of {array.ndim} axes")
        shape = [array.shape[n] if one == 0 else one for n, one in enumerate(shape)]
    known = math.prod(one for one in shape if one != -1)
    if shape.count(-1) == 1 and known and array.size % known == 0:
        shape[shape.index(-1)] = array.size // known
    if -1 in shape or math.prod(sizes(shape)) != array.size:
        raise ValueError(f"makes shape {shape} of {array.shape}")
    return _shaped(array, shape, call)


def flatten(given, call):
    """Flatten: two axes."""
    array, axis = given[0], axis_of(call.integer("axis", 1), given[0].ndim, 1)
    return _shaped(array, (math.prod(array.shape[:axis]), math.prod(array.shape[axis:])), call)


def squeeze(given, call):
    """Squeeze."""
    array, axes = given[0], call.integers("axes", given, 1, since=13)
    if axes is None:
        axes = [n for n, size in enumerate(array.shape) if size == 1]
    axes = distinct(axes, array.ndim)
    if any(array.shape[axis] != 1 for axis in axes):
        raise ValueError(f"has axes {axes} for shape {array.shape}")
    return np.squeeze(array, tuple(axes))


def unsqueeze(given, call):
    """Unsqueeze."""
    array, axes = given[0], call.integers("axes", given, 1, since=13)
    if axes is None:
        raise ValueError("has no axes")
    check_axes([*array.shape, *axes])
    return np.expand_dims(array, tuple(distinct(axes, array.ndim + len(axes))))


def transpose(given, call):
    """Transpose."""
    array, axes = given[0], call.integers("perm")
    if axes is not None and sorted(axes) != [*range(array.ndim)]:
        raise ValueError(f"has perm {axes} for shape {array.shape}")
    return array.transpose(axes)


def expand(given, call):
    """Expand."""
    shape = sizes(integers(given[1]))
    return np.broadcast_to(given[0], common([given[0].shape, shape]))


def tile(given, call):
    """Tile."""
    array, repeats = given[0], integers(given[1])
    if len(repeats) != array.ndim:
        raise ValueError(f"has repeats {repeats} for shape {array.shape}")
    found = call.room.empty(sizes([n * size for n, size in zip(repeats, array.shape, strict=True)]), array.dtype)
    pairs = [one for pair in zip(repeats, array.shape, strict=True) for one in pair]
    found.reshape(pairs)[...] = array.reshape([one for size in array.shape for one in (1, size)])
    return found


def shape_of(given, call):
    """Shape."""
    sizes = given[0].shape[slice(call.integer("start", 0), call.attributes.get("end"))]
    return np.array(sizes, np.int64)


# ---- pieces -----------------------------------------------------------------------------------------------------


def slice_of(given, call):
    """Slice."""
    array, since = given[0], 10
    starts, ends = call.integers("starts", given, 1, since), call.integers("ends", given, 2, since)
    axes = call.integers("axes", given, 3, since)
    steps = integers(given[4]) if len(given) > 4 and given[4] is not None else None
    if starts is None or ends is None:
        raise ValueError("has no starts or no ends")
    axes = [*range(len(starts))] if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise ValueError(f"has starts {starts}, ends {ends}, axes {axes}, steps {steps}")
    pieces = [slice(None)] * array.ndim
    for axis, *piece in zip(distinct(axes, array.ndim), starts, ends, steps, strict=True):
        pieces[axis] = _piece(array.shape[axis], *piece)
    return array[tuple(pieces)]


def _piece(size, start, end, step):
    """A slice along an axis: places from the end, and what lies beyond it, as ONNX has them."""
    if not size:
        return slice(0, 0)
    start, end = (n + size if n < 0 else n for n in (start, end))
    start, end = min(max(start, 0), size), min(max(end, 0 if step > 0 else -1), size)
    if step > 0:
        return slice(start, end, step)
    return slice(min(start, size - 1), None if end < 0 else min(end, size - 1), step)


def _along(axis, what):
    """An index that is `what` in one axis and takes all of those before it."""
    return (*[slice(None)] * axis, what)


def concat(given, call):
    """Concat."""
    axis = axis_of(call.integer("axis"), given[0].ndim)
    shape = list(given[0].shape)
    for array in given:
        others = [*array.shape[:axis], *array.shape[axis + 1 :]]
        if array.dtype != given[0].dtype or array.ndim != len(shape) or others != [*shape[:axis], *shape[axis + 1 :]]:
            raise ValueError(f"has inputs of {', '.join(f'{a.dtype} {a.shape}' for a in given[:8])}")
    if len(given) == 1:
        return given[0]
    shape[axis] = sum(array.shape[axis] for array in given)
    found, at = call.room.empty(shape, given[0].dtype), 0
    for array in given:
        found[_along(axis, slice(at, at + array.shape[axis]))] = array
        at += array.shape[axis]
    return found


def split(given, call):
    """Split."""
    array, count = given[0], call.outputs
    axis = axis_of(call.integer("axis", 0), array.ndim)
    total, parts = array.shape[axis], call.integers("split", given, 1, since=13)
    if parts is None:
        each = -(-total // count)
        if call.integer("num_outputs", count) != count or (call.opset < 18 and total % count):
            raise ValueError(f"makes {count} parts of {total}")
        parts = [max(0, min(each, total - n * each)) for n in range(count)]
    if len(parts) != count or min(parts) < 0 or sum(parts) != total:
        raise ValueError(f"makes parts of {parts[:20]} of {total}, {count} in all")
    ends = itertools.accumulate(parts)
    return [array[_along(axis, slice(end - n, end))] for n, end in zip(parts, ends, strict=True)]


def gather(given, call):
    """Gather; of one place a view."""
    array, places = given
    axis = axis_of(call.integer("axis", 0), array.ndim)
    size = array.shape[axis]
    if places.dtype.kind not in "iu":
        raise ValueError(f"has indices of {places.dtype}")
    call.room.check(places.nbytes)
    if places.size and not -size <= places.min() <= places.max() < size:
        raise ValueError(f"has indices from {places.min()} to {places.max()} for {size}")
    if not places.ndim:
        return array[_along(axis, int(places))]
    whole = call.room.empty(places.shape, np.int64)
    whole[...] = places
    whole[whole < 0] += size
    shape = (*array.shape[:axis], *places.shape, *array.shape[axis + 1 :])
    check_axes(shape)
    call.room.check(math.prod(shape) * array.itemsize)
    return call.room.adopt(array[_along(axis, whole)])  # np.take would copy an array that is no contiguous one
