"""Checks of the options of a cell, each by itself: what came becomes what it means, or an error in words.

The errors name the option, what came and what is expected. Which cell has which option, and what
goes together, says variants.py. Pure Python; imports nothing of the package.
"""

import math
import numbers
from typing import NamedTuple


class Activation(NamedTuple):
    """An activation with its constants, as ONNX defines them; those it does not have are 0."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0


# name -> defaults of its constants
ACTIVATIONS = {
    "sigmoid": (),
    "hard_sigmoid": (0.2, 0.5),  # min(max(alpha z + beta, 0), 1)
    "tanh": (),
    "relu": (),
    "identity": (),
    "softsign": (),
    "softplus": (),
    "elu": (1.0,),  # z if z >= 0 else alpha (e^z - 1)
    "leaky_relu": (0.01,),  # z if z >= 0 else alpha z
    "thresholded_relu": (1.0,),  # z if z >= alpha else 0
    "scaled_tanh": (1.0, 1.0),  # alpha tanh(beta z)
    "affine": (1.0, 0.0),  # alpha z + beta
}


def _activation(name, value):
    words = f"{name} must hold names or (name, alpha, beta)"
    parts = (value,) if isinstance(value, str) else value
    if not isinstance(parts, (tuple, list)) or not parts or not isinstance(parts[0], str):
        raise TypeError(f"{words}, got {value!r}")
    kind, given = parts[0], tuple(parts[1:])
    if kind not in ACTIVATIONS:
        raise ValueError(f"{name} must be among {', '.join(ACTIVATIONS)}; got {kind!r}")
    defaults = ACTIVATIONS[kind]
    if isinstance(value, Activation):  # as `Variant` holds it, with zeros for what is not there
        given = given[: len(defaults)]
    if len(given) > len(defaults):
        raise ValueError(f"{name}: {kind} takes {len(defaults)} constants, got {len(given)}")
    for number in given:
        if isinstance(number, bool) or not isinstance(number, numbers.Real):
            raise TypeError(f"{words}, got {value!r}")
        if not math.isfinite(number):
            raise ValueError(f"{name}: constants of {kind} must be finite, got {number}")
    return Activation(kind, *(float(n) for n in given + defaults[len(given) :]))


def _activations(name, value, cell, default):
    value, count = default if value is None else value, len(default)
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} must be a tuple of {count}, got {type(value).__name__}")
    if len(value) != count:
        raise ValueError(f"{name} must be {count} for cell {cell!r}, got {len(value)}")
    return tuple(_activation(name, one) for one in value)


def _letters(name, value, cell, default):
    allowed = "o" if cell == "lstm_1997" else "ifo"
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {type(value).__name__}")
    if set(value) - set(allowed) or len(set(value)) != len(value):
        raise ValueError(f"{name} must be made of the letters of {allowed!r}, got {value!r}")
    return "".join(letter for letter in allowed if letter in value)


def _positive(name, value, cell, default):
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number or None, got {type(value).__name__}")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return float(value)


def _epsilon(name, value, cell, default):
    if value is None:
        raise TypeError(f"{name} must be a number, got NoneType")
    return _positive(name, value, cell, default)


def _flag(name, value, cell, default):
    if type(value).__name__ not in ("bool", "bool_"):  # NumPy's too
        raise TypeError(f"{name} must be True or False, got {type(value).__name__}")
    return bool(value)


def _count(name, value, cell, default):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return int(value)


def _periods(name, value, cell, default):
    """A tuple in rising order; from a number n: the first n powers of two."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        count = _count(name, value, cell, default)
        if count > 24:
            raise ValueError(f"{name}: at most 24 powers of two, got {value}")
        return tuple(2**k for k in range(count))
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} must be an integer or integers, got {type(value).__name__}")
    found = tuple(_count(name, one, cell, default) for one in value)
    if not found or list(found) != sorted(found):
        raise ValueError(f"{name} must be in rising order, one for each module; got {value!r}")
    if math.lcm(*found) > 2**24:  # a count of steps must be exact in single precision
        raise ValueError(f"{name} must have a common multiple of at most 2**24; got {value!r}")
    return found


def _one_of(*choices):
    def check(name, value, cell, default):
        if value not in choices:
            words = ", ".join(repr(choice) for choice in choices)
            raise ValueError(f"{name} must be one of {words}; got {value!r}")
        return value

    return check


# Option -> (its name, what came, cell, default of that cell) -> what it means; or an error in words.
CHECKS = {
    "activations": _activations,
    "biased": _one_of("all", "gates"),
    "block_size": _count,
    "cell_clip": _positive,
    "clip": _positive,
    "coupled": _one_of(None, "i=1-f", "f=1-i"),
    "gate_recurrence": _flag,
    "gradient": _one_of("truncated", "full"),
    "layer_norm": _one_of(None, "ba", "gates"),
    "nonlinearity": _one_of(None, "tanh", "relu"),
    "norm_eps": _epsilon,
    "peephole": _letters,
    "peephole_o": _one_of("c", "c_prev"),
    "periods": _periods,
    "proj_clip": _positive,
    "reset_after": _flag,
    "without": _letters,
}
