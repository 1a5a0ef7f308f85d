"""The pickle inside a torch checkpoint, read without running it: a machine of its own over a few harmless opcodes.

The readers of ``pickletools`` (Python's library) take arguments off the bytes; they execute nothing, and take no memory
for bytes that are not there. Of names, only those of `GLOBALS` are known; each stands for an inert record or a plain
container. Every other opcode and name is refused. Keys of dicts are strings and numbers. What the opcodes make is
counted in bytes, about as Python takes them, and may be no more than a pickle of that length needs.

What the opcodes mean: pickletools.py. What torch writes: torch/serialization.py, torch/_utils.py.
"""

import functools
import io
import sys
from typing import NamedTuple

# name of a storage in a checkpoint -> bytes of one element, dtype as NumPy reads it; bfloat16 is widened later
STORAGES = {
    "HalfStorage": "f2", "FloatStorage": "f4", "DoubleStorage": "f8", "CharStorage": "i1", "ByteStorage": "u1",
    "ShortStorage": "i2", "IntStorage": "i4", "LongStorage": "i8", "BoolStorage": "bool", "BFloat16Storage": "bfloat16",
}
GLOBALS = {
    "collections OrderedDict", "torch Size", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter",
    *(f"torch {name}" for name in STORAGES),
}
MAX_AXES = 32  # what any NumPy can hold
ROOM, SLACK = 20, 1 << 20  # bytes made for each byte of a pickle, and beyond; torch's own need up to 19, in protocol 4
_SLOT, _ENTRY = 16, 80  # bytes of a place in a list or on the stack, of one in a dict
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}
_SMALL = range(257)  # integers that Python has already
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MEMO = {"BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET"}
_OTHERS = {
    "TUPLE", "EMPTY_DICT", "EMPTY_LIST", "MARK", "SETITEM", "SETITEMS", "APPEND", "APPENDS", "GLOBAL", "STACK_GLOBAL",
    "BINPERSID", "REDUCE", "BUILD", "PROTO", "FRAME", "STOP",
}
_KNOWN = {*_CONSTANTS, *_VALUES, *_TUPLES, *_MEMO, *_OTHERS}
_KEYS = (str, int, float, bool, type(None))


class Refused(ValueError):
    """Something in a pickle that is not read; the message says what."""


class Name(NamedTuple):
    """A name the pickle mentions; nothing is imported for it."""

    text: str


class Storage(NamedTuple):
    """Numbers in a file of the archive: its key, a name of `STORAGES`, how many."""

    key: str
    kind: str
    numel: int


class Tensor(NamedTuple):
    """A view of a storage, in elements; nothing of it is checked yet but its types."""

    storage: Storage
    offset: int
    size: tuple
    stride: tuple


class _Mark:
    """What MARK leaves on the stack."""


def _global(text):
    if text not in GLOBALS:
        raise Refused(f"it names {text.replace(' ', '.')[:100]!r}, which is not a tensor of a state dict")
    return Name(text)


def _is_sizes(value):
    return type(value) is tuple and len(value) <= MAX_AXES and all(type(n) is int for n in value)


def _rebuild(arguments):
    """_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata])."""
    if len(arguments) not in (6, 7) or (len(arguments) == 7 and arguments[6]):
        raise Refused("a tensor is described in a way that is not known here")
    storage, offset, size, stride = arguments[:4]
    if type(storage) is not Storage or type(offset) is not int or not _is_sizes(size) or not _is_sizes(stride):
        raise Refused("the description of a tensor is damaged")
    return Tensor(storage, offset, size, stride)


def _call(name, arguments):
    """What one of `GLOBALS` makes of its arguments: containers and records."""
    if type(name) is not Name or type(arguments) is not tuple:
        raise Refused("it calls something that is not a name")
    if name.text == "torch._utils _rebuild_tensor_v2":
        return _rebuild(arguments)
    if name.text == "torch._utils _rebuild_parameter" and len(arguments) == 3 and type(arguments[0]) is Tensor:
        return arguments[0]
    if name.text == "torch Size" and len(arguments) == 1 and _is_sizes(arguments[0]):
        return arguments[0]
    if name.text == "collections OrderedDict" and not arguments:
        return {}
    raise Refused(f"it calls {name.text.replace(' ', '.')} in a way that is not known here")


def _storage(value):
    """("storage", name, key, location, numel) -> `Storage`."""
    if type(value) is not tuple or len(value) != 5 or value[0] != "storage" or type(value[1]) is not Name:
        raise Refused("a storage is described in a way that is not known here")
    kind = value[1].text.removeprefix("torch ")
    if kind not in STORAGES or type(value[2]) is not str or type(value[4]) is not int:
        raise Refused("the description of a storage is damaged")
    return Storage(value[2], kind, value[4])


