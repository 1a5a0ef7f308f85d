"""Two runs side by side: what became faster, what slower, and what is noise."""

from .contestants import OWN, is_own
from .report import geometric_mean
from .stored import NotComparable, printable

NOISE = 0.10  # below this a difference means nothing on any machine
NAME, LINE = 80, 300  # most characters of a name, of a note


def _key(row):
    return row["group"], row["name"], row["dtype"]


def compare(before, after):
    """Rows of what two documents have in common, as dicts.

    group, name, dtype; before_us, after_us; ratio: before / after, above 1 is faster; noise: 10 %, or the wider of the
    two runs' spread between quartiles; verdict: "faster", "slower" or "". rivals: the same ratio, geometric mean over
    the other contestants of both runs: what the machine itself has changed.
    """
    known = {_key(row): row for row in before["results"]}
    found = []
    for new in after["results"]:
        old = known.get(_key(new))
        if old is None:
            continue
        a, b = old["results"][OWN], new["results"][OWN]
        ratio, noise = a["median_us"] / b["median_us"], max(NOISE, a["spread"], b["spread"])
        verdict = "faster" if ratio > 1 + noise else "slower" if ratio < 1 / (1 + noise) else ""
        common = [name for name in new["results"] if name in old["results"] and not is_own(name)]
        control = geometric_mean(old["results"][n]["median_us"] / new["results"][n]["median_us"] for n in common)
        found.append({
            "group": new["group"], "name": new["name"], "dtype": new["dtype"], "before_us": a["median_us"],
            "after_us": b["median_us"], "ratio": ratio, "noise": noise, "verdict": verdict, "rivals": control,
        })
    if not found:
        raise NotComparable("the two files have no case in common")
    return found


def differences(before, after):
    """Sentences about what differs between the two runs besides the figures."""
    found = []
    for part, names in (("machine", ("processor", "processors", "isa", "fastlstm")), ("settings", ("threads",))):
        for name in names:
            a, b = before[part].get(name), after[part].get(name)
            if a != b:
                found.append(f"{name} differs: {a}, then {b}")
    for words, run in (("first", before), ("second", after)):
        found += [f"{words} run: {note}" for note in run["notes"] if "not in every case" not in note]
    return found


def text(before, after):
    """The comparison as a table."""
    rows = compare(before, after)
    width = max(len(printable(row["name"], NAME)) for row in rows)
    controlled = any(row["rivals"] for row in rows)
    lines = _legend(controlled)
    for group in dict.fromkeys(row["group"] for row in rows):
        mine = [row for row in rows if row["group"] == group]
        lines += ["", printable(group, NAME)]
        head = f"  {'case':<{width}}  {'before, us':>12}  {'after, us':>12}  {'ratio':>6}"
        lines.append(head + (f"  {'rivals':>6}" if controlled else ""))
        for row in mine:
            times = f"{row['before_us']:>12,.1f}  {row['after_us']:>12,.1f}  {row['ratio']:>6.2f}"
            line = f"  {printable(row['name'], NAME):<{width}}  {times}"
            if controlled:
                line += f"  {row['rivals']:>6.2f}" if row["rivals"] else f"  {'-':>6}"
            lines.append(f"{line}  {row['verdict']}".rstrip())
        mean = geometric_mean(row["ratio"] for row in mine)
        control = geometric_mean(row["rivals"] for row in mine)
        beside = f"; rivals {control:.2f}, which is the machine's own change" if control else ""
        lines.append(f"  geometric mean: {mean:.2f}{beside}")
    count = {word: sum(row["verdict"] == word for row in rows) for word in ("faster", "slower")}
    lines += ["", f"{count['faster']} faster, {count['slower']} slower, of {len(rows)}; "
                  f"the rest is within {NOISE * 100:.0f} %, or within the spread of the runs"]
    only = abs(len(before["results"]) - len(rows)) + abs(len(after["results"]) - len(rows))
    lines += [f"{only} {'cases are' if only > 1 else 'case is'} in one file only"] if only else []
    return "\n".join([*lines, *(f"! {printable(words, LINE)}" for words in differences(before, after))])


def _legend(controlled):
    """What the columns mean."""
    lines = [
        "Times of fastlstm in microseconds per call: lower is faster.",
        "ratio: time before / time after. Above 1 the second run is faster, 2 is twice as fast.",
    ]
    if controlled:
        lines.append("rivals: the same ratio of the other systems in both files: what the machine itself has changed.")
    return [*lines, f"faster, slower: by more than {NOISE * 100:.0f} %, and by more than the times of a run spread."]
