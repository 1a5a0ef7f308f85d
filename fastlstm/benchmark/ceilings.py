"""What this machine can do at best, measured with the engine's own instruction set; and what that means for a case.

Roofline of a case: ``max(flops / peak, bytes / bandwidth)``, the bandwidth being that of the first cache that holds the
weights that are read again (`cases.Case.held`). No call can be faster than its roofline, but for the error of the
measurement; 1.0 is unreachable where bytes and operations do not overlap fully.
"""

import math
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from fastlstm import _core

LEVELS = ("L1", "L2", "L3", "DRAM")
DEFAULT_SIZES = {"L1": 32 << 10, "L2": 1 << 20, "L3": 16 << 20}  # where the system does not tell
MOST = 192 << 20  # bytes read to see the main memory; larger caches than this hide it
ROUNDS = 7
ONE_READING = 0.001  # seconds


def cache_sizes(folder="/sys/devices/system/cpu/cpu0/cache"):
    """Level -> bytes: L1 (data) and L2 of one core, the L3 that cores share; and the levels that had to be guessed."""
    found = {}
    for index in Path(folder).glob("index*"):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
            number = int(size.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}.get(size[-1], 0)
        except (OSError, ValueError):
            continue
        if kind != "Instruction":
            found[f"L{level}"] = number
    guessed = [level for level in DEFAULT_SIZES if level not in found]
    return {level: found.get(level, DEFAULT_SIZES[level]) for level in DEFAULT_SIZES}, guessed


class Roofline(NamedTuple):
    """seconds a case takes at least; bound: "fma", or the level whose bandwidth is the limit."""

    seconds: float
    bound: str


class Ceilings(NamedTuple):
    """What the machine can do; the best readings.

    sizes: level -> bytes; guessed: levels whose size is a default. peak: (dtype, threads) -> flop/s;
    bandwidth: (level, threads) -> bytes/s; typical: the keys of both -> median of the readings.
    """

    sizes: dict
    guessed: list
    peak: dict
    bandwidth: dict
    typical: dict

    def level_of(self, nbytes, threads):
        """The first level that holds so many bytes; each thread brings its core's L1 and L2."""
        for level in LEVELS[:-1]:
            cores = 1 if level == "L3" else threads
            if nbytes <= self.sizes[level] * cores:
                return level
        return LEVELS[-1]

    def roofline(self, case, threads):
        """The Roofline of a case."""
        level = self.level_of(case.held, threads)
        compute = case.flops / self.peak[case.dtype, threads]
        read = case.bytes / self.bandwidth[level, threads]
        return Roofline(compute, "fma") if compute >= read else Roofline(read, level)


def working_sets(sizes, threads):
    """Level -> bytes to read that stay in it, and in none before it."""
    l3 = max(sizes["L3"] // 2, min(2 * threads * sizes["L2"], int(0.8 * sizes["L3"])))
    dram = min(4 * sizes["L3"], MOST)
    return {"L1": threads * sizes["L1"] // 2, "L2": threads * sizes["L2"] // 2, "L3": l3, "DRAM": max(dram, l3)}


def measure(threads=1, rounds=ROUNDS):
    """The `Ceilings` for 1 and for `threads` threads, in about a second.

    The readings take turns, so that a change of the clock meets all of them; the best one counts, as fits a ceiling.
    """
    sizes, guessed = cache_sizes()
    counts = sorted({1, threads})
    memory = np.ones(max(max(working_sets(sizes, n).values()) for n in counts) // 4, np.float32)
    readings = {}  # key -> (function that does the work and returns how much it was, its list of rates)
    for n in counts:
        for dtype in ("float32", "float64"):
            readings[dtype, n] = _fma(dtype, n), []
        for level, nbytes in working_sets(sizes, n).items():
            readings[level, n] = _read(memory[: nbytes // 4], n), []
    for _ in range(rounds):
        for work, rates in readings.values():
            start = time.perf_counter()
            amount = work()
            rates.append(amount / (time.perf_counter() - start))
    best = {key: max(rates) for key, (_, rates) in readings.items()}
    return Ceilings(
        sizes, guessed,
        {key: best[key] for key in readings if key[0] not in LEVELS},
        {key: best[key] for key in readings if key[0] in LEVELS},
        {key: median(rates) for key, (_, rates) in readings.items()},
    )


def calls_for(seconds, work):
    """The n for which work(n) takes about so long; the fastest of several trials: neighbours only make it slower."""
    n = 1
    while True:
        best = math.inf
        for _ in range(3):
            start = time.perf_counter()
            work(n)
            best = min(best, time.perf_counter() - start)
        if best >= seconds / 2:
            return max(1, int(n * seconds / best))
        n *= 2


def rounds_for(seconds, dtype="float32"):
    """Rounds of `_core.probe_fma` that take so long, on one thread or on several at a time."""
    return calls_for(seconds, lambda n: _core.probe_fma(dtype, n, 1))


def _fma(dtype, threads):
    rounds = rounds_for(ONE_READING, dtype)
    return lambda: _core.probe_fma(dtype, rounds, threads)


def _read(data, threads):
    # Found by one thread on its share, so that nobody is waited for.
    passes = calls_for(ONE_READING, lambda n: _core.probe_read(data[: len(data) // threads], n, 1))

    def read():
        _core.probe_read(data, passes, threads)
        return passes * data.nbytes

    return read
