"""Traces: what every cell tells of every step, and the types it comes in.

Letters in shapes: T steps, B batch rows, H hidden units, R the width of ``h``, L layers, D directions.
"""

from typing import NamedTuple

import numpy as np

from fastlstm.reprs import fields_told
from fastlstm.variants import cell_of


class Trace(NamedTuple):
    """Everything an LSTM computed, at every step; zero beyond each row's length.

    Each field is a list of L*D arrays, layer by layer, forward direction before reverse; of one layer and direction
    a list of one. i, f, g, o: gates after their activation, (T, B, H), also those that are fixed or coupled; c: cell
    state, (T, B, H); h: output, (T, B, R); in the layout of x.

    >>> _, _, trace = LSTM(40, 128, num_layers=2)(x, trace=True)  # doctest: +SKIP
    >>> trace.f[0].shape, trace.f[1].shape  # the forget gates of both layers
    ((100, 8, 128), (100, 8, 128))
    """

    i: list[np.ndarray]
    f: list[np.ndarray]
    g: list[np.ndarray]
    o: list[np.ndarray]
    c: list[np.ndarray]
    h: list[np.ndarray]

    __repr__ = fields_told


class GRUTrace(NamedTuple):
    """Everything a GRU computed; r, z, n: gates after their activation, (T, B, H); h: output. As `Trace`."""

    r: list[np.ndarray]
    z: list[np.ndarray]
    n: list[np.ndarray]
    h: list[np.ndarray]

    __repr__ = fields_told


class RNNTrace(NamedTuple):
    """Everything a simple network computed; a: the activated sum, (T, B, H), and h: output, the same. As `Trace`.

    Of a clockwork RNN a is h: what a module that rests held on to.
    """

    a: list[np.ndarray]
    h: list[np.ndarray]

    __repr__ = fields_told


class DepthGatedTrace(NamedTuple):
    """Everything a depth-gated LSTM computed; d: depth gates, (T, B, H), zero in the first layer. As `Trace`."""

    i: list[np.ndarray]
    f: list[np.ndarray]
    g: list[np.ndarray]
    o: list[np.ndarray]
    d: list[np.ndarray]
    c: list[np.ndarray]
    h: list[np.ndarray]

    __repr__ = fields_told


class LSTM1997Trace(NamedTuple):
    """Everything an LSTM of 1997 computed; i, o: gates of the blocks, (T, B, blocks); g, c, h: cells. As `Trace`."""

    i: list[np.ndarray]
    g: list[np.ndarray]
    o: list[np.ndarray]
    c: list[np.ndarray]
    h: list[np.ndarray]

    __repr__ = fields_told


# Cell -> the type of its trace, whose fields are `Variant.traced`, whatever the options.
TRACES = {
    "lstm": Trace,
    "gru": GRUTrace,
    "rnn": RNNTrace,
    "depth_gated": DepthGatedTrace,
    "clockwork": RNNTrace,
    "lstm_1997": LSTM1997Trace,
}


def trace_of(cell):
    """The type of the trace of a `Variant`, or of a cell's name. ValueError lists the names there are."""
    return TRACES[cell_of(cell).cell]
