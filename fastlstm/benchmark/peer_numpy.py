"""NumPy: the loop over time that people write, done with care.

The input's product of all steps is one matrix product, biases and gates are stacked, gates are computed in place and
nothing is allocated inside the loop.
"""

import contextlib
import ctypes
from pathlib import Path

import numpy as np

from .problem import Call, Cannot


def version():
    """NumPy's version."""
    return np.__version__


def entries(problem):
    """One contestant."""
    return {"numpy": lambda: _make(problem)}


def _make(problem):
    case = problem.case
    if problem.lengths is not None:
        raise Cannot("its loop takes rows of one length only")
    if case.mode == "train":
        raise Cannot("it has no gradients")
    if case.options or case.cell not in _CELLS:
        raise Cannot("it is written for plain cells")
    limit_threads(problem.threads)
    kept = {}

    def run():
        kept["found"] = _forward(case, problem.weights, problem.x, problem.state)

    def results():
        y, states = kept["found"]
        if case.mode != "step":
            return {"y": y}
        return {"y": y, **{f"{name}n": np.stack([s[name] for s in states]) for name in problem.state}}

    return Call(run, results)


def _forward(case, weights, x, state):
    """y and, per layer and direction, the last state by name."""
    last = []
    for layer in range(case.layers):
        outputs = []
        for end in ("", "_reverse")[: case.directions]:
            get = {kind: weights.get(f"{kind}_l{layer}{end}") for kind in _KINDS}
            given = {name: value[len(last)] for name, value in (state or {}).items()}
            y, found = _CELLS[case.cell](get, x[::-1] if end else x, given)
            outputs.append(y[::-1] if end else y)
            last.append(found)
        x = outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=2)
    return x, last


_KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


def _product(x, weight, bias):
    """x (T, B, I) -> (T, B, rows), one product."""
    steps, batch, inputs = x.shape
    return (x.reshape(-1, inputs) @ weight.T + bias).reshape(steps, batch, -1)


def _sigmoid(a):
    np.negative(a, out=a)
    np.exp(a, out=a)
    a += 1
    np.reciprocal(a, out=a)


def _start(x, width, given):
    return given.copy() if given is not None else np.zeros((x.shape[1], width), x.dtype)


def _lstm(w, x, given):
    hidden = w["weight_hh"].shape[0] // 4
    project, recurrent = w["weight_hr"], w["weight_hh"].T
    a = _product(x, w["weight_ih"], w["bias_ih"] + w["bias_hh"])
    h, c = _start(x, recurrent.shape[0], given.get("h")), _start(x, hidden, given.get("c"))
    y = np.empty((*x.shape[:2], recurrent.shape[0]), x.dtype)
    gates, scratch = np.empty_like(a[0]), np.empty_like(c)
    i, f, g, o = (gates[:, k * hidden : (k + 1) * hidden] for k in range(4))
    for t in range(len(x)):
        np.matmul(h, recurrent, out=gates)
        gates += a[t]
        _sigmoid(gates[:, : 2 * hidden])
        np.tanh(g, out=g)
        _sigmoid(o)
        c *= f
        np.multiply(i, g, out=scratch)
        c += scratch
        np.tanh(c, out=scratch)
        if project is None:
            np.multiply(o, scratch, out=y[t])
        else:
            scratch *= o
            np.matmul(scratch, project.T, out=y[t])
        h = y[t]
    return y, {"h": h, "c": c}


def _gru(w, x, given):
    hidden = w["weight_hh"].shape[0] // 3
    recurrent = w["weight_hh"].T
    a = _product(x, w["weight_ih"], w["bias_ih"])
    h = _start(x, hidden, given.get("h"))
    y = np.empty((*x.shape[:2], hidden), x.dtype)
    b = np.empty_like(a[0])
    r, z, n = (b[:, k * hidden : (k + 1) * hidden] for k in range(3))
    for t in range(len(x)):
        np.matmul(h, recurrent, out=b)
        b += w["bias_hh"]
        b[:, : 2 * hidden] += a[t][:, : 2 * hidden]
        _sigmoid(b[:, : 2 * hidden])
        n *= r
        n += a[t][:, 2 * hidden :]
        np.tanh(n, out=n)
        np.subtract(h, n, out=y[t])
        y[t] *= z
        y[t] += n
        h = y[t]
    return y, {"h": h}


def _rnn(w, x, given):
    recurrent = w["weight_hh"].T
    y = _product(x, w["weight_ih"], w["bias_ih"] + w["bias_hh"])
    h = _start(x, recurrent.shape[0], given.get("h"))
    for t in range(len(x)):
        y[t] += h @ recurrent
        h = np.tanh(y[t], out=y[t])
    return y, {"h": h}


_CELLS = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}


def limit_threads(threads):
    """Ask the BLAS that NumPy's wheels bring along for so many threads; another BLAS keeps its own number.

    If that is more, the run says so: the processor time of every contestant is watched.
    """
    folders = (Path(np.__file__).parent.parent / "numpy.libs", Path(np.__file__).parent / ".dylibs")
    for path in (path for folder in folders for path in folder.glob("*openblas*")):
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(str(path))
            for name in ("scipy_openblas", "openblas"):
                for end in ("64_", ""):
                    function = getattr(library, f"{name}_set_num_threads{end}", None)
                    if function is not None:
                        function(ctypes.c_int(threads))
                        return
