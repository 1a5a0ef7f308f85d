"""How the command ends: statuses, standard output that takes nothing, Ctrl-C; names that a terminal would obey."""

import contextlib
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from command_line import save_model, succeeds

import fastlstm as fl
from fastlstm import _progress, _terminal, commands

pytestmark = pytest.mark.skipif(os.name == "nt", reason="pipes, devices and signals as on POSIX")
COMMANDS = ["info", "--help", "--version", "inspect MODEL", "convert MODEL OUT", "run MODEL INPUT -o Y.npy", "run"]
NASTY = "a\x1b[31m\u202eb\nc\x07"  # an escape sequence, a bidirectional override, a line of its own, a bell


@pytest.fixture
def place(tmp_path):
    path, _ = save_model(tmp_path)
    np.save(tmp_path / "x.npy", np.zeros((5, 3), np.float32))
    os.rename(path, tmp_path / "MODEL")
    os.rename(tmp_path / "x.npy", tmp_path / "INPUT.npy")
    return tmp_path


def words_of(command):
    return command.replace("INPUT", "INPUT.npy").replace("OUT", "OUT.safetensors").split()


def ends(words, shell, cwd, **options):
    """What a shell's line `shell` gives; COMMAND in it is ``python -m fastlstm`` with these words."""
    command = f'"{sys.executable}" -m fastlstm {" ".join(words)}'
    return subprocess.run(
        ["sh", "-c", shell.replace("COMMAND", command)], capture_output=True, text=True, cwd=cwd, check=False, **options
    )


# ---- standard output ---------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("shell", ["COMMAND >&-", "COMMAND >/dev/full"])
def test_standard_output_that_takes_nothing(place, command, shell):
    if "full" in shell and not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    found = ends(words_of(command), shell, place)
    reason = "No space left on device" if "full" in shell else "it is closed"
    assert found.stderr == f"fastlstm: error: cannot write to standard output: {reason}\n"
    assert found.returncode == 1
    for name in ("OUT.safetensors", "Y.npy"):  # the work is done all the same
        assert (place / name).exists() == (name in words_of(command))
    assert (place / "sunspots-forecast.csv").exists() == (command == "run")


def test_a_result_for_standard_output_that_is_closed(place):
    """It is what the command cannot do, as it is for the report."""
    for name in ("-", "/dev/stdout"):
        found = ends(words_of(f"run MODEL INPUT -o {name}"), "COMMAND >&-", place)
        assert found.stderr == "fastlstm: error: cannot write to standard output: it is closed\n"
        assert found.returncode == 1


def test_standard_error_that_takes_nothing(place):
    for shell in ("COMMAND 2>&-", "COMMAND 2>/dev/full", "COMMAND >&- 2>&-"):
        assert ends(["inspect", "nowhere"], shell, place).returncode == 2
        found = ends(["info"], shell, place)
        assert found.returncode == (1 if ">&- " in shell else 0) and "error" not in found.stdout


# ---- statuses ----------------------------------------------------------------------------


def test_no_memory_left(place):
    """Status 1 and one line, wherever it ends."""
    import resource

    big = fl.LSTM(3, 2048)
    big.save(place / "big.safetensors")
    np.save(place / "x.npy", np.zeros((2, 300_000, 3), np.float32))  # a batch whose state is of 5 GB

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))

    found = subprocess.run(
        [sys.executable, "-m", "fastlstm", "run", "big.safetensors", "x.npy"], capture_output=True, text=True,
        cwd=place, preexec_fn=limit, check=False,
    )
    assert found.stderr.startswith("fastlstm: error: not enough memory") and found.stderr.count("\n") == 1
    assert found.returncode == 1


def test_version_and_statuses_are_told():
    assert succeeds("--version") == f"fastlstm {fl.__version__}\n"
    text = " ".join(succeeds("--help").split())
    assert "exit status: 0 all is done; 1 no memory" in text and "2 arguments or a file" in text


# ---- Ctrl-C ------------------------------------------------------------------------------

STARTS = {
    "module": [sys.executable, "-m", "fastlstm", "info"],
    "script": [sys.executable, "-c", "import sys; sys.argv = ['/usr/bin/fastlstm', 'info']\n"
               "from fastlstm.commands import main\nsys.exit(main())"],
    "program": [sys.executable, "-c", "import fastlstm"],
}


def interrupted(how, module, folder, ignored=False):
    """What comes of Ctrl-C while `module` is being imported."""
    (folder / f"{module}.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(0.2)\nraise ImportError('went on')"
    )
    handler = signal.SIG_IGN if ignored else signal.default_int_handler
    return subprocess.run(
        STARTS[how], capture_output=True, text=True, check=False, cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])},
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
    )


