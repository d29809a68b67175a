"""What a session did and why: decisions, kernels, copies, memory, as text and JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from omniop.dispatcher.execute import GraphRunner
from omniop.dispatcher.placement import Decision
from omniop.dispatcher.plan import AnyStep, BaseStep, CopyStep, RepeatStep
from omniop.dispatcher.template import Template

if TYPE_CHECKING:
    from omniop.dispatcher.session import Session


@dataclass
class NodeReport:
    """One node of the model: its device and route, and what was rejected."""

    node: str
    op: str
    device: str
    route: str
    rejected: list[dict[str, str]]


@dataclass
class StepReport:
    """One step of a program: a kernel, call, relayout, copy or repeat, with the nodes it computes."""

    kind: str
    device: str
    what: str
    nodes: list[str]


@dataclass
class TemplateReport:
    """One segment's template."""

    steps: list[StepReport]
    constant_steps: int
    slots: int
    guards: list[str]
    bindings: int
    ends: str


@dataclass
class Explanation:
    """Prints as text; `json` for machines."""

    devices: list[str]
    rewrites: list[str]
    nodes: list[NodeReport] = field(default_factory=list)
    templates: list[TemplateReport] = field(default_factory=list)
    copied_bytes: int = 0
    """In the last run."""

    def kernels(self) -> list[StepReport]:
        """Launches of all templates, in order."""
        return [s for t in self.templates for s in t.steps if s.kind in ("kernel", "call", "relayout")]

    def copies(self) -> list[StepReport]:
        return [s for t in self.templates for s in t.steps if s.kind == "copy"]

    def json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    def __str__(self) -> str:
        lines = [f"devices: {', '.join(self.devices)}"]
        lines += [f"rewritten: {r}" for r in self.rewrites]
        width = max((len(n.node) for n in self.nodes), default=0)
        lines.append(f"\nnodes ({len(self.nodes)}):")
        for n in self.nodes:
            lines.append(f"  {n.node:<{min(width, 48)}}  {n.device:<10} {n.route}")
            lines += [f"      not {r['candidate']}: {r['reason']}" for r in n.rejected]
        for k, t in enumerate(self.templates):
            lines.append(
                f"\ntemplate {k}: {len(t.steps)} steps, {t.constant_steps} computed at load, {t.slots} slots, "
                f"{t.bindings} bindings, ends with {t.ends}"
            )
            lines += [f"  {s.kind:<8} {s.device:<10} {s.what[:100]}  <- {', '.join(s.nodes[:4])}" for s in t.steps]
            lines += [f"  guard: {g}" for g in t.guards]
        lines.append(f"\ncopied between devices in the last run: {self.copied_bytes} bytes")
        return "\n".join(lines)


def templates_of(runner: GraphRunner) -> Iterator[Template]:
    """Templates of a graph, of its bodies and of functions run as graphs."""
    for made in runner.templates.values():
        yield from made
    for inner in (*runner.bodies.values(), *runner.functions.values()):
        yield from templates_of(inner)


def decisions_of(runner: GraphRunner) -> dict[int, Decision]:
    """The latest decision on each node that was reached, by the node's number."""
    found = dict(runner.host_decisions)
    for made in runner.templates.values():
        for template in made:
            found.update(template.decisions)
    for inner in (*runner.bodies.values(), *runner.functions.values()):
        found = {**decisions_of(inner), **found}
    return found


def explain(session: Session) -> Explanation:
    """The session so far. Before the first run there is nothing placed yet."""
    labels = session.model_labels
    counted = Counter(r.rule for r in session.rewrites)
    result = Explanation([d.name for d in session.devices], [f"{rule}, {n} times" for rule, n in counted.items()])
    for template in templates_of(session.runner):
        result.templates.append(_template(template, labels.names))
    for _, d in sorted(decisions_of(session.runner).items()):
        rejected = [{"candidate": who, "code": why.code, "reason": str(why)} for who, why in d.rejected]
        result.nodes.append(NodeReport(d.label, d.op, d.device, d.route, rejected))
    result.copied_bytes = session.last_report.copied_bytes
    return result


def _template(template: Template, names: list[str]) -> TemplateReport:
    steps = [_step(s, names) for s in template.steps if not any(s is f for f in template.folded)]
    guards = [f"{g!r} is {expected}" for g, expected in template.conditions]
    ends = {"end": "the graph's outputs", "read": "a read-back", "host": "a host step"}[template.cut.kind]
    return TemplateReport(steps, len(template.folded), len(template.slots), guards, len(template.bindings), ends)


def _step(step: AnyStep, names: list[str]) -> StepReport:
    nodes = [names[o] for o in sorted(step.origins) if o >= 0]
    if isinstance(step, CopyStep):
        return StepReport("copy", step.device.name, "from another device", nodes)
    if isinstance(step, BaseStep):
        return StepReport("base", step.device.name, "copy of a scatter's data", nodes)
    if isinstance(step, RepeatStep):
        return StepReport("repeat", step.device.name, f"{len(step.body)} steps, {step.definition.count} times", nodes)
    return StepReport(step.kind, step.device.name, step.work.describe(), nodes)
