"""``fastlstm bench report``: the page is what the command makes of the kept files; names of processors."""

import json
import re
from pathlib import Path

import pytest

from fastlstm import commands
from fastlstm.benchmark import page, processors, stored

ROOT = Path(__file__).resolve().parent.parent
DOCS, RESULTS = ROOT / "docs/performance.md", ROOT / "bench/results"
AROUND = f"# By hand\n\nbefore\n\n{page.BEGIN}\nold\n{page.END}\n\nafter\n"


def timing(us, undisturbed=3, again=0):
    return {"median_us": us, "spread": 0.0, "undisturbed": undisturbed, "taken_again": again}


def row(group="stream", name="a", times=None, ratio=2.0, share=0.5):
    times = times or {"fastlstm": timing(10.0), "torch": timing(20.0)}
    return {"group": group, "name": name, "dtype": "float32", "share": share, "bound": "DRAM", "ratio": ratio,
            "results": times, "dropped": {}}


def document(*rows, **changes):
    def rates(*names):
        return [{"of": name, "threads": 1, "best": 10e9 * (k + 1)} for k, name in enumerate(names)]

    return {
        "format": "fastlstm bench 2", "date": "2026-01-02",
        "machine": {"processor": "AMD EPYC", "vendor": "AuthenticAMD", "family": 25, "model": 1, "stepping": 1,
                    "isa": "avx2", "fastlstm": "9.8", "processors": 2},
        "peers": {"torch": "7.7"}, "settings": {"threads": 1, "rounds": 9}, "notes": [],
        "ceilings": {"flops_per_second": rates("float32", "float64"),
                     "bytes_per_second": rates("L1", "L2", "L3", "DRAM")},
        "slots": {"taken": 18, "taken_again": 4, "disturbed": 1}, "results": list(rows) or [row()], **changes,
    }


def write(folder, found, name="amd-zen3-1-thread"):
    path = folder / f"{name}.json"
    path.write_text(json.dumps(found))
    return path


