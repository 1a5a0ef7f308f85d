"""What gives the inputs of nodes in an ONNX file: tensors, and what is computed of them before the model runs.

A value is looked for in its graph, then in those around it. Identity, and If with a constant condition, are other names
of a value; what the operators of onnx_fold.py make of constants is computed when it is asked for. Nothing is kept of
what nobody asked for: of each graph the places of its names are known, 8 bytes for each.
"""

import itertools
from array import array
from collections import Counter
from typing import NamedTuple

import numpy as np

from .onnx_fold import OPERATORS, compute
from .onnx_nodes import INLINER, MAX_DEPTH, MAX_FIELDS, STANDARD, Node, attributes_of, node_at, short
from .onnx_room import Call
from .onnx_wire import LENGTH, MAX_NAME, fields, message, one, text

MAX_COMPUTED = 1024  # nodes that the weights of one recurrent node may be computed by
MAX_FOUND = 1024  # values that are remembered by their names
MAX_STEPS = 20_000  # names that may be looked up, beyond four times their number
_MICROSOFT = {"DequantizeLinear", "QuantizeLinear"}  # of com.microsoft, which mean the same
_FOLD = "if it is constant, onnxruntime writes a file without it: SessionOptions.optimized_model_filepath"
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _SPARSE = 1, 5, 11, 12, 15  # of GraphProto
_OUT = 2  # of NodeProto
_PLACE = 40  # bits of an entry that say where; those above are of the hash of a name


class Missing(ValueError):
    """A value cannot be had. name: of the value that is to blame; why: in words."""

    def __init__(self, name, why):
        super().__init__(f"is {short(name)}, {why}")
        self.name, self.why = name, why


class Value(NamedTuple):
    """A value: the tensor at `span`, or an output (by its place) of the node there."""

    name: str
    span: tuple
    node: Node | None = None
    output: int = 0

    @property
    def key(self):
        """What is the same for the same value, whatever its name."""
        return self.span, self.output


# ---- names ------------------------------------------------------------------------------------------------------


def _label(data, span, number):
    """The name in a message, as bytes; b"" for one that is longer than any that is looked for."""
    label = one(message(data, span, {number: LENGTH})[number], (0, 0))
    return bytes(data[slice(*label)]) if label[1] - label[0] <= MAX_NAME else b""


def _labels(data, number, span):
    """The names that a field of a graph gives: outputs of a node, an initializer, an input."""
    if number == _NODE:
        for field, kind, a, b in itertools.islice(fields(data, span), MAX_FIELDS):
            if field == _OUT and kind == LENGTH:
                yield bytes(data[a:b]) if b - a <= MAX_NAME else b""
    elif number == _SPARSE:  # its name is that of its values
        yield _label(data, one(message(data, span, {1: LENGTH})[1], (0, 0)), 8)
    else:
        yield _label(data, span, 1 if number == _INPUT else 8)


class _Names:
    """Where a graph gives which names, in 8 bytes for each: some bits of the name's hash, then the place of a field."""

    def __init__(self, data, graph):
        self._data, self._end, found, at = data, graph[1], array("Q"), graph[0]
        for number, kind, a, b in fields(data, graph):
            if kind == LENGTH and number in (_NODE, _INITIALIZER, _INPUT, _SPARSE):
                for label in filter(None, _labels(data, number, (a, b))):
                    found.append(self._key(label) | at)
                    if 8 * len(found) > b - graph[0] + (1 << 16):
                        raise ValueError("is in a graph with more names than its nodes can have")
            at = b
        self._entries = np.frombuffer(found, np.uint64) if found else np.empty(0, np.uint64)
        self._entries.sort()

    def __len__(self):
        return len(self._entries)

    @staticmethod
    def _key(label):
        return (hash(label) & (1 << 64 - _PLACE) - 1) << _PLACE

    def find(self, label):
        """(number of the field, its span, place among the outputs) of all that give a name."""
        key = self._key(label)
        start, end = np.searchsorted(self._entries, np.array([key, key + (1 << _PLACE) - 1], np.uint64))
        for entry in self._entries[start : end + 1]:
            at = int(entry) & (1 << _PLACE) - 1
            if int(entry) - at != key:
                return
            number, _, a, b = next(fields(self._data, (at, self._end)))
            for place, other in enumerate(_labels(self._data, number, (a, b))):
                if other == label:
                    yield number, (a, b), place
                    break


