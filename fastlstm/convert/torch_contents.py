"""What a torch checkpoint holds once its pickle is read: state dicts in dicts, lists and modules; all else in words.

A module that was pickled whole is an `Object` whose attributes hold its parameters, its buffers and its children, from
which its state dict follows. Objects may contain each other, and themselves; so nothing here calls itself, and what is
made of them is counted like what the pickle makes.
"""

import itertools
import re
import sys
from typing import Any, NamedTuple

from .torch_pickle import STORAGES, Key, Name, Object, Refused, Tensor

_FIRST = re.compile(r"(.*?)weight_hh(_l0)?")  # what every recurrent layer and cell has
_MOST_VISITED, _MOST_INSIDE, _DEEPEST, _LONGEST = 4000, 1000, 3, 60  # when keys are looked for

# function that makes a tensor of a kind that is not read -> what it is, how torch makes a plain tensor of it
_TENSORS = {
    "_rebuild_qtensor": ("a quantised tensor", "{}.dequantize()"),
    "_rebuild_sparse_tensor": ("a sparse tensor", "{}.to_dense()"),
    "_rebuild_sparse_csr_tensor": ("a sparse tensor", "{}.to_dense()"),
    "_rebuild_nested_tensor": ("a nested tensor", "{}.to_padded_tensor(0.0)"),
    "_rebuild_meta_tensor_no_storage": ("a tensor on the meta device, which has no numbers", None),
    "_rebuild_device_tensor_from_numpy": ("a tensor of another device", "{}.cpu()"),
    "_rebuild_device_tensor_from_cpu_tensor": ("a tensor of another device", "{}.cpu()"),
    "_rebuild_xla_tensor": ("a tensor of another device", "{}.cpu()"),
    "_rebuild_tensor_v2": ("a tensor whose description is damaged or unknown here", "{}.resolve_conj().resolve_neg()"),
    "_rebuild_tensor_v3": ("a tensor whose description is damaged or unknown here", "{}.resolve_conj().resolve_neg()"),
    "UninitializedParameter": ("a parameter of a lazy module, which has no numbers yet", None),
    "UninitializedBuffer": ("a buffer of a lazy module, which has no numbers yet", None),
}
_OF_CLASS = {"_rebuild_from_type": 1, "_rebuild_from_type_v2": 1, "_rebuild_wrapper_subclass": 0}  # place of the class
_KINDS = {
    "HalfStorage": "float16", "FloatStorage": "float32", "DoubleStorage": "float64", "CharStorage": "int8",
    "ByteStorage": "uint8", "ShortStorage": "int16", "IntStorage": "int32", "LongStorage": "int64",
    "BoolStorage": "bool", "BFloat16Storage": "bfloat16", "ComplexHalfStorage": "complex32",
    "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128",
}
_GROUPS, _VISIT = ("_parameters", "_buffers", "_modules"), 600  # bytes that a module's own containers take, about
_LAYERS = {f"{kind}{end}" for kind in ("LSTM", "GRU", "RNN") for end in ("", "Cell")}
_LAYER_MODULES = {"torch.nn.modules.rnn", "fastlstm.torch"}


class Entries(NamedTuple):
    """A state dict. values: name -> `Tensor` or whatever the file has there; a name is a string where it is torch's.

    told: prefix -> what a module that was pickled whole says of a recurrent layer beside its weights, by the names of
    `from_torch`'s arguments and of attributes. room: bytes that may still be made.
    """

    values: dict[Any, Any]
    told: dict[str, dict[str, Any]]
    room: int


# ---- objects ----------------------------------------------------------------------------------------------------


def _class_of(value):
    """The `Name` of what makes an object; None where that is an object itself."""
    function, arguments = value.function, value.arguments
    if type(function) is Name and function.name in ("_reconstructor", "__newobj__") and type(arguments) is tuple:
        function = arguments[0] if arguments else None
    return function if type(function) is Name else None


def _attributes(value):
    """Name -> value of a dict, or of what an object keeps: its items, or attributes that it is given; else None."""
    if type(value) is dict:
        return value
    if type(value) is not Object:
        return None
    if type(value.items) is dict:
        return value.items
    given = value.arguments[:4] if type(value.arguments) is tuple else ()
    made_of = value.state[:2] if type(value.state) is tuple else (value.state,)  # a pair where there are slots
    if given and getattr(_class_of(value), "name", "") == "OptimizedModule":  # of torch.compile
        return {"_parameters": {}, "_modules": {"_orig_mod": given[0]}}
    return next((found for found in (*made_of, *given) if type(found) is dict and found), None)


