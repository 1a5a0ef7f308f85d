"""Attributes that say what a module or a stream is: each has one source, and nothing can be set past it.

=============  ==========================================================================
`fixed`        read from where the constructor put it; neither set nor deleted
`kept`         the same for an argument that the constructor keeps as ``_name``
`checked`      set between calls; what is set passes through a check
`Constant`     the same for all modules of a class
=============  ==========================================================================
"""

import inspect
from operator import attrgetter


def _refusal(kind, name, instead):
    if instead is None and name in inspect.signature(kind.__init__).parameters:
        instead = f"make a new one, {kind.__name__}(..., {name}=...)"
    instead = instead or "it follows from what the constructor was given"
    return AttributeError(f"{name} of {kind.__name__} is fixed: {instead}")


def fixed(read, name=None, instead=None):
    """A property whose value is ``read(self)``. To set or to delete it is an AttributeError.

    name: of the attribute; that of the function `read` by default. instead: what the error tells the user to do; to
    call the constructor by default.
    """
    name = name or read.__name__

    def refuse(self, value=None):
        raise _refusal(type(self), name, instead)

    doc = "As the constructor was given it." if isinstance(read, attrgetter) else read.__doc__
    return property(read, refuse, refuse, doc)


def kept(name, instead=None):
    """`fixed` for what the constructor keeps as ``_name``."""
    return fixed(attrgetter(f"_{name}"), name, instead)


def checked(name, check, doc):
    """A property that keeps what ``check(name, value)`` returns in the object's own dict, under its own name."""

    def read(self):
        try:
            return vars(self)[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no {name} yet: its constructor sets it") from None

    def change(self, value):
        vars(self)[name] = check(name, value)

    return property(read, change, None, doc)


class Constant:
    """An attribute of a class, read from the class or from an object; to set it on an object is an AttributeError."""

    def __init__(self, value, name=None):
        self._value, self._name = value, name

    def __set_name__(self, owner, name):
        self._name = name

    def __get__(self, instance, owner):
        return self._value

    def __set__(self, instance, value):
        raise _refusal(type(instance), self._name, "it belongs to the class")

    def __delete__(self, instance):
        self.__set__(instance, None)
