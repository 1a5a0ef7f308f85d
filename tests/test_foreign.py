"""Arrays of others: masks and missing values are refused by name wherever arrays come in; dtype=None; pandas."""

import warnings

import numpy as np
import pytest

import fastlstm as fl
from fastlstm import losses, optim
from fastlstm.commands.feed import Feed
from fastlstm.commands.inputs import opened
from fastlstm.commands.parser import UsageError

T, B, I, H = 4, 2, 3, 3
LSTM, LINEAR, EMBEDDING = fl.LSTM(I, H, rng=0), fl.Linear(I, H, rng=0), fl.Embedding(9, H, rng=0)
CHAIN = fl.Sequential(fl.Linear(I, I, rng=0), fl.LSTM(I, H, rng=1))
RAGGED = fl.LSTM(I, [2, 3], rng=0)
X, Y = np.ones((T, B, I), np.float32), np.ones((T, B, H), np.float32)
STATE = np.ones((1, B, H), np.float32)


def masked(a, every=True):
    """A masked array of the same numbers; every: one element is masked, else none."""
    mask = np.zeros(np.shape(a), bool)
    if every:
        mask.flat[-1] = True
    return np.ma.array(a, mask=mask)


class Hidden:
    """What gives a masked array when it is asked for one, as variables of netCDF4 do."""

    def __init__(self, array):
        self.array, self.shape, self.ndim, self.dtype = array, array.shape, array.ndim, array.dtype

    def __array__(self, dtype=None, copy=None):
        return self.array


def _cache(model, x=X):
    return model.forward(x, cache=True)[-1]


# name of the argument -> (what it is fit for, a call that takes it)
TAKERS = {
    "x": (X, LSTM), "x of forward": (X, lambda a: LSTM.forward(a, cache=True)),
    "x of a linear": (X, LINEAR), "x of an embedding": (np.ones((T, B), int), EMBEDDING), "x of a chain": (X, CHAIN),
    "x of a chain, lengths": (X, lambda a: CHAIN(a, lengths=[1, 2])),
    "x of reverse": (X, fl.Reverse(fl.GRU(I, H))), "x of last": (X, fl.Last(fl.GRU(I, H))),
    "x of ragged layers": (X, RAGGED),
    "h0": (STATE, lambda a: LSTM(X, (a, STATE))), "c0": (STATE, lambda a: LSTM(X, (STATE, a))),
    "h0 of a GRU": (STATE, lambda a: fl.GRU(I, H)(X, a)),
    "lengths": (np.ones(B, int), lambda a: LSTM(X, lengths=a)),
    "lengths of a linear": (np.ones(B, int), lambda a: LINEAR(X, lengths=a)),
    "reset": (np.zeros((T, B), bool), lambda a: LSTM(X, reset=a)),
    "masks": (np.ones((B, I)), lambda a: LSTM.forward(X, cache=True, masks={"mask_x_l0": a})),
    "dy": (Y, lambda a: LSTM.backward(a, _cache(LSTM))),
    "dhn": (STATE, lambda a: LSTM.backward(Y, _cache(LSTM), (a, None))),
    "dy of a linear": (Y, lambda a: LINEAR.backward(a, _cache(LINEAR))),
    "dy of an embedding": (Y, lambda a: EMBEDDING.backward(a, _cache(EMBEDDING, np.ones((T, B), int)))),
    "dy of both": (np.ones((T, B, 2 * H)), lambda a: _both().backward(a, _cache(_both()))),
    "step": (X[0], lambda a: LSTM.stream(B).step(a)), "process": (X, lambda a: LSTM.stream(B).process(a)),
    "step of a linear": (X[0], lambda a: LINEAR.stream(B).step(a)),
    "step of a chain": (X[0], lambda a: CHAIN.stream(B).step(a)),
    "step of ragged layers": (X[0], lambda a: RAGGED.stream(B).step(a)),
    "state of a stream": (STATE, lambda a: setattr(LSTM.stream(B), "state", (a, STATE))),
    "weights": (np.ones((H, I)), lambda a: fl.Linear(I, H, bias=False).load_state_dict({"weight": a})),
    "weights of torch": (np.ones((4 * H, I)), lambda a: fl.from_torch(
        {"weight_ih_l0": a, "weight_hh_l0": np.ones((4 * H, H))})),
    "logits": (Y, lambda a: losses.cross_entropy(a, np.zeros((T, B), int))),
    "target": (np.zeros((T, B), int), lambda a: losses.cross_entropy(Y, a)),
    "lengths of a loss": (np.ones(B, int), lambda a: losses.mse(Y, Y, a)),
    "mask": (np.ones((T, B)), lambda a: losses.mse(Y, Y, mask=a)),
    "weight": (np.ones(H), lambda a: losses.cross_entropy(Y, np.zeros((T, B), int), weight=a)),
    "y of mse": (Y, lambda a: losses.mse(a, Y)), "target of mse": (Y, lambda a: losses.mse(Y, a)),
    "grads": (np.ones((H, I)), lambda a: optim.SGD(fl.Linear(I, H, bias=False), 0.1).step({"weight": a})),
    "grads to clip": (np.ones((H, I)), lambda a: fl.clip_grad_norm({"weight": a}, 1.0)),
    "momentum": (np.ones((H, I)), lambda a: _load_momentum(a)),
}


