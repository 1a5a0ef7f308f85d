"""Memory: nothing written outside the outputs, nothing kept that is not needed, sizes as the documents give them."""

import ctypes
import gc
import os
import tracemalloc
import weakref

import numpy as np
import pytest
from grids import FEATURES, STACK, Case, flat, problem, same, says

import fastlstm as fl

MARK = -7.0
statm = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc here")


def resident():
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def guarded(shape, dtype, offset):
    """(room, array): an array of `shape`, filled with NaN, in a larger room filled with MARK."""
    size = int(np.prod(shape))
    room = np.full(size + 2 * offset + 64, MARK, dtype)
    array = room[offset : offset + size].reshape(shape)
    array[...] = np.nan
    return room, array


def left_alone(room, array):
    array[...] = MARK
    return (room == MARK).all()


# ----------------------------------------------------------------------------------------- what is written


@pytest.mark.parametrize("name", FEATURES)
def test_forward_writes_its_outputs_wholly_and_nothing_else(isa, name):
    p = problem(FEATURES[name], "float32")
    c, layer = p.case, p.layer()
    slots = c.layers * c.directions
    shapes = [(c.T, c.B, c.outputs), (slots, c.B, c.proj or c.H), (slots, c.B, c.H)]
    lengths = None if p.lengths is None else np.asarray(p.lengths, np.int64)
    reset = None if p.reset is None else p.reset.astype(np.uint8)
    expected_y, expected_state = layer(p.x, **p.given)
    for offset in (1, 5, 16):
        rooms = [guarded(shape, np.float32, offset) for shape in shapes]
        (_, y), *staten = rooms
        layer._packed().forward(p.x, p.state or (None, None), y, tuple(a for _, a in staten), lengths, reset)
        same(rooms[0][1], expected_y)
        same((rooms[1][1], rooms[2][1]), expected_state)
        assert all(left_alone(room, array) for room, array in rooms)


@pytest.mark.parametrize("name", FEATURES)
def test_backward_writes_its_outputs_wholly_and_nothing_else(isa, name):
    p = problem(FEATURES[name], "float32")
    layer = p.layer()
    kept = layer.forward(p.x, cache=True, **p.given)[-1]
    expected = flat(layer.backward(p.dy, kept, p.dstate))
    weights, rooms, table = layer.state_dict(), {}, []
    for key, shape in (("x", p.x.shape), ("h0", p.dstate[0].shape), ("c0", p.dstate[1].shape)):
        rooms[key] = guarded(shape, np.float32, 3)
    for end in layer._spec.names:
        for kind in ("weight_ih", "weight_hh", "weight_hr"):
            if f"{kind}_{end}" in weights:
                rooms[f"{kind}_{end}"] = guarded(weights[f"{kind}_{end}"].shape, np.float32, 3)
        rooms[f"bias_ih_{end}"] = guarded((4 * p.case.H,), np.float32, 3)
        kinds = ("weight_ih", "weight_hh", "bias_ih", *(["weight_hr"] if p.case.proj else []))
        table.append({kind: rooms[f"{kind}_{end}"][1] for kind in kinds})
    dx, dh0, dc0 = (rooms[key][1] for key in ("x", "h0", "c0"))
    kept.core.model.backward(kept.core, p.dy, p.dstate, dx, (dh0, dc0), table)
    for key, (room, array) in rooms.items():
        if key in expected:
            same(array, expected[key])
        assert not np.isnan(array).any(), key
        assert left_alone(room, array), key


@pytest.mark.parametrize("order", ["C", "F"])
def test_inputs_are_never_written(order):
    p = problem(STACK._replace(lengths="ragged", reset=True), "float32")
    layer = p.layer()
    arrays = [np.array(a, order=order) for a in (p.x, *p.state, p.lengths, p.reset, p.dy, *p.dstate)]
    before = [a.copy() for a in arrays]
    x, h0, c0, lengths, reset, dy, dhn, dcn = arrays
    for _ in range(2):
        layer(x, (h0, c0), lengths=lengths, reset=reset)
        cache = layer.forward(x, (h0, c0), lengths=lengths, reset=reset, cache=True, trace=True)[-1]
        layer.backward(dy, cache, (dhn, dcn))
        for a, b in zip(arrays, before, strict=True):
            same(a, b)
            a.flags.writeable = False  # and a second time with arrays that cannot be


