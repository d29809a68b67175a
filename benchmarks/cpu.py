"""omniop on the CPU beside its peers: architectures, trained models, and what a call costs.

    python -m benchmarks.cpu                         # everything, 1 and 2 threads; results in build/benchmarks
    python -m benchmarks.cpu -m resnet50 -n 1        # one model, one thread
    python -m benchmarks.cpu -g architectures --quick

Peers are ONNX Runtime and, where it is installed, OpenVINO, in f32 and as it comes: ``pip install omniop[bench]``. They
run in turns (`benchmarks/measure.py`), and their answers are compared with ONNX Runtime's. With one thread the figure
is the process's CPU time, with more it is time on the wall. Results: ``cpu.json``, ``cpu.md`` and ``cpu.svg``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape

from benchmarks.architectures import ARCHITECTURES, models_folder, stored
from benchmarks.engine_process import OMNIOP, OMNIOP_BF16, OMNIOP_ORT, ONNXRUNTIME, OPENVINO, OPENVINO_F32
from benchmarks.measure import Effort, Figures, Task, measure
from benchmarks.tables import Results, chart, markdown
from benchmarks.tiny import CHAINS, chain
from omniop.cli.bar import bar

if TYPE_CHECKING:
    from benchmarks.model_cases import Case

Prepare = Callable[[Path], Task]
_PACKAGES = ("omniop", "numpy", "llvmlite", "onnxruntime", "openvino")
_OUT = Path("build/benchmarks")
PEERS = (ONNXRUNTIME, OPENVINO_F32, OPENVINO)


@dataclass(frozen=True)
class Job:
    """One model; ``prepare(folder)`` may write it there, and raises FileNotFoundError where a package is missing."""

    name: str
    group: str
    prepare: Prepare
    engines: Sequence[str]


def jobs_of(engines: Sequence[str], models: Path) -> list[Job]:
    """All there are; ``models``: where the architectures are kept."""
    return [
        *(Job(name, "architectures", partial(_architecture, name, models), engines) for name in ARCHITECTURES),
        *(Job(case.name, "trained", partial(_trained, case), engines) for case in _cases()),
        *(Job(name, "calls", partial(chain, nodes), [*engines, OMNIOP_ORT]) for name, nodes in CHAINS.items()),
    ]


def _architecture(name: str, models: Path, _: Path) -> Task:
    return Task(name, *stored(name, models))


def _trained(case: Case, folder: Path) -> Task:
    return Task(case.name, *case.prepare(folder), case.close)


def _cases() -> Sequence[Case]:
    """Real models, where what reads their inputs is installed."""
    try:
        from benchmarks.model_cases import CASES
    except ImportError as missing:
        Console(stderr=True).print(f"[yellow]trained models are left out:[/] {escape(str(missing))}")
        return ()
    return CASES


def installed() -> list[str]:
    """Engines, the one to compare with first."""
    peers = [OPENVINO_F32, OPENVINO] if importlib.util.find_spec("openvino") else []
    return [ONNXRUNTIME, *peers, OMNIOP]


def run(
    jobs: Sequence[Job], threads: Sequence[int], effort: Effort, folder: Path, tell: Callable[[str, float], None]
) -> list[Figures]:
    """Figures of all jobs, thread count by thread count."""
    total = sum(effort.steps(len(job.engines)) for job in jobs) * len(threads)
    done = 0
    found: list[Figures] = []
    for count in threads:
        for job in jobs:
            steps = done + effort.steps(len(job.engines))

            def advance(name: str = f"{job.name}, {count_of(count)}") -> None:
                nonlocal done
                done += 1
                tell(name, done / total)

            place, cache = folder / f"{job.name}-{count}", folder / f"{job.name}-{count}-cache"
            place.mkdir()
            cache.mkdir()
            try:
                task = job.prepare(place)
            except FileNotFoundError as missing:
                Console(stderr=True).print(f"[yellow]{job.name} is left out:[/] {escape(str(missing))}")
            else:
                found += measure(task, job.engines, count, effort, cache=cache, advance=advance)
            done = steps
    return found


@dataclass
class _Lines:
    """A line for each model, where no bar can be shown."""

    console: Console
    last: str = ""

    def __call__(self, step: str, done: float) -> None:
        if step != self.last:
            self.console.print(f"{done:4.0%}  {step}")
        self.last = step


def count_of(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def machine() -> dict[str, object]:
    """What the figures depend on."""
    from omniop.backends.cpu.device import fingerprint

    processor = fingerprint()
    preset = {name: value for name, value in os.environ.items() if name.startswith("OPENBLAS_")}
    return {
        "processor": processor.name,
        "cpus": len(os.sched_getaffinity(0)),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": _versions(),
        "openblas": preset,
    }


def _versions() -> Mapping[str, str]:
    found = {d.metadata["Name"]: d.version for d in metadata.distributions() if d.metadata["Name"] in _PACKAGES}
    return {name: found[name] for name in _PACKAGES if name in found}


def main(
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help="One by its name; all by default.")] = None,
    group: Annotated[
        list[str] | None, typer.Option("--group", "-g", help="architectures, trained, calls; all by default.")
    ] = None,
    threads: Annotated[list[int] | None, typer.Option("--threads", "-n", help="1 and 2 by default.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer loads and rounds: rough figures.")] = False,
    out: Annotated[Path, typer.Option("--out", help="A folder for the results.")] = _OUT,
    models: Annotated[Path | None, typer.Option("--models", help="A folder for the architectures.")] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help='Also omniop with precision="bf16".')] = False,
) -> None:
    """Compare omniop with its peers on the CPU. Exits with 1 when omniop fails or is wrong."""
    jobs = jobs_of([*installed(), OMNIOP_BF16] if bf16 else installed(), models or models_folder())
    for given, known in ((model, [j.name for j in jobs]), (group, list(dict.fromkeys(j.group for j in jobs)))):
        if unknown := set(given or ()) - set(known):
            raise SystemExit(f"there is no {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    jobs = [job for job in jobs if (not model or job.name in model) and (not group or job.group in group)]
    effort = Effort(loads=1, rounds=3, seconds=0.1) if quick else Effort(loads=2, rounds=11, seconds=0.2)
    told = Console(stderr=True, highlight=False)
    with tempfile.TemporaryDirectory() as folder, bar("Benchmarks", told) as tell:
        tell = tell if told.is_terminal else _Lines(told)
        figures = run(jobs, threads or [1, 2], effort, Path(folder), tell)
    groups = {job.name: job.group for job in jobs}
    results = Results(machine(), groups, figures)
    out.mkdir(parents=True, exist_ok=True)
    text = markdown(results)
    (out / "cpu.md").write_text(text)
    (out / "cpu.svg").write_text(chart(results))
    whole = {"machine": results.machine, "groups": groups, "figures": [asdict(f) for f in figures]}
    (out / "cpu.json").write_text(json.dumps(whole, indent=1) + "\n")
    console = Console(highlight=False)
    console.print(Markdown(text)) if console.is_terminal else print(text)
    wrong = [(f, why) for f in figures if (why := _trouble(f)) is not None]
    for f, why in wrong:
        told.print(f"[red]{f.model} by {f.engine}, {count_of(f.threads)}:[/] {escape(why)}")
    sys.exit(any(f.engine not in PEERS for f, _ in wrong))


def _trouble(f: Figures) -> str | None:
    """The first line of what an engine failed with, or how wrong its answers are."""
    if f.problem is not None:
        return f.problem.partition("\n")[0]
    return None if f.close else f"its answers are {f.difference:.0e} away from ONNX Runtime's"


if __name__ == "__main__":
    typer.run(main)
