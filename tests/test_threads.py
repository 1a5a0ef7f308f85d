"""Threads: many callers at once, and what is left behind after a call. How many: tests/test_thread_limits.py."""

import os
import threading
import time
from textwrap import dedent

import pytest
from grids import BEGIN, SPLITS, Case, assert_split, at_once, flat, openmp, problem, same, says

import fastlstm as fl
from fastlstm import _core

BLOCKS = Case(T=5, B=3, I=128, H=200, layers=2)


# ---------------------------------------------------------------------------------- many callers at once


@pytest.mark.parametrize("name", SPLITS)
def test_one_model_serves_many_threads_at_once(name, favour):
    threads, case = SPLITS[name]
    favour(name)
    p = problem(case, "float32")
    layer = p.layer(num_threads=threads[-1])
    assert_split(layer, name.split(",")[0], threads[-1], case.T, case.B)
    expected = layer(p.x, **p.given)
    cache = layer.forward(p.x, cache=True, **p.given)[-1]
    gradients = list(flat(layer.backward(p.dy, cache, p.dstate)).values())

    def infer():
        for _ in range(10):
            same(layer(p.x, **p.given), expected)

    def train():
        for _ in range(5):
            *_, own = layer.forward(p.x, cache=True, **p.given)
            same(list(flat(layer.backward(p.dy, own, p.dstate)).values()), gradients)
            same(list(flat(layer.backward(p.dy, cache, p.dstate)).values()), gradients)

    def stream():
        for _ in range(3):
            session = layer.stream(case.B)
            session.state = p.state
            same(session.process(p.x[:, : case.B]), layer(p.x, p.state)[0])

    at_once([infer, infer, infer, train, train] + ([] if case.bidirectional else [stream, stream]))
    assert _core.teams_active() == 0


def test_a_new_model_may_be_used_first_by_many_threads():
    p = problem(BLOCKS, "float32")
    expected = p.layer()(p.x, **p.given)
    for _ in range(5):
        layer = p.layer()
        at_once([lambda layer=layer: same(layer(p.x, **p.given), expected)] * 4)


def test_a_call_sees_the_old_weights_or_the_new_and_no_mixture():
    p = problem(Case(T=5, B=3, I=20, H=20, layers=2), "float32")
    layer = p.layer()
    versions = [layer.state_dict(), {name: -w for name, w in layer.state_dict().items()}]
    answers = set()
    for weights in versions:
        layer.load_state_dict(weights)
        answers.add(layer(p.x)[0].tobytes())
    seen, done = set(), threading.Event()

    def call():
        while not done.is_set():
            seen.add(layer(p.x)[0].tobytes())

    def change():
        for k in range(300):
            layer.load_state_dict(versions[k % 2])
        done.set()

    at_once([call, call, change])
    assert seen <= answers


@openmp
def test_the_number_of_threads_may_change_while_calls_run():
    p = problem(Case(T=5, B=33, I=64, H=96, layers=2), "float32")
    layer = p.layer()
    expected, done = layer(p.x, **p.given), threading.Event()
    first = layer.forward(p.x, cache=True, **p.given)[-1]
    gradients = list(flat(layer.backward(p.dy, first, p.dstate)).values())

    def call():
        try:
            for _ in range(150):
                fresh = p.layer()  # with no workspace yet that would happen to be large enough
                same(fresh(p.x, **p.given), expected)
                *_, cache = fresh.forward(p.x, cache=True, **p.given)
                same(list(flat(fresh.backward(p.dy, cache, p.dstate)).values()), gradients)
        finally:
            done.set()

    def change():
        n = 0
        while not done.is_set():
            fl.set_num_threads(1 + n % 4)
            n += 1

    try:
        at_once([call, change, change])
    finally:
        fl.set_num_threads(None)


CALLS = {
    "call": lambda layer, p, cache: layer(p.x),
    "forward with cache": lambda layer, p, cache: layer.forward(p.x, cache=True),
    "backward": lambda layer, p, cache: layer.backward(p.dy, cache),
    "stream": lambda layer, p, cache: layer.stream(4).process(p.x),
}


@pytest.mark.parametrize("name", CALLS)
def test_python_runs_on_while_a_call_computes(name):
    p = problem(Case(T=300, B=4, I=256, H=256, state=False), "float32")
    layer = p.layer(num_threads=1)
    cache = layer.forward(p.x, cache=True)[-1]
    span = []

    def call():
        CALLS[name](layer, p, cache)  # what the first call does with the GIL held is done
        span.append(time.perf_counter())
        CALLS[name](layer, p, cache)
        span.append(time.perf_counter())

    for _ in range(5):  # on a crowded machine, try again
        span.clear()
        thread, ticks = threading.Thread(target=call), []
        thread.start()
        while thread.is_alive():
            ticks.append(time.perf_counter())
            time.sleep(0.0002)
        start, end = span
        early, late = start + (end - start) / 4, end - (end - start) / 4
        if sum(early < t < late for t in ticks) >= 3:
            return
    pytest.fail("nothing else ran during the middle half of a call: the GIL was held")


# -------------------------------------------------------------------------------- what stays behind


@openmp
def test_no_thread_spins_after_a_call():
    lines = says(BEGIN + """
used = []
for _ in range(6):
    answer()
    before = time.process_time()
    time.sleep(0.1)
    used.append(time.process_time() - before)
print(min(used))
""")
    assert float(lines[0]) < 0.02


def test_the_callers_floating_point_mode_is_left_alone():
    lines = says(BEGIN + """
def subnormal():
    return (np.float32(1e-38) * np.float32(0.01)) > 0 and (np.float64(1e-307) * np.float64(1e-3)) > 0
seen = [subnormal()]
answer()
seen.append(subnormal())
stream = model.stream(2)
stream.step(x[0])
fl.Linear(128, 300, num_threads=2)(x)
try:
    model(x, lengths=[9, 9])
except ValueError:
    seen.append(subnormal())
def other():
    seen.append(subnormal()); answer(); seen.append(subnormal())
t = threading.Thread(target=other); t.start(); t.join()
print(seen.count(True), len(seen))
""")
    assert lines == ["5 5"]


def test_importing_changes_no_environment():
    lines = says("""
import os
before = dict(os.environ)
import fastlstm, ctypes
libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_char_p
print(before == dict(os.environ), libc.getenv(b"GOMP_SPINCOUNT"), libc.getenv(b"OMP_NUM_THREADS"))
""")
    assert lines == ["True None None"]


# ------------------------------------------------------------------------------------ where workers run


@openmp
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity masks here")
def test_workers_that_step_aside_keep_their_masks():
    """A worker woken on its caller's processor may move; the processors it may use stay those they were."""
    code = """
        import os
        import numpy as np, fastlstm as fl
        from fastlstm import _core
        _core.force_team("persists")
        allowed = os.sched_getaffinity(0)
        first = min(allowed)
        layer = fl.LSTM(64, 128, rng=0, num_threads=2)
        x = np.zeros((50, 16, 64), np.float32)
        assert layer.plan(50, 16).threads == 2
        tasks = lambda: [int(name) for name in os.listdir("/proc/self/task")]
        for turn in range(40):
            for task in tasks():  # all on one processor, then free again: they start where they were
                os.sched_setaffinity(task, {first})
                os.sched_setaffinity(task, allowed)
            for _ in range(5):
                layer(x)
            assert all(os.sched_getaffinity(task) == allowed for task in tasks()), turn
        for task in tasks():
            os.sched_setaffinity(task, {first})
        layer(x)
        print(all(os.sched_getaffinity(task) == {first} for task in tasks()))
    """
    assert says(dedent(code)) == ["True"]
