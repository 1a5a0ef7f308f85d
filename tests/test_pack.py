"""`Module.pack` and the readers' pack=True: what is packed before the first call, and that nothing is packed twice."""

import io
import pickle

import keras_bytes as kb
import numpy as np
import pytest

import fastlstm as fl
from fastlstm import _core

T, B, I, H = 5, 2, 3, 8


@pytest.fixture
def packings(monkeypatch):
    """A list that grows with each set of weights that the core packs."""
    found = []

    class Model(_core.Model):
        def __init__(self, *args, **kwargs):
            found.append("model")

    class Dense(_core.Dense):
        def __init__(self, *args, **kwargs):
            found.append("dense")

    monkeypatch.setattr(_core, "Model", Model)
    monkeypatch.setattr(_core, "Dense", Dense)
    return found


def x_of(shape=(T, B, I), dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def models():
    """Name -> a model that takes x (T, B, I) or, of "embedding", integers."""
    sizes = I, H
    return {
        "lstm": fl.LSTM(*sizes, num_layers=2, proj_size=3, rng=0),
        "norm": fl.LSTM(*sizes, layer_norm="ba", zoneout_h=0.1, rng=0),
        "gru": fl.GRU(*sizes, reset_after=False, rng=0),
        "rnn": fl.RNN(*sizes, rng=0),
        "depth gated": fl.DepthGatedLSTM(*sizes, num_layers=2, rng=0),
        "clockwork": fl.ClockworkRNN(*sizes, periods=(1, 2), rng=0),
        "1997": fl.LSTM1997(*sizes, rng=0),
        "layers of two sizes": fl.LSTM(I, [H, 5], num_layers=2, rng=0),
        "float64": fl.GRU(*sizes, bidirectional=True, dtype="float64", rng=0),
        "linear": fl.Linear(*sizes, activation="tanh", rng=0),
        "reverse": fl.Reverse(fl.LSTM(*sizes, rng=0)),
        "bidirectional": fl.Bidirectional(fl.LSTM(*sizes, rng=0), fl.GRU(*sizes, rng=1)),
        "last": fl.Last(fl.LSTM(*sizes, rng=0)),
        "chain": fl.Sequential(fl.Linear(*sizes, rng=0), fl.Sequential(fl.LSTM(H, H, rng=1), fl.Linear(H, 2, rng=2))),
        "embedding": fl.Sequential(fl.Embedding(9, I, rng=0), fl.LSTM(*sizes, rng=0)),
    }


@pytest.mark.parametrize("name", models())
def test_the_first_call_packs_nothing(name, packings):
    model = models()[name]
    x = np.arange(T * B).reshape(T, B) % 9 if name == "embedding" else x_of(dtype=model.dtype)
    assert model.pack() is model
    count = len(packings)
    assert count > 0
    model(x)
    model.plan(T, B)
    assert model.pack() is model and len(packings) == count


@pytest.mark.parametrize("name", models())
def test_the_first_training_step_packs_nothing(name, packings):
    model = models()[name].pack(backward=True)
    x = np.arange(T * B).reshape(T, B) % 9 if name == "embedding" else x_of(dtype=model.dtype)
    count = len(packings)
    y, _, cache = model.forward(x, cache=True)
    model.backward(np.ones_like(y), cache)
    model(x)
    model.pack(backward=True).pack()
    assert len(packings) == count


def test_inference_has_nothing_of_backward():
    layer = fl.LSTM(I, H, rng=0).pack()
    assert not layer._packed().backward_ready
    assert layer.pack(backward=True)._packed().backward_ready
    assert layer.pack()._packed().backward_ready  # it is more, and stays


def test_a_stream_packs_when_it_is_opened(packings):
    chain = fl.Sequential(fl.LSTM(I, H, rng=0), fl.Linear(H, 2, rng=1))
    stream = chain.stream()
    assert sorted(packings) == ["dense", "model"]
    stream.step(x_of((1, I)))
    assert len(packings) == 2
    packed = fl.LSTM(I, H, rng=0).pack()
    packed.stream().step(x_of((1, I)))
    assert len(packings) == 3


@pytest.mark.parametrize("change", ["load_state_dict", "optimiser", "rate"])
def test_what_changes_afterwards_is_noticed(change, packings):
    layer = fl.LSTM(I, H, zoneout_h=0.1, rng=0).pack(backward=True)
    x, count = x_of(), len(packings)
    before, _ = layer(x)
    if change == "load_state_dict":
        layer.load_state_dict({name: weight * 2 for name, weight in layer.state_dict().items()})
    elif change == "rate":
        layer.zoneout_h = 0.4
    else:
        y, _, cache = layer.forward(x, cache=True)
        fl.optim.SGD(layer, lr=1.0).step(layer.backward(np.ones_like(y), cache)[2])
    after, _ = layer.pack()(x)
    assert len(packings) == count + 1
    assert not np.array_equal(before, after)
    assert np.array_equal(after, pickle.loads(pickle.dumps(layer))(x)[0])


def test_a_layer_that_drops_weights_packs_for_inference(packings):
    layer = fl.LSTM(I, H, weight_drop=0.5, rng=0).pack(backward=True)
    layer(x_of())
    assert len(packings) == 1
    layer.eval().pack(backward=True).forward(x_of(), cache=True)
    assert len(packings) == 2


@pytest.mark.parametrize("model", [fl.LSTM(I, H), fl.Linear(I, H), fl.Embedding(I, H), fl.Sequential(fl.LSTM(I, H))],
                         ids=lambda model: type(model).__name__)
def test_backward_is_a_bool(model):
    for wrong in (1, "yes", None):
        with pytest.raises(TypeError, match="backward"):
            model.pack(backward=wrong)
    with pytest.raises(TypeError):
        model.pack(True)
    assert model.pack() is model


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_no_more_threads_pack_than_a_call_may_use(threads, monkeypatch):
    given = []

    class Model(_core.Model):
        def __init__(self, *args, **kwargs):
            given.append(args[12])

    class Dense(_core.Dense):
        def __init__(self, *args, **kwargs):
            given.append(args[3] if len(args) > 3 else kwargs["threads"])

    monkeypatch.setattr(_core, "Model", Model)
    monkeypatch.setattr(_core, "Dense", Dense)
    for model in (fl.LSTM(I, H), fl.LSTM(I, [H, 4], num_layers=2), fl.Linear(I, H)):
        model.set_num_threads(threads)
        model.pack(backward=True)
    assert given == [threads or 0] * 5


# ---- readers ----------------------------------------------------------------------------------------------------


def readers(tmp_path):
    """Name -> a function that reads the same LSTM, given pack."""
    layer = fl.LSTM(I, H, num_layers=2, rng=0)
    layer.save(tmp_path / "model.safetensors")
    fl.save_checkpoint(tmp_path / "training", [layer, fl.Linear(I, H)])
    state = layer.state_dict()
    return {
        "load": lambda **pack: fl.load(tmp_path / "model.safetensors", **pack),
        "load_checkpoint": lambda **pack: fl.load_checkpoint(tmp_path / "training", **pack).model[0],
        "from_torch": lambda **pack: fl.from_torch(state, **pack),
    }


@pytest.mark.parametrize("name", ["load", "load_checkpoint", "from_torch"])
def test_readers_pack_when_they_are_asked_to(name, tmp_path, packings):
    read = readers(tmp_path)[name]
    plain = read()
    assert packings == []
    packed = read(pack=True)
    count = len(packings)
    assert count == (2 if name == "load_checkpoint" else 1)
    y = packed(x_of())[0]
    assert len(packings) == count
    assert np.array_equal(y, plain(x_of())[0])
    with pytest.raises(TypeError, match="pack"):
        read(pack="yes")


def test_from_onnx_packs_all_its_layers(packings):
    pytest.importorskip("onnx")
    goal = io.BytesIO()
    fl.to_onnx(fl.Sequential(fl.LSTM(I, H, rng=0), fl.GRU(H, H, rng=1)), goal)
    fl.from_onnx(goal.getvalue())
    assert packings == []
    layers = fl.from_onnx(goal.getvalue(), pack=True)
    assert packings == ["model"] * 2 == ["model"] * len(layers)
    with pytest.raises(TypeError, match="pack"):
        fl.from_onnx(goal.getvalue(), pack=1)


def test_from_keras_packs(packings):
    pytest.importorskip("h5py")
    file = kb.written(".keras", [kb.layer("LSTM"), kb.layer("Dense")])
    fl.from_keras(file)
    assert packings == []
    fl.from_keras(file, pack=True)
    assert packings == ["model", "dense"]
    with pytest.raises(TypeError, match="pack"):
        fl.from_keras(file, pack=None)
