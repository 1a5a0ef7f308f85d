"""README.md: its Python runs, block after block, as a reader pastes it; its commands are those that work."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_bytes
import pytest
import torch_bytes

import fastlstm as fl

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
PACKAGE = Path(fl.__file__).resolve().parent


def statements(block):
    """The statements of a block, one after the other, as text."""
    lines = block.splitlines(keepends=True)
    tree = ast.parse(block)
    return ["".join(lines[node.lineno - 1 : node.end_lineno]) for node in tree.body if node.col_offset == 0]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with the files that the README says are the reader's own."""
    weights = {f"encoder.lstm.{name}": array for name, array in fl.LSTM(40, 16, rng=0).state_dict().items()}
    (tmp_path / "model.pt").write_bytes(torch_bytes.state_dict(weights))
    (tmp_path / "model.onnx").write_bytes(onnx_bytes.recurrent(hidden_size=4))
    shutil.copy(ROOT / "tests" / "data" / "keras_sample.keras", tmp_path / "model.keras")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def torch_model():
    try:
        import torch
    except ImportError:
        return None
    return torch.nn.Sequential(torch.nn.LSTM(40, 16, batch_first=True))


def test_every_block_runs_in_order(folder):
    """What needs torch or onnx is left out where that is not installed, and nothing else is."""
    names, left_out = {"torch_model": torch_model()}, []
    for place, block in enumerate(BLOCKS):
        for statement in statements(block):
            needs = [name for name in ("torch", "onnx") if re.search(rf"needs {name}\b", statement)]
            if any(missing(name) for name in needs):
                left_out.append(statement)
                continue
            exec(compile(statement, f"README.md, block {place + 1}", "exec"), names)
    assert len(BLOCKS) == 4
    assert len(left_out) <= 3
    assert (folder / "model.safetensors").is_file()
    assert (folder / "training").is_file()
    assert names["layers"].keys() == {"rnn"}
    assert np.isfinite(names["loss"])


def missing(name):
    try:
        __import__(name)
    except ImportError:
        return True
    return False


def test_what_the_blocks_say_of_their_results(folder):
    names = {}
    exec(BLOCKS[0], names)
    trace = names["trace"]
    assert [len(field) for field in trace] == [2] * 6  # "lists over layers"
    assert trace.f[0].shape == (100, 8, 128)
    assert names["y"].shape == (100, 8, 128)
    assert isinstance(names["lstm"], fl.LSTM)


@pytest.mark.parametrize("where", ["in the root of a clone", "elsewhere"])
def test_the_first_block_pasted_into_python(tmp_path, where):
    """Command 1 leaves its reader in the root of a clone, where Python finds the source first."""
    if where != "elsewhere" and PACKAGE == ROOT / "fastlstm":
        pytest.skip("installed with pip install -e: the clone is the package")
    if where != "elsewhere":
        leave = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
        shutil.copytree(PACKAGE, tmp_path / "fastlstm", ignore=leave)
    given = BLOCKS[0] + "\nprint('done', y.shape)\n"
    for options in ([], ["-i", "-q"]):  # from a pipe, and as the prompt takes it
        result = subprocess.run(
            [sys.executable, *options], input=given, cwd=tmp_path, capture_output=True, text=True, timeout=60,
            check=False,
        )
        assert result.stdout.splitlines() == ["done (100, 8, 128)"], result.stderr
        assert "Traceback" not in result.stderr


def test_the_commands_are_those_of_the_project():
    """.ci/run runs both; here only that they name what there is."""
    shell = re.findall(r"^```sh\n(.*?)^```", TEXT, re.M | re.S)
    assert shell == ["python -m pip install . && fastlstm run\n", "python -m pip install '.[test]' && pytest\n"]


def test_files_that_are_named_are_there():
    for name in re.findall(r"\]\(([^)#]+)\)|`((?:examples|docs|src_c)/\S*?)`", TEXT):
        path = name[0] or name[1]
        assert path.startswith("http") or (ROOT / path).exists(), path
    for name in re.findall(r"`(\w+\.py)`", TEXT):
        assert (ROOT / "examples" / name).is_file(), name
