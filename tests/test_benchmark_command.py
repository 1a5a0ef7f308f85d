"""``fastlstm bench`` in this process, on a tiny grid: tables, files, comparison, mistakes."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

import fastlstm as fl
from fastlstm import cli
from fastlstm.benchmark import cases, command, contestants, measure, problem
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
    status = cli.main(["bench", "--rounds", "2", *map(str, arguments)])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return captured.out


def test_document(tiny, capsys, tmp_path):
    path = tmp_path / "bench.json"
    text = bench(capsys, "--peers", "numpy", "--threads", 2, "--scaling", "--json", path)
    assert text.index("ceilings, 1 thread") < text.index("step: one step") < text.index("stream: 100 steps")
    found = json.loads(path.read_text())
    assert set(found) == {"format", "machine", "peers", "settings", "ceilings", "notes", "groups", "results"}
    assert found["machine"]["isa"] == fl.isa()
    assert found["settings"]["threads"] == 2
    assert found["peers"] == {"numpy": np.__version__}
    assert {"of", "threads", "best", "typical"} == set(found["ceilings"]["flops_per_second"][0])
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


def test_a_wrong_peer_is_shown(tiny, capsys, monkeypatch):
    def make(task):
        call = contestants.own(task)
        return Call(call.run, lambda: {"y": -call.results()["y"]})

    liar = SimpleNamespace(version=lambda: "0", entries=lambda task: {"rival": lambda: make(task)})
    monkeypatch.setitem(contestants.PEERS, "torch", liar)
    text = bench(capsys, "--peers", "torch", "--group", "stream")
    assert "! DROPPED rival from stream small: y differs by" in text
    assert "ratio" not in text.split("microseconds per call")[0]


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


@pytest.mark.parametrize("peers", ["numpy", "none"])
def test_picture(tiny, capsys, tmp_path, peers):
    pytest.importorskip("matplotlib")
    bench(capsys, "--peers", peers, "--plot", tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_size > 30_000


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
    ],
)
def test_mistakes_end_in_one_line(capsys, arguments, message):
    assert cli.main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_options_name_what_there_is():
    assert command._names(["a,b", "b", "c"], ("a", "b", "c"), "letter") == ["a", "b", "c"]
