"""What was checked is what the core reads: callers who change shapes, types, lengths and caches in the meantime.

Each change is made by the ``__array__`` of an argument that is read later than the one it changes, so that no second
thread and no luck is needed. Sizes are such that the core would leave its memory if it believed them.
"""

import numpy as np
import pytest
from grids import flat, same

import fastlstm as fl

T, B, I, H, BIG = 3, 2, 5, 7, 2**24
KINDS = {
    "LSTM": lambda **o: fl.LSTM(I, H, rng=0, **o),
    "batch_first": lambda **o: fl.LSTM(I, H, rng=0, batch_first=True, **o),
    "GRU": lambda **o: fl.GRU(I, H, rng=0, **o),
    "bidirectional": lambda **o: fl.LSTM(I, H, rng=0, num_layers=2, bidirectional=True, **o),
    "three states": lambda **o: fl.LSTM(I, H, rng=0, gate_recurrence=True, **o),
    "layers of different sizes": lambda **o: fl.LSTM(I, [H, 4], num_layers=2, rng=0, **o),
    "Reverse": lambda **o: fl.Reverse(fl.LSTM(I, H, rng=0, **o)),
    "Bidirectional": lambda **o: fl.Bidirectional(fl.LSTM(I, H, rng=0, **o), fl.GRU(I, H, rng=1, **o)),
    "Last": lambda **o: fl.Last(fl.LSTM(I, H, rng=0, **o)),
    "Sequential": lambda **o: fl.Sequential(fl.LSTM(I, H, rng=0, **o), fl.Linear(H, 2, rng=0)),
}


class Late:
    """An argument that runs something whenever it is read, and then is `array`."""

    def __init__(self, array, then):
        self.array, self.then = array, then

    def __array__(self, dtype=None, copy=None):
        self.then()
        return self.array


def wrapped(state, then):
    """A state of any structure whose arrays run something when they are read."""
    if isinstance(state, (tuple, list)):
        return type(state)(wrapped(one, then) for one in state)
    return Late(state, then)


def reshape(a, to=None):
    """A change of a in place that keeps its memory, but not its shape."""
    before = a.shape

    def then():
        a.shape = to or (a.size, *[1] * (a.ndim - 1))

    def back():
        a.shape = before

    return then, back


def retype(a):
    before = a.dtype

    def then():
        a.dtype = np.uint8 if a.itemsize == 4 else np.float32

    def back():
        a.dtype = before

    return then, back


CHANGES = {"shape": reshape, "dtype": retype}


def inputs(layer):
    rng = np.random.default_rng(0)
    first = getattr(layer, "batch_first", False)
    x = rng.standard_normal((B, T, I) if first else (T, B, I)).astype(np.float32)
    _, state = layer.forward(x)
    return x, state


def calls(layer, x, state, **given):
    """What inference and training answer."""
    y, last = layer.forward(x, state, **given)
    y2, last2, cache = layer.forward(x, state, cache=True, **given)
    return [y, *leaves(last), y2, *leaves(last2), *flat(layer.backward(np.ones_like(y), cache)).values()]


def leaves(state):
    return [a for one in state for a in leaves(one)] if isinstance(state, (tuple, list)) else [state]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", CHANGES)
