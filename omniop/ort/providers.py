"""Execution providers: onnxruntime's names and omniop's own, and the devices that they are here.

| provider | device |
| --- | --- |
| CPUExecutionProvider | cpu |
| CUDAExecutionProvider, {"device_id": n} | cuda, or cuda:n |
| a name of `omniop.devices()` | that device |

Other providers of onnxruntime are skipped with a FallbackWarning, as onnxruntime skips one that its build lacks; a
name that neither knows is a DeviceError.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omniop.dispatcher.registry import registry
from omniop.dispatcher.session import Fallback, FallbackWarning
from omniop.opset.errors import DeviceError
from omniop.ort.options import OptionError

CPU = "CPUExecutionProvider"
DEVICES: Mapping[str, str] = {"CUDAExecutionProvider": "cuda", CPU: "cpu"}
"""Device of each provider that has one, best first."""

ELSEWHERE = (
    *("TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider", "MIGraphXExecutionProvider"),
    *("ROCMExecutionProvider", "OpenVINOExecutionProvider", "DnnlExecutionProvider", "QNNExecutionProvider"),
    *("VitisAIExecutionProvider", "CANNExecutionProvider", "CoreMLExecutionProvider", "DmlExecutionProvider"),
    *("NnapiExecutionProvider", "XnnpackExecutionProvider", "WebGpuExecutionProvider", "WebNNExecutionProvider"),
    *("JsExecutionProvider", "RknpuExecutionProvider", "ACLExecutionProvider", "ArmNNExecutionProvider"),
    *("VSINPUExecutionProvider", "SNPEExecutionProvider", "TvmExecutionProvider", "AzureExecutionProvider"),
)
"""Providers of onnxruntime that are no device of omniop's."""

DEVICE_ID = "device_id"
OPTIONS: Mapping[str, str] = {
    DEVICE_ID: "the number of the device: 1 of CUDAExecutionProvider is cuda:1",
    **dict.fromkeys(
        ("arena_extend_strategy", "gpu_mem_limit", "use_ep_level_unified_stream", "has_user_compute_stream"),
        "without effect: memory is planned when a shape is first seen, and there is no arena",
    ),
    **dict.fromkeys(
        (
            *("cudnn_conv_algo_search", "cudnn_conv_use_max_workspace", "cudnn_conv1d_pad_to_nc1d", "use_tf32"),
            *("do_copy_in_default_stream", "tunable_op_enable", "tunable_op_tuning_enable", "prefer_nhwc"),
            *("enable_cuda_graph", "enable_skip_layer_norm_strict_mode", "use_arena"),
        ),
        "without effect: it chooses among kernels that omniop does not have",
    ),
}
"""Options of a provider, and what each comes to; others are refused."""

Given = Sequence[str | tuple[str, Mapping[Any, Any]]]


@dataclass(frozen=True)
class Chosen:
    """Devices in order of preference, and the providers as they were called, each with its options."""

    devices: list[str]
    providers: dict[str, dict[str, str]]


def get_all_providers() -> list[str]:
    """Every provider name that is understood, whether there is a device for it or not."""
    return [*DEVICES, *ELSEWHERE]


def get_available_providers() -> list[str]:
    """onnxruntime's names of the devices that are there, best first."""
    return [name for name, device in DEVICES.items() if _missing(device) is None]


def get_device() -> str:
    """ "GPU" where there is a GPU for CUDAExecutionProvider, else "CPU"."""
    return "CPU" if get_available_providers()[0] == CPU else "GPU"


def choose(providers: Given | None, provider_options: Sequence[Mapping[Any, Any]] | None, fallback: Fallback) -> Chosen:
    """The devices of ``providers``; of none, the CPU.

    With a ``fallback`` the CPU stands in for providers that are not there, told in a FallbackWarning unless it is
    "silent". Raises DeviceError for an unknown one, OptionError for an option that cannot be honoured.
    """
    chosen = Chosen([], {})
    for name, options in _pairs(providers, provider_options):
        device = _device(name, options)
        missing = _missing(device) if device is not None else "omniop has no device for it"
        if missing is None and device is not None:
            chosen.devices.append(device)
            chosen.providers[name] = options
        elif name not in DEVICES and name not in ELSEWHERE:
            raise DeviceError(f"there is no provider {name!r}: {missing}; {_available()}")
        elif fallback == "error":
            raise DeviceError(f"provider {name!r} is not available: {missing}; {_available()}")
        elif fallback == "warn":
            text = f"provider {name!r} is not available and is passed over: {missing}; {_available()}"
            warnings.warn(text, FallbackWarning, stacklevel=4)
    if not chosen.devices:
        chosen.devices.append(DEVICES[CPU])
        chosen.providers[CPU] = {}
    return chosen


def _pairs(
    providers: Given | None, provider_options: Sequence[Mapping[Any, Any]] | None
) -> list[tuple[str, dict[str, str]]]:
    """(name, options) of each provider, the first mention of a name counting."""
    given: list[Any] = [providers] if isinstance(providers, str) else list(providers or [CPU])
    if provider_options is not None:
        if len(provider_options) != len(given) or not all(isinstance(p, str) for p in given):
            raise OptionError("provider_options: one mapping for each of providers, which are then names alone")
        given = list(zip(given, provider_options, strict=True))
    pairs: dict[str, dict[str, str]] = {}
    for provider in given:
        match provider:
            case str() as name:
                pairs.setdefault(name, {})
            case (str() as name, Mapping() as options):
                pairs.setdefault(name, {str(key): str(value) for key, value in options.items()})
            case _:
                raise OptionError(f"a provider is a name, or a name with a mapping of options, not {provider!r}")
    return list(pairs.items())


def _device(name: str, options: Mapping[str, str]) -> str | None:
    """The name of a provider's device; None for one that is a device of onnxruntime's alone."""
    if name in ELSEWHERE:
        return None
    for key in options:
        if key not in OPTIONS:
            raise OptionError(f"provider {name!r} has no option {key!r}; known are: {', '.join(OPTIONS)}")
    device, number = DEVICES.get(name, name), options.get(DEVICE_ID)
    if number is None or ":" in device or (device == DEVICES[CPU] and number == "0"):
        return device
    if not number.isdecimal():
        raise OptionError(f"provider {name!r}: {DEVICE_ID} is a number, not {number!r}")
    return f"{device}:{number}"


def _missing(device: str) -> str | None:
    """Why a device cannot be used."""
    try:
        registry().device(device)
    except DeviceError as error:
        return str(error).partition("; available:")[0]
    return None


def _available() -> str:
    own = ", ".join(d.name for d in registry().devices())
    return f"available: {', '.join(get_available_providers())}, and by omniop's own names {own}"
