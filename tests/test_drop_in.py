"""fastlstm.torch beside torch.nn: the same weights from the same seed, the same numbers, gradients, shapes, errors."""

import itertools
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

import drop_in  # noqa: E402
from drop_in import FORMS, KINDS, Config, difference, given, grid, outputs, pair, problem, run  # noqa: E402
from torch.autograd import gradcheck  # noqa: E402
from torch.nn.utils.rnn import PackedSequence  # noqa: E402

import fastlstm.torch as ft  # noqa: E402

LIMITS = {torch.float32: (2e-6, 5e-6), torch.float64: (4e-15, 1e-14)}  # outputs, gradients
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning", "ignore:RNN module weights")


# ---- parity -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_and_gradients_are_torchs(kind, dtype, record_property):
    worst = [0.0, 0.0]
    for config in grid(kinds=(kind,), dtype=dtype):
        theirs, ours = pair(config)
        (a, da), (b, db) = (run(config, module, *problem(config)) for module in (theirs, ours))
        assert da.keys() == db.keys() and len(a) == len(b)
        found = max(map(difference, b, a)), max(difference(db[name], da[name]) for name in da)
        assert found[0] <= LIMITS[dtype][0] and found[1] <= LIMITS[dtype][1], (config, found)
        worst = [max(pair) for pair in zip(worst, found)]
    record_property("largest_differences", worst)
    print(f"{kind} {dtype}: outputs {worst[0]:.2g}, gradients {worst[1]:.2g}")


SIZES = [(1, 1, 1, 1), (1, 5, 3, 17), (9, 1, 16, 33), (33, 4, 40, 65), (3, 16, 8, 64)]


@pytest.mark.parametrize("kind", KINDS)
def test_sizes(kind):
    for (T, B, I, H), form, dtype in itertools.product(SIZES, FORMS, LIMITS):
        if kind == "LSTM proj" and H == 1:
            continue
        config = Config(kind, form, 2, True, dtype=dtype, T=T, B=min(B, len(drop_in.LENGTHS)), I=I, H=H)
        theirs, ours = pair(config)
        (a, da), (b, db) = (run(config, module, *problem(config)) for module in (theirs, ours))
        assert max(map(difference, b, a)) <= LIMITS[dtype][0], config
        assert max(difference(db[name], da[name]) for name in da) <= LIMITS[dtype][1], config


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_inference_and_training_give_the_same_bits(kind, form):
    config = Config(kind, form, 2, True, dtype=torch.float32)
    ours = pair(config)[1]
    x, state = problem(config)
    trained = outputs(config, ours, x, state)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found = outputs(config, ours, x, state)
        assert all(map(torch.equal, found, trained))
        assert not any(t.requires_grad for t in found)
    ours.requires_grad_(False)
    x, state = x.detach(), None if state is None else tuple(s.detach() for s in state) if ours.mode == "LSTM" else state
    assert all(map(torch.equal, outputs(config, ours, x, state), trained))


def test_strides_of_batch_first_are_torchs():
    config = Config(form="batch first")
    found = [outputs(config, module, *problem(config)) for module in pair(config)]
    assert [t.stride() for t in found[0]] == [t.stride() for t in found[1]]


@pytest.mark.parametrize("kind", KINDS)
def test_empty_batches(kind):
    config = Config(kind, B=0, layers=2)
    (a, da), (b, db) = (run(config, module, *problem(config)) for module in pair(config))
    assert [t.shape for t in a] == [t.shape for t in b]
    assert all(torch.equal(da[name], db[name]) for name in da)


def test_non_contiguous_input():
    for kind, form in itertools.product(("LSTM", "GRU"), ("batched", "batch first")):
        config = Config(kind, form, 2, True)
        theirs, ours = pair(config)
        x, state = problem(config)
        wide = torch.randn(*x.shape[:-1], 2 * config.I, dtype=x.dtype)
        views = {
            "every other feature": wide[..., ::2],
            "half of the features": wide[..., : config.I],
            "expanded": wide[:1, :1, : config.I].expand(x.shape),
            "transposed": x.detach().transpose(0, 1).contiguous().transpose(0, 1),
            "negative": torch.randn(*x.shape, dtype=torch.complex128).conj().imag,
        }
        for name, view in views.items():
            if name == "negative":
                assert view.is_neg()
            leaves = [view.detach().requires_grad_() for _ in range(2)]
            (a, da), (b, db) = (run(config, m, leaf, state) for m, leaf in zip((theirs, ours), leaves))
            assert max(map(difference, b, a)) < 1e-13, name
            assert max(difference(db[n], da[n]) for n in da) < 1e-12, name
            with torch.no_grad():
                assert max(map(difference, outputs(config, ours, view, state), a)) < 1e-13, name


