"""Random recurrent nodes: ours against ONNX Runtime, and against the equations in float64 where it has no kernel.

Facts about ONNX Runtime (seen in 1.31) that these cases step around: it takes 0 for the threshold of a ThresholdedRelu
that names none, where ONNX says 1 (so constants are always given here); a row of length 0 leaves zeros in Y_h and Y_c,
not the initial state; Softplus overflows from about 88 on; it has no layout=1, no float64, no opset before 7.
"""

import contextlib

import numpy as np
import onnx_twin
import pytest
from onnx_cases import as_proto, by_layer, distance, present

import fastlstm as fl

CASES = 40  # in each test
LIMIT = {"float32": 5e-6, "float64": 1e-13}  # relative, against the equations


@pytest.fixture
def onnx():
    return pytest.importorskip("onnx")


def theirs(runtime, model, x):
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"X": x})


def ours(case, model, folder):
    """By name what the backend gives, which must be what the layer from the file gives, to the bit."""
    found = fl.onnx.prepare(model).run([case.arrays["X"]])
    found = dict(zip([name for name in case.outputs if name], found, strict=True))
    path = folder / "case.onnx"
    path.write_bytes(model.SerializeToString())
    stored = {"initial_h", "initial_c"} & set(case.arrays)
    with pytest.warns(RuntimeWarning, match="initial_") if stored else contextlib.nullcontext():
        layer = fl.from_onnx(path)["n"]
    again = present(case, by_layer(case, layer))
    assert set(found) == set(again)
    for name, array in again.items():
        assert np.array_equal(found[name], array), name
    return found


@pytest.mark.parametrize("start", range(0, 600, CASES))
def test_onnxruntime(start, onnx, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    for seed in range(start, start + CASES):
        case = onnx_twin.draw(seed, defaults=False)
        model = as_proto(case, [7, 13, 14, 21, 22][seed % 5])
        found, wanted = ours(case, model, tmp_path), present(case, onnx_twin.answer(case))
        peer = dict(zip(found, theirs(runtime, model, case.arrays["X"]), strict=True))
        rows = case.arrays.get("sequence_lens", np.ones(case.arrays["X"].shape[1])) > 0
        for name, array in found.items():
            here = slice(None) if name == "Y" else (slice(None), rows)
            assert array.dtype == peer[name].dtype
            assert distance(array[here], peer[name][here]) <= 1e-5, (seed, name)
            assert distance(array, wanted[name]) <= LIMIT["float32"], (seed, name)


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("start", [1000, 1040])
def test_equations(start, dtype, layout, onnx, tmp_path):
    """What ONNX Runtime has not, and constants left to their defaults."""
    for seed in range(start, start + CASES):
        case = onnx_twin.draw(seed, dtype, layout)
        found, wanted = ours(case, as_proto(case), tmp_path), present(case, onnx_twin.answer(case))
        for name, array in found.items():
            assert array.dtype == dtype
            assert distance(array, wanted[name]) <= LIMIT[dtype], (seed, name)


def test_the_cases_have_everything():
    """Every choice there is comes up among the cases, alone and with its opposite."""
    cases = [onnx_twin.draw(seed, defaults=False) for seed in range(600)]
    for op in onnx_twin.GATES:
        mine = [case for case in cases if case.op == op]
        names = onnx_twin.INPUTS[3:] if op == "LSTM" else onnx_twin.INPUTS[3:6]
        for name in names:
            assert 50 < sum(name in case.arrays for case in mine) < 150, name
        used = {name for case in mine for name in case.attributes.get("activations", ())}
        assert used == set(onnx_twin.ACTIVATIONS)
        assert {case.attributes["direction"] for case in mine} == {"forward", "reverse", "bidirectional"}
        for name in ("clip", *{"LSTM": ["input_forget"], "GRU": ["linear_before_reset"], "RNN": []}[op]):
            assert 30 < sum(name in case.attributes for case in mine) < 170, name
        assert any(0 in case.arrays.get("sequence_lens", ()) for case in mine)
        assert any("" in case.outputs for case in mine)
        assert {case.arrays["X"].shape[:2] for case in mine} == {(t, b) for t, b, _, _ in onnx_twin.SIZES}
    both = [case for case in cases if case.attributes["direction"] == "bidirectional"]
    assert any(len(set(case.attributes.get("activations", ())[::3])) == 2 for case in both if case.op == "LSTM")
