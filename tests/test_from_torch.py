"""fastlstm.from_torch and to_torch: the same numbers, forward and backward, there and back; what is refused."""

import copy

import numpy as np
import pytest
from grids import bound, distance

import fastlstm as fl

torch = pytest.importorskip("torch")
nn = torch.nn
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")  # torch, of its own speed

T, B, I, H = 7, 3, 5, 6
GRADIENTS = {"float32": 4e-5, "float64": 1e-11}  # as in test_torch_parity.py
LAYERS = {
    "lstm": lambda: nn.LSTM(I, H),
    "lstm, everything": lambda: nn.LSTM(I, H, 2, bias=False, batch_first=True, dropout=0.3, bidirectional=True,
                                        proj_size=4),
    "lstm, projection": lambda: nn.LSTM(I, H, proj_size=2),
    "gru": lambda: nn.GRU(I, H),
    "gru, everything": lambda: nn.GRU(I, H, 3, batch_first=True, dropout=0.5, bidirectional=True),
    "rnn": lambda: nn.RNN(I, H),
    "rnn, relu": lambda: nn.RNN(I, H, 2, nonlinearity="relu", bias=False, bidirectional=True),
}
CELLS = {
    "lstm cell": lambda: nn.LSTMCell(I, H),
    "gru cell": lambda: nn.GRUCell(I, H, bias=False),
    "rnn cell": lambda: nn.RNNCell(I, H, nonlinearity="relu"),
}
CHAINS = {
    "linear": lambda: nn.Linear(I, H, bias=False),
    "relu": lambda: nn.Sequential(nn.Linear(I, H), nn.ReLU(), nn.Linear(H, 2)),
    "tanh, sigmoid": lambda: nn.Sequential(nn.Linear(I, H), nn.Tanh(), nn.Linear(H, 2), nn.Sigmoid()),
    "softmax": lambda: nn.Sequential(nn.Dropout(), nn.Linear(I, H), nn.Dropout(0.2), nn.Softmax(dim=-1)),
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Linear(I, 3), nn.Tanh()), nn.Sequential(nn.Dropout()),
                                    nn.Linear(3, 2)),
}


def made(make, dtype="float32"):
    torch.manual_seed(3)
    return make().to(getattr(torch, dtype))


def data(dtype, *shape):
    return np.random.default_rng(5).normal(size=shape).astype(dtype)


def numpy(found):
    """y and states as a flat list of arrays."""
    if isinstance(found, (tuple, list)):
        return [array for one in found for array in numpy(one)]
    return [found.detach().numpy() if isinstance(found, torch.Tensor) else found]


def equal(a, b):
    """Two torch modules, or two models: the same names, types and bits."""
    a, b = a.state_dict(), b.state_dict()
    assert list(a) == list(b)
    for name in a:
        x, y = np.asarray(a[name]), np.asarray(b[name])
        assert x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes(), name


def check_outputs_and_gradients(module, model, dtype):
    module.train(False)  # of the outputs; gradients are the same function's
    x = data(dtype, T, B, I)
    given = torch.tensor(x, requires_grad=True)
    theirs = module(given)
    y, state, cache = model.eval().forward(x, cache=True)
    ours = numpy((y, state)) if model.recurrent else [y]
    for one, other in zip(ours, numpy(theirs), strict=True):
        assert one.dtype == dtype and distance(one, other) <= 2 * bound(T, dtype)
    dy = data(dtype, *y.shape)
    (theirs[0] if isinstance(theirs, tuple) else theirs).backward(torch.tensor(dy))
    dx, _, grads = model.backward(dy, cache)
    assert distance(dx, given.grad.numpy()) <= GRADIENTS[dtype]
    for one, parameter in zip(grads.values(), module.parameters(), strict=True):
        assert distance(one, parameter.grad.numpy()) <= GRADIENTS[dtype]


@pytest.mark.parametrize("dtype", GRADIENTS)
@pytest.mark.parametrize("name", [*LAYERS, *CHAINS])
def test_outputs_and_gradients_are_torchs(name, dtype):
    module = made((LAYERS | CHAINS)[name], dtype)
    check_outputs_and_gradients(module, fl.from_torch(module), dtype)
    model = fl.from_torch(module)
    check_outputs_and_gradients(fl.to_torch(model), model, dtype)


