"""What a run prints: who takes part, the machine's ceilings, what the columns mean, a table for each group."""

import textwrap
from typing import NamedTuple

from .cases import GROUPS
from .contestants import ABOUT, OWN_AWAKE, OWN_SINGLE, OWN_STEP, PLAIN
from .report import AIM, summary

# What contestants are called in a table, where that is not their name.
SHOWN = {OWN_STEP: "stream.step", OWN_AWAKE: "stream.step, awake", OWN_SINGLE: "fastlstm, 1 thread"}
WIDTH = 110  # characters of a line of the legend
LIMITS = {"fma": "arithmetic", "DRAM": "memory"}  # of what `ceilings.Roofline.bound` may be; caches have their names


class Column(NamedTuple):
    """head: what stands above it; cell: a function of a row that gives its text; about: what it means.

    whole: only in a whole run, not in a quick one. needs: "rivals", "family" or "scaling", without which it is left
    out; None: always there.
    """

    head: str
    cell: object
    about: str
    needs: str | None = None
    whole: bool = False


COLUMNS = (
    Column("ratio", lambda r: f"{r['ratio']:.2f}" if r["ratio"] else "-",
           "time of the fastest other system / time of fastlstm. Above 1 fastlstm is faster; 2 is twice as fast.",
           "rivals"),
    Column("GFLOP/s", lambda r: f"{r['gflops']:.1f}",
           "what fastlstm does in a second, in 10^9 multiplications and additions: those that cannot be avoided.",
           whole=True),
    Column("GB/s", lambda r: f"{r['gbytes']:.1f}",
           "what fastlstm reads in a second, in 10^9 bytes: weights, as often as they must be read.", whole=True),
    Column("share", lambda r: f"{r['share']:.2f}",
           "the least time by the ceilings above / time of fastlstm. Higher is better; 1 is the ceiling. "
           "It is an estimate, and a call may beat it: the ceilings were measured apart from it, with data of the "
           "same size read in one order, and a call may find a part of its weights in a nearer cache, or a higher "
           "clock."),
    Column("limit", lambda r: LIMITS.get(r["bound"], r["bound"]),
           "where the least time comes from: arithmetic, or reading weights from the cache named, or memory."),
    Column("us/step", lambda r: number(r["us_per_step"]), "time of fastlstm for a step, in microseconds.",
           "family", True),
    Column("work", lambda r: f"{r['work']:.3f}", f"multiplications of the case / those of the {PLAIN}.", "family"),
    Column("of plain rate", lambda r: f"{r['of_plain_rate']:.2f}",
           f"time / (work x time of the {PLAIN}). Lower is better; 1 is as fast, work for work; {AIM} is aimed at.",
           "family"),
    Column("scaling", lambda r: f"{r['scaling']:.2f}" if "scaling" in r else "-",
           "time with one thread / time with all of them. Higher is better.", "scaling"),
    Column("of probe", lambda r: f"{r['scaling'] / r['probe_scaling']:.2f}" if "scaling" in r else "-",
           "scaling / what plain arithmetic gained from the same threads at that time: 1 is all there was.",
           "scaling"),
)
CONTESTANTS = {
    OWN_STEP: "the same step by a fastlstm stream, which keeps the state itself; it does not count for ratio.",
    OWN_AWAKE: "the same, with threads that wait for the next step.",
    OWN_SINGLE: "fastlstm with one thread.",
    PLAIN: "fastlstm's plain LSTM with the sizes of the case.",
}


def opening(own, threads, versions):
    """Who takes part: a line for fastlstm, one for each system that was asked for. versions: of `find_peers`."""
    lines = [f"fastlstm {own}, at most {threads} thread{'s' if threads > 1 else ''}"]
    width = max(map(len, versions), default=0)
    for name, version in versions.items():
        absent = version.startswith("absent")
        lines.append(f"beside {name:<{width}}  {version}" + ("" if absent else f": {ABOUT.get(name, name)}"))
    return "\n".join(lines)


def ceilings_text(ceilings, threads, dtypes=("float32",)):
    """The ceilings, a line for one thread and a line for all of them."""
    lines = ["What this machine does at most, measured just now:"]
    for n in sorted({1, threads}):
        peaks = ", ".join(f"{ceilings.peak[dtype, n] * 1e-9:.0f} GFLOP/s in {dtype}" for dtype in dtypes)
        reads = ", ".join(
            f"{LIMITS.get(level, level)} {rate * 1e-9:.0f}"
            for (level, count), rate in ceilings.bandwidth.items() if count == n
        )
        lines.append(f"  ceilings, {n} thread{'s' if n > 1 else ''}: {peaks}; reading from {reads} GB/s")
        sets = [nbytes for nbytes, _ in ceilings.reading[n]][::4]
        sizes = ", ".join(f"{_size(nbytes)} {ceilings.rate(nbytes, n) * 1e-9:.0f}" for nbytes in sets)
        lines.append(f"    by the size of what is read: {sizes} GB/s")
    kilobytes = ", ".join(f"{level} {nbytes >> 10:,} kB" for level, nbytes in ceilings.sizes.items())
    guessed = f" (guessed: {', '.join(ceilings.guessed)})" if ceilings.guessed else ""
    return "\n".join([*lines, f"  caches: {kilobytes}{guessed}"])


