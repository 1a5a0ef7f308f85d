"""A source as what a model takes: its axes, its numbers checked, block by block."""

import numpy as np

from ..network import Embedding
from ..sequential import at_end
from .common import s
from .parser import UsageError

_BLOCK = 1 << 18  # numbers of x or y at a time: 1 MiB of float32
_LONGEST = 8192  # steps at a time
_UNSPLIT = (
    "No separator was recognised; those are commas, semicolons, tabs, blanks, or told as 'sep=|' in the first line"
)
_WORDS = {"T": "time", "B": "batch", "I": "features"}


class Feed:
    """The blocks of an input, as a model takes them.

    source: of inputs.py. axes: "TBI", "BTI", "TB", "BT" for the axes of a batch; None: as the model has them.
    allow_nan: whether NaN and infinity pass.

    batch: sequences. row: the shape of a step of one of them, () of integers. batched: whether the input has an axis
    for sequences. axis: the input's axis of time. steps: how many, None while that is not known. odd: how many
    elements were NaN or infinite.
    """

    def __init__(self, model, source, axes=None, allow_nan=False):
        self._source, self._dtype, self._allow_nan = source, model.dtype, allow_nan
        first, shape = at_end(model, 0), source.shape
        self._table = first.num_embeddings if isinstance(first, Embedding) else None
        self._of_array = len(source.time_axes) > 1  # of a table a row is a step, whatever the model has
        self._width = getattr(first, "input_size", None) or getattr(first, "in_features", None)
        kind = "integers" if self._table else "numbers"
        self.batched = len(shape) == (2 if self._table else 3) and (self._of_array or shape[1] > 1)
        if len(shape) > (2 if self._table else 3):
            expected = "(T,) or (T, B)" if self._table else "(T, I), or (T, B, I) and (B, T, I) for a batch"
            raise UsageError(f"{source.name} must hold {kind}, {expected}; got {source.dtype} of shape {shape}")
        if axes and not (self.batched and self._of_array):
            words = f"--axes is for a batch of several sequences in .npy or .npz; {source.name} has shape {shape}"
            raise UsageError(words)
        if axes and len(axes) != len(shape):
            raise UsageError(f"--axes {axes} names {len(axes)} axes; {source.name} has shape {shape}")
        first_of_batch = axes[0] == "B" if axes else bool(getattr(model, "batch_first", False))
        self.axis = int(self.batched and first_of_batch and self._of_array)
        if not self._table:
            self._check_width(shape)
        self.batch = shape[1 - self.axis] if self.batched else 1
        self.row = () if self._table else (shape[-1] if len(shape) > 1 else 1,)
        self.steps, self.odd = shape[self.axis], 0

    def _check_width(self, shape):
        width = shape[-1] if len(shape) > 1 else 1
        if self._width is None or width == self._width:
            return
        words = f"the model takes {self._width} feature{s(self._width)} per step"
        if not self._of_array:
            columns = f"{self._source.name} has {width} column{s(width)}: {self._source.names()}"
            hint = "--columns chooses" if self._source.is_split() else _UNSPLIT
            raise UsageError(f"{words}; {columns}. {hint}")
        raise UsageError(f"{words}; {self._source.name} has {width}, shape {shape}")

    @property
    def columns_are_sequences(self):
        """Whether the columns of a table are the sequences of a batch."""
        return self.batched and not self._of_array

    def lead(self, steps):
        """The axes of what is read and written before its features, of as many steps."""
        if not self.batched:
            return (steps,)
        return (self.batch, steps) if self.axis else (steps, self.batch)

    def told(self, steps):
        """The shape of what was read, as it lies in the input, of as many steps."""
        features = self.row or (1,)  # of a table of one column that an embedding takes
        return (*self.lead(steps), *features)[: len(self._source.shape)]

    def words(self):
        """The axes of what is read, as they are taken."""
        letters = (("BT" if self.axis else "TB") if self.batched else "T") + "I"
        return ", ".join(_WORDS[letter] for letter in letters[: len(self._source.shape)])

    def blocks(self, wide):
        """x (t, B, I) of the model's dtype, or integers (t, B), again and again; wide: features of y, or so."""
        columns = self.batch * max(self._width or 1, wide, 1)
        for values in self._source.blocks(self.axis, max(1, min(_LONGEST, _BLOCK // columns))):
            x = self._indices(values) if self._table else self._floats(values)
            if self.axis:
                x = x.swapaxes(0, 1)
            elif not self.batched:
                x = x.reshape(len(x), 1, *([] if self._table else [-1]))
            yield np.ascontiguousarray(x)

    def _floats(self, values):
        with np.errstate(over="ignore", invalid="ignore"):
            x = values.astype(self._dtype)
        finite = np.isfinite(x)
        if not finite.all():
            self.odd += finite.size - int(finite.sum())
            if not self._allow_nan:
                index = np.unravel_index(np.argmin(finite), finite.shape)
                value = values[index]
                reason = f"is {value:g}" if not np.isfinite(value) else f"is {value:g}, too large for {self._dtype}"
                words = f"{self._source.name}: {self._source.place(index)} {reason}"
                raise UsageError(f"{words}; --allow-nan passes NaN and infinity on")
        return x

    def _indices(self, values):
        good = (values >= 0) & (values < self._table)
        with np.errstate(invalid="ignore"):
            whole = values == np.trunc(values) if values.dtype.kind == "f" else np.True_
        if not (good & whole).all():
            index = np.unravel_index(np.argmin(good & whole), good.shape)
            words = f"{self._source.name} must hold integers, 0 <= x < {self._table}"
            raise UsageError(f"{words}; {self._source.place(index)} is {values[index]:g}")
        return values.astype(np.int64)
