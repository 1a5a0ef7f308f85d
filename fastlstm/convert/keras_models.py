"""Models that Keras saved, as models here: `from_keras`. Neither Keras nor h5py is needed.

===============================  ===================================================================================
LSTM, GRU, SimpleRNN             `LSTM`, `GRU`, `RNN`; inside `Last` without return_sequences, inside
                                 `Reverse` (in_time=False) with go_backwards
CuDNNLSTM, CuDNNGRU (Keras 2)    the same
Bidirectional                    one layer with bidirectional=True where that says the same, else `Bidirectional`
Embedding, Dense                 `Embedding`, `Linear`; TimeDistributed(Dense) too
Activation, ReLU, Softmax        the activation of the Dense just before it
Dropout, GaussianNoise, ...      nothing: they do nothing at inference
Masking                          nothing, and a warning that names it
Sequential, Functional           `Sequential`, nested ones too, if each is one chain
===============================  ===================================================================================
"""

import warnings

import numpy as np

from ..files import not_finite
from ..last import Last
from ..module import hollow
from ..params import check_flag
from ..read_files import as_source, refusals, steady
from ..sequential import Sequential, at_end
from ..wrappers import Bidirectional, Reverse
from . import keras_layers as kl
from .keras_files import read_file
from .keras_graphs import MODELS, layer_of, members

_ACTIVATIONS = ("Activation", "ReLU", "Softmax")


class _Notes:
    """What is learnt on the way: layers that make masks, compute in half precision, weights that are not finite."""

    def __init__(self):
        self.masks, self.half, self.odd = [], [], []
        self.masked = None  # the layer whose mask is still in force at this place of the chain


# ---- tensors ----------------------------------------------------------------------------------------------------


def _checked(file, layer, scope, shapes_of, cell):
    """Tensor -> (path, its `Array`), shape and type as expected; shapes_of: first axis of the kernel -> shapes."""
    names = list(shapes_of(1))
    found = {}
    for name, (path, node) in scope.tensors(names, cell).items():
        try:
            found[name] = path, file.array(node)
        except ValueError as error:
            raise ValueError(f"{name} ({path[:100]}): {error}") from None
    dtype, _ = kl.dtype_of(layer.config)
    first = found[names[0]][1].shape
    inputs = first[0] if len(first) == 2 and first[0] > 0 else 1
    for name, shape in shapes_of(inputs).items():
        path, array = found[name]
        if array.dtype is None or array.dtype != np.dtype(dtype):
            raise ValueError(f"{name} ({path[:100]}) holds {array.kind}, expected {dtype}")
        if array.shape != shape:
            raise ValueError(f"{name} ({path[:100]}) has shape {array.shape}, expected {shape}")
    return found


def _filled(model, weights, notes, layer):
    """`model`, made hollow, with its weights, whose shapes and types follow from what has been checked."""
    expected = model._weight_shapes()
    if {name: weight.shape for name, weight in weights.items()} != expected:
        raise ValueError(f"its tensors do not fit {model!r}")
    notes.odd += [f"{name} of {layer}" for name in not_finite(weights)]
    model._replace_weights(weights)
    return model


def _readers(file, found):
    """Tensor -> function that reads its numbers."""
    return {name: lambda array=array: file.numbers(array) for name, (_, array) in found.items()}


# ---- recurrent layers -------------------------------------------------------------------------------------------


def _parts(file, layer, scope):
    """(class, options with input_size and dtype, tensors) of a recurrent layer of one direction."""
    cls, options = kl.recurrent_options(layer.kind, layer.config, file.major)
    found = _checked(file, layer, scope, lambda n: kl.recurrent_shapes(layer.kind, layer.config, n), cell=True)
    inputs = found["kernel"][1].shape[0]
    return cls, {"input_size": inputs, "dtype": kl.dtype_of(layer.config)[0], **options}, _readers(file, found)


def _one_way(file, layer, scope, notes, parts=None):
    cls, options, readers = parts or _parts(file, layer, scope)
    with hollow():
        model = cls(**options)
    return _filled(model, kl.recurrent_weights(layer.kind, readers), notes, layer)


def _recurrent(file, layer, scope, notes):
    model, backwards = _one_way(file, layer, scope, notes), kl.flag(layer.config, "go_backwards")
    sequences = kl.flag(layer.config, "return_sequences")
    if backwards:
        if sequences and notes.masked:
            words = "go_backwards with return_sequences puts its steps elsewhere than lengths= would"
            raise ValueError(f"is reached by the mask of {notes.masked}: {words}")
        model = Reverse(model, in_time=False)
    return model if sequences else Last(model)


def _directions(layer):
    """The two layers inside a Bidirectional."""
    forward = layer_of(layer.config.get("layer"))
    given = layer.config.get("backward_layer")
    if given is None:
        name, config = forward.name.removeprefix("forward_"), forward.config | {"go_backwards": True}
        backward = forward._replace(name=name, config=config)
    else:
        backward = layer_of(given)
    for one, expected in ((forward, False), (backward, True)):
        if one.kind not in kl.RECURRENT:
            raise ValueError(f"holds {one}, which is no recurrent layer of Keras's own")
        kl.check_config(one.kind, one.config)
        if kl.flag(one.config, "go_backwards") != expected:
            raise ValueError(f"holds {one} with go_backwards={not expected}, expected {expected}")
    if kl.flag(forward.config, "return_sequences") != kl.flag(backward.config, "return_sequences"):
        raise ValueError("the two layers it holds differ in return_sequences")
    return forward, backward


