from ..files import _Path
from ..module import Module

def from_keras(path: _Path) -> Module: ...
