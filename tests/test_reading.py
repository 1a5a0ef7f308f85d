"""Reading files of every format: what has nothing to do with their bytes comes as it is, files may change meanwhile.

And readers change nothing that belongs to the process, such as the filters of warnings.
"""

import os
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import onnx_bytes as ob
import pytest
import torch_bytes
from grids import interrupted, traced
from model_bytes import make

import fastlstm as fl
from fastlstm import arguments, commands, read_files, recurrent
from fastlstm.commands import inputs
from fastlstm.convert import formats, onnx_tensors
from fastlstm.files import FileFormatError

# ---- samples ----------------------------------------------------------------------------------------------------


def safetensors(folder, scale=1.0, hidden=5):
    model = fl.LSTM(3, hidden)
    model._update({name: np.full_like(w, scale) for name, w in model.state_dict().items()})
    model.save(folder / "a.safetensors")
    return folder / "a.safetensors"


def state_dict(folder, scale=1.0, hidden=5):
    from safetensors.numpy import save_file

    model = fl.load(safetensors(folder, scale, hidden))
    save_file(model.state_dict(), folder / "b.safetensors")
    return folder / "b.safetensors"


def torch(folder, scale=1.0, hidden=5):
    (folder / "a.pt").write_bytes(torch_bytes.state_dict(fl.load(safetensors(folder, scale, hidden)).state_dict()))
    return folder / "a.pt"


def onnx(folder, scale=1.0, hidden=5):
    found = {name: np.full_like(array, scale) for name, array in ob.weights("LSTM", 3, hidden).items()}
    (folder / "a.onnx").write_bytes(ob.recurrent("LSTM", found))
    return folder / "a.onnx"


def onnx_beside(folder, scale=1.0, hidden=5):
    """With the numbers in another file, which is the one that changes."""
    data, tensors = b"", []
    for name, array in ob.weights("LSTM", 3, hidden).items():
        place = {"location": "a.data", "offset": len(data), "length": array.nbytes}
        tensors.append(ob.tensor(name, array, place))
        data += np.full_like(array, scale).tobytes()
    (folder / "a.data").write_bytes(data)
    node = ob.node("LSTM", ["x", "W", "R", "B"], ["y"], "rnn")
    (folder / "a.onnx").write_bytes(ob.model(ob.graph([node], tensors)))
    return folder / "a.onnx"


def keras(ending):
    def written(folder, scale=1.0, hidden=5):
        keras_bytes = pytest.importorskip("keras_bytes")
        pytest.importorskip("h5py")
        layers = [keras_bytes.layer("LSTM", units=hidden)]
        arrays = keras_bytes.weights(*layers)
        arrays = {name: {n: np.full_like(a, scale) for n, a in own.items()} for name, own in arrays.items()}
        (folder / f"a{ending}").write_bytes(keras_bytes.written(ending, layers, arrays))
        return folder / f"a{ending}"
    return written


READERS = {
    "safetensors": (safetensors, fl.load), "state dict": (state_dict, fl.from_torch), "torch": (torch, fl.from_torch),
    "onnx": (onnx, fl.from_onnx), "onnx beside": (onnx_beside, fl.from_onnx),
    ".keras": (keras(".keras"), fl.from_keras), ".h5": (keras(".h5"), fl.from_keras),
    "contents": (torch, formats.contents),
}


def weights(found):
    """Every number of what a reader gives."""
    if isinstance(found, formats.Contents):
        found = found.models
    models = found.values() if isinstance(found, dict) else [found]
    return np.concatenate([w.ravel() for model in models for w in model.state_dict().values()])


# ---- what is no fault of the file -------------------------------------------------------------------------------


class Elsewhere(Exception):
    """What a signal handler may raise."""


ERRORS = [Elsewhere("late"), MemoryError("full"), TimeoutError("late"), KeyboardInterrupt()]


