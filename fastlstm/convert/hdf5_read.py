"""HDF5 files, as far as Keras uses them, read in plain Python: groups, attributes that are text, arrays of floats.

libhdf5 reads everything, but a damaged file makes it crash, hang or take memory without bound. What h5py writes by
default is small, so here it is read directly, every offset and size checked before it is used:

==============  ==========================================================================
superblock      version 0 or 1, 8-byte offsets and lengths
object header   version 1, with continuations
group           a symbol table: B-tree of version 1, symbol nodes, local heap; or a few link messages
attribute       text: fixed or of variable length (global heap), one or a list
dataset         in one piece, no filters, little-endian IEEE floats
==============  ==========================================================================

All else is refused by its name. Source: HDF5 File Format Specification, version 3.0.
"""

import math
import struct
import sys
from array import array
from typing import NamedTuple

import numpy as np

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_TEXT = 1 << 24  # bytes of all text of an attribute, and of a description
MAX_NAME = 1024  # bytes of the name of a group or an array; those of Keras have tens
_MAX_LINKS, _LINK = 10_000, 40  # in a file, or one for as many bytes of it as a link takes there
_MAX_MESSAGES = 1000  # in an object header
_UNDEFINED = 2**64 - 1
_LATER = "written in a later layout of HDF5 ({}), of h5py's libver or track_order, or for many names beyond ASCII"

# What a float's description holds beyond its version: byte order and sign, size, places of exponent and mantissa.
_FLOATS = {
    struct.pack("<BBBIHHBBBBI", 0x20, 8 * size - 1, 0, size, 0, 8 * size, mantissa, 8 * size - 1 - mantissa, 0,
                mantissa, bias): np.dtype(f"<f{size}")
    for size, mantissa, bias in ((2, 10, 15), (4, 23, 127), (8, 52, 1023))
}
_CLASSES = (
    "integers", "floats of another kind", "times", "text", "bit fields", "opaque bytes", "compounds", "references",
    "enumerations", "variable lengths", "arrays",
)


class Damaged(ValueError):
    """A structure that cannot be what it must be."""


class Array(NamedTuple):
    """A dataset: where its numbers are, what they are."""

    shape: tuple[int, ...]
    dtype: np.dtype | None
    at: int
    kind: str  # in words

    @property
    def nbytes(self):
        return math.prod(self.shape) * self.dtype.itemsize


def _unpack(form, data, at=0):
    try:
        return struct.unpack_from(form, data, at)
    except struct.error:
        raise Damaged("a structure is cut short") from None


