"""`Container`: a module made of modules. Weights, modes and copies are its members', under longer names."""

import copy
import functools
from operator import attrgetter

from .attributes import Constant, fixed
from .module import Module
from .params import check_flag


def member(name):
    """The member of that name as an attribute, fixed."""
    return fixed(lambda self: self._parts[name], name)


class Container(Module):
    """Base of Sequential, Reverse, Bidirectional and Last.

    A subclass calls ``super().__init__(members)`` with a dict name -> Module. The names are those of its constructor's
    arguments; what else that takes is in `_options`. Weights are named ``member.weight``.
    """

    _member_names = ()
    row_axes = Constant(1)

    def __init__(self, members):
        super().__init__()
        self._parts = dict(members)
        self._all = [leaf for module in members.values() for leaf in module._leaves()]
        self._moment = None  # what the last call without a cache took of the members' weights
        self._recurrent = any(module.recurrent for module in members.values())

    def _options(self):
        """Name -> value of the constructor's arguments that are no members, JSON-able."""
        return {}

    def config(self):
        return {name: module.describe() for name, module in self._parts.items()} | self._options()

    @classmethod
    def from_config(cls, config):
        members = {name: Module.from_description(config[name]) for name in cls._member_names if name in config}
        return cls(**config | members)

    # ---- weights -------------------------------------------------------------------------

    @property
    def dtype(self):
        """numpy.dtype of the weights."""
        return next(iter(self._parts.values())).dtype

    def _named_weights(self):
        return {
            f"{part}.{name}": weight
            for part, module in self._parts.items()
            for name, weight in module._named_weights().items()
        }

    def _parted(self, arrays):
        own = {part: {} for part in self._parts}
        for name, array in arrays.items():
            part, _, rest = name.partition(".")
            own[part][rest] = array
        self._moment = None
        return [pair for part, module in self._parts.items() for pair in module._parted(own[part])]

    def _take_back(self, replaced=()):
        self._moment = None
        for module in self._parts.values():
            module._take_back()

    def _leaves(self):
        return self._all

    # ---- settings ------------------------------------------------------------------------

    recurrent = fixed(attrgetter("_recurrent"), "recurrent")

    @property
    def training(self):
        """Whether any member trains. Setting it sets that of all members."""
        return any(module.training for module in self._parts.values())

    @training.setter
    def training(self, mode):
        mode = check_flag("training", mode)
        for module in self._parts.values():
            module.train(mode)

    def set_num_threads(self, n):
        super().set_num_threads(n)
        for module in self._parts.values():
            module.set_num_threads(n)

    def plan(self, T, B):
        """Name of the member -> its plan."""
        return {part: module.plan(T, B) for part, module in self._parts.items()}

    # ---- copies --------------------------------------------------------------------------

    def __reduce__(self):
        # All members at the same moment; each with what it keeps beside its weights.
        with self._locked():
            return _remade, (type(self), tuple(map(_reduced, self._parts.values())), self._options(), self._extras())

    def __deepcopy__(self, memo):
        with self._locked():
            members = tuple(copy.deepcopy(module, memo) for module in self._parts.values())
        return _rebuilt(type(self), members, self._options(), copy.deepcopy(self._extras(), memo))

    def __repr__(self):
        lines = [f"({name}): {module!r}" for name, module in self._parts.items()]
        lines += [f"{name}={value!r}" for name, value in self._options().items()]
        inner = "\n".join(lines).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {inner}\n)"


def check_modules(model):
    """A Module or a list of Modules as a list. Raises TypeError, ValueError for what is neither."""
    if isinstance(model, Module):
        return [model]
    if not isinstance(model, (list, tuple)):
        what = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise TypeError(f"model must be a Module or a list of Modules, got {what}")
    if not model:
        raise ValueError("model must be a Module or a list of Modules, got an empty list")
    for place, one in enumerate(model):
        if not isinstance(one, Module):
            raise TypeError(f"model[{place}] must be a Module, got {type(one).__name__}")
    return list(model)


def run(module, x, state, moment, **options):
    """A recurrent member's forward, with its weights of the moment; of a class with a forward of its own, just that."""
    if is_ours(type(module)):
        return module._forward(x, state, moment=moment, **options)
    return module.forward(x, state, **options)


@functools.cache
def is_ours(kind):
    """Whether the forward of a class is of this package."""
    return kind.forward.__module__.partition(".")[0] == __name__.partition(".")[0]


def _reduced(module):
    """(function, arguments) that make the module again, or (None, module) where a subclass has ways of its own."""
    found = module.__reduce_ex__(4)
    return found if isinstance(found, tuple) and len(found) == 2 else (None, module)


def _remade(cls, members, options, extras):
    return _rebuilt(cls, [rest if make is None else make(*rest) for make, rest in members], options, extras)


def _rebuilt(cls, members, options, extras):
    model = cls(*members, **options)
    vars(model).update(extras)
    return model
