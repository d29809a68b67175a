"""LLVM IR as text: typed values, straight-line code, structured loops, and the module around them.

The layer below `llvm_kernel`, which knows kernels; this one knows only LLVM. A value has ``lanes``: 1 for a scalar,
more for an explicit vector. Vectors wider than a register are allowed and wanted: LLVM splits them into registers,
which unrolls a body without printing it several times.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from omniop.opset import dtype as dtypes
from omniop.opset.dtype import BOOL, INT32, INT64, DType

TYPES: dict[DType, str] = {
    BOOL: "i1",
    **{d: f"i{d.bits}" for d in dtypes.ALL if d.is_int and d.bits >= 8},
    dtypes.FLOAT16: "half",
    dtypes.FLOAT32: "float",
    dtypes.FLOAT64: "double",
}
"""LLVM's type of a value of each dtype that the dialect knows. In memory a bool is an i8."""


@dataclass(frozen=True)
class Target:
    """What printed code may count on.

    ``vector_bits``: width of a vector register. ``masked_bits``: element widths that have masked loads and stores.
    ``fma``: fused multiply-add is an instruction (without it the math functions are libm's). ``narrow``: instructions
    on narrow elements, of those that `llvm_dot` and `llvm_rounding` know.
    """

    vector_bits: int
    masked_bits: frozenset[int] = frozenset()
    fma: bool = True
    narrow: frozenset[str] = frozenset()


def type_of(dtype: DType, lanes: int = 1) -> str:
    return TYPES[dtype] if lanes == 1 else f"<{lanes} x {TYPES[dtype]}>"


def memory_type(dtype: DType, lanes: int = 1) -> str:
    """The type of ``dtype`` in memory."""
    return type_of(dtypes.UINT8 if dtype is BOOL else dtype, lanes)


@dataclass(frozen=True, slots=True)
class Value:
    """An SSA name or a constant, and its type."""

    text: str
    dtype: DType
    lanes: int = 1

    @property
    def type(self) -> str:
        return type_of(self.dtype, self.lanes)

    @property
    def is_const(self) -> bool:
        return not self.text.startswith("%")

    def __str__(self) -> str:
        return f"{self.type} {self.text}"


def number(value: bool | int | float, dtype: DType) -> str:
    """LLVM's spelling of a constant, rounded to ``dtype``."""
    if dtype is BOOL:
        return "true" if value else "false"
    if dtype.is_int:
        return str(int(value))
    if math.isnan(value):
        return "0xH7E00" if dtype.bits == 16 else "0x7FF8000000000000"
    if dtype.bits == 16:
        return "0xH" + _rounded(value, "e").hex().upper()
    wide = struct.unpack(">f", _rounded(value, "f"))[0] if dtype.bits == 32 else float(value)
    return "0x" + struct.pack(">d", wide).hex().upper()


def _rounded(value: float, code: str) -> bytes:
    try:
        return struct.pack(">" + code, value)
    except OverflowError:
        return struct.pack(">" + code, math.copysign(math.inf, value))


def const(value: bool | int | float, dtype: DType, lanes: int = 1) -> Value:
    """The number, in every lane."""
    text = number(value, dtype)
    return Value(text if lanes == 1 else f"splat ({TYPES[dtype]} {text})", dtype, lanes)


def index(value: int) -> Value:
    return const(value, INT64)


def constant_of(value: Value) -> int | float | None:
    """The number that a constant has in every lane; None for anything else."""
    if not value.is_const or value.text.startswith("<") or value.dtype in (BOOL, dtypes.FLOAT16):
        return None
    text = value.text.split()[-1].rstrip(")")
    return float(struct.unpack(">d", bytes.fromhex(text[2:]))[0]) if value.dtype.is_float else int(text)


def iota(lanes: int, dtype: DType = INT32, backwards: bool = False) -> Value:
    """The lane's number, in each lane."""
    numbers = reversed(range(lanes)) if backwards else range(lanes)
    return Value(f"<{', '.join(f'{TYPES[dtype]} {k}' for k in numbers)}>", dtype, lanes)


