"""Cells other than the LSTM on the same drivers: everything the LSTM's tests ask of it, on one grid."""

import pickle

import numpy as np
import pytest
from grids import DTYPES, FEATURES, SPLITS, Case, as_tuple, assert_split, bound, distance, flat, problem, same

import fastlstm as fl
from fastlstm import _core, reference, variants

CELLS = ("gru", "rnn")
CASES = {name: case._replace(proj=0) for name, case in FEATURES.items() if "project" not in name}
CASES |= {
    "hoisted": Case(T=60, B=1, I=20, H=37), "hoisted, two rows": Case(T=30, B=2, I=40, H=100),
    "wide": Case(T=12, B=7, I=33, H=130, layers=2),
}


def grid(cell):
    return {name: case._replace(cell=cell) for name, case in CASES.items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_outputs_traces_and_gradients_are_the_references(isa, cell, dtype):
    limit = 2e-5 if dtype == "float32" else 1e-11
    for name, case in grid(cell).items():
        p = problem(case, dtype)
        layer, expected = p.layer(), p.reference()
        y, hn, trace, cache = layer.forward(p.x, trace=True, cache=True, **p.given)
        assert distance(y, expected[0]) <= bound(case.T, dtype), name
        assert distance(hn, expected[1]) <= bound(case.T, dtype), name
        assert trace._fields == (*variants.variant(cell).gates, "h")
        for field, ours, theirs in zip(trace._fields, trace, reference.trace(expected[2]), strict=True):
            for one, other in zip(*(a if isinstance(a, list) else [a] for a in (ours, theirs)), strict=True):
                assert distance(one, other) <= bound(case.T, dtype), (name, field)
        inferred = layer(p.x, **p.given)
        same(inferred, (y, hn))
        grads, theirs = flat(layer.backward(p.dy, cache, p.dstate)), p.gradients()
        assert set(grads) == set(theirs)
        for key, value in theirs.items():
            assert distance(grads[key], value) <= limit, (name, key)


@pytest.mark.parametrize("gemm", ["panel", "blas"])
@pytest.mark.parametrize("cell", CELLS)
def test_both_ways_of_large_products(cell, gemm):
    _core.force_gemm(gemm)
    try:
        for case in (Case(T=9, B=4, I=20, H=37, layers=2, bidirectional=True, cell=cell), Case(T=5, H=8, cell=cell)):
            p = problem(case, "float64")
            y, _, cache = p.layer().forward(p.x, p.state, cache=True)
            assert distance(y, p.reference()[0]) <= bound(case.T, "float64")
            grads = flat(p.layer().backward(p.dy, cache, p.dstate))
            assert all(distance(grads[key], value) <= 1e-11 for key, value in p.gradients().items())
    finally:
        _core.force_gemm(None)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_every_number_of_units(isa, cell, dtype):
    for hidden in range(1, 71):
        for inputs, rows in ((3, 1), (17, 1), (17, 2), (3, 7)):
            p = problem(Case(T=3, B=rows, I=inputs, H=hidden, cell=cell), dtype)
            y, hn = p.layer()(p.x, p.state)
            assert distance(y, p.reference()[0]) <= bound(3, dtype), (hidden, inputs, rows)
            for b in range(rows):  # a row of a batch is that row alone
                same(p.layer()(p.x[:, b : b + 1], p.state[:, b : b + 1])[0], np.ascontiguousarray(y[:, b : b + 1]))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", [name for name in SPLITS if "projection" not in name])
def test_any_number_of_threads_gives_the_same_bits(name, cell, favour):
    threads, case = SPLITS[name]
    favour(name)
    case = case._replace(cell=cell, proj=0, H=case.H * 3 if cell == "rnn" else case.H * 2)
    p = problem(case, "float32")
    one = p.layer(num_threads=1)
    expected = one(p.x, **p.given)
    *_, cache = one.forward(p.x, cache=True, **p.given)
    gradients = flat(one.backward(p.dy, cache, p.dstate))
    for n in threads:
        layer = p.layer(num_threads=n)
        assert_split(layer, name.split(",")[0], n, case.T, case.B)
        for _ in range(5):
            same(layer(p.x, **p.given), expected)
        *_, cache = layer.forward(p.x, cache=True, **p.given)
        for key, value in flat(layer.backward(p.dy, cache, p.dstate)).items():
            same(value, gradients[key])


@pytest.mark.parametrize("cell", CELLS)
def test_all_instruction_sets_give_the_same_bits(cell):
    for name, case in grid(cell).items():
        p, results = problem(case, "float32"), []
        for isa in _core.available_isas():
            _core.force_isa(isa)
            try:
                results.append(as_tuple(p.layer()(p.x, **p.given)[1]))
            finally:
                _core.force_isa(None)
        for result in results[1:]:
            same(result, results[0])
        assert name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers, rows", [(1, 1), (2, 3)])
def test_a_stream_gives_what_one_call_gives(isa, cell, dtype, layers, rows):
    p = problem(Case(T=11, B=rows, I=17, H=21, layers=layers, cell=cell), dtype)
    layer = p.layer()
    y, hn = layer(p.x, p.state)
    stream = layer.stream(rows)
    stream.state = p.state
    same(np.stack([stream.step(x) for x in p.x[:4]]), y[:4])
    same(stream.process(p.x[4:]), y[4:])
    same(stream.state, hn)
    stream.reset(np.arange(rows) == 0)
    assert not stream.state[:, 0].any()
    same(stream.state[:, 1:], hn[:, 1:])
    stream.state = None
    assert not stream.state.any()


def test_a_state_is_one_array():
    gru, x = fl.GRU(3, 5, rng=0), np.zeros((4, 2, 3), np.float32)
    with pytest.raises(TypeError, match="state must be an array h0, got tuple of 2: this cell has no c"):
        gru(x, (np.zeros((1, 2, 5)), np.zeros((1, 2, 5))))
    with pytest.raises(ValueError, match=r"h0 has shape \(1, 2, 4\), expected \(1, 2, 5\)"):
        gru(x, np.zeros((1, 2, 4)))
    *_, cache = gru.forward(x, cache=True)
    with pytest.raises(TypeError, match="dstate must be an array dhn"):
        gru.backward(np.zeros((4, 2, 5)), cache, (np.zeros((1, 2, 5)), None))
    y, hn = gru(x[:, 0])
    assert y.shape == (4, 5)
    assert hn.shape == (1, 5)
    assert gru(x[:, 0], hn)[1].shape == (1, 5)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match='nonlinearity must be "tanh" or "relu", got \'sin\''):
        fl.RNN(3, 4, nonlinearity="sin")
    with pytest.raises(TypeError, match="proj_size"):
        fl.GRU(3, 4, proj_size=2)


