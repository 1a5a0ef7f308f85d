"""Optimisers with torch's formulas: SGD, Adam, and clipping by norm.

    for x, target in data:
        y, state, cache = model.forward(x, cache=True)
        loss, dy = cross_entropy(y, target)
        dx, dstate, grads = model.backward(dy, cache)
        clip_grad_norm(grads, 1.0)
        optimiser.step(grads)

An optimiser never changes `grads`. Hyper-parameters are plain attributes; to follow a schedule,
assign ``optimiser.lr`` between steps.
"""

import math

import numpy as np


def _number(name, value, least=0.0, below=math.inf):
    if isinstance(value, (bool, str)) or not np.isscalar(value):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not least <= value < below:
        most = f" and below {below}" if below < math.inf else " and finite"
        raise ValueError(f"{name} must be at least {least}{most}, got {value}")
    return float(value)


def _check_names(what, given, weights):
    if not isinstance(given, dict):
        raise TypeError(f"{what} must be a dict of arrays by name, got {type(given).__name__}")
    missing = [name for name in weights if name not in given]
    unexpected = [name for name in given if name not in weights]
    if missing or unexpected:
        words = [f"missing {name}" for name in missing] + [f"unexpected {name}" for name in unexpected]
        raise ValueError(f"{what} do not fit the model: {', '.join(words)}")


class _Optimiser:
    """Steps, checks and saved state; a subclass says which numbers it has and how one weight moves."""

    _hyper = ()  # names of the attributes that state_dict() keeps
    _slots = ()  # names of the arrays kept per weight

    def __init__(self, model):
        self.model = model
        self._state = {}  # weight name -> {"step": int, slot: array}

    def _check(self):
        """Raise ValueError or TypeError for a hyper-parameter out of range."""

    def _move(self, weight, grad, kept):
        """One step of one weight in place; `kept` is its entry in the state."""

    def _fresh(self, weight):
        return {"step": 0, **{slot: np.zeros(weight.shape, weight.dtype) for slot in self._slots}}

    def step(self, grads):
        """Change the model's weights by one step.

        grads: dict with every name of ``model.state_dict()`` -> array of the weight's shape, or
        None for a weight to leave alone (its own step count then stands still, as in torch).

        Raises ValueError or TypeError naming what does not fit; nothing has changed then.
        """
        self._check()
        weights = self.model._named_weights()
        _check_names("grads", grads, weights)
        usable = {}
        for name, grad in grads.items():
            if grad is None:
                continue
            grad = np.asarray(grad)
            if grad.dtype.kind != "f":
                raise TypeError(f"grads: {name} must hold floats, got {grad.dtype}")
            if grad.shape != weights[name].shape:
                raise ValueError(f"grads: {name} has shape {grad.shape}, expected {weights[name].shape}")
            usable[name] = grad.astype(weights[name].dtype, copy=False)

        def change(live):
            for name, grad in usable.items():
                if name not in self._state:
                    self._state[name] = self._fresh(live[name])
                self._state[name]["step"] += 1
                self._move(live[name], grad, self._state[name])

        self.model._update(change)

    def _decayed(self, weight, grad):
        return grad + self.weight_decay * weight if self.weight_decay else grad

    def state_dict(self):
        """Everything needed to go on exactly: hyper-parameters, step counts and running means (copies)."""
        state = {
            name: {key: value.copy() if key != "step" else value for key, value in kept.items()}
            for name, kept in self._state.items()
        }
        return {"class": type(self).__name__, **self._hyper_values(), "state": state}

    def _hyper_values(self):
        return {name: getattr(self, name) for name in self._hyper}

    def load_state_dict(self, d):
        """Take over what `state_dict` returned for a model with the same names and shapes.

        Raises ValueError or TypeError naming what does not fit; nothing has changed then.
        """
        if not isinstance(d, dict) or d.get("class") != type(self).__name__:
            raise ValueError(f"this is not the state of {type(self).__name__}")
        expected = {"class", "state", *self._hyper}
        if set(d) != expected:
            raise ValueError(f"state must have the keys {', '.join(sorted(expected))}; got {', '.join(sorted(d))}")
        weights = self.model._named_weights()
        if not isinstance(d["state"], dict):
            raise TypeError(f"state must be a dict, got {type(d['state']).__name__}")
        state = {name: self._take(name, kept, weights) for name, kept in d["state"].items()}
        before = self._hyper_values()
        try:
            for name in self._hyper:
                setattr(self, name, d[name])
            self._check()
        except Exception:
            for name, value in before.items():
                setattr(self, name, value)
            raise
        self._state = state

    def _take(self, name, kept, weights):
        """A checked copy of the saved entry of one weight."""
        if name not in weights:
            raise ValueError(f"state: unexpected {name}")
        if not isinstance(kept, dict) or set(kept) != {"step", *self._slots}:
            raise ValueError(f"state: {name} must have step, {', '.join(self._slots)}")
        taken = {"step": int(kept["step"])}
        for slot in self._slots:
            array = np.array(kept[slot], dtype=weights[name].dtype, order="C")
            if array.shape != weights[name].shape:
                raise ValueError(
                    f"state: {slot} of {name} has shape {array.shape}, expected {weights[name].shape}"
                )
            taken[slot] = array
        return taken


