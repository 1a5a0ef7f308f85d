"""One run of a stack on torch's tensors: `Run`, and `Recurrence`, which is one for autograd.

Tensors and the engine's arrays are the same memory. Letters: T steps, B rows, I inputs, L layers, D directions, R the
width of h, F = D*R, N rows of all steps of packed sequences together.
"""

from typing import NamedTuple

import numpy as np
import torch

from .. import functional

# Whether the backward pass that is running leaves the graph for another; torch says so to its own parts.
_keeps_graph = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)
_top_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)


def _hooked():
    """Whether hooks get what is saved for backward; torch then lets the inputs change, and so nothing is shared."""
    try:
        return _top_hooks is None or _top_hooks(True) is not None
    except TypeError:  # another signature
        return True


def _array(tensor):
    return None if tensor is None else tensor.numpy(force=True)


def _tensors(state):
    return tuple(map(torch.from_numpy, state if isinstance(state, tuple) else (state,)))


def _joined(state):
    """A state as functional.py takes it, from arrays one by one."""
    if all(one is None for one in state):
        return None
    return tuple(state) if len(state) > 1 else state[0]


class Rows(NamedTuple):
    """Where the rows of a PackedSequence are in a padded array; places: None when nothing is padded."""

    steps: int
    batch: int
    lengths: np.ndarray
    places: torch.Tensor | None

    @classmethod
    def of(cls, batch_sizes, count):
        """From batch_sizes and the number of rows N; None for sizes that are none."""
        sizes = batch_sizes.numpy(force=True)
        if sizes.ndim != 1 or sizes.size == 0 or sizes.dtype != np.int64:
            return None
        if sizes[-1] < 1 or sizes.sum() != count or (np.diff(sizes) > 0).any():
            return None
        steps, batch = sizes.size, int(sizes[0])
        if sizes[-1] == batch:
            return cls(steps, batch, np.full(batch, steps), None)
        rows = np.arange(batch)
        places = torch.from_numpy(np.flatnonzero(rows < sizes[:, None]))
        return cls(steps, batch, np.searchsorted(-sizes, -rows), places)

    def spread(self, data):
        """(N, W) as (T, B, W); what is padding is not written."""
        if self.places is None:
            return data.reshape(self.steps, self.batch, -1)
        padded = data.new_empty(self.steps * self.batch, data.shape[1])
        return padded.index_copy_(0, self.places, data).view(self.steps, self.batch, -1)

    def gather(self, padded):
        """(T, B, W) as (N, W), a copy."""
        flat = padded.reshape(self.steps * self.batch, -1)
        return flat.clone() if self.places is None else flat.index_select(0, self.places)


