"""Slice, Pad and CenterCropPad."""

from __future__ import annotations

import numpy as np
import pytest
from harness import check, host, random, run, same, traced

from omniop.opset.dtype import FLOAT32, INT64
from omniop.opset.errors import ModelError

FAR = 2**63 - 1


def ints(*values):
    return np.array(values, np.int64)


@pytest.mark.parametrize("start", [0, 1, -1, -2, 6, 7, 8, -7, -8, -FAR, FAR])
@pytest.mark.parametrize("step", [1, 2, 3, 9, -1, -2, -9])
def test_slice_like_python(start, step):
    x = random((7,))
    for end in (0, 1, -1, 3, 7, 8, -7, -8, -FAR, FAR):
        (actual,) = run("Slice", [x, ints(start), ints(end), ints(0), ints(step)])
        same(actual, x[start:end:step], rtol=0)


def test_slice_of_several_axes():
    x = random((4, 5, 6))
    check("Slice", [x, ints(1, -1), ints(3, 0), ints(0, -1), ints(1, -2)])
    check("Slice", [x, ints(1, 2), ints(3, 4)])
    same(run("Slice", [x], opset=1, starts=[1, 0], ends=[-1, 1000], axes=[2, 0])[0], x[0:1000, :, 1:-1])


def test_slice_of_nothing():
    x = random((0, 3))
    same(run("Slice", [x, ints(0), ints(2), ints(0)])[0], x)
    same(run("Slice", [x, ints(1), ints(3), ints(1)])[0], np.zeros((0, 2), np.float32))


@pytest.mark.parametrize(
    ("start", "end", "guards"), [(0, FAR, 0), (-1, FAR, 0), (0, 1, 0), (1, FAR, 1), (0, -1, 1), (2, 4, 2)]
)
def test_slices_ask_little(start, end, guards):
    """Whether a symbolic axis is long enough, and nothing else."""
    _, tr = traced("Slice", [((9, 3), FLOAT32), *(host([v], INT64) for v in (start, end, 0))])
    assert len(tr.env.guards) <= guards


def test_whole_slice_is_the_input():
    def definitions(end):
        return len(traced("Slice", [((9,), FLOAT32), *(host([v], INT64) for v in (0, end, 0))])[1].definitions)

    assert definitions(FAR) == 1
    assert definitions(4) == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [(((0,), (1, 2)), "differ in number"), (((0,), (1,), (0,), (0,)), "step"), (((0,), (1,), (3,)), "axis 3")],
)
def test_bad_slice(args, message):
    with pytest.raises(ModelError, match=message):
        run("Slice", [random((2, 3)), *(ints(*a) for a in args)])


PADS = [(1, 2, 0, 3), (0, 0, 0, 0), (0, 2, 1, 0)]


@pytest.mark.parametrize("pads", PADS)
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
def test_pad(pads, mode):
    x = random((3, 4))
    around = [(pads[0], pads[2]), (pads[1], pads[3])]
    same(run("Pad", [x, ints(*pads)], mode=mode)[0], np.pad(x, around, mode=mode))


@pytest.mark.parametrize("mode", ["reflect", "wrap"])
def test_pad_by_more_than_the_axis(mode):
    x = random((3,))
    same(run("Pad", [x, ints(7, 8)], mode=mode)[0], np.pad(x, (7, 8), mode=mode))


def test_reflect_on_a_single_element():
    x = random((1,))
    same(run("Pad", [x, ints(2, 3)], mode="reflect")[0], np.repeat(x, 6))


def test_pad_value_and_axes():
    x = random((2, 3), np.int32)
    (actual,) = run("Pad", [x, ints(1, 2), np.array(7, np.int32), ints(-1)])
    same(actual, np.pad(x, [(0, 0), (1, 2)], constant_values=7))


def test_negative_pads_cut():
    x = random((4, 5))
    same(run("Pad", [x, ints(-1, 2, 1, -3)])[0], np.pad(x[1:, :2], [(0, 1), (2, 0)]))


def test_pad_by_attributes():
    x = random((2, 3))
    same(run("Pad", [x], opset=2, pads=[0, 1, 2, 0], value=1.5)[0], np.pad(x, [(0, 2), (1, 0)], constant_values=1.5))
    same(run("Pad", [x], opset=1, paddings=[0, 1, 0, 1], mode="edge")[0], np.pad(x, [(0, 0), (1, 1)], mode="edge"))


def test_pad_of_nothing():
    same(run("Pad", [random((0, 2)), ints(1, 0, 1, 0), np.array(3, np.float32)])[0], np.full((2, 2), 3, np.float32))


def test_wrong_number_of_pads():
    with pytest.raises(ModelError, match="two for each axis"):
        run("Pad", [random((2, 3)), ints(1, 1)])


@pytest.mark.parametrize("target", [(2, 8), (7, 3), (4, 5), (1, 1), (5, 6)])
def test_center_crop_pad(target):
    check("CenterCropPad", [random((4, 5)), ints(*target)])


def test_center_crop_pad_of_some_axes():
    check("CenterCropPad", [random((4, 5, 6)), ints(3, 9)], axes=[-1, 0])
