"""``fastlstm bench report``: a page in Markdown, and pictures, out of files of results. The same files, the same bytes.

The text goes between two marker comments of an existing page, whose other text stays as it is.
"""

import os
from pathlib import Path

from ..whole_files import write_whole
from . import stored
from .cases import GROUPS
from .contestants import OWN, is_own
from .processors import name_of
from .report import geometric_mean, summary
from .tables import LIMITS, SHOWN, number

FOLDER = "bench/results"
BEGIN = "<!-- results: begin. The command `fastlstm bench report` writes what stands between these two lines. -->"
END = "<!-- results: end -->"


class CannotReport(ValueError):
    """What keeps a page from being made, in words."""


def run(paths, docs=None, plot_dir=None):
    """Make the page.

    paths: files of results, and folders of them (default: `FOLDER`). docs: the page whose text between the markers is
    replaced; None: the text is printed. plot_dir: an existing folder, where a picture for each result is drawn; None:
    none is drawn, and the text refers to pictures beside the page. Raises CannotReport and `stored.NotComparable`,
    before anything is written.
    """
    found = _read(paths or [FOLDER])
    if plot_dir is not None:
        _check_plots(plot_dir)
    beside = os.path.dirname(os.path.abspath(docs)) if docs else "."
    links = os.path.relpath(plot_dir, beside).replace(os.sep, "/") if plot_dir else "."
    made = text(found, "" if links == "." else f"{links}/")
    whole = _between(docs, made) if docs else None
    try:
        for stem, document in found.items() if plot_dir else ():
            from . import plots

            docs_or_plot = os.path.join(plot_dir, picture(stem))
            plots.write(docs_or_plot, document)
        if whole is None:
            print(made, end="")
            return
        docs_or_plot = docs
        write_whole(docs, [whole.encode("utf-8")])
    except OSError as error:
        raise CannotReport(f"cannot write {docs_or_plot}: {error.strerror or error}") from error
    print(f"wrote {stored.printable(docs)}")


def picture(stem):
    """The name of the picture of a result."""
    return f"performance-{stem}.svg"


def _read(paths):
    """Name of a result (that of its file, without suffix) -> document; by name."""
    files = []
    for path in paths:
        inside = sorted(Path(path).glob("*.json")) if os.path.isdir(path) else [path]
        if not inside:
            raise CannotReport(f"there is no .json in the folder {path}")
        files += inside
    found = {}
    for path in files:
        stem = Path(path).stem
        if stem in found:
            raise CannotReport(f"two results have the name {stem}: {path} is the second one")
        found[stem] = stored.read_whole(path)
    return dict(sorted(found.items()))


