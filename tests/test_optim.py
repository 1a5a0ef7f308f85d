"""Optimisers: torch's numbers, exact resumption, refusals that change nothing."""

import json
import math
import warnings

import numpy as np
import pytest

import fastlstm as fl
from fastlstm.losses import mse
from fastlstm.optim import SGD, Adam, clip_grad_norm


def make(dtype="float64"):
    return fl.Sequential(fl.Linear(3, 4, rng=0, dtype=dtype), fl.Linear(4, 2, rng=1, dtype=dtype))


def draw_grads(model, rng):
    return {name: rng.normal(size=w.shape).astype(w.dtype) for name, w in model.state_dict().items()}


def same(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a) and set(a) == set(b)


SETTINGS = [
    (SGD, dict(lr=0.1)),
    (SGD, dict(lr=0.1, weight_decay=0.01)),
    (SGD, dict(lr=0.1, momentum=0.9, weight_decay=0.01)),
    (SGD, dict(lr=0.1, momentum=0.9, nesterov=True)),
    (Adam, dict()),
    (Adam, dict(lr=0.02, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1)),
    (Adam, dict(lr=0.02, betas=(0.0, 0.0))),
]


@pytest.mark.parametrize("kind, settings", SETTINGS)
def test_against_torch(kind, settings):
    torch = pytest.importorskip("torch")
    model, rng = make(), np.random.default_rng(3)
    tensors = {name: torch.tensor(w, requires_grad=True) for name, w in model.state_dict().items()}
    ours = kind(model, **settings)
    theirs = getattr(torch.optim, kind.__name__)(list(tensors.values()), **settings)
    for turn in range(12):
        grads = draw_grads(model, rng)
        if turn in (0, 4):  # a weight left alone: its step count must stand still
            grads["1.bias"] = None
        for name, tensor in tensors.items():
            tensor.grad = None if grads[name] is None else torch.tensor(grads[name])
        ours.step(grads)
        theirs.step()
        for name, weight in model.state_dict().items():
            np.testing.assert_allclose(weight, tensors[name].detach().numpy(), rtol=1e-12, atol=1e-14)


def test_sgd_by_hand():
    model = fl.Linear(1, 1, bias=False, dtype="float64")
    model.load_state_dict({"weight": [[1.0]]})
    optimiser = SGD(model, lr=0.5, momentum=0.5)
    for expected in (0.5, -0.25):  # b = 1, then 1.5
        optimiser.step({"weight": np.ones((1, 1))})
        assert model.state_dict()["weight"] == expected


