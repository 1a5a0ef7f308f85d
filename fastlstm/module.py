"""Module: what every model and every part of a model has in common.

Weights and their names, saving, copying, threads, and the calls. A subclass brings

* ``__init__`` taking JSON-able arguments (plus ``rng``, ``num_threads``), which calls
  ``super().__init__(num_threads)`` and sets ``self._weights`` by `Module._new_weights`;
* ``config()``: the arguments that build the same model again, without ``rng`` and ``num_threads``;
* ``_weight_shapes()``: name -> shape, in the order of ``state_dict()``;
* ``forward``, ``backward``, and ``stream`` where it means something;
* ``recurrent = True`` if it carries a state from step to step.

What is packed from the weights (panels in the core's layout) comes from ``_pack()`` and is
fetched with ``self._packed()``: built once, at first use, and dropped when a weight changes. A
packed object is immutable, so a thread in the middle of a call finishes with the weights it
started with.
"""

import contextvars
import copy
import functools
import inspect
import weakref
from typing import NamedTuple

import numpy as np

from . import _core
from .attributes import checked, fixed
from .concurrency import Weights, give_lock, hold
from .params import check_flag, check_num_threads, check_state_dict

# Set while a model is built only to be filled with weights that exist already.
_hollow = contextvars.ContextVar("fastlstm_hollow", default=False)


class LoadResult(NamedTuple):
    """What `Module.load_state_dict` did not match; both lists are empty when it was strict."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def hollow():
    """A context manager: models built inside have weights of the right shape that own no memory.

    For loading: the shapes of a model can be compared with a file before anything is allocated,
    and no random numbers are drawn only to be thrown away.
    """
    return _core.Setting(_hollow, True)


def file_name(cls):
    """What a class is called in files. The package's own go by their bare name, anyone else's by module and name, so
    that a file which says "LSTM" can never come out as somebody's subclass."""
    inside = cls.__module__.partition(".")[0] == __name__.partition(".")[0]
    return cls.__name__ if inside else f"{cls.__module__}.{cls.__qualname__}"


def _notes(name, value):
    from .files import check_metadata

    return dict(check_metadata(value))


class _Lent(dict):
    """Name -> array of the weights of one moment, for open streams; a dict that can be referred to weakly."""


