"""Options of cells as data: what `variant` takes, what it refuses, and in which words; names and shapes."""

import pickle

import numpy as np
import pytest

from fastlstm import params, variants
from fastlstm.reference_activations import ACTIVATIONS, activate, activate_backward
from fastlstm.variants import FAMILY, GREFF, OPTIONS, Activation, variant


@pytest.mark.parametrize("cell", FAMILY)
def test_a_variant_is_plain_data(cell):
    v = variant(cell)
    assert v.options == {}
    assert {v: 1}[pickle.loads(pickle.dumps(v))] == 1
    assert all(hasattr(v, name) for name in OPTIONS[cell] if name != "nonlinearity")


def test_options_make_the_variant_again():
    given = [("lstm", options) for options in GREFF.values()]
    given += [("lstm", {"layer_norm": "ba", "norm_eps": 1e-3, "clip": 2, "cell_clip": 3.0, "proj_clip": 1})]
    given += [("lstm", {"activations": ("hard_sigmoid", ("hard_sigmoid", 0.5), ("affine", 2, 0))})]
    given += [("clockwork", {"periods": (1, 3)}), ("rnn", {"nonlinearity": "relu"})]
    given += [("lstm_1997", {"block_size": 2, "without": "o", "biased": "gates", "gradient": "full"})]
    given += [("gru", {"reset_after": np.bool_(False)})]
    for cell, options in given:
        v = variant(cell, **options)
        assert variant(cell, **v.options) == v
        assert variant(cell, **{**v.options, "activations": v.activations}) == v
    assert variant("lstm", activations=("tanh", ("hard_sigmoid", 0.5), "elu")).options == {
        "activations": ("tanh", ("hard_sigmoid", 0.5, 0.5), "elu")
    }


def test_letters_may_come_in_any_order_and_periods_as_a_number():
    assert variant("lstm", peephole="ofi") == variant("lstm", peephole="ifo")
    assert variant("clockwork", periods=3).periods == (1, 2, 4)
    assert variant("lstm", activations=None, norm_eps=1e-5) == variant("lstm")  # defaults may be said


