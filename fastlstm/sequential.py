"""Sequential: modules one after the other, a whole small model with the calls of its parts."""

import functools
import inspect
import operator
from typing import Any, NamedTuple

import numpy as np

from .arguments import _read
from .concurrency import at_one_moment
from .container import Container, is_ours, run
from .last import Last
from .module import Module
from .network import Embedding
from .params import check_flag
from .reprs import fields_told
from .sequential_stream import SequentialStream, join_state, split_state
from .stateless import BOTH, Handed, Stateless, valid_positions
from .wrappers import Bidirectional

_FIXED = "the members of a Sequential are fixed"


def at_end(module, place):
    """The first (place 0) or last (-1) member of a chain, of the chain in that place, and so on; else the module."""
    while isinstance(module, Sequential):
        module = module[place]
    return module


def _widths(module):
    """(features taken, features given), None where a module does not say."""
    if isinstance(module, Sequential):
        return _widths(at_end(module, 0))[0], _widths(at_end(module, -1))[1]
    if isinstance(module, Embedding):
        return None, module.embedding_dim
    if hasattr(module, "hidden_size"):
        directions = 2 if getattr(module, "bidirectional", False) else 1
        hidden = module.hidden_size[-1] if isinstance(module.hidden_size, (tuple, list)) else module.hidden_size
        width = getattr(module, "proj_size", 0) or hidden
        return module.input_size, directions * width
    return getattr(module, "in_features", None), getattr(module, "out_features", None)


def _flat(module):
    """The members of a chain, those of chains inside among them, in order."""
    return [leaf for one in module for leaf in _flat(one)] if isinstance(module, Sequential) else [module]


def _check_sequences(modules):
    """Who takes sequences must be given one, in one layout."""
    ended, layout = None, None
    for place, module in enumerate(modules):
        for leaf in _flat(module):
            if ended is not None and (leaf.recurrent or ended[1] == "a pair"):
                what = "sequences" if leaf.recurrent else "an array"
                raise ValueError(f"member {place} takes {what}, member {ended[0]} gives {ended[1]}")
            if isinstance(leaf, Last):
                ended = place, "one output per row"
            elif isinstance(leaf, Bidirectional) and leaf.merge is None:
                ended = place, "a pair"
            first = getattr(leaf, "batch_first", None)
            if first is not None:
                if layout is not None and first != layout[1]:
                    raise ValueError(f"member {place} has batch_first={first}, member {layout[0]} {layout[1]}")
                layout = layout or (place, first)


def _check_chain(modules):
    if not modules:
        raise ValueError("Sequential needs at least one module")
    met, dtype = set(), None
    for place, module in enumerate(modules):
        if not isinstance(module, Module):
            raise TypeError(f"member {place} must be a Module, got {type(module).__name__}")
        if id(module) in met:
            raise ValueError(f"member {place} is in the chain twice; weights cannot be shared")
        met.add(id(module))
        dtype = dtype or module.dtype
        if module.dtype != dtype:
            raise ValueError(f"member {place} is {module.dtype}, member 0 is {dtype}")
        if place == 0:
            continue
        given, taken = _widths(modules[place - 1])[1], _widths(module)[0]
        if None not in (given, taken) and given != taken:
            raise ValueError(f"member {place} takes {taken} features, member {place - 1} gives {given}")
    _check_sequences(modules)


# ---- calls of members -------------------------------------------------------------------------------------------


class _Padded(NamedTuple):
    """The cache of a stateless member that is not of this package, in a call with lengths."""

    core: Any
    valid: np.ndarray  # as `valid_positions` gives it

    __repr__ = fields_told


def _cleared(a, valid):
    """A copy of an array whose first axes are those of `valid`, with zeros beyond the lengths."""
    a = np.array(a)
    a[~valid] = 0
    return a


def _is_ours(module):
    """Whether y of a module is known to be nobody else's: its forward, and those of all its members, are ours."""
    return is_ours(type(module)) and all(_is_ours(part) for part in getattr(module, "_parts", {}).values())


@functools.cache
def _takes_lengths(kind):
    parameters = inspect.signature(kind.forward).parameters
    return "lengths" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _copied(name, value):
    """What every member is to see alike, whoever changes it meanwhile."""
    return None if value is None else _read(name, value).copy()


