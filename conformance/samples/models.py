"""The model of a sample, and its feeds; also widened to float64, which is how its outputs are expected."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

from omniop.conformance.samples.catalogue import opset
from omniop.conformance.samples.drawing import Values
from omniop.conformance.samples.op import Input, Sample
from omniop.opset import dtype as dtypes

_IR = 10
_NEWEST_IR = 13
_AS_IT_IS: Mapping[str, str] = {}


def build(sample: Sample, *, retyped: Mapping[str, str] = _AS_IT_IS, closed: bool = False) -> onnx.ModelProto:
    """The model. Half of the samples, by their names, leave dims open, and half keep integers that are given in full
    (axes, shapes) as initialisers; the other half feeds them. ``retyped``: dtypes that become others, for an oracle.
    ``closed``: no dim is open that is the same in all sets."""
    if sample.text:
        return _written(sample)
    names = [f"x{k}" if value is not None else "" for k, value in enumerate(sample.sets[0])]
    kept = constants(sample)
    infos = [
        helper.make_value_info(name, _map_type(value))
        if isinstance(value, dict)
        else helper.make_tensor_value_info(name, _elem(_dtype(value), retyped), _dims(sample, k, closed))
        for k, (name, value) in enumerate(zip(names, sample.sets[0], strict=True))
        if value is not None and name not in kept
    ]
    outputs = [f"y{k}" if dtype else "" for k, dtype in enumerate(sample.outputs)]
    node = helper.make_node(sample.op, names, outputs, domain=sample.domain, **sample.attributes)
    results = [
        onnx.ValueInfoProto(name=name)
        if "(" in dtype
        else helper.make_tensor_value_info(name, _elem(dtype, retyped), None)
        for name, dtype in zip(outputs, sample.outputs, strict=True)
        if name
    ]
    graph = helper.make_graph([node], sample.name, infos, results)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in kept.items())
    version = opset(sample)
    imports = [helper.make_opsetid("", 21 if sample.domain else version)]
    if sample.domain:
        imports.append(helper.make_opsetid(sample.domain, version))
    newest = version > 24 and not sample.domain
    return helper.make_model(graph, opset_imports=imports, ir_version=_NEWEST_IR if newest else _IR)


def feeds(sample: Sample, number: int, model: onnx.ModelProto) -> dict[str, Any]:
    """The arrays of one set, by the names of the model's inputs."""
    arrays = sample.feeds(number)
    if sample.text:
        return {info.name: array for info, array in zip(model.graph.input, arrays, strict=True) if array is not None}
    kept = constants(sample)
    return {f"x{k}": array for k, array in enumerate(arrays) if array is not None and f"x{k}" not in kept}


def retype(arrays: Mapping[str, Any], retyped: Mapping[str, str]) -> dict[str, Any]:
    """The arrays, those of dtypes that become others as these; maps stay."""
    return {
        name: array.astype(retyped.get(array.dtype.name, array.dtype)) if isinstance(array, np.ndarray) else array
        for name, array in arrays.items()
    }


def constants(sample: Sample) -> dict[str, np.ndarray]:
    """What is not fed: for half of the samples the integers that are given in full."""
    if len(sample.sets) > 1 or _bit(sample, "constants"):
        return {}
    return {
        f"x{k}": value for k, value in enumerate(sample.sets[0]) if isinstance(value, np.ndarray) and _is_shape(value)
    }


def _is_shape(value: np.ndarray) -> bool:
    return value.dtype.name in ("int32", "int64") and value.ndim < 2


def _written(sample: Sample) -> onnx.ModelProto:
    model = parser.parse_model(sample.text)
    model.graph.name = sample.name
    return model


def _dims(sample: Sample, position: int, closed: bool) -> Sequence[int | str]:
    """Dims that differ between sets are open, and in half of the samples all are."""
    shapes = [inputs[position].shape for inputs in sample.sets if inputs[position] is not None]  # type: ignore[union-attr]
    first = shapes[0]
    if len(set(shapes)) > 1 or (_bit(sample, "open") and not closed):
        return [f"d{position}_{axis}" for axis in range(len(first))]
    return list(first)


def _bit(sample: Sample, about: str) -> bool:
    return bool(hashlib.sha256(f"{sample.name}/{about}".encode()).digest()[0] & 1)


def _map_type(value: Mapping[Any, Any]) -> onnx.TypeProto:
    key, element = next(iter(value.items()))
    key_type = onnx.TensorProto.STRING if isinstance(key, str) else onnx.TensorProto.INT64
    elem_type = onnx.TensorProto.STRING if isinstance(element, str) else dtypes.of_numpy(element.dtype).onnx
    return helper.make_map_type_proto(key_type, helper.make_tensor_type_proto(elem_type, []))


def _dtype(value: Input) -> str:
    assert isinstance(value, Values | np.ndarray)
    if isinstance(value, Values):
        return value.dtype
    return dtypes.of_numpy(value.dtype).name


def _elem(dtype: str, retyped: Mapping[str, str]) -> int:
    return dtypes.of_name(retyped.get(dtype, dtype)).onnx
