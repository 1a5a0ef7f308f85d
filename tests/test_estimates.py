"""The time model behind plans: that a plan takes the best pair of split and threads, and what it says of described
machines. No time is taken here.
"""

import functools
import itertools
import math

import pytest
from grids import openmp

import fastlstm as fl
from fastlstm import _core, machine

SPLITS = ("none", "rows", "blocks", "directions")
MOST = 64  # threads

# A machine of 16 virtual cores, as it was measured under AVX-512: with all of them at work each has 0.43 of its speed.
SIXTEEN = {
    "flops_per_ns": (168.0, 84.0), "all_cores_rate": 0.43, "private_bytes_per_ns": 68.0, "private_cache": 1.5 * 2**20,
    "shared_bytes_per_ns": 19.0, "shared_bytes_per_ns_all": 300.0, "wake_ns": 12_000.0, "wake_each_ns": 1500.0,
    "barrier_ns": 600.0, "barrier_all_ns": 1700.0, "cores": 16.0, "sibling_rate": 0.5,
}
MACHINES = {
    "built in": {},
    "two cores": {"cores": 2.0, "barrier_all_ns": 600.0, "shared_bytes_per_ns_all": 90.0},
    "eight cores with siblings": {"cores": 8.0, "barrier_all_ns": 1200.0, "sibling_rate": 0.65},
    "sixteen": SIXTEEN,
    "sixteen of full speed, one fast cache": {
        **SIXTEEN, "all_cores_rate": 1.0, "shared_bytes_per_ns": 134.0, "shared_bytes_per_ns_all": 800.0,
    },
    "sixty-four, two sockets": {
        "cores": 64.0, "all_cores_rate": 0.6, "shared_bytes_per_ns": 28.0, "shared_bytes_per_ns_all": 700.0,
        "barrier_all_ns": 5000.0, "wake_each_ns": 2000.0,
    },
    "slow to wake, quick to meet": {"wake_ns": 90_000.0, "barrier_ns": 100.0, "barrier_all_ns": 150.0},
    "quick to wake, slow to meet": {
        "wake_ns": 1000.0, "wake_each_ns": 50.0, "barrier_ns": 9000.0, "barrier_all_ns": 30_000.0,
    },
}
LAYERS = {
    "lstm 64": lambda: fl.LSTM(64, 64, rng=0),
    "lstm 100": lambda: fl.LSTM(40, 100, rng=0),
    "lstm 512": lambda: fl.LSTM(256, 512, rng=0),
    "lstm, three layers": lambda: fl.LSTM(20, 128, 3, rng=0),
    "lstm, bidirectional": lambda: fl.LSTM(64, 112, 2, bidirectional=True, rng=0),
    "lstm, projection": lambda: fl.LSTM(64, 256, proj_size=70, rng=0),
    "lstm, double": lambda: fl.LSTM(64, 128, dtype="float64", rng=0),
    "lstm, normalised": lambda: fl.LSTM(64, 96, 2, bidirectional=True, layer_norm="gates", rng=0),
    "gru": lambda: fl.GRU(64, 160, rng=0),
    "gru, reset before": lambda: fl.GRU(64, 160, reset_after=False, rng=0),
    "rnn": lambda: fl.RNN(64, 300, rng=0),
    "depth": lambda: fl.DepthGatedLSTM(64, 64, 3, rng=0),
    "clockwork": lambda: fl.ClockworkRNN(32, 64, periods=(1, 2, 4, 8), rng=0),
    "1997": lambda: fl.LSTM1997(32, 64, rng=0),
}
SIZES = [(1, 1), (1, 64), (50, 1), (7, 3), (50, 15), (20, 16), (3, 33), (50, 64), (1000, 16)]


@pytest.fixture
def described():
    """A function that describes the machine: a name of MACHINES, or the constants that differ from the built-in."""
    machine.settle(2)
    yield lambda some: _core.set_machine({**_core.BUILT_IN, **(MACHINES[some] if isinstance(some, str) else some)})
    _core.set_machine(None)


@functools.cache
def packed(name):
    return LAYERS[name]()._packed_for_training()


