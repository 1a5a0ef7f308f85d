"""to_onnx and back through from_onnx: layers with the very bits, which together compute what the model computes."""

import json

import numpy as np
import pytest
from grids import same

import fastlstm as fl

onnx = pytest.importorskip("onnx")

from onnx_models import CHAINS, LAYERS, both, made  # noqa: E402 (they need onnx)

DTYPES = ("float32", "float64")


def there_and_back(model, path, **options):
    fl.to_onnx(model, path, **options)
    return fl.from_onnx(path)


def of_layer(model, n):
    """Names and weights of layer n of a stack, as of a stack of one."""
    found = {}
    for name, weight in model.state_dict().items():
        kind, _, ending = name.rpartition("_l")
        layer, _, back = ending.partition("_")
        if int(layer) == n:
            found[f"{kind}_l0{'_' + back if back else ''}"] = weight
    return found


def as_read(model, weights):
    """Weights that say the same as ONNX does: i = 1 - f as f = 1 - i of -z; zeros for peepholes that are none."""
    swapped = getattr(model, "coupled", None) == "i=1-f"
    for name, weight in weights.items():
        peephole = "peephole" in name
        if not (peephole or swapped):
            continue
        gates = model.peephole if peephole else "fgo"
        parts = dict(zip(gates, np.split(weight, len(gates)), strict=True))
        nothing = np.zeros_like(parts[gates[0]])
        if swapped and "f" in parts:
            parts["i"] = -parts.pop("f")
        order = ("io" if model.coupled else "ifo") if peephole else "igo"
        weights[name] = np.concatenate([parts.get(gate, nothing) for gate in order])
    return weights


def check_weights(model, layers):
    """That the layers of a file are those of a stack, to the bit."""
    assert list(layers) == [f"l{n}" for n in range(model.num_layers)]
    for n, layer in enumerate(layers.values()):
        expected = as_read(model, of_layer(model, n))
        found = layer.state_dict()
        assert list(found) == list(expected)
        for name, weight in expected.items():
            same(found[name], weight)


def run(layers, x, lengths=None):
    """One after the other; time first."""
    for layer in layers.values():
        x, _ = layer(x, lengths=lengths)
    return x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LAYERS)
def test_stacks(name, dtype, tmp_path):
    model = made(name, dtype)
    layers = there_and_back(model, tmp_path / "a.onnx", state=True, lengths=True)
    check_weights(model, layers)
    for layer in layers.values():
        assert type(layer) is type(model) and layer.dtype == model.dtype
        assert layer.activations == model.activations and layer.bidirectional == model.bidirectional
    rng = np.random.default_rng(7)
    for T, B in ((1, 1), (9, 5)):
        x, lengths = rng.normal(size=(T, B, model.input_size)).astype(dtype), rng.integers(0, T + 1, B)
        y = run(layers, x, lengths)
        expected, _ = model(np.swapaxes(x, 0, 1) if model.batch_first else x, lengths=lengths)
        expected = np.swapaxes(expected, 0, 1) if model.batch_first else expected
        if getattr(model, "coupled", None) == "i=1-f":  # 1 - f rounds otherwise than f = s(-z)
            np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 if dtype == "float32" else 1e-13)
        else:
            np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_reverse(dtype, tmp_path):
    for name in ("reverse", "reverse, as computed"):
        model = made(name, dtype)
        layers = there_and_back(model, tmp_path / "a.onnx")
        assert list(layers) == ["layer.l0", "layer.l1"]
        assert all(type(layer) is fl.Reverse and layer.in_time for layer in layers.values())
        x = np.random.default_rng(7).normal(size=(6, 3, model.in_features)).astype(dtype)
        y = run(layers, x)
        same(np.ascontiguousarray(y if model.in_time else y[::-1]), model(x)[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_bidirectional(dtype, tmp_path):
    model = both("concat", dtype=dtype, rng=3)
    (name, layer), = there_and_back(model, tmp_path / "a.onnx").items()
    assert name == "l0" and type(layer) is fl.Bidirectional and layer.describe() == model.describe()
    x = np.random.default_rng(7).normal(size=(6, 3, model.in_features)).astype(dtype)
    same(layer(x), model(x))
    for merge in ("sum", "mul", "ave", None):
        model = both(merge, dtype=dtype, rng=3)
        layers = there_and_back(model, tmp_path / "a.onnx")
        assert list(layers) == ["forward_layer.l0", "backward_layer.l0"]
        same(fl.Bidirectional(layers["forward_layer.l0"], layers["backward_layer.l0"].layer, merge)(x), model(x))


def test_one_node_of_two_directions_is_one_layer(tmp_path):
    model = fl.Bidirectional(fl.GRU(5, 7, rng=0), fl.GRU(5, 7, rng=1))
    layer = there_and_back(model, tmp_path / "a.onnx")["l0"]
    x = np.random.default_rng(7).normal(size=(6, 3, 5)).astype(np.float32)
    assert type(layer) is fl.GRU and layer.bidirectional
    same(layer(x)[0], model(x)[0])


@pytest.mark.parametrize("name", ["last", "last, reverse", "last, bidirectional, concat"])
def test_last(name, tmp_path):
    model = made(name)
    layers = list(there_and_back(model, tmp_path / "a.onnx").values())
    x = y = np.random.default_rng(7).normal(size=(6, 3, model.in_features)).astype(np.float32)
    for layer in layers[:-1]:
        y, _ = layer(y)
    same(fl.Last(layers[-1])(y)[0], model(x)[0])


def name_here(weights, head, n, key):
    """Of a weight of the layer that a file calls head + l + n, in the model."""
    key = key.removeprefix("layer.")  # of Reverse
    if f"{head}weight_ih_l{n}" in weights:
        return head + key.replace("_l0", f"_l{n}")
    if key.startswith(("forward_layer.", "backward_layer.")):
        return head + key
    return head + (f"backward_layer.{key.removesuffix('_reverse')}" if "_reverse" in key else f"forward_layer.{key}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name in CHAINS if made(name).recurrent])
def test_layers_are_named_by_their_place(name, dtype, tmp_path):
    model, found = made(name, dtype), {}
    for place, layer in there_and_back(model, tmp_path / "a.onnx").items():
        head, _, n = place.rpartition("l")
        found |= {name_here(model.state_dict(), head, n, key): one for key, one in layer.state_dict().items()}
    recurrent = {key: weight for key, weight in model.state_dict().items() if "_l" in key.rpartition(".")[2]}
    assert set(found) == set(recurrent)
    for key, weight in recurrent.items():
        same(found[key], weight)


def test_a_whole_model_from_its_description(tmp_path):
    model, path = made("words"), tmp_path / "a.onnx"
    layers = there_and_back(model, path)
    proto = onnx.load(path)
    notes = {one.key: one.value for one in proto.metadata_props}
    again = fl.Module.from_description(json.loads(notes["fastlstm.model"]))
    stored = {one.name: onnx.numpy_helper.to_array(one) for one in proto.graph.initializer}
    weights = {"0.weight": stored["0.weight"], "2.weight": stored["2.weight.T"].T, "2.bias": stored["2.bias"]}
    for n in range(2):
        weights |= {f"1.{key.replace('_l0', f'_l{n}')}": w for key, w in layers[f"1.l{n}"].state_dict().items()}
    again.load_state_dict(weights)
    for key, weight in model.state_dict().items():
        same(again.state_dict()[key], weight)
