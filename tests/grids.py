"""Problems for the tests of the engine: sizes, features, data, what the reference says, and how far apart two are.

Letters in shapes: T steps, B rows, I inputs, H hidden units, P projected units, R = P or H, L layers, D directions.
"""

import functools
import math
import os
import platform
import signal
import subprocess
import sys
import threading
from typing import NamedTuple

import numpy as np
import pytest

import fastlstm as fl
from fastlstm import _core, reference

LAYERS = {"lstm": fl.LSTM, "gru": fl.GRU, "rnn": fl.RNN}  # cell -> the class that runs it
ISAS = ("neon", "scalar") if platform.machine() in ("aarch64", "arm64") else ("avx512", "avx2", "scalar")
DTYPES = ("float32", "float64")
WIDE = np.longdouble
openmp = pytest.mark.skipif(not _core.has_openmp(), reason="built without OpenMP")
wider_than_double = pytest.mark.skipif(
    np.finfo(WIDE).eps >= np.finfo(np.float64).eps, reason="long double is double here"
)


class Case(NamedTuple):
    """One problem: sizes and features. lengths: None, "ragged", "zero" or a tuple."""

    T: int = 5
    B: int = 3
    I: int = 6
    H: int = 9
    layers: int = 1
    bidirectional: bool = False
    proj: int = 0
    bias: bool = True
    lengths: str | tuple | None = None
    reset: bool = False
    state: bool = True
    cell: str = "lstm"

    @property
    def directions(self):
        return 2 if self.bidirectional else 1

    @property
    def outputs(self):
        """D*R."""
        return self.directions * (self.proj or self.H)


STACK = Case(T=7, B=9, I=15, H=17, layers=3, bidirectional=True, proj=5)
FEATURES = {
    "one step": Case(T=1),
    "one row": Case(T=7, B=1),
    "one row, wide": Case(T=13, B=1, I=20, H=99),
    "one row, wide, everything": Case(T=12, B=1, I=17, H=97, layers=2, bidirectional=True, proj=40, reset=True),
    "one of everything": Case(1, 1, 1, 1),
    "no state": Case(T=7, state=False),
    "no bias": Case(T=7, bias=False),
    "two layers": Case(T=7, layers=2),
    "three layers": Case(T=33, B=5, H=16, layers=3),
    "bidirectional": Case(T=7, B=5, H=33, bidirectional=True),
    "bidirectional, one step": Case(T=1, bidirectional=True, layers=2),
    "projection": Case(T=7, B=5, H=33, proj=7),
    "projection to one unit": Case(T=7, B=2, H=2, proj=1),
    "wide projection": Case(T=7, B=2, H=65, proj=64),
    "lengths": Case(T=7, B=9, lengths="ragged"),
    "all lengths zero": Case(T=2, B=2, lengths="zero"),
    "lengths, bidirectional": Case(T=7, B=9, bidirectional=True, lengths="ragged"),
    "lengths, one step": Case(T=1, B=5, bidirectional=True, lengths="ragged"),
    "reset": Case(T=7, B=5, reset=True),
    "reset, bidirectional": Case(T=7, B=5, bidirectional=True, reset=True),
    "reset, lengths": Case(T=33, B=5, reset=True, lengths="ragged"),
    "wide input, few rows": Case(T=33, B=2, I=40, lengths="ragged", reset=True, bidirectional=True),
    "stack": STACK,
    "ragged stack": STACK._replace(lengths="ragged"),
    "everything": STACK._replace(T=33, B=5, lengths="ragged", reset=True, bias=False),
    "everything, one direction": STACK._replace(T=33, B=17, bidirectional=False, lengths="ragged", reset=True),
}

