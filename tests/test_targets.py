"""Binary file objects wherever a path to write to is taken: the bytes that a file on the disk gets."""

import gzip
import io
import os
import tempfile
import threading
import zipfile

import numpy as np
import pytest
from sources import same

import fastlstm as fl
from fastlstm import whole_files
from fastlstm.convert import formats
from fastlstm.files import FileFormatError


def model(hidden=5):
    return fl.LSTM(3, hidden, 2, rng=0)


def to_checkpoint(model, path):
    optimiser = fl.optim.Adam(model)
    optimiser.step({name: np.ones_like(weight) for name, weight in model.state_dict().items()})
    fl.save_checkpoint(path, model, optimiser, metadata={"epoch": "3"})


def to_onnx(model, path):
    pytest.importorskip("onnx")
    fl.to_onnx(model, path)


WRITERS = {
    "save": (fl.Module.save, fl.load),
    "save_checkpoint": (to_checkpoint, lambda file: fl.load_checkpoint(file).model),
    "to_onnx": (to_onnx, fl.from_onnx),
    "write": (lambda model, path: formats.write(model, path, ".safetensors"), fl.load),
}


@pytest.fixture(params=WRITERS)
def written(request, tmp_path):
    """(function of (model, path), function that reads, bytes of the file it writes)."""
    write, read = WRITERS[request.param]
    write(model(), tmp_path / "expected")
    return write, read, (tmp_path / "expected").read_bytes()


# ---- all kinds ---------------------------------------------------------------------------------------------------


class Few:
    """Takes few bytes at a time, and counts them."""

    def __init__(self, most=1009):
        self.data, self._most = b"", most

    def write(self, data):
        piece = bytes(data[: self._most])
        self.data += piece
        return len(piece)


class Keeping:
    """Keeps what it was given, and does not count."""

    def __init__(self):
        self.pieces = []

    def write(self, data):
        assert type(data) is bytes
        self.pieces.append(data)

    @property
    def data(self):
        return b"".join(self.pieces)


class Raw(io.RawIOBase):
    def __init__(self):
        self.data = b""

    def writable(self):
        return True

    def write(self, data):
        self.data += bytes(data[:1009])
        return min(len(data), 1009)


@pytest.mark.parametrize("kind", [Few, Keeping, Raw])
def test_classes(kind, written):
    write, _, expected = written
    file = kind()
    write(model(), file)
    assert file.data == expected


def test_a_file_that_is_not_open_for_writing(written, tmp_path):
    write, _, _ = written
    (tmp_path / "a").write_bytes(b"kept")
    words = "that can be written to, got one that is not open for writing, .*a"
    for buffering in (-1, 0):
        with open(tmp_path / "a", "rb", buffering) as file, pytest.raises(TypeError, match=words):
            write(model(), file)
    assert (tmp_path / "a").read_bytes() == b"kept"


def test_a_bytesio_and_back(written):
    """Behind what is there; its position is behind what was written, and nobody holds its buffer."""
    write, read, expected = written
    file = io.BytesIO()
    file.write(b"before")
    write(model(), file)
    assert file.getvalue() == b"before" + expected
    assert file.tell() == 6 + len(expected)
    file.seek(6)
    assert list(values(read(file))) == list(values(read(expected)))
    file.truncate(0)


def values(found):
    models = found.values() if isinstance(found, dict) else [found]
    return (array.tobytes() for one in models for array in one.state_dict().values())


@pytest.mark.parametrize("mode, buffering", [("wb", -1), ("wb", 0), ("w+b", -1), ("r+b", 0), ("ab", -1), ("xb", -1)])
def test_files_on_the_disk(mode, buffering, written, tmp_path):
    """Left open, not flushed, and behind what is there."""
    write, _, expected = written
    if mode != "xb":
        (tmp_path / "a").write_bytes(b"before")
    with open(tmp_path / "a", mode, buffering) as file:
        if mode == "r+b":
            file.seek(6)
        write(model(), file)
        assert not file.closed
        file.write(b"behind")
    assert (tmp_path / "a").read_bytes() == (b"before" if mode in ("ab", "r+b") else b"") + expected + b"behind"
    assert not list(tmp_path.glob(".fastlstm*"))


@pytest.mark.parametrize("make", [tempfile.TemporaryFile, tempfile.NamedTemporaryFile, tempfile.SpooledTemporaryFile])
def test_a_temporary_file_and_back(make, written):
    write, read, expected = written
    with make() as file:
        write(model(), file)
        file.seek(0)
        assert list(values(read(file))) == list(values(read(expected)))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_of_a_zip_archive_and_back(compression, written):
    write, read, expected = written
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive, archive.open("m", "w") as member:
        write(model(), member)
    with zipfile.ZipFile(file) as archive, archive.open("m") as member:
        assert archive.read("m") == expected
        assert list(values(read(member))) == list(values(read(expected)))