class Run(NamedTuple):
    """What a call is made of beside its tensors.

    pack: a function of a flag, with what backward needs, that gives the model. names: of the weights, in torch's
    order. dropout: the rate between layers, 0 when it does not act. rows: of packed sequences, x is then (N, I).
    """

    spec: object
    names: tuple
    pack: object
    threads: int
    dropout: float
    rows: Rows | None

    def infer(self, x, state):
        """``y, *state``. x: (T, B, I) or (N, I); state: one tensor (L*D, B, W) for each part, or nothing for zeros."""
        if self.dropout:
            return self.train(x, state, True)[0]
        model, state, lengths = self.pack(False), _joined([_array(one) for one in state]), None
        if self.rows is None:
            found = model.infer(_array(x), state, False, self.threads)  # the short way, for arrays that fit
            if found is not None:
                return torch.from_numpy(found[0]), *_tensors(found[1])
        else:
            x, lengths = self.rows.spread(x), self.rows.lengths
        y, new = functional.forward(model, self.spec, _array(x), state, lengths, threads=self.threads)
        y = torch.from_numpy(y)
        return y if self.rows is None else self.rows.gather(y), *_tensors(new)

    def train(self, x, state, shared):
        """``(y, *state), kept``: kept is for `backward`; shared: it may share memory with x and the initial state."""
        state, lengths = _joined([_array(one) for one in state]), None
        if self.rows is not None:
            x, lengths = self.rows.spread(x), self.rows.lengths
        y, new, kept = functional.forward_cached(
            lambda masks: self.pack(True), self.spec, _array(x), state, lengths, None, self._masks, self.threads,
            shared=shared,
        )
        y = torch.from_numpy(y)
        if self.rows is not None:
            y = self.rows.gather(y)
        elif shared:
            y = y.clone()  # kept has this one
        return (y, *_tensors(new)), kept

    def again(self, kept, x, state):
        """`kept` as it would be of another x and initial state, with its weights and masks."""
        state, lengths = _joined([_array(one) for one in state]), None
        if self.rows is not None:
            x, lengths = self.rows.spread(x), self.rows.lengths
        return functional.forward_cached(
            lambda masks: kept.core.model, self.spec, _array(x), state, lengths, None, lambda *sizes: kept.masks,
            self.threads,
        )[2]

    def _masks(self, steps, batch):
        """What torch's dropout would draw, from torch's generator, in the same order."""
        if not self.dropout:
            return {}
        dtype, rows, keep = torch.from_numpy(np.empty(0, self.spec.dtype)).dtype, self.rows, 1 - self.dropout
        shape = (self.spec.num_layers - 1, steps, batch, self.spec.outputs)
        factors = torch.zeros(shape, dtype=dtype, device="cpu")  # whatever the default is
        for layer in factors if keep > 0 else ():
            if rows is None:
                layer.bernoulli_(keep).div_(keep)
            else:
                drawn = layer.new_empty(int(rows.lengths.sum()), self.spec.outputs).bernoulli_(keep).div_(keep)
                layer.copy_(rows.spread(drawn))
        return {"dropout": factors.numpy()}

    def backward(self, kept, dy, dstate, input_gradient):
        """``dx, dstate, grads``: tensors; dx None unless asked for; grads a list in the order of the weights."""
        spec, layout = self.spec, kept.layout
        try:
            dy, *dstate = (None if one is None else one.detach() for one in (dy, *dstate))
        except RuntimeError as error:  # what torch's vmap hands on is no plain tensor
            words = "the layers of fastlstm take no batched gradients (is_grads_batched, vectorize)"
            raise RuntimeError(f"{words}: fastlstm.torch.restore(module) gives torch's own layers back") from error
        if dy is None:
            dy = np.broadcast_to(np.zeros(spec.outputs, spec.dtype), (layout.steps, layout.batch, spec.outputs))
        else:
            dy = _array(dy if self.rows is None else self.rows.spread(dy))
        dstate = _joined([_array(one) for one in dstate])
        dx, dstate, grads = functional.backward(spec, self.names, dy, kept, dstate, input_gradient, self.threads)
        if dx is not None:
            dx = torch.from_numpy(dx)
            dx = dx if self.rows is None else self.rows.gather(dx)
        return dx, _tensors(dstate), [torch.from_numpy(grads[name]) for name in self.names]


class Once(torch.autograd.Function):
    """``Once.apply(found, *anchors)``: the tensors of `found`, or None, as results of the anchors; no derivative.

    Without it the gradients of `Recurrence` would be constants to whoever differentiates them again. `found` is not
    among the inputs of apply, so its tensors are handed on as they are.
    """

    @staticmethod
    def forward(ctx, found, *anchors):
        return tuple(found)

    @staticmethod
    def backward(ctx, *gradients):
        words = "the layers of fastlstm have no second derivatives"
        raise RuntimeError(f"{words}: fastlstm.torch.restore(module) gives torch's own layers back, which have them")


class Recurrence(torch.autograd.Function):
    """``y, *state = Recurrence.apply(run, parts, x, *state, *weights)``, with `parts` the number of initial states.

    Its derivative has none of its own: where a graph of it is asked for (create_graph), the graph ends in `Once`.
    """

    @staticmethod
    def forward(ctx, run, parts, x, *rest):
        ctx.set_materialize_grads(False)  # None for outputs that the loss does not see
        shared = not _hooked()
        found, ctx.kept = run.train(x, rest[:parts], shared)
        ctx.places = [one.data_ptr() for one in (x, *rest[:parts])] if shared else None
        ctx.run, ctx.parts = run, parts
        ctx.weights = [one for one in rest[parts:] if one.requires_grad]  # not saved: they may change before backward
        ctx.save_for_backward(x, *rest[:parts])  # without hooks, torch sees to it that what `kept` shares stays
        return found

    @staticmethod
    def backward(ctx, dy, *dstate):
        saved = ctx.saved_tensors  # raises when one was changed, or when this graph has been used up
        kept, weights = ctx.kept, ctx.weights
        if not _keeps_graph():
            ctx.kept = ctx.weights = None  # y keeps this node alive, but its memory is no longer needed
        wanted = ctx.needs_input_grad[2:]
        with torch.no_grad():
            if ctx.places and ctx.places != [one.data_ptr() for one in saved]:  # hooks got them after forward
                kept = ctx.run.again(kept, saved[0], saved[1:])
            dx, dnew, grads = ctx.run.backward(kept, dy, dstate, wanted[0])
        found = [dx, *dnew[: ctx.parts], *grads]
        found = [one if want else None for one, want in zip(found, wanted, strict=True)]
        if torch.is_grad_enabled():  # create_graph
            anchors = [one for one in (dy, *dstate, *saved, *weights) if one is not None and one.requires_grad]
            found = Once.apply(found, *anchors or [torch.empty(0, device="cpu", requires_grad=True)])
        return None, None, *found
