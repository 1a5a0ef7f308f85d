"""The benchmark: its arithmetic and its rules. Nothing here judges a time."""

import itertools
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


def test_short_has_the_extremes_of_every_group_and_nothing_long():
    short = cases.select(short=True)
    assert short == [case for case in cases.GRID if case in short]
    assert max(case.flops for case in short) <= cases.SHORT_FLOPS
    assert len(cases.select(quick=True)) < len(short) < len(cases.GRID) / 2
    for group in cases.GROUPS:
        mine = [case for case in cases.GRID if case.group == group and case.flops <= cases.SHORT_FLOPS]
        found = [case for case in short if case.group == group]
        assert 3 <= len(found) <= 4, group
        for size in ("flops", "held"):
            assert max(getattr(c, size) for c in found) == max(getattr(c, size) for c in mine), group
        assert min(case.flops for case in found) == min(case.flops for case in mine)
    names = {case.name for case in short}
    assert {"T1 B1 H16", "T1 B1 H1024", "T100 B1 H1024", "T50 B32 H1024", "DeepSpeech2 T50 B1 H1760"} <= names
    assert cases.short_of([]) == []
    [only] = cases.short_of([Case("stream", "long", 10_000, 100, 1000, 1000)])
    assert only.name == "long"


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
SETS = [(16 << 10, 100e9), (256 << 10, 50e9), (MIB, 40e9), (4 * MIB, 40e9), (16 * MIB, 20e9), (64 * MIB, 10e9)]
FAKE = ceilings.Ceilings(
    {"L1": 32 << 10, "L2": MIB, "L3": 16 * MIB}, [],
    {("float32", 1): 100e9, ("float32", 2): 200e9},
    {n: [(n * nbytes, n * rate) for nbytes, rate in SETS] for n in (1, 2)},
    {},
)


def test_ceilings_are_sane():
    found = ceilings.measure(2, rounds=2)
    assert set(found.peak) == {(dtype, n) for dtype in ("float32", "float64") for n in (1, 2)}
    assert set(found.bandwidth) == {(level, n) for level in ceilings.LEVELS for n in (1, 2)}
    assert {n: [nbytes for nbytes, _ in sets] for n, sets in found.reading.items()} == {
        n: ceilings.working_sets(found.sizes, n) for n in (1, 2)
    }
    readings = {(nbytes, n): rate for n, sets in found.reading.items() for nbytes, rate in sets}
    assert all(rate > 1e6 for rate in [*found.peak.values(), *readings.values()])
    assert all(found.typical[key] <= rate for key, rate in {**found.peak, **readings}.items())


def test_more_readings_never_lower_a_ceiling(monkeypatch):
    monkeypatch.setattr(ceilings, "_read", lambda data, threads: lambda: 1.0)
    monkeypatch.setattr(ceilings, "_fma", lambda dtype, threads: lambda: 1.0)
    monkeypatch.setattr(ceilings, "MOST", 1 << 20)
    took, now = iter([1.0] * 1000), [0.0]
    readings = ceilings.Readings(1)
    monkeypatch.setattr(ceilings, "time", SimpleNamespace(perf_counter=lambda: now.__setitem__(0, now[0] + next(took))
                                                          or now[0]))
    count = len(readings._rates)
    took = iter([2.0] * 2 * count)
    slow = readings.take(1)
    took = iter([0.5] * 2 * count)
    fast = readings.take(1)
    took = iter([4.0] * 2 * count)
    last = readings.take(1)
    assert {rate for _, rate in slow.reading[1]} == {0.5}
    assert {rate for _, rate in fast.reading[1]} == {2.0}
    assert (last.peak, last.reading) == (fast.peak, fast.reading)


def test_sets_of_a_level_lie_in_it():
    sizes = FAKE.sizes
    for threads in (1, 2, 4):
        found = ceilings.level_sets(sizes, threads)
        assert found["L1"] <= threads * sizes["L1"] < found["L2"] <= threads * sizes["L2"] < found["L3"] <= sizes["L3"]
        assert found["DRAM"] > 2 * sizes["L3"]
    # a guest of a machine is left with less than half of an L3 that it is told it has
    assert ceilings.level_sets({"L1": 32 << 10, "L2": 512 << 10, "L3": 32 * MIB}, 1)["L3"] == 4 * MIB


