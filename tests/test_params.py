"""Names and shapes of weights and states, and what a bad checkpoint is told."""

import itertools
import warnings

import numpy as np
import pytest

from fastlstm import params, variants

SHAPES = params.weight_shapes("lstm", 2, 3)


def good():
    """A checkpoint that fits SHAPES."""
    rng = np.random.default_rng(1)
    return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


def snapshot(d):
    return {name: np.array(value) for name, value in d.items()}


# ------------------------------------------------------------------------------- names and shapes

GRID = list(itertools.product((1, 2, 3), (True, False), (False, True), (0, 2)))


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")  # torch, of its speed
@pytest.mark.parametrize(("num_layers", "bias", "bidirectional", "proj_size"), GRID)
def test_names_order_and_shapes_are_torchs(num_layers, bias, bidirectional, proj_size):
    torch = pytest.importorskip("torch")
    module = torch.nn.LSTM(
        5, 4, num_layers, bias=bias, bidirectional=bidirectional, proj_size=proj_size
    )
    theirs = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    ours = params.weight_shapes("lstm", 5, 4, num_layers, bias, bidirectional, proj_size)
    assert list(ours.items()) == list(theirs.items())
    x = torch.zeros(3, 2, 5)
    _, states = module(x)
    shapes = params.state_shapes(num_layers, 1 + bidirectional, 2, 4, proj_size)
    assert list(shapes.items()) == [
        (name, tuple(state.shape)) for name, state in zip("hc", states, strict=True)
    ]


