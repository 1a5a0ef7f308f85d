"""Forward, backward: every argument checked in words (arguments.py, states.py), then the core.

Letters: T steps, B rows, I inputs, H hidden units, P projected units, R = P or H, L layers, D directions, W the width
of a state. A *model* here is a packed ``_core.Model``, or a ``ragged.Chain``, which has the same calls.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .arguments import check_dy, check_lengths, check_reset, check_x, contiguous, own
from .params import by_layer, trace_of
from .reprs import fields_told, told
from .spec import Layout, Spec
from .states import check_state, copied, new_state, outward


def forward(packed, spec, x, state=None, lengths=None, reset=None, threads=0):
    """Inference: ``y, state``. packed: the model; the rest as in the layers' forward."""
    x, layout = check_x(spec, x)
    state0 = check_state(spec, state, layout)
    lengths, reset = check_lengths(lengths, layout), check_reset(reset, layout)
    staten = new_state(spec, layout.batch)
    y = np.empty(layout.shape(spec.outputs), spec.dtype)
    packed.forward(x, state0, layout.inward(y), staten, lengths, reset, threads)
    return y, outward(spec, staten, layout)


class Kept(NamedTuple):
    """What backward needs: the core's cache, how the caller saw the sequence, the sizes it was made for.

    The cache has copies of its own of x, y and the initial state, unless it was made with shared=True.

    masks: name -> read-only array of those that regularised it, named as `Recurrent.draw_masks` names them.
    """

    core: object
    layout: Layout
    spec: Spec
    masks: dict

    def __repr__(self):
        if not isinstance(self.spec, Spec) or not isinstance(self.layout, Layout) or not hasattr(self.core, "nbytes"):
            return fields_told(self)  # somebody has replaced a part
        call, held = f"T = {self.layout.steps}, B = {self.layout.batch}", f"{self.nbytes:,} bytes"
        return told("Kept", {"layer": f"{self.spec}", "call": call, "held": held, "masks": self.masks})

    @property
    def nbytes(self):
        """Bytes held, without the masks."""
        return self.core.nbytes


def _for_core(spec, masks):
    """Masks by name -> dropout factors or None, and a dict per layer and direction or None.

    Those of weights are not among them: the model was packed from the masked weights.
    """
    if not masks:
        return None, None
    inside = {n: m for n, m in masks.items() if n != "dropout" and not n.startswith("mask_weight")}
    return masks.get("dropout"), by_layer(inside, spec.names) if inside else None


def forward_cached(
    pack, spec, x, state=None, lengths=None, reset=None, masks=None, threads=0, pooled=True, shared=False
):
    """Forward for training or tracing: ``y, state, Kept``.

    masks: None, or a function of (T, B) that gives them by name, contiguous and in the model's dtype.
    pack: a function of the masks that gives the model. Both are called when all arguments have been found good.
    shared: False: what the cache keeps is its own, the caller may change x, state and y at once. True: x and state are
    kept as they are where they are contiguous, and y is handed out as the cache has it: the caller sees to it that none
    of them changes before backward.
    """
    array, layout = check_x(spec, x)
    state0 = check_state(spec, state, layout)
    state0 = state0 if shared else copied(state0)
    lengths, reset = check_lengths(lengths, layout), check_reset(reset, layout)
    staten = new_state(spec, layout.batch)
    masks = masks(layout.steps, layout.batch) if masks is not None else {}
    dropout, inside = _for_core(spec, masks)
    for mask in (m for entry in masks.values() for m in (entry if isinstance(entry, list) else [entry])):
        mask.flags.writeable = False  # backward reads them again
    core = pack(masks).forward_cached(
        contiguous(array) if shared else own(array, x), state0, staten, lengths, reset, dropout, inside, threads, pooled
    )
    y = layout.outward(core.y)
    if not shared:  # the cache keeps its own y: the caller may change what it is handed
        y = y.copy(order="C")
    return y, outward(spec, staten, layout), Kept(core, layout, spec, masks)


