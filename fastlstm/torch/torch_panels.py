"""`Panels`: the packed weights of a torch module, kept as long as they are those of its parameters.

A tensor's version counter misses what is written through ``.data``, through NumPy, through another tensor on the same
memory, and by torch's fused optimisers. So the weights themselves are compared with a copy, at the speed of memory; a
weight that was trained mostly differs in its first bytes.
"""

import ctypes
import os

import torch

from .. import _core
from ..machine import settle
from ..ragged import pack

PLAIN = (torch.Tensor, torch.nn.Parameter)  # others may compute in ways of their own
_memcmp = ctypes.CDLL("msvcrt" if os.name == "nt" else None).memcmp
_memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_memcmp.restype = ctypes.c_int


def _stamp(weight):
    return weight._version, weight.data_ptr(), weight.shape, weight.stride()


def _copied(weight):
    return weight.detach().clone(memory_format=torch.contiguous_format)


class Packed:
    """A model packed from weights of one moment, and what tells whether they are still the same.

    spec, shapes: of the stack; weights: name -> tensor of the spec's dtype on the CPU. trainable: with what backward
    needs. trusts: go by addresses and version counters, not by values. rooms: those of the models before it. threads:
    as many may pack; 0: the package-wide setting. Raises RuntimeError for another shape.
    """

    def __init__(self, spec, shapes, weights, trainable, trusts, rooms, threads=0):
        for name, expected in shapes.items():
            if weights[name].shape != expected:
                raise RuntimeError(f"{name} has shape {tuple(weights[name].shape)}, expected {expected}")
        self.spec, self.shapes, self.trainable, self.trusts = spec, shapes, trainable, trusts
        self._stamps = None
        if trusts and not any(w.is_inference() for w in weights.values()):  # those have no counter
            self._stamps = [_stamp(w) for w in weights.values()]  # before anything is read
        # Not copied where stamps are trusted: as long as a tensor is held, no other can be at its address.
        self._held = [w.detach() if self._stamps else _copied(w) for w in weights.values()]
        arrays = (w.contiguous().numpy(force=True) for w in self._held)
        self.model = pack(spec, dict(zip(weights, arrays, strict=True)), trainable, rooms=rooms, threads=threads)
        self._bytes = [(w.dtype, w.numel(), w.data_ptr(), w.nbytes) for w in self._held]

    def holds(self, weights):
        """Whether the model is that of these tensors, which may be any."""
        if self._stamps:
            return not any(w.is_inference() for w in weights) and self._stamps == [_stamp(w) for w in weights]
        for w, (dtype, numel, address, size) in zip(weights, self._bytes, strict=True):
            if type(w) not in PLAIN or w.dtype is not dtype or not w.is_cpu or w.numel() != numel:
                return False
            if not w.is_contiguous() or _memcmp(w.data_ptr(), address, size):
                return False
        return True


class Panels:
    """One for a module; copies of the module and its pickles start with an empty one."""

    def __init__(self):
        self._rooms = _core.Rooms()
        self._packed = None  # replaced as a whole: a call in another thread finishes with what it has

    def find(self, weights, trusts):
        """What is packed, if it is of these weights."""
        packed = self._packed
        if packed is None or packed.trusts is not trusts or not packed.holds(weights.values()):
            return None
        return packed

    def pack(self, spec, shapes, weights, trainable, trusts, threads):
        """The weights, packed; see `Packed`."""
        settle(threads)
        self._packed = packed = Packed(spec, shapes, weights, trainable, trusts, self._rooms, threads or 0)
        return packed

    def __reduce__(self):
        return Panels, ()
