"""Recurrent layers in the words of ONNX's operators LSTM, GRU and RNN: what they lack, their attributes and tensors.

An operator computes one layer, in one direction or two. A `Way` is one direction of one layer here; a node takes one
way or two. Pure NumPy. Source: ONNX's Operators.md.
"""

from typing import NamedTuple

import numpy as np

from .onnx_orders import ACTIVATIONS, CELLS, ORDERS, PEEPHOLES

OPERATORS = {cell: operator for operator, cell in CELLS.items()}
_DEFAULTS = {"lstm": ("sigmoid", "tanh", "tanh"), "gru": ("sigmoid", "tanh"), "rnn": ("tanh",)}
_NAMES = {here: (there, count) for there, (here, count) in ACTIVATIONS.items()}
_SOURCES = {"W": ("weight_ih",), "R": ("weight_hh",), "B": ("bias_ih", "bias_hh")}
_LACKING = (  # options of a layer that no operator has, and the values that mean nothing
    ("proj_size", 0), ("peephole_o", "c"), ("without", ""), ("cell_clip", None), ("proj_clip", None),
    ("layer_norm", None), ("gate_recurrence", False), ("zoneout_h", 0.0), ("zoneout_c", 0.0),
)


class Way(NamedTuple):
    """One direction of one layer: weights by name, what their names start with, the layer, "" or "_reverse"."""

    model: object
    weights: dict
    head: str
    layer: int
    ending: str = ""

    def get(self, kind):
        return self.weights[f"{self.head}{kind}_l{self.layer}{self.ending}"]

    @property
    def hidden(self):
        sizes = self.model.hidden_size
        return sizes[self.layer] if isinstance(sizes, tuple) else sizes


# ---- what the operators lack ------------------------------------------------------------------------------------


def _as_attribute(value):
    """Whether a number survives in an attribute of a float32."""
    with np.errstate(over="ignore"):
        short = np.float32(value)
    return bool(np.isfinite(short) and (short != 0 or value == 0))


def _mirrors(activation):
    """Whether 1 - f(z) = f(-z) for all z."""
    return activation.name == "sigmoid" or (activation.name in ("hard_sigmoid", "affine") and activation.beta == 0.5)


def lacking(model):
    """Options of a recurrent layer that the operators lack, as words: ["proj_size=3"]. None of an unknown value."""
    found = [
        f"{name}={getattr(model, name)!r}" for name, nothing in _LACKING if getattr(model, name, nothing) != nothing
    ]
    activations, wide = model.activations, model.dtype == np.float64
    if getattr(model, "coupled", None) == "i=1-f" and not _mirrors(activations[0]):
        found.append(f"coupled='i=1-f' with activation {activations[0].name} of the gates")
    for name, numbers in [("clip", (model.clip or 0.0,)), *((f"activation {a.name}", a[1:]) for a in activations)]:
        for number in numbers:
            if not _as_attribute(number) or (wide and float(np.float32(number)) != number):
                found.append(f"{name} with {number!r}, its attributes are of 32 bits")
    return found


# ---- attributes -------------------------------------------------------------------------------------------------


def _activations(ways):
    """The attributes that name activations and hold their constants, in the order of directions."""
    found = [activation for way in ways for activation in way.model.activations]
    names, alphas, betas = [], [], []
    for name, *constants in found:
        if name == "identity":
            name, constants = "affine", [1.0, 0.0]
        operator, count = _NAMES[name]
        names.append(operator)
        alphas += constants[:1] if count >= 1 else []
        betas += constants[1:2] if count == 2 else []
    plain = [_NAMES[name][0] for name in _DEFAULTS[ways[0].model.cell]] * len(ways)
    attributes = {"activations": names, "activation_alpha": alphas, "activation_beta": betas}
    return {} if names == plain else {name: value for name, value in attributes.items() if value}


def attributes(ways):
    """Name -> value of all attributes of a node but its direction; those that are as ONNX has them are left out."""
    model = ways[0].model
    found = {"hidden_size": ways[0].hidden, **_activations(ways)}
    if model.clip is not None:
        found["clip"] = model.clip
    if model.cell == "gru":
        found["linear_before_reset"] = int(model.reset_after)
    if getattr(model, "coupled", None):
        found["input_forget"] = 1
    return found


# ---- tensors ----------------------------------------------------------------------------------------------------


def _rows(array, gates, order, mirrored):
    """Blocks of `array`, one for each of `gates`, in another order; zeros for gates that have none.

    mirrored: i = 1 - f, which is f = 1 - i of an i that reads -z: the block of f, negated, becomes that of i.
    """
    blocks = dict(zip(gates, np.split(array, len(gates)), strict=True))
    nothing = np.zeros_like(next(iter(blocks.values())))
    if mirrored and "f" in blocks:
        blocks["i"] = -blocks.pop("f")
    return np.concatenate([blocks.get(gate, nothing) for gate in order])


def _of(way, kind):
    """One direction of the tensor called `kind`, without its axis."""
    model = way.model
    mirrored = getattr(model, "coupled", None) == "i=1-f"
    if kind == "P":
        return _rows(way.get("weight_peephole"), model.peephole, PEEPHOLES, mirrored)
    gates, order = model._spec.v.gates, ORDERS[OPERATORS[model.cell]]
    found = [_rows(way.get(name), gates, order, mirrored) for name in _SOURCES[kind]]
    return found[0] if len(found) == 1 else np.concatenate(found)


def tensors(ways):
    """Name -> (shape, function that makes it): W (D, G*H, K), R (D, G*H, H), B (D, 2*G*H), P (D, 3*H).

    B is there if there are biases, P if there are peepholes.
    """
    way = ways[0]
    D, H, K = len(ways), way.hidden, way.get("weight_ih").shape[1]
    rows = len(ORDERS[OPERATORS[way.model.cell]]) * H
    shapes = {"W": (D, rows, K), "R": (D, rows, H)}
    if way.model.bias:
        shapes["B"] = D, 2 * rows
    if getattr(way.model, "peephole", ""):
        shapes["P"] = D, 3 * H

    def maker(kind):
        return lambda: np.stack([_of(one, kind) for one in ways])

    return {kind: (shape, maker(kind)) for kind, shape in shapes.items()}


def alike(ways):
    """Whether two layers fit into one node: one layer each, and all is the same but activations and weights."""
    first, second = (
        (way.model._spec.v._replace(activations=()), way.model.bias, way.model.input_size, way.model.hidden_size)
        for way in ways
    )
    return first == second and ways[0].model.num_layers == ways[1].model.num_layers == 1
