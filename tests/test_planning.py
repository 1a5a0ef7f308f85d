"""Plans: what they make of the machine's constants, and how they explain it.

That a plan takes the best pair of split and threads is in tests/test_estimates.py.
"""

import itertools
import threading

import pytest
from grids import Case, openmp, problem, same

import fastlstm as fl
from fastlstm import _core, machine, planning

OTHERS = {
    "flops_per_ns": (70.0, 35.0), "all_cores_rate": 0.6, "private_bytes_per_ns": 50.0, "private_cache": 400_000.0,
    "shared_bytes_per_ns": 20.0, "shared_bytes_per_ns_all": 150.0, "wake_ns": 9000.0, "wake_each_ns": 1200.0,
    "barrier_ns": 250.0, "barrier_all_ns": 900.0, "cores": 8.0, "sibling_rate": 0.6,
}
BUILT_IN = {
    "flops_per_ns": (100, 50), "all_cores_rate": 0.7, "private_bytes_per_ns": 90, "private_cache": 786_432,
    "shared_bytes_per_ns": 45, "shared_bytes_per_ns_all": 1000, "wake_ns": 12_000, "wake_each_ns": 1500,
    "barrier_ns": 600, "barrier_all_ns": 2400, "cores": 64, "sibling_rate": 0.5,
}
OF_A_TEAM = ("all_cores_rate", "shared_bytes_per_ns_all", "wake_ns", "wake_each_ns", "barrier_ns", "barrier_all_ns")


@pytest.fixture
def constants():
    """A function that changes some of the constants in use."""
    machine.settle(2)  # what the first model would do, after which it is the test's turn
    yield lambda **some: _core.set_machine({**_core.machine(), **some})
    _core.set_machine(None)


# ---- in the engine -----------------------------------------------------------------------


def test_what_is_measured_is_plausible():
    found, team = _core.measure_machine(2)
    assert set(found) == set(BUILT_IN)
    assert all(0.5 <= rate <= 1000 for rate in found["flops_per_ns"])
    assert 0.1 <= found["all_cores_rate"] <= 1
    assert 131_072 <= found["private_cache"] <= 16_777_216
    assert 1 <= found["private_bytes_per_ns"] <= 1000
    assert 0.5 <= found["shared_bytes_per_ns"] <= 1000
    assert 0.5 <= found["shared_bytes_per_ns_all"] <= 100_000
    assert 1000 <= found["wake_ns"] <= 200_000
    assert 50 <= found["wake_each_ns"] <= 50_000
    assert 50 <= found["barrier_ns"] <= 5000
    assert 50 <= found["barrier_all_ns"] <= 100_000
    assert found["cores"] >= 1
    assert found["sibling_rate"] == 0.5
    assert _core.machine() == _core.BUILT_IN  # measured, not set
    if not team:
        assert found["wake_each_ns"] == BUILT_IN["wake_each_ns"]


def test_one_thread_leaves_the_costs_of_teams_alone():
    found, team = _core.measure_machine(1)
    assert not team
    assert {name: found[name] for name in OF_A_TEAM} == {name: BUILT_IN[name] for name in OF_A_TEAM}


def test_set_and_get(constants):
    _core.set_machine(OTHERS)
    assert _core.machine() == OTHERS
    _core.set_machine(None)
    assert _core.machine() == _core.BUILT_IN == BUILT_IN


@pytest.mark.parametrize("value, expected", [
    (1e-300, (0.5, 0.1, 1, 131_072, 0.5, 0.5, 1000, 50, 50, 50, 1, 0.1)),
    (1e300, (1000, 1, 1000, 16_777_216, 1000, 100_000, 200_000, 50_000, 20_000, 100_000, 1024, 1)),
])
def test_constants_are_brought_into_a_plausible_range(constants, value, expected):
    _core.set_machine({name: (value, value) if name == "flops_per_ns" else value for name in machine.FIELDS})
    found = _core.machine()
    assert found.pop("flops_per_ns") == (expected[0],) * 2
    assert tuple(found[name] for name in machine.FIELDS[1:]) == expected[1:]


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
    assert decision(layer, 4, 8) == (2, "rows", "rows")
    constants(wake_ns=100_000.0)
    assert decision(layer, 4, 8) == (1, "none", "small")
    assert decision(layer, 200, 8) == (2, "rows", "rows")


@openmp
def test_waking_the_others_decides_how_many(constants):
    layer = fl.LSTM(64, 128, num_threads=16)
    constants(wake_each_ns=50.0)
    many = layer.plan(4, 64).threads
    constants(wake_each_ns=20_000.0)
    assert 1 < layer.plan(4, 64).threads < many


@openmp
def test_the_rate_decides_about_threads(constants):
    layer = fl.LSTM(64, 128, num_threads=2)
    constants(flops_per_ns=(500.0, 25.0))
    assert decision(layer, 3, 16) == (1, "none", "small")
    assert decision(fl.LSTM(64, 128, num_threads=2, dtype="float64"), 3, 16)[0] == 2


