"""Recurrent nodes in an ONNX file, and what gives their inputs: the file is walked, not parsed.

What is not asked for (other nodes, their weights) is stepped over. A node may be in the main graph or in one inside it
(a branch of If, the body of Loop or Scan). A value is looked for in its graph, then in those around it.
Numbers of fields: onnx.proto.
"""

import itertools
import re
from array import array
from typing import NamedTuple

import numpy as np

from .onnx_wire import LENGTH, MAX_NAME, attribute, fields, message, one, text

OPERATORS = ("LSTM", "GRU", "RNN")
STANDARD = ("", "ai.onnx")  # two names of the domain of ONNX's own operators
MAX_NODES, MAX_DEPTH = 1024, 16  # recurrent nodes; graphs in a node, and in each other
MAX_STEPS = 20_000  # along chains of Identity nodes, beyond twice their number
_CIRCLE = "an Identity of itself"
_LIKE = re.compile(b"LSTM|GRU|RNN|Lstm|Gru|Rnn|lstm|rnn")  # of an operator's name: not Congruent

_NODE, _INITIALIZER, _INPUT, _SPARSE = 1, 5, 11, 15  # of GraphProto
_FUNCTION_NODE = 7
_IN, _OUT, _NAME, _OP, _ATTRIBUTE, _DOMAIN = 1, 2, 3, 4, 5, 7  # of NodeProto
_GRAPHS = (6, 11)  # of AttributeProto: one, several
_NODE_KINDS = dict.fromkeys((_IN, _OUT, _NAME, _OP, _ATTRIBUTE, _DOMAIN), LENGTH)


def short(name):
    """A name in quotes, cut."""
    return repr(name if len(name) <= 100 else name[:100] + "...")


class Node(NamedTuple):
    """A recurrent node. graphs: the spans of the graph it is in and of those around that, innermost first."""

    op_type: str
    name: str
    inputs: list
    outputs: list
    attributes: list
    graphs: tuple

    @property
    def place(self):
        """How errors call it."""
        return f"node {short(self.name or next(filter(None, self.outputs), ''))} ({self.op_type[:100]})"


class Source(NamedTuple):
    """What gives a value: the span of a tensor, the name of another value (Identity), or why it cannot be had."""

    tensor: tuple | None = None
    alias: str | None = None
    refusal: str | None = None


# ---- nodes ----------------------------------------------------------------------------------------------------------


def _node(data, span, graphs):
    found = message(data, span, _NODE_KINDS)
    names = ([text(data, piece) for piece in found[number]] for number in (_IN, _OUT))
    return Node(text(data, one(found[_OP])), text(data, one(found[_NAME])), *names, found[_ATTRIBUTE], graphs)


def _inner(data, span):
    """The first graphs in an attribute, one more than a node may have."""
    found = ((a, b) for number, kind, a, b in fields(data, span) if number in _GRAPHS and kind == LENGTH)
    return itertools.islice(found, MAX_DEPTH + 1)


