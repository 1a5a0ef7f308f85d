"""What the slow twins put around their products: activations, clipping, layer normalisation.

Plain NumPy; formulas in docs/equations.md. The activations are those that ONNX defines for its
recurrent operators, with constants alpha and beta.
"""

import numpy as np


def sigmoid(z):
    """1 / (1 + exp(-z)), any shape, without overflow and with full relative accuracy below 0."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1 / (1 + e), e / (1 + e))


def _softplus(z, a, b):
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))  # log(1 + e^z) without overflow


def _elu(z, a, b):
    return np.where(z >= 0, z, a * np.expm1(np.minimum(z, 0)))


# name -> ((z, alpha, beta) -> y, (dy, z, y, alpha, beta) -> dz). At a kink the derivative is that
# of the side where the activation rests: 0 for relu and hard_sigmoid; for elu and leaky_relu it is 1.
ACTIVATIONS = {
    "sigmoid": (lambda z, a, b: sigmoid(z), lambda dy, z, y, a, b: dy * y * (1 - y)),
    "tanh": (lambda z, a, b: np.tanh(z), lambda dy, z, y, a, b: dy * (1 - y**2)),
    "hard_sigmoid": (
        lambda z, a, b: np.clip(a * z + b, 0, 1),
        lambda dy, z, y, a, b: np.where((y > 0) & (y < 1), dy * a, 0),
    ),
    "relu": (lambda z, a, b: np.where(z < 0, 0, z), lambda dy, z, y, a, b: np.where(z > 0, dy, 0)),
    "identity": (lambda z, a, b: z, lambda dy, z, y, a, b: dy),
    "softsign": (
        lambda z, a, b: z / (1 + np.abs(z)),
        lambda dy, z, y, a, b: dy / (1 + np.abs(z)) ** 2,
    ),
    "softplus": (_softplus, lambda dy, z, y, a, b: dy * sigmoid(z)),
    "elu": (_elu, lambda dy, z, y, a, b: np.where(z >= 0, dy, dy * (y + a))),
    "leaky_relu": (
        lambda z, a, b: np.where(z >= 0, z, a * z),
        lambda dy, z, y, a, b: np.where(z >= 0, dy, dy * a),
    ),
    "thresholded_relu": (
        lambda z, a, b: np.where(z < a, 0, z),
        lambda dy, z, y, a, b: np.where(z >= a, dy, 0),
    ),
    "scaled_tanh": (
        lambda z, a, b: a * np.tanh(b * z),
        lambda dy, z, y, a, b: dy * a * b * (1 - np.tanh(b * z) ** 2),
    ),
    "affine": (lambda z, a, b: a * z + b, lambda dy, z, y, a, b: dy * a),
}


def activate(activation, z):
    """z -> y, any shape; activation: a `variants.Activation`."""
    return ACTIVATIONS[activation.name][0](z, activation.alpha, activation.beta)


def activate_backward(activation, dy, z, y):
    """Gradient of z from that of y, all of one shape."""
    return ACTIVATIONS[activation.name][1](dy, z, y, activation.alpha, activation.beta)


def clip(z, limit):
    """z bounded to -limit..limit; as it is for None. NaN stays."""
    return z if limit is None else np.clip(z, -limit, limit)


def clip_backward(dy, z, limit):
    """Gradient of z: none where the bound was exceeded."""
    return dy if limit is None else np.where(np.abs(z) > limit, 0, dy)


def normalize(z, eps):
    """Layer normalisation over the last axis, without gain and bias: -> y, 1 / deviation."""
    centred = z - z.mean(axis=-1, keepdims=True)
    scale = 1 / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    return centred * scale, scale


def normalize_backward(dy, y, scale):
    """Gradient of z from that of y; y and scale as `normalize` gave them."""
    mean, slope = dy.mean(axis=-1, keepdims=True), (dy * y).mean(axis=-1, keepdims=True)
    return (dy - mean - y * slope) * scale
