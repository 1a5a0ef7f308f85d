"""Files of any format by what is in them: what `fastlstm inspect` shows and `fastlstm convert` reads and writes.

==============  =======================================  ================================
in              told by                                  read by
==============  =======================================  ================================
fastlstm        safetensors with a model's description   `fastlstm.load`
safetensors     a length, then JSON                      `fastlstm.from_torch`
torch           a zip archive with data.pkl              `fastlstm.from_torch`
Keras           a zip archive with config.json, or HDF5  `fastlstm.from_keras`
ONNX            its name: .onnx, or its first fields     `fastlstm.from_onnx`
==============  =======================================  ================================

Written are .safetensors, .onnx (with the package onnx) and .pt, .pth (with torch), by their names.
"""

import io
import os
import warnings
from typing import Any, NamedTuple

from ..files import CHECKPOINT, load, save, warn_if_not_finite
from ..read_files import FileFormatError, as_source, excerpt, first_bytes, refusals, steady
from ..safetensors_read import read_header
from ..whole_files import as_target, write_whole
from .torch_contents import described, places
from .torch_files import opened
from .torch_pickle import Tensor
from .torch_states import is_part, is_safetensors, layer_of, made_of_others, read_safetensors, with_told

SUFFIXES = (".safetensors", ".onnx", ".pt", ".pth")


class Contents(NamedTuple):
    """What a file holds.

    kind: a key of `_READERS`. models: name -> model, "" where the file is one model. refused: name -> why a recurrent
    layer of it cannot be had. others: name -> array, or `Described`, of what belongs to no recurrent layer. rest: what
    the file computes, or may compute, beyond its recurrent layers, in words; "" when they are all there is. keys: what
    the option key may be where the file holds several things -> what is there, in words.
    """

    kind: str
    models: dict[str, Any]
    refused: dict[str, str]
    others: dict[str, Any]
    rest: str = ""
    keys: dict[str, str] = {}


class Described(NamedTuple):
    """Something in a file that was not read: a tensor's shape and type of elements, or what else it is in words."""

    shape: tuple[int, ...] | str
    dtype: str


# ---- in ---------------------------------------------------------------------------------------------------------


def _kind_of_zip(path):
    import zipfile  # here: importing the package stays quick

    with refusals(path), steady(path) as file:
        names = zipfile.ZipFile(file).namelist()
    return "Keras" if "config.json" in names and not any(name.endswith("/data.pkl") for name in names) else "torch"


def kind_of(path):
    """The format of a file, by its first bytes and its name; FileFormatError for what is none, OSError as it comes."""
    path = as_source(path)
    head, name = first_bytes(path, 8), str(path).lower()
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    if head == b"\x89HDF\r\n\x1a\n":
        return "Keras"
    if name.endswith(".onnx"):
        return "ONNX"
    if name.endswith((".pt", ".pth")) and not is_safetensors(path):
        return "torch"  # which says what is wrong with it
    if is_safetensors(path) or name.endswith(".safetensors"):
        return "safetensors"
    if head.startswith(b"\x80\x02"):
        return "torch"  # a pickle, as before torch 1.6
    from .onnx_wire import is_model

    with refusals(path), steady(path) as file:
        if is_model(file):
            return "ONNX"
    raise FileFormatError(f"{path}: neither safetensors nor a checkpoint of torch, a model of Keras or of ONNX")


def _no_options(kind, path, options):
    if options.get("key") is not None:
        raise FileFormatError(f"{path}: key: for dicts in a checkpoint of torch alone; this is {kind}")
    given = [name for name, value in options.items() if value is not None]
    if given:
        words = "for state dicts of torch alone, which do not tell it"
        raise FileFormatError(f"{path}: {', '.join(given)}: {words}; this is {kind}, which does")


def _grouped(values):
    """({prefix -> its entries} of the recurrent layers in a state dict, name -> value of all else)."""
    groups = {}
    for name, value in values.items():
        groups.setdefault(name[: name.rfind(".") + 1], {})[name] = value
    recurrent = {place: own for place, own in groups.items() if places(own)}
    return recurrent, {name: value for place, own in groups.items() if place not in recurrent
                       for name, value in own.items()}


