"""Streams as objects: copies and pickles of every kind, who may use one at a time, what a reset takes."""

import copy
import gc
import pickle
import signal
import sys
import threading
import weakref

import numpy as np
import pytest
from grids import openmp, same, says
from leaky import Leaky

import fastlstm as fl
from fastlstm import _core

I, B, H = 3, 2, 4


MODELS = {
    "LSTM": lambda: fl.LSTM(I, H, num_layers=2, proj_size=2, rng=0),
    "zoneout": lambda: fl.LSTM(I, H, zoneout_h=0.2, zoneout_c=0.1, batch_first=True, dtype="float64", rng=0),
    "GRU": lambda: fl.GRU(I, H, bias=False, rng=0),
    "clockwork": lambda: fl.ClockworkRNN(I, H, periods=(1, 3), rng=0),
    "three states": lambda: fl.LSTM1997(I, H, block_size=2, rng=0),
    "sizes": lambda: fl.LSTM(I, [H, 5], rng=0),
    "team": lambda: fl.LSTM(I, 512, rng=0, num_threads=2),
    "Last": lambda: fl.Last(fl.LSTM(I, H, rng=0)),
    "Linear": lambda: fl.Linear(I, H, activation="tanh", rng=0),
    "Embedding": lambda: fl.Embedding(I, H, rng=0),
    "Sequential": lambda: fl.Sequential(fl.Linear(I, H, rng=0), fl.LSTM(H, H, rng=1), fl.GRU(H, 5, rng=2)),
    "one recurrent": lambda: fl.Sequential(fl.Embedding(I, H, rng=0), fl.LSTM(H, [H, 5], rng=1)),
    "nested": lambda: fl.Sequential(fl.Sequential(fl.LSTM(I, H, rng=0), fl.Linear(H, H, rng=1)), fl.Last(
        fl.LSTM(H, H, rng=2))),
    "foreign": lambda: fl.Sequential(Leaky(I, I, dtype="float32", rng=0), fl.LSTM(I, H, rng=0)),
}
INTEGERS = {"Embedding", "one recurrent"}
STATELESS = {"Linear", "Embedding"}
COPIES = {
    "copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda stream: pickle.loads(pickle.dumps(stream)),
    "old pickle": lambda stream: pickle.loads(pickle.dumps(stream, protocol=2)),
    "inside": lambda stream: copy.deepcopy([stream])[0],
    "a copy's pickle": lambda stream: pickle.loads(pickle.dumps(copy.copy(stream))),
    "a pickle's pickle": lambda stream: pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(stream)))),
}
each_kind = pytest.mark.parametrize("kind", MODELS)
each_copy = pytest.mark.parametrize("how", COPIES)


def steps(kind, T=6):
    rng = np.random.default_rng(5)
    if kind in INTEGERS:
        return rng.integers(0, I, (T, B))
    dtype = np.float64 if kind == "zoneout" else np.float32
    return rng.standard_normal((T, B, I)).astype(dtype)


def opened(kind, model=None):
    """A stream in the middle of its life."""
    model = model or MODELS[kind]()
    stream = model.stream(B, **({"awake": 1e-3} if kind == "team" else {}))
    stream.process(steps(kind)[:2])
    return stream


# ---- copies -------------------------------------------------------------------------------------------------------


@each_copy
@each_kind
def test_a_copy_goes_on_by_itself(kind, how):
    x, stream = steps(kind), opened(kind)
    expected = opened(kind).process(x[2:])
    state = opened(kind).state
    twin = COPIES[how](stream)
    assert type(twin) is type(stream) and twin.batch_size == B
    same(np.array([twin.step(one) for one in x[2:]]), expected)
    if kind not in STATELESS:
        same(stream.state, state)
    same(stream.process(x[2:]), expected)
    twin.reset()
    twin.close()
    stream.step(x[0])


def load_one(model):
    first = next(iter(model.state_dict()))
    model.load_state_dict({first: model.state_dict()[first] + 1}, strict=False)


def in_place(model):
    model._update(lambda weights: [w.fill(7) for w in weights.values()])


def load_all(model):
    model.load_state_dict({name: w + 1 for name, w in model.state_dict().items()})


