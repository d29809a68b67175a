"""Convolutions, forward and transposed, of floats and of quantized integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from omniop.opset import expr, poly
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import DType
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.activation import swish
from omniop.opset.lower.common import choice, require_equal, require_rank, require_shape
from omniop.opset.lower.sampling import multilinear
from omniop.opset.lower.windows import Window, ceil_div, per_axis, split_pads, window_of
from omniop.opset.lowering import Node, lowering
from omniop.opset.sym import Dim, as_expr, product

_At = Callable[[Expr, Expr, Sequence[Expr], Sequence[Expr]], list[Expr]]


@lowering("Conv")
def conv(node: Node, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    # with a bias the sum is rounded once, after it
    wide = x.dtype if b is None else p.accumulator(x.dtype)
    return with_bias(convolve(node, x, w, wide), b, x.dtype)


@lowering("ConvBatchNormalization", domain="omniop")
def conv_batch_normalization(
    node: Node,
    x: Tensor,
    w: Tensor,
    scale: Tensor,
    shift: Tensor,
    mean: Tensor,
    variance: Tensor,
    b: Tensor | None = None,
) -> Tensor:
    """By weights and a bias that are scaled for each channel of the result."""
    wide, epsilon = p.accumulator(x.dtype), node.attr("epsilon", 1e-5)
    factor = p.elementwise(
        lambda s, v: expr.cast(s, wide) / expr.alu("sqrt", expr.cast(v, wide) + epsilon), scale, variance
    )
    each = p.reshape(factor, [w.shape[0], *[1] * (w.rank - 1)])
    weights = p.elementwise(lambda e, f: expr.cast(expr.cast(e, wide) * f, x.dtype), w, each)
    base = p.elementwise(lambda m: -expr.cast(m, wide), mean)
    if b is not None:
        base = p.elementwise(lambda m, e: m + expr.cast(e, wide), base, b)
    bias = p.elementwise(lambda m, f, s: m * f + expr.cast(s, wide), base, factor, shift)
    return with_bias(convolve(node, x, weights, wide), bias, x.dtype)


def convolve(node: Node, x: Tensor, w: Tensor, dtype: DType, zero: Tensor | None = None) -> Tensor:
    """The prim ``conv`` with the node's attributes, into ``dtype``; ``integer_conv`` where x counts from a ``zero``.

    Raises ModelError when the channels do not fit.
    """
    group = node.attr("group", 1)
    if x.rank != w.rank or x.rank < 3:
        raise ModelError(f"{node.label}: X {list(x.shape)} and W {list(w.shape)} need the same rank, at least 3")
    require_equal(node, x.shape[1], w.shape[1] * group, f"channels of X against {group} groups of W's")
    require_equal(node, w.shape[0] % group, 0, f"output channels by {group} groups")
    window = window_of(node, x.shape[2:], w.shape[2:])
    shape = (x.shape[0], w.shape[0], *window.out)
    prim, more = ("conv", []) if zero is None else ("integer_conv", [zero])
    return p.structured(prim, [x, w, *more], [(shape, dtype)], group=group, **window.geometry)[0]


def with_bias(y: Tensor, b: Tensor | None, dtype: DType) -> Tensor:
    """A bias for each channel, added in y's dtype, rounded to ``dtype``."""
    if b is None:
        return p.cast(y, dtype)
    bias = p.reshape(b, per_channel(b, y.rank))
    return p.elementwise(lambda e, c: expr.cast(e + expr.cast(c, e.dtype), dtype), y, bias)


def per_channel(b: Tensor, rank: int) -> list[Dim]:
    """The shape in which a vector lies along axis 1 of a tensor of ``rank``."""
    return [1, b.shape[0], *[1] * (rank - 2)]


# Causal ---------------------------------------------------------------------------------------------------------------

_ACTIVATIONS: dict[str, Callable[[Expr], Expr]] = {"none": lambda e: e, **dict.fromkeys(("silu", "swish"), swish)}


