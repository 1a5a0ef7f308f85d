"""``fastlstm bench compare``: two files side by side; what is wrong with a file, in one line."""

import json

import pytest

from fastlstm import commands
from fastlstm.benchmark import compare, report, stored


def document(microseconds, spread=0.0, rival=None, **machine):
    """A file's content with one case per name in `microseconds`."""
    rows = []
    for name, us in microseconds.items():
        results = {"fastlstm": {"median_us": us, "spread": spread}}
        if rival:
            results["torch"] = {"median_us": rival, "spread": 0.0}
        rows.append({"group": "stream", "name": name, "dtype": "float32", "results": results})
    return {
        "format": report.FORMAT, "machine": {"isa": "scalar", **machine}, "settings": {"threads": 1}, "notes": [],
        "results": rows,
    }


def test_compare_flags_what_is_more_than_noise():
    found = compare.compare(document({"a": 100, "b": 100, "c": 105}), document({"a": 200, "b": 50, "c": 100}))
    assert [(row["ratio"], row["verdict"]) for row in found] == [(0.5, "slower"), (2.0, "faster"), (1.05, "")]
    wide = compare.compare(document({"a": 100}, spread=1.5), document({"a": 200}))
    assert wide[0]["verdict"] == ""


def test_compare_shows_what_the_machine_did():
    text = compare.text(document({"a": 100}, rival=10), document({"a": 200, "new": 5}, rival=20, isa="avx2"))
    for words in ("slower", "rivals 0.50", "isa differs: scalar, then avx2", "1 case is in one file only"):
        assert words in text


def test_compare_of_an_old_file_and_a_new_one(tmp_path, capsys):
    for name, form in (("old.json", "fastlstm bench 1"), ("new.json", "fastlstm bench 2")):
        (tmp_path / name).write_text(json.dumps(document({"a": 100}) | {"format": form}))
    for pair in (("old.json", "new.json"), ("new.json", "old.json"), ("old.json", "old.json")):
        assert commands.main(["bench", "compare", *(str(tmp_path / name) for name in pair)]) == 0
        assert "geometric mean: 1.00" in capsys.readouterr().out


