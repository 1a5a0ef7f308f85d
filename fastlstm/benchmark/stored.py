"""Files of ``fastlstm bench --json``, read back: everything that is used is checked, what is wrong is said in words."""

import json

from .contestants import OWN, is_own
from .report import FORMAT, READABLE

LEAST, LARGEST = 1e-6, 1e12  # microseconds: a picosecond, eleven days
RATE = 1e18  # operations or bytes a second, beyond any machine
LONGEST = 60  # characters of a value that is shown
KINDS = {dict: "a dict", list: "a list", str: "a string", type(None): "null", int: "a number", float: "a number"}


class NotComparable(ValueError):
    """A file that is no benchmark of ours, or two without a case in common; in words."""


def read(path):
    """A document that `report.write_json` wrote. NotComparable names the file and what is wrong with it."""
    try:
        return _checked(_parsed(path))
    except OSError as error:
        raise NotComparable(f"cannot read {path}: {error.strerror or error}") from error
    except _Wrong as error:
        raise NotComparable(f"cannot read {path}: {error}") from error


def read_whole(path):
    """The same, with all that a page about the run needs. NotComparable names the file and what is wrong with it."""
    found = read(path)
    try:
        return _checked_whole(found)
    except _Wrong as error:
        raise NotComparable(f"cannot read {path}: {error}") from error


def printable(text, most=None):
    """A text without characters that a terminal obeys, and no longer than `most`."""
    text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return text if most is None or len(text) <= most else f"{text[: most - 3]}..."


class _Wrong(Exception):
    """What is wrong with a document, without the name of its file."""


def _parsed(path):
    with open(path, "rb") as file:
        data = file.read()
    if not data.strip():
        raise _Wrong("it is empty")
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise _Wrong("it is no text in UTF-8") from error
    except json.JSONDecodeError as error:
        raise _Wrong(f"it is no JSON, or cut short (line {error.lineno}, column {error.colno})") from error
    except RecursionError as error:
        raise _Wrong("it is no JSON that can be read: too deeply nested") from error
    except ValueError as error:  # a number of thousands of digits
        raise _Wrong(f"it is no JSON that can be read: {printable(str(error), LONGEST)}") from error


def _checked(found):
    if not isinstance(found, dict) or "format" not in found:
        raise _Wrong("it was not written by `fastlstm bench --json`")
    if found["format"] not in READABLE:
        told = printable(repr(found["format"]), LONGEST)
        raise _Wrong(f"its format is {told}, this version of fastlstm reads {FORMAT!r}")
    for name in ("machine", "settings"):
        _part(found, name, dict)
    for place, note in enumerate(_part(found, "notes", list)):
        _check(note, f"notes[{place}]", str)
    rows = _part(found, "results", list)
    if not rows:
        raise _Wrong("results is empty")
    for place, row in enumerate(rows):
        _check_row(row, f"results[{place}]")
    return found


def _check_row(row, where):
    _check(row, where, dict)
    for name in ("group", "name", "dtype"):
        _part(row, name, str, where)
    timings = _part(row, "results", dict, where)
    _part(timings, OWN, dict, f"{where}.results")
    for name, timing in timings.items():
        of = f"{where}.results.{printable(name, LONGEST)}"
        _check(timing, of, dict)
        for key, least in (("median_us", LEAST), ("spread", 0)):
            if key not in timing:
                raise _Wrong(f"{of}.{key} is missing")
            _check_number(timing[key], f"{of}.{key}", least)


def _checked_whole(found):
    for name in ("processor", "isa", "fastlstm"):
        _part(found["machine"], name, str, "machine")
    for name in ("family", "model", "stepping"):
        if found["machine"].get(name) is not None:
            _integer(found["machine"][name], f"machine.{name}")
    threads = _integer(_part(found["settings"], "threads", int, "settings"), "settings.threads")
    for name, words in _part(found, "peers", dict).items():
        _check(words, f"peers.{printable(name, LONGEST)}", str)
    if "date" in found:
        _part(found, "date", str)
    if "slots" in found:
        _integer(_part(_part(found, "slots", dict), "taken_again", int, "slots"), "slots.taken_again")
    ceilings = _part(found, "ceilings", dict)
    for kind in ("flops_per_second", "bytes_per_second"):
        _check_rates(_part(ceilings, kind, list, "ceilings"), f"ceilings.{kind}", threads)
    for place, row in enumerate(found["results"]):
        _check_figures(row, f"results[{place}]")
    return found


def _check_rates(rates, where, threads):
    for place, one in enumerate(rates):
        _check(one, f"{where}[{place}]", dict)
        _part(one, "of", str, f"{where}[{place}]")
        _part(one, "threads", int, f"{where}[{place}]")
        _check_number(_part(one, "best", (int, float), f"{where}[{place}]"), f"{where}[{place}].best", 1, RATE)
    if not any(one["threads"] == threads for one in rates):
        raise _Wrong(f"{where} has no rate of {threads} threads, as many as settings.threads tells")


def _check_figures(row, where):
    _part(row, "bound", str, where)
    _check_number(_part(row, "share", (int, float), where), f"{where}.share", LEAST)
    for name, timing in row["results"].items():
        _part(timing, "undisturbed", int, f"{where}.results.{printable(name, LONGEST)}")
    if _part(row, "ratio", (int, float, type(None)), where) is not None:
        _check_number(row["ratio"], f"{where}.ratio", LEAST)
    if (row["ratio"] is None) != all(is_own(name) for name in row["results"]):
        raise _Wrong(f"{where}.ratio must be a number where another system takes part, else null")


def _integer(value, told):
    if isinstance(value, bool) or not isinstance(value, int):
        raise _Wrong(f"{told} must be an integer, got {_kind(value)}")
    return value


def _part(found, name, kind, where=""):
    """The value of that name, of that kind."""
    told = f"{where}.{name}" if where else name
    if name not in found:
        raise _Wrong(f"{told} is missing")
    return _check(found[name], told, kind)


def _check(value, told, kind):
    if not isinstance(value, kind):
        wanted = KINDS[kind[0] if isinstance(kind, tuple) else kind]
        raise _Wrong(f"{told} must be {wanted}, got {_kind(value)}")
    return value


def _kind(value):
    return str(value).lower() if isinstance(value, bool) else KINDS[type(value)]


def _check_number(value, told, least, most=LARGEST):
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        text = f"the string {printable(repr(value), LONGEST)}" if isinstance(value, str) else _kind(value)
        raise _Wrong(f"{told} must be a number, got {text}")
    if not least <= value <= most:  # nor is a NaN
        text = f"{value}" if isinstance(value, float) or abs(value) < 1e300 else "an integer of hundreds of digits"
        raise _Wrong(f"{told} must be from {least:g} to {most:g}, got {text}")
