"""The benchmark: its arithmetic and its rules. Nothing here judges a time."""

import os
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from grids import says

import fastlstm as fl
from fastlstm.benchmark import cases, ceilings, contestants, measure, report
from fastlstm.benchmark.cases import Case
from fastlstm.benchmark.problem import Call, Cannot, Problem

NEEDS = {"torch": ("torch",), "onnxruntime": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino"), "numpy": ()}
SMALL = {
    "infer": Case("stream", "small", 5, 3, 4, 6),
    "stack": Case("stacks", "small stack", 5, 2, 4, 6, layers=2, bidirectional=True),
    "step": Case("step", "small step", 1, 2, 4, 6, layers=2, mode="step"),
    "ragged": Case("ragged", "small ragged", 9, 4, 3, 5, lengths=(1, 9, 1)),
    "ragged, both ways": Case("ragged", "small ragged", 9, 4, 3, 5, bidirectional=True, lengths=(1, 9, 1)),
    "proj": Case("proj", "small proj", 5, 2, 4, 6, proj=3),
    "f64": Case("f64", "small f64", 5, 2, 4, 6, dtype="float64"),
    "train": Case("train", "small train", 5, 2, 4, 6, layers=2, bidirectional=True, mode="train"),
    "train, ragged": Case("train", "small ragged train", 9, 4, 3, 5, mode="train", lengths=(1, 9, 1)),
}
# What no contestant of that name can do.
CANNOT = {
    "onnxruntime": {"proj", "f64", "train", "train, ragged"},
    "openvino": {"proj", "f64", "train", "train, ragged"},
    "numpy": {"ragged", "ragged, both ways", "train", "train, ragged"},
    "torch padded": {"ragged, both ways"},
}


# ---- cases ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "flops", "nbytes", "held"),
    [
        # W_hh 4*64*64 floats read 50 times, W_ih as large once
        (Case("g", "n", 50, 8, 64, 64), 2 * 4 * 64 * 128 * 50 * 8, 65536 * 51, 65536),
        # a single step: everything comes round once a call
        (Case("g", "n", 1, 1, 16, 16, mode="step"), 2 * 4 * 16 * 32, 8192, 8192),
        # layer 0: 3 -> 5, layer 1: 10 -> 5; both directions
        (
            Case("g", "n", 7, 2, 3, 5, layers=2, bidirectional=True),
            2 * 2 * 20 * ((3 + 5) + (10 + 5)) * 14,
            2 * 4 * 20 * ((3 + 7 * 5) + (10 + 7 * 5)),
            4 * 20 * 5,
        ),
        # h has 3 elements, and W_hr (3, 6) is part of every step
        (Case("g", "n", 2, 1, 4, 6, proj=3), 2 * (24 * (4 + 3) + 18) * 2, 4 * (24 * 4 + 2 * (24 * 3 + 18)), 4 * 90),
        (Case("g", "n", 10, 1, 8, 8, cell="gru"), 2 * 24 * 16 * 10, 4 * 24 * 8 * 11, 4 * 24 * 8),
        (Case("g", "n", 10, 1, 8, 8, dtype="float64"), 2 * 32 * 16 * 10, 8 * 32 * 8 * 11, 8 * 32 * 8),
        (Case("g", "n", 10, 1, 8, 8, mode="train"), 3 * 2 * 32 * 16 * 10, 2 * 4 * 32 * 8 * 11, 4 * 32 * 8),
    ],
)
def test_work_of_a_case(case, flops, nbytes, held):
    assert (case.flops, case.bytes, case.held) == (flops, nbytes, held)


def test_only_steps_within_the_lengths_count():
    case = Case("g", "n", 400, 32, 8, 8, lengths=(5, 400, 1))
    lengths = case.row_lengths()
    assert lengths.min() >= 5
    assert lengths.max() == 400
    assert len(set(lengths)) > 10
    np.testing.assert_array_equal(lengths, case.row_lengths())
    assert case.flops == 2 * 32 * 16 * lengths.sum()