@pytest.mark.parametrize("kind, settings", SETTINGS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_resumes_exactly(kind, settings, dtype):
    rng = np.random.default_rng(4)
    model = make(dtype)
    batches = [draw_grads(model, rng) for _ in range(8)]
    first = kind(model, **settings)
    for grads in batches[:4]:
        first.step(grads)
    weights, state = model.state_dict(), first.state_dict()
    for grads in batches[4:]:
        first.step(grads)

    other = make(dtype)
    other.load_state_dict(weights)
    second = kind(other, **{**settings, "lr": 123.0})  # the saved lr must win
    second.load_state_dict(state)
    for grads in batches[4:]:
        second.step(grads)
    assert same(model.state_dict(), other.state_dict())
    assert all(w.dtype == dtype for w in other.state_dict().values())


def test_saved_state_is_a_copy():
    model = make()
    optimiser = Adam(model)
    rng = np.random.default_rng(0)
    optimiser.step(draw_grads(model, rng))
    state = optimiser.state_dict()
    kept = state["state"]["0.weight"]["exp_avg"].copy()
    optimiser.step(draw_grads(model, rng))
    np.testing.assert_array_equal(state["state"]["0.weight"]["exp_avg"], kept)
    fresh = Adam(make())
    fresh.load_state_dict(state)
    fresh.step(draw_grads(model, rng))
    np.testing.assert_array_equal(state["state"]["0.weight"]["exp_avg"], kept)
    assert state["state"]["0.weight"]["step"] == 1
    json.dumps({key: value for key, value in state.items() if key != "state"})


def test_grads_stay_and_results_follow():
    model = fl.Linear(3, 2, rng=0)
    x = np.ones((1, 3), np.float32)
    before = model(x)
    grads = draw_grads(model, np.random.default_rng(0))
    kept = {name: grad.copy() for name, grad in grads.items()}
    for kind in (SGD(model, 0.1, momentum=0.9, weight_decay=0.1), Adam(model, weight_decay=0.1)):
        kind.step(grads)
        assert same(grads, kept)
    assert not np.array_equal(model(x), before)  # packed weights were dropped


@pytest.mark.parametrize("spoil, error, words", [
    (lambda g: g.pop("0.bias"), ValueError, "missing 0.bias"),
    (lambda g: g.update(extra=np.zeros(1)), ValueError, "unexpected extra"),
    (lambda g: g.update({"1.weight": np.zeros((4, 2))}), ValueError, r"1.weight has shape \(4, 2\), expected \(2, 4\)"),
    (lambda g: g.update({"1.weight": np.zeros((2, 4), int)}), TypeError, "1.weight must hold floats"),
])
@pytest.mark.parametrize("kind", [SGD, Adam])
def test_step_refuses_whole(kind, spoil, error, words):
    model = make()
    optimiser = kind(model, lr=0.1)
    before, grads = model.state_dict(), draw_grads(model, np.random.default_rng(0))
    spoil(grads)
    with pytest.raises(error, match=words):
        optimiser.step(grads)
    assert same(model.state_dict(), before) and optimiser.state_dict()["state"] == {}


@pytest.mark.parametrize("build", [
    lambda m: SGD(m, lr=-1), lambda m: SGD(m, lr=math.nan), lambda m: SGD(m, lr=math.inf),
    lambda m: SGD(m, 0.1, momentum=-0.1), lambda m: SGD(m, 0.1, nesterov=True),
    lambda m: Adam(m, betas=(1.0, 0.9)), lambda m: Adam(m, betas=(0.9,)),
    lambda m: Adam(m, eps=-1), lambda m: Adam(m, weight_decay=-1),
])
def test_settings_out_of_range(build):
    with pytest.raises(ValueError):
        build(make())


def test_lr_must_be_a_number():
    with pytest.raises(TypeError, match="lr must be a number"):
        SGD(make(), lr="0.1")


@pytest.mark.parametrize("spoil", [
    lambda d: d.update({"class": "SGD"}),
    lambda d: d.pop("eps"),
    lambda d: d.update(lr=-1.0),
    lambda d: d["state"].update(other={}),
    lambda d: d["state"]["0.bias"].pop("exp_avg"),
    lambda d: d["state"]["0.bias"].update(exp_avg_sq=np.zeros(9)),
])
def test_load_state_refuses_whole(spoil):
    model = make()
    source, target = Adam(model, lr=0.5), Adam(model, lr=0.25)
    grads = draw_grads(model, np.random.default_rng(0))
    source.step(grads)
    target.step(grads)
    d, before = source.state_dict(), target.state_dict()
    spoil(d)
    with pytest.raises(ValueError):
        target.load_state_dict(d)
    after = target.state_dict()
    assert after["lr"] == 0.25
    for name, kept in before["state"].items():
        assert all(np.array_equal(kept[key], after["state"][name][key]) for key in kept)


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e6, math.inf])
def test_clip_against_torch(max_norm):
    torch = pytest.importorskip("torch")
    grads = draw_grads(make(), np.random.default_rng(5))
    tensors = [torch.zeros(g.shape, dtype=torch.float64, requires_grad=True) for g in grads.values()]
    for tensor, grad in zip(tensors, grads.values()):
        tensor.grad = torch.tensor(grad)
    theirs = torch.nn.utils.clip_grad_norm_(tensors, max_norm)
    assert clip_grad_norm(grads, max_norm) == pytest.approx(theirs.item(), rel=1e-14)
    for tensor, grad in zip(tensors, grads.values()):
        np.testing.assert_allclose(grad, tensor.grad.numpy(), rtol=1e-13)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_clip_non_finite_as_torch(value):
    torch = pytest.importorskip("torch")
    tensor = torch.zeros(2, requires_grad=True)
    tensor.grad = torch.tensor([value, 1.0])
    grads = {"w": np.array([value, 1.0], np.float32), "none": None}
    assert not math.isfinite(clip_grad_norm(grads, 1.0))
    torch.nn.utils.clip_grad_norm_([tensor], 1.0)
    np.testing.assert_array_equal(grads["w"], tensor.grad.numpy())


