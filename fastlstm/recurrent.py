"""`Recurrent`: what all recurrent layers share; their classes, with options and formulas, are in layers.py.

Letters: T steps, B rows, I inputs, H hidden units, P projected units, R = P or H, L layers, D directions, W the width
of a state.
"""

from operator import attrgetter

import numpy as np

from . import _core, functional, regularizers
from .attributes import Constant, checked, fixed
from .concurrency import NOTHING, Weights
from .module import Module
from .params import _check_size, check_flag, init_weights, layer_sizes, model_dtype, weight_shapes
from .ragged import pack
from .regularizers import check_dropout, check_rate
from .spec import Spec
from .stream import Origin, Stream
from .variants import OPTIONS, variant


def _as_json(value):
    """Tuples as lists."""
    return [_as_json(one) for one in value] if isinstance(value, (tuple, list)) else value


def _rate(name):
    """A rate as an attribute that may be set between calls, checked."""

    def change(self, value):
        with self._lock:
            self._rates[name] = check_rate(name, value)
            self._panels = None  # zoneout's expectation is packed with the weights

    return property(lambda self: self._rates[name], change)


_NONE = Weights()


class Recurrent(Module):
    """What all recurrent layers share; a subclass names its cell, a row of ``variants.OPTIONS`` and src_c/cells.def.

    The constructor of a subclass hands its arguments to `_set_up`. All of them, but for rng, are attributes that read
    the layer's `Spec`, and are fixed from then on. Rates (dropout, regularisers) may be set between calls.
    """

    recurrent, row_axes = Constant(True), Constant(1)
    cell = Constant(None)
    input_size, num_layers, proj_size, batch_first = (
        fixed(attrgetter(f"_spec.{name}"), name) for name in ("input_size", "num_layers", "proj_size", "batch_first")
    )
    dropout = checked("dropout", check_dropout, "Rate between layers, in [0, 1]; may be set between calls.")

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "cell" not in vars(cls):
            return
        v = variant(cls.cell)
        found = {name: fixed(attrgetter(f"_spec.v.{name}"), name) for name in OPTIONS[v.cell] if name in v._fields}
        found |= {name: _rate(name) for name in regularizers.rates_of(v)}
        for name, attribute in found.items():
            if name not in vars(cls):
                setattr(cls, name, attribute)
        cls.cell = Constant(v.cell, "cell")

    def _set_up(self, given):
        """given: name -> value of every argument of the constructor, its ``locals()``."""
        try:
            self._make(given)
        except MemoryError as error:
            if str(error):
                raise
            sizes = (f"{name}={str(given[name])[:60]}" for name in ("input_size", "hidden_size", "num_layers"))
            raise MemoryError(f"not enough memory for a {type(self).__name__} of {', '.join(sizes)}") from error

    def _make(self, given):
        super().__init__(given["num_threads"])
        _core.isa()  # a wrong FASTLSTM_ISA is told now, not at the first call
        flags = ("bias", "batch_first", "bidirectional")
        bias, batch_first, bidirectional = (check_flag(name, given[name]) for name in flags)
        v = variant(self.cell, **{name: given[name] for name in OPTIONS[self.cell]})
        sizes = given["input_size"], given["hidden_size"], given["num_layers"]
        proj_size = given.get("proj_size", 0)
        self._shapes = weight_shapes(v, *sizes, bias, bidirectional, proj_size)
        hidden = layer_sizes(v, "hidden_size", *sizes[1:])
        self.dropout = given["dropout"]
        self._rates = {name: check_rate(name, given[name]) for name in regularizers.rates_of(v)}
        dtype = model_dtype(given["dtype"])
        self._rng = np.random.default_rng(given["rng"])
        self._spec = Spec(
            v, int(sizes[0]), tuple(hidden), int(proj_size), 2 if bidirectional else 1, dtype, batch_first
        )
        self._rooms = _core.Rooms()
        self._trainable = False  # whether packed weights include what backward needs
        self._weights = self._new_weights(
            self._shapes, dtype, lambda: init_weights(self._shapes, self._rng, dtype, hidden)
        )

    @fixed
    def hidden_size(self):
        """H; a tuple with one for each layer where they differ."""
        sizes = self._spec.sizes
        return sizes if self._spec.ragged else sizes[0]

    @fixed
    def bias(self):
        """Whether there are biases."""
        return "bias_ih_l0" in self._shapes

    @fixed
    def bidirectional(self):
        """Whether there are two directions."""
        return self._spec.directions == 2

    def config(self):
        v = self._spec.v
        found = {
            "input_size": self.input_size, "hidden_size": _as_json(self.hidden_size), "num_layers": self.num_layers,
            "bias": self.bias, "batch_first": self.batch_first, "dropout": self.dropout,
            "bidirectional": self.bidirectional, "dtype": self.dtype.name,
        }
        if v.projects:
            found["proj_size"] = self.proj_size
        defaults = OPTIONS[self.cell] | {"activations": None}  # None: those of the cell
        return found | {n: _as_json(v.options.get(n, value)) for n, value in defaults.items()} | self._rates

    def _extras(self):
        return {**super()._extras(), "_rng": self._rng}

    def _weight_shapes(self):
        return self._shapes

    # ---- packing -------------------------------------------------------------------------

    def _pack(self, masks=None, weights=None):
        """The core's model of `weights`, those of this moment by default; masks: those of weights multiply them, for
        training."""
        weights, spec = dict(weights or self._weights), self._spec
        for name, mask in (masks or {}).items():
            if name.startswith("mask_weight"):
                weights[name.removeprefix("mask_")] = weights[name.removeprefix("mask_")] * mask
        zoneout = (self._rates.get(name, 0.0) for name in ("zoneout_h", "zoneout_c"))
        trainable = self._trainable or masks is not None
        return pack(spec, weights, trainable, *zoneout, self._rooms, self._num_threads or 0)

    def _pack_ahead(self, backward):
        drops = self.training and self._rates.get("weight_drop")  # each call packs what its masks leave
        if backward and not drops:
            self._packed_for_training()
        else:
            self._packed()

    def _packed_for_training(self, masks=(), taken=_NONE):
        """The model with what backward needs; where masks drop weights, one of its own for this call. taken: the
        `Weights` that a container took for it."""
        drops = any(name.startswith("mask_weight") for name in masks)
        if taken.panels is not None and not drops:
            return taken.panels
        with self._locked():
            if drops:
                from .machine import settle

                settle(self._num_threads)
                return self._pack(masks, taken.arrays)
            if not self._trainable:
                self._trainable, self._panels = True, None
            return self._packed()

    def _draws(self):
        return self.training and bool(self.dropout or any(self._rates.values()))

    def _for_call(self, cache):
        if cache and self.training and self._rates.get("weight_drop"):  # its call packs what the masks leave
            return Weights(None, self._version, self._lend_weights())
        return Weights(self._packed_for_training() if cache else self._packed(), self._version)

    # ---- regularisers --------------------------------------------------------------------

    @property
    def rng(self):
        """The numpy.random.Generator that masks are drawn from. May be set: to a seed, or to a Generator, which is
        then shared with whoever draws from it."""
        return self._rng

    @rng.setter
    def rng(self, value):
        with self._lock:
            self._rng = np.random.default_rng(value)

    def _dropout_factors(self, steps, batch):
        """(L-1, T, B, D*R): 0 with probability `dropout`, else 1 / (1 - dropout); a list when layers differ in size."""
        shapes = self._spec.dropout_shapes(steps, batch)
        with self._lock:  # generators are not safe to share between threads
            if isinstance(shapes, list):
                return [regularizers.dropped(self._rng, one, self.dropout, self._spec.dtype) for one in shapes]
            return regularizers.dropped(self._rng, shapes, self.dropout, self._spec.dtype)

    def draw_masks(self, T, B):
        """New masks for a call with T steps of B rows: name -> array, of the rates that are not 0.

        Drawn as ``forward(..., cache=True)`` draws them while `training`, from the layer's generator. Names and shapes
        are those of ``params.mask_shapes``, and "dropout", (L-1, T, B, D*R), between layers. Always (T, B), whatever
        batch_first says; 0 or 1 / (1 - rate), and of zoneout 1 where the old value is kept.
        Raises TypeError or ValueError for T or B that is no size.
        """
        T, B = _check_size("T", T, 0), _check_size("B", B, 0)
        with self._lock:
            found = regularizers.draw(self._spec, self._rates, self._rng, T, B)
        if self.dropout > 0 and self.num_layers > 1:
            found["dropout"] = self._dropout_factors(T, B)
        return found

    def _masks(self, given, training, steps, batch):
        if given is not None:
            return regularizers.check_masks(self._spec, given, self._rates, steps, batch)
        if training:
            return self.draw_masks(steps, batch)
        return regularizers.expected(self._spec, self._rates, steps, batch)

    # ---- calls ---------------------------------------------------------------------------

    def __call__(self, x, state=None, **kwargs):
        """Inference: ``y, (hn, cn)``, or ``y, hn`` of a cell without c.

        See `forward`, whose keyword arguments it takes (but for cache and masks).
        """
        panels = self._panels
        # the short way for arrays that need no conversion; not for a subclass with a forward of its own
        if panels is not None and not kwargs and type(self).forward is Recurrent.forward:
            found = panels.infer(x, state, self._spec.batch_first, self._num_threads or 0)
            if found is not None:
                return found
        return super().__call__(x, state, **kwargs)

    def forward(self, x, state=None, *, lengths=None, reset=None, trace=False, cache=False, masks=None):
        """``y, (hn, cn)``, then the trace if asked for, then the cache if asked for.

        The state is a tuple in the order that the class tells; of a GRU or RNN, which have but h, it is one array:
        ``y, hn``. When `hidden_size` differs between layers, each of its parts is a list of L*D arrays (B, W).
        x: (T, B, I), or (B, T, I) with batch_first, or (T, I) unbatched; any array-like, converted to the layer's
        dtype; matching input is not copied, and never changed. T and B may be 0.
        state: None (zeros) or (h0, c0) of shapes (L*D, B, R) and (L*D, B, H); without B when unbatched.
        lengths: (B,) integers in [0, T]. Steps beyond a row's length are not computed: y is 0 there, hn and cn are
        those of its last valid step, and the reverse direction starts at its own end.
        reset: booleans, (T, B), in the layout of x; 0 and 1 are taken, too, but for unbatched x, where they could be
        step numbers. True at step t: no state crosses from step t-1 to t, in either direction, as if the row were cut
        there; at t = 0 the forward direction forgets h0 and c0.
        trace: also return every gate and state: a `Trace`, or the type of trace that the class tells.
        cache: also return what `backward` needs. Dropout and the other regularisers act here only, and only while
        `training` is true; ``cache.masks`` tells what they drew. Elsewhere zoneout takes its expectation.
        What is handed in and what is returned may be changed at once: no gradient follows. With cache=True the arrays
        of a trace and of ``cache.masks`` are read-only, as backward reads them again.
        masks: for cache=True, those to use instead, as `draw_masks` gives them; what is not among them does nothing.

        y: (T, B, D*R) in the layout of x. Results do not depend, to the last bit, on batch size, number of threads,
        instruction set, or how a sequence is cut into calls.

        Raises TypeError or ValueError that names the argument, what came and what was expected; in the main thread also
        what a signal's handler raises meanwhile (KeyboardInterrupt): the layer is then as before, and draws the same
        masks at the next call.
        """
        return self._forward(
            x, state, lengths=lengths, reset=reset, trace=trace, cache=cache, masks=masks, moment=NOTHING
        )

    def _forward(self, x, state, *, lengths, reset, trace, cache, moment, masks=None):
        """See `forward`. moment: id of a module -> the `Weights` that a container took for it."""
        taken = moment.get(id(self), _NONE)
        threads = self._num_threads or 0
        if masks is not None and not cache:
            raise ValueError("masks are for training: forward(..., cache=True, masks=masks)")
        if not trace and not cache:
            panels = self._packed() if taken.panels is None else taken.panels
            found = None if lengths is not None or reset is not None else panels.infer(
                x, state, self._spec.batch_first, threads
            )
            return found or functional.forward(panels, self._spec, x, state, lengths, reset, threads)

        def pack(masks):
            if cache:
                return self._packed_for_training(masks, taken)
            return self._packed() if taken.panels is None else taken.panels

        before = after = None  # states of the generator, if masks are drawn

        def masks_of(steps, batch):
            nonlocal before, after
            draws = cache and masks is None and self._draws()
            with self._lock:
                before = self._rng.bit_generator.state if draws else None
                found = self._masks(masks, cache and self.training, steps, batch)
                after = self._rng.bit_generator.state if draws else None
            return found

        try:
            y, new, kept = functional.forward_cached(
                pack, self._spec, x, state, lengths, reset, masks_of, threads, pooled=not trace
            )
        except BaseException:  # the call has not been: the next one draws these masks
            with self._lock:
                if before and (after is None or regularizers.same_state(self._rng.bit_generator.state, after)):
                    self._rng.bit_generator.state = before
            raise
        found = [y, new]
        if trace:
            found.append(functional.trace(self._spec, kept, frozen=cache))
        if cache:
            found.append(kept)
        return tuple(found)

    def backward(self, dy, cache, dstate=None, *, input_gradient=True):
        """``dx, (dh0, dc0), grads``: gradients of a loss from those of y and of the last state.

        dy: the shape of y, ignored beyond each length. cache: from ``forward(..., cache=True)``; it may be used more
        than once, and keeps the weights and masks of that moment. dstate: None (zeros) or (dhn, dcn), each may be None.
        input_gradient=False leaves dx out (None), which saves a product.

        grads: name -> array, the names of `state_dict`. Equal from run to run and for any number of threads.
        Raises TypeError or ValueError that names the argument.
        """
        return functional.backward(
            self._spec, self._weights, dy, cache, dstate, input_gradient, self._num_threads or 0
        )

    def stream(self, batch_size=1, *, awake=0.0):
        """A `Stream` of `batch_size` rows with the weights of this moment, starting from zeros.

        awake: seconds that the stream's threads keep their processors busy after a step, waiting for the next one, for
        steps that come one after the other: so steps of large layers (from some 256 units on) run on several threads.
        At 0, threads sleep between steps, and waking them costs more than most steps take. The results are the same.

        Raises ValueError for a bidirectional layer, whose reverse direction needs the end first, and for an awake
        outside 0..1; TypeError for one that is no number.
        """
        with self._lock:  # model, weights and rates of one moment
            zoneout = tuple(self._rates.get(name, 0.0) for name in ("zoneout_h", "zoneout_c"))
            origin = Origin(self._spec, self._packed(), self._lend_weights(), zoneout, self._num_threads or 0)
        return Stream(origin, batch_size, awake)

    def plan(self, T, B):
        """What a call with T steps of B rows would do: threads, split, chunks, in numbers and in words."""
        from . import planning  # for those who ask; no call needs it

        return planning.plan(self._packed(), T, B, self._num_threads or 0)
