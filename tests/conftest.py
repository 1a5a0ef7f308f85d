"""Tests run against the installed package, from a folder outside the clone."""

import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Plans by the built-in constants, so that a test is divided the same way everywhere; tests/test_machine.py is about
# the others. For the programs that tests start too.
os.environ["FASTLSTM_MACHINE"] = "default"

# `python -m pytest` puts the current folder first on sys.path: in a clone, that is the uncompiled tree.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
sys.path.append(str(ROOT / "tests"))  # for grids.py and other files that hold no tests


@pytest.fixture(scope="session", autouse=True)
def elsewhere(tmp_path_factory):
    """`python -m fastlstm`, started by a test, looks in the current folder first: let that be an empty one."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    yield
    os.chdir(before)


@pytest.fixture(scope="session", autouse=True)
def persistent_teams():
    """A team that stalls (the machine is busy) would go on with one thread: here the threads are what is tested.

    tests/test_teams.py is about that.
    """
    try:
        from fastlstm import _core
    except ImportError:  # the tests that need no engine run without one
        yield
        return
    _core.force_team("persists")
    yield
    _core.force_team("adapts")


# ---- favour: described machines on which plans divide as a test wants it --------------------------------------------

CHEAP = {"wake_ns": 1000.0, "wake_each_ns": 50.0, "all_cores_rate": 1.0, "cores": 64.0}
# Weights cost all the time, so that sharing them is worth everything; or nothing, and barriers do.
SHARE_WEIGHTS = {
    **CHEAP, "flops_per_ns": (30.0, 30.0), "private_bytes_per_ns": 1.0, "shared_bytes_per_ns": 1.0,
    "shared_bytes_per_ns_all": 1e5, "barrier_ns": 50.0, "barrier_all_ns": 50.0,
}
SHARE_ROWS = {
    **CHEAP, "private_bytes_per_ns": 1000.0, "shared_bytes_per_ns": 1000.0, "shared_bytes_per_ns_all": 1e5,
    "barrier_ns": 20_000.0, "barrier_all_ns": 100_000.0,
}
FAVOURABLE = {"rows": SHARE_ROWS, "blocks": SHARE_WEIGHTS, "directions": SHARE_WEIGHTS}


@pytest.fixture
def favour():
    """A function that describes a machine on which a split is the best, whatever the instruction set: what runs a
    division is tested, not the plan. Takes "rows", "blocks" or "directions", and ignores what follows a comma."""
    from fastlstm import _core, machine

    machine.settle(2)  # what the first model would do, after which it is the test's turn
    yield lambda name: _core.set_machine({**_core.BUILT_IN, **FAVOURABLE[name.split(",")[0]]})
    _core.set_machine(None)


# ---- isa: a test that asks for it runs on every instruction set of this machine --------------------------------


def pytest_generate_tests(metafunc):
    if "isa" in metafunc.fixturenames:
        from grids import ISAS

        metafunc.parametrize("isa", ISAS, indirect=True)


@pytest.fixture
def isa(request, monkeypatch):
    """Everything packed in the test runs on this set, and is seen to."""
    from fastlstm import _core

    if request.param not in _core.available_isas():
        pytest.skip(f"this machine has no {request.param}")
    packed, real = [], _core.Model

    def model(*arguments):
        packed.append(real(*arguments))
        return packed[-1]

    monkeypatch.setattr(_core, "Model", model)
    _core.force_isa(request.param)
    assert _core.isa() == request.param
    yield request.param
    _core.force_isa(None)
    assert {one.isa for one in packed} <= {request.param}


# ---- --needing MODULES: what the last run skipped because they could not be imported -----------------------------

CACHE = "fastlstm/skipped_for"
skipped = {}  # node id -> module; a file's id when it was skipped as a whole


def pytest_addoption(parser):
    words = "only what the last whole run skipped for want of MODULES (a,b)"
    parser.addoption("--needing", metavar="MODULES", help=words)


def pytest_runtest_logreport(report):
    if report.skipped and isinstance(report.longrepr, tuple):
        words = report.longrepr[2]
        # a helper of tests that imports a package which is not there is named first, the package behind it
        missing = re.search(r"No module named '(\w+)", words) or re.search(r"could not import '(\w+)", words)
        if missing:
            skipped[report.nodeid] = missing[1]


pytest_collectreport = pytest_runtest_logreport


def pytest_collection_modifyitems(config, items):
    wanted = config.getoption("needing")
    if wanted is None:
        return
    ids = [key for key, module in config.cache.get(CACHE, {}).items() if module in wanted.split(",")]
    chosen = [item for item in items if any(item.nodeid == key or item.nodeid.startswith(key + "::") for key in ids)]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


def pytest_sessionfinish(session):
    config = session.config
    if config.getoption("needing") is None and not config.getoption("collectonly") and hasattr(config, "cache"):
        config.cache.set(CACHE, skipped)


def counted(ids):
    """"3 tests and 1 file of tests", of node ids."""
    tests = sum("::" in key for key in ids)
    files = len(ids) - tests
    words = [f"{tests} test{'s' if tests > 1 else ''}"] if tests else []
    return " and ".join([*words, *([f"{files} file{'s' if files > 1 else ''} of tests"] if files else [])])


def pytest_terminal_summary(terminalreporter):
    """Say which packages would let skipped tests run, and how."""
    wanted = terminalreporter.config.getoption("needing")
    mine = {key: module for key, module in skipped.items() if wanted is None or module in wanted.split(",")}
    modules = sorted(set(mine.values()))
    if not modules:
        return
    each = (f"{module} ({counted([key for key in mine if mine[key] == module])})" for module in modules)
    verb, want = ("were", "packages") if len(modules) > 1 else ("was" if len(mine) == 1 else "were", "a package")
    told = ", ".join(each) if len(modules) > 1 else modules[0]
    terminalreporter.write_line(f"{counted(list(mine))} {verb} skipped for want of {want}: {told}")
    run = f"python -m pip install {' '.join(modules)} && pytest --needing {','.join(modules)}"
    terminalreporter.write_line(f"To run them: {run}")
