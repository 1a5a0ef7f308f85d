"""Slots of time.

The clock of a shared or warm processor wanders by tens of per cent within milliseconds, and other systems' workers go
on spinning after a call. So the contestants of a case take turns in slots of at least 10 ms; their order rotates;
before a slot the process must be idle; contestants with several threads first run for as long as a slot takes,
untimed; and a short arithmetic probe on the cores in use, before and after, tells whether the
slot was disturbed. A disturbed slot is taken again, at most twice, when all others are through. The median of the
undisturbed slots counts; but all contestants of a case are judged by the same kind of slots, so when one of them had
none undisturbed, every slot of everybody counts.
"""

import math
import os
import threading
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from fastlstm import _core

from .ceilings import rounds_for

SLOT = 0.010  # seconds
CASE = 20.0  # seconds a case may take; with slow contestants it gets fewer rounds
LEAST_ROUNDS = 3
AGAIN = 2  # times that a disturbed slot is taken again, at most
PROBE = 0.00008
IDLE_LIMIT = 0.150  # seconds to wait; the workers of one system spin for 40 ms
IDLE_LOOK, IDLE_SHARE = 0.0003, 0.3  # seconds between looks; share of one core that counts as idle (the waiting itself)
TICK = 0.012  # seconds over which processor time tells whether somebody works: systems count it in steps of 1 to 10 ms
SLOWED = 0.85  # a probe below this share of the case's good probes marks its slot as disturbed
GOOD = 0.9  # the quantile of the probes that stands for "undisturbed"
ON_CORE = 0.95  # a call of one thread that had less processor time than this was put aside for somebody else
SPARE_CORES = 0.2  # processor time beyond the threads asked for, in cores


class Slot(NamedTuple):
    """seconds per call; probe: share of the good rate, the worse of before and after; cores: processor time / time.

    clean: nothing disturbed it, so far as one can see: idle before, probes good, and never put aside.
    """

    seconds: float
    probe: float
    cores: float
    idle: bool
    clean: bool = False


class Timing(NamedTuple):
    """What the slots of one contestant say, in seconds per call.

    median, and quartiles low and high; clean: how many undisturbed slots they stand on, 0 when they stand on all.
    probe_rate: flop/s of the probe, median; cores: median of the slots. again: how many slots more were taken, because
    some were disturbed.
    """

    median: float
    low: float
    high: float
    clean: int
    cores: float
    probe_rate: float
    slots: list
    again: int = 0

    @property
    def spread(self):
        """Width between the quartiles, relative to the median."""
        return (self.high - self.low) / self.median


class Prober:
    """The arithmetic probe: about 0.08 ms on each of some threads."""

    def __init__(self):
        self._rounds = rounds_for(PROBE)

    def rate(self, threads):
        """flop/s right now."""
        _core.probe_fma("float32", 1, threads)  # wakes the team
        start = time.perf_counter()
        flops = _core.probe_fma("float32", self._rounds, threads)
        return flops / (time.perf_counter() - start)


def others_running():
    """Threads of this process, but for the calling one, that run or want to; None where the system does not tell."""
    own, found = threading.get_native_id(), 0
    try:
        for name in os.listdir("/proc/self/task"):
            if int(name) != own:
                with open(f"/proc/self/task/{name}/stat", encoding="ascii", errors="replace") as file:
                    found += file.read().rpartition(")")[2].split()[0] == "R"
    except (OSError, ValueError, IndexError):  # no such folder, or a thread that has just ended
        return None
    return found


def _is_idle():
    found = others_running()
    if found is not None:
        time.sleep(IDLE_LOOK)
        return found == 0 and others_running() == 0  # those that wake each other are asleep for a moment too
    busy, start = time.process_time(), time.perf_counter()
    time.sleep(TICK)
    return time.process_time() - busy < IDLE_SHARE * (time.perf_counter() - start)


def wait_until_idle():
    """Wait, 150 ms at most, until no other thread of this process works. Returns whether it came to that."""
    end = time.perf_counter() + IDLE_LIMIT
    while not _is_idle():
        if time.perf_counter() > end:
            return False
    return True


def _slot(entry, repeats, prober):
    """A Slot whose probe is still a rate; `_timing` puts it in relation once all are known."""
    run = entry.call.run
    idle = wait_until_idle()
    before = prober.rate(entry.threads)
    # Weights come back into the cache; workers wake, and the system finds each a processor, which takes it a while.
    for _ in range(repeats if entry.threads > 1 else min(repeats - 1, 1)):
        run()
    busy, start = time.process_time(), time.perf_counter()
    for _ in range(repeats):
        run()
    taken = time.perf_counter() - start
    cores = (time.process_time() - busy) / taken
    return Slot(taken / repeats, min(before, prober.rate(entry.threads)), cores, idle)


def _repeats(entry):
    """Calls that fill a slot."""
    start, calls = time.perf_counter(), 0
    while (taken := time.perf_counter() - start) < SLOT / 5:
        entry.call.run()
        calls += 1
    return max(1, math.ceil(SLOT * calls / taken))