def test_the_grid():
    assert list(dict.fromkeys(case.group for case in cases.GRID)) == list(cases.GROUPS)
    assert len({(case.group, case.name) for case in cases.GRID}) == len(cases.GRID)
    names = {case.name for case in cases.GRID}
    assert {"T1 B1 H1024", "T50 B128 H1024", "T15 B1 96->32 bidirectional", "GNMT T30 B1 H1024 x7"} <= names
    assert {case.dtype for case in cases.select(["stream"], dtype="float64")} == {"float64"}


def test_quick_has_something_of_every_group_and_nothing_long():
    quick = cases.select(quick=True)
    assert {case.group for case in quick} == set(cases.GROUPS)
    assert max(case.flops for case in quick) <= cases.QUICK_FLOPS
    assert len(quick) <= 3 * len(cases.GROUPS)


# ---- contestants ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("peer", NEEDS)
def test_peers_agree_or_say_why_not(peer, kind):
    for module in NEEDS[peer]:
        pytest.importorskip(module)
    found = contestants.field(Problem(SMALL[kind]), {peer: contestants.PEERS[peer]}, scaling=True)
    assert not found.dropped
    assert found.entries[0].name == "fastlstm"
    rivals = {entry.name for entry in found.entries if not entry.name.startswith("fastlstm")}
    assert rivals or found.refused
    assert set(found.refused) == {name for name in {*rivals, *found.refused} if kind in CANNOT.get(name, ())}
    assert all(len(reason) > 10 for reason in found.refused.values())


@pytest.mark.parametrize("cell", ["gru", "rnn"])
@pytest.mark.parametrize("kind", ["infer", "stack", "step"])
@pytest.mark.parametrize("peer", ["torch", "onnxruntime", "openvino"])
def test_peers_agree_about_other_cells(peer, kind, cell):
    """Whether fastlstm has them or not: gate orders differ between the peers."""
    for module in NEEDS[peer]:
        pytest.importorskip(module)
    task = Problem(SMALL[kind]._replace(cell=cell))
    rng, rows = np.random.default_rng(3), task.case.variant.rows(6)
    task.weights = {}
    for layer in range(task.case.layers):
        for end in ("", "_reverse")[: task.case.directions]:
            fan_in = 4 if layer == 0 else 6 * task.case.directions
            shapes = {"weight_ih": (rows, fan_in), "weight_hh": (rows, 6), "bias_ih": rows, "bias_hh": rows}
            for name, shape in shapes.items():
                task.weights[f"{name}_l{layer}{end}"] = rng.normal(size=shape).astype(np.float32)
    found = []
    for name in ("numpy", peer):
        call = next(iter(contestants.PEERS[name].entries(task).values()))()
        call.run()
        found.append(call.results())
    assert ("hn" in found[0]) == (kind == "step")
    assert contestants.difference(*found, task.case) is None


def peer_that(results):
    """A peer whose only contestant hands back what `results` makes of fastlstm's own results."""

    def make(task):
        call = contestants.own(task)
        return Call(call.run, lambda: results(call.results()))

    return SimpleNamespace(entries=lambda task: {"rival": lambda: make(task)})


def broken(_):
    raise ValueError("it fell\nover")


def cannot(_):
    raise Cannot("it is not made for this")


@pytest.mark.parametrize(
    ("results", "words"),
    [
        (lambda found: {"y": found["y"] * 1.001}, "y differs by"),
        (lambda found: {"y": np.full_like(found["y"], np.nan)}, "y differs by nan"),
        (lambda found: {"y": found["y"][:-1]}, "y has shape"),
        (lambda found: {"z": found["y"]}, "nothing to compare"),
        (broken, "failed: ValueError: it fell over"),
    ],
)
def test_who_disagrees_is_dropped(results, words):
    found = contestants.field(Problem(SMALL["infer"]), {"rival": peer_that(results)})
    assert [entry.name for entry in found.entries] == ["fastlstm"]
    assert words in found.dropped["rival"]


