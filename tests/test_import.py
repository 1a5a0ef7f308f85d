"""What `import fastlstm` loads, what it shows, and what it does in the folder of a clone."""

import ast
import importlib
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastlstm as fl
from fastlstm import losses, optim, runtime

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(fl.__file__).resolve().parent

# Beyond what NumPy has loaded. A module that the first call needs may stand here; one that every program needs, not.
NOT_AT_IMPORT = (
    "scipy", "torch", "onnx", "keras", "h5py", "matplotlib", "safetensors", "argparse", "asyncio", "concurrent", "csv",
    "email", "fcntl", "http", "importlib.metadata", "json", "logging", "mmap", "multiprocessing", "shutil", "socket",
    "sqlite3", "ssl", "subprocess", "tempfile", "unittest", "urllib.request", "xml", "zipfile", "zlib",
    *(f"fastlstm.{name}" for name in (
        "_blas", "_progress", "_terminal", "benchmark", "checkpoint", "commands", "convert", "files", "forecast",
        "gradients", "losses", "machine", "onnx", "optim", "planning", "read_files", "reference", "safetensors_read",
        "torch", "whole_files",
    )),
)
MOST_MODULES = 32  # of ours; 29 at the time of writing


def python(*arguments, cwd=None, given=None):
    return subprocess.run(
        [sys.executable, *arguments], input=given, cwd=cwd, capture_output=True, text=True, check=False, timeout=60
    )


def loaded(code):
    """The modules that `code` loads, beyond those of NumPy."""
    result = python("-c", f"import sys, numpy\nhad = set(sys.modules)\n{code}\nprint(sorted(set(sys.modules) - had))")
    assert result.returncode == 0, result.stderr
    return set(ast.literal_eval(result.stdout))


def test_import_loads_what_every_program_needs_and_no_more():
    found = loaded("import fastlstm")
    assert "fastlstm._core" in found
    heavy = {name for name in found for one in NOT_AT_IMPORT if name == one or name.startswith(f"{one}.")}
    assert heavy == set()
    assert len([name for name in found if name.startswith("fastlstm")]) <= MOST_MODULES


def test_a_name_loads_what_it_needs():
    call = "import fastlstm as fl, numpy as np\nfl.LSTM(3, 4)(np.zeros((2, 1, 3), np.float32))"
    assert not {name for name in loaded(call) if ".convert" in name or name.endswith((".losses", ".optim"))}
    found = loaded("import fastlstm as fl\nfl.from_torch")
    assert "fastlstm.convert.torch_models" in found
    assert not {name for name in found if "keras" in name or "onnx" in name}
    assert "fastlstm.optim" in loaded("import fastlstm as fl\nfl.optim.Adam")
    assert "fastlstm.losses" not in loaded("import fastlstm as fl\nfl.optim.Adam")


def test_every_public_name_is_there_and_is_what_its_module_has():
    for name in fl.__all__:
        value = getattr(fl, name)
        assert value is getattr(fl, name)  # the second time from the module itself
        assert name in vars(fl)
    later = python("-c", "import fastlstm as fl\nfor n in fl.__all__: getattr(fl, n)\nprint(len(fl.__all__))")
    assert later.stdout.strip() == str(len(fl.__all__)), later.stderr
    assert fl.from_torch is importlib.import_module("fastlstm.convert.torch_models").from_torch


def test_stars_bring_all_of_it():
    code = "from fastlstm import *\nprint(*sorted(n for n in dir() if n == '__version__' or not n.startswith('_')))"
    assert python("-c", code).stdout.split() == sorted(fl.__all__)


@pytest.mark.parametrize("form", [
    "from fastlstm import from_onnx, losses, FileFormatError, onnx_missing",
    "import fastlstm; fastlstm.nothing", "import fastlstm; fastlstm.convert.nothing",
])
def test_names_that_are_not_there(form):
    result = python("-c", form)
    assert result.returncode == 1
    assert "nothing" in result.stderr or "cannot import name 'onnx_missing'" in result.stderr
    assert hasattr(fl, "from_torch") and not hasattr(fl, "nothing")


