"""The forward pass against the reference: every cell, instruction set, precision and feature; every kind of input."""

import warnings

import numpy as np
import pytest
from grids import (
    DTYPES,
    FEATURES,
    ISAS,
    LAYERS,
    STACK,
    WIDE,
    Case,
    as_tuple,
    bound,
    distance,
    present,
    problem,
    same,
    wider_than_double,
)

import fastlstm as fl
from fastlstm import _core, reference, reference_time, variants
from fastlstm.recurrent import Recurrent

WIDTHS = [(1, 1), (2, 7), (7, 8), (8, 15), (15, 16), (16, 17), (17, 33), (33, 65), (65, 100), (100, 2), (1, 33)]
LENGTHS, ROWS = (1, 2, 7, 33), (1, 2, 5, 9, 17)


def check(ours, theirs, steps, dtype):
    """y and the state within the contract of docs/numerics.md."""
    pairs = zip(("y", "hn", "cn"), (ours[0], *as_tuple(ours[1])), (theirs[0], *as_tuple(theirs[1])), strict=False)
    for name, a, b in pairs:
        assert a.dtype == dtype
        scale = max(np.abs(theirs[0]).max(initial=0), np.abs(b).max(initial=0)) if name == "hn" else None
        assert distance(a, b, scale) <= bound(steps, dtype), name


def test_every_cell_of_the_engine_has_a_layer_a_row_and_a_reference():
    layers = [cls for cls in vars(fl).values() if isinstance(cls, type) and issubclass(cls, Recurrent)]
    assert _core.cells() == variants.FAMILY
    assert {cls.cell for cls in layers} == set(reference_time.CELLS) == set(variants.FAMILY) >= set(LAYERS)


def test_every_instruction_set_of_the_machine_is_one_that_is_tested():
    assert set(_core.available_isas()) <= set(ISAS)


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inputs, hidden", WIDTHS)
def test_all_widths_are_within_the_contract(isa, inputs, hidden, dtype, cell):
    layer = problem(Case(1, 1, inputs, hidden, cell=cell), dtype).layer()
    for T in LENGTHS:
        for B in ROWS:
            p = problem(Case(T, B, inputs, hidden, cell=cell), dtype)
            check(layer(p.x, **p.given), p.reference(), T, dtype)
    assert layer._packed().isa == isa


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FEATURES)
def test_all_features_are_within_the_contract(isa, name, dtype):
    p = problem(FEATURES[name], dtype)
    check(p.layer()(p.x, **p.given), p.reference(), p.case.T, dtype)


def test_a_call_of_a_subclass_runs_its_own_forward():
    class Doubled(LAYERS["lstm"]):
        def forward(self, x, *args, **options):
            y, *rest = super().forward(x, *args, **options)
            return 2 * y, *rest

    p = problem(Case(), "float32")
    layer = Doubled(p.case.I, p.case.H, rng=p.seed)
    for _ in range(2):
        same(layer(p.x, p.state)[0], 2 * p.layer()(p.x, p.state)[0])


@wider_than_double
@pytest.mark.parametrize("name", FEATURES)
def test_double_is_within_the_contract_of_extended_precision(isa, name):
    p = problem(FEATURES[name], "float64")
    theirs = p.reference(WIDE)
    assert theirs[0].dtype == WIDE
    check(p.layer()(p.x, **p.given), theirs, p.case.T, "float64")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FEATURES)
def test_training_gives_the_bits_of_inference(name, dtype):
    p = problem(FEATURES[name], dtype)
    layer = p.layer()
    plain = layer(p.x, **p.given)
    same(layer.forward(p.x, cache=True, **p.given)[:2], plain)
    same(layer.forward(p.x, trace=True, **p.given)[:2], plain)
    same(layer(p.x, **p.given), plain)  # packed again, with what backward needs
    same(layer(p.x, **p.given), plain)  # and by the short way, where there is one
    same(layer.forward(p.x, **p.given), plain)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FEATURES)
def test_the_trace_is_that_of_the_reference(isa, name, dtype):
    p = problem(FEATURES[name], dtype)
    ours = p.layer()(p.x, trace=True, **p.given)[2]
    theirs = reference.trace(p.reference()[2])
    for field, b in theirs._asdict().items():
        for one, other in zip(getattr(ours, field), b, strict=True):
            assert distance(one, other) <= bound(p.case.T, dtype), field


