"""`Panels`: the packed weights of a torch module, kept as long as they are those of its parameters.

A tensor's version counter misses what is written through ``.data``, through NumPy, through another tensor on the same
memory, and by torch's fused optimisers. So the weights themselves are compared with a copy, at the speed of memory; a
weight that was trained mostly differs in its first bytes.
"""

import ctypes
import os

import torch

from ..machine import settle
from ..recurrent import pack

_memcmp = ctypes.CDLL("msvcrt" if os.name == "nt" else None).memcmp
_memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_memcmp.restype = ctypes.c_int


def _check_shapes(weights, shapes):
    for name, expected in shapes.items():
        found = tuple(weights[name].shape)
        if found != expected:
            raise RuntimeError(f"{name} has shape {found}, expected {expected}")


def _stamp(weight):
    return weight._version, weight.data_ptr(), weight.shape, weight.stride()


class _Kept:
    """A model packed from weights of one moment, and what tells whether they are still the same."""

    def __init__(self, spec, shapes, weights, trainable, trusts):
        _check_shapes(weights, shapes)
        self.spec, self.trainable, self.trusts = spec, trainable, trusts
        self.stamps = [_stamp(w) for w in weights.values()] if trusts else None  # before anything is read
        # Not copied where stamps are trusted: as long as a tensor is held, no other can be at its address.
        copied = torch.Tensor.detach if trusts else _copied
        self.held = {name: copied(w) for name, w in weights.items()}
        self.model = pack(spec, {name: w.contiguous().numpy(force=True) for name, w in self.held.items()}, trainable)
        self.bytes = [(w.numel(), w.data_ptr(), w.nbytes) for w in self.held.values()]

    def holds(self, weights):
        """Whether the model is that of these weights, tensors of its dtype on the CPU."""
        if self.trusts:
            return self.stamps == [_stamp(w) for w in weights.values()]
        for w, (numel, address, size) in zip(weights.values(), self.bytes, strict=True):
            if not w.is_contiguous() or w.numel() != numel or _memcmp(w.data_ptr(), address, size):
                return False
        return True


def _copied(weight):
    return weight.detach().clone(memory_format=torch.contiguous_format)


class Panels:
    """One for a module; copies of the module and its pickles start with an empty one."""

    def __init__(self):
        self._kept = None  # replaced as a whole: a call in another thread finishes with what it has

    def model(self, spec, shapes, weights, trainable, trusts, threads):
        """The core's model. weights: name -> tensor; shapes: name -> the shape it must have, else RuntimeError.

        trainable: with what backward needs. trusts: go by addresses and version counters, not by values.
        """
        trusts = trusts and not any(w.is_inference() for w in weights.values())  # those have no counter
        kept = self._kept
        if (
            kept is None
            or kept.spec is not spec
            or trainable > kept.trainable
            or kept.trusts != trusts
            or not kept.holds(weights)
        ):
            settle(threads)
            kept = self._kept = _Kept(spec, shapes, weights, trainable, trusts)
        return kept.model

    def __reduce__(self):
        return Panels, ()
