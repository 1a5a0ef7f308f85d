"""Streams: what a step takes and gives, the state and who may change it, and what a refusal leaves behind.

That steps and blocks give the bits of one call is in test_invariance.py.
"""

import os
import tracemalloc

import numpy as np
import pytest
from grids import DTYPES, Case, openmp, problem, same, says

import fastlstm as fl
from fastlstm import _core

SIZES = {"plain": Case(T=6, B=1), "rows": Case(T=6, B=5), "stack": Case(T=6, B=5, layers=3, proj=4, H=17)}


@pytest.fixture(params=SIZES)
def p(request):
    return problem(SIZES[request.param]._replace(state=True), "float32")


def opened(p, **options):
    """A stream in the middle of its life."""
    stream = p.layer(**options).stream(p.case.B)
    stream.state = p.state
    return stream


def expected(p):
    return p.layer()(p.x, p.state)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("B", [1, 2, 5, 17])
def test_a_step_gives_the_last_layers_h_and_moves_the_state(B, dtype):
    p = problem(Case(T=6, B=B, layers=2, proj=4), dtype)
    stream, (y, _) = opened(p), expected(p)
    for t, x in enumerate(p.x):
        h = stream.step(x)
        same(h, y[t])
        same(stream.state, p.layer()(p.x[: t + 1], p.state)[1])
        same(stream.state[0][-1], h)


def test_a_new_stream_starts_from_zeros(p):
    stream = p.layer().stream(p.case.B)
    assert not any(s.any() for s in stream.state)
    same(stream.process(p.x), p.layer()(p.x)[0])


def test_one_row_is_the_default_and_needs_no_batch_axis():
    p = problem(SIZES["plain"], "float32")
    y, _ = expected(p)
    stream = p.layer().stream()
    stream.state = p.state
    same(stream.step(p.x[0, 0]), y[0, 0])
    same(stream.step(p.x[1]), y[1])
    out = np.empty(9, np.float32)
    assert stream.step(p.x[2, 0], out=out) is out
    same(out, y[2, 0])
    same(stream.process(p.x[3:, 0]), y[3:, 0])


def test_several_rows_need_their_axis():
    p = problem(SIZES["rows"], "float32")
    with pytest.raises(ValueError, match=r"x has shape \(6,\), expected \(5, 6\)"):
        p.layer().stream(5).step(p.x[0, 0])


def test_out_is_written_in_place_and_returned(p):
    stream, (y, _) = opened(p), expected(p)
    out = np.empty(y.shape[1:], np.float32)
    for t, x in enumerate(p.x):
        assert stream.step(x, out=out) is out
        same(out, y[t])


def test_out_may_be_the_input():
    p = problem(Case(T=6, B=3, I=9, H=9, layers=2), "float32")
    stream, (y, _) = opened(p), expected(p)
    for t, x in enumerate(p.x.copy()):
        stream.step(x, out=x)
        same(x, y[t])


@pytest.mark.parametrize("turn", [
    lambda x: x.astype(np.float64), lambda x: x.tolist(), lambda x: np.asfortranarray(x),
    lambda x: np.repeat(x, 2, axis=1)[:, ::2], lambda x: x[::-1].copy()[::-1],
    lambda x: np.frombuffer(b"." + x.tobytes(), x.dtype, offset=1).reshape(x.shape),
])
def test_any_form_of_the_same_numbers_gives_the_same_bits(p, turn):
    stream, (y, state) = opened(p), expected(p)
    same(np.array([stream.step(turn(x)) for x in p.x]), y)
    same(stream.state, state)


@pytest.mark.parametrize("options", [{"batch_first": False}, {"batch_first": True}])
def test_a_block_is_always_time_first(p, options):
    same(opened(p, **options).process(p.x), expected(p)[0])


def test_an_empty_block_changes_nothing(p):
    stream = opened(p)
    assert stream.process(p.x[:0]).shape == (0, p.case.B, p.case.outputs)
    same(stream.state, p.state)


