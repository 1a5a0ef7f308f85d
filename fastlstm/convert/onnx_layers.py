"""A layer from an operator of ONNX (LSTM, GRU, RNN): its attributes, its weights. The one conversion for all who read.

`recipe` checks the attributes, `layer` the weights. Letters: D directions, G gates, I inputs, H hidden units.

==============  ===========================================  =============================================
input           shape                                        becomes, of each direction
==============  ===========================================  =============================================
W               (D, G*H, I)                                  weight_ih_l0, gates in the order here
R               (D, G*H, H)                                  weight_hh_l0
B               (D, 2*G*H): biases of W, then of R           bias_ih_l0, bias_hh_l0; without it bias=False
P               (D, 3*H): gates i, o, f                      weight_peephole_l0; without it no peepholes
==============  ===========================================  =============================================

input_forget=1 means f = 1 - i: the rows of f are not used. Equations and defaults: ONNX's Operators.md; versions of
the operators: 7, 14 (which added layout) and 22 (which added bfloat16).
"""

from typing import NamedTuple

import numpy as np

from ..layers import GRU, LSTM, RNN
from ..module import hollow
from ..variants import variant
from ..wrappers import Bidirectional, Reverse
from .onnx_orders import ACTIVATIONS, CELLS, ORDERS, PEEPHOLES

CLASSES = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}
INPUTS = {
    "LSTM": ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"),
    "GRU": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
    "RNN": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
}
OUTPUTS = {"LSTM": ("Y", "Y_h", "Y_c"), "GRU": ("Y", "Y_h"), "RNN": ("Y", "Y_h")}
WEIGHTS = ("W", "R", "B", "P")
OPSETS = (7, 28)  # before 7 nothing that runs exists to compare with; 28 is the newest that was compared

_FUNCTIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_COMMON = {
    "activation_alpha": [float], "activation_beta": [float], "activations": [str], "clip": float, "direction": str,
    "hidden_size": int,
}
_OWN = {"LSTM": {"input_forget": int}, "GRU": {"linear_before_reset": int}, "RNN": {}}
_DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
# defaults of alpha and beta, those of the operators of these names; Affine and ScaledTanh are none any more
_CONSTANTS = {"HardSigmoid": (0.2, 0.5), "Elu": (1.0,), "LeakyRelu": (0.01,), "ThresholdedRelu": (1.0,)}
_CHUNK = 1 << 18  # bytes that are copied, then given back


class Recipe(NamedTuple):
    """What the attributes of a node say; options: of the layer here, for each direction."""

    op_type: str
    direction: str
    batch_first: bool
    hidden_size: int | None
    options: tuple

    @property
    def directions(self):
        """1 or 2."""
        return len(self.options)


# ---- attributes -------------------------------------------------------------------------------------------------


def check_opset(version):
    """ValueError for a version of ONNX's operators that is not read."""
    if not OPSETS[0] <= version <= OPSETS[1]:
        raise ValueError(f"is of opset {version}; opsets {OPSETS[0]} to {OPSETS[1]} are read")


def _check_types(op_type, attributes, opset):
    """The attributes that are given, with Python's numbers."""
    known = _COMMON | _OWN[op_type] | ({"layout": int} if opset >= 14 else {})
    found = {}
    for name, value in attributes.items():
        if value is None:
            continue
        if name not in known:
            raise ValueError(f"has an attribute {name[:100]!r}, which {op_type} of opset {opset} does not have")
        kind = known[name]
        values, single = (value, kind[0]) if isinstance(kind, list) else ([value], kind)
        allowed = {float: (float, np.floating), int: (int, np.integer), str: (str,)}[single]
        if not isinstance(values, (list, tuple)) or not all(isinstance(one, allowed) for one in values):
            words = f"a list of {single.__name__}" if isinstance(kind, list) else f"one {single.__name__}"
            raise ValueError(f"has {name} {str(value)[:100]}, expected {words}")
        found[name] = [single(one) for one in values] if isinstance(kind, list) else single(value)
    return found


def _choice(attributes, name, allowed, default):
    value = attributes.get(name, default)
    if value not in allowed:
        raise ValueError(f"has {name} {repr(value)[:100]}, expected {' or '.join(map(repr, allowed))}")
    return value


