"""Any configuration at all: the engine against the reference, forward, backward, and in pieces."""

import numpy as np
from grids import DTYPES, ISAS, Case, Problem, bound, distance, flat, same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastlstm import _core

# the same examples every time and everywhere; no example may be slow enough to need a deadline
repeatable = settings(
    deadline=None, max_examples=60, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
GRADIENTS = {"float32": 2e-5, "float64": 1e-11}
SIZE = st.one_of(st.integers(1, 9), st.sampled_from([15, 16, 17, 31, 33, 48]))


@st.composite
def cases(draw, least_steps=0):
    T, B, I, H = draw(st.integers(least_steps, 12)), draw(st.integers(0, 13)), draw(SIZE), draw(SIZE)
    lengths = draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B).map(tuple))
    return Case(
        T, B, I, H, layers=draw(st.integers(1, 3)), bidirectional=draw(st.booleans()), bias=draw(st.booleans()),
        proj=draw(st.integers(0, H - 1)), lengths=lengths,
        reset=draw(st.booleans()), state=draw(st.booleans()),
    )


@st.composite
def runs(draw, **options):
    """A problem, and a layer packed for any set, way and number of threads."""
    p = Problem(draw(cases(**options)), draw(st.sampled_from(DTYPES)), seed=draw(st.integers(0, 99)))
    layer = p.layer(num_threads=draw(st.sampled_from([None, 1, 2, 3])))
    _core.force_isa(draw(st.sampled_from([isa for isa in ISAS if isa in _core.available_isas()])))
    _core.force_gemm(draw(st.sampled_from(["panel", "panel", "blas"])))
    try:
        layer._packed_for_training()
    finally:
        _core.force_isa(None)
        _core.force_gemm(None)
    return p, layer


@repeatable
@given(runs())
def test_forward_is_the_references(run):
    p, layer = run
    y, (hn, cn) = layer(p.x, **p.given)
    theirs_y, theirs_state, _ = p.reference()
    for a, b in zip((y, hn, cn), (theirs_y, *theirs_state), strict=True):
        assert a.dtype == p.dtype
        assert distance(a, b) <= bound(p.case.T, p.dtype)
    same(layer.forward(p.x, cache=True, **p.given)[:2], (y, (hn, cn)))


@repeatable
@given(runs(), st.booleans())
def test_backward_is_the_references(run, masks):
    p, layer = run
    if masks:
        layer.dropout, layer._dropout_factors = 0.3, lambda steps, batch: p.masks
    cache = layer.forward(p.x, cache=True, **p.given)[-1]
    ours, theirs = flat(layer.backward(p.dy, cache, p.dstate)), p.gradients(masks=masks)
    assert list(ours) == list(theirs)
    for name, gradient in theirs.items():
        assert distance(ours[name], gradient) <= GRADIENTS[p.dtype.name], name


@repeatable
@given(runs(least_steps=1), st.data())
def test_a_row_alone_and_the_whole_in_two_calls_give_the_same_bits(run, data):
    p, layer = run
    if layer._packed().plan(1, 1)["blas"]:  # that way promises accuracy, not bits
        return
    y, state = layer(p.x, **p.given)
    if p.case.B:
        b = data.draw(st.integers(0, p.case.B - 1))
        n = p.case.T if p.lengths is None else p.lengths[b]
        alone = layer(
            p.x[:n, b], p.state and tuple(s[:, b] for s in p.state), reset=None if p.reset is None else p.reset[:n, b]
        )
        same(alone, (y[:n, b], tuple(s[:, b] for s in state)))
    if not p.case.bidirectional and p.lengths is None:
        cut = data.draw(st.integers(0, p.case.T))
        early, between = layer(p.x[:cut], p.state, reset=None if p.reset is None else p.reset[:cut])
        late, last = layer(p.x[cut:], between, reset=None if p.reset is None else p.reset[cut:])
        same(np.concatenate([early, late]), y)
        same(last, state)
