"""What `fastlstm inspect` prints of a file."""

from ..container import Container
from ..files import CHECKPOINT

_KINDS = {
    "fastlstm": "a model of fastlstm", "safetensors": "a state dict in safetensors", "torch": "a checkpoint of torch",
    "ONNX": "an ONNX graph", "Keras": "a model of Keras", CHECKPOINT: "a checkpoint of fastlstm",
}


def lines(found):
    """Lines of text about `formats.Contents`."""
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
        yield f"{name!r} cannot be read: {_shown(reason)}"
    if found.others:
        yield ""
        yield "tensors of no recurrent layer"
        yield from _tensor_lines(found.others)


def _key_lines(found):
    """Of a file of several things: the keys of its state dicts, and what else lies beside them."""
    yield f"{_KINDS[found.kind]} with several things in it; --key KEY takes one that has tensors:"
    wide = max(map(len, found.keys))
    for key, words in found.keys.items():
        yield f"  {_shown(key):<{wide}}  {_shown(words)}"
    others = [name for name in found.others if name not in found.keys]
    if others:
        yield f"beside them: {', '.join(map(repr, others[:20]))}{', ...' if len(others) > 20 else ''}"


def _shown(text):
    """Text of a file without what would move a terminal's cursor."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _noun(found):
    return "model" if "" in found.models or found.kind == CHECKPOINT else "recurrent layer"


def _count(number, noun):
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _tensor_lines(tensors):
    wide = max(map(len, tensors), default=0)
    for name, tensor in tensors.items():
        yield f"  {_shown(name):<{wide}}  {tensor.shape!s:<14} {tensor.dtype}"


def _model_lines(model):
    yield from repr(model).splitlines()
    weights = model.state_dict()
    yield from _tensor_lines(weights)
    size = sum(weight.nbytes for weight in weights.values())
    yield f"{sum(w.size for w in weights.values()):,} parameters, {size:,} bytes"
    for key, text in sorted(model.metadata.items()):
        yield f"  {_shown(key)}: {_shown(text)}"
    for steps, batch in ((1, 1), (100, 1), (50, 64)):
        yield "\nplan"
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
