"""fastlstm.torch as a citizen of torch: autograd's rules, hooks, autocast, tracing, compiling, checkpoints."""

import itertools
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from drop_in import Config, difference, given, outputs, pair, problem, run  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import fastlstm.torch as ft  # noqa: E402
from fastlstm import functional  # noqa: E402
from fastlstm.torch import torch_function, torch_layers  # noqa: E402

SMALL = 1e-13
CONFIG = Config(layers=2, bidirectional=True)


class Around(torch.nn.Module):
    """A model with a layer inside."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.sin())[0].cos()


# ---- what autograd asks for -------------------------------------------------------------------------------------


def test_only_what_is_needed(monkeypatch):
    asked = []
    backward = functional.backward
    monkeypatch.setattr(functional, "backward", lambda *given: asked.append(given[5]) or backward(*given))
    theirs, ours = pair(CONFIG)
    for wanted in itertools.product((False, True), repeat=3):
        for weights in ((), ("weight_hh_l0",), ("bias_hh_l1", "weight_ih_l0_reverse"), None):
            found = []
            for module in (theirs, ours):
                x, state = problem(CONFIG)
                leaves = [t.requires_grad_(on) for t, on in zip((x, *state), wanted)]
                for name, parameter in module.named_parameters():
                    parameter.requires_grad_(weights is None or name in weights)
                    parameter.grad = None
                y = module(x, state)[0]
                assert y.requires_grad == (any(wanted) or weights != ())
                if y.requires_grad:
                    y.square().sum().backward()
                found.append([t.grad for t in (*leaves, *module.parameters())])
            if any(wanted) or weights != ():
                assert asked.pop() is wanted[0]
            for a, b in zip(*found):
                assert (a is None) == (b is None)
                assert a is None or difference(b, a) < 10 * SMALL


@pytest.mark.parametrize("form", ["batched", "unbatched", "packed, unsorted"])
@pytest.mark.parametrize("which", [(0,), (1,), (2,), (1, 2), (0, 2)])
def test_losses_that_see_some_of_the_outputs(which, form):
    config = CONFIG._replace(form=form)
    found = []
    for module in pair(config):
        x, state = problem(config)
        y, (hn, cn) = module(given(config, x), state)
        y = y.data if form.startswith("packed") else y
        sum((y, hn, cn)[k].square().sum() for k in which).backward()
        found.append([t.grad for t in (x, *state, *module.parameters())])
    assert all(difference(b, a) < 10 * SMALL for a, b in zip(*found))


def test_gradients_accumulate():
    theirs, ours = pair(CONFIG)
    for seed in (1, 2, 3):
        for module in (theirs, ours):
            x, state = problem(CONFIG, seed)
            module(x, state)[0].sum().backward()
    assert all(difference(q.grad, p.grad) < 10 * SMALL for p, q in zip(theirs.parameters(), ours.parameters()))


def test_gradients_share_no_memory():
    ours = pair(CONFIG)[1]
    x, state = problem(CONFIG)
    grads = torch.autograd.grad(ours(x, state)[0].sum(), list(ours.parameters()))
    assert len({g.data_ptr() for g in grads}) == len(grads)


def test_several_calls_before_backward():
    found = []
    for module in pair(CONFIG):
        x, state = problem(CONFIG)
        y = x.new_zeros(())
        for k in range(3):  # the state goes round, as in truncated training
            out, state = module(x * (k + 1), state)
            y = y + out.square().sum()
        found.append(torch.autograd.grad(y, [x, *module.parameters()]))
    assert all(difference(b, a) < 1e-12 for a, b in zip(*found))


def test_backward_twice():
    ours = pair(CONFIG)[1]
    x, state = problem(CONFIG)
    loss = ours(x, state)[0].square().sum()
    parameters = [x, *state, *ours.parameters()]
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    second = torch.autograd.grad(loss, parameters)
    assert all(map(torch.equal, first, second))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, parameters)


def test_the_cache_goes_with_backward_though_y_stays():
    ours = pair(CONFIG)[1]
    x, state = problem(CONFIG)
    y = ours(x, state)[0]
    assert y.grad_fn.kept is not None
    y.sum().backward(retain_graph=True)
    assert y.grad_fn.kept is not None
    y.sum().backward()
    assert y.grad_fn.kept is None


SECOND = "no second derivatives.*restore"


@pytest.mark.parametrize("loss", [torch.sum, lambda y: y.square().sum()], ids=["linear", "squared"])
@pytest.mark.parametrize("form", ["batched", "unbatched", "packed, unsorted"])
def test_no_second_derivative(form, loss):
    config = CONFIG._replace(form=form)
    ours = pair(config)[1]
    x, state = problem(config)
    y = ours(given(config, x), state)[0]
    inputs = [x, *state, *ours.parameters()]
    gradients = torch.autograd.grad(loss(y.data if form.startswith("packed") else y), inputs, create_graph=True)
    for gradient in gradients:
        assert gradient.requires_grad
        with pytest.raises(RuntimeError, match=SECOND):
            gradient.square().sum().backward(retain_graph=True)
        for one in inputs:  # none of them may look as if the gradient did not depend on it
            with pytest.raises(RuntimeError, match=SECOND):
                torch.autograd.grad(gradient.sum(), one, retain_graph=True, allow_unused=True)


def test_no_penalty_on_gradients():
    ours = pair(CONFIG)[1]
    x = problem(CONFIG)[0]
    y = ours(x)[0]
    (dx,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=SECOND):
        (y.sum() + 100 * dx.square().sum()).backward()
    ft.restore(ours)
    (dx,) = torch.autograd.grad(ours(x)[0].sum(), x, create_graph=True)
    dx.square().sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["hessian", "hvp", "vhp", "jvp"])
def test_no_second_derivative_by_way_of_functional(name):
    ours = pair(CONFIG)[1]
    x = problem(CONFIG)[0].detach()
    given = (x,) if name == "hessian" else (x, torch.ones_like(x))
    with pytest.raises(RuntimeError, match=SECOND):
        getattr(torch.autograd.functional, name)(lambda x: ours(x)[0].sum(), *given)


@pytest.mark.filterwarnings("ignore:Using backward:UserWarning")
def test_a_graph_of_gradients_that_nobody_uses():
    found = []
    for module in pair(CONFIG):
        x, state = problem(CONFIG)
        module(x, state)[0].sum().backward(create_graph=True)
        found.append([t.grad for t in (x, *state, *module.parameters())])
    assert all(b.requires_grad and difference(b, a) < 10 * SMALL for a, b in zip(*found))
    for one in (x, *state, *module.parameters()):
        one.grad = None  # a circle, with the graph


@pytest.mark.parametrize("form", ["batched", "packed, unsorted"])
@pytest.mark.parametrize("which", range(3))
def test_no_batched_gradients(which, form):
    config = CONFIG._replace(form=form)
    ours = pair(config)[1]
    x, state = problem(config)
    y, hn = ours(given(config, x), state)
    seen = (y.data if form.startswith("packed") else y, *hn)[which]
    with pytest.raises(RuntimeError, match="no batched gradients.*restore"):
        torch.autograd.grad(seen, x, seen.new_ones(2, *seen.shape), is_grads_batched=True)


@pytest.mark.parametrize("which", range(3))
def test_an_input_changed_before_backward_is_told(which):
    ours = pair(CONFIG)[1]
    inputs = [t.detach() for t in (lambda x, state: (x, *state))(*problem(CONFIG))]
    loss = ours(inputs[0], tuple(inputs[1:]))[0].sum()
    inputs[which].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("form", ["batched", "batch first", "unbatched", "packed"])
def test_outputs_may_be_changed_in_place(form):
    config = Config("GRU", form, 2, True)  # torch's own LSTM does not allow it in float32, its GRU does
    found = []
    for module in pair(config):
        x, state = problem(config)
        y, hn = module(given(config, x), state)
        y = y.data if form == "packed" else y
        y.mul_(2)
        hn.add_(y.sum())
        found.append(torch.autograd.grad(hn.square().sum(), [x, state, *module.parameters()]))
    assert all(difference(b, a) < 1e-12 for a, b in zip(*found))
    ours = pair(config)[1]
    x, _ = problem(config)
    with torch.no_grad():
        ours(given(config, x))[1].mul_(2)


def test_hooks():
    found = []
    for module in pair(CONFIG):
        seen = []
        module.register_forward_pre_hook(lambda m, args, seen=seen: seen.append("pre") or (2 * args[0], *args[1:]))
        module.register_forward_hook(lambda m, args, out, seen=seen: seen.append("forward"))
        module.weight_hh_l0.register_hook(lambda g, seen=seen: seen.append("gradient") or 3 * g)
        module.weight_ih_l0.register_post_accumulate_grad_hook(lambda p, seen=seen: seen.append("accumulated"))
        found.append((run(CONFIG, module, *problem(CONFIG)), seen))
        module(problem(CONFIG)[0])[0].sum().backward()
    (a, da), (b, db) = found[0][0], found[1][0]
    assert max(map(difference, b, a)) < SMALL
    assert max(difference(db[n], da[n]) for n in da) < 10 * SMALL
    assert sorted(found[0][1]) == sorted(found[1][1]) and "accumulated" in found[1][1]


def test_hooks_around_backward():
    found = []
    for module in pair(CONFIG):
        seen = []
        module.register_full_backward_hook(lambda m, dx, dy, seen=seen: seen.extend([dx[0], dy[0]]) or (2 * dx[0],))
        x = problem(CONFIG)[0]
        module(x)[0].square().sum().backward()
        found.append([*seen, x.grad])
    assert len(found[1]) == 3
    assert all(difference(b, a) < 10 * SMALL for a, b in zip(*found))


# ---- types ------------------------------------------------------------------------------------------------------


def test_autocast_computes_in_the_type_of_the_weights():
    config = Config(dtype=torch.float32)
    theirs, ours = pair(config)
    x, state = problem(config)
    expected = theirs(x, state)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert difference(ours(x, state)[0], expected) < 1e-6
        mixed = ours(x, tuple(s.bfloat16() for s in state))[0]
        assert mixed.dtype is torch.float32 and difference(mixed, expected) < 0.1
        half = x.detach().bfloat16().requires_grad_()
        y = ours(half, tuple(s.bfloat16() for s in state))[0]
    assert y.dtype is torch.float32
    assert difference(y, expected) < 0.1
    y.sum().backward()
    assert half.grad.dtype is torch.bfloat16 and half.grad.abs().sum() > 0


def test_default_type():
    torch.set_default_dtype(torch.float64)
    try:
        assert ft.LSTM(3, 5)(torch.zeros(2, 1, 3))[0].dtype is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_made_on_meta_and_filled():
    layer = ft.LSTM(3, 5, device="meta").to_empty(device="cpu")
    with torch.device("meta"):
        other = ft.LSTM(3, 5)
    source = torch.nn.LSTM(3, 5)
    other = other.to_empty(device="cpu")
    x = torch.randn(4, 2, 3)
    for module in (layer, other):
        module.load_state_dict(source.state_dict())
        assert difference(module(x)[0], source(x)[0]) < 1e-6


# ---- what goes to torch's own forward ---------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_tracing():
    model = Around(ft.LSTM(3, 5)).eval()
    x, other = torch.randn(7, 4, 3), torch.randn(7, 4, 3)
    for mode in (torch.enable_grad, torch.no_grad):
        with mode():
            assert difference(torch.jit.trace(model, (x,))(other), model(other)) < 1e-6


@pytest.mark.filterwarnings("ignore:The tensor attr")
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_export(kind, strict):
    if strict and not hasattr(torch.compiler, "is_exporting"):
        pytest.skip("this torch does not tell that it exports")
    model = Around(getattr(ft, kind)(3, 5, 2)).eval()
    x, other = torch.randn(7, 4, 3), torch.randn(7, 4, 3)
    model(x)
    program = torch.export.export(model, (x,), strict=strict)
    assert difference(program.module()(other), model(other)) < 1e-6


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripting_is_refused():
    with pytest.raises(RuntimeError, match=r"torch.jit.script cannot compile.*restore"):
        torch.jit.script(Around(ft.LSTM(3, 5)))


def test_compiled_models_run_the_layer_as_it_is():
    from torch._dynamo.utils import counters

    counters.clear()
    model = Around(ft.LSTM(3, 5))
    x = torch.randn(7, 4, 3)
    compiled = torch.compile(model, backend="eager")
    for mode in (torch.enable_grad, torch.no_grad):
        with mode():
            assert torch.equal(compiled(x), model(x))
    compiled(x).sum().backward()
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model(x).sum().backward()
    assert all(map(torch.equal, found, (p.grad for p in model.parameters())))
    with torch.no_grad():
        model.layer.weight_hh_l0.mul_(3)
        assert torch.equal(compiled(x), model(x))
    assert 0 < counters["frames"]["total"] < 40  # more than a hundred where it looks into the layer


def test_transforms_of_torch_func():
    theirs, ours = pair(CONFIG)
    x, state = problem(CONFIG)
    weights = {name: w.detach() for name, w in theirs.named_parameters()}

    def loss(module):
        return lambda given: torch.func.functional_call(module, given, (x, state))[0].square().sum()

    a, b = (torch.func.grad(loss(module))(weights) for module in (theirs, ours))
    assert max(difference(b[n], a[n]) for n in a) < 10 * SMALL


def test_forward_mode_derivatives():
    found = []
    for module in pair(CONFIG):
        x = problem(CONFIG)[0].detach()
        with torch.autograd.forward_ad.dual_level(), torch.no_grad():
            dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
            found.append(torch.autograd.forward_ad.unpack_dual(module(dual)[0]).tangent)
    assert difference(found[1], found[0]) < SMALL


class Counted(torch.utils._python_dispatch.TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_dispatch_modes_see_torchs_operations():
    config = Config("GRU")
    counts = []
    for module in pair(config):
        with torch.no_grad(), Counted() as mode:
            module(problem(config)[0])
        counts.append(mode.count)
    assert counts[0] == counts[1] > 10


def without(owner, *names):
    """A stand-in for a part of torch that lacks names."""
    return SimpleNamespace(**{name: getattr(owner, name) for name in dir(owner) if name not in names})


def test_without_names_that_torch_does_not_promise(monkeypatch):
    older = without(torch._C, "_are_functorch_transforms_active", "_len_torch_dispatch_stack")
    for probe in (torch_layers.transform_probe(torch._C), torch_layers.transform_probe(older)):
        seen = []
        assert not probe()
        torch.func.grad(lambda x, probe=probe, seen=seen: seen.append(probe()) or x * x)(torch.ones(()))
        torch.func.vmap(lambda x, probe=probe, seen=seen: seen.append(probe()) or x)(torch.ones(2))
        assert seen == [True, True] and not probe()
    assert torch_layers.transform_probe(SimpleNamespace())()
    assert torch_layers.dispatch_probe(older)() and not torch_layers.dispatch_probe(torch._C)()
    dual = torch.autograd.forward_ad
    for probe in (torch_layers.dual_probe(dual), torch_layers.dual_probe(without(dual, "_current_level"))):
        assert not probe()
        with dual.dual_level(), torch.no_grad():
            assert probe()
        assert not probe()
    for name in ("_transforms", "_dispatch_modes"):  # the layer still runs where nothing is known
        monkeypatch.setattr(torch_layers, name, lambda: True)
        theirs, ours = pair(CONFIG)
        assert torch.equal(ours(problem(CONFIG)[0])[0], theirs(problem(CONFIG)[0])[0])


@pytest.mark.parametrize("known", [True, False])
def test_hooks_on_what_is_saved_are_seen(known, monkeypatch):
    if not known:
        monkeypatch.setattr(torch_function, "_top_hooks", None)
    shared = []
    forward_cached = functional.forward_cached

    def watched(*args, **options):
        shared.append(options["shared"])
        return forward_cached(*args, **options)

    monkeypatch.setattr(functional, "forward_cached", watched)
    ours = pair(CONFIG)[1]
    x = problem(CONFIG)[0]
    ours(x)
    with torch.autograd.graph.save_on_cpu():
        ours(x)
    assert shared == [known, False]


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("dropout", [0, 0.5])
def test_checkpoints(reentrant, dropout):
    ours = pair(CONFIG, dropout=dropout)[1]
    x, state = problem(CONFIG)
    torch.manual_seed(1)
    expected = torch.autograd.grad(ours(x, state)[0].sin().sum(), [x, *state, *ours.parameters()])
    torch.manual_seed(1)
    checkpoint(lambda x, h, c: ours(x, (h, c))[0].sin(), x, *state, use_reentrant=reentrant).sum().backward()
    found = [t.grad for t in (x, *state, *ours.parameters())]
    assert all(map(torch.equal, found, expected))


def test_tensors_that_are_saved_elsewhere():
    ours = pair(CONFIG)[1]
    x, state = problem(CONFIG)
    expected = run(CONFIG, ours, x, state)[1]
    with torch.autograd.graph.save_on_cpu():
        found = run(CONFIG, ours, x, state)[1]
    assert all(torch.equal(found[n], expected[n]) for n in expected)


SAVED = {
    "cloned": lambda: torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda t: t),
    "as they are": lambda: torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t),
    "on the CPU": torch.autograd.graph.save_on_cpu,
}


@pytest.mark.parametrize("form", ["batched", "batch first", "unbatched", "packed", "packed, unsorted"])
@pytest.mark.parametrize("name", SAVED)
def test_inputs_may_change_where_hooks_have_what_is_saved(name, form):
    config = CONFIG._replace(form=form)
    ours = pair(config)[1]
    weights = list(ours.parameters())
    x, state = problem(config)
    expected = torch.autograd.grad(outputs(config, ours, x, state)[0].square().sum(), weights)
    x, state = given(config, x.detach()), tuple(s.detach() for s in state)
    with SAVED[name]():
        y = ours(x, state)[0]
        for one in (x.data if form.startswith("packed") else x, *state):
            one.mul_(5)
        loss = (y.data if form.startswith("packed") else y).square().sum()
        found = torch.autograd.grad(loss, weights)
    assert all(difference(b, a) < 10 * SMALL for a, b in zip(expected, found))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "LSTM proj"])
@pytest.mark.parametrize("form", ["batched", "batch first", "unbatched", "packed", "packed, unsorted"])
def test_inputs_may_change_where_hooks_came_after_forward(form, kind):
    config = CONFIG._replace(form=form, kind=kind)
    ours = pair(config, dropout=0.5)[1]
    found = []
    for change in (False, True):
        x, state = problem(config)
        state = state if isinstance(state, tuple) else (state,)
        x, state = given(config, x.detach()), tuple(s.detach() for s in state)
        torch.manual_seed(1)
        y = ours(x, state if len(state) > 1 else state[0])[0]
        y = y.data if form.startswith("packed") else y
        if change:
            node = y.grad_fn
            while not hasattr(node, "kept"):
                node = node.next_functions[0][0]
            for saved in node._raw_saved_tensors:
                saved.register_hooks(torch.clone, lambda t: t)
            for one in (x.data if form.startswith("packed") else x, *state):
                one.mul_(5)
        found.append(torch.autograd.grad(y.square().sum(), list(ours.parameters())))
    assert all(map(torch.equal, *found))


def test_inputs_may_change_inside_a_checkpoint():
    found = []
    for module in pair(CONFIG):

        def part(x, module=module):
            inner = 2 * x
            y = module(inner)[0]
            return y.sum(-1) + inner.mul_(3).sum(-1)

        x = problem(CONFIG)[0]
        checkpoint(part, x, use_reentrant=False).sin().sum().backward()
        found.append([x.grad, *(p.grad for p in module.parameters())])
    assert all(difference(b, a) < 10 * SMALL for a, b in zip(*found))


def test_flatten_parameters_and_what_torchs_layers_have():
    theirs, ours = pair(CONFIG)
    assert ours.flatten_parameters() is None
    assert [[w.shape for w in some] for some in ours.all_weights] == [[w.shape for w in s] for s in theirs.all_weights]
    assert ours.extra_repr() == theirs.extra_repr()
    assert repr(ours) == f"fastlstm.torch.{theirs!r}"
    assert isinstance(ours, torch.nn.LSTM)
    assert outputs(CONFIG, ours, *problem(CONFIG))[0].grad_fn.name() == "RecurrenceBackward"
