"""Train the bundled sunspot model: an LSTM that reads one month and forecasts the next twelve.

    python examples/train_sunspots.py                       # the bundled model, in under two minutes
    python examples/train_sunspots.py --epochs 2 --out /tmp/model.safetensors    # a quick look

Windows of 22 years are drawn from the months before 1910; the first 4 years of each only warm the
state up. Every window is made brighter or dimmer as a whole and its input gets a little noise, since
161 years hold no more than fifteen solar cycles. The weights are averaged along the way, and the
average that forecasts 1910-1949 best is kept. The months from 1950 on are looked at once, at the end.
"""

import argparse
import time
from pathlib import Path

import numpy as np

import fastlstm as fl
from fastlstm import forecast as fc
from fastlstm._progress import Progress

# The file in this clone; a package that is installed elsewhere stays as it is.
BUNDLED = Path(__file__).resolve().parent.parent / "fastlstm" / "data" / "sunspots.safetensors"

HIDDEN = 48
WINDOW = 264  # months
WARM_UP = 48  # months at the start of a window without a loss
BATCH = 16
STEPS = 20  # optimizer steps in one epoch
LEARNING_RATE = 3e-3
GAIN = 0.3  # standard deviation of log(brightness) of a window
NOISE = 0.15  # standard deviation added to the scaled input
AVERAGE = 0.98  # decay of the running mean of the weights


def build(seed):
    """The model with fresh weights; the same seed gives the same weights."""
    rng = np.random.default_rng(seed)
    return fl.Sequential(fl.LSTM(1, HIDDEN, rng=rng), fl.Linear(HIDDEN, fc.HORIZONS, rng=rng))


def draw_batch(values, scaling, rng):
    """Random windows of `values`: inputs (T, B, 1) and the changes to forecast (T, B, 12)."""
    length = WINDOW + fc.HORIZONS
    starts = rng.integers(0, len(values) - length + 1, BATCH)
    chunk = np.stack([values[start : start + length] for start in starts], axis=1)
    z = scaling.forward(chunk * np.exp(rng.normal(0.0, GAIN, BATCH)))
    now = z[:WINDOW]
    ahead = np.stack([z[h : h + WINDOW] for h in range(1, fc.HORIZONS + 1)], axis=2)
    noisy = now + rng.normal(0.0, NOISE, now.shape)
    return noisy[:, :, None].astype(np.float32), (ahead - now[:, :, None]).astype(np.float32)


def train_step(model, optimizer, x, target):
    """One forward, one backward, one update. Returns the loss."""
    y, _, cache = model.forward(x, cache=True)
    loss, dy_scored = fl.losses.mse(y[WARM_UP:], target[WARM_UP:])
    dy = np.zeros_like(y)
    dy[WARM_UP:] = dy_scored
    _, _, grads = model.backward(dy, cache)
    fl.clip_grad_norm(grads, 1.0)
    optimizer.step(grads)
    return float(loss)


def evaluate(model, scaling, values, first, spread_until):
    """Mean RMSE over all horizons on the months from index `first` on, and the scaling with its spread."""
    roots = fc.forecast(model, scaling, values)
    scaling = scaling.with_spread(roots[:spread_until], values[:spread_until])
    numbers = scaling.numbers(roots)
    errors = [fc.score(numbers, values, h, first, len(values)).rmse for h in range(1, fc.HORIZONS + 1)]
    return float(np.mean(errors)), scaling


def train(values, validation, epochs, seed):
    """Fit on values[:validation], choose the epoch on the rest. Returns (model, scaling, epoch)."""
    scaling = fc.Scaling.fit(values[:validation])
    model, best_model = build(seed), build(seed)
    optimizer = fl.optim.Adam(model, lr=LEARNING_RATE)
    rng = np.random.default_rng(seed + 1)
    mean = {name: weight.copy() for name, weight in model.state_dict().items()}
    best = (np.inf, None, scaling, 0)
    with Progress(epochs * STEPS, "training") as bar:
        for epoch in range(epochs):
            losses = []
            for step in range(STEPS):
                done = (epoch * STEPS + step) / (epochs * STEPS)
                optimizer.lr = LEARNING_RATE * (0.01 + 0.5 * (1 + np.cos(np.pi * done)))
                losses.append(train_step(model, optimizer, *draw_batch(values[:validation], scaling, rng)))
                for name, weight in model.state_dict().items():
                    mean[name] = AVERAGE * mean[name] + (1 - AVERAGE) * weight
                bar.advance()
            best_model.load_state_dict(mean)
            rmse, fitted = evaluate(best_model, scaling, values, validation, validation)
            bar.clear()
            star = " *" if rmse < best[0] else ""
            loss = f"loss {np.mean(losses):.4f}"
            print(f"epoch {epoch + 1:3}  {loss}  validation RMSE {rmse:6.2f}{star}", flush=True)
            if rmse < best[0]:
                best = (rmse, dict(mean), fitted, epoch + 1)
    best_model.load_state_dict(best[1])
    return best_model, best[2], best[3]


def describe(scaling, seed, epoch):
    """The metadata saved with the model: what it is, and what is needed to use and to repeat it."""
    return {
        "description": "monthly sunspot number -> change of its scaled value over the next 1..12 months",
        "scaling": scaling.to_text(),
        "trained_on": f"1749-01 up to, not including, {fc.VALIDATION_FROM}",
        "chosen_on": f"{fc.VALIDATION_FROM} up to, not including, {fc.HELD_OUT_FROM}",
        "made_by": f"examples/train_sunspots.py --seed {seed}, epoch {epoch}",
    }


def main():
    """Train, save, and show the held-out months once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=BUNDLED, help="where to save it (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.epochs < 1:
        parser.error(f"--epochs must be at least 1, got {arguments.epochs}")

    months, values = fc.load_series()
    validation = fc.month_index(months, fc.VALIDATION_FROM)
    held_out = fc.month_index(months, fc.HELD_OUT_FROM)
    start = time.perf_counter()
    model, scaling, epoch = train(values[:held_out], validation, arguments.epochs, arguments.seed)
    model.save(arguments.out, metadata=describe(scaling, arguments.seed, epoch))
    print(f"kept epoch {epoch} after {time.perf_counter() - start:.1f} s; saved {arguments.out}\n")
    methods = {"LSTM": scaling.numbers(fc.forecast(model, scaling, values)), **fc.baselines(values, held_out)}
    print(f"held-out months, {fc.HELD_OUT_FROM} to {months[-1]}")
    print(fc.score_table(methods, values, held_out, len(values)))


if __name__ == "__main__":
    main()
