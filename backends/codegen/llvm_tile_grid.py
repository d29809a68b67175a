"""The loops around the tiles of a blocked result: a grid of tasks that do not depend on each other.

Called as kernels are, ``i64 name(ptr buffers, ptr context, i64 begin, i64 end, ptr scratch)``; a point is a task: some
tiles of one image, for some panels of channels. The context is a table of int64 numbers and addresses, `Field`. A task
whose windows reach over the edge first copies its part of the image into a frame of zeros, in scratch memory.
"""

from __future__ import annotations

from enum import IntEnum, auto

from omniop.backends.codegen.llvm_flow import address, each, plus, when, word
from omniop.backends.codegen.llvm_ir import Code, Module, Value, index
from omniop.backends.codegen.llvm_panels import LINE
from omniop.backends.codegen.llvm_tiles import TapWord
from omniop.opset.dtype import FLOAT32, INT64, UINT8


class Field(IntEnum):
    """Words of a context. Strides and offsets count float32 elements."""

    X_BUFFER = 0
    X_START = auto()
    """In bytes, as is W_START."""
    W_BUFFER = auto()
    W_START = auto()
    SIZES = auto()
    """Address of the call's sizes."""
    TASKS = auto()
    """Addresses of tables, with a line of `TaskWord`, `TileWord`, `PanelWord` or `llvm_tiles.TapWord` each."""
    TILES = auto()
    PANELS = auto()
    TAPS = auto()
    FUNCTIONS = auto()
    """Address of a table of tile functions, as many for each kind of panel."""
    FUNCTION_COUNT = auto()
    LINE = auto()
    """From line to line of the result, in the image or in the frame."""
    FRAMED = auto()
    """Whether tiles read a frame, and not the image itself."""
    PLANES = auto()
    """Planes of a frame, and from plane to plane and line to line of the image and of the frame."""
    PLANE = auto()
    IMAGE_LINE = auto()
    FRAME_PLANE = auto()
    FRAME_LINE = auto()
    HEIGHT = auto()
    """Lines of the image."""
    ASKERS = auto()
    """So many of the last tiles under a panel ask for the weights of the next one, each for a line of every row."""


class TaskWord(IntEnum):
    """``X``: where its image begins, or, without a frame, what its tiles' offsets are counted from; ``Y``, ``PIXEL``:
    what their places are. Its frame holds ``LINES`` lines of the image from ``FIRST_LINE`` on: ``LEFT`` zeros,
    ``COUNT`` elements from ``FROM`` on, zeros."""

    X = 0
    IMAGE = 1
    Y = 2
    PIXEL = 3
    TILE = 4
    TILE_COUNT = 5
    PANEL = 6
    PANEL_COUNT = 7
    FIRST_LINE = 8
    LINES = 9
    LEFT = 10
    FROM = 11
    COUNT = 12


class TileWord(IntEnum):
    FUNCTION = 0
    X = 1
    Y = 2
    PIXEL = 3
    TAP = 4
    TAP_COUNT = 5
    LINES = 6


class PanelWord(IntEnum):
    """``BLOCK``: its first block of channels; ``KIND``: which functions take it."""

    X = 0
    W = 1
    BLOCK = 2
    KIND = 3


ENTRY = "tile_grid"


