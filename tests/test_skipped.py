"""Tests that were skipped for want of a package are announced, with the commands that run them (tests/conftest.py)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
HERE = """
import pytest

@pytest.mark.parametrize("k", range(3))
def test_one(k):
    pytest.importorskip("no_such_package")

def test_two():
    pytest.importorskip("another_missing.part")

def test_three():
    pytest.importorskip("helper_of_tests")

def test_runs():
    pass

def test_other_reason():
    pytest.skip("this machine has no avx512")
"""
WHOLE_FILE = "import pytest\npytest.importorskip('no_such_package')\n\ndef test_four():\n    pass\n"


@pytest.fixture
def run(tmp_path):
    """A function of arguments that runs pytest on a few files beside this project's conftest.py; the text it gives."""
    folder = tmp_path / "tests"
    folder.mkdir()
    shutil.copy(CONFTEST, folder)
    (folder / "test_here.py").write_text(HERE)
    (folder / "test_whole.py").write_text(WHOLE_FILE)
    (folder / "helper_of_tests.py").write_text("import no_such_package\n")

    def pytest_on(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", *arguments, str(folder)], text=True,
            capture_output=True, cwd=tmp_path, env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, timeout=60,
            check=False,
        ).stdout

    return pytest_on


def test_what_was_skipped_is_announced_with_the_commands_that_run_it(run):
    text = run()
    told = "another_missing (1 test), no_such_package (4 tests and 1 file of tests)"
    assert f"5 tests and 1 file of tests were skipped for want of packages: {told}\n" in text
    command = "python -m pip install another_missing no_such_package && pytest"
    assert f"To run them: {command} --needing another_missing,no_such_package\n" in text
    assert text.count("skipped for want of") == 1
    one = run("--needing", "no_such_package")
    assert "another_missing" not in one
    assert "5 skipped, 3 deselected" in one
    both = run("--needing", "another_missing,no_such_package")  # remembered from the last whole run
    assert "6 skipped, 2 deselected" in both
    assert f"skipped for want of packages: {told}\n" in both


def test_one_test_is_one_test(run, tmp_path):
    (tmp_path / "tests" / "test_here.py").write_text(
        "import pytest\n\ndef test_one():\n    pytest.importorskip('no_such_package')\n"
    )
    (tmp_path / "tests" / "test_whole.py").unlink()
    assert "1 test was skipped for want of a package: no_such_package\n" in run()


def test_nothing_is_said_where_nothing_was_skipped(run, tmp_path):
    (tmp_path / "tests" / "test_here.py").write_text("def test_runs():\n    pass\n")
    (tmp_path / "tests" / "test_whole.py").unlink()
    text = run()
    assert "1 passed" in text
    assert "for want of" not in text
