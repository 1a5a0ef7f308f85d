"""The command line, run as users run it: in a process of its own."""

import os
import subprocess
import sys

import fastlstm as fl


def fastlstm(*arguments, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, "-m", "fastlstm", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


def succeeds(*arguments, **kwargs):
    result = fastlstm(*arguments, **kwargs)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def fails(*arguments, **kwargs):
    """The one line a mistake gets."""
    result = fastlstm(*arguments, **kwargs)
    assert result.returncode == 2, result
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("fastlstm: error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def save_model(folder):
    """A saved model that takes 3 features and gives 2, and the model itself."""
    made = fl.Sequential(fl.LSTM(3, 8, rng=1), fl.Linear(8, 2, rng=2))
    path = folder / "model.safetensors"
    made.save(path, metadata={"note": "made by a test"})
    return path, made
