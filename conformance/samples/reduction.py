"""Reductions, running sums, arg-reductions, softmax, and losses."""

from __future__ import annotations

from omniop.conformance.samples.drawing import Values, distinct, index, normal, powers, special, uniform
from omniop.conformance.samples.op import Found, Op, samples, spread

AXES = (
    ((2, 3, 4), (1,)),
    ((2, 3, 4), (0, -1)),
    ((2, 3, 4), (0, 1, 2)),
    ((1, 65), (1,)),
    ((129, 3), (0,)),
    ((3, 1, 5), (1,)),
    ((2, 515), (-1,)),
    ((1,), (0,)),
    ((3, 0), (0,)),
)


@samples(
    "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum ReduceLogSumExp"
)
def reduce(op: Op) -> Found:
    if op.name.startswith("ReduceLog"):
        for dtype in op.dtypes(kinds="iu"):  # no sum of these is near a power of e
            yield op(Values(dtype, (2, 3, 4), "whole", 4, 5), axes=[1])
    for dtype in op.dtypes(kinds="f" if op.name.startswith("ReduceLog") else "biuf"):
        low, high = (0.5, 2.0) if op.name in ("ReduceProd", "ReduceLogSum") else (-3.0, 3.0)
        if dtype in op.dtypes(kinds="iu"):
            low, high = 0.0, 4.0
        bits = dtype in op.dtypes(kinds="b")
        for shape, axes in spread(op, dtype, AXES):
            values = normal(dtype, *shape) if bits else uniform(dtype, shape, low, high)
            if op.name == "ReduceProd" and shape[-1] > 100 and dtype in op.dtypes(kinds="f"):
                values = powers(dtype, *shape)  # of n factors in any order, n / 2 roundings
            yield op(values, axes=list(axes))
            yield op(values, axes=list(axes), keepdims=0)
        values = normal(dtype, 2, 3, 4) if bits else uniform(dtype, (2, 3, 4), low, high)
        yield op(values)
        yield op(values, noop_with_empty_axes=1)
        yield op(values, keepdims=0)
        yield op.runs(*([uniform(dtype, (n, 5), 0, 2)] for n in (3, 1, 40, 3)), keepdims=0)
        yield op(normal(dtype), keepdims=0)
        if op.name in ("ReduceMax", "ReduceMin", "ReduceSum", "ReduceL1"):
            yield op(special(dtype, 13, 13), axes=[1])
    if op.name in ("ReduceSum", "ReduceProd", "ReduceSumSquare", "ReduceL1"):
        for dtype in op.dtypes():
            yield op(normal(dtype, 0, 3), axes=[0])
            yield op(normal(dtype, 2, 0), axes=[1], keepdims=0)
    yield op(normal("float32", 2, 3), axes=[2], refused=True, tag="axis_out_of_range")
    yield op(normal("string", 2, 3), refused=True)


@samples("ArgMax ArgMin")
def arg_reduce(op: Op) -> Found:
    for dtype in op.dtypes():
        for shape, axes in spread(op, dtype, [one for one in AXES if len(one[1]) == 1 and one[0] != (3, 0)]):
            yield op(distinct(dtype, *shape), axis=axes[0])
            yield op(normal(dtype, *shape), axis=axes[0], keepdims=0)
            yield op(normal(dtype, *shape), axis=axes[0], select_last_index=1)
        yield op(normal(dtype, 5, 3))
        yield op(special(dtype, 13), axis=0) if dtype in op.dtypes(kinds="iu") else None
    yield op(normal("float32", 2, 3), axis=2, refused=True)


@samples("CumSum CumProd")
def running(op: Op) -> Found:
    for dtype in op.dtypes("T" if "T" in op.type_names else ""):
        for shape, axis in (((7,), 0), ((3, 5), 1), ((3, 5), -2), ((2, 131), 1), ((2, 3, 4), 1), ((0, 3), 0)):
            values = uniform(dtype, shape, 1, 3) if dtype in op.dtypes(kinds="iu") else uniform(dtype, shape, -2, 2)
            for exclusive, reverse in ((0, 0), (1, 0), (0, 1), (1, 1)):
                place = uniform("int64" if reverse else "int32", (), axis, axis + 1)
                yield op(values, place, exclusive=exclusive, reverse=reverse, tag=f"axis_{axis}")
    yield op(normal("float32", 2, 3), uniform("int64", (), 2, 3), tag="axis_out_of_range", refused=True)


@samples("Softmax LogSoftmax Hardmax")
def softmax(op: Op) -> Found:
    for dtype in op.dtypes():
        draw = distinct if op.name == "Hardmax" else normal
        for shape, axis in (((7,), 0), ((3, 65), 1), ((3, 5, 4), 1), ((3, 5, 4), -3), ((2, 1030), 1), ((1, 1), 1)):
            yield op(draw(dtype, *shape), axis=axis)
        yield op(draw(dtype, 3, 5))
        yield op(draw(dtype, 0, 5))
        yield op(uniform(dtype, (4, 9), -60, 60), tag="spread")
        yield op.runs(*([draw(dtype, n, 17)] for n in (3, 1, 8, 3)))
    yield op(normal("float32", 2, 3), axis=2, refused=True)


@samples("LpNormalization")
def lp_normalization(op: Op) -> Found:
    for dtype in op.dtypes():
        for shape in ((7,), (3, 5), (2, 3, 65)):
            for p in (1, 2):
                yield op(normal(dtype, *shape), p=p)
                yield op(normal(dtype, *shape), p=p, axis=0)


@samples("NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss")
def loss(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        for tind in op.dtypes("Tind"):
            for shape in ((5, 3), (2, 3, 4), (2, 3, 2, 5)):
                target = index(tind, (shape[0], *shape[2:]), shape[1], negative=False)
                for reduction in ("none", "sum", "mean") if dtype == "float32" else ("mean",):
                    yield op(uniform(dtype, shape, -4, 0), target, reduction=reduction)
                    yield op(
                        uniform(dtype, shape, -4, 0), target, uniform(dtype, (shape[1],), 0.5, 2), reduction=reduction
                    )
                yield op(uniform(dtype, shape, -4, 0), target, ignore_index=1)
    yield op(normal("float32", 2, 3), index("int64", (2,), 3, negative=False), reduction="median", refused=True)