@lowering("CausalConvWithState", since=27)
def causal_conv(
    node: Node, x: Tensor, w: Tensor, b: Tensor | None = None, past: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Each channel by its own kernel, over the k - 1 places before and its own; those before x are ``past``, or zeros.

    x [batch, channels, length], w [channels, 1, k]; outputs y like x, and the last k - 1 places of past and x joined.
    """
    require_rank(node, x, 3)
    batch, channels, length = x.shape
    require_rank(node, w, 3)
    require_shape(node, w, (channels, 1, w.shape[2]), "the weight")
    kept, wide = w.shape[2] - 1, p.accumulator(x.dtype)
    before: list[Dim] = [batch, channels, kept]
    if past is None:
        past = p.full(before, 0, x.dtype)
    require_shape(node, past, before, "past_state")
    joined = p.concat([past, x], 2)

    def product_at(n: Expr, c: Expr, t: Expr, k: Expr) -> Expr:
        return expr.cast(joined.at(n, c, t + k), wide) * expr.cast(w.at(c, 0, k), wide)

    total = with_bias(p.reduce_of(x.shape, [w.shape[2]], "add", product_at), b, wide)
    activation = choice(node, "activation", _ACTIVATIONS, "none")
    y = p.elementwise(lambda e: expr.cast(activation(e), x.dtype), total)
    return (y, p.narrow(joined, 2, length, kept))[: len(node.outputs)]


# Transposed -----------------------------------------------------------------------------------------------------------


@lowering("ConvTranspose")
def conv_transpose(node: Node, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """A sum over the channels gives what each input place adds to each element of its window; each output then gathers
    what falls on it."""
    group, kernel, spatial = node.attr("group", 1), w.shape[2:], x.shape[2:]
    require_equal(node, x.shape[1], w.shape[0], "channels of X and W")
    require_equal(node, w.shape[0] % group, 0, f"channels by {group} groups")
    window = transposed_window(node, spatial, kernel)
    wide = p.accumulator(x.dtype)
    columns, at = _columns(x, w, group, wide)
    taps = [_Taps.of(window, spatial, k) for k in range(len(kernel))]

    def element(*i: Expr) -> Expr:
        outs, steps = i[2 : 2 + len(taps)], i[2 + len(taps) :]
        places = [tap.place(out, step) for tap, out, step in zip(taps, outs, steps, strict=True)]
        guard = expr.all_of([test for _, _, tests in places for test in tests])
        index = at(i[0], i[1], [k for k, _, _ in places], [place for _, place, _ in places])
        return columns.at(*index, guard=guard)

    shape = [x.shape[0], w.shape[1] * group, *window.out]
    y = p.reduce_of(shape, [tap.count for tap in taps], "add", element)
    return with_bias(y, b, x.dtype)


def _columns(x: Tensor, w: Tensor, group: int, wide: DType) -> tuple[Tensor, _At]:
    """Each input place times each element of its window, summed over the channels; and where (image, channel, element,
    place) stands in it."""
    kernel, spatial = w.shape[2:], x.shape[2:]
    if group == 1:  # one pixel to one pixel, whose channels are told apart by element first: in whole blocks of them
        rank = len(kernel)
        filters = p.transpose(w, (*range(2, w.rank), 1, 0))
        filters = p.reshape(filters, [product(w.shape[1:]), w.shape[0], *[1] * rank])
        geometry = {"strides": (1,) * rank, "dilations": (1,) * rank, "pads": (0,) * 2 * rank}
        shape = (x.shape[0], filters.shape[0], *spatial)
        columns = p.structured("conv", [x, filters], [(shape, wide)], group=1, **geometry)[0]

        def by_element(n: Expr, m: Expr, element: Sequence[Expr], place: Sequence[Expr]) -> list[Expr]:
            tap = poly.linear(tuple(element), tuple(as_expr(k) for k in kernel))
            return [n, tap * as_expr(w.shape[1]) + m, *place]

        return columns, by_element
    depth = w.shape[0] // group
    weights = p.transpose(p.reshape(w, [1, group, depth, product(w.shape[1:])]), (0, 1, 3, 2))
    columns = p.contract(weights, p.reshape(x, [x.shape[0], group, depth, product(spatial)]), wide)
    columns = p.reshape(columns, [x.shape[0], w.shape[1] * group, *kernel, *spatial])
    return columns, lambda n, m, element, place: [n, m, *element, *place]


def transposed_window(node: Node, spatial: Sequence[Dim], kernel: Sequence[Dim]) -> Window:
    """The window that the forward convolution would slide over the output of this one."""
    rank = len(spatial)
    strides, dilations = per_axis(node, "strides", rank, 1), per_axis(node, "dilations", rank, 1)
    extra = per_axis(node, "output_padding", rank, 0)
    whole = [
        s * (d - 1) + e + (k - 1) * dilation + 1
        for s, d, e, k, dilation in zip(strides, spatial, extra, kernel, dilations, strict=True)
    ]
    auto, wanted = node.attr("auto_pad", "NOTSET"), node.attr("output_shape")
    out: list[Dim]
    if wanted or auto in ("SAME_UPPER", "SAME_LOWER"):
        out = list(wanted)[-rank:] if wanted else [d * s for d, s in zip(spatial, strides, strict=True)]
        pads = split_pads([a - o for a, o in zip(whole, out, strict=True)], auto)
    else:
        pads = per_axis(node, "pads", 2 * rank, 0)
        out = [a - pads[k] - pads[rank + k] for k, a in enumerate(whole)]
    return Window(tuple(kernel), strides, dilations, pads, tuple(out))


@dataclass(frozen=True)
class _Taps:
    """Along one axis, which elements of the window may fall on an output place, and from which input place.

    Without dilation they are every stride-th one: counted from the last input place that reaches the output.
    """

    kernel: Dim
    stride: int
    dilation: int
    begin: Dim
    out: Dim
    extent: Dim

    @classmethod
    def of(cls, window: Window, spatial: Sequence[Dim], k: int) -> _Taps:
        sizes = window.kernel[k], window.strides[k], window.dilations[k], window.begins[k], window.out[k]
        return cls(*sizes, spatial[k])

    @property
    def direct(self) -> bool:
        return self.dilation == 1

    @property
    def count(self) -> Dim:
        return ceil_div(self.kernel, self.stride) if self.direct else self.kernel

    def place(self, out: Expr, step: Expr) -> tuple[Expr, Expr, list[Expr]]:
        """(element of the window, input place, tests that they exist) for a step below ``count``."""
        reach = out + as_expr(self.begin)
        if not self.direct:
            rest = reach - step * self.dilation
            at = rest // self.stride
            return step, at, [(rest % self.stride).eq(0), at >= 0, at < as_expr(self.extent)]
        first = reach // self.stride
        element, at = reach % self.stride + step * self.stride, first - step
        tests = []
        if not _divides(self.stride, self.kernel):
            tests.append(element < as_expr(self.kernel))
        if not (isinstance(self.count, int) and self.count == 1):
            tests.append(at >= 0)
        # the last output's first place: (out - 1 + begin) // stride
        top = (as_expr(self.out) - 1 + as_expr(self.begin)) // self.stride
        if not poly.nonnegative(as_expr(self.extent) - 1 - top):
            tests.append(at < as_expr(self.extent))
        return element, at, tests


def _divides(stride: int, kernel: Dim) -> bool:
    return isinstance(kernel, int) and kernel % stride == 0


# Deformable -----------------------------------------------------------------------------------------------------------


@lowering("DeformConv")
def deform_conv(
    node: Node, x: Tensor, w: Tensor, offset: Tensor, b: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Each element of each window is read, between the pixels, at a place of its own; zero outside."""
    group, offset_group = node.attr("group", 1), node.attr("offset_group", 1)
    window = window_of(node, x.shape[2:], w.shape[2:])
    rank, wide = len(window.kernel), p.accumulator(x.dtype)
    batch, depth = x.shape[0], w.shape[1]
    per_offset = x.shape[1] // offset_group
    moves = p.reshape(offset, [batch, offset_group, *window.kernel, rank, *window.out])
    factors = None if mask is None else p.reshape(mask, [batch, offset_group, *window.kernel, *window.out])

    def element(*i: Expr) -> Expr:
        n, g, c, kernel, outs = i[0], i[1], i[2], i[3 : 3 + rank], i[3 + rank :]
        channel = g * as_expr(depth) + c
        own = channel // as_expr(per_offset)
        places = []
        for k in range(rank):
            still = window.place(k, outs[k], kernel[k])
            places.append(expr.cast(still, wide) + expr.cast(moves.at(n, own, *kernel, k, *outs), wide))
        value = multilinear(x, (n, channel), places)
        return value if factors is None else value * expr.cast(factors.at(n, own, *kernel, *outs), wide)

    columns = p.map_of([batch, group, depth, *window.kernel, *window.out], element)
    inner = product((depth, *window.kernel))
    columns = p.reshape(columns, [batch, group, inner, product(window.out)])
    weights = p.cast(p.reshape(w, [1, group, w.shape[0] // group, inner]), wide)
    y = p.reshape(p.contract(weights, columns), [batch, w.shape[0], *window.out])
    return with_bias(y, b, x.dtype)
