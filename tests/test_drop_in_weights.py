"""fastlstm.torch packs weights once: after every kind of change of a parameter, results must be those of the new ones.

The judge is a fresh module of torch with the weights of that moment.
"""

import copy
import io
import pickle
import threading

import pytest

torch = pytest.importorskip("torch")

from drop_in import Config, difference, outputs, pair, problem, run  # noqa: E402
from torch.nn.utils import parametrizations, parametrize, prune  # noqa: E402

import fastlstm.torch as ft  # noqa: E402
from fastlstm.torch import torch_panels  # noqa: E402

SMALL = 1e-13
SQUARE = Config("RNN tanh", layers=2, bidirectional=True, I=7)  # all matrices but those of the second layer are 7 x 7


def optimize(make):
    def change(layer):
        for parameter in layer.parameters():
            parameter.grad = torch.ones_like(parameter)
        make(list(layer.parameters())).step()

    return change


def last_number_through_numpy(layer):
    list(layer.parameters())[-1].detach().numpy()[-1] += 0.5


def no_grad(layer):
    with torch.no_grad():
        layer.weight_hh_l0[3, 2] += 0.5


def inference_mode(layer):
    with torch.inference_mode():
        layer.weight_hh_l0.mul_(1.5)


def alias(layer):
    memory = layer.weight_hh_l0.data.clone()
    layer.weight_hh_l0.data = memory
    layer(torch.zeros(2, 1, 7, dtype=memory.dtype))
    memory.mul_(1.5)


def back_at_an_old_address(layer):
    """What a call has seen is freed, and allocators like to hand out the same address again."""
    weight, x = layer.weight_hh_l0, torch.zeros(2, 1, 7, dtype=torch.float64)
    for k in range(20):
        weight.data = torch.full((7, 7), 0.01 * k, dtype=torch.float64)
        seen = weight.data_ptr()
        with torch.no_grad():
            layer(x)
        weight.data = torch.zeros(7, 7, dtype=torch.float64)
        weight.data = torch.full((7, 7), 0.7, dtype=torch.float64)
        if weight.data_ptr() == seen:
            break


def inference_tensor(layer):
    with torch.inference_mode():
        layer.weight_hh_l0.data = torch.full((7, 7), 0.2, dtype=layer.weight_hh_l0.dtype)


def replace(layer):
    layer.weight_hh_l0 = torch.nn.Parameter(layer.weight_hh_l0.detach() * 2)


def tie(layer):
    layer.weight_hh_l0_reverse = layer.weight_hh_l0


def load(layer, **options):
    layer.load_state_dict({name: 2 * w for name, w in layer.state_dict().items()}, **options)


def vector(layer):
    parameters = list(layer.parameters())
    torch.nn.utils.vector_to_parameters(-torch.nn.utils.parameters_to_vector(parameters), parameters)


