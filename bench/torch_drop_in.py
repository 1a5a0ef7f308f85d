"""torch's recurrent layers and fastlstm.torch's, side by side in one process: training steps and inference.

    python bench/torch_drop_in.py [--rounds N] [--threads N] [--only WORDS] [--profile] [--json FILE]

Each round times one slot of torch's module and one of ours, in turn and in an order that changes, so that both meet the
same machine; a slot is as many calls as fill some 50 ms. Printed are medians over rounds and the median of the rounds'
ratios, with its quartiles. A training step is forward, backward to all weights (and x, where it says so), and a step of
SGD, which changes all weights, so that ours has to pack them again. --profile shows where a step of ours spends its
time, in Python's words.
"""

import argparse
import cProfile
import json
import pstats
import time
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence

import fastlstm as fl
import fastlstm.torch as accelerated

SLOT = 0.05  # s


class Case(NamedTuple):
    """T steps, B rows, I -> H; mode "train" or "infer"; ragged: packed sequences of T/4 ... T steps."""

    kind: str
    T: int
    B: int
    I: int
    H: int
    mode: str = "train"
    ragged: bool = False
    dx: bool = False
    trusts: bool = False

    @property
    def words(self):
        extras = [word for word, on in (("ragged", self.ragged), ("dx", self.dx), ("trusting", self.trusts)) if on]
        return f"{self.mode} {self.kind} T{self.T} B{self.B} {self.I}->{self.H} {' '.join(extras)}".rstrip()


CASES = [
    Case("LSTM", 1000, 20, 2, 8),
    Case("LSTM", 35, 20, 200, 200),
    Case("LSTM", 35, 20, 200, 200, dx=True),
    Case("LSTM", 100, 64, 128, 128),
    Case("GRU", 100, 32, 128, 128),
    Case("RNN", 100, 32, 128, 128),
    Case("LSTM", 400, 32, 128, 128, ragged=True),
    Case("LSTM", 1, 1, 16, 16, "infer"),
    Case("LSTM", 1, 1, 128, 128, "infer"),
    Case("LSTM", 1, 1, 128, 128, "infer", trusts=True),
    Case("LSTM", 1, 1, 512, 512, "infer"),
    Case("LSTM", 1, 1, 512, 512, "infer", trusts=True),
    Case("LSTM", 100, 1, 128, 128, "infer"),
    Case("GRU", 100, 1, 128, 128, "infer"),
    Case("LSTM", 100, 32, 128, 128, "infer"),
    Case("LSTM", 400, 32, 128, 128, "infer", ragged=True),
]


def call(case, module):
    """A function of no arguments that makes one training step or one inference call."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((case.T, case.B, case.I), dtype=np.float32)).requires_grad_(case.dx)
    if case.ragged:
        lengths = torch.from_numpy(rng.integers(case.T // 4, case.T + 1, case.B))
        x = pack_padded_sequence(x.detach(), lengths, enforce_sorted=False)
    if case.mode == "infer":

        @torch.inference_mode()
        def run():
            return module(x)

        return run
    y = module(x)[0]
    shape = y[0].shape if case.ragged else y.shape
    dy = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)) / (case.T * case.B)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)

    def step():
        y, _ = module(x)
        optimizer.zero_grad()
        rows = y[0] if case.ragged else y  # of a PackedSequence its rows
        rows.backward(dy)
        optimizer.step()

    return step


def pair(case):
    """torch's call and ours, with equal weights."""
    theirs = getattr(torch.nn, case.kind)(case.I, case.H)
    ours = getattr(accelerated, case.kind)(case.I, case.H)
    ours.load_state_dict(theirs.state_dict())
    ours.trusts_versions = case.trusts
    return call(case, theirs), call(case, ours)


def timed(run, times):
    start = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - start) / times


def measured(case, rounds):
    """Seconds of every round: (of torch's, of ours)."""
    runs = pair(case)
    for run in runs:
        timed(run, 3)
    times = [max(1, int(SLOT / timed(run, 3))) for run in runs]
    found = ([], [])
    for k in range(rounds):
        for which in (0, 1) if k % 2 else (1, 0):
            found[which].append(timed(runs[which], times[which]))
    return found


def profile(case):
    """Print where the calls of ours go."""
    _, run = pair(case)
    timed(run, 3)
    profiler = cProfile.Profile()
    profiler.enable()
    timed(run, max(20, int(0.5 / timed(run, 3))))
    profiler.disable()
    print(f"\n{case.words}")
    pstats.Stats(profiler).strip_dirs().sort_stats("tottime").print_stats(18)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="cases whose words contain this")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, fastlstm {fl.__version__} {fl.isa()}, {given.threads} threads; milliseconds")
    print(f"{'case':<44}{'torch':>10}{'ours':>10}{'ratio':>8}   quartiles")
    rows = []
    for case in (case for case in CASES if given.only in case.words):
        theirs, ours = (np.array(found) for found in measured(case, given.rounds))
        low, ratio, high = np.quantile(theirs / ours, (0.25, 0.5, 0.75))
        rows.append({
            "case": case.words, "torch_ms": np.median(theirs) * 1e3, "ours_ms": np.median(ours) * 1e3, "ratio": ratio,
            "quartiles": [low, high],
        })
        print(f"{case.words:<44}{rows[-1]['torch_ms']:>10.3f}{rows[-1]['ours_ms']:>10.3f}{ratio:>8.2f}"
              f"   {low:.2f} {high:.2f}", flush=True)
        if given.profile:
            profile(case)
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
