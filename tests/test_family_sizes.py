"""Layers of different sizes, hidden_size=[...]: as the twins have them, forward, backward, in pieces and on disk."""

import copy
import json
import pickle

import numpy as np
import pytest
from family import agree, flat, gradients_agree, near, problem, rows_of, states_of
from grids import DTYPES, Case, openmp, same

import fastlstm as fl
from fastlstm import _core

NAMES = (
    "lstm", "lstm, projection", "Greff's V", "all clips", "norm ba, coupled", "norm gates, peepholes",
    "gate recurrence", "gru", "gru, reset before", "rnn", "clockwork 1 2 3", "1997, blocks of 2", "1997",
)
CASES = {
    "two": Case(T=5, B=3, I=6, H=(17, 6)),
    "three, both directions": Case(T=6, B=4, I=7, H=(6, 33, 12), bidirectional=True, lengths="ragged", reset=True),
    "no state, no bias": Case(T=5, B=2, I=6, H=(12, 18), state=False, bias=False),
    "one row": Case(T=7, B=1, I=20, H=(33, 6)),
    "one step": Case(T=1, B=3, I=6, H=(6, 12)),
    "no steps": Case(T=0, B=3, H=(6, 12)),
    "no rows": Case(T=3, B=0, H=(6, 12), bidirectional=True),
}
ONE_WAY = Case(T=9, B=3, I=6, H=(18, 6, 30))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_everything_is_the_twins(isa, name, dtype):
    for what, case in CASES.items():
        p = problem(name, case, dtype)
        layer = p.layer()
        y, state, trace, cache = layer.forward(p.x, trace=True, cache=True, **p.given)
        agree(p, y, state)
        for field, ours, theirs in zip(p.v.traced, trace, p.answer.trace, strict=True):
            for one, other in zip(ours, theirs, strict=True):
                near(one, other, p.bound, f"{what}: trace of {field}")
        same(layer(p.x, **p.given), (y, state))
        gradients_agree(p, flat(p.v, layer.backward(p.dy, cache, p.dstate)))


@pytest.mark.parametrize("name", NAMES)
def test_states_are_lists_of_arrays(name):
    p = problem(name, CASES["three, both directions"], "float32")
    _, state = p.layer()(p.x, **p.given)
    for what, ours in zip(p.v.states, states_of(p.v, state), strict=True):
        assert isinstance(ours, list) and len(ours) == 6
        widths = [p.v.widths(size, p.proj)[what] for size in p.sizes for _ in range(2)]
        assert [one.shape for one in ours] == [(4, width) for width in widths]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [
    "lstm", "lstm, projection", "gru", "rnn", "norm ba, coupled", "clockwork 1 2 3", "1997",
])
def test_dropout_between_them_and_masks_inside_are_the_twins(isa, name, dtype):
    p = problem(name, CASES["three, both directions"], dtype)
    layer = p.layer(dropout=0.5, variational_x=0.25, weight_drop=0.125)
    masks = layer.draw_masks(p.case.T, p.case.B)
    assert [m.shape for m in masks["dropout"]] == [(6, 4, 2 * (p.proj or size)) for size in p.sizes[:-1]]
    assert {int(np.max(m)) for m in masks["dropout"]} == {2}
    answer = p.twin({key: m for key, m in masks.items() if key != "dropout"}, masks["dropout"])
    y, state, cache = layer.forward(p.x, cache=True, masks=masks, **p.given)
    agree(p, y, state, answer)
    gradients_agree(p, flat(p.v, layer.backward(p.dy, cache, p.dstate)), answer.gradients)
    drawn = layer.forward(p.x, cache=True, **p.given)
    assert (drawn[0] != y).any()
    same(layer.forward(p.x, cache=True, masks=drawn[2].masks, **p.given)[:2], drawn[:2])
    same(layer(p.x, **p.given), p.layer()(p.x, **p.given))
    same(layer.eval().forward(p.x, cache=True, **p.given)[:2], p.layer()(p.x, **p.given))


# ---- to the bit -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_streams_and_several_calls_give_the_bits_of_one(isa, name, dtype):
    p = problem(name, ONE_WAY, dtype)
    layer = p.layer()
    y, last = layer(p.x, p.state)
    stream = layer.stream(3)
    assert not any(one.any() for state in states_of(p.v, stream.state) for one in state)
    stream.state = p.state
    same(np.array([stream.step(x) for x in p.x[:4]]), y[:4])
    out = np.empty_like(y[4])
    assert stream.step(p.x[4], out=out) is out
    same(out, y[4])
    same(stream.process(p.x[5:]), y[5:])
    same(stream.state, last)
    stream.reset(np.array([True, False, False]))
    assert not any(one[0].any() for state in states_of(p.v, stream.state) for one in state)
    same(rows_of(stream.state, slice(1, 3)), rows_of(last, slice(1, 3)))
    stream.state = None
    same(stream.process(p.x), layer(p.x)[0])
    early, between = layer(p.x[:4], p.state)
    late, state = layer(p.x[4:], between)
    same(np.concatenate([early, late]), y)
    same(state, last)


