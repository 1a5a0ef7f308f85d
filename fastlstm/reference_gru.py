"""The slow twins of "rnn", "gru" and "clockwork": one step, forward and backward.

What the functions take and give says the top of reference_cells.py.

RNN: Elman 1990; GRU: Cho et al. 2014, and with the reset after the product as in torch.nn.GRU;
clockwork RNN: Koutnik et al. 2014.
"""

import numpy as np

from fastlstm.reference_activations import activate, activate_backward, clip, clip_backward
from fastlstm.reference_cells import masked

# ---------------------------------------------------------------------------------------------- RNN


def _sums(w, x_t, h):
    return x_t @ w["weight_ih"].T + w["bias_ih"] + h @ w["weight_hh"].T + w["bias_hh"]


def _sums_backward(w, dz, x_t, h):
    """dz (B, G*H) -> dx_t (B, K), dh (B, H), grads."""
    grads = {"weight_ih": dz.T @ x_t, "weight_hh": dz.T @ h}
    grads["bias_ih"] = grads["bias_hh"] = dz.sum(axis=0)
    return dz @ w["weight_ih"], dz @ w["weight_hh"], grads


def rnn(v, w, x_t, state, given):
    """One step of a simple recurrent network. kept["trace"]: a, the activated sum, which is h."""
    z = _sums(w, x_t, masked(state["h"], given.mask_h))
    a = activate(v.activations[0], clip(z, v.clip))
    return {"h": a}, {"trace": {"a": a}, "z": z}


def rnn_backward(v, w, dnew, x_t, state, given, kept):
    """Gradients of one step."""
    z, a = kept["z"], kept["trace"]["a"]
    dz = activate_backward(v.activations[0], dnew["h"], clip(z, v.clip), a)
    dz = clip_backward(dz, z, v.clip)
    dx, dh, grads = _sums_backward(w, dz, x_t, masked(state["h"], given.mask_h))
    return {"x": dx, "h": masked(dh, given.mask_h)}, grads


# ---------------------------------------------------------------------------------------- clockwork


def clockwork_mask(v, hidden):
    """(H, H) of 0 and 1: units (rows) hear those whose period is at least their own."""
    periods = np.repeat(v.periods, hidden // len(v.periods))  # (H,)
    return (periods[None, :] >= periods[:, None]).astype(float)


def _active(v, t, hidden):
    """(B, H) booleans for the step counts t (B, 1): the unit's module runs."""
    return t % np.repeat(v.periods, hidden // len(v.periods)) == 0


def clockwork(v, w, x_t, state, given):
    """One step of a clockwork RNN; w["weight_hh"] is masked already. kept["trace"]: a, which is h."""
    active = _active(v, state["t"], state["h"].shape[1])
    z = _sums(w, x_t, masked(state["h"], given.mask_h))
    a = activate(v.activations[0], z)
    h = np.where(active, a, state["h"])
    return {"h": h, "t": (state["t"] + 1) % v.cycle}, {"trace": {"a": h}, "z": z, "a": a, "active": active}


def clockwork_backward(v, w, dnew, x_t, state, given, kept):
    """Gradients of one step; the count of steps has none."""
    active = kept["active"]
    dz = activate_backward(v.activations[0], dnew["h"], kept["z"], kept["a"])
    dz = np.where(active, dz, 0)
    dx, dh, grads = _sums_backward(w, dz, x_t, masked(state["h"], given.mask_h))
    dh = masked(dh, given.mask_h) + np.where(active, 0, dnew["h"])
    return {"x": dx, "h": dh, "t": np.zeros_like(state["t"])}, grads


# ---------------------------------------------------------------------------------------------- GRU


def gru(v, w, x_t, state, given):
    """One step of a GRU: h = (1 - z) n + z h. kept["trace"]: r, z, n."""
    h, seen = state["h"], masked(state["h"], given.mask_h)
    H = h.shape[1]
    sums_x = x_t @ w["weight_ih"].T + w["bias_ih"]  # (B, 3H)
    sums_rz = sums_x[:, : 2 * H] + seen @ w["weight_hh"][: 2 * H].T + w["bias_hh"][: 2 * H]
    rz = activate(v.activations[0], clip(sums_rz, v.clip))
    r, z = np.split(rz, 2, axis=1)
    heard = seen if v.reset_after else r * seen
    sums_h = heard @ w["weight_hh"][2 * H :].T + w["bias_hh"][2 * H :]  # (B, H)
    sums_n = sums_x[:, 2 * H :] + (r * sums_h if v.reset_after else sums_h)
    n = activate(v.activations[1], clip(sums_n, v.clip))
    new = (1 - z) * masked(n, given.mask_g) + z * h
    kept = {"trace": {"r": r, "z": z, "n": n}, "rz": rz, "sums_rz": sums_rz}
    return {"h": new}, kept | {"heard": heard, "sums_h": sums_h, "sums_n": sums_n}


def gru_backward(v, w, dnew, x_t, state, given, kept):
    """Gradients of one step."""
    r, z, n = (kept["trace"][name] for name in "rzn")
    h, seen, dh = state["h"], masked(state["h"], given.mask_h), dnew["h"]
    H = h.shape[1]
    U_rz, U_n = w["weight_hh"][: 2 * H], w["weight_hh"][2 * H :]

    dn = masked(dh * (1 - z), given.mask_g)
    dn = activate_backward(v.activations[1], dn, clip(kept["sums_n"], v.clip), n)
    dn = clip_backward(dn, kept["sums_n"], v.clip)  # of the candidate's sum (B, H)
    dn_h = dn * r if v.reset_after else dn  # of its h-part
    dheard = dn_h @ U_n
    dr = dn * kept["sums_h"] if v.reset_after else dheard * seen
    dseen = dheard if v.reset_after else dheard * r
    drz = np.concatenate([dr, dh * (h - masked(n, given.mask_g))], axis=1)
    drz = activate_backward(v.activations[0], drz, clip(kept["sums_rz"], v.clip), kept["rz"])
    drz = clip_backward(drz, kept["sums_rz"], v.clip)  # (B, 2H)

    dz_x = np.concatenate([drz, dn], axis=1)  # (B, 3H)
    grads = {"weight_ih": dz_x.T @ x_t, "bias_ih": dz_x.sum(axis=0)}
    grads["weight_hh"] = np.concatenate([drz.T @ seen, dn_h.T @ kept["heard"]])
    grads["bias_hh"] = np.concatenate([drz.sum(axis=0), dn_h.sum(axis=0)])
    dseen = dseen + drz @ U_rz
    return {"x": dz_x @ w["weight_ih"], "h": masked(dseen, given.mask_h) + dh * z}, grads
