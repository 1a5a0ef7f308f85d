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
from .torch_states import is_safetensors, layer_of, places, read_tensors

SUFFIXES = (".safetensors", ".onnx", ".pt", ".pth")


class Contents(NamedTuple):
    """What a file holds.

    kind: a key of `_READERS`. models: name -> model, "" where the file is one model. refused: name -> why a recurrent
    layer of it cannot be had. others: name -> array of the tensors that belong to no recurrent layer. rest: what the
    file computes, or may compute, beyond its recurrent layers, in words; "" when they are all there is.
    """

    kind: str
    models: dict[str, Any]
    refused: dict[str, str]
    others: dict[str, Any]
    rest: str = ""


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
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise FileFormatError(f"{path}: {', '.join(given)}: for state dicts of torch alone; {kind} tells it itself")


def _state_dict(kind, path, key=None, **options):
    """Every recurrent layer of a state dict, by its prefix."""
    tensors = read_tensors(path, key)
    if not tensors:
        raise FileFormatError(f"{path}: holds no tensors")
    groups, models, refused = {}, {}, {}
    for name, tensor in tensors.items():
        groups.setdefault(name[: name.rfind(".") + 1], {})[name] = tensor
    tensors = None  # so that a layer's own can go when they have been taken over
    for place in [place for place, own in groups.items() if places(own)]:
        try:
            models[place] = layer_of(groups.pop(place), place, owned=True, **options)
        except ValueError as error:
            refused[place] = excerpt(error, 2000)
            continue
        warn_if_not_finite(f"{path}: {place}" if place else path, models[place]._named_weights())
    others = {name: tensor for own in groups.values() for name, tensor in own.items()}
    rest = f"other tensors ({', '.join(list(others)[:3])}{', ...' if len(others) > 3 else ''})" if others else ""
    return Contents(kind, models, refused, others, rest)


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
        return _state_dict(kind, path, **options)
    _no_options("a model of fastlstm", path, options)
    return Contents("fastlstm", {"": load(path)}, {}, {})


def _onnx(kind, path, **options):
    from .onnx_read import read_onnx

    _no_options(kind, path, options)
    models, refused, told = read_onnx(path)
    for words in told:
        warnings.warn(words, RuntimeWarning, stacklevel=2)
    return Contents(kind, models, refused, {}, "a graph, which may compute more")


def _keras(kind, path, **options):
    from .keras_models import from_keras

    _no_options(kind, path, options)
    return Contents(kind, {"": from_keras(path)}, {}, {})


_READERS = {"safetensors": _safetensors, "torch": _state_dict, "ONNX": _onnx, "Keras": _keras}


def contents(path, **options):
    """`Contents` of a file: a path, a file's contents or a binary file object, as `load` takes them.

    options: key, batch_first, nonlinearity as of `from_torch`, for state dicts only.

    Raises FileFormatError (path and reason), OSError as it comes, ImportError where the format needs a library.
    """
    path = as_source(path)
    kind = kind_of(path)
    return _READERS[kind](kind, path, **options)


def only_model(path, name=None, **options):
    """The one model of a file, or the one called `name`: a prefix of torch ("encoder.lstm."), a node of ONNX.

    Raises FileFormatError that lists the names where there are several, or says why one was refused.
    """
    path = as_source(path)
    found = contents(path, **options)
    names = [*found.models, *found.refused]
    if name is None and len(names) == 1:
        if found.rest:
            words = f"holds more than its recurrent layer: {found.rest}"
            raise FileFormatError(f"{path}: {words}; --name {names[0]} takes the layer alone")
        name = names[0]
    if name is not None and name not in names and f"{name}." in names:
        name += "."  # torch's name of the module
    if name in found.refused:
        raise FileFormatError(f"{path}: {name or 'its layer'}: {found.refused[name]}")
    if name not in found.models:
        listed = ", ".join(map(repr, names[:20])) or "none"
        words = f"no recurrent layer is called {name!r}" if name is not None else f"{len(names)} recurrent layers"
        raise FileFormatError(f"{path}: {words}; there are {listed}")
    return found.models[name]


# ---- out --------------------------------------------------------------------------------------------------------


def _warn_of_a_state_dict(model, d, path):
    """It holds weights alone: say so where the names and shapes would be read as another model."""
    try:
        back = repr(layer_of(d))
    except ValueError:
        back = "no layer by itself"
    if back != repr(model):
        words = "a state dict holds weights alone, by names and shapes"
        warnings.warn(f"{path}: {words} {back}; this was {' '.join(repr(model).split())}", UserWarning, stacklevel=3)


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
