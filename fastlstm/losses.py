"""Losses and their gradients, masked by length.

Both return ``(loss, gradient)``: a Python float, summed in float64, and an array of the shape
and dtype of the first argument, ready for ``model.backward``. With ``lengths`` only positions
t < lengths[b] count; what stands beyond (padding in the target, NaN in the output) is never
looked at and its gradient is zero. With no position left the loss is 0 and so is the gradient.
"""

import numpy as np

from .params import _as_array


def _floats(name, value):
    array = _as_array(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold real numbers, got {array.dtype}")
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def _valid(shape, lengths):
    """Mask of the counted positions: shape (T, B), or (T,) for an unbatched sequence."""
    if lengths is None:
        return np.ones(shape, bool)
    lengths = _as_array(lengths)
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"lengths must hold integers, got {lengths.dtype}")
    if len(shape) not in (1, 2):
        raise ValueError(f"lengths needs positions (T, B) or (T,), got {shape}")
    if lengths.shape != shape[1:]:
        expected = f"(B,) = {shape[1:]}" if len(shape) == 2 else "one number"
        raise ValueError(f"lengths has shape {lengths.shape}, expected {expected}")
    if ((lengths < 0) | (lengths > shape[0])).any():
        raise ValueError(f"lengths must be from 0 to T {shape[0]}, got {lengths.tolist()}")
    steps = np.arange(shape[0])
    return steps[:, None] < lengths if len(shape) == 2 else steps < lengths


def _check_classes(target, valid, classes):
    bad = valid & ((target < 0) | (target >= classes))
    if bad.any():
        at = np.unravel_index(np.argmax(bad), bad.shape)
        where = [int(i) for i in at]
        raise ValueError(f"target{where} is {target[at]}, expected 0 <= target < C {classes}")


def cross_entropy(logits, target, lengths=None):
    """Mean over valid positions of ``-log softmax(logits)[target]``, and its gradient.

    logits: (T, B, C), or (T, C), real numbers; target: (T, B), or (T,), integers in 0..C-1;
    lengths: (B,) integers, or one integer when unbatched.

    With n valid positions the gradient is ``(softmax(logits) - onehot(target)) / n``. The largest
    logit of a row is subtracted first, so no finite logit overflows.

    Returns (float, array like logits; float64 if logits are neither float32 nor float64).
    Raises TypeError for targets or lengths that are no integers; ValueError for shapes that do
    not match, a target out of range at a valid position, a length out of range.
    """
    logits, target = _floats("logits", logits), _as_array(target)
    if logits.ndim < 2 or logits.shape[-1] == 0:
        raise ValueError(f"logits has shape {logits.shape}, expected (T, B, C) or (T, C) with C > 0")
    if target.shape != logits.shape[:-1]:
        raise ValueError(
            f"target has shape {target.shape}, expected {logits.shape[:-1]} for logits {logits.shape}"
        )
    if target.dtype.kind not in "iu" and target.size:
        raise TypeError(f"target must hold integers (class numbers), got {target.dtype}")
    valid = _valid(target.shape, lengths)
    _check_classes(target, valid, logits.shape[-1])

    dlogits = np.zeros(logits.shape, logits.dtype)
    count = int(valid.sum())
    if count == 0:
        return 0.0, dlogits
    rows, picked = logits[valid], target[valid].astype(np.intp)  # (n, C), (n,)
    at = np.arange(count)
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and -inf are the true answers here
        rows = rows - rows.max(axis=1, keepdims=True)
    chosen = rows[at, picked].astype(np.float64)
    np.exp(rows, out=rows)
    total = rows.sum(axis=1, dtype=np.float64)
    loss = float((np.log(total) - chosen).sum() / count)
    rows /= (total * count)[:, None].astype(rows.dtype)
    rows[at, picked] -= rows.dtype.type(1 / count)
    dlogits[valid] = rows
    return loss, dlogits


def mse(y, target, lengths=None):
    """Mean over valid positions and features of ``(y - target)**2``, and its gradient.

    y, target: (T, B, F), or (T, F), the same shape, real numbers; without `lengths` any shape.
    lengths: (B,) integers, or one integer for (T, F). With n counted numbers the gradient is
    ``2 (y - target) / n``.

    Returns (float, array like y; float64 if y is neither float32 nor float64).
    Raises TypeError for what holds no numbers, ValueError for shapes that do not match or a
    length out of range.
    """
    y, target = _floats("y", y), _floats("target", target)
    if y.shape != target.shape:  # never broadcast: (T, B) against (T, B, 1) is a slip
        raise ValueError(f"target has shape {target.shape}, expected {y.shape}, the shape of y")
    if lengths is not None and y.ndim not in (2, 3):
        raise ValueError(f"with lengths, y must be (T, B, F) or (T, F); got {y.shape}")
    valid = _valid(y.shape[:-1] if lengths is not None else y.shape, lengths)
    dy = np.zeros(y.shape, y.dtype)
    difference = y[valid].astype(np.float64) - target[valid]
    if difference.size == 0:
        return 0.0, dy
    dy[valid] = difference * (2 / difference.size)
    return float((difference * difference).sum() / difference.size), dy