def pair(model, T, B, threads, **kind):
    found = model.plan(T, B, threads=threads, **kind)
    return found["threads"], found["split"]


def every_pair(model, T, B, **kind):
    """(ns, threads, split) of every way in which the call can be divided among up to MOST threads."""
    ways = itertools.product(SPLITS, range(1, MOST + 1))
    return [(ns, n, split) for split, n in ways if (ns := model.estimate(T, B, split, n, **kind)) > 0]


# ---- the best pair -----------------------------------------------------------------------------------------------


@openmp
@pytest.mark.parametrize("kind", ["forward", "backward", "awake"])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("where", MACHINES)
def test_a_plan_takes_the_best_pair_and_more_threads_never_cost(described, where, name, kind):
    described(where)
    model, kind = packed(name), {} if kind == "forward" else {kind: True}
    for T, B in SIZES:
        ways, before = every_pair(model, T, B, **kind), math.inf
        for limit in range(1, MOST + 1):
            found = model.plan(T, B, threads=limit, **kind)
            ns, threads, split = found["estimate_ns"], found["threads"], found["split"]
            assert threads <= limit
            assert ns == model.estimate(T, B, split, threads, **kind)
            assert ns == min(ns for threads, ns in found["compared"].values())
            best = min(ns for ns, n, _ in ways if n <= limit)
            assert ns <= best * (1 + 1e-12), (T, B, limit, found)
            assert ns <= before
            before = ns
        assert found["work_ns"] == model.estimate(T, B, "none", 1, **kind)


@openmp
def test_no_more_threads_than_the_largest_share_needs(described):
    """Nine to fifteen threads have as many rows to wait for as eight."""
    described({"wake_each_ns": 50.0, "all_cores_rate": 1.0, "barrier_ns": 20_000.0})
    assert [pair(packed("lstm 64"), 50, 16, n)[0] for n in (8, 9, 12, 15, 16)] == [8, 8, 8, 8, 16]


def test_what_cannot_be_divided_has_no_estimate():
    lstm, both, whole = packed("lstm 64"), packed("lstm, bidirectional"), packed("lstm, normalised")
    assert lstm.estimate(5, 3, "rows", 4) == lstm.estimate(5, 3, "none", 2) == lstm.estimate(5, 3, "rows", 1) == 0
    assert lstm.estimate(5, 3, "directions", 2) == both.estimate(5, 3, "directions", 3) == 0
    assert both.estimate(5, 3, "blocks", 2) == 0 < both.estimate(5, 3, "directions", 2)  # a direction each
    assert both.estimate(5, 3, "directions", 2, backward=True) == 0 < both.estimate(5, 3, "blocks", 2, backward=True)
    assert whole.estimate(5, 3, "blocks", 4) == 0 < whole.estimate(5, 3, "directions", 2)
    assert lstm.estimate(5, 300, "rows", 129) == 0  # two on each of 64 cores, and no more
    assert lstm.estimate(-1, 3, "none", 1) == 0


# ---- the formula, by hand ----------------------------------------------------------------------------------------


def lstm_flops(inputs, hidden):
    """Of a step of one row: products, and 60 for every gate of a unit."""
    return 4 * hidden * (2 * (inputs + hidden) + 60)


def test_rows_by_hand(described):
    """Eight rows each of a batch of 128, no barrier; a core is as slow as when all work, and fifteen are woken."""
    described("sixteen")
    step = 8 * lstm_flops(64, 64) / (168 * 0.43)
    assert packed("lstm 64").estimate(50, 128, "rows", 16) == pytest.approx(12_000 + 14 * 1500 + 50 * step)
    described({**SIXTEEN, "private_bytes_per_ns": 1.0})  # then a step waits for its weights
    step = 4 * 64 * 128 * 4 / 0.43
    assert packed("lstm 64").estimate(50, 128, "rows", 16) == pytest.approx(12_000 + 14 * 1500 + 50 * step)


