"""Oracles of our own in numpy and float64, for operators that onnx.reference lacks, or gets wrong in some forms.

Each takes the attributes, with the schema's defaults, and the inputs, floats of them widened to float64, None for one
left out; it gives the outputs, floats again in float64. They are written after ONNX's text alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from omniop.conformance.samples.drawing import limits_of

Attributes = Mapping[str, Any]
Numeric = Callable[..., Sequence[Any]]


def mean(_: Attributes, *inputs: np.ndarray) -> Sequence[Any]:
    return [sum(np.broadcast_arrays(*inputs)) / len(inputs)]


def erf(_: Attributes, x: np.ndarray) -> Sequence[Any]:
    return [np.vectorize(math.erf, otypes=[np.float64])(x)]


def onnx_gelu(attributes: Attributes, x: np.ndarray) -> Sequence[Any]:
    return fast_gelu(attributes, x) if attributes["approximate"] == "tanh" else gelu(attributes, x)


def lp_normalization(attributes: Attributes, x: np.ndarray) -> Sequence[Any]:
    """What has a norm of 0 stays 0."""
    p = attributes["p"]
    norm = (np.abs(x) ** p).sum(attributes["axis"], keepdims=True) ** (1 / p)
    return [np.divide(x, norm, out=np.zeros_like(x), where=norm != 0)]


def flat_softmax(attributes: Attributes, x: np.ndarray) -> np.ndarray:
    """Before version 13 all axes from ``axis`` on are one."""
    axis = attributes["axis"] % max(x.ndim, 1)
    flat = x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
    powers = np.exp(flat - flat.max(1, keepdims=True, initial=-np.inf))
    return (powers / powers.sum(1, keepdims=True)).reshape(x.shape)


def flat_log_softmax(attributes: Attributes, x: np.ndarray) -> np.ndarray:
    """Before version 13 all axes from ``axis`` on are one."""
    axis = attributes["axis"] % max(x.ndim, 1)
    flat = x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
    moved = flat - flat.max(1, keepdims=True, initial=-np.inf)
    return (moved - np.log(np.exp(moved).sum(1, keepdims=True))).reshape(x.shape)


def flat_hardmax(attributes: Attributes, x: np.ndarray) -> np.ndarray:
    """Before version 13 all axes from ``axis`` on are one."""
    axis = attributes["axis"] % max(x.ndim, 1)
    flat = x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
    hot = np.arange(flat.shape[1]) == flat.argmax(1)[:, None] if flat.size else flat
    return hot.astype(x.dtype).reshape(x.shape)


FLAT: Mapping[str, Callable[[Attributes, np.ndarray], np.ndarray]] = {
    **{"Softmax": flat_softmax, "LogSoftmax": flat_log_softmax, "Hardmax": flat_hardmax},
}


def max_pool(attributes: Attributes, x: np.ndarray) -> Sequence[Any]:
    """The maximum and its place: in the whole tensor flattened, with columns first for storage order 1."""
    spatial = x.ndim - 2
    kernel = attributes["kernel_shape"]
    strides = attributes.get("strides") or [1] * spatial
    dilations = attributes.get("dilations") or [1] * spatial
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    starts, sizes = _windows(attributes, x.shape[2:], reach, strides)
    y = np.empty((*x.shape[:2], *sizes), x.dtype)
    places = np.empty(y.shape, np.int64)
    area = math.prod(x.shape[2:])
    for at in np.ndindex(*y.shape):
        best: tuple[Any, int] | None = None
        for taps in itertools.product(*map(range, kernel)):
            where = [starts[d] + at[2 + d] * strides[d] + taps[d] * dilations[d] for d in range(spatial)]
            if all(0 <= p < n for p, n in zip(where, x.shape[2:], strict=True)):
                value = x[(*at[:2], *where)]
                if best is None or value > best[0]:
                    order = "F" if attributes.get("storage_order") else "C"
                    inside = int(np.ravel_multi_index(where, x.shape[2:], order=order))  # type: ignore[call-overload]
                    best = (value, (at[0] * x.shape[1] + at[1]) * area + inside)
        assert best is not None
        y[at], places[at] = best
    return [y, places]


def lp_pool(attributes: Attributes, x: np.ndarray) -> Sequence[Any]:
    """The p-norm of what each window holds of x."""
    spatial, p = x.ndim - 2, attributes["p"]
    kernel = attributes["kernel_shape"]
    strides = attributes.get("strides") or [1] * spatial
    dilations = attributes.get("dilations") or [1] * spatial
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    starts, sizes = _windows(attributes, x.shape[2:], reach, strides)
    y = np.zeros((*x.shape[:2], *sizes))
    for at in np.ndindex(*sizes):
        for taps in itertools.product(*map(range, kernel)):
            where = [starts[d] + at[d] * strides[d] + taps[d] * dilations[d] for d in range(spatial)]
            if all(0 <= k < n for k, n in zip(where, x.shape[2:], strict=True)):
                y[(..., *at)] += np.abs(x[(..., *where)]) ** p
    return [y ** (1 / p)]


def _windows(
    attributes: Attributes, sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Where the first window starts, and how many there are, along each axis."""
    spatial, auto = len(sizes), attributes["auto_pad"]
    if auto.startswith("SAME"):
        counts = [-(-n // s) for n, s in zip(sizes, strides, strict=True)]
        total = [max((c - 1) * s + r - n, 0) for c, s, r, n in zip(counts, strides, reach, sizes, strict=True)]
        return [-(t // 2) if auto == "SAME_UPPER" else -(t - t // 2) for t in total], counts
    pads = [0] * 2 * spatial if auto == "VALID" else list(attributes.get("pads") or [0] * 2 * spatial)
    counts = []
    for d in range(spatial):
        free = sizes[d] + pads[d] + pads[d + spatial] - reach[d]
        count = (-(-free // strides[d]) if attributes.get("ceil_mode") else free // strides[d]) + 1
        if attributes.get("ceil_mode") and (count - 1) * strides[d] >= sizes[d] + pads[d]:
            count -= 1  # a window that starts in the pad at the end is none
        counts.append(count)
    return [-p for p in pads[:spatial]], counts


def softsign(_: Attributes, x: np.ndarray) -> Sequence[Any]:
    """onnx.reference takes no scalar."""
    return [x / (1 + np.abs(x))]


def shrink(attributes: Attributes, x: np.ndarray) -> Sequence[Any]:
    """In the dtype itself: onnx.reference takes integers of 64 bits through floats."""
    limit, bias = attributes["lambd"], x.dtype.type(attributes["bias"])
    return [np.where(x < -limit, x + bias, np.where(x > limit, x - bias, x.dtype.type(0)))]


def global_max_pool(_: Attributes, x: np.ndarray) -> Sequence[Any]:
    return [x.max(tuple(range(2, x.ndim)), keepdims=True)]


def affine_grid(attributes: Attributes, theta: np.ndarray, size: np.ndarray) -> Sequence[Any]:
    """The places of an image's elements, from -1 to 1 along each axis, moved; x comes first."""
    spatial = size.tolist()[2:]
    ends = [1.0 if attributes["align_corners"] else 1 - 1 / n for n in spatial]
    places = np.meshgrid(*(np.linspace(-e, e, n) for e, n in zip(ends, spatial, strict=True)), indexing="ij")
    points = np.stack([*reversed(places), np.ones(spatial)], -1)
    return [np.einsum("nij,...j->n...i", theta, points)]


def hann_window(attributes: Attributes, size: np.ndarray) -> Sequence[Any]:
    return [np.sin(_window_angles(attributes, size)) ** 2]


def blackman_window(attributes: Attributes, size: np.ndarray) -> Sequence[Any]:
    """0.42 - 0.5 cos(2 a) + 0.08 cos(4 a) by the squares of sines: nothing cancels."""
    square = np.sin(_window_angles(attributes, size)) ** 2
    return [square * (0.36 + 0.64 * square)]


def _window_angles(attributes: Attributes, size: np.ndarray) -> np.ndarray:
    """pi k / n, counted from the nearer end, where it is exactly 0."""
    count = int(size)
    n = count if attributes["periodic"] else count - 1
    k = np.arange(count)
    return math.pi * np.minimum(k, n - k) / max(n, 1)


def group_normalization(attributes: Attributes, x: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> Sequence[Any]:
    """In float64 whatever ``stash_type`` says. Scale and bias are a group's before version 21, then a channel's."""
    groups, channels = attributes["num_groups"], x.shape[1]
    grouped = x.reshape(len(x), groups, -1)
    normal = grouped - grouped.mean(2, keepdims=True)
    normal /= np.sqrt(grouped.var(2, keepdims=True) + attributes["epsilon"])
    each = [np.repeat(t, channels // len(t)).reshape(-1, *(1,) * (x.ndim - 2)) for t in (scale, bias)]
    return [normal.reshape(x.shape) * each[0] + each[1]]


def qlinear_matmul(
    _: Attributes, a: Any, a_scale: Any, a_zero: Any, b: Any, b_scale: Any, b_zero: Any, y_scale: Any, y_zero: Any
) -> Sequence[Any]:
    """Exact, then scaled, rounded half to even, and saturated; onnx.reference multiplies the scales in their dtype."""

    def rows(t: np.ndarray) -> np.ndarray:
        return t.astype(np.float64).reshape(t.shape + (1,) * t.ndim)

    wide = [t.astype(np.float64) for t in (a, b)]
    total = (wide[0] - rows(a_zero)) @ (wide[1] - b_zero.astype(np.float64)) * (rows(a_scale) * b_scale / rows(y_scale))
    if y_zero.dtype.kind not in "iu":  # float8, whose zero points are 0
        largest = float(limits_of(y_zero.dtype).max)
        return [np.clip(total, -largest, largest)]
    limits = np.iinfo(y_zero.dtype)
    return [np.clip(np.rint(total) + rows(y_zero), limits.min, limits.max)]


def reduce_log_sum(attributes: Attributes, x: np.ndarray, axes: np.ndarray | None = None) -> Sequence[Any]:
    return [np.log(np.sum(x, **_reduced(attributes, x, axes)))]


def reduce_log_sum_exp(attributes: Attributes, x: np.ndarray, axes: np.ndarray | None = None) -> Sequence[Any]:
    return [np.log(np.sum(np.exp(x), **_reduced(attributes, x, axes)))]


def _reduced(attributes: Attributes, x: np.ndarray, axes: np.ndarray | None) -> dict[str, Any]:
    given = attributes.get("axes") if axes is None else axes.tolist()
    if not given:
        given = [] if attributes.get("noop_with_empty_axes") else range(x.ndim)
    return {"axis": tuple(given), "keepdims": bool(attributes["keepdims"])}


def batch_normalization(
    attributes: Attributes, x: np.ndarray, scale: np.ndarray, b: np.ndarray, m: np.ndarray, v: np.ndarray
) -> Sequence[Any]:
    shape = (-1, *(1,) * (x.ndim - 2))
    momentum, extra = attributes["momentum"], list[Any]()
    if attributes.get("training_mode"):
        axes = (0, *range(2, x.ndim))
        now, spread = x.mean(axes), x.var(axes)
        extra = [m * momentum + now * (1 - momentum), v * momentum + spread * (1 - momentum)]
        m, v = now, spread
    y = (x - m.reshape(shape)) / np.sqrt(v.reshape(shape) + attributes["epsilon"])
    return [y * scale.reshape(shape) + b.reshape(shape), *extra]


def mean_variance_normalization(attributes: Attributes, x: np.ndarray) -> Sequence[Any]:
    """In more than float64: the mean of squares less the square of the mean cancels."""
    axes, x = tuple(attributes.get("axes", (0, 2, 3))), x.astype(np.longdouble)
    m = x.mean(axes, keepdims=True)
    return [(x - m) / (np.sqrt(np.mean(x * x, axes, keepdims=True) - m * m) + 1e-9)]


def lrn(attributes: Attributes, x: np.ndarray) -> Sequence[Any]:
    size, c = attributes["size"], x.shape[1]
    squares = np.zeros_like(x)
    for k in range(c):
        low, high = max(0, k - (size - 1) // 2), min(c - 1, k + math.ceil((size - 1) / 2))
        squares[:, k] = (x[:, low : high + 1] ** 2).sum(1)
    return [x / (attributes["bias"] + attributes["alpha"] / size * squares) ** attributes["beta"]]


def global_lp_pool(attributes: Attributes, x: np.ndarray) -> Sequence[Any]:
    p = attributes["p"]
    return [(np.abs(x) ** p).sum(tuple(range(2, x.ndim)), keepdims=True) ** (1 / p)]


def max_roi_pool(attributes: Attributes, x: np.ndarray, rois: np.ndarray) -> Sequence[Any]:
    """As in Fast R-CNN: bins of a box of whole pixels, both ends in it; an empty bin gives 0."""
    height, width = attributes["pooled_shape"]
    y = np.zeros((len(rois), x.shape[1], height, width))
    for n, (batch, *corners) in enumerate(rois):
        left, top, right, bottom = (math.floor(v * attributes["spatial_scale"] + 0.5) for v in corners)
        tall, broad = max(bottom - top + 1, 1) / height, max(right - left + 1, 1) / width
        for i, j in itertools.product(range(height), range(width)):
            rows = [math.floor(i * tall) + top, math.ceil((i + 1) * tall) + top]
            columns = [math.floor(j * broad) + left, math.ceil((j + 1) * broad) + left]
            (r0, r1), (c0, c1) = np.clip(rows, 0, x.shape[2]), np.clip(columns, 0, x.shape[3])
            if r1 > r0 and c1 > c0:
                y[n, :, i, j] = x[int(batch), :, r0:r1, c0:c1].max((1, 2))
    return [y]


def conv_transpose(
    attributes: Attributes, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None
) -> Sequence[Any]:
    """Every element of x adds w, scaled by it, at its place; then the pads are cut off."""
    spatial, group = x.ndim - 2, attributes["group"]
    kernel = w.shape[2:]
    strides = attributes.get("strides") or [1] * spatial
    dilations = attributes.get("dilations") or [1] * spatial
    spare = attributes.get("output_padding") or [0] * spatial
    full = [strides[d] * (x.shape[2 + d] - 1) + spare[d] + (kernel[d] - 1) * dilations[d] + 1 for d in range(spatial)]
    pads = _transposed_pads(attributes, x.shape[2:], full, strides)
    each = w.shape[1]
    y = np.zeros((x.shape[0], each * group, *full))
    wide, deep = x.reshape(x.shape[0], group, -1, *x.shape[2:]), w.reshape(group, -1, *w.shape[1:])
    for taps in itertools.product(*map(range, kernel)):
        tap = deep[(slice(None),) * 3 + taps]
        part = np.einsum("ngc...,gco->ngo...", wide, tap).reshape(x.shape[0], -1, *x.shape[2:])
        place = tuple(
            slice(taps[d] * dilations[d], taps[d] * dilations[d] + strides[d] * (x.shape[2 + d] - 1) + 1, strides[d])
            for d in range(spatial)
        )
        y[(slice(None), slice(None), *place)] += part
    inner = tuple(slice(pads[d], full[d] - pads[d + spatial]) for d in range(spatial))
    y = y[(slice(None), slice(None), *inner)]
    return [y if bias is None else y + bias.reshape(-1, *(1,) * spatial)]


def _transposed_pads(
    attributes: Attributes, sizes: Sequence[int], full: Sequence[int], strides: Sequence[int]
) -> list[int]:
    spatial = len(sizes)
    auto, shape = attributes["auto_pad"], attributes.get("output_shape")
    if auto in ("NOTSET", "VALID") and not shape:
        return list(attributes.get("pads") or [0] * 2 * spatial)
    wanted = shape or [size * stride for size, stride in zip(sizes, strides, strict=True)]
    total = [have - want for have, want in zip(full, wanted, strict=True)]
    less, more = [t // 2 for t in total], [t - t // 2 for t in total]
    return less + more if auto == "SAME_UPPER" else more + less


def one_hot(attributes: Attributes, indices: np.ndarray, depth: np.ndarray, values: np.ndarray) -> Sequence[Any]:
    size, axis = int(np.asarray(depth).reshape(-1)[0]), attributes["axis"]
    places = indices.astype(np.int64)
    places = np.where(places < 0, places + size, places)
    hot = np.expand_dims(places, axis) == np.arange(size).reshape(
        [-1 if k == axis % (indices.ndim + 1) else 1 for k in range(indices.ndim + 1)]
    )
    return [np.where(hot, values[1], values[0])]


def pad(attributes: Attributes, x: np.ndarray, pads: Any = None, value: Any = None, axes: Any = None) -> Sequence[Any]:
    """A negative pad cuts off, before the others are added."""
    given: list[int] = attributes["pads"] if pads is None else pads.tolist()
    named = range(x.ndim) if axes is None else axes.tolist()
    ends = [[0, 0] for _ in range(x.ndim)]
    for k, axis in enumerate(named):
        ends[axis] = [given[k], given[k + len(named)]]
    x = x[tuple(slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(ends, x.shape, strict=True))]
    widths = [(max(a, 0), max(b, 0)) for a, b in ends]
    mode = attributes["mode"]
    if mode != "constant":
        return [np.pad(x, widths, mode=mode)]
    filler: Any = attributes.get("value", 0.0) if value is None else np.asarray(value).reshape(())[()]
    if x.dtype == object:
        filler = "" if value is None else filler
    y = np.empty([n + a + b for n, (a, b) in zip(x.shape, widths, strict=True)], x.dtype)
    y[...] = np.asarray(filler).astype(x.dtype)
    y[tuple(slice(a, a + n) for n, (a, _) in zip(x.shape, widths, strict=True))] = x
    return [y]


# -- com.microsoft ---------------------------------------------------------------------------------------------------


def _gelu(x: np.ndarray) -> np.ndarray:
    return x / 2 * (1 + np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2)))


def gelu(_: Attributes, x: np.ndarray, bias: np.ndarray | float = 0.0) -> Sequence[Any]:
    return [_gelu(x + bias)]


def fast_gelu(_: Attributes, x: np.ndarray, bias: np.ndarray | float = 0.0) -> Sequence[Any]:
    x = x + bias
    return [x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))]


def quick_gelu(attributes: Attributes, x: np.ndarray) -> Sequence[Any]:
    return [x / (1 + np.exp(-attributes["alpha"] * x))]


def split_gelu(_: Attributes, x: np.ndarray, bias: np.ndarray) -> Sequence[Any]:
    first, second = np.split(x + bias, 2, -1)
    return [first * _gelu(second)]


def fused_matmul(attributes: Attributes, a: np.ndarray, b: np.ndarray) -> Sequence[Any]:
    """``transBatch``: the first axis goes behind those of the batch, before the last."""
    if attributes.get("transBatchA"):
        a = np.moveaxis(a, 0, -2)
    if attributes.get("transBatchB"):
        b = np.moveaxis(b, 0, -2)
    a = np.swapaxes(a, -1, -2) if attributes["transA"] else a
    b = np.swapaxes(b, -1, -2) if attributes["transB"] else b
    return [attributes["alpha"] * (a @ b)]


def fused_gemm(attributes: Attributes, a: np.ndarray, b: np.ndarray, c: Any = None) -> Sequence[Any]:
    a, b = a.T if attributes["transA"] else a, b.T if attributes["transB"] else b
    y = attributes["alpha"] * (a @ b) + (0.0 if c is None else attributes["beta"] * c)
    return [activate(attributes.get("activation", ""), [], y)]


def activate(name: str, params: Sequence[float], y: np.ndarray) -> np.ndarray:
    """An activation that is fused behind a product."""
    match name:
        case "Relu":
            return np.maximum(y, 0)
        case "Tanh":
            return np.tanh(y)
        case "Sigmoid":
            return 1 / (1 + np.exp(-y))
        case "LeakyRelu":
            return np.where(y < 0, y * (params[0] if params else 0.01), y)
        case "Clip":
            return np.clip(y, params[0], params[1])
        case _:
            return y


def integer_product(
    _: Attributes,
    a: np.ndarray,
    b: np.ndarray,
    a_scale: Any,
    b_scale: Any,
    a_zero: Any = None,
    b_zero: Any = None,
    bias: Any = None,
) -> Sequence[Any]:
    """MatMulIntegerToFloat: exact, then scaled."""
    wide = [array.astype(np.float64) for array in (a, b)]
    zeros = [0.0 if zero is None else zero.astype(np.float64) for zero in (a_zero, b_zero)]
    y = (wide[0] - zeros[0]) @ (wide[1] - zeros[1]) * (a_scale * b_scale)
    return [y if bias is None else y + bias]


def inverse(_: Attributes, x: np.ndarray) -> Sequence[Any]:
    return [np.linalg.inv(x)]


def cdist(attributes: Attributes, a: np.ndarray, b: np.ndarray) -> Sequence[Any]:
    squares = ((a[:, None] - b[None]) ** 2).sum(-1)
    return [np.sqrt(squares) if attributes["metric"] == "euclidean" else squares]


def simplified_layer_normalization(attributes: Attributes, x: np.ndarray, scale: np.ndarray) -> Sequence[Any]:
    return [x / np.sqrt((x * x).mean(-1, keepdims=True) + attributes["epsilon"]) * scale]


NUMERIC: Mapping[str, Numeric] = {
    **{"Erf": erf, "Gelu": onnx_gelu, "LpNormalization": lp_normalization, "MaxPool": max_pool},
    "LpPool": lp_pool,
    **{
        "Softsign": softsign,
        "Shrink": shrink,
        "GlobalMaxPool": global_max_pool,
        "AffineGrid": affine_grid,
        "HannWindow": hann_window,
    },
    "BlackmanWindow": blackman_window,
    **{"GroupNormalization": group_normalization, "QLinearMatMul": qlinear_matmul},
    **{"Mean": mean, "ReduceLogSum": reduce_log_sum, "ReduceLogSumExp": reduce_log_sum_exp},
    **{"BatchNormalization": batch_normalization, "MeanVarianceNormalization": mean_variance_normalization},
    **{"LRN": lrn, "GlobalLpPool": global_lp_pool, "MaxRoiPool": max_roi_pool, "ConvTranspose": conv_transpose},
    **{"OneHot": one_hot, "Pad": pad, "com.microsoft::Pad": pad},
    **{"com.microsoft::Gelu": gelu, "com.microsoft::BiasGelu": gelu, "com.microsoft::FastGelu": fast_gelu},
    **{"com.microsoft::QuickGelu": quick_gelu, "com.microsoft::BiasSplitGelu": split_gelu},
    **{"com.microsoft::FusedMatMul": fused_matmul, "com.microsoft::TransposeMatMul": fused_matmul},
    **{"com.microsoft::FusedGemm": fused_gemm, "com.microsoft::Inverse": inverse, "com.microsoft::CDist": cdist},
    "com.microsoft::MatMulIntegerToFloat": integer_product,
    "SimplifiedLayerNormalization": simplified_layer_normalization,
}
"""By the operator's name in reports."""
