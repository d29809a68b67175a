"""Depthwise convolution of bytes as LLVM IR: each channel with a window of its own.

A channel's lines are copied to scratch memory with their padding. There the elements that one row of a window meets lie
side by side, so that a shuffle of one load makes words of them, a word for each column of the result, and
`llvm_dot` multiplies them by a word of weights: for a row of three or four weights one product. Code is made for the
window, its stride and its dilation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto

from omniop.backends.codegen import llvm_vector
from omniop.backends.codegen.llvm_blocks import BlockSize, Epilogue, Head, define_entry
from omniop.backends.codegen.llvm_dot import Dot
from omniop.backends.codegen.llvm_flow import address, argument, define, each, least, plus, word
from omniop.backends.codegen.llvm_ir import Code, Module, Value, const, index
from omniop.backends.codegen.llvm_narrow_lines import ROW_BYTES, Line
from omniop.backends.codegen.llvm_narrow_tiles import WORD, read_zero_point
from omniop.opset.dtype import INT8, INT32, INT64, UINT8

LINES = 4
"""Of the result, that are summed at a time."""
SPAN = 64
"""Bytes of a line from which a vector of words is made."""


@dataclass(frozen=True)
class Window:
    """``kernel``, ``strides`` and ``dilations``: (y, x)."""

    kind: Dot
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]

    @property
    def words(self) -> int:
        """Of a row of weights."""
        return -(-self.kernel[1] // WORD)

    def fits(self, lanes: int) -> bool:
        """Whether one load holds all that a row meets."""
        return (lanes - 1) * self.strides[1] + (self.kernel[1] - 1) * self.dilations[1] < SPAN


class Field(IntEnum):
    """The context: int64 numbers and addresses, by their place in it. Strides count elements, which are bytes."""

    X_IMAGE = len(Head)
    X_CHANNEL = auto()
    X_LINE = auto()
    WEIGHT_CHANNEL = auto()
    WEIGHT_TAP = auto()
    CHANNELS = auto()
    MULTIPLIER = auto()
    """Result's channels for each of the image's."""
    HEIGHT = auto()
    WIDTH = auto()
    OUT_HEIGHT = auto()
    OUT_WIDTH = auto()
    PAD_Y = auto()
    PAD_X = auto()
    REACH = auto()
    """Padded lines for one line of the result."""
    LINE = auto()
    """From padded line to padded line."""
    CHANNEL_BLOCK = auto()
    CHANNEL_BLOCKS = auto()
    LINE_BLOCK = auto()
    LINE_BLOCKS = auto()
    BY_LINES = auto()
    """1 when the epilogue counts lines and columns, 0 when it sees pixels as one run."""
    ZERO_BUFFER = auto()
    ZERO_START = auto()
    EPILOGUE = auto()
    SIZES = auto()
    SIZE_COUNT = auto()
    BUFFER_COUNT = auto()
    SCRATCH_SIZES = auto()
    SCRATCH_PLACES = auto()
    SCRATCH_WEIGHTS = auto()
    SCRATCH_LINES = auto()
    SCRATCH_BLOCK = auto()


def entry(window: Window) -> str:
    numbers = (*window.kernel, *window.strides, *window.dilations)
    return f"narrow_depthwise_{window.kind.name}_{'_'.join(map(str, numbers))}"


def print_narrow_depthwise(module: Module, window: Window) -> None:
    """Adds the function `entry`, of weights and an image, and what it calls. The result is the epilogue's to write."""
    for count in (1, LINES):
        _print_lines(module, f"lines_{count}", window, count)
    _Driver(module, window).define()


