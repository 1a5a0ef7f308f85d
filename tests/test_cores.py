"""Cores and places: which processors share a core, on machines described in folders, and where workers go on them."""

import os
import random
from textwrap import dedent

import pytest
from grids import openmp, says

from fastlstm import _core, runtime

linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks here")
posix = pytest.mark.skipif(os.name != "posix", reason="the folder is that of Linux")


def ranges(processors):
    """As Linux writes a set: 0-3,8"""
    words = []
    for p in sorted(processors):
        if words and words[-1][1] == p - 1:
            words[-1][1] = p
        else:
            words.append([p, p])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in words) + "\n"


def describe(folder, cores, name="core_cpus_list", online=True):
    """A folder like /sys/devices/system/cpu. cores: the processors of each."""
    for core in cores:
        for p in core:
            write(folder, p, ranges(core), name)
    if online:
        (folder / "online").write_text(ranges(p for core in cores for p in core), encoding="ascii")
    return str(folder)


def write(folder, processor, text, name="core_cpus_list"):
    place = folder / f"cpu{processor}" / "topology"
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_text(text, encoding="ascii")


def groups(lowest):
    """The cores of more than one processor."""
    found = {}
    for p, core in enumerate(lowest):
        found.setdefault(core, []).append(p)
    return [core for core in found.values() if len(core) > 1]


def lowest_of(cores):
    """What read_cores gives for that machine."""
    lowest = list(range(_core.PROCESSORS))
    for core in cores:
        for p in core:
            lowest[p] = min(core)
    return lowest


MACHINES = {
    "2 cores": [[0], [1]],
    "4 x 2": [[k, k + 4] for k in range(4)],
    "8 x 2, siblings far": [[k, k + 8] for k in range(8)],
    "8 x 2, siblings near": [[2 * k, 2 * k + 1] for k in range(8)],
    "2 sockets of 16 x 2": [[k, k + 32] for k in range(32)],
    "2 sockets of 64 x 2, words apart": [[k, k + 128] for k in range(128)],
    "8 fast x 2, 8 slow": [[2 * k, 2 * k + 1] for k in range(8)] + [[k] for k in range(16, 24)],
    "4 x 8": [list(range(8 * k, 8 * k + 8)) for k in range(4)],
    "sparse, up to the last": [[5, 700], [64, 65], [1022, 1023]],
}


# ---- which processors share a core ------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("name", ["core_cpus_list", "thread_siblings_list"])
@pytest.mark.parametrize("machine", MACHINES)
def test_a_described_machine(tmp_path, machine, name, online):
    cores = MACHINES[machine]
    assert _core.read_cores(describe(tmp_path, cores, name, online)) == lowest_of(cores)


@posix
def test_the_newer_file_is_read_first(tmp_path):
    describe(tmp_path, [[0, 1]])
    describe(tmp_path, [[0], [1]], "thread_siblings_list")
    assert groups(_core.read_cores(str(tmp_path))) == [[0, 1]]


@posix
def test_a_newer_file_of_nonsense_leaves_the_older_one(tmp_path):
    folder = describe(tmp_path, [[0, 1]], "thread_siblings_list")
    describe(tmp_path, [[7]])  # of another machine
    write(tmp_path, 0, "what?\n")
    assert groups(_core.read_cores(folder)) == []  # 0 and 1 are not online
    (tmp_path / "online").write_text("0-1\n", encoding="ascii")
    assert groups(_core.read_cores(folder)) == [[0, 1]]


@posix
@pytest.mark.parametrize("folder", ["", "/nowhere/at/all", "x" * 600, "/dev/null"])
def test_no_description(folder):
    assert _core.read_cores(folder) == list(range(_core.PROCESSORS))


@posix
def test_a_folder_with_too_long_a_name_is_not_read(tmp_path):
    folder = tmp_path.joinpath(*["x" * 100] * 5)
    folder.mkdir(parents=True)
    assert groups(_core.read_cores(describe(folder, [[0, 1]]))) == []


@posix
@pytest.mark.parametrize("text", [
    "", "\n", " 0,4\n", "0,4 \n", "0,,4\n", "0,4,\n", ",0,4\n", "4-0\n", "0-\n", "-4\n", "0;4\n", "0,4\n0,4\n", "0x4\n",
    "0-31:2/4\n", "00000011\n", "5,6\n", "0-8\n", "00" + ",4" * 3000 + "\n", "0,4,6-5\n", "0,4294967300\n",
])  # fmt: skip
def test_a_processor_with_a_file_of_nonsense_is_a_core_of_its_own(tmp_path, text):
    cores = MACHINES["4 x 2"]
    folder = describe(tmp_path, cores)
    write(tmp_path, 0, text)
    assert groups(_core.read_cores(folder)) == cores[1:]
    describe(tmp_path, cores)
    write(tmp_path, 4, text.replace("4", "9").replace("0,", "1,"))
    assert groups(_core.read_cores(folder)) == cores[1:]


