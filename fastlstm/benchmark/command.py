"""What the options of ``fastlstm bench`` mean, once parsed; a user's mistake is a `BadRequest`, in one line."""

from pathlib import Path

import fastlstm as fl
from fastlstm import _core

from .._progress import Progress
from .._terminal import shown
from . import cases, ceilings, compare, contestants, measure, problem, report, stored, tables

ROUNDS, QUICK_ROUNDS = 9, 3
PICTURES = (".png", ".pdf", ".svg")


class BadRequest(ValueError):
    """Something the user can put right."""


def run(arguments):
    """Run the command; arguments: the parsed options."""
    if arguments.what:
        _compare(arguments.what, arguments)
        return
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


def _compare(words, arguments):
    if words[0] != "compare" or len(words) != 3:
        raise BadRequest(f"bench takes nothing, or: compare BEFORE.json AFTER.json; got {' '.join(words)}")
    given = {name: value for name, value in vars(arguments).items() if name not in ("what", "command")}
    names = [f"--{name}" for name, value in given.items() if value not in (None, False)]
    if names:
        raise BadRequest(f"bench compare takes no options, got {', '.join(names)}")
    try:
        print(compare.text(*map(stored.read, words[1:])))
    except stored.NotComparable as error:
        raise BadRequest(str(error)) from error


def _bench(arguments, groups, peer_names, threads):
    chosen = cases.select(groups, arguments.quick, arguments.dtype)
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    peers, versions = contestants.find_peers(peer_names)
    watch = measure.Watch()
    print(tables.opening(contestants.own_version(), threads, versions), flush=True)
    top = ceilings.measure(threads)
    dtypes = [dtype for dtype in ("float32", "float64") if any(case.dtype == dtype for case in chosen)]
    print(f"\n{tables.ceilings_text(top, threads, dtypes)}\n")
    print(tables.legend(arguments.quick, rounds, _kinds(chosen, peers, arguments.scaling), threads), flush=True)
    rows, notes = [], _doubts(top, threads)
    with Progress(sum(rounds + 1 for case in chosen if problem.has_cell(case)), "bench") as bar:
        for group in dict.fromkeys(case.group for case in chosen):
            mine = [case for case in chosen if case.group == group]
            able = [case for case in mine if problem.has_cell(case)]
            notes += [f"not yet: {case.group} {case.name}" for case in mine if able and case not in able]
            found = [_time(case, peers, arguments.scaling, threads, rounds, top, bar) for case in able]
            bar.clear()
            text = tables.group_text(group, found, arguments.quick) if found else f"{group}: {_not_yet(group)}"
            print(f"\n{text}", flush=True)
            notes += [] if found else [f"not yet: {group}"]
            rows += found
    notes += [f"{name} is {words}" for name, words in versions.items() if words.startswith("absent")]
    notes += tables.above_ceiling(rows) + report.warnings_of(rows, threads) + watch.notes()
    print()
    for words in notes:
        print(f"! {words}")
    settings = {
        "threads": threads, "rounds": rounds, "quick": arguments.quick, "groups": groups, "dtype": arguments.dtype,
        "scaling": arguments.scaling,
    }
    _leave(arguments, report.document(rows, top, versions, settings, notes))


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


def _time(case, peers, scaling, threads, rounds, top, bar):
    goal, note = bar.done + rounds + 1, f"{case.group} {case.name}"
    bar.advance(0, note)
    field = contestants.field(problem.Problem(case, threads), peers, scaling)
    bar.advance(note=note)
    timings = measure.time_case(field.entries, rounds, tick=lambda: bar.advance(note=note))
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
