"""Operators of ONNX on constants: what a file computes of its weights before it runs, by NumPy.

OPERATORS has a row for each operator. Its function gets the inputs as arrays (None for one that is left out) and a
`Call`, and gives an array, or a list of them. Slices, Transposes, Unsqueezes, Expands and the like are views; every
other result lies in memory that a `Room` has allowed. bfloat16 is an array of BF16, whose only field holds the bits.
Source: ONNX's Operators.md, versions 7 to 28.
"""

from typing import Any, NamedTuple

import numpy as np

from . import onnx_shapes
from .onnx_room import BF16, LIST, TYPES, axis_of, common, distinct, integers, sizes


class Operator(NamedTuple):
    """compute: (inputs, `Call`) -> array or list of arrays. inputs: least and most. attributes: name -> last opset."""

    compute: Any
    inputs: tuple
    attributes: dict = {}


def compute(op_type, given, call):
    """The outputs of a node, a list of arrays. Raises ValueError, whose words follow on the name of the node."""
    row = OPERATORS[op_type]
    unknown = [name for name in call.attributes if row.attributes.get(name, 0) < call.opset]
    if unknown:
        raise ValueError(f"has an attribute {unknown[0][:100]!r}, which {op_type} of opset {call.opset} does not have")
    if not row.inputs[0] <= len(given) <= row.inputs[1] or any(one is None for one in given[: row.inputs[0]]):
        raise ValueError(f"has {len(given)} inputs, expected {row.inputs[0]} to {row.inputs[1]}")
    try:
        with np.errstate(all="ignore"):
            found = row.compute(given, call)
    except (ArithmeticError, IndexError, TypeError) as error:  # NumPy's words about shapes and types
        raise ValueError(f"cannot be computed: {str(error)[:200]}") from None
    return found if isinstance(found, list) else [found]


# ---- numbers ----------------------------------------------------------------------------------------------------


def _constant(given, call):
    if len(call.attributes) != 1:
        raise ValueError(f"has attributes {', '.join(call.attributes)}, expected one")
    [(name, value)] = call.attributes.items()
    if name == "value":
        return call.tensor(value)
    return np.array(value, np.float32 if name in ("value_float", "value_floats") else np.int64)


def _constant_of_shape(given, call):
    value = call.attributes.get("value")
    value = np.zeros(1, np.float32) if value is None else call.tensor(value)
    if value.size != 1:
        raise ValueError(f"has a value of shape {value.shape}, expected one number")
    return np.broadcast_to(value.reshape(()), sizes(integers(given[0])))


def _float32(array, call):
    """bfloat16 as float32; other types as they are."""
    if array.dtype != BF16:
        return array
    found = call.room.empty(array.shape, np.uint32)
    found[...] = array["bits"]
    found <<= 16
    return found.view(np.float32)


def _bfloat16(array, call):
    """float32, which is changed, rounded to bfloat16."""
    bits, found = array.view(np.uint32), call.room.empty(array.shape, BF16)
    odd = call.room.empty(array.shape, np.uint32)
    odd[...] = bits
    odd >>= 16
    odd &= 1
    odd += 0x7FFF  # half of the last bit that stays, less one where that is even
    nan = np.isnan(array)
    odd[nan] = 0
    bits[nan] |= 1 << 22  # so that it stays one
    bits += odd
    bits >>= 16
    found["bits"] = bits
    return found


def _cast_to(array, dtype, call):
    array = _float32(array, call) if dtype != BF16 else array
    if array.dtype == dtype:
        return array
    found = call.room.empty(array.shape, np.float32 if dtype == BF16 else dtype)
    if dtype == np.bool_:
        np.not_equal(array, 0, out=found)
    else:
        np.copyto(found, array, casting="unsafe")
    return _bfloat16(found, call) if dtype == BF16 else found


def _cast(given, call):
    code = call.integer("to")
    if code not in TYPES:
        raise ValueError(f"makes numbers of type {code}, which are not read")
    return _cast_to(given[0], TYPES[code], call)


def _elementwise(function, kind=None):
    """A function of NumPy. kind: of the result; None for that of the inputs."""

    def computed(given, call):
        dtype = given[0].dtype
        if any(array.dtype != dtype for array in given):
            raise ValueError(f"has inputs of {', '.join(str(array.dtype) for array in given)}")
        given = [_float32(array, call) for array in given]
        found = call.room.empty(common([array.shape for array in given]), kind or given[0].dtype)
        function(*given, out=found)
        return _bfloat16(found, call) if dtype == BF16 and kind is None else found

    return computed


