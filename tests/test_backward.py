"""The gradients against the reference, against finite differences of the engine itself, and taken apart in time."""

import numpy as np
import pytest
from differences import numeric_gradient
from grids import DTYPES, FEATURES, SPLITS, STACK, Case, assert_split, distance, flat, problem, same

from fastlstm import _core

# docs/numerics.md: relative to the largest element of each gradient
LIMIT = {"float32": 2e-5, "float64": 1e-11}
WIDTHS = [(1, 1), (2, 7), (7, 8), (15, 16), (17, 33), (65, 100), (100, 2)]
DEEP = [name for name, case in FEATURES.items() if case.layers > 1]


@pytest.fixture(params=["panel", "blas"])
def gemm(request):
    """Everything packed in the test takes this way."""
    _core.force_gemm(request.param)
    yield request.param
    _core.force_gemm(None)


def gradients(p, layer=None, masks=False, **options):
    """Name -> array, by the engine."""
    layer = layer or p.layer()
    if masks:
        layer.dropout = 0.3
        layer._dropout_factors = lambda steps, batch: p.masks
    cache = layer.forward(p.x, cache=True, **p.given)[-1]
    return flat(layer.backward(p.dy, cache, p.dstate, **options))


def check(ours, theirs, dtype):
    assert list(ours) == list(theirs)
    for name, gradient in theirs.items():
        assert ours[name].dtype == dtype
        assert distance(ours[name], gradient) <= LIMIT[dtype], name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inputs, hidden", WIDTHS)
def test_all_widths_agree_with_the_reference(isa, inputs, hidden, dtype):
    for T, B in ((1, 1), (1, 5), (2, 2), (7, 9), (33, 17)):
        p = problem(Case(T, B, inputs, hidden), dtype)
        check(gradients(p), p.gradients(), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FEATURES)
def test_all_features_agree_with_the_reference(isa, name, dtype):
    p = problem(FEATURES[name], dtype)
    check(gradients(p), p.gradients(), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FEATURES)
