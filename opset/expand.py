"""Default expansions of the structured prims, for devices that do not take them whole.

Each has two forms: ``loops`` for devices that compile loop programs (a reduce or a sequential scatter, fused like any
other), and ``arrays`` for devices that evaluate array by array (contracts and maps of few dims).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omniop.opset import expr, prims
from omniop.opset.definitions import Scatter, Structured, Tensor, TensorCarry, TensorStore
from omniop.opset.dtype import INT32
from omniop.opset.expr import Expr
from omniop.opset.sym import Dim, as_expr, product

Expansion = Callable[[Structured], Sequence[Tensor]]
LOOPS: dict[str, Expansion] = {}
ARRAYS: dict[str, Expansion] = {}


def expansion(prim: str, *tables: dict[str, Expansion]) -> Callable[[Expansion], Expansion]:
    """Register an expansion of ``prim`` in the tables it serves."""

    def register(function: Expansion) -> Expansion:
        for table in tables:
            table[prim] = function
        return function

    return register


def expand(definition: Structured, loops: bool) -> Sequence[Tensor]:
    """The outputs of a structured prim, in core prims recorded in the current trace."""
    return (LOOPS if loops else ARRAYS)[definition.prim](definition)


def window_place(out: Expr, offset: Expr, stride: int, dilation: int, before: Dim) -> Expr:
    """Input position of a window's element ``offset`` at output position ``out``."""
    return out * stride + offset * dilation - as_expr(before)


def inside(places: Sequence[Expr], shape: Sequence[Dim]) -> Expr | None:
    """Whether positions lie in a tensor of ``shape``."""
    tests: list[Expr] = []
    for place, extent in zip(places, shape, strict=True):
        tests += [place >= 0, place < as_expr(extent)]
    return expr.all_of(tests)


def padded(pads: Sequence[Dim]) -> bool:
    return not all(isinstance(p, int) and p == 0 for p in pads)


@expansion("contract", LOOPS)
def contract_loops(d: Structured) -> Sequence[Tensor]:
    """One reduce over K in the accumulator's dtype."""
    a, b = d.operands
    out = d.outputs[0]
    wide = d.attr("accumulate")

    def element(*i: Expr) -> Expr:
        *batch, m, n, k = i
        return expr.cast(a.at(*batch, m, k), wide) * expr.cast(b.at(*batch, k, n), wide)

    return [prims.cast(prims.reduce_of(out.shape, [a.shape[-1]], "add", element), out.dtype)]