# Plans that really split, proven where they are used: split -> threads that give it on the machine of the fixture
# `favour`, and sizes.
SPLITS = {
    "rows": ((2, 3, 4), Case(T=6, B=17, I=64, H=96, layers=2)),
    "rows, everything": (
        (2, 3, 4), Case(T=9, B=33, I=40, H=48, layers=2, bidirectional=True, proj=20, lengths="ragged", reset=True)
    ),
    "blocks": ((2, 3, 4), Case(T=5, B=3, I=128, H=200, layers=2)),
    "blocks, everything": (
        (3, 4), Case(T=6, B=3, I=100, H=180, layers=2, bidirectional=True, proj=90, lengths="ragged", reset=True)
    ),
    "blocks, one row": ((2, 3), Case(T=23, B=1, I=128, H=296)),
    "blocks, one row, everything": (
        (4,), Case(T=17, B=1, I=100, H=297, layers=2, bidirectional=True, proj=90, lengths=(15,), reset=True)
    ),
    "directions": (
        (2,), Case(T=6, B=3, I=100, H=150, layers=2, bidirectional=True, proj=90, lengths="ragged", reset=True)
    ),
}


class Problem:
    """A `Case` with its numbers; arrays are read-only, so every use is also a test that inputs are left alone."""

    def __init__(self, case, dtype, seed=1):
        self.case, self.dtype, self.seed = case, np.dtype(dtype), seed
        rng = np.random.default_rng([seed, *case[:5]])
        T, B, I, H, L, D = *case[:5], case.directions
        R = case.proj or H

        def normal(*shape):
            array = rng.normal(size=shape).astype(dtype)
            array.flags.writeable = False
            return array

        self.x, self.dy = normal(T, B, I), normal(T, B, case.outputs)
        self.state = (normal(L * D, B, R), normal(L * D, B, H)) if case.state else None
        self.dstate = normal(L * D, B, R), normal(L * D, B, H)
        if case.cell != "lstm":  # no c
            self.state, self.dstate = self.state[0] if case.state else None, self.dstate[0]
        self.lengths = self._lengths(rng)
        self.reset = rng.random((T, B)) < 0.3 if case.reset else None
        if case.reset and T and B:
            self.reset[0, 0] = True
        self.masks = ((rng.random((L - 1, T, B, case.outputs)) < 0.7) / 0.7).astype(dtype)

    def _lengths(self, rng):
        T, B = self.case.T, self.case.B
        if self.case.lengths == "ragged":
            found = rng.integers(0, T + 1, B)
            found[: min(B, 3)] = [T // 2 + 1, 0, T][: min(B, 3)]
            return found
        if self.case.lengths == "zero":
            return np.zeros(B, int)
        return None if self.case.lengths is None else np.array(self.case.lengths, int)

    @property
    def given(self):
        """Keywords of a call beside x, where there is something to say: plain calls have a shorter way."""
        return present(state=self.state, lengths=self.lengths, reset=self.reset)

    def layer(self, **options):
        """A new layer, packed when first used; the same weights every time."""
        c = self.case
        return LAYERS[c.cell](
            c.I, c.H, c.layers, bias=c.bias, bidirectional=c.bidirectional, dtype=self.dtype, rng=self.seed,
            **({"proj_size": c.proj} if c.proj else {}), **options,
        )

    @functools.cached_property
    def weights(self):
        return self.layer().state_dict()

    @functools.lru_cache(maxsize=4)  # noqa: B019 (problems live as long as the session)
    def reference(self, wide=np.float64, masks=False):
        """y, (hn, cn), cache of the reference on these very weights."""
        c, given = self.case, self.given
        if "state" in given:
            given["state"] = as_tuple(given["state"])
        y, state, cache = reference.forward(
            self.weights, self.x, cell=c.cell, num_layers=c.layers, bidirectional=c.bidirectional, proj_size=c.proj,
            dropout_masks=self.masks if masks else None, dtype=wide, **given,
        )
        return y, state if len(state) == 2 else state[0], cache

    @functools.lru_cache(maxsize=4)  # noqa: B019
    def gradients(self, wide=np.float64, masks=False):
        """Name -> array: x, h0, c0 and every weight, by the reference."""
        return flat(reference.backward(self.reference(wide, masks)[2], self.dy, as_tuple(self.dstate)))


@functools.cache
def problem(case, dtype, seed=1):
    return Problem(case, dtype, seed)


def present(**keywords):
    return {name: value for name, value in keywords.items() if value is not None}


def bound(steps, dtype):
    """What docs/numerics.md promises of a forward pass, relative to the largest element."""
    return 4 * math.ceil(math.log2(9 * max(steps, 1))) * np.finfo(dtype).eps


def distance(a, b, scale=None):
    """Largest difference relative to `scale`, the largest element of b (absolute if 0); inf for a lone NaN."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape, (a.shape, b.shape)
    if a.size == 0:
        return 0.0
    scale = np.abs(b).max() if scale is None else scale
    found = np.abs(a - b).max() / (scale or 1)
    return float(found) if np.isfinite(found) else math.inf


def same(a, b):
    """Assert equal to the last bit, dtype and shape included (-0 and 0 differ, a NaN equals itself)."""
    if isinstance(a, (tuple, list)):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            same(one, other)
        return
    assert a.dtype == b.dtype
    assert a.shape == b.shape, (a.shape, b.shape)
    bits = f"u{a.dtype.itemsize}"
    differ = np.ascontiguousarray(a).view(bits) != np.ascontiguousarray(b).view(bits)
    assert not differ.any(), f"{differ.sum()} of {differ.size} differ, first at {np.argwhere(differ)[0]}"


def flat(gradients):
    """dx, (dh0, dc0), grads -> name -> array; dh0 alone of a cell without c."""
    dx, dstate, grads = gradients
    return {"x": dx, **dict(zip(("h0", "c0"), as_tuple(dstate), strict=False)), **grads}


def as_tuple(state):
    """(h, c), or (h,) for h alone."""
    return state if isinstance(state, tuple) else (state,)


def assert_split(layer, split, threads, steps, batch, **kind):
    """That a call of this size would really be divided so: a thread test on one thread proves nothing."""
    if not _core.has_openmp():
        pytest.skip("built without OpenMP")
    found = layer._packed().plan(steps, batch, threads=threads, **kind)
    assert (found["threads"], found["split"]) == (threads, split)


# For `says`: a model that runs on two threads, proven, and its answer.
def at_once(callers, seconds=None):
    """Run them all at the same time; re-raise what any of them raised. seconds: fail if one has not ended by then."""
    failures, gate = [], threading.Barrier(len(callers))

    def run(caller):
        try:
            gate.wait()
            caller()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(caller,), daemon=seconds is not None) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    assert not any(thread.is_alive() for thread in threads), "they wait for each other"
    if failures:
        raise failures[0]


def traced(trace, function):
    """Calls function() with `trace` as `sys.settrace` takes it."""
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return function()
    finally:
        sys.settrace(before)


BEGIN = """
import os, signal, sys, threading, time
import numpy as np
import fastlstm as fl
from fastlstm import _core

x = np.random.default_rng(0).normal(size=(4, 2, 128)).astype(np.float32)
model = fl.LSTM(128, 200, num_threads=2, rng=1)
assert model.plan(4, 2).threads == 2, model.plan(4, 2)

def answer():
    y, _, cache = model.forward(x, cache=True)
    grads = model.backward(y, cache)[2]
    return (model(x)[0].tobytes(), y.tobytes(), *(g.tobytes() for g in grads.values()))
"""


def python(code, timeout=120, **environment):
    """(exit status, stdout, stderr) of a fresh interpreter that imports the installed package."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("FASTLSTM_", "OMP_", "GOMP_", "KMP_"))}
    env["FASTLSTM_MACHINE"] = "default"
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code], env=env | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its children too
        process.communicate()
        pytest.fail(f"nothing came for {timeout} s")
    return process.returncode, out, err


def interrupted(function, error, at):
    """Call `function`; in the call number `at` inside the package `error` is raised. Whether it got so far.

    The beginning of a call is one of the places where Python runs signal handlers.
    """
    left = at

    def called(frame, *_):
        nonlocal left
        if f"{os.sep}fastlstm{os.sep}" in frame.f_code.co_filename:
            left -= 1
            if left == 0:
                raise error

    traced(called, function)
    return left <= 0


def says(code, timeout=120, **environment):
    """Lines that `code` prints; it must not fail."""
    status, out, err = python(code, timeout, **environment)
    assert status == 0, err[-2000:]
    return out.split("\n")[:-1]
