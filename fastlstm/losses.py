"""Losses and their gradients, over the positions that count.

Both return ``(loss, gradient)``: a Python float, summed in float64, and an array of the shape and dtype of the first
argument, ready for ``model.backward``. Which positions count, `lengths`, `mask` and (cross_entropy) `ignore_index` say;
what stands in the others (padding in the target, NaN in the output) is never looked at and its gradient is zero. With
no position left the loss is 0 and so is the gradient.

Arguments that both take
------------------------
lengths : (B,) integers, or one when unbatched: positions t < lengths[b] count.
batch_first : the first axes are (B, T) instead of (T, B), as of a model with batch_first=True (``model.batch_first``
    of any model that has recurrent layers). Say it wherever `lengths` are given: two axes of one length look alike.
    Where the arrays themselves tell that it is wrong, ValueError.
mask : what each position counts: booleans, or weights of at least 0, of shape (T, B), in the layout of the target. A
    mean is then the weighted mean: divided by the sum of the weights.
reduction : "mean" or "sum" over what counts.
"""

import numpy as np

from .arguments import _read, check_lengths
from .params import check_flag, origin
from .spec import Layout

__all__ = ["cross_entropy", "mse"]


def __dir__():
    return [*__all__]


def _floats(name, value):
    array = _read(name, value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold real numbers, got {array.dtype} ({origin(value)})")
    if array.dtype in (np.float32, np.float64):
        return array
    with np.errstate(over="ignore"):  # of wider types
        return array.astype(np.float64)


# ---- which positions count, and how much ------------------------------------------------------------------------


def _within(shape, lengths, batch_first):
    """Booleans of `shape`, (T, B), (B, T) or (T,): within the lengths."""
    if len(shape) not in (1, 2):
        raise ValueError(f"lengths needs positions (T, B) or (T,), got {shape}")
    lengths = _read("lengths", lengths)
    layout = Layout.of(shape, batch_first)
    if not layout.batched and lengths.ndim:
        raise ValueError(f"lengths has shape {lengths.shape}, expected one number")
    try:
        lengths = check_lengths(lengths, layout)
    except ValueError as error:
        other = layout.batched and lengths.shape == (layout.steps,) and (lengths <= layout.batch).all()
        raise ValueError(f"{error}{_LAYOUT[not batch_first] if other else ''}") from None
    return layout.within(lengths)


_LAYOUT = {
    True: "; if the arrays are (B, T, ...), say batch_first=True",
    False: "; if the arrays are (T, B, ...), say batch_first=False",
}


_TELLING = 12  # numbers: so many zeros are no chance, behind a relu either


def _check_layout(name, array, within, batch_first):
    """ValueError where T == B and the zeros beyond the lengths, which models give there, tell the other layout.

    within: (T, B) or (B, T) booleans.
    """
    if within.ndim != 2 or within.shape[0] != within.shape[1] or within.all():
        return
    other, said = array[~within.T], array[~within]
    if other.size >= _TELLING and not other.any() and said.any():  # fewer may be 0 by chance, behind a relu
        raise ValueError(
            f"{name} is 0 beyond the lengths as of batch_first={not batch_first}, but not as of "
            f"batch_first={batch_first}, which was said{_LAYOUT[not batch_first]}"
        )


def _check_mask(mask, shapes):
    """A mask as booleans or as float64 weights, of one of `shapes`; None for none."""
    if mask is None:
        return None
    array = _read("mask", mask)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"mask must hold booleans or weights, got {array.dtype} ({origin(mask)})")
    if array.shape not in shapes:
        raise ValueError(f"mask has shape {array.shape}, expected {' or '.join(map(str, shapes))}")
    if array.dtype.kind == "b":
        return array
    array = array.astype(np.float64)
    if not ((array >= 0) & (array < np.inf)).all():
        raise ValueError("mask must hold weights of at least 0 and finite")
    return array


def _counted(name, array, shape, lengths, mask, batch_first):
    """(booleans of `shape`: what counts; weights of what counts, (n,) float64, or None: all the same).

    shape: that of the positions, the first axes of `array`. mask: of this shape, as `_check_mask` gives it.
    """
    batch_first, valid, weights = check_flag("batch_first", batch_first), np.ones(shape, bool), None
    if lengths is not None:
        valid = _within(shape, lengths, batch_first)
        _check_layout(name, array, valid, batch_first)
    if mask is not None:
        valid = valid & (mask != 0)
        weights = None if mask.dtype.kind == "b" else mask[valid]
    return valid, weights


