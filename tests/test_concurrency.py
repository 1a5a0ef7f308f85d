"""Several threads, signal handlers and forks around modules that belong together. Of calls: tests/test_threads.py."""

import copy
import gc
import os
import pickle
import signal
import threading

import numpy as np
import pytest
from grids import BEGIN, at_once, same, says

import fastlstm as fl
from fastlstm import _core, concurrency
from fastlstm.concurrency import hold

I = H = 6
X = np.random.default_rng(0).standard_normal((4, 3, I)).astype(np.float32)


def layers():
    return fl.LSTM(I, H, rng=0), fl.GRU(I, H, rng=1)


def in_time(*callers):
    at_once(callers, seconds=20)


# ---- locks ---------------------------------------------------------------------------------


def containers():
    a, b = layers()
    c = fl.LSTM(I, H, rng=2)
    yield fl.Sequential(a, b), fl.Sequential(b, a)
    yield fl.Bidirectional(a, b), fl.Bidirectional(b, a)
    yield fl.Sequential(fl.Sequential(a, c), b), fl.Sequential(b, fl.Reverse(a), c)
    yield fl.Last(fl.Bidirectional(a, b)), fl.Sequential(c, b, a)


@pytest.mark.parametrize("one, other", list(containers()))
def test_containers_with_members_in_another_order_never_wait_for_each_other(one, other):
    def work(model):
        optimiser, weights = fl.optim.Adam(model), model.state_dict()
        grads = {name: np.zeros_like(w) for name, w in weights.items()}

        def run():
            for _ in range(40):
                model.load_state_dict(weights)
                model.state_dict()
                optimiser.step(grads)
                copy.copy(model)
                model(X)

        return run

    in_time(work(one), work(other), work(one))


def test_locks_are_taken_in_the_order_in_which_modules_were_made():
    a, b = layers()
    taken = []

    class Noted:
        def __init__(self, name, lock):
            self.name, self.lock = name, lock

        def acquire(self, blocking=True):
            taken.append((self.name, blocking))
            return self.lock.acquire(blocking)

        def release(self):
            self.lock.release()

    a._lock, b._lock = Noted("a", a._lock), Noted("b", b._lock)
    for members in ([a, b], [b, a], [b, fl.Sequential(a), a]):
        taken.clear()
        with hold(*members):
            pass
        assert taken == [("a", True), ("b", False)]


def test_who_waits_for_a_lock_holds_none():
    a, b = layers()
    both, held, waiting = fl.Sequential(a, b), threading.Event(), threading.Event()

    class Told:
        """b's lock, which tells when somebody has found it taken and comes to wait."""

        def __init__(self, lock):
            self.lock, self.release = lock, lock.release

        def acquire(self, blocking=True):
            if blocking:
                waiting.set()
            return self.lock.acquire(blocking)

    lock = b._lock
    b._lock = Told(lock)

    def first():
        with lock:
            held.set()
            assert waiting.wait(20)
            with a._lock:  # in the other order: `second` would hold it, waiting for this thread
                pass

    def second():
        assert held.wait(20)
        with hold(both):
            pass

    in_time(first, second)
    for one in (a._lock, lock):
        assert one.acquire(False)
        one.release()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that signal here")
def test_no_exception_of_a_signal_handler_leaves_a_lock_taken():
    """In a process of its own: where OpenVINO has run, an exception of a handler ends plain Python, too."""
    lines = says("""
import signal, threading
import fastlstm as fl
from fastlstm.concurrency import hold

model = fl.Sequential(*(fl.LSTM(2, 2, rng=k) for k in range(6)))
weights, interrupted = model.state_dict(), 0

class Interruption(Exception):
    pass

def handle(*_):
    raise Interruption

def work():
    for _ in range(100):
        model._replace_weights(weights)
        with hold(model):
            pass

signal.signal(signal.SIGALRM, handle)
for k in range(400):
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-4 + 1e-6 * (k % 200))
        work()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Interruption:
        interrupted += 1
signal.setitimer(signal.ITIMER_REAL, 0)
free = []
thread = threading.Thread(target=lambda: free.extend(leaf._lock.acquire(False) for leaf in model._leaves()))
thread.start()
thread.join()
print(interrupted > 100, free == [True] * 6)
""")
    assert lines == ["True True"]