@pytest.mark.parametrize("threads", [1, 3, 16])
@pytest.mark.parametrize("sizes", [FAKE.sizes, {"L1": 48 << 10, "L2": 2 * MIB, "L3": 300 * MIB},
                                   {"L1": 64 << 10, "L2": 16 * MIB, "L3": 16 * MIB}])
def test_working_sets_reach_from_the_nearest_cache_to_the_memory(sizes, threads):
    found = ceilings.working_sets(sizes, threads)
    ends = ceilings.level_sets(sizes, threads)
    assert found[0] == pytest.approx(ends["L1"], rel=0.1)
    assert found[-1] == pytest.approx(ends["DRAM"], rel=0.1)
    assert all(1.2 < b / a < 1.6 for a, b in itertools.pairwise(found))
    assert all(nbytes % (1024 * threads) == 0 for nbytes in found)


def test_the_rate_is_that_of_a_set_of_the_size():
    assert [FAKE.rate(nbytes, 1) for nbytes, _ in SETS] == pytest.approx([rate for _, rate in SETS])
    assert FAKE.rate(64 << 10, 1) == pytest.approx((100e9 * 50e9) ** 0.5)  # half-way, both scales logarithmic
    assert FAKE.rate(8 * MIB, 1) == pytest.approx((40e9 * 20e9) ** 0.5)
    assert (FAKE.rate(0, 1), FAKE.rate(1 << 40, 1)) == pytest.approx((100e9, 10e9))
    assert FAKE.rate(2 * MIB, 2) == pytest.approx(2 * FAKE.rate(MIB, 1))


def test_a_slow_reading_counts_no_less_than_those_of_larger_sets():
    slowed = [(nbytes, 1e9 if nbytes == MIB else rate) for nbytes, rate in SETS]
    top = FAKE._replace(reading={1: slowed})
    assert top.rate(MIB, 1) == pytest.approx(40e9)
    assert top.bandwidth["L3", 1] == pytest.approx(40e9)


def test_an_l3_that_others_use_is_no_low_ceiling():
    """22 GB/s at half of the L3, which other guests of the machine use, and 75 at what is left: 1 MB is read at 75."""
    sizes = {"L1": 32 << 10, "L2": 512 << 10, "L3": 32 * MIB}
    sets = [(16 << 10, 118e9), (256 << 10, 101e9), (724 << 10, 75e9), (8 * MIB, 70e9), (16 * MIB, 22e9)]
    top = ceilings.Ceilings(sizes, [], {("float32", 1): 100e9}, {1: sets}, {})
    case = Case("g", "n", 1, 1, 256, 256, mode="step")  # 2 MB
    seconds = 37.9e-6  # taken on such a machine
    roof = top.roofline(case, 1)
    assert roof.bound == "L3"
    assert 0.6 < roof.seconds / seconds < 1
    assert case.bytes / 22e9 / seconds > 2  # what a rate for the whole cache made of it


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
    assert FAKE.roofline(narrow, 1) == (pytest.approx(narrow.bytes / 50e9), "L2")
    large = Case("g", "n", 100, 1, 640, 640)  # 6.25 MiB
    assert FAKE.roofline(large, 1) == (pytest.approx(large.bytes / FAKE.rate(large.held, 1)), "L3")
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


