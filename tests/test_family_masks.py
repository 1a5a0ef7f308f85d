"""Regularisers: who has which, when they act, which masks they draw, and that the twins agree under the same ones."""

import copy
import pickle

import numpy as np
import pytest
from family import CLASSES, HARD, agree, flat, gradients_agree, problem
from grids import DTYPES, Case, openmp, same

import fastlstm as fl
from fastlstm import _core, params
from fastlstm.variants import FAMILY, variant

KINDS = {  # the rate's name in a constructor -> the kind of its masks
    "variational_x": "mask_x", "variational_h": "mask_h", "recurrent_dropout": "mask_g",
    "weight_drop": "mask_weight_hh", "zoneout_h": "zoneout_h", "zoneout_c": "zoneout_c",
}
RATES = dict(zip(KINDS, (0.25, 0.375, 0.5, 0.125, 0.25, 0.375), strict=True))  # exact in single precision
MASKED = (  # of family.VARIANTS
    "lstm", "lstm, projection", "Greff's V", "Greff's CIFG", "without ifo", "all clips", "norm ba, peepholes",
    "norm gates, coupled", "gate recurrence, projection", "gru", "gru, reset before", "rnn", "depth gated, peepholes",
    "clockwork 1 2 3", "1997", "1997, blocks of 3, full",
)
CASE = HARD._replace(T=6, B=4, H=12)


def rates_of(p, only=None):
    return {rate: RATES[rate] for rate, kind in KINDS.items() if kind in p.v.masks and only in (None, rate)}


def shapes_of(p, case=None, rates=None):
    """Name -> shape of the masks of these rates, by params."""
    case = case or p.case
    kinds = [KINDS[rate] for rate in (rates or rates_of(p))]
    found = params.mask_shapes(p.v, case.T, case.B, **p.call_sizes)
    return {name: shape for name, shape in found.items() if name.rpartition("_l")[0] in kinds}


def split(masks):
    """Those inside the layers, those between them (or None)."""
    return {name: m for name, m in masks.items() if name != "dropout"}, masks.get("dropout")


def same_masks(a, b):
    assert set(a) == set(b)
    for name in a:
        same(a[name], b[name])


# ---- what is drawn --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MASKED)
def test_masks_have_the_names_shapes_and_values_that_they_should(name, dtype):
    p = problem(name, CASE, dtype)
    inside, between = split(p.layer(**rates_of(p), dropout=0.5).draw_masks(CASE.T, CASE.B))
    assert {key: m.shape for key, m in inside.items()} == shapes_of(p)
    for key, mask in inside.items():
        rate = next(RATES[rate] for rate, kind in KINDS.items() if key.startswith(f"{kind}_l"))
        values = {0, 1} if key.startswith("zoneout") else {0, p.dtype.type(1 / (1 - rate))}
        assert mask.dtype == p.dtype or key.startswith("zoneout")
        assert set(np.unique(mask)) <= values
    assert np.shape(between) == (1, CASE.T, CASE.B, 2 * (p.proj or p.sizes[0]))
    assert set(np.unique(between)) == {0, 2}
    assert p.layer().draw_masks(CASE.T, CASE.B) == {}


@pytest.mark.parametrize("rate", KINDS)
def test_masks_are_drawn_at_the_stated_rate(rate):
    layer = fl.LSTM(70, 80, rng=3, **{rate: 0.25})
    mask = layer.draw_masks(50, 60)[f"{KINDS[rate]}_l0"]
    struck = mask == (1 if rate.startswith("zoneout") else 0)
    assert abs(struck.mean() - 0.25) < 0.03
    assert 0 < struck[0].mean() < 1 and 0 < struck[:, 0].mean() < 1  # neither by step nor by row


@pytest.mark.parametrize("name", MASKED)
def test_the_same_seed_draws_the_same_masks_but_not_twice(name):
    p = problem(name, CASE, "float32")
    rates = rates_of(p)
    one, other = (p.layer(**rates, dropout=0.5) for _ in range(2))
    first = one.draw_masks(6, 4)
    same_masks(first, other.draw_masks(6, 4))
    second = one.draw_masks(6, 4)
    assert any((second[key] != first[key]).any() for key in first)
    for twin in (copy.deepcopy(other), pickle.loads(pickle.dumps(other))):  # copies go on where it is
        same_masks(twin.draw_masks(6, 4), second)
        assert twin.config() == other.config()
    apart = [p.layer(**rates, rng=seed).draw_masks(6, 4) for seed in (1, 2)]
    assert any((apart[0][key] != apart[1][key]).any() for key in apart[0])


