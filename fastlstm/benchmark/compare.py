"""Two runs side by side: what became faster, what slower, and what is noise."""

import json

from .contestants import OWN, is_own
from .report import FORMAT, geometric_mean

NOISE = 0.10  # below this a difference means nothing on any machine


class NotComparable(ValueError):
    """A file that is no benchmark of ours, or two without a case in common; in words."""


def read(path):
    """A document that `report.write_json` wrote. NotComparable in words."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except OSError as error:
        raise NotComparable(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise NotComparable(f"cannot read {path}: it is no JSON") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise NotComparable(f"cannot read {path}: it was not written by `fastlstm bench --json` of this version")
    return found


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
    width = max(len(row["name"]) for row in rows)
    controlled = any(row["rivals"] for row in rows)
    lines = ["microseconds per call of fastlstm; ratio = before / after, above 1 is faster"]
    for group in dict.fromkeys(row["group"] for row in rows):
        mine = [row for row in rows if row["group"] == group]
        lines += ["", f"{group}"]
        head = f"  {'case':<{width}}  {'before':>12}  {'after':>12}  {'ratio':>6}"
        lines.append(head + (f"  {'rivals':>6}" if controlled else ""))
        for row in mine:
            times = f"{row['before_us']:>12,.1f}  {row['after_us']:>12,.1f}  {row['ratio']:>6.2f}"
            line = f"  {row['name']:<{width}}  {times}"
            if controlled:
                line += f"  {row['rivals']:>6.2f}" if row["rivals"] else f"  {'-':>6}"
            lines.append(f"{line}  {row['verdict']}".rstrip())
        mean = geometric_mean(row["ratio"] for row in mine)
        control = geometric_mean(row["rivals"] for row in mine)
        beside = f"; rivals {control:.2f}, which is the machine's own change" if control else ""
        lines.append(f"  geometric mean: {mean:.2f}{beside}")
    count = {word: sum(row["verdict"] == word for row in rows) for word in ("faster", "slower")}
    lines += ["", f"{count['faster']} faster, {count['slower']} slower, of {len(rows)}; "
                  f"the rest is within {NOISE:.0%}, or within the spread of the runs"]
    only = abs(len(before["results"]) - len(rows)) + abs(len(after["results"]) - len(rows))
    lines += [f"{only} cases are in one file only"] if only else []
    return "\n".join([*lines, *(f"! {words}" for words in differences(before, after))])
