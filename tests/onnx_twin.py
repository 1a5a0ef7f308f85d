"""ONNX's LSTM, GRU, RNN in plain NumPy float64, by the equations of its Operators.md, in its order of gates.

Shares nothing with the package: neither orders of gates nor activations. And random cases of them. Letters: T steps,
B rows, I inputs, H hidden units, D directions, G gates.
"""

from typing import NamedTuple

import numpy as np

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
INPUTS = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]
DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
# name -> (function of z, alpha, beta; how many of the two it takes; their defaults)
ACTIVATIONS = {
    "Sigmoid": (lambda z, a, b: 1 / (1 + np.exp(-z)), 0, ()),
    "Tanh": (lambda z, a, b: np.tanh(z), 0, ()),
    "Relu": (lambda z, a, b: np.maximum(z, 0), 0, ()),
    "Softsign": (lambda z, a, b: z / (1 + np.abs(z)), 0, ()),
    "Softplus": (lambda z, a, b: np.log1p(np.exp(z)), 0, ()),
    "HardSigmoid": (lambda z, a, b: np.minimum(np.maximum(a * z + b, 0), 1), 2, (0.2, 0.5)),
    "LeakyRelu": (lambda z, a, b: np.where(z >= 0, z, a * z), 1, (0.01,)),
    "ThresholdedRelu": (lambda z, a, b: np.where(z >= a, z, 0), 1, (1.0,)),
    "Elu": (lambda z, a, b: np.where(z >= 0, z, a * np.expm1(np.minimum(z, 0))), 1, (1.0,)),
    "ScaledTanh": (lambda z, a, b: a * np.tanh(b * z), 2, None),
    "Affine": (lambda z, a, b: a * z + b, 2, None),
}


class Case(NamedTuple):
    """A node, and what it is given by the names of its inputs."""

    op: str
    attributes: dict
    arrays: dict
    outputs: list

    @property
    def inputs(self):
        """Names of a node's inputs, "" for those left out."""
        names = [name if name in self.arrays else "" for name in INPUTS]
        while not names[-1]:
            names.pop()
        return names


# ---- one step, gates in ONNX's order ----------------------------------------------------------------------------


