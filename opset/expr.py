"""Expressions of the kernel IR: a frozen, hash-consed, typed DAG.

Equal expressions are the same object, so ``is`` compares and sharing is kept. Build them with the functions here,
which fold constants; nodes are never changed. The arithmetic itself is described in `omniop.opset.alu`.

==========  =========================  ==========================================================================
``op``      ``args``                   ``attr``
==========  =========================  ==========================================================================
const       ()                         the value: bool, int or float
size        ()                         name of a size symbol (int64)
axis        (extent,)                  number of the axis; its value runs over 0 .. extent - 1
load        (*index, [guard, other])   `Load`: the source, whether guarded, and the fault a failed guard raises
alu         operands                   name in `alu.ALU`
cast        (x,)                       None; to ``dtype``
bitcast     (x,)                       None; same width
select      (condition, x, y)          None
reduce      (*axes, *values)           `Reduce`: monoid and how many of ``args`` are axes
carry       ()                         number of a scalar carried by the kernel's sequential axis
hole        ()                         None: the value a tuned kernel computed, in an epilogue
==========  =========================  ==========================================================================
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import lru_cache
from typing import Any
from weakref import WeakValueDictionary

from omniop.opset.alu import ALU, INTEGER, MONOIDS, wrap
from omniop.opset.dtype import BOOL, INT64, DType
from omniop.opset.expr_attributes import Load, Reduce


class Expr:
    """A node. Compare with ``is``; use the module's functions to make one."""

    __slots__ = ("__weakref__", "_below", "_digest", "_free", "_poly", "args", "attr", "dtype", "holds", "op")

    op: str
    dtype: DType
    args: tuple[Expr, ...]
    attr: Any
    holds: int
    """Bits of `LOAD`, `FAULT`, `REDUCE` for what is in the expression, itself included."""
    _below: tuple[Expr, ...] | None
    """What `walk` gives before the node itself, once it was asked for."""
    _free: frozenset[Expr] | None
    _poly: dict[tuple[Expr, ...], int] | None
    _digest: bytes | None
    """Both kept by `omniop.opset.poly`, for nodes that it was asked about."""

    def __repr__(self) -> str:
        from omniop.opset.expr_text import format_expr

        return format_expr(self)

    def __copy__(self) -> Expr:
        return self

    def __deepcopy__(self, memo: object) -> Expr:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (_make, (self.op, self.dtype, self.args, self.attr))

    # Arithmetic, so that lowerings read as formulas. Python numbers are taken in the other operand's dtype.
    def __add__(self, other: Scalar) -> Expr:
        return binary("add", self, other)

    def __radd__(self, other: Scalar) -> Expr:
        return binary("add", other, self)

    def __sub__(self, other: Scalar) -> Expr:
        return binary("sub", self, other)

    def __rsub__(self, other: Scalar) -> Expr:
        return binary("sub", other, self)

    def __mul__(self, other: Scalar) -> Expr:
        return binary("mul", self, other)

    def __rmul__(self, other: Scalar) -> Expr:
        return binary("mul", other, self)

    def __truediv__(self, other: Scalar) -> Expr:
        return binary("div", self, other)

    def __rtruediv__(self, other: Scalar) -> Expr:
        return binary("div", other, self)

    def __floordiv__(self, other: Scalar) -> Expr:
        return binary("floordiv", self, other)

    def __mod__(self, other: Scalar) -> Expr:
        return binary("floormod", self, other)

    def __neg__(self) -> Expr:
        return alu("neg", self)

    def __and__(self, other: Scalar) -> Expr:
        return binary("and", self, other)

    def __or__(self, other: Scalar) -> Expr:
        return binary("or", self, other)

    def __xor__(self, other: Scalar) -> Expr:
        return binary("xor", self, other)

    def __invert__(self) -> Expr:
        return alu("not", self)

    def __lt__(self, other: Scalar) -> Expr:
        return binary("lt", self, other)

    def __le__(self, other: Scalar) -> Expr:
        return binary("le", self, other)

    def __gt__(self, other: Scalar) -> Expr:
        return binary("lt", other, self)

    def __ge__(self, other: Scalar) -> Expr:
        return binary("le", other, self)

    def eq(self, other: Scalar) -> Expr:
        """Element equality (``==`` is identity of the node)."""
        return binary("eq", self, other)

    def ne(self, other: Scalar) -> Expr:
        return binary("ne", self, other)

    def cast(self, dtype: DType) -> Expr:
        return cast(self, dtype)


