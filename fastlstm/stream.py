"""Streaming: one step or one block at a time, the state kept between calls.

`Stream` serves a recurrent layer, `StatelessStream` a module without memory; `SequentialStream` (sequential_stream.py)
chains them. ``copy.copy``, ``copy.deepcopy`` and ``pickle`` give an independent stream with the same state, weights and
settings: copies share what never changes, a `Origin`; a pickle has the weights in it.
"""

import dataclasses

import numpy as np

from . import _core
from .arguments import check_mask, check_x, is_array, real_array
from .attributes import kept
from .module import _rebuild
from .params import _as_array, _check_size
from .ragged import ChainStepper, pack
from .reprs import told
from .spec import Layout
from .states import arrays_of, assign, check_state, copied, new_state, outward

LONGEST_AWAKE = 1.0  # seconds


def check_awake(awake):
    """awake, in seconds, as nanoseconds. Raises TypeError or ValueError unless it is a number from 0 to 1."""
    if isinstance(awake, bool) or not isinstance(awake, (int, float, np.integer, np.floating)):
        raise TypeError(f"awake must be a number of seconds, got {type(awake).__name__}")
    if not 0 <= awake <= LONGEST_AWAKE:
        raise ValueError(f"awake must be in 0..{LONGEST_AWAKE:g} seconds, got {awake}")
    return int(awake * 1e9)


class Origin:
    """What a recurrent layer's stream was opened with, and its copies share: nothing in it changes.

    packed: the model, made of `weights` (name -> array, from ``Module._lend_weights``) with the rates `zoneout`.
    threads: what a call may use, 0 for the process's setting. A pickle has all but the model, which is packed again.
    """

    def __init__(self, spec, packed, weights, zoneout, threads):
        self.spec = dataclasses.replace(spec, batch_first=False)
        self.packed, self.weights, self.zoneout, self.threads = packed, weights, zoneout, threads

    def __deepcopy__(self, memo):
        return self

    def __getstate__(self):
        return {**vars(self), "packed": None, "weights": dict(self.weights)}

    def __setstate__(self, found):
        from .machine import settle

        vars(self).update(found)
        settle(self.threads or None)
        self.packed = pack(self.spec, self.weights, False, *self.zoneout)


class _Closed:
    """What a closed stream has for a stepper."""

    def step(self, x, out=None):
        raise closed()

    step_inside = step

    def counts(self):
        return []


def _shown(stream):
    """The repr of a stream."""
    name, parts = type(stream).__name__, stream._parts()
    return f"{name}(closed)" if parts is None else told(name, parts)


def closed():
    """The error of a call of a closed stream."""
    return RuntimeError("the stream is closed: open another one with stream()")


class Session:
    """What streams with a state share: one call at a time, copies, ``with``. `_content` and `_start` are a subclass's.

    Whatever uses the state passes through ``self._busy.run``, but for a step of a `Stream`: its stepper takes the same
    flag itself, and gives it back.
    """

    batch_size = kept("batch_size", "open another stream")

    def _content(self):
        """Attributes as a copy or a pickle takes them, with states of its own."""
        raise NotImplementedError

    def _start(self):
        """Make what `_content` leaves out."""
        raise NotImplementedError

    def __getstate__(self):
        return self._busy.run(self._content)

    def __setstate__(self, content):
        vars(self).update(content)
        self._start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def _parts(self):
        """Name -> what `told` shows of an open stream; None of a closed one."""
        raise NotImplementedError

    def __repr__(self):
        return _shown(self)


