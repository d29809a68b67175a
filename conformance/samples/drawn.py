"""Random operators: judged by the distribution of what they draw, for nobody can expect the numbers themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from omniop.conformance.samples.drawing import Values, normal, uniform
from omniop.conformance.samples.op import Found, Op, Sample, samples
from omniop.opset import dtype as dtypes

_SEEDS: tuple[dict[str, Any], ...] = ({}, {"seed": 3.0})
_SHAPES = ((4096,), (64, 33), (1, 2000))


@samples("RandomNormal RandomUniform")
def draws(op: Op) -> Found:
    """``draw``: the distribution, its two parameters, and whether a seed is given."""
    for dtype in op.dtypes("T"):
        number = dtypes.of_name(dtype).onnx
        for shape in _SHAPES:
            for seed in _SEEDS:
                for low, high in ((None, None), (-2.0, 3.0)):
                    yield _drawn(op, (), dtype, low, high, dtype=number, shape=list(shape), **seed)
    yield op(shape=[-1], outputs=("float32",), refused=True)


@samples("RandomNormalLike RandomUniformLike")
def draws_like(op: Op) -> Found:
    for dtype in op.dtypes("T2"):
        number = dtypes.of_name(dtype).onnx
        for shape in _SHAPES:
            yield _drawn(op, (normal(dtype, *shape),), dtype, None, None)
            yield _drawn(op, (normal("int64", *shape),), dtype, -2.0, 3.0, dtype=number, seed=5.0)


def _drawn(
    op: Op, inputs: tuple[Values, ...], out: str, first: float | None, second: float | None, **attributes: Any
) -> Sample | None:
    of = "normal" if "Normal" in op.name else "uniform"
    names = ("mean", "scale") if of == "normal" else ("low", "high")
    found = (0.0, 1.0) if first is None or second is None else (first, second)
    if first is not None:
        attributes |= dict(zip(names, found, strict=True))
    return op(*inputs, outputs=(out,), draw=(of, *found, "seed" in attributes), **attributes)


@samples("RandomNormalLike RandomUniformLike")
def draws_like_any(op: Op) -> Found:
    for dtype in op.dtypes("T1"):
        yield _drawn(op, (normal(dtype, 64, 33),), "float32", None, None, dtype=dtypes.FLOAT32.onnx)


@samples("Bernoulli")
def bernoulli(op: Op) -> Found:
    for dtype in op.dtypes("T1"):
        for seed in _SEEDS:
            yield op(uniform(dtype, (30, 9), 0, 1), outputs=(dtype,), draw=("bernoulli", bool(seed)), **seed)
    for out in op.dtypes("T2"):
        number = dtypes.of_name(out).onnx
        yield op(*(uniform("float32", (300,), 0, 1),), dtype=number, outputs=(out,), draw=("bernoulli", False), tag=out)


@samples("Multinomial")
def multinomial(op: Op) -> Found:
    for dtype in op.dtypes("T1"):
        for out in op.dtypes("T2"):
            for seed in _SEEDS:
                number = dtypes.of_name(out).onnx
                yield op(
                    uniform(dtype, (3, 5), -2, 1),
                    sample_size=4000,
                    dtype=number,
                    outputs=(out,),
                    draw=("multinomial", bool(seed)),
                    tag=out,
                    **seed,
                )


@samples("Dropout")
def dropout(op: Op) -> Found:
    """In training: a mask is drawn, and what is kept is scaled."""
    if op.version < 12:
        return
    for dtype in op.dtypes("T"):
        for ratio in (0.25, 0.5):
            inputs = normal(dtype, 4000), np.array(ratio, np.float32), np.array(True)
            yield op(*inputs, outputs=(dtype, "bool"), draw=("dropout", ratio), tag=f"training_{ratio}")
