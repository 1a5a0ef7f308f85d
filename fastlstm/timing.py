"""Time this machine over a grid of sizes: what ``fastlstm bench`` shows.

=============  ==================================================================================
step           one step of one row: a layer call with the state in and out, and ``stream().step``
stream         100 steps of one row
small_batch    50 steps of 2 to 16 rows
throughput     50 steps of 32 to 128 rows
odd            sizes that fill no vector, and short bidirectional layers
train          forward and backward
=============  ==================================================================================

The clock of a shared or warm processor wanders. So a case is timed in slots of at least 10 ms, the
cases of a group take turns, their order rotates from round to round, and the median slot counts.
"""

import json
import math
import os
import platform
import time
from statistics import median
from typing import NamedTuple

import numpy as np

import fastlstm as fl

from ._progress import Progress

ROUNDS, QUICK_ROUNDS = 9, 3
SLOT = 0.010  # seconds; below this the clock's own changes of speed show
QUICK_FLOPS = 2.5e9  # a quick run leaves out what takes over about 50 ms


class Case(NamedTuple):
    """One line of the grid: `steps` T, `batch` B, `inputs` I -> `hidden` H units."""

    group: str
    name: str
    steps: int
    batch: int
    inputs: int
    hidden: int
    kind: str = "call"  # "call": lstm(x, state); "step": stream().step(x); "train": forward, backward
    bidirectional: bool = False

    @property
    def flops(self):
        """Multiplications and additions of the products; training counts three times the forward."""
        per_row = 2 * 4 * self.hidden * (self.inputs + self.hidden)
        passes = (3 if self.kind == "train" else 1) * (2 if self.bidirectional else 1)
        return per_row * self.steps * self.batch * passes


def _square(group, steps, batches, widths, kind="call"):
    return [
        Case(group, f"T{steps} B{b} H{h}{' step' if kind == 'step' else ''}", steps, b, h, h, kind)
        for h in widths
        for b in batches
    ]


def _grid():
    wide = (128, 256, 512, 1024)
    cases = _square("step", 1, (1,), (16, 32, 64, *wide))
    cases += _square("step", 1, (1,), (16, 32, 64, *wide), "step")
    cases += _square("stream", 100, (1,), (32, 64, *wide))
    cases += _square("small_batch", 50, (2, 4, 8, 16), (64, 128, 256, 512))
    cases += _square("throughput", 50, (32, 64, 128), wide)
    cases += _square("odd", 50, (1, 16), (10, 17, 33, 100, 200, 500, 650))
    cases += [
        Case("odd", f"T{steps} B1 {inputs}->32 bidirectional", steps, 1, inputs, 32, bidirectional=True)
        for inputs, steps in ((24, 63), (48, 31), (96, 15))
    ]
    cases += [
        Case("train", f"T{steps} B{batch} {inputs}->{hidden}", steps, batch, inputs, hidden, "train")
        for steps, batch, inputs, hidden in ((1000, 20, 2, 8), (35, 20, 200, 200), (100, 64, 128, 128))
    ]
    return cases


GRID = _grid()
GROUPS = tuple(dict.fromkeys(case.group for case in GRID))


class Result(NamedTuple):
    """Seconds per call: the median and the best slot, and the rate of the median."""

    case: Case
    median: float
    best: float
    gflops: float


def run(groups=None, quick=False, threads=None):
    """Time the grid, or some groups of it. Returns a list of `Result` in the order of the grid."""
    cases = [case for case in GRID if not groups or case.group in groups]
    if quick:
        cases = [case for case in cases if case.flops <= QUICK_FLOPS]
    rounds = QUICK_ROUNDS if quick else ROUNDS
    before = fl.get_num_threads()
    if threads is not None:
        fl.set_num_threads(threads)
    try:
        with Progress((rounds + 1) * len(cases), "bench") as bar:
            # Group by group: memory for one group's models, and its cases close together in time.
            return [
                result
                for group in GROUPS
                for result in _time_group([case for case in cases if case.group == group], rounds, bar)
            ]
    finally:
        fl.set_num_threads(before)


def _time_group(cases, rounds, bar):
    calls, repeats = [], []
    for case in cases:
        calls.append(_prepare(case))
        calls[-1]()  # packs the weights, grows the workspace
        repeats.append(max(1, math.ceil(SLOT / max(_slot(calls[-1], 1), 1e-7))))
        bar.advance(note=case.name)
    slots = [[] for _ in cases]
    for turn in range(rounds):
        for k in np.roll(np.arange(len(cases)), turn):
            slots[k].append(_slot(calls[k], repeats[k]))
            bar.advance(note=cases[k].name)
    return [
        Result(case, median(times), min(times), case.flops / median(times) * 1e-9)
        for case, times in zip(cases, slots, strict=True)
    ]


def _slot(call, repeats):
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def _prepare(case):
    """A function of no arguments that does the case's work once."""
    rng = np.random.default_rng(0)
    lstm = fl.LSTM(case.inputs, case.hidden, bidirectional=case.bidirectional, rng=rng)
    x = rng.standard_normal((case.steps, case.batch, case.inputs)).astype(np.float32)
    y, state = lstm(x)
    if case.kind == "step":
        stream, x_t = lstm.stream(batch_size=case.batch), x[0]
        out = np.empty_like(y[0])
        return lambda: stream.step(x_t, out=out)
    if case.kind == "train":
        dy = rng.standard_normal(y.shape).astype(np.float32)
        return lambda: lstm.backward(dy, lstm.forward(x, cache=True)[2])
    return lambda: lstm(x, state)


def table(results, threads=None):
    """The results as text; threads: what `run` was given."""
    at_most = threads or fl.get_num_threads()
    lines = [f"{fl.isa()}, at most {at_most} threads; microseconds per call, float32", ""]
    lines.append(f"{'group':<13}{'case':<28}{'median':>12}{'best':>12}{'GFLOP/s':>10}")
    for case, middle, best, gflops in results:
        times = f"{middle * 1e6:>12,.1f}{best * 1e6:>12,.1f}"
        lines.append(f"{case.group:<13}{case.name:<28}{times}{gflops:>10.1f}")
    return "\n".join(lines)


def write_json(path, results, threads=None):
    """Machine and results, as JSON; threads: what `run` was given."""
    machine = {
        "fastlstm": fl.__version__,
        "isa": fl.isa(),
        "threads": threads or fl.get_num_threads(),
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
    }
    rows = [
        {**case._asdict(), "median_us": middle * 1e6, "best_us": best * 1e6, "gflops": gflops}
        for case, middle, best, gflops in results
    ]
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"machine": machine, "results": rows}, file, indent=1)
        file.write("\n")