def trace(spec, kept, frozen=False):
    """The trace of a forward_cached(pooled=False) call: views of its memory, in the caller's layout.

    frozen: the views are read-only, as backward is to read that memory.
    """
    kind, found = trace_of(spec.v), []
    for layer in range(spec.num_layers):
        for direction in range(spec.directions):
            views = kept.core.views(layer, direction)
            y = kept.core.y if views["y"] is None else views["y"]
            width = y.shape[2] // spec.directions
            views["h"] = y[..., direction * width : (direction + 1) * width]
            fields = [kept.layout.outward(views[name])[...] for name in kind._fields]  # [...]: flags of their own
            for one in fields if frozen else ():
                one.flags.writeable = False
            found.append(fields)
    return kind(*(list(part) for part in zip(*found, strict=True)))


def _new_gradients(spec, own_bias_hh):
    """Arrays for the core to write: per layer and direction, name without ending -> array."""
    return [
        {n: np.empty(s, spec.dtype) for n, s in shapes.items() if n != "bias_hh" or own_bias_hh}
        for shapes in spec.gradient_shapes
    ]


def _by_name(spec, weights, gradients, masks):
    """What the core wrote, name -> array, for the weights there are."""
    found = {f"{n}_{end}": a for end, part in zip(spec.names, gradients, strict=True) for n, a in part.items()}
    for name in weights:
        if name not in found:  # mostly bias_ih and bias_hh enter as a sum
            found[name] = found[name.replace("bias_hh", "bias_ih")].copy()
    for name, mask in masks.items():
        if name.startswith("mask_weight"):  # the model was packed from weights * mask
            grad = found.get(name.removeprefix("mask_"))
            if grad is None or getattr(mask, "shape", None) != grad.shape or mask.dtype != grad.dtype:
                raise ValueError(f"cache must stay as forward made it; its {name} is of no weight, or of another shape")
            grad *= mask
    return {name: found[name] for name in weights}


def _sizes(core):
    return getattr(core, "steps", None), getattr(core, "batch", None)


def _belongs(core, spec, layout):
    """Whether the core's cache, one of a chain when layers differ in size, is of that many steps, rows and layers."""
    if not spec.ragged:
        return not hasattr(core, "caches") and _sizes(core) == layout[:2]
    caches, models, dropout = (getattr(core, name, None) for name in ("caches", "model", "dropout"))
    models = getattr(models, "models", None)
    if not all(isinstance(part, (list, tuple)) and len(part) == spec.num_layers for part in (caches, models)):
        return False
    if dropout is not None and [getattr(a, "shape", None) for a in dropout] != [
        (*layout[:2], spec.inputs(layer)) for layer in range(1, spec.num_layers)
    ]:
        return False
    return all(_sizes(one) == layout[:2] for one in caches)


def backward(spec, weights, dy, kept, dstate=None, input_gradient=True, threads=0):
    """``dx, dstate, grads``; see the layers' backward. weights: names, in the order that grads shall have."""
    if not isinstance(kept, Kept):
        raise TypeError(f"cache must come from forward(..., cache=True), got {type(kept).__name__}")
    if not isinstance(kept.spec, Spec) or not isinstance(kept.masks, dict):
        words = f"its spec is {type(kept.spec).__name__}, its masks {type(kept.masks).__name__}"
        raise ValueError(f"cache must stay as forward made it; {words}, expected Spec and dict")
    if kept.spec is not spec and replace(kept.spec, batch_first=spec.batch_first) != spec:
        raise ValueError(f"cache was made by a layer of other sizes: {kept.spec}, expected {spec}")
    core, layout = kept.core, kept.layout
    if not isinstance(layout, Layout) or not _belongs(core, spec, layout):
        raise ValueError("cache must stay as forward made it; the parts of this one do not belong together")
    model = core.model
    dy = check_dy(spec, dy, layout)
    dstaten = check_state(spec, dstate, layout, "d{}n", "dstate")
    dx = np.empty((layout.steps, layout.batch, spec.input_size), spec.dtype) if input_gradient else None
    dstate0 = new_state(spec, layout.batch)
    gradients = _new_gradients(spec, model.own_bias_hh)
    model.backward(core, dy, dstaten, dx, dstate0, gradients, threads)
    dx = None if dx is None else layout.outward(dx)
    return dx, outward(spec, dstate0, layout), _by_name(spec, weights, gradients, kept.masks)
