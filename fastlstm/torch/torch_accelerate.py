"""accelerate and restore: the recurrent layers inside a torch model become those of this engine, and back.

A layer stays the object it is, with its Parameters, mode, and place in the model; its class changes. So optimisers,
weights that are tied, and whoever holds the layer go on as before.
"""

import torch

from .torch_layers import OURS, TORCHS, refusal, to_torchs

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_KINDS = ("LSTM", "GRU", "RNN")


class Report:
    """What `accelerate` or `restore` did; prints as a list.

    module: the model that was given. replaced: name -> class it has now. left: name -> why it was left alone. Names as
    of ``named_modules()``, "" for the model itself; a layer in several places has as many names.
    """

    def __init__(self, module):
        self.module = module
        self.replaced = {}
        self.left = {}

    def __repr__(self):
        return f"Report({len(self.replaced)} replaced, {len(self.left)} left)"

    def __str__(self):
        lines = [f"{len(self.replaced)} recurrent layers replaced, {len(self.left)} left"]
        lines += [f"  {name or 'the module itself'}: now {cls}" for name, cls in self.replaced.items()]
        lines += [f"  {name or 'the module itself'}: left, {why}" for name, why in self.left.items()]
        return "\n".join(lines)


def _is_recurrent(module):
    if isinstance(module, (torch.nn.RNNBase, torch.nn.RNNCellBase)):
        return True
    name = getattr(module, "original_name", type(module).__name__)  # of a scripted module, that of its source
    return name.removesuffix("Cell") in _KINDS


def _reason(module):
    """Why a recurrent module cannot become one of ours; None when it can."""
    cls = type(module)
    if cls in TORCHS:
        return "it is fastlstm's already"
    if torch.nn.utils.parametrize.is_parametrized(module):
        return "its weights are parametrized"
    if cls not in OURS:
        inside = isinstance(module, torch.nn.RNNBase)
        return f"{cls.__name__} is a subclass, whose forward may do more" if inside else f"no counterpart of {cls}"
    if "forward" in vars(module):
        return "its forward has been replaced"
    if any(getattr(module, name, None) for name in _HOOKS):
        return "it has hooks (weight_norm is one, too), which may count on torch's own layer"
    weights = {name: getattr(module, name) for names in module._all_weights for name in names}
    for name, weight in weights.items():
        words = refusal(name, weight)
        if words:
            return words
    if len({weight.dtype for weight in weights.values()}) > 1:
        return "its weights mix float32 and float64"
    return None


def _check(module):
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")


def accelerate(module):
    """Let fastlstm run the recurrent layers of a torch model; returns a `Report`.

    module: a torch.nn.Module. Every torch.nn.LSTM, GRU and RNN in it, or it itself, becomes one of `fastlstm.torch`, in
    place: the same object with the same Parameters. Left alone, with the reason: subclasses, parametrized and
    weight-normed layers, those with hooks or another forward, quantized and scripted ones, LSTMCell and the like, and
    weights that are not float32 or float64 on the CPU. Hooks that are registered afterwards work as ever.

    Raises TypeError for what is no module.
    """
    _check(module)
    report = Report(module)
    found = [(name, one) for name, one in module.named_modules(remove_duplicate=False) if _is_recurrent(one)]
    reasons = {id(one): _reason(one) for _, one in found}
    for name, one in found:
        if reasons[id(one)]:
            report.left[name] = reasons[id(one)]
            continue
        if type(one) in OURS:
            object.__setattr__(one, "__class__", OURS[type(one)])
        report.replaced[name] = f"fastlstm.torch.{type(one).__name__}"
    return report


def restore(module):
    """The way back of `accelerate`: the layers of fastlstm become torch's, in place; returns a `Report`.

    Layers that were made as fastlstm's become torch's, too. Left alone: parametrized ones and subclasses.
    Raises TypeError for what is no module.
    """
    _check(module)
    report = Report(module)
    found = [(name, one) for name, one in module.named_modules(remove_duplicate=False)]
    ours = {id(one) for _, one in found if isinstance(one, tuple(TORCHS))}
    for name, one in found:
        if id(one) not in ours:
            continue
        if type(one) in TORCHS:
            to_torchs(one)
        if type(one) in OURS:
            report.replaced[name] = f"torch.nn.{type(one).__name__}"
        else:
            report.left[name] = f"{type(one).__name__} is a subclass of fastlstm's"
    return report
