"""A backend as ``onnx.backend.base`` describes it: recurrent nodes run here, the rest in ONNX's reference evaluator."""

import os

import numpy as np
import onnx
from onnx import helper
from onnx.backend import base
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import RuntimeContextError

from ..arguments import _read
from ..read_files import CONTENTS, as_source, is_damage, is_source, name_of, steady
from .onnx_operators import operators


class _Told(ValueError):
    """An error of a node in words, which the nodes around it hand on."""


class _Unknown(NotImplementedError):
    """The same of a node that onnx.reference does not have."""


class _Node:
    """A class of onnx.reference for one node: what it raises, when it is made and when it runs, names the node."""

    def __init__(self, kind, node):
        self._kind, self._node = kind, node

    def __call__(self, *given):
        """The operator of the node."""
        made = self.told(self._kind, *given)
        if not isinstance(made, tuple(operators)):  # which name it themselves
            run = made.run
            made.run = lambda *inputs, **options: self.told(run, *inputs, **options)
        return made

    def told(self, function, *given, **options):
        """A function's result. Errors of a model or of what it is fed come out as ValueError or NotImplementedError."""
        try:
            return function(*given, **options)
        except (RuntimeContextError, _Told, _Unknown):
            raise
        except Exception as error:
            if not (_is_damage(error) or type(error) in (RuntimeError, AssertionError)) or _is_ours(error):
                raise
            name = self._node.name or next(filter(None, self._node.output), "")
            known = not isinstance(error, NotImplementedError)
            words = f"cannot run it ({_words(error)})" if known else f"does not have it ({_words(error)})"
            text = f"node {name!r} ({self._node.op_type}): ONNX's reference evaluator (of the package onnx) {words}"
            raise (_Told if known else _Unknown)(text) from error


def _is_ours(error):
    """Whether a node of ours has raised an error, in its own words."""
    return type(error) is ValueError and str(error).startswith("node ")


class _Evaluator(ReferenceEvaluator):
    """With our operators, inside functions and graphs inside graphs too; errors name the node."""

    def __init__(self, proto, opsets=None, functions=None, verbose=0, new_ops=None, **options):
        """new_ops: more operators; those of a graph or function inside come with ours among them."""
        more = [one for one in new_ops or () if one not in operators]
        super().__init__(proto, opsets, functions, verbose, [*operators, *more], **options)

    def _load_impl(self, node, input_types=None):
        return _Node(_Node(None, node).told(super()._load_impl, node, input_types), node)

    def _init(self):
        super()._init()
        for array in self.rt_inits_.values():  # weights nobody can change are recognised without being compared
            if isinstance(array, np.ndarray):
                array.flags.writeable = False


def _parsed(name, load, given):
    try:
        return load(given)
    except onnx.checker.ValidationError:
        raise  # of data beside it
    except Exception as error:  # of protobuf, JSON or ONNX's text, by the path's ending
        if not _is_damage(error):
            raise
        raise onnx.checker.ValidationError(f"{name}: not an ONNX model ({_words(error)})") from None


def _is_damage(error):
    """Whether an exception of the libraries speaks of a model's bytes: not of memory, time, or a missing file."""
    return is_damage(error) or type(error).__module__.partition(".")[0] in ("google", "onnx")


def _words(error):
    """Those of an exception and of what has led to it; a KeyError says nothing but the key."""
    if isinstance(error, TypeError) and error.__cause__ is not None:  # OpRun.run tells types, and not what is wrong
        error = error.__cause__
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__} {text}" if isinstance(error, LookupError) or not text else text


def _unread(error):
    """The ValueError for what the evaluator cannot read in a model that the checker lets pass."""
    return ValueError(f"ONNX's reference evaluator cannot read the model ({_words(error)})")


def _lacks_shape(value):
    """Whether an input or output does not say its shape, which exporters leave out and the checker insists on."""
    kind = value.type
    return not kind.WhichOneof("value") or (kind.HasField("tensor_type") and not kind.tensor_type.HasField("shape"))


