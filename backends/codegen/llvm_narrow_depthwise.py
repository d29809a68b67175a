"""Depthwise convolution of bytes as LLVM IR: each channel with a window of its own.

A channel's lines are read under masks, which leave the zero point where the padding is, or copied with their padding to
scratch memory. The elements that one row of a window meets lie side by side, so that a shuffle of one load makes words
of them, a word for each column of the result, and `llvm_dot` multiplies them by a word of weights: for a row of three
or four weights one product. Code is made for the window, its stride and its dilation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto

from omniop.backends.codegen import llvm_vector
from omniop.backends.codegen.llvm_blocks import Epilogue, Head, define_entry
from omniop.backends.codegen.llvm_dot import Dot
from omniop.backends.codegen.llvm_flow import argument, define, each, least, plus, when, word
from omniop.backends.codegen.llvm_ir import Code, Module, Value, const, index
from omniop.backends.codegen.llvm_narrow_lines import Lines, bits_inside, lanes_of
from omniop.backends.codegen.llvm_narrow_tiles import WORD, load_word, read_zero_point
from omniop.backends.codegen.llvm_planes import Planes
from omniop.opset.dtype import INT32, UINT8

LINES = 4
"""Of the result, that are summed at a time."""
SPAN = 64
"""Bytes of a line from which a vector of words is made."""
_CHANNEL_POINTERS = ("context", "from", "weights", "to")
_CHANNEL_NUMBERS = ("above", "height", "zero")


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

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Of a channel's weights: the first that each word holds, and how many."""
        rows, columns = self.kernel
        return [(row * columns + k, min(WORD, columns - k)) for row in range(rows) for k in range(0, columns, WORD)]

    def fits(self, lanes: int) -> bool:
        """Whether one load holds all that a row meets."""
        return (lanes - 1) * self.strides[1] + (self.kernel[1] - 1) * self.dilations[1] < SPAN


class Field(IntEnum):
    """The context: int64 numbers and addresses, by their place in it. Strides count elements, which are bytes."""

    X_IMAGE = len(Head)
    X_CHANNEL = auto()
    X_LINE = auto()
    WEIGHT_CHANNEL = auto()
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
    SCRATCH_LINES = auto()
    SCRATCH_BLOCK = auto()


def entry(window: Window) -> str:
    numbers = (*window.kernel, *window.strides, *window.dilations)
    return f"narrow_depthwise_{window.kind.name}_{'_'.join(map(str, numbers))}"


def print_narrow_depthwise(module: Module, window: Window) -> None:
    """Adds the function `entry`, of weights and an image, and what it calls. The result is the epilogue's to write."""
    _Channel(module, window).define()
    _Driver(module, window).define()


def _pads(code: Code) -> bool:
    """Whether a channel's lines are copied with their padding, and not read under masks."""
    return not llvm_vector.has_masked(code, UINT8)


class _Channel:
    """``channel(context, from, weights, to, above, height, zero)``: so many lines of the result in a channel;
    ``above``: the image's line that the first one's window begins at; ``from``: the image's channel, or its lines from
    there on with their padding."""

    def __init__(self, module: Module, window: Window) -> None:
        self.module = module
        self.window = window
        self.code = Code(module)
        self.lanes = module.target.vector_bits // 32
        self.field = {f: word(self.code, "%context", f) for f in Field}
        self.above, self.height, zero = map(argument, _CHANNEL_NUMBERS)
        self.fill = self.code.convert("trunc", zero, UINT8)
        self.signs = const(128 if window.kind.flipped else 0, UINT8)

    def define(self) -> None:
        code, width, kind = self.code, self.field[Field.OUT_WIDTH], self.window.kind
        self.weights = [code.splat(self._weight(*part), self.lanes) for part in self.window.parts]
        padding = code.splat(code.op("xor", self.fill, self.signs), WORD * self.lanes)
        zeros = Value(code.let(f"bitcast {padding} to <{self.lanes} x i32>"), INT32, self.lanes)
        total = const(0, INT32, self.lanes)
        for weight in self.weights:
            total = kind.add(code, total, weight, zeros)
        self.start = code.op("sub", const(0, INT32), total)
        last = code.intrinsic("smax", plus(code, width, -self.lanes), index(0))
        # the last vector shares lanes with the one before it, and so do the last lines
        each(code, index(0), width, self.lanes, lambda inside, x: self._column(inside, least(inside, x, last)))
        define(self.module, "channel", _CHANNEL_POINTERS, _CHANNEL_NUMBERS, code)

    def _weight(self, first: int, some: int) -> Value:
        """Some of the channel's weights as a word, filled with zeros, by loads that stay inside of them."""
        code = self.code
        if self.window.kernel[0] * self.window.kernel[1] < WORD:
            held = const(0, INT32)
            for b in range(some):
                value = llvm_vector.load(code, code.element("%weights", UINT8, index(first + b)), UINT8)
                held = code.op("or", held, code.op("shl", code.convert("zext", value, INT32), const(8 * b, INT32)))
            return held
        start = max(0, first + some - WORD)
        value = code.op("lshr", load_word(code, "%weights", index(start)), const(8 * (first - start), INT32))
        return code.op("and", value, const((1 << 8 * some) - 1, INT32)) if some < WORD else value

    def _column(self, code: Code, x: Value) -> None:
        """All lines of a vector of columns."""
        left = code.op("sub", code.mul(x, index(self.window.strides[1])), self.field[Field.PAD_X])
        known = index(-1) if _pads(code) else bits_inside(code, left, self.field[Field.WIDTH], SPAN)
        last = plus(code, self.height, -LINES)

        def run(count: int) -> None:
            def some(inside: Code, line: Value) -> None:
                first = least(inside, line, last) if count > 1 else line
                self._lines(inside, x, left, known, first, count)

            each(code, index(0), self.height, count, some)

        when(code, code.compare("sge", last, index(0)), lambda: run(LINES), lambda: run(1))

    def _lines(self, code: Code, x: Value, left: Value, known: Value, first: Value, count: int) -> None:
        window, width = self.window, self.field[Field.OUT_WIDTH]
        (rows, _), (step, _), (down, _) = window.kernel, window.strides, window.dilations
        top = code.mul(first, index(step))
        meet: dict[int, list[tuple[int, int]]] = {}  # by line: what it adds to, and with which row of weights
        for r in range(count):
            for i in range(rows):
                meet.setdefault(r * step + i * down, []).append((r, i))
        totals = [self.start] * count
        for number in sorted(meet):  # a sum waits for what was added to it before: others are in between
            for k, value in enumerate(self._words(code, self._span(code, plus(code, top, number), left, known))):
                for r, i in meet[number]:
                    totals[r] = window.kind.add(code, totals[r], self.weights[i * window.words + k], value)
        for r, total in enumerate(totals):  # in order: a narrow line spills into the next one
            place = code.add(code.mul(width, plus(code, first, r)), x)
            llvm_vector.store(code, code.element("%to", INT32, place), total)

    def _span(self, code: Code, line: Value, left: Value, known: Value) -> Value:
        """The elements of a line, counted from `above`, that a vector's windows reach over."""
        f = self.field
        if _pads(code):
            at = code.add(code.mul(line, f[Field.LINE]), code.add(left, f[Field.PAD_X]))
            span = llvm_vector.load(code, code.element("%from", UINT8, at), UINT8, SPAN)
        else:
            y = code.add(self.above, line)
            exists = code.compare("ult", y, f[Field.HEIGHT])
            at = code.add(code.mul(code.select(exists, y, index(0)), f[Field.X_LINE]), left)
            mask = lanes_of(code, code.select(exists, known, index(0)), SPAN)
            span = llvm_vector.masked_load(code, code.element("%from", UINT8, at), mask, self.fill)
        return code.op("xor", span, self.signs) if self.window.kind.flipped else span

    def _words(self, code: Code, span: Value) -> list[Value]:
        """What the words of a row of weights meet, for each column."""
        (_, columns), (_, step), (_, across) = self.window.kernel, self.window.strides, self.window.dilations
        made = []
        for k in range(self.window.words):
            taps = [min(WORD * k + b, columns - 1) * across for b in range(WORD)]
            bytes_of = code.shuffle(span, [i * step + tap for i in range(self.lanes) for tap in taps])
            text = code.let(f"bitcast {bytes_of} to <{self.lanes} x i32>")
            made.append(Value(text, INT32, self.lanes))
        return made


