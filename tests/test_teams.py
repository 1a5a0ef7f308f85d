"""Teams that are not faster than one thread: they are halved, and nobody can tell from the result."""

import sys
import time
from textwrap import dedent

import numpy as np
import pytest
from grids import SPLITS, Case, assert_split, flat, openmp, problem, same, says

from fastlstm import _core, machine


@pytest.fixture(params=_core.TEAM_MANNERS)
def manner(request):
    _core.force_team(request.param)
    yield request.param
    _core.force_team("persists")


@openmp
@pytest.mark.parametrize("name", SPLITS)
def test_whoever_finishes_the_result_is_the_same(name, manner, favour):
    threads, case = SPLITS[name]
    favour(name)
    p = problem(case, "float32")
    alone = p.layer(num_threads=1)
    together = p.layer(num_threads=threads[-1])
    together.load_state_dict(alone.state_dict())
    assert_split(together, name.split(",")[0], threads[-1], case.T, case.B)
    same(together(p.x, **p.given), alone(p.x, **p.given))
    *_, cache = alone.forward(p.x, cache=True, **p.given)
    *_, other = together.forward(p.x, cache=True, **p.given)
    same(
        list(flat(together.backward(p.dy, other, p.dstate)).values()),
        list(flat(alone.backward(p.dy, cache, p.dstate)).values()),
    )
    assert _core.teams_active() == 0


@openmp
def test_four_workers_on_one_processor_compute_the_same():
    # Four workers on one processor cannot all be running: somebody waits at a barrier for longer than a step takes.
    code = """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        import numpy as np, fastlstm as fl
        lstm = fl.LSTM(64, 256, rng=0, num_threads=4)
        x = np.zeros((500, 2, 64), np.float32)
        y, again = lstm(x)[0], lstm(x)[0]
        plan = lstm.plan(500, 2)
        print(plan.split, plan.threads, bool((y == again).all()))
    """
    assert says(dedent(code)) == ["blocks 4 True"]


# ---- who is at work: a worker that was sent away comes to no further step


SHARED = Case(T=30, B=1, I=64, H=256)
HALVES = Case(T=30, B=1, I=64, H=256, layers=2, bidirectional=True)  # each half of a team runs a direction


@pytest.fixture
def adapting():
    """Teams are judged, on a machine so slow by its description that they are ahead unless they are held up."""
    machine.settle(2)  # what the first model would do, after which it is the test's turn
    _core.set_machine({**_core.BUILT_IN, "flops_per_ns": (1.0, 1.0)})
    _core.force_team("adapts")
    yield
    _core.force_team("persists")
    _core.set_machine(None)


def layer_of(case, threads):
    layer = problem(case, "float32").layer(num_threads=threads)
    assert layer.plan(case.T, case.B).split == "blocks" and layer.plan(case.T, case.B).threads == threads
    return layer


@openmp
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("threads, case", [(2, SHARED), (4, SHARED), (4, HALVES)], ids=["2", "4", "two halves"])
def test_a_team_that_loses_at_every_step_is_halved(threads, case, backward, adapting):
    p = problem(case, "float32")
    layer, alone = layer_of(case, threads), p.layer(num_threads=1)
    cache = layer.forward(p.x, cache=True, **p.given)[-1]
    expected = alone.backward(p.dy, alone.forward(p.x, cache=True, **p.given)[-1], p.dstate) if backward else None
    delays = np.full((2000, threads), 8000, np.int32)  # us: more than a step takes one thread by the plan
    delays[:, 0] = 0

    def steps():
        """Of each worker in a call."""
        with _core.Disturbance(delays) as noise:
            if backward:
                same(list(flat(layer.backward(p.dy, cache, p.dstate)).values()), list(flat(expected).values()))
            else:
                same(layer(p.x, **p.given), alone(p.x, **p.given))
            return noise.taken

    for attempt in range(5):  # a pause is over after 64 ms, which other programs may take
        first, second = steps(), steps()
        if case == HALVES and not backward:  # workers are numbered inside each half
            assert 6 <= first[:2].min() < case.T, f"steps of each worker: {first}"
            paused = second.sum() <= 2 * case.layers
        else:
            assert 6 <= first[threads - 1] < 10, f"steps of each worker: {first}"
            paused = second[threads - 1] == 0
        if paused:
            return
        time.sleep(0.3)
    pytest.fail(f"steps of each worker in the pause: {second}")


@openmp
def test_short_steps_that_take_a_time_slice_each_end_the_team_soon(adapting):
    """Six steps: they need not fill six windows of work, which would take a second here."""
    _core.set_machine({**_core.BUILT_IN, "flops_per_ns": (500.0, 500.0), "barrier_ns": 50.0, "wake_ns": 1000.0})
    case = Case(T=40, B=1, I=32, H=128)
    p = problem(case, "float32")
    layer = layer_of(case, 2)
    delays = np.zeros((case.T, 2), np.int32)
    delays[:, 1] = 8000
    with _core.Disturbance(delays) as noise:
        same(layer(p.x, **p.given), p.layer(num_threads=1)(p.x, **p.given))
    assert 6 <= noise.taken[1] < 10, f"steps of each worker: {noise.taken}"


@openmp
def test_a_team_that_is_late_once_goes_on(adapting):
    case = SHARED._replace(I=63)  # calls of one kind are judged together: none of them has been slow
    p = problem(case, "float32")
    layer = layer_of(case, 2)
    layer(p.x, **p.given)  # new memory, new threads
    delays = np.zeros((SHARED.T, 2), np.int32)
    delays[10, 1] = 20_000
    for attempt in range(5):  # other programs may hold it up at every step
        with _core.Disturbance(delays) as noise:
            layer(p.x, **p.given)
        if (noise.taken == SHARED.T).all():
            return
        time.sleep(0.3)
    pytest.fail(f"steps of each worker: {noise.taken}")


@openmp
@pytest.mark.parametrize("workers", [2, 3, 4, 5, 16, 17, 64])
def test_teams_of_any_size_come_together(workers):
    times, sizes = _core.rehearse(workers, 5, 100.0)
    assert sizes.tolist() == [workers] * 5 and (times > 0).all()
    _core.force_team("halves")
    try:
        left = [workers // 2, workers // 4, workers // 8, workers // 16, workers // 32]
        assert _core.rehearse(workers, 5, 100.0)[1].tolist() == [max(1, n) for n in left]
    finally:
        _core.force_team("persists")


# ---- what the system refuses


REFUSED = """
    import resource
    import numpy as np, fastlstm as fl
    from fastlstm import _core
    _core.force_team("persists")
    lstm = fl.LSTM(64, 256, rng=0, num_threads=64)
    x = np.random.default_rng(0).standard_normal((20, 2, 64)).astype(np.float32)
    expected = fl.LSTM(64, 256, rng=0, num_threads=1)(x)[0]
    lstm(np.zeros((1, 1, 64), np.float32))
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (10 << 20), -1))
    workers = _core.rehearse(64, 1, 1.0)[1][0]
    same = (lstm(x)[0] == expected).all()
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, -1))
    fl.LSTM(8, 8)  # still at work
    print(1 <= workers < 32, bool(same), _core.teams_active())
"""


@openmp
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at Linux's own account of memory")
def test_threads_that_the_system_refuses_make_a_smaller_team():
    assert says(dedent(REFUSED)) == ["True True 0"]
