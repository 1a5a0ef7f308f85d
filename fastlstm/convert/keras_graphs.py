"""Descriptions of Keras's models as chains: which layers, in which order, each called once on what came before it."""

import re
from typing import Any, NamedTuple

MODELS = ("Sequential", "Functional", "Model")  # the last: Functional before Keras 2.4
_MODULES = ("keras", "tf_keras", "tensorflow.keras", "tensorflow.python.keras")
_KEYS = {
    "module", "class_name", "config", "registered_name", "build_config", "compile_config", "name", "inbound_nodes",
    "shared_object_id",
}
_SETTINGS = {
    "Sequential": {"name", "trainable", "dtype", "layers", "build_input_shape"},
    "Functional": {"name", "trainable", "dtype", "layers", "input_layers", "output_layers"},
}


class Layer(NamedTuple):
    """One layer of a description. key: class as .keras files name it, number among those of its class in its model.

    built: the shape of the input it was built for, None where the description does not tell.
    """

    kind: str
    name: str
    config: dict
    key: tuple[str, int] = ("", 0)
    built: list | None = None

    def shapes(self):
        """The shapes of its input that its description tells: lists of sizes, None for those that are open."""
        told = [self.config.get("batch_shape"), self.config.get("batch_input_shape"), self.built]
        return [shape for shape in told if isinstance(shape, list) and all(_is_size(one) for one in shape)]

    def __str__(self):
        return f"layer {self.name[:100]!r} ({self.kind[:60]})"


class Member(NamedTuple):
    """A layer in a chain, and whether both its outputs are the model's (a Bidirectional with merge_mode None)."""

    layer: Layer
    pair: bool = False


def _is_size(value):
    return value is None or type(value) is int


def _is(value, kind, what):
    if not isinstance(value, kind):
        raise ValueError(f"{what} is {str(value)[:60]!r}, expected a {kind.__name__}")
    return value


def layer_of(node, default=None):
    """A `Layer` of a node of a description; ValueError for what is not Keras's own."""
    _is(node, dict, "a layer")
    kind, config = _is(node.get("class_name"), str, "class_name"), node.get("config")
    if isinstance(config, list) and kind == "Sequential":  # Keras before 2.2.3
        config = {"name": default or "sequential", "layers": config}
    _is(config, dict, f"config of a {kind[:60]}")
    name = _is(config.get("name", default or kind), str, "name")
    built = node.get("build_config")
    found = Layer(kind, name, config, built=built.get("input_shape") if isinstance(built, dict) else None)
    registered = node.get("registered_name")
    if "module" in node:  # .h5 files name classes alone; a class that is not Keras's own has None
        root = str(node["module"])
        if not any(root == own or root.startswith(own + ".") for own in _MODULES):
            raise ValueError(f"{found} is of module {root[:60]!r}, not one of Keras's own")
    if registered not in (None, kind):
        raise ValueError(f"{found} is registered as {str(registered)[:60]!r}, not one of Keras's own")
    odd = set(node) - _KEYS
    if odd:
        raise ValueError(f"{found} has {sorted(map(str, odd))[0][:60]!r}, which is not known here")
    if node.get("name", name) != name:
        raise ValueError(f"{found} is named {str(node['name'])[:60]!r}, too")
    return found


def _snake(kind):
    """The name of a class in .keras files: SimpleRNN -> simple_rnn."""
    kind = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", kind))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", kind).lower()


def _numbered(layers):
    """The layers with their keys; names must differ."""
    counts, found, names = {}, [], set()
    for layer in layers:
        if layer.name in names:
            raise ValueError(f"two layers are named {layer.name[:100]!r}")
        names.add(layer.name)
        base = _snake(layer.kind)
        counts[base] = counts.get(base, -1) + 1
        found.append(layer._replace(key=(base, counts[base])))
    return found


def members(model):
    """The `Member`s of a Sequential or Functional model, in the order of computation."""
    kind = "Functional" if model.kind == "Model" else model.kind
    odd = set(model.config) - _SETTINGS[kind]
    if odd:
        raise ValueError(f"{model} has the setting {sorted(map(str, odd))[0][:60]!r}, which is not known here")
    nodes = _is(model.config.get("layers"), list, "layers")
    if kind == "Sequential":
        return [Member(one) for one in _numbered([layer_of(node) for node in nodes])]
    return _path(model, nodes)


# ---- functional models ------------------------------------------------------------------------------------------


def _tensors(value, what):
    """(layer's name, number of the output) of every tensor in a list like [["lstm", 0, 0], ...] or ["lstm", 0, 0]."""
    value = _is(value, list, what)
    if len(value) == 3 and isinstance(value[0], str):
        value = [value]
    return [_history(one, what) for one in value]


def _history(value, what):
    if not isinstance(value, list) or len(value) not in (3, 4) or [type(one) for one in value[:3]] != [str, int, int]:
        raise ValueError(f"{what} is {str(value)[:100]!r}, expected a layer's name and two numbers")
    return value[0], value[2]