def _check_reduction(reduction):
    if not isinstance(reduction, str) or reduction not in ("mean", "sum"):
        raise ValueError(f'reduction must be "mean" or "sum", got {reduction!r}')


# ---- cross entropy ----------------------------------------------------------------------------------------------


def _check_classes(target, valid, classes):
    bad = valid & ((target < 0) | (target >= classes))
    if bad.any():
        at = np.unravel_index(np.argmax(bad), bad.shape)
        where = [int(i) for i in at]
        raise ValueError(f"target{where} is {target[at]}, expected 0 <= target < C {classes}")


def _check_class_weights(weight, classes):
    if weight is None:
        return None
    weight = _floats("weight", weight).astype(np.float64)
    if weight.shape != (classes,):
        raise ValueError(f"weight has shape {weight.shape}, expected (C,) = ({classes},), one per class")
    if not ((weight >= 0) & (weight < np.inf)).all():
        raise ValueError("weight must hold numbers of at least 0 and finite")
    return weight


def _check_options(ignore_index, label_smoothing):
    integer = isinstance(ignore_index, (int, np.integer)) and not isinstance(ignore_index, bool)
    if ignore_index is not None and not integer:
        raise TypeError(f"ignore_index must be an integer or None, got {type(ignore_index).__name__}")
    if isinstance(label_smoothing, (bool, np.bool_)) or not isinstance(label_smoothing, (int, float, np.number)):
        raise TypeError(f"label_smoothing must be a number, got {type(label_smoothing).__name__}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be from 0 to 1, got {label_smoothing}")


def _check_logits(logits, target):
    given, logits, target = target, _floats("logits", logits), _read("target", target).copy()
    if logits.ndim < 2 or logits.shape[-1] == 0:
        raise ValueError(f"logits has shape {logits.shape}, expected (T, B, C) or (T, C) with C > 0")
    if target.shape != logits.shape[:-1]:
        raise ValueError(
            f"target has shape {target.shape}, expected {logits.shape[:-1]} for logits {logits.shape}"
        )
    if target.dtype.kind not in "iu" and target.size:
        raise TypeError(f"target must hold integers (class numbers), got {target.dtype} ({origin(given)})")
    return logits, target


def _cross_entropy(rows, picked, positions, weight, smoothing, mean):
    """(loss, gradient) of the rows that count. rows (n, C), overwritten; picked (n,); positions (n,) or None."""
    count, classes = rows.shape
    at, positions = np.arange(count), np.ones(count) if positions is None else positions
    each = positions if weight is None else positions * weight[picked]  # what the loss of a row counts
    whole = float(each.sum()) if mean else 1.0
    if whole == 0:  # all classes that occur weigh nothing
        return 0.0, np.zeros_like(rows)
    rows -= rows.max(axis=1, keepdims=True)
    chosen = rows[at, picked].astype(np.float64)
    if smoothing:  # each class has this share of the target, what is left goes to the class picked
        share = smoothing / classes * (np.ones(classes) if weight is None else weight)
        shared = rows.astype(np.float64) @ share
    np.exp(rows, out=rows)
    total = rows.sum(axis=1, dtype=np.float64)
    loss, factor, each = each * (np.log(total) - chosen), each, each * (1 - smoothing)
    if smoothing:
        loss = loss * (1 - smoothing) + positions * (share.sum() * np.log(total) - shared)
        factor = each + positions * share.sum()
    rows /= (total * whole / factor)[:, None].astype(rows.dtype)
    rows[at, picked] -= (each / whole).astype(rows.dtype)
    if smoothing:
        rows -= (positions[:, None] * (share / whole)).astype(rows.dtype)
    return float(loss.sum() / whole), rows


