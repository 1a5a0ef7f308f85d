"""exp, tanh, sigmoid and relu as the kernels compute them, on every instruction set; the tails of all vector loops.

The bounds are those of docs/numerics.md, in units in the last place (ULP) of the exact result. All floats are swept by
bench/ulp_sweep.c; here it is a sample of every exponent. `_core.apply` leaves subnormals on, calls of a layer do not.
"""

import numpy as np
import pytest
from grids import WIDE, Case, bound, distance, problem, same, wider_than_double

from fastlstm import _core

TYPES = [np.float32, pytest.param(np.float64, marks=wider_than_double)]
BOUNDS = {"tanh": 2, "sigmoid": 3, "exp": 2}


def exact(name, x):
    """In the next wider type."""
    x = x.astype(np.float64 if x.dtype == np.float32 else WIDE)
    if name == "sigmoid":
        e = np.exp(-np.abs(x))
        return np.where(x >= 0, 1 / (1 + e), e / (1 + e))
    return {"tanh": np.tanh, "exp": np.exp, "relu": lambda x: np.maximum(x, 0)}[name](x)


def ulps(y, true):
    """|y - true| in units of the last place of true, which lies in a wider type."""
    return np.abs(y - true) / np.spacing(np.abs(true).astype(y.dtype))


def sample(dtype, seed=0):
    """Both signs, every exponent, subnormals, and densely where the functions bend or end. Sorted."""
    rng, info = np.random.default_rng(seed), np.finfo(dtype)
    mantissa = rng.random((info.maxexp - info.minexp + info.nmant + 1, 40 if dtype == np.float64 else 200))
    exponents = np.arange(info.minexp - info.nmant, info.maxexp + 1)[:, None]
    spread = np.ldexp((1 + mantissa).astype(WIDE), exponents - 1).astype(dtype).ravel()
    edge = 745 if dtype == np.float64 else 104
    dense = [rng.uniform(-a, a, 40_000).astype(dtype) for a in (1, 10, 40, edge)]
    steps = np.arange(-300, 300) * np.log(2) / 2  # where the reduction changes its n
    return np.unique(np.concatenate([spread, -spread, *dense, steps.astype(dtype), [0]]).astype(dtype))


def neighbours(dtype, seed=1):
    """Runs of 400 consecutive numbers each."""
    rng, bits = np.random.default_rng(seed), f"i{np.dtype(dtype).itemsize}"
    starts = np.concatenate([rng.uniform(-20, 20, 300), rng.uniform(-90, 90, 100), rng.normal(size=100) * 1e-3])
    return (starts.astype(dtype).view(bits)[:, None] + np.arange(400, dtype=bits)).view(dtype)


@pytest.fixture(scope="module", params=TYPES)
def x(request):
    return sample(request.param)


def test_the_sample_has_every_exponent_of_both_signs(x):
    info = np.finfo(x.dtype)
    for sign in (1, -1):
        exponents = set(np.frexp(x[x * sign > 0])[1])
        assert exponents == set(range(info.minexp - info.nmant + 1, info.maxexp + 1))


@pytest.mark.parametrize("name", BOUNDS)
def test_errors_are_within_the_bounds(isa, name, x, record_property):
    info = np.finfo(x.dtype)
    with np.errstate(over="ignore"):
        y, true = _core.apply(name, x), exact(name, x)
    assert y.dtype == x.dtype
    normal = (np.abs(true) >= info.tiny) & (true <= info.max)
    worst = ulps(y[normal], true[normal]).max()
    record_property(f"{name} {x.dtype} worst ULP", float(worst))
    assert worst <= BOUNDS[name]
    small = np.abs(true) < info.tiny
    assert np.abs(y[small] - true[small]).max(initial=0) <= info.tiny
    assert (y[true / 2 > info.max] == np.inf).all()


@pytest.mark.parametrize("name", [*BOUNDS, "relu"])
def test_all_instruction_sets_give_the_same_bits(name, x):
    results = []
    for isa in _core.available_isas():
        _core.force_isa(isa)
        results.append(_core.apply(name, x))
        _core.force_isa(None)
    for y in results:
        same(y, results[-1])


def test_tanh_is_odd_and_bounded(isa, x):
    y = _core.apply("tanh", x)
    same(_core.apply("tanh", -x), -y)
    assert np.abs(y).max() == 1
    assert (np.abs(y) <= np.abs(x)).mean() > 0.9  # it lies below x but for the last bit


