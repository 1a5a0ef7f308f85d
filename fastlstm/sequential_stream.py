"""The streams of a `Sequential`: one for every member, one after the other; and states of members as one."""

import copy
from contextlib import contextmanager, nullcontext

import numpy as np

from . import _core
from .arguments import check_mask
from .params import _check_size
from .stream import Session, StatelessStream, batched, check_out, closed


def split_state(recurrent, what, value):
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


def join_state(recurrent, values):
    """The inverse of `split_state` for a list with one entry per recurrent member."""
    if not values:
        return None
    return values[0] if sum(recurrent) == 1 else tuple(values)


def _changes_during_block(stream):
    """Whether its state changes while a block passes, as that of somebody else's stream."""
    return not hasattr(stream, "_advance") or getattr(stream, "_others", False)


class SequentialStream(Session):
    """A session over a chain: one stream per member, each with its own state.

    The weights are those of the moment the stream was opened. What passes between the members
    lives in buffers of this object; only the last member's result is new at each step. One call
    at a time, copies and pickles: as of a `Stream`.
    """

    def __init__(self, model, widths, batch_size=1, awake=0.0):
        self._batch_size = _check_size("batch_size", batch_size)
        with model._locked():  # all members at the same moment
            options = {"awake": awake} if awake else {}  # modules from outside this package may not know it
            self._streams = [module.stream(batch_size, **options) for module in model]
        self._recurrent, self._closed, self._steps_differ = model._flags, False, False
        self._axes, self._dtype = model.row_axes, model.dtype
        pairs = zip(self._streams, self._recurrent, strict=True)
        self._others = any(flag and _changes_during_block(stream) for stream, flag in pairs)
        self._widths = widths
        self._start()

    def _start(self):
        self._busy = _core.Busy()
        self._between = [
            None if width is None else np.empty((self._batch_size, width), self._dtype) for width in self._widths[:-1]
        ]
        self._counts_before = self._counts()

    def _content(self):
        own = "_busy", "_between", "_counts_before"
        found = {name: value for name, value in vars(self).items() if name not in own}
        ours = Session, StatelessStream  # a copy of another's stream may share the state
        streams = [copy.copy(one) if isinstance(one, ours) else copy.deepcopy(one) for one in self._streams]
        return {**found, "_streams": streams}

    def _parts(self):
        if self._closed:
            return None
        return {"batch_size": self._batch_size} | {f"({k})": one for k, one in enumerate(self._streams)}

    def step(self, x_t, out=None):
        """x_t: (B, I), or (B,) integers -> y: (B, O), written to `out` if given.

        With batch_size 1 the batch axis may be left out, of x_t and so of y and out.
        Raises TypeError, ValueError or IndexError before any state has moved. When a signal's handler, or a member of
        others, raises between the members, these are at different steps: until `state` is assigned, or `reset` for all
        rows, further calls raise RuntimeError. If all members had made the step, or none, nothing is lost: the state is
        that of after the step or that of before.
        """
        return self._busy.run(self._step, x_t, out)

    def _check_open(self):
        if self._closed:
            raise closed()
        if self._steps_differ:
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
            self._steps_differ = True  # until it is known, as a second signal may come
            self._steps_differ = self._uneven(place)
            raise
        if out is not None:
            return out
        return y[0] if single else y

    def _counts(self):
        """How many steps each stepper of the recurrent members has made; none for a member of others."""
        found = []
        for stream, flag in zip(self._streams, self._recurrent, strict=True):
            found += stream._counts() if flag and hasattr(stream, "_counts") else []
        return found

    def _uneven(self, place):
        """Whether the recurrent members are at different steps, after a step that raised in the member at `place`.

        `_counts_before` has the counts of a moment when all were at the same step. A member may have made its step and
        not have returned, so the counts say it. Members of others have none: those before `place` have made theirs.
        """
        if self._others:
            return any(self._recurrent[:place]) and any(self._recurrent[place:])
        return len({now - then for now, then in zip(self._counts(), self._counts_before, strict=True)}) > 1

    def process(self, block):
        """block: (T, B, I), or (T, B) integers -> (T, B, O); B may be left out as in `step`.

        The state is as before when it raises.
        """
        return self._busy.run(self._process, block)

    def _process(self, block):
        self._check_open()
        y, single = batched(block, self._batch_size, 1, self._axes)
        with self._all_or_nothing() if self._others else nullcontext():
            y, to, new = self._advance(y)
            _core.write_all(to, new)
        return y[:, 0] if single else y

    def _advance(self, y):
        """``y, to, new``: the members one after the other, the arrays of their states, and what these are to become."""
        to, new = [], []
        for stream in self._streams:
            if hasattr(stream, "_advance"):
                y, its, becomes = stream._advance(y)
                to, new = to + its, new + becomes
            else:  # without a state, or of a class from outside this package
                y = stream.process(y)
        return y, to, new

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
        if mask is None:
            self._steps_agree()

    def _steps_agree(self):
        """All members are at the same step."""
        self._counts_before = self._counts()
        self._steps_differ = False

    def close(self):
        """Ends the streams of all members: a further step or block is a RuntimeError."""
        self._busy.run(self._close)

    def _close(self):
        self._closed = True
        for stream in self._streams:
            getattr(stream, "close", lambda: None)()  # modules from outside this package may have nothing to end

    @property
    def state(self):
        """The members' states, arranged as `Sequential` arranges them."""
        return self._busy.run(self._give_state)

    def _give_state(self):
        pairs = zip(self._streams, self._recurrent, strict=True)
        return join_state(self._recurrent, [stream.state for stream, flag in pairs if flag])

    @state.setter
    def state(self, value):
        self._busy.run(self._take_state, value)

    def _take_state(self, value):
        with self._all_or_nothing():
            for stream, own in zip(self._streams, split_state(self._recurrent, "state", value), strict=True):
                stream.state = own
        self._steps_agree()
