from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import onnx
from onnx.backend import base

from ..read_files import _Given

_Model: TypeAlias = onnx.ModelProto | _Given
_Inputs: TypeAlias = Mapping[str, Any] | Sequence[Any]

class Prepared(base.BackendRep):  # type: ignore[misc]
    input_names: list[str]
    output_names: list[str]
    def __init__(self, model: onnx.ModelProto) -> None: ...
    def run(self, inputs: _Inputs, **kwargs: Any) -> tuple[Any, ...]: ...

class Backend(base.Backend):  # type: ignore[misc]
    @classmethod
    def supports_device(cls, device: str) -> bool: ...
    @classmethod
    def is_compatible(cls, model: _Model, device: str = "CPU", **kwargs: Any) -> bool: ...
    @classmethod
    def prepare(cls, model: _Model, device: str = "CPU", **kwargs: Any) -> Prepared: ...
    @classmethod
    def run_model(cls, model: _Model, inputs: _Inputs, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]: ...
    @classmethod
    def run_node(
        cls, node: onnx.NodeProto, inputs: _Inputs, device: str = "CPU", outputs_info: Any = None, *,
        opset_version: int | None = None, **kwargs: Any,
    ) -> tuple[Any, ...]: ...

is_compatible = Backend.is_compatible
prepare = Backend.prepare
run_model = Backend.run_model
run_node = Backend.run_node
supports_device = Backend.supports_device