@expansion("conv", LOOPS)
def conv_loops(d: Structured) -> Sequence[Tensor]:
    """Direct convolution: one reduce over a group's channels and the window."""
    x, w = d.operands
    out = d.outputs[0]
    rank = x.rank - 2
    strides, pads, dilations = d.attr("strides"), d.attr("pads"), d.attr("dilations")
    per_group_out = w.shape[0] // d.attr("group")
    wide = prims.accumulator(x.dtype)

    def element(*i: Expr) -> Expr:
        n, m, places, c, window = i[0], i[1], i[2 : 2 + rank], i[2 + rank], i[3 + rank :]
        at = [window_place(places[k], window[k], strides[k], dilations[k], pads[k]) for k in range(rank)]
        guard = inside(at, x.shape[2:]) if padded(pads) else None
        channel = c if d.attr("group") == 1 else (m // as_expr(per_group_out)) * as_expr(w.shape[1]) + c
        return expr.cast(x.at(n, channel, *at, guard=guard), wide) * expr.cast(w.at(m, c, *window), wide)

    return [prims.cast(prims.reduce_of(out.shape, w.shape[1:], "add", element), out.dtype)]


@expansion("conv", ARRAYS)
def conv_contract(d: Structured) -> Sequence[Tensor]:
    """im2col: windows gathered by a map, then one contract per image and group."""
    x, w = d.operands
    out = d.outputs[0]
    rank = x.rank - 2
    strides, pads, dilations, group = d.attr("strides"), d.attr("pads"), d.attr("dilations"), d.attr("group")
    per_group_in, kernel = w.shape[1], w.shape[2:]

    def element(*i: Expr) -> Expr:
        n, g, c, window, places = i[0], i[1], i[2], i[3 : 3 + rank], i[3 + rank :]
        at = [window_place(places[k], window[k], strides[k], dilations[k], pads[k]) for k in range(rank)]
        guard = inside(at, x.shape[2:]) if padded(pads) else None
        return x.at(n, g * as_expr(per_group_in) + c, *at, guard=guard)

    columns = prims.map_of([x.shape[0], group, per_group_in, *kernel, *out.shape[2:]], element)
    depth, area = product((per_group_in, *kernel)), product(out.shape[2:])
    columns = prims.reshape(columns, [x.shape[0], group, depth, area])
    weights = prims.reshape(w, [1, group, w.shape[0] // group, depth])
    return [prims.reshape(prims.contract(weights, columns, out.dtype), out.shape)]


@expansion("integer_conv", LOOPS, ARRAYS)
def integer_conv(d: Structured) -> Sequence[Tensor]:
    """A convolution of int32: what is padded is then 0."""
    x, w, zero = d.operands
    centred = prims.elementwise(lambda e, z: expr.cast(e, INT32) - expr.cast(z, INT32), x, zero)
    operands = (centred, prims.cast(w, INT32))
    return prims.structured("conv", operands, [(d.outputs[0].shape, INT32)], **dict(d.attrs))


@expansion("window_reduce", LOOPS, ARRAYS)
def window_reduce(d: Structured) -> Sequence[Tensor]:
    """A reduce over the window; positions in the padding give the monoid's identity."""
    (x,) = d.operands
    out = d.outputs[0]
    kernel, strides, pads, dilations = (d.attr(name) for name in ("kernel", "strides", "pads", "dilations"))
    monoid, rank = d.attr("monoid"), len(kernel)
    wide = prims.accumulator(x.dtype) if monoid in ("add", "mul") else x.dtype

    def element(*i: Expr) -> Expr:
        lead, places, window = i[: x.rank - rank], i[x.rank - rank : x.rank], i[x.rank :]
        at = [window_place(places[k], window[k], strides[k], dilations[k], pads[k]) for k in range(rank)]
        guard = inside(at, x.shape[-rank:])
        return expr.cast(x.at(*lead, *at, guard=guard, other=prims.identity(monoid, x.dtype)), wide)

    return [prims.cast(prims.reduce_of(out.shape, kernel, monoid, element), out.dtype)]


@expansion("sort", LOOPS, ARRAYS)
def sort(d: Structured) -> Sequence[Tensor]:
    """Rank by counting the elements that come before, then scatter to the rank: stable, and n * n compares.

    NaN sorts as the greatest number.
    """
    (x,) = d.operands
    descending = d.attr("descending")
    last = x.shape[-1]

    def before(a: Expr, b: Expr) -> Expr:
        if not x.dtype.is_float:
            return a < b
        return expr.alu("or", a < b, expr.alu("and", expr.alu("isnan", b), expr.alu("not", expr.alu("isnan", a))))

    def element(*i: Expr) -> Expr:
        *lead, own, other = i
        a, b = x.at(*lead, own), x.at(*lead, other)
        first = before(a, b) if descending else before(b, a)  # the other one comes first
        later = before(b, a) if descending else before(a, b)
        tie = expr.alu("and", expr.alu("not", later), other < own)
        return expr.index(expr.cast(expr.alu("or", first, tie), expr.index(0).dtype))

    rank = prims.reduce_of(x.shape, [last], "add", element)
    axes = prims.axes_of(x.shape)
    place = (*axes[:-1], rank.at(*axes))
    stores = (
        TensorStore(0, place, x.at(*axes)),
        TensorStore(1, place, axes[-1]),
    )
    outputs = [(t.shape, t.dtype) for t in d.outputs]
    return prims.record(Scatter(axes, stores, (None, None)), outputs)


@expansion("prefix", LOOPS)
def prefix_loops(d: Structured) -> Sequence[Tensor]:
    """A sequential axis carrying the running value."""
    (x,) = d.operands
    monoid, exclusive, reverse = d.attr("monoid"), d.attr("exclusive"), d.attr("reverse")
    wide = prims.accumulator(x.dtype)
    extent = as_expr(x.shape[-1])
    lead = prims.axes_of(x.shape[:-1])
    seq = expr.raw_axis(x.rank - 1, extent)
    place = (*lead, extent - 1 - seq if reverse else seq)
    update = expr.alu(monoid, expr.carry(0, wide), expr.cast(x.at(*place), wide))
    start = expr.const(prims.identity(monoid, wide), wide)
    value = expr.cast(expr.carry(0, wide) if exclusive else update, x.dtype)
    scatter = Scatter(lead, (TensorStore(0, place, value),), (None,), seq, (TensorCarry(start, update),))
    return prims.record(scatter, [(x.shape, x.dtype)])


@expansion("prefix", ARRAYS)
def prefix_arrays(d: Structured) -> Sequence[Tensor]:
    """A reduce over the elements up to each: n * n operations, one kernel."""
    (x,) = d.operands
    monoid, exclusive, reverse = d.attr("monoid"), d.attr("exclusive"), d.attr("reverse")
    wide = prims.accumulator(x.dtype)

    def element(*i: Expr) -> Expr:
        *lead, own, other = i
        near, far = (own, other) if reverse else (other, own)
        part = near < far if exclusive else near <= far
        return expr.select(part, expr.cast(x.at(*lead, other), wide), prims.identity(monoid, wide))

    return [prims.cast(prims.reduce_of(x.shape, [x.shape[-1]], monoid, element), x.dtype)]