def _source(layer, nodes):
    """((name, number of the output) of what a layer is called on, the same of its mask or None)."""
    calls = _is(nodes, list, "inbound_nodes")
    if len(calls) != 1:
        raise ValueError(f"{layer} is called {len(calls)} times, expected once")
    call = calls[0]
    if isinstance(call, dict):  # Keras 3
        given, options = _is(call.get("args"), list, "args"), _is(call.get("kwargs", {}), dict, "kwargs")
        given = given[0] if len(given) == 1 and isinstance(given[0], list) else given
    else:  # Keras 2: [name, node, output, kwargs]
        given = _is(call, list, "a call")
        options = given[0][3] if given and isinstance(given[0], list) and len(given[0]) == 4 else {}
        options = _is(options, dict, "kwargs")
    if len(given) != 1:
        raise ValueError(f"{layer} is called on {len(given)} inputs, expected one")
    mask = options.get("mask")
    for name, value in options.items():
        known = value is None or (name == "mask" and isinstance(value, dict)) or (name == "training" and value is False)
        if not known:
            raise ValueError(f"{layer} is called with {str(name)[:60]}={str(value)[:60]!r}, which is not known here")
    mask = None if mask is None else _history(_keras_tensor(mask), f"the mask of {layer}")
    return _history(_keras_tensor(given[0]), f"an input of {layer}"), mask


def _keras_tensor(value: Any):
    """["name", node, output] of either way to write a tensor."""
    if not isinstance(value, dict):
        return value
    config = value.get("config")
    if value.get("class_name") != "__keras_tensor__" or not isinstance(config, dict):
        raise ValueError(f"an input is {str(value)[:100]!r}, expected a layer's output")
    return config.get("keras_history")


def _path(model, nodes):
    """The members of a Functional model whose graph is one path from one input to the output."""
    layers = _numbered([layer_of(node, node.get("name") if isinstance(node, dict) else None) for node in nodes])
    calls = {layer.name: node.get("inbound_nodes") for layer, node in zip(layers, nodes, strict=True)}
    known = {layer.name: layer for layer in layers}
    inputs = _tensors(model.config.get("input_layers"), "input_layers")
    outputs = _tensors(model.config.get("output_layers"), "output_layers")
    if len(inputs) != 1:
        raise ValueError(f"{model} has {len(inputs)} inputs, expected one")
    name, pair = outputs[0][0] if outputs else "", [number for _, number in outputs] == [0, 1]
    if len({one for one, _ in outputs}) != 1 or not (pair or [number for _, number in outputs] == [0]):
        words = ", ".join(f"{one} {number}" for one, number in outputs[:9])[:200]
        raise ValueError(f"{model} has the outputs {words}, expected output 0 of one layer (states are no outputs)")
    found, sources, masks = [], {}, {}
    while True:
        layer = known.pop(name, None)
        if layer is None:
            raise ValueError(f"{model} is no chain: {name[:60]!r} is missing or comes twice")
        found.append(Member(layer, pair))
        pair = False
        if layer.kind == "InputLayer":
            break
        (name, number), mask = _source(layer, calls[layer.name])
        sources[layer.name] = name
        if mask is not None:
            masks[layer.name] = mask
        if number != 0:
            raise ValueError(f"{layer} takes output {str(number)[:20]} of {name[:60]!r}, expected output 0")
    if found[-1].layer.name != inputs[0][0]:
        raise ValueError(f"{model} is no chain from its input {inputs[0][0][:60]!r}")
    found = found[::-1]
    _take_masks([member.layer for member in found], sources, masks, known, calls)
    if known:
        raise ValueError(f"{next(iter(known.values()))} is not on the way from the input to the output")
    return found


# ---- masks of functional models, of Keras 3 ---------------------------------------------------------------------


def _take_masks(path, sources, masks, known, calls):
    """Compare the masks that layers are called with; takes the operations that make them out of `known`.

    Any layer may be called with the mask of the last Masking or Embedding before it, and with no other: what is
    not equal to 0 or mask_value in the input of that layer, in any feature.
    """
    maker, used = None, set()
    for layer in path:
        mask = masks.get(layer.name)
        if mask is not None:
            used |= _check_mask(layer, mask[0], maker, sources, known, calls)
        if layer.kind == "Masking" or (layer.kind == "Embedding" and layer.config.get("mask_zero") is True):
            maker = layer
    for name in used:
        del known[name]


def _check_mask(layer, name, maker, sources, known, calls):
    """Names of the operations that make a layer's mask."""
    words = f"{layer} is called with a mask that is not that of a Masking or an Embedding right before it"
    used, value = set(), 0
    if maker is None:
        raise ValueError(words)
    if maker.kind == "Masking":
        any_of, value = known.get(name), maker.config.get("mask_value")
        if any_of is None or any_of.kind != "Any" or any_of.config.get("axis") != -1 or any_of.config.get("keepdims"):
            raise ValueError(words)
        used.add(name)
        name = _source(any_of, calls[name])[0][0]
    compare = known.get(name)
    if compare is None or compare.kind != "NotEqual":
        raise ValueError(words)
    call = calls[name][0] if isinstance(calls[name], list) and len(calls[name]) == 1 else None
    given = call.get("args") if isinstance(call, dict) and not call.get("kwargs") else None
    if not isinstance(given, list) or len(given) != 2 or isinstance(given[1], (dict, list)) or given[1] != value:
        raise ValueError(words)
    if _history(_keras_tensor(given[0]), f"an input of {compare}") != (sources[maker.name], 0):
        raise ValueError(words)
    return used | {name}
