"""Plans: what they make of the machine's constants, and how they explain it."""

import itertools
import threading

import pytest
from grids import Case, openmp, problem, same

import fastlstm as fl
from fastlstm import _core, machine, planning

OTHERS = {"flops_per_ns": (70.0, 35.0), "wake_ns": 9000.0, "barrier_ns": 250.0, "private_cache": 400000.0}


@pytest.fixture
def constants():
    """A function that changes some of the constants in use."""
    machine.settle(2)  # what the first model would do, after which it is the test's turn
    yield lambda **some: _core.set_machine({**_core.machine(), **some})
    _core.set_machine(None)


# ---- in the engine -----------------------------------------------------------------------


def test_what_is_measured_is_plausible():
    found, team = _core.measure_machine(2)
    assert all(0.5 <= rate <= 500 for rate in found["flops_per_ns"])
    assert 1000 <= found["wake_ns"] <= 200_000
    assert 50 <= found["barrier_ns"] <= 5000
    assert 131_072 <= found["private_cache"] <= 16_777_216
    assert _core.machine() == _core.BUILT_IN  # measured, not set
    if not team:
        assert (found["wake_ns"], found["barrier_ns"]) == (12000, 600)


def test_one_thread_leaves_the_threads_costs_alone():
    found, team = _core.measure_machine(1)
    assert not team
    assert (found["wake_ns"], found["barrier_ns"]) == (12000, 600)


def test_set_and_get(constants):
    _core.set_machine(OTHERS)
    assert _core.machine() == OTHERS
    _core.set_machine(None)
    assert _core.machine() == _core.BUILT_IN
    assert _core.BUILT_IN == {"flops_per_ns": (50, 25), "wake_ns": 12000, "barrier_ns": 600, "private_cache": 786432}


def test_constants_are_brought_into_a_plausible_range(constants):
    _core.set_machine({"flops_per_ns": (1e-300, 1e300), "wake_ns": 1e-9, "barrier_ns": 1e99, "private_cache": 1.0})
    assert _core.machine() == {
        "flops_per_ns": (0.5, 500), "wake_ns": 1000, "barrier_ns": 20_000, "private_cache": 131_072,
    }


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", OTHERS)
def test_constants_that_are_none(constants, name, value):
    with pytest.raises(ValueError):
        constants(**{name: (value, 1.0) if name == "flops_per_ns" else value})
    assert _core.machine() == _core.BUILT_IN


# ---- in plans ----------------------------------------------------------------------------


def decision(layer, T, B):
    plan = layer.plan(T, B)
    return plan.threads, plan.split, plan.why


@openmp
def test_waking_decides_about_threads(constants):
    layer = fl.LSTM(64, 128, num_threads=2)
    assert decision(layer, 2, 8) == (2, "rows", "rows")
    constants(wake_ns=100_000.0)
    assert decision(layer, 2, 8) == (1, "none", "small")
    assert decision(layer, 200, 8) == (2, "rows", "rows")


@openmp
def test_the_rate_decides_about_threads(constants):
    layer = fl.LSTM(64, 128, num_threads=2)
    constants(flops_per_ns=(500.0, 25.0))
    assert decision(layer, 2, 8) == (1, "none", "small")
    assert decision(fl.LSTM(64, 128, num_threads=2, dtype="float64"), 2, 8)[0] == 2


@openmp
def test_barriers_decide_about_blocks(constants):
    layer = fl.LSTM(128, 128, num_threads=2)
    assert decision(layer, 50, 1) == (2, "blocks", "few rows")
    constants(barrier_ns=2000.0)
    assert decision(layer, 50, 1) == (1, "none", "unshared")


@openmp
def test_the_cache_decides_between_rows_and_blocks(constants):
    layer = fl.LSTM(128, 128, num_threads=2)
    assert decision(layer, 10, 16) == (2, "rows", "rows")
    constants(private_cache=400_000.0)
    assert decision(layer, 10, 16) == (2, "blocks", "cache")