@each_copy
@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind != "foreign"])  # whose stream goes by the module
def test_a_copy_has_the_weights_with_which_its_stream_was_opened(kind, how):
    """Whatever happens to the model's afterwards: some new ones, an optimiser's changes in place, all new."""
    x, expected = steps(kind), opened(kind).process(steps(kind)[2:])
    for changes in ((load_one,), (in_place,), (load_all,), (load_one, in_place), (in_place, load_one, in_place)):
        model = MODELS[kind]()
        stream = opened(kind, model)
        for change in changes:
            change(model)
        same(COPIES[how](stream).process(x[2:]), expected)
        same(stream.process(x[2:]), expected)


def test_two_streams_and_two_moments():
    """Arrays that an older stream has stay as they were when a newer one is gone."""
    layer = fl.LSTM(I, H, zoneout_h=0.1, rng=0)
    x = steps("LSTM")
    old, expected = layer.stream(B), layer.stream(B).process(x)
    layer.zoneout_h = 0.3
    new = layer.stream(B)
    different = copy.copy(new).process(x)
    assert not np.array_equal(expected, different)
    layer.load_state_dict({"weight_ih_l0": layer.state_dict()["weight_ih_l0"] + 1}, strict=False)
    third = layer.stream(B)
    last = layer(x)[0]
    for how in COPIES.values():
        same(how(third).process(x), last)
    del third
    gc.collect()
    layer._update(lambda weights: [w.fill(7) for w in weights.values()])
    for stream, y in ((old, expected), (new, different)):
        same(pickle.loads(pickle.dumps(stream)).process(x), y)
    assert not np.array_equal(last, expected)


@pytest.mark.parametrize("kind", ["LSTM", "Embedding", "Sequential"])
def test_training_pays_for_an_open_stream_once(kind):
    """Its arrays are left to the stream at the first change in place, and no more after that."""
    model = MODELS[kind]()
    stream = model.stream(B)
    arrays = dict(model._named_weights())
    model._update(lambda weights: None)
    after = dict(model._named_weights())
    assert not any(after[name] is arrays[name] for name in arrays)
    model._update(lambda weights: None)
    assert all(model._named_weights()[name] is after[name] for name in arrays)
    stream.close()
    del stream
    gc.collect()
    model.stream(B)  # gone at once
    gc.collect()
    model._update(lambda weights: None)
    assert all(model._named_weights()[name] is after[name] for name in arrays)


def test_copies_share_the_packed_model_and_a_pickle_has_the_weights_once():
    layer = fl.LSTM(64, 64, rng=0)
    stream = layer.stream()
    beams = [copy.copy(stream) for _ in range(8)] + [copy.deepcopy(stream)]
    assert {id(beam._origin.packed) for beam in beams} == {id(stream._origin.packed)}
    assert len(pickle.dumps(beams)) < 1.2 * layer.parameters_bytes
    again = pickle.loads(pickle.dumps(beams))
    assert len({id(beam._origin.packed) for beam in again}) == 1
    chain = fl.Sequential(layer, fl.Linear(64, 64, rng=0)).stream()
    assert len(pickle.dumps([chain, copy.copy(chain), copy.deepcopy(chain)])) < 1.5 * layer.parameters_bytes


def test_a_closed_stream_lets_go_of_its_weights():
    layer = fl.LSTM(I, H, rng=0)
    stream = layer.stream(B)
    origin = weakref.ref(stream._origin)
    stream.close()
    assert origin() is None and len(pickle.dumps(stream)) < 2000


@pytest.mark.parametrize("kind", sorted(STATELESS))
def test_a_closed_stream_without_a_state_lets_go_of_its_weights(kind):
    model = MODELS[kind]()
    with model.stream(B) as stream:
        origin = weakref.ref(stream._origin)
    gc.collect()
    assert origin() is None and len(pickle.dumps(stream)) < 500
    stream.state = None
    stream.reset([True, False])
    with pytest.raises(ValueError, match=f"{kind} has no state"):
        stream.state = 1
    model.stream(B).step(steps(kind)[0])  # another one goes on


@each_copy
@each_kind
def test_a_closed_stream_copies_as_closed(kind, how):
    stream = opened(kind)
    state = stream.state
    stream.close()
    twin = COPIES[how](stream)
    same(twin.state, state) if kind not in STATELESS else None
    for one in (stream, twin):
        with pytest.raises(RuntimeError, match="the stream is closed"):
            one.step(steps(kind)[0])
        with pytest.raises(RuntimeError, match="the stream is closed"):
            one.process(steps(kind))
        one.close()


