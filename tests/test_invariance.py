"""The same bits whatever stands beside, before or after a row, whoever computes it, and however it is cut up."""

import itertools

import numpy as np
import pytest
from grids import DTYPES, FEATURES, ISAS, SPLITS, STACK, Case, assert_split, flat, present, problem, same
from hypothesis import given, settings
from hypothesis import strategies as st

import fastlstm as fl
from fastlstm import _core

ONE_WAY = {name: c for name, c in FEATURES.items() if not c.bidirectional and c.T > 1}
HARD = STACK._replace(T=9, lengths="ragged", reset=True)


def part(p, steps=slice(None), rows=slice(None)):
    """x and keywords of some steps of some rows."""
    return p.x[steps, rows], present(
        state=p.state and tuple(s[:, rows] for s in p.state),
        lengths=None if p.lengths is None else p.lengths[rows],
        reset=None if p.reset is None else p.reset[steps, rows],
    )


# --------------------------------------------------------------------------------------------- batch


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FEATURES)
def test_a_row_does_not_depend_on_the_rows_beside_it(isa, name, dtype):
    p = problem(FEATURES[name], dtype)
    layer = p.layer()
    y, state = layer(p.x, **p.given)
    for b in range(p.case.B):
        x, given = part(p, rows=slice(b, b + 1))
        same(layer(x, **given), (y[:, b : b + 1], tuple(s[:, b : b + 1] for s in state)))
    turned, given = part(p, rows=slice(None, None, -1))
    same(layer(turned, **given), (y[:, ::-1], tuple(s[:, ::-1] for s in state)))


@pytest.mark.parametrize("rows", range(1, 20))
def test_every_number_of_rows_gives_the_same_rows(isa, rows):
    p = problem(Case(T=3, B=20, I=17, H=35, proj=18), "float32")
    layer = p.layer()
    y, state = layer(p.x, p.state)
    x, given = part(p, rows=slice(rows))
    same(layer(x, **given), (y[:, :rows], tuple(s[:, :rows] for s in state)))


def test_padding_may_hold_anything():
    p = problem(HARD, "float32")
    layer = p.layer()
    expected = layer(p.x, **p.given)
    for rubbish in (np.nan, np.inf, -np.inf, 3e38):
        x = p.x.copy()
        for b, n in enumerate(p.lengths):
            x[n:, b] = rubbish
        reset = p.reset | (np.arange(p.case.T)[:, None] >= p.lengths)
        same(layer(x, p.state, lengths=p.lengths, reset=reset), expected)
        same(layer.forward(x, cache=True, **p.given)[:2], expected)


def test_a_ragged_row_is_that_row_cut_to_its_length():
    p = problem(HARD, "float32")
    layer = p.layer()
    y, state = layer(p.x, **p.given)
    for b, n in enumerate(p.lengths):
        x, given = part(p, slice(0, n), slice(b, b + 1))
        same(layer(x, **given | {"lengths": None}), (y[:n, b : b + 1], tuple(s[:, b : b + 1] for s in state)))
        assert not y[n:, b].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["x", "h0", "c0"])
def test_what_is_not_finite_stays_in_its_row(where, bad):
    p = problem(HARD._replace(bidirectional=False, lengths=None, reset=False), "float32")
    layer = p.layer()
    expected, state = layer(p.x, **p.given)
    x, (h0, c0) = p.x.copy(), (s.copy() for s in p.state)
    {"x": x[2, 4], "h0": h0[0, 4], "c0": c0[0, 4]}[where][:] = bad
    y, new = layer(x, (h0, c0))
    rows = [b for b in range(p.case.B) if b != 4]
    same(y[:, rows], expected[:, rows])
    same([s[:, rows] for s in new], [s[:, rows] for s in state])
    assert not np.isfinite(y[2:, 4]).all() or bad == np.inf  # infinity may saturate a gate and end there
    if where == "x":
        same(y[:2], expected[:2])
    if np.isnan(bad):
        assert np.isnan(y[-1, 4]).all()


# ---------------------------------------------------------------------------------------------- time


@pytest.mark.parametrize("name", ONE_WAY)
def test_a_prefix_does_not_depend_on_what_follows(name):
    p = problem(ONE_WAY[name]._replace(lengths=None), "float32")
    layer = p.layer()
    y = layer(p.x, **p.given)[0]
    for k in range(p.case.T):
        x, given = part(p, slice(0, k))
        same(layer(x, **given)[0], y[:k])


@pytest.mark.parametrize("rows, inputs", [(1, 20), (2, 20), (5, 20), (6, 20), (1, 3)])
def test_long_sequences_cross_chunks_and_hoists_without_a_seam(rows, inputs):
    """Sizes at which a stack is cut into chunks, and input products are, or are not, computed ahead."""
    p = problem(Case(T=1100, B=rows, I=inputs, H=10, layers=2), "float32")
    layer = p.layer()
    plan = layer.plan(1100, rows)
    assert plan.chunk < 1100
    assert (plan.hoist > 0) == (rows < 6 and inputs >= 16)
    y, state = layer(p.x, p.state)
    for cut in (1, plan.hoist or 7, plan.chunk - 1, plan.chunk, plan.chunk + 1, 1099):
        a, between = layer(p.x[:cut], p.state)
        b, last = layer(p.x[cut:], between)
        same(np.concatenate([a, b]), y)
        same(last, state)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [None, "ragged"])
def test_episodes_joined_by_resets_are_episodes_apart(bidirectional, lengths):
    case = Case(T=13, B=3, I=18, layers=2, bidirectional=bidirectional, proj=4, lengths=lengths, state=False)
    p = problem(case, "float32")
    layer, ends = p.layer(), [0, 1, 5, 6, 13]
    reset = np.zeros((13, 3), bool)
    reset[ends[:-1]] = True
    y = layer(p.x, lengths=p.lengths, reset=reset)[0]
    for first, end in itertools.pairwise(ends):
        rest = None if p.lengths is None else np.clip(p.lengths - first, 0, end - first)
        same(layer(p.x[first:end], lengths=rest)[0], y[first:end])


