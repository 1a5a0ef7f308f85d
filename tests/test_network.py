"""Embedding, Linear, Sequential: gradients, torch's numbers, states, streams, refusals."""

import numpy as np
import pytest

import fastlstm as fl
from fastlstm.module import Module


class Leaky(Module):
    """h[t] = h[t-1] / 2 + x[t] @ weight: the least a recurrent member can be. State h (B, O)."""

    recurrent = True

    def __init__(self, in_features, out_features, *, dtype="float64", rng=None):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        weight = np.random.default_rng(rng).normal(size=(in_features, out_features))
        self._weights = {"weight": weight.astype(dtype)}

    def config(self):
        return {"in_features": self.in_features, "out_features": self.out_features}

    def forward(self, x, state=None, *, lengths=None, reset=None, trace=False, cache=False):
        T, B = x.shape[:2]
        h = np.zeros((B, self.out_features), x.dtype) if state is None else np.array(state)
        y = np.zeros((T, B, self.out_features), x.dtype)
        for t in range(T):
            if reset is not None:
                h[np.asarray(reset)[t]] = 0
            live = np.ones(B, bool) if lengths is None else t < np.asarray(lengths)
            h[live] = h[live] / 2 + x[t, live] @ self._weights["weight"]
            y[t, live] = h[live]
        return (y, h) + (("trace", y.copy()),) * trace + ((x, lengths, reset),) * cache

    def backward(self, dy, cache, dstate=None, *, input_gradient=True):
        x, lengths, reset = cache
        dh = np.zeros(dy.shape[1:]) if dstate is None else np.array(dstate)
        dx, dw = np.zeros_like(x), np.zeros_like(self._weights["weight"])
        for t in reversed(range(len(x))):
            live = np.ones(dy.shape[1], bool) if lengths is None else t < np.asarray(lengths)
            dh[live] += dy[t, live]
            dx[t, live] = dh[live] @ self._weights["weight"].T
            dw += x[t, live].T @ dh[live]
            dh[live] /= 2
            if reset is not None:
                dh[np.asarray(reset)[t]] = 0
        return dx if input_gradient else None, dh, {"weight": dw}

    def stream(self, batch_size=1):
        return LeakyStream(self, batch_size)


class LeakyStream:
    def __init__(self, module, batch_size):
        self.module, self.state = module, np.zeros((batch_size, module.out_features))

    def step(self, x_t, out=None):
        y = self.process(x_t[None])[0]
        if out is None:
            return y
        out[...] = y
        return out

    def process(self, block):
        y, self._state = self.module.forward(block, self._state)
        return y

    def reset(self, mask=None):
        self._state[... if mask is None else mask] = 0

    @property
    def state(self):
        return self._state.copy()

    @state.setter
    def state(self, value):
        if np.shape(value) != np.shape(getattr(self, "_state", value)):
            raise ValueError("state has the wrong shape")
        self._state = np.array(value)


def central_difference(f, x, h=1e-3):
    gradient = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        kept, values = x[at], []
        for k in (-2, -1, 1, 2):
            x[at] = kept + k * h
            values.append(f())
        x[at] = kept
        gradient[at] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
    return gradient


def check_gradients(model, x, state=None, **options):
    """Every weight, the input and the initial state against finite differences of <y, dy> + <hn, dh>."""
    rng = np.random.default_rng(9)
    y, final, cache = model.forward(x, state, cache=True, **options)
    dy = rng.normal(size=y.shape)
    dfinal = tree(lambda s: rng.normal(size=s.shape), final)
    dx, dstate, grads = model.backward(dy, cache, dfinal)

    def objective():
        y, final = model.forward(x, state, **options)
        pairs = zip(leaves(final), leaves(dfinal))
        return float((y * dy).sum() + sum((s * d).sum() for s, d in pairs))

    close = dict(rtol=1e-7, atol=1e-9)
    for name, values in model.state_dict().items():
        def moved(name=name, values=values):
            model._update({name: values})
            return objective()
        np.testing.assert_allclose(grads[name], central_difference(moved, values), err_msg=name, **close)
        model._update({name: values})
    if dx is not None:
        np.testing.assert_allclose(dx, central_difference(objective, x), err_msg="dx", **close)
    for given, found in zip(leaves(state), leaves(dstate)):
        np.testing.assert_allclose(found, central_difference(objective, given), err_msg="dstate", **close)
    return dstate