@pytest.mark.parametrize("dtype", GRADIENTS)
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_is_one_layer(name, dtype):
    cell = made(CELLS[name], dtype)
    model, x, state = fl.from_torch(cell), data(dtype, T, B, I), None
    y, last = model(x)
    for t in range(T):
        state = cell(torch.tensor(x[t]), state)
        h = state[0] if isinstance(state, tuple) else state
        assert distance(y[t], h.detach().numpy()) <= 2 * bound(T, dtype)
    for one, other in zip(numpy(last), numpy(state), strict=True):
        assert distance(one[0], other) <= 2 * bound(T, dtype)
    assert list(model.state_dict()) == [f"{n}_l0" for n in cell.state_dict()]


def test_a_whole_model():
    members = [nn.Embedding(11, I, padding_idx=0), nn.LSTM(I, H, 2), nn.Dropout(0.5), nn.Linear(H, 4), nn.Softmax(-1)]
    module = nn.Sequential(*members).eval()
    model = fl.from_torch(module)
    index = np.random.default_rng(0).integers(0, 11, (T, B))
    theirs = members[4](members[3](members[1](members[0](torch.tensor(index)))[0]))
    y, _ = model(index)
    assert distance(y, theirs.detach().numpy()) <= 2 * bound(T, "float32")
    assert len(model) == 3 and model[2].activation == "softmax"
    np.testing.assert_array_equal(model.stream(B).process(index), y)


@pytest.mark.parametrize("dtype", GRADIENTS)
@pytest.mark.parametrize("name", [*LAYERS, *CHAINS])
def test_there_and_back(name, dtype):
    module = made((LAYERS | CHAINS)[name], dtype)
    model = fl.from_torch(module)
    back = fl.to_torch(model)
    again = fl.from_torch(back)
    equal(model, again)
    assert again.describe() == model.describe()
    if name in LAYERS:
        equal(module, back)
        assert repr(module) == repr(back) and list(dict(back.named_parameters())) == list(module.state_dict())
    assert [p.dtype for p in module.parameters()] == [p.dtype for p in back.parameters()]
    assert [w.tobytes() for w in model.state_dict().values()] == [p.detach().numpy().tobytes()
                                                                  for p in module.parameters()]


def test_weights_are_copies():
    module = made(LAYERS["lstm"])
    model = fl.from_torch(module)
    before = model.state_dict()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    back = fl.to_torch(model)
    with torch.no_grad():
        for parameter in back.parameters():
            parameter.zero_()
    for name, weight in model.state_dict().items():
        assert weight.tobytes() == before[name].tobytes() and weight.any()
    module.weight_ih_l0.data = module.weight_ih_l0.data.t().contiguous().t()  # strided memory is read all the same
    fl.from_torch(module)


def test_the_mode_is_that_of_each_part():
    module = nn.Sequential(nn.Linear(2, 3), nn.GRU(3, 4))
    module[1].eval()
    model = fl.from_torch(module)
    assert (model.training, model[0].training, model[1].training) == (True, True, False)
    back = fl.to_torch(model)
    assert (back.training, back[0].training, back[1].training) == (True, True, False)
    assert not fl.from_torch(module.eval()).training


def test_torchs_random_numbers_are_left_alone():
    model = fl.LSTM(3, 4, rng=0)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    fl.to_torch(model), fl.from_torch(nn.Sequential(fl.to_torch(model)))
    assert torch.equal(torch.rand(3), expected)


# ---- refusals ---------------------------------------------------------------------------------------------------


class Mine(nn.LSTM):
    pass


def hooked():
    module = nn.Linear(2, 3)
    module.register_forward_hook(lambda module, x, y: 2 * y)
    return module


def tied():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    return nn.Sequential(first, second)


def twice():
    module = nn.Linear(3, 3)
    return nn.Sequential(module, module)


