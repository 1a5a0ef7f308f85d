"""Teams that lose their processors: one worker finishes the call, and nobody can tell from the result."""

from textwrap import dedent

import pytest
from grids import SPLITS, assert_split, flat, openmp, problem, same, says

from fastlstm import _core


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
def test_a_real_stall_dissolves_the_team_and_is_forgiven():
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
