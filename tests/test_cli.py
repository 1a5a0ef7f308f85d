"""The command line but for its `run`: info, inspect, bench, mistakes, signals, pipes, progress."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from command_line import fails, save_model, succeeds

import fastlstm as fl


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("cli"))


def test_info():
    text = succeeds("info")
    assert fl.__version__ in text
    assert f"{fl.isa()} (of {', '.join(fl.available_isas())})" in text
    assert re.search(r"^threads +\d+ \(.+\)$", text, re.MULTILINE)


@pytest.mark.parametrize("command", ["info", "run", "bench --quick", "inspect MODEL --plan"])
def test_a_number_of_threads_in_the_environment_that_is_none(model, command, tmp_path):
    words = command.replace("MODEL", str(model[0])).split()
    line = fails(*words, cwd=tmp_path, FASTLSTM_NUM_THREADS="abc")
    assert "FASTLSTM_NUM_THREADS='abc' must be an integer in 0..1024" in line


def test_help_names_the_commands():
    text = succeeds("--help")
    assert all(word in text for word in ("info", "run", "inspect", "bench"))
    assert "MODEL" in succeeds("run", "--help")


def test_import_of_the_command_line_is_light():
    code = (
        "import sys, fastlstm; before = set(sys.modules); import fastlstm.commands;"
        "print(*sorted(m for m in set(sys.modules) - before if m.startswith(('fastlstm', 'matplotlib'))))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["fastlstm._terminal", "fastlstm.commands", "fastlstm.commands.parser"]


# ---- inspect, bench ----------------------------------------------------------------------


def test_inspect(model):
    text = succeeds("inspect", model[0])
    for word in ("LSTM(3, 8", "0.weight_ih_l0", "(32, 3)", "1.bias", "made by a test"):
        assert word in text
    parameters = sum(weight.size for weight in model[1].state_dict().values())
    assert f"{parameters:,} parameters, {4 * parameters:,} bytes" in text


def test_bench(tmp_path):
    out = tmp_path / "bench.json"
    text = succeeds("bench", "--quick", "--group", "step", "--threads", 1, "--json", out)
    assert "GFLOP/s" in text
    written = json.loads(out.read_text())
    assert written["settings"]["threads"] == 1
    assert {row["group"] for row in written["results"]} == {"step"}
    for row in written["results"]:
        assert set(row["results"]) == {"fastlstm", "fastlstm.step"}
        assert row["gflops"] > 0
    assert "geometric mean: 1.00" in succeeds("bench", "compare", out, out)


# ---- mistakes ----------------------------------------------------------------------------


def test_no_command_and_unknown_command():
    assert "COMMAND" in fails()
    assert "'fly'" in fails("fly")
    assert "--fast" in fails("info", "--fast")


def test_cut_off_model(tmp_path, model):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(model[0].read_bytes()[:-7])
    assert "cannot load" in fails("inspect", path)


def test_bad_environment(model):
    assert "FASTLSTM_ISA='abacus'" in fails("info", FASTLSTM_ISA="abacus")
    assert "FASTLSTM_ISA='abacus'" in fails("inspect", model[0], FASTLSTM_ISA="abacus")
    assert "FASTLSTM_GEMM" in fails("info", FASTLSTM_GEMM="abacus")


def test_bad_bench(tmp_path):
    assert "groups are step, stream" in fails("bench", "--group", "nonsense")
    assert "peers are torch, onnxruntime" in fails("bench", "--peers", "nonsense")
    assert "choices: " in fails("bench", "--isa", "nonsense")
    for text in ("0", "-1", "abc", "1025", "99999", "9" * 5000):
        assert f"must be an integer in 1..1024, got {text!r}" in fails("bench", "--threads", text)
    assert "positive integer" in fails("bench", "--rounds", "0")
    assert "there is no folder" in fails("bench", "--quick", "--json", tmp_path / "no" / "b.json")
    assert "there is no folder" in fails("bench", "--quick", "--plot", tmp_path / "no" / "b.png")
    assert "compare BEFORE.json AFTER.json" in fails("bench", "compare", "b.json")


# ---- signals, pipes, terminals -----------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="signals as on POSIX")
def test_ctrl_c_gives_130():
    process = subprocess.Popen(
        [sys.executable, "-m", "fastlstm", "bench", "--group", "throughput"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # what a shell starts in the background ignores Ctrl-C, and so do its children, these tests among them
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    time.sleep(2.0)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors


@pytest.mark.skipif(os.name == "nt", reason="pipes as on POSIX")
def test_closed_pipe_costs_no_files(tmp_path):
    end, start = os.pipe()
    os.close(end)
    command = [sys.executable, "-m", "fastlstm", "run", "-o", str(tmp_path / "mine.csv")]
    with os.fdopen(start, "w") as closed:
        subprocess.run(command, stdout=closed, check=False)
    assert (tmp_path / "mine.csv").exists()


@pytest.mark.skipif(os.name == "nt", reason="pipes as on POSIX")
def test_closed_pipe_is_silent(model):
    end, start = os.pipe()
    os.close(end)  # nobody will ever read
    with os.fdopen(start, "w") as closed:
        result = subprocess.run(
            [sys.executable, "-m", "fastlstm", "inspect", str(model[0])],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.stderr == ""
    assert result.returncode == 141


class Terminal:
    """A stream that says it is a terminal and remembers what was written."""

    def __init__(self, tty=True):
        self.text, self._tty = "", tty

    def isatty(self):
        return self._tty

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_progress_shows_after_a_second_and_wipes_itself(monkeypatch):
    from fastlstm import _progress

    clock = iter([0.0, 0.5, 2.0, 2.01, 3.0])
    monkeypatch.setattr(_progress.time, "perf_counter", lambda: next(clock))
    terminal = Terminal()
    with _progress.Progress(4, "work", terminal) as bar:
        bar.advance()
        assert terminal.text == ""  # half a second
        bar.advance(note="half")
        assert "work [############............]  50%  2 s left  half" in terminal.text
        drawn = terminal.text
        bar.advance()
        assert terminal.text == drawn  # too soon to draw again
        bar.advance()
        assert "100%" in terminal.text
    assert terminal.text.endswith(" \r")


def test_progress_is_silent_without_a_terminal(monkeypatch):
    from fastlstm import _progress

    monkeypatch.setattr(_progress, "_FIRST_AFTER", 0.0)
    stream = Terminal(tty=False)
    with _progress.Progress(2, "work", stream) as bar:
        bar.advance(2)
    assert stream.text == ""