def _bidirectional(file, layer, scope, notes, pair):
    forward, backward = _directions(layer)
    merge, sequences = layer.config.get("merge_mode", "missing"), kl.flag(forward.config, "return_sequences")
    if merge not in ("concat", "sum", "mul", "ave", None):
        raise ValueError(f"merge_mode is {str(merge)[:60]!r}, expected concat, sum, mul, ave or None")
    if merge is None and not pair:
        raise ValueError("with merge_mode None must be the end of the model, and both its outputs the model's")
    if merge is not None and pair:
        raise ValueError(f"has one output with merge_mode {merge!r}, the model takes two of it")
    if merge is None and not sequences:
        raise ValueError("with merge_mode None and without return_sequences has no counterpart here")
    scopes = scope.part("forward_layer", forward.name), scope.part("backward_layer", backward.name)
    parts = [_parts(file, one, own) for one, own in zip((forward, backward), scopes, strict=True)]
    if merge == "concat" and parts[0][:2] == parts[1][:2] and forward.kind == backward.kind:
        cls, options, _ = parts[0]
        with hollow():
            model = cls(**options, bidirectional=True)
        weights = kl.recurrent_weights(forward.kind, parts[0][2])
        back = kl.recurrent_weights(backward.kind, parts[1][2])
        model = _filled(model, weights | {f"{name}_reverse": one for name, one in back.items()}, notes, layer)
    else:
        both = [
            _one_way(file, one, own, notes, part)
            for one, own, part in zip((forward, backward), scopes, parts, strict=True)
        ]
        model = Bidirectional(*both, merge=merge)
    return model if sequences else Last(model)


# ---- chains -----------------------------------------------------------------------------------------------------


def _plain(file, layer, scope, notes, activation):
    """Dense or Embedding."""
    found = _checked(file, layer, scope, lambda n: kl.plain_shapes(layer.kind, layer.config, n), cell=False)
    cls, options = kl.plain_layer(layer.kind, {name: array.shape for name, (_, array) in found.items()}, activation)
    with hollow():
        model = cls(**options, dtype=kl.dtype_of(layer.config)[0])
    return _filled(model, kl.plain_weights(layer.kind, _readers(file, found)), notes, layer)


def _unwrapped(layer, scope):
    """What a TimeDistributed holds, which must look at one step at a time anyway."""
    while layer.kind == "TimeDistributed":
        kl.check_config(layer.kind, layer.config)
        inner = layer_of(layer.config.get("layer"))
        if inner.kind not in ("Dense", "TimeDistributed", *_ACTIVATIONS, *kl.NOTHING):
            raise ValueError(f"{layer} holds {inner}, which has no counterpart here")
        layer, scope = inner, scope.part("layer", inner.name)
    return layer, scope


def _check_told(model, told):
    """ValueError where a shape that a description tells for the input of a model is not that of its weights.

    told: (layer, shape). The first layer of a model may be told more than once: by itself and by an InputLayer.
    """
    first = at_end(model, 0)
    for layer, shape in told:
        width = getattr(first, "input_size", None) or getattr(first, "in_features", None)
        if first.recurrent and len(shape) != 3:
            raise ValueError(f"takes sequences, but {layer} is for inputs of shape {shape}")
        if width is not None and shape and shape[-1] not in (None, width):
            raise ValueError(f"takes {width} features by its weights, but {layer} is for inputs of shape {shape}")


def _what_computes(layers, scope, notes, top):
    """(layer, scope, pair, told) of what does something at inference, every setting checked.

    told: (layer, shape) of it and of what stands before it and does nothing, as `_check_told` takes them.
    """
    found, told = [], []
    for layer, pair in layers:
        told += [(layer, shape) for shape in layer.shapes()]
        try:
            if pair and layer.kind != "Bidirectional":
                raise ValueError("has one output, the model takes two of it (states are no outputs)")
            if pair and not top:
                raise ValueError("gives two outputs inside another model")
            layer, own = _unwrapped(layer, scope.layer(layer.name, layer.key, layer.kind in MODELS))
            if layer.kind not in MODELS:
                kl.check_config(layer.kind, layer.config)
                if layer.kind != "InputLayer" and kl.dtype_of(layer.config)[1]:
                    notes.half.append(str(layer))
            linear = layer.kind == "Activation" and kl.dense_activation(layer.kind, layer.config) is None
        except ValueError as error:
            raise _named(layer, error) from None
        if layer.kind not in kl.NOTHING and not linear:
            found.append((layer, own, pair, told))
            told = told if layer.kind == "Masking" else []
    return found


def _named(layer, error):
    """The error with the layer's name before it, if it does not speak of one yet."""
    return error if str(error).startswith("layer ") else ValueError(f"{layer}: {error}")


