"""The slow twin of "lstm_1997": memory blocks whose cells share an input and an output gate.

Hochreiter & Schmidhuber 1997: no forget gate; the hidden layer is fully connected, gates
included; gradients truncated as in the paper's appendix, or full. What the functions take and
give says the top of reference_cells.py.

Letters in shapes: B rows, K inputs, b blocks, S cells in each, H = b*S, U = H + 2b units in the
order cells, input gates, output gates (U = H + b where there are no output gates).
"""

import numpy as np

from fastlstm.reference_activations import activate, activate_backward
from fastlstm.reference_cells import masked


def _fed(state, given):
    """What the previous step gave out: cells, input gates, output gates, (B, U)."""
    return np.concatenate([masked(state["h"], given.mask_h), state["gates"]], axis=1)


def _sum_of_blocks(a, v):
    """(B, b*S) -> (B, b)."""
    return a.reshape(len(a), a.shape[1] // v.block_size, v.block_size).sum(axis=2)


def lstm_1997(v, w, x_t, state, given):
    """One step: c = c + i g, h = o squash(c). kept["trace"]: i and o (B, b), g (B, H)."""
    H, S = state["h"].shape[1], v.block_size
    z = x_t @ w["weight_ih"].T + _fed(state, given) @ w["weight_hh"].T  # (B, U)
    biased = slice(H, None) if v.biased == "gates" else slice(None)
    z[:, biased] += w["bias_ih"]
    g = activate(v.activations[1], z[:, :H])
    gates = activate(v.activations[0], z[:, H:])  # (B, 2b)
    i = gates[:, : H // S]
    o = gates[:, H // S :] if "o" in v.gates else np.ones_like(i)
    c = state["c"] + np.repeat(i, S, axis=1) * masked(g, given.mask_g)
    squashed = activate(v.activations[2], c)
    h = np.repeat(o, S, axis=1) * squashed
    trace = {"i": i, "g": g, "o": o}
    return {"h": h, "c": c, "gates": gates}, {"trace": trace, "z": z, "gates": gates, "c": c, "squashed": squashed}


def lstm_1997_backward(v, w, dnew, x_t, state, given, kept):
    """Gradients of one step. Truncated: of what was given, only x and c get any."""
    H, S = state["h"].shape[1], v.block_size
    i, g, o = (kept["trace"][name] for name in "igo")
    do = _sum_of_blocks(dnew["h"] * kept["squashed"], v)
    dc = dnew["h"] * np.repeat(o, S, axis=1)
    dc = dnew["c"] + activate_backward(v.activations[2], dc, kept["c"], kept["squashed"])
    di = _sum_of_blocks(dc * masked(g, given.mask_g), v)
    dg = masked(dc * np.repeat(i, S, axis=1), given.mask_g)

    dgates = dnew["gates"] + (np.concatenate([di, do], axis=1) if "o" in v.gates else di)
    z_g, z_gates = kept["z"][:, :H], kept["z"][:, H:]
    dz = np.concatenate(  # (B, U)
        [
            activate_backward(v.activations[1], dg, z_g, g),
            activate_backward(v.activations[0], dgates, z_gates, kept["gates"]),
        ],
        axis=1,
    )
    grads = {"weight_ih": dz.T @ x_t, "weight_hh": dz.T @ _fed(state, given)}
    grads["bias_ih"] = (dz[:, H:] if v.biased == "gates" else dz).sum(axis=0)
    dfed = dz @ w["weight_hh"] if v.gradient == "full" else np.zeros_like(dz)
    dinputs = {"x": dz @ w["weight_ih"], "h": masked(dfed[:, :H], given.mask_h), "c": dc}
    return dinputs | {"gates": dfed[:, H:]}, grads
