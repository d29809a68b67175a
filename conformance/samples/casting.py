"""Casts and quantisation: every pair of dtypes, every way of rounding."""

from __future__ import annotations

from typing import Any

import numpy as np

from omniop.conformance.samples.drawing import Values, normal, special, uniform, wide
from omniop.conformance.samples.op import Found, Op, samples
from omniop.opset import dtype as dtypes


def _number(dtype: str) -> int:
    return dtypes.of_name(dtype).onnx


def _castable(source: str, target: str) -> Values:
    """Within what the target holds where ONNX leaves the rest open: floats to integers, and to what has no sign."""
    to, of = dtypes.of_name(target), dtypes.of_name(source)
    if of.kind == "f" and (to.kind in "iu" or target == "float8_e8m0fnu"):
        low, high = (0.6, 3.4) if to.kind == "u" or target == "float8_e8m0fnu" else (-1.9, 1.9)
        return uniform(source, (3, 11), low, high)
    return normal(source, 3, 11)


@samples("Cast")
def cast(op: Op) -> Found:
    for source in op.dtypes("T1", kinds="biuf"):
        for target in op.dtypes("T2", kinds="biuf"):
            yield op(_castable(source, target), to=_number(target), outputs=(target,), tag=f"to_{target}")
            floats = dtypes.of_name(source).kind == dtypes.of_name(target).kind == "f"
            if floats and target != "float8_e8m0fnu":
                yield op(special(source, 26), to=_number(target), outputs=(target,), tag=f"to_{target}")
                if target.startswith("float8") and op.has("saturate"):
                    yield op(wide(source, 26), to=_number(target), outputs=(target,), saturate=0, tag=f"to_{target}")
            elif dtypes.of_name(source).kind in "iu" and dtypes.of_name(target).kind in "biu":
                yield op(special(source, 26), to=_number(target), outputs=(target,), tag=f"to_{target}")
    for target in ("float32", "int64", "float64", "int32"):
        words = np.array(["1", "-25", "3"], object)
        yield op(words, to=_number(target), outputs=(target,), tag=f"to_{target}")
    for source in ("int32", "int64", "bool"):
        yield op(normal(source, 5), to=_number("string"), outputs=("string",), tag="to_string")
    for shape in ((), (0,), (2, 0, 3), (1, 129)):
        yield op(normal("float32", *shape), to=_number("float16"), outputs=("float16",), tag="to_float16")


@samples("CastLike")
def cast_like(op: Op) -> Found:
    targets = op.dtypes("T2", kinds="biuf")
    for k, source in enumerate(op.dtypes("T1", kinds="biuf")):
        for target in targets[k % 3 :: 3]:
            yield op(_castable(source, target), normal(target, 2), tag=f"to_{target}")
    yield op(np.array(["1", "-25", "3"], object), normal("int32", 2), tag="to_int32")
    yield op(normal("int64", 5), normal("string", 2), tag="to_string")


@samples("BitCast")
def bit_cast(op: Op) -> Found:
    for source in op.dtypes("T1", kinds="biufc"):
        for target in op.dtypes("T2", kinds="biufc"):
            if target == "bool" != source:
                continue  # most bytes are no bool
            if dtypes.of_name(source).bits == dtypes.of_name(target).bits:
                yield op(wide(source, 5, 7), to=_number(target), outputs=(target,), tag=f"to_{target}")
    yield op(normal("float32", 3), to=_number("int8"), outputs=("int8",), refused=True, tag="to_int8")


_BLOCKS = (((4, 6), None, None), ((4, 6), 1, None), ((4, 6), 0, None), ((4, 6), 1, 3), ((2, 4, 3), 1, 2))


@samples("QuantizeLinear")
def quantize(op: Op) -> Found:
    scales = op.dtypes("T2") if "T2" in op.type_names else ("float32",)
    target_variable = "T3" if "T3" in op.type_names else "T2"
    for source in op.dtypes("T1", kinds="f"):
        for target in op.dtypes(target_variable, kinds="iuf"):
            for shape, axis, block in _BLOCKS if source == "float32" else _BLOCKS[:2]:
                sized = _scale_shape(shape, axis, block)
                attributes: dict[str, Any] = {
                    key: v for key, v in (("axis", axis), ("block_size", block)) if v is not None
                }
                scale = source if source in scales else "float32"
                point = uniform(target, sized, 0, 2) if dtypes.of_name(target).kind in "iu" else _zeros(target, sized)
                yield op(normal(source, *shape), uniform(scale, sized, 0.2, 0.6), point, tag=target, **attributes)
    yield op(normal("float32", 2, 13), uniform("float32", (), 0.01, 0.1), outputs=("uint8",))
    if "int32" in op.dtypes("T1"):
        yield op(Values("int32", (3, 9), "whole", -900, 900), uniform("float32", (), 2, 5), normal("int8"), tag="int32")
    if "float8_e8m0fnu" in scales:
        for shape, axis, block in _BLOCKS:
            sized = _scale_shape(shape, axis, block)
            powers_of_two = uniform("float8_e8m0fnu", sized, 0.2, 4)
            attributes = {key: v for key, v in (("axis", axis), ("block_size", block)) if v is not None}
            yield op(normal("float32", *shape), powers_of_two, uniform("int8", sized, 0, 2), tag="e8m0", **attributes)


@samples("DequantizeLinear")
def dequantize(op: Op) -> Found:
    sources = op.dtypes("T1" if "T1" in op.type_names else "T", kinds="iuf")
    for source in sources:
        for scale in op.dtypes("T2") if "T2" in op.type_names else ("float32",):
            if scale == "float8_e8m0fnu":
                powers_of_two = uniform(scale, (), 0.2, 4)
                number = dtypes.FLOAT32.onnx
                yield op(wide(source, 4, 6), powers_of_two, outputs=("float32",), output_dtype=number, tag="e8m0")
                continue
            for shape, axis, block in _BLOCKS if scale == "float32" else _BLOCKS[:2]:
                sized = _scale_shape(shape, axis, block)
                attributes: dict[str, Any] = {
                    key: v for key, v in (("axis", axis), ("block_size", block)) if v is not None
                }
                factors = uniform(scale, sized, 0.2, 0.6)
                yield op(wide(source, *shape), factors, outputs=(scale,), tag=scale, **attributes)
                if source != "int32" and dtypes.of_name(source).kind in "iu":
                    yield op(
                        wide(source, *shape),
                        factors,
                        uniform(source, sized, 0, 2),
                        outputs=(scale,),
                        tag=scale,
                        **attributes,
                    )


@samples("DynamicQuantizeLinear")
def dynamic_quantize(op: Op) -> Found:
    for shape in ((7,), (3, 5), (2, 129), (1,)):
        yield op(normal("float32", *shape), outputs=("uint8", "float32", "uint8"))
        yield op(uniform("float32", shape, 1, 9), outputs=("uint8", "float32", "uint8"), tag="positive")
        yield op(uniform("float32", shape, -9, -1), outputs=("uint8", "float32", "uint8"), tag="negative")


def _scale_shape(shape: tuple[int, ...], axis: int | None, block: int | None) -> tuple[int, ...]:
    if axis is None:
        return ()
    if block is None:
        return (shape[axis],)
    return tuple(size // block if k == axis else size for k, size in enumerate(shape))


def _zeros(dtype: str, shape: tuple[int, ...]) -> Values:
    return uniform(dtype, shape, 0, 0)