def _state_dict(kind, path, layers, others, told, refused, options):
    """`Contents` of a state dict. layers: prefix -> its arrays, emptied; refused: prefixes that are known to be."""
    models, made = {}, made_of_others(others)
    refused |= {place: reason for place, reason in made.items() if place not in layers and place not in refused}
    others = {name: one for name, one in others.items() if not any(is_part(name, place) for place in made)}
    for place in list(layers):
        try:
            own, training = with_told(options, told.get(place, {}))
            models[place] = layer_of(layers.pop(place), place, owned=True, **own)
        except ValueError as error:
            refused[place] = excerpt(error, 2000)
            continue
        models[place].training = models[place].training if training is None else training
        warn_if_not_finite(f"{path}: {place}" if place else path, models[place]._named_weights())
    rest = f"other tensors ({', '.join(list(others)[:3])}{', ...' if len(others) > 3 else ''})" if others else ""
    return Contents(kind, models, refused, others, rest)


def _apart(layers, arrays):
    """Prefix -> name -> array that no other layer has; layers: names instead of arrays. ValueError if they are many.

    Weights that two layers share in the file are copied for the second one.
    """
    found, seen, room = {}, set(), sum(array.nbytes for array in {id(one): one for one in arrays.values()}.values())
    for place, own in layers.items():
        found[place] = {}
        for name in own:
            array, shared = arrays[name], id(arrays[name]) in seen
            room -= array.nbytes if shared else 0
            if room < 0:
                raise ValueError("its layers share their weights in too many places; --name takes one of them")
            found[place][name] = array.copy() if shared else array
        seen |= {id(arrays[name]) for name in own}
    return found


def _torch(kind, path, key=None, **options):
    """Every recurrent layer of a checkpoint of torch, by its prefix; its other tensors are not read."""
    refused = {}
    with opened(path, key, several=True) as file:
        layers, others = _grouped({name: value for name, value in file.values.items() if isinstance(name, str)})
        for place, own in list(layers.items()):
            if reasons := [reason for name in own if (reason := file.why_not(name))]:
                refused[place] = reasons[0]
                del layers[place]
        others = {name: Described(*described(value)) for name, value in others.items()}
        if not layers and not refused and not made_of_others(others) and (keys := file.keys()):
            return Contents(kind, {}, {}, others, keys={name: _counted(own.values) for name, own in keys.items()})
        arrays = file.arrays({name: value for own in layers.values() for name, value in own.items()})
        layers, told = _apart(layers, arrays), file.told
    if not (layers or others or refused):
        raise FileFormatError(f"{path}: holds no tensors")
    arrays = None
    return _state_dict(kind, path, layers, others, told, refused, options)


def _counted(values):
    """A state dict in words: "12 tensors, recurrent layers 'lstm.'"."""
    number, found = sum(type(value) is Tensor for value in values.values()), places(values)
    layers = f", recurrent layers {', '.join(map(repr, found[:9]))}" if found else ""
    layers = ", of a recurrent layer" if found == [""] else layers
    return f"{number} tensor{'' if number == 1 else 's'}{layers}"


def _safetensors(kind, path, **options):
    with refusals(path), steady(path) as file:
        told = (read_header(file).metadata or {}).get("format")
    if told == CHECKPOINT:
        from ..checkpoint import load_checkpoint

        _no_options("a checkpoint of fastlstm", path, options)
        found = load_checkpoint(path).model
        models = {str(place): one for place, one in enumerate(found)} if isinstance(found, list) else {"": found}
        return Contents(CHECKPOINT, models, {}, {})
    if told != "fastlstm":
        if (key := options.pop("key", None)) is not None:
            raise FileFormatError(f"{path}: a safetensors file holds no dict under {key!r}")
        tensors = read_safetensors(path)
        if not tensors:
            raise FileFormatError(f"{path}: holds no tensors")
        layers, others = _grouped(tensors)
        tensors = None  # so that a layer's own can go when they have been taken over
        return _state_dict(kind, path, layers, others, {}, {}, options)
    _no_options("a model of fastlstm", path, options)
    return Contents("fastlstm", {"": load(path)}, {}, {})


