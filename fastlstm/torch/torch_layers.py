"""LSTM, GRU, RNN: torch's modules, which they are subclasses of, with this engine behind ``forward``.

Everything but the arithmetic is torch's own: constructor, parameters and their initialisation, names, state_dict,
pickling, words of errors. Tensors go into the engine and come out of it without a copy.

What torch does otherwise than by running a module goes to torch's own forward, which gives the same numbers: tracing
(torch.jit.trace, torch.export, torch.onnx), transforms of torch.func, forward-mode derivatives, dispatch modes,
subclasses of Tensor. torch.compile leaves the call alone (a break of the graph, as at torch's own layers).
"""

import functools
import sys

import numpy as np
import torch
from torch.autograd import forward_ad
from torch.nn.utils.rnn import PackedSequence

from .. import _core
from ..params import weight_shapes
from ..spec import Spec
from ..variants import variant
from .torch_function import Recurrence, Rows, Run
from .torch_panels import PLAIN, Panels

_DTYPES = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
_TYPES = {theirs: ours for ours, theirs in _DTYPES.items()}
_CELLS = {
    "LSTM": ("lstm", {}),
    "GRU": ("gru", {}),
    "RNN_TANH": ("rnn", {"nonlinearity": "tanh"}),
    "RNN_RELU": ("rnn", {"nonlinearity": "relu"}),
}
_STRUCTURE = ("mode", "input_size", "hidden_size", "num_layers", "bias", "bidirectional", "proj_size")
_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # of torch 2.4 not, where strict export fails


# What torch does besides running a module, as its own parts ask. These names are not promised: where a torch lacks
# them all, the answer is yes, which is right, if slow.


def transform_probe(core):
    """A function: is a transform of torch.func at work? core: torch._C."""
    found = getattr(core, "_are_functorch_transforms_active", None)
    stack = getattr(getattr(core, "_functorch", None), "peek_interpreter_stack", None)
    if found is None and stack is not None:
        return lambda: stack() is not None
    return found or (lambda: True)


def dispatch_probe(core):
    """A function: how many dispatch modes are at work? core: torch._C."""
    return getattr(core, "_len_torch_dispatch_stack", lambda: 1)


def dual_probe(module):
    """A function: is there a level of forward-mode derivatives? module: torch.autograd.forward_ad."""
    if hasattr(module, "_current_level"):
        return lambda: module._current_level >= 0
    one = torch.zeros(1, device="cpu")

    def found():
        try:
            module.make_dual(one, one)
        except RuntimeError:  # as documented, where there is no level
            return False
        return True

    return found


_transforms, _dispatch_modes = transform_probe(torch._C), dispatch_probe(torch._C)
_dual_level = dual_probe(forward_ad)


@functools.lru_cache(maxsize=256)
def _sizes(mode, input_size, hidden_size, num_layers, bias, bidirectional, proj_size, dtype):
    """(spec, name -> shape) of a stack."""
    cell, options = _CELLS[mode]
    v = variant(cell, **options)
    shapes = weight_shapes(v, input_size, hidden_size, num_layers, bias, bidirectional, proj_size)
    directions = 2 if bidirectional else 1
    return Spec(v, input_size, (hidden_size,) * num_layers, proj_size, directions, dtype, False), shapes


def refusal(name, tensor):
    """Why the engine cannot work with a weight, in words; None when it can."""
    if tensor.device.type == "cpu" and tensor.dtype in _DTYPES:
        return None
    return f"{name} is {tensor.dtype} on {tensor.device}; fastlstm runs float32 and float64 on the CPU"


def _watched(tensor):
    """Whether torch is doing something else than running a module; see the top of this file."""
    return (
        type(tensor) not in PLAIN
        or torch.jit.is_tracing()
        or _transforms()
        or _dispatch_modes() > 0
        or _dual_level()
        or tensor.is_nested
    )


def _state_of(hx, parts):
    """hx as a tuple of tensors, () for None; None for what is neither."""
    if hx is None:
        return ()
    state = hx if parts > 1 else (hx,)
    if not isinstance(state, (tuple, list)) or len(state) != parts:
        return None
    return tuple(state) if all(type(one) in PLAIN for one in state) else None


def _fits(tensor, dtype, shape):
    return tensor.dtype is dtype and tensor.shape == shape and tensor.is_cpu and tensor.layout is torch.strided


