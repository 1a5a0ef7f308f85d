"""What a layer of each cell multiplies at a step: the products of docs/equations.md, and nothing else.

Peepholes, norms, activations and everything else that takes an element at a time are not counted.
"""

from typing import NamedTuple


class Part(NamedTuple):
    """Rows of weights that are used together.

    inputs: columns that meet the input, which is known beforehand; state: columns that meet what the recurrence itself
    has made. share: the part of the steps at which they are used.
    """

    rows: int
    inputs: int
    state: int
    share: float = 1


def parts(v, inputs, hidden, proj=0, first=True):
    """The parts of one direction of a layer. v: its `Variant`; first: whether it is the lowest layer of its stack."""
    if v.cell == "clockwork":
        return _modules(v.periods, inputs, hidden)
    rows = v.rows(hidden)
    found = [Part(rows, inputs, rows if v.cell == "lstm_1997" else proj or hidden)]  # its gates are fed back too
    if proj:
        found.append(Part(proj, 0, hidden))
    if v.gate_recurrence:
        found.append(Part(3 * hidden, 0, 3 * hidden))
    if v.cell == "depth_gated" and not first:
        found.append(Part(hidden, inputs, 0))
    return found


def _modules(periods, inputs, hidden):
    """A part for each module of a clockwork, which hears those whose period is at least its own."""
    units = hidden // len(periods)
    return [Part(units, inputs, units * sum(other >= own for other in periods), 1 / own) for own in periods]
