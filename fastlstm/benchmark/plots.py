"""The picture of a run: how fast each group is beside other systems, and every case under the machine's ceilings.

Speed is drawn, not time: the longest bar is the best one. fastlstm has the one colour, all else is grey.
"""

import os

from ..whole_files import write_figure
from .contestants import OWN, is_own
from .processors import name_of

OURS, INK, SOFT, FAINT = "#0b5fa5", "#1f2430", "#6b7280", "#e5e7eb"
OTHERS = "#b3bac4"
BAR = 0.8  # height of a bar; the distance between two is 1


def write(path, document):
    """Draw a `report.document` to a file. Needs matplotlib; ImportError says so.

    The same document gives the same bytes, as far as matplotlib is the same.
    """
    from matplotlib import rc_context  # optional, and slow to import

    with rc_context({"svg.hashsalt": "fastlstm", "svg.fonttype": "none"}):
        _write(path, document)


def _write(path, document):
    from matplotlib.figure import Figure

    rows = document["results"]
    bars = speeds(rows)
    lines = sum(map(len, bars.values())) + 0.8 * len(bars)
    figure = Figure(figsize=(13, max(6.0, 2.2 + 0.21 * lines)), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(SOFT)
        axis.tick_params(colors=SOFT, which="both")
        axis.set_axisbelow(True)
    _draw_bars(left, bars, any(row["ratio"] for row in rows))
    _draw_roofline(right, document, rows)
    figure.suptitle(title(document), fontsize=12, x=0.01, ha="left", color=INK)
    kind = os.path.splitext(path)[1][1:].lower()
    dates = {"svg": "Date", "pdf": "CreationDate"}  # which would change with every run
    write_figure(path, figure, kind, **({"metadata": {dates[kind]: None}} if kind in dates else {}))


def title(document):
    """Two lines: what is drawn; the machine and the systems."""

    machine, threads = document["machine"], document["settings"]["threads"]
    rivals = [f"{name} {words}" for name, words in document["peers"].items() if not words.startswith("absent")]
    beside = f"   |   beside {', '.join(rivals)}" if rivals else ""
    where = f"{_processor(machine)}, {threads} thread{'s' if threads > 1 else ''}, {machine['isa']}"
    return f"Speed of fastlstm {machine['fastlstm']}: longer bars are faster\n{where}{beside}"


def _processor(machine):
    """The name of a processor, and that of its kind where it is another one."""
    kind = name_of(machine)
    return machine["processor"] + (f" ({kind})" if kind not in machine["processor"] else "")


def speeds(rows):
    """Group -> contestant -> speed, the fastest first.

    Beside rivals: the geometric mean, over the contestant's cases with a rival, of time of the fastest rival / its own
    time, so that fastlstm's is the ratio of the tables. Without any: fastlstm's share of the machine's ceiling.
    """
    from .report import geometric_mean

    found = {}
    for group in dict.fromkeys(row["group"] for row in rows):
        mine = [row for row in rows if row["group"] == group]
        contested = [row for row in mine if row["best_rival"]]
        if not contested and any(row["best_rival"] for row in rows):
            continue
        if not contested:
            found[group] = {OWN: geometric_mean(row["share"] for row in mine)}
            continue
        names = dict.fromkeys(n for row in contested for n in row["results"] if n == OWN or not is_own(n))
        each = {name: geometric_mean(_relative(row, name) for row in contested) for name in names}
        found[group] = dict(sorted(each.items(), key=lambda item: -item[1]))
    return found


def _relative(row, name):
    """Speed of a contestant of a case, relative to that of the fastest rival; None where it does not take part."""
    timing = row["results"].get(name)
    return timing and row["results"][row["best_rival"]]["median_us"] / timing["median_us"]


def _draw_bars(axis, bars, rivalry):
    place, ticks, longest = 0.0, [], max(v for group in bars.values() for v in group.values())
    for group, each in bars.items():
        ticks.append((place + (len(each) - 1) / 2, group))
        for name, speed in each.items():
            own = name == OWN
            axis.barh(place, speed, height=BAR, color=OURS if own else OTHERS)
            words = f"{name}  {speed:.2f}" if rivalry else f"{speed:.2f}"
            axis.annotate(words, (speed, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8,
                          color=OURS if own else SOFT, fontweight="bold" if own else "normal", zorder=4,
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6})
            place += 1
        place += 0.8
    axis.axvline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=3)
    axis.set_yticks([at for at, _ in ticks], [group for _, group in ticks], color=INK)
    axis.set(xlim=(0, 1.3 * max(longest, 1)), ylim=(place - 0.8, -0.8))
    axis.grid(axis="x", color=FAINT, linewidth=0.7)
    axis.tick_params(axis="y", length=0)
    told = "speed, in multiples of the fastest other system (dashed: 1)" if rivalry else (
        "speed, as a share of the machine's estimated ceiling (dashed: 1)"
    )
    axis.set_xlabel(told, color=INK)
    axis.set_title("By group of sizes, geometric mean", loc="left", fontsize=11, color=INK)


