"""Models that ONNX can express, one for everything that to_onnx knows; what their files are fed, what must come out.

CONSTANTS and bounds are numbers that float32 has.
"""

import numpy as np
import onnx
from grids import distance

import fastlstm as fl

I, H, V = 5, 7, 11
FILES = {"plain": {}, "state": {"state": True}, "lengths": {"lengths": True},
         "both": {"state": True, "lengths": True}}
CONSTANTS = {"hard_sigmoid": (0.3125, 0.375), "elu": (0.75,), "leaky_relu": (0.25,), "thresholded_relu": (0.125,),
             "scaled_tanh": (1.25, 0.75), "affine": (0.75, 0.125)}  # float32 has them
NAMES = ("sigmoid", "hard_sigmoid", "tanh", "relu", "identity", "softsign", "softplus", "elu", "leaky_relu",
         "thresholded_relu", "scaled_tanh", "affine")
ODD = [(name, *CONSTANTS[name]) if name in CONSTANTS else name for name in NAMES]
SOFT = (("hard_sigmoid", 0.25, 0.5), "softsign", ("scaled_tanh", 1.25, 0.75))
SHARP = (("hard_sigmoid", 0.5, 0.25), ("leaky_relu", 0.25), ("affine", 0.5, 0.125))
LAYERS = {
    "lstm": lambda **k: fl.LSTM(I, H, **k),
    "lstm, wide": lambda **k: fl.LSTM(19, 33, 2, **k),
    "lstm, one unit": lambda **k: fl.LSTM(1, 1, 2, bidirectional=True, **k),
    "lstm, no bias": lambda **k: fl.LSTM(I, H, 3, bias=False, bidirectional=True, **k),
    "lstm, batch first": lambda **k: fl.LSTM(I, H, 2, batch_first=True, **k),
    "lstm, sizes": lambda **k: fl.LSTM(I, [6, 3, 9], **k),
    "lstm, sizes, both ways": lambda **k: fl.LSTM(I, [6, 3], bidirectional=True, batch_first=True, **k),
    **{f"lstm, peephole {p}": lambda p=p, **k: fl.LSTM(I, H, 2, peephole=p, **k) for p in ("ifo", "i", "f", "o", "io")},
    "lstm, peepholes, both ways": lambda **k: fl.LSTM(I, H, peephole="if", bidirectional=True, **k),
    "lstm, f=1-i": lambda **k: fl.LSTM(I, H, 2, coupled="f=1-i", peephole="io", **k),
    "lstm, f=1-i, no bias": lambda **k: fl.LSTM(I, H, coupled="f=1-i", bias=False, bidirectional=True, **k),
    "lstm, i=1-f": lambda **k: fl.LSTM(I, H, 2, coupled="i=1-f", peephole="fo", clip=0.5, **k),
    "lstm, i=1-f, hard": lambda **k: fl.LSTM(I, H, coupled="i=1-f", peephole="f", activations=SOFT, **k),
    "lstm, i=1-f, affine": lambda **k: fl.LSTM(
        I, H, coupled="i=1-f", activations=(("affine", 0.25, 0.5), "tanh", "tanh"), **k),
    "lstm, clip": lambda **k: fl.LSTM(I, H, 2, clip=0.125, peephole="ifo", **k),
    "lstm, f=1-i, clip": lambda **k: fl.LSTM(I, H, coupled="f=1-i", clip=0.125, **k),
    "lstm, constants": lambda **k: fl.LSTM(I, H, 2, activations=SHARP, bidirectional=True, **k),
    "lstm, regularised": lambda **k: fl.LSTM(
        I, H, 2, dropout=0.5, variational_x=0.3, variational_h=0.3, recurrent_dropout=0.2, weight_drop=0.4, **k),
    "gru": lambda **k: fl.GRU(I, H, **k),
    "gru, everything": lambda **k: fl.GRU(I, H, 3, bidirectional=True, batch_first=True, clip=0.25, **k),
    "gru, sizes": lambda **k: fl.GRU(I, [6, 3], bias=False, **k),
    "gru, reset before": lambda **k: fl.GRU(I, H, 2, reset_after=False, bidirectional=True, **k),
    "gru, reset before, clip": lambda **k: fl.GRU(I, H, 2, reset_after=False, clip=0.125, bias=False, **k),
    "rnn": lambda **k: fl.RNN(I, H, **k),
    "rnn, relu": lambda **k: fl.RNN(I, H, 2, nonlinearity="relu", bidirectional=True, **k),
    "rnn, everything": lambda **k: fl.RNN(I, [6, 3], bias=False, batch_first=True, clip=0.25, bidirectional=True, **k),
    **{f"lstm, {a} of gates": lambda a=a, **k: fl.LSTM(I, H, activations=(a, "tanh", "tanh"), **k) for a in ODD},
    **{f"lstm, {a} of the candidate": lambda a=a, **k: fl.LSTM(
        I, H, activations=("sigmoid", a, "tanh"), bidirectional=True, **k) for a in ODD},
    **{f"lstm, {a} of the output": lambda a=a, **k: fl.LSTM(I, H, activations=("sigmoid", "tanh", a), **k)
       for a in ODD},
    # bounded, for ONNX Runtime's softplus is infinite where exp is, and this one runs away
    **{f"gru, {a} of gates": lambda a=a, **k: fl.GRU(
        I, H, activations=(a, "tanh"), clip=2.0 if a == "softplus" else None, **k) for a in ODD},
    **{f"gru, {a} of the candidate": lambda a=a, **k: fl.GRU(
        I, H, activations=("sigmoid", a), reset_after=False, **k) for a in ODD},
    **{f"rnn, {a}": lambda a=a, **k: fl.RNN(I, H, activations=(a,), bidirectional=True, **k) for a in ODD},
}


