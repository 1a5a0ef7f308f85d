"""States, from the caller to the core and back.

Inside, a state is a tuple with one entry per name of ``Variant.states``: an array (L*D, B, W), None for zeros, or,
when the layers differ in size, a list with an array (D, B, W) for each layer. The caller has the entry itself if there
is only one, no B when unbatched, and lists of L*D arrays (B, W) of layers that differ.

Letters: B rows, L layers, D directions, W the width of a state: R of h, H of c, 1 of t.
"""

import numpy as np

from .arguments import contiguous, real_array

LETTERS = {"h": "R", "c": "H", "t": "1", "gates": "gates"}


def new_state(spec, batch, make=np.empty):
    """A state to be written; make=np.zeros: one to start from."""
    if not spec.ragged:
        return tuple(make((spec.slots, batch, width), spec.dtype) for width in spec.widths[0].values())
    return tuple([make((spec.directions, batch, one[name]), spec.dtype) for one in spec.widths] for name in spec.states)


def arrays_of(state):
    """All arrays of a state inside, in a list."""
    return [a for entry in state if entry is not None for a in (entry if isinstance(entry, list) else [entry])]


def copied(state):
    """A state that shares no memory with this one."""
    return tuple([a.copy() for a in entry] if isinstance(entry, list) else _copy(entry) for entry in state)


def _copy(entry):
    return None if entry is None else entry.copy()


def assign(state, values):
    """Write values, a state whose entries may be None, over state."""
    for entry, value in zip(state, values, strict=True):
        mine = arrays_of((entry,))
        for a, new in zip(mine, [0] * len(mine) if value is None else arrays_of((value,)), strict=True):
            a[...] = new


def outward(spec, state, layout):
    """A state as the caller sees it."""

    def entry(found):
        if isinstance(found, list):
            return [a[d] if layout.batched else a[d, 0] for a in found for d in range(spec.directions)]
        return found if layout.batched else found[:, 0]

    found = tuple(entry(one) for one in state)
    return found if len(found) > 1 else found[0]


def check_state(spec, state, layout, form="{}0", argument="state"):
    """The caller's state as one of the inside, contiguous and of the model's dtype; all None for None.

    form, argument: what its parts and the whole are called in errors: TypeError for a wrong structure or for what holds
    no numbers, ValueError for wrong shapes and for a step count of a clockwork that is none.
    """
    if state is None:
        return (None,) * len(spec.states)
    names = [form.format(name) for name in spec.states]
    given = [state] if len(names) == 1 else state
    if len(names) == 1 and isinstance(state, tuple) and not spec.ragged:
        words = f"{argument} must be an array {names[0]}, got tuple of {len(state)}"
        raise TypeError(f"{words}: this cell has no c")
    if not isinstance(given, (tuple, list)) or len(given) != len(names):
        what = type(state).__name__ + (f" of {len(state)}" if isinstance(state, (tuple, list)) else "")
        kind = "a pair" if len(names) == 2 else "a tuple"
        raise TypeError(f"{argument} must be {kind} ({', '.join(names)}), got {what}")
    found = tuple(
        None if value is None else _check_entry(spec, key, name, value, layout)
        for key, name, value in zip(spec.states, names, given, strict=True)
    )
    if argument == "state" and "t" in spec.states:
        _check_steps(names[-1], found[-1])
    return found


def _check_entry(spec, key, name, value, layout):
    if not spec.ragged:
        lead = (spec.slots,)
        return _check_array(spec, key, name, value, (*lead, layout.batch, spec.widths[0][key]), layout)
    if not isinstance(value, (tuple, list)) or len(value) != spec.slots:
        what = type(value).__name__ + (f" of {len(value)}" if isinstance(value, (tuple, list)) else "")
        words = f"{name} must be a list of {spec.slots} arrays, one per layer and direction as hidden_size differs"
        raise TypeError(f"{words}; got {what}")
    found = new_state(spec, layout.batch, np.zeros)[spec.states.index(key)]
    for k, one in enumerate(value):
        layer, direction = divmod(k, spec.directions)
        if one is not None:
            shape = (layout.batch, spec.widths[layer][key])
            found[layer][direction] = _check_array(spec, key, f"{name}[{k}]", one, shape, layout)
    return found


def _check_array(spec, key, name, value, shape, layout):
    """shape: that of the inside, with B."""
    array = real_array(name, value, spec.dtype)
    expected = shape if layout.batched else (*shape[:-2], shape[-1])
    if array.shape != expected:
        letters = ", ".join(["L*D"] * (len(shape) - 2) + ["B"] * layout.batched + [LETTERS[key]])
        raise ValueError(f"{name} has shape {array.shape}, expected {expected} = ({letters})")
    return contiguous(array.reshape(shape))


def _check_steps(name, entry):
    """A clockwork reads the count of steps modulo its periods: anything else but whole numbers has no meaning."""
    for a in arrays_of((entry,)):
        if not ((a >= 0) & (a == np.floor(a)) & (a < np.inf)).all():
            raise ValueError(f"{name} must hold whole numbers of steps, from 0 on")
