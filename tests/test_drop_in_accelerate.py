"""accelerate and restore: what is replaced, what is left and why; optimisers, threads, forks, several processes."""

import copy
import re
import subprocess
import sys
import threading

import pytest

torch = pytest.importorskip("torch")

from drop_in import Config, difference, pair, problem, run  # noqa: E402

import fastlstm as fl  # noqa: E402
import fastlstm.torch as ft  # noqa: E402
from fastlstm import functional  # noqa: E402

nn = torch.nn
SMALL = 1e-13


class Subclass(nn.LSTM):
    pass


class Around(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


class Model(nn.Module):
    """Recurrent layers of every sort, in many places."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(3, 5, num_layers=2)
        self.tied = self.rnn
        self.parts = nn.ModuleList([nn.Sequential(nn.Linear(5, 4), nn.Tanh()), nn.GRU(4, 6, bidirectional=True)])
        self.named = nn.ModuleDict({"elman": nn.RNN(12, 4, nonlinearity="relu")})
        self.hidden = [self.rnn]  # a list, which torch knows nothing of

    def forward(self, x):
        x = self.parts[0](self.tied(self.hidden[0](x)[0][..., :3])[0])
        return self.named["elman"](self.parts[1](x)[0])[0]


def test_layers_are_replaced_where_they_are():
    torch.manual_seed(0)
    model = Model().double()
    model.parts[1].eval()
    model.rnn.bias_hh_l0.requires_grad_(False)
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    expected, twin = model(x), copy.deepcopy(model)
    parameters, layers, keys = list(model.parameters()), list(model.modules()), list(model.state_dict())
    modes = [m.training for m in layers]
    frozen = [p.requires_grad for p in parameters]
    report = ft.accelerate(model)
    assert report.module is model and not report.left
    assert report.replaced == {
        "rnn": "fastlstm.torch.LSTM", "tied": "fastlstm.torch.LSTM", "parts.1": "fastlstm.torch.GRU",
        "named.elman": "fastlstm.torch.RNN",
    }
    assert all(a is b for a, b in zip(model.parameters(), parameters)) and list(model.state_dict()) == keys
    assert all(a is b for a, b in zip(model.modules(), layers)) and model.tied is model.rnn is model.hidden[0]
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == frozen
    assert type(model.rnn) is ft.LSTM and type(model.parts[1]) is ft.GRU and type(model.named["elman"]) is ft.RNN
    found = model(x)
    assert difference(found, expected) < SMALL and "Recurrence" in names(found.grad_fn)
    for y in (found, twin(x)):
        y.square().sum().backward()
    for p, q in zip(model.parameters(), twin.parameters()):
        assert (p.grad is None) == (q.grad is None) and (p.grad is None or difference(p.grad, q.grad) < 10 * SMALL)


def names(node):
    """Of the nodes of a graph, joined."""
    seen, todo = set(), [node]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [after for after, _ in node.next_functions]
    return " ".join(sorted(node.name() for node in seen))


def test_and_back():
    model = Model()
    x = torch.randn(6, 2, 3)
    expected = model(x)
    ft.accelerate(model)
    model.rnn.trusts_versions = True
    model(x)
    report = ft.restore(model)
    assert report.replaced == {
        "rnn": "torch.nn.LSTM", "tied": "torch.nn.LSTM", "parts.1": "torch.nn.GRU", "named.elman": "torch.nn.RNN",
    }
    assert not report.left and report.module is model
    assert type(model.rnn) is nn.LSTM and vars(model.rnn).keys() == vars(nn.LSTM(3, 5)).keys()
    found = model(x)
    assert torch.equal(found, expected) and "Recurrence" not in names(found.grad_fn)
    assert not ft.restore(model).replaced


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_a_layer_by_itself(kind):
    layer = getattr(nn, kind)(3, 5)
    report = ft.accelerate(layer)
    assert report.module is layer and type(layer) is getattr(ft, kind)
    assert report.replaced == {"": f"fastlstm.torch.{kind}"}
    assert str(report) == f"1 recurrent layers replaced, 0 left\n  the module itself: now fastlstm.torch.{kind}"
    assert ft.accelerate(layer).left == {"": "it is fastlstm's already"}
    assert ft.restore(layer).replaced == {"": f"torch.nn.{kind}"}


def hooked(layer):
    layer.register_forward_hook(lambda *given: None)
    return layer


def method(layer):
    layer.forward = lambda x: x
    return layer


def mixed(layer):
    layer.weight_hh_l0.data = layer.weight_hh_l0.data.double()
    return layer


LEFT = {
    "subclass": (lambda: Subclass(3, 5), "Subclass is a subclass"),
    "cell": (lambda: nn.LSTMCell(3, 5), "no counterpart of .*LSTMCell"),
    "other cell": (lambda: nn.GRUCell(3, 5), "no counterpart of .*GRUCell"),
    "hook": (lambda: hooked(nn.GRU(3, 5)), "it has hooks"),
    "backward hook": (lambda: (m := nn.GRU(3, 5)).register_full_backward_hook(print) and m, "it has hooks"),
    "weight_norm": (lambda: nn.utils.weight_norm(nn.LSTM(3, 5), "weight_hh_l0"), "it has hooks"),
    "parametrized": (
        lambda: nn.utils.parametrizations.weight_norm(nn.LSTM(3, 5), "weight_hh_l0"), "its weights are parametrized"
    ),
    "another forward": (lambda: method(nn.LSTM(3, 5)), "its forward has been replaced"),
    "half": (lambda: nn.LSTM(3, 5).half(), "weight_ih_l0 is torch.float16 on cpu"),
    "bfloat16": (lambda: nn.RNN(3, 5, dtype=torch.bfloat16), "weight_ih_l0 is torch.bfloat16 on cpu"),
    "meta": (lambda: nn.LSTM(3, 5, device="meta"), "weight_ih_l0 is torch.float32 on meta"),
    "mixed": (lambda: mixed(nn.LSTM(3, 5)), "its weights mix float32 and float64"),
    "scripted": (lambda: torch.jit.script(Around(nn.LSTM(3, 5))).layer, "no counterpart of .*ScriptModule"),
    "quantized": (
        lambda: torch.ao.nn.quantized.dynamic.LSTM(3, 5), "no counterpart of .*quantized.dynamic"
    ),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning", "ignore::DeprecationWarning", "ignore:.*quant")
@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_and_why(name):
    make, words = LEFT[name]
    layer = make()
    before = type(layer)
    model = nn.Sequential(nn.Linear(3, 3), layer, nn.LSTM(3, 5))
    report = ft.accelerate(model)
    assert list(report.left) == ["1"] and list(report.replaced) == ["2"]
    assert type(layer) is before
    assert re.search(words, report.left["1"])
    assert f"  1: left, {report.left['1']}" in str(report) and repr(report) == "Report(1 replaced, 1 left)"


def test_layers_of_ours_that_restore_leaves():
    layer = nn.utils.parametrizations.weight_norm(ft.LSTM(3, 5), "weight_hh_l0")
    report = ft.restore(nn.Sequential(layer, nn.GRU(3, 5)))
    assert report.replaced == {} and list(report.left) == ["0"]
    assert isinstance(layer, ft.LSTM)


def test_what_is_no_module():
    for function in (ft.accelerate, ft.restore):
        with pytest.raises(TypeError, match=r"module must be a torch\.nn\.Module, got list"):
            function([nn.LSTM(3, 5)])


def test_optimizers_from_before_go_on():
    """Ten steps of Adam: three with torch's layers, four with ours, three with torch's again."""
    torch.manual_seed(0)
    models = [Model().double()]
    models.append(copy.deepcopy(models[0]))
    adams = [torch.optim.Adam(m.parameters(), lr=0.01) for m in models]
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    for step in range(10):
        if step == 3:
            ft.accelerate(models[1])
        if step == 7:
            ft.restore(models[1])
        losses = []
        for model, adam in zip(models, adams):
            adam.zero_grad()
            loss = model(x).square().sum()
            loss.backward()
            adam.step()
            losses.append(loss)
        assert difference(losses[1], losses[0]) < 1e-11
    assert max(difference(q, p) for p, q in zip(models[0].parameters(), models[1].parameters())) < 1e-9


# ---- threads, forks, processes ----------------------------------------------------------------------------------


def test_threads_are_bounded_by_torch_and_by_fastlstm(monkeypatch):
    seen = []
    forward = functional.forward_cached
    monkeypatch.setattr(functional, "forward_cached", lambda *a, **k: seen.append(a[7]) or forward(*a, **k))
    layer, x = ft.LSTM(3, 5), torch.zeros(2, 1, 3)
    torchs = torch.get_num_threads()
    try:
        for t, f in ((1, 2), (2, 1), (2, 2), (3, 2)):
            torch.set_num_threads(t)
            fl.set_num_threads(f)
            layer(x)
            assert seen.pop() == min(t, f)
    finally:
        torch.set_num_threads(torchs)
        fl.set_num_threads(None)


@pytest.mark.parametrize("team", [1, 2])
def test_many_threads_run_one_layer(team, request):
    request.addfinalizer(lambda: torch.set_num_threads(1))
    torch.set_num_threads(team)
    config = Config("LSTM", layers=2, bidirectional=True, T=20, H=33)
    layer = pair(config)[1]
    problems = [problem(config, seed) for seed in range(6)]
    expected = [run(config, layer, *p) for p in problems]
    wrong = []

    def work(k):
        for _ in range(10):
            found, grads = run(config, layer, *problems[k])
            same = all(map(torch.equal, found, expected[k][0]))
            if not same or not all(torch.equal(grads[n], expected[k][1][n]) for n in grads):
                wrong.append(k)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(len(problems))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert not wrong and not any(worker.is_alive() for worker in workers)


def finish(processes, timeout=90):
    """What they print; none outlives the test."""
    try:
        found = [p.communicate(timeout=timeout) for p in processes]
    finally:
        for p in processes:
            p.kill()
    for p, (_, err) in zip(processes, found):
        assert p.returncode == 0, err[-2000:]
    return [out for out, _ in found]


def start(code, *arguments):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], **pipes)


WORKERS = """
import torch, fastlstm.torch as ft
layer = ft.GRU(40, 64)
x = torch.randn(30, 8, 40)
y = layer(x)[0]
y.sum().backward()
class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, k):
        out = layer(x)[0]
        out.sum().backward()
        return out.detach()
