"""The whole family backward: all gradients of every variant against the twins, whole, in pieces, and cut short."""

import numpy as np
import pytest
from family import (
    GRADIENTS,
    HARD,
    SHAPES,
    SOME,
    TABLE,
    VARIANTS,
    Problem,
    flat,
    gradients_agree,
    problem,
    with_activation,
)
from grids import DTYPES, Case, distance, same

from fastlstm import _core
from fastlstm.variants import ACTIVATIONS

ACTIVATION_SHAPES = (
    Case(T=5, B=3, I=6, H=17),
    Case(T=4, B=2, H=6, layers=2, bidirectional=True, lengths="ragged", reset=True),
)
# One unit, or two, normalised: what is left of a gradient is rounding, and the twin's own is no better.
NARROW = {"one of everything"}


def shapes_of(name):
    return {what: c for what, c in SHAPES.items() if what not in NARROW or "norm" not in name}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", VARIANTS)
def test_all_gradients_are_the_twins(isa, name, dtype):
    for shape, case in shapes_of(name).items():
        p = problem(name, case, dtype)
        try:
            gradients_agree(p, p.gradients(p.layer()))
        except AssertionError as error:
            raise AssertionError(f"{shape}: {error}") from error


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_of_every_activation_in_every_role_are_the_twins(isa, activation, dtype):
    for name in with_activation(activation):
        for case in ACTIVATION_SHAPES:
            p = problem(name, case, dtype)
            try:
                gradients_agree(p, p.gradients(p.layer()))
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from error


@pytest.mark.parametrize("name", VARIANTS)
def test_the_twin_has_gradients_to_compare(name):
    """All zeros would agree with anything."""
    p = problem(name, HARD._replace(lengths=None), "float64")
    for key, gradient in p.answer.gradients.items():
        nothing = p.v.gradient == "truncated" and p.cell == "lstm_1997" and key in ("h0", "gates0")
        assert (np.abs(gradient).max() > 1e-4) != nothing, key


@pytest.mark.parametrize("gemm", ["panel", "blas"])
@pytest.mark.parametrize("name", SOME)
def test_both_ways_of_large_products_are_the_twins(name, gemm):
    _core.force_gemm(gemm)
    try:
        for case in (HARD, Case(T=60, B=1, I=20, H=37), Case(T=20, B=9, I=40, H=33, layers=2)):
            p = problem(name, case, "float64")
            layer = p.layer()
            y, _, cache = layer.forward(p.x, cache=True, **p.given)
            assert distance(y, p.answer.y) <= p.bound
            gradients_agree(p, flat(p.v, layer.backward(p.dy, cache, p.dstate)))
    finally:
        _core.force_gemm(None)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SOME)
def test_a_long_sequence_is_the_twins(name, dtype):
    """Long enough for several chunks of a stack, where one is cut into chunks."""
    p = problem(name, Case(T=300, B=2, I=3, H=6, layers=2, reset=True), dtype)
    layer = p.layer()
    y, _, cache = layer.forward(p.x, cache=True, **p.given)
    assert distance(y, p.answer.y) <= p.bound
    gradients_agree(p, flat(p.v, layer.backward(p.dy, cache, p.dstate)))


# ------------------------------------------------------------------------------------------------- the LSTM of 1997


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, {"block_size": 2}, {"block_size": 3, "without": "o"}, {"biased": "gates"}])
def test_truncated_and_full_gradients_are_each_the_twins_and_differ(isa, options, dtype):
    """Forward nothing differs. The paper's gradient stops at the sums of the gates; the derivative does not."""
    case, found = Case(T=7, B=4, I=5, H=18, layers=2), {}
    for gradient in ("truncated", "full"):
        TABLE[gradient] = {"cell": "lstm_1997", "gradient": gradient, **options}
        try:
            p = Problem(gradient, case, dtype)
        finally:
            del TABLE[gradient]
        layer, answer = p.layer(), p.twin()
        y, state, cache = layer.forward(p.x, cache=True, **p.given)
        grads = flat(p.v, layer.backward(p.dy, cache, p.dstate))
        gradients_agree(p, grads, answer.gradients)
        found[gradient] = y, state, grads
    same(found["truncated"][0], found["full"][0])
    same(found["truncated"][1], found["full"][1])
    cut, whole = found["truncated"][2], found["full"][2]
    assert not cut["h0"].any() and not cut["gates0"].any()
    for name in ("x", "c0", "weight_ih_l0", "weight_hh_l1"):
        assert distance(cut[name], whole[name]) > 1e-3, name
    assert np.abs(whole["h0"]).max() > 1e-4