class Module:
    """Base of LSTM, Linear, Embedding and Sequential.

    Attributes
    ----------
    training : bool
        True at first, as in torch. Dropout acts only in ``forward(..., cache=True)`` of a model
        with ``training`` True; a plain call ``model(x)`` never drops anything. Setting anything
        but a bool is a TypeError.
    metadata : dict of str to str
        The user's own notes; written by `save` and read back by ``fastlstm.load``. A dict that is
        set is copied; TypeError for what is none, ValueError for a key that `save` needs itself.

    The arguments of a constructor, but for rng, are attributes. They are fixed: to set one is an
    AttributeError that says what to do instead. Rates, such as a layer's dropout, may be set.
    """

    recurrent = False
    row_axes = 1  # axes of one row of x behind time and batch
    _packs = False  # whether there is a `_pack`, and calls compute with `_packed`
    _classes = {}  # name in files -> class
    training = checked("training", check_flag, "Whether dropout and other regularisers act; a bool.")
    metadata = checked("metadata", _notes, "The user's notes, str to str; a dict that is set is copied.")

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls._file_name = file_name(cls)
        if "_pack" in vars(cls):
            cls._packs = True
        Module._classes[cls._file_name] = cls

    def __init__(self, num_threads=None):
        vars(self).update(training=True, metadata={})
        self._num_threads = check_num_threads(num_threads)
        self._weights = {}
        self._panels = None
        self._lent = lambda: None  # a weak reference to the weights that open streams hold
        self._changing = False  # while `_update` changes weights in place
        self._version = 0  # counts weight changes; lets backward see a stale cache
        give_lock(self)

    # ---- description ---------------------------------------------------------------------

    def config(self):
        """The constructor's arguments as a JSON-able dict: ``type(m)(**m.config())`` has m's shape."""
        raise NotImplementedError(f"{type(self).__name__} does not define config()")

    @classmethod
    def from_config(cls, config):
        """A model with fresh weights from what `config` returned.

        Raises what the constructor raises: TypeError for an unknown argument, ValueError.
        """
        if cls is Module:
            raise TypeError("from_config belongs to a class, e.g. LSTM.from_config(config)")
        return cls(**config)

    def describe(self):
        """``{"class": name, "config": config()}``: enough to build the model without its class at hand."""
        return {"class": self._file_name, "config": self.config()}

    @staticmethod
    def from_description(description):
        """The inverse of `describe`, with fresh weights.

        Raises ValueError for something that is no description or names an unknown class; a class
        outside this package is known once its module was imported (nothing is imported here).
        """
        if not isinstance(description, dict) or set(description) != {"class", "config"}:
            raise ValueError('a model is described by a dict with the keys "class" and "config"')
        name, config = description["class"], description["config"]
        if not isinstance(name, str) or not isinstance(config, dict):
            raise ValueError('in a model\'s description "class" is a string and "config" a dict')
        if name not in Module._classes:
            known = ", ".join(sorted(Module._classes))
            raise ValueError(f"unknown class {name!r}; known are {known}")
        return Module._classes[name].from_config(config)

    def __repr__(self):
        return f"{type(self).__name__}({self._repr_arguments()})"

    def _repr_arguments(self):
        """Required arguments by value, the others by name where they differ from their default."""
        config, words = self.config(), []
        for name, parameter in inspect.signature(type(self).__init__).parameters.items():
            if name not in config:
                continue
            if parameter.default is parameter.empty:
                words.append(repr(config[name]))
            elif config[name] != parameter.default:
                words.append(f"{name}={config[name]!r}")
        return ", ".join(words)

    # ---- weights -------------------------------------------------------------------------

    @staticmethod
    def _new_weights(shapes, dtype, draw):
        """``draw()``, or inside `hollow` read-only stand-ins of those shapes that own no memory."""
        if not _hollow.get():
            return draw()
        nothing = np.zeros((), dtype)
        return {name: np.broadcast_to(nothing, shape) for name, shape in shapes.items()}

    def _weight_shapes(self):
        return {name: weight.shape for name, weight in self._named_weights().items()}

    def _named_weights(self):
        """Name -> the array itself, never a copy. Containers put their members' together."""
        return self._weights

    def _replace_weights(self, arrays):
        """Take over arrays that were checked and that nobody else holds: all of them at once, or none."""
        with self._locked():
            parts = self._parted(arrays)
            for module, own in parts:
                module._take_back(replaced=own)
            _core.replace_weights(parts)  # no signal's handler runs in between

    def _parted(self, arrays):
        """(module, its own among the arrays) for every module that has weights of its own."""
        return [(self, arrays)]

    def _lend_weights(self):
        """Name -> the arrays of this moment. Nobody changes them as long as somebody holds what this returns."""
        with self._locked():
            lent = self._lent()
            if lent is None:
                lent = _Lent(self._weights)
                self._lent = weakref.ref(lent)
            return lent

    def _take_back(self, replaced=()):
        """Before weights change: those that were lent, but for those about to be replaced, become copies."""
        lent = self._lent()
        if lent is not None:
            mine = [name for name, weight in self._weights.items() if lent.get(name) is weight]
            self._weights.update({name: lent[name].copy() for name in mine if name not in replaced})
        self._lent = lambda: None

    def _drop_packed(self):
        """Forget all that was packed, in the child of a fork: another thread may have been changing the weights."""
        self._panels = None

    def _pack(self):
        raise NotImplementedError(f"{type(self).__name__} packs nothing")

    def _packed(self):
        """The packed weights of this moment, built if need be; from any thread."""
        panels = self._panels
        if panels is None:
            with self._locked():  # also keeps `_update` from changing weights while they are read
                if self._panels is None:
                    from .machine import settle

                    settle(self._num_threads)
                    self._panels = self._pack()
                panels = self._panels
        return panels

    def pack(self, *, backward=False):
        """Pack the weights now, which else the first call does, in the layout of the kernels; returns the model.

        Doing it again does nothing until a weight has changed. A stream packs when it is opened. backward: also what
        calls with ``cache=True`` and `backward` need, about as much memory again; with `weight_drop` each such call
        packs its own. TypeError for one that is no bool; MemoryError.
        """
        backward = check_flag("backward", backward)
        with self._locked():
            for module in self._leaves():
                module._pack_ahead(backward)
        return self

    def _pack_ahead(self, backward):
        if self._packs:
            self._packed()

    def _leaves(self):
        """The modules that have weights of their own: this one; of a container its members, and theirs."""
        return [self]

    def _locked(self):
        """A context manager that holds every lock under this module."""
        return hold(self)

    def _draws(self):
        """Whether a call for training draws masks."""
        return False

    def _for_call(self, cache):
        """The `Weights` of this moment for a call, with cache=True or without. Called with the lock held."""
        return Weights(self._packed() if self._packs else None, self._version)

    def _update(self, change):
        """Change weights in place: the only door for optimisers.

        change: a dict, name -> values of the weight's shape, or a function that is given the
        dict of live arrays. The caller has checked names and shapes.
        """
        with self._locked():
            self._take_back()
            weights = self._named_weights()
            with _core.Changing(self._leaves()):  # what is packed serves calls until the change is made
                if callable(change):
                    change(weights)
                else:
                    for name, values in change.items():
                        weights[name][...] = values

    def state_dict(self):
        """Name -> copy of the weight, with torch's names and order.

        RuntimeError when a signal's handler asks while an optimiser's step in its thread has not ended.
        """
        with self._locked():
            return {name: weight.copy() for name, weight in self._named_weights().items()}

    def load_state_dict(self, d, strict=True):
        """Replace the weights by those of `d`, a mapping of names to array-likes.

        Returns `LoadResult`. Floats of another width are converted. With ``strict=False``
        missing tensors keep their values and unexpected ones are skipped; a wrong shape is
        refused all the same.

        Raises ValueError or TypeError naming every tensor that does not fit; the model is then
        exactly as it was. Warns (RuntimeWarning) of NaN and infinity.
        """
        strict = check_flag("strict", strict)
        arrays, missing, unexpected = check_state_dict(d, self._weight_shapes(), self.dtype, strict)
        self._replace_weights(arrays)
        return LoadResult(missing, unexpected)

    @fixed
    def dtype(self):
        """numpy.dtype of the weights."""
        return next(iter(self._named_weights().values())).dtype

    @property
    def num_parameters(self):
        """How many numbers the weights hold."""
        return sum(weight.size for weight in self._named_weights().values())

    @property
    def parameters_bytes(self):
        """How many bytes the weights hold, without their packed copy."""
        return sum(weight.nbytes for weight in self._named_weights().values())

    # ---- calls ---------------------------------------------------------------------------

    def forward(self, x, state=None, *, lengths=None, reset=None, trace=False, cache=False):
        """``(y, state)``, then the trace if asked for, then the cache if asked for.

        A module without memory returns None for its state. What is handed in and what is returned may be changed in
        place at once: no gradient that `backward` gives follows. Arrays that a cache has to share are read-only.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def backward(self, dy, cache, dstate=None, *, input_gradient=True):
        """``(dx, dstate, grads)``, grads with the names of ``state_dict()``; None where there is none.

        ``input_gradient=False`` saves the work of dx, which is then None.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define backward()")

    def __call__(self, x, state=None, **kwargs):
        """Inference: `forward` without a cache. A module without memory returns y alone."""
        if kwargs.get("cache"):
            raise TypeError("model(x) keeps no cache; for training call model.forward(x, cache=True)")
        result = self.forward(x, state, **kwargs)
        return result if self.recurrent else result[0]

    def stream(self, batch_size=1, *, awake=0.0):
        """A session that takes one step or block at a time."""
        raise NotImplementedError(f"{type(self).__name__} does not stream")

    def plan(self, T, B):
        """What a call with T steps of B rows would do."""
        return {"steps": T, "rows": B, "num_threads": self._num_threads}

    def train(self, mode=True):
        """Set `training`; returns the model. TypeError for a mode that is no bool."""
        self.training = check_flag("mode", mode)
        return self

    def eval(self):
        """``train(False)``."""
        return self.train(False)

    @functools.partial(fixed, instead="call set_num_threads(n)")
    def num_threads(self):
        """Threads a call may use; None leaves it to the package-wide setting and the plan."""
        return self._num_threads

    def set_num_threads(self, n):
        """Set `num_threads` (None or a positive integer); never changes a result."""
        self._num_threads = check_num_threads(n)

    # ---- copies --------------------------------------------------------------------------

    def save(self, path, metadata=None):
        """Write the model to a safetensors file, a path or a binary file object; see ``fastlstm.files.save``."""
        from .files import save

        save(self, path, metadata)

    def _extras(self):
        """What a copy keeps beside config and weights."""
        return {
            "metadata": dict(self.metadata),
            "training": self.training,
            "_num_threads": self._num_threads,
        }

    def __reduce__(self):
        # Packed weights and locks stay behind; both come back by themselves.
        return _rebuild, (type(self), self.config(), self.state_dict(), self._extras())

    def __copy__(self):
        return self.__deepcopy__({})  # weights are never shared, so there is only one kind of copy

    def __deepcopy__(self, memo):
        with self._locked():
            make, (*arguments, extras) = self.__reduce__()
            return make(*arguments, copy.deepcopy(extras, memo))  # a generator that several draw from is copied once


def _rebuild(cls, config, weights, extras):
    with hollow():
        model = cls.from_config(config)
    model._replace_weights(weights)
    vars(model).update(extras)
    return model
