"""Losses: values and gradients against finite differences and torch, masks, refusals."""

import warnings

import numpy as np
import pytest

import fastlstm as fl
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
    ((Z, np.zeros((4, 3), int), [4, 4]), ValueError, r"lengths has shape \(2,\), expected \(3,\)"),
    ((Z, np.zeros((4, 3), int), [4, 5, 1]), ValueError, r"lengths\[1\] is 5, expected 0 <= length <= T = 4"),
    ((Z, np.zeros((4, 3), int), [4, -1, 1]), ValueError, r"lengths\[1\] is -1, expected 0 <= length <= T = 4"),
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
    ((Z, Z, [5, 1, 1]), ValueError, "expected 0 <= length <= T = 4"),
    ((Z, Z.astype(bool)), TypeError, "target must hold real numbers"),
])
def test_mse_refuses(arguments, error, words):
    with pytest.raises(error, match=words):
        mse(*arguments)


# ---- which positions count, and how much -------------------------------------------------------------------------

OPTIONS = {
    "batch_first": dict(lengths=[3, 0, 1, 2], batch_first=True),
    "mask": dict(mask=np.array([[1, 0, 1], [0, 0, 1], [1, 1, 1], [0, 1, 0]], bool)),
    "weights": dict(mask=np.arange(12.0).reshape(4, 3) / 7),
    "weights and lengths": dict(mask=np.arange(12).reshape(4, 3), lengths=[4, 0, 2]),
    "sum": dict(reduction="sum", lengths=[4, 0, 2]),
    "sum of weights": dict(reduction="sum", mask=np.arange(12.0).reshape(4, 3)),
}
CLASS_OPTIONS = {
    "classes": dict(weight=[0.5, 2, 0, 1]),
    "ignored": dict(ignore_index=2),
    "smooth": dict(label_smoothing=0.3),
    "all": dict(weight=[0.5, 2, 0, 1], ignore_index=1, label_smoothing=0.3, mask=np.arange(12.0).reshape(4, 3),
                lengths=[4, 1, 2]),
    "sum of classes": dict(weight=[0.5, 2, 0, 1], label_smoothing=0.3, reduction="sum"),
}


@pytest.mark.parametrize("name", OPTIONS | CLASS_OPTIONS)
def test_cross_entropy_gradient_of_options(name):
    logits, target = draw((4, 3))
    options = (OPTIONS | CLASS_OPTIONS)[name]
    _, gradient = cross_entropy(logits, target, **options)
    expected = central_difference(lambda z: cross_entropy(z, target, **options)[0], logits)
    np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-10)
    assert gradient.any()


@pytest.mark.parametrize("name", [*OPTIONS, "elements", "elements and lengths"])
def test_mse_gradient_of_options(name):
    y, target = draw((4, 3))[0], draw((4, 3), seed=1)[0]
    elements = {"elements": dict(mask=np.arange(48.0).reshape(4, 3, 4)),
                "elements and lengths": dict(mask=np.arange(48).reshape(4, 3, 4), lengths=[4, 0, 2])}
    options = (OPTIONS | elements)[name]
    _, gradient = mse(y, target, **options)
    expected = central_difference(lambda v: mse(v, target, **options)[0], y)
    np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-10)
    assert gradient.any()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("index", [-100, 2])
