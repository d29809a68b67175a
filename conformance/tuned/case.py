"""Tuned kernels as cases: what a device gives as it is, what by its lowering alone, and what an oracle says."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from omniop.backends.base import Device
from omniop.conformance.cases import Asked, DeviceCase
from omniop.conformance.compare import compare_outputs, error_of
from omniop.conformance.oracles import reference_engine
from omniop.conformance.oracles.expected import expect
from omniop.conformance.samples import models
from omniop.conformance.samples.catalogue import catalogue
from omniop.conformance.samples.drawing import limits_of
from omniop.conformance.samples.op import Sample
from omniop.conformance.tolerance import Tolerance, Ulps, tolerance_of, unit
from omniop.conformance.tuned.sized import FED, sized
from omniop.conformance.tuned.twins import plain, recording, run
from omniop.conformance.verdict import Error, Facts
from omniop.dispatcher.precision import OPERANDS, Precision
from omniop.dispatcher.registry import registry
from omniop.opset import dtype as dtypes
from omniop.opset.dtype import DType
from omniop.opset.errors import UnsupportedError

Arrays = Mapping[str, Any]


class Way(NamedTuple):
    """One way to run a case: how, in words, the model, what it is fed and what is expected; the precision that the
    session is asked for."""

    how: str
    model: onnx.ModelProto
    feeds: Arrays
    expected: Arrays
    precision: Precision | None = None


class TunedCase(DeviceCase):
    """A model that is run with its weights fed, and with them constant."""

    @property
    def rounded(self) -> DType | None:
        """What lies between its products is rounded to, where that is less than what its results are."""
        return None

    def ways(self) -> Iterator[Way]:
        """The ways of this case."""
        raise NotImplementedError

    def ask(self, device: str) -> Asked:
        found = registry().device(device)
        reached: dict[str, None] = {}
        worst: Error | None = None
        for way in self.ways():
            reason, error = self._put(found, reached, way)
            worst = error if worst is None or (error and error.ulp > worst.ulp) else worst
            if reason:
                return Asked(f"{way.how}: {reason}", worst, Facts(tuned=tuple(reached)))
        if not reached:
            raise UnsupportedError(f"{device} has no tuned kernel for it")
        return Asked("", worst, Facts(tuned=tuple(reached)))

    def _put(self, device: Device, reached: dict[str, None], way: Way) -> tuple[str, Error | None]:
        """Why the tuned kernels are wrong ("" where they are right), and how far they are off what is expected."""
        if way.precision is not None and way.precision not in device.precisions:
            raise UnsupportedError(f"{device.name} has no products of {way.precision} that are faster than float32's")
        twin, built = recording(device)
        outputs = run(twin, way.model, way.feeds, way.precision)
        reached.update(built)
        if not built:
            return "", None
        error = _of_the_largest(outputs, way.expected, self.rounded)
        if reason := compare_outputs(outputs, way.expected, self.tolerance):
            return reason, error
        by_loops = run(plain(device), way.model, way.feeds, way.precision)
        told = compare_outputs(outputs, by_loops, self.tolerance)
        return f"beside its lowering, {told}" if told else "", error


class SizedCase(TunedCase):
    """One of the models of `omniop.conformance.tuned.sized`."""

    def ways(self) -> Iterator[Way]:
        one, expected = sized()[self.name], self._expected
        arrays = one.feeds()
        yield Way("weights fed", one.model({}), arrays, expected, one.precision)
        weights = {name: array for name, array in arrays.items() if name not in FED}
        if weights:
            fed = {name: array for name, array in arrays.items() if name in FED}
            yield Way("weights constant", one.model(weights), fed, expected, one.precision)

    @property
    def rounded(self) -> DType | None:
        one = sized()[self.name]
        return None if one.precision is None or one.depth == 1 else OPERANDS[one.precision]

    @cached_property
    def _expected(self) -> Arrays:
        """In float64, rounded once, where what is computed is rounded; as it is elsewhere."""
        one = sized()[self.name]
        arrays = one.feeds()
        wide = one.dtype in ("float16", "bfloat16", "float32") and not one.made
        if wide:
            arrays = {n: a.astype(np.float64) if a.dtype.name == one.dtype else a for n, a in arrays.items()}
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = reference_engine(one.model({}, wide))(arrays)
            return {"y": found["y"].astype(dtypes.of_name(one.made or one.dtype).numpy)}

    @property
    def tolerance(self) -> Tolerance:
        """The operator's, with more room for what is left of long sums, and for each product behind another."""
        one, found = sized()[self.name], tolerance_of(self.op)
        if not isinstance(found, Ulps) or not found.scale:
            return found
        scale = found.scale * one.depth * (4 if one.dtype == "float32" else 1)
        if self.rounded is not None:
            narrow, own = (limits_of(d.numpy).eps for d in (self.rounded, dtypes.of_name(one.dtype)))
            scale += (one.depth - 1) * float(narrow) / float(own)
        return replace(found, ulp=found.ulp * one.depth, scale=scale)


