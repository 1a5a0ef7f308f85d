"""The recurrent layer that a state dict of torch describes by its names and shapes: files, with torch or without.

``<prefix>weight_ih_l0 (G*H, I)``, ``weight_hh_l0 (G*H, R)``, ... say class, sizes, number of layers, directions,
projection and biases; a cell's names have no ``_l0``. They do not say batch_first, dropout, nor an RNN's nonlinearity:
those are arguments, or told by a module that was pickled whole.
"""

import re

from ..layers import GRU, LSTM, RNN
from ..module import hollow
from ..params import check_state_dict, find_tensors
from ..read_files import FileFormatError, as_source, excerpt, first_bytes, refusals, steady
from ..safetensors_read import read_header, read_tensor
from .torch_contents import places
from .torch_files import module_prefix, opened, with_prefix

# weights that torch makes of others in every call -> the function that makes them for good
_MADE = {
    r"(.*\.)?parametrizations\.(weight_[ih]h_l\d+(?:_reverse)?)\.original\d*": "parametrize.remove_parametrizations",
    r"(.*\.)?(weight_hh_l\d+(?:_reverse)?)_[gv]": "remove_weight_norm",
    r"(.*\.)?(weight_hh_l\d+(?:_reverse)?)_(?:orig|u)": "remove_spectral_norm",
}
_CLASSES = {4: LSTM, 3: GRU, 1: RNN}  # by rows of weight_hh per hidden unit


# ---- tensors of a file ------------------------------------------------------------------------------------------


def is_safetensors(path):
    """Whether the first bytes of a file are those of safetensors: a length, then JSON."""
    head = first_bytes(path, 16)
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40


def read_safetensors(path, choose=dict):
    """Name -> array of a safetensors file, whoever wrote it; arrays that nobody else holds. FileFormatError.

    choose: makes of the dict of all tensors, name -> entry of the header, the dict of those to read.
    """
    path = as_source(path)
    with refusals(path), steady(path) as file:
        tensors = choose(read_header(file).tensors)
        return {name: read_tensor(file, name, entry) for name, entry in tensors.items()}


def is_safetensors_file(path, key):
    """Whether what `as_source` gave is read as safetensors; FileFormatError if there is a key for it."""
    found = str(path).lower().endswith(".safetensors") or is_safetensors(path)
    if found and key is not None:
        raise FileFormatError(f"{path}: a safetensors file holds no dict under {key!r}")
    return found


# ---- the layer they describe ------------------------------------------------------------------------------------


def made_of_others(names):
    """Prefix -> why of the layers whose recurrent weights torch makes in every call (weight_norm, spectral_norm)."""
    found = {}
    for name in names:
        for pattern, remove in _MADE.items():
            if match := re.fullmatch(pattern, name):
                line = f'torch.nn.utils.{remove}(module, {match[2]!r}); torch.save(module.state_dict(), "weights.pt")'
                found.setdefault(match[1] or "", f"its {match[2]} is made of {name}; in torch: {line}")
    return found


def is_part(name, place):
    """Whether a tensor is of the layer at a prefix, as a weight or what one is made of."""
    return re.fullmatch(rf"{re.escape(place)}(parametrizations\.)?(weight|bias)_(ih|hh|hr)_l\d.*", name) is not None


def _not_made(d):
    """d, a state dict; ValueError if torch makes recurrent weights of it in every call."""
    for reason in (made_of_others(d) if not places(d) else {}).values():
        raise ValueError(reason)
    return d


def _below(d, prefix):
    """The tensors of one layer: those below `prefix`, or, where none is given, all there are."""
    if prefix:
        return _not_made(with_prefix(d, module_prefix(d, prefix)))
    found = places(d)
    if found and "" not in found:
        words = " or ".join(repr(place) for place in found[:12])
        raise ValueError(f"its recurrent layers have names of their own: prefix= may be {words}")
    if not found:
        _not_made(d)
        raise ValueError("no weight_hh_l0 in it, so no recurrent layer of torch")
    return dict(d)


def _shape(d, name):
    """Shape of a matrix that must be there."""
    if name not in d:
        raise ValueError(f"missing {name}")
    shape = tuple(getattr(d[name], "shape", ()))
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"{name} has shape {shape}, expected a matrix")
    return shape


