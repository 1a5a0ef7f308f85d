"""Optimisers: torch's numbers, exact resumption, refusals that change nothing."""

import json
import math

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