class Counting(fl.LSTM):
    """A user's layer, whose stream is a subclass with attributes of its own."""

    def stream(self, batch_size=1, *, awake=0.0):
        found = super().stream(batch_size, awake=awake)
        found.__class__ = CountingStream
        found.seen = []
        return found


class CountingStream(type(fl.LSTM(1, 1).stream())):
    def step(self, x, out=None):
        self.seen.append(len(self.seen))
        return super().step(x, out)


def test_a_streams_own_attributes_go_along():
    stream = Counting(I, H, rng=0).stream(B)
    stream.step(steps("LSTM")[0])
    shallow, deep, again = copy.copy(stream), copy.deepcopy(stream), COPIES["pickle"](stream)
    assert shallow.seen is stream.seen
    deep.step(steps("LSTM")[0])
    again.step(steps("LSTM")[0])
    assert (stream.seen, deep.seen, again.seen) == ([0], [0, 1], [0, 1])


def test_pickles_open_in_another_process(tmp_path):
    found = [(opened(kind), steps(kind)[2:]) for kind in MODELS if kind != "foreign"]
    (tmp_path / "streams").write_bytes(pickle.dumps(found))
    lines = says(f"""
import pickle
for stream, x in pickle.load(open({str(tmp_path / 'streams')!r}, "rb")):
    print(stream.process(x).tobytes().hex())
""")
    assert lines == [stream.process(x).tobytes().hex() for stream, x in found]


def test_batch_size_is_fixed():
    for kind in MODELS:
        stream = opened(kind)
        with pytest.raises(AttributeError, match="batch_size of .*Stream is fixed: open another stream"):
            stream.batch_size = 9
        assert stream.batch_size == B


# ---- resets -------------------------------------------------------------------------------------------------------

BAD_MASKS = [
    ([0, 1], "mask holds integers.*row numbers.*booleans"),
    (np.array([1, 0], np.uint8), "mask holds integers"),
    ([True, 0], "mask holds integers"),
    (np.int64(1), "mask holds integers"),
    ([0], "mask holds integers"),
    ([1.0, 0.0], "mask must hold 2 booleans, one per row; got float64"),
    ([True], r"mask must hold 2 booleans, one per row; got bool of shape \(1,\)"),
    (True, "mask must hold 2 booleans"),
    (["a", "b"], "mask must hold 2 booleans"),
    ([[True], [True, False]], "mask"),
]


@pytest.mark.parametrize("mask, words", BAD_MASKS)
@each_kind
def test_a_mask_holds_booleans(kind, mask, words):
    stream = opened(kind)
    before = stream.state
    with pytest.raises(ValueError, match=words):
        stream.reset(mask)
    same(stream.state, before) if kind not in STATELESS else None
    stream.reset([False, True])
    stream.reset(np.array([True, False]))
    if kind not in STATELESS:
        same(stream.state, MODELS[kind]().stream(B).state)


@pytest.mark.parametrize("reset, words", [
    ([[0, 2], [0, 0]], "reset holds 2, .*booleans"), ([[0, -1], [0, 0]], "reset holds -1, .*booleans"),
])
def test_numbers_in_a_calls_reset_are_0_or_1(reset, words):
    layer = fl.LSTM(I, H, rng=0)
    x = steps("LSTM")[:2]
    for call in (layer, fl.Reverse(layer), fl.Bidirectional(layer, fl.LSTM(I, H, rng=1))):
        with pytest.raises(ValueError, match=words):
            call(x, reset=reset)
        expected = call(x, reset=[[False, True], [True, True]])[0]
        same(call(x, reset=[[0, 1], [1, 1]])[0], expected)


def test_without_a_batch_axis_a_calls_reset_holds_booleans():
    layer = fl.LSTM(I, H, rng=0)
    x = steps("LSTM")[:2, 0]
    for call in (layer, fl.Reverse(layer)):
        with pytest.raises(ValueError, match="reset holds integers.*step numbers.*booleans"):
            call(x, reset=[0, 1])
        same(call(x, reset=[False, True])[0], call(x[:, None], reset=[[False], [True]])[0][:, 0])


# ---- one call at a time -------------------------------------------------------------------------------------------

IN_USE = "the stream is in use"


class Calls:
    """An array-like that runs a function when it is first read."""

    def __init__(self, array, function):
        self.array, self.function = array, function

    def __array__(self, dtype=None, copy=None):
        function, self.function = self.function, lambda: None
        function()
        return self.array


