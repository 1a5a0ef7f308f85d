"""What ``fastlstm run`` reads and writes: arrays in .npy, .npz and .csv files."""

import io
import math
import os
from pathlib import Path

import numpy as np

from ..network import Embedding
from ..read_files import is_damage
from ..sequential import at_end
from ..whole_files import write_whole

SUFFIXES = (".npy", ".npz", ".csv")


class BadInput(Exception):
    """A file that cannot be read, or that a model cannot take; its text is for the user."""


def read_input(path, key=None):
    """The array of an .npy, .npz or .csv file. Raises BadInput in words."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise BadInput(f"cannot read {path}: the suffix must be one of {', '.join(SUFFIXES)}")
    if key is not None and suffix != ".npz":
        raise BadInput(f"--key is for .npz files, got {path}")
    try:
        if suffix == ".csv":
            return _read_csv(path)
        with open(path, "rb") as file:
            if suffix == ".npz":
                with np.load(file, allow_pickle=False) as archive:
                    return _pick(archive, key, path)
            _check_size(file, os.fstat(file.fileno()).st_size)
            file.seek(0)
            return np.load(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise BadInput(f"no such input: {path}") from error
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # NumPy's errors for damaged files range from EOFError to BadZipFile
        if not is_damage(error):
            raise
        raise BadInput(f"cannot read {path}: {error}") from error


def _check_size(file, size):
    """ValueError for an .npy file of `size` bytes that announces more numbers than it has: nothing is allocated."""
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version in header:  # version 3 has names beyond ASCII, which numbers have not
        shape, _, dtype = header[version](file)
        needed = math.prod(shape) * dtype.itemsize
        if needed > size:
            raise ValueError(f"damaged: an array of shape {shape} needs {needed} bytes, the file has {size}")


def _pick(archive, key, path):
    names = archive.files
    if key is None:
        key = "x" if "x" in names else names[0] if len(names) == 1 else None
    if key not in names:
        wanted = "has no array 'x'; choose one with --key" if key is None else f"has no array {key!r}"
        raise BadInput(f"{path} {wanted}: {', '.join(names) or 'it is empty'}")
    if f"{key}.npy" in archive.zip.namelist():
        with archive.zip.open(f"{key}.npy") as file:
            _check_size(file, archive.zip.getinfo(f"{key}.npy").file_size)
    return archive[key]


def _read_csv(path):
    """Rows of numbers, (T, columns) float64; lines starting with # are comments."""
    with open(path, encoding="utf-8-sig") as file:
        lines = [line for line in file if line.strip() and not line.startswith("#")]
    if lines and not any(map(_is_number, lines[0].split(","))):
        del lines[0]  # a header: nothing in it is a number
    if not lines:
        raise BadInput(f"{path} holds no rows")
    return np.loadtxt(lines, delimiter=",", ndmin=2, comments=None)


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def as_steps(model, x, path):
    """The input as (T, B, I), or (T, B) integers for a model that starts with an embedding."""
    if x.dtype.kind not in "fiub" or x.ndim == 0 or x.size == 0:
        raise BadInput(f"{path} must hold numbers, one row per step; got {x.dtype} of shape {x.shape}")
    first = at_end(model, 0)
    if x.ndim == 1:
        x = x[:, None]
    if isinstance(first, Embedding):
        whole = np.isfinite(x) & (np.abs(x) < 2**53) if x.dtype.kind == "f" else np.True_
        if x.ndim != 2 or not whole.all() or not np.array_equal(x, np.trunc(x)):
            raise BadInput(f"{path} must hold integers, (T,) or (T, B); got {x.dtype} of shape {x.shape}")
        return x.astype(np.int64)
    width = getattr(first, "input_size", None) or first.in_features
    x = x[:, None, :] if x.ndim == 2 else x
    if x.ndim != 3 or x.shape[2] != width:
        raise BadInput(f"the model takes {width} features per step; {path} has {x.shape[-1]}, shape {x.shape}")
    with np.errstate(over="ignore", invalid="ignore"):  # too large for float32: infinity
        return np.ascontiguousarray(x, dtype=model.dtype)


def write_output(path, y):
    """Write y (T, B, O) by the suffix of `path`, whole or not at all; a batch of one loses its axis."""
    y = y[:, 0] if y.shape[1] == 1 else y
    suffix, file = Path(path).suffix.lower(), io.BytesIO()
    if suffix == ".npy":
        np.save(file, y)
    elif suffix == ".npz":
        np.savez(file, y=y)
    else:
        header = ",".join(f"y{column}" for column in range(y.shape[1]))
        np.savetxt(file, y, fmt="%.9g", delimiter=",", header=header, comments="")
    write_whole(path, [file.getbuffer()])
