"""The picture of a run: the roofline with every case on it, and how far each group is from the best rival."""

import os

from ..whole_files import write_figure

INK, SOFT, FAINT = "#1f2430", "#6b7280", "#e5e7eb"
COLOURS = {
    "step": "#0072b2", "stream": "#d55e00", "small_batch": "#009e73", "throughput": "#cc3d7f", "odd": "#e0a100",
    "stacks": "#5b4bb5", "ragged": "#56b4e9", "gru": "#8c564b", "rnn": "#7f9c2b", "proj": "#17a2a2", "f64": "#9a7d6a",
    "train": "#b22222", "wide_step": "#475569", "family": "#2f4f9e",
}


def write(path, document):
    """Draw a `report.document` to a file. Needs matplotlib; ImportError says so."""
    from matplotlib.figure import Figure  # optional, and slow to import

    rows = document["results"]
    groups = list(dict.fromkeys(row["group"] for row in rows))
    figure = Figure(figsize=(13, max(6.4, 2.6 + 0.42 * len(groups))), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.75, 1])
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(SOFT)
        axis.tick_params(colors=SOFT, which="both")
        axis.set_axisbelow(True)
    _draw_roofline(left, document, rows, groups)
    rivalry = any(row["ratio"] for row in rows)
    label = "time of the best rival / time of fastlstm" if rivalry else "roofline / time of fastlstm"
    _draw_bars(right, rows, groups, "ratio" if rivalry else "share", label)
    machine, threads = document["machine"], document["settings"]["threads"]
    rivals = [f"{name} {words}" for name, words in document["peers"].items() if not words.startswith("absent")]
    beside = f"   beside {', '.join(rivals)}" if rivals else ""
    figure.suptitle(
        f"fastlstm {machine['fastlstm']} on {machine['processor']}, {machine['isa']}, "
        f"{threads} thread{'s' if threads > 1 else ''}{beside}",
        fontsize=12, x=0.01, ha="left", color=INK,
    )
    write_figure(path, figure, os.path.splitext(path)[1][1:].lower())


def _ceiling(document, kind, of):
    threads = document["settings"]["threads"]
    return next(e["best"] * 1e-9 for e in document["ceilings"][kind] if e["of"] == of and e["threads"] == threads)


def _draw_roofline(axis, document, rows, groups):
    dtypes = [dtype for dtype in ("float32", "float64") if any(row["dtype"] == dtype for row in rows)]
    peaks = {dtype: _ceiling(document, "flops_per_second", dtype) for dtype in dtypes}
    reads = {level: _ceiling(document, "bytes_per_second", level) for level in ("L1", "L2", "L3", "DRAM")}
    intensity = [row["flops"] / row["bytes"] for row in rows]
    best = [row["flops"] / (row["results"][row["best_rival"]]["median_us"] * 1e3) for row in rows if row["best_rival"]]
    low, high = min(intensity) / 2, max(max(intensity) * 2, 60)
    bottom = min([*best, *(row["gflops"] for row in rows)]) / 2
    axis.set(xscale="log", yscale="log", xlim=(low, high), ylim=(bottom, max(peaks.values()) * 5))
    axis.grid(color=FAINT, linewidth=0.7)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_major_formatter("{x:g}")
    top = max(peaks.values())
    for rate in reads.values():
        axis.plot([low, top / rate], [low * rate, top], color=SOFT, linewidth=1.1, zorder=1)
    _label_bandwidths(axis, reads, low, high, top)
    for dtype, peak in peaks.items():
        start = peak / max(reads.values())
        width = 1.8 if dtype == "float32" else 1
        axis.plot([max(start, low), high], [peak, peak], color=INK, linewidth=width, zorder=1)
        axis.annotate(f"peak {peak:,.0f} GFLOP/s, {dtype}", (high, peak), xytext=(-4, 4), textcoords="offset points",
                      ha="right", fontsize=9, color=INK)
    for group in groups:
        mine = [row for row in rows if row["group"] == group]
        _draw_points(axis, mine, COLOURS.get(group, INK), group)
    note = "a ring is the best rival, the line what lies between" if best else "every case at its own intensity"
    axis.set_title(f"Roofline: {note}", loc="left", fontsize=11, color=INK)
    axis.set_xlabel("operations per byte of weights that must be read", color=INK)
    axis.set_ylabel("GFLOP/s", color=INK)
    axis.legend(frameon=False, fontsize=9, loc="lower right", ncols=2, labelcolor=INK)


def _label_bandwidths(axis, reads, low, high, top):
    """Names above the roof, where each slanted line reaches it; pushed apart where lines are close."""
    apart = (high / low) ** 0.028
    x = 0.0
    for level, rate in sorted(reads.items(), key=lambda item: -item[1]):
        x = max(top / rate, x * apart)
        name = f"{level} {rate:,.0f} GB/s"
        axis.text(x, top * 1.15, name, rotation=90, ha="center", va="bottom", fontsize=8, color=SOFT)


def _draw_points(axis, rows, colour, label):
    x = [row["flops"] / row["bytes"] for row in rows]
    axis.scatter(x, [row["gflops"] for row in rows], s=34, color=colour, edgecolor="white", linewidth=0.6, zorder=4,
                 label=label)
    for at, row in zip(x, rows, strict=True):
        if row["best_rival"]:
            other = row["flops"] / (row["results"][row["best_rival"]]["median_us"] * 1e3)
            axis.plot([at, at], [other, row["gflops"]], color=colour, alpha=0.45, linewidth=1.2, zorder=3)
            axis.scatter([at], [other], s=20, facecolor="white", edgecolor=colour, linewidth=1.1, zorder=3)


def _draw_bars(axis, rows, groups, key, label):
    """The geometric mean of each group as a bar from 1, its cases as dots."""
    from .report import geometric_mean

    axis.axvline(1, color=INK, linewidth=1.2, zorder=3)
    names = [group for group in groups if any(row["group"] == group and row[key] for row in rows)]
    values = [row[key] for row in rows if row[key]]
    low, high = min([*values, 0.9]) / 1.15, max([*values, 1.1]) * 1.15
    axis.set(xscale="log", xlim=(low, high))
    for place, group in enumerate(names):
        mine = [row[key] for row in rows if row["group"] == group and row[key]]
        mean, colour = geometric_mean(mine), COLOURS.get(group, INK)
        axis.barh(place, mean - 1, left=1, height=0.56, color=colour, alpha=0.30, zorder=1)
        axis.plot([mean, mean], [place - 0.28, place + 0.28], color=colour, linewidth=2.6, zorder=4)
        axis.scatter(mine, [place] * len(mine), s=16, color=colour, edgecolor="white", linewidth=0.4, zorder=5)
        axis.annotate(f"{mean:.2f}", (high, place), xytext=(6, 0), textcoords="offset points", va="center",
                      fontsize=10, color=colour, fontweight="bold", annotation_clip=False)
    axis.set_yticks(range(len(names)), names, color=INK)
    axis.invert_yaxis()
    ticks = [t for t in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= t <= high]
    axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axis.minorticks_off()
    axis.grid(axis="x", color=FAINT, linewidth=0.7)
    axis.tick_params(axis="y", length=0)
    axis.set_title("By group: geometric mean, and every case", loc="left", fontsize=11, color=INK)
    axis.set_xlabel(label, color=INK)