class _Layer:
    """The call; a subclass names torch's class as its second base."""

    trusts_versions = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for name, weight in self.named_parameters():
            words = None if weight.is_meta and weight.dtype in _DTYPES else refusal(name, weight)
            if words:
                raise ValueError(words)

    def __setattr__(self, name, value):
        if name == "trusts_versions" and not isinstance(value, bool):
            raise TypeError(f"trusts_versions must be True or False, got {type(value).__name__}")
        if name in _STRUCTURE:
            self.__dict__.pop("_packed_weights", None)  # which is of the structure before: the next call checks the new
        super().__setattr__(name, value)

    def forward(self, input, hx=None):
        """``y, (hn, cn)``, of a GRU or RNN ``y, hn``; arguments, shapes and errors as of torch's own layer.

        input: (T, B, I), (B, T, I) with batch_first, (T, I), or a PackedSequence, which makes y one. The weights decide
        about the type: under autocast x and hx are converted to it. Dropout draws what torch's layer would draw.

        Raises what torch's layer raises, and RuntimeError for weights that are not float32 or float64 on the CPU.
        """
        if _exporting():  # here, where strict export sees it
            return super().forward(input, hx)
        return _call()(self, input, hx)

    def _forward(self, input, hx):
        packed = isinstance(input, PackedSequence)
        x, weights = input.data if packed else input, self._live_weights()
        found = None if _watched(x) else self._panels().find(weights, self.trusts_versions)
        if found is None and (_watched(x) or any(type(w) not in PLAIN for w in weights.values())):
            return super().forward(input, hx)
        spec, shapes = (found.spec, found.shapes) if found else self._checked(weights)
        given = self._arguments(spec, x, hx, input.batch_sizes if packed else None)
        if given is None:
            return super().forward(input, hx)  # torch's words for what is wrong
        x, state, rows = given
        dropout = self.dropout if self.training and self.num_layers > 1 else 0.0
        if not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
            return super().forward(input, hx)  # the same
        if packed and state and input.sorted_indices is not None:
            state = tuple(one.index_select(1, input.sorted_indices) for one in state)
        threads = min(torch.get_num_threads(), _core.get_num_threads())

        def pack(trainable):
            if found and found.trainable >= trainable:
                return found.model
            return self._panels().pack(spec, shapes, weights, trainable, self.trusts_versions, threads).model

        run, tensors = Run(spec, tuple(weights), pack, threads, dropout, rows), (x, *state, *weights.values())
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            y, *new = Recurrence.apply(run, len(state), *tensors)
        else:
            y, *new = run.infer(x, state)
        return self._outward(input, y, new)

    def _outward(self, input, y, new):
        """y (T, B, F) or (N, F) and the parts of the state, as torch hands them out."""
        if isinstance(input, PackedSequence):
            y = PackedSequence(y, input.batch_sizes, input.sorted_indices, input.unsorted_indices)
            if input.unsorted_indices is not None:
                new = [one.index_select(1, input.unsorted_indices) for one in new]
        elif input.dim() == 2:
            y, new = y.squeeze(1), [one.squeeze(1) for one in new]
        elif self.batch_first:
            y = y.transpose(0, 1)
        return y, tuple(new) if len(new) > 1 else new[0]

    def _live_weights(self):
        """Name -> the tensor that counts now: a parameter, or what a parametrization puts in its place."""
        own, names = self._parameters, self._flat_weights_names
        return {name: own[name] if name in own else getattr(self, name) for name in names}

    def _checked(self, weights):
        """(spec, shapes) for weights that the engine can work with; RuntimeError for others."""
        first = next(iter(weights.values()))
        for name, weight in weights.items():
            words = refusal(name, weight)
            if words:
                raise RuntimeError(f"{words}. fastlstm.torch.restore(module) gives torch's own layers back")
            if weight.dtype is not first.dtype:
                raise RuntimeError(f"the weights mix {first.dtype} and {weight.dtype} ({name}), expected one of them")
        if self.mode not in _CELLS:
            raise RuntimeError(f"mode must be one of {', '.join(_CELLS)}, got {self.mode!r}")
        spec, shapes = _sizes(*(getattr(self, name) for name in _STRUCTURE), _DTYPES[first.dtype])
        other = sorted(set(shapes) ^ set(weights))
        if other:  # an attribute was set that torch's constructor, which made the weights, did not see
            asked = ", ".join(f"{name}={getattr(self, name)!r}" for name in _STRUCTURE[1:])
            words = "expected" if other[0] in shapes else "not expected"
            raise RuntimeError(f"the weights do not belong to a layer of {asked}: {other[0]} is {words}")
        return spec, shapes

    def _arguments(self, spec, x, hx, batch_sizes):
        """x as (T, B, I) or (N, I), the state as a tuple, Rows if packed; None when something does not fit."""
        dtype, axes = _TYPES[spec.dtype], x.dim()
        state = _state_of(hx, len(spec.states))
        if state is None or x.layout is not torch.strided or axes not in (2, 3):
            return None
        if torch.is_autocast_enabled("cpu") and all(one.is_floating_point() for one in (x, *state)):
            x, state = x.to(dtype), tuple(one.to(dtype) for one in state)
        if x.dtype is not dtype or not x.is_cpu or x.shape[-1] != spec.input_size:
            return None
        single, rows = axes == 2 and batch_sizes is None, None
        if batch_sizes is not None:
            rows = Rows.of(batch_sizes, len(x)) if axes == 2 else None
            if rows is None:
                return None
        elif single:
            x = x.unsqueeze(1)
        elif self.batch_first:
            x = x.transpose(0, 1)
        if x.shape[0] == 0:
            return None
        batch = () if single else (rows.batch if rows else x.shape[1],)
        for one, width in zip(state, spec.widths[0].values(), strict=False):
            if not _fits(one, dtype, (spec.slots, *batch, width)):
                return None
        return x, tuple([one.unsqueeze(1) for one in state]) if single else state, rows

    def _panels(self):
        panels = self.__dict__.get("_packed_weights")
        if panels is None:
            panels = self.__dict__["_packed_weights"] = Panels()
        return panels

    def _apply(self, fn, recurse=True):
        self.__dict__.pop("_packed_weights", None)  # of weights that are about to move
        return super()._apply(fn, recurse)

    def flatten_parameters(self):
        """Nothing: the engine packs weights by itself."""

    def _get_name(self):
        return f"fastlstm.torch.{type(self).__name__}"  # so that a printed model tells

    def __prepare_scriptable__(self):
        words = "torch.jit.script cannot compile the layers of fastlstm"
        raise RuntimeError(f"{words}: fastlstm.torch.restore(module) gives torch's own back; torch.jit.trace works")


