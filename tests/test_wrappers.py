"""Reverse, Bidirectional, Last: to the bit the reverse half of a bidirectional layer, gradients by differences."""

import copy
import pickle

import numpy as np
import pytest
from differences import check_gradients, leaves, numeric_gradient, tree

import fastlstm as fl

CLASSES = {"LSTM": fl.LSTM, "GRU": fl.GRU, "RNN": fl.RNN, "DepthGatedLSTM": fl.DepthGatedLSTM}
SHAPES = [(1, 1), (5, 3), (9, 2), (0, 2), (4, 0)]
F8 = dict(dtype="float64")


def both(kind, dtype="float32", **options):
    """A bidirectional layer, and its two directions as layers of their own."""
    layers = {"num_layers": 2} if kind == "DepthGatedLSTM" else {}
    whole = CLASSES[kind](3, 5, bidirectional=True, dtype=dtype, rng=0, **options)
    if layers:
        whole = CLASSES[kind](3, 5, 1, bidirectional=True, dtype=dtype, rng=0, **options)
    halves = []
    for ending in ("", "_reverse"):
        half = CLASSES[kind](3, 5, 1, dtype=dtype, **options)
        half.load_state_dict({name: whole.state_dict()[name + ending] for name in half.state_dict()})
        halves.append(half)
    return whole, *halves


def problem(T, B, dtype, batch_first=False, seed=5):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(T, B, 3)).astype(dtype)
    lengths = rng.integers(0, T + 1, B)
    reset = rng.random((T, B)) < 0.3
    return (x.swapaxes(0, 1), lengths, reset.T) if batch_first else (x, lengths, reset)


def half_state(kind, state, direction):
    part = tuple(s[direction : direction + 1] for s in (state if isinstance(state, tuple) else (state,)))
    return part if isinstance(state, tuple) else part[0]


def same(a, b):
    for one, other in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("T, B", SHAPES)
def test_reverse_is_the_reverse_half(kind, dtype, batch_first, ragged, T, B):
    whole, _, half = both(kind, dtype, batch_first=batch_first)
    x, lengths, reset = problem(T, B, dtype, batch_first)
    options = {"lengths": lengths, "reset": reset} if ragged else {}
    rng = np.random.default_rng(1)
    _, zeros = whole(x)
    state = tree(lambda s: rng.normal(size=s.shape).astype(dtype), zeros)
    y, final, trace, cache = whole.forward(x, state, trace=True, cache=True, **options)
    model = fl.Reverse(half)
    mine, mine_final, mine_trace, mine_cache = model.forward(
        x, half_state(kind, state, 1), trace=True, cache=True, **options
    )
    same(mine, y[..., 5:])
    same(mine_final, half_state(kind, final, 1))
    one = trace[0] if isinstance(trace, list) else trace
    for name in one._fields:
        reverse = getattr(trace, name)[1]  # a list, one for each direction
        same(getattr(mine_trace, name), [reverse])
    dy = rng.normal(size=mine.shape).astype(dtype)
    wide = np.concatenate([np.zeros_like(dy), dy], axis=-1)
    dx, dstate, grads = whole.backward(wide, cache)
    mine_dx, mine_dstate, mine_grads = model.backward(dy, mine_cache)
    same(mine_dstate, half_state(kind, dstate, 1))
    np.testing.assert_allclose(mine_dx, dx, rtol=1e-4, atol=1e-5)
    assert set(mine_grads) == set(model.state_dict())
    for name, grad in mine_grads.items():
        np.testing.assert_allclose(grad, grads[name.removeprefix("layer.") + "_reverse"], rtol=1e-4, atol=1e-5)


def test_reverse_out_of_time():
    """in_time=False: y in the order it was computed, each row's real steps first."""
    x, lengths, _ = problem(7, 4, "float32")
    layer = fl.GRU(3, 5, 2, rng=0)
    y, _ = fl.Reverse(layer)(x, lengths=lengths)
    found, _ = fl.Reverse(layer, in_time=False)(x, lengths=lengths)
    for row, end in enumerate(lengths):
        np.testing.assert_array_equal(found[:end, row], y[:end, row][::-1])
        assert not found[end:, row].any()
    np.testing.assert_array_equal(fl.Reverse(layer, in_time=False)(x)[0], layer(x[::-1])[0])


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("T, B", SHAPES)
def test_concat_is_bidirectional(kind, batch_first, T, B):
    whole, ahead, back = both(kind, batch_first=batch_first)
    x, lengths, reset = problem(T, B, "float32", batch_first)
    y, final = whole(x, lengths=lengths, reset=reset)
    mine, mine_final = fl.Bidirectional(ahead, back)(x, lengths=lengths, reset=reset)
    same(mine, y)
    for direction in (0, 1):
        same(mine_final[direction], half_state(kind, final, direction))


