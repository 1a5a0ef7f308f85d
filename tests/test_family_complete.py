"""Every cell of the engine has all that belongs to a cell: a twin, a class, tests, a benchmark, its equations."""

import re
from pathlib import Path

import pytest
from family import CLASSES, TABLE, VARIANTS

import fastlstm as fl
from fastlstm import _core, reference_time, variants
from fastlstm.benchmark import cases
from fastlstm.layers import Recurrent

OPTIONS = variants.OPTIONS
ROOT = Path(__file__).resolve().parent.parent


def classes():
    """Cell -> names of the exported classes that run it."""
    found = {}
    for name in fl.__all__:
        kind = getattr(fl, name, None)
        if isinstance(kind, type) and issubclass(kind, Recurrent) and kind.cell:
            found.setdefault(kind.cell, []).append(name)
    return found


def equations():
    """Names in quotes in docs/equations.md."""
    return set(re.findall(r'"(\w+)"', (ROOT / "docs" / "equations.md").read_text()))


def missing(cell):
    """What the cell lacks, as a set of words."""
    has = {
        "a twin": cell in reference_time.CELLS,
        "its options": cell in variants.OPTIONS,
        "variants to test": cell in {options.get("cell", "lstm") for options in VARIANTS.values()},
        "activations to test": cell in {options.get("cell") for name, options in TABLE.items() if name not in VARIANTS},
        "a benchmark": cell in {case.cell for case in cases.GRID},
        "an exported class": cell in classes(),
        "a class to test": CLASSES.get(cell) in classes().get(cell, []),
        "equations": cell in equations(),
    }
    return {what for what, there in has.items() if not there}


@pytest.mark.parametrize("cell", _core.cells())
def test_every_cell_of_the_engine_has_everything(cell):
    assert missing(cell) == set()


def test_a_cell_that_has_nothing_is_told():
    assert missing("sparrow") == {
        "a twin", "its options", "variants to test", "activations to test", "a benchmark",
        "an exported class", "a class to test", "equations",
    }


@pytest.mark.parametrize("what, take", [
    ("a twin", lambda patch: patch.delitem(reference_time.CELLS, "gru")),
    ("its options", lambda patch: patch.setattr(variants, "OPTIONS", dict.fromkeys(n for n in OPTIONS if n != "gru"))),
    ("a benchmark", lambda patch: patch.setattr(cases, "GRID", [c for c in cases.GRID if c.cell != "gru"])),
    ("an exported class", lambda patch: patch.setattr(fl, "__all__", [n for n in fl.__all__ if n != "GRU"])),
    ("a class to test", lambda patch: patch.delitem(CLASSES, "gru")),
])
def test_each_thing_is_missed_when_it_is_not_there(monkeypatch, what, take):
    take(monkeypatch)
    assert what in missing("gru")


def test_the_engine_runs_the_whole_family():
    assert sorted(_core.cells()) == sorted(variants.FAMILY) == sorted(CLASSES)
    rows = ROOT / "src_c" / "cells.def"
    if rows.exists():  # a clone, or a source archive
        assert set(re.findall(r"^FL_CELL_ROW\(\w+, *(\w+)", rows.read_text(), re.MULTILINE)) == set(_core.cells())
