"""Traces: what every cell tells of every step, and the types it comes in.

Letters in shapes: T steps, B batch rows, H hidden units, R the width of ``h``, L layers, D directions.
"""

from typing import NamedTuple

import numpy as np

from fastlstm.variants import cell_of


class Trace(NamedTuple):
    """Everything an LSTM computed, at every step; zero beyond each row's length.

    i, f, g, o: gates after their activation, (T, B, H), also those that are fixed or coupled;
    c: cell state, (T, B, H); h: output, (T, B, R). One array each when there is one layer and one
    direction; otherwise a list of L*D arrays, layer by layer, forward direction before reverse.
    """

    i: np.ndarray | list[np.ndarray]
    f: np.ndarray | list[np.ndarray]
    g: np.ndarray | list[np.ndarray]
    o: np.ndarray | list[np.ndarray]
    c: np.ndarray | list[np.ndarray]
    h: np.ndarray | list[np.ndarray]


class GRUTrace(NamedTuple):
    """Everything a GRU computed; r, z, n: gates after their activation, (T, B, H); h: output. As `Trace`."""

    r: np.ndarray | list[np.ndarray]
    z: np.ndarray | list[np.ndarray]
    n: np.ndarray | list[np.ndarray]
    h: np.ndarray | list[np.ndarray]


class RNNTrace(NamedTuple):
    """Everything a simple network computed; a: the activated sum, (T, B, H), and h: output, the same. As `Trace`.

    Of a clockwork RNN a is h: what a module that rests held on to.
    """

    a: np.ndarray | list[np.ndarray]
    h: np.ndarray | list[np.ndarray]


class DepthGatedTrace(NamedTuple):
    """Everything a depth-gated LSTM computed; d: depth gates, (T, B, H), zero in the first layer. As `Trace`."""

    i: np.ndarray | list[np.ndarray]
    f: np.ndarray | list[np.ndarray]
    g: np.ndarray | list[np.ndarray]
    o: np.ndarray | list[np.ndarray]
    d: np.ndarray | list[np.ndarray]
    c: np.ndarray | list[np.ndarray]
    h: np.ndarray | list[np.ndarray]


class LSTM1997Trace(NamedTuple):
    """Everything an LSTM of 1997 computed; i, o: gates of the blocks, (T, B, blocks); g, c, h: cells. As `Trace`."""

    i: np.ndarray | list[np.ndarray]
    g: np.ndarray | list[np.ndarray]
    o: np.ndarray | list[np.ndarray]
    c: np.ndarray | list[np.ndarray]
    h: np.ndarray | list[np.ndarray]


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