class _Driver:
    def __init__(self, module: Module, window: Window) -> None:
        self.module = module
        self.window = window
        self.code = Code(module, "work")
        self.field = {f: word(self.code, "%context", f) for f in Field}

    def define(self) -> None:
        code, f = self.code, self.field
        parts = (Field.SCRATCH_SIZES, Field.SCRATCH_PLACES, Field.SCRATCH_LINES)
        sizes, self.places, self.lines = (code.element("%scratch", UINT8, f[p]) for p in parts)
        self.block = code.element("%scratch", UINT8, f[Field.SCRATCH_BLOCK])
        self.epilogue = Epilogue.told(code, Field, sizes, self.block)
        self.zero = read_zero_point(code, self.window.kind, f[Field.ZERO_BUFFER], f[Field.ZERO_START])
        self.epilogue.prepare(code)
        each(code, argument("begin"), argument("end"), 1, self._point)
        define_entry(self.module, entry(self.window), code)

    def _point(self, code: Code, point: Value) -> None:
        f, step = self.field, self.window.strides[0]
        planes = Planes.of(code, Field, point)
        source = code.element("%b", UINT8, code.mul(planes.image, f[Field.X_IMAGE]))
        above = code.op("sub", code.mul(planes.y, index(step)), f[Field.PAD_Y])

        def channel(inside: Code, c: Value, place: Value) -> None:
            own = inside.op("udiv", c, f[Field.MULTIPLIER])
            lines = inside.element(source, UINT8, inside.mul(own, f[Field.X_CHANNEL]))
            if _pads(code):
                lines = self._padded(inside, lines, above, planes.height)
            weights = inside.element("%a", UINT8, inside.mul(c, f[Field.WEIGHT_CHANNEL]))
            pointers = ("%context", lines, weights, inside.element(self.block, INT32, place))
            numbers = f"{above}, {planes.height}, {self.zero}"
            inside.do(f"call void @channel({', '.join(f'ptr {p}' for p in pointers)}, {numbers})")

        planes.each_channel(code, channel)
        planes.finish(code, self.epilogue, self.places)

    def _padded(self, code: Code, channel: str, above: Value, height: Value) -> str:
        """Lines of a channel, copied with their padding."""
        f, step = self.field, self.window.strides[0]
        before = code.op("sub", index(0), f[Field.PAD_X])
        source = code.element(channel, UINT8, code.add(code.mul(above, f[Field.X_LINE]), before))

        def exists(inside: Code, line: Value) -> Value:
            return inside.compare("ult", inside.add(above, line), f[Field.HEIGHT])

        count = code.add(code.mul(plus(code, height, -1), index(step)), f[Field.REACH])
        lines = Lines(source, before, f[Field.WIDTH], index(1), f[Field.X_LINE], exists)
        lines.copy(code, self.lines, count, f[Field.LINE], code.convert("trunc", self.zero, UINT8))
        return self.lines
