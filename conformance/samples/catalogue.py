"""Every sample there is: each operator's functions asked for each version whose signature differs from the next."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import onnx
from onnx.defs import OpSchema

from omniop.conformance import samples
from omniop.conformance.samples.op import FUNCTIONS, Op, Sample, renamed
from omniop.opset.contrib import SCHEMAS

_OLDEST = 7
"""Opsets before this one broadcast by an attribute; exporters have left them behind, and so do the samples."""

_ONCE_ONLY = frozenset(("ai.onnx.ml", "ai.onnx.preview.training", "ai.onnx.preview"))

_MEANT_ANEW: Mapping[str, tuple[int, ...]] = {
    "GroupNormalization": (18,),  # its scale is by group, since 21 by channel
    "Softmax": (11,),
    "LogSoftmax": (11,),
    "Hardmax": (11,),
    "Resize": (10, 11, 13, 18),
    "MaxPool": (8, 10, 11),
    "AveragePool": (7, 10, 11, 19),
    "Cast": (13, 19, 23),
    "BatchNormalization": (9, 14),
    "Clip": (11, 12),
    "RoiAlign": (10, 16),
}
"""Versions that mean something else than the next one under the same signature, or under nearly the same."""


@functools.cache
def catalogue() -> Mapping[str, Sample]:
    """The samples by name, sorted."""
    for module in pkgutil.iter_modules(samples.__path__):
        importlib.import_module(f"{samples.__name__}.{module.name}")
    found: dict[str, Sample] = {}
    numbers: dict[str, int] = defaultdict(lambda: 1)
    for op in ops():
        for function in FUNCTIONS.get((op.domain, op.name), ()):
            for sample in function(op):
                if sample is None:
                    continue
                numbers[sample.name] += 1
                number = numbers[sample.name] - 1
                named = sample if number == 1 else renamed(sample, number)
                found[named.name] = named
    return dict(sorted(found.items()))


def ops() -> Iterator[Op]:
    """The versions of operators that are sampled."""
    history: dict[tuple[str, str], list[OpSchema]] = defaultdict(list)
    for schema in (*onnx.defs.get_all_schemas_with_history(), *SCHEMAS):
        history[schema.domain, schema.name].append(schema)
    for (domain, _), schemas in sorted(history.items()):
        schemas.sort(key=lambda schema: schema.since_version)
        if schemas[-1].deprecated:
            continue
        for schema, after in zip(schemas, [*schemas[1:], None], strict=True):
            lasting = after is not None and domain not in _ONCE_ONLY and after.since_version > _OLDEST
            if after is None or (lasting and _differs(schema, after)):
                yield Op(schema, after is None)


def opset(sample: Sample) -> int:
    """The opset of a sample's model: 17 where its version is in force there, else the nearest to it."""
    versions = _versions(sample.domain, sample.op)
    after = next((version for version in versions if version > sample.version), 1000)
    return min(max(sample.version, 17 if not sample.domain else 1), after - 1)


def schema_of(sample: Sample) -> OpSchema:
    """The schema that a sample is of."""
    return next(schema for schema in _schemas(sample.domain, sample.op) if schema.since_version == sample.version)


@functools.cache
def _schemas(domain: str, name: str) -> tuple[OpSchema, ...]:
    found = [*onnx.defs.get_all_schemas_with_history(), *SCHEMAS]
    return tuple(sorted((s for s in found if (s.domain, s.name) == (domain, name)), key=lambda s: s.since_version))


def _versions(domain: str, name: str) -> tuple[int, ...]:
    return tuple(schema.since_version for schema in _schemas(domain, name))


def _differs(schema: OpSchema, after: OpSchema) -> bool:
    return schema.since_version in _MEANT_ANEW.get(schema.name, ()) or _signature(schema) != _signature(after)


def _signature(schema: OpSchema) -> object:
    attributes: dict[str, Any] = {
        name: (attribute.required, attribute.default_value.SerializeToString())
        for name, attribute in schema.attributes.items()
    }
    return [p.name for p in schema.inputs], [p.name for p in schema.outputs], attributes
