"""What our own cases expect, by operator: who is asked, and in which dtypes.

onnx.reference in float64 where the outcome is rounded, as it is where nothing is; numpy in float64 where that lacks an
operator or gets it wrong; ONNX Runtime, in float32 where it has no kernel of the dtype, for what is its own.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper

from omniop.conformance.oracles import NoOracle, onnxruntime_engine, reference_engine
from omniop.conformance.oracles.numeric import FLAT, NUMERIC, activate
from omniop.conformance.samples import models
from omniop.conformance.samples.catalogue import schema_of
from omniop.conformance.samples.op import Sample
from omniop.conformance.samples.training import DERIVATIVES
from omniop.conformance.tolerance import EXACT, tolerance_of
from omniop.opset import dtype as dtypes
from omniop.opset.errors import UnsupportedError

Expected = dict[str, Any]
Feeds = Mapping[str, Any]
Oracle = Callable[[Sample, onnx.ModelProto, Feeds], Expected]

_WIDER = ("float16", "bfloat16", "float32")
_NOT_FLOAT32 = ("float16", "bfloat16", "float64")
_OF_NUMBERS = ("LinearRegressor", "LinearClassifier", "SVMRegressor", "SVMClassifier", "Normalizer", "Scaler")


def expect(sample: Sample, model: onnx.ModelProto, feeds: Feeds) -> Expected:
    """The outputs by name, in their dtypes. Raises what the oracle raises; NoOracle where it does not know them."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return _oracle(sample)(sample, model, feeds)
        except UnsupportedError as error:
            raise NoOracle(str(error)) from error


def _oracle(sample: Sample) -> Oracle:
    if sample.draw:
        return shape_alone
    if sample.key in ORACLES:
        return ORACLES[sample.key]
    if sample.key in NUMERIC and not sample.text:
        return numeric
    if sample.domain == "com.microsoft":
        return runtime
    if sample.domain == "ai.onnx.ml":
        return runtime_or_reference
    if sample.text or tolerance_of(sample.key) == EXACT:
        return reference
    return widened


def reference(sample: Sample, model: onnx.ModelProto, feeds: Feeds) -> Expected:
    """onnx.reference on the model as it is."""
    return dict(reference_engine(model)(feeds))


def widened(sample: Sample, model: onnx.ModelProto, feeds: Feeds) -> Expected:
    """onnx.reference on the model in float64, rounded once to the outputs' dtypes."""
    wide = dict.fromkeys(_WIDER, "float64")
    return _rounded(sample, reference_engine(models.build(sample, retyped=wide), wide=True)(models.retype(feeds, wide)))


def runtime(sample: Sample, model: onnx.ModelProto, feeds: Feeds) -> Expected:
    """ONNX Runtime with its dims given; where it has no kernel of the dtypes, in float32, rounded."""
    try:
        return dict(onnxruntime_engine(models.build(sample, closed=True))(feeds))
    except UnsupportedError:
        learned = ("int32", "int64") if sample.op in _OF_NUMBERS else ()
        wide = dict.fromkeys((*_NOT_FLOAT32, *learned), "float32")
        narrow = models.build(sample, retyped=wide, closed=True)
        return _rounded(sample, onnxruntime_engine(narrow)(models.retype(feeds, wide)))


def runtime_or_reference(sample: Sample, model: onnx.ModelProto, feeds: Feeds) -> Expected:
    """Where ONNX Runtime has no kernel, onnx.reference may."""
    try:
        return runtime(sample, model, feeds)
    except NoOracle:  # without ONNX Runtime nobody knows which ones that are
        raise
    except UnsupportedError:
        return reference(sample, model, feeds)


def numeric(sample: Sample, model: onnx.ModelProto, feeds: Feeds) -> Expected:
    """An oracle in numpy, in float64."""
    found = NUMERIC[sample.key](_attributes(sample), *_inputs(sample, model, feeds, dict.fromkeys(_WIDER, "float64")))
    return _rounded(sample, {f"y{k}": array for k, array in enumerate(found)})


def shape_alone(sample: Sample, model: onnx.ModelProto, feeds: Feeds) -> Expected:
    """Of a random draw: an array of its dtype and shape."""
    shape = sample.attributes.get("shape") or next(iter(feeds.values())).shape
    if sample.op == "Multinomial":
        shape = (shape[0], sample.attributes["sample_size"])
    return {f"y{k}": np.zeros(shape, dtypes.of_name(name).numpy) for k, name in enumerate(sample.outputs)}


