"""What an ONNX graph computes beyond a recurrent node: nothing, as far as that is certain, or possibly more.

Nothing is certain only of a graph with one recurrent node between an input and an output, where the other nodes make
its weights of constants, or move numbers: as exporters write them around the states, lengths and directions of a layer.
"""

from .onnx_nodes import STANDARD, attributes_of, node_at
from .onnx_wire import LENGTH, fields, message, one, text

MORE = "a graph, which may compute more"
_MOST = 512  # nodes, inputs and outputs that are looked at
_NODE, _INPUT, _OUTPUT = 1, 11, 12  # of GraphProto
_LINE = {"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}  # what may stand between x, the node and y
_MOVES = _LINE | {"Concat", "Constant", "ConstantOfShape", "Expand", "Gather", "Shape", "Slice"}
_SHAPED = {"ConstantOfShape": 0, "Expand": 1, "Reshape": 1}  # -> the place of its input that is a shape
_REAL = (1, 10, 11, 16)  # TensorProto.DataType of float32, float16, float64, bfloat16
_X, _LENGTHS, _STATES = 0, 4, (5, 6)  # places of the inputs of a recurrent node that are no weights


class _Graph:
    """The nodes of a graph, by what they give, and the names of its inputs and outputs; ValueError of a large one."""

    def __init__(self, data, span):
        self.nodes, self.givers, self.inputs, self.outputs = [], {}, set(), []
        for number, kind, a, b in fields(data, span):
            if kind != LENGTH or number not in (_NODE, _INPUT, _OUTPUT):
                continue
            if len(self.nodes) + len(self.inputs) + len(self.outputs) == _MOST:
                raise ValueError(f"more than {_MOST} nodes, inputs and outputs")
            if number == _NODE:
                self._add(node_at(data, (a, b), (span,)))
                continue
            name = text(data, one(message(data, (a, b), {1: LENGTH})[1]))
            self.inputs.add(name) if number == _INPUT else self.outputs.append(name)

    def _add(self, node):
        self.nodes.append(node)
        for name in filter(None, node.outputs):
            if name in self.givers:
                raise ValueError(f"{name} is given twice")
            self.givers[name] = node

    def line(self, name):
        """The names before a value, itself first, as far back as nodes only hand a sequence on."""
        found = [name]
        while (node := self.givers.get(found[-1])) and _is(node, _LINE) and node.inputs and len(found) < _MOST:
            found.append(node.inputs[0])
        return found

    def behind(self, names):
        """Places in `nodes` of all that some values are computed by, but for what only gives its shape."""
        found, waiting, places = set(), list(names), {id(node): n for n, node in enumerate(self.nodes)}
        while waiting:
            node = self.givers.get(waiting.pop())
            if node and places[id(node)] not in found and not _is(node, {"Shape"}):
                found.add(places[id(node)])
                waiting += node.inputs
        return found


def _is(node, names):
    return node.domain in STANDARD and node.op_type in names


def _keeps_numbers(data, node):
    return node.op_type != "Cast" or attributes_of(data, node).get("to") in _REAL


def rest(data, nodes):
    """What a graph may compute beyond its recurrent layers, in words; "" where it is certain that there is nothing.

    nodes: (node, why it cannot be read or None) of all that are recurrent.
    """
    try:
        alone = len(nodes) == 1 and len(nodes[0][0].graphs) == 1 and nodes[0][1] is None
        return "" if alone and _is_alone(data, nodes[0][0]) else MORE
    except ValueError:
        return MORE  # too large, or damaged where nobody has looked yet


def _is_alone(data, node):
    """Whether a node stands between an input and an output of its graph, with nothing but moved numbers around it."""
    graph, given = _Graph(data, node.graphs[0]), dict(enumerate(node.inputs))
    constants = [name for place, name in given.items() if place not in (_X, _LENGTHS, *_STATES)]
    constants += [name for one in graph.nodes if _is(one, _SHAPED) for name in one.inputs[_SHAPED[one.op_type] :]]
    known = graph.behind(constants)
    if not all(_is(one, _MOVES) for n, one in enumerate(graph.nodes) if n not in known and one != node):
        return False
    starts = [graph.line(given[place]) for place in (_X, _LENGTHS) if given.get(place)]
    ends = [line for line in map(graph.line, graph.outputs) if node.outputs and line[-1] == node.outputs[0] != ""]
    if not ends or not given.get(_X) or not all(line[-1] in graph.inputs for line in starts):
        return False
    names = [name for line in (starts[0], ends[0]) for name in line if name in graph.givers]
    return all(_keeps_numbers(data, graph.givers[name]) for name in names)