def _print_lines(module: Module, name: str, window: Window, count: int) -> None:
    """``name(from, weights, to, line, width, start)``: some lines of the result, from the first one's padded lines and
    the words of a channel's weights."""
    code = Code(module)
    lanes = module.target.vector_bits // 32
    (rows, columns), (step_y, step_x), (down, across) = window.kernel, window.strides, window.dilations
    line, width, start = map(argument, ("line", "width", "start"))
    first = code.splat(code.convert("trunc", start, INT32), lanes)
    weights = []
    for k in range(rows * window.words):
        weights.append(code.splat(llvm_vector.load(code, code.element("%weights", INT32, index(k)), INT32), lanes))
    last = code.intrinsic("smax", plus(code, width, -lanes), index(0))

    def vector(inside: Code, place: Value) -> None:
        x = least(inside, place, last)  # the last vector shares lanes with the one before it
        origin = inside.element("%from", UINT8, inside.mul(x, index(step_x)))
        made: dict[int, list[Value]] = {}

        def words(number: int) -> list[Value]:
            """Those of a padded line."""
            if number not in made:
                pointer = inside.element(origin, UINT8, inside.mul(line, index(number)))
                span = llvm_vector.load(inside, pointer, UINT8, SPAN)
                made[number] = []
                for k in range(window.words):
                    taps = [min(WORD * k + b, columns - 1) * across for b in range(WORD)]
                    bytes_of = inside.shuffle(span, [i * step_x + tap for i in range(lanes) for tap in taps])
                    text = inside.let(f"bitcast {bytes_of} to <{lanes} x i32>")
                    made[number].append(Value(text, INT32, lanes))
            return made[number]

        for r in range(count):
            total = first
            for i in range(rows):
                for k, value in enumerate(words(r * step_y + i * down)):
                    total = window.kind.add(inside, total, weights[i * window.words + k], value)
            # in order: a narrow line spills into the next one
            target = inside.element("%to", INT32, inside.add(inside.mul(width, index(r)), x))
            llvm_vector.store(inside, target, total)

    each(code, index(0), width, lanes, vector)
    define(module, name, ("from", "weights", "to"), ("line", "width", "start"), code)


