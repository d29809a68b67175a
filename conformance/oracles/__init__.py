"""The oracles: implementations of ONNX that know nothing of omniop's lowerings and backends.

An engine is a function that prepares a model and returns what runs it. It raises UnsupportedError for what it does not
implement, and whatever it likes for what it gets wrong.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from omniop.conformance.choices import Oracle
from omniop.opset.errors import UnsupportedError

Feeds = Mapping[str, Any]
Outputs = Mapping[str, Any]
Prepared = Callable[[Feeds], Outputs]
Engine = Callable[[onnx.ModelProto], Prepared]


class NoOracle(UnsupportedError):
    """Nothing on this machine says what a model has to give."""


def reference_engine(model: onnx.ModelProto, wide: bool = False) -> Prepared:
    """onnx's reference implementation in numpy. ``wide``: attributes take part as Python's floats, not as numbers of 32
    bits, which make their products with such numbers as narrow."""
    from onnx.reference import ReferenceEvaluator

    try:
        evaluator = ReferenceEvaluator(model)
    except NotImplementedError as error:
        raise UnsupportedError(f"onnx.reference: {error}") from error
    if wide:
        _widen_attributes(evaluator)

    def run(feeds: Feeds) -> Outputs:
        try:
            outputs = evaluator.run(None, dict(feeds))
        except NotImplementedError as error:
            raise UnsupportedError(f"onnx.reference: {error}") from error
        return {name: _strings_as_objects(value) for name, value in zip(evaluator.output_names, outputs, strict=True)}

    return run


def _widen_attributes(evaluator: Any) -> None:
    for node in evaluator.rt_nodes_:
        narrow = {name: value for name, value in vars(node).items() if isinstance(value, np.float32)}
        for name, value in narrow.items():
            setattr(node, name, float(value))


def _strings_as_objects(value: Any) -> Any:
    """Some of onnx.reference's string operators give numpy's fixed-width strings; ONNX's are object arrays."""
    return value.astype(object) if isinstance(value, np.ndarray) and value.dtype.kind == "U" else value


def onnxruntime_engine(model: onnx.ModelProto) -> Prepared:
    """ONNX Runtime on the CPU, one thread, the graph as it is written, told to accept models newer than itself."""
    os.environ["ALLOW_RELEASED_ONNX_OPSET_ONLY"] = "0"
    try:
        import onnxruntime as ort
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError as error:
        raise NoOracle(f"only ONNX Runtime says what it has to give: pip install onnxruntime ({error})") from None

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    # Its optimiser trades accuracy: an int4 weight behind DequantizeLinear makes a whole MatMul int8.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(_for_onnxruntime(model), options, providers=["CPUExecutionProvider"])
    except (state.NotImplemented, state.InvalidGraph) as error:
        raise UnsupportedError(f"onnxruntime: {error}") from error
    except state.Fail as error:
        if "is not a registered function/op" not in str(error):
            raise
        raise UnsupportedError(f"onnxruntime: {error}") from error

    names = [output.name for output in session.get_outputs()]
    types = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    narrow = any(_is_narrow(elem_type) for elem_type in types.values())

    def run(feeds: Feeds) -> Outputs:
        if not narrow:
            return dict(zip(names, session.run(None, dict(feeds)), strict=True))
        values = {name: _to_ort(ort.OrtValue, value, types[name]) for name, value in feeds.items()}
        outputs = session.run_with_ort_values(None, values)
        return {name: _from_ort(value) for name, value in zip(names, outputs, strict=True)}

    return run


_ORT_IR = 11
"""The newest IR version that ONNX Runtime reads; models of later ones hold nothing that it would miss."""


def _for_onnxruntime(model: onnx.ModelProto) -> bytes:
    if model.ir_version <= _ORT_IR:
        return bytes(model.SerializeToString())
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ir_version = _ORT_IR
    return bytes(copy.SerializeToString())


def _is_narrow(elem_type: int) -> bool:
    """Whether numpy has no name of its own for the type (bfloat16, float8, int4, ...); 0 is no tensor at all."""
    return elem_type != 0 and "ml_dtypes" in helper.tensor_dtype_to_np_dtype(elem_type).type.__module__


def _to_ort(ort_value: Any, value: Any, elem_type: int) -> Any:
    """A narrow array crosses as its packed bytes, in an array of the right shape that is large enough."""
    if not _is_narrow(elem_type):
        return ort_value.ortvalue_from_numpy(value)
    packed = np.frombuffer(numpy_helper.from_array(value).raw_data, np.uint8)
    words = np.zeros(value.shape, np.uint16 if value.dtype.itemsize == 2 else np.uint8)
    words.reshape(-1).view(np.uint8)[: packed.size] = packed
    return ort_value.ortvalue_from_numpy_with_onnx_type(words, elem_type)


def _from_ort(value: Any) -> Any:
    if not value.is_tensor() or not _is_narrow(value.element_type()):
        return value.numpy()
    shape, elem_type = value.shape(), value.element_type()
    zeros = np.zeros(shape, helper.tensor_dtype_to_np_dtype(elem_type))
    size = len(numpy_helper.from_array(zeros).raw_data)
    data = ctypes.string_at(value.data_ptr(), size)
    return numpy_helper.to_array(onnx.TensorProto(data_type=elem_type, dims=shape, raw_data=data))


ENGINES: Mapping[Oracle, Engine] = {"reference": reference_engine, "onnxruntime": onnxruntime_engine}
"""The oracles by name, as ``--oracle`` takes them."""
