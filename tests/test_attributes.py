"""Attributes that say what a module is: one description, which nothing can be set past.

What is fixed refuses to be set and says what to do; what may be set is checked and at once in force everywhere.
"""

import copy
import inspect
import pickle

import numpy as np
import pytest

import fastlstm as fl
from fastlstm.module import Module, _rebuild

OPTIONS = {"rng": 0}
MODELS = {
    "LSTM": lambda: fl.LSTM(3, 4, num_layers=2, proj_size=2, peephole="io", clip=3.0, **OPTIONS),
    "sizes": lambda: fl.LSTM(3, [4, 5], **OPTIONS),
    "GRU": lambda: fl.GRU(3, 4, bidirectional=True, bias=False, reset_after=False, **OPTIONS),
    "RNN": lambda: fl.RNN(3, 4, nonlinearity="relu", batch_first=True, **OPTIONS),
    "DepthGatedLSTM": lambda: fl.DepthGatedLSTM(3, 4, **OPTIONS),
    "ClockworkRNN": lambda: fl.ClockworkRNN(3, 4, periods=(1, 3), **OPTIONS),
    "LSTM1997": lambda: fl.LSTM1997(3, 4, block_size=2, **OPTIONS),
    "Linear": lambda: fl.Linear(3, 2, activation="tanh", **OPTIONS),
    "Embedding": lambda: fl.Embedding(5, 3, **OPTIONS),
    "Reverse": lambda: fl.Reverse(fl.LSTM(3, 4, **OPTIONS), in_time=False),
    "Bidirectional": lambda: fl.Bidirectional(fl.LSTM(3, 4, **OPTIONS), fl.GRU(3, 4, **OPTIONS), merge="sum"),
    "Last": lambda: fl.Last(fl.LSTM(3, 4, **OPTIONS)),
    "Sequential": lambda: fl.Sequential(fl.LSTM(3, 4, **OPTIONS), fl.Linear(4, 2, **OPTIONS)),
}
RATES = {
    "dropout", "variational_x", "variational_h", "recurrent_dropout", "weight_drop", "zoneout_h", "zoneout_c",
}
# Of the class, not of the constructor.
CONSTANT = ("recurrent", "row_axes")


def arguments(model):
    """Names of the constructor's arguments that describe a model."""
    found = inspect.signature(type(model).__init__).parameters
    return [name for name in found if name not in ("self", "rng", "modules")]


CASES = [(kind, name) for kind, make in MODELS.items() for name in arguments(make())]
each_model = pytest.mark.parametrize("kind", MODELS)


def an_input(kind):
    rng = np.random.default_rng(1)
    return rng.integers(0, 5, (4, 2)) if kind == "Embedding" else rng.normal(size=(4, 2, 3)).astype("f4")


def output(model, x):
    y = model(x)
    return y[0] if isinstance(y, tuple) else y


@pytest.mark.parametrize("kind, name", [case for case in CASES if case[1] not in RATES])
def test_what_the_constructor_was_given_is_fixed(kind, name):
    model = MODELS[kind]()
    x, config, before = an_input(kind), model.config(), getattr(model, name)
    y = output(model, x)
    wrong = (True, "F4", 9, None, "ifo", before)
    for value in wrong:
        with pytest.raises(AttributeError, match=f"{name} of {type(model).__name__} is fixed: "):
            setattr(model, name, value)
    with pytest.raises(AttributeError, match=f"{name} of {type(model).__name__} is fixed: "):
        delattr(model, name)
    assert getattr(model, name) is before or getattr(model, name) == before
    assert model.config() == config
    np.testing.assert_array_equal(output(model, x), y)


def test_the_words_tell_what_to_do():
    with pytest.raises(AttributeError, match=r"hidden_size of LSTM is fixed: make a new one, LSTM\(\.\.\., hidden_s"):
        MODELS["LSTM"]().hidden_size = 9
    with pytest.raises(AttributeError, match="proj_size of GRU is fixed: it follows from what the constructor was"):
        MODELS["GRU"]().proj_size = 9
    with pytest.raises(AttributeError, match=r"num_threads of LSTM is fixed: call set_num_threads\(n\)"):
        MODELS["LSTM"]().num_threads = 2


