"""`fastlstm run` of every kind of model, of batches, of long inputs and through pipes; where the result goes."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch_bytes as tb
from command_line import fails, fastlstm, save_model, succeeds
from damage import DATA

import fastlstm as fl
from fastlstm import commands
from fastlstm.commands import feed, inputs

posix = pytest.mark.skipif(os.name == "nt", reason="pipes and devices as on POSIX")
I, T, B = 3, 40, 4
MODELS = {
    "bidirectional": lambda **k: fl.LSTM(I, 5, 2, bidirectional=True, rng=0, **k),
    "reverse": lambda **k: fl.Reverse(fl.GRU(I, 5, rng=0, **k)),
    "go_backwards": lambda **k: fl.Reverse(fl.GRU(I, 5, rng=0, **k), in_time=False),
    "two layers": lambda **k: fl.Bidirectional(fl.LSTM(I, 4, rng=0, **k), fl.RNN(I, 4, rng=1, **k), "sum"),
    "chain": lambda **k: fl.Sequential(fl.Linear(I, 4, rng=0), fl.Sequential(
        fl.GRU(4, 5, bidirectional=True, rng=1, **k), fl.Linear(10, 2, rng=2))),
    "last": lambda **k: fl.Sequential(fl.Last(fl.LSTM(I, 4, bidirectional=True, rng=0, **k)), fl.Linear(8, 2, rng=1)),
    "one way": lambda **k: fl.Sequential(fl.LSTM(I, 4, 2, rng=0, **k), fl.Linear(4, 2, rng=1)),
    "one way, last": lambda **k: fl.Last(fl.LSTM(I, 4, rng=0, **k)),
    "no memory": lambda **k: fl.Linear(I, 2, rng=0),
}
WHOLE = list(MODELS)[:6]


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).standard_normal((T, B, I)).astype(np.float32)


def run(capsys, *words, status=0):
    """(standard output, standard error) of the command, in this process."""
    found = commands.main(["run", *map(str, words)])
    out, err = capsys.readouterr()
    assert found == status, err
    return out, err


def small_blocks(monkeypatch, steps=7):
    monkeypatch.setattr(feed, "_LONGEST", steps)


# ---- every model -------------------------------------------------------------------------


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_every_model(tmp_path, capsys, monkeypatch, x, name, first):
    small_blocks(monkeypatch)
    model = MODELS[name](**({"batch_first": first} if name != "no memory" else {}))
    first = first and name != "no memory"
    given = x.swapaxes(0, 1) if first else x
    model.save(tmp_path / "m")
    np.save(tmp_path / "x.npy", given)
    np.save(tmp_path / "one.npy", x[:, 1])
    text, _ = run(capsys, tmp_path / "m", tmp_path / "x.npy", "-o", tmp_path / "y.npz")
    y = np.load(tmp_path / "y.npz")["y"]
    if name == "one way, last":  # an answer at every step
        expected = model.layer(given)[0]
        assert "that of the whole sequence is the last one" in text
    else:
        expected = model.forward(given)[0]
    np.testing.assert_array_equal(y, expected)
    assert ("run in one call, not streamed" in text) == (name in WHOLE)
    assert f"{T} steps of {B} sequences: input {given.shape} -> output {expected.shape}" in text
    assert f"axes: {'batch, time' if first else 'time, batch'}, features" in text
    run(capsys, tmp_path / "m", tmp_path / "one.npy", "-o", tmp_path / "one.csv")
    one = np.loadtxt(tmp_path / "one.csv", delimiter=",", skiprows=1, ndmin=2, dtype=np.float32)
    rows = expected if expected.ndim == 2 else expected.swapaxes(0, 1) if not first else expected
    np.testing.assert_array_equal(one, rows[1] if expected.ndim == 3 else rows[1:2])


def test_a_pair(tmp_path, capsys, x):
    model = fl.Bidirectional(fl.LSTM(I, 4, rng=0), fl.LSTM(I, 5, rng=1), merge=None)
    model.save(tmp_path / "m")
    np.save(tmp_path / "x.npy", x)
    for name in ("y.npy", "y.csv"):
        _, err = run(capsys, tmp_path / "m", tmp_path / "x.npy", "-o", tmp_path / name, status=2)
        assert "gives a pair of arrays" in err and "use .npz" in err
    text, _ = run(capsys, tmp_path / "m", tmp_path / "x.npy", "-o", tmp_path / "y.npz")
    found = np.load(tmp_path / "y.npz")
    for name, expected in zip(("y_forward", "y_backward"), model.forward(x)[0], strict=True):
        np.testing.assert_array_equal(found[name], expected)
    assert "output (40, 4, 4) and (40, 4, 5)" in text


@pytest.mark.parametrize("name", ["one way", "one way, last", "last", "bidirectional"])
@pytest.mark.parametrize("ending", [".csv", ".npy", ".npz"])
def test_the_last_step_alone(tmp_path, capsys, monkeypatch, x, name, ending):
    small_blocks(monkeypatch)
    model = MODELS[name](batch_first=True)
    model.save(tmp_path / "m")
    given, out = x.swapaxes(0, 1), tmp_path / f"y{ending}"
    np.save(tmp_path / "x.npy", given)
    text, _ = run(capsys, tmp_path / "m", tmp_path / "x.npy", "-o", out, "--last")
    y = model.forward(given)[0]
    expected = y if y.ndim == 2 else y[:, -1]
    assert f"-> output {expected.shape}; axes" in text and "(--last)" not in text
    found = np.loadtxt(out, delimiter=",", skiprows=1, dtype="f4") if ending == ".csv" else np.load(out)
    np.testing.assert_array_equal(found["y"] if ending == ".npz" else found, expected)
    np.save(tmp_path / "x.npy", given[1])
    run(capsys, tmp_path / "m", tmp_path / "x.npy", "-o", tmp_path / "one.npy", "--last")
    np.testing.assert_array_equal(np.load(tmp_path / "one.npy"), expected[1])


def test_one_row_per_sequence_fits_a_csv(tmp_path, capsys, x):
    model = MODELS["last"]()
    model.save(tmp_path / "m")
    np.save(tmp_path / "x.npy", x)
    run(capsys, tmp_path / "m", tmp_path / "x.npy", "-o", tmp_path / "y.csv")
    found = np.loadtxt(tmp_path / "y.csv", delimiter=",", skiprows=1, dtype=np.float32)
    np.testing.assert_array_equal(found, model.forward(x)[0])


def test_models_of_keras_take_batches_first(tmp_path, capsys):
    model = fl.from_keras(DATA / "keras_sample.keras")
    row = inputs_of(model)
    given = np.random.default_rng(0).integers(0, 5, (2, 9, *row)) if row == () else np.ones((2, 9, *row), "f4")
    np.save(tmp_path / "x.npy", given)
    text, _ = run(capsys, DATA / "keras_sample.keras", tmp_path / "x.npy", "-o", tmp_path / "y.npy")
    assert "axes: batch, time" in text and "9 steps of 2 sequences" in text
    expected = model.forward(given)[0]
    found = np.load(tmp_path / "y.npy")
    np.testing.assert_array_equal(found if expected.ndim == 3 or found.ndim == 2 else found[:, -1], expected)


def inputs_of(model):
    from fastlstm.sequential import at_end

    first = at_end(model, 0)
    return () if isinstance(first, fl.Embedding) else (getattr(first, "input_size", None) or first.in_features,)


def test_axes_can_be_told(tmp_path, capsys, x):
    model = MODELS["one way"]()
    model.save(tmp_path / "m")
    np.save(tmp_path / "x.npy", x.swapaxes(0, 1))
    text, _ = run(capsys, tmp_path / "m", tmp_path / "x.npy", "-o", tmp_path / "y.npy", "--axes", "bti")
    assert "axes: batch, time, features" in text
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), model.forward(x)[0].swapaxes(0, 1))
    for words, reason in ((["--axes", "BT"], "names 2 axes"), (["--axes", "ITB"], "invalid choice")):
        assert reason in run(capsys, tmp_path / "m", tmp_path / "x.npy", *words, status=2)[1]
    np.save(tmp_path / "x.npy", x[:, 0])
    assert "is for a batch" in run(capsys, tmp_path / "m", tmp_path / "x.npy", "--axes", "TBI", status=2)[1]


def test_integers(tmp_path, capsys):
    model = fl.Sequential(fl.Embedding(10, 4, rng=1), fl.LSTM(4, 8, batch_first=True, rng=2))
    model.save(tmp_path / "m")
    given = np.random.default_rng(0).integers(0, 10, (2, 9))
    for kind in ("i8", "u1", ">i4", "f8", "f2"):
        np.save(tmp_path / "x.npy", given.astype(kind))
        text, _ = run(capsys, tmp_path / "m", tmp_path / "x.npy", "-o", tmp_path / "y.npy")
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), model.forward(given)[0])
    assert "input (2, 9) -> output (2, 9, 8); axes: batch, time\n" in text
    for value in (10, -1, 0.5, np.nan, np.inf, 1e300):
        np.save(tmp_path / "x.npy", np.where(np.arange(18).reshape(2, 9) == 11, value, given))
        assert "must hold integers, 0 <= x < 10; element [1, 2] is" in run(
            capsys, tmp_path / "m", tmp_path / "x.npy", status=2)[1]


def test_checkpoints_that_hold_more(tmp_path, capsys, x):
    """--key and --name are those of convert; --array is the input's."""
    layer = fl.RNN(I, 4, nonlinearity="relu", batch_first=True, rng=0)
    d = {f"net.rnn.{name}": weight for name, weight in layer.state_dict().items()}
    stored = {name: tb.tensor(tb.storage(str(n), numel=w.size), 0, w.shape, [s // 4 for s in w.strides])
              for n, (name, w) in enumerate(d.items())}
    data = tb.archive({"state_dict": stored, "epoch": 3}, {str(n): w.tobytes() for n, w in enumerate(d.values())})
    (tmp_path / "m.ckpt").write_bytes(data)
    np.savez(tmp_path / "x.npz", a=x.swapaxes(0, 1), b=x)
    words = ("--key", "state_dict", "--name", "net.rnn.", "--batch-first", "--nonlinearity", "relu", "--array", "a")
    run(capsys, tmp_path / "m.ckpt", tmp_path / "x.npz", "-o", tmp_path / "y.npy", *words)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), layer.forward(x.swapaxes(0, 1))[0])


