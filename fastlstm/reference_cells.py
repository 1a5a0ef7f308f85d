"""The slow twins of the LSTM family: one step, forward and backward, of "lstm" and "depth_gated".

Every option of the LSTM is a line or two here; which are possible says variants.py, what they
mean docs/equations.md. The twins of the other cells have the same two functions:

    new, kept = cell(v, w, x_t, state, given)
    dinputs, grads = cell_backward(v, w, dnew, x_t, state, given, kept)

v: `Variant`; w: weights of one layer and direction by name, without its ending; x_t (B, K);
state and new: {"h": (B, R), ...}, v.states; given: `Given`. kept["trace"] holds what a trace shows.
dnew: gradient of `new`, all later uses summed. dinputs: of x, of every state, and of c_lower if the
step read it; grads: of the weights, names as in w.

LSTM: Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000; peepholes: Gers
& Schmidhuber 2000; projection: Sak, Senior & Beaufays 2014; fixed gates, coupled gates and gate
recurrence: Greff et al. 2015; layer normalisation: Ba, Kiros & Hinton 2016; depth gate: Yao et al.
2015. Names, shapes and gate order: torch.nn.LSTM.

Letters in shapes: B rows, K inputs, H hidden units, P projected units, R = P or H, G gates that
have weights.
"""

from typing import NamedTuple

import numpy as np

from fastlstm.reference_activations import (
    activate,
    activate_backward,
    clip,
    clip_backward,
    normalize,
    normalize_backward,
)


class Given(NamedTuple):
    """What a step reads beside its input and its state; None where there is nothing."""

    mask_h: np.ndarray | None = None  # (B, R) multiplies h in the product with weight_hh
    mask_g: np.ndarray | None = None  # (B, H) multiplies the candidate
    c_lower: np.ndarray | None = None  # (B, H) the layer below, same step and direction


def masked(a, mask):
    """a * mask, or a if there is no mask."""
    return a if mask is None else a * mask


def _part(v, name):
    """Rows of gate `name` in a vector of G*H, as (G, H) indexes it."""
    return v.gates.index(name)


# ------------------------------------------------------------------------------- pre-activations


def _products(v, w, x_t, h):
    """x_t (B, K), h (B, R) -> pre-activations of all gates (B, G*H), what backward needs."""
    if v.layer_norm != "ba":
        return x_t @ w["weight_ih"].T + w["bias_ih"] + h @ w["weight_hh"].T + w["bias_hh"], None
    ln_x, ln_h = normalize(x_t @ w["weight_ih"].T, v.norm_eps), normalize(h @ w["weight_hh"].T, v.norm_eps)
    z = ln_x[0] * w["weight_ln_ih"] + w["bias_ih"] + ln_h[0] * w["weight_ln_hh"] + w["bias_hh"]
    return z, (ln_x, ln_h)


def _products_backward(v, w, dz, x_t, h, norms):
    """dz (B, G*H) -> dx_t (B, K), dh (B, R), grads."""
    grads, dz_x, dz_h = {"bias_ih": dz.sum(axis=0), "bias_hh": dz.sum(axis=0)}, dz, dz
    if norms is not None:
        (y_x, scale_x), (y_h, scale_h) = norms
        grads |= {"weight_ln_ih": (dz * y_x).sum(axis=0), "weight_ln_hh": (dz * y_h).sum(axis=0)}
        dz_x = normalize_backward(dz * w["weight_ln_ih"], y_x, scale_x)
        dz_h = normalize_backward(dz * w["weight_ln_hh"], y_h, scale_h)
    grads |= {"weight_ih": dz_x.T @ x_t, "weight_hh": dz_h.T @ h}
    return dz_x @ w["weight_ih"], dz_h @ w["weight_hh"], grads


class _Gate(NamedTuple):
    """One gate from its sums to its value; seen: what its peephole sees, if it has one."""

    name: str
    seen: np.ndarray | None  # (B, H)
    norm: tuple | None
    z: np.ndarray  # (B, H) before clipping and activation
    y: np.ndarray  # (B, H)


def _peephole(v, w, name):
    return np.split(w["weight_peephole"], len(v.peephole))[v.peephole.index(name)]  # (H,)


