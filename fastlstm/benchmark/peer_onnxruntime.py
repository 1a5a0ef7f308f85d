"""ONNX Runtime: inputs and outputs bound once, so that a call copies and allocates nothing."""

import numpy as np

from . import onnx_graph
from .problem import Call


def version():
    """ONNX Runtime's version. ImportError without it, or without onnx."""
    import onnx  # noqa: F401 (writes the model)
    import onnxruntime

    return onnxruntime.__version__


def entries(problem):
    """One contestant."""
    return {"onnxruntime": lambda: _make(problem)}


def _make(problem):
    import onnxruntime

    onnx_graph.check(problem, "ONNX Runtime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = problem.threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(onnx_graph.build(problem), options, providers=["CPUExecutionProvider"])
    binding, values = session.io_binding(), {}
    for name, array in onnx_graph.inputs(problem).items():
        values[name] = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
        binding.bind_ortvalue_input(name, values[name])
    for name, shape in onnx_graph.outputs(problem).items():
        values[name] = onnxruntime.OrtValue.ortvalue_from_numpy(np.empty(shape, np.float32))
        binding.bind_ortvalue_output(name, values[name])
    return Call(
        lambda: session.run_with_iobinding(binding),
        lambda: onnx_graph.results(problem, lambda name: values[name].numpy()),
    )
