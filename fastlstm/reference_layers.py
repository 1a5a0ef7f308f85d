"""The slow twin of what stands around the recurrent layers: Linear, Embedding and the losses.

Plain NumPy, written to be read; formulas in docs/equations.md. Everything is computed in the
dtype of the floating-point input. Conventions are those of torch.nn.Linear, torch.nn.Embedding,
torch.nn.functional.cross_entropy and mse_loss, with sequences masked by their lengths.

Letters in shapes: "..." any leading axes, T steps, B rows, I inputs, O outputs, V words,
E embedding width, C classes.
"""

import numpy as np

from fastlstm.reference import length_mask, sigmoid

# ------------------------------------------------------------------------------------- activations


def softmax(z):
    """exp(z) / sum(exp(z)) over the last axis; the maximum is taken out first, so no overflow."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _softmax_backward(dy, y):
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))


# name -> (z -> y, (dy, y) -> dz). Every derivative can be had from y alone; relu's is 0 at 0.
ACTIVATIONS = {
    "none": (lambda z: z, lambda dy, y: dy),
    "relu": (lambda z: np.where(z < 0, 0, z), lambda dy, y: np.where(y > 0, dy, 0)),
    "tanh": (np.tanh, lambda dy, y: dy * (1 - y**2)),
    "sigmoid": (sigmoid, lambda dy, y: dy * y * (1 - y)),
    "softmax": (softmax, _softmax_backward),
}


def _activation(name):
    name = "none" if name is None else name
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {name!r}")
    return ACTIVATIONS[name]


# ------------------------------------------------------------------------------ Linear, Embedding


def linear(x, weight, bias=None, activation="none"):
    """y = activation(x W^T + b): x (..., I), weight (O, I), bias (O,) or None -> y (..., O).

    activation: a key of ACTIVATIONS, or None for "none". Raises ValueError for another name.
    """
    z = x @ weight.T
    return _activation(activation)[0](z if bias is None else z + bias)


def linear_backward(dy, x, y, weight, activation="none"):
    """dy and y (..., O), x (..., I), weight (O, I) -> dx (..., I), dweight (O, I), dbias (O,)."""
    dz = _activation(activation)[1](dy, y)
    flat_dz = dz.reshape(-1, weight.shape[0])  # (N, O)
    flat_x = x.reshape(-1, weight.shape[1])  # (N, I)
    return dz @ weight, flat_dz.T @ flat_x, flat_dz.sum(axis=0)


def _check_ids(name, ids, count):
    if ids.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {ids.dtype}")
    # NumPy would take -1 for the last row; here it is always a mistake.
    if ids.size and (ids.min() < 0 or ids.max() >= count):
        raise ValueError(f"{name} must lie in 0..{count - 1}, got {ids.min()}..{ids.max()}")


def embedding(ids, weight):
    """y = W[ids]: ids (...) integers, weight (V, E) -> (..., E).

    Raises TypeError for ids that are not integers, ValueError for one outside 0..V-1.
    """
    ids = np.asarray(ids)
    _check_ids("ids", ids, len(weight))
    return weight[ids]


def embedding_backward(dy, ids, weight):
    """dy (..., E), ids (...), weight (V, E) -> dweight (V, E); a word met twice gets both."""
    dweight = np.zeros_like(weight)
    np.add.at(dweight, np.asarray(ids), dy)
    return dweight


# ------------------------------------------------------------------------------------------ losses


def cross_entropy(logits, targets, lengths=None):
    """Softmax cross-entropy, averaged over the steps within the lengths, and its gradient.

    logits (T, B, C); targets (T, B) integers, may hold anything beyond a row's length; lengths
    (B,) or None for all T. Returns loss (scalar) and dlogits (T, B, C), zero in the padding.
    Without a single step that counts, both are 0. Raises TypeError for targets that are not
    integers, ValueError for one outside 0..C-1 or for lengths outside 0..T.
    """
    T, B, C = logits.shape
    targets = np.asarray(targets)
    if targets.shape != (T, B):
        raise ValueError(f"targets has shape {targets.shape}, expected {(T, B)}")
    live = length_mask(lengths, T, B)
    z, ids = logits[live], targets[live]  # (N, C), (N,)
    _check_ids("targets", ids, C)
    dlogits = np.zeros_like(logits)
    count = len(ids)
    if count == 0:
        return logits.dtype.type(0), dlogits
    z = z - z.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(z).sum(axis=1))  # (N,)
    loss = (log_sum - z[np.arange(count), ids]).sum() / count
    dz = softmax(z)
    dz[np.arange(count), ids] -= 1
    dlogits[live] = dz / count
    return loss, dlogits


def mean_squared_error(y, targets, lengths=None):
    """Mean of (y - targets)^2 over all elements within the lengths, and its gradient.

    y and targets (T, B, O); lengths (B,) or None for all T. Returns loss (scalar) and dy
    (T, B, O), zero in the padding, whatever the padding holds. Without a single element that
    counts, both are 0. Raises ValueError for a shape that does not fit or lengths outside 0..T.
    """
    targets = np.asarray(targets)
    if targets.shape != y.shape:
        raise ValueError(f"targets has shape {targets.shape}, expected {y.shape}")
    live = length_mask(lengths, *y.shape[:2])
    difference = y[live] - targets[live]  # (N, O)
    dy = np.zeros_like(y)
    if difference.size == 0:
        return y.dtype.type(0), dy
    dy[live] = 2 * difference / difference.size
    return (difference**2).mean(), dy
