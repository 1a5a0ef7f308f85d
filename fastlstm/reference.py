"""The slow twin: every cell forward and backward in plain NumPy, one step at a time.

It exists to be read and to be right: the engine is tested against it, and it is tested against
finite differences and torch. It shares no code with the engine, only names and shapes. The
formulas are written out in docs/equations.md. This file is the stack of layers and directions;
reference_time.py is one of them over time, reference_cells.py, reference_gru.py and
reference_1997.py hold one step of every cell.

Letters in shapes: T steps, B rows, I inputs, H hidden units, P projected units, R = P if there is
a projection else H, L layers, D directions, W width of a state.
"""

from typing import NamedTuple

import numpy as np

from fastlstm.params import mask_shapes, state_shapes, suffixes, trace_of, weight_shapes
from fastlstm.reference_activations import sigmoid  # noqa: F401 (reference_layers.py uses it)
from fastlstm.reference_time import Run, run_backward, run_forward
from fastlstm.variants import Variant, variant


class Cache(NamedTuple):
    """What `backward` needs of a `forward`."""

    variant: Variant
    names: list  # of the weights that were given
    runs: dict[str, Run]  # suffix such as "l0_reverse" -> Run
    layers: list  # per layer, the suffixes of its directions
    masks: list | None  # between layers, L-1 of (T, B, D*R)
    shapes: dict  # state -> shape, as `state_shapes` gives it


# ----------------------------------------------------------------------------- what forward is given


def length_mask(lengths, T, B):
    """(T, B) booleans, true within each row's length; all true for lengths=None.

    Raises ValueError unless lengths are B integers from 0 to T.
    """
    if lengths is None:
        return np.ones((T, B), bool)
    lengths = np.asarray(lengths)
    if lengths.shape != (B,) or (B and lengths.dtype.kind not in "iu"):
        raise ValueError(f"lengths must be {B} integers, got {lengths.dtype} {lengths.shape}")
    if ((lengths < 0) | (lengths > T)).any():
        raise ValueError(f"lengths must lie in 0..{T}, got {lengths.min()}..{lengths.max()}")
    return np.arange(T)[:, None] < lengths


def _as(name, value, shape, dtype):
    """A private copy, so that a cache outlives what the caller does to his arrays. None is zero."""
    array = np.zeros(shape, dtype) if value is None else np.array(value, dtype)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
    return array


def _as_list(name, value, shapes, dtype):
    """One array of equal parts, or a list of arrays -> private copies."""
    if len(set(shapes)) < 2:
        return list(_as(name, value, (len(shapes), *(shapes or [np.shape(value)[1:]])[0]), dtype))
    if len(value) != len(shapes):
        raise ValueError(f"{name} must be {len(shapes)} arrays, got {len(value)}")
    return [_as(name, one, shape, dtype) for one, shape in zip(value, shapes, strict=True)]


def _split(what, given, shapes, dtype):
    """Arrays named as in `shapes` -> {suffix: {name without it: array}}; what is not there is not."""
    wrong = [name for name in given if name not in shapes]
    if wrong:
        raise ValueError(f"{what} missing or unexpected: {', '.join(wrong)}")
    parts = {name.rpartition("_l")[2]: {} for name in shapes}
    for name in shapes:
        kind, _, end = name.rpartition("_l")  # "weight_ih", "0_reverse"
        if name in given:
            parts[end][kind] = _as(name, given[name], shapes[name], dtype)
    return {f"l{end}": part for end, part in parts.items()}


def _split_weights(weights, shapes, dtype):
    """As `_split`; biases not given are zero."""
    missing = [name for name in shapes if name not in weights and not name.startswith("bias")]
    if missing:
        raise ValueError(f"weights missing or unexpected: {', '.join(missing)}")
    zeros = {n: np.zeros(s) for n, s in shapes.items() if n not in weights}
    return _split("weights", {**weights, **zeros}, shapes, dtype)


def _split_state(names, state, shapes, dtype):
    """A state, or its gradient, as `forward` takes it -> one {name: (B, W)} per layer and direction."""
    given = [None] * len(shapes) if state is None else list(state)
    if len(given) != len(shapes):
        raise ValueError(f"the state must be {', '.join(names)}; got {len(given)} arrays")
    found = {}
    for name, key, value in zip(names, shapes, given, strict=True):
        shape = shapes[key]
        if isinstance(shape, tuple):
            found[key] = list(_as(name, value, shape, dtype))
        else:
            value = [None] * len(shape) if value is None else value
            if len(value) != len(shape):
                raise ValueError(f"{name} must be {len(shape)} arrays, got {len(value)}")
            found[key] = [_as(name, v, s, dtype) for v, s in zip(value, shape, strict=True)]
    return [dict(zip(found, parts, strict=True)) for parts in zip(*found.values(), strict=True)]


def _join_state(parts, shapes):
    """The inverse of `_split_state`: a tuple of arrays (L*D, B, W), or of lists of (B, W)."""
    found = ([part[name] for part in parts] for name in shapes)
    return tuple(
        np.stack(s) if isinstance(shapes[n], tuple) else s for n, s in zip(shapes, found, strict=True)
    )


def _hidden_sizes(v, weights, num_layers):
    """H of every layer, from the rows of weight_hh."""
    every = (weights.get(f"weight_hh_l{k}", weights["weight_hh_l0"]) for k in range(num_layers))
    return [v.hidden(len(np.asarray(one))) for one in every]


