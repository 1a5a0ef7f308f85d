"""Arguments of a call: what a user hands in, checked in words, as arrays the core takes as they are.

Whatever comes in passes through the ``check_*`` functions here (and in states.py) before anything is computed; they
copy only what does not fit already. What they return is theirs: an array of the caller's comes back as another array
object on the same memory, whose shape and dtype nobody else can set while the core reads it. The values of `lengths`
are checked in a copy, which the core then reads. Letters: T steps, B rows, I inputs, D directions, R the width of h.
"""

import numpy as np

from .params import UNREADABLE, _as_array, origin
from .spec import Layout


def _read(name, value):
    """`value` as an array; what its owner says against that, with the argument's name."""
    try:
        return _as_array(value)
    except MemoryError as error:
        raise MemoryError(f"not enough memory to read {name} as an array") from error
    except UNREADABLE as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name} cannot be read as an array: {error}") from None


def is_array(value):
    """Whether results can be written into `value`: a NumPy array that has no mask, which would hide them."""
    return type(value) is np.ndarray or (isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray))


def real_array(name, value, dtype, kinds="fiub", array=None):
    """`value` as a new array object of dtype, on the same memory when it fits. TypeError for no real numbers.

    kinds: of NumPy's types that are taken. array: what `_read` gave for the value, if it has been asked.
    """
    if type(value) is np.ndarray:
        array = value.view()
        if array.dtype == dtype:
            return array
    else:
        array = (_read(name, value) if array is None else array).view()
    if array.dtype.kind not in kinds:
        raise TypeError(f"{name} must hold real numbers, got {array.dtype} ({origin(value)})")
    with np.errstate(over="ignore", invalid="ignore"):  # too large for float32: infinity, as everywhere
        return np.asarray(array, dtype=dtype)


def _strided(array, unit):
    """Whether the core can walk it: features next to each other, aligned, whole elements between steps and rows."""
    step, row, feature = array.strides
    if feature != unit and array.shape[2] > 1:
        return False
    return step % unit == 0 and row % unit == 0 and array.flags.aligned


def contiguous(array):
    """C order and aligned; np.ascontiguousarray leaves unaligned memory as it is."""
    return np.require(array, requirements=("C", "A"))


def own(array, value):
    """`array`, made of the caller's `value`, contiguous and where the caller cannot change it."""
    mine = contiguous(array)
    if mine is array or not isinstance(value, np.ndarray) or np.may_share_memory(mine, value):
        return mine.copy()
    return mine


def check_x(spec, x):
    """x as (T, B, I) in the model's dtype, and its Layout. Matching float input is never copied."""
    array = real_array("x", x, spec.dtype)
    if array.ndim not in (2, 3) or array.shape[-1] != spec.input_size:
        lead = "(B, T, I)" if spec.batch_first else "(T, B, I)"
        raise ValueError(
            f"x has shape {array.shape}, expected {lead} or unbatched (T, I) with I = input_size = {spec.input_size}"
        )
    batched = array.ndim == 3
    if not batched:
        array = array[:, None]
    elif spec.batch_first:
        array = array.swapaxes(0, 1)
    if not _strided(array, spec.dtype.itemsize):
        array = contiguous(array)
    return array, Layout(array.shape[0], array.shape[1], batched, spec.batch_first)


def check_lengths(lengths, layout):
    """A copy, (B,) int64, each in [0, T]."""
    if lengths is None:
        return None
    array = _read("lengths", lengths).copy()
    if array.size == 0:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"lengths must hold integers, got {array.dtype}")
    if not layout.batched and array.ndim == 0:
        array = array[None]
    if array.shape != (layout.batch,):
        raise ValueError(f"lengths has shape {array.shape}, expected ({layout.batch},), one per row of the batch")
    bad = (array < 0) | (array > layout.steps)
    if bad.any():
        at = int(np.argmax(bad))
        raise ValueError(f"lengths[{at}] is {array[at]}, expected 0 <= length <= T = {layout.steps}")
    return np.ascontiguousarray(array, dtype=np.int64)


def check_reset(reset, layout):
    """(T, B) uint8, contiguous; given in the layout of x without its features."""
    if reset is None:
        return None
    array = _read("reset", reset).view()
    if array.dtype.kind not in "biu":
        raise TypeError(f"reset must hold booleans, got {array.dtype}")
    if array.dtype.kind != "b":
        _check_numbers(array, layout)
    if array.shape != layout.shape():
        letters = "(T,)" if not layout.batched else "(B, T)" if layout.batch_first else "(T, B)"
        raise ValueError(f"reset has shape {array.shape}, expected {layout.shape()} = {letters}")
    return np.ascontiguousarray(layout.inward(array) != 0, dtype=np.uint8)


def _check_numbers(reset, layout):
    """0 and 1 of the right shape can only mean False and True; what else numbers say is not guessed."""
    if not layout.batched:
        words = "which could be step numbers; give booleans, one for each step"
        raise ValueError(f"reset holds integers ({reset.dtype}), {words}: np.isin(np.arange(T), steps)")
    other = reset[(reset != 0) & (reset != 1)]
    if other.size:
        raise ValueError(f"reset holds {other[0]}, expected booleans, or 0 and 1, in the layout of x")


def check_mask(mask, batch):
    """(B,) bool, of the rows that a stream's reset forgets; None for all of them."""
    if mask is None:
        return np.ones(batch, bool)
    array = _read("mask", mask)
    if array.dtype.kind in "iu":
        words = "which could be row numbers; give booleans, one for each row"
        raise ValueError(f"mask holds integers ({array.dtype}), {words}: np.isin(np.arange({batch}), rows)")
    if array.shape != (batch,) or array.dtype.kind != "b":
        raise ValueError(f"mask must hold {batch} booleans, one per row; got {array.dtype} of shape {array.shape}")
    return array


def check_dy(spec, dy, layout):
    """dy as (T, B, D*R), features next to each other."""
    array = real_array("dy", dy, spec.dtype)
    expected = layout.shape(spec.outputs)
    if array.shape != expected:
        raise ValueError(f"dy has shape {array.shape}, expected {expected}, the shape of y")
    array = layout.inward(array)
    return array if _strided(array, spec.dtype.itemsize) else contiguous(array)
