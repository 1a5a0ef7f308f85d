"""Lengths in members without memory: what stands in the padding of x, dy or an index changes nothing."""

import numpy as np
import pytest
from differences import check_gradients
from leaky import Leaky
from test_caches import Passing

import fastlstm as fl

F8 = dict(dtype="float64")
T, B, I = 5, 3, 4
LENGTHS = [T, 2, 0]
BEYOND = np.arange(T)[:, None] >= np.array(LENGTHS)  # (T, B)


class Mean(fl.Module):
    """A stateless module of somebody else that takes lengths and gives one output per row."""

    def __init__(self):
        super().__init__()
        self._weights = {"weight": np.ones(1)}

    def config(self):
        return {}

    def forward(self, x, state=None, *, lengths=None, cache=False):
        counts = np.full(x.shape[1], len(x)) if lengths is None else np.maximum(lengths, 1)
        kept = (x.shape, counts)
        y = x.sum(0) / counts[:, None] * self._weights["weight"]
        return (y, None, kept) if cache else (y, None)

    def backward(self, dy, cache, dstate=None, *, input_gradient=True):
        shape, counts = cache
        return np.broadcast_to(dy / counts[:, None], shape), None, {"weight": np.zeros(1)}


def linear(rng=0, **options):
    return fl.Linear(I, I, rng=rng, **options, **F8)


MODELS = {
    "linear": lambda first: linear(activation="tanh"),
    "linear, lstm": lambda first: fl.Sequential(linear(), fl.LSTM(I, I, batch_first=first, rng=1, **F8)),
    "lstm, linear": lambda first: fl.Sequential(
        fl.LSTM(I, I, batch_first=first, rng=1, **F8), linear(activation="relu")),
    "softmax": lambda first: fl.Sequential(fl.GRU(I, I, batch_first=first, rng=1, **F8), linear(activation="softmax")),
    "nested": lambda first: fl.Sequential(
        fl.Sequential(linear(), linear(1, activation="sigmoid")),
        fl.Sequential(fl.RNN(I, I, batch_first=first, rng=1, **F8)), fl.Sequential(linear(2)), linear(3),
    ),
    "both ways": lambda first: fl.Sequential(
        linear(activation="tanh"), fl.Bidirectional(
            fl.LSTM(I, I, batch_first=first, rng=1, **F8), fl.GRU(I, I, batch_first=first, rng=2, **F8), "mul"),
        linear(4), fl.Reverse(fl.RNN(I, I, batch_first=first, rng=3, **F8)), linear(5),
    ),
    "ragged": lambda first: fl.Sequential(linear(), fl.LSTM(I, [3, 4], batch_first=first, rng=1, **F8), linear(2)),
    "foreign at its end": lambda first: fl.Sequential(
        fl.GRU(I, I, batch_first=first, rng=1, **F8), linear(), Passing()),
    "foreign": lambda first: fl.Sequential(
        Passing(), fl.LSTM(I, I, batch_first=first, rng=1, **F8), Passing(), linear(2)),
}


def padded(a, value):
    """A copy of a (T, B, ...) array with `value` beyond the lengths."""
    a = a.copy()
    a[BEYOND] = value
    return a


def run(model, x, dy, first, **options):
    """y, dx and gradients; x and dy (T, B, F), in time and batch whatever the model takes."""
    turn = (lambda a: a.swapaxes(0, 1)) if first else (lambda a: a)
    if first and not getattr(model, "recurrent", False):
        options["batch_first"] = True
    y, _, cache = model.forward(turn(x), lengths=LENGTHS, cache=True, **options)
    inference = model(turn(x), lengths=LENGTHS, **options)
    np.testing.assert_array_equal(inference[0] if model.recurrent else inference, y)
    dx, _, grads = model.backward(turn(dy), cache)
    return turn(y), turn(dx), grads


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_padding_changes_nothing(name, first):
    model, rng = MODELS[name](first), np.random.default_rng(1)
    x, dy = rng.normal(size=(2, T, B, I))
    y, dx, grads = run(model, padded(x, 0), padded(dy, 0), first)
    assert not y[BEYOND].any() and not dx[BEYOND].any() and y[~BEYOND].any()
    assert all(np.isfinite(grad).all() for grad in grads.values())
    for in_x, in_dy in ((np.nan, 0), (0, np.nan), (np.inf, -np.inf), (1e300, 1e300), (7, 9)):
        others = run(model, padded(x, in_x), padded(dy, in_dy), first)
        np.testing.assert_array_equal(others[0], y)
        np.testing.assert_array_equal(others[1], dx)
        for name in grads:
            np.testing.assert_array_equal(others[2][name], grads[name], err_msg=name)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_with_lengths(name):
    if "foreign" not in name:
        check_gradients(MODELS[name](False), np.random.default_rng(1).normal(size=(3, 2, I)), lengths=[3, 1])


