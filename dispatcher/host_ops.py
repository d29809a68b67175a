"""Ops that run on the host by nature: control flow, sequences, optionals, strings.

Each takes runtime values and gives runtime values; tensors stay on their device unless the op looks at them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from omniop.dispatcher.graph import Graph, NodeInfo, Value
from omniop.dispatcher.values import RuntimeValue, to_host
from omniop.opset.dtype import FLOAT32
from omniop.opset.errors import ExecutionError

if TYPE_CHECKING:
    from omniop.dispatcher.execute import Env, GraphRunner
    from omniop.dispatcher.program import RunReport

HostOp = Callable[["GraphRunner", NodeInfo, Sequence[RuntimeValue], "Env", "RunReport"], Sequence[RuntimeValue]]
HOST_OPS: dict[tuple[str, str], HostOp] = {}
"""By (domain, op)."""
HOST_FORMS: dict[tuple[str, str], HostOp] = {}
"""Those that a device runs, too: they come here when their lowering raises `lowering.OnHost`."""


def host_op(*names: str, domain: str = "") -> Callable[[HostOp], HostOp]:
    def register(function: HostOp) -> HostOp:
        for name in names:
            HOST_OPS[domain, name] = function
        return function

    return register


def one_element(value: RuntimeValue, info: NodeInfo) -> Any:
    array = to_host(value)
    if array.size != 1:
        raise ExecutionError(f"{info.label}: one element is needed, the input has {array.size}")
    return array.reshape(-1)[0].item()


def _run_body(
    runner: GraphRunner, graph: Graph, inputs: Sequence[RuntimeValue], env: Env, report: RunReport
) -> list[RuntimeValue]:
    body = runner.bodies[graph]
    scope = {v: env[v] for v in body.graph.captured if v in env}
    scope.update(zip(graph.inputs, inputs, strict=False))
    return body.run(scope, report)


# Control flow ---------------------------------------------------------------------------------------------------------


@host_op("If")
def if_(runner: GraphRunner, info: NodeInfo, inputs: Sequence[RuntimeValue], env: Env, report: RunReport) -> list[Any]:
    branch = "then_branch" if one_element(inputs[0], info) else "else_branch"
    return _run_body(runner, info.attributes[branch], [], env, report)


@host_op("Loop")
def loop(runner: GraphRunner, info: NodeInfo, inputs: Sequence[RuntimeValue], env: Env, report: RunReport) -> list[Any]:
    graph = info.attributes["body"]
    trips = None if inputs[0] is None else one_element(inputs[0], info)
    going = True if len(inputs) < 2 or inputs[1] is None else bool(one_element(inputs[1], info))
    state = list(inputs[2:])
    scans: list[list[RuntimeValue]] = [[] for _ in range(len(graph.outputs) - 1 - len(state))]
    step = 0
    while going and (trips is None or step < trips):
        args = [np.array(step, np.int64), np.array(going), *state]
        outputs = _run_body(runner, graph, args, env, report)
        going = bool(one_element(outputs[0], info))
        state = outputs[1 : 1 + len(state)]
        for rows, value in zip(scans, outputs[1 + len(state) :], strict=True):
            rows.append(value)
        step += 1
    return [*state, *(_stack(rows, graph.outputs[1 + len(state) + k]) for k, rows in enumerate(scans))]


def _stack(rows: list[RuntimeValue], declared: Value, axis: int = 0) -> RuntimeValue:
    """Scan outputs joined along a new axis; with no rows, an empty tensor of the declared shape."""
    if rows:
        return np.stack([to_host(r) for r in rows], axis)
    kind = declared.type
    shape = [0] + [d if isinstance(d, int) else 0 for d in (kind.dims or () if kind is not None else ())]
    dtype = FLOAT32 if kind is None or kind.dtype is None else kind.dtype
    return np.empty(shape, dtype.numpy)


@host_op("Scan")
def scan(runner: GraphRunner, info: NodeInfo, inputs: Sequence[RuntimeValue], env: Env, report: RunReport) -> list[Any]:
    """Versions 9 and later. Version 8, with its batch axis, runs once per batch element."""
    graph = info.attributes["body"]
    count = info.attributes["num_scan_inputs"]
    if info.since < 9:
        return _scan_batched(runner, info, graph, count, inputs[1:], env, report)
    return _scan_once(runner, info, graph, count, inputs, env, report)


def _scan_batched(
    runner: GraphRunner,
    info: NodeInfo,
    graph: Graph,
    count: int,
    inputs: Sequence[RuntimeValue],
    env: Env,
    report: RunReport,
) -> list[Any]:
    arrays = [to_host(v) for v in inputs]
    rows = [
        _scan_once(runner, info, graph, count, [a[k] for a in arrays], env, report) for k in range(arrays[0].shape[0])
    ]
    return [np.stack([to_host(r[k]) for r in rows]) for k in range(len(rows[0]))]


def _scan_once(
    runner: GraphRunner,
    info: NodeInfo,
    graph: Graph,
    count: int,
    inputs: Sequence[RuntimeValue],
    env: Env,
    report: RunReport,
) -> list[Any]:
    state = list(inputs[: len(inputs) - count])
    scanned = [to_host(v) for v in inputs[len(state) :]]
    outputs = len(graph.outputs) - len(state)
    in_axes, out_axes = (info.attributes.get(f"scan_{k}_axes") or () for k in ("input", "output"))
    in_reverse, out_reverse = (info.attributes.get(f"scan_{k}_directions") or () for k in ("input", "output"))
    if info.since < 9:
        in_reverse = info.attributes.get("directions") or ()

    def pick(values: Sequence[int], k: int) -> int:
        return values[k] if k < len(values) else 0

    moved = [np.moveaxis(a, pick(in_axes, k), 0) for k, a in enumerate(scanned)]
    moved = [a[::-1] if pick(in_reverse, k) else a for k, a in enumerate(moved)]
    rows: list[list[RuntimeValue]] = [[] for _ in range(outputs)]
    for step in range(moved[0].shape[0]):
        results = _run_body(runner, graph, [*state, *(np.array(a[step]) for a in moved)], env, report)
        state = results[: len(state)]
        for row, value in zip(rows, results[len(state) :], strict=True):
            row.append(value)
    stacked = []
    for k, row in enumerate(rows):
        ordered = row[::-1] if pick(out_reverse, k) else row
        stacked.append(_stack(ordered, graph.outputs[len(state) + k], pick(out_axes, k)))
    return [*state, *stacked]


# Sequences and optionals ----------------------------------------------------------------------------------------------


@host_op("SequenceConstruct")
def sequence_construct(runner: Any, info: Any, inputs: Sequence[RuntimeValue], env: Any, report: Any) -> list[Any]:
    return [list(inputs)]


@host_op("SequenceEmpty")
def sequence_empty(runner: Any, info: Any, inputs: Sequence[RuntimeValue], env: Any, report: Any) -> list[Any]:
    return [[]]


def _position(info: NodeInfo, value: RuntimeValue, length: int, last: int) -> int:
    place = int(one_element(value, info))
    if not -length <= place <= last:
        raise ExecutionError(f"{info.label}: position {place} is outside a sequence of {length}")
    return place + length if place < 0 else place


@host_op("SequenceAt")
def sequence_at(runner: Any, info: NodeInfo, inputs: Sequence[RuntimeValue], env: Any, report: Any) -> list[Any]:
    sequence = inputs[0]
    return [sequence[_position(info, inputs[1], len(sequence), len(sequence) - 1)]]


@host_op("SequenceLength")
def sequence_length(runner: Any, info: Any, inputs: Sequence[RuntimeValue], env: Any, report: Any) -> list[Any]:
    return [np.array(len(inputs[0]), np.int64)]


@host_op("SequenceInsert")
def sequence_insert(runner: Any, info: NodeInfo, inputs: Sequence[RuntimeValue], env: Any, report: Any) -> list[Any]:
    sequence = list(inputs[0])
    given = inputs[2] if len(inputs) > 2 else None
    place = len(sequence) if given is None else _position(info, given, len(sequence), len(sequence))
    sequence.insert(place, inputs[1])
    return [sequence]


@host_op("SequenceErase")
def sequence_erase(runner: Any, info: NodeInfo, inputs: Sequence[RuntimeValue], env: Any, report: Any) -> list[Any]:
    sequence = list(inputs[0])
    given = inputs[1] if len(inputs) > 1 else None
    place = len(sequence) - 1 if given is None else _position(info, given, len(sequence), len(sequence) - 1)
    del sequence[place]
    return [sequence]


@host_op("ConcatFromSequence")
def concat_from_sequence(
    runner: Any, info: NodeInfo, inputs: Sequence[RuntimeValue], env: Any, report: Any
) -> list[Any]:
    arrays = [to_host(v) for v in inputs[0]]
    axis = info.attributes["axis"]
    joined = np.stack(arrays, axis) if info.attributes.get("new_axis") else np.concatenate(arrays, axis)
    return [joined]


@host_op("SplitToSequence")
def split_to_sequence(runner: Any, info: NodeInfo, inputs: Sequence[RuntimeValue], env: Any, report: Any) -> list[Any]:
    array = to_host(inputs[0])
    axis = info.attributes.get("axis") or 0
    split = to_host(inputs[1]) if len(inputs) > 1 and inputs[1] is not None else None
    extent = array.shape[axis]
    if split is None:
        parts = [np.take(array, [k], axis) for k in range(extent)]
        keep = info.attributes.get("keepdims", 1)
        return [parts if keep else [p.squeeze(axis) for p in parts]]
    ends = range(int(split), extent, int(split)) if split.ndim == 0 else np.cumsum(split)[:-1]
    return [[np.ascontiguousarray(p) for p in np.split(array, list(ends), axis)]]


@host_op("SequenceMap")
def sequence_map(
    runner: GraphRunner, info: NodeInfo, inputs: Sequence[RuntimeValue], env: Env, report: RunReport
) -> list[Any]:
    graph = info.attributes["body"]
    rows = [
        _run_body(runner, graph, [v[k] if isinstance(v, list) else v for v in inputs], env, report)
        for k in range(len(inputs[0]))
    ]
    return [[r[k] for r in rows] for k in range(len(graph.outputs))]


@host_op("Optional")
def optional(runner: Any, info: Any, inputs: Sequence[RuntimeValue], env: Any, report: Any) -> list[Any]:
    return [inputs[0] if inputs else None]


@host_op("OptionalHasElement")
def optional_has_element(runner: Any, info: Any, inputs: Sequence[RuntimeValue], env: Any, report: Any) -> list[Any]:
    return [np.array(bool(inputs) and inputs[0] is not None)]


@host_op("OptionalGetElement")
def optional_get_element(
    runner: Any, info: NodeInfo, inputs: Sequence[RuntimeValue], env: Any, report: Any
) -> list[Any]:
    if inputs[0] is None:
        raise ExecutionError(f"{info.label}: the optional is empty")
    return [inputs[0]]


# Strings, pictures, numpy's random draws: by onnx's own reference -----------------------------------------------------


def by_reference(
    runner: GraphRunner, info: NodeInfo, inputs: Sequence[RuntimeValue], env: Env, report: RunReport
) -> list[Any]:
    """Run one node by onnx.reference. Nothing here is worth a kernel, and its results are the definition."""
    import onnx.reference
    import onnx_ir as ir

    node = ir.serde.serialize_node(runner.model.node(info))
    imports = dict(info.imports)
    if info.key in _NAMED_ANEW:
        node.domain, node.op_type, imports[""] = "", *_NAMED_ANEW[info.key]
    feeds = {name: to_host(v) for name, v in zip(node.input, inputs, strict=False) if name}
    untyped = [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(feeds)]
    graph = onnx.helper.make_graph([node], "host", untyped, [onnx.ValueInfoProto(name=n) for n in node.output if n])
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in imports.items()]
    model = onnx.helper.make_model(graph, opset_imports=opsets)
    try:
        found = onnx.reference.ReferenceEvaluator(model).run(None, feeds)
    except Exception as error:
        raise ExecutionError(f"{info.label}: {error}") from error
    return [v.astype(object) if isinstance(v, np.ndarray) and v.dtype.kind in "UST" else v for v in found]


_NAMED_ANEW = {
    ("com.microsoft", "GatherND"): ("GatherND", 13),
    ("com.microsoft", "ExpandDims"): ("Unsqueeze", 13),
}
"""Operators that ONNX has under a name and version of its own."""

for _name in ("StringConcat", "StringSplit", "StringNormalizer", "RegexFullMatch", "TfIdfVectorizer", "ImageDecoder"):
    HOST_OPS["", _name] = by_reference