class Module:
    """Functions that are compiled together, with the intrinsics and C functions that they call."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.functions: dict[str, str] = {}
        self.symbols: set[str] = set()
        """C functions to be resolved in the process."""
        self._declarations: dict[str, str] = {}
        self._numbers = itertools.count()

    def fresh(self) -> int:
        return next(self._numbers)

    def declare(self, name: str, result: str, arguments: Sequence[str], attributes: str = "") -> None:
        self._declarations.setdefault(name, f"declare {result} @{name}({', '.join(arguments)}){attributes}")

    def __str__(self) -> str:
        return "\n".join([*self.functions.values(), *self._declarations.values(), ""])


class Code:
    """Instructions in order, ending in an open block.

    Operands of one instruction may mix scalars and vectors: scalars are repeated in every lane.
    """

    def __init__(self, module: Module, block: str = "entry") -> None:
        self.module = module
        self.block = block
        """Label of the block that instructions are being added to."""
        self.lines: list[str] = []

    def do(self, text: str) -> None:
        self.lines.append("  " + text)

    def let(self, text: str) -> str:
        """The name of a new value defined as ``text``."""
        name = f"%v{self.module.fresh()}"
        self.lines.append(f"  {name} = {text}")
        return name

    def begin(self, block: str) -> None:
        self.lines.append(f"{block}:")
        self.block = block

    # Values -----------------------------------------------------------------------------------------------------------

    def splat(self, value: Value, lanes: int) -> Value:
        """A scalar in every lane."""
        if value.lanes == lanes:
            return value
        if value.is_const:
            return Value(f"splat ({value})", value.dtype, lanes)
        wide = type_of(value.dtype, lanes)
        first = self.let(f"insertelement {wide} poison, {value}, i64 0")
        every = self.let(f"shufflevector {wide} {first}, {wide} poison, <{lanes} x i32> zeroinitializer")
        return Value(every, value.dtype, lanes)

    def level(self, *values: Value) -> list[Value]:
        """The values, all with as many lanes as the widest."""
        lanes = max(v.lanes for v in values)
        return [self.splat(v, lanes) for v in values]

    def lane(self, value: Value, k: int) -> Value:
        """One lane as a scalar; a scalar is its own every lane."""
        if value.lanes == 1:
            return value
        return Value(self.let(f"extractelement {value}, i64 {k}"), value.dtype)

    def gather(self, parts: Sequence[Value]) -> Value:
        """Scalars put together as lanes."""
        if len(parts) == 1:
            return parts[0]
        wide = type_of(parts[0].dtype, len(parts))
        text = "poison"
        for k, part in enumerate(parts):
            text = self.let(f"insertelement {wide} {text}, {part}, i64 {k}")
        return Value(text, parts[0].dtype, len(parts))

    def shuffle(self, value: Value, lanes: Sequence[int]) -> Value:
        """The named lanes, in order."""
        mask = ", ".join(f"i32 {k}" for k in lanes)
        if len(lanes) == 1:
            return self.lane(value, lanes[0])
        text = self.let(f"shufflevector {value}, {value.type} poison, <{len(lanes)} x i32> <{mask}>")
        return Value(text, value.dtype, len(lanes))

    def interleave(self, a: Value, b: Value) -> tuple[Value, Value]:
        """a0 b0 a1 b1 ... in two vectors."""
        half = a.lanes // 2
        low = [lane for k in range(half) for lane in (k, k + a.lanes)]
        return self.shuffle_two(a, b, low), self.shuffle_two(a, b, [k + half for k in low])

    def shuffle_two(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """The named lanes, in order, of ``a`` followed by ``b``."""
        mask = ", ".join(f"i32 {k}" for k in lanes)
        text = self.let(f"shufflevector {a}, {b}, <{len(lanes)} x i32> <{mask}>")
        return Value(text, a.dtype, len(lanes))

    # Instructions -----------------------------------------------------------------------------------------------------

    def op(self, instruction: str, *operands: Value) -> Value:
        """An instruction whose operands and result have one type."""
        args = self.level(*operands)
        text = self.let(f"{instruction} {args[0].type} {', '.join(a.text for a in args)}")
        return Value(text, args[0].dtype, args[0].lanes)

    def compare(self, predicate: str, a: Value, b: Value) -> Value:
        """An icmp or fcmp, by the operands' dtype."""
        a, b = self.level(a, b)
        instruction = "fcmp" if a.dtype.is_float else "icmp"
        return Value(self.let(f"{instruction} {predicate} {a}, {b.text}"), BOOL, a.lanes)

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        """``a`` where the condition holds; a scalar condition chooses whole vectors."""
        lanes = max(condition.lanes, a.lanes, b.lanes)
        a, b = self.splat(a, lanes), self.splat(b, lanes)
        return Value(self.let(f"select {condition}, {a}, {b}"), a.dtype, lanes)

    def convert(self, instruction: str, value: Value, dtype: DType) -> Value:
        text = self.let(f"{instruction} {value} to {type_of(dtype, value.lanes)}")
        return Value(text, dtype, value.lanes)

    def intrinsic(self, name: str, *operands: Value, dtype: DType | None = None, flags: str = "") -> Value:
        """``llvm.name`` of operands of one type; ``dtype`` of the result when it is another. ``flags``: trailing
        i1s."""
        args = self.level(*operands)
        result = Value("", dtype or args[0].dtype, args[0].lanes)
        suffixes = [result, args[0]] if dtype else [args[0]]
        full = f"llvm.{name}" + "".join("." + _mangled(v) for v in suffixes)
        self.module.declare(full, result.type, [a.type for a in args] + ["i1"] * bool(flags))
        text = self.let(f"call {result.type} @{full}({', '.join(map(str, args))}{flags and f', i1 {flags}'})")
        return Value(text, result.dtype, result.lanes)

    def each(self, function: str, *operands: Value) -> Value:
        """A function of scalars of one type, called for every lane."""
        args = self.level(*operands)
        result = TYPES[args[0].dtype]
        parts = []
        for k in range(args[0].lanes):
            scalars = ", ".join(str(self.lane(a, k)) for a in args)
            parts.append(Value(self.let(f"call {result} @{function}({scalars})"), args[0].dtype))
        return self.gather(parts)

    def c_function(self, name: str, *operands: Value) -> Value:
        """A function of the C library, called for every lane."""
        type_name = TYPES[operands[0].dtype]
        self.module.symbols.add(name)
        self.module.declare(name, type_name, [type_name] * len(operands))
        return self.each(name, *operands)

    def any_lane(self, condition: Value) -> Value:
        """Whether it holds in some lane."""
        if condition.lanes == 1:
            return condition
        packed = self.let(f"bitcast {condition} to i{condition.lanes}")
        return Value(self.let(f"icmp ne i{condition.lanes} {packed}, 0"), BOOL)

    def either(self, condition: Value, one: Callable[[], Value], other: Callable[[], Value]) -> Value:
        """The value of the branch that a scalar condition takes; only that one is run."""
        n = self.module.fresh()
        results = []
        self.do(f"br {condition}, label %one{n}, label %other{n}")
        for block, compute in ((f"one{n}", one), (f"other{n}", other)):
            self.begin(block)
            results.append((compute(), self.block))
            self.do(f"br label %join{n}")
        self.begin(f"join{n}")
        value = results[0][0]
        text = self.let(f"phi {value.type} " + ", ".join(f"[{v.text}, %{block}]" for v, block in results))
        return Value(text, value.dtype, value.lanes)

    # Integers that count ----------------------------------------------------------------------------------------------

    def add(self, a: Value, b: Value) -> Value:
        return a if b.text == "0" else b if a.text == "0" else self.op("add", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        if a.is_const and b.is_const:
            return index(int(a.text) * int(b.text))
        return a if b.text == "1" else b if a.text == "1" else self.op("mul", a, b)

    def element(self, pointer: str, dtype: DType, offset: Value) -> str:
        """The address of an element."""
        if offset.text == "0":
            return pointer
        return self.let(f"getelementptr {memory_type(dtype)}, ptr {pointer}, i64 {offset.text}")


def _mangled(value: Value) -> str:
    name = f"f{value.dtype.bits}" if value.dtype.is_float else TYPES[value.dtype]
    return name if value.lanes == 1 else f"v{value.lanes}{name}"


class Loop:
    """A loop that carries values. Its text joins ``parent`` when it is closed; until then both can be added to, and
    what the parent gets meanwhile runs before the loop: this is how invariant code is hoisted.

    After `test` it may run zero times; otherwise it runs at least once, and `close` says whether again.
    """

    def __init__(self, parent: Code, body: Code, initial: Sequence[Value]) -> None:
        self.parent = parent
        self.body = body
        self._number = parent.module.fresh()
        self._initial = tuple(initial)
        self._tested = False
        self.carried = [Value(f"%p{self._number}.{k}", v.dtype, v.lanes) for k, v in enumerate(initial)]
        """The values at the start of a run."""
        body.block = f"loop{self._number}"

    def test(self, condition: Value) -> None:
        """Leave before this run unless the condition holds."""
        self._tested = True
        inside = f"body{self._number}"
        self.body.do(f"br {condition}, label %{inside}, label %exit{self._number}")
        self.body.begin(inside)

    def close(self, updates: Sequence[Value], again: Value | None = None) -> list[Value]:
        """Ends the body with the values for the next run, made ``again`` holds. Gives the values after the loop."""
        n = self._number
        if self._tested == (again is not None):
            raise ValueError("a loop is tested before its runs or after them")
        back = f"br {again}, label %loop{n}, label %exit{n}" if again else f"br label %loop{n}"
        phis = [
            f"  {phi.text} = phi {phi.type} [{first.text}, %pre{n}], [{update.text}, %{self.body.block}]"
            for phi, first, update in zip(self.carried, self._initial, updates, strict=True)
        ]
        self.parent.do(f"br label %pre{n}")
        self.parent.lines += [f"pre{n}:", f"  br label %loop{n}", f"loop{n}:", *phis, *self.body.lines, f"  {back}"]
        self.parent.begin(f"exit{n}")
        return self.carried if self._tested else list(updates)


class Section:
    """Code that joins ``parent`` when it is closed, like a loop that runs once."""

    def __init__(self, parent: Code, body: Code) -> None:
        self.parent = parent
        self.body = body
        self._label = f"part{parent.module.fresh()}"
        body.block = self._label

    def close(self) -> None:
        self.parent.do(f"br label %{self._label}")
        self.parent.lines += [f"{self._label}:", *self.body.lines]
        self.parent.block = self.body.block