@pytest.mark.parametrize("weight", [None, [0.5, 2.0, 0.0, 1.0]])
@pytest.mark.parametrize("dtype, close", [("float32", 1e-5), ("float64", 1e-12)])
def test_classes_against_torch(dtype, close, weight, index, smoothing, reduction):
    torch = pytest.importorskip("torch")
    logits, target = draw((5, 3))
    logits = logits.astype(dtype)
    target[1, 1] = target[2, 0] = index
    z = torch.tensor(logits, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(
        z.flatten(0, 1), torch.tensor(target).flatten(),
        None if weight is None else torch.tensor(weight, dtype=z.dtype), ignore_index=index,
        reduction=reduction, label_smoothing=smoothing,
    )
    loss.backward()
    ours, gradient = cross_entropy(
        logits, target, weight=weight, ignore_index=index, reduction=reduction, label_smoothing=smoothing)
    assert ours == pytest.approx(loss.item(), rel=close)
    np.testing.assert_allclose(gradient, z.grad.numpy(), atol=close)
    assert gradient.dtype == dtype


def test_weights_against_torch():
    """torch has no weights of positions; a weight of 2 is a position that occurs twice."""
    torch = pytest.importorskip("torch")
    logits, target = draw((4, 3))
    counts = np.arange(12).reshape(4, 3) % 4
    z, t = (torch.tensor(np.repeat(a.reshape(12, -1), counts.ravel(), 0)) for a in (logits, target))
    expected = torch.nn.functional.cross_entropy(z, t[:, 0], torch.tensor([0.5, 2, 1, 3], dtype=z.dtype))
    ours = cross_entropy(logits, target, mask=counts, weight=[0.5, 2, 1, 3])[0]
    assert ours == pytest.approx(expected.item(), rel=1e-13)
    y = draw((4, 3), seed=1)[0]
    weights = np.random.default_rng(0).random((4, 3, 4))
    expected = (weights * (logits - y) ** 2).sum() / weights.sum()  # as its mse_loss(weight=), which is recent
    assert mse(logits, y, mask=weights)[0] == pytest.approx(expected, rel=1e-13)
    assert mse(logits, y, mask=counts)[0] == pytest.approx(
        mse(logits, y, mask=np.broadcast_to(counts[..., None], y.shape))[0], rel=1e-14)


@pytest.mark.parametrize("loss", [cross_entropy, mse])
def test_batch_first_is_the_same_turned(loss):
    for T, B in ((4, 3), (3, 3)):
        a, target = draw((T, B))
        target = target if loss is cross_entropy else draw((T, B), seed=1)[0]
        lengths, mask = np.array([2, 0, T]), np.random.default_rng(2).random((T, B))
        value, gradient = loss(a, target, lengths, mask=mask)
        turned, gradient_turned = loss(
            a.swapaxes(0, 1), target.swapaxes(0, 1), lengths, mask=mask.T, batch_first=True)
        assert turned == pytest.approx(value, rel=1e-14)
        np.testing.assert_allclose(gradient_turned.swapaxes(0, 1), gradient, rtol=1e-13)
        np.testing.assert_array_equal(
            loss(a[:, 0], target[:, 0], 2, batch_first=True)[1], loss(a[:, 0], target[:, 0], 2)[1])


@pytest.mark.parametrize("loss", [cross_entropy, mse])
@pytest.mark.parametrize("first", [False, True])
def test_a_layout_that_is_wrong_is_seen_where_the_arrays_tell(loss, first):
    """T == B: the zeros that a model gives beyond the lengths tell the layout."""
    model = fl.Sequential(fl.GRU(2, 3, batch_first=first, rng=0), fl.Linear(3, 4, rng=1))
    lengths = [1, 3, 2]
    y, _ = model(np.random.default_rng(0).normal(size=(3, 3, 2)), lengths=lengths)
    target = np.zeros((3, 3), int) if loss is cross_entropy else np.zeros(y.shape)
    loss(y, target, lengths, batch_first=model.batch_first)
    with pytest.raises(ValueError, match=f"is 0 beyond the lengths as of batch_first={first}, but not as of"):
        loss(y, target, lengths, batch_first=not first)
    loss(y + 1, target, lengths, batch_first=not first)  # nothing tells
    loss(y, target, [3, 3, 3], batch_first=not first)
    y = np.zeros((2, 3, 4) if first else (3, 2, 4))  # T is 3, B 2
    target = np.zeros(y.shape[:2], int) if loss is cross_entropy else y
    with pytest.raises(ValueError, match=f"lengths has shape .*say batch_first={first}"):
        loss(y, target, [1, 2], batch_first=not first)


def test_what_does_not_count_is_never_looked_at():
    logits, target = draw((4, 3))
    out = np.zeros((4, 3), bool)
    out[1, 1] = out[3, 0] = True
    foul = np.where(out[..., None], np.nan, logits)
    expected = cross_entropy(logits, np.where(out, -100, target))
    for options in (dict(mask=~out), dict(mask=np.where(out, 0.0, 1.0)), dict(lengths=[4, 4, 4], mask=~out)):
        loss, gradient = cross_entropy(foul, np.where(out, 99, target), **options)
        assert loss == expected[0] and np.array_equal(gradient, expected[1]) and not gradient[out].any()
        loss, gradient = mse(foul, logits, **options)
        assert loss == 0 and not gradient.any()
    loss, gradient = cross_entropy(foul, np.where(out, 7, target), ignore_index=7)
    assert loss == expected[0] and np.array_equal(gradient, expected[1])
    weights = np.random.default_rng(3).random((4, 3))
    expected = cross_entropy(logits, target, mask=np.where(out, 0, weights))
    loss, gradient = cross_entropy(foul, np.where(out, 7, target), ignore_index=7, mask=weights)
    assert loss == expected[0] and np.array_equal(gradient, expected[1])
    assert mse(foul, logits, mask=np.isfinite(foul)) == (0.0, pytest.approx(np.zeros(foul.shape)))
    with pytest.raises(ValueError, match=r"target\[1, 1\] is -100"):
        cross_entropy(logits, np.where(out, -100, target), ignore_index=None)


@pytest.mark.parametrize("options", [
    dict(mask=np.zeros((4, 3))), dict(mask=np.zeros((4, 3), bool)), dict(ignore_index=1), dict(weight=[1, 0, 1, 1]),
    dict(weight=[1, 0, 1, 1], label_smoothing=0.5),
])
def test_nothing_counts(options):
    loss, gradient = cross_entropy(draw((4, 3))[0], np.ones((4, 3), int), **options)
    assert loss == 0 and not gradient.any()


def test_no_warnings_of_numpy():
    """Under warnings as errors, and under errors of the caller's own setting, numbers come out all the same."""
    big, target = np.array([[3e38, -3e38], [np.inf, np.nan]], np.float32), [0, 1]
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        for options in ({}, dict(label_smoothing=0.5, weight=[0, 1e308]), dict(mask=[1e-320, 1e308])):
            cross_entropy(big, target, **options)
            cross_entropy(big.astype(np.float64) * 1e200, target, **options)
        for mask in (None, [1e-320, 1e308]):
            mse(big, -big, mask=mask)
            mse(big.astype(np.float64) * 1e250, -big, mask=mask)


@pytest.mark.parametrize("options, error, words", [
    (dict(mask=np.ones((3, 4))), ValueError, r"mask has shape \(3, 4\), expected \(4, 3\)"),
    (dict(mask=-np.ones((4, 3))), ValueError, "mask must hold weights of at least 0"),
    (dict(mask=np.full((4, 3), np.nan)), ValueError, "mask must hold weights"),
    (dict(mask=np.ones((4, 3), complex)), TypeError, "mask must hold booleans or weights, got complex128"),
    (dict(reduction="none"), ValueError, "reduction must be .* got 'none'"),
    (dict(reduction=None), ValueError, "reduction must be"),
    (dict(batch_first="yes"), TypeError, "batch_first must be True or False, got str"),
    (dict(lengths=[3, 0, 1, 3]), ValueError, "lengths has shape .*say batch_first=True"),
])
def test_options_refused(options, error, words):
    with pytest.raises(error, match=words):
        cross_entropy(Z, np.zeros((4, 3), int), **{"lengths": [1, 2, 3], **options})
    with pytest.raises(error, match=words):
        mse(Z, Z, **options)


@pytest.mark.parametrize("options, error, words", [
    (dict(weight=[1.0]), ValueError, r"weight has shape \(1,\), expected \(C,\) = \(2,\)"),
    (dict(weight=[1, -1]), ValueError, "weight must hold numbers of at least 0"),
    (dict(weight=[1, np.inf]), ValueError, "weight must hold numbers"),
    (dict(weight="ab"), TypeError, "weight must hold real numbers"),
    (dict(ignore_index=1.0), TypeError, "ignore_index must be an integer or None, got float"),
    (dict(ignore_index=True), TypeError, "ignore_index must be an integer"),
    (dict(label_smoothing=1.5), ValueError, "label_smoothing must be from 0 to 1, got 1.5"),
    (dict(label_smoothing=np.nan), ValueError, "label_smoothing must be"),
    (dict(label_smoothing="a"), TypeError, "label_smoothing must be a number, got str"),
])
def test_class_options_refused(options, error, words):
    with pytest.raises(error, match=words):
        cross_entropy(Z, np.zeros((4, 3), int), **options)
