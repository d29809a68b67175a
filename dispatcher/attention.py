"""Attention among a segment's prims, for devices that take it whole: ``softmax(scores) @ v``, scores made of ``q @ k``.

Exporters and operators spell it in many ways; in prims all are a product, maps, a softmax over the last axis and a
second product. What the maps do to the first product, scaling and masks, becomes an expression with a hole. Scores that
anybody else reads are left as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omniop.backends.base import Device, OpContext
from omniop.dispatcher.inline import Inliner
from omniop.dispatcher.placement import tensor_type
from omniop.opset import expr, poly
from omniop.opset.definitions import Attention, Definition, Map, Structured, Tensor
from omniop.opset.dtype import BFLOAT16, FLOAT32
from omniop.opset.expr import Expr
from omniop.opset.prims import axes_of, record


def fuse_attention(
    definitions: Sequence[Definition],
    outputs: Sequence[Tensor],
    device_of: Callable[[Definition], Device],
    replaced: dict[Tensor, Tensor],
) -> dict[Definition, Device]:
    """Record each attention that its device takes, and put its result in ``replaced``; gives where they run. Within the
    segment's trace."""
    finder = _Finder(definitions, outputs, replaced)
    found: dict[Definition, Device] = {}
    for definition in definitions:
        attention = finder.attention(definition)
        if attention is not None:
            assert isinstance(definition, Structured)
            device, old = device_of(definition), definition.outputs[0]
            types = tuple(tensor_type(t) for t in attention.operands)
            context = OpContext("attention", types, (tensor_type(old),), dict(attention.attrs), device.caps)
            alike = all(device_of(d) is device for d in attention.covers)
            if alike and device.accepts(context):
                (replaced[old],) = record(attention, [(old.shape, old.dtype)])
                attention.origin = definition.origin
                found[attention] = device
    return found


class _Finder:
    def __init__(self, definitions: Sequence[Definition], outputs: Sequence[Tensor], replaced: dict[Tensor, Tensor]):
        self._replaced = replaced
        self._outputs = {self.resolve(t) for t in outputs}
        self._readers: dict[Tensor, set[Definition]] = {}
        for definition in definitions:
            for t in definition.inputs():
                self._readers.setdefault(self.resolve(t), set()).add(definition)

    def resolve(self, tensor: Tensor) -> Tensor:
        while tensor in self._replaced:
            tensor = self._replaced[tensor]
        return tensor

    def attention(self, second: Definition) -> Attention | None:
        """The attention that ends with this product, if it does."""
        if not _is_product(second):
            return None
        assert isinstance(second, Structured)
        weights = self.resolve(second.operands[0])
        if not isinstance(weights.definition, Map):
            return None
        between, first = self._down_to_product(weights)
        if first is None or not self._private(between, first, second):
            return None
        product = first.outputs[0]
        inliner = Inliner(lambda t: t.definition not in between, self.resolve, weights.rank)
        axes = axes_of(weights.shape)
        value = inliner.expand(weights.definition.value, {a: a for a in axes if a.op == "axis"})
        if weights.dtype is not FLOAT32 and value.op == "cast":
            (value,) = value.args
        softmax = _softmax_of(value, axes[-1])
        if softmax is None:
            return None
        scores, blank = softmax
        reads = {n for n in expr.walk(scores) if n.op == "load" and self.resolve(n.attr.source) is product}
        if len(reads) != 1 or scores.holds & (expr.REDUCE | expr.FAULT):
            return None
        (read,) = reads
        if read.attr.guarded or not _same_place(read, product, axes, weights):
            return None
        plain = scores is read
        held = None if plain else expr.substitute(scores, {read: expr.hole(product.dtype)})
        operands = (*map(self.resolve, first.operands), self.resolve(second.operands[1]))
        return Attention("attention", operands, (("blank", blank),), held, (*between, first, second))

    def _down_to_product(self, weights: Tensor) -> tuple[set[Definition], Structured | None]:
        """The maps between the weights and the one product that they are made of. What else they are made of, masks,
        has no product in it."""
        order: list[Definition] = []
        made_of: dict[Definition, set[Definition]] = {}
        stack = [(weights.definition, False)]
        while stack:
            definition, ready = stack.pop()
            inputs = [self.resolve(t).definition for t in definition.inputs()]
            if ready:
                made_of[definition] = set().union(*(made_of.get(d, set()) for d in inputs))
                order.append(definition)
            elif definition not in made_of:
                if not isinstance(definition, Map):
                    made_of[definition] = {definition} if _is_product(definition) else set()
                    continue
                made_of[definition] = set()
                stack.append((definition, True))
                stack += [(d, False) for d in inputs]
        products = made_of[weights.definition]
        if len(products) != 1:
            return set(), None
        (first,) = products
        assert isinstance(first, Structured)
        return {d for d in order if first in made_of[d]}, first

    def _private(self, between: set[Definition], first: Definition, second: Definition) -> bool:
        members = {*between, second}
        made = [t for d in (*between, first) for t in d.outputs]
        return all(t not in self._outputs and self._readers.get(t, set()) <= members for t in made)


def _is_product(definition: Definition) -> bool:
    if not isinstance(definition, Structured) or definition.prim != "contract":
        return False
    dtypes = {t.dtype for t in definition.operands}
    return dtypes in ({FLOAT32}, {BFLOAT16}) and definition.outputs[0].dtype is FLOAT32


def _same_place(read: Expr, product: Tensor, axes: Sequence[Expr], weights: Tensor) -> bool:
    """Whether the weights have the product's shape, and read it where they are."""
    if product.extents != weights.extents:
        return False
    return all(poly.same(i, a) for i, a in zip(read.args, axes, strict=True))


def _softmax_of(value: Expr, last: Expr) -> tuple[Expr, bool] | None:
    """(x, whether rows of -inf give 0) where ``value`` is the softmax of ``x`` along the axis ``last``."""
    blank = value.op == "select"
    if blank:
        test, nothing, value = value.args
        lowest = test.args[1] if test.op == "alu" and test.attr == "eq" else None
        if lowest is None or not expr.is_const(lowest, float("-inf")) or not expr.is_const(nothing, 0.0):
            return None
    if last.op != "axis" or not _is(value, "div"):
        return None
    e, total = value.args
    if not _is(e, "exp") or not _is(e.args[0], "sub") or not _is_sum(total, "add"):
        return None
    x, most = e.args[0].args
    along, term = total.args
    if not _is(term, "exp") or not _is(term.args[0], "sub"):
        return None
    inner, inner_most = term.args[0].args
    maxima = [most, inner_most, *([test.args[0]] if blank else [])]
    alike = all(_is_sum(m, "max") and _moved(x, last, m.args[0]) is _tidy(m.args[1]) for m in maxima)
    return (x, blank) if alike and _moved(x, last, along) is _tidy(inner) else None


def _is(node: Expr, operation: str) -> bool:
    return node.op == "alu" and node.attr == operation


def _is_sum(node: Expr, monoid: str) -> bool:
    return node.op == "reduce" and node.attr.monoid == monoid and node.attr.axes == 1


def _moved(x: Expr, last: Expr, along: Expr) -> Expr:
    return _tidy(expr.substitute(x, {last: along}))


def _tidy(x: Expr) -> Expr:
    """With the places of loads in normal form."""

    def load(node: Expr) -> Expr | None:
        if node.op != "load" or node.attr.guarded:
            return None
        return expr.load(node.attr.source, tuple(map(poly.simplify, node.args)), node.dtype)

    return expr.rewrite(x, load)
