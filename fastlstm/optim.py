"""Optimisers with torch's formulas: SGD, Adam, and clipping by norm.

    for x, target in data:
        y, state, cache = model.forward(x, cache=True)
        loss, dy = cross_entropy(y, target)
        dx, dstate, grads = model.backward(dy, cache)
        clip_grad_norm(grads, 1.0)
        optimiser.step(grads)

Several modules that learn together, an encoder and a decoder, are given as a list; `grads` are then a
list of dicts in that order:

    optimiser = Adam([encoder, decoder])
    clip_grad_norm([encoder_grads, decoder_grads], 1.0)
    optimiser.step([encoder_grads, decoder_grads])

An optimiser never changes `grads`. Hyper-parameters are plain attributes; to follow a schedule,
assign ``optimiser.lr`` between steps.
"""

import math
import operator
import warnings

import numpy as np

from .arguments import _read
from .concurrency import hold
from .container import check_modules
from .gradients import check_grads, check_number, clip_grad_norm, joined
from .module import Module, file_name
from .params import check_flag, not_finite

__all__ = ["SGD", "Adam", "Optimiser", "clip_grad_norm"]


def __dir__():
    return [*__all__]


_MOST_STEPS = 2**53  # up to which a float counts


def _check_names(what, given, weights):
    missing = [name for name in weights if name not in given]
    unexpected = [name for name in given if name not in weights]
    if missing or unexpected:
        words = [f"missing {name}" for name in missing] + [f"unexpected {name}" for name in unexpected]
        raise ValueError(f"{what} do not fit the model: {', '.join(words)}")


def _check_unshared(named):
    """ValueError if a weight occurs under two names: it would move twice in one step."""
    seen = {}
    for name, weight in named.items():
        if id(weight) in seen:
            raise ValueError(f"model: {seen[id(weight)]} and {name} are the same weight, which would move twice")
        seen[id(weight)] = name


