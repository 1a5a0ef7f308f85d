"""What a clockwork saves: the time of a step, beside the part of the work that its periods leave.

    python bench/clockwork.py [--hidden N,N] [--batch N,N] [--threads N] [--rounds N] [--json FILE] [--plot FILE]

Active share: products of the modules that are due, relative to those of a simple recurrent network of the same size,
`fastlstm.RNN`, which a clockwork whose periods are all 1 equals. Ideally time falls with it: `time` is relative to the
RNN's, `of ideal` is time / share. --plot draws time over share (needs matplotlib).
"""

import argparse
import json

import fastlstm as fl
from fastlstm.benchmark.case import Case
from fastlstm.benchmark.contestants import Entry, own
from fastlstm.benchmark.measure import Watch, time_case
from fastlstm.benchmark.problem import Problem

PERIODS = (
    (1, 1, 1, 1, 1, 1, 1, 1),
    (1, 1, 1, 1, 2, 2, 2, 2),
    (1, 1, 2, 2, 4, 4, 8, 8),  # as the next, in twice as many modules
    (1, 2, 4, 8),
    (1, 4, 16, 64),
    (1, 2, 4, 8, 16, 32, 64, 128),
)
STEPS = 128  # a multiple of all periods: the share is exact
RNN = "RNN"


def case_of(hidden, batch, periods=None):
    """A case with as many inputs as units; without periods the RNN."""
    if periods is None:
        return Case("clockwork", RNN, STEPS, batch, hidden, hidden, cell="rnn")
    name = ",".join(map(str, periods))
    return Case("clockwork", name, STEPS, batch, hidden, hidden, cell="clockwork", options=(("periods", periods),))


def measured(hidden, batch, threads, rounds):
    """Rows of one table; the contestants take turns, so that a change of the clock meets all of them."""
    cases = [case_of(hidden, batch), *(case_of(hidden, batch, periods) for periods in PERIODS)]
    entries = []
    for case in cases:
        call = own(Problem(case, threads))
        call.run()
        entries.append(Entry(case.name, call, threads))
    timings, whole, rows = time_case(entries, rounds), cases[0], []
    for case in cases:
        timing, share = timings[case.name], case.flops / whole.flops
        rows.append({
            "hidden": hidden, "batch": batch, "periods": case.name, "share": share,
            "us_per_step": timing.median * 1e6 / STEPS, "time": timing.median / timings[whole.name].median,
            "undisturbed": timing.clean,
        })
    return rows


def show(rows):
    print(f"\nH{rows[0]['hidden']} B{rows[0]['batch']}, {STEPS} steps")
    print(f"{'periods':<26}{'active share':>14}{'us/step':>12}{'time':>8}{'of ideal':>10}")
    for row in rows:
        mark = " " if row["undisturbed"] else "~"
        numbers = f"{row['share']:>14.3f}{row['us_per_step']:>11.3g}{mark}{row['time']:>8.3f}"
        print(f"{row['periods']:<26}{numbers}{row['time'] / row['share']:>10.2f}", flush=True)


def draw(path, tables):
    from matplotlib.figure import Figure  # optional, and slow to import

    figure = Figure(figsize=(7.2, 5.6), dpi=150, layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="#1f2430", linewidth=1.2, linestyle="--", label="ideal")
    for rows, colour in zip(tables, ("#0072b2", "#d55e00", "#009e73", "#cc3d7f") * len(tables), strict=False):
        name = f"H{rows[0]['hidden']} B{rows[0]['batch']}"
        for modules, face in ((8, colour), (4, "white")):
            points = sorted((row["share"], row["time"]) for row in rows if row["periods"].count(",") == modules - 1)
            axis.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=5, markerfacecolor=face,
                      linewidth=1.4, linestyle="-" if modules == 8 else ":", label=f"{name}, {modules} modules")
    axis.set(xlim=(0, 1.05), ylim=(0, None), xlabel="active share of the work", ylabel="time, relative to the RNN's")
    axis.set_title(f"Clockwork RNN, fastlstm {fl.__version__}, {fl.isa()}", loc="left", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="#e5e7eb", linewidth=0.7)
    axis.legend(frameon=False)
    figure.savefig(path)


def numbers(text):
    return [int(word) for word in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=numbers, default=[512, 128], metavar="N,N", help="multiples of 8")
    parser.add_argument("--batch", type=numbers, default=[1, 8], metavar="N,N")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--plot", metavar="FILE")
    given = parser.parse_args()
    if given.plot:
        import matplotlib  # noqa: F401 (a run must not end in its absence)
    print(f"{fl.isa()}, at most {given.threads} thread{'s' if given.threads > 1 else ''}")
    watch, tables = Watch(), []
    for hidden in given.hidden:
        for batch in given.batch:
            tables.append(measured(hidden, batch, given.threads, given.rounds))
            show(tables[-1])
    for words in watch.notes():
        print(f"! {words}")
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump([row for rows in tables for row in rows], file, indent=1)
    if given.plot:
        draw(given.plot, tables)


if __name__ == "__main__":
    main()