class Search:
    """The recurrent nodes of a model, in `found`. functions: gives the spans of its functions, as often as asked."""

    def __init__(self, data, graph, functions):
        """Raises ValueError that names a recurrent node that cannot be read, for what it is or where it is."""
        self.data, self.functions, self.found, self._named = data, functions, [], None
        self._graph(graph)
        for span in functions():
            self._graph(span, function=text(data, one(message(data, span, {1: LENGTH})[1])))

    def _graph(self, span, around=(), function=None):
        """A graph and the graphs inside it. function: its name, if it is one or in one."""
        graphs = (span, *around)
        if len(graphs) > MAX_DEPTH:
            raise ValueError(f"graphs inside graphs, more than {MAX_DEPTH} deep")
        wanted = _NODE if function is None or around else _FUNCTION_NODE
        for number, kind, a, b in fields(self.data, span):
            if number == wanted and kind == LENGTH:
                for inner in self._node((a, b), graphs, function):
                    self._graph(inner, graphs, function)

    def _node(self, span, graphs, function):
        """Spans of the graphs inside a node, which is kept if it is recurrent."""
        op, inner = None, []
        for number, kind, a, b in fields(self.data, span):
            if kind == LENGTH and number == _OP:
                op = a, b
            elif kind == LENGTH and number == _ATTRIBUTE:
                inner += _inner(self.data, (a, b))
                if len(inner) > MAX_DEPTH:
                    raise ValueError(f"a node with more than {MAX_DEPTH} graphs inside")
        if op and _LIKE.search(self.data[slice(*op)]):
            self._keep(span, graphs, function)
        return inner

    def _keep(self, span, graphs, function):
        node = _node(self.data, span, graphs)
        domain = text(self.data, one(message(self.data, span, _NODE_KINDS)[_DOMAIN]))
        if node.op_type not in OPERATORS or domain not in STANDARD:
            if self._calls(node.op_type, domain):
                return  # what is in the function matters
            raise ValueError(f"{node.place} is of domain {short(domain)}; LSTM, GRU and RNN of ONNX itself are read")
        if function is not None:
            words = "; onnx.inliner puts what functions do in the place where they are called"
            raise ValueError(f"{node.place} is inside the function {short(function)}{words}")
        self.found.append(node)
        if len(self.found) > MAX_NODES:
            raise ValueError(f"more than {MAX_NODES} recurrent nodes")

    def _calls(self, name, domain):
        """Whether the model has a function of this name and domain."""
        if self._named is None:
            self._named = self._named_like()
        return (name, domain) in self._named

    def _named_like(self):
        """(name, domain) of the functions whose names are like those of recurrent operators: one walk over all."""
        found = set()
        for span in self.functions():
            labels = message(self.data, span, {1: LENGTH, 10: LENGTH})
            name = one(labels[1])
            if name and _LIKE.search(self.data[slice(*name)]):
                found.add((text(self.data, name), text(self.data, one(labels[10]))))
            if len(found) > MAX_NODES:
                raise ValueError(f"more than {MAX_NODES} functions named after recurrent operators")
        return found


# ---- values -----------------------------------------------------------------------------------------------------


def _constant(data, span, name):
    """What a Constant node gives."""
    values = dict(attribute(data, piece) for piece in message(data, span, _NODE_KINDS)[_ATTRIBUTE])
    if list(values) != ["value"] or not isinstance(values["value"], tuple):
        return Source(refusal=f"is {short(name)}, a Constant without a tensor")
    return Source(tensor=values["value"])


def _produced(data, span, wanted):
    """(name, `Source`) of the outputs of a node that are wanted."""
    op, found = None, []
    for number, kind, a, b in fields(data, span):
        if number == _OP and kind == LENGTH:
            op = a, b
        elif number == _OUT and kind == LENGTH and b - a <= MAX_NAME and bytes(data[a:b]) in wanted:
            found.append(text(data, (a, b)))
    for name in found:
        kind = text(data, op)
        if kind == "Constant":
            yield name, _constant(data, span, name)
        elif kind == "Identity":
            yield name, Source(alias=text(data, one(message(data, span, _NODE_KINDS)[_IN])))
        else:
            words = f"computed at run time by {kind[:100] or 'a node without a type'}"
            yield name, Source(refusal=f"is {short(name)}, {words}")


def _label(data, span, number):
    """The name in a message, as bytes; b"" for one that is longer than any that is looked for."""
    label = one(message(data, span, {number: LENGTH})[number], (0, 0))
    return bytes(data[slice(*label)]) if label[1] - label[0] <= MAX_NAME else b""


def _label_of(data, number, span):
    """The name of an initializer, an input, or a sparse initializer, which is that of its values."""
    if number == _SPARSE:
        span = one(message(data, span, {1: LENGTH})[1], (0, 0))
    return _label(data, span, 1 if number == _INPUT else 8)


def _enter(found, name, number, span):
    """An initializer goes before an input of the same name, whose default it is."""
    if number == _INITIALIZER:
        if name in found and found[name].tensor:
            raise ValueError(f"there is more than one initializer {short(name)}")
        found[name] = Source(tensor=span)
    else:
        words = "an input of the graph" if number == _INPUT else "a sparse initializer, which is not read"
        found.setdefault(name, Source(refusal=f"is {short(name)}, {words}"))


