"""Models of the whole family: names and shapes, copies and files, descriptions, and what they refuse in words."""

import copy
import json
import pickle

import numpy as np
import pytest
from family import CLASSES, TABLE, VARIANTS, problem
from grids import Case, same

import fastlstm as fl
from fastlstm import params
from fastlstm.module import Module
from fastlstm.variants import FAMILY, OPTIONS

CASE = Case(T=4, B=2, I=3, H=6, layers=2, bidirectional=True)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", VARIANTS)
def test_names_and_shapes_are_those_of_params(name, bias):
    p = problem(name, CASE._replace(bias=bias), "float32")
    layer = p.layer()
    shapes = params.weight_shapes(p.v, bias=bias, **p.call_sizes)
    assert [(key, w.shape) for key, w in layer.state_dict().items()] == list(shapes.items())
    assert layer.num_parameters == sum(map(np.prod, shapes.values()))
    *_, cache = layer.forward(p.x, cache=True, **p.given)
    grads = layer.backward(p.dy, cache, p.dstate)[2]
    assert [(key, w.shape) for key, w in grads.items()] == list(shapes.items())
    for key in shapes:
        with pytest.raises(ValueError, match=f"missing {key}"):
            layer.load_state_dict({other: w for other, w in p.weights.items() if other != key})


@pytest.mark.parametrize("name", TABLE)
def test_saved_loaded_copied_and_described(name, tmp_path):
    p = problem(name, CASE, "float32")
    layer = p.layer()
    layer.save(tmp_path / "model")
    expected = layer(p.x, **p.given)
    found = [fl.load(tmp_path / "model"), copy.deepcopy(layer), copy.copy(layer), pickle.loads(pickle.dumps(layer))]
    for build in (
        lambda: type(layer).from_config(json.loads(json.dumps(layer.config()))),
        lambda: Module.from_description(json.loads(json.dumps(layer.describe()))),
        lambda: eval(repr(layer), dict(vars(fl))),
    ):
        found.append(build())
        found[-1].load_state_dict(p.weights)
    for other in found:
        assert type(other) is type(layer)
        assert other.config() == layer.config() and repr(other) == repr(layer)
        same(other(p.x, **p.given), expected)
    other = next(iter(found))
    other.load_state_dict({key: w * 0.5 for key, w in p.weights.items()})
    assert (other(p.x, **p.given)[0] != expected[0]).any()
    same(layer(p.x, **p.given), expected)


@pytest.mark.parametrize("name", TABLE)
def test_options_show_in_the_description(name):
    p = problem(name, CASE, "float32")
    layer = p.layer()
    config = layer.config()
    if "nonlinearity" in p.options:
        assert config["nonlinearity"] == "relu" and "nonlinearity='relu'" in repr(layer)
    for option, value in p.v.options.items():
        if option in p.options:  # an RNN may call its activation by torch's name
            names = {option, "nonlinearity"} if option == "activations" else {option}
            assert names & set(config) and any(f"{one}=" in repr(layer) for one in names)
            assert isinstance(value, tuple) or config[option] == value
    plain = repr(getattr(fl, CLASSES[p.cell])(3, 4))  # what is as always is not said
    assert not [option for option in OPTIONS[p.cell] if f"{option}=" in plain]


def test_a_file_tells_variants_apart(tmp_path):
    """The options are part of the model: the same weights under other options are another model."""
    one = fl.LSTM(3, 6, peephole="ifo", rng=0)
    other = fl.LSTM(3, 6, peephole="ifo", peephole_o="c_prev", rng=0)
    other.load_state_dict(one.state_dict())
    x = np.ones((4, 2, 3), np.float32)
    for model in (one, other):
        model.save(tmp_path / "model")
        same(fl.load(tmp_path / "model")(x), model(x))
    assert (one(x)[0] != other(x)[0]).any()


@pytest.mark.parametrize("cell", FAMILY)
def test_a_seed_gives_the_same_weights_for_all_cells(cell):
    kind = getattr(fl, CLASSES[cell])
    one, other, third = (kind(3, 12, rng=seed).state_dict() for seed in (5, 5, 6))
    same([*one.values()], [*other.values()])
    assert all((one[key] != third[key]).any() for key in one)
    assert all(np.isfinite(w).all() and w.dtype == np.float32 for w in one.values())


@pytest.mark.parametrize("cell", FAMILY)
def test_cells_work_in_a_chain(cell, tmp_path):
    layer = getattr(fl, CLASSES[cell])(3, 12, rng=0)
    model = fl.Sequential(fl.Linear(3, 3, rng=1), layer, fl.Linear(12, 2, rng=2))
    x = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
    y, state, cache = model.forward(x, cache=True)
    dx, _, grads = model.backward(np.ones_like(y), cache)
    assert dx.shape == x.shape and list(grads) == list(model.state_dict())
    model.save(tmp_path / "model")
    same(fl.load(tmp_path / "model")(x), (y, state))
    stream = model.stream(2)
    same(np.concatenate([[stream.step(one) for one in x[:3]], stream.process(x[3:])]), y)
    same(stream.state, state)


# ---- what is refused ------------------------------------------------------------------------------------------------

