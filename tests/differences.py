"""Gradients by finite differences, of any function and of a whole module, and how far apart two are."""

import numpy as np


def numeric_gradient(loss, array, step=1e-3):
    """4th-order central differences of loss() for every element of `array`, changed in place."""
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        was, values = array[index], []
        for k in (-2, -1, 1, 2):
            array[index] = was + k * step
            values.append(loss())
        array[index] = was
        gradient[index] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
    return gradient


def slope_errors(loss, arrays, gradients, directions=2, step=3e-4):
    """Name -> how far `gradients` are from 4th-order central differences of loss() along random directions.

    Relative to the gradient's length. An element that is wrong by e shows as about e in every direction, at a cost
    that does not grow with the array. Arrays are changed in place and restored.
    """
    assert list(arrays) == list(gradients)
    rng, errors = np.random.default_rng(0), {}
    for name, array in arrays.items():
        was, length = array.copy(), np.linalg.norm(gradients[name]) or 1
        errors[name] = 0.0
        for _ in range(1 if array.size == 1 else directions):
            direction, values = rng.normal(size=array.shape), []
            direction /= np.linalg.norm(direction)
            for k in (-2, -1, 1, 2):
                array[...] = was + k * step * direction
                values.append(loss())
            slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
            expected = (gradients[name] * direction).sum()
            errors[name] = max(errors[name], abs(slope - expected) / length)
        array[...] = was
    return errors


def difference(a, b):
    """Largest difference relative to the largest element of b (absolute if b is all zero)."""
    assert a.shape == b.shape
    scale = np.abs(b).max(initial=0)
    return np.abs(a - b).max(initial=0) / (scale or 1)


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
        np.testing.assert_allclose(grads[name], numeric_gradient(moved, values), err_msg=name, **close)
        model._update({name: values})
    if dx is not None:
        np.testing.assert_allclose(dx, numeric_gradient(objective, x), err_msg="dx", **close)
    for given, found in zip(leaves(state), leaves(dstate)):
        np.testing.assert_allclose(found, numeric_gradient(objective, given), err_msg="dstate", **close)
    return dstate


def tree(f, value):
    if value is None or isinstance(value, np.ndarray):
        return None if value is None else f(value)
    return tuple(tree(f, part) for part in value)


def leaves(value):
    if value is None or isinstance(value, np.ndarray):
        return [] if value is None else [value]
    return [leaf for part in value for leaf in leaves(part)]