def _both():
    return fl.Bidirectional(fl.LSTM(I, H, rng=0), fl.GRU(I, H, rng=1))


def _load_momentum(a):
    adam = optim.Adam(fl.Linear(I, H, bias=False))
    state = {"weight": {"step": 1, "exp_avg": a, "exp_avg_sq": np.abs(a)}}
    adam.load_state_dict({**adam.state_dict(), "state": state})


@pytest.mark.parametrize("name", TAKERS)
def test_masked_arrays(name):
    fit, call = TAKERS[name]
    call(fit)
    with pytest.raises((TypeError, ValueError), match="it is a masked array and 1 of .* elements are masked") as found:
        call(masked(fit))
    given = name.partition(" ")[0]
    assert given in ("step", "process", "momentum", "state") or given.rstrip("s") in str(found.value)
    if name != "grads to clip":  # which are written to
        with pytest.raises((TypeError, ValueError), match="it is a masked array"):
            call(Hidden(masked(fit)))
        with pytest.raises((TypeError, ValueError), match="it is a masked array|shape ..,"):
            call([masked(one) for one in fit])
    a, b = call(masked(fit, every=False)), call(fit)
    if isinstance(b, np.ndarray):
        np.testing.assert_array_equal(a, b)
        assert type(a) is np.ndarray


@pytest.mark.parametrize("stream", [
    lambda: LSTM.stream(B), lambda: CHAIN.stream(B), lambda: LINEAR.stream(B), lambda: RAGGED.stream(B),
])
def test_out_is_no_masked_array(stream, tmp_path):
    one, two, out = stream(), stream(), np.zeros((B, H), np.float32)
    with pytest.raises((TypeError, ValueError), match="out must be .*MaskedArray|out must be .*float32"):
        one.step(X[0], out=masked(out, every=False))
    mapped = np.memmap(tmp_path / "out", np.float32, "w+", shape=(B, H))
    assert one.step(X[0], out=mapped) is mapped  # other subclasses are written to as before
    np.testing.assert_array_equal(mapped, two.step(X[0]))
    np.testing.assert_array_equal(one.step(X[1]), two.step(X[1]))


def test_other_subclasses_are_taken(tmp_path):
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=X.shape)
    x[...] = X
    np.testing.assert_array_equal(LSTM(x)[0], LSTM(X)[0])
    np.testing.assert_array_equal(LINEAR(x[0]), LINEAR(X[0]))


