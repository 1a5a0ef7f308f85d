"""The reference against finite differences, against torch, and against itself taken apart.

Finite differences come first: they need no other implementation to be right.
"""

import numpy as np
import pytest
from differences import difference, numeric_gradient

from fastlstm import params, reference

# ---------------------------------------------------------------------------- cases and measures

# name: T, B, then the options of `forward`; "bias", "reset" and "masks" are filled in by `make`.
SIZES = {"I": 2, "H": 3}
STACK = {"num_layers": 2, "bidirectional": True, "proj_size": 2}
CASES = {
    "one step": (1, 2, {}),
    "one row": (4, 1, {}),
    "plain": (4, 3, {}),
    "no bias": (3, 2, {"bias": False}),
    "two layers": (3, 2, {"num_layers": 2}),
    "bidirectional": (4, 2, {"bidirectional": True}),
    "one step, bidirectional, two layers": (1, 2, {"bidirectional": True, "num_layers": 2}),
    "projection": (4, 2, {"proj_size": 2}),
    "lengths": (4, 4, {"lengths": [2, 0, 4, 1]}),
    "lengths, bidirectional": (4, 4, {"lengths": [2, 0, 4, 1], "bidirectional": True}),
    "all lengths zero": (2, 2, {"lengths": [0, 0]}),
    "reset": (4, 3, {"reset": True}),
    "reset, bidirectional": (4, 3, {"reset": True, "bidirectional": True}),
    "masks": (3, 2, {"num_layers": 2, "masks": True}),
    "ragged stack": (5, 4, {**STACK, "lengths": [3, 5, 1, 2]}),
    "everything": (5, 4, {**STACK, "lengths": [5, 3, 0, 4], "reset": True, "masks": True}),
}


def make(name, dtype=np.float64):
    """Arrays {x, h0, c0, weight...}, output gradients (dy, dhn, dcn) and options of a case."""
    T, B, options = CASES[name]
    options = dict(options)
    rng = np.random.default_rng(sorted(CASES).index(name))
    bias, masks = options.pop("bias", True), options.pop("masks", False)
    L, P = options.get("num_layers", 1), options.get("proj_size", 0)
    D = 2 if options.get("bidirectional") else 1
    R = P or SIZES["H"]
    if options.get("reset"):
        options["reset"] = rng.random((T, B)) < 0.4
        options["reset"][0, 0] = True
    if masks:
        options["dropout_masks"] = (rng.random((L - 1, T, B, D * R)) < 0.7) / 0.7
    shapes = params.weight_shapes("lstm", SIZES["I"], SIZES["H"], L, bias, D == 2, P)
    shapes = {"x": (T, B, SIZES["I"]), "h0": (L * D, B, R), "c0": (L * D, B, SIZES["H"]), **shapes}
    arrays = {key: rng.normal(size=shape).astype(dtype) for key, shape in shapes.items()}
    outputs = [(T, B, D * R), (L * D, B, R), (L * D, B, SIZES["H"])]
    return arrays, [rng.normal(size=shape).astype(dtype) for shape in outputs], options


def weights_of(arrays):
    return {name: a for name, a in arrays.items() if name not in ("x", "h0", "c0")}


def forward(arrays, options):
    state = arrays["h0"], arrays["c0"]
    return reference.forward(weights_of(arrays), arrays["x"], state, **options)


def all_gradients(arrays, douts, options):
    *_, cache = forward(arrays, options)
    dx, (dh0, dc0), grads = reference.backward(cache, douts[0], douts[1:])
    return {"x": dx, "h0": dh0, "c0": dc0, **grads}


# ----------------------------------------------------------------------------- finite differences