def cross_entropy(
    logits, target, lengths=None, *, batch_first=False, mask=None, weight=None, ignore_index=-100,
    label_smoothing=0.0, reduction="mean",
):
    """Mean over the positions that count of ``-log softmax(logits)[target]``, and its gradient.

    As torch.nn.functional.cross_entropy, but for the order of the axes: classes come last.

    Parameters
    ----------
    logits : (T, B, C), or (T, C), real numbers; any number of axes when `lengths` is None.
    target : (T, B), or (T,), integers in 0..C-1 at the positions that count.
    lengths, batch_first, mask, reduction : see above, ``help(fastlstm.losses)``.
    weight : (C,) numbers of at least 0: what a position of that class counts. A mean is divided by the sum of the
        weights of the positions, times those of `mask`.
    ignore_index : a target that does not count; None: there is none.
    label_smoothing : from 0 to 1: the part of the target that is shared by all classes alike.

    Returns
    -------
    (float, array like logits; float64 if logits are neither float32 nor float64)

    Raises
    ------
    TypeError for targets or lengths that are no integers and for options of a wrong type; ValueError for shapes that do
    not match, a target out of range at a position that counts, a length or a weight out of range.

    Notes
    -----
    With n positions of weight 1 the gradient is ``(softmax(logits) - onehot(target)) / n``. The largest logit of a row
    is subtracted first, so no finite logit overflows. Where torch divides by a sum of weights that is 0, giving NaN,
    loss and gradient here are 0.

    >>> loss, dlogits = cross_entropy([[0.0, 0.0], [1.0, 0.0]], [1, -100])
    >>> round(loss, 4)
    0.6931
    """
    logits, target = _check_logits(logits, target)
    _check_options(ignore_index, label_smoothing)
    _check_reduction(reduction)
    weight = _check_class_weights(weight, logits.shape[-1])
    valid, positions = _counted("logits", logits, target.shape, lengths, _check_mask(mask, [target.shape]), batch_first)
    if ignore_index is not None:
        ignored = valid & (target == ignore_index)
        positions = positions if positions is None else positions[~ignored[valid]]
        valid = valid & ~ignored
    _check_classes(target, valid, logits.shape[-1])

    dlogits = np.zeros(logits.shape, logits.dtype)
    if not valid.any():
        return 0.0, dlogits
    with np.errstate(all="ignore"):  # NaN and infinity are the true answers here
        loss, dlogits[valid] = _cross_entropy(
            logits[valid], target[valid].astype(np.intp), positions, weight, float(label_smoothing), reduction == "mean"
        )
    return loss, dlogits


# ---- mean squared error -----------------------------------------------------------------------------------------


def mse(y, target, lengths=None, *, batch_first=False, mask=None, reduction="mean"):
    """Mean over the positions that count, and over their features, of ``(y - target)**2``, and its gradient.

    Parameters
    ----------
    y, target : (T, B, F), or (T, F), the same shape, real numbers; without `lengths` any shape.
    lengths, batch_first, reduction : see above, ``help(fastlstm.losses)``.
    mask : (T, B), what each position counts, or of the shape of y, what each number counts: booleans, or weights of at
        least 0. A mean is divided by the sum of the weights (as `weight` of torch.nn.functional.mse_loss).

    Returns
    -------
    (float, array like y; float64 if y is neither float32 nor float64)

    Raises
    ------
    TypeError for what holds no numbers; ValueError for shapes that do not match, a length or a weight out of range.

    Notes
    -----
    With n counted numbers of weight 1 the gradient is ``2 (y - target) / n``.

    >>> loss, dy = mse([[1.0], [5.0]], [[0.0], [0.0]], mask=[True, False])
    >>> loss
    1.0
    """
    y, target = _floats("y", y), _floats("target", target)
    _check_reduction(reduction)
    if y.shape != target.shape:  # never broadcast: (T, B) against (T, B, 1) is a slip
        raise ValueError(f"target has shape {target.shape}, expected {y.shape}, the shape of y")
    if lengths is not None and y.ndim not in (2, 3):
        raise ValueError(f"with lengths, y must be (T, B, F) or (T, F); got {y.shape}")
    numbers = _check_mask(mask, [y.shape[:-1], y.shape])
    lead = y.shape[:-1]  # of the positions
    if (numbers is not None and numbers.shape == y.shape) or not y.ndim:
        valid, weights = _counted("y", y, y.shape, None, numbers, batch_first)
        if lengths is not None:
            valid = valid & _counted("y", y, lead, lengths, None, batch_first)[0][..., None]
            weights = None if weights is None else numbers[valid]
    else:
        valid, weights = _counted("y", y, lead, lengths, numbers, batch_first)
        weights = None if weights is None else weights[:, None]
    dy = np.zeros(y.shape, y.dtype)
    with np.errstate(all="ignore"):  # NaN and infinity are the true answers here
        difference = y[valid].astype(np.float64) - target[valid]
        if difference.size == 0:
            return 0.0, dy
        weighted = difference if weights is None else difference * weights
        whole = 1.0
        if reduction == "mean":
            whole = difference.size if weights is None else np.broadcast_to(weights, difference.shape).sum()
            whole = float(whole)
        dy[valid] = weighted * (2 / whole)
        return float((weighted * difference).sum() / whole), dy