def _padded(n):
    return -(-n // 8) * 8


class Hdf5:
    """The bytes `start` ... `start` + `size` of an open file as an HDF5 file.

    A node is the address of an object header. Raises ValueError for what is damaged or not known.
    """

    def __init__(self, file, start, size):
        self._file, self._start, self.size = file, start, size
        self._left = 16 * size + (1 << 20)  # bytes of structures that may still be read: nothing goes round in circles
        self._text_left = 2 * size + (1 << 20)  # bytes of memory for names, paths and texts: each is in a file once
        self._links, self._numbers = 0, 0
        self._collection, self._objects = None, None  # the part of the heap that was looked into last
        head = self._read(0, 16)
        if head[:8] != SIGNATURE:
            raise ValueError("not an HDF5 file")
        if head[8] > 1:
            raise ValueError(_LATER.format(f"superblock {head[8]}"))
        if head[13:15] != b"\x08\x08":
            raise ValueError(f"offsets and lengths of {head[13]} and {head[14]} bytes, expected 8")
        at = 24 + 4 * head[8]
        base, _, end, _, _, self.root = _unpack("<6Q", self._read(at, 48))
        if base != 0 or end > size:
            raise Damaged(f"cut short: {end} bytes announced, {size} are there")

    # ---- bytes ---------------------------------------------------------------------------

    def _read(self, at, n):
        """Bytes of a structure."""
        if at < 0 or n < 0 or at + n > self.size:
            raise Damaged("a structure lies outside the file")
        self._left -= max(n, 64)
        if self._left < 0:
            raise Damaged("its structures run in circles")
        self._file.seek(self._start + at)
        data = self._file.read(n)
        if len(data) != n:
            raise Damaged("cut short")
        return data

    def _signed(self, at, n, signature):
        data = self._read(at, n)
        if data[:4] != signature:
            raise Damaged(f"no {signature.decode()} where there must be one")
        return data

    def charge_text(self, nbytes):
        """Count memory for text. ValueError where names or texts that lie over each other need more than they may."""
        self._text_left -= nbytes
        if self._text_left < 0:
            raise Damaged("its names and texts need more than twice the file's size")

    # ---- object headers ------------------------------------------------------------------

    def _messages(self, node):
        """(kind, body) of every message of an object header."""
        head = self._read(node, 16)
        if head[:4] == b"OHDR":
            raise ValueError(_LATER.format("object header 2"))
        version, count, size = _unpack("<BxH4xI", head)
        if version != 1 or count > _MAX_MESSAGES:
            raise Damaged("no object header where there must be one")
        blocks, found, total = [(node + 16, size)], [], 0
        for at, size in blocks:
            total += size
            if total > self.size:
                raise Damaged("the parts of an object header lie over each other")
            data, place = self._read(at, size), 0
            while place + 8 <= size and len(found) < count:
                kind, length, flags = _unpack("<HHB", data, place)
                body = data[place + 8 : place + 8 + length]
                if len(body) != length:
                    raise Damaged("a message of an object header is cut short")
                if flags & 2 and kind in (1, 3, 8, 12):
                    raise ValueError("shared messages, which h5py does not write")
                if kind == 16:
                    blocks.append(_unpack("<QQ", body))
                found.append((kind, body))
                place += 8 + length
        if len(found) != count:
            raise Damaged(f"an object header of {len(found)} messages, {count} announced")
        return found

    @staticmethod
    def _only(messages, kind, what):
        found = [body for one, body in messages if one == kind]
        if len(found) != 1:
            raise Damaged(f"{len(found)} messages tell a {what}, expected 1")
        return found[0]

    # ---- groups --------------------------------------------------------------------------

    def links(self, node):
        """Name -> node of the members of a group, in order; None of what is no group."""
        messages = self._messages(node)
        kinds, found, last = {kind for kind, _ in messages}, {}, b""
        if 17 in kinds:
            members = self._symbols(*_unpack("<QQ", self._only(messages, 17, "group")))
        elif 2 in kinds:
            members = sorted(self._link(body) for kind, body in messages if kind == 6)
            self._check_compact(self._only(messages, 2, "group"))
        else:
            return None
        for name, child in members:
            if len(name) > MAX_NAME:
                raise ValueError(f"a name is longer than {MAX_NAME} bytes")
            if name <= last:
                raise Damaged("the members of a group are out of order")
            words, last = _text(name), name
            self.charge_text(sys.getsizeof(words))
            found[words] = child
            self._links += 1
            if self._links > max(_MAX_LINKS, self.size // _LINK):
                raise ValueError(f"more than {max(_MAX_LINKS, self.size // _LINK)} groups and arrays")
        return found

    def _symbols(self, tree, heap):
        """(name, node) of the members of a symbol table."""
        size, _, at = _unpack("<QQQ", self._signed(heap, 32, b"HEAP"), 8)
        names = self._read(at, size)
        for symbols in self._leaves(tree, None):
            count = _unpack("<H", self._signed(symbols, 8, b"SNOD"), 6)[0]
            data = self._read(symbols + 8, 40 * count)
            for place in range(0, 40 * count, 40):
                offset, child, cached = _unpack("<QQI", data, place)
                name = _name(names, offset)
                if cached > 1:
                    raise ValueError(f"{_text(name)[:100]!r} is a symbolic link, expected a group or an array")
                yield name, child

    @staticmethod
    def _link(body):
        """(name, node) of a link message: what a group has once a name in it is not ASCII."""
        version, flags = _unpack("<BB", body)
        if version != 1:
            raise Damaged("a link is of no known version")
        place, kind = 2, 0
        if flags & 8:
            place, kind = 3, _unpack("<B", body, 2)[0]
        place += (8 if flags & 4 else 0) + (1 if flags & 16 else 0)  # order of creation, character set
        length = _unpack("<" + "BHIQ"[flags & 3], body, place)[0]
        place += 1 << (flags & 3)
        name = body[place : place + length]
        if kind != 0:
            raise ValueError(f"{_text(name)[:100]!r} is a symbolic link, expected a group or an array")
        return name, _unpack("<Q", body, place + length)[0]

    @staticmethod
    def _check_compact(body):
        """Refuse a group whose links lie outside its header."""
        flags = _unpack("<BB", body)[1]
        if _unpack("<Q", body, 10 if flags & 1 else 2)[0] != _UNDEFINED:
            raise ValueError(_LATER.format("a group of many links"))

    def _leaves(self, node, level):
        """Addresses of the symbol nodes under a B-tree's node, in order."""
        kind, own, count = _unpack("<BBH", self._signed(node, 24, b"TREE"), 4)
        if kind != 0 or level not in (None, own):
            raise Damaged("a B-tree's node is of another kind")
        data = self._read(node + 24, 16 * count + 8)
        for n in range(count):
            child = _unpack("<Q", data, 16 * n + 8)[0]
            if own:
                yield from self._leaves(child, own - 1)
            else:
                yield child

    # ---- attributes ----------------------------------------------------------------------

    def attributes(self, node):
        """Name -> text, a list of texts, or None where an attribute is neither."""
        found = {}
        for kind, body in self._messages(node):
            if kind == 21:
                raise ValueError(_LATER.format("attributes outside their header"))
            if kind == 12:
                name, value = self._attribute(body)
                if name in found:
                    raise Damaged(f"two attributes are named {name[:60]!r}")
                found[name] = value
        return found

    def _attribute(self, body):
        version, flags, *sizes = _unpack("<BBHHH", body)
        if version not in (1, 2, 3) or (version > 1 and flags):
            raise ValueError(_LATER.format(f"attribute {version}, flags {flags}"))
        place, parts = {1: 8, 2: 8, 3: 9}[version], []
        for size in sizes:
            parts.append(body[place : place + size])
            place += _padded(size) if version == 1 else size
        if place > len(body):
            raise Damaged("an attribute is cut short")
        name, kind, space = parts
        shape, kind_class = _shape(space), kind[:1] and kind[0] & 15
        name = _text(name.split(b"\0")[0])
        if shape is None or len(shape) > 1 or kind_class not in (3, 9) or (kind_class == 9 and kind[1] & 15 != 1):
            return name, None
        count, width = math.prod(shape), _unpack("<I", kind, 4)[0]
        if count * width > len(body) - place or (kind_class == 9 and width != 16):
            raise Damaged(f"attribute {name[:60]!r} is cut short")
        pieces = [body[place + n * width : place + (n + 1) * width] for n in range(count if width else 0)]
        if kind_class == 9:
            pieces = self._from_heap(pieces)
        self.charge_text(sum(map(len, pieces)) + 64 * len(pieces))
        texts = [_text(piece.split(b"\0", 1)[0]) for piece in pieces]
        return name, texts if shape else "".join(texts)

    def _from_heap(self, pieces):
        """Texts of variable length: (length, address of a collection, number of an object) of each -> bytes."""
        found, total = [], 0
        for piece in pieces:
            length, at, number = _unpack("<IQI", piece)
            total += length
            if total > MAX_TEXT:
                raise ValueError(f"an attribute has more than {MAX_TEXT} bytes of text")
            found.append(self._object(at, number, length) if length else b"")
        return found

    def _object(self, at, number, length):
        """Bytes of an object of a collection. Texts of one list are in few collections, most of them in one."""
        if at != self._collection:
            self._objects, self._collection = self._index(at), at
        numbers, places = self._objects
        try:
            place = places[numbers.index(number)]
        except ValueError:
            raise Damaged("a text is missing in its heap") from None
        if length > _unpack("<8xQ", self._read(place, 16))[0]:
            raise Damaged("a text is longer than its object")
        return self._read(place + 16, length)

    def _index(self, at):
        """(numbers, places) of the objects of a collection."""
        size = _unpack("<Q", self._signed(at, 16, b"GCOL"), 8)[0]
        place, end, numbers, places = at + 16, at + size, array("H"), array("Q")
        while place + 16 <= end:
            index, own = _unpack("<H6xQ", self._read(place, 16))
            if index == 0 or len(numbers) == 1 << 16:
                break
            numbers.append(index)
            places.append(place)
            place += 16 + _padded(own)
        return numbers, places

    # ---- arrays --------------------------------------------------------------------------

    def array(self, node):
        """What a dataset holds, its place and size checked; nothing of it is read yet."""
        messages = self._messages(node)
        for kind, what in ((11, "compressed or filtered"), (7, "stored in another file")):
            if any(one == kind for one, _ in messages):
                raise ValueError(f"is {what}")
        shape = _shape(self._only(messages, 1, "shape"))
        if shape is None or len(shape) > 8:
            raise ValueError("has no shape that an array can have")
        kind = self._only(messages, 3, "type")
        dtype = _FLOATS.get(kind[1:20]) if kind[:1] and kind[0] in (0x11, 0x31) else None
        number = kind[0] & 15 if kind else 99
        words = dtype.name if dtype else _CLASSES[number] if number < len(_CLASSES) else "nothing known"
        at, nbytes = self._place(self._only(messages, 8, "place"))
        found = Array(shape, dtype, at, words)
        if dtype is not None and found.nbytes != nbytes:
            raise Damaged(f"shape {shape} of {words} needs {found.nbytes} bytes, {nbytes} are stored")
        return found

    def _place(self, body):
        """(offset in the file, bytes) of a dataset's numbers."""
        version, kind = _unpack("<BB", body)
        if version not in (3, 4) or kind != 1:
            words = {0: "in its header", 2: "in chunks"}.get(kind, f"with layout {version}.{kind}")
            raise ValueError(f"is stored {words}, expected in one piece")
        at, nbytes = _unpack("<QQ", body, 2)
        if at == _UNDEFINED:
            if nbytes:
                raise ValueError("was never written")
            at = 0
        if at + nbytes > self.size:
            raise Damaged("its numbers lie outside the file")
        return at, nbytes

    def numbers(self, array):
        """A new array of what a dataset of floats holds. All arrays together may have no more bytes than the file."""
        self._numbers += array.nbytes
        if self._numbers > self.size:
            raise Damaged(f"arrays of {self._numbers} bytes in a file of {self.size}")
        found = np.empty(array.shape, array.dtype)
        self._file.seek(self._start + array.at)
        if found.size and self._file.readinto(memoryview(found).cast("B")) != found.nbytes:
            raise Damaged("cut short")
        return found.astype(array.dtype.newbyteorder("="), copy=False)


def _name(names, offset):
    """The bytes of a name in a heap, MAX_NAME + 1 of them at most."""
    if offset >= len(names):
        return b""
    return names[offset : offset + MAX_NAME + 1].split(b"\0", 1)[0]


def _text(data):
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Damaged("a text is not UTF-8") from None


def _shape(space):
    """The shape that a dataspace tells, () for a single value; None for none at all."""
    version, rank, _ = _unpack("<BBB", space)
    if version == 1:
        return _unpack(f"<{rank}Q", space, 8)
    if version != 2:
        raise Damaged("a shape is of no known version")
    kind = _unpack("<B", space, 3)[0]
    return None if kind == 2 else _unpack(f"<{rank}Q", space, 4)