REFUSED = {
    "conv": (lambda: nn.Conv1d(2, 3, 1), r"the model itself \(Conv1d\)"),
    "conv inside": (lambda: nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Conv1d(2, 3, 1))), r"1\.0 \(Conv1d\)"),
    "named": (lambda: nn.ModuleDict({"a": nn.Linear(2, 2)}), r"\(ModuleDict\)"),
    "activation first": (lambda: nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), r"0 \(ReLU\).*behind a Linear"),
    "activation alone": (nn.Tanh, r"\(Tanh\)"),
    "activation of an LSTM": (lambda: nn.Sequential(nn.LSTM(2, 2), nn.Tanh()), r"1 \(Tanh\)"),
    "two activations": (lambda: nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.ReLU()), r"2 \(ReLU\)"),
    "softmax over time": (lambda: nn.Sequential(nn.Linear(2, 2), nn.Softmax(dim=0)), r"1 \(Softmax\) has dim=0"),
    "gelu": (lambda: nn.Sequential(nn.Linear(2, 2), nn.GELU()), r"1 \(GELU\)"),
    "max_norm": (lambda: nn.Embedding(3, 2, max_norm=1.0), r"\(Embedding\): max_norm=1\.0"),
    "scale_grad_by_freq": (lambda: nn.Embedding(3, 2, scale_grad_by_freq=True), "scale_grad_by_freq"),
    "half": (lambda: nn.LSTM(2, 3).half(), r"\(LSTM\): weight_ih_l0 holds float16"),
    "meta": (lambda: nn.Linear(2, 3, device="meta"), "meta device"),
    "lazy": (lambda: nn.LazyLinear(3), "LazyLinear"),
    "subclass": (lambda: Mine(2, 3), r"\(Mine\).*subclass"),
    "hook": (hooked, "hooks"),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)), "parametrization"),
    "tied": (tied, r"1 \(Linear\): weight is that of 0 \(Linear\)"),
    "twice": (twice, r"1 \(Linear\)"),
    "dropout only": (lambda: nn.Sequential(nn.Dropout()), "nothing"),
    "dropout alone": (nn.Dropout, "nothing"),
    "empty": (nn.Sequential, "nothing"),
    "list": (lambda: [nn.LSTM(2, 3)], "must be a torch.nn.Module, a state dict, .* a binary file object, got list"),
    "mixed": (lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()), "float64"),
    "widths": (lambda: nn.Sequential(nn.Linear(2, 3), nn.Linear(2, 2)), "features"),
}


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("name", REFUSED)
def test_what_from_torch_refuses(name):
    make, words = REFUSED[name]
    with pytest.raises(TypeError, match=f"(?s)from_torch.*{words}"):
        fl.from_torch(make())


TO_REFUSED = {
    "reset_after": (lambda: fl.GRU(2, 3, reset_after=False), "reset_after=False"),
    "peephole": (lambda: fl.LSTM(2, 3, peephole="ifo", cell_clip=2.0), "peephole='ifo'.*cell_clip=2.0"),
    "activations": (lambda: fl.RNN(2, 3, activations=("softsign",)), "activations"),
    "zoneout": (lambda: fl.GRU(2, 3, zoneout_h=0.1), "zoneout_h=0.1"),
    "weight drop": (lambda: fl.LSTM(2, 3, weight_drop=0.1), "weight_drop=0.1"),
    "sizes": (lambda: fl.LSTM(2, [3, 4]), r"hidden_size=\[3, 4\]"),
    "inside": (lambda: fl.Sequential(fl.Linear(2, 2), fl.LSTM(2, 3, clip=1.0)), r"1 \(LSTM\).*clip=1.0"),
}


@pytest.mark.parametrize("name", TO_REFUSED)
def test_options_torch_lacks_are_named(name):
    make, words = TO_REFUSED[name]
    with pytest.raises(ValueError, match=words):
        fl.to_torch(make())


@pytest.mark.parametrize("make", [lambda: fl.ClockworkRNN(2, 4), lambda: fl.LSTM1997(2, 3), lambda: 3])
def test_classes_torch_lacks(make):
    with pytest.raises(TypeError, match="has no counterpart in torch"):
        fl.to_torch(make())


def test_default_activations_spelled_out_are_torchs():
    model = fl.LSTM(2, 3, activations=("sigmoid", "tanh", "tanh"), rng=0)
    equal(fl.from_torch(fl.to_torch(model)), model)
    assert copy.deepcopy(fl.to_torch(model)).hidden_size == 3


def test_layers_of_our_own_for_torch():
    """Trained as `fastlstm.torch`, run without torch."""
    import fastlstm.torch as accelerated

    module = nn.Sequential(nn.Linear(3, 4), nn.GRU(4, 5, 2, bidirectional=True))
    expected = fl.from_torch(module)
    accelerated.accelerate(module)
    equal(fl.from_torch(module), expected)
    assert repr(fl.from_torch(accelerated.LSTM(3, 4, proj_size=2))) == "LSTM(3, 4, proj_size=2)"
