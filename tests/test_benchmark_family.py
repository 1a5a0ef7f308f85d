"""The benchmark's group of the whole family: operations, contestants, the column. Nothing here judges a time."""

import importlib.util
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fastlstm import _core, commands, reference
from fastlstm.benchmark import cases, contestants, measure, problem, report, tables
from fastlstm.benchmark.cases import MEMBERS, Case
from fastlstm.benchmark.ceilings import Roofline
from fastlstm.benchmark.measure import Timing
from fastlstm.benchmark.problem import Problem
from fastlstm.variants import FAMILY

BENCH = Path(__file__).resolve().parent.parent / "bench"
NEEDS = {"torch": ("torch",), "onnxruntime": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino"), "numpy": ()}
CELLS = {"torch": {"RNN", "GRU"}, "numpy": {"RNN", "GRU"}, "openvino": {"RNN", "GRU", "GRU, reset before"}}
CELLS["onnxruntime"] = CELLS["openvino"] | {"peepholes", "coupled", "hard sigmoid"}
NORM = ("peephole", "ifo"), ("layer_norm", "ba")


def case_of(member, **changes):
    given = {"steps": 5, "batch": 3, "inputs": 4, "hidden": 8, **MEMBERS[member], **changes}
    return Case("family", member, given.pop("steps"), given.pop("batch"), given.pop("inputs"), **given)


# ---- operations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "products"),  # of one row and step; I 4, H 8
    [
        ({}, 4 * 8 * 12),
        ({"options": NORM}, 4 * 8 * 12),  # element by element: not counted
        ({"cell": "rnn"}, 8 * 12),
        ({"cell": "gru", "options": (("reset_after", False),)}, 3 * 8 * 12),
        ({"options": (("coupled", "f=1-i"),)}, 3 * 8 * 12),
        ({"options": (("coupled", "i=1-f"), ("peephole", "fo"))}, 3 * 8 * 12),
        ({"options": (("without", "io"),)}, 2 * 8 * 12),
        ({"options": (("gate_recurrence", True),)}, 4 * 8 * 12 + 9 * 64),
        ({"options": (("gate_recurrence", True),), "proj": 3}, 4 * 8 * 7 + 3 * 8 + 9 * 64),
        ({"cell": "depth_gated", "layers": 3}, 4 * 8 * 12 + 2 * (4 * 8 * 16 + 8 * 8)),
        ({"cell": "depth_gated", "layers": 2, "proj": 3}, 4 * 8 * 7 + 4 * 8 * 6 + 2 * 3 * 8 + 8 * 3),
        ({"cell": "lstm_1997"}, 24 * 28),  # 8 cells, 16 gates
        ({"cell": "lstm_1997", "options": (("block_size", 4),)}, 12 * 16),
        ({"cell": "lstm_1997", "options": (("block_size", 2), ("without", "o"))}, 12 * 16),
        ({"layers": 2, "hidden": (8, 2)}, 4 * 8 * 12 + 4 * 2 * 10),
        # modules of 2 units: 8 heard at every step, 6 at every second, 4 at every fourth, 2 at every eighth
        ({"cell": "clockwork"}, 2 * (12 + 10 / 2 + 8 / 4 + 6 / 8)),
        ({"cell": "clockwork", "options": (("periods", (1, 1)),)}, 8 * 12),
        ({"cell": "clockwork", "options": (("periods", (2, 2, 4, 4)),)}, 4 * 12 / 2 + 4 * 8 / 4),
    ],
)
def test_operations(given, products):
    case = Case("g", "n", **{"steps": 16, "batch": 3, "inputs": 4, "hidden": 8, **given})
    assert case.flops == 2 * products * 48
    if case.layers == 1:
        assert case._replace(bidirectional=True).flops == 2 * case.flops


@pytest.mark.parametrize("cell", [name for name in MEMBERS if name != "clockwork"])
@pytest.mark.parametrize("both", [False, True])
def test_every_matrix_is_used_once_a_step(cell, both):
    case = case_of(cell, bidirectional=both)
    elements = sum(w.size for w in Problem(case).weights.values() if w.ndim == 2)
    assert case.flops == 2 * elements * 15
    assert case._replace(steps=1).held == 4 * elements


def test_a_clockwork_counts_what_is_due():
    case = case_of("clockwork", steps=16, hidden=12)
    period = np.repeat([1, 2, 4, 8], 3)
    due = sum(4 + (period >= p).sum() for t in range(16) for p in period if t % p == 0)
    assert case.flops == 2 * due * 3
    heard = sum((period >= p).sum() for p in period)
    assert case.held == 4 * heard
    again = sum((period >= p).sum() for t in range(16) for p in period if t % p == 0)
    assert case.bytes == 4 * (12 * 4 + again)


def test_training_a_truncated_gradient():
    full = (("gradient", "full"),)
    case = Case("g", "n", 5, 3, 4, 8, cell="lstm_1997", mode="train")
    assert case.flops == 2 * 24 * (3 * 4 + 2 * 24) * 15
    assert case._replace(options=full).flops == 2 * 24 * (3 * 4 + 3 * 24) * 15


def test_the_plain_lstm_beside_it():
    assert Case("gru", "n", 5, 3, 4, 8, cell="gru").plain is None
    case = Case("family", "n", 5, 3, 4, (8, 2), layers=2, options=(("peephole", "ifo"),))
    assert case.plain.sizes == (8, 8)
    assert case.plain.flops == 2 * 4 * 8 * (12 + 16) * 15