def functions(case):
    """For each direction a list of functions."""
    D = 2 if case.attributes.get("direction") == "bidirectional" else 1
    alphas, betas = (list(case.attributes.get(f"activation_{name}", ())) for name in ("alpha", "beta"))
    found, clip = [], case.attributes.get("clip", np.inf)
    for name in case.attributes.get("activations", DEFAULTS[case.op] * D):
        f, count, defaults = ACTIVATIONS[name]
        a = (alphas.pop(0) if alphas else defaults[0]) if count > 0 else 0
        b = (betas.pop(0) if betas else defaults[1]) if count > 1 else 0
        found.append(lambda z, f=f, a=a, b=b: f(np.clip(z, -clip, clip), a, b))
        found[-1].bare = lambda z, f=f, a=a, b=b: f(z, a, b)
    return [found[d * len(found) // D :] for d in range(D)]


def lstm(case, fs, x, h, c, W, R, B, P):
    f, g, k = fs[:3]
    Wi, Wo, Wf, Wc = np.split(W, 4)
    Ri, Ro, Rf, Rc = np.split(R, 4)
    Wbi, Wbo, Wbf, Wbc, Rbi, Rbo, Rbf, Rbc = np.split(B, 8)
    Pi, Po, Pf = np.split(P, 3)
    i = f(x @ Wi.T + h @ Ri.T + Pi * c + Wbi + Rbi)
    forget = f(x @ Wf.T + h @ Rf.T + Pf * c + Wbf + Rbf)
    if case.attributes.get("input_forget"):
        forget = 1 - i
    c = forget * c + i * g(x @ Wc.T + h @ Rc.T + Wbc + Rbc)
    o = f(x @ Wo.T + h @ Ro.T + Po * c + Wbo + Rbo)
    return o * k.bare(c), c


def gru(case, fs, x, h, W, R, B):
    f, g = fs[:2]
    Wz, Wr, Wh = np.split(W, 3)
    Rz, Rr, Rh = np.split(R, 3)
    Wbz, Wbr, Wbh, Rbz, Rbr, Rbh = np.split(B, 6)
    z, r = f(x @ Wz.T + h @ Rz.T + Wbz + Rbz), f(x @ Wr.T + h @ Rr.T + Wbr + Rbr)
    if case.attributes.get("linear_before_reset"):
        n = g(x @ Wh.T + r * (h @ Rh.T + Rbh) + Wbh)
    else:
        n = g(x @ Wh.T + (r * h) @ Rh.T + Rbh + Wbh)
    return (1 - z) * n + z * h


def rnn(case, fs, x, h, W, R, B):
    return fs[0](x @ W.T + h @ R.T + sum(np.split(B, 2)))


# ---- a node -----------------------------------------------------------------------------------------------------


def row(case, fs, steps, h, c, W, R, B, P):
    """(outputs, last h, last c) of one row."""
    ys = []
    for x in steps:
        if case.op == "LSTM":
            h, c = lstm(case, fs, x, h, c, W, R, B, P)
        else:
            h = (gru if case.op == "GRU" else rnn)(case, fs, x, h, W, R, B)
        ys.append(h)
    return ys, h, c


def answer(case):
    """[Y, Y_h, Y_c] in float64 and in the case's layout; a row without steps keeps its initial state."""
    batchwise, direction = case.attributes.get("layout", 0), case.attributes.get("direction", "forward")
    a = {name: array.astype(float) for name, array in case.arrays.items() if name != "sequence_lens"}
    X = a["X"].swapaxes(0, 1) if batchwise else a["X"]
    (T, N, _), (D, rows, _), H = X.shape, a["W"].shape, a["R"].shape[2]
    lens = case.arrays.get("sequence_lens", np.full(N, T))
    B, P = a.get("B", np.zeros((D, 2 * rows))), a.get("P", np.zeros((D, 3 * H)))
    start = [a.get(f"initial_{name}", np.zeros((N, D, H) if batchwise else (D, N, H))) for name in "hc"]
    Yh, Yc = (np.array(one.swapaxes(0, 1) if batchwise else one) for one in start)
    Y = np.zeros((T, D, N, H))
    for d, fs in enumerate(functions(case)):
        back = direction == "reverse" or d == 1
        for n in range(N):
            steps = X[: lens[n], n]
            weights = (a["W"][d], a["R"][d], B[d], P[d])
            ys, Yh[d, n], Yc[d, n] = row(case, fs, steps[::-1] if back else steps, Yh[d, n], Yc[d, n], *weights)
            if ys:
                Y[: lens[n], d, n] = ys[::-1] if back else ys
    if batchwise:
        return [Y.transpose(2, 0, 1, 3), Yh.swapaxes(0, 1), Yc.swapaxes(0, 1)]
    return [Y, Yh, Yc]


# ---- random cases -----------------------------------------------------------------------------------------------

SIZES = [(1, 1, 1, 1), (1, 3, 2, 5), (5, 1, 3, 7), (4, 3, 5, 2), (6, 4, 3, 17), (3, 2, 19, 9), (7, 5, 2, 33)]  # T B I H


def draw(seed, dtype="float32", layout=0, defaults=True):
    """A random `Case`. defaults: whether constants of activations may be left out."""
    rng = np.random.default_rng(seed)
    op = ["LSTM", "GRU", "RNN"][seed % 3]
    direction = ["forward", "reverse", "bidirectional"][rng.integers(3)]
    (T, B, I, H), G, D = SIZES[rng.integers(len(SIZES))], GATES[op], 2 if direction == "bidirectional" else 1
    attributes = {"direction": direction, "hidden_size": H}
    if rng.random() < 0.3:
        attributes["clip"] = float(np.float32(rng.uniform(0.2, 2)))
    if rng.random() < 0.7:
        attributes |= activations(rng, op, D, defaults, "clip" in attributes)
    if op == "LSTM" and rng.random() < 0.4:
        attributes["input_forget"] = 1
    if op == "GRU" and rng.random() < 0.6:
        attributes["linear_before_reset"] = 1
    if layout:
        attributes["layout"] = 1

    def drawn(*shape, scale=1.0):
        return (scale * rng.standard_normal(shape)).astype(dtype)

    start = (B, D, H) if layout else (D, B, H)
    arrays = {"X": drawn(*((B, T, I) if layout else (T, B, I)))}
    arrays |= {"W": drawn(D, G * H, I, scale=0.6 / np.sqrt(I)), "R": drawn(D, G * H, H, scale=0.6 / np.sqrt(H))}
    optional = {"B": drawn(D, 2 * G * H, scale=0.4), "sequence_lens": rng.integers(0, T + 1, B).astype(np.int32)}
    optional |= {"initial_h": drawn(*start)}
    if op == "LSTM":
        optional |= {"initial_c": drawn(*start), "P": drawn(D, 3 * H, scale=0.4)}
    arrays |= {name: array for name, array in optional.items() if rng.random() < 0.6}
    outputs = [name if rng.random() < 0.7 else "" for name in ["Y", "Y_h", "Y_c"][: 3 if op == "LSTM" else 2]]
    return Case(op, attributes, arrays, outputs if any(outputs) else ["Y"])


def activations(rng, op, D, defaults, clipped):
    """Attributes that choose activations. What grows without bound proves nothing, as all errors grow with it: gates
    of a GRU, without a bound on what they read, stay within 0 and 1."""
    every, names = list(ACTIVATIONS), []
    gates = ["Sigmoid", "HardSigmoid"] if op == "GRU" else ["Sigmoid", "HardSigmoid", "Tanh", "Softsign"]
    for place in range(len(DEFAULTS[op]) * D):
        gate = op != "RNN" and place % len(DEFAULTS[op]) == 0
        bounded = gate and (rng.random() < 0.8 or (op == "GRU" and not clipped))
        names.append(str(rng.choice(gates if bounded else every)))
    found = {"activations": names}
    counts = [ACTIVATIONS[name][1] for name in names]
    alphas = [float(np.float32(rng.uniform(0.1, 0.6))) for n in counts if n > 0]
    betas = [float(np.float32(rng.uniform(0.1, 0.6))) for n in counts if n > 1]
    lacking = any(ACTIVATIONS[name][2] is None for name in names)
    if lacking or not defaults or rng.random() < 0.5:
        found |= {"activation_alpha": alphas} if alphas else {}
        found |= {"activation_beta": betas} if betas else {}
    return found
