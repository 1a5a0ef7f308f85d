"""Checkpoints as torch writes them, made by hand: pickles of protocol 2 and the zip archive around them."""

import collections
import io
import pickle
import struct
import types
import zipfile

import numpy as np

KINDS = {
    "f2": "HalfStorage", "f4": "FloatStorage", "f8": "DoubleStorage", "i1": "CharStorage", "u1": "ByteStorage",
    "i2": "ShortStorage", "i4": "IntStorage", "i8": "LongStorage", "b1": "BoolStorage",
}


class Global:
    """Pickled as a mere name: GLOBAL module name."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """Pickled as GLOBAL, arguments, REDUCE."""

    def __init__(self, module, name, *arguments):
        self.function, self.arguments = Global(module, name), arguments


class Made:
    """Pickled as an object of a class of that name: NEWOBJ, BUILD."""

    def __init__(self, module, name, state, *arguments):
        self.cls, self.state, self.arguments = Global(module, name), state, arguments


class Persistent:
    """Pickled as its tuple, BINPERSID."""

    def __init__(self, *parts):
        self.parts = parts


class Writer(pickle._Pickler):
    """The pickler in Python, whose opcodes can be chosen."""

    def persistent_id(self, value):
        return value.parts if isinstance(value, Persistent) else None

    def save_name(self, value):
        self.write(b"c" + f"{value.module}\n{value.name}\n".encode())

    def save_call(self, value):
        self.save(value.function)
        self.save(tuple(value.arguments))
        self.write(b"R")

    def save_made(self, value):
        self.save(value.cls)
        self.save(tuple(value.arguments))
        self.write(b"\x81")
        self.memoize(value)
        self.save(value.state)
        self.write(b"b")

    dispatch = {**pickle._Pickler.dispatch, Global: save_name, Call: save_call, Made: save_made}


def pickled(value, protocol=2):
    file = io.BytesIO()
    Writer(file, protocol).dump(value)
    return file.getvalue()


def storage(key="0", kind="FloatStorage", numel=6):
    return Persistent("storage", Global("torch", kind), key, "cpu", numel)


def tensor(stored=None, offset=0, size=(2, 3), stride=(3, 1), metadata=()):
    hooks = Call("collections", "OrderedDict")
    return Call(
        "torch._utils", "_rebuild_tensor_v2", stored or storage(), offset, tuple(size), tuple(stride), False, hooks,
        *metadata,
    )


def module(parameters=None, children=None, cls=("torch.nn.modules.container", "Module"), buffers=None, **attributes):
    """A module that was pickled whole, of class `cls` (module, name)."""
    state = {"training": True, "_parameters": parameters or {}, "_buffers": buffers or {}}
    return Made(*cls, state | {"_modules": children or {}} | attributes)


def archive(data, entries=None, folder="model", compression=zipfile.ZIP_STORED, **more):
    """The bytes of a file; entries: key -> bytes of a storage; more: other names -> bytes."""
    entries = {"0": np.arange(6, dtype="f4").tobytes()} if entries is None else entries
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as target:
        target.writestr(f"{folder}/data.pkl", data if isinstance(data, bytes) else pickled(data))
        for name, content in more.items():
            target.writestr(f"{folder}/{name}", content)
        for key, content in entries.items():
            target.writestr(f"{folder}/data/{key}", content)
        target.writestr(f"{folder}/version", b"3\n")
    return file.getvalue()


def state_dict(arrays):
    """The bytes of torch.save of these arrays."""
    found, entries = collections.OrderedDict(), {}
    for index, (name, array) in enumerate(arrays.items()):
        array = np.asarray(array)
        stride = [step // array.itemsize for step in array.strides]
        kind = KINDS[array.dtype.str[1:]]
        found[name] = tensor(storage(str(index), kind, array.size), 0, array.shape, stride)
        entries[str(index)] = array.tobytes()
    return archive(dict(found), entries)


def patched(data, name, **fields):
    """The central directory's entry of `name` with sizes or method changed: a lie about what follows."""
    data, at = bytearray(data), 0
    places = types.SimpleNamespace(method=(10, "<H"), packed=(20, "<I"), size=(24, "<I"))
    while True:
        at = data.index(b"PK\x01\x02", at)
        length = struct.unpack_from("<H", data, at + 28)[0]
        if data[at + 46 : at + 46 + length].endswith(name.encode()):
            break
        at += 4
    for field, value in fields.items():
        place, form = getattr(places, field)
        struct.pack_into(form, data, at + place, value)
    return bytes(data)
