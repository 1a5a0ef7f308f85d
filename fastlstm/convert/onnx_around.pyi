from typing import Any

from .onnx_nodes import Node

MORE: str

def rest(data: Any, nodes: list[tuple[Node, str | None]]) -> str: ...