def _activation(name, alphas, betas):
    """An activation as layers here take it; its constants are the next ones of those given, else the default."""
    known = {theirs.lower(): theirs for theirs in ACTIVATIONS}  # runtimes do not mind the case, and writers differ
    if name.lower() not in known:
        raise ValueError(f"has an activation {name[:60]!r}, expected one of {', '.join(ACTIVATIONS)}")
    name = known[name.lower()]
    here, count = ACTIVATIONS[name]
    constants = []
    for place, values in enumerate((alphas, betas)[:count]):
        if not values and name not in _CONSTANTS:
            words = ("activation_alpha", "activation_beta")[place]
            raise ValueError(f"has activation {name} without an {words}, for which ONNX has no default")
        constants.append(values.pop(0) if values else _CONSTANTS[name][place])
    if name == "Affine" and constants == [1.0, 0.0]:
        return "identity"
    return (here, *constants) if count else here


def _activations(op_type, attributes, directions):
    """For each direction a tuple of activations."""
    count = len(_FUNCTIONS[op_type])
    names = attributes.get("activations", [*_FUNCTIONS[op_type]] * directions)
    if len(names) != count * directions:
        raise ValueError(f"has {len(names)} activations, expected {count * directions}")
    alphas, betas = (list(attributes.get(f"activation_{name}", ())) for name in ("alpha", "beta"))
    found = [_activation(name, alphas, betas) for name in names]  # more constants than they take mean nothing
    return [tuple(found[d * count : (d + 1) * count]) for d in range(directions)]


def recipe(op_type, attributes, opset):
    """The `Recipe` of a node.

    op_type: "LSTM", "GRU" or "RNN". attributes: name -> int, float, str, a list of floats or strings, or None for one
    that is not given. opset: the version of ONNX's operators that the model asks for.

    Raises ValueError, whose words follow on the name of a node, for an unknown attribute or one of another type, a
    value there is not, and constants of activations that are missing without a default. Constants that no activation
    takes are ignored, as ONNX Runtime does: exporters write them for functions without any.
    """
    check_opset(opset)
    found = _check_types(op_type, attributes, opset)
    direction = _choice(found, "direction", tuple(_DIRECTIONS), "forward")
    layout = _choice(found, "layout", (0, 1), 0)
    options = {}
    if "clip" in found:
        if not 0 < found["clip"] < np.inf:
            raise ValueError(f"has clip {found['clip']}, expected a positive number")
        options["clip"] = found["clip"]
    if _choice(found, "input_forget", (0, 1), 0):
        options["coupled"] = "f=1-i"
    if op_type == "GRU":
        options["reset_after"] = bool(found.get("linear_before_reset", 0))
    activations = _activations(op_type, found, _DIRECTIONS[direction])
    hidden = found.get("hidden_size")
    if hidden is not None and hidden < 1:
        raise ValueError(f"has hidden_size {hidden}, expected a positive one")
    each = tuple(options | {"activations": names} for names in activations)
    return Recipe(op_type, direction, bool(layout), hidden, each)


# ---- weights ----------------------------------------------------------------------------------------------------


def check_shapes(how, shapes):
    """(I, H) from the shapes of W, R, B, P (None where there is none). Raises ValueError with all that differ."""
    D, G = how.directions, len(ORDERS[how.op_type])
    R, W = shapes["R"], shapes["W"]
    H = how.hidden_size or (R[2] if len(R) == 3 else 0)
    I = W[2] if len(W) == 3 else 0
    words = " and hidden_size" if how.hidden_size else ""
    if not H or not I:
        raise ValueError(f"has W of shape {W} and R of shape {R}, expected ({D}, {G} H, I) and ({D}, {G} H, H)")
    expected = {"W": (D, G * H, I), "R": (D, G * H, H), "B": (D, 2 * G * H), "P": (D, 3 * H)}
    wrong = [
        f"{name} has shape {shape}, expected {expected[name]}"
        for name, shape in shapes.items() if shape is not None and tuple(shape) != expected[name]
    ]
    if wrong:
        raise ValueError(f"does not fit: {'; '.join(wrong)}, by direction={how.direction}{words}")
    return I, H