def _ceiling(document, kind, of):
    threads = document["settings"]["threads"]
    return next(e["best"] * 1e-9 for e in document["ceilings"][kind] if e["of"] == of and e["threads"] == threads)


def _draw_roofline(axis, document, rows):
    dtypes = [dtype for dtype in ("float32", "float64") if any(row["dtype"] == dtype for row in rows)]
    peaks = {dtype: _ceiling(document, "flops_per_second", dtype) for dtype in dtypes}
    reads = {level: _ceiling(document, "bytes_per_second", level) for level in ("L1", "L2", "L3", "DRAM")}
    intensity = [row["flops"] / row["bytes"] for row in rows]
    best = [_rival_speed(row) for row in rows if row["best_rival"]]
    low, high = min(intensity) / 2, max(max(intensity) * 2, 60)
    bottom, top = min([*best, *(row["gflops"] for row in rows)]) / 2, max(peaks.values())
    axis.set(xscale="log", yscale="log", xlim=(low, high), ylim=(bottom, top * 8))
    axis.grid(color=FAINT, linewidth=0.7)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_major_formatter("{x:g}")
    for rate in reads.values():
        axis.plot([low, top / rate], [low * rate, top], color=SOFT, linewidth=1, zorder=1)
    _label_bandwidths(axis, reads, low, high, top)
    for dtype, peak in peaks.items():
        axis.plot([max(peak / max(reads.values()), low), high], [peak, peak], color=INK, linewidth=1.4, zorder=1)
        axis.annotate(f"arithmetic, {dtype}: {peak:,.0f} GFLOP/s", (high, peak), xytext=(-4, 4), fontsize=8.5,
                      textcoords="offset points", ha="right", color=INK)
    for row, at in zip(rows, intensity, strict=True):
        if row["best_rival"]:
            axis.plot([at, at], [_rival_speed(row), row["gflops"]], color=OTHERS, linewidth=1, zorder=2)
    contested = [(at, _rival_speed(row)) for at, row in zip(intensity, rows, strict=True) if row["best_rival"]]
    axis.scatter(intensity, [row["gflops"] for row in rows], s=26, color=OURS, zorder=4, label="fastlstm, each case")
    if contested:
        axis.scatter(*zip(*contested, strict=True), s=20, facecolor="white", edgecolor=SOFT, zorder=3,
                     label="the fastest other system")
    axis.set_title("Every case; lines: what this machine does at most", loc="left", fontsize=11, color=INK)
    axis.set_xlabel("multiplications and additions per byte of weights that must be read", color=INK)
    axis.set_ylabel("speed, GFLOP/s", color=INK)
    axis.legend(frameon=False, fontsize=9, loc="lower right", labelcolor=INK)


def _rival_speed(row):
    """GFLOP/s of the fastest other system."""
    return row["flops"] / (row["results"][row["best_rival"]]["median_us"] * 1e3)


def _label_bandwidths(axis, reads, low, high, top):
    """Names above the roof, where each slanted line reaches it; pushed apart where lines are close."""
    apart, x = (high / low) ** 0.035, 0.0
    for level, rate in sorted(reads.items(), key=lambda item: -item[1]):
        x = max(top / rate, x * apart, low * apart**0.5)
        name = f"{'memory' if level == 'DRAM' else level} {rate:,.0f} GB/s"
        axis.text(x, top * 1.15, name, rotation=90, ha="center", va="bottom", fontsize=8, color=SOFT)