Scalar = Expr | int | float | bool

LOAD, FAULT, REDUCE = 1, 2, 4
_OWN_BITS = {"load": LOAD, "reduce": REDUCE}

_interned: WeakValueDictionary[tuple[Hashable, ...], Expr] = WeakValueDictionary()


def _key(op: str, dtype: DType, args: tuple[Expr, ...], attr: Any) -> tuple[Hashable, ...]:
    if op == "const" and isinstance(attr, float):
        attr = ("float", struct.pack("<d", attr))  # -0.0, and NaN, which is not equal to itself
    elif op == "const":
        attr = (type(attr).__name__, attr)
    return (op, dtype.name, tuple(map(id, args)), attr)


def _make(op: str, dtype: DType, args: tuple[Expr, ...] = (), attr: Any = None) -> Expr:
    key = _key(op, dtype, args, attr)
    found = _interned.get(key)
    if found is None:
        found = Expr()
        found.op, found.dtype, found.args, found.attr = op, dtype, args, attr
        found.holds = _OWN_BITS.get(op, 0) | (FAULT if op == "load" and attr.fault else 0)
        for a in args:
            found.holds |= a.holds
        found._below = found._free = found._poly = found._digest = None
        found = _interned.setdefault(key, found)
    return found


@lru_cache(maxsize=1 << 12)
def _whole(value: int) -> Expr:
    """Of int64: most constants, most of which are few."""
    return _make("const", INT64, (), wrap(value, INT64))


def const(value: bool | int | float | complex, dtype: DType) -> Expr:
    """``value`` in ``dtype``: wrapped into an integer's width, as Python's number otherwise."""
    if dtype is INT64 and type(value) is int:
        return _whole(value)
    if dtype.kind == "b":
        value = bool(value)
    elif isinstance(value, complex) or dtype.kind == "c":
        value = complex(value)
    else:
        value = wrap(int(value), dtype) if dtype.is_int else float(value)
    return _make("const", dtype, (), value)


def index(value: Scalar) -> Expr:
    """An int64 expression: of a Python int, or of an integer expression of any width."""
    if isinstance(value, Expr):
        return cast(value, INT64)
    return const(value, INT64)


SCALAR = "~"
"""First character of a size symbol that is any integer; every other size is a dim, at least 1."""


def size(name: str) -> Expr:
    return _make("size", INT64, (), name)


def axis(number: int, extent: Scalar) -> Expr:
    """Axis ``number`` of an index space. An axis of extent 1 is the constant 0."""
    extent = index(extent)
    if is_const(extent, 1):
        return const(0, INT64)
    return _make("axis", INT64, (extent,), number)


def raw_axis(number: int, extent: Expr) -> Expr:
    """Like `axis`, also for extent 1: for code that needs an axis node to bind."""
    return _make("axis", INT64, (extent,), number)


def load(
    source: Any,
    indices: tuple[Expr, ...],
    dtype: DType,
    guard: Expr | None = None,
    other: Scalar = 0,
    fault: int = 0,
) -> Expr:
    """Element of ``source``; where ``guard`` is false, ``other`` instead, and memory is not touched."""
    if guard is None or is_const(guard, True):
        return _make("load", dtype, indices, Load(source))
    other = other if isinstance(other, Expr) else const(other, dtype)
    if is_const(guard, False) and not fault:
        return other
    return _make("load", dtype, (*indices, guard, other), Load(source, True, fault))


def load_parts(node: Expr) -> tuple[tuple[Expr, ...], Expr | None, Expr | None]:
    """(indices, guard, other) of a load."""
    if node.attr.guarded:
        return node.args[:-2], node.args[-2], node.args[-1]
    return node.args, None, None


def reduce(monoid: str, axes: tuple[Expr, ...], values: tuple[Expr, ...]) -> Expr:
    """``values`` combined over all points of ``axes`` (axis nodes). Axes of extent 1 were folded away by `axis`."""
    if monoid not in MONOIDS:
        raise ValueError(f"unknown monoid {monoid!r}; known: {', '.join(MONOIDS)}")
    axes = tuple(a for a in axes if a.op == "axis")
    if not axes:
        return values[-1]
    return _make("reduce", values[-1].dtype, (*axes, *values), Reduce(monoid, len(axes)))


def carry(number: int, dtype: DType) -> Expr:
    return _make("carry", dtype, (), number)


def hole(dtype: DType) -> Expr:
    return _make("hole", dtype)


