"""Names and shapes: weights, states, masks and traces, of any `Variant`.

Everything that must agree on what a tensor is called and how large it is reads it here.
Names and order are those of ``torch.nn.LSTM``; pure Python and NumPy.

Letters in shapes: T steps, B batch rows, I inputs, H hidden units, P projected units
(``proj_size``), R = P if there is a projection else H (the width of ``h``), L layers,
D directions, G gates of the cell.
"""

import math
import warnings
from collections.abc import Mapping

import numpy as np

from fastlstm.foreign import as_array as _as_array
from fastlstm.foreign import origin
from fastlstm.traces import DepthGatedTrace, GRUTrace, LSTM1997Trace, RNNTrace, Trace, trace_of  # noqa: F401
from fastlstm.variants import cell_of

# ------------------------------------------------------------------------------- sizes, in words


_MOST = 2**48  # nothing of that size fits a memory


def _check_size(name, value, least=1):
    # bool is an int to Python, and hidden_size=True is a slip, not a size.
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    if not least <= value < _MOST:
        bound = f"at least {least}" if value < least else "below 2**48"
        raise ValueError(f"{name} must be {bound}, got {value}")
    return int(value)


def check_flag(name, value, hint=""):
    """A bool; TypeError, which ends with `hint`, for anything else, as most values would count as true."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {type(value).__name__}{hint}")
    return bool(value)


def check_num_threads(value):
    """None (let the plan decide) or a positive int. Raises TypeError, ValueError."""
    if value is None:
        return None
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"num_threads must be an integer or None, got {type(value).__name__}")
    if not 1 <= value <= 1024:
        raise ValueError(f"num_threads must be in 1..1024, got {value}")
    return int(value)


def layer_sizes(v, name, hidden, num_layers):
    """Hidden units of every layer of a `Variant`, from one number or from one for each layer.

    Raises TypeError or ValueError, in which `hidden` is called `name`.
    """
    num_layers = _check_size("num_layers", num_layers)
    if not isinstance(hidden, (tuple, list)):
        sizes = [_check_size(name, hidden)] * num_layers
    else:
        sizes = [_check_size(name, size) for size in hidden]
        if not sizes or num_layers not in (1, len(sizes)):
            words = f"num_layers must be the length of {name}"
            raise ValueError(f"{words}, {len(sizes)}, or left at 1; got {num_layers}")
    for what, parts in (("block_size", v.block_size), ("the number of periods", len(v.periods))):
        if parts and any(size % parts for size in sizes):
            raise ValueError(f"{name} must be a multiple of {what}, {parts}; got {hidden}")
    if v.cell == "depth_gated" and len(set(sizes)) > 1:
        words = "must be the same in all layers, whose cells the depth gates connect"
        raise ValueError(f"{name} {words}; got {hidden}")
    return sizes


def _check_proj(v, sizes, proj_size):
    proj_size = _check_size("proj_size", proj_size, 0)
    if v.proj_clip and not proj_size:
        raise ValueError("proj_clip needs a proj_size, got 0")
    if proj_size and not v.projects:
        raise ValueError(f"proj_size must be 0 for cell {v.cell!r}, got {proj_size}")
    if proj_size and proj_size >= min(sizes):  # torch's rule: a projection narrows
        words = f"proj_size must be smaller than hidden_size {min(sizes)}, got {proj_size}"
        raise ValueError(words)
    return proj_size


# ------------------------------------------------------------------------------- names and shapes


def suffixes(num_layers, bidirectional=False):
    """Endings of the tensor names, layer by layer: ``l0``, ``l0_reverse``, ``l1``, ..."""
    ends = ("", "_reverse") if bidirectional else ("",)
    return [f"l{layer}{end}" for layer in range(num_layers) for end in ends]


def by_layer(arrays, ends):
    """Values named as here -> for each ending of `suffixes`, a dict of those under their names without it."""
    parts = {end: {} for end in ends}
    for name, value in arrays.items():
        kind, _, end = name.rpartition("_l")  # "weight_ln_ih", "0_reverse"
        parts[f"l{end}"][kind] = value
    return list(parts.values())


def _extra_shapes(v, layer, fan_in, hidden, rows, bias):
    """Name -> shape of what a variant has beyond torch's tensors, in one layer and direction."""
    found = {}
    if v.peephole:
        found["weight_peephole"] = (len(v.peephole) * hidden,)
    if v.gate_recurrence:
        found["weight_gh"] = (3 * hidden, 3 * hidden)
    if v.layer_norm == "ba":
        found |= {"weight_ln_ih": (rows,), "weight_ln_hh": (rows,), "weight_ln_c": (hidden,)}
        found["bias_ln_c"] = (hidden,)
    elif v.layer_norm == "gates":
        found |= {"weight_ln": (rows,), "bias_ln": (rows,)}
    if v.cell == "depth_gated" and layer > 0:
        found |= {"weight_d_ih": (hidden, fan_in), "weight_d_c": (hidden,)}
        found |= {"weight_d_lower": (hidden,), "bias_d": (hidden,)}
    return {name: shape for name, shape in found.items() if bias or not name.startswith("bias")}


