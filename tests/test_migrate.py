"""docs/migrate.md: its programs run, and those after compute what those before do."""

import contextlib
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import fastlstm as fl

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "migrate.md"
BLOCKS = dict(re.findall(r"^```(?:python|c) (\S+)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S))


def run(name, folder, **names):
    """The names a block leaves behind, run in `folder`."""
    with contextlib.chdir(folder) if hasattr(contextlib, "chdir") else changed(folder):
        exec(compile(BLOCKS[name], f"{PAGE.name}: {name}", "exec"), names)
    return names


@contextlib.contextmanager
def changed(folder):
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def near(a, b):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-5)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("f4")


def test_every_program_is_run():
    text = Path(__file__).read_text(encoding="utf-8")
    assert len(BLOCKS) == 11
    assert not re.search(r"\{[A-Z]+\}", PAGE.read_text(encoding="utf-8"))  # a figure still to be filled in
    # Keras itself is too large to ask for
    assert [name for name in BLOCKS if f'"{name}"' not in text.replace('== ["keras-before"]', "")] == ["keras-before"]


def test_torch(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.LSTM(40, 128, 2, bidirectional=True).state_dict(), tmp_path / "lstm.pt")
    x = draw(7, 3, 40)
    before, after = run("torch-before", tmp_path, x=x), run("torch-after", tmp_path, x=x)
    near(after["y"], before["y"])
    near(after["cn"], before["cn"])
    assert repr(fl.load(tmp_path / "lstm.safetensors")) == repr(after["model"])


def test_torch_accelerated(tmp_path):
    pytest.importorskip("torch")
    names = run("torch-accelerate", tmp_path, x=draw(7, 3, 40))
    assert names["module"][0].weight_ih_l0.grad.abs().sum() > 0


def test_onnx(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    weights = {"W": draw(1, 20, 3, seed=1), "R": draw(1, 20, 5, seed=2), "B": draw(1, 40, seed=3)}
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("LSTM", ["X", *weights], ["Y", "Y_h", "Y_c"], name="lstm", hidden_size=5)], "model",
        [info("X", TensorProto.FLOAT, ["T", "B", 3])],
        [info(name, TensorProto.FLOAT, [None] * axes) for name, axes in (("Y", 4), ("Y_h", 3), ("Y_c", 3))],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    x = draw(7, 2, 3)
    before = run("onnx-before", tmp_path, x=x)
    after, graph = run("onnx-after", tmp_path, x=x), run("onnx-graph", tmp_path, x=x)
    near(after["y"], before["y"][:, 0])
    for name in ("y", "hn", "cn"):
        near(graph[name], before[name])
    near(after["cn"], before["cn"])


def test_keras(tmp_path):
    shutil.copy(ROOT / "tests" / "data" / "keras_sample.keras", tmp_path / "model.keras")
    names = run("keras-after", tmp_path, x=draw(2, 7, 5))
    assert repr(fl.load(tmp_path / "model.safetensors")) == repr(names["model"])


def test_numpy(tmp_path):
    given = dict(x=draw(7, 2, 3), H=5, W_ih=draw(20, 3, seed=1), W_hh=draw(20, 5, seed=2), b=draw(20, seed=3))
    before, after = run("numpy-before", tmp_path, **given), run("numpy-after", tmp_path, **given)
    near(after["y"], before["y"])
    near(after["c"][0], before["c"])


PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
#include "fastlstm.h"
static float w_ih[64], w_hh[64 * 16], bias[64], w_out[16], b_out[1], in[9], out[9];
static void read_all(float *to, size_t n) {{ for (size_t k = 0; k < n; k++) if (scanf("%f", to + k) != 1) exit(1); }}
int main(void) {{
    const int samples = 9;
    read_all(w_ih, 64); read_all(w_hh, 64 * 16); read_all(bias, 64); read_all(w_out, 16); read_all(b_out, 1);
    read_all(in, 9);
{block}
    for (int n = 0; n < samples; n++) printf("%.9g\\n", out[n]);
    return 0;
}}
"""


def test_c(tmp_path):
    compiler = shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]) or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    (tmp_path / "main.c").write_text(PROGRAM.format(block=BLOCKS["rtneural-after"]))
    sources = [str(path) for path in sorted((ROOT / "src_c").glob("*.c"))]
    command = [compiler, "-std=c11", "-O0", "-Wall", "-Werror", "-ffp-contract=off", f"-I{ROOT / 'src_c'}", "main.c"]
    subprocess.run([*command, *sources, "-lm", "-lpthread", "-o", "main"], cwd=tmp_path, check=True)
    lstm, linear, x = fl.LSTM(1, 16, rng=0), fl.Linear(16, 1, rng=1), draw(9, 1)
    weights = lstm.state_dict()
    bias = weights["bias_ih_l0"] + weights["bias_hh_l0"]
    head = linear.state_dict()
    numbers = [weights["weight_ih_l0"], weights["weight_hh_l0"], bias, head["weight"], head["bias"], x]
    text = " ".join(repr(float(value)) for array in numbers for value in array.ravel())
    found = subprocess.run([tmp_path / "main"], input=text, capture_output=True, text=True, check=True).stdout.split()
    near([float(value) for value in found], linear(lstm(x)[0])[:, 0])
