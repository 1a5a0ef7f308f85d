"""Recurrent layers: thin faces over functional.py, with torch's names, shapes and defaults."""

import copy

import numpy as np

from . import _core, functional
from .module import Module
from .params import cell_of, init_weights, suffixes, weight_shapes
from .stream import Stream


def _check_rate(name, value):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"{name} must be a number in [0, 1), got {value!r}")
    return float(value)


def _check_flag(name, value):
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {type(value).__name__}")
    return bool(value)


class Recurrent(Module):
    """What all recurrent layers share; a subclass names its row of ``params.CELLS`` and src_c/cells.def."""

    recurrent = True
    cell = None
    _activation = "none"  # of cells that leave a choice

    def _set_up(
        self, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, dtype, rng,
        num_threads,
    ):
        super().__init__(num_threads)
        _core.isa()  # a wrong FASTLSTM_ISA is told now, not at the first call
        states = cell_of(self.cell).states
        self.bias, self.batch_first = _check_flag("bias", bias), _check_flag("batch_first", batch_first)
        self.bidirectional = _check_flag("bidirectional", bidirectional)
        shapes = weight_shapes(
            self.cell, input_size, hidden_size, num_layers, self.bias, self.bidirectional, proj_size
        )
        self.input_size, self.hidden_size = int(input_size), int(hidden_size)
        self.num_layers, self.proj_size = int(num_layers), int(proj_size)
        self.dropout = _check_rate("dropout", dropout)
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
        self._shapes, self._rng = shapes, np.random.default_rng(rng)
        self._names = suffixes(self.num_layers, self.bidirectional)
        self._spec = functional.Spec(
            self.input_size, self.hidden_size, self.proj_size, self.num_layers, 2 if bidirectional else 1,
            np.dtype(dtype), self.batch_first, self.cell, len(states),
        )
        self._trainable = False  # whether packed weights include what backward needs
        self._weights = self._new_weights(
            shapes, dtype, lambda: init_weights(shapes, self._rng, dtype, self.hidden_size)
        )

    def config(self):
        return {
            "input_size": self.input_size, "hidden_size": self.hidden_size, "num_layers": self.num_layers,
            "bias": self.bias, "batch_first": self.batch_first, "dropout": self.dropout,
            "bidirectional": self.bidirectional, "dtype": self.dtype.name,
        }

    def _extras(self):
        return {**super()._extras(), "_rng": copy.deepcopy(self._rng)}

    def _weight_shapes(self):
        return self._shapes

    def _pack(self):
        get = self._weights.get
        weights = [
            tuple(get(f"{kind}_{name}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"))
            for name in self._names
        ]
        spec = self._spec
        return _core.Model(
            self.cell, spec.dtype, spec.input_size, spec.hidden_size, spec.num_layers, spec.directions,
            spec.proj_size, weights, self._trainable, self._activation,
        )

    def _packed_for_training(self):
        with self._lock:
            if not self._trainable:
                self._trainable, self._panels = True, None
            return self._packed()

    def _dropout_factors(self, steps, batch):
        """(L-1, T, B, D*R): 0 with probability `dropout`, else 1 / (1 - dropout)."""
        shape = (self.num_layers - 1, steps, batch, self._spec.outputs)
        keep = 1.0 - self.dropout
        with self._lock:  # generators are not safe to share between threads
            drawn = self._rng.random(shape, dtype=np.float32)
        return (drawn < keep).astype(self._spec.dtype) * self._spec.dtype.type(1.0 / keep)

    def __call__(self, x, state=None, **kwargs):
        """Inference: ``y, (hn, cn)``, or ``y, hn`` of a cell without c.

        See `forward`, whose keyword arguments it takes (but for cache).
        """
        panels = self._panels
        # the short way for arrays that need no conversion; not for a subclass with a forward of its own
        if panels is not None and not kwargs and type(self).forward is Recurrent.forward:
            found = panels.infer(x, state, self.batch_first, self._num_threads or 0)
            if found is not None:
                return found
        return super().__call__(x, state, **kwargs)

    def forward(self, x, state=None, *, lengths=None, reset=None, trace=False, cache=False):
        """``y, (hn, cn)``, then the trace if asked for, then the cache if asked for.

        Of a GRU or RNN, which have no c, the state is one array: ``y, hn``.
        x: (T, B, I), or (B, T, I) with batch_first, or (T, I) unbatched; any array-like, converted to the layer's
        dtype; matching input is not copied, and never changed. T and B may be 0.
        state: None (zeros) or (h0, c0) of shapes (L*D, B, R) and (L*D, B, H); without B when unbatched.
        lengths: (B,) integers in [0, T]. Steps beyond a row's length are not computed: y is 0 there, hn and cn are
        those of its last valid step, and the reverse direction starts at its own end.
        reset: booleans, (T, B), in the layout of x. True at step t: no state crosses from step t-1 to t, in either
        direction, as if the row were cut there; at t = 0 the forward direction forgets h0 and c0.
        trace: also return a `Trace` (of a GRU a `GRUTrace`, of an RNN an `RNNTrace`) of every gate and state.
        cache: also return what `backward` needs. Dropout acts here only, and only while `training` is true.

        y: (T, B, D*R) in the layout of x. Results do not depend, to the last bit, on batch size, number of threads,
        instruction set, or how a sequence is cut into calls.

        Raises TypeError or ValueError that names the argument, what came and what was expected.
        """
        threads = self._num_threads or 0
        if not trace and not cache:
            return functional.forward(self._packed(), self._spec, x, state, lengths, reset, threads)
        drops = cache and self.training and self.dropout > 0 and self.num_layers > 1
        packed = self._packed_for_training() if cache else self._packed()
        y, new, kept = functional.forward_cached(
            packed, self._spec, x, state, lengths, reset, self._dropout_factors if drops else None, threads,
            pooled=not trace,
        )
        found = [y, new]
        if trace:
            found.append(functional.trace_of(self._spec, kept))
        if cache:
            found.append(kept)
        return tuple(found)

    def backward(self, dy, cache, dstate=None, *, input_gradient=True):
        """``dx, (dh0, dc0), grads``: gradients of a loss from those of y and of the last state.

        dy: the shape of y, ignored beyond each length. cache: from ``forward(..., cache=True)``; it may be used more
        than once, and keeps the weights of that moment. dstate: None (zeros) or (dhn, dcn), each may be None.
        input_gradient=False leaves dx out (None), which saves a product.

        grads: name -> array, the names of `state_dict`. Equal from run to run and for any number of threads.
        Raises TypeError or ValueError that names the argument.
        """
        return functional.backward(
            self._spec, self._names, self._weights, dy, cache, dstate, input_gradient, self._num_threads or 0
        )

    def stream(self, batch_size=1):
        """A `Stream` of `batch_size` rows with the weights of this moment, starting from zeros.

        Raises ValueError for a bidirectional layer: its reverse direction needs the end first.
        """
        return Stream(self._packed(), self._spec, batch_size, self._num_threads or 0)

    def plan(self, T, B):
        """What a call with T steps of B rows would do: threads, split, chunks, in numbers and in words."""
        from . import planning  # for those who ask; no call needs it

        return planning.plan(self._packed(), T, B, self._num_threads or 0)


