"""Streams of the whole family: steps and blocks give the bits of one call; the state, whatever it is made of."""

import tracemalloc

import numpy as np
import pytest
from family import SOME, VARIANTS, parts, problem, rows_of, states_of
from grids import DTYPES, Case, same

import fastlstm as fl

SIZES = (Case(T=7, B=1, I=17, H=21), Case(T=7, B=3, I=6, H=19, layers=2))


def opened(p, state=True, **options):
    stream = p.layer(**options).stream(p.case.B)
    if state:
        stream.state = p.state
    return stream


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", VARIANTS)
def test_steps_and_blocks_give_what_one_call_gives(isa, name, dtype):
    for case in SIZES:
        p = problem(name, case, dtype)
        y, last = p.layer()(p.x, p.state)
        steps, blocks = opened(p), opened(p)
        same(np.array([steps.step(x) for x in p.x]), y)
        same(np.concatenate([blocks.process(p.x[:3]), [blocks.step(p.x[3])], blocks.process(p.x[4:])]), y)
        same(blocks.process(p.x[:0]), y[:0])
        same(steps.state, last)
        same(blocks.state, last)


@pytest.mark.parametrize("name", SOME)
def test_a_new_stream_starts_from_zeros_and_a_reset_goes_back_there(name):
    p = problem(name, SIZES[1], "float32")
    y, _ = p.layer()(p.x)
    stream = opened(p, state=False)
    assert not any(part.any() for part in states_of(p.v, stream.state))
    same(stream.process(p.x), y)
    assert all(part.any() for part in states_of(p.v, stream.state))
    before = stream.state
    stream.reset(np.array([False, True, False]))
    after = stream.state
    assert not any(part[:, 1].any() for part in states_of(p.v, after))
    same(rows_of(after, [0, 2]), rows_of(before, [0, 2]))
    mixed = stream.process(p.x)
    same(mixed[:, 1], y[:, 1])
    assert (mixed[:, 0] != y[:, 0]).any()
    stream.reset()
    same(stream.process(p.x), y)
    stream.state = None
    same(np.array([stream.step(x) for x in p.x]), y)


@pytest.mark.parametrize("name", SOME)
def test_the_state_is_a_copy_both_ways_and_goes_on_in_a_call(name):
    p = problem(name, SIZES[1], "float32")
    layer = p.layer()
    y, last = layer(p.x, p.state)
    stream = opened(p)
    for part in states_of(p.v, stream.state):
        part[...] = 1
    same(stream.state, p.state)
    assert isinstance(stream.state, tuple) == (len(p.v.states) > 1)
    mine = tuple(part.copy() for part in p.states)
    stream.state = mine if len(mine) > 1 else mine[0]
    for part in mine:
        part[...] = 1
    same(stream.process(p.x[:4]), y[:4])
    same(layer(p.x[4:], stream.state), (y[4:], last))
    _, stream.state = layer(p.x[:2], p.state)
    out = np.empty_like(y[0])
    for t in range(2, 7):
        assert stream.step(p.x[t], out=out) is out
        same(out, y[t])
    same(stream.state, last)


@pytest.mark.parametrize("name", SOME)
def test_a_state_that_does_not_fit_is_refused_by_name(name):
    p = problem(name, SIZES[1], "float32")
    stream = opened(p)
    for k, what in enumerate(p.v.states):
        bad = [part.copy() for part in p.states]
        bad[k] = bad[k][:, :, :-1] if bad[k].shape[2] > 1 else np.zeros((*bad[k].shape[:2], 2))
        with pytest.raises(ValueError, match=f"{what}0 has shape"):
            stream.state = tuple(bad) if len(bad) > 1 else bad[0]
    with pytest.raises(TypeError, match=p.v.states[-1] + "0"):
        stream.state = (*p.states, p.states[0])
    same(stream.state, p.state)
    same(stream.step(p.x[0]), p.layer()(p.x, p.state)[0][0])


@pytest.mark.parametrize("name", SOME)
def test_an_open_stream_keeps_the_weights_of_its_beginning(name):
    p = problem(name, SIZES[1], "float32")
    layer = p.layer()
    y, last = layer(p.x, p.state)
    stream = layer.stream(3)
    stream.state = p.state
    same(stream.process(p.x[:3]), y[:3])
    layer.load_state_dict({key: w + 1 for key, w in p.weights.items()})
    del layer
    same(np.array([stream.step(x) for x in p.x[3:]]), y[3:])
    same(stream.state, last)


@pytest.mark.parametrize("name", SOME)
def test_a_bidirectional_layer_says_why_it_cannot_stream(name):
    p = problem(name, Case(bidirectional=True, H=12), "float32")
    with pytest.raises(ValueError, match="bidirectional .* cannot stream"):
        p.layer().stream()


def test_a_step_wide_enough_for_threads_gives_the_same_bits():
    """Whether a step is divided or not; the plan is the engine's."""
    for name in SOME:
        p = problem(name, Case(T=3, B=6, I=256, H=252, layers=2), "float32")
        expected = p.layer(num_threads=1)(p.x, p.state)
        stream = opened(p, num_threads=2)
        same(np.array([stream.step(x) for x in p.x]), expected[0])
        same(stream.state, expected[1])
        assert len(parts(expected[1])) == len(p.v.states)


def test_a_count_is_checked_on_every_way_in():
    layer = fl.ClockworkRNN(3, 8, periods=(1, 3), rng=0, dtype="float64")
    x, h = np.zeros((4, 2, 3)), np.zeros((1, 2, 8))
    layer(x)  # packed: the short way of a call is open
    for bad in (2.5, -1.0, np.nan):
        with pytest.raises(ValueError, match="t0"):
            layer(x, (h, np.full((1, 2, 1), bad)))
    rng = np.random.default_rng(0)
    x, h, t = rng.normal(size=(4, 2, 3)), rng.normal(size=(1, 2, 8)), np.array([[[7.0], [2.0**40 + 1]]])
    same(layer(x, (h, t))[0], layer(x, (h, t % 3))[0])


@pytest.mark.parametrize("options", [{"cell": "lstm_1997"}, {"gate_recurrence": True}])
def test_a_step_of_three_states_keeps_its_own_memory(options):
    kind = fl.LSTM1997 if options.pop("cell", None) else fl.LSTM
    stream = kind(3, 8, rng=0, **options).stream(2)
    x, out = np.ones((2, 3), np.float32), np.empty((2, 8), np.float32)
    stream.step(x, out=out)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    for _ in range(50):
        stream.step(x, out=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - before < 400, "a step allocates"