@pytest.mark.parametrize("relu", [False, True])
def test_relu(isa, relu):
    """The nonlinearity, its derivative, and a NaN that stays one."""
    rnn = fl.RNN(6, 9, nonlinearity="relu" if relu else "tanh", dtype="float64", rng=0)
    w, x = rnn.state_dict(), np.random.default_rng(0).normal(size=(5, 3, 6))
    y, hn, cache = rnn.forward(x, cache=True)
    h = np.zeros((3, 9))
    for t in range(5):
        z = x[t] @ w["weight_ih_l0"].T + w["bias_ih_l0"] + h @ w["weight_hh_l0"].T + w["bias_hh_l0"]
        h = np.maximum(z, 0) if relu else np.tanh(z)
        assert distance(y[t], h) < 1e-14
    dx, dh0, _ = rnn.backward(np.zeros_like(y), cache, np.ones((1, 3, 9)))
    step = 1e-6
    for i in range(6):
        up, down = x.copy(), x.copy()
        up[2, 1, i] += step
        down[2, 1, i] -= step
        slope = (rnn(up)[1].sum() - rnn(down)[1].sum()) / (2 * step)
        assert abs(slope - dx[2, 1, i]) < 1e-7
    x[1, 1] = np.nan
    y = rnn(x)[0]
    assert np.isnan(y[1:, 1]).all()
    assert np.isfinite(y[:, [0, 2]]).all()


@pytest.mark.parametrize("model", [
    fl.GRU(3, 5, 2, bidirectional=True, rng=0), fl.RNN(3, 5, nonlinearity="relu", rng=0),
    fl.Sequential(fl.GRU(3, 5, rng=0), fl.RNN(5, 4, rng=1), fl.Linear(4, 2, rng=2)),
])
def test_files_pickles_and_chains(model, tmp_path):
    x = np.random.default_rng(1).normal(size=(6, 2, 3)).astype(np.float32)
    model.save(tmp_path / "model.safetensors")
    for other in (fl.load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(model))):
        assert other.config() == model.config()
        same(other(x)[0], model(x)[0])
    y, _, cache = model.forward(x, cache=True)
    assert model.backward(np.ones_like(y), cache)[0].shape == x.shape


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [
    {"cell": "gru"}, {"cell": "rnn"}, {"cell": "rnn", "nonlinearity": "relu"},
])
@pytest.mark.parametrize("case", [Case(T=7, B=4), Case(T=20, B=8, I=40, H=70, layers=2, bidirectional=True)])
def test_torchs_own_layers_give_the_same(options, case, dtype):
    torch = pytest.importorskip("torch")
    options = dict(options)
    kind = {"gru": "GRU", "rnn": "RNN"}[options.pop("cell")]
    module = getattr(torch.nn, kind)(
        case.I, case.H, case.layers, bidirectional=case.bidirectional, dtype=getattr(torch, dtype), **options
    )
    layer = getattr(fl, kind)(case.I, case.H, case.layers, bidirectional=case.bidirectional, dtype=dtype, **options)
    assert list(layer.state_dict()) == list(module.state_dict())
    layer.load_state_dict(module.state_dict())
    p = problem(case._replace(cell="gru"), dtype)
    x, h0 = (torch.tensor(np.array(a), requires_grad=True) for a in (p.x, p.state))
    y, hn = module(x, h0)
    ((y * torch.tensor(np.array(p.dy))).sum() + (hn * torch.tensor(np.array(p.dstate))).sum()).backward()
    ours, last, cache = layer.forward(p.x, p.state, cache=True)
    assert distance(ours, y.detach().numpy()) <= 2 * bound(case.T, dtype)
    assert distance(last, hn.detach().numpy()) <= 2 * bound(case.T, dtype)
    dx, dh0, grads = layer.backward(p.dy, cache, p.dstate)
    theirs = {"x": x.grad, "h0": h0.grad} | {name: w.grad for name, w in module.named_parameters()}
    for name, value in ({"x": dx, "h0": dh0} | grads).items():
        assert distance(value, theirs[name].numpy()) <= (4e-5 if dtype == "float32" else 1e-11), name