def _module(value):
    """The attributes of a module that was pickled whole; None of all else."""
    found = _attributes(value) if type(value) is Object else None
    if found is None or type(found.get("_parameters")) is not dict or type(found.get("_modules")) is not dict:
        return None
    return found


def _listed(value):
    """The items of a list, a tuple, a set."""
    if type(value) is Object:
        given = value.items
        if given is None and type(value.arguments) is tuple:
            given = value.arguments[0] if len(value.arguments) == 1 else ()
        value = given
    return value if type(value) in (list, tuple) else ()


def _told(value, attributes):
    """What a recurrent module says of itself beside its weights; nothing of classes that are not torch's own."""
    cls = _class_of(value)
    if cls is None or cls.module not in _LAYER_MODULES or cls.name not in _LAYERS:
        return None
    found = {name: attributes[name] for name in ("batch_first", "training") if type(attributes.get(name)) is bool}
    dropout, nonlinearity = attributes.get("dropout"), attributes.get("nonlinearity")
    if type(dropout) in (int, float) and 0 <= dropout <= 1:
        found["dropout"] = float(dropout)
    if cls.name.startswith("RNN"):
        if attributes.get("mode") in ("RNN_TANH", "RNN_RELU"):  # of modules of torch before 1.8, too
            nonlinearity = attributes["mode"][4:].lower()
        found |= {"nonlinearity": nonlinearity} if nonlinearity in ("tanh", "relu") else {}
    return found


def _of_module(module, room):
    """The `Entries` of a module, its children depth-first, as torch orders them. room: bytes that may be made."""
    values, told, waiting = {}, {}, [("", module)]
    while waiting:
        place, one = waiting.pop()
        attributes = _module(one)
        if (found := _told(one, attributes)) is not None:
            told[place] = found
        absent, children = _listed(attributes.get("_non_persistent_buffers_set")), []
        owners = [own if type(own := attributes.get(group)) is dict else {} for group in _GROUPS]
        room -= _VISIT + 64 * len(absent) + 16 * sum(map(len, owners))
        absent = {name for name in absent if type(name) is str} if room >= 0 else ()
        for group, own in zip(_GROUPS, owners, strict=True):
            for name, value in own.items() if room >= 0 else ():
                if value is None or type(name) is not str or (group == "_buffers" and name in absent):
                    continue
                room -= 200 + sys.getsizeof(place) + sys.getsizeof(name)
                if room < 0:
                    break
                if group == "_modules" and _module(value):
                    children.append((f"{place}{name}.", value))
                else:
                    values[f"{place}{name}"] = value
        if room < 0:
            raise Refused("its modules have more names than a pickle of its size can need")
        waiting += children[::-1]
    return Entries(values, told, room)


def entries(value, room):
    """The `Entries` of a state dict or a module; None of anything else.

    room: bytes that may be made of it. Raises `Refused` where a module needs more.
    """
    if _module(value):
        return _of_module(value, room)
    found = value.items if type(value) is Object else value
    return Entries(found, {}, room) if type(found) is dict else None


# ---- what a key names -------------------------------------------------------------------------------------------


def _inside(value, name):
    """[(what lies under a name in a dict, a list or an object, how a program would get it)], empty if nothing does."""
    attributes, number = _attributes(value) or {}, int(name) if re.fullmatch(r"[0-9]{1,9}", name) else None
    dot = f".{name}" if type(value) is Object and value.items is None else None
    for key in (name, number):
        if key is not None and key in attributes:
            return [(attributes[key], dot or f"[{key!r}]")]
    module = _module(value) or {}
    if name in module.get("_modules", ()):
        return [(module["_modules"][name], f".get_submodule({name!r})")]
    if number is not None and type(value) in (list, tuple) and number < len(value):
        return [(value[number], f"[{number}]")]
    return []


def find(root, key):
    """[(what a key names, how a program would get it)], empty if it names nothing.

    "net.enc" is "enc" in what "net" names; where a dict has "net.enc" itself, that is taken. Numbers are places in
    lists and tuples.
    """
    parts, seen, waiting = key.split("."), set(), [(root, 0, "")]
    while waiting:
        value, at, how = waiting.pop()
        if at == len(parts):
            return [(value, how)]
        if (id(value), at) in seen:
            continue
        seen.add((id(value), at))
        for end in range(at + 1, len(parts) + 1):  # the last one is tried first
            waiting += [(one, end, how + step) for one, step in _inside(value, ".".join(parts[at:end]))]
    return []