def print_tile_grid(module: Module) -> None:
    """Adds the function."""
    code = Code(module, "work")
    field = {f: word(code, "%context", f) for f in Field}
    pointers = {}
    for name, buffer, start in (("x", Field.X_BUFFER, Field.X_START), ("w", Field.W_BUFFER, Field.W_START)):
        whole = code.let(f"load ptr, ptr {code.element('%buffers', INT64, field[buffer])}, align 8")
        pointers[name] = code.element(whole, UINT8, field[start])
    tables = (Field.SIZES, Field.TASKS, Field.TILES, Field.PANELS, Field.TAPS, Field.FUNCTIONS)
    sizes, tasks, tiles, panels, taps, functions = (address(code, "%context", f) for f in tables)
    framed = code.compare("ne", field[Field.FRAMED], index(0))

    def run_task(inside: Code, number: Value) -> None:
        line = inside.element(tasks, INT64, inside.mul(number, index(len(TaskWord))))
        task = {w: word(inside, line, w) for w in TaskWord}
        image = inside.element(pointers["x"], FLOAT32, task[TaskWord.X])
        when(inside, framed, lambda: _fill_frame(inside, field, task, image))
        source = inside.let(f"select {framed}, ptr %scratch, ptr {image}")

        def run_panel(around: Code, k: Value) -> None:
            place = around.element(panels, INT64, around.mul(k, index(len(PanelWord))))
            panel = {w: word(around, place, w) for w in PanelWord}
            x = around.element(source, FLOAT32, panel[PanelWord.X])
            w = around.element(pointers["w"], FLOAT32, panel[PanelWord.W])
            following = plus(around, k, 1)
            following = around.select(around.compare("slt", following, last_panel), following, first_panel)
            next_line = around.element(panels, INT64, around.mul(following, index(len(PanelWord))))
            ahead = around.element(pointers["w"], FLOAT32, word(around, next_line, PanelWord.W))
            kind = around.mul(panel[PanelWord.KIND], field[Field.FUNCTION_COUNT])

            def run_tile(within: Code, t: Value) -> None:
                at = within.element(tiles, INT64, within.mul(t, index(len(TileWord))))
                tile = {w: word(within, at, w) for w in TileWord}
                chosen = within.element(functions, INT64, within.add(kind, tile[TileWord.FUNCTION]))
                function = within.let(f"load ptr, ptr {chosen}, align 8")
                first_tap = within.element(taps, INT64, within.mul(tile[TileWord.TAP], index(len(TapWord))))
                numbers = (
                    tile[TileWord.TAP_COUNT],
                    field[Field.LINE],
                    tile[TileWord.LINES],
                    task[TaskWord.IMAGE],
                    panel[PanelWord.BLOCK],
                    within.add(task[TaskWord.Y], tile[TileWord.Y]),
                    within.add(task[TaskWord.PIXEL], tile[TileWord.PIXEL]),
                )
                first = within.element(x, FLOAT32, tile[TileWord.X])
                asker = plus(within, within.op("sub", end_tile, t), -1)
                line = within.element(ahead, FLOAT32, within.mul(asker, index(LINE)))
                asks = within.compare("slt", asker, field[Field.ASKERS])
                wanted = within.let(f"select {asks}, ptr {line}, ptr {w}")
                places = (first, w, wanted, first_tap, "%buffers", sizes)
                within.do(f"call void {function}({', '.join([*(f'ptr {p}' for p in places), *map(str, numbers)])})")

            each(around, first_tile, end_tile, 1, run_tile)

        first_tile, first_panel = task[TaskWord.TILE], task[TaskWord.PANEL]
        end_tile = inside.add(first_tile, task[TaskWord.TILE_COUNT])
        last_panel = inside.add(first_panel, task[TaskWord.PANEL_COUNT])
        each(inside, first_panel, last_panel, 1, run_panel)

    each(code, Value("%begin", INT64), Value("%end", INT64), 1, run_task)
    head = f"define i64 @{ENTRY}(ptr %buffers, ptr %context, i64 %begin, i64 %end, ptr %scratch) nounwind {{"
    module.functions[ENTRY] = "\n".join([head, "entry:", "  br label %work", "work:", *code.lines, "  ret i64 0", "}"])


def _fill_frame(code: Code, field: dict[Field, Value], task: dict[TaskWord, Value], image: str) -> None:
    left, count, width = task[TaskWord.LEFT], task[TaskWord.COUNT], field[Field.FRAME_LINE]
    right = code.op("sub", width, code.add(left, count))

    def fill_plane(inside: Code, plane: Value) -> None:
        source = inside.element(image, FLOAT32, inside.mul(plane, field[Field.PLANE]))
        target = inside.element("%scratch", FLOAT32, inside.mul(plane, field[Field.FRAME_PLANE]))

        def fill_line(around: Code, k: Value) -> None:
            y = around.add(task[TaskWord.FIRST_LINE], k)
            row = around.element(target, FLOAT32, around.mul(k, width))
            exists = around.compare("ult", y, field[Field.HEIGHT])

            def copy() -> None:
                offset = plus(around, around.mul(y, field[Field.IMAGE_LINE]), task[TaskWord.FROM])
                _clear(around, row, left)
                middle = around.element(row, FLOAT32, left)
                _copy(around, middle, around.element(source, FLOAT32, offset), count)
                _clear(around, around.element(middle, FLOAT32, count), right)

            when(around, exists, copy, lambda: _clear(around, row, width))

        each(inside, index(0), task[TaskWord.LINES], 1, fill_line)

    each(code, index(0), field[Field.PLANES], 1, fill_plane)


def _copy(code: Code, target: str, source: str, count: Value) -> None:
    code.module.declare("llvm.memcpy.p0.p0.i64", "void", ["ptr", "ptr", "i64", "i1"])
    code.do(f"call void @llvm.memcpy.p0.p0.i64(ptr {target}, ptr {source}, {code.mul(count, index(4))}, i1 false)")


def _clear(code: Code, target: str, count: Value) -> None:
    code.module.declare("llvm.memset.p0.i64", "void", ["ptr", "i8", "i64", "i1"])
    code.do(f"call void @llvm.memset.p0.i64(ptr {target}, i8 0, {code.mul(count, index(4))}, i1 false)")
