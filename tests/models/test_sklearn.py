"""scikit-learn's models and pipelines, converted by skl2onnx: omniop gives what scikit-learn gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn import datasets
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.feature_extraction import DictVectorizer
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    KBinsDiscretizer,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    PolynomialFeatures,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR, OneClassSVM
from sklearn.tree import DecisionTreeClassifier

import omniop

pytestmark = [
    pytest.mark.parametrize("device", ["cpu", "opencl"], indirect=True),
    # What scikit-learn means to take away, and what skl2onnx still does with numpy.
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]

OPSETS = {"": 18, "ai.onnx.ml": 3}

Fitted = tuple[BaseEstimator, np.ndarray]
"""A fitted estimator, and rows to try it on."""


@cache
def table(name: str) -> tuple[np.ndarray, np.ndarray]:
    """One of scikit-learn's own data sets, in float32, shuffled."""
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[:400]
    return x[order].astype(np.float32), y[order]


def fitted(model: BaseEstimator, name: str) -> Fitted:
    x, y = table(name)
    return model.fit(x[:300], y[:300]), x[300:] if len(x) > 300 else x[:100]


def session(model: BaseEstimator, device: str, sample: Any, **options: bool) -> omniop.Session:
    """The converted model on a device, from which no node may fall back. Scores are an array unless asked otherwise."""
    if hasattr(model, "predict_proba"):
        options = {"zipmap": False, **options}
    types = {"initial_types": sample} if isinstance(sample, list) else {"X": sample[:1]}
    return omniop.load(to_onnx(model, options=options or None, target_opset=OPSETS, **types), device, fallback="error")


def run(model: BaseEstimator, x: np.ndarray, device: str) -> list[Any]:
    made = session(model, device, x)
    one, all_ = (list(made.run({"X": part}).values()) for part in (x[:1], x))
    for a, b in zip(one, all_, strict=True):  # one row by itself is no different
        assert np.array_equal(a, b[:1]) if a.dtype == object else np.allclose(a, b[:1], rtol=1e-4, atol=1e-5)
    return all_


# Regression -----------------------------------------------------------------------------------------------------------

REGRESSORS: dict[str, Callable[[], BaseEstimator]] = {
    "linear": LinearRegression,
    "polynomial": lambda: make_pipeline(StandardScaler(), PolynomialFeatures(2), LinearRegression()),
    "random forest": lambda: RandomForestRegressor(20, random_state=0),
    "gradient boosting": lambda: GradientBoostingRegressor(n_estimators=40, random_state=0),
    "SVR": lambda: make_pipeline(StandardScaler(), SVR(C=50)),
    "SVR, polynomial kernel": lambda: make_pipeline(StandardScaler(), SVR(kernel="poly", degree=2)),
    "linear SVR": lambda: make_pipeline(StandardScaler(), LinearSVR(random_state=0, max_iter=10000)),
    "Gaussian process": lambda: make_pipeline(
        StandardScaler(), GaussianProcessRegressor(RBF(3.0), alpha=1.0, optimizer=None)
    ),
}


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressor(name: str, device: str) -> None:
    model, x = fitted(REGRESSORS[name](), "diabetes")
    (found,) = run(model, x, device)
    np.testing.assert_allclose(found.reshape(-1), model.predict(x), rtol=2e-3, atol=2e-2)


# Classification -------------------------------------------------------------------------------------------------------

