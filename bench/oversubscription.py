"""More workers than cores: does a call still get its fair share of the machine?

    python bench/oversubscription.py [--workers N] [--seconds S] [--json FILE]

Several threads of one process, then several processes, call the same kind of layer at once, each with the default
number of threads; then one call runs beside neighbours that keep a core busy. Fair: N workers together do as many
calls per second as one alone, and with one busy neighbour on n cores a call keeps n/(n+1) of its speed. A value above 1
is better than fair (a worker alone left cores unused); far below 1, threads wait for each other while they hold the
cores.
"""

import argparse
import json
import multiprocessing
import threading
import time

import numpy as np

import fastlstm as fl

CASES = {  # T, B, H
    "stream T100 B1 H128": (100, 1, 128),
    "small batch T50 B8 H256": (50, 8, 256),
    "throughput T50 B64 H128": (50, 64, 128),
}


def count(size, seconds, ready, counts, place):
    """Call a layer for so long once everybody is ready; leave the calls per second in counts[place]."""
    steps, batch, hidden = size
    layer = fl.LSTM(hidden, hidden, rng=0)
    x = np.random.default_rng(0).standard_normal((steps, batch, hidden)).astype(np.float32)
    layer(x)
    ready.wait()
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        layer(x)
        done += 1
    counts[place] = done / (time.perf_counter() - start)


def spin(stop):
    """A neighbour with work of its own."""
    while not stop.is_set():
        for _ in range(10_000):
            pass


def in_threads(size, seconds, workers):
    """Calls per second of each worker."""
    counts, ready = [0.0] * workers, threading.Barrier(workers)
    team = [threading.Thread(target=count, args=(size, seconds, ready, counts, k)) for k in range(workers)]
    return _gather(team, counts)


def in_processes(size, seconds, workers):
    """The same; the processes are new ones, so that nothing is inherited."""
    context = multiprocessing.get_context("spawn")
    counts, ready = context.Array("d", workers, lock=False), context.Barrier(workers)
    team = [context.Process(target=count, args=(size, seconds, ready, counts, k)) for k in range(workers)]
    return _gather(team, counts)


def _gather(team, counts):
    for worker in team:
        worker.start()
    for worker in team:
        worker.join()
    return list(counts)


def beside_neighbours(size, seconds, neighbours):
    """Calls per second of one worker while `neighbours` processes keep a core busy each."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    team = [context.Process(target=spin, args=(stop,)) for _ in range(neighbours)]
    for neighbour in team:
        neighbour.start()
    time.sleep(0.5)  # interpreters start
    try:
        return in_threads(size, seconds, 1)[0]
    finally:
        stop.set()
        for neighbour in team:
            neighbour.join()


def rows_of(name, size, seconds, workers, cores):
    """(what ran, calls per second of all workers, share of what is fair, of the slowest worker to the fastest)."""
    alone = in_threads(size, seconds, 1)[0]
    yield {"case": name, "run": "alone", "calls_per_second": alone, "of_fair": 1.0, "evenness": 1.0}
    for words, run in (("threads", in_threads), ("processes", in_processes)):
        counts = run(size, seconds, workers)
        total = sum(counts)
        yield {
            "case": name, "run": f"{workers} {words}", "calls_per_second": total, "of_fair": total / alone,
            "evenness": min(counts) / max(counts),
        }
    for neighbours in (1, cores):
        rate = beside_neighbours(size, seconds, neighbours)
        fair = alone * cores / (cores + neighbours)
        words = f"{neighbours} busy neighbour{'s' if neighbours > 1 else ''}"
        yield {"case": name, "run": words, "calls_per_second": rate, "of_fair": rate / fair, "evenness": 1.0}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    cores, rows = fl.get_num_threads(), []
    print(f"{fl.isa()}, {cores} cores for this process, {given.seconds:g} s each")
    print(f"{'case':<26}{'beside':<20}{'calls/s':>12}{'of fair':>10}{'slowest/fastest':>18}")
    for name, size in CASES.items():
        for row in rows_of(name, size, given.seconds, given.workers, cores):
            rows.append(row)
            print(f"{name:<26}{row['run']:<20}{row['calls_per_second']:>12,.1f}{row['of_fair']:>10.2f}"
                  f"{row['evenness']:>18.2f}", flush=True)
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump({"cores": cores, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
