"""A grid of tiles as `llvm_tile_grid` wants it, for one set of sizes, and the launch of one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from omniop.backends.array_eval import size_names
from omniop.backends.codegen.llvm_tile_grid import ENTRY, Field, PanelWord, TaskWord, TileWord, print_tile_grid
from omniop.backends.codegen.llvm_tiles import TileStore
from omniop.backends.cpu import jit
from omniop.backends.cpu.blocked.stores import arguments
from omniop.backends.cpu.kept import Later
from omniop.backends.cpu.program import RecordedWork
from omniop.backends.cpu.recording import Context, Record, Recording
from omniop.opset import expr
from omniop.opset.kernel import Call


@cache
def tile_grid() -> jit.MachineCode:
    """The compiled function; see `llvm_tile_grid`."""
    return jit.build_printed(ENTRY, print_tile_grid)


@dataclass
class Frame:
    """See `Field` and `TaskWord`; ``line`` and ``lines``: of a frame."""

    planes: int
    plane: int
    image_line: int
    height: int
    line: int
    lines: int

    @property
    def scratch(self) -> int:
        """Bytes."""
        return self.planes * self.lines * self.line * 4


@dataclass
class Grid:
    """``tasks``, ``tiles``, ``panels``, ``taps``: a line of words each. ``functions``: for each kind of panel, those
    that tiles name by number; ``stored``: what they store. ``line``: `Field.LINE`. ``weight``: nanoseconds of a task.
    ``askers``: `Field.ASKERS`."""

    tasks: np.ndarray
    tiles: np.ndarray
    panels: np.ndarray
    taps: np.ndarray
    functions: Sequence[Sequence[jit.MachineCode]]
    stored: TileStore
    line: int
    weight: float
    frame: Frame | None = None
    askers: int = 0

    def context(self, x: int, w: int, sizes: Sequence[int]) -> Context:
        """``x``, ``w``: the operands' buffers."""
        tables = [np.ascontiguousarray(t, np.int64) for t in (self.tasks, self.tiles, self.panels, self.taps)]
        code = [f for kind in self.functions for f in kind]
        functions = np.array([f.address for f in code], np.int64)
        numbers = arguments(self.stored, sizes)
        context = np.zeros(len(Field), np.int64)
        context[[Field.X_BUFFER, Field.W_BUFFER, Field.SIZES]] = x, w, numbers.ctypes.data
        context[[Field.TASKS, Field.TILES, Field.PANELS, Field.TAPS]] = [t.ctypes.data for t in tables]
        context[[Field.FUNCTIONS, Field.FUNCTION_COUNT]] = functions.ctypes.data, len(self.functions[0])
        context[[Field.LINE, Field.ASKERS]] = self.line, self.askers
        if self.frame is not None:
            frame = self.frame
            context[[Field.FRAMED, Field.PLANES, Field.PLANE]] = 1, frame.planes, frame.plane
            context[[Field.IMAGE_LINE, Field.HEIGHT]] = frame.image_line, frame.height
            context[[Field.FRAME_PLANE, Field.FRAME_LINE]] = frame.lines * frame.line, frame.line
        return Context(context, (*tables, functions, numbers, *code))


def table(words: type[TaskWord] | type[TileWord] | type[PanelWord], lines: Sequence[Mapping[Any, int]]) -> np.ndarray:
    """Words that are not named are 0."""
    result = np.zeros((len(lines), len(words)), np.int64)
    for k, line in enumerate(lines):
        result[k, list(line)] = list(line.values())
    return result


def in_two_dims(shape: tuple[int, ...]) -> tuple[int, ...]:
    """``[N, C, W]`` as ``[N, C, 1, W]``."""
    return shape if len(shape) == 4 else (*shape[:2], 1, shape[2])


def parts(total: int, most: int) -> list[tuple[int, int]]:
    """(start, count) of about equal parts of at most ``most``."""
    number = -(-total // most)
    bounds = [total * k // number for k in range(number + 1)]
    return [(a, b - a) for a, b in itertools.pairwise(bounds)]


class GridCall(RecordedWork):
    """A call whose work is a grid of tiles; ``plan(shapes, result)`` gives it for the shapes of operands and result."""

    def __init__(self, call: Call, plan: Callable[[Sequence[tuple[int, ...]], tuple[int, ...]], Grid]) -> None:
        super().__init__()
        self._call = Later.of(call)
        self._plan = Later.of(plan)

    def record(self, sizes: tuple[int, ...]) -> Recording:
        call, names = self._call(), size_names(sizes)
        views = [*call.operands, call.results[0]]
        *shapes, result = [tuple(expr.evaluate(d, names) for d in v.shape) for v in views]
        grid = self._plan()(shapes, result)
        context = grid.context(views[0].buffer, views[-2].buffer, sizes)
        scratch = 0 if grid.frame is None else grid.frame.scratch
        return Recording((Record(tile_grid(), context, len(grid.tasks), weight=grid.weight, scratch=scratch),))