@openmp
def test_barriers_decide_about_blocks(constants):
    layer = fl.LSTM(128, 128, num_threads=2)
    assert decision(layer, 50, 1) == (2, "blocks", "few rows")
    constants(barrier_ns=4000.0)
    assert decision(layer, 50, 1) == (1, "none", "unshared")


@openmp
def test_the_cache_decides_between_rows_and_blocks(constants):
    layer = fl.LSTM(128, 128, num_threads=2)
    constants(shared_bytes_per_ns=10.0)
    assert decision(layer, 10, 16) == (2, "rows", "rows")
    constants(shared_bytes_per_ns=10.0, private_cache=400_000.0)
    assert decision(layer, 10, 16) == (2, "blocks", "cache")


@openmp
def test_all_cores_together_decide_between_rows_and_blocks(constants):
    layer = fl.LSTM(256, 256, num_threads=8)
    assert layer.plan(50, 512).split == "rows"
    constants(shared_bytes_per_ns_all=10.0)
    assert decision(layer, 50, 512) == (8, "blocks", "cache")


@openmp
def test_siblings_are_not_counted_as_cores(constants):
    layer = fl.LSTM(64, 64, num_threads=16)
    constants(cores=8.0)
    assert decision(layer, 50, 64) == (8, "rows", "rows")
    constants(cores=8.0, sibling_rate=0.8)
    assert decision(layer, 50, 64) == (16, "rows", "rows")
    constants(cores=4.0, sibling_rate=0.8)
    assert decision(layer, 50, 64)[0] == 8  # more would take turns


@openmp
def test_cores_that_slow_each_other_down_are_left_alone(constants):
    layer = fl.LSTM(64, 64, num_threads=4)
    constants(cores=16.0, all_cores_rate=0.1)
    assert decision(layer, 50, 64) == (1, "none", "unshared")
    constants(cores=16.0, all_cores_rate=1.0)
    assert decision(layer, 50, 64) == (4, "rows", "rows")


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
    lines = str(fl.LSTM(128, 128, num_threads=1).plan(50, 8)).split("\n")
    assert lines[:6] == [
        "50 steps of 8 rows: on the calling thread",
        "estimate: 1.17 ms; on one thread a step of the first layer 2.1 Mflop, 23.4 us, at 100 flop/ns at most",
        "compared: 1 thread 1.17 ms",
        "threads: no more than one is allowed",
        "weights: 524 kB per step; a layer's 524 kB fit in the 786 kB one core keeps",
        "input products: in one chain with the recurrent ones, as a step's own rows fill a tile",
    ]


@openmp
def test_a_plan_says_what_it_compared(constants):
    constants(wake_ns=7000.0, barrier_ns=333.0)
    plan = fl.LSTM(128, 128, num_threads=4).plan(50, 3)
    assert set(plan.compared) == {"none", "rows", "blocks"}
    assert plan.compared["none"] == (1, plan.work_ns)
    assert plan.compared[plan.split] == (plan.threads, plan.estimate_ns)
    text = str(plan)
    compared = [line for line in text.split("\n") if line.startswith("compared: ")]
    one, rows, blocks = compared[0].removeprefix("compared: ").split("; ")
    assert one == f"1 thread {planning._time(plan.work_ns)}"
    assert rows.startswith("rows 3 threads ")
    assert blocks.startswith("blocks 4 threads ")
    assert "4 threads" in text
    assert "a barrier per step (0.333 us)" in text
    small = fl.LSTM(8, 8, num_threads=4).plan(2, 1)
    assert set(small.compared) == {"none"}
    assert "waking a thread (7 us)" in str(small)


def test_every_reason_has_words():
    packed = fl.LSTM(128, 128)._packed()
    found = {**packed.plan(1000, 2), "workspace_bytes": 0, "chunk": 100}
    texts = set()
    for why, hoist in itertools.product(_core.WHY, _core.WHY_HOIST):
        text = str(planning.Plan({**found, "why": why, "why_hoist": hoist}, 1000, 2))
        assert len(text.split("\n")) <= 9
        texts.add(text)
    assert len(texts) == len(_core.WHY) * len(_core.WHY_HOIST)


@openmp
def test_constants_never_change_a_result(constants):
    p = problem(Case(T=9, B=10, I=64, H=96, layers=2), "float32")
    results, splits = [], set()
    for wake, shared in itertools.product((1000.0, 200_000.0), (1.0, 1000.0)):
        constants(wake_ns=wake, private_cache=131_072.0, shared_bytes_per_ns=shared)
        layer = p.layer(num_threads=2)
        splits.add(layer.plan(9, 10).split)
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


@openmp
def test_a_plan_says_whether_threads_have_a_core_each(constants):
    layer = fl.LSTM(128, 128, num_threads=12)
    plan = layer.plan(50, 240)
    assert (plan.threads, plan.cores) == (12, 64)
    assert "cores: 12 of 64, one for each thread" in str(plan).split("\n")
    constants(cores=8.0, sibling_rate=1.0)
    plan = layer.plan(50, 240)
    assert (plan.threads, plan.cores) == (12, 8)
    assert "cores: 8 cores for 12 threads, so some share one" in str(plan).split("\n")
