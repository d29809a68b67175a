"""pyopencl, used in one place where its public names cost too much or leave files behind.

- A failed ``Program.build`` from source saves the source in the temporary folder, and a build that only warned makes a
  Python warning: `compile_source` and `load_binary` do neither.
- ``Kernel.set_args`` takes 40 us for five numbers; the calls that its own generated code makes take one (`launch.py`).
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from omniop.backends.opencl import icd
from omniop.opset.errors import DeviceError


@functools.cache
def opencl() -> ModuleType:
    """pyopencl, imported once the drivers are visible to its loader. Raises DeviceError when it is not installed."""
    icd.make_visible()
    try:
        import pyopencl
    except ImportError as error:
        raise DeviceError(f"OpenCL needs pyopencl ({error}); install omniop[opencl] or omniop[opencl-cpu]") from None
    module: ModuleType = pyopencl
    return module


class BuildError(Exception):
    """The compiler refused; the message is its log."""


def compile_source(context: Any, source: str, options: str) -> Any:
    """A built program. Raises BuildError."""
    return _build(opencl()._Program(context, source), options)


def load_binary(context: Any, binary: bytes, options: str) -> Any:
    """A built program from `binary_of` an earlier one. Raises BuildError when the driver refuses it."""
    cl = opencl()
    try:
        program = cl._Program(context, list(context.devices), [binary])
    except cl.Error as error:
        raise BuildError(str(error)) from None
    return _build(program, options)


def _build(program: Any, options: str) -> Any:
    cl = opencl()
    try:
        program._build(options=options.encode(), devices=None)
    except cl.Error as error:
        raise BuildError(_log(program) or str(error)) from None
    return program


def _log(program: Any) -> str:
    cl = opencl()
    device = program.get_info(cl.program_info.DEVICES)[0]
    try:
        return str(program.get_build_info(device, cl.program_build_info.LOG)).strip()
    except cl.Error:
        return ""


def binary_of(program: Any) -> bytes:
    """What `load_binary` takes; empty when the driver gives none."""
    binaries = program.get_info(opencl().program_info.BINARIES)
    return bytes(binaries[0]) if binaries else b""


def kernels_of(program: Any) -> dict[str, Any]:
    """Every kernel of a built program by name."""
    return {kernel.get_info(opencl().kernel_info.FUNCTION_NAME): kernel for kernel in program.all_kernels()}