def test_compare_refuses(tmp_path, capsys):
    good, foreign = tmp_path / "good.json", tmp_path / "foreign.json"
    good.write_text(json.dumps(document({"a": 1})))
    foreign.write_text("[1, 2]")
    for words, message in (
        (["compare", good], "compare BEFORE.json AFTER.json"),
        (["repeat", good, good], "compare BEFORE.json AFTER.json"),
        (["compare", good, foreign], "not written by"),
        (["compare", tmp_path / "none.json", good], "cannot read"),
    ):
        assert commands.main(["bench", *map(str, words)]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(stored.NotComparable, match="no case in common"):
        compare.compare(document({"a": 1}), document({"b": 1}))
    assert commands.main(["bench", "compare", str(good), str(good)]) == 0
    assert "geometric mean: 1.00" in capsys.readouterr().out


@pytest.mark.parametrize("option", [
    ("--json", "c.json"), ("--plot", "c.png"), ("--isa", "scalar"), ("--group", "step"), ("--peers", "none"),
    ("--threads", "1"), ("--dtype", "float32"), ("--rounds", "3"), ("--quick",), ("--short",), ("--scaling",),
    ("--docs", "x.md"), ("--plot-dir", "plots"),
])
def test_compare_takes_no_options(tmp_path, capsys, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.json").write_text(json.dumps(document({"a": 1})))
    assert commands.main(["bench", "compare", "good.json", "good.json", *option]) == 2
    captured = capsys.readouterr()
    assert f"bench compare takes no options, got {option[0]}\n" in captured.err and captured.out == ""


GOOD = document({"a": 100.0, "b": 50.0}, rival=70.0)


def changed(path, value):
    """GOOD as JSON with the value at a path (keys with dots between) replaced; `gone` takes it away."""
    found = json.loads(json.dumps(GOOD))
    *way, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    inside = found
    for key in way:
        inside = inside[key]
    if value is gone:
        del inside[last]
    else:
        inside[last] = value
    return json.dumps(found)


gone = object()
DAMAGED = {
    "": "it is empty",
    "{": "it is no JSON, or cut short (line 1, column 2)",
    json.dumps(GOOD)[:150]: "it is no JSON, or cut short (line 1, column ",
    "\udcff\udcfe": "it is no text in UTF-8",
    "[" * 100_000: "it is no JSON that can be read: too deeply nested",
    "[1, 2]": "it was not written by `fastlstm bench --json`",
    "null": "it was not written by `fastlstm bench --json`",
    '"fastlstm bench 1"': "it was not written by `fastlstm bench --json`",
    '{"results": []}': "it was not written by `fastlstm bench --json`",
    '{"format": "torch bench 3", "results": []}': "its format is 'torch bench 3', this version of fastlstm reads",
    '{"format": "fastlstm bench 3"}': "its format is 'fastlstm bench 3', this version of fastlstm reads 'fast",
    '{"format": ["fastlstm bench 1"]}': "its format is ['fastlstm bench 1'], this",
    changed("results", gone): "results is missing",
    changed("results", {}): "results must be a list, got a dict",
    changed("results", []): "results is empty",
    changed("results/1", 3): "results[1] must be a dict, got a number",
    changed("results/1/name", gone): "results[1].name is missing",
    changed("results/0/group", None): "results[0].group must be a string, got null",
    changed("results/0/dtype", 32): "results[0].dtype must be a string, got a number",
    changed("results/0/results", "fast"): "results[0].results must be a dict, got a string",
    changed("results/0/results/fastlstm", gone): "results[0].results.fastlstm is missing",
    changed("results/0/results/torch", None): "results[0].results.torch must be a dict, got null",
    changed("results/1/results/torch/spread", gone): "results[1].results.torch.spread is missing",
    changed("results/0/results/fastlstm/median_us", "100"): "median_us must be a number, got the string '100'",
    changed("results/0/results/fastlstm/median_us", True): "median_us must be a number, got true",
    changed("results/0/results/fastlstm/median_us", 0): "median_us must be from 1e-06 to 1e+12, got 0",
    changed("results/0/results/fastlstm/median_us", -1.5): "median_us must be from 1e-06 to 1e+12, got -1.5",
    changed("results/0/results/fastlstm/median_us", float("nan")): "median_us must be from 1e-06 to 1e+12, got nan",
    changed("results/0/results/torch/median_us", float("inf")): "median_us must be from 1e-06 to 1e+12, got inf",
    changed("results/0/results/torch/median_us", 10**400): "median_us must be from 1e-06 to 1e+12, got an integer of",
    changed("results/0/results/fastlstm/spread", -1): "spread must be from 0 to 1e+12, got -1",
    changed("machine", gone): "machine is missing",
    changed("machine", "mine"): "machine must be a dict, got a string",
    changed("settings", []): "settings must be a dict, got a list",
    changed("notes", {}): "notes must be a list, got a dict",
    changed("notes", [1]): "notes[0] must be a string, got a number",
}


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_compare_says_what_is_wrong_with_a_file(tmp_path, capsys, content):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(GOOD))
    bad.write_bytes(content.encode("utf-8", "surrogateescape"))
    for pair in ((good, bad), (bad, good)):
        assert commands.main(["bench", "compare", *map(str, pair)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert f"cannot read {bad}: " in captured.err
        assert DAMAGED[content] in captured.err
        assert len(captured.err) < len(str(bad)) + 250


def test_compare_of_what_is_no_file(tmp_path, capsys):
    good = tmp_path / "good.json"
    good.write_text(json.dumps(GOOD))
    missing = {tmp_path: "directory", tmp_path / "none.json": "No such file", good / "x": "ot a directory"}
    for path, words in missing.items():
        assert commands.main(["bench", "compare", str(path), str(good)]) == 2
        error = capsys.readouterr().err
        assert f"cannot read {path}: " in error and words in error
        assert error.count("\n") == 1


def test_compare_shows_no_control_characters(tmp_path, capsys):
    odd = json.loads(json.dumps(GOOD))
    odd["results"][0]["name"] = "a\x1b[31m\nb\ud800"
    odd["notes"] = ["red \x1b[31m", "x" * 5000]
    odd["machine"]["processor"] = {"a": ["\x07"] * 1000}
    (tmp_path / "odd.json").write_text(json.dumps(odd))
    (tmp_path / "good.json").write_text(json.dumps(GOOD))
    assert commands.main(["bench", "compare", *[str(tmp_path / "odd.json")] * 2]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text and "\x07" not in text
    assert r"a\x1b[31m\nb\ud800" in text
    assert commands.main(["bench", "compare", str(tmp_path / "good.json"), str(tmp_path / "odd.json")]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) < 400


def test_compare_explains_its_columns(capsys):
    lines = compare.text(document({"a": 100}, rival=10), document({"a": 200}, rival=20)).splitlines()
    head = "\n".join(lines[: lines.index("stream")])
    for words in ("microseconds per call", "lower is faster", "Above 1", "second run is faster", "rivals", "10 %"):
        assert words in head, words
    assert "rivals" not in compare.text(document({"a": 1}), document({"a": 2}))
