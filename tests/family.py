"""Problems of the whole family: cells with their options, sizes, numbers, and what the twins say to them.

Numbers are drawn in single precision for either dtype, so both have one reference. Letters in shapes: T steps, B rows,
I inputs, H hidden units, P projected units, R = P or H, L layers, D directions, W width of a state.
"""

import functools
from typing import NamedTuple

import numpy as np
from grids import Case, bound, distance, present, same

import fastlstm as fl
from fastlstm import params, reference
from fastlstm.variants import ACTIVATIONS, GREFF, variant

CLASSES = {
    "lstm": "LSTM", "gru": "GRU", "rnn": "RNN", "depth_gated": "DepthGatedLSTM", "clockwork": "ClockworkRNN",
    "lstm_1997": "LSTM1997",
}
GRADIENTS = {"float32": 2e-5, "float64": 1e-11}  # docs/numerics.md: of the largest element of each gradient

# ---- what is tested: name -> options of "lstm", or of the cell named; proj: with a projection --------------------

ALL_CLIPS = {"clip": 0.8, "cell_clip": 0.5, "proj": True, "proj_clip": 0.2}
VARIANTS = {"lstm": {}, "lstm, projection": {"proj": True}}
VARIANTS |= {f"Greff's {name}": options for name, options in GREFF.items() if options}
VARIANTS |= {f"peephole {letters}": {"peephole": letters} for letters in ("i", "f", "o", "if", "io", "fo")}
VARIANTS |= {f"without {letters}": {"without": letters} for letters in ("i", "f", "o", "if", "io", "fo", "ifo")}
VARIANTS |= {
    "peepholes, projection": {"peephole": "ifo", "proj": True},
    "peephole o before": {"peephole": "o", "peephole_o": "c_prev"},
    "peephole io, o before": {"peephole": "io", "peephole_o": "c_prev", "proj": True},
    "peephole f, without o": {"peephole": "f", "without": "o"},
    "coupled i": {"coupled": "i=1-f"},
    "coupled i, peepholes": {"coupled": "i=1-f", "peephole": "fo"},
    "coupled f": {"coupled": "f=1-i"},
    "coupled f, without o": {"coupled": "f=1-i", "without": "o", "proj": True},
    "clip": {"clip": 0.6, "peephole": "ifo"},
    "cell clip": {"cell_clip": 0.3, "peephole": "ifo"},
    "cell clip, coupled": {"cell_clip": 0.3, "coupled": "i=1-f", "peephole": "o"},
    "projection clip": {"proj": True, "proj_clip": 0.1},
    "all clips": {**ALL_CLIPS, "peephole": "ifo"},
    "norm ba": {"layer_norm": "ba"},
    "norm ba, projection, epsilon": {"layer_norm": "ba", "norm_eps": 0.1, "proj": True},
    "norm ba, peepholes": {"layer_norm": "ba", "peephole": "ifo"},
    "norm ba, coupled": {"layer_norm": "ba", "coupled": "f=1-i", "peephole": "io"},
    "norm ba, without": {"layer_norm": "ba", "without": "f", "peephole": "o", "peephole_o": "c_prev"},
    "norm ba, all clips": {"layer_norm": "ba", "coupled": "i=1-f", **ALL_CLIPS},
    "norm gates": {"layer_norm": "gates"},
    "norm gates, projection, epsilon": {"layer_norm": "gates", "norm_eps": 0.1, "proj": True},
    "norm gates, peepholes": {"layer_norm": "gates", "peephole": "ifo"},
    "norm gates, coupled": {"layer_norm": "gates", "coupled": "i=1-f", "peephole": "fo"},
    "norm gates, without": {"layer_norm": "gates", "without": "io", "peephole": "f"},
    "norm gates, all clips": {"layer_norm": "gates", "coupled": "f=1-i", **ALL_CLIPS},
    "gate recurrence": {"gate_recurrence": True},
    "gate recurrence, projection": {"gate_recurrence": True, "peephole": "ifo", "proj": True},
    "gate recurrence, all clips": {"gate_recurrence": True, "peephole": "fo", "peephole_o": "c_prev", **ALL_CLIPS},
    "gru": {"cell": "gru"},
    "gru, clip": {"cell": "gru", "clip": 0.5},
    "gru, reset before": {"cell": "gru", "reset_after": False},
    "gru, reset before, clip": {"cell": "gru", "reset_after": False, "clip": 0.5},
    "rnn": {"cell": "rnn"},
    "rnn, relu": {"cell": "rnn", "nonlinearity": "relu"},
    "rnn, clip": {"cell": "rnn", "clip": 0.4},
    "depth gated": {"cell": "depth_gated"},
    "depth gated, projection": {"cell": "depth_gated", "proj": True},
    "depth gated, peepholes": {"cell": "depth_gated", "peephole": "ifo", "proj": True},
    "depth gated, o before": {"cell": "depth_gated", "peephole": "fo", "peephole_o": "c_prev"},
    "depth gated, activations": {"cell": "depth_gated", "activations": ("hard_sigmoid", "softsign", ("elu", 0.7))},
    "clockwork": {"cell": "clockwork"},
    "clockwork 1 2 3": {"cell": "clockwork", "periods": (1, 2, 3)},
    "clockwork 2 3 7": {"cell": "clockwork", "periods": (2, 3, 7)},
    "clockwork, equal periods": {"cell": "clockwork", "periods": (1, 2, 2), "activations": ("softsign",)},
    "clockwork, all ones": {"cell": "clockwork", "periods": (1, 1)},
    "1997": {"cell": "lstm_1997"},
    "1997, full": {"cell": "lstm_1997", "gradient": "full"},
    "1997, blocks of 2": {"cell": "lstm_1997", "block_size": 2},
    "1997, blocks of 3, full": {"cell": "lstm_1997", "block_size": 3, "gradient": "full"},
    "1997, without o": {"cell": "lstm_1997", "without": "o", "block_size": 2, "gradient": "full"},
    "1997, gates biased": {"cell": "lstm_1997", "biased": "gates", "block_size": 2, "gradient": "full"},
    "1997, gates biased, without o": {"cell": "lstm_1997", "biased": "gates", "without": "o", "block_size": 3},
}
# Every cell once or twice, where all of VARIANTS would only take time.
SOME = (
    "lstm", "Greff's V", "Greff's FGR", "Greff's CIFG", "without ifo", "all clips", "norm ba, peepholes",
    "norm gates, coupled", "gate recurrence, projection", "gru", "gru, reset before", "rnn", "depth gated, peepholes",
    "clockwork 1 2 3", "1997, blocks of 3, full", "1997, gates biased, without o",
)
CONSTANTS = {
    "hard_sigmoid": (0.3, 0.4), "elu": (0.7,), "leaky_relu": (0.2,), "thresholded_relu": (0.3,),
    "scaled_tanh": (1.25, 0.6), "affine": (0.4, 0.3),
}
assert set(CONSTANTS) == {name for name, constants in ACTIVATIONS.items() if constants}
ROLES = {  # cell -> its activations by default
    "lstm": ("sigmoid", "tanh", "tanh"), "gru": ("sigmoid", "tanh"), "rnn": ("tanh",),
    "depth_gated": ("sigmoid", "tanh", "tanh"), "clockwork": ("tanh",),
    "lstm_1997": ("sigmoid", ("scaled_tanh", 2.0, 0.5), ("scaled_tanh", 1.0, 0.5)),
}