def test_clip_refusals_leave_grads():
    grads = {"w": np.array([np.inf, 1.0])}
    with pytest.raises(RuntimeError, match="inf"):
        clip_grad_norm(grads, 1.0, error_if_nonfinite=True)
    assert grads["w"][1] == 1.0
    with pytest.raises(TypeError, match="v must be a writeable"):
        clip_grad_norm({"w": grads["w"], "v": [1.0]}, 0.1)
    with pytest.raises(ValueError, match="max_norm"):
        clip_grad_norm(grads, math.nan)
    assert clip_grad_norm({}, 1.0) == 0


def test_clip_does_not_overflow_float32():
    grads = {"w": np.full(4, 1e30, np.float32)}
    assert clip_grad_norm(grads, 1.0) == pytest.approx(2e30)
    np.testing.assert_allclose(grads["w"], 0.5, rtol=1e-6)


def test_a_model_learns_its_teacher():
    rng = np.random.default_rng(0)
    teacher, model = make(), make()
    model._update({name: rng.normal(size=w.shape) for name, w in model.state_dict().items()})
    optimiser = Adam(model, lr=0.02)
    for _ in range(800):
        x = rng.normal(size=(16, 3))
        y, _, cache = model.forward(x, cache=True)
        loss, dy = mse(y, teacher(x))
        optimiser.step(model.backward(dy, cache)[2])
    assert loss < 1e-6


# ---- several modules ----------------------------------------------------------------------------------------------


def encoder_decoder(dtype="float64"):
    options = dict(dtype=dtype)
    decoder = fl.Sequential(fl.GRU(4, 3, rng=1, **options), fl.Linear(3, 2, rng=2, **options))
    return [fl.LSTM(3, 4, rng=0, **options), decoder]


@pytest.mark.parametrize("kind, settings", SETTINGS)
def test_a_list_is_as_each_by_itself(kind, settings):
    together, apart = encoder_decoder(), encoder_decoder()
    optimiser, each = kind(together, **settings), [kind(one, **settings) for one in apart]
    assert optimiser.model == tuple(together) and each[0].model is apart[0]
    rng = np.random.default_rng(3)
    for turn in range(3):
        grads = [draw_grads(one, rng) for one in together]
        if turn == 1:
            grads[1]["1.bias"] = None
        optimiser.step(tuple(grads) if turn else grads)
        for one, own in zip(each, grads, strict=True):
            one.step(own)
    for a, b in zip(together, apart, strict=True):
        assert same(a.state_dict(), b.state_dict())
    state = optimiser.state_dict()["state"]
    assert next(iter(state)) == "0.weight_ih_l0" and state["1.1.bias"]["step"] == 2

    again, fresh = encoder_decoder(), encoder_decoder()
    for a, b in zip(again, together, strict=True):
        a.load_state_dict(b.state_dict())
    second = kind(again, **{**settings, "lr": 3.0})
    second.load_state_dict(optimiser.state_dict())
    for one in (optimiser, second):
        one.step(grads)
    assert all(same(a.state_dict(), b.state_dict()) for a, b in zip(again, together, strict=True))
    with pytest.raises(ValueError, match=r"unexpected 0\.weight_ih_l0"):
        kind(fresh[0], **settings).load_state_dict(optimiser.state_dict())


