"""Regularisers of the slow twins, as masks: dropout, weight drop, zoneout. And the cell of 1997."""

import numpy as np
import pytest
from differences import difference
from twins import Twin, same_run

from fastlstm import params
from fastlstm.variants import FAMILY, variant

OPTIONS = {"clockwork": {"periods": 2}, "lstm_1997": {"block_size": 2, "gradient": "full"}}


def masks_of(twin, fill, *kinds):
    """All masks of a twin of the given kinds, filled with one number."""
    shapes = params.mask_shapes(twin.v, *twin.x.shape, 4)
    return {name: np.full(shape, float(fill)) for name, shape in shapes.items() if name.startswith(kinds)}


@pytest.mark.parametrize("cell", FAMILY)
def test_masks_of_ones_and_zoneout_of_zeros_do_nothing(cell):
    twin = Twin(cell, **OPTIONS.get(cell, {}))
    masks = masks_of(twin, 1, "mask") | masks_of(twin, 0, "zoneout")
    assert {name.removesuffix("_l0") for name in masks} == set(twin.v.masks)
    same_run(twin.forward(), twin.forward(masks=masks), 1e-15)
    plain, masked = twin.gradients(), twin.gradients(masks=masks)
    for name, gradient in plain.items():
        assert difference(masked[name], gradient) < 1e-14, name


@pytest.mark.parametrize("cell", FAMILY)
def test_what_the_masks_multiply(cell):
    twin = Twin(cell, B=1, masks=("mask_x", "mask_h", "mask_weight_hh"), **OPTIONS.get(cell, {}))
    masks = {name.removesuffix("_l0"): mask for name, mask in twin.given["masks"].items()}
    hidden = twin.weights["weight_hh_l0"] * masks["mask_weight_hh"]
    hidden[:, :4] *= masks["mask_h"]  # one row: dropping elements of h is dropping columns
    weights = {**twin.weights, "weight_hh_l0": hidden}
    same_run(twin.forward(), twin.forward(masks=None, weights=weights, x=twin.x * masks["mask_x"]))
    assert difference(twin.forward()[0], twin.forward(masks=None)[0]) > 1e-2


@pytest.mark.parametrize("reset_after", [True, False])
def test_a_gru_drops_its_candidate_only(reset_after):
    twin = Twin("gru", T=5, masks=("mask_g",), reset_after=reset_after)
    t, mask = twin.trace(), twin.given["masks"]["mask_g_l0"]
    before = np.concatenate([twin.state["h"], t.h[:-1]])
    np.testing.assert_allclose(t.h, (1 - t.z) * mask * t.n + t.z * before, rtol=1e-14)


def test_recurrent_dropout_keeps_the_memory():
    twin = Twin(T=5, masks=("mask_g",))
    t, mask = twin.trace(), twin.given["masks"]["mask_g_l0"]
    before = np.concatenate([twin.state["c"], t.c[:-1]])
    np.testing.assert_allclose(t.c, t.f * before + t.i * mask * t.g, rtol=1e-14)
    np.testing.assert_allclose(t.h, t.o * np.tanh(t.c), rtol=1e-14)


def test_zoneout_holds_h_and_c_each_by_itself():
    twin = Twin(T=5, masks=("zoneout",))
    t, masks = twin.trace(), twin.given["masks"]
    before = {name: np.concatenate([twin.state[name], getattr(t, name)[:-1]]) for name in "hc"}
    cell = t.f * before["c"] + t.i * t.g
    new = {"c": cell, "h": t.o * np.tanh(cell)}  # h reads the cell as it was before zoneout
    for name in "hc":
        mask = masks[f"zoneout_{name}_l0"]
        assert 0 < mask.mean() < 1
        np.testing.assert_allclose(getattr(t, name), np.where(mask, before[name], new[name]), rtol=1e-14)


def test_zoneout_by_rates_is_the_expectation_over_its_masks():
    twin = Twin("gru", T=1, B=1, H=3)
    mean = 0
    for bits in np.ndindex(2, 2, 2):
        mask = np.array(bits, float).reshape(1, 1, 3)
        probability = np.prod(np.where(mask, 0.3, 0.7))
        mean = mean + probability * twin.forward(masks={"zoneout_h_l0": mask})[0]
    rates = twin.forward(masks={"zoneout_h_l0": np.full((1, 1, 3), 0.3)})[0]
    assert difference(rates, mean) < 1e-14


@pytest.mark.parametrize(
    ("cell", "name", "words"),
    [
        ("rnn", "mask_g_l0", "masks missing or unexpected: mask_g_l0"),
        ("gru", "zoneout_c_l0", "masks missing or unexpected: zoneout_c_l0"),
        ("lstm", "mask_h_l1", "masks missing or unexpected: mask_h_l1"),
        ("lstm", "mask_h_l0", r"mask_h_l0 has shape \(3,\), expected \(2, 4\)"),
    ],
)
def test_masks_that_do_not_fit_are_refused(cell, name, words):
    with pytest.raises(ValueError, match=words):
        Twin(cell).forward(masks={name: np.ones(3)})