def target_type(types):
    """The dtype of a layer from those of its weights: the widest, and float32 at least, which changes no number.

    Raises ValueError for other types.
    """
    names = {name: str(kind) for name, kind in types.items() if kind is not None}
    if not set(names.values()) <= {"float32", "float64", "float16", "bfloat16"}:
        found = ", ".join(f"{name} {kind}" for name, kind in names.items())
        raise ValueError(f"has weights of {found}, expected float32, float64, float16 or bfloat16")
    return "float64" if "float64" in names.values() else "float32"


def _copy(target, source):
    """Into float32 or float64. uint16 are the bits of bfloat16, the upper half of a float32."""
    if source.dtype == np.uint16:
        bits = target.view(np.uint32)
        bits[...] = source
        bits <<= 16
    else:
        target[...] = source


def _gathered(array, before, after, dtype, release):
    """A new array of the blocks of `array` along its first axis, reordered; see `onnx_orders.reordered`.

    release: called with each piece of `array` once it was copied.
    """
    height = len(array) // len(before)
    found = np.empty((len(after) * height, *array.shape[1:]), dtype)
    step = max(1, _CHUNK // max(1, array[:1].nbytes))
    for place, letter in enumerate(after):
        to, at = place * height, before.index(letter) * height
        for start in range(0, height, step):
            stop = min(height, start + step)
            _copy(found[to + start : to + stop], array[at + start : at + stop])
            release(array[at + start : at + stop])
    return found


def _weights(op_type, v, arrays, dtype, releases):
    """Name -> array of one direction, from its part of W, R, B, P. v: the cell with its options."""
    order, found = ORDERS[op_type], {}

    def take(name, array, before, after, key):
        found[name] = _gathered(array, before, after, dtype, releases.get(key, lambda _: None))

    take("weight_ih", arrays["W"], order, v.gates, "W")
    take("weight_hh", arrays["R"], order, v.gates, "R")
    if arrays["B"] is not None:
        half = len(arrays["B"]) // 2
        take("bias_ih", arrays["B"][:half], order, v.gates, "B")
        take("bias_hh", arrays["B"][half:], order, v.gates, "B")
    if arrays["P"] is not None:
        take("weight_peephole", arrays["P"], PEEPHOLES, v.peephole, "P")
    return found


def _peepholes(how, given):
    """Options that peepholes add; those of a coupled gate have no meaning."""
    if not given:
        return {}
    return {"peephole": "io" if "coupled" in how.options[0] else "ifo"}


def layer(how, arrays, releases=None):
    """The layer with these weights: `LSTM`, `GRU`, `RNN`, `Reverse` of one, or `Bidirectional`.

    how: a `Recipe`. arrays: "W", "R", "B", "P" -> array or None, as ONNX has them, uint16 for the bits of bfloat16;
    they are copied, float16 and bfloat16 to float32. releases: name -> function that is given each piece of it that
    was copied.
    A bidirectional node becomes one layer with bidirectional=True, or `Bidirectional` where the directions differ in
    activations. Raises ValueError, whose words follow on the name of a node, for shapes and types that do not fit.
    """
    arrays = {name: arrays.get(name) for name in WEIGHTS}
    I, H = check_shapes(how, {name: None if a is None else a.shape for name, a in arrays.items()})
    types = {n: None if a is None else "bfloat16" if a.dtype == np.uint16 else a.dtype.name for n, a in arrays.items()}
    dtype = target_type(types)
    extra = _peepholes(how, arrays["P"] is not None)
    every = [options | extra for options in how.options]
    parts = [
        _weights(
            how.op_type, variant(CELLS[how.op_type], **options),
            {name: None if a is None else a[d] for name, a in arrays.items()}, dtype, releases or {},
        )
        for d, options in enumerate(every)
    ]
    same = how.directions == 2 and every[0] == every[1]

    def built(options, weights, **more):
        bias, first = arrays["B"] is not None, how.batch_first
        with hollow():
            model = CLASSES[how.op_type](I, H, bias=bias, batch_first=first, dtype=dtype, **options, **more)
        model._replace_weights(weights)
        return model

    def named(part, end=""):
        return {f"{name}_l0{end}": weight for name, weight in part.items()}

    if same:
        return built(every[0], named(parts[0]) | named(parts[1], "_reverse"), bidirectional=True)
    models = [built(options, named(part)) for options, part in zip(every, parts, strict=True)]
    if how.directions == 2:
        return Bidirectional(*models)
    return Reverse(models[0]) if how.direction == "reverse" else models[0]