@pytest.mark.parametrize("name", NAMES)
def test_rows_and_instruction_sets_give_the_same_bits(name):
    p, results = problem(name, CASES["three, both directions"], "float32"), []
    for isa in _core.available_isas():
        _core.force_isa(isa)
        try:
            layer = p.layer()
            results.append(layer(p.x, **p.given))
            for b in range(p.case.B):
                row = slice(b, b + 1)
                alone = layer(p.x[:, row], rows_of(p.state, row), lengths=p.lengths[row], reset=p.reset[:, row])
                same(alone, (results[-1][0][:, row], rows_of(results[-1][1], row)))
        finally:
            _core.force_isa(None)
    for result in results[1:]:
        same(result, results[0])


@openmp
@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_threads_gives_the_same_bits(name):
    case = Case(T=5, B=33, I=40, H=(66, 96), lengths="ragged", reset=True)
    p = problem(name, case, "float32")
    one, gradients = p.layer(num_threads=1), None
    for threads in (2, 3):
        several = p.layer(num_threads=threads)
        same(several(p.x, **p.given), one(p.x, **p.given))
        gradients = gradients or p.gradients(one)
        ours = p.gradients(several)
        for key, value in gradients.items():
            same(ours[key], value)


# ---- names, files, refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_saved_loaded_copied_and_described(name, tmp_path):
    p = problem(name, ONE_WAY, "float32")
    layer = p.layer()
    assert {key: w.shape for key, w in layer.state_dict().items()} == {key: w.shape for key, w in p.weights.items()}
    assert list(layer.config()["hidden_size"]) == p.sizes == list(layer.hidden_size)
    assert layer.num_layers == 3
    layer.save(tmp_path / "model")
    expected = layer(p.x, p.state)
    others = [fl.load(tmp_path / "model"), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    bare = type(layer).from_config(json.loads(json.dumps(layer.config())))
    bare.load_state_dict(p.weights)
    for other in (*others, bare):
        assert other.config() == layer.config()
        same(other(p.x, p.state), expected)
    assert eval(repr(layer), vars(fl) | {"nan": np.nan}).config() == layer.config()


@pytest.mark.parametrize("sizes", [[12], [12, 12]])
def test_equal_sizes_are_what_one_number_says(sizes):
    one, other = fl.LSTM(6, 12, len(sizes), rng=3), fl.LSTM(6, sizes, rng=3)
    other.load_state_dict(one.state_dict())
    x = np.random.default_rng(0).normal(size=(5, 3, 6)).astype(np.float32)
    (y, state), (z, last) = one(x), other(x)
    same(z, y)
    for ours, theirs in zip(last, state, strict=True):
        same(np.asarray(ours), theirs)


@pytest.mark.parametrize("build, error, words", [
    (lambda: fl.LSTM(6, []), ValueError, "num_layers must be the length of hidden_size, 0"),
    (lambda: fl.LSTM(6, [4, 5], 3), ValueError, "num_layers must be the length of hidden_size, 2"),
    (lambda: fl.LSTM(6, [4, 0]), ValueError, "hidden_size must be at least 1, got 0"),
    (lambda: fl.LSTM(6, [4, 2.5]), TypeError, "hidden_size must be an integer, got float"),
    (lambda: fl.LSTM(6, [4, 5], proj_size=4), ValueError, "proj_size must be smaller than hidden_size 4, got 4"),
    (lambda: fl.DepthGatedLSTM(6, [4, 5]), ValueError, "hidden_size must be the same in all layers"),
    (lambda: fl.ClockworkRNN(6, [4, 5], periods=2), ValueError, "hidden_size must be a multiple of the number of peri"),
    (lambda: fl.LSTM1997(6, [4, 5], block_size=2), ValueError, "hidden_size must be a multiple of block_size, 2"),
])
def test_sizes_that_make_no_sense_are_refused(build, error, words):
    with pytest.raises(error, match=words):
        build()


def test_states_that_do_not_fit_are_refused_by_name():
    layer, x = fl.LSTM(6, [4, 5]), np.zeros((3, 2, 6), np.float32)
    h, c = ([np.zeros((2, width)) for width in (4, 5)] for _ in "hc")
    y = layer(x, (h, c))[0]
    same(layer(x, (None, c))[0], y)
    for bad, words in (((h[:1], c), "h0"), ((h, c[::-1]), "c0"), ((np.zeros((2, 2, 4)), c), "h0")):
        with pytest.raises((TypeError, ValueError), match=words):
            layer(x, bad)
