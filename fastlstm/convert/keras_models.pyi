from ..module import Module
from ..read_files import Source, _Given

def from_keras(path: _Given | Source, *, pack: bool = False) -> Module: ...