def test_modules_by_their_names():
    code = """
import fastlstm as fl
print(fl.convert.__name__, fl.convert.torch_models.__name__, fl.losses.__name__, "torch_models" in dir(fl.convert))
from fastlstm import convert, optim, reference
from fastlstm.convert import onnx_read
print(convert is fl.convert, onnx_read is fl.convert.onnx_read, reference.__name__)
"""
    result = python("-c", code)
    assert result.stdout.splitlines() == [
        "fastlstm.convert fastlstm.convert.torch_models fastlstm.losses True", "True True fastlstm.reference",
    ], result.stderr


def test_functions_that_come_later_can_be_looked_at():
    code = """
import copy, inspect, pickle, sys
sys.modules["torch"] = sys.modules["onnx"] = None  # or getmembers imports them, which takes long
import fastlstm as fl
print(list(inspect.signature(fl.from_torch).parameters)[0], bool(inspect.getdoc(fl.to_onnx)))
print(pickle.loads(pickle.dumps(fl.from_keras)) is fl.from_keras, copy.deepcopy(fl.Checkpoint) is fl.Checkpoint)
print(issubclass(fl.FileFormatError, ValueError), dict(inspect.getmembers(fl))["from_onnx"] is fl.from_onnx)
"""
    result = python("-c", code)
    assert result.stdout.splitlines() == ["source True", "True True", "True True"], result.stderr


def test_threads_may_ask_for_a_name_at_once():
    code = """
import threading
import fastlstm as fl
found, start = [], threading.Barrier(8)
def ask():
    start.wait()
    found.append(fl.from_torch)
threads = [threading.Thread(target=ask) for _ in range(8)]
[t.start() for t in threads], [t.join() for t in threads]
print(len(set(found)), len(found))
"""
    assert python("-c", code).stdout.split() == ["1", "8"]


# ---- dir() ------------------------------------------------------------------------------------------------------


def test_dir_lists_public_names_alone():
    assert set(fl.__all__) <= set(dir(fl)) <= {*fl.__all__, "onnx", "torch"}
    assert dir(fl) == sorted(dir(fl))


def test_dir_names_the_packages_that_can_be_imported_here(monkeypatch):
    for name in ("onnx", "torch"):
        monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed
    assert not {"onnx", "torch"} & set(dir(fl))
    monkeypatch.undo()
    for name in ("onnx", "torch"):
        here = importlib.util.find_spec(name) is not None
        assert (name in dir(fl)) == here


@pytest.mark.parametrize(("module", "some"), [
    (losses, {"cross_entropy", "mse"}), (optim, {"SGD", "Adam", "Optimiser", "clip_grad_norm"}),
    (runtime, {"isa", "show_config", "machine", "num_threads"}),
])
def test_dir_of_modules(module, some):
    assert some <= set(dir(module)) == set(module.__all__)
    for name in module.__all__:
        assert getattr(module, name).__module__.startswith("fastlstm")


@pytest.mark.parametrize("name", ["torch", "onnx"])
def test_dir_of_packages_for_others(name):
    pytest.importorskip(name)
    package = getattr(fl, name)
    assert set(dir(package)) == set(package.__all__)
    assert all(hasattr(package, one) for one in dir(package))


# ---- the stub says the same -------------------------------------------------------------------------------------


