"""from_onnx and the backend on what exporters write today, at real sizes: the same as ONNX Runtime on the same file."""

import logging
import warnings

import numpy as np
import pytest

import fastlstm as fl
from fastlstm.convert import formats

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

I, T, B = 40, 7, 2
LIMIT = 5e-6
KINDS = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU, "RNN": torch.nn.RNN}


class Net(torch.nn.Module):
    def __init__(self, kind, hidden, **options):
        super().__init__()
        self.net = KINDS[kind](I, hidden, **options)

    def forward(self, x):
        return self.net(x)[0]


def export(folder, kind, hidden, dtype=torch.float32, exporter="default", **options):
    """(path, x) of an exported module with weights from one seed. exporter: "default", "dynamic", "older"."""
    torch.manual_seed(0)
    net = Net(kind, hidden, **options).eval().to(dtype)
    x, path = torch.randn(T, B, I).to(dtype), folder / "model.onnx"
    more = {"dynamo": False, "opset_version": 17} if exporter == "older" else {"dynamo": True, "verbose": False}
    if exporter != "older":
        pytest.importorskip("onnxscript")
    if exporter == "dynamic":
        more["dynamic_shapes"] = {"x": {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            torch.onnx.export(net, (x,), path, **more)
        finally:
            logging.disable(logging.NOTSET)
    return path, x


def layers(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*: its x comes from a Transpose")
        return fl.from_onnx(path)


def through(path, x, batch_first=False):
    """The layers of a file, one after the other."""
    x = x.float().numpy() if x.dtype == torch.bfloat16 else x.numpy()
    x = x.swapaxes(0, 1) if batch_first else x  # torch's exporters turn it before the node
    for layer in layers(path).values():
        x = layer(x.astype(layer.dtype))[0]
    return x.swapaxes(0, 1) if batch_first else x


def theirs(path, x):
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def check_rest(path, options):
    """The graph of a lone layer is known to compute nothing more."""
    assert (formats.contents(path).rest == "") == ("num_layers" not in options)


def near(ours, other, limit=LIMIT):
    assert ours.shape == other.shape
    assert np.abs(ours - other).max() <= limit


CASES = [
    ("LSTM", 64, {}), ("LSTM", 512, {}), ("GRU", 512, {"batch_first": True}), ("LSTM", 64, {"bias": False}),
    *((kind, 64, {"num_layers": 2, "bidirectional": True}) for kind in ("LSTM", "GRU")),
]


@pytest.mark.parametrize("kind, hidden, options", CASES, ids=str)
def test_the_default_exporter_of_torch(kind, hidden, options, tmp_path):
    path, x = export(tmp_path, kind, hidden, **options)
    wanted = theirs(path, x.numpy())
    near(through(path, x, options.get("batch_first", False)), wanted)
    check_rest(path, options)
    near(fl.onnx.prepare(path).run([x.numpy()])[0], wanted)


@pytest.mark.parametrize("exporter", ["default", "older"])
def test_another_order_of_axes_is_told(exporter, tmp_path):
    path, _ = export(tmp_path, "LSTM", 64, exporter=exporter, batch_first=True)
    with pytest.warns(RuntimeWarning, match=r"the graph has \(B, T, I\) there, this layer takes \(T, B, I\)"):
        fl.from_onnx(path)


def test_open_axes(tmp_path):
    """Initial states are made at run time. Time is open in name only: the exporter writes its number elsewhere."""
    path, x = export(tmp_path, "LSTM", 64, exporter="dynamic")
    wider = torch.cat([x, x, x], 1)
    near(through(path, wider), theirs(path, wider.numpy()))
    check_rest(path, {})
    check_rest(export(tmp_path, "GRU", 64, exporter="dynamic", batch_first=True)[0], {})


@pytest.mark.parametrize("kind, hidden, options", [*CASES, ("RNN", 512, {"num_layers": 2})], ids=str)
def test_the_older_exporter_of_torch(kind, hidden, options, tmp_path):
    path, x = export(tmp_path, kind, hidden, exporter="older", **options)
    near(through(path, x, options.get("batch_first", False)), theirs(path, x.numpy()))
    check_rest(path, options)


@pytest.mark.parametrize("kind, dtype, limit", [
    ("LSTM", torch.float16, 4e-3), ("GRU", torch.bfloat16, 4e-2), ("LSTM", torch.float64, 1e-13),
], ids=str)
def test_types_of_torch(kind, dtype, limit, tmp_path):
    """Weights of 16 and 64 bits, against torch itself, as ONNX Runtime has no kernels for them on a CPU."""
    path, x = export(tmp_path, kind, 64, dtype)
    torch.manual_seed(0)
    net = Net(kind, 64).to(dtype)
    with torch.no_grad():
        near(through(path, x).astype(float), net(x).double().numpy(), limit)
    found = next(iter(layers(path).values())).state_dict()
    for name, weight in net.net.state_dict().items():
        assert np.array_equal(found[name], weight.double().numpy().astype(found[name].dtype)), name


def test_what_torch_writes_step_by_step(tmp_path):
    """torch.nn.RNN by the default exporter: no recurrent node is left, and the error says how to keep it."""
    path, _ = export(tmp_path, "RNN", 64)
    with pytest.raises(fl.FileFormatError, match="there is no LSTM, GRU or RNN in it; torch.* dynamo=False"):
        fl.from_onnx(path)


def test_projections_of_torch(tmp_path):
    """The exporter drops them without a word; what is left of the layer does not fit."""
    path, _ = export(tmp_path, "LSTM", 64, proj_size=8)
    words = "has initial_c of shape .1, 2, 64., expected .1, batch, 8.; torch.* drops the projection .*from_torch"
    with pytest.raises(fl.FileFormatError, match=words):
        fl.from_onnx(path)


def test_a_file_without_what_is_constant(tmp_path):
    """The way out that errors name: ONNX Runtime computes it and writes a file that is read."""
    path, x = export(tmp_path, "LSTM", 64)
    model = onnx.load(path)
    for n, node in enumerate(model.graph.node):  # a constant that is not computed here
        if node.op_type == "LSTM":
            model.graph.node.insert(n, onnx.helper.make_node("Sigmoid", [node.input[1]], ["odd"]))
            model.graph.node[n + 1].input[1] = "odd"
            break
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(fl.FileFormatError, match="by Sigmoid; .*SessionOptions.optimized_model_filepath"):
        fl.from_onnx(tmp_path / "odd.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "plain.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(str(tmp_path / "odd.onnx"), options, providers=["CPUExecutionProvider"])
    near(through(tmp_path / "plain.onnx", x), theirs(tmp_path / "odd.onnx", x.numpy()))
