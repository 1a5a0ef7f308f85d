from collections.abc import Iterable

from .files import _Path

TEMPORARY: tuple[str, ...]

def write_whole(path: _Path, pieces: Iterable[bytes | memoryview]) -> None: ...
def write_figure(path: _Path, figure: object, kind: str) -> None: ...