# --------------------------------------------------------------------------------------- threads, sets


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SPLITS)
def test_any_number_of_threads_gives_the_same_bits(name, dtype, favour):
    threads, case = SPLITS[name]
    favour(name)
    p = problem(case, dtype)
    one = p.layer(num_threads=1)
    assert_split(one, "none", 1, case.T, case.B)
    expected = one(p.x, **p.given)
    for n in threads:
        layer = p.layer(num_threads=n)
        assert_split(layer, name.split(",")[0], n, case.T, case.B)
        for _ in range(20):  # a race does not show every time
            same(layer(p.x, **p.given), expected)


@pytest.mark.parametrize("name", SPLITS)
def test_gradients_are_the_same_for_any_number_of_threads_and_every_time(name, favour):
    threads, case = SPLITS[name]
    favour(name)
    p = problem(case, "float32")
    results = []
    for n in (1, *threads):
        layer = p.layer(num_threads=n)
        layer.dropout, layer._dropout_factors = 0.3, lambda steps, batch: p.masks
        found = layer._packed().plan(case.T, case.B, backward=True, threads=n)
        assert found["threads"] == n
        for _ in range(5):
            y, state, cache = layer.forward(p.x, cache=True, **p.given)
            results.append([y, *state, *flat(layer.backward(p.dy, cache, p.dstate)).values()])
    for result in results[1:]:
        same(result, results[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FEATURES)
def test_all_instruction_sets_give_the_same_bits(name, dtype):
    p = problem(FEATURES[name], dtype)
    results = {}
    for isa in (isa for isa in ISAS if isa in _core.available_isas()):
        _core.force_isa(isa)
        try:
            layer = p.layer()
            y, state, trace, cache = layer.forward(p.x, trace=True, cache=True, **p.given)
            assert layer._packed().isa == isa
        finally:
            _core.force_isa(None)
        traced = [a for field in trace[:5] for a in field]
        results[isa] = [y, *state, *traced]
    for result in results.values():
        same(result, results["scalar"])


# --------------------------------------------------------------------------------------------- streams


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    st.sampled_from([(1, 1, 1), (20, 16, 1), (33, 17, 5), (3, 40, 7)]), st.integers(1, 3), st.booleans(),
    st.sampled_from(DTYPES), st.lists(st.integers(0, 9), min_size=1, max_size=6),
)
def test_steps_and_blocks_of_any_length_give_what_one_call_gives(sizes, layers, projected, dtype, blocks):
    I, H, B = sizes
    p = problem(Case(sum(blocks), B, I, H, layers, proj=(H + 1) // 2 if projected and H > 1 else 0), dtype)
    layer = p.layer()
    y, state = layer(p.x, p.state)
    steps, stream = layer.stream(B), layer.stream(B)
    steps.state = stream.state = p.state
    same(np.array([steps.step(x) for x in p.x], dtype).reshape(y.shape), y)
    at = 0
    for n in blocks:
        same(stream.process(p.x[at : at + n]), y[at : at + n])
        at += n
    same(steps.state, state)
    same(stream.state, state)


def test_a_step_wide_enough_for_threads_gives_the_same_bits():
    p = problem(Case(T=4, B=6, I=256, H=256, layers=2, proj=128), "float32")
    layer = p.layer(num_threads=2)
    assert layer.plan(1, 6).threads == 2
    y, state = p.layer(num_threads=1)(p.x, p.state)
    stream = layer.stream(6)
    stream.state = p.state
    same(np.array([stream.step(x) for x in p.x]), y)
    same(stream.state, state)


# ------------------------------------------------------------------------------- Linear and Sequential


@pytest.mark.parametrize("activation", [None, "relu", "tanh", "sigmoid", "softmax"])
def test_a_linear_layer_has_the_same_invariances(activation):
    x = np.random.default_rng(3).normal(size=(67, 130)).astype(np.float32)
    results = []
    for isa in _core.available_isas():
        for threads in (1, 2, 3):
            _core.force_isa(isa)
            layer = fl.Linear(130, 270, activation=activation, rng=1, num_threads=threads)
            results.append(layer(x))
            _core.force_isa(None)
            for rows in (1, 2, 5, 66):
                same(layer(x[:rows]), results[-1][:rows])
    for y in results:
        same(y, results[0])


def test_a_whole_model_has_the_same_invariances():
    p = problem(Case(T=12, B=9, I=20, lengths="ragged", reset=True), "float32")

    def build():
        return fl.Sequential(fl.Linear(20, 17, activation="tanh", rng=1), fl.LSTM(17, 33, 2, proj_size=7, rng=2),
                             fl.Linear(7, 5, rng=3))

    model = build()
    given = {"lengths": p.lengths, "reset": p.reset}
    y, state = model(p.x, **given)
    for b in range(9):
        alone = model(p.x[:, b : b + 1], lengths=p.lengths[b : b + 1], reset=p.reset[:, b : b + 1])
        same(alone, (y[:, b : b + 1], tuple(s[:, b : b + 1] for s in state)))
    for isa in _core.available_isas():
        _core.force_isa(isa)
        other = build()
        other.set_num_threads(3)
        same(other(p.x, **given), (y, state))
        _core.force_isa(None)
    y, state = model(p.x)
    stream = model.stream(9)
    same(np.concatenate([[stream.step(x) for x in p.x[:5]], stream.process(p.x[5:])]), y)
    same(stream.state, state)