@pytest.mark.parametrize("name", MASKED)
def test_masks_used_can_be_used_again(name):
    p = problem(name, CASE, "float32")
    layer = p.layer(**rates_of(p), dropout=0.5)
    y, state, cache = layer.forward(p.x, cache=True, **p.given)
    assert set(cache.masks) == {*shapes_of(p), "dropout"}
    again = p.layer(**rates_of(p), dropout=0.5, rng=7)
    other, last, replayed = again.forward(p.x, cache=True, masks=cache.masks, **p.given)
    same((other, last), (y, state))
    same_masks(replayed.masks, cache.masks)
    gradients = [flat(p.v, layer.backward(p.dy, kept, p.dstate)) for kept in (cache, replayed)]
    same([*gradients[1].values()], [*gradients[0].values()])
    assert (layer.forward(p.x, cache=True, **p.given)[0] != y).any()  # drawn anew


# ---- what they do ---------------------------------------------------------------------------------------------------


def check(p, layer, masks):
    inside, between = split(masks)
    answer = p.twin(inside, between)
    y, state, cache = layer.forward(p.x, cache=True, masks=masks, **p.given)
    agree(p, y, state, answer)
    gradients_agree(p, flat(p.v, layer.backward(p.dy, cache, p.dstate)), answer.gradients)
    return answer


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MASKED)
def test_under_the_same_masks_the_twins_agree(isa, name, dtype):
    for case in (CASE, Case(T=5, B=1, I=17, H=33), Case(T=1, B=3, H=12), Case(T=0, H=12), Case(B=0, H=12)):
        p = problem(name, case, dtype)
        layer = p.layer(**rates_of(p), dropout=0.5)
        check(p, layer, layer.draw_masks(case.T, case.B))


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_by_way_of_blas_the_twins_agree_too(name):
    _core.force_gemm("blas")
    try:
        p = problem(name, CASE, "float64")
        layer = p.layer(**rates_of(p))
        assert layer._packed_for_training().plan(CASE.T, CASE.B)["blas"]
        check(p, layer, layer.draw_masks(CASE.T, CASE.B))
    finally:
        _core.force_gemm(None)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rate", KINDS)
@pytest.mark.parametrize("cell", FAMILY)
def test_each_mask_alone_does_something_and_the_twin_agrees(cell, rate, dtype):
    name = {"depth_gated": "depth gated", "lstm_1997": "1997, full"}.get(cell, cell)
    p = problem(name, CASE, dtype)
    if KINDS[rate] not in p.v.masks:
        with pytest.raises((TypeError, ValueError), match=rate):
            p.layer(**{rate: 0.5})
        return
    layer = p.layer(**rates_of(p, rate))
    answer = check(p, layer, layer.draw_masks(CASE.T, CASE.B))
    assert np.abs(answer.y - p.answer.y).max() > 1e-3
    y, _, cache = layer.forward(p.x, cache=True, **p.given)
    assert set(cache.masks) == set(shapes_of(p, rates=[rate]))
    agree(p, y, layer.forward(p.x, cache=True, masks=cache.masks, **p.given)[1], p.twin(cache.masks))


@openmp
@pytest.mark.parametrize("name", MASKED)
def test_masks_do_the_same_on_any_number_of_threads(name):
    case = Case(T=5, B=33, I=40, H=66, layers=2)
    p = problem(name, case, "float32")
    one, two = (p.layer(**rates_of(p), dropout=0.5, num_threads=n) for n in (1, 2))
    if two.plan(case.T, case.B).threads != 2:
        pytest.skip("the plan gives this one thread")
    masks = one.draw_masks(case.T, case.B)
    runs = [layer.forward(p.x, cache=True, masks=masks, **p.given) for layer in (one, two)]
    same(runs[0][:2], runs[1][:2])
    gradients = [flat(p.v, layer.backward(p.dy, run[2], p.dstate)) for layer, run in zip((one, two), runs, strict=True)]
    same([*gradients[0].values()], [*gradients[1].values()])


# ---- when they are off ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MASKED)
def test_without_training_or_a_cache_all_are_off_but_zoneout(isa, name, dtype):
    p = problem(name, CASE, dtype)
    rates = {rate: value for rate, value in rates_of(p).items() if not rate.startswith("zoneout")}
    plain = p.layer()(p.x, **p.given)
    layer = p.layer(**rates, dropout=0.5)
    assert (layer.forward(p.x, cache=True, **p.given)[0] != plain[0]).any()
    same(layer(p.x, **p.given), plain)
    same(layer.forward(p.x, trace=True, **p.given)[:2], plain)
    y, state, cache = layer.eval().forward(p.x, cache=True, **p.given)
    same((y, state), plain)
    assert not cache.masks
    gradients_agree(p, flat(p.v, layer.backward(p.dy, cache, p.dstate)))
    assert (layer.train().forward(p.x, cache=True, **p.given)[0] != plain[0]).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [n for n in MASKED if not n.startswith(("clockwork", "1997"))])