loader = torch.utils.data.DataLoader(Data(), batch_size=2, num_workers=2, multiprocessing_context="fork", timeout=60)
for batch in loader:
    assert torch.equal(batch[0], y) and torch.equal(batch[1], y)
    assert torch.equal(layer(x)[0], y)
print("done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork here")
def test_forked_workers_of_a_loader():
    assert finish([start(WORKERS)]) == ["done\n"]


DISTRIBUTED = """
import sys, datetime
import torch, torch.distributed as dist
import fastlstm.torch as ft
from torch.nn.parallel import DistributedDataParallel
rank, path, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + path, rank=rank, world_size=2,
                        timeout=datetime.timedelta(seconds=60))
torch.manual_seed(0)
layer = ft.LSTM(5, 9, num_layers=2, bidirectional=True, dtype=torch.float64)
if rank:
    layer.reset_parameters()  # DistributedDataParallel brings the weights of rank 0
model = DistributedDataParallel(layer)
sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for step in range(6):
    x = torch.randn(7, 8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
    sgd.zero_grad()
    model(x[:, 4 * rank : 4 * rank + 4])[0].square().mean().backward()
    sgd.step()
torch.save(layer.state_dict(), out)
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without it")
def test_distributed_data_parallel(tmp_path):
    """Two processes with half a batch each, against one process of torch with all of it."""
    files = [str(tmp_path / f"weights{rank}") for rank in range(2)]
    finish([start(DISTRIBUTED, str(rank), str(tmp_path / "meet"), files[rank]) for rank in range(2)])
    found = [torch.load(file) for file in files]
    torch.manual_seed(0)
    alone = nn.LSTM(5, 9, num_layers=2, bidirectional=True, dtype=torch.float64)
    before = {name: w.clone() for name, w in alone.state_dict().items()}
    sgd = torch.optim.SGD(alone.parameters(), lr=0.1, momentum=0.9)
    for step in range(6):
        x = torch.randn(7, 8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        sgd.zero_grad()
        alone(x)[0].square().mean().backward()
        sgd.step()
    worst = max(difference(found[0][name], w) for name, w in alone.state_dict().items())
    print(f"largest difference of a weight: {worst:.2g}")
    assert worst < 1e-14
    assert all(torch.equal(found[0][name], found[1][name]) for name in before)
    assert max(difference(before[name], w) for name, w in alone.state_dict().items()) > 1e-3
