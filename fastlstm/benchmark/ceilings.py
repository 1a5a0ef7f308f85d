"""What this machine can do at best, measured with the engine's own instruction set; and what that means for a case.

Roofline of a case: ``max(flops / peak, bytes / rate)``, the rate being that at which a working set as large as the
weights that are read again (`case.Case.held`) is read: it is measured for sets from the smallest cache to the main
memory, and taken between them. A rate for each cache would not do: how much of a shared cache one process is left with
is told by no system. No call can be faster than its roofline, but for the error of the measurement; 1.0 is unreachable
where bytes and operations do not overlap fully.
"""

import math
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from fastlstm import _core

LEVELS = ("L1", "L2", "L3", "DRAM")
DTYPES = ("float32", "float64")
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
    reading: threads -> list of (bytes of the working set, bytes/s), the smallest set first;
    typical: (dtype, threads), and (bytes, threads) of every working set -> median of the readings.
    """

    sizes: dict
    guessed: list
    peak: dict
    reading: dict
    typical: dict

    def level_of(self, nbytes, threads):
        """The first level that holds so many bytes; each thread brings its core's L1 and L2."""
        for level in LEVELS[:-1]:
            cores = 1 if level == "L3" else threads
            if nbytes <= self.sizes[level] * cores:
                return level
        return LEVELS[-1]

    def rate(self, nbytes, threads):
        """Bytes/s at which a working set of so many bytes is read again and again.

        Between two measured sets the rate follows a straight line over the logarithms of both. A set can be read as
        fast as any larger one, so a reading that a neighbour has slowed down is replaced by the best of larger sets.
        """
        sets, rates = map(list, zip(*self.reading[threads], strict=True))
        rates = np.maximum.accumulate(rates[::-1])[::-1]
        return float(np.exp(np.interp(math.log(max(nbytes, 1)), np.log(sets), np.log(rates))))

    @property
    def bandwidth(self):
        """(level, threads) -> bytes/s of a set that fits into the level and not into the one before, to be shown."""
        return {
            (level, n): self.rate(nbytes, n)
            for n in self.reading for level, nbytes in level_sets(self.sizes, n).items()
        }

    def roofline(self, case, threads):
        """The Roofline of a case. Its weights are read as fast as a working set of their size."""
        compute = case.flops / self.peak[case.dtype, threads]
        read = case.bytes / self.rate(case.held, threads)
        return Roofline(compute, "fma") if compute >= read else Roofline(read, self.level_of(case.held, threads))


def level_sets(sizes, threads):
    """Level -> bytes of a working set that stays in it, and in none before it.

    Of the L3 it is the mean, on a logarithmic scale, between all L2 and the whole L3: of an L3 that other programs or
    other guests of the machine use too, half its size may be more than this process is left with.
    """
    below, l3 = threads * sizes["L2"], sizes["L3"]
    l3_set = max(round(math.sqrt(below * l3)), min(2 * below, int(0.8 * l3)))
    return {
        "L1": threads * sizes["L1"] // 2, "L2": below // 2, "L3": l3_set, "DRAM": max(min(4 * l3, MOST), l3_set),
    }


def working_sets(sizes, threads):
    """Bytes of the sets whose reading is measured: from half of all L1 to the main memory, each 1.4 times the last."""
    first, last = (level_sets(sizes, threads)[level] for level in ("L1", "DRAM"))
    count = 1 + math.ceil(2 * math.log2(last / first))
    unit = 1024 * threads  # every thread reads whole vectors, eight at a time
    return [max(1, round(nbytes / unit)) * unit for nbytes in np.geomspace(first, last, count).tolist()]


class Readings:
    """The readings of this machine's rates for 1 and for `threads` threads; each `take` adds some.

    The readings take turns, so that a change of the clock meets all of them; the best one counts, as fits a ceiling.
    """

    def __init__(self, threads=1):
        self.sizes, self.guessed = cache_sizes()
        counts = sorted({1, threads})
        memory = np.ones(max(max(working_sets(self.sizes, n)) for n in counts) // 4, np.float32)
        self._rates = {}  # (dtype or bytes, threads) -> (function that works and returns how much, its rates)
        for n in counts:
            for dtype in DTYPES:
                self._rates[dtype, n] = _fma(dtype, n), []
            for nbytes in working_sets(self.sizes, n):
                self._rates[nbytes, n] = _read(memory[: nbytes // 4], n), []

    def take(self, rounds):
        """Read every rate so often again; returns the `Ceilings` by all readings so far."""
        for _ in range(rounds):
            for work, rates in self._rates.values():
                start = time.perf_counter()
                amount = work()
                rates.append(amount / (time.perf_counter() - start))
        best = {key: max(rates) for key, (_, rates) in self._rates.items()}
        reading = {n: [(of, rate) for (of, m), rate in best.items() if m == n and of not in DTYPES] for _, n in best}
        return Ceilings(
            self.sizes, self.guessed, {key: rate for key, rate in best.items() if key[0] in DTYPES}, reading,
            {key: median(rates) for key, (_, rates) in self._rates.items()},
        )


def measure(threads=1, rounds=ROUNDS):
    """The `Ceilings` for 1 and for `threads` threads, in about a second."""
    return Readings(threads).take(rounds)


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
