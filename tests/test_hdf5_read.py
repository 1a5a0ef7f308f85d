"""The HDF5 reader against h5py: the same groups, attributes and numbers, or a refusal by name."""

import io
import struct
import tracemalloc

import numpy as np
import pytest

from fastlstm.convert.hdf5_read import MAX_NAME, MAX_TEXT, Hdf5
from fastlstm.convert.keras_files import _arrays

h5py = pytest.importorskip("h5py")


TEXT = h5py.string_dtype()


def opened(data, start=0):
    return Hdf5(io.BytesIO(bytes(start) + data), start, len(data))


def written(fill, **options):
    file = io.BytesIO()
    with h5py.File(file, "w", **options) as target:
        fill(target)
    return file.getvalue()


def compare(data, start=0):
    """Everything in a file, by both readers; the number of arrays."""
    ours, count = opened(data, start), 0

    def text(value):
        return value.decode() if isinstance(value, bytes) else value

    def walk(group, node):
        nonlocal count
        found = ours.attributes(node)
        assert set(found) == set(group.attrs)
        for name, value in group.attrs.items():
            words = [text(one) for one in value] if isinstance(value, np.ndarray) and value.ndim else text(value)
            is_text = isinstance(words, (str, list)) and all(isinstance(one, str) for one in words)
            assert found[name] == (words if is_text else None), name
        if isinstance(group, h5py.Dataset):
            assert ours.links(node) is None
            array = ours.array(node)
            assert array.shape == group.shape
            if array.dtype is not None:
                numbers = ours.numbers(array)
                assert numbers.dtype == group.dtype and numbers.tobytes() == group[()].tobytes()
                assert numbers.flags.writeable and numbers.flags.owndata
                count += 1
            return
        members = ours.links(node)
        assert list(members) == sorted(group)
        for name, child in members.items():
            walk(group[name], child)

    with h5py.File(io.BytesIO(data)) as file:
        walk(file, ours.root)
    return count


def random_tree(group, rng, depth=0):
    for n in range(rng.integers(1, 12)):
        name = "".join(rng.choice(list("abcd:_0 "), rng.integers(1, 20))).strip(" ") + str(n)
        kind = rng.integers(6)
        if kind == 0 and depth < 4:
            random_tree(group.create_group(name), rng, depth + 1)
        elif kind == 1:
            group.attrs[name + "é"] = "é" * int(rng.integers(200))
        elif kind == 2:
            group.attrs[name] = [b"x" * int(rng.integers(1, 40)) for _ in range(rng.integers(1, 20))]
        elif kind == 3:
            group.attrs[name] = ["y" * int(rng.integers(40)) for _ in range(rng.integers(1, 20))]
        elif kind == 4:
            group.attrs[name] = rng.normal(size=3)
        else:
            shape = tuple(rng.integers(1, 6, rng.integers(0, 4)))
            group[name] = rng.normal(size=shape).astype(rng.choice(["f2", "f4", "f8", "i4"]))


@pytest.mark.parametrize("seed", range(12))
def test_as_h5py_reads(seed):
    data = written(lambda file: random_tree(file, np.random.default_rng(seed)))
    compare(data)
    compare(data, start=1000 + seed)  # inside another file


def test_large_groups_and_headers():
    def fill(file):
        for n in range(2000):  # a B-tree of more than one level
            file[f"w/{n:x}"] = np.full(2, n, "f4")
        for n in range(40):  # an object header in several blocks
            file.attrs[f"text{n}"] = b"z" * 3000
        file.attrs["list"] = [f"name of a tensor {n:030d}".encode() for n in range(1000)]
        file.attrs["long"] = "é" * 200_000

    assert compare(written(fill)) == 2000


def test_names_that_are_not_ascii():
    def fill(file):
        for n in range(7):
            file[f"größe{n}/层"] = np.full(n, n, "f8")
        file.create_group("leer")

    assert compare(written(fill)) == 7


def test_empty():
    def fill(file):
        file.create_group("a")
        file["none"] = np.zeros((0, 3), "f4")
        file["empty"] = h5py.Empty("f4")
        file.attrs["empty"] = h5py.Empty("f4")
        file.attrs["no text"] = ""
        file.attrs["no texts"] = np.array([], "S3")

    found = opened(written(fill))
    assert found.links(found.links(found.root)["a"]) == {}
    assert found.numbers(found.array(found.links(found.root)["none"])).shape == (0, 3)
    assert found.attributes(found.root) == {"empty": None, "no text": "", "no texts": []}
    with pytest.raises(ValueError, match="no shape"):
        found.array(found.links(found.root)["empty"])


