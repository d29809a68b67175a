"""What it costs to share work among threads: ``python -m benchmarks.fork_join -n 2``.

A job of the cpu's worker team computes some exponentials. Jobs without work show what handing out and meeting again
cost, those with work how much faster several threads are, and jobs after a pause how long sleepers take to wake. The
figures are of a clock on the wall: they mean something on a machine that has nothing else to do.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from omniop.backends.cpu import jit
from omniop.backends.cpu.memory import HostBuffer
from omniop.backends.cpu.program import Program, Recorded
from omniop.backends.cpu.recording import TASK, TASKS_PER_THREAD, Context, Record, Recording
from omniop.opset import expr
from omniop.opset.dtype import FLOAT32
from omniop.opset.kernel import Kernel, Param, Store

WORK = (0, 20, 50, 100, 500, 2000)
"""Microseconds of a job on one thread."""
JOBS = 200
"""Of a program, at most, and of ..."""
SECONDS = 0.02
"""... work."""
PAUSE = 0.02
"""Seconds after which workers sleep."""


@dataclass(frozen=True)
class Work:
    """``y[i] = exp(exp(...x[i]))``, in tasks of equal size."""

    kernel: jit.CompiledKernel
    speed: float
    """Points in a microsecond, on one thread."""
    buffers: tuple[HostBuffer, HostBuffer]

    @classmethod
    def of(cls, longest: float) -> Work:
        """``longest``: microseconds of the longest job."""
        i = expr.axis(0, expr.size("s0"))
        value = expr.load(0, (i,), FLOAT32)
        for _ in range(4):
            value = expr.alu("exp", value * 0.5)
        params = (Param(FLOAT32), Param(FLOAT32, True))
        (kernel,) = jit.build([Kernel(params, (i,), (Store(1, i, value),), 1)])
        speed = 1.0
        while True:
            points = int(speed * longest) + 1
            buffers = (HostBuffer(4 * points), HostBuffer(4 * points))
            buffers[0].typed(FLOAT32)[:] = np.linspace(-1, 1, points, dtype=np.float32)
            made = cls(kernel, speed, buffers)
            taken = min(made.job(longest, 1, 1) for _ in range(5))
            if taken > longest / 2:
                return cls(kernel, points / taken, buffers)
            speed *= 2

    def job(self, microseconds: float, threads: int, jobs: int) -> float:
        """What one of so many in a row takes, in microseconds."""
        return self._timed(self._program(microseconds, threads, jobs)) / jobs

    def after_pause(self, microseconds: float, threads: int) -> float:
        """The same for one whose workers sleep."""
        program = self._program(microseconds, threads, 1)
        time.sleep(PAUSE)
        return self._timed(program)

    def _timed(self, program: Program) -> float:
        start = time.perf_counter()
        program(self.buffers)
        return (time.perf_counter() - start) * 1e6

    def _program(self, microseconds: float, threads: int, jobs: int) -> Program:
        least = threads * TASKS_PER_THREAD * self.kernel.grain
        points = min(max(least, int(self.speed * microseconds)), len(self.buffers[0]) // 4)
        sizes = Context(np.array([points], np.int64))
        weight = 2 * TASK / self.kernel.grain  # every grain is worth a task
        record = Record(self.kernel.code, sizes, points, self.kernel.grain, weight)
        return Program([Recorded((0, 1), Recording((record,)))] * jobs, threads)


def main(
    threads: Annotated[list[int] | None, typer.Option("--threads", "-n", min=2, help="2 by default.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Figures are medians of so many.")] = 30,
) -> None:
    """Measure jobs of several lengths on one thread and on several."""
    out = Console(highlight=False)
    work = Work.of(max(WORK))
    for count in threads or [2]:
        table = Table("us of work", "1 thread", f"{count} threads", "times as fast", "after a pause", box=None)
        for length in WORK:
            jobs = max(1, min(JOBS, int(SECONDS * 1e6 / max(1, length))))
            alone, together, woken = [], [], []
            for _ in range(rounds):
                alone.append(work.job(length, 1, jobs))
                together.append(work.job(length, count, jobs))
            for _ in range(min(rounds, 10)):
                woken.append(work.after_pause(length, count))
            one, many, late = map(statistics.median, (alone, together, woken))
            table.add_row(f"{length}", f"{one:.2f}", f"{many:.2f}", f"{one / many:.2f}", f"{late:.1f}")
        out.print(table, "")


if __name__ == "__main__":
    typer.run(main)
