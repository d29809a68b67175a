"""A model for the dispatcher: its graph as plain data, and the imported model behind it where that is needed.

This module is imported when a plan comes from the disk, too: what needs onnx-ir is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from omniop.dispatcher.graph import Graph, Labels, NodeInfo
from omniop.opset.errors import UnsupportedError
from omniop.opset.later_import import put_off

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from omniop.dispatcher.reader import Reader
    from omniop.opset.importer import ImportedModel
    from omniop.opset.rewrite import Applied


@dataclass(frozen=True)
class Metadata:
    """What a file says about itself."""

    producer_name: str = ""
    graph_name: str = ""
    domain: str = ""
    doc_string: str = ""
    graph_doc_string: str = ""
    model_version: int = 0
    metadata_props: dict[str, str] = field(default_factory=dict)


SYMBOLIC_DIMS = ("sympy", "onnx_ir._symbolic_shapes")
"""What onnx-ir computes with dims by. It takes longer to import than onnx-ir and onnx, and dims are computed here."""
Load = Callable[[], "tuple[ImportedModel, list[Applied]]"]
"""Imports and rewrites: the same result each time."""


class Model:
    """The graph of a model. What onnx-ir alone knows (functions, protobufs of nodes) is asked of the imported model;
    a `Model` that was kept on disk imports its file again for that."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.labels = Labels()
        reader = _reader()
        imported, applied = load()
        self._imported: ImportedModel | None = imported
        self.rewrites = tuple(a.rule for a in applied)
        """The rule of each rewriting that was done."""
        self.metadata = _metadata(imported.model)
        self.files = tuple(map(str, imported.files))
        """Where its external data lies."""
        self.graph = reader(imported, self.labels).graph(imported.graph)

    def __getstate__(self) -> dict[str, Any]:
        kept = {k: v for k, v in self.__dict__.items() if k != "load"}
        return {**kept, "_imported": None}

    def imported(self) -> ImportedModel:
        """The model as onnx-ir has it; its file is read again for a `Model` from the disk."""
        if self._imported is None:
            reader = _reader()
            self._imported, _ = self.load()
            _adopt(self.graph, reader(self._imported, Labels()).graph(self._imported.graph))
        return self._imported

    def function(self, info: NodeInfo, types: Sequence[onnx.TypeProto | None], *, inside: bool) -> Graph:
        """The graph that defines a node by others: a model-local function, or a schema's body for inputs of ``types``.

        ``inside``: its nodes count as the calling node; else each has a number of its own.
        Raises UnsupportedError when there is none.
        """
        from omniop.opset.schemas import function_graph

        imported = self.imported()
        if info.function is not None:
            function: ir.Function | None = imported.functions[info.function]
        else:
            function = function_graph(self.node(info), info.imports, types)
        if function is None:
            raise UnsupportedError(f"{info.label}: no lowering for {info.op_type} since version {info.since}")
        imports = {**imported.opset_imports, **function.opset_imports}
        return _reader()(imported, self.labels).graph(function, imports, info if inside else None)

    def node(self, info: NodeInfo) -> ir.Node:
        """A node as the imported model has it."""
        if info.source is None:
            self.imported()
        assert info.source is not None
        return info.source


def _reader() -> type[Reader]:
    with put_off(*SYMBOLIC_DIMS):
        from omniop.dispatcher.reader import Reader
    return Reader


def _metadata(model: ir.Model) -> Metadata:
    return Metadata(
        model.producer_name or "",
        model.graph.name or "",
        model.domain or "",
        model.doc_string or "",
        model.graph.doc_string or "",
        model.model_version or 0,
        dict(model.metadata_props),
    )


def _adopt(graph: Graph, again: Graph) -> None:
    """Give nodes that came from the disk their sources back. Both graphs are of one model."""
    for mine, other in zip(graph.nodes, again.nodes, strict=True):
        mine.source = other.source
        for a, b in zip(mine.graphs, other.graphs, strict=True):
            _adopt(a, b)
