"""Gradients as `backward` gives them and users hand them on: checked, put together, clipped by norm."""

import math

import numpy as np

from .arguments import _read
from .params import check_flag


def check_number(name, value, least=0.0, below=math.inf):
    """A float of at least `least` and below `below`. Raises TypeError, ValueError."""
    if isinstance(value, (bool, np.bool_, str)) or not np.isscalar(value):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not least <= value < below:
        most = f" and below {below}" if below < math.inf else " and finite"
        raise ValueError(f"{name} must be at least {least}{most}, got {value}")
    return float(value)


def joined(dicts):
    """One dict of a list of dicts: each name with the place of its dict in front, "0.weight"."""
    return {f"{place}.{name}": value for place, one in enumerate(dicts) for name, value in one.items()}


def check_grads(grads, several):
    """Gradients as one dict, name -> what was given. several: how many dicts are expected, None: one by itself."""
    if several is None:
        if not isinstance(grads, dict):
            raise TypeError(f"grads must be a dict of arrays by name, got {type(grads).__name__}")
        return grads
    if not isinstance(grads, (list, tuple)):
        raise TypeError(f"grads must be a list of {several} dicts, one per module, got {type(grads).__name__}")
    if len(grads) != several:
        raise ValueError(f"grads must be a list of {several} dicts, one per module, got {len(grads)}")
    for place, one in enumerate(grads):
        if not isinstance(one, dict):
            raise TypeError(f"grads[{place}] must be a dict of arrays by name, got {type(one).__name__}")
    return joined(grads)


# ---- one array under two names ----------------------------------------------------------------------------------


def _bounds(array):
    """The first address of the memory of an array that is not empty, and the first behind it."""
    ends = [(n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True)]
    start = array.__array_interface__["data"][0]
    return start + sum(end for end in ends if end < 0), start + sum(end for end in ends if end > 0) + array.itemsize


def _is_twin(a, b):
    """Whether two arrays are the same elements in the same order."""
    same = a.dtype == b.dtype and a.shape == b.shape and a.strides == b.strides
    return same and a.__array_interface__["data"] == b.__array_interface__["data"]


def _overlap(a, b):
    try:
        return np.shares_memory(a, b, max_work=100_000)
    except np.exceptions.TooHardError:  # views of one array that interleave in no simple way
        return True


def _disjoint(items):
    """The arrays of (name, array) pairs, those that are the same memory once; see `one_each`."""
    found, near = [], []
    for place in sorted(range(len(items)), key=lambda place: _bounds(items[place][1])):
        name, array = items[place]
        start, end = _bounds(array)
        near = [item for item in near if item[0] > start]  # whose memory reaches into this one's
        if any(_is_twin(array, other) for _, _, other in near):
            continue
        for _, other_name, other in near:
            if _overlap(array, other):
                raise ValueError(f"grads: {other_name} and {name} have a part of their memory in common")
        if any(stride == 0 and n > 1 for n, stride in zip(array.shape, array.strides, strict=True)):
            raise ValueError(f"grads: elements of {name} have their memory in common")
        near.append((end, name, array))
        found.append(place)
    return [items[place][1] for place in sorted(found)]


def one_each(arrays):
    """A list of the arrays, one that occurs twice only once. arrays: name -> array.

    Raises ValueError if two of them have a part of their memory in common.
    """
    unique = {}
    for name, array in arrays.items():
        unique.setdefault(id(array), (name, array))
    if all(array.base is None for _, array in unique.values()):  # each has memory of its own
        return [array for _, array in unique.values()]
    return _disjoint([item for item in unique.values() if item[1].size])


# ---- clipping ---------------------------------------------------------------------------------------------------


def clip_grad_norm(grads, max_norm, error_if_nonfinite=False):
    """Scale all gradients in place so that their common Euclidean norm is at most `max_norm`.

    grads: dict of float arrays by name, or a list of such dicts, changed in place (None entries are skipped). An array
    that is given twice counts once and is scaled once. Returns the norm before clipping, a float. As
    torch.nn.utils.clip_grad_norm_: every gradient is multiplied by ``min(1, max_norm / (norm + 1e-6))``. A norm that is
    not finite is not hidden: NaN makes every gradient NaN, infinity makes finite gradients zero and infinite ones NaN;
    with ``error_if_nonfinite=True`` it raises RuntimeError instead and leaves the gradients alone.

    Raises TypeError for a gradient that cannot be scaled in place, ValueError for a negative `max_norm` and for two
    arrays with a part of their memory in common; nothing has changed then.
    """
    if not (isinstance(max_norm, float) and max_norm == math.inf):
        max_norm = check_number("max_norm", max_norm)
    check_flag("error_if_nonfinite", error_if_nonfinite)
    given = check_grads(grads, len(grads) if isinstance(grads, (list, tuple)) else None)
    given = {name: grad for name, grad in given.items() if grad is not None}
    for name, grad in given.items():
        if not isinstance(grad, np.ndarray) or grad.dtype.kind != "f" or not grad.flags.writeable:
            raise TypeError(f"grads: {name} must be a writeable numpy array of floats")
    arrays = one_each({name: _read(f"grads: {name}", grad) for name, grad in given.items()})
    with np.errstate(all="ignore"):  # inf * 0, as documented
        # Squares in float64: a float32 gradient of 1e25 must not overflow its own norm.
        total = math.sqrt(sum(float(np.square(grad, dtype=np.float64).sum()) for grad in arrays))
        if error_if_nonfinite and not math.isfinite(total):
            raise RuntimeError(f"the norm of the gradients is {total}")
        factor = max_norm / (total + 1e-6)
        for grad in arrays:
            grad *= 1.0 if factor > 1 else factor
    return total
