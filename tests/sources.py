"""Files of every format as bytes, and all that a reader takes them from: contents, and file objects of many kinds."""

import gzip
import io
import mmap
import os
import socket
import tarfile
import tempfile
import threading
import zipfile

import keras_bytes
import numpy as np
import onnx_bytes as ob
import torch_bytes

import fastlstm as fl
from fastlstm.convert import formats

# ---- files ------------------------------------------------------------------------------------------------------


def saved(model, save=None):
    file = io.BytesIO()
    (save or fl.Module.save)(model, file)
    return file.getvalue()


def checkpoint(hidden):
    model = fl.LSTM(3, hidden, rng=0)
    optimiser = fl.optim.Adam(model)
    optimiser.step({name: np.ones_like(weight) for name, weight in model.state_dict().items()})
    return saved(model, lambda model, file: fl.save_checkpoint(file, model, optimiser))


def state_dict(hidden):
    from safetensors.numpy import save

    return save(fl.GRU(3, hidden, 2, rng=0).state_dict())


def keras(ending):
    def written(hidden):
        layers = [keras_bytes.layer("LSTM", units=hidden), keras_bytes.layer("Dense")]
        return keras_bytes.written(ending, layers, keras_bytes.weights(*layers))
    return written


def prepare(source):
    import fastlstm.onnx

    return fastlstm.onnx.prepare(source)


# Name -> (bytes of a file by the number of hidden units, function that reads one, ending of its name).
READERS = {
    "load": (lambda hidden: saved(fl.LSTM(3, hidden, rng=0)), fl.load, ".safetensors"),
    "load_checkpoint": (checkpoint, fl.load_checkpoint, ".safetensors"),
    "from_torch safetensors": (state_dict, fl.from_torch, ".safetensors"),
    "from_torch": (lambda hidden: torch_bytes.state_dict(fl.LSTM(3, hidden, rng=0).state_dict()), fl.from_torch, ".pt"),
    "read_torch": (lambda hidden: torch_bytes.state_dict(fl.RNN(3, hidden, rng=0).state_dict()), fl.read_torch, ".pt"),
    "from_onnx": (lambda hidden: ob.recurrent("LSTM", ob.weights("LSTM", 3, hidden)), fl.from_onnx, ".onnx"),
    "from_keras": (keras(".keras"), fl.from_keras, ".keras"),
    "from_keras h5": (keras(".h5"), fl.from_keras, ".h5"),
}
READERS |= {
    f"contents {name}": (READERS[name][0], formats.contents, READERS[name][2])
    for name in READERS if name != "read_torch"
}


def numbers(found):
    """Name -> array, of what a reader gives."""
    if isinstance(found, fl.Checkpoint):
        found = found.model
    if isinstance(found, formats.Contents):
        found = found.models
    if not isinstance(found, dict):
        found = {"": found}
    return {
        (name, inner): array for name, one in found.items()
        for inner, array in ({"": one} if isinstance(one, np.ndarray) else one.state_dict()).items()
    }


def same(one, other):
    one, other = numbers(one), numbers(other)
    return list(one) == list(other) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(one.values(), other.values(), strict=True)
    )


# ---- where they come from ---------------------------------------------------------------------------------------


class Trickle:
    """Nothing but `read`, and few bytes of it at a time."""

    def __init__(self, data, most=1009):
        self._file, self._most = io.BytesIO(data), most

    def read(self, size):
        return self._file.read(min(size, self._most))


class Raw(io.RawIOBase):
    """A raw stream of a class of one's own."""

    def __init__(self, data):
        self._file = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self._file.readinto(memoryview(buffer)[:1009])


def beside(data):
    """Every second byte of a larger buffer."""
    return memoryview(np.repeat(np.frombuffer(data, np.uint8), 2).tobytes())[::2]


def wide(data):
    """Items of 8 bytes in two rows; the file must have a multiple of 16 bytes."""
    return memoryview(np.frombuffer(data, "f8").reshape(2, -1))


def behind(data):
    file = io.BytesIO(b"before" + data)
    file.seek(6)
    return file


