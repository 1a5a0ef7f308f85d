"""What the tests of fastlstm.torch share: configurations, pairs of modules with equal weights, runs, differences."""

import itertools
import warnings
from typing import NamedTuple

import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import fastlstm.torch as ft

torch.set_num_threads(1)  # of its own team, too: on a busy machine tiny calls would wait for each other's threads

FORMS = ("batched", "batch first", "unbatched", "packed", "packed, unsorted")
KINDS = ("LSTM", "LSTM proj", "GRU", "RNN tanh", "RNN relu")
LENGTHS = (4, 2, 7, 1, 7)  # of the rows of packed sequences


class Config(NamedTuple):
    """A layer and a call. T, B: steps and rows, of packed sequences the longest and as many as have LENGTHS."""

    kind: str = "LSTM"
    form: str = "batched"
    layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    state: bool = True
    dtype: torch.dtype = torch.float64
    T: int = 7
    B: int = 5
    I: int = 5
    H: int = 7

    @property
    def options(self):
        found = {"num_layers": self.layers, "bidirectional": self.bidirectional, "bias": self.bias}
        found |= {"batch_first": self.form == "batch first", "dtype": self.dtype}
        if self.kind == "LSTM proj":
            found["proj_size"] = self.H // 2 + 1
        if self.kind.startswith("RNN"):
            found["nonlinearity"] = self.kind.split()[1]
        return found

    @property
    def cls(self):
        return self.kind.split()[0]


def grid(kinds=KINDS, forms=FORMS, layers=(1, 3), **options):
    """Every combination."""
    for kind, form, n, two, bias, state in itertools.product(kinds, forms, layers, *[(False, True)] * 3):
        yield Config(kind, form, n, two, bias, state, **options)


def pair(config, **more):
    """torch's module and ours of a configuration, made from the same seed."""
    made = []
    for library in (torch.nn, ft):
        torch.manual_seed(3)
        made.append(getattr(library, config.cls)(config.I, config.H, **config.options, **more))
    return made


def problem(config, seed=4):
    """(x, initial state or None), leaves that require gradients."""
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape):
        return torch.randn(shape, generator=generator, dtype=config.dtype).requires_grad_()

    T, B, slots = config.T, config.B, config.layers * (1 + config.bidirectional)
    rows = () if config.form == "unbatched" else (B,)
    x = leaf(B, T, config.I) if config.form == "batch first" else leaf(T, *rows, config.I)
    if not config.state:
        return x, None
    h = leaf(slots, *rows, config.options.get("proj_size", config.H))
    return x, (h, leaf(slots, *rows, config.H)) if config.cls == "LSTM" else h


def given(config, x):
    """x as the module takes it: a PackedSequence where the form says so."""
    if not config.form.startswith("packed"):
        return x
    lengths = torch.tensor(LENGTHS[: config.B]).clamp(max=config.T)
    if config.form == "packed":
        lengths = lengths.sort(descending=True).values
    return pack_padded_sequence(x, lengths, enforce_sorted=config.form == "packed")


def flat(found):
    """Tensors of y and states; of a PackedSequence its data, with the other fields checked to be there."""
    if isinstance(found, torch.Tensor):
        return [found]
    if isinstance(found, PackedSequence):
        return [found.data, found.batch_sizes, *(t for t in found[2:] if t is not None)]
    return [tensor for one in found for tensor in flat(one)]


def outputs(config, module, x, state):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch, of the speed of its projections
        return flat(module(given(config, x), state))


def run(config, module, x, state):
    """(outputs, gradients by name) of a loss that looks at all outputs."""
    found = outputs(config, module, x, state)
    generator = torch.Generator().manual_seed(9)
    seen = [t for t in found if t.is_floating_point()]
    loss = sum((t * torch.randn(t.shape, generator=generator, dtype=t.dtype)).sum() for t in seen)
    leaves = {"x": x} | ({} if state is None else dict(zip(("h0", "c0"), state if config.cls == "LSTM" else (state,))))
    leaves |= dict(module.named_parameters())
    return found, dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()))))


def difference(a, b):
    """The largest, as a share of the largest value or of 1; shapes, types and integers must be equal."""
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    if not a.is_floating_point():
        assert torch.equal(a, b)
        return 0.0
    if a.numel() == 0:
        return 0.0
    a, b = a.detach(), b.detach()
    return float((a - b).abs().max() / b.abs().max().clamp(min=1))
