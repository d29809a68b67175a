"""Linear models and support vector machines of ai.onnx.ml, against onnxruntime."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from harness import random
from ml_case import agrees, run, same
from sklearn.datasets import load_iris
from sklearn.svm import SVC

from omniop.opset.errors import ModelError

TRANSFORMS = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"]
X = random((6, 3), scale=0.3)


def numbers(count: int, seed: int = 1, low: float = -1.0) -> list[float]:
    return np.random.default_rng(seed).uniform(low, 1.0, count).astype(np.float32).tolist()


def probabilities(transform: str) -> dict[str, list[float]]:
    """Coefficients whose scores lie between 0 and 1, which PROBIT needs."""
    if transform != "PROBIT":
        return {"coefficients": numbers(9), "intercepts": numbers(3, 2)}
    return {"coefficients": [0.01] * 9, "intercepts": [0.3, 0.5, 0.7]}


# Linear ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_linear_regressor(transform, device):
    agrees("LinearRegressor", [X], device, targets=3, post_transform=transform, **probabilities(transform))


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_one_target_is_transformed_by_probit_alone(transform):
    given = probabilities(transform)
    agrees(
        "LinearRegressor",
        [X],
        coefficients=given["coefficients"][:3],
        intercepts=given["intercepts"][:1],
        post_transform=transform,
    )


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int32])
def test_linear_models_of_other_types(dtype):
    """onnxruntime has the regressor for floats alone."""
    x, weights = random((4, 3), dtype), numbers(9)
    (found,) = run("LinearRegressor", [x], targets=3, coefficients=weights)
    same(found, (x @ np.reshape(weights, (3, 3)).T).astype(np.float32))
    agrees("LinearClassifier", [x], outputs=2, classlabels_ints=[5, 6, 7], **probabilities("NONE"))


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("labels", [{"classlabels_ints": [7, 5, 6]}, {"classlabels_strings": ["c", "a", "b"]}])
def test_linear_classifier(transform, labels, device):
    agrees("LinearClassifier", [X], device, outputs=2, post_transform=transform, **labels, **probabilities(transform))


@pytest.mark.parametrize("transform", TRANSFORMS[:-1])
@pytest.mark.parametrize("labels", [{"classlabels_ints": [7, 5]}, {"classlabels_strings": ["no", "yes"]}, {}])
def test_linear_classifier_of_one_row(transform, labels):
    """Without labels there is one score, and the label is 0 or 1."""
    attrs = {"coefficients": numbers(3), "intercepts": [0.1], "post_transform": transform}
    agrees("LinearClassifier", [X], outputs=2, **attrs, **labels)


def test_probit_of_a_made_pair():
    """Each of the pair is transformed; onnxruntime leaves the second one unwritten."""
    x = np.array([[0.25], [0.5]], np.float32)
    attrs = {"coefficients": [1.0], "classlabels_ints": [0, 1], "post_transform": "PROBIT"}
    label, scores = run("LinearClassifier", [x], outputs=2, **attrs)
    assert label.tolist() == [1, 1]
    np.testing.assert_allclose(scores[:, 0], -scores[:, 1], atol=1e-6)
    np.testing.assert_allclose(scores[:, 1], [-0.6744898, 0], atol=2e-3)  # the normal distribution's own quantiles


def test_a_vector_is_one_row():
    x = random((3,))
    same(run("LinearRegressor", [x], coefficients=[1.0, 2.0, 3.0])[0], (x @ np.float32([1, 2, 3])).reshape(1, 1))


@pytest.mark.parametrize(
    ("op", "words", "attrs"),
    [
        ("LinearRegressor", "4 coefficients for 1 rows of scores", {"coefficients": numbers(4)}),
        ("LinearRegressor", "0 coefficients", {}),
        (
            "LinearRegressor",
            "intercepts has 2 elements, and 1 are",
            {"coefficients": [1.0] * 3, "intercepts": [1.0] * 2},
        ),
        ("LinearRegressor", "post_transform is 'TANH'", {"coefficients": [1.0] * 3, "post_transform": "TANH"}),
        ("LinearClassifier", "7 coefficients", {"coefficients": numbers(7), "intercepts": [1.0, 1.0]}),
        (
            "LinearClassifier",
            "the class labels has 3 elements, and 2 are needed",
            {"coefficients": numbers(6), "intercepts": [1.0, 1.0], "classlabels_ints": [1, 2, 3]},
        ),
        ("LinearClassifier", "the class labels has 1", {"coefficients": numbers(3), "classlabels_ints": [1]}),
    ],
)
def test_linear_models_want_arrays_that_fit(op, words, attrs):
    with pytest.raises(ModelError, match=words):
        run(op, [X], outputs=2 if op == "LinearClassifier" else 1, **attrs)


# Support vectors ------------------------------------------------------------------------------------------------------

KERNELS = ["LINEAR", "POLY", "RBF", "SIGMOID"]
PARAMS = {"kernel_params": [0.4, 0.2, 2.0]}


def machine(classes: int, **more):
    """Of ``classes`` with 2, 3, ... support vectors."""
    per_class = list(range(2, 2 + classes))
    count, pairs = sum(per_class), len(list(combinations(range(classes), 2)))
    return {
        "vectors_per_class": per_class,
        "support_vectors": numbers(3 * count, 3),
        "coefficients": numbers((classes - 1) * count, 4),
        "rho": numbers(pairs, 5),
        **PARAMS,
        **more,
    }


def platt(classes: int) -> dict[str, list[float]]:
    pairs = classes * (classes - 1) // 2
    return {"prob_a": numbers(pairs, 6, -2.0), "prob_b": numbers(pairs, 7)}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("one_class", [0, 1])
def test_svm_regressor(kernel, one_class, device):
    attrs = {"n_supports": 4, "support_vectors": numbers(12), "coefficients": numbers(4, 2), "rho": [0.1]}
    agrees("SVMRegressor", [X], device, kernel_type=kernel, one_class=one_class, **attrs, **PARAMS)


def test_svm_regressor_without_support_vectors():
    agrees("SVMRegressor", [X], coefficients=numbers(3), rho=[0.25], **PARAMS)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_svm_classifier(kernel, classes):
    labels = [9, 5, 7, 3][:classes]
    agrees("SVMClassifier", [X], outputs=2, kernel_type=kernel, classlabels_ints=labels, **machine(classes))


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_svm_probabilities(classes, device):
    labels = ["e", "d", "c", "b", "a"][:classes]
    attrs = machine(classes, kernel_type="RBF", classlabels_strings=labels, **platt(classes))
    agrees("SVMClassifier", [X], device, outputs=2, **attrs)


@pytest.mark.parametrize("transform", TRANSFORMS[:-1])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("probability", [False, True])
def test_svm_transforms(transform, classes, probability):
    attrs = machine(classes, classlabels_ints=[5, 6, 7][:classes], **(platt(classes) if probability else {}))
    agrees("SVMClassifier", [X], outputs=2, post_transform=transform, **attrs)


@pytest.mark.parametrize("transform", TRANSFORMS[:-1])
def test_svm_classifier_of_liblinear(transform):
    attrs = {"coefficients": numbers(9), "rho": [0.1], "classlabels_ints": [7, 8, 9], "post_transform": transform}
    agrees("SVMClassifier", [X], outputs=2, **attrs, **PARAMS)


@pytest.mark.filterwarnings(
    "ignore:.*(probability|probA_|probB_):FutureWarning"
)  # what scikit-learn means to take away
def test_probabilities_are_libsvms():
    """In double precision, of ten classes: the same number of steps."""
    x, y = load_iris(return_X_y=True)
    x, y = x[:, :3], np.arange(len(x)) % 10
    model = SVC(probability=True, random_state=0).fit(x, y)
    attrs = {
        "support_vectors": model.support_vectors_.reshape(-1).tolist(),
        "vectors_per_class": model.n_support_.tolist(),
        "coefficients": model.dual_coef_.reshape(-1).tolist(),
        "rho": model.intercept_.tolist(),
        "kernel_params": [model._gamma, 0.0, 3.0],
        "prob_a": model.probA_.tolist(),
        "prob_b": model.probB_.tolist(),
    }
    label, found = run("SVMClassifier", [x], outputs=2, kernel_type="RBF", **attrs)
    np.testing.assert_allclose(found, model.predict_proba(x), atol=1e-4)
    assert label.tolist() == model.predict(x).tolist()


def without(attrs, *names):
    return {k: v for k, v in attrs.items() if k not in names}


@pytest.mark.parametrize(
    ("words", "attrs"),
    [
        ("support_vectors has 24 elements for 9 vectors", machine(3) | {"support_vectors": numbers(24)}),
        ("coefficients has 17 elements, and 18", machine(3) | {"coefficients": numbers(17)}),
        ("rho has 2 elements, and 3", machine(3) | {"rho": [0.0, 0.0]}),
        ("vectors_per_class \\[9\\], and two classes", machine(3) | {"vectors_per_class": [9]}),
        ("vectors_per_class \\[-2, 11\\]", machine(3) | {"vectors_per_class": [-2, 11]}),
        ("support_vectors has 27 elements for 1073741824", machine(3) | {"vectors_per_class": [1 << 29, 1 << 29, 0]}),
        ("prob_a has 1 elements, and 0 or 3", machine(3, prob_a=[1.0], prob_b=[1.0])),
        ("prob_b has 2 elements, and 3", machine(3, prob_a=[1.0] * 3, prob_b=[1.0] * 2)),
        ("kernel_params has 2 elements, and 0 or 3", machine(3) | {"kernel_params": [1.0, 2.0]}),
        ("the class labels has 2 elements, and 0 or 3", machine(3, classlabels_ints=[1, 2])),
        ("kernel_type is 'TANH'", machine(3, kernel_type="TANH")),
        ("no support_vectors", without(machine(3), "vectors_per_class")),
        ("rho, and", {"coefficients": numbers(3)}),
        ("5 coefficients", {"coefficients": numbers(5), "rho": [0.0]}),
    ],
)
def test_svm_classifier_wants_arrays_that_fit(words, attrs):
    with pytest.raises(ModelError, match=words) as caught:
        run("SVMClassifier", [X], outputs=2, **attrs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "attrs"),
    [
        ("rho has 0 elements, and 1", {"coefficients": numbers(3)}),
        ("support_vectors has 5", {"n_supports": 2, "support_vectors": numbers(5), "coefficients": [1.0, 1.0]}),
        ("coefficients has 1 elements, and 2", {"n_supports": 2, "support_vectors": numbers(6), "coefficients": [1.0]}),
        ("support_vectors has 0", {"n_supports": -3, "coefficients": [1.0]}),
    ],
)
def test_svm_regressor_wants_arrays_that_fit(words, attrs):
    rho = {} if "rho" in words else {"rho": [0.0]}
    with pytest.raises(ModelError, match=words):
        run("SVMRegressor", [X], **attrs, **rho)