def test_a_list_of_one_has_its_place_in_the_names():
    model = fl.Linear(3, 2, rng=0)
    optimiser = Adam([model])
    optimiser.step([draw_grads(model, np.random.default_rng(0))])
    assert list(optimiser.state_dict()["state"]) == ["0.weight", "0.bias"] and optimiser.model == (model,)
    with pytest.raises(AttributeError):
        optimiser.model = make()


SHARED = fl.Linear(3, 3)


@pytest.mark.parametrize("model, error, words", [
    ("x", TypeError, "model must be a Module or a list of Modules, got str"),
    (None, TypeError, "got NoneType"),
    (fl.Linear(3, 2).state_dict(), TypeError, "got dict"),
    ({SHARED}, TypeError, "got set"),
    (iter([SHARED]), TypeError, "got list_iterator"),
    (fl.LSTM, TypeError, "got the class LSTM"),
    ([], ValueError, "got an empty list"),
    ([SHARED, None], TypeError, r"model\[1\] must be a Module, got NoneType"),
    ([SHARED, [SHARED]], TypeError, r"model\[1\] must be a Module, got list"),
    ([SHARED, SHARED], ValueError, r"0\.weight and 1\.weight are the same weight"),
    ([SHARED, fl.Sequential(SHARED)], ValueError, r"0\.weight and 1\.0\.weight are the same weight"),
    (fl.Sequential(fl.Sequential(SHARED), SHARED), ValueError, r"0\.0\.weight and 1\.weight are the same weight"),
])
def test_what_cannot_be_optimised(model, error, words):
    for build in (Adam, lambda m: SGD(m, 0.1)):
        with pytest.raises(error, match=words):
            build(model)


@pytest.mark.parametrize("spoil, error, words", [
    (lambda g: g[0], TypeError, "grads must be a list of 2 dicts, one per module, got dict"),
    (lambda g: g[:1], ValueError, "grads must be a list of 2 dicts, one per module, got 1"),
    (lambda g: [g[0], None], TypeError, r"grads\[1\] must be a dict"),
    (lambda g: [g[0], {**g[1], "1.weight": np.zeros((3, 2))}], ValueError, r"1\.1\.weight has shape"),
    (lambda g: [g[0], {**g[1], "1.weight": np.ones((2, 3), int)}], TypeError, r"1\.1\.weight must hold floats"),
    (lambda g: [{}, g[1]], ValueError, "missing 0.weight_ih_l0"),
])
def test_a_step_of_a_list_is_refused_whole(spoil, error, words):
    models = encoder_decoder()
    optimiser = Adam(models)
    before = [one.state_dict() for one in models]
    with pytest.raises(error, match=words):
        optimiser.step(spoil([draw_grads(one, np.random.default_rng(0)) for one in models]))
    assert all(same(one.state_dict(), old) for one, old in zip(models, before, strict=True))
    assert optimiser.state_dict()["state"] == {}
    with pytest.raises(TypeError, match="grads must be a dict of arrays by name, got list"):
        Adam(models[0]).step([draw_grads(models[0], np.random.default_rng(0))])


def test_clip_a_list():
    grads = [draw_grads(one, np.random.default_rng(5)) for one in encoder_decoder()]
    flat = {f"{k}.{name}": grad.copy() for k, one in enumerate(grads) for name, grad in one.items()}
    assert clip_grad_norm(grads, 0.5) == clip_grad_norm(flat, 0.5)
    assert all(np.array_equal(flat[f"{k}.{name}"], grad) for k, one in enumerate(grads) for name, grad in one.items())
    assert clip_grad_norm([], 1.0) == 0.0
    with pytest.raises(TypeError, match=r"grads\[0\] must be a dict of arrays by name, got ndarray"):
        clip_grad_norm([np.ones(3)], 1.0)
    with pytest.raises(TypeError, match="grads must be a dict of arrays by name, got ndarray"):
        clip_grad_norm(np.ones(3), 1.0)


