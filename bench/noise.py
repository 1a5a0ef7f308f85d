"""Teams whose workers lose time at random: do they hold while they are ahead, and is no more lost than must be?

    python bench/noise.py [--workers 2,4,8,16] [--steps N] [--seeds N] [--layer] [--json FILE]

A worker that loses 0.1 to 5 ms in a step delays its whole team by that, since all meet at the step's end. So the least
that can be lost is the sum over steps of the largest delay, and a team should lose little more. It should not be halved
while it is faster than one thread (a larger one: than four).

Workers sleep for their share of a step instead of computing, so teams of any size can be looked at on any machine; the
delays are the same for every run of a seed. --layer: a real layer instead, with as many workers as there are
processors.
"""

import argparse
import json
import time

import numpy as np

import fastlstm as fl
from fastlstm import _core

DELAYS_MS = 0.1, 5.0  # log-uniform in between


def delays_us(rng, steps, workers, share):
    """(steps, workers): in a share of the steps one worker, any of them, loses time."""
    delays = np.zeros((steps, workers), np.int32)
    hit = np.flatnonzero(rng.random(steps) < share)
    low, high = np.log(DELAYS_MS)
    delays[hit, rng.integers(workers, size=len(hit))] = 1e3 * np.exp(rng.uniform(low, high, len(hit)))
    return delays


def rehearsed(workers, steps, one_us, delays):
    """(time of all steps in us, workers after each) of a team that sleeps."""
    with _core.Disturbance(delays):
        step_us, sizes = _core.rehearse(workers, steps, one_us)
    return step_us.sum(), sizes


def row(workers, steps, one_us, share, seed):
    """What a team loses to delays, beside the same team without any."""
    delays = delays_us(np.random.default_rng(seed), steps, workers, share)
    quiet, _ = rehearsed(workers, steps, one_us, np.zeros_like(delays))
    noisy, sizes = rehearsed(workers, steps, one_us, delays)
    least = float(delays.max(axis=1).sum())
    return {
        "workers": workers, "share": share, "seed": seed, "one_thread_ms": one_us * steps / 1e3,
        "quiet_ms": quiet / 1e3, "noisy_ms": noisy / 1e3, "least_ms": least / 1e3,
        "lost_over_least": (noisy - quiet) / least if least else 1.0,
        "ahead": bool(quiet + least < one_us * steps * min(1.0, 4 / workers)), "at_last": int(sizes[-1]),
    }


def layer_row(steps, share, seed):
    """The same of an LSTM that shares its blocks: one call with delays between calls without."""
    workers = fl.get_num_threads()
    layer = fl.LSTM(256, 256, rng=0, num_threads=workers)
    x = np.zeros((steps, 4, 256), np.float32)
    plan = layer.plan(*x.shape[:2])
    delays = delays_us(np.random.default_rng(seed), steps, plan.threads, share)
    times = []
    for turn in range(7):
        noisy = turn % 2 == 1
        with _core.Disturbance(delays if noisy else np.zeros_like(delays)):
            start = time.perf_counter()
            layer(x)
            times.append((noisy, time.perf_counter() - start))
    quiet = np.median([t for noisy, t in times if not noisy]) * 1e3
    loud = np.median([t for noisy, t in times if noisy]) * 1e3
    least = float(delays.max(axis=1).sum()) / 1e3
    return {
        "workers": plan.threads, "share": share, "seed": seed, "one_thread_ms": plan.work_ns / 1e6, "quiet_ms": quiet,
        "noisy_ms": loud, "least_ms": least, "lost_over_least": (loud - quiet) / least if least else 1.0,
        "ahead": bool(quiet + least < plan.work_ns / 1e6 * min(1.0, 4 / plan.threads)), "at_last": 0,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", default="2,4,8,16", metavar="N,N")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--one-us", type=float, default=4000.0, metavar="US", help="of one thread's work in a step")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--layer", action="store_true", help="a real layer instead of workers that sleep")
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    counts = [int(word) for word in given.workers.split(",")]
    print(f"{'workers':>8}{'delayed':>9}{'one ms':>9}{'quiet ms':>10}{'noisy ms':>10}{'least ms':>10}"
          f"{'lost/least':>12}{'ahead':>7}{'at last':>9}")
    rows = []
    for workers in [0] if given.layer else counts:
        for share in (0.02, 0.1, 0.3):
            for seed in range(given.seeds):
                one = layer_row(given.steps, share, seed) if given.layer else row(
                    workers, given.steps, given.one_us, share, seed)
                rows.append(one)
                print(f"{one['workers']:>8}{share:>9.0%}{one['one_thread_ms']:>9.0f}{one['quiet_ms']:>10.1f}"
                      f"{one['noisy_ms']:>10.1f}{one['least_ms']:>10.1f}{one['lost_over_least']:>12.2f}"
                      f"{'yes' if one['ahead'] else 'no':>7}{one['at_last'] or '':>9}", flush=True)
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump({"rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