def test_merges():
    x, lengths, _ = problem(6, 3, "float64")
    ahead, back = fl.LSTM(3, 4, 2, rng=0, **F8), fl.GRU(3, 4, rng=1, **F8)
    a, b = ahead(x, lengths=lengths)[0], fl.Reverse(back)(x, lengths=lengths)[0]
    expected = {"concat": np.concatenate([a, b], -1), "sum": a + b, "mul": a * b, "ave": (a + b) / 2}
    for merge, y in expected.items():
        np.testing.assert_array_equal(fl.Bidirectional(ahead, back, merge)(x, lengths=lengths)[0], y)
    same(fl.Bidirectional(ahead, back, None)(x, lengths=lengths)[0], (a, b))


MODELS = {
    "reverse": lambda: fl.Reverse(fl.LSTM(3, 4, rng=0, **F8)),
    "computed order": lambda: fl.Reverse(fl.GRU(3, 4, 2, rng=0, **F8), in_time=False),
    "concat": lambda: fl.Bidirectional(fl.LSTM(3, 4, rng=0, **F8), fl.GRU(3, 2, rng=1, **F8)),
    "sum": lambda: fl.Bidirectional(fl.RNN(3, 4, rng=0, **F8), fl.GRU(3, 4, rng=1, **F8), "sum"),
    "mul": lambda: fl.Bidirectional(fl.LSTM(3, 4, rng=0, **F8), fl.LSTM(3, 4, rng=1, **F8), "mul"),
    "ave": lambda: fl.Bidirectional(fl.LSTM(3, 4, rng=0, **F8), fl.LSTM(3, 4, 2, rng=1, **F8), "ave"),
    "last": lambda: fl.Last(fl.LSTM(3, 4, 2, rng=0, **F8)),
    "last projected": lambda: fl.Last(fl.LSTM(3, 4, proj_size=2, bidirectional=True, rng=0, **F8)),
    "last of sizes": lambda: fl.Last(fl.GRU(3, [4, 2], bidirectional=True, rng=0, **F8)),
    "last reverse": lambda: fl.Last(fl.Reverse(fl.RNN(3, 4, rng=0, **F8))),
    "last concat": lambda: fl.Last(fl.Bidirectional(fl.LSTM(3, 4, rng=0, **F8), fl.GRU(3, 2, rng=1, **F8))),
    "last mul": lambda: fl.Last(fl.Bidirectional(fl.GRU(3, 4, rng=0, **F8), fl.GRU(3, 4, rng=1, **F8), "mul")),
    "chain": lambda: fl.Sequential(
        fl.Bidirectional(fl.LSTM(3, 4, rng=0, **F8), fl.RNN(3, 4, rng=1, **F8), "mul"),
        fl.Last(fl.GRU(4, 3, bidirectional=True, rng=2, **F8)), fl.Linear(6, 2, activation="tanh", rng=3, **F8),
    ),
}
each_model = pytest.mark.parametrize("name", MODELS)


def states(name, x, seed=3):
    rng = np.random.default_rng(seed)
    return tree(lambda s: rng.normal(size=s.shape), MODELS[name]()(x)[1])


def as_pairs(value):
    """Lists of arrays, of layers that differ in size, as tuples."""
    return tuple(map(as_pairs, value)) if isinstance(value, (tuple, list)) else value


@each_model
@pytest.mark.parametrize("ragged", [False, True])
def test_gradients(name, ragged):
    T, B = 4, 2
    x = np.random.default_rng(5).normal(size=(T, B, 3))
    options = {"lengths": [T, 2], "reset": np.arange(T * B).reshape(T, B) % 3 == 2} if ragged else {}
    check_gradients(MODELS[name](), x, as_pairs(states(name, x)), **options)
    check_gradients(MODELS[name](), x, None, **options)


