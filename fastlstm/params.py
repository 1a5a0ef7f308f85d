"""Names and shapes: cells, weights, states and traces.

Everything that must agree on what a tensor is called and how large it is reads it here.
Names and order are those of ``torch.nn.LSTM``; pure Python and NumPy.

Letters in shapes: T steps, B batch rows, I inputs, H hidden units, P projected units
(``proj_size``), R = P if there is a projection else H (the width of ``h``), L layers,
D directions, G gates of the cell.
"""

import math
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Cell(NamedTuple):
    """What the rest of the package must know of a cell to lay out its arrays.

    gates: names in memory order; each owns H consecutive rows of a (G*H, ...) weight.
    states: names of the vectors carried from step to step; "h" comes first.
    projects: whether ``proj_size`` means something for it.
    """

    gates: tuple[str, ...]
    states: tuple[str, ...]
    projects: bool = False


# One row per cell, in the order of src_c/cells.def.
CELLS = {
    "lstm": Cell(gates=("i", "f", "g", "o"), states=("h", "c"), projects=True),
}


class Trace(NamedTuple):
    """Everything an LSTM computed, at every step; zero beyond each row's length.

    i, f, g, o: gates after their activation, (T, B, H); c: cell state, (T, B, H);
    h: output, (T, B, R). One array each when there is one layer and one direction; otherwise a
    list of L*D arrays, layer by layer, forward direction before reverse.
    """

    i: np.ndarray | list[np.ndarray]
    f: np.ndarray | list[np.ndarray]
    g: np.ndarray | list[np.ndarray]
    o: np.ndarray | list[np.ndarray]
    c: np.ndarray | list[np.ndarray]
    h: np.ndarray | list[np.ndarray]


def cell_of(name):
    """The row of `CELLS` for a name. ValueError lists the names there are."""
    if name not in CELLS:
        raise ValueError(f"cell must be one of {', '.join(CELLS)}; got {name!r}")
    return CELLS[name]


def _check_size(name, value, least=1):
    # bool is an int to Python, and hidden_size=True is a slip, not a size.
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def _check_proj(row, cell, hidden_size, proj_size):
    proj_size = _check_size("proj_size", proj_size, 0)
    if proj_size and not row.projects:
        raise ValueError(f"proj_size must be 0 for cell {cell!r}, got {proj_size}")
    if proj_size and proj_size >= hidden_size:  # torch's rule: a projection narrows
        words = f"proj_size must be smaller than hidden_size {hidden_size}, got {proj_size}"
        raise ValueError(words)
    return proj_size


def suffixes(num_layers, bidirectional=False):
    """Endings of the tensor names, layer by layer: ``l0``, ``l0_reverse``, ``l1``, ..."""
    ends = ("", "_reverse") if bidirectional else ("",)
    return [f"l{layer}{end}" for layer in range(num_layers) for end in ends]


def weight_shapes(
    cell, input_size, hidden_size, num_layers=1, bias=True, bidirectional=False, proj_size=0
):
    """Name -> shape of every tensor of a stack, in ``torch.nn.LSTM.state_dict()`` order.

    Per layer and direction: weight_ih (G*H, K), weight_hh (G*H, R), bias_ih (G*H,),
    bias_hh (G*H,), weight_hr (P, H); K is I in the first layer, D*R above it. Biases are left
    out without `bias`, weight_hr without `proj_size`.

    Raises TypeError for a size that is no integer, ValueError for one out of range.
    """
    row = cell_of(cell)
    fan_in = _check_size("input_size", input_size)
    hidden_size = _check_size("hidden_size", hidden_size)
    num_layers = _check_size("num_layers", num_layers)
    proj_size = _check_proj(row, cell, hidden_size, proj_size)
    rows = len(row.gates) * hidden_size
    width = proj_size or hidden_size
    directions = 2 if bidirectional else 1

    shapes = {}
    for index, suffix in enumerate(suffixes(num_layers, bidirectional)):
        if index == directions:
            fan_in = directions * width
        shapes[f"weight_ih_{suffix}"] = (rows, fan_in)
        shapes[f"weight_hh_{suffix}"] = (rows, width)
        if bias:
            shapes[f"bias_ih_{suffix}"] = (rows,)
            shapes[f"bias_hh_{suffix}"] = (rows,)
        if proj_size:
            shapes[f"weight_hr_{suffix}"] = (proj_size, hidden_size)
    return shapes


