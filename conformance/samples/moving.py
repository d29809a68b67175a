"""Moving elements without arithmetic: shapes, slices, gathers, scatters, pads. Every dtype of the schemas."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np

from omniop.conformance.samples.drawing import distinct, index, normal, uniform, wide
from omniop.conformance.samples.op import Found, Input, Op, samples, spread


@samples("Reshape")
def reshape(op: Op) -> Found:
    for dtype in op.dtypes():
        for shape, target in (
            ((2, 3, 4), (4, 6)),
            ((2, 3, 4), (-1,)),
            ((1,), ()),
            ((2, 3), (0, -1, 1)),
            ((), (1, 1)),
            ((7, 9), (9, 7)),
        ):
            yield op(wide(dtype, *shape), shape=list(target))
        yield op(wide(dtype, 0, 3), shape=[3, 0], allowzero=1)
    halves: Input = np.array([2, -1])
    yield op.runs(*((normal("float32", n, 4), halves) for n in (3, 5, 0, 3)))
    yield op(normal("float32", 2, 3), shape=[4, 2], refused=True)
    yield op(normal("float32", 2, 3), shape=[-1, -1], refused=True)


@samples("Flatten")
def flatten(op: Op) -> Found:
    for dtype in op.dtypes():
        for axis in range(-3, 4):
            yield op(wide(dtype, 2, 3, 4), axis=axis) if axis >= 0 or op.version >= 11 else None
    yield op(normal("float32", 2, 3), axis=3, refused=True)


@samples("Squeeze Unsqueeze")
def squeeze(op: Op) -> Found:
    for dtype in op.dtypes():
        for axes in ((0,), (2,), (0, 2), (-3,)):
            yield op(wide(dtype, 1, 3, 1), axes=list(axes))
        yield op(wide(dtype, 1, 3, 1)) if op.name == "Squeeze" else op(wide(dtype), axes=[0, 1])
    yield op(normal("float32", 2, 3), axes=[7], refused=True)
    yield op(normal("float32", 2, 3), axes=[1], refused=True) if op.name == "Squeeze" else None


@samples("Transpose")
def transpose(op: Op) -> Found:
    for dtype in op.dtypes():
        for perm in list(permutations(range(3)))[:: 1 if dtype in op.some() else 3]:
            yield op(wide(dtype, 3, 5, 2), perm=list(perm))
        yield op(wide(dtype, 3, 17))
        yield op(wide(dtype, 65, 33), perm=[1, 0])
        yield op(wide(dtype))
        yield op(wide(dtype, 0, 3), perm=[1, 0])
    yield op(normal("float32", 2, 3, 4, 5), perm=[2, 0, 3, 1])
    yield op.runs(*([normal("float32", n, 3)] for n in (4, 1, 0, 4)))
    yield op(normal("float32", 2, 3), perm=[0, 0], refused=True)


@samples("Shape Size")
def shape_of(op: Op) -> Found:
    for dtype in op.dtypes():
        for shape in ((), (3,), (2, 0, 3), (1, 2, 3, 4)):
            yield op(normal(dtype, *shape))
        yield op(normal(dtype, 2, 3, 4), start=1)
        yield op(normal(dtype, 2, 3, 4), start=-2, end=-1)
        yield op(normal(dtype, 2, 3, 4), start=2, end=1)


@samples("Concat")
def concat(op: Op) -> Found:
    for dtype in op.dtypes():
        yield op(wide(dtype, 2, 3), wide(dtype, 2, 4), axis=1)
        yield op(wide(dtype, 2, 3), wide(dtype, 1, 3), wide(dtype, 0, 3), axis=0)
        yield op(wide(dtype, 2, 3), axis=-1)
        yield op(*(wide(dtype, 3) for _ in range(11)), axis=0)
    yield op.runs(*([normal("float32", n, 3), normal("float32", 2, 3)] for n in (4, 0, 1, 4)), axis=0)
    yield op(normal("float32", 2, 3), normal("float32", 3, 3), axis=1, refused=True)
    yield op(normal("float32", 2, 3), normal("float32", 2, 3), axis=2, refused=True)


@samples("Split")
def split(op: Op) -> Found:
    for dtype in op.dtypes():
        yield op(wide(dtype, 6, 3), outputs=(dtype,) * 3, split=[1, 2, 3])
        yield op(wide(dtype, 2, 6), outputs=(dtype,) * 2, split=[6, 0], axis=1)
        yield op(wide(dtype, 7), outputs=(dtype,) * 3, num_outputs=3)
        yield op(wide(dtype, 6, 3), outputs=(dtype,) * 3) if op.version < 18 else None
        yield op(wide(dtype, 2, 6), outputs=(dtype,) * 2, split=[2, 4], axis=-1)
    yield op(normal("float32", 6), outputs=("float32",) * 2, split=[1, 2], refused=True)


@samples("Slice")
def slices(op: Op) -> Found:
    cases = (
        ([0], [2], [0], None),
        ([1, -3], [100, -1], [0, 1], None),
        ([-1], [-100], [1], [-1]),
        ([4, 0], [0, 5], [0, -1], [-2, 3]),
        ([2], [2], [0], None),
        ([-100], [100], [1], [2]),
    )
    for dtype in op.dtypes("T"):
        for starts, ends, axes, steps in cases:
            if steps is None:
                yield op(wide(dtype, 5, 7), starts=starts, ends=ends, axes=axes)
            else:
                yield op(wide(dtype, 5, 7), starts=starts, ends=ends, axes=axes, steps=steps)
        yield op(wide(dtype, 3, 4, 5), starts=[0, 1], ends=[2, 3])
    for tind in op.dtypes("Tind") if "Tind" in op.type_names else ():
        ones = [uniform(tind, (1,), low, low + 1) for low in (1, 3, 0, 1)]
        yield op(normal("float32", 5, 7), *ones, tag=f"fed_{tind}")
        yield op.runs(*([normal("float32", n, 7), *ones] for n in (5, 2, 9, 5)), tag=f"fed_{tind}")
    yield op(normal("float32", 5), starts=[0], ends=[2], axes=[1], refused=True)
    yield op(normal("float32", 5), starts=[0], ends=[2], axes=[0], steps=[0], refused=True)


@samples("Expand")
def expand(op: Op) -> Found:
    for dtype in op.dtypes():
        for shape, target in (((3, 1), (1, 4)), ((), (2, 3)), ((1, 5), (3, 1, 5)), ((3,), (1,)), ((1, 3), (0, 3))):
            yield op(wide(dtype, *shape), shape=list(target))
    yield op(normal("float32", 3), shape=[4], refused=True)


@samples("Tile")
def tile(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        for shape, repeats in (((2, 3), (2, 1)), ((2, 3), (1, 3)), ((3,), (5,)), ((2, 1, 2), (2, 3, 2)), ((2,), (0,))):
            yield op(wide(dtype, *shape), repeats=list(repeats))
    yield op(normal("float32", 2, 3), repeats=[2], refused=True)


@samples("Gather")
def gather(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        for tind in spread(op, dtype, op.dtypes("Tind")) or ("int64",):
            for shape, ids, axis in (((5, 3), (4,), 0), ((5, 3), (2, 2), 1), ((7,), (), 0), ((2, 3, 5), (3, 1), -2)):
                yield op(wide(dtype, *shape), index(tind, ids, shape[axis]), axis=axis)
            yield op(wide(dtype, 3, 2), index(tind, (0,), 3))
    yield op(normal("float32", 3), np.array([3]), refused=True, tag="out_of_range")
    yield op(normal("float32", 3), uniform("int64", (2,), -9, -4), refused=True, tag="out_of_range_fed")


@samples("GatherElements")
def gather_elements(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        for tind in op.dtypes("Tind"):
            for shape, ids, axis in (((5, 3), (4, 3), 0), ((5, 3), (5, 9), 1), ((2, 3, 4), (2, 2, 4), -2)):
                yield op(wide(dtype, *shape), index(tind, ids, shape[axis]), axis=axis)
    yield op(normal("float32", 3), uniform("int64", (2,), 3, 5), refused=True, tag="out_of_range")


@samples("GatherND")
@samples("GatherND", "com.microsoft")
def gather_nd(op: Op) -> Found:
    for dtype in op.dtypes(op.schema.inputs[0].type_str):
        yield op(wide(dtype, 3, 4), index("int64", (5, 2), 3))
        yield op(wide(dtype, 3, 4), index("int64", (2, 1), 3))
        yield op(wide(dtype, 3, 4, 2), index("int64", (2, 2, 2), 3))
        yield op(wide(dtype, 2, 3, 4), index("int64", (2, 1), 3), batch_dims=1)
        yield op(wide(dtype, 2, 3, 4), index("int64", (2, 3, 1), 4), batch_dims=2)
    if not op.domain:
        yield op(normal("float32", 3, 4), uniform("int64", (5, 2), 4, 6), refused=True, tag="out_of_range")


@samples("ScatterElements")
def scatter_elements(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        for shape, ids, axis in (((5, 3), (4, 2), 0), ((5, 3), (5, 2), 1), ((2, 9), (2, 5), 1)):
            places = np.indices(ids)
            unlike = (places[axis] + places[1 - axis]) % shape[axis]
            yield op(wide(dtype, *shape), unlike, wide(dtype, *ids), axis=axis)
        for reduction in ("add", "mul", "min", "max"):
            if dtype in op.dtypes("T", kinds="iuf"):
                yield op(normal(dtype, 5, 3), index("int64", (9, 3), 5), normal(dtype, 9, 3), reduction=reduction)
    yield op(normal("float32", 3), uniform("int64", (2,), 3, 5), normal("float32", 2), refused=True, tag="out_of_range")


@samples("ScatterND")
def scatter_nd(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        yield op(wide(dtype, 5, 3), np.array([[0], [4], [2]]), wide(dtype, 3, 3))
        yield op(wide(dtype, 5, 3), np.array([[0, -1], [4, 0]]), wide(dtype, 2))
        yield op(wide(dtype, 5), np.zeros((0, 1), np.int64), wide(dtype, 0))
        for reduction in ("add", "mul", "min", "max"):
            if dtype in op.dtypes("T", kinds="iuf"):
                yield op(normal(dtype, 5, 3), index("int64", (7, 1), 5), normal(dtype, 7, 3), reduction=reduction)
    yield op(
        normal("float32", 3), uniform("int64", (2, 1), 3, 5), normal("float32", 2), refused=True, tag="out_of_range"
    )


@samples("TensorScatter")
def tensor_scatter(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        for mode in ("linear", "circular"):
            yield op(wide(dtype, 2, 5, 3), wide(dtype, 2, 2, 3), np.array([1, 3]), mode=mode)
            yield op(wide(dtype, 2, 3, 5, 2), wide(dtype, 2, 3, 2, 2), np.array([0, 3]), mode=mode)
        yield op(wide(dtype, 2, 5, 3), wide(dtype, 2, 2, 3))


@samples("Pad")
def pad(op: Op) -> Found:
    for dtype in op.dtypes("T" if "T" in op.type_names else ""):
        numbers = dtype in op.dtypes("T", kinds="biuf")
        for mode in ("constant", "reflect", "edge", "wrap"):
            if mode == "wrap" and op.version < 19:
                continue
            yield op(wide(dtype, 4, 5), pads=[1, 2, 0, 3], mode=mode)
            yield op(wide(dtype, 4, 5), pads=[0, -1, 0, 2], mode=mode) if mode == "constant" else None
        if op.has("constant_value") and numbers:
            yield op(wide(dtype, 3, 4), np.array([1, 0, 2, 1]), normal(dtype))
            yield op(wide(dtype, 3, 4), np.array([1, 2]), normal(dtype), axes=[1]) if op.has("axes") else None
            yield op(wide(dtype, 3, 4), np.array([1, 2]), None, axes=[-2]) if op.has("axes") else None
    yield op(normal("float32", 3), pads=[1], refused=True)
    yield op(normal("float32", 3), pads=[1, 1], mode="mirror", refused=True)


@samples("CenterCropPad")
def center_crop_pad(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        for target in ((4, 5), (9, 8), (3, 9), (7, 7)):
            yield op(wide(dtype, 6, 7), shape=list(target))
        yield op(wide(dtype, 6, 7, 3), shape=[9], axes=[1])
        yield op(wide(dtype, 6, 7, 3), shape=[3, 2], axes=[-1, 0])


@samples("DepthToSpace SpaceToDepth")
def depth(op: Op) -> Found:
    for dtype in op.dtypes():
        if op.name == "DepthToSpace":
            yield op(wide(dtype, 2, 8, 2, 3), blocksize=2)
            for mode in ("DCR", "CRD"):
                yield op(wide(dtype, 1, 18, 2, 2), blocksize=3, mode=mode)
        else:
            yield op(wide(dtype, 2, 2, 4, 6), blocksize=2)
            yield op(wide(dtype, 1, 1, 9, 3), blocksize=3)
    yield op(normal("float32", 1, 6, 3, 3), blocksize=4, refused=True)


@samples("ReverseSequence")
def reverse_sequence(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        yield op(wide(dtype, 5, 3), np.array([5, 1, 3]))
        yield op(wide(dtype, 3, 5, 2), np.array([1, 4, 5]), batch_axis=0, time_axis=1)


@samples("Trilu")
@samples("Trilu", "com.microsoft")
def trilu(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        for upper in (0, 1):
            for k in (-2, 0, 1, 9):
                yield op(wide(dtype, 3, 5), np.array(k), upper=upper, tag=f"k_{k}")
            yield op(wide(dtype, 2, 4, 3), upper=upper)


@samples("EyeLike")
def eye_like(op: Op) -> Found:
    for dtype in op.dtypes("T1"):
        for k in (-1, 0, 2):
            yield op(normal(dtype, 3, 5), k=k, outputs=(dtype,))
    for out, number in (("float32", 1), ("int64", 7), ("bool", 9), ("float16", 10)):
        yield op(normal("int32", 4, 3), dtype=number, outputs=(out,))


@samples("OneHot")
def one_hot(op: Op) -> Found:
    for dtype in op.dtypes("T3"):
        yield op(index("int64", (3,), 5), np.array(5), wide(dtype, 2))
        yield op(index("int32", (2, 3), 4), np.array(4), wide(dtype, 2), axis=0)
    for dtype in op.dtypes("T1", kinds="iuf"):
        yield op(uniform(dtype, (4,), 0, 3), np.array([3]), normal("float32", 2), axis=-1)
    yield op(np.array([7, -9, 1]), np.array(3), normal("float32", 2), tag="out_of_range_is_off")


@samples("Compress")
def compress(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        yield op(wide(dtype, 5, 3), np.array([True, False, True, True]), axis=0)
        yield op(wide(dtype, 5, 3), normal("bool", 3), axis=1)
        yield op(wide(dtype, 5, 3), normal("bool", 11))
    yield op(normal("float32", 3), np.array([False, False]), axis=0)


@samples("NonZero")
def non_zero(op: Op) -> Found:
    for dtype in op.dtypes():
        for shape in ((9,), (3, 5), (2, 3, 4)):
            yield op(uniform(dtype, shape, 0, 2) if dtype in op.dtypes(kinds="iu") else normal(dtype, *shape))
    yield op.runs(*([normal("bool", n)] for n in (5, 70, 1, 5)))


@samples("Unique")
def unique(op: Op) -> Found:
    for dtype in op.dtypes():
        for ordered in (0, 1):
            yield op(normal(dtype, 19), sorted=ordered, outputs=(dtype, "int64", "int64", "int64"))
            if dtype != "string":
                yield op(normal(dtype, 5, 2), sorted=ordered, axis=0, outputs=(dtype, "", "int64"))
        yield op(normal(dtype, 2, 7), outputs=(dtype,), axis=1) if dtype != "string" else None


@samples("TopK")
def top_k(op: Op) -> Found:
    for dtype in op.dtypes():
        for shape, k, axis in (((9,), 3, 0), ((3, 65), 5, 1), ((7, 4), 7, 0), ((2, 5, 3), 2, -2), ((2, 3), 0, 1)):
            for largest in (0, 1) if op.has("largest") else (1,):
                extra: dict[str, Any] = {"largest": largest} if op.has("largest") else {}
                yield op(distinct(dtype, *shape), np.array([k]), axis=axis, count=2, tag=f"k_{k}", **extra)
        yield op(normal(dtype, 40), np.array([9]), count=2, tag="ties")
    yield op(normal("float32", 3), np.array([4]), count=2, refused=True)


@samples("Range")
def ranges(op: Op) -> Found:
    for dtype in op.dtypes():
        for start, limit, delta in ((0, 9, 2), (5, 5, 1), (1, 10, 3), (9, 0, -2), (0, 129, 1)):
            yield op(
                *(
                    uniform(dtype, (), v, v + 1) if dtype in op.dtypes(kinds="iu") else uniform(dtype, (), v, v)
                    for v in (start, limit, delta)
                ),
                tag=f"{start}_{limit}_{delta}",
            )
    yield op(np.array(0), np.array(5), np.array(0), refused=True)


@samples("ConstantOfShape")
def constant_of_shape(op: Op) -> Found:
    from onnx import numpy_helper

    for dtype in op.dtypes("T2"):
        value = numpy_helper.from_array(normal(dtype, 1).draw(np.random.default_rng(0)))
        for shape in ((3,), (2, 0), (2, 3, 1)):
            yield op(np.array(shape), value=value, outputs=(dtype,), tag=f"{dtype}_{'x'.join(map(str, shape))}")
    yield op(np.array([2]), outputs=("float32",))
    yield op(np.array([-1]), outputs=("float32",), refused=True)
