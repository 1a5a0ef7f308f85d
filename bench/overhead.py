"""What a call costs beside its arithmetic: tiny layers, every way to run one step.

    python bench/overhead.py [--profile] [--rounds N] [--json FILE]

An eight-unit layer needs some tens of nanoseconds of arithmetic per step; the rest of a row is checks, allocation
and Python. "nothing" is an empty Python function called the same way. --profile also shows where a layer call spends
its time.
"""

import argparse
import cProfile
import json
import pstats

import numpy as np

import fastlstm as fl
from fastlstm.benchmark.contestants import Entry
from fastlstm.benchmark.measure import Watch, time_case
from fastlstm.benchmark.problem import Call

WIDTHS = (1, 8, 16, 32, 64)
PROFILED = 20_000


def ways(hidden):
    """Name -> a function of no arguments that does one step of one row."""
    layer = fl.LSTM(hidden, hidden, rng=0, num_threads=1)
    x = np.random.default_rng(0).standard_normal((1, 1, hidden)).astype(np.float32)
    x_t, row, block = x[0], x[0, 0], x[:, 0]
    _, state = layer(x)
    stream, out = layer.stream(), np.empty((1, hidden), np.float32)
    wide = x.astype(np.float64)
    return {
        "nothing": lambda: None,
        "stream.step(x, out=)": lambda: stream.step(x_t, out=out),
        "stream.step(x)": lambda: stream.step(x_t),
        "stream.step(x), x (I,)": lambda: stream.step(row),
        "stream.process(block)": lambda: stream.process(x),
        "layer(x)": lambda: layer(x),
        "layer(x, state)": lambda: layer(x, state),
        "layer(x), x (T, I)": lambda: layer(block),
        "layer(x), x float64": lambda: layer(wide),
        "layer.forward(x, cache=True)": lambda: layer.forward(x, cache=True),
    }


def measured(made, rounds):
    """Name -> microseconds."""
    for run in made.values():
        run()
    entries = [Entry(name, Call(run, None), 1) for name, run in made.items()]
    return {name: timing.median * 1e6 for name, timing in time_case(entries, rounds).items()}


def profile(run):
    """Print the functions that a call spends its time in."""
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(PROFILED):
        run()
    profiler.disable()
    print(f"\nlayer(x, state), H8, {PROFILED:,} calls under the profiler, which makes Python's share look larger")
    pstats.Stats(profiler).strip_dirs().sort_stats("tottime").print_stats(15)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    watch = Watch()
    found = {hidden: measured(ways(hidden), given.rounds) for hidden in WIDTHS}
    print(f"{fl.isa()}, one step of one row; microseconds")
    print(f"{'call':<30}" + "".join(f"{f'H{hidden}':>10}" for hidden in WIDTHS))
    for name in found[WIDTHS[0]]:
        print(f"{name:<30}" + "".join(f"{found[hidden][name]:>10.3f}" for hidden in WIDTHS))
    for words in watch.notes():
        print(f"! {words}")
    if given.profile:
        profile(ways(8)["layer(x, state)"])
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump([{"hidden": hidden, "us": times} for hidden, times in found.items()], file, indent=1)


if __name__ == "__main__":
    main()
