"""Sequential: modules one after the other, a whole small model with the calls of its parts."""

import copy
from contextlib import contextmanager

import numpy as np

from . import _core
from .arguments import check_mask
from .concurrency import at_one_moment
from .container import Container
from .last import Last
from .module import Module
from .network import Embedding
from .params import _check_size
from .stream import Session, StatelessStream, batched, check_out, closed
from .wrappers import Bidirectional


def _widths(module):
    """(features taken, features given), None where a module does not say."""
    if isinstance(module, Sequential):
        first = last = module
        while isinstance(first, Sequential):
            first = first[0]
        while isinstance(last, Sequential):
            last = last[-1]
        return _widths(first)[0], _widths(last)[1]
    if isinstance(module, Embedding):
        return None, module.embedding_dim
    if hasattr(module, "hidden_size"):
        directions = 2 if getattr(module, "bidirectional", False) else 1
        hidden = module.hidden_size[-1] if isinstance(module.hidden_size, (tuple, list)) else module.hidden_size
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
    met, dtype = set(), None
    for place, module in enumerate(modules):
        if not isinstance(module, Module):
            raise TypeError(f"member {place} must be a Module, got {type(module).__name__}")
        if id(module) in met:
            raise ValueError(f"member {place} is in the chain twice; weights cannot be shared")
        met.add(id(module))
        dtype = dtype or module.dtype
        if module.dtype != dtype:
            raise ValueError(f"member {place} is {module.dtype}, member 0 is {dtype}")
        if place == 0:
            continue
        given, taken = _widths(modules[place - 1])[1], _widths(module)[0]
        if None not in (given, taken) and given != taken:
            raise ValueError(f"member {place} takes {taken} features, member {place - 1} gives {given}")
    _check_sequences(modules)


def _split(recurrent, what, value):
    """One entry per member out of a state or dstate; None for members without memory. recurrent: a flag per member."""
    count = sum(recurrent)
    if value is None:
        entries = [None] * count
    elif count == 1:
        entries = [value]
    elif isinstance(value, (tuple, list)) and len(value) == count:
        entries = list(value)
    else:
        raise ValueError(f"{what} must be None or a tuple of {count}, one per recurrent member")
    rest = iter(entries)
    return [next(rest) if flag else None for flag in recurrent]


def _join(recurrent, values):
    """The inverse of `_split` for a list with one entry per recurrent member."""
    if not values:
        return None
    return values[0] if sum(recurrent) == 1 else tuple(values)


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
        self._flags = tuple(module.recurrent for module in modules)

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
        return _split(self._flags, what, value)

    def _join(self, values):
        return _join(self._flags, values)

    @at_one_moment
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


class SequentialStream(Session):
    """A session over a chain: one stream per member, each with its own state.

    The weights are those of the moment the stream was opened. What passes between the members
    lives in buffers of this object; only the last member's result is new at each step. One call
    at a time, copies and pickles: as of a `Stream`.
    """

    def __init__(self, model, batch_size=1, awake=0.0):
        self._batch_size = _check_size("batch_size", batch_size)
        with model._locked():  # all members at the same moment
            options = {"awake": awake} if awake else {}  # modules from elsewhere may not know it
            self._streams = [module.stream(batch_size, **options) for module in model]
        self._recurrent, self._closed, self._torn = model._flags, False, False
        self._axes, self._dtype = model.row_axes, model.dtype
        self._widths = [_widths(module)[1] for module in model]
        self._start()

    def _start(self):
        self._busy = _core.Busy()
        self._between = [
            None if width is None else np.empty((self._batch_size, width), self._dtype) for width in self._widths[:-1]
        ]

    def _content(self):
        found = {name: value for name, value in vars(self).items() if name not in ("_busy", "_between")}
        ours = Session, StatelessStream  # a copy of another's stream may share the state
        streams = [copy.copy(one) if isinstance(one, ours) else copy.deepcopy(one) for one in self._streams]
        return {**found, "_streams": streams}

    def step(self, x_t, out=None):
        """x_t: (B, I), or (B,) integers -> y: (B, O), written to `out` if given.

        With batch_size 1 the batch axis may be left out, of x_t and so of y and out.
        Raises TypeError, ValueError or IndexError before any state has moved. When a signal's handler, or a member of
        others, raises between the members, these are at different steps: until `state` is assigned, or `reset` for all
        rows, further calls raise RuntimeError.
        """
        return self._busy.run(self._step, x_t, out)

    def _check_open(self):
        if self._closed:
            raise closed()
        if self._torn:
            words = "its members are at different steps: assign state or call reset()"
            raise RuntimeError(f"a step of the stream was given up half-way, and {words}")

    def _step(self, x_t, out):
        self._check_open()
        y, single = batched(x_t, self._batch_size, 0, self._axes)
        whole, width = out, self._widths[-1]
        if out is not None and width is not None:
            # Found only by the last member, a bad `out` would leave the others a step ahead.
            shape = (width,) if single else (self._batch_size, width)
            check_out(out, shape, self._dtype)
            whole = out.reshape(self._batch_size, width)  # contiguous, so the same memory
        place = 0
        try:
            for stream, between in zip(self._streams, [*self._between, whole], strict=True):
                y = stream.step(y, out=between)
                place += 1
        except BaseException:
            self._torn = any(self._recurrent[:place]) and any(self._recurrent[place:])
            raise
        if out is not None:
            return out
        return y[0] if single else y

    def process(self, block):
        """block: (T, B, I), or (T, B) integers -> (T, B, O); B may be left out as in `step`.

        The state is as before when it raises.
        """
        return self._busy.run(self._process, block)

    def _process(self, block):
        self._check_open()
        y, single = batched(block, self._batch_size, 1, self._axes)
        with self._all_or_nothing():
            for stream in self._streams:
                y = stream.process(y)
        return y[:, 0] if single else y

    @contextmanager
    def _all_or_nothing(self):
        """The states of all members are as before when what is inside raises, or a signal's handler does."""
        streams = [stream for stream, flag in zip(self._streams, self._recurrent, strict=True) if flag]
        before = [stream.state for stream in streams]
        try:
            yield
        except BaseException:
            for stream, state in zip(streams, before, strict=True):
                stream.state = state
            raise

    def reset(self, mask=None):
        """Zero the state, of all rows or of those where mask, (B,) booleans, is true; ValueError for another mask."""
        self._busy.run(self._reset, mask)

    def _reset(self, mask):
        mask = None if mask is None else check_mask(mask, self._batch_size)
        with self._all_or_nothing():
            for stream in self._streams:
                stream.reset(mask)
        self._torn = self._torn and mask is not None

    def close(self):
        """Ends the streams of all members: a further step or block is a RuntimeError."""
        self._busy.run(self._close)

    def _close(self):
        self._closed = True
        for stream in self._streams:
            getattr(stream, "close", lambda: None)()  # modules from elsewhere may have nothing to end

    @property
    def state(self):
        """The members' states, arranged as `Sequential` arranges them."""
        return self._busy.run(self._give_state)

    def _give_state(self):
        pairs = zip(self._streams, self._recurrent, strict=True)
        return _join(self._recurrent, [stream.state for stream, flag in pairs if flag])

    @state.setter
    def state(self, value):
        self._busy.run(self._take_state, value)

    def _take_state(self, value):
        with self._all_or_nothing():
            for stream, own in zip(self._streams, _split(self._recurrent, "state", value), strict=True):
                stream.state = own
        self._torn = False