def test_the_stub_has_the_same_names_from_the_same_modules():
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    told = {alias.asname: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(told) == set(fl.__all__)
    for name, module in told.items():
        value = getattr(fl, name)
        of = importlib.import_module(f"fastlstm.{module}") if module else importlib.import_module("fastlstm")
        assert getattr(of, name) is value, name
    [names] = [node.value for node in stub.body if isinstance(node, ast.Assign)]
    assert ast.literal_eval(names) == fl.__all__


# ---- in the folder of a clone -----------------------------------------------------------------------------------


@pytest.fixture
def clone(tmp_path):
    """A folder with the package's source in it, nothing compiled."""
    if PACKAGE == ROOT / "fastlstm":
        pytest.skip("installed with pip install -e: the clone is the package")
    leave = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", "*.pyx", "*.pxi")
    shutil.copytree(PACKAGE, tmp_path / "clone" / "fastlstm", ignore=leave)
    return tmp_path / "clone"


LOOK = """
import sys
import numpy as np
import fastlstm as fl
import fastlstm.losses, fastlstm.forecast as fc
from fastlstm import _core, reference
print(fl.__file__)
assert fl is sys.modules["fastlstm"] and fl.losses is sys.modules["fastlstm.losses"]
assert fl.from_torch.__code__.co_filename.startswith(fl.__path__[0])
for name, module in list(sys.modules.items()):
    if name.startswith("fastlstm"):
        assert module.__file__.startswith(fl.__path__[0]), name
y, _ = fl.LSTM(3, 4, rng=0)(np.zeros((2, 1, 3), np.float32))
"""


@pytest.mark.parametrize("way", ["-c", "standard input", "a script", "-m"])
def test_the_installed_package_is_found_from_a_clone(clone, way):
    """What a user does behind `pip install .`: Python, in the root of the clone."""
    if way == "-c":
        result = python("-c", LOOK, cwd=clone)
    elif way == "standard input":
        result = python(cwd=clone, given=LOOK)
    elif way == "a script":
        (clone / "mine.py").write_text(LOOK)
        result = python("mine.py", cwd=clone)
    else:
        result = python("-m", "fastlstm", "info", cwd=clone)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    if way != "-m":
        assert Path(result.stdout.strip()) == PACKAGE / "__init__.py"


def test_ctrl_c_is_watched_once_from_a_clone(clone):
    code = (
        "import signal, sys; sys.argv[0] = 'fastlstm'\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background has it ignored
        "from fastlstm import _interrupt\n"
        "assert signal.getsignal(signal.SIGINT) is _interrupt._end\n"
        "_interrupt.unwatch()\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    )
    result = python("-c", code, cwd=clone)
    assert result.returncode == 0, result.stderr


def test_a_clone_without_an_installed_package_says_what_to_do(clone):
    options = ("-S", "-E", "-c")  # without site-packages and PYTHONPATH, so nothing is installed
    numpy = Path(importlib.import_module("numpy").__file__).parent.parent
    code = f"import sys; sys.path.append({str(clone.parent / 'libraries')!r}); import fastlstm"
    (clone.parent / "libraries").mkdir()
    (clone.parent / "libraries" / "numpy").symlink_to(numpy / "numpy")
    result = python(*options, code, cwd=clone)
    assert result.returncode == 1
    assert result.stderr.count("Traceback") == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ") and "python -m pip install ." in last and str(clone) in last
    result = python("-S", "-E", "-m", "fastlstm", "info", cwd=clone)
    assert result.returncode == 2
    assert result.stderr.startswith("fastlstm: ") and result.stderr.count("\n") == 1


def test_a_core_that_cannot_be_loaded_is_told_as_it_is(tmp_path):
    """Installed, but broken: the reason is the loader's, and nothing else is taken in its place."""
    shutil.copytree(PACKAGE, tmp_path / "fastlstm", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    core = next(path for path in PACKAGE.iterdir() if path.name.startswith("_core.") and path.suffix in (".so", ".pyd"))
    (tmp_path / "fastlstm" / core.name).write_bytes(b"no library")
    result = python("-c", "import fastlstm", cwd=tmp_path)
    assert result.returncode == 1
    assert "pip install" not in result.stderr
    assert core.name in result.stderr


def test_processes_that_are_spawned_in_a_clone_find_it_too(clone):
    (clone / "many.py").write_text(
        "import multiprocessing\nimport fastlstm as fl\n\ndef work(n):\n    return fl.LSTM(2, n).num_parameters\n\n"
        "if __name__ == '__main__':\n    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(work, [3]))\n"
    )
    result = python("many.py", cwd=clone)
    assert result.stdout.strip() == f"[{fl.LSTM(2, 3).num_parameters}]", result.stderr
