"""What every option of the slow twins means: equal to something plainer, or to its formula written out."""

import numpy as np
import pytest
from differences import difference
from twins import Twin, same_run

from fastlstm import reference
from fastlstm.variants import FAMILY, GREFF, variant


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def rows(weights, name, order, chosen, H=4):
    """Rows of the gates `chosen` of a matrix whose rows are those of `order`."""
    return np.concatenate([weights[name][order.index(g) * H : (order.index(g) + 1) * H] for g in chosen])


def one_step(**options):
    """A twin of one step and one row, its state as (H,) each, and sums of all gates (G, H)."""
    twin = Twin(T=1, B=1, **options)
    w = twin.weights
    sums = w["weight_ih_l0"] @ twin.x[0, 0] + w["weight_hh_l0"] @ twin.state["h"][0, 0]
    return twin, sums + w["bias_ih_l0"] + w["bias_hh_l0"], twin.state["c"][0, 0]


def norm(z, eps=1e-5):
    return (z - z.mean()) / np.sqrt(z.var() + eps)


def shown(twin):
    """h and c of a one-step twin."""
    _, (h, c, *_), _ = twin.forward()
    return h[0, 0], c[0, 0]


# -------------------------------------------------------------------------------------- gates of the LSTM


@pytest.mark.parametrize(("coupled", "gates"), [("i=1-f", "fgo"), ("f=1-i", "igo")])
def test_coupled_gates_are_explicit_weights_of_the_other_sign(coupled, gates):
    twin = Twin(coupled=coupled, T=5, lengths=[5, 3])
    assert twin.v.gates == tuple(gates)
    full, own = {}, coupled[-1]
    for name in twin.weights:
        parts = {g: rows(twin.weights, name, gates, g) for g in gates}
        parts[coupled[0]] = -parts[own]  # sigmoid(-z) = 1 - sigmoid(z)
        full[name] = np.concatenate([parts[g] for g in "ifgo"])
    same_run(twin.forward(), twin.forward(cell="lstm", weights=full))


@pytest.mark.parametrize("without", ["i", "f", "o", "io", "ifo"])
def test_a_fixed_gate_is_a_gate_that_is_always_open(without):
    twin, gates = Twin(without=without, T=5), [g for g in "ifgo" if g not in without]
    full = {}
    for name, array in twin.weights.items():
        shut = np.full(4, 50.0 if name == "bias_ih_l0" else 0.0) if array.ndim == 1 else np.zeros((4, array.shape[1]))
        full[name] = np.concatenate([rows(twin.weights, name, gates, g) if g in gates else shut for g in "ifgo"])
    same_run(twin.forward(), twin.forward(cell="lstm", weights=full))
    assert all((getattr(twin.trace(), g) == 1).all() for g in without)


@pytest.mark.parametrize(("option", "tensor"), [
    ({"peephole": "ifo"}, "weight_peephole"), ({"peephole": "o", "peephole_o": "c_prev"}, "weight_peephole"),
    ({"gate_recurrence": True}, "weight_gh"),
])
def test_zero_weights_of_an_option_are_the_plain_cell(option, tensor):
    twin = Twin(T=5, L=2, bidirectional=True, lengths=[5, 3], **option)
    for name in twin.weights:
        if name.startswith(tensor):
            twin.weights[name][...] = 0
    plain = {name: w for name, w in twin.weights.items() if not name.startswith(tensor)}
    state = tuple(twin.state[name] for name in "hc")
    same_run(twin.forward(), twin.forward(cell="lstm", weights=plain, state=state))


@pytest.mark.parametrize("peephole_o", ["c", "c_prev"])
def test_peepholes_see_the_cell(peephole_o):
    twin, sums, c = one_step(peephole="foi", peephole_o=peephole_o)  # in memory: i, f, o
    p_i, p_f, p_o = twin.weights["weight_peephole_l0"].reshape(3, 4)
    i, f, g, o = sums.reshape(4, 4)
    new = sigmoid(f + p_f * c) * c + sigmoid(i + p_i * c) * np.tanh(g)
    o = sigmoid(o + p_o * (new if peephole_o == "c" else c))
    assert difference(shown(twin)[1], new) < 1e-14
    assert difference(shown(twin)[0], o * np.tanh(new)) < 1e-14