@pytest.mark.parametrize("name", READERS)
def test_exceptions_from_elsewhere_come_as_they_are(name, tmp_path):
    """Wherever a reader is when they come."""
    write, read = READERS[name]
    path = write(tmp_path)
    read(path)
    at = 1
    while True:
        error = ERRORS[at % len(ERRORS)]
        try:
            reached = interrupted(lambda: read(path), error, at)
        except BaseException as found:
            assert found is error, f"{found!r} in place of {error!r} in call {at}"
            reached = True
        if not reached:
            break
        at += 1 + at // 15
    assert at > 40


def test_a_wrong_instruction_set_is_no_damage(tmp_path):
    path = safetensors(tmp_path)
    code = "import sys, fastlstm as fl; fl.load(sys.argv[1])"
    environment = {**os.environ, "FASTLSTM_ISA": "zz"}
    command = [sys.executable, "-c", code, path]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert found.stderr.splitlines()[-1].startswith("RuntimeError: FASTLSTM_ISA='zz'")


class Array:
    """Something with an array that cannot be had."""

    def __init__(self, error):
        self.error = error

    def __array__(self, dtype=None, copy=None):
        raise self.error


@pytest.mark.parametrize("error", [Elsewhere("late"), TimeoutError("late"), KeyboardInterrupt()])
def test_arguments_that_take_too_long(error):
    model = fl.RNN(2, 3)
    for call in (lambda: model(Array(error)), lambda: model(np.zeros((1, 1, 2), "f4"), lengths=Array(error)),
                 lambda: model.load_state_dict(model.state_dict() | {"bias_ih_l0": Array(error)})):
        with pytest.raises(type(error)) as caught:
            call()
        assert caught.value is error


def test_arguments_that_need_too_much_memory():
    with pytest.raises(MemoryError, match="not enough memory to read x as an array"):
        arguments.real_array("x", Array(MemoryError()), np.dtype("f4"))
    with pytest.raises(MemoryError):
        fl.Linear(2, 3).load_state_dict({"weight": Array(MemoryError()), "bias": np.zeros(3)})
    with pytest.raises(ValueError, match="x cannot be read as an array: on another device"):
        arguments.real_array("x", Array(RuntimeError("on another device")), np.dtype("f4"))


def test_a_model_that_needs_too_much_memory(monkeypatch):
    """Python's own MemoryError has no words; NumPy's says what it asked for."""
    error = MemoryError()
    monkeypatch.setattr(recurrent, "init_weights", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(MemoryError, match="for a LSTM of input_size=1, hidden_size=2, num_layers=3"):
        fl.LSTM(1, 2, 3)
    error = MemoryError("Unable to allocate 1 TiB")
    with pytest.raises(MemoryError, match="^Unable to allocate 1 TiB$"):
        fl.LSTM(1, 2, 3)


# ---- inputs of the command --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_an_array_that_announces_more_than_it_has(tmp_path, ending):
    path = tmp_path / f"x{ending}"
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999999, 3), }"
    data = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + head.ljust(117) + b"\n" + bytes(48)
    if ending == ".npy":
        path.write_bytes(data)
    else:
        np.savez(path, other=1)
        import zipfile

        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", data)
    with (
        pytest.raises(commands.UsageError, match="damaged: an array of shape .* needs 239999999999976 bytes"),
        inputs.opened(str(path), ending[1:]),
    ):
        pass


def test_memory_that_ends_in_the_command(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "x.npy", np.zeros((4, 3), "f4"))
    words = ["run", str(safetensors(tmp_path)), str(tmp_path / "x.npy")]
    monkeypatch.setattr(inputs.ArraySource, "_fill", lambda *_: (_ for _ in ()).throw(MemoryError()))
    assert commands.main(words) == 1
    assert capsys.readouterr().err == "fastlstm: error: not enough memory\n"
    monkeypatch.setattr(fl.LSTM, "__init__", lambda *_, **__: (_ for _ in ()).throw(MemoryError("1 GiB")))
    assert commands.main(["inspect", str(tmp_path / "a.safetensors")]) == 1
    assert capsys.readouterr().err == "fastlstm: error: not enough memory: 1 GiB\n"


# ---- files that change ------------------------------------------------------------------------------------------