class Scene:
    """A clock that only calls move, and a probe whose rates are told: for each slot one before and one after."""

    def __init__(self, monkeypatch, cost, rates=()):
        self.now, self.rates, self.log = 0.0, list(rates), []
        self.idle = []  # what the next looks for other threads find; then: nobody
        monkeypatch.setattr(measure, "time", SimpleNamespace(
            perf_counter=lambda: self.now, process_time=lambda: self.now, sleep=self.pass_by,
        ))
        monkeypatch.setattr(measure, "others_running", lambda: self.idle.pop(0) if self.idle else 0)
        monkeypatch.setattr(measure, "_repeats", lambda entry: 1)
        self.entries = [
            contestants.Entry(name, Call(lambda name=name, seconds=seconds: self.call(name, seconds), None), 1)
            for name, seconds in cost.items()
        ]

    def pass_by(self, seconds):
        self.now += seconds

    def call(self, name, seconds):
        self.log.append(name)
        self.now += seconds

    def rate(self, threads):
        return self.rates.pop(0) if self.rates else 1.0


def test_a_disturbed_slot_is_taken_again(monkeypatch):
    # slots in turn: a, b, b, a, a, b; then b's second one, whose probe was slow, again
    scene = Scene(monkeypatch, {"a": 0.01, "b": 0.02}, [1, 1, 1, 1, 1, 0.5])
    found = measure.time_case(scene.entries, 3, scene)
    assert "".join(scene.log) == "ab" "ba" "ab" "b"
    assert [(t.again, t.clean, len(t.slots)) for t in found.values()] == [(0, 3, 3), (1, 3, 3)]
    assert all(slot.clean for t in found.values() for slot in t.slots)


def test_what_stays_disturbed_is_marked(monkeypatch):
    # a's first slot is disturbed, and both times that it is taken again; the least disturbed of the three stays
    scene = Scene(monkeypatch, {"a": 0.01, "b": 0.02}, [0.3, 1, *[1] * 10, 0.5, 1, 0.4, 1])
    found = measure.time_case(scene.entries, 3, scene)
    assert "".join(scene.log) == "ab" "ba" "ab" "a" "a"
    assert (found["a"].again, found["a"].clean) == (2, 2)
    assert [slot.clean for slot in found["a"].slots] == [False, True, True]
    assert found["a"].slots[0].probe == 0.5


def test_a_case_that_is_disturbed_throughout_ends(monkeypatch):
    scene = Scene(monkeypatch, {"a": 0.01, "b": 0.02})
    monkeypatch.setattr(measure, "wait_until_idle", lambda: False)
    found = measure.time_case(scene.entries, 3, scene)
    assert [(t.again, t.clean, len(t.slots)) for t in found.values()] == [(6, 0, 3), (6, 0, 3)]


def test_no_slot_is_taken_again_when_the_time_of_the_case_is_used(monkeypatch):
    scene = Scene(monkeypatch, {"a": 1.0}, [1, 1, 1, 1, 1, 1, 0.5, 1])
    monkeypatch.setattr(measure, "wait_until_idle", lambda: True)  # which takes time, too
    found = measure.time_case(scene.entries, 4, scene, seconds=4.0)
    assert "".join(scene.log) == "aaaa"
    assert (found["a"].again, found["a"].clean) == (0, 3)


@pytest.mark.parametrize(("seconds", "rounds"), [(100, 9), (5.5, 5), (3.5, 3), (0, 3), (-1, 3)])
def test_rounds_by_the_time_of_those_before(monkeypatch, seconds, rounds):
    scene = Scene(monkeypatch, {"a": 0.75, "b": 0.25})
    found = measure.time_case(scene.entries, 9, scene, seconds=seconds)
    assert [len(t.slots) for t in found.values()] == [rounds, rounds]


def test_a_budget_gives_what_is_left_to_the_others(monkeypatch):
    scene = Scene(monkeypatch, {})
    budget = measure.Budget(40.0, [1, 1, 2, 1, 1])
    assert budget.share() == pytest.approx(40 / 6)
    scene.now = 10.0
    assert budget.share() == pytest.approx(30 / 5)
    assert budget.share() == pytest.approx(30 * 2 / 4)
    scene.now = 39.0
    assert budget.share() == 0.5
    scene.now = 50.0
    assert budget.share() == 0
    assert measure.Budget(1e6, [1]).share() == measure.CASE
    small, large = (Case("g", "n", 50, 32, h, h) for h in (64, 1024))
    assert 1 < cases.weight(small) < 2 < cases.weight(large)


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
