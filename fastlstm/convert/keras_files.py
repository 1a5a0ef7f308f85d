"""Files of Keras: the description of a model and where its tensors are; nothing is executed, h5py is not needed.

==============================  ==================================================================================
.keras (Keras 3, 2.12 to 2.15)  a zip archive, nothing compressed: metadata.json (version), config.json (description),
                                model.weights.h5 with layers/<class_n>/[cell/]vars/<n>
.h5 (all versions)              HDF5: attributes keras_version and model_config; model_weights/<layer>/<weight's name>
==============================  ==================================================================================

hdf5_read.py reads the HDF5 part; sizes are checked against the file before memory is taken.
Source: keras/src/saving/saving_lib.py, keras/src/legacy/saving/legacy_h5_format.py.
"""

import json
import re
import sys
import zlib

from ..read_files import size_of
from .hdf5_read import MAX_TEXT, SIGNATURE, Hdf5

_MEMBERS = ("metadata.json", "config.json", "model.weights.h5")
_ROOTS = ("layers", "_layer_checkpoint_dependencies")  # the second: Keras 2.13, which counts every layer twice
_TRAINING = "seed_generator"  # random numbers of dropout
_DEPTH = 50  # of groups


def _parsed(text, what):
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{what} is damaged") from None
    if not isinstance(found, dict):
        raise ValueError(f"{what} holds a {type(found).__name__}, expected a dict")
    return found


def _major(version):
    """2 or 3, of a version's text."""
    match = re.match(r"(\d+)\.\d+", version) if isinstance(version, str) and len(version) < 60 else None
    if not match:
        raise ValueError(f"unreadable Keras version {str(version)[:60]!r}")
    if match[1] not in ("2", "3"):
        raise ValueError(f"written by Keras {version}; versions 2 and 3 are known")
    return int(match[1])


def _arrays(h5, node, path, found, skip=()):
    """Adds path -> node of every array under a group."""
    if path.count("/") > _DEPTH:
        raise ValueError("its groups are nested too deeply")
    links = h5.links(node)
    if links is None:
        found[path] = node
        return
    for name, child in links.items():
        if name not in skip:
            inner = f"{path}/{name}" if path else name
            h5.charge_text(sys.getsizeof(inner))
            _arrays(h5, child, inner, found, skip)


class File:
    """What a file holds. version: text, major: 2 or 3, model: the description, scope: its tensors."""

    def __init__(self, version, model, h5, scope):
        self.version, self.major, self.model, self.scope = version, _major(version), model, scope
        self._h5 = h5

    def array(self, node):
        """Shape, dtype and size of a tensor; not its numbers."""
        return self._h5.array(node)

    def numbers(self, array):
        """The numbers, a new array."""
        return self._h5.numbers(array)

    def check_all_used(self):
        """ValueError that names the tensors nobody asked for."""
        left = [path for path in self.scope.arrays if path not in self.scope.used]
        if left:
            words = ", ".join(path[:100] for path in left[:20]) + (", ..." if len(left) > 20 else "")
            raise ValueError(f"tensors that no layer has: {words}")


class _Scope:
    """Tensors below a place in the file. arrays: path -> node, used: paths asked for; both of the whole file.

    layer(name, key, model): those of a member of a model, by its name and by its class and number there,
    and whether it is a model itself; part(role, name): those of a layer inside a layer, where role is its attribute
    there; tensors(names, cell): name -> (path, node) of a layer's own.
    """

    def __init__(self, arrays, used=None):
        self.arrays, self.used = arrays, set() if used is None else used

    def _take(self, paths, names):
        """paths: name -> path, of all there are."""
        missing = [name for name in names if name not in paths]
        if missing:
            raise ValueError(f"missing {', '.join(missing)} ({self.words()})")
        self.used.update(paths[name] for name in names)
        return {name: (paths[name], self.arrays[paths[name]]) for name in names}


class _Numbered(_Scope):
    """Of a .keras file: a tree of classes, whose tensors have numbers."""

    def __init__(self, arrays, path="", used=None, root="layers"):
        super().__init__(arrays, used)
        self._path, self._root = path, root

    def words(self):
        return f"below {self._path}"

    def _below(self, *parts):
        return _Numbered(self.arrays, "/".join(filter(None, (self._path, *parts))), self.used, self._root)

    def layer(self, name, key, model=False):
        number = key[1] * (1 + _ROOTS.index(self._root))
        return self._below(self._root, f"{key[0]}_{number}" if number else key[0])

    def part(self, role, name):
        return self._below(role)

    def tensors(self, names, cell):
        head = f"{self._path}/cell/vars/" if cell else f"{self._path}/vars/"
        paths = {name: f"{head}{n}" for n, name in enumerate(names) if f"{head}{n}" in self.arrays}
        return self._take(paths, names)


class _Named(_Scope):
    """Of a .h5 file: a group for each layer, whose tensors have paths of names."""

    def __init__(self, arrays, group="", paths=None, used=None):
        super().__init__(arrays, used)
        self._group, self._paths = group, list(arrays) if paths is None else paths
        self._below = None  # name of a group -> the paths that lead through it, made when first asked for

    def words(self):
        return f"below model_weights/{self._group}"

    def layer(self, name, key, model=False):
        if not self._group:
            return _Named(self.arrays, name, self._through(name), self.used)
        found = self._inside(name)
        return found if found._paths or not model else self  # Keras 2 leaves the names of nested models out

    def part(self, role, name):
        if role == "layer":  # its name is left out by some versions; there is no other beside it
            return self
        head = role.removesuffix("layer")  # forward_, backward_: which Keras 2 puts before every name, 3 before its own
        found = self._inside(f"{head}{name.removeprefix(head)}")
        return found if found._paths else self._inside(name)

    def _inside(self, name):
        return _Named(self.arrays, self._group, self._through(name), self.used)

    def _through(self, name):
        """The paths that lead through a group of that name: of the whole file, through one at the top."""
        if self._below is None:
            self._below = {}
            for path in self._paths:
                groups = path.split("/")[:1] if not self._group else path[len(self._group) + 1 :].split("/")[:-1]
                for group in dict.fromkeys(groups):
                    self._below.setdefault(group, []).append(path)
        return self._below.get(name, [])

    def tensors(self, names, cell):
        paths = {}
        for path in self._paths:
            name = path.rpartition("/")[2].partition(":")[0]
            if name in paths:
                raise ValueError(f"two tensors are named {name}: {paths[name]}, {path}")
            paths[name] = path
        return self._take(paths, names)


