"""What every module has in common: weights, copies, description, settings, threads."""

import copy
import inspect
import json
import pickle
import threading
import time

import numpy as np
import pytest

import fastlstm as fl
from fastlstm.module import Module, hollow

MODELS = {
    "Linear": lambda **kw: fl.Linear(3, 2, activation="tanh", rng=0, **kw),
    "no bias": lambda **kw: fl.Linear(3, 2, bias=False, rng=0, **kw),
    "Embedding": lambda **kw: fl.Embedding(5, 3, rng=0, **kw),
    "LSTM": lambda **kw: fl.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2, rng=0, **kw),
    "Sequential": lambda **kw: fl.Sequential(
        fl.Embedding(5, 3, rng=0, **kw), fl.LSTM(3, 4, rng=1, **kw), fl.Linear(4, 2, rng=2, **kw)
    ),
    "nested": lambda **kw: fl.Sequential(
        fl.Sequential(fl.Linear(3, 4, rng=0, **kw), fl.LSTM(4, 4, rng=1, **kw)), fl.Linear(4, 2, rng=2, **kw)
    ),
}
INTEGERS = {"Embedding", "Sequential"}
each_model = pytest.mark.parametrize("name", MODELS)


def an_input(name, T=4, B=2):
    rng = np.random.default_rng(1)
    return rng.integers(0, 5, (T, B)) if name in INTEGERS else rng.normal(size=(T, B, 3)).astype("f4")


def output(model, x):
    y = model(x)
    return y[0] if isinstance(y, tuple) else y


def same(a, b):
    return list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)


@each_model
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_config_builds_the_same_model(name, dtype):
    model = MODELS[name](dtype=dtype)
    config = json.loads(json.dumps(model.config()))
    again = type(model).from_config(config)
    assert again.config() == model.config() and again.dtype == dtype
    shapes = {n: w.shape for n, w in model.state_dict().items()}
    assert shapes == {n: w.shape for n, w in again.state_dict().items()}
    described = Module.from_description(json.loads(json.dumps(model.describe())))
    assert type(described) is type(model) and described.describe() == model.describe()


@each_model
def test_state_dict_round_trip(name):
    model, other = MODELS[name](), MODELS[name]()
    d = {n: w + 1 for n, w in model.state_dict().items()}
    result = other.load_state_dict(d)
    assert result == ([], []) and result.missing_keys == [] and result.unexpected_keys == []
    assert same(other.state_dict(), d)
    x = an_input(name)
    before = output(other, x)
    for w in d.values():  # neither what went in nor what came out is the model's own memory
        w.fill(np.nan)
    for w in other.state_dict().values():
        w.fill(np.nan)
    np.testing.assert_array_equal(output(other, x), before)


@each_model
def test_new_weights_are_used(name):
    model, x = MODELS[name](), an_input(name)
    before = output(model, x)
    model.load_state_dict({n: 2 * w for n, w in model.state_dict().items()})
    after = output(model, x)
    assert not np.array_equal(after, before)
    model._update(lambda weights: [np.multiply(w, 0.5, out=w) for w in weights.values()])
    np.testing.assert_array_equal(output(model, x), before)
    model._update({n: 2 * w for n, w in model.state_dict().items()})
    np.testing.assert_array_equal(output(model, x), after)


@each_model
def test_refused_checkpoint_leaves_the_model(name):
    model, x = MODELS[name](), an_input(name)
    d, y = model.state_dict(), output(model, x)
    last = list(d)[-1]
    wrong = {n: w + 1 for n, w in d.items()}
    for spoil, error in (
        (lambda d: d.pop(last), ValueError),
        (lambda d: d.update(extra=np.zeros(1)), ValueError),
        (lambda d: d.update({last: np.zeros((1, 2, 3))}), ValueError),
        (lambda d: d.update({last: np.full(d[last].shape, "a")}), TypeError),
    ):
        bad = dict(wrong)
        spoil(bad)
        with pytest.raises(error, match="extra|" + last.replace(".", r"\.")):
            model.load_state_dict(bad)
        assert same(model.state_dict(), d)
        np.testing.assert_array_equal(output(model, x), y)