def test_padding_is_never_read():
    """torch fills memory that it has not written with NaN when it is told to be deterministic."""
    for kind in KINDS:
        config = Config(kind, "packed, unsorted", 2, True)
        ours, expected = pair(config)[1], run(config, pair(config)[1], *problem(config))
        torch.use_deterministic_algorithms(True)
        try:
            assert torch.empty(3).isnan().all()
            found = run(config, ours, *problem(config))
        finally:
            torch.use_deterministic_algorithms(False)
        assert all(map(torch.equal, found[0], expected[0]))
        assert all(torch.equal(found[1][name], expected[1][name]) for name in expected[1])


# ---- gradcheck --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind, record_property):
    """Every configuration against finite differences in float64: x, initial state, and all weights."""
    count = 0
    for config in grid(kinds=(kind,), layers=(1, 2), T=3, B=2, I=2, H=3):
        module = pair(config)[1]
        x, state = problem(config)
        leaves = [x, *(() if state is None else state if config.cls == "LSTM" else (state,)), *module.parameters()]

        def f(*inputs, config=config, module=module, x=x, state=state):
            found = outputs(config, module, x, state)  # the leaves themselves, which gradcheck changes in place
            return tuple(t for t in found if t.is_floating_point())

        # all of the Jacobian; of larger ones its products with random vectors, which is quicker
        assert gradcheck(f, leaves, fast_mode=config.layers > 1 or config.bidirectional), config
        count += 1
    assert count == 80
    record_property("gradchecks", count)


# ---- seeds and state dicts --------------------------------------------------------------------------------------


def test_seeds_give_torchs_weights_and_leave_the_generator_alike():
    for config in grid(forms=("batched",), layers=(1, 2)):
        after, weights = [], []
        for library in (torch.nn, ft):
            torch.manual_seed(0)
            module = getattr(library, config.cls)(config.I, config.H, **config.options)
            after.append(torch.rand(3))
            weights.append(module.state_dict())
        assert list(weights[0]) == list(weights[1])
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        assert torch.equal(*after)


@pytest.mark.parametrize("kind", KINDS)
def test_state_dicts_both_ways(kind):
    config = Config(kind, layers=2, bidirectional=True)
    theirs, ours = pair(config)
    ours.reset_parameters()
    for source, target in ((ours, theirs), (theirs, ours)):
        result = target.load_state_dict(source.state_dict(), strict=True)
        assert not result.missing_keys and not result.unexpected_keys
        a, b = (outputs(config, module, *problem(config)) for module in (theirs, ours))
        assert max(map(difference, b, a)) < 1e-13
        source.reset_parameters()
    with pytest.raises(RuntimeError, match="Missing key"):
        ours.load_state_dict({})


@pytest.mark.parametrize("form", [form for form in FORMS if form != "unbatched"])
@pytest.mark.parametrize("kind", KINDS)
def test_dropout_drops_what_torch_drops(kind, form):
    """Masks come from torch's generator in torch's order: a run of training has torch's numbers, dropout included."""
    for rate, dtype in itertools.product((0.3, 1.0), LIMITS):
        config = Config(kind, form, 3, True, dtype=dtype)
        found, after = [], []
        for module in pair(config, dropout=rate):
            torch.manual_seed(7)
            found.append(run(config, module, *problem(config)))
            after.append(torch.rand(2))
        (a, da), (b, db) = found
        assert max(map(difference, b, a)) <= LIMITS[dtype][0], (rate, dtype)
        assert max(difference(db[n], da[n]) for n in da) <= LIMITS[dtype][1], (rate, dtype)
        assert torch.equal(*after)


@pytest.mark.parametrize("form", FORMS)
def test_dropout_on_the_cpu_whatever_the_default_device(form):
    config = Config("LSTM", form, 3, True)
    found = []
    for meta in (False, True):
        ours = pair(config, dropout=0.5)[1]
        x, state = problem(config)
        x = given(config, x)
        torch.manual_seed(5)
        with torch.device("meta" if meta else "cpu"):
            y, _ = ours(x, state)
            y = y.data if form.startswith("packed") else y
            y.square().sum().backward()
            with torch.no_grad():
                again, _ = ours(x, state)
        again = again.data if form.startswith("packed") else again
        found.append([y, again, *(p.grad for p in ours.parameters())])
    assert all(map(torch.equal, *found))


