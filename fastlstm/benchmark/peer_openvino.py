"""OpenVINO: an inference request whose tensors are set once."""

import numpy as np

from . import onnx_graph
from .problem import Call

OPTIONS = ("clip", "reset_after", "nonlinearity")  # it reads models with peepholes and leaves these out


def version():
    """OpenVINO's version. ImportError without it, or without onnx."""
    import onnx  # noqa: F401 (writes the model)
    import openvino

    return openvino.__version__.split("-")[0]


def entries(problem):
    """One contestant."""
    return {"openvino": lambda: _make(problem)}


def _make(problem):
    import openvino

    onnx_graph.check(problem, "OpenVINO", OPTIONS)
    settings = {
        "INFERENCE_NUM_THREADS": problem.threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # by itself it takes bfloat16 where the processor has it
    }
    core = openvino.Core()
    request = core.compile_model(core.read_model(onnx_graph.build(problem)), "CPU", settings).create_infer_request()
    arrays = {name: np.ascontiguousarray(array) for name, array in onnx_graph.inputs(problem).items()}
    arrays |= {name: np.empty(shape, np.float32) for name, shape in onnx_graph.outputs(problem).items()}
    for name, array in arrays.items():
        request.set_tensor(name, openvino.Tensor(array))  # shares the memory of the array
    return Call(request.infer, lambda: onnx_graph.results(problem, lambda name: request.get_tensor(name).data))
