import abc
from typing import Any

from onnx.reference.op_run import OpRun

class _Recurrent(OpRun, metaclass=abc.ABCMeta):  # type: ignore[misc]
    op_domain: str
    def __init__(self, onnx_node: Any, run_params: dict[str, Any], schema: Any = None) -> None: ...

class LSTM(_Recurrent): ...
class GRU(_Recurrent): ...
class RNN(_Recurrent): ...

operators: list[type[_Recurrent]]
