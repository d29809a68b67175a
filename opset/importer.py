"""Importing a model: from a path, bytes, a ModelProto or an ir.Model to a graph that can be traced.

Accepts what real files hold: nodes in any order, wrong declared shapes, ``-1`` and empty dims, expressions as dims,
opset imports that nobody uses or that are missing, initializers that are inputs, model-local functions, IR versions
newer than this onnx, subgraph outputs that name an outer value. Refuses, in one sentence that names the model, what
cannot be run: dangling inputs, cycles, functions that call themselves, tensors whose data does not fit their shape,
external data outside of the model's folder. Of onnx's C++ only parsers look at the model, neither its checker nor its
shape inference.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveInitializersFromInputsPass

from omniop.opset.errors import ModelError
from omniop.opset.external_data import ExternalData
from omniop.opset.model_file import MAX_NESTING, adapt, has_map_type, parse, read_file
from omniop.opset.nodes import (
    attributes,
    bind_attributes,
    captures,
    declared_type,
    initializer_array,
    keep_type,
    node_label,
    subgraphs_of,
)
from omniop.opset.tensor_data import check_tensor

__all__ = [
    "ImportedModel",
    "attributes",
    "bind_attributes",
    "captures",
    "declared_type",
    "import_model",
    "initializer_array",
    "node_label",
]

FunctionKey = tuple[str, str, str]
"""(domain, name, overload)."""

_FIRST_IR_WITH_OPSETS = 3
# Before, every initializer had to be an input as well; such ones are constants, as ONNX Runtime has it.
_FIRST_IR_WITH_CONSTANTS = 4


@dataclass(frozen=True, eq=False)
class ImportedModel:
    """A model ready to be rewritten and traced: nodes in topological order, every input wired, tensors checked.

    Declared shapes of anything but graph inputs are hints at best: files get them wrong.
    """

    model: ir.Model
    name: str
    """For messages: the path, or what the model was given as."""
    notes: tuple[str, ...] = ()
    """Oddities worth a line to the user; empty for most models."""
    files: tuple[Path, ...] = ()
    """Where its external data lies."""

    @property
    def graph(self) -> ir.Graph:
        return self.model.graph

    @property
    def opset_imports(self) -> Mapping[str, int]:
        """Opset version by domain, "" for ai.onnx; every domain that a node uses is there. A function has its own."""
        return self.model.graph.opset_imports

    @property
    def functions(self) -> Mapping[FunctionKey, ir.Function]:
        """Model-local functions; ``node.op_identifier()`` is the key. They go before an operator of the same name."""
        return self.model.functions

    @property
    def inputs(self) -> list[ir.Value]:
        return list(self.graph.inputs)

    @property
    def required_inputs(self) -> list[ir.Value]:
        """Inputs that have no initializer to stand in for them."""
        return [value for value in self.graph.inputs if value.const_value is None]

    @property
    def outputs(self) -> list[ir.Value]:
        return list(self.graph.outputs)


def import_model(
    source: str | os.PathLike[str] | bytes | onnx.ModelProto | ir.Model,
    *,
    folder: str | os.PathLike[str] | None = None,
) -> ImportedModel:
    """Import a model.

    ``source``: a path (protobuf, or textual by its suffix), a serialized model, a ModelProto (left as it is), or an
    ir.Model, which is taken over: import and rewriting change it in place.
    ``folder``: where external data lies; by default the folder of the path, and none for the other sources.

    Raises ModelError, in one sentence that names the model, when it cannot be read or is not valid.
    """
    path = Path(source) if isinstance(source, (str, os.PathLike)) else None
    name = str(path) if path is not None else _SOURCE_NAMES.get(type(source), "the model")
    data_folder = Path(folder) if folder is not None else path.parent if path is not None else None
    try:
        model = _load(source, name)
        return _Import(model, name, ExternalData(data_folder)).finish()
    except ModelError as e:
        # Names come from the file, line breaks and all.
        text = " ".join(str(e).split())
        raise ModelError(text if text.startswith(name) else f"{name}: {text}") from e


_SOURCE_NAMES: dict[type, str] = {
    bytes: "the serialized model",
    onnx.ModelProto: "the ModelProto",
    ir.Model: "the ir.Model",
}


def _load(source: str | os.PathLike[str] | bytes | onnx.ModelProto | ir.Model, name: str) -> ir.Model:
    if isinstance(source, ir.Model):
        return source
    if isinstance(source, onnx.ModelProto):
        proto = source
    elif isinstance(source, (bytes, bytearray, memoryview)):
        proto = parse(bytes(source), name)
    elif isinstance(source, (str, os.PathLike)):
        proto = read_file(Path(source))
    else:
        raise ModelError(f"a model is a path, bytes, a ModelProto or an ir.Model, not {type(source).__name__}")
    interface = (*proto.graph.input, *proto.graph.output)
    map_types = {v.name: _copy(v.type) for v in interface if has_map_type(v.type)}
    proto = adapt(proto, borrowed=proto is source)
    try:
        with _quiet():
            model = ir.from_proto(proto)
    except (ir.serde.SerdeError, ValueError, TypeError, KeyError, RecursionError) as e:
        raise ModelError(_root_cause(e)) from e
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.name in map_types:
            keep_type(value, map_types[value.name])
    return model


def _copy(proto: onnx.TypeProto) -> onnx.TypeProto:
    copy = onnx.TypeProto()
    copy.CopyFrom(proto)
    return copy


@contextmanager
def _quiet() -> Iterator[None]:
    """onnx-ir logs what it finds dangling; here each is either mended or an error of its own."""
    logger = logging.getLogger("onnx_ir.serde")
    logger.addFilter(_nothing)
    try:
        yield
    finally:
        logger.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())[:300]
    return f"it refers to {text}, which does not exist" if isinstance(error, KeyError) else f"it is malformed: {text}"


class _Import:
    """The steps from an ir.Model as it came to one that can be traced."""

    def __init__(self, model: ir.Model, name: str, data: ExternalData) -> None:
        self.model = model
        self.name = name
        self.data = data
        self.notes: list[str] = []

    def finish(self) -> ImportedModel:
        if self.model.ir_version < _FIRST_IR_WITH_CONSTANTS:
            RemoveInitializersFromInputsPass()(self.model)
        self._normalise_domains()
        _check_calls(self.model)
        for graph in (self.model.graph, *(f.graph for f in self.model.functions.values())):
            self._graph(graph, [])
            _sort(graph)
        self._check_opsets()
        return ImportedModel(self.model, self.name, tuple(self.notes), self.data.files)

    def _scopes(self) -> list[ir.Graph | ir.Function]:
        """What imports opsets of its own."""
        return [self.model.graph, *self.model.functions.values()]

    # Opsets and functions

    def _normalise_domains(self) -> None:
        """Make "ai.onnx" what it is another spelling of, ""; onnx-ir does so for nodes alone."""
        for imports in (scope.opset_imports for scope in self._scopes()):
            if "ai.onnx" in imports:
                version = imports.pop("ai.onnx")
                imports.setdefault("", version)
        for function in list(self.model.functions.values()):
            if function.domain == "ai.onnx":
                del self.model.functions[function.identifier()]
                function.domain = ""
                self.model.functions[function.identifier()] = function

    def _check_opsets(self) -> None:
        """Every domain in use gets a version: the file's, for a function else the model's, else 1."""
        imports = self.model.graph.opset_imports
        functions = self.model.functions
        for scope in self._scopes():
            for node in scope.all_nodes():
                if node.domain in scope.opset_imports or node.op_identifier() in functions:
                    continue
                if node.domain in imports:
                    scope.opset_imports[node.domain] = imports[node.domain]
                elif node.domain or self.model.ir_version < _FIRST_IR_WITH_OPSETS:
                    scope.opset_imports[node.domain] = 1
                else:
                    raise ModelError(f"no opset of ai.onnx is imported, and {node_label(node)} needs one")
        known = onnx.defs.onnx_opset_version()
        if imports.get("", 0) > known:
            newer = f"{self.name} uses opset {imports['']}, newer than the {known} that this onnx knows"
            self.notes.append(f"{newer}: its operators are taken as of {known}")

    # Graphs

    def _graph(self, graph: ir.Graph, scopes: list[dict[str, ir.Value]]) -> None:
        """Check and mend one graph and, recursively, its subgraphs; ``scopes`` hold the outer values by name."""
        if len(scopes) > MAX_NESTING:
            raise ModelError(f"the model nests graphs more than {MAX_NESTING} deep")
        scope = _values_of(graph)
        known = [*scopes, scope]
        for name, initializer in graph.initializers.items():
            initializer.const_value = self._tensor(initializer.const_value, f'initializer "{name}"')
        for defined in scope.values():
            _mend_shape(defined)
        for node in list(graph):
            for position, value in enumerate(node.inputs):
                if value is not None and value.producer() is None and not _is_among(value, known):
                    raise ModelError(f'{node_label(node)}: nothing produces its input {position}, "{value.name}"')
            self._attributes(node)
            for nested in subgraphs_of(node):
                self._graph(nested, known)
        for output in graph.outputs:
            if output.producer() is None and scope.get(output.name or "") is not output:
                _alias_outer(graph, output, scopes)

    def _attributes(self, node: ir.Node) -> None:
        for name, attr in list(node.attributes.items()):
            what = f"{node_label(node)}, attribute {name!r},"
            if attr.is_ref():
                continue
            if attr.type == ir.AttributeType.TENSOR:
                node.attributes[name] = ir.AttrTensor(name, self._tensor(attr.value, what))
            elif attr.type == ir.AttributeType.TENSORS:
                node.attributes[name] = ir.AttrTensors(name, [self._tensor(t, what) for t in attr.value])

    def _tensor(self, tensor: ir.TensorProtocol | None, what: str) -> ir.TensorProtocol:
        """The tensor checked, and mapped when its data is external."""
        if tensor is None:
            raise ModelError(f"{what} has no data")
        if isinstance(tensor, ir.ExternalTensor):
            return self.data.map(tensor, what)
        check_tensor(tensor, what)
        return tensor


def _values_of(graph: ir.Graph) -> dict[str, ir.Value]:
    """The values that a graph defines, by name. Raises ModelError on a name defined twice."""
    scope: dict[str, ir.Value] = {}
    produced = ((v, node) for node in graph for v in node.outputs if v.name)
    defined: Iterable[tuple[ir.Value, ir.Node | None]] = (
        *((v, None) for v in graph.inputs),
        *((v, None) for v in graph.initializers.values() if not v.is_graph_input()),
        *produced,
    )
    for value, node in defined:
        if value.name in scope:
            second = f", the second time by {node_label(node)}" if node else ""
            raise ModelError(f'"{value.name}" is defined twice{second}')
        scope[value.name or ""] = value
    return scope


def _is_among(value: ir.Value, scopes: list[dict[str, ir.Value]]) -> bool:
    return any(scope.get(value.name or "") is value for scope in scopes)


def _mend_shape(value: ir.Value) -> None:
    """-1 and an empty name are ways to say unknown; any other name, expressions included, is a dim's name."""
    shape = value.shape
    if shape is not None and any(_unknown(d) for d in shape):
        value.shape = ir.Shape([ir.SymbolicDim(None) if _unknown(d) else d for d in shape])