def with_activation(name):
    """Description -> options: an activation with constants other than its own, in every role of every cell."""
    given = (name, *CONSTANTS[name]) if name in CONSTANTS else name
    return {
        f"{cell}, {name} in role {k}": {"cell": cell, "activations": (*roles[:k], given, *roles[k + 1 :])}
        for cell, roles in ROLES.items() for k in range(len(roles))
    }


ACTIVATED = {what: options for name in ACTIVATIONS for what, options in with_activation(name).items()}
TABLE = VARIANTS | ACTIVATED

# ---- sizes ------------------------------------------------------------------------------------------------------

HARD = Case(T=7, B=5, I=17, H=19, layers=2, bidirectional=True, lengths="ragged", reset=True)
SHAPES = {
    "one of everything": Case(1, 1, 1, 1),
    "one step": Case(T=1, bidirectional=True),
    "one row": Case(T=9, B=1, I=20, H=33),
    "no state, no bias": Case(T=5, B=2, state=False, bias=False, layers=2),
    "wide": Case(T=3, B=9, I=33, H=70),
    "no steps": Case(T=0, layers=2),
    "no rows": Case(B=0, bidirectional=True),
    "all lengths zero": Case(T=2, B=2, lengths="zero"),
    "ragged": Case(T=7, B=6, H=17, lengths="ragged"),
    "reset": Case(T=9, B=4, H=12, reset=True),
    "three layers": Case(T=5, B=3, H=7, layers=3),
    "hard": HARD,
    "long": Case(T=33, B=3, I=5, H=6, layers=2, lengths="ragged", reset=True),
}


