"""What objects with many numbers in them show: shapes and dtypes, a line for each part."""

import numpy as np

MOST_SHAPES = 4  # of a list whose arrays differ
MOST_ENTRIES = 8  # of a dict
LONGEST = 80  # characters of a value that is no array


def short(value):
    """A value in a few words: of arrays, alone or in a list or tuple, the shapes and dtypes."""
    if isinstance(value, np.ndarray):
        return f"{value.shape} {value.dtype}"
    if type(value) in (list, tuple) and value and all(isinstance(one, np.ndarray) for one in value):
        return _arrays(value)
    text = repr(value)
    return text if "\n" in text or len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _arrays(arrays):
    """Of a list: how many, and the shape and dtype they share, or the shapes one after the other."""
    count = f"{len(arrays)} array{'s' if len(arrays) > 1 else ''}"
    dtypes, shapes = {one.dtype for one in arrays}, [f"{one.shape}" for one in arrays]
    if len(dtypes) > 1:
        shapes, end = [short(one) for one in arrays], ""
    else:
        end = f" {dtypes.pop()}"
    if len(set(shapes)) == 1:
        return f"{count} {shapes[0]}{end}"
    more = ["..."] if len(shapes) > MOST_SHAPES else []
    return f"{count} {', '.join([*shapes[:MOST_SHAPES], *more])}{end}"


def told(name, parts):
    """``name(`` and a line for each part, ``  part: what it is``. parts: name -> value, or a string that says it.

    A dict has a line for each of its entries, or for the first of them; so has a tuple of caches.
    """
    return "\n  ".join([f"{name}(", *(_line(part, value) for part, value in parts.items())]) + "\n)"


def _line(part, value):
    if type(value) is tuple and any(hasattr(one, "_fields") for one in value):
        value = {f"({place})": one for place, one in enumerate(value)}
    if isinstance(value, dict) and value:
        lines = [f"{name}: {short(one)}" for name, one in list(value.items())[:MOST_ENTRIES]]
        lines += [f"... and {len(value) - MOST_ENTRIES} more"] if len(value) > MOST_ENTRIES else []
        text = "\n".join(["", *lines]).replace("\n", "\n  ")
    elif isinstance(value, dict):
        text = " none"
    else:
        text = f" {value if isinstance(value, str) else short(value)}"
    return f"{part}:{text}".replace("\n", "\n  ")


def fields_told(value):
    """The repr of a named tuple, a line for each field. For use as its ``__repr__``."""
    parts = {name: f"{one!r:.{LONGEST}}" if isinstance(one, str) else one for name, one in value._asdict().items()}
    return told(type(value).__name__, parts)