CLASSIFIERS: dict[str, tuple[Callable[[], BaseEstimator], str]] = {
    "logistic regression": (lambda: make_pipeline(StandardScaler(), LogisticRegression()), "iris"),
    "logistic regression of two": (lambda: make_pipeline(StandardScaler(), LogisticRegression()), "breast_cancer"),
    "decision tree": (lambda: DecisionTreeClassifier(random_state=0), "iris"),
    "random forest": (lambda: RandomForestClassifier(20, random_state=0), "digits"),
    # An odd number: no forest is undecided, which rounding would decide.
    "random forest of two": (lambda: RandomForestClassifier(21, random_state=0), "breast_cancer"),
    "gradient boosting": (lambda: GradientBoostingClassifier(n_estimators=10, random_state=0), "wine"),
    "gradient boosting of two": (lambda: GradientBoostingClassifier(n_estimators=10, random_state=0), "breast_cancer"),
    "AdaBoost": (lambda: AdaBoostClassifier(n_estimators=10, random_state=0), "iris"),
    "SVC with probabilities": (
        lambda: make_pipeline(StandardScaler(), SVC(probability=True, random_state=0)),
        "digits",
    ),
    "SVC of two with probabilities": (
        lambda: make_pipeline(StandardScaler(), SVC(probability=True, random_state=0)),
        "breast_cancer",
    ),
    "nearest neighbours": (lambda: make_pipeline(StandardScaler(), KNeighborsClassifier(5)), "iris"),
    "multi-layer perceptron": (
        lambda: make_pipeline(StandardScaler(), MLPClassifier((20,), random_state=0, max_iter=1000)),
        "digits",
    ),
    "naive Bayes": (lambda: make_pipeline(StandardScaler(), GaussianNB()), "wine"),
    "principal components": (
        lambda: make_pipeline(MinMaxScaler(), PCA(20, random_state=0), LogisticRegression(max_iter=500)),
        "digits",
    ),
    "bins": (
        lambda: make_pipeline(KBinsDiscretizer(4, encode="onehot-dense", strategy="uniform"), LogisticRegression()),
        "iris",
    ),
    "normalized, then binarized": (
        lambda: make_pipeline(Normalizer("l1"), Binarizer(threshold=0.2), DecisionTreeClassifier(random_state=0)),
        "iris",
    ),
    "vote": (
        lambda: VotingClassifier(
            [("a", LogisticRegression(max_iter=5000)), ("b", DecisionTreeClassifier(random_state=0))],
            voting="soft",
            flatten_transform=False,
        ),
        "iris",
    ),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier(name: str, device: str) -> None:
    make, data = CLASSIFIERS[name]
    model, x = fitted(make(), data)
    label, scores = run(model, x, device)
    np.testing.assert_allclose(scores, model.predict_proba(x), rtol=1e-3, atol=1e-4)
    assert label.tolist() == model.predict(x).tolist()


def test_decision_function(device: str) -> None:
    """No probabilities: the scores are distances."""
    model, x = fitted(make_pipeline(StandardScaler(), LinearSVC(random_state=0)), "wine")
    label, scores = session(model, device, x, nocl=False).run({"X": x}).values()
    np.testing.assert_allclose(scores, model.decision_function(x), rtol=1e-3, atol=1e-4)
    assert label.tolist() == model.predict(x).tolist()


@pytest.mark.parametrize("model", [IsolationForest(n_estimators=5, random_state=0), OneClassSVM(gamma="auto")], ids=str)
def test_outliers(model: BaseEstimator, device: str) -> None:
    """Away from where the decision is on the edge of a float."""
    model, x = fitted(make_pipeline(StandardScaler(), model), "wine")
    distance = model.decision_function(x)
    label, scores = list(session(model, device, x).run({"X": x}).values())
    np.testing.assert_allclose(scores.reshape(-1), distance, rtol=1e-3, atol=1e-4)
    sure = np.abs(distance) > 1e-4
    assert label.reshape(-1)[sure].tolist() == model.predict(x)[sure].tolist()


# Strings and maps -----------------------------------------------------------------------------------------------------

NAMES = np.array(["setosa", "versicolor", "virginica"])


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(max_iter=5000),
        RandomForestClassifier(10, random_state=0),
        SVC(probability=True, random_state=0),
    ],
    ids=lambda m: type(m).__name__,
)
def test_string_labels(model: BaseEstimator, device: str) -> None:
    x, y = table("iris")
    model.fit(x, NAMES[y])
    label, scores = run(model, x, device)
    assert label.tolist() == model.predict(x).tolist()
    np.testing.assert_allclose(scores, model.predict_proba(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("names", [NAMES, np.array([7, 5, 3])], ids=["strings", "integers"])
def test_zip_map_gives_a_map_a_row(names: np.ndarray, device: str) -> None:
    """The default of skl2onnx."""
    x, y = table("iris")
    model = LogisticRegression(max_iter=5000).fit(x, names[y])
    _, maps = session(model, device, x, zipmap=True).run({"X": x}).values()
    assert [list(m) for m in maps] == [model.classes_.tolist()] * len(x)
    np.testing.assert_allclose([list(m.values()) for m in maps], model.predict_proba(x), rtol=1e-3, atol=1e-4)


def mixed() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Iris with a column that is missing some numbers and two columns of strings, one per name of an input."""
    x, y = table("iris")
    rng = np.random.default_rng(0)
    number = x[:, :2].copy()
    number[rng.random(number.shape) < 0.2] = np.nan
    colour = rng.choice(np.array(["red", "green", "blue"], object), (len(x), 1))
    size = np.where(x[:, 2:3] > 4, "large", "small").astype(object)
    return {"number": number, "colour": colour, "size": size}, y


def test_columns_of_strings_and_of_numbers(device: str) -> None:
    """A ColumnTransformer: imputed and scaled numbers beside one-hot strings, one of them never seen."""
    columns, y = mixed()
    joined = np.hstack([columns["number"].astype(object), columns["colour"], columns["size"]])
    model = make_pipeline(
        ColumnTransformer(
            [
                ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), [0, 1]),
                ("strings", OneHotEncoder(handle_unknown="ignore"), [2, 3]),
            ]
        ),
        LogisticRegression(),
    ).fit(joined, y)
    columns["colour"][3] = joined[3, 2] = "violet"
    types = [
        ("number", FloatTensorType([None, 2])),
        ("colour", StringTensorType([None, 1])),
        ("size", StringTensorType([None, 1])),
    ]
    label, scores = session(model, device, types).run(columns).values()
    np.testing.assert_allclose(scores, model.predict_proba(joined), rtol=1e-3, atol=1e-4)
    assert label.tolist() == model.predict(joined).tolist()


def test_dict_vectorizer(device: str) -> None:
    """A map a run, as the operator has it."""
    from skl2onnx.common.data_types import DictionaryType

    rows: Sequence[dict[str, float]] = [{"a": 1.0, "b": 2.0}, {"b": 0.5, "c": 3.0}, {"c": 1.0}]
    model = DictVectorizer(sparse=False).fit(rows)
    types = [("X", DictionaryType(StringTensorType([1]), FloatTensorType([1])))]
    made = session(model, device, types)
    for row in rows:
        (found,) = made.run({"X": row}).values()
        np.testing.assert_array_equal(found, model.transform([row]))
