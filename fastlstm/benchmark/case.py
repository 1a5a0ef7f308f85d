"""One line of the grid, and how much work it is."""

import math
from typing import NamedTuple

import numpy as np

from ..variants import variant
from . import work

FAMILY = "family"  # the group whose cases are measured against a plain LSTM


class Case(NamedTuple):
    """`steps` T, `batch` B, `inputs` I -> `hidden` H units, or a tuple of one H for each of the `layers`.

    mode: "infer", y of a sequence that starts from zeros; "step", a call that is handed the state and hands it
    back; "train", y, then the gradients of all weights. lengths: None, or (shortest, longest, seed), see `row_lengths`.
    options: those of the cell, as pairs (name, value).
    """

    group: str
    name: str
    steps: int
    batch: int
    inputs: int
    hidden: int | tuple
    cell: str = "lstm"
    layers: int = 1
    bidirectional: bool = False
    proj: int = 0
    dtype: str = "float32"
    mode: str = "infer"
    lengths: tuple | None = None
    options: tuple = ()

    @property
    def variant(self):
        """The cell and its options, a `fastlstm.variants.Variant`."""
        return variant(self.cell, **dict(self.options))

    @property
    def sizes(self):
        """H of every layer."""
        return self.hidden if isinstance(self.hidden, tuple) else (self.hidden,) * self.layers

    @property
    def plain(self):
        """The plain LSTM that a case of the family is measured against: its sizes, the widest where they differ."""
        if self.group != FAMILY:
            return None
        return self._replace(name="plain LSTM", cell="lstm", options=(), hidden=max(self.sizes))

    @property
    def directions(self):
        """D: 2 for a bidirectional case, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def recurrent(self):
        """R, the width of the last layer's h."""
        return self.proj or self.sizes[-1]

    def row_lengths(self):
        """None, or the steps of each row (B,): log-uniform between the two bounds, at least one row the longest."""
        if self.lengths is None:
            return None
        low, high, seed = self.lengths
        drawn = np.random.default_rng(seed).uniform(math.log(low), math.log(high + 1), self.batch)
        found = np.clip(np.exp(drawn).astype(np.int64), low, high)
        found[np.argmax(found)] = high
        return found

    @property
    def row_steps(self):
        """Steps that must be computed, over all rows; padding is none."""
        return self.steps * self.batch if self.lengths is None else int(self.row_lengths().sum())

    def _layers(self):
        """`work.parts` of one direction, layer by layer."""
        v, fan_in = self.variant, self.inputs
        for layer, hidden in enumerate(self.sizes):
            yield work.parts(v, fan_in, hidden, self.proj, first=layer == 0)
            fan_in = self.directions * (self.proj or hidden)

    @property
    def flops(self):
        """Multiplications and additions of the products: 2 * weights * steps of all rows that use them.

        The gates' functions are not counted. Training counts three times the forward pass: the products of the
        inputs' gradients and those of the weights' gradients are as large as the forward ones. A truncated gradient
        hands nothing back through the state's weights.
        """
        inputs, state = 1, 1
        if self.mode == "train":
            inputs, state = 3, 2 if self.cell == "lstm_1997" and self.variant.gradient == "truncated" else 3
        each = (p.rows * (inputs * p.inputs + state * p.state) * p.share for layer in self._layers() for p in layer)
        return round(2 * sum(each) * self.row_steps * self.directions)

    @property
    def bytes(self):
        """Bytes of weights a call must read, however well it is written.

        The weights of the state are read again at every step that uses them, since step t + 1 needs the whole of step
        t; those of the input once, since the inputs of all steps are known beforehand. Training reads them twice,
        forward and back. Inputs, outputs and gates are left out: they are read once, and small beside it in what is
        bound by bytes.
        """
        elements = sum(p.rows * (p.inputs + self.steps * p.state * p.share) for layer in self._layers() for p in layer)
        return round(elements * self.directions * self._unit * (2 if self.mode == "train" else 1))

    @property
    def held(self):
        """Bytes a cache must hold so that `bytes` come from there.

        Over a sequence: the state's weights of the largest layer and direction, since one follows the other. For
        a single step: all weights, for they come round once per call.
        """
        if self.steps == 1:
            elements = sum(p.rows * (p.inputs + p.state) for layer in self._layers() for p in layer)
            return elements * self.directions * self._unit
        return max(sum(p.rows * p.state for p in layer) for layer in self._layers()) * self._unit

    @property
    def _unit(self):
        return np.dtype(self.dtype).itemsize
