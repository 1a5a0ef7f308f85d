"""Several threads, and fork(): locks of several modules taken together, weights of one moment, the child of a fork.

Modules that belong together are locked together by `hold`. Calls do not hold locks while they compute: a container
takes what its members have packed under all their locks, and hands it to them (`at_one_moment`).
"""

import functools
import itertools
import operator
import os
import threading
import weakref
from typing import NamedTuple

from . import _core

_modules: dict[int, weakref.ref] = {}  # by number: those that the child of a fork gives new locks
_numbers = itertools.count()


class Weights(NamedTuple):
    """What a call needs of a module's weights of one moment; what is not there, the module looks for itself."""

    panels: object = None  # packed
    version: int | None = None
    arrays: dict | None = None  # name -> array that nobody changes meanwhile, of a module that computes with those


def give_lock(module):
    """A lock of its own for a new module, which then is one of those that a fork looks after."""
    module._lock, module._number = threading.RLock(), next(_numbers)
    # dict.pop is called when the module is gone: written in Python, a callback could lose a signal handler's exception
    _modules[module._number] = weakref.ref(module, functools.partial(_modules.pop, module._number))


def hold(*modules):
    """A context manager that holds the locks of all these modules and of their members.

    They are taken in the order in which the modules were made, and never is one waited for while another is held: so
    no two threads wait for each other, whatever containers the modules are in. An exception of a signal handler
    leaves none of them taken. To enter it is a RuntimeError while one of them is being changed in this very thread.
    """
    leaves = {id(leaf): leaf for module in modules for leaf in module._leaves()}
    return _core.Locks(sorted(leaves.values(), key=operator.attrgetter("_number")))


NOTHING: dict[int, Weights] = {}  # a moment in which nothing was taken; else id of a member -> its `Weights`


def at_one_moment(forward):
    """For the `_forward` of a container: all members compute with their weights of one moment, which `forward` gets.

    When a call for training raises, the generators of masks are as before it.
    """

    @functools.wraps(forward)
    def call(self, x, state=None, *, cache=False, moment=NOTHING, **given):
        leaves = self._leaves()
        if len(leaves) < 2 or (moment and all(id(leaf) in moment for leaf in leaves)):
            return forward(self, x, state, cache=cache, moment=moment, **given)
        if not cache:
            return forward(self, x, state, cache=False, moment=_taken(self, leaves), **given)
        with hold(self):
            moment = {id(leaf): leaf._for_call(True) for leaf in leaves}
            drawing = [(leaf, leaf._rng.bit_generator.state) for leaf in leaves if leaf._draws()]
        try:
            return forward(self, x, state, cache=True, moment=moment, **given)
        except BaseException:
            for leaf, before in drawing:
                with leaf._lock:
                    leaf._rng.bit_generator.state = before
            raise

    return call


def _taken(container, leaves):
    moment = _as_before(container._moment, leaves)
    if moment is None:
        with hold(container):
            moment = {id(leaf): leaf._for_call(False) for leaf in leaves}
        lent = any(weights.arrays is not None for weights in moment.values())
        container._moment = None if lent else moment
    return moment


def _as_before(moment, leaves):
    """The moment of the last call, if no weight has changed since; no lock is needed to see that.

    Versions only rise, and panels are dropped before they do.
    """
    if moment is None:
        return None
    for leaf in leaves:
        panels, version, _ = moment[id(leaf)]
        if leaf._panels is not panels or leaf._version != version:
            return None
    return moment


# ---- fork ---------------------------------------------------------------------------------


def _after_fork():
    """In the child: what other threads of the parent had begun will never be finished here.

    Locks are new, and the weights as they stood are packed anew; a generator that was drawing goes on from where it
    was. One generator of several modules stays one. Streams can be used, with their state as it stood.
    """
    generators = {}  # id -> (the generator, which stays alive so long, the one to go on with)
    for module in [found for found in (one() for one in list(_modules.values())) if found is not None]:
        vars(module).update(_lock=threading.RLock(), _changing=False)
        module._drop_packed()
        rng = vars(module).get("_rng")
        if rng is not None:
            if id(rng) not in generators:
                generators[id(rng)] = rng, _same_generator(rng) if _is_drawing(rng) else rng
            module._rng = generators[id(rng)][1]


def _is_drawing(rng):
    lock = rng.bit_generator.lock
    if not lock.acquire(blocking=False):
        return True
    lock.release()
    return False


def _same_generator(rng):
    bits = type(rng.bit_generator)()
    bits.state = rng.bit_generator.state
    return type(rng)(bits)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