class Stream(Session):
    """A recurrent layer at work on an endless sequence; from ``layer.stream(batch_size)``.

    T calls of `step` give, bit for bit, what one call of the layer gives on the whole sequence, and so does any split
    into blocks. The weights are those of the moment the stream was opened. Any number of streams of the same layer run
    side by side. One stream serves one call at a time: while a call of any kind is under way, another one, of another
    thread or of what the first call runs (``x.__array__``), is a RuntimeError and changes nothing.

    Copies (copy.copy, copy.deepcopy) have a state of their own and share the packed weights, so they are cheap. A
    pickle holds the weights. A stream keeps the arrays of its weights beside the packed ones: those of the layer, as
    long as they do not change; so a layer that is trained while a stream is open, or dropped before it, costs one more
    copy of the weights until the stream is closed or dropped.

    With `awake` a step may run on several threads, which then keep their processors busy for so many seconds while they
    wait for the next step. They stop when the stream is closed or dropped, and when the thread that made the last step
    ends. A stream is a context manager that closes itself.
    """

    def __init__(self, origin, batch_size=1, awake=0.0):
        if origin.spec.directions != 1:
            raise ValueError("a bidirectional model cannot stream: its reverse direction starts at the sequence's end")
        self._batch_size = _check_size("batch_size", batch_size)
        self._origin, self._spec, self._awake_ns = origin, origin.spec, check_awake(awake)
        self._state = new_state(self._spec, self._batch_size, np.zeros)
        self._start()

    def _start(self):
        self._busy = _core.Busy()
        if self._origin is None:
            self._stepper = _Closed()
            return
        stepper = ChainStepper if self._spec.ragged else _core.Stepper
        self._stepper = stepper(
            self._origin.packed, self._batch_size, self._state, self._origin.threads, self._awake_ns, self._busy
        )

    def _content(self):
        found = {name: value for name, value in vars(self).items() if name not in ("_busy", "_stepper")}
        return {**found, "_state": copied(self._state)}

    def _parts(self):
        if self._origin is None:
            return None
        state = outward(self._spec, self._state, self._layout)
        state = state if len(self._spec.states) > 1 else (state,)
        found = {"model": f"{self._spec}", "batch_size": self._batch_size}
        return found | dict(zip(self._spec.states, state, strict=True))

    def step(self, x, out=None):
        """x (B, I) -> h (B, R) of the last layer; (I,) -> (R,) when batch_size is 1.

        out: a C-contiguous (B, R) array of the layer's dtype to write into; then nothing is allocated.
        Raises ValueError or TypeError for anything that does not fit; the state is then as before. A step that is ended
        by the exception of a signal's handler may have been made: the state is that of before the step or that of after
        it, never a mixture.
        """
        y = self._stepper.step(x, out)
        return y if y is not None else self._busy.run(self._step_any, x, out)

    def _step_any(self, x, out):
        array = real_array("x", x, self._spec.dtype)
        single = array.ndim == 1 and self._batch_size == 1
        expected = (self._batch_size, self._spec.input_size)
        if (array.shape if not single else (1, *array.shape)) != expected:
            raise ValueError(f"x has shape {array.shape}, expected {expected} = (batch_size, input_size)")
        array = np.require(array.reshape(expected), requirements=("C", "A"))
        y = self._checked_out(out, single)
        self._stepper.step_inside(array, y)
        return out if out is not None else y[0] if single else y

    def _checked_out(self, out, single):
        shape = (self._batch_size, self._spec.recurrent)
        if out is None:
            return np.empty(shape, self._spec.dtype)
        fits = is_array(out) and out.dtype == self._spec.dtype and out.flags.carray
        if not fits or out.shape != (shape[1:] if single else shape):
            found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
            raise ValueError(
                f"out must be a writable C-contiguous {self._spec.dtype} array of shape {shape}, got {found}"
            )
        return np.asarray(out).reshape(shape)

    def _counts(self):
        """How many steps each stepper has made since the stream was opened or copied."""
        return self._stepper.counts()

    def process(self, block):
        """block (T, B, I) -> y (T, B, R); (T, I) -> (T, R) when batch_size is 1. T may be 0.

        Raises as `step` does; the state is then as before.
        """
        return self._busy.run(self._process, block)

    def _process(self, block):
        y, to, new = self._advance(block)
        _core.write_all(to, new)
        return y

    def _advance(self, block):
        """``y, to, new``: a block's output, the arrays of the state, and what they are to become."""
        if self._origin is None:
            raise closed()
        x, layout = check_x(self._spec, block)
        if layout.batch != self._batch_size:
            raise ValueError(f"block has {layout.batch} rows, the stream was opened with batch_size {self._batch_size}")
        y = np.empty(layout.shape(self._spec.outputs), self._spec.dtype)
        ends = new_state(self._spec, self._batch_size)  # not over the state, which stays if the call is given up
        self._origin.packed.forward(x, self._state, layout.inward(y), ends, None, None, self._origin.threads)
        return y, arrays_of(self._state), arrays_of(ends)

    def _replace(self, state):
        _core.write_all(arrays_of(self._state), arrays_of(state))

    def close(self):
        """Ends the stream: its threads sleep, its weights are let go, and a further step or block is a RuntimeError."""
        self._busy.run(self._close)

    def _close(self):
        if self._origin is not None:
            self._stepper.release()
            self._stepper, self._origin = _Closed(), None

    @property
    def _layout(self):
        return Layout(1, self._batch_size, True, False)

    @property
    def state(self):
        """Copies of the state, as a call of the layer returns it: (h, c) of shapes (L, B, R) and (L, B, H), h alone of
        a GRU or RNN, and so on. Assign the same to continue from it, None for zeros."""
        return outward(self._spec, self._busy.run(copied, self._state), self._layout)

    @state.setter
    def state(self, value):
        self._busy.run(self._take_state, value)

    def _take_state(self, value):
        found = new_state(self._spec, self._batch_size, np.zeros)
        assign(found, check_state(self._spec, value, self._layout))
        self._replace(found)

    def reset(self, mask=None):
        """Zero the state of all rows, or of those where mask is true (an episode has ended there).

        mask: (B,) booleans. ValueError for anything else, integers among it, which could be row numbers.
        """
        self._busy.run(self._reset, mask)

    def _reset(self, mask):
        mask, found = check_mask(mask, self._batch_size), copied(self._state)
        for a in arrays_of(found):
            a[:, mask] = 0
        self._replace(found)