def test_the_valid_rows_are_those_of_a_call_without_padding():
    model, x = linear(activation="tanh"), np.random.default_rng(1).normal(size=(T, B, I))
    y, _, cache = model.forward(x, lengths=LENGTHS, cache=True)
    alone, _, kept = model.forward(x[~BEYOND], cache=True)
    np.testing.assert_array_equal(y[~BEYOND], alone)
    for a, b in zip(model.backward(y, cache)[2].values(), model.backward(alone, kept)[2].values(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("filler", [-1, 7, -100, 2**40])
@pytest.mark.parametrize("first", [False, True])
def test_an_index_in_the_padding_is_not_looked_at(filler, first):
    embedding = fl.Embedding(7, I, rng=0, **F8)
    model = fl.Sequential(embedding, fl.LSTM(I, I, batch_first=first, rng=1, **F8), linear(2))
    x = np.random.default_rng(1).integers(0, 7, (T, B))
    turn = (lambda a: a.swapaxes(0, 1)) if first else (lambda a: a)
    y, _, cache = model.forward(turn(x), lengths=LENGTHS, cache=True)
    other, _, kept = model.forward(turn(padded(x, filler)), lengths=LENGTHS, cache=True)
    np.testing.assert_array_equal(other, y)
    for a, b in zip(model.backward(y, cache)[2].values(), model.backward(y, kept)[2].values(), strict=True):
        np.testing.assert_array_equal(a, b)
    vectors = embedding(turn(padded(x, filler)), lengths=LENGTHS, batch_first=first)
    assert not turn(vectors)[BEYOND].any()
    with pytest.raises(IndexError, match=r"x\[0, 1\] is -1"):
        embedding(padded(x, 0) - np.eye(T, B, 1, int) * (x + 1), lengths=LENGTHS)
    with pytest.raises(IndexError):
        embedding(turn(padded(x, filler)))


def test_lengths_end_behind_last():
    model = fl.Sequential(linear(), fl.Last(fl.LSTM(I, I, rng=1, **F8)), linear(2), fl.Sequential(linear(3)))
    x = np.random.default_rng(1).normal(size=(B, B, I))  # T == B: nothing may mistake rows for steps
    y, _, cache = model.forward(x, lengths=[B, 1, 0], cache=True)
    hidden = model[1](model[0](x), lengths=[B, 1, 0])[0]
    np.testing.assert_array_equal(y, model[3](model[2](hidden)))
    x[1:, 1], x[:, 2] = np.nan, np.nan
    other, _, kept = model.forward(x, lengths=[B, 1, 0], cache=True)
    np.testing.assert_array_equal(other, y)
    dx, _, grads = model.backward(y, kept)
    for name, grad in model.backward(y, cache)[2].items():
        np.testing.assert_array_equal(grads[name], grad)
    assert not dx[1:, 1].any()


def test_a_foreign_member_that_takes_lengths_gets_them():
    model = fl.Sequential(Leaky(I, I, rng=0), Mean(), linear(1))
    x, dy = np.random.default_rng(1).normal(size=(T, B, I)), np.ones((B, I))
    y, _, cache = model.forward(x, lengths=np.array(LENGTHS), cache=True)
    expected = model[0].forward(x, lengths=np.array(LENGTHS))[0].sum(0) / np.array([T, 2, 1])[:, None]
    np.testing.assert_allclose(y, model[2](expected), rtol=1e-14)
    dx = model.backward(dy, cache)[0]
    assert not dx[BEYOND].any() and dx[~BEYOND].all()


@pytest.mark.parametrize("lengths", [3, [3], np.int64(3)])
def test_unbatched(lengths):
    model = fl.Sequential(linear(activation="tanh"), fl.LSTM(I, I, rng=1, **F8), linear(2))
    x = np.random.default_rng(1).normal(size=(T, I))
    x[3:] = np.nan
    y, _, cache = model.forward(x, lengths=lengths, cache=True)
    np.testing.assert_array_equal(y[:3], model(x[:3])[0])
    assert not y[3:].any() and all(np.isfinite(grad).all() for grad in model.backward(y, cache)[2].values())


@pytest.mark.parametrize("lengths", [[T] * B, [0] * B])
def test_all_or_nothing(lengths):
    model, x = fl.Sequential(linear(), fl.LSTM(I, I, rng=1, **F8), linear(2)), np.ones((T, B, I))
    y, _, cache = model.forward(x, lengths=lengths, cache=True)
    dx, _, grads = model.backward(np.ones_like(y), cache)
    if not any(lengths):
        assert not y.any() and not dx.any() and not any(grad.any() for grad in grads.values())
    else:
        np.testing.assert_array_equal(y, model(x)[0])


def test_the_layout_of_a_chain():
    assert fl.Sequential(linear(), fl.Sequential(fl.LSTM(I, I, batch_first=True, **F8))).batch_first is True
    assert fl.Sequential(fl.LSTM(I, I)).batch_first is False and fl.Sequential(linear()).batch_first is False
    x = np.random.default_rng(1).normal(size=(B, T, I))
    chain = fl.Sequential(linear(), linear(1))
    y = chain(x, lengths=LENGTHS, batch_first=True)
    np.testing.assert_array_equal(y, chain(x.swapaxes(0, 1), lengths=LENGTHS).swapaxes(0, 1))
    assert not y[2].any() and y[0].all()
    with pytest.raises(ValueError, match="batch_first is False, the recurrent members have True"):
        fl.Sequential(fl.LSTM(I, I, batch_first=True)).forward(x, batch_first=False)


X = np.zeros((T, B, I))


@pytest.mark.parametrize("x, options, error, words", [
    (X, dict(lengths=[1, 2]), ValueError, r"lengths has shape \(2,\), expected \(3,\)"),
    (X, dict(lengths=[1, 2, 6]), ValueError, r"lengths\[2\] is 6, expected 0 <= length <= T = 5"),
    (X, dict(lengths=[1.0, 2, 3]), TypeError, "lengths must hold integers"),
    (X, dict(lengths=LENGTHS, batch_first=1), TypeError, "batch_first must be True or False, got int"),
    (X[0, 0], dict(lengths=1), ValueError, r"x has shape \(4,\); with lengths, expected"),
    (X[None], dict(lengths=[1]), ValueError, r"x has shape \(1, 5, 3, 4\); with lengths, expected \(T, B, I\)"),
])
def test_refused(x, options, error, words):
    for model in (linear(), fl.Sequential(linear(), linear(1))):
        with pytest.raises(error, match=words):
            model.forward(x, **options)
