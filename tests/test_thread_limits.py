"""How many threads a call may use: by default, and where a number asks for more or fewer."""

import asyncio
import os
import sys
import threading
from textwrap import dedent

import numpy as np
import pytest
from grids import Case, openmp, problem, python, same, says

import fastlstm as fl
from fastlstm import _core, runtime

WORK = Case(T=6, B=17, I=64, H=96, layers=2)  # worth four threads
MODEL = "import os, threading, fastlstm as fl; model = fl.LSTM(64, 128);"
ASK = "print(fl.get_num_threads(), model._packed().plan(400, 64)['threads'])"
SEVERAL = pytest.mark.usefixtures("several")
AFFINITY = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks here")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks for libraries in /proc")
# `openmp`: the library that is loaded; `in_a_thread`: what a function says in a thread of its own
LOADED = """
import ctypes, re
openmp = ctypes.CDLL(re.search(r"/\\S*lib(gomp|omp|iomp5)\\S*", open("/proc/self/maps").read())[0])
def in_a_thread(function):
    said = []
    thread = threading.Thread(target=lambda: said.append(function()))
    thread.start()
    thread.join()
    return said[0]
"""


@pytest.fixture(autouse=True)
def default():
    """No test inherits a number that another one has set."""
    fl.set_num_threads(None)
    yield
    fl.set_num_threads(None)


@pytest.fixture(scope="module")
def several():
    # asked in a process of its own: torch's number, which other tests set, bounds that of this one
    if says("import fastlstm as fl; print(fl.get_num_threads())") == ["1"]:
        pytest.skip("no more than one thread is allowed here anyway")


def code(*parts):
    return "\n".join(map(dedent, parts))


# ---------------------------------------------------------------------------------------- the default


@openmp
@AFFINITY
def test_the_affinity_mask_is_respected():
    one = "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]);"
    assert says("import os;" + one + MODEL + ASK) == ["1 1"]
    assert int(says(MODEL + ASK)[0].split()[0]) <= len(os.sched_getaffinity(0))
    assert says("import os;" + one + MODEL + ASK, FASTLSTM_NUM_THREADS="2") == ["2 2"]  # who says it gets it


@openmp
@AFFINITY
@SEVERAL
def test_an_affinity_mask_may_change_after_import():
    lines = says(code(MODEL, ASK, """
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(allowed)})
    """, ASK, "os.sched_setaffinity(0, allowed)", ASK))
    assert lines[0] == lines[2] != lines[1] == "1 1"


@openmp
@SEVERAL
def test_openmps_number_in_the_environment_is_respected():
    assert says(MODEL + ASK, OMP_NUM_THREADS="1") == says(MODEL + ASK, OMP_THREAD_LIMIT="1") == ["1 1"]
    assert says(MODEL + ASK, OMP_NUM_THREADS="2") == ["2 2"]
    assert says(MODEL + ASK, OMP_NUM_THREADS="1000") == says(MODEL + ASK)  # it adds no processors
    assert says(MODEL + ASK, OMP_NUM_THREADS="1", FASTLSTM_NUM_THREADS="3") == ["3 3"]


@openmp
@LINUX
@SEVERAL
def test_openmps_number_of_one_thread_is_that_threads():
    lines = says(code(MODEL, LOADED, f"before = fl.get_num_threads(); openmp.omp_set_num_threads(1); {ASK}", """
        print(in_a_thread(fl.get_num_threads) == before)
        openmp.omp_set_num_threads(before)
        print(fl.get_num_threads() == before)
        def other():
            openmp.omp_set_num_threads(1)
            return fl.get_num_threads()
        print(in_a_thread(other), fl.get_num_threads() == before)
    """))
    assert lines == ["1 1", "True", "True", "1 True"]


@openmp
@SEVERAL
def test_threadpoolctl_is_respected():
    pytest.importorskip("threadpoolctl")
    lines = says(code(MODEL, "from threadpoolctl import threadpool_limits", ASK, f"""
        with threadpool_limits(1):
            {ASK}
    """, ASK))
    assert lines[0] == lines[2] != lines[1] == "1 1"


@openmp
@SEVERAL
def test_workers_of_joblib_share_the_processors():
    pytest.importorskip("joblib")
    lines = says(code("""
        import joblib
        def ask():
            import fastlstm
            return fastlstm.get_num_threads()
        with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
            print(joblib.Parallel(n_jobs=2)(joblib.delayed(ask)() for _ in range(2)))
    """))
    assert lines == ["[1, 1]"]