class _Driver:
    def __init__(self, module: Module, window: Window) -> None:
        self.module = module
        self.window = window
        self.code = Code(module, "work")
        self.field = {f: word(self.code, "%context", f) for f in Field}

    def define(self) -> None:
        code, f = self.code, self.field
        parts = (Field.SCRATCH_SIZES, Field.SCRATCH_PLACES, Field.SCRATCH_WEIGHTS, Field.SCRATCH_LINES)
        sizes, self.places, self.weights, self.lines = (code.element("%scratch", UINT8, f[p]) for p in parts)
        self.block = code.element("%scratch", UINT8, f[Field.SCRATCH_BLOCK])
        self.epilogue = Epilogue(
            kernel=f[Field.EPILOGUE],
            size_table=address(code, "%context", Field.SIZES),
            size_count=f[Field.SIZE_COUNT],
            buffer_count=f[Field.BUFFER_COUNT],
            sizes=sizes,
            block=self.block,
        )
        self.zero = read_zero_point(code, self.window.kind, f[Field.ZERO_BUFFER], f[Field.ZERO_START])
        self.epilogue.prepare(code)
        each(code, argument("begin"), argument("end"), 1, self._point)
        define_entry(self.module, entry(self.window), code)

    def _point(self, code: Code, point: Value) -> None:
        """Some channels of an image, in some lines."""
        f, step = self.field, self.window.strides[0]
        part, rest = code.op("urem", point, f[Field.LINE_BLOCKS]), code.op("udiv", point, f[Field.LINE_BLOCKS])
        group, image = code.op("urem", rest, f[Field.CHANNEL_BLOCKS]), code.op("udiv", rest, f[Field.CHANNEL_BLOCKS])
        first, y = code.mul(group, f[Field.CHANNEL_BLOCK]), code.mul(part, f[Field.LINE_BLOCK])
        end = least(code, code.add(first, f[Field.CHANNEL_BLOCK]), f[Field.CHANNELS])
        height = least(code, code.op("sub", f[Field.OUT_HEIGHT], y), f[Field.LINE_BLOCK])
        plane = code.mul(f[Field.LINE_BLOCK], f[Field.OUT_WIDTH])
        source = code.element("%b", UINT8, code.mul(image, f[Field.X_IMAGE]))
        above = code.op("sub", code.mul(y, index(step)), f[Field.PAD_Y])
        padded = code.add(code.mul(plus(code, height, -1), index(step)), f[Field.REACH])

        def channel(inside: Code, c: Value) -> None:
            own = inside.op("udiv", c, f[Field.MULTIPLIER])
            self._pad(inside, inside.element(source, UINT8, inside.mul(own, f[Field.X_CHANNEL])), above, padded)
            start = self._weights(inside, inside.element("%a", UINT8, inside.mul(c, f[Field.WEIGHT_CHANNEL])))
            target = inside.element(self.block, INT32, inside.mul(inside.op("sub", c, first), plane))
            self._sum(inside, target, start, height)

        each(code, first, end, 1, channel)
        by_lines = code.compare("ne", f[Field.BY_LINES], index(0))
        values: dict[int, Value] = {
            BlockSize.ROW: first,
            BlockSize.Z: index(0),
            BlockSize.Y: code.mul(y, f[Field.BY_LINES]),
            BlockSize.X: code.select(by_lines, index(0), code.mul(y, f[Field.OUT_WIDTH])),
            BlockSize.ROWS: code.op("sub", end, first),
            BlockSize.COUNT_Y: code.select(by_lines, height, index(1)),
            BlockSize.COUNT_X: code.mul(f[Field.OUT_WIDTH], code.select(by_lines, index(1), height)),
            BlockSize.BLOCK_ROW: plane,
        }
        code.do(f"store {image}, ptr {self.places}, align 8")
        self.epilogue.run(code, values, self.places, index(1))

    def _sum(self, code: Code, target: str, start: Value, height: Value) -> None:
        f = self.field
        apart = code.mul(f[Field.LINE], index(self.window.strides[0]))

        def some(count: int, first: Value, end: Value) -> Value:
            def lines(inside: Code, line: Value) -> None:
                source = inside.element(self.lines, UINT8, inside.mul(line, apart))
                there = inside.element(target, INT32, inside.mul(line, f[Field.OUT_WIDTH]))
                numbers = ", ".join(map(str, (f[Field.LINE], f[Field.OUT_WIDTH], start)))
                inside.do(f"call void @lines_{count}(ptr {source}, ptr {self.weights}, ptr {there}, {numbers})")

            return each(code, first, end, count, lines)

        whole = code.mul(code.op("udiv", height, index(LINES)), index(LINES))
        some(1, some(LINES, index(0), whole), height)

    def _weights(self, code: Code, weights: str) -> Value:
        """A channel's weights as words, of which the last of a row is filled with zeros; gives where its sums begin."""
        rows, columns = self.window.kernel
        step = self.field[Field.WEIGHT_TAP]
        total = index(0)
        extend = "sext" if self.window.kind.left.is_signed else "zext"
        for i in range(rows):
            for k in range(self.window.words):
                held = const(0, INT32)
                for b in range(min(WORD, columns - WORD * k)):
                    at = code.mul(index(i * columns + WORD * k + b), step)
                    value = llvm_vector.load(code, code.element(weights, UINT8, at), UINT8)
                    wide = code.convert("zext", value, INT32)
                    held = code.op("or", held, code.op("shl", wide, const(8 * b, INT32)))
                    total = code.add(total, code.convert(extend, Value(value.text, INT8), INT64))
                place = code.element(self.weights, INT32, index(i * self.window.words + k))
                llvm_vector.store(code, place, held)
        return code.op("mul", total, code.op("sub", index(-self.window.kind.offset), self.zero))

    def _pad(self, code: Code, channel: str, above: Value, lines: Value) -> None:
        """Padded lines of a channel; ``above``: the image's line that the first one holds."""
        f = self.field
        fill = code.convert("trunc", self.zero, UINT8)

        def line(inside: Code, k: Value) -> None:
            target = inside.element(self.lines, UINT8, inside.mul(k, f[Field.LINE]))
            y = inside.add(above, k)
            inside_image = inside.compare("ult", y, f[Field.HEIGHT])
            width = inside.select(inside_image, f[Field.WIDTH], index(0))
            first = inside.op("sub", index(0), f[Field.PAD_X])
            source = inside.element(channel, UINT8, inside.add(inside.mul(y, f[Field.X_LINE]), first))
            Line(source, first, width, index(1)).copy(inside, target, f[Field.LINE], fill)
            if self.window.kind.flipped:
                self._flip(inside, target)

        each(code, index(0), lines, 1, line)

    def _flip(self, code: Code, line: str) -> None:
        signs = const(128, UINT8, ROW_BYTES)

        def part(inside: Code, x: Value) -> None:
            place = inside.element(line, UINT8, x)
            value = llvm_vector.load(inside, place, UINT8, ROW_BYTES)
            llvm_vector.store(inside, place, inside.op("xor", value, signs))

        each(code, index(0), self.field[Field.LINE], ROW_BYTES, part)
