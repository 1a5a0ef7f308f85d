"""Layers of different sizes: a chain of packed models of one layer each, with the calls of ``_core.Model``.

All layers of a core model have the same number of units. Where they differ, `Chain` takes the place of the model,
`ChainCache` that of its cache, `ChainStepper` that of its stepper; what is said of their arguments there holds here,
but for states, which are as states.py describes them: a list with an array (D, B, W) per layer.

Letters: T steps, B rows, H hidden units, R the width of h, L layers, D directions, W the width of a state.
"""

from typing import NamedTuple

import numpy as np

from . import _core
from .params import by_layer
from .reprs import fields_told


def pack(spec, weights, trainable, zoneout_h=0.0, zoneout_c=0.0, rooms=None, threads=0):
    """The model of a stack, a `Chain` or one of the core's. weights: name -> C-contiguous array; trainable: with what
    backward needs; rooms: `_core.Rooms` that the models of one layer work in, one after the other; threads: as many may
    pack, 0: the package-wide setting.
    """
    rest = by_layer(weights, spec.names), trainable, zoneout_h, zoneout_c
    if spec.ragged:
        return Chain(spec, *rest, threads)
    return _core.Model(
        spec.v, spec.dtype, spec.input_size, spec.sizes[0], spec.num_layers, spec.directions, spec.proj_size, *rest,
        rooms, threads,
    )


def _layer_of(state, layer):
    """What the model of that layer gets of a state."""
    return tuple(None if entry is None else entry[layer] for entry in state)


class ChainCache(NamedTuple):
    """What a forward pass through a chain keeps: the caches of its models, and the dropout factors between them."""

    model: "Chain"
    caches: list
    dropout: object  # (T, B, D*R) for each layer but the last, or None

    __repr__ = fields_told

    @property
    def steps(self):
        """T."""
        return self.caches[0].steps

    @property
    def batch(self):
        """B."""
        return self.caches[0].batch

    @property
    def y(self):
        """(T, B, D*R) of the last layer."""
        return self.caches[-1].y

    @property
    def nbytes(self):
        """Bytes held, with what lies between the layers: a chain keeps that in the caches of the layers above."""
        return sum(cache.nbytes for cache in self.caches)

    def views(self, layer, direction):
        """Name -> (T, B, W) of what a layer computed, and "y", (T, B, D*R), which may be None for the last layer."""
        cache = self.caches[layer]
        return cache.views(0, direction) | {"y": cache.y}


class Chain:
    """Packed, immutable weights of a stack whose layers differ in size.

    weights: per layer and direction, name without ending -> C-contiguous array of the spec's dtype.
    Results have the promises of the models': to the bit independent of threads, batch, and how a sequence is cut.
    """

    def __init__(self, spec, weights, backward=False, zoneout_h=0.0, zoneout_c=0.0, threads=0):
        d = self.directions = spec.directions
        self.dtype = spec.dtype
        self.widths = [spec.inputs(layer) for layer in range(1, spec.num_layers)] + [spec.outputs]  # D*R of each
        self.models = [
            _core.Model(
                spec.v, spec.dtype, spec.inputs(layer), hidden, 1, d, spec.proj_size,
                weights[layer * d : (layer + 1) * d], backward, zoneout_h, zoneout_c, None, threads,
            )
            for layer, hidden in enumerate(spec.sizes)
        ]

    @property
    def own_bias_hh(self):
        """As of any of its models: the cell says."""
        return self.models[0].own_bias_hh

    @property
    def isa(self):
        """Name of the instruction set it was packed for."""
        return self.models[0].isa

    @property
    def nbytes(self):
        """Bytes of packed weights."""
        return sum(model.nbytes for model in self.models)

    def plan(self, steps, batch, backward=False, threads=0):
        """The plan of the layer with the most work, as a dict; "threads": the most that any layer takes."""
        plans = [model.plan(steps, batch, backward, threads) for model in self.models]
        most = max(plans, key=lambda one: one["work_ns"])
        return {**most, "threads": max(one["threads"] for one in plans)}

    def infer(self, x, state, batch_first, threads):
        """None: there is no short way through a chain."""

    def forward(self, x, state0, y, staten, lengths=None, reset=None, threads=0):
        """Inference, layer after layer over the whole sequence."""
        for layer, model in enumerate(self.models):
            last = layer == len(self.models) - 1
            out = y if last else np.empty((*x.shape[:2], self.widths[layer]), self.dtype)
            model.forward(x, _layer_of(state0, layer), out, _layer_of(staten, layer), lengths, reset, threads)
            x = out

    def forward_cached(
        self, x, state0, staten, lengths=None, reset=None, dropout=None, masks=None, threads=0, pooled=True
    ):
        """Forward that keeps what backward needs, as a `ChainCache`."""
        caches, d = [], self.directions
        for layer, model in enumerate(self.models):
            if layer:
                x = caches[-1].y if dropout is None else caches[-1].y * dropout[layer - 1]
            inside = None if masks is None else masks[layer * d : (layer + 1) * d]
            ends = _layer_of(state0, layer), _layer_of(staten, layer)
            caches.append(model.forward_cached(x, *ends, lengths, reset, None, inside, threads, pooled))
        return ChainCache(self, caches, dropout)

    def backward(self, cache, dy, dstaten, dx, dstate0, gradients, threads=0):
        """Gradients, written into dx (unless that is None), dstate0 and the dicts of `gradients`."""
        d = self.directions
        for layer in reversed(range(len(self.models))):
            below = dx
            if layer:
                below = np.empty((cache.steps, cache.batch, self.widths[layer - 1]), self.dtype)
            ends = _layer_of(dstaten, layer), below, _layer_of(dstate0, layer)
            part = gradients[layer * d : (layer + 1) * d]
            self.models[layer].backward(cache.caches[layer], dy, *ends, part, threads)
            if layer and cache.dropout is not None:
                below *= cache.dropout[layer - 1]
            dy = below


class ChainStepper:
    """One step at a time through a chain; the state, a list of arrays (1, B, W) for each name, is updated in place."""

    def __init__(self, chain, batch, state, threads=0, awake_ns=0, busy=None):
        self._busy = busy or _core.Busy()
        self._steppers = [
            _core.Stepper(model, batch, _layer_of(state, layer), threads, awake_ns)
            for layer, model in enumerate(chain.models)
        ]
        self._between = [np.empty((batch, width), chain.dtype) for width in chain.widths[:-1]]

    def step(self, x, out=None):
        """x (B, I) -> (B, R) of the last layer; None when x or out does not fit (nothing was done)."""
        return self._busy.run(self.step_inside, x, out)

    def step_inside(self, x, out=None):
        """`step` for a call that has the flag already, within ``Busy.run``."""
        return _core.step_chain(self._steppers, self._between, x, out)

    def counts(self):
        """How many steps each layer has made."""
        return [stepper.done for stepper in self._steppers]

    def release(self):
        """No layer's threads need wait for a further step."""
        for stepper in self._steppers:
            stepper.release()