# ------------------------------------------------------------------------------------------- the state


def test_the_state_is_a_copy_both_ways(p):
    stream = opened(p)
    for s in stream.state:
        s[...] = 9
    same(stream.state, p.state)
    mine = tuple(s.copy() for s in p.state)
    stream.state = mine
    mine[0][...] = 9
    same(stream.state, p.state)


def test_the_state_of_a_call_goes_on_in_a_stream_and_back(p):
    layer = p.layer()
    y, last = expected(p)
    stream = layer.stream(p.case.B)
    _, stream.state = layer(p.x[:2], p.state)
    same(stream.process(p.x[2:4]), y[2:4])
    same(layer(p.x[4:], stream.state), (y[4:], last))


def test_none_is_zeros(p):
    stream = opened(p)
    stream.state = None
    assert not any(s.any() for s in stream.state)
    stream.state = p.state[0], None
    same(stream.state[0], p.state[0])
    assert not stream.state[1].any()


def test_reset_zeroes_all_rows_or_those_of_the_mask():
    p = problem(SIZES["stack"], "float32")
    stream = opened(p)
    stream.reset([True, False, False, True, False])
    for now, before in zip(stream.state, p.state, strict=True):
        assert not now[:, [0, 3]].any()
        same(now[:, [1, 2, 4]], before[:, [1, 2, 4]])
    stream.reset(np.zeros(5, bool))
    assert stream.state[0].any()
    stream.reset()
    assert not any(s.any() for s in stream.state)


def test_reset_between_steps_is_the_reset_of_a_call():
    p = problem(SIZES["rows"]._replace(reset=True), "float32")
    stream, (y, state) = opened(p), p.layer()(p.x, p.state, reset=p.reset)
    for t, x in enumerate(p.x):
        stream.reset(p.reset[t])
        same(stream.step(x), y[t])
    same(stream.state, state)


def bad_calls(p):
    """(call, exception, words)."""
    B, I, R = p.case.B, p.case.I, p.case.outputs
    x, good = p.x[0], np.zeros((B, R), np.float32)
    return [
        (lambda s: s.step(x[:, :-1]), ValueError, f"x has shape .*expected .{B}, {I}. = .batch_size, input_size."),
        (lambda s: s.step(np.zeros((B + 1, I))), ValueError, "x has shape"),
        (lambda s: s.step(p.x), ValueError, "x has shape"),
        (lambda s: s.step(None), TypeError, "x must hold real numbers, got object .NoneType."),
        (lambda s: s.step(x + 1j), TypeError, "x must hold real numbers, got complex64"),
        (lambda s: s.step([[1], [1, 2]]), ValueError, "x cannot be read as an array"),
        (lambda s: s.step(x, out=good.astype(float)), ValueError, "out must be .*float32 .*got float64"),
        (lambda s: s.step(x, out=good[:, :-1]), ValueError, "out must be"),
        (lambda s: s.step(x, out=np.zeros((B + 1, R), np.float32)), ValueError, "out must be"),
        (lambda s: s.step(x, out=np.zeros((B, 2 * R), np.float32)[:, ::2]), ValueError, "out must be"),
        (lambda s: s.step(x, out=np.broadcast_to(np.float32(0), (B, R))), ValueError, "out must be a writable"),
        (lambda s: s.step(x, out=good.tolist()), ValueError, "out must be .*got list"),
        (lambda s: s.process(p.x[:, :, :-1]), ValueError, "has shape"),
        (lambda s: s.process(np.zeros((2, B + 1, I))), ValueError, f"{B + 1} rows, .*batch_size {B}"),
        (lambda s: s.process("abc"), TypeError, "must hold real numbers"),
        (lambda s: s.reset(np.zeros(B + 1, bool)), ValueError, f"mask must hold {B} booleans"),
        (lambda s: s.reset(np.zeros(B)), ValueError, "mask must hold .*got float64"),
        (lambda s: setattr(s, "state", p.state[0]), TypeError, "state must be a pair .h0, c0., got ndarray"),
        (lambda s: setattr(s, "state", (p.state[0], p.state[1][:, :, :-1])), ValueError, "c0 has shape"),
        (lambda s: setattr(s, "state", (p.state[0][:, :, :-1], p.state[1])), ValueError, "h0 has shape"),
    ]


