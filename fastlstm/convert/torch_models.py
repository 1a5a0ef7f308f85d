"""Models from torch and back: `from_torch`, `to_torch`. torch is imported when a module of it is at hand.

=========================  =====================================================
nn.LSTM, nn.GRU, nn.RNN    `LSTM`, `GRU`, `RNN`, with all arguments
nn.LSTMCell and the like   the same, one layer: weight_ih becomes weight_ih_l0
nn.Embedding, nn.Linear    `Embedding`, `Linear`
nn.ReLU, Tanh, Sigmoid,    the activation of the `Linear` just before it
Softmax(dim=-1)
nn.Dropout                 nothing: it does nothing at inference
nn.Sequential              `Sequential`, whose places count what is left
=========================  =====================================================

Formulas, names and shapes of these are torch's (docs/equations.md), so weights are copied bit by bit.
"""

import sys
from collections.abc import Mapping

from ..files import warn_if_not_finite
from ..layers import GRU, LSTM, RNN
from ..module import hollow
from ..network import Embedding, Linear
from ..params import check_flag
from ..read_files import as_source, is_source
from ..sequential import Sequential
from .torch_states import fill, layer_of, layer_of_file

_RECURRENT = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}
_ACTIVATIONS = {"ReLU": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid", "Softmax": "softmax"}
_SIZES = ("input_size", "hidden_size")
_ARGUMENTS = ("num_layers", "bias", "batch_first", "dropout", "bidirectional")  # of recurrent layers, here and there


def _at(place, thing):
    """Where in a chain, and what: "0.2 (Conv1d)"."""
    return f"{'.'.join(place) or 'the model itself'} ({type(thing).__name__})"


# ---- from torch -------------------------------------------------------------------------------------------------


def _weights(module, place, seen):
    """(name -> array, dtype) of a torch module's own parameters; seen: id -> place of those met before."""
    found = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) in seen:
            raise ValueError(f"{name} is that of {seen[id(tensor)]}, too; weights cannot be shared")
        seen[id(tensor)] = _at(place, module)
        if tensor.is_meta:
            raise ValueError(f"{name} is on the meta device and holds no numbers")
        kind = str(tensor.dtype).removeprefix("torch.")
        if kind not in ("float32", "float64"):
            raise ValueError(f"{name} holds {kind}, expected float32 or float64")
        found[name] = tensor.detach().cpu().numpy()
    kinds = {weight.dtype for weight in found.values()}
    if len(kinds) != 1:
        raise ValueError("its weights mix float32 and float64, expected one of them")
    return found, kinds.pop().name


def _layer(module, kind):
    """(class here, its arguments) of a torch module of class name `kind`; None where there is no such class here."""
    if kind.removesuffix("Cell") in _RECURRENT:
        names = (*_SIZES, "bias") if kind.endswith("Cell") else (*_SIZES, *_ARGUMENTS)
        names += ("proj_size",) if kind == "LSTM" else ()
        names += ("nonlinearity",) if kind in ("RNN", "RNNCell") else ()
        return _RECURRENT[kind.removesuffix("Cell")], {name: getattr(module, name) for name in names}
    if kind == "Embedding":
        for name in ("max_norm", "scale_grad_by_freq"):
            if getattr(module, name):
                raise ValueError(f"{name}={getattr(module, name)} has no counterpart here")
        return Embedding, {name: getattr(module, name) for name in ("num_embeddings", "embedding_dim")}
    if kind == "Linear":
        sizes = {name: getattr(module, name) for name in ("in_features", "out_features")}
        return Linear, sizes | {"bias": module.bias is not None}
    return None


def _build(module, kind, place, seen, activation):
    """One layer with its weights and its mode."""
    try:
        found = _layer(module, kind)
        if found is None:
            raise ValueError("has no counterpart here")
        cls, options = found
        weights, dtype = _weights(module, place, seen)
        if kind.endswith("Cell"):
            weights = {f"{name}_l0": weight for name, weight in weights.items()}
        if activation is not None:
            options["activation"] = activation
        with hollow():
            model = cls(**options, dtype=dtype)
        fill(model, weights)
    except ValueError as error:
        raise TypeError(f"from_torch: {_at(place, module)}: {error}") from None
    model.training = module.training
    return model


def _is_torchs(module, torch):
    """Of a class that torch itself defines, or `fastlstm.torch`, and nobody changed: no subclass or hook of others."""
    hooks, cls = ("_forward_hooks", "_forward_pre_hooks"), type(module)
    if any(getattr(module, name, None) for name in hooks):
        return False
    if cls.__module__ == "fastlstm.torch" and cls.__name__ in _RECURRENT:
        return issubclass(cls, getattr(torch.nn, cls.__name__))
    return cls is getattr(torch.nn, cls.__name__, None)


def _is_dropout(module, torch):
    return type(module) is torch.nn.Dropout and _is_torchs(module, torch)