def _with_shapes(model):
    """A copy of a model for the checker, whose inputs and outputs have shapes; a missing type of an output, too."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in copy.graph.output:
        if not value.type.WhichOneof("value"):
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    for value in (*copy.graph.input, *copy.graph.output):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    return copy


def _check(model, loaded):
    """Raises ValidationError for what ONNX's checker does not let pass."""
    is_path = isinstance(model, (str, os.PathLike))
    lacking = any(_lacks_shape(value) for value in (*loaded.graph.input, *loaded.graph.output))
    try:
        onnx.checker.check_model(_with_shapes(loaded) if lacking else os.fspath(model) if is_path else loaded)
    except onnx.checker.ValidationError:
        raise
    except Exception as error:  # its own words quote bytes that may be no text
        if not _is_damage(error):
            raise
        name = os.fsdecode(model) if is_path else "model"
        raise onnx.checker.ValidationError(f"{name}: damaged ({_words(error)})") from None


def _loaded(model):
    """A ModelProto from one, its bytes, or a path. Raises ValidationError for bytes that are no model."""
    if isinstance(model, onnx.ModelProto):
        return model
    if isinstance(model, (str, os.PathLike)):
        return _parsed(os.fsdecode(model), onnx.load, os.fspath(model))
    if not is_source(model):
        kind = type(model).__name__
        raise TypeError(f"model must be a ModelProto, bytes, a path or a binary file object, got {kind}")
    with steady(as_source(model, "model")) as file:
        data = file.read()
    return _parsed("model" if isinstance(model, CONTENTS) else name_of(model), onnx.load_model_from_string, data)


def _tensors(graph):
    """Every tensor that a graph or a function stores, those of graphs inside too."""
    if isinstance(graph, onnx.GraphProto):
        yield from graph.initializer
        yield from (part for one in graph.sparse_initializer for part in (one.values, one.indices))
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        sparse = (attribute.sparse_tensor, *attribute.sparse_tensors)
        yield from (attribute.t, *attribute.tensors)
        yield from (part for one in sparse for part in (one.values, one.indices))
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors(inner)


def _refuse_data_beside(model):
    """ValueError where a model that came without a path, or was loaded without them, has data in other files."""
    for part in (model.graph, *model.functions):
        for tensor in _tensors(part):
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
                words = "give the path of the model, next to which it lies"
                raise ValueError(f"model: {tensor.name[:100]!r} is in another file, {place[:200]!r}: {words}")


def _by_name(names, inputs):
    """Name -> value, of a sequence with as many."""
    if not isinstance(inputs, (tuple, list)):
        raise TypeError(f"inputs must be a dict, a tuple or a list, got {type(inputs).__name__}")
    if len(inputs) != len(names):
        raise ValueError(f"inputs must be {len(names)}: {', '.join(names)}; got {len(inputs)}")
    return dict(zip(names, inputs, strict=True))


def _no_more(call, arguments):
    if arguments:
        raise TypeError(f"{call}() has no argument {', '.join(arguments)}")


class Prepared(base.BackendRep):
    """A model that is ready to `run`, any number of times; what is packed of its weights is kept.

    input_names: of the inputs without a default, in order; output_names.
    """

    def __init__(self, model):
        try:
            self._evaluator = _Evaluator(model)
        except (_Told, _Unknown):
            raise
        except (LookupError, AttributeError, ArithmeticError, UnicodeError) as error:
            raise _unread(error) from error
        initial = {tensor.name for tensor in model.graph.initializer}
        initial |= {tensor.values.name for tensor in model.graph.sparse_initializer}
        self._types = {value.name: value.type for value in model.graph.input}
        self.input_names = [name for name in self._types if name not in initial]
        self.output_names = [value.name for value in model.graph.output]

    def _feeds(self, inputs):
        if not isinstance(inputs, dict):
            every = isinstance(inputs, (tuple, list)) and len(inputs) == len(self._types)
            inputs = _by_name(list(self._types) if every else self.input_names, inputs)
        wrong = [f"missing {name}" for name in self.input_names if name not in inputs]
        wrong += [f"unexpected {name}" for name in inputs if name not in self._types]
        if wrong:
            raise ValueError(f"inputs do not fit: {', '.join(wrong)}")
        return {name: self._checked(name, value) for name, value in inputs.items()}

    def _checked(self, name, value):
        """An input that is a tensor as an array of its type; others as they are."""
        kind = self._types[name]
        if not kind.HasField("tensor_type"):
            return value
        number, value = kind.tensor_type.elem_type, _read(f"input {name}", value)
        try:
            expected = helper.tensor_dtype_to_np_dtype(number)
        except KeyError:
            raise ValueError(f"input {name} is of element type {number}, which ONNX does not have") from None
        if value.dtype != expected:
            raise TypeError(f"input {name} has type {value.dtype}, expected {expected}")
        return value

    def run(self, inputs, **kwargs):
        """The outputs, a named tuple that takes names in brackets, too.

        inputs: arrays by name, or in the order of the graph's inputs; those with a default may be left out.
        Raises TypeError or ValueError that names the input or the node, and says where it comes from the package onnx.
        """
        _no_more("run", kwargs)
        feeds = self._feeds(inputs)
        try:
            found = self._evaluator.run(None, feeds)
        except (LookupError, RuntimeError) as error:  # of the graph as a whole; those of nodes have names
            if not (isinstance(error, LookupError) or type(error) is RuntimeError):
                raise
            raise _unread(error) from error
        return base.namedtupledict("Outputs", self.output_names)(*found)