@openmp
@SEVERAL
@pytest.mark.parametrize("order", ["fastlstm as fl, torch", "torch, fastlstm as fl"])
def test_torchs_number_is_respected(order):
    pytest.importorskip("torch")
    lines = says(code(f"import {order}", """
        model = fl.LSTM(64, 128)
        for n in (1, 2, 1):
            torch.set_num_threads(n)
            torch.ones(300, 300) @ torch.ones(300, 300)
            print(fl.get_num_threads(), model._packed().plan(400, 64)["threads"])
    """))
    assert lines == ["1 1", "2 2", "1 1"]


@openmp
@SEVERAL
def test_a_quota_is_respected():
    before = fl.get_num_threads()
    try:
        _core.force_quota(1)
        assert _core.num_threads_why() == (1, "quota")
        _core.force_quota(1024)
        assert fl.get_num_threads() >= before
        fl.set_num_threads(3)
        _core.force_quota(1)
        assert fl.get_num_threads() == 3
    finally:
        _core.force_quota(None)
        fl.set_num_threads(None)
    assert fl.get_num_threads() == before


# files under the root of a described system -> processors
V1 = "sys/fs/cgroup/cpu,cpuacct"
QUOTAS = {
    "no files": ({}, 0),
    "a container": ({"sys/fs/cgroup/cpu.max": "200000 100000\n", "proc/self/cgroup": "0::/\n"}, 2),
    "no list of groups": ({"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
    "no quota": ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, 0),
    "rounded up": ({"sys/fs/cgroup/cpu.max": "250001 100000\n"}, 3),
    "less than one": ({"sys/fs/cgroup/cpu.max": "5000 100000\n"}, 1),
    "more than there may be": ({"sys/fs/cgroup/cpu.max": f"{2**63 - 1} 1\n"}, 1024),
    "no numbers": ({"sys/fs/cgroup/cpu.max": "lots\n"}, 0),
    "one number": ({"sys/fs/cgroup/cpu.max": "100000\n"}, 0),
    "a negative number": ({"sys/fs/cgroup/cpu.max": "-100000 100000\n"}, 0),
    "nested": ({"sys/fs/cgroup/a/b/cpu.max": "300000 100000\n", "proc/self/cgroup": "0::/a/b\n"}, 3),
    "of a group above": (
        {
            "sys/fs/cgroup/a/b/c/cpu.max": "max 100000\n", "sys/fs/cgroup/a/cpu.max": "400000 100000\n",
            "proc/self/cgroup": "0::/a/b/c\n",
        },
        4,
    ),
    "the least of several": (
        {
            "sys/fs/cgroup/a/b/cpu.max": "800000 100000\n", "sys/fs/cgroup/a/cpu.max": "300000 100000\n",
            "sys/fs/cgroup/cpu.max": "900000 100000\n", "proc/self/cgroup": "0::/a/b\n",
        },
        3,
    ),
    "a path of the host": (
        {"sys/fs/cgroup/cpu.max": "400000 100000\n", "proc/self/cgroup": "0::/system/docker-1\n"}, 4
    ),
    "outside of what is mounted": (
        {
            "sys/fs/b/cpu.max": "100000 100000\n", "sys/fs/cgroup/cpu.max": "max 100000\n",
            "proc/self/cgroup": "0::/../b\n",
        },
        0,
    ),
    "a path that is too long": (
        {"sys/fs/cgroup/cpu.max": "400000 100000\n", "proc/self/cgroup": f"0::/{'x' * 5000}\n"}, 4
    ),
    "a list that is too long": (
        {"sys/fs/cgroup/cpu.max": "400000 100000\n", "proc/self/cgroup": "7:pids:/\n" * 4000}, 4
    ),
    "of others": ({"sys/fs/cgroup/b/cpu.max": "100000 100000\n", "proc/self/cgroup": "0::/a\n"}, 0),
    "version 1, a container": (
        {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 2
    ),
    "version 1, no quota": (
        {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 0
    ),
    "version 1, no period": ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n"}, 0),
    "version 1, nested": (
        {
            f"{V1}/job/1/cpu.cfs_quota_us": "-1\n", f"{V1}/job/1/cpu.cfs_period_us": "100000\n",
            f"{V1}/job/cpu.cfs_quota_us": "120000\n", f"{V1}/job/cpu.cfs_period_us": "50000\n",
            "proc/self/cgroup": "5:memory:/\n4:cpu,cpuacct:/job/1\n0::/\n",
        },
        3,
    ),
    "version 1, another controller": (
        {
            "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "100000\n", "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
            "proc/self/cgroup": "3:cpuset,cpuacct:/job\n1:name=cpu:/job\nnonsense\n4:cpu\n",
        },
        0,
    ),
    "both versions": (
        {
            "sys/fs/cgroup/a/cpu.max": "700000 100000\n",
            "sys/fs/cgroup/cpu/b/cpu.cfs_quota_us": "500000\n", "sys/fs/cgroup/cpu/b/cpu.cfs_period_us": "100000\n",
            "proc/self/cgroup": "1:cpu:/b\n0::/a\n",
        },
        5,
    ),
}


@LINUX
@pytest.mark.parametrize("name", QUOTAS)
def test_quotas_of_control_groups(name, tmp_path):
    files, processors = QUOTAS[name]
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert _core.cgroup_quota(str(tmp_path)) == processors


@LINUX
def test_a_root_whose_name_is_too_long_has_no_quota():
    assert _core.cgroup_quota("/x" * 5000) == 0
    assert 0 <= _core.cgroup_quota() <= 1024


# ----------------------------------------------------------------------------------- asked for by number


@openmp
def test_fastlstm_num_threads_is_respected():
    more = fl.get_num_threads() + 3
    for n in (1, 2, 3, more):
        assert says(MODEL + ASK, FASTLSTM_NUM_THREADS=str(n))[0].split()[0] == str(n)
    assert says(MODEL + ASK, FASTLSTM_NUM_THREADS="3") == ["3 3"]
    default = says(MODEL + ASK)
    assert says(MODEL + ASK, FASTLSTM_NUM_THREADS="0") == says(MODEL + ASK, FASTLSTM_NUM_THREADS="") == default
    assert says("import fastlstm as fl; print(fl.get_num_threads())", FASTLSTM_NUM_THREADS="1024") == ["1024"]


def test_a_variable_that_was_put_right_is_read():
    lines = says(dedent("""
        import os, fastlstm as fl
        try:
            fl.get_num_threads()
        except RuntimeError as error:
            print(error)
        os.environ["FASTLSTM_NUM_THREADS"] = "1"
        print(fl.get_num_threads())
    """), FASTLSTM_NUM_THREADS="many")
    assert lines == ["FASTLSTM_NUM_THREADS='many' must be an integer in 0..1024 (0: the default)", "1"]


def test_a_wrong_variable_is_an_error_whatever_else_was_set():
    status, _, err = python("import fastlstm as fl; fl.set_num_threads(1); fl.get_num_threads()",
                            FASTLSTM_NUM_THREADS="many")
    assert status == 1
    assert "RuntimeError: FASTLSTM_NUM_THREADS='many'" in err


@openmp
def test_set_num_threads_goes_before_the_environment_and_back():
    lines = says(MODEL + f"""
for n in (2, 1, None):
    fl.set_num_threads(n)
    {ASK}
""", FASTLSTM_NUM_THREADS="3")
    assert lines == ["2 2", "1 1", "3 3"]


@openmp
def test_set_num_threads_may_be_above_the_default():
    more = fl.get_num_threads() + 3
    fl.set_num_threads(more)
    assert fl.get_num_threads() == more
    said = []
    thread = threading.Thread(target=lambda: said.append(fl.get_num_threads()))
    thread.start()
    thread.join()
    assert said == [more]  # it is the process's


@openmp
def test_a_models_own_number_goes_before_that_of_the_process():
    p = problem(WORK, "float32")
    fl.set_num_threads(1)
    assert p.layer().plan(6, 17).threads == 1
    layer = p.layer(num_threads=3)
    assert layer.plan(6, 17).threads == 3
    same(layer(p.x, **p.given), p.layer()(p.x, **p.given))


def test_small_work_stays_on_the_calling_thread():
    layer = fl.LSTM(8, 8, num_threads=8)
    assert layer.plan(10, 1).threads == 1
    assert np.isfinite(layer(np.zeros((10, 1, 8)))[0]).all()


@openmp
def test_no_number_is_above_1024():
    before = fl.get_num_threads()
    try:
        for n in (1024, 1025, 2**31 - 1):
            assert _core.team_limit(n) == 1024
            _core.set_num_threads(n)
            assert fl.get_num_threads() == 1024
            assert _core.num_threads_here(n) == 0
            assert _core.num_threads_here(0) == 1024
    finally:
        _core.set_num_threads(-5)
    assert fl.get_num_threads() == before == _core.team_limit(0) == _core.team_limit(-1)


def test_a_call_that_asks_for_too_many_runs():
    p = problem(WORK, "float32")
    packed = p.layer()._packed()
    assert packed.plan(10**6, 10**6, threads=2**31 - 1)["threads"] <= 1024
    assert packed.workspace_bytes(6, 17, threads=2**31 - 1) == packed.workspace_bytes(6, 17, threads=1024)


@pytest.mark.parametrize("threads", [100_000, 2**31 - 1])
def test_a_probe_with_too_many_threads_ends_well(threads):
    lines = says(f"""
from fastlstm import _core
one = _core.probe_fma("float32", 1)
print(1 <= _core.probe_fma("float32", 1, {threads}) / one <= 1024)
""")
    assert lines == ["True"]


def test_a_probe_refuses_sizes_beyond_reason():
    with pytest.raises(ValueError, match="out of range"):
        _core.probe_fma("float32", -1)
    with pytest.raises(ValueError, match="out of range"):
        _core.probe_fma("float32", 1, -1)
    lines = says("""
from fastlstm import _core
try:
    _core.probe_fma("float32", 2**62)  # else it would run for years
except MemoryError as error:
    print(error)
""", timeout=60)
    assert lines == ["the sizes are too large for this machine's address space"]


# ------------------------------------------------------------------------- with fastlstm.num_threads(n)


@pytest.fixture
def five():
    """The process's setting is five."""
    fl.set_num_threads(5)
    yield
    fl.set_num_threads(None)
    assert _core.num_threads_here(0) == 0  # nothing is left behind


@openmp
def test_a_block_bounds_the_calls_inside(five):
    p = problem(WORK, "float32")
    layer, own, small = p.layer(), p.layer(num_threads=4), p.layer(num_threads=2)
    expected = layer(p.x, **p.given)
    with fl.num_threads(3):
        assert fl.get_num_threads() == 3
        assert [one.plan(6, 17).threads for one in (layer, own, small)] == [3, 3, 2]
        same(own(p.x, **p.given), expected)
    with fl.num_threads(1):
        assert [one.plan(6, 17).threads for one in (layer, own, small)] == [1, 1, 1]
        same(own(p.x, **p.given), expected)
    assert own.plan(6, 17).threads == 4
    assert fl.get_num_threads() == 5


@openmp
def test_a_block_may_be_above_the_process(five):
    with fl.num_threads(7):
        assert fl.get_num_threads() == 7
        fl.set_num_threads(2)
        assert fl.get_num_threads() == 7
    assert fl.get_num_threads() == 2


@openmp
def test_blocks_in_blocks(five):
    seen = []
    with fl.num_threads(4):
        seen.append(fl.get_num_threads())
        with fl.num_threads(6):
            seen.append(fl.get_num_threads())
            with fl.num_threads(None):
                seen.append(fl.get_num_threads())
            seen.append(fl.get_num_threads())
        seen.append(fl.get_num_threads())
    assert seen == [4, 6, 5, 6, 4]


@openmp
def test_one_bound_may_be_used_again_and_inside_itself(five):
    two = fl.num_threads(2)
    for _ in range(2):
        with two:
            assert fl.get_num_threads() == 2
            with fl.num_threads(3), two:
                assert fl.get_num_threads() == 2
            assert fl.get_num_threads() == 2
        assert fl.get_num_threads() == 5


@openmp
def test_an_exception_leaves_the_block(five):
    with pytest.raises(KeyError), fl.num_threads(2):
        raise KeyError
    assert fl.get_num_threads() == 5


@openmp
def test_other_threads_go_by_the_process(five):
    said, two, gate = {}, fl.num_threads(2), threading.Barrier(2, timeout=60)

    def plain():
        said["plain"] = fl.get_num_threads()

    def own():
        with fl.num_threads(3):
            with two:
                gate.wait()
                said["own"] = fl.get_num_threads()
                gate.wait()  # the first thread leaves the same bound here, before this one
                gate.wait()
            said["own, outside"] = fl.get_num_threads()

    threads = [threading.Thread(target=one) for one in (plain, own)]
    with two:
        for thread in threads:
            thread.start()
        gate.wait()
        said["first"] = fl.get_num_threads()
        gate.wait()
    said["first, outside"] = fl.get_num_threads()
    gate.wait()
    for thread in threads:
        thread.join()
    assert said == {"plain": 5, "own": 2, "own, outside": 3, "first": 2, "first, outside": 5}


@openmp
def test_a_decorator(five):
    @fl.num_threads(2)
    def down(n):
        """Counts."""
        return [fl.get_num_threads(), *(down(n - 1) if n else [])]

    assert down(2) == [2, 2, 2]
    assert down.__doc__ == "Counts."
    assert fl.get_num_threads() == 5


@openmp
def test_a_generator_that_pauses_inside_keeps_the_bound(five):
    def numbers():
        with fl.num_threads(2):
            yield fl.get_num_threads()
            yield fl.get_num_threads()

    running = numbers()
    assert next(running) == 2
    assert fl.get_num_threads() == 2  # the bound is the thread's
    running.close()
    assert fl.get_num_threads() == 5


@openmp
def test_a_coroutine_that_waits_outside_a_block(five):
    async def one(n):
        with fl.num_threads(n):
            inside = fl.get_num_threads()
        await asyncio.sleep(0)
        return inside, fl.get_num_threads()

    async def both():
        return await asyncio.gather(one(2), one(3))

    assert asyncio.run(both()) == [(2, 5), (3, 5)]


@pytest.mark.parametrize("n, error, words", [
    (0, ValueError, "n must be in 1..1024, got 0"), (1025, ValueError, "n must be in 1..1024, got 1025"),
    (-2, ValueError, "n must be in 1..1024, got -2"), (1.0, TypeError, "n must be an integer or None, got float"),
    ("2", TypeError, "n must be an integer or None, got str"),
    (True, TypeError, "n must be an integer or None, got bool"),
])
def test_a_bound_that_is_none(n, error, words):
    with pytest.raises(error, match=words):
        fl.num_threads(n)


@openmp
def test_nothing_is_measured_for_one_thread(five, monkeypatch):
    from fastlstm import machine

    source = machine._source
    machine.forget()
    monkeypatch.setenv("FASTLSTM_MACHINE", "measure")
    monkeypatch.setattr(_core, "measure_machine", lambda threads: pytest.fail("measured"))
    try:
        with fl.num_threads(1):
            fl.LSTM(3, 4, num_threads=2)([[[1, 2, 3]]])
    finally:
        machine._source = source


# ------------------------------------------------------------------------------------------- in words


@openmp
def test_the_configuration_says_what_made_the_number():
    ask = "import fastlstm as fl; print(fl.get_num_threads(), fl.runtime.config()['threads'])"
    assert says(ask, FASTLSTM_NUM_THREADS="3") == ["3 3 (FASTLSTM_NUM_THREADS)"]
    try:
        fl.set_num_threads(2)
        assert runtime.config()["threads"] == "2 (set_num_threads)"
        with fl.num_threads(1):
            assert runtime.config()["threads"] == "1 (a num_threads block)"
        fl.set_num_threads(None)
        _core.force_quota(1)
        if len(getattr(os, "sched_getaffinity", lambda _: range(2))(0)) > 1:
            assert runtime.config()["threads"] == "1 (the container's quota of processor time)"
    finally:
        fl.set_num_threads(None)
        _core.force_quota(None)


@openmp
@SEVERAL
def test_the_configuration_names_openmp_and_the_affinity_mask():
    ask = "import fastlstm as fl; print(fl.runtime.config()['threads'])"
    assert says(ask, OMP_NUM_THREADS="1") == ["1 (OpenMP's setting)"]
    if hasattr(os, "sched_setaffinity"):
        one = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        assert says(one + ask) == ["1 (the processors this thread may run on)"]


def test_every_bound_has_its_words():
    assert set(runtime._BOUNDS) == set(_core.BOUNDS)


@openmp
@LINUX
@SEVERAL
def test_inside_a_parallel_region():
    """Two threads of a region of GNU OpenMP's each ask; they have the processors between them."""
    lines = says(code(MODEL, LOADED, """
        if hasattr(openmp, "GOMP_parallel"):
            said = []
            body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(
                lambda _: said.append((fl.get_num_threads(), fl.runtime.config()["threads"])))
            openmp.GOMP_parallel(body, None, 2, 0)
            print(*sorted(said), fl.get_num_threads() > 1, sep="\\n")
            openmp.omp_set_max_active_levels(2)
            said.clear()
            openmp.GOMP_parallel(body, None, 2, 0)
            print(all(n > 1 for n, _ in said))
    """))
    if lines:
        inside = "(1, '1 (inside a parallel region of OpenMP)')"
        assert lines == [inside, inside, "True", "True"]