def _convert(file, layer, scope, pair, notes, activation):
    if layer.kind in MODELS:
        return _chain(file, layer, scope, notes)
    if layer.kind in kl.RECURRENT:
        return _recurrent(file, layer, scope, notes)
    if layer.kind == "Bidirectional":
        return _bidirectional(file, layer, scope, notes, pair)
    model = _plain(file, layer, scope, notes, activation)
    if layer.kind == "Embedding" and kl.flag(layer.config, "mask_zero", False):
        notes.masks.append(str(layer))
        notes.masked = str(layer)
    return model


def _taken(layer, after):
    """The activation of a Dense, and whether the layer behind it gives it."""
    own = kl.dense_activation("Dense", layer.config)
    if after is None or after.kind not in _ACTIVATIONS or own is not None:
        return own, False
    return kl.dense_activation(after.kind, after.config), True


def _chain(file, model, scope, notes, top=False):
    """A member or a `Sequential` of what a model holds; None if nothing is left."""
    layers, found, skip = _what_computes(members(model), scope, notes, top), [], False
    for index, (layer, own, pair, told) in enumerate(layers):
        if skip:  # taken by the Dense before it
            skip = False
            continue
        if layer.kind == "Masking":
            notes.masks.append(str(layer))
            notes.masked = str(layer)
            continue
        if layer.kind in _ACTIVATIONS:
            raise ValueError(f"{layer} is not right behind a Dense without an activation, which would take it")
        activation, after = None, layers[index + 1][0] if index + 1 < len(layers) else None
        try:
            if layer.kind == "Dense":
                activation, skip = _taken(layer, after)
            found.append(_convert(file, layer, own, pair, notes, activation))
            if found[-1] is not None:
                _check_told(found[-1], told)
        except ValueError as error:
            raise _named(layer, error) from None
    found = [one for one in found if one is not None]
    if len(found) < 2:
        return found[0] if found else None
    try:
        return Sequential(*found)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{model}: its layers do not fit each other ({error})") from None


def _model(file, path):
    """(model, warnings) of a file."""
    notes, top = _Notes(), layer_of(file.model)
    if top.kind not in MODELS:
        raise ValueError(f"a model of class {top.kind[:60]!r}; a Sequential or Functional one can be read")
    model = _chain(file, top, file.scope, notes, top=True)
    if model is None:
        raise ValueError("holds nothing that computes")
    file.check_all_used()
    found = []
    if notes.masks:
        words = "would mask steps, which is not done here: pad rows at their end and pass lengths="
        found.append((UserWarning, f"{path}: {', '.join(notes.masks)} {words}"))
    if notes.half:
        words = "Keras computes in half precision, here it is float32"
        found.append((UserWarning, f"{path}: {words}: {', '.join(notes.half)}"))
    if notes.odd:
        found.append((RuntimeWarning, f"{path}: NaN or infinity in {', '.join(notes.odd)}"))
    return model, found


def from_keras(path, *, pack=False):
    """The model here that computes what a model computes that Keras saved; nothing in the file is executed.

    path: a ``.keras`` or ``.h5`` file of ``model.save(path)``, of Keras 2 or 3 (tf.keras, tf_keras too), for a
    Sequential or Functional model that is one chain of layers in the table above. Returns the layer or a `Sequential`
    of layers, all for batches first: x (B, T, I), or (B, T) integers before an Embedding; float32 or float64 as in the
    file. With merge_mode None y is a pair. A ``.h5`` file names classes alone: an unregistered class of one's own that
    is named like Keras's cannot be told from it there.

    In the place of the path the file's contents (bytes, bytearray, memoryview) are taken, or a binary file object: what
    follows from its present position is the file, and it is left open, at its end. Both are in memory beside what is
    told below, but for files of the disk (``open``). TypeError for anything else, and for text mode; what ``read``
    raises comes as it is. pack: True packs the weights as well (`Module.pack`), which takes their memory once more, so
    that the first call is not the slow one.

    Masks are not computed: where Keras would (Masking, mask_zero) a UserWarning names the layer. Pad rows at their end
    and pass ``lengths=``; results within the lengths are then Keras's, those beyond may differ. A stateful layer is
    given its state by the caller here, and returns it. Rates of dropout are left out. Mixed precision computes in
    float32, with a UserWarning. Warns (RuntimeWarning) of NaN and infinity among the weights.

    Raises FileFormatError (a ValueError: path, layer and reason) for other layers, settings, graphs and versions of
    Keras; states that are used as outputs; Lambda and registered classes; activations there are not here; weights
    without a description; tensors that are missing, too many, or of another shape or type; shapes of inputs that its
    description tells otherwise than its weights; damage; and a file that changes while it is read. OSErrors, and what
    has nothing to do with the file's bytes, come as they are. Memory stays within about twice the size of the file, 30
    times that of its description, of 16 MB at most, and 10 kB for each layer.
    """
    path, pack = as_source(path), check_flag("pack", pack)
    with refusals(path), steady(path) as handle:
        model, found = _model(read_file(handle), path)
    for kind, words in found:
        warnings.warn(words, kind, stacklevel=2)
    return model.pack() if pack else model