# ---- long inputs -------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".npy", ".npz", ".csv"])
@pytest.mark.parametrize("given", ["C", "F", "csv", "npz", "gz", "big-endian", "float64", "pipe"])
def test_blocks_change_no_bit(tmp_path, capsys, monkeypatch, x, given, ending):
    small_blocks(monkeypatch)
    model = MODELS["one way"]()
    model.save(tmp_path / "m")
    x, path = x[:, 0], tmp_path / "x.npy"
    if given == "csv":
        path = tmp_path / "x.csv"
        np.savetxt(path, x, fmt="%.9g", delimiter=",")
    elif given == "npz":
        path = tmp_path / "x.npz"
        np.savez_compressed(path, x)
    elif given == "gz":
        import gzip

        np.save(tmp_path / "a.npy", x)
        path.write_bytes(gzip.compress((tmp_path / "a.npy").read_bytes()))
    else:
        like = {"F": np.asfortranarray(x), "big-endian": x.astype(">f4"), "float64": x.astype("f8")}.get(given, x)
        np.save(path, like)
    out = tmp_path / f"y{ending}"
    words = [tmp_path / "m", path, "-o", out]
    if given == "pipe":
        with path.open("rb") as file:
            subprocess.run(
                [sys.executable, "-m", "fastlstm", "run", str(words[0]), "-", "--input-format", "npy", "-o", str(out)],
                stdin=file, check=True, stdout=subprocess.DEVNULL,
            )
    else:
        run(capsys, *words)
    expected = model.forward(x[:, None])[0][:, 0]
    if ending == ".csv":
        found = np.loadtxt(out, delimiter=",", skiprows=1, ndmin=2, dtype=np.float32)
    else:
        found = np.load(out)["y"] if ending == ".npz" else np.load(out)
    np.testing.assert_array_equal(found, expected)
    assert found.shape == expected.shape and sorted(os.listdir(tmp_path))[-1] == out.name


