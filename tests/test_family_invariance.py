"""The whole family, to the bit: whatever stands beside or before a row, whoever computes it, however it is cut up."""

import itertools

import numpy as np
import pytest
from family import HARD, SHAPES, SOME, TABLE, VARIANTS, parts, problem, rows_of
from grids import DTYPES, Case, openmp, present, same

from fastlstm import _core

WIDE = Case(T=4, B=11, I=17, H=37)
# Shapes that a plan divides among threads, which is proven where they are used.
ROWS = Case(T=5, B=33, I=40, H=66, layers=2, lengths="ragged", reset=True)
UNITS = Case(T=5, B=3, I=128, H=216, layers=2)
BOTH = Case(T=4, B=3, I=100, H=210, layers=2, bidirectional=True, lengths="ragged", reset=True)


def some_of(p, rows, steps=slice(None)):
    """x and keywords of some steps of some rows."""
    return p.x[steps, rows], present(
        state=None if p.state is None else rows_of(p.state, rows),
        lengths=None if p.lengths is None else p.lengths[rows],
        reset=None if p.reset is None else p.reset[steps, rows],
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", VARIANTS)
def test_a_row_does_not_depend_on_the_rows_beside_it(isa, name, dtype):
    for case in (HARD, WIDE):
        p = problem(name, case, dtype)
        layer = p.layer()
        y, state = layer(p.x, **p.given)
        for b in range(case.B):
            x, given = some_of(p, slice(b, b + 1))
            same(layer(x, **given), (y[:, b : b + 1], rows_of(state, slice(b, b + 1))))
        turned, given = some_of(p, slice(None, None, -1))
        same(layer(turned, **given), (y[:, ::-1], rows_of(state, slice(None, None, -1))))


@pytest.mark.parametrize("name", VARIANTS)
def test_all_instruction_sets_give_the_same_bits(name):
    for shape, case in {**SHAPES, "wider": WIDE}.items():
        p, results = problem(name, case, "float32"), []
        for isa in _core.available_isas():
            _core.force_isa(isa)
            try:
                assert _core.isa() == isa
                y, state, trace, _ = p.layer().forward(p.x, trace=True, cache=True, **p.given)
                results.append([y, *parts(state), *(a for field in trace for a in parts(field))])
            finally:
                _core.force_isa(None)
        for result in results[1:]:
            same(result, results[0])
        assert shape


@pytest.mark.parametrize("name", [name for name in TABLE if name not in VARIANTS])
def test_all_instruction_sets_activate_to_the_same_bits(name):
    p, results = problem(name, Case(T=4, B=3, I=6, H=37), "float32"), []
    for isa in _core.available_isas():
        _core.force_isa(isa)
        try:
            results.append(p.layer()(p.x, p.state))
        finally:
            _core.force_isa(None)
    for result in results[1:]:
        same(result, results[0])


# ------------------------------------------------------------------------------------------------------------- time


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", VARIANTS)
def test_a_sequence_in_several_calls_gives_the_bits_of_one(isa, name, dtype):
    p = problem(name, Case(T=9, B=4, I=18, H=19, layers=2, reset=True), dtype)
    layer = p.layer()
    y, last = layer(p.x, p.state, reset=p.reset)
    for cuts in ((0, 1, 2, 9), (0, 4, 4, 9), (0, 8, 9)):
        state = p.state
        for first, end in itertools.pairwise(cuts):
            some, state = layer(p.x[first:end], state, reset=p.reset[first:end])
            same(some, y[first:end])
        same(state, last)


@pytest.mark.parametrize("rows, inputs", [(1, 20), (5, 3)])
@pytest.mark.parametrize("name", SOME)
def test_long_sequences_cross_chunks_without_a_seam(name, rows, inputs):
    p = problem(name, Case(T=1100, B=rows, I=inputs, H=6, layers=2), "float32")
    layer = p.layer()
    plan = layer.plan(1100, rows)
    y, last = layer(p.x, p.state)
    for cut in {1, 64, plan.chunk - 1, plan.chunk, plan.chunk + 1} & set(range(1, 1100)):
        early, between = layer(p.x[:cut], p.state)
        late, state = layer(p.x[cut:], between)
        same(np.concatenate([early, late]), y)
        same(state, last)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_ragged_row_is_that_row_cut_to_its_length(name):
    p = problem(name, HARD, "float32")
    layer = p.layer()
    y, state = layer(p.x, **p.given)
    for b, n in enumerate(p.lengths):
        x, given = some_of(p, slice(b, b + 1), slice(0, n))
        same(layer(x, **given | {"lengths": None}), (y[:n, b : b + 1], rows_of(state, slice(b, b + 1))))
        assert not y[n:, b].any()


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_episodes_joined_by_resets_are_episodes_apart(name, bidirectional):
    case = Case(T=9, B=3, I=6, H=18, layers=2, bidirectional=bidirectional, state=False)
    p = problem(name, case, "float32")
    layer, ends = p.layer(), [0, 1, 5, 9]
    reset = np.zeros((9, 3), bool)
    reset[ends[:-1]] = True
    y = layer(p.x, reset=reset)[0]
    for first, end in itertools.pairwise(ends):
        same(layer(p.x[first:end])[0], y[first:end])


# ---------------------------------------------------------------------------------------------------------- threads


@openmp
@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("case", [ROWS, UNITS, BOTH], ids=["rows", "units", "both directions"])
@pytest.mark.parametrize("name", SOME)
def test_any_number_of_threads_gives_the_same_bits(name, case, threads, favour):
    p = problem(name, case, "float32")
    one, several = p.layer(num_threads=1), p.layer(num_threads=threads)
    for split in ("rows",) if case is ROWS else ("blocks", "rows"):  # some cells share rows alone
        favour(split)
        assert one.plan(case.T, case.B).threads == 1
        found = several.plan(case.T, case.B).threads
        if found == threads:
            break
    if found != threads:
        pytest.skip(f"the plan gives this {found} threads, not {threads}")
    expected = one(p.x, **p.given)
    gradients = p.gradients(one)
    for _ in range(3):  # a race does not show every time
        same(several(p.x, **p.given), expected)
        ours = p.gradients(several)
        assert set(ours) == set(gradients)
        for key, value in gradients.items():
            same(ours[key], value)


@openmp
@pytest.mark.parametrize("name", SOME)
def test_some_shape_of_every_cell_is_divided(name):
    """Else the test above skips and proves nothing."""
    plans = [problem(name, case, "float32").layer(num_threads=2).plan(case.T, case.B) for case in (ROWS, UNITS)]
    assert 2 in [plan.threads for plan in plans]
