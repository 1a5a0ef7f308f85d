"""The least a recurrent member of a chain can be: what Sequential asks of a Module, and no more."""

import numpy as np

from fastlstm.module import Module


class Leaky(Module):
    """h[t] = h[t-1] / 2 + x[t] @ weight: the least a recurrent member can be. State h (B, O)."""

    recurrent = True

    def __init__(self, in_features, out_features, *, dtype="float64", rng=None):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        weight = np.random.default_rng(rng).normal(size=(in_features, out_features))
        self._weights = {"weight": weight.astype(dtype)}

    def config(self):
        return {"in_features": self.in_features, "out_features": self.out_features}

    def forward(self, x, state=None, *, lengths=None, reset=None, trace=False, cache=False):
        T, B = x.shape[:2]
        h = np.zeros((B, self.out_features), x.dtype) if state is None else np.array(state)
        y = np.zeros((T, B, self.out_features), x.dtype)
        for t in range(T):
            if reset is not None:
                h[np.asarray(reset)[t]] = 0
            live = np.ones(B, bool) if lengths is None else t < np.asarray(lengths)
            h[live] = h[live] / 2 + x[t, live] @ self._weights["weight"]
            y[t, live] = h[live]
        return (y, h) + (("trace", y.copy()),) * trace + ((x, lengths, reset),) * cache

    def backward(self, dy, cache, dstate=None, *, input_gradient=True):
        x, lengths, reset = cache
        dh = np.zeros(dy.shape[1:]) if dstate is None else np.array(dstate)
        dx, dw = np.zeros_like(x), np.zeros_like(self._weights["weight"])
        for t in reversed(range(len(x))):
            live = np.ones(dy.shape[1], bool) if lengths is None else t < np.asarray(lengths)
            dh[live] += dy[t, live]
            dx[t, live] = dh[live] @ self._weights["weight"].T
            dw += x[t, live].T @ dh[live]
            dh[live] /= 2
            if reset is not None:
                dh[np.asarray(reset)[t]] = 0
        return dx if input_gradient else None, dh, {"weight": dw}

    def stream(self, batch_size=1):
        return LeakyStream(self, batch_size)


class LeakyStream:
    def __init__(self, module, batch_size):
        self.module, self.state = module, np.zeros((batch_size, module.out_features))

    def step(self, x_t, out=None):
        y = self.process(x_t[None])[0]
        if out is None:
            return y
        out[...] = y
        return out

    def process(self, block):
        y, self._state = self.module.forward(block, self._state)
        return y

    def reset(self, mask=None):
        self._state[... if mask is None else mask] = 0

    @property
    def state(self):
        return self._state.copy()

    @state.setter
    def state(self, value):
        if np.shape(value) != np.shape(getattr(self, "_state", value)):
            raise ValueError("state has the wrong shape")
        self._state = np.array(value)