def dataset(**options):
    return lambda file: file.create_dataset("a", (4,), **{"dtype": "f4", "data": np.ones(4, "f4")} | options)


def linked(link):
    return lambda file: file.__setitem__("a", link)


def first(data):
    """The dataset "a" of a file; refused wherever it is."""
    found = opened(data)
    return found.array(found.links(found.root)["a"])


def many(file):
    for n in range(20):
        file[f"é{n}"] = 1.0


REFUSED = [
    (dataset(chunks=(2,)), {}, "in chunks"), (dataset(compression="gzip"), {}, "compressed or filtered"),
    (dataset(data=None, external=[("other.bin", 0, 16)]), {}, "stored in another file"),
    (dataset(data=None), {}, "was never written"), (dataset(), dict(libver="latest"), "later layout"),
    (many, {}, "later layout of HDF5 .a group of many links"), (many, dict(track_order=True), "later layout"),
    (linked(h5py.SoftLink("/b")), {}, "'a' is a symbolic link"),
    (linked(h5py.ExternalLink("other.h5", "/b")), {}, "'a' is a symbolic link"),
]


@pytest.mark.parametrize("fill, options, words", REFUSED, ids=range(len(REFUSED)))
def test_what_is_not_read(fill, options, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = written(fill, **options)
    with pytest.raises(ValueError, match=words):
        first(data)


@pytest.mark.parametrize("kind, words", [
    (">f4", "floats of another kind"), ("i8", "integers"), ("?", "enumerations"), ("c8", "compounds"), ("S3", "text"),
    (TEXT, "variable lengths"), ("g", "floats of another kind"),
])
def test_kinds_of_numbers(kind, words):
    numbers = np.array(["a", "b"], object) if kind is TEXT else np.ones(2).astype(kind)
    array = first(written(lambda file: file.create_dataset("a", (2,), kind, numbers)))
    assert array.dtype is None and array.kind == words


def patched(data, before, after):
    assert data.count(before) == 1
    return data.replace(before, after)


def test_lies():
    plain = written(lambda file: file.create_dataset("a", data=np.arange(6, dtype="f4")))
    node = opened(plain).links(opened(plain).root)["a"]
    shape = struct.pack("<QQ", 6, 6)
    with pytest.raises(ValueError, match=r"shape \(7,\) of float32 needs 28 bytes, 24 are stored"):
        opened(patched(plain, shape, struct.pack("<QQ", 7, 6))).array(node)
    at = opened(plain).array(node).at
    place = struct.pack("<QQ", at, 24)
    for offset, size in ((at, 1 << 40), (1 << 60, 24), (len(plain) - 23, 24)):
        with pytest.raises(ValueError, match="outside the file"):
            opened(patched(plain, place, struct.pack("<QQ", offset, size))).array(node)
    end = struct.pack("<Q", len(plain))
    with pytest.raises(ValueError, match="cut short"):
        opened(patched(plain, end, struct.pack("<Q", len(plain) + 1)))
    for offsets in (b"\x04\x08", b"\x08\x04"):
        with pytest.raises(ValueError, match="offsets and lengths"):
            opened(plain[:13] + offsets + plain[15:])
    with pytest.raises(ValueError, match="not an HDF5 file"):
        opened(b"\x89HDD" + plain[4:])


def test_circles():
    """A B-tree, an object header and a heap that lead back to themselves end."""
    plain = written(lambda file: file.create_dataset("a", data=np.arange(6, dtype="f4")))
    tree, leaf = plain.index(b"TREE"), plain.index(b"SNOD")
    circle = bytearray(plain)
    circle[tree + 5] = 3  # a level above the leaves, whose only child is itself
    circle[tree + 32 : tree + 40] = struct.pack("<Q", tree)
    with pytest.raises(ValueError, match="another kind"):
        first(bytes(circle))
    double = bytearray(plain)
    double[tree + 6] = 2  # the same leaf twice
    double[tree + 48 : tree + 56] = struct.pack("<Q", leaf)
    with pytest.raises(ValueError, match="out of order"):
        first(bytes(double))

    found = opened(plain)
    with pytest.raises(ValueError, match="run in circles"):
        [found.links(found.root) for _ in range(10_000)]


def test_long_texts_are_refused():
    def fill(file):
        file.attrs["long"] = "x" * (MAX_TEXT + 1)

    found = opened(written(fill))
    with pytest.raises(ValueError, match=f"more than {MAX_TEXT} bytes of text"):
        found.attributes(found.root)


def test_many_members_are_refused():
    """Groups that are one in the file count as often as they are there; a large file may have many."""
    def fill(file, count=120):
        inner = file.create_group("inner")
        for n in range(count):
            inner[f"g{n}"] = file["inner"] if n else inner.create_group("one")
            file[f"g{n}"] = inner

    found = opened(written(fill))
    nodes = found.links(found.root).values()
    with pytest.raises(ValueError, match="more than 10000 groups and arrays"):
        list(map(found.links, nodes))
    many = opened(written(lambda file: [file.create_group(f"g{n}") for n in range(10_001)]))
    assert len(many.links(many.root)) == 10_001


def test_a_long_list_of_texts():
    """Its texts are found in time that grows with their number."""
    names = [f"dense_{n}" for n in range(4000)]
    found = opened(written(lambda file: file.attrs.__setitem__("names", names)))
    assert found.attributes(found.root) == {"names": names}


def test_arrays_together():
    """No more bytes than the file has, whatever they share."""
    plain = written(lambda file: file.create_dataset("a", data=np.arange(600, dtype="f4")))
    found = opened(plain)
    array = found.array(found.links(found.root)["a"])
    with pytest.raises(ValueError, match=rf"arrays of \d+ bytes in a file of {len(plain)}"):
        [found.numbers(array) for _ in range(10)]


def overlapping(size, count):
    """A file whose root has `count` members, each the name before without its first letter: all lie in one heap."""
    root, heap = 96, 96 + 40
    tree = heap + 32 + size
    leaf = tree + 48
    header = struct.pack("<BxHII4xHHB3xQQ", 1, 1, 1, 24, 17, 16, 0, tree, heap)
    names = b"HEAP" + struct.pack("<4xQQQ", size, 2**64 - 1, heap + 32) + b"a" * (size - 2) + b"b\0"
    nodes = b"TREE" + struct.pack("<BBHQQQQQ", 0, 0, 1, 2**64 - 1, 2**64 - 1, 0, leaf, 0)
    nodes += b"SNOD" + struct.pack("<BxH", 1, count)
    nodes += b"".join(struct.pack("<QQ24x", n + 1, root) for n in range(count))
    head = b"\x89HDF\r\n\x1a\n" + struct.pack("<5xBBxHHI", 8, 8, 4, 16, 0)
    head += struct.pack("<6Q", 0, 2**64 - 1, leaf + 8 + 40 * count, 2**64 - 1, 0, root)
    return head.ljust(root, b"\0") + header + names + nodes


def test_names_that_lie_over_each_other():
    """They take no more memory than the file warrants; nor do those that are very long."""
    plain = opened(overlapping(900, 800))
    assert len(plain.links(plain.root)) == 800
    with pytest.raises(ValueError, match="names and texts need more than twice the file's size"):
        [plain.links(plain.root) for _ in range(9)]
    assert len(next(iter(opened(overlapping(MAX_NAME + 2, 9)).links(96)))) == MAX_NAME
    for size, count in ((MAX_NAME + 3, 1), (200_000, 4000)):
        data = overlapping(size, count)
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=f"a name is longer than {MAX_NAME} bytes"):
                opened(data).links(96)
            assert tracemalloc.get_traced_memory()[1] < 2 * len(data) + (1 << 20)
        finally:
            tracemalloc.stop()