def test_pandas():
    pd = pytest.importorskip("pandas")
    whole = pd.DataFrame({"a": pd.array([1, 2, 3, 4], "Int64"), "b": [0.5] * 4, "c": pd.array([1.0] * 4, "Float64")})
    plain = np.array([[1, 0.5, 1], [2, 0.5, 1], [3, 0.5, 1], [4, 0.5, 1]], np.float32)
    np.testing.assert_array_equal(LSTM(whole)[0], LSTM(plain)[0])
    np.testing.assert_array_equal(EMBEDDING(whole["a"]), EMBEDDING([1, 2, 3, 4]))
    missing = whole.astype({"a": "Float64"})
    missing.loc[2, "a"] = pd.NA
    words = "DataFrame of dtype Float64, float64 with 1 missing values; fill them first"
    for model in (LSTM, LINEAR, CHAIN):
        with pytest.raises(ValueError, match=f"^x cannot be read as an array: it is a {words}"):
            model(missing)
    for kind in ("Int64", "Float64", "boolean", "UInt8"):
        column = pd.Series([1, None, 0, 1], dtype=kind)
        for call in (lambda c: losses.mse(c, np.zeros(4)), lambda c: LSTM(X, lengths=c), lambda c: LSTM(c), EMBEDDING,
                     lambda c: LSTM(c.array), lambda c: LINEAR.load_state_dict({"weight": c}, strict=False)):
            with pytest.raises((ValueError, TypeError), match=f"of dtype {kind} with 1 missing values"):
                call(column)
    for column in (pd.Series(["a", "b"], dtype="category"), pd.Series(["a"], dtype="string")):
        with pytest.raises(TypeError, match=f"x must hold real numbers, got .* .Series of dtype {column.dtype}"):
            LINEAR(column)
    assert np.isnan(losses.mse(pd.Series([1.0, None]), np.zeros(2))[0])  # NaN in a plain column is a number


CONSTRUCTORS = {
    "LSTM": lambda **o: fl.LSTM(2, 3, **o), "GRU": lambda **o: fl.GRU(2, 3, **o), "RNN": lambda **o: fl.RNN(2, 3, **o),
    "DepthGatedLSTM": lambda **o: fl.DepthGatedLSTM(2, 3, **o), "ClockworkRNN": lambda **o: fl.ClockworkRNN(2, 4, **o),
    "LSTM1997": lambda **o: fl.LSTM1997(2, 3, **o), "Linear": lambda **o: fl.Linear(2, 3, **o),
    "Embedding": lambda **o: fl.Embedding(2, 3, **o),
}


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_dtype(name):
    make = CONSTRUCTORS[name]
    assert make(dtype=None).dtype == np.float32  # as torch, where None is the default
    assert all(weight.dtype == np.float32 for weight in make(dtype=None).state_dict().values())
    assert make(dtype=float).dtype == np.float64 and make(dtype=None).config()["dtype"] == "float32"
    for dtype, error in (("float16", ValueError), (int, ValueError), (">f4", ValueError), ("f", None), (3, TypeError),
                         ("no", TypeError), ([], ValueError), (object(), TypeError), (np.complex64, ValueError)):
        if error is None:
            assert make(dtype=dtype).dtype == np.float32
        else:
            with pytest.raises(error, match="dtype must be float32 or float64, got"):
                make(dtype=dtype)


