"""LabelEncoder, CategoryMapper, and the operators on maps, which run on the host."""

from __future__ import annotations

import numpy as np
import pytest
from ml_case import agrees, run, same

from omniop.opset.errors import ExecutionError, ModelError

STRINGS = np.array([["b", "?"], ["a", "b"]], object)

SIDES = {
    "floats": ([1.5, -2.0, 7.0], np.array([[1.5, 3.0], [-2.0, 7.0]], np.float32)),
    "int64s": ([4, -1, 9], np.array([[9, 3], [-1, 4]])),
    "strings": (["a", "b", "c"], STRINGS),
}


@pytest.mark.parametrize("keys", SIDES)
@pytest.mark.parametrize("values", SIDES)
def test_label_encoder(keys, values, device):
    attrs = {f"keys_{keys}": SIDES[keys][0], f"values_{values}": SIDES[values][0]}
    agrees("LabelEncoder", [SIDES[keys][1]], device, opset=2, **attrs)


@pytest.mark.parametrize("name", ["default_float", "default_int64", "default_string"])
def test_label_encoder_default(name):
    default = {"default_float": 2.5, "default_int64": 77, "default_string": "nobody"}[name]
    values = {"default_float": "floats", "default_int64": "int64s", "default_string": "strings"}[name]
    attrs = {"keys_int64s": [1, 2, 3], f"values_{values}": SIDES[values][0], name: default}
    agrees("LabelEncoder", [np.array([0, 1, 5])], opset=2, **attrs)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int16, np.float64, np.float32])
def test_label_encoder_by_tensors(dtype):
    keys, values = np.array([3, 1, 2], dtype), np.array([30, 10, 20], dtype)
    attrs = {"keys_tensor": keys, "values_tensor": values, "default_tensor": np.array([-1], dtype)}
    x = np.array([2, 9, 3], dtype)
    same(run("LabelEncoder", [x], opset=4, **attrs)[0], np.array([20, -1, 30], dtype))


def test_label_encoder_of_many_keys(device):
    """Keys are found by bisection: at the ends, between, and beyond; of equal keys the last one counts."""
    keys = [*range(-40, 40, 2), 6]
    x = np.arange(-45, 45)
    wanted = np.array([800 if v == 6 else v * 10 if v in keys else -1 for v in x.tolist()])
    attrs = {"keys_int64s": keys, "values_int64s": [*(k * 10 for k in keys[:-1]), 800]}
    same(run("LabelEncoder", [x], device, opset=4, **attrs)[0], wanted)


def test_thousands_of_keys():
    """The bisection's expression grows with their logarithm, and is written out once."""
    keys = np.random.default_rng(0).permutation(30000) * 3
    x = np.array([0, 1, 89997, 90000, -3])
    attrs = {"keys_tensor": keys, "values_tensor": keys + 1, "default_tensor": np.array([-1])}
    same(run("LabelEncoder", [x], "cpu", opset=4, **attrs)[0], np.array([1, -1, 89998, -1, -1]))


@pytest.mark.parametrize("values", ["int64s", "strings"])
def test_nan_is_a_key(values, device):
    attrs = {"keys_floats": [1.0, float("nan"), 2.0], f"values_{values}": SIDES[values][0]}
    agrees("LabelEncoder", [np.array([np.nan, 2, 5], np.float32)], device, opset=4, **attrs)


def test_label_encoder_1():
    agrees("LabelEncoder", [STRINGS], opset=1, classes_strings=["a", "b"], default_int64=9)
    agrees("LabelEncoder", [np.array([1, 0, 7])], opset=1, classes_strings=["a", "b"], default_string="none")


@pytest.mark.parametrize(
    ("words", "attrs"),
    [
        ("2 keys for 1 values", {"keys_int64s": [1, 2], "values_int64s": [1]}),
        ("one of keys_floats", {"values_int64s": [1]}),
        ("one of values_floats", {"keys_int64s": [1], "values_int64s": [1], "values_floats": [1.0]}),
        ("keys of float32 for an input of int64", {"keys_floats": [1.0], "values_int64s": [1]}),
        (
            "default_tensor is float32",
            {"keys_int64s": [1], "values_int64s": [1], "default_tensor": np.array([1], np.float32)},
        ),
    ],
)
def test_label_encoder_wants_attributes_that_fit(words, attrs):
    with pytest.raises(ModelError, match=words):
        run("LabelEncoder", [np.array([1])], opset=4, **attrs)