def test_gate_recurrence_feeds_the_activated_gates():
    twin = Twin(T=2, B=1, gate_recurrence=True)
    t, gates = twin.trace(), twin.forward()[1][2]
    np.testing.assert_array_equal(gates[0], np.concatenate([t.i[1], t.f[1], t.o[1]], axis=1))
    w, before = twin.weights, np.concatenate([t.i[0, 0], t.f[0, 0], t.o[0, 0]])
    sums = w["weight_ih_l0"] @ twin.x[1, 0] + w["weight_hh_l0"] @ t.h[0, 0] + w["bias_ih_l0"] + w["bias_hh_l0"]
    fed = w["weight_gh_l0"] @ before
    for gate, k, more in (("i", 0, fed[:4]), ("f", 1, fed[4:8]), ("o", 3, fed[8:])):
        assert difference(getattr(t, gate)[1, 0], sigmoid(sums[4 * k : 4 * k + 4] + more)) < 1e-14


def test_greffs_variants_have_the_gates_that_their_names_say():
    found = {name: variant("lstm", **options) for name, options in GREFF.items()}
    gates = {name: "".join(v.gates) for name, v in found.items()}
    assert gates == {**dict.fromkeys(GREFF, "ifgo"), "NIG": "fgo", "NFG": "igo", "NOG": "ifg", "CIFG": "igo"}
    functions = {name: [a.name for a in v.activations] for name, v in found.items()}
    assert functions.pop("NIAF") == ["sigmoid", "identity", "tanh"]
    assert functions.pop("NOAF") == ["sigmoid", "tanh", "identity"]
    assert all(names == ["sigmoid", "tanh", "tanh"] for names in functions.values())
    assert found["FGR"].gate_recurrence and found["CIFG"].coupled == "f=1-i"
    for name, v in found.items():  # every gate has its peephole, but in NP
        assert v.peephole == ("" if name == "NP" else gates[name].replace("g", ""))


# ------------------------------------------------------------------------------------------ clips and norms


def test_clip_bounds_what_the_activations_read():
    twin, sums, c = one_step(clip=0.5)
    i, f, g, o = np.clip(sums, -0.5, 0.5).reshape(4, 4)
    new = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    assert difference(shown(twin)[0], sigmoid(o) * np.tanh(new)) < 1e-14
    assert np.abs(sums).max() > 1


def test_cell_clip_bounds_the_cell_before_its_peephole_and_the_output():
    twin, sums, c = one_step(cell_clip=0.2, peephole="o")
    i, f, g, o = sums.reshape(4, 4)
    new = np.clip(sigmoid(f) * c + sigmoid(i) * np.tanh(g), -0.2, 0.2)
    assert (np.abs(new) == 0.2).any()
    h = sigmoid(o + twin.weights["weight_peephole_l0"] * new) * np.tanh(new)
    assert difference(shown(twin)[1], new) < 1e-14 and difference(shown(twin)[0], h) < 1e-14


def test_proj_clip_bounds_the_projection():
    twin = Twin(T=1, proj=2, proj_clip=0.2)
    loose = twin.forward(cell="lstm")[0]
    assert (np.abs(loose) > 0.2).any()
    np.testing.assert_array_equal(twin.forward()[0], np.clip(loose, -0.2, 0.2))


def test_layer_norm_ba_normalises_three_times():
    twin, _, c = one_step(layer_norm="ba")
    w = {name.removesuffix("_l0"): a for name, a in twin.weights.items()}
    sums = norm(w["weight_ih"] @ twin.x[0, 0]) * w["weight_ln_ih"] + w["bias_ih"]
    sums += norm(w["weight_hh"] @ twin.state["h"][0, 0]) * w["weight_ln_hh"] + w["bias_hh"]
    i, f, g, o = sums.reshape(4, 4)
    new = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(norm(new) * w["weight_ln_c"] + w["bias_ln_c"])
    assert difference(shown(twin)[1], new) < 1e-14 and difference(shown(twin)[0], h) < 1e-14


def test_layer_norm_gates_normalises_each_gate_with_its_peephole():
    twin, sums, c = one_step(layer_norm="gates", peephole="f", norm_eps=0.1)
    sums = sums.reshape(4, 4)
    sums[1] += twin.weights["weight_peephole_l0"] * c
    gain, bias = (twin.weights[f"{name}_ln_l0"].reshape(4, 4) for name in ("weight", "bias"))
    i, f, g, o = (norm(s, 0.1) * a + b for s, a, b in zip(sums, gain, bias))
    new = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    assert difference(shown(twin)[1], new) < 1e-14 and difference(shown(twin)[0], sigmoid(o) * np.tanh(new)) < 1e-14


# ------------------------------------------------------------------------------------------------ GRU and RNN


