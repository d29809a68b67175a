"""Size expressions as one generated Python function: what is left to compute for a new set of shapes.

The expressions of a template are compiled once into a function of its size symbols that fills a tuple; common
subexpressions are computed once. It holds integer arithmetic only, written by us: no text of a model enters it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omniop.opset import expr
from omniop.opset.expr import Expr

_INFIX = {
    **{"add": "+", "sub": "-", "mul": "*", "floordiv": "//", "floormod": "%", "eq": "==", "ne": "!="},
    **{"lt": "<", "le": "<=", "and": "&", "or": "|", "xor": "^"},
}
_CALL = {"min": "min", "max": "max", "abs": "abs", "div": "trunc_div", "rem": "rem"}


def compile_sizes(roots: Sequence[Expr], symbols: Sequence[str]) -> Callable[[Sequence[int]], tuple[int, ...]]:
    """A function from the symbols' values, in order, to the values of ``roots``."""
    names: dict[Expr, str] = {}
    lines = ["def sizes(symbols):"]
    order = {name: k for k, name in enumerate(symbols)}
    for node in expr.walk(*roots):
        if node.op == "const":
            names[node] = repr(node.attr)
            continue
        args = [names[a] for a in node.args]
        if node.op == "size":
            text = f"symbols[{order[node.attr]}]"
        elif node.op == "select":
            text = f"{args[1]} if {args[0]} else {args[2]}"
        elif node.op == "cast":
            text = f"int({args[0]})"
        elif node.attr in _INFIX:
            text = f"{args[0]} {_INFIX[node.attr]} {args[1]}"
        elif node.attr in _CALL:
            text = f"{_CALL[node.attr]}({', '.join(args)})"
        elif node.attr == "not":
            text = f"not {args[0]}"
        elif node.attr == "neg":
            text = f"-{args[0]}"
        else:
            raise ValueError(f"not an expression over sizes: {node!r}")
        names[node] = f"v{len(names)}"
        lines.append(f"    {names[node]} = {text}")
    lines.append(f"    return ({''.join(names[r] + ', ' for r in roots)})")
    scope = {"trunc_div": expr.trunc_div, "rem": expr.INTEGER["rem"]}
    exec("\n".join(lines), scope)  # see the module: integers only
    return scope["sizes"]  # type: ignore[return-value]