# -- single operators ------------------------------------------------------------------------------------------------


def cast(sample: Sample, model: onnx.ModelProto, feeds: Feeds) -> Expected:
    """onnx.reference cannot cast between some of the dtypes below a byte: by way of one that holds every value."""
    if sample.text or feeds["x0"].dtype.name not in _BRIDGES:
        return reference(sample, model, feeds)
    bridge = _BRIDGES[feeds["x0"].dtype.name]
    source = models.retype({"x0": feeds["x0"]}, {feeds["x0"].dtype.name: bridge})
    (target,) = sample.outputs
    if dtypes.of_name(target).kind in "iu" and bridge == "int64":
        return {"y0": source["x0"].astype(dtypes.of_name(target).numpy)}  # wraps
    rounding = {key: value for key, value in sample.attributes.items() if key != "to"}
    node = helper.make_node("Cast", ["x0"], ["y0"], to=dtypes.of_name(target).onnx, **rounding)
    kinds = (("x0", bridge), ("y0", target))
    infos = [helper.make_tensor_value_info(name, dtypes.of_name(dtype).onnx, None) for name, dtype in kinds]
    graph = helper.make_graph([node], "bridge", infos[:1], infos[1:])
    return dict(reference_engine(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)]))(source))


_BRIDGES = {
    **dict.fromkeys(("float8_e8m0fnu", "float6_e2m3fn", "float6_e3m2fn"), "float32"),
    **dict.fromkeys(("int2", "uint2", "int4", "uint4"), "int64"),
}


def cast_map(sample: Sample, model: onnx.ModelProto, feeds: Feeds) -> Expected:
    """Values in the order of their keys; in the sparse form at the places that the keys name, zeros elsewhere."""
    (given,) = feeds.values()
    dtype = dtypes.of_name(sample.outputs[0]).numpy
    if sample.attributes.get("map_form") == "SPARSE":
        places = range(sample.attributes["max_map"])
        blank = next(iter(given.values())).__class__("0")
        values = [given.get(k, blank) for k in places]
    else:
        values = [given[key] for key in sorted(given)]
    if sample.outputs[0] == "string":
        return {"y0": np.array([[str(value) for value in values]], object)}
    return {"y0": np.array([[float(value) for value in values]]).astype(dtype)}


def range_of(sample: Sample, model: onnx.ModelProto, feeds: Feeds) -> Expected:
    """ONNX's, but the step may be left out."""
    start, limit, *delta = _inputs(sample, model, feeds, {})
    return {"y0": np.arange(start[()], limit[()], delta[0][()] if delta else 1).astype(start.dtype)}


def as_onnx(sample: Sample, model: onnx.ModelProto, feeds: Feeds) -> Expected:
    """com.microsoft's operators that are ONNX's by another name."""
    return reference(sample, models.build(replace(sample, domain="", version=_AS_ONNX[sample.op])), feeds)


_AS_ONNX = {"Trilu": 14, "GatherND": 13}


def as_of(version: int) -> Oracle:
    """onnx.reference on a later version, which means the same where the sample is concerned."""

    def run(sample: Sample, model: onnx.ModelProto, feeds: Feeds) -> Expected:
        later = replace(sample, version=max(sample.version, version))
        return reference(later, models.build(later), feeds)

    return run


def grid_sample(sample: Sample, model: onnx.ModelProto, feeds: Feeds) -> Expected:
    """Version 16 spells two modes otherwise."""
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(sample.attributes["mode"], sample.attributes["mode"])
    return widened(replace(sample, version=20, attributes={**sample.attributes, "mode": mode}), model, feeds)


def flat(sample: Sample, model: onnx.ModelProto, feeds: Feeds) -> Expected:
    """Softmax and its kin before version 13."""
    (x,) = _inputs(sample, model, feeds, dict.fromkeys(_WIDER, "float64"))
    return _rounded(sample, {"y0": FLAT[sample.op](_attributes(sample), x)})