def time_case(entries, rounds, prober=None, tick=None, seconds=CASE):
    """Name -> `Timing` of the contestants of a case. tick: called after every round.

    seconds: what the case may take. By the time of the rounds so far it gets fewer of them, but three, and once so much
    time is used disturbed slots are not taken again.

    Every contestant has run once before (`contestants.field` compares the results).
    """
    prober = prober or Prober()
    repeats = [_repeats(entry) for entry in entries]
    slots = [[] for _ in entries]
    start = time.perf_counter()
    for turn in range(rounds):
        for k in np.roll(np.arange(len(entries)), -turn):
            slots[k].append(_slot(entries[k], repeats[k], prober))
        if tick:
            tick()
        used = time.perf_counter() - start
        if turn + 1 >= LEAST_ROUNDS and used * (turn + 2) / (turn + 1) > seconds:
            break
    again = _take_again(entries, slots, lambda k: _slot(entries[k], repeats[k], prober), start + seconds)
    rates = [median(slot.probe for slot in row) for row in slots]
    slots = _all_judged(entries, slots)
    by_clean = all(any(slot.clean for slot in row) for row in slots)
    return {
        e.name: _timing(row, rate, by_clean)._replace(again=more)
        for e, row, rate, more in zip(entries, slots, rates, again, strict=True)
    }


def _take_again(entries, slots, take, end):
    """Take the disturbed slots of all contestants again, `AGAIN` times at most, and none from the time `end` on.

    slots: a list for each contestant, changed: of the two the less disturbed one stays, whatever its time. take: gives
    a new slot of contestant k. Returns how many slots each contestant has taken again.
    """
    again = [0] * len(entries)
    for _ in range(AGAIN):
        judged = _all_judged(entries, slots)
        disturbed = [(turn, k) for turn in range(len(slots[0])) for k, row in enumerate(judged) if not row[turn].clean]
        good = _good_rates(entries, slots)
        for turn, k in disturbed:
            if time.perf_counter() >= end:
                return again
            pair = slots[k][turn], take(k)
            again[k] += 1
            threads = entries[k].threads
            slots[k][turn] = max(pair, key=lambda one: _rank(one, good[threads], threads))
    return again


def _good_rates(entries, slots):
    """Number of threads -> rate of the probe while nothing disturbs it: the same for all with as many threads."""
    return {
        n: np.quantile([s.probe for e, row in zip(entries, slots, strict=True) if e.threads == n for s in row], GOOD)
        for n in {entry.threads for entry in entries}
    }


def _all_judged(entries, slots):
    good = _good_rates(entries, slots)
    return [[_judged(slot, good[e.threads], e.threads) for slot in row] for e, row in zip(entries, slots, strict=True)]


def _judged(slot, good, threads):
    share = float(slot.probe / good)
    # Workers may sleep while they wait for each other, so with several threads processor time tells nothing.
    present = threads > 1 or slot.cores >= ON_CORE
    return slot._replace(probe=share, clean=slot.idle and present and share >= SLOWED)


def _rank(slot, good, threads):
    """The larger, the less disturbed: undisturbed at all, idle before, the rate of the probe."""
    judged = _judged(slot, good, threads)
    return judged.clean, judged.idle, judged.probe


def _timing(slots, rate, by_clean):
    chosen = [slot.seconds for slot in slots if slot.clean or not by_clean]
    low, middle, high = np.quantile(chosen, (0.25, 0.5, 0.75)).tolist()
    cores = median(slot.cores for slot in slots)
    return Timing(middle, low, high, len(chosen) if by_clean else 0, cores, rate, slots)


class Budget:
    """So many seconds for cases with these weights, from now on; what a case leaves goes to those after it."""

    def __init__(self, seconds, weights):
        self._end, self._weights = time.perf_counter() + seconds, list(weights)

    def share(self):
        """Seconds for the next case, at most `CASE`: its part of the time that is left; 0 when none is."""
        part = self._weights[0] / sum(self._weights)
        del self._weights[0]
        return min(CASE, part * max(0.0, self._end - time.perf_counter()))


class Watch:
    """What else went on: processors used by others, the machine's load, and the clock, from start to `notes`."""

    def __init__(self):
        self._start = self._reading()
        self._clock = clock_frequencies()

    @staticmethod
    def _reading():
        """(seconds, processor seconds of this process, of the whole machine or None)."""
        return time.perf_counter(), time.process_time(), _machine_busy()

    def others(self):
        """Cores that other processes, or a hypervisor's other guests, have used on average; None if unknown."""
        now = self._reading()
        wall, own, machine = (b - a if b is not None else None for a, b in zip(self._start, now, strict=True))
        return None if machine is None or wall < 0.2 else max(0.0, (machine - own) / wall)

    def notes(self):
        """Sentences about what makes the figures doubtful; [] after a quiet run."""
        found = []
        others = self.others()
        if others is not None and others > 0.05:
            found.append(f"other processes used {others:.2f} cores on average during the run")
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        if load > (os.cpu_count() or 1) + 0.5:
            found.append(f"load average {load:.1f} on {os.cpu_count()} processors at the end of the run")
        now = clock_frequencies()
        changed = [abs(b / a - 1) for a, b in zip(self._clock, now, strict=False)]
        if changed and max(changed) > 0.05:
            found.append(f"the clock of a processor changed by {max(changed):.0%} between start and end")
        return found


def _machine_busy():
    """Seconds that all processors together were not idle, or were taken by the hypervisor; None where not told."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            user, nice, system, _, _, irq, soft, steal = map(int, file.readline().split()[1:9])
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def clock_frequencies():
    """kHz of every processor, where the system tells; else []."""
    found = []
    for path in sorted(Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")):
        try:
            found.append(int(path.read_text()))
        except (OSError, ValueError):
            return []
    return found
