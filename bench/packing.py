"""How fast weights are packed: the time of making a model, as bytes of weights per second.

    python bench/packing.py [--threads N] [--backward] [--fresh] [--quick] [--rounds N] [--json FILE]

Beside it, in the same slots, NumPy copies the same bytes: into arrays that are there, and into new ones. A model is new
memory too, of about as many bytes; with --backward of twice as many, which is what training packs. Under glibc memory
that was freed stays with the process and is used again, so that the system's part is left out; with --fresh it is
given back, and every model waits until the system has cleared its pages.
"""

import argparse
import ctypes
import json
import os

import numpy as np

import fastlstm as fl
from fastlstm.benchmark.contestants import Entry
from fastlstm.benchmark.measure import Watch, time_case
from fastlstm.benchmark.problem import Call
from fastlstm.machine import settle

CASES = (("LSTM", 128), ("LSTM", 512), ("LSTM", 1024), ("GRU", 1024))
QUICK = (("LSTM", 128), ("GRU", 64))


def keep_memory():
    """Of this process, when it is freed; whether the allocator can be told so."""
    libc = ctypes.CDLL("msvcrt" if os.name == "nt" else None)
    most = 2**31 - 1
    return hasattr(libc, "mallopt") and all(libc.mallopt(option, most) for option in (-1, -3))  # trim, mmap


def layer_of(kind, hidden, threads, backward):
    return getattr(fl, kind)(hidden, hidden, rng=0, num_threads=threads).pack(backward=backward)


def measured(kind, hidden, threads, backward, rounds):
    """Bytes of the weights, and name of the way -> GB/s."""
    layers = {n: layer_of(kind, hidden, n, backward) for n in sorted({1, threads})}
    weights = list(layers[1].state_dict().values())
    there = [weight.copy() for weight in weights]

    def copy():
        for to, weight in zip(there, weights, strict=True):
            np.copyto(to, weight)

    entries = [Entry("copy", Call(copy, None), 1)]
    entries.append(Entry("new copy", Call(lambda: [weight.copy() for weight in weights], None), 1))
    for n, layer in layers.items():
        entries.append(Entry(f"packed by {n}", Call(layer._pack, None), n))
    size = sum(weight.nbytes for weight in weights)
    return size, {name: size / timing.median / 1e9 for name, timing in time_case(entries, rounds).items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=0, help="threads of the last column; 0: as many as calls use")
    parser.add_argument("--backward", action="store_true", help="pack what training needs, too")
    parser.add_argument("--fresh", action="store_true", help="memory that the system gives anew each time")
    parser.add_argument("--quick", action="store_true", help="two small models, few rounds")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", metavar="FILE")
    given = parser.parse_args()
    if given.threads < 0 or given.rounds < 1:
        parser.error("--threads is 0 or more, --rounds 1 or more")
    threads, rounds = given.threads or fl.get_num_threads(), 1 if given.quick else given.rounds
    settle(threads)
    kept = not given.fresh and keep_memory()
    watch, found = Watch(), []
    for kind, hidden in QUICK if given.quick else CASES:
        size, rates = measured(kind, hidden, threads, given.backward, rounds)
        found.append({"cell": kind, "hidden": hidden, "bytes": size, "gb_per_s": rates})
    memory, use = "kept" if kept else "fresh", "training" if given.backward else "inference"
    print(f"{fl.isa()}, {use}, memory {memory}; GB/s of weights")
    ways = list(found[0]["gb_per_s"])
    print(f"{'layer':<14}{'MB':>8}" + "".join(f"{way:>14}" for way in ways))
    for row in found:
        name = f"{row['cell']} {row['hidden']}"
        print(f"{name:<14}{row['bytes'] / 1e6:>8.1f}" + "".join(f"{row['gb_per_s'][way]:>14.1f}" for way in ways))
    for words in watch.notes():
        print(f"! {words}")
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