def test_paths_together():
    """Groups inside groups, all with long names: their paths are counted, too."""
    def fill(file):
        group = file
        for _ in range(20):
            group = group.create_group("g" * 1000)
        for n in range(300):
            group[f"a{n}"] = np.ones(1, "f4")

    found = opened(written(fill))
    with pytest.raises(ValueError, match="names and texts need more than twice the file's size"):
        _arrays(found, found.root, "", {})


def test_texts_together():
    """Attributes whose text is the same bytes of a heap."""
    def fill(file):
        file.attrs["a"] = "x" * 60_000
        for n in range(90):
            file.attrs[f"b{n}"] = "y" * 77

    data = bytearray(written(fill))
    long = bytes(data).index(struct.pack("<I", 60_000), bytes(data).index(b"a\0"))
    for n in range(90):
        at = bytes(data).index(struct.pack("<I", 77), bytes(data).index(b"b%d\0" % n))
        data[at : at + 16] = data[long : long + 16]
    with pytest.raises(ValueError, match="names and texts need more than twice the file's size"):
        opened(bytes(data)).attributes(opened(bytes(data)).root)


def test_parts_of_a_header_that_lie_over_each_other():
    data = written(lambda file: file.create_dataset("a", data=np.ones(20_000, "f4")))
    at = len(data)
    again = struct.pack("<HHB3xQQ", 16, 16, 0, at + 16, 24 * 100)  # all of it once more
    data += struct.pack("<BxHII4x", 1, 1000, 1, 24 * 100) + again * 100
    with pytest.raises(ValueError, match="the parts of an object header lie over each other"):
        opened(data)._messages(at)
