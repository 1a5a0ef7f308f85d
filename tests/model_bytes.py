"""A small model, and its file taken apart, changed and put together again."""

import json
import struct

import fastlstm as fl


def make(dtype="float32"):
    return fl.Sequential(
        fl.Embedding(6, 3, rng=0, dtype=dtype), fl.Linear(3, 4, activation="tanh", rng=1, dtype=dtype),
        fl.Linear(4, 2, bias=False, rng=2, dtype=dtype),
    )


def split(data):
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + length]), data[8 + length:]


def join(header, data):
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return struct.pack("<Q", len(text)) + text + data


def edited(data, change):
    """The file with its header changed by a function of the parsed header."""
    header, body = split(data)
    change(header)
    return join(header, body)


def edited_model(data, change):
    def through(header):
        description = json.loads(header["__metadata__"]["model"])
        change(description)
        header["__metadata__"]["model"] = json.dumps(description)
    return edited(data, through)
