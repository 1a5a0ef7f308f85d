"""`fastlstm run`: what it reads, feeds to a model, writes, and refuses."""

import os
import re

import numpy as np
import pytest
from command_line import fails, save_model, succeeds

import fastlstm as fl


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def model(folder):
    return save_model(folder)


@pytest.fixture(scope="module")
def words(folder):
    made = fl.Sequential(fl.Embedding(10, 4, rng=1), fl.LSTM(4, 8, rng=2))
    path = folder / "words.safetensors"
    made.save(path)
    return path, made


@pytest.fixture(scope="module")
def x(folder):
    """(T, I) values on file as .npy, and in memory."""
    values = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    path = folder / "x.npy"
    np.save(path, values)
    return path, values


def test_run_bundled(tmp_path):
    text = succeeds("run", cwd=tmp_path)
    for word in ("persistence", "11 years ago", "12 months ahead", "1983-12", "steps per second", "80 % band"):
        assert word in text
    lines = (tmp_path / "sunspots-forecast.csv").read_text().splitlines()
    assert len(lines) == 2821
    gains = [int(gain) for gain in re.findall(r"\(\+(\d+)%\)", text)]
    assert len(gains) == 16  # four baselines at four horizons, none of them ahead of the model


def test_run_bundled_draws_where_it_is_told(tmp_path):
    pytest.importorskip("matplotlib")
    succeeds("run", "-o", tmp_path / "mine.csv")
    assert (tmp_path / "mine.csv").exists()
    assert (tmp_path / "mine.png").stat().st_size > 50_000


def test_run_bundled_without_matplotlib(tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError('hidden by a test')")
    text = succeeds("run", "-o", tmp_path / "mine.csv", PYTHONPATH=_with_path(tmp_path))
    assert "with matplotlib installed" in text
    assert not (tmp_path / "mine.png").exists()


def _with_path(folder):
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


def read(path):
    if path.suffix == ".csv":
        return np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2, dtype=np.float32)
    return np.load(path)["y"] if path.suffix == ".npz" else np.load(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv"])
def test_run_writes_what_the_model_says(tmp_path, model, x, suffix):
    out = tmp_path / f"y{suffix}"
    text = succeeds("run", model[0], x[0], "-o", out)
    assert "20 steps: input (20, 3) -> output (20, 2); axes: time, features\n" in text
    assert f"wrote {out}\n" in text
    expected, _ = model[1](x[1][:, None])
    np.testing.assert_array_equal(read(out), expected[:, 0])  # %.9g keeps every bit of a float32


@pytest.mark.parametrize("header", ["", "a,b,c\n", "# a note\na,b,c\n", "\ufeff", "\ufeffa,b,c\n"])
def test_run_reads_csv(tmp_path, model, x, header):
    path, out = tmp_path / "x.csv", tmp_path / "y.npy"
    rows = "\n".join(",".join(f"{v:.9g}" for v in row) for row in x[1])
    path.write_text(header + rows + "\n", encoding="utf-8")
    succeeds("run", model[0], path, "-o", out)
    np.testing.assert_array_equal(read(out), model[1](x[1][:, None])[0][:, 0])


@pytest.mark.parametrize(
    ("names", "key"), [(["x", "other"], None), (["only"], None), (["a", "wanted"], "wanted")]
)
def test_run_reads_npz(tmp_path, model, x, names, key):
    path, out = tmp_path / "x.npz", tmp_path / "y.npy"
    wanted = key or names[0]
    np.savez(path, **{name: x[1] if name == wanted else np.zeros(4) for name in names})
    succeeds("run", model[0], path, "-o", out, *(["--array", key] if key else []))
    np.testing.assert_array_equal(read(out), model[1](x[1][:, None])[0][:, 0])


def test_run_takes_a_batch(tmp_path, model):
    batch = np.random.default_rng(1).standard_normal((6, 4, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", batch)
    text = succeeds("run", model[0], tmp_path / "x.npy", "-o", tmp_path / "y.npy")
    assert "6 steps of 4 sequences" in text
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), model[1](batch)[0])


def test_run_feeds_integers_to_an_embedding(tmp_path, words):
    (tmp_path / "x.csv").write_text("token\n1\n9\n0\n")
    succeeds("run", words[0], tmp_path / "x.csv", "-o", tmp_path / "y.npy")
    expected, _ = words[1](np.array([[1], [9], [0]]))
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected[:, 0])


def test_run_without_output_says_the_shapes(model, x):
    assert "20 steps: input (20, 3) -> output (20, 2)" in succeeds("run", model[0], x[0])


def test_the_shapes_told_are_those_of_the_files(tmp_path, words):
    layer = fl.LSTM(1, 2, rng=0)
    layer.save(tmp_path / "m")
    for model, given, told in (
        (tmp_path / "m", np.zeros(5), "5 steps: input (5,) -> output (5, 2); axes: time\n"),
        (tmp_path / "m", np.zeros((5, 1)), "5 steps: input (5, 1) -> output (5, 2); axes: time, features\n"),
        (tmp_path / "m", np.zeros((5, 1, 1)), "input (5, 1, 1) -> output (5, 1, 2); axes: time, batch, features\n"),
        (words[0], np.zeros(5, int), "5 steps: input (5,) -> output (5, 8); axes: time\n"),
        (words[0], np.zeros((5, 1), int), "5 steps: input (5, 1) -> output (5, 1, 8); axes: time, batch\n"),
    ):
        np.save(tmp_path / "x.npy", given)
        text = succeeds("run", model, tmp_path / "x.npy", "-o", tmp_path / "y.npy")
        assert told in text and f"input {given.shape} -> output {np.load(tmp_path / 'y.npy').shape};" in text
        text = succeeds("run", model, tmp_path / "x.npy", "-o", tmp_path / "y.npy", "--last")
        assert f"-> output {np.load(tmp_path / 'y.npy').shape};" in text


