"""What is built and installed: the right files, compiled, named and numbered once."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastlstm
from fastlstm import _core

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(fastlstm.__file__).resolve().parent


def is_editable():
    direct = importlib.metadata.distribution("fastlstm").read_text("direct_url.json")
    return bool(direct) and json.loads(direct).get("dir_info", {}).get("editable", False)


def python(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True,
        check=False, timeout=60,
    )


# ---- what a test imports ----------------------------------------------------------------------------------------


def test_the_installed_package_is_tested():
    if is_editable():
        pytest.skip("installed with pip install -e: the clone is the package")
    assert PACKAGE != ROOT / "fastlstm"
    assert Path(importlib.metadata.distribution("fastlstm").locate_file("fastlstm")).resolve() == PACKAGE


def test_the_core_is_compiled_and_lies_beside_the_package():
    core = Path(_core.__file__).resolve()
    assert core.parent == PACKAGE
    assert core.suffix in (".so", ".pyd")


def test_a_process_started_by_a_test_imports_the_same():
    result = python("-c", "import fastlstm; print(fastlstm.__file__)", cwd=Path.cwd())
    assert Path(result.stdout.strip()).resolve() == PACKAGE / "__init__.py"


def test_tests_run_outside_the_clone():
    assert not Path.cwd().is_relative_to(ROOT)


# ---- what is installed ------------------------------------------------------------------------------------------


def test_version_has_one_source():
    text = (ROOT / "fastlstm" / "_version.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "(.*)"$', text, re.MULTILINE)[1]
    assert fastlstm.__version__ == version == importlib.metadata.version("fastlstm")
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert not re.search(r"^version\s*=\s*\"", settings, re.MULTILINE)
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_c_header_agrees_with_the_version():
    header = (ROOT / "src_c" / "fastlstm.h").read_text(encoding="utf-8")
    parts = [re.search(rf"#define FL_VERSION_{part} (\d+)", header)[1] for part in ("MAJOR", "MINOR")]
    assert parts == fastlstm.__version__.split(".")[:2]


def test_files_that_must_be_there():
    for name in ("py.typed", "_core.pyi", "data/sunspots.csv", "data/README.md"):
        assert (PACKAGE / name).is_file(), name


def test_sources_are_not_installed():
    if is_editable():
        pytest.skip("installed with pip install -e: the clone is the package")
    assert not [path.name for path in PACKAGE.rglob("*") if path.suffix in (".pyx", ".pxd", ".c", ".h")]
    assert not (PACKAGE.parent / "tests").exists()


def test_console_script():
    scripts = importlib.metadata.entry_points(group="console_scripts", name="fastlstm")
    assert [script.value for script in scripts] == ["fastlstm.commands:main"]


def test_license():
    metadata = importlib.metadata.metadata("fastlstm")
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert "BSD 3-Clause License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


# ---- setup.py ---------------------------------------------------------------------------------------------------


@pytest.fixture
def setup_py(monkeypatch):
    """setup.py as a module, not run; skips where its build requirements are missing."""
    for module in ("Cython", "setuptools"):
        pytest.importorskip(module)
    monkeypatch.chdir(ROOT)
    namespace = {"__name__": "setup_py", "__file__": str(ROOT / "setup.py")}
    exec(compile((ROOT / "setup.py").read_text(encoding="utf-8"), "setup.py", "exec"), namespace)
    return namespace


def test_every_source_and_header_is_known_to_the_build(setup_py):
    engine = {str(path.relative_to(ROOT).as_posix()) for path in (ROOT / "src_c").rglob("*") if path.is_file()}
    core = setup_py["EXTENSIONS"][0]
    assert {name for name in core.sources if name.startswith("src_c")} == {n for n in engine if n.endswith(".c")}
    for extension in setup_py["EXTENSIONS"]:
        assert set(extension.depends) == {name for name in engine if name.endswith((".h", ".def"))}


def test_flags(setup_py):
    compiler, _ = setup_py["flags"](msvc=False)
    assert {"-std=c11", "-fno-math-errno", "-ffp-contract=off", "-fvisibility=hidden"} <= set(compiler)


# ---- the process ------------------------------------------------------------------------------------------------


def test_import_leaves_denormals_and_the_environment_alone():
    code = (
        "import os, numpy as np; before = dict(os.environ); import fastlstm; "
        "print(np.float32(1e-38) / np.float32(1e5) > 0, before == dict(os.environ))"
    )
    assert python("-c", code, cwd=Path.cwd()).stdout.split() == ["True", "True"]