class Optimiser:
    """Steps, checks and saved state; a subclass says which numbers it has and how one weight moves.

    model: a `Module`, or a list of Modules, no two of which share a weight. The weights of the second module in a list
    are named ``1.weight`` in `state_dict`. ``load_checkpoint`` makes an optimiser without calling the constructor of
    its class: attributes beyond those that `_hyper` names are for the program to set again. A step that an exception
    of a signal's handler ends (KeyboardInterrupt) may be half done: go on from a checkpoint then.
    """

    _hyper = ()  # names of the attributes that state_dict() keeps
    _slots = ()  # names of the arrays kept per weight
    _classes = {}  # name in checkpoints -> class

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls._file_name = file_name(cls)
        Optimiser._classes[cls._file_name] = cls

    @staticmethod
    def _of_class(name, model):
        """An optimiser of a known class, without numbers until `load_state_dict`. ValueError for another class."""
        if not isinstance(name, str) or name not in Optimiser._classes:
            raise ValueError(f"unknown optimiser {str(name)[:40]!r}; known are {', '.join(sorted(Optimiser._classes))}")
        kind = Optimiser._classes[name]
        found = kind.__new__(kind)
        Optimiser.__init__(found, model)
        return found

    def __init__(self, model):
        self._modules = check_modules(model)
        self._several = None if isinstance(model, Module) else len(self._modules)
        self._state = {}  # weight name -> {"step": int, slot: array}
        self._warned = False
        _check_unshared(self._named_weights())

    @property
    def model(self):
        """The module, or the tuple of those that came as a list."""
        return self._modules[0] if self._several is None else tuple(self._modules)

    def __repr__(self):
        # of one whose constructor was ended by a bad number some are missing
        known = ", ".join(f"{name}={_plain(getattr(self, name))!r}" for name in self._hyper if hasattr(self, name))
        return f"{type(self).__name__}({known})"

    def _named_weights(self):
        """Name -> live weight, of all modules; with the place in front if a list was given."""
        each = [module._named_weights() for module in self._modules]
        return each[0] if self._several is None else joined(each)

    def _check(self):
        """Raise ValueError or TypeError for a hyper-parameter out of range."""

    def _move(self, weight, grad, kept):
        """One step of one weight in place; `kept` is its entry in the state."""

    def _fresh(self, weight):
        return {"step": 0, **{slot: np.zeros(weight.shape, weight.dtype) for slot in self._slots}}

    def step(self, grads):
        """Change the model's weights by one step.

        grads: dict with every name of ``model.state_dict()`` -> array of the weight's shape, or
        None for a weight to leave alone (its own step count then stands still, as in torch); a list
        of such dicts if the optimiser has a list of modules.

        Raises ValueError or TypeError naming what does not fit; nothing has changed then. Warns
        (RuntimeWarning) of NaN and infinity among the gradients, once in the life of the optimiser
        and before anything changes: where warnings are errors, the weights stay as they are.
        """
        self._check()
        weights, usable = self._named_weights(), {}
        grads = check_grads(grads, self._several)
        _check_names("grads", grads, weights)
        with np.errstate(all="ignore"):
            for name, grad in grads.items():
                if grad is not None:
                    usable[name] = self._check_grad(name, grad, weights[name])
            self._warn_of(usable)
            def change(place, live):
                head = "" if self._several is None else f"{place}."
                for name, weight in live.items():
                    grad = usable.get(head + name)
                    if grad is not None:
                        kept = self._state[head + name]
                        kept["step"] += 1
                        self._move(weight, grad, kept)

            with hold(*self._modules):  # a call, copy or checkpoint sees all of them before the step or after it
                fresh = {name: self._fresh(weights[name]) for name in usable if name not in self._state}
                self._state |= fresh  # no memory is taken from here on but for a weight at a time
                for place, module in enumerate(self._modules):
                    module._update(lambda live, place=place: change(place, live))

    @staticmethod
    def _check_grad(name, grad, weight):
        grad = _read(f"grads: {name}", grad)
        if grad.dtype.kind != "f":
            raise TypeError(f"grads: {name} must hold floats, got {grad.dtype}")
        if grad.shape != weight.shape:
            raise ValueError(f"grads: {name} has shape {grad.shape}, expected {weight.shape}")
        return grad.astype(weight.dtype, copy=False)

    def _warn_of(self, grads):
        """Warns of the first gradients that are not finite, before anything changes."""
        odd = [] if self._warned else not_finite(grads)
        if odd:
            words = f"grads: NaN or infinity in {', '.join(odd)}; the weights will not be finite, either"
            warnings.warn(words, RuntimeWarning, stacklevel=3)
            self._warned = True  # not before: where warnings are errors, the next step is refused as well

    def _decayed(self, weight, grad):
        return grad + self.weight_decay * weight if self.weight_decay else grad

    def state_dict(self):
        """Everything needed to go on exactly: hyper-parameters, step counts and running means (copies)."""
        with hold(*self._modules):  # between two steps
            state = {
                name: {key: value.copy() if key != "step" else value for key, value in kept.items()}
                for name, kept in self._state.items()
            }
            return {"class": self._file_name, **self._hyper_values(), "state": state}

    def _hyper_values(self):
        """Name -> value, NumPy's numbers as Python's."""
        return {name: _plain(getattr(self, name)) for name in self._hyper}

    def _checked_state(self):
        """`state_dict`, if `load_state_dict` would take it; else what that raises."""
        self._check()
        with hold(*self._modules):
            weights = self._named_weights()
            state = {name: self._take(name, kept, weights) for name, kept in self._state.items()}
            return {"class": self._file_name, **self._hyper_values(), "state": state}

    def load_state_dict(self, d):
        """Take over what `state_dict` returned for a model with the same names and shapes.

        Raises ValueError or TypeError naming what does not fit; nothing has changed then.
        """
        if not isinstance(d, dict) or d.get("class") != self._file_name:
            raise ValueError(f"this is not the state of {type(self).__name__}")
        expected = {"class", "state", *self._hyper}
        if set(d) != expected:
            words = f"state must have the keys {', '.join(sorted(expected))}"
            raise ValueError(f"{words}; got {', '.join(sorted(map(str, d)))}")
        weights = self._named_weights()
        if not isinstance(d["state"], dict):
            raise TypeError(f"state must be a dict, got {type(d['state']).__name__}")
        state = {name: self._take(name, kept, weights) for name, kept in d["state"].items()}
        numbers = {name: d[name] for name in self._hyper}
        other = object.__new__(type(self))
        vars(other).update(vars(self) | numbers)
        other._check()
        vars(self).update(numbers, _state=state, _warned=False)  # all at once, whatever a signal's handler raises

    def _take(self, name, kept, weights):
        """A checked copy of the saved entry of one weight."""
        if name not in weights:
            raise ValueError(f"state: unexpected {name}")
        if not isinstance(kept, dict) or set(kept) != {"step", *self._slots}:
            raise ValueError(f"state: {name} must have step, {', '.join(self._slots)}")
        slots = {slot: self._take_slot(slot, name, kept[slot], weights[name]) for slot in self._slots}
        return {"step": _check_step(name, kept["step"]), **slots}

    def _take_slot(self, slot, name, value, weight):
        """A checked copy of one saved array."""
        told = f"state: {slot} of {name}"
        array = _read(told, value)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{told} must hold real numbers, got {array.dtype}")
        if array.shape != weight.shape:
            raise ValueError(f"{told} has shape {array.shape}, expected {weight.shape}")
        with np.errstate(over="ignore", invalid="ignore"):
            array = np.array(array, dtype=weight.dtype, order="C")
        if not np.isfinite(array).all():
            raise ValueError(f"{told} holds NaN, infinity, or a number too large for {weight.dtype}")
        return array


