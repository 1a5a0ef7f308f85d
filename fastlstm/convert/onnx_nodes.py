"""Recurrent nodes in an ONNX file: the file is walked, not parsed.

What is not asked for (other nodes, their weights) is stepped over. A node may be in the main graph or in one inside it
(a branch of If, the body of Loop or Scan). Numbers of fields: onnx.proto.
"""

import itertools
import re
from typing import NamedTuple

from .onnx_wire import LENGTH, attribute, fields, message, one, text

OPERATORS = ("LSTM", "GRU", "RNN")
STANDARD = ("", "ai.onnx")  # two names of the domain of ONNX's own operators
INLINER = "onnx.inliner.inline_local_functions(model) puts what functions do in the place where they are called"
MAX_NODES, MAX_DEPTH = 1024, 16  # recurrent nodes; graphs in a node, and in each other
MAX_FIELDS = 4096  # of a node that is looked at
_LIKE = re.compile(b"LSTM|GRU|RNN|Lstm|Gru|Rnn|lstm|rnn")  # of an operator's name: not Congruent

_NODE, _FUNCTION_NODE = 1, 7  # of GraphProto, of FunctionProto
_IN, _OUT, _NAME, _OP, _ATTRIBUTE, _DOMAIN = 1, 2, 3, 4, 5, 7  # of NodeProto
_GRAPHS = (6, 11)  # of AttributeProto: one, several
_NODE_KINDS = dict.fromkeys((_IN, _OUT, _NAME, _OP, _ATTRIBUTE, _DOMAIN), LENGTH)


def short(name):
    """A name in quotes, cut."""
    return repr(name if len(name) <= 100 else name[:100] + "...")


class Node(NamedTuple):
    """A node. graphs: the spans of the graph it is in and of those around that, innermost first."""

    op_type: str
    name: str
    inputs: list
    outputs: list
    attributes: list
    graphs: tuple
    domain: str = ""

    @property
    def place(self):
        """How errors call it."""
        return f"node {short(self.name or next(filter(None, self.outputs), ''))} ({self.op_type[:100]})"


def node_at(data, span, graphs):
    """The `Node` in a message."""
    if sum(1 for _ in itertools.islice(fields(data, span), MAX_FIELDS + 1)) > MAX_FIELDS:
        raise ValueError(f"is given by a node with more than {MAX_FIELDS} fields")
    found = message(data, span, _NODE_KINDS)
    names = ([text(data, piece) for piece in found[number]] for number in (_IN, _OUT))
    op, name, domain = (text(data, one(found[number])) for number in (_OP, _NAME, _DOMAIN))
    return Node(op, name, *names, found[_ATTRIBUTE], graphs, domain)


def attributes_of(data, node):
    """Name -> value of its attributes."""
    found = {}
    for span in node.attributes:
        name, value = attribute(data, span)
        if name in found:
            raise ValueError(f"has attribute {name[:100]!r} twice")
        found[name] = value
    return found


def _inner(data, span):
    """The first graphs in an attribute, one more than a node may have."""
    found = ((a, b) for number, kind, a, b in fields(data, span) if number in _GRAPHS and kind == LENGTH)
    return itertools.islice(found, MAX_DEPTH + 1)


class Search:
    """The recurrent nodes of a model: found, a list of (node, why it cannot be read for what it is or where it is).

    functions: gives the spans of its functions, as often as asked.
    """

    def __init__(self, data, graph, functions):
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
        node, refusal = node_at(self.data, span, graphs), None
        if node.op_type not in OPERATORS or node.domain not in STANDARD:
            if self._calls(node.op_type, node.domain):
                return  # what is in the function matters
            refusal = f"is of domain {short(node.domain)}; LSTM, GRU and RNN of ONNX itself are read"
        elif function is not None:
            refusal = f"is inside the function {short(function)}; {INLINER}"
        self.found.append((node, refusal))
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
