from ..module import Module
from ..whole_files import _Goal

OPSETS: range

def to_onnx(
    model: Module,
    path: _Goal,
    *,
    state: bool = False,
    lengths: bool = False,
    opset: int = 17,
    metadata: dict[str, str] | None = None,
) -> None: ...