@pytest.mark.parametrize("name", CASES)
def test_backward_is_the_derivative_of_forward(name):
    arrays, douts, options = make(name)
    gradients = all_gradients(arrays, douts, options)
    assert list(gradients) == list(arrays)

    def loss():
        y, (hn, cn), _ = forward(arrays, options)
        return sum((out * dout).sum() for out, dout in zip((y, hn, cn), douts, strict=True))

    for key, array in arrays.items():
        assert difference(numeric_gradient(loss, array), gradients[key]) < 1e-7, key


def test_every_case_has_gradients_to_compare():
    # All-zero gradients would agree with anything.
    for name in CASES:
        arrays, douts, options = make(name)
        for key, gradient in all_gradients(arrays, douts, options).items():
            if name == "all lengths zero" and key not in ("h0", "c0"):
                assert not gradient.any(), (name, key)
            else:
                assert np.abs(gradient).max() > 1e-3, (name, key)


def test_gradients_of_the_state_may_be_left_out():
    arrays, douts, options = make("everything")
    *_, cache = forward(arrays, options)
    zeros = np.zeros_like(douts[1]), np.zeros_like(douts[2])
    left_out = reference.backward(cache, douts[0])
    given = reference.backward(cache, douts[0], zeros)
    np.testing.assert_array_equal(left_out[0], given[0])
    for name in given[2]:
        np.testing.assert_array_equal(left_out[2][name], given[2][name])


@pytest.mark.skipif(
    np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps, reason="long double is double here"
)
def test_extended_precision_agrees_with_double():
    arrays, douts, options = make("everything")
    wide = forward(arrays, {**options, "dtype": np.longdouble})
    narrow = forward(arrays, options)
    for a, b in ((narrow[0], wide[0]), (narrow[1][0], wide[1][0]), (narrow[1][1], wide[1][1])):
        assert b.dtype == np.longdouble
        assert 0 < difference(a, b) < 1e-14  # 0 would mean that both were computed in double
    wide_grads = reference.backward(wide[2], douts[0], douts[1:])[2]
    for name, gradient in reference.backward(narrow[2], douts[0], douts[1:])[2].items():
        assert wide_grads[name].dtype == np.longdouble
        assert difference(gradient, wide_grads[name]) < 1e-14


# ------------------------------------------------------------------- the same thing taken apart


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("wall", [1, 3, 5])
def test_a_reset_splits_a_sequence_into_episodes(wall, bidirectional):
    rng = np.random.default_rng(wall)
    T, B, D = 6, 2, 2 if bidirectional else 1
    shapes = params.weight_shapes("lstm", 2, 3, bidirectional=bidirectional)
    weights = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    x, dy = rng.normal(size=(T, B, 2)), rng.normal(size=(T, B, 3 * D))
    h0, c0, dhn, dcn = rng.normal(size=(4, D, B, 3))
    reset = np.zeros((T, B), bool)
    reset[wall] = True
    both = {"bidirectional": bidirectional}

    def run(steps, state, dstate, **options):
        y, last, cache = reference.forward(weights, x[steps], state, **both, **options)
        return y, last, reference.backward(cache, dy[steps], dstate)

    def only(states, d):  # the outer states, with zeros for the direction that met the wall
        return tuple(np.where(np.arange(D)[:, None, None] == d, s, 0) for s in states)

    y, last, (dx, dstate, grads) = run(slice(T), (h0, c0), (dhn, dcn), reset=reset)
    early = run(slice(wall), only((h0, c0), 0), only((dhn, dcn), 1))
    late = run(slice(wall, T), only((h0, c0), 1), only((dhn, dcn), 0))
    np.testing.assert_allclose(y, np.concatenate([early[0], late[0]]), rtol=1e-14)
    np.testing.assert_allclose(dx, np.concatenate([early[2][0], late[2][0]]), rtol=0, atol=1e-14)
    for k in (0, 1):
        np.testing.assert_allclose(last[k][0], late[1][k][0], rtol=1e-14)
        np.testing.assert_allclose(dstate[k][0], early[2][1][k][0], rtol=0, atol=1e-14)
        if bidirectional:
            np.testing.assert_allclose(last[k][1], early[1][k][1], rtol=1e-14)
            np.testing.assert_allclose(dstate[k][1], late[2][1][k][1], rtol=0, atol=1e-14)
    for name in grads:
        assert difference(early[2][2][name] + late[2][2][name], grads[name]) < 1e-14


