"""Who takes part: fastlstm, the peers that are installed, and the rule that only equal results are timed."""

import warnings
from typing import Any, NamedTuple

import numpy as np

import fastlstm as fl

from . import peer_numpy, peer_onnxruntime, peer_openvino, peer_torch
from .problem import Call, Cannot, Problem

OWN = "fastlstm"
OWN_STEP = "fastlstm.step"  # the same step through a stream; beside the contest, not in it
OWN_AWAKE = "fastlstm.step awake"  # and with threads that wait for the next step
OWN_SINGLE = "fastlstm, 1 thread"
AWAKE = 200e-6  # seconds: longer than what is between the steps of a slot
PLAIN = "plain LSTM"  # fastlstm's, of the same sizes as a case of the family

# Name -> module with `version()`, which raises ImportError, and `entries(problem)`: name -> function that makes a Call
# or raises Cannot.
PEERS = {"torch": peer_torch, "onnxruntime": peer_onnxruntime, "openvino": peer_openvino, "numpy": peer_numpy}

ABOUT = {
    "torch": "PyTorch's own torch.nn.LSTM, GRU, RNN, in inference mode; autograd for training",
    "onnxruntime": "ONNX Runtime's operators LSTM, GRU, RNN",
    "openvino": "OpenVINO, with the same ONNX graph",
    "numpy": "a loop over time in plain NumPy, the input's products made at once",
}

# Largest difference, relative to the largest element of the array. A weight's gradient is a sum over all steps and
# rows, in an order of each contestant's own, hence the wider bound.
TOLERANCE = {"float32": 1e-5, "float64": 1e-13}
GRADIENT_TOLERANCE = {"float32": 1e-4, "float64": 1e-12}


def is_own(name):
    """Whether a contestant is fastlstm in one way or another, and so no rival."""
    return name.startswith(OWN) or name == PLAIN


class Entry(NamedTuple):
    """A contestant of one case, ready to be timed with `threads` threads."""

    name: str
    call: Any
    threads: int


class Field(NamedTuple):
    """The contestants of one case; and by name why others do not take part: `refused` cannot, `dropped` is wrong."""

    entries: list
    refused: dict
    dropped: dict


def find_peers(names):
    """(name -> module, name -> version or why it is absent) of the peers asked for."""
    found, versions = {}, {}
    for name in names:
        try:
            versions[name] = PEERS[name].version()
            found[name] = PEERS[name]
        except Exception as error:  # a broken installation raises whatever it likes
            versions[name] = f"absent ({' '.join(str(error).split()) or type(error).__name__})"
    return found, versions


def field(problem, peers=None, scaling=False):
    """The Field of a problem: fastlstm first, then `peers` (name -> module) that can, and agree with it."""
    made = {OWN: (own(problem), problem.threads)}
    if problem.case.plain:
        made[PLAIN] = own(Problem(problem.case.plain, problem.threads)), problem.threads
    if problem.case.mode == "step" and not problem.case.bidirectional:
        made[OWN_STEP] = own_step(problem), problem.threads
        if problem.threads > 1:
            made[OWN_AWAKE] = own_step(problem, AWAKE), problem.threads
    if scaling and problem.threads > 1:
        made[OWN_SINGLE] = own(problem, 1), 1
    refused, dropped = {}, {}
    for module in (peers or {}).values():
        for name, make in module.entries(problem).items():
            try:
                made[name] = make(), problem.threads
            except Cannot as reason:
                refused[name] = str(reason)
            except Exception as error:  # a peer's own failure must not end the run of the others
                dropped[name] = _failed(error)
    expected = None
    entries = []
    for name, (call, threads) in made.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "not the fast path": the figures will say so
                call.run()
            found = call.results()
        except Exception as error:
            if is_own(name):
                raise
            dropped[name] = _failed(error)
            continue
        expected = found if expected is None else expected
        words = None if name == PLAIN else difference(expected, found, problem.case)  # it computes something else
        if words:
            dropped[name] = words
        else:
            entries.append(Entry(name, call, threads))
    return Field(entries, refused, dropped)


def _failed(error):
    return f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def difference(expected, found, case):
    """None, or in words how the results of two contestants differ. Both must hold y, or a gradient at least."""
    common = [name for name in expected if name in found]
    if not common:
        return "nothing to compare with"
    for name in common:
        a, b = np.asarray(expected[name]), np.asarray(found[name])
        if a.shape != b.shape:
            return f"{name} has shape {b.shape}, expected {a.shape}"
        wide = name.startswith(("weight", "bias"))
        allowed = (GRADIENT_TOLERANCE if wide else TOLERANCE)[case.dtype]
        with np.errstate(invalid="ignore"):
            apart = np.abs(a.astype(np.float64) - b).max() / max(np.abs(a).max(), np.finfo(case.dtype).tiny)
        if not apart <= allowed:  # a NaN is no agreement
            return f"{name} differs by {apart:.1e} of its largest element, {allowed:.0e} allowed"
    return None


# ---- fastlstm ---------------------------------------------------------------------------------------------------


def _handed(state):
    """A problem's state as a layer takes it: a tuple, or h alone."""
    found = tuple(state.values())
    return found if len(found) > 1 else found[0]


def own(problem, threads=None):
    """The layer call of fastlstm."""
    layer, x, lengths = problem.layer(threads), problem.x, problem.lengths
    kept = {}
    if problem.case.mode == "train":

        def run():
            kept["y"], _, cache = layer.forward(x, lengths=lengths, cache=True)
            kept["grads"] = layer.backward(problem.dy, cache, input_gradient=False)[2]

        return Call(run, lambda: {"y": kept["y"], **kept["grads"]})
    if problem.case.mode == "step":
        state = _handed(problem.state)

        def run():
            kept["y"], kept["state"] = layer(x, state)

        def results():
            parts = kept["state"] if isinstance(kept["state"], tuple) else (kept["state"],)
            return {"y": kept["y"], **{f"{name}n": part for name, part in zip(problem.state, parts, strict=True)}}

        return Call(run, results)

    def run():
        kept["y"], _ = layer(x, lengths=lengths)

    return Call(run, lambda: {"y": kept["y"]})


def own_step(problem, awake=0.0):
    """The step of a stream that keeps its state: the first one from the problem's, the next from there on."""
    layer = problem.layer()
    stream, x = layer.stream(problem.case.batch, awake=awake), problem.x[0]
    stream.state = _handed(problem.state)
    out = np.empty((problem.case.batch, problem.case.recurrent), problem.case.dtype)
    first = []

    def run():
        stream.step(x, out=out)

    def results():
        first[:] = first or [out.copy()]
        return {"y": first[0][None]}

    return Call(run, results)


def own_version():
    """The version of fastlstm and the instruction set it runs on."""
    return f"{fl.__version__} ({fl.isa()})"