# ---- weights of one moment -----------------------------------------------------------------


def weights_of(model, value):
    return {name: np.full_like(w, value) for name, w in model.state_dict().items()}


class Between(fl.Module):
    """Changes nothing of what passes; calls something when it does."""

    def __init__(self):
        super().__init__()
        self._weights, self.then = {"nothing": np.zeros(1, np.float32)}, lambda: None

    def config(self):
        return {}

    def forward(self, x, state=None, *, lengths=None, reset=None, trace=False, cache=False):
        self.then()
        return (x, None, ()) if cache else (x, None)

    def backward(self, dy, cache, dstate=None, *, input_gradient=True):
        return dy, None, {"nothing": np.zeros(1, np.float32)}


def chains():
    def lstm(**options):
        return fl.LSTM(I, H, rng=0, **options)

    yield lambda between: fl.Sequential(lstm(), between, lstm())
    yield lambda between: fl.Sequential(fl.Linear(I, H), between, fl.Linear(H, H))
    yield lambda between: fl.Sequential(fl.Sequential(lstm(), between), fl.Sequential(fl.GRU(H, H), fl.Linear(H, 2)))
    yield lambda between: fl.Sequential(between, fl.Bidirectional(lstm(), lstm()))
    yield lambda between: fl.Sequential(lstm(), between, lstm(weight_drop=0.5))
    yield lambda between: fl.Sequential(lstm(), between, fl.Last(fl.Reverse(lstm())))


@pytest.mark.parametrize("make", list(chains()))
@pytest.mark.parametrize("cache", [False, True])
def test_a_call_computes_with_all_weights_of_one_moment(make, cache):
    between = Between()
    model = make(between)
    old, new = weights_of(model, 0.25), weights_of(model, -0.5)

    def answer():
        for leaf in model._leaves():  # masks drawn alike
            if hasattr(leaf, "_rng"):
                leaf._rng = np.random.default_rng(3)
        y, *_, kept = model.forward(X, cache=True) if cache else (*model.forward(X), None)
        return y

    model.load_state_dict(old)
    expected = answer()
    for _ in range(3):  # also when everything is packed already
        between.then = lambda: model.load_state_dict(new)
        same(answer(), expected)
        between.then = lambda: None
        assert not np.array_equal(answer(), expected)
        model.load_state_dict(old)
        same(answer(), expected)


def test_an_embedding_reads_the_table_of_the_moment_and_no_copy_of_it():
    model = fl.Sequential(fl.Embedding(5, I, rng=0), fl.LSTM(I, H, rng=0))
    x, (old, new) = np.zeros((4, 3), int), (weights_of(model, 0.25), weights_of(model, -0.5))
    check, table = model[0]._check_index, model[0]._weights["weight"]
    model.load_state_dict(old)
    expected = model(x)[0]
    for change in (model.load_state_dict, model._update):  # new arrays, and new values in place

        def load(*index, change=change):  # after the weights were taken, before the table is read
            change(new)
            return check(*index)

        model.load_state_dict(old)
        model[0]._check_index = load
        same(model(x)[0], expected)
        model[0]._check_index = check
        assert not np.array_equal(model(x)[0], expected)
    table = model[0]._weights["weight"]
    model(x)
    model._update(old)
    assert model[0]._weights["weight"] is table
    same(model(x)[0], expected)


HOWS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "state_dict": lambda model: model.state_dict(),
    "stream": lambda model: model.stream(3).process(X),
    "call": lambda model: model(X)[0],
    "training": lambda model: model.forward(X, cache=True)[0],
}


def as_list(found):
    weights = found.state_dict() if isinstance(found, fl.Module) else found
    return list(weights.values()) if isinstance(weights, dict) else [weights]