REFUSED = [
    ("lsmt", {}, ValueError, r"cell must be one of lstm, gru, rnn, .*; got 'lsmt'"),
    ("gru", {"peephole": "i"}, TypeError, "cell 'gru' has no option 'peephole'; it has reset_after, activations, clip"),
    ("gru", {"reset_after": 1}, TypeError, "reset_after must be True or False, got int"),
    ("rnn", {"nonlinearity": "sin"}, ValueError, "nonlinearity must be one of None, 'tanh', 'relu'; got 'sin'"),
    ("rnn", {"nonlinearity": "relu", "activations": ("tanh",)}, ValueError, "nonlinearity and activations say"),
    ("lstm", {"peephole": "ig"}, ValueError, "peephole must be made of the letters of 'ifo', got 'ig'"),
    ("lstm", {"peephole": "ii"}, ValueError, "peephole must be made of the letters of 'ifo', got 'ii'"),
    ("lstm", {"peephole": True}, TypeError, "peephole must be a string, got bool"),
    ("lstm", {"peephole_o": "h"}, ValueError, "peephole_o must be one of 'c', 'c_prev'; got 'h'"),
    ("lstm", {"peephole_o": "c_prev"}, ValueError, "peephole_o='c_prev' needs an 'o' in peephole, got ''"),
    ("lstm", {"coupled": "i"}, ValueError, "coupled must be one of None, 'i=1-f', 'f=1-i'; got 'i'"),
    ("lstm", {"coupled": "i=1-f", "without": "i"}, ValueError, "without='i' fixes a gate that coupled="),
    ("lstm", {"coupled": "i=1-f", "without": "f"}, ValueError, "fixes a gate that coupled='i=1-f' computes"),
    ("lstm", {"coupled": "f=1-i", "peephole": "if"}, ValueError, "names gate f, which has no weights: coupled='f=1-i'"),
    ("lstm", {"without": "o", "peephole": "o"}, ValueError, "names gate o, which has no weights: without='o'"),
    ("lstm", {"gate_recurrence": True, "coupled": "i=1-f"}, ValueError, "cannot be had with coupled='i=1-f'"),
    ("lstm", {"gate_recurrence": True, "without": "f"}, ValueError, "cannot be had with without='f'"),
    ("lstm", {"gate_recurrence": True, "layer_norm": "ba"}, ValueError, "cannot be had with layer_norm='ba'"),
    ("lstm", {"gate_recurrence": 1}, TypeError, "gate_recurrence must be True or False, got int"),
    ("lstm", {"layer_norm": True}, ValueError, "layer_norm must be one of None, 'ba', 'gates'; got True"),
    ("lstm", {"norm_eps": 1e-3}, ValueError, "norm_eps means nothing without layer_norm"),
    ("lstm", {"layer_norm": "ba", "norm_eps": None}, TypeError, "norm_eps must be a number, got NoneType"),
    ("lstm", {"clip": 0}, ValueError, "clip must be positive and finite, got 0"),
    ("lstm", {"cell_clip": float("nan")}, ValueError, "cell_clip must be positive and finite, got nan"),
    ("lstm", {"proj_clip": "1"}, TypeError, "proj_clip must be a number or None, got str"),
    ("lstm", {"activations": "tanh"}, TypeError, "activations must be a tuple of 3, got str"),
    ("lstm", {"activations": ("tanh",)}, ValueError, "activations must be 3 for cell 'lstm', got 1"),
    ("gru", {"activations": ("sin", "tanh")}, ValueError, "activations must be among sigmoid, .*; got 'sin'"),
    ("gru", {"activations": (1, "tanh")}, TypeError, r"activations must hold names or \(name, alpha, beta\), got 1"),
    ("gru", {"activations": (("elu", "1"), "tanh")}, TypeError, "activations must hold names or"),
    ("gru", {"activations": (("elu", 1, 2), "tanh")}, ValueError, "elu takes 1 constants, got 2"),
    ("gru", {"activations": (("elu", np.inf), "tanh")}, ValueError, "constants of elu must be finite, got inf"),
    ("clockwork", {"periods": (2, 1)}, ValueError, r"periods must be in rising order, .*; got \(2, 1\)"),
    ("clockwork", {"periods": ()}, ValueError, "periods must be in rising order"),
    ("clockwork", {"periods": (0, 1)}, ValueError, "periods must be at least 1, got 0"),
    ("clockwork", {"periods": 1.5}, TypeError, "periods must be an integer or integers, got float"),
    ("clockwork", {"periods": 25}, ValueError, "periods: at most 24 powers of two, got 25"),
    ("clockwork", {"periods": (4099, 4111)}, ValueError, "common multiple of at most 2"),
    ("lstm_1997", {"block_size": 0}, ValueError, "block_size must be at least 1, got 0"),
    ("lstm_1997", {"block_size": 2.0}, TypeError, "block_size must be an integer, got float"),
    ("lstm_1997", {"without": "i"}, ValueError, "without must be made of the letters of 'o', got 'i'"),
    ("lstm_1997", {"gradient": "none"}, ValueError, "gradient must be one of 'truncated', 'full'; got 'none'"),
    ("lstm_1997", {"biased": True}, ValueError, "biased must be one of 'all', 'gates'; got True"),
]


@pytest.mark.parametrize(("cell", "options", "error", "words"), REFUSED)
def test_refusals(cell, options, error, words):
    with pytest.raises(error, match=words):
        variant(cell, **options)


SIZES = [
    ("gru", {}, {"proj_size": 2}, "proj_size must be 0 for cell 'gru', got 2"),
    ("lstm", {"proj_clip": 1}, {}, "proj_clip needs a proj_size, got 0"),
    ("lstm_1997", {"block_size": 3}, {}, "hidden_size must be a multiple of block_size, 3; got 4"),
    ("clockwork", {"periods": 3}, {}, "hidden_size must be a multiple of the number of periods, 3; got 4"),
    ("lstm", {}, {"hidden_size": [3, 4], "num_layers": 3}, "num_layers must be the length of hidden_size, 2, or left"),
    ("lstm", {}, {"hidden_size": [3, 4], "proj_size": 3}, "proj_size must be smaller than hidden_size 3, got 3"),
    ("lstm", {}, {"hidden_size": []}, "num_layers must be the length of hidden_size, 0"),
    ("depth_gated", {}, {"hidden_size": [3, 4]}, "hidden_size must be the same in all layers"),
]


@pytest.mark.parametrize(("cell", "options", "sizes", "words"), SIZES)
def test_sizes_that_do_not_fit_the_variant(cell, options, sizes, words):
    with pytest.raises(ValueError, match=words):
        params.weight_shapes(variant(cell, **options), **{"input_size": 3, "hidden_size": 4, **sizes})


# --------------------------------------------------------------------------------------------- names, shapes