def _onnx(kind, path, **options):
    from .onnx_read import read_onnx

    _no_options(kind, path, options)
    models, refused, told, rest = read_onnx(path)
    for words in told:
        warnings.warn(words, RuntimeWarning, stacklevel=2)
    return Contents(kind, models, refused, {}, rest)


def _keras(kind, path, **options):
    from .keras_models import from_keras

    _no_options(kind, path, options)
    return Contents(kind, {"": from_keras(path)}, {}, {})


_READERS = {"safetensors": _safetensors, "torch": _torch, "ONNX": _onnx, "Keras": _keras}


def contents(path, **options):
    """`Contents` of a file: a path, a file's contents or a binary file object, as `load` takes them.

    options: key, batch_first, nonlinearity as of `from_torch`, for state dicts only.

    Raises FileFormatError (path and reason), OSError as it comes, ImportError where the format needs a library.
    """
    path = as_source(path)
    kind = kind_of(path)
    return _READERS[kind](kind, path, **options)


def _no_such(name, names, rest):
    """Why a name, or none, names no layer."""
    if not names:
        return f"holds no recurrent layer{f', but {rest}' if rest else ''}"
    if names == [""]:
        return f"no recurrent layer is called {name!r}; the only one has no name, so leave out --name"
    words = f"no recurrent layer is called {name!r}" if name is not None else f"{len(names)} recurrent layers"
    return f"{words}; there are {', '.join(map(repr, names[:20]))}" + ("" if name else "; --name takes one of them")


def only_model(path, name=None, **options):
    """The one model of a file, or the one called `name`: a prefix of torch ("encoder.lstm."), a node of ONNX.

    Raises FileFormatError that lists the names where there are several, or says why one was refused.
    """
    path = as_source(path)
    found = contents(path, **options)
    if found.keys:
        listed = " or ".join(map(repr, list(found.keys)[:9]))
        raise FileFormatError(f"{path}: holds several things and is no state dict itself; --key may be {listed}")
    names = [*found.models, *found.refused]
    if name is None and len(names) == 1:
        if found.rest and names[0] in found.models:
            words = f"holds more than its recurrent layer: {found.rest}"
            raise FileFormatError(f"{path}: {words}; --name {names[0]} takes the layer alone")
        name = names[0]
    if name is not None and name not in names and f"{name}." in names:
        name += "."  # torch's name of the module
    if name in found.refused:
        raise FileFormatError(f"{path}: {name or 'its layer'}: {found.refused[name]}")
    if name not in found.models:
        raise FileFormatError(f"{path}: {_no_such(name, names, found.rest)}")
    return found.models[name]


# ---- out --------------------------------------------------------------------------------------------------------


def _warn_of_a_state_dict(model, d, path):
    """It holds weights alone: say so where the names and shapes would be read as another model."""
    try:
        back = repr(layer_of(d))
    except ValueError:
        back = None
    if back != repr(model):
        words = f"weights alone, by names and shapes {back}" if back else "weights alone, and does not tell which model"
        words = f"a state dict holds {words}; this was {' '.join(repr(model).split())}"
        warnings.warn(f"{path}: {words}", UserWarning, stacklevel=3)


def _write_torch(model, path):
    import torch

    from .torch_models import to_torch

    d, file = to_torch(model).state_dict(), io.BytesIO()
    torch.save(d, file)
    write_whole(path, [file.getbuffer()])
    _warn_of_a_state_dict(model, d, path)


def _write_onnx(model, path):
    from .onnx_write import to_onnx

    to_onnx(model, path)


def write(model, path, suffix=None):
    """Write a model in the format that the end of `path` names, whole or not at all.

    path: a path, or a binary file object, as `Module.save` takes them. suffix: one of SUFFIXES, where it is not that of
    the path, or of the file object's name.

    Raises ValueError for another ending and for what the format cannot express, ImportError without its library. Warns
    (UserWarning) where a state dict does not tell all of the model.
    """
    path = as_target(path)
    suffix = (os.path.splitext(str(path))[1] if suffix is None else suffix).lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"cannot write {path}: the suffix must be one of {', '.join(SUFFIXES)}")
    if suffix == ".safetensors":
        save(model, path, warn=False)  # the reader has told of NaN and infinity
    elif suffix == ".onnx":
        _write_onnx(model, path)
    else:
        _write_torch(model, path)
