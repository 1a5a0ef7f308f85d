"""Sequential: modules one after the other, a whole small model with the calls of its parts."""

import numpy as np

from . import _core
from .container import Container
from .last import Last
from .module import Module
from .network import Embedding
from .params import _check_size
from .stream import batched, check_out
from .wrappers import Bidirectional


def _widths(module):
    """(features taken, features given), None where a module does not say."""
    if isinstance(module, Sequential):
        return _widths(module[0])[0], _widths(module[-1])[1]
    if isinstance(module, Embedding):
        return None, module.embedding_dim
    if hasattr(module, "hidden_size"):
        directions = 2 if getattr(module, "bidirectional", False) else 1
        hidden = module.hidden_size[-1] if isinstance(module.hidden_size, list) else module.hidden_size
        width = getattr(module, "proj_size", 0) or hidden
        return module.input_size, directions * width
    return getattr(module, "in_features", None), getattr(module, "out_features", None)


def _leaves(module):
    """The members of a chain, those of chains inside among them, in order."""
    return [leaf for one in module for leaf in _leaves(one)] if isinstance(module, Sequential) else [module]


def _check_sequences(modules):
    """Who takes sequences must be given one, in one layout."""
    ended, layout = None, None
    for place, module in enumerate(modules):
        for leaf in _leaves(module):
            if ended is not None and (leaf.recurrent or ended[1] == "a pair"):
                what = "sequences" if leaf.recurrent else "an array"
                raise ValueError(f"member {place} takes {what}, member {ended[0]} gives {ended[1]}")
            if isinstance(leaf, Last):
                ended = place, "one output per row"
            elif isinstance(leaf, Bidirectional) and leaf.merge is None:
                ended = place, "a pair"
            first = getattr(leaf, "batch_first", None)
            if first is not None:
                if layout is not None and first != layout[1]:
                    raise ValueError(f"member {place} has batch_first={first}, member {layout[0]} {layout[1]}")
                layout = layout or (place, first)


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
    _check_sequences(modules)


class Sequential(Container):
    """Modules one after the other: a whole small model, with the calls of its parts.

    Weights are named by place: ``0.weight``, ``1.weight_ih_l0``, ... State, trace and dstate are
    those of the recurrent member when there is exactly one, otherwise a tuple with one entry per
    recurrent member in order; a Sequential inside counts as one member. Without any, a call
    returns y alone. `lengths`, `reset` and `trace` go to the recurrent members only: beyond a
    row's length a recurrent member gives zeros, so a Linear behind it gives activation(bias)
    there. The losses of this package take the same `lengths` and leave those positions out.

    Raises TypeError for a member that is no Module, ValueError for none at all, one given twice,
    different dtypes or batch_first, widths that do not fit each other, and a recurrent layer
    behind a `Last`.
    """

    def __init__(self, *modules):
        _check_chain(modules)
        super().__init__({str(place): module for place, module in enumerate(modules)})
        self._members = tuple(modules)
        self._single = sum(module.recurrent for module in modules) == 1

    @property
    def row_axes(self):
        """Axes of one row of x: those of the first member."""
        return self._members[0].row_axes

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
        for module, own in zip(self._members, self._split("state", state), strict=True):
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

    def backward(self, dy, cache, dstate=None, *, input_gradient=True):
        """``(dx, dstate, grads)``; dx is None where the first member takes integers.

        ``input_gradient=False`` saves the first member the work of dx, which is then None.
        """
        dstates, grads = self._split("dstate", dstate), {}
        for place in reversed(range(len(self._members))):
            module, options = self._members[place], {}
            if place == 0 and not input_gradient:
                options = {"input_gradient": False}
            dy, dstates[place], grads[place] = module.backward(dy, cache[place], dstates[place], **options)
        ordered = {
            f"{place}.{name}": grads[place][name]
            for place, module in enumerate(self._members)
            for name in module._named_weights()
        }
        given = [d for d, module in zip(dstates, self._members, strict=True) if module.recurrent]
        return dy, self._join(given), ordered

    def stream(self, batch_size=1, *, awake=0.0):
        """A `SequentialStream` over the members' own streams; `awake` as in a recurrent layer's `stream`."""
        return SequentialStream(self, batch_size, awake)


class SequentialStream:
    """A session over a chain: one stream per member, each with its own state.

    The weights are those of the moment the stream was opened. What passes between the members
    lives in buffers of this object; only the last member's result is new at each step.
    """

    def __init__(self, model, batch_size=1, awake=0.0):
        self.batch_size = _check_size("batch_size", batch_size)
        self._model = model
        with model._locked():  # all members at the same moment
            options = {"awake": awake} if awake else {}  # modules from elsewhere may not know it
            self._streams = [module.stream(batch_size, **options) for module in model]
        self._axes, self._width, self._dtype = model.row_axes, _widths(model)[1], model.dtype
        self._between = [
            None if width is None else np.empty((batch_size, width), model.dtype)
            for width in (_widths(module)[1] for module in model[:-1])
        ]

    def step(self, x_t, out=None):
        """x_t: (B, I), or (B,) integers -> y: (B, O), written to `out` if given.

        With batch_size 1 the batch axis may be left out, of x_t and so of y and out.
        Raises TypeError, ValueError or IndexError before any state has moved.
        """
        y, single = batched(x_t, self.batch_size, 0, self._axes)
        whole = out
        if out is not None and self._width is not None:
            # Found only by the last member, a bad `out` would leave the others a step ahead.
            shape = (self._width,) if single else (self.batch_size, self._width)
            check_out(out, shape, self._dtype)
            whole = out.reshape(self.batch_size, self._width)  # contiguous, so the same memory
        for stream, between in zip(self._streams, [*self._between, whole], strict=True):
            y = stream.step(y, out=between)
        if out is not None:
            return out
        return y[0] if single else y

    def _advance(self, block):
        """``y, to, new``: `process`, but for the states, whose arrays `to` are to become `new`."""
        y, single = batched(block, self.batch_size, 1, self._axes)
        to, new = [], []
        for stream in self._streams:
            if hasattr(stream, "_advance"):
                y, its, becomes = stream._advance(y)
                to, new = to + its, new + becomes
            else:  # a module from elsewhere
                y = stream.process(y)
        return y[:, 0] if single else y, to, new

    def process(self, block):
        """block: (T, B, I), or (T, B) integers -> (T, B, O); B may be left out as in `step`.

        Whatever it raises, an exception of a signal's handler (KeyboardInterrupt) among it, the states are as before.
        """
        y, to, new = self._advance(block)
        _core.copy_arrays(to, new)
        return y

    def reset(self, mask=None):
        """Zero the state, of all rows or of those where mask (B,) is true."""
        for stream in self._streams:
            stream.reset(mask)

    def close(self):
        """Ends the streams of all members."""
        for stream in self._streams:
            stream.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    @property
    def state(self):
        """The members' states, arranged as `Sequential` arranges them."""
        pairs = zip(self._streams, self._model, strict=True)
        return self._model._join([stream.state for stream, module in pairs if module.recurrent])

    @state.setter
    def state(self, value):
        before = [stream.state for stream in self._streams]
        try:
            for stream, own in zip(self._streams, self._model._split("state", value), strict=True):
                stream.state = own
        except Exception:
            for stream, own in zip(self._streams, before, strict=True):
                stream.state = own  # all or nothing
            raise