@openmp
def test_other_reasons(constants):
    assert decision(fl.LSTM(64, 128, num_threads=1), 200, 8) == (1, "none", "limit")
    assert decision(fl.LSTM(64, 128, num_threads=2), 200, 0) == (1, "none", "empty")
    both = fl.LSTM(64, 128, bidirectional=True, num_threads=2)
    assert decision(both, 50, 1) == (2, "directions", "directions")


def test_why_input_products_are_hoisted_or_not():
    layer = fl.LSTM(64, 64, num_threads=1)
    reasons = [layer.plan(T, B).why_hoist for T, B in ((50, 1), (50, 6), (1, 1))]
    assert [*reasons, fl.LSTM(8, 64).plan(50, 1).why_hoist] == ["few rows", "full tile", "one step", "narrow"]


def test_the_words_of_a_plan():
    lines = str(fl.LSTM(128, 128, num_threads=1).plan(50, 2)).split("\n")
    assert lines[:5] == [
        "50 steps of 2 rows: on the calling thread",
        "estimate: 524 us on one thread at 50 flop/ns; a step of the first layer 0.524 Mflop, 10.5 us",
        "threads: no more than one is allowed",
        "weights: 524 kB per step; a layer's 524 kB fit in the 786 kB one core keeps",
        "input products: ahead of the recurrence, 24 steps at a time, as one step's rows do not fill a tile, "
        "several steps' do",
    ]


@openmp
def test_a_plan_names_what_it_compared(constants):
    constants(wake_ns=7000.0, barrier_ns=333.0)
    text = str(fl.LSTM(128, 128, num_threads=2).plan(50, 1))
    assert "2 threads" in text
    assert "waking a thread (7 us)" in text
    assert "a barrier per step (0.333 us)" in text


def test_every_reason_has_words():
    packed = fl.LSTM(128, 128)._packed()
    found = {**packed.plan(1000, 2), "workspace_bytes": 0, "chunk": 100}
    texts = set()
    for why, hoist in itertools.product(_core.WHY, _core.WHY_HOIST):
        text = str(planning.Plan({**found, "why": why, "why_hoist": hoist}, 1000, 2))
        assert len(text.split("\n")) <= 8
        texts.add(text)
    assert len(texts) == len(_core.WHY) * len(_core.WHY_HOIST)


@openmp
def test_constants_never_change_a_result(constants):
    p = problem(Case(T=9, B=9, I=64, H=96, layers=2), "float32")
    results, splits = [], set()
    for wake, cache in itertools.product((1000.0, 200_000.0), (131_072.0, 1e7)):
        constants(wake_ns=wake, private_cache=cache)
        layer = p.layer(num_threads=2)
        splits.add(layer.plan(9, 9).split)
        y, state, kept = layer.forward(p.x, p.state, cache=True)
        results.append([y, *state, *layer(p.x, p.state)[1], *layer.backward(p.dy, kept)[2].values()])
    assert splits == {"none", "rows", "blocks"}
    for result in results[1:]:
        same(result, results[0])


@openmp
def test_constants_may_be_set_while_calls_run(constants):
    """A call asks for its workspace, then runs: in between it may have come to need more."""
    p = problem(Case(T=5, B=9, I=64, H=96, layers=2), "float32")
    layer = p.layer(num_threads=2)
    expected, done, failures = layer(p.x, p.state), threading.Event(), []

    def call():
        try:
            for _ in range(400):
                same(layer(p.x, p.state), expected)
                layer.stream(9).process(p.x)
                fresh = p.layer(num_threads=2)  # with no workspace yet that would happen to be large enough
                same(fresh(p.x, p.state), expected)
                fresh.backward(p.dy, fresh.forward(p.x, cache=True)[-1])
        except BaseException as failure:
            failures.append(failure)
        finally:
            done.set()

    thread = threading.Thread(target=call)
    thread.start()
    for wake in itertools.cycle((1000.0, 200_000.0)):
        constants(wake_ns=wake)
        if done.is_set():
            break
    thread.join()
    assert failures == []