@pytest.mark.parametrize("module", ["numpy", "argparse"])  # of the package, of the command
@pytest.mark.parametrize("how", ["module", "script"])
def test_ctrl_c_while_the_command_is_imported(tmp_path, how, module):
    found = interrupted(how, module, tmp_path)
    assert (found.returncode, found.stderr) == (130, "")


def test_ctrl_c_elsewhere_is_what_it_was(tmp_path):
    assert "KeyboardInterrupt" in interrupted("program", "numpy", tmp_path).stderr
    assert "went on" in interrupted("module", "argparse", tmp_path, ignored=True).stderr


def test_importing_changes_no_handler():
    code = "import signal; a = signal.getsignal(2); import fastlstm; print(signal.getsignal(2) is a)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"


# ---- what a terminal obeys ---------------------------------------------------------------


def is_plain(text):
    return all(c.isprintable() or c == "\n" for c in text)


def test_names_of_files_reach_no_terminal_as_they_are(place, monkeypatch, capsys):
    model, data, odd = place / f"{NASTY}.safetensors", place / f"{NASTY}.npy", place / f"{NASTY}.csv"
    os.rename(place / "MODEL", model)
    os.rename(place / "INPUT.npy", data)
    odd.write_text(f"{NASTY!r}\n".replace("\\x1b", "\x1b").replace("\\u202e", "\u202e") + "1\x1b[2J\n")
    monkeypatch.chdir(place)
    for words in [
        ("inspect", model), ("inspect", place / NASTY), ("inspect", data), ("convert", model, place / f"{NASTY}.x"),
        ("convert", model, place / f"2{NASTY}.safetensors"), ("convert", model, place / NASTY / "b.safetensors"),
        ("convert", model, place / "b.safetensors", "--name", NASTY), ("run", model, data), ("run", model, odd),
        ("run", model, data, "-o", place / f"{NASTY}2.npy"), ("run", model, NASTY),
        ("run", "-o", place / f"3{NASTY}.csv"), ("run", "-o", NASTY), (NASTY,), ("info", NASTY),
        ("bench", "--group", NASTY), ("bench", "compare", NASTY, NASTY),
        ("bench", "--quick", "--group", "step", "--threads", "1", "--rounds", "1", "--json", place / f"{NASTY}.json"),
    ]:
        status = commands.main(list(map(str, words)))
        out, err = capsys.readouterr()
        assert is_plain(out) and is_plain(err) and status in (0, 2) and err.count("\n") == bool(err), words
        assert "c\\x07" in out + err or words in [("inspect", model), ("run", model, data)]
        assert not any(line.startswith("c\\") for line in out.splitlines()), words


def test_progress_bars_move_the_cursor_alone(monkeypatch):
    monkeypatch.setattr(_progress, "_FIRST_AFTER", -1.0)
    text = []

    class Terminal:
        isatty, flush = (lambda self: True), (lambda self: None)
        write = staticmethod(text.append)

    with _progress.Progress(2, f"run {NASTY}", _terminal.PlainOutput(Terminal())) as bar:
        bar.advance(note=NASTY)
    drawn = "".join(text)
    assert "\\x1b[31m\\u202eb" in drawn and "c\\x07" in drawn and is_plain(drawn.replace("\r", ""))
    assert drawn.startswith("\r") and drawn.endswith("\r")


def test_printable():
    assert _terminal.printable("é 漢 \n") == "é 漢 \n"
    assert _terminal.printable("\x1b\x9b\u2028\u2066\udce9\t\r") == "\\x1b\\x9b\\u2028\\u2066\\udce9\\t\\r"
    assert _terminal.shown("a\nb") == "a\\nb"


INTERRUPTED = """
import sys
from fastlstm import commands
from fastlstm.commands import show

def info_command(arguments):
    print("something")
    raise KeyboardInterrupt

show.info_command = info_command
sys.exit(commands.main(["info"]))
"""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize(("words", "stdout", "stderr", "status"), [
    (["-c", INTERRUPTED], "/dev/full", None, 130), (["-m", "fastlstm", "nonsense"], None, "/dev/full", 2),
    (["-m", "fastlstm", "info"], None, "/dev/full", 0), (["-m", "fastlstm", "inspect", "gone"], None, "/dev/full", 2),
])
def test_the_status_is_ours_whatever_a_stream_takes(words, stdout, stderr, status, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with contextlib.ExitStack() as files:
        out, err = (files.enter_context(open(path or os.devnull, "w")) for path in (stdout, stderr))
        process = subprocess.run(
            [sys.executable, *words], stdout=out, stderr=err, cwd=tmp_path, env=environment, check=False, timeout=60
        )
    assert process.returncode == status
