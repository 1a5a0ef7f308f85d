"""``fastlstm convert``: a model of any format in another."""

from .._terminal import shown
from .common import check_other_file, check_output, check_suffix, load, model_options, warnings_as_lines, write
from .parser import UsageError

_NEEDS = {".pt": "torch", ".pth": "torch", ".onnx": "onnx"}
_WAYS = {
    "torch": "pip install torch, or fastlstm[torch]; .safetensors needs nothing, and torch reads it by the package "
    "safetensors",
    "onnx": "pip install onnx, or fastlstm[onnx]",
}


def convert_command(arguments):
    """Read a model, write it in another format."""
    from ..convert import formats

    source, target = arguments.source, arguments.target
    check_suffix(target, formats.SUFFIXES)
    check_output(target)
    check_other_file(target, source, "the model")
    _check_library(target)
    model = load(source, arguments.name, **model_options(arguments))
    try:
        with warnings_as_lines():
            write(target, lambda path: formats.write(model, path))
    except (ImportError, TypeError, ValueError) as error:
        raise UsageError(f"cannot write {target}: {error}") from error
    print(f"{shown(source)} -> {shown(target)}")
    print(model)


def _check_library(target):
    """Refuse a format whose library is missing, before the model is read."""
    import importlib

    needed = next((name for suffix, name in _NEEDS.items() if target.lower().endswith(suffix)), None)
    if needed is None:
        return
    try:
        importlib.import_module(needed)
    except ImportError as error:
        words = f"it needs {needed}, which cannot be imported ({error}): {_WAYS[needed]}"
        raise UsageError(f"cannot write {target}: {words}") from error
