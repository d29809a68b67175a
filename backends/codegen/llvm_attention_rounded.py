"""Attention of bfloat16, as LLVM IR: both products are of words that hold two, scores and sums are float32.

Queries are copied, so that a row is whole words. Keys and values lie in panels, which `print_pack` has made; powers are
rounded where their scores stand, in half of the row.
"""

from __future__ import annotations

from omniop.backends.codegen import llvm_vector
from omniop.backends.codegen.llvm_attention import Driver, Field, PackWord, print_softmax
from omniop.backends.codegen.llvm_blocks import call_of, define_entry, function_table
from omniop.backends.codegen.llvm_dot import Dot
from omniop.backends.codegen.llvm_flow import address, argument, count, each, least, plus, word
from omniop.backends.codegen.llvm_ir import Code, Module, Value, const, index
from omniop.backends.codegen.llvm_narrow_packing import PACKERS, print_packer
from omniop.backends.codegen.llvm_narrow_strips import Strips
from omniop.backends.codegen.llvm_narrow_tiles import WORD, tile_of
from omniop.backends.codegen.llvm_narrow_tiles import Field as PanelField
from omniop.opset.dtype import BFLOAT16, FLOAT32, INT64, UINT8, UINT16

ENTRY, PACK_ENTRY = "attention_bf16", "pack_bf16"
KIND = Dot(BFLOAT16, BFLOAT16)
MATRIX_PACKERS = ("rows", "columns", "any")
"""Those of `llvm_narrow_packing.PACKERS` that are there."""


def print_pack(module: Module) -> None:
    """As `llvm_attention.print_pack`; the context is that of `llvm_narrow_tiles`, `Field.BLOCKS` being the panels of a
    matrix and `Field.WIDTH` its columns."""
    tile = tile_of(module.target)
    for name in MATRIX_PACKERS:
        print_packer(module, f"pack_{name}", PACKERS[name], KIND)
    function_table(module, "packers", [f"pack_{name}" for name in MATRIX_PACKERS])
    code = Code(module, "work")
    read = (PanelField.BLOCKS, PanelField.WIDTH, PanelField.PACKER, PanelField.BATCH_WORDS, PanelField.B_PANEL)
    f = {k: word(code, "%context", k) for k in read}
    batches = address(code, "%context", PanelField.BATCH_TABLE)
    stage = code.element("%scratch", UINT8, word(code, "%context", PanelField.SCRATCH_STAGE))

    def point(inside: Code, at: Value) -> None:
        panel, batch = inside.op("urem", at, f[PanelField.BLOCKS]), inside.op("udiv", at, f[PanelField.BLOCKS])
        line = inside.element(batches, INT64, inside.mul(batch, f[PanelField.BATCH_WORDS]))
        source = inside.element("%b", UINT16, word(inside, line, PackWord.SOURCE))
        target = inside.element("%c", UINT8, inside.mul(at, f[PanelField.B_PANEL]))
        x = inside.mul(panel, index(tile.width))
        columns = least(inside, inside.op("sub", f[PanelField.WIDTH], x), index(tile.width))
        numbers = (index(0), index(0), x, index(1), columns, index(0))
        call_of(inside, "packers", f[PanelField.PACKER], ("%context", target, source, stage), numbers)

    each(code, argument("begin"), argument("end"), 1, point)
    define_entry(module, PACK_ENTRY, code)


def print_attention(module: Module) -> None:
    """Adds `ENTRY` and all that it calls."""
    print_softmax(module, BFLOAT16)
    _Rounded(module).define(ENTRY)


class _Rounded(Driver):
    dtype = UINT16

    def __init__(self, module: Module) -> None:
        super().__init__(module)
        self.width = tile_of(module.target).width

    def first_product(self, code: Code, q: str, key: str, rows: Value) -> None:
        f = self.field
        words = _words(code, f[Field.DEPTH])
        self._take_queries(code, q, words, rows)
        strips = Strips(
            a_row=code.mul(words, index(WORD)),
            b_panel=code.mul(words, index(WORD * self.width)),
            rows=rows,
            columns=f[Field.KEYS],
            words=words,
            c_row=f[Field.SCORE_ROW],
            whole=index(1),
        )
        strips.call(code, self.strips, (self.queries, key, self.scores, self.scores))

    def second_product(self, code: Code, value: str, target: str, rows: Value) -> None:
        f = self.field
        words = _words(code, f[Field.KEYS])
        strips = Strips(
            a_row=code.mul(f[Field.SCORE_ROW], index(FLOAT32.itemsize)),
            b_panel=code.mul(words, index(WORD * self.width)),
            rows=rows,
            columns=f[Field.COLUMNS],
            words=words,
            c_row=f[Field.C_ROW],
            whole=code.convert("zext", self.fused, INT64),
        )
        strips.call(code, self.strips, (self.scores, value, target, target))

    def _take_queries(self, code: Code, q: str, words: Value, rows: Value) -> None:
        """Side by side, with zeros behind those of a row up to whole words."""
        f, lanes = self.field, tile_of(code.module.target).lanes
        step, depth, end = f[Field.Q_STEP], f[Field.DEPTH], code.mul(words, index(KIND.group))
        dense = code.select(code.compare("eq", step, index(1)), depth, index(0))

        def row(outer: Code, r: Value) -> None:
            source = outer.element(q, UINT16, outer.mul(r, f[Field.Q_ROW]))
            target = outer.element(self.queries, UINT16, outer.mul(r, end))

            def move(inside: Code, k: Value, place: Value, several: int) -> None:
                value = llvm_vector.load(inside, inside.element(source, UINT16, place), UINT16, several)
                llvm_vector.store(inside, inside.element(target, UINT16, k), value)

            done = count(outer, index(0), dense, lanes, lambda inside, k: move(inside, k, k, lanes))
            each(outer, done, depth, 1, lambda inside, k: move(inside, k, inside.mul(k, step), 1))
            zero = const(0, UINT16)
            each(
                outer,
                depth,
                end,
                1,
                lambda inside, k: llvm_vector.store(inside, inside.element(target, UINT16, k), zero),
            )

        each(code, index(0), rows, 1, row)


def _words(code: Code, elements: Value) -> Value:
    return code.op("udiv", plus(code, elements, KIND.group - 1), index(KIND.group))