class _Machine:
    """Stack and memo of one reading."""

    def __init__(self, room):
        """room: bytes that may be made."""
        self.stack, self.highest = [], 0
        self.memo, self.far = [], {}  # by index: one after the other, as picklers write them; and all others
        self.room = room

    def charge(self, nbytes):
        """Count what is made; nothing is ever given back."""
        self.room -= nbytes
        if self.room < 0:
            raise Refused(f"its pickle makes more than {ROOM} times its size")

    def step(self, name, argument):
        """One opcode, all but STOP."""
        self.run(name, argument)
        if len(self.stack) > self.highest:
            self.charge(_SLOT * (len(self.stack) - self.highest))
            self.highest = len(self.stack)

    def pop(self, kind=object):
        value = self.stack.pop() if self.stack else _Mark
        if value is _Mark or not isinstance(value, kind):
            raise Refused("its pickle is damaged")
        return value

    def to_mark(self):
        """What lies above the last MARK, which goes too."""
        found = []
        while self.stack and self.stack[-1] is not _Mark:
            found.append(self.stack.pop())
        if not self.stack:
            raise Refused("its pickle is damaged")
        self.stack.pop()
        return found[::-1]

    def set_items(self, items):
        target = self.pop(dict)
        if len(items) % 2:
            raise Refused("its pickle is damaged")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in _KEYS:
                raise Refused(f"a key is a {type(key).__name__}, expected a string")
            self.charge(_ENTRY if key not in target else 0)
            target[key] = value
        self.stack.append(target)

    def append(self, items):
        target = self.pop(list)
        self.charge(_SLOT * len(items))
        target += items
        self.stack.append(target)

    def make(self, value):
        """Push what an opcode made."""
        self.charge(sys.getsizeof(value) if value != () else 0)  # there is one empty tuple
        self.stack.append(value)

    def remember(self, index):
        value = self.pop()
        self.stack.append(value)
        if index < len(self.memo):
            self.memo[index] = value
        elif index == len(self.memo):
            self.charge(_SLOT)
            self.memo.append(value)
            self.far.pop(index, None)
        else:
            self.charge(2 * _ENTRY)
            self.far[index] = value

    def recall(self, index):
        if index >= len(self.memo) and index not in self.far:
            raise Refused("its pickle is damaged")
        self.stack.append(self.memo[index] if index < len(self.memo) else self.far[index])

    def run(self, name, argument):
        """Values and containers."""
        push = self.stack.append
        if name in _CONSTANTS:
            push(_CONSTANTS[name])
        elif name in _VALUES:
            self.charge(0 if type(argument) is int and argument in _SMALL else sys.getsizeof(argument))
            push(argument)
        elif name in _TUPLES:
            self.make(tuple([self.pop() for _ in range(_TUPLES[name])][::-1]))
        elif name == "TUPLE":
            self.make(tuple(self.to_mark()))
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            self.make({} if name == "EMPTY_DICT" else [])
        elif name == "MARK":
            push(_Mark)
        elif name in ("SETITEM", "APPEND"):
            items = [self.pop() for _ in range(2 if name == "SETITEM" else 1)][::-1]
            (self.set_items if name == "SETITEM" else self.append)(items)
        elif name in ("SETITEMS", "APPENDS"):
            (self.set_items if name == "SETITEMS" else self.append)(self.to_mark())
        else:
            self.run_names(name, argument)

    def run_names(self, name, argument):
        """Memo, names, calls."""
        if name in ("BINPUT", "LONG_BINPUT"):
            self.remember(argument)
        elif name == "MEMOIZE":
            self.remember(len(self.memo) + len(self.far))
        elif name in ("BINGET", "LONG_BINGET"):
            self.recall(argument)
        elif name == "GLOBAL":
            self.make(_global(argument))
        elif name == "STACK_GLOBAL":
            last, first = self.pop(str), self.pop(str)
            self.make(_global(f"{first} {last}"))
        elif name == "BINPERSID":
            self.make(_storage(self.pop()))
        elif name == "REDUCE":
            arguments = self.pop()
            self.make(_call(self.pop(), arguments))
        elif name == "BUILD":  # an OrderedDict's attributes: torch's _metadata, versions of modules
            self.pop(dict)
            self.stack.append(self.pop(dict))


@functools.cache
def _opcodes():
    """Byte -> what pickletools knows of it."""
    import pickletools  # for those who read a checkpoint; importing the package stays quick

    return {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}


def read(data):
    """What the pickle `data` (bytes) describes: dicts, lists, tuples, numbers, strings, `Tensor` and `Name`.

    Nothing is imported or called. Raises `Refused`, or ValueError of pickletools for bytes that are no pickle.
    """
    machine, file, opcodes = _Machine(ROOM * len(data) + SLACK), io.BytesIO(data), _opcodes()
    while True:
        opcode = opcodes.get(file.read(1))
        if opcode is None:
            raise Refused("its pickle is damaged or cut short")
        if opcode.name not in _KNOWN:
            raise Refused(f"its pickle uses {opcode.name}, which no state dict needs")
        if opcode.name == "STOP":
            return machine.pop()
        if opcode.name == "GLOBAL":  # pickletools would look for escapes in it
            machine.step("GLOBAL", " ".join(file.readline().decode().rstrip("\n") for _ in range(2)))
        else:
            machine.step(opcode.name, None if opcode.arg is None else opcode.arg.reader(file))