@pytest.mark.parametrize("kind, name", [case for case in CASES if case[1] not in RATES | {"num_threads"}])
def test_an_attribute_is_what_the_description_says(kind, name):
    model = MODELS[kind]()
    found, said = getattr(model, name), model.config()[name]
    if isinstance(found, Module):
        assert said == found.describe()
    elif name == "activations":
        assert tuple(one.name for one in found) == tuple(one.name for one in model._spec.v.activations)
    else:
        assert (list(found) if isinstance(found, tuple) else found) == (
            [1, 3] if name == "periods" else said
        )


@each_model
@pytest.mark.parametrize("name", CONSTANT)
def test_what_belongs_to_the_class_is_fixed(kind, name):
    model = MODELS[kind]()
    before = getattr(model, name)
    with pytest.raises(AttributeError, match=name):
        setattr(model, name, not before)
    assert getattr(model, name) == before


def test_a_layers_cell_is_fixed():
    layer = MODELS["LSTM"]()
    with pytest.raises(AttributeError, match="cell of LSTM is fixed"):
        layer.cell = "gru"
    assert layer.cell == fl.LSTM.cell == "lstm" and "peephole" in layer.config()


def test_sizes_of_layers_cannot_be_changed_in_place():
    layer = MODELS["sizes"]()
    assert layer.hidden_size == (4, 5) and layer.config()["hidden_size"] == [4, 5]
    with pytest.raises(TypeError):
        layer.hidden_size[0] = 9


def test_a_call_a_forward_and_a_stream_see_one_layout():
    layer = fl.LSTM(3, 4, rng=0)
    x = np.random.default_rng(0).standard_normal((4, 2, 3)).astype(np.float32)
    layer(x)  # packed: the short way is open
    with pytest.raises(AttributeError, match="batch_first of LSTM is fixed"):
        layer.batch_first = True
    np.testing.assert_array_equal(layer(x)[0], layer.forward(x)[0])
    np.testing.assert_array_equal(layer(x)[0], layer.stream(2).process(x))


def test_members_cannot_be_exchanged():
    model, other = MODELS["Sequential"](), fl.LSTM(3, 4, batch_first=True)
    with pytest.raises(TypeError):
        model[0] = other
    for kind, name in (("Reverse", "layer"), ("Last", "layer"), ("Bidirectional", "backward_layer")):
        model = MODELS[kind]()
        with pytest.raises(AttributeError, match=f"{name} of {kind} is fixed"):
            setattr(model, name, other)
        assert getattr(model, name) is not other


# ---- what may be set ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, name", [case for case in CASES if case[1] in RATES])
def test_a_rate_is_checked_when_it_is_set(kind, name):
    model = MODELS[kind]()
    for wrong in (7, -0.1, "0.1", None, True, float("nan")):
        with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
            setattr(model, name, wrong)
        assert getattr(model, name) == model.config()[name] == 0
    setattr(model, name, 0.25)
    assert getattr(model, name) == model.config()[name] == 0.25
    assert getattr(copy.copy(model), name) == getattr(pickle.loads(pickle.dumps(model)), name) == 0.25


def test_dropout_that_is_set_drops():
    layer = fl.LSTM(3, 4, num_layers=2, rng=0)
    x = np.ones((3, 2, 3), np.float32)
    assert layer.forward(x, cache=True)[2].masks == {}
    layer.dropout = 0.5
    assert set(np.unique(layer.forward(x, cache=True)[2].masks["dropout"])) == {0, 2}


