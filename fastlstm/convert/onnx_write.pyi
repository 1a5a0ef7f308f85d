from ..files import _Path
from ..module import Module

OPSETS: range

def to_onnx(
    model: Module,
    path: _Path,
    *,
    state: bool = False,
    lengths: bool = False,
    opset: int = 17,
    metadata: dict[str, str] | None = None,
) -> None: ...