def _unknown(dim: int | ir.SymbolicDim) -> bool:
    return dim < 0 if isinstance(dim, int) else dim.value == ""


def _alias_outer(graph: ir.Graph, output: ir.Value, scopes: list[dict[str, ir.Value]]) -> None:
    """A subgraph's output that names an outer value: it gets the Identity that the standard asks for."""
    for scope in reversed(scopes):
        if output.name in scope:
            name = f"{output.name}/captured"
            graph.append(ir.Node("", "Identity", [scope[output.name]], outputs=[output], name=name))
            return
    raise ModelError(f'nothing produces the graph output "{output.name}"')


# Order ----------------------------------------------------------------------------------------------------------------


def _sort(graph: ir.Graph) -> None:
    """Bring a graph and its subgraphs into topological order, as near to the file's as can be."""
    try:
        graph.sort()
    except ValueError as e:
        stuck = [node for g in (graph, *graph.subgraphs()) for node in _on_cycle(g)]
        where = node_label(stuck[0]) if stuck else "a node"
        raise ModelError(f"{where} takes part in a cycle: its inputs depend on its own outputs") from e


def _on_cycle(graph: ir.Graph) -> list[ir.Node]:
    """A node of this graph on a cycle among its nodes, or nothing."""
    waits: dict[ir.Node, set[ir.Node]] = {}
    for node in graph:
        values = [v for v in node.inputs if v is not None]
        values += [v for nested in subgraphs_of(node) for v in captures(nested)]
        producers = {v.producer() for v in values}
        waits[node] = {p for p in producers if p is not None and p.graph is graph}
    ready = [node for node, on in waits.items() if not on]
    while ready:
        done = ready.pop()
        del waits[done]
        for node, on in waits.items():
            if done in on:
                on.discard(done)
                if not on:
                    ready.append(node)
    if not waits:
        return []
    # Every node left waits for one that is left too: following them ends on a cycle.
    seen, node = set(), next(iter(waits))
    while node not in seen:
        seen.add(node)
        node = next(iter(waits[node]))
    return [node]


def _check_calls(model: ir.Model) -> None:
    """Raise ModelError when a model-local function calls itself, directly or through others."""
    calls = {
        key: [n.op_identifier() for n in function.all_nodes() if n.op_identifier() in model.functions]
        for key, function in model.functions.items()
    }
    # A function whose callees are all finished is finished; what never finishes calls itself.
    finished: set[FunctionKey] = set()
    while len(finished) < len(calls):
        more = {key for key, callees in calls.items() if key not in finished and finished.issuperset(callees)}
        if not more:
            key = next(k for k in calls if k not in finished and not finished.issuperset(calls[k]))
            raise ModelError(f"the function {key[0]}::{key[1]} calls itself, directly or through another")
        finished |= more