BIASES = {"bias_ih": "G", "bias_hh": "G"}
EXTRAS = [  # cell, options -> gates, states, and the tensors of the second layer beyond weight_ih and weight_hh
    ("rnn", {}, "a", {"h": 4}, {"bias_ih": (4,), "bias_hh": (4,)}),
    ("gru", {}, "rzn", {"h": 4}, {"bias_ih": (12,), "bias_hh": (12,)}),
    ("lstm", {"peephole": "io"}, "ifgo", {"h": 4, "c": 4}, {
        "bias_ih": (16,), "bias_hh": (16,), "weight_peephole": (8,),
    }),
    ("lstm", {"coupled": "f=1-i", "without": "o"}, "ig", {"h": 4, "c": 4}, {"bias_ih": (8,), "bias_hh": (8,)}),
    ("lstm", {"layer_norm": "ba", "coupled": "i=1-f"}, "fgo", {"h": 4, "c": 4}, {
        "bias_ih": (12,), "bias_hh": (12,), "weight_ln_ih": (12,), "weight_ln_hh": (12,), "weight_ln_c": (4,),
        "bias_ln_c": (4,),
    }),
    ("lstm", {"layer_norm": "gates"}, "ifgo", {"h": 4, "c": 4}, {
        "bias_ih": (16,), "bias_hh": (16,), "weight_ln": (16,), "bias_ln": (16,),
    }),
    ("lstm", {"gate_recurrence": True}, "ifgo", {"h": 4, "c": 4, "gates": 12}, {
        "bias_ih": (16,), "bias_hh": (16,), "weight_gh": (12, 12),
    }),
    ("depth_gated", {"peephole": "f"}, "ifgo", {"h": 4, "c": 4}, {
        "bias_ih": (16,), "bias_hh": (16,), "weight_peephole": (4,), "weight_d_ih": (4, 4), "weight_d_c": (4,),
        "weight_d_lower": (4,), "bias_d": (4,),
    }),
    ("clockwork", {"periods": 2}, "a", {"h": 4, "t": 1}, {"bias_ih": (4,), "bias_hh": (4,)}),
    ("lstm_1997", {"block_size": 2}, "gio", {"h": 4, "c": 4, "gates": 4}, {"bias_ih": (8,)}),
    ("lstm_1997", {"biased": "gates", "without": "o"}, "gi", {"h": 4, "c": 4, "gates": 4}, {"bias_ih": (4,)}),
]


@pytest.mark.parametrize(("cell", "options", "gates", "widths", "extras"), EXTRAS)
def test_tensors_written_out(cell, options, gates, widths, extras):
    v = variant(cell, **options)
    assert v.gates == tuple(gates) and v.widths(4) == widths and v.states == tuple(widths)
    rows = 16 if cell == "depth_gated" else v.rows(4)
    assert v.hidden(rows) == 4
    shapes = params.weight_shapes(v, 3, 4, 2)
    width = rows if cell == "lstm_1997" else 4
    expected = {"weight_ih": (rows, 4), "weight_hh": (rows, width), **extras}
    found = {name.removesuffix("_l1"): shape for name, shape in shapes.items() if name.endswith("_l1")}
    assert list(found.items()) == list(expected.items())
    first = {name.removesuffix("_l0") for name in shapes if name.endswith("_l0")}
    assert first == {name for name in expected if "_d" not in name}
    assert params.state_shapes(2, 1, 5, 4, cell=v) == {name: (2, 5, width) for name, width in widths.items()}
    unbiased = params.weight_shapes(v, 3, 4, 2, bias=False)
    assert unbiased == {name: shape for name, shape in shapes.items() if not name.startswith("bias")}


def test_a_plain_variant_has_the_shapes_of_its_name():
    v = variant("lstm")
    for options in ({}, {"num_layers": 2, "bidirectional": True, "proj_size": 2}, {"bias": False}):
        assert list(params.weight_shapes(v, 3, 4, **options).items()) == list(
            params.weight_shapes("lstm", 3, 4, **options).items()
        )
    assert params.state_shapes(2, 2, 5, 4, 3, v) == params.state_shapes(2, 2, 5, 4, 3)
    assert params.trace_of(v) is params.trace_of("lstm") is params.Trace
    assert params.cell_of(v).gates == params.cell_of("lstm").gates