def _children(value):
    """(name, value) of what lies in a dict, a list or an object, and has a name that can be part of a key."""
    found = _attributes(value)
    if found is None:
        return [(str(n), one) for n, one in enumerate(value[:_LONGEST])] if type(value) in (list, tuple) else []
    found = itertools.islice(found.items(), _MOST_INSIDE)
    return [(name, one) for name, one in found if type(name) is str and len(name) <= _LONGEST]


def keys(root, room):
    """Key -> `Entries` of the modules and of the dicts with tensors inside `root`, those with recurrent layers first.

    What lies deep, or behind thousands of other things, is left out.
    """
    found, seen, waiting = {}, {id(root)}, [] if _module(root) else [("", 0, root)]
    for place, depth, value in waiting:
        for name, one in _children(value):
            if id(one) in seen or len(waiting) > _MOST_VISITED or type(one) not in (dict, list, tuple, Object):
                continue
            seen.add(id(one))
            try:
                own = entries(one, room)
                room = own.room if own else room
            except Refused:
                own, room = None, 0
            if own and any(type(name) is str and type(tensor) is Tensor for name, tensor in own.values.items()):
                found[place + name] = own
            if depth < _DEEPEST and not _module(one):
                waiting.append((f"{place}{name}.", depth + 1, one))
    return dict(sorted(found.items(), key=lambda item: not places(item[1].values)))


def places(values):
    """Prefixes of the recurrent layers among the names of a state dict, in its order."""
    found = (_FIRST.fullmatch(name) for name in values if isinstance(name, str))
    return list(dict.fromkeys(match[1] for match in found if match))


# ---- in words ---------------------------------------------------------------------------------------------------


def readable(value):
    """Whether it is a tensor of a kind that is read."""
    return type(value) is Tensor and value.storage.kind in STORAGES


def _kind(tensor):
    """Name of the type of a tensor's elements."""
    return _KINDS.get(tensor.storage.kind, tensor.storage.kind.removesuffix("Storage")[:60])


def _in_words(value):
    """(what it is, how torch makes a plain tensor of it or None)."""
    if type(value) is Tensor:
        kind = _kind(value)
        plain = "torch.view_as_real({})" if kind.startswith("complex") else "{}.float()"
        return ("a tensor", "{}") if readable(value) else (f"a tensor of {kind}", plain)
    if type(value) is Object:
        name, given = _class_of(value), value.arguments if type(value.arguments) is tuple else ()
        if name is None:
            return "an object", None
        if name.module.startswith("torch") and name.name in _OF_CLASS:
            cls = next(iter(given[_OF_CLASS[name.name] :]), None)
            cls = f"class {cls.text}" if type(cls) is Name else "another class"
            return f"a tensor of {cls}", "{}.as_subclass(torch.Tensor)"
        known = _TENSORS.get(name.name) if name.module.startswith("torch") else None
        return known or (f"{'an' if name.text[:1] in 'aeiou' else 'a'} {name.text}", None)
    if type(value) is Name:
        return f"the name {value.text}", None
    if type(value) is Key:
        return _in_words(value.value)
    if value is None:
        return "None", None
    return "a number" if isinstance(value, (int, float)) else f"a {type(value).__name__}", None


def words(value):
    """What something in a checkpoint is: "a tensor", "a number", "a pathlib.PosixPath"."""
    return _in_words(value)[0]


def described(value):
    """(shape, type of elements) of a tensor, read or not; ("", what it is) of anything else."""
    if type(value) is Tensor:
        return value.size, _kind(value)
    return "", words(value)


def way_out(value, how, name, entry):
    """The line to type in torch that writes a file which is read, instead of one that is refused.

    value: the dict or module that was asked for, how: how a program gets it. name, entry: what in its state dict cannot
    be read.
    """
    loaded = f"torch.load(path, weights_only=False){how}"
    if _module(value):
        loaded += ".state_dict()"
    if not isinstance(name, str):
        return f'torch.save({{n: t for n, t in {loaded}.items() if isinstance(n, str)}}, "weights.pt")'
    plain, place = _in_words(entry)[1], f"d[{name[:100]!r}]"
    if plain is not None:
        return f'd = {loaded}; {place} = {plain.format(place)}; torch.save(d, "weights.pt")'
    if "numbers" in words(entry):
        return f'd = {loaded}; del {place}; torch.save(d, "weights.pt")'
    return f'torch.save({{n: t for n, t in {loaded}.items() if torch.is_tensor(t)}}, "weights.pt")'
