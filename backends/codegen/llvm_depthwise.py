"""Depthwise convolution and pooling of float32 as LLVM IR: each channel with a window of its own, or none.

A channel's rows are copied to scratch memory with their padding, the columns of one remainder by the stride side by
side, so that whatever the stride and the dilation are, an element of the window meets neighbours in neighbouring lanes.
Sums go to a block of some channels and lines, which stays in the cache until the epilogue's kernel has read it.
"""

from __future__ import annotations

from enum import IntEnum, auto

from omniop.backends.codegen import llvm_alu, llvm_vector
from omniop.backends.codegen.llvm_blocks import Epilogue, Head, call_of, define_entry, function_table
from omniop.backends.codegen.llvm_flow import (
    address,
    argument,
    count,
    define,
    each,
    fma,
    lanes_below,
    least,
    load,
    plus,
    store,
    when,
    word,
    zeros,
)
from omniop.backends.codegen.llvm_ir import Code, Loop, Module, Value, const, index
from omniop.backends.codegen.llvm_planes import Planes
from omniop.opset.dtype import FLOAT32, UINT8, UINT32

ENTRY = "depthwise"
MONOIDS = ("product", "add", "max", "min")
"""How a window becomes a number: the sum of its products with weights, or a fold of its elements."""
FILL = {"product": 0.0, "add": 0.0, "max": float("-inf"), "min": float("inf")}
"""What changes nothing."""
ROWS = 8
"""Lines of the result that are summed at a time."""


class Field(IntEnum):
    """The context: int64 numbers and addresses, by their place in it. Strides count elements.

    A padded line has ``STEP_X`` phases, ``PHASE`` elements apart; lines are ``LINE`` apart.
    """

    MONOID = len(Head)
    """Its place in `MONOIDS`."""
    FILL = auto()
    """Bits of what the padding holds."""
    X_IMAGE = auto()
    X_CHANNEL = auto()
    X_LINE = auto()
    WEIGHT_CHANNEL = auto()
    WEIGHT_TAP = auto()
    CHANNELS = auto()
    MULTIPLIER = auto()
    """Result's channels for each of the image's."""
    HEIGHT = auto()
    OUT_HEIGHT = auto()
    OUT_WIDTH = auto()
    STEP_Y = auto()
    STEP_X = auto()
    PAD_Y = auto()
    FROM = auto()
    TO = auto()
    COUNT = auto()
    """``COUNT`` elements of a line of the image, ``FROM`` on, stand in the padded line from ``TO`` on."""
    REACH = auto()
    """Padded lines for one line of the result."""
    PHASE = auto()
    LINE = auto()
    TAPS = auto()
    """Table of where in the padded lines each element of the window is."""
    TAP_COUNT = auto()
    CHANNEL_BLOCK = auto()
    CHANNEL_BLOCKS = auto()
    LINE_BLOCK = auto()
    LINE_BLOCKS = auto()
    BY_LINES = auto()
    """1 when the epilogue counts lines and columns, 0 when it sees pixels as one run."""
    EPILOGUE = auto()
    SIZES = auto()
    SIZE_COUNT = auto()
    BUFFER_COUNT = auto()
    SCRATCH_SIZES = auto()
    SCRATCH_LINES = auto()
    SCRATCH_BLOCK = auto()


def print_depthwise(module: Module) -> None:
    """Adds ``depthwise``, of weights and an image, and what it calls. The result is the epilogue's to write."""
    names = []
    for monoid in MONOIDS:
        for rows in range(1, ROWS + 1):
            names.append(f"lines_{monoid}_{rows}")
            _print_lines(module, names[-1], rows, monoid)
    function_table(module, "lines", names)
    _Driver(module).define()


