"""Tree ensembles of 100 trees against onnxruntime: ``python benchmarks/tree_ensembles.py [DEVICE]``.

Random forests and gradient boosting of scikit-learn on its digits, for 1 row and for 1000. Both runtimes run on one
thread and take turns; shown are medians of CPU time, of the whole call from numpy to numpy.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier, RandomForestRegressor

import omniop

TREES = 100
ROUNDS = 15
MODELS = {
    "random forest, 10 classes": RandomForestClassifier(TREES, random_state=0),
    "random forest, 1 target": RandomForestRegressor(TREES, random_state=0),
    "gradient boosting, 1 target": GradientBoostingRegressor(n_estimators=TREES, random_state=0),
}


def seconds(run: Callable[[], object], repeats: int) -> float:
    """CPU time of one call."""
    start = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - start) / repeats


def peer(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def main(device: str = "cpu") -> None:
    x, y = load_digits(return_X_y=True)
    x = x[:1000].astype(np.float32)
    print(f"{'':30}{'rows':>6}{device + ', us':>14}{'onnxruntime, us':>18}{'ratio':>8}")
    for name, estimator in MODELS.items():
        estimator.fit(x, y[: len(x)])
        options = {"zipmap": False} if hasattr(estimator, "predict_proba") else None
        model = to_onnx(estimator, x[:1], options=options, target_opset={"": 18, "ai.onnx.ml": 3}).SerializeToString()
        ours, theirs = omniop.load(model, device, fallback="error"), peer(model)
        for rows, repeats in ((1, 100), (1000, 3)):
            feeds = {"X": np.ascontiguousarray(x[:rows])}
            for a, b in zip(ours.run(feeds).values(), theirs.run(None, feeds), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
            times: list[tuple[float, float]] = [
                (seconds(lambda: ours.run(feeds), repeats), seconds(lambda: theirs.run(None, feeds), repeats))  # noqa: B023
                for _ in range(ROUNDS)
            ]
            mine, other = (statistics.median(column) * 1e6 for column in zip(*times, strict=True))
            print(f"{name:30}{rows:>6}{mine:>14.0f}{other:>18.0f}{other / mine:>8.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
