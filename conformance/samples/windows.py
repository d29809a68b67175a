"""Convolutions, pooling, and what moves a window over a picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from omniop.conformance.samples.drawing import Values, distinct, normal, uniform
from omniop.conformance.samples.op import Found, Op, samples, spread

CONVOLUTIONS: tuple[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ((1, 1, 5), (1, 1, 3), {}),
    ((2, 3, 9), (4, 3, 3), {"strides": [2], "pads": [1, 0]}),
    ((1, 3, 7, 7), (5, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    ((2, 4, 9, 8), (6, 2, 3, 2), {"group": 2, "strides": [2, 1]}),
    ((1, 8, 6, 6), (8, 1, 3, 3), {"group": 8, "pads": [1, 1, 1, 1]}),
    ((1, 2, 9, 9), (3, 2, 3, 3), {"dilations": [2, 3]}),
    ((1, 2, 8, 7), (3, 2, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ((1, 2, 8, 7), (3, 2, 3, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ((1, 2, 8, 7), (3, 2, 3, 3), {"auto_pad": "VALID"}),
    ((1, 16, 5, 5), (17, 16, 1, 1), {}),
    ((1, 2, 4, 5, 6), (3, 2, 2, 3, 2), {"pads": [0, 1, 0, 1, 1, 0]}),
    ((1, 3, 6, 6), (2, 3, 6, 6), {}),
    ((0, 3, 5, 5), (2, 3, 3, 3), {}),
    ((1, 32, 14, 14), (33, 32, 3, 3), {"pads": [1, 1, 1, 1]}),
)


@samples("Conv")
def conv(op: Op) -> Found:
    for dtype in op.dtypes():
        for x, w, attributes in CONVOLUTIONS if dtype == "float32" else spread(op, dtype, CONVOLUTIONS):
            yield op(normal(dtype, *x), normal(dtype, *w), **attributes)
            yield op(normal(dtype, *x), normal(dtype, *w), normal(dtype, w[0]), **attributes)
        yield op.runs(*([normal(dtype, 1, 2, n, 9), normal(dtype, 3, 2, 3, 3)] for n in (5, 12, 3, 5)))
    yield op(normal("float32", 1, 3, 5, 5), normal("float32", 2, 4, 3, 3), refused=True)
    yield op(normal("float32", 1, 4, 5, 5), normal("float32", 3, 2, 3, 3), group=2, refused=True)


@samples("ConvInteger")
def conv_integer(op: Op) -> Found:
    for dtype in op.dtypes("T1"):
        for other in op.dtypes("T2"):
            for x, w, attributes in CONVOLUTIONS[:11]:
                found = wholes(dtype, x), wholes(other, w)
                yield op(*found, normal(dtype), tag=other, **attributes)
            yield op(wholes(dtype, (1, 2, 5, 5)), wholes(other, (3, 2, 3, 3)), None, normal(other, 3), tag=other)


@samples("QLinearConv")
def qlinear_conv(op: Op) -> Found:
    for dtype in op.dtypes("T1"):
        for x, w, attributes in CONVOLUTIONS[:11]:
            point, scale = uniform(dtype, (), 0, 5), uniform("float32", (), 0.01, 0.1)
            last = uniform("float32", (), 0.5, 1), point
            yield op(wholes(dtype, x), scale, point, wholes(dtype, w), scale, point, *last, **attributes)
            bias = normal("int32", w[0])
            each = uniform("float32", (w[0],), 0.01, 0.1), uniform(dtype, (w[0],), 0, 1)
            yield op(wholes(dtype, x), scale, point, wholes(dtype, w), *each, *last, bias, **attributes)


def wholes(dtype: str, shape: tuple[int, ...]) -> Values:
    return uniform(dtype, shape, *((-128, 128) if dtype == "int8" else (0, 256)))


@samples("ConvTranspose")
def conv_transpose(op: Op) -> Found:
    cases: tuple[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
        ((1, 1, 5), (1, 1, 3), {}),
        ((2, 3, 4), (3, 2, 3), {"strides": [2], "output_padding": [1]}),
        ((1, 3, 4, 4), (3, 2, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((1, 4, 3, 5), (4, 2, 2, 3), {"group": 2, "strides": [2, 3]}),
        ((1, 2, 4, 4), (2, 3, 3, 3), {"dilations": [2, 2]}),
        ((1, 2, 3, 3), (2, 2, 3, 3), {"strides": [3, 2], "output_shape": [8, 6]}),
        ((1, 2, 3, 3), (2, 2, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ((1, 2, 2, 3, 2), (2, 1, 2, 2, 2), {}),
    )
    for dtype in op.dtypes():
        for x, w, attributes in cases:
            yield op(normal(dtype, *x), normal(dtype, *w), **attributes)
            bias = normal(dtype, w[1] * attributes.get("group", 1))
            yield op(normal(dtype, *x), normal(dtype, *w), bias, **attributes)
    yield op(normal("float32", 1, 3, 5, 5), normal("float32", 4, 2, 3, 3), refused=True)


@samples("CausalConvWithState")
def causal_conv(op: Op) -> Found:
    for dtype in op.dtypes():
        for n, c, length, k in ((1, 1, 5, 3), (2, 4, 7, 4), (1, 3, 1, 2), (2, 2, 4, 1)):
            x, w = normal(dtype, n, c, length), normal(dtype, c, 1, k)
            yield op(x, w, count=2)
            yield op(x, w, normal(dtype, c), count=2)
            yield op(x, w, normal(dtype, c), normal(dtype, n, c, k - 1), count=2)
            yield op(x, w, None, normal(dtype, n, c, k - 1), activation="silu", count=2)


@samples("DeformConv")
def deform_conv(op: Op) -> Found:
    for dtype in op.dtypes():
        for group, offsets in ((1, 1), (2, 1), (1, 2)):
            x, w = normal(dtype, 1, 4, 6, 5), normal(dtype, 4, 4 // group, 3, 3)
            offset = uniform(dtype, (1, offsets * 18, 4, 3), -0.9, 0.9)
            attributes: dict[str, Any] = {"group": group, "offset_group": offsets, "kernel_shape": [3, 3]}
            yield op(x, w, offset, **attributes)
            yield op(x, w, offset, normal(dtype, 4), uniform(dtype, (1, offsets * 9, 4, 3), 0, 1), **attributes)
        offset = uniform(dtype, (2, 8, 6, 6), -2, 2)
        yield op(normal(dtype, 2, 1, 5, 5), normal(dtype, 2, 1, 2, 2), offset, pads=[1, 1, 1, 1])


def _pools(op: Op) -> Iterator[tuple[tuple[int, ...], dict[str, Any]]]:
    yield (2, 3, 9), {"kernel_shape": [2]}
    yield (1, 3, 8, 9), {"kernel_shape": [3, 2], "strides": [2, 2]}
    yield (1, 2, 7, 7), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}
    yield (1, 2, 8, 7), {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}
    yield (1, 2, 8, 7), {"kernel_shape": [3, 3], "auto_pad": "SAME_LOWER", "strides": [2, 2]}
    yield (1, 2, 8, 7), {"kernel_shape": [3, 3], "auto_pad": "VALID"}
    yield (1, 1, 4, 5, 6), {"kernel_shape": [2, 3, 2]}
    yield (1, 2, 9, 9), {"kernel_shape": [3, 3], "dilations": [2, 2]}
    yield (1, 2, 7, 8), {"kernel_shape": [3, 3], "strides": [2, 3], "ceil_mode": 1}
    yield (1, 2, 6, 6), {"kernel_shape": [6, 6]}


@samples("MaxPool AveragePool LpPool")
def pool(op: Op) -> Found:
    for dtype in op.dtypes():
        draw = distinct if op.name == "MaxPool" and dtype in op.dtypes(kinds="f") else normal
        for shape, attributes in _pools(op):
            yield op(draw(dtype, *shape), **attributes)
            if op.name == "MaxPool" and op.version >= 8 and dtype in op.some():
                for order in (0, 1):
                    yield op(distinct(dtype, *shape), count=2, storage_order=order, **attributes)
            if op.name == "AveragePool":
                yield op(draw(dtype, *shape), count_include_pad=1, **attributes)
            if op.name == "LpPool" and dtype == "float32":
                yield op(draw(dtype, *shape), p=1, **attributes)
                yield op(draw(dtype, *shape), p=3, **attributes)
    yield op.runs(*([distinct("float32", 1, 2, n, 9)] for n in (5, 12, 3, 5)), kernel_shape=[3, 3])
    yield op(normal("float32", 1, 2, 5, 5), kernel_shape=[3], refused=True)


@samples("GlobalMaxPool GlobalAveragePool GlobalLpPool")
def global_pool(op: Op) -> Found:
    for dtype in op.dtypes():
        for shape in ((2, 3, 5), (1, 2, 4, 5), (2, 1, 3, 2, 4), (1, 1, 1, 1), (3, 65, 7, 7)):
            yield op(normal(dtype, *shape))
            if op.name == "GlobalLpPool":
                yield op(normal(dtype, *shape), p=1)
                yield op(uniform(dtype, shape, 0.5, 1.5), p=3)
        yield op.runs(*([normal(dtype, 1, 2, n, 3)] for n in (5, 1, 9, 5)))


@samples("MaxUnpool")
def max_unpool(op: Op) -> Found:
    for dtype in op.dtypes("T1"):
        places = np.array([[[[0, 3], [10, 13]]]])
        yield op(normal(dtype, 1, 1, 2, 2), places, kernel_shape=[2, 2], strides=[2, 2])
        yield op(normal(dtype, 1, 1, 2, 2), places, output_shape=[1, 1, 5, 5], kernel_shape=[2, 2], strides=[2, 2])


@samples("MaxRoiPool")
def max_roi_pool(op: Op) -> Found:
    for dtype in op.dtypes():
        rois = np.array([[0, 0, 0, 5, 5], [1, 1, 2, 3, 6], [0, 2, 2, 2, 2]]).astype(normal(dtype).draw(_RANDOM).dtype)
        for pooled in ([1, 1], [2, 2], [3, 2]):
            yield op(normal(dtype, 2, 3, 8, 7), rois, pooled_shape=pooled)
            yield op(normal(dtype, 2, 3, 8, 7), rois, pooled_shape=pooled, spatial_scale=0.5)


_RANDOM = np.random.default_rng(0)


@samples("RoiAlign")
def roi_align(op: Op) -> Found:
    for dtype in op.dtypes("T1"):
        boxes = uniform(dtype, (3, 4), 0, 3)
        for attributes in (
            {},
            {"output_height": 3, "output_width": 2, "sampling_ratio": 2},
            {"mode": "max", "sampling_ratio": 2, "output_height": 2, "output_width": 2},
            {"spatial_scale": 0.5, "output_height": 2, "output_width": 3, "sampling_ratio": 1},
            {"coordinate_transformation_mode": "output_half_pixel", "sampling_ratio": 2},
        ):
            yield op(normal(dtype, 2, 3, 7, 6), boxes, np.array([0, 1, 0]), **attributes)


@samples("Col2Im")
def col2im(op: Op) -> Found:
    for dtype in op.dtypes("T", kinds="biufc"):
        yield op(normal(dtype, 1, 4, 12), image_shape=[4, 5], block_shape=[2, 2])
        yield op(normal(dtype, 2, 8, 6), image_shape=[4, 6], block_shape=[2, 2], strides=[2, 2])
        yield op(normal(dtype, 1, 9, 25), image_shape=[5, 5], block_shape=[3, 3], pads=[1, 1, 1, 1])
        yield op(normal(dtype, 1, 4, 15), image_shape=[5, 7], block_shape=[2, 2], dilations=[2, 2])


@samples("LRN")
def lrn(op: Op) -> Found:
    for dtype in op.dtypes():
        for size in (1, 3, 5):
            yield op(normal(dtype, 2, 7, 3, 2), size=size)
            yield op(normal(dtype, 2, 7, 3), size=size, alpha=0.5, beta=0.5, bias=2.0)