def _plain(value):
    if isinstance(value, (tuple, list)):
        return type(value)(_plain(one) for one in value)
    return value.item() if isinstance(value, np.generic) else value


def _check_step(name, value):
    try:
        step = operator.index(value)
    except TypeError:
        step = None
    if step is None or isinstance(value, (bool, np.bool_)):
        raise TypeError(f"state: step of {name} must be an integer, got {value!r}")
    if not 0 <= step <= _MOST_STEPS:
        raise ValueError(f"state: step of {name} must be from 0 to 2**53, got {value}")
    return step


class SGD(Optimiser):
    """Stochastic gradient descent (torch.optim.SGD; momentum after Sutskever et al. 2013).

    model: a `Module` or a list of Modules; see `fastlstm.optim`.

    With g = grad + weight_decay * w and m = momentum: ``b = m b + g`` (b = g at the first step),
    ``w -= lr * (g + m b if nesterov else b)``; without momentum ``w -= lr * g``.

    Raises TypeError for what is no module or list of modules, and for a flag or a number that is none; ValueError for
    a weight that two of them share, a negative or non-finite number, or nesterov without momentum.
    """

    _hyper = ("lr", "momentum", "weight_decay", "nesterov")
    _slots = ("momentum_buffer",)

    def __init__(self, model, lr, momentum=0.0, weight_decay=0.0, nesterov=False):
        super().__init__(model)
        self.lr, self.momentum = lr, momentum
        self.weight_decay, self.nesterov = weight_decay, nesterov
        self._check()

    def _check(self):
        for name in ("lr", "momentum", "weight_decay"):
            check_number(name, getattr(self, name))
        if check_flag("nesterov", self.nesterov) and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")

    def _move(self, weight, grad, kept):
        grad = self._decayed(weight, grad)
        if self.momentum:
            buffer = kept["momentum_buffer"]  # zero before the first step, so b = g there
            buffer *= self.momentum
            buffer += grad
            grad = grad + self.momentum * buffer if self.nesterov else buffer
        weight -= self.lr * grad


class Adam(Optimiser):
    """Adam (Kingma and Ba 2015, algorithm 1), as torch.optim.Adam: weight_decay is an L2 term.

    model: a `Module` or a list of Modules; see `fastlstm.optim`.

    With g = grad + weight_decay * w, at step t: ``m = b1 m + (1 - b1) g``,
    ``v = b2 v + (1 - b2) g^2``, ``w -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)``.

    Raises TypeError for what is no module or list of modules; ValueError for a weight that two of them share, a
    negative or non-finite number, or a beta not in [0, 1).
    """

    _hyper = ("lr", "betas", "eps", "weight_decay")
    _slots = ("exp_avg", "exp_avg_sq")

    def __init__(self, model, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(model)
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self._check()

    def _check(self):
        for name in ("lr", "eps", "weight_decay"):
            check_number(name, getattr(self, name))
        if not isinstance(self.betas, (tuple, list)) or len(self.betas) != 2:
            raise ValueError(f"betas must be two numbers, got {self.betas!r}")
        for place, beta in enumerate(self.betas):
            check_number(f"betas[{place}]", beta, below=1.0)

    def _take_slot(self, slot, name, value, weight):
        array = super()._take_slot(slot, name, value, weight)
        if slot == "exp_avg_sq" and (array < 0).any():
            raise ValueError(f"state: {slot} of {name} holds numbers below 0, a mean of squares has none")
        return array

    def _move(self, weight, grad, kept):
        (beta1, beta2), step = self.betas, kept["step"]
        mean, square = kept["exp_avg"], kept["exp_avg_sq"]
        grad = self._decayed(weight, grad)
        mean += (1 - beta1) * (grad - mean)
        square *= beta2
        square += (1 - beta2) * grad * grad
        scale = np.sqrt(square)
        scale /= math.sqrt(1 - beta2**step)
        scale += self.eps
        np.divide(mean, scale, out=scale)
        scale *= self.lr / (1 - beta1**step)
        weight -= scale
