"""The grid: which sizes are timed, and how much work each of them is."""

import math
from typing import NamedTuple

import numpy as np

GATES = {"lstm": 4, "gru": 3, "rnn": 1}

GROUPS = {
    "step": "one step of one row: a layer call with the state in and out",
    "stream": "100 steps of one row",
    "small_batch": "50 steps of 2 to 16 rows",
    "throughput": "50 steps of 32 to 128 rows",
    "odd": "widths that fill no vector, and short bidirectional layers",
    "stacks": "several layers, and single layers too large for any cache",
    "ragged": "32 rows of 5 to 400 steps, mostly short",
    "gru": "gated recurrent units",
    "rnn": "plain recurrent layers",
    "proj": "layers with a projection",
    "f64": "double precision",
    "train": "forward and backward, gradients of all weights",
    "wide_step": "one step of many rows, state in and out",
}

QUICK_FLOPS = 8e8  # a quick run leaves out what takes longer than about 10 ms
QUICK_CASES = 3  # and takes so many of each group


class Case(NamedTuple):
    """One line of the grid: `steps` T, `batch` B, `inputs` I -> `hidden` H units.

    mode: "infer", y of a sequence that starts from zeros; "step", a call that is handed the state and hands it
    back; "train", y, then the gradients of all weights. lengths: None, or (shortest, longest, seed), see `row_lengths`.
    """

    group: str
    name: str
    steps: int
    batch: int
    inputs: int
    hidden: int
    cell: str = "lstm"
    layers: int = 1
    bidirectional: bool = False
    proj: int = 0
    dtype: str = "float32"
    mode: str = "infer"
    lengths: tuple | None = None

    @property
    def directions(self):
        """D: 2 for a bidirectional case, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def recurrent(self):
        """R, the width of h."""
        return self.proj or self.hidden

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

    def _layer_weights(self):
        """(elements that meet the input, elements that meet the state) of one direction, layer by layer."""
        rows = GATES[self.cell] * self.hidden
        for layer in range(self.layers):
            fan_in = self.inputs if layer == 0 else self.directions * self.recurrent
            yield rows * fan_in, rows * self.recurrent + self.proj * self.hidden

    @property
    def flops(self):
        """Multiplications and additions of the products: 2 * weights * steps of all rows.

        The gates' functions are not counted. Training counts three times the forward pass: the products of the
        inputs' gradients and those of the weights' gradients are as large as the forward ones.
        """
        weights = sum(map(sum, self._layer_weights()))
        return 2 * weights * self.row_steps * self.directions * (3 if self.mode == "train" else 1)

    @property
    def bytes(self):
        """Bytes of weights a call must read, however well it is written.

        The weights of the state are read again at every step, since step t + 1 needs the whole of step t; those of
        the input once, since the inputs of all steps are known beforehand. Training reads them twice, forward and back.
        Inputs, outputs and gates are left out: they are read once, and small beside it in what is bound by bytes.
        """
        elements = sum(once + self.steps * again for once, again in self._layer_weights())
        return elements * self.directions * self._unit * (2 if self.mode == "train" else 1)

    @property
    def held(self):
        """Bytes a cache must hold so that `bytes` come from there.

        Over a sequence: the state's weights of the largest layer and direction, since one follows the other. For
        a single step: all weights, for they come round once per call.
        """
        if self.steps == 1:
            return sum(map(sum, self._layer_weights())) * self.directions * self._unit
        return max(again for _, again in self._layer_weights()) * self._unit

    @property
    def _unit(self):
        return np.dtype(self.dtype).itemsize


def _square(group, steps, batches, widths, **rest):
    """Cases with as many inputs as units."""
    return [Case(group, f"T{steps} B{b} H{h}", steps, b, h, h, **rest) for h in widths for b in batches]


def _sized(group, steps, batch, inputs, hidden, **rest):
    """A case named after its sizes."""
    words = [f"T{steps}", f"B{batch}", f"{inputs}->{hidden}"]
    words += [f"proj {rest['proj']}"] if rest.get("proj") else []
    words += [f"x{rest['layers']}"] if rest.get("layers", 1) > 1 else []
    words += ["bidirectional"] if rest.get("bidirectional") else []
    words += [rest["cell"].upper()] if "cell" in rest else []
    words += ["ragged"] if rest.get("lengths") else []
    return Case(group, " ".join(words), steps, batch, inputs, hidden, **rest)


def _stacks():
    for batch in (1, 16):
        yield _sized("stacks", 100, batch, 40, 256, layers=3)
    for batch in (1, 16):
        yield _sized("stacks", 100, batch, 80, 320, layers=2, bidirectional=True)
    yield Case("stacks", "GNMT T30 B1 H1024 x7", 30, 1, 1024, 1024, layers=7)
    yield Case("stacks", "DeepSpeech2 T50 B1 H1760", 50, 1, 1760, 1760)


def _simple(cell):
    """The rows of a cell other than LSTM."""
    widths = (16, 64, 128, 256, 512)
    yield from _square(cell, 1, (1,), widths, cell=cell, mode="step")
    yield from _square(cell, 100, (1,), widths, cell=cell)
    yield from _square(cell, 50, (8, 64), widths, cell=cell)


def _train():
    for steps, batch, inputs, hidden in ((1000, 20, 2, 8), (35, 20, 200, 200), (100, 64, 128, 128), (100, 1, 64, 64)):
        yield _sized("train", steps, batch, inputs, hidden, mode="train")
    yield _sized("train", 50, 16, 80, 128, layers=2, bidirectional=True, mode="train")
    yield _sized("train", 100, 32, 128, 128, cell="gru", mode="train")
    yield _sized("train", 400, 32, 128, 128, mode="train", lengths=(5, 400, 1))


def _grid():
    wide = (128, 256, 512, 1024)
    cases = _square("step", 1, (1,), (16, 32, 64, *wide), mode="step")
    cases += _square("stream", 100, (1,), (32, 64, *wide))
    cases += _square("small_batch", 50, (2, 4, 8, 16), (64, 128, 256, 512))
    cases += _square("throughput", 50, (32, 64, 128), wide)
    cases += _square("odd", 50, (1, 16), (10, 17, 33, 100, 200, 500, 650))
    cases += [_sized("odd", t, 1, i, 32, bidirectional=True) for i, t in ((24, 63), (48, 31), (96, 15))]
    cases += _stacks()
    cases += [
        _sized("ragged", 400, 32, h, h, bidirectional=two, lengths=(5, 400, 1))
        for two in (False, True)
        for h in wide[:2]
    ]
    cases += [*_simple("gru"), *_simple("rnn")]
    cases += [
        _sized("proj", t, b, i, h, proj=p)
        for t, b, i, h, p in ((100, 1, 80, 256, 128), (50, 16, 256, 512, 256), (50, 64, 128, 512, 128))
    ]
    cases += _square("f64", 1, (1,), (64,), dtype="float64", mode="step")
    cases += [
        *_square("f64", 100, (1,), (64, 256), dtype="float64"),
        *_square("f64", 50, (8,), (128,), dtype="float64"),
        *_square("f64", 50, (64,), (256,), dtype="float64"),
    ]
    cases += _train()
    cases += _square("wide_step", 1, (64, 256, 1024), (64, 128, 256), mode="step")
    return tuple(cases)


GRID = _grid()


def quick_of(cases):
    """The small cases among `cases`, at most three of each group, spread over its range; never none of a group."""
    found = []
    for group in GROUPS:
        mine = [case for case in cases if case.group == group]
        small = [case for case in mine if case.flops <= QUICK_FLOPS] or sorted(mine, key=lambda c: c.flops)[:1]
        picks = np.linspace(0, len(small) - 1, min(QUICK_CASES, len(small))).round().astype(int)
        found += [small[k] for k in picks]
    return found


def select(groups=None, quick=False, dtype=None):
    """Cases of the named groups (default: all) in the order of the grid; dtype: replaces each case's own."""
    cases = [case for case in GRID if not groups or case.group in groups]
    if dtype is not None:
        cases = [case._replace(dtype=dtype) for case in cases]
    return quick_of(cases) if quick else cases
