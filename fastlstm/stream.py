"""Streaming: one step or one block at a time, the state kept between calls.

`Stream` serves a recurrent layer, `StatelessStream` a module without memory; `SequentialStream` (sequential.py)
chains them.
"""

import dataclasses

import numpy as np

from . import _core
from .arguments import check_x, real_array
from .params import _as_array, _check_size
from .ragged import ChainStepper
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


class _Closed:
    """What a closed stream has for a stepper."""

    def step(self, x, out=None):
        raise RuntimeError("the stream is closed: open another one with stream()")


class Stream:
    """A recurrent layer at work on an endless sequence; from ``layer.stream(batch_size)``.

    T calls of `step` give, bit for bit, what one call of the layer gives on the whole sequence, and so does any split
    into blocks. The weights are those of the moment the stream was opened. One stream serves one thread at a time;
    any number of streams of the same layer run side by side.

    With `awake` a step may run on several threads, which then keep their processors busy for so many seconds while they
    wait for the next step. They stop when the stream is closed or dropped, and when the thread that made the last step
    ends. A stream is a context manager that closes itself.
    """

    def __init__(self, packed, spec, batch_size=1, threads=0, awake=0.0):
        if spec.directions != 1:
            raise ValueError("a bidirectional model cannot stream: its reverse direction starts at the sequence's end")
        self.batch_size = _check_size("batch_size", batch_size)
        self._packed, self._threads = packed, threads
        self._spec = dataclasses.replace(spec, batch_first=False)
        self._state = new_state(spec, self.batch_size, np.zeros)
        stepper = ChainStepper if spec.ragged else _core.Stepper
        self._stepper = stepper(packed, self.batch_size, self._state, threads, check_awake(awake))

    def step(self, x, out=None):
        """x (B, I) -> h (B, R) of the last layer; (I,) -> (R,) when batch_size is 1.

        out: a C-contiguous (B, R) array of the layer's dtype to write into; then nothing is allocated.
        Raises ValueError or TypeError for anything that does not fit; the state is then as before.
        """
        y = self._stepper.step(x, out)
        return y if y is not None else self._step_any(x, out)

    def _step_any(self, x, out):
        array = real_array("x", x, self._spec.dtype)
        single = array.ndim == 1 and self.batch_size == 1
        expected = (self.batch_size, self._spec.input_size)
        if (array.shape if not single else (1, *array.shape)) != expected:
            raise ValueError(f"x has shape {array.shape}, expected {expected} = (batch_size, input_size)")
        array = np.require(array.reshape(expected), requirements=("C", "A"))
        y = self._checked_out(out, single)
        self._stepper.step(array, y)
        return out if out is not None else y[0] if single else y

    def _checked_out(self, out, single):
        shape = (self.batch_size, self._spec.recurrent)
        if out is None:
            return np.empty(shape, self._spec.dtype)
        fits = isinstance(out, np.ndarray) and out.dtype == self._spec.dtype and out.flags.carray
        if not fits or out.shape != (shape[1:] if single else shape):
            found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
            raise ValueError(
                f"out must be a writable C-contiguous {self._spec.dtype} array of shape {shape}, got {found}"
            )
        return out.reshape(shape)

    def _advance(self, block):
        """``y, to, new``: `process`, but for the state, whose arrays `to` are to become `new`."""
        if isinstance(self._stepper, _Closed):
            self._stepper.step(block)
        x, layout = check_x(self._spec, block)
        if layout.batch != self.batch_size:
            raise ValueError(f"block has {layout.batch} rows, the stream was opened with batch_size {self.batch_size}")
        y, new = np.empty(layout.shape(self._spec.outputs), self._spec.dtype), new_state(self._spec, self.batch_size)
        self._packed.forward(x, self._state, layout.inward(y), new, None, None, self._threads)
        return y, arrays_of(self._state), arrays_of(new)

    def process(self, block):
        """block (T, B, I) -> y (T, B, R); (T, I) -> (T, R) when batch_size is 1. T may be 0.

        Whatever it raises, an exception of a signal's handler (KeyboardInterrupt) among it, the state is as before.
        """
        y, to, new = self._advance(block)
        _core.copy_arrays(to, new)
        return y

    def close(self):
        """Ends the stream: its threads sleep, and a further step or block is a RuntimeError."""
        if not isinstance(self._stepper, _Closed):
            self._stepper.release()
            self._stepper = _Closed()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    @property
    def _layout(self):
        return Layout(1, self.batch_size, True, False)

    @property
    def state(self):
        """Copies of the state, as a call of the layer returns it: (h, c) of shapes (L, B, R) and (L, B, H), h alone of
        a GRU or RNN, and so on. Assign the same to continue from it, None for zeros."""
        return outward(self._spec, copied(self._state), self._layout)

    @state.setter
    def state(self, value):
        assign(self._state, check_state(self._spec, value, self._layout))

    def reset(self, mask=None):
        """Zero the state of all rows, or of those where mask (B,) is true (an episode has ended there)."""
        if mask is None:
            mask = np.ones(self.batch_size, bool)
        mask = np.asarray(mask)
        if mask.shape != (self.batch_size,) or mask.dtype.kind not in "biu":
            raise ValueError(
                f"mask must hold {self.batch_size} booleans, one per row; got {mask.dtype} of shape {mask.shape}"
            )
        for a in arrays_of(self._state):
            a[:, mask != 0] = 0


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
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a numpy array, got {type(out).__name__}")
    if out.shape != shape or out.dtype != dtype:
        raise ValueError(f"out is {out.dtype} {out.shape}, expected {dtype} {shape}")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ValueError("out must be C-contiguous and writeable")


class StatelessStream:
    """The calls of a recurrent stream for a module that has nothing to remember.

    The weights are those of the moment the stream was opened.
    """

    def __init__(self, module, batch_size=1):
        self.batch_size = _check_size("batch_size", batch_size)
        self._module, self._snapshot = module, module._snapshot()
        self._axes = module.row_axes

    def _run(self, x, lead):
        x, single = batched(x, self.batch_size, lead, self._axes)
        y, _ = self._module._apply(x, self._snapshot)
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

    def _advance(self, block):
        return self._run(block, 1), [], []

    def reset(self, mask=None):
        """Nothing to forget."""

    def close(self):
        """Nothing to end."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    @property
    def state(self):
        """None."""
        return None

    @state.setter
    def state(self, value):
        if value is not None:
            raise ValueError(f"{type(self._module).__name__} has no state; state must be None")