def _layer_shapes(v, layer, fan_in, hidden, proj_size, bias):
    """Name without ending -> shape, of one layer and direction."""
    rows = v.rows(hidden)
    all_units = v.cell == "lstm_1997"  # one bias; gates are fed back as well
    found = {"weight_ih": (rows, fan_in), "weight_hh": (rows, rows if all_units else proj_size or hidden)}
    if bias:
        found["bias_ih"] = (rows - hidden if v.biased == "gates" else rows,)
        if not all_units:
            found["bias_hh"] = (rows,)
    if proj_size:
        found["weight_hr"] = (proj_size, hidden)
    return found | _extra_shapes(v, layer, fan_in, hidden, rows, bias)


def weight_shapes(
    cell, input_size, hidden_size, num_layers=1, bias=True, bidirectional=False, proj_size=0
):
    """Name -> shape of every tensor of a stack, in ``torch.nn.LSTM.state_dict()`` order.

    Per layer and direction: weight_ih (G*H, K), weight_hh (G*H, R), bias_ih (G*H,),
    bias_hh (G*H,), weight_hr (P, H); K is I in the first layer, D*R above it. Biases are left
    out without `bias`, weight_hr without `proj_size`.

    cell: a name of `variants.FAMILY`, or a `Variant`, which may have more tensors (docs/equations.md).
    hidden_size: a number, or one for each layer; num_layers may then be left at 1.

    Raises TypeError for a size that is no integer, ValueError for one out of range.
    """
    v = cell_of(cell)
    fan_in = _check_size("input_size", input_size)
    sizes = layer_sizes(v, "hidden_size", hidden_size, num_layers)
    proj_size = _check_proj(v, sizes, proj_size)

    shapes, directions = {}, 2 if bidirectional else 1
    ends = suffixes(len(sizes), bidirectional)
    for layer, hidden in enumerate(sizes):
        found = _layer_shapes(v, layer, fan_in, hidden, proj_size, bias)
        for end in ends[layer * directions : (layer + 1) * directions]:
            shapes |= {f"{name}_{end}": shape for name, shape in found.items()}
        fan_in = directions * (proj_size or hidden)
    return shapes


