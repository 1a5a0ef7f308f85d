"""The whole family forward: outputs, states and traces of every variant against the twins."""

import numpy as np
import pytest
from family import (
    ACTIVATED,
    CLASSES,
    ROLES,
    SHAPES,
    SOME,
    TABLE,
    VARIANTS,
    agree,
    near,
    problem,
    with_activation,
)
from grids import DTYPES, Case, distance, same

import fastlstm as fl
from fastlstm import params, reference
from fastlstm.variants import ACTIVATIONS, FAMILY, OPTIONS, variant

ACTIVATION_SHAPES = (
    Case(T=5, B=3, I=6, H=17),
    Case(T=4, B=2, H=6, layers=2, bidirectional=True, lengths="ragged", reset=True),
)


def check(p):
    layer = p.layer()
    y, state, trace, cache = layer.forward(p.x, trace=True, cache=True, **p.given)
    agree(p, y, state)
    assert trace._fields == p.v.traced == p.answer.trace._fields
    assert type(trace).__name__ == params.trace_of(p.v).__name__
    for field, ours, theirs in zip(trace._fields, trace, p.answer.trace, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert one.dtype == p.dtype, field
            near(one, other, p.bound, f"trace of {field}")
    assert cache.nbytes > 0 or not p.x.size
    same(layer(p.x, **p.given), (y, state))
    same(layer.forward(p.x, trace=True, **p.given)[:2], (y, state))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", VARIANTS)
def test_outputs_states_and_traces_are_the_twins(isa, name, dtype):
    for shape, case in SHAPES.items():
        try:
            check(problem(name, case, dtype))
        except AssertionError as error:
            raise AssertionError(f"{shape}: {error}") from error


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_in_every_role_is_the_twins(isa, activation, dtype):
    for name in with_activation(activation):
        for case in ACTIVATION_SHAPES:
            try:
                check(problem(name, case, dtype))
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from error


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SOME)
def test_every_number_of_units_is_the_twins(isa, name, dtype):
    for hidden in (*range(1, 20), 31, 32, 47, 63, 64, 65):
        for inputs, rows in ((3, 1), (17, 2), (3, 7)):
            p = problem(name, Case(T=2, B=rows, I=inputs, H=hidden), dtype)
            agree(p, *p.layer()(p.x, p.state))


# ---------------------------------------------------------------------------- what the tables above must hold


def test_the_tables_hold_every_option_of_every_cell():
    tried = {(options.get("cell", "lstm"), name) for options in TABLE.values() for name in options}
    assert tried >= {(cell, option) for cell, options in OPTIONS.items() for option in options}
    assert {cell for cell, _ in tried} | {"lstm"} == set(FAMILY) == set(CLASSES) == set(ROLES)
    assert {problem(name, Case(), "float64").cell for name in SOME} == set(FAMILY)
    assert len(ACTIVATED) == 12 * sum(map(len, ROLES.values()))


@pytest.mark.parametrize("name", TABLE)
def test_options_change_what_the_twin_says(name):
    """Else a test against it proves nothing of the option."""
    p = problem(name, Case(T=9, B=4, H=12, layers=2), "float64")
    # without these there would be other tensors, and "gradient" is of backward
    apart = {"peephole", "without", "coupled", "gate_recurrence", "layer_norm", "block_size", "biased", "gradient"}
    for option in set(p.v.options) & set(p.options) - apart:
        fewer = variant(p.cell, **{key: value for key, value in p.options.items() if key != option})
        y, *_ = reference.forward(p.weights, p.x, p.states, cell=fewer, num_layers=2, proj_size=p.proj)
        assert distance(y, p.answer.y) > 1e-3, option


# ------------------------------------------------------------------------------------ one thing said in two ways


