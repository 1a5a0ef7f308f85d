"""The pickle inside a torch checkpoint, read without running it: a machine of its own that imports and calls nothing.

The readers of ``pickletools`` (Python's library) take arguments off the bytes; they execute nothing, and take no memory
for bytes that are not there. Calls that describe tensors, storages, sizes and ordered dicts become records and plain
containers. Every other object becomes an `Object`: its name, its arguments, its state, and nothing that could run.

Only text and short numbers are keys of the dicts. Any other key is put into a `Key`, which is hashed by its address:
the hash of nested tuples can take exponential time or all of the stack. What the opcodes make is counted in bytes,
about as Python takes them, and may be no more than a pickle of that length needs.

What the opcodes mean: pickletools.py. What torch writes: torch/serialization.py, torch/_utils.py, torch/_tensor.py.
"""

import functools
import io
import sys
from typing import NamedTuple

# kind of a storage in a checkpoint -> its elements as NumPy reads them; bfloat16 is widened later. The last three have
# no class of storage: torch writes bytes (UntypedStorage) and the tensor names the type.
STORAGES = {
    "HalfStorage": "f2", "FloatStorage": "f4", "DoubleStorage": "f8", "CharStorage": "i1", "ByteStorage": "u1",
    "ShortStorage": "i2", "IntStorage": "i4", "LongStorage": "i8", "BoolStorage": "bool", "BFloat16Storage": "bfloat16",
    "uint16": "u2", "uint32": "u4", "uint64": "u8",
}
MAX_AXES = 32  # what any NumPy can hold
ROOM, SLACK = 20, 1 << 20  # bytes made for each byte of a pickle, and beyond; torch's own need up to 19, in protocol 4
_SLOT, _ENTRY = 16, 80  # bytes of a place in a list or on the stack, of one in a dict
_FEW, _EARLY = 21, 56  # so many entries of a dict take fewer bytes, as little is copied while it grows
_LONGEST = 60  # bits of an integer that is a key: longer ones can be made to have one hash
_SMALL = range(257)  # integers that Python has already


class Refused(ValueError):
    """Something in a pickle that is not read; the message says what."""


class Name(NamedTuple):
    """A name the pickle mentions; nothing is imported for it."""

    module: str
    name: str

    @property
    def text(self):
        """As it stands in a program, at most 100 characters."""
        module = "builtins" if self.module in ("__builtin__", "exceptions") else self.module  # of Python 2
        return f"{module[:100]}.{self.name[:100]}"[:100]


_PLAIN = {
    Name("torch", "Tensor"), Name("torch.nn.parameter", "Parameter"), Name("torch.nn.parameter", "Buffer"),
}
_SET, _FROZENSET, _INT = (Name("builtins", name) for name in ("set", "frozenset", "int"))
_PERSISTENT = Name("torch.storage", "persistent_id")


class Object:
    """What a pickle makes by a call, which is not made here: an inert record, equal to nothing but itself.

    function: `Name` of the class or function, or an `Object`. arguments: what it is given, most often a tuple.
    state: what BUILD gives it, most often a dict of attributes. items: its items, a dict or a list, or None.
    """

    __slots__ = ("arguments", "function", "items", "state")

    def __init__(self, function, arguments):
        self.function, self.arguments, self.state, self.items = function, arguments, None, None


class Key:
    """A key of a dict that is neither text nor a short number."""

    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class Storage(NamedTuple):
    """Numbers in a file of the archive: its key, a kind (of `STORAGES` if it can be read), how many."""

    key: str
    kind: str
    numel: int


class Tensor(NamedTuple):
    """A view of a storage, in elements; nothing of it is checked yet but its types."""

    storage: Storage
    offset: int
    size: tuple
    stride: tuple


_FAR = 1 << 60


class _Mark:
    """What MARK leaves on the stack."""


# ---- calls whose meaning is known -------------------------------------------------------------------------------
# Each gets the arguments, a tuple, and returns what they make, or None if they are not as torch writes them.


def _is_sizes(value):
    return type(value) is tuple and len(value) <= MAX_AXES and all(type(n) is int for n in value)


def _bounded(number):
    """No file has sizes beyond this, and larger integers can be made to share one hash."""
    return max(-_FAR, min(number, _FAR))


def _rebuild(arguments):
    """_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata])."""
    if len(arguments) not in (4, 6, 7) or (len(arguments) == 7 and arguments[6]):  # metadata: conj and neg bits
        return None
    storage, offset, size, stride = arguments[:4]
    if type(storage) is not Storage or type(offset) is not int or not _is_sizes(size) or not _is_sizes(stride):
        return None
    return Tensor(storage, _bounded(offset), tuple(map(_bounded, size)), tuple(map(_bounded, stride)))


