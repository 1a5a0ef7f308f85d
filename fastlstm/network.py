"""The parts around a recurrent layer, and the chain that makes one model of them.

================  ==========================  ============================
`Embedding`       integers (T, B)             -> (T, B, E)
`Linear`          (..., I)                    -> (..., O), with activation
`Sequential`      what its first member takes -> what its last member gives
================  ==========================  ============================

Embedding and Linear have no memory: calling one returns y alone; `forward` returns
``(y, None)``, and ``(y, None, cache)`` with ``cache=True``. They look at one position at a time
and therefore ignore `lengths` and `reset`.
"""

import copy
import math
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import numpy as np

from . import _core
from .module import Module
from .params import _as_array, _check_size

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
        y, kept = self._apply(x)
        return (y, None, kept) if cache else (y, None)

    def _apply(self, x):
        raise NotImplementedError

    def stream(self, batch_size=1):
        """A session with the calls of a recurrent one, and nothing to remember."""
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

    def _apply(self, x):
        index = self._check_index(x)
        with self._lock:  # not while an optimiser is half way through
            return self._weights["weight"][index], _EmbeddingCache(index)

    def backward(self, dy, cache, dstate=None):
        """``(None, None, {"weight": (N, E)})``; integers have no gradient.

        dy: the shape of y. Rows are added in the order of x, so the sum is the same every time.
        """
        index = cache.index
        dy = _check_dy(dy, index.shape + (self.embedding_dim,), self.dtype)
        dweight = np.zeros(self._weights["weight"].shape, self.dtype)
        np.add.at(dweight, index.ravel(), dy.reshape(-1, self.embedding_dim))
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

    def _apply(self, x):
        x = _real("x", x, self.dtype)
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"x has shape {x.shape}, expected (..., in_features {self.in_features})")
        shape = x.shape[:-1] + (self.out_features,)
        rows = np.ascontiguousarray(x.reshape(-1, self.in_features))
        dense, version = self._packed()
        y = dense.forward(rows, self.num_threads or 0)  # 0: the package-wide setting
        return y.reshape(shape), _LinearCache(rows, y, shape, version)

    def backward(self, dy, cache, dstate=None):
        """``(dx, None, grads)``: dx (..., I), grads weight (O, I) and bias (O,) if there is one.

        With z the pre-activation: dx = dz @ weight, dweight = dz.T @ x, dbias = sum of dz.
        Raises RuntimeError if a weight changed since the forward call, ValueError for dy that
        has not the shape of y.
        """
        dy = _check_dy(dy, cache.shape, self.dtype).reshape(-1, self.out_features)
        dz = _through_activation(self.activation, dy, cache.y)
        with self._lock:
            if cache.version != self._version:
                raise RuntimeError("weights of Linear changed between forward and backward")
            dx = dz @ self._weights["weight"]
        grads = {"weight": dz.T @ cache.x}
        if "bias" in self._weights:
            grads["bias"] = dz.sum(axis=0)
        return dx.reshape(cache.shape[:-1] + (self.in_features,)), None, grads


def _widths(module):
    """(features taken, features given), None where a module does not say."""
    if isinstance(module, Sequential):
        return _widths(module[0])[0], _widths(module[-1])[1]
    if isinstance(module, Embedding):
        return None, module.embedding_dim
    if hasattr(module, "hidden_size"):
        directions = 2 if getattr(module, "bidirectional", False) else 1
        width = getattr(module, "proj_size", 0) or module.hidden_size
        return module.input_size, directions * width
    return getattr(module, "in_features", None), getattr(module, "out_features", None)


def _check_chain(modules):
    if not modules:
        raise ValueError("Sequential needs at least one module")
    for place, module in enumerate(modules):
        if not isinstance(module, Module):
            raise TypeError(f"member {place} must be a Module, got {type(module).__name__}")
        if any(module is other for other in modules[:place]):
            raise ValueError(f"member {place} is in the chain twice; weights cannot be shared")
        if module.dtype != modules[0].dtype:
            raise ValueError(f"member {place} is {module.dtype}, member 0 is {modules[0].dtype}")
        if place == 0:
            continue
        given, taken = _widths(modules[place - 1])[1], _widths(module)[0]
        if None not in (given, taken) and given != taken:
            raise ValueError(f"member {place} takes {taken} features, member {place - 1} gives {given}")


