"""Signals while a call computes: what a handler raises ends the call, and everything is as before it.

Python runs handlers between two steps of its interpreter; the core has it run them now and then. `raised` puts an
exception at one point of all those where that may be: a loop over it goes through all.
"""

import copy
import linecache
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from grids import openmp, traced

import fastlstm as fl
from fastlstm import _core
from fastlstm.stream import Stream

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that send signals here")
LONG_ENOUGH = 5  # seconds: far less than the calls that end early would take, far more than it takes to end them
PACKAGE = str(Path(fl.__file__).parent)


class Stop(Exception):
    """What the handlers of these tests raise."""


def raised(call, after, python=True):
    """Whether `call` ended with Stop, raised at point number `after`, counted from 0.

    Points are where the core looks, at every step and piece of work; and with python=True the lines of the package.
    """
    left = after

    def look():
        nonlocal left
        left -= 1
        if left < 0:
            raise Stop

    def trace(frame, event, _):
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        # Where a with statement is left, its line comes again, outside of what it protects: handlers never run there.
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and not line.lstrip().startswith("with "):
            look()
        return trace

    _core.force_poll(True, look)
    try:
        traced(trace if python else sys.gettrace(), call)
    except Stop:
        return True
    finally:
        _core.force_poll(False)
        assert np.float32(1e-38) * np.float32(0.01) > 0, "the caller's floating-point state is lost"
    return False


def bits(value):
    """All arrays of a result, as bytes."""
    if value is None:
        return b""
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, dict):
        return b"".join(bits(value[name]) for name in sorted(value))
    return b"".join(bits(one) for one in value)


def numbers(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape, dtype=np.float32)


LAYERS = {
    "lstm": lambda: fl.LSTM(20, 40, rng=1),
    "two layers, dropout": lambda: fl.LSTM(20, 17, 2, dropout=0.3, variational_h=0.2, rng=1),
    "bidirectional": lambda: fl.LSTM(20, 33, 2, bidirectional=True, rng=1),
    "layer norm": lambda: fl.LSTM(20, 17, layer_norm="ba", rng=1),
    "projection": lambda: fl.LSTM(20, 33, proj_size=5, rng=1),
    "gru, reset before": lambda: fl.GRU(20, 33, reset_after=False, rng=1),
    "clockwork": lambda: fl.ClockworkRNN(20, 36, periods=(1, 2, 4), rng=1),
    "gate recurrence": lambda: fl.LSTM(20, 17, gate_recurrence=True, rng=1),
    "layers of different sizes": lambda: fl.LSTM(20, [33, 17], 2, rng=1),
    "linear": lambda: fl.Linear(20, 33, activation="tanh", rng=1),
    "chain": lambda: fl.Sequential(fl.LSTM(20, 17, rng=1), fl.Linear(17, 9, rng=2), fl.GRU(9, 5, rng=3)),
    "reverse": lambda: fl.Reverse(fl.LSTM(20, 17, rng=1)),
    "two of their own": lambda: fl.Bidirectional(fl.LSTM(20, 17, rng=1), fl.LSTM(20, 17, rng=2)),
}


def points(call, unchanged=lambda: True, step=1, python=False):
    """How many points a call has. Every `step`-th is tried: each leaves things `unchanged`."""
    point = 0
    while raised(call, point, python):
        assert unchanged(), f"changed by an exception at point {point}"
        point += step
    return point


