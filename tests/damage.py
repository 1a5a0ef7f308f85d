"""Files damaged at random, read in a process of its own that may not crash: ``python damage.py FORMAT COUNT SEED``.

Each case is a sample file of the format with one to four wounds: bits flipped, bytes overwritten, numbers replaced by
extreme ones, pieces cut out, doubled, moved or put in, the end gone. It is read, of five cases one from bytes and one
from a file object, and must come out as a model or tensors, or as the format's documented exception, whose message
starts with the file's path, or what stands for it. What the process holds may grow by no more than twice the file's
size (and SLACK, which is what an allocator rounds by).

Prints {"cases", "read", "refused", "largest"} as JSON, the last of files beyond SLACK, in multiples of their size. A
row of FORMATS is a function that gives (sample files' bytes, ending of their names, function that reads a path). The
last sample has a few megabytes, so that memory shows, and is read in every sixteenth case.
"""

import json
import os
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

SLACK = 1 << 20
ROOM = 1 << 30  # address space beyond what the process has when it starts; nothing asks for that much
DATA = Path(__file__).resolve().parent / "data"
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


def _wound(data, rng):
    if not data:  # an earlier wound took all
        return
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 1 + min(64, len(data))))
    kind = rng.integers(9)
    if kind <= 1:
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        data[at : at + length] = rng.bytes(len(data[at : at + length]))
    elif kind == 3:
        number = EXTREMES[rng.integers(len(EXTREMES))].to_bytes(8, ("little", "big")[rng.integers(2)])
        width = 1 << int(rng.integers(4))
        data[at : at + width] = (number[:width] if number[0] else number[-width:])[: len(data) - at]
    elif kind == 4:
        del data[at : at + length]
    elif kind == 5:
        data[at:at] = rng.bytes(length)
    elif kind == 6:
        data[at:at] = data[at : at + length]
    elif kind == 7:
        piece, to = data[at : at + length], int(rng.integers(len(data)))
        data[to : to + len(piece)] = piece
    else:
        del data[max(1, at) :]


def damaged(data, rng):
    """A copy of `data` with one to four wounds, most of them in its first or last 2 kB, where the sense is."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        place = rng.integers(3)
        if place == 2 or len(data) < 5000:
            _wound(data, rng)
            continue
        part = data[:2048] if place == 0 else data[-2048:]
        _wound(part, rng)
        if place == 0:
            data[:2048] = part
        else:
            data[-2048:] = part
    return bytes(data)


# ---- formats ----------------------------------------------------------------------------------------------------


def _safetensors():
    import fastlstm as fl

    def written(model):
        path = Path("sample.safetensors")
        model.save(path, {"note": "é"})
        return path.read_bytes()

    small = fl.Sequential(fl.Embedding(6, 3, rng=0), fl.LSTM(3, 4, peephole="i", rng=1), fl.Linear(4, 2, rng=2))
    return [written(small), written(fl.GRU(6, 8, 2, rng=0)), written(fl.LSTM(300, 500, rng=0))], ".safetensors", fl.load


def _torch():
    import torch_bytes

    import fastlstm as fl

    models = fl.RNN(3, 4, rng=0), fl.GRU(5, 6, 2, bidirectional=True, rng=0), fl.LSTM(300, 500, rng=0)
    return [torch_bytes.state_dict(model.state_dict()) for model in models], ".pt", fl.from_torch


def _onnx():
    import onnx_bytes as ob

    import fastlstm as fl

    small = ob.recurrent("GRU", ob.weights("GRU", 3, 4), how="packed", linear_before_reset=1)
    large = ob.recurrent("LSTM", ob.weights("LSTM", 300, 500), direction="reverse")
    return [ob.varied(), ob.computed(), small, ob.computed(), ob.varied(), large], ".onnx", fl.from_onnx


def _keras(ending):
    import zipfile

    import keras_bytes

    import fastlstm as fl

    samples = []
    for archive in sorted(DATA.glob("keras_*.zip")):
        with zipfile.ZipFile(archive) as files:
            names = [name for name in files.namelist() if name.endswith(ending) and "mask" not in name]
            samples += [files.read(name) for name in names]
    names = [keras_bytes.layer("SimpleRNN", "réseau"), keras_bytes.layer("Dense", "层")]  # another kind of group
    if ending == ".h5":
        samples.append(keras_bytes.written(ending, names))
    layers = [keras_bytes.layer("LSTM", units=500), keras_bytes.layer("Dense")]
    large = keras_bytes.written(ending, layers, keras_bytes.weights(*layers, inputs=300))
    return [*samples, large], ending, fl.from_keras


FORMATS = {
    "safetensors": _safetensors, "torch": _torch, "onnx": _onnx, "keras": lambda: _keras(".keras"),
    "h5": lambda: _keras(".h5"),
}


# ---- the process that reads them --------------------------------------------------------------------------------


def _status(name):
    """Bytes, of a line of /proc/self/status."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(name))


def _read_watched(read, given, name=None):
    """(whether it was read, bytes by which the process had grown at most). name: of what is given, in messages."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # VmHWM starts anew
    before, read_it = _status("VmRSS:"), True
    try:
        read(given)
    except ValueError as error:  # FileFormatError is one; anything else ends this process
        from fastlstm import FileFormatError

        assert type(error) is FileFormatError and str(error).startswith(f"{name or given}: "), repr(error)
        assert len(str(error)) < 3000
        read_it = False
    return read_it, max(0, _status("VmHWM:") - before)


def give_back_at_once():
    """Freed memory goes back to the system: what the allocator kept from one case would hide the next one's growth."""
    import ctypes

    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 1 << 16)  # M_TRIM_THRESHOLD


def main(name, count, seed):
    """Read `count` damaged files; raises at the first that does what it may not."""
    import faulthandler
    import resource

    faulthandler.enable()
    give_back_at_once()
    samples, ending, read = FORMATS[name]()
    rng, path, counts, largest = np.random.default_rng(seed), os.path.abspath("damaged" + ending), Counter(), 0.0
    for sample in samples:  # whatever is imported late; and the samples are good
        Path(path).write_bytes(sample)
        read(path)
        read(path)
    room = _status("VmSize:") + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    warnings.simplefilter("ignore")  # a flip can make a NaN
    for case in range(count):
        data = damaged(samples[-1] if case % 16 == 0 else samples[case % (len(samples) - 1)], rng)
        Path(path).write_bytes(data)
        try:
            with open(path, "rb") as file:
                given, name = {1: (data, "<bytes>"), 3: (file, path)}.get(case % 5, (path, path))
                good, grown = _read_watched(read, given, name)
            assert grown <= 2 * len(data) + SLACK, f"{grown} bytes for a file of {len(data)}"
        except BaseException:
            print(f"case {case} of seed {seed}: {os.path.abspath(path)}", file=sys.stderr)
            raise
        counts["read" if good else "refused"] += 1
        if len(data) > SLACK:
            largest = max(largest, grown / len(data))
    print(json.dumps({"cases": count, **counts, "largest": round(largest, 2)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
