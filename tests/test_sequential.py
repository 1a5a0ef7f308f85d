"""Sequential: gradients, torch's numbers, states, streams, refusals."""

import numpy as np
import pytest
from differences import check_gradients, leaves
from leaky import Leaky

import fastlstm as fl


def chain(kind="one"):
    f8 = dict(dtype="float64")
    return {
        "none": lambda: fl.Sequential(fl.Linear(3, 4, rng=0, **f8), fl.Linear(4, 2, rng=1, **f8)),
        "one": lambda: fl.Sequential(Leaky(3, 4, rng=0), fl.Linear(4, 2, activation="tanh", rng=1, **f8)),
        "two": lambda: fl.Sequential(
            Leaky(3, 4, rng=0), fl.Linear(4, 5, activation="tanh", rng=1, **f8), Leaky(5, 2, rng=2)
        ),
        "nested": lambda: fl.Sequential(
            Leaky(3, 4, rng=0), fl.Sequential(fl.Linear(4, 5, rng=1, **f8), Leaky(5, 3, rng=2), Leaky(3, 2, rng=3)),
            fl.Linear(2, 2, activation="sigmoid", rng=4, **f8),
        ),
    }[kind]()


STATE_SHAPES = {"none": None, "one": (2, 4), "two": ((2, 4), (2, 2)), "nested": ((2, 4), ((2, 3), (2, 2)))}


def a_state(kind):
    rng = np.random.default_rng(6)

    def draw(shape):
        return tuple(map(draw, shape)) if isinstance(shape[0], tuple) else rng.normal(size=shape)

    return draw(STATE_SHAPES[kind]) if STATE_SHAPES[kind] else None


each_kind = pytest.mark.parametrize("kind", STATE_SHAPES)