def on_disk(folder, data, before=b""):
    (folder / "m").write_bytes(before + data)
    return folder / "m"


def opened(folder, data, mode="rb", before=b"", **options):
    file = open(on_disk(folder, data, before), mode, **options)  # noqa: SIM115
    file.seek(len(before))
    return file


def partly_read(folder, data):
    """A file whose buffer holds more than what was read of it."""
    file = opened(folder, data, before=b"a line\n")
    file.seek(0)
    assert file.readline() == b"a line\n"
    return file


def temporary(make):
    def made(folder, data):
        file = make(dir=folder)
        file.write(data)
        file.seek(0)
        return file
    return made


def spooled(**options):
    return tempfile.SpooledTemporaryFile(1 << 30, **options)


def member(compression):
    def made(folder, data):
        with zipfile.ZipFile(folder / "z", "w", compression) as archive:
            archive.writestr("inner/m", data)
        return zipfile.ZipFile(folder / "z").open("inner/m")
    return made


def member_of_tar(folder, data):
    with tarfile.open(folder / "t", "w") as archive:
        archive.add(on_disk(folder, data), "m")
    return tarfile.open(folder / "t").extractfile("m")


def squeezed(folder, data):
    (folder / "g").write_bytes(gzip.compress(data, 1))
    return gzip.open(folder / "g")


def mapped(folder, data):
    with open(on_disk(folder, data), "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def written_by_a_thread(data, target):
    def write():
        with target:
            target.write(data)
    threading.Thread(target=write, daemon=True).start()


def pipe(buffering):
    def made(folder, data):
        source, target = os.pipe()
        written_by_a_thread(data, open(target, "wb"))  # noqa: SIM115
        return open(source, "rb", buffering)
    return made


def connection(folder, data):
    one, other = socket.socketpair()
    written_by_a_thread(data, other.makefile("wb"))
    other.close()  # with its file
    file = one.makefile("rb")
    one.close()
    return file


def of_fsspec(folder, data):
    import fsspec

    with fsspec.open(f"memory://{folder}/m", "wb") as file:
        file.write(data)
    return fsspec.open(f"memory://{folder}/m", "rb").open()


# Kind -> function of (folder, bytes of a file).
CONTENTS = {
    "bytes": lambda folder, data: data,
    "bytearray": lambda folder, data: bytearray(data),
    "memoryview": lambda folder, data: memoryview(data),
    "memoryview of what may change": lambda folder, data: memoryview(bytearray(data)),
    "read-only view of what may change": lambda folder, data: memoryview(bytearray(data)).toreadonly(),
    "memoryview with gaps": lambda folder, data: beside(data),
    "numpy.bytes_": lambda folder, data: data if data.endswith(b"\0") else np.bytes_(data),
}
FILES = {
    "BytesIO": lambda folder, data: io.BytesIO(data),
    "BytesIO, further on": lambda folder, data: behind(data),
    "BufferedReader of BytesIO": lambda folder, data: io.BufferedReader(io.BytesIO(data)),
    "open": opened,
    "open, further on": lambda folder, data: opened(folder, data, before=b"before"),
    "open, partly read": partly_read,
    "open, unbuffered": lambda folder, data: opened(folder, data, buffering=0),
    "open, unbuffered, further on": lambda folder, data: opened(folder, data, before=b"before", buffering=0),
    "open for reading and writing": lambda folder, data: opened(folder, data, "r+b"),
    "TemporaryFile": temporary(tempfile.TemporaryFile),
    "NamedTemporaryFile": temporary(tempfile.NamedTemporaryFile),
    "SpooledTemporaryFile": temporary(spooled),
    "gzip": squeezed,
    "member of a zip archive": member(zipfile.ZIP_STORED),
    "compressed member of a zip archive": member(zipfile.ZIP_DEFLATED),
    "member of a tar archive": member_of_tar,
    "mmap": mapped,
}
STREAMS = {
    "pipe": pipe(-1),
    "pipe, unbuffered": pipe(0),
    "socket": connection,
    "class with read alone": lambda folder, data: Trickle(data),
    "raw class": lambda folder, data: Raw(data),
}