@pytest.mark.parametrize("reset_after", [True, False])
def test_a_step_of_the_gru(reset_after):
    twin = Twin("gru", T=1, B=1, reset_after=reset_after)
    w, h = {name.removesuffix("_l0"): a for name, a in twin.weights.items()}, twin.state["h"][0, 0]
    (xr, xz, xn) = (w["weight_ih"] @ twin.x[0, 0] + w["bias_ih"]).reshape(3, 4)
    U, b = w["weight_hh"].reshape(3, 4, 4), w["bias_hh"].reshape(3, 4)
    r, z = sigmoid(xr + U[0] @ h + b[0]), sigmoid(xz + U[1] @ h + b[1])
    n = np.tanh(xn + (r * (U[2] @ h + b[2]) if reset_after else U[2] @ (r * h) + b[2]))
    assert difference(twin.forward()[0][0, 0], (1 - z) * n + z * h) < 1e-14


def test_the_trace_of_a_gru_satisfies_its_equation():
    twin = Twin("gru", T=5)
    t = twin.trace()
    assert t._fields == ("r", "z", "n", "h")
    before = np.concatenate([twin.state["h"], t.h[:-1]])
    np.testing.assert_allclose(t.h, (1 - t.z) * t.n + t.z * before, rtol=1e-14)


def test_nonlinearity_is_a_name_for_an_activation():
    assert variant("rnn", nonlinearity="relu") == variant("rnn", activations=("relu",)) != variant("rnn")
    assert variant("rnn", nonlinearity="tanh") == variant("rnn")


# --------------------------------------------------------------------------------------------- depth gate


def test_a_shut_depth_gate_is_a_plain_stack():
    twin = Twin("depth_gated", L=2, bidirectional=True, T=5)
    for name in twin.weights:
        if "weight_d" in name:
            twin.weights[name][...] = 0
        elif "bias_d" in name:
            twin.weights[name][...] = -50
    plain = {name: w for name, w in twin.weights.items() if "_d_" not in name}
    same_run(twin.forward(), twin.forward(cell="lstm", weights=plain))


def test_the_depth_gate_reads_the_cell_below_of_the_same_step_and_direction():
    twin = Twin("depth_gated", L=2, bidirectional=True, T=5)
    t = twin.trace()
    assert not t.d[0].any() and not t.d[1].any()  # the first layer has none
    for k, end in ((2, "l1"), (3, "l1_reverse")):
        first = twin.state["c"][k : k + 1]
        before = np.concatenate([first, t.c[k][:-1]] if k == 2 else [t.c[k][1:], first])
        lower, x = t.c[k - 2], np.concatenate([t.h[0], t.h[1]], axis=2)
        w = {name.removesuffix(f"_{end}"): a for name, a in twin.weights.items() if name.endswith(f"_{end}")}
        d = sigmoid(x @ w["weight_d_ih"].T + w["weight_d_c"] * before + w["weight_d_lower"] * lower + w["bias_d"])
        assert difference(t.d[k], d) < 1e-14
        assert difference(t.c[k], d * lower + t.f[k] * before + t.i[k] * t.g[k]) < 1e-14


# ---------------------------------------------------------------------------------------------- clockwork


@pytest.mark.parametrize("periods", [1, (1, 1)])
def test_a_clockwork_of_period_one_is_an_rnn(periods):
    twin = Twin("clockwork", periods=periods, L=2, bidirectional=True, T=5, lengths=[5, 2], reset=True)
    same_run(twin.forward(), twin.forward(cell="rnn", state=(twin.state["h"],)))


def test_modules_run_in_their_periods_and_hear_slower_ones():
    twin = Twin("clockwork", T=9, B=1, periods=(1, 2, 4), H=6, start=False)
    w, h = {name.removesuffix("_l0"): a for name, a in twin.weights.items()}, np.zeros(6)
    y, (_, t), _ = twin.forward()
    for step in range(9):
        new = h.copy()
        for unit, period in enumerate((1, 1, 2, 2, 4, 4)):
            if step % period == 0:
                heard = [k for k, other in enumerate((1, 1, 2, 2, 4, 4)) if other >= period]
                z = w["weight_ih"][unit] @ twin.x[step, 0] + w["weight_hh"][unit, heard] @ h[heard]
                new[unit] = np.tanh(z + w["bias_ih"][unit] + w["bias_hh"][unit])
        h = new
        assert difference(y[step, 0], h) < 1e-14
    assert t.item() == 9 % 4
    hidden = twin.gradients()["weight_hh_l0"].reshape(3, 2, 3, 2).any(axis=(1, 3))
    np.testing.assert_array_equal(hidden, np.triu(np.ones((3, 3), bool)))