def state_shapes(num_layers, directions, batch, hidden, proj=0, cell="lstm"):
    """Name -> shape of every state: h (L*D, B, R), c (L*D, B, H), and so on.

    The first axis runs layer by layer, forward direction before reverse. When `hidden` gives the
    layers different sizes, a state is L*D arrays: name -> list of their shapes, (B, R) or (B, H).
    Raises as `weight_shapes` does; `batch` may be 0, `directions` is 1 or 2.
    """
    v = cell_of(cell)
    sizes = layer_sizes(v, "hidden", hidden, num_layers)
    directions = _check_size("directions", directions)
    if directions > 2:
        raise ValueError(f"directions must be 1 or 2, got {directions}")
    batch = _check_size("batch", batch, 0)
    proj = _check_proj(v, sizes, proj)

    if len(set(sizes)) == 1:
        count = len(sizes) * directions
        return {name: (count, batch, width) for name, width in v.widths(sizes[0], proj).items()}
    every = [v.widths(hidden, proj) for hidden in sizes for _ in range(directions)]
    return {name: [(batch, one[name]) for one in every] for name in v.states}


def mask_shapes(
    v, T, batch, input_size, hidden_size, num_layers=1, bidirectional=False, proj_size=0
):
    """Name -> shape of every mask that may regularise a `Variant`; docs/equations.md says how.

    Per layer and direction, as far as the cell has them: mask_x (B, K), mask_h (B, R),
    mask_g (T, B, H), mask_weight_hh (as weight_hh), zoneout_h (T, B, R), zoneout_c (T, B, H).
    """
    sizes = layer_sizes(v, "hidden_size", hidden_size, num_layers)
    weights = weight_shapes(
        v, input_size, hidden_size, num_layers, False, bidirectional, proj_size
    )
    shapes = {}
    for index, end in enumerate(suffixes(len(sizes), bidirectional)):
        hidden = sizes[index // (2 if bidirectional else 1)]
        width = proj_size or hidden
        found = {
            "mask_x": (batch, weights[f"weight_ih_{end}"][1]),
            "mask_h": (batch, width),
            "mask_g": (T, batch, hidden),
            "mask_weight_hh": weights[f"weight_hh_{end}"],
            "zoneout_h": (T, batch, width),
            "zoneout_c": (T, batch, hidden),
        }
        shapes |= {f"{name}_{end}": found[name] for name in v.masks}
    return shapes


# ------------------------------------------------------------------------------------ new weights


def _float_dtype(dtype):
    if dtype is None or np.dtype(dtype).kind != "f":  # to NumPy, None is float64
        raise TypeError(f"dtype must be a floating-point type, got {dtype}")
    return np.dtype(dtype)


def model_dtype(dtype):
    """The numpy.dtype of a model's numbers, float32 or float64; None is float32, the default, as in torch.

    Raises TypeError for what is no dtype, ValueError for another one.
    """
    try:
        found = np.dtype(np.float32 if dtype is None else dtype)
    except (AttributeError, SyntaxError, TypeError, ValueError):
        raise TypeError(f"dtype must be float32 or float64, got {dtype!r}") from None
    if found not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
    return found


def init_weights(shapes, rng, dtype, hidden_size):
    """Fresh weights: all elements uniform in [-1/sqrt(H), 1/sqrt(H)), biases too, as in torch.

    Layer normalisation (Ba, Kiros & Hinton 2016) starts as if it had no weights: its gains,
    "weight_ln...", are 1 and its own biases, "bias_ln...", 0; they take no random numbers.

    shapes: name -> shape, drawn in this order; rng: numpy.random.Generator; hidden_size: H, or a
    list with that of each layer.
    Returns name -> array of `dtype`. Numbers are drawn in double precision and then rounded, so
    a float32 and a float64 model of the same seed hold the same weights.
    """
    dtype = _float_dtype(dtype)
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, got {type(rng).__name__}")

    def draw(name, shape):
        if name.startswith(("weight_ln", "bias_ln")):
            return np.full(shape, name.startswith("weight"), dtype)
        hidden = hidden_size
        if isinstance(hidden, (tuple, list)):
            hidden = hidden[int(name.rpartition("_l")[2].removesuffix("_reverse"))]
        bound = 1.0 / math.sqrt(_check_size("hidden_size", hidden))
        return rng.uniform(-bound, bound, size=shape).astype(dtype)

    return {name: draw(name, shape) for name, shape in shapes.items()}


def not_finite(arrays):
    """Names of the arrays that hold NaN or infinity. arrays: name -> array of floats."""
    with np.errstate(over="ignore", invalid="ignore"):
        # The sums are looked at first, which takes one pass and no memory: NaN and infinity stay in a sum.
        if all(math.isfinite(np.add.reduce(array, axis=None)) for array in arrays.values()):
            return []
    # Large finite numbers may have an infinite sum.
    return [name for name, array in arrays.items() if not np.isfinite(array).all()]


# ---------------------------------------------------------------------------------- a checkpoint


# What makers of arrays raise that cannot be read here: another device, ragged lists. Running out of memory or time, or
# an exception of a signal handler, says nothing about the array and comes as it is.
UNREADABLE = (ArithmeticError, AttributeError, BufferError, LookupError, RuntimeError, TypeError, ValueError)


def _read_numbers(value):
    """(array, None), or (None, words) when `value` does not hold real numbers."""
    try:
        array = _as_array(value)
    except UNREADABLE as error:
        return None, f"cannot be read as an array of numbers ({error})"
    if array.dtype.kind not in "fiu":
        words = origin(value) if " of dtype " in origin(value) else ""  # a kind of a library of its own
        return None, f"holds {array.dtype}{words and f' ({words})'}, expected real numbers"
    return array, None


def _convert(name, array, dtype):
    """A fresh C-contiguous copy in `dtype`, and whether it is all finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        copy = np.array(array, dtype=dtype, order="C")
    finite = np.isfinite(copy)
    if finite.all():
        return copy, True
    overflowed = np.isfinite(array) & ~finite
    if overflowed.any():
        worst = np.abs(array[overflowed]).max()
        raise ValueError(f"state dict: {name} holds {worst:g}, too large for {dtype}")
    return copy, False


def find_tensors(d, shapes, strict=True):
    """(found, missing, unexpected): the tensors of `d` that `shapes` names, as arrays of real numbers, nothing copied.

    Raises as `check_state_dict` does for everything but numbers that overflow.
    """
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
            note = ", which is transposed" if array.shape[::-1] == tuple(shape) else ""
            wrong_shapes.append(f"{name} has shape {array.shape}, expected {tuple(shape)}{note}")
        else:
            found[name] = array

    problems = wrong_keys + wrong_shapes + wrong_types
    if problems:
        error = ValueError if wrong_keys or wrong_shapes else TypeError
        raise error("state dict does not fit: " + "; ".join(problems))
    return found, missing, unexpected


def check_state_dict(d, shapes, dtype, strict=True, warn=True):
    """Check a whole checkpoint before anything of it is used.

    d: mapping of names to arrays, lists, or anything with ``__array__`` or ``__dlpack__``
    (torch CPU tensors, with or without gradients); `shapes` as from `weight_shapes`.

    Returns (arrays, missing, unexpected): fresh C-contiguous copies in `dtype` and in the order
    of `shapes`, and two lists of names, both empty when `strict`. Floats of another width and
    integers are converted.

    Raises ValueError naming every missing, unexpected (unless strict=False) and wrongly shaped
    tensor at once, or a tensor with a finite value that overflows `dtype`; TypeError naming
    every tensor that does not hold real numbers. Warns (RuntimeWarning) of tensors with NaN or
    infinity, if `warn`. `d` is never changed.
    """
    dtype = _float_dtype(dtype)
    found, missing, unexpected = find_tensors(d, shapes, strict)
    arrays, odd = {}, []
    for name, array in found.items():
        arrays[name], finite = _convert(name, array, dtype)
        if not finite:
            odd.append(name)
    if odd and warn:
        words = f"state dict: NaN or infinity in {', '.join(odd)}"
        warnings.warn(words, RuntimeWarning, stacklevel=2)
    return arrays, missing, unexpected