class Backend(base.Backend):
    """ONNX's interface of a backend, on the CPU."""

    @classmethod
    def supports_device(cls, device):
        """Whether `device` is "CPU"."""
        try:
            return base.Device(device).type == base.DeviceType.CPU
        except (AttributeError, TypeError, ValueError):
            return False

    @classmethod
    def _check(cls, call, device, more):
        if not cls.supports_device(device):
            raise ValueError(f"device must be 'CPU', got {device!r}")
        _no_more(call, more)

    @classmethod
    def is_compatible(cls, model, device="CPU", **kwargs):
        """Whether `prepare` takes the model."""
        try:
            cls.prepare(model, device, **kwargs)
        except (onnx.checker.ValidationError, NotImplementedError, RuntimeError, TypeError, ValueError):
            return False
        except OSError as error:
            if error.errno is None:  # a time-out of a signal handler, no answer of the system
                raise
            return False
        return True

    @classmethod
    def prepare(cls, model, device="CPU", **kwargs):
        """A `Prepared` model.

        model: a path, next to which external data are looked for; or, without external data, a ModelProto, its bytes,
        or a binary file object, of which all from its present position on is the model.

        Raises onnx.checker.ValidationError for a model that is none (naming the path if it cannot even be parsed),
        OSErrors of a path as they come, ValueError for data in other files where there is no path, ValueError for nodes
        that the engine or onnx.reference cannot run, and NotImplementedError for operators that onnx.reference does not
        have; both name the node.
        """
        cls._check("prepare", device, kwargs)
        loaded = _loaded(model)
        _refuse_data_beside(loaded)
        _check(model, loaded)
        return Prepared(loaded)

    @classmethod
    def run_model(cls, model, inputs, device="CPU", **kwargs):
        """``prepare(model, device).run(inputs)``."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(cls, node, inputs, device="CPU", outputs_info=None, *, opset_version=None, **kwargs):
        """The outputs of one node, a named tuple. inputs: arrays by name, or in order without those left out.

        opset_version: of its operators; None for the newest that the package onnx has. outputs_info is not needed.
        Raises as `prepare` and `Prepared.run` do.
        """
        cls._check("run_node", device, kwargs)
        names = list(dict.fromkeys(name for name in node.input if name))
        found = inputs if isinstance(inputs, dict) else _by_name(names, inputs)
        found = {name: _read(f"input {name}", value) for name, value in found.items()}
        kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in found.items()}
        given = [helper.make_tensor_value_info(name, kinds[name], array.shape) for name, array in found.items()]
        left = [helper.make_value_info(name, onnx.TypeProto()) for name in node.output if name]
        opset = helper.make_opsetid(node.domain, opset_version or onnx.defs.onnx_opset_version())
        model = helper.make_model(helper.make_graph([node], "node", given, left), opset_imports=[opset])
        return Prepared(model).run(found)


is_compatible, prepare = Backend.is_compatible, Backend.prepare
run_model, run_node, supports_device = Backend.run_model, Backend.run_node, Backend.supports_device
