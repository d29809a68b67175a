"""Expressions as text for people: ``explain``, error messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omniop.opset.expr import Expr

_INFIX = {
    **{"add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "floormod": "%", "and": "&", "or": "|"},
    **{"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "xor": "^", "shl": "<<", "shr": ">>"},
}


def format_expr(node: Expr, depth: int = 8) -> str:
    """Short text for people, ``explain`` and error messages; what lies deeper than ``depth`` is left out. (Written out
    in full, an expression that shares operands may be exponentially long.)"""
    if depth == 0 and node.args:
        return "..."
    parts = [format_expr(a, depth - 1) for a in node.args]
    if node.op == "const":
        return repr(node.attr)
    if node.op == "size":
        return str(node.attr)
    if node.op == "axis":
        return f"i{node.attr}"
    if node.op == "load":
        n = len(parts) - 2 if node.attr.guarded else len(parts)
        guard = f" if {parts[n]} else {parts[n + 1]}" if node.attr.guarded else ""
        return f"{node.attr.source}[{', '.join(parts[:n])}{guard}]"
    if node.op == "alu":
        return (
            f"({parts[0]} {_INFIX[node.attr]} {parts[1]})"
            if node.attr in _INFIX
            else f"{node.attr}({', '.join(parts)})"
        )
    if node.op == "reduce":
        n = node.attr.axes
        return f"{node.attr.monoid}[{', '.join(parts[:n])}]({', '.join(parts[n:])})"
    if node.op in ("carry", "hole"):
        return f"{node.op}{'' if node.attr is None else node.attr}"
    return f"{node.dtype if node.op == 'cast' else node.op}({', '.join(parts)})"