class LSTM(Recurrent):
    """Long short-term memory, any number of layers, one or two directions (as torch.nn.LSTM).

        i, f, o = sigmoid(W_ih x + b_ih + W_hh h + b_hh),  g = tanh(...)
        c = f * c + i * g,  h = o * tanh(c)            proj_size: h = W_hr (o * tanh(c))

    Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000; projection: Sak, Senior &
    Beaufays 2014. Gate order in the weights: i, f, g, o.

    Parameters, per layer l (and ``_reverse``): weight_ih_l0 (4H, I), weight_hh_l0 (4H, R), bias_ih_l0 and
    bias_hh_l0 (4H,) unless ``bias=False``, weight_hr_l0 (P, H) with ``proj_size`` P; deeper layers take D*R inputs.

    input_size (I), hidden_size (H), num_layers (L): positive integers. dropout: rate between layers, training only.
    proj_size (P): 0, or less than hidden_size. dtype: "float32" or "float64". rng: None, a seed or a
    numpy.random.Generator, for weights and dropout. num_threads: upper bound; None leaves it to the plan.

    >>> lstm = LSTM(3, 5, rng=0)
    >>> y, (hn, cn) = lstm(np.zeros((7, 2, 3), np.float32))
    >>> y.shape, hn.shape
    ((7, 2, 5), (1, 2, 5))
    """

    cell = "lstm"

    def __init__(
        self, input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0,
        bidirectional=False, proj_size=0, *, dtype="float32", rng=None, num_threads=None,
    ):
        self._set_up(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, dtype, rng,
            num_threads,
        )

    def config(self):
        return {**super().config(), "proj_size": self.proj_size}


class GRU(Recurrent):
    """Gated recurrent units, any number of layers, one or two directions (as torch.nn.GRU).

        r, z = sigmoid(W_ih x + b_ih + W_hh h + b_hh),  n = tanh(W_ih x + b_ih + r * (W_hh h + b_hh))
        h = (1 - z) * n + z * h

    Cho et al. 2014, with the reset after the product. Gate order in the weights: r, z, n. The state is hn alone:
    ``y, hn = gru(x, h0)``, and ``dx, dh0, grads = gru.backward(dy, cache, dhn)``.

    Parameters and arguments as of `LSTM`, with 3H rows for 4H and without a projection.

    >>> gru = GRU(3, 5, rng=0)
    >>> y, hn = gru(np.zeros((7, 2, 3), np.float32))
    >>> y.shape, hn.shape
    ((7, 2, 5), (1, 2, 5))
    """

    cell = "gru"

    def __init__(
        self, input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0,
        bidirectional=False, *, dtype="float32", rng=None, num_threads=None,
    ):
        self._set_up(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, dtype, rng, num_threads
        )


class RNN(Recurrent):
    """A simple recurrent network, any number of layers, one or two directions (as torch.nn.RNN).

        h = f(W_ih x + b_ih + W_hh h + b_hh)      f: nonlinearity, "tanh" or "relu"

    Elman 1990. The state is hn alone: ``y, hn = rnn(x, h0)``. Parameters and arguments as of `LSTM`, with H rows for
    4H and without a projection.

    >>> rnn = RNN(3, 5, nonlinearity="relu", rng=0)
    >>> y, hn = rnn(np.zeros((7, 2, 3), np.float32))
    >>> y.shape, hn.shape
    ((7, 2, 5), (1, 2, 5))
    """

    cell = "rnn"

    def __init__(
        self, input_size, hidden_size, num_layers=1, nonlinearity="tanh", bias=True, batch_first=False, dropout=0.0,
        bidirectional=False, *, dtype="float32", rng=None, num_threads=None,
    ):
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f'nonlinearity must be "tanh" or "relu", got {nonlinearity!r}')
        self.nonlinearity = self._activation = nonlinearity
        self._set_up(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, dtype, rng, num_threads
        )

    def config(self):
        return {**super().config(), "nonlinearity": self.nonlinearity}
