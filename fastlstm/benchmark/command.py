"""What the options of ``fastlstm bench`` mean, once parsed; a user's mistake is a `BadRequest`, in one line."""

import os
import time
from pathlib import Path

import fastlstm as fl
from fastlstm import _core

from .._progress import Progress
from .._terminal import shown
from . import cases, ceilings, compare, contestants, measure, page, problem, processors, report, stored, tables

ROUNDS, SHORT_ROUNDS, QUICK_ROUNDS = 9, 5, 3
SHORT_SECONDS = 300  # a short run ends within
REREADINGS = 2  # of the ceilings, after each group
PICTURES = (".png", ".pdf", ".svg")


class BadRequest(ValueError):
    """Something the user can put right."""


def run(arguments):
    """Run the command; arguments: the parsed options."""
    if arguments.what:
        _about_files(arguments.what, arguments)
        return
    for name in ("docs", "plot_dir"):
        if getattr(arguments, name):
            raise BadRequest(f"--{name.replace('_', '-')} belongs to bench report")
    if arguments.quick and arguments.short:
        raise BadRequest("--quick and --short exclude each other")
    groups = _names(arguments.group, cases.GROUPS, "group")
    peers = _names(arguments.peers, contestants.PEERS, "peer") if arguments.peers != ["none"] else []
    _check_picture(arguments.plot)
    threads = arguments.threads or fl.get_num_threads()
    try:
        if arguments.isa:
            _force(arguments.isa)
        with fl.num_threads(threads):  # a rival that sets OpenMP's number changes ours no more
            if arguments.scaling and fl.get_num_threads() < 2:
                raise BadRequest("--scaling compares one thread with several; only one is allowed here")
            _bench(arguments, groups, peers, fl.get_num_threads())
    finally:
        if arguments.isa:
            _core.force_isa(None)


def _names(given, known, what):
    """The names of an option that may be repeated, and may hold several with commas between."""
    names = [name for text in given or () for name in text.split(",")]
    for name in names:
        if name not in known:
            raise BadRequest(f"unknown {what} {name!r}; {what}s are {', '.join(known)}")
    return list(dict.fromkeys(names))


def _check_picture(path):
    if not path:
        return
    if Path(path).suffix.lower() not in PICTURES:
        raise BadRequest(f"cannot draw {path}: the suffix must be one of {', '.join(PICTURES)}")
    try:
        import matplotlib  # noqa: F401 (a long run must not end in its absence)
    except ImportError:
        raise BadRequest("--plot needs matplotlib") from None


def _force(isa):
    try:
        _core.force_isa(isa)
    except RuntimeError as error:
        raise BadRequest(str(error)) from error


def json_path(arguments):
    """The file that --json means: in an existing folder, one that is named after the processor and the threads."""
    if not arguments.json or not os.path.isdir(arguments.json):
        return arguments.json
    with fl.num_threads(arguments.threads or fl.get_num_threads()):
        stem = processors.file_stem(processors.identity(), fl.get_num_threads(), arguments.isa)
    return os.path.join(arguments.json, f"{stem}.json")


def _about_files(words, arguments):
    """``bench compare`` and ``bench report``."""
    kind, *paths = words
    if kind not in ("compare", "report") or (kind == "compare" and len(paths) != 2):
        told = "compare BEFORE.json AFTER.json, or: report [RESULTS.json ...]"
        raise BadRequest(f"bench takes nothing, or: {told}; got {' '.join(words)}")
    allowed = {"what", "command"} | ({"docs", "plot_dir"} if kind == "report" else set())
    names = [f"--{name.replace('_', '-')}" for name, value in vars(arguments).items()
             if name not in allowed and value not in (None, False)]
    if names:
        told = "no options but --docs and --plot-dir" if kind == "report" else "no options"
        raise BadRequest(f"bench {kind} takes {told}, got {', '.join(names)}")
    try:
        if kind == "compare":
            print(compare.text(*map(stored.read, paths)))
        else:
            page.run(paths, arguments.docs, arguments.plot_dir)
    except (stored.NotComparable, page.CannotReport) as error:
        raise BadRequest(str(error)) from error


