"""Cases of onnx_twin.py as files, and run by the layers that from_onnx gives for them."""

import numpy as np
import onnx_bytes as ob

import fastlstm as fl

OUTPUTS = ["Y", "Y_h", "Y_c"]


def as_bytes(case, opset=17, how="raw"):
    """The case as a model in bytes: X is fed, all else is in the file."""
    tensors = [ob.tensor(name, array, how) for name, array in case.arrays.items() if name != "X"]
    node = ob.node(case.op, case.inputs, case.outputs, "n", **case.attributes)
    return ob.model(ob.graph([node], tensors, ["X"], [name for name in case.outputs if name]), opset)


def as_proto(case, opset=17):
    """The case as a ModelProto, by the package onnx."""
    from onnx import helper, numpy_helper

    kind = helper.np_dtype_to_tensor_dtype(case.arrays["X"].dtype)
    described = [
        helper.make_tensor_value_info(name, kind, [None] * (4 if name == "Y" else 3)) for name in case.outputs if name
    ]
    graph = helper.make_graph(
        [helper.make_node(case.op, case.inputs, case.outputs, "n", **case.attributes)], "case",
        [helper.make_tensor_value_info("X", kind, case.arrays["X"].shape)], described,
        [numpy_helper.from_array(array, name) for name, array in case.arrays.items() if name != "X"],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def by_layer(case, model):
    """[Y, Y_h, Y_c] of a case, by the layer of its node."""
    a, batchwise = case.arrays, case.attributes.get("layout", 0)
    D, H = a["R"].shape[0], a["R"].shape[2]
    names = ["initial_h", "initial_c"][: 2 if case.op == "LSTM" else 1]
    rows = a["X"].shape[0 if batchwise else 1]
    start = [a.get(name, np.zeros((rows, D, H) if batchwise else (D, rows, H), model.dtype)) for name in names]
    start = [one.swapaxes(0, 1) if batchwise else one for one in start]
    both = isinstance(model, fl.Bidirectional)

    def joined(parts):
        return tuple(parts) if len(parts) == 2 else parts[0]

    state = tuple(joined([one[d : d + 1] for one in start]) for d in (0, 1)) if both else joined(start)
    y, state = model(a["X"], state, lengths=a.get("sequence_lens"))
    if both:
        state = [s if isinstance(s, tuple) else (s,) for s in state]
        state = [np.concatenate(pair) for pair in zip(*state)]
    parts = list(state) if isinstance(state, (tuple, list)) else [state]
    y = y.reshape(*y.shape[:2], D, H)
    return [y if batchwise else y.swapaxes(1, 2), *(one.swapaxes(0, 1) if batchwise else one for one in parts)]


def distance(ours, theirs):
    """The largest difference, of numbers beyond 1 relative to the largest of them."""
    assert np.shape(ours) == np.shape(theirs)
    if not np.size(theirs):
        return 0.0
    return np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max())


def present(case, found):
    """Name -> array of the outputs that the node has, out of all of them."""
    return {name: array for name, array in zip(OUTPUTS, found) if name in case.outputs}