def _gate(v, w, name, z, c):
    """Sums z (B, H) and the cell state c (B, H) that a peephole would see -> `_Gate`."""
    seen = norm = None
    if name in v.peephole:
        seen, z = c, z + _peephole(v, w, name) * c
    if v.layer_norm == "gates":
        norm = normalize(z, v.norm_eps)
        gain, bias = (w[k].reshape(-1, z.shape[1])[_part(v, name)] for k in ("weight_ln", "bias_ln"))
        z = norm[0] * gain + bias
    return _Gate(name, seen, norm, z, activate(v.activations[name == "g"], clip(z, v.clip)))


def _gate_backward(v, w, gate, dy):
    """dy (B, H) -> gradient of the sums, of the state its peephole saw (or 0), and grads by row."""
    z = clip(gate.z, v.clip)
    dz = clip_backward(activate_backward(v.activations[gate.name == "g"], dy, z, gate.y), gate.z, v.clip)
    dc, rows = 0, {}
    if gate.norm is not None:
        rows |= {"weight_ln": (dz * gate.norm[0]).sum(axis=0), "bias_ln": dz.sum(axis=0)}
        gain = w["weight_ln"].reshape(-1, dz.shape[1])[_part(v, gate.name)]
        dz = normalize_backward(dz * gain, *gate.norm)
    if gate.seen is not None:
        rows["weight_peephole"] = (dz * gate.seen).sum(axis=0)
        dc = dz * _peephole(v, w, gate.name)
    return dz, dc, rows


# ------------------------------------------------------------------------------------ LSTM, forward


def _input_and_forget(v, gates, like):
    """Values of i and f, (B, H) each: computed, coupled to the other, or fixed at 1."""
    values = {n: gates[n].y if n in gates else np.ones_like(like) for n in "if"}
    if v.coupled:
        dependent, leading = v.coupled[0], v.coupled[-1]
        values[dependent] = 1 - values[leading]
    return values["i"], values["f"]


def lstm(v, w, x_t, state, given):
    """One step of an LSTM; see the top of this file. kept["trace"]: i, f, g, o."""
    c_prev, h = state["c"], masked(state["h"], given.mask_h)
    z, norms = _products(v, w, x_t, h)
    sums = dict(zip(v.gates, np.split(z, len(v.gates), axis=1), strict=True))  # (B, H) each
    if v.gate_recurrence:
        fed = np.split(state["gates"] @ w["weight_gh"].T, 3, axis=1)
        sums |= {name: sums[name] + more for name, more in zip("ifo", fed, strict=True)}

    gates = {n: _gate(v, w, n, sums[n], c_prev) for n in v.gates if n != "o"}
    i, f = _input_and_forget(v, gates, c_prev)
    g = masked(gates["g"].y, given.mask_g)
    c = f * c_prev + i * g
    depth = None
    if "weight_d_ih" in w:
        depth = _depth_gate(v, w, x_t, c_prev, given.c_lower)
        c = c + depth[1] * given.c_lower
    c_sum, c = c, clip(c, v.cell_clip)

    if "o" in v.gates:
        gates["o"] = _gate(v, w, "o", sums["o"], c if v.peephole_o == "c" else c_prev)
    o = gates["o"].y if "o" in gates else np.ones_like(c)
    shown, norm_c = c, None
    if v.layer_norm == "ba":
        norm_c = normalize(c, v.norm_eps)
        shown = norm_c[0] * w["weight_ln_c"] + w["bias_ln_c"]
    squashed = activate(v.activations[2], shown)
    m = o * squashed
    h_sum = m @ w["weight_hr"].T if "weight_hr" in w else m  # (B, H) -> (B, P)
    new = {"h": clip(h_sum, v.proj_clip), "c": c}
    if v.gate_recurrence:
        new["gates"] = np.concatenate([i, f, o], axis=1)
    trace = {"i": i, "f": f, "g": gates["g"].y, "o": o}
    if v.cell == "depth_gated":
        trace["d"] = depth[1] if depth else np.zeros_like(c)  # the first layer has none
    kept = {"trace": trace, "norms": norms, "gates": gates, "depth": depth, "c_sum": c_sum}
    return new, kept | {"norm_c": norm_c, "shown": shown, "squashed": squashed, "m": m, "h_sum": h_sum}


def _depth_gate(v, w, x_t, c_prev, c_lower):
    """-> sums and value of the depth gate, (B, H) each."""
    z = x_t @ w["weight_d_ih"].T + w["bias_d"] + w["weight_d_c"] * c_prev + w["weight_d_lower"] * c_lower
    return z, activate(v.activations[0], z)


# ----------------------------------------------------------------------------------- LSTM, backward


