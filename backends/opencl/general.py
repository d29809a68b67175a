"""Takes the numbers of one shape out of a call, so that layers of other shapes share its kernels.

Hand-written kernels get the sizes of a product as arguments; what still holds numbers is the epilogue, and where the
result lies. They become size arguments too: models of fixed shapes then compile one variant for each epilogue, not
one for each layer.
"""

from __future__ import annotations

from dataclasses import replace

from omniop.opset import expr
from omniop.opset.dtype import INT64
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call


def generalised(call: Call) -> tuple[Call, tuple[int, ...]]:
    """An equal call whose result has no constant dims above 1, and the values of the size arguments that it has more.

    A constant that is a product of the last dims (a stride) is written as that product.
    """
    result = call.results[0]
    numbers: list[int] = []
    shape: list[Expr] = []
    for extent in result.shape:
        if extent.op == "const" and extent.attr > 1:
            numbers.append(extent.attr)
            extent = expr.size(f"s{call.sizes + len(numbers) - 1}")
        shape.append(extent)
    strides = _products(result.shape, shape)

    def replaced(node: Expr) -> Expr | None:
        if node.op == "axis":
            return expr.axis(node.attr, shape[node.attr])
        return strides.get(node.attr) if node.op == "const" and node.dtype is INT64 else None

    view = replace(
        result, shape=tuple(shape), strides=tuple(expr.rewrite(stride, replaced) for stride in result.strides)
    )
    epilogue = None if call.epilogue is None else expr.rewrite(call.epilogue, replaced)
    general = replace(call, results=(view,), sizes=call.sizes + len(numbers), epilogue=epilogue)
    return general, tuple(numbers)


def _products(old: tuple[Expr, ...], new: list[Expr]) -> dict[int, Expr]:
    """Products above 1 of the last dims, as far as they are constant."""
    known: dict[int, Expr] = {}
    value, product = 1, expr.index(1)
    for before, after in zip(reversed(old), reversed(new), strict=True):
        if before.op != "const":
            break
        value, product = value * before.attr, product * after
        if value > 1:
            known.setdefault(value, product)
    return known
