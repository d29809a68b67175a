"""Features of ai.onnx.ml made ready for a model."""

from __future__ import annotations

import numpy as np
import pytest
from harness import random
from ml_case import agrees, run, same

from omniop.opset.errors import ExecutionError, ModelError

NUMBERS = [np.float32, np.float64, np.int64, np.int32]


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("threshold", [0.0, 0.5, -1.0, 2.5])
def test_binarizer(dtype, threshold):
    x = random((3, 4), dtype)
    same(run("Binarizer", [x], threshold=threshold)[0], (x > threshold).astype(dtype))


@pytest.mark.parametrize(("threshold", "expected"), [(1e12, 0), (-1e12, 1), (float("nan"), 0)])
def test_binarizer_beyond_the_range_of_integers(threshold, expected):
    same(run("Binarizer", [np.array([-5, 5], np.int32)], threshold=threshold)[0], np.full(2, expected, np.int32))


def test_features_on_each_device(device):
    x = random((5, 3))
    agrees("Binarizer", [x], device, threshold=0.5)
    agrees("Scaler", [x], device, offset=[1.0, -1.0, 0.5], scale=[2.0, 0.5, 1.0])
    agrees("Normalizer", [x], device, norm="L2")
    agrees("Imputer", [np.where(x > 1, np.nan, x)], device, imputed_value_floats=[9.0], replaced_value_float=np.nan)
    agrees("ArrayFeatureExtractor", [x, np.array([2, 0, 2])], device)
    agrees("FeatureVectorizer", [x, random((5, 2), seed=1)], device, inputdimensions=[3, 2])
    agrees("OneHotEncoder", [np.array([[7, 1], [3, 5]])], device, cats_int64s=[1, 3, 7])


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.int32])
@pytest.mark.parametrize("shape", [(4,), (1, 4), (2, 4)])
def test_array_feature_extractor(dtype, shape):
    agrees("ArrayFeatureExtractor", [random(shape, dtype), np.array([[3, 0, 0]])])


def test_array_feature_extractor_of_strings():
    x = np.array([["a", "b", "c"], ["d", "e", "f"]], object)
    agrees("ArrayFeatureExtractor", [x, np.array([2, 0])])


@pytest.mark.parametrize("index", [3, -1, -(1 << 40), 1 << 40])
def test_array_feature_extractor_out_of_range(index, device):
    with pytest.raises(ExecutionError, match="index is outside"):
        run("ArrayFeatureExtractor", [random((2, 3)), np.array([0, index])], device)


def test_array_feature_extractor_of_strings_out_of_range():
    with pytest.raises(ExecutionError, match="index is outside"):
        run("ArrayFeatureExtractor", [np.array([["a", "b"]], object), np.array([-1])])
    with pytest.raises(ExecutionError, match="which is empty"):
        run("ArrayFeatureExtractor", [np.zeros((2, 0), np.float32), np.array([0])])


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("count", [1, 3])
def test_scaler(dtype, count):
    agrees("Scaler", [random((4, 3), dtype)], offset=[0.5, 1.0, -2.0][:count], scale=[2.0, 3.0, 0.1][:count])


def test_scaler_wants_arrays_that_fit():
    with pytest.raises(ModelError, match=r"offset has 2 elements for .*3 features"):
        run("Scaler", [random((4, 3))], offset=[0.5, 1.0], scale=[2.0, 3.0])
    with pytest.raises(ModelError, match="offset has 1 elements, and 3 are needed"):
        run("Scaler", [random((4, 3))], offset=[0.5], scale=[1.0, 2.0, 3.0])