def _walk(data, graph, names):
    """Name -> `Source` of those of `names` (bytes) that a graph gives."""
    found = {}
    for number, kind, a, b in fields(data, graph):
        if kind != LENGTH:
            continue
        if number == _NODE:
            for name, source in _produced(data, (a, b), names):
                found.setdefault(name, source)
        elif number in (_INITIALIZER, _INPUT, _SPARSE):
            label = _label_of(data, number, (a, b))
            if label in names:
                _enter(found, label.decode(), number, (a, b))
    return found


class _Identities:
    """The Identity nodes of a graph, found by their outputs: chains of them take time in proportion to their number."""

    def __init__(self, data, graph):
        # Numbers, not names: 32 bytes for each node. Nodes whose names have the same hash are told apart by the names.
        self._data, keys, self._starts, self._ends = data, array("q"), array("q"), array("q")
        for number, kind, a, b in fields(data, graph):
            if number == _NODE and kind == LENGTH and data.find(b"Identity", a, b) >= 0:
                for output, how, start, end in fields(data, (a, b)):
                    if output == _OUT and how == LENGTH and end - start <= MAX_NAME:
                        keys.append(hash(bytes(data[start:end])))
                        self._starts.append(a)
                        self._ends.append(b)
        keys = np.array(keys, np.int64)
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        self._steps = 2 * len(keys) + MAX_STEPS

    def _before(self, name):
        """What an Identity node makes `name` of; None where none does."""
        place = int(np.searchsorted(self._keys, hash(name.encode())))
        for at in range(place, len(self._keys)):
            if self._keys[at] != hash(name.encode()):
                return None
            node = int(self._order[at])
            for _, source in _produced(self._data, (self._starts[node], self._ends[node]), {name.encode()}):
                return source.alias
        return None

    def end(self, name):
        """The name at the end of a chain that starts with `name`; None for one that goes round in a circle."""
        most = len(self._keys)
        for _ in range(most + 1):
            before = self._before(name)
            if before is None:
                return name
            name, self._steps = before, self._steps - 1
            if self._steps < 0:
                raise ValueError(f"chains of Identity nodes that share too many of them, up to {short(name)}")
        return None


class Values:
    """What gives the inputs of nodes, found in a few walks over the graphs they are in."""

    def __init__(self, data, nodes, wanted):
        """wanted: names of the inputs of each of `nodes`."""
        around, names = {}, {}
        for node, given in zip(nodes, wanted, strict=True):
            for place, graph in enumerate(node.graphs):
                around[graph] = node.graphs[place + 1 :]
                names.setdefault(graph, set())
            names[node.graphs[0]].update(given)
        self._found = {}
        for graph in sorted(names, key=lambda one: -len(around[one])):  # the innermost first
            self._found[graph], missing = self._resolve(data, graph, names[graph])
            if around[graph]:
                names[around[graph][0]].update(missing)

    @staticmethod
    def _resolve(data, graph, names):
        """(name -> `Source` in one graph, names that it does not give): at most three walks over the graph."""
        found = _walk(data, graph, {name.encode() for name in names})
        behind = {name: source.alias for name, source in found.items() if source.alias is not None}
        if not behind:
            return found, names - set(found)
        chains = _Identities(data, graph)
        for name, alias in behind.items():
            end = chains.end(alias)
            found[name] = Source(alias=end) if end is not None else Source(refusal=f"is {short(name)}, {_CIRCLE}")
        ends = {source.alias for source in found.values() if source.alias is not None} - names
        found |= _walk(data, graph, {name.encode() for name in ends})
        return found, (names | ends) - set(found)

    def tensor(self, name, graphs):
        """The span of the tensor that is the value `name` in the first of `graphs`; ValueError if none is."""
        for graph in graphs:
            source = self._found[graph].get(name)
            if source is not None and source.alias is not None:
                name = source.alias
                source = self._found[graph].get(name)
            if source is not None:
                if source.refusal:
                    raise ValueError(source.refusal)
                return source.tensor
        raise ValueError(f"is {short(name)}, which nothing in the file gives")