@pytest.mark.parametrize("gemm", [None, "blas"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_call_ends_anywhere_and_changes_nothing(name, gemm):
    _core.force_gemm(gemm)
    try:
        layer, x = LAYERS[name](), numbers(6, 7, 20)
        first = LAYERS[name]().forward(x, cache=True)  # with the masks that are drawn first
        inferred, before = bits(layer(x)), bits(layer.state_dict())

        def unchanged():
            return bits(layer.state_dict()) == before and _core.teams_active() == 0

        step = 1 if gemm is None else 17
        assert points(lambda: layer(x), unchanged, step) >= 1
        assert points(lambda: layer(x), unchanged, 7 * step, python=True) >= 7
        assert bits(layer(x)) == inferred
        assert points(lambda: layer.forward(x, cache=True), unchanged, 2 * step) >= 1
        layer = LAYERS[name]()
        assert raised(lambda: layer.forward(x, cache=True), 0, False)
        y, state, cache = layer.forward(x, cache=True)
        assert bits((y, state)) == bits(first[:2]), "the masks of a call that raised are lost"
        gradients = bits(layer.backward(y, cache))
        assert points(lambda: layer.backward(y, cache), unchanged, 2 * step) >= 2
        assert points(lambda: layer.backward(y, cache), unchanged, 13 * step, python=True) >= 13
        assert bits(layer.backward(y, cache)) == gradients
    finally:
        _core.force_gemm(None)


def test_an_empty_call_that_is_ended_says_so():
    layer = LAYERS["lstm"]()
    y, _, cache = layer.forward(numbers(0, 2, 20), cache=True)
    assert points(lambda: layer.backward(y, cache)) >= 1


@openmp
@pytest.mark.parametrize("split", ["rows", "blocks", "directions"])
def test_teams_end_together(split, favour):
    favour(split)
    layer = fl.LSTM(40, 90, bidirectional=split == "directions", rng=1, num_threads=2)
    x = numbers(7, 6 if split == "rows" else 1, 40)
    assert layer.plan(*x.shape[:2]).split == split
    y, _, cache = layer.forward(x, cache=True)
    expected, gradients = bits(layer(x)), bits(layer.backward(y, cache))
    assert points(lambda: layer(x), lambda: _core.teams_active() == 0) > 7
    assert points(lambda: layer.backward(y, cache), lambda: _core.teams_active() == 0, 3) > 7
    assert bits(layer(x)) == expected
    assert bits(layer.backward(y, cache)) == gradients


@pytest.mark.parametrize("name", ["lstm", "gate recurrence", "layers of different sizes", "chain"])
def test_a_stream_has_the_state_of_before_or_that_of_after(name):
    model, block = LAYERS[name](), numbers(6, 2, 20)
    stream = model.stream(2)
    stream.process(block)
    before = stream.state
    y, late = bits(stream.process(block)), 0
    after = bits(stream.state)

    def unchanged():
        nonlocal late
        state = bits(stream.state)
        late += state == after
        stream.state = before
        return state in (bits(before), after)

    stream.state = before
    assert points(lambda: stream.process(block), unchanged) >= 6
    assert late == 0
    stream.state = before
    assert points(lambda: stream.process(block), unchanged, python=True) > 20
    assert late <= 2  # Python's last lines, on which y is lost on its way to the caller
    stream.state = before
    assert bits(stream.process(block)) == y


I, B, H = 3, 2, 4
CHAINS = {
    "plain": lambda: fl.Sequential(fl.Linear(I, H, rng=0), fl.LSTM(H, H, rng=1), fl.GRU(H, 5, rng=2)),
    "sizes": lambda: fl.Sequential(fl.LSTM(I, [H, 5], rng=0), fl.Linear(5, H, rng=0), fl.LSTM1997(H, H, rng=1)),
    "nested": lambda: fl.Sequential(fl.Sequential(fl.LSTM(I, H, rng=0), fl.Linear(H, H, rng=1)), fl.Last(
        fl.LSTM(H, H, rng=2))),
    "one": lambda: fl.Sequential(fl.LSTM(I, [H, 5], rng=0), fl.Linear(5, H, rng=0)),
}


def raising_after_the_step(stream, count):
    """Traces so that KeyboardInterrupt comes where `Stream.step` of the count-th recurrent member returns."""
    seen = []

    def trace(frame, event, _):
        if frame.f_code is not Stream.step.__code__:
            return trace if event == "call" else None
        if event == "return":
            seen.append(frame)
            if len(seen) == count:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    return trace


@pytest.mark.parametrize("lists", [False, True], ids=["arrays", "lists"])  # the short way and Busy.run
@pytest.mark.parametrize("kind", CHAINS)
def test_a_step_given_up_after_a_members_own_is_not_hidden(kind, lists):
    """The member has moved and has not returned: as with a handler that Python runs there."""
    model, x, count = CHAINS[kind](), numbers(6, B, I), 1 if kind == "one" else 2  # members with a state
    before = sys.gettrace()
    for made in range(1, count + 1):
        stream, other = model.stream(B), model.stream(B)
        for one in (stream, other):
            one.step(x[0])
            one.process(x[:2])
        stream = copy.copy(stream) if made % 2 else stream
        sys.settrace(raising_after_the_step(stream, made))
        try:
            with pytest.raises(KeyboardInterrupt):
                stream.step(x[2].tolist() if lists else x[2])
        finally:
            sys.settrace(before)
        if made == count:  # all have moved: the state of after
            other.step(x[2])
        else:
            for call in (stream.step, copy.copy(stream).step):
                with pytest.raises(RuntimeError, match="given up half-way"):
                    call(x[2])
            stream.state = other.state
            assert not stream._steps_differ and not stream._uneven(0)
        assert bits(stream.process(x[3:])) == bits(other.process(x[3:]))
        stream._streams[0].step(x[0]) if kind != "plain" else stream._streams[1].step(np.zeros((B, H), "f4"))
        assert stream._uneven(0) == (count > 1)
        stream.reset([True, False])
        assert stream._uneven(0) == (count > 1)
        stream.reset()
        assert not stream._uneven(0)


def test_an_embedding_ends_its_sums():
    layer = fl.Embedding(50, 64, rng=0)
    index = np.random.default_rng(0).integers(0, 50, 40_000)
    y, _, cache = layer.forward(index, cache=True)
    expected = np.zeros((50, 64), np.float32)
    np.add.at(expected, index, y)
    assert bits(layer.backward(y, cache)[2]) == expected.tobytes()
    few = layer.forward(index[:9], cache=True)
    lines = points(lambda: layer.backward(few[0], few[-1]), python=True)
    assert points(lambda: layer.backward(y, cache), python=True) > lines + 9  # a loop over 2^18 numbers each


def test_the_exception_is_the_handlers_own():
    model, x, thrown = fl.LSTM(20, 40, rng=1), numbers(6, 7, 20), SystemExit("enough")

    def look():
        raise thrown

    _core.force_poll(True, look)
    try:
        with pytest.raises(SystemExit) as caught:
            model(x)
    finally:
        _core.force_poll(False)
    assert caught.value is thrown
    assert caught.traceback[-1].name == "look"


def test_a_handler_may_itself_make_calls():
    model, x, found = fl.LSTM(20, 40, rng=1), numbers(6, 7, 20), []
    expected = bits(model(x))

    def look():
        if len(found) < 30:
            place = len(found)
            found.append(None)
            found[place] = bits(model(x))

    _core.force_poll(True, look)
    try:
        assert bits(model(x)) == expected
    finally:
        _core.force_poll(False)
    assert found == [expected] * 30


# ---- by the clock: calls that would take more than 20 seconds -------------------------------------------------------

LONG = """
import os, signal, sys, threading, time
import numpy as np
import fastlstm as fl

model = fl.LSTM(16384, 16, rng=0)
x = np.broadcast_to(np.ones(16384, np.float32), (20_000, 50, 16384))  # one row in memory
assert model.plan(20_000, 50).estimate_ns > 20e9 / 4
small = x[:5]
expected = model(small)[0].tobytes()
"""


def run(code, signal_after=None):
    """A process that prints "ready" before its long call; the seconds from the signal to its end, what it wrote."""
    heeds = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # shells may have it ignored
    process = subprocess.Popen(
        [sys.executable, "-c", heeds + LONG + dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.3)
        begin = time.monotonic()
        if signal_after:
            process.send_signal(signal_after)
        text = process.communicate(timeout=60)[0]
        return time.monotonic() - begin, text
    finally:
        process.kill()


def test_ctrl_c_ends_a_long_call():
    seconds, text = run("""
        print("ready", flush=True)
        try:
            model(x)
        except KeyboardInterrupt:
            assert model(small)[0].tobytes() == expected
            print("interrupted")
    """, signal.SIGINT)
    assert text == "interrupted\n"
    assert seconds < LONG_ENOUGH


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_the_thread_that_forked_is_the_childs_main_thread():
    seconds, text = run("""
        class Stop(Exception):
            pass

        def handler(*_):
            raise Stop

        def fork():
            child = os.fork()
            if child == 0:
                signal.setitimer(signal.ITIMER_REAL, 0.3)
                try:
                    model(x)
                except Stop:
                    os._exit(7)
                os._exit(1)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

        signal.signal(signal.SIGALRM, handler)
        print("ready", flush=True)
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
    """)
    assert text == "7\n"
    assert seconds < LONG_ENOUGH


def test_other_threads_are_not_asked():
    """Handlers run in the main thread alone."""
    model, x, found, asked = fl.LSTM(20, 40, rng=1), numbers(6, 7, 20), [], []
    expected = bits(model(x))
    thread = threading.Thread(target=lambda: found.append(bits(model(x))))
    _core.force_poll(True, lambda: asked.append(threading.current_thread()))
    try:
        thread.start()
        thread.join()
        assert not asked
        model(x)
        assert asked
    finally:
        _core.force_poll(False)
    assert found == [expected]