def test_a_reset_at_step_zero_drops_h0_only_in_the_forward_direction():
    arrays, _, options = make("bidirectional")
    reset = np.zeros(arrays["x"].shape[:2], bool)
    reset[0] = True
    y, _, _ = forward(arrays, {**options, "reset": reset})
    arrays["h0"][0] = arrays["c0"][0] = 0
    np.testing.assert_array_equal(y, forward(arrays, options)[0])


def test_each_row_is_as_if_alone_and_padding_is_never_looked_at():
    arrays, douts, options = make("everything")
    lengths, reset = options["lengths"], options["reset"]
    for b, n in enumerate(lengths):
        arrays["x"][n:, b] = douts[0][n:, b] = np.nan
        reset[n:, b] = True
        if n == 0:  # its state passes straight through and must touch nothing else
            for state in (arrays["h0"], arrays["c0"], *douts[1:]):
                state[:, b] = np.nan
    y, state, cache = forward(arrays, options)
    dx, dstate, grads = reference.backward(cache, douts[0], douts[1:])
    total = dict.fromkeys(grads, 0)
    for b, n in enumerate(lengths):
        row = {k: a[:, b : b + 1] if k in ("x", "h0", "c0") else a for k, a in arrays.items()}
        row["x"] = row["x"][:n]
        masks = options["dropout_masks"][:, :n, b : b + 1]
        alone = options | {"lengths": None, "reset": reset[:n, b : b + 1], "dropout_masks": masks}
        y1, state1, cache1 = forward(row, alone)
        dstate_in = [d[:, b : b + 1] for d in douts[1:]]
        dx1, dstate1, grads1 = reference.backward(cache1, douts[0][:n, b : b + 1], dstate_in)
        for whole, part in ((y, y1), (dx, dx1)):
            np.testing.assert_allclose(whole[:n, b], part[:, 0], rtol=0, atol=1e-13)
            assert not whole[n:, b].any()
        for whole, part in zip((*state, *dstate), (*state1, *dstate1), strict=True):
            np.testing.assert_allclose(whole[:, b], part[:, 0], rtol=0, atol=1e-13)
        total = {name: total[name] + grads1[name] for name in grads}
    for name in grads:  # a NaN anywhere fails this comparison
        assert difference(total[name], grads[name]) < 1e-13
    np.testing.assert_array_equal(state[0][:, 2], arrays["h0"][:, 2])  # the row of length 0
    np.testing.assert_array_equal(dstate[1][:, 2], douts[2][:, 2])


def test_masks_multiply_what_one_layer_hands_to_the_next():
    arrays, _, options = make("masks")
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    x = arrays["x"]
    for k in (0, 1):
        weights = {f"{name}_l0": arrays[f"{name}_l{k}"] for name in names}
        x, _, _ = reference.forward(weights, x, (arrays["h0"][k : k + 1], arrays["c0"][k : k + 1]))
        x = x * options["dropout_masks"][0] if k == 0 else x
    np.testing.assert_allclose(forward(arrays, options)[0], x, rtol=1e-14)


def test_nan_stays_in_its_row_and_ends_at_a_reset():
    arrays, _, options = make("reset")
    options["reset"] = np.array([[0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]], bool)
    arrays["x"][1, 0] = np.nan
    y, _, _ = forward(arrays, options)
    bad = np.isnan(y).any(axis=2)
    np.testing.assert_array_equal(np.argwhere(bad), [[1, 0]])