def test_dropout_acts_in_training_alone_with_or_without_gradients():
    config = Config(layers=2)
    theirs, ours = pair(config, dropout=0.5)
    x, state = problem(config)
    plain = pair(config)[1](x, state)[0]
    assert torch.equal(ours.eval()(x, state)[0], plain)
    ours.train()
    with torch.no_grad():
        torch.manual_seed(1)
        found = ours(x, state)[0]
        assert not torch.equal(found, plain)
        torch.manual_seed(1)
        assert difference(found, theirs(x, state)[0]) < 1e-13
    zeros = ours(torch.zeros(400, 20, config.I, dtype=x.dtype))[1][0]
    assert zeros.isfinite().all()


# ---- attributes that are set after the constructor --------------------------------------------------------------

STRUCTURE = {
    "input_size": 9, "hidden_size": 9, "num_layers": 3, "bias": False, "bidirectional": True, "proj_size": 2,
    "mode": "x",
}


@pytest.mark.parametrize("warm", [False, True], ids=["first call", "second call"])
@pytest.mark.parametrize("name", STRUCTURE)
def test_sizes_that_do_not_belong_to_the_weights_are_refused(name, warm):
    ours, x = ft.LSTM(3, 4, 2), torch.ones(5, 2, 3)
    expected = ours(x)[0] if warm else None
    before = getattr(ours, name)
    setattr(ours, name, STRUCTURE[name])
    with pytest.raises(RuntimeError, match=f"{name}|weight_ih_l0"):
        ours(x)
    setattr(ours, name, before)
    assert expected is None or torch.equal(ours(x)[0], expected)


@pytest.mark.parametrize("rate", [7, -0.5, float("nan"), "0.5"])
def test_dropout_that_is_no_rate_is_refused_in_torchs_words(rate):
    theirs, ours = torch.nn.LSTM(3, 4, 2, dropout=0.5), ft.LSTM(3, 4, 2, dropout=0.5)
    theirs.dropout = ours.dropout = rate
    with pytest.raises((RuntimeError, TypeError)) as expected:
        theirs(torch.ones(5, 2, 3))
    with pytest.raises(expected.type) as found:
        ours(torch.ones(5, 2, 3))
    assert str(found.value)[:60] == str(expected.value)[:60]


def test_batch_first_may_be_set_as_on_torchs_own():
    theirs, ours = pair(Config())
    x = problem(Config())[0]
    ours(x)
    theirs.batch_first = ours.batch_first = True
    assert difference(ours(x)[0], theirs(x)[0]) < 1e-13


def test_trusts_versions_is_true_or_false():
    ours = ft.GRU(3, 4)
    with pytest.raises(TypeError, match="trusts_versions must be True or False, got str"):
        ours.trusts_versions = "no"
    assert ours.trusts_versions is False


# ---- errors -----------------------------------------------------------------------------------------------------

F64 = torch.float64
WRONG = {
    "features": (torch.zeros(4, 2, 4), None),
    "one axis": (torch.zeros(3), None),
    "four axes": (torch.zeros(1, 4, 2, 3), None),
    "type of x": (torch.zeros(4, 2, 3, dtype=F64), None),
    "integers": (torch.zeros(4, 2, 3, dtype=torch.int64), None),
    "half": (torch.zeros(4, 2, 3, dtype=torch.float16), None),
    "meta": (torch.zeros(4, 2, 3, device="meta"), None),
    "no steps": (torch.zeros(0, 2, 3), None),
    "no tensor": ([[1.0, 2.0, 3.0]], None),
    "nothing": (None, None),
    "rows of hx": (torch.zeros(4, 2, 3), (1, 3, 5)),
    "layers of hx": (torch.zeros(4, 2, 3), (2, 2, 5)),
    "width of hx": (torch.zeros(4, 2, 3), (1, 2, 6)),
    "axes of hx": (torch.zeros(4, 2, 3), (1, 5)),
    "axes of hx, unbatched": (torch.zeros(4, 3), (1, 1, 5)),
}


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("name", WRONG)
def test_errors_are_torchs(name, kind):
    x, shape = WRONG[name]
    hx = None if shape is None else torch.zeros(shape)
    hx = (hx, hx) if kind == "LSTM" and shape else hx
    raised = []
    for library in (torch.nn, ft):
        for mode in (torch.enable_grad, torch.no_grad):
            with mode(), pytest.raises(Exception) as info:
                getattr(library, kind)(3, 5)(x, hx)
            raised.append((type(info.value), str(info.value)))
    assert raised[0] == raised[2] and raised[1] == raised[3]