def uses(stream, kind):
    """Everything that can be done to a stream."""
    x = steps(kind)
    return {
        "step": lambda: stream.step(x[0]),
        "slow step": lambda: stream.step(x[0].tolist()),
        "process": lambda: stream.process(x),
        "state": lambda: stream.state,
        "set state": lambda: setattr(stream, "state", None),
        "reset": lambda: stream.reset(),
        "close": lambda: stream.close(),
        "copy": lambda: copy.copy(stream),
        "deepcopy": lambda: copy.deepcopy(stream),
        "pickle": lambda: pickle.dumps(stream),
    }


@pytest.mark.parametrize("outer", ["step", "process", "set state", "reset"])
@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind not in STATELESS])
def test_a_call_from_inside_a_call_is_refused(kind, outer):
    """Deterministic: what is handed in calls the same stream when it is read, in this thread and in another one."""
    x, stream = steps(kind), opened(kind)
    found = []

    def inside(use):
        try:
            use()
        except RuntimeError as error:
            assert str(error).startswith(IN_USE)
            found.append(error)

    def everything():
        for use in uses(stream, kind).values():
            inside(use)
            thread = threading.Thread(target=inside, args=(use,))
            thread.start()
            thread.join()

    state = stream.state
    if outer == "step":
        y = opened(kind).step(x[2])
        same(stream.step(Calls(x[2], everything)), y)
    elif outer == "process":
        y = opened(kind).process(x[2:])
        same(stream.process(Calls(x[2:], everything)), y)
    elif outer == "set state":
        many = state if isinstance(state, tuple) else (state,)
        many = many[0] if isinstance(many[0], tuple) else many
        first = many[0][0] if isinstance(many[0], list) else many[0]
        given = replaced(state, first, Calls(first, everything))
        stream.state = given
        same(stream.state, state)
    else:
        stream.reset(Calls(np.array([False, False]), everything))
        same(stream.state, state)
    assert len(found) == 2 * len(uses(stream, kind))
    stream.step(x[0])  # the flag is down again


def replaced(state, part, other):
    """A state of any structure with one array exchanged."""
    if state is part:
        return other
    if isinstance(state, (tuple, list)):
        return type(state)(replaced(one, part, other) for one in state)
    return state


@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind not in STATELESS])
def test_a_call_that_fails_leaves_the_stream_free(kind):
    x, stream = steps(kind), opened(kind)
    state = stream.state

    def fails():
        raise KeyboardInterrupt

    for call in (
        lambda: stream.step(Calls(x[0], fails)), lambda: stream.process(Calls(x, fails)),
        lambda: stream.step(x[0][:1]), lambda: stream.process(x[:, :1]), lambda: stream.reset([1, 0]),
        lambda: stream.reset(Calls(np.array([True, True]), fails)), lambda: setattr(stream, "state", Calls(x, fails)),
        lambda: setattr(stream, "state", 5), lambda: stream.step(x[0], out=5),
    ):
        with pytest.raises((KeyboardInterrupt, ValueError, TypeError)):
            call()
        same(stream.state, state)
    same(stream.process(x[2:]), opened(kind).process(x[2:]))


def test_a_handler_that_calls_the_stream_is_refused():
    stream, seen = fl.LSTM(I, H, rng=0).stream(B), []

    def handler(*_):
        try:
            stream.step(steps("LSTM")[0])
        except RuntimeError as error:
            seen.append(str(error))

    before = signal.signal(signal.SIGALRM, handler) if hasattr(signal, "SIGALRM") else pytest.skip("no SIGALRM here")
    try:
        expected = opened("LSTM").state
        stream = opened("LSTM")
        stream.step(Calls(steps("LSTM")[2], lambda: signal.raise_signal(signal.SIGALRM)))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(seen) == 1 and seen[0].startswith(IN_USE)
    twin = opened("LSTM")
    twin.step(steps("LSTM")[2])
    same(stream.state, twin.state)
    assert not np.array_equal(stream.state[0], expected[0])


