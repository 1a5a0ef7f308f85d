"""Every remainder of every vector width: how the gates of the last few units are packed shows in no result."""

import numpy as np
import pytest
from grids import DTYPES, Case, bound, distance, problem, same

import fastlstm as fl
from fastlstm import _core

# with 16 lanes: no, one, two and three full blocks before each remainder, the remainders of 8, 4 and 2 lanes among them
HIDDEN = range(1, 66)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_every_number_of_units(isa, hidden, dtype):
    for inputs, rows in ((3, 1), (3, 4), (17, 1), (17, 2)):  # one row and several; hoisted inputs and not
        p = problem(Case(T=3, B=rows, I=inputs, H=hidden), dtype)
        y, (hn, cn), cache = p.layer().forward(p.x, p.state, cache=True)
        for ours, theirs in ((y, p.reference()[0]), (hn, p.reference()[1][0]), (cn, p.reference()[1][1])):
            assert distance(ours, theirs) <= bound(3, dtype)
        grads = p.layer().backward(p.dy, cache, p.dstate)[2]
        limit = 2e-5 if dtype == "float32" else 1e-11
        assert all(distance(grads[name], p.gradients()[name]) <= limit for name in grads)
        same(p.layer()(p.x, p.state)[0], y)


@pytest.mark.parametrize("hidden", HIDDEN)
def test_a_row_does_not_see_its_neighbours(isa, hidden):
    p = problem(Case(T=3, B=7, I=17, H=hidden), "float32")
    layer = p.layer()
    y = layer(p.x, p.state)[0]
    for b in range(7):
        alone = layer(p.x[:, b : b + 1], tuple(s[:, b : b + 1] for s in p.state))[0]
        same(alone, np.ascontiguousarray(y[:, b : b + 1]))


@pytest.mark.parametrize("columns", range(1, 70))
def test_every_number_of_columns_of_a_plain_product(isa, columns):
    rng = np.random.default_rng(columns)
    dense = fl.Linear(5, columns, rng=rng)
    weight, bias = (a.astype(float) for a in dense.state_dict().values())
    for rows in (1, 2, 7):
        x = rng.standard_normal((rows, 5)).astype(np.float32)
        y = dense(x)
        assert distance(y, x @ weight.T + bias) < 1e-6
        same(dense(x[:1]), np.ascontiguousarray(y[:1]))


def test_a_narrow_last_block_takes_less_memory():
    sizes = {hidden: fl.LSTM(16, hidden, rng=0)._packed().nbytes for hidden in (96, 97, 112)}
    lanes = {"avx512": 16, "avx2": 8, "neon": 4, "scalar": 1}[_core.isa()]
    if lanes == 1:
        pytest.skip("one lane has no remainder")
    assert sizes[96] < sizes[97] < sizes[112]
    # one unit more costs one vector a weight row; four of them would be more than half (at 16 lanes)
    assert sizes[97] - sizes[96] < 0.3 * (sizes[112] - sizes[96]) * lanes / 16
