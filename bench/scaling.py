"""The same calls on 1, 2, 4, 8, 16 threads, inside one run, beside what the cores themselves gain.

    python bench/scaling.py [--threads 1,2,4,8] [--group a,b] [--peers torch,onnxruntime] [--rounds N] [--json FILE]

Meant for machines with many cores; `fastlstm bench --scaling` does it for one number of threads. The last row is the
arithmetic probe: operations in registers, no memory, no waiting for each other. What a case gains is to be judged
beside it, because cores that share their arithmetic units or a power limit cannot gain more. Peers run with the largest
number of threads. At the end: the cases that gain less than 0.85 of the probe, that are slower than with half of the
threads, and that are slower than the best peer. Five minutes on 16 cores:

    python bench/scaling.py --threads 1,2,4,8,16 --peers torch,onnxruntime --rounds 5
"""

import argparse
import json
from statistics import median

import fastlstm as fl
from fastlstm.benchmark.cases import GROUPS, Case, select
from fastlstm.benchmark.contestants import Entry, field, find_peers, is_own, own
from fastlstm.benchmark.measure import Watch, time_case
from fastlstm.benchmark.problem import Problem, has_cell

COUNTS = (1, 2, 4, 8, 16)
CASES = (
    Case("stream", "T100 B1 H64", 100, 1, 64, 64),
    Case("stream", "T100 B1 H256", 100, 1, 256, 256),
    Case("stream", "T100 B1 H1024", 100, 1, 1024, 1024),
    Case("small_batch", "T50 B8 H128", 50, 8, 128, 128),
    Case("small_batch", "T50 B8 H512", 50, 8, 512, 512),
    Case("throughput", "T50 B64 H128", 50, 64, 128, 128),
    Case("throughput", "T50 B64 H512", 50, 64, 512, 512),
    Case("train", "T50 B32 H128", 50, 32, 128, 128, mode="train"),
)


def measured(case, counts, peers, rounds):
    """(threads -> `Timing` of one case, peer -> the same with the most threads)."""
    problem, entries = Problem(case), []
    for n in counts:
        call = own(problem, n)
        call.run()
        entries.append(Entry(str(n), call, n))
    if peers:
        entries += [entry for entry in field(Problem(case, max(counts)), peers).entries if not is_own(entry.name)]
    timings = time_case(entries, rounds)
    return {n: timings.pop(str(n)) for n in counts}, timings


def verdicts(rows, probe_gains, counts):
    """Sentences about what falls short with the most threads, or that nothing does."""
    most, found = max(counts), []
    half = max((n for n in counts if 2 * n <= most), default=1)
    for row in rows:
        gain, us, best = row["gain"][most], row["us"], min(row["peers"].values(), default=None)
        name = f"{row['group']} {row['case']}"
        if gain < 0.85 * probe_gains[most]:
            found.append(f"{name}: {most} threads gain {gain:.2f}, {gain / probe_gains[most]:.2f} of the probe's gain")
        if us[most] > us[half]:
            found.append(f"{name}: {most} threads take {us[most] / us[half]:.2f} of the time of {half}")
        if best and us[most] > best:
            found.append(f"{name}: {best / us[most]:.2f} of the speed of the best peer")
    return found or [f"{most} threads: nothing falls short"]


def numbers(text):
    return sorted({int(word) for word in text.split(",")} | {1})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=numbers, metavar="N,N", help="default: 1,2,4,8,16 as far as there are cores")
    parser.add_argument("--group", metavar="NAMES", help=f"cases of `fastlstm bench` instead: {', '.join(GROUPS)}")
    parser.add_argument("--peers", metavar="NAMES", default="", help="torch,onnxruntime: with the most threads")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    cores = fl.get_num_threads()
    counts = given.threads or [n for n in COUNTS if n <= cores]
    fl.set_num_threads(max(counts))
    cases = [case for case in select(given.group.split(",")) if has_cell(case)] if given.group else CASES
    print(f"{fl.isa()}, {cores} cores for this process; microseconds, and in brackets the gain over one thread")
    width = max(len(f"{case.group} {case.name}") for case in cases) + 2
    print(f"{'case':<{width}}" + "".join(f"{n:>20}" for n in counts))
    peers, versions = find_peers([name for name in given.peers.split(",") if name])
    for name, version in versions.items():
        print(f"{name} {version}")
    watch, rows, probes = Watch(), [], {n: [] for n in counts}
    for case in cases:
        timings, others = measured(case, counts, peers, given.rounds)
        gains = {n: timings[1].median / timings[n].median for n in counts}
        cells = (f"{timings[n].median * 1e6:,.1f} ({gains[n]:.2f})" for n in counts)
        words = "".join(f"  {name} {timing.median * 1e6:,.1f}" for name, timing in others.items())
        print(f"{f'{case.group} {case.name}':<{width}}" + "".join(f"{cell:>20}" for cell in cells) + words, flush=True)
        for n in counts:
            probes[n].append(timings[n].probe_rate)
        rows.append({
            "group": case.group, "case": case.name, "us": {n: timings[n].median * 1e6 for n in counts}, "gain": gains,
            "undisturbed": {n: timings[n].clean for n in counts},
            "peers": {name: timing.median * 1e6 for name, timing in others.items()},
        })
    gains = {n: median(probes[n]) / median(probes[1]) for n in counts}
    print(f"{'the arithmetic probe':<{width}}" + "".join(f"{f'({gains[n]:.2f})':>20}" for n in counts))
    for words in verdicts(rows, gains, counts):
        print(f"- {words}")
    for words in watch.notes():
        print(f"! {words}")
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump({"cores": cores, "probe_gain": gains, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
