"""The slow twin: every cell forward and backward in plain NumPy, one step at a time.

It exists to be read and to be right: the engine is tested against it, and it is tested against
finite differences and torch. It shares no code with the engine, only names and shapes. The
formulas are written out in docs/equations.md.

LSTM: Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000; projection:
Sak, Senior & Beaufays 2014. Names, shapes and gate order: torch.nn.LSTM.

Letters in shapes: T steps, B rows, I inputs, K inputs of one layer, H hidden units, P projected
units, R = P if there is a projection else H, L layers, D directions.
"""

from typing import NamedTuple

import numpy as np

from fastlstm.params import CELLS, Trace, cell_of, suffixes, weight_shapes

# ---------------------------------------------------------------------------- one step of a cell


def sigmoid(z):
    """1 / (1 + exp(-z)), any shape, without overflow and with full relative accuracy below 0."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1 / (1 + e), e / (1 + e))


def lstm(x_t, h, c, w):
    """One step. x_t (B, K), h (B, R), c (B, H) -> gates {i, f, g, o: (B, H)}, h (B, R), c (B, H).

    w: weight_ih (4H, K), weight_hh (4H, R), bias_ih and bias_hh (4H,), weight_hr (P, H) if any.
    """
    z = x_t @ w["weight_ih"].T + w["bias_ih"] + h @ w["weight_hh"].T + w["bias_hh"]  # (B, 4H)
    zi, zf, zg, zo = np.split(z, 4, axis=1)
    gates = {"i": sigmoid(zi), "f": sigmoid(zf), "g": np.tanh(zg), "o": sigmoid(zo)}
    c = gates["f"] * c + gates["i"] * gates["g"]
    h = gates["o"] * np.tanh(c)
    if "weight_hr" in w:
        h = h @ w["weight_hr"].T  # (B, H) -> (B, P)
    return gates, h, c


def lstm_backward(dh, dc, x_t, h, c, gates, w):
    """Gradients of one step.

    dh (B, R), dc (B, H): of what the step gave out, all later uses summed.
    x_t (B, K), h (B, R), c (B, H): what the step was given; gates: what `lstm` returned.
    Returns dx_t (B, K), dh (B, R), dc (B, H) of what it was given, and grads, names as in w.
    """
    i, f, g, o = (gates[name] for name in CELLS["lstm"].gates)
    tanh_c = np.tanh(f * c + i * g)  # (B, H)
    grads = {}
    if "weight_hr" in w:
        grads["weight_hr"] = dh.T @ (o * tanh_c)  # (P, H)
        dh = dh @ w["weight_hr"]  # (B, P) -> (B, H)
    dc = dc + dh * o * (1 - tanh_c**2)
    dz = np.concatenate(  # (B, 4H)
        [
            dc * g * i * (1 - i),
            dc * c * f * (1 - f),
            dc * i * (1 - g**2),
            dh * tanh_c * o * (1 - o),
        ],
        axis=1,
    )
    grads["weight_ih"] = dz.T @ x_t
    grads["weight_hh"] = dz.T @ h
    grads["bias_ih"] = grads["bias_hh"] = dz.sum(axis=0)
    return dz @ w["weight_ih"], dz @ w["weight_hh"], dc * f, grads


STEPS = {"lstm": (lstm, lstm_backward)}  # one row for every row of params.CELLS

# ------------------------------------------------------------- one layer, one direction, all steps


class Run(NamedTuple):
    """What one layer saw and did in one direction; zero (and cut meaningless) where not live."""

    w: dict
    times: range  # the steps in the order in which this direction takes them
    live: np.ndarray  # (T, B) the step lies within the row's length
    cut: np.ndarray  # (T, B) the state was zeroed before this step
    x: np.ndarray  # (T, B, K)
    h_in: np.ndarray  # (T, B, R) what the step was given, after any reset
    c_in: np.ndarray  # (T, B, H)
    gates: dict  # name -> (T, B, H)
    h: np.ndarray  # (T, B, R)
    c: np.ndarray  # (T, B, H)


def _cuts(reset, live, reverse):
    """(T, B): this direction zeroes its state before step t.

    reset[t] is a wall between t-1 and t. Walking up, it is met before step t; walking down,
    before step t-1, unless step t is padding: then nothing has been walked yet.
    """
    if not reverse:
        return reset
    cut = np.zeros_like(reset)
    cut[:-1] = reset[1:] & live[1:]
    return cut


def _run_forward(cell, x, h, c, w, live, reset, reverse):
    """x (T, B, K), h (B, R), c (B, H), live and reset (T, B) -> Run, last h, last c."""
    T, B, _ = x.shape
    x = np.where(live[:, :, None], x, 0)  # padding may hold anything, NaN too
    times = range(T - 1, -1, -1) if reverse else range(T)
    gates = {name: np.zeros((T, B, c.shape[1]), x.dtype) for name in CELLS[cell].gates}
    h_in, h_out = np.zeros((2, T, *h.shape), x.dtype)
    c_in, c_out = np.zeros((2, T, *c.shape), x.dtype)
    run = Run(w, times, live, _cuts(reset, live, reverse), x, h_in, c_in, gates, h_out, c_out)
    for t in times:
        cut, here = run.cut[t][:, None], live[t][:, None]  # (B, 1)
        h_in[t], c_in[t] = np.where(here & ~cut, h, 0), np.where(here & ~cut, c, 0)
        gates_t, h_t, c_t = STEPS[cell][0](x[t], h_in[t], c_in[t], w)
        for name, values in gates_t.items():
            gates[name][t] = np.where(here, values, 0)
        h_out[t], c_out[t] = np.where(here, h_t, 0), np.where(here, c_t, 0)
        h, c = np.where(here, h_t, h), np.where(here, c_t, c)  # a row that is over keeps its state
    return run, h, c


def _run_backward(cell, run, dy, dh, dc):
    """dy (T, B, R), dh (B, R), dc (B, H) -> dx (T, B, K), dh0 (B, R), dc0 (B, H), grads."""
    dx = np.zeros_like(run.x)
    grads = {name: np.zeros_like(value) for name, value in run.w.items()}
    for t in reversed(run.times):
        cut, here = run.cut[t][:, None], run.live[t][:, None]  # (B, 1)
        gates = {name: values[t] for name, values in run.gates.items()}
        dx[t], dh_in, dc_in, step_grads = STEPS[cell][1](
            np.where(here, dh + dy[t], 0),
            np.where(here, dc, 0),
            run.x[t],
            run.h_in[t],
            run.c_in[t],
            gates,
            run.w,
        )
        for name, value in step_grads.items():
            grads[name] += value
        dh = np.where(here, np.where(cut, 0, dh_in), dh)
        dc = np.where(here, np.where(cut, 0, dc_in), dc)
    return dx, dh, dc, grads


# ------------------------------------------------------------------------------- the whole stack


class Cache(NamedTuple):
    """What `backward` needs of a `forward`."""

    cell: str
    names: list  # of the weights that were given
    runs: dict  # suffix such as "l0_reverse" -> Run
    layers: list  # per layer, the suffixes of its directions
    masks: np.ndarray | None  # (L-1, T, B, D*R)


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


def _split_weights(weights, shapes, dtype):
    """Torch-named weights -> {suffix: {"weight_ih": ..., ...}}; biases not given are zero."""
    wrong = [name for name in weights if name not in shapes]
    wrong += [name for name in shapes if name not in weights and not name.startswith("bias")]
    if wrong:
        raise ValueError(f"weights missing or unexpected: {', '.join(wrong)}")
    parts = {}
    for name, shape in shapes.items():
        kind, which, suffix = name.split("_", 2)  # "weight", "ih", "l0_reverse"
        array = _as(name, weights.get(name), shape, dtype)
        parts.setdefault(suffix, {})[f"{kind}_{which}"] = array
    return parts


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
    dtype=np.float64,
):
    """A stack over a whole batch of sequences: x (T, B, I) -> y (T, B, D*R), (hn, cn), cache.

    weights: torch names -> arrays, biases may be left out; state: (h0 (L*D, B, R), c0
    (L*D, B, H)), zeros if None; hn and cn alike, layer by layer, forward before reverse.
    lengths: (B,) integers in 0..T. y is zero beyond a row's length, its last state is that of its
    last valid step, and its reverse direction starts there.
    reset: (T, B) booleans, true where an episode starts: no state passes from t-1 to t, nor, in
    the reverse direction, from t to t-1.
    dropout_masks: (L-1, T, B, D*R), already scaled; multiplies what each layer but the last gives.
    dtype: of everything computed; np.longdouble works.
    Raises ValueError for a name or shape that does not fit, KeyError without weight_hh_l0, which
    tells H.
    """
    gate_names = cell_of(cell).gates
    x = np.array(x, dtype)
    if x.ndim != 3:
        raise ValueError(f"x must be (T, B, I), got shape {x.shape}")
    T, B, inputs = x.shape
    H = len(np.asarray(weights["weight_hh_l0"])) // len(gate_names)
    R, D = proj_size or H, 2 if bidirectional else 1
    shapes = weight_shapes(cell, inputs, H, num_layers, True, bidirectional, proj_size)
    parts = _split_weights(weights, shapes, dtype)
    h0, c0 = state if state is not None else (None, None)
    h0 = _as("h0", h0, (num_layers * D, B, R), dtype)
    c0 = _as("c0", c0, (num_layers * D, B, H), dtype)
    live = length_mask(lengths, T, B)
    reset = _as("reset", reset, (T, B), bool)
    if dropout_masks is not None:
        dropout_masks = _as("dropout_masks", dropout_masks, (num_layers - 1, T, B, D * R), dtype)

    ends = suffixes(num_layers, bidirectional)
    layers = [ends[k : k + D] for k in range(0, len(ends), D)]
    hn, cn, runs = np.zeros_like(h0), np.zeros_like(c0), {}
    for number, layer in enumerate(layers):
        for d, end in enumerate(layer):
            k = number * D + d
            runs[end], hn[k], cn[k] = _run_forward(
                cell, x, h0[k], c0[k], parts[end], live, reset, reverse=d == 1
            )
        x = np.concatenate([runs[end].h for end in layer], axis=2)  # (T, B, D*R)
        if dropout_masks is not None and number < num_layers - 1:
            x = x * dropout_masks[number]
    return x, (hn, cn), Cache(cell, list(weights), runs, layers, dropout_masks)


def backward(cache, dy, dstate=None):
    """Gradients of sum(y*dy) + sum(hn*dhn) + sum(cn*dcn): -> dx (T, B, I), (dh0, dc0), grads.

    dy (T, B, D*R), what lies beyond a row's length is ignored; dstate: (dhn (L*D, B, R), dcn
    (L*D, B, H)) or None. grads: name -> array, for the weights `forward` was given.
    """
    first = cache.runs["l0"]
    T, B, R = first.h.shape
    H, D, dtype = first.c.shape[2], len(cache.layers[0]), first.x.dtype
    dout = _as("dy", dy, (T, B, D * R), dtype)
    dhn, dcn = dstate if dstate is not None else (None, None)
    dh0 = _as("dhn", dhn, (len(cache.runs), B, R), dtype)
    dc0 = _as("dcn", dcn, (len(cache.runs), B, H), dtype)
    grads = {}
    for number in reversed(range(len(cache.layers))):
        if cache.masks is not None and number < len(cache.layers) - 1:
            dout = dout * cache.masks[number]
        dx = 0
        for d, end in enumerate(cache.layers[number]):
            k = number * D + d
            part, dh0[k], dc0[k], step_grads = _run_backward(
                cache.cell, cache.runs[end], dout[:, :, d * R : (d + 1) * R], dh0[k], dc0[k]
            )
            dx = dx + part
            grads |= {f"{name}_{end}": value for name, value in step_grads.items()}
        dout = dx
    return dout, (dh0, dc0), {name: grads[name] for name in cache.names}


def trace(cache):
    """The `Trace` of a forward pass: one array per field, or lists of L*D of them."""
    runs = list(cache.runs.values())
    fields = {name: [run.gates[name] for run in runs] for name in CELLS[cache.cell].gates}
    fields |= {"c": [run.c for run in runs], "h": [run.h for run in runs]}
    return Trace(**(fields if len(runs) > 1 else {name: one[0] for name, one in fields.items()}))
