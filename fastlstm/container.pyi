from collections.abc import Mapping
from typing import Any

from .module import Module

def member(name: str) -> Any: ...

class Container(Module):
    def __init__(self, members: Mapping[str, Module]) -> None: ...
    def plan(self, T: int, B: int) -> dict[str, Any]: ...
