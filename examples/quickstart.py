"""Weights with torch's names in; a sequence at once and step by step; the same bits out of both.

    python examples/quickstart.py
"""

import tempfile
from pathlib import Path

import numpy as np

import fastlstm as fl

INPUTS, HIDDEN, STEPS = 8, 32, 50


def make_checkpoint(path, rng):
    """An .npz with the names and shapes of ``torch.nn.LSTM(8, 32, num_layers=2).state_dict()``."""
    bound, weights = HIDDEN**-0.5, {}
    for layer, width in enumerate((INPUTS, HIDDEN)):
        shapes = {"weight_ih": (4 * HIDDEN, width), "weight_hh": (4 * HIDDEN, HIDDEN)}
        shapes |= {"bias_ih": (4 * HIDDEN,), "bias_hh": (4 * HIDDEN,)}
        for name, shape in shapes.items():
            weights[f"{name}_l{layer}"] = rng.uniform(-bound, bound, shape).astype(np.float32)
    np.savez(path, **weights)


def main():
    """Load, run, stream, compare."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "weights.npz"
        make_checkpoint(checkpoint, rng)
        lstm = fl.LSTM(INPUTS, HIDDEN, num_layers=2)
        with np.load(checkpoint) as weights:
            lstm.load_state_dict(weights)
    print(f"{lstm} on {fl.isa()}, {lstm.num_parameters:,} parameters from an .npz")

    x = rng.standard_normal((STEPS, 1, INPUTS)).astype(np.float32)  # time, batch, features
    y, (hn, cn) = lstm(x)
    print(f"sequence: x {x.shape} -> y {y.shape}, h {hn.shape}, c {cn.shape}")

    stream = lstm.stream(batch_size=1)
    steps = np.stack([stream.step(x_t) for x_t in x])
    print(f"stream:   {STEPS} single steps -> {steps.shape}")

    stream.reset()
    blocks = np.concatenate([stream.process(x[:20]), stream.process(x[20:])])

    same = np.array_equal(y, steps) and np.array_equal(y, blocks)
    print(f"sequence, single steps and two blocks agree in every bit: {same}")
    if not same:
        raise SystemExit("they must agree; please report this")


if __name__ == "__main__":
    main()