class Sequential(Module):
    """Modules one after the other: a whole small model, with the calls of its parts.

    Weights are named by place: ``0.weight``, ``1.weight_ih_l0``, ... State, trace and dstate are
    those of the recurrent member when there is exactly one, otherwise a tuple with one entry per
    recurrent member in order; a Sequential inside counts as one member. Without any, a call
    returns y alone. `lengths`, `reset` and `trace` go to the recurrent members only: beyond a
    row's length a recurrent member gives zeros, so a Linear behind it gives activation(bias)
    there. The losses of this package take the same `lengths` and leave those positions out.

    Raises TypeError for a member that is no Module, ValueError for none at all, one given twice,
    different dtypes, or widths that do not fit each other.
    """

    def __init__(self, *modules):
        super().__init__()
        _check_chain(modules)
        self._members = tuple(modules)
        self.recurrent = any(module.recurrent for module in modules)
        self._single = sum(module.recurrent for module in modules) == 1

    def __len__(self):
        return len(self._members)

    def __getitem__(self, place):
        return self._members[place]

    def __iter__(self):
        return iter(self._members)

    def config(self):
        return {"modules": [module.describe() for module in self._members]}

    @classmethod
    def from_config(cls, config):
        if set(config) != {"modules"} or not isinstance(config["modules"], list):
            raise ValueError('a Sequential is configured by {"modules": [descriptions]}')
        return cls(*(Module.from_description(module) for module in config["modules"]))

    def __repr__(self):
        lines = (f"({place}): {module!r}" for place, module in enumerate(self._members))
        inner = "\n".join(lines).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {inner}\n)"

    # ---- weights: the members' own, under longer names -----------------------------------

    def _named_weights(self):
        return {
            f"{place}.{name}": weight
            for place, module in enumerate(self._members)
            for name, weight in module._named_weights().items()
        }

    def _replace_weights(self, arrays):
        with self._locked():
            for place, module in enumerate(self._members):
                head = f"{place}."
                module._replace_weights(
                    {name[len(head):]: a for name, a in arrays.items() if name.startswith(head)}
                )

    def _weights_changed(self):
        for module in self._members:
            module._weights_changed()

    @contextmanager
    def _locked(self):
        with ExitStack() as locks:
            for module in self._members:
                locks.enter_context(module._locked())
            yield

    # ---- settings ------------------------------------------------------------------------

    def train(self, mode=True):
        for module in self._members:
            module.train(mode)
        return super().train(mode)

    def set_num_threads(self, n):
        super().set_num_threads(n)
        for module in self._members:
            module.set_num_threads(n)

    def plan(self, T, B):
        """Place -> plan of that member."""
        return {str(place): module.plan(T, B) for place, module in enumerate(self._members)}

    def __reduce__(self):
        return _rebuild_sequential, (type(self), self._members, self._extras())

    def __copy__(self):
        members = tuple(copy.copy(module) for module in self._members)
        return _rebuild_sequential(type(self), members, self._extras())

    # ---- calls ---------------------------------------------------------------------------

    def _split(self, what, value):
        """One entry per member out of a state or dstate; None for members without memory."""
        count = sum(module.recurrent for module in self._members)
        if value is None:
            entries = [None] * count
        elif self._single:
            entries = [value]
        elif isinstance(value, (tuple, list)) and len(value) == count:
            entries = list(value)
        else:
            raise ValueError(f"{what} must be None or a tuple of {count}, one per recurrent member")
        rest = iter(entries)
        return [next(rest) if module.recurrent else None for module in self._members]

    def _join(self, values):
        """The inverse of `_split` for a list with one entry per recurrent member."""
        if not self.recurrent:
            return None
        return values[0] if self._single else tuple(values)

    def forward(self, x, state=None, *, lengths=None, reset=None, trace=False, cache=False):
        """``(y, state)``, then the trace if asked for, then the cache if asked for.

        Raises what the members raise, and ValueError for a state of the wrong structure.
        """
        states, traces, caches = [], [], []
        for module, own in zip(self._members, self._split("state", state)):
            if module.recurrent:
                x, own, *extras = module.forward(
                    x, own, lengths=lengths, reset=reset, trace=trace, cache=cache
                )
                states.append(own)
                if trace:
                    traces.append(extras.pop(0))
            else:
                x, _, *extras = module.forward(x, cache=cache)
            caches += extras
        result = (x, self._join(states))
        if trace:
            result += (self._join(traces),)
        return result + (tuple(caches),) if cache else result

    def backward(self, dy, cache, dstate=None):
        """``(dx, dstate, grads)``; dx is None where the first member takes integers."""
        dstates, grads = self._split("dstate", dstate), {}
        for place in reversed(range(len(self._members))):
            module = self._members[place]
            dy, dstates[place], own = module.backward(dy, cache[place], dstates[place])
            grads[place] = own
        ordered = {
            f"{place}.{name}": grads[place][name]
            for place, module in enumerate(self._members)
            for name in module._named_weights()
        }
        given = [d for d, module in zip(dstates, self._members) if module.recurrent]
        return dy, self._join(given), ordered

    def stream(self, batch_size=1):
        """A `SequentialStream` over the members' own streams."""
        return SequentialStream(self, batch_size)


