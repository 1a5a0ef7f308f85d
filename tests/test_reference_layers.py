"""The reference's Linear, Embedding and losses against finite differences and against torch."""

import numpy as np
import pytest
from differences import difference, numeric_gradient

from fastlstm import reference
from fastlstm import reference_layers as layers


@pytest.mark.parametrize("activation", layers.ACTIVATIONS)
@pytest.mark.parametrize("lead", [(), (1,), (3, 2)])
def test_linear_backward_is_the_derivative(activation, lead):
    rng = np.random.default_rng(7)
    x, weight, bias = (rng.normal(size=s) for s in ((*lead, 4), (3, 4), (3,)))
    dy = rng.normal(size=(*lead, 3))
    y = layers.linear(x, weight, bias, activation)
    gradients = layers.linear_backward(dy, x, y, weight, activation)
    for array, gradient in zip((x, weight, bias), gradients, strict=True):
        numeric = numeric_gradient(
            lambda: (layers.linear(x, weight, bias, activation) * dy).sum(), array
        )
        assert np.abs(gradient).max() > 1e-3 or activation == "relu"
        assert difference(numeric, gradient) < 1e-7
    np.testing.assert_array_equal(
        layers.linear(x, weight), layers.linear(x, weight, np.zeros(3), None)
    )


def test_embedding_adds_up_repeated_words():
    rng = np.random.default_rng(8)
    ids = np.array([[0, 2], [2, 2]])
    weight, dy = rng.normal(size=(4, 3)), rng.normal(size=(2, 2, 3))
    gradient = layers.embedding_backward(dy, ids, weight)
    numeric = numeric_gradient(lambda: (layers.embedding(ids, weight) * dy).sum(), weight)
    assert difference(numeric, gradient) < 1e-7
    assert not gradient[[1, 3]].any()
    with pytest.raises(ValueError, match=r"ids must lie in 0\.\.3, got -1\.\.0"):
        layers.embedding([0, -1], weight)
    with pytest.raises(TypeError, match="ids must be integers, got float64"):
        layers.embedding([0.0], weight)


def loss_case(loss, lengths):
    """Output (4, 3, 5) and targets with rubbish beyond the lengths."""
    rng = np.random.default_rng(9)
    y = rng.normal(size=(4, 3, 5))
    ids = loss is layers.cross_entropy
    targets = rng.integers(5, size=(4, 3)) if ids else rng.normal(size=(4, 3, 5))
    for b, n in enumerate(lengths or []):
        targets[n:, b] = -100 if ids else np.nan
    return y, targets


LOSSES = [layers.cross_entropy, layers.mean_squared_error]


@pytest.mark.parametrize("lengths", [None, [4, 0, 2], [0, 0, 0]])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_give_their_derivative(loss, lengths):
    y, targets = loss_case(loss, lengths)
    value, gradient = loss(y, targets, lengths)
    assert difference(numeric_gradient(lambda: loss(y, targets, lengths)[0], y), gradient) < 1e-7
    assert (value > 0) == gradient.any() == (lengths != [0, 0, 0])
    for b, n in enumerate(lengths or []):
        assert not gradient[n:, b].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_torchs(loss):
    torch = pytest.importorskip("torch")
    lengths = [4, 0, 2]
    y, targets = loss_case(loss, lengths)
    live = np.arange(4)[:, None] < lengths
    theirs_y = torch.tensor(y, requires_grad=True)
    name = "cross_entropy" if loss is layers.cross_entropy else "mse_loss"
    theirs = getattr(torch.nn.functional, name)(theirs_y[live], torch.tensor(targets[live]))
    theirs.backward()
    value, gradient = loss(y, targets, lengths)
    assert abs(value - theirs.item()) < 1e-14
    assert difference(gradient, theirs_y.grad.numpy()) < 1e-14


def test_large_numbers_do_not_overflow():
    big = np.array([[[1e4, -1e4, 0.0]]])
    with np.errstate(over="raise", invalid="raise"):
        value, gradient = layers.cross_entropy(big, [[1]])
        np.testing.assert_array_equal(layers.softmax(big), [[[1, 0, 0]]])
        np.testing.assert_array_equal(reference.sigmoid(big), [[[1, 0, 0.5]]])
    assert value == 2e4
    np.testing.assert_array_equal(gradient, [[[1, -1, 0]]])
    assert reference.sigmoid(np.array(-700.0)) == np.exp(-700.0)
