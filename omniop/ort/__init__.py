"""onnxruntime's call shape: ``import omniop as ort`` (or ``import omniop.ort as ort``) in a script written for it.

| module | what it has |
| --- | --- |
| `session` | InferenceSession, NodeArg, ModelMetadata |
| `options` | SessionOptions, RunOptions and their enums: what each option means here, or why it is refused |
| `providers` | execution providers, and the devices that they are here |
| `binding` | IOBinding, OrtValue |

Semantics are those of ONNX Runtime's Python API (https://onnxruntime.ai/docs/api/python/api_summary.html), but for two
things: a mistake raises one of omniop's errors, and an option that would be ignored is refused unless ignoring it
changes no result.
"""

from __future__ import annotations

from omniop.ort.binding import IOBinding, OrtValue
from omniop.ort.options import (
    ExecutionMode,
    ExecutionOrder,
    GraphOptimizationLevel,
    OptionError,
    RunOptions,
    SessionOptions,
    disable_telemetry_events,
    enable_telemetry_events,
    set_default_logger_severity,
)
from omniop.ort.providers import get_all_providers, get_available_providers, get_device
from omniop.ort.session import InferenceSession, ModelMetadata, NodeArg

__all__ = [
    "ExecutionMode",
    "ExecutionOrder",
    "GraphOptimizationLevel",
    "IOBinding",
    "InferenceSession",
    "ModelMetadata",
    "NodeArg",
    "OptionError",
    "OrtValue",
    "RunOptions",
    "SessionOptions",
    "disable_telemetry_events",
    "enable_telemetry_events",
    "get_all_providers",
    "get_available_providers",
    "get_device",
    "set_default_logger_severity",
]