def test_gzip(written, tmp_path):
    write, _, expected = written
    with gzip.open(tmp_path / "a", "wb") as file:
        write(model(), file)
    with gzip.open(tmp_path / "a") as file:
        assert file.read() == expected


def test_a_pipe(written):
    write, _, expected = written
    source, target = os.pipe()
    found = []

    def read():
        with open(source, "rb") as file:
            found.append(file.read())

    thread = threading.Thread(target=read)
    thread.start()
    with open(target, "wb", 0) as file:
        write(model(), file)
    thread.join(20)
    assert found == [expected]


def test_large_layers(tmp_path):
    """Of more than one piece."""
    large = fl.LSTM(40, 512, rng=0)
    large.save(tmp_path / "a")
    for file in (Few(100_003), Keeping()):
        large.save(file)
        assert file.data == (tmp_path / "a").read_bytes()
    assert max(map(len, file.pieces)) == 1 << 20


def test_arrays_that_are_empty_or_single():
    file = io.BytesIO()
    whole_files.write_whole(whole_files.as_target(file), [b"", np.zeros((0, 3)).data, np.ones((), "u1").data, b"x"])
    assert file.getvalue() == b"\x01x"


# ---- formats by name ---------------------------------------------------------------------------------------------


def test_formats_of_file_objects(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    one = fl.LSTM(3, 4, rng=0)
    for suffix in formats.SUFFIXES:
        file = io.BytesIO()
        formats.write(one, file, suffix.upper())
        assert same(formats.only_model(file.getvalue(), "l0" if suffix == ".onnx" else None), one)
        with open(tmp_path / f"a{suffix}", "w+b") as file:  # whose name tells it
            formats.write(one, file)
            file.seek(0)
            assert formats.kind_of(file) == {".onnx": "ONNX", ".safetensors": "safetensors"}.get(suffix, "torch")
    assert list(torch.load(tmp_path / "a.pt")) == list(one.state_dict())
    with pytest.raises(ValueError, match="^cannot write <BytesIO>: the suffix must be one of .safetensors, .onnx"):
        formats.write(one, io.BytesIO())
    with pytest.raises(ValueError, match="^cannot write <BytesIO>: the suffix must be one of .safetensors, .onnx"):
        formats.write(one, io.BytesIO(), ".h5")


# ---- what is refused ---------------------------------------------------------------------------------------------


def test_what_is_no_target(written, tmp_path):
    """bytes are what a file holds, to readers; a path of bytes would be read as another thing than it was written."""
    write, _, _ = written
    words = "^path must be a path or a binary file object that can be written to, got "
    path = os.fsencode(tmp_path / "a")
    for given, got in (
        (path, "bytes; os.fsdecode makes a path of bytes"), (bytearray(path), "bytearray; "), (3, "int$"),
        (None, "NoneType$"), (io.StringIO(), "one in text mode, <StringIO>"), (io.BytesIO, "type$"), ([], "list$"),
    ):
        with pytest.raises(TypeError, match=words + got):
            write(model(), given)
    with open(tmp_path / "text", "w") as file, pytest.raises(TypeError, match=f"{words}one in text mode, .*text"):
        write(model(), file)
    assert (tmp_path / "text").read_text() == ""
    assert not (tmp_path / "a").exists()


class Failing:
    def __init__(self, *gives):
        self.gives, self.name = list(gives), "its name"

    def write(self, data):
        found = self.gives.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found


def test_what_write_raises_comes_as_it_is(written):
    write, _, _ = written
    for error in (OSError(28, "full"), ValueError("no"), TypeError("odd"), RuntimeError("late"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught:
            write(model(), Failing(10, error))
        assert caught.value is error
    closed = io.BytesIO()
    closed.close()
    with pytest.raises(ValueError, match="closed file"):
        write(model(), closed)


@pytest.mark.parametrize("count", [0, -1, 1 << 40])
def test_a_file_object_that_counts_wrongly(count, written):
    write, _, _ = written
    with pytest.raises(OSError, match=rf"its name: write\(\) of \d+ bytes says that it took {count}"):
        write(model(), Failing(count))


def test_a_raw_file_that_does_not_wait(written):
    class Full(io.RawIOBase):
        def write(self, data):
            return None

    write, _, _ = written
    with pytest.raises(BlockingIOError, match="<Full>: .* took nothing"):
        write(model(), Full())


def test_nothing_is_written_where_an_argument_is_wrong(tmp_path):
    file, layer = io.BytesIO(), fl.LSTM(3, 4, layer_norm="ba", rng=0)
    with pytest.raises(TypeError, match="metadata"):
        layer.save(file, {"a": 3})
    pytest.importorskip("onnx")
    with pytest.raises(ValueError, match="layer_norm"):
        fl.to_onnx(layer, file)
    with pytest.raises(TypeError, match="optimiser"):
        fl.save_checkpoint(file, layer, 3)
    assert file.getvalue() == b""
    with pytest.raises(FileFormatError):
        fl.load(file)
