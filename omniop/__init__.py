"""omniop: one operator set, ONNX's, on every device.

    import omniop
    session = omniop.load("model.onnx", device="cpu")
    outputs = session.run({"x": array})
    print(session.explain())

Scripts written for ONNX Runtime run with ``import omniop as ort``: see `omniop.ort`.

Importing this package imports nothing else; names are loaded when they are first used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omniop.dispatcher.session import FallbackWarning, Session, ValueInfo
    from omniop.face import DeviceInfo, devices, load
    from omniop.opset.errors import (
        DeviceError,
        ExecutionError,
        FeedError,
        ModelError,
        OmniopError,
        PlacementError,
        UnsupportedError,
    )
    from omniop.ort import (
        ExecutionMode,
        ExecutionOrder,
        GraphOptimizationLevel,
        InferenceSession,
        IOBinding,
        ModelMetadata,
        NodeArg,
        OptionError,
        OrtValue,
        RunOptions,
        SessionOptions,
        disable_telemetry_events,
        enable_telemetry_events,
        get_all_providers,
        get_available_providers,
        get_device,
        set_default_logger_severity,
    )

__version__ = "0.1.0"

_HOME = {
    **dict.fromkeys(("load", "devices", "DeviceInfo"), "omniop.face"),
    **dict.fromkeys(("Session", "ValueInfo", "FallbackWarning"), "omniop.dispatcher.session"),
    **dict.fromkeys(
        (
            *("OmniopError", "ModelError", "FeedError", "PlacementError", "DeviceError"),
            *("UnsupportedError", "ExecutionError"),
        ),
        "omniop.opset.errors",
    ),
    **dict.fromkeys(
        (
            *("InferenceSession", "NodeArg", "ModelMetadata", "IOBinding", "OrtValue", "OptionError"),
            *("SessionOptions", "RunOptions", "GraphOptimizationLevel", "ExecutionMode", "ExecutionOrder"),
            *("get_all_providers", "get_available_providers", "get_device"),
            *("set_default_logger_severity", "disable_telemetry_events", "enable_telemetry_events"),
        ),
        "omniop.ort",
    ),
}
__all__ = [
    "DeviceError",
    "DeviceInfo",
    "ExecutionError",
    "ExecutionMode",
    "ExecutionOrder",
    "FallbackWarning",
    "FeedError",
    "GraphOptimizationLevel",
    "IOBinding",
    "InferenceSession",
    "ModelError",
    "ModelMetadata",
    "NodeArg",
    "OmniopError",
    "OptionError",
    "OrtValue",
    "PlacementError",
    "RunOptions",
    "Session",
    "SessionOptions",
    "UnsupportedError",
    "ValueInfo",
    "devices",
    "disable_telemetry_events",
    "enable_telemetry_events",
    "get_all_providers",
    "get_available_providers",
    "get_device",
    "load",
    "set_default_logger_severity",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'omniop' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
