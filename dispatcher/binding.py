"""Size expressions as one generated Python function: what is left to compute for a new set of shapes.

The expressions of a template are compiled once into a function of its size symbols that fills a tuple; common
subexpressions are computed once. It holds integer arithmetic only, written by us: no text of a model enters it.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Sequence
from typing import Any

from omniop.opset import expr
from omniop.opset.alu import INTEGER, trunc_div
from omniop.opset.expr import Expr

_INFIX = {
    **{"add": "+", "sub": "-", "mul": "*", "floordiv": "//", "floormod": "%", "eq": "==", "ne": "!="},
    **{"lt": "<", "le": "<=", "and": "&", "or": "|", "xor": "^"},
}
_CALL = {"min": "min", "max": "max", "abs": "abs", "div": "trunc_div", "rem": "rem"}


class SizeFunction:
    """A function from the symbols' values, in order, to the values of ``roots``."""

    def __init__(self, roots: Sequence[Expr], symbols: Sequence[str]) -> None:
        self._code = compile(_text(roots, symbols), "<sizes>", "exec")
        self._function: Callable[[Sequence[int]], tuple[int, ...]] | None = None

    def __call__(self, values: Sequence[int]) -> tuple[int, ...]:
        if self._function is None:
            scope: dict[str, Any] = {"trunc_div": trunc_div, "rem": INTEGER["rem"]}
            exec(self._code, scope)  # see the module: integers only
            self._function = scope["sizes"]
        return self._function(values)

    def __getstate__(self) -> bytes:
        return marshal.dumps(self._code)

    def __setstate__(self, code: bytes) -> None:
        self._code, self._function = marshal.loads(code), None


def _text(roots: Sequence[Expr], symbols: Sequence[str]) -> str:
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
    return "\n".join(lines)
