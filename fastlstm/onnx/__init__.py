"""ONNX graphs whose recurrent nodes run here: operators for ONNX's reference evaluator, and a backend. Needs onnx.

``ReferenceEvaluator(model, new_ops=fastlstm.onnx.operators)``, or ``fastlstm.onnx.prepare(model).run(inputs)``.
"""

from .onnx_backend import Backend, Prepared, is_compatible, prepare, run_model, run_node, supports_device
from .onnx_operators import GRU, LSTM, RNN, operators

__all__ = [
    "GRU", "LSTM", "RNN", "Backend", "Prepared", "is_compatible", "operators", "prepare", "run_model", "run_node",
    "supports_device",
]


def __dir__():
    return [*__all__]
