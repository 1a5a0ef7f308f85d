"""The adding problem of Hochreiter & Schmidhuber (1997, experiment 4), with their network and their rules.

    python examples/adding_problem.py                        # ten seeds, one after the other: minutes each
    python examples/adding_problem.py --loss cross-entropy   # with a loss that needs fewer sequences
    python examples/adding_problem.py --quick                # one seed until it adds roughly: seconds

Two of 100 to 110 pairs (value, marker) are marked, one of the first ten and one of the first half; at
the end, and only there, the network must say the sum of their values. One update per sequence.
Rules and results: docs/experiments.md.
"""

import argparse
import time

import numpy as np

import fastlstm as fl
from fastlstm._progress import Progress

RATE = 0.5
CORRECT = 0.04  # a sequence is processed correctly if the error at its end is smaller
MEAN, RECENT = 0.01, 2000  # success: so many correct in a row, their mean error below MEAN
TEST = 2560
QUICK, QUICK_LIMIT = 0.04, 100_000  # --quick: the mean error to reach; always answering 0.5 gives 0.16
PAPER = {100: 74_000, 500: 209_000, 1000: 853_000}  # sequences, mean of ten trials


def draw(steps, rng):
    """One sequence, (T, 1, 2) with T from `steps` to 1.1 `steps`, and its target."""
    x = np.zeros((rng.integers(steps, steps + steps // 10 + 1), 1, 2))
    x[:, 0, 0] = rng.uniform(-1, 1, len(x))
    first, second = rng.integers((10, steps // 2 - 1)).tolist()
    second += second >= first  # counted among the pairs not marked yet
    x[0, 0, 1] = x[-1, 0, 1] = -1
    x[first, 0, 1] = x[second, 0, 1] = 1
    if first == 0 or second == 0:
        x[0, 0, 0] = 0
    return x, 0.5 + (x[first, 0, 0] + x[second, 0, 0]) / 4


def build(rng):
    """Two blocks of two cells, fully connected with their gates, one output unit: 93 weights."""
    model = fl.Sequential(
        fl.LSTM1997(2, 4, block_size=2, dtype="float64"),
        fl.Linear(4, 1, activation="sigmoid", dtype="float64"),
    )
    weights = {name: rng.uniform(-0.1, 0.1, weight.shape) for name, weight in model.state_dict().items()}
    weights["0.bias_ih_l0"][4:6] = -3, -6  # behind the cells' come the two input gates'
    model.load_state_dict(weights)
    return model


def learn(model, optimizer, x, target, loss):
    """One sequence forward and back, one update. Returns the absolute error."""
    y, _, cache = model.forward(x, cache=True)
    error = y[-1, 0, 0] - target
    dy = np.zeros_like(y)
    dy[-1] = error  # of half the squared error
    if loss == "cross-entropy":
        dy[-1] /= y[-1] * (1 - y[-1])
    _, _, grads = model.backward(dy, cache, input_gradient=False)
    optimizer.step(grads)
    return abs(error)


def train(model, rng, arguments, label):
    """Sequences needed, or None at the limit."""
    optimizer = fl.optim.SGD(model, lr=RATE)
    errors, streak = np.ones(RECENT), 0
    with Progress(arguments.limit, label) as bar:
        for done in range(1, arguments.limit + 1):
            error = learn(model, optimizer, *draw(arguments.steps, rng), arguments.loss)
            errors[done % RECENT] = error
            streak = streak + 1 if error < CORRECT else 0
            if streak >= RECENT and errors.mean() < MEAN:
                return done
            if done % 100 == 0:
                mean = errors.mean()
                bar.advance(100, f"error {mean:.4f}, {streak} correct")
                if arguments.quick and mean < QUICK:
                    return done
    return None


def test(model, steps, rng):
    """Mean error of new sequences, all in one call, and how many are wrong."""
    x, lengths, targets = np.zeros((steps + steps // 10, TEST, 2)), np.zeros(TEST, int), np.zeros(TEST)
    for row in range(TEST):
        one, targets[row] = draw(steps, rng)
        lengths[row] = len(one)
        x[: len(one), row] = one[:, 0]
    y, _ = model(x, lengths=lengths)
    errors = abs(y[lengths - 1, range(TEST), 0] - targets)
    return errors.mean(), int((errors >= CORRECT).sum())


def main():
    """Train one network per seed; a table beside the paper's number."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=range(10))
    parser.add_argument("--steps", type=int, default=100, help="the shortest sequence (paper: 100, 500, 1000)")
    parser.add_argument("--limit", type=int, default=2_000_000, help="give up after so many sequences")
    parser.add_argument("--loss", choices=("squared", "cross-entropy"), default="squared", help="(paper: squared)")
    parser.add_argument("--quick", action="store_true", help=f"seed 0, until the mean error is below {QUICK}")
    arguments = parser.parse_args()
    if arguments.steps < 20 or arguments.limit < 1:
        parser.error("--steps must be at least 20 and --limit at least 1")
    paper = PAPER.get(arguments.steps, "")
    if arguments.quick:
        arguments.seeds, arguments.limit, paper = [0], QUICK_LIMIT, ""

    print(f"{'seed':>5}{'sequences':>11}{'paper':>9}{'test error':>12}{f'wrong of {TEST}':>15}{'seconds':>9}")
    counts = []
    for seed in arguments.seeds:
        rng, start = np.random.default_rng(seed), time.perf_counter()
        model = build(rng)
        count = train(model, rng, arguments, f"seed {seed}")
        error, wrong = test(model, arguments.steps, rng)
        seconds = time.perf_counter() - start
        print(f"{seed:>5}{count or 'none':>11}{paper:>9}{error:>12.4f}{wrong:>15}{seconds:>9.1f}", flush=True)
        counts += [count] if count else []
    mean = f", after {np.mean(counts):,.0f} sequences on average" if counts else ""
    print(f"{len(counts)} of {len(arguments.seeds)} succeeded{mean}")
    if len(counts) < 0.8 * len(arguments.seeds):
        raise SystemExit("fewer than eight in ten")


if __name__ == "__main__":
    main()