def roi_align(sample: Sample, model: onnx.ModelProto, feeds: Feeds) -> Expected:
    """Version 10 does not shift by half a pixel; onnx.reference knows version 16 alone."""
    attributes = {**sample.attributes, "coordinate_transformation_mode": "output_half_pixel"}
    return widened(replace(sample, version=16, attributes=attributes), model, feeds)


def optional(sample: Sample, model: onnx.ModelProto, feeds: Feeds) -> Expected:
    """onnx.reference holds an optional as a list of one."""
    found = reference(sample, model, feeds)
    return {name: value[0] if isinstance(value, list) else value for name, value in found.items()}


def dict_vectorizer(sample: Sample, model: onnx.ModelProto, feeds: Feeds) -> Expected:
    """onnx.reference, as one row of the dtype that the schema has."""
    return {name: row.reshape(1, -1) for name, row in _rounded(sample, reference(sample, model, feeds)).items()}


def _needs_runtime(sample: Sample) -> bool:
    """onnx.reference neither clips, nor couples gates, nor heeds the lengths of sequences."""
    return bool({"clip", "input_forget"} & set(sample.attributes)) or "_lengths_" in sample.name


def unless(applies: Callable[[Sample], bool], other: Oracle, otherwise: Oracle) -> Oracle:
    """``other`` where it applies."""

    def run(sample: Sample, model: onnx.ModelProto, feeds: Feeds) -> Expected:
        return (other if applies(sample) else otherwise)(sample, model, feeds)

    return run


def by_places(sample: Sample, model: onnx.ModelProto, feeds: Feeds) -> Expected:
    """Of elements that onnx.reference cannot move: their places, which it can, and then these."""
    x = feeds["x0"]
    places = {**feeds, "x0": np.arange(x.size, dtype=np.float64).reshape(x.shape)}
    found = reference(sample, models.build(sample, retyped={sample.outputs[0]: "float64"}), places)
    return {name: x.reshape(-1)[place.astype(np.int64)] for name, place in found.items()}


def _is_of_numbers(sample: Sample) -> bool:
    return dtypes.of_name(sample.outputs[0]).kind in "iuf"


def scan_backwards(sample: Sample, model: onnx.ModelProto, feeds: Feeds) -> Expected:
    """onnx.reference walks forwards alone: what is scanned is turned round, or what comes of it."""
    plain = replace(sample, text=re.sub(r", scan_(in|out)put_directions = \[1\]", "", sample.text))
    turned = "xs" if "scan_input_directions" in sample.text else "ys"
    found = reference(plain, models.build(plain), {k: v[::-1] if k == turned else v for k, v in feeds.items()})
    return {k: v[::-1] if k == turned else v for k, v in found.items()}


def qlinear_conv(sample: Sample, model: onnx.ModelProto, feeds: Feeds) -> Expected:
    """Exact in float64, then scaled, rounded half to even, and saturated."""
    x, xs, xz, w, ws, wz, ys, yz, *bias = _inputs(sample, model, feeds, {})
    each = (-1, *(1,) * (w.ndim - 1))
    arrays = {"x": x.astype(np.float64) - float(xz), "w": w.astype(np.float64) - wz.astype(np.float64).reshape(each)}
    node = helper.make_node("Conv", ["x", "w"], ["y"], **sample.attributes)
    infos = [helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, None) for name in ("x", "w", "y")]
    graph = helper.make_graph([node], "conv", infos[:2], infos[2:])
    y = reference_engine(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)]))(arrays)["y"]
    along = (1, -1, *(1,) * (y.ndim - 2))
    y = y + (bias[0].astype(np.float64).reshape(along) if bias else 0.0)
    scaled = np.rint(y * (float(xs) * ws.astype(np.float64).reshape(along if ws.ndim else ()) / float(ys)))
    limits = np.iinfo(yz.dtype)
    return {"y0": np.clip(scaled + float(yz), limits.min, limits.max).astype(yz.dtype)}