def _div(given, call):
    if given[0].dtype.kind not in "iu":
        return _elementwise(np.divide)(given, call)
    if max(array.size for array in given) > LIST or not np.all(given[1]):
        raise ValueError(f"divides {given[0].size} integers, or by 0")
    down = np.floor_divide(*given)  # ONNX rounds to zero
    return down + ((down < 0) & (down * given[1] != given[0])).astype(down.dtype)


def _power(given, call):
    base, exponent = given
    if exponent.size > LIST or BF16 in (base.dtype, exponent.dtype):
        raise ValueError(f"has exponents of {exponent.dtype} {exponent.shape}")
    if base.dtype.kind in "iu":
        if base.size > LIST:
            raise ValueError(f"has {base.size} integers")
        with np.errstate(all="ignore"):
            return np.power(base.astype(np.float64), exponent.astype(np.float64)).astype(base.dtype)
    return _elementwise(np.power)([base, exponent.astype(base.dtype)], call)


def _where(given, call):
    condition, yes, no = given
    if condition.dtype != np.bool_ or yes.dtype != no.dtype:
        raise ValueError(f"has inputs of {condition.dtype}, {yes.dtype}, {no.dtype}")
    found = call.room.empty(common([array.shape for array in given]), yes.dtype)
    found[...] = no
    np.copyto(found, yes, where=condition)
    return found


def _reduced(function, since):
    """since: the opset from which axes are an input."""

    def computed(given, call):
        array, axes = given[0], call.integers("axes", given, 1, since)
        call.room.check(8 * array.size + array.nbytes)  # integers are added in 64 bits
        if not axes:
            axes = [] if call.attributes.get("noop_with_empty_axes", 0) else [*range(array.ndim)]
        axes = tuple(distinct(axes, array.ndim))
        found = function(_float32(array, call), axes, bool(call.integer("keepdims", 1)))
        found = call.room.adopt(np.array(found, np.float32 if array.dtype == BF16 else array.dtype))
        return _cast_to(found, array.dtype, call)

    return computed


# ---- quantised numbers ------------------------------------------------------------------------------------------


