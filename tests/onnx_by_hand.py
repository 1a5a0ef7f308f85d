"""ONNX's operators LSTM, GRU and RNN in plain NumPy, after the text of Operators.md: what a file of to_onnx means.

For onnx.reference.ReferenceEvaluator, whose own know neither lengths nor activations: ``new_ops=OPERATORS``. Shares
nothing with the package.
"""

import numpy as np
from onnx.reference.op_run import OpRun

ACTIVATIONS = {  # name -> (function of z, alpha, beta; defaults of those it consumes)
    "Relu": (lambda z, a, b: np.maximum(z, 0), ()),
    "Tanh": (lambda z, a, b: np.tanh(z), ()),
    "Sigmoid": (lambda z, a, b: 1 / (1 + np.exp(-z)), ()),
    "Affine": (lambda z, a, b: a * z + b, (1.0, 0.0)),
    "LeakyRelu": (lambda z, a, b: np.where(z >= 0, z, a * z), (0.01,)),
    "ThresholdedRelu": (lambda z, a, b: np.where(z >= a, z, 0), (1.0,)),
    "ScaledTanh": (lambda z, a, b: a * np.tanh(b * z), (1.0, 1.0)),
    "HardSigmoid": (lambda z, a, b: np.minimum(np.maximum(a * z + b, 0), 1), (0.2, 0.5)),
    "Elu": (lambda z, a, b: np.where(z >= 0, z, a * (np.exp(z) - 1)), (1.0,)),
    "Softsign": (lambda z, a, b: z / (1 + np.abs(z)), ()),
    "Softplus": (lambda z, a, b: np.log(1 + np.exp(z)), ()),
}


def functions(names, alphas, betas, clip):
    """One function for each name; constants are consumed in their order."""
    alphas, betas, found = list(alphas or ()), list(betas or ()), []
    for name in names:
        f, defaults = ACTIVATIONS[name]
        a = (alphas.pop(0) if alphas else defaults[0]) if len(defaults) > 0 else 0
        b = (betas.pop(0) if betas else defaults[1]) if len(defaults) > 1 else 0

        def applied(z, f=f, a=a, b=b, bounded=True):
            return f(np.clip(z, -clip, clip) if clip and bounded else z, a, b)

        found.append(applied)
    assert not alphas and not betas
    return found


def lstm(x, h, c, W, R, B, P, f, g, h_, input_forget=0, **_):
    Wb, Rb = np.split(B, 2)
    i, o, ft, ct = np.split(x @ W.T + h @ R.T + Wb + Rb, 4, axis=-1)
    Pi, Po, Pf = np.split(P, 3)
    i = f(i + Pi * c)
    ft = 1 - i if input_forget else f(ft + Pf * c)
    c = ft * c + i * g(ct)
    return f(o + Po * c) * h_(c, bounded=False), c


def gru(x, h, c, W, R, B, P, f, g, linear_before_reset=0, **_):
    Wz, Wr, Wh = np.split(W, 3)
    Rz, Rr, Rh = np.split(R, 3)
    Wbz, Wbr, Wbh, Rbz, Rbr, Rbh = np.split(B, 6)
    z = f(x @ Wz.T + h @ Rz.T + Wbz + Rbz)
    r = f(x @ Wr.T + h @ Rr.T + Wbr + Rbr)
    new = g(x @ Wh.T + (r * (h @ Rh.T + Rbh) if linear_before_reset else (r * h) @ Rh.T + Rbh) + Wbh)
    return (1 - z) * new + z * h, c


def rnn(x, h, c, W, R, B, P, f, **_):
    Wb, Rb = np.split(B, 2)
    return f(x @ W.T + h @ R.T + Wb + Rb), c


def way(step, X, lengths, h, c, weights, given, back):
    """One direction: Y (T, B, H), last h and c (B, H); each row by itself, from its own end if `back`."""
    Y, h, c = np.zeros((len(X), *h.shape), X.dtype), h.copy(), c.copy()
    for row, length in enumerate(lengths):
        for t in range(length)[:: -1 if back else 1]:
            h[row], c[row] = step(X[t, row], h[row], c[row], *weights, *given[0], **given[1])
            Y[t, row] = h[row]
    return Y, h, c


def run(step, gates, plain, X, W, R, B, lengths, h0, c0, P, attributes):
    assert attributes["layout"] == 0
    D, H, rows = len(W), attributes["hidden_size"], X.shape[1]
    backs = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[attributes["direction"]]
    assert len(backs) == D and W.shape[1:] == (gates * H, X.shape[2]) and R.shape == (D, gates * H, H)
    B, P = np.zeros((D, 2 * gates * H)) if B is None else B, np.zeros((D, 3 * H)) if P is None else P
    assert B.shape == (D, 2 * gates * H) and P.shape == (D, 3 * H)
    nothing = np.zeros((D, rows, H), X.dtype)
    h0, c0 = nothing if h0 is None else h0, nothing if c0 is None else c0
    lengths = [len(X)] * rows if lengths is None else lengths
    names = attributes["activations"] or [*plain] * D
    fs = functions(names, attributes["activation_alpha"], attributes["activation_beta"], attributes["clip"])
    each = len(plain)
    found = [
        way(step, X, lengths, h0[d], c0[d], (W[d], R[d], B[d], P[d]), (fs[d * each :][:each], attributes), back)
        for d, back in enumerate(backs)
    ]
    Y, h, c = (np.stack(part) for part in zip(*found, strict=True))
    return np.swapaxes(Y, 0, 1), h, c


class LSTM(OpRun):
    def _run(self, X, W, R, B=None, sequence_lens=None, initial_h=None, initial_c=None, P=None, **attributes):
        given = X, W, R, B, sequence_lens, initial_h, initial_c, P
        return run(lstm, 4, ("Sigmoid", "Tanh", "Tanh"), *given, attributes)


class GRU(OpRun):
    def _run(self, X, W, R, B=None, sequence_lens=None, initial_h=None, **attributes):
        given = X, W, R, B, sequence_lens, initial_h, None, None
        return run(gru, 3, ("Sigmoid", "Tanh"), *given, attributes)[:2]


class RNN(OpRun):
    def _run(self, X, W, R, B=None, sequence_lens=None, initial_h=None, **attributes):
        return run(rnn, 1, ("Tanh",), X, W, R, B, sequence_lens, initial_h, None, None, attributes)[:2]


OPERATORS = [LSTM, GRU, RNN]
for one in OPERATORS:
    one.op_domain = ""