def test_shapes_written_out():
    # The same without torch at hand: one case with everything in it.
    assert params.weight_shapes("lstm", 5, 4, 2, bidirectional=True, proj_size=3) == {
        "weight_ih_l0": (16, 5),
        "weight_hh_l0": (16, 3),
        "bias_ih_l0": (16,),
        "bias_hh_l0": (16,),
        "weight_hr_l0": (3, 4),
        "weight_ih_l0_reverse": (16, 5),
        "weight_hh_l0_reverse": (16, 3),
        "bias_ih_l0_reverse": (16,),
        "bias_hh_l0_reverse": (16,),
        "weight_hr_l0_reverse": (3, 4),
        "weight_ih_l1": (16, 6),
        "weight_hh_l1": (16, 3),
        "bias_ih_l1": (16,),
        "bias_hh_l1": (16,),
        "weight_hr_l1": (3, 4),
        "weight_ih_l1_reverse": (16, 6),
        "weight_hh_l1_reverse": (16, 3),
        "bias_ih_l1_reverse": (16,),
        "bias_hh_l1_reverse": (16,),
        "weight_hr_l1_reverse": (3, 4),
    }
    assert params.state_shapes(2, 2, 7, 4, 3) == {"h": (4, 7, 3), "c": (4, 7, 4)}
    assert params.state_shapes(1, 1, 0, 4) == {"h": (1, 0, 4), "c": (1, 0, 4)}


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: params.weight_shapes("lsmt", 2, 3), ValueError, "cell must be one of lstm"),
        (lambda: params.weight_shapes("lstm", 0, 3), ValueError, "input_size must be at least 1"),
        (lambda: params.weight_shapes("lstm", 2, -3), ValueError, "hidden_size must be at least 1"),
        (lambda: params.weight_shapes("lstm", 2, 3, 0), ValueError, "num_layers must be at least"),
        (lambda: params.weight_shapes("lstm", 2.0, 3), TypeError, "input_size must be an integer"),
        (lambda: params.weight_shapes("lstm", 2, True), TypeError, "integer, got bool"),
        (
            lambda: params.weight_shapes("lstm", 2, 3, proj_size=3),
            ValueError,
            "proj_size must be smaller than hidden_size 3, got 3",
        ),
        (lambda: params.state_shapes(1, 3, 1, 4), ValueError, "directions must be 1 or 2, got 3"),
        (lambda: params.state_shapes(1, 1, -1, 4), ValueError, "batch must be at least 0, got -1"),
    ],
)
def test_sizes_that_make_no_sense(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_cell_without_projection_refuses_one():
    assert params.weight_shapes("rnn", 2, 3, bias=False) == {"weight_ih_l0": (3, 2), "weight_hh_l0": (3, 3)}
    assert params.state_shapes(1, 1, 2, 3, cell="rnn") == {"h": (1, 2, 3)}
    with pytest.raises(ValueError, match="proj_size must be 0 for cell 'rnn', got 2"):
        params.weight_shapes("rnn", 2, 3, proj_size=2)


@pytest.mark.parametrize("cell", variants.FAMILY)
def test_the_trace_has_the_gates_and_states_of_the_cell(cell):
    v = variants.variant(cell)
    assert params.trace_of(v)._fields == v.traced
    assert set(v.gates) | {"h"} <= set(v.traced)


def test_names_are_sorted_by_layer_and_direction():
    shapes = params.weight_shapes(variants.variant("lstm", layer_norm="ba"), 2, 3, 2, bidirectional=True)
    parts = params.by_layer(shapes, params.suffixes(2, True))
    assert len(parts) == 4
    assert set(parts[0]) == set(parts[3]) == {
        "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_ln_ih", "weight_ln_hh", "weight_ln_c", "bias_ln_c",
    }
    assert (parts[0]["weight_ih"], parts[3]["weight_ih"]) == ((12, 2), (12, 6))


# ----------------------------------------------------------------------------------- init_weights


def test_initial_weights_are_uniform_and_reproducible():
    shapes = params.weight_shapes("lstm", 50, 64, 2)
    first = params.init_weights(shapes, np.random.default_rng(3), "float64", 64)
    again = params.init_weights(shapes, np.random.default_rng(3), np.float32, 64)
    assert {name: w.shape for name, w in first.items()} == shapes
    for name, weight in first.items():
        assert weight.dtype == np.float64
        assert again[name].dtype == np.float32
        np.testing.assert_array_equal(again[name], weight.astype(np.float32))
        assert np.abs(weight).max() <= 0.125
        assert np.abs(weight).max() > 0.12
        assert abs(weight.mean()) < 6 * 0.125 / np.sqrt(3 * weight.size)
    flat = np.concatenate([w.ravel() for w in first.values()])
    np.testing.assert_array_equal(
        flat, np.random.default_rng(3).uniform(-0.125, 0.125, size=flat.size)
    )


@pytest.mark.parametrize("kind", ["ba", "gates"])
def test_layer_normalisation_starts_as_if_it_had_no_weights(kind):
    shapes = params.weight_shapes(variants.variant("lstm", layer_norm=kind), 2, [3, 5])
    found = params.init_weights(shapes, np.random.default_rng(3), "float32", [3, 5])
    for name, weight in found.items():
        if "_ln" in name:
            assert (weight == name.startswith("weight")).all(), name
        else:
            assert 0 < np.abs(weight).max() <= 1 / np.sqrt(5 if "l1" in name else 3), name


@pytest.mark.parametrize(
    ("rng", "dtype", "words"),
    [
        (0, "float32", "rng must be a numpy.random.Generator, got int"),
        (np.random.default_rng(0), "int8", "dtype must be a floating-point type, got int8"),
    ],
)
def test_initial_weights_refusals(rng, dtype, words):
    with pytest.raises(TypeError, match=words):
        params.init_weights(SHAPES, rng, dtype, 3)


# ------------------------------------------------------------------ check_state_dict: what it takes


class OnlyDlpack:
    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class OnlyArray:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


WRAPS = {
    "array": lambda a: a,
    "float32": lambda a: a.astype(np.float32),
    "float16": lambda a: a.astype(np.float16),
    "big-endian": lambda a: a.astype(">f8"),
    "integers": lambda a: np.round(a * 10).astype(np.int16),
    "list": lambda a: a.tolist(),
    "fortran": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=0)[::2],
    "read-only": lambda a: np.frombuffer(a.tobytes()).reshape(a.shape),
    "__dlpack__": OnlyDlpack,
    "__array__": OnlyArray,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", WRAPS)
def test_takes_anything_that_holds_numbers(kind, dtype):
    d = {name: WRAPS[kind](array) for name, array in good().items()}
    arrays, missing, unexpected = params.check_state_dict(d, SHAPES, dtype)
    assert (missing, unexpected) == ([], [])
    assert list(arrays) == list(SHAPES)
    for name, array in arrays.items():
        source = d[name].array if hasattr(d[name], "array") else np.asarray(d[name])
        np.testing.assert_array_equal(array, source.astype(dtype))
        assert array.dtype == dtype and array.flags.c_contiguous and array.flags.writeable
        assert not np.shares_memory(array, source)


@pytest.mark.parametrize("parameters", ["state_dict", "named_parameters"])
def test_takes_torch_modules_tensors(parameters):
    torch = pytest.importorskip("torch")
    module = torch.nn.LSTM(2, 3)
    d = dict(getattr(module, parameters)())  # named_parameters are still wanting gradients
    arrays, _, _ = params.check_state_dict(d, SHAPES, np.float32)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, d[name].detach().numpy())
        before = d[name].detach().clone()
        array += 1
        assert torch.equal(d[name], before)


