"""What `fastlstm inspect` prints of a file."""

from .._terminal import shown
from ..container import Container
from ..files import CHECKPOINT

SIZES = ((1, 1), (100, 1), (50, 64))  # steps and rows of the calls whose plans are told
_KINDS = {
    "fastlstm": "a model of fastlstm", "safetensors": "a state dict in safetensors", "torch": "a checkpoint of torch",
    "ONNX": "an ONNX graph", "Keras": "a model of Keras", CHECKPOINT: "a checkpoint of fastlstm",
}


def lines(found, plans=False):
    """Lines of text about `formats.Contents`; plans: whether those of its models stand behind the rest."""
    if found.keys:
        yield from _key_lines(found)
        return
    if found.kind != "fastlstm":
        yield f"{_KINDS[found.kind]}: {_count(len(found.models) + len(found.refused), _noun(found))}"
    for name, model in found.models.items():
        if name or found.kind != "fastlstm":
            yield ""
        if name:
            yield f"{name!r}:"
        yield from _model_lines(model)
    for name, reason in found.refused.items():
        yield ""
        yield f"{name!r} cannot be read: {shown(reason)}"
    if found.rest and not found.others:
        yield ""
        yield f"beyond what is told here: {shown(found.rest)}"
    if found.others:
        yield ""
        yield "tensors of no recurrent layer"
        yield from _tensor_lines(found.others)
    for name, model in found.models.items() if plans else ():
        yield from _plans(name, model)


def described(found, plans=False):
    """The same for programs: a dict of what JSON knows. Tensors are told by shape and dtype, plans in words."""
    models = {}
    for name, model in found.models.items():
        weights = model.state_dict()
        models[name] = {
            "model": repr(model), "description": model.describe(), "tensors": _tensors(weights),
            "parameters": sum(weight.size for weight in weights.values()),
            "bytes": sum(weight.nbytes for weight in weights.values()), "metadata": dict(model.metadata),
        }
        if plans:
            models[name]["plans"] = ["\n".join(_plan_lines(model, *size)) for size in SIZES]
    return {
        "format": found.kind, "models": models, "refused": dict(found.refused), "others": _tensors(found.others),
        "rest": found.rest, "keys": dict(found.keys),
    }


def _tensors(tensors):
    """A shape may be words: of something that is no tensor."""
    return {
        name: {"shape": t.shape if isinstance(t.shape, str) else list(t.shape), "dtype": str(t.dtype)}
        for name, t in tensors.items()
    }


def _key_lines(found):
    """Of a file of several things: the keys of its state dicts, and what else lies beside them."""
    yield f"{_KINDS[found.kind]} with several things in it; --key KEY takes one that has tensors:"
    wide = max(map(len, found.keys))
    for key, words in found.keys.items():
        yield f"  {shown(key):<{wide}}  {shown(words)}"
    others = [name for name in found.others if not any(f"{key}.".startswith(f"{name}.") for key in found.keys)]
    if others:
        yield f"beside them: {', '.join(map(repr, others[:20]))}{', ...' if len(others) > 20 else ''}"


def _noun(found):
    return "model" if "" in found.models or found.kind == CHECKPOINT else "recurrent layer"


def _count(number, noun):
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _tensor_lines(tensors):
    wide = max(map(len, tensors), default=0)
    for name, tensor in tensors.items():
        yield f"  {shown(name):<{wide}}  {tensor.shape!s:<14} {tensor.dtype}"


def _model_lines(model):
    yield from repr(model).splitlines()
    weights = model.state_dict()
    yield from _tensor_lines(weights)
    size = sum(weight.nbytes for weight in weights.values())
    yield f"{sum(w.size for w in weights.values()):,} parameters, {size:,} bytes"
    for key, text in sorted(model.metadata.items()):
        yield f"  {shown(key)}: {shown(text)}"


def _plans(name, model):
    for steps, batch in SIZES:
        yield f"\nplan of {shown(repr(name))}" if name else "\nplan"
        for line in _plan_lines(model, steps, batch):
            yield f"  {line}"


def _plan_lines(model, steps, batch):
    """The plan of a layer, or of the members that carry a state."""
    if not isinstance(model, Container):
        return str(model.plan(steps, batch)).splitlines()
    found = []
    for name, part in model._parts.items():
        if part.recurrent:
            first, *rest = _plan_lines(part, steps, batch)
            found += [f"({name}) {first}", *(f"    {line}" for line in rest)]
    return found