def tree(f, value):
    if value is None or isinstance(value, np.ndarray):
        return None if value is None else f(value)
    return tuple(tree(f, part) for part in value)


def leaves(value):
    if value is None or isinstance(value, np.ndarray):
        return [] if value is None else [value]
    return [leaf for part in value for leaf in leaves(part)]


# ---- Linear ------------------------------------------------------------------------------

ACTIVATIONS = [None, "relu", "tanh", "sigmoid", "softmax"]


@pytest.mark.parametrize("shape", [(1, 1), (4, 2), (5,), (), (2, 1, 3)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_linear_gradients(activation, bias, shape):
    model = fl.Linear(3, 4, bias, activation, dtype="float64", rng=1)
    check_gradients(model, np.random.default_rng(2).normal(size=(*shape, 3)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype, rtol", [("float32", 2e-6), ("float64", 1e-13)])
def test_linear_against_torch(activation, dtype, rtol):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Linear(7, 5, dtype=getattr(torch, dtype))
    ours = fl.Linear(7, 5, activation=activation, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(6, 3, 7, dtype=getattr(torch, dtype), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = theirs(x)
        y = {None: lambda z: z, "softmax": lambda z: z.softmax(-1)}.get(
            activation, lambda z: getattr(torch, activation)(z))(z)
    result = ours(x)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, y.numpy(), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_of_linear_never_depends_on_its_neighbours(dtype):
    rng = np.random.default_rng(0)
    model = fl.Linear(37, 29, activation="tanh", dtype=dtype, rng=0)
    x = rng.normal(size=(65, 37)).astype(dtype)
    whole = model(x)
    for rows in (slice(0, 1), slice(3, 4), slice(10, 27), slice(64, 65)):
        np.testing.assert_array_equal(model(x[rows]), whole[rows])
    model.set_num_threads(2)
    np.testing.assert_array_equal(model(x), whole)


def test_linear_takes_any_array_like():
    model = fl.Linear(3, 2, rng=0)
    x = np.arange(12.0).reshape(4, 3)
    y = model(x.astype("f4"))
    for other in (x, x.tolist(), x.astype(int), x.astype("f2"), np.asfortranarray(x), np.repeat(x, 2, 0)[::2]):
        np.testing.assert_array_equal(model(other), y)
    x.flags.writeable = False
    np.testing.assert_array_equal(model(x), y)
    assert model(np.zeros((0, 3))).shape == (0, 2) and model(np.zeros((2, 0, 3))).shape == (2, 0, 2)


def test_linear_defaults():
    model = fl.Linear(100, 50, rng=0)
    for weight in model.state_dict().values():
        assert weight.dtype == np.float32 and np.abs(weight).max() <= 0.1 and np.abs(weight).max() > 0.09
    assert np.array_equal(fl.Linear(3, 2, rng=5)([1, 2, 3]), fl.Linear(3, 2, rng=np.random.default_rng(5))([1, 2, 3]))
    assert fl.Linear(3, 2, activation="none").config()["activation"] is None
    wide, narrow = (fl.Linear(3, 2, rng=5, dtype=d).state_dict()["weight"] for d in ("float64", "float32"))
    np.testing.assert_array_equal(wide.astype("f4"), narrow)


@pytest.mark.parametrize("make, error, words", [
    (lambda: fl.Linear(0, 2), ValueError, "in_features must be at least 1, got 0"),
    (lambda: fl.Linear(3, 2.0), TypeError, "out_features must be an integer"),
    (lambda: fl.Linear(3, 2, activation="gelu"), ValueError, "activation must be one of none, relu"),
    (lambda: fl.Linear(3, 2, activation=["relu"]), ValueError, "activation must be one of"),
    (lambda: fl.Linear(3, 2, dtype="float16"), ValueError, "dtype must be float32 or float64"),
    (lambda: fl.Linear(3, 2)(np.zeros((4, 2))), ValueError, r"x has shape \(4, 2\), expected .*in_features 3"),
    (lambda: fl.Linear(3, 2)(1.0), ValueError, "x has shape"),
    (lambda: fl.Linear(3, 2)(np.zeros(3, complex)), TypeError, "x must hold real numbers"),
    (lambda: fl.Linear(3, 2)(np.zeros(3), state=np.zeros(3)), ValueError, "has no state"),
    (lambda: fl.Linear(3, 2)(np.zeros(3), trace=True), ValueError, "no gates"),
])
def test_linear_refuses(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_linear_backward_refuses():
    model = fl.Linear(3, 2)
    y, _, cache = model.forward(np.zeros((4, 3)), cache=True)
    with pytest.raises(ValueError, match=r"dy has shape \(2, 4\), expected \(4, 2\)"):
        model.backward(y.T, cache)
    model._update({"bias": np.ones(2)})
    with pytest.raises(RuntimeError, match="changed between forward and backward"):
        model.backward(y, cache)


# ---- Embedding ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1,), (5,), (4, 3), ()])
def test_embedding(shape):
    model = fl.Embedding(6, 3, dtype="float64", rng=0)
    x = np.random.default_rng(1).integers(0, 3, shape)  # 3..5 never used, 0..2 often
    table = model.state_dict()["weight"]
    np.testing.assert_array_equal(model(x), table[x])
    check_gradients(model, x)


def test_embedding_against_torch():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Embedding(6, 3)
    ours = fl.Embedding(6, 3)
    ours.load_state_dict(theirs.state_dict())
    x = torch.tensor([[0, 5, 5], [1, 0, 5]])
    y, _, cache = ours.forward(x, cache=True)
    z = theirs(x)
    np.testing.assert_array_equal(y, z.detach().numpy())
    (z * z).sum().backward()
    np.testing.assert_allclose(ours.backward(2 * y, cache)[2]["weight"], theirs.weight.grad.numpy(), rtol=1e-6)


def test_embedding_integers():
    model = fl.Embedding(200, 2, rng=0)
    x = [[0, 199], [7, 7]]
    for dtype in (None, "u1", "i8", "i4", "u8", ">i4"):
        np.testing.assert_array_equal(model(np.array(x, dtype)), model(x))
    assert model([]).shape == (0, 2) and model(np.zeros((0, 4), int)).shape == (0, 4, 2)
    x = np.array(x)
    y, _, cache = model.forward(x, cache=True)
    x[...] = 1  # the cache must not follow the caller's array
    assert np.flatnonzero(model.backward(np.ones_like(y), cache)[2]["weight"][:, 0]).tolist() == [0, 7, 199]


def test_embedding_adds_up_the_same_every_time():
    model, rng = fl.Embedding(3, 8, rng=0), np.random.default_rng(0)
    x = rng.integers(0, 3, (500, 4))
    dy = rng.normal(size=(500, 4, 8)).astype("f4")
    results = {model.backward(dy, model.forward(x, cache=True)[2])[2]["weight"].tobytes() for _ in range(5)}
    assert len(results) == 1


@pytest.mark.parametrize("x, error, words", [
    ([[0, 1], [6, 7]], IndexError, r"x\[1, 0\] is 6, expected 0 <= x < num_embeddings 6"),
    ([0, -1], IndexError, r"x\[1\] is -1"),
    (6, IndexError, r"x\[\] is 6"),
    ([0.0], TypeError, "x must hold integers, got float64"),
    ([True], TypeError, "x must hold integers"),
])
def test_embedding_refuses(x, error, words):
    with pytest.raises(error, match=words):
        fl.Embedding(6, 3)(x)


# ---- Sequential --------------------------------------------------------------------------


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
    (lambda: fl.Linear(3, 2).stream(0), ValueError, "batch_size"),
    (lambda: fl.Linear(3, 2).stream(2).step(np.zeros((3, 3))), ValueError, r"expected \(B, I\) with batch_size B = 2"),
    (lambda: fl.Embedding(3, 2).stream(2).process([0, 1]), ValueError, r"expected \(T, B\) with batch_size B = 2"),
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
    np.testing.assert_array_equal(y[2:, 1], np.broadcast_to(model[2].state_dict()["bias"], (3, 7)))
    np.testing.assert_array_equal(y[:2, 1:2], model(x[:2, 1:2])[0])
