"""Embedding, Linear, streams without a state: gradients, torch's numbers, refusals."""

import numpy as np
import pytest
from differences import check_gradients

import fastlstm as fl

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


# ---- streams without a state -------------------------------------------------------------


@pytest.mark.parametrize("make, error, words", [
    (lambda: fl.Linear(3, 2).stream(0), ValueError, "batch_size"),
    (lambda: fl.Linear(3, 2).stream(2).step(np.zeros((3, 3))), ValueError, r"expected \(B, I\) with batch_size B = 2"),
    (lambda: fl.Embedding(3, 2).stream(2).process([0, 1]), ValueError, r"expected \(T, B\) with batch_size B = 2"),
])
def test_streams_refuse(make, error, words):
    with pytest.raises(error, match=words):
        make()
