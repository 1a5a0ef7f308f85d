"""What a caller may change in place after forward(..., cache=True): everything handed in and everything returned."""

import copy

import numpy as np
import pytest
from differences import leaves

import fastlstm as fl

F8 = dict(dtype="float64")
T, B, I = 5, 3, 4


class Passing(fl.Module):
    """A stateless module of somebody else, which hands on the very array that it is given."""

    def __init__(self):
        super().__init__()
        self._weights = {"weight": np.ones(1)}

    def config(self):
        return {}

    def forward(self, x, state=None, *, cache=False):
        return (x, None, x.copy()) if cache else (x, None)

    def backward(self, dy, cache, dstate=None, *, input_gradient=True):
        return dy, None, {"weight": np.array([(dy * cache).sum()])}


def linear(activation, rng=0, width=I):
    return fl.Linear(width, I, activation=activation, rng=rng, **F8)


def both(merge):
    return fl.Bidirectional(fl.LSTM(I, I, rng=0, **F8), fl.GRU(I, I, rng=1, **F8), merge)


MODELS = {
    **{f"linear {name}": lambda name=name: linear(name) for name in ("none", "relu", "tanh", "sigmoid", "softmax")},
    "linears": lambda: fl.Sequential(linear("relu"), linear("tanh", 1)),
    "nested": lambda: fl.Sequential(fl.Sequential(linear("relu")), fl.Sequential(linear("tanh", 1), linear("relu", 2))),
    "behind a foreign one": lambda: fl.Sequential(Passing(), linear("tanh")),
    "before a foreign one": lambda: fl.Sequential(linear("tanh"), Passing()),
    "lstm": lambda: fl.LSTM(I, I, num_layers=2, bidirectional=True, dropout=0.5, rng=0, **F8),
    "masks": lambda: fl.LSTM(I, I, variational_x=0.5, weight_drop=0.5, zoneout_c=0.5, rng=0, **F8),
    "batch first": lambda: fl.GRU(I, I, batch_first=True, rng=0, **F8),
    "ragged": lambda: fl.LSTM(I, [3, 5], rng=0, **F8),
    "three states": lambda: fl.LSTM1997(I, I, rng=0, **F8),
    "clockwork": lambda: fl.ClockworkRNN(I, I, rng=0, **F8),
    "chain": lambda: fl.Sequential(linear("relu"), fl.LSTM(I, I, rng=1, **F8), linear("tanh", 2)),
    "reverse": lambda: fl.Reverse(fl.GRU(I, I, rng=0, **F8)),
    "reverse not in time": lambda: fl.Reverse(fl.GRU(I, I, rng=0, **F8), in_time=False),
    **{f"bidirectional {merge}": lambda merge=merge: both(merge) for merge in ("concat", "sum", "mul", "ave", None)},
    "last": lambda: fl.Last(fl.LSTM(I, I, bidirectional=True, rng=0, **F8)),
    "last of mul": lambda: fl.Last(both("mul")),
}


def all_arrays(value):
    """Every array in a tree of tuples, lists and dicts."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        return [leaf for part in value for leaf in all_arrays(part)]
    return [value] if isinstance(value, np.ndarray) else []


def spoil(*values):
    """Writes into all arrays that let themselves be written to."""
    for array in all_arrays(values):
        if array.flags.writeable:
            array[...] = array + 100 if array.dtype.kind == "f" else 0


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_what_a_caller_changes_changes_no_gradient(name, ragged):
    model, rng = MODELS[name](), np.random.default_rng(3)
    x = rng.normal(size=(T, B, I))
    _, state = model.forward(x)
    options = {}
    if ragged:
        lengths = [T, 2, 0] if name != "batch first" else [B, 2, 0, B, 1]
        options = dict(lengths=np.array(lengths), reset=rng.random((T, B)) < 0.3)
    if hasattr(model, "draw_masks"):
        options["masks"] = model.draw_masks(B, T) if name == "batch first" else model.draw_masks(T, B)
    kept = copy.deepcopy((x, state, options))
    y, final, cache = model.forward(x, state, cache=True, **options)
    dy = [rng.normal(size=one.shape) for one in leaves(y)]
    dy = tuple(dy) if isinstance(y, tuple) else dy[0]
    expected = copy.deepcopy(model.backward(dy, cache))
    assert any(array.any() for array in all_arrays(expected[2]))

    spoil(model.backward(dy, cache))
    spoil(x, y, state, final, options, getattr(cache, "masks", {}))
    for a, b in zip(all_arrays(model.backward(dy, cache)), all_arrays(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    # and the first call was given what it was given: nothing of it was changed by the calls themselves
    again = model.forward(*kept[:2], cache=True, **kept[2])
    for a, b in zip(all_arrays(model.backward(dy, again[2])), all_arrays(expected), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["lstm", "ragged", "three states", "reverse", "chain", "bidirectional mul"])
def test_a_trace_changes_no_gradient(name):
    model, rng = MODELS[name](), np.random.default_rng(3)
    model.eval()
    x = rng.normal(size=(T, B, I))
    y, _, trace, cache = model.forward(x, trace=True, cache=True)
    dy = rng.normal(size=y.shape)
    expected = copy.deepcopy(model.backward(dy, cache))
    spoil(x, y, trace)
    for a, b in zip(all_arrays(model.backward(dy, cache)), all_arrays(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    spoil(model.forward(rng.normal(size=(T, B, I)), trace=True)[2])  # without a cache it is the caller's to change
    assert all(array.flags.writeable for array in all_arrays(model.forward(x, trace=True)[2]))


def test_an_embedding_keeps_its_index():
    model, x = fl.Embedding(6, 3, rng=0, **F8), np.array([[0, 5], [2, 2]])
    y, _, cache = model.forward(x, cache=True)
    expected = model.backward(np.ones_like(y), cache)[2]["weight"]
    spoil(x, y)
    np.testing.assert_array_equal(model.backward(np.ones(y.shape), cache)[2]["weight"], expected)


@pytest.mark.parametrize("x", [np.ones((2, I)).tolist(), np.ones((2, I), "f4"), np.ones((I, 2)).T, np.ones((2, I))])
def test_one_copy_at_most(x):
    """Memory that is nobody else's is not copied: that of a list, of another dtype, between the members of a chain."""
    cache = linear(None).forward(x, cache=True)[2]
    assert not np.may_share_memory(cache.x, x) if isinstance(x, np.ndarray) else True
    assert cache.y is None  # without an activation backward needs none
    chain = fl.Sequential(linear("relu"), linear("tanh", 1), fl.Sequential(linear("relu", 2), linear(None, 3)))
    y, _, (a, b, (c, d)) = chain.forward(x, cache=True)
    for before, after in ((a, b), (b, c), (c, d)):
        assert np.may_share_memory(before.y, after.x)
    assert not np.may_share_memory(c.y, y)


@pytest.mark.parametrize("make", [
    lambda: linear("tanh"), lambda: fl.Embedding(6, 3), lambda: fl.Sequential(linear("tanh")),
])
def test_a_cache_of_something_else_is_refused(make):
    for cache in (None, 3, (), fl.LSTM(I, I).forward(np.zeros((T, B, I)), cache=True)[2]):
        with pytest.raises(TypeError, match=r"cache must come from forward\(..., cache=True\)"):
            make().backward(np.zeros((T, B, I)), cache)
