"""Losses: values and gradients against finite differences and torch, masks, refusals."""

import numpy as np
import pytest

from fastlstm.losses import cross_entropy, mse


def central_difference(f, x, h=1e-3):
    """Fourth-order central difference of a scalar function, element by element."""
    gradient = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        kept, values = x[at], []
        for k in (-2, -1, 1, 2):
            x[at] = kept + k * h
            values.append(f(x))
        x[at] = kept
        gradient[at] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
    return gradient


def draw(shape, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(*shape, classes)), rng.integers(0, classes, shape)


@pytest.mark.parametrize("shape, lengths", [
    ((1,), None), ((5,), None), ((5,), 3), ((1, 1), None), ((4, 3), None), ((4, 3), [4, 0, 2]),
])
def test_cross_entropy_gradient(shape, lengths):
    logits, target = draw(shape)
    _, gradient = cross_entropy(logits, target, lengths)
    expected = central_difference(lambda z: cross_entropy(z, target, lengths)[0], logits)
    np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-11)


@pytest.mark.parametrize("shape, lengths", [
    ((1, 1), None), ((5, 2), 3), ((5, 2), 0), ((4, 3, 2), None), ((4, 3, 2), [4, 0, 2]), ((3,), None),
])
def test_mse_gradient(shape, lengths):
    rng = np.random.default_rng(1)
    y, target = rng.normal(size=shape), rng.normal(size=shape)
    _, gradient = mse(y, target, lengths)
    expected = central_difference(lambda v: mse(v, target, lengths)[0], y)
    np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-11)


def test_values_by_hand():
    loss, gradient = cross_entropy([[0.0, np.log(3.0)]], [1])
    assert loss == pytest.approx(-np.log(0.75), rel=1e-15)
    np.testing.assert_allclose(gradient, [[0.25, -0.25]], rtol=1e-15)
    loss, gradient = mse([[1.0, 2.0]], [[0.0, 4.0]])
    assert loss == 2.5
    np.testing.assert_array_equal(gradient, [[1.0, -2.0]])