def _rebuild_untyped(arguments):
    """_rebuild_tensor_v3(storage of bytes, offset, size, stride, requires_grad, hooks, dtype[, metadata])."""
    if len(arguments) not in (7, 8) or type(arguments[0]) is not Storage or type(arguments[6]) is not Name:
        return None
    storage, kind = arguments[0], arguments[6].name
    width = int(STORAGES[kind][1]) if kind in STORAGES else 1
    if storage.kind != "UntypedStorage" or arguments[6].module != "torch" or storage.numel % width:
        return None
    return _rebuild((Storage(storage.key, kind, storage.numel // width), *arguments[1:6], *arguments[7:]))


def _parameter(arguments):
    """_rebuild_parameter(data, requires_grad, hooks), _rebuild_parameter_with_state(the same, state)."""
    return arguments[0] if len(arguments) in (3, 4) and type(arguments[0]) in (Tensor, Object) else None


def _of_type(arguments):
    """_rebuild_from_type_v2(function, class, arguments, state): of torch's own classes the tensor itself."""
    if len(arguments) != 4 or tuple(map(type, arguments[:3])) != (Name, Name, tuple) or arguments[1] not in _PLAIN:
        return None
    known = _CALLS.get(arguments[0])
    return known(arguments[2]) if known in (_rebuild, _rebuild_untyped) else None


_CALLS = {
    Name("collections", "OrderedDict"): lambda arguments: None if arguments else {},
    Name("torch", "Size"): lambda arguments: arguments[0] if len(arguments) == 1 and _is_sizes(arguments[0]) else None,
    Name("torch._tensor", "_rebuild_from_type_v2"): _of_type,
    Name("torch._utils", "_rebuild_parameter"): _parameter,
    Name("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    Name("torch._utils", "_rebuild_tensor"): _rebuild,
    Name("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    Name("torch._utils", "_rebuild_tensor_v3"): _rebuild_untyped,
}


def _call(function, arguments):
    """What a call makes: containers and records where it is known, else an `Object`."""
    if type(function) not in (Name, Object):
        raise Refused("it calls something that is not a name")
    known = _CALLS.get(function) if type(function) is Name and type(arguments) is tuple else None
    made = known(arguments) if known else None
    return Object(function, arguments) if made is None else made


def _storage(value):
    """("storage", class, key, location, numel) -> `Storage`; an `Object` of any other persistent id."""
    if type(value) is not tuple or len(value) != 5 or value[0] != "storage":
        return Object(_PERSISTENT, value)
    _, cls, key, _, numel = value
    known = type(cls) is Name and type(key) is str and type(numel) is int
    return Storage(key, cls.name, _bounded(numel)) if known else Object(_PERSISTENT, value)


# ---- the machine ------------------------------------------------------------------------------------------------


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
        _ACTIONS[name](self, argument)
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
        stack = self.stack
        at = next((n for n in range(len(stack) - 1, -1, -1) if stack[n] is _Mark), None)
        if at is None:
            raise Refused("its pickle is damaged")
        found = stack[at + 1 :]
        del stack[at:]
        return found

    def make(self, value):
        """Push what an opcode made."""
        self.charge(sys.getsizeof(value) if value != () else 0)  # there is one empty tuple
        self.stack.append(value)

    def take(self, value):
        """Push a number, text or bytes off the pickle."""
        self.charge(0 if type(value) is int and value in _SMALL else sys.getsizeof(value))
        self.stack.append(value)

    # ---- containers, and the items of objects

    def items_of(self, target, kind):
        """The container of class `kind` that gets the items of `target`."""
        if type(target) is Object:
            if target.items is None:
                target.items = kind()
                self.charge(sys.getsizeof(target.items))
            target = target.items
        if type(target) is not kind:
            raise Refused("its pickle is damaged")
        return target

    def key(self, value):
        if type(value) in (str, float, bool, type(None)) or (type(value) is int and value.bit_length() <= _LONGEST):
            return value
        found = Key(value)
        self.charge(sys.getsizeof(found))
        return found

    def set_items(self, items):
        target = self.pop()
        entries = self.items_of(target, dict)
        if len(items) % 2:
            raise Refused("its pickle is damaged")
        for key, value in zip(*[iter(items)] * 2, strict=True):
            key = self.key(key)
            if key not in entries:
                self.charge(_EARLY if len(entries) < _FEW else _ENTRY)
            entries[key] = value
        self.stack.append(target)

    def append(self, items):
        target = self.pop()
        self.charge(_SLOT * len(items))
        self.items_of(target, list).extend(items)
        self.stack.append(target)

    def make_object(self, function, arguments=()):
        self.charge(sys.getsizeof(arguments) if arguments != () else 0)
        self.make(Object(function, arguments))

    # ---- memo, names, calls

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

    def name(self, module, name):
        self.make(Name(module, name))

    def stack_name(self):
        name = self.pop(str)
        self.name(self.pop(str), name)

    def reduce(self):
        """REDUCE and NEWOBJ: what is called, a tuple of arguments."""
        arguments, function = self.pop(), self.pop()
        made = _call(function, arguments)
        if type(made) is Tensor and not made.storage.kind.endswith("Storage"):  # it has a storage of its own
            self.charge(2 * sys.getsizeof(made.storage))  # with its number of elements
        self.make(made)

    def new_with_keywords(self):
        keywords, arguments = self.pop(), self.pop()
        self.make_object(self.pop(Name), (arguments, keywords))

    def inst(self, module, name):
        self.name(module, name)
        self.make_object(self.pop(), tuple(self.to_mark()))

    def obj(self):
        function, *arguments = self.to_mark() or [None]
        if type(function) is not Name:
            raise Refused("its pickle is damaged")
        self.make_object(function, tuple(arguments))

    def build(self):
        """The state of an object; that of an OrderedDict (torch's _metadata, versions of modules) is left out."""
        state, target = self.pop(), self.pop()
        if type(target) is Object:
            target.state = state
        self.stack.append(target)


_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_VALUES = (
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES",
    "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
)
# opcode -> what it does to a machine, given its argument
_ACTIONS = {
    "NONE": lambda m, _: m.stack.append(None), "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    **{name: lambda m, value: m.take(value) for name in _VALUES},
    # of more than 255 bytes: no size or key, and costly to hash
    "LONG4": lambda m, _: m.make_object(_INT),
    **{name: lambda m, _, n=n: m.make(tuple([m.pop() for _ in range(n)][::-1])) for name, n in _TUPLES.items()},
    "TUPLE": lambda m, _: m.make(tuple(m.to_mark())),
    "EMPTY_DICT": lambda m, _: m.make({}), "EMPTY_LIST": lambda m, _: m.make([]),
    "EMPTY_SET": lambda m, _: m.make_object(_SET),
    "FROZENSET": lambda m, _: m.make_object(_FROZENSET, tuple(m.to_mark())),
    "SETITEM": lambda m, _: m.set_items([m.pop(), m.pop()][::-1]), "SETITEMS": lambda m, _: m.set_items(m.to_mark()),
    "APPEND": lambda m, _: m.append([m.pop()]), "APPENDS": lambda m, _: m.append(m.to_mark()),
    "ADDITEMS": lambda m, _: m.append(m.to_mark()),
    "MARK": lambda m, _: m.stack.append(_Mark), "POP": lambda m, _: m.pop(), "POP_MARK": lambda m, _: m.to_mark(),
    "BINPUT": lambda m, index: m.remember(index), "LONG_BINPUT": lambda m, index: m.remember(index),
    "MEMOIZE": lambda m, _: m.remember(len(m.memo) + len(m.far)),
    "BINGET": lambda m, index: m.recall(index), "LONG_BINGET": lambda m, index: m.recall(index),
    "GLOBAL": lambda m, names: m.name(*names), "STACK_GLOBAL": lambda m, _: m.stack_name(),
    "BINPERSID": lambda m, _: m.make(_storage(m.pop())),
    "REDUCE": lambda m, _: m.reduce(), "NEWOBJ": lambda m, _: m.reduce(),
    "NEWOBJ_EX": lambda m, _: m.new_with_keywords(), "INST": lambda m, names: m.inst(*names),
    "OBJ": lambda m, _: m.obj(), "BUILD": lambda m, _: m.build(),
    "PROTO": lambda m, _: None, "FRAME": lambda m, _: None,
}


@functools.cache
def _opcodes():
    """Byte -> what pickletools knows of it."""
    import pickletools  # for those who read a checkpoint; importing the package stays quick

    return {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}


def read(data):
    """(what the pickle `data` (bytes) describes, how many bytes may still be made of it).

    It is made of dicts, lists, tuples, numbers, text, bytes, `Tensor`, `Storage`, `Name`, `Object` and `Key`, and may
    contain itself. Nothing is imported or called. Raises `Refused`, or ValueError of pickletools for bytes that are no
    pickle.
    """
    machine, file, opcodes = _Machine(ROOM * len(data) + SLACK), io.BytesIO(data), _opcodes()
    while True:
        opcode = opcodes.get(file.read(1))
        if opcode is None:
            raise Refused("its pickle is damaged or cut short")
        if opcode.name == "STOP":
            return machine.pop(), machine.room
        if opcode.name not in _ACTIONS:
            raise Refused(f"its pickle uses {opcode.name}, which torch.save never writes")
        if opcode.name in ("GLOBAL", "INST"):  # pickletools would look for escapes in the names
            names = [file.readline().decode().rstrip("\n") for _ in range(2)]
            machine.charge(sum(map(sys.getsizeof, names)))
            machine.step(opcode.name, names)
        else:
            machine.step(opcode.name, None if opcode.arg is None else opcode.arg.reader(file))
