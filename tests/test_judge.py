"""The rule by which a team is halved that is not faster than one thread, and what is remembered from call to call."""

import numpy as np
import pytest

from fastlstm import _core

# name: (workers, us of one thread's work a step, us that the steps took, (step, workers after it) of each halving)
REPLAYS = {
    "a quiet team of 16": (16, 450, [47] * 50, []),
    "one delay of 6 ms": (16, 450, [47] * 10 + [6000] + [47] * 39, []),
    "1.5 ms at every fifth step": (16, 450, ([47] * 4 + [1500]) * 10, []),
    "1.5 ms at every second step": (16, 450, [47, 1500] * 25, [(26, 8)]),
    "a busy neighbour": (16, 450, [135] * 50, [(30, 8)]),
    "a time slice at every step, 16 workers": (16, 450, [3000] * 50, [(6, 8), (12, 4), (18, 2), (24, 1)]),
    "a time slice at every step, 2 workers": (2, 450, [3000] * 50, [(6, 1)]),
    "4 workers on 2 cores": (4, 450, [210] * 50, []),
    "as fast as one": (2, 450, [445] * 500, []),
    "a tenth slower than one": (2, 450, [495] * 500, [(60, 1)]),
    "faster than one": (2, 450, [260] * 500, []),
    "planned at half of the true time": (2, 225, [260] * 50, [(39, 1)]),
    "short steps, 1 ms at every twentieth": (2, 2.7, ([1.6] * 19 + [1000]) * 50, [(228, 1)]),
    "short steps, one delay of 1 ms": (2, 2.7, [1.6] * 300 + [1000] + [1.6] * 699, []),
}


@pytest.mark.parametrize("name", REPLAYS)
def test_the_rule(name):
    workers, one_us, steps_us, halvings = REPLAYS[name]
    assert _core.judge_replay(workers, one_us, steps_us) == halvings


def independent(workers, one_us, steps_us):
    """The rule once more, in words of its own."""
    halvings, excess, spent, work = [], 0.0, 0.0, 0.0
    for step, us in enumerate(steps_us, 1):
        spent, work = spent + us, work + one_us
        if workers == 1 or work < 100:
            continue
        ratio = spent / (work * min(1, 4 / workers))
        excess = max(0.0, excess + min(ratio, 2.0) - 1)
        spent = work = 0.0
        if excess >= 6 - 1e-9:
            workers, excess = max(1, workers // 2), 0.0
            halvings.append((step, workers))
    return halvings


@pytest.mark.parametrize("seed", range(30))
def test_the_rule_on_random_steps(seed):
    rng = np.random.default_rng(seed)
    workers, one_us = int(rng.integers(2, 65)), float(rng.choice([0.7, 9, 80, 450]))
    ideal = one_us * min(1, 4 / workers)
    steps_us = ideal * rng.lognormal(rng.uniform(-1, 1), 1.2, 3000)
    assert _core.judge_replay(workers, one_us, steps_us) == independent(workers, one_us, steps_us)