def _check_plots(folder):
    if not os.path.isdir(folder):
        raise CannotReport(f"--plot-dir must be a folder, got {folder}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise CannotReport("--plot-dir needs matplotlib") from None


def _between(docs, made):
    """The page with the new text between its markers."""
    try:
        page = Path(docs).read_bytes().decode("utf-8")
    except OSError as error:
        raise CannotReport(f"cannot read {docs}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise CannotReport(f"cannot read {docs}: it is no text in UTF-8") from error
    for marker in (BEGIN, END):
        if page.count(marker) != 1:
            raise CannotReport(f"{docs} must have this line once, has it {page.count(marker)} times: {marker}")
    before, rest = page.split(BEGIN)
    if END in before:
        raise CannotReport(f"{docs} has the line that ends the results before the one that begins them: {END}")
    return f"{before}{BEGIN}\n\n{made}\n{END}{rest.split(END)[1]}"


# ---- the text ---------------------------------------------------------------------------------------------------


def text(documents, links=""):
    """The tables. documents: name -> document; links: what stands before the name of a picture."""
    parts = [_overview(documents)] if len(documents) > 1 else []
    return "\n".join([*parts, *(_section(stem, one, links) for stem, one in documents.items())])


def _table(rows):
    """Lines of a table; the first row is the head, the columns behind the first are numbers."""
    head, *rest = rows
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rest]


def _cell(value):
    """A text from a file, as a cell shows it."""
    return stored.printable(str(value), 120).replace("|", "\\|").replace("<", "&lt;")


def _title(document):
    threads = document["settings"]["threads"]
    asked = document["settings"].get("isa")
    forced = f", {_cell(asked)} asked for" if asked else ""
    return f"{_cell(name_of(document['machine']))}, {threads} thread{'' if threads == 1 else 's'}{forced}"


def _groups(rows):
    """Group -> its rows."""
    return {group: [r for r in rows if r["group"] == group] for group in dict.fromkeys(r["group"] for r in rows)}


def _systems(row):
    """System -> microseconds of its fastest contestant in a case: "torch" has two for ragged batches."""
    found = {}
    for name, timing in row["results"].items():
        if not is_own(name):
            system = name.split()[0]
            found[system] = min(found.get(system, timing["median_us"]), timing["median_us"])
    return found


def _ratios(rows, system):
    """"geometric mean (lowest)" of a system's time / fastlstm's; "-" where it takes part in no case."""
    found = [_systems(r)[system] / r["results"][OWN]["median_us"] for r in rows if system in _systems(r)]
    return f"{geometric_mean(found):.2f} ({min(found):.2f})" if found else "-"


def _overview(documents):
    head = ["best other system / fastlstm", *(_title(one) for one in documents.values())]
    each = [_groups(one["results"]) for one in documents.values()]
    groups = dict.fromkeys(group for one in each for group in one)
    lines = [head]
    for group in groups:
        lines.append([_cell(group), *(_best(one[group]) if group in one else "-" for one in each)])
    told = "Geometric mean of each group, in brackets the lowest of its cases; above 1 fastlstm is faster."
    return "\n".join([told, "", *_table(lines), ""])


def _best(rows):
    found = summary(rows)
    return f"{found['ratio']:.2f} ({found['worst_ratio']:.2f})" if found["ratio"] else "-"


def _section(stem, document, links):
    groups = _groups(document["results"])
    systems = dict.fromkeys(system for row in document["results"] for system in _systems(row))
    lines = [f"### {_title(document)}", "", *_table([["", ""], *_facts(document)]), ""]
    lines += [f"![speed of each group, and every case under the ceilings]({links}{picture(stem)})", ""]
    head = ["group", "cases", "best other / fastlstm", "lowest case", *(f"{s} / fastlstm" for s in systems), "share"]
    rows = [head]
    for group, mine in groups.items():
        found = summary(mine)
        worst = _cell(found["worst"]) if found["worst"] else "-"
        each = [_ratios(mine, system) for system in systems]
        rows.append([_cell(group), str(len(mine)), _best(mine), worst, *each, f"{found['share']:.2f}"])
    lines += [*_table(rows), ""]
    for group, mine in groups.items():
        lines += _details(group, mine)
    return "\n".join(lines)


def _facts(document):
    """Pairs: what, and what of this machine and run."""
    machine, settings, ceilings = (document[part] for part in ("machine", "settings", "ceilings"))
    threads = settings["threads"]

    def rates(kind, unit):
        mine = [one for one in ceilings[kind] if one["threads"] == threads]
        return ", ".join(f"{LIMITS.get(one['of'], _cell(one['of']))} {one['best'] * 1e-9:.0f}" for one in mine) + unit

    count = machine.get("processors")
    kind = "quick" if settings.get("quick") else "short" if settings.get("short") else "whole"
    others = [f"{_cell(name)} {_cell(words)}" for name, words in document["peers"].items()]
    timings = [timing for row in document["results"] for timing in row["results"].values()]
    marked = sum(not timing["undisturbed"] for timing in timings)
    again = f"; {document['slots']['taken_again']} slots taken again" if "slots" in document else ""
    return [
        ["processor", _cell(machine["processor"]) + (f", {_cell(count)} processors" if count else "")],
        ["instruction set", _cell(machine["isa"])],
        ["measured", f"{_cell(document.get('date', 'on a day that is not recorded'))}, fastlstm "
                     f"{_cell(machine['fastlstm'])}, a {kind} run of {_cell(settings.get('rounds', '?'))} rounds"],
        ["other systems", ", ".join(others) or "none"],
        ["arithmetic", rates("flops_per_second", " GFLOP/s")],
        ["reading", rates("bytes_per_second", " GB/s")],
        ["disturbed", f"{marked} of {len(timings)} times (marked ~){again}"],
    ]


def _details(group, rows):
    names = list(dict.fromkeys(name for row in rows for name in row["results"]))
    lines = [["case", *(_cell(SHOWN.get(name, name)) for name in names), "best other / fastlstm", "share", "limit"]]
    for row in rows:
        times = (_time(row["results"].get(name)) for name in names)
        ratio = f"{row['ratio']:.2f}" if row["ratio"] else "-"
        limit = LIMITS.get(row["bound"], _cell(row["bound"]))
        lines.append([_cell(row["name"]), *times, ratio, f"{row['share']:.2f}", limit])
    about = _cell(GROUPS.get(group, ""))
    head = f"<details><summary>{_cell(group)}{': ' if about else ''}{about}; microseconds per call</summary>"
    return [head, "", *_table(lines), "", "</details>", ""]


def _time(timing):
    return number(timing["median_us"]) + ("" if timing["undisturbed"] else "~") if timing else "-"
