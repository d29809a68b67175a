"""A convolution with a window of one place as the matrix product that it is."""

from __future__ import annotations

from dataclasses import replace

from omniop.opset import expr, poly
from omniop.opset.kernel import Call, View
from omniop.opset.prims import accumulator


def as_contract(call: Call) -> Call | None:
    """``conv`` as ``contract``: w[1, group, M / group, C / group] x x[N, group, C / group, places].

    None where the window has more than one place, where strides or padding leave some out, or where the places do not
    lie one after the other.
    """
    x, w = call.operands
    one = all(expr.is_const(extent, 1) for extent in w.shape[2:])
    dense = all(step == 1 for step in call.attr("strides")) and all(pad == 0 for pad in call.attr("pads"))
    group = call.attr("group")
    flat = [_flat(view, group) for view in (x, call.results[0])]
    if not one or not dense or None in flat:
        return None
    b, c = flat
    assert b is not None
    assert c is not None
    rows = poly.simplify(w.shape[0] // group)
    row = w.strides[0]
    a = replace(
        w,
        shape=(x.shape[0], expr.index(group), rows, w.shape[1]),
        strides=(expr.index(0), poly.simplify(row * rows), row, w.strides[1]),
    )
    attrs = (("accumulate", accumulator(x.dtype)),)
    return replace(call, prim="contract", operands=(a, b), results=(c,), attrs=attrs)


def _flat(view: View, group: int) -> View | None:
    """[N, channels, ...] as [N, group, channels / group, places]; None where that is no view."""
    for k in range(2, len(view.shape) - 1):
        if not poly.same(view.strides[k], view.strides[k + 1] * view.shape[k + 1]):
            return None
    places = expr.index(1)
    for extent in view.shape[2:]:
        places = places * extent
    channels, stride = poly.simplify(view.shape[1] // group), view.strides[1]
    return replace(
        view,
        shape=(view.shape[0], expr.index(group), channels, poly.simplify(places)),
        strides=(view.strides[0], poly.simplify(stride * channels), stride, view.strides[-1]),
    )
