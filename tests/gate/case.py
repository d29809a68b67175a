"""What a gate case is, and the short ways to write one down."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

from omniop.conformance.compare import compare_outputs
from omniop.conformance.oracles import ENGINES
from omniop.conformance.tolerance import Relative

IR_VERSION = 10
Feeds = dict[str, Any]
Oracle = str | Callable[[Feeds], Mapping[str, Any]]
"""An engine's name (``reference``: onnx.reference, ``onnxruntime``), or a numpy function of the feeds."""


@dataclass(frozen=True, eq=False)
class GateCase:
    """A model, feeds, and what must come of them: ``expected``, or an error of the type ``raises``.

    ``second`` names an oracle that agrees with the first, so that an expectation never rests on one implementation;
    it is None where the other oracles are wrong or lack the operator, and the case says so beside it.
    Cases that share one ``model`` object are the same model at several shapes.
    """

    name: str
    model: onnx.ModelProto = field(repr=False)
    feeds: Feeds = field(repr=False)
    oracle: Oracle = "reference"
    second: str | None = "onnxruntime"
    raises: type[Exception] | None = None
    rtol: float = 1e-4
    atol: float = 1e-5

    @property
    def op(self) -> str:
        """The operator of the gate's list that this is a case of."""
        return self.name.split("/")[0]

    @functools.cached_property
    def expected(self) -> dict[str, Any]:
        """The outputs by name, in graph order."""
        if self.raises is not None:
            raise ValueError(f"{self.name} has no outputs: it raises {self.raises.__name__}")
        return self._ask(self.oracle)

    @property
    def second_opinion(self) -> dict[str, Any]:
        """The outputs by the second oracle."""
        if self.second is None:
            raise ValueError(f"{self.name} has no second oracle")
        return self._ask(self.second)

    def _ask(self, oracle: Oracle) -> dict[str, Any]:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # oracles divide by zero where a case says so
            return dict(oracle(self.feeds) if callable(oracle) else ENGINES[oracle](self.model)(self.feeds))

    def mismatch(self, outputs: Mapping[str, Any]) -> str | None:
        """Why ``outputs`` are not what this case expects, or None."""
        return compare_outputs(outputs, self.expected, Relative(self.rtol, self.atol))


def model(graph: str, opset: int = 21, /, **weights: np.ndarray) -> onnx.ModelProto:
    """A checked model from ONNX's text form of a graph; ``weights`` become its initialisers."""
    text = f'<ir_version: {IR_VERSION}, opset_import: ["": {opset}]> {graph}'
    proto = parser.parse_model(text)
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.checker.check_model(proto)
    return proto


def cases(name: str, proto: onnx.ModelProto, feeds: Mapping[str, Feeds], **options: Any) -> list[GateCase]:
    """One case a set of feeds, all of one model: ``name/label``; ``options`` go to each case."""
    return [GateCase(f"{name}/{label}", proto, given, **options) for label, given in feeds.items()]


def normal(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    """Normally distributed values, the same on every call."""
    return np.asarray(np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def integers(*shape: int, low: int, high: int, dtype: Any = np.int64, seed: int = 0) -> np.ndarray:
    """Integers of ``low`` .. ``high - 1``, the same on every call."""
    return np.asarray(np.random.default_rng(seed).integers(low, high, shape)).astype(dtype)