def report(capsys, *arguments):
    """Standard output of a run that must succeed."""
    assert commands.main(["bench", "report", *map(str, arguments)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


# ---- the page of this project -----------------------------------------------------------------------------------


def test_the_page_is_what_the_command_makes_of_the_kept_files(tmp_path, capsys, monkeypatch):
    """Run `fastlstm bench report --docs docs/performance.md --plot-dir docs` in the root of the clone when it fails."""
    monkeypatch.chdir(ROOT)  # whose bench/results is the default
    copy = tmp_path / "performance.md"
    copy.write_bytes(DOCS.read_bytes())
    report(capsys, "--docs", copy)
    assert copy.read_bytes() == DOCS.read_bytes()
    pictures = re.findall(r"!\[[^]]*\]\((performance-[^)]*)\)", DOCS.read_text("utf-8"))
    assert pictures == [page.picture(path.stem) for path in sorted(RESULTS.glob("*.json"))]
    assert {path.name for path in DOCS.parent.glob("performance-*.svg")} == set(pictures)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.name)
def test_kept_files_are_named_after_processor_and_threads(path):
    found = stored.read_whole(path)
    threads = found["settings"]["threads"]
    assert path.stem.endswith(f"-{threads}-thread{'' if threads == 1 else 's'}")
    if found["format"] != "fastlstm bench 1":  # which does not tell what the name is made of
        assert path.stem == processors.file_stem(found["machine"], threads, found["settings"]["isa"])
    text = path.read_text("utf-8")
    assert not re.search(r"/home/|/tmp/|/root/|https?://", text)


# ---- what it makes ----------------------------------------------------------------------------------------------


def test_text_around_the_markers_stays(tmp_path, capsys):
    docs = tmp_path / "page.md"
    docs.write_bytes(AROUND.replace("after\n", "after\r\nend").encode())
    report(capsys, write(tmp_path, document()), "--docs", docs)
    first = docs.read_bytes()
    assert first.startswith(f"# By hand\n\nbefore\n\n{page.BEGIN}\n\n### AMD Zen 3, 1 thread\n".encode())
    assert first.endswith(f"\n{page.END}\n\nafter\r\nend".encode())
    assert b"old" not in first
    report(capsys, tmp_path, "--docs", docs)
    assert docs.read_bytes() == first


def test_what_a_section_says(tmp_path, capsys):
    ragged = {"fastlstm": timing(10.0), "torch packed": timing(40.0), "torch padded": timing(30.0),
              "onnxruntime": timing(20.0, undisturbed=0)}
    rows = [row(), row(name="b", times={"fastlstm": timing(10.0), "torch": timing(5.0)}, ratio=0.5),
            row("ragged", "c|d <x>", ragged, 2.0, 1.25),
            row("own", "e", {"fastlstm": timing(1234.5)}, None)]
    text = report(capsys, write(tmp_path, document(*rows)))
    for line in (
        "| processor | AMD EPYC, 2 processors |", "| instruction set | avx2 |",
        "| measured | 2026-01-02, fastlstm 9.8, a whole run of 9 rounds |", "| other systems | torch 7.7 |",
        "| arithmetic | float32 10, float64 20 GFLOP/s |", "| reading | L1 10, L2 20, L3 30, memory 40 GB/s |",
        "| disturbed | 1 of 9 times (marked ~); 4 slots taken again |",
        "| group | cases | best other / fastlstm | lowest case | torch / fastlstm | onnxruntime / fastlstm | share |",
        "| stream | 2 | 1.00 (0.50) | b | 1.00 (0.50) | - | 0.50 |",
        "| ragged | 1 | 2.00 (2.00) | c\\|d &lt;x> | 3.00 (3.00) | 2.00 (2.00) | 1.25 |",
        "| own | 1 | - | - | - | - | 0.50 |",
        "| case | fastlstm | torch | best other / fastlstm | share | limit |",
        "| a | 10 | 20 | 2.00 | 0.50 | memory |", "| c\\|d &lt;x> | 10 | 40 | 30 | 20~ | 2.00 | 1.25 | memory |",
        "| e | 1,234 | - | 0.50 | memory |",
        "![speed of each group, and every case under the ceilings](performance-amd-zen3-1-thread.svg)",
    ):
        assert line in text.splitlines(), line
    assert "Geometric mean of each group" not in text  # only one processor


def test_several_processors_have_an_overview_first_and_stand_by_name(tmp_path, capsys):
    two = document(row(), row("gru"), settings={"threads": 2, "rounds": 5, "short": True, "isa": "scalar"})
    two["ceilings"]["flops_per_second"] += [{"of": "float32", "threads": 2, "best": 99e9}]
    two["ceilings"]["bytes_per_second"] += [{"of": "L1", "threads": 2, "best": 88e9}]
    paths = [write(tmp_path, two, "b"), write(tmp_path, document(row(ratio=3.0)), "a")]
    text = report(capsys, *paths)
    assert text == report(capsys, *paths[::-1]) == report(capsys, tmp_path)
    assert re.findall(r"^### .*", text, re.MULTILINE) == [
        "### AMD Zen 3, 1 thread", "### AMD Zen 3, 2 threads, scalar asked for",
    ]
    lines = text.splitlines()
    assert lines[2] == "| best other system / fastlstm | AMD Zen 3, 1 thread | AMD Zen 3, 2 threads, scalar asked for |"
    assert {"| stream | 3.00 (3.00) | 2.00 (2.00) |", "| gru | - | 2.00 (2.00) |",
            "| arithmetic | float32 99 GFLOP/s |",
            "| measured | 2026-01-02, fastlstm 9.8, a short run of 5 rounds |"} <= set(lines)


def test_files_of_the_first_format(tmp_path, capsys):
    old = document(format="fastlstm bench 1")
    del old["date"], old["slots"]
    for key in ("vendor", "family", "model", "stepping"):
        del old["machine"][key]
    text = report(capsys, write(tmp_path, old))
    assert "### AMD EPYC, 1 thread" in text
    assert "| measured | on a day that is not recorded, fastlstm 9.8, a whole run of 9 rounds |" in text
    assert "| disturbed | 0 of 2 times (marked ~) |" in text


def test_what_bench_writes_can_be_reported(tmp_path, capsys, monkeypatch):
    from fastlstm.benchmark import cases, measure

    monkeypatch.setattr(cases, "GRID", (cases.Case("stream", "small", 5, 3, 4, 6),))
    monkeypatch.setattr(measure, "SLOT", 1e-4)
    path = tmp_path / "own.json"
    assert commands.main(["bench", "--rounds", "2", "--threads", "2", "--peers", "numpy", "--json", str(path)]) == 0
    capsys.readouterr()
    assert "| case | fastlstm | numpy |" in report(capsys, path)


def test_pictures(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    full = {"flops": 10, "bytes": 5, "gflops": 1.0, "best_rival": "torch"}
    path = write(tmp_path, document(row() | full))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/page.md").write_text(AROUND)
    (tmp_path / "plots").mkdir()
    drawn = []
    for _ in range(2):
        report(capsys, path, "--docs", tmp_path / "docs/page.md", "--plot-dir", tmp_path / "plots")
        drawn.append((tmp_path / "plots/performance-amd-zen3-1-thread.svg").read_bytes())
    assert drawn[0] == drawn[1]
    assert b"AMD EPYC (AMD Zen 3), 1 thread, avx2" in drawn[0]
    assert "](../plots/performance-amd-zen3-1-thread.svg)" in (tmp_path / "docs/page.md").read_text()


# ---- mistakes ---------------------------------------------------------------------------------------------------


def refused(capsys, message, *arguments):
    assert commands.main(["bench", "report", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1 and captured.out == ""


def test_mistakes_end_in_one_line_and_change_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good, docs = write(tmp_path, document()), tmp_path / "page.md"
    (tmp_path / "empty").mkdir()
    refused(capsys, "cannot read bench/results: ")
    refused(capsys, "there is no .json in the folder empty", "empty")
    refused(capsys, "two results have the name amd-zen3-1-thread", good, good)
    refused(capsys, "bench report takes no options but --docs and --plot-dir, got --peers, --plot", good, "--peers",
            "none", "--plot", "x.png")
    refused(capsys, "--plot-dir must be a folder, got none", good, "--plot-dir", "none")
    refused(capsys, "cannot read page.md: No such file", good, "--docs", "page.md")
    for text, message in (
        (AROUND.replace(page.BEGIN, ""), "page.md must have this line once, has it 0 times: <!-- results: begin"),
        (AROUND + page.END, "page.md must have this line once, has it 2 times: <!-- results: end -->"),
        (f"{page.END}\n{page.BEGIN}\n", "page.md has the line that ends the results before the one that begins them"),
    ):
        docs.write_text(text)
        refused(capsys, message, good, "--docs", "page.md")
        assert docs.read_text() == text
    docs.write_bytes(b"\xff")
    refused(capsys, "cannot read page.md: it is no text in UTF-8", good, "--docs", "page.md")


GONE = object()


@pytest.mark.parametrize(("path", "value", "message"), [
    ("results", [], "results is empty"),
    ("machine/isa", GONE, "machine.isa is missing"),
    ("machine/processor", 3, "machine.processor must be a string, got a number"),
    ("machine/family", "25", "machine.family must be an integer, got a string"),
    ("settings/threads", GONE, "settings.threads is missing"),
    ("settings/threads", True, "settings.threads must be an integer, got true"),
    ("settings/threads", 2, "ceilings.flops_per_second has no rate of 2 threads"),
    ("peers", [], "peers must be a dict, got a list"),
    ("peers/torch", None, "peers.torch must be a string, got null"),
    ("date", 3, "date must be a string, got a number"),
    ("slots", {}, "slots.taken_again is missing"),
    ("ceilings", GONE, "ceilings is missing"),
    ("ceilings/bytes_per_second", [], "ceilings.bytes_per_second has no rate of 1 threads"),
    ("ceilings/bytes_per_second/1/best", "fast", "ceilings.bytes_per_second[1].best must be a number, got a string"),
    ("ceilings/bytes_per_second/1/best", -1, "ceilings.bytes_per_second[1].best must be from 1 to 1e+18, got -1"),
    ("results/0/share", GONE, "results[0].share is missing"),
    ("results/0/share", float("nan"), "results[0].share must be from 1e-06 to 1e+12, got nan"),
    ("results/0/bound", None, "results[0].bound must be a string, got null"),
    ("results/0/ratio", None, "results[0].ratio must be a number where another system takes part, else null"),
    ("results/0/ratio", 0, "results[0].ratio must be from 1e-06 to 1e+12, got 0"),
    ("results/0/results/torch/undisturbed", GONE, "results[0].results.torch.undisturbed is missing"),
])
def test_damaged_files_are_refused_in_words(tmp_path, capsys, path, value, message):
    found = document()
    *way, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    inside = found
    for key in way:
        inside = inside[key]
    if value is GONE:
        del inside[last]
    else:
        inside[last] = value
    bad = write(tmp_path, found, "bad")
    refused(capsys, f"cannot read {bad}: {message}", bad)


# ---- names of processors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("told", "name", "stem"), [
    (("AuthenticAMD", 25, 1, 1), "AMD Zen 3", "amd-zen3-1-thread"),
    (("AuthenticAMD", 25, 0x11, 1), "AMD Zen 4", "amd-zen4-1-thread"),
    (("AuthenticAMD", 26, 2, 1), "AMD Zen 5", "amd-zen5-1-thread"),
    (("AuthenticAMD", 99, 2, 1), "Some 8370C", "some-8370c-1-thread"),
    (("GenuineIntel", 6, 85, 7), "Intel Cascade Lake", "intel-cascade-lake-1-thread"),
    (("GenuineIntel", 6, 85, 4), "Intel Skylake server", "intel-skylake-server-1-thread"),
    (("GenuineIntel", 6, 143, 8), "Intel Sapphire Rapids", "intel-sapphire-rapids-1-thread"),
    (("GenuineIntel", 6, 9999, 8), "Some 8370C", "some-8370c-1-thread"),
    (("GenuineIntel", None, None, None), "Some 8370C", "some-8370c-1-thread"),
    (("AuthenticAMD", 25, None, None), "Some 8370C", "some-8370c-1-thread"),
    (("0x41", 8, 0xD40, 1), "ARM Neoverse V1", "arm-neoverse-v1-1-thread"),
    ((None, None, None, None), "Some 8370C", "some-8370c-1-thread"),
])
def test_names_of_processors(told, name, stem):
    machine = dict(zip(("vendor", "family", "model", "stepping"), told, strict=True))
    machine["processor"] = "Some(R)  8370C CPU @ 2.80GHz"
    assert processors.name_of(machine) == name
    assert processors.file_stem(machine, 1) == stem
    assert processors.file_stem(machine, 16, "avx2") == stem.replace("-1-thread", "-avx2-16-threads")


def test_what_the_system_tells(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\n"
                    "model name\t: Xeon: it\nstepping\t: 7\n\nprocessor\t: 1\nmodel\t: 3\n")
    assert processors.identity(path) == {
        "processor": "Xeon: it", "vendor": "GenuineIntel", "family": 6, "model": 85, "stepping": 7,
    }
    path.write_text("CPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd0c\nCPU revision\t: 1\n")
    found = processors.identity(path)
    assert (found["vendor"], found["family"], found["model"]) == ("0x41", 8, 0xD0C)
    assert processors.identity(tmp_path / "none")["vendor"] is None
