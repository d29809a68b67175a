"""Where omniop's time goes: each launch of a model on its own, the longest first.

    python -m benchmarks.launches resnet50
    python -m benchmarks.launches path/to/model.onnx --device opencl -n 20

A launch is timed by the process's CPU clock. What runs without coming back to Python in a session is called here one by
one, so that the sum is a little more than a run.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import omniop
from benchmarks.architectures import ARCHITECTURES, models_folder, stored
from omniop.backends.base import Buffer, Device, Launched, Sequenced
from omniop.cli.inputs import feeds_of
from omniop.dispatcher.precision import Precision
from omniop.dispatcher.registry import registry
from omniop.dispatcher.report import StepReport
from omniop.dispatcher.template import Launch
from omniop.opset.expr_text import format_expr
from omniop.opset.kernel import Call, Work


@dataclass
class _Clock:
    """Stands in for a device's `sequence`: times each launch of each run."""

    device: Device
    times: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By the launch's place in a run."""
    count: int = 0

    def sequence(self, launches: Sequence[Launched], threads: int | None = None) -> Sequenced:
        first = self.count
        self.count += len(launches)

        def run(table: Sequence[Buffer]) -> None:
            for number, (launch, buffers, sizes) in enumerate(launches, first):
                start = time.process_time()
                launch([table[k] for k in buffers], sizes)
                self.device.sync()
                self.times[number].append(time.process_time() - start)

        return run


@dataclass(frozen=True)
class Spent:
    """Launches of equal work for nodes of the same operators; seconds of a run, in all of them."""

    seconds: float
    launches: int
    kind: str
    operators: str
    shapes: str
    operations: int
    """Multiplications and additions of a structured call's launches, as its definition has them; 0 where the operands
    do not tell: a kernel that wants its filters transformed does others."""


@dataclass(frozen=True)
class Profile:
    """``planned``: seconds from loading to the end of the first run; ``run``: of a run as a session does it."""

    planned: float
    run: float
    launches: int
    spent: list[Spent]


def profile(
    path: Path, feeds: Mapping[str, np.ndarray], device: str, runs: int, precision: Precision | None = None
) -> Profile:
    """Of a model that is one segment without loops; raises ValueError for others."""
    found = registry().device(device)
    start = time.perf_counter()
    session = omniop.load(path, device=device, threads=1, fallback="error", precision=precision)
    session.run(feeds)
    planned = time.perf_counter() - start
    run = statistics.median(_cpu(lambda: session.run(feeds)) for _ in range(runs))
    clock = _Clock(found)
    found.sequence = clock.sequence  # type: ignore[method-assign]
    try:
        session = omniop.load(path, device=device, threads=1, fallback="error", precision=precision)
        for _ in range(runs + 1):
            session.run(feeds)
    finally:
        del found.sequence
    (template, _), *more = session.last_report.segments
    launches = [op for op in template.ops if isinstance(op, Launch)]
    steps = session.explain().kernels()
    if more or not len(launches) == len(steps) == len(clock.times):
        raise ValueError(f"{path} is more than one segment, or has loops: its launches cannot be told apart")
    operators = {node.node: node.op for node in session.explain().nodes}
    together: defaultdict[tuple[Work, str], list[tuple[float, StepReport]]] = defaultdict(list)
    for number, (launch, step) in enumerate(zip(launches, steps, strict=True)):
        names = " ".join(operators.get(name, name).rpartition(".")[2] for name in step.nodes)
        together[launch.built.work, names].append((statistics.median(clock.times[number][1:]), step))
    spent = [
        Spent(
            sum(seconds for seconds, _ in group),
            len(group),
            group[0][1].kind,
            names,
            _shapes(work, found),
            _operations(work, found) * len(group),
        )
        for (work, names), group in together.items()
    ]
    return Profile(planned, run, len(steps), sorted(spent, key=lambda s: -s.seconds))


def _cpu(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def _prim(call: Call, device: Device) -> str:
    """What a call computes, by a tuned kernel or taken whole."""
    return call.prim if call.tuned is None else device.kernels.named(call.tuned).op


def _shapes(work: Work, device: Device) -> str:
    """Of a call's operands, of a kernel's axes."""
    if isinstance(work, Call):
        views = (*work.operands, *work.results)
        shapes = [f"[{'x'.join(format_expr(extent) for extent in view.shape)}]" for view in views]
        by = "" if work.tuned is None else f" by {work.tuned}"
        return f"{_prim(work, device)} {' '.join(shapes)}{by}"
    return "kernel over " + " x ".join(format_expr(axis.args[0]) for axis in work.axes)


def _operations(work: Work, device: Device) -> int:
    """Of a product or a convolution of known shapes whose operands are as the prim has them; else 0."""
    if not isinstance(work, Call) or (prim := _prim(work, device)) not in ("contract", "conv"):
        return 0
    if work.tuned is not None and device.kernels.named(work.tuned).prepared:
        return 0
    shapes = [
        [extent.attr if extent.op == "const" else 0 for extent in v.shape] for v in (*work.operands, *work.results)
    ]
    terms = shapes[0][-1] if prim == "contract" else math.prod(shapes[1][1:])
    return 2 * math.prod(shapes[-1]) * terms


_COLUMNS: tuple[tuple[str, Literal["left", "right"]], ...] = (
    *(("ms", "right"), ("%", "right"), ("GFLOP/s", "right"), ("", "right")),
    *(("what", "left"), ("operators", "left")),
)


def table(title: str, found: Profile, rows: int) -> Table:
    """The longest ``rows``."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    for column, justify in _COLUMNS:
        made.add_column(column, justify=justify, no_wrap=column != "operators")
    total = sum(s.seconds for s in found.spent)
    for s in found.spent[:rows]:
        share = f"{s.seconds / total:.0%}"
        speed = f"{s.operations / s.seconds / 1e9:.1f}" if s.operations else ""
        made.add_row(f"{s.seconds * 1e3:.2f}", share, speed, f"{s.launches} x", escape(s.shapes), escape(s.operators))
    return made


def main(
    model: Annotated[list[str], typer.Argument(help="An architecture by its name, or the path of a model.")],
    device: Annotated[str, typer.Option("--device", "-d", help="One of omniop's.")] = "cpu",
    rows: Annotated[int, typer.Option("-n", min=1, help="Of the table.")] = 12,
    runs: Annotated[int, typer.Option(min=1, help="Of the model; figures are medians.")] = 5,
    models: Annotated[Path | None, typer.Option(help="Where the architectures are kept.")] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help='With precision="bf16".')] = False,
) -> None:
    """Tell where the time of models goes."""
    out = Console(highlight=False)
    if not out.is_terminal:
        out.width = 160
    for name in model:
        path, feeds = _given(name, models or models_folder())
        found = profile(path, feeds, device, runs, "bf16" if bf16 else None)
        title = (
            f"{name} on {device}: {found.run * 1e3:.1f} ms a run, {found.launches} launches, "
            f"first result after {found.planned:.1f} s"
        )
        out.print(table(title, found, rows), "")


def _given(name: str, folder: Path) -> tuple[Path, Mapping[str, np.ndarray]]:
    if name in ARCHITECTURES:
        return stored(name, folder)
    if not Path(name).exists():
        raise SystemExit(f"no file and no architecture {name}; there are: {', '.join(ARCHITECTURES)}")
    return Path(name), feeds_of(omniop.load(name).inputs, {}, {}, random=True, seed=0)


if __name__ == "__main__":
    typer.run(main)
