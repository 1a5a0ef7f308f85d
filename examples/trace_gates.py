"""Look inside the bundled sunspot model: every gate of every unit, at every month.

    python examples/trace_gates.py                    # gates.png, or a summary without matplotlib
    python examples/trace_gates.py --from 1950-01 --out held-out.png

One call with ``trace=True`` gives all gates and cell states; nothing is recomputed or hooked.
"""

import argparse

import numpy as np

import fastlstm as fl
from fastlstm import forecast as fc

GATES = {"i": "input gate", "f": "forget gate", "o": "output gate", "c": "cell state, tanh"}


def trace_series(model, scaling, values):
    """Name -> (T, H): the gates and the squashed cell state of each unit at each month."""
    x = scaling.forward(values).astype(np.float32)[:, None, None]  # (T, B=1, I=1)
    _, _, trace = model(x, trace=True)
    gates = {name: getattr(trace, name)[0][:, 0] for name in "ifo"}  # [0]: of the only layer; [:, 0]: of the only row
    return {**gates, "c": np.tanh(trace.c[0][:, 0])}


def order_units(cell, values):
    """Units sorted by how their cell state goes with the sunspot number: against it first."""
    with np.errstate(invalid="ignore"):  # a unit that never moves has no correlation
        correlation = np.corrcoef(cell.T, values)[-1, :-1]
    return np.argsort(np.nan_to_num(correlation))


def summarise(traced):
    """Text: mean over time and units, spread, and how often a gate is shut or open."""
    lines = [f"{'':<18}{'mean':>8}{'std':>8}{'shut':>8}{'open':>8}   (shut: below 0.1, open: above 0.9)"]
    for name, array in traced.items():
        line = f"{GATES[name]:<18}{array.mean():>8.2f}{array.std():>8.2f}"
        if name != "c":  # a cell state is neither shut nor open
            line += f"{np.mean(array < 0.1):>8.0%}{np.mean(array > 0.9):>8.0%}"
        lines.append(line)
    return "\n".join(lines)


def draw(path, months, values, traced):
    """The series on top, a heat map for each gate below: time to the right, a line per unit."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9), dpi=130, layout="constrained")
    top, *rows = figure.subplots(1 + len(traced), 1, sharex=True, height_ratios=[1.1, 1, 1, 1, 1])
    span = [1749 + (month - np.datetime64("1749-01", "M")).astype(int) / 12 for month in months[[0, -1]]]
    top.fill_between(np.linspace(*span, len(values)), values, color="#f6c445", linewidth=0)
    top.set(ylabel="sunspots", xlim=span, ylim=(0, None))
    top.spines[["top", "right"]].set_visible(False)
    top.set_title("An LSTM reading the sunspots, unit by unit", loc="left", fontsize=14)
    for axis, (name, array) in zip(rows, traced.items(), strict=True):
        low, colours = (-1, "RdBu_r") if name == "c" else (0, "viridis")
        extent = (*span, 0, array.shape[1])
        image = axis.imshow(
            array.T, aspect="auto", origin="lower", extent=extent, vmin=low, vmax=1,
            cmap=colours, interpolation="nearest",
        )
        axis.set(ylabel="unit", yticks=[])
        axis.set_title(GATES[name], loc="left", fontsize=10)
        figure.colorbar(image, ax=axis, pad=0.01, aspect=12)
    rows[-1].set_xlabel("year")
    figure.savefig(path)


def main():
    """Trace, summarise, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="gates.png")
    parser.add_argument("--from", dest="first", default="1900-01", metavar="YYYY-MM")
    parser.add_argument("--quick", action="store_true", help="the summary alone")
    arguments = parser.parse_args()

    months, values = fc.load_series()
    model = fl.load(fc.MODEL)
    scaling = fc.Scaling.from_text(model.metadata["scaling"])
    try:
        first = fc.month_index(months, arguments.first)
    except ValueError:
        first = -1
    if not 0 <= first < len(months):
        parser.error(f"--from must lie in {months[0]} .. {months[-1]}, got {arguments.first}")

    # The whole series is read, so that the state is warm by the first month shown.
    traced = trace_series(model, scaling, values)
    order = order_units(traced["c"][first:], values[first:])
    traced = {name: array[first:, order] for name, array in traced.items()}
    print(f"{months[first]} to {months[-1]}: {traced['c'].shape[0]} months, {traced['c'].shape[1]} units")
    print(summarise(traced))
    if arguments.quick:
        return
    try:
        draw(arguments.out, months[first:], values[first:], traced)
        print(f"wrote {arguments.out}")
    except ImportError:
        print("(with matplotlib installed: a heat map, too)")


if __name__ == "__main__":
    main()