def test_results_belong_to_the_caller():
    p = problem(Case(T=4, layers=2), "float32")
    layer = p.layer()
    y, state, trace, cache = layer.forward(p.x, p.state, trace=True, cache=True)
    for array in (y, *state):
        assert array.flags.writeable
        assert not any(np.shares_memory(array, other) for other in (p.x, *p.state))
    copies = [a.copy() for a in (y, *state, *trace.c, *trace.h)]
    for _ in range(3):
        layer.forward(p.x + 1, p.state, trace=True, cache=True)
        layer(p.x + 1)
    same([y, *state, *trace.c, *trace.h], copies)


# --------------------------------------------------------------------------------------- what is kept


def test_the_trace_outlives_cache_and_model():
    p = problem(Case(T=5, B=4, layers=2), "float32")
    layer = p.layer()
    *_, trace, cache = layer.forward(p.x, p.state, trace=True, cache=True)
    before = [[a.copy() for a in field] for field in trace]
    del cache
    gc.collect()
    for _ in range(3):  # a model keeps the memory of old caches for new ones
        layer.forward(p.x + 1, p.state, cache=True)
    for field, copy in zip(trace, before, strict=True):
        same(list(field), copy)
    del layer
    gc.collect()
    for _ in range(20):  # whoever asks for memory now would get theirs, were it free
        other = p.layer()
        other.forward(p.x + 1, p.state, cache=True)
        np.full(trace.c[0].size * 8, np.nan, np.float32)
    for field, copy in zip(trace, before, strict=True):
        same(list(field), copy)


def test_deleting_a_model_frees_it():
    p = problem(Case(T=5), "float32")
    layer = p.layer()
    stream, (*_, cache) = layer.stream(3), layer.forward(p.x, cache=True)
    packed = layer._packed()
    gone = weakref.ref(layer)
    del layer
    gc.collect()
    assert gone() is None
    assert np.isfinite(stream.step(p.x[0])).all()  # what still works keeps what it needs, not the layer
    assert packed.nbytes > 0
    assert cache.nbytes > 0


DELETED = """
import gc

import numpy as np
from grids import Case, problem
from test_memory import resident


def use():
    layer = problem(Case(1, 1, 512, 512), "float32").layer()
    layer(np.zeros((1, 1, 512), np.float32))
    return layer._packed().nbytes


nbytes = use()
assert nbytes >= 4 * 512 * 1024 * 4
gc.collect()
before = resident()
for _ in range(50):
    use()
gc.collect()
print((resident() - before) / nbytes)
"""


@statm
def test_memory_of_a_deleted_model_goes_back():
    """In a process of its own: what other tests left free in the heap decides how far one grows."""
    (models,) = says(DELETED, PYTHONPATH=os.path.dirname(__file__))
    assert float(models) < 3  # of the 50 that were deleted


LEAK = {
    "call": (10_000, lambda layer, p, stream: layer(p.x, **p.given)),
    "step": (10_000, lambda layer, p, stream: stream.step(p.x[0])),
    "process": (10_000, lambda layer, p, stream: stream.process(p.x)),
    "forward and backward": (
        10_000, lambda layer, p, stream: layer.backward(p.dy, layer.forward(p.x, cache=True, **p.given)[-1], p.dstate)
    ),
    "trace": (3_000, lambda layer, p, stream: layer(p.x, trace=True)),
    "open and close streams": (3_000, lambda layer, p, stream: layer.stream(3).step(p.x[0])),
    "refused calls": (3_000, lambda layer, p, stream: refused(layer, p)),
    "pack again": (1_000, lambda layer, p, stream: (layer._update({}), layer(p.x))),
}


def refused(layer, p):
    with pytest.raises(ValueError, match="lengths"):
        layer(p.x, lengths=[99] * p.case.B)