def test_sigmoid_lies_between_zero_and_one(isa, x):
    y = _core.apply("sigmoid", x)
    assert y.min() == 0
    assert y.max() == 1
    assert not np.signbit(y).any()
    assert (y[exact("sigmoid", x) >= np.finfo(x.dtype).tiny] > 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", BOUNDS)
def test_functions_rise_to_one_unit_in_the_last_place(isa, name, dtype):
    runs = neighbours(dtype)
    runs = np.where(runs[:, :1] > 0, runs, runs[:, ::-1])  # with rising bits a negative number falls
    assert (runs[:, :-1] < runs[:, 1:]).all()
    y = _core.apply(name, runs)
    low, high = y[:, :-1], y[:, 1:]
    unit = np.spacing(np.minimum(np.abs(low), np.abs(high)))
    with np.errstate(invalid="ignore"):  # inf - inf
        assert not (low - high > unit).any()
    y = _core.apply(name, sample(dtype)[::50])
    assert (y[1:] >= y[:-1] * (1 - 2 * np.finfo(dtype).eps * np.sign(y[:-1]))).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values(isa, dtype):
    info, inf, nan = np.finfo(dtype), np.inf, np.nan
    tiny = info.smallest_subnormal
    x = np.array([0.0, -0.0, tiny, -tiny, info.tiny, -info.tiny, info.max, -info.max, inf, -inf, nan], dtype)

    def expect(name, values):
        y = _core.apply(name, x)
        np.testing.assert_array_equal(y, np.array(values, dtype))
        return y

    y = expect("tanh", [0, -0.0, tiny, -tiny, info.tiny, -info.tiny, 1, -1, 1, -1, nan])
    np.testing.assert_array_equal(np.signbit(y[:10]), np.tile([False, True], 5))
    expect("sigmoid", [0.5] * 6 + [1, 0, 1, 0, nan])
    expect("exp", [1] * 6 + [inf, 0, inf, 0, nan])
    expect("relu", [0, 0, tiny, 0, info.tiny, 0, info.max, 0, inf, 0, nan])


@pytest.mark.parametrize("name", [*BOUNDS, "relu"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_length_at_every_alignment_gives_the_same_bits(isa, name, dtype):
    """A vector loop has a tail; what lies before and after the array must neither matter nor change."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=70).astype(dtype) * 3
    whole = _core.apply(name, x)
    same(whole, np.array([_core.apply(name, one) for one in x[:, None]]).ravel())
    for offset in range(17):
        for n in range(71):
            room = np.full(offset + n + 17, np.nan, dtype)
            room[offset : offset + n] = x[:n]
            before = room.tobytes()
            same(_core.apply(name, room[offset : offset + n]), whole[:n])
            assert room.tobytes() == before


# ------------------------------------------------------------------------------- tails inside a layer


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["hidden", "inputs", "projection"])
def test_every_width_from_1_to_70_is_right_and_keeps_to_its_place(isa, kind, dtype):
    """y, hn and cn lie in larger arrays at an odd place, and what surrounds them must stay as it was."""
    for n in range(1, 71):
        case = {"hidden": Case(2, 3, 2, n), "inputs": Case(2, 3, n, 3), "projection": Case(2, 3, 2, 71, proj=n)}[kind]
        p = problem(case, dtype)
        rooms = [np.full((2, 3, case.outputs + 19), -7, dtype)]
        y = rooms[0][:, :, n % 17 : n % 17 + case.outputs]
        ends = []
        for width in (case.outputs, case.H):
            rooms.append(np.full(3 * width + 40, -7, dtype))
            ends.append(rooms[-1][n % 17 : n % 17 + 3 * width].reshape(1, 3, width))
        p.layer()._packed().forward(p.x, p.state, y, tuple(ends))
        theirs_y, theirs_state, _ = p.reference()
        for ours, theirs in ((y, theirs_y), (ends[0], theirs_state[0]), (ends[1], theirs_state[1])):
            assert distance(ours, theirs) <= bound(2, dtype), n
            ours[...] = -7
        for room in rooms:
            assert (room == -7).all(), n


def test_a_layer_flushes_subnormals_and_apply_does_not(isa):
    """What docs/numerics.md says of the denormal mode: inside calls only."""
    p = problem(Case(1, 1, 1, 1, bias=False), "float32")
    layer = p.layer()
    layer.load_state_dict({"weight_ih_l0": np.zeros((4, 1)), "weight_hh_l0": np.zeros((4, 1))})
    tiny = np.float32(1e-40)
    assert _core.apply("tanh", np.array([tiny]))[0] == tiny
    _, (_, cn) = layer(np.zeros((1, 1, 1)), (np.zeros((1, 1, 1)), np.full((1, 1, 1), tiny)))
    assert cn[0, 0, 0] == 0
    _, (_, cn) = layer(np.zeros((1, 1, 1)), (np.zeros((1, 1, 1)), np.full((1, 1, 1), 4e-38, np.float32)))
    assert cn[0, 0, 0] == np.float32(4e-38) / 2