def test_blocks_by_hand(described):
    """Half of the weights each, from the shared cache; half of h from the other one; a barrier a step and two more."""
    described({**SIXTEEN, "private_cache": 131_072.0, "flops_per_ns": (1000.0, 1000.0)})
    multiplying = 6 * lstm_flops(256, 512) / 2 / 1000 * (1 + (1 / 0.43 - 1) / 4)
    step = math.hypot(multiplying, 4 * 512 * (256 + 512) * 4 / 2 / 19) + 6 * 512 * 4 / 2 / 19 + 600
    assert packed("lstm 512").estimate(50, 6, "blocks", 2) == pytest.approx(12_000 + 50 * step + 2 * 600)
    assert packed("lstm 512").estimate(50, 6, "blocks", 2, awake=True) == pytest.approx(600 + 50 * step + 2 * 600)


def test_backward_by_hand(described):
    """The recurrence by rows, the products over time by all: of dx, of both weights' gradients; chunks of 512 rows."""
    described("sixteen")
    rate = 168 * 0.43
    step = 4 * 4 * 64 * (2 * 64 + 60) / rate + 64 * 4 * 64 * 2 * (64 + 64 + 64) / 16 / rate
    chunks = math.ceil(50 / (512 // 64))
    expected = 12_000 + 14 * 1500 + 50 * step + chunks * 2 * 1700
    assert packed("lstm 64").estimate(50, 64, "rows", 16, backward=True) == pytest.approx(expected)


def test_directions_by_hand(described):
    described("sixteen")
    slower = 1 + (1 / 0.43 - 1) / 4
    steps = 50 * 8 * (lstm_flops(64, 112) + lstm_flops(224, 112)) / 168 * slower
    assert packed("lstm, bidirectional").estimate(50, 8, "directions", 2) == pytest.approx(12_000 + steps + 2 * 600)


def test_halves_by_hand(described):
    """Four workers take both directions at once, two of them each; a barrier of two in every step, of four at the end.
    """
    described("sixteen")
    four, slower = 600 + 1100 / 3, 1 + (1 / 0.43 - 1) / 2
    step = 8 * lstm_flops(64, 128) / 2 / 168 * slower + 8 * 128 * 4 / 2 / 19 + 600
    model = fl.LSTM(64, 128, bidirectional=True, rng=0)._packed()
    assert model.estimate(50, 8, "blocks", 4) == pytest.approx(12_000 + 2 * 1500 + 50 * step + 2 * 600 + four)


def test_few_rows_by_hand(described):
    """A step of two rows waits for the recurrent weights; input products are made for many steps, at the full rate."""
    described("sixteen")
    step = 4 * 64 * 64 * 4 / 68 + 2 * 4 * 64 * 64 * 2 / 168
    assert packed("lstm 64").estimate(50, 2, "none", 1) == pytest.approx(50 * step)
    described({**SIXTEEN, "private_bytes_per_ns": 1000.0})
    step = 2 * lstm_flops(64, 64) / 168
    assert packed("lstm 64").estimate(50, 2, "none", 1) == pytest.approx(50 * step)


def test_one_step_by_hand(described):
    """Each layer's weights would stay in the private cache, but not those of all until the next call."""
    described({**SIXTEEN, "private_cache": 1e6})
    weights = 4 * 128 * (20 + 128 + 2 * (128 + 128))
    expected = math.hypot(lstm_flops(20, 128) / 168, 4 * 128 * (20 + 128) * 4 / 19)
    expected += 2 * math.hypot(lstm_flops(128, 128) / 168, 4 * 128 * (128 + 128) * 4 / 19)
    assert packed("lstm, three layers").estimate(1, 1, "none", 1) == pytest.approx(expected)
    described({**SIXTEEN, "private_cache": 2e6})
    assert packed("lstm, three layers").estimate(1, 1, "none", 1) == pytest.approx(weights * 4 / 68)


def test_siblings_by_hand(described):
    """Two on a core have half of its speed, and half of its cache, in which the weights do not stay."""
    described({
        "cores": 2.0, "all_cores_rate": 1.0, "private_cache": 131_072.0, "private_bytes_per_ns": 1.0,
        "shared_bytes_per_ns": 0.5, "shared_bytes_per_ns_all": 1e5,
    })
    model = packed("lstm 64")
    assert model.estimate(10, 64, "rows", 2) == pytest.approx(12_000 + 10 * 131_072)
    multiplying = 64 / 4 * lstm_flops(64, 64) / _core.BUILT_IN["flops_per_ns"][0]
    four = math.hypot(multiplying, 131_072 / 0.5) * 2
    assert model.estimate(10, 64, "rows", 4) == pytest.approx(12_000 + 2 * 1500 + 10 * four)
    described({"cores": 2.0, "all_cores_rate": 0.8, "sibling_rate": 0.7})
    step = 64 / 4 * lstm_flops(64, 64) / 100 / 0.8 / 0.7
    assert model.estimate(10, 64, "rows", 4) == pytest.approx(12_000 + 2 * 1500 + 10 * step)


@pytest.mark.parametrize("name, backward, steps, chunks", [
    ("lstm 64", False, 1, 2), ("lstm, projection", False, 2, 2), ("gru, reset before", False, 2, 2),
    ("gru", False, 1, 2), ("depth", False, 1 + 2 + 2, 3 * 2), ("lstm, three layers", False, 3, 3 * 2),
    ("rnn", False, 1, 2),
    ("lstm 64", True, 2, 2), ("lstm, projection", True, 4, 2), ("gru, reset before", True, 4, 2), ("gru", True, 2, 2),
    ("depth", True, 3 * 2, 3 * 2),
])
def test_how_often_two_workers_meet(described, name, backward, steps, chunks):
    """In a step and beyond, in all layers; a call of ten steps of eight rows is one chunk."""
    found = []
    for barrier in (600.0, 1600.0):
        described({"barrier_ns": barrier, "barrier_all_ns": barrier})
        found.append(packed(name).estimate(10, 8, "blocks", 2, backward=backward))
    assert (found[1] - found[0]) / 1000 == pytest.approx(10 * steps + chunks)


@pytest.mark.parametrize("name, backward, values", [
    ("lstm 64", False, 64), ("lstm, projection", False, 70 + 256), ("gru, reset before", False, 2 * 160),
    ("lstm 64", True, 4 * 64), ("rnn", True, 300),
])
def test_what_two_workers_read_of_each_other(described, name, backward, values):
    """Half of the values of a row that both need, through the shared cache."""
    found = []
    for rate in (10.0, 20.0):
        described({"private_cache": 16e6, "shared_bytes_per_ns": rate})
        found.append(packed(name).estimate(10, 8, "blocks", 2, backward=backward))
    assert found[0] - found[1] == pytest.approx(10 * 8 * values * 4 / 2 * (1 / 10 - 1 / 20))


@pytest.mark.skipif(_core.isa() not in ("avx512", "avx2"), reason="with short vectors there are blocks enough")
def test_the_product_of_a_backward_step_has_few_shares(described):
    """64 units are one or two blocks of dh, so four workers do not read a quarter each."""
    described({"private_bytes_per_ns": 1.0, "flops_per_ns": (1000.0, 1000.0)})
    weights = 4 * 64 * 64 * 4
    assert packed("lstm 64").estimate(50, 8, "blocks", 4) < 50 * weights  # forward: a quarter of both panels
    assert packed("lstm 64").estimate(50, 8, "blocks", 4, backward=True) > 50 * weights / 2


def test_a_truncated_gradient_takes_no_recurrent_product(described):
    described("sixteen")
    full = fl.LSTM1997(32, 64, gradient="full", rng=0)._packed_for_training()
    assert packed("1997").estimate(10, 8, "none", 1, backward=True) < full.estimate(10, 8, "none", 1, backward=True)


# ---- decisions ---------------------------------------------------------------------------------------------------


@openmp
@pytest.mark.parametrize("where", ["built in", "sixteen", "sixty-four, two sockets"])
def test_many_rows_of_few_units_are_shared_by_rows(described, where):
    """64 units have four blocks under AVX-512: four threads and a barrier a step, where 16 need none."""
    described(where)
    for limit in (16, 64):
        threads, split = pair(packed("lstm 64"), 50, 64, limit)
        assert (threads >= 16, split) == (True, "rows")


@openmp
def test_a_row_less_is_a_thread_less(described):
    """What needs whole rows is shared by rows alone: 15 rows keep 15 threads busy, not one."""
    model = fl.LSTM(512, 512, layer_norm="gates", rng=0)._packed()
    described({**SIXTEEN, "private_cache": 16e6, "private_bytes_per_ns": 1000.0})
    assert [pair(model, 1000, B, 16) for B in (14, 15, 16)] == [(14, "rows"), (15, "rows"), (16, "rows")]
    described("built in")  # where all read all weights from the shared cache, fewer threads are as fast
    found = {B: model.plan(1000, B, threads=16) for B in (15, 16)}
    assert found[15]["split"] == found[16]["split"] == "rows"
    assert 1 < found[15]["threads"] <= found[16]["threads"] + 1
    assert found[15]["estimate_ns"] <= found[16]["estimate_ns"]


@openmp
def test_one_row_is_shared_among_as_many_as_pay(described):
    """T100 B1 H256: by 16 threads or by fewer, but not left to one."""
    model = fl.LSTM(256, 256, rng=0)._packed()
    for where in MACHINES:
        described(where)
        if where != "quick to wake, slow to meet":
            assert pair(model, 100, 1, 16)[0] > 1, where
    described({**SIXTEEN, "barrier_all_ns": 6000.0})  # with dear barriers by fewer
    assert 1 < pair(model, 100, 1, 16)[0] < 16


@openmp
def test_threads_rise_with_the_limit(described):
    described("built in")
    found = [pair(fl.LSTM(128, 128, rng=0)._packed(), 50, 64, n) for n in (16, 24, 32, 64)]
    assert [threads for threads, _ in found] == sorted(threads for threads, _ in found)
    assert found[0] == (16, "rows")


@openmp
@pytest.mark.parametrize("T, B, H, expected", [
    (50, 64, 256, {1: (1, "none"), 2: (2, "blocks"), 16: (16, "blocks"), 64: (16, "blocks")}),
    (50, 1, 1024, {1: (1, "none"), 2: (2, "blocks"), 16: (16, "blocks"), 64: (16, "blocks")}),
    (100, 1, 256, {1: (1, "none"), 2: (2, "blocks"), 16: (16, "blocks"), 64: (16, "blocks")}),
    (1, 1, 64, {16: (1, "none"), 64: (1, "none")}),
])
def test_decisions_on_sixteen_cores(described, T, B, H, expected):
    described("sixteen")
    model = fl.LSTM(H, H, rng=0)._packed()
    assert {n: pair(model, T, B, n) for n in expected} == expected


@openmp
def test_workers_that_wait_are_used_for_less_work(described):
    described("sixteen")
    model = packed("lstm 512")
    assert pair(model, 1, 1, 16) != pair(model, 1, 1, 16, awake=True)
    assert pair(model, 1, 1, 16, awake=True)[1] == "blocks"


# ---- beside what was measured ------------------------------------------------------------------------------------

# T, B, H -> ms of a call of an LSTM with as many inputs as units, with 1, 2, 4, 8 and 16 threads on that machine
MEASURED = {
    (50, 64, 256): (22.8, 16.3, 9.0, 6.0, 3.3),
    (20, 64, 512): (37.4, 24.9, 13.4, 8.9, 4.8),
    (50, 1, 1024): (36.7, 19.7, 8.9, 7.0, 2.2),
    (10, 64, 1024): (102, 55, 25, 19, 9.5),
    (100, 1, 256): (1.4, 0.9, 0.5, 0.4),
}


@openmp
@pytest.mark.parametrize("T, B, H", MEASURED)
def test_estimates_are_near_what_was_measured(described, T, B, H):
    """Within a factor of 1.6. Another instruction set than that of the measurement makes the input products of one row
    apart, which is 0.3 ms more of the smallest call: a factor of 1.8."""
    described("sixteen")
    model = fl.LSTM(H, H, rng=0)._packed()
    within = 1.6 if (B, H) != (1, 256) or _core.isa() == "avx512" else 1.8
    for threads, ms in zip((1, 2, 4, 8, 16), MEASURED[T, B, H], strict=False):
        found = model.plan(T, B, threads=threads)["estimate_ns"] / 1e6
        assert 1 / within < found / ms < within, (threads, found, ms)