# ---- .keras -----------------------------------------------------------------------------------------------------


def _members(file, size):
    """Name -> (offset, bytes) of the members of a zip archive; checksums compared."""
    import zipfile  # here: importing the package stays quick

    found = {}
    for info in zipfile.ZipFile(file).infolist():
        name = info.filename[:100]
        if name not in _MEMBERS:
            raise ValueError(f"{name!r} in the archive, expected {', '.join(_MEMBERS)} alone")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
            raise ValueError(f"{name!r} is compressed or encrypted, which Keras never does")
        if name in found:
            raise ValueError(f"there is more than one {name!r}")
        found[name] = _member(file, size, info)
    for name in _MEMBERS:
        if name not in found:
            raise ValueError(f"a zip archive without {name}, not a model of Keras")
    return found


def _member(file, size, info):
    """(offset, bytes) of a stored member."""
    file.seek(info.header_offset)
    head = file.read(30)
    if len(head) != 30 or head[:4] != b"PK\x03\x04":
        raise ValueError(f"{info.filename!r} is not where the archive says")
    start = info.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    if start + info.file_size > size:
        raise ValueError(f"{info.filename!r} claims {info.file_size} bytes, the file has {size}")
    file.seek(start)
    left, crc = info.file_size, 0
    while left:
        piece = file.read(min(left, 1 << 16))
        if not piece:
            raise ValueError(f"{info.filename!r} is cut short")
        crc, left = zlib.crc32(piece, crc), left - len(piece)
    if crc != info.CRC:
        raise ValueError(f"{info.filename!r} is damaged: its checksum is wrong")
    return start, info.file_size


def _text(file, name, start, size):
    if size > MAX_TEXT:
        raise ValueError(f"{name} has {size} bytes, at most {MAX_TEXT} are read")
    file.seek(start)
    return _parsed(file.read(size), name)


def _keras_file(file, size):
    members = _members(file, size)
    version = _text(file, "metadata.json", *members["metadata.json"]).get("keras_version")
    _major(version)
    model = _text(file, "config.json", *members["config.json"])
    h5 = Hdf5(file, *members["model.weights.h5"])
    links, arrays = h5.links(h5.root) or {}, {}
    roots = [name for name in _ROOTS if name in links]
    for name in (*roots, "vars"):  # the rest belongs to training: optimizer, loss, metrics
        if name in links:
            _arrays(h5, links[name], name, arrays, (_TRAINING,))
    return File(version, model, h5, _Numbered(arrays, root=roots[0] if roots else "layers"))


# ---- .h5 --------------------------------------------------------------------------------------------------------


def _names(attributes, name):
    """A list of texts, which Keras cuts into numbered parts where it is long."""
    if name in attributes:
        return attributes[name] or []
    found, part = [], 0
    while f"{name}{part}" in attributes:
        found += attributes[f"{name}{part}"] or []
        part += 1
    return found


def _h5_file(file, size):
    h5 = Hdf5(file, 0, size)
    attributes, links = h5.attributes(h5.root), h5.links(h5.root) or {}
    if "model_config" not in attributes:
        if "layer_names" in attributes or any(name in links for name in _ROOTS):
            raise ValueError("holds weights alone: model.save(path) writes the description that is needed, too")
        raise ValueError("an HDF5 file without the attribute model_config, not a model of Keras")
    version = attributes.get("keras_version") or "1"
    _major(version)
    model = _parsed(attributes["model_config"] or "", "model_config")
    group = links.get("model_weights")
    members = h5.links(group) if group is not None else None
    if members is None:
        raise ValueError("the group model_weights is missing")
    _check_names(members, _names(h5.attributes(group), "layer_names"), "layer_names", "model_weights")
    arrays = {}
    for name, node in members.items():
        inside = {}
        _arrays(h5, node, "", inside, (_TRAINING,))
        given = [path for path in _names(h5.attributes(node), "weight_names") if _TRAINING not in path.split("/")]
        _check_names(inside, given, "weight_names", f"model_weights/{name}")
        arrays |= {f"{name}/{path}": child for path, child in inside.items()}
    return File(version, model, h5, _Named(arrays))


def _check_names(found, given, attribute, where):
    """The members of a group and the list of them must say the same."""
    known = {*given, "top_level_model_weights"}
    odd = [name for name in found if name not in known] + [name for name in given if name not in found]
    if odd:
        raise ValueError(f"{where} and its {attribute} differ: {', '.join(map(repr, odd[:9]))}")


def read_file(file):
    """A `File` of an open file. Raises ValueError, zipfile's exceptions, OSError."""
    size = size_of(file)
    head = file.read(8)
    if head == SIGNATURE:
        return _h5_file(file, size)
    if head[:4] == b"PK\x03\x04":
        return _keras_file(file, size)
    raise ValueError("neither a .keras archive nor an HDF5 file")
