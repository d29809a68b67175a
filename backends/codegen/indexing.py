"""Index arithmetic of kernels: which expressions it is, whether 32 bits hold it, and its evaluation on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from omniop.opset import expr
from omniop.opset.dtype import INT64
from omniop.opset.expr import Expr
from omniop.opset.kernel import Kernel

_RING = ("add", "sub", "mul", "neg")
_OTHER = ("floordiv", "floormod", "min", "max")
_TESTS = ("eq", "ne", "lt", "le")

_LIMIT = (1 << 31) - (1 << 16)
"""Below 2**31, so that a loop may step over its end."""

_UNKNOWN = (-(1 << 80), 1 << 80)
_MEMO = 256

Interval = tuple[int, int]


def size_number(node: Expr) -> int:
    """The place of a size node among a kernel's size arguments ("s0", "~s1", ...)."""
    return int(node.attr.lstrip(expr.SCALAR)[1:])


@lru_cache(maxsize=1 << 16)
def is_index(node: Expr) -> bool:
    """Whether an int64 ``node`` is made of sizes, axes and constants alone, and so has bounds that sizes give."""
    if node.dtype is not INT64:
        return False
    if node.op in ("const", "size", "axis"):
        return True
    if node.op == "select":
        return is_test(node.args[0]) and is_index(node.args[1]) and is_index(node.args[2])
    return node.op == "alu" and node.attr in (*_RING, *_OTHER) and all(is_index(a) for a in node.args)


def is_test(node: Expr) -> bool:
    """Whether a bool ``node`` compares such expressions."""
    if node.op == "alu" and node.attr in ("and", "or", "not"):
        return all(is_test(a) for a in node.args)
    return node.op == "const" or (node.op == "alu" and node.attr in _TESTS and all(is_index(a) for a in node.args))


def fits32(kernel: Kernel) -> Callable[[Sequence[int]], bool]:
    """A test of size arguments: whether all index arithmetic of ``kernel`` fits in 32 bits.

    Where it does, and no buffer has 2**31 elements, the kernel may be linearised with ``index_bits=32``. Answers are
    remembered.
    """
    everything = list(expr.walk(*kernel.roots()))
    nodes = [n for n in everything if is_index(n) and n.op != "const"]
    nodes += [a for n in everything if n.op == "alu" and is_test(n) for a in n.args if is_index(a)]
    spaces = [kernel.axes, *(n.args[: n.attr.axes] for n in everything if n.op == "reduce")]
    answers: dict[tuple[int, ...], bool] = {}

    def fits(sizes: Sequence[int]) -> bool:
        key = tuple(sizes)
        if key not in answers:
            if len(answers) >= _MEMO:
                answers.clear()
            answers[key] = _fits(nodes, spaces, key)
        return answers[key]

    return fits


def _fits(nodes: list[Expr], spaces: Sequence[Sequence[Expr]], sizes: tuple[int, ...]) -> bool:
    bounds: dict[Expr, Interval] = {}
    for node in expr.walk(*nodes):
        if node.dtype is INT64:
            low, high = bounds[node] = _interval(node, bounds, sizes)
            if low < -_LIMIT or high >= _LIMIT:
                return False
    for space in spaces:
        points = 1
        for axis in space:
            points *= bounds[axis][1] + 1 if axis.op == "axis" else 1
        if points >= _LIMIT:
            return False
    return True


def _interval(node: Expr, bounds: dict[Expr, Interval], sizes: tuple[int, ...]) -> Interval:
    if node.op == "const":
        return (node.attr, node.attr)
    if node.op == "size":
        value = sizes[size_number(node)]
        return (value, value)
    if node.op == "axis":
        return (0, bounds[node.args[0]][1] - 1)
    if node.op == "select":
        x, y = bounds[node.args[1]], bounds[node.args[2]]
        return (min(x[0], y[0]), max(x[1], y[1]))
    return _RULES[node.attr](*(bounds[a] for a in node.args))


def _corners(function: Callable[[int, int], int], x: Interval, y: Interval) -> Interval:
    values = [function(a, b) for a in x for b in y]
    return (min(values), max(values))


def _quotient(x: Interval, d: Interval) -> Interval:
    return _corners(lambda a, b: a // b, x, d) if d[0] > 0 else _UNKNOWN


def _remainder(x: Interval, d: Interval) -> Interval:
    if d[0] <= 0:
        return _UNKNOWN
    return x if 0 <= x[0] and x[1] < d[0] else (0, d[1] - 1)


_RULES: dict[str, Callable[..., Interval]] = {
    "add": lambda x, y: (x[0] + y[0], x[1] + y[1]),
    "sub": lambda x, y: (x[0] - y[1], x[1] - y[0]),
    "mul": lambda x, y: _corners(lambda a, b: a * b, x, y),
    "neg": lambda x: (-x[1], -x[0]),
    "min": lambda x, y: (min(x[0], y[0]), min(x[1], y[1])),
    "max": lambda x, y: (max(x[0], y[0]), max(x[1], y[1])),
    "floordiv": _quotient,
    "floormod": _remainder,
}

_PYTHON = {
    "add": "({} + {})",
    "sub": "({} - {})",
    "mul": "({} * {})",
    "neg": "(-{})",
    "min": "min({}, {})",
    "max": "max({}, {})",
    "floordiv": "({} // {})",
    "floormod": "({} % {})",
    "and": "({} and {})",
    "or": "({} or {})",
    "not": "(not {})",
    "eq": "({} == {})",
    "ne": "({} != {})",
    "lt": "({} < {})",
    "le": "({} <= {})",
}


def host_function(nodes: Sequence[Expr]) -> Callable[[Sequence[int]], tuple[int, ...]]:
    """The values of index expressions over sizes, as one compiled function of the size arguments."""
    text: dict[Expr, str] = {}
    for node in expr.walk(*nodes):
        if node.op == "const":
            text[node] = repr(node.attr)
        elif node.op == "size":
            text[node] = f"s[{size_number(node)}]"
        elif node.op == "select":
            text[node] = "({1} if {0} else {2})".format(*(text[a] for a in node.args))
        else:
            text[node] = _PYTHON[node.attr].format(*(text[a] for a in node.args))
    function: Callable[[Sequence[int]], tuple[int, ...]] = eval(f"lambda s: ({''.join(text[n] + ',' for n in nodes)})")
    return function