class SGD(_Optimiser):
    """Stochastic gradient descent (torch.optim.SGD; momentum after Sutskever et al. 2013).

    With g = grad + weight_decay * w and m = momentum: ``b = m b + g`` (b = g at the first step),
    ``w -= lr * (g + m b if nesterov else b)``; without momentum ``w -= lr * g``.

    Raises ValueError for a negative or non-finite number, or nesterov without momentum.
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
            _number(name, getattr(self, name))
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")

    def _move(self, weight, grad, kept):
        grad = self._decayed(weight, grad)
        if self.momentum:
            buffer = kept["momentum_buffer"]  # zero before the first step, so b = g there
            buffer *= self.momentum
            buffer += grad
            grad = grad + self.momentum * buffer if self.nesterov else buffer
        weight -= self.lr * grad


class Adam(_Optimiser):
    """Adam (Kingma and Ba 2015, algorithm 1), as torch.optim.Adam: weight_decay is an L2 term.

    With g = grad + weight_decay * w, at step t: ``m = b1 m + (1 - b1) g``,
    ``v = b2 v + (1 - b2) g^2``, ``w -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)``.

    Raises ValueError for a negative or non-finite number, or a beta not in [0, 1).
    """

    _hyper = ("lr", "betas", "eps", "weight_decay")
    _slots = ("exp_avg", "exp_avg_sq")

    def __init__(self, model, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(model)
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self._check()

    def _check(self):
        for name in ("lr", "eps", "weight_decay"):
            _number(name, getattr(self, name))
        if not isinstance(self.betas, (tuple, list)) or len(self.betas) != 2:
            raise ValueError(f"betas must be two numbers, got {self.betas!r}")
        for place, beta in enumerate(self.betas):
            _number(f"betas[{place}]", beta, below=1.0)

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


def clip_grad_norm(grads, max_norm, error_if_nonfinite=False):
    """Scale all gradients in place so that their common Euclidean norm is at most `max_norm`.

    grads: dict of float arrays by name, changed in place (None entries are skipped). Returns the
    norm before clipping, a float. As torch.nn.utils.clip_grad_norm_: every gradient is multiplied
    by ``min(1, max_norm / (norm + 1e-6))``. A norm that is not finite is not hidden: NaN makes every
    gradient NaN, infinity makes finite gradients zero and infinite ones NaN; with
    ``error_if_nonfinite=True`` it raises RuntimeError instead and leaves the gradients alone.

    Raises TypeError for a gradient that cannot be scaled in place, ValueError for a negative
    `max_norm`; nothing has changed then.
    """
    if not max_norm >= 0:
        raise ValueError(f"max_norm must be at least 0, got {max_norm}")
    arrays = {name: grad for name, grad in grads.items() if grad is not None}
    for name, grad in arrays.items():
        if not isinstance(grad, np.ndarray) or grad.dtype.kind != "f" or not grad.flags.writeable:
            raise TypeError(f"grads: {name} must be a writeable numpy array of floats")
    # Squares in float64: a float32 gradient of 1e25 must not overflow its own norm.
    total = math.sqrt(sum(float(np.square(grad, dtype=np.float64).sum()) for grad in arrays.values()))
    if error_if_nonfinite and not math.isfinite(total):
        raise RuntimeError(f"the norm of the gradients is {total}")
    factor = max_norm / (total + 1e-6)
    with np.errstate(invalid="ignore"):  # inf * 0, as documented
        for grad in arrays.values():
            grad *= 1.0 if factor > 1 else factor
    return total
