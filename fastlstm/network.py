"""The parts around a recurrent layer.

============  ===============  ============================
`Embedding`   integers (T, B)  -> (T, B, E)
`Linear`      (..., I)         -> (..., O), with activation
============  ===============  ============================

Embedding and Linear have no memory: calling one returns y alone; `forward` returns
``(y, None)``, and ``(y, None, cache)`` with ``cache=True``. They look at one position at a time
and therefore ignore `reset`. With `lengths` they leave out the positions beyond them, as a recurrent
layer does: nothing is read there, y and dx are 0 there.
"""

import math
from typing import NamedTuple

import numpy as np

from . import _core
from .arguments import _read, contiguous, real_array
from .attributes import Constant, fixed, kept
from .concurrency import Weights
from .params import _check_size, check_flag, model_dtype, origin
from .reprs import fields_told
from .stateless import CHANGED, Stateless, check_cache, check_lead, check_part, check_rows, spread

ACTIVATIONS = ("none", "relu", "tanh", "sigmoid", "softmax")


class _EmbeddingCache(NamedTuple):
    index: np.ndarray  # (n,), of the valid positions, or of all
    shape: tuple  # of y
    valid: np.ndarray | None

    __repr__ = fields_told


class Embedding(Stateless):
    """A table of vectors: ``y[t, b] = weight[x[t, b]]`` (as torch.nn.Embedding).

    Parameters: weight (N, E), drawn from the standard normal distribution.

    num_embeddings (N), embedding_dim (E): positive integers. dtype: "float32", which None means, too, or "float64".
    rng: None, a seed, or a numpy.random.Generator.

    x: integers of any shape, 0 <= x < N -> y: x.shape + (E,).
    Raises TypeError for x that holds no integers, IndexError naming the first position and value
    out of range (a negative index is out of range); beyond `lengths` any integer may stand.
    """

    row_axes = Constant(0)  # an index, not a vector
    num_embeddings, embedding_dim = kept("num_embeddings"), kept("embedding_dim")

    def __init__(self, num_embeddings, embedding_dim, *, dtype="float32", rng=None):
        super().__init__()
        self._num_embeddings = _check_size("num_embeddings", num_embeddings)
        self._embedding_dim = _check_size("embedding_dim", embedding_dim)
        shape, dtype = (self.num_embeddings, self.embedding_dim), model_dtype(dtype)

        def draw():
            return {"weight": np.random.default_rng(rng).standard_normal(shape).astype(dtype)}

        self._weights = self._new_weights({"weight": shape}, dtype, draw)

    def config(self):
        return {
            "num_embeddings": self.num_embeddings,
            "embedding_dim": self.embedding_dim,
            "dtype": self.dtype.name,
        }

    def _check_index(self, x, valid):
        index = _read("x", x).copy()  # what is checked is what is read, and what a cache may keep
        if index.size == 0:  # an empty list comes as float64
            index = index.astype(np.intp)
        if index.dtype.kind not in "iu":
            raise TypeError(f"x must hold integers, got {index.dtype} ({origin(x)})")
        bad = (index < 0) | (index >= self.num_embeddings)
        if valid is not None:
            bad &= valid
        if bad.any():
            at = np.unravel_index(np.argmax(bad), index.shape)
            where = tuple(int(i) for i in at)
            raise IndexError(
                f"x{list(where)} is {index[at]}, expected 0 <= x < num_embeddings {self.num_embeddings}"
            )
        return (index if valid is None else index[valid]).astype(np.intp, copy=False)

    def _snapshot(self):
        return self._lend_weights()  # the table itself: no copy unless it changes meanwhile

    def _for_call(self, cache):
        return Weights(None, self._version, self._lend_weights())

    def _apply(self, x, snapshot, valid=None, handed=None):
        index = self._check_index(x, valid)
        if snapshot is None:
            with self._locked():  # not while an optimiser is half way through
                rows = self._weights["weight"][index]
        else:
            rows = snapshot["weight"][index]
        shape = (index.shape if valid is None else valid.shape) + (self.embedding_dim,)
        return spread(rows, shape, valid), None if handed is None else _EmbeddingCache(index, shape, valid)

    def backward(self, dy, cache, dstate=None, *, input_gradient=True):
        """``(None, None, {"weight": (N, E)})``; integers have no gradient.

        dy: the shape of y. Rows are added in the order of x, so the sum is the same every time.
        """
        self._check_kept(cache)
        dy = check_rows(dy, cache.shape, self.dtype, cache.valid)
        dweight = np.zeros(self._weights["weight"].shape, self.dtype)
        index, rows = cache.index.ravel(), dy.reshape(-1, self.embedding_dim)
        some = max(1, 2**18 // self.embedding_dim)  # rows at a time: in between the interpreter looks for signals
        with np.errstate(over="ignore", invalid="ignore"):
            for first in range(0, len(index), some):
                np.add.at(dweight, index[first : first + some], rows[first : first + some])
        return None, None, {"weight": dweight}

    def _check_kept(self, cache):
        check_cache(cache, _EmbeddingCache)
        rows, index = check_lead(cache, self.embedding_dim), cache.index
        check_part("index", index, cache.shape[:-1] if cache.valid is None else (rows,), np.dtype(np.intp))
        if index.size and not 0 <= index.min() <= index.max() < self.num_embeddings:
            raise ValueError(f"{CHANGED}; its index has {index.min()}..{index.max()}, N is {self.num_embeddings}")


class _LinearCache(NamedTuple):
    x: np.ndarray  # (n, I), of the valid positions, or of all
    y: np.ndarray | None  # (n, O), after the activation; None if there is none
    shape: tuple  # of y as the caller saw it
    valid: np.ndarray | None
    version: int  # of the weights

    __repr__ = fields_told


def _through_activation(name, dy, y):
    """Gradient with respect to the pre-activation, from y = activation(z); all (n, O)."""
    with np.errstate(over="ignore", invalid="ignore"):  # infinity * 0: NaN is the true answer
        if name == "relu":
            return dy * (y > 0)
        if name == "tanh":
            return dy * (1 - y * y)
        if name == "sigmoid":
            return dy * y * (1 - y)
        if name == "softmax":
            return y * (dy - (dy * y).sum(axis=-1, keepdims=True))
    return dy


def _check_activation(name):
    if name is None or (isinstance(name, str) and name in ACTIVATIONS):
        return None if name == "none" else name
    raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {name!r}")


class Linear(Stateless):
    """``y = activation(x @ weight.T + bias)`` (as torch.nn.Linear, with an activation).

    Parameters: weight (O, I) and bias (O,), uniform in [-1/sqrt(I), 1/sqrt(I)), torch's default.

    in_features (I), out_features (O): positive integers. activation: None (or "none"), "relu",
    "tanh", "sigmoid" or "softmax" (over the last axis). dtype: "float32", which None means, too, or
    "float64". rng: None, a seed, or a numpy.random.Generator.

    x: (..., I) -> y: (..., O). A row's result does not depend on the rows beside it, bit for bit.
    Raises TypeError for x that holds no real numbers, ValueError for a wrong last axis.
    """

    in_features, out_features, activation = kept("in_features"), kept("out_features"), kept("activation")

    @fixed
    def bias(self):
        """Whether there is a bias."""
        return "bias" in self._weights

    def __init__(
        self, in_features, out_features, bias=True, activation=None,
        *, dtype="float32", rng=None, num_threads=None,
    ):
        super().__init__(num_threads)
        self._in_features = _check_size("in_features", in_features)
        self._out_features = _check_size("out_features", out_features)
        self._activation = _check_activation(activation)
        hint = f'; an activation is given by its name: activation="{bias}"' if isinstance(bias, str) else ""
        bias = check_flag("bias", bias, hint)
        dtype, shapes = model_dtype(dtype), {"weight": (self.out_features, self.in_features)}
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
        dense = _core.Dense(self._weights["weight"], bias, self.activation or "none", self._num_threads or 0)
        return dense, self._version

    def _apply(self, x, snapshot, valid=None, handed=None):
        source, fresh = _read("x", x), isinstance(x, (list, tuple))
        x = real_array("x", x, self.dtype, "fiu", source)
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"x has shape {x.shape}, expected (..., in_features {self.in_features})")
        shape = x.shape[:-1] + (self.out_features,)
        rows = x.reshape(-1, self.in_features) if valid is None else x[valid]
        if not (rows.flags.c_contiguous and rows.flags.aligned):
            rows = contiguous(rows)
        dense, version = snapshot or self._packed()
        y = dense.forward(rows, self.num_threads or 0)  # 0: the package-wide setting
        kept = None
        if handed is not None:
            aliased = handed.x and not fresh and np.may_share_memory(rows, source)
            rows = rows.copy() if aliased else rows
            own = y if self.activation else None  # without one, backward needs no y
            own = y.copy() if own is not None and handed.y and valid is None else own
            kept = _LinearCache(rows, own, shape, valid, version)
        return spread(y, shape, valid), kept

    def backward(self, dy, cache, dstate=None, *, input_gradient=True):
        """``(dx, None, grads)``: dx (..., I), grads weight (O, I) and bias (O,) if there is one.

        With z the pre-activation: dx = dz @ weight, dweight = dz.T @ x, dbias = sum of dz.
        Raises RuntimeError if a weight changed since the forward call, ValueError for dy that
        has not the shape of y and for a cache whose parts were replaced by others that do not fit.
        """
        check_cache(cache, _LinearCache)
        rows = check_lead(cache, self.out_features)
        check_part("x", cache.x, (rows, self.in_features), self.dtype)
        if self.activation:
            check_part("y", cache.y, (rows, self.out_features), self.dtype)
        dy = check_rows(dy, cache.shape, self.dtype, cache.valid)
        dz = contiguous(_through_activation(self.activation, dy, cache.y))
        with self._locked():
            if cache.version != self._version:
                raise RuntimeError("weights of Linear changed between forward and backward")
            back = self._packed_backward() if input_gradient else None
            has_bias = "bias" in self._weights
        threads = self.num_threads or 0
        dx = None
        if input_gradient:
            dx = spread(back.forward(dz, threads), cache.shape[:-1] + (self.in_features,), cache.valid)
        grads = {}
        grads["weight"], bias = _core.dense_gradient(dz, contiguous(cache.x), has_bias, threads)
        if has_bias:
            grads["bias"] = bias
        return dx, None, grads

    def _drop_packed(self):
        super()._drop_packed()
        self._transposed = None

    def _pack_ahead(self, backward):
        self._packed()
        if backward:
            self._packed_backward()

    def _packed_backward(self):
        """weight.T as panels of the weights of this moment; packed at the first backward after a change."""
        if self._transposed is None or self._transposed[1] != self._version:
            turned = np.ascontiguousarray(self._weights["weight"].T)
            dense = _core.Dense(turned, None, threads=self._num_threads or 0)
            self._transposed = dense, self._version
        return self._transposed[0]