@pytest.mark.parametrize("make", [fl.Sequential, fl.Bidirectional, lambda a, b: fl.Sequential(fl.Sequential(a), b)])
@pytest.mark.parametrize("how", HOWS)
def test_weights_that_another_thread_loads_meanwhile_are_seen_all_or_not_at_all(make, how):
    model = make(*layers())
    if how == "stream" and isinstance(model, fl.Bidirectional):
        pytest.skip("cannot stream")
    first, (old, new) = model._leaves()[0], (weights_of(model, 0.25), weights_of(model, -0.5))
    model.load_state_dict(old)
    expected = as_list(HOWS[how](model))
    model.load_state_dict(old)  # nothing is packed
    threads = []

    def with_a_load(method):
        def read(*args):
            found = method(*args)
            if not threads:  # now that the first member has been read
                threads.append(threading.Thread(target=model.load_state_dict, args=(new,)))
                threads[0].start()
                threads[0].join(0.05)
            return found

        return read

    for name in ("_for_call", "state_dict", "_packed"):
        setattr(first, name, with_a_load(getattr(first, name)))
    if how == "state_dict":  # a container's reads the arrays themselves
        first._named_weights = with_a_load(first._named_weights)
    same(as_list(HOWS[how](model)), expected)
    threads[0].join()
    same(list(model.state_dict().values()), list(new.values()))


def test_what_is_packed_is_taken_without_locks_only_while_nothing_has_changed():
    model = fl.Sequential(*layers())
    leaves = model._leaves()

    def as_before():
        return concurrency._as_before(model._moment, leaves) is not None

    assert not as_before()
    model(X)
    assert as_before()
    for leaf in leaves:  # of one member, not through the container, and packed again
        leaf.load_state_dict(weights_of(leaf, 1))
        leaf(X)
        assert not as_before()
        model(X)
        assert as_before()
    leaves[0].zoneout_h = 0.5  # drops what is packed
    assert not as_before()
    model(X)
    model.forward(X, cache=True)
    assert not as_before()
    model(X)
    model.load_state_dict(weights_of(model, 1))
    assert model._moment is None  # old panels are not kept


# ---- handlers in the middle of calls and changes ---------------------------------------------


@pytest.mark.parametrize("make", [
    lambda: fl.Sequential(fl.LSTM(I, H, rng=0), fl.LSTM(H, H, rng=1)),
    lambda: fl.Bidirectional(fl.LSTM(I, H, rng=0), fl.GRU(I, H, rng=1)),
])
@pytest.mark.parametrize("cache", [False, True])
def test_a_handler_that_calls_the_model_in_the_middle_of_a_call_sees_the_weights_of_its_own_time(make, cache):
    model, seen = make(), []
    old, new = weights_of(model, 0.25), weights_of(model, -0.5)
    model.load_state_dict(new)
    expected, leaf = model(X)[0], model._leaves()[0]
    alone = leaf(X)[0]
    model.load_state_dict(old)
    before = model(X)[0]

    def handle():
        _core.force_poll(False)
        model.load_state_dict(new)
        same(model(X)[0], expected)
        same(leaf(X)[0], alone)
        y, *_, kept = model.forward(X, cache=True)
        model.backward(np.ones_like(y), kept)
        if not isinstance(model, fl.Bidirectional):
            same(model.stream(3).process(X), expected)
        seen.append(True)

    _core.force_poll(True, handle)
    try:
        y = model.forward(X, cache=cache)[0]
    finally:
        _core.force_poll(False)
    assert seen == [True]
    same(y, before)


def test_a_handler_in_the_middle_of_a_step_is_refused_the_weights(tmp_path):
    model, path = fl.Sequential(*layers()), tmp_path / "model"
    calls = [
        model.state_dict, lambda: copy.copy(model), lambda: pickle.dumps(model), lambda: model[1].state_dict(),
        lambda: model.load_state_dict(model.state_dict()), lambda: model.stream(1), lambda: model.save(path),
        lambda: fl.save_checkpoint(path, model), lambda: model._update({}), lambda: model.forward(X, cache=True),
    ]

    def change(live):
        for call in calls:
            with pytest.raises(RuntimeError, match="an optimiser's step in this very thread has not ended"):
                call()

    model._update(change)
    for call in calls:
        call()


def test_an_exception_in_the_middle_of_a_change_leaves_nothing_packed_of_before():
    model = fl.Sequential(*layers())
    model(X)

    def change(live):
        for w in live.values():
            w[...] = 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model._update(change)
    assert not model(X)[0].any()


