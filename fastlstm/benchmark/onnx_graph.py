"""A problem as an ONNX model, for the peers that read one."""

import numpy as np

from .problem import Cannot

OPSET, IR = 17, 8  # old enough for every release in use
# Gates in ONNX's order, as places in torch's: LSTM i o f c of i f g o; GRU z r h of r z n.
ORDER = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}


def check(problem, peer):
    """Raise Cannot for what ONNX's recurrent operators, or both who run them, leave out."""
    case = problem.case
    if case.mode == "train":
        raise Cannot(f"{peer} runs models, it does not train them")
    if case.proj:
        raise Cannot("ONNX's LSTM has no projection")
    if case.dtype != "float32":
        raise Cannot(f"{peer} computes recurrent layers in float32")


def inputs(problem):
    """Name -> array of what is fed: x, and the state layer by layer where the case takes one."""
    case, found = problem.case, {"x": problem.x}
    for name, value in (problem.state or {}).items():
        for layer in range(case.layers):
            found[f"{name}0_{layer}"] = value[layer * case.directions : (layer + 1) * case.directions]
    return found


def outputs(problem):
    """Name -> shape of what comes out: y (T, D, B, H) for one direction, else (T, B, D*H), and the states."""
    case = problem.case
    y = (case.steps, 1, case.batch, case.hidden)
    if case.bidirectional:
        y = (case.steps, case.batch, 2 * case.hidden)
    shape = (case.directions, case.batch, case.hidden)
    names = [f"{name}n_{layer}" for name in problem.state or () for layer in range(case.layers)]
    return {"y": y, **dict.fromkeys(names, shape)}


def results(problem, get):
    """What a Call hands back; get: name -> array."""
    case = problem.case
    found = {"y": get("y").reshape(case.steps, case.batch, -1)}
    for name in problem.state or ():
        found[f"{name}n"] = np.concatenate([get(f"{name}n_{layer}") for layer in range(case.layers)])
    return found


def build(problem):
    """The model, serialized. ImportError without the package onnx, which writes it."""
    from onnx import TensorProto, helper, numpy_helper

    case, nodes, constants = problem.case, [], []

    def constant(name, value):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    lengths = "" if problem.lengths is None else constant("lengths", problem.lengths.astype(np.int32))
    x = "x"
    for layer in range(case.layers):
        weights = [constant(f"{n}{layer}", value) for n, value in zip("WRB", _weights(problem, layer), strict=True)]
        given = [f"{name}0_{layer}" for name in problem.state or ()]
        left = [f"{name}n_{layer}" for name in problem.state or ()]
        last = layer == case.layers - 1
        y = "y" if last and not case.bidirectional else f"Y{layer}"
        options = {"linear_before_reset": 1} if case.cell == "gru" else {}
        nodes.append(helper.make_node(
            case.cell.upper(), [x, *weights, lengths, *given], [y, *left], hidden_size=case.hidden,
            direction="bidirectional" if case.bidirectional else "forward", **options,
        ))
        if not last or case.bidirectional:  # (T, D, B, H) -> (T, B, D*H)
            shape = constant(f"shape{layer}", np.array([case.steps, case.batch, -1], np.int64))
            x = "y" if last else f"x{layer + 1}"
            nodes.append(helper.make_node("Transpose", [y], [f"Z{layer}"], perm=[0, 2, 1, 3]))
            nodes.append(helper.make_node("Reshape", [f"Z{layer}", shape], [x]))

    def described(shapes):
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    fed = {name: value.shape for name, value in inputs(problem).items()}
    graph = helper.make_graph(nodes, "case", described(fed), described(outputs(problem)), constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR
    return model.SerializeToString()


def _weights(problem, layer):
    """W (D, G*H, K), R (D, G*H, H), B (D, 2*G*H) in ONNX's order of gates."""
    order = ORDER[problem.case.cell]
    ends = ("", "_reverse")[: problem.case.directions]

    def get(kind):
        for end in ends:
            gates = np.split(problem.weights[f"{kind}_l{layer}{end}"], len(order))
            yield np.concatenate([gates[k] for k in order])

    biases = zip(get("bias_ih"), get("bias_hh"), strict=True)
    return np.stack([*get("weight_ih")]), np.stack([*get("weight_hh")]), np.stack([np.concatenate(b) for b in biases])
