"""``fastlstm bench`` in this process, on a tiny grid: tables, files, comparison, mistakes."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

import fastlstm as fl
from fastlstm import commands
from fastlstm.benchmark import cases, ceilings, command, contestants, measure, plots, problem, processors, tables
from fastlstm.benchmark.cases import Case
from fastlstm.benchmark.problem import Call

TINY = (
    Case("step", "small step", 1, 2, 4, 6, mode="step"),
    Case("stream", "small", 5, 3, 4, 6),
    Case("train", "small train", 5, 2, 4, 6, mode="train"),
)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(cases, "GRID", TINY)
    monkeypatch.setattr(measure, "SLOT", 1e-4)


def bench(capsys, *arguments):
    """Standard output of a run that must succeed."""
    status = commands.main(["bench", "--rounds", "2", *map(str, arguments)])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return captured.out


def test_document(tiny, capsys, tmp_path):
    path = tmp_path / "bench.json"
    text = bench(capsys, "--peers", "numpy", "--threads", 2, "--scaling", "--json", path)
    assert text.index("ceilings, 1 thread") < text.index("step: one step") < text.index("stream: 100 steps")
    found = json.loads(path.read_text())
    assert set(found) == {
        "format", "date", "machine", "peers", "settings", "ceilings", "notes", "slots", "groups", "results",
    }
    assert found["format"] == "fastlstm bench 2"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["date"])
    assert {"processor", "vendor", "family", "model"} <= set(found["machine"])
    assert found["machine"]["isa"] == fl.isa()
    assert found["settings"]["threads"] == 2
    assert found["peers"] == {"numpy": np.__version__}
    assert {"of", "threads", "best", "typical"} == set(found["ceilings"]["flops_per_second"][0])
    assert {"bytes", "threads", "best", "typical"} == set(found["ceilings"]["reading"][0])
    assert [one["of"] for one in found["ceilings"]["bytes_per_second"]] == ["L1", "L2", "L3", "DRAM"] * 2
    assert set(found["groups"]) == {"step", "stream", "train"}
    step, infer, train = found["results"]
    assert set(step["results"]) == {
        "fastlstm", "fastlstm.step", "fastlstm.step awake", "fastlstm, 1 thread", "numpy",
    }
    assert step["mode"] == "step"
    assert set(Case._fields) <= set(infer)
    assert infer["best_rival"] == "numpy"
    assert infer["ratio"] == pytest.approx(
        infer["results"]["numpy"]["median_us"] / infer["results"]["fastlstm"]["median_us"]
    )
    assert infer["share"] == pytest.approx(infer["roofline_us"] / infer["results"]["fastlstm"]["median_us"])
    assert infer["scaling"] > 0
    assert infer["probe_scaling"] > 0
    assert (train["ratio"], train["best_rival"]) == (None, None)
    assert train["refused"] == {"numpy": "it has no gradients"}
    for row in found["results"]:
        for timing in row["results"].values():
            assert 0 < timing["low_us"] <= timing["median_us"] <= timing["high_us"]
            assert len(timing["slots_us"]) == len(timing["slots_clean"]) == 2
    timings = [timing for row in found["results"] for timing in row["results"].values()]
    assert found["slots"] == {
        "taken": 2 * len(timings), "taken_again": sum(timing["taken_again"] for timing in timings),
        "disturbed": sum(not clean for timing in timings for clean in timing["slots_clean"]),
    }


def test_a_wrong_peer_is_shown(tiny, capsys, monkeypatch):
    def make(task):
        call = contestants.own(task)
        return Call(call.run, lambda: {"y": -call.results()["y"]})

    liar = SimpleNamespace(version=lambda: "0", entries=lambda task: {"rival": lambda: make(task)})
    monkeypatch.setitem(contestants.PEERS, "torch", liar)
    text = bench(capsys, "--peers", "torch", "--group", "stream")
    assert "! DROPPED rival from stream small: y differs by" in text
    assert "ratio" not in text.split("stream: ")[1].split("geometric mean")[0]  # nobody to compare with


def test_a_cell_that_is_not_there_yet(tiny, capsys, monkeypatch):
    monkeypatch.setattr(problem, "has_cell", lambda case: case.group != "stream")
    text = bench(capsys)
    assert "stream: 100 steps of one row: not yet" in text
    assert "! not yet: stream" in text


def test_every_instruction_set(tiny, capsys):
    before = fl.isa()
    for isa in fl.available_isas():
        assert f"({isa})" in bench(capsys, "--isa", isa, "--group", "step,stream").splitlines()[0]
        assert fl.isa() == before


def test_threads_and_precision(tiny, capsys, tmp_path):
    before = fl.get_num_threads()
    bench(capsys, "--threads", 1, "--dtype", "float64", "--json", tmp_path / "b.json")
    assert fl.get_num_threads() == before
    assert {row["dtype"] for row in json.loads((tmp_path / "b.json").read_text())["results"]} == {"float64"}


# ---- what is printed --------------------------------------------------------------------------------------------


def heads(text):
    """The words over the columns of all tables, two blanks apart."""
    found = [line for line in text.splitlines() if re.match(r"  case  ", line)]
    return {head for line in found for head in re.split(r"\s{2,}", line.strip())} - {"case"}


@pytest.mark.parametrize("options", [
    (), ("--quick",), ("--peers", "numpy"), ("--peers", "numpy", "--threads", "2", "--scaling", "--quick"),
    ("--peers", "numpy", "--threads", "2", "--scaling"),
])
def test_every_column_is_explained_above_the_tables(tiny, capsys, monkeypatch, options):
    family = Case("family", "a GRU", 5, 2, 4, 4, cell="gru")
    monkeypatch.setattr(cases, "GRID", (*TINY, family))
    text = bench(capsys, *options)
    above, tables = text.split("\nstep: ", 1)
    legend = above.split("How to read the tables:\n")[1]
    told = {re.split(r"\s{2,}", line.strip())[0] for line in legend.splitlines() if re.match(r"  \S", line)}
    shown = heads("\nstep: " + tables)
    assert shown - told <= {"fastlstm", "numpy"}  # which the first lines name
    assert told - shown <= {"times", "T B H"}  # and nothing is explained that is not there
    assert {"share", "limit"} <= shown
    assert ("ratio" in shown) == ("numpy" in options)
    assert ("GFLOP/s" in shown) == ("--quick" not in options)
    assert ("scaling" in shown) == ("--scaling" in options)
    assert text.count("; times in microseconds per call\n") == 4
    assert max(map(len, above.splitlines())) <= 130
    for words in ("lower is faster", "Higher is better; 1 is the ceiling", "a call may beat it"):
        assert words in " ".join(legend.split())


def test_who_takes_part_is_said_with_versions(tiny, capsys, monkeypatch):
    gone = SimpleNamespace(version=lambda: 1 / 0, entries=None)
    monkeypatch.setitem(contestants.PEERS, "openvino", gone)
    lines = bench(capsys, "--peers", "numpy,openvino", "--group", "stream").splitlines()
    assert lines[0].startswith(f"fastlstm {fl.__version__} (")
    assert lines[1] == f"beside numpy     {np.__version__}: {contestants.ABOUT['numpy']}"
    assert lines[2] == "beside openvino  absent (division by zero)"
    assert set(contestants.ABOUT) == set(contestants.PEERS)
    text = "\n".join(lines)
    assert "Above 1 fastlstm is faster" in text
    assert text.index("Above 1 fastlstm is faster") < text.index("\nstream: ")


def a_row(name="a case", group="stream", share=0.5, times=None, best=None, ratio=None):
    results = {who: {"median_us": us, "undisturbed": 3, "cores": 1} for who, us in (times or {"fastlstm": 2.0}).items()}
    return {
        "name": name, "group": group, "dtype": "float32", "share": share, "bound": "DRAM", "best_rival": best,
        "ratio": ratio, "results": results, "dropped": {}, "refused": {}, "gflops": 1.0, "gbytes": 2.0, "flops": 10,
        "bytes": 5,
    }


def test_a_share_above_1_is_explained_where_it_occurs():
    assert tables.above_ceiling([a_row(share=0.99), a_row(share=1.004)]) == []  # 1.00 in the table
    [words] = tables.above_ceiling([a_row(share=1.2), a_row("other", share=0.3)])
    assert words == "share above 1, faster than the estimated ceiling (see share, above): a case 1.20"
    [words] = tables.above_ceiling([a_row(f"case {k}", share=2) for k in range(9)])
    assert "case 5 2.00 and 3 more" in words
    assert "memory" in tables.group_text("stream", [a_row()])


def test_slots_that_were_taken_again_are_told(tiny, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "wait_until_idle", lambda: False)
    path = tmp_path / "b.json"
    text = bench(capsys, "--group", "stream", "--json", path)
    words = "4 times a slot of time was disturbed and taken again; 2 of 2 slots stay disturbed"
    assert f"! {words}" in text
    found = json.loads(path.read_text())
    assert words in found["notes"]
    assert found["slots"] == {"taken": 2, "taken_again": 4, "disturbed": 2}
    assert found["results"][0]["results"]["fastlstm"]["taken_again"] == 4


def test_a_share_that_later_ceilings_lower_is_told():
    rows = [a_row("a", share=0.5), a_row("b", share=0.9)]
    assert tables.lowered([0.5, 0.92], rows) == []
    [words] = tables.lowered([1.0, 0.9], rows)
    assert "the share of 1 case is lower than the tables say (most a: 0.50, not 1.00)" in words


def test_files_have_shares_by_the_best_readings_of_the_run(tiny, capsys, tmp_path, monkeypatch):
    """Of three takes the second has twice the rates: rows before it fall, and the file agrees with its ceilings."""
    taken = []

    class Readings:
        def __init__(self, threads):
            pass

        def take(self, rounds):
            rate = 1e9 * (2 if len(taken) > 1 else 1)
            taken.append(rounds)
            peak = {("float32", 1): 1e15, ("float64", 1): 1e15}
            typical = {**peak, (1024, 1): rate, (4096, 1): rate}
            return ceilings.Ceilings(ceilings.DEFAULT_SIZES, [], peak, {1: [(1024, rate), (4096, rate)]}, typical)

    monkeypatch.setattr(ceilings, "Readings", Readings)
    text = bench(capsys, "--threads", 1, "--json", tmp_path / "b.json")
    assert taken == [ceilings.ROUNDS, 2, 2, 2]
    assert "later in the run the ceilings were higher: the share of 1 case" in text
    found = json.loads((tmp_path / "b.json").read_text())
    for row in found["results"]:
        assert row["roofline_us"] == pytest.approx(row["bytes"] / 2e9 * 1e6)
        assert row["share"] == pytest.approx(row["roofline_us"] / row["results"]["fastlstm"]["median_us"])


# ---- a short run ------------------------------------------------------------------------------------------------


def test_a_short_run(tiny, capsys, tmp_path):
    assert commands.main(["bench", "--short", "--json", str(tmp_path / "b.json")]) == 0
    assert f"median of {command.SHORT_ROUNDS} rounds" in capsys.readouterr().out
    found = json.loads((tmp_path / "b.json").read_text())
    assert (found["settings"]["short"], found["settings"]["quick"], found["settings"]["rounds"]) == (True, False, 5)
    assert not any("fewer than" in words for words in found["notes"])
    assert commands.main(["bench", "--help"]) == 0
    assert "under five minutes" in " ".join(capsys.readouterr().out.split())


def test_a_short_run_that_would_take_too_long_has_fewer_rounds(tiny, capsys, monkeypatch):
    monkeypatch.setattr(command, "SHORT_SECONDS", 0)
    assert commands.main(["bench", "--short"]) == 0
    words = "! 3 cases have fewer than 5 rounds, but 3 at least, so that the run ends within 0 s"
    assert words in capsys.readouterr().out


def test_what_a_case_of_a_short_run_may_take_includes_its_preparation(monkeypatch):
    now, told = [0.0], []
    monkeypatch.setattr(command, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    ready = SimpleNamespace(entries=[])
    monkeypatch.setattr(contestants, "field", lambda *_: now.__setitem__(0, now[0] + 3.0) or ready)
    monkeypatch.setattr(measure, "time_case", lambda *_, seconds, **__: told.append(seconds))
    monkeypatch.setattr(command.report, "row", lambda *_: None)
    bar = SimpleNamespace(done=0, advance=lambda *_, **__: None)
    for budget in (SimpleNamespace(share=lambda: 10.0), None):
        command._time(TINY[1], {}, False, 1, 5, None, bar, budget)
    assert told == [7.0, measure.CASE]


def test_a_file_in_a_folder_is_named_after_the_processor(tiny, capsys, tmp_path, monkeypatch):
    told = {"processor": "x", "vendor": "AuthenticAMD", "family": 25, "model": 1, "stepping": 1}
    monkeypatch.setattr(processors, "identity", lambda: told)
    bench(capsys, "--threads", 1, "--group", "stream", "--json", tmp_path)
    bench(capsys, "--threads", 2, "--group", "stream", "--isa", "scalar", "--json", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "amd-zen3-1-thread.json", "amd-zen3-scalar-2-threads.json",
    ]


# ---- the picture ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peers", ["numpy", "none"])
def test_picture(tiny, capsys, tmp_path, peers):
    pytest.importorskip("matplotlib")
    bench(capsys, "--peers", peers, "--plot", tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_size > 30_000


def test_bars_are_speeds_the_longest_the_best():
    rows = [
        a_row("a", times={"fastlstm": 2.0, "torch": 4.0, "numpy": 8.0, "fastlstm.step": 1.0}, best="torch", ratio=2.0),
        a_row("b", times={"fastlstm": 2.0, "numpy": 1.0, "torch": 4.0}, best="numpy", ratio=0.5),
        a_row("c", group="gru", share=0.7),
    ]
    found = plots.speeds(rows)
    assert list(found) == ["stream"]  # the other group has no rival
    assert list(found["stream"]) == ["fastlstm", "numpy", "torch"]
    assert found["stream"] == pytest.approx({"fastlstm": 1.0, "numpy": 0.5**0.5, "torch": 0.5})
    assert plots.speeds(rows[2:])["gru"] == pytest.approx({"fastlstm": 0.7})


@pytest.mark.parametrize("peers", ["numpy", "none"])
def test_what_the_picture_says(tiny, capsys, tmp_path, monkeypatch, peers):
    pytest.importorskip("matplotlib")
    drawn = {}
    monkeypatch.setattr(plots, "write_figure", lambda path, figure, kind: drawn.update(figure=figure))
    bench(capsys, "--peers", peers, "--plot", "b.png", "--json", tmp_path / "b.json")
    found = json.loads((tmp_path / "b.json").read_text())
    figure, machine = drawn["figure"], found["machine"]
    for words in ("longer bars are faster", machine["processor"], f"fastlstm {fl.__version__}", "thread"):
        assert words in figure.get_suptitle()
    assert not re.search(r"20\d\d-|\d\d:\d\d", figure.get_suptitle())
    left, right = figure.axes
    bars = {round(bar.get_width(), 9) for bar in left.patches}
    assert bars == {round(v, 9) for group in plots.speeds(found["results"]).values() for v in group.values()}
    assert len({bar.get_facecolor() for bar in left.patches}) <= 2
    assert "speed, " in left.get_xlabel()
    assert right.get_ylabel() == "speed, GFLOP/s"


# ---- mistakes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--group", "step,nonsense"], "groups are step, stream"),
        (["--peers", "nonsense"], "peers are torch, onnxruntime"),
        (["--isa", "nonsense"], "choices: "),
        (["--plot", "b.bmp"], "must be one of .png, .pdf, .svg"),
        (["--dtype", "float16"], "--dtype"),
        (["--rounds", "0"], "positive integer"),
        (["--scaling", "--threads", "1"], "only one is allowed"),
        (["--quick", "--short"], "--quick and --short exclude each other"),
        (["--docs", "x.md"], "--docs belongs to bench report"),
        (["--plot-dir", "x"], "--plot-dir belongs to bench report"),
    ],
)
def test_mistakes_end_in_one_line(capsys, arguments, message):
    assert commands.main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_options_name_what_there_is():
    assert command._names(["a,b", "b", "c"], ("a", "b", "c"), "letter") == ["a", "b", "c"]
