"""The machine's constants: when they are measured, where they are kept, how FASTLSTM_MACHINE overrides them.

What plans make of them is in tests/test_planning.py.
"""

import json
import os
import signal
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from command_line import fails, succeeds
from grids import BEGIN, openmp, python, says

import fastlstm as fl
from fastlstm import _core, machine, runtime

MEASURED = {
    "flops_per_ns": (70.0, 35.0), "all_cores_rate": 0.6, "private_bytes_per_ns": 50.0, "private_cache": 400_000.0,
    "shared_bytes_per_ns": 20.0, "shared_bytes_per_ns_all": 150.0, "wake_ns": 9000.0, "wake_each_ns": 1200.0,
    "barrier_ns": 250.0, "barrier_all_ns": 900.0, "cores": 8.0, "sibling_rate": 0.6,
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A process that has packed nothing yet, with a cache folder of its own. Yields that folder, not made yet."""
    monkeypatch.setenv("FASTLSTM_MACHINE", "")
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    machine.forget()
    yield Path(machine.folder())
    machine.forget()


@pytest.fixture
def measurements(monkeypatch):
    """Measuring takes no time and finds MEASURED; yields a list with an entry per measurement."""
    found = []

    def measure(threads=0):
        found.append(threads)
        return dict(MEASURED), True

    monkeypatch.setattr(_core, "measure_machine", measure)
    return found


def files(home):
    return sorted(path.name for path in home.iterdir()) if home.is_dir() else []


# ---- when, and where from ----------------------------------------------------------------


@openmp
def test_the_first_model_packed_measures_and_keeps(home, measurements):
    first = fl.LSTM(3, 4, num_threads=2)
    assert (measurements, files(home)) == ([], [])
    assert first.plan(5, 1).wake_ns == 9000
    fl.LSTM(3, 4, num_threads=2)([[[1, 2, 3]]])
    assert measurements == [2]
    assert _core.machine() == MEASURED
    assert machine.settle(2) == "measured"
    assert files(home) == [machine.file_name(machine.key(2))]
    kept = json.loads((home / files(home)[0]).read_text())
    assert kept == {"key": machine.key(2), **MEASURED, "flops_per_ns": list(MEASURED["flops_per_ns"])}


@openmp
def test_what_was_kept_is_read(home, measurements):
    machine.settle(2)
    machine.forget()
    assert machine.settle(2) == str(home / files(home)[0])
    assert _core.machine() == MEASURED
    assert measurements == [2]


def test_one_thread_measures_nothing(home, measurements):
    fl.set_num_threads(1)
    try:
        fl.LSTM(3, 4)([[[1, 2, 3]]])
        assert runtime.machine() == {**_core.BUILT_IN, "source": "built in"}
    finally:
        fl.set_num_threads(None)
    assert (measurements, files(home)) == ([], [])


@openmp
def test_busy_processors_are_not_kept(home, monkeypatch):
    monkeypatch.setattr(_core, "measure_machine", lambda threads: (dict(MEASURED), False))
    assert machine.settle(2).startswith("measured; what a team costs is built in")
    assert files(home) == []


@openmp
@pytest.mark.parametrize(
    "damage", [b"", b"{", b"\xff\xfe", b"[" * 9000, b"[]", b'{"wake_ns": 1}', b" " * 20_000, None, "another key",
               b"an older format"]
)
def test_a_damaged_file_is_replaced(home, measurements, damage):
    path = home / machine.file_name(machine.key(2))
    (path if damage is None else home).mkdir(parents=True)
    if isinstance(damage, str):
        damage = json.dumps({"key": damage, **MEASURED}).encode()
    if damage == b"an older format":  # with fewer fields, under the key of today
        older = {"flops_per_ns": [50, 25], "wake_ns": 1e4, "barrier_ns": 600, "private_cache": 1e6}
        damage = json.dumps({"key": machine.key(2), **older}).encode()
    if damage is not None:
        path.write_bytes(damage)
    assert machine.settle(2) == "measured"
    assert _core.machine() == MEASURED
    machine.forget()
    assert machine.settle(2) == ("measured" if damage is None else str(path))
    assert files(home) == [path.name]  # no draft is left behind


@openmp
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes as on POSIX")
@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "socket", "device", "folder that is a pipe", "draft"])
def test_what_is_no_file_is_never_waited_for(home, measurements, kind):
    """A pipe without anybody at its other end; a socket; a device that never ends."""
    path = home / machine.file_name(machine.key(2))
    (home.parent if kind.startswith("folder") else home).mkdir(parents=True, exist_ok=True)
    others = {"link to a pipe": home / "pipe", "folder that is a pipe": home, "draft": home / ".fastlstm-0.tmp"}
    pipe = others.get(kind, path)
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            folder, _ = os.getcwd(), os.chdir(home)  # names of sockets are short
            try:
                one.bind(path.name[-90:])
                os.rename(path.name[-90:], path.name)
            finally:
                os.chdir(folder)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(pipe)
        if kind.startswith("link"):
            path.symlink_to(pipe)
    before = files(home)
    watch = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits"))
    signal.alarm(20)
    try:
        for _ in range(2):
            machine.forget()
            assert machine.settle(2) == "measured" or kind == "draft"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, watch)
    assert _core.machine() == MEASURED
    assert kind == "draft" or files(home) == before  # what is there stays


@openmp
def test_a_folder_that_cannot_be_written(home, measurements):
    home.write_text("a file where the folder should be")
    assert machine.settle(2) == "measured"
    assert _core.machine() == MEASURED


@openmp
@openmp
def test_a_user_without_a_home_keeps_nothing(home, measurements, monkeypatch, tmp_path):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does when nobody knows the user
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    assert machine.folder() is None
    fl.LSTM(3, 4, rng=0, num_threads=2)._packed()
    assert measurements
    assert runtime.machine()["wake_ns"] == MEASURED["wake_ns"]
    assert not list(tmp_path.iterdir())


def test_a_write_that_breaks_off_leaves_the_old_file(home, measurements, monkeypatch):
    machine.settle(2)
    before = (home / files(home)[0]).read_text()

    def dump(values, file, **_):
        file.write("{")
        raise OSError("disk full")

    monkeypatch.setattr(machine.json, "dump", dump)
    monkeypatch.setenv("FASTLSTM_MACHINE", "measure")
    machine.forget()
    assert machine.settle(2) == "measured"
    assert len(files(home)) == 1
    assert (home / files(home)[0]).read_text() == before


@openmp
def test_the_key_knows_what_matters(home, monkeypatch):
    keys = [machine.key(), machine.key(78)]
    for change in (
        lambda: _core.force_isa("scalar"),
        lambda: monkeypatch.setattr(machine, "__version__", "9.9"),
        lambda: monkeypatch.setattr(machine, "_processor", lambda: "Another / Processor: 3"),
        lambda: monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(99), raising=False),
        lambda: monkeypatch.setattr(_core, "get_num_threads", lambda: 77),
        lambda: monkeypatch.setattr(machine, "FORMAT", 99),
    ):
        change()
        keys.append(machine.key())
    _core.force_isa(None)
    assert len(set(keys)) == len(keys)
    names = [machine.file_name(key) for key in keys]
    assert len(set(names)) == len(names)
    assert all(name == os.path.basename(name) and name.isascii() and len(name) < 120 for name in names)
    assert machine.file_name("a/b") != machine.file_name("a:b")


@openmp
def test_of_many_threads_at_once_one_measures_and_the_others_go_on(home, measurements, monkeypatch):
    gate, quick = threading.Barrier(8), _core.measure_machine

    def slow(threads):
        threading.Event().wait(0.05)
        return quick(threads)

    monkeypatch.setattr(_core, "measure_machine", slow)
    found = []

    def use():
        layer = fl.LSTM(3, 4, num_threads=2)
        gate.wait()
        found.append(layer.plan(5, 1).wake_ns)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 9000 in found and set(found) <= {9000, _core.BUILT_IN["wake_ns"]}
    assert measurements == [2]


@openmp
@pytest.mark.parametrize("hand", ["signal handler", "collected object"])
def test_python_code_that_runs_while_the_machine_is_measured_may_call_models(home, monkeypatch, hand):
    layer, other, x, found = fl.LSTM(3, 4, num_threads=2), fl.LSTM(3, 4, num_threads=2), np.zeros((5, 1, 3)), []

    def measure(threads):
        found.append(other(x)[0].shape)
        if hand == "signal handler":
            signal.raise_signal(signal.SIGUSR1)
        else:
            Collected()
        return {**_core.BUILT_IN, "wake_ns": 9000.0}, True

    class Collected:
        def __del__(self):
            handle()

    def handle(*_):
        found.append(layer(x)[0].shape)

    monkeypatch.setattr(_core, "measure_machine", measure)
    before = signal.signal(signal.SIGUSR1, handle)
    try:
        layer(x)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert found == [(5, 1, 4)] * 2
    assert layer.plan(5, 1).wake_ns == 9000


# ---- FASTLSTM_MACHINE --------------------------------------------------------------------

SOURCE = "import fastlstm as fl; from fastlstm import runtime; m = runtime.machine(); print(m['source'])"


@openmp
def test_measuring_for_real_in_a_process_of_its_own(tmp_path):
    environment = dict(FASTLSTM_MACHINE="", XDG_CACHE_HOME=str(tmp_path), HOME=str(tmp_path), FASTLSTM_NUM_THREADS="2")
    for _ in range(3):
        (source,) = says(SOURCE, **environment)
        kept = list(tmp_path.rglob("machine-*.json"))
        if source == "measured":
            assert len(kept) == 1
            assert says(SOURCE, **environment) == [str(kept[0])]
            return
        assert "busy" in source
        assert kept == []


@openmp
def test_measure_replaces_the_file(home, measurements, monkeypatch):
    machine.settle(2)
    path = home / files(home)[0]
    path.write_text(json.dumps({"key": machine.key(2), **MEASURED, "wake_ns": 5000.0}))
    machine.forget()
    machine.settle(2)
    assert _core.machine()["wake_ns"] == 5000
    machine.forget()
    monkeypatch.setenv("FASTLSTM_MACHINE", "measure")
    assert machine.settle(2) == "measured"
    assert json.loads(path.read_text())["wake_ns"] == 9000
    assert measurements == [2, 2]


@openmp
def test_default_measures_nothing(home, measurements, monkeypatch):
    monkeypatch.setenv("FASTLSTM_MACHINE", "default")
    assert machine.settle(2) == "built in"
    assert _core.machine() == _core.BUILT_IN
    assert (measurements, files(home)) == ([], [])


@openmp
def test_a_file_of_the_users_own(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"wake_ns": 5000, "flops_per_ns": [20, 10.5]}')  # the fields it lacks are built in
    code = SOURCE + "; print(m['flops_per_ns'], m['wake_ns'], m['barrier_ns']); print(fl.LSTM(3, 4).plan(2, 2).wake_ns)"
    environment = dict(FASTLSTM_MACHINE=str(path), FASTLSTM_NUM_THREADS="2")
    assert says(code, **environment) == [str(path), "(20.0, 10.5) 5000.0 600.0", "5000.0"]
    text = succeeds("info", **environment)
    assert "64 cores of 20 and 10.5 flop/ns (float32, float64), 0.7 of it when all work, 0.5 beside a sibling" in text
    assert "reading private cache (786.4 kB) 90, shared 45, all cores 1000 GB/s" in text
    assert "waking 5 us and 1.5 us each; barrier 0.6 to 2.4 us" in text
    assert str(path) in text


@openmp
@pytest.mark.parametrize("text, wrong", [
    (None, "No such file"),
    ("", "it is not JSON"),
    ("{" * 3000, "it is not JSON"),
    ("[1]", "it holds a list, not an object"),
    ('{"wake": 3}', "it has an unknown field 'wake'"),
    ('{"wake_ns": -3}', "wake_ns is -3, not a positive number"),
    ('{"wake_ns": true}', "wake_ns is True, not a positive number"),
    ('{"barrier_ns": NaN}', "barrier_ns is nan, not a positive number"),
    ('{"private_cache": 1' + "0" * 400 + "}", "not a positive number"),
    ('{"flops_per_ns": 50}', "flops_per_ns is 50, not a list of two"),
    ('{"flops_per_ns": [50, "25"]}', "flops_per_ns is '25', not a positive number"),
])
def test_a_wrong_file_is_told(home, monkeypatch, tmp_path, text, wrong):
    path = tmp_path / "wrong.json"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("FASTLSTM_MACHINE", str(path))
    for _ in range(2):  # the second call is no luckier
        with pytest.raises(RuntimeError) as caught:
            fl.LSTM(3, 4, num_threads=2)([[[1, 2, 3]]])
        message = str(caught.value)
        assert message.startswith(f"FASTLSTM_MACHINE={str(path)!r}: ")
        assert wrong in message
        assert message.endswith(machine.EXPECTED)
    assert _core.machine() == _core.BUILT_IN


@openmp
def test_a_wrong_value_on_the_command_line():
    line = fails("info", FASTLSTM_MACHINE="defualt", FASTLSTM_NUM_THREADS="2")
    assert "FASTLSTM_MACHINE='defualt': No such file" in line


@openmp
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes as on POSIX")
def test_a_pipe_where_the_users_file_should_be(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    line = fails("info", FASTLSTM_MACHINE=str(tmp_path / "pipe"), FASTLSTM_NUM_THREADS="2")
    assert "it is not a regular file" in line


# ---- what it leaves behind ---------------------------------------------------------------


def test_importing_measures_nothing(tmp_path):
    code = "import sys, fastlstm; print(any(name in sys.modules for name in ('fastlstm.machine', 'fastlstm.planning')))"
    assert says(code, FASTLSTM_MACHINE="measure", XDG_CACHE_HOME=str(tmp_path)) == ["False"]
    assert list(tmp_path.iterdir()) == []


@openmp
def test_nothing_spins_and_forks_are_safe_after_measuring():
    status, out, err = python("""
import os, signal, time
from fastlstm import _core
_core.force_team("persists")
used = []
for _ in range(4):
    _core.measure_machine(2)
    before = time.process_time()
    time.sleep(0.1)
    used.append(time.process_time() - before)
for _ in range(10):
    _core.measure_machine(2)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        _core.measure_machine(2)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
print(min(used) < 0.02, _core.teams_active())
""")
    assert (status, out) == (0, "True 0\n"), err


@openmp
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_of_a_fork_in_the_middle_of_measuring(tmp_path):
    lines = says(BEGIN.replace("model = ", "from fastlstm import machine\nmodel = ").split("assert model")[0] + """
real, started = _core.measure_machine, threading.Event()

def slow(threads):
    started.set()
    time.sleep(0.5)
    return real(threads)

_core.measure_machine = slow
thread = threading.Thread(target=lambda: model(x))
thread.start()
started.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    fl.LSTM(3, 4, num_threads=2)([[[1, 2, 3]]])
    os._exit(0)
print(os.waitpid(child, 0)[1])
thread.join()
""", FASTLSTM_MACHINE="measure", XDG_CACHE_HOME=str(tmp_path))
    assert lines == ["0"]
