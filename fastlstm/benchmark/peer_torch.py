"""PyTorch: the layer in inference mode, packed or padded for rows of several lengths; autograd for training."""

import numpy as np

from .problem import Call, Cannot


def version():
    """PyTorch's version. ImportError without it."""
    import torch

    return torch.__version__


def entries(problem):
    """One contestant, or two for rows of several lengths."""
    if problem.lengths is None:
        return {"torch": lambda: _make(problem)}
    return {"torch packed": lambda: _make(problem, packed=True), "torch padded": lambda: _padded(problem)}


def _padded(problem):
    if problem.case.bidirectional:
        raise Cannot("a padded reverse direction would start in the padding: its results are others")
    return _make(problem)


def _make(problem, packed=False):
    import torch

    case = problem.case
    if case.options or case.cell not in ("lstm", "gru", "rnn"):
        raise Cannot("torch has no layer of that cell with these options")
    if len(set(case.sizes)) > 1:
        raise Cannot("torch's layers have one size")
    torch.set_num_threads(problem.threads)
    options = {"proj_size": case.proj} if case.proj else {}
    layer = getattr(torch.nn, case.cell.upper())(
        case.inputs, case.sizes[0], case.layers, bidirectional=case.bidirectional, dtype=getattr(torch, case.dtype),
        **options,
    )
    layer.load_state_dict({name: torch.from_numpy(np.array(weight)) for name, weight in problem.weights.items()})
    forward = _forward(problem, layer, torch, packed)
    kept = {}
    if case.mode == "train":
        return _training(problem, layer, torch, forward, kept)

    def run():
        with torch.inference_mode():
            kept["y"], kept["state"] = forward()

    def results():
        y = kept["y"].numpy()
        if case.mode != "step":
            # padded, torch goes on beyond each length: what it writes there is not compared
            return {"y": y * problem.valid[..., None]}
        state = kept["state"] if isinstance(kept["state"], tuple) else (kept["state"],)
        return {"y": y, **dict(zip(("hn", "cn"), (s.numpy() for s in state), strict=False))}

    return Call(run, results)


def _forward(problem, layer, torch, packed):
    x = torch.from_numpy(problem.x)
    if packed:
        rnn = torch.nn.utils.rnn
        lengths = torch.from_numpy(problem.lengths)

        def forward():
            y, state = layer(rnn.pack_padded_sequence(x, lengths, enforce_sorted=False))
            return rnn.pad_packed_sequence(y, total_length=len(x))[0], state

        return forward
    if problem.state is None:
        return lambda: layer(x)
    state = tuple(map(torch.from_numpy, problem.state.values()))
    state = state if len(state) > 1 else state[0]
    return lambda: layer(x, state)


def _training(problem, layer, torch, forward, kept):
    names, weights = zip(*layer.named_parameters(), strict=True)
    dy = torch.from_numpy(problem.dy)

    def run():
        kept["y"], _ = forward()
        kept["grads"] = torch.autograd.grad(kept["y"], weights, dy)

    def results():
        y = kept["y"].detach().numpy() * problem.valid[..., None]
        return {"y": y, **{name: grad.numpy() for name, grad in zip(names, kept["grads"], strict=True)}}

    return Call(run, results)
