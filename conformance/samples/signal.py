"""Signals and pictures: transforms, windows, resizing, sampling of grids, boxes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from omniop.conformance.samples.drawing import normal, uniform
from omniop.conformance.samples.op import Found, Op, samples, spread
from omniop.opset import dtype as dtypes


@samples("HannWindow HammingWindow BlackmanWindow")
def window(op: Op) -> Found:
    for size_type in op.dtypes("T1"):
        for size in (2, 7, 16, 65):
            for periodic in (0, 1):
                length = np.array(size).astype(size_type)
                yield op(length, periodic=periodic, outputs=("float32",), tag=f"size_{size}")
    for out in op.dtypes("T2", kinds="iuf"):
        number = dtypes.of_name(out).onnx
        yield op(np.array(9), output_datatype=number, outputs=(out,), tag=out)


@samples("MelWeightMatrix")
def mel(op: Op) -> Found:
    for bins, length, rate, low, high in ((8, 16, 8192, 0, 4096), (4, 64, 16000, 20, 8000), (1, 8, 8000, 0, 2000)):
        for kind in op.dtypes("T1"):
            sizes = [np.array(value).astype(kind) for value in (bins, length, rate)]
            edges = [np.array(value, np.float32) for value in (low, high)]
            yield op(*sizes, *edges, outputs=("float32",), tag=f"{bins}_{length}")
    for out in op.dtypes("T3", kinds="iuf"):
        sizes = [np.array(value) for value in (8, 16, 8192)]
        edges = [np.array(value, np.float32) for value in (0, 4096)]
        yield op(*sizes, *edges, output_datatype=dtypes.of_name(out).onnx, outputs=(out,), tag=out)


@samples("DFT")
def dft(op: Op) -> Found:
    for dtype in op.dtypes("T1"):
        for shape in ((1, 5, 1), (2, 8, 1), (1, 6, 2), (3, 7, 2), (1, 65, 1)):
            for inverse in (0, 1):
                yield op(normal(dtype, *shape), inverse=inverse, **_axis(op, 1))
            if shape[-1] == 1:
                yield op(normal(dtype, *shape), onesided=1, **_axis(op, 1))
            yield op(normal(dtype, *shape), np.array(4), **_axis(op, 1))
            yield op(normal(dtype, *shape), np.array(9), **_axis(op, 1))
        yield op(normal(dtype, 2, 3, 4, 2), **_axis(op, 2))
        yield op(normal(dtype, 2, 8, 1), np.array(6, np.int32), tag="int32", **_axis(op, 1))
        for length in spread(op, dtype, _LENGTHS):
            for inverse in (0, 1):
                yield op(normal(dtype, 2, length, 2), inverse=inverse, **_axis(op, 1))
            yield op(normal(dtype, 2, length, 1), onesided=1, **_axis(op, 1))
            half = normal(dtype, 2, length // 2 + 1, 2)
            yield op(half, np.array(length), inverse=1, onesided=1, tag=f"{length}", **_axis(op, 1))


_LENGTHS = (1, 2, 10, 12, 17, 31, 34, 60, 64, 77, 128, 143, 254, 400, 512, 1009)
"""Products of small primes and of a great one; one and two; powers."""


def _axis(op: Op, axis: int) -> dict[str, Any]:
    return {"axis": axis} if "axis" in op.schema.attributes else {"axis": np.array(axis)}


@samples("STFT")
def stft(op: Op) -> Found:
    for dtype in op.dtypes("T1"):
        for length, step, frame in ((16, 4, 8), (20, 3, 5), (9, 9, 9), (100, 16, 34), (300, 50, 200)):
            signal = normal(dtype, 2, length, 1)
            for onesided in (0, 1):
                yield op(signal, np.array(step), None, np.array(frame), onesided=onesided, tag=f"{step}_{frame}")
                yield op(signal, np.array(step), uniform(dtype, (frame,), 0, 1), onesided=onesided, tag=f"{step}")
        yield op(normal(dtype, 1, 12, 2), np.array(4), None, np.array(4), onesided=0, tag="complex")
        yield op(normal(dtype, 1, 12, 1), np.array(4, np.int32), None, np.array(4, np.int32), tag="int32")


_MODES = ("nearest", "linear", "cubic")
_COORDINATES = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric")


@samples("Resize")
def resize(op: Op) -> Found:
    if op.version < 11:
        for mode in ("nearest", "linear"):
            yield op(normal("float32", 1, 2, 3, 4), np.array([1, 1, 2, 1.5], np.float32), mode=mode)
        return
    roi = nothing = None if op.version >= 13 else np.zeros(0, np.float32)
    for dtype in op.dtypes("T1", kinds="f"):
        for mode in _MODES:
            for coordinates in spread(op, dtype, _COORDINATES):
                if coordinates == "half_pixel_symmetric" and op.version < 19:
                    continue
                options: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": coordinates}
                for scales in ([1, 1, 2, 2], [1, 1, 0.75, 1.5]):
                    yield op(normal(dtype, 1, 2, 5, 4), roi, np.array(scales, np.float32), **options)
                yield op(normal(dtype, 1, 1, 5, 4), roi, nothing, np.array([1, 1, 3, 7]), **options)
        yield op(normal(dtype, 1, 1, 9, 8), roi, np.array([1, 1, 0.4, 0.5], np.float32), mode="linear", antialias=1)
        yield op(normal(dtype, 1, 1, 9, 8), roi, np.array([1, 1, 0.4, 0.5], np.float32), mode="cubic", antialias=1)
        yield op(normal(dtype, 1, 1, 5, 4), roi, np.array([1, 1, 2, 2], np.float32), mode="cubic", exclude_outside=1)
        yield op(
            *(normal(dtype, 1, 1, 5, 4), roi, np.array([1, 1, 2, 2], np.float32)), mode="cubic", cubic_coeff_a=-0.5
        )
        if op.version >= 18:
            yield op(normal(dtype, 2, 5, 4), None, None, np.array([7, 9]), mode="linear", axes=[1, 2])
            for policy in ("not_larger", "not_smaller"):
                sizes = np.array([7, 9])
                yield op(*(normal(dtype, 2, 5, 4), None, None, sizes), axes=[1, 2], keep_aspect_ratio_policy=policy)
        crop = np.array([0, 0, 0.2, 0.3, 1, 1, 0.9, 0.8], np.float32).astype(np.float32)
        options = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 7.0}
        yield op(normal(dtype, 1, 1, 6, 6), crop, nothing, np.array([1, 1, 3, 4]), mode="linear", **options)
    for rule in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        for dtype in op.dtypes("T1"):
            options = {"mode": "nearest", "nearest_mode": rule}
            yield op(normal(dtype, 1, 1, 5, 4), roi, np.array([1, 1, 0.75, 2.5], np.float32), **options)


@samples("GridSample")
def grid_sample(op: Op) -> Found:
    modes = ("linear", "nearest", "cubic") if op.version >= 20 else ("bilinear", "nearest", "bicubic")
    for dtype in op.dtypes("T1", kinds="f"):
        for mode in modes:
            for padding in ("zeros", "border", "reflection"):
                for align in (0, 1):
                    options: dict[str, Any] = {"mode": mode, "padding_mode": padding, "align_corners": align}
                    grid = uniform(dtype if dtype in op.dtypes("T2") else "float32", (2, 3, 4, 2), -1.3, 1.3)
                    yield op(normal(dtype, 2, 2, 5, 6), grid, **options)
        if op.version >= 20:
            volume = uniform("float32", (1, 2, 3, 2, 3), -1.2, 1.2)
            yield op(normal(dtype, 1, 2, 3, 4, 5), volume, mode="linear")


@samples("GridSample")
def grid_sample_of_any(op: Op) -> Found:
    for dtype in op.dtypes("T1", kinds="biucs"):
        for padding in ("zeros", "border", "reflection"):
            grid = uniform("float32", (2, 3, 4, 2), -1.3, 1.3)
            yield op(normal(dtype, 2, 2, 5, 6), grid, mode="nearest", padding_mode=padding)


@samples("AffineGrid")
def affine_grid(op: Op) -> Found:
    for dtype in op.dtypes("T1"):
        for align in (0, 1):
            yield op(normal(dtype, 2, 2, 3), np.array([2, 3, 4, 5]), align_corners=align)
            yield op(normal(dtype, 1, 3, 4), np.array([1, 2, 3, 4, 5]), align_corners=align)


@samples("NonMaxSuppression")
def non_max_suppression(op: Op) -> Found:
    random = np.random.default_rng(3)
    for boxes, classes, batches in ((6, 1, 1), (20, 2, 1), (9, 1, 2), (1, 1, 1)):
        corners = random.uniform(0, 1, (batches, boxes, 2))
        box = np.concatenate([corners, corners + random.uniform(0.05, 0.5, corners.shape)], -1).astype(np.float32)
        scores = random.permutation(boxes * classes * batches).reshape(batches, classes, boxes).astype(np.float32)
        for center in (0, 1):
            for limit, overlap, least in ((3, 0.5, None), (100, 0.2, 2.0), (2, 0.0, None), (0, 0.5, None)):
                inputs = [box, scores, np.array([limit]), np.array([overlap], np.float32)]
                if least is not None:
                    inputs.append(np.array([least], np.float32))
                yield op(*inputs, center_point_box=center, outputs=("int64",), tag=f"{boxes}_{limit}_{overlap}")


@samples("ImageDecoder")
def image_decoder(op: Op) -> Found:
    """Pillow writes the files, as it reads them: without it there are none to judge by."""
    try:
        from PIL import Image
    except ImportError:
        return
    picture = np.random.default_rng(5).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    for form in ("PNG", "BMP", "TIFF", "PPM", "WEBP"):
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, form, **({"lossless": True} if form == "WEBP" else {}))
        encoded = np.frombuffer(stream.getvalue(), np.uint8)
        for pixels in ("RGB", "BGR", "Grayscale"):
            yield op(encoded, pixel_format=pixels, tag=form.lower())
