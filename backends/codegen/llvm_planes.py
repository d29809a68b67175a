"""Blocks of a depthwise convolution's result, for tasks: some channels of an image, in some lines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from omniop.backends.codegen.llvm_blocks import BlockSize, Epilogue
from omniop.backends.codegen.llvm_flow import each, least, word
from omniop.backends.codegen.llvm_ir import Code, Value, index


@dataclass(frozen=True)
class Planes:
    """A task's: of ``image``, channels ``first`` to ``end``, lines ``height`` from ``y`` on; a channel of the block is
    ``plane`` elements. Further words of the context: what they are all counted by."""

    image: Value
    first: Value
    end: Value
    y: Value
    height: Value
    plane: Value
    width: Value
    by_lines: Value

    @classmethod
    def of(cls, code: Code, fields: type[IntEnum], point: Value) -> Planes:
        """Those of a point, as a context's words tell: CHANNELS, OUT_HEIGHT, OUT_WIDTH, CHANNEL_BLOCK(S),
        LINE_BLOCK(S), and BY_LINES, which is 1 when the epilogue counts lines and columns, and else 0."""
        f = {name: word(code, "%context", fields[name]) for name in _WORDS}
        part, rest = code.op("urem", point, f["LINE_BLOCKS"]), code.op("udiv", point, f["LINE_BLOCKS"])
        group, image = code.op("urem", rest, f["CHANNEL_BLOCKS"]), code.op("udiv", rest, f["CHANNEL_BLOCKS"])
        first, y = code.mul(group, f["CHANNEL_BLOCK"]), code.mul(part, f["LINE_BLOCK"])
        return cls(
            image=image,
            first=first,
            end=least(code, code.add(first, f["CHANNEL_BLOCK"]), f["CHANNELS"]),
            y=y,
            height=least(code, code.op("sub", f["OUT_HEIGHT"], y), f["LINE_BLOCK"]),
            plane=code.mul(f["LINE_BLOCK"], f["OUT_WIDTH"]),
            width=f["OUT_WIDTH"],
            by_lines=f["BY_LINES"],
        )

    def each_channel(self, code: Code, body: Callable[[Code, Value, Value], None]) -> None:
        """``body(code, channel, place)``: where it begins in the block."""

        def run(inside: Code, channel: Value) -> None:
            body(inside, channel, inside.mul(inside.op("sub", channel, self.first), self.plane))

        each(code, self.first, self.end, 1, run)

    def finish(self, code: Code, epilogue: Epilogue, places: str) -> None:
        """The epilogue; ``places``: memory for a number."""
        by_lines = code.compare("ne", self.by_lines, index(0))
        values: dict[int, Value] = {
            BlockSize.ROW: self.first,
            BlockSize.Z: index(0),
            BlockSize.Y: code.mul(self.y, self.by_lines),
            BlockSize.X: code.select(by_lines, index(0), code.mul(self.y, self.width)),
            BlockSize.ROWS: code.op("sub", self.end, self.first),
            BlockSize.COUNT_Y: code.select(by_lines, self.height, index(1)),
            BlockSize.COUNT_X: code.mul(self.width, code.select(by_lines, index(1), self.height)),
            BlockSize.BLOCK_ROW: self.plane,
        }
        code.do(f"store {self.image}, ptr {places}, align 8")
        epilogue.run(code, values, places, index(1))


_WORDS = (
    *("CHANNELS", "OUT_HEIGHT", "OUT_WIDTH", "CHANNEL_BLOCK", "CHANNEL_BLOCKS"),
    *("LINE_BLOCK", "LINE_BLOCKS", "BY_LINES"),
)
