"""Rules: a pattern and the composite node that takes its place."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from omniop.opset.nodes import node_label
from omniop.opset.rewrite.pattern import Binding, Constant, Op, Pattern, constant_tensor, scalar
from omniop.opset.schemas import COMPOSITE_DOMAIN, COMPOSITE_VERSION

REPLACES = "omniop.replaces"
"""The metadata of a node that says for which others it stands."""


@dataclass(frozen=True)
class Applied:
    """One rewriting, for `explain`: the rule, the names of the nodes taken away, the label of what replaced them."""

    rule: str
    nodes: tuple[str, ...]
    into: str = ""


@dataclass(frozen=True)
class Composite:
    """A node of the domain ``omniop`` to be: its operator, inputs and attributes (int, float or str)."""

    op_type: str
    inputs: tuple[ir.Value, ...]
    attributes: Mapping[str, int | float | str] = field(default_factory=dict)


class Match:
    """A pattern found in a graph."""

    def __init__(self, bound: Binding) -> None:
        self.bound = bound

    def __getitem__(self, pattern: Pattern) -> ir.Value:
        return self.bound[pattern]

    def number(self, pattern: Pattern) -> float:
        """The value of a constant of the pattern."""
        result = scalar(self.bound[pattern])
        assert result is not None, "a Constant matches scalars alone"
        return result

    @property
    def nodes(self) -> list[ir.Node]:
        """The nodes matched, in the order of the pattern; constants are not among them."""
        producers = {self.bound[p].producer(): None for p in self.bound if isinstance(p, Op)}
        return [node for node in producers if node is not None]

    def constants_fit(self, value: ir.Value, rank: int = 0) -> bool:
        """Whether broadcasting the matched constants leaves the rank of ``value`` as it is, knowing that this is at
        least ``rank``. (A constant of shape [1] makes a vector of a scalar.)"""
        if value.shape is not None:
            rank = max(rank, len(value.shape))
        constants = (constant_tensor(self.bound[p]) for p in self.bound if isinstance(p, Constant))
        return all(tensor is not None and len(tensor.shape) <= rank for tensor in constants)


@dataclass(frozen=True)
class Rule:
    """``build`` makes the composite of a match, or None when the match does not mean it."""

    name: str
    pattern: Pattern
    build: Callable[[Match], Composite | None]


def apply_rules(graph: ir.Graph, rules: Iterable[Rule]) -> Iterator[Applied]:
    """Apply rules to the nodes of one graph, last node first, so that a rule of a whole goes before one of its part."""
    by_root: dict[str, list[Rule]] = {}
    for rule in rules:
        for root in rule.pattern.roots():
            by_root.setdefault(root, []).append(rule)
    for node in reversed(list(graph)):
        if node.graph is graph and node.domain == "" and node.outputs:
            applied = _apply_first(node, by_root.get(node.op_type, ()))
            if applied is not None:
                yield applied


def _apply_first(root: ir.Node, rules: Iterable[Rule]) -> Applied | None:
    for rule in rules:
        for bound in rule.pattern.match(root.outputs[0], {}):
            match = Match(bound)
            if _is_private(match.nodes, root):
                composite = rule.build(match)
                if composite is not None:
                    return _replace(rule, root, match, composite)
    return None


def _is_private(nodes: list[ir.Node], root: ir.Node) -> bool:
    """Whether nobody outside of the match sees what its inner nodes compute."""
    members = set(nodes)
    inner = members - {root}
    return all(
        node.graph is root.graph
        and not any(v.is_graph_output() for v in node.outputs)
        and all(use.node in members for v in node.outputs for use in v.uses())
        for node in inner
    )


def _replace(rule: Rule, root: ir.Node, match: Match, composite: Composite) -> Applied:
    graph = root.graph
    assert graph is not None
    names = tuple(name for node in match.nodes for name in replaced_names(node))
    old = root.outputs[0]
    new = ir.Node(
        COMPOSITE_DOMAIN,
        composite.op_type,
        composite.inputs,
        ir.convenience.convert_attributes(composite.attributes),
        name=root.name,
        metadata_props={REPLACES: json.dumps(names)},
    )
    ir.convenience.replace_nodes_and_values(graph, root, match.nodes, [new], [old], new.outputs)
    return Applied(rule.name, names, node_label(new))


def import_composites(scope: ir.Graph | ir.Function) -> None:
    """Give a graph or function the opset import that composite nodes in it need."""
    scope.opset_imports[COMPOSITE_DOMAIN] = COMPOSITE_VERSION


def replaced_names(node: ir.Node) -> tuple[str, ...]:
    """The names, in the model as it came, of the nodes that a node stands for: its own unless it is a composite."""
    recorded = node.metadata_props.get(REPLACES)
    return tuple(json.loads(recorded)) if recorded else (display_name(node),)


def display_name(node: ir.Node) -> str:
    """A node's name, or its label where it has none."""
    return node.name or node_label(node)
