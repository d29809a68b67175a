"""Arithmetic on single elements that are known while tracing: Python ints, floats and bools, and `SymInt` for dims.

Sums, products and quotients of dims stay symbolic. A comparison is answered where it can be proved, and otherwise by
the hint, leaving a guard. Floating arithmetic on a dim takes its value, so that the template is for that value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from omniop.opset import poly
from omniop.opset.alu import trunc_div, wrap
from omniop.opset.dtype import DType
from omniop.opset.errors import ModelError
from omniop.opset.lower.common import at_most
from omniop.opset.lowering import Node
from omniop.opset.sym import Dim, SymInt, as_expr

Element = Any
"""int | float | bool | SymInt"""


def _nonnegative(value: Dim) -> bool:
    return at_most(0, value)


def divide(a: Element, b: Element) -> Element:
    """ONNX's quotient: exact for floats, truncated for integers, x / 0 = 0 for integers."""
    if isinstance(a, float):
        return float(np.float64(a) / np.float64(b))
    if isinstance(a, int) and isinstance(b, int):
        return trunc_div(a, b)
    if not _nonnegative(b):
        a, b = -a, -b
    if isinstance(b, int) and b == 0:
        return 0
    if isinstance(b, SymInt) and not poly.nonnegative(b.expr - 1) and b == 0:
        return 0
    return a // b if _nonnegative(a) else -(-a // b)


def remainder(a: Element, b: Element) -> Element:
    """With the sign of the divisor."""
    if isinstance(a, float):
        return float(np.mod(np.float64(a), np.float64(b)))
    if isinstance(b, int) and b <= 0:
        return 0 if b == 0 else -(-a % -b)
    return a % b if isinstance(b, int) or _nonnegative(b - 1) else int(a) % int(b)


def c_remainder(a: Element, b: Element) -> Element:
    """With the sign of the dividend."""
    return float(np.fmod(np.float64(a), np.float64(b))) if isinstance(a, float) else a - divide(a, b) * b


def equal(a: Element, b: Element) -> bool:
    """A guard is left only where it is not known."""
    if isinstance(a, SymInt) or isinstance(b, SymInt):
        return at_most(a, b) and at_most(b, a) if _ordered(a, b) else bool(a == b)
    return bool(a == b)


def _ordered(a: Dim, b: Dim) -> bool:
    """Known which of the two is greater, or that they are equal."""
    difference = as_expr(a) - as_expr(b)
    return poly.same(as_expr(a), as_expr(b)) or any(poly.nonnegative(d - 1) for d in (difference, -difference))


def less(a: Element, b: Element) -> bool:
    return bool(a < b) if isinstance(a, float) else at_most(a + 1, b)


def less_equal(a: Element, b: Element) -> bool:
    return bool(a <= b) if isinstance(a, float) else at_most(a, b)


def power(a: Element, b: Element) -> Element:
    if isinstance(a, float) or isinstance(b, float):
        with np.errstate(all="ignore"):
            return float(np.power(np.float64(a if isinstance(a, float) else int(a)), np.float64(b)))
    exponent = int(b)
    return reduce(lambda x, y: x * y, [a] * exponent, 1) if exponent >= 0 else int(int(a) ** exponent)


def sign(a: Element) -> Element:
    return (a > 0) - (a < 0) if isinstance(a, float) else 1 - less(a, 1) - less(a, 0)


def minimum(a: Element, b: Element) -> Element:
    return a if less_equal(a, b) or a != a else b


def maximum(a: Element, b: Element) -> Element:
    return a if less_equal(b, a) or a != a else b


def _real(function: Callable[[float], float]) -> Callable[[Element], Element]:
    return lambda a: float(function(np.float64(a)))


BINARY: dict[str, Callable[[Element, Element], Element]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": divide,
    "Mod": remainder,
    "Pow": power,
    "Min": minimum,
    "Max": maximum,
    "Sum": lambda a, b: a + b,
}
"""Two elements of one dtype (Pow: the base's) to one of it. Min, Max and Sum take any number of operands."""

TESTS: dict[str, Callable[[Element, Element], bool]] = {
    "Equal": equal,
    "Less": less,
    "Greater": lambda a, b: less(b, a),
    "LessOrEqual": less_equal,
    "GreaterOrEqual": lambda a, b: less_equal(b, a),
    "And": lambda a, b: a and b,
    "Or": lambda a, b: a or b,
    "Xor": lambda a, b: a != b,
}

UNARY: dict[str, Callable[[Element], Element]] = {
    "Neg": lambda a: -a,
    "Abs": abs,
    "Sign": sign,
    "Not": lambda a: not a,
    "Floor": _real(np.floor),
    "Ceil": _real(np.ceil),
    "Round": _real(np.rint),
    "Sqrt": _real(np.sqrt),
    "Identity": lambda a: a,
}

REDUCTIONS: dict[str, tuple[Callable[[Element, Element], Element], Element | None]] = {
    "ReduceSum": (lambda a, b: a + b, 0),
    "ReduceProd": (lambda a, b: a * b, 1),
    "ReduceMin": (minimum, None),
    "ReduceMax": (maximum, None),
}
"""What combines two elements, and the value over none (None: declined)."""


def rounded(value: Element, dtype: DType) -> Element:
    """``value`` as ``dtype`` holds it: integers wrap, floats round; a dim stays as it is."""
    if dtype.kind == "b":
        return value if isinstance(value, bool) else not equal(value, 0)
    if dtype.is_int:
        if isinstance(value, float):
            value = int(value) if math.isfinite(value) else 0
        return value if isinstance(value, SymInt) else wrap(int(value), dtype)
    with np.errstate(all="ignore"):
        return float(dtype.numpy.type(value if isinstance(value, float) else int(value)))


def range_count(node: Node, start: Element, limit: Element, delta: Element) -> Dim:
    """max(ceil((limit - start) / delta), 0)."""
    if isinstance(delta, float):
        if delta == 0.0:
            raise ModelError(f"{node.label}: delta is 0")
        whole: int = math.ceil((limit - start) / delta)
        return max(whole, 0)
    step = int(delta)
    if step == 0:
        raise ModelError(f"{node.label}: delta is 0")
    span = limit - start if step > 0 else start - limit
    count: Dim = 0 if at_most(span, 0) else (span + (abs(step) - 1)) // abs(step)
    return count
