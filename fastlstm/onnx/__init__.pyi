from .onnx_backend import Backend as Backend
from .onnx_backend import Prepared as Prepared
from .onnx_backend import is_compatible as is_compatible
from .onnx_backend import prepare as prepare
from .onnx_backend import run_model as run_model
from .onnx_backend import run_node as run_node
from .onnx_backend import supports_device as supports_device
from .onnx_operators import GRU as GRU
from .onnx_operators import LSTM as LSTM
from .onnx_operators import RNN as RNN
from .onnx_operators import operators as operators

__all__ = [
    "GRU", "LSTM", "RNN", "Backend", "Prepared", "is_compatible", "operators", "prepare", "run_model", "run_node",
    "supports_device",
]