class _Call:
    """One forward call of a chain: its options, and which positions count where that matters."""

    def __init__(self, lengths, reset, trace, cache, batch_first, moment):
        self.lengths, self.reset = _copied("lengths", lengths), _copied("reset", reset)
        self.trace, self.cache = trace, cache
        self.batch_first, self.moment = batch_first, moment
        self._valid = None  # (booleans or None,), once they have been asked for

    def valid(self, module, x):
        """The positions within the lengths as `valid_positions` tells them; x: what `module` is given."""
        if self.lengths is None:
            return None
        if self._valid is None:
            self._valid = (valid_positions(x.shape, module.row_axes, self.lengths, self.batch_first),)
        return self._valid[0]

    def member(self, module, x, state, handed):
        """``y, state``, then trace and cache as far as they are asked for and the module has them.

        handed: of the member's own x and y; None when no cache is asked for.
        """
        if isinstance(module, Sequential) and type(module).forward is Sequential.forward:
            trace = self.trace and module.recurrent
            inner = _Call(self.lengths, self.reset, trace, self.cache, self.batch_first, self.moment)
            return module._run(x, state, inner, handed)
        if module.recurrent:
            options = {"lengths": self.lengths, "reset": self.reset, "trace": self.trace, "cache": self.cache}
            return run(module, x, state, self.moment, **options)
        if self.lengths is not None:
            x = _read("x", x)
        valid = self.valid(module, x)
        if isinstance(module, Stateless) and type(module).forward is Stateless.forward:
            taken = self.moment.get(id(module))
            snapshot = None if taken is None else taken.arrays if taken.panels is None else taken.panels
            y, kept = module._apply(x, snapshot, valid, handed)
            return (y, None, kept) if self.cache else (y, None)
        return self._foreign(module, x, valid)

    def _foreign(self, module, x, valid):
        """A stateless member of somebody else: it is given zeros beyond the lengths, and gives zeros there."""
        options = {"lengths": self.lengths} if self.lengths is not None and _takes_lengths(type(module)) else {}
        if valid is None:
            return module.forward(x, cache=self.cache, **options)
        y, _, *extras = module.forward(_cleared(x, valid), cache=self.cache, **options)
        if y.shape[: valid.ndim] == valid.shape:
            y = _cleared(y, valid)
        else:  # no sequence any more
            self.lengths = None
        return (y, None, *(_Padded(one, valid) for one in extras))


def _backward(module, dy, cache, dstate, options):
    """The backward call of a member; see `_Call._foreign`."""
    if not isinstance(cache, _Padded):
        return module.backward(dy, cache, dstate, **options)
    dy = _read("dy", dy)
    if dy.shape[: cache.valid.ndim] == cache.valid.shape:
        dy = _cleared(dy, cache.valid)
    dx, *rest = module.backward(dy, cache.core, dstate, **options)
    return (None if dx is None else _cleared(dx, cache.valid), *rest)