def is_const(node: Expr, value: bool | int | float | None = None) -> bool:
    return node.op == "const" and (value is None or node.attr == value)


def cast(x: Expr, dtype: DType) -> Expr:
    if x.dtype is dtype:
        return x
    if x.op == "const" and (dtype.kind == "b" or (dtype.is_int and x.dtype.kind in "bui")):
        return const(x.attr, dtype)
    if x.op == "const" and dtype.bits >= 32 and dtype.is_float and x.dtype.kind in "bui" and abs(x.attr) < 2**24:
        return const(float(x.attr), dtype)
    return _make("cast", dtype, (x,))


def bitcast(x: Expr, dtype: DType) -> Expr:
    if x.dtype is dtype:
        return x
    if x.dtype.bits != dtype.bits:
        raise ValueError(f"bitcast from {x.dtype} to {dtype}: widths differ")
    return _make("bitcast", dtype, (x,))


def select(condition: Expr, x: Scalar, y: Scalar) -> Expr:
    x, y = _same_dtype(x, y)
    if condition.op == "const":
        return x if condition.attr else y
    return x if x is y else _make("select", x.dtype, (condition, x, y))


def binary(name: str, x: Scalar, y: Scalar) -> Expr:
    x, y = _same_dtype(x, y)
    return alu(name, x, y)


def _same_dtype(x: Scalar, y: Scalar) -> tuple[Expr, Expr]:
    if not isinstance(x, Expr):
        if not isinstance(y, Expr):
            raise TypeError("one operand must be an expression, to give the dtype")
        x = const(x, y.dtype)
    if not isinstance(y, Expr):
        y = const(y, x.dtype)
    return x, y


def minimum(x: Scalar, y: Scalar) -> Expr:
    return binary("min", x, y)


def maximum(x: Scalar, y: Scalar) -> Expr:
    return binary("max", x, y)


def all_of(conditions: list[Expr]) -> Expr | None:
    """Conjunction; None when there is nothing to test."""
    result: Expr | None = None
    for condition in conditions:
        if not is_const(condition, True):
            result = condition if result is None else alu("and", result, condition)
    return result


class OperandError(TypeError):
    """An operation was given dtypes that it does not take."""


def alu(name: str, *args: Expr) -> Expr:
    """An arithmetic node, folded where integers are constant or neutral.

    Raises OperandError when the operands' dtypes differ or the operation does not take them.
    """
    op = ALU[name]
    dtype = args[0].dtype
    if len(args) != op.arity or dtype.kind not in op.kinds or any(a.dtype is not dtype for a in args):
        raise OperandError(f"{name} takes {op.arity} operands of one dtype of kinds '{op.kinds}', got {args!r}")
    result = BOOL if op.result == "bool" else dtype
    folded = _fold(name, result, args) if dtype.kind in "bui" else None
    return folded if folded is not None else _make("alu", result, args, name)


_RIGHT_NEUTRAL = {"add": 0, "sub": 0, "mul": 1, "div": 1, "floordiv": 1, "or": 0, "xor": 0, "shl": 0, "shr": 0}


def _fold(name: str, result: DType, args: tuple[Expr, ...]) -> Expr | None:
    if all(a.op == "const" for a in args):
        if name == "not":
            value = args[0].attr
            return const(not value if result.kind == "b" else ~value, result)
        if name in INTEGER and not (name in ("floordiv", "floormod") and args[1].attr == 0):
            return const(INTEGER[name](*(a.attr for a in args)), result)
        return None
    if len(args) != 2:
        return None
    x, y = args
    if name in ("add", "mul", "and", "or", "xor", "min", "max") and x.op == "const":
        x, y = y, x  # a constant on the right, so that each rule is written once
        if name in ("add", "mul"):
            args = (x, y)
    if y.op == "const":
        value = y.attr
        if x.dtype.kind == "b" and name in ("and", "or"):
            return x if value == (name == "and") else y
        if name in _RIGHT_NEUTRAL and value == _RIGHT_NEUTRAL[name] and x.dtype.kind != "b":
            return x
        if (name == "mul" or name == "and") and value == 0:
            return y
        if name == "floormod" and value == 1:
            return const(0, x.dtype)
        # (x + a) + b and (x * a) * b, so that chains of views stay short
        if name in ("add", "mul") and x.op == "alu" and x.attr == name and x.args[1].op == "const":
            return alu(name, x.args[0], const(INTEGER[name](x.args[1].attr, value), x.dtype))
    if x is y:
        if name in ("sub", "xor") or name == "floormod":
            return const(0, result)
        if name in ("min", "max", "and", "or"):
            return x
        if name in ("eq", "le", "ne", "lt"):
            return const(name in ("eq", "le"), BOOL)
    return _make("alu", result, args, name) if args != (x, y) and name in ("add", "mul") else None


