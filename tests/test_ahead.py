"""Input products made beside the steps of one row: wherever they are made, the bits are those of the row in a batch.

From 6 rows on a step's products are one chain and nothing is computed ahead, so a batch is the other way to go."""

import numpy as np
import pytest
from grids import DTYPES, Case, assert_split, distance, openmp, problem, same

import fastlstm as fl

# no, one, two and three vectors in the last block; few and many inputs beside the units; too few to be made ahead
SIZES = [(16, 96), (17, 97), (200, 104), (40, 108), (24, 143), (100, 100), (300, 112)]
LENGTHS = (1, 4, 5, 6, 9, 10, 11, 14, 15, 16, 23)


def ahead_of(layer, steps):
    return layer._packed().plan(steps, 1)["ahead"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inputs, hidden", SIZES)
def test_a_lone_row_is_the_row_in_a_batch(isa, inputs, hidden, dtype):
    p = problem(Case(T=23, B=6, I=inputs, H=hidden), dtype)
    layer = p.layer()
    assert ahead_of(layer, 23) == (5 if isa == "avx512" else 0)
    assert layer._packed().plan(23, 6)["hoist"] == 0
    h0, c0 = (s[:, :1] for s in p.state)
    whole = layer(p.x, p.state, trace=True)
    for steps in LENGTHS:
        y, (hn, cn), trace = layer(p.x[:steps, :1], (h0, c0), trace=True)
        same(y, np.ascontiguousarray(whole[0][:steps, :1]))
        same(trace.c[0], np.ascontiguousarray(whole[2].c[0][:steps, :1]))
        same(hn[0], y[-1])
        same(cn[0], trace.c[0][-1])
        same(layer(p.x[:steps, :1], (h0, c0))[0], y)


@pytest.mark.parametrize("options", [
    {"bidirectional": True}, {"layers": 3}, {"proj": 33}, {"bidirectional": True, "layers": 2, "proj": 40},
])
def test_stacks_directions_projections_resets_and_lengths(isa, options):
    p = problem(Case(T=21, B=7, I=20, H=129, lengths=(21, 20, 11, 6, 5, 1, 0), reset=True, **options), "float32")
    layer = p.layer()
    y, state = layer(p.x, **p.given)
    for b in range(7):
        row = slice(b, b + 1)
        given = {
            "state": tuple(s[:, row] for s in p.state), "lengths": p.lengths[row], "reset": p.reset[:, row],
        }
        one, last = layer(p.x[:, row], **given)
        same(one, np.ascontiguousarray(y[:, row]))
        same(last, tuple(np.ascontiguousarray(s[:, row]) for s in state))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_a_lone_row(isa, dtype):
    p = problem(Case(T=23, B=1, I=40, H=103), dtype)
    y, _, cache = p.layer().forward(p.x, p.state, cache=True)
    grads = p.layer().backward(p.dy, cache, p.dstate)[2]
    limit = 2e-5 if dtype == "float32" else 1e-11
    assert all(distance(grads[name], p.gradients()[name]) <= limit for name in grads)


def test_the_plan_says_when(isa):
    here = isa == "avx512"
    assert bool(ahead_of(fl.LSTM(64, 128, rng=0), 100)) == here
    assert not ahead_of(fl.LSTM(64, 32, rng=0), 100)  # its weights stay in the first cache
    assert not ahead_of(fl.LSTM(16, 800, rng=0), 100)  # its weights stay in none
    assert not ahead_of(fl.LSTM(3, 128, rng=0), 100)  # a product of three inputs is part of the step
    assert not fl.LSTM(64, 128, rng=0)._packed().plan(100, 2)["ahead"]


@openmp
@pytest.mark.parametrize("case, threads", [
    (Case(T=60, B=1, I=1024, H=160, cell="rnn"), 3),
    (Case(T=60, B=1, I=1024, H=160, bidirectional=True, cell="rnn"), 3),
    (Case(T=40, B=1, I=2048, H=140), 9),
    (Case(T=40, B=1, I=512, H=136, bidirectional=True), 9),
])
def test_a_worker_that_has_the_narrow_block_alone_leaves_its_neighbours_alone(case, threads, favour):
    """As many workers as blocks: nobody's share has a full block before the narrow one."""
    favour("blocks")
    p = problem(case, "float32")
    expected = p.layer(num_threads=1)(p.x, p.state)
    layer = p.layer(num_threads=threads)
    assert_split(layer, "blocks", threads, case.T, 1)
    for _ in range(20):
        same(layer(p.x, p.state), expected)