STRESS = """
import sys, threading
import numpy as np
import fastlstm as fl
sys.setswitchinterval(1e-6)
kind = sys.argv[1] if len(sys.argv) > 1 else "{kind}"
make = {{
    "layer": lambda: fl.LSTM(64, 256, rng=0, num_threads=1), "team": lambda: fl.LSTM(64, 512, rng=0, num_threads=2),
    "three": lambda: fl.LSTM1997(64, 128, rng=0), "sizes": lambda: fl.LSTM(64, [128, 64], rng=0),
    "chain": lambda: fl.Sequential(fl.Linear(64, 64, rng=0), fl.LSTM(64, 128, rng=0), fl.GRU(128, 64, rng=0)),
}}[kind]
model = make()
x = np.random.default_rng(0).standard_normal((64, 4, 64)).astype(np.float32)
stream = model.stream(4, **({{"awake": 1e-4}} if kind == "team" else {{}}))
done, refused, lock = [], [], threading.Lock()

def work(seed):
    rng = np.random.default_rng(seed)
    for _ in range(150):
        at = int(rng.integers(0, 60))
        use = int(rng.integers(0, 6))
        try:
            if use < 2:
                stream.step(x[at].copy())
            elif use == 2:
                stream.step(x[at].tolist())
            elif use == 3:
                stream.process(x[at:at + 3].copy())
            elif use == 4:
                stream.state = stream.state
            else:
                stream.reset([True, False, False, True])
        except RuntimeError as error:
            assert "the stream is in use" in str(error), error
            refused.append(1)
        else:
            done.append(1)

threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
stream.reset()
good = np.array_equal(stream.process(x), model.stream(4).process(x))
print(good, len(done) + len(refused), len(done) > 0)
"""


@pytest.mark.parametrize("kind", ["layer", "team", "three", "sizes", "chain"])
def test_threads_that_share_a_stream_corrupt_nothing(kind):
    assert says(STRESS.format(kind=kind)) == ["True 600 True"]


def test_the_flag_is_one_of_the_core():
    busy = _core.Busy()

    def inside():
        with pytest.raises(RuntimeError, match=IN_USE):
            busy.run(len, ())
        return 3

    assert busy.run(inside) == 3
    with pytest.raises(ZeroDivisionError):
        busy.run(lambda a, b: a / b, 1, 0)
    assert busy.run(max, 1, 2) == 2


@openmp
def test_a_copy_of_an_awake_stream_is_awake():
    layer = fl.LSTM(I, 512, rng=0, num_threads=2)
    stream = layer.stream(B, awake=1e-3)
    found = [stream, copy.copy(stream), COPIES["pickle"](stream), fl.Last(layer).stream(B, awake=1e-3)]
    assert [(one._awake_ns, one._stepper.teamed) for one in found] == [(1_000_000, True)] * 4


def test_a_step_given_up_between_members_is_not_hidden(monkeypatch):
    x, stream, other = steps("Sequential"), opened("Sequential"), opened("Sequential")
    state = stream.state

    def fails(*_, **__):
        raise KeyboardInterrupt

    for place in (0, 1):  # before anything has moved
        with monkeypatch.context() as patch:
            patch.setattr(stream._streams[place], "step", fails)
            with pytest.raises(KeyboardInterrupt):
                stream.step(x[2])
        same(stream.state, state)
    for heal in (lambda: setattr(stream, "state", state), lambda: (stream.reset(), setattr(stream, "state", state))):
        with monkeypatch.context() as patch:
            patch.setattr(stream._streams[2], "step", fails)
            with pytest.raises(KeyboardInterrupt):
                stream.step(x[2])
        stream.reset([True, False])
        for call in (stream.step, stream.process, copy.copy(stream).step):
            with pytest.raises(RuntimeError, match="given up half-way, and its members are at different steps"):
                call(x[2] if call != stream.process else x)
        heal()
    same(stream.process(x[2:]), other.process(x[2:]))


def test_steppers_count_their_steps():
    x = steps("LSTM")
    for kind, layers in (("LSTM", 1), ("sizes", 2), ("three states", 1), ("team", 1)):
        stream = MODELS[kind]().stream(B)
        stream.step(x[0])
        stream.step(x[1].tolist())
        stream.process(x)
        with pytest.raises(ValueError):
            stream.step(x[0][:1])
        assert stream._counts() == [2] * layers
        assert copy.copy(stream)._counts() == [0] * layers
        stream.close()
        assert stream._counts() == []


def test_a_block_that_fails_in_a_chain_leaves_all_members_as_they_were(monkeypatch):
    x, stream = steps("Sequential"), opened("Sequential")
    state = stream.state

    def fails(*_):
        raise MemoryError

    monkeypatch.setattr(stream._streams[2], "_advance", fails)
    with pytest.raises(MemoryError):
        stream.process(x)
    same(stream.state, state)
    assert sys.exc_info() == (None, None, None)