# Walking ----------------------------------------------------------------------------------------------------------


def walk(*roots: Expr) -> Iterable[Expr]:
    """Every node once, operands before users."""
    if len(roots) == 1:
        return (*_below(roots[0]), roots[0])
    return dict.fromkeys(node for root in roots for node in (*_below(root), root))


def _below(root: Expr) -> tuple[Expr, ...]:
    """The nodes under ``root``, kept: expressions are walked many times."""
    if root._below is None:
        found: dict[Expr, None] = {}
        stack: list[tuple[Expr, bool]] = [(a, False) for a in reversed(root.args)]
        while stack:
            node, ready = stack.pop()
            if node in found:
                continue
            if ready or not node.args:
                found[node] = None
            elif node._below is not None:
                found.update(dict.fromkeys(node._below))
                found[node] = None
            else:
                stack.append((node, True))
                stack.extend([(a, False) for a in reversed(node.args) if a not in found])
        root._below = tuple(found)
    return root._below


def rebuild(node: Expr, args: tuple[Expr, ...]) -> Expr:
    """The same operation on other operands, folded again."""
    if args == node.args:
        return node
    if node.op == "alu":
        return alu(node.attr, *args)
    if node.op == "cast":
        return cast(args[0], node.dtype)
    if node.op == "select":
        return select(*args)
    if node.op == "reduce":
        n = node.attr.axes
        return reduce(node.attr.monoid, args[:n], args[n:])
    if node.op == "load" and node.attr.guarded:
        return load(node.attr.source, args[:-2], node.dtype, args[-2], args[-1], node.attr.fault)
    if node.op == "axis":
        return axis(node.attr, args[0])
    return _make(node.op, node.dtype, args, node.attr)


def substitute(root: Expr, mapping: Mapping[Expr, Expr]) -> Expr:
    """``root`` with nodes replaced; what replaces a node is not looked into again."""
    return rewrite(root, mapping.get)


def rewrite(root: Expr, replace: Callable[[Expr], Expr | None]) -> Expr:
    """Bottom-up: ``replace(original node)`` gives a node to use instead, or None to rebuild it from its operands."""
    done: dict[Expr, Expr] = {}
    stack: list[tuple[Expr, bool]] = [(root, False)]
    while stack:
        node, ready = stack.pop()
        if node in done:
            continue
        if ready:
            done[node] = rebuild(node, tuple(done[a] for a in node.args))
            continue
        new = replace(node)
        if new is not None:
            done[node] = new
            continue
        stack.append((node, True))
        stack.extend((a, False) for a in node.args if a not in done)
    return done[root]


def free_axes(*roots: Expr) -> set[Expr]:
    """Axis nodes that no reduce inside binds."""
    return set().union(*map(_free_axes, roots))


def _free_axes(root: Expr) -> frozenset[Expr]:
    if root._free is None:
        for node in walk(root):
            if node._free is None:
                if node.op == "axis":
                    node._free = frozenset((node,))
                    continue
                free = frozenset().union(*(_free_axes(a) for a in node.args))
                node._free = free.difference(node.args[: node.attr.axes]) if node.op == "reduce" else free
    assert root._free is not None
    return root._free


def evaluate(root: Expr, sizes: Mapping[str, int], axes: Mapping[int, int] | None = None) -> int:
    """Value of an integer expression over sizes (and axes)."""
    if root.op == "const":
        return root.attr
    memo: dict[Expr, int] = {}
    for node in walk(root):
        if node.op == "const":
            memo[node] = node.attr
        elif node.op == "size":
            memo[node] = sizes[node.attr]
        elif node.op == "axis":
            memo[node] = (axes or {}).get(node.attr, 0)
        elif node.op == "select":
            memo[node] = memo[node.args[1]] if memo[node.args[0]] else memo[node.args[2]]
        elif node.op == "cast":
            memo[node] = int(memo[node.args[0]])
        elif node.op == "alu" and node.attr == "not":
            memo[node] = not memo[node.args[0]]
        elif node.op == "alu":
            memo[node] = INTEGER[node.attr](*(memo[a] for a in node.args))
        else:
            raise ValueError(f"not an expression over sizes: {root!r}")
    return memo[root]