def layers_with(weights, *builders):
    for build in builders:
        layer = build()
        layer.load_state_dict(weights)
        yield layer


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_said_in_two_ways_gives_the_same_bits(isa, dtype):
    p = problem("rnn", Case(T=6, B=3, I=5, H=18), dtype)
    one, other = layers_with(
        p.weights, lambda: fl.RNN(5, 18, nonlinearity="relu", dtype=dtype),
        lambda: fl.RNN(5, 18, activations=("relu",), dtype=dtype),
    )
    same(one(p.x, p.state), other(p.x, p.state))
    p = problem("lstm", Case(T=6, B=3, I=5, H=18), dtype)
    one, other = layers_with(
        p.weights, lambda: fl.LSTM(5, 18, dtype=dtype),
        lambda: fl.LSTM(5, 18, activations=("sigmoid", "tanh", "tanh"), clip=None, peephole="", dtype=dtype),
    )
    same(one(p.x, p.state), other(p.x, p.state))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_bound_that_is_never_reached_and_weights_of_zero_change_nothing(isa, dtype):
    p = problem("lstm", Case(T=6, B=3, I=5, H=18, layers=2), dtype)
    for options in ({"clip": 100.0}, {"cell_clip": 100.0}, {"peephole": "ifo"}, {"gate_recurrence": True}):
        layer = fl.LSTM(5, 18, 2, dtype=dtype, **options)
        extra = {name: np.zeros_like(w) for name, w in layer.state_dict().items() if name not in p.weights}
        layer.load_state_dict({**p.weights, **extra})
        gates = (np.ones((2, 3, 54), dtype),) if "gate_recurrence" in options else ()
        y, state = layer(p.x, p.state + gates)
        agree(p, y, state[:2])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_clockwork_whose_units_all_tick_is_an_rnn(isa, dtype):
    p = problem("clockwork, all ones", Case(T=6, B=3, I=5, H=18, layers=2), dtype)
    rnn = fl.RNN(5, 18, 2, dtype=dtype)
    rnn.load_state_dict(p.weights)
    y, h = rnn(p.x, p.state[0])
    agree(p, y, (h, p.answer.state[1].astype(dtype)))


# ----------------------------------------------------------------------------------------- not finite, not dense


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*VARIANTS, *(name for name in ACTIVATED if name.startswith(("rnn", "lstm,")))])
def test_a_nan_goes_where_the_twins_nan_goes(name, dtype):
    p = problem(name, Case(T=6, B=4, I=5, H=18), dtype)
    layer, x = p.layer(), p.x.copy()
    before = layer(x, p.state)[0]
    x[2:, 1] = np.nan  # from here on: not every unit of a clockwork ticks at step 2
    y, _ = layer(x, p.state)
    theirs, _, _ = reference.forward(p.weights, x, p.states, cell=p.v, proj_size=p.proj)
    assert np.isnan(theirs).any()
    np.testing.assert_array_equal(np.isnan(y), np.isnan(theirs))
    rows = [0, 2, 3]
    same(y[:, rows], before[:, rows])
    same(y[:2], before[:2])


@pytest.mark.parametrize("name", SOME)
def test_any_form_of_the_same_numbers_gives_the_same_bits(name):
    p = problem(name, Case(T=5, B=3, I=6, H=18), "float32")
    layer = p.layer()
    y, state = layer(p.x, p.state)
    for turn in (lambda a: a.tolist(), np.asfortranarray, lambda a: np.repeat(a, 2, axis=1)[:, ::2]):
        same(layer(turn(p.x), p.state), (y, state))
    first = p.layer(batch_first=True)
    turned, last = first(p.x.swapaxes(0, 1), p.state)
    same((np.ascontiguousarray(turned.swapaxes(0, 1)), last), (y, state))
    row = tuple(s[:, 0] for s in p.states)
    alone, last = layer(p.x[:, 0], row if len(row) > 1 else row[0])
    same(alone, y[:, 0])
    for ours, whole in zip(last if len(row) > 1 else [last], state if len(row) > 1 else [state], strict=True):
        same(ours, whole[:, 0])


def test_the_count_of_a_clockwork_is_carried():
    periods = (2, 3, 7)
    p = problem("clockwork 2 3 7", Case(T=50, B=3, I=4, H=9, lengths="ragged", state=False), "float32")
    y, (h, t) = p.layer()(p.x, lengths=p.lengths)
    assert t.shape == (1, 3, 1) and t.dtype == np.float32
    np.testing.assert_array_equal(t[0, :, 0], p.lengths % 42)
    full, _ = p.layer()(p.x)
    for step in range(1, 50):
        for module, period in enumerate(periods):
            units = slice(3 * module, 3 * module + 3)
            if step % period:
                same(full[step, :, units], full[step - 1, :, units])
            else:
                assert (full[step, :, units] != full[step - 1, :, units]).all()
