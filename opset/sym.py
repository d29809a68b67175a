"""Dims that are not known until a run: symbolic integers with a hint, and the guards they leave behind.

A lowering computes on dims as on Python ints. A `SymInt` carries the expression and the value it has in the run being
traced (its hint). Asking a yes-or-no question (``if d == 1``) answers by the hint and records a guard: the traced
template is valid for every run in which its guards have the same answers. The technique is that of PyTorch's symbolic
shapes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from omniop.opset import expr, poly
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr


@dataclass
class ShapeEnv:
    """Size symbols of one trace with their hints, and the guards recorded so far."""

    hints: dict[str, int] = field(default_factory=dict)
    guards: dict[Expr, bool] = field(default_factory=dict)
    positive: list[Expr] = field(default_factory=list)
    """Symbols that a run's value has to be at least 1 for."""

    def symbol(self, name: str, hint: int) -> Dim:
        """A new symbol. A hint of 0 is made the constant 0, guarded: devices never see an empty dim."""
        self.hints[name] = hint
        node = expr.size(name)
        if hint == 0:
            self.guards[expr.binary("le", node, 0)] = True
            return 0
        self.positive.append(node)
        return SymInt(node, self)

    def scalar(self, name: str, hint: int) -> Dim:
        """A symbol for a number that is not a dim, and may be negative or 0."""
        self.hints[expr.SCALAR + name] = hint
        return SymInt(expr.size(expr.SCALAR + name), self)

    def dim(self, node: Expr) -> Dim:
        """``node`` as a dim: an int when constant, at least 1 otherwise. Raises ModelError when it is negative."""
        node = poly.simplify(node)
        if node.op == "const":
            if node.attr < 0:
                raise ModelError(f"a dim would be {node.attr}")
            return int(node.attr)
        if poly.nonnegative(node - 1):
            return SymInt(node, self)
        if not self.ask(expr.binary("le", node, 0)):
            return SymInt(node, self)
        if self.ask(expr.binary("lt", node, 0)):
            raise ModelError(f"a dim would be {self.hint(node)}")
        return 0

    def hint(self, node: Expr) -> int:
        return expr.evaluate(node, self.hints)

    def ask(self, condition: Expr) -> bool:
        """The answer in this run, recorded as a guard."""
        if condition.op == "const":
            return bool(condition.attr)
        if condition not in self.guards:
            self.guards[condition] = bool(expr.evaluate(condition, self.hints))
        return self.guards[condition]


class SymInt:
    """An integer expression over size symbols. Arithmetic gives ints or SymInts; comparisons ask (and guard)."""

    __slots__ = ("env", "expr")

    def __init__(self, node: Expr, env: ShapeEnv) -> None:
        self.expr = node
        self.env = env

    @property
    def hint(self) -> int:
        return self.env.hint(self.expr)

    def _result(self, node: Expr) -> Dim:
        node = poly.simplify(node)
        return int(node.attr) if node.op == "const" else SymInt(node, self.env)

    def _with(self, name: str, other: object, swap: bool = False) -> Dim:
        if isinstance(other, float):
            raise TypeError("a symbolic dim takes no part in float arithmetic")
        a, b = self.expr, as_expr(other)  # type: ignore[arg-type]
        return self._result(expr.binary(name, b, a) if swap else expr.binary(name, a, b))

    def __add__(self, other: object) -> Dim:
        return self._with("add", other)

    __radd__ = __add__

    def __sub__(self, other: object) -> Dim:
        return self._with("sub", other)

    def __rsub__(self, other: object) -> Dim:
        return self._with("sub", other, swap=True)

    def __mul__(self, other: object) -> Dim:
        return self._with("mul", other)

    __rmul__ = __mul__

    def __floordiv__(self, other: object) -> Dim:
        return self._with("floordiv", other)

    def __rfloordiv__(self, other: object) -> Dim:
        return self._with("floordiv", other, swap=True)

    def __mod__(self, other: object) -> Dim:
        return self._with("floormod", other)

    def __rmod__(self, other: object) -> Dim:
        return self._with("floormod", other, swap=True)

    def __neg__(self) -> Dim:
        return self._with("sub", 0, swap=True)

    def __abs__(self) -> Dim:
        return self if self >= 0 else -self

    def _ask(self, name: str, other: object, swap: bool = False) -> bool:
        a, b = self.expr, as_expr(other)  # type: ignore[arg-type]
        if poly.same(a, b):
            return name in ("eq", "le")
        return self.env.ask(expr.binary(name, b, a) if swap else expr.binary(name, a, b))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int | SymInt) and self._ask("eq", other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: object) -> bool:
        return self._ask("lt", other)

    def __le__(self, other: object) -> bool:
        return self._ask("le", other)

    def __gt__(self, other: object) -> bool:
        return self._ask("lt", other, swap=True)

    def __ge__(self, other: object) -> bool:
        return self._ask("le", other, swap=True)

    def __bool__(self) -> bool:
        return self != 0

    def __hash__(self) -> int:
        return hash(self.expr)

    def __int__(self) -> int:
        """The hint, guarded: the template holds for this value only."""
        value = self.hint
        self.env.ask(expr.binary("eq", self.expr, value))
        return value

    __index__ = __int__

    def __repr__(self) -> str:
        return f"{self.expr!r}={self.hint}"


Dim = int | SymInt


def as_expr(value: Dim | Expr) -> Expr:
    """A dim as an int64 expression."""
    return value.expr if isinstance(value, SymInt) else expr.index(value)


def hint_of(value: Dim) -> int:
    return value.hint if isinstance(value, SymInt) else value


def known_equal(a: Dim, b: Dim) -> bool:
    """Provably equal, without asking."""
    return poly.same(as_expr(a), as_expr(b))


def product(dims: tuple[Dim, ...]) -> Dim:
    result: Dim = 1
    for d in dims:
        result = result * d
    return result