def _print_lines(module: Module, name: str, rows: int, monoid: str) -> None:
    """``name(context, from, weights, to)``: some lines of the result, from the first one's padded lines."""
    weighted = monoid == MONOIDS[0]
    code = Code(module)
    lanes = module.target.vector_bits // 32
    taps, number = address(code, "%context", Field.TAPS), word(code, "%context", Field.TAP_COUNT)
    width, weight = word(code, "%context", Field.OUT_WIDTH), word(code, "%context", Field.WEIGHT_TAP)
    apart = code.mul(word(code, "%context", Field.STEP_Y), word(code, "%context", Field.LINE))
    starts = [code.element("%from", FLOAT32, code.mul(apart, index(r))) for r in range(rows)]
    targets = [code.element("%to", FLOAT32, code.mul(width, index(r))) for r in range(rows)]
    last = code.intrinsic("smax", plus(code, width, -lanes), index(0))

    def vector(outer: Code, place: Value) -> None:
        x = least(outer, place, last)  # the last vector shares lanes with the one before it
        first = zeros(lanes) if weighted else const(FILL[monoid], FLOAT32, lanes)
        loop = Loop(outer, inside := Code(module), [index(0), index(0), *[first] * rows])
        tap, at, *sums = loop.carried
        offset = inside.add(word(inside, taps, tap), x)
        values = [load(inside, s, offset, lanes) for s in starts]
        if weighted:
            factor = inside.splat(load(inside, "%weights", at), lanes)
            sums = [fma(inside, factor, v, t) for v, t in zip(values, sums, strict=True)]
        else:
            sums = [llvm_alu.apply(inside, monoid, t, v) for v, t in zip(values, sums, strict=True)]
        following = plus(inside, tap, 1)
        again = inside.compare("slt", following, number)
        _, _, *sums = loop.close([following, inside.add(at, weight), *sums], again)
        for target, value in zip(targets, sums, strict=True):  # in order: a narrow line spills into the next one
            store(outer, value, target, x)

    each(code, index(0), width, lanes, vector)
    define(module, name, ("context", "from", "weights", "to"), (), code)