# ---- values -----------------------------------------------------------------------------------------------------


def _why_not(node):
    """Why the outputs of a node are not computed here, in words; None where they are."""
    known = node.domain in STANDARD or (node.domain == "com.microsoft" and node.op_type in _MICROSOFT)
    if known and node.op_type in OPERATORS:
        return None
    name = node.op_type[:100] or "a node without a type"
    of = "" if node.domain in STANDARD else f" of domain {short(node.domain)}"
    return f"computed at run time by {name}{of}; {_FOLD}{'; of functions of the model, ' + INLINER if of else ''}"


class Values:
    """The values of a model.

    tensor: gives the array of the tensor at a span. room: what may be computed. opset: version of the operators.
    """

    def __init__(self, data, opset, room, tensor):
        self._data, self._opset, self._room, self._tensor = data, opset, room, tensor
        self._graphs, self._steps, self._conditions, self._found = {}, MAX_STEPS, 0, {}

    def _names(self, graph):
        if graph not in self._graphs:
            self._graphs[graph] = _Names(self._data, graph)
            self._steps += 4 * len(self._graphs[graph])
        return self._graphs[graph]

    def _step(self, name):
        self._steps -= 1
        if self._steps < 0:
            raise Missing(name, "and the model looks up too many names that others share")

    def _place(self, name, graphs):
        """(number of the field, its span, place among the outputs, graphs) of what gives a value."""
        for n, graph in enumerate(graphs):
            found = {}
            for number, span, output in self._names(graph).find(name.encode()):
                self._step(name)
                if number == _INITIALIZER and number in found:
                    raise ValueError(f"there is more than one initializer {short(name)}")
                found.setdefault(number, (number, span, output, graphs[n:]))
            for number in (_INITIALIZER, _NODE, _INPUT, _SPARSE):  # an initializer is the default of an input
                if number in found:
                    return found[number]
        raise Missing(name, "which nothing in the file gives")

    def find(self, name, graphs):
        """The `Value` of a name in the first of `graphs`, behind Identity and If. Raises ValueError where none is."""
        if (name, graphs) not in self._found:
            if len(self._found) >= MAX_FOUND:
                self._found.clear()
            self._found[name, graphs] = self._search(name, graphs)
        else:
            self._step(name)
        return self._found[name, graphs]

    def _search(self, name, graphs):
        first, seen, steps = name, None, 0
        while (name, graphs) != seen:
            if steps & steps - 1 == 0:  # 1, 2, 4, ...: so a circle of any length is found
                seen = name, graphs
            steps += 1
            self._step(name)
            number, span, output, graphs = self._place(name, graphs)
            if number == _INITIALIZER:
                return Value(name, span)
            if number != _NODE:
                words = "an input of the graph" if number == _INPUT else "a sparse initializer, which is not read"
                raise Missing(name, words)
            node = node_at(self._data, span, graphs)
            alias = self._alias(name, node, output)
            if alias is None:
                return self._computed(name, span, node, output)
            name, graphs = alias
        raise Missing(first, "an Identity of itself")

    def _alias(self, name, node, output):
        """(another name of a value, its graphs) where a node only hands it on."""
        if node.domain not in STANDARD or node.op_type not in ("Identity", "If"):
            return None
        if len(node.inputs) != 1:
            raise Missing(name, f"given by {node.place} with {len(node.inputs)} inputs")
        if node.op_type == "Identity":
            return node.inputs[0], node.graphs
        return self._branch(name, node, output)

    def _branch(self, name, node, output):
        """(name, graphs) of an output of the branch that an If with a constant condition takes."""
        condition = node.inputs[0]
        if self._conditions == MAX_DEPTH:
            raise Missing(name, "given by an If whose condition is given by an If, and so on")
        self._conditions += 1
        try:
            found = self.arrays({"": self.find(condition, node.graphs)})[""]
        except ValueError as error:
            raise Missing(name, f"given by {node.place}, whose condition {error}") from None
        finally:
            self._conditions -= 1
        if found.size != 1 or found.dtype != np.bool_:
            raise Missing(name, f"given by {node.place}, whose condition is {found.dtype} of shape {found.shape}")
        branch = attributes_of(self._data, node).get("then_branch" if found.all() else "else_branch")
        graphs = (branch, *node.graphs)
        if not isinstance(branch, tuple) or len(graphs) > MAX_DEPTH:
            raise Missing(name, f"given by {node.place}, whose branch is missing, or too deep")
        ends = ((a, b) for number, kind, a, b in fields(self._data, branch) if number == _OUTPUT and kind == LENGTH)
        for place, end in enumerate(ends):
            if place == output:
                return text(self._data, one(message(self._data, end, {1: LENGTH})[1])), graphs
        raise Missing(name, f"given by {node.place}, whose branch has fewer outputs")

    def _computed(self, name, span, node, output):
        if node.op_type == "Constant" and node.domain in STANDARD:
            try:
                given = attributes_of(self._data, node)
            except ValueError as error:
                raise Missing(name, f"given by {node.place}, which {error}") from None
            if list(given) == ["value"] and isinstance(given["value"], tuple):
                return Value(name, given["value"])
            if not set(given) <= set(OPERATORS["Constant"].attributes):
                raise Missing(name, "a Constant that is no tensor of numbers")
        why = _why_not(node)
        if why:
            raise Missing(name, why)
        return Value(name, span, node, output)

    # ---- numbers ----------------------------------------------------------------------------------------------------

    def arrays(self, roots):
        """Label -> array of each of `roots` (label -> value). Raises ValueError, whose words begin with a label."""
        inputs, order = self._plan(roots)
        left = Counter(value.key for given in inputs.values() for value in given if value)
        left.update(root.key for root in roots.values())
        held = {}
        for label, value in order:
            given = inputs.pop(value.span)
            try:
                self._hold(held, left, value, given)
            except ValueError as error:
                raise ValueError(f"{label} {error}".lstrip()) from None
            for before in filter(None, given):
                left[before.key] -= 1
                if not left[before.key]:
                    del held[before.key]
        return {label: held[root.key] for label, root in roots.items()}

    def _plan(self, roots):
        """(span -> the values that go into what is there; label and value of each, in an order to compute them in)."""
        inputs, order, begun = {}, [], set()
        stack = [(label, root, False) for label, root in reversed(roots.items())]
        while stack:
            label, value, done = stack.pop()
            if done:
                begun.remove(value.span)
                order.append((label, value))
            elif value.span in begun:
                raise ValueError(f"{label} is computed from {short(value.name)}, which is computed from itself")
            elif value.span not in inputs:
                if len(inputs) >= MAX_COMPUTED:
                    raise ValueError(f"{label} is computed by more than {MAX_COMPUTED} nodes")
                inputs[value.span] = self._inputs(f"{label} is {short(roots[label].name)}".lstrip(), value.node)
                begun.add(value.span)
                stack.append((label, value, True))
                stack += [(label, before, False) for before in reversed(inputs[value.span]) if before]
        return inputs, order

    def _inputs(self, words, node):
        """The values that a node gets; None for those that are left out. words: what is computed of it."""
        if node is None:
            return []
        try:
            return [self.find(name, node.graphs) if name else None for name in node.inputs]
        except Missing as error:
            raise ValueError(f"{words}, computed from {short(error.name)}, {error.why}") from None

    def _hold(self, held, left, value, given):
        """Compute what is at a value's span into `held`, as far as it is needed."""
        if value.node is None:
            held[value.key] = self._tensor(value.span)
            return
        try:
            attributes = attributes_of(self._data, value.node)
            call = Call(attributes, self._opset, len(value.node.outputs), self._room, self._tensor)
            found = compute(value.node.op_type, [held[before.key] if before else None for before in given], call)
        except ValueError as error:
            raise ValueError(f"is computed by {value.node.place}, which {error}") from None
        for place in range(len(value.node.outputs)):
            if not left[value.span, place]:
                continue
            if place >= len(found):
                raise ValueError(f"is computed by {value.node.place}, which has {len(found)} outputs")
            held[value.span, place] = found[place]