class SampledCase(TunedCase):
    """One of the samples of level L1, under another name."""

    def ways(self) -> Iterator[Way]:
        sample = catalogue()[sampled(self.name)]
        model = models.build(sample)
        for number in range(len(sample.sets)):
            feeds = models.feeds(sample, number, model)
            expected = expect(sample, model, feeds)
            yield Way("weights fed", model, feeds, expected)
            if number == 0 and len(feeds) > 1:
                first, *rest = feeds
                constant = _with_constants(model, {name: feeds[name] for name in rest})
                yield Way("weights constant", constant, {first: feeds[first]}, expected)

    @property
    def tolerance(self) -> Tolerance:
        return tolerance_of(self.op)


_OPERATORS = (
    *("Attention", "AveragePool", "Conv", "ConvInteger", "ConvTranspose", "CumSum", "Einsum", "GRU", "Gemm", "LSTM"),
    *("GlobalAveragePool", "MatMul", "MatMulInteger", "MaxPool", "QLinearConv", "QLinearMatMul", "RNN", "TopK"),
    *("FusedConv", "FusedGemm", "FusedMatMul", "GroupQueryAttention", "MatMulNBits", "MultiHeadAttention"),
    *("DynamicQuantizeMatMul", "MatMulIntegerToFloat"),
)
"""Operators that are, or are made of, prims that devices take whole, and those that tuned kernels are written for."""

_EACH = 24
"""How many samples of an operator there are here; level L1 has them all."""

DOMAIN = "tuned"
"""What stands before an operator in reports: that no tuned kernel takes it does not make it unsupported."""

_OWN, _TUNED = "own_", "tuned_sample_"


@cache
def samples() -> tuple[SampledCase, ...]:
    """Samples of those operators, spread over all of them that expect one outcome."""
    found: dict[str, list[Sample]] = defaultdict(list)
    for sample in catalogue().values():
        if sample.op in _OPERATORS and not (sample.refused or sample.draw or sample.text):
            found[sample.key].append(sample)
    chosen = (sample for each in found.values() for sample in each[:: -(-len(each) // _EACH)])
    return tuple(
        SampledCase(f"{_TUNED}{s.name.removeprefix(_OWN)}", "tuned", f"{DOMAIN}::{s.op}", s.dtypes) for s in chosen
    )


def sampled(name: str) -> str:
    """The name of the sample that a case is made of."""
    return f"{_OWN}{name.removeprefix(_TUNED)}"


def _with_constants(model: onnx.ModelProto, arrays: Arrays) -> onnx.ModelProto:
    """The model with some of its inputs constant."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    kept = [value for value in model.graph.input if value.name not in arrays]
    del fixed.graph.input[:]
    fixed.graph.input.extend(kept)
    fixed.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return fixed


def _of_the_largest(outputs: Arrays, expected: Arrays, rounded: DType | None) -> Error | None:
    """The error with its units those of the largest expected value: what is left of a sum may be next to nothing.
    ``rounded``: of what dtype, if not of the value's."""
    error = error_of(outputs, expected)
    if error is None:
        return None
    floats = [v for v in expected.values() if isinstance(v, np.ndarray) and "float" in v.dtype.name and v.size]
    sizes = [np.abs(v.astype(np.float64)) for v in floats]
    dtypes_of = [v.dtype if rounded is None else rounded.numpy for v in floats]
    units = [unit(s[np.isfinite(s)].max(initial=0.0), d) for s, d in zip(sizes, dtypes_of, strict=True)]
    return replace(error, ulp=round(error.absolute / float(max(units)), 2)) if units else error