class _Driver:
    def __init__(self, module: Module) -> None:
        self.module = module
        self.lanes = module.target.vector_bits // 32
        self.code = Code(module, "work")
        self.field = {f: word(self.code, "%context", f) for f in Field}

    def define(self) -> None:
        code = self.code
        parts = (Field.SCRATCH_SIZES, Field.SCRATCH_LINES, Field.SCRATCH_BLOCK)
        sizes, self.lines, self.block = (code.element("%scratch", UINT8, self.field[f]) for f in parts)
        self.epilogue = Epilogue.told(code, Field, sizes, self.block)
        self.epilogue.prepare(code)
        self.places = code.let("alloca i64, align 8")
        bits = Value(code.convert("trunc", self.field[Field.FILL], UINT32).text, UINT32)
        self.fill = code.splat(code.convert("bitcast", bits, FLOAT32), self.lanes)
        each(code, argument("begin"), argument("end"), 1, self._point)
        define_entry(self.module, ENTRY, code)

    def _point(self, code: Code, point: Value) -> None:
        f = self.field
        planes = Planes.of(code, Field, point)
        source = code.element("%b", FLOAT32, code.mul(planes.image, f[Field.X_IMAGE]))
        above = code.op("sub", code.mul(planes.y, f[Field.STEP_Y]), f[Field.PAD_Y])
        padded = code.add(code.mul(plus(code, planes.height, -1), f[Field.STEP_Y]), f[Field.REACH])

        def channel(inside: Code, c: Value, place: Value) -> None:
            own = inside.op("udiv", c, f[Field.MULTIPLIER])
            self._pad(inside, inside.element(source, FLOAT32, inside.mul(own, f[Field.X_CHANNEL])), above, padded)
            weights = inside.element("%a", FLOAT32, inside.mul(c, f[Field.WEIGHT_CHANNEL]))
            self._sum(inside, weights, place, planes.height)

        planes.each_channel(code, channel)
        planes.finish(code, self.epilogue, self.places)

    def _sum(self, code: Code, weights: str, place: Value, height: Value) -> None:
        """A channel's lines, of which the last two turns share what is left."""
        f = self.field
        loop = Loop(code, inside := Code(self.module), [index(0)])
        (line,) = loop.carried
        loop.test(inside.compare("slt", line, height))
        left = inside.op("sub", height, line)
        half = inside.op("lshr", plus(inside, left, 1), index(1))
        few = inside.select(inside.compare("sle", left, index(ROWS)), left, half)
        rows = inside.select(inside.compare("sge", left, index(2 * ROWS)), index(ROWS), few)
        start = inside.element(self.lines, FLOAT32, inside.mul(inside.mul(line, f[Field.STEP_Y]), f[Field.LINE]))
        target = inside.element(self.block, FLOAT32, inside.add(place, inside.mul(line, f[Field.OUT_WIDTH])))
        number = plus(inside, inside.add(inside.mul(f[Field.MONOID], index(ROWS)), rows), -1)
        call_of(inside, "lines", number, ("%context", start, weights, target))
        loop.close([inside.add(line, rows)])

    # Padding ----------------------------------------------------------------------------------------------------------

    def _pad(self, code: Code, channel: str, above: Value, count_of: Value) -> None:
        """Padded lines of a channel; ``above``: the image's line that the first one holds."""
        f = self.field

        def line(inside: Code, k: Value) -> None:
            target = inside.element(self.lines, FLOAT32, inside.mul(k, f[Field.LINE]))
            each(inside, index(0), f[Field.LINE], self.lanes, lambda deep, at: store(deep, self.fill, target, at))
            y = inside.add(above, k)
            source = inside.element(channel, FLOAT32, inside.add(inside.mul(y, f[Field.X_LINE]), f[Field.FROM]))

            def copy() -> None:
                step = f[Field.STEP_X]
                when(
                    inside,
                    inside.compare("eq", step, index(1)),
                    lambda: self._copy(inside, source, target, 1),
                    lambda: when(
                        inside,
                        inside.compare("eq", step, index(2)),
                        lambda: self._copy(inside, source, target, 2),
                        lambda: self._deal(inside, source, target),
                    ),
                )

            when(inside, inside.compare("ult", y, f[Field.HEIGHT]), copy)

        each(code, index(0), count_of, 1, line)

    def _copy(self, code: Code, source: str, target: str, phases: int) -> None:
        """Elements to one phase, or by turns to two."""
        f, lanes = self.field, self.lanes
        width = phases * lanes
        starts = []
        for k in range(phases):
            place = plus(code, f[Field.TO], k)
            phase = code.mul(code.op("and", place, index(phases - 1)), f[Field.PHASE])
            column = code.op("lshr", place, index(phases - 1))
            starts.append(code.element(target, FLOAT32, code.add(phase, column)))

        def put(inside: Code, values: list[Value], place: Value) -> None:
            at = inside.op("lshr", place, index(phases - 1))
            for k, start in enumerate(starts):
                lane = values[0] if phases == 1 else inside.shuffle_two(values[0], values[1], range(k, width, 2))
                store(inside, lane, start, at)

        def whole(inside: Code, place: Value) -> None:
            put(inside, [load(inside, source, plus(inside, place, k), lanes) for k in range(0, width, lanes)], place)

        done = count(code, index(0), f[Field.COUNT], width, whole)

        def rest() -> None:
            left = code.op("sub", f[Field.COUNT], done)
            values = []
            for k in range(0, width, lanes):
                row = code.element(source, FLOAT32, plus(code, done, k))
                values.append(llvm_vector.masked_load(code, row, lanes_below(code, left, lanes, k), self.fill))
            put(code, values, done)

        when(code, code.compare("slt", done, f[Field.COUNT]), rest)

    def _deal(self, code: Code, source: str, target: str) -> None:
        """Elements to the phases, one by one."""
        f = self.field

        def one(inside: Code, k: Value) -> None:
            place = inside.add(f[Field.TO], k)
            phase = inside.mul(inside.op("urem", place, f[Field.STEP_X]), f[Field.PHASE])
            column = inside.op("udiv", place, f[Field.STEP_X])
            store(inside, load(inside, source, k), target, inside.add(phase, column))

        each(code, index(0), f[Field.COUNT], 1, one)