@pytest.mark.parametrize("threads", [None, 2])
def test_a_refused_call_leaves_the_state_untouched(p, threads):
    if threads:  # the way of steps wide enough for several threads has its own checks
        p = problem(Case(T=2, B=6, I=256, H=256, layers=2), "float32")
    stream = opened(p, num_threads=threads)
    assert stream._stepper.teamed == bool(threads)
    for call, error, words in bad_calls(p):
        with pytest.raises(error, match=words):
            call(stream)
        same(stream.state, p.state)
    same(stream.step(p.x[0]), expected(p)[0][0])


def test_a_bidirectional_layer_says_why_it_cannot_stream():
    with pytest.raises(ValueError, match="bidirectional .* cannot stream: its reverse direction starts at .* end"):
        fl.LSTM(2, 3, bidirectional=True).stream()


@pytest.mark.parametrize("size, error", [(0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError)])
def test_batch_size_is_a_positive_integer(size, error):
    with pytest.raises(error, match="batch_size must be"):
        fl.LSTM(2, 3).stream(size)


# ------------------------------------------------------------------------------------- who shares what


def test_streams_of_one_layer_do_not_meet(p):
    layer, (y, _) = p.layer(), expected(p)
    one, other = layer.stream(p.case.B), layer.stream(p.case.B)
    one.state = p.state
    for t, x in enumerate(p.x):
        other.step(x + 1)
        same(one.step(x), y[t])


def test_an_open_stream_keeps_the_weights_of_its_beginning(p):
    layer, (y, _) = p.layer(), expected(p)
    stream = layer.stream(p.case.B)
    stream.state = p.state
    same(stream.process(p.x[:2]), y[:2])
    layer.load_state_dict({name: w + 1 for name, w in layer.state_dict().items()})
    del layer
    same(stream.process(p.x[2:4]), y[2:4])
    same(np.array([stream.step(x) for x in p.x[4:]]), y[4:])


def test_a_step_with_out_allocates_nothing(p):
    stream, out = opened(p), np.empty((p.case.B, p.case.outputs), np.float32)
    x = p.x[0]

    def steps():
        for _ in range(1000):
            stream.step(x, out=out)

    steps()
    tracemalloc.start()
    steps()
    tracemalloc.clear_traces()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    steps()
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert now - before < 200
    assert peak - before < 400  # a Python number or two of the loop, no array


@pytest.mark.parametrize("rows", [2, 256])
def test_a_step_may_write_where_it_reads(rows):
    """Whether one thread makes the step or a team."""
    layer = fl.LSTM(64, 64, rng=0, num_threads=2)
    x = np.random.default_rng(0).standard_normal((rows, 64)).astype(np.float32)
    apart, inside = layer.stream(rows), layer.stream(rows)
    assert inside._stepper.teamed == (rows == 256 and _core.has_openmp())
    z = x.copy()
    for _ in range(3):
        expected = apart.step(z.copy())
        assert inside.step(z, out=z) is z
        np.testing.assert_array_equal(z, expected)


# ---- awake: threads that wait for the next step


AWAKE = """
import os, sys, threading, time
import numpy as np
import fastlstm as fl
from fastlstm import _core
_core.force_team("persists")
layer = fl.LSTM(512, 512, rng=0, num_threads=2)
x = np.random.default_rng(0).standard_normal((5, 1, 512)).astype(np.float32)
expected = layer(x)[0]

def steps(stream):
    return all((stream.step(x[t]) == expected[t]).all() for t in range(5))

def idle(seconds=0.2):
    before = time.process_time()
    time.sleep(seconds)
    return time.process_time() - before
"""