def both(merge, **k):
    return fl.Bidirectional(fl.LSTM(I, H, **k), fl.LSTM(I, H, activations=SHARP, **k), merge)


CHAINS = {
    "linear": lambda **k: fl.Linear(I, H, bias=False, **k),
    **{f"linear, {a}": lambda a=a, **k: fl.Linear(I, H, activation=a, **k)
       for a in ("relu", "tanh", "sigmoid", "softmax")},
    "embedding": lambda **k: fl.Embedding(V, I, **k),
    "reverse": lambda **k: fl.Reverse(fl.LSTM(I, H, 2, **k)),
    "reverse, as computed": lambda **k: fl.Reverse(fl.GRU(I, H, 2, **k), in_time=False),
    "reverse, batch first": lambda **k: fl.Reverse(fl.RNN(I, [6, 3], batch_first=True, **k), in_time=False),
    **{f"bidirectional, {m}": lambda m=m, **k: both(m, **k) for m in ("concat", "sum", "mul", "ave", None)},
    "bidirectional, pair, batch first": lambda **k: both(None, batch_first=True, **k),
    "bidirectional, cells": lambda **k: fl.Bidirectional(fl.GRU(I, H, 2, **k), fl.LSTM(I, [6, 3], **k)),
    "bidirectional, options": lambda **k: fl.Bidirectional(fl.GRU(I, H, **k), fl.GRU(I, H, clip=0.25, **k)),
    "bidirectional, two layers": lambda **k: fl.Bidirectional(fl.RNN(I, H, 2, **k), fl.RNN(I, H, 2, **k)),
    "last": lambda **k: fl.Last(fl.LSTM(I, H, **k)),
    "last, stack": lambda **k: fl.Last(fl.LSTM(I, [4, 6], bidirectional=True, batch_first=True, **k)),
    "last, reverse": lambda **k: fl.Last(fl.Reverse(fl.GRU(I, H, 2, **k), in_time=False)),
    **{f"last, bidirectional, {m}": lambda m=m, **k: fl.Last(both(m, **k)) for m in ("concat", "sum", "mul", "ave")},
    "words": lambda **k: fl.Sequential(
        fl.Embedding(V, I, **k), fl.LSTM(I, H, 2, **k), fl.Linear(H, 3, activation="softmax", **k)),
    "words, batch first": lambda **k: fl.Sequential(
        fl.Embedding(V, I, **k), fl.Bidirectional(*(fl.GRU(I, H, batch_first=True, **k) for _ in "ab")),
        fl.Last(fl.LSTM(2 * H, 4, peephole="ifo", batch_first=True, **k)), fl.Linear(4, 2, activation="relu", **k)),
    "nested": lambda **k: fl.Sequential(
        fl.Sequential(fl.Linear(I, 4, activation="tanh", **k), fl.RNN(4, 6, **k)),
        fl.Sequential(fl.Sequential(fl.Reverse(fl.GRU(6, 3, **k))), fl.LSTM(3, [2, 4], **k)), both_of(4, **k)),
}


def both_of(width, **k):
    return fl.Bidirectional(fl.LSTM(width, 3, **k), fl.LSTM(width, 3, coupled="f=1-i", **k), "mul")


MODELS = {**LAYERS, **CHAINS}


def made(name, dtype="float32"):
    """One of MODELS, all its weights from one generator."""
    return MODELS[name](dtype=dtype, rng=np.random.default_rng(3))


def fed(path, T, B, seed=5):
    """Name -> array for all inputs of a file."""
    rng, found = np.random.default_rng(seed), {}
    for end in onnx.load(path).graph.input:
        shape = [{"T": T, "B": B}.get(d.dim_param, d.dim_value) for d in end.type.tensor_type.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(end.type.tensor_type.elem_type)
        found[end.name] = rng.normal(size=shape).astype(dtype)
        if end.name == "lengths":
            found[end.name] = rng.integers(1, T + 1, shape).astype(dtype)
        elif dtype == np.int64:
            found[end.name] = rng.integers(0, V, shape)
    return found


def flat(value):
    if isinstance(value, (tuple, list)):
        return [array for one in value for array in flat(one)]
    return [value]


def filled(like, arrays):
    """The structure of a state with other arrays, of the same shapes."""
    if isinstance(like, (tuple, list)):
        return type(like)(filled(one, arrays) for one in like)
    found = next(arrays)
    assert found.shape == like.shape and found.dtype == like.dtype
    return found


def ours(model, feed, with_state):
    """What the model gives for what a file is fed: y (or both), then all of the last state, in the file's order."""
    if not model.recurrent:
        return [model(feed["x"])]
    given = {"lengths": feed["lengths"]} if "lengths" in feed else {}
    state, rest = None, iter([array for name, array in feed.items() if name not in ("x", "lengths")])
    if with_state:
        state = filled(model(feed["x"])[1], rest)
    assert next(rest, None) is None
    y, last = model(feed["x"], state, **given)
    return flat((y, last)) if with_state else flat(y)


def near(expected, found, limit):
    """Assert that arrays are as near as `limit`; the largest difference."""
    largest = 0.0
    for one, other in zip(expected, found, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        largest = max(largest, distance(one, other, max(1, np.abs(one).max(initial=0))))
    assert largest <= limit, largest
    return largest


def files(model):
    """Options of to_onnx that mean something for it."""
    return FILES if model.recurrent else {"plain": {}}