@each_model
def test_training_is_true_or_false(kind):
    model = MODELS[kind]()
    for wrong in ("no", 1, None, 0.0):
        with pytest.raises(TypeError, match="training must be True or False"):
            model.training = wrong
        with pytest.raises(TypeError, match="mode must be True or False"):
            model.train(wrong)
        assert model.training is True
    model.training = np.False_
    assert model.training is False
    assert copy.copy(model).training is pickle.loads(pickle.dumps(model)).training is False


def test_training_of_a_container_is_that_of_its_members():
    model = fl.Sequential(fl.LSTM(3, 4, num_layers=2, dropout=0.5, rng=0), fl.Linear(4, 2, rng=0))
    x = np.ones((3, 2, 3), np.float32)
    model.training = False
    assert [member.training for member in model] == [False, False]
    assert not model.forward(x, cache=True)[2][0].masks
    model[0].training = True
    assert model.training and not model[1].training
    for twin in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert [member.training for member in twin] == [True, False]
    model[0].eval()
    assert not model.training


@each_model
def test_metadata_are_checked_when_they_are_set(kind):
    model = MODELS[kind]()
    mine = {"about": "a model"}
    model.metadata = mine
    mine["about"] = "another"
    for wrong, error in ((None, TypeError), ("about", TypeError), ({"n": 1}, TypeError), ({"format": "x"}, ValueError)):
        with pytest.raises(error, match="metadata"):
            model.metadata = wrong
        assert model.metadata == {"about": "a model"}
    model.metadata["more"] = "lines"
    assert copy.copy(model).metadata == {"about": "a model", "more": "lines"}


# ---- what stays as Python has it ----------------------------------------------------------------------------------


class Named(fl.LSTM):
    """A user's subclass with attributes of its own, and a class attribute of the same name as an option."""

    purpose = "none"

    def __init__(self, input_size, hidden_size, label="a", **options):
        self.label = label
        super().__init__(input_size, hidden_size, **options)
        self.seen = 0

    def config(self):
        known = super().config()
        return {**known, "label": self.label}

    def forward(self, x, state=None, **kwargs):
        self.seen += 1
        return super().forward(x, state, **kwargs)


def test_a_subclass_keeps_attributes_of_its_own():
    model = Named(3, 4, label="b", rng=0)
    model(np.zeros((2, 1, 3), np.float32))
    model.purpose = "another"
    assert (model.label, model.seen, model.purpose, Named.purpose) == ("b", 1, "another", "none")
    for twin in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert isinstance(twin, Named) and twin.label == "b" and twin.hidden_size == 4
    with pytest.raises(AttributeError, match="hidden_size of Named is fixed"):
        model.hidden_size = 9


def test_names_that_nothing_knows_are_left_alone():
    layer = fl.LSTM(3, 4)
    layer.hiden_size = 9
    assert layer.hiden_size == 9 and layer.hidden_size == 4


class Chooses(Module):
    """A module of a user's that says for each object whether it carries a state."""

    def __init__(self, recurrent):
        super().__init__()
        self.recurrent = recurrent


def test_a_module_of_ones_own_may_set_what_the_package_fixes():
    assert Chooses(True).recurrent and not Chooses(False).recurrent


def test_pickles_made_when_attributes_were_plain_can_be_read():
    layer = fl.LSTM(3, 4, num_layers=2, dropout=0.5, rng=0)
    extras = {"metadata": {"about": "a model"}, "training": False, "_num_threads": 2}
    twin = _rebuild(fl.LSTM, layer.config(), layer.state_dict(), extras)
    assert (twin.metadata, twin.training, twin.num_threads, twin.dropout) == ({"about": "a model"}, False, 2, 0.5)


def test_what_a_refused_attribute_leaves_can_be_saved_and_loaded(tmp_path):
    model = MODELS["LSTM"]()
    with pytest.raises(AttributeError):
        model.hidden_size = 9
    model.dropout = 0.5
    model.save(tmp_path / "model.safetensors")
    again = fl.load(tmp_path / "model.safetensors")
    assert again.config() == model.config() and again.dropout == 0.5
