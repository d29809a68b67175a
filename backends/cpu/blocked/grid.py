"""A grid of tiles as `llvm_tile_grid` wants it, for one set of sizes, and the launch of one."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from omniop.backends.array_eval import size_names
from omniop.backends.codegen.llvm_tile_grid import ENTRY, Field, PanelWord, TaskWord, TileWord, print_tile_grid
from omniop.backends.codegen.llvm_tiles import NUMBERS, POINTERS
from omniop.backends.cpu import jit
from omniop.backends.cpu.products import ARGUMENTS
from omniop.backends.cpu.program import RecordedWork
from omniop.backends.cpu.recording import Record, Recording
from omniop.opset import expr
from omniop.opset.kernel import Call

TILE_ARGUMENTS = (*(ctypes.c_void_p,) * len(POINTERS), *(ctypes.c_int64,) * len(NUMBERS))
"""Of a tile's function."""


@cache
def tile_grid() -> Callable[..., None]:
    """The compiled function; see `llvm_tile_grid`."""
    return jit.build_printed(ENTRY, print_tile_grid, ARGUMENTS)


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
    """``tasks``, ``tiles``, ``panels``: a line of words each. ``functions``: for each kind of panel those that tiles
    name by number. ``line``: `Field.LINE`. ``weight``: nanoseconds of a task. ``kept``: tables
    that tiles point to."""

    tasks: np.ndarray
    tiles: np.ndarray
    panels: np.ndarray
    functions: Sequence[Sequence[Any]]
    line: int
    weight: float
    frame: Frame | None = None
    kept: list[object] = field(default_factory=list)

    def context(self, x: int, w: int, sizes: Sequence[int]) -> tuple[np.ndarray, object]:
        """The context and what has to live as long. ``x``, ``w``: the operands' buffers."""
        tables = [np.ascontiguousarray(t, np.int64) for t in (self.tasks, self.tiles, self.panels)]
        functions = np.array([f.code.address for kind in self.functions for f in kind], np.int64)
        numbers = np.array([*sizes, 0], np.int64)
        context = np.zeros(len(Field), np.int64)
        context[[Field.X_BUFFER, Field.W_BUFFER, Field.SIZES]] = x, w, numbers.ctypes.data
        context[[Field.TASKS, Field.TILES, Field.PANELS]] = [t.ctypes.data for t in tables]
        context[[Field.FUNCTIONS, Field.FUNCTION_COUNT]] = functions.ctypes.data, len(self.functions[0])
        context[Field.LINE] = self.line
        if self.frame is not None:
            frame = self.frame
            context[[Field.FRAMED, Field.PLANES, Field.PLANE]] = 1, frame.planes, frame.plane
            context[[Field.IMAGE_LINE, Field.HEIGHT]] = frame.image_line, frame.height
            context[[Field.FRAME_PLANE, Field.FRAME_LINE]] = frame.lines * frame.line, frame.line
        return context, (self, tables, functions, numbers)


def table(words: type[TaskWord] | type[TileWord] | type[PanelWord], lines: Sequence[dict[int, int]]) -> np.ndarray:
    """Words that are not named are 0."""
    result = np.zeros((len(lines), len(words)), np.int64)
    for k, line in enumerate(lines):
        result[k, list(line)] = list(line.values())
    return result


def parts(total: int, most: int) -> list[tuple[int, int]]:
    """(start, count) of about equal parts of at most ``most``."""
    number = -(-total // most)
    bounds = [total * k // number for k in range(number + 1)]
    return [(a, b - a) for a, b in itertools.pairwise(bounds)]


class GridCall(RecordedWork):
    """A call whose work is a grid of tiles; ``plan(shapes, result)`` gives it for the shapes of operands and result."""

    def __init__(self, call: Call, plan: Callable[[Sequence[tuple[int, ...]], tuple[int, ...]], Grid]) -> None:
        super().__init__()
        self._call = call
        self._plan = plan

    def record(self, sizes: tuple[int, ...]) -> Recording:
        names = size_names(sizes)
        views = [*self._call.operands, self._call.results[0]]
        *shapes, result = [tuple(expr.evaluate(d, names) for d in v.shape) for v in views]
        grid = self._plan(shapes, result)
        context, kept = grid.context(views[0].buffer, views[-2].buffer, sizes)
        return Recording(
            (
                Record(
                    tile_grid().code.address,  # type: ignore[attr-defined]  # see `jit.build_printed`
                    context.ctypes.data,
                    len(grid.tasks),
                    (context, kept),
                    weight=grid.weight,
                    scratch=0 if grid.frame is None else grid.frame.scratch,
                ),
            )
        )
