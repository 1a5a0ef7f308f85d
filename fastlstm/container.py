"""`Container`: a module made of modules. Weights, locks, modes and copies are its members', under longer names."""

import copy
from contextlib import ExitStack, contextmanager

from .module import Module


class Container(Module):
    """Base of Sequential, Reverse, Bidirectional and Last.

    A subclass calls ``super().__init__(members)`` with a dict name -> Module. The names are those of its constructor's
    arguments; what else that takes is in `_options`. Weights are named ``member.weight``.
    """

    _member_names = ()

    def __init__(self, members):
        super().__init__()
        self._parts = dict(members)
        self.recurrent = any(module.recurrent for module in members.values())

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

    def _replace_weights(self, arrays):
        own = {part: {} for part in self._parts}
        for name, array in arrays.items():
            part, _, rest = name.partition(".")
            own[part][rest] = array
        with self._locked():
            for part, module in self._parts.items():
                module._replace_weights(own[part])

    def _weights_changed(self):
        for module in self._parts.values():
            module._weights_changed()

    @contextmanager
    def _locked(self):
        with ExitStack() as locks:
            for module in self._parts.values():
                locks.enter_context(module._locked())
            yield

    # ---- settings ------------------------------------------------------------------------

    def train(self, mode=True):
        for module in self._parts.values():
            module.train(mode)
        return super().train(mode)

    def set_num_threads(self, n):
        super().set_num_threads(n)
        for module in self._parts.values():
            module.set_num_threads(n)

    def plan(self, T, B):
        """Name of the member -> its plan."""
        return {part: module.plan(T, B) for part, module in self._parts.items()}

    # ---- copies --------------------------------------------------------------------------

    def __reduce__(self):
        # The members travel as they are, so that what they keep beside their weights comes along.
        return _rebuilt, (type(self), tuple(self._parts.values()), self._options(), self._extras())

    def __copy__(self):
        members = tuple(copy.copy(module) for module in self._parts.values())
        return _rebuilt(type(self), members, self._options(), self._extras())

    def __repr__(self):
        lines = [f"({name}): {module!r}" for name, module in self._parts.items()]
        lines += [f"{name}={value!r}" for name, value in self._options().items()]
        inner = "\n".join(lines).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {inner}\n)"


def _rebuilt(cls, members, options, extras):
    model = cls(*members, **options)
    vars(model).update(extras)
    return model