def test_gradients_of_a_pair():
    x = np.random.default_rng(5).normal(size=(4, 2, 3))
    model = fl.Bidirectional(fl.LSTM(3, 4, rng=0, **F8), fl.GRU(3, 2, rng=1, **F8), None)
    ys, _, cache = model.forward(x, cache=True)
    dys = [np.random.default_rng(k).normal(size=y.shape) for k, y in enumerate(ys)]
    for y in ys:
        y[...] = np.nan  # they are the caller's
    dx, _, grads = model.backward(dys, cache)

    def objective():
        return float(sum((y * dy).sum() for y, dy in zip(model(x)[0], dys)))

    np.testing.assert_allclose(dx, numeric_gradient(objective, x), rtol=1e-7, atol=1e-9)
    assert set(grads) == set(model.state_dict())
    assert model.backward(dys, cache, input_gradient=False)[0] is None


def test_the_caller_owns_the_state():
    """What it does to the state before backward changes nothing."""
    x, model = np.random.default_rng(5).normal(size=(4, 2, 3)), MODELS["last mul"]()
    y, final, cache = model.forward(x, cache=True)
    dx = model.backward(np.ones_like(y), cache)[0]
    for a in leaves(final):
        a[...] = np.nan
    np.testing.assert_array_equal(model.backward(np.ones_like(y), cache)[0], dx)


@pytest.mark.parametrize("unbatched", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_last_is_the_last(unbatched, batch_first):
    rng = np.random.default_rng(0)
    layer = fl.LSTM(3, 5, 2, batch_first=batch_first, rng=0)
    if unbatched:
        x = rng.normal(size=(7, 3)).astype("f4")
        np.testing.assert_array_equal(fl.Last(layer)(x)[0], layer(x)[0][-1])
        return
    x, lengths, _ = problem(7, 4, "float32", batch_first)
    lengths = np.maximum(lengths, 1)
    y = layer(x, lengths=lengths)[0]
    y = y if batch_first else y.swapaxes(0, 1)
    expected = np.stack([row[end - 1] for row, end in zip(y, lengths)])
    np.testing.assert_array_equal(fl.Last(layer)(x, lengths=lengths)[0], expected)


def test_last_of_nothing():
    layer = fl.GRU(3, 5, rng=0)
    h0 = np.random.default_rng(0).normal(size=(1, 2, 5)).astype("f4")
    x = np.zeros((4, 2, 3), "f4")
    np.testing.assert_array_equal(fl.Last(layer)(x, h0, lengths=[0, 0])[0], h0[0])
    np.testing.assert_array_equal(fl.Last(layer)(x[:0])[0], np.zeros((2, 5)))


def test_stream_of_a_last():
    model = fl.Sequential(fl.Embedding(9, 3, rng=0), fl.Last(fl.LSTM(3, 5, rng=1)), fl.Linear(5, 2, rng=2))
    x = np.random.default_rng(0).integers(0, 9, (6, 2))
    stream = model.stream(2)
    for t in range(len(x)):
        np.testing.assert_allclose(stream.step(x[t]), model(x[: t + 1])[0], rtol=1e-6)


@each_model
def test_copies_files_and_pickles(name, tmp_path):
    model = MODELS[name]()
    model.metadata["note"] = "é"
    model.set_num_threads(1)
    x = np.random.default_rng(0).normal(size=(5, 2, 3))
    y = model(x)[0]
    model.save(tmp_path / "a")
    others = [copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model)), fl.load(tmp_path / "a")]
    for other in others:
        assert repr(other) == repr(model) and other.metadata == model.metadata
        np.testing.assert_array_equal(other(x)[0], y)
        other._update(lambda weights: [w.fill(0) for w in weights.values()])
    np.testing.assert_array_equal(model(x)[0], y)
    assert type(model).from_config(model.config()).config() == model.config()
    assert model.plan(3, 2)
    assert not model.eval().training and all(not part.training for part in model._parts.values())


def test_an_optimiser_reaches_the_weights():
    model = MODELS["concat"]()
    x = np.random.default_rng(0).normal(size=(5, 2, 3))
    y, _, cache = model.forward(x, cache=True)
    before = float((y * y).sum())
    adam = fl.optim.Adam(model, lr=1e-2)
    adam.step(model.backward(2 * y, cache)[2])
    assert float((model(x)[0] ** 2).sum()) < before


