"""Does a state that decays to nothing cost more than a live one?

    python bench/denormals.py [--hidden N] [--rounds N] [--json FILE]

Numbers below the smallest normal one (about 1e-38 in float32) can take a processor many times longer. A recurrent layer
makes them by itself: with the input gate shut, c shrinks at every step. Each row times the same call on a live state;
on one that starts just above the smallest normal number and loses three per cent a step; and on input and state that
are denormal from the start. NumPy's product of the same width stands beside it, to show what the processor charges.
"""

import argparse
import json

import numpy as np

import fastlstm as fl
from fastlstm.benchmark.contestants import Entry
from fastlstm.benchmark.measure import Watch, time_case
from fastlstm.benchmark.problem import Call

STEPS = 400  # the decaying state is denormal in all but the first 70
FORGET = 3.5  # bias of the forget gate: sigmoid(3.5) = 0.97
KINDS = ("live", "decaying", "denormal")


def layer_of(hidden, dtype, shut):
    """A layer with random weights; shut: whose input gate lets nothing in, so that c only decays."""
    layer = fl.LSTM(hidden, hidden, dtype=dtype, rng=0, num_threads=1)
    if shut:
        weights = layer.state_dict()
        weights["bias_ih_l0"] = np.zeros(4 * hidden, dtype)
        weights["bias_hh_l0"] = np.zeros(4 * hidden, dtype)
        weights["bias_ih_l0"][:hidden], weights["bias_ih_l0"][hidden : 2 * hidden] = -200, FORGET
        layer.load_state_dict(weights)
    return layer


def calls(hidden, batch, dtype, train):
    """Kind -> a function of no arguments."""
    rng = np.random.default_rng(0)
    made = {}
    for kind in KINDS:
        layer = layer_of(hidden, dtype, kind != "live")
        x = rng.standard_normal((STEPS, batch, hidden)).astype(dtype)
        scale = 1.0
        if kind == "decaying":
            x[:], scale = 0, 8 * np.finfo(dtype).tiny
        elif kind == "denormal":
            x[:] = scale = np.finfo(dtype).tiny / 100
        state = tuple(np.full((1, batch, hidden), scale, dtype) for _ in range(2))
        made[kind] = call_of(layer, x, state, train)
    return made


def call_of(layer, x, state, train):
    if not train:
        return lambda: layer(x, state)
    dy = np.full((*x.shape[:2], layer.hidden_size), 1e-3, x.dtype)
    return lambda: layer.backward(dy, layer.forward(x, state, cache=True)[2])


def product(hidden):
    """NumPy's product of a row and a matrix, live and denormal."""
    weight = np.random.default_rng(0).standard_normal((hidden, 4 * hidden)).astype(np.float32)
    tiny = np.full((1, hidden), np.finfo(np.float32).tiny / 100, np.float32)
    rows = {"live": np.ones((1, hidden), np.float32), "denormal": tiny}
    return {kind: lambda row=row: row @ weight for kind, row in rows.items()}


def measured(made, rounds):
    """Kind -> microseconds."""
    for run in made.values():
        run()
    entries = [Entry(kind, Call(run, None), 1) for kind, run in made.items()]
    return {kind: timing.median * 1e6 for kind, timing in time_case(entries, rounds).items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    print(f"{fl.isa()}, H{given.hidden}, {STEPS} steps, one thread; microseconds, and in brackets times the live state")
    print(f"{'call':<34}" + "".join(f"{kind:>22}" for kind in KINDS))
    watch, rows = Watch(), []
    for dtype in ("float32", "float64"):
        for batch in (1, 8):
            for train in (False, True):
                name = f"{dtype} B{batch} {'forward, backward' if train else 'forward'}"
                rows.append((name, measured(calls(given.hidden, batch, dtype, train), given.rounds)))
    rows.append(("numpy, one product", measured(product(given.hidden), given.rounds)))
    for name, times in rows:
        cells = (f"{times[k]:,.1f} ({times[k] / times['live']:.2f})" if k in times else "-" for k in KINDS)
        print(f"{name:<34}" + "".join(f"{cell:>22}" for cell in cells))
    for words in watch.notes():
        print(f"! {words}")
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump([{"call": name, "us": times} for name, times in rows], file, indent=1)


if __name__ == "__main__":
    main()
