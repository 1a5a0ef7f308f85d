"""The parts around a recurrent layer.

============  ===============  ============================
`Embedding`   integers (T, B)  -> (T, B, E)
`Linear`      (..., I)         -> (..., O), with activation
============  ===============  ============================

Embedding and Linear have no memory: calling one returns y alone; `forward` returns
``(y, None)``, and ``(y, None, cache)`` with ``cache=True``. They look at one position at a time
and therefore ignore `lengths` and `reset`.
"""

import math
from typing import NamedTuple

import numpy as np

from . import _core
from .module import Module
from .params import _as_array, _check_size
from .stream import StatelessStream

ACTIVATIONS = ("none", "relu", "tanh", "sigmoid", "softmax")


def _real(name, value, dtype):
    """`value` as an array of `dtype`, the same memory if it fits. TypeError for no real numbers."""
    array = _as_array(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold real numbers, got {array.dtype}")
    return array.astype(dtype, copy=False)


def _engine_dtype(dtype):
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float32 or float64, got {dtype}")
    return dtype


def _check_dy(dy, shape, dtype):
    dy = _real("dy", dy, dtype)
    if dy.shape != shape:
        raise ValueError(f"dy has shape {dy.shape}, expected {shape}, the shape of y")
    return dy


class _Stateless(Module):
    """What Embedding and Linear share: a call without memory."""

    def forward(self, x, state=None, *, lengths=None, reset=None, trace=False, cache=False):
        """``(y, None)`` or, with ``cache=True``, ``(y, None, cache)``.

        `lengths` and `reset` are taken and ignored, so that one loop can drive any module.
        x must stay as it is until `backward`. Raises ValueError for a `state` or `trace`.
        """
        name = type(self).__name__
        if state is not None:
            raise ValueError(f"{name} has no state; state must be None, got {type(state).__name__}")
        if trace:
            raise ValueError(f"{name} has no gates to trace")
        y, kept = self._apply(x, None)
        return (y, None, kept) if cache else (y, None)

    def _snapshot(self):
        """The weights of this moment, in the form `_apply` takes."""
        return self._packed()

    def _apply(self, x, snapshot):
        """y and cache, with the weights of `snapshot`, or the present ones if it is None."""
        raise NotImplementedError

    def stream(self, batch_size=1, *, awake=0.0):  # awake: for recurrent layers; this one has no threads to keep
        """A `StatelessStream` of `batch_size` rows with the weights of this moment."""
        return StatelessStream(self, batch_size)


class _EmbeddingCache(NamedTuple):
    index: np.ndarray  # shape of x


class Embedding(_Stateless):
    """A table of vectors: ``y[t, b] = weight[x[t, b]]`` (as torch.nn.Embedding).

    Parameters: weight (N, E), drawn from the standard normal distribution.

    num_embeddings (N), embedding_dim (E): positive integers. dtype: "float32" or "float64".
    rng: None, a seed, or a numpy.random.Generator.

    x: integers of any shape, 0 <= x < N -> y: x.shape + (E,).
    Raises TypeError for x that holds no integers, IndexError naming the first position and value
    out of range (a negative index is out of range).
    """

    row_axes = 0  # an index, not a vector

    def __init__(self, num_embeddings, embedding_dim, *, dtype="float32", rng=None):
        super().__init__()
        self.num_embeddings = _check_size("num_embeddings", num_embeddings)
        self.embedding_dim = _check_size("embedding_dim", embedding_dim)
        shape, dtype = (self.num_embeddings, self.embedding_dim), _engine_dtype(dtype)

        def draw():
            return {"weight": np.random.default_rng(rng).standard_normal(shape).astype(dtype)}

        self._weights = self._new_weights({"weight": shape}, dtype, draw)

    def config(self):
        return {
            "num_embeddings": self.num_embeddings,
            "embedding_dim": self.embedding_dim,
            "dtype": self.dtype.name,
        }

    def _check_index(self, x):
        index = _as_array(x)
        if index.size == 0:  # an empty list comes as float64
            index = index.astype(np.intp)
        if index.dtype.kind not in "iu":
            raise TypeError(f"x must hold integers, got {index.dtype}")
        bad = (index < 0) | (index >= self.num_embeddings)
        if bad.any():
            at = np.unravel_index(np.argmax(bad), index.shape)
            where = tuple(int(i) for i in at)
            raise IndexError(
                f"x{list(where)} is {index[at]}, expected 0 <= x < num_embeddings {self.num_embeddings}"
            )
        return index.astype(np.intp)  # a copy: the cache must not follow the caller's array

    def _pack(self):
        return self._weights["weight"].copy()  # for streams only; calls read the table itself

    def _apply(self, x, snapshot):
        index = self._check_index(x)
        with self._lock:  # not while an optimiser is half way through
            table = self._weights["weight"] if snapshot is None else snapshot
            return table[index], _EmbeddingCache(index)

    def backward(self, dy, cache, dstate=None, *, input_gradient=True):
        """``(None, None, {"weight": (N, E)})``; integers have no gradient.

        dy: the shape of y. Rows are added in the order of x, so the sum is the same every time.
        """
        index = cache.index
        dy = _check_dy(dy, index.shape + (self.embedding_dim,), self.dtype)
        dweight = np.zeros(self._weights["weight"].shape, self.dtype)
        index, dy = index.ravel(), dy.reshape(-1, self.embedding_dim)
        some = max(1, 2**18 // self.embedding_dim)  # rows at a time: in between the interpreter looks for signals
        for first in range(0, len(index), some):
            np.add.at(dweight, index[first : first + some], dy[first : first + some])
        return None, None, {"weight": dweight}


class _LinearCache(NamedTuple):
    x: np.ndarray  # (n, I)
    y: np.ndarray  # (n, O), after the activation
    shape: tuple  # of y as the caller saw it
    version: int  # of the weights


def _through_activation(name, dy, y):
    """Gradient with respect to the pre-activation, from y = activation(z); all (n, O)."""
    if name == "relu":
        return dy * (y > 0)
    if name == "tanh":
        return dy * (1 - y * y)
    if name == "sigmoid":
        return dy * y * (1 - y)
    if name == "softmax":
        return y * (dy - (dy * y).sum(axis=-1, keepdims=True))
    return dy


class Linear(_Stateless):
    """``y = activation(x @ weight.T + bias)`` (as torch.nn.Linear, with an activation).

    Parameters: weight (O, I) and bias (O,), uniform in [-1/sqrt(I), 1/sqrt(I)), torch's default.

    in_features (I), out_features (O): positive integers. activation: None (or "none"), "relu",
    "tanh", "sigmoid" or "softmax" (over the last axis). dtype: "float32" or "float64". rng: None,
    a seed, or a numpy.random.Generator.

    x: (..., I) -> y: (..., O). A row's result does not depend on the rows beside it, bit for bit.
    Raises TypeError for x that holds no real numbers, ValueError for a wrong last axis.
    """

    def __init__(
        self, in_features, out_features, bias=True, activation=None,
        *, dtype="float32", rng=None, num_threads=None,
    ):
        super().__init__(num_threads)
        self.in_features = _check_size("in_features", in_features)
        self.out_features = _check_size("out_features", out_features)
        self.activation = None if activation == "none" else activation
        if self.activation is not None and self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}")
        dtype, shapes = _engine_dtype(dtype), {"weight": (self.out_features, self.in_features)}
        if bias:
            shapes["bias"] = (self.out_features,)

        def draw():
            generator, bound = np.random.default_rng(rng), 1 / math.sqrt(self.in_features)
            return {
                name: generator.uniform(-bound, bound, shape).astype(dtype)
                for name, shape in shapes.items()
            }

        self._weights = self._new_weights(shapes, dtype, draw)
        self._transposed = None  # (panels, version of the weights)

    def config(self):
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": "bias" in self._weights,
            "activation": self.activation,
            "dtype": self.dtype.name,
        }

    def _pack(self):
        bias = self._weights.get("bias")
        dense = _core.Dense(self._weights["weight"], bias, self.activation or "none")
        return dense, self._version

    def _apply(self, x, snapshot):
        x = _real("x", x, self.dtype)
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"x has shape {x.shape}, expected (..., in_features {self.in_features})")
        shape = x.shape[:-1] + (self.out_features,)
        rows = np.ascontiguousarray(x.reshape(-1, self.in_features))
        dense, version = snapshot or self._packed()
        y = dense.forward(rows, self.num_threads or 0)  # 0: the package-wide setting
        return y.reshape(shape), _LinearCache(rows, y, shape, version)

    def backward(self, dy, cache, dstate=None, *, input_gradient=True):
        """``(dx, None, grads)``: dx (..., I), grads weight (O, I) and bias (O,) if there is one.

        With z the pre-activation: dx = dz @ weight, dweight = dz.T @ x, dbias = sum of dz.
        Raises RuntimeError if a weight changed since the forward call, ValueError for dy that
        has not the shape of y.
        """
        dy = _check_dy(dy, cache.shape, self.dtype).reshape(-1, self.out_features)
        dz = np.ascontiguousarray(_through_activation(self.activation, dy, cache.y))
        with self._lock:
            if cache.version != self._version:
                raise RuntimeError("weights of Linear changed between forward and backward")
            back = self._packed_backward() if input_gradient else None
            has_bias = "bias" in self._weights
        threads = self.num_threads or 0
        dx = None
        if input_gradient:
            dx = back.forward(dz, threads).reshape(cache.shape[:-1] + (self.in_features,))
        grads = {}
        grads["weight"], bias = _core.dense_gradient(dz, cache.x, has_bias, threads)
        if has_bias:
            grads["bias"] = bias
        return dx, None, grads

    def _packed_backward(self):
        """weight.T as panels of the weights of this moment; packed at the first backward after a change."""
        if self._transposed is None or self._transposed[1] != self._version:
            dense = _core.Dense(np.ascontiguousarray(self._weights["weight"].T), None)
            self._transposed = dense, self._version
        return self._transposed[0]