def test_a_tensor_numpy_cannot_read_is_named():
    torch = pytest.importorskip("torch")
    d = good() | {"bias_hh_l0": torch.zeros(12, dtype=torch.bfloat16)}
    with pytest.raises(TypeError, match="bias_hh_l0 cannot be read as an array of numbers"):
        params.check_state_dict(d, SHAPES, np.float32)


# -------------------------------------------------------------- check_state_dict: what it refuses


def test_every_problem_is_named_at_once_and_nothing_changes():
    d = good()
    del d["weight_hh_l0"], d["bias_ih_l0"]
    d |= {"weight_ih_l0": np.zeros((2, 12)), "weight_hr_l0": np.zeros((2, 3)), "step": "one"}
    d["bias_hh_l0"] = np.full(12, "a")
    before = snapshot(d)
    with pytest.raises(ValueError) as caught:
        params.check_state_dict(d, SHAPES, np.float32)
    assert str(caught.value) == (
        "state dict does not fit: "
        "missing weight_hh_l0, expected shape (12, 3); "
        "missing bias_ih_l0, expected shape (12,); "
        "unexpected weight_hr_l0; "
        "unexpected step; "
        "weight_ih_l0 has shape (2, 12), expected (12, 2), which is transposed; "
        "bias_hh_l0 holds <U1, expected real numbers"
    )
    assert list(d) == list(before)
    for name in d:
        np.testing.assert_array_equal(d[name], before[name])


def test_not_strict_reports_names_but_never_forgives_a_shape():
    d = good()
    bias = d.pop("bias_ih_l0")
    d["extra"] = bias
    arrays, missing, unexpected = params.check_state_dict(d, SHAPES, np.float32, strict=False)
    assert missing == ["bias_ih_l0"]
    assert unexpected == ["extra"]
    assert list(arrays) == [name for name in SHAPES if name != "bias_ih_l0"]
    d["bias_hh_l0"] = np.zeros(11)
    with pytest.raises(ValueError, match=r"bias_hh_l0 has shape \(11,\), expected \(12,\)$"):
        params.check_state_dict(d, SHAPES, np.float32, strict=False)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros(12, complex), "bias_ih_l0 holds complex128, expected real numbers"),
        (np.zeros(12, bool), "bias_ih_l0 holds bool, expected real numbers"),
        (["a"] * 12, "bias_ih_l0 holds <U1, expected real numbers"),
        (None, "bias_ih_l0 holds object, expected real numbers"),
        ([[1.0], [1.0, 2.0]], "bias_ih_l0 cannot be read as an array of numbers"),
    ],
)
def test_what_is_not_numbers_is_a_type_error(value, words):
    with pytest.raises(TypeError, match=words):
        params.check_state_dict(good() | {"bias_ih_l0": value}, SHAPES, np.float32)


@pytest.mark.parametrize("d", [None, [("weight_ih_l0", 1)], "weights.npz"])
def test_what_is_not_a_mapping_is_a_type_error(d):
    with pytest.raises(TypeError, match="state dict must map names to arrays, got "):
        params.check_state_dict(d, SHAPES, np.float32)


@pytest.mark.parametrize("value", [1e39, -1e300])
def test_a_value_too_large_for_the_dtype_is_refused(value):
    d = good()
    d["weight_hh_l0"][1, 2] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy's own overflow warning would be a second voice
        with pytest.raises(ValueError, match=r"weight_hh_l0 holds 1e\+\d+, too large for float32"):
            params.check_state_dict(d, SHAPES, np.float32)
        arrays, _, _ = params.check_state_dict(d, SHAPES, np.float64)
    assert arrays["weight_hh_l0"][1, 2] == value


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_warned_of_by_name(value):
    d = good()
    d["weight_hh_l0"][1, 2] = d["bias_hh_l0"][0] = value
    with pytest.warns(RuntimeWarning, match="NaN or infinity in weight_hh_l0, bias_hh_l0$"):
        arrays, _, _ = params.check_state_dict(d, SHAPES, np.float32)
    np.testing.assert_array_equal(arrays["weight_hh_l0"], d["weight_hh_l0"].astype(np.float32))