def _activation(module, kind, place):
    """Name here of an activation module."""
    if kind == "Softmax" and module.dim != -1:
        raise TypeError(f"from_torch: {_at(place, module)} has dim={module.dim}, expected dim=-1")
    return _ACTIVATIONS[kind]


def _chain(module, place, seen, torch):
    """A `Sequential` of what a torch Sequential holds; None if nothing is left."""
    children = [item for item in module._modules.items() if not _is_dropout(item[1], torch)]
    members, skip = [], False
    for index, (name, child) in enumerate(children):
        if skip:  # taken by the Linear before it
            skip = False
            continue
        activation, after = None, children[index + 1][1] if index + 1 < len(children) else None
        kind = type(after).__name__
        if type(child) is torch.nn.Linear and kind in _ACTIVATIONS and _is_torchs(after, torch):
            activation, skip = _activation(after, kind, (*place, children[index + 1][0])), True
        member = _convert(child, (*place, name), seen, torch, activation)
        members += [] if member is None else [member]
    if not members:
        return None
    try:
        model = Sequential(*members)
    except ValueError as error:  # widths or types that do not fit; it counts what is left
        raise TypeError(f"from_torch: {_at(place, module)}: {error}") from None
    return model


def _convert(module, place, seen, torch, activation=None):
    """Any module; None for one that does nothing at inference."""
    kind = type(module).__name__
    if not _is_torchs(module, torch):
        words = "is no plain module of torch.nn (a subclass, a parametrization, or one with hooks)"
        raise TypeError(f"from_torch: {_at(place, module)} {words}")
    if kind == "Sequential":
        return _chain(module, place, seen, torch)
    if kind in _ACTIVATIONS:
        raise TypeError(f"from_torch: {_at(place, module)} is not right behind a Linear, which would take it")
    return _build(module, kind, place, seen, activation)


def _from_module(source, prefix):
    """The model of a torch.nn.Module, or of the part of it that `prefix` names."""
    import torch

    if not isinstance(source, torch.nn.Module):
        words = "a torch.nn.Module, a state dict, a path, a file's contents (bytes) or a binary file object"
        raise TypeError(f"from_torch: source must be {words}, got {type(source).__name__}")
    try:
        module = source.get_submodule(prefix.rstrip("."))
    except AttributeError:
        known = [f"{name}." for name, part in source.named_modules() if type(part).__name__ in _RECURRENT]
        words = f"; there are {', '.join(map(repr, known[:12]))}" if known else ""
        raise ValueError(f"from_torch: {type(source).__name__} has no module {prefix!r}{words}") from None
    place = tuple(prefix.rstrip(".").split(".")) if prefix else ()
    model = None if _is_dropout(module, torch) else _convert(module, place, {}, torch)
    if model is None:
        raise TypeError(f"from_torch: {_at(place, module)} holds nothing that computes")
    return model


def _is_file(source):
    """Whether it is a path, contents or a file object. A dict or a module may have a `read` of its own."""
    torch = sys.modules.get("torch")
    is_module = torch is not None and isinstance(source, torch.nn.Module)
    return is_source(source) and not is_module and not isinstance(source, Mapping)


def from_torch(
    source, prefix="", *, key=None, batch_first=None, dropout=None, nonlinearity=None, pack=False
):
    """The model here that computes what a torch model computes, with copies of its weights.

    source: one of

    * a torch.nn.LSTM, GRU, RNN (or those of `fastlstm.torch`), LSTMCell, GRUCell, RNNCell, Embedding, Linear, or
      Sequential of these, of Dropout (left out, at inference it does nothing) and of ReLU, Tanh, Sigmoid,
      Softmax(dim=-1) right behind a Linear, which takes them as its activation. Weights of float32 or float64, on any
      device. A cell becomes one layer, for sequences (T, B, I). Sequential hands y of a recurrent member on, where
      torch's would hand on the tuple. A padding_idx is left out: it changes no output, but that row then has a
      gradient.
    * a state dict, name -> tensor or array, or the path of a file with one: ``.pt``, ``.pth``, ``.ckpt`` (see
      `read_torch`; also of a module that was saved whole) or safetensors. torch is not needed then, nothing in the file
      is executed, and of the file no more is read than the layer. The names and shapes of *one* recurrent layer tell
      its class and sizes. float16 and bfloat16 become float32.
    * the contents of such a file (bytes, bytearray, memoryview), or a binary file object, which is read from its
      present position to its end.

    prefix: where the layer is in a larger model, "encoder.lstm" or "encoder.lstm."; key: the name of the state dict or
    module in a checkpoint that holds several things, "state_dict" or "net.enc", as of `read_torch`. batch_first,
    dropout, nonlinearity ("tanh" or "relu", of an RNN): what a state dict does not tell; by default what a module that
    was saved whole tells, else as those of the classes here. pack: True packs the weights as well (`Module.pack`), so
    that the first call is not the slow one.

    Returns a `Module` of the same dtype, weights equal to the bit, `training` as of each part.
    Raises TypeError that names place and class of anything else, of what has options that change its results
    (max_norm), of a subclass, of a module with hooks, and of weights that two members share; ImportError without torch.
    Of a state dict ValueError that names every tensor that is missing, unexpected, transposed or of a wrong size; of a
    file FileFormatError, which is one, with its path. Warns (RuntimeWarning) of NaN and infinity.
    """
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be a string, got {type(prefix).__name__}")
    pack = check_flag("pack", pack)
    options = {"batch_first": batch_first, "dropout": dropout, "nonlinearity": nonlinearity}
    told = "from_torch"
    if _is_file(source):
        told = as_source(source, "source")
        model = layer_of_file(told, prefix, key, **options)
    elif isinstance(source, Mapping):
        if key is not None:
            raise ValueError("key is for a file; of a dict of state dicts give source[key]")
        if not all(isinstance(name, str) for name in source):
            raise TypeError("a state dict maps names to tensors; there is a key that is no string")
        model = layer_of(source, prefix, **options)
    else:
        given = [name for name, value in {"key": key, **options}.items() if value is not None]
        if given:
            raise ValueError(f"from_torch: {', '.join(given)} cannot be given with a module, which has its own")
        model = _from_module(source, prefix)
    warn_if_not_finite(told, model._named_weights())
    return model.pack() if pack else model


