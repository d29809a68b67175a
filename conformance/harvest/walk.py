"""A graph run node by node, by the oracles, each distinct node kept on the way."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from onnx import helper, numpy_helper

from omniop.conformance.harvest.inputs import Sizes, draw
from omniop.conformance.harvest.nodes import Untyped, graphs_of, key_of, model_of, reads, typed
from omniop.conformance.oracles import onnxruntime_engine, reference_engine
from omniop.opset.errors import ModelError
from omniop.opset.importer import import_model

_MAX_BYTES = 1 << 30
"""What a node may read: a model of more cannot be written as one message."""


_DRAWN: Mapping[str, np.ndarray] = {}


@dataclass(frozen=True)
class Harvested:
    """One distinct node: its ``model`` and what reaches it, or why there is no model (``lost``)."""

    key: str
    node: onnx.NodeProto
    model: onnx.ModelProto | None
    feeds: Mapping[str, Any]
    lost: str = ""


def harvest(path: Path, sizes: Sizes, arrays: Mapping[str, np.ndarray] = _DRAWN) -> list[Harvested]:
    """Every distinct node of a model file, in the order in which they run, fed ``arrays`` and what `inputs.draw` draws.

    Functions of the model are written out, and bodies of control flow are harvested at their first turn, both branches
    of an If. Raises ModelError for a file that is no model or has no node, FeedError for dims without a size.
    """
    import_model(path)  # its errors are the user's: no model, a broken graph, data that lies elsewhere
    model = onnx.inliner.inline_local_functions(onnx.load(path))
    if not model.graph.node:
        raise ModelError(f"{path} has no node")
    walk = _Walk(list(model.opset_import), model.ir_version)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        walk.graph(model.graph, draw(model, sizes, arrays), {})
    return list(walk.found.values())


@dataclass
class _Walk:
    imports: Sequence[onnx.OperatorSetIdProto]
    ir: int
    found: dict[str, Harvested] = field(default_factory=dict)

    def graph(self, graph: onnx.GraphProto, feeds: Mapping[str, Any], around: Mapping[str, Any]) -> dict[str, Any]:
        """Run a graph. Gives the values of all names that are known after it."""
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        values: dict[str, Any] = {**around, **constants, **feeds}
        fixed = set(constants) - set(feeds)
        pending = list(graph.node)
        while ready := [node for node in pending if all(name in values for name in reads(node))]:
            for node in ready:
                self._node(node, values, fixed)
            done = {id(node) for node in ready}
            pending = [node for node in pending if id(node) not in done]
        for node in pending:
            missing = ", ".join(repr(name) for name in reads(node) if name not in values)
            self._lose(node, f"what it reads is not known: no oracle gives {missing}")
        return values

    def _node(self, node: onnx.NodeProto, values: dict[str, Any], fixed: set[str]) -> None:
        constant = all(name in fixed for name in reads(node))
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            model = helper.make_model(
                helper.make_graph([node], "constant", [], [onnx.ValueInfoProto(name=node.output[0])]),
                opset_imports=self.imports,
            )
            values.update(reference_engine(model)({}))
            fixed.add(node.output[0])
            return
        feeds = {name: values[name] for name in reads(node)}
        if sum(array.nbytes for array in feeds.values() if isinstance(array, np.ndarray)) > _MAX_BYTES:
            self._lose(node, f"it reads more than {_MAX_BYTES >> 20} MiB")
            return
        try:
            model = model_of(node, feeds, fixed, self.imports, self.ir)
        except Untyped as untyped:
            self._lose(node, str(untyped))
            return
        for body in graphs_of(node):
            self.graph(body, _first_turn(node, body, feeds), feeds)
        fed = {info.name: feeds[info.name] for info in model.graph.input}
        outputs, why = _evaluate(model, fed)
        if outputs is None:
            self._lose(node, f"no oracle runs it: {why}")
            return
        values.update(outputs)
        if constant:
            fixed.update(outputs)
        known = {name: value for name, value in outputs.items() if value is not None}
        key = key_of(model)
        self.found.setdefault(key, Harvested(key, node, typed(model, known), fed))

    def _lose(self, node: onnx.NodeProto, why: str) -> None:
        key = f"lost-{node.domain}-{node.op_type}-{why}"
        self.found.setdefault(key, Harvested(key, node, None, {}, why))


def _first_turn(node: onnx.NodeProto, body: onnx.GraphProto, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a body is fed the first time: nothing for an If, the first step of a Loop, the first slices of a Scan."""
    names = [value.name for value in body.input]
    given = [values[name] if name else None for name in node.input]
    match node.op_type:
        case "Loop":
            found: list[Any] = [np.array(0, np.int64), np.array(True), *given[2:]]
        case "Scan":
            count = next(a.i for a in node.attribute if a.name == "num_scan_inputs")
            axes = next((list(a.ints) for a in node.attribute if a.name == "scan_input_axes"), [0] * count)
            scanned = [np.asarray(x) for x in given[len(given) - count :]]
            slices = (np.take(x, 0, axis) for x, axis in zip(scanned, axes, strict=True) if x.size)
            found = [*given[: len(given) - count], *slices]
        case "SequenceMap":
            found = [one[0] if isinstance(one, list) else one for one in given if not isinstance(one, list) or one]
        case _:
            found = []
    return {name: value for name, value in zip(names, found, strict=False) if value is not None}


_Engine = Callable[[onnx.ModelProto], Any]


def _oracles() -> Iterator[_Engine]:
    """ONNX Runtime first, for it is fast; onnx.reference where it is not installed, or has no kernel."""
    yield onnxruntime_engine
    yield reference_engine


def _evaluate(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The node's outputs, or why nobody gives them."""
    reasons = []
    for engine in _oracles():
        try:
            return dict(engine(model)(feeds)), ""
        except Exception as error:  # each has its own, and a model may be wrong in ways that none foresaw
            text = str(error).strip()
            reasons.append(text.splitlines()[0][:160] if text else type(error).__name__)
    return None, "; ".join(dict.fromkeys(reasons))