# ---- one array twice -----------------------------------------------------------------------------------------------


def test_an_array_given_twice_is_scaled_once():
    a, other = np.array([3.0, 0.0]), np.array([[4.0]])
    for twin in (a, a[:], a.view(), np.asarray(a)[...]):
        a[...], other[...] = [3.0, 0.0], 4.0
        assert clip_grad_norm([{"a": a, "b": twin}, {"a": other, "c": a}], 1.0) == 5.0
        np.testing.assert_allclose(a, [0.6, 0], rtol=1e-6)
        np.testing.assert_allclose(other, [[0.8]], rtol=1e-6)


@pytest.mark.parametrize("cut", [
    lambda a: (a, a[1:]), lambda a: (a[:5], a[4:]), lambda a: (a, a[::-1]), lambda a: (a[::2], a[4:]),
    lambda a: (a, a.reshape(2, 4)), lambda a: (a.reshape(2, 4), a.reshape(2, 4)[:, 1]), lambda a: (a, a.view("f4")),
])
def test_overlapping_views_are_refused(cut):
    a = np.arange(8.0)
    one, two = cut(a)
    with pytest.raises(ValueError, match="grads: .* and .* have a part of their memory in common"):
        clip_grad_norm({"one": one, "more": np.ones(3), "two": two}, 0.1)
    np.testing.assert_array_equal(a, np.arange(8.0))


def test_views_that_do_not_overlap_are_scaled():
    a = np.ones((4, 6))
    parts = {"left": a[:, :2], "right": a[:, 3:], "empty": a[:0], "between": a[::-1, 2:3]}
    assert clip_grad_norm(parts, 1.0) == pytest.approx(math.sqrt(24))
    np.testing.assert_allclose(a, 1 / math.sqrt(24), rtol=1e-6)
    broad = np.lib.stride_tricks.as_strided(np.ones(1), (3,), (0,))
    with pytest.raises(ValueError, match="elements of broad have their memory in common"):
        clip_grad_norm({"broad": broad}, 1.0)


@pytest.mark.parametrize("max_norm, error", [("1", TypeError), (None, TypeError), (True, TypeError), (-1, ValueError),
                                             (math.nan, ValueError), (np.ones(2), TypeError)])
def test_max_norm(max_norm, error):
    with pytest.raises(error, match="max_norm must be"):
        clip_grad_norm({"a": np.ones(2)}, max_norm)


# ---- numbers that are not finite -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind, settings", SETTINGS)
def test_gradients_that_are_not_finite_are_told_once(kind, settings, value):
    model = make("float32")
    optimiser, rng = kind(model, **settings), np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimiser.step(draw_grads(model, rng))
        before, state = model.state_dict(), optimiser.state_dict()
        bad = draw_grads(model, rng)
        bad["1.weight"][0, 1] = value
        for _ in range(2):  # where warnings are errors, nothing changes, however often it is tried
            with pytest.raises(RuntimeWarning, match=r"grads: NaN or infinity in 1\.weight; the weights"):
                optimiser.step(bad)
            assert same(model.state_dict(), before)
            assert optimiser.state_dict()["state"]["1.weight"]["step"] == state["state"]["1.weight"]["step"]
    with pytest.warns(RuntimeWarning, match="NaN or infinity") as found:
        optimiser.step(bad)
    assert [one.filename for one in found] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimiser.step(bad)  # not again
        optimiser.load_state_dict(state)
        with pytest.raises(RuntimeWarning):  # but after a fresh start
            optimiser.step(bad)