def cut(path):
    os.truncate(path, os.path.getsize(path) // 2)


def emptied(path):
    os.truncate(path, 0)


def grown(path):
    with open(path, "ab") as file:
        file.write(b"x")


def other_numbers(path):
    """The last bytes of the file, its size and its time as before, as a clock too coarse would show them."""
    found = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(found.st_size // 2)
        half = file.read()
        file.seek(found.st_size // 2)
        file.write(bytes(byte ^ 0x55 for byte in half))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.mark.parametrize("change", [cut, emptied, grown, other_numbers])
@pytest.mark.parametrize("name", READERS)
def test_a_file_that_changes_is_refused(name, change, tmp_path):
    """Whenever it changes, what is read is one or the other file, or refused."""
    write, read = READERS[name]
    steps = 0

    def count(frame, event, _):
        nonlocal steps
        steps += event == "line"
        return count

    def changed(at):
        left, path = at, write(tmp_path, hidden=40)

        def inside(frame, event, _):
            nonlocal left
            if event == "line":
                left -= 1
                if left == 0:
                    change(tmp_path / "a.data" if name == "onnx beside" else path)
            return inside

        return path, inside

    def reading(path, function):
        inside = f"{os.sep}fastlstm{os.sep}"
        return traced(lambda frame, *_: function if inside in frame.f_code.co_filename else None, lambda: read(path))

    before = weights(reading(write(tmp_path, hidden=40), count))
    for share in (0.1, 0.35, 0.6, 0.8):
        path, function = changed(int(steps * share))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            try:
                found = weights(reading(path, function))
            except FileFormatError as error:
                assert str(error).startswith(str(path)) or "a.data" in str(error)
            else:  # the change came before it was read, or after
                assert np.array_equal(found, before) or np.array_equal(found, weights(read(path))), share


def test_a_file_beside_that_changes_between_two_tensors(tmp_path, monkeypatch):
    path, calls, real = onnx_beside(tmp_path), [], onnx_tensors.Others.read

    def changed(self, place, target):
        found = real(self, place, target)
        if not calls:
            other_numbers(tmp_path / "a.data")
        calls.append(place)
        return found

    monkeypatch.setattr(onnx_tensors.Others, "read", changed)
    with pytest.raises(FileFormatError, match="a.data: changed while it was read"):
        fl.from_onnx(path)
    assert len(calls) == 3


def test_bytes_that_were_given_back_are_read_again(tmp_path):
    """Two layers share a tensor of many pages: the memory of its bytes goes after the first one."""
    arrays = ob.weights("RNN", 150, 160, dtype="float16")
    nodes = [ob.node("RNN", ["x", *arrays], [f"y{n}"], clip=1.0 + n) for n in range(2)]
    tensors = [ob.tensor(name, array, "unpacked" if name == "R" else "raw") for name, array in arrays.items()]
    junk = ob.field(5, ob.tensor("unused", np.ones((300, 300), "f4")))  # room for a second layer
    (tmp_path / "a.onnx").write_bytes(ob.model(ob.graph(nodes, tensors) + junk))
    one, two = fl.from_onnx(tmp_path / "a.onnx").values()
    assert one is not two
    assert np.array_equal(weights(one), weights(two))
    assert np.array_equal(two.state_dict()["weight_ih_l0"], arrays["W"][0].astype("f4"))


def test_an_old_file_is_read_once(tmp_path, monkeypatch):
    """Only of one that was changed just now the bytes are compared, too."""
    path, calls = safetensors(tmp_path), []
    monkeypatch.setattr(read_files.zlib, "crc32", lambda *_: calls.append(1) or 0)
    fl.load(path)
    assert calls
    calls.clear()
    os.utime(path, (time.time() - 10,) * 2)
    fl.load(path)
    assert not calls


def test_a_file_that_is_replaced_is_a_whole_model(tmp_path):
    """Saved anew while it is read: the reader has the old one."""
    path = safetensors(tmp_path, 1.0)
    with read_files.steady(path) as file:
        safetensors(tmp_path, 2.0)
        assert file.read() != path.read_bytes()
    assert (weights(fl.load(path)) == 2.0).all()


HAMMERED = """
import sys, time, warnings, fastlstm as fl, numpy as np
read, path, until = getattr(fl, sys.argv[1]), sys.argv[2], time.monotonic() + 0.6
good = refused = 0
while time.monotonic() < until or not good:
    try:
        found = read(path)
    except fl.FileFormatError as error:
        refused += 1
        continue
    found = next(iter(found.values())) if isinstance(found, dict) else found
    numbers = np.concatenate([w.ravel() for w in found.state_dict().values()])
    numbers = numbers[numbers != 0]  # the second bias of a layer of Keras
    assert (numbers == numbers[0]).all(), "torn"
    good += 1
print(good, refused)
"""


@pytest.mark.parametrize("name, function", [
    ("safetensors", "load"), ("state dict", "from_torch"), ("torch", "from_torch"), ("onnx", "from_onnx"),
    (".h5", "from_keras"),
])
def test_a_file_that_is_written_over_again_and_again(name, function, tmp_path):
    """In place, as cp and rsync --inplace do: the reading process does not die, and gets no mixture."""
    (tmp_path / "1").mkdir()
    write, _ = READERS[name]
    path = write(tmp_path, 1.0, 60)
    one, two = path.read_bytes(), write(tmp_path / "1", 2.0, 60).read_bytes()
    child = subprocess.Popen(
        [sys.executable, "-c", HAMMERED, function, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while child.poll() is None:
        for data in (one, two):
            with open(path, "wb") as file:
                for at in range(0, len(data), len(data) // 3):
                    file.write(data[at : at + len(data) // 3])
                    file.flush()
            time.sleep(0.01)
    out, err = child.communicate()
    assert child.returncode == 0, f"status {child.returncode}: {err[-2000:]}"


# ---- warnings ---------------------------------------------------------------------------------------------------


class Talkative(fl.LSTM):
    """A user's layer whose constructor warns."""

    def __init__(self, *arguments, **options):
        warnings.warn("be careful with this layer", UserWarning, stacklevel=2)
        super().__init__(*arguments, **options)


def test_a_constructor_that_warns(tmp_path):
    with pytest.warns(UserWarning, match="be careful"):
        model = Talkative(2, 3, rng=0)
    model.save(tmp_path / "a")
    with pytest.warns(UserWarning, match="be careful"):
        loaded = fl.load(tmp_path / "a")
    assert type(loaded) is Talkative
    np.testing.assert_array_equal(weights(loaded), weights(model))


@pytest.mark.parametrize("name", READERS)
def test_readers_leave_the_filters_of_warnings_alone(name, tmp_path, monkeypatch):
    """Filters are the process's: threads that change and restore them leave each other's behind."""
    write, read = READERS[name]
    path = write(tmp_path)

    def touched(*_, **__):
        raise AssertionError("filters of warnings were touched")

    read(path)
    for function in ("catch_warnings", "simplefilter", "filterwarnings", "resetwarnings"):
        monkeypatch.setattr(warnings, function, touched)
    read(path)


def test_threads_that_load(tmp_path):
    make().save(tmp_path / "a")
    before, errors = list(warnings.filters), []

    def work():
        try:
            for _ in range(30):
                fl.load(tmp_path / "a")
                warnings.warn("of this thread", UserWarning, stacklevel=1)
        except Exception as error:
            errors.append(error)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        inside = list(warnings.filters)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors and warnings.filters == inside
    assert warnings.filters == before


def test_nan_is_told_once(tmp_path):
    """By the reader, with the file's name; not by what it calls."""
    torch_ = pytest.importorskip("torch")
    model = fl.LSTM(2, 3, rng=0)
    model._update({"weight_ih_l0": np.full((12, 2), np.nan, "f4")})
    for source in (model.state_dict(), fl.to_torch(model), torch_.nn.Sequential(fl.to_torch(model))):
        with pytest.warns(RuntimeWarning, match="from_torch: NaN or infinity in") as caught:
            fl.from_torch(source)
        assert len(caught) == 1