# ---- to torch ---------------------------------------------------------------------------------------------------


def _refuse_options(model, place):
    """ValueError that names every option of a recurrent layer that torch does not have."""
    config = model.config()
    with hollow():
        plain = type(model)(1, 1).config()
    known = {*_SIZES, *_ARGUMENTS, "proj_size", "dtype", "nonlinearity"}
    found = [f"{name}={value!r}" for name, value in config.items() if name not in known and value != plain[name]]
    if isinstance(model.hidden_size, tuple):
        found.append(f"hidden_size={list(model.hidden_size)}")
    if found:
        raise ValueError(f"to_torch: {_at(place, model)}: torch has no {', '.join(found)}")


def _filled(cls, model, torch, *sizes, **options):
    """A torch module with the weights and the mode of `model`; takes no random numbers."""
    module = cls(*sizes, **options, dtype=getattr(torch, model.dtype.name), device="meta").to_empty(device="cpu")
    module.load_state_dict({name: torch.from_numpy(weight) for name, weight in model.state_dict().items()})
    return module.train(model.training)


def _modules(model, place, torch):
    """The torch modules that do what `model` does, one after the other."""
    nn, kind = torch.nn, type(model)
    if kind is Sequential:
        parts = [one for n, member in enumerate(model) for one in _modules(member, (*place, str(n)), torch)]
        chain = nn.Sequential(*parts)
        chain.training = model.training
        return [chain]
    if kind is Embedding:
        return [_filled(nn.Embedding, model, torch, model.num_embeddings, model.embedding_dim)]
    if kind is Linear:
        bias = "bias" in model.state_dict()
        found = [_filled(nn.Linear, model, torch, model.in_features, model.out_features, bias=bias)]
        for name, here in _ACTIVATIONS.items():
            if here == model.activation:
                after = nn.Softmax(dim=-1) if here == "softmax" else getattr(nn, name)()
                found.append(after.train(model.training))
        return found
    if kind not in _RECURRENT.values():
        raise TypeError(f"to_torch: {_at(place, model)} has no counterpart in torch")
    _refuse_options(model, place)
    options = {name: getattr(model, name) for name in _ARGUMENTS}
    if kind is LSTM:
        options["proj_size"] = model.proj_size
    if kind is RNN:
        options["nonlinearity"] = model.nonlinearity
    return [_filled(getattr(nn, kind.__name__), model, torch, model.input_size, model.hidden_size, **options)]


def to_torch(model):
    """The torch module that computes what `model` computes, with copies of its weights: the way back of `from_torch`.

    model: `LSTM`, `GRU`, `RNN` without options that torch lacks, `Embedding`, `Linear`, or `Sequential` of these. The
    activation of a Linear becomes a module behind it, which inside a Sequential moves the places of the others. torch's
    Sequential hands on the tuple that a recurrent member returns: with one before its end, call its members in turn.

    Returns a torch.nn.Module of the same dtype on the CPU, weights equal to the bit, `training` as of each part.
    Raises TypeError for another class, ValueError that names every option torch has not (a GRU's reset_after=False,
    peepholes, activations, regularisers other than dropout, hidden_size=[...]); ImportError without torch.
    """
    import torch

    found = _modules(model, (), torch)
    if len(found) == 1:
        return found[0]
    chain = torch.nn.Sequential(*found)
    chain.training = model.training
    return chain
