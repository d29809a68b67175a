"""Programs: a template's ops made ready for one binding, so that a run only has to go through them.

Launches that follow each other on one device become one stage, which the device may run without coming back to Python.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from omniop.backends.base import Buffer, Device, Launched, LaunchError
from omniop.dispatcher.graph import Labels
from omniop.dispatcher.result import Binding
from omniop.dispatcher.template import Launch, Loop, Op, Template, Transfer
from omniop.opset.errors import DeviceError

MAX_KEPT_TURNS = 64
"""Of a loop, whose body is kept ready."""


@dataclass(eq=False, repr=False)
class RunReport:
    """What one run did beyond launching: for fallback messages and tests."""

    copied_bytes: int = 0
    read_backs: int = 0
    templates_made: int = 0
    bind_seconds: float = 0.0
    segments: list[tuple[Template, Binding]] = field(default_factory=list)
    """In the order in which they ran."""
    host_elements: int = 0
    """Of the arrays that host steps gave."""


Stage = Callable[[list[Buffer], RunReport], None]
"""Works on a run's table of buffers."""


def stages_of(
    ops: Sequence[Op], numbers: Sequence[int], symbols: tuple[int, ...], labels: Labels, threads: int | None
) -> list[Stage]:
    """The ops with their numbers filled in. ``threads``: see `Device.sequence`."""
    stages: list[Stage] = []
    for device, group in groupby(ops, lambda op: op.device if isinstance(op, Launch) else None):
        if device is not None:
            stages.append(Launches(device, [op for op in group if isinstance(op, Launch)], numbers, labels, threads))
            continue
        for op in group:
            if isinstance(op, Transfer):
                stages.append(_Move(op, numbers[op.bytes]))
            elif isinstance(op, Loop):
                stages.append(_Turns(op, numbers, symbols, labels, threads))
    return stages


class Launches:
    """A stage of launches that one device runs. Raises DeviceError naming the node that memory ran out for."""

    def __init__(
        self, device: Device, launches: Sequence[Launch], numbers: Sequence[int], labels: Labels, threads: int | None
    ) -> None:
        self.device = device
        self.labels = labels
        self.origins = [x.origin for x in launches]
        self.run = device.sequence(
            [Launched(x.built.run, x.buffers, tuple(numbers[x.sizes])) for x in launches], threads
        )

    def __call__(self, table: list[Buffer], report: RunReport) -> None:
        try:
            self.run(table)
        except LaunchError as error:
            node = self.labels.name(self.origins[error.position])
            raise DeviceError(f"{node}: {self.device.name} has no memory left: {error}") from error


class _Move:
    def __init__(self, op: Transfer, nbytes: int) -> None:
        self.op = op
        self.nbytes = nbytes

    def __call__(self, table: list[Buffer], report: RunReport) -> None:
        op = self.op
        if op.source_device is op.target_device:
            op.source_device.copy(table[op.target], table[op.source], self.nbytes)
            return
        staging = np.empty(self.nbytes, np.uint8)
        op.source_device.d2h(staging, table[op.source])
        op.target_device.h2d(table[op.target], staging)
        report.copied_bytes += self.nbytes


class _Turns:
    """A loop: what comes before it, then its body as often as it says, with numbers that depend on the turn."""

    def __init__(
        self, op: Loop, numbers: Sequence[int], symbols: tuple[int, ...], labels: Labels, threads: int | None
    ) -> None:
        self.op = op
        self.count = numbers[op.count]
        self.symbols = symbols
        self.labels = labels
        self.threads = threads
        self.before = stages_of(op.before, numbers, symbols, labels, threads)
        self.kept: dict[int, list[Stage]] = {}

    def __call__(self, table: list[Buffer], report: RunReport) -> None:
        for stage in self.before:
            stage(table, report)
        for turn in range(self.count):
            for stage in self.kept.get(turn) or self._turn(turn):
                stage(table, report)

    def _turn(self, turn: int) -> list[Stage]:
        step = self.count - 1 - turn if self.op.reverse else turn
        made = stages_of(self.op.body, self.op.numbers((*self.symbols, step)), self.symbols, self.labels, self.threads)
        if turn < MAX_KEPT_TURNS:
            self.kept[turn] = made
        return made
