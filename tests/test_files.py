"""Models on disk: round trips, and saving that never loses the file that was there."""

import math
import os
import stat
import struct
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from model_bytes import make, split
from safetensors.numpy import load_file, save_file

import fastlstm as fl
from fastlstm import files
from fastlstm.files import FileFormatError
from fastlstm.optim import SGD


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(
        a[name].dtype == b[name].dtype and a[name].tobytes() == b[name].tobytes() for name in a)


# ---- round trips -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trip(tmp_path, dtype):
    model, path = make(dtype), tmp_path / "a.safetensors"
    model.save(path, {"scaling": '{"mean": 1}', "ключ": "значение\n\"\\"})
    loaded = fl.load(path)
    assert same(model, loaded) and loaded.describe() == model.describe()
    assert loaded.metadata == {"scaling": '{"mean": 1}', "ключ": "значение\n\"\\"}
    x = np.array([[0, 5], [1, 1]])
    np.testing.assert_array_equal(loaded(x), model(x))
    assert all(w.flags.writeable and w.flags.c_contiguous and w.flags.aligned
               for w in loaded._named_weights().values())
    SGD(loaded, 0.1).step({n: np.ones_like(w) for n, w in model.state_dict().items()})
    loaded.save(str(path))  # metadata go along
    assert fl.load(str(path)).metadata == loaded.metadata


@pytest.mark.parametrize("kw", [
    {}, {"num_layers": 3, "bidirectional": True}, {"proj_size": 2}, {"bias": False, "batch_first": True},
    {"dropout": 0.25, "num_layers": 2},
])
def test_lstm_round_trip(tmp_path, kw):
    model = fl.LSTM(3, 4, rng=0, **kw)
    model.save(tmp_path / "a")
    loaded = fl.load(tmp_path / "a")
    assert type(loaded) is fl.LSTM and same(model, loaded) and loaded.config() == model.config()
    x = np.random.default_rng(0).normal(size=(5, 2, 3)).astype("f4")
    np.testing.assert_array_equal(loaded(x)[0], model(x)[0])


def test_other_readers_can_use_the_file(tmp_path):
    model = make()
    model.save(tmp_path / "a")
    tensors = load_file(tmp_path / "a")
    assert all(np.array_equal(tensors[name], w) for name, w in model.state_dict().items())
    # and a file written by the safetensors package, in whatever order, is as good as ours
    header, _ = split((tmp_path / "a").read_bytes())
    save_file(tensors, tmp_path / "b", header["__metadata__"])
    assert same(fl.load(tmp_path / "b"), model)


def test_same_model_same_bytes(tmp_path):
    model = make()
    model.metadata = {"b": "1", "a": "2"}
    seen = set()
    for turn in range(4):
        model.save(tmp_path / "a")
        seen.add((tmp_path / "a").read_bytes())
        model = fl.load(tmp_path / "a")
    assert len(seen) == 1
    assert (struct.unpack("<Q", seen.pop()[:8])[0]) % 8 == 0  # tensors are aligned in the file


def test_loaded_weights_do_not_live_in_the_file(tmp_path):
    model, path = make(), tmp_path / "a"
    model.save(path)
    loaded = fl.load(path)
    with open(path, "r+b") as file:  # in place: a mapping of the file would show it
        file.write(b"\xff" * path.stat().st_size)
    assert same(loaded, model)


def test_not_finite_loads_with_a_warning(tmp_path):
    model = make()
    model._update({"1.bias": np.full(4, np.nan), "2.weight": np.full((2, 4), -np.inf)})
    with pytest.warns(RuntimeWarning, match="NaN or infinity"):
        model.save(tmp_path / "a")
    with pytest.warns(RuntimeWarning, match="NaN or infinity in 1.bias, 2.weight"):
        assert same(fl.load(tmp_path / "a"), model)
    big = fl.Linear(2, 2, bias=False)
    big.load_state_dict({"weight": np.full((2, 2), 3e38)})
    big.save(tmp_path / "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fl.load(tmp_path / "a")


# ---- saving safely -----------------------------------------------------------------------


def test_a_crash_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    make().save(path)
    old = path.read_bytes()
    for broken in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, broken, lambda *a: (_ for _ in ()).throw(OSError("disk full")))
            with pytest.raises(OSError, match="disk full"):
                fl.Linear(3, 2).save(path)
        assert path.read_bytes() == old and os.listdir(tmp_path) == ["a"]


def test_killed_while_writing(tmp_path):
    """The real thing: the process dies between writing and renaming."""
    path = tmp_path / "a"
    make().save(path)
    old = path.read_bytes()
    code = ("import os, sys, fastlstm as fl\n"
            "os.replace = lambda *a: os._exit(9)\nfl.Linear(3, 2).save(sys.argv[1])")
    assert subprocess.run([sys.executable, "-c", code, path]).returncode == 9
    assert path.read_bytes() == old


def test_modes_and_links(tmp_path):
    path, link = tmp_path / "a", tmp_path / "link"
    make().save(path)
    plain = tmp_path / "plain"
    plain.write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)  # the umask's
    path.chmod(0o640)
    link.symlink_to(path)
    model = fl.Linear(3, 2)
    model.save(link)
    assert link.is_symlink() and stat.S_IMODE(path.stat().st_mode) == 0o640 and same(fl.load(path), model)


@pytest.mark.parametrize("metadata, error, words", [
    ({"format": "x"}, ValueError, "'format' is taken"), ({"model": "x"}, ValueError, "taken"),
    ({"version": "2"}, ValueError, "taken"), ({"a": 1}, TypeError, "strings to strings"),
    ({1: "a"}, TypeError, "strings to strings"), ([], TypeError, "must be a dict"),
    ({"a": "\ud800"}, ValueError, "UTF-8"),
])
def test_save_refuses(tmp_path, metadata, error, words):
    with pytest.raises(error, match=words):
        make().save(tmp_path / "a", metadata)
    assert os.listdir(tmp_path) == []


def test_errors_of_the_system_come_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError):
        fl.load(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        fl.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        make().save(tmp_path / "none" / "a")
    with pytest.raises(IsADirectoryError):
        make().save(tmp_path)
    with pytest.raises(TypeError, match="must be a Module"):
        files.save({}, tmp_path / "a")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_permission(tmp_path):
    make().save(tmp_path / "a")
    (tmp_path / "a").chmod(0)
    with pytest.raises(PermissionError):
        fl.load(tmp_path / "a")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    found = []

    def load():
        with pytest.raises(FileFormatError, match="not a regular file"):
            fl.load(tmp_path / "pipe")
        found.append(True)

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    thread.join(10)
    assert found == [True]


def test_numbers_that_json_lacks(tmp_path):
    """A description must stay JSON for every reader; Python would write NaN."""
    model = fl.Linear(3, 2)
    model.config = lambda: {"in_features": math.nan}
    with pytest.raises(ValueError):
        model.save(tmp_path / "a")
    assert os.listdir(tmp_path) == []
