"""ai.onnx.ml: features, labels, linear models, support vectors, trees; maps go in and come out as dicts."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import numpy_helper

from omniop.conformance.samples.drawing import normal, uniform
from omniop.conformance.samples.op import Found, Op, samples
from omniop.opset import dtype as dtypes

_ML = "ai.onnx.ml"
_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


def _weights(seed: int, size: int) -> list[float]:
    """What an attribute holds has to be known where samples are listed."""
    return [float(x) for x in np.random.default_rng(seed).uniform(-1, 1, size).astype(np.float32)]


@samples("ArrayFeatureExtractor", _ML)
def array_feature_extractor(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        for shape, picks in (((3, 5), [0, 4, 2]), ((7,), [6]), ((2, 3, 4), [1, 1])):
            yield op(normal(dtype, *shape), np.array(picks))
        yield op(normal(dtype, 3, 5), np.array([5]), refused=True, tag="out_of_range") if dtype == "float32" else None


@samples("Binarizer Normalizer Scaler", _ML)
def scaling(op: Op) -> Found:
    attributes: dict[str, list[dict[str, Any]]] = {
        "Binarizer": [{}, {"threshold": 1.0}, {"threshold": -0.5}],
        "Normalizer": [{"norm": norm} for norm in ("MAX", "L1", "L2")],
        "Scaler": [
            {"offset": [1.0, 2.0, -1.0, 0.5], "scale": [0.5, 2.0, 1.0, -1.0]},
            {"offset": [1.0], "scale": [3.0]},
        ],
    }
    for dtype in op.dtypes("T"):
        for one in attributes[op.name]:
            for rows in (1, 3, 65):
                outputs = (dtype,) if op.name == "Binarizer" else ("float32",)
                yield op(
                    uniform(dtype, (rows, 4), 1, 9) if op.name == "Normalizer" else normal(dtype, rows, 4),
                    outputs=outputs,
                    **one,
                )


@samples("Imputer", _ML)
def imputer(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        if dtype in op.dtypes("T", kinds="f"):
            x = np.array([[1, np.nan, 3], [np.nan, 5, -6]]).astype(dtype)
            yield op(x, imputed_value_floats=[9.0], replaced_value_float=float("nan"), tag="one")
            yield op(x, imputed_value_floats=[9.0, 8.0, 7.0], replaced_value_float=float("nan"), tag="each")
            yield op(x, imputed_value_floats=[9.0], replaced_value_float=5.0)
        else:
            yield op(normal(dtype, 5, 3), imputed_value_int64s=[4], replaced_value_int64=0)
            yield op(normal(dtype, 5, 3), imputed_value_int64s=[4, 5, 6], replaced_value_int64=1)


@samples("FeatureVectorizer", _ML)
def feature_vectorizer(op: Op) -> Found:
    for dtype in op.dtypes("T1"):
        yield op(normal(dtype, 3, 2), normal(dtype, 3, 4), inputdimensions=[2, 4])
        yield op(normal(dtype, 1, 2), normal(dtype, 1, 1), normal(dtype, 1, 3), inputdimensions=[2, 1, 3])
        yield op(normal(dtype, 3, 2), normal(dtype, 3, 4), inputdimensions=[3, 2], tag="cut_and_padded")


@samples("OneHotEncoder", _ML)
def one_hot_encoder(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        if dtype == "string":
            yield op(normal(dtype, 9), cats_strings=["a", "B", "12"], zeros=1)
            yield op(np.array([["a", "B"], ["B", "a"]], object), cats_strings=["a", "B"], zeros=0)
        else:
            for shape in ((9,), (3, 4)):
                yield op(normal(dtype, *shape), cats_int64s=[-1, 0, 1, 5], zeros=1)
    yield op(np.array([7]), cats_int64s=[1, 2], zeros=0, refused=True)


_KEYED: dict[str, tuple[str, list[Any]]] = {
    "string": ("strings", ["a", "B", "12"]),
    "int64": ("int64s", [0, 3, -2]),
    "float32": ("floats", [0.5, 1.5, 2.5]),
}


_DEFAULTS: dict[str, dict[str, Any]] = {
    **{"string": {"default_string": "?"}, "int64": {"default_int64": 42}, "float32": {"default_float": -7.5}},
}


@samples("LabelEncoder", _ML)
def label_encoder(op: Op) -> Found:
    for source, (keys, given) in _KEYED.items():
        for target, (values, results) in _KEYED.items():
            pairs: dict[str, Any] = {f"keys_{keys}": given, f"values_{values}": results}
            default: dict[str, Any] = _DEFAULTS[target]
            x = np.array([given[0], given[2], given[1], _stranger(source)], object if source == "string" else source)
            yield op(x, outputs=(target,), tag=f"to_{target}", **pairs)
            yield op(x.reshape(2, 2), outputs=(target,), tag=f"to_{target}", **pairs, **default)
    for dtype in ("float64", "int16", "int32"):
        tensors = {
            "keys_tensor": np.array([1, 2, 3]),
            "values_tensor": np.array([5, 6, 7]),
            "default_tensor": np.array([9]),
        }
        protos: dict[str, Any] = {key: numpy_helper.from_array(value.astype(dtype)) for key, value in tensors.items()}
        yield op(
            uniform(dtype, (7,), 0, 4) if dtype != "float64" else np.array([1.0, 3.0, 8.0]), outputs=(dtype,), **protos
        )


def _stranger(dtype: str) -> Any:
    return "nobody" if dtype == "string" else 77


@samples("CategoryMapper", _ML)
def category_mapper(op: Op) -> Found:
    cats: dict[str, Any] = {"cats_strings": ["a", "B", "12"], "cats_int64s": [5, 1, -3]}
    for shape in ((9,), (2, 3)):
        yield op(normal("string", *shape), outputs=("int64",), default_int64=77, **cats)
        yield op(normal("int64", *shape), outputs=("string",), default_string="none", **cats)


@samples("DictVectorizer", _ML)
def dict_vectorizer(op: Op) -> Found:
    for dtype in ("float32", "float64", "int64"):
        scalar = dtypes.of_name(dtype).numpy.type
        yield op(
            {"b": scalar(2), "c": scalar(5)},
            string_vocabulary=["a", "b", "c"],
            outputs=(dtype,),
            tag=f"strings_{dtype}",
        )
        if dtype != "int64":
            yield op({3: scalar(2), 9: scalar(5)}, int64_vocabulary=[1, 3, 9], outputs=(dtype,), tag=f"ints_{dtype}")


@samples("CastMap", _ML)
def cast_map(op: Op) -> Found:
    for to, dtype in (("TO_FLOAT", "float32"), ("TO_INT64", "int64"), ("TO_STRING", "string")):
        yield op({1: "3", 5: "-2"}, cast_to=to, outputs=(dtype,), tag="of_strings")
        yield op({5: np.float32(2.5), 1: np.float32(-3.0)}, cast_to=to, outputs=(dtype,), tag="of_floats")
        yield op({1: "3", 4: "-2"}, cast_to=to, map_form="SPARSE", max_map=6, outputs=(dtype,), tag="sparse")


@samples("ZipMap", _ML)
def zip_map(op: Op) -> Found:
    yield op(normal("float32", 2, 3), classlabels_strings=["a", "b", "c"], outputs=("seq(map)",))
    yield op(normal("float32", 2, 3), classlabels_int64s=[5, 6, -7], outputs=("seq(map)",))
    yield op(normal("float32", 3), classlabels_int64s=[5, 6, -7], outputs=("seq(map)",))


@samples("LinearRegressor", _ML)
def linear_regressor(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        for targets in (1, 3):
            for transform in ("NONE", "SOFTMAX", "LOGISTIC") if dtype == "float32" else ("NONE",):
                yield op(
                    normal(dtype, 5, 4),
                    coefficients=_weights(1, 4 * targets),
                    intercepts=_weights(2, targets),
                    targets=targets,
                    post_transform=transform,
                )


@samples("LinearClassifier", _ML)
def linear_classifier(op: Op) -> Found:
    for dtype in op.dtypes("T1"):
        for classes in (2, 3):
            for transform in _TRANSFORMS[:4] if dtype == "float32" else ("NONE",):
                common: dict[str, Any] = {
                    "coefficients": _weights(3, 4 * classes),
                    "intercepts": _weights(4, classes),
                    "post_transform": transform,
                }
                x = normal(dtype, 5, 4)
                yield op(x, outputs=("int64", "float32"), classlabels_ints=list(range(5, 5 + classes)), **common)
                names = ["x", "y", "z"][:classes]
                yield op(x, outputs=("string", "float32"), classlabels_strings=names, tag="strings", **common)


_KERNELS = ("LINEAR", "POLY", "RBF", "SIGMOID")


@samples("SVMRegressor", _ML)
def svm_regressor(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        for kernel in _KERNELS:
            for one_class in (0, 1) if dtype == "float32" else (0,):
                yield op(
                    normal(dtype, 5, 4),
                    kernel_type=kernel,
                    kernel_params=[0.25, 0.5, 2.0],
                    support_vectors=_weights(5, 12),
                    n_supports=3,
                    coefficients=_weights(6, 3),
                    rho=[0.3],
                    one_class=one_class,
                )


@samples("SVMClassifier", _ML)
def svm_classifier(op: Op) -> Found:
    for dtype in op.dtypes("T1"):
        for kernel in _KERNELS:
            for classes in (2, 3):
                pairs = classes * (classes - 1) // 2
                common: dict[str, Any] = {
                    "kernel_type": kernel,
                    "kernel_params": [0.25, 0.5, 2.0],
                    "vectors_per_class": [2] * classes,
                    "support_vectors": _weights(7, 2 * classes * 4),
                    "coefficients": _weights(8, 2 * classes * (classes - 1)),
                    "rho": _weights(9, pairs),
                }
                x = normal(dtype, 5, 4)
                yield op(x, outputs=("int64", "float32"), classlabels_ints=list(range(classes)), **common)
                chances: dict[str, Any] = {"prob_a": _weights(10, pairs), "prob_b": _weights(11, pairs)}
                yield op(x, outputs=("int64", "float32"), classlabels_ints=list(range(classes)), **common, **chances)
                names = ["x", "y", "z"][:classes]
                yield op(x, outputs=("string", "float32"), classlabels_strings=names, tag="strings", **common)


@samples("TreeEnsemble", _ML)
def tree_ensemble(op: Op) -> Found:
    """Two trees: a branch on each mode over a branch and leaves, and a stump."""
    for dtype in op.dtypes("T"):
        kind = dtypes.of_name(dtype).numpy
        for mode in range(7):
            for aggregate in (0, 1, 2, 3) if dtype == "float32" else (1,):
                splits = numpy_helper.from_array(np.array([0.5, -0.5, 1.0]).astype(kind))
                leaves = numpy_helper.from_array(np.array([0.25, -1.5, 3.0, 0.75, -2.0]).astype(kind))
                attributes: dict[str, Any] = {
                    "n_targets": 2,
                    "aggregate_function": aggregate,
                    "tree_roots": [0, 2],
                    "nodes_featureids": [0, 2, 1],
                    "nodes_splits": splits,
                    "nodes_modes": numpy_helper.from_array(np.array([mode, 0, 0], np.uint8)),
                    "nodes_truenodeids": [1, 0, 3],
                    "nodes_trueleafs": [0, 1, 1],
                    "nodes_falsenodeids": [2, 1, 4],
                    "nodes_falseleafs": [1, 1, 1],
                    "leaf_targetids": [0, 1, 0, 1, 0],
                    "leaf_weights": leaves,
                }
                if mode == 6:
                    attributes["membership_values"] = numpy_helper.from_array(
                        np.array([1, 2, 0.5, np.nan]).astype(kind)
                    )
                steps = np.arange(27).reshape(9, 3) % 7 * 0.5 - 1.0
                yield op(steps.astype(kind), tag=f"mode_{mode}", **attributes)
