"""A problem as an ONNX model, for the peers that read one."""

import numpy as np

from .problem import Cannot

OPSET, IR = 17, 8  # old enough for every release in use
ORDER = {"lstm": "iofg", "gru": "zrn", "rnn": "a"}  # ONNX's order of gates; what we call g and n it calls c and h
OPTIONS = ("peephole", "coupled", "activations", "clip", "reset_after", "nonlinearity")  # those its operators have
FUNCTIONS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "hard_sigmoid": "HardSigmoid"}


def check(problem, peer, options=OPTIONS):
    """Raise Cannot for what ONNX's recurrent operators, or both who run them, leave out. options: those `peer` has."""
    case = problem.case
    if case.cell not in ORDER:
        raise Cannot("ONNX has no such cell")
    named = set(case.variant.options.get("activations", ())) <= set(FUNCTIONS)  # with constants it is a tuple
    if not named or case.variant.coupled == "i=1-f" or any(name not in options for name, _ in case.options):
        raise Cannot(f"{peer} has no such option")
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
    y = (case.steps, 1, case.batch, case.recurrent)
    if case.bidirectional:
        y = (case.steps, case.batch, 2 * case.recurrent)
    found = {"y": y}
    for name in problem.state or ():
        for layer, hidden in enumerate(case.sizes):
            found[f"{name}n_{layer}"] = case.directions, case.batch, hidden
    return found


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
    for layer, hidden in enumerate(case.sizes):
        weights = [constant(f"{n}{layer}", value) for n, value in zip("WRB", _weights(problem, layer), strict=True)]
        peepholes = [constant(f"P{layer}", _peepholes(problem, layer))] if case.variant.peephole else []
        given = [f"{name}0_{layer}" for name in problem.state or ()]
        left = [f"{name}n_{layer}" for name in problem.state or ()]
        last = layer == case.layers - 1
        y = "y" if last and not case.bidirectional else f"Y{layer}"
        states = [*given, *[""] * (2 - len(given)), *peepholes] if peepholes else given
        nodes.append(helper.make_node(
            case.cell.upper(), [x, *weights, lengths, *states], [y, *left], hidden_size=hidden,
            direction="bidirectional" if case.bidirectional else "forward", **_attributes(case),
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


def _attributes(case):
    """Attributes of the operator for the options of a case; those that are as ONNX has them are left out."""
    v, found = case.variant, {}
    if v.cell == "gru":
        found["linear_before_reset"] = int(v.reset_after)
    if v.coupled:
        found["input_forget"] = 1
    if v.clip is not None:
        found["clip"] = v.clip
    if "activations" in v.options:
        found["activations"] = [FUNCTIONS[name] for name in v.options["activations"]] * case.directions
    return found


def _by_gate(problem, kind, layer, names, order):
    """Per direction, the rows of a tensor in ONNX's order of gates. names: the gates that have any; 0 for others."""
    for end in ("", "_reverse")[: problem.case.directions]:
        rows = np.split(problem.weights[f"{kind}_l{layer}{end}"], len(names))
        found = dict(zip(names, rows, strict=True))
        yield np.concatenate([found.get(name, np.zeros_like(rows[0])) for name in order])


def _peepholes(problem, layer):
    """P (D, 3*H)."""
    return np.stack([*_by_gate(problem, "weight_peephole", layer, problem.case.variant.peephole, "iof")])


def _weights(problem, layer):
    """W (D, G*H, K), R (D, G*H, H), B (D, 2*G*H) in ONNX's order of gates."""
    v = problem.case.variant

    def get(kind):
        return _by_gate(problem, kind, layer, v.gates, ORDER[v.cell])

    biases = zip(get("bias_ih"), get("bias_hh"), strict=True)
    return np.stack([*get("weight_ih")]), np.stack([*get("weight_hh")]), np.stack([np.concatenate(b) for b in biases])
