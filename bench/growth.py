"""How time and scratch memory grow with the length of a sequence and with the batch.

    python bench/growth.py [--hidden N] [--threads N] [--rounds N] [--json FILE]

Time must grow linearly: the exponent is the slope of a line through the logarithms of the larger sizes, 1.00 when
twice the work takes twice as long. Scratch memory is what the plan of the call says; beyond one chunk it must
not depend on the length at all, which the last line looks at for very long sequences.
"""

import argparse
import json

import numpy as np

import fastlstm as fl
from fastlstm.benchmark.contestants import Entry
from fastlstm.benchmark.measure import Watch, time_case
from fastlstm.benchmark.problem import Call

LENGTHS = (25, 50, 100, 200, 400, 800, 1600)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
STEPS = 20  # of the calls whose batch grows
LONG = (1_000, 10_000, 100_000)


def entry(layer, steps, batch, threads):
    x = np.random.default_rng(0).standard_normal((steps, batch, layer.input_size)).astype(np.float32)
    layer(x)
    return Entry(f"T{steps} B{batch}", Call(lambda: layer(x), None), threads)


def series(layer, sizes, threads, rounds):
    """Rows of one series: T, B, microseconds, bytes of scratch memory. sizes: pairs (T, B)."""
    timings = time_case([entry(layer, *size, threads) for size in sizes], rounds)
    return [
        {"steps": t, "batch": b, "us": timing.median * 1e6, "workspace_bytes": layer.plan(t, b).workspace_bytes}
        for (t, b), timing in zip(sizes, timings.values(), strict=True)
    ]


def exponent(rows, key):
    """Slope of log(time) over log(size), by least squares over the larger half of the sizes."""
    rows = rows[len(rows) // 2 :]
    slope, _ = np.polyfit(np.log([row[key] for row in rows]), np.log([row["us"] for row in rows]), 1)
    return float(slope)


def line(rows, key):
    """(microseconds per unit, fixed microseconds, largest relative distance from that line); weighted relatively."""
    size, time = (np.array([row[k] for row in rows], float) for k in (key, "us"))
    slope, start = np.polyfit(size, time, 1, w=1 / time)
    return float(slope), float(start), float(np.abs((slope * size + start) / time - 1).max())


def show(title, rows, key):
    print(f"\n{title}")
    print(f"{'T':>8}{'B':>6}{'us':>14}{'us per row step':>18}{'scratch bytes':>16}")
    for row in rows:
        each = row["us"] / row["steps"] / row["batch"]
        print(f"{row['steps']:>8}{row['batch']:>6}{row['us']:>14,.1f}{each:>18.3f}{row['workspace_bytes']:>16,}")
    slope, start, off = line(rows, key)
    letter = "T" if key == "steps" else "B"
    print(f"time = {start:.1f} + {slope:.3f} {letter} us, at most {off:.0%} off; exponent {exponent(rows, key):.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    layer = fl.LSTM(given.hidden, given.hidden, rng=0, num_threads=given.threads)
    threads = f"{given.threads} thread{'s' if given.threads > 1 else ''}"
    print(f"{fl.isa()}, H{given.hidden}, at most {threads}; {layer._packed().nbytes:,} bytes of packed weights")
    watch, found = Watch(), {}
    for name, key, sizes in (
        ("longer sequences of one row", "steps", [(t, 1) for t in LENGTHS]),
        ("longer sequences of 8 rows", "steps", [(t, 8) for t in LENGTHS[:-1]]),
        (f"larger batches, {STEPS} steps", "batch", [(STEPS, b) for b in BATCHES]),
    ):
        found[name] = series(layer, sizes, given.threads, given.rounds)
        show(name, found[name], key)
    scratch = {t: layer.plan(t, 1).workspace_bytes for t in LONG}
    verdict = "the same" if scratch[LONG[-1]] == scratch[LONG[0]] else "NOT the same"
    sizes = ", ".join(f"{t:,} steps: {n:,} bytes" for t, n in scratch.items())
    print(f"\nscratch of one row over {sizes}: {verdict}")
    for words in watch.notes():
        print(f"! {words}")
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump({"series": found, "long": scratch}, file, indent=1)


if __name__ == "__main__":
    main()