def _blocks(array, call, scale, zero):
    """(places in the array, scale, zero point) of every part that has its own."""
    block = call.integer("block_size", 0)
    if zero is not None and zero.shape != scale.shape:
        raise ValueError(f"has scales of shape {scale.shape} and zero points of shape {zero.shape}")
    if scale.size == 1 and not block:
        return [(..., scale.reshape(()), None if zero is None else zero.reshape(()))]
    axis = axis_of(call.integer("axis", 1), array.ndim)
    if not block:
        shape = [-1 if n == axis else 1 for n in range(array.ndim)]
        if scale.shape != array.shape[axis : axis + 1]:
            raise ValueError(f"has {scale.shape} scales along axis {axis} of {array.shape}")
        return [(..., scale.reshape(shape), None if zero is None else zero.reshape(shape))]
    expected = [-(-size // block) if n == axis else size for n, size in enumerate(array.shape)]
    if block < 1 or list(scale.shape) != expected:
        raise ValueError(f"has scales of shape {scale.shape}, expected {tuple(expected)}")
    return _of_blocks((slice(None),) * axis, array.shape[axis], block, scale, zero)


def _of_blocks(before, size, block, scale, zero):
    """The parts of `_blocks` along the axis behind `before`: blocks, or where these are small their n-th numbers."""
    count = -(-size // block)
    for n in range(min(block, count)):
        if block > count:
            place, part = slice(n * block, n * block + block), (*before, slice(n, n + 1))
        else:
            place, part = slice(n, None, block), (*before, slice(0, -(-(size - n) // block)))
        yield (*before, place), scale[part], None if zero is None else zero[part]


def _dequantize(given, call):
    array, scale, zero = (*given, None)[:3]
    code = call.integer("output_dtype", 0)
    dtype = TYPES.get(code, scale.dtype)
    if array.dtype.kind not in "iu" or (zero is not None and zero.dtype != array.dtype):
        raise ValueError(f"has numbers of {array.dtype} and zero points of {zero.dtype if zero is not None else None}")
    scale = _float32(scale, call)
    found = call.room.empty(array.shape, np.float32)
    for place, factor, middle in _blocks(array, call, scale, zero):
        part = found[place]
        part[...] = array[place]
        if middle is not None:
            part -= middle
        part *= factor
    return _cast_to(found, dtype, call)


def _no_fours(dtype):
    """Numbers of four bits are held in eight, so none can be made here."""
    if dtype.metadata:
        raise ValueError("makes numbers of four bits")


def _cast_like(given, call):
    _no_fours(given[1].dtype)
    return _cast_to(given[0], given[1].dtype, call)


def _quantize(given, call):
    array, scale, zero = (*given, None)[:3]
    dtype = zero.dtype if zero is not None else TYPES.get(call.integer("output_dtype", 0) or 2, np.dtype("?"))
    if dtype.kind not in "iu" or dtype.itemsize > 2 or array.dtype.kind not in "fV":
        raise ValueError(f"makes {dtype} of {array.dtype}")
    _no_fours(dtype)
    array, scale = _float32(array, call), _float32(scale, call)
    wide, limits = call.room.empty(array.shape, np.float32), np.iinfo(dtype)
    for place, factor, middle in _blocks(array, call, scale, zero):
        part = wide[place]
        np.divide(array[place], factor, out=part)
        np.rint(part, out=part)
        if middle is not None:
            part += middle
        np.clip(part, limits.min, limits.max, out=part)
    return _cast_to(wide, dtype, call)


def _norm(array, axes, keepdims):
    return np.sqrt(np.sum(np.square(array), axis=axes, keepdims=keepdims))


def _sum(array, axes, keepdims):
    return np.sum(array, axis=axes, keepdims=keepdims)



# ---- the table --------------------------------------------------------------------------------------------------

_ALL, _MANY = 99, 64
_QUANTISED = dict.fromkeys(("axis", "block_size", "output_dtype", "precision", "saturate"), _ALL)
_ARITHMETIC = {
    "Add": (np.add, 2), "Sub": (np.subtract, 2), "Mul": (np.multiply, 2), "Neg": (np.negative, 1),
    "Abs": (np.abs, 1), "Sqrt": (np.sqrt, 1), "Exp": (np.exp, 1), "Reciprocal": (np.reciprocal, 1),
}
_LOGIC = {
    "Equal": (np.equal, 2), "Less": (np.less, 2), "LessOrEqual": (np.less_equal, 2), "Greater": (np.greater, 2),
    "GreaterOrEqual": (np.greater_equal, 2), "And": (np.logical_and, 2), "Or": (np.logical_or, 2),
    "Xor": (np.logical_xor, 2), "Not": (np.logical_not, 1),
}
OPERATORS = {
    "Cast": Operator(_cast, (1, 1), {"to": _ALL, "saturate": _ALL, "round_mode": _ALL}),
    "CastLike": Operator(_cast_like, (2, 2), {"saturate": _ALL, "round_mode": _ALL}),
    "Concat": Operator(onnx_shapes.concat, (1, _MANY), {"axis": _ALL}),
    "Constant": Operator(_constant, (0, 0), dict.fromkeys(
        ("value", "value_float", "value_floats", "value_int", "value_ints"), _ALL)),
    "ConstantOfShape": Operator(_constant_of_shape, (1, 1), {"value": _ALL}),
    "DequantizeLinear": Operator(_dequantize, (2, 3), _QUANTISED),
    "Div": Operator(_div, (2, 2)),
    "Expand": Operator(onnx_shapes.expand, (2, 2)),
    "Flatten": Operator(onnx_shapes.flatten, (1, 1), {"axis": _ALL}),
    "Gather": Operator(onnx_shapes.gather, (2, 2), {"axis": _ALL}),
    "Pow": Operator(_power, (2, 2)),
    "QuantizeLinear": Operator(_quantize, (2, 3), _QUANTISED),
    "ReduceL2": Operator(_reduced(_norm, 18), (1, 2), {"axes": 17, "keepdims": _ALL, "noop_with_empty_axes": _ALL}),
    "ReduceSum": Operator(_reduced(_sum, 13), (1, 2), {"axes": 12, "keepdims": _ALL, "noop_with_empty_axes": _ALL}),
    "Reshape": Operator(onnx_shapes.reshape, (2, 2), {"allowzero": _ALL}),
    "Shape": Operator(onnx_shapes.shape_of, (1, 1), {"start": _ALL, "end": _ALL}),
    "Size": Operator(lambda given, call: np.array(given[0].size, np.int64), (1, 1)),
    "Slice": Operator(onnx_shapes.slice_of, (1, 5), {"starts": 9, "ends": 9, "axes": 9}),
    "Split": Operator(onnx_shapes.split, (1, 2), {"axis": _ALL, "split": 12, "num_outputs": _ALL}),
    "Squeeze": Operator(onnx_shapes.squeeze, (1, 2), {"axes": 12}),
    "Tile": Operator(onnx_shapes.tile, (2, 2)),
    "Transpose": Operator(onnx_shapes.transpose, (1, 1), {"perm": _ALL}),
    "Unsqueeze": Operator(onnx_shapes.unsqueeze, (1, 2), {"axes": 12}),
    "Where": Operator(_where, (3, 3)),
    **{name: Operator(_elementwise(function), (count, count)) for name, (function, count) in _ARITHMETIC.items()},
    **{name: Operator(_elementwise(function, np.bool_), (count, count)) for name, (function, count) in _LOGIC.items()},
}