def _sizes(d, end):
    """(class, input_size, hidden_size, proj_size) by the shapes of the first layer; `end` of its names."""
    rows, recurrent = _shape(d, f"weight_hh{end}")
    hidden = _shape(d, f"weight_hr{end}")[1] if f"weight_hr{end}" in d else recurrent
    gates = rows / hidden
    if gates not in _CLASSES or (hidden != recurrent and gates != 4):
        words = f"weight_hh{end} has shape ({rows}, {recurrent}), with {hidden} hidden units; expected 4, 3 or 1 times"
        raise ValueError(f"{words} as many rows as hidden units (LSTM, GRU, RNN)")
    taken = _shape(d, f"weight_ih{end}")
    if taken[0] != rows:
        note = ", which is transposed" if taken[1] == rows else ""
        raise ValueError(f"weight_ih{end} has shape {taken}, expected ({rows}, input_size){note}")
    return _CLASSES[int(gates)], taken[1], hidden, recurrent if hidden != recurrent else 0


def _kind(value):
    """Name of the element type of an array or tensor."""
    kind = getattr(value, "dtype", None)
    return getattr(kind, "name", None) or str(kind).removeprefix("torch.")


def _dtype(d):
    """float64 if all are, else float32, which holds every float16. ValueError for anything else."""
    kinds = {name: _kind(value) for name, value in d.items()}
    for name, kind in kinds.items():
        if kind not in ("float16", "float32", "float64"):
            raise ValueError(f"{name} holds {kind}, expected float16, float32 or float64")
    found = sorted(set(kinds.values()))
    if len(found) > 1:
        raise ValueError(f"its weights mix {' and '.join(found)}, expected one of them")
    return "float64" if found == ["float64"] else "float32"


def _singles(d):
    """d, with torch's tensors of bfloat16, which NumPy lacks, as float32."""
    return {name: t.detach().float() if _kind(t) == "bfloat16" else t for name, t in d.items()}


def _owned(found, dtype):
    """Name -> C-contiguous array of dtype; an array that fits, and was not met before, stays where it is."""
    arrays, seen = {}, set()
    for name in list(found):
        array = found.pop(name)  # converted one by one, each given back before the next
        ours = id(array) not in seen and array.flags.writeable
        seen.add(id(array))
        arrays[name] = array.astype(dtype, order="C", copy=not ours)
    return arrays


def fill(model, d):
    """`load_state_dict` without its warning of NaN and infinity, which readers give with the place of the weights."""
    arrays, _, _ = check_state_dict(d, model._weight_shapes(), model.dtype, warn=False)
    model._replace_weights(arrays)


def layer_of(d, prefix="", owned=False, **options):
    """The recurrent layer of a state dict; see `from_torch`. ValueError names what does not fit.

    owned: the arrays of d are nobody else's, so that they may become the layer's.
    """
    return _layer(_singles(_below(d, prefix)), owned, options)


def _layer(d, owned, options):
    """The layer of d, whose names have no prefix; owned: as of `layer_of`, and d is emptied."""
    whole = d
    end = "_l0" if "weight_hh_l0" in d or "weight_hh" not in d else ""
    cls, taken, hidden, proj = _sizes(d, end)
    if cls is not RNN and options.get("nonlinearity") is not None:
        article = "an" if cls is LSTM else "a"
        raise ValueError(f"nonlinearity is for an RNN, these are the weights of {article} {cls.__name__}")
    given = {name: value for name, value in options.items() if value is not None}
    if proj:
        given["proj_size"] = proj
    if not end:
        d = {f"{name}_l0": value for name, value in d.items()}
    layers = sum(re.fullmatch(r"weight_hh_l\d+", name) is not None for name in d)
    with hollow():
        model = cls(
            taken, hidden, layers, bias="bias_ih_l0" in d or "bias_hh_l0" in d,
            bidirectional="weight_hh_l0_reverse" in d, dtype=_dtype(d), **given,
        )
    if owned:
        found, _, _ = find_tensors(d, model._weight_shapes())
        d = None
        whole.clear()  # so that an array goes when it has been converted
        model._replace_weights(_owned(found, model.dtype))
    else:
        fill(model, d)
    return model


def _read_layer(path, prefix, key):
    """(name -> array of the tensors below a prefix, what a pickled module tells beside them) of a file."""
    if is_safetensors_file(path, key):
        return read_safetensors(path, lambda d: _below(d, prefix)), {}
    with opened(path, key) as found:
        place = module_prefix(found.values, prefix)
        return found.arrays(found.select(lambda d: _below(d, place)), place), found.told.get(place, {})


def with_told(options, told):
    """(options that are given, or that a pickled module tells; whether it was in training, None if it does not)."""
    told = dict(told)
    training = told.pop("training", None)
    return told | {name: value for name, value in options.items() if value is not None}, training


def layer_of_file(path, prefix="", key=None, **options):
    """The same of a file; FileFormatError with its path."""
    path = as_source(path, "source")
    d, told = _read_layer(path, prefix, key)
    options, training = with_told(options, told)
    try:
        model = _layer(d, True, options)
    except ValueError as error:
        raise FileFormatError(f"{path}: {excerpt(error, 2000)}") from None
    if training is not None:
        model.training = training
    return model