class Problem:
    """A variant of a given size with its numbers; arrays are read-only: every use tests that inputs are left alone."""

    def __init__(self, name, case, dtype, seed=1):
        options = dict(TABLE[name])
        self.name, self.case, self.dtype = name, case, np.dtype(dtype)
        self.cell, projected = options.pop("cell", "lstm"), options.pop("proj", False)
        self.options, self.v = options, variant(self.cell, **options)
        unit = max(self.v.block_size, len(self.v.periods))  # H is a multiple of it
        given = case.H if isinstance(case.H, tuple) else (case.H,) * case.layers
        self.sizes = [-(-max(h, 1 + projected) // unit) * unit for h in given]
        self.proj = min(self.sizes) // 2 + min(self.sizes) // 7 if projected else 0
        self.rng = np.random.default_rng([seed, *case[:3], sum(self.sizes)])
        shape, L, D, B = self.call_sizes, len(self.sizes), case.directions, case.B
        self.x = self._normal(case.T, B, case.I)
        self.weights = {n: self._weight(n, s) for n, s in params.weight_shapes(self.v, bias=case.bias, **shape).items()}
        self.state_shapes = params.state_shapes(L, D, B, self.sizes, self.proj, self.v)
        self.states = tuple(self._state(name) for name in self.v.states)
        self.state = (self.states if len(self.states) > 1 else self.states[0]) if case.state else None
        self.dstates = tuple(self._state(name, self._normal) for name in self.v.states)
        self.dstate = self.dstates if len(self.dstates) > 1 else self.dstates[0]
        self.dy = self._normal(case.T, B, D * (self.proj or self.sizes[-1]))
        self.lengths = self._lengths()
        self.reset = self.rng.random((case.T, B)) < 0.3 if case.reset else None

    @property
    def call_sizes(self):
        """Keywords of `weight_shapes`."""
        hidden = self.sizes if isinstance(self.case.H, tuple) else self.sizes[0]
        layers = 1 if isinstance(self.case.H, tuple) else self.case.layers
        return {
            "input_size": self.case.I, "hidden_size": hidden, "num_layers": layers,
            "bidirectional": self.case.bidirectional, "proj_size": self.proj,
        }

    def _cast(self, numbers):
        """As single precision has them, in our dtype."""
        array = np.asarray(numbers, np.float32).astype(self.dtype)
        array.flags.writeable = False
        return array

    def _normal(self, *shape):
        return self._cast(self.rng.normal(size=shape))

    def _weight(self, name, shape):
        limit = 1.2 / np.sqrt(min(self.sizes))
        drawn = self.rng.uniform(-limit, limit, shape)
        gain = name.startswith("weight_ln")  # small enough that what is normalised again and again does not grow
        return self._cast(0.5 + drawn / 4 if gain else drawn)

    def _state(self, name, draw=None):
        """Of any numbers; gates lie in 0..1; t is whole, and has no gradient."""
        if name == "t" and draw:
            return None
        special = {"t": lambda shape: self.rng.integers(0, self.v.cycle, shape), "gates": self.rng.random}
        if name in special and not draw:
            draw = lambda *shape: self._cast(special[name](shape))  # noqa: E731
        draw, shape = draw or self._normal, self.state_shapes[name]
        return [draw(*one) for one in shape] if isinstance(shape, list) else draw(*shape)

    def _lengths(self):
        T, B = self.case.T, self.case.B
        if self.case.lengths is None:
            return None
        found = np.zeros(B, int) if self.case.lengths == "zero" else self.rng.integers(0, T + 1, B)
        if self.case.lengths == "ragged":
            found[:3] = [T // 2 + 1, 0, T][:B]
        return found

    @property
    def given(self):
        """Keywords of a call beside x, where there is something to say."""
        return present(state=self.state, lengths=self.lengths, reset=self.reset)

    def layer(self, **options):
        """A new layer with the weights of the problem."""
        sizes = self.call_sizes
        if not self.proj:
            del sizes["proj_size"]
        if isinstance(self.case.H, tuple):
            del sizes["num_layers"]
        given = {"bias": self.case.bias, "dtype": self.dtype.name, "rng": 1}
        found = getattr(fl, CLASSES[self.cell])(**{**sizes, **given, **self.options, **options})
        found.load_state_dict(self.weights)
        return found

    def twin(self, masks=None, dropout=None):
        """The `Answer` of the twin under these masks."""
        given = self.given | {"state": self.states if self.case.state else None}
        y, state, cache = reference.forward(
            self.weights, self.x, cell=self.v, num_layers=len(self.sizes), bidirectional=self.case.bidirectional,
            proj_size=self.proj, masks=masks, dropout_masks=dropout, **given,
        )
        dx, dstate, grads = reference.backward(cache, self.dy, self.dstates)
        gradients = flat(self.v, (dx, dstate if len(dstate) > 1 else dstate[0], grads))
        return Answer(y, state, reference.trace(cache), gradients)

    @functools.cached_property
    def _answer(self):
        return self.twin()

    @property
    def answer(self):
        """The `Answer` of the twin, one for both dtypes."""
        return problem(self.name, self.case, "float32")._answer

    @property
    def bound(self):
        """Of a forward pass. A normalisation divides by a deviation, itself rounded: twice as much. Without any gate c
        is the sum of all candidates, and so is its error."""
        return bound(self.case.T, self.dtype) * (4 if self.v.without == "ifo" else 2 if self.v.layer_norm else 1)

    def gradients(self, layer, **options):
        """Name -> array, by the engine."""
        cache = layer.forward(self.x, cache=True, **self.given, **options)[-1]
        return flat(self.v, layer.backward(self.dy, cache, self.dstate))


class Answer(NamedTuple):
    """What a run gave: y (T, B, D*R), a tuple of states, the trace, and gradients by name."""

    y: np.ndarray
    state: tuple
    trace: tuple
    gradients: dict


@functools.cache
def problem(name, case, dtype):
    return Problem(name, case, dtype)


# ---- comparing ----------------------------------------------------------------------------------------------------


def states_of(v, state):
    """A state as users see it -> a tuple with one entry for every name of v.states."""
    return tuple(state) if len(v.states) > 1 else (state,)


def parts(value):
    """An array or a list of arrays -> a list of arrays."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def rows_of(state, rows):
    """The same rows of every array of a state, whatever it is made of."""
    if isinstance(state, (tuple, list)):
        return type(state)(rows_of(one, rows) for one in state)
    return state[..., rows, :]


def flat(v, gradients):
    """dx, dstate, grads -> name -> array: x, every state but t, the weights."""
    dx, dstate, grads = gradients
    found = {"x": dx}
    for name, value in zip(v.states, states_of(v, dstate), strict=True):
        if name == "t":
            assert not np.any(value)
        elif isinstance(value, list):
            found |= {f"{name}0 {k}": one for k, one in enumerate(value)}
        else:
            found[f"{name}0"] = value
    return found | grads


def near(ours, theirs, limit, what, scale=0.0):
    """Assert that two arrays are as near as `limit`, relative to the largest element, or to `scale` if that is more.

    A lone element may be what is left of larger terms, and then no sum of rounded ones is near it.
    """
    largest = np.abs(theirs).max(initial=0)
    found = distance(ours, theirs, max(scale, largest, 0.1 if np.size(theirs) < 4 else 0))
    assert found <= limit, f"{what}: {found / limit:.3g} times as far as it may be"


def agree(p, y, state, answer=None):
    """Assert that an output and a state are the twin's, within the contract of docs/numerics.md."""
    answer = answer or p.answer
    top = np.abs(answer.y).max(initial=0)
    assert y.dtype == p.dtype
    near(y, answer.y, p.bound, "y")
    for name, ours, theirs in zip(p.v.states, states_of(p.v, state), answer.state, strict=True):
        for one, other in zip(parts(ours), parts(theirs), strict=True):
            assert one.dtype == p.dtype, name
            if name == "t":
                same(one, other.astype(p.dtype))
                continue
            near(one, other, p.bound, name, top if name == "h" else 0)


def gradients_agree(p, ours, theirs=None):
    """Assert that gradients are the twin's, by name, within the contract."""
    theirs = theirs or p.answer.gradients
    assert set(ours) == set(theirs)
    for name, gradient in theirs.items():
        assert ours[name].dtype == p.dtype, name
        near(ours[name], gradient, GRADIENTS[p.dtype.name], name)