def test_sizes_by_layer():
    shapes = params.weight_shapes("lstm", 2, [3, 5], bidirectional=True)
    assert shapes["weight_ih_l1"] == (20, 6) and shapes["weight_hh_l1_reverse"] == (20, 5)
    assert shapes == params.weight_shapes("lstm", 2, (3, 5), 2, bidirectional=True)
    assert params.state_shapes(2, 2, 7, [3, 5]) == {
        name: [(7, 3), (7, 3), (7, 5), (7, 5)] for name in ("h", "c")
    }
    assert params.state_shapes(1, 1, 7, [3, 3]) == params.state_shapes(2, 1, 7, 3)
    v = variant("gru")
    masks = params.mask_shapes(v, 4, 7, 2, [3, 5], bidirectional=True)
    assert masks["mask_x_l0"] == (7, 2) and masks["mask_x_l1_reverse"] == (7, 6)
    assert masks["mask_h_l1"] == (7, 5) and masks["mask_g_l0"] == (4, 7, 3)
    assert masks["mask_weight_hh_l1"] == (15, 5) and masks["zoneout_h_l1"] == (4, 7, 5)


# ----------------------------------------------------------------------------------------------- activations

Z = np.array([-30.0, -2.6, -1.0, -0.3, 0.4, 1.1, 2.6, 40.0])
KNOWN = {  # written out otherwise than in the twin
    "sigmoid": lambda z: (1 + np.tanh(z / 2)) / 2,
    "hard_sigmoid": lambda z: np.minimum(np.maximum(0.2 * z + 0.5, 0), 1),
    "tanh": lambda z: 1 - 2 / (1 + np.exp(2 * z)),
    "relu": lambda z: (z + np.abs(z)) / 2,
    "identity": lambda z: z,
    "softsign": lambda z: np.sign(z) * (1 - 1 / (1 + np.abs(z))),
    "softplus": lambda z: np.log(1 + np.exp(z)),
    "elu": lambda z: np.where(z < 0, np.exp(z) - 1, z),
    "leaky_relu": lambda z: z * (0.505 + 0.495 * np.sign(z)),
    "thresholded_relu": lambda z: z * (z >= 1),
    "scaled_tanh": lambda z: 1 - 2 / (1 + np.exp(2 * z)),
    "affine": lambda z: z,
}
WITH_CONSTANTS = {
    ("hard_sigmoid", 0.3, 0.4): lambda z: np.clip(0.3 * z + 0.4, 0, 1),
    ("elu", 0.7): lambda z: np.where(z < 0, 0.7 * (np.exp(z) - 1), z),
    ("leaky_relu", 0.2): lambda z: np.where(z < 0, 0.2 * z, z),
    ("thresholded_relu", 0.5): lambda z: np.where(z < 0.5, 0, z),
    ("scaled_tanh", 1.7, 0.6): lambda z: 1.7 * (1 - 2 / (1 + np.exp(1.2 * z))),
    ("affine", -0.4, 0.3): lambda z: 0.3 - 0.4 * z,
}


@pytest.mark.parametrize("given", [*KNOWN, *WITH_CONSTANTS], ids=str)
def test_activations_and_their_derivatives(given):
    activation = variant("rnn", activations=(given,)).activations[0]
    y = activate(activation, Z)
    np.testing.assert_allclose(y, {**KNOWN, **WITH_CONSTANTS}[given](Z), rtol=1e-12, atol=1e-12)
    step = 1e-3
    f = {k: activate(activation, Z + k * step) for k in (-2, -1, 1, 2)}
    slope = (f[-2] - 8 * f[-1] + 8 * f[1] - f[2]) / (12 * step)
    np.testing.assert_allclose(activate_backward(activation, np.full(8, 2.0), Z, y), 2 * slope, rtol=1e-8, atol=1e-10)


def test_activations_are_those_there_are():
    assert set(ACTIVATIONS) == set(variants.ACTIVATIONS) == set(KNOWN)
    for name, constants in variants.ACTIVATIONS.items():
        found = variant("rnn", activations=(name,)).activations[0]
        assert found == Activation(name, *constants) and tuple(found[1 : 1 + len(constants)]) == constants


def test_activations_at_their_edges_and_far_out():
    def slope(name, z):
        activation = variant("rnn", activations=(name,)).activations[0]
        z = np.array([z])
        return activate_backward(activation, np.ones(1), z, activate(activation, z)).item()

    assert (slope("relu", 0.0), slope("elu", 0.0), slope("leaky_relu", 0.0)) == (0, 1, 1)
    assert (slope("hard_sigmoid", 2.5), slope("thresholded_relu", 1.0)) == (0, 1)
    with np.errstate(all="raise", under="ignore"):
        for name in ACTIVATIONS:
            activation = variant("rnn", activations=(name,)).activations[0]
            z = np.array([-1e5, 1e5])
            y = activate(activation, z)
            assert np.isfinite(y).all() and np.isfinite(activate_backward(activation, y, z, y)).all()
            assert np.isnan(activate(activation, np.array([np.nan]))).all(), name
