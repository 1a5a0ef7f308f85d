"""The wire format of protobuf, as far as an ONNX file needs it: fields, messages, attributes.

A message is a sequence of fields, each a tag (number << 3 | kind) and a value: a varint, 4 or 8 bytes, or a length and
as many bytes. Here a message is its *span* (start, end) in one buffer, and nothing is built for what nobody asks for:
memory depends on what is looked at, not on what the file says. Lengths are checked against the enclosing message.

Sources: the encoding in protobuf's documentation; numbers and types of fields: onnx.proto.
"""

import struct

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
MAX_NAME = 4096  # bytes of a name that is looked at
_SIZES = {FIXED64: 8, FIXED32: 4}


def varint(data, at, end):
    """(the number at `at`, where the next thing starts); 64 bits at most."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, at
        shift += 7
    raise ValueError(f"damaged: no number at byte {at}")


def signed(value):
    """A varint of type int64, which is stored in two's complement."""
    return value - (1 << 64) if value >> 63 else value


def _run_end(data, at, end, tag, stride):
    """Where a run of fields of `stride` bytes ends, all with the same tag of one byte; `at`: behind the first."""
    count, tag = 16, bytes([tag])
    while True:
        count = min(2 * count, 1 << 20, (end - at) // stride)
        tags = data[at : at + count * stride : stride]
        same = count - len(tags.lstrip(tag))
        at += same * stride
        if same < count or not count:
            return at


def fields(data, span, runs=False):
    """(number, kind, a, b) of every field of a message: (a, b) is its span; of a varint, a is the value and b its end.

    runs: fields of 4 or 8 bytes with the same number that follow each other are given as one, from the first value to
    the last, with tags of one byte between.
    """
    at, end = span
    while at < end:
        tag = data[at]
        if tag < 0x80:
            at += 1
        else:
            tag, at = varint(data, at, end)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise ValueError(f"damaged: a field without a number before byte {at}")
        if kind == LENGTH:
            length = data[at] if at < end else 0x80
            if length < 0x80:
                at += 1
            else:
                length, at = varint(data, at, end)
            if length > end - at:
                raise ValueError(f"damaged or cut short: {length} bytes at byte {at}, where {end - at} are left")
            yield number, kind, at, at + length
            at += length
        elif kind == VARINT:
            value, at = varint(data, at, end)
            yield number, kind, value, at
        elif kind in _SIZES:
            if _SIZES[kind] > end - at:
                raise ValueError(f"damaged or cut short at byte {at}")
            last = at + _SIZES[kind]
            if runs and tag < 0x80:
                last = _run_end(data, last, end, tag, 1 + _SIZES[kind])
            yield number, kind, at, last
            at = last
        else:
            raise ValueError(f"damaged: a field of kind {kind} before byte {at}")


def message(data, span, kinds, limit=64):
    """Number -> list of values, of the fields in `kinds` (number -> kind); others are skipped. limit: of a list."""
    found = {number: [] for number in kinds}
    for number, kind, a, b in fields(data, span, runs=True):
        if number not in found:
            continue
        if kind in _SIZES and b - a > _SIZES[kind]:
            raise ValueError(f"damaged: field {number} more than once in the message at byte {span[0]}")
        if kind != kinds[number]:
            raise ValueError(f"damaged: field {number} is of kind {kind}, expected {kinds[number]}, at byte {span[0]}")
        if len(found[number]) == limit:
            raise ValueError(f"more than {limit} times field {number} in the message at byte {span[0]}")
        found[number].append(a if kind == VARINT else (a, b))
    return found


def one(values, default=None):
    """The only value of a field that may be there once."""
    if len(values) > 1:
        raise ValueError("damaged: a field is there twice that may be there once")
    return values[0] if values else default


def text(data, span):
    """A string; "" for None."""
    if span is None:
        return ""
    if span[1] - span[0] > MAX_NAME:
        raise ValueError(f"a name of {span[1] - span[0]} bytes, at most {MAX_NAME} are read")
    try:
        return bytes(data[span[0] : span[1]]).decode()
    except UnicodeDecodeError:
        raise ValueError(f"damaged: a name that is not UTF-8, at byte {span[0]}") from None


def numbers(data, span, number, kind, limit):
    """Values of a repeated field of varints (as int64) or float32, packed or not; `limit` of them at most."""
    found = []
    for field, how, a, b in fields(data, span):
        if field != number:
            continue
        if how not in (kind, LENGTH):
            raise ValueError(f"damaged: field {number} is of kind {how}, expected {kind}, at byte {span[0]}")
        if how == VARINT:
            found.append(signed(a))
        elif kind == VARINT:
            while a < b and len(found) <= limit:
                value, a = varint(data, a, b)
                found.append(signed(value))
        else:
            if (b - a) % 4:
                raise ValueError(f"damaged: {b - a} bytes of float32 at byte {a}")
            b = min(b, a + 4 * (limit + 1))
            found += struct.unpack(f"<{(b - a) // 4}f", data[a:b])
        if len(found) > limit:
            raise ValueError(f"more than {limit} numbers in the message at byte {span[0]}")
    return found


# ---- a model by its first fields --------------------------------------------------------------------------------

_OF_MODEL = {  # ModelProto: version of the format, producer, ..., graph, opsets, metadata, training, functions, devices
    1: VARINT, 2: LENGTH, 3: LENGTH, 4: LENGTH, 5: VARINT, 6: LENGTH, 7: LENGTH, 8: LENGTH, 14: LENGTH, 20: LENGTH,
    25: LENGTH, 26: LENGTH,
}
_LOOKED_AT = 1000  # fields


def is_model(file):
    """Whether an open file starts with fields of ONNX's ModelProto, among them its version and a graph."""
    at, seen = 0, set()
    for _ in range(_LOOKED_AT):
        file.seek(at)
        head = file.read(20)
        try:
            tag, place = varint(head, 0, len(head))
            value, place = varint(head, place, len(head))
        except ValueError:
            return False
        if _OF_MODEL.get(tag >> 3) != tag & 7 or value >= 1 << 40:
            return False
        seen.add(tag >> 3)
        if {1, 7} <= seen:
            return True
        at += place + (value if tag & 7 == LENGTH else 0)
    return False


# ---- attributes of a node ---------------------------------------------------------------------------------------

_LISTS = 4096  # the longest list in an attribute
_NAME, _F, _I, _S, _T, _G, _FLOATS, _INTS, _STRINGS, _TYPE, _REFERENCE = 1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 21
_KINDS = {
    _NAME: LENGTH, _F: FIXED32, _I: VARINT, _S: LENGTH, _T: LENGTH, _G: LENGTH, _STRINGS: LENGTH, _TYPE: VARINT,
    _REFERENCE: LENGTH,
}
_OF_TYPE = {1: _F, 2: _I, 3: _S, 4: _T, 5: _G, 6: _FLOATS, 7: _INTS, 8: _STRINGS}  # AttributeType -> its field


def _value(data, span, found, field):
    if field == _FLOATS:
        return numbers(data, span, _FLOATS, FIXED32, _LISTS)
    if field == _INTS:
        return numbers(data, span, _INTS, VARINT, _LISTS)
    if field == _STRINGS:
        return [text(data, one) for one in found[_STRINGS]]
    if field == _F:
        return struct.unpack("<f", data[slice(*one(found[_F]))])[0] if found[_F] else 0.0
    if field == _I:
        return signed(one(found[_I], 0))
    return text(data, one(found[_S])) if field == _S else one(found[field])


def attribute(data, span):
    """(name, value) of an AttributeProto: a float, int, str, a list of these, or the span of a tensor or graph.

    The type may be missing, as before IR version 2, if one field alone holds a value. Raises ValueError for other
    types, and where type and value differ.
    """
    found = message(data, span, _KINDS, _LISTS)
    name, kind = text(data, one(found[_NAME])), one(found[_TYPE], 0)
    if found[_REFERENCE]:
        raise ValueError(f"attribute {name[:100]!r} refers to one of a function")
    present = {number for number, *_ in fields(data, span, runs=True)} & set(_OF_TYPE.values())
    field = _OF_TYPE.get(kind) if kind else next(iter(present), None)
    if field is None or present - {field}:
        raise ValueError(f"attribute {name[:100]!r} has type {kind} and values in fields {sorted(present)}")
    return name, _value(data, span, found, field)
