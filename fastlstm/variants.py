"""Variants of the cells, as data: which options a cell has, what they may be, what shapes follow.

`variant` checks options in words and gives a `Variant`, a plain tuple that hashes, compares and
pickles. Everything that must know of an option reads it there. Formulas: docs/equations.md.

Letters in shapes: T steps, B rows, K inputs of one layer, H hidden units, P projected units,
R = P if there is a projection else H.
"""

import math
from typing import NamedTuple

from fastlstm.option_checks import ACTIVATIONS, CHECKS, Activation

# Cell -> its options and their defaults, in the order of src_c/cells.def.
OPTIONS = {
    "lstm": {
        "peephole": "",
        "peephole_o": "c",
        "coupled": None,
        "without": "",
        "activations": ("sigmoid", "tanh", "tanh"),
        "clip": None,
        "cell_clip": None,
        "proj_clip": None,
        "layer_norm": None,
        "norm_eps": 1e-5,
        "gate_recurrence": False,
    },
    "gru": {"reset_after": True, "activations": ("sigmoid", "tanh"), "clip": None},
    "rnn": {"nonlinearity": None, "activations": ("tanh",), "clip": None},
    "depth_gated": {
        "peephole": "",
        "peephole_o": "c",
        "activations": ("sigmoid", "tanh", "tanh"),
    },
    "clockwork": {"periods": 4, "activations": ("tanh",)},
    "lstm_1997": {
        "block_size": 1,
        "without": "",
        "biased": "all",
        "gradient": "truncated",
        # 4 sigmoid(z) - 2 = 2 tanh(z/2); 2 sigmoid(z) - 1 = tanh(z/2)
        "activations": ("sigmoid", ("scaled_tanh", 2.0, 0.5), ("scaled_tanh", 1.0, 0.5)),
    },
}
FAMILY = tuple(OPTIONS)

# The eight variants of Greff et al. 2015 and the one they are variants of, as options of "lstm".
GREFF = {
    "V": {"peephole": "ifo"},
    "NIG": {"peephole": "fo", "without": "i"},
    "NFG": {"peephole": "io", "without": "f"},
    "NOG": {"peephole": "if", "without": "o"},
    "NIAF": {"peephole": "ifo", "activations": ("sigmoid", "identity", "tanh")},
    "NOAF": {"peephole": "ifo", "activations": ("sigmoid", "tanh", "identity")},
    "CIFG": {"peephole": "io", "coupled": "f=1-i"},
    "NP": {},
    "FGR": {"peephole": "ifo", "gate_recurrence": True},
}

_REGULARIZERS = ("mask_x", "mask_h", "mask_g", "mask_weight_hh", "zoneout_h", "zoneout_c")
_MASKS = {
    "rnn": ("mask_x", "mask_h", "mask_weight_hh", "zoneout_h"),
    "gru": ("mask_x", "mask_h", "mask_g", "mask_weight_hh", "zoneout_h"),
    "lstm": _REGULARIZERS,
    "depth_gated": _REGULARIZERS,
    "clockwork": ("mask_x", "mask_h", "mask_weight_hh"),
    "lstm_1997": ("mask_x", "mask_h", "mask_g", "mask_weight_hh"),
}