@pytest.mark.parametrize("norm", ["MAX", "L1", "L2"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_normalizer(norm, dtype):
    x = np.abs(random((4, 3), dtype)) if norm == "L2" else random((4, 3), dtype)
    x[1] = 0
    agrees("Normalizer", [x], norm=norm)


def test_normalizer_keeps_signs():
    """onnxruntime agrees for a matrix; a vector is one row."""
    x = np.array([3.0, -4.0], np.float32)
    same(run("Normalizer", [x], norm="L2")[0], x / 5)
    with pytest.raises(ModelError, match="norm is 'L3'; known are MAX, L1, L2"):
        run("Normalizer", [x], norm="L3")
    with pytest.raises(ModelError, match=r"\[N, F\] or \[F\] is needed"):
        run("Normalizer", [random((2, 2, 2))])


@pytest.mark.parametrize("values", [[1.5], [1.5, 2.5, 3.5]])
@pytest.mark.parametrize("missing", [float("nan"), 2.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_imputer_of_floats(values, missing, dtype):
    x = np.array([[1, 2, np.nan], [np.nan, 2, 3]], dtype)
    expected = np.where(np.isnan(x) if missing != missing else x == missing, np.array(values, np.float32), x)
    same(run("Imputer", [x], imputed_value_floats=values, replaced_value_float=missing)[0], expected.astype(dtype))


def test_imputer_of_integers():
    agrees("Imputer", [np.array([[1, 2], [2, 3]])], imputed_value_int64s=[7, 8], replaced_value_int64=2)
    (found,) = run("Imputer", [np.array([[1, 2]], np.int32)], imputed_value_int64s=[7], replaced_value_int64=2)
    same(found, np.array([[1, 7]], np.int32))


@pytest.mark.parametrize(
    ("words", "attrs"),
    [
        ("takes imputed_value_floats", {}),
        ("takes imputed_value_floats", {"imputed_value_int64s": [1]}),
        ("2 elements for .*3 features", {"imputed_value_floats": [1.0, 2.0]}),
    ],
)
def test_imputer_wants_arrays_that_fit(words, attrs):
    with pytest.raises(ModelError, match=words):
        run("Imputer", [random((2, 3))], **attrs)


def test_imputed_values_fit_the_type():
    with pytest.raises(ModelError, match="does not fit into int32"):
        run("Imputer", [np.zeros((2, 3), np.int32)], imputed_value_int64s=[1 << 40])


@pytest.mark.parametrize("dtype", NUMBERS)
def test_feature_vectorizer(dtype):
    """Inputs are cut or filled up; a vector is a row."""
    agrees("FeatureVectorizer", [random((2, 3), dtype), random((2, 2), dtype, seed=1)], inputdimensions=[3, 2])
    (found,) = run("FeatureVectorizer", [random((2, 3), dtype)] * 2, inputdimensions=[2, 4])
    x = random((2, 3), dtype).astype(np.float32)
    same(found, np.hstack([x[:, :2], x, np.zeros((2, 1), np.float32)]))
    same(run("FeatureVectorizer", [random((3,), dtype)])[0], random((3,), dtype).astype(np.float32)[None])


def test_feature_vectorizer_wants_a_width_for_each_input():
    with pytest.raises(ModelError, match="inputdimensions has 1 elements, and 2 are needed"):
        run("FeatureVectorizer", [random((2, 3))] * 2, inputdimensions=[3])
    with pytest.raises(ModelError, match="negative"):
        run("FeatureVectorizer", [random((2, 3))], inputdimensions=[-1])


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(4,), (4, 1), (2, 2)])
def test_one_hot_encoder(dtype, shape):
    x = np.array([1, 5, 3, -2], dtype).reshape(shape)
    agrees("OneHotEncoder", [x], cats_int64s=[5, 1, -2])


def test_one_hot_encoder_of_int32():
    """onnxruntime lacks it."""
    (found,) = run("OneHotEncoder", [np.array([1, 5, 3, -2], np.int32)], cats_int64s=[5, 1, -2])
    same(found, np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1]], np.float32))


def test_one_hot_encoder_of_strings(device):
    x = np.array([["b"], ["a"], ["?"]], object)
    agrees("OneHotEncoder", [x], device, cats_strings=["a", "b", "c"])


def test_a_category_must_be_known_where_zeros_are_not_allowed(device):
    with pytest.raises(ExecutionError, match="is of no category"):
        run("OneHotEncoder", [np.array([1, 4])], device, cats_int64s=[1, 2], zeros=0)
    same(run("OneHotEncoder", [np.array([2])], device, cats_int64s=[1, 2], zeros=0)[0], np.array([[0, 1]], np.float32))
    with pytest.raises(ExecutionError, match="is of no category"):
        run("OneHotEncoder", [np.array(["a", "x"], object)], device, cats_strings=["a", "b"], zeros=0)


def test_one_hot_encoder_wants_categories_of_its_input():
    with pytest.raises(ModelError, match="takes cats_int64s"):
        run("OneHotEncoder", [np.array([1])])
    with pytest.raises(ModelError, match="categories of numbers"):
        run("OneHotEncoder", [np.array(["a"], object)], cats_int64s=[1])
