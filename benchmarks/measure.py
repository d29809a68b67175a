"""Engines on one model in turns: from loading to the first result, and each run after it.

Every engine loads the model in processes of its own, some times over, after one that fills the caches on disk; then all
of them run it in turns, so that a slow moment of the machine meets all of them. The figures are medians.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.engine_process import OMNIOP_BF16, OPENVINO, EngineFailed, EngineProcess, Loaded, Timing

Feeds = Mapping[str, np.ndarray]

_ROUNDED = {OPENVINO: 0.2, OMNIOP_BF16: 0.2}
"""How far apart engines may be that compute in less than f32."""


@dataclass
class Figures:
    """One engine on one model with so many threads; times in seconds."""

    model: str
    engine: str
    threads: int
    ready: float = 0.0
    created: float = 0.0
    first: float = 0.0
    cold: float = 0.0
    """As ``first``, when nothing was in the engine's caches."""
    peak: int = 0
    """Bytes, up to the first outputs."""
    run: float = 0.0
    cpu: float = 0.0
    """Of a run, summed over threads."""
    runs: int = 0
    difference: float = 0.0
    """The largest from ONNX Runtime's outputs, as a part of each output's largest value."""
    close: bool = True
    problem: str | None = None


@dataclass(frozen=True)
class Effort:
    """``loads``: fresh sessions of each engine after a first one; ``rounds``: turns of each; ``seconds``: of a turn."""

    loads: int = 3
    rounds: int = 5
    seconds: float = 0.3

    def steps(self, engines: int) -> int:
        """That `measure` tells of."""
        return engines * (1 + self.loads + self.rounds)


@dataclass(frozen=True)
class Task:
    """A model in a file and what it is fed; ``close``: the largest difference that rounding explains."""

    model: str
    path: Path
    feeds: Feeds
    close: float = 1e-3


@dataclass
class _Turns:
    """What was measured of one engine so far."""

    figures: Figures
    loads: list[Loaded] = field(default_factory=list)
    times: list[Timing] = field(default_factory=list)


def measure(
    task: Task,
    engines: Sequence[str],
    threads: int,
    effort: Effort,
    *,
    cache: Path | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[Figures]:
    """Figures of every engine, in order; the first one's outputs are what the others' are compared with.

    ``cache``: an empty folder for omniop's caches, so that the first load is a cold one; by default the user's.
    ``advance`` is called after each load and each turn.
    """
    turns = {engine: _Turns(Figures(task.model, engine, threads)) for engine in engines}
    environment = {} if cache is None else {"OMNIOP_CACHE_DIR": str(cache)}

    def process(engine: str) -> EngineProcess:
        return EngineProcess(engine, task.path, task.feeds, threads, environment)

    for k in range(effort.loads):
        for engine, turn in turns.items():
            with _watched(turn, advance) as going:
                if going:
                    with process(engine) as loading:
                        _keep(turn, loading.loaded(), first=k == 0)
    with ExitStack() as stack:
        running: dict[str, EngineProcess] = {}
        for engine, turn in turns.items():
            with _watched(turn, advance) as going:
                if going:
                    running[engine] = stack.enter_context(process(engine))
                    turn.loads.append(running[engine].loaded())
        for _ in range(effort.rounds):
            for engine, turn in turns.items():
                with _watched(turn, advance) as going:
                    if going:
                        turn.times += running[engine].run(effort.seconds)
    _summarise(task, list(turns.values()))
    return [turn.figures for turn in turns.values()]


@contextmanager
def _watched(turn: _Turns, advance: Callable[[], None]) -> Iterator[bool]:
    """Whether the engine is still there: one that fails is told in the table, and left out from there on."""
    try:
        yield turn.figures.problem is None
    except EngineFailed as error:
        turn.figures.problem = str(error)
    finally:
        advance()


def _keep(turn: _Turns, loaded: Loaded, *, first: bool) -> None:
    if first:
        turn.figures.cold = loaded.first
    else:
        turn.loads.append(loaded)


def _summarise(task: Task, turns: Sequence[_Turns]) -> None:
    expected = turns[0].loads[-1].outputs if turns[0].figures.problem is None else {}
    for turn in turns:
        figures = turn.figures
        if figures.problem is not None:
            continue
        figures.ready = statistics.median(loaded.ready for loaded in turn.loads)
        figures.created = statistics.median(loaded.created for loaded in turn.loads)
        figures.first = statistics.median(loaded.first for loaded in turn.loads)
        figures.peak = max(loaded.peak for loaded in turn.loads)
        figures.run = statistics.median(timing.wall for timing in turn.times)
        figures.cpu = statistics.median(timing.cpu for timing in turn.times)
        figures.runs = len(turn.times)
        figures.difference = difference(turn.loads[-1].outputs, expected)
        figures.close = figures.difference <= max(task.close, _ROUNDED.get(figures.engine, 0.0))


def difference(outputs: Feeds, expected: Feeds) -> float:
    """The largest difference of any output, as a part of its largest value; infinite where a shape or NaN differs."""
    worst = 0.0
    for name, value in expected.items():
        if outputs[name].shape != value.shape or (np.isnan(outputs[name]) != np.isnan(value)).any():
            return float("inf")
        largest = np.nanmax(np.abs(value), initial=0.0)
        apart = np.nanmax(np.abs(outputs[name].astype(np.float64) - value), initial=0.0)
        worst = max(worst, float(apart / max(largest, np.finfo(np.float32).tiny)))
    return worst