@posix
def test_both_must_say_so(tmp_path):
    folder = describe(tmp_path, [[0, 1], [2, 3], [4, 5]])
    write(tmp_path, 0, "0\n")  # 1 says 0-1
    write(tmp_path, 3, "3\n")  # 2 says 2-3
    assert groups(_core.read_cores(folder)) == [[4, 5]]


@posix
def test_three_that_disagree(tmp_path):
    folder = describe(tmp_path, [[0, 1, 2]])
    write(tmp_path, 1, "1-2\n")  # 0 says 0-2, and so does 2
    assert groups(_core.read_cores(folder)) == [[0, 2]]


@posix
def test_a_machine_of_one_core_with_too_many_threads_is_not_believed(tmp_path):
    assert groups(_core.read_cores(describe(tmp_path, [list(range(9))]))) == []


@posix
def test_processors_beyond_the_last_are_ignored(tmp_path):
    folder = describe(tmp_path, [[0, 1]])
    for p in (0, 1):
        write(tmp_path, p, "0-1,1024,5000-5001,99999999999999999999\n")
    (tmp_path / "online").write_text("0-1,1024-4000\n", encoding="ascii")
    assert groups(_core.read_cores(folder)) == [[0, 1]]


@posix
def test_processors_offline(tmp_path):
    """Linux leaves one that is offline out of its sibling's list, and takes its own list away."""
    folder = describe(tmp_path, [[1], [0, 4], [2, 6], [7]])
    write(tmp_path, 7, "7\n")
    (tmp_path / "online").write_text("0-2,4,6-7\n", encoding="ascii")
    assert groups(_core.read_cores(folder)) == [[0, 4], [2, 6]]
    (tmp_path / "online").write_text("1-2,4,6-7\n", encoding="ascii")  # 0 is offline, 4 has not noticed
    assert groups(_core.read_cores(folder)) == [[2, 6]]


@posix
def test_files_that_cannot_be_read(tmp_path):
    folder = describe(tmp_path, [[0, 1], [2, 3]])
    for name in ("cpu0/topology/core_cpus_list", "online"):
        (tmp_path / name).unlink()
        (tmp_path / name).mkdir()
    assert groups(_core.read_cores(folder)) == [[2, 3]]


# ---- how many ---------------------------------------------------------------------------------------------------


def test_cores_of_this_process():
    cores, processors = _core.cores()
    assert 1 <= cores <= processors
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
        lowest = _core.read_cores("/sys/devices/system/cpu")
        assert processors == len(allowed)
        assert cores == len({lowest[p] for p in allowed})


@linux
def test_cores_are_those_of_the_calling_threads_mask():
    code = """
        import os, threading
        from fastlstm import _core
        allowed = os.sched_getaffinity(0)
        def ask():
            os.sched_setaffinity(0, {max(allowed)})
            print(*_core.cores())
        thread = threading.Thread(target=ask); thread.start(); thread.join()
        print(_core.cores()[1] == len(allowed))
    """
    assert says(dedent(code)) == ["1 1", "True"]


WORDS = {
    (1, 1): "1 processor",
    (2, 2): "2 processors, each a core of its own as far as the system tells",
    (8, 16): "8 cores of 16 processors (2 threads a core)",
    (1, 2): "1 core of 2 processors (2 threads a core)",
    (16, 24): "16 cores of 24 processors",
}


@pytest.mark.parametrize("counts", WORDS)
def test_cores_in_words(monkeypatch, counts):
    monkeypatch.setattr(_core, "cores", lambda: counts)
    assert runtime.config()["cores"] == WORDS[counts]


# ---- where workers go -------------------------------------------------------------------------------------------


def team(cores, starts, allowed=None, others=False):
    """Where workers end that start on these processors, one after the other; the first is the caller, who stays."""
    allowed = {p for core in cores for p in core} if allowed is None else allowed
    return _core.try_places(lowest_of(cores), allowed, starts, others)