def test_the_clock_is_carried_and_restarts_at_a_reset():
    twin = Twin("clockwork", T=7, periods=(1, 3), start=False)
    whole = twin.forward()
    first = twin.forward(x=twin.x[:4])
    second = twin.forward(x=twin.x[4:], state=first[1])
    np.testing.assert_array_equal(whole[0], np.concatenate([first[0], second[0]]))
    np.testing.assert_array_equal(whole[1][1], second[1][1])
    reset = np.zeros((7, 2), bool)
    reset[4] = True
    again = twin.forward(x=twin.x[4:])
    np.testing.assert_array_equal(twin.forward(reset=reset)[0][4:], again[0])
    assert difference(again[0], second[0]) > 1e-2


# ---------------------------------------------------------------------------------------------- the stack


def test_layers_of_different_sizes_are_layers_one_by_one():
    twin = Twin(H=[3, 5, 2], T=5, lengths=[5, 3])
    x = twin.x
    for k in range(3):
        weights = {n.replace(f"_l{k}", "_l0"): a for n, a in twin.weights.items() if n.endswith(f"_l{k}")}
        x, state, _ = reference.forward(
            weights, x, tuple(twin.state[s][k][None] for s in "hc"), lengths=[5, 3]
        )
        for name, last in zip((0, 1), state):
            np.testing.assert_array_equal(twin.forward()[1][name][k], last[0])
    np.testing.assert_array_equal(twin.forward()[0], x)


@pytest.mark.parametrize("cell", ["gru", "clockwork", "lstm_1997", "depth_gated"])
def test_a_reset_splits_a_sequence_into_episodes(cell):
    twin, reset = Twin(cell, T=5, L=2, bidirectional=True, start=False), np.zeros((5, 2), bool)
    reset[2] = True
    whole = twin.forward(reset=reset)[0]
    apart = [twin.forward(x=part)[0] for part in (twin.x[:2], twin.x[2:])]
    np.testing.assert_allclose(whole, np.concatenate(apart), rtol=0, atol=1e-15)
    assert difference(whole, twin.forward()[0]) > 1e-3


@pytest.mark.parametrize("cell", FAMILY)
@pytest.mark.parametrize(("T", "B"), [(0, 2), (3, 0), (0, 0)])
def test_no_steps_and_no_rows(cell, T, B):
    twin = Twin(cell, T=T, B=B)
    y, state, cache = twin.forward()
    assert y.shape == (T, B, 4)
    for last, first in zip(state, twin.state.values()):
        np.testing.assert_array_equal(last, first)
    for name, gradient in twin.gradients().items():
        expected = {f"{name}0": d for name, d in zip(twin.v.states, twin.dstate)}.get(name, np.zeros_like(gradient))
        np.testing.assert_array_equal(gradient, expected)
    assert reference.trace(cache).h[0].shape == (T, B, 4)


@pytest.mark.skipif(
    np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps, reason="long double is double here"
)
@pytest.mark.parametrize("cell", FAMILY)
def test_extended_precision_agrees_with_double(cell):
    options = {"layer_norm": "ba", "peephole": "ifo"} if cell == "lstm" else {}
    twin = Twin(cell, L=2, masks=("mask", "zone"), **options)
    wide, narrow = twin.forward(dtype=np.longdouble), twin.forward()
    for a, b in ((narrow[0], wide[0]), *zip(narrow[1], wide[1])):
        assert b.dtype == np.longdouble and difference(a, b) < 1e-13
    assert difference(narrow[0], wide[0]) > 0  # or both were computed in double
    grads = reference.backward(wide[2], twin.dy, twin.dstate)[2]
    for name, gradient in grads.items():
        assert gradient.dtype == np.longdouble
        assert 0 < difference(twin.gradients()[name], gradient) < 1e-13, name


@pytest.mark.parametrize(
    ("cell", "state", "words"),
    [
        ("gru", (np.zeros((1, 2, 4)),) * 2, "the state must be h0; got 2 arrays"),
        ("clockwork", (np.zeros((1, 2, 4)),), "the state must be h0, t0; got 1 arrays"),
        ("lstm_1997", (None, None, np.zeros((1, 2, 4))), r"gates0 has shape \(1, 2, 4\), expected \(1, 2, 8\)"),
    ],
)
def test_states_that_do_not_fit_are_refused(cell, state, words):
    with pytest.raises(ValueError, match=words):
        Twin(cell).forward(state=state)
    with pytest.raises(ValueError, match="h0 must be 2 arrays, got 1"):
        Twin("rnn", H=[2, 3]).forward(state=([None],))