def test_x_changed_while_the_state_is_read(kind, change):
    layer = KINDS[kind]()
    x, state = inputs(layer)
    expected = calls(layer, x, state)
    then, back = CHANGES[change](x)
    found = []
    for cache in (False, True):
        found += leaves(layer.forward(x, wrapped(state, then), cache=cache)[:2])
        back()
    assert all(np.isfinite(a).all() for a in found)
    same(found[0], expected[0])
    same(calls(layer, x, state), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", CHANGES)
def test_the_state_changed_by_its_own_reading(kind, change):
    """h0 gives an array, and takes its shape away when the next part, or reset, is read."""
    layer = KINDS[kind]()
    x, state = inputs(layer)
    expected = calls(layer, x, state)
    changes = [CHANGES[change](a) for a in leaves(state)]

    def then():
        for change, _ in changes:
            change()

    late = Late(np.zeros(x.shape[:2], bool), then)
    try:
        same(layer.forward(x, wrapped(state, lambda: None), reset=late)[0], expected[0])
    except (TypeError, ValueError):
        assert kind in ("Reverse", "Bidirectional", "Sequential")  # they read reset first
    finally:
        for _, back in changes:
            back()


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_changed_while_reset_is_read(kind):
    layer = KINDS[kind]()
    x, state = inputs(layer)
    lengths = np.array([T, 1])
    expected = calls(layer, x, state, lengths=lengths)

    def then():
        lengths[:] = [BIG, -BIG]

    for cache in (False, True):
        lengths[:] = [T, 1]
        late = Late(np.zeros(x.shape[:2], bool), then)
        y, _, *rest = layer.forward(x, state, lengths=lengths, reset=late, cache=cache)
        same(y, expected[0])
        if cache:
            same(list(flat(layer.backward(np.ones_like(y), rest[0])).values())[-1], expected[-1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", CHANGES)
def test_dy_changed_while_dstate_is_read(kind, change):
    layer = KINDS[kind]()
    x, state = inputs(layer)
    y, last, cache = layer.forward(x, state, cache=True)
    dy = np.ones_like(y)
    expected = flat(layer.backward(dy, cache, last))
    then, back = CHANGES[change](dy)
    cache = layer.forward(x, state, cache=True)[-1]
    try:
        found = flat(layer.backward(dy, cache, wrapped(last, then)))
    except (TypeError, ValueError):  # read after the change, and refused
        return
    finally:
        back()
    same(list(found.values()), list(expected.values()))


def test_masks_changed_while_they_are_read():
    layer = fl.LSTM(I, H, rng=0, variational_x=0.5, variational_h=0.5)
    x, state = inputs(layer)
    masks = layer.draw_masks(T, B)
    expected = layer.forward(x, state, cache=True, masks=masks)[0]
    first, *_, last = masks
    then, back = reshape(masks[first])
    late = masks | {last: Late(masks[last], then)}
    same(layer.forward(x, state, cache=True, masks=late)[0], expected)
    back()


def parts(layer):
    x, state = inputs(layer)
    y, _, cache = layer.forward(x, state, cache=True)
    return x, state, y, cache


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "bidirectional", "three states", "layers of different sizes"])
def test_a_cache_put_together_by_the_caller_is_refused(kind):
    layer = KINDS[kind]()
    x, state, y, cache = parts(layer)
    other = KINDS[kind]().forward(np.zeros((T + 1, B, I), np.float32), cache=True)[-1]
    wide = fl.LSTM(I, 3 * H, rng=0).forward(x, cache=True)[-1]
    dy = np.ones((BIG // H // B, B, y.shape[2]), np.float32)
    long = cache.layout._replace(steps=len(dy))
    for bad, gradient in [
        (cache._replace(layout=long), dy),
        (cache._replace(core=other.core), y),
        (cache._replace(core=wide.core), y),
        (cache._replace(core=None), y),
        (cache._replace(core=x), y),
        (cache._replace(layout=None), y),
        (cache._replace(layout=cache.layout._replace(batch=B + 1)), y),
    ]:
        with pytest.raises((TypeError, ValueError), match="cache|must be a contiguous"):
            layer.backward(gradient, bad)
    layer.backward(y, cache)


def test_the_arrays_of_a_cache_changed_in_place_are_not_those_that_backward_reads():
    layer = KINDS["LSTM"]()
    x, state, y, cache = parts(layer)
    expected = list(flat(layer.backward(y, cache)).values())
    for name in ("x", "y", "h0", "c0"):
        a = getattr(cache.core, name)
        a.shape = (a.size,)
    same(list(flat(layer.backward(y, cache)).values()), expected)


def test_the_arrays_of_a_cache_cannot_be_changed():
    layer = fl.LSTM(I, H, rng=0, variational_h=0.5)
    x, state, y, cache = parts(layer)
    expected = list(flat(layer.backward(y, cache)).values())
    for name in ("x", "h0", "c0"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(cache.core, name)[...] = 7
        with pytest.raises(ValueError, match="does not own its data"):
            getattr(cache.core, name).resize((1, 1, 1))
    assert not hasattr(cache.core, "masks") and not hasattr(cache.core, "lengths")
    same(list(flat(layer.backward(y, cache)).values()), expected)


class Written(np.ndarray):
    """An array that another thread writes to between the check of its values, of which `<` is a part, and their use."""

    def __lt__(self, other):
        found = np.asarray(self) < other
        shared[...] = BIG
        return found


shared = np.zeros((2, 2), np.int64)


@pytest.mark.parametrize("call", [
    lambda x: fl.Embedding(4, 3, rng=0)._apply(x, None)[0],
    lambda x: fl.losses.cross_entropy(np.eye(4)[[[0, 1], [2, 3]]], x)[1],
], ids=["Embedding", "cross_entropy"])
def test_integers_changed_after_their_check(monkeypatch, call):
    values = np.array([[0, 1], [2, 3]])
    expected = call(values)
    shared[...] = values
    for module in (fl.network, fl.losses):
        monkeypatch.setattr(module, "_read", lambda name, value: value)
    same(call(shared.view(Written)), expected)
    assert (shared == BIG).all()


def test_the_parts_of_a_cache_replaced_by_others():
    """One ValueError that names the cache, before anything is read."""
    linear, x = fl.Linear(I, H, activation="tanh", rng=0), np.ones((T, B, I), np.float32)
    index = np.array([[0, 1], [2, 3], [0, 0]])
    embedding, last = fl.Embedding(4, H, rng=0), fl.LSTM(I, [H, 4], rng=0, dropout=0.5)
    drop = fl.LSTM(I, H, rng=0, weight_drop=0.5)
    y, _, of_linear = linear.forward(x, cache=True)
    _, _, of_some = linear.forward(x, cache=True, lengths=[T, 1])
    _, _, of_index = embedding.forward(index, cache=True)
    _, _, of_rows = embedding.forward(index, cache=True, lengths=[T, 1])
    z, _, ragged = last.forward(x, cache=True)
    _, _, masked = drop.forward(x, cache=True)
    one, core = fl.LSTM(I, H, rng=0).forward(x, cache=True)[-1], ragged.core
    three = fl.LSTM(I, [H, 4, 4], rng=0).forward(x, cache=True)[-1]
    mask = next(name for name in masked.masks if name.startswith("mask_weight"))
    a, b = of_linear.x, of_linear.y
    shapes = [(T, B), (T, B, 3), (T + 1, B, H), (), None, 7, (T, "B", H), (T * B, -1, H), [T, B, H]]
    for layer, good, dy, changes in [
        (linear, of_linear, y, [dict(x=bad) for bad in (None, 3, a[:2], a[:, :2], a.astype("f8"), a.tolist(), a.T)]),
        (linear, of_linear, y, [dict(y=bad) for bad in (None, 3, b[:2], b[:, :2], b.astype("f8"), b.tolist())]),
        (linear, of_linear, y, [dict(shape=bad) for bad in shapes]),
        (linear, of_linear, y, [dict(valid=bad) for bad in (3, np.ones((T, B)), np.zeros((T, B), bool), [True])]),
        (linear, of_some, y, [dict(valid=None), dict(valid=np.ones((T, B), bool)), dict(x=a), dict(y=b)]),
        (embedding, of_index, y, [dict(shape=bad) for bad in shapes]),
        (embedding, of_index, y, [dict(index=bad) for bad in (None, 3, index[:2], index - 1, index + 1, index * 1.0)]),
        (embedding, of_rows, y, [dict(valid=None), dict(valid=np.ones((T, B), bool)), dict(index=index)]),
        (last, ragged, z, [dict(spec=None), dict(masks=None), dict(core=three.core), dict(core=one.core)]),
        (last, ragged, z, [dict(core=core._replace(**bad)) for bad in (
            dict(caches=None), dict(caches=[]), dict(caches=core.caches[:1]), dict(caches=core.caches * 2),
            dict(caches=[None, None]), dict(model=None), dict(model=three.core.model), dict(model=one.core.model),
            dict(dropout=[]), dict(dropout=[None]), dict(dropout=[x]), dict(dropout=core.dropout[0]),
        )]),
        (drop, masked, y, [dict(spec=None), dict(spec=3), dict(masks=None), dict(masks=[]), dict(core=core)]),
        (drop, masked, y, [dict(masks={mask: bad}) for bad in (None, 3, x)]),
        (drop, masked, y, [dict(masks={"mask_weight_none": x})]),
    ]:
        for change in changes:
            with pytest.raises(ValueError, match="cache"):
                layer.backward(dy, good._replace(**change))
        layer.backward(dy, good)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "bidirectional", "three states", "layers of different sizes"])
@pytest.mark.parametrize("unbatched", [False, True])
def test_last_refuses_a_dstate_as_its_layer_does(kind, unbatched):
    layer = KINDS[kind]()
    x, state = inputs(layer)
    x = x[:, 0] if unbatched else x
    y, _, kept = layer.forward(x, cache=True)
    last = fl.Last(layer)
    z, final, cache = last.forward(x, cache=True)
    one = np.ones(3)
    for bad in (5, (1,), (1, 2, 3), (5, None), {}, "h", (None, 5), [[]], one, [one] * 2, (one, "c")):
        with pytest.raises((TypeError, ValueError), match=r"dstate|d[a-z]+n") as of_layer:
            layer.backward(y, kept, bad)
        with pytest.raises(of_layer.type) as found:
            last.backward(z, cache, bad)
        assert str(found.value) == str(of_layer.value)
    flat(last.backward(z, cache, final))