# ------------------------------------------------------------------------------------ the whole stack


def forward(
    weights,
    x,
    state=None,
    *,
    cell="lstm",
    num_layers=1,
    bidirectional=False,
    proj_size=0,
    lengths=None,
    reset=None,
    dropout_masks=None,
    masks=None,
    dtype=np.float64,
    **options,
):
    """A stack over a whole batch of sequences: x (T, B, I) -> y (T, B, D*R), (hn, cn), cache.

    cell: a name of `variants.FAMILY` with the options of `variants.variant`, or a `Variant`.
    weights: names of `params.weight_shapes` -> arrays, biases may be left out; they tell H.
    state: a tuple of the cell's states, (h0, c0) of an LSTM, (h0,) of a GRU; zeros for None, for
    the whole or for one; shapes as `params.state_shapes` says. hn, cn alike, layer by layer,
    forward before reverse.
    lengths: (B,) integers in 0..T. y is zero beyond a row's length, its last state is that of its
    last valid step, and its reverse direction starts there.
    reset: (T, B) booleans, true where an episode starts: no state passes from t-1 to t, nor, in
    the reverse direction, from t to t-1.
    dropout_masks: (L-1, T, B, D*R), already scaled; multiplies what each layer but the last gives.
    Layers of different sizes have a list of L-1 arrays.
    masks: names of `params.mask_shapes` -> arrays, already scaled; those not given do nothing.
    dtype: of everything computed; np.longdouble works.
    Raises ValueError for a name or shape that does not fit, KeyError without weight_hh_l0, which
    tells H.
    """
    v = cell if isinstance(cell, Variant) and not options else variant(cell, **options)
    x = np.array(x, dtype)
    if x.ndim != 3:
        raise ValueError(f"x must be (T, B, I), got shape {x.shape}")
    T, B, inputs = x.shape
    D, H = 2 if bidirectional else 1, _hidden_sizes(v, weights, num_layers)
    sizes = (inputs, H, num_layers)
    shapes = weight_shapes(v, *sizes, True, bidirectional, proj_size)
    parts = _split_weights(weights, shapes, dtype)
    shapes = state_shapes(num_layers, D, B, H, proj_size, v)
    states = _split_state([f"{name}0" for name in v.states], state, shapes, dtype)
    live, reset = length_mask(lengths, T, B), _as("reset", reset, (T, B), bool)
    if dropout_masks is not None:
        widths = [(T, B, D * (proj_size or size)) for size in H[:-1]]
        dropout_masks = _as_list("dropout_masks", dropout_masks, widths, dtype)
    masks = _split("masks", masks or {}, mask_shapes(v, T, B, *sizes, bidirectional, proj_size), dtype)

    ends = suffixes(num_layers, bidirectional)
    layers = [ends[k : k + D] for k in range(0, len(ends), D)]
    runs, finals = {}, []
    for number, layer in enumerate(layers):
        for d, end in enumerate(layer):
            lower = None
            if v.cell == "depth_gated" and number:
                lower = runs[layers[number - 1][d]].states["c"]
            given = (states[len(finals)], live, reset, d == 1, lower, masks[end])
            runs[end], final = run_forward(v, parts[end], x, *given)
            finals.append(final)
        x = np.concatenate([runs[end].h for end in layer], axis=2)  # (T, B, D*R)
        if dropout_masks is not None and number < num_layers - 1:
            x = x * dropout_masks[number]
    return x, _join_state(finals, shapes), Cache(v, list(weights), runs, layers, dropout_masks, shapes)


def backward(cache, dy, dstate=None):
    """Gradients of sum(y*dy) + sum(hn*dhn) + ...: -> dx (T, B, I), (dh0, dc0), grads.

    dy (T, B, D*R), what lies beyond a row's length is ignored; dstate: (dhn, dcn), as many and of
    the shapes that `forward` returned, or None. grads: name -> array, for the weights that
    `forward` was given.
    """
    v, D = cache.variant, len(cache.layers[0])
    last = cache.runs[cache.layers[-1][0]].h
    dout = _as("dy", dy, (*last.shape[:2], D * last.shape[2]), last.dtype)
    dstates = _split_state([f"d{name}n" for name in v.states], dstate, cache.shapes, last.dtype)
    grads, dcells = {}, [None] * D
    for number in reversed(range(len(cache.layers))):
        if cache.masks is not None and number < len(cache.layers) - 1:
            dout = dout * cache.masks[number]
        dx, parts = 0, np.split(dout, D, axis=2)
        for d, end in enumerate(cache.layers[number]):
            k = number * D + d
            part, dstates[k], step_grads, dcells[d] = run_backward(
                v, cache.runs[end], parts[d], dstates[k], dcells[d]
            )
            dx = dx + part
            grads |= {f"{name}_{end}": value for name, value in step_grads.items()}
        dout = dx
    return dout, _join_state(dstates, cache.shapes), {name: grads[name] for name in cache.names}


def trace(cache):
    """The trace of a forward pass: for each field a list of L*D arrays."""
    kind, runs = trace_of(cache.variant), list(cache.runs.values())
    return kind(*([run.trace(cache.variant, name) for run in runs] for name in kind._fields))