@statm
@pytest.mark.parametrize("name", LEAK)
def test_nothing_leaks(name):
    times, use = LEAK[name]
    p = problem(Case(T=8, B=3, I=32, H=33, layers=2, proj=7, lengths="ragged", reset=True), "float32")
    layer = p.layer()
    stream = layer.stream(3)
    for _ in range(times // 10):
        use(layer, p, stream)
    gc.collect()
    before = resident()
    for _ in range(times):
        use(layer, p, stream)
    gc.collect()
    assert resident() - before < 100 * times + (1 << 20)  # 100 bytes a call would be the smallest leak there is


# -------------------------------------------------------------------------------------------- how much


@pytest.mark.parametrize("name", FEATURES)
def test_a_cache_holds_gates_states_and_inner_outputs(name):
    p = problem(FEATURES[name], "float32")
    c, T, B, D = p.case, p.case.T, p.case.B, p.case.directions
    kept = p.layer().forward(p.x, cache=True, **p.given)[-1]
    gates_and_c = c.layers * D * T * B * 5 * c.H
    between = (c.layers - 1) * T * B * c.outputs
    slots = 3 * c.layers * D
    assert 0 <= kept.nbytes - 4 * (gates_and_c + between) < 64 * slots


def test_dropout_keeps_the_dropped_outputs_too():
    p = problem(Case(T=16, B=4, H=16, layers=3), "float32")
    layer = p.layer()
    plain = layer.forward(p.x, cache=True)[-1].nbytes
    layer.dropout = 0.5
    assert layer.forward(p.x, cache=True)[-1].nbytes - plain == 2 * 16 * 4 * 16 * 4


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("inputs", [8, 40])
def test_scratch_memory_of_a_one_way_stack_does_not_grow_with_time(layers, inputs):
    layer = problem(Case(1, 1, inputs, 48, layers=layers, proj=16), "float32").layer()
    for B in (1, 3, 8):
        sizes = {T: layer._packed().workspace_bytes(T, B) for T in (2_000, 20_000, 2_000_000)}
        assert len(set(sizes.values())) == 1, sizes


def test_scratch_memory_of_a_two_way_stack_grows_by_what_lies_between_layers():
    H, B = 48, 3
    packed = problem(Case(1, 1, 8, H, layers=3, bidirectional=True), "float32").layer()._packed()
    one, two = (packed.workspace_bytes(T, B) for T in (1_000, 2_000))
    assert two - one == 2 * 1_000 * B * 2 * H * 4
    single = problem(Case(1, 1, 8, H, bidirectional=True), "float32").layer()._packed()
    assert single.workspace_bytes(1_000, B) == single.workspace_bytes(2_000, B)


def test_packed_weights_are_as_large_as_the_weights_but_for_padding():
    layer = problem(Case(1, 1, 128, 128), "float32").layer()
    assert layer.parameters_bytes * 0.95 < layer._packed().nbytes < layer.parameters_bytes * 1.1


@pytest.mark.parametrize("weight_drop", [0.0, 0.3])
def test_training_works_in_the_same_memory(weight_drop):
    """A model packed anew takes over the memory that the one before it worked in."""
    layer = fl.LSTM(8, 16, weight_drop=weight_drop, rng=0)
    x, dy = np.ones((200, 8, 8), "f4"), np.ones((200, 8, 16), "f4")

    def step():
        _, _, cache = layer.forward(x, cache=True)
        grads = layer.backward(dy, cache)[2]
        layer._update({name: -1e-3 * grad for name, grad in grads.items()})
        return cache.nbytes

    step()
    tracemalloc.start()
    try:
        kept = step()
        assert tracemalloc.get_traced_memory()[1] < kept  # y, dx and copies of them are less
    finally:
        tracemalloc.stop()


def allocated():
    """Bytes that the C library has handed out and not got back; None where it does not tell."""
    names = ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"]

    class Counts(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in names]

    try:
        question = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):
        return None
    question.restype = Counts
    return question().uordblks


def test_a_backward_call_that_fails_keeps_nothing():
    """What the call needs beside its table of gradients may be refused: then the table goes, too."""
    layer = fl.LSTM(3, 4, gate_recurrence=True, rng=0)
    _, _, cache = layer.forward(np.zeros((2, 2, 3), np.float32), cache=True)
    packed, core = cache.core.model, cache.core
    dy, dh = np.zeros((2, 2, 4), np.float32), np.zeros((1, 2, 4), np.float32)
    wrong = (dh, np.zeros((1, 3, 4), np.float32), None)  # no part of a state of two rows
    gradients = [{name.removesuffix("_l0"): np.zeros_like(w) for name, w in layer.state_dict().items()}]

    def fail():
        with pytest.raises(ValueError, match="broadcast"):
            packed.backward(core, dy, wrong, None, (dh, dh, dh), gradients)

    for _ in range(50):
        fail()
    before = allocated()
    for _ in range(1000):
        fail()
    after = allocated()
    if before is None:
        pytest.skip("this C library does not say what it has handed out")
    assert after - before < 40_000  # a table has 136 bytes