def test_category_mapper(device):
    attrs = {"cats_strings": ["a", "b"], "cats_int64s": [7, 5]}
    agrees("CategoryMapper", [STRINGS], device, default_int64=-9, **attrs)
    agrees("CategoryMapper", [np.array([5, 6, 7])], device, default_string="?", **attrs)
    with pytest.raises(ModelError, match="1 integers for 2 strings"):
        run("CategoryMapper", [STRINGS], device, cats_strings=["a", "b"], cats_int64s=[7])


# Maps -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [{"classlabels_int64s": [3, 7]}, {"classlabels_strings": ["n", "y"]}])
def test_zip_map(labels, device):
    scores = np.array([[0.25, 0.75], [1.0, 0.0]], np.float32)
    agrees("ZipMap", [scores], device, **labels)
    assert run("ZipMap", [scores[0]], device, **labels)[0] == [
        dict(zip(next(iter(labels.values())), [0.25, 0.75], strict=True))
    ]


def test_zip_map_wants_a_label_a_column():
    with pytest.raises(ModelError, match="for 3 class labels"):
        run("ZipMap", [np.zeros((2, 2), np.float32)], classlabels_int64s=[1, 2, 3])
    with pytest.raises(ModelError, match="one of classlabels_int64s, classlabels_strings is needed, and 0 are there"):
        run("ZipMap", [np.zeros((2, 2), np.float32)])


def test_dict_vectorizer():
    agrees("DictVectorizer", [{"c": 1.5, "z": 2.5}], string_vocabulary=["a", "c", "b", "z"])
    agrees("DictVectorizer", [{5: 1.5, 3: 2.5}], int64_vocabulary=[3, 4, 5])


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({3: 4, 5: 8}, np.array([[4, 0, 8]])),
        ({3: np.float64(0.5)}, np.array([[0.5, 0, 0]])),
        ({3: "x", 4: "y"}, np.array([["x", "y", ""]], object)),
    ],
    ids=["int64", "double", "string"],
)
def test_dict_vectorizer_keeps_the_type_of_the_values(row, expected):
    """onnxruntime takes no such maps from Python."""
    same(run("DictVectorizer", [row], int64_vocabulary=[3, 4, 5])[0], expected)


def test_dict_vectorizer_knows_its_keys():
    with pytest.raises(ExecutionError, match="the key 9 is not in the vocabulary"):
        run("DictVectorizer", [{9: 1.0}], int64_vocabulary=[3, 4])


@pytest.mark.parametrize("cast_to", ["TO_FLOAT", "TO_INT64"])
@pytest.mark.parametrize("form", [{}, {"map_form": "SPARSE", "max_map": 6}])
def test_cast_map(cast_to, form):
    agrees("CastMap", [{4: 2.0, 1: 3.5}], cast_to=cast_to, **form)


def test_cast_map_of_strings():
    same(run("CastMap", [{4: "x", 1: "y"}], cast_to="TO_STRING")[0], np.array([["y", "x"]], object))
    same(run("CastMap", [{4: "2", 1: "3"}], cast_to="TO_INT64")[0], np.array([[3, 2]]))


@pytest.mark.parametrize(
    ("row", "words", "attrs"),
    [
        ({9: 1.0}, r"the key 9 is outside of 0..5", {"map_form": "SPARSE", "max_map": 6}),
        ({-1: 1.0}, r"the key -1 is outside of 0..5", {"map_form": "SPARSE", "max_map": 6}),
        ({1: "x"}, "could not convert", {"cast_to": "TO_FLOAT"}),
    ],
)
def test_cast_map_of_bad_data(row, words, attrs):
    with pytest.raises(ExecutionError, match=words):
        run("CastMap", [row], **attrs)


def test_cast_map_wants_known_names():
    with pytest.raises(ModelError, match="known are TO_FLOAT"):
        run("CastMap", [{1: 1.0}], cast_to="TO_BOOL")
