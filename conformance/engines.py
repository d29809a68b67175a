"""omniop as an engine of the suite, with the facts of each run, and suite mode.

In suite mode a model's constants are fed: initialisers, Constant nodes, and the weights that the light networks fill
with one value. Otherwise an operator whose inputs are all constant would be computed once, at load, and the device
would be asked for little in a run; and weights would reach it by one way only. Integers of rank 0 and 1 stay constant:
they are a network's shapes, axes and pads, and where an operator takes such a value from a feed, node cases feed it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from omniop.conformance.choices import Fallback
from omniop.conformance.oracles import Engine, Feeds, Outputs, Prepared
from omniop.conformance.strict import Guard, GuardBackend, StrictRun
from omniop.conformance.verdict import Facts, Node
from omniop.opset.host_nature import HOST_BY_NATURE


@dataclass(frozen=True)
class OmniopEngine:
    """omniop itself on ``device``, in suite mode unless ``fold``, in all the ways of `omniop.conformance.strict` if
    ``strict``. An engine of the suite that can be pickled."""

    device: str
    fallback: Fallback = "error"
    fold: bool = False
    strict: bool = False

    def __call__(self, model: onnx.ModelProto) -> Prepared:
        import omniop

        fed, constants = (model, {}) if self.fold else feed_constants(model)
        guard = _guard(self.device) if self.strict else None
        session = omniop.load(fed, device=guard.device.name if guard else self.device, fallback=self.fallback)
        prepared = _OmniopRun(session, constants, _has_strings(model))
        if guard is None:
            return prepared
        drawn = any(HOST_BY_NATURE.get(node.op_type) == "numpy's random draws" for node in model.graph.node)
        return StrictRun(prepared, guard, drawn=drawn)


def omniop_engine(device: str, fallback: Fallback = "error", *, fold: bool = False, strict: bool = False) -> Engine:
    """See `OmniopEngine`."""
    return OmniopEngine(device, fallback, fold, strict)


@functools.cache
def _guard(device: str) -> Guard:
    """The guarded twin of a device, registered under a name of its own."""
    from omniop.dispatcher.registry import registry

    inner = registry().device(device)
    guard = Guard(inner, f"strict-{inner.name.replace(':', '-')}")
    registry().register(GuardBackend(guard), trusted=True)
    return guard


class _OmniopRun:
    """A session, with the constants that each run is fed beside its own feeds."""

    def __init__(self, session: Any, constants: Mapping[str, np.ndarray], strings: bool) -> None:
        self._session, self._constants, self._strings = session, constants, strings

    def __call__(self, feeds: Feeds) -> Outputs:
        return self._session.run({**self._constants, **feeds})

    def facts(self) -> Facts:
        explanation = self._session.explain()
        own = explanation.devices[0]
        host = sorted({node.op for node in explanation.nodes if node.device == "host"})
        nature = [op for op in host if op in HOST_BY_NATURE or self._strings]
        left = [_fallback(node, own) for node in explanation.nodes if node.device not in (own, "-", "host")]
        left += [f"{op} ran on the host" for op in host if op not in nature]
        nodes = dict.fromkeys(Node(node.op, node.device, node.route) for node in explanation.nodes)
        return Facts(tuple(nodes), tuple(nature), tuple(left))


def _fallback(node: Any, own: str) -> str:
    reason = next((f": {r['reason']}" for r in node.rejected if r["candidate"] == own), "")
    return f"{node.op} ran on {node.device}, not on {own}{reason}"


def _has_strings(model: onnx.ModelProto) -> bool:
    """Whether a string goes in or comes out: operators that meet strings run on the host."""
    return any(_is_strings(value.type) for value in (*model.graph.input, *model.graph.output))


def _is_strings(type_: onnx.TypeProto) -> bool:
    match type_.WhichOneof("value"):
        case "tensor_type":
            return type_.tensor_type.elem_type == onnx.TensorProto.STRING
        case "sequence_type":
            return _is_strings(type_.sequence_type.elem_type)
        case "optional_type":
            return _is_strings(type_.optional_type.elem_type)
        case "map_type":
            keyed = type_.map_type.key_type == onnx.TensorProto.STRING
            return keyed or _is_strings(type_.map_type.value_type)
        case _:
            return False


def feed_constants(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The model with the constants of its graph as inputs, and the feeds that they now need.

    Integers of rank 0 and 1 stay, and so do sparse tensors, constants that are outputs of the graph, and those inside
    of functions and subgraphs.
    """
    fed = onnx.ModelProto()
    fed.CopyFrom(model)
    graph = fed.graph
    initializers = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    feeds = {name: array for name, array in initializers.items() if not _is_shape(array)}
    kept_nodes = []
    for node in graph.node:
        array = _constant(node, initializers)
        if array is None or _is_shape(array) or node.output[0] in outputs:
            kept_nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
        else:
            feeds[node.output[0]] = array
    kept_tensors = [tensor for tensor in model.graph.initializer if tensor.name not in feeds]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept_tensors)
    graph.node.extend(kept_nodes)
    inputs = {value.name for value in graph.input}
    graph.input.extend(_value_info(name, array) for name, array in feeds.items() if name not in inputs)
    return fed, feeds


def _is_shape(array: np.ndarray) -> bool:
    return array.dtype.kind == "i" and array.ndim < 2


_SCALARS: Mapping[str, Any] = {
    **{"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64},
}


def _constant(node: onnx.NodeProto, initializers: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """What a Constant or ConstantOfShape node gives; None for strings, sparse tensors and other nodes."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("Constant", "ConstantOfShape"):
        return None
    attributes = {attribute.name: attribute for attribute in node.attribute}
    value = numpy_helper.to_array(attributes["value"].t) if "value" in attributes else np.zeros(1, np.float32)
    if node.op_type == "ConstantOfShape":
        return np.broadcast_to(value, initializers[node.input[0]]) if node.input[0] in initializers else None
    if "value" in attributes:
        return value
    name = next((name for name in _SCALARS if name in attributes), None)
    return None if name is None else np.array(helper.get_attribute_value(attributes[name]), _SCALARS[name])


def _value_info(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
    elem_type = onnx.TensorProto.STRING if array.dtype == object else helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, elem_type, array.shape)