REFUSED = [
    ("GRU", {"peephole": "i"}, TypeError, "peephole"),
    ("GRU", {"proj_size": 2}, TypeError, "proj_size"),
    ("GRU", {"reset_after": 1}, TypeError, "reset_after must be True or False, got int"),
    ("GRU", {"activations": ("tanh",)}, ValueError, "activations must be 2 for cell 'gru', got 1"),
    ("RNN", {"nonlinearity": "relu", "activations": ("elu",)}, ValueError, "nonlinearity and activations say the same"),
    ("RNN", {"clip": -1}, ValueError, "clip must be positive and finite, got -1"),
    ("LSTM", {"peephole": "ig"}, ValueError, "peephole must be made of the letters of 'ifo', got 'ig'"),
    ("LSTM", {"peephole_o": "c_prev"}, ValueError, "peephole_o='c_prev' needs an 'o' in peephole, got ''"),
    ("LSTM", {"coupled": "i"}, ValueError, "coupled must be one of None, 'i=1-f', 'f=1-i'; got 'i'"),
    ("LSTM", {"coupled": "i=1-f", "without": "f"}, ValueError, "fixes a gate that coupled='i=1-f' computes"),
    ("LSTM", {"coupled": "f=1-i", "peephole": "f"}, ValueError, "names gate f, which has no weights: coupled='f=1-i'"),
    ("LSTM", {"without": "o", "peephole": "o"}, ValueError, "names gate o, which has no weights: without='o'"),
    ("LSTM", {"gate_recurrence": True, "coupled": "i=1-f"}, ValueError, "cannot be had with coupled='i=1-f'"),
    ("LSTM", {"gate_recurrence": True, "without": "i"}, ValueError, "cannot be had with without='i'"),
    ("LSTM", {"gate_recurrence": True, "layer_norm": "ba"}, ValueError, "cannot be had with layer_norm='ba'"),
    ("LSTM", {"norm_eps": 1e-3}, ValueError, "norm_eps means nothing without layer_norm"),
    ("LSTM", {"layer_norm": "batch"}, ValueError, "layer_norm must be one of None, 'ba', 'gates'; got 'batch'"),
    ("LSTM", {"proj_clip": 1.0}, ValueError, "proj_clip needs a proj_size, got 0"),
    ("LSTM", {"cell_clip": "1"}, TypeError, "cell_clip must be a number or None, got str"),
    ("LSTM", {"activations": ("tanh", "tanh", "sin")}, ValueError, "activations must be among .*; got 'sin'"),
    ("LSTM", {"activations": (("elu", 1, 2), "tanh", "tanh")}, ValueError, "elu takes 1 constants, got 2"),
    ("LSTM", {"reset_after": True}, TypeError, "reset_after"),
    ("DepthGatedLSTM", {"coupled": "i=1-f"}, TypeError, "coupled"),
    ("DepthGatedLSTM", {"layer_norm": "ba"}, TypeError, "layer_norm"),
    ("ClockworkRNN", {"periods": 4, "hidden_size": 6}, ValueError, "multiple of the number of periods, 4; got 6"),
    ("ClockworkRNN", {"periods": (2, 1)}, ValueError, r"periods must be in rising order, .*; got \(2, 1\)"),
    ("ClockworkRNN", {"periods": ()}, ValueError, "periods must be in rising order"),
    ("ClockworkRNN", {"proj_size": 2}, TypeError, "proj_size"),
    ("LSTM1997", {"block_size": 5}, ValueError, "hidden_size must be a multiple of block_size, 5; got 12"),
    ("LSTM1997", {"without": "i"}, ValueError, "without must be made of the letters of 'o', got 'i'"),
    ("LSTM1997", {"gradient": "none"}, ValueError, "gradient must be one of 'truncated', 'full'; got 'none'"),
    ("LSTM1997", {"biased": "none"}, ValueError, "biased must be one of 'all', 'gates'; got 'none'"),
    ("LSTM1997", {"proj_size": 2}, TypeError, "proj_size"),
]


@pytest.mark.parametrize("kind, options, error, words", REFUSED)
def test_what_makes_no_sense_is_refused_in_words(kind, options, error, words):
    with pytest.raises(error, match=words):
        getattr(fl, kind)(3, **{"hidden_size": 12, **options})


@pytest.mark.parametrize("cell", FAMILY)
def test_options_have_names(cell):
    """Beyond torch's arguments there is nothing by position."""
    with pytest.raises(TypeError):
        getattr(fl, CLASSES[cell])(3, 12, 1, True, False, 0.0, False, 0, "ifo", "c", None)


STATES = {"LSTM": 2, "GRU": 1, "RNN": 1, "DepthGatedLSTM": 2, "ClockworkRNN": 2, "LSTM1997": 3}


@pytest.mark.parametrize("kind, options, count", [
    *((kind, {}, count) for kind, count in STATES.items()), ("LSTM", {"gate_recurrence": True}, 3),
])
def test_a_state_has_the_parts_of_its_cell(kind, options, count):
    layer, x = getattr(fl, kind)(3, 12, num_layers=1, rng=0, **options), np.zeros((4, 2, 3), np.float32)
    y, state = layer(x)
    found = state if isinstance(state, tuple) else (state,)
    assert len(found) == count and isinstance(state, tuple) == (count > 1)
    same(layer(x, tuple(np.zeros_like(s) for s in found) if count > 1 else np.zeros_like(state))[0], y)
    last = {1: "h0", 2: "t0" if kind == "ClockworkRNN" else "c0", 3: "gates0"}[count]
    for bad in (found + found[:1], *([] if count == 1 else [found[:-1], found[0]])):
        with pytest.raises(TypeError, match=last):
            layer(x, bad)
    for k in range(count if count > 1 else 0):
        partial = tuple(None if n == k else np.zeros_like(s) for n, s in enumerate(found))
        same(layer(x, partial)[0], y)