FLAGS = {
    **{f"{name} {flag}": (name, flag) for name in list(CONSTRUCTORS)[:6]
       for flag in ("bias", "batch_first", "bidirectional")},
    "Linear bias": ("Linear", "bias"), "GRU reset_after": ("GRU", "reset_after"),
    "LSTM gate_recurrence": ("LSTM", "gate_recurrence"),
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags(name):
    """Everything that is no bool; most of it would count as true."""
    kind, flag = FLAGS[name]
    for value in ("relu", "", 1, 0, None, [True], (), {}, 1.0, np.array(True), object()):
        with pytest.raises(TypeError, match=f"{flag} must be True or False, got {type(value).__name__}"):
            CONSTRUCTORS[kind](**{flag: value})
        description = {"class": kind, "config": {**CONSTRUCTORS[kind]().config(), flag: value}}
        with pytest.raises(TypeError, match=f"{flag} must be True or False"):
            fl.Module.from_description(description)
    CONSTRUCTORS[kind](**{flag: np.bool_(False)})


def test_an_activation_in_the_place_of_a_flag():
    words = '^bias must be True or False, got str; an activation is given by its name: activation="relu"$'
    with pytest.raises(TypeError, match=words):
        fl.Linear(3, 2, "relu")
    with pytest.raises(ValueError, match="activation must be one of .*; got True"):
        fl.Linear(3, 2, True, True)
    with pytest.raises(ValueError, match=r"activation must be one of .*; got \['relu'\]"):
        fl.Linear(3, 2, True, ["relu"])


def test_other_flags():
    model = fl.Sequential(fl.Linear(2, 2))
    for call, name in ((lambda: model.train("no"), "mode"), (lambda: model[0].train(0), "mode"),
                       (lambda: model.load_state_dict({}, strict="no"), "strict"),
                       (lambda: fl.clip_grad_norm({}, 1.0, "no"), "error_if_nonfinite"),
                       (lambda: optim.SGD(model, 0.1, momentum=0.9, nesterov=1), "nesterov"),
                       (lambda: fl.Reverse(fl.GRU(2, 2), 1), "in_time"),
                       (lambda: losses.mse(Y, Y, batch_first=1), "batch_first")):
        with pytest.raises(TypeError, match=f"{name} must be True or False"):
            call()
    assert model.training and model[0].training


# ---- dropout=1.0 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [3, [3, 4]])
def test_dropout_of_everything(hidden):
    model = fl.LSTM(2, hidden, num_layers=2, dropout=1.0, rng=0, dtype="float64")
    x = np.random.default_rng(0).normal(size=(4, 3, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, _, cache = model.forward(x, cache=True)
        dx, _, grads = model.backward(np.ones_like(y), cache)
    silent = fl.LSTM(2, hidden, num_layers=2, rng=0, dtype="float64")
    weights = model.state_dict()
    weights["weight_ih_l1"][...] = 0  # what it multiplies is 0
    silent.load_state_dict(weights)
    np.testing.assert_array_equal(y, silent(x)[0])
    assert not dx.any() and not grads["weight_ih_l0"].any() and grads["bias_ih_l1"].any()
    assert model(x)[0].any() and fl.LSTM.from_config(model.config()).dropout == 1.0
    factors = model.draw_masks(4, 3)["dropout"]
    assert not any(np.any(one) for one in factors)


def test_dropout_of_everything_as_torch():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.LSTM(2, 3, num_layers=2, dropout=1.0)
    ours = fl.from_torch(theirs)
    assert ours.dropout == 1.0 and fl.to_torch(ours).dropout == 1.0
    x = torch.randn(4, 3, 2, requires_grad=True)
    y, _ = theirs(x)
    y.sum().backward()
    z, _, cache = ours.forward(x, cache=True)
    dx, _, grads = ours.backward(np.ones_like(z), cache)
    np.testing.assert_allclose(z, y.detach().numpy(), atol=1e-6)
    for name, weight in theirs.named_parameters():
        np.testing.assert_allclose(grads[name], weight.grad.numpy(), atol=1e-5, err_msg=name)
    states = {name: weight.detach() for name, weight in theirs.named_parameters()}
    assert fl.from_torch(states, dropout=1.0).dropout == 1.0


# ---- warnings of NumPy's own --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1e300, np.inf, np.nan, np.array(0x7FF4000000000000).view(np.float64)])
def test_numbers_too_wide_give_no_warning(value, tmp_path):
    """The last one is a NaN that says so when it is converted."""
    x, y = np.full((T, B, I), value), np.full((T, B, H), value)
    relu = fl.Linear(I, H, activation="relu")
    words = fl.Sequential(fl.Embedding(9, 2), fl.GRU(2, 2))
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        for model in (LSTM, LINEAR, CHAIN, relu):
            out, *_, cache = model.forward(x, cache=True)
            assert not np.isfinite(out).all() or model is LSTM or model is CHAIN
            model.backward(y, cache)
        EMBEDDING.backward(y, EMBEDDING.forward(np.ones((T, B), int), cache=True)[2])
        np.save(tmp_path / "x.npy", x)
        with opened(str(tmp_path / "x.npy"), "npy") as source:
            [taken] = Feed(LSTM, source, allow_nan=True).blocks(1)
        assert taken.dtype == np.float32
        np.save(tmp_path / "x.npy", x[0])
        with opened(str(tmp_path / "x.npy"), "npy") as source, pytest.raises(UsageError, match="must hold integers"):
            list(Feed(words, source).blocks(1))
        with pytest.raises((ValueError, RuntimeWarning), match="state dict: (weight holds|NaN or infinity in weight)"):
            fl.Linear(I, H, bias=False).load_state_dict({"weight": np.full((H, I), value)})