@pytest.mark.parametrize("hx", [torch.zeros(1, 2, 5), (torch.zeros(1, 2, 5),), (torch.zeros(1, 2, 5),) * 3, (1, 2)])
def test_a_state_that_is_none(hx):
    for library in (torch.nn, ft):
        with pytest.raises((RuntimeError, AttributeError, TypeError, IndexError)):
            library.LSTM(3, 5)(torch.zeros(4, 2, 3), hx)


def test_a_state_of_another_type():
    h = torch.zeros(1, 2, 5, dtype=F64)
    for library, kind in itertools.product((torch.nn, ft), ("LSTM", "GRU")):
        with pytest.raises(RuntimeError):
            getattr(library, kind)(3, 5)(torch.zeros(4, 2, 3), (h, h) if kind == "LSTM" else h)


def test_packed_sequences_that_are_none():
    packed = given(Config(form="packed", I=3), torch.zeros(7, 5, 3))
    for sizes in ([5, 4, 3], [5, 4, 4, 3, 5], [1, 5, 4, 3, 2], [5, 0, 4], [-1], []):
        broken, found = PackedSequence(packed.data, torch.tensor(sizes, dtype=torch.int64)), []
        for module in pair(Config(I=3, dtype=torch.float32)):
            try:
                found.append([(t.shape, t) for t in drop_in.flat(module(broken))])
            except (RuntimeError, IndexError, ValueError) as error:
                found.append((type(error), str(error)))
        assert str(found[0]) == str(found[1]), sizes  # whatever torch does about it


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_layers_of_other_types_cannot_be_made(dtype):
    with pytest.raises(ValueError, match=rf"weight_ih_l0 is {dtype} on cpu; fastlstm runs float32 and float64"):
        ft.LSTM(3, 5, dtype=dtype)


@pytest.mark.parametrize("change", [
    {"dtype": torch.float16}, {"dtype": torch.bfloat16}, {"device": "meta"},
])
def test_weights_elsewhere_are_refused(change):
    layer = ft.GRU(3, 5).to(**change)
    with pytest.raises(RuntimeError, match=r"float32 and float64 on the CPU.*restore"):
        layer(torch.zeros(4, 2, 3).to(**change))


def test_mixed_weights_are_refused():
    layer = ft.GRU(3, 5)
    layer.bias_hh_l0.data = layer.bias_hh_l0.data.double()
    with pytest.raises(RuntimeError, match="mix torch.float32 and torch.float64"):
        layer(torch.zeros(4, 2, 3))


def test_weights_of_another_shape_are_refused():
    layer = ft.RNN(3, 5)
    layer.weight_ih_l0.data = layer.weight_ih_l0.data.reshape(3, 5)
    with pytest.raises(RuntimeError, match=r"weight_ih_l0 has shape \(3, 5\), expected \(5, 3\)"):
        layer(torch.zeros(4, 2, 3))


def test_the_constructor_refuses_what_torchs_refuses():
    for arguments in ((0, 5), (3, 0), (3, 5, 0), ("3", 5)):
        raised = []
        for library in (torch.nn, ft):
            with pytest.raises(Exception) as info:
                library.LSTM(*arguments)
            raised.append((type(info.value), str(info.value)))
        assert raised[0] == raised[1]
    with pytest.raises(ValueError, match="proj_size"):
        ft.LSTM(3, 5, proj_size=5)
    with pytest.raises(ValueError, match="nonlinearity"):
        ft.RNN(3, 5, nonlinearity="sigmoid")


# ---- imports ----------------------------------------------------------------------------------------------------


def test_the_package_itself_leaves_torch_alone():
    code = "import sys, fastlstm; assert 'torch' not in sys.modules; fastlstm.torch.LSTM; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_without_torch_the_reason_is_told():
    code = "import sys; sys.modules['torch'] = None\ntry: import fastlstm.torch\nexcept ImportError as e: print(e)"
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=120, capture_output=True, text=True)
    assert "fastlstm.torch needs torch" in done.stdout