class LSTM(_Layer, torch.nn.LSTM):
    """torch.nn.LSTM, run by fastlstm on the CPU: all its arguments, names, shapes and numbers, sooner.

    device: "cpu" (or "meta", until ``to_empty``); dtype: torch.float32 or float64. ``torch.manual_seed`` gives the
    weights that it gives torch.nn.LSTM, and dropout drops the same.

    Differences. Weights may change between forward and backward, which is then that of the weights that forward saw;
    gradients of all weights are computed if one is needed. Backward has no derivative of its own, and takes no batched
    gradients (is_grads_batched, vectorize): RuntimeError. What forward keeps for backward is not among the tensors
    that autograd saves: hooks on those, and checkpoints with ``use_reentrant=False``, do not make it any less (with
    True they do). Outputs without gradients are memory of NumPy, which ``resize_`` cannot enlarge. Under autocast they
    are of the weights' type, float32 where torch's are bfloat16. After ``bfloat16()`` or ``half()``, and with weights
    on "meta", a call is an error. ``quantize_dynamic`` passes over these layers without a word: `restore` them first.

    trusts_versions: False: every call compares the weights with a copy of those that are packed, one pass over memory
    (0.5 MB in some 10 us). True: it looks at their addresses and version counters alone, and keeps no copy; what is
    written through ``.data``, a NumPy view, or by a fused optimiser then goes unseen.

    Raises what torch.nn.LSTM raises; for another device or type ValueError, later at a call RuntimeError.
    """


class GRU(_Layer, torch.nn.GRU):
    """torch.nn.GRU, run by fastlstm on the CPU; see `LSTM`."""


class RNN(_Layer, torch.nn.RNN):
    """torch.nn.RNN, run by fastlstm on the CPU; see `LSTM`."""


OURS = {torch.nn.LSTM: LSTM, torch.nn.GRU: GRU, torch.nn.RNN: RNN}  # torch's class -> the one here
TORCHS = {ours: theirs for theirs, ours in OURS.items()}
for _cls in TORCHS:
    _cls.__module__ = "fastlstm.torch"  # what pickles name


def to_torchs(layer):
    """Make a layer of a class of this file one of torch's, in place."""
    layer.__dict__.pop("_packed_weights", None)
    layer.__dict__.pop("trusts_versions", None)
    object.__setattr__(layer, "__class__", TORCHS[type(layer)])


_hidden = None


def _call():
    """`_Layer._forward`; once torch.compile may be about, in a wrapper that it does not look into."""
    global _hidden
    if "torch._dynamo" not in sys.modules:  # importing it takes longer than importing torch
        return _Layer._forward
    if _hidden is None:
        _hidden = torch.compiler.disable(_Layer._forward)
    return _hidden