LSTM, PAIR = fl.LSTM(3, 4), (fl.LSTM(3, 4), fl.GRU(3, 4))
REFUSED = {
    "no layer": (lambda: fl.Reverse(fl.Linear(3, 4)), TypeError, "layer must be a recurrent layer .* got Linear"),
    "two directions": (lambda: fl.Reverse(fl.LSTM(3, 4, bidirectional=True)), ValueError, "layer is bidirectional"),
    "in_time": (lambda: fl.Reverse(LSTM, 1), TypeError, "in_time must be True or False"),
    "not two": (lambda: fl.Bidirectional(LSTM, fl.Linear(3, 4)), TypeError, "backward_layer must be a recurrent"),
    "the same": (lambda: fl.Bidirectional(LSTM, LSTM), ValueError, "backward_layer is forward_layer"),
    "input_size": (lambda: fl.Bidirectional(LSTM, fl.LSTM(2, 4)), ValueError, "input_size 2, forward_layer 3"),
    "dtype": (lambda: fl.Bidirectional(LSTM, fl.LSTM(3, 4, **F8)), ValueError, "dtype float64, forward_layer float32"),
    "layout": (lambda: fl.Bidirectional(LSTM, fl.LSTM(3, 4, batch_first=True)), ValueError, "batch_first True"),
    "widths": (lambda: fl.Bidirectional(LSTM, fl.LSTM(3, 5), "sum"), ValueError, "'sum' needs .* got 4 and 5"),
    "merge": (lambda: fl.Bidirectional(*PAIR, "max"), ValueError, "merge must be one of 'concat', .* got 'max'"),
    "last of none": (lambda: fl.Last(fl.Embedding(3, 4)), TypeError, "layer must be a recurrent layer, Reverse or"),
    "last of a pair": (lambda: fl.Last(fl.Bidirectional(*PAIR, None)), ValueError, "merge=None and gives a pair"),
    "after a last": (lambda: fl.Sequential(fl.Last(LSTM), fl.LSTM(4, 4)), ValueError, "member 1 takes sequences"),
    "after a nested last": (
        lambda: fl.Sequential(fl.Sequential(fl.Last(LSTM)), fl.Linear(4, 4), fl.GRU(4, 4)), ValueError,
        "member 2 takes sequences, member 0 gives one output",
    ),
    "after a pair": (
        lambda: fl.Sequential(fl.Bidirectional(fl.LSTM(3, 4), fl.GRU(3, 4), None), fl.Linear(4, 2)), ValueError,
        "member 1 takes an array, member 0 gives a pair",
    ),
    "layouts": (
        lambda: fl.Sequential(fl.LSTM(3, 4, batch_first=True), fl.Linear(4, 4), fl.Sequential(fl.LSTM(4, 4))),
        ValueError, "member 2 has batch_first=False, member 0 True",
    ),
    "width of a last": (lambda: fl.Sequential(fl.Last(LSTM), fl.Linear(5, 4)), ValueError, "takes 5 features"),
    "width of a pair": (
        lambda: fl.Sequential(fl.Bidirectional(*PAIR), fl.Linear(5, 4)), ValueError, "member 1 takes 5 .* gives 8",
    ),
    "stream": (lambda: fl.Reverse(LSTM).stream(), ValueError, "a Reverse cannot stream"),
    "stream of two": (lambda: fl.Last(fl.Bidirectional(*PAIR)).stream(), ValueError, "a Bidirectional cannot stream"),
    "state": (lambda: fl.Bidirectional(*PAIR)(np.zeros((2, 1, 3)), 3), TypeError, "state must be None or a pair"),
    "x": (lambda: fl.Reverse(LSTM)(np.zeros((2, 1, 4))), ValueError, "x has shape"),
    "lengths": (lambda: fl.Reverse(LSTM)(np.zeros((2, 1, 3)), lengths=[3]), ValueError, r"lengths\[0\] is 3"),
    "cache": (lambda: fl.Reverse(LSTM).backward(0, 0), TypeError, "cache must come from"),
    "cache of two": (lambda: fl.Bidirectional(*PAIR).backward(0, 0), TypeError, "cache must come from"),
    "cache of a last": (lambda: fl.Last(LSTM).backward(0, 0), TypeError, "cache must come from"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    make, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words):
        make()


@pytest.mark.parametrize("name, shape", [("reverse", (4, 2, 5)), ("concat", (4, 2, 5)), ("last", (2, 5))])
def test_dy_of_another_shape(name, shape):
    model = MODELS[name]()
    cache = model.forward(np.zeros((4, 2, 3)), cache=True)[-1]
    with pytest.raises(ValueError, match="dy has shape"):
        model.backward(np.zeros(shape), cache)