@pytest.mark.parametrize("make", [fl.Sequential, fl.Bidirectional])
def test_a_call_that_is_refused_or_ended_gives_the_masks_of_all_members_back(make):
    kind = dict(num_layers=2, dropout=0.5, variational_h=0.3)
    model = make(fl.LSTM(I, H, rng=0, **kind), fl.GRU(I, H, rng=1, **kind))
    states = [leaf.rng.bit_generator.state for leaf in model._leaves()]
    with pytest.raises(ValueError, match="h0 has shape"):
        model.forward(X, (None, np.zeros((1, 1, 1))), cache=True)
    assert [leaf.rng.bit_generator.state for leaf in model._leaves()] == states
    model.forward(X, cache=True)
    assert all(leaf.rng.bit_generator.state != state for leaf, state in zip(model._leaves(), states, strict=True))


# ---- fork ----------------------------------------------------------------------------------

CHILD = BEGIN + """
import copy, pickle
lstm = fl.LSTM(6, 6, num_layers=2, dropout=0.5, weight_drop=0.5, rng=0)
chain = fl.Sequential(lstm, fl.Linear(6, 3))
stream, adam, x = chain.stream(2), fl.optim.Adam(chain), np.zeros((4, 2, 6), np.float32)
grads = {name: np.zeros_like(w) for name, w in chain.state_dict().items()}
expected = chain(x)[0]

def use():
    assert np.array_equal(chain(x)[0], expected) and np.array_equal(lstm(x)[0], lstm.forward(x)[0])
    for model in (lstm, chain):
        y, state, cache = model.forward(x, cache=True)
        model.backward(np.ones_like(y), cache)
        model.load_state_dict(model.state_dict())
        pickle.loads(pickle.dumps(copy.deepcopy(model)))
        model.stream(2).process(x)
    stream.step(x[0])
    adam.step(grads)
    lstm.draw_masks(3, 2)

held, done = threading.Event(), threading.Event()

class InACall:  # which lasts as long as what it steps with is being read
    def __init__(self, stream):
        global here
        here = self.stream = stream
    def __enter__(self):
        begun = threading.Event()
        class Slow:
            def __array__(self, dtype=None, copy=None):
                begun.set()
                done.wait(60)
                return x[0]
        threading.Thread(target=self.stream.step, args=(Slow(),)).start()
        begun.wait()
        try:
            self.stream.step(x[0])
        except RuntimeError:
            return
        raise AssertionError("not in a call")
    def __exit__(self, *error):
        pass

def fork_while(take, check=use):
    held.clear(); done.clear()
    def hold_it():
        with take:
            held.set()
            done.wait(60)
    thread = threading.Thread(target=hold_it)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            check()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    done.set()
    thread.join()
    print("well" if status == 0 else f"status {status}")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("what", [
    "fork_while(lstm._lock)",
    "fork_while(chain._locked())",
    "fork_while(lstm._rng.bit_generator.lock)",
    "from fastlstm import machine; fork_while(machine._finding)",
    "fork_while(InACall(stream))",
    "fork_while(InACall(lstm.stream(2)), lambda: (use(), here.step(x[0]), here.reset()))",
])
def test_a_child_can_use_what_another_thread_held_when_it_was_forked(what):
    assert says(CHILD + what, timeout=60) == ["well"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_computes_with_the_weights_as_they_stood():
    lines = says(CHILD + """
class Changing:  # half way through a step, with the packed weights still those of before
    def __enter__(self):
        lstm._lock.acquire()
        lstm._packed()
        for w in lstm._weights.values():
            w[...] = 0
    def __exit__(self, *error):
        lstm._lock.release()

def check():
    assert not lstm(x + 1)[0].any()
    use_again = chain(x)

fork_while(Changing(), check)
""", timeout=60)
    assert lines == ["well"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_one_generator_of_two_layers_stays_one_in_a_child():
    lines = says(CHILD + """
rng = np.random.default_rng(5)
a, b = (fl.LSTM(6, 6, num_layers=2, dropout=0.5, rng=rng) for _ in range(2))
state = rng.bit_generator.state
def check():
    assert a._rng is b._rng is not rng and a._rng.bit_generator.state == state
    a.draw_masks(3, 2)
fork_while(rng.bit_generator.lock, check)
def check():
    assert a._rng is b._rng is rng
fork_while(lstm._lock, check)
""", timeout=60)
    assert lines == ["well", "well"]


def test_modules_that_are_gone_are_forgotten():
    before = len(concurrency._modules)
    modules = [fl.Linear(1, 1) for _ in range(5)]
    assert len(concurrency._modules) == before + 5
    del modules
    gc.collect()
    assert len(concurrency._modules) <= before
