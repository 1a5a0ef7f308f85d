"""safetensors files, read in plain Python: the header first, then tensors one by one into memory of their own.

The package safetensors maps files into memory, and a mapping of a file that another process cuts short ends the
process. The format is small:

==================  ==================================================================================
8 bytes             length of the header, little-endian
JSON                ``{name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {...}}``
the rest            the tensors' numbers, little-endian, one after the other without gaps
==================  ==================================================================================

Source: README and safetensors/src/tensor.rs of the safetensors project, whose checks are made here, too.
"""

import json
import math
from typing import NamedTuple

import numpy as np

from .read_files import size_of

MAX_HEADER = 100_000_000  # bytes; the limit of the format itself
_MAX_AXES = 32  # what any NumPy can hold
_LARGEST = 2**63 - 1
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "u1", "C64": "<c8",
}
# those of types that NumPy lacks, too
_BITS = {name: 8 * np.dtype(kind).itemsize for name, kind in DTYPES.items()}
_BITS |= {"F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4}


class Entry(NamedTuple):
    """A tensor of a file: name of its type, shape, where its bytes begin in the file, how many there are."""

    dtype: str
    shape: tuple
    at: int
    nbytes: int


class Header(NamedTuple):
    """metadata: str -> str, None where there are none; tensors: name -> `Entry`, in the header's order."""

    metadata: dict | None
    tensors: dict


def _sizes(value):
    """Whether a value is a list of sizes."""
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= _LARGEST for n in value)


def _entry(name, value, start):
    """The `Entry` of a tensor; start: where the tensors' bytes begin."""
    if not isinstance(value, dict):
        raise ValueError(f"damaged: the entry of {name[:100]!r} is no description of a tensor")
    kind, shape, ends = (value.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not _sizes(ends) or len(ends) != 2 or ends[1] < ends[0] or not _sizes(shape):
        raise ValueError(f"damaged: {name[:100]!r} has an impossible shape or place")
    if len(shape) > _MAX_AXES:
        raise ValueError(f"damaged: {name[:100]!r} has {len(shape)} axes, at most {_MAX_AXES} are read")
    bits = _BITS.get(kind) if isinstance(kind, str) else None
    if bits is None:
        raise ValueError(f"damaged: {name[:100]!r} is of the unknown type {str(kind)[:40]!r}")
    if bits * math.prod(shape) != 8 * (ends[1] - ends[0]):
        raise ValueError(f"damaged: {name[:100]!r} has {ends[1] - ends[0]} bytes, which do not fit {kind} of its shape")
    return Entry(kind, tuple(shape), start + ends[0], ends[1] - ends[0])


def _metadata(value):
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError("damaged: its metadata are no texts by name")
    return value


def _parsed(text):
    """The header's JSON: a dict."""
    try:
        found = json.loads(text.decode())
        if not isinstance(found, dict) or not text.startswith(b"{"):
            raise ValueError("it is no object")
        if b"\\u" in text:  # JSON's way to write half a character
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except (ValueError, RecursionError) as error:
        raise ValueError(f"damaged: its header is no JSON ({str(error)[:100]})") from None


def read_header(file):
    """The `Header` of an open file, everything in it checked against the file's size. ValueError in words."""
    size = size_of(file)
    file.seek(0)
    head = file.read(8)
    if len(head) < 8:
        raise ValueError(f"{len(head)} bytes are too few for a model")
    length = int.from_bytes(head, "little")
    if length > min(size - 8, MAX_HEADER):
        raise ValueError(
            f"not a safetensors file, or cut short (it announces a header of {length} bytes and has {size} in all)"
        )
    text = file.read(length)
    if len(text) != length:
        raise ValueError("damaged: cut short")
    found = _parsed(text)
    metadata = _metadata(found.pop("__metadata__", None))
    tensors = {name: _entry(name, value, 8 + length) for name, value in found.items()}
    end = 8 + length
    for name, entry in sorted(tensors.items(), key=lambda item: (item[1].at, item[1].nbytes)):
        if entry.at != end:
            raise ValueError(f"damaged: there is a gap before {name[:100]!r}, or it lies over another tensor")
        end += entry.nbytes
    if end != size:
        raise ValueError(f"damaged: its tensors end at byte {end}, the file at {size}")
    return Header(metadata, tensors)


def read_tensor(file, name, entry):
    """A new, writable, C-contiguous array with a tensor's numbers; bfloat16 as float32. ValueError in words."""
    if entry.dtype not in DTYPES:
        raise ValueError(f"{name[:100]!r} is of an element type NumPy lacks ({entry.dtype})")
    found = np.empty(entry.shape, DTYPES[entry.dtype])
    if found.size:
        file.seek(entry.at)
        if file.readinto(found.reshape(-1).view(np.uint8)) != entry.nbytes:
            raise ValueError(f"damaged: {name[:100]!r} is cut short")
    if entry.dtype == "BOOL":
        return found != 0
    if entry.dtype == "BF16":
        return from_bfloat16(found)
    return found.astype(found.dtype.newbyteorder("="), copy=False)


def from_bfloat16(bits):
    """New float32 array of numbers of which `bits` (uint16) are the upper halves."""
    wide = np.array(bits, np.uint32, order="C")
    wide <<= 16
    return wide.view(np.float32)