@each_model
def test_not_strict(name):
    model = MODELS[name]()
    before = model.state_dict()
    first = next(iter(before))
    d = {n: w + 1 for n, w in before.items() if n != first} | {"extra": np.zeros(1)}
    result = model.load_state_dict(d, strict=False)
    assert result.missing_keys == [first] and result.unexpected_keys == ["extra"]
    after = model.state_dict()
    assert all(np.array_equal(after[n], before[n] + (n != first)) for n in before)


@each_model
@pytest.mark.parametrize("duplicate", [
    copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: copy.deepcopy([m])[0],
], ids=["copy", "deepcopy", "pickle", "inside"])
def test_copies(name, duplicate):
    model, x = MODELS[name](), an_input(name)
    y = output(model, x)  # packs
    model.metadata["about"] = "a model"
    model.set_num_threads(1)
    model.eval()
    twin = duplicate(model)
    assert type(twin) is type(model) and twin.describe() == model.describe()
    assert twin.metadata == {"about": "a model"} and twin.num_threads == 1 and not twin.training
    np.testing.assert_array_equal(output(twin, x), y)
    twin._update(lambda weights: [w.fill(0) for w in weights.values()])
    twin.metadata["about"] = "another"
    np.testing.assert_array_equal(output(model, x), y)
    assert model.metadata == {"about": "a model"}


def test_copies_keep_members_settings():
    model = MODELS["Sequential"]()
    model[1].set_num_threads(3)
    model[2].eval()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert [m.num_threads for m in twin] == [None, 3, None]
        assert [m.training for m in twin] == [True, True, False]


@each_model
def test_pickle_holds_the_weights_once(name):
    model = MODELS[name]()
    output(model, an_input(name))
    assert len(pickle.dumps(model)) < model.parameters_bytes + 3000


@each_model
def test_sizes(name):
    for dtype, item in (("float32", 4), ("float64", 8)):
        model = MODELS[name](dtype=dtype)
        assert model.num_parameters == sum(w.size for w in model.state_dict().values())
        assert model.parameters_bytes == item * model.num_parameters


@each_model
def test_hollow_models_own_nothing_and_draw_nothing(name, monkeypatch):
    monkeypatch.setattr(np.random, "default_rng", lambda *a: None)  # so that a draw fails
    with hollow():
        model = MODELS[name]()
    shapes = model._weight_shapes()
    assert all(w.strides == (0,) * w.ndim for w in model._named_weights().values())
    monkeypatch.undo()
    assert {n: w.shape for n, w in MODELS[name]().state_dict().items()} == dict(shapes)


@each_model
def test_repr_can_be_evaluated(name):
    model = MODELS[name](dtype="float64")
    if "Sequential" not in repr(model):
        assert eval(repr(model), vars(fl)).config() == model.config()


def test_repr():
    assert repr(fl.Linear(3, 2)) == "Linear(3, 2)"
    assert repr(fl.Linear(3, 2, bias=False, activation="relu")) == "Linear(3, 2, bias=False, activation='relu')"
    nested = fl.Sequential(fl.Sequential(fl.Embedding(5, 3)), fl.Linear(3, 2))
    assert repr(nested).splitlines() == [
        "Sequential(", "  (0): Sequential(", "    (0): Embedding(5, 3)", "  )", "  (1): Linear(3, 2)", ")",
    ]


@each_model
def test_settings(name):
    model = MODELS[name]()
    assert model.training is True and model.num_threads is None
    assert model.eval() is model and not model.training
    assert model.train() is model and model.training
    for members in (model._members if hasattr(model, "_members") else ()):
        assert members.training
    model.set_num_threads(2)
    assert model.num_threads == 2
    for wrong, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), ("2", TypeError)):
        with pytest.raises(error, match="num_threads"):
            model.set_num_threads(wrong)
    assert model.num_threads == 2
    model.set_num_threads(None)
    assert model.num_threads is None
    assert model.plan(4, 2)