def test_who_agrees_stays_and_who_cannot_is_named():
    same, other = peer_that(lambda found: found), SimpleNamespace(entries=lambda task: {"other": lambda: cannot(task)})
    found = contestants.field(Problem(SMALL["infer"]), {"rival": same, "other": other})
    assert [entry.name for entry in found.entries] == ["fastlstm", "rival"]
    assert found.refused == {"other": "it is not made for this"}
    assert found.dropped == {}


def test_absent_peers_are_named(monkeypatch):
    def version():
        raise ImportError("No module named 'torch'")

    monkeypatch.setitem(contestants.PEERS, "torch", SimpleNamespace(version=version))
    found, versions = contestants.find_peers(["torch", "numpy"])
    assert list(found) == ["numpy"]
    assert versions == {"torch": "absent (No module named 'torch')", "numpy": np.__version__}


def test_nothing_foreign_is_imported_unasked():
    foreign = ("torch", "onnx", "onnxruntime", "openvino", "matplotlib")
    code = f"import fastlstm.benchmark.command, sys; print(*(m for m in {foreign} if m in sys.modules))"
    assert says(code) == [""]
    assert says("import fastlstm, sys; print('fastlstm.benchmark' in sys.modules)") == ["False"]


# ---- ceilings ---------------------------------------------------------------------------------------------------

MIB = 1 << 20
FAKE = ceilings.Ceilings(
    {"L1": 32 << 10, "L2": MIB, "L3": 16 * MIB}, [],
    {("float32", 1): 100e9, ("float32", 2): 200e9},
    {(level, n): n * rate * 1e9 for level, rate in (("L1", 100), ("L2", 50), ("L3", 20), ("DRAM", 10)) for n in (1, 2)},
    {},
)


def test_ceilings_are_sane():
    found = ceilings.measure(2, rounds=3)
    assert set(found.peak) == {(dtype, n) for dtype in ("float32", "float64") for n in (1, 2)}
    assert set(found.bandwidth) == {(level, n) for level in ceilings.LEVELS for n in (1, 2)}
    for rate in (*found.peak.values(), *found.bandwidth.values()):
        assert rate > 1e6
    assert all(found.typical[key] <= rate for key, rate in {**found.peak, **found.bandwidth}.items())
    assert found.bandwidth["L1", 1] > 0.5 * found.bandwidth["DRAM", 1]


def test_working_sets_lie_in_their_level():
    sizes = FAKE.sizes
    for threads in (1, 2, 4):
        found = ceilings.working_sets(sizes, threads)
        assert found["L1"] <= threads * sizes["L1"] < found["L2"] <= threads * sizes["L2"] < found["L3"] <= sizes["L3"]
        assert found["DRAM"] > 2 * sizes["L3"]


def test_cache_sizes(tmp_path):
    assert ceilings.cache_sizes(tmp_path) == (ceilings.DEFAULT_SIZES, ["L1", "L2", "L3"])
    found = (("1", "Data", "48K"), ("1", "Instruction", "64K"), ("2", "Unified", "2M"), ("x", "", ""))
    for index, words in enumerate(found):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, word in zip(("level", "type", "size"), words, strict=True):
            (folder / name).write_text(word + "\n")
    assert ceilings.cache_sizes(tmp_path) == ({"L1": 48 << 10, "L2": 2 << 20, "L3": 16 << 20}, ["L3"])


