from collections.abc import Iterator
from typing import Any

from .formats import Contents

SIZES: tuple[tuple[int, int], ...]

def lines(found: Contents, plans: bool = False) -> Iterator[str]: ...
def described(found: Contents, plans: bool = False) -> dict[str, Any]: ...