def test_the_group():
    found = cases.select(["family"])
    assert {case.cell for case in found} == set(FAMILY) == set(_core.cells()) == set(problem.CLASSES)
    assert all(math.isfinite(hash(case)) and case.plain.flops for case in found)
    assert json.loads(json.dumps([case._asdict() for case in found]))
    assert len(cases.select(["family"], quick=True)) == cases.QUICK_CASES


# ---- contestants ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("peer", NEEDS)
def test_peers_that_have_the_cell_agree(peer, member):
    for module in NEEDS[peer]:
        pytest.importorskip(module)
    for mode, steps, both in (("infer", 5, True), ("step", 1, False)):
        case = case_of(member, mode=mode, steps=steps, bidirectional=both)
        found = contestants.field(Problem(case), {peer: contestants.PEERS[peer]})
        names = [entry.name for entry in found.entries]
        assert names == ["fastlstm", "plain LSTM"] + ["fastlstm.step"] * (mode == "step") + [peer] * (not found.refused)
        assert not found.dropped
        assert (peer not in found.refused) == (member in CELLS[peer])


@pytest.mark.parametrize("peer", NEEDS)
def test_layers_of_different_sizes(peer):
    for module in NEEDS[peer]:
        pytest.importorskip(module)
    case = Case("family", "n", 5, 3, 4, (8, 6), layers=2, bidirectional=True)
    found = contestants.field(Problem(case), {peer: contestants.PEERS[peer]})
    assert not found.dropped
    assert set(found.refused) == ({peer} if peer == "torch" else set())
    with pytest.raises(ValueError, match="layers of one size"):
        Problem(case._replace(mode="step"))


@pytest.mark.parametrize("member", MEMBERS)
def test_what_is_timed_is_the_cell_of_the_case(member):
    task = Problem(case_of(member))
    call = contestants.own(task)
    call.run()
    y = reference.forward(task.weights, task.x, cell=task.case.variant, num_layers=task.case.layers)[0]
    np.testing.assert_allclose(call.results()["y"], y, atol=1e-5)


# ---- report -----------------------------------------------------------------------------------------------------


def timing(seconds):
    return Timing(seconds, seconds, seconds, 3, 1.0, 1e9, [])


def test_the_column():
    top, rows = SimpleNamespace(roofline=lambda case, threads: Roofline(1e-3, "fma")), []
    for member, seconds in (("RNN", 0.6), ("peepholes", 2.0)):
        case, times = case_of(member), {"fastlstm": timing(seconds), "plain LSTM": timing(2.0)}
        rows.append(report.row(case, contestants.Field([], {}, {}), times, top, 1))
    assert [(r["work"], round(r["of_plain_rate"], 9)) for r in rows] == [(0.25, 1.2), (1.0, 1.0)]
    assert [r["us_per_step"] for r in rows] == [0.6e6 / 5, 0.4e6]
    assert rows[0]["best_rival"] is None  # the plain LSTM is fastlstm's own
    found = report.summary(rows)
    assert (found["slowest"], found["past_aim"]) == ("RNN", 1)
    assert found["of_plain_rate"] == pytest.approx(math.sqrt(1.2))
    text = tables.group_text("family", rows)
    for words in ("us/step", "0.250", "of plain rate 1.10 (highest 1.20, RNN; 1 of 2 above 1.15)"):
        assert words in text


def test_a_run(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cases, "GRID", (case_of("clockwork"), case_of("norm ba"), Case("stream", "small", 5, 3, 4, 6)))
    monkeypatch.setattr(measure, "SLOT", 1e-4)
    path = tmp_path / "bench.json"
    assert commands.main(["bench", "--rounds", "2", "--peers", "numpy", "--json", str(path)]) == 0
    text = capsys.readouterr().out
    assert "of plain rate" in text.split("\nfamily: ")[1].split("\nstream: ")[0]
    assert "of plain rate" not in text.split("\nstream: ")[1]
    assert "not in every case: numpy: it is written for plain cells" in text
    clockwork, norm, stream = json.loads(path.read_text())["results"]
    assert set(clockwork["results"]) == {"fastlstm", "plain LSTM"}
    assert norm["options"] == [["layer_norm", "ba"]]
    assert norm["work"] == 1
    assert "of_plain_rate" not in stream
    assert commands.main(["bench", "compare", str(path), str(path)]) == 0
    assert "rivals" in capsys.readouterr().out


def test_program_of_the_clockwork(monkeypatch, capsys, tmp_path):
    spec = importlib.util.spec_from_file_location("clockwork_program", BENCH / "clockwork.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    monkeypatch.setattr(measure, "SLOT", 1e-4)
    monkeypatch.setattr(program, "STEPS", 8)
    path = tmp_path / "clockwork.json"
    options = ["--hidden", "16", "--batch", "1,2", "--rounds", "2", "--json", str(path)]
    monkeypatch.setattr("sys.argv", ["clockwork.py", *options])
    program.main()
    assert capsys.readouterr().out.count("active share") == 2
    rows = json.loads(path.read_text())
    assert len(rows) == 2 * (len(program.PERIODS) + 1)
    assert rows[0]["share"] == rows[0]["time"] == 1
    assert [row["periods"] for row in rows[:2]] == ["RNN", "1,1,1,1,1,1,1,1"]
    assert rows[1]["share"] == 1
    assert all(row["share"] < 1 for row in rows[2:7])