# ------------------------------------------------------------------------------------------ the cell of 1997

# Weights of the networks of the paper: blocks, cells in each, inputs, outputs, biased hidden units, biased
# outputs -> the paper's count.
PAPER = [
    (4, 1, 7, 7, "gates", 0, 264),
    (3, 2, 7, 7, "gates", 0, 276),
    (2, 2, 2, 1, "all", 1, 93),
    (2, 2, 8, 4, "all", 4, 156),
    (3, 2, 8, 8, "all", 8, 308),
    (2, 1, 54, 2, None, 0, 364),
    (2, 1, 1004, 2, None, 0, 6064),
]


@pytest.mark.parametrize(("blocks", "cells", "inputs", "outputs", "biased", "biases", "count"), PAPER)
def test_weights_are_as_many_as_in_the_paper(blocks, cells, inputs, outputs, biased, biases, count):
    v = variant("lstm_1997", block_size=cells, biased=biased or "all")
    shapes = params.weight_shapes(v, inputs, blocks * cells, bias=biased is not None)
    found = sum(int(np.prod(shape)) for shape in shapes.values())
    assert found + outputs * blocks * cells + biases == count


def test_a_step_of_the_cell_of_1997():
    twin = Twin("lstm_1997", T=1, B=1, block_size=2)
    w = {name.removesuffix("_l0"): a for name, a in twin.weights.items()}
    h, c, gates = (state[0, 0] for state in twin.state.values())
    z = w["weight_ih"] @ twin.x[0, 0] + w["weight_hh"] @ np.concatenate([h, gates]) + w["bias_ih"]
    s = 1 / (1 + np.exp(-z))
    for cell in range(4):
        block = cell // 2
        c[cell] += s[4 + block] * (4 * s[cell] - 2)
        h[cell] = s[6 + block] * (2 / (1 + np.exp(-c[cell])) - 1)
    y, state, _ = Twin("lstm_1997", T=1, B=1, block_size=2).forward()
    assert difference(y[0, 0], h) < 1e-14 and difference(state[1][0, 0], c) < 1e-14
    np.testing.assert_allclose(state[2][0, 0], s[4:], rtol=1e-14)


def test_without_gates_fed_back_it_is_an_lstm_without_forget_gate():
    twin = Twin("lstm_1997", T=5, lengths=[5, 2])
    twin.weights["weight_hh_l0"][:, 4:] = 0
    order = [slice(4, 8), slice(0, 4), slice(8, 12)]  # i, g, o
    plain = {name: np.concatenate([w[part] for part in order]) for name, w in twin.weights.items()}
    plain["weight_hh_l0"] = plain["weight_hh_l0"][:, :4]
    v = variant("lstm", without="f", activations=twin.v.activations)
    state = tuple(twin.state[name] for name in "hc")
    same_run(twin.forward(), twin.forward(cell=v, weights=plain, state=state))


def test_truncated_is_full_where_nothing_is_fed_back():
    twin = Twin("lstm_1997", T=5, B=3, block_size=2, lengths=[5, 3, 0])
    full = variant("lstm_1997", block_size=2, gradient="full")
    fed_back, apart = twin.gradients(cell=full), twin.gradients()
    assert difference(apart["weight_hh_l0"], fed_back["weight_hh_l0"]) > 1e-3
    twin.weights["weight_hh_l0"][...] = 0
    fed_back, apart = twin.gradients(cell=full), twin.gradients()
    dh, dgates = apart.pop("h0"), apart.pop("gates0")
    for name, gradient in apart.items():
        assert difference(gradient, fed_back[name]) < 1e-14, name
    for value in (dh, dgates):  # only a row without steps hands them on
        assert not value[:, :2].any() and value[:, 2].any()


def test_truncated_is_full_with_what_is_fed_back_held_fixed():
    """The definition: what the gates and cells are fed counts as input, through which no error leaves."""
    twin = Twin("lstm_1997", T=5, block_size=2)
    run = twin.forward()[2].runs["l0"]
    fed = np.concatenate([run.states_in["h"], run.states_in["gates"]], axis=2)
    weights = dict(twin.weights)
    weights["weight_ih_l0"] = np.concatenate([weights["weight_ih_l0"], weights["weight_hh_l0"]], axis=1)
    weights["weight_hh_l0"] = np.zeros_like(weights["weight_hh_l0"])
    full = variant("lstm_1997", block_size=2, gradient="full")
    given = {"weights": weights, "x": np.concatenate([twin.x, fed], axis=2), "cell": full}
    same_run(twin.forward(), twin.forward(**given))
    ours, held = twin.gradients(), twin.gradients(**given)
    assert difference(ours["weight_ih_l0"], held["weight_ih_l0"][:, :2]) < 1e-13
    assert difference(ours["weight_hh_l0"], held["weight_ih_l0"][:, 2:]) < 1e-13
    assert difference(ours["bias_ih_l0"], held["bias_ih_l0"]) < 1e-13
    assert difference(ours["c0"], held["c0"]) < 1e-13
    assert difference(ours["x"], held["x"][:, :, :2]) < 1e-13