def test_columns_of_integers_are_sequences(tmp_path, words):
    path, out = tmp_path / "x.csv", tmp_path / "y.npy"
    path.write_text("a,b\n1,9\n3,4\n5,6\n")
    text = succeeds("run", words[0], path, "-o", out)
    assert "3 steps of 2 sequences: input (3, 2) -> output (3, 2, 8); axes: time, batch\n" in text
    assert f"{path}: each of the 2 columns is a sequence of its own: 'a' (1), 'b' (2)\n" in text
    line = fails("run", words[0], path, "-o", tmp_path / "y.csv")
    assert "a .csv holds the steps of one sequence, not of 2; use .npy" in line
    path.write_text("a\n1\n3\n")
    text = succeeds("run", words[0], path)
    assert "2 steps: input (2, 1) -> output (2, 8); axes: time, features\n" in text and "of its own" not in text


def test_help_names_arrays_and_axes():
    text = " ".join(succeeds("run", "--help").split())
    assert "(array 'y'; 'y_forward' and 'y_backward' of a model that gives a pair)" in text
    assert "axes: time, batch, features;" in text and "inputs;" not in text


# ---- mistakes ----------------------------------------------------------------------------


def test_missing_files(tmp_path, model, x):
    assert "no such model: nowhere.safetensors" in fails("inspect", "nowhere.safetensors")
    assert "no such model" in fails("run", "nowhere.safetensors", x[0])
    assert "no such input: nowhere.npy" in fails("run", model[0], "nowhere.npy")
    assert "or neither" in fails("run", model[0])
    assert "there is no folder" in fails("run", model[0], x[0], "-o", tmp_path / "no" / "y.npy")
    assert "there is no folder" in fails("run", "-o", tmp_path / "no" / "y.csv")


def test_wrong_suffix(model, x):
    assert "must be one of .npy, .npz, .csv" in fails("run", model[0], "x.wav")
    assert "must be one of .npy, .npz, .csv" in fails("run", model[0], x[0], "-o", "y.txt")
    assert "written as .csv" in fails("run", "-o", "y.npy")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\0\0\0\0\0\0\0{}      "])
def test_damaged_model(tmp_path, x, content):
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    assert "cannot load" in fails("inspect", path)
    assert "cannot load" in fails("run", path, x[0])


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("content", [b"", b"no array"])
def test_damaged_input(tmp_path, model, suffix, content):
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(content)
    assert "cannot read" in fails("run", model[0], path)


def test_pickles_are_refused(tmp_path, model):
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert "cannot read" in fails("run", model[0], tmp_path / "x.npy")


def test_wrong_width(tmp_path, model):
    np.save(tmp_path / "x.npy", np.zeros((5, 4)))
    assert "takes 3 features per step" in fails("run", model[0], tmp_path / "x.npy")
    (tmp_path / "x.csv").write_text("1,2\n3,4\n")
    assert "has 2 columns: 1, 2. --columns chooses" in fails("run", model[0], tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("text", "words_"),
    [
        ("", "holds no rows"),
        ("a,b,c\n", "holds no rows"),
        ("1,2,3\n4,5\n", "line 2 has 2 columns"),
        ("1,2,3\n4,x,6\n", "line 2, column 2: 'x' is not a number"),
        ("1749-01,58.0,1\n1749-02,62.6,2\n", "'1749-01' is not a number"),
    ],
)
def test_bad_csv(tmp_path, model, text, words_):
    path = tmp_path / "x.csv"
    path.write_text(text)
    assert words_ in fails("run", model[0], path)


def test_bad_npz(tmp_path, model, x):
    path = tmp_path / "x.npz"
    np.savez(path, a=x[1], b=x[1])
    assert "choose one with --array: a, b" in fails("run", model[0], path)
    assert "no array 'c': a, b" in fails("run", model[0], path, "--array", "c")
    assert "--array is for .npz" in fails("run", model[0], x[0], "--array", "a")


def test_bad_arrays(tmp_path, model, words):
    for values in (np.zeros((0, 3)), np.zeros(()), np.array(["a", "b"])):
        np.save(tmp_path / "x.npy", values)
        assert "must hold numbers" in fails("run", model[0], tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.array([0.5, 1.0]))
    assert "must hold integers" in fails("run", words[0], tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.array([1, 99]))
    assert "0 <= x < 10; element [1] is 99" in fails("run", words[0], tmp_path / "x.npy")


def test_batch_does_not_fit_csv(tmp_path, model):
    np.save(tmp_path / "x.npy", np.zeros((5, 2, 3)))
    assert "use .npy" in fails("run", model[0], tmp_path / "x.npy", "-o", tmp_path / "y.csv")
    assert not (tmp_path / "y.csv").exists()
