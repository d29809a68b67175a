"""Invalid nodes end in a ModelError that says what would be right, before anything is read or written."""

from __future__ import annotations

import numpy as np
import pytest
from harness import random, run

from omniop.opset.errors import ModelError


def ints(*values):
    return np.array(values, np.int64)


X = random((2, 3))
CASES = [
    ("Reshape", [X, ints(-2, -3)], {}, "negative"),
    ("Expand", [random((1,)), ints(-1)], {}, "negative"),
    ("Tile", [X, ints(-1, 1)], {}, "negative"),
    ("Tile", [X, ints(1)], {}, "1 repeats"),
    ("Split", [random((4,)), ints(5, -1)], {}, "negative"),
    ("ConstantOfShape", [ints(-1)], {}, "negative"),
    ("Pad", [X, ints(-3, 0, 0, 0)], {}, "negative"),
    ("Pad", [X, ints(1, 1, 1, 1)], {"mode": "mirror"}, "constant|reflect"),
    ("Pad", [X, ints(1, 1, 1, 1), X], {}, "elements of constant_value"),
    ("CenterCropPad", [X, ints(-1, 2)], {}, "negative"),
    ("CenterCropPad", [X, ints(1)], {}, "1 dims for 2 axes"),
    ("TopK", [X, ints(-1)], {}, "k is -1"),
    ("OneHot", [ints(0), ints(-2), random((2,))], {}, "negative"),
    ("OneHot", [ints(0), ints(2), random((3,))], {}, "values is of shape"),
    ("HannWindow", [ints(-1)], {}, "negative"),
    ("Clip", [X, random((2,))], {}, "elements of min"),
    ("Trilu", [X, ints(0, 1)], {}, "elements of k"),
    ("Trilu", [random((2,))], {}, "rank of 2 or more"),
    ("EyeLike", [random((2,))], {}, "rank 2"),
    ("BitShift", [ints(1), ints(1)], {"direction": "UP"}, "LEFT, RIGHT"),
    ("Cast", [X], {"to": 24, "round_mode": "odd"}, "nearest"),
    ("DepthToSpace", [random((1, 6, 2, 2))], {"blocksize": 2}, "blocks"),
    ("DepthToSpace", [random((4, 2))], {"blocksize": 2}, "rank 4"),
    ("SpaceToDepth", [random((1, 1, 3, 2))], {"blocksize": 2}, "blocks"),
    ("SpaceToDepth", [random((1, 1, 2, 2))], {"blocksize": 0}, "blocksize of 0"),
    ("ReverseSequence", [X, ints(1)], {}, "sequence_lens"),
    ("GatherND", [X, ints(0)], {"batch_dims": 1}, "batch dims"),
    ("GatherND", [X, np.array(0)], {}, "batch dims"),
    ("ScatterND", [X, ints(0, 0), random((2,))], {}, "updates is of shape"),
    ("ScatterElements", [X, ints(0), random((1,))], {}, "rank 1 for data of rank 2"),
    ("TensorScatter", [random((2, 4, 3)), random((1, 2, 3))], {}, "update is of shape"),
    ("TensorScatter", [random((2, 4, 3)), random((2, 2, 3)), ints(1)], {}, "write_indices"),
    ("NegativeLogLikelihoodLoss", [random((2, 3, 4)), np.zeros((2, 5), np.int64)], {}, "target is of shape"),
    ("NegativeLogLikelihoodLoss", [X, ints(0, 0), random((2,))], {}, "weight is of shape"),
    ("Compress", [X, np.ones((2, 1), bool)], {}, "rank 1"),
    ("Compress", [X, np.ones(3, bool)], {"axis": 0}, "conditions for"),
    ("Col2Im", [random((1, 5, 4)), ints(3, 3), ints(2, 2)], {}, "channels"),
    ("Col2Im", [random((1, 4, 4)), ints(3, 3), ints(2)], {}, "differ in number"),
    ("Add", [X, random((2,))], {}, "broadcast"),
    ("Softmax", [X], {"axis": 2}, "axis 2"),
]


@pytest.mark.parametrize(("op", "inputs", "attrs", "message"), CASES)
def test_invalid_node(op, inputs, attrs, message):
    with pytest.raises(ModelError, match=message):
        run(op, inputs, **attrs)