def test_both_ways_of_large_products_agree_with_the_reference(gemm, name, dtype):
    p = problem(FEATURES[name], dtype)
    layer = p.layer()
    assert layer._packed().plan(p.case.T, p.case.B, backward=True)["blas"] == (gemm == "blas")
    check(gradients(p, layer), p.gradients(), dtype)
    y, state = layer(p.x, **p.given)
    assert distance(y, p.reference()[0]) <= LIMIT[dtype]
    for a, b in zip(state, p.reference()[1], strict=True):
        assert distance(a, b) <= LIMIT[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", DEEP)
def test_dropout_agrees_with_the_reference_under_the_same_masks(gemm, name, dtype):
    p = problem(FEATURES[name], dtype)
    check(gradients(p, masks=True), p.gradients(masks=True), dtype)
    layer = p.layer(num_threads=2)
    layer.dropout, layer._dropout_factors = 0.3, lambda steps, batch: p.masks
    y, state, _ = layer.forward(p.x, cache=True, **p.given)
    for a, b in zip((y, *state), (p.reference(masks=True)[0], *p.reference(masks=True)[1]), strict=True):
        assert distance(a, b) <= LIMIT[dtype]


@pytest.mark.parametrize("name", SPLITS)
def test_every_split_agrees_with_the_reference(gemm, name, favour):
    threads, case = SPLITS[name]
    favour(name)
    p = problem(case, "float32")
    expected = p.gradients(masks=True)
    for n in threads:
        layer = p.layer(num_threads=n)
        kind = name.split(",")[0]
        assert_split(layer, "blocks" if kind == "directions" else kind, n, case.T, case.B, backward=True)
        check(gradients(p, layer, masks=True), expected, "float32")


def test_dropout_draws_factors_of_the_stated_rate_and_only_in_training():
    p = problem(Case(T=33, B=17, H=64, layers=3), "float32")
    layer = p.layer()
    layer.dropout = 0.25
    factors = layer._dropout_factors(33, 17)
    assert factors.shape == (2, 33, 17, 64)
    assert set(np.unique(factors)) == {0, np.float32(1 / 0.75)}
    assert abs((factors == 0).mean() - 0.25) < 0.01
    plain = p.layer()(p.x)[0]
    assert not np.array_equal(layer.forward(p.x, cache=True)[0], plain)
    same(layer(p.x)[0], plain)
    same(layer.forward(p.x, trace=True)[0], plain)
    same(layer.eval().forward(p.x, cache=True)[0], plain)


def test_the_same_seed_draws_the_same_dropout():
    p = problem(Case(layers=2), "float32")
    runs = []
    for _ in range(2):
        layer = p.layer()
        layer.dropout = 0.5
        runs.append([layer.forward(p.x, cache=True)[0] for _ in range(2)])
    same(runs[0], runs[1])
    assert not np.array_equal(*runs[0])  # but not the same twice


# -------------------------------------------------------------------------------------- finite differences


@pytest.mark.parametrize("reset", [False, True])
def test_gradients_are_the_derivative_of_the_engines_own_forward(reset):
    case = Case(T=4, B=4, I=2, H=3, layers=2, bidirectional=True, proj=2, lengths="ragged", reset=reset)
    p = problem(case, "float64")
    layer = p.layer()
    arrays = {"x": p.x.copy(), "h0": p.state[0].copy(), "c0": p.state[1].copy(), **layer.state_dict()}
    layer.dropout, layer._dropout_factors = 0.3, lambda steps, batch: p.masks

    def loss():
        layer._update({name: a for name, a in arrays.items() if name not in ("x", "h0", "c0")})
        state = arrays["h0"], arrays["c0"]
        y, (hn, cn), _ = layer.forward(arrays["x"], state, lengths=p.lengths, reset=p.reset, cache=True)
        return (y * p.dy).sum() + (hn * p.dstate[0]).sum() + (cn * p.dstate[1]).sum()

    ours = gradients(p, layer)
    for name, array in arrays.items():
        numeric = numeric_gradient(loss, array)
        assert np.abs(numeric).max() > 1e-4, name
        assert distance(ours[name], numeric) < 1e-7, name


# ---------------------------------------------------------------------------------------------- the cache


@pytest.mark.parametrize("case", [Case(), STACK._replace(lengths="ragged", reset=True)])
def test_nothing_done_after_forward_changes_the_gradients(case):
    p = problem(case, "float32")
    expected, layer = gradients(p), p.layer()
    x, state = p.x.copy(), tuple(s.copy() for s in p.state)
    lengths, reset = (None if a is None else a.copy() for a in (p.lengths, p.reset))
    y, new, cache = layer.forward(x, state, lengths=lengths, reset=reset, cache=True)
    for array in (x, y, *state, *new, lengths, reset):
        if array is not None:
            array[...] = 1
    layer(p.x + 1)  # another call, which may use the same workspace
    other = layer.forward(p.x - 1, cache=True)[-1]
    layer._update({name: np.zeros_like(w) for name, w in layer.state_dict().items()})
    for _ in range(2):  # a cache may be used again
        same(list(flat(layer.backward(p.dy, cache, p.dstate)).values()), list(expected.values()))
    assert other.nbytes == cache.nbytes


@pytest.mark.parametrize("turn", [
    lambda a: np.asfortranarray(a),
    lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    lambda a: a[::-1].copy()[::-1],
    lambda a: a.tolist(),
    lambda a: a.astype(np.float64),
])
def test_any_form_of_dy_and_dstate_gives_the_same_bits(turn):
    p = problem(STACK, "float32")
    layer = p.layer()
    cache = layer.forward(p.x, cache=True, **p.given)[-1]
    ours = flat(layer.backward(turn(p.dy), cache, tuple(turn(d) for d in p.dstate)))
    same(list(ours.values()), list(gradients(p).values()))


def test_batch_first_and_unbatched_only_turn_the_arrays():
    p = problem(STACK._replace(B=1), "float32")
    expected = gradients(p)
    turned = p.layer(batch_first=True)
    cache = turned.forward(p.x.swapaxes(0, 1), p.state, cache=True)[-1]
    ours = flat(turned.backward(p.dy.swapaxes(0, 1), cache, p.dstate))
    same(ours.pop("x"), expected["x"].swapaxes(0, 1))
    same([*ours.values()], [a for name, a in expected.items() if name != "x"])
    cache = turned.forward(p.x[:, 0], tuple(s[:, 0] for s in p.state), cache=True)[-1]
    ours = flat(turned.backward(p.dy[:, 0], cache, tuple(d[:, 0] for d in p.dstate)))
    for name, gradient in expected.items():
        same(ours[name], gradient[:, 0] if name in ("x", "h0", "c0") else gradient)


@pytest.mark.parametrize("case", [Case(), STACK._replace(lengths="ragged")])
def test_dx_can_be_left_out_and_changes_nothing_else(gemm, case):
    p = problem(case, "float32")
    ours = gradients(p, input_gradient=False)
    expected = gradients(p)
    assert ours.pop("x") is None
    same([*ours.values()], [a for name, a in expected.items() if name != "x"])


def test_gradients_of_the_state_may_be_left_out():
    p = problem(STACK, "float32")
    layer = p.layer()
    cache = layer.forward(p.x, cache=True, **p.given)[-1]
    zeros = tuple(np.zeros_like(d) for d in p.dstate)
    for one, other in ((None, zeros), ((p.dstate[0], None), (p.dstate[0], zeros[1])),
                       ((None, p.dstate[1]), (zeros[0], p.dstate[1]))):
        a, b = (flat(layer.backward(p.dy, cache, d)) for d in (one, other))
        same(list(a.values()), list(b.values()))


def test_what_lies_beyond_a_length_has_no_gradient():
    p = problem(STACK._replace(lengths="ragged"), "float32")
    layer, expected = p.layer(), gradients(p)
    x, dy = p.x.copy(), p.dy.copy()
    for b, n in enumerate(p.lengths):
        x[n:, b] = dy[n:, b] = np.nan
        assert not expected["x"][n:, b].any()
    cache = layer.forward(x, cache=True, **p.given)[-1]
    same(list(flat(layer.backward(dy, cache, p.dstate)).values()), list(expected.values()))


# ----------------------------------------------------------------------------- backpropagation in segments


@pytest.mark.parametrize("case", [
    Case(T=12, B=4, layers=2, proj=5, reset=True), Case(T=12, B=4), Case(T=2, B=1),
    Case(T=700, B=2, I=3, H=4, layers=2),
])
@pytest.mark.parametrize("carry", [True, False])
def test_segments_with_carried_state(case, carry):
    """With dstate handed back: the gradients of the whole; without: those of the segments, as the reference has it."""
    p = problem(case, "float64")
    layer, half = p.layer(), case.T // 2
    early, late = slice(0, half), slice(half, None)

    def part(steps):
        return None if p.reset is None else p.reset[steps]

    _, state, first = layer.forward(p.x[early], p.state, reset=part(early), cache=True)
    _, last, second = layer.forward(p.x[late], state, reset=part(late), cache=True)
    same(last, layer(p.x, **p.given)[1])
    dx2, between, grads2 = layer.backward(p.dy[late], second, p.dstate)
    dx1, dstate, grads1 = layer.backward(p.dy[early], first, between if carry else None)
    total = flat((np.concatenate([dx1, dx2]), dstate, {k: grads1[k] + grads2[k] for k in grads1}))
    whole = p.gradients()
    if carry:
        check(total, whole, "float64")
    else:
        assert distance(dx1, whole["x"][early]) > 1e-6
        assert distance(dx2, whole["x"][late]) <= LIMIT["float64"]
