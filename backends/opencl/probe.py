"""What an OpenCL device says about itself: its Caps, its fingerprint, and what tunes kernels and compiler for it."""

from __future__ import annotations

import contextlib
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omniop.backends.base import Caps, Fingerprint
from omniop.backends.opencl.driver import opencl
from omniop.opset import dtype as dtypes
from omniop.opset.errors import DeviceError

_INTEGERS = frozenset(d for d in dtypes.ALL if d.is_int and d.bits >= 8)
_POINTER_BYTES = _SIZE_BYTES = 8
_ATOMICS64 = "cl_khr_int64_base_atomics"
_GROUP = 256
_MAX_BUFFERS = 64
"""More would only lengthen launches."""


@dataclass(frozen=True)
class Profile:
    """What decides how a device's kernels are written.

    ``cpu``: a core runs one work item after the other, and vectors are written out; otherwise lanes of a work group
    share local memory. ``vector``: float32 elements of a vector register. ``units``: cores or multiprocessors.
    ``group``: work items of a group that need nothing of each other. ``lanes``: of the largest group that may share a
    row. ``atomic_bits``: widths that combining stores may hit from several work items at once. ``machine``: what a
    binary may depend on that no name tells: two CPUs of one name differ in their instructions.
    """

    cpu: bool
    vector: int
    units: int
    group: int
    lanes: int
    atomic_bits: frozenset[int]
    options: str
    machine: str
    max_alloc: int
    memory: int


def caps(device: Any) -> Caps:
    """Raises DeviceError when the device lacks what every kernel needs."""
    _require(device)
    floats = {dtypes.FLOAT32}
    if device.double_fp_config:
        floats.add(dtypes.FLOAT64)
    basic = _INTEGERS | {dtypes.BOOL} | floats
    return Caps(
        # Every device has vload_half and vstore_half. Arithmetic needs cl_khr_fp16, which may flush subnormal numbers;
        # float32 rounded after every operation gives the same results.
        storage=frozenset(basic | {dtypes.FLOAT16}),
        compute=frozenset(basic),
        max_buffers=min(_MAX_BUFFERS, device.max_parameter_size // (_POINTER_BYTES + _SIZE_BYTES)),
        loops=True,
        atomics=True,
    )


def _require(device: Any) -> None:
    if not device.available or not device.compiler_available:
        raise DeviceError("it has no compiler, or is not available")
    if not device.endian_little:
        raise DeviceError("it is big-endian")
    if device.profile != "FULL_PROFILE" and "cles_khr_int64" not in device.extensions.split():
        raise DeviceError("it has no 64-bit integers")


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
    if device.type & cl.device_type.CPU:
        return f"{platform.machine()} {_vector(device) * 32} bit"
    return "gpu" if device.type & cl.device_type.GPU else "accelerator"


def _vector(device: Any) -> int:
    """float32 elements of a CPU's vectors: a power of two from 4 to 16."""
    return min(16, max(4, 1 << (int(device.native_vector_width_float).bit_length() - 1)))


def _machine() -> str:
    """The processor's features, where Linux lists them."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith(("flags", "features")):
                return line
    return platform.processor()


def profile(device: Any) -> Profile:
    cl = opencl()
    cpu = bool(device.type & cl.device_type.CPU)
    return Profile(
        cpu=cpu,
        vector=_vector(device) if cpu else 1,
        units=device.max_compute_units,
        group=min(_GROUP, device.max_work_group_size),
        lanes=1 if cpu else 1 << (min(_GROUP, device.max_work_group_size).bit_length() - 1),
        atomic_bits=frozenset((32, 64) if _ATOMICS64 in device.extensions.split() else (32,)),
        options=_options(device),
        machine=_machine() if cpu else "",
        max_alloc=device.max_mem_alloc_size,
        memory=device.global_mem_size,
    )


def _options(device: Any) -> str:
    """Contraction is off by a pragma in every source. Division and root are exact wherever that can be asked for."""
    version = re.match(r"OpenCL C (\d+)", device.opencl_c_version)
    options = ["-cl-std=CL3.0" if version and int(version[1]) >= 3 else "-cl-std=CL1.2"]
    if device.single_fp_config & opencl().device_fp_config.CORRECTLY_ROUNDED_DIVIDE_SQRT:
        options.append("-cl-fp32-correctly-rounded-divide-sqrt")
    return " ".join(options)