@pytest.mark.parametrize("kind, settings", SETTINGS)
def test_large_numbers_are_no_reason_to_warn(kind, settings):
    model = fl.Linear(3, 4, rng=0)
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        grads = {"weight": np.full((4, 3), 3e38, np.float32), "bias": np.full(4, 1e-42, np.float32)}
        kind(model, **settings).step(grads)
        clip_grad_norm(grads, 1.0)
        clip_grad_norm({"a": np.full(4, 1e300)}, 1.0)


def test_saving_what_is_not_finite_is_told(tmp_path):
    model = make()
    model.save(tmp_path / "a")
    good = (tmp_path / "a").read_bytes()
    weights = model.state_dict()
    weights["0.bias"][1] = math.nan
    model._update(weights)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match=r"a: NaN or infinity in 0\.bias"):
            model.save(tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == good  # the last good file
    with pytest.warns(RuntimeWarning, match="NaN or infinity") as found:
        model.save(tmp_path / "a")
    assert [one.filename for one in found] == [__file__]


# ---- saved state ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry, error, words", [
    (dict(step=-1), ValueError, r"step of 0\.bias must be from 0 to 2\*\*53, got -1"),
    (dict(step=2**53 + 1), ValueError, "step of 0.bias must be from 0"),
    (dict(step=2.7), TypeError, r"step of 0\.bias must be an integer, got 2\.7"),
    (dict(step=2.0), TypeError, "must be an integer"), (dict(step="3"), TypeError, "must be an integer, got '3'"),
    (dict(step=True), TypeError, "must be an integer"), (dict(step=None), TypeError, "must be an integer"),
    (dict(exp_avg_sq=[0, 0, -1e-30, 0]), ValueError, "exp_avg_sq of 0.bias holds numbers below 0"),
    (dict(exp_avg_sq=[0, 0, math.nan, 0]), ValueError, "exp_avg_sq of 0.bias holds NaN, infinity"),
    (dict(exp_avg=[0, 0, math.inf, 0]), ValueError, "exp_avg of 0.bias holds NaN, infinity"),
    (dict(exp_avg=[0, 0, 1e300, 0]), ValueError, "or a number too large for float32"),
    (dict(exp_avg=["a"] * 4), TypeError, "exp_avg of 0.bias must hold real numbers, got <U1"),
    (dict(exp_avg=[0, [1], 2, 3]), ValueError, "exp_avg of 0.bias cannot be read as an array"),
    (dict(exp_avg=[0j] * 4), TypeError, "must hold real numbers, got complex128"),
])
def test_a_saved_state_that_makes_no_sense(entry, error, words):
    model = make("float32")
    adam = Adam(model, lr=0.5)
    grads = draw_grads(model, np.random.default_rng(0))
    adam.step(grads)
    before = adam.state_dict()
    bad = adam.state_dict()
    bad["lr"] = 7.0
    bad["state"]["0.bias"].update(entry)
    with pytest.raises(error, match=words):
        adam.load_state_dict(bad)
    after = adam.state_dict()
    assert after["lr"] == 0.5
    for name, kept in before["state"].items():
        assert all(np.array_equal(kept[key], after["state"][name][key]) for key in kept)


def test_a_saved_state_that_does():
    model = make("float32")
    adam = Adam(model)
    adam.step(draw_grads(model, np.random.default_rng(0)))
    state = adam.state_dict()
    for step in (0, np.int64(7), np.array(7)):
        state["state"]["0.bias"] = {"step": step, "exp_avg": [0, 1, 2, 3], "exp_avg_sq": np.zeros(4, int)}
        adam.load_state_dict(state)
        assert type(adam.state_dict()["state"]["0.bias"]["step"]) is int
        adam.step(draw_grads(model, np.random.default_rng(0)))
    with pytest.raises(ValueError, match="state must have the keys"):
        adam.load_state_dict({**state, 3: 4})
