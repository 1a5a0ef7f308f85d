"""The slow twins over time: one layer in one direction, all steps, forward and backward.

Lengths, resets, and the masks that regularise a recurrent layer; of the cells it knows only
their two functions (top of reference_cells.py).

Letters in shapes: T steps, B rows, K inputs of the layer, H hidden units, R width of h, W width
of any state.
"""

from typing import NamedTuple

import numpy as np

from fastlstm.reference_1997 import lstm_1997, lstm_1997_backward
from fastlstm.reference_cells import (
    Given,
    depth_gated,
    depth_gated_backward,
    lstm,
    lstm_backward,
    masked,
)
from fastlstm.reference_gru import (
    clockwork,
    clockwork_backward,
    clockwork_mask,
    gru,
    gru_backward,
    rnn,
    rnn_backward,
)

CELLS = {  # one row for every cell of variants.FAMILY
    "rnn": (rnn, rnn_backward),
    "gru": (gru, gru_backward),
    "lstm": (lstm, lstm_backward),
    "depth_gated": (depth_gated, depth_gated_backward),
    "clockwork": (clockwork, clockwork_backward),
    "lstm_1997": (lstm_1997, lstm_1997_backward),
}


class Run(NamedTuple):
    """What one layer saw and did in one direction; zero (and cut meaningless) where not live."""

    w: dict  # name without ending -> array, as given
    times: range  # the steps in the order in which this direction takes them
    live: np.ndarray  # (T, B) the step lies within the row's length
    cut: np.ndarray  # (T, B) the state was zeroed before this step
    x: np.ndarray  # (T, B, K)
    lower: np.ndarray | None  # (T, B, H) c of the layer below, for a depth gate
    masks: dict  # kind, such as "mask_x" -> array
    states_in: dict  # name -> (T, B, W) what the step was given, after any reset
    states: dict  # name -> (T, B, W) what it gave out
    kept: list  # per step, what its backward needs

    @property
    def h(self):
        """(T, B, R)."""
        return self.states["h"]

    def trace(self, v, name):
        """(T, B, W) of a field of the trace; zero where not live."""
        if name in self.states:
            return self.states[name]
        here = self.live[:, :, None]
        if not self.kept:  # no step at all
            like = self.states.get("c", self.h)
            blocks = v.cell == "lstm_1997" and name != "g"
            return np.zeros((*like.shape[:2], like.shape[2] // v.block_size if blocks else like.shape[2]), like.dtype)
        return np.where(here, np.stack([kept["trace"][name] for kept in self.kept]), 0)


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


def _weight_mask(v, run):
    """What multiplies weight_hh all through the run, or None."""
    mask = run.masks.get("mask_weight_hh")
    if v.cell != "clockwork":
        return mask
    return masked(clockwork_mask(v, len(run.w["weight_hh"])), mask)


def _given(v, run, t):
    """What step t reads beside its input and its state."""
    g, lower = run.masks.get("mask_g"), run.lower
    return Given(
        run.masks.get("mask_h"),
        None if g is None else g[t],
        None if lower is None else lower[t],
    )


def run_forward(v, w, x, state, live, reset, reverse, lower=None, masks=None):
    """One direction of one layer: -> `Run`, last state.

    x (T, B, K); state: {"h": (B, R), ...}; live and reset (T, B); lower: c (T, B, H) of the layer
    below, zero where not live; masks: kind -> array, as `params.mask_shapes` says.
    """
    T = len(x)
    x = np.where(live[:, :, None], x, 0)  # padding may hold anything, NaN too
    times = range(T - 1, -1, -1) if reverse else range(T)
    states_in, states = (
        {name: np.zeros((T, *s.shape), x.dtype) for name, s in state.items()} for _ in "io"
    )
    cut = _cuts(reset, live, reverse)
    run = Run(w, times, live, cut, x, lower, masks or {}, states_in, states, [None] * T)
    w = w | {"weight_hh": masked(w["weight_hh"], _weight_mask(v, run))}
    for t in times:
        here = live[t][:, None]  # (B, 1)
        fed = {name: np.where(here & ~cut[t][:, None], s, 0) for name, s in state.items()}
        x_t = masked(x[t], run.masks.get("mask_x"))
        new, run.kept[t] = CELLS[v.cell][0](v, w, x_t, fed, _given(v, run, t))
        for name in state:
            zoneout = run.masks.get(f"zoneout_{name}")
            if zoneout is not None:
                new[name] = zoneout[t] * fed[name] + (1 - zoneout[t]) * new[name]
            states_in[name][t], states[name][t] = fed[name], np.where(here, new[name], 0)
        # a row that is over keeps its state
        state = {name: np.where(here, new[name], s) for name, s in state.items()}
    return run, state


def run_backward(v, run, dy, dstate, dupper=None):
    """Gradients of one direction of one layer.

    dy (T, B, R); dstate: {"h": (B, R), ...} of the last state; dupper (T, B, H): what depth gates
    of the layer above hand back to c, or None.
    Returns dx (T, B, K), dstate of the initial state, grads by name, and dlower (T, B, H), or
    None if the layer has no depth gate.
    """
    dx = np.zeros_like(run.x)
    dlower = None if run.lower is None else np.zeros_like(run.lower)
    grads = {name: np.zeros_like(value) for name, value in run.w.items()}
    weight_mask = _weight_mask(v, run)
    w = run.w | {"weight_hh": masked(run.w["weight_hh"], weight_mask)}
    for t in reversed(run.times):
        cut, here = run.cut[t][:, None], run.live[t][:, None]  # (B, 1)
        dnew = dstate | {"h": dstate["h"] + dy[t]}
        if dupper is not None:
            dnew["c"] = dnew["c"] + dupper[t]
        dnew = {name: np.where(here, d, 0) for name, d in dnew.items()}
        dheld = {}
        for name in dnew:
            zoneout = run.masks.get(f"zoneout_{name}")
            if zoneout is not None:
                dheld[name], dnew[name] = zoneout[t] * dnew[name], (1 - zoneout[t]) * dnew[name]
        fed = {name: s[t] for name, s in run.states_in.items()}
        x_t = masked(run.x[t], run.masks.get("mask_x"))
        dinputs, step_grads = CELLS[v.cell][1](v, w, dnew, x_t, fed, _given(v, run, t), run.kept[t])
        dx[t] = masked(dinputs["x"], run.masks.get("mask_x"))
        if dlower is not None:
            dlower[t] = dinputs["c_lower"]
        for name, value in step_grads.items():
            grads[name] += value
        for name, d in dstate.items():
            din = dinputs[name] + dheld.get(name, 0)
            dstate = dstate | {name: np.where(here, np.where(cut, 0, din), d)}
    grads["weight_hh"] = masked(grads["weight_hh"], weight_mask)
    return dx, dstate, grads, dlower