def _size(nbytes):
    return f"{nbytes / (1 << 20):.3g} MB" if nbytes >= 1 << 20 else f"{nbytes / 1024:.3g} kB"


def number(microseconds):
    """A time with three figures."""
    return f"{microseconds:,.0f}" if microseconds >= 999.5 else f"{microseconds:.3g}"


def columns(quick, has):
    """The columns of a table behind the times. has: names of what the `needs` of a column asks for."""
    return [one for one in COLUMNS if (one.needs is None or one.needs in has) and not (quick and one.whole)]


def legend(quick, rounds, has, threads=1):
    """What stands in the tables to come; printed before them.

    has: which of "rivals", "steps" (cases of one step), "scaling", "family" there are.
    """
    shown = [OWN_STEP] * ("steps" in has) + [OWN_AWAKE] * ("steps" in has and threads > 1)
    shown += [OWN_SINGLE] * ("scaling" in has) + [PLAIN] * ("family" in has)
    entries = [
        ("times", f"microseconds per call, median of {rounds} round{'s' * (rounds > 1)}; lower is faster. ~: timed "
                  "while something else ran on this machine. -: the system does not take part in the case."),
        ("T B H", "of a case: time steps, rows of the batch, hidden units, with as many inputs. 40->256: 40 inputs, "
                  "256 units; x3: three layers."),
        *((SHOWN.get(name, name), CONTESTANTS[name]) for name in shown),
        *((one.head, one.about) for one in columns(quick, has)),
    ]
    width = max(len(name) for name, _ in entries)
    lines = ["How to read the tables:"]
    for name, words in entries:
        first, *others = textwrap.wrap(words, WIDTH - width - 4)
        lines += [f"  {name:<{width}}  {first}", *(" " * (width + 4) + line for line in others)]
    return "\n".join(lines)


def group_text(group, rows, quick=False):
    """The table of one group: its times, then `columns`."""
    names = list(dict.fromkeys(name for r in rows for name in r["results"]))
    has = {"rivals"} if any(r["ratio"] for r in rows) else set()
    has |= ({"family"} if PLAIN in names else set()) | ({"scaling"} if any("scaling" in r for r in rows) else set())
    behind = columns(quick, has)
    lines = [["case", *(SHOWN.get(name, name) for name in names), *(one.head for one in behind)]]
    for r in rows:
        lines.append([r["name"], *(_time(r, name) for name in names), *(one.cell(r) for one in behind)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [f"{group}: {GROUPS.get(group, group)}; times in microseconds per call"]
    for first, *rest in lines:
        cells = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        text.append("  " + "  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join([*text, "  " + _summary_text(summary(rows))])


def _time(r, name):
    found = r["results"].get(name)
    if not found:
        return "wrong" if name in r["dropped"] else "-"
    return number(found["median_us"]) + ("" if found["undisturbed"] else "~")


def _summary_text(s):
    words = []
    if s["ratio"]:
        words.append(f"ratio {s['ratio']:.2f} (lowest {s['worst_ratio']:.2f}, {s['worst']})")
    words.append(f"share {s['share']:.2f}")
    if s["of_plain_rate"]:
        slowest = f"highest {s['slowest_of_plain_rate']:.2f}, {s['slowest']}"
        past = f"{s['past_aim']} of {s['cases']} above {AIM}"
        words.append(f"of plain rate {s['of_plain_rate']:.2f} ({slowest}; {past})")
    if s["scaling"]:
        words.append(f"scaling {s['scaling']:.2f}, of probe {s['relative_scaling']:.2f}")
    return "geometric mean: " + "; ".join(words)


def above_ceiling(rows):
    """A sentence about the cases whose share is above 1, as a list; empty where there are none."""
    found = [f"{r['name']} {r['share']:.2f}" for r in rows if r["share"] >= 1.005]
    if not found:
        return []
    more = f" and {len(found) - 6} more" if len(found) > 6 else ""
    return [f"share above 1, faster than the estimated ceiling (see share, above): {', '.join(found[:6])}{more}"]


def lowered(shown, rows):
    """A sentence, as a list, about shares that later readings of the ceilings have lowered. shown: those printed."""
    found = [(old / r["share"], r) for old, r in zip(shown, rows, strict=True) if old > 1.05 * r["share"]]
    if not found:
        return []
    most, r = max(found, key=lambda one: one[0])
    cases = f"shares of {len(found)} cases are" if len(found) > 1 else "share of 1 case is"
    return [f"later in the run the ceilings were higher: the {cases} lower than the tables say (most {r['name']}: "
            f"{r['share']:.2f}, not {r['share'] * most:.2f}); files have the lower ones"]


def fewer_rounds(rows, rounds, seconds=None):
    """A sentence about cases with fewer rounds than asked for, as a list. seconds: those of a short run, or None."""
    few = [r for r in rows if len(next(iter(r["results"].values()))["slots_us"]) < rounds]
    if not few:
        return []
    why = f"so that the run ends within {seconds} s" if seconds is not None else "because a round of theirs takes long"
    cases = f"{len(few)} cases have" if len(few) > 1 else "1 case has"
    return [f"{cases} fewer than {rounds} rounds, but 3 at least, {why}"]
