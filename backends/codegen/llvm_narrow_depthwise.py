"""Depthwise convolution of bytes as LLVM IR: each channel with a window of its own.

A channel's lines are copied to scratch memory with their padding. There the elements that one row of a window meets lie
side by side, so that a shuffle of one load makes words of them, a word for each column of the result, and
`llvm_dot` multiplies them by a word of weights: for a row of three or four weights one product. Code is made for the
window, its stride and its dilation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, auto

from omniop.backends.codegen import llvm_vector
from omniop.backends.codegen.llvm_blocks import BlockSize, Epilogue, Head, call_of, define_entry, function_table
from omniop.backends.codegen.llvm_dot import Dot
from omniop.backends.codegen.llvm_flow import address, argument, define, each, lanes_below, least, plus, when, word
from omniop.backends.codegen.llvm_ir import Code, Module, Value, const, index
from omniop.backends.codegen.llvm_narrow_lines import ROW_BYTES, Lines, lanes_inside
from omniop.backends.codegen.llvm_narrow_tiles import ONES, WORD, load_word, read_zero_point
from omniop.opset.dtype import BOOL, INT32, INT64, UINT8

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
    for count in range(1, LINES + 1):
        _print_lines(module, f"lines_{count}", window, count)
    function_table(module, "lines", [f"lines_{count}" for count in range(1, LINES + 1)])
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

        def some(inside: Code, line: Value) -> None:
            source = inside.element(self.lines, UINT8, inside.mul(line, apart))
            there = inside.element(target, INT32, inside.mul(line, f[Field.OUT_WIDTH]))
            number = least(inside, plus(inside, inside.op("sub", height, line), -1), index(LINES - 1))
            call_of(inside, "lines", number, (source, self.weights, there), (f[Field.LINE], f[Field.OUT_WIDTH], start))

        each(code, index(0), height, LINES, some)

    def _weights(self, code: Code, weights: str) -> Value:
        """A channel's weights as words, of which the last of a row is filled with zeros; gives where its sums begin."""
        lanes = self.module.target.vector_bits // 32
        step = self.field[Field.WEIGHT_TAP]
        count = self.window.kernel[0] * self.window.words

        def put(word_of: Callable[[Code, int, int, int], Value]) -> Callable[[], None]:
            def run() -> None:
                for number in range(count):
                    row, k = divmod(number, self.window.words)
                    first, some = row * self.window.kernel[1] + WORD * k, self.window.kernel[1] - WORD * k
                    value = word_of(code, number, first, min(WORD, some))
                    llvm_vector.store(code, code.element(self.weights, INT32, index(number)), value)

            return run

        def whole(code: Code, number: int, first: int, some: int) -> Value:
            """By one load that stays inside of the channel's weights."""
            start = max(0, first + some - WORD)
            value = load_word(code, weights, index(start))
            value = code.op("lshr", value, const(8 * (first - start), INT32))
            return code.op("and", value, const((1 << 8 * some) - 1, INT32)) if some < WORD else value

        def apart(code: Code, number: int, first: int, some: int) -> Value:
            held = const(0, INT32)
            for b in range(some):
                at = code.mul(index(first + b), step)
                value = llvm_vector.load(code, code.element(weights, UINT8, at), UINT8)
                held = code.op("or", held, code.op("shl", code.convert("zext", value, INT32), const(8 * b, INT32)))
            return held

        near = code.compare("eq", step, index(1))
        few = self.window.kernel[0] * self.window.kernel[1] < WORD
        when(code, near, put(apart if few else whole), put(apart))
        total = const(0, INT32, lanes)
        for first in range(0, count, lanes):
            part = llvm_vector.load(code, code.element(self.weights, INT32, index(first)), INT32, lanes)
            if first + lanes > count:
                part = code.select(lanes_below(code, index(count - first), lanes), part, const(0, INT32, lanes))
            total = self.window.kind.add(code, total, part, const(ONES, INT32, lanes))
        (held,) = llvm_vector.narrowed(code, "add", [total], 1)
        return code.op(
            "mul", code.convert("sext", held, INT64), code.op("sub", index(-self.window.kind.offset), self.zero)
        )

    def _pad(self, code: Code, channel: str, above: Value, lines: Value) -> None:
        """Padded lines of a channel; ``above``: the image's line that the first one holds."""
        f = self.field
        masked = llvm_vector.has_masked(code, UINT8)
        signs = 128 if self.window.kind.flipped else 0
        before = code.op("sub", index(0), f[Field.PAD_X])
        fill = code.convert("trunc", self.zero, UINT8)
        filled = code.op("xor", code.splat(fill, ROW_BYTES), const(signs, UINT8))

        def part(outer: Code, x: Value) -> None:
            first = outer.add(before, x)
            mask = lanes_inside(outer, first, f[Field.WIDTH], ROW_BYTES) if masked else None

            def line(inside: Code, k: Value) -> None:
                target = inside.element(self.lines, UINT8, inside.add(inside.mul(k, f[Field.LINE]), x))
                y = inside.add(above, k)
                source = inside.element(channel, UINT8, inside.add(inside.mul(y, f[Field.X_LINE]), first))

                def copy() -> None:
                    if mask is not None:
                        value = llvm_vector.masked_load(inside, source, mask, fill)
                    else:
                        whole = Lines(source, first, f[Field.WIDTH], index(1), index(0), lambda *_: const(True, BOOL))
                        whole.copy(inside, target, index(1), index(ROW_BYTES), fill)
                        value = llvm_vector.load(inside, target, UINT8, ROW_BYTES)
                    llvm_vector.store(inside, target, inside.op("xor", value, const(signs, UINT8)) if signs else value)

                known = inside.compare("ult", y, f[Field.HEIGHT])
                when(inside, known, copy, lambda: llvm_vector.store(inside, target, filled))

            each(outer, index(0), lines, 1, line)

        each(code, index(0), f[Field.LINE], ROW_BYTES, part)
