"""What others hand in as an array, as a NumPy array without loss, or an error in words.

Libraries are known by what their objects can do, none is imported.
"""

import numpy as np


def _unmasked(array):
    """The numbers of a masked array. ValueError if some of them are masked, as no call here leaves numbers out."""
    masked = int(np.ma.count_masked(array))
    if masked:
        raise ValueError(
            f"it is a masked array and {masked} of {array.size} elements are masked; fill them first, as by filled(0)"
        )
    return np.asarray(np.ma.getdata(array))


def _check_items(items):
    """Raises as `as_array` does for an item at any depth of a list: NumPy itself drops the masks of items."""
    for one in items:
        if isinstance(one, (list, tuple)):
            _check_items(one)
        elif type(one) not in (float, int):
            as_array(one)


def _from_columns(value):
    """The numbers of a Series, an Index or a DataFrame of pandas, or of an array of its own kinds."""
    kinds = list(value.dtypes) if hasattr(value, "columns") else [value.dtype]
    if all(isinstance(kind, np.dtype) for kind in kinds):  # there, what is missing is NaN, a number
        return np.asarray(value)
    missing = int(np.sum(np.asarray(value.isna())))
    if missing:
        raise ValueError(f"it is a {origin(value)} with {missing} missing values; fill them first, as by fillna(0)")
    plain = [getattr(kind, "numpy_dtype", kind) for kind in kinds]  # of nullable kinds, what they hold
    if all(isinstance(kind, np.dtype) and kind.kind in "fiub" for kind in plain):
        return np.asarray(value.to_numpy(dtype=np.result_type(*plain)))
    return np.asarray(value)


def as_array(value):
    """A view, where possible, of an array, list, or anything with ``__array__`` or ``__dlpack__``.

    Raises ValueError for elements that are masked (NumPy) or missing (pandas): converted, they would be numbers. A
    masked array without masked elements is an array like any other. Other errors are the owner's.
    """
    if type(value) is np.ndarray:
        return value
    if hasattr(value, "detach"):  # a torch parameter refuses __array__ while it wants gradients
        value = value.detach()
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        return np.from_dlpack(value)
    if hasattr(value, "isna") and hasattr(value, "to_numpy"):
        return _from_columns(value)
    if isinstance(value, (list, tuple)):
        _check_items(value)
    array = np.asanyarray(value)
    return _unmasked(array) if isinstance(array, np.ma.MaskedArray) else np.asarray(array)


def origin(value):
    """The type of `value` in words, with the element type that its owner tells if that is none of NumPy's."""
    name, kind = type(value).__name__, getattr(value, "dtype", None)
    if kind is None and hasattr(value, "columns"):
        kind = ", ".join(sorted({str(one) for one in value.dtypes}))
    return name if kind is None or isinstance(kind, np.dtype) else f"{name} of dtype {kind}"