def _bench(arguments, groups, peer_names, threads):
    chosen = cases.select(groups, arguments.quick, arguments.dtype, arguments.short)
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else SHORT_ROUNDS if arguments.short else ROUNDS)
    able = [case for case in chosen if problem.has_cell(case)]
    budget = measure.Budget(SHORT_SECONDS, map(cases.weight, able)) if arguments.short else None
    peers, versions = contestants.find_peers(peer_names)
    watch = measure.Watch()
    print(tables.opening(contestants.own_version(), threads, versions), flush=True)
    readings = ceilings.Readings(threads)
    top = readings.take(ceilings.ROUNDS)
    dtypes = [dtype for dtype in ceilings.DTYPES if any(case.dtype == dtype for case in chosen)]
    print(f"\n{tables.ceilings_text(top, threads, dtypes)}\n")
    print(tables.legend(arguments.quick, rounds, _kinds(chosen, peers, arguments.scaling), threads), flush=True)
    timed, notes = [], _doubts(top, threads)  # timed: pairs of a case and its row
    with Progress(sum(rounds + 1 for _ in able), "bench") as bar:
        for group in dict.fromkeys(case.group for case in chosen):
            mine = [case for case in chosen if case.group == group]
            there = [case for case in mine if case in able]
            notes += [f"not yet: {case.group} {case.name}" for case in mine if there and case not in able]
            found = [
                (case, _time(case, peers, arguments.scaling, threads, rounds, top, bar, budget)) for case in there
            ]
            top = readings.take(REREADINGS)
            bar.clear()
            rows = _under(top, found, threads)
            text = tables.group_text(group, rows, arguments.quick) if rows else f"{group}: {_not_yet(group)}"
            print(f"\n{text}", flush=True)
            notes += [] if rows else [f"not yet: {group}"]
            timed += found
    shown = [row["share"] for _, row in timed]
    rows = _under(top, timed, threads)
    notes += [f"{name} is {words}" for name, words in versions.items() if words.startswith("absent")]
    notes += tables.lowered(shown, rows) + tables.above_ceiling(rows)
    notes += tables.fewer_rounds(rows, rounds, SHORT_SECONDS if arguments.short else None)
    notes += report.slots_text(report.slots(rows)) + report.warnings_of(rows, threads) + watch.notes()
    print()
    for words in notes:
        print(f"! {words}")
    settings = {
        "threads": threads, "rounds": rounds, "quick": arguments.quick, "short": arguments.short, "groups": groups,
        "dtype": arguments.dtype, "scaling": arguments.scaling, "isa": arguments.isa,
    }
    _leave(arguments, report.document(rows, top, versions, settings, notes))


def _under(top, timed, threads):
    """The rows of pairs (case, row), with their shares of the ceilings `top`."""
    for case, row in timed:
        row.update(report.ceiling_of(case, row["results"][contestants.OWN]["median_us"] * 1e-6, top, threads))
    return [row for _, row in timed]


def _kinds(chosen, peers, scaling):
    """What the tables will hold; see `tables.legend`."""
    found = {"rivals": peers, "scaling": scaling, "steps": any(case.mode == "step" for case in chosen)}
    found["family"] = any(case.plain for case in chosen)
    return {name for name, there in found.items() if there}


def _not_yet(group):
    return f"{cases.GROUPS[group]}: not yet"


def _doubts(top, threads):
    """Sentences about ceilings that cannot be right for as many threads."""
    gain = top.peak["float32", threads] / top.peak["float32", 1]
    if gain >= 0.75 * threads:
        return []
    return [f"the arithmetic peak of {threads} threads is {gain:.2f} times that of one: they had no cores of their own"]


def _time(case, peers, scaling, threads, rounds, top, bar, budget=None):
    """The row of a case. budget: of a short run, which its preparation counts against, too."""
    seconds, start = budget.share() if budget else measure.CASE, time.perf_counter()
    goal, note = bar.done + rounds + 1, f"{case.group} {case.name}"
    bar.advance(0, note)
    field = contestants.field(problem.Problem(case, threads), peers, scaling)
    bar.advance(note=note)
    if budget:
        seconds -= time.perf_counter() - start
    timings = measure.time_case(field.entries, rounds, tick=lambda: bar.advance(note=note), seconds=seconds)
    bar.advance(goal - bar.done)  # slow contestants get fewer rounds
    return report.row(case, field, timings, top, threads)


def _leave(arguments, document):
    path = arguments.json
    try:
        if arguments.json:
            report.write_json(path, document)
        path = arguments.plot
        if arguments.plot:
            from . import plots

            plots.write(path, document)
    except OSError as error:
        raise BadRequest(f"cannot write {path}: {error.strerror or error}") from error
    for path in filter(None, (arguments.json, arguments.plot)):
        print(f"wrote {shown(path)}")