def test_against_torch():
    torch = pytest.importorskip("torch")
    logits, target = draw((6, 5), classes=7)
    z = torch.tensor(logits, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(z.flatten(0, 1), torch.tensor(target).flatten())
    loss.backward()
    ours, gradient = cross_entropy(logits, target)
    assert ours == pytest.approx(loss.item(), rel=1e-14)
    np.testing.assert_allclose(gradient, z.grad.numpy(), rtol=1e-12, atol=1e-16)
    assert cross_entropy(z, torch.tensor(target))[0] == ours  # tensors are array-likes

    y, goal = draw((6, 5))[0], draw((6, 5), seed=2)[0]
    v = torch.tensor(y, requires_grad=True)
    loss = torch.nn.functional.mse_loss(v, torch.tensor(goal))
    loss.backward()
    ours, gradient = mse(y, goal)
    assert ours == pytest.approx(loss.item(), rel=1e-14)
    np.testing.assert_allclose(gradient, v.grad.numpy(), rtol=1e-13)


def test_lengths_are_the_mean_over_what_is_left():
    logits, target = draw((4, 3))
    lengths = [4, 1, 2]
    rows = [(logits[t, b], target[t, b]) for b in range(3) for t in range(lengths[b])]
    alone = cross_entropy(np.array([r[0] for r in rows]), np.array([r[1] for r in rows]))[0]
    assert cross_entropy(logits, target, lengths)[0] == pytest.approx(alone, rel=1e-14)


def test_padding_is_never_looked_at():
    logits, target = draw((4, 3))
    lengths = np.array([4, 1, 2])
    padding = np.arange(4)[:, None] >= lengths
    clean, dirty = logits.copy(), logits.copy()
    dirty[padding] = np.nan
    foul = np.where(padding, -100, target)  # a usual filler for targets
    loss, gradient = cross_entropy(dirty, foul, lengths)
    assert loss == cross_entropy(clean, target, lengths)[0]
    assert (gradient[padding] == 0).all() and np.isfinite(gradient).all()
    loss, gradient = mse(dirty, clean, lengths)
    assert loss == 0 and (gradient == 0).all()


@pytest.mark.parametrize("T, B, lengths", [(3, 2, [0, 0]), (0, 2, None), (3, 0, None), (0, 2, [0, 0])])
def test_nothing_left(T, B, lengths):
    loss, gradient = cross_entropy(np.zeros((T, B, 4)), np.zeros((T, B), int), lengths)
    assert loss == 0 and gradient.shape == (T, B, 4) and not gradient.any()
    loss, gradient = mse(np.ones((T, B, 4)), np.zeros((T, B, 4)), lengths)
    assert loss == 0 and gradient.shape == (T, B, 4) and not gradient.any()


def test_large_logits_do_not_overflow():
    logits = np.array([[1e4, -1e4, 0.0], [-3e38, 3e38, 0.0]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        loss, gradient = cross_entropy(logits[:1], [1])
    assert loss == 2e4 and np.isfinite(gradient).all()
    loss, gradient = cross_entropy(logits[1:], [1])
    assert loss == 0 and not gradient.any()


def test_non_finite_is_not_hidden():
    assert np.isnan(cross_entropy([[np.nan, 0.0]], [0])[0])
    assert np.isnan(cross_entropy([[np.inf, 0.0]], [0])[0])
    assert cross_entropy([[-np.inf, 0.0]], [1])[0] == 0
    assert cross_entropy([[-np.inf, 0.0]], [0])[0] == np.inf


def test_loss_is_summed_in_double():
    y = np.ones((1_000_000, 1), np.float32)  # float32 near a million moves in steps of 1/16
    y[0] = 0.3
    loss, _ = mse(y, np.zeros_like(y))
    assert loss == pytest.approx((1e6 - 1 + float(np.float32(0.3)) ** 2) / 1e6, rel=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_and_inputs_kept(dtype):
    logits, target = draw((4, 3))
    logits = logits.astype(dtype)
    before = logits.copy()
    logits.flags.writeable = target.flags.writeable = False
    loss, gradient = cross_entropy(logits, target)
    assert type(loss) is float and gradient.dtype == dtype
    loss, gradient = mse(logits, np.zeros_like(logits))
    assert type(loss) is float and gradient.dtype == dtype
    np.testing.assert_array_equal(logits, before)


Z = np.zeros((4, 3, 2))


@pytest.mark.parametrize("arguments, error, words", [
    ((Z, np.zeros((3, 4), int)), ValueError, r"target has shape \(3, 4\), expected \(4, 3\)"),
    ((Z, np.zeros((4, 3))), TypeError, "target must hold integers"),
    ((Z, np.full((4, 3), 2)), ValueError, r"target\[0, 0\] is 2, expected 0 <= target < C 2"),
    ((Z, np.full((4, 3), -1)), ValueError, r"target\[0, 0\] is -1"),
    ((Z, np.zeros((4, 3), int), [4, 4]), ValueError, r"lengths has shape \(2,\), expected \(B,\) = \(3,\)"),
    ((Z, np.zeros((4, 3), int), [4, 5, 1]), ValueError, r"from 0 to T 4, got \[4, 5, 1\]"),
    ((Z, np.zeros((4, 3), int), [4, -1, 1]), ValueError, "from 0 to T 4"),
    ((Z, np.zeros((4, 3), int), [4.0, 1, 1]), TypeError, "lengths must hold integers"),
    ((Z[0, 0], 0), ValueError, "logits has shape"),
    ((Z[0], np.zeros(3, int), [1]), ValueError, "expected one number"),
    ((Z.astype(complex), np.zeros((4, 3), int)), TypeError, "logits must hold real numbers"),
])
def test_cross_entropy_refuses(arguments, error, words):
    with pytest.raises(error, match=words):
        cross_entropy(*arguments)


@pytest.mark.parametrize("arguments, error, words", [
    ((Z, Z[..., :1]), ValueError, r"target has shape \(4, 3, 1\), expected \(4, 3, 2\)"),
    ((Z[0, 0], Z[0, 0], 1), ValueError, "with lengths"),
    ((Z, Z, [5, 1, 1]), ValueError, "from 0 to T 4"),
    ((Z, Z.astype(bool)), TypeError, "target must hold real numbers"),
])
def test_mse_refuses(arguments, error, words):
    with pytest.raises(error, match=words):
        mse(*arguments)