def test_at_inference_zoneout_takes_its_expectation(isa, name, dtype):
    """k is the rate itself, for every unit at every step."""
    p = problem(name, CASE, dtype)
    rates = {rate: value for rate, value in rates_of(p).items() if rate.startswith("zoneout")}
    expectation = {
        key: np.full(shape, RATES[key.rpartition("_l")[0]]) for key, shape in shapes_of(p, rates=rates).items()
    }
    answer, layer = p.twin(expectation), p.layer(**rates)
    assert np.abs(answer.y - p.answer.y).max() > 1e-3
    found = layer(p.x, **p.given)
    agree(p, *found, answer)
    same(layer.forward(p.x, trace=True, **p.given)[:2], found)
    y, state, cache = layer.eval().forward(p.x, cache=True, **p.given)
    agree(p, y, state, answer)
    gradients_agree(p, flat(p.v, layer.backward(p.dy, cache, p.dstate)), answer.gradients)
    same(layer(p.x, **p.given), found)

    one_way = problem(name, CASE._replace(bidirectional=False, lengths=None, reset=False), dtype)
    layer = one_way.layer(**rates)
    y, last = layer(one_way.x, one_way.state)
    stream = layer.stream(CASE.B)
    stream.state = one_way.state
    same(np.array([stream.step(x) for x in one_way.x[:3]]), y[:3])
    same(stream.process(one_way.x[3:]), y[3:])
    same(stream.state, last)


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", KINDS)
@pytest.mark.parametrize("bad", [1.0, -0.1, 2, float("nan"), "0.5", None, True])
def test_a_rate_lies_in_zero_to_one(rate, bad):
    with pytest.raises((TypeError, ValueError), match=rf"{rate} must be a number in \[0, 1\)"):
        fl.LSTM(3, 4, **{rate: bad})


@pytest.mark.parametrize("cell", FAMILY)
def test_a_rate_of_zero_is_no_regulariser(cell):
    p = problem({"depth_gated": "depth gated", "lstm_1997": "1997"}.get(cell, cell), CASE, "float32")
    layer = p.layer(**dict.fromkeys(rates_of(p), 0.0))
    y, state, cache = layer.forward(p.x, cache=True, **p.given)
    same((y, state), p.layer()(p.x, **p.given))
    assert not cache.masks
    assert set(rates_of(p)) == {rate for rate, kind in KINDS.items() if kind in variant(cell).masks}
    assert cell in CLASSES


def test_masks_that_do_not_fit_are_refused_by_name():
    x = np.zeros((5, 3, 6), np.float32)
    layer = fl.LSTM(6, 9, 2, rng=0, dropout=0.5, **RATES)
    masks = layer.draw_masks(5, 3)
    for name in masks:
        with pytest.raises(ValueError, match=name):
            layer.forward(x, cache=True, masks={**masks, name: np.asarray(masks[name])[..., :-1]})
    with pytest.raises((TypeError, ValueError), match="mask_y_l0"):
        layer.forward(x, cache=True, masks={**masks, "mask_y_l0": np.ones((3, 6), np.float32)})
    with pytest.raises((TypeError, ValueError), match="zoneout_c_l0"):
        fl.GRU(6, 9, rng=0).forward(x, cache=True, masks={"zoneout_c_l0": np.ones((5, 3, 9), np.float32)})
    with pytest.raises((TypeError, ValueError), match="masks"):
        layer.forward(x, masks=masks)
    with pytest.raises((TypeError, ValueError), match="masks"):
        layer.forward(x, cache=True, masks=[*masks.values()])
    y = layer.forward(x, cache=True, masks=masks)[0]
    same(layer.forward(x, cache=True, masks={name: np.asarray(m).tolist() for name, m in masks.items()})[0], y)


@pytest.mark.parametrize("kept", ["l0", "l1_reverse"])
@pytest.mark.parametrize("name", MASKED)
def test_masks_may_be_those_of_one_layer_and_direction(name, kept):
    """What has no mask is not masked, and what comes back from it is not lost."""
    p = problem(name, CASE, "float64")
    layer = p.layer(**rates_of(p, "variational_x"))
    masks = {key: mask for key, mask in layer.draw_masks(CASE.T, CASE.B).items() if key.endswith(f"_{kept}")}
    assert masks
    check(p, layer, masks)