@pytest.mark.parametrize("kind", [fl.LSTM, fl.GRU, fl.RNN, fl.DepthGatedLSTM, fl.ClockworkRNN, fl.LSTM1997])
def test_a_trace_has_a_list_over_layers_whatever_their_number(kind):
    x = np.ones((5, 3, 4), np.float32)
    sizes = (8, 1), (8, 2), ([8], 1), *([([8, 8], 2), ([8, 16], 2)] if kind is not fl.DepthGatedLSTM else [])
    for hidden, layers in sizes:
        trace = kind(4, hidden, num_layers=layers, rng=0)(x, trace=True)[2]
        for field in trace:
            assert (type(field), len(field), field[-1].shape[:2]) == (list, layers, (5, 3))
    two = kind(4, 8, num_layers=1, bidirectional=True, rng=0)(x, trace=True)[2]
    assert [len(field) for field in two] == [2] * len(two)
    inside = fl.Sequential(fl.Reverse(kind(4, 8, num_layers=1, rng=0)), fl.Linear(8, 2))(x, trace=True)[2]
    assert [len(field) for field in inside] == [1] * len(inside)


def test_the_trace_comes_in_the_layout_of_x():
    p = problem(Case(T=4, B=3), "float32")
    layer = p.layer()
    trace = layer(p.x, trace=True)[2]
    first = layer.__class__(6, 9, batch_first=True, rng=p.seed)(p.x.swapaxes(0, 1), trace=True)[2]
    alone = layer(p.x[:, 1], trace=True)[2]
    for k, [field] in enumerate(trace):
        assert field.shape == (4, 3, 9)
        same(first[k][0].swapaxes(0, 1), field)
        same(alone[k][0], field[:, 1])


# ------------------------------------------------------------------------------------------ layouts of a call


@pytest.mark.parametrize("name", ["plain", "everything"])
def test_batch_first_only_turns_the_arrays(name):
    p = problem(Case(T=4, B=3) if name == "plain" else FEATURES[name], "float32")
    y, state = p.layer()(p.x, **p.given)
    given = p.given | present(reset=None if p.reset is None else p.reset.T)
    layer = p.layer(batch_first=True)
    for x in (p.x.swapaxes(0, 1), np.ascontiguousarray(p.x.swapaxes(0, 1))):
        for _ in range(2):
            y2, state2 = layer(x, **given)
            same(y2.swapaxes(0, 1), y)
            same(state2, state)
            assert y2.flags.c_contiguous


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("case", [Case(B=1, reset=True, lengths=(4,)), STACK._replace(B=1)])
def test_unbatched_is_a_batch_of_one_without_its_axis(case, batch_first):
    p = problem(case, "float32")
    y, state = p.layer()(p.x, **p.given)
    alone = present(
        state=tuple(s[:, 0] for s in p.state), lengths=None if p.lengths is None else p.lengths[0],
        reset=None if p.reset is None else p.reset[:, 0],
    )
    layer = p.layer(batch_first=batch_first)
    for _ in range(2):
        y1, state1 = layer(p.x[:, 0], **alone)
        same(y1, y[:, 0])
        same(state1, tuple(s[:, 0] for s in state))


@pytest.mark.parametrize("case", [Case(), STACK, STACK._replace(bidirectional=False)])
@pytest.mark.parametrize("T, B", [(0, 3), (4, 0), (0, 0)])
def test_nothing_to_do_returns_the_state_it_was_given(case, T, B):
    p = problem(case._replace(T=T, B=B), "float32")
    layer = p.layer()
    y, state, trace, cache = layer.forward(p.x, trace=True, cache=True, **p.given)
    assert y.shape == (T, B, p.case.outputs)
    same(state, p.state)
    for _ in range(2):
        same(layer(p.x, **p.given), (y, p.state))
    assert trace.i[0].shape == (T, B, p.case.H)
    dx, dstate, grads = layer.backward(p.dy, cache, p.dstate)
    assert dx.shape == p.x.shape
    same(dstate, p.dstate)
    assert not any(g.any() for g in grads.values())
    y, (hn, cn) = layer(p.x)
    assert not hn.any()
    assert not cn.any()
    same(layer(p.x), (y, (hn, cn)))


