"""What an OpenCL device says about itself: its Caps, its fingerprint, and what tunes kernels and compiler for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from omniop.backends.base import Caps, Fingerprint
from omniop.backends.opencl.driver import opencl
from omniop.opset import dtype as dtypes
from omniop.opset.errors import DeviceError

_INTEGERS = frozenset(d for d in dtypes.ALL if d.is_int and d.bits >= 8)
_POINTER_BYTES = _SIZE_BYTES = 8
_MAX_BUFFERS = 64
"""More would only lengthen launches."""


@dataclass(frozen=True)
class Profile:
    """What decides how a device's kernels are written.

    ``cpu``: one core runs a work item after the other, and vectors are written out; otherwise lanes of a work group share local
    memory. ``vector``: float32 elements of a vector register. ``units``: cores or multiprocessors.
    """

    cpu: bool
    vector: int
    units: int
    options: str
    max_alloc: int
    memory: int


def caps(device: Any) -> Caps:
    """Raises DeviceError when the device lacks what every kernel needs."""
    _require(device)
    extensions = set(device.extensions.split())
    floats = {dtypes.FLOAT32}
    if device.double_fp_config:
        floats.add(dtypes.FLOAT64)
    half = {dtypes.FLOAT16} if _computes_half(device, extensions) else set()
    basic = _INTEGERS | {dtypes.BOOL} | floats
    return Caps(
        storage=frozenset(basic | {dtypes.FLOAT16}),  # by vload_half and vstore_half, which every device has
        compute=frozenset(basic | half),
        max_buffers=min(_MAX_BUFFERS, device.max_parameter_size // (_POINTER_BYTES + _SIZE_BYTES)),
        loops=True,
        atomics="cl_khr_int64_base_atomics" in extensions,
    )


def _require(device: Any) -> None:
    if not device.available or not device.compiler_available:
        raise DeviceError("it has no compiler, or is not available")
    if not device.endian_little:
        raise DeviceError("it is big-endian")
    if device.profile != "FULL_PROFILE" and "cles_khr_int64" not in device.extensions.split():
        raise DeviceError("it has no 64-bit integers")


def _computes_half(device: Any, extensions: set[str]) -> bool:
    """Half arithmetic as IEEE 754 has it, with subnormal numbers: a device that flushes them computes in float32."""
    config = opencl().device_fp_config
    wanted = config.DENORM | config.INF_NAN | config.ROUND_TO_NEAREST
    return "cl_khr_fp16" in extensions and device.half_fp_config & wanted == wanted


def fingerprint(device: Any) -> Fingerprint:
    return Fingerprint(
        vendor=device.vendor.strip(),
        name=device.name.strip(),
        arch=_arch(device),
        driver=f"{device.platform.name.strip()} {device.driver_version.strip()}",
    )


def _arch(device: Any) -> str:
    """The generation where a vendor tells it, otherwise the kind of device."""
    cl = opencl()
    if "cl_nv_device_attribute_query" in device.extensions.split():
        return f"sm_{device.compute_capability_major_nv}{device.compute_capability_minor_nv}"
    return str(cl.device_type.to_string(device.type)).lower()


def profile(device: Any) -> Profile:
    cl = opencl()
    cpu = bool(device.type & cl.device_type.CPU)
    return Profile(
        cpu=cpu,
        vector=min(16, max(4, 1 << (device.native_vector_width_float.bit_length() - 1))) if cpu else 1,
        units=device.max_compute_units,
        options=_options(device),
        max_alloc=device.max_mem_alloc_size,
        memory=device.global_mem_size,
    )


def _options(device: Any) -> str:
    """Contraction is off by a pragma in every source. Division and square root are exact wherever that can be asked for."""
    version = re.match(r"OpenCL C (\d+)", device.opencl_c_version)
    options = ["-cl-std=CL3.0" if version and int(version[1]) >= 3 else "-cl-std=CL1.2"]
    if device.single_fp_config & opencl().device_fp_config.CORRECTLY_ROUNDED_DIVIDE_SQRT:
        options.append("-cl-fp32-correctly-rounded-divide-sqrt")
    return " ".join(options)