@each_kind
@pytest.mark.parametrize("T", [1, 4])
@pytest.mark.parametrize("ragged", [False, True])
def test_chain_gradients(kind, T, ragged):
    options = {}
    if ragged:
        options = {"lengths": [T, T // 2], "reset": np.arange(2 * T).reshape(T, 2) % 3 == 2}
    x = np.random.default_rng(5).normal(size=(T, 2, 3))
    check_gradients(chain(kind), x, a_state(kind), **options)


@each_kind
def test_chain_is_its_members_in_order(kind):
    model = chain(kind)
    x, state = np.random.default_rng(5).normal(size=(4, 2, 3)), a_state(kind)
    y, final, trace = model.forward(x, state, trace=True)
    expected, finals, traces = x, [], []
    given = iter([] if state is None else [state] if kind == "one" else state)
    for member in model:
        if member.recurrent:
            expected, own, kept = member.forward(expected, next(given), trace=True)
            finals.append(own)
            traces.append(kept)
        else:
            expected = member(expected)
    np.testing.assert_array_equal(y, expected)
    assert [leaf.shape for leaf in leaves(final)] == [leaf.shape for leaf in leaves(state)]
    for found, wanted in ((final, finals), (trace, traces)):
        wanted = None if not wanted else wanted[0] if kind == "one" else tuple(wanted)
        assert repr(found) == repr(wanted)
    for other in (model(x, state), model.forward(x, state, cache=True)[:2]):
        np.testing.assert_array_equal(other[0] if model.recurrent or isinstance(other, tuple) else other, y)


@each_kind
def test_stream_equals_one_call(kind):
    model = chain(kind)
    x, state = np.random.default_rng(5).normal(size=(9, 2, 3)), a_state(kind)
    y, final = model.forward(x, state)
    for cuts in ([9], [4, 5], [1] * 9, [2, 0, 7]):
        stream, parts, at = model.stream(2), [], 0
        stream.state = state
        for n in cuts:
            parts.append(stream.process(x[at:at + n]))
            at += n
        np.testing.assert_array_equal(np.concatenate(parts), y)
        for a, b in zip(leaves(stream.state), leaves(final)):
            np.testing.assert_array_equal(a, b)
    stream.state = state
    out = np.empty((2, 2))
    for t in range(9):
        if t % 2:
            np.testing.assert_array_equal(stream.step(x[t]), y[t])
        else:
            assert stream.step(x[t], out=out) is out
            np.testing.assert_array_equal(out, y[t])


@each_kind
def test_stream_results_are_not_overwritten(kind):
    model = chain(kind)
    stream = model.stream(2)
    first = stream.step(np.ones((2, 3)))
    kept = first.copy()
    stream.step(np.ones((2, 3)))
    np.testing.assert_array_equal(first, kept)


@each_kind
def test_stream_reset(kind):
    model, x = chain(kind), np.random.default_rng(5).normal(size=(6, 2, 3))
    stream = model.stream(2)
    stream.process(x[:3])
    stream.reset(np.array([False, True]))
    y, _ = model.forward(x, reset=np.array([[0, 0]] * 3 + [[0, 1]] + [[0, 0]] * 2, bool))
    np.testing.assert_array_equal(stream.process(x[3:]), y[3:])
    stream.reset()
    np.testing.assert_array_equal(stream.process(x), model.forward(x)[0])


@each_kind
def test_bad_out_moves_no_state(kind):
    stream = chain(kind).stream(2)
    stream.step(np.ones((2, 3)))
    before = [leaf.copy() for leaf in leaves(stream.state)]
    frozen = np.empty((2, 2))
    frozen.flags.writeable = False
    for out, error in ((np.empty((2, 3)), ValueError), (np.empty((2, 2), "f4"), ValueError),
                       (np.empty((2, 2), order="F"), ValueError), (frozen, ValueError), ([[0, 0]] * 2, TypeError)):
        with pytest.raises(error, match="out"):
            stream.step(np.ones((2, 3)), out=out)
    for a, b in zip(leaves(stream.state), before):
        np.testing.assert_array_equal(a, b)


@each_kind
def test_one_row_without_its_axis(kind):
    model, x = chain(kind), np.random.default_rng(5).normal(size=(4, 1, 3))
    y, stream = model.forward(x)[0], model.stream(1)
    np.testing.assert_array_equal(stream.process(x[:2, 0]), y[:2, 0])
    np.testing.assert_array_equal(stream.step(x[2, 0]), y[2, 0])
    out = np.empty(2)
    assert stream.step(x[3, 0], out=out) is out
    np.testing.assert_array_equal(out, y[3, 0])


@pytest.mark.parametrize("make, x", [
    (lambda: chain("none"), np.ones((3, 2, 3))), (lambda: fl.Embedding(9, 3, rng=0), np.array([[1, 8]] * 3)),
    (lambda: language_model(), np.array([[1, 6]] * 3)),
])
def test_streams_keep_the_weights_they_were_opened_with(make, x):
    """Also in a chain: never old ones in one member and new ones in the next."""
    model = make()
    y, stream = model.forward(x)[0], model.stream(2)
    model._update(lambda weights: [w.fill(0) for w in weights.values()])
    np.testing.assert_array_equal(stream.process(x), y)
    stream.reset()
    np.testing.assert_array_equal(stream.step(x[0]), y[0])
    assert not model.stream(2).step(x[0]).any()


@each_kind
def test_without_the_input_gradient(kind):
    model, x = chain(kind), np.random.default_rng(5).normal(size=(4, 2, 3))
    y, _, cache = model.forward(x, cache=True)
    full, short = model.backward(y, cache), model.backward(y, cache, input_gradient=False)
    assert full[0].shape == x.shape and short[0] is None
    assert all(np.array_equal(g, short[2][name]) for name, g in full[2].items())


def test_bad_state_is_refused_whole():
    model = chain("two")
    stream = model.stream(2)
    stream.step(np.ones((2, 3)))
    before = leaves(stream.state)
    for wrong in ((np.zeros((2, 4)), np.zeros((2, 9))), (np.zeros((2, 4)),), np.zeros((2, 4))):
        with pytest.raises(ValueError, match="state"):
            stream.state = wrong
        for a, b in zip(leaves(stream.state), before):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="state must be None or a tuple of 2"):
        model.forward(np.zeros((1, 2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="dstate must be None or a tuple of 2"):
        model.backward(np.zeros((1, 2, 2)), model.forward(np.zeros((1, 2, 3)), cache=True)[2], np.zeros((2, 4)))
    with pytest.raises(ValueError, match="tuple of 0"):
        chain("none")(np.zeros((1, 2, 3)), np.zeros(3))
    with pytest.raises(ValueError, match="no state"):
        fl.Linear(3, 2).stream().state = 1


def test_names_and_container():
    model = chain("nested")
    assert list(model.state_dict()) == [
        "0.weight", "1.0.weight", "1.0.bias", "1.1.weight", "1.2.weight", "2.weight", "2.bias"]
    assert len(model) == 3 and model[-1] is list(model)[2] and model[1][1].in_features == 5
    model.set_num_threads(2)
    model.eval()
    assert model[1][0].num_threads == 2 and not model[1][0].training
    assert list(model.plan(3, 2)) == ["0", "1", "2"]


def test_eleven_members():
    """"1." is a prefix of nothing but member 1, also beside "10."."""
    model = fl.Sequential(*(fl.Linear(2, 2, rng=n) for n in range(11)))
    d = {name: w * 2 for name, w in model.state_dict().items()}
    model.load_state_dict(d)
    assert all(np.array_equal(w, d[name]) for name, w in model.state_dict().items())


def test_members_see_new_weights():
    model = chain("one")
    x = np.ones((2, 1, 3))
    model(x)
    member = model[1]
    model.load_state_dict({name: np.zeros_like(w) for name, w in model.state_dict().items()})
    assert not model(x)[0].any() and not member(np.ones(4)).any()
    member.load_state_dict({"weight": np.zeros((2, 4)), "bias": np.ones(2)})
    np.testing.assert_allclose(model(x)[0], np.full((2, 1, 2), np.tanh(1.0)), rtol=1e-15)


@pytest.mark.parametrize("make, error, words", [
    (lambda: fl.Sequential(), ValueError, "at least one"),
    (lambda: fl.Sequential(fl.Linear(3, 2), len), TypeError, "member 1 must be a Module"),
    (lambda: fl.Sequential(*[fl.Linear(3, 3)] * 2), ValueError, "member 1 is in the chain twice"),
    (lambda: fl.Sequential(fl.Linear(3, 3), fl.Linear(3, 3, dtype="float64")), ValueError, "member 1 is float64"),
    (lambda: fl.Sequential(fl.Embedding(9, 4), fl.Linear(3, 2)), ValueError, "member 1 takes 3 .* member 0 gives 4"),
    (lambda: fl.Sequential(fl.LSTM(3, 4, bidirectional=True), fl.Linear(4, 2)), ValueError, "takes 4 .* 0 gives 8"),
    (lambda: fl.Sequential(fl.Sequential(fl.LSTM(3, 4, proj_size=2)), fl.Linear(4, 2)), ValueError, "gives 2"),
])
def test_sequential_refuses(make, error, words):
    with pytest.raises(error, match=words):
        make()


# ---- with the real layer -----------------------------------------------------------------


def language_model(dtype="float64", **kw):
    return fl.Sequential(
        fl.Embedding(7, 3, rng=0, dtype=dtype), fl.LSTM(3, 4, rng=1, dtype=dtype, **kw),
        fl.Linear(4 * (1 + kw.get("bidirectional", False)), 7, rng=2, dtype=dtype),
    )


@pytest.mark.parametrize("options", [{}, {"lengths": [5, 2, 0]}, {"reset": np.arange(15).reshape(5, 3) % 4 == 3}])
@pytest.mark.parametrize("kw", [{}, {"num_layers": 2}, {"bidirectional": True}])
def test_lstm_chain_gradients(kw, options):
    x = np.random.default_rng(3).integers(0, 7, (5, 3))
    layers = kw.get("num_layers", 1) * (1 + kw.get("bidirectional", False))
    state = tuple(np.random.default_rng(4).normal(size=(2, layers, 3, 4)))
    check_gradients(language_model(**kw), x, state, **options)


def test_lstm_chain_against_torch():
    torch = pytest.importorskip("torch")
    parts = torch.nn.Embedding(7, 3), torch.nn.LSTM(3, 4), torch.nn.Linear(4, 7)
    ours = language_model("float32")
    ours.load_state_dict({f"{n}.{k}": v for n, part in enumerate(parts) for k, v in part.state_dict().items()})
    x = torch.randint(0, 7, (6, 2), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        hidden, (hn, cn) = parts[1](parts[0](x))
        y = parts[2](hidden)
    result, (h, c) = ours(x)
    for a, b in ((result, y), (h, hn), (c, cn)):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lstm_chain_streams(dtype):
    model = language_model(dtype)
    x = np.random.default_rng(3).integers(0, 7, (8, 2))
    y, state = model(x)
    stream, out = model.stream(2), np.empty((2, 7), dtype)
    for t in range(4):
        np.testing.assert_array_equal(stream.step(x[t]), y[t])
    for t in range(4, 6):
        np.testing.assert_array_equal(stream.step(x[t], out=out), y[t])
    np.testing.assert_array_equal(stream.process(x[6:]), y[6:])
    for a, b in zip(leaves(tuple(stream.state)), leaves(tuple(state))):
        np.testing.assert_array_equal(a, b)


def test_lstm_chain_beyond_the_lengths():
    model = language_model()
    x = np.random.default_rng(3).integers(0, 7, (5, 3))
    y, _ = model(x, lengths=[5, 2, 0])
    assert not y[2:, 1].any() and not y[:, 2].any()
    np.testing.assert_array_equal(y[:2, 1:2], model(x[:2, 1:2])[0])
