"""Stacks of recurrent layers as parts of a graph of ONNX: nodes, what stands between them, states in and out.

Inside of a graph a sequence is (T, B, F). Letters: T steps, B rows, H hidden units, F features, L layers, D directions.
"""

import numpy as np

from .onnx_build import Value
from .onnx_ways import OPERATORS, Way, alike, attributes, tensors


def joined(*names):
    """The name of something at a place in a model."""
    return ".".join(names)


class Stacks:
    """Writes recurrent layers to a graph.

    weights: of the whole model, by name. lengths: the name of that input, or "". states: whether states are inputs and
    outputs; several: whether their names need the place of their layer.
    """

    def __init__(self, graph, weights, lengths, states, several):
        self.graph, self.weights, self.lengths, self.states, self.several = graph, weights, lengths, states, several

    # ---- states --------------------------------------------------------------------------

    def _state_name(self, place, name):
        return joined(*place, name) if self.several else name

    def _side_by_side(self, name, values, axis):
        return values[0] if len(values) == 1 else self.graph.then("Concat", name, *values, axis=axis)

    def _split(self, value, names, *sizes):
        if len(names) > 1:
            self.graph.node("Split", f"{value}.split", [value, self.graph.sizes(*sizes)], names, axis=0)
        return names if len(names) > 1 else [value]

    def starts(self, place, model):
        """ "h", "c" -> initial state (D, B, H) of every layer, out of inputs that have the shapes they have here."""
        spec, graph, found = model._spec, self.graph, {}
        for part in spec.states if self.states else ():
            name = self._state_name(place, part + "0")
            parts = [f"{name}.l{layer}" for layer in range(spec.num_layers)]
            if not spec.ragged:
                graph.input(name, (spec.slots, "B", spec.sizes[0]))
                found[part] = self._split(name, parts, *[spec.directions] * spec.num_layers)
                continue
            found[part] = []
            for layer, endings in enumerate(_endings(spec)):
                ways = [graph.input(f"{name}_{ending}", ("B", spec.sizes[layer])) for ending in endings]
                ways = [graph.then("Unsqueeze", f"{one}.D", one, graph.sizes(0)) for one in ways]
                found[part].append(self._side_by_side(parts[layer], ways, 0))
        return found

    def ends(self, place, model, found):
        """Make outputs of last states; found: "h", "c" -> (D, B, H) of every layer."""
        spec, graph = model._spec, self.graph
        for part in spec.states if self.states else ():
            name = self._state_name(place, part + "n")
            if not spec.ragged:
                whole = self._side_by_side(name, found[part], 0)
                graph.output(name, whole, (spec.slots, "B", spec.sizes[0]))
                continue
            for layer, endings in enumerate(_endings(spec)):
                names = [f"{name}_{ending}" for ending in endings]
                ways = self._split(found[part][layer], [f"{one}.D" for one in names], *[1] * spec.directions)
                for one, way in zip(names, ways, strict=True):
                    graph.output(one, graph.then("Squeeze", one, way, graph.sizes(0)), ("B", spec.sizes[layer]))

    # ---- layers --------------------------------------------------------------------------

    def _node(self, name, ways, x, direction, starts):
        """The node of one layer; the names of its outputs."""
        graph, cell = self.graph, ways[0].model.cell
        constants = {kind: graph.constant(f"{name}.{kind}", *one) for kind, one in tensors(ways).items()}
        inputs = [x, constants["W"], constants["R"], constants.get("B", ""), self.lengths, starts.get("h", "")]
        outputs = {"Y": f"{name}.Y", "h": f"{name}.Y_h"}
        if cell == "lstm":
            inputs += [starts.get("c", ""), constants.get("P", "")]
            outputs["c"] = f"{name}.Y_c"
        graph.node(OPERATORS[cell], name, inputs, outputs.values(), direction=direction, **attributes(ways))
        return outputs

    def _without_directions(self, name, value, lead, directions, width):
        """(*lead, D, B, H) -> (*lead, B, D*H)."""
        graph = self.graph
        if directions == 1:
            return graph.then("Squeeze", name, value, graph.sizes(lead))
        axes = [*range(lead), lead + 1, lead, lead + 2]
        turned = graph.then("Transpose", f"{name}.B_first", value, perm=axes)
        return graph.then("Reshape", name, turned, graph.sizes(*[0] * (lead + 1), width))

    def _stack(self, layers, x, direction, starts):
        """(y, final h of the top layer, "h", "c" -> last states of every layer).

        layers: (name, ways) of each; starts: "h", "c" -> their initial states.
        """
        found, final = {part: [] for part in layers[0][1][0].model._spec.states}, None
        for n, (name, ways) in enumerate(layers):
            outputs = self._node(name, ways, x.name, direction, {part: names[n] for part, names in starts.items()})
            for part, names in found.items():
                names.append(outputs[part])
            width = sum(way.hidden for way in ways)
            final = Value(self._without_directions(f"{name}.last", outputs["h"], 0, len(ways), width), ("B", width))
            y = self._without_directions(f"{name}.y", outputs["Y"], 1, len(ways), width)
            x = Value(y, (*x.dims[:2], width))
        return x, final, found

    def layer(self, model, place, x, direction="forward"):
        """(y (T, B, F), last output (B, F)) of a recurrent layer; direction: in which one of one direction runs."""
        endings = ("", "_reverse")[: model._spec.directions]
        layers = []
        for n in range(model.num_layers):
            ways = [Way(model, self.weights, joined(*place, ""), n, ending) for ending in endings]
            layers.append((joined(*place, f"l{n}"), ways))
        if model.bidirectional:
            direction = "bidirectional"
        y, final, found = self._stack(layers, x, direction, self.starts(place, model))
        self.ends(place, model, found)
        return y, final

    # ---- wrappers ------------------------------------------------------------------------

    def reverse(self, model, place, x):
        """The same of a Reverse."""
        y, final = self.layer(model.layer, (*place, "layer"), x, "reverse")
        if model.in_time:
            return y, final
        graph, name = self.graph, joined(*place, "turned")
        if self.lengths:
            lengths = graph.then("Cast", f"{name}.lengths", self.lengths, to=7)  # int64
            turned = graph.then("ReverseSequence", name, y.name, lengths, time_axis=0, batch_axis=1)
        else:
            ends = graph.sizes(-1), graph.sizes(-(2**63)), graph.sizes(0), graph.sizes(-1)
            turned = graph.then("Slice", name, y.name, *ends)
        return Value(turned, y.dims), final

    def bidirectional(self, model, place, x):
        """The same of a Bidirectional; where merge is None each is a pair."""
        both = [(model.forward_layer, (*place, "forward_layer")), (model.backward_layer, (*place, "backward_layer"))]
        ways = [Way(layer, self.weights, joined(*where, ""), 0) for layer, where in both]
        if model.merge == "concat" and alike(ways):
            return self._in_one_node(both, ways, place, x)
        pairs = [self.layer(*one, x, direction) for one, direction in zip(both, ("forward", "reverse"), strict=True)]
        ys, finals = zip(*pairs, strict=True)
        if model.merge is None:
            return ys, finals
        names = joined(*place, "merged"), joined(*place, "last")
        return tuple(self._merged(model.merge, *one) for one in zip(names, (ys, finals), strict=True))

    def _in_one_node(self, both, ways, place, x):
        name, starts = joined(*place, "l0"), [self.starts(where, layer) for layer, where in both]
        starts = {
            part: [self._side_by_side(f"{name}.{part}0", [own[part][0] for own in starts], 0)] for part in starts[0]
        }
        y, final, found = self._stack([(name, ways)], x, "bidirectional", starts)
        if self.states:
            halves = {
                part: self._split(names[0], [f"{names[0]}.0", f"{names[0]}.1"], 1, 1) for part, names in found.items()
            }
            for k, (layer, where) in enumerate(both):
                self.ends(where, layer, {part: [names[k]] for part, names in halves.items()})
        return y, final

    def _merged(self, merge, name, pair):
        a, b = (value.name for value in pair)
        graph, dims = self.graph, pair[0].dims
        if merge == "concat":
            return Value(graph.then("Concat", name, a, b, axis=-1), (*dims[:-1], sum(one.dims[-1] for one in pair)))
        if merge == "ave":
            total = graph.then("Add", f"{name}.sum", a, b)
            return Value(graph.then("Mul", name, total, graph.constant("half", (), lambda: np.array(0.5))), dims)
        return Value(graph.then("Add" if merge == "sum" else "Mul", name, a, b), dims)


def _endings(spec):
    """Endings of the names of weights, in a tuple for each layer."""
    return list(zip(*[iter(spec.names)] * spec.directions, strict=True))
