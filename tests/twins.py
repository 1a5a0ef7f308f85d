"""Small problems for the slow twins: any variant of a cell, with everything a call may be given.

Letters in shapes: T steps, B rows, I inputs, H hidden units, L layers, D directions.
"""

import numpy as np
from differences import difference, slope_errors

from fastlstm import params, reference
from fastlstm.variants import variant


class Twin:
    """A variant with random weights, input, state and output gradients; arrays may be changed in place.

    lengths: as `forward` takes them; reset, dropout: True draws them; masks: kinds of masks to draw;
    start: False leaves the initial state out. Other keywords are options of the cell.
    """

    def __init__(
        self, cell="lstm", T=4, B=2, I=2, H=4, L=1, bidirectional=False, proj=0, lengths=None, reset=False,
        dropout=False, masks=(), bias=True, scale=1.0, start=True, seed=1, **options,
    ):
        self.v, rng, D = variant(cell, **options), np.random.default_rng(seed), 2 if bidirectional else 1
        sizes = H if isinstance(H, list) else [H] * L
        self.options = {"num_layers": len(sizes), "bidirectional": bidirectional, "proj_size": proj}
        self.given = {"lengths": lengths}
        shapes = params.weight_shapes(self.v, I, H, L, bias, bidirectional, proj)
        self.weights = {name: scale * rng.normal(size=shape) for name, shape in shapes.items()}
        self.x = rng.normal(size=(T, B, I))
        shapes = params.state_shapes(len(sizes), D, B, H, proj, self.v)
        self.state = {name: self._state(name, shape, rng) for name, shape in shapes.items()} if start else None
        self.dstate = tuple(self._state("", shape, rng) for shape in shapes.values())
        widths = [D * (proj or size) for size in sizes]
        self.dy = rng.normal(size=(T, B, widths[-1]))
        if reset:
            self.given["reset"] = rng.random((T, B)) < 0.4
        if dropout:
            found = [(rng.random((T, B, width)) < 0.7) / 0.7 for width in widths[:-1]]
            self.given["dropout_masks"] = found if len(set(widths[:-1])) > 1 else np.array(found)
        if masks:
            shapes = params.mask_shapes(self.v, T, B, I, H, L, bidirectional, proj)
            chosen = {n: s for n, s in shapes.items() if n.startswith(tuple(masks))}
            self.given["masks"] = {name: self._mask(name, shape, rng) for name, shape in chosen.items()}

    @staticmethod
    def _state(name, shape, rng):
        def draw(shape):  # a count of steps is a whole number
            counts = np.arange(shape[-2])[:, None]
            return np.broadcast_to(counts, shape).astype(float) if name == "t" else rng.normal(size=shape)

        return [draw(one) for one in shape] if isinstance(shape, list) else draw(shape)

    @staticmethod
    def _mask(name, shape, rng):
        return rng.random(shape) < 0.4 if name.startswith("zoneout") else (rng.random(shape) < 0.7) / 0.7

    def arrays(self):
        """Name -> array of all that has a gradient."""
        found = {"x": self.x}
        for name, value in (self.state or {}).items():
            if isinstance(value, list):
                found |= {f"{name}0 {k}": one for k, one in enumerate(value)}
            elif name != "t":
                found[f"{name}0"] = value
        return found | self.weights

    def forward(self, **changes):
        """y, state, cache; changes: keywords of `reference.forward`, or weights, x, state."""
        call = {"cell": self.v, **self.options, **self.given, **changes}
        weights, x = call.pop("weights", self.weights), call.pop("x", self.x)
        state = call.pop("state", self.state and tuple(self.state.values()))
        return reference.forward(weights, x, state, **call)

    def trace(self):
        """The trace of a forward pass; of one layer and direction the arrays themselves instead of lists of one."""
        found = reference.trace(self.forward()[2])
        return found if len(found.h) > 1 else type(found)(*(one for [one] in found))

    def loss(self):
        """The scalar whose gradients `gradients` are."""
        y, state, _ = self.forward()
        total = (y * self.dy).sum()
        for name, last, d in zip(self.v.states, state, self.dstate, strict=True):
            if name != "t":
                pairs = zip(last, d, strict=True) if isinstance(last, list) else [(last, d)]
                total += sum((a * b).sum() for a, b in pairs)
        return total

    def gradients(self, **changes):
        """Name -> array, as `arrays`."""
        dx, dstate, grads = reference.backward(self.forward(**changes)[2], self.dy, self.dstate)
        found = {"x": dx}
        for name, value in zip(self.v.states, dstate, strict=True):
            if isinstance(value, list):
                found |= {f"{name}0 {k}": one for k, one in enumerate(value)}
            elif name != "t":
                found[f"{name}0"] = value
        return found | grads

    def errors(self):
        """Name -> how far its gradient is from finite differences."""
        return slope_errors(self.loss, self.arrays(), self.gradients())


def same_run(a, b, tolerance=1e-14):
    """Assert that two `forward` results agree: y and the states both have, in their order."""
    assert difference(a[0], b[0]) < tolerance
    for one, other in zip(a[1], b[1]):
        assert difference(one, other) < tolerance
