"""What a call is checked against: `Spec`, the sizes of a stack; and found to be: `Layout`, of its sequences.

Letters: T steps, B rows, I inputs of the stack, K of a layer, H hidden units of a layer, P projected units, R = P or H,
L layers, D directions, W the width of a state.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from .params import by_layer, mask_shapes, suffixes, weight_shapes
from .variants import Variant


class Once(functools.cached_property):
    """A property that is computed when it is first read. That of Python 3.11 holds a lock meanwhile, which a fork could
    leave held for ever; here two threads may compute it at once, and find the same."""

    def __get__(self, spec, owner=None):
        if spec is None:
            return self
        found = vars(spec)[self.attrname] = self.func(spec)
        return found


@dataclasses.dataclass(frozen=True)
class Spec:
    """The cell, sizes and conventions of a stack; what follows from them is computed once, as every call asks."""

    v: Variant
    input_size: int
    sizes: tuple[int, ...]  # H of every layer
    proj_size: int
    directions: int
    dtype: np.dtype
    batch_first: bool

    def __deepcopy__(self, memo):
        return self  # nothing in it changes

    def __str__(self):
        sizes = self.sizes if self.ragged else self.sizes[:1]
        words = [f"{self.v.cell} {self.input_size} -> {', '.join(map(str, sizes))}"]
        words += [f"{self.num_layers} layers"] if self.num_layers > 1 else []
        words += ["2 directions"] if self.directions > 1 else []
        words += [f"projected to {self.proj_size}"] if self.proj_size else []
        return ", ".join([*words, *(f"{name}={value!r}" for name, value in self.v.options.items()), self.dtype.name])

    @Once
    def num_layers(self):
        """L."""
        return len(self.sizes)

    @Once
    def slots(self):
        """L*D, the length of what has one entry per layer and direction."""
        return len(self.sizes) * self.directions

    @Once
    def ragged(self):
        """Whether the layers differ in size; states are then lists of arrays."""
        return len(set(self.sizes)) > 1

    @Once
    def recurrent(self):
        """R of the last layer, the width of a direction of y."""
        return self.proj_size or self.sizes[-1]

    @Once
    def outputs(self):
        """D*R of the last layer, the width of y."""
        return self.directions * self.recurrent

    @Once
    def names(self):
        """Endings of the tensor names, per layer and direction."""
        return suffixes(self.num_layers, self.directions == 2)

    @Once
    def states(self):
        """Names of the states, h first."""
        return self.v.states

    @Once
    def widths(self):
        """For every layer: state -> W."""
        return [self.v.widths(hidden, self.proj_size) for hidden in self.sizes]

    @Once
    def gradient_shapes(self):
        """Per layer and direction, name without ending -> shape of what has a gradient, biases always among them."""
        return by_layer(weight_shapes(self.v, *self._all, True, self.directions == 2, self.proj_size), self.names)

    def inputs(self, layer):
        """K: I, or D*R of the layer below."""
        return self.directions * (self.proj_size or self.sizes[layer - 1]) if layer else self.input_size

    @property
    def _all(self):
        return self.input_size, list(self.sizes), self.num_layers

    def mask_shapes(self, steps, batch):
        """Name -> shape of every mask its cell has; `params.mask_shapes`."""
        return mask_shapes(self.v, steps, batch, *self._all, self.directions == 2, self.proj_size)

    def dropout_shapes(self, steps, batch):
        """Of the factors between layers: (L-1, T, B, D*R), or a list of (T, B, D*R) where these differ."""
        each = [(steps, batch, self.inputs(layer)) for layer in range(1, self.num_layers)]
        if len(set(each)) > 1:
            return each
        return len(each), steps, batch, self.inputs(1) if each else self.outputs


class Layout(NamedTuple):
    """How the caller sees a sequence: what `check_x` found, what y, dx and the trace must look like."""

    steps: int
    batch: int
    batched: bool
    batch_first: bool

    @classmethod
    def of(cls, lead, batch_first):
        """That of an array whose first axes are `lead`: (T, B), (B, T) or, unbatched, (T,)."""
        batched, first = len(lead) == 2, batch_first and len(lead) == 2
        return cls(lead[first], lead[not first] if batched else 1, batched, batch_first)

    def within(self, lengths):
        """Booleans of the first axes, true within lengths (B,)."""
        return self.outward(np.arange(self.steps)[:, None] < lengths)

    def outward(self, a):
        """A (T, B, ...) array in the caller's layout."""
        if not self.batched:
            return a[:, 0]
        return a.swapaxes(0, 1) if self.batch_first else a

    def inward(self, a):
        """The caller's layout as (T, B, ...)."""
        if not self.batched:
            return a[:, None]
        return a.swapaxes(0, 1) if self.batch_first else a

    def shape(self, *tail):
        """Shape of a sequence as the caller sees it."""
        if not self.batched:
            return (self.steps, *tail)
        lead = (self.batch, self.steps) if self.batch_first else (self.steps, self.batch)
        return (*lead, *tail)