# --------------------------------------------------------------------------------------------------- what is left out


@pytest.mark.parametrize("name", SOME)
def test_gradients_of_the_state_and_of_the_input_may_be_left_out(name):
    p = problem(name, HARD, "float32")
    layer = p.layer()
    cache = layer.forward(p.x, cache=True, **p.given)[-1]
    zeros = tuple(None if d is None else np.zeros_like(d) for d in p.dstates)
    nothing = flat(p.v, layer.backward(p.dy, cache))
    same([*nothing.values()], [*flat(p.v, layer.backward(p.dy, cache, zeros if len(zeros) > 1 else zeros[0])).values()])
    for k in range(len(zeros) if len(zeros) > 1 else 0):
        one = tuple(d if n == k else z for n, (d, z) in enumerate(zip(p.dstates, zeros, strict=True)))
        none = tuple(d if n == k else None for n, d in enumerate(p.dstates))
        same([*flat(p.v, layer.backward(p.dy, cache, one)).values()],
             [*flat(p.v, layer.backward(p.dy, cache, none)).values()])
    whole = flat(p.v, layer.backward(p.dy, cache, p.dstate))
    dx, *rest = layer.backward(p.dy, cache, p.dstate, input_gradient=False)
    assert dx is None
    same([*flat(p.v, (whole["x"], *rest)).values()], [*whole.values()])


@pytest.mark.parametrize("name", SOME)
def test_nothing_beyond_a_length_has_a_gradient_or_an_effect(name):
    p = problem(name, HARD._replace(B=4), "float32")
    layer = p.layer()
    expected = p.gradients(layer)
    x, dy = p.x.copy(), p.dy.copy()
    for b, n in enumerate(p.lengths):
        x[n:, b] = dy[n:, b] = np.nan
        assert not expected["x"][n:, b].any()
    y, state, cache = layer.forward(x, cache=True, **p.given)
    same((y, state), layer(p.x, **p.given))
    same([*flat(p.v, layer.backward(dy, cache, p.dstate)).values()], [*expected.values()])


@pytest.mark.parametrize("name", SOME)
def test_nothing_done_after_forward_changes_the_gradients(name):
    p = problem(name, Case(T=5, B=3, layers=2, H=12), "float32")
    layer = p.layer()
    expected = p.gradients(layer)
    x, state = p.x.copy(), tuple(s.copy() for s in p.states)
    y, new, cache = layer.forward(x, state if len(state) > 1 else state[0], cache=True)
    for array in (x, y, *state, *(new if isinstance(new, tuple) else [new])):
        array[...] = 1
    layer(p.x + 1)
    layer.load_state_dict({key: np.zeros_like(w) for key, w in p.weights.items()})
    for _ in range(2):  # a cache may be used again
        same([*flat(p.v, layer.backward(p.dy, cache, p.dstate)).values()], [*expected.values()])


@pytest.mark.parametrize("name", SOME)
def test_segments_with_the_gradient_of_the_state_handed_back_are_the_whole(name):
    p = problem(name, Case(T=11, B=3, H=12, layers=2), "float64")
    layer, half = p.layer(), 5
    _, between, first = layer.forward(p.x[:half], p.state, cache=True)
    *_, second = layer.forward(p.x[half:], between, cache=True)
    dx2, dbetween, grads2 = layer.backward(p.dy[half:], second, p.dstate)
    dx1, dstate, grads1 = layer.backward(p.dy[:half], first, dbetween)
    total = np.concatenate([dx1, dx2]), dstate, {key: grads1[key] + grads2[key] for key in grads1}
    gradients_agree(p, flat(p.v, total))
    alone = layer.backward(p.dy[:half], first)[0]
    assert distance(alone, p.answer.gradients["x"][:half]) > 1e3 * GRADIENTS["float64"]