class Sequential(Container):
    """Modules one after the other: a whole small model, with the calls of its parts.

    Weights are named by place: ``0.weight``, ``1.weight_ih_l0``, ... State, trace and dstate are
    those of the recurrent member when there is exactly one, otherwise a tuple with one entry per
    recurrent member in order; a Sequential inside counts as one member. Without any, a call
    returns y alone. `lengths` go to all members: beyond a row's length nothing is looked at, and y
    and dx are 0, also of an Embedding or a Linear; whatever x and dy hold there, no gradient
    follows. Behind a `Last` there are no positions, and lengths end. The losses of this package
    take the same `lengths` and leave those positions out. `reset` and `trace` are for the
    recurrent members only.

    ``model[k]`` is a member, ``model[a:b]`` a Sequential of the same members, and ``first + second`` one of both: what
    changes the weights of one changes those of the other. Members cannot be replaced.

    Raises TypeError for a member that is no Module, ValueError for none at all, one given twice,
    different dtypes or batch_first, widths that do not fit each other, and a recurrent layer
    behind a `Last`.
    """

    def __init__(self, *modules):
        _check_chain(modules)
        super().__init__({str(place): module for place, module in enumerate(modules)})
        self._members = tuple(modules)
        self._flags = tuple(module.recurrent for module in modules)
        self._ends = [any(isinstance(leaf, Last) for leaf in _flat(module)) for module in modules]
        self._ours = [_is_ours(module) for module in modules]

    @property
    def row_axes(self):
        """Axes of one row of x: those of the first member."""
        return self._members[0].row_axes

    @property
    def batch_first(self):
        """That of the members that have one; False where none has."""
        found = (getattr(leaf, "batch_first", None) for leaf in _flat(self))
        return next((bool(first) for first in found if first is not None), False)

    def __len__(self):
        return len(self._members)

    def __getitem__(self, place):
        """The member at a place; of a slice a Sequential of these very members, named by their places in it.

        Raises IndexError, TypeError; ValueError for a slice that is empty or whose members do not fit each other.
        """
        if not isinstance(place, slice):
            return self._members[self._checked_place(place)]
        members, count = self._members[place], len(self._members)
        told = ":".join("" if one is None else str(one) for one in (place.start, place.stop, place.step))
        told = f"[{told if place.step is not None else told[:-1]}]"
        if not members:
            raise ValueError(f"the slice {told} has none of the {count} members; a Sequential needs at least one")
        try:
            return self._like(members)
        except ValueError as error:
            raise ValueError(f"the slice {told} is no chain: {error}") from None

    def _checked_place(self, place):
        try:
            found = operator.index(place)
        except TypeError:
            raise TypeError(f"place must be an integer or a slice, got {type(place).__name__}") from None
        if not -len(self._members) <= found < len(self._members):
            raise IndexError(f"place {found} is out of range for a Sequential of {len(self._members)} members")
        return found

    def _like(self, members):
        """A chain of those members, of the same class where that has the constructor of Sequential."""
        kind = type(self) if type(self).__init__ is Sequential.__init__ else Sequential
        return kind(*members)

    def __setitem__(self, place, module):
        raise TypeError(f"{_FIXED}: make a new one, Sequential(*model[:k], module, *model[k + 1:])")

    def __delitem__(self, place):
        raise TypeError(f"{_FIXED}: make a new one, model[:k] + model[k + 1:]")

    def __add__(self, other):
        """A Sequential of the members of both, which it shares with them."""
        return self._like((*self, *other)) if isinstance(other, Sequential) else NotImplemented

    def __iter__(self):
        return iter(self._members)

    def config(self):
        return {"modules": [module.describe() for module in self._members]}

    @classmethod
    def from_config(cls, config):
        if set(config) != {"modules"} or not isinstance(config["modules"], list):
            raise ValueError('a Sequential is configured by {"modules": [descriptions]}')
        return cls(*(Module.from_description(module) for module in config["modules"]))

    # ---- calls ---------------------------------------------------------------------------

    def forward(self, x, state=None, *, lengths=None, reset=None, trace=False, cache=False, batch_first=None):
        """``(y, state)``, then the trace if asked for, then the cache if asked for.

        lengths: (B,) integers in [0, T], or one when x is unbatched. batch_first: which of the first axes of x is time,
        for lengths in a chain without recurrent members; None: as `batch_first` of the chain.

        What is handed in and what is returned may be changed at once: no gradient follows.
        Raises what the members raise, and ValueError for a state of the wrong structure or another batch_first than the
        recurrent members have.
        """
        first = None  # which matters with lengths only
        if lengths is not None or batch_first is not None:
            first = self.batch_first
        if batch_first is not None and check_flag("batch_first", batch_first) != first:
            if self.recurrent:
                raise ValueError(f"batch_first is {batch_first}, the recurrent members have {first}")
            first = batch_first
        return self._forward(x, state, lengths=lengths, reset=reset, trace=trace, cache=cache, batch_first=first)

    @at_one_moment
    def _forward(self, x, state, *, lengths, reset, trace, cache, batch_first, moment):
        call = _Call(lengths, reset, trace, cache, batch_first, moment)
        return self._run(x, state, call, BOTH if cache else None)

    def _run(self, x, state, call, handed):
        """The members one after the other; handed: whether the caller holds x and y, None without a cache."""
        states, traces, caches, here = [], [], [], None
        own_x = handed is not None and not handed.x
        each = split_state(self._flags, "state", state)
        for place, (module, own) in enumerate(zip(self._members, each, strict=True)):
            if call.cache:  # a member of somebody else may hand its x on
                hands_y = handed.y if place == len(self._ours) - 1 else not self._ours[place + 1]
                here = Handed(not own_x, hands_y)
            x, own, *extras = call.member(module, x, own, here)
            if self._ends[place]:  # it gives one output per row, and behind it there are no positions any more
                call.lengths = None
            if module.recurrent:
                states.append(own)
                if call.trace:
                    traces.append(extras.pop(0))
            caches += extras
            own_x = self._ours[place]
        result = (x, join_state(self._flags, states))
        if call.trace:
            result += (join_state(self._flags, traces),)
        return result + (tuple(caches),) if call.cache else result

    def backward(self, dy, cache, dstate=None, *, input_gradient=True):
        """``(dx, dstate, grads)``; dx is None where the first member takes integers.

        ``input_gradient=False`` saves the first member the work of dx, which is then None.
        """
        if not isinstance(cache, tuple) or len(cache) != len(self._members):
            raise TypeError(f"cache must come from forward(..., cache=True), got {type(cache).__name__}")
        dstates, grads = split_state(self._flags, "dstate", dstate), {}
        for place in reversed(range(len(self._members))):
            module, options = self._members[place], {}
            if place == 0 and not input_gradient:
                options = {"input_gradient": False}
            dy, dstates[place], grads[place] = _backward(module, dy, cache[place], dstates[place], options)
        ordered = {
            f"{place}.{name}": grads[place][name]
            for place, module in enumerate(self._members)
            for name in module._named_weights()
        }
        given = [d for d, module in zip(dstates, self._members, strict=True) if module.recurrent]
        return dy, join_state(self._flags, given), ordered

    def stream(self, batch_size=1, *, awake=0.0):
        """A `SequentialStream` over the members' own streams; `awake` as in a recurrent layer's `stream`."""
        return SequentialStream(self, [_widths(module)[1] for module in self], batch_size, awake)
