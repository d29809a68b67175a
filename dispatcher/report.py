"""What a session did and why: decisions, kernels, copies, memory, as text and JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from omniop.dispatcher.execute import GraphRunner
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
    threads: dict[str, int] = field(default_factory=dict)
    """How many of the host's a run may keep busy, for devices that are made of them."""
    nodes: list[NodeReport] = field(default_factory=list)
    templates: list[TemplateReport] = field(default_factory=list)
    copied_bytes: int = 0
    """In the last run."""
    tensor_work: dict[str, int] = field(default_factory=dict)
    """Scalars that the last run computed, by device: see `tensor_work.tensor_work`. Under "host": the elements that
    host steps gave."""

    def kernels(self) -> list[StepReport]:
        """Launches of all templates, in order."""
        return [s for t in self.templates for s in t.steps if s.kind in ("kernel", "call", "relayout")]

    def copies(self) -> list[StepReport]:
        return [s for t in self.templates for s in t.steps if s.kind == "copy"]

    def share(self, *devices: str) -> float:
        """The part of the last run's tensor work that these devices did, 0 .. 1; the session's devices by default."""
        total = sum(self.tensor_work.values())
        return sum(self.tensor_work.get(name, 0) for name in devices or self.devices) / total if total else 1.0

    def json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    def __str__(self) -> str:
        threads = {name: f" ({n} thread{'s' * (n > 1)})" for name, n in self.threads.items()}
        lines = [f"devices: {', '.join(name + threads.get(name, '') for name in self.devices)}"]
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
        work = ", ".join(f"{name} {self.share(name):.1%}" for name in self.tensor_work)
        lines.append(f"\nthe last run: tensor work {work or 'none'}; {self.copied_bytes} bytes copied between devices")
        return "\n".join(lines)


def templates_of(runner: GraphRunner) -> Iterator[Template]:
    """Templates of a graph, of its bodies and of functions run as graphs, as far as they ran."""
    for made in runner.templates.values():
        yield from (template for template in made if template.ran)
    for inner in (*runner.bodies.values(), *runner.functions.values()):
        yield from templates_of(inner)


def explain(session: Session) -> Explanation:
    """The session so far, a node as it was in the last run that met it. Before the first run nothing is placed yet."""
    labels = session.model.labels
    counted = Counter(session.model.rewrites)
    result = Explanation([d.name for d in session.devices], [f"{rule}, {n} times" for rule, n in counted.items()])
    result.threads = {d.name: session.threads or d.threads for d in session.devices if d.threads}
    for template in templates_of(session.runner):
        result.templates.append(_template(template, labels.names))
    decisions = session.runner.decisions()
    for ran, _ in session.last_report.segments:
        decisions.update(ran.decisions)
    for _, d in sorted(decisions.items()):
        rejected = [{"candidate": who, "code": why.code, "reason": str(why)} for who, why in d.rejected]
        result.nodes.append(NodeReport(d.label, d.op, d.device, d.route, rejected))
    result.copied_bytes = session.last_report.copied_bytes
    work = Counter({"host": session.last_report.host_elements})
    for ran, binding in session.last_report.segments:
        work.update(dict(zip(ran.summary.devices, ran.summary.tensor_work(binding.symbols), strict=True)))
    result.tensor_work = {name: n for name, n in work.most_common() if n}
    return result


def _template(template: Template, names: list[str]) -> TemplateReport:
    note = template.summary
    steps = [StepReport(s.kind, s.device, s.what, [names[o] for o in s.origins]) for s in note.steps]
    ends = {"end": "the graph's outputs", "read": "a read-back", "host": "a host step"}[template.cut.kind]
    return TemplateReport(steps, note.constant_steps, len(template.slots), note.guards, len(template.bindings), ends)
