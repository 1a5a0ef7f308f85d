"""`Stateless`: what Embedding and Linear share, and what a call without memory needs: positions within lengths, checks
of gradients and caches, arrays that the caller holds.

Letters: T steps, B rows, I inputs, F features.
"""

import math
from typing import NamedTuple

import numpy as np

from .arguments import _read, check_lengths, real_array
from .attributes import Constant
from .module import Module
from .params import check_flag
from .spec import Layout
from .stream import StatelessStream, check_awake


class Handed(NamedTuple):
    """Which arrays of a call the caller holds and may change; a cache copies them if `backward` reads them."""

    x: bool
    y: bool


BOTH = Handed(True, True)


def valid_positions(shape, row_axes, lengths, batch_first):
    """Booleans (T, B), (B, T) or (T,), as x has these axes, true within `lengths`; None when nothing lies beyond them.

    shape: that of x, whose last `row_axes` axes are a row's. Raises TypeError, ValueError.
    """
    lead = shape[: len(shape) - row_axes]
    if len(lead) not in (1, 2):
        row = ", I" * row_axes
        raise ValueError(f"x has shape {shape}; with lengths, expected (T, B{row}), (B, T{row}) or unbatched (T{row})")
    layout = Layout.of(lead, batch_first)
    lengths = check_lengths(lengths, layout)
    if (lengths == layout.steps).all():
        return None
    return layout.within(lengths)


def check_cache(cache, kind):
    """TypeError unless a cache is of this class."""
    if not isinstance(cache, kind):
        raise TypeError(f"cache must come from forward(..., cache=True), got {type(cache).__name__}")


CHANGED = "cache must stay as forward made it"


def check_lead(cache, features):
    """How many rows a cache has. ValueError unless its `shape` ends with `features` and its `valid` fits."""
    shape, valid = cache.shape, cache.valid
    sizes = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)
    if not sizes or shape[-1:] != (features,):
        raise ValueError(f"{CHANGED}; its shape is {shape!r}, expected (..., {features})")
    if valid is not None:
        check_part("valid", valid, shape[:-1], np.dtype(bool))
    return math.prod(shape[:-1]) if valid is None else int(valid.sum())


def check_part(name, array, shape, dtype):
    """ValueError unless that part of a cache is an array of this shape and dtype."""
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != dtype:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{CHANGED}; its {name} is {found}, expected {dtype} {shape}")


def check_rows(dy, shape, dtype, valid):
    """dy as (n, F), one row for each valid position, or for each at all."""
    dy = real_array("dy", dy, dtype, "fiu")
    if dy.shape != shape:
        raise ValueError(f"dy has shape {dy.shape}, expected {shape}, the shape of y")
    return dy.reshape(-1, shape[-1]) if valid is None else dy[valid]


def spread(rows, shape, valid):
    """Rows (n, F) in their places of an array of `shape`; 0 in the others."""
    if valid is None:
        return rows.reshape(shape)
    whole = np.zeros(shape, rows.dtype)
    whole[valid] = rows
    return whole


class Stateless(Module):
    """What Embedding and Linear share: a call without memory."""

    recurrent = Constant(False)
    row_axes = Constant(1)

    def forward(self, x, state=None, *, lengths=None, reset=None, trace=False, cache=False, batch_first=False):
        """``(y, None)`` or, with ``cache=True``, ``(y, None, cache)``.

        lengths: (B,) integers in [0, T], or one when x is unbatched. The first axes of x are then time and batch, with
        ``batch_first=True`` batch and time. Positions beyond a row's length are not looked at: y is 0 there, and so is
        dx, whatever x and dy hold. Without lengths x may have any number of axes, and `batch_first` means nothing.
        `reset` is taken and ignored, so that one loop can drive any module.

        What is handed in and what is returned may be changed at once: no gradient follows.
        Raises ValueError for a `state` or `trace`, and for lengths that do not fit x.
        """
        name = type(self).__name__
        if state is not None:
            raise ValueError(f"{name} has no state; state must be None, got {type(state).__name__}")
        if trace:
            raise ValueError(f"{name} has no gates to trace")
        valid = None
        if lengths is not None:
            x, first = _read("x", x), check_flag("batch_first", batch_first)
            valid = valid_positions(x.shape, self.row_axes, lengths, first)
        y, kept = self._apply(x, None, valid, BOTH if cache else None)
        return (y, None, kept) if cache else (y, None)

    def _snapshot(self):
        """The weights of this moment, in the form `_apply` takes."""
        return self._packed()

    def _apply(self, x, snapshot, valid=None, handed=None):
        """y and cache, with the weights of `snapshot`, or the present ones if it is None.

        valid: as `valid_positions` gives it. handed: None: no cache is asked for, and None is returned for it.
        """
        raise NotImplementedError

    def stream(self, batch_size=1, *, awake=0.0):  # awake: for recurrent layers; this one has no threads to keep
        """A `StatelessStream` of `batch_size` rows with the weights of this moment; `awake` is checked alone."""
        check_awake(awake)
        return StatelessStream(self, batch_size)
