"""How far every cell is from its slow twin: forward relative to max|y|, gradients relative to each one's largest.

    python bench/family_accuracy.py [--seeds N] [--json FILE]

The twins are fastlstm.reference, float64 (for float64 in extended precision where the machine has it). Each cell runs
over several sizes with ragged lengths and resets, in both directions; weights, inputs and states are drawn in single
precision, so that both types and the twin start from the same numbers. Beside the errors stand what docs/numerics.md
allows.
"""

import argparse
import json
import math

import numpy as np

import fastlstm as fl
from fastlstm import _progress, params, reference
from fastlstm.benchmark.cases import MEMBERS

KINDS = {
    "lstm": fl.LSTM, "gru": fl.GRU, "rnn": fl.RNN, "depth_gated": fl.DepthGatedLSTM, "clockwork": fl.ClockworkRNN,
    "lstm_1997": fl.LSTM1997,
}
SIZES = ((20, 5, 17, 24), (60, 3, 40, 72), (7, 33, 20, 36))  # T, B, I, H
GRADIENTS = {"float32": 2e-5, "float64": 1e-11}
FULL = {"LSTM": {}, **MEMBERS, "LSTM of 1997, full gradient": {"cell": "lstm_1997", "options": (("gradient", "full"),)}}


def single(rng, shape, scale=1.0):
    return (scale * rng.normal(size=shape)).astype(np.float32).astype(np.float64)


def distance(a, b):
    """Relative to the largest element of b."""
    scale = np.abs(b).max(initial=0)
    return float(np.abs(a - b).max(initial=0) / (scale or 1))


def bound(steps, dtype):
    return 4 * math.ceil(math.log2(9 * steps)) * np.finfo(dtype).eps


def compare(member, dtype, size, seed):
    """(largest forward error / what is allowed, the error itself, largest gradient error)."""
    (T, B, I, H), rng = size, np.random.default_rng(seed)
    cell, options = member.get("cell", "lstm"), dict(member.get("options", ()))
    layer = KINDS[cell](I, H, member.get("layers", 1), bidirectional=True, dtype=dtype, rng=seed, **options)
    v, L = layer._spec.v, layer.num_layers
    layer.load_state_dict({n: single(rng, w.shape, 1 / math.sqrt(H)) for n, w in layer.state_dict().items()})
    x, lengths = single(rng, (T, B, I)), rng.integers(1, T + 1, B)
    reset, dy = rng.random((T, B)) < 0.1, single(rng, (T, B, 2 * H))
    shapes = params.state_shapes(L, 2, B, H, 0, v)
    state = tuple(np.zeros(s) if n == "t" else single(rng, s, 0.5) for n, s in shapes.items())
    wide = np.longdouble if dtype == "float64" else np.float64
    given = {"lengths": lengths, "reset": reset}
    y, last, cache = reference.forward(
        layer.state_dict(), x, state, cell=v, num_layers=L, bidirectional=True, dtype=wide, **given
    )
    dx, _, grads = reference.backward(cache, dy)
    mine, state_n, kept = layer.forward(x, state if len(state) > 1 else state[0], cache=True, **given)
    dx_mine, _, grads_mine = layer.backward(dy, kept)
    ends = state_n if isinstance(state_n, tuple) else (state_n,)
    forward = max(distance(mine, y), *(distance(a, b) for a, b in zip(ends, last, strict=True)))
    backward = max(distance(dx_mine, dx), *(distance(grads_mine[n], grads[n]) for n in grads))
    return forward / bound(T, dtype), forward, backward


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="problems of each size")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    rows, every = [], [(n, m, d) for n, m in FULL.items() for d in GRADIENTS]
    print(f"{'cell':30}{'dtype':10}{'forward':>10}{'of bound':>10}{'gradients':>11}{'of bound':>10}")
    with _progress.Progress(len(every), "cells") as progress:
        for name, member, dtype in every:
            found = [compare(member, dtype, size, seed) for size in SIZES for seed in range(options.seeds)]
            part, forward, backward = (max(column) for column in zip(*found, strict=True))
            rows.append({"cell": name, "dtype": dtype, "forward": forward, "of_bound": part, "gradients": backward})
            progress.advance()
            print(f"{name:30}{dtype:10}{forward:10.1e}{part:10.2f}{backward:11.1e}{backward / GRADIENTS[dtype]:10.2f}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