def state_shapes(num_layers, directions, batch, hidden, proj=0, cell="lstm"):
    """Name -> shape of every state: h (L*D, B, R), the others (L*D, B, H).

    The first axis runs layer by layer, forward direction before reverse.
    Raises as `weight_shapes` does; `batch` may be 0, `directions` is 1 or 2.
    """
    row = cell_of(cell)
    num_layers = _check_size("num_layers", num_layers)
    directions = _check_size("directions", directions)
    if directions > 2:
        raise ValueError(f"directions must be 1 or 2, got {directions}")
    batch = _check_size("batch", batch, 0)
    hidden = _check_size("hidden", hidden)
    width = _check_proj(row, cell, hidden, proj) or hidden
    return {
        name: (num_layers * directions, batch, width if name == "h" else hidden)
        for name in row.states
    }


def _float_dtype(dtype):
    dtype = np.dtype(dtype)
    if dtype.kind != "f":
        raise TypeError(f"dtype must be a floating-point type, got {dtype}")
    return dtype


def init_weights(shapes, rng, dtype, hidden_size):
    """Fresh weights: all elements uniform in [-1/sqrt(H), 1/sqrt(H)), biases too, as in torch.

    shapes: name -> shape, drawn in this order; rng: numpy.random.Generator.
    Returns name -> array of `dtype`. Numbers are drawn in double precision and then rounded, so
    a float32 and a float64 model of the same seed hold the same weights.
    """
    dtype = _float_dtype(dtype)
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, got {type(rng).__name__}")
    bound = 1.0 / math.sqrt(_check_size("hidden_size", hidden_size))
    return {
        name: rng.uniform(-bound, bound, size=shape).astype(dtype) for name, shape in shapes.items()
    }


def _as_array(value):
    """A NumPy view of an array, list, or anything with ``__array__`` or ``__dlpack__``."""
    if hasattr(value, "detach"):  # a torch parameter refuses __array__ while it wants gradients
        value = value.detach()
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        return np.from_dlpack(value)
    return np.asarray(value)


def _read_numbers(value):
    """(array, None), or (None, words) when `value` does not hold real numbers."""
    try:
        array = _as_array(value)
    except Exception as error:  # foreign array types raise whatever they like
        return None, f"cannot be read as an array of numbers ({error})"
    if array.dtype.kind not in "fiu":
        return None, f"holds {array.dtype}, expected real numbers"
    return array, None


def _convert(name, array, dtype):
    """A fresh C-contiguous copy in `dtype`, and whether it is all finite."""
    with np.errstate(over="ignore"):
        copy = np.array(array, dtype=dtype, order="C")
    finite = np.isfinite(copy)
    if finite.all():
        return copy, True
    overflowed = np.isfinite(array) & ~finite
    if overflowed.any():
        worst = np.abs(array[overflowed]).max()
        raise ValueError(f"state dict: {name} holds {worst:g}, too large for {dtype}")
    return copy, False


def check_state_dict(d, shapes, dtype, strict=True):
    """Check a whole checkpoint before anything of it is used.

    d: mapping of names to arrays, lists, or anything with ``__array__`` or ``__dlpack__``
    (torch CPU tensors, with or without gradients); `shapes` as from `weight_shapes`.

    Returns (arrays, missing, unexpected): fresh C-contiguous copies in `dtype` and in the order
    of `shapes`, and two lists of names, both empty when `strict`. Floats of another width and
    integers are converted.

    Raises ValueError naming every missing, unexpected (unless strict=False) and wrongly shaped
    tensor at once, or a tensor with a finite value that overflows `dtype`; TypeError naming
    every tensor that does not hold real numbers. Warns (RuntimeWarning) of tensors with NaN or
    infinity. `d` is never changed.
    """
    dtype = _float_dtype(dtype)
    if not isinstance(d, Mapping):
        raise TypeError(f"state dict must map names to arrays, got {type(d).__name__}")
    missing = [name for name in shapes if name not in d]
    unexpected = [name for name in d if name not in shapes]
    wrong_keys, wrong_shapes, wrong_types, found = [], [], [], {}
    if strict:
        wrong_keys += [f"missing {name}, expected shape {tuple(shapes[name])}" for name in missing]
        wrong_keys += [f"unexpected {name}" for name in unexpected]
    for name, shape in shapes.items():
        if name not in d:
            continue
        array, words = _read_numbers(d[name])
        if words:
            wrong_types.append(f"{name} {words}")
        elif array.shape != tuple(shape):
            wrong_shapes.append(f"{name} has shape {array.shape}, expected {tuple(shape)}")
        else:
            found[name] = array

    problems = wrong_keys + wrong_shapes + wrong_types
    if problems:
        error = ValueError if wrong_keys or wrong_shapes else TypeError
        raise error("state dict does not fit: " + "; ".join(problems))

    arrays, not_finite = {}, []
    for name, array in found.items():
        arrays[name], finite = _convert(name, array, dtype)
        if not finite:
            not_finite.append(name)
    if not_finite:
        words = f"state dict: NaN or infinity in {', '.join(not_finite)}"
        warnings.warn(words, RuntimeWarning, stacklevel=2)
    return arrays, missing, unexpected