def test_float64_loses_nothing_in_a_csv(tmp_path, capsys, x):
    model = fl.LSTM(I, 4, dtype="float64", rng=0)
    model.save(tmp_path / "m")
    np.save(tmp_path / "x.npy", x[:, 0])
    run(capsys, tmp_path / "m", tmp_path / "x.npy", "-o", tmp_path / "y.csv")
    found = np.loadtxt(tmp_path / "y.csv", delimiter=",", skiprows=1)
    np.testing.assert_array_equal(found, model(x[:, :1])[0][:, 0])


def test_any_axis_of_any_file_is_read_in_blocks(tmp_path):
    rng = np.random.default_rng(0)
    for shape in ((5,), (5, 3), (5, 2, 3), (2, 5, 3), (1, 1, 1)):
        for order in "CF":
            for packed in (False, True):
                given = np.asarray(rng.standard_normal(shape), order=order)
                path = tmp_path / ("x.npz" if packed else "x.npy")
                (np.savez_compressed if packed else np.save)(path, given)
                for axis in range(min(len(shape), 2)):
                    for steps in (1, 2, 5, 9):
                        with inputs.opened(str(path), path.suffix[1:]) as source:
                            found = list(source.blocks(axis, steps))
                        np.testing.assert_array_equal(np.concatenate(found, axis), given)
                        whole = packed and found[0].size == given.size
                        assert max(len(one.swapaxes(0, axis)) for one in found) <= steps or whole