# Those that go by a version counter, by an address, or by another shape of the same memory: trusts_versions sees them
SEEN = {
    "SGD": optimize(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
    "SGD, one by one": optimize(lambda p: torch.optim.SGD(p, lr=0.1, foreach=False)),
    "Adam": optimize(lambda p: torch.optim.Adam(p, lr=0.1)),
    "no_grad": no_grad,
    "inference_mode": inference_mode,
    "detach().mul_": lambda layer: layer.bias_hh_l1.detach().mul_(3),
    "nn.init": lambda layer: torch.nn.init.orthogonal_(layer.weight_hh_l1_reverse),
    "reset_parameters": lambda layer: layer.reset_parameters(),
    "load_state_dict": load,
    "load_state_dict, assigned": lambda layer: load(layer, assign=True),
    "another Parameter": replace,
    "tied": tie,
    ".data = another": lambda layer: setattr(layer.weight_hh_l0, "data", layer.weight_hh_l0.data * 2),
    ".data = transposed": lambda layer: setattr(layer.weight_hh_l0, "data", layer.weight_hh_l0.data.t()),
    ".data = an old address": back_at_an_old_address,
    ".data = an inference tensor": inference_tensor,
    "vector_to_parameters": vector,
    "to and back": lambda layer: layer.float().double(),
    "share_memory": lambda layer: (layer.share_memory(), no_grad(layer)),
}
# Those that leave no trace but the numbers
UNSEEN = {
    "SGD, fused": optimize(lambda p: torch.optim.SGD(p, lr=0.1, fused=True)),
    "Adam, fused": optimize(lambda p: torch.optim.Adam(p, lr=0.1, fused=True)),
    ".data.mul_": lambda layer: layer.weight_ih_l0.data.mul_(2),
    ".data[...] =": lambda layer: layer.bias_ih_l1_reverse.data.__setitem__(6, 5.0),
    ".data, rows swapped": lambda layer: layer.weight_ih_l0.data.copy_(layer.weight_ih_l0.data.flip(0)),
    ".data, clamped": lambda layer: [p.data.clamp_(-0.01, 0.01) for p in layer.parameters()],
    "numpy": last_number_through_numpy,
    "an alias": alias,
}


def fresh(layer):
    """torch's module with the weights of this moment."""
    module = torch.nn.RNN(SQUARE.I, SQUARE.H, **SQUARE.options)
    module.load_state_dict({name: w.detach().clone() for name, w in layer.state_dict().items()})
    return module


def check(layer):
    """Inference and a step of training are those of the weights that the layer has now."""
    x, state = problem(SQUARE)
    with torch.no_grad():
        assert max(map(difference, outputs(SQUARE, layer, x, state), outputs(SQUARE, fresh(layer), x, state))) < SMALL
    (a, da), (b, db) = (run(SQUARE, module, x, state) for module in (layer, fresh(layer)))
    assert max(map(difference, a, b)) < SMALL
    for name in da.keys() & db.keys():
        if "l0" not in name or layer.weight_hh_l0 is not layer.weight_hh_l0_reverse:
            assert difference(da[name], db[name]) < 10 * SMALL, name


@pytest.mark.parametrize("before", ["inference", "training"])
@pytest.mark.parametrize("name", SEEN | UNSEEN)
def test_after_every_change_the_weights_are_the_new_ones(name, before):
    layer = pair(SQUARE)[1]
    x, state = problem(SQUARE)
    with torch.set_grad_enabled(before == "training"):
        layer(x, state)
    (SEEN | UNSEEN)[name](layer)
    check(layer)


@pytest.mark.parametrize("name", SEEN)
def test_trusting_versions_sees_what_has_them(name):
    layer = pair(SQUARE)[1]
    layer.trusts_versions = True
    for _ in range(2):  # the second time starts from what the first left
        check(layer)
        SEEN[name](layer)
        check(layer)


def test_trusting_versions_misses_what_has_none():
    """What the documentation of trusts_versions warns of; and False sees it at once."""
    layer = pair(SQUARE)[1]
    layer.trusts_versions = True
    x, state = problem(SQUARE)
    with torch.no_grad():
        before = layer(x, state)[0]
        layer.weight_ih_l0.data.mul_(2)
        assert torch.equal(layer(x, state)[0], before)
    layer.trusts_versions = False
    check(layer)


def test_the_same_bytes_of_another_type():
    layer = ft.RNN(7, 7)
    for parameter in layer.parameters():
        parameter.data.zero_()
    layer(torch.ones(2, 1, 7))
    for parameter in layer.parameters():
        parameter.data = parameter.data.double()
    y = layer(torch.ones(2, 1, 7, dtype=torch.float64))[0]
    assert y.grad_fn.name() == "RecurrenceBackward" and torch.equal(y, torch.zeros_like(y))


@pytest.mark.parametrize("trusts", [False, True])
def test_packed_once_for_the_same_weights(trusts, monkeypatch):
    packed = []
    monkeypatch.setattr(torch_panels, "pack", lambda *given, **more: packed.append(1) or pack(*given, **more))
    from fastlstm.recurrent import pack

    layer = pair(SQUARE)[1]
    layer.trusts_versions = trusts
    x, state = problem(SQUARE)
    with torch.no_grad():
        for _ in range(3):
            layer(x, state)
    assert len(packed) == 1
    for _ in range(3):
        layer(x, state)[0].sum().backward()
    assert len(packed) == 2  # with what backward needs
    with torch.no_grad():
        layer(x, state)
    assert len(packed) == 2
    held = layer._panels()._packed._held[0]  # the memory itself where stamps are trusted, so that no other comes there
    assert (held.data_ptr() == layer.weight_ih_l0.data_ptr()) is trusts
    no_grad(layer)
    layer(x, state)
    assert len(packed) == 3


def test_backward_is_that_of_the_weights_that_forward_saw():
    layer = pair(SQUARE)[1]
    x, state = problem(SQUARE)
    expected = run(SQUARE, layer, x, state)[1]
    y = outputs(SQUARE, layer, x, state)
    generator = torch.Generator().manual_seed(9)
    loss = sum((t * torch.randn(t.shape, generator=generator, dtype=t.dtype)).sum() for t in y)
    layer.reset_parameters()
    loss.backward()
    for name, parameter in layer.named_parameters():
        assert torch.equal(parameter.grad, expected[name])


# ---- weights that are computed ----------------------------------------------------------------------------------


def normalized(layer):
    torch.manual_seed(5)
    return parametrizations.weight_norm(layer, "weight_hh_l0")


def old_normalized(layer):
    return torch.nn.utils.weight_norm(layer, "weight_hh_l0")


def halved(layer):
    class Half(torch.nn.Module):
        def forward(self, w):
            return w / 2

    parametrize.register_parametrization(layer, "weight_ih_l1", Half())
    return layer


def pruned(layer):
    return prune.l1_unstructured(layer, "weight_hh_l1", amount=0.4)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("wrap", [normalized, old_normalized, halved, pruned])
def test_weights_that_are_computed_at_every_call(wrap):
    theirs, ours = (wrap(module) for module in pair(SQUARE))
    assert isinstance(ours, ft.RNN)
    x, state = problem(SQUARE)
    for _ in range(2):
        (a, da), (b, db) = (run(SQUARE, module, x, state) for module in (theirs, ours))
        assert max(map(difference, b, a)) < SMALL
        assert da.keys() == db.keys() and max(difference(db[n], da[n]) for n in da) < 10 * SMALL
        with torch.no_grad():
            assert max(map(difference, outputs(SQUARE, ours, x, state), a)) < SMALL
            for p, q in zip(theirs.parameters(), ours.parameters()):
                p.mul_(1.5)
                q.mul_(1.5)


def test_functional_call():
    theirs, ours = pair(SQUARE)
    x, state = problem(SQUARE)
    for scale in (2, 3):
        given = {name: (scale * w).detach().requires_grad_() for name, w in theirs.named_parameters()}
        found = [torch.func.functional_call(module, given, (x, state))[0] for module in (theirs, ours)]
        assert difference(found[1], found[0]) < SMALL
        grads = [torch.autograd.grad(y.sum(), list(given.values())) for y in found]
        assert max(map(difference, grads[1], grads[0])) < 10 * SMALL
    check(ours)


def test_tied_weights_have_the_sum_of_gradients():
    theirs, ours = pair(SQUARE)
    for module in (theirs, ours):
        tie(module)
    (a, da), (b, db) = (run(SQUARE, module, *problem(SQUARE)) for module in (theirs, ours))
    assert max(difference(db[n], da[n]) for n in da) < 10 * SMALL


# ---- copies -----------------------------------------------------------------------------------------------------


def saved(layer):
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("trusts", [False, True])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), saved, copy.copy])
def test_copies(copied, trusts):
    layer = pair(SQUARE)[1].eval()
    layer.trusts_versions = trusts
    check(layer)  # something is packed now
    twin = copied(layer)
    assert type(twin) is ft.RNN and not twin.training and twin.trusts_versions is trusts
    assert repr(twin) == repr(layer)
    check(twin)
    if copied is not copy.copy:  # which shares the parameters
        load(twin)
    check(layer)
    check(twin)
    assert b"fastlstm.torch\n" in pickle.dumps(ft.LSTM, protocol=0)  # the name that pickles keep