@each_model
def test_call_is_inference(name):
    model, x = MODELS[name](), an_input(name)
    with pytest.raises(TypeError, match="forward"):
        model(x, cache=True)
    called, forwarded = model(x), model.forward(x)
    assert isinstance(called, tuple) == model.recurrent and len(forwarded) == 2
    y, _, cache = model.forward(x, cache=True)
    np.testing.assert_array_equal(y, forwarded[0])
    _, _, grads = model.backward(np.ones_like(y), cache)
    assert {n: g.shape for n, g in grads.items()} == {n: w.shape for n, w in model.state_dict().items()}


@pytest.mark.parametrize("method", ["config", "forward", "backward", "stream"])
def test_a_subclass_is_told_what_it_lacks(method):
    arguments = {"forward": (0,), "backward": (0, 0)}.get(method, ())
    with pytest.raises(NotImplementedError, match=f"Module does not define {method}|does not stream"):
        getattr(Module(), method)(*arguments)


class Mine(fl.Linear):
    """A user's own class, outside the package."""


def test_registry():
    mine = Mine(3, 2, rng=0)
    assert mine.describe()["class"] == f"{__name__}.Mine"
    assert type(Module.from_description(mine.describe())) is Mine
    assert type(pickle.loads(pickle.dumps(mine))) is Mine

    class Linear(fl.Linear):  # the same bare name must not take over files of the real one
        pass

    assert type(Module.from_description(fl.Linear(3, 2).describe())) is fl.Linear


@pytest.mark.parametrize("description, words", [
    ({"class": "Nothing", "config": {}}, "unknown class 'Nothing'; known are .*Linear"),
    ({"class": "Linear"}, "keys"), ([], "keys"), ({"class": 1, "config": {}}, "string"),
    ({"class": "Linear", "config": []}, "dict"), ({"class": "Sequential", "config": {}}, "modules"),
    ({"class": "Sequential", "config": {"modules": []}}, "at least one"),
])
def test_bad_descriptions(description, words):
    with pytest.raises(ValueError, match=words):
        Module.from_description(description)


def test_from_config_belongs_to_a_class():
    with pytest.raises(TypeError, match="belongs to a class"):
        Module.from_config({})


def test_config_covers_the_constructor():
    """An argument forgotten in config() would be lost in every file and copy."""
    recurrent = (fl.LSTM, fl.GRU, fl.RNN, fl.DepthGatedLSTM, fl.ClockworkRNN, fl.LSTM1997)
    for cls in (fl.Linear, fl.Embedding, *recurrent):
        model = cls(3, 4)
        arguments = set(inspect.signature(cls.__init__).parameters) - {"self", "rng", "num_threads"}
        assert set(model.config()) == arguments


def in_a_thread(f):
    """Start f; returns the thread and the list its result will be in."""
    found = []
    thread = threading.Thread(target=lambda: found.append(f()))
    thread.start()
    return thread, found


@pytest.mark.parametrize("packed", [True, False])
def test_no_call_sees_half_an_update(packed):
    """A call during an update finishes with the old weights if it has them packed, else waits for the new."""
    model, x = fl.Linear(4, 2, bias=False, rng=0), np.ones((1, 4), "f4")
    old = copy.copy(model)(x)
    if packed:
        model(x)
    calls = []

    def change(weights):
        weights["weight"][0] *= 2
        calls.append(in_a_thread(lambda: model(x)))
        calls[0][0].join(5 if packed else 0.2)
        assert calls[0][0].is_alive() != packed
        weights["weight"][1] *= 2

    model._update(change)
    calls[0][0].join()
    np.testing.assert_array_equal(calls[0][1][0], old if packed else 2 * old)
    np.testing.assert_array_equal(model(x), 2 * old)


def test_packs_once_for_many_threads(monkeypatch):
    model = fl.Linear(8, 8, rng=0)
    packs, real = [], model._pack
    monkeypatch.setattr(model, "_pack", lambda: (packs.append(1), time.sleep(0.1), real())[-1])
    threads = [in_a_thread(lambda: model(np.ones((1, 8), "f4")))[0] for _ in range(4)]
    for thread in threads:
        thread.join()
    assert len(packs) == 1