@openmp
def test_threads_stay_awake_between_steps_and_no_longer():
    lines = says(AWAKE + """
stream = layer.stream(awake=1.0)
print(stream._stepper.teamed, steps(stream))
print(idle(0.6))  # one thread waits for the next step
stream.close()
print(idle())
stream = layer.stream(awake=1.0)
print(steps(stream))
del stream
print(idle())
stream = layer.stream(awake=1.0)
thread = threading.Thread(target=steps, args=(stream,))
thread.start()
thread.join()
print(idle())
with layer.stream(awake=0.05) as stream:
    print(steps(stream))
    time.sleep(0.06)
    print(idle())
""")
    assert (lines[0], lines[3], lines[6]) == ("True True", "True", "True")
    assert float(lines[1]) > 0.06  # on a machine that has little left for it
    assert all(float(lines[k]) < 0.03 for k in (2, 4, 5, 7)), lines


@openmp
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_an_awake_stream_goes_on_after_a_fork():
    lines = says(AWAKE + """
stream = layer.stream(awake=0.5)
for t in range(2):
    stream.step(x[t])
child = os.fork()
good = all((stream.step(x[t]) == expected[t]).all() for t in range(2, 5))
if child == 0:
    os._exit(0 if good else 1)
print(good, os.waitpid(child, 0)[1])
""")
    assert lines == ["True 0"]


@openmp
@pytest.mark.parametrize("sizes", [512, [384, 512]], ids=["one size", "two sizes"])
@pytest.mark.parametrize("make", [fl.LSTM, fl.GRU, fl.RNN])
def test_an_awake_stream_has_the_same_bits(make, sizes):
    layer = make(300, sizes, rng=0, num_threads=2)
    x = np.random.default_rng(1).standard_normal((6, 2, 300)).astype(np.float32)
    expected = layer(x)[0]
    with layer.stream(2, awake=1e-4) as stream, fl.Sequential(layer).stream(2, awake=1e-4) as chain:
        out = np.empty_like(expected[0])
        for t in range(6):
            stream.step(x[t], out=out)
            assert (out == expected[t]).all()
            assert (chain.step(x[t]) == expected[t]).all()


@openmp
def test_a_step_of_several_threads_may_write_where_it_reads():
    layer = fl.LSTM(512, 512, rng=0, num_threads=2)
    stream, other = layer.stream(awake=1e-3), layer.stream()
    assert stream._stepper.teamed
    x = np.random.default_rng(2).standard_normal((1, 512)).astype(np.float32)
    for _ in range(3):
        expected = other.step(x)
        stream.step(x, out=x)
        assert (x == expected).all()


def test_a_closed_stream_says_so():
    stream = fl.LSTM(3, 4).stream()
    stream.close()
    stream.close()
    with pytest.raises(RuntimeError, match="closed"):
        stream.step(np.zeros((1, 3), np.float32))
    with pytest.raises(RuntimeError, match="closed"):
        stream.process(np.zeros((2, 1, 3), np.float32))


@pytest.mark.parametrize("awake, error", [("1", TypeError), (True, TypeError), (None, TypeError), (-1e-9, ValueError),
                                          (1.1, ValueError), (float("nan"), ValueError)])
def test_awake_that_is_none(awake, error):
    with pytest.raises(error, match="awake"):
        fl.LSTM(3, 4).stream(awake=awake)


@pytest.mark.parametrize(("hidden", "batch", "brief"), [(8, 1, True), (64, 1, True), (8, 4, True), (512, 1, False),
                                                        (64, 256, False)])
def test_only_short_steps_keep_the_interpreter(hidden, batch, brief):
    layer = fl.LSTM(3, hidden, rng=0)
    stream, x = layer.stream(batch), np.ones((batch, 3), "f4")
    assert stream._stepper.brief is brief
    same(stream.step(x), layer(x[None])[0][0])
