"""What a single node of somebody's model has to give: the oracle of our own cases, or whoever else can say it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, helper, numpy_helper

from omniop.conformance.oracles import NoOracle, expected, onnxruntime_engine, reference_engine
from omniop.conformance.samples import models
from omniop.conformance.samples.op import Sample
from omniop.opset import contrib
from omniop.opset import dtype as dtypes
from omniop.opset.errors import UnsupportedError

Outputs = dict[str, Any]
Feeds = Mapping[str, Any]


def expect(model: onnx.ModelProto, feeds: Feeds) -> Outputs:
    """The outputs by name. NoOracle, with what each oracle said, where none runs it."""
    reasons = []
    for oracle in _CONTROL if _has_bodies(model.graph.node[0]) else _OPERATORS:
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                return oracle(model, feeds)
        except Exception as error:  # each has its own
            reasons.append((str(error).strip() or type(error).__name__).splitlines()[0][:120])
    raise NoOracle(f"no oracle says what it has to give: {'; '.join(dict.fromkeys(reasons))}")


def _by_reference(model: onnx.ModelProto, feeds: Feeds) -> Outputs:
    return dict(reference_engine(model)(feeds))


def _by_onnxruntime(model: onnx.ModelProto, feeds: Feeds) -> Outputs:
    return dict(onnxruntime_engine(model)(feeds))


def _as_a_sample(model: onnx.ModelProto, feeds: Feeds) -> Outputs:
    """By the oracle that judges our own cases of the operator, in float64 where it rounds."""
    (node,) = model.graph.node
    sample = _sample(model, node, feeds)
    built = models.build(sample)
    found = expected.expect(sample, built, models.feeds(sample, 0, built))
    return {name: found[f"y{k}"] for k, name in enumerate(node.output) if name}


_OPERATORS = (_as_a_sample, _by_reference, _by_onnxruntime)
_CONTROL = (_by_onnxruntime, _by_reference)
"""Who is asked, in order. onnx.reference joins what a Loop collects, where ONNX stacks it."""


def _has_bodies(node: onnx.NodeProto) -> bool:
    return any(attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for attribute in node.attribute)


def _sample(model: onnx.ModelProto, node: onnx.NodeProto, feeds: Feeds) -> Sample:
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    values = {**constants, **feeds}
    if not all(isinstance(value, np.ndarray) for value in values.values()):
        raise UnsupportedError("what is no tensor is no sample")
    types = {info.name: info.type.tensor_type.elem_type for info in model.graph.output}
    attributes = {attribute.name: _plain(helper.get_attribute_value(attribute)) for attribute in node.attribute}
    inputs = tuple(values[name] if name else None for name in node.input)
    return Sample(
        *(f"{node.op_type}_{node.name}", node.op_type, _domain(node), _version(model, node)),
        dtypes=tuple(dict.fromkeys(dtypes.of_numpy(array.dtype).name for array in inputs if array is not None)),
        sets=(inputs,),
        outputs=tuple(dtypes.of_onnx(types[name]).name if name else "" for name in node.output),
        attributes=attributes,
    )


def _domain(node: onnx.NodeProto) -> str:
    return "" if node.domain == "ai.onnx" else node.domain


def _version(model: onnx.ModelProto, node: onnx.NodeProto) -> int:
    """Of the operator that is in force."""
    imported = next(one.version for one in model.opset_import if one.domain in (node.domain, _domain(node)))
    if any((schema.domain, schema.name) == (node.domain, node.op_type) for schema in contrib.SCHEMAS):
        return 1
    return onnx.defs.get_schema(node.op_type, imported, _domain(node)).since_version


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value