def _rebuild_sequential(cls, members, extras):
    model = cls(*members)
    vars(model).update(extras)
    return model


class StatelessStream:
    """The calls of a recurrent stream for a module that has nothing to remember."""

    def __init__(self, module, batch_size=1):
        self._module = module
        self.batch_size = _check_size("batch_size", batch_size)

    def step(self, x_t, out=None):
        """x_t: (B, ...) -> y: (B, features), written to `out` if given."""
        y = self._module(self._check(x_t, 0))
        if out is None:
            return y
        _check_out(out, y.shape, y.dtype)
        out[...] = y
        return out

    def process(self, block):
        """block: (T, B, ...) -> (T, B, features)."""
        return self._module(self._check(block, 1))

    def _check(self, x, axis):
        x = _as_array(x)
        if x.ndim <= axis or x.shape[axis] != self.batch_size:
            raise ValueError(f"x has shape {x.shape}, expected batch_size {self.batch_size} on axis {axis}")
        return x

    def reset(self, mask=None):
        """Nothing to forget."""

    @property
    def state(self):
        return None

    @state.setter
    def state(self, value):
        if value is not None:
            raise ValueError(f"{type(self._module).__name__} has no state; state must be None")


def _check_out(out, shape, dtype):
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a numpy array, got {type(out).__name__}")
    if out.shape != shape or out.dtype != dtype:
        raise ValueError(f"out is {out.dtype} {out.shape}, expected {dtype} {shape}")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ValueError("out must be C-contiguous and writeable")


class SequentialStream:
    """A session over a chain: one stream per member, each with its own state.

    What passes between the members lives in buffers of this object; only the last member's
    result is new at each step, and with ``out`` not even that.
    """

    def __init__(self, model, batch_size=1):
        self.batch_size = _check_size("batch_size", batch_size)
        self._model = model
        self._streams = [module.stream(batch_size) for module in model]
        self._width = _widths(model)[1]
        self._between = [
            None if width is None else np.empty((batch_size, width), model.dtype)
            for width in (_widths(module)[1] for module in model[:-1])
        ]

    def step(self, x_t, out=None):
        """x_t: (B, I), or (B,) integers -> y: (B, O), written to `out` if given.

        Raises TypeError, ValueError or IndexError before any state has moved.
        """
        if out is not None and self._width is not None:
            # Found only by the last member, a bad `out` would leave the others a step ahead.
            _check_out(out, (self.batch_size, self._width), self._model.dtype)
        for stream, between in zip(self._streams, [*self._between, out]):
            x_t = stream.step(x_t, out=between)
        return x_t

    def process(self, block):
        """block: (T, B, I), or (T, B) integers -> (T, B, O)."""
        for stream in self._streams:
            block = stream.process(block)
        return block

    def reset(self, mask=None):
        """Zero the state, of all rows or of those where mask (B,) is true."""
        for stream in self._streams:
            stream.reset(mask)

    @property
    def state(self):
        """The members' states, arranged as `Sequential` arranges them."""
        pairs = zip(self._streams, self._model)
        return self._model._join([stream.state for stream, module in pairs if module.recurrent])

    @state.setter
    def state(self, value):
        before = [stream.state for stream in self._streams]
        try:
            for stream, own in zip(self._streams, self._model._split("state", value)):
                stream.state = own
        except Exception:
            for stream, own in zip(self._streams, before):
                stream.state = own  # all or nothing
            raise