def fused_conv(sample: Sample, model: onnx.ModelProto, feeds: Feeds) -> Expected:
    """ONNX's Conv in float64, then what is fused behind it."""
    x, w, *rest = _inputs(sample, model, feeds, dict.fromkeys(_WIDER, "float64"))
    bias, z = [*rest, None, None][:2]
    attributes = _attributes(sample)
    plain = {key: value for key, value in sample.attributes.items() if not key.startswith("activation")}
    arrays = {"x": x, "w": w} | ({} if bias is None else {"b": bias})
    node = helper.make_node("Conv", list(arrays), ["y"], **plain)
    infos = [helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, None) for name in (*arrays, "y")]
    graph = helper.make_graph([node], "conv", infos[:-1], infos[-1:])
    y = reference_engine(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)]))(arrays)["y"]
    y = y + (0.0 if z is None else z)
    y = activate(attributes["activation"], attributes.get("activation_params", []), y)
    return _rounded(sample, {"y0": y})


def gradient(sample: Sample, model: onnx.ModelProto, feeds: Feeds) -> Expected:
    """The derivative by hand."""
    a, b = (array.astype(np.float64) for array in feeds.values())
    formula = DERIVATIVES[next(tag for tag in DERIVATIVES if sample.name.endswith(f"_{tag}"))]
    found = eval(formula, {"np": np, "s": lambda x: 1 / (1 + np.exp(-x))}, {"a": a, "b": b})
    return {"da": np.broadcast_to(found, a.shape).astype(next(iter(feeds.values())).dtype)}


def _attributes(sample: Sample) -> dict[str, Any]:
    schema = schema_of(sample)
    defaults = {
        name: helper.get_attribute_value(attribute.default_value)
        for name, attribute in schema.attributes.items()
        if attribute.default_value.name
    }
    decoded = {name: value.decode() if isinstance(value, bytes) else value for name, value in defaults.items()}
    given = {name: _as_attribute(value) for name, value in sample.attributes.items()}
    return {**decoded, **given}


def _as_attribute(value: Any) -> Any:
    """An attribute's float is of 32 bits."""
    if isinstance(value, list):
        return [_as_attribute(one) for one in value]
    return float(np.float32(value)) if isinstance(value, float) else value


def _inputs(sample: Sample, model: onnx.ModelProto, feeds: Feeds, retyped: Mapping[str, str]) -> list[Any]:
    arrays = models.retype({**models.constants(sample), **feeds}, retyped)
    return [arrays.get(f"x{k}") for k in range(len(sample.sets[0]))]


def _rounded(sample: Sample, found: Mapping[str, Any]) -> Expected:
    """In the outputs' dtypes; integers that were computed in floats are whole already."""
    wanted = {f"y{k}": dtypes.of_name(name).numpy for k, name in enumerate(sample.outputs) if name}
    return {name: np.asarray(found[name]).astype(dtype) for name, dtype in wanted.items()}


ORACLES: Mapping[str, Oracle] = {
    **{"Cast": cast, "CastLike": cast, "QLinearConv": qlinear_conv},
    **{f"com.microsoft::{name}": as_onnx for name in _AS_ONNX},
    "com.microsoft::FusedConv": fused_conv,
    "com.microsoft::Range": range_of,
    "ai.onnx.ml::CastMap": unless(lambda sample: "of_floats" in sample.name, runtime, cast_map),
    "ai.onnx.ml::DictVectorizer": dict_vectorizer,
    "ai.onnx.ml::TreeEnsemble": unless(lambda sample: "float16" in sample.dtypes, reference, runtime),
    "DequantizeLinear": as_of(19),
    **{name: unless(lambda sample: sample.version < 13, flat, widened) for name in ("Softmax", "LogSoftmax")},
    "Hardmax": unless(lambda sample: sample.version < 13, flat, reference),
    "RoiAlign": unless(lambda sample: sample.version < 16, roi_align, widened),
    **dict.fromkeys(("Optional", "OptionalGetElement"), optional),
    **{name: unless(_needs_runtime, runtime, widened) for name in ("RNN", "GRU", "LSTM")},
    "GridSample": unless(lambda sample: sample.version < 20, grid_sample, widened),
    "Resize": unless(
        lambda sample: sample.version < 11,
        runtime,
        unless(lambda sample: not _is_of_numbers(sample), by_places, widened),
    ),
    "Scan": unless(lambda sample: "reverse" in sample.name, scan_backwards, reference),
    "LayerNormalization": unless(lambda sample: sample.version < 17, runtime, widened),
    "ai.onnx.preview.training::Gradient": gradient,
}
"""Operators, by their names in reports, that are none of the general rule's, and who is asked instead."""