def test_roofline():
    wide = Case("g", "n", 50, 64, 64, 64)
    assert FAKE.roofline(wide, 1) == (wide.flops / 100e9, "fma")
    narrow = Case("g", "n", 100, 1, 128, 128)  # 256 kB of recurrent weights
    assert FAKE.roofline(narrow, 1) == (narrow.bytes / 50e9, "L2")
    large = Case("g", "n", 100, 1, 640, 640)  # 6.25 MiB
    assert FAKE.roofline(large, 1).bound == "L3"
    assert FAKE.level_of(3 * MIB // 2, 1) == "L3"
    assert FAKE.level_of(3 * MIB // 2, 2) == "L2"  # two cores bring two caches
    assert FAKE.level_of(64 * MIB, 2) == "DRAM"


# ---- slots ------------------------------------------------------------------------------------------------------


def test_contestants_take_turns_and_rotate(monkeypatch):
    log, ticks = [], []
    monkeypatch.setattr(measure, "SLOT", 1e-9)  # a call fills a slot
    prober = SimpleNamespace(rate=lambda threads: 1.0)
    entries = [contestants.Entry(name, Call(lambda name=name: log.append(name), None), 1) for name in "abc"]
    monkeypatch.setattr(measure, "_repeats", lambda entry: 1)
    found = measure.time_case(entries, 4, prober, lambda: ticks.append(1))
    assert "".join(log) == "abc" "bca" "cab" "abc"
    assert len(ticks) == 4
    assert all(len(timing.slots) == 4 and timing.low <= timing.median <= timing.high for timing in found.values())


def slot(seconds=1.0, probe=1.0, cores=1.0, idle=True):
    return measure.Slot(seconds, probe, cores, idle)


def test_what_disturbs_a_slot():
    assert measure._judged(slot(), 1.0, 1).clean
    assert not measure._judged(slot(probe=0.5), 1.0, 1).clean  # a busy neighbour, or a slower clock
    assert not measure._judged(slot(idle=False), 1.0, 1).clean
    assert not measure._judged(slot(cores=0.6), 1.0, 1).clean  # put aside for somebody else
    assert measure._judged(slot(cores=0.6), 1.0, 2).clean  # with two threads one may sleep


def test_undisturbed_slots_count_if_everybody_has_some():
    slots = [slot(seconds)._replace(clean=clean) for seconds, clean in ((1, True), (5, False), (3, True), (9, False))]
    assert measure._timing(slots, 1.0, True)[:4] == (2, 1.5, 2.5, 2)
    assert measure._timing(slots, 1.0, False)[:4] == (4, 2.5, 6, 0)


@pytest.mark.parametrize(("busy", "expected"), [(0.05, True), (1.0, False)])
def test_wait_until_idle_by_processor_time(monkeypatch, busy, expected):
    now = [0.0]
    monkeypatch.setattr(measure, "others_running", lambda: None)
    clock = SimpleNamespace(
        perf_counter=lambda: now[0], process_time=lambda: busy * now[0],
        sleep=lambda seconds: now.__setitem__(0, now[0] + seconds),
    )
    monkeypatch.setattr(measure, "time", clock)
    assert measure.wait_until_idle() is expected
    assert now[0] < measure.IDLE_LIMIT + 2 * measure.TICK


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="the system does not tell which threads run")
def test_wait_until_idle_sees_a_thread_at_work(monkeypatch):
    monkeypatch.setattr(measure, "IDLE_LIMIT", 10.0)
    layer = fl.LSTM(8, 256, rng=0, num_threads=1)
    x = np.zeros((2000, 4, 8), np.float32)
    layer(x[:1])
    call = threading.Thread(target=layer, args=(x,))  # the interpreter is free meanwhile
    call.start()
    seen = 0
    while not seen and call.is_alive():
        seen = measure.others_running()
    assert seen
    assert measure.wait_until_idle()
    call.join(1)
    assert not call.is_alive()


def test_greedy_and_wrong_contestants_are_told():
    timing = {"median_us": 1.0, "undisturbed": 0, "cores": 2.0}
    row = {
        "group": "g", "name": "n", "results": {"fastlstm": timing | {"undisturbed": 3, "cores": 1.0}, "rival": timing},
        "dropped": {"liar": "y differs"}, "refused": {"other": "it cannot"},
    }
    text = "\n".join(report.warnings_of([row], 1))
    for words in ("DROPPED liar from g n: y differs", "rival used 2.0 cores", "1 of 2 times", "other: it cannot"):
        assert words in text