def test_packed_weights_are_in_no_state_dict_and_no_pickle():
    layer = ft.LSTM(40, 60)
    before = len(pickle.dumps(layer)), list(layer.state_dict())
    layer(torch.zeros(2, 1, 40))
    assert list(layer.state_dict()) == before[1]
    assert len(pickle.dumps(layer)) < before[0] + 200


@pytest.mark.parametrize("move", [lambda m: m.float(), lambda m: m.to("meta"), lambda m: m.share_memory()])
def test_weights_that_move_leave_nothing_packed(move):
    layer = torch.nn.Sequential(ft.LSTM(3, 5, dtype=torch.float64))
    layer[0](torch.zeros(2, 1, 3, dtype=torch.float64))
    assert "_packed_weights" in vars(layer[0])
    move(layer)
    assert "_packed_weights" not in vars(layer[0])


def test_threads_that_change_weights_and_threads_that_run():
    """Every result is that of one of the two sets of weights, never of a mixture that was kept."""
    layer = ft.GRU(16, 24)
    x = torch.randn(5, 3, 16)
    sets = [{name: torch.full_like(w, value) for name, w in layer.state_dict().items()} for value in (0.01, 0.02)]
    expected = []
    for one in sets:
        layer.load_state_dict(one)
        with torch.no_grad():
            expected.append(layer(x)[0])
    done, wrong = threading.Event(), []

    def infer():
        with torch.no_grad():
            while not done.is_set():
                y = layer(x)[0]
                if not y.isfinite().all():
                    wrong.append(y)

    workers = [threading.Thread(target=infer) for _ in range(3)]
    for worker in workers:
        worker.start()
    for k in range(200):
        layer.load_state_dict(sets[k % 2])
    done.set()
    for worker in workers:
        worker.join()
    assert not wrong
    with torch.no_grad():
        assert torch.equal(layer(x)[0], expected[1])