def test_half_a_state_leaves_the_other_half_zero():
    p = problem(Case(), "float32")
    layer, (h0, c0) = p.layer(), p.state
    same(layer(p.x, (h0, None)), layer(p.x, (h0, np.zeros_like(c0))))
    same(layer(p.x, (h0, None)), layer(p.x, [h0, np.zeros_like(c0)]))
    same(layer(p.x, [None, c0]), layer(p.x, (np.zeros_like(h0), c0)))


# ------------------------------------------------------------------------------------------ kinds of input


class OnlyDlpack:
    """What another library's array shows of itself at the least."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


class OnlyArray:
    def __init__(self, array):
        self._array = array

    def __array__(self, dtype=None, copy=None):
        return np.array(self._array, dtype)


def strided(array, steps):
    """The same numbers with other strides: every second or third element of a larger array, or backwards."""
    large = np.full([n * abs(k) for n, k in zip(array.shape, steps, strict=True)], np.nan, array.dtype)
    view = large[tuple(slice(None, None, k) for k in steps)]
    view[...] = array
    return view


KINDS = {
    "read-only": lambda a: a,
    "every second feature": lambda a: strided(a, (1, 1, 2)),
    "every second row": lambda a: strided(a, (1, 2, 1)),
    "every third step": lambda a: strided(a, (3, 1, 1)),
    "backwards in time": lambda a: strided(a, (-1, 1, 1)),
    "backwards rows": lambda a: strided(a, (1, -2, 1)),
    "backwards everything": lambda a: strided(a, (-1, -1, -1)),
    "Fortran order": np.asfortranarray,
    "rows first": lambda a: np.ascontiguousarray(a.swapaxes(0, 1)).swapaxes(0, 1),
    "unaligned": lambda a: np.frombuffer(b"." + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "lists": lambda a: a.tolist(),
    "double": lambda a: a.astype(np.float64),
    "extended": lambda a: a.astype(WIDE),
    "masked array": np.ma.array,
    "__array__": OnlyArray,
    "__dlpack__": lambda a: OnlyDlpack(a.copy()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_form_of_the_same_numbers_gives_the_same_bits(kind):
    p = problem(Case(T=7, B=5, I=17, layers=2, reset=True, lengths="ragged"), "float32")
    layer, turn = p.layer(), KINDS[kind]
    expected = layer(p.x, **p.given)
    x, state = turn(p.x), tuple(turn(s) for s in p.state)
    given = p.given | {"state": state, "lengths": list(p.lengths), "reset": p.reset.tolist()}
    before = bytes(np.asarray(x).data) if hasattr(x, "data") else None
    same(layer(x, **given), expected)
    same(layer.forward(x, cache=True, **given)[:2], expected)
    same(layer(x, state), layer.forward(p.x, p.state))
    if before is not None:
        assert bytes(np.asarray(x).data) == before


@pytest.mark.parametrize("narrow", [np.float16, np.int8, np.int64, np.uint8, np.bool_])
def test_numbers_of_another_type_are_converted(narrow):
    p = problem(Case(), "float32")
    layer = p.layer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        x = (3 * p.x).astype(narrow)
    same(layer(x), layer(x.astype(np.float32)))


def test_a_broadcast_input_is_read_where_it_is():
    p = problem(Case(T=7, B=5), "float32")
    layer, row = p.layer(), p.x[:1, :1]
    x = np.broadcast_to(row, p.x.shape)
    same(layer(x), layer(np.ascontiguousarray(x)))


@pytest.mark.parametrize("grad", [False, True])
def test_torch_tensors_are_taken_as_they_are(grad):
    torch = pytest.importorskip("torch")
    p = problem(Case(T=7, B=5, reset=True, lengths="ragged"), "float32")
    layer = p.layer()
    x = torch.tensor(p.x, requires_grad=grad)
    state = tuple(torch.tensor(s, requires_grad=grad) for s in p.state)
    given = {"lengths": torch.tensor(p.lengths), "reset": torch.tensor(p.reset)}
    expected = layer(p.x, **p.given)
    same(layer(x, state, **given), expected)
    same(layer(x.transpose(0, 1).contiguous().transpose(0, 1), state, **given), expected)
    same(layer(x.double(), state, **given), expected)
    np.testing.assert_array_equal(x.detach().numpy(), p.x)