def batched(x, batch_size, lead, row_axes):
    """x with its batch axis, and whether that had to be added (one row may come without it).

    lead: axes before the batch axis, 0 for a step and 1 for a block.
    """
    x = _as_array(x)
    single = batch_size == 1 and x.ndim == lead + row_axes
    if single:
        x = np.expand_dims(x, lead)
    if x.ndim != lead + 1 + row_axes or x.shape[lead] != batch_size:
        expected = "(" + "T, " * lead + "B" + ", I" * row_axes + ")"
        raise ValueError(f"x has shape {x.shape}, expected {expected} with batch_size B = {batch_size}")
    return x, single


def check_out(out, shape, dtype):
    """TypeError or ValueError unless out is a writable C-contiguous array of that shape and dtype."""
    if not is_array(out):
        raise TypeError(f"out must be a numpy array without a mask, got {type(out).__name__}")
    if out.shape != shape or out.dtype != dtype:
        raise ValueError(f"out is {out.dtype} {out.shape}, expected {dtype} {shape}")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ValueError("out must be C-contiguous and writeable")


class StatelessOrigin:
    """What a `StatelessStream` was opened with, and its copies share: the module, and its weights of that moment.

    A pickle has the module with these weights.
    """

    def __init__(self, module):
        self.module = module
        with module._lock:  # both of one moment
            self.snapshot, self.weights = module._snapshot(), module._lend_weights()

    def __deepcopy__(self, memo):
        return self

    def __getstate__(self):
        of = self.module
        return _rebuild(type(of), of.config(), dict(self.weights), of._extras())

    def __setstate__(self, module):
        self.__init__(module)


class StatelessStream:
    """The calls of a recurrent stream for a module that has nothing to remember.

    The weights are those of the moment the stream was opened. Any number of threads may use it at a time. Copies share
    the weights, a pickle holds them.
    """

    batch_size = kept("batch_size", "open another stream")

    def __init__(self, module, batch_size=1):
        self._batch_size = _check_size("batch_size", batch_size)
        self._origin, self._name = StatelessOrigin(module), type(module).__name__

    def _run(self, x, lead):
        origin = self._origin  # once: another thread may close the stream meanwhile
        if origin is None:
            raise closed()
        module = origin.module
        x, single = batched(x, self._batch_size, lead, module.row_axes)
        y, _ = module._apply(x, origin.snapshot)
        return y.squeeze(lead) if single else y

    def step(self, x_t, out=None):
        """x_t: (B, I), or (B,) integers -> y: (B, O), written to `out` if given.

        With batch_size 1 the batch axis may be left out, of x_t and so of y.
        """
        y = self._run(x_t, 0)
        if out is None:
            return y
        check_out(out, y.shape, y.dtype)
        out[...] = y
        return out

    def process(self, block):
        """block: (T, B, I), or (T, B) integers -> (T, B, O); B may be left out as in `step`."""
        return self._run(block, 1)

    def reset(self, mask=None):
        """Nothing to forget. ValueError for a mask that does not hold (B,) booleans, as of other streams."""
        check_mask(mask, self._batch_size)

    def close(self):
        """Lets the weights go: a further step or block is a RuntimeError."""
        self._origin = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def _parts(self):
        origin = self._origin
        return None if origin is None else {"model": origin.module, "batch_size": self._batch_size}

    def __repr__(self):
        return _shown(self)

    @property
    def state(self):
        """None."""
        return None

    @state.setter
    def state(self, value):
        if value is not None:
            raise ValueError(f"{self._name} has no state; state must be None")