def test_a_file_that_is_cut_short_meanwhile(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((100_000, 3)))
    with inputs.opened(str(tmp_path / "x.npy"), "npy") as source:
        blocks = source.blocks(0, 10_000)
        next(blocks)
        os.truncate(tmp_path / "x.npy", 1_000_000)
        with pytest.raises(commands.UsageError, match="ends before its array of shape"):
            list(blocks)


@posix
def test_what_comes_through_a_pipe_is_answered_at_once(tmp_path, x):
    """Row by row, before the input has ended."""
    model = MODELS["one way"]()
    model.save(tmp_path / "m")
    command = [sys.executable, "-m", "fastlstm", "run", str(tmp_path / "m"), "-", "-o", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(b"a,b,c\n")
        found = []
        for row in x[:5, 0]:
            process.stdin.write(",".join(f"{value:.9g}" for value in row).encode() + b"\n")
            process.stdin.flush()
            found += [process.stdout.readline()] if found else [process.stdout.readline(), process.stdout.readline()]
        process.stdin.close()
        report, rest = process.stderr.read().decode(), process.stdout.read()
    assert found[0] == b"y0,y1\n" and rest == b"" and process.returncode == 0
    numbers = np.loadtxt(found[1:], delimiter=",", dtype=np.float32)
    np.testing.assert_array_equal(numbers, model(x[:5, :1])[0][:, 0])
    assert "5 steps: input (5, 3)" in report and "standard input: line 1 is taken as the header: a, b, c" in report


@posix
@pytest.mark.parametrize("kind", ["csv", "npy", "npz"])
def test_standard_output(tmp_path, x, kind):
    model, _ = save_model(tmp_path)
    np.savetxt(tmp_path / "x.csv", x[:, 0], delimiter=",")
    command = [sys.executable, "-m", "fastlstm", "run", str(model), "x.csv", "-o"]
    for name in ("-", "/dev/stdout"):
        found = subprocess.run([*command, name, "--output-format", kind], capture_output=True, cwd=tmp_path, check=True)
        assert b"40 steps" in found.stderr
        (tmp_path / f"direct.{kind}").write_bytes(found.stdout)
        subprocess.run([*command, f"file.{kind}"], cwd=tmp_path, check=True, capture_output=True)
        assert (tmp_path / f"direct.{kind}").read_bytes() == (tmp_path / f"file.{kind}").read_bytes()
    full = ["sh", "-c", " ".join([*command, "-"]) + " >/dev/full"]
    found = subprocess.run(full, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert found.returncode == 1 and "40 steps" in found.stderr and "No space left" in found.stderr.splitlines()[-1]


# ---- where the result goes ---------------------------------------------------------------


def test_what_is_read_is_not_written_over(tmp_path, x):
    model, _ = save_model(tmp_path)
    data = tmp_path / "x.csv"
    np.savetxt(data, x[:, 0], delimiter=",")
    before = data.read_bytes()
    os.symlink("x.csv", tmp_path / "link.csv")
    for words in (("x.csv", "-o", "x.csv"), ("x.csv", "-o", "link.csv"), ("link.csv", "-o", "./x.csv")):
        assert "it is the input, which would be lost" in fails("run", model, *words, cwd=tmp_path)
    with data.open("rb") as file:
        command = [sys.executable, "-m", "fastlstm", "run", str(model), "-", "-o", str(data)]
        found = subprocess.run(command, stdin=file, capture_output=True, text=True, check=False)
    assert "it is the input" in found.stderr and data.read_bytes() == before
    words = ("run", model, "x.csv", "-o", model, "--output-format", "npy")
    assert "it is the model" in fails(*words, cwd=tmp_path)
    assert "it is the model" in fails("convert", model, model)
    fl.load(model)


@posix
def test_standard_output_that_is_a_file(tmp_path, x):
    """It stands where the shell has opened it; what it holds stays, by whatever name it is called."""
    model, _ = save_model(tmp_path)
    np.savetxt(tmp_path / "x.csv", x[:, 0], delimiter=",")
    os.symlink("/dev/stdout", tmp_path / "link")
    command = f'"{sys.executable}" -m fastlstm run "{model}" x.csv -o'

    def shell(line):
        return subprocess.run(["sh", "-c", line], capture_output=True, text=True, cwd=tmp_path, check=False)

    expected = shell(f"{command} -").stdout
    assert expected.count("\n") == 41
    for name in ("-", "/dev/stdout", "/dev/fd/1", "link", "/dev/../dev/stdout", "/proc/self/fd/1"):
        if not os.path.exists(os.path.dirname(name) or tmp_path):
            continue
        for before, after in ((">> log.csv", "old\n"), ("> log.csv", "")):
            (tmp_path / "log.csv").write_text("old\n")
            found = shell(f"{command} {name} {before}")
            assert found.returncode == 0 and "40 steps" in found.stderr and "wrote standard output" in found.stderr
            assert (tmp_path / "log.csv").read_text() == after + expected, (name, before)
    found = shell(f"{command} log.csv >> log.csv")
    assert found.returncode == 2 and "log.csv: standard output goes there, too; -o - writes" in found.stderr
    assert (tmp_path / "log.csv").read_text() == expected


@posix
def test_standard_output_is_not_what_is_read(tmp_path, x):
    model, _ = save_model(tmp_path)
    np.savetxt(tmp_path / "x.csv", x[:, 0], delimiter=",")
    os.symlink(model, tmp_path / "m")
    before = (tmp_path / "x.csv").read_bytes(), model.read_bytes()
    for line, what in (
        ("x.csv -o - >> x.csv", "input"), ("- -o - < x.csv >> x.csv", "input"),
        ("x.csv -o /dev/stdout >> x.csv", "input"), ("x.csv >> x.csv", "input"),
        ("x.csv -o y.npy >> x.csv", "input"), ("x.csv -o - >> m", "model"),
    ):
        found = subprocess.run(
            ["sh", "-c", f'"{sys.executable}" -m fastlstm run m {line}'], capture_output=True, text=True, cwd=tmp_path,
            check=False,
        )
        assert found.returncode == 2 and f"to standard output: it is the {what}, which would be" in found.stderr, line
        assert before == ((tmp_path / "x.csv").read_bytes(), model.read_bytes())
        assert not (tmp_path / "y.npy").exists()


def test_the_report_of_a_disk_that_is_full(tmp_path, monkeypatch, capsys, x):
    model, _ = save_model(tmp_path)
    np.save(tmp_path / "x.npy", x[:, 0])

    def full(path, pieces):
        list(pieces)
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr("fastlstm.commands.outputs.write_whole", full)
    out, err = run(capsys, model, tmp_path / "x.npy", "-o", tmp_path / "y.npy", status=1)
    assert "40 steps: input" in out and "steps per second" in out and "wrote" not in out
    assert err == f"fastlstm: error: cannot write {tmp_path / 'y.npy'}: No space left on device\n"
    monkeypatch.setattr("fastlstm.forecast.write_whole", full)
    out, err = run(capsys, "-o", tmp_path / "s.csv", status=1)
    assert "persistence" in out and "steps per second" in out and "wrote" not in out and "No space left" in err


@posix
def test_what_cannot_be_written_is_said_before_the_work(tmp_path, monkeypatch, capsys, x):
    model, _ = save_model(tmp_path)
    monkeypatch.setattr("fastlstm.commands.common.load", lambda *_, **__: pytest.fail("work was done"))
    (tmp_path / "closed").mkdir()
    (tmp_path / "file.npy").write_bytes(b"")
    (tmp_path / "folder.npy").mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "closed" not in str(path) and str(path)[-8:] != "file.npy"
                        and access(path, mode))
    for name, reason in {
        "closed/y.npy": "no file can be made in the folder", "file.npy": "Permission denied",
        "no/y.npy": "there is no folder", "folder.npy": "it is a directory",
        "file.npy/y.npy": "there is no folder", "n" * 300 + ".npy": "too long",
        "a\0b.npy": "null",
    }.items():
        _, err = run(capsys, model, tmp_path / "x.npy", "-o", tmp_path / name, status=2)
        assert reason in err and err.startswith("fastlstm: error: cannot write"), err
    _, err = run(capsys, "-o", tmp_path / "closed" / "s.csv", status=2)
    assert "no file can be made" in err
    for words in (["bench", "--quick", "--json"], ["convert", str(model)]):
        assert commands.main([*words, str(tmp_path / "closed" / "b.safetensors")]) == 2
        assert "no file can be made" in capsys.readouterr().err


def test_options_that_do_not_fit(tmp_path):
    model, _ = save_model(tmp_path)
    np.save(tmp_path / "x.npy", np.zeros((4, 3)))
    for words, reason in [
        (("run", "--array", "a"), "takes a MODEL and an INPUT, or neither"),
        (("run", "--allow-nan"), "or neither"),
        (("run", model, tmp_path / "x.npy", "--output-format", "csv"), "--output-format is for an output"),
        (("run", "-", tmp_path / "x.npy"), "a model is not read from standard input"),
        (("run", model, tmp_path / "x.npy", "--key", "k"), "key: for dicts in a checkpoint of torch alone"),
        (("run", model, tmp_path / "x.npy", "-o", "y.csv.gz"), "must be one of .npy, .npz, .csv"),
    ]:
        assert reason in fails(*words)


def test_numbers_of_arrays_that_are_not_finite(tmp_path, capsys, monkeypatch, x):
    small_blocks(monkeypatch)
    MODELS["one way"](batch_first=True).save(tmp_path / "m")
    given = x.swapaxes(0, 1).astype("f8")
    for value, words in ((np.nan, "is nan"), (-np.inf, "is -inf"), (1e300, "is 1e+300, too large for float32")):
        given[2, 17, 1] = value
        np.save(tmp_path / "x.npy", given)
        _, err = run(capsys, tmp_path / "m", tmp_path / "x.npy", status=2)
        assert f"element [2, 17, 1] {words}" in err and "--allow-nan" in err
    out, _ = run(capsys, tmp_path / "m", tmp_path / "x.npy", "--allow-nan")
    assert "1 number of the input is NaN or infinite" in out
    given[2, 17, 1] = np.nan
    np.save(tmp_path / "x.npy", given)
    out, _ = run(capsys, tmp_path / "m", tmp_path / "x.npy", "--allow-nan")
    assert "the output has NaN or infinity within the first 21 steps" in out


def test_an_output_that_is_not_finite_is_told(tmp_path, capsys):
    layer = fl.Linear(1, 1, rng=0)
    layer.load_state_dict({"weight": np.array([[3e38]], "f4"), "bias": np.zeros(1, "f4")})
    layer.save(tmp_path / "m")
    np.save(tmp_path / "x.npy", np.array([1.0, 3.0]))
    assert "the output has NaN or infinity" in run(capsys, tmp_path / "m", tmp_path / "x.npy")[0]


def test_a_terminal_gets_no_bytes(tmp_path, monkeypatch, capsys):
    model, _ = save_model(tmp_path)
    np.save(tmp_path / "x.npy", np.zeros((4, 3)))
    monkeypatch.setattr("fastlstm._terminal.PlainOutput.isatty", lambda self: True)
    words = (model, tmp_path / "x.npy", "-o", "-", "--output-format", "npy")
    assert "a terminal takes no .npy" in run(capsys, *words, status=2)[1]


def test_help_has_no_colours():
    from fastlstm.commands import parser

    assert parser.make().color is False


def test_standard_input_that_is_closed(tmp_path):
    model, _ = save_model(tmp_path)
    command = f'"{sys.executable}" -m fastlstm run "{model}" - <&-'
    found = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (2, "fastlstm: error: standard input is closed\n")


# ---- inspect, convert --------------------------------------------------------------------


def test_plans_when_asked_for(tmp_path):
    path, model = save_model(tmp_path)
    assert "plan" not in succeeds("inspect", path)
    text = succeeds("inspect", path, "--plan")
    assert text.index("parameters") < text.index("plan") and "(0) 50 steps of 64 rows" in text


def test_inspect_for_programs(tmp_path):
    import json

    path, model = save_model(tmp_path)
    found = json.loads(succeeds("inspect", path, "--json"))
    [one] = found["models"].values()
    assert found["format"] == "fastlstm" and one["metadata"] == {"note": "made by a test"}
    assert one["tensors"]["0.weight_ih_l0"] == {"shape": [32, 3], "dtype": "float32"}
    assert repr(fl.Module.from_description(one["description"])) == one["model"] == repr(model)
    assert len(json.loads(succeeds("inspect", path, "--json", "--plan"))["models"][""]["plans"]) == 3


@pytest.mark.parametrize(("target", "library"), [("b.pt", "torch"), ("b.PTH", "torch"), ("b.onnx", "onnx")])
def test_a_format_whose_library_is_missing(tmp_path, target, library):
    (tmp_path / f"{library}.py").write_text("raise ImportError('hidden by a test')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    line = fails("convert", "nowhere.safetensors", target, cwd=tmp_path, PYTHONPATH=path)  # before anything is read
    assert f"it needs {library}, which cannot be imported (hidden by a test): pip install {library}, or " in line
    assert f"fastlstm[{library}]" in line


def test_fails_is_what_the_command_does(tmp_path):
    """No traceback for a folder where a file should be."""
    assert "Is a directory" in fastlstm("run", save_model(tmp_path)[0], tmp_path, "--input-format", "csv").stderr
