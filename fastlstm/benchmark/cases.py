"""The grid: which sizes are timed."""

import numpy as np

from .case import FAMILY, Case

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
    FAMILY: "every cell and its options, beside a plain LSTM of the same sizes",
}

QUICK_FLOPS = 8e8  # a quick run leaves out what takes longer than about 10 ms
QUICK_CASES = 3  # and takes so many of each group
SHORT_FLOPS = 3e10  # a short run leaves out what takes longer than about 0.3 s: a case is timed in a few seconds


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


def _member(cell="lstm", layers=1, **options):
    return {"cell": cell, "layers": layers, "options": tuple(options.items())}


MEMBERS = {
    "RNN": _member("rnn"),
    "GRU": _member("gru"),
    "GRU, reset before": _member("gru", reset_after=False),
    "peepholes": _member(peephole="ifo"),
    "peepholes, o before": _member(peephole="ifo", peephole_o="c_prev"),
    "coupled": _member(coupled="f=1-i"),
    "without i": _member(without="i"),
    "hard sigmoid": _member(activations=("hard_sigmoid", "tanh", "tanh")),
    "norm ba": _member(layer_norm="ba"),
    "norm gates": _member(layer_norm="gates"),
    "gate recurrence": _member(gate_recurrence=True),
    "depth-gated x2": _member("depth_gated", layers=2),
    "clockwork": _member("clockwork"),
    "LSTM of 1997": _member("lstm_1997"),
    "LSTM of 1997, blocks of 4": _member("lstm_1997", block_size=4),
}


def _family():
    sizes = (100, 1, 128), (50, 8, 256), (50, 64, 256)
    for name, member in MEMBERS.items():
        for t, b, h in sizes:
            yield Case(FAMILY, f"{name} T{t} B{b} H{h}", t, b, h, h, **member)
    for t, b, _ in sizes:
        yield Case(FAMILY, f"256 and 128 units T{t} B{b} I256", t, b, 256, (256, 128), layers=2)


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
    return (*cases, *_family())


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


def short_of(cases):
    """Four cases at most of each group: the least, the middle and the most work, and the most weights to hold.

    What takes too long is left out first, but a case of every group remains.
    """
    found = []
    for group in GROUPS:
        mine = sorted((case for case in cases if case.group == group), key=lambda case: case.flops)
        mine = [case for case in mine if case.flops <= SHORT_FLOPS] or mine[:1]
        picks = [mine[k] for k in (0, len(mine) // 2, -1)] + [max(mine, key=lambda case: case.held)] if mine else []
        found += [case for case in cases if case in picks]
    return found


def weight(case):
    """About how long a case takes, beside others: a part that all have, and one that grows with its work."""
    return 1 + case.flops / 2e9


def select(groups=None, quick=False, dtype=None, short=False):
    """Cases of the named groups (default: all) in the order of the grid; dtype: replaces each case's own."""
    cases = [case for case in GRID if not groups or case.group in groups]
    if dtype is not None:
        cases = [case._replace(dtype=dtype) for case in cases]
    return quick_of(cases) if quick else short_of(cases) if short else cases