class Variant(NamedTuple):
    """A cell and its options; made by `variant`. Options that its cell lacks have no meaning."""

    cell: str
    activations: tuple[Activation, ...]
    clip: float | None = None
    reset_after: bool = True
    peephole: str = ""  # subset of "ifo", in that order
    peephole_o: str = "c"
    coupled: str | None = None
    without: str = ""  # subset of "ifo", in that order
    cell_clip: float | None = None
    proj_clip: float | None = None
    layer_norm: str | None = None
    norm_eps: float = 1e-5
    gate_recurrence: bool = False
    periods: tuple[int, ...] = ()
    block_size: int = 1
    biased: str = "all"
    gradient: str = "full"

    @property
    def gates(self):
        """Names of what has rows of weight_ih and weight_hh, in memory order.

        Each owns H rows, but in "lstm_1997", where i and o own one row per block.
        """
        if self.cell == "lstm_1997":
            return tuple(name for name in "gio" if name not in self.without)
        if self.cell in ("lstm", "depth_gated"):
            missing = self.without + (self.coupled[0] if self.coupled else "")
            return tuple(name for name in "ifgo" if name not in missing)
        return {"rnn": ("a",), "clockwork": ("a",), "gru": ("r", "z", "n")}[self.cell]

    @property
    def states(self):
        """Names of what is carried from step to step; "h" comes first.

        gates: activated gates of the last step; t: steps since the start, modulo the cycle.
        """
        if self.cell == "lstm_1997" or self.gate_recurrence:
            return ("h", "c", "gates")
        if self.cell == "clockwork":
            return ("h", "t")
        return ("h", "c") if self.cell in ("lstm", "depth_gated") else ("h",)

    @property
    def traced(self):
        """Fields of a trace: gates after their activation, then c if there is one, then h."""
        gates = {"lstm": tuple("ifgo"), "depth_gated": tuple("ifgod"), "lstm_1997": tuple("igo")}
        cells = ("c",) if "c" in self.states else ()
        return gates.get(self.cell, self.gates) + cells + ("h",)

    @property
    def projects(self):
        """Whether ``proj_size`` means something for it."""
        return self.cell in ("lstm", "depth_gated")

    @property
    def masks(self):
        """Kinds of masks that regularise it; see `mask_shapes` of params.py."""
        return _MASKS[self.cell]

    @property
    def cycle(self):
        """Steps after which a clockwork repeats itself."""
        return math.lcm(*self.periods)

    @property
    def options(self):
        """Options that differ from their defaults, as `variant` takes them."""
        plain = variant(self.cell)
        names = [name for name in OPTIONS[self.cell] if name != "nonlinearity"]
        found = {n: getattr(self, n) for n in names if getattr(self, n) != getattr(plain, n)}
        if "activations" in found:
            found["activations"] = tuple(_short(a) for a in self.activations)
        return found

    def rows(self, hidden):
        """Rows of weight_ih and weight_hh of a layer of `hidden` units."""
        if self.cell == "lstm_1997":
            return hidden + (len(self.gates) - 1) * (hidden // self.block_size)
        return len(self.gates) * hidden

    def hidden(self, rows):
        """The inverse of `rows`; of a number that no `hidden` gives, something smaller."""
        if self.cell == "lstm_1997":
            return rows // (self.block_size + len(self.gates) - 1) * self.block_size
        return rows // len(self.gates)

    def widths(self, hidden, proj=0):
        """State -> its width: R of h, H of c, 1 of t; of gates 3H, or one per gate of the blocks."""
        gates = 3 * hidden if self.gate_recurrence else self.rows(hidden) - hidden
        found = {"h": proj or hidden, "c": hidden, "gates": gates, "t": 1}
        return {name: found[name] for name in self.states}


def _short(activation):
    """An `Activation` as a user would write it."""
    constants = ACTIVATIONS[activation.name]
    if activation[1 : 1 + len(constants)] == constants:
        return activation.name
    return tuple(activation[: 1 + len(constants)])


def _check_together(v):
    """Refuses combinations that make no sense, by name."""
    if v.coupled and set(v.without) & set("if"):
        words = f"without={v.without!r} fixes a gate that coupled={v.coupled!r} computes"
        raise ValueError(f"{words}; give one of the two")
    for letter in v.peephole:
        if letter not in v.gates:
            why = f"without={v.without!r}" if letter in v.without else f"coupled={v.coupled!r}"
            words = f"peephole={v.peephole!r} names gate {letter}, which has no weights: {why}"
            raise ValueError(words)
    if v.peephole_o == "c_prev" and "o" not in v.peephole:
        raise ValueError(f"peephole_o='c_prev' needs an 'o' in peephole, got {v.peephole!r}")
    for name in ("coupled", "without", "layer_norm"):
        if v.gate_recurrence and v.cell == "lstm" and getattr(v, name):
            value = getattr(v, name)
            raise ValueError(f"gate_recurrence=True cannot be had with {name}={value!r}")
    if v.norm_eps != OPTIONS["lstm"]["norm_eps"] and not v.layer_norm:
        raise ValueError("norm_eps means nothing without layer_norm")


def variant(cell="lstm", **options):
    """The `Variant` of a cell with options; those not given have the defaults of `OPTIONS`.

    activations: a tuple of names or (name, alpha, beta); None for those of the cell.
    Raises TypeError for an option that the cell does not have or of a wrong type, ValueError for a
    cell or a value there is not, and for options that make no sense together.
    """
    if not isinstance(cell, str) or cell not in OPTIONS:
        raise ValueError(f"cell must be one of {', '.join(OPTIONS)}; got {cell!r}")
    known = OPTIONS[cell]
    for name in options:
        if name not in known:
            raise TypeError(f"cell {cell!r} has no option {name!r}; it has {', '.join(known)}")
    if options.get("nonlinearity") is not None and options.get("activations") is not None:
        raise ValueError("nonlinearity and activations say the same thing; give one of the two")
    values = {name: CHECKS[name](name, v, cell, known[name]) for name, v in {**known, **options}.items()}
    nonlinearity = values.pop("nonlinearity", None)
    if nonlinearity:
        values["activations"] = (Activation(nonlinearity),)
    found = Variant(cell, **values)
    _check_together(found)
    return found


def cell_of(cell):
    """The `Variant` of a cell's name, with all options at their defaults; a `Variant` for itself.

    ValueError lists the names there are.
    """
    return cell if isinstance(cell, Variant) else variant(cell)