def test_the_trace_satisfies_the_equations():
    arrays, _, _ = make("plain")
    y, (hn, cn), cache = forward(arrays, {})
    t = params.Trace(*(one for [one] in reference.trace(cache)))
    c_before = np.concatenate([arrays["c0"], t.c[:-1]])
    np.testing.assert_allclose(t.c, t.f * c_before + t.i * t.g, rtol=1e-15)
    np.testing.assert_allclose(t.h, t.o * np.tanh(t.c), rtol=1e-15)
    np.testing.assert_array_equal(t.h, y)
    np.testing.assert_array_equal(t.h[-1], hn[0])
    np.testing.assert_array_equal(t.c[-1], cn[0])


def test_the_trace_of_a_stack_is_lists_and_zero_in_the_padding():
    arrays, _, options = make("everything")
    t = reference.trace(forward(arrays, options)[2])
    for name, values in t._asdict().items():
        assert len(values) == 4
        for value in values:
            assert value.shape == (5, 4, 2 if name == "h" else 3)
            assert not value[3:, 1].any() and value[:3, 1].all()
    np.testing.assert_array_equal(np.concatenate(t.h[2:], axis=2), forward(arrays, options)[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lengths": [1, 2]}, "lengths must be 3 integers"),
        ({"lengths": [1, 2, 5]}, r"lengths must lie in 0\.\.4"),
        ({"lengths": [1, 2, -1]}, r"lengths must lie in 0\.\.4"),
        ({"reset": np.zeros((3, 3), bool)}, r"reset has shape \(3, 3\), expected \(4, 3\)"),
        ({"dropout_masks": np.ones((1, 4, 3, 3))}, "dropout_masks has shape"),
        ({"bidirectional": True}, "missing or unexpected: weight_ih_l0_reverse"),
        ({"cell": "none"}, "cell must be one of"),
    ],
)
def test_refusals(change, words):
    arrays, _, _ = make("plain")
    with pytest.raises(ValueError, match=words):
        forward(arrays, change)


# ------------------------------------------------------------------------------------------- torch

# torch has no resets and keeps its masks to itself; its packed sequences know no zero lengths.
TORCH_CASES = [n for n, (_, _, o) in CASES.items() if not {"reset", "masks"} & set(o)]
TORCH_CASES = [n for n in TORCH_CASES if 0 not in CASES[n][2].get("lengths", [1])]


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")  # torch, of its speed
@pytest.mark.parametrize("name", TORCH_CASES)
def test_forward_and_backward_are_torchs(name):
    torch = pytest.importorskip("torch")
    arrays, douts, options = make(name)
    lengths = options.get("lengths")
    bias = "bias_ih_l0" in arrays
    settings = {k: v for k, v in options.items() if k != "lengths"}
    module = torch.nn.LSTM(SIZES["I"], SIZES["H"], bias=bias, **settings, dtype=torch.float64)
    assert list(module.state_dict()) == list(weights_of(arrays))
    module.load_state_dict({k: torch.from_numpy(a) for k, a in weights_of(arrays).items()})
    given = [torch.tensor(arrays[k], requires_grad=True) for k in ("x", "h0", "c0")]
    x, rnn = given[0], torch.nn.utils.rnn
    if lengths:
        x = rnn.pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    y, state = module(x, (given[1], given[2]))
    if lengths:
        y, _ = rnn.pad_packed_sequence(y, total_length=len(arrays["x"]))
    outs = [y, *state]
    sum((out * torch.from_numpy(d)).sum() for out, d in zip(outs, douts, strict=True)).backward()

    ours_y, ours_state, _ = forward(arrays, options)
    for ours, theirs in zip((ours_y, *ours_state), outs, strict=True):
        assert difference(ours, theirs.detach().numpy()) < 1e-12
    theirs = {k: t.grad for k, t in zip(("x", "h0", "c0"), given, strict=True)}
    theirs |= {k: p.grad for k, p in module.named_parameters()}
    for key, ours in all_gradients(arrays, douts, options).items():
        assert difference(ours, theirs[key].numpy()) < 1e-12, key