@pytest.mark.parametrize("start", [0, -1])
@pytest.mark.parametrize("machine", MACHINES)
def test_a_team_that_starts_on_one_processor_takes_cores_first_then_siblings(machine, start):
    cores = MACHINES[machine]
    processors = sorted(p for core in cores for p in core)
    lowest = lowest_of(cores)
    for workers in sorted({1, 2, 3, len(cores) - 1, len(cores), len(cores) + 1, len(processors), len(processors) + 2}):
        ends = team(cores, [processors[start]] * workers)
        assert ends[0] == processors[start]
        assert len({lowest[p] for p in ends}) == min(workers, len(cores))
        assert len(set(ends)) == min(workers, len(processors))


@pytest.mark.parametrize("machine", MACHINES)
def test_whatever_the_start_nobody_shares_what_need_not_be_shared(machine):
    cores, draw = MACHINES[machine], random.Random(3)
    processors = [p for core in cores for p in core]
    lowest = lowest_of(cores)
    for _ in range(20):
        starts = draw.choices(processors, k=draw.randint(1, len(processors)))
        ends = team(cores, starts)
        assert len({lowest[p] for p in ends}) == min(len(ends), len(cores))
        assert len(set(ends)) == len(ends)


@pytest.mark.parametrize("machine", MACHINES)
def test_nobody_moves_without_need(machine):
    cores, draw = MACHINES[machine], random.Random(4)
    processors = [p for core in cores for p in core]
    firsts = [draw.choice(core) for core in cores]
    for starts in (firsts, processors):  # a core each; a processor each, and as many workers as there are
        draw.shuffle(starts)
        assert team(cores, starts) == starts


def test_a_worker_moves_to_a_core_in_the_neighbourhood():
    assert team(MACHINES["2 sockets of 16 x 2"], [3, 3]) == [3, 4]
    assert team(MACHINES["2 sockets of 16 x 2"], [35, 3]) == [35, 4]
    assert team(MACHINES["8 fast x 2, 8 slow"], [2, 3]) == [2, 4]
    assert team(MACHINES["8 fast x 2, 8 slow"], [23, 23]) == [23, 0]  # behind the last comes the first


def test_as_many_share_as_there_are_workers_without_a_core():
    far = MACHINES["8 x 2, siblings far"]
    starts = [0, 8, 1, 9, 2, 10, 3, 11, 4, 12]  # ten on five cores of eight: two may stay on siblings
    ends = team(far, starts)
    assert ends[:5] == starts[:5]
    assert len(set(ends)) == 10
    assert len({p % 8 for p in ends}) == 8


def test_only_allowed_processors_are_used():
    far = MACHINES["8 x 2, siblings far"]
    assert team(far, [2, 2, 2, 2], allowed=[2, 3, 11]) == [2, 3, 11, 2]  # in a container of three
    assert team(far, [2, 10], allowed=[2, 10]) == [2, 10]  # of one core
    assert team(far, [2, 2], allowed=[2, 10]) == [2, 10]
    assert team(far, [2, 2, 2], allowed=[2]) == [2, 2, 2]


def test_beside_other_teams_only_a_taken_processor_is_left():
    far = MACHINES["8 x 2, siblings far"]
    assert team(far, [0, 8], others=True) == [0, 8]
    assert team(far, [0, 0], others=True) == [0, 1]


def test_questions_that_are_refused():
    lowest = list(range(_core.PROCESSORS))
    short, negative = lowest[1:], [*lowest[1:], -1]
    for arguments in ((lowest, {1024}, [0]), (lowest, {0}, [-1]), (short, {0}, [0]), (negative, {0}, [0])):
        with pytest.raises(ValueError, match=r"0\.\.1023, and all of them have a core"):
            _core.try_places(*arguments)


# ---- on this machine --------------------------------------------------------------------------------------------


@openmp
@linux
@pytest.mark.parametrize("threads", [2, 3, 8])
def test_workers_keep_their_masks_and_their_results(threads):
    code = f"""
        import os
        import numpy as np, fastlstm as fl
        from fastlstm import _core
        _core.force_team("persists")
        allowed = os.sched_getaffinity(0)
        layer = fl.LSTM(64, 128, rng=0, num_threads={threads})
        x = np.random.default_rng(0).standard_normal((20, 64, 64)).astype(np.float32)
        expected = fl.LSTM(64, 128, rng=0, num_threads=1)(x)[0]
        tasks = lambda: [int(name) for name in os.listdir("/proc/self/task")]
        for _ in range(10):
            for task in tasks():
                os.sched_setaffinity(task, {{min(allowed)}})
                os.sched_setaffinity(task, allowed)
            assert (layer(x)[0] == expected).all()
            assert all(os.sched_getaffinity(task) == allowed for task in tasks())
        print(layer.plan(20, 64).threads)
    """
    assert says(dedent(code)) == [str(threads)]
