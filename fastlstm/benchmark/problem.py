"""One case made concrete: weights, inputs, and what a contestant hands back."""

import functools
from typing import Any, NamedTuple

import numpy as np

import fastlstm as fl

CLASSES = {
    "lstm": "LSTM", "gru": "GRU", "rnn": "RNN", "depth_gated": "DepthGatedLSTM", "clockwork": "ClockworkRNN",
    "lstm_1997": "LSTM1997",
}


class Cannot(Exception):
    """A contestant's reason not to take part in a case, in words."""


class Call(NamedTuple):
    """What is timed, and what is checked before.

    run: a function of no arguments that does the case's work once. results: a function of no arguments; after a run,
    name -> array, in fastlstm's layout: "y" (T, B, D*R), "hn", "cn" and so on (L*D, B, ...), gradients by the weights'
    names.
    """

    run: Any
    results: Any


def has_cell(case):
    """Whether fastlstm has the cell of this case."""
    return hasattr(fl, CLASSES[case.cell])


class Problem:
    """A case with numbers; everybody gets the same. threads: what each contestant may use.

    x (T, B, I); state: name -> (L*D, B, ...), for cases that take a state, else None; lengths (B,) or None;
    dy (T, B, D*R), zero beyond each length, for training.
    """

    def __init__(self, case, threads=1):
        self.case, self.threads = case, threads
        rng = np.random.default_rng(0)

        def normal(*shape):
            return rng.standard_normal(shape).astype(case.dtype)

        self.x = normal(case.steps, case.batch, case.inputs)
        self.lengths = case.row_lengths()
        self.state = self._new_state(normal) if case.mode == "step" else None
        self.dy = None
        if case.mode == "train":
            self.dy = normal(case.steps, case.batch, case.directions * case.recurrent) * self.valid[..., None]

    def _new_state(self, normal):
        case, found = self.case, {}
        if len(set(case.sizes)) > 1:
            raise ValueError("a case that takes a state has layers of one size")
        for name, width in case.variant.widths(case.sizes[0], case.proj).items():
            found[name] = normal(case.layers * case.directions, case.batch, width)
        found["h"] = np.tanh(found["h"])
        if "t" in found:
            found["t"][:] = 0  # a clock that has just started
        return found

    @functools.cached_property
    def valid(self):
        """(T, B) in the case's dtype: 1 where a row has a step, 0 where it has ended."""
        lengths = np.full(self.case.batch, self.case.steps) if self.lengths is None else self.lengths
        return (np.arange(self.case.steps)[:, None] < lengths).astype(self.case.dtype)

    def layer(self, threads=None):
        """A fastlstm layer with the problem's weights, limited to `threads` (default: the problem's)."""
        case = self.case
        options = {**dict(case.options), **({"proj_size": case.proj} if case.proj else {})}
        return getattr(fl, CLASSES[case.cell])(
            case.inputs, list(case.sizes), case.layers, bidirectional=case.bidirectional, dtype=case.dtype, rng=0,
            num_threads=threads or self.threads, **options,
        )

    @functools.cached_property
    def weights(self):
        """Name -> array, torch's names."""
        return self.layer().state_dict()
