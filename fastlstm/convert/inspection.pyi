from collections.abc import Iterator

from .formats import Contents

def lines(found: Contents) -> Iterator[str]: ...