def _output_backward(v, w, dh, kept):
    """dh (B, R) -> gradients of o and of the new c, (B, H) each, and grads."""
    grads = {}
    dh = clip_backward(dh, kept["h_sum"], v.proj_clip)
    if "weight_hr" in w:
        grads["weight_hr"] = dh.T @ kept["m"]  # (P, H)
        dh = dh @ w["weight_hr"]  # (B, P) -> (B, H)
    dc = dh * kept["trace"]["o"]
    dc = activate_backward(v.activations[2], dc, kept["shown"], kept["squashed"])
    if kept["norm_c"] is not None:
        grads |= {"weight_ln_c": (dc * kept["norm_c"][0]).sum(axis=0), "bias_ln_c": dc.sum(axis=0)}
        dc = normalize_backward(dc * w["weight_ln_c"], *kept["norm_c"])
    return dh * kept["squashed"], dc, grads


def _depth_backward(v, w, dc, x_t, c_prev, c_lower, depth):
    """dc (B, H) -> what the depth gate hands to x, c and c_lower, and grads."""
    z, d = depth
    dz = activate_backward(v.activations[0], dc * c_lower, z, d)
    grads = {"weight_d_ih": dz.T @ x_t, "bias_d": dz.sum(axis=0)}
    grads |= {"weight_d_c": (dz * c_prev).sum(axis=0), "weight_d_lower": (dz * c_lower).sum(axis=0)}
    dinputs = {"x": dz @ w["weight_d_ih"], "c": dz * w["weight_d_c"]}
    return dinputs | {"c_lower": dc * d + dz * w["weight_d_lower"]}, grads


def lstm_backward(v, w, dnew, x_t, state, given, kept):
    """Gradients of one step; see the top of this file."""
    c_prev, gates, trace = state["c"], kept["gates"], kept["trace"]
    dvalues = dict.fromkeys("ifo", 0)  # what the next step's gates hand back
    if v.gate_recurrence:
        dvalues = dict(zip("ifo", np.split(dnew["gates"], 3, axis=1), strict=True))
    do, dc, grads = _output_backward(v, w, dnew["h"], kept)
    dc, dc_prev, found = dnew["c"] + dc, 0, {}
    if "o" in gates:
        found["o"] = _gate_backward(v, w, gates["o"], do + dvalues["o"])
        if v.peephole_o == "c":
            dc = dc + found["o"][1]
        else:
            dc_prev = found["o"][1]
    dc = clip_backward(dc, kept["c_sum"], v.cell_clip)

    depth = {}
    if kept["depth"] is not None:
        depth, more = _depth_backward(v, w, dc, x_t, c_prev, given.c_lower, kept["depth"])
        grads |= more
        dc_prev = dc_prev + depth["c"]
    g = masked(trace["g"], given.mask_g)
    dvalues = {"i": dc * g + dvalues["i"], "f": dc * c_prev + dvalues["f"]}
    if v.coupled:
        dvalues[v.coupled[-1]] = dvalues[v.coupled[-1]] - dvalues[v.coupled[0]]
    dvalues["g"] = masked(dc * trace["i"], given.mask_g)
    dc_prev = dc_prev + dc * trace["f"]
    for name in v.gates:
        if name != "o":
            found[name] = _gate_backward(v, w, gates[name], dvalues[name])
            dc_prev = dc_prev + found[name][1]

    dz = np.concatenate([found[name][0] for name in v.gates], axis=1)  # (B, G*H)
    h = masked(state["h"], given.mask_h)
    dx, dh, more = _products_backward(v, w, dz, x_t, h, kept["norms"])
    dinputs = {"x": dx + depth.get("x", 0), "h": masked(dh, given.mask_h), "c": dc_prev}
    if depth:
        dinputs["c_lower"] = depth["c_lower"]
    if v.gate_recurrence:
        dz_ifo = np.concatenate([found[name][0] for name in "ifo"], axis=1)  # (B, 3H)
        dinputs["gates"] = dz_ifo @ w["weight_gh"]
        grads["weight_gh"] = dz_ifo.T @ state["gates"]
    grads |= more | _rows(found, "weight_peephole", v.peephole)
    return dinputs, grads | _rows(found, "weight_ln", v.gates) | _rows(found, "bias_ln", v.gates)


def _rows(found, name, order):
    """The gradient of a vector that holds H elements of each gate of `order`."""
    rows = [found[gate][2][name] for gate in order if name in found[gate][2]]
    return {name: np.concatenate(rows)} if rows else {}


depth_gated, depth_gated_backward = lstm, lstm_backward  # the weights of a depth gate tell
