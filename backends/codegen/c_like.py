"""Prints linearised programs in C: what OpenCL C, CUDA C and C99 have in common.

A `Dialect` holds the words that differ. A kernel is printed on its own (`Dialect.print_kernel`) and names the helpers
that it uses; `Dialect.unit` puts any number of kernels and their helpers, once, into one compilable text.

A kernel's arguments are its buffers in the order of its params, then its sizes as 64-bit integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from omniop.backends.codegen.c_helpers import helper, literal, memory_name, operation, type_name
from omniop.backends.codegen.indexing import host_function
from omniop.backends.codegen.linearise import combine, linearise
from omniop.backends.codegen.program import Const, GridAxis, Let, Load, Loop, Operand, Program, Stmt, Store, Var
from omniop.backends.codegen.schedule import SEQUENTIAL, Schedule, Target, default_schedule
from omniop.opset import expr
from omniop.opset.dtype import BOOL, INT64, DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Kernel


@dataclass(frozen=True)
class Source:
    """A printed kernel: part of a unit that `Dialect.unit` makes.

    ``uses``: the helpers and types it needs. ``lanes``: the work-group size it was printed for, 1 when any will do.
    ``points(sizes)``: how many points of the grid a launch runs over.
    """

    name: str
    text: str
    uses: frozenset[str]
    lanes: int
    points: Callable[[Sequence[int]], int] = field(compare=False)

    def global_size(self, sizes: Sequence[int]) -> int:
        """Work items of a launch, a whole number of groups where ``lanes`` is above 1. More may be started."""
        return self.points(sizes) * self.lanes

    @property
    def local_size(self) -> int | None:
        """Work items of a group; None when any will do."""
        return self.lanes if self.lanes > 1 else None


def points(program: Program) -> Callable[[Sequence[int]], int]:
    """The number of points of the grid, as a function of the sizes."""
    total: Expr = expr.const(1, INT64)
    for extent in program.items:
        total = total * extent
    count = host_function([total])
    return lambda sizes: count(sizes)[0]


class KernelPrinter:
    """Prints one program."""

    def __init__(self, dialect: Dialect, program: Program) -> None:
        self.dialect = dialect
        self.program = program
        self.lines: list[str] = []
        self.used: set[str] = set()
        self.more_arguments: list[str] = []
        """After the sizes."""
        self._depth = 1
        self._locals: dict[str, str] = {}
        self._temporaries = 0

    def kernel(self, name: str) -> str:
        """The whole function."""
        program, dialect = self.program, self.dialect
        self.block(program.prologue)
        self._grid()
        self.block(program.body)
        arguments = [f"{dialect.space}{self.pointer(k)} b{k}" for k in range(len(program.params))]
        arguments += [*(f"i64 s{k}" for k in range(program.sizes)), *self.more_arguments]
        opening = dialect.kernel if program.lanes == 1 else dialect.group_kernel
        head = opening.format(name=name, arguments=", ".join(arguments), lanes=program.lanes)
        shared = [f"  {dialect.local}{t} {n}[{program.lanes}];" for n, t in self._locals.items()]
        return "\n".join((f"{head} {{", *shared, *self.lines, "}"))

    def pointer(self, buffer: int) -> str:
        """The type of a buffer argument. None is ``restrict``: a buffer may be read and written in place."""
        param = self.program.params[buffer]
        self._note(param.dtype)
        written = param.written or buffer == self.program.error
        return f"{'' if written else 'const '}{memory_name(param.dtype)}*"

    def _grid(self) -> None:
        grid = self.program.grid
        if self.program.lanes > 1:
            self.line(f"const i32 lane = {self.dialect.lane};")
            self.line(f"const i64 point = {self.dialect.group};")
        else:
            self.line(f"const i64 point = {self.dialect.point};")
            count = " * ".join(f"(i64){self.operand(axis.extent)}" for axis in grid) or "1"
            self.line(f"if (point >= {count}) return;")
        self.decompose("point", grid)

    def decompose(self, point: str, axes: Sequence[GridAxis]) -> None:
        """Define the indices of ``axes``, the last of which runs fastest, at a point."""
        index = type_name(self.program.index)
        unsigned = "u" + index[1:]
        if len(axes) > 1:
            self.line(f"{unsigned} rest = ({unsigned}){point};")
            point = "rest"
        for axis in reversed(axes[1:]):
            extent = f"({unsigned}){self.operand(axis.extent)}"
            self.line(f"const {index} {name_of(axis.var)} = ({index})(rest % {extent}); rest /= {extent};")
        for axis in axes[:1]:
            self.line(f"const {index} {name_of(axis.var)} = ({index}){point};")

    # Statements -------------------------------------------------------------------------------------------------------

    def line(self, text: str) -> None:
        self.lines.append("  " * self._depth + text)

    def open(self, head: str) -> None:
        self.line(head + " {")
        self._depth += 1

    def shut(self) -> None:
        self._depth -= 1
        self.line("}")

    def block(self, stmts: Iterable[Stmt]) -> None:
        printers: dict[type, Callable[..., None]] = {
            Let: self._let,
            Load: self._load,
            Store: self._store,
            Loop: self._loop,
        }
        for stmt in stmts:
            printers[type(stmt)](stmt)

    def define(self, var: Var, value: str, const: bool = True) -> None:
        self._note(var.dtype)
        self.line(f"{'const ' if const else ''}{type_name(var.dtype)} {name_of(var)} = {value};")

    def operand(self, x: Operand) -> str:
        return literal(x, self.use) if isinstance(x, Const) else name_of(x)

    def use(self, name: str) -> str:
        self.used.add(name)
        for part in name.split("_"):
            if part in self.dialect.own:
                self.used.add(part)
        return name

    def _note(self, dtype: DType) -> None:
        if type_name(dtype) in self.dialect.own:
            self.used.add(type_name(dtype))

    def _let(self, let: Let) -> None:
        operands = [self.operand(a) for a in let.args]
        own = f"{let.op}_{type_name(let.var.dtype)}"
        if let.op == "size":
            value = f"({type_name(let.var.dtype)})s{let.attr}"
        elif own in self.dialect.own:
            value = f"{self.use(own)}({', '.join(operands)})"
        else:
            value = operation(let, operands, self.use, self.dialect.suffix)
        self.define(let.var, value)

    def _element(self, buffer: int, offset: Operand) -> str:
        return f"b{buffer}[{self.operand(offset)}]"

    def _load(self, load: Load) -> None:
        element = self._element(load.buffer, load.offset)
        if load.var.dtype is BOOL:
            element = f"({element} != 0)"
        if load.guard is None or load.other is None:
            self.define(load.var, element)
            return
        self.define(load.var, f"{self.operand(load.guard)} ? {element} : {self.operand(load.other)}")
        if load.fault:
            self.line(f"if (!{self.operand(load.guard)}) {self._fault(load.fault)}")

    def _fault(self, code: int) -> str:
        return f"b{self.program.error}[0] = {code};"

    def _store(self, store: Store) -> None:
        element = self._element(store.buffer, store.offset)
        dtype = self.program.params[store.buffer].dtype
        value = self.operand(store.value)
        if store.combine is not None and store.atomic:
            helper_name = self.use(f"atomic_{store.combine}_{type_name(dtype)}")
            text = f"{helper_name}(b{store.buffer} + {self.operand(store.offset)}, {value});"
        else:
            if store.combine is not None:
                value = self._combined(store, dtype, element)
            text = f"{element} = {value};"
        if store.guard is None:
            self.line(text)
            return
        otherwise = f" else {self._fault(store.fault)}" if store.fault else ""
        self.line(f"if ({self.operand(store.guard)}) {{ {text} }}{otherwise}")

    def _combined(self, store: Store, dtype: DType, element: str) -> str:
        assert store.combine is not None
        old = Var(-1, dtype)
        let = Let(Var(-2, dtype), store.combine, (old, store.value))
        before = f"({element} != 0)" if dtype is BOOL else element
        return operation(let, [before, self.operand(store.value)], self.use, self.dialect.suffix)

    def _loop(self, loop: Loop) -> None:
        for carried in loop.carried:
            self.define(carried.var, self.operand(carried.init), const=False)
        index = name_of(loop.index)
        first, step = ("lane", f"{index} += {self.program.lanes}") if loop.lanes else ("0", f"++{index}")
        kind = type_name(loop.index.dtype)
        self.open(f"for ({kind} {index} = {first}; {index} < {self.operand(loop.extent)}; {step})")
        self.block(loop.body)
        ended = None if loop.until is None else self._temporary(BOOL)
        if ended is not None and loop.until is not None:  # it may be a value that is now updated
            self.define(ended, self.operand(loop.until))
        self._update(loop)
        if ended is not None:
            self.line(f"if ({name_of(ended)}) break;")
        self.shut()
        if loop.lanes:
            for reduction in loop.reductions:
                last = reduction.first + reduction.count
                self._across(reduction.monoid, [c.var for c in loop.carried[reduction.first : last]])

    def _update(self, loop: Loop) -> None:
        """All updates at once: one that reads a value which is itself updated takes a copy first."""
        changed = {c.var for c in loop.carried if c.update is not c.var}
        news = [self.operand(c.update) for c in loop.carried]
        for k, carried in enumerate(loop.carried):
            if carried.update in changed:
                copy = self._temporary(carried.var.dtype)
                self.define(copy, news[k])
                news[k] = name_of(copy)
        for carried, new in zip(loop.carried, news, strict=True):
            if carried.update is not carried.var:
                self.line(f"{name_of(carried.var)} = {new};")

    # Work groups ------------------------------------------------------------------------------------------------------

    def _across(self, monoid: str, values: Sequence[Var]) -> None:
        """Reduce over the lanes through shared memory, as a tree; every lane gets the result."""
        arrays = [self._local(k, v.dtype) for k, v in enumerate(values)]
        lanes = self.program.lanes
        for array, value in zip(arrays, values, strict=True):
            self.line(f"{array}[lane] = {name_of(value)};")
        self.line(self.dialect.barrier)
        self.open(f"for (i32 reach = {lanes // 2}; reach > 0; reach >>= 1)")
        self.open("if (lane < reach)")
        others = [self._temporary(v.dtype) for v in values]
        for array, other in zip(arrays, others, strict=True):
            self.define(other, f"{array}[lane + reach]")
        joined = combine(monoid, values, others, self._temporary_let)
        for array, value, new in zip(arrays, values, joined, strict=True):
            self.line(f"{name_of(value)} = {self.operand(new)};")
            self.line(f"{array}[lane] = {name_of(value)};")
        self.shut()
        self.line(self.dialect.barrier)
        self.shut()
        for array, value in zip(arrays, values, strict=True):
            self.line(f"{name_of(value)} = {array}[0];")
        self.line(self.dialect.barrier)

    def _local(self, place: int, dtype: DType) -> str:
        name = f"local{place}_{memory_name(dtype)}"
        self._locals[name] = memory_name(dtype)
        return name

    def _temporary(self, dtype: DType) -> Var:
        self._temporaries += 1
        return Var(-self._temporaries, dtype)

    def _temporary_let(self, op: str, dtype: DType, *args: Operand) -> Var:
        var = self._temporary(dtype)
        self._let(Let(var, op, args))
        return var


def name_of(var: Var) -> str:
    return f"v{var.number}" if var.number >= 0 else f"t{-var.number}"


@dataclass(frozen=True)
class Dialect:
    """The words of one C."""

    name: str
    header: str
    """Comes first in a unit: the types, and pragmas."""
    own: Mapping[str, str]
    """Helpers, and what a type or feature needs before it can be used. What has the names of an operation and a type is
    the function for it."""
    function: str
    """Stands before a helper function."""
    kernel: str
    """Begins a kernel: of ``{name}`` and ``{arguments}``."""
    group_kernel: str
    """The same for a work group of ``{lanes}``."""
    space: str
    """Stands before a pointer to memory."""
    local: str
    """Declares an array that a work group shares."""
    point: str
    """The number of the work item."""
    group: str
    """The number of the work group."""
    lane: str
    barrier: str
    suffix: Callable[[DType], str]
    """Ends the name of a math function."""
    cas: Mapping[int, str] = field(default_factory=dict)
    """Compare-and-swap of a word, by its width: ``{p}``, ``{old}``, ``{new}``."""
    atomics: Mapping[str, str] = field(default_factory=dict)
    """What the language has itself, by helper name: statements on ``p`` and ``v``."""

    printer: type[KernelPrinter] = KernelPrinter

    def print_kernel(
        self,
        kernel: Kernel,
        name: str,
        schedule: Schedule | None = None,
        index_bits: int = 32,
        target: Target = SEQUENTIAL,
    ) -> Source:
        """A legal ``kernel`` as the function ``name``.

        Without a ``schedule``, the default one for ``target``. With 32 index bits the caller has made sure that
        `indexing.fits32` holds and that no buffer has 2**31 elements.
        """
        program = linearise(kernel, schedule or default_schedule(kernel, target), index_bits)
        printer = self.printer(self, program)
        text = printer.kernel(name)
        return Source(name, text, frozenset(printer.used), program.lanes, points(program))

    def unit(self, sources: Iterable[Source]) -> str:
        """One compilable text of several kernels; their names must differ."""
        sources = tuple(sources)
        uses = frozenset().union(*(s.uses for s in sources))
        return "\n".join((self.prelude(uses), *(s.text for s in sources)))

    def prelude(self, uses: Iterable[str]) -> str:
        """The header and the definitions of ``uses``, in an order that defines before use."""
        names = dict.fromkeys(name for use in sorted(uses) for name in (*self._needs(use), use))
        types = [n for n in names if n in self.own]
        return "\n".join(
            (self.header, *(self.own[n] for n in types), *(self._define(n) for n in names if n not in types))
        )

    def _needs(self, use: str) -> list[str]:
        """Helpers that a helper calls."""
        op, dtype = _atomic_parts(use)
        if op is None or use in self.atomics:
            return []
        words = [f"cas{dtype[1:]}"] if f"cas{dtype[1:]}" in self.own else []
        if dtype.startswith("f"):
            words += [f"bits_{dtype}", f"{dtype}_bits", *([f"{op}_{dtype}"] if op in ("min", "max") else [])]
        return words

    def _define(self, use: str) -> str:
        op, dtype = _atomic_parts(use)
        if op is None:
            return helper(use, self.function)
        return self._atomic(use, op, dtype)

    def _atomic(self, use: str, op: str, dtype: str) -> str:
        head = f"{self.function}void {use}({self.space}{dtype}* p, {dtype} v)"
        if use in self.atomics:
            return f"{head} {{ {self.atomics[use]}; }}"
        word = f"u{dtype[1:]}"
        real = dtype.startswith("f")
        old = f"bits_{dtype}(old)" if real else f"({dtype})old"
        signs = {"add": "{0} + {1}", "mul": "{0} * {1}"}
        orders = {"min": "{0} < {1} ? {0} : {1}", "max": "{0} > {1} ? {0} : {1}"}
        if op in signs:
            new = signs[op].format(old, "v") if real else signs[op].format("old", f"({word})v")
        else:
            new = f"{op}_{dtype}({old}, v)" if real else orders[op].format(old, "v")
        new = f"{dtype}_bits({new})" if real else f"({word})({new})"
        cas = self.cas[int(dtype[1:])].format(p="p", old="old", new=new)
        body = f"{word} seen = *({self.space}{word}*)p, old; do {{ old = seen; seen = {cas}; }} while (seen != old);"
        return f"{head} {{ {body} }}"


def _atomic_parts(use: str) -> tuple[str | None, str]:
    parts = use.split("_")
    return (parts[1], parts[2]) if parts[0] == "atomic" else (None, "")
