"""torch.nn.LSTM and fastlstm.LSTM with each other's weights: the same numbers, forward and backward."""

import numpy as np
import pytest
from grids import FEATURES, STACK, Case, bound, distance, flat, problem, same

import fastlstm as fl

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")  # torch, of its own speed

# torch has no resets, no empty sequences, and its packed sequences know no zero lengths
CASES = {name: c for name, c in FEATURES.items() if not c.reset and c.lengths != "zero"}
CASES |= {
    "wide": Case(T=20, B=8, I=64, H=128, layers=2),
    "unsorted lengths": Case(T=7, B=5, layers=2, bidirectional=True, lengths=(3, 7, 1, 7, 5)),
    "sorted lengths": Case(T=7, B=3, proj=4, lengths=(7, 4, 1)),
    "shorter than the array": Case(T=7, B=3, bidirectional=True, lengths=(2, 5, 3)),
}
GRADIENTS = {"float32": 4e-5, "float64": 1e-11}  # two engines, each as far from the truth as docs/numerics.md allows
largest = {"float32": {}, "float64": {}}


def torch_module(case, dtype, **options):
    return torch.nn.LSTM(
        case.I, case.H, case.layers, case.bias, bidirectional=case.bidirectional, proj_size=case.proj,
        dtype=getattr(torch, dtype), **options,
    )


def given_to_torch(p, lengths):
    x, h0, c0 = (torch.tensor(np.array(a), requires_grad=True) for a in (p.x, *(p.state or zeros(p))))
    given = x if lengths is None else torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    return (x, h0, c0), given


def zeros(p):
    return tuple(np.zeros_like(d) for d in p.dstate)


def both(p, layer, module, lengths):
    """((y, hn, cn) of ours, of torch's, gradients of ours, of torch's)."""
    inputs, given = given_to_torch(p, lengths)
    y, state = module(given, inputs[1:])
    if lengths is not None:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=p.case.T)
    douts = [torch.tensor(np.array(d)) for d in (p.dy, *p.dstate)]
    module.zero_grad()
    sum((out * d).sum() for out, d in zip((y, *state), douts, strict=True)).backward()
    theirs = dict(zip(("x", "h0", "c0"), (t.grad for t in inputs), strict=True))
    theirs |= {name: parameter.grad for name, parameter in module.named_parameters()}
    our_y, our_state, cache = layer.forward(p.x, p.state, lengths=lengths, cache=True)
    ours = flat(layer.backward(p.dy, cache, p.dstate))
    outs = [t.detach().numpy() for t in (y, *state)]
    return (our_y, *our_state), outs, ours, {name: g.numpy() for name, g in theirs.items()}


@pytest.mark.parametrize("dtype", largest)
@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_torchs(name, dtype, record_property):
    case = CASES[name]
    p = problem(case, dtype)
    lengths = None if p.lengths is None else np.maximum(p.lengths, 1)
    layer, module = p.layer(), torch_module(case, dtype)
    module.load_state_dict({k: torch.tensor(w) for k, w in layer.state_dict().items()})
    ours, theirs, gradients, torchs = both(p, layer, module, lengths)
    worst = largest[dtype]
    for a, b in zip(ours, theirs, strict=True):
        worst["outputs"] = max(worst.get("outputs", 0), distance(a, b))
        assert distance(a, b) <= 2 * bound(case.T, dtype)
    assert set(gradients) == set(torchs)
    for key, theirs in torchs.items():
        worst["gradients"] = max(worst.get("gradients", 0), distance(gradients[key], theirs))
        assert distance(gradients[key], theirs) <= GRADIENTS[dtype], key
    for what, error in worst.items():
        record_property(f"largest difference of {what} so far, {dtype}", error)


@pytest.mark.parametrize("dtype", largest)
@pytest.mark.parametrize("case", [Case(), STACK, STACK._replace(bias=False, proj=0)])
def test_weights_go_there_and_back(case, dtype):
    module, layer = torch_module(case, dtype), problem(case, dtype).layer()
    assert list(module.state_dict()) == list(layer.state_dict())
    result = layer.load_state_dict(module.state_dict())
    assert result == ([], [])
    for name, weight in module.state_dict().items():
        same(layer.state_dict()[name], weight.numpy())
    layer.load_state_dict(dict(module.named_parameters()))  # torch's own parameters want gradients
    other = torch_module(case, dtype)
    other.load_state_dict({name: torch.from_numpy(w) for name, w in layer.state_dict().items()})
    x = problem(case, dtype).x
    np.testing.assert_array_equal(other(torch.tensor(x))[0].detach(), module(torch.tensor(x))[0].detach())
    assert distance(layer(x)[0], module(torch.tensor(x))[0].detach().numpy()) <= 2 * bound(case.T, dtype)


@pytest.mark.parametrize("case", [Case(T=7, B=4), STACK])
def test_batch_first_is_torchs(case):
    p = problem(case, "float32")
    layer, module = p.layer(batch_first=True), torch_module(case, "float32", batch_first=True)
    layer.load_state_dict(module.state_dict())
    x = np.ascontiguousarray(p.x.swapaxes(0, 1))
    y, (hn, cn) = layer(x, p.state)
    theirs, state = module(torch.tensor(x), tuple(torch.tensor(s) for s in p.state))
    assert y.shape == tuple(theirs.shape)
    for a, b in zip((y, hn, cn), (theirs, *state), strict=True):
        assert distance(a, b.detach().numpy()) <= 2 * bound(case.T, "float32")


@pytest.mark.parametrize("case", [Case(T=7, B=1), STACK._replace(B=1)])
def test_unbatched_is_torchs(case):
    p = problem(case, "float64")
    layer, module = p.layer(), torch_module(case, "float64")
    layer.load_state_dict(module.state_dict())
    state = tuple(s[:, 0].copy() for s in p.state)
    y, new = layer(p.x[:, 0], state)
    theirs, others = module(torch.tensor(p.x[:, 0]), tuple(torch.tensor(s) for s in state))
    for a, b in zip((y, *new), (theirs, *others), strict=True):
        assert a.shape == tuple(b.shape)
        assert distance(a, b.detach().numpy()) <= 2 * bound(case.T, "float64")


def test_the_constructors_take_the_same_arguments_in_the_same_order():
    ours = fl.LSTM(4, 5, 2, False, True, 0.25, True, 3)
    theirs = torch.nn.LSTM(4, 5, 2, False, True, 0.25, True, 3)
    names = "input_size hidden_size num_layers bias batch_first dropout bidirectional proj_size"
    for name in names.split():
        assert getattr(ours, name) == getattr(theirs, name), name
    assert [(k, w.shape) for k, w in ours.state_dict().items()] == [
        (k, tuple(w.shape)) for k, w in theirs.state_dict().items()
    ]


def test_fresh_weights_have_torchs_distribution():
    ours, theirs = fl.LSTM(50, 64, rng=0).state_dict(), torch.nn.LSTM(50, 64).state_dict()
    for name, weight in ours.items():
        other = theirs[name].numpy()
        assert np.abs(weight).max() <= 1 / 8
        assert abs(weight.std() - other.std()) < 0.01
